//! What a chain starts from: its first validators and parameters, fully checked, and the contents of a new node's files.
//!
//! Everything here is a function of bytes that somebody else read: no file is opened, no clock is asked, no random number
//! drawn. Genesis and key files have CometBFT's JSON shapes, both ways, so that a chain's operators keep their tools; what
//! Lockstep adds stands in one group of its own. Defaults are filled in while a genesis is [parsed](Genesis::parse) and
//! nowhere later: a running node knows only what its genesis says.
//!
//! The schema with every unit, bound and default, and the bytes that the genesis hash covers, are in
//! `docs/format-genesis.md`.
//!
//! - [`genesis`]: the genesis itself, its rules and its hash;
//! - [`params`]: the consensus parameters as JSON, for the genesis and for whoever shows them to clients;
//! - [`keys`]: key files, and the signing state that another node left behind;
//! - [`home`]: the files of new nodes, and names for new chains.

pub mod genesis;
pub mod home;
mod json;
pub mod keys;
pub mod params;

pub use genesis::{Genesis, GenesisDraft, GenesisValidator};
pub use json::FieldError;

/// Why a genesis is refused: the field, its value, the rule it breaks.
pub type GenesisError = FieldError;
