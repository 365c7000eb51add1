//! Numbers for Prometheus, served at `GET /metrics` beside RPC. All are local observations; none feeds back into the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use lockstep_network::{Direction, Reason, Refusal};
use lockstep_storage::guard::Guard;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

mod cut_off;

pub use self::cut_off::CutOff;

/// Why a validator that runs holds its votes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// No slot of its vote guard was readable: it waits until it sees the others decide a height, and signs above it.
    GuardLost,
    /// Its vote guard is ahead of its chain: it signed there already, and signs again when it has caught up.
    GuardAhead,
    /// There is no room on its disk: it signs what it recorded once there is.
    DiskFull,
    /// For good: somebody else signs with its key, or this folder is older than what it signed.
    Stopped,
    /// Its state is not the chain's, or nobody knows that it is.
    Diverged,
}

impl HeldBack {
    const ALL: [Self; 5] = [Self::GuardLost, Self::GuardAhead, Self::DiskFull, Self::Stopped, Self::Diverged];
    /// The metric, as a reader finds it; its label `reason` is [`Self::label`].
    const METRIC: &str = "lockstep_votes_held_back";

    /// The word in the metric, and in `lockstep status --json`. Part of the interface.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::GuardLost => "guard_lost",
            Self::GuardAhead => "guard_ahead",
            Self::DiskFull => "disk_full",
            Self::Stopped => "stopped",
            Self::Diverged => "diverged",
        }
    }

    /// For a table.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::GuardLost => "guard lost",
            Self::GuardAhead => "behind its guard",
            Self::DiskFull => "disk full",
            Self::Stopped => "for good, see its log",
            Self::Diverged => "state diverged",
        }
    }

    /// For the operator: what it means and what to do.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::GuardLost => "its vote guard cannot be read; it signs again above the next height that it sees the others decide",
            Self::GuardAhead => "it signed further than its chain reaches; it signs again when it has caught up",
            Self::DiskFull => "its disk is full; it signs again when there is room",
            Self::Stopped => {
                "another process signs with its key, or its folder is an old copy: stop it, read its log, and start it again only when you \
                 know that it is the only one"
            }
            Self::Diverged => {
                "its state is not the chain's and could not be made right, or no state has two thirds of the power: read its log and data/audit; if it \
                 cannot be mended soon, take it out of the set with lockstep validator quit --node URL, with the URL of another node"
            }
        }
    }

    /// What a node's metrics say: none when they do not speak of it, as those of another program.
    pub(crate) fn read(metrics: &str) -> Option<Option<Self>> {
        let mut lines = metrics.lines().filter_map(|line| line.strip_prefix(Self::METRIC)).peekable();
        lines.peek()?;
        // Of two reasons the one that will not pass by itself says more.
        Some(lines.filter_map(Self::held).max_by_key(|why| *why as usize))
    }

    fn held(line: &str) -> Option<Self> {
        let (label, value) = line.strip_prefix("{reason=\"")?.split_once("\"} ")?;
        Self::ALL.into_iter().find(|why| why.label() == label && value == "1")
    }
}

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
    /// Peers that refuse this node for another process with its node key.
    kept_out: Gauge<i64, AtomicI64>,
    behind: Gauge<i64, AtomicI64>,
    untimely: Counter<u64, AtomicU64>,
    evidence: Counter<u64, AtomicU64>,
    equivocations: Counter<u64, AtomicU64>,
    refused: Counter<u64, AtomicU64>,
    refused_connections: Family<[(&'static str, &'static str); 2], Counter<u64, AtomicU64>>,
    /// Damaged files that the start healed.
    healed: Counter<u64, AtomicU64>,
    /// Heights at which the state of this home was found to be another than the chain's.
    diverged: Gauge<i64, AtomicI64>,
    /// Reads that met damage.
    damaged_reads: Counter<u64, AtomicU64>,
    /// Chunks of snapshots that had rotted.
    chunks_mended: Counter<u64, AtomicU64>,
    /// Times the network was started anew behind the replica's back.
    swarm_restarts: Counter<u64, AtomicU64>,
    /// Of the newest snapshot, of how many there are, and the earliest block.
    kept: [Gauge<i64, AtomicI64>; 3],
    /// Chunks of the snapshot that is being made, and of how many.
    making: [Gauge<i64, AtomicI64>; 2],
    snapshots_made: Counter<u64, AtomicU64>,
    snapshots_failed: Counter<u64, AtomicU64>,
    snapshot_seconds: Histogram,
    /// One for each of [`HeldBack::ALL`].
    held_back: [Gauge<i64, AtomicI64>; 5],
    /// One for each of [`CutOff::ALL`].
    cut_off: [Gauge<i64, AtomicI64>; 5],
    /// Nothing is signed below this height.
    signs_from: AtomicU64,
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
        let kept_out = gauge("kept_out", "Peers that refuse this node now, since another process with its node key is connected to them");
        let diverged = gauge("divergences", "Heights at which the state of this home was found to be another than the chain's");
        let behind = gauge(
            "catching_up",
            "1 while blocks are known to be decided that this node does not have, and from a start until peers have said what they have",
        );
        let kept = [
            gauge("snapshot_height", "Height of the newest snapshot; 0 for none"),
            gauge("snapshots", "Snapshots that are kept"),
            gauge("earliest_block_height", "Height of the earliest block that is here; 0 for none"),
        ];
        let making = [
            gauge("snapshot_chunks_done", "Chunks that are there of the snapshot that is being made"),
            gauge("snapshot_chunks", "Chunks in all of the snapshot that is being made; 0 while none is"),
        ];
        let reasons = Family::<[(&str, &str); 1], Gauge<i64, AtomicI64>>::default();
        let held_back = HeldBack::ALL.map(|why| reasons.get_or_create(&[("reason", why.label())]).clone());
        registry.register("votes_held_back", "1 while this validator signs nothing, for this reason", reasons);
        let needs = Family::<Vec<(&str, &str)>, Gauge<i64, AtomicI64>>::default();
        let cut_off = CutOff::ALL.map(|why| needs.get_or_create(&why.labels()).clone());
        registry.register("cut_off", "1 while blocks do not bring this node further, and it needs this to begin with a snapshot", needs);
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::<u64, AtomicU64>::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let blocks = counter("blocks", "Blocks committed since the start");
        let transactions = counter("transactions", "Transactions committed since the start");
        let untimely = counter("untimely_proposals", "Proposals dated too far from this machine's clock to be voted for");
        let evidence = counter("committed_evidence", "Pieces of evidence in committed blocks");
        let equivocations = counter("equivocations", "Validators seen voting for two values in one step");
        let refused = counter("refused_messages", "Messages of peers that were refused");
        let healed = counter("healed_files", "Damages of its own files that this node healed when it started");
        let swarm_restarts = counter("swarm_restarts", "Times the network's task failed and was started anew; peers reconnect");
        let snapshots_made = counter("snapshots_made", "Snapshots made since the start");
        let snapshots_failed = counter("snapshots_failed", "Snapshots that could not be made since the start");
        let chunks_mended = counter(
            "snapshot_chunks_mended",
            "Chunks of earlier snapshots that had rotted on the disk, and were written anew with the next one",
        );
        let damaged_reads =
            counter("damaged_reads", "Reads of its own files that met damage; the log says which, and whether a restart heals it");
        let refused_connections = Family::<[(&str, &str); 2], Counter<u64, AtomicU64>>::default();
        registry.register(
            "refused_connections",
            "Connections that never became a peer, ours and those of others, by who dialled and why",
            refused_connections.clone(),
        );
        // 1 ms to 16 s: from a chain on one machine to one whose rounds fail.
        let block_interval = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        registry.register("block_interval_seconds", "Time from one commit to the next", block_interval.clone());
        // 10 ms to 10 minutes, with its rests.
        let snapshot_seconds = Histogram::new(exponential_buckets(0.01, 3.0, 11));
        registry.register("snapshot_seconds", "Time from a checkpoint to its snapshot", snapshot_seconds.clone());
        Self {
            kept,
            making,
            snapshots_made,
            snapshots_failed,
            snapshot_seconds,
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
            kept_out,
            behind,
            untimely,
            evidence,
            equivocations,
            refused,
            refused_connections,
            healed,
            diverged,
            damaged_reads,
            chunks_mended,
            swarm_restarts,
            held_back,
            cut_off,
            signs_from: AtomicU64::new(0),
        }
    }

    /// `GET /metrics`.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new().route(
            "/metrics",
            get(move || async move { ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], self.text()) }),
        )
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn committed(&self, height: u64, round: u32, txs: usize, evidence: usize) {
        self.is_at(height);
        self.commit_round.set(i64::from(round));
        self.blocks.inc();
        self.transactions.inc_by(txs as u64);
        self.evidence.inc_by(evidence as u64);
        let now = Instant::now();
        let before = self.last_commit.lock().unwrap_or_else(PoisonError::into_inner).replace(now);
        if let Some(before) = before {
            self.block_interval.observe(now.duration_since(before).as_secs_f64());
        }
    }

    /// At start: the height that was found, what the validator's guard says of its votes, and whether the block that it precommitted next is
    /// lost.
    pub(crate) fn starts_at(&self, height: u64, guard: Option<&Guard>, lacks_next: bool) {
        if let Some(guard) = guard {
            self.hold_back(HeldBack::GuardLost, !guard.is_readable());
            // A record without a message forbids its own height, too.
            let from = guard.records().iter().map(|record| record.height.saturating_add(u64::from(record.sign_bytes.is_empty()))).max();
            let behind_lost = if lacks_next { height.saturating_add(2) } else { 0 };
            self.signs_from.store(from.unwrap_or(0).max(behind_lost), Ordering::Relaxed);
        }
        self.is_at(height);
    }

    /// The lost guard was made anew: votes of heights above this one are signed.
    pub(crate) fn signs_above(&self, height: u64) {
        self.signs_from.store(height.saturating_add(1), Ordering::Relaxed);
        self.hold_back(HeldBack::GuardLost, false);
    }

    /// Nobody knows that the state is the chain's: nothing is signed any more.
    pub(crate) fn in_doubt(&self) {
        self.hold_back(HeldBack::Diverged, true);
    }

    /// At start: the heights at which the state of this home was found to be another than the chain's.
    pub(crate) fn diverged(&self, heights: usize) {
        self.diverged.set(i64::try_from(heights).unwrap_or(i64::MAX));
    }

    /// So many peers refuse this node now, for another process with its node key.
    pub(crate) fn kept_out(&self, peers: usize) {
        self.kept_out.set(i64::try_from(peers).unwrap_or(i64::MAX));
    }

    /// What a node's metrics say of [`Self::kept_out`]: none when they do not speak of it.
    pub(crate) fn read_kept_out(metrics: &str) -> Option<u64> {
        metrics.lines().find_map(|line| line.strip_prefix("lockstep_kept_out "))?.parse().ok()
    }

    /// Nothing is signed any more.
    pub(crate) fn stopped_signing(&self) {
        self.hold_back(HeldBack::Stopped, true);
    }

    fn hold_back(&self, why: HeldBack, holds: bool) {
        self.held_back[why as usize].set(i64::from(holds));
    }

    fn is_at(&self, height: u64) {
        self.height.set(height.cast_signed());
        self.hold_back(HeldBack::GuardAhead, height.saturating_add(1) < self.signs_from.load(Ordering::Relaxed));
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

    /// State sync says where it stands.
    pub(crate) fn state_sync(&self, told: &lockstep_sync::state::Told) {
        let now = self.cut_off.iter().zip(CutOff::ALL).find(|(gauge, _)| gauge.get() == 1).map(|(_, why)| why);
        CutOff::of(told, now).into_iter().for_each(|why| self.cut_off(why));
    }

    /// Blocks do not bring this node further; or they do.
    pub(crate) fn cut_off(&self, why: Option<CutOff>) {
        for (gauge, one) in self.cut_off.iter().zip(CutOff::ALL) {
            gauge.set(i64::from(why == Some(one)));
        }
    }

    pub(crate) fn healed(&self, files: u64) {
        self.healed.inc_by(files);
    }

    pub(crate) fn damaged_read(&self) {
        self.damaged_reads.inc();
    }

    pub(crate) fn chunk_mended(&self) {
        self.chunks_mended.inc();
    }

    /// What is kept: the newest snapshot's height, how many there are, and the earliest block.
    pub(crate) fn keeps(&self, newest: u64, snapshots: usize, earliest: u64) {
        let values = [newest.cast_signed(), i64::try_from(snapshots).unwrap_or(i64::MAX), earliest.cast_signed()];
        for (gauge, value) in self.kept.iter().zip(values) {
            gauge.set(value);
        }
    }

    /// How far the snapshot is that is being made; zeros while none is.
    pub(crate) fn making_snapshot(&self, chunks: usize, of: usize) {
        for (gauge, value) in self.making.iter().zip([chunks, of]) {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn snapshot_made(&self, took: std::time::Duration) {
        self.snapshots_made.inc();
        self.snapshot_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn snapshot_failed(&self) {
        self.snapshots_failed.inc();
    }

    pub(crate) fn disk_full(&self, is_full: bool) {
        self.hold_back(HeldBack::DiskFull, is_full);
    }

    pub(crate) fn untimely(&self) {
        self.untimely.inc();
    }

    pub(crate) fn equivocation(&self) {
        self.equivocations.inc();
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn refused_connection(&self, direction: Direction, reason: &Reason) {
        let direction = match direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        self.refused_connections.get_or_create(&[("direction", direction), ("reason", reason_label(reason))]).inc();
    }

    /// So many in all.
    pub(crate) fn swarm_restarts(&self, total: u64) {
        self.swarm_restarts.inc_by(total.saturating_sub(self.swarm_restarts.get()));
    }

    /// So many in all came too fast to be told one by one.
    pub(crate) fn refused_untold(&self, total: u64) {
        let untold = self.refused_connections.get_or_create(&[("direction", "inbound"), ("reason", "untold")]);
        untold.inc_by(total.saturating_sub(untold.get()));
    }
}

/// Why there was no connection, as a label. Part of the interface.
fn reason_label(reason: &Reason) -> &'static str {
    match reason {
        Reason::Refused(refusal) => refusal_label(*refusal),
        // What it did not like shows in its own metrics, and in our log.
        Reason::RefusedByPeer(_) => "refused_by_peer",
        Reason::Closed => "closed",
        Reason::HandshakeTimeout | Reason::Silent | Reason::SlowReader => "timeout",
        Reason::Frame(_) => "malformed",
        Reason::Banned(_) => "banned",
        Reason::Duplicate => "duplicate",
        Reason::IdentityMismatch { .. } => "other_identity",
        Reason::Oneself => "oneself",
        Reason::KeyKind => "key_kind",
        Reason::Transport(_) => "transport",
        Reason::Requested(_) | Reason::SwarmRestarted | Reason::Shutdown => "ended_here",
    }
}

fn refusal_label(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed => "malformed",
        Refusal::WireVersion => "wire_version",
        Refusal::ChainId => "chain_id",
        Refusal::Genesis => "genesis",
        Refusal::Binding => "binding",
        Refusal::Duplicate => "duplicate",
        Refusal::NoPlace => "no_place",
        Refusal::Banned => "banned",
        Refusal::KeyInUse => "key_in_use",
    }
}

#[cfg(test)]
mod tests {
    use lockstep_sync::state::{Needs, Told};

    use lockstep_network::{Direction, Reason, Refusal};

    use super::{CutOff, HeldBack, Metrics};

    #[test]
    fn refused_connections_are_counted_by_who_dialled_and_why() {
        let metrics = Metrics::new();
        metrics.refused_connection(Direction::Inbound, &Reason::Refused(Refusal::Genesis));
        metrics.refused_connection(Direction::Inbound, &Reason::Refused(Refusal::Genesis));
        metrics.refused_connection(Direction::Outbound, &Reason::RefusedByPeer(Refusal::Genesis));
        metrics.refused_untold(5);
        metrics.refused_untold(7);
        metrics.swarm_restarts(2);
        metrics.swarm_restarts(3);
        let text = metrics.text();
        for line in [
            "lockstep_swarm_restarts_total 3",
            r#"lockstep_refused_connections_total{direction="inbound",reason="untold"} 7"#,
            r#"lockstep_refused_connections_total{direction="inbound",reason="genesis"} 2"#,
            r#"lockstep_refused_connections_total{direction="outbound",reason="refused_by_peer"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_root_that_nobody_knows_any_more_is_the_operators_matter_until_chunks_come() {
        let metrics = Metrics::new();
        let height = lockstep_types::Height::new(20).expect("small");
        let chosen = Told::Chosen { height, offered_by: 2 };
        metrics.state_sync(&chosen);
        assert_eq!(CutOff::read(&metrics.text()), Some(CutOff::Time));
        metrics.state_sync(&Told::Waits { needs: Needs::Root, reason: String::new() });
        metrics.state_sync(&Told::GivenUp { height, reason: String::new() });
        metrics.state_sync(&chosen);
        assert_eq!(CutOff::read(&metrics.text()), Some(CutOff::Trust), "said once, and true ever since");
        metrics.state_sync(&Told::Progress { height, chunks: 1, of: 5, bytes: 9, blocks: 0 });
        assert_eq!(CutOff::read(&metrics.text()), Some(CutOff::Time));
        // So it is with one that peers contradict; an alarm on the word finds both.
        metrics.state_sync(&Told::Waits { needs: Needs::Hash, reason: String::new() });
        metrics.state_sync(&chosen);
        assert_eq!(CutOff::read(&metrics.text()), Some(CutOff::Hash));
        assert_eq!(CutOff::Hash.label(), CutOff::Trust.label());
    }

    #[test]
    fn readers_learn_what_a_node_lacks_that_blocks_do_not_bring_further() {
        let metrics = Metrics::new();
        assert_eq!(CutOff::read(&metrics.text()), None);
        for why in CutOff::ALL {
            metrics.cut_off(Some(why));
            assert_eq!(CutOff::read(&metrics.text()), Some(why));
        }
        metrics.cut_off(None);
        assert_eq!(CutOff::read(&metrics.text()), None);
        assert_eq!(CutOff::read("go_goroutines 12\n"), None, "another program's metrics");
    }

    #[test]
    fn readers_learn_how_many_peers_keep_a_node_out() {
        let metrics = Metrics::new();
        assert_eq!(Metrics::read_kept_out(&metrics.text()), Some(0));
        metrics.kept_out(3);
        assert_eq!(Metrics::read_kept_out(&metrics.text()), Some(3));
        assert_eq!(Metrics::read_kept_out("go_goroutines 12\n"), None, "another program's metrics");
    }

    #[test]
    fn readers_learn_whether_and_why_votes_are_held_back() {
        let metrics = Metrics::new();
        let read = || HeldBack::read(&metrics.text());
        metrics.starts_at(7, None, false);
        assert_eq!(read(), Some(None), "it signs");
        metrics.hold_back(HeldBack::GuardLost, true);
        assert_eq!(read(), Some(Some(HeldBack::GuardLost)));
        metrics.signs_above(9);
        assert_eq!(read(), Some(None));
        // At height 8 the next is 9, which may have been signed; at 9 it is 10.
        metrics.committed(8, 0, 0, 0);
        assert_eq!(read(), Some(Some(HeldBack::GuardAhead)));
        metrics.committed(9, 0, 0, 1);
        assert_eq!(read(), Some(None));
        metrics.stopped_signing();
        metrics.committed(10, 0, 0, 0);
        assert_eq!(read(), Some(Some(HeldBack::Stopped)), "for good");
        assert_eq!(HeldBack::read("go_goroutines 12\n"), None, "another program's metrics");
    }
}
