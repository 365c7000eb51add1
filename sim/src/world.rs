//! The simulated world: an event heap, links, clocks, crashes, and liars. Everything is drawn from the seed.
//!
//! Here is what it consists of and how its time goes; [`effects`] is what nodes do in it, [`network`] how frames travel,
//! [`faults`] what goes wrong, and [`byzantine`] what liars say.

mod audit;
mod budget;
mod byzantine;
mod disks;
mod drawing;
mod effects;
mod events;
mod faults;
mod healing;
mod judged;
mod keeping;
mod members;
mod network;
mod proofs;
mod report;
mod syncing;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::{Host, Kv};
use lockstep_genesis::Genesis;
use lockstep_replica::Input;
use lockstep_replica::planted::Planted;
use lockstep_replica::seam::{Peer, RequestId, Wait};
use lockstep_types::block::PartSetHeader;
use lockstep_types::{Address, BlockId, Hash, Height, PrivateKey, PublicKey, ValidatorIndex};
use sha2::{Digest as _, Sha256};

use crate::Look;
use crate::checks::{Checks, Violation};
use crate::coverage::Coverage;
use crate::crypto::Crypto;
use crate::disk::{self, Survival, When};
use crate::history::History;
use crate::node::{Machine, SnapshotRoots};
use crate::plan::{MS, Plan};
use crate::random::{Stream, Streams};
use crate::schedule::{Schedule, Timed};
use crate::subject::{Subject, Watch};
use crate::trace::{Line, Told};
use crate::votes::Votes;
use crate::world::byzantine::Liars;
pub(crate) use crate::world::byzantine::Tally;
use crate::world::events::{Clogging, Cutting, Deafness, Eclipse, Event, Events, What};
use crate::world::faults::{Cause, Outage};
use crate::world::network::Links;
pub(crate) use crate::world::report::{Failure, Ran, Report1};

/// How long a request waits for its answer.
const REQUEST_NS: u64 = 2_000 * MS;
/// More nodes than any network has: the streams of links are numbered by it.
const NODES_MAX: usize = 32;

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
    /// A second one, so many operations of its disk after that, when, and what unsynced writes become then.
    pub(crate) then: Option<(u64, When, Survival)>,
}

/// A place in a node's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// After this many of its effects.
    Effect(u64),
    /// At this operation of its disk: before it, in the middle of it, or after it and before anybody hears of it.
    Operation(u64, When),
}

pub(crate) struct World {
    subject: Subject,
    /// What the hosts of all nodes share.
    host: Host,
    snapshot_roots: SnapshotRoots,
    /// What all nodes saw of their application.
    watch: Watch,
    history: History,
    /// Who looks on from outside.
    look: Look,
    /// Rounds that honest proposers led after the faults had ended, and those of them that decided.
    led: (u64, u64),
    /// Who did something last.
    acting: Option<usize>,
    /// When a frame that is on its way was sent, where there is a trace.
    flights: BTreeMap<(usize, usize, Bytes), u64>,
    readers: Stream,
    plan: Plan,
    seed: u64,
    genesis: Genesis,
    planted: Planted,
    forced: Option<ForcedCrash>,
    now: u64,
    events: Events,
    sequence: u64,
    machines: Vec<Machine>,
    /// By pair, lower first: the number of their connection.
    connections: BTreeMap<(usize, usize), u64>,
    connection_count: u64,
    /// What nodes do not get.
    deafness: Vec<Deafness>,
    /// Who does not hear whom.
    cuts: Vec<Cutting>,
    /// Who holds what is sent.
    clogs: Vec<Clogging>,
    /// Who loses its connections.
    eclipses: Vec<Eclipse>,
    /// What a machine does that stops at an operation of its disk.
    outages: BTreeMap<usize, Outage>,
    /// The validators' places in their set, by node.
    indices: Vec<ValidatorIndex>,
    checks: Checks,
    votes: Votes,
    /// What happened, a line each, where somebody wants to read it.
    trace: Option<Vec<Line>>,
    first_operation: u64,
    /// Whose steps are counted.
    watched: usize,
    longest_start: u64,
    crashes_while_starting: u64,
    halts: u64,
    refused_starts: u64,
    /// Copies of all disks, and when they were made.
    copies: Vec<(u64, Vec<disk::SimDisk>)>,
    losses: u64,
    /// Nodes that found that their memory is older than what they said.
    clones: u64,
    /// What validators signed that were put back to an older copy, against what they had signed.
    doubts: u64,
    /// Runs that stop because every good copy of a block is gone.
    justified: bool,
    /// What was asked of the chain and may be granted.
    pending: budget::Pending,
    /// Snapshots that were installed.
    restored: u64,
    /// Every copy of something may be gone.
    is_beyond: bool,
    /// Over every input, where two runs are compared.
    digest: Option<Sha256>,
    crypto: Crypto,
    processed: u64,
    crashes: u64,
    heals: u64,
    /// Questions that a node would not let wait, by node and by who asked.
    late_questions: BTreeMap<(usize, usize), u32>,
    /// Faults that happened, in order.
    struck: Vec<Timed>,
    /// Faults to happen, of a run that follows a list.
    following: Option<Vec<Timed>>,
    follows: bool,
    coverage: Coverage,
    /// The end of faults has a time.
    heal_is_due: bool,
    healed: bool,
    /// When the faults ended; later than anything before.
    healed_at: u64,
    core: BTreeSet<usize>,
    deadline: u64,
    goal: u64,
    txs: u64,
    requests: u64,
    /// By the order of [`Cause::ALL`].
    dice: Vec<Stream>,
    links: Links,
    dials: Streams,
    disks: Streams,
    jobs: Streams,
    scheduler: Stream,
    work: Stream,
    liars: Liars,
    proofs: proofs::Proofs,
    audit: audit::Audit,
}

pub(crate) use audit::Astray;
pub(crate) use disks::Ailing;

type Outcome = Result<(), Violation>;

impl World {
    /// Of the bundled application.
    #[cfg(test)]
    pub(crate) fn new(seed: u64, plan: Plan, planted: Planted, forced: Option<ForcedCrash>) -> Self {
        Self::of(&Subject::default(), seed, plan, planted, forced)
    }

    /// Of this application.
    pub(crate) fn of(subject: &Subject, seed: u64, plan: Plan, planted: Planted, forced: Option<ForcedCrash>) -> Self {
        let (genesis, keys) = crate::keys::genesis(&plan, &subject.app_state);
        let mut clocks = Streams::new(seed, "clock");
        let mut offset = |node: usize| clocks.of(node).around_zero(plan.clock_offset.max(plan.honest_offset()));
        let hash = genesis.hash();
        let powers = keys.iter().zip(&plan.powers).map(|(key, power)| (key.public_key().address(), *power)).collect();
        let mut machines: Vec<Machine> =
            keys.into_iter().enumerate().map(|(node, key)| Machine::new(Some(key), offset(node), hash, plan.keeps_results())).collect();
        let candidates = (0..plan.followers).map(|place| crate::keys::candidate(&plan, plan.powers.len() + place));
        machines.extend(candidates.map(|key| Machine::new(key, 0, hash, plan.keeps_results())));
        if let Some(twins) = plan.twins {
            let key = machines[twins.node].key.as_ref().map(|key| PrivateKey::from_seed(&key.seed()));
            machines.push(Machine::new(key, 0, hash, plan.keeps_results()));
            for twin in [twins.node, machines.len() - 1] {
                machines[twin].watches_key = !twins.deny;
            }
        }
        for (node, machine) in machines.iter_mut().enumerate() {
            machine.segment_bytes = plan.segment_bytes;
            machine.keeps_all = plan.keep.blocks == 0;
            machine.drift_ppm = clocks.of(node).around_zero(plan.drift_ppm);
        }
        // Who votes, or may come to.
        let keys = machines.iter().take(plan.validators_max()).filter_map(|machine| machine.key.as_ref());
        let keys: Vec<PublicKey> = keys.map(PrivateKey::public_key).collect();
        let addresses: Vec<Address> = keys.iter().take(plan.powers.len()).map(PublicKey::address).collect();
        let voters = 0..plan.validators_max();
        let honest = voters.clone().map(|node| is_honest(&plan, node)).collect();
        let voters: Vec<Address> = voters.filter_map(|node| machines[node].key.as_ref()).map(|key| key.public_key().address()).collect();
        let first_powers: Vec<u64> = (0..voters.len()).map(|node| plan.powers.get(node).copied().unwrap_or(0)).collect();
        let indices = indices(&plan.powers, &addresses);
        let first_operation = machines[0].disk.operations();
        if let Some(ForcedCrash { node, boundary: Boundary::Operation(operation, when), .. }) = forced {
            machines[node].disk.fault_at(operation, disk::Fault::Stop(when), seed ^ operation);
        }
        Self {
            subject: subject.clone(),
            host: Host::new(Arc::new(Kv)),
            snapshot_roots: SnapshotRoots::default(),
            watch: Watch::default(),
            history: History::default(),
            look: Look::default(),
            led: (0, 0),
            acting: None,
            flights: BTreeMap::new(),
            readers: Stream::new(seed, "readers"),
            votes: Votes::new(&voters, &first_powers, honest),
            liars: Liars::new(seed, &plan, &keys, &first_powers),
            proofs: proofs::Proofs::default(),
            audit: audit::Audit::default(),
            first_operation,
            watched: 0,
            longest_start: 0,
            crashes_while_starting: 0,
            halts: 0,
            refused_starts: 0,
            copies: Vec::new(),
            losses: 0,
            clones: 0,
            doubts: 0,
            justified: false,
            is_beyond: false,
            pending: budget::Pending::default(),
            restored: 0,
            trace: None,
            seed,
            genesis,
            planted,
            forced,
            now: 0,
            events: Events::default(),
            sequence: 0,
            machines,
            connections: BTreeMap::new(),
            connection_count: 0,
            deafness: Vec::new(),
            cuts: Vec::new(),
            clogs: Vec::new(),
            eclipses: Vec::new(),
            outages: BTreeMap::new(),
            indices,
            checks: Checks::new(powers, subject, &plan),
            digest: None,
            crypto: Crypto::new(plan.real_keys),
            processed: 0,
            crashes: 0,
            heals: 0,
            late_questions: BTreeMap::new(),
            struck: Vec::new(),
            following: None,
            follows: false,
            coverage: Coverage::default(),
            heal_is_due: false,
            healed: false,
            healed_at: u64::MAX,
            core: BTreeSet::new(),
            deadline: u64::MAX,
            goal: u64::MAX,
            txs: 0,
            requests: 0,
            dice: Cause::ALL.map(|cause| Stream::new(seed, cause.label())).into(),
            links: Links::new(seed),
            dials: Streams::new(seed, "dial"),
            disks: Streams::new(seed, "disk"),
            jobs: Streams::new(seed, "jobs"),
            scheduler: Stream::new(seed, "scheduler"),
            work: Stream::new(seed, "workload"),
            plan,
        }
    }

    /// Keeps a line for everything that matters.
    pub(crate) fn traced(mut self) -> Self {
        self.trace = Some(Vec::new());
        let plan = format!("{:?}", self.plan);
        self.tell(None, Told::Plan, || plan);
        self
    }

    /// Takes the faults from a list, and rolls none of the dice that draw them. One that was recorded for this seed and plan
    /// gives the same run again.
    pub(crate) fn following(mut self, faults: Vec<Timed>) -> Self {
        self.following = Some(faults);
        self.follows = true;
        self
    }

    /// Counts the steps of another node than the first.
    pub(crate) fn watching(mut self, node: usize) -> Self {
        self.watched = node;
        self.first_operation = self.machines[node].disk.operations();
        self
    }

    /// Has somebody look on from outside.
    pub(crate) fn looked_at(self, look: Look) -> Self {
        Self { look, ..self }
    }

    /// Sums up every input, to be compared with another run.
    pub(crate) fn digested(mut self) -> Self {
        self.digest = Some(Sha256::new());
        self
    }

    /// Something that happened to nobody in particular.
    fn trace(&mut self, line: impl FnOnce() -> String) {
        self.tell(None, Told::Fault, line);
    }

    /// Runs to the end.
    pub(crate) fn run(mut self) -> Ran {
        let outcome = self.live();
        let trace = self.trace.take().unwrap_or_default();
        let faults = std::mem::take(&mut self.struck);
        let schedule = Schedule { seed: self.seed, plan: self.plan.clone(), faults };
        let coverage = std::mem::take(&mut self.coverage);
        Ran { outcome: self.report_of(outcome), trace, schedule, coverage }
    }

    /// Runs to the end; then the power fails. What a node is left with.
    #[cfg(test)]
    pub(crate) fn home_of(mut self, node: usize) -> (Genesis, Machine) {
        self.live().expect("the run holds");
        let machine = self.machines.swap_remove(node);
        machine.disk.crash(Survival::None, 0);
        (self.genesis, Machine { running: None, ..machine })
    }

    fn live(&mut self) -> Outcome {
        for node in 0..self.machines.len() {
            let started = self.start(node);
            self.watch.verdict().and(started)?;
        }
        self.at(0, What::Submit);
        self.first_at(MS, What::Query);
        self.begin_faults();
        self.begin_copies();
        while let Some(event) = self.events.pop() {
            self.now = event.at;
            self.processed += 1;
            if self.processed > self.plan.events_max() {
                return violation("I19", format!("{} events in {} ms", self.processed, self.now / MS));
            }
            let happened = self.happen(event.what);
            // Of two chains, one breaks whatever is asked of the other; who made them is what is asked then.
            let happened = if self.liars.tally.fork.is_some() { Ok(()) } else { happened };
            // What is wrong with the application is the reason of whatever else is.
            self.watch.verdict().and(happened).or_else(|broken| if self.pending.is_void { Ok(()) } else { Err(broken) })?;
            if self.pending.is_void {
                return self.nobody_honest_is_accused();
            }
            if let Some(Err(what)) = self.look.0.as_ref().map(|look| look(self.machines.len())) {
                return violation("I11", what);
            }
            if self.is_over() && (self.healed || self.liars.tally.fork.is_some()) {
                return self.nobody_honest_is_accused();
            }
            if self.healed && self.has_settled() {
                return self.finish();
            }
            if self.now > self.deadline && self.has_reason_to_stand_still() {
                self.justified = true;
                return self.checks.settled();
            }
            if self.now > self.deadline {
                return self.late();
            }
        }
        violation("I7", "nothing happens any more".into())
    }

    fn at(&mut self, at: u64, what: What) {
        self.sequence += 1;
        // Never 0: those go first.
        let tie = self.scheduler.bits() | 1;
        self.events.push(Event { at, tie, sequence: self.sequence, what });
    }

    fn after(&mut self, delay: u64, what: What) {
        self.at(self.now + delay, what);
    }

    /// Before everything else of its nanosecond, in the order in which this is called.
    fn first_at(&mut self, at: u64, what: What) {
        self.sequence += 1;
        self.events.push(Event { at, tie: 0, sequence: self.sequence, what });
    }

    fn happen(&mut self, what: What) -> Outcome {
        let thawed = what.target().map_or(0, |node| self.machines[node].frozen_until);
        if thawed > self.now {
            self.at(thawed, what);
            return Ok(());
        }
        if let Some(moves) = what.syncs().map(|node| self.machines[node].ailing.stalled_until).filter(|moves| *moves > self.now) {
            self.at(moves, what);
            return Ok(());
        }
        match what {
            What::Input { node, life, input } => self.input(node, life, *input),
            What::LogSync { node, life } => self.log_sync(node, life),
            What::GuardSync { node, life } => self.guard_sync(node, life),
            What::Job { node, life, effect } => self.job(node, life, *effect),
            What::Execute { node, life } => match self.alive(node, life).and_then(|running| running.to_execute.pop_front()) {
                Some(effect) => self.job(node, life, effect),
                None => Ok(()),
            },
            What::Frame { from, to, connection, bytes, gossip } => self.frame(from, to, connection, bytes, gossip),
            What::Ask { from, from_life, to, job, connection, bytes } => self.ask(from, from_life, to, job, connection, bytes),
            What::Connect { a, b } => self.connect(a, b),
            What::Wake(cause) => self.wake(cause),
            What::Strike(fault) => self.strike(*fault),
            What::Restart { node, life } => {
                let machine = &self.machines[node];
                if machine.life == life && machine.running.is_none() && !machine.retired { self.start(node) } else { Ok(()) }
            }
            What::Copy => {
                self.copy_disks();
                Ok(())
            }
            What::Room { node } => {
                self.room(node);
                Ok(())
            }
            What::News { node, life } => {
                if self.alive(node, life).is_some() {
                    self.publish(node)
                } else {
                    Ok(())
                }
            }
            What::Keep { node, life, state } => self.keep(node, life, state),
            What::Help { node, life } => self.help(node, life),
            What::LieEnds { node, outage } => self.lie_ends(node, outage),
            What::Submit => self.submit(),
            What::Query => self.query(),
        }
    }

    /// A validator whose folder was put back to an older copy does not know what it said, and counts among the dishonest.
    fn is_honest(&self, node: usize) -> bool {
        is_honest(&self.plan, node) && !self.machines[node].ailing.is_restored()
    }

    /// Clients of a chain that waits for its clocks, after the faults, ask less and less, half as often every ten seconds: nothing is
    /// learnt from hours of them, and each round repeats all that they asked for.
    fn patience(&self) -> u64 {
        1 << (self.now.saturating_sub(self.healed_at) / (10_000 * MS)).min(12)
    }

    fn submit(&mut self) -> Outcome {
        if self.healed && self.now > self.deadline {
            return Ok(());
        }
        let node = self.work.place(self.machines.len());
        self.txs += 1;
        self.requests += 1;
        let awake = self.machines[node].frozen_until <= self.now;
        let tx = self.subject.transaction(&mut self.work, self.seed, self.txs, &self.genesis);
        if awake && self.machines[node].running.is_some() {
            self.checks.submitted(&tx);
            self.history.called(Hash::of(&tx));
            // Who is behind catches up first, who is not connected yet tells nobody, and blocks may come every few milliseconds.
            let is_awake = self.machines[node].owes_until <= self.now;
            let is_in_step = is_awake && self.checks.told(node) + 2 >= self.checks.height();
            let is_connected = |other: &usize| *other == node || self.connections.contains_key(&pair(node, *other));
            let is_whole = self.healed && self.core.contains(&node) && self.core.iter().all(is_connected);
            if is_whole && is_in_step && !self.subject.holds_back {
                self.history.held(node, Hash::of(&tx), self.now);
            }
            let life = self.machines[node].life;
            let request = RequestId(self.requests);
            self.input(node, life, Input::Submit { request, tx: Arc::from(tx), wait: Wait::Commit })?;
        }
        let delay = self.work.between(MS, 2 * self.plan.tx_interval) * self.patience();
        self.after(delay, What::Submit);
        Ok(())
    }
}

fn violation(invariant: &'static str, what: String) -> Outcome {
    Err(Violation { invariant, what })
}

/// Neither a liar, nor one of twins.
fn is_honest(plan: &Plan, node: usize) -> bool {
    let twin = plan.powers.len() + plan.followers;
    !plan.byzantine.lies(node) && plan.twins.is_none_or(|twins| twins.node != node && node != twin)
}

/// Each node's place in the validator set: by power, the largest first, and then by address.
fn indices(powers: &[u64], addresses: &[Address]) -> Vec<ValidatorIndex> {
    let mut nodes: Vec<usize> = (0..powers.len()).collect();
    nodes.sort_by_key(|node| (Reverse(powers[*node]), addresses[*node]));
    (0..powers.len())
        .map(|node| ValidatorIndex::from_position(nodes.iter().position(|other| *other == node).expect("each is there")))
        .collect()
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
