//! lockstep-genesis
