//! lockstep-app
