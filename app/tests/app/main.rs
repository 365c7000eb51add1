//! The state, the host and the bundled applications, against models and oracles that share no code with them.

mod bundled;
mod common;
mod contract;
mod host;
mod kv;
mod members;
mod membership;
mod proofs;
mod record;
mod snapshot;
mod token;
mod token_bank;
mod token_model;
mod tree;
