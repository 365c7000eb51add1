//! lockstep-mempool
