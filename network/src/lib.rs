//! lockstep-network
