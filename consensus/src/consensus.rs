//! Height after height: the outside of the core.

use std::sync::Arc;

use lockstep_types::{BlockId, Commit, Height, Polka, Proposal, Round, ValidatorIndex, ValidatorSet, VoteType};

use crate::instance::Instance;
use crate::message::Step;
use crate::planted::Planted;
use crate::seam::{Effects, Input};
use crate::votes::VoteSet;

/// The consensus core: give it what happened, do what it asks. It begins with [`Input::StartHeight`]; what comes before that
/// is ignored.
///
/// Everything else is to read: what peers lack is found by comparing their votes with [`Consensus::votes`].
#[derive(Debug, Clone, Default)]
pub struct Consensus {
    instance: Option<Instance>,
    /// Precommits of the round that decided the height before, which late ones are added to.
    previous: Option<VoteSet>,
    planted: Planted,
}

impl Consensus {
    /// A core that waits for its first height.
    pub fn new() -> Self {
        Self::default()
    }

    /// A core with known bugs, for whoever must show that they would be seen.
    #[cfg(feature = "planted")]
    pub fn with_planted(planted: Planted) -> Self {
        Self { planted, ..Self::default() }
    }

    /// Takes in one input and gives the effects it has, in the order in which they must happen.
    ///
    /// # Panics
    /// When the caller breaks its promise, never for what a peer sends: a height that is not above the last one, or a place
    /// that is not in the validator set.
    pub fn step(&mut self, input: Input) -> Effects {
        let mut fx = Effects::default();
        match input {
            Input::StartHeight(start) => {
                let (height, last_ticket) = self.instance.as_ref().map_or((Height::ZERO, 0), |at| (at.height, at.last_ticket));
                assert!(start.height > height, "heights only grow");
                self.previous = self.instance.take().and_then(decided_precommits).filter(|_| start.height == height.next());
                self.instance = Some(Instance::start(start, last_ticket, self.planted, &mut fx));
            }
            Input::Vote(vote) if vote.height < self.height() => {
                let slot = (vote.height, vote.round, vote.kind);
                if let Some(previous) = self.previous.as_mut().filter(|set| (set.height(), set.round(), set.kind()) == slot) {
                    previous.add(&vote);
                }
            }
            input => {
                if let Some(instance) = &mut self.instance {
                    instance.step(input, &mut fx);
                }
            }
        }
        fx
    }

    /// The height that is being decided, or was last; zero before the first.
    pub fn height(&self) -> Height {
        self.instance.as_ref().map_or(Height::ZERO, |at| at.height)
    }

    /// The round we are in.
    pub fn round(&self) -> Round {
        self.instance.as_ref().map_or(Round::ZERO, |at| at.round)
    }

    /// The step we are in.
    pub fn current_step(&self) -> Step {
        self.instance.as_ref().map_or(Step::Propose, |at| at.step)
    }

    /// The proposer of our round.
    pub fn proposer(&self) -> Option<ValidatorIndex> {
        self.instance.as_ref().map(|at| at.proposer)
    }

    /// Our place among the validators of this height.
    pub fn me(&self) -> Option<ValidatorIndex> {
        self.instance.as_ref()?.me
    }

    /// The validators of this height.
    pub fn validators(&self) -> Option<&Arc<ValidatorSet>> {
        self.instance.as_ref().map(|at| &at.validators)
    }

    /// `lockedValue` and `lockedRound`, as the polka that justifies them.
    pub fn locked(&self) -> Option<&Arc<Polka>> {
        self.instance.as_ref()?.locked.as_ref()
    }

    /// `validValue` and `validRound`, as the polka that justifies them.
    pub fn valid(&self) -> Option<&Arc<Polka>> {
        self.instance.as_ref()?.valid.as_ref()
    }

    /// The rounds of this height of which something is held, ascending.
    pub fn rounds(&self) -> impl Iterator<Item = Round> {
        self.instance.iter().flat_map(|at| at.rounds.iter().map(|(round, _)| round))
    }

    /// The prevotes or precommits held of a round.
    pub fn votes(&self, round: Round, kind: VoteType) -> Option<&VoteSet> {
        self.instance.as_ref()?.votes(round, kind)
    }

    /// The first proposal of a round.
    pub fn proposal(&self, round: Round) -> Option<&Proposal> {
        Some(&self.instance.as_ref()?.held(round)?.proposal)
    }

    /// The polka of a round for a block, if there is one: one message that carries a peer past L28 and L36.
    pub fn polka(&self, round: Round) -> Option<Polka> {
        self.votes(round, VoteType::Prevote)?.polka()
    }

    /// Round and block of the precommit quorum of this height, decided or still waiting for its body.
    pub fn certified(&self) -> Option<(Round, BlockId)> {
        self.instance.as_ref()?.certified
    }

    /// Whether this height is decided.
    pub fn is_decided(&self) -> bool {
        self.instance.as_ref().is_some_and(|at| at.is_decided)
    }

    /// The commit certificate of this height with every precommit known so far, from the moment that
    /// [`Consensus::certified`] names it.
    pub fn commit(&self) -> Option<Commit> {
        let (round, _) = self.certified()?;
        self.votes(round, VoteType::Precommit)?.commit()
    }

    /// The commit certificate of the height before with every precommit known so far, late ones too: the next block's last
    /// commit. None when the height before was not decided here but caught up with.
    pub fn previous_commit(&self) -> Option<Commit> {
        self.previous.as_ref()?.commit()
    }
}

/// What a decided height leaves to the next one.
fn decided_precommits(instance: Instance) -> Option<VoteSet> {
    let (round, _) = instance.certified.filter(|_| instance.is_decided)?;
    Some(instance.rounds.get(round)?.precommits.clone())
}
