//! lockstep-storage
