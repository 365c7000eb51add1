//! The votes of one step of one round, and how they are counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_types::commit::PolkaSig;
use lockstep_types::quorum::Quorum;
use lockstep_types::vote::Verified;
use lockstep_types::{BlockId, Commit, Height, Polka, Power, Round, ValidatorIndex, ValidatorSet, Vote, VoteType};

use crate::message::Value;
use crate::planted::{Bug, Planted};

/// Values that loose votes of one validator can add to one step of a round. Two prove that it equivocates; a third proves
/// nothing more, and lets it fill our memory.
pub const LOOSE_VALUES_MAX: usize = 2;

/// Values of one validator in one step of a round, all in all. A certificate is judged by itself, so its votes count
/// whatever was counted before; but only the first certificate's, so it adds one.
pub const VALUES_MAX: usize = LOOSE_VALUES_MAX + 1;

/// Two votes of one validator for two values in one step of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Equivocation {
    /// The one we counted first.
    pub first: Vote,
    /// The other.
    pub second: Vote,
}

/// What a vote changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// The vote was not here before.
    pub added: bool,
    /// The value whose quorum this vote completes; given once per set.
    pub quorum: Option<Value>,
    /// The first proof that this validator voted for two values.
    pub equivocation: Option<Box<Equivocation>>,
}

/// The prevotes or the precommits of one round.
///
/// A validator counts once towards each value it voted for, and once towards "any". A second value still counts towards
/// itself, else one equivocator could hide a quorum from us: it shows us the one vote and the others the other.
///
/// Safety. With less than a third of the power faulty, two values cannot both have more than two thirds: the two quorums
/// would share more than a third of the power, hence a correct validator, who votes once. So the first quorum is the only
/// one, and [`VoteSet::quorum`] need not hold more.
#[derive(Debug, Clone)]
pub struct VoteSet {
    height: Height,
    round: Round,
    kind: VoteType,
    validators: Arc<ValidatorSet>,
    total: Power,
    /// By validator, then in the order of arrival, at most [`VALUES_MAX`] each.
    slots: Vec<Vec<Vote>>,
    tallies: BTreeMap<Value, Power>,
    any: Power,
    quorum: Option<Value>,
    waited: bool,
    planted: Planted,
}

impl VoteSet {
    /// An empty set for a step of a round.
    pub fn new(height: Height, round: Round, kind: VoteType, validators: Arc<ValidatorSet>) -> Self {
        Self::with_planted(height, round, kind, validators, Planted::default())
    }

    pub(crate) fn with_planted(height: Height, round: Round, kind: VoteType, validators: Arc<ValidatorSet>, planted: Planted) -> Self {
        let heads = || Power::new(validators.len() as u64).expect("a set is bounded");
        let total = if planted.has(Bug::HeadsCounted) { heads() } else { validators.total_power() };
        let slots = vec![Vec::new(); validators.len()];
        Self {
            height,
            round,
            kind,
            validators,
            total,
            slots,
            tallies: BTreeMap::new(),
            any: Power::ZERO,
            quorum: None,
            waited: false,
            planted,
        }
    }

    /// Counts a vote of this height, round and step. Which those are is the caller's promise.
    pub fn add(&mut self, vote: &Verified<Vote>) -> Counted {
        self.insert(vote.get().clone(), LOOSE_VALUES_MAX)
    }

    /// Counts the votes of a polka, whatever was counted before. What each vote changed is given in the polka's order.
    pub fn add_polka(&mut self, polka: &Verified<Polka>) -> Vec<Counted> {
        let value = Value { block_id: Some(polka.block_id), valid_round: polka.valid_round };
        self.add_certificate(polka.votes(), value)
    }

    /// Counts the votes of a commit certificate, those for nil too.
    pub fn add_commit(&mut self, commit: &Verified<Commit>) -> Vec<Counted> {
        let value = Value { block_id: Some(commit.block_id), valid_round: None };
        self.add_certificate(commit.votes(), value)
    }

    /// The votes for the certified value get a place of their own, unless another value has its quorum already: then more
    /// than a third of the power equivocates, and what matters of these votes is the evidence.
    fn add_certificate(&mut self, votes: impl Iterator<Item = Vote>, certified: Value) -> Vec<Counted> {
        let is_first = self.quorum.is_none_or(|quorum| quorum == certified);
        votes
            .map(|vote| {
                let own_place = is_first && Value::from(&vote) == certified;
                self.insert(vote, if own_place { VALUES_MAX } else { LOOSE_VALUES_MAX })
            })
            .collect()
    }

    fn insert(&mut self, vote: Vote, values_max: usize) -> Counted {
        let slot = (vote.height, vote.round, vote.kind);
        assert_eq!(slot, (self.height, self.round, self.kind), "a vote of another step");
        let value = self.value_of(&vote);
        let power = self.validators.get(vote.validator).expect("a verified vote is a validator's").power;
        let power = if self.planted.has(Bug::HeadsCounted) { Power::new(1).expect("one of them") } else { power };
        let held = &mut self.slots[vote.validator.index()];
        let repeated = held.iter().any(|other| value_of(other, self.planted) == value);
        if repeated && self.planted.has(Bug::DuplicateCountedTwice) {
            return self.tally(value, power);
        }
        let values_max = if self.planted.has(Bug::FirstVoteOnly) { 1 } else { values_max };
        if repeated || held.len() >= values_max {
            return Counted::default();
        }
        let is_first = held.is_empty();
        let equivocation = (held.len() == 1).then(|| Box::new(Equivocation { first: held[0].clone(), second: vote.clone() }));
        held.push(vote);
        if is_first {
            self.any = sum(self.any, power, self.total);
        }
        Counted { added: true, equivocation, ..self.tally(value, power) }
    }

    fn tally(&mut self, value: Value, power: Power) -> Counted {
        let tally = self.tallies.entry(value).or_default();
        *tally = sum(*tally, power, self.total);
        if self.quorum.is_some() {
            return Counted::default();
        }
        self.quorum = if self.planted.has(Bug::NilCounted) {
            self.tallies.keys().find(|value| self.has_quorum(**value)).copied()
        } else {
            self.has_quorum(value).then_some(value)
        };
        Counted { quorum: self.quorum, ..Counted::default() }
    }

    fn value_of(&self, vote: &Vote) -> Value {
        value_of(vote, self.planted)
    }

    fn has_quorum(&self, value: Value) -> bool {
        self.exceeds_two_thirds(self.power_for(value))
    }

    fn exceeds_two_thirds(&self, power: Power) -> bool {
        if self.planted.has(Bug::QuorumAtTwoThirds) {
            return power.get() * 3 >= self.total.get() * 2;
        }
        Quorum::Byzantine.is_quorum(power, self.total)
    }

    /// The power that voted for a value.
    pub fn power_for(&self, value: Value) -> Power {
        let power = self.tallies.get(&value).copied().unwrap_or_default();
        if self.planted.has(Bug::NilCounted) && value.block_id.is_some() {
            let nil = self.tallies.get(&Value::NIL).copied().unwrap_or_default();
            return sum(power, nil, self.total);
        }
        power
    }

    /// The power that voted at all.
    pub fn power_for_any(&self) -> Power {
        self.any
    }

    /// The value that more than two thirds voted for: the first, and with less than a third of the power faulty the only one.
    pub fn quorum(&self) -> Option<Value> {
        self.quorum
    }

    /// The block of [`VoteSet::quorum`]; none while there is none, and for a quorum of nil.
    pub fn quorum_block(&self) -> Option<BlockId> {
        self.quorum.and_then(|value| value.block_id)
    }

    /// Whether more than two thirds voted at all, and nobody took notice yet: "for the first time" of L34 and L47.
    pub(crate) fn is_wait_due(&self) -> bool {
        let must_agree = match self.kind {
            VoteType::Prevote => Bug::PrevotesMustAgree,
            VoteType::Precommit => Bug::PrecommitsMustAgree,
        };
        !self.waited && self.exceeds_two_thirds(self.any) && (self.quorum.is_some() || !self.planted.has(must_agree))
    }

    /// Notice is taken.
    pub(crate) fn wait(&mut self) {
        assert!(self.is_wait_due(), "a timer starts once");
        self.waited = true;
    }

    /// The height of these votes.
    pub fn height(&self) -> Height {
        self.height
    }

    /// The round of these votes.
    pub fn round(&self) -> Round {
        self.round
    }

    /// Prevotes or precommits.
    pub fn kind(&self) -> VoteType {
        self.kind
    }

    /// Every vote held, by validator.
    pub fn votes(&self) -> impl Iterator<Item = &Vote> {
        self.slots.iter().flatten()
    }

    /// The votes of one validator, at most [`VALUES_MAX`].
    pub fn votes_of(&self, validator: ValidatorIndex) -> &[Vote] {
        self.slots.get(validator.index()).map_or(&[], Vec::as_slice)
    }

    /// Every value that somebody voted for, with the power behind it.
    pub fn values(&self) -> impl Iterator<Item = (Value, Power)> {
        self.tallies.iter().map(|(value, power)| (*value, *power))
    }

    /// Who voted for a value, ascending.
    pub fn voters(&self, value: Value) -> impl Iterator<Item = ValidatorIndex> {
        self.votes_for(value).map(|vote| vote.validator)
    }

    /// The votes for a value, by validator.
    pub fn votes_for(&self, value: Value) -> impl Iterator<Item = &Vote> {
        self.votes().filter(move |vote| self.value_of(vote) == value)
    }

    /// The certificate of a prevote quorum for a block.
    pub fn polka(&self) -> Option<Polka> {
        let value = self.quorum?;
        let block_id = value.block_id?;
        assert_eq!(self.kind, VoteType::Prevote, "a polka is made of prevotes");
        let signatures = self
            .votes_for(value)
            .map(|vote| PolkaSig { validator: vote.validator, timestamp: vote.timestamp, signature: vote.signature })
            .collect();
        Some(Polka { height: self.height, round: self.round, block_id, valid_round: value.valid_round, signatures })
    }

    /// The certificate of a precommit quorum for a block, with every vote for it and for nil that is known so far.
    pub fn commit(&self) -> Option<Commit> {
        let block_id = self.quorum_block()?;
        assert_eq!(self.kind, VoteType::Precommit, "a commit is made of precommits");
        Some(Commit::from_precommits(self.height, self.round, block_id, &self.validators, self.votes()))
    }
}

fn value_of(vote: &Vote, planted: Planted) -> Value {
    let value = Value::from(vote);
    if planted.has(Bug::PolkaBlindToValidRound) { Value { valid_round: None, ..value } } else { value }
}

/// Nobody is counted twice, so no sum exceeds the whole.
fn sum(a: Power, b: Power, total: Power) -> Power {
    Power::new((a.get() + b.get()).min(total.get())).expect("at most the total")
}
