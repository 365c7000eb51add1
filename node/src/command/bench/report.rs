//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::disk::SyncTimes;
use super::limits::{EMPTY_BLOCK_CPU_BOUND, THROUGHPUT, commit_floor};
use crate::cli::Via;
use crate::config::show_duration;
use crate::load::{Outcome, Plan, Seen};

/// Transactions that were taken, and whose block nobody saw before the end.
const NEVER_SEEN: &str = "taken, and not committed before the end";

/// What was measured.
#[derive(Debug)]
pub(super) struct Report {
    via: Via,
    rate: u32,
    size: usize,
    batch: u32,
    window: Duration,
    /// Transactions that were due in the window.
    due: u64,
    /// Those of them that were committed.
    pub(super) committed: u64,
    /// Transactions whose commit fell into the window, whenever they were due.
    committed_in_window: u64,
    /// From due to committed, ascending, of those that were due in the window.
    latencies: Vec<Duration>,
    errors: BTreeMap<String, u64>,
    repeated: u64,
    blocks: Option<u64>,
    sync: SyncTimes,
}

impl Report {
    /// Puts together what the load and the follower saw.
    pub(super) fn new(plan: &Plan, warmup: Duration, window: Duration, outcome: Outcome, seen: Option<Seen>, sync: SyncTimes) -> Self {
        let Outcome { commits, mut errors } = outcome;
        let (repeated, heights) = seen.as_ref().map_or((0, None), |seen| (seen.repeated, Some(seen.heights)));
        let commits = seen.map_or(commits, |seen| seen.commits);
        let in_window = commits.iter().filter(|(_, at)| (warmup..warmup + window).contains(at)).count();
        let mut latencies: Vec<Duration> =
            commits.iter().filter(|(tx, _)| plan.measured.contains(tx)).map(|(tx, at)| at.saturating_sub(plan.due(*tx))).collect();
        latencies.sort_unstable();
        let (due, committed) = (plan.measured.end - plan.measured.start, count(latencies.len()));
        let lost = due.saturating_sub(committed).saturating_sub(errors.values().sum());
        if lost > 0 {
            errors.insert(NEVER_SEEN.to_owned(), lost);
        }
        Self {
            via: plan.via,
            rate: plan.rate,
            size: plan.size,
            batch: plan.batch,
            window,
            due,
            committed,
            committed_in_window: count(in_window),
            latencies,
            errors,
            repeated,
            blocks: heights.map(|(first, last)| (last + 1).saturating_sub(first)),
            sync,
        }
    }

    fn throughput(&self) -> f64 {
        as_f64(self.committed_in_window) / self.window.as_secs_f64()
    }

    /// The latency that `per_mille` thousandths of the transactions did not exceed (nearest rank).
    fn percentile(&self, per_mille: usize) -> Option<Duration> {
        let rank = (self.latencies.len() * per_mille).div_ceil(1_000).max(1);
        self.latencies.get(rank - 1).copied()
    }

    fn percentiles(&self) -> [(&'static str, Option<Duration>); 4] {
        [("p50", 500), ("p90", 900), ("p99", 990), ("max", 1_000)].map(|(name, per_mille)| (name, self.percentile(per_mille)))
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "committed   {:>9.1} tx/s   ({} of {} that were due in {})",
            self.throughput(),
            self.committed,
            self.due,
            show_duration(self.window)
        );
        let latencies = self.percentiles().map(|(name, latency)| format!("{name} {}", latency.map_or("-".to_owned(), millis)));
        let _ = writeln!(text, "latency     {}   (due to committed)", latencies.join("   "));
        let _ = match self.errors.values().sum::<u64>() {
            0 => writeln!(text, "errors      none"),
            errors => writeln!(text, "errors      {errors}, by kind:"),
        };
        for (kind, count) in &self.errors {
            let _ = writeln!(text, "  {count:>9}  {kind}");
        }
        if self.repeated > 0 {
            let _ = writeln!(text, "  {:>9}  committed more than once: the chain broke its promise", self.repeated);
        }
        if let Some(blocks) = self.blocks {
            let _ = writeln!(text, "blocks      {blocks} read, warm-up and drain included");
        }
        let _ = writeln!(
            text,
            "disk        append and sync p50 {}, p99 {}, idle before the load",
            millis(self.sync.p50),
            millis(self.sync.p99)
        );
        let _ = writeln!(text, "limits      of a reference machine, four validators on two cores, with this disk; see docs/operating.md");
        let _ = writeln!(
            text,
            "  latency   {} if cores were free: 3 hops, 4 syncs of this disk, 3 signatures, 5 verifications",
            millis(commit_floor(self.sync.p50))
        );
        let _ = writeln!(text, "            {} with the cores shared, for an empty block", millis(EMPTY_BLOCK_CPU_BOUND));
        for (index, (rate, what)) in THROUGHPUT.iter().enumerate() {
            let _ = writeln!(text, "  {}{rate:>9} tx/s {what}", if index == 0 { "tx/s  " } else { "      " });
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// For programs. Times are in milliseconds.
    pub(super) fn json(&self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        let latencies: serde_json::Map<String, serde_json::Value> =
            self.percentiles().into_iter().map(|(name, latency)| (name.to_owned(), latency.map(ms).into())).collect();
        let via = match self.via {
            Via::Commit => "commit",
            Via::Sync => "sync",
            Via::Async => "async",
        };
        serde_json::json!({
            "via": via,
            "rate": self.rate,
            "size": self.size,
            "batch": self.batch,
            "window_s": self.window.as_secs_f64(),
            "due": self.due,
            "committed": self.committed,
            "committed_per_s": self.throughput(),
            "latency_ms": latencies,
            "errors": self.errors,
            "committed_more_than_once": self.repeated,
            "blocks": self.blocks,
            "sync_ms": { "p50": ms(self.sync.p50), "p99": ms(self.sync.p99) },
            "limits": {
                "latency_ms": ms(commit_floor(self.sync.p50)),
                "latency_cores_shared_ms": ms(EMPTY_BLOCK_CPU_BOUND),
                "unsigned_single_per_s": THROUGHPUT[0].0,
                "unsigned_batched_per_s": THROUGHPUT[1].0,
                "signed_batched_per_s": THROUGHPUT[2].0,
            },
        })
        .to_string()
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Counts here stay below 2^53.
#[allow(clippy::cast_precision_loss, reason = "a count of transactions of one run")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan { endpoints: Vec::new(), rate: 10, size: 256, connections: 1, batch: 1, via: Via::Commit, total: 30, run: 1, measured: 10..30 }
    }

    const SYNC: SyncTimes = SyncTimes { p50: Duration::from_micros(130), p99: Duration::from_millis(1) };

    #[test]
    fn latency_counts_from_when_a_transaction_was_due() {
        // Due every 100 ms; each is committed 5 ms later, but the network stands still from 1.5 s to 2.5 s: what was due
        // then is committed at its end.
        let pause = Duration::from_millis(1_500)..Duration::from_millis(2_500);
        let commits = (0..30).map(|tx| {
            let due = plan().due(tx);
            (tx, if pause.contains(&due) { pause.end } else { due + Duration::from_millis(5) })
        });
        let outcome = Outcome { commits: commits.collect(), errors: BTreeMap::new() };
        let report = Report::new(&plan(), Duration::from_secs(1), Duration::from_secs(2), outcome, None, SYNC);
        assert_eq!((report.due, report.committed, report.committed_in_window), (20, 20, 20));
        assert!(report.errors.is_empty());
        let found = report.percentiles().map(|(_, latency)| latency.expect("measured").as_millis());
        // Ten of twenty waited 100, 200 … 1000 ms.
        assert_eq!(found, [5, 800, 1_000, 1_000]);
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let commits = (10..25).map(|tx| (tx, plan().due(tx) + Duration::from_millis(5))).collect();
        let errors = BTreeMap::from([("mempool is full".to_owned(), 3)]);
        let report = Report::new(&plan(), Duration::from_secs(1), Duration::from_secs(2), Outcome { commits, errors }, None, SYNC);
        assert_eq!(report.committed, 15);
        assert_eq!(report.errors[NEVER_SEEN], 2);
        let json: serde_json::Value = serde_json::from_str(&report.json()).expect("JSON");
        assert_eq!(json["latency_ms"]["p50"], 5.0);
        assert_eq!(json["committed_per_s"], 7.5);
        assert!(report.text().contains("mempool is full"));
    }
}
