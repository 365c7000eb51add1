//! Results of execution and where each transaction is, beside the segments of the block log.
//!
//! Per segment of the log there is `<segment>.res`, a row of records, one per height, and, once a later segment is begun,
//! `<segment>.idx`, the hashes of its transactions in order. They go when their segment goes.
//!
//! All of it can be made again by executing again, so it is not synced per block: [`Results::sync`] is called before the
//! state is flushed, and what a crash takes after that is executed again from the flushed height. A height below the flush
//! that cannot be read is an error that names the place, never "no such transaction"; a start that finds one sets the
//! damaged files aside ([`set_aside_from`]) and executes the log from its beginning.

mod format;
mod heal;
mod reader;
mod segment;
mod writer;

use borsh::{BorshDeserialize, BorshSerialize};

pub use heal::{CutError, carry_over, cut_above, make_durable, set_aside_before, set_aside_from, set_aside_segment};
pub use reader::{Location, ResultsReader, look};
pub use writer::{Results, Scanned};

use crate::DiskError;

/// The largest record of results, encoded. A block of 100 MiB of the smallest transactions has fewer bytes of results
/// than this under any gas limit worth having; a larger length in a header is damage and allocates nothing.
pub const RESULTS_BYTES_MAX: u32 = 1 << 30;

/// What the execution of one block gave. The bytes are the caller's.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockResults {
    /// The height executed.
    pub height: u64,
    /// What belongs to the block as a whole.
    pub block: Vec<u8>,
    /// One per transaction, in the block's order.
    pub txs: Vec<TxResult>,
}

impl BlockResults {
    /// Bytes of the encoding, to make room for it once: blocks of many events have megabytes.
    pub(crate) fn encoded_bytes(&self) -> usize {
        const LENGTH_BYTES: usize = 4;
        let txs = self.txs.iter().map(|tx| tx.hash.len() + LENGTH_BYTES + tx.result.len());
        size_of::<u64>() + LENGTH_BYTES + self.block.len() + LENGTH_BYTES + txs.sum::<usize>()
    }
}

/// What the execution of one transaction gave.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TxResult {
    /// The transaction's hash, by which it is found.
    pub hash: [u8; 32],
    /// Its result.
    pub result: Vec<u8>,
}

/// Why results could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// A file operation failed. For want of space ([`ResultsError::is_no_space`]) nothing has changed, and the same call works
    /// once there is room; after anything else the results are opened again.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file is not what was written.
    #[error("results in {path} are damaged at byte {offset}; heights from there to the end of the file cannot be answered here")]
    Damaged {
        /// The file.
        path: String,
        /// Where the first record that does not verify begins.
        offset: u64,
    },
    /// A later program wrote it.
    #[error("{path} was written by a newer version of this program (version {found})")]
    Newer {
        /// The file.
        path: String,
        /// The version byte.
        found: u8,
    },
    /// A record above [`RESULTS_BYTES_MAX`].
    #[error("results of {bytes} bytes are over the limit of {RESULTS_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Results for a segment before the one that is open.
    #[error("results of height {height} belong to segment {segment}, which is closed")]
    Closed {
        /// The height.
        height: u64,
        /// The segment named.
        segment: u64,
    },
    /// An earlier operation failed; what is on the disk is not known.
    #[error("the results met an error before and must be opened again")]
    Failed,
}

impl ResultsError {
    /// Whether there was no room, and nothing was done. A sync that fails for want of space is not meant: it has failed.
    pub fn is_no_space(&self) -> bool {
        matches!(self, ResultsError::Disk(error) if error.is_no_space() && error.action != "sync")
    }
}
