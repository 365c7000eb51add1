//! The network against itself over real loopback sockets, and against a peer that breaks the rules.
//!
//! Every wait is for an event; the deadline only turns a hang into a failure.

mod formats;
mod gossip;
mod hostile;
mod lanes;
mod lockfile;
mod mesh;
mod refusals;
mod schedule;
mod support;
