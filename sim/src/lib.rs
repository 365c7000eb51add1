//! lockstep-sim

pub mod disk;
