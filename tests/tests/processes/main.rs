//! Whole networks of real processes: killed, stopped, frozen, damaged, flooded, lied to and attacked.

mod audit;
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
