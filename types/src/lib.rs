//! lockstep-types
