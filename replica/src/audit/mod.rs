//! Audit: the replica whose state is not the chain's finds it, stops signing, heals, and votes again.
//!
//! ```text
//!   a decided header H + 1     ┐                                            the home is opened again (`recovery::open`):
//!   signed by > 2/3 and not    ├─> signs nothing more ─> finding and trace ─>  execute from the state, and compare at H
//!   what we have after H       │   (at once)             to audit/ (durable)   ├─ the same: report, go on, vote again
//!   statements of > 2/3 of     ┘                                               └─ not: set the state aside, begin from an own
//!   H + 1's set, all another                                                        snapshot or genesis, compare again
//!                                                                                   ├─ the same: report, go on, vote again
//!   for 30 s none can reach 2/3 ─> FAIL: halt, with who said what                   └─ not: halt, and ask to QUIT
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `exchange` | statements of validators, and what follows from them |
//! | [`finding`] | what was found, and what proves it |
//! | [`trace`] | what this node made of the block, kept to name the first transaction that differs |
//! | [`shelf`] | both in the folder `audit` of a home, and the report that ends them |
//!
//! # What makes us believe that we are wrong
//!
//! Two things, both of more than two thirds of the power, so that each holds the word of more than a third that is correct: the
//! certificate of height H + 1 for a header whose root, results, validators or parameters are not those that we have after H; and
//! [statements](lockstep_types::audit) of H with the same content, which is not ours. Less than a third can lie as it likes:
//! it makes no certificate and no such sum, so it can neither halt a correct replica nor have it heal.
//!
//! # Safety
//!
//! *Nothing is signed while in doubt.* The step that finds it stops signing ([`crate::signing::Signing::stop`]) and is the replica's last:
//! what waits for a disk to be signed dies with the fence. The next life begins from what the home holds, and
//! [`crate::recovery::open`] either hands out a state that agrees with the finding or none.
//!
//! *Healing moves no vote.* The guard is not touched, so what was signed before is said again or nothing is; the log is not touched
//! either, since what was decided was decided by others' signatures and not by our state. What a diverged replica signed before it
//! knew is nil, or for blocks that contradict the chain, which no correct validator votes for: it was one of the f.
//!
//! *No unproven root is healed to.* The state is made again by executing the log: each block's root is compared with the header above
//! it, and the last with the finding. An own snapshot is a beginning only where a header of the log has its root.
//!
//! # Liveness
//!
//! A healed replica is one that restarted: it catches up and votes from its guard on. It cannot storm: a height is healed
//! once, a second divergence at it halts, and so does any beyond [`FINDINGS_MAX`]. Each heal needs a height of the chain that was
//! not healed yet, and the decision of that height by others.

mod exchange;
pub mod finding;
pub mod shelf;
pub mod trace;

use lockstep_types::Header;

use crate::planted::Bug;
use crate::replica::Replica;
use crate::seam::{Effect, Report};

pub(crate) use self::exchange::Exchange;
pub use self::finding::{Finding, Proof};
pub use self::shelf::{AUDIT_PATH, Settled, Shelf, keep};
pub use self::trace::Trace;

/// Heights at which a home may have diverged. One more halts: a machine that computes wrongly again and again is to be looked at by a
/// person, as is a disk that rots again and again (`lockstep_storage::quarantine::INCIDENTS_MAX`).
pub const FINDINGS_MAX: usize = 16;

impl Replica {
    /// More than two thirds decided a header of the next height that says something else of the state than we have.
    pub(crate) fn on_contradicting_header(&mut self, header: Header) {
        let Some(commit) = self.certificate.clone() else { return };
        let finding = Finding { ours: self.chain.statement(), proof: Proof::Header { header, commit: commit.get().clone() } };
        self.diverges(finding);
    }

    /// We are the one that is wrong. Nothing more is signed, and nothing more is done in this life.
    pub(crate) fn diverges(&mut self, finding: Finding) {
        if self.planted.has(Bug::SignsWhileDiverged) {
            return;
        }
        let height = finding.ours.height;
        let what = finding.what();
        if self.diverged.contains(&height) {
            self.doubts_state = true;
            self.halt(format!(
                "the state of this node after height {height} is not the chain's: {what}. It was made again after the same was found before, \
                 and came out wrong again, so this program or this machine computes something else than the others. Nothing more is \
                 signed. {ASK_TO_QUIT}"
            ));
        } else if self.diverged.len() >= FINDINGS_MAX {
            self.doubts_state = true;
            self.halt(format!(
                "the state of this node after height {height} is not the chain's: {what}. That was found and healed at {FINDINGS_MAX} heights \
                 before: look at this machine, above all at its memory, move data/{AUDIT_PATH} away, then start again. {ASK_TO_QUIT}"
            ));
        } else {
            self.signing.stop(format!("the state after height {height} is not the chain's: {what}"));
            self.fx.report(Report::Note(format!(
                "the state of this node after height {height} is not the chain's: {what}. It signs nothing and heals"
            )));
            self.reopens = true;
            self.fx.push(Effect::Heal { finding: Box::new(finding) });
        }
    }
}

impl Replica {
    /// Whether this replica halted because nobody knows that its state is the chain's: a shell goes on serving what does not come of it.
    pub const fn doubts_state(&self) -> bool {
        self.doubts_state
    }

    /// At start: the home was made again and agrees with what was found no more than before. Nothing is done then.
    pub(crate) fn halts_in_doubt(&mut self) -> bool {
        let Some(what) = self.doubt.take() else { return false };
        self.doubts_state = true;
        self.halt(format!(
            "the state of this node is not the chain's, and executing the block log anew gives the same again: {what}. This program, its \
             application or this machine computes something else than the others. Nothing is signed or answered from this state. Run the \
             program that the others run, or another machine; data/{AUDIT_PATH} holds what was found. {ASK_TO_QUIT}"
        ));
        true
    }
}

/// What an operator does about a validator that cannot heal.
pub const ASK_TO_QUIT: &str = "If it cannot be mended soon, take this validator out of the set with lockstep validator quit \
     --node URL, with the URL of another node, so that the others do not wait for it";
