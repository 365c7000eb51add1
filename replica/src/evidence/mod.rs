//! Evidence of misbehaviour: what a block may carry, where a node keeps what it knows of, and how it reaches the others.
//!
//! | module | holds |
//! |---|---|
//! | [`rules`] | whether a block may carry a piece: `encoding.md` section 13, and one rule of our own |
//! | [`history`] | the blocks of the past that evidence is compared with |
//! | [`pool`] | pieces that no block carries yet |
//! | [`kept`] | pieces on the disk, for the next start |
//! | [`forensics`] | who forked a chain, from what two nodes keep |
//! | `forks` | what a node does when it meets a certificate that contradicts its own |
//! | `exchange` | what a node tells its peers, and what it makes of what they tell |
//!
//! **The life of a piece.** Consensus counts two votes of one validator for one place ([`lockstep_consensus::Equivocation`]).
//! Once that height is committed its block's time is known, and the votes become evidence. It is told to every peer, each of
//! which verifies it and keeps it; whoever proposes next puts it into its block; every validator judges it again as part of
//! valid(v); the application is told of it, and membership takes the culprit's power away.
//!
//! **Why what is kept is so little.** A faulty validator makes as much evidence against itself as it likes, and all of it is true.
//! So a piece counts only while it accuses somebody who still has power in the newest set, and whom no other piece of the
//! block, or of the pool, accuses (decision record 15). The first that a block carries takes that power away, and the others are
//! worth nothing any more.
//!
//! **What a restart loses.** Nothing that was durable. The pool is in memory, and what enters it is written to the log beside; a
//! start reads that and judges it again ([`kept`]). So two votes that any honest node counted land in a block, even where all nodes
//! lose their power in the moment after.

mod exchange;
pub mod forensics;
mod forks;
pub mod history;
pub mod kept;
pub mod pool;
pub mod rules;

pub(crate) use exchange::Source;
pub(crate) use forks::Forks;
use lockstep_app::record::CommittedEvidence;
use lockstep_app::{Misbehaviour, MisbehaviourKind};
use lockstep_types::Evidence;

/// What a block's evidence proves, as the application is told it.
pub fn misbehaviour(evidence: &[Evidence]) -> Vec<Misbehaviour> {
    let told = |piece: &Evidence| {
        let kind = match piece {
            Evidence::DuplicateVote(_) => MisbehaviourKind::DuplicateVote,
            Evidence::LightClientAttack(_) => MisbehaviourKind::LightClientAttack,
        };
        let (height, time, total_power) = (piece.height(), piece.time(), piece.total_power());
        let accused = piece.accused().into_iter();
        accused.map(move |(address, power)| Misbehaviour { kind, address, power, height, time, total_power }).collect::<Vec<_>>()
    };
    evidence.iter().flat_map(told).collect()
}

/// A block's evidence, as the chain remembers it.
pub fn remembered(evidence: &[Evidence]) -> Vec<CommittedEvidence> {
    evidence.iter().map(|piece| CommittedEvidence { hash: piece.hash(), height: piece.height(), time: piece.time() }).collect()
}
