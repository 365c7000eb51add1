//! The replica record (frozen fields): what a replica must know beside the application's state to go on from a snapshot.
//!
//! It is an entry of the state, under a key of the node, written at checkpoint heights only (so that an empty block leaves
//! the root as it is). Whoever restores a snapshot of such a height restores it with everything else, covered by the root
//! in a certified header. No chain makes checkpoints yet, so no state holds one; the layout is fixed beforehand because it
//! is hashed.

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::state_tree::VALUE_BYTES_MAX;
use lockstep_types::{Address, ConsensusParams, Hash, Height, Power, Time, ValidatorSet, ValidatorUpdate};

/// The key of the record: the reserved prefix and `replica`.
pub const RECORD_KEY: &[u8] = b"\x00replica";

/// First byte of the record.
const VERSION: u8 = 1;

/// Everything of a replica that is a function of the chain and not of the application. All of it as after the record's
/// height H.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReplicaRecord {
    /// H. The record stays in the state until the next checkpoint, so it says which height it speaks of.
    pub height: Height,
    /// The set of H + 1, with priorities.
    pub validators: ValidatorSet,
    /// The set of H + 2, with priorities.
    pub next_validators: ValidatorSet,
    /// All parameters in force at H + 1.
    pub parameters: ConsensusParams,
    /// Number of the view of H + 1: how often membership changed since genesis.
    pub view: u64,
    /// Evidence that blocks up to H committed and that has not expired, in block order: none of it is committed again.
    pub committed_evidence: Vec<CommittedEvidence>,
    /// For each validator of the set of H + 1, in set order.
    pub attendance: Vec<Attendance>,
    /// For each of the last W heights at which power moved, oldest first.
    pub power_moved: Vec<PowerMoved>,
    /// Updates that would move too much power now, in the order they came.
    pub waiting: Vec<Waiting>,
    /// Hash of the results of block H.
    pub last_results_hash: Hash,
}

/// A piece of evidence in a block, as much of it as is needed to know it again and to forget it when it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CommittedEvidence {
    /// Hash of the evidence (`encoding.md` section 8).
    pub hash: Hash,
    /// Height of the misbehaviour.
    pub height: Height,
    /// Time of our block at that height.
    pub time: Time,
}

/// Whether a validator is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Attendance {
    /// The validator.
    pub address: Address,
    /// The last height whose commit it signed; zero for none.
    pub last_signed: Height,
    /// Round-0 proposer slots it had since then.
    pub slots: u32,
    /// How many of those it missed.
    pub missed_slots: u32,
}

/// Power that changed hands at one height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PowerMoved {
    /// The height whose block changed it.
    pub height: Height,
    /// Total power before.
    pub total_before: Power,
    /// Sum of all increases and decreases.
    pub moved: Power,
}

/// An update that waits until less power has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Waiting {
    /// The height whose block asked for it.
    pub since: Height,
    /// What it asks.
    pub update: ValidatorUpdate,
}

impl ReplicaRecord {
    /// The bytes that stand in the state: a version byte and borsh.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }

    /// The record from its bytes.
    ///
    /// # Errors
    /// When they are not exactly one record.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(VERSION, bytes, VALUE_BYTES_MAX)
    }
}
