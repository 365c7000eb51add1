//! Evidence on the disk: what was seen or judged outlives a restart, of one node or of all at once.
//!
//! It lies in the block log, as a record of its own kind beside what it is about, so it has the log's checksums, its sync and its
//! pruning, which waits until evidence of a segment's heights has expired. A record is written once and never taken back: that a
//! block carried the piece, or that it expired, is what [`super::rules::judge`] says of it when a start reads it. So what is read is
//! judged like what a peer tells, and believed no earlier.
//!
//! Two votes are written as soon as they were counted, before anybody can know the time of their block, which evidence must say. What
//! the chain knows is filled in when they are read.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use lockstep_storage::log::{Kind, LogError, LogReader};
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::evidence::DuplicateVote;
use lockstep_types::{Address, Commit, Evidence, Hash, Height, Polka, Power, Round, Time, Vote};

use crate::recovery::RecoveryError;
use crate::seam::LogRecord;

/// First byte of a record.
const VERSION: u8 = 1;
/// Records that a start reads, the newest. A third of the power lies in no more than a few dozen names; what is older than so many
/// was carried, has expired, or is told by others.
pub const KEPT_MAX: usize = 256;
/// Bytes of these records together.
pub const KEPT_BYTES_MAX: u64 = 16 << 20;

/// A record of evidence.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Kept {
    /// Two votes of one validator for one place, as consensus counted them.
    Seen(Box<(Vote, Vote)>) = 1,
    /// A piece that was judged.
    Piece(Box<Evidence>) = 2,
    /// A certificate that contradicts the one of this log, verified: nothing that a block carries, and what `lockstep inspect` names
    /// the culprits by.
    Certificate(Box<Commit>) = 3,
    /// A polka of the same height that a peer keeps. Its signatures were not looked at.
    Polka(Box<Polka>) = 4,
}

impl Kept {
    /// The height that must be committed before it can be judged.
    pub fn height(&self) -> Height {
        match self {
            Self::Seen(votes) => votes.0.height,
            Self::Piece(piece) => piece.height(),
            Self::Certificate(commit) => commit.height,
            Self::Polka(polka) => polka.height,
        }
    }

    /// A record from its payload.
    ///
    /// # Errors
    /// When another version wrote it.
    pub fn from_payload(payload: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(VERSION, payload, payload.len())
    }

    /// What goes into the log.
    pub fn record(&self) -> LogRecord {
        let payload = codec::encode(VERSION, self);
        LogRecord {
            kind: Kind::Evidence,
            height: self.height(),
            round: Round::ZERO,
            block_hash: Hash::of(&payload),
            payload: Bytes::from(payload),
        }
    }

    /// The piece, to be completed from the chain and judged; none where it is nothing for a block.
    pub fn into_evidence(self) -> Option<Evidence> {
        Some(match self {
            Self::Certificate(_) | Self::Polka(_) => return None,
            Self::Piece(piece) => *piece,
            Self::Seen(votes) => {
                let (vote_a, vote_b) = *votes;
                // All but the votes is derived from the chain.
                let nobody = Address([0; 20]);
                let (total_power, validator_power) = (Power::ZERO, Power::ZERO);
                let timestamp = Time::from_unix_nanos(0);
                Evidence::DuplicateVote(Box::new(DuplicateVote {
                    vote_a,
                    vote_b,
                    address: nobody,
                    total_power,
                    validator_power,
                    timestamp,
                }))
            }
        })
    }
}

/// The newest records of a log that a block may carry, in the order in which they were written.
///
/// # Errors
/// When the disk fails, a record rotted, or another version wrote it.
pub fn load(log: &LogReader) -> Result<Vec<Kept>, RecoveryError> {
    let mut bytes = 0u64;
    let mut found = Vec::new();
    for entry in log.evidence().iter().rev().take(KEPT_MAX) {
        bytes = bytes.saturating_add(u64::from(entry.payload_bytes));
        if bytes > KEPT_BYTES_MAX {
            break;
        }
        let stored = match log.read(entry) {
            Err(LogError::Pruned { .. }) => continue,
            read => read?,
        };
        let kept = Kept::from_payload(&stored.payload);
        let kept = kept.map_err(|error| RecoveryError::Record { what: "the evidence", height: entry.height, error })?;
        if matches!(kept, Kept::Seen(_) | Kept::Piece(_)) {
            found.push(kept);
        }
    }
    found.reverse();
    Ok(found)
}
