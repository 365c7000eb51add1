//! The real core under a model checker: four validators of equal power, one of them Byzantine, every behaviour of theirs in
//! the first rounds of a height. `docs/model-checking.md` has the scopes that were explored, and what came of them.
//!
//! Three real cores run. The network holds everything that was said and brings anything to anybody at any time or never;
//! timers fire whenever they could be running. The Byzantine validator adds its signature to whatever is asked of it: to
//! every quorum that two honest validators almost make, on any value and valid round, to each node another; and where it
//! proposes it sends any value under any valid round, forged or not, to each node. A [`Scope`] adds more: proposals that come
//! late, bodies that come when they like, a block that is not valid, restarts from what the guard recorded, and a second
//! Byzantine validator, with which forks are there and must name who made them.
//!
//! **What is left out, and why nothing is lost.** A message that enables no rule at its receiver changes nothing that
//! anybody can see, so it may as well arrive together with the one that does. So votes arrive as quorums (a polka, a
//! certificate), a proposal together with the polka it names, and behind a skip or a timer stands a Byzantine vote for a
//! block that nobody else votes for, which helps no other quorum. What a node knows beyond that enables no rule that could
//! not be enabled later by the same messages, since what was said stays said; so it tells no two states apart.
//!
//! **Can still decide.** From every state reached, the network heals: honest validators exchange all they hold, the
//! Byzantine one falls silent, timers fire only when nothing else happens. Then all must decide, within a few rounds.
//!
//! **Symmetry.** Honest validators that propose in none of the explored rounds differ in nothing but their names, so states
//! that differ by such names are one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};

use lockstep_consensus::planted::Planted;
use lockstep_consensus::{Consensus, GuardRecord, Input, Step, Value};
use lockstep_types::{BlockId, Round, ValidatorSet, VoteType};
use stateright::{Model, Property};

use crate::world::{self, Settle, block, block_time, index, validators};

mod culprits;
mod healing;
mod life;

pub(crate) const NODES: usize = 4;
/// Rounds that a healed network may need beyond those explored: each honest validator leads one, and the silent one.
const HEALING_ROUNDS: u32 = 6;
/// The block that valid(v) refuses. Honest validators propose A in even rounds and B in odd ones.
const INVALID: char = 'C';
/// Far outside every window of timeliness of the first rounds.
const FAR: std::time::Duration = std::time::Duration::from_secs(60);

/// What is explored.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// One or two of the four.
    pub(crate) byzantine: Vec<usize>,
    /// Rounds explored.
    pub(crate) rounds: u32,
    /// Restarts of honest validators, all in all. What was not recorded is forgotten.
    pub(crate) restarts: u8,
    /// A new value may come out of its time.
    pub(crate) untimely: bool,
    /// A body is checked, and then durable, some time after it is asked for. Else it is both from the start.
    pub(crate) bodies: bool,
    /// The Byzantine validator may propose a block that is not valid.
    pub(crate) invalid: bool,
    /// Of the states at the end, one in so many is healed; the others are taken at their word.
    pub(crate) healed: u64,
    pub(crate) planted: Planted,
}

impl Scope {
    /// One Byzantine validator and nothing else.
    pub(crate) fn new(byzantine: usize, rounds: u32) -> Self {
        Self {
            byzantine: vec![byzantine],
            rounds,
            restarts: 0,
            untimely: false,
            bodies: false,
            invalid: false,
            healed: 1,
            planted: Planted::default(),
        }
    }
}

pub(crate) struct Tendermint {
    set: Arc<ValidatorSet>,
    scope: Scope,
    nodes: Mutex<BTreeMap<(usize, Essence), Arc<Node>>>,
}

/// What an honest validator said in a step of a round.
type Said = BTreeMap<(Round, Step), Value>;

/// An honest validator.
#[derive(Clone)]
struct Life {
    me: usize,
    core: Consensus,
    essence: Essence,
    /// What the guard recorded last.
    record: Option<GuardRecord>,
    /// Bodies are checked and durable as soon as they are asked for.
    has_bodies: bool,
}

/// A life as it is at one point, with what it becomes: cores are pure, and the same validator in the same state meets the same
/// event in a great many states of the network.
struct Node {
    life: Life,
    /// Of the essence.
    hash: u64,
    steps: Mutex<BTreeMap<Event, Option<Arc<Node>>>>,
}

/// A lock, or a valid value.
type Place = Option<(Round, BlockId)>;

/// What a node's future and its part in the future of others depend on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Essence {
    place: (Round, Step),
    locked: Place,
    valid: Place,
    said: Said,
    decided: Option<BlockId>,
    /// Of our round: L36 acts on it once we prevoted.
    polka: Option<Value>,
    /// Where bodies come late: the proposal of our round that waits for its body, and whether it came in time; the block that
    /// is certified and waits for its body; the bodies asked for, checked and durable.
    held: Option<(Value, bool)>,
    certified: Option<BlockId>,
    bodies: BTreeSet<(BlockId, Body)>,
    /// Where restarts are: lock and valid value as they were recorded last.
    recorded: Option<(Place, Place)>,
}

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Body {
    Asked,
    Checked,
    Durable,
}

/// The honest validators, by index.
#[derive(Clone)]
pub(crate) struct State {
    nodes: Box<[Arc<Node>]>,
    /// The first of those who propose in none of the explored rounds: they differ in nothing but their names.
    equals_from: usize,
    restarts: u8,
}

impl State {
    fn essences(&self) -> impl Iterator<Item = &Essence> {
        self.nodes.iter().map(|node| &node.life.essence)
    }

    /// Told apart by what they do, not by who they are, where that makes no difference.
    fn canonical(&self) -> ([u64; NODES], u8) {
        let mut hashes = [0; NODES];
        for (hash, node) in hashes.iter_mut().zip(&self.nodes) {
            *hash = node.hash;
        }
        hashes[self.equals_from..self.nodes.len()].sort_unstable();
        (hashes, self.restarts)
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
        timely: bool,
        polka: Option<Quorum>,
    },
    Polka(Quorum),
    Commit(Quorum),
    /// The vote of an honest validator in a later round; a Byzantine one is there too.
    Skip {
        voter: usize,
        kind: VoteType,
        round: Round,
        value: Value,
    },
    TimedOut(Step),
    Body(BlockId, Body),
    Restart,
}

/// Who said the same in a step of a round, and the Byzantine validators, who say everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Quorum {
    round: Round,
    value: Value,
    signers: Vec<usize>,
}

/// An event at the node of this place among the honest ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Action {
    place: usize,
    event: Event,
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
    pub(crate) fn new(scope: Scope) -> Self {
        Self { set: validators(&[1; NODES]), scope, nodes: Mutex::default() }
    }

    fn vote(&self, voter: usize, kind: VoteType, round: Round, value: Value) -> Input {
        Input::Vote(world::vote(kind, round, value.block_id, value.valid_round, index(voter)).settle(&self.set))
    }

    fn proposal(&self, round: Round, value: Value, timely: bool) -> Input {
        let proposal = world::proposal(round, value.block_id.expect("a proposal has a block"), value.valid_round);
        let received = if timely { block_time() } else { block_time().saturating_add(FAR) };
        Input::Proposal { proposal: proposal.settle(&self.set), received }
    }

    fn polka(&self, quorum: &Quorum) -> Input {
        let Quorum { round, value, signers } = quorum;
        Input::Polka(world::polka(*round, value.block_id.expect("a polka has a block"), value.valid_round, signers).settle(&self.set))
    }

    fn is_quorum(&self, honest: usize) -> bool {
        (honest + self.scope.byzantine.len()) * 3 > NODES * 2
    }

    fn quorum(&self, state: &State, round: Round, step: Step, value: Value) -> Option<Quorum> {
        let said = |node: &&Arc<Node>| node.life.essence.said.get(&(round, step)) == Some(&value);
        if !self.is_quorum(state.nodes.iter().filter(said).count()) {
            return None;
        }
        let honest = state.nodes.iter().filter(said).map(|node| node.life.me);
        let mut signers: Vec<usize> = honest.chain(self.scope.byzantine.iter().copied()).collect();
        signers.sort_unstable();
        Some(Quorum { round, value, signers })
    }

    /// Whether two thirds spoke in a step of a round, so that its timer can run.
    fn spoke(&self, state: &State, round: Round, step: Step) -> bool {
        self.is_quorum(state.essences().filter(|essence| essence.said.contains_key(&(round, step))).count())
    }

    /// What can come to the proposer's audience: what it said, or anything.
    fn proposals(&self, state: &State, round: Round) -> Vec<Value> {
        let proposer = self.set.proposer(round).index();
        if self.scope.byzantine.contains(&proposer) {
            let invalid = self.scope.invalid.then_some(Value { block_id: Some(block(INVALID)), valid_round: None });
            return values(round).chain(invalid).collect();
        }
        let said = state.nodes.iter().find(|node| node.life.me == proposer);
        said.and_then(|node| node.life.essence.said.get(&(round, Step::Propose))).copied().into_iter().collect()
    }

    fn events(&self, state: &State, node: &Node) -> Vec<Event> {
        let mut events = Vec::new();
        let essence = &node.life.essence;
        let (current, step) = essence.place;
        if essence.decided.is_some() {
            return events;
        }
        if step == Step::Propose {
            for value in self.proposals(state, current) {
                if essence.held.is_some() {
                    break;
                }
                let tags = value.valid_round.into_iter().flat_map(|round| values(round).map(move |tag| (round, tag)));
                let mut polkas = tags.filter(|(_, tag)| tag.block_id == value.block_id);
                let polka = polkas.find_map(|(round, tag)| self.quorum(state, round, Step::Prevote, tag));
                // One whose polka is not there waits for it, as the timer does; it need not come before.
                if self.scope.bodies && value.valid_round.is_some() && polka.is_none() {
                    continue;
                }
                let is_untimely = self.scope.untimely && value.valid_round.is_none() && self.set.proposer(current).index() != node.life.me;
                for timely in [true, false].into_iter().filter(|timely| *timely || is_untimely) {
                    events.push(Event::Proposal { round: current, value, timely, polka: polka.clone() });
                }
            }
            events.push(Event::TimedOut(Step::Propose));
        }
        for round in (0..self.scope.rounds).map(world::round) {
            // A polka of our round acts past the propose step; one of an earlier round comes with a proposal.
            if round > current || (round == current && step >= Step::Prevote) {
                let polkas = values(round).filter_map(|value| self.quorum(state, round, Step::Prevote, value));
                events.extend(polkas.map(Event::Polka));
            }
            let commits = values(Round::ZERO).filter_map(|value| self.quorum(state, round, Step::Precommit, value));
            events.extend(commits.map(Event::Commit));
            if round > current {
                let vote = state.nodes.iter().find_map(|other| Some((other.life.me, other.life.last_vote(round)?)));
                // Two who lie are more than a third by themselves.
                let lies = self.scope.byzantine.get(1).map(|voter| (*voter, (VoteType::Prevote, nobodys())));
                let voter = vote.or(lies);
                events.extend(voter.map(|(voter, (kind, value))| Event::Skip { voter, kind, round, value }));
            }
        }
        if step == Step::Prevote && self.spoke(state, current, Step::Prevote) {
            events.push(Event::TimedOut(Step::Prevote));
        }
        if current.get() + 1 < self.scope.rounds && self.spoke(state, current, Step::Precommit) {
            events.push(Event::TimedOut(Step::Precommit));
        }
        for (block_id, body) in &essence.bodies {
            let next = match body {
                Body::Asked => Body::Checked,
                Body::Checked if *block_id != block(INVALID) => Body::Durable,
                Body::Checked | Body::Durable => continue,
            };
            if !essence.bodies.contains(&(*block_id, next)) {
                events.push(Event::Body(*block_id, next));
            }
        }
        if state.restarts < self.scope.restarts {
            events.push(Event::Restart);
        }
        events
    }

    /// What the node becomes; none where the event changes nothing that anybody can see.
    fn after(&self, node: &Node, event: Event) -> Option<Arc<Node>> {
        if let Some(known) = node.steps.lock().expect("nobody panics").get(&event) {
            return known.clone();
        }
        let mut next = node.life.clone();
        next.on_event(self, &event);
        let next = (next.essence != node.life.essence).then(|| self.intern(next));
        node.steps.lock().expect("nobody panics").insert(event, next.clone());
        next
    }

    fn intern(&self, life: Life) -> Arc<Node> {
        let mut hasher = DefaultHasher::new();
        life.essence.hash(&mut hasher);
        let hash = hasher.finish();
        let mut nodes = self.nodes.lock().expect("nobody panics");
        let key = (life.me, life.essence.clone());
        Arc::clone(nodes.entry(key).or_insert_with(|| Arc::new(Node { life, hash, steps: Mutex::default() })))
    }

    fn names_a_polka(&self, state: &State, value: &Value) -> bool {
        value.valid_round.is_none_or(|round| {
            let mut polkas = values(round).filter(|polka| polka.block_id == value.block_id);
            polkas.any(|polka| self.quorum(state, round, Step::Prevote, polka).is_some())
        })
    }

    fn is_fork(state: &State) -> bool {
        let decided: BTreeSet<BlockId> = state.essences().filter_map(|essence| essence.decided).collect();
        decided.len() > 1
    }
}

impl Model for Tendermint {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let honest = (0..NODES).filter(|me| !self.scope.byzantine.contains(me));
        let nodes: Box<[Arc<Node>]> = honest.map(|me| self.intern(Life::start(me, self))).collect();
        let proposers: Vec<usize> = (0..self.scope.rounds).map(|round| self.set.proposer(world::round(round)).index()).collect();
        let equals_from = nodes.iter().rposition(|node| proposers.contains(&node.life.me)).map_or(0, |last| last + 1);
        vec![State { nodes, equals_from, restarts: 0 }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (place, node) in state.nodes.iter().enumerate() {
            // One that changes nothing is no action: a path that was drawn is told by the numbers of its actions.
            let events = self.events(state, node).into_iter().filter(|event| self.after(node, event.clone()).is_some());
            actions.extend(events.map(|event| Action { place, event }));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let restarts = state.restarts + u8::from(action.event == Event::Restart);
        let next = self.after(&state.nodes[action.place], action.event)?;
        let mut nodes = state.nodes.clone();
        nodes[action.place] = next;
        Some(State { nodes, restarts, ..*state })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("a lock binds", |_: &Self, state: &State| state.nodes.iter().all(|node| node.life.keeps_its_lock())),
            Property::always("validity", |_, state: &State| {
                state.essences().filter_map(|essence| essence.decided).all(|decided| [block('A'), block('B')].contains(&decided))
            }),
            // Beside its lock: nobody names a polka that is not there.
            Property::always("a valid round has its polka", |model: &Self, state: &State| {
                state.essences().all(|essence| essence.said.iter().all(|(_, value)| model.names_a_polka(state, value)))
            }),
        ];
        if self.scope.byzantine.len() > 1 {
            properties.extend([
                Property::always("a fork convicts a third", |model: &Self, state: &State| {
                    !Self::is_fork(state) || model.fewest_culprits(state) * 3 > NODES
                }),
                Property::sometimes("a fork", |_, state: &State| Self::is_fork(state)),
            ]);
            return properties;
        }
        properties.extend([
            Property::always("agreement", |_, state: &State| !Self::is_fork(state)),
            Property::always("can still decide", |model: &Self, state: &State| {
                !model.is_end(state) || !model.is_healed(state) || model.can_still_decide(state)
            }),
            Property::sometimes("all decide in the last round", |model: &Self, state: &State| {
                state.essences().all(|essence| essence.decided.is_some() && essence.place.0.get() + 1 == model.scope.rounds)
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
                model.scope.rounds == 1 || state.essences().any(moves)
            }),
        ]);
        if self.scope.restarts > 0 {
            properties.push(Property::sometimes("one restarts and decides", |_, state: &State| {
                state.restarts > 0 && state.essences().all(|essence| essence.decided.is_some())
            }));
        }
        properties
    }
}
