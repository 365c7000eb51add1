//! Whole networks of real processes: killed, stopped, frozen, damaged, flooded, lied to and attacked.
//!
//! With `LOCKSTEP_KEEP` set, homes and logs stay in the folder for temporary files.

mod audit;
mod copied;
mod damage;
mod flood;
mod freeze;
mod hostile;
mod kill;
mod members;
mod proxy;
mod pruning;
mod state_sync;
mod stop;
