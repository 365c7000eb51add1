//! The state, the host and the bundled applications, against models and oracles that share no code with them.

mod bundled;
mod common;
mod contract;
mod host;
mod kv;
mod members;
mod membership;
mod membership_walk;
mod node_txs;
mod proofs;
mod record;
mod replayed;
mod rotation;
mod snapshot;
mod token;
mod token_bank;
mod token_model;
mod town;
mod tree;
