//! Tendermint consensus (arXiv:1807.04938, Algorithm 1) as a pure function: inputs in, effects out.
//!
//! The core knows heights, rounds, locks, votes and who proposes. It never knows bytes on a wire, keys, clocks, or what is
//! inside a block, so any run can be replayed, and any bug reproduced, from its inputs alone.
//!
//! ```text
//!             Input                                                    Effect
//!   StartHeight Ready TimedOut      +------------------------+     Persist -> Cast, Propose
//!   Proposal Vote Polka Commit ---> |        Consensus       | --> Build Check WantBody
//!   Built Checked BodyDurable       |  one Instance a height |     Schedule Decide Accuse Stepped
//!                                   +------------------------+
//! ```
//!
//! [`Consensus`] goes from height to height. The state of one is an `Instance`: it takes an input in, asks which rule's
//! conditions hold now, and runs it (`rules.rs`, in the paper's order and with its line numbers), until none is left.
//! [`VoteSet`] counts; `quorum.rs` of `lockstep-types` is the only place that compares power with power.
//!
//! # What we add to the paper
//!
//! - **Signed valid rounds.** A prevote carries the valid round of the proposal it answers. Its value is the pair (block,
//!   valid round): L36 counts prevotes of one pair, L28 takes a polka of round vr with any one. Whoever prevotes against its
//!   lock in the name of a polka that does not exist has signed the proof.
//! - **Certificates.** A [`Polka`](lockstep_types::Polka) or [`Commit`](lockstep_types::Commit) is judged by itself and
//!   brings a peer forward in one message. A lock always comes with its polka.
//! - **Proposer-based timestamps.** Timeliness decides our own prevote for a new value and nothing else.
//! - **Durability.** L36 waits until the body is on our disk. Every own message waits for its guard record, and is later than
//!   the one before it: a restart goes on from the record, and cannot contradict what was sent.
//! - **Pace.** Our proposal and the propose timer of round 0 wait for [`Input::Ready`]; nothing else does.
//!
//! # Where we leave the paper
//!
//! 1. *A quorum stands in for the proposal (L36, L49).* The paper waits for the proposal and the quorum; here the quorum
//!    alone names the value, and its body is fetched by its name. Safety: neither rule uses of the proposal more than v and
//!    vr, which every vote of the quorum names, and valid(v) is asked of the body. The quorum holds more than a third of
//!    correct power, and a correct validator prevotes only in answer to that proposal and precommits only on a polka, so the
//!    proposal existed. Liveness: the paper's gossip brings every proposal to everybody; an equivocating proposer shows ours
//!    another one, and we keep only the first. Without this rule a lock could be hidden from us by showing us the wrong
//!    proposal first.
//! 2. *Skipping counts who is at or above a round (L55).* The paper waits for f+1 messages of one round above ours; here for
//!    more than a third of the power whose highest rounds are at or above it. One of them is correct and has reached it, which
//!    is all that the proof uses; and one number for each validator is all that must be remembered of rounds far ahead.
//! 3. *The proposer has a propose timer too (L14–L21)*: its block may fail to be made.
//! 4. *Timeouts have a cap.* The proof lets them grow past any delay; ours assume that the network's is under half the cap.
//! 5. *Rounds far behind are forgotten* unless they hold a quorum for a block ([`ROUNDS_BEHIND_MAX`]).
//! 6. *A round that more than two thirds precommitted nil is left at once (L47, L65)*: nothing is left to wait for.
//! 7. *Nobody leaves a round in silence (L55, L65)*: whoever did not vote in the round before the one it enters votes nil there.
//!    Processes that crash forget the votes on which they left, and others may need those to follow.
//!
//! # Bounds
//!
//! Of loose messages, those of rounds from [`ROUNDS_BEHIND_MAX`] below ours to [`ROUNDS_AHEAD_MAX`] above are kept: the first
//! proposal of a round, and [`VALUES_MAX`] values of a validator in one step. Rounds only advance when more than a third of
//! the power does, or a timer of ours runs out.

#![deny(clippy::float_arithmetic, reason = "a float must never decide what others decide in integers")]

mod bodies;
mod consensus;
mod instance;
mod message;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod rounds;
mod rules;
mod seam;
mod timeliness;
mod votes;

pub use consensus::Consensus;
pub use message::{Ballot, Draft, GuardRecord, Message, Step, Ticket, Timeout, Value};
pub use rounds::{ROUNDS_AHEAD_MAX, ROUNDS_BEHIND_MAX};
pub use seam::{Effect, Effects, HeightStart, Input, Restored};
pub use timeliness::is_timely;
pub use votes::{Counted, Equivocation, LOOSE_VALUES_MAX, VALUES_MAX, VoteSet};
