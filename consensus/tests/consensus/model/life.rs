//! What an honest validator makes of an event: the core runs, and what it says is remembered.

use std::collections::BTreeSet;
use std::sync::Arc;

use lockstep_consensus::{Consensus, Effect, HeightStart, Input, Restored, Step, Timeout, Value, VoteSet};
use lockstep_types::{Polka, Round, VoteType};

use super::{Body, Essence, Event, INVALID, Life, Quorum, Said, Tendermint, nobodys};
use crate::world::{self, HEIGHT, Settle, block, index};

impl Life {
    pub(super) fn start(me: usize, model: &Tendermint) -> Self {
        let essence = Essence {
            place: (Round::ZERO, Step::Propose),
            locked: None,
            valid: None,
            said: Said::new(),
            decided: None,
            polka: None,
            held: None,
            certified: None,
            bodies: BTreeSet::new(),
            recorded: None,
        };
        let core = Consensus::with_planted(model.scope.planted);
        let mut life = Self { me, core, essence, record: None, has_bodies: !model.scope.bodies };
        life.begin(model);
        life
    }

    /// Begins the height, from the guard's record if there is one, and hears again what it said.
    pub(super) fn begin(&mut self, model: &Tendermint) {
        self.core = Consensus::with_planted(model.scope.planted);
        self.essence.bodies.clear();
        let settle = |polka: &Option<Arc<Polka>>| polka.as_ref().map(|polka| (**polka).clone().settle(&model.set));
        let restored = self.record.as_ref().map(|record| Restored {
            round: record.round,
            step: record.step,
            locked: settle(&record.locked),
            valid: settle(&record.valid),
            lost: Vec::new(),
        });
        let (validators, params) = (Arc::clone(&model.set), world::params());
        let start = HeightStart { height: HEIGHT, validators, me: Some(index(self.me)), params, proposer_missed: false, restored };
        self.feed(model, Input::StartHeight(start));
        if self.has_bodies {
            self.take_bodies(model);
        }
        self.feed(model, Input::Ready);
        for ((round, step), value) in self.essence.said.clone() {
            let said = match step {
                Step::Propose => model.proposal(round, value, true),
                Step::Prevote => model.vote(self.me, VoteType::Prevote, round, value),
                Step::Precommit => model.vote(self.me, VoteType::Precommit, round, value),
            };
            self.feed(model, said);
        }
    }

    /// Every body there is, judged and durable.
    pub(super) fn take_bodies(&mut self, model: &Tendermint) {
        for name in ['A', 'B'] {
            self.feed(model, Input::Checked { block_id: block(name), valid: true });
            self.feed(model, Input::BodyDurable { block_id: block(name) });
        }
        self.feed(model, Input::Checked { block_id: block(INVALID), valid: false });
    }

    /// What we say comes back at once; a block we ask for is A in even rounds and B in odd ones.
    pub(super) fn feed(&mut self, model: &Tendermint, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.core.step(input) {
                match effect {
                    Effect::Persist(_, record) => self.record = Some(record),
                    Effect::Cast(_, ballot) => {
                        let value = Value { block_id: ballot.block_id, valid_round: ballot.valid_round };
                        self.say((ballot.round, ballot.kind.into()), value);
                        inputs.push(model.vote(self.me, ballot.kind, ballot.round, value));
                    }
                    Effect::Propose(_, draft) => {
                        let value = Value { block_id: Some(draft.block_id), valid_round: draft.pol_round };
                        self.say((draft.round, Step::Propose), value);
                        inputs.push(model.proposal(draft.round, value, true));
                    }
                    Effect::Build { round, .. } => {
                        let block_id = block(if round.get() % 2 == 0 { 'A' } else { 'B' });
                        inputs.push(Input::Built { round, block_id });
                        if !self.has_bodies {
                            self.essence.bodies.extend([(block_id, Body::Asked), (block_id, Body::Checked)]);
                        }
                    }
                    Effect::Check { block_id } if !self.has_bodies => {
                        self.essence.bodies.insert((block_id, Body::Asked));
                    }
                    Effect::Decide { commit } => self.essence.decided = Some(commit.block_id),
                    _ => {}
                }
            }
        }
        let place = |polka: Option<&Arc<Polka>>| polka.map(|polka| (polka.round, polka.block_id));
        let (round, step) = (self.core.round(), self.core.current_step());
        self.essence.place = (round, step);
        self.essence.locked = place(self.core.locked());
        self.essence.valid = place(self.core.valid());
        self.essence.polka = self.core.votes(round, VoteType::Prevote).and_then(VoteSet::quorum);
        if !self.has_bodies {
            let held = self.core.proposal(round).filter(|_| step == Step::Propose);
            let held = held.map(|held| Value { block_id: Some(held.block_id), valid_round: held.pol_round });
            self.essence.held = held.map(|value| (value, self.essence.held.is_none_or(|(_, timely)| timely)));
            self.essence.certified = self.core.certified().map(|(_, block_id)| block_id).filter(|_| self.essence.decided.is_none());
        }
        if model.scope.restarts > 0 {
            self.essence.recorded = self.record.as_ref().map(|record| (place(record.locked.as_ref()), place(record.valid.as_ref())));
        }
    }

    /// A validator signs one message in each step, whatever happens to it.
    fn say(&mut self, at: (Round, Step), value: Value) {
        let before = self.essence.said.insert(at, value);
        assert!(before.is_none_or(|before| before == value), "{} says {before:?} and {value:?} at {at:?}", self.me);
    }

    pub(super) fn on_event(&mut self, model: &Tendermint, event: &Event) {
        match event {
            Event::Proposal { round, value, timely, polka } => {
                polka.iter().for_each(|polka| self.feed(model, model.polka(polka)));
                if !self.has_bodies && self.essence.held.is_none() && !timely {
                    self.essence.held = Some((*value, false));
                }
                self.feed(model, model.proposal(*round, *value, *timely));
            }
            Event::Polka(quorum) => self.feed(model, model.polka(quorum)),
            Event::Commit(Quorum { round, value, signers }) => {
                let block_id = value.block_id.expect("a certificate has a block");
                self.feed(model, Input::Commit(world::commit(&model.set, *round, block_id, signers).settle(&model.set)));
            }
            Event::Skip { voter, kind, round, value } => {
                self.feed(model, model.vote(model.scope.byzantine[0], VoteType::Prevote, *round, nobodys()));
                self.feed(model, model.vote(*voter, *kind, *round, *value));
            }
            Event::TimedOut(step) => {
                let round = self.core.round();
                // The Byzantine votes without which the timer might not run.
                let kind = match step {
                    Step::Propose => None,
                    Step::Prevote => Some(VoteType::Prevote),
                    Step::Precommit => Some(VoteType::Precommit),
                };
                for voter in kind.iter().flat_map(|_| &model.scope.byzantine) {
                    self.feed(model, model.vote(*voter, kind.expect("a kind"), round, nobodys()));
                }
                self.feed(model, Input::TimedOut(Timeout { height: HEIGHT, round, step: *step }));
            }
            Event::Body(block_id, body) => {
                self.essence.bodies.insert((*block_id, *body));
                self.feed(
                    model,
                    match body {
                        Body::Checked => Input::Checked { block_id: *block_id, valid: *block_id != block(INVALID) },
                        Body::Durable => Input::BodyDurable { block_id: *block_id },
                        Body::Asked => unreachable!("the core asks"),
                    },
                );
            }
            Event::Restart => self.begin(model),
        }
    }

    /// The last vote in a round. Who proposes prevotes at once, so whoever said anything voted.
    pub(super) fn last_vote(&self, round: Round) -> Option<(VoteType, Value)> {
        let said = |kind: VoteType| self.essence.said.get(&(round, kind.into())).map(|value| (kind, *value));
        said(VoteType::Precommit).or_else(|| said(VoteType::Prevote))
    }

    /// The rules of a lock (L23, L29), restated: who precommitted a block prevotes another one only in the name of a polka that
    /// is not older.
    pub(super) fn keeps_its_lock(&self) -> bool {
        let said = &self.essence.said;
        let prevotes = said.iter().filter(|((_, step), value)| *step == Step::Prevote && value.block_id.is_some());
        prevotes.into_iter().all(|((round, _), value)| {
            let mut before = said.range(..(*round, Step::Propose)).rev();
            let lock = before.find(|((_, step), value)| *step == Step::Precommit && value.block_id.is_some());
            lock.is_none_or(|((locked, _), lock)| {
                lock.block_id == value.block_id || value.valid_round.is_some_and(|round| round >= *locked)
            })
        })
    }
}
