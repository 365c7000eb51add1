//! What is hashed, signed and compared: heights, keys, votes, validator sets, blocks, certificates, evidence.
//!
//! Everything here is a value. There is no IO, no clock and no randomness, so a verdict reached here is reached
//! everywhere. Two families of bytes leave this crate:
//!
//! - what third parties recompute (hashes, sign-bytes) follows the Tendermint specification, block protocol 11, and is
//!   written with [`proto`];
//! - what only our nodes read (wire, log, database) is [`borsh`] behind a version byte, read with [`codec`].
//!
//! The map, from the bottom up: [`primitives`] and [`time`](mod@time) name the quantities, [`crypto`] gives the one
//! verdict on signatures, [`merkle`] and [`proto`] the shapes that are hashed, [`quorum`] the thresholds. On these stand
//! [`validators`], [`vote`], [`commit`], [`block`], [`evidence`], [`audit`], [`params`] and [`abci`]. [`light`] verifies a chain from
//! outside, [`state_tree`] proves what the application's state holds, and [`text`] says what may not be in names that people read.

pub mod abci;
pub mod audit;
pub mod bft_time;
pub mod block;
pub mod codec;
pub mod commit;
pub mod crypto;
pub mod domain;
pub mod evidence;
pub mod light;
pub mod merkle;
pub mod params;
pub mod planted;
pub mod primitives;
pub mod proto;
pub mod quorum;
pub mod state_tree;
pub mod text;
pub mod time;
pub mod validators;
pub mod vote;

pub use abci::{Event, EventAttribute, TxResult, ValidatorUpdate};
pub use block::{Block, BlockId, Header, Part, PartSetHeader, Tx, Version};
pub use commit::{Commit, CommitSig, Polka};
pub use crypto::{PrivateKey, PublicKey, Signature};
pub use evidence::Evidence;
pub use params::ConsensusParams;
pub use primitives::{Address, AppHash, ChainId, Hash, Height, NodeId, Power, Round, ValidatorIndex};
pub use time::Time;
pub use validators::{Validator, ValidatorSet};
pub use vote::{Proposal, Verified, Vote, VoteType};
