//! lockstep-bench
