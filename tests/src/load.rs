//! Load from outside, and what comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::rpc::{Client, Endpoint};

/// How transactions are handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A connection has one under way until it is checked.
    Sync,
    /// A connection has one under way until it is committed.
    Commit,
}

/// A transaction that a node acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its hash, in hex digits.
    pub hash: String,
    /// The block that the answer named; zero where the load does not wait for it.
    pub height: u64,
    /// From when it was due to the answer.
    pub latency: Duration,
}

/// What came of a load.
#[derive(Debug, Default)]
pub struct Report {
    /// What was acknowledged, in no order.
    pub acknowledged: Vec<Acknowledged>,
    /// What was not, by its reason.
    pub failed: BTreeMap<String, u64>,
}

impl Report {
    /// The latency that this part of the acknowledged transactions did not exceed.
    pub fn latency(&self, percent: usize) -> Duration {
        let mut all: Vec<Duration> = self.acknowledged.iter().map(|tx| tx.latency).collect();
        all.sort_unstable();
        all.get((all.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default()
    }
}

/// A load that goes on until it is stopped.
pub struct Load {
    stopped: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Report>>,
}

/// Bytes of a transaction, about.
const TX_BYTES: usize = 200;

impl Load {
    /// Transactions over these endpoints in turn, from `connections` connections: `rate` a second in all, or, with none, each
    /// connection as fast as it gets answers. With a rate, each is due on a schedule that does not wait for answers, and its
    /// latency counts from then. No two transactions are the same as long as `tag` is not.
    pub fn start(endpoints: &[impl Into<Endpoint> + Clone], connections: usize, rate: Option<f64>, via: Via, tag: &str) -> Self {
        let (stopped, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let begin = Instant::now();
        let threads = (0..connections)
            .map(|connection| {
                let worker = Worker {
                    client: Client::new(endpoints[connection % endpoints.len()].clone()),
                    via,
                    tag: format!("{tag}-{connection}"),
                    begin,
                    connection,
                    connections,
                    rate,
                    stopped: stopped.clone(),
                    count: count.clone(),
                };
                std::thread::spawn(move || worker.run())
            })
            .collect();
        Self { stopped, count, threads }
    }

    /// How many were acknowledged so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends it, when what is under way is answered.
    pub fn stop(self) -> Report {
        self.stopped.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for thread in self.threads {
            let part = thread.join().expect("a client that does not panic");
            report.acknowledged.extend(part.acknowledged);
            for (reason, count) in part.failed {
                *report.failed.entry(reason).or_default() += count;
            }
        }
        report
    }
}

struct Worker {
    client: Client,
    via: Via,
    tag: String,
    begin: Instant,
    connection: usize,
    connections: usize,
    rate: Option<f64>,
    stopped: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self) -> Report {
        let mut report = Report::default();
        for number in 0usize.. {
            let due = self.wait_for(number);
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("{}-{number}", self.tag);
            let tx = format!("{key}={}", "x".repeat(TX_BYTES.saturating_sub(key.len())));
            let sent = match self.via {
                Via::Sync => self.client.send_tx(&tx).map(|hash| (hash, 0)),
                Via::Commit => self.client.commit_tx(&tx),
            };
            match sent {
                Ok((hash, height)) => {
                    report.acknowledged.push(Acknowledged { hash, height, latency: due.elapsed() });
                    self.count.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    *report.failed.entry(error.to_string()).or_default() += 1;
                    // Whoever is not there is not asked again in the same instant.
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        report
    }

    /// When this one is due, once it is.
    fn wait_for(&self, number: usize) -> Instant {
        let Some(rate) = self.rate else { return Instant::now() };
        #[expect(clippy::cast_precision_loss, reason = "a test does not send 2^52 transactions")]
        let due = self.begin + Duration::from_secs_f64((number * self.connections + self.connection) as f64 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due
    }
}
