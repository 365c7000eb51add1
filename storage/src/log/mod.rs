//! The block log: bodies, proposals, polkas, decisions and evidence, in the order in which they were written. The commit point.
//!
//! **Segments.** The log is a row of files `<sequence of its first record>.seg`, closed by size at a height boundary (right
//! after a decision); one that was not filled ahead, as the first, when one that was is ready. A segment gets its name only when its
//! header is durable and everything before it is, so of all segments only the last can be torn. Closed ones are unlinked whole, oldest
//! first, when they are pruned.
//!
//! **Torn or rotten?** A record that does not verify is one of two things. Torn: it was being written when the power went
//! and nobody was told that it is durable; it is cut off. Rotten: it was durable once, somebody acted on it, and cutting it
//! off would forget that. Every record carries the highest sequence number that was durable when it was written, so a later
//! record convicts an earlier one: what a valid record says was durable and does not verify is [`LogError::Rot`]. The last
//! records have none after them, so a *mark* follows when the log is closed, and when it was opened without one.
//! Rot between a sync and the next record, in a log that lost power there, looks like a tear and is cut off; the vote guard
//! then stands more than one height above the log, and the node is silent until its peers give it what is missing.
//!
//! **Checksums.** A CRC-32 over the header finds the next record quickly. SHA-256 over header and payload is what is
//! believed: one damaged record in four billion passes a CRC-32, and a log is read for years. It costs half a millisecond
//! per megabyte beside a write that takes as long. Both are keyed with the segment's salt, which peers cannot know, so no
//! payload can contain bytes that pass for a record when damage makes the log look for the next one.
//!
//! **After kill -9** the kernel may hold what the disk does not, and after a failed sync it may believe pages clean that
//! are not. So opening writes the records after the last that is known to be durable once more, and syncs, before it
//! believes them.
//!
//! Opening reads the headers of closed segments and the whole of the last; every read verifies its record again. It never
//! mends: a log with damage in it is opened again after [`cut_at_damage`] has made it a sound prefix of itself, or, where a state is here
//! for what lies [`behind`] it, after [`Behind::keep`] has left that.

mod behind;
mod format;
mod heal;
mod index;
mod prune;
mod reader;
mod recover;
mod segment;
mod writer;

pub use behind::{Behind, KeepError, before, behind};
pub use heal::{cut_above, cut_at_damage, restore_header, set_aside_all};
pub use index::Entry;
pub use prune::{Oldest, Pruner, note_pruned, pruned_below};
pub use reader::{LogReader, Stored, look};
pub use recover::Recovery;
pub use segment::Preallocator;
pub use writer::BlockLog;

use crate::DiskError;

/// The largest payload: a body of 100 MiB, which is the largest block, with its last commit, evidence and the signature
/// verdicts, has room in it. A larger length in a header is damage and allocates nothing.
pub const PAYLOAD_BYTES_MAX: u32 = 128 << 20;

/// What a segment holds before it is closed, by default. Larger ones are rarer to roll and coarser to prune.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// What a record is. The log knows the kinds apart, and nothing of what is inside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A block, once per block hash. Its round is 0.
    Body = 1,
    /// A signed proposal, which names a body. Reserved: read, and never written. A validator's own proposals are in its guard,
    /// those of others come again from peers, and what was decided or locked is proved by certificates and polkas.
    Proposal = 2,
    /// A prevote quorum.
    Polka = 3,
    /// A commit certificate: the height is decided.
    Decision = 4,
    /// Nothing but the news of what is durable. Written by the log itself, never returned.
    Mark = 5,
    /// Proof of misbehaviour that no block carried when it was written. Its block hash is that of its payload.
    Evidence = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        [Kind::Body, Kind::Proposal, Kind::Polka, Kind::Decision, Kind::Mark, Kind::Evidence].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A record to append.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// What it is; not [`Kind::Mark`].
    pub kind: Kind,
    /// The height it belongs to.
    pub height: u64,
    /// The round; 0 for a body.
    pub round: u32,
    /// The block it is about.
    pub block_hash: [u8; 32],
    /// At most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: &'a [u8],
}

/// How a log is opened.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Keys the checksums of a new log. Random bytes that no peer can know; an old log keeps its own.
    pub salt: [u8; 32],
    /// A segment of this many bytes is closed at the next height boundary.
    pub segment_bytes: u64,
}

/// Why the log did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file operation failed. The log refuses everything until it is opened again.
    #[error(transparent)]
    Disk(DiskError),
    /// There is no room. Nothing was appended; once there is room it works again.
    #[error("the disk is full ({0}): the node must stop signing until there is room")]
    NoSpace(#[source] DiskError),
    /// What was durable is damaged.
    #[error(
        "rot in {segment} at byte {offset}: record {sequence}{} was durable and does not verify", height.map(|height| format!(" of height {height}")).unwrap_or_default()
    )]
    Rot {
        /// The file.
        segment: String,
        /// Where the record, or the segment's header, begins.
        offset: u64,
        /// The record's sequence number.
        sequence: u64,
        /// Its height, where that can still be read.
        height: Option<u64>,
    },
    /// A segment between others is gone.
    #[error("the segment of {dir} that begins with record {sequence} is missing; records after it cannot be used")]
    MissingSegment {
        /// The log's folder.
        dir: String,
        /// The first record that is missing.
        sequence: u64,
    },
    /// A later program wrote this.
    #[error("{segment} at byte {offset} was written by a newer version of this program (version or kind {found})")]
    Newer {
        /// The file.
        segment: String,
        /// Where.
        offset: u64,
        /// The version or kind byte.
        found: u8,
    },
    /// A payload above [`PAYLOAD_BYTES_MAX`].
    #[error("a payload of {bytes} bytes is over the limit of {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Another block is already decided at this height, or the block's hash is known at another height. Somebody's
    /// reasoning is wrong, and writing it down would not make it right.
    #[error("height {height} of the log contradicts what was to be appended there")]
    Contradiction {
        /// The height.
        height: u64,
    },
    /// A decision that does not follow the last one.
    #[error("the log's last decision is of height {last}; one of height {height} leaves a gap")]
    Gap {
        /// The last decided height.
        last: u64,
        /// The height that was to be appended.
        height: u64,
    },
    /// A decision whose body was never appended.
    #[error("the decision of height {height} names a block whose body is not in the log")]
    NoBody {
        /// The height.
        height: u64,
    },
    /// The record has been pruned since its entry was handed out.
    #[error("height {height} has been pruned")]
    Pruned {
        /// The height.
        height: u64,
    },
    /// An earlier operation failed; what is on the disk is not known.
    #[error("the block log met an error before and must be opened again")]
    Failed,
}

impl From<DiskError> for LogError {
    fn from(error: DiskError) -> LogError {
        if error.is_no_space() { LogError::NoSpace(error) } else { LogError::Disk(error) }
    }
}
