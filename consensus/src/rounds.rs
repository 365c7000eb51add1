//! The rounds of one height: what is kept of each, and who was seen in which.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_types::quorum::Quorum;
use lockstep_types::{Height, Power, Proposal, Round, ValidatorIndex, ValidatorSet, VoteType};

use crate::planted::{Bug, Planted};
use crate::votes::VoteSet;

/// Rounds above ours whose messages are kept. Of farther ones only who was there is remembered, which is enough to skip to
/// them (L55); their votes are asked for again then. Two, so that what the next round needs is there when it begins, and a
/// validator that is one round behind its peers loses nothing.
pub const ROUNDS_AHEAD_MAX: u32 = 2;

/// Rounds below ours that are kept without a quorum for a block. Past rounds are needed for the polka of a valid round (L28)
/// and for late decisions (L49). What has such a quorum is kept for the whole height; what has none for so long is one
/// that nobody builds on. A round takes at least a prevote and a precommit timeout, so this is minutes of failed rounds.
pub const ROUNDS_BEHIND_MAX: u32 = 256;

/// A proposal that was answered or is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) proposal: Proposal,
    pub(crate) timely: bool,
}

/// One round.
#[derive(Debug, Clone)]
pub(crate) struct RoundVotes {
    /// The first proposal of its proposer.
    pub(crate) held: Option<Held>,
    pub(crate) prevotes: VoteSet,
    pub(crate) precommits: VoteSet,
    /// Only a planted bug sets it: the polka came before its body and is not looked at again.
    pub(crate) forgotten: bool,
}

impl RoundVotes {
    pub(crate) fn votes(&self, kind: VoteType) -> &VoteSet {
        match kind {
            VoteType::Prevote => &self.prevotes,
            VoteType::Precommit => &self.precommits,
        }
    }

    pub(crate) fn votes_mut(&mut self, kind: VoteType) -> &mut VoteSet {
        match kind {
            VoteType::Prevote => &mut self.prevotes,
            VoteType::Precommit => &mut self.precommits,
        }
    }

    fn is_built_upon(&self) -> bool {
        self.prevotes.quorum_block().is_some() || self.precommits.quorum_block().is_some()
    }
}

/// The rounds of a height that are kept, each made when its first message comes.
#[derive(Debug, Clone)]
pub(crate) struct Rounds {
    height: Height,
    validators: Arc<ValidatorSet>,
    kept: BTreeMap<Round, RoundVotes>,
    planted: Planted,
}

impl Rounds {
    pub(crate) fn new(height: Height, validators: Arc<ValidatorSet>, planted: Planted) -> Self {
        Self { height, validators, kept: BTreeMap::new(), planted }
    }

    /// Whether loose messages of `round` are kept while we are in `current`.
    pub(crate) fn keeps(&self, round: Round, current: Round) -> bool {
        let ahead = round.get() <= current.get().saturating_add(ROUNDS_AHEAD_MAX);
        let behind = round.get() >= current.get().saturating_sub(ROUNDS_BEHIND_MAX);
        ahead && (behind || self.kept.contains_key(&round))
    }

    pub(crate) fn get(&self, round: Round) -> Option<&RoundVotes> {
        self.kept.get(&round)
    }

    pub(crate) fn entry(&mut self, round: Round) -> &mut RoundVotes {
        self.kept.entry(round).or_insert_with(|| {
            let votes = |kind| VoteSet::with_planted(self.height, round, kind, Arc::clone(&self.validators), self.planted);
            let (prevotes, precommits) = (votes(VoteType::Prevote), votes(VoteType::Precommit));
            RoundVotes { held: None, prevotes, precommits, forgotten: false }
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Round, &RoundVotes)> {
        self.kept.iter().map(|(round, votes)| (*round, votes))
    }

    /// Drops what lies too far behind and is built upon by nobody.
    pub(crate) fn forget_before(&mut self, current: Round) {
        let oldest = current.get().saturating_sub(ROUNDS_BEHIND_MAX);
        self.kept.retain(|round, votes| round.get() >= oldest || votes.is_built_upon());
    }
}

/// The kinds of message that show in which round a validator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Proposal = 0,
    Prevote = 1,
    Precommit = 2,
}

impl From<VoteType> for Seen {
    fn from(kind: VoteType) -> Self {
        match kind {
            VoteType::Prevote => Self::Prevote,
            VoteType::Precommit => Self::Precommit,
        }
    }
}

/// The highest round in which each validator was seen: all that is remembered of rounds far ahead, whatever is sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sightings {
    /// By kind of message, then by validator.
    highest: [Vec<Option<Round>>; 3],
    planted: Planted,
}

impl Sightings {
    pub(crate) fn new(validators: &ValidatorSet, planted: Planted) -> Self {
        Self { highest: std::array::from_fn(|_| vec![None; validators.len()]), planted }
    }

    pub(crate) fn see(&mut self, validator: ValidatorIndex, round: Round, kind: Seen) {
        let highest = &mut self.highest[kind as usize][validator.index()];
        *highest = (*highest).max(Some(round));
    }

    /// The highest round above `current` that more than a third of the power has reached, each validator counted once,
    /// whatever messages it was seen by.
    pub(crate) fn reached_by_third(&self, current: Round, validators: &ValidatorSet) -> Option<Round> {
        let mut ahead: Vec<(Round, Power)> = Vec::new();
        for (index, validator) in validators.iter().enumerate() {
            let seen = self.highest.iter().map(|kind| kind[index]);
            if self.planted.has(Bug::SkipPerStep) {
                ahead.extend(seen.flatten().filter(|round| *round > current).map(|round| (round, validator.power)));
            } else if let Some(round) = seen.max().flatten().filter(|round| *round > current) {
                ahead.push((round, validator.power));
            }
        }
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        let total = validators.total_power();
        if self.planted.has(Bug::SkipOnOne) {
            return ahead.first().map(|(round, _)| *round);
        }
        let mut power = 0;
        ahead.into_iter().find_map(|(round, more)| {
            power = (power + more.get()).min(total.get());
            Quorum::Byzantine.has_correct(Power::new(power).expect("at most the total"), total).then_some(round)
        })
    }
}
