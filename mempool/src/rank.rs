//! The one order of the pool.

use std::cmp::Reverse;

/// The position of a transaction in the pool's arrival order. Never reused.
pub(crate) type Seq = u64;

/// Where a transaction stands. Fields are compared from the first to the last; the smallest is reaped first, the largest
/// evicted first.
///
/// Along the nonces of one sender ranks only grow: each is made from the one before it ([`Rank::after`]). So whoever walks
/// the order meets nonces in their order, and the last of the order is always the last of its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// Something it needs is not here.
    pub(crate) waits: bool,
    /// What it is worth: the lowest priority of all it must wait for, itself included.
    pub(crate) worth: Reverse<i64>,
    /// The latest arrival among these.
    pub(crate) since: Seq,
    /// Tells those apart that waited for the same one; 0 without a nonce.
    pub(crate) nonce: u64,
    /// Its own arrival.
    pub(crate) seq: Seq,
}

impl Rank {
    /// Of a transaction that waits for nothing.
    pub(crate) fn alone(priority: i64, seq: Seq) -> Self {
        Self { waits: false, worth: Reverse(priority), since: seq, nonce: 0, seq }
    }

    /// Of the first nonce that we hold of a sender from whom the state accepts `next`.
    pub(crate) fn first(priority: i64, seq: Seq, nonce: u64, next: Option<u64>) -> Self {
        Self { waits: next.is_some_and(|next| nonce > next), worth: Reverse(priority), since: seq, nonce, seq }
    }

    /// Of the nonce that follows `before` in the sender's queue.
    pub(crate) fn after(before: &Self, priority: i64, seq: Seq, nonce: u64) -> Self {
        Self {
            waits: before.waits || before.nonce.checked_add(1) != Some(nonce),
            worth: before.worth.max(Reverse(priority)),
            since: before.since.max(seq),
            nonce,
            seq,
        }
    }

    /// Whether it may take the place of `other` in a full pool: worth strictly more, or executable where the other is not.
    /// An equal one came first.
    pub(crate) fn displaces(&self, other: &Self) -> bool {
        (self.waits, self.worth) < (other.waits, other.worth)
    }
}
