//! `lockstep bench`: what a network does, measured from outside.

mod disk;
mod limits;
mod report;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cli::{BenchArgs, Via};
use crate::config::show_duration;
use crate::error::{Exit, NodeError};
use crate::http::Endpoint;
use crate::load::{self, Counters, Follower, Plan};
use crate::stop::{StopSignal, Stopper};

use super::{random, runtime, say};
use report::Report;

/// Most transactions of a run: what is remembered of each must fit in memory.
const TXS_MAX: u64 = 100_000_000;
/// Up to this rate each transaction has a request that waits for its block.
const LIGHT_RATE_MAX: u32 = 500;
/// Between two looks whether everything has come.
const DRAIN_POLL: Duration = Duration::from_millis(20);

pub(super) fn run(args: &BenchArgs) -> Result<(), NodeError> {
    let plan = Arc::new(plan(args)?);
    let sync = disk::measure(&args.disk)?;
    if !args.json {
        say(format!(
            "{} tx/s of {} B for {} after {}, {} connections to {} …",
            plan.rate,
            plan.size,
            show_duration(args.duration),
            show_duration(args.warmup),
            plan.connections,
            args.endpoints.join(", ")
        ));
    }
    let report = runtime()?.block_on(measure(args, plan, sync))?;
    say(if args.json { report.json() } else { report.text() });
    if report.committed == 0 {
        return Err(NodeError::new(Exit::Failed, "nothing was committed").next("see the errors above; is the network up? lockstep status"));
    }
    Ok(())
}

fn plan(args: &BenchArgs) -> Result<Plan, NodeError> {
    let usage = |what: String| NodeError::new(Exit::Usage, what);
    let light = args.batch == 1 && args.rate <= LIGHT_RATE_MAX;
    let via = args.via.unwrap_or(if light { Via::Commit } else { Via::Sync });
    if via == Via::Commit && args.batch > 1 {
        return Err(usage(format!("--batch is {}: must be 1 with --via commit, where each request waits for its own block", args.batch)));
    }
    if args.duration.is_zero() {
        return Err(usage("--for is 0s: must be longer".to_owned()));
    }
    let txs = |time: Duration| {
        let count = u128::from(args.rate) * time.as_millis() / 1_000;
        u64::try_from(count).ok().filter(|count| *count <= TXS_MAX)
    };
    let too_many = || usage(format!("--rate times --warmup and --for is above {TXS_MAX} transactions: must be at most that"));
    let before = txs(args.warmup).ok_or_else(too_many)?;
    let total = txs(args.warmup.saturating_add(args.duration)).ok_or_else(too_many)?;
    if total <= before {
        return Err(usage("--rate times --for is less than one transaction".to_owned()));
    }
    let endpoints = args.endpoints.iter().map(|text| Endpoint::parse(text)).collect::<Result<Vec<_>, _>>().map_err(usage)?;
    Ok(Plan {
        endpoints,
        rate: args.rate,
        size: usize::try_from(args.size).expect("bounded"),
        connections: args.connections.into(),
        batch: args.batch.into(),
        via,
        total,
        run: u32::from_le_bytes(*random()?),
        measured: before..total,
    })
}

async fn measure(args: &BenchArgs, plan: Arc<Plan>, sync: disk::SyncTimes) -> Result<Report, NodeError> {
    let first = &plan.endpoints[0];
    let height = load::latest_height(first).await.map_err(|error| {
        NodeError::new(Exit::Unreachable, format!("{}: {error}", first.url()))
            .next("start a network (lockstep localnet), or name one: --endpoints")
    })?;
    let counters = Arc::new(Counters::default());
    let start = Instant::now();
    let (end_load, load_stop) = StopSignal::new();
    let (end_follow, follow_stop) = StopSignal::new();

    let follower = (plan.via != Via::Commit).then(|| Follower::new(Arc::clone(&plan), start, height));
    let seen = follower.as_ref().map(|follower| Arc::clone(&follower.seen));
    let following = follower.map(|follower| tokio::spawn(follower.run(follow_stop)));
    let loading = tokio::spawn(load::run(Arc::clone(&plan), start, Arc::clone(&counters), load_stop));

    let give_up = start + plan.due(plan.total) + args.drain;
    while Instant::now() < give_up && !loading.is_finished() {
        tokio::time::sleep(DRAIN_POLL).await;
    }
    let all_seen = || seen.as_ref().is_none_or(|seen| seen.load(Ordering::Relaxed) >= counters.accepted.load(Ordering::Relaxed));
    while Instant::now() < give_up && !all_seen() {
        tokio::time::sleep(DRAIN_POLL).await;
    }
    let stop = |stopper: Stopper| stopper.stop();
    stop(end_load);
    stop(end_follow);
    let died = |error: tokio::task::JoinError| NodeError::new(Exit::Failed, format!("the generator failed: {error}"));
    let outcome = loading.await.map_err(died)?;
    let followed = match following {
        Some(following) => Some(following.await.map_err(died)?),
        None => None,
    };
    Ok(Report::new(&plan, args.warmup, args.duration, outcome, followed, sync))
}
