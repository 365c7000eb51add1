//! The core against the paper: stories, a test for each rule, counting, a small network under a seed, and a model checker.

mod counting;
mod desk;
mod heights;
mod model;
mod network;
mod paper;
mod stories;
mod world;
