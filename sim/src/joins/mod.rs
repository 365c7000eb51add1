//! Joining, again and again: one real replica on a simulated disk begins with a snapshot of peers of whom at least one is honest,
//! and is killed on the way.
//!
//! The chain is made once, with validators that all change on the way; the peers are honest, or lie in every way that state sync
//! can be lied to; the node is new, or has an old state. What is judged, by what the chain's maker knows:
//!
//! - **I13**: the node ends with the chain's own state, bit for bit, whatever it was told; honest peers are never refused;
//! - **I14**: with one honest peer it ends within a bound;
//! - **I18**: nothing panics, nothing halts, wherever the machine lost power, also while it starts or installs.

#[cfg(test)]
mod apart_tests;
mod chain;
mod effects;
#[cfg(test)]
mod forged_tests;
#[cfg(test)]
mod install_tests;
mod peers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lockstep_app::Host;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::planted::Planted;
use lockstep_replica::seam::{Mono, Peer as Connection};
use lockstep_replica::state_sync::{Installed, Policy, Staging};
use lockstep_replica::wire::{Message, WIRE_VERSION};
use lockstep_replica::{Effect, Input, Now};
use lockstep_storage::log::{BlockLog, Kind as RecordKind, LogOptions, Record};
use lockstep_types::{Height, codec};

use self::chain::{Chain, TIP, Turnover, h};
use self::peers::{Kind, LIARS, Peer};
use crate::crypto::Crypto;
use crate::disk::{Fault, Survival, When};
use crate::node::{LOG, Machine};
use crate::random::Stream;

/// A millisecond.
const MS: u64 = 1_000_000;
/// How long a run may take at most: the stalls of a few heights, and a share for each crash and each liar.
const BOUND_MS: u64 = 240_000;
const BOUND_CRASH_MS: u64 = 30_000;
const BOUND_LIAR_MS: u64 = 30_000;
/// Operations of the disk that an installation takes, and some of what comes after it.
const INSTALL_OPERATIONS: u64 = 150;
/// Events of one run: far above what it needs.
const EVENTS_MAX: u64 = 2_000_000;
/// How long a request waits for its answer, as the network has it.
const REQUEST_MS: u64 = 10_000;
/// Most times that a machine loses power in one run.
const CRASHES_MAX: u64 = 4;

/// What a run broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which invariant.
    pub invariant: &'static str,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What runs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// Runs.
    pub runs: u64,
    /// Snapshots that were installed.
    pub installed: u64,
    /// Blocks above them that were collected and executed.
    pub above: u64,
    /// Those that were gathered and refused by a start.
    pub refused: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes while a start opened the home.
    pub crashes_while_starting: u64,
    /// Chunks that came as differences.
    pub differences: u64,
    /// Liars that were found out.
    pub left: u64,
    /// Runs that fell back to block sync.
    pub fell_back: u64,
    /// Starts that found something of an earlier one.
    pub resumed: u64,
}

/// The chain, to be joined in any number of runs.
pub struct Joins {
    chain: Arc<Chain>,
}

impl Default for Joins {
    fn default() -> Self {
        Self { chain: Arc::new(Chain::make(&mut Crypto::new(false))) }
    }
}

impl Joins {
    /// One run under a seed.
    ///
    /// # Errors
    /// What it broke.
    pub fn run(&self, seed: u64, joined: &mut Joined) -> Result<(), Broken> {
        joined.runs += 1;
        Join::new(&self.chain, seed).run(joined)
    }
}

fn broken<T>(invariant: &'static str, what: String) -> Result<T, Broken> {
    Err(Broken { invariant, what })
}

enum Event {
    Input { life: u64, input: Box<Input> },
    Job { life: u64, effect: Box<Effect> },
    Sync { life: u64 },
    Connect { peer: usize },
    Status { life: u64, connection: u64 },
    Crash,
    Start,
}

struct Due {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Join {
    chain: Arc<Chain>,
    crypto: Crypto,
    dice: Stream,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<Due>>,
    machine: Machine,
    staging: Option<Staging>,
    policy: Policy,
    peers: Vec<Peer>,
    /// Who is behind each connection of this life.
    connected: BTreeMap<u64, usize>,
    connections: u64,
    crashes_left: u64,
    has_crashed: bool,
    /// In this life.
    has_manifest: bool,
    bound_ms: u64,
}

impl Join {
    fn new(chain: &Arc<Chain>, seed: u64) -> Self {
        let mut dice = Stream::new(seed, "joins");
        let newest = |count: usize, skip: usize| -> Vec<Height> { chain.snapshots.keys().rev().skip(skip).take(count).copied().collect() };
        // A new node whose operator trusts a header; one that trusts genesis, among peers who pruned; one with an old state.
        let way = dice.below(3);
        let base = if way == 0 && dice.chance(500) { h(1) } else { h(dice.between(25, 30)) };
        let liars = dice.below(5);
        let mut peers = Vec::new();
        for _ in 0..dice.between(1, 3) {
            let delay = if dice.chance(200) { dice.between(100, 1_500) } else { dice.between(1, 60) };
            peers.push(Peer::new(chain, Kind::Honest, base, delay, &newest(2, 0)));
        }
        if dice.chance(200) {
            peers.push(Peer::new(chain, Kind::Stale, base, 20, &newest(2, 1)));
        }
        for _ in 0..liars {
            let says = if dice.chance(300) { h(1) } else { base };
            peers.push(Peer::new(chain, *dice.pick(&LIARS), says, dice.between(1, 40), &newest(2, 0)));
        }
        let policy = Policy { root: (way == 0).then(|| h(dice.between(1, TIP - 1))).map(|height| (height, chain.hash_of(height))) };
        let machine = Machine::new(None, 0, chain.genesis.hash(), true);
        if way == 2 {
            write_blocks(chain, &machine, 1..=dice.between(2, 23));
        }
        let crashes_left = if dice.chance(800) { dice.below(CRASHES_MAX + 1) } else { 0 };
        let bound_ms = BOUND_MS + crashes_left * BOUND_CRASH_MS + liars * BOUND_LIAR_MS;
        Self {
            chain: chain.clone(),
            crypto: Crypto::new(false),
            dice,
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            machine,
            staging: None,
            policy,
            peers,
            connected: BTreeMap::new(),
            connections: 0,
            crashes_left,
            has_crashed: false,
            has_manifest: false,
            bound_ms,
        }
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse(Due { at: self.now + delay, order: self.order, event }));
    }

    fn input_after(&mut self, delay: u64, input: Input) {
        let life = self.machine.life;
        self.after(delay, Event::Input { life, input: Box::new(input) });
    }

    fn run(mut self, joined: &mut Joined) -> Result<(), Broken> {
        self.plan_crash();
        self.after(0, Event::Start);
        for _ in 0..EVENTS_MAX {
            if self.has_joined()? {
                return self.keeps_certificates();
            }
            let Some(Reverse(Due { at, event, .. })) = self.events.pop() else { break };
            self.now = at;
            if self.now > self.bound_ms * MS {
                break;
            }
            self.happen(event, joined)?;
        }
        let at = self.machine.running.as_ref().map_or(0, |running| running.replica.chain().height.get());
        broken("I14", format!("it is at height {at} of {TIP} after {} s", self.now / MS / 1_000))
    }

    /// At the chain's tip, with the chain's own state in every respect.
    fn has_joined(&self) -> Result<bool, Broken> {
        let Some(running) = &self.machine.running else { return Ok(false) };
        let chain = running.replica.chain();
        if chain.height < h(TIP) {
            return Ok(false);
        }
        let ours = self.chain.after(h(TIP));
        if chain.encode() != ours.encode() {
            return broken("I13", format!("the chain after height {TIP} is {chain:?}, and should be {ours:?}"));
        }
        let root = running.executor.state().root();
        if ours.app_hash.as_bytes() != root.0 {
            return broken("I13", format!("the state has root {root}, and should have {}", ours.app_hash));
        }
        Ok(true)
    }

    /// Every header that it keeps apart from its log has a commit that others can verify.
    fn keeps_certificates(mut self) -> Result<(), Broken> {
        let light = LightStore::open(Arc::new(self.machine.disk.clone())).expect("its disk is sound");
        for height in (1..=TIP).map(h) {
            let Some(block) = light.find(height).expect("its disk is sound") else { continue };
            let holds = match block.commit.clone().claim(&self.chain.genesis.chain_id, &block.validators) {
                Ok(claim) => self.crypto.verify(claim.checks()).iter().all(|holds| *holds),
                Err(_) => false,
            };
            if !holds {
                return broken("I13", format!("it keeps a commit of height {height} that nobody can verify: {:?}", block.commit));
            }
        }
        Ok(())
    }

    /// The next power cut: in a while, or at an operation of the disk.
    fn plan_crash(&mut self) {
        if self.crashes_left == 0 {
            return;
        }
        self.crashes_left -= 1;
        if self.dice.chance(500) {
            let within = if self.dice.chance(500) { 60 } else { 400 };
            self.cut_within(within);
        } else {
            let within = if self.dice.chance(500) { 1_500 } else { 8_000 };
            let delay = self.dice.between(1, within) * MS;
            self.after(delay, Event::Crash);
        }
    }

    /// A power cut at one of the next so many operations of the disk.
    fn cut_within(&mut self, operations: u64) {
        let operation = self.machine.disk.operations() + self.dice.below(operations);
        let when = *self.dice.pick(&[When::Before, When::During, When::After]);
        self.machine.disk.fault_at(operation, Fault::Stop(when), self.dice.bits());
    }

    fn crash(&mut self, joined: &mut Joined) {
        joined.crashes += 1;
        self.has_crashed = true;
        self.machine.life += 1;
        self.machine.disk.stop();
        self.machine.running = None;
        self.staging = None;
        self.connected.clear();
        let survival = *self.dice.pick(&[
            Survival::All,
            Survival::None,
            Survival::Random,
            Survival::TornSectors,
            Survival::Prefix,
            Survival::Shuffled,
        ]);
        self.machine.disk.crash(survival, self.dice.bits());
        self.plan_crash();
        let down = self.dice.between(1, 2_000) * MS;
        self.after(down, Event::Start);
    }

    fn happen(&mut self, event: Event, joined: &mut Joined) -> Result<(), Broken> {
        match event {
            Event::Start => self.start(joined),
            Event::Crash => {
                if self.machine.running.is_some() {
                    self.crash(joined);
                }
                Ok(())
            }
            Event::Input { life, input } if life == self.machine.life => self.input(*input, joined),
            Event::Job { life, effect } if life == self.machine.life => self.job(*effect, joined),
            Event::Sync { life } if life == self.machine.life => self.sync(joined),
            Event::Status { life, connection } if life == self.machine.life => {
                let Some(peer) = self.connected.get(&connection) else { return Ok(()) };
                let bytes = Message::Status(self.peers[*peer].status()).encode();
                self.after(1_000 * MS, Event::Status { life, connection });
                self.input(Input::Received { peer: Connection(connection), bytes }, joined)
            }
            Event::Connect { peer } => self.connect(peer, joined),
            _ => Ok(()),
        }
    }

    fn start(&mut self, joined: &mut Joined) -> Result<(), Broken> {
        let machine = &self.machine;
        let genesis = &self.chain.genesis;
        let started = catch_unwind(AssertUnwindSafe(|| machine.start(Host::new(Arc::new(Turnover)), genesis, 4, Planted::default())));
        let started = match started {
            Err(panic) => return broken("I18", format!("it panicked while starting: {}", crate::panic_text(&*panic))),
            Ok(Err(_)) if self.machine.disk.is_stopped() => {
                joined.crashes_while_starting += 1;
                self.crash(joined);
                return Ok(());
            }
            Ok(Err(reason)) => return broken("I18", format!("it does not start: {reason}")),
            Ok(Ok(started)) => started,
        };
        if let Some(healed) = started.healed.first() {
            return broken("I18", format!("it heals what never rotted: {healed}"));
        }
        match started.installed {
            Some(Installed::Restored(height)) => {
                joined.installed += 1;
                if !self.chain.snapshots.contains_key(&height) || started.height < height {
                    return broken("I13", format!("it installed height {height}, and starts at {}", started.height));
                }
                if started.running.replica.chain().encode() != self.chain.after(started.height).encode() {
                    return broken("I13", format!("it installed height {height}, and is wrong at {}", started.height));
                }
                joined.above += started.height.get() - height.get();
            }
            Some(Installed::Refused(reason)) => {
                joined.refused += 1;
                return broken("I13", format!("a start refuses what was gathered: {reason}"));
            }
            None => {}
        }
        self.machine.life += 1;
        let mut running = started.running;
        running.replica.set_state_sync(self.policy.clone());
        self.machine.running = Some(running);
        let staging = Staging::open(self.machine.disk.disk(), self.chain.genesis.hash());
        self.staging = Some(staging.map_err(|error| Broken { invariant: "I18", what: error.to_string() })?);
        self.connected.clear();
        self.has_manifest = false;
        let now = self.clocks();
        let effects = self.machine.running.as_mut().expect("just started").replica.start(now);
        for effect in effects {
            self.admit(effect, joined)?;
        }
        for peer in 0..self.peers.len() {
            let delay = self.dice.between(1, 300) * MS;
            self.after(delay, Event::Connect { peer });
        }
        Ok(())
    }

    fn clocks(&self) -> Now {
        let tip = self.chain.after(h(TIP)).last_time;
        Now { mono: Mono(self.now), wall: tip.saturating_add(std::time::Duration::from_nanos(self.now)) }
    }

    fn connect(&mut self, peer: usize, joined: &mut Joined) -> Result<(), Broken> {
        if self.machine.running.is_none() || self.connected.values().any(|other| *other == peer) {
            return Ok(());
        }
        self.connections += 1;
        let connection = self.connections;
        self.connected.insert(connection, peer);
        self.input(Input::PeerUp { peer: Connection(connection), validator: None }, joined)?;
        let life = self.machine.life;
        let delay = self.dice.between(1, 30) * MS;
        self.after(delay, Event::Status { life, connection });
        Ok(())
    }

    fn input(&mut self, input: Input, joined: &mut Joined) -> Result<(), Broken> {
        let now = self.clocks();
        let Some(running) = &mut self.machine.running else { return Ok(()) };
        let mut released = Vec::new();
        if let Input::Durable { ticket } = &input {
            released = running.fence.durable(*ticket);
        }
        let replica = &mut running.replica;
        let effects = match catch_unwind(AssertUnwindSafe(|| replica.step(now, input))) {
            Ok(effects) => effects,
            Err(panic) => return broken("I18", format!("it panicked: {}", crate::panic_text(&*panic))),
        };
        for effect in released {
            self.perform(effect, joined)?;
        }
        effects.into_iter().try_for_each(|effect| self.admit(effect, joined))
    }
}

/// Blocks that a node has, in its log.
fn write_blocks(chain: &Chain, machine: &Machine, heights: RangeInclusive<u64>) {
    let options = LogOptions { salt: chain.genesis.hash().0, segment_bytes: machine.segment_bytes };
    let (mut log, _) = BlockLog::open(machine.disk.disk(), LOG, options).expect("the disk is sound");
    for (height, (body, commit)) in (1..).zip(&chain.blocks).filter(|(height, _)| heights.contains(height)) {
        let block_hash = commit.block_id.hash.0;
        log.append(Record { kind: RecordKind::Body, height, round: 0, block_hash, payload: body }).expect("there is room");
        let decision = codec::encode(WIRE_VERSION, commit);
        log.append(Record { kind: RecordKind::Decision, height, round: 0, block_hash, payload: &decision }).expect("there is room");
    }
    log.sync().expect("the disk is sound");
}
