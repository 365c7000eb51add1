//! What a replica keeps on its disk, and what of it a power cut cannot take.
//!
//! | store | holds | durable when |
//! |---|---|---|
//! | [`log`] | bodies, proposals, polkas, decisions and evidence: the commit point | [`log::BlockLog::sync`] has returned |
//! | [`guard`] | what this validator signed last, and its lock | [`guard::Guard::write`] has returned |
//! | [`state`] | the application's state at one height, whole | [`state::StateDb::flush`] has returned |
//! | [`snapshots`] | states of checkpoints, in chunks, for replicas that begin | [`snapshots::Snapshots::finish`] has returned; nothing rests on it |
//! | [`results`] | results, and the index by transaction hash, beside the log's segments | [`results::Results::sync`] has returned; rebuilt by executing again |
//!
//! Payloads are opaque here: storage knows heights, rounds and hashes, and never what a vote means. Everything is
//! synchronous, the caller's thread does the work, and the orders between the stores (`docs/format-storage.md` names
//! them) are the caller's to keep. Only a large state is read in pieces at the same time, by whatever threads the caller has for that
//! ([`spread`]). Every store stands on the [`disk::Disk`] trait, which the simulator implements too,
//! with a disk that loses, tears and reorders what was not synced.
//!
//! Nothing read from a disk is believed before its checksum is: what fails is a typed error that names the place, never
//! a panic and never a wrong answer. What is damaged goes to [`quarantine`]. The byte layouts are written down in `docs/format-storage.md` and are frozen.

#![forbid(unsafe_code)]

pub mod disk;
mod error;
pub mod guard;
pub mod lock;
pub mod log;
pub mod planted;
pub mod quarantine;
pub mod results;
pub mod snapshots;
pub mod spread;
pub mod state;

pub use error::DiskError;
