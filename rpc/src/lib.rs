//! lockstep-rpc
