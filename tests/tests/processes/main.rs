//! Whole networks of real processes: killed, stopped, damaged and attacked.

mod damage;
mod hostile;
mod kill;
mod stop;
