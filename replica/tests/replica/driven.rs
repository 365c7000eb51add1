//! A single validator driven by hand: real files, a real executor, and every answer in an order that a seed decides. The
//! three orders are read off what started when; a restart goes on from what is on disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lockstep_app::CheckKind;
use lockstep_genesis::Genesis;
use lockstep_mempool::{Limits, TxBytes};
use lockstep_replica::check::{build, check};
use lockstep_replica::execution::Executor;
use lockstep_replica::recovery::{Recovered, decided, recover};
use lockstep_replica::seam::{LogRecord, Mono, Reply, Report, RequestId, Ticket, Timer, Wait, Write};
use lockstep_replica::signing::{Me, Remembered, guard_owner};
use lockstep_replica::{Config, Effect, Fence, Input, Now, Replica};
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record};
use lockstep_storage::state::{Change, StateDb};
use lockstep_types::crypto::verify_batch;
use lockstep_types::domain::OWN_PREFIX;
use lockstep_types::state_tree::Path;
use lockstep_types::{Height, Signature};

use crate::support::*;

/// What started or ended, in order.
enum Event {
    Started(Effect),
    Durable(Ticket),
    Executed(Height),
}

/// One validator and its files.
struct Node {
    replica: Replica,
    fence: Fence,
    executor: Executor,
    log: BlockLog,
    guard: Guard,
    db: StateDb,
    /// Writes under way, one queue for each file.
    log_queue: VecDeque<(Ticket, Write)>,
    guard_queue: VecDeque<(Ticket, Write)>,
    answers: Vec<Input>,
    timers: BTreeMap<(Mono, usize), Timer>,
    now: Mono,
    /// How far its wall clock is behind what it was.
    behind: Duration,
    random: u64,
    events: Vec<Event>,
    /// Executed during recovery.
    replayed: Vec<Height>,
}

fn open(dir: &std::path::Path, genesis: &Genesis, seed: u64) -> Node {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir).unwrap());
    let genesis_hash = genesis.hash();
    let (log, _) = BlockLog::open(disk.clone(), "log", LogOptions { salt: [3; 32], segment_bytes: 1 << 16 }).unwrap();
    let owner = guard_owner(&genesis_hash, &key(1).public_key());
    let guard = match Guard::open(&*disk, "guard", owner.0) {
        Ok(guard) => guard,
        Err(_) => Guard::create(&*disk, "guard", GuardRecord::initial(owner.0)).unwrap(),
    };
    let mut db = StateDb::open(&*disk, "state").unwrap();
    let mut replayed = Vec::new();
    let Recovered { restored, executor } = recover(host(), genesis, &log.reader(), &mut db, Some(&guard), |_, outcome, chain| {
        assert_eq!(outcome.app_hash, chain.app_hash);
        replayed.push(outcome.height);
        Ok(())
    })
    .unwrap();
    let public_key = key(1).public_key();
    let config = Config {
        genesis_hash,
        me: Some(Me { public_key, address: public_key.address() }),
        watches_key: true,
        mempool: Limits::default(),
        flush_keys: 1_000,
        flush_blocks: 3,
        planted: Default::default(),
    };
    let mut node = Node {
        replica: Replica::new(config, restored),
        fence: Fence::new(),
        executor,
        log,
        guard,
        db,
        log_queue: VecDeque::new(),
        guard_queue: VecDeque::new(),
        answers: Vec::new(),
        timers: BTreeMap::new(),
        now: Mono(0),
        behind: Duration::ZERO,
        random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        events: Vec::new(),
        replayed,
    };
    let effects = node.replica.start(node.clocks());
    node.admit(effects);
    node
}

impl Node {
    /// The wall clock begins a day after genesis, whichever run this is.
    fn clocks(&self) -> Now {
        let wall = at(1_767_409_445, 0).saturating_add(Duration::from_nanos(self.now.0)).saturating_sub(self.behind);
        Now { mono: self.now, wall }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % bound as u64).unwrap()
    }

    fn step(&mut self, input: Input) {
        let effects = self.replica.step(self.clocks(), input);
        self.admit(effects);
    }

    fn admit(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Some(effect) = self.fence.admit(effect) {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        self.events.push(Event::Started(effect.clone()));
        let (host, state) = (self.executor.host(), self.executor.state());
        match effect {
            Effect::Verify { job, checks } => self.answers.push(Input::Verified { job, verdicts: verify_batch(&checks) }),
            Effect::Sign { job, bytes, .. } => {
                let signature: Signature = key(1).sign(&bytes);
                self.answers.push(Input::Signed { job, signature: Some(signature) });
            }
            Effect::Persist { ticket, write: write @ Write::Log(_), .. } => self.log_queue.push_back((ticket, write)),
            Effect::Persist { ticket, write, .. } => self.guard_queue.push_back((ticket, write)),
            Effect::Build { job, build: request } => {
                self.answers.push(Input::Built { job, built: Box::new(build(host, state, &request)) });
            }
            Effect::Check { job, check: request } => self.answers.push(Input::Checked { job, verdict: check(host, state, &request) }),
            Effect::Judge { job, mut evidence, chain, complete } => {
                let verdict = self.executor.judge(&mut evidence, &chain, complete, &mut verify_batch);
                self.answers.push(Input::Judged { job, evidence, verdict });
            }
            Effect::CheckTxs { job, txs, recheck } => {
                let kind = if recheck { CheckKind::Recheck } else { CheckKind::New };
                let verdicts = txs.iter().map(|tx| host.check_tx(state, tx, kind)).collect();
                self.answers.push(Input::TxsChecked { job, verdicts });
            }
            Effect::Execute { job, execute } => {
                let outcome = self.executor.execute(&execute).map(Box::new).map_err(|error| error.to_string());
                self.answers.push(Input::Executed { job, outcome });
            }
            Effect::Flush { height, chain, .. } => {
                let batch = self.executor.take_flush(height);
                let changes: Vec<_> = batch.changes.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
                let changes = changes.iter().map(|(path, key, value)| Change { path: path.0, key, value: value.map(|value| &value[..]) });
                self.db.flush(height.get(), changes, &chain.encode()).unwrap();
                self.answers.push(Input::Flushed { height });
            }
            Effect::SetTimer { at, timer } => drop(self.timers.insert((at, self.events.len()), timer)),
            Effect::Halt { reason } => panic!("{reason}"),
            Effect::Request { .. } | Effect::Respond { .. } | Effect::Read { .. } | Effect::Stage { .. } | Effect::Reopen { .. } => {
                unreachable!("nobody is connected")
            }
            Effect::Heal { finding } => panic!("{}", finding.what()),
            Effect::Send { .. } | Effect::Reply { .. } | Effect::Report { .. } | Effect::Disconnect { .. } => {}
        }
    }

    /// One thing more happens; which, the seed decides. Timers run out only when nothing else is under way.
    fn turn(&mut self) {
        let writes = usize::from(!self.log_queue.is_empty()) + usize::from(!self.guard_queue.is_empty());
        let choices = self.answers.len() + writes;
        if choices == 0 {
            let ((at, _), timer) = self.timers.pop_first().expect("a replica always waits for something");
            self.now = self.now.max(at);
            self.step(Input::TimedOut(timer));
            return;
        }
        let choice = self.below(choices);
        if choice < self.answers.len() {
            let answer = self.answers.remove(choice);
            if let Input::Executed { outcome: Ok(outcome), .. } = &answer {
                self.events.push(Event::Executed(outcome.height));
            }
            self.step(answer);
            return;
        }
        let of_log = !self.log_queue.is_empty() && (self.guard_queue.is_empty() || choice == self.answers.len());
        let (ticket, write) = if of_log { self.log_queue.pop_front() } else { self.guard_queue.pop_front() }.unwrap();
        match write {
            Write::Log(records) => {
                for record in records {
                    let LogRecord { kind, height, round, block_hash, payload } = record;
                    let record = Record { kind, height: height.get(), round: round.get(), block_hash: block_hash.0, payload: &payload };
                    self.log.append(record).unwrap();
                }
                self.log.sync().unwrap();
            }
            Write::Guard(record) => self.guard.write(&record).unwrap(),
            Write::GuardFloor(height) => self.guard.resume_above(height.get()).unwrap(),
        }
        self.events.push(Event::Durable(ticket));
        let released = self.fence.durable(ticket);
        released.into_iter().for_each(|effect| self.perform(effect));
        self.step(Input::Durable { ticket });
    }

    fn run_to(&mut self, height: u64) {
        for _ in 0..20_000 {
            if self.replica.chain().height.get() >= height {
                return;
            }
            self.turn();
        }
        panic!("height {height} is not reached");
    }

    fn submit(&mut self, request: u64, tx: &str, wait: Wait) {
        self.step(Input::Submit { request: RequestId(request), tx: TxBytes::from(tx.as_bytes()), wait });
    }

    fn committed(&self) -> Vec<(u64, Height)> {
        let reply = |event: &Event| match event {
            Event::Started(Effect::Reply { request, reply: Reply::Committed { height, .. }, .. }) => Some((request.0, *height)),
            _ => None,
        };
        self.events.iter().filter_map(reply).collect()
    }

    /// Reads the three orders off the events, from what was written and not from the tickets that were asked for.
    fn check_orders(&self) -> Seen {
        let mut seen = Seen::default();
        let mut writes: BTreeMap<Ticket, Write> = BTreeMap::new();
        let mut durable: Vec<&Write> = Vec::new();
        let mut executed = Vec::new();
        let on_disk = |durable: &[&Write], wanted: &dyn Fn(&LogRecord) -> bool| {
            durable.iter().any(|write| matches!(write, Write::Log(records) if records.iter().any(wanted)))
        };
        for event in &self.events {
            if let Event::Started(Effect::Persist { ticket, write, .. }) = event {
                writes.insert(*ticket, write.clone());
            }
        }
        for event in &self.events {
            match event {
                Event::Durable(ticket) => durable.push(&writes[ticket]),
                Event::Executed(height) => executed.push(*height),
                Event::Started(Effect::Persist { write: Write::Guard(record), .. }) => {
                    let remembered = Remembered::from_record(record, &chain_id()).unwrap().unwrap();
                    if let Some(lock) = &remembered.lock {
                        let hash = lock.block_id.hash;
                        let body = |record: &LogRecord| record.kind == Kind::Body && record.block_hash == hash;
                        assert!(on_disk(&durable, &body), "order 1: a lock whose body is not durable");
                        seen.locks += 1;
                    }
                    let before = record.height - 1;
                    let decision = |record: &LogRecord| record.kind == Kind::Decision && record.height.get() == before;
                    if before > self.replayed_to() {
                        assert!(
                            on_disk(&durable, &decision),
                            "order 2: a guard record of {} before the decision of {before}",
                            record.height
                        );
                        seen.after_decision += 1;
                    }
                }
                // Statements are no votes, and wait for nothing.
                Event::Started(Effect::Sign { bytes, .. }) if bytes[0] != OWN_PREFIX => {
                    let recorded = durable.iter().any(|write| matches!(write, Write::Guard(record) if record.sign_bytes == *bytes));
                    seen.signed += usize::from(recorded);
                    seen.said_again += usize::from(!recorded);
                }
                Event::Started(Effect::Reply { reply: Reply::Committed { height, .. }, .. }) => {
                    let decision = |record: &LogRecord| record.kind == Kind::Decision && record.height == *height;
                    assert!(on_disk(&durable, &decision), "order 3: an answer before the decision is durable");
                    assert!(executed.contains(height), "order 3: an answer before the block is executed");
                    seen.replies += 1;
                }
                Event::Started(Effect::Report { report: Report::Committed { block, .. }, .. }) => {
                    let decision = |record: &LogRecord| record.kind == Kind::Decision && record.height == block.header.height;
                    assert!(on_disk(&durable, &decision), "readers see what is not durable");
                }
                Event::Started(Effect::Flush { height, .. }) => {
                    let decision = |record: &LogRecord| record.kind == Kind::Decision && record.height == *height;
                    assert!(on_disk(&durable, &decision), "the database is ahead of the log");
                    seen.flushes += 1;
                }
                Event::Started(_) => {}
            }
        }
        seen
    }

    /// The tip that was on disk when this run began.
    fn replayed_to(&self) -> u64 {
        let first = self.events.iter().find_map(|event| match event {
            Event::Executed(height) => Some(height.get() - 1),
            _ => None,
        });
        first.unwrap_or(u64::MAX)
    }
}

/// How often each order was put to the test.
#[derive(Debug, Default)]
struct Seen {
    locks: usize,
    after_decision: usize,
    signed: usize,
    said_again: usize,
    replies: usize,
    flushes: usize,
}

#[test]
fn a_validator_alone_commits_in_the_three_orders() {
    let genesis = genesis(1);
    for seed in 1..=12 {
        let dir = tempfile::tempdir().unwrap();
        let mut node = open(dir.path(), &genesis, seed);
        node.submit(1, "a=1", Wait::Commit);
        node.submit(2, "b=2", Wait::Check);
        node.submit(3, "nonsense", Wait::Commit);
        node.run_to(2);
        node.submit(4, "c=3", Wait::Commit);
        node.run_to(6);
        while node.committed().len() < 2 {
            node.turn();
        }
        let committed = node.committed();
        assert_eq!(committed.iter().map(|(request, _)| *request).collect::<Vec<_>>(), [1, 4], "seed {seed}");
        let seen = node.check_orders();
        assert!(seen.locks >= 5 && seen.after_decision >= 10 && seen.replies == 2 && seen.flushes >= 1, "seed {seed}: {seen:?}");
        assert!(seen.signed >= 15 && seen.said_again == 0, "seed {seed}: {seen:?}");
        let checked = node.events.iter().filter_map(|event| match event {
            Event::Started(Effect::Reply { request, reply: Reply::Checked { verdict, .. }, .. }) => {
                Some((request.0, verdict.as_ref().map(|verdict| verdict.code == 0)))
            }
            _ => None,
        });
        let mut checked: Vec<_> = checked.collect();
        checked.sort_unstable();
        assert_eq!(checked, [(2, Some(true)), (3, Some(false))], "seed {seed}");
    }
}

/// While its clock is behind its last block, it finds each of its own blocks too early. What it keeps of rounds that went by does not grow
/// with them, and when the clock is there it goes on.
#[test]
fn rounds_in_which_a_clock_is_behind_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = open(dir.path(), &genesis(1), 5);
    node.submit(1, "a=1", Wait::Check);
    node.run_to(2);
    node.behind = Duration::from_secs(3_600);
    let height = node.replica.chain().height;
    let most = usize::try_from(lockstep_consensus::ROUNDS_BEHIND_MAX).unwrap() + 2;
    let mut held = 0;
    while node.replica.consensus().round().get() < 2 * lockstep_consensus::ROUNDS_BEHIND_MAX {
        node.turn();
        held = held.max(node.replica.rounds_proposed());
    }
    // A decision may have been on its way.
    assert!(node.replica.chain().height <= height.next(), "no block is timely");
    assert!((most / 2..=most).contains(&held), "of {held} rounds");
    node.behind = Duration::ZERO;
    node.run_to(height.get() + 3);
}

/// Stopped anywhere, with writes and answers under way lost: what was acknowledged is there, the state is the same, and the
/// chain goes on.
#[test]
fn a_restart_goes_on_from_what_is_on_disk() {
    let genesis = genesis(1);
    for seed in 1..=12 {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged: Vec<(String, Height)> = Vec::new();
        let mut tip = 0;
        for life in 0..4 {
            let mut node = open(dir.path(), &genesis, seed * 100 + life);
            // Time goes on where the last life ended: block times are in the past.
            node.now = Mono((life + 1) * 3_600_000_000_000);
            let reader = node.log.reader();
            let found = reader.tip().unwrap_or(0);
            assert!(found >= tip, "seed {seed}: durable blocks are there");
            assert_eq!(node.replica.chain().height.get(), found);
            assert_eq!(node.executor.state().root(), root_of(&node), "seed {seed}");
            let flushed = node.db.flushed().map_or(0, |flushed| flushed.height);
            assert_eq!(node.replayed, (flushed + 1..=found).map(height).collect::<Vec<_>>(), "exactly what the database lacks");
            for (tx, at) in &acknowledged {
                let (_, block, _, _) = decided(&reader, *at).unwrap();
                assert!(block.txs.iter().any(|held| held.0 == tx.as_bytes()), "seed {seed}: {tx} was acknowledged at {at}");
            }
            let tx = format!("life{life}=seed{seed}");
            node.submit(life, &tx, Wait::Commit);
            node.run_to(found + 3);
            let turns = node.below(60);
            (0..turns).for_each(|_| node.turn());
            node.check_orders();
            acknowledged.extend(node.committed().into_iter().map(|(_, at)| (tx.clone(), at)));
            tip = node.log.reader().tip().unwrap_or(0);
        }
        assert!(acknowledged.len() >= 3, "seed {seed}: {acknowledged:?}");
    }
}

fn root_of(node: &Node) -> lockstep_types::Hash {
    let app_hash = node.replica.chain().app_hash.as_bytes().to_vec();
    lockstep_types::Hash(app_hash.try_into().unwrap())
}

#[test]
fn a_database_ahead_of_its_log_is_refused() {
    let genesis = genesis(1);
    let dir = tempfile::tempdir().unwrap();
    let mut node = open(dir.path(), &genesis, 7);
    node.run_to(5);
    while node.db.flushed().is_none() {
        node.turn();
    }
    drop(node);
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()).unwrap());
    let (log, _) = BlockLog::open(disk.clone(), "log", LogOptions { salt: [3; 32], segment_bytes: 1 << 16 }).unwrap();
    let mut db = StateDb::open(&*disk, "state").unwrap();
    let refused = recover(host(), &genesis, &log.reader(), &mut db, None, |_, _, _| Ok(())).err().expect("it is refused");
    assert!(refused.to_string().contains("the block log ends at"), "{refused}");
}
