//! The stores on real files. What a power cut does to them is tested with the simulator's disk, in `sim/tests`.

mod common;
mod files;
mod guard;
mod log;
mod quarantine;
mod results;
mod state;
