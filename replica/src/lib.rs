//! lockstep-replica
