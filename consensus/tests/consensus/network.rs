//! Four cores on a bad network under a seed: faults first, then a healed network that must decide.
//!
//! Loss, duplication, reordering, slow disks, crashes, and one validator that says anything to anybody. What is checked is
//! restated here and calls nothing of the core: one block for each height, no honest validator signs twice or against its
//! lock, every certificate counts up, and after healing every honest node goes on.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use lockstep_consensus::planted::{Bug, Planted};
use lockstep_consensus::{Ballot, Consensus, Draft, Effect, GuardRecord, HeightStart, Input, Message, Restored, Timeout};
use lockstep_types::block::PartSetHeader;
use lockstep_types::vote::Verified;
use lockstep_types::{BlockId, Commit, Hash, Height, Polka, Proposal, Round, Time, ValidatorIndex, ValidatorSet, Vote, VoteType};

use crate::world::{self, HEIGHT, Settle, index, validators};

const NODES: usize = 4;
/// Where no two thirds are exact, a quorum that is off by one is not seen.
const POWERS: [[u64; NODES]; 3] = [[1, 1, 1, 1], [2, 2, 1, 1], [3, 3, 2, 1]];
/// Heights that everybody must decide after the network heals.
const HEIGHTS_AFTER: u64 = 3;
const CHAOS_MS: u64 = 6_000;
/// The healed network delivers within 30 ms, so a round with a correct proposer decides, and at most every fourth has a
/// faulty one. The longest timeouts that chaos can have led to are those of some twenty rounds, a few seconds each.
const SETTLE_MS: u64 = 120_000;
const GOSSIP_MS: u64 = 150;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    fn pick(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("an index")
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What goes over the wire.
#[derive(Debug, Clone)]
enum Wire {
    Proposal(Verified<Proposal>),
    Vote(Verified<Vote>),
    Polka(Verified<Polka>),
    Commit(Verified<Commit>),
}

#[derive(Debug)]
enum Event {
    Deliver(usize, Wire),
    /// To one life of a node: a crash ends what was under way.
    Answer(usize, u64, Input),
    Durable(usize, u64, GuardRecord),
    StartHeight(usize, u64, Height),
    Gossip,
    Crash(usize),
    Lie,
}

struct Node {
    core: Consensus,
    life: u64,
    /// The last two records that are durable.
    guard: Vec<GuardRecord>,
    decided: BTreeMap<Height, Commit>,
}

struct Network {
    dice: Dice,
    now: u64,
    sequence: u64,
    events: BTreeMap<(u64, u64), Event>,
    set: Arc<ValidatorSet>,
    nodes: Vec<Node>,
    liar: Option<usize>,
    loss: u64,
    /// How long a body's way to the disk takes in a healed network: less than votes do, or more.
    slow_body: u64,
    planted: Planted,
    blocks: u64,
    wire: WireTap,
}

impl Network {
    fn new(seed: u64, planted: Planted) -> Self {
        let mut dice = Dice(seed);
        let powers = POWERS[dice.pick(POWERS.len())];
        // Less than a third of the power.
        let weak: Vec<usize> = (0..NODES).filter(|node| powers[*node] * 3 < powers.iter().sum()).collect();
        let liar = dice.chance(70).then(|| weak[dice.pick(weak.len())]);
        let loss = [0, 10, 30, 60][dice.pick(4)];
        let slow_body = [1, 250][dice.pick(2)];
        let set = validators(&powers);
        let node = || Node { core: Consensus::with_planted(planted), life: 0, guard: Vec::new(), decided: BTreeMap::new() };
        let nodes = (0..NODES).map(|_| node()).collect();
        let wire = WireTap { powers, liar, ..WireTap::default() };
        Self { dice, now: 0, sequence: 0, events: BTreeMap::new(), set, nodes, liar, loss, slow_body, planted, blocks: 0, wire }
    }

    fn healed(&self) -> bool {
        self.now >= CHAOS_MS
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// A block that nobody made before. Odd ones are valid.
    fn new_block(&mut self, valid: bool) -> BlockId {
        self.blocks += 2;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(self.blocks + u64::from(valid)).to_be_bytes());
        BlockId { hash: Hash(bytes), parts: PartSetHeader { total: 1, hash: Hash(bytes) } }
    }

    fn is_honest(&self, node: usize) -> bool {
        self.liar != Some(node)
    }

    fn honest(&self) -> Vec<usize> {
        (0..NODES).filter(|node| self.is_honest(*node)).collect()
    }

    fn wall(&self) -> Time {
        world::block_time().saturating_add(Duration::from_millis(self.now))
    }

    fn run(mut self) -> Result<(), String> {
        for node in self.honest() {
            self.at(0, Event::StartHeight(node, 0, HEIGHT));
        }
        self.at(GOSSIP_MS, Event::Gossip);
        self.at(1, Event::Lie);
        for _ in 0..self.dice.below(4) {
            let when = self.dice.below(CHAOS_MS);
            let victims = self.honest();
            // Sometimes all at once.
            let all = self.dice.chance(25);
            let one = self.dice.pick(victims.len());
            for victim in victims.into_iter().enumerate().filter(|(place, _)| all || *place == one).map(|(_, victim)| victim) {
                self.at(when, Event::Crash(victim));
            }
        }
        let mut target = None;
        while let Some(((now, _), event)) = self.events.pop_first() {
            self.now = now;
            self.handle(event)?;
            if self.healed() {
                let highest = self.honest().iter().map(|node| self.nodes[*node].core.height()).max().expect("nodes");
                let target = *target.get_or_insert(highest.plus(HEIGHTS_AFTER));
                if self.honest().iter().all(|node| self.nodes[*node].core.height() >= target) {
                    return Ok(());
                }
                if now > CHAOS_MS + SETTLE_MS {
                    let places: Vec<_> =
                        self.honest().iter().map(|node| (self.nodes[*node].core.height(), self.nodes[*node].core.round())).collect();
                    return Err(format!("no progress after healing: {places:?}, wanted {target}"));
                }
            }
        }
        Err("nothing happens any more".to_owned())
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deliver(to, wire) => {
                let received = self.wall();
                let input = match wire {
                    Wire::Proposal(proposal) => Input::Proposal { proposal, received },
                    Wire::Vote(vote) => Input::Vote(vote),
                    Wire::Polka(polka) => Input::Polka(polka),
                    Wire::Commit(commit) => Input::Commit(commit),
                };
                self.step(to, input)
            }
            Event::Answer(node, life, input) if life == self.nodes[node].life => self.step(node, input),
            Event::Durable(node, life, record) if life == self.nodes[node].life => self.on_durable(node, record),
            Event::StartHeight(node, life, height) if life == self.nodes[node].life => self.start_height(node, height),
            Event::Answer(..) | Event::Durable(..) | Event::StartHeight(..) => Ok(()),
            Event::Gossip => {
                for from in self.honest() {
                    self.gossip(from);
                }
                self.at(GOSSIP_MS, Event::Gossip);
                Ok(())
            }
            Event::Crash(node) => self.crash(node),
            Event::Lie => {
                self.lie();
                let delay = 20 + self.dice.below(200);
                self.at(delay, Event::Lie);
                Ok(())
            }
        }
    }

    fn step(&mut self, node: usize, input: Input) -> Result<(), String> {
        if !self.is_honest(node) {
            return Ok(());
        }
        for effect in self.nodes[node].core.step(input) {
            self.carry_out(node, effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, node: usize, effect: Effect) -> Result<(), String> {
        let life = self.nodes[node].life;
        let slow = if self.healed() { 5 } else { 400 };
        let delay = self.dice.below(slow);
        match effect {
            // Records become durable in their order, and what was persisted is sent then.
            Effect::Persist(_, record) => {
                let last = self
                    .events
                    .iter()
                    .filter(|(_, event)| matches!(event, Event::Durable(other, _, _) if *other == node))
                    .map(|((at, _), _)| *at)
                    .max();
                let delay = last.map_or(delay, |last| delay.max(last - self.now));
                self.at(delay, Event::Durable(node, life, record));
            }
            Effect::Cast(..) | Effect::Propose(..) | Effect::Stepped { .. } => {}
            Effect::Accuse(equivocation) => {
                if self.is_honest(equivocation.first.validator.index()) {
                    return Err(format!("an honest validator is accused: {equivocation:?}"));
                }
            }
            Effect::Build { round, .. } => {
                let block_id = self.new_block(true);
                self.at(delay, Event::Answer(node, life, Input::Built { round, block_id }));
                self.at(delay, Event::Answer(node, life, Input::BodyDurable { block_id }));
            }
            Effect::Check { block_id } | Effect::WantBody { block_id, .. } => {
                let valid = block_id.hash.0[7] % 2 == 1;
                let durable = delay + if self.healed() { self.slow_body } else { self.dice.below(slow) };
                self.at(delay, Event::Answer(node, life, Input::Checked { block_id, valid }));
                self.at(durable, Event::Answer(node, life, Input::BodyDurable { block_id }));
            }
            Effect::Schedule(timeout, duration) => self.schedule(node, timeout, duration),
            Effect::Decide { commit } => {
                self.wire.on_decide(&commit, &self.set)?;
                let next = commit.height.next();
                self.nodes[node].decided.insert(commit.height, commit);
                self.at(delay, Event::StartHeight(node, life, next));
            }
            Effect::CertifiedInvalid { commit } => return Err(format!("an invalid block is certified: {commit:?}")),
        }
        Ok(())
    }

    fn schedule(&mut self, node: usize, timeout: Timeout, duration: Duration) {
        let delay = u64::try_from(duration.as_millis()).expect("short");
        self.at(delay, Event::Answer(node, self.nodes[node].life, Input::TimedOut(timeout)));
    }

    fn start_height(&mut self, node: usize, height: Height) -> Result<(), String> {
        if self.nodes[node].core.height() >= height {
            return Ok(());
        }
        let guard = &self.nodes[node].guard;
        let settle = |polka: &Option<Arc<Polka>>| polka.as_ref().map(|polka| (**polka).clone().settle(&self.set));
        let restored = guard.last().filter(|record| record.height == height).map(|record| Restored {
            round: record.round,
            step: record.step,
            locked: settle(&record.locked),
            valid: settle(&record.valid),
            lost: Vec::new(),
        });
        let start = HeightStart {
            height,
            validators: Arc::clone(&self.set),
            me: Some(index(node)),
            params: world::params(),
            proposer_missed: false,
            restored,
        };
        self.step(node, Input::StartHeight(start))?;
        self.step(node, Input::Ready)
    }

    /// What was persisted is signed, sent, and comes back.
    fn on_durable(&mut self, node: usize, record: GuardRecord) -> Result<(), String> {
        self.wire.on_sign(node, &record.message)?;
        let message = record.message;
        let guard = &mut self.nodes[node].guard;
        guard.push(record);
        if guard.len() > 2 {
            guard.remove(0);
        }
        self.say(node, &message)
    }

    fn say(&mut self, node: usize, message: &Message) -> Result<(), String> {
        let time = self.wall();
        let wire = match message {
            Message::Ballot(ballot) => Wire::Vote(sign(*ballot, index(node), time, &self.set)),
            Message::Draft(Draft { height, round, pol_round, block_id }) => {
                // The time of a block is when it was first proposed; a later round's timeliness does not look at it.
                let proposal = Proposal { height: *height, timestamp: time, ..world::proposal(*round, *block_id, *pol_round) };
                Wire::Proposal(proposal.settle(&self.set))
            }
        };
        for to in self.honest() {
            if to != node {
                self.send(to, wire.clone());
            }
        }
        self.handle(Event::Deliver(node, wire))
    }

    fn send(&mut self, to: usize, wire: Wire) {
        let (loss, slow) = if self.healed() { (0, 30) } else { (self.loss, 900) };
        let copies = if self.dice.chance(loss) { 0 } else { 1 + u64::from(self.dice.chance(10)) };
        for _ in 0..copies {
            let delay = 1 + self.dice.below(slow);
            self.at(delay, Event::Deliver(to, wire.clone()));
        }
    }

    /// Everything a peer lacks: the certificate of a height behind, or all that is held of the same height.
    fn gossip(&mut self, from: usize) {
        for to in self.honest().into_iter().filter(|to| *to != from) {
            let height = self.nodes[to].core.height();
            let mut wires = Vec::new();
            let node = &self.nodes[from];
            if let Some(commit) = node.decided.get(&height) {
                wires.push(Wire::Commit(commit.clone().settle(&self.set)));
            } else if node.core.height() == height {
                for round in node.core.rounds() {
                    wires.extend(node.core.proposal(round).map(|proposal| Wire::Proposal(proposal.clone().settle(&self.set))));
                    let is_polka_valid = node.core.polka(round).map(|polka| polka.claim(&world::chain(), &self.set).is_ok());
                    if is_polka_valid == Some(true) {
                        wires.push(Wire::Polka(node.core.polka(round).expect("a polka").settle(&self.set)));
                    }
                    for kind in [VoteType::Prevote, VoteType::Precommit] {
                        let votes = node.core.votes(round, kind).into_iter().flat_map(|votes| votes.votes());
                        wires.extend(votes.map(|vote| Wire::Vote(vote.clone().settle(&self.set))));
                    }
                }
            }
            wires.into_iter().for_each(|wire| self.send(to, wire));
        }
    }

    /// Everything that is not durable is lost. Both messages of the guard are said again.
    fn crash(&mut self, node: usize) -> Result<(), String> {
        let height = self.nodes[node].core.height();
        let next = self.nodes[node].decided.keys().last().map_or(HEIGHT, |decided| decided.next());
        assert!(next == height || next == height.next());
        self.nodes[node].life += 1;
        self.nodes[node].core = Consensus::with_planted(self.planted);
        self.start_height(node, next)?;
        for record in self.nodes[node].guard.clone() {
            if record.height == next {
                self.say(node, &record.message)?;
            }
        }
        Ok(())
    }

    /// The liar says something to everybody, to each something else.
    fn lie(&mut self) {
        let Some(liar) = self.liar else { return };
        for to in self.honest() {
            let core = &self.nodes[to].core;
            let (height, round) = (core.height(), core.round());
            let known: Vec<BlockId> = core.rounds().filter_map(|round| core.proposal(round)).map(|proposal| proposal.block_id).collect();
            let polkas: Vec<(Round, BlockId)> =
                core.rounds().filter_map(|round| Some((round, core.votes(round, VoteType::Prevote)?.quorum_block()?))).collect();
            let round = Round::new(round.get() + u32::try_from(self.dice.below(3)).expect("small")).expect("small");
            if self.set.proposer(round) == index(liar) && self.dice.chance(60) {
                let valid = self.dice.chance(80);
                let (block_id, pol_round) = match self.pick(&polkas) {
                    // To some as a new value, to others with its polka.
                    Some((polka, block_id)) if self.dice.chance(60) => {
                        (block_id, self.dice.chance(50).then_some(polka).filter(|polka| *polka < round))
                    }
                    _ if self.dice.chance(50) => (self.new_block(valid), self.valid_round(round)),
                    _ => (self.pick(&known).unwrap_or(world::block('B')), self.valid_round(round)),
                };
                let proposal = Proposal { height, timestamp: self.wall(), ..world::proposal(round, block_id, pol_round) };
                self.send(to, Wire::Proposal(proposal.settle(&self.set)));
            }
            for kind in [VoteType::Prevote, VoteType::Precommit] {
                let block_id = if self.dice.chance(30) { None } else { self.pick(&known) };
                let valid_round = if kind == VoteType::Prevote && block_id.is_some() { self.valid_round(round) } else { None };
                let ballot = Ballot { kind, height, round, block_id, valid_round };
                let vote = sign(ballot, index(liar), self.wall(), &self.set);
                self.send(to, Wire::Vote(vote));
            }
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() {
            return None;
        }
        of.get(self.dice.pick(of.len())).copied()
    }

    fn valid_round(&mut self, round: Round) -> Option<Round> {
        if round == Round::ZERO || self.dice.chance(60) {
            return None;
        }
        Round::new(u32::try_from(self.dice.below(u64::from(round.get()))).expect("small"))
    }
}

fn sign(ballot: Ballot, voter: ValidatorIndex, time: Time, set: &ValidatorSet) -> Verified<Vote> {
    let Ballot { kind, height, round, block_id, valid_round } = ballot;
    Vote { height, timestamp: time, ..world::vote(kind, round, block_id, valid_round, voter) }.settle(set)
}

/// Who signed in which height, round and step: 0 a proposal, 1 a prevote, 2 a precommit.
type Slot = (usize, Height, Round, u8);

/// The rules restated, over what honest validators sign and decide.
#[derive(Default)]
struct WireTap {
    powers: [u64; NODES],
    liar: Option<usize>,
    signed: BTreeMap<Slot, (Option<BlockId>, Option<Round>)>,
    decided: BTreeMap<Height, BlockId>,
}

impl WireTap {
    fn on_sign(&mut self, node: usize, message: &Message) -> Result<(), String> {
        let (height, round, step, value) = match message {
            Message::Draft(draft) => (draft.height, draft.round, 0, (Some(draft.block_id), draft.pol_round)),
            Message::Ballot(ballot) => (ballot.height, ballot.round, ballot.kind as u8, (ballot.block_id, ballot.valid_round)),
        };
        self.check_round(node, height, round)?;
        match (step, value) {
            (1, (Some(block_id), Some(valid_round))) => self.check_polka(valid_round, height, block_id)?,
            (2, (Some(block_id), _)) => self.check_polka(round, height, block_id)?,
            _ => {}
        }
        if let Some(before) = self.signed.insert((node, height, round, step), value) {
            return Err(format!("{node} signed {before:?} and {value:?} at {height}/{round}/{step}"));
        }
        let later = self.signed.range((node, height, round, step)..).nth(1).filter(|((other, at, ..), _)| (*other, *at) == (node, height));
        if later.is_some() {
            return Err(format!("{node} signed {value:?} at {height}/{round}/{step} after {later:?}"));
        }
        if step == VoteType::Prevote as u8 && value.0.is_some() {
            // The last block it precommitted at this height is what it is locked on.
            let lock = self.signed.iter().rfind(|((other, at, earlier, step), (block_id, _))| {
                (*other, *at) == (node, height) && *earlier < round && *step == VoteType::Precommit as u8 && block_id.is_some()
            });
            if let Some(((_, _, locked_round, _), (locked, _))) = lock {
                let newer_polka = value.1.is_some_and(|valid_round| valid_round >= *locked_round);
                if *locked != value.0 && !newer_polka {
                    return Err(format!("{node} prevoted {value:?} in {round}, locked on {locked:?} in {locked_round}"));
                }
            }
        }
        Ok(())
    }

    /// What a vote for a block stands on: a prevote that names a valid round on the polka of that round, a precommit on that
    /// of its own. Honest prevotes of one tag and the liar must make more than two thirds.
    fn check_polka(&self, round: Round, height: Height, block_id: BlockId) -> Result<(), String> {
        let mut by_tag: BTreeMap<Option<Round>, u64> = BTreeMap::new();
        for ((node, at, in_round, step), value) in &self.signed {
            if (*at, *in_round, *step) == (height, round, VoteType::Prevote as u8) && value.0 == Some(block_id) {
                *by_tag.entry(value.1).or_default() += self.powers[*node];
            }
        }
        let liar = self.liar.map_or(0, |liar| self.powers[liar]);
        let best = by_tag.values().max().copied().unwrap_or(0) + liar;
        if best * 3 > self.total() * 2 { Ok(()) } else { Err(format!("{block_id:?} has no polka in {height}/{round}")) }
    }

    /// Who is the first honest one in a round left the round before with two thirds of any precommits (L47, L65), of which
    /// honest ones have more than a third. The others may follow it (L55).
    fn check_round(&self, node: usize, height: Height, round: Round) -> Result<(), String> {
        let Some(before) = round.get().checked_sub(1) else { return Ok(()) };
        let is_followed = self.signed.keys().any(|(_, at, other, _)| *at == height && *other >= round);
        let precommitted: u64 = (0..NODES)
            .filter(|other| self.signed.contains_key(&(*other, height, world::round(before), VoteType::Precommit as u8)))
            .map(|other| self.powers[other])
            .sum();
        if is_followed || precommitted * 3 > self.total() {
            return Ok(());
        }
        Err(format!("{node} is in {height}/{round}, which no honest validator has reason to enter"))
    }

    fn total(&self) -> u64 {
        self.powers.iter().sum()
    }

    fn on_decide(&mut self, commit: &Commit, set: &ValidatorSet) -> Result<(), String> {
        let first = *self.decided.entry(commit.height).or_insert(commit.block_id);
        if first != commit.block_id {
            return Err(format!("height {} is decided twice: {first:?} and {:?}", commit.height, commit.block_id));
        }
        if commit.block_id.hash.0[7].is_multiple_of(2) {
            return Err("an invalid block is decided".to_owned());
        }
        let signed: u64 =
            set.iter().zip(&commit.signatures).filter(|(_, slot)| slot.is_for_block()).map(|(signer, _)| signer.power.get()).sum();
        if signed * 3 <= self.total() * 2 {
            return Err(format!("a certificate of {signed}"));
        }
        // What honest validators are said to have signed, they signed.
        for (place, slot) in commit.signatures.iter().enumerate().filter(|(place, slot)| slot.is_for_block() && self.liar != Some(*place)) {
            let signed = self.signed.get(&(place, commit.height, commit.round, VoteType::Precommit as u8));
            if signed.map(|signed| signed.0) != Some(Some(commit.block_id)) {
                return Err(format!("{place} never precommitted: {slot:?}"));
            }
        }
        Ok(())
    }
}

/// A panic is a failure like any other, told with its seed.
fn run(seed: u64, planted: Planted) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| Network::new(seed, planted).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

#[test]
fn agreement_holds_in_chaos_and_every_height_is_decided_after_it() {
    for seed in 0..400 {
        if let Err(why) = run(seed, Planted::default()) {
            panic!("seed {seed}: {why}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let mut network = Network::new(seed, Planted::default());
        for node in network.honest() {
            network.at(0, Event::StartHeight(node, 0, HEIGHT));
        }
        network.at(GOSSIP_MS, Event::Gossip);
        network.at(1, Event::Lie);
        for _ in 0..3_000 {
            let ((now, _), event) = network.events.pop_first().expect("the liar never stops");
            network.now = now;
            network.handle(event).expect("nothing is wrong");
        }
        (network.now, network.dice.0, format!("{:?}", network.wire.signed))
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// A network that cannot see a bug proves nothing by its silence.
#[test]
fn planted_bugs_are_seen() {
    let bugs = [
        Bug::QuorumAtTwoThirds,
        Bug::NilCounted,
        Bug::FirstVoteOnly,
        Bug::DuplicateCountedTwice,
        Bug::NoPolkaCheck,
        Bug::LockIgnored,
        Bug::StaleTimer,
        Bug::SkipPerStep,
        Bug::PolkaBlindToValidRound,
    ];
    for bug in bugs {
        let planted = Planted::default().with(bug);
        assert!((0..400).any(|seed| run(seed, planted).is_err()), "{bug:?} is not seen");
    }
}
