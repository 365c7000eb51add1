//! What the application says of a transaction, and what the pool answers.

use lockstep_types::Hash;
use thiserror::Error;

/// Longest sender that is kept as it is. Of a longer one its hash is kept: a sender is only compared, and an application
/// that echoes what clients wrote must not let them size our index.
pub const SENDER_BYTES_MAX: usize = 64;
const _: () = assert!(SENDER_BYTES_MAX >= Hash::LEN);

/// The application's answer to a check or a recheck, as far as order depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckVerdict {
    /// 0 to admit. Anything else refuses, and the rest is not read.
    pub code: u32,
    /// Gas the transaction asks for; below zero counts as zero.
    pub gas_wanted: i64,
    /// Higher goes first.
    pub priority: i64,
    /// Whose transaction it is, in the application's own bytes. Empty for nobody's: no share then bounds it and nothing
    /// orders it among others.
    pub sender: Vec<u8>,
    /// Its place among the sender's transactions, which execute in order and without gaps. `None` where the application
    /// has no such order; ignored without a sender.
    pub nonce: Option<u64>,
    /// The nonce that the state would accept from this sender now. With it, a transaction that comes too early waits until
    /// those before it are here; `None` where the application cannot tell, and the sender's first one is then taken to be
    /// executable.
    pub next_nonce: Option<u64>,
}

/// Why a transaction did not enter. The first three texts are CometBFT's, which its clients parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Being checked, waiting, or committed not long ago.
    #[error("tx already exists in cache")]
    AlreadyInCache,
    /// No room, and nothing here that the newcomer may displace.
    #[error("mempool is full: number of txs {txs} (max: {max_txs}), total txs bytes {bytes} (max: {max_bytes})")]
    Full {
        /// Transactions here.
        txs: usize,
        /// Most that may be.
        max_txs: usize,
        /// Their bytes.
        bytes: usize,
        /// Most bytes.
        max_bytes: usize,
    },
    /// Longer than any one transaction may be.
    #[error("Tx too large. Max size is {max}, but got {got}")]
    TooLarge {
        /// Most bytes.
        max: usize,
        /// Its bytes.
        got: usize,
    },
    /// Checks are outstanding for as many transactions as may be: the application is slower than those who submit.
    #[error("too many transactions are being checked: {checking} (max: {max}); submit it again later")]
    Busy {
        /// Outstanding checks.
        checking: usize,
        /// Most that may be.
        max: usize,
    },
    /// Wants more gas than any block has.
    #[error("the transaction wants {got} gas, and a block has {max}")]
    TooMuchGas {
        /// Gas of a block.
        max: i64,
        /// Gas wanted.
        got: i64,
    },
    /// The sender has its share of the pool.
    #[error(
        "the sender has {txs} transactions (max: {max_txs}) of {bytes} bytes (max: {max_bytes}) in the mempool; wait until some are committed"
    )]
    SenderFull {
        /// The sender's transactions here.
        txs: usize,
        /// Most of one sender.
        max_txs: usize,
        /// Their bytes.
        bytes: usize,
        /// Most bytes of one sender.
        max_bytes: usize,
    },
    /// Another transaction of this sender has this nonce. Replacing it takes a priority that is a tenth higher, so that a
    /// storm of replacements pays for the gossip it causes.
    #[error("nonce {nonce} of this sender is taken by {holder}; a replacement needs priority {needed} or more")]
    NonceTaken {
        /// The nonce.
        nonce: u64,
        /// Who has it.
        holder: Hash,
        /// The least priority that replaces it.
        needed: i64,
    },
}

/// What became of a transaction that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is in the pool, and these left for it.
    Added {
        /// Who left, and why.
        removed: Vec<Removed>,
    },
    /// The check failed. It is forgotten: sent again, it is checked again.
    Rejected,
    /// The check passed, the pool has no place. It is forgotten.
    Refused(Refused),
    /// Nothing of this hash is being checked; a block may have committed it meanwhile.
    Unknown,
}

/// A transaction that left the pool otherwise than by a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Its hash.
    pub hash: Hash,
    /// Why it left.
    pub why: Why,
}

/// Why a transaction left the pool otherwise than by a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The pool, or its sender's share, was full, and this one took its place.
    Evicted {
        /// The newcomer.
        by: Hash,
    },
    /// The same sender and nonce, at a higher priority.
    Replaced {
        /// The newcomer.
        by: Hash,
    },
    /// A recheck no longer passed.
    RecheckFailed {
        /// The code of the verdict.
        code: u32,
    },
    /// The bounds of a block changed, and no block can hold it any more.
    NoBlockHoldsIt,
}

/// The sender as it is kept.
pub(crate) fn sender_key(sender: &[u8]) -> Vec<u8> {
    if sender.len() <= SENDER_BYTES_MAX { sender.to_vec() } else { Hash::of(sender).0.to_vec() }
}

/// The least priority that replaces a transaction of the given one: a tenth more, and at least one.
pub(crate) fn replacement_priority(held: i64) -> i64 {
    held.saturating_add((held.unsigned_abs() / 10).max(1).cast_signed())
}

/// Bytes that a transaction takes in the body of a block: its length in four bytes, and itself.
pub(crate) fn body_bytes(len: usize) -> usize {
    len.saturating_add(4)
}
