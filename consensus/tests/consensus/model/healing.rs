//! Whether all decide once the network heals.

use std::sync::Arc;

use lockstep_consensus::{Input, LOOSE_VALUES_MAX, ROUNDS_AHEAD_MAX, Step, Timeout, Value};
use lockstep_types::{Polka, Round, VoteType};

use super::{HEALING_ROUNDS, Life, NODES, Quorum, State, Tendermint, values};
use crate::world::{self, HEIGHT, Settle};

impl Tendermint {
    /// Whether the explored rounds end here, or nothing can happen any more. Every state leads to such a one, so what can
    /// still decide from all of these can from everywhere.
    pub(super) fn is_end(&self, state: &State) -> bool {
        let last = (world::round(self.scope.rounds - 1), Step::Precommit);
        let at_bound = state.essences().all(|essence| essence.decided.is_some() || essence.place == last);
        at_bound || state.nodes.iter().all(|node| self.events(state, node).is_empty())
    }

    pub(super) fn is_healed(&self, state: &State) -> bool {
        state.canonical().0.iter().fold(0u64, |sum, hash| sum.wrapping_add(*hash)).is_multiple_of(self.scope.healed)
    }

    /// Whether all decide one value once the network heals: as they are, and when all of them restart first and nothing is left
    /// but what their guards recorded.
    pub(super) fn can_still_decide(&self, state: &State) -> bool {
        let lives = |restart: bool| state.nodes.iter().map(move |node| self.healthy(state, &node.life, restart)).collect();
        self.decide(state, lives(false)) && self.decide(state, lives(true))
    }

    /// A life in a healed network. The polkas of its lock and its valid value are signed by those who voted for them in this
    /// state: the core was met in another one, where they may have been others.
    fn healthy(&self, state: &State, life: &Life, restart: bool) -> Life {
        let mut life = Life { has_bodies: true, ..life.clone() };
        if restart && life.essence.decided.is_none() {
            let polka = |round: Round, polka: &Option<Arc<Polka>>| {
                let block_id = polka.as_ref()?.block_id;
                let mut signed = values(round).filter(|value| value.block_id == Some(block_id));
                let Quorum { value, signers, .. } = signed.find_map(|value| self.quorum(state, round, Step::Prevote, value))?;
                Some(Arc::new(world::polka(round, block_id, value.valid_round, &signers)))
            };
            let signed_here = |held: &Option<Arc<Polka>>| held.as_ref().and_then(|found| polka(found.round, held));
            if let Some(record) = &mut life.record {
                record.locked = signed_here(&record.locked);
                record.valid = signed_here(&record.valid);
            }
            life.begin(self);
        }
        life.take_bodies(self);
        life
    }

    fn decide(&self, state: &State, mut lives: Vec<Life>) -> bool {
        loop {
            while self.exchange(state, &mut lives) {}
            if lives.iter().all(|life| life.essence.decided.is_some()) {
                return lives.windows(2).all(|pair| pair[0].essence.decided == pair[1].essence.decided);
            }
            if lives.iter().any(|life| life.core.round().get() > self.scope.rounds + HEALING_ROUNDS) || !self.time_out(&mut lives) {
                return false;
            }
        }
    }

    /// Whether somebody's word was said: in this state, or since the network healed. Those who lie said everything.
    fn was_said(&self, lives: &[Life], voter: usize, round: Round, kind: VoteType, value: Value) -> bool {
        let voter = lives.iter().find(|life| life.me == voter);
        voter.is_none_or(|voter| voter.essence.said.get(&(round, kind.into())) == Some(&value))
    }

    /// Brings everybody what the others hold, and nothing that was not said; whether that was news to anybody.
    fn exchange(&self, state: &State, lives: &mut [Life]) -> bool {
        let mut news = false;
        for to in 0..lives.len() {
            for from in (0..lives.len()).filter(|from| *from != to) {
                let lacks = self.lacking(state, lives, from, to);
                news |= !lacks.is_empty();
                lacks.into_iter().for_each(|input| lives[to].feed(self, input));
            }
        }
        news
    }

    /// Messages that one holds and another lacks. A core was met in another state, where a quorum may have had other signers:
    /// those that are passed on are who signed here.
    fn lacking(&self, state: &State, lives: &[Life], from: usize, to: usize) -> Vec<Input> {
        let mut lacks = Vec::new();
        let (from, to) = (&lives[from].core, &lives[to].core);
        if let Some(commit) = from.commit().filter(|_| to.certified().is_none()) {
            let value = Value { block_id: Some(commit.block_id), valid_round: None };
            for round in (0..=self.scope.rounds + HEALING_ROUNDS).map(world::round) {
                let signers: Vec<usize> =
                    (0..NODES).filter(|voter| self.was_said(lives, *voter, round, VoteType::Precommit, value)).collect();
                if self.is_signed_by_enough(&signers) {
                    lacks.push(Input::Commit(world::commit(&self.set, round, commit.block_id, &signers).settle(&self.set)));
                    break;
                }
            }
        }
        for round in from.rounds() {
            if let Some(proposal) = from.proposal(round).filter(|_| round >= to.round() && to.proposal(round).is_none()) {
                let value = Value { block_id: Some(proposal.block_id), valid_round: proposal.pol_round };
                lacks.push(self.proposal(round, value, true));
            }
            let has_quorum = to.votes(round, VoteType::Prevote).is_some_and(|votes| votes.quorum().is_some());
            if let Some(polka) = from.polka(round).filter(|_| !has_quorum) {
                let value = Value { block_id: Some(polka.block_id), valid_round: polka.valid_round };
                // Made before the network healed, with one who lies, or since.
                let signers = match self.quorum(state, round, Step::Prevote, value) {
                    Some(quorum) => quorum.signers,
                    None => (0..NODES).filter(|voter| self.was_said(lives, *voter, round, VoteType::Prevote, value)).collect(),
                };
                if self.is_signed_by_enough(&signers) {
                    lacks.push(self.polka(&Quorum { round, value, signers }));
                }
            }
            for kind in [VoteType::Prevote, VoteType::Precommit] {
                for vote in from.votes(round, kind).into_iter().flat_map(|votes| votes.votes()) {
                    let (voter, value) = (vote.validator.index(), Value::from(vote));
                    let known = to.votes(round, kind).map_or(&[][..], |votes| votes.votes_of(vote.validator));
                    let is_news = known.len() < LOOSE_VALUES_MAX && known.iter().all(|other| Value::from(other) != value);
                    let is_kept = to.round().get() + ROUNDS_AHEAD_MAX >= round.get();
                    if is_news && is_kept && self.was_said(lives, voter, round, kind, value) {
                        lacks.push(self.vote(voter, kind, round, value));
                    }
                }
            }
        }
        lacks
    }

    fn is_signed_by_enough(&self, signers: &[usize]) -> bool {
        signers.len() * 3 > NODES * 2
    }

    /// Fires the timers that run.
    fn time_out(&self, lives: &mut [Life]) -> bool {
        let mut fired = false;
        for life in lives.iter_mut().filter(|life| life.essence.decided.is_none()) {
            let (round, step) = (life.core.round(), life.core.current_step());
            let spoke = |kind| life.core.votes(round, kind).is_some_and(|votes| votes.power_for_any().get() * 3 > NODES as u64 * 2);
            let runs = match step {
                Step::Propose => true,
                Step::Prevote => spoke(VoteType::Prevote),
                Step::Precommit => spoke(VoteType::Precommit),
            };
            if runs {
                fired = true;
                life.feed(self, Input::TimedOut(Timeout { height: HEIGHT, round, step }));
            }
        }
        fired
    }
}
