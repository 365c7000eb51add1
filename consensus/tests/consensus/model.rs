//! The real core under a model checker: four validators of equal power, one of them Byzantine, every behaviour of theirs in
//! the first rounds of a height.
//!
//! Three real cores run. The network holds everything that was said and brings anything to anybody at any time or never;
//! timers fire whenever they could be running. The Byzantine validator adds its signature to whatever is asked of it: to
//! every quorum that two honest validators almost make, on any value and valid round, to each node another; and where it
//! proposes it sends any value under any valid round, forged or not, to each node.
//!
//! **What is left out, and why nothing is lost.** A message that enables no rule at its receiver changes nothing that
//! anybody can see, so it may as well arrive together with the one that does. So votes arrive as quorums (a polka, a
//! certificate), a proposal together with the polka it names, and behind a skip or a timer stands a Byzantine vote for a
//! block that nobody else votes for, which helps no other quorum. What a node knows beyond that enables no rule that could
//! not be enabled later by the same messages, since what was said stays said; so it tells no two states apart.
//!
//! **Can still decide.** From every state reached, the network heals: honest validators exchange all they hold, the
//! Byzantine one falls silent, timers fire only when nothing else happens. Then all must decide, within a few rounds.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use lockstep_consensus::planted::{Bug, Planted};
use lockstep_consensus::{Consensus, Effect, HeightStart, Input, Step, Timeout, Value, VoteSet};
use lockstep_types::{BlockId, Polka, Round, ValidatorSet, VoteType};
use stateright::{Checker, HasDiscoveries, Model, Property, UniformChooser};

use crate::world::{self, HEIGHT, Settle, block, block_time, index, validators};

const NODES: usize = 4;
/// Rounds that a healed network may need beyond those explored: each honest validator leads one, and the silent one.
const HEALING_ROUNDS: u32 = 6;

struct Tendermint {
    set: Arc<ValidatorSet>,
    byzantine: usize,
    /// Rounds explored.
    rounds: u32,
    planted: Planted,
    memory: Mutex<Memory>,
}

/// What every node did on every event. Cores are pure, and the same node in the same state meets the same event in a great
/// many states of the network.
#[derive(Default)]
struct Memory {
    nodes: BTreeMap<(usize, Essence), Arc<Node>>,
    steps: BTreeMap<(usize, Event), Option<Arc<Node>>>,
}

/// What an honest validator said in a step of a round.
type Said = BTreeMap<(Round, Step), Value>;

/// An honest validator.
#[derive(Clone)]
struct Node {
    /// A number for each node and essence.
    id: usize,
    /// Of the essence.
    hash: u64,
    me: usize,
    core: Consensus,
    essence: Essence,
}

/// What a node's future and its part in the future of others depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Essence {
    place: (Round, Step),
    locked: Option<(Round, BlockId)>,
    valid: Option<(Round, BlockId)>,
    said: Said,
    decided: Option<BlockId>,
    /// Of our round: L36 acts on it once we prevoted.
    polka: Option<Value>,
}

/// The honest validators, by index.
#[derive(Clone)]
struct State {
    nodes: Vec<Arc<Node>>,
    /// The first of those who propose in none of the explored rounds: they differ in nothing but their names.
    equals_from: usize,
}

impl State {
    fn essences(&self) -> impl Iterator<Item = &Essence> {
        self.nodes.iter().map(|node| &node.essence)
    }

    /// Told apart by what they do, not by who they are, where that makes no difference.
    fn canonical(&self) -> Vec<u64> {
        let mut hashes: Vec<u64> = self.nodes.iter().map(|node| node.hash).collect();
        hashes[self.equals_from..].sort_unstable();
        hashes
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.canonical().hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.essences()).finish()
    }
}

/// What can happen to a node: what comes to it, in full, so that what it does next depends on nothing else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Proposal {
        round: Round,
        value: Value,
        polka: Option<Quorum>,
    },
    Polka(Quorum),
    Commit(Quorum),
    /// The vote of an honest validator in a later round; the Byzantine one is there too.
    Skip {
        voter: usize,
        kind: VoteType,
        round: Round,
        value: Value,
    },
    TimedOut(Step),
}

/// Who said the same in a step of a round, and the Byzantine validator, who says everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Quorum {
    round: Round,
    value: Value,
    signers: Vec<usize>,
}

/// An event at the node of this place among the honest ones.
#[derive(Debug, Clone, PartialEq)]
struct Action {
    place: usize,
    event: Event,
}

impl Node {
    fn start(me: usize, model: &Tendermint) -> Self {
        let mut core = Consensus::with_planted(model.planted);
        let (validators, params) = (Arc::clone(&model.set), world::params());
        let start = HeightStart { height: HEIGHT, validators, me: Some(index(me)), params, proposer_missed: false, restored: None };
        core.step(Input::StartHeight(start));
        let essence =
            Essence { place: (Round::ZERO, Step::Propose), locked: None, valid: None, said: Said::new(), decided: None, polka: None };
        let mut node = Self { id: 0, hash: 0, me, core, essence };
        for block_id in [block('A'), block('B')] {
            node.feed(model, Input::Checked { block_id, valid: true });
            node.feed(model, Input::BodyDurable { block_id });
        }
        node.feed(model, Input::Ready);
        node
    }

    /// What we say comes back at once; a block we ask for is A in even rounds and B in odd ones.
    fn feed(&mut self, model: &Tendermint, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.core.step(input) {
                match effect {
                    Effect::Cast(_, ballot) => {
                        let value = Value { block_id: ballot.block_id, valid_round: ballot.valid_round };
                        self.essence.said.insert((ballot.round, ballot.kind.into()), value);
                        inputs.push(model.vote(self.me, ballot.kind, ballot.round, value));
                    }
                    Effect::Propose(_, draft) => {
                        let value = Value { block_id: Some(draft.block_id), valid_round: draft.pol_round };
                        self.essence.said.insert((draft.round, Step::Propose), value);
                        inputs.push(model.proposal(draft.round, value));
                    }
                    Effect::Build { round, .. } => {
                        let block_id = block(if round.get() % 2 == 0 { 'A' } else { 'B' });
                        inputs.push(Input::Built { round, block_id });
                    }
                    Effect::Decide { commit } => self.essence.decided = Some(commit.block_id),
                    _ => {}
                }
            }
        }
        let place = |polka: Option<&Arc<Polka>>| polka.map(|polka| (polka.round, polka.block_id));
        let round = self.core.round();
        self.essence.place = (round, self.core.current_step());
        self.essence.locked = place(self.core.locked());
        self.essence.valid = place(self.core.valid());
        self.essence.polka = self.core.votes(round, VoteType::Prevote).and_then(VoteSet::quorum);
    }

    fn on_event(&mut self, model: &Tendermint, event: &Event) {
        match event {
            Event::Proposal { round, value, polka } => {
                polka.iter().for_each(|polka| self.feed(model, model.polka(polka)));
                self.feed(model, model.proposal(*round, *value));
            }
            Event::Polka(quorum) => self.feed(model, model.polka(quorum)),
            Event::Commit(Quorum { round, value, signers }) => {
                let block_id = value.block_id.expect("a certificate has a block");
                self.feed(model, Input::Commit(world::commit(&model.set, *round, block_id, signers).settle(&model.set)));
            }
            Event::Skip { voter, kind, round, value } => {
                self.feed(model, model.vote(model.byzantine, VoteType::Prevote, *round, nobodys()));
                self.feed(model, model.vote(*voter, *kind, *round, *value));
            }
            Event::TimedOut(step) => {
                let round = self.core.round();
                // The Byzantine vote without which the timer might not run.
                match step {
                    Step::Propose => {}
                    Step::Prevote => self.feed(model, model.vote(model.byzantine, VoteType::Prevote, round, nobodys())),
                    Step::Precommit => self.feed(model, model.vote(model.byzantine, VoteType::Precommit, round, nobodys())),
                }
                self.feed(model, Input::TimedOut(Timeout { height: HEIGHT, round, step: *step }));
            }
        }
    }

    /// The last vote in a round. Who proposes prevotes at once, so whoever said anything voted.
    fn last_vote(&self, round: Round) -> Option<(VoteType, Value)> {
        let said = |kind: VoteType| self.essence.said.get(&(round, kind.into())).map(|value| (kind, *value));
        said(VoteType::Precommit).or_else(|| said(VoteType::Prevote))
    }
}

/// What helps no quorum.
fn nobodys() -> Value {
    Value { block_id: Some(block('Z')), valid_round: None }
}

/// Every value that a prevote or a proposal of a round can have.
fn values(round: Round) -> impl Iterator<Item = Value> {
    let valid_rounds = move || std::iter::once(None).chain((0..round.get()).map(|round| Some(world::round(round))));
    let value = |name| move |valid_round| Value { block_id: Some(block(name)), valid_round };
    ['A', 'B'].into_iter().flat_map(move |name| valid_rounds().map(value(name)))
}

impl Tendermint {
    fn new(byzantine: usize, rounds: u32, planted: Planted) -> Self {
        Self { set: validators(&[1; NODES]), byzantine, rounds, planted, memory: Mutex::default() }
    }

    fn vote(&self, voter: usize, kind: VoteType, round: Round, value: Value) -> Input {
        Input::Vote(world::vote(kind, round, value.block_id, value.valid_round, index(voter)).settle(&self.set))
    }

    fn proposal(&self, round: Round, value: Value) -> Input {
        let proposal = world::proposal(round, value.block_id.expect("a proposal has a block"), value.valid_round);
        Input::Proposal { proposal: proposal.settle(&self.set), received: block_time() }
    }

    fn polka(&self, quorum: &Quorum) -> Input {
        let Quorum { round, value, signers } = quorum;
        Input::Polka(world::polka(*round, value.block_id.expect("a polka has a block"), value.valid_round, signers).settle(&self.set))
    }

    fn quorum(&self, state: &State, round: Round, step: Step, value: Value) -> Option<Quorum> {
        let said = |node: &&Arc<Node>| node.essence.said.get(&(round, step)) == Some(&value);
        let honest = state.nodes.iter().filter(said).count();
        if (honest + 1) * 3 <= NODES * 2 {
            return None;
        }
        let mut signers: Vec<usize> = state.nodes.iter().filter(said).map(|node| node.me).chain([self.byzantine]).collect();
        signers.sort_unstable();
        Some(Quorum { round, value, signers })
    }

    /// Whether two thirds spoke in a step of a round, so that its timer can run.
    fn spoke(&self, state: &State, round: Round, step: Step) -> bool {
        let honest = state.essences().filter(|essence| essence.said.contains_key(&(round, step))).count();
        (honest + 1) * 3 > NODES * 2
    }

    /// What can come to the proposer's audience: what it said, or anything.
    fn proposals(&self, state: &State, round: Round) -> Vec<Value> {
        let proposer = self.set.proposer(round).index();
        if proposer == self.byzantine {
            return values(round).collect();
        }
        let said = state.nodes.iter().find(|node| node.me == proposer).and_then(|node| node.essence.said.get(&(round, Step::Propose)));
        said.copied().into_iter().collect()
    }

    fn events(&self, state: &State, node: &Node) -> Vec<Event> {
        let mut events = Vec::new();
        let (current, step) = node.essence.place;
        if node.essence.decided.is_some() {
            return events;
        }
        if step == Step::Propose {
            for value in self.proposals(state, current) {
                let tags = value.valid_round.into_iter().flat_map(|round| values(round).map(move |tag| (round, tag)));
                let mut polkas = tags.filter(|(_, tag)| tag.block_id == value.block_id);
                let polka = polkas.find_map(|(round, tag)| self.quorum(state, round, Step::Prevote, tag));
                events.push(Event::Proposal { round: current, value, polka });
            }
            events.push(Event::TimedOut(Step::Propose));
        }
        for round in (0..self.rounds).map(world::round) {
            // A polka of our round acts past the propose step; one of an earlier round comes with a proposal.
            if round > current || (round == current && step >= Step::Prevote) {
                let polkas = values(round).filter_map(|value| self.quorum(state, round, Step::Prevote, value));
                events.extend(polkas.map(Event::Polka));
            }
            let commits = values(Round::ZERO).filter_map(|value| self.quorum(state, round, Step::Precommit, value));
            events.extend(commits.map(Event::Commit));
            if round > current {
                let vote = state.nodes.iter().find_map(|other| Some((other.me, other.last_vote(round)?)));
                events.extend(vote.map(|(voter, (kind, value))| Event::Skip { voter, kind, round, value }));
            }
        }
        if step == Step::Prevote && self.spoke(state, current, Step::Prevote) {
            events.push(Event::TimedOut(Step::Prevote));
        }
        if current.get() + 1 < self.rounds && self.spoke(state, current, Step::Precommit) {
            events.push(Event::TimedOut(Step::Precommit));
        }
        events
    }

    /// What the node becomes; none where the event changes nothing that anybody can see.
    fn after(&self, node: &Node, event: Event) -> Option<Arc<Node>> {
        let key = (node.id, event);
        if let Some(known) = self.memory.lock().expect("nobody panics").steps.get(&key) {
            return known.clone();
        }
        let mut next = node.clone();
        next.on_event(self, &key.1);
        let next = (next.essence != node.essence).then(|| self.intern(next));
        self.memory.lock().expect("nobody panics").steps.insert(key, next.clone());
        next
    }

    fn intern(&self, mut node: Node) -> Arc<Node> {
        let nodes = &mut self.memory.lock().expect("nobody panics").nodes;
        node.id = nodes.len();
        let mut hasher = DefaultHasher::new();
        node.essence.hash(&mut hasher);
        node.hash = hasher.finish();
        Arc::clone(nodes.entry((node.me, node.essence.clone())).or_insert_with(|| Arc::new(node)))
    }

    /// Whether the explored rounds end here, or nothing can happen any more. Every state leads to such a one, so what can
    /// still decide from all of these can from everywhere.
    fn is_end(&self, state: &State) -> bool {
        let last = (world::round(self.rounds - 1), Step::Precommit);
        let at_bound = state.essences().all(|essence| essence.decided.is_some() || essence.place == last);
        at_bound || state.nodes.iter().all(|node| self.events(state, node).is_empty())
    }

    /// Whether all decide one value once the network heals.
    fn can_still_decide(&self, state: &State) -> bool {
        let mut nodes: Vec<Node> = state.nodes.iter().map(|node| (**node).clone()).collect();
        loop {
            while self.exchange(&mut nodes) {}
            if nodes.iter().all(|node| node.essence.decided.is_some()) {
                return nodes.windows(2).all(|pair| pair[0].essence.decided == pair[1].essence.decided);
            }
            if nodes.iter().any(|node| node.core.round().get() > self.rounds + HEALING_ROUNDS) || !self.time_out(&mut nodes) {
                return false;
            }
        }
    }

    /// Brings everybody what the others hold; whether that was news to anybody.
    fn exchange(&self, nodes: &mut [Node]) -> bool {
        let mut news = false;
        for to in 0..nodes.len() {
            for from in (0..nodes.len()).filter(|from| *from != to) {
                let lacks = lacking(&nodes[from].core, &nodes[to].core, self);
                news |= !lacks.is_empty();
                lacks.into_iter().for_each(|input| nodes[to].feed(self, input));
            }
        }
        news
    }

    /// Fires the timers that run.
    fn time_out(&self, nodes: &mut [Node]) -> bool {
        let mut fired = false;
        for node in nodes.iter_mut().filter(|node| node.essence.decided.is_none()) {
            let (round, step) = (node.core.round(), node.core.current_step());
            let spoke = |kind| node.core.votes(round, kind).is_some_and(|votes| votes.power_for_any().get() * 3 > NODES as u64 * 2);
            let runs = match step {
                Step::Propose => true,
                Step::Prevote => spoke(VoteType::Prevote),
                Step::Precommit => spoke(VoteType::Precommit),
            };
            if runs {
                fired = true;
                node.feed(self, Input::TimedOut(Timeout { height: HEIGHT, round, step }));
            }
        }
        fired
    }
}

/// Messages that one core holds and another lacks.
fn lacking(from: &Consensus, to: &Consensus, model: &Tendermint) -> Vec<Input> {
    let mut lacks = Vec::new();
    if let Some(commit) = from.commit().filter(|_| to.certified().is_none()) {
        lacks.push(Input::Commit(commit.settle(&model.set)));
    }
    for round in from.rounds() {
        if let Some(proposal) = from.proposal(round).filter(|_| round >= to.round() && to.proposal(round).is_none()) {
            lacks.push(model.proposal(round, Value { block_id: Some(proposal.block_id), valid_round: proposal.pol_round }));
        }
        if let Some(polka) = from.polka(round).filter(|_| to.votes(round, VoteType::Prevote).is_none_or(|votes| votes.quorum().is_none())) {
            lacks.push(Input::Polka(polka.settle(&model.set)));
        }
        for kind in [VoteType::Prevote, VoteType::Precommit] {
            for vote in from.votes(round, kind).into_iter().flat_map(|votes| votes.votes()) {
                let known = to.votes(round, kind).map_or(&[][..], |votes| votes.votes_of(vote.validator));
                let is_news =
                    known.len() < lockstep_consensus::LOOSE_VALUES_MAX && known.iter().all(|other| Value::from(other) != Value::from(vote));
                if is_news && to.round().get() + lockstep_consensus::ROUNDS_AHEAD_MAX >= round.get() {
                    lacks.push(model.vote(vote.validator.index(), kind, round, Value::from(vote)));
                }
            }
        }
    }
    lacks
}

impl Model for Tendermint {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let honest = (0..NODES).filter(|me| *me != self.byzantine);
        let nodes: Vec<Arc<Node>> = honest.map(|me| self.intern(Node::start(me, self))).collect();
        let proposers: Vec<usize> = (0..self.rounds).map(|round| self.set.proposer(world::round(round)).index()).collect();
        let equals_from = nodes.iter().rposition(|node| proposers.contains(&node.me)).map_or(0, |last| last + 1);
        vec![State { nodes, equals_from }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (place, node) in state.nodes.iter().enumerate() {
            actions.extend(self.events(state, node).into_iter().map(|event| Action { place, event }));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.after(&state.nodes[action.place], action.event)?;
        let mut nodes = state.nodes.clone();
        nodes[action.place] = next;
        Some(State { nodes, ..*state })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("agreement", |_, state: &State| {
                let decided: Vec<BlockId> = state.essences().filter_map(|essence| essence.decided).collect();
                decided.windows(2).all(|pair| pair[0] == pair[1])
            }),
            Property::always("can still decide", |model: &Self, state: &State| !model.is_end(state) || model.can_still_decide(state)),
            Property::sometimes("all decide in the last round", |model: &Self, state: &State| {
                state.essences().all(|essence| essence.decided.is_some() && essence.place.0.get() + 1 == model.rounds)
            }),
            Property::sometimes("one decides while another is locked on nothing", |_, state: &State| {
                state.essences().any(|essence| essence.decided.is_some())
                    && state.essences().any(|essence| essence.decided.is_none() && essence.locked.is_none())
            }),
            // Which takes two rounds.
            Property::sometimes("a lock moves", |model: &Self, state: &State| {
                let is_locking = |(at, value): (&(Round, Step), &Value)| (at.1 == Step::Precommit).then_some(value.block_id?);
                let moves = |essence: &Essence| {
                    let mut blocks = essence.said.iter().filter_map(is_locking);
                    blocks.next().is_some_and(|first| blocks.any(|other| other != first))
                };
                model.rounds == 1 || state.essences().any(moves)
            }),
        ]
    }
}

/// Every behaviour in some rounds. The count of states shows that the bounds are those that were meant.
fn explore(byzantine: usize, rounds: u32, states: usize) {
    let checker = Tendermint::new(byzantine, rounds, Planted::default()).checker().threads(2).spawn_bfs().join();
    assert!(checker.is_done());
    checker.assert_properties();
    assert_eq!(checker.unique_state_count(), states, "{byzantine} is Byzantine, {rounds} rounds");
}

#[test]
fn one_round_with_every_byzantine_validator() {
    explore(0, 1, 473);
    for byzantine in [1, 2, 3] {
        explore(byzantine, 1, 249);
    }
}

#[test]
fn two_rounds_with_a_byzantine_first_proposer() {
    explore(0, 2, 167_967);
}

#[test]
fn two_rounds_with_a_byzantine_second_proposer() {
    explore(1, 2, 195_482);
}

/// Validators 2 and 3 propose in neither round, so one stands for both.
#[test]
fn two_rounds_with_a_byzantine_voter() {
    explore(2, 2, 65_217);
}

/// Three rounds are too many to explore, so paths through them are drawn.
#[test]
fn three_rounds_along_drawn_paths() {
    for byzantine in 0..NODES {
        let model = Tendermint::new(byzantine, 3, Planted::default());
        let checker =
            model.checker().target_state_count(30_000).spawn_simulation(u64::try_from(byzantine).expect("small"), UniformChooser).join();
        for property in ["agreement", "can still decide"] {
            checker.assert_no_discovery(property);
        }
        checker.assert_any_discovery("all decide in the last round");
        checker.assert_any_discovery("a lock moves");
    }
}

/// The model sees a core that lets go of its lock, in votes for new values and by a polka that was never shown.
#[test]
fn a_planted_bug_is_seen() {
    for bug in [Bug::LockIgnored, Bug::NoPolkaCheck] {
        let model = Tendermint::new(1, 2, Planted::default().with(bug));
        let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        checker.assert_any_discovery("agreement");
    }
}
