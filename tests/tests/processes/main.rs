//! Whole networks of real processes: killed, stopped, frozen, damaged and attacked.

mod damage;
mod freeze;
mod hostile;
mod kill;
mod stop;
