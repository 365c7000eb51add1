//! The transactions that wait for a block: admission, order, eviction and gossip.
//!
//! A transaction is opaque here. What it is worth, who sent it and which place it takes among its sender's is told by the
//! application's [`CheckVerdict`]; whether it can be executed, this crate never asks itself.
//!
//! ```text
//!  begin ──> checking ──settle──> pooled ──commit──> committed (remembered, refused as a repeat)
//!               │                    │
//!               └ rejected, refused  └ evicted, failed recheck: forgotten, may be sent again
//! ```
//!
//! Every hash that is known stands in exactly one of these places, and one map says in which ([`Mempool`]). Everything else
//! is an index over the pooled ones, kept by two functions, one that attaches and one that detaches.
//!
//! # Order
//!
//! One order serves two ends: a proposer reaps from its front, a full pool evicts from its back. Highest priority comes
//! first, and first come is first served within it. Nonces of one sender stay in order because a transaction is worth no
//! more than the cheapest one it must wait for, and is no older than the youngest of them (`rank`). What waits behind a
//! gap comes after everything that does not: it is never reaped, and evicted first, so that a pool full of nonces that
//! nobody can execute costs an honest sender nothing.
//!
//! # Promises
//!
//! A transaction that was added leaves by commit, by a failed recheck or by an eviction, and each of them is reported. A
//! full pool is an error to the one who submits, never a silent drop.

mod entry;
mod gossip;
mod index;
mod limits;
mod pool;
mod rank;
mod recent;
mod verdict;

pub use entry::{Origin, PoolTx, TxBytes};
pub use gossip::{Forward, HEARD_MAX, PEERS_MAX};
pub use index::{REAP_MISFITS_MAX, RECHECK_WAITING_MAX};
pub use limits::Limits;
pub use pool::{Mempool, Status};
pub use verdict::{CheckVerdict, Refused, Removed, SENDER_BYTES_MAX, Settled, Why};
