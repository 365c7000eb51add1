//! Numbers for Prometheus, served at `GET /metrics` beside RPC. All are local observations; none feeds back into the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The numbers of a node.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    height: Gauge<i64, AtomicI64>,
    step_height: Gauge<i64, AtomicI64>,
    round: Gauge<i64, AtomicI64>,
    commit_round: Gauge<i64, AtomicI64>,
    blocks: Counter<u64, AtomicU64>,
    transactions: Counter<u64, AtomicU64>,
    block_interval: Histogram,
    last_commit: Mutex<Option<Instant>>,
    mempool_txs: Gauge<i64, AtomicI64>,
    mempool_bytes: Gauge<i64, AtomicI64>,
    peers: Gauge<i64, AtomicI64>,
    behind: Gauge<i64, AtomicI64>,
    equivocations: Counter<u64, AtomicU64>,
    refused: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All numbers at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("lockstep");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64, AtomicI64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let height = gauge("height", "Height of the last committed block");
        let step_height = gauge("consensus_height", "Height that is being decided");
        let round = gauge("consensus_round", "Round of the height that is being decided");
        let commit_round = gauge("commit_round", "Round in which the last block was decided");
        let mempool_txs = gauge("mempool_transactions", "Transactions waiting");
        let mempool_bytes = gauge("mempool_bytes", "Bytes of transactions waiting");
        let peers = gauge("peers", "Connected peers");
        let behind = gauge("catching_up", "1 while blocks are known to be decided that this node does not have");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::<u64, AtomicU64>::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let blocks = counter("blocks", "Blocks committed since the start");
        let transactions = counter("transactions", "Transactions committed since the start");
        let equivocations = counter("equivocations", "Validators seen voting for two values in one step");
        let refused = counter("refused_messages", "Messages of peers that were refused");
        // 1 ms to 16 s: from a chain on one machine to one whose rounds fail.
        let block_interval = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        registry.register("block_interval_seconds", "Time from one commit to the next", block_interval.clone());
        Self {
            registry,
            height,
            step_height,
            round,
            commit_round,
            blocks,
            transactions,
            block_interval,
            last_commit: Mutex::new(None),
            mempool_txs,
            mempool_bytes,
            peers,
            behind,
            equivocations,
            refused,
        }
    }

    /// `GET /metrics`.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new().route(
            "/metrics",
            get(move || async move {
                let mut text = String::new();
                // Writing to a string does not fail.
                let _ = encode(&mut text, &self.registry);
                ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            }),
        )
    }

    pub(crate) fn committed(&self, height: u64, round: u32, txs: usize) {
        self.height.set(height.cast_signed());
        self.commit_round.set(i64::from(round));
        self.blocks.inc();
        self.transactions.inc_by(txs as u64);
        let now = Instant::now();
        let before = self.last_commit.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if let Some(before) = before {
            self.block_interval.observe(now.duration_since(before).as_secs_f64());
        }
    }

    pub(crate) fn starts_at(&self, height: u64) {
        self.height.set(height.cast_signed());
    }

    pub(crate) fn stepped(&self, height: u64, round: u32) {
        self.step_height.set(height.cast_signed());
        self.round.set(i64::from(round));
    }

    pub(crate) fn mempool(&self, txs: usize, bytes: usize) {
        self.mempool_txs.set(i64::try_from(txs).unwrap_or(i64::MAX));
        self.mempool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn peer_up(&self) {
        self.peers.inc();
    }

    pub(crate) fn peer_down(&self) {
        self.peers.dec();
    }

    pub(crate) fn catching_up(&self, behind: bool) {
        self.behind.set(i64::from(behind));
    }

    pub(crate) fn equivocation(&self) {
        self.equivocations.inc();
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }
}
