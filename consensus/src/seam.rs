//! What consensus is told and what it asks for. Inputs are named for what happened, effects for what to do.

use std::sync::Arc;
use std::time::Duration;

use lockstep_types::vote::Verified;
use lockstep_types::{BlockId, Commit, ConsensusParams, Height, Polka, Proposal, Round, Time, ValidatorIndex, ValidatorSet, Vote};

use crate::message::{Ballot, Draft, GuardRecord, Step, Ticket, Timeout};
use crate::votes::Equivocation;

/// Everything that is fixed while a height is decided.
#[derive(Debug, Clone)]
pub struct HeightStart {
    /// The height to decide.
    pub height: Height,
    /// Its validators.
    pub validators: Arc<ValidatorSet>,
    /// Our place among them. None for a node that follows and decides without saying anything: one that is no validator, or
    /// one that must stay silent.
    pub me: Option<ValidatorIndex>,
    /// Timeouts and clocks.
    pub params: Arc<ConsensusParams>,
    /// The proposer of round 0 missed its last slot: its propose timer is the short one until a vote of this height from it.
    pub proposer_missed: bool,
    /// What the guard remembers of this height, after a restart in the middle of it.
    pub restored: Option<Restored>,
}

/// What the guard's newest record says about the height that is started again. The node goes on from exactly there: no
/// message of ours at or before (round, step) is made again; the shell sends the recorded bytes again, and hands them back
/// as [`Input::Proposal`] and [`Input::Vote`].
#[derive(Debug, Clone)]
pub struct Restored {
    /// Round of the last message signed.
    pub round: Round,
    /// Its step.
    pub step: Step,
    /// The lock. Its body was durable: no record with the lock was written before it was.
    pub locked: Option<Verified<Polka>>,
    /// The newest polka we could have locked on; its body was durable too.
    pub valid: Option<Verified<Polka>>,
    /// Blocks of the two whose bodies the disk has lost since. They are fetched again, and precommitted again only once they are durable.
    pub lost: Vec<BlockId>,
}

/// Everything the world can tell consensus. What carries a signature was verified before it became an `Input`. Messages of
/// other heights are ignored, but for late precommits of the height before (see
/// [`Consensus::previous_commit`](crate::Consensus::previous_commit)).
#[derive(Debug, Clone)]
pub enum Input {
    /// The height before is decided here, or was caught up with: begin the next one. Heights only grow.
    StartHeight(HeightStart),
    /// The pace allows round 0 to begin: our proposal and the propose timer wait for it. A proposal or votes that come
    /// earlier are acted on. Later rounds wait for nothing.
    Ready,
    /// A proposal, verified against the key of its round's proposer; its timestamp is that of its block's header.
    Proposal {
        /// The proposal.
        proposal: Verified<Proposal>,
        /// Our wall clock when it came, which timeliness judges.
        received: Time,
    },
    /// A vote, ours too.
    Vote(Verified<Vote>),
    /// A prevote quorum, judged by itself.
    Polka(Verified<Polka>),
    /// A precommit quorum, judged by itself.
    Commit(Verified<Commit>),
    /// The answer to [`Effect::Build`]. What we built is valid.
    Built {
        /// The round it was built for.
        round: Round,
        /// The block.
        block_id: BlockId,
    },
    /// The answer to [`Effect::Check`], when the body is there.
    Checked {
        /// The block.
        block_id: BlockId,
        /// Whether valid(v) holds. It is a property of the block alone, and stays; but what was refused and is certified may be judged
        /// once more, see [`Effect::CertifiedInvalid`].
        valid: bool,
    },
    /// The body is on our disk: a power cut does not take it.
    BodyDurable {
        /// The block.
        block_id: BlockId,
    },
    /// A timer of [`Effect::Schedule`].
    TimedOut(Timeout),
}

/// Everything consensus can ask of the world, in the order it must happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Make durable. Effects that name the ticket start only after it. If it fails the node halts: a vote we may forget is a
    /// vote we may contradict.
    Persist(Ticket, GuardRecord),
    /// Stamp, sign and send what the ticket persisted, and hand it back as [`Input::Vote`], so our own vote is counted like
    /// any other.
    Cast(Ticket, Ballot),
    /// The same for a proposal; it comes back as [`Input::Proposal`]. The body goes with it.
    Propose(Ticket, Draft),
    /// Make a block (`getValue`), and answer with [`Input::Built`].
    Build {
        /// Height to build for.
        height: Height,
        /// Round it is for.
        round: Round,
    },
    /// Ask valid(v), once its body is there, and answer with [`Input::Checked`]; make the body durable, and answer with
    /// [`Input::BodyDurable`]. Asked once per block and height.
    Check {
        /// The block.
        block_id: BlockId,
    },
    /// A polka or a certificate names a body that was neither checked here nor made durable: fetch it from those who voted for
    /// it, if it is not on its way. A [`Effect::Check`] of it was asked before. Asked once per block and height.
    WantBody {
        /// The block.
        block_id: BlockId,
        /// The round of the polka or certificate.
        round: Round,
    },
    /// Start a timer. One that is scheduled again under the same name replaces the first.
    Schedule(Timeout, Duration),
    /// The height is decided. The commit holds the precommits of the deciding round that are known so far, more than two
    /// thirds; late ones are added to what [`Consensus::commit`](crate::Consensus::commit) gives.
    Decide {
        /// The certificate; it names height, round and block.
        commit: Commit,
    },
    /// More than two thirds precommitted a block that valid(v) refuses here. Either our state or more than a third of the
    /// validators are wrong. Asked once per height.
    ///
    /// The shell judges the block again, by all rules but its application's consent, since what more than two thirds decided is
    /// executed whatever an application says of it. If it holds, [`Input::Checked`] says so and the block is decided: L49 asks
    /// for valid(v) so that nobody decides what correct validators would refuse, and a certificate has the word of more than a
    /// third of them that they do not. If it does not hold, the shell stops signing and says so.
    CertifiedInvalid {
        /// The certificate.
        commit: Commit,
    },
    /// Proof that a validator voted for two values in one step of a round. Once per validator and step.
    Accuse(Box<Equivocation>),
    /// We entered this step, for gossip and those who watch.
    Stepped {
        /// The height.
        height: Height,
        /// The round.
        round: Round,
        /// The step.
        step: Step,
    },
}

/// The effects of one step, in order. Only a function that takes `&mut Effects` can emit.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects(Vec<Effect>);

impl Effects {
    pub(crate) fn emit(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    /// The effects, in order.
    pub fn as_slice(&self) -> &[Effect] {
        &self.0
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::vec::IntoIter<Effect>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
