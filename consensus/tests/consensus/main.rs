//! The core against the paper: stories, a test for each rule, counting, a small network under a seed, a model checker, and twins.

mod counting;
mod desk;
mod explore;
mod heights;
mod model;
mod network;
mod paper;
mod stories;
mod twins;
mod world;
