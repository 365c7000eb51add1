//! The simulated world: an event heap, links, clocks, crashes, and a liar. Everything is drawn from the seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockstep_app::CheckKind;
use lockstep_genesis::Genesis;
use lockstep_replica::check::{build, check};
use lockstep_replica::planted::Planted;
use lockstep_replica::seam::{AskId, JobId, Lane, Mono, Peer, ReadAnswer, ReadQuestion, Reply, Report, RequestId, Target, Wait, Write};
use lockstep_replica::source::BlockSource;
use lockstep_replica::wire::Message;
use lockstep_replica::{Effect, Input, Now};
use lockstep_storage::guard::GuardRecord;
use lockstep_storage::log::Kind;
use lockstep_types::block::PartSetHeader;
use lockstep_types::{Address, Block, BlockId, Hash, Height, PrivateKey, PublicKey, Round, Time, Vote};
use sha2::{Digest as _, Sha256};

use crate::checks::{Checks, PRECOMMIT, Signed, Violation};
use crate::crypto::Crypto;
use crate::disk::{Fault, Survival, When};
use crate::node::{Machine, Running};
use crate::plan::{Hushed, Lie, MS, Plan};
use crate::random::Stream;
use crate::votes::Votes;

/// How long a request waits for its answer.
const REQUEST_NS: u64 = 2_000 * MS;
/// Events of one run: far above what any plan needs. A run that reaches it spins (I19).
const EVENTS_MAX: u64 = 4_000_000;
/// Blocks after which a chain is long enough for chaos to end.
const CHAOS_BLOCKS: u64 = 60;

/// Where a crash is forced, for the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForcedCrash {
    /// The node whose effects and operations are counted.
    pub(crate) node: usize,
    /// Where in its run.
    pub(crate) boundary: Boundary,
    /// All nodes at once, as in a power cut.
    pub(crate) all: bool,
    /// What unsynced writes become.
    pub(crate) survival: Survival,
}

/// A place in a node's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// After this many of its effects.
    Effect(u64),
    /// At this operation of its disk: before it, in the middle of it, or after it and before anybody hears of it.
    Operation(u64, When),
}

enum What {
    Input { node: usize, life: u64, input: Box<Input> },
    LogSync { node: usize, life: u64 },
    GuardSync { node: usize, life: u64 },
    Job { node: usize, life: u64, effect: Box<Effect> },
    Frame { from: usize, to: usize, connection: u64, bytes: Bytes, gossip: bool },
    Ask { from: usize, from_life: u64, to: usize, job: JobId, connection: u64, bytes: Bytes },
    Connect { a: usize, b: usize },
    Reset,
    Partition,
    Crash,
    DiskStop,
    Freeze,
    Hush,
    CrashOf { node: usize },
    Restart { node: usize, life: u64 },
    Clock,
    Submit,
    Heal,
}

struct Event {
    at: u64,
    tie: u64,
    sequence: u64,
    what: What,
}

impl What {
    /// The node that it comes to; none where the node is not asked.
    fn target(&self) -> Option<usize> {
        match self {
            Self::Input { node, .. } | Self::LogSync { node, .. } | Self::GuardSync { node, .. } | Self::Job { node, .. } => Some(*node),
            Self::Frame { to, .. } | Self::Ask { to, .. } => Some(*to),
            _ => None,
        }
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.tie, self.sequence) == (other.at, other.tie, other.sequence)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.tie, self.sequence).cmp(&(other.at, other.tie, other.sequence))
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report1 {
    pub(crate) simulated_ns: u64,
    pub(crate) events: u64,
    pub(crate) height: u64,
    pub(crate) acknowledged: usize,
    pub(crate) crashes: u64,
    /// Files that were damaged and made whole.
    pub(crate) heals: u64,
    /// Effects that the first node performed: the boundaries of a sweep.
    pub(crate) effects: u64,
    /// The first node's disk: operations before it started, and at the end.
    pub(crate) operations: (u64, u64),
    /// Of all disks.
    pub(crate) disk_operations: u64,
    /// Rolling hash over every input, where it was asked for.
    pub(crate) digest: Vec<u8>,
}

/// A run that broke something.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) violation: Violation,
    pub(crate) at: u64,
    pub(crate) height: u64,
}

pub(crate) struct World {
    plan: Plan,
    seed: u64,
    genesis: Genesis,
    planted: Planted,
    forced: Option<ForcedCrash>,
    now: u64,
    events: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    machines: Vec<Machine>,
    /// By pair, lower first: the number of their connection.
    connections: BTreeMap<(usize, usize), u64>,
    connection_count: u64,
    /// A kind of message that these nodes do not get.
    hushed: Option<(Hushed, BTreeSet<usize>)>,
    /// Who hears whom not at all.
    cut: BTreeSet<(usize, usize)>,
    checks: Checks,
    votes: Votes,
    /// What happened, a line each, where somebody wants to read it.
    trace: Option<Vec<String>>,
    first_operation: u64,
    /// Over every input, where two runs are compared.
    digest: Option<Sha256>,
    crypto: Crypto,
    processed: u64,
    crashes: u64,
    heals: u64,
    healed: bool,
    core: BTreeSet<usize>,
    deadline: u64,
    goal: u64,
    txs: u64,
    requests: u64,
    network: Stream,
    schedule: Stream,
    disks: Stream,
    faults: Stream,
    stops: Stream,
    work: Stream,
    liar: Stream,
    rot: Stream,
    /// The liar's second block for each of its blocks.
    second_blocks: BTreeMap<BlockId, BlockId>,
}

type Outcome = Result<(), Violation>;

impl World {
    pub(crate) fn new(seed: u64, plan: Plan, planted: Planted, forced: Option<ForcedCrash>) -> Self {
        let (genesis, keys) = crate::keys::genesis(&plan);
        let mut clocks = Stream::new(seed, "clocks");
        let mut offset = |plan: &Plan| {
            let most = plan.clock_offset.max(plan.honest_offset());
            i64::try_from(clocks.below(2 * most + 1)).expect("offsets are small") - i64::try_from(most).expect("offsets are small")
        };
        let hash = genesis.hash();
        let powers = keys.iter().zip(&plan.powers).map(|(key, power)| (key.public_key().address(), *power)).collect();
        let mut machines: Vec<Machine> =
            keys.into_iter().map(|key| (Some(key), offset(&plan))).map(|(key, clock)| Machine::new(key, clock, hash, plan.rots)).collect();
        machines.extend((0..plan.followers).map(|_| Machine::new(None, 0, hash, plan.rots)));
        if let Some(twins) = plan.twins {
            let key = machines[twins.node].key.as_ref().map(|key| PrivateKey::from_seed(&key.seed()));
            machines.push(Machine::new(key, 0, hash, plan.rots));
        }
        let keys = machines.iter().take(plan.powers.len()).filter_map(|machine| machine.key.as_ref());
        let addresses: Vec<Address> = keys.map(|key| key.public_key().address()).collect();
        let honest = (0..plan.powers.len()).map(|node| is_honest(&plan, node)).collect();
        let first_operation = machines[0].disk.operations();
        if let Some(ForcedCrash { node, boundary: Boundary::Operation(operation, when), .. }) = forced {
            machines[node].disk.fault_at(operation, Fault::Stop(when), seed ^ operation);
        }
        Self {
            votes: Votes::new(&addresses, &plan.powers, honest),
            first_operation,
            trace: None,
            second_blocks: BTreeMap::new(),
            seed,
            genesis,
            planted,
            forced,
            now: 0,
            events: BinaryHeap::new(),
            sequence: 0,
            machines,
            connections: BTreeMap::new(),
            connection_count: 0,
            cut: BTreeSet::new(),
            hushed: None,
            checks: Checks::new(powers),
            digest: None,
            crypto: Crypto::default(),
            processed: 0,
            crashes: 0,
            heals: 0,
            healed: false,
            core: BTreeSet::new(),
            deadline: u64::MAX,
            goal: u64::MAX,
            txs: 0,
            requests: 0,
            network: Stream::new(seed, "network"),
            schedule: Stream::new(seed, "schedule"),
            disks: Stream::new(seed, "disks"),
            faults: Stream::new(seed, "faults"),
            stops: Stream::new(seed, "disk stops and freezes"),
            work: Stream::new(seed, "work"),
            liar: Stream::new(seed, "liar"),
            rot: Stream::new(seed, "rot"),
            plan,
        }
    }

    /// Keeps a line for everything that matters.
    pub(crate) fn traced(mut self) -> Self {
        self.trace = Some(vec![format!("{:?}", self.plan)]);
        self
    }

    /// Sums up every input, to be compared with another run.
    pub(crate) fn digested(mut self) -> Self {
        self.digest = Some(Sha256::new());
        self
    }

    fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.3} ms  {}", self.now as f64 / MS as f64, line()));
        }
    }

    /// Runs to the end; the lines too, if they were asked for.
    pub(crate) fn run(mut self) -> (Result<Report1, Failure>, Vec<String>) {
        let outcome = self.live();
        let trace = self.trace.take().unwrap_or_default();
        (self.report_of(outcome), trace)
    }

    fn report_of(self, outcome: Outcome) -> Result<Report1, Failure> {
        let height = self.checks.height();
        outcome.map_err(|violation| Failure { violation, at: self.now, height })?;
        Ok(Report1 {
            simulated_ns: self.now,
            events: self.processed,
            height,
            acknowledged: self.checks.acknowledgements(),
            crashes: self.crashes,
            heals: self.heals,
            effects: self.machines[0].effects,
            operations: (self.first_operation, self.machines[0].disk.operations()),
            disk_operations: self.machines.iter().map(|machine| machine.disk.operations()).sum(),
            digest: self.digest.map_or_else(Vec::new, |digest| digest.finalize().to_vec()),
        })
    }

    fn live(&mut self) -> Outcome {
        for node in 0..self.machines.len() {
            self.start(node)?;
        }
        self.at(0, What::Submit);
        self.at(self.plan.chaos, What::Heal);
        if self.plan.resets {
            self.after_between(100, 2_000, What::Reset);
        }
        if self.plan.partitions {
            self.after_between(100, 2_500, What::Partition);
        }
        if self.plan.crashes || self.plan.crash_all {
            self.after_between(20, self.plan.crash_interval_ms, What::Crash);
        }
        if self.plan.clock_steps {
            self.after_between(100, 2_000, What::Clock);
        }
        if self.plan.disk_stops {
            self.after_some(What::DiskStop);
        }
        if self.plan.freezes {
            self.after_some(What::Freeze);
        }
        if self.plan.hushes {
            self.after_some(What::Hush);
        }
        while let Some(Reverse(event)) = self.events.pop() {
            self.now = event.at;
            self.processed += 1;
            if self.processed > EVENTS_MAX {
                return violation("I19", format!("{EVENTS_MAX} events in {} ms", self.now / MS));
            }
            self.happen(event.what)?;
            if self.healed && self.has_settled() {
                return self.finish();
            }
            if self.now > self.deadline {
                return self.late();
            }
        }
        violation("I7", "nothing happens any more".into())
    }

    /// I7: the core did not reach its goal within the bound.
    fn late(&self) -> Outcome {
        let at = |node: &usize| {
            let running = self.machines[*node].running.as_ref();
            let state = running.map(|running| {
                let consensus = running.replica.consensus();
                format!(
                    "height {} round {} {:?}, locked {:?}, valid {:?}",
                    running.replica.height(),
                    consensus.round(),
                    consensus.current_step(),
                    consensus.locked().map(|polka| (polka.round, polka.block_id)),
                    consensus.valid().map(|polka| (polka.round, polka.block_id))
                )
            });
            format!("node {node}: {}", state.unwrap_or_else(|| "down".into()))
        };
        let core: Vec<String> = self.core.iter().map(at).collect();
        violation("I7", format!("goal {} not reached within the bound; {}", self.goal, core.join(", ")))
    }

    fn finish(&self) -> Outcome {
        self.checks.settled()?;
        for node in &self.core {
            if let Some(running) = &self.machines[*node].running {
                let state = running.executor.state();
                let get = |key: &[u8]| state.tree().get(&lockstep_app::kv::data_key(key)).map(|value| value.to_vec());
                self.checks.model(state.height().get(), get)?;
            }
        }
        Ok(())
    }

    fn has_settled(&self) -> bool {
        self.core.iter().all(|node| self.checks.told(*node) >= self.goal)
    }

    // --- events ------------------------------------------------------------------------------------------------

    fn at(&mut self, at: u64, what: What) {
        self.sequence += 1;
        let tie = self.schedule.bits();
        self.events.push(Reverse(Event { at, tie, sequence: self.sequence, what }));
    }

    fn after(&mut self, delay: u64, what: What) {
        self.at(self.now + delay, what);
    }

    fn after_between(&mut self, low_ms: u64, high_ms: u64, what: What) {
        let delay = self.faults.between(low_ms * MS, high_ms * MS);
        self.after(delay, what);
    }

    /// The next disk stop or freeze.
    fn after_some(&mut self, what: What) {
        let delay = self.stops.between(50 * MS, 2_000 * MS);
        self.after(delay, what);
    }

    fn happen(&mut self, what: What) -> Outcome {
        let thawed = what.target().map_or(0, |node| self.machines[node].frozen_until);
        if thawed > self.now {
            self.at(thawed, what);
            return Ok(());
        }
        match what {
            What::Input { node, life, input } => self.input(node, life, *input),
            What::LogSync { node, life } => self.log_sync(node, life),
            What::GuardSync { node, life } => self.guard_sync(node, life),
            What::Job { node, life, effect } => self.job(node, life, *effect),
            What::Frame { from, to, connection, bytes, gossip } => self.frame(from, to, connection, bytes, gossip),
            What::Ask { from, from_life, to, job, connection, bytes } => self.ask(from, from_life, to, job, connection, bytes),
            What::Connect { a, b } => self.connect(a, b),
            What::Reset => {
                let pairs: Vec<(usize, usize)> = self.connections.keys().copied().collect();
                if !self.healed {
                    if !pairs.is_empty() {
                        let (a, b) = *self.faults.pick(&pairs);
                        self.disconnect(a, b)?;
                    }
                    self.after_between(50, 2_000, What::Reset);
                }
                Ok(())
            }
            What::Partition => {
                self.partition();
                Ok(())
            }
            What::Crash => self.crash_some(),
            What::DiskStop => {
                if !self.healed {
                    let node = self.stops.place(self.machines.len());
                    self.stop_disk(node, 40);
                    self.after_some(What::DiskStop);
                }
                Ok(())
            }
            What::CrashOf { node } if !self.healed => {
                let survival = *self.stops.pick(&Survival::EACH);
                self.crash(node, survival)
            }
            What::CrashOf { .. } => Ok(()),
            What::Hush => {
                self.hush();
                Ok(())
            }
            What::Freeze => {
                if !self.healed {
                    let node = self.stops.place(self.machines.len());
                    let until = self.now + self.stops.between(10 * MS, 3_000 * MS);
                    self.machines[node].frozen_until = until.min(self.plan.chaos);
                    self.after_some(What::Freeze);
                }
                Ok(())
            }
            What::Restart { node, life } => {
                if self.machines[node].life == life && self.machines[node].running.is_none() && !self.machines[node].retired {
                    if self.plan.rots && !self.healed && self.rot.chance(350) {
                        self.rot(node);
                    }
                    if self.plan.disk_stops && !self.healed && self.stops.chance(300) {
                        self.stop_disk(node, 16);
                    }
                    self.start(node)?;
                }
                Ok(())
            }
            What::Clock => {
                if !self.healed {
                    let node = self.faults.place(self.machines.len());
                    let most = i64::try_from(self.plan.clock_offset.max(self.plan.honest_offset())).expect("offsets are small");
                    self.machines[node].clock =
                        i64::try_from(self.faults.below(2 * most.unsigned_abs() + 1)).expect("offsets are small") - most;
                    self.after_between(100, 2_000, What::Clock);
                }
                Ok(())
            }
            What::Submit => self.submit(),
            What::Heal => self.heal(),
        }
    }

    // --- nodes -------------------------------------------------------------------------------------------------

    fn start(&mut self, node: usize) -> Outcome {
        let machine = &self.machines[node];
        let started = catch_unwind(AssertUnwindSafe(|| machine.start(&self.genesis, self.plan.flush_blocks, self.planted)));
        let started = match started {
            Err(panic) => return violation("I18", format!("node {node} panicked while starting: {}", crate::panic_text(&*panic))),
            Ok(Err(reason)) => {
                if machine.disk.is_stopped() {
                    return self.stopped(node);
                }
                return violation("I5", format!("node {node} does not start from its disk: {reason}"));
            }
            Ok(Ok(started)) => started,
        };
        for block in &started.replayed {
            if block.outcome.height.get() > self.checks.told(node) {
                self.checks.committed(node, block.block_id, &block.block, &block.commit, &block.outcome)?;
                self.votes.decided(node, &block.commit)?;
            }
        }
        // What was executed again is what it was, also below what this node told before.
        started.replayed.iter().try_for_each(|block| self.checks.replayed(node, &block.outcome))?;
        let has_rotted = std::mem::take(&mut self.machines[node].rot.is_fresh);
        self.checks.restarted(node, started.height, has_rotted)?;
        let at = started.height;
        for healed in &started.healed {
            self.trace(|| format!("node {node}: {healed}"));
        }
        if !(started.healed.is_empty() || self.machines[node].rot.times > 0) {
            return violation("I18", format!("node {node} heals what never rotted: {}", started.healed[0]));
        }
        self.heals += started.healed.len() as u64;
        if has_rotted && started.running.reader.verify().is_err() {
            // A block of long ago that this start had no need of: nobody gets it from here.
            self.machines[node].rot.until = u64::MAX;
        }
        self.trace(|| format!("node {node} starts at height {at}"));
        self.machines[node].life += 1;
        self.machines[node].running = Some(started.running);
        let now = self.clocks(node);
        let effects = self.machines[node].running.as_mut().expect("just started").replica.start(now);
        self.effects(node, effects)?;
        for other in 0..self.machines.len() {
            if other != node {
                let delay = self.network.between(MS, 300 * MS);
                self.after(delay, What::Connect { a: node.min(other), b: node.max(other) });
            }
        }
        Ok(())
    }

    fn clocks(&self, node: usize) -> Now {
        // True time starts a day after genesis.
        let wall = i128::from(self.now) + i128::from(self.machines[node].clock) + crate::keys::START_UNIX_NS;
        Now { mono: Mono(self.now), wall: Time::from_unix_nanos(wall) }
    }

    fn input(&mut self, node: usize, life: u64, input: Input) -> Outcome {
        if self.machines[node].life != life {
            return Ok(());
        }
        let now = self.clocks(node);
        let Some(running) = self.machines[node].running.as_mut() else { return Ok(()) };
        if let Some(digest) = &mut self.digest {
            digest.update((node as u64).to_le_bytes());
            digest.update(self.now.to_le_bytes());
            digest.update(format!("{input:?}"));
        }
        if let Input::Durable { ticket } = &input {
            let released = running.fence.durable(*ticket);
            for effect in released {
                self.perform(node, effect)?;
                if self.machines[node].life != life || self.machines[node].running.is_none() {
                    return Ok(());
                }
            }
        }
        let Some(running) = self.machines[node].running.as_mut() else { return Ok(()) };
        running.bodies.told(&input);
        let replica = &mut running.replica;
        match catch_unwind(AssertUnwindSafe(|| replica.step(now, input))) {
            Ok(effects) => {
                running.misses_polka().map_or(Ok(()), |what| violation("L36", format!("node {node}: {what}")))?;
                self.effects(node, effects)
            }
            Err(panic) => violation("I18", format!("node {node} panicked: {}", crate::panic_text(&*panic))),
        }
    }

    fn effects(&mut self, node: usize, effects: Vec<Effect>) -> Outcome {
        let life = self.machines[node].life;
        for effect in effects {
            let Some(running) = self.alive(node, life) else { return Ok(()) };
            if let Some(effect) = running.fence.admit(effect) {
                self.perform(node, effect)?;
            }
        }
        Ok(())
    }

    fn job_delay(&mut self) -> u64 {
        self.schedule.between(1_000, self.plan.job_delay.max(2_000))
    }

    fn answer(&mut self, node: usize, input: Input) {
        let delay = self.job_delay();
        let life = self.machines[node].life;
        self.after(delay, What::Input { node, life, input: Box::new(input) });
    }

    fn perform(&mut self, node: usize, effect: Effect) -> Outcome {
        let life = self.machines[node].life;
        match effect {
            Effect::Verify { job, checks } => {
                let verdicts = self.crypto.verify(&checks);
                self.answer(node, Input::Verified { job, verdicts });
            }
            Effect::Sign { job, bytes, .. } => {
                self.trace(|| {
                    format!("node {node} signs {}", Signed::read(&bytes).map_or_else(|| "?".into(), |signed| signed.to_string()))
                });
                if self.is_honest(node) {
                    let signed = self.checks.signed(node, &bytes)?;
                    self.votes.signed(node, &signed)?;
                    self.orders(node, &signed, &bytes)?;
                }
                let signature = self.machines[node].key.as_ref().map(|key| self.crypto.sign(key, &bytes));
                self.answer(node, Input::Signed { job, signature });
            }
            Effect::Persist { ticket, write: Write::Log(records), .. } => {
                let running = self.machines[node].running.as_mut().expect("it performs");
                if let Err(reason) = running.append(&records) {
                    return self.disk_failed(node, reason);
                }
                running.unsynced.push(ticket);
                running.bodies.asked(ticket, &records);
                let delay = self.disks.between(100_000, self.plan.disk_delay);
                self.after(delay, What::LogSync { node, life });
            }
            Effect::Persist { ticket, write, .. } => {
                self.machines[node].running.as_mut().expect("it performs").guard_queue.push_back((ticket, write));
                let delay = self.disks.between(100_000, self.plan.disk_delay);
                self.after(delay, What::GuardSync { node, life });
            }
            Effect::Build { .. }
            | Effect::Check { .. }
            | Effect::Execute { .. }
            | Effect::CheckTxs { .. }
            | Effect::Flush { .. }
            | Effect::Read { .. } => {
                let delay = self.job_delay();
                self.after(delay, What::Job { node, life, effect: Box::new(effect) });
            }
            Effect::Send { to, lane, bytes } => {
                if lane == Lane::Votes && self.is_honest(node) {
                    self.tap(node, &bytes)?;
                }
                self.send(node, to, lane, &bytes);
            }
            Effect::Request { job, peer, bytes } => {
                let to = self.machines[node].running.as_ref().and_then(|running| running.peers.get(&peer)).copied();
                match to.and_then(|to| Some((to, *self.connections.get(&pair(node, to))?))) {
                    Some((to, connection)) => {
                        self.after(REQUEST_NS, What::Input { node, life, input: Box::new(Input::Response { job, bytes: None }) });
                        if let Some(delay) = self.hop(node, to) {
                            self.after(delay, What::Ask { from: node, from_life: life, to, job, connection, bytes });
                        }
                    }
                    None => self.answer(node, Input::Response { job, bytes: None }),
                }
            }
            Effect::Respond { ask, bytes } => {
                let asked = self.machines[node].running.as_mut().and_then(|running| running.asks.remove(&ask));
                if let Some((to, to_life, job)) = asked
                    && let Some(delay) = self.hop(node, to)
                {
                    let input = Box::new(Input::Response { job, bytes: Some(bytes) });
                    self.after(delay, What::Input { node: to, life: to_life, input });
                }
            }
            Effect::SetTimer { at, timer } => {
                self.at(at.0.max(self.now), What::Input { node, life, input: Box::new(Input::TimedOut(timer)) });
            }
            Effect::Reply { reply, .. } => {
                if let Reply::Committed { hash, height, .. } = reply {
                    self.checks.acknowledged(hash, height)?;
                }
            }
            Effect::Disconnect { peer, .. } => {
                let other = self.machines[node].running.as_ref().and_then(|running| running.peers.get(&peer)).copied();
                if let Some(other) = other {
                    self.disconnect(node.min(other), node.max(other))?;
                }
            }
            Effect::Report { report, .. } => self.report(node, &report)?,
            Effect::Halt { reason } => {
                if self.is_honest(node) {
                    return violation("I18", format!("node {node} halts: {reason}"));
                }
            }
        }
        self.machines[node].effects += 1;
        self.force_crash(node)
    }

    /// The orders of durability, asked of the disk itself when a message is signed: what it rests on survives a power cut.
    fn orders(&self, node: usize, signed: &Signed, bytes: &[u8]) -> Outcome {
        let running = self.machines[node].running.as_ref().expect("it signs");
        let at = (signed.height, u32::try_from(signed.round).unwrap_or(u32::MAX), signed.step());
        // What is said again after rot rested on what the disk had when it was recorded (decision record 10).
        let is_said_again = at <= self.machines[node].rot.said_before;
        let recorded = |record: &GuardRecord| record.position() > at || record.sign_bytes == bytes;
        if !running.guard.as_ref().is_some_and(|guard| guard.records().into_iter().any(recorded)) {
            return violation("order 0", format!("node {node} signs {at:?}, and no durable record of its guard says so"));
        }
        let reader = &running.reader;
        if reader.tip().unwrap_or(0) + 1 < signed.height && !is_said_again {
            return violation("order 2", format!("node {node} signs for height {}, the decision before it is not durable", signed.height));
        }
        let Some(block) = signed.block.as_ref().filter(|_| signed.kind == PRECOMMIT && !is_said_again) else { return Ok(()) };
        let is_durable = reader
            .entries(signed.height)
            .iter()
            .any(|entry| entry.kind == Kind::Body && entry.block_hash[..] == block[..] && entry.sequence <= reader.durable_sequence());
        if is_durable { Ok(()) } else { violation("order 1", format!("node {node} precommits a block whose body is not durable")) }
    }

    fn report(&mut self, node: usize, report: &Report) -> Outcome {
        match report {
            Report::Stepped { height, round, step } => {
                self.trace(|| format!("node {node} enters {height}/{round} {step:?}"));
                Ok(())
            }
            Report::Committed { block_id, block, commit, outcome, chain } => {
                let running = self.machines[node].running.as_mut().expect("it reports");
                if let Err(reason) = running.keep(block, outcome, chain) {
                    return self.disk_failed(node, reason);
                }
                self.trace(|| format!("node {node} commits {} {block_id}", block.header.height));
                self.checks.committed(node, *block_id, block, commit.get(), outcome)?;
                self.votes.decided(node, commit.get())?;
                if self.checks.height() > CHAOS_BLOCKS && !self.healed {
                    return self.heal();
                }
                Ok(())
            }
            Report::Equivocation { first, .. } => {
                // Set order is by power and address; the accused is found by its key.
                let running = self.machines[node].running.as_ref().expect("it reports");
                let address = running.replica.chain().validators.get(first.validator).map(|validator| validator.address);
                let accused =
                    (0..self.plan.powers.len()).find(|i| self.machines[*i].key.as_ref().map(|key| key.public_key().address()) == address);
                match accused {
                    Some(accused) if self.is_honest(accused) => {
                        violation("I9", format!("node {accused} is honest and accused by node {node}"))
                    }
                    Some(accused) => {
                        self.checks.accused.insert(accused);
                        Ok(())
                    }
                    None => violation("I9", "somebody unknown is accused".into()),
                }
            }
            // Only a liar is ever refused.
            Report::Refused { peer, reason, .. } => {
                let from = self.machines[node].running.as_ref().and_then(|running| running.peers.get(peer)).copied();
                match from {
                    Some(from) if self.is_honest(from) && self.is_honest(node) => {
                        violation("I13", format!("node {node} refuses honest node {from}: {reason}"))
                    }
                    _ => Ok(()),
                }
            }
            Report::Note(note) if self.is_honest(node) && note.contains("Nothing is signed any more") => {
                violation("I4", format!("node {node} takes itself for a clone: {note}"))
            }
            _ => Ok(()),
        }
    }

    fn is_honest(&self, node: usize) -> bool {
        is_honest(&self.plan, node)
    }

    /// What an honest node says on the lane of votes is one message of the frozen wire, and every vote in it was cast.
    fn tap(&self, node: usize, bytes: &Bytes) -> Outcome {
        let Ok(message) = Message::decode(bytes) else {
            return violation("I13", format!("node {node} sends a frame that is no message"));
        };
        let Some(running) = self.machines[node].running.as_ref() else { return Ok(()) };
        let chain = running.replica.chain();
        // No transaction changes the validators here, so one set is as good as another.
        let address = |vote: &Vote| chain.validators.get(vote.validator).map(|validator| validator.address);
        self.votes.sent(node, &message, address)
    }

    /// Has a machine stop at one of the next operations of its disk.
    fn stop_disk(&mut self, node: usize, within: u64) {
        let disk = &self.machines[node].disk;
        let operation = disk.operations() + self.stops.below(within);
        disk.fault_at(operation, Fault::Stop(*self.stops.pick(&When::EACH)), self.stops.bits());
    }

    /// A machine has stopped at an operation of its disk: the power is gone.
    fn stopped(&mut self, node: usize) -> Outcome {
        let forced = self.forced.take_if(|forced| forced.node == node && matches!(forced.boundary, Boundary::Operation(..)));
        let survival = forced.map_or_else(|| *self.stops.pick(&Survival::EACH), |forced| forced.survival);
        if forced.is_some_and(|forced| forced.all) {
            return (0..self.machines.len()).try_for_each(|node| self.crash(node, survival));
        }
        self.crash(node, survival)
    }

    /// One of a machine's files rots while it is down, as long as those who rot and those who lie have less than a third of
    /// the power: every block, and every body that a lock names, has then a sound copy somewhere.
    fn rot(&mut self, node: usize) {
        /// Openings that set something aside are counted, and a run must not reach the bound.
        const TIMES_MAX: u64 = 6;
        let machine = &self.machines[node];
        if !self.is_honest(node) || machine.rot.is_fresh || machine.rot.times >= TIMES_MAX {
            return;
        }
        let is_faulty = |other: usize| other == node || !self.is_honest(other) || self.is_rotten(other);
        let faulty: u64 = (0..self.plan.powers.len()).filter(|other| is_faulty(*other)).map(|other| self.plan.powers[other]).sum();
        if node < self.plan.powers.len() && 3 * faulty >= self.plan.powers.iter().sum::<u64>() {
            return;
        }
        let said = machine.guard_position(self.genesis.hash()).unwrap_or_default();
        let told = self.checks.told(node);
        let Some(what) = self.machines[node].damage(&mut self.rot) else { return };
        self.trace(|| format!("node {node} loses {what}"));
        let rot = &mut self.machines[node].rot;
        rot.times += 1;
        rot.is_fresh = true;
        rot.said_before = rot.said_before.max(said);
        rot.until = rot.until.max(told).max(said.0);
    }

    /// Whether it has not come back to where it was when it rotted.
    fn is_rotten(&self, node: usize) -> bool {
        self.checks.told(node) < self.machines[node].rot.until
    }

    fn disk_failed(&mut self, node: usize, reason: String) -> Outcome {
        if self.machines[node].disk.is_stopped() {
            return self.stopped(node);
        }
        violation("I18", format!("node {node}: the disk refuses: {reason}"))
    }

    fn log_sync(&mut self, node: usize, life: u64) -> Outcome {
        let Some(running) = self.alive(node, life).filter(|running| !running.unsynced.is_empty()) else { return Ok(()) };
        match running.sync() {
            Ok(tickets) => tickets.into_iter().try_for_each(|ticket| self.input(node, life, Input::Durable { ticket })),
            Err(reason) => self.disk_failed(node, reason),
        }
    }

    fn guard_sync(&mut self, node: usize, life: u64) -> Outcome {
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        if let Some((_, Write::Guard(record))) = running.guard_queue.front()
            && running.reader.tip().unwrap_or(0) + 1 < record.height
        {
            return violation("order 2", format!("node {node} records height {}, the decision before it is not durable", record.height));
        }
        match running.write_guard() {
            Ok(Some(ticket)) => self.input(node, life, Input::Durable { ticket }),
            Ok(None) => Ok(()),
            Err(reason) => self.disk_failed(node, reason),
        }
    }

    fn alive(&mut self, node: usize, life: u64) -> Option<&mut Running> {
        let machine = &mut self.machines[node];
        if machine.life == life { machine.running.as_mut() } else { None }
    }

    /// Does what a thread beside the replica does, and hands the answer over.
    fn job(&mut self, node: usize, life: u64, effect: Effect) -> Outcome {
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        let executor = &mut running.executor;
        let input = match effect {
            Effect::Build { job, build: request } => {
                let built = build(executor.host(), executor.state(), &request);
                Input::Built { job, built: Box::new(built) }
            }
            Effect::Check { job, check: request } => Input::Checked { job, verdict: check(executor.host(), executor.state(), &request) },
            Effect::Execute { job, execute } => {
                Input::Executed { job, outcome: executor.execute(&execute).map(Box::new).map_err(|error| error.to_string()) }
            }
            Effect::CheckTxs { job, txs, recheck } => {
                let kind = if recheck { CheckKind::Recheck } else { CheckKind::New };
                let verdicts = txs.iter().map(|tx| executor.host().check_tx(executor.state(), tx, kind)).collect();
                Input::TxsChecked { job, verdicts }
            }
            Effect::Flush { height, chain, .. } => match running.flush(height, &chain.encode()) {
                Ok(()) => Input::Flushed { height },
                Err(reason) => return self.disk_failed(node, reason),
            },
            Effect::Read { job, what } => {
                // Short answers: more of them, in more orders.
                let what = match what {
                    ReadQuestion::Blocks { from, count, bytes_max } => ReadQuestion::Blocks { from, count: count.min(16), bytes_max },
                    what => what,
                };
                let answer = BlockSource::new(running.reader.clone()).read(&what);
                Input::ReadDone { job, answer: answer.unwrap_or(ReadAnswer::Blocks(Vec::new())) }
            }
            _ => return Ok(()),
        };
        self.input(node, life, input)
    }

    // --- the network ---------------------------------------------------------------------------------------------

    /// How long a frame takes, if it arrives.
    fn hop(&mut self, from: usize, to: usize) -> Option<u64> {
        if self.cut.contains(&(from, to)) || self.is_apart(from, to) || (!self.healed && self.network.chance(self.plan.loss)) {
            return None;
        }
        let (low, high) = if self.healed { (MS / 10, 5 * MS) } else { self.plan.latency };
        Some(self.network.between(low, high))
    }

    /// Twins that are kept apart have half of the others each.
    fn is_apart(&self, from: usize, to: usize) -> bool {
        let Some(twins) = self.plan.twins.filter(|twins| twins.apart && !self.healed) else { return false };
        let other = self.machines.len() - 1;
        let is_odd = |node: usize| !node.is_multiple_of(2);
        let between = |a: usize, b: usize| (a == twins.node && is_odd(b)) || (a == other && !is_odd(b)) || (a, b) == (twins.node, other);
        between(from, to) || between(to, from)
    }

    fn send(&mut self, from: usize, to: Target, lane: Lane, bytes: &Bytes) {
        let peers: Vec<usize> = match (&to, self.machines[from].running.as_ref()) {
            (_, None) => return,
            (Target::All, Some(running)) => running.peers.values().copied().collect(),
            (Target::One(peer), Some(running)) => running.peers.get(peer).copied().into_iter().collect(),
        };
        let hushed = self.hushed.as_ref().filter(|(kind, _)| Message::decode(bytes).is_ok_and(|message| kind.covers(&message)));
        let deaf = hushed.map(|(_, deaf)| deaf.clone()).unwrap_or_default();
        for (place, to) in peers.into_iter().enumerate().filter(|(_, to)| !deaf.contains(to)) {
            let Some(bytes) = self.lie(from, place, bytes) else { continue };
            let Some(connection) = self.connections.get(&pair(from, to)).copied() else { continue };
            let copies = if !self.healed && self.network.chance(self.plan.duplication) { 2 } else { 1 };
            for _ in 0..copies {
                if let Some(delay) = self.hop(from, to) {
                    self.after(delay, What::Frame { from, to, connection, bytes: bytes.clone(), gossip: lane == Lane::Gossip });
                }
            }
        }
    }

    /// What a liar sends instead, to the peer at this place of its list; none for nothing.
    fn lie(&mut self, from: usize, place: usize, bytes: &Bytes) -> Option<Bytes> {
        let Some((_, lie)) = self.plan.byzantine.filter(|(liar, _)| *liar == from) else { return Some(bytes.clone()) };
        let Ok(message) = Message::decode(bytes) else { return Some(bytes.clone()) };
        let second_half = place % 2 == 1;
        if lie == Lie::TwoBlocks {
            return if second_half { self.second_block(from, message) } else { Some(bytes.clone()) };
        }
        let key = self.machines[from].key.as_ref().expect("the liar is a validator");
        let resigned = |mut vote: Vote| {
            vote.signature = key.sign(&vote.sign_bytes(&self.genesis.chain_id));
            Some(Message::Vote(vote).encode())
        };
        match (lie, message) {
            (Lie::Withhold, Message::Vote(_) | Message::Proposal { .. }) if second_half => None,
            (Lie::Equivocate, Message::Vote(vote)) if second_half => {
                let block_id = if vote.block_id.is_some() { None } else { Some(invented(self.liar.bits())) };
                resigned(Vote { block_id, valid_round: None, ..vote })
            }
            (Lie::ForgeValidRound, Message::Vote(vote)) if second_half && vote.block_id.is_some() && vote.round > Round::ZERO => {
                let valid_round = if vote.valid_round.is_some() { None } else { Round::new(vote.round.get() - 1) };
                match vote.kind {
                    lockstep_types::VoteType::Prevote => resigned(Vote { valid_round, ..vote }),
                    lockstep_types::VoteType::Precommit => Some(bytes.clone()),
                }
            }
            (Lie::Invent, Message::Vote(vote)) => resigned(Vote { block_id: Some(invented(self.liar.bits())), valid_round: None, ..vote }),
            (Lie::TwoProposals, Message::Proposal { mut proposal, .. }) if second_half => {
                proposal.block_id = invented(u64::from(proposal.round.get()) + proposal.height.get() * 1_000);
                proposal.signature = key.sign(&proposal.sign_bytes(&self.genesis.chain_id));
                Some(Message::Proposal { proposal, first: None }.encode())
            }
            (Lie::ForgeProposalRound, Message::Proposal { mut proposal, first }) if second_half && proposal.round > Round::ZERO => {
                proposal.pol_round = if proposal.pol_round.is_some() { None } else { Round::new(proposal.round.get() - 1) };
                proposal.signature = key.sign(&proposal.sign_bytes(&self.genesis.chain_id));
                Some(Message::Proposal { proposal, first }.encode())
            }
            (Lie::FarRounds, Message::Vote(vote)) if second_half => {
                let far = vote.round.get() + 1 + u32::try_from(self.liar.below(4)).expect("small");
                resigned(Vote { round: Round::new(far).expect("small"), block_id: None, valid_round: None, ..vote })
            }
            _ => Some(bytes.clone()),
        }
    }

    /// Of a proposal, the same with a block of another time; of a vote, the same for that block; both valid.
    fn second_block(&mut self, from: usize, message: Message) -> Option<Bytes> {
        let key = self.machines[from].key.as_ref().expect("the liar is a validator");
        let chain_id = &self.genesis.chain_id;
        let message = match message {
            Message::Proposal { mut proposal, first: Some(part) } if proposal.block_id.parts.total == 1 => {
                let mut block = Block::decode(&part.bytes).ok()?;
                block.header.time = block.header.time.saturating_add(Duration::from_millis(1));
                let (parts, cut) = lockstep_types::block::cut(&block.encode());
                let second = BlockId { hash: block.header.hash(), parts };
                self.second_blocks.insert(proposal.block_id, second);
                proposal.block_id = second;
                proposal.timestamp = block.header.time;
                proposal.signature = key.sign(&proposal.sign_bytes(chain_id));
                Message::Proposal { proposal, first: cut.into_iter().next() }
            }
            Message::Vote(mut vote) => {
                vote.block_id = vote.block_id.map(|block_id| self.second_blocks.get(&block_id).copied().unwrap_or(block_id));
                vote.signature = key.sign(&vote.sign_bytes(chain_id));
                Message::Vote(vote)
            }
            other => other,
        };
        Some(message.encode())
    }

    fn frame(&mut self, from: usize, to: usize, connection: u64, bytes: Bytes, gossip: bool) -> Outcome {
        if self.connections.get(&pair(from, to)) != Some(&connection) {
            return Ok(());
        }
        let life = self.machines[to].life;
        let peer = peer_number(connection, from, to);
        let input = if gossip { Input::Gossiped { peer, bytes } } else { Input::Received { peer, bytes } };
        self.input(to, life, input)
    }

    fn ask(&mut self, from: usize, from_life: u64, to: usize, job: JobId, connection: u64, bytes: Bytes) -> Outcome {
        if self.connections.get(&pair(from, to)) != Some(&connection) {
            return Ok(());
        }
        let life = self.machines[to].life;
        let Some(running) = self.alive(to, life) else { return Ok(()) };
        running.ask_count += 1;
        let ask = AskId(running.ask_count);
        running.asks.insert(ask, (from, from_life, job));
        self.input(to, life, Input::Asked { peer: peer_number(connection, from, to), ask, bytes })
    }

    fn connect(&mut self, a: usize, b: usize) -> Outcome {
        let thawed = self.machines[a].frozen_until.max(self.machines[b].frozen_until);
        if thawed > self.now {
            self.at(thawed, What::Connect { a, b });
            return Ok(());
        }
        let both = self.machines[a].running.is_some() && self.machines[b].running.is_some();
        if !both || self.connections.contains_key(&(a, b)) {
            return Ok(());
        }
        self.connection_count += 1;
        let connection = self.connection_count;
        self.connections.insert((a, b), connection);
        for (node, other) in [(a, b), (b, a)] {
            let life = self.machines[node].life;
            let validator: Option<PublicKey> = self.machines[other].key.as_ref().map(lockstep_types::PrivateKey::public_key);
            let peer = peer_number(connection, other, node);
            if let Some(running) = self.machines[node].running.as_mut() {
                running.peers.insert(peer, other);
            }
            self.input(node, life, Input::PeerUp { peer, validator })?;
        }
        Ok(())
    }

    fn disconnect(&mut self, a: usize, b: usize) -> Outcome {
        let Some(connection) = self.connections.remove(&(a, b)) else { return Ok(()) };
        for (node, other) in [(a, b), (b, a)] {
            let peer = peer_number(connection, other, node);
            let life = self.machines[node].life;
            if let Some(running) = self.machines[node].running.as_mut() {
                running.peers.remove(&peer);
                self.input(node, life, Input::PeerDown { peer })?;
            }
        }
        let delay = self.network.between(20 * MS, 600 * MS);
        self.after(delay, What::Connect { a, b });
        Ok(())
    }

    /// All but one node, or some, do not get one kind of message for a while.
    fn hush(&mut self) {
        self.hushed = None;
        if self.healed {
            return;
        }
        let n = self.machines.len();
        if self.stops.chance(700) {
            let kind = *self.stops.pick(&[Hushed::Prevotes, Hushed::Prevotes, Hushed::Precommits, Hushed::Proposals]);
            let spared = self.stops.place(n);
            let all = self.stops.chance(600);
            let deaf = (0..n).filter(|node| if all { *node != spared } else { self.stops.chance(500) }).collect();
            self.hushed = Some((kind, deaf));
            // Long enough for others to come to a later round without it.
            let lasts = self.stops.between(200 * MS, 4_000 * MS);
            // Who alone knows something is also who alone can forget it.
            if all && self.stops.chance(500) {
                let delay = self.stops.between(100 * MS, lasts / 2);
                self.after(delay, What::CrashOf { node: spared });
            }
            return self.after(lasts, What::Hush);
        }
        self.after_some(What::Hush);
    }

    fn partition(&mut self) {
        self.cut.clear();
        if self.healed {
            return;
        }
        let n = self.machines.len();
        match self.faults.below(4) {
            0 => {}
            1 => {
                let alone = self.faults.place(n);
                for other in 0..n {
                    self.cut.extend([(alone, other), (other, alone)]);
                }
            }
            2 => {
                let sides: Vec<bool> = (0..n).map(|_| self.faults.chance(500)).collect();
                for a in 0..n {
                    self.cut.extend((0..n).filter(|b| sides[a] != sides[*b]).map(|b| (a, b)));
                }
            }
            _ => {
                // One direction only.
                let (a, b) = (self.faults.place(n), self.faults.place(n));
                self.cut.insert((a, b));
            }
        }
        self.after_between(100, 2_500, What::Partition);
    }

    // --- faults ----------------------------------------------------------------------------------------------------

    fn crash_some(&mut self) -> Outcome {
        if self.healed {
            return Ok(());
        }
        let survivals = [Survival::All, Survival::None, Survival::Random, Survival::TornSectors, Survival::TornPages, Survival::Prefix];
        let survival = *self.faults.pick(&survivals);
        if self.plan.crash_all && (!self.plan.crashes || self.faults.chance(300)) {
            for node in 0..self.machines.len() {
                self.crash(node, survival)?;
            }
        } else {
            let node = self.faults.place(self.machines.len());
            self.crash(node, survival)?;
        }
        self.after_between(20, self.plan.crash_interval_ms, What::Crash);
        Ok(())
    }

    fn force_crash(&mut self, node: usize) -> Outcome {
        let Some(forced) =
            self.forced.filter(|forced| forced.node == node && forced.boundary == Boundary::Effect(self.machines[node].effects))
        else {
            return Ok(());
        };
        self.forced = None;
        if forced.all {
            (0..self.machines.len()).try_for_each(|node| self.crash(node, forced.survival))
        } else {
            self.crash(node, forced.survival)
        }
    }

    fn crash(&mut self, node: usize, survival: Survival) -> Outcome {
        self.machines[node].life += 1;
        self.machines[node].running = None;
        self.machines[node].frozen_until = 0;
        self.crashes += 1;
        self.trace(|| format!("node {node} crashes, unsynced writes: {survival:?}"));
        let seed = self.disks.bits();
        self.machines[node].disk.crash(survival, seed);
        for other in 0..self.machines.len() {
            if other != node {
                self.disconnect(node.min(other), node.max(other))?;
            }
        }
        let life = self.machines[node].life;
        let delay = self.faults.between(10 * MS, 1_500 * MS);
        self.after(delay, What::Restart { node, life });
        Ok(())
    }

    /// The end of chaos: a core of more than two thirds is made whole, and must now make progress.
    fn heal(&mut self) -> Outcome {
        if self.healed {
            return Ok(());
        }
        self.healed = true;
        self.cut.clear();
        self.hushed = None;
        self.core = self.choose_core();
        for node in 0..self.machines.len() {
            if !self.core.contains(&node) {
                if self.plan.leave_rest_broken && self.machines[node].running.is_some() {
                    self.crash(node, Survival::Random)?;
                }
                self.machines[node].retired = self.plan.leave_rest_broken;
                continue;
            }
            let most = self.plan.honest_offset();
            self.machines[node].clock = i64::try_from(self.faults.below(most + 1)).expect("offsets are small");
            if self.machines[node].running.is_none() {
                self.start(node)?;
            }
        }
        let running = || self.core.iter().filter_map(|node| self.machines[*node].running.as_ref());
        let highest_round = running().map(|running| running.replica.consensus().round().get()).max().unwrap_or(0);
        let heights: Vec<u64> = running().map(|running| running.replica.chain().height.get()).collect();
        let highest = heights.iter().max().copied().unwrap_or(0).max(self.checks.height());
        let lag = highest - heights.iter().min().copied().unwrap_or(0);
        self.goal = highest + self.plan.settle_blocks;
        // Clocks that ran ahead left blocks from the future: honest proposers wait for them.
        let ahead = 2 * self.plan.clock_offset;
        let core = self.core.clone();
        self.trace(|| format!("the faults stop for {core:?}"));
        // What came to a frozen machine comes when it would have thawed.
        let thawed = self.machines.iter().map(|machine| machine.frozen_until).max().unwrap_or(0).max(self.now);
        self.machines.iter_mut().for_each(|machine| machine.frozen_until = 0);
        self.deadline = thawed + self.plan.liveness_bound(highest_round, lag) + ahead;
        Ok(())
    }

    fn choose_core(&mut self) -> BTreeSet<usize> {
        let honest: Vec<usize> = (0..self.plan.powers.len()).filter(|node| self.is_honest(*node)).collect();
        if !self.plan.leave_rest_broken {
            return honest.into_iter().collect();
        }
        let total: u64 = self.plan.powers.iter().sum();
        let mut core: BTreeSet<usize> = BTreeSet::new();
        // Those who are broken for good are a third; who still lacks what it lost would be one more.
        let mut left: Vec<usize> = honest.into_iter().filter(|node| !self.is_rotten(*node)).collect();
        while core.iter().map(|node| self.plan.powers[*node]).sum::<u64>() * 3 <= total * 2 {
            let Some(place) = (!left.is_empty()).then(|| self.faults.place(left.len())) else { break };
            core.insert(left.swap_remove(place));
        }
        core
    }

    fn submit(&mut self) -> Outcome {
        if self.healed && self.now > self.deadline {
            return Ok(());
        }
        let node = self.work.place(self.machines.len());
        self.txs += 1;
        self.requests += 1;
        let awake = self.machines[node].frozen_until <= self.now;
        let tx = format!("key{}={}-{}", self.work.below(40), self.seed, self.txs).into_bytes();
        if awake && self.machines[node].running.is_some() {
            self.checks.submitted(&tx);
            let life = self.machines[node].life;
            let request = RequestId(self.requests);
            self.input(node, life, Input::Submit { request, tx: Arc::from(tx), wait: Wait::Commit })?;
        }
        let delay = self.work.between(MS, 2 * self.plan.tx_interval);
        self.after(delay, What::Submit);
        Ok(())
    }
}

fn violation(invariant: &'static str, what: String) -> Outcome {
    Err(Violation { invariant, what })
}

/// Neither the liar, nor one of twins.
fn is_honest(plan: &Plan, node: usize) -> bool {
    let twin = plan.powers.len() + plan.followers;
    plan.byzantine.is_none_or(|(liar, _)| liar != node) && plan.twins.is_none_or(|twins| twins.node != node && node != twin)
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// The number that `to` knows its connection with `from` by.
fn peer_number(connection: u64, from: usize, to: usize) -> Peer {
    Peer(2 * connection + u64::from(from > to))
}

/// The name of a block that does not exist.
fn invented(bits: u64) -> BlockId {
    let hash = Hash::of(bits.to_le_bytes());
    BlockId { hash, parts: PartSetHeader { total: 1, hash: Hash::of(hash.0) } }
}

/// A height that is written in failures.
pub(crate) fn height_text(height: u64) -> String {
    Height::new(height).map_or_else(|| "?".to_owned(), |height| height.to_string())
}
