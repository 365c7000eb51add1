//! lockstep-sync
