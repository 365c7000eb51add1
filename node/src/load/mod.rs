//! Load, open loop: transactions leave on a schedule that does not wait for answers.
//!
//! ```text
//!   clock (a thread) ── group k is due ──> queue ──> connections, each one request at a time ──> nodes
//!                                                        └─ what became of each transaction
//! ```
//!
//! A closed loop, where each client waits for its answer before it sends again, slows down with the network it measures
//! and leaves out the very waits that users would have had (coordinated omission). Here a transaction that finds all
//! connections busy waits in the queue, and its latency counts from the moment it was due.

mod follow;
mod request;

pub(crate) use follow::{Follower, Seen, latest_height};

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli::Via;
use crate::http::{Connection, Endpoint};
use crate::stop::StopSignal;

/// Groups that wait for a connection. A generator that is further behind says so and counts them as errors.
const QUEUE_GROUPS_MAX: usize = 65_536;
/// The clock sleeps at least this long, so that at high rates it wakes for several groups at once.
const CLOCK_TICK: Duration = Duration::from_micros(100);
/// How long an answer may take: `broadcast_tx_commit` waits up to 10 s for its block.
const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// Between two attempts to reach an endpoint that does not answer.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) endpoints: Vec<Endpoint>,
    /// Transactions a second, above zero.
    pub(crate) rate: u32,
    /// Bytes of a transaction.
    pub(crate) size: usize,
    pub(crate) connections: usize,
    /// Transactions per request, above zero. They are due together.
    pub(crate) batch: u32,
    pub(crate) via: Via,
    /// Transactions in all.
    pub(crate) total: u64,
    /// Tells the transactions of this run from those of another.
    pub(crate) run: u32,
    /// Transactions whose fate is remembered one by one: those that are measured.
    pub(crate) measured: Range<u64>,
}

impl Plan {
    /// When a transaction is due, from the start.
    pub(crate) fn due(&self, tx: u64) -> Duration {
        let batch = u64::from(self.batch);
        let nanos = u128::from(tx / batch * batch) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The transactions of a group.
    fn group(&self, group: u64) -> Range<u64> {
        let batch = u64::from(self.batch);
        group * batch..((group + 1) * batch).min(self.total)
    }
}

/// Counts that can be watched while the load runs.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Due so far.
    pub(crate) due: AtomicU64,
    /// Taken by a node: checked, or, with [`Via::Commit`], committed.
    pub(crate) accepted: AtomicU64,
    /// Refused or lost.
    pub(crate) failed: AtomicU64,
}

/// What became of the measured transactions.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Transactions that were committed, and when, from the start. Of [`Via::Commit`] only.
    pub(crate) commits: Vec<(u64, Duration)>,
    /// Transactions that were not taken, by reason.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.commits.extend(other.commits);
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
    }

    fn fail(&mut self, plan: &Plan, txs: Range<u64>, kind: &str) {
        let measured = txs.filter(|tx| plan.measured.contains(tx)).count();
        if measured > 0 {
            *self.errors.entry(kind.to_owned()).or_default() += u64::try_from(measured).unwrap_or(u64::MAX);
        }
    }
}

/// Runs a plan until all of it was answered or `stop` is given. Must run within a tokio runtime.
pub(crate) async fn run(plan: Arc<Plan>, start: Instant, counters: Arc<Counters>, stop: StopSignal) -> Outcome {
    let (queue, groups) = mpsc::channel(QUEUE_GROUPS_MAX);
    let groups = Arc::new(Mutex::new(groups));
    let mut workers = JoinSet::new();
    for index in 0..plan.connections {
        let endpoint = plan.endpoints[index % plan.endpoints.len()].clone();
        let worker = Worker { plan: Arc::clone(&plan), start, counters: Arc::clone(&counters), endpoint, outcome: Outcome::default() };
        workers.spawn(worker.run(Arc::clone(&groups), stop.clone()));
    }
    let clock = {
        let (plan, counters) = (Arc::clone(&plan), Arc::clone(&counters));
        thread::spawn(move || clock(&plan, start, &counters, &queue, &stop))
    };
    let mut outcome = Outcome::default();
    while let Some(worker) = workers.join_next().await {
        if let Ok(part) = worker {
            outcome.add(part);
        }
    }
    // The connections ended, so the queue did, so the clock does.
    if let Ok(part) = clock.join() {
        outcome.add(part);
    }
    outcome
}

/// Puts each group into the queue when it is due. A thread of its own: the timers of the runtime tick in milliseconds.
fn clock(plan: &Plan, start: Instant, counters: &Counters, queue: &mpsc::Sender<u64>, stop: &StopSignal) -> Outcome {
    let mut outcome = Outcome::default();
    for group in 0..plan.total.div_ceil(u64::from(plan.batch)) {
        let txs = plan.group(group);
        let due = start + plan.due(txs.start);
        while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
            thread::sleep(wait.max(CLOCK_TICK));
        }
        if stop.is_stopped() {
            break;
        }
        let count = txs.end - txs.start;
        counters.due.fetch_add(count, Ordering::Relaxed);
        match queue.try_send(group) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                counters.failed.fetch_add(count, Ordering::Relaxed);
                outcome.fail(plan, txs, "the generator's queue is full: all connections wait for answers");
            }
            Err(mpsc::error::TrySendError::Closed(_)) => break,
        }
    }
    outcome
}

/// One connection.
struct Worker {
    plan: Arc<Plan>,
    start: Instant,
    counters: Arc<Counters>,
    endpoint: Endpoint,
    outcome: Outcome,
}

impl Worker {
    async fn run(mut self, groups: Arc<Mutex<mpsc::Receiver<u64>>>, mut stop: StopSignal) -> Outcome {
        let mut connection = None;
        let mut body = Vec::new();
        loop {
            let next = async { groups.lock().await.recv().await };
            let group = tokio::select! {
                biased;
                () = stop.stopped() => break,
                group = next => match group {
                    Some(group) => group,
                    None => break,
                },
            };
            let txs = self.plan.group(group);
            request::write(&mut body, &self.plan, txs.clone());
            let exchanged = tokio::select! {
                biased;
                () = stop.stopped() => break,
                exchanged = self.exchange(&mut connection, &body, &txs) => exchanged,
            };
            if let Err(kind) = exchanged {
                connection = None;
                self.fail(txs, &kind);
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
        self.outcome
    }

    async fn exchange(&mut self, connection: &mut Option<Connection>, body: &[u8], txs: &Range<u64>) -> Result<(), String> {
        let open = match connection {
            Some(open) => open,
            None => connection.insert(Connection::open(&self.endpoint).await.map_err(|error| error.kind())?),
        };
        let answer = timeout(ANSWER_WAIT, open.post(body)).await.map_err(|_| "no answer within 15 s".to_owned())?;
        let answer = answer.map_err(|error| error.kind())?;
        let at = self.start.elapsed();
        let verdicts = request::verdicts(answer, self.plan.via, txs.end - txs.start)?;
        for (tx, verdict) in txs.clone().zip(verdicts) {
            match verdict {
                Ok(()) => {
                    self.counters.accepted.fetch_add(1, Ordering::Relaxed);
                    if self.plan.via == Via::Commit {
                        self.outcome.commits.push((tx, at));
                    }
                }
                Err(kind) => self.fail(tx..tx + 1, &kind),
            }
        }
        Ok(())
    }

    fn fail(&mut self, txs: Range<u64>, kind: &str) {
        self.counters.failed.fetch_add(txs.end - txs.start, Ordering::Relaxed);
        self.outcome.fail(&self.plan, txs, kind);
    }
}
