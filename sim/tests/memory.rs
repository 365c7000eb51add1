//! I11: whatever liars and floods do, a node's memory stays within a budget, at every event of every run.
//!
//! An allocator counts all that is alive: of all nodes, of their simulated disks, and of the checkers that remember every
//! message. So the budget of a node is more than it needs, and far less than what a collection without a bound would take:
//! one liar alone sends hundreds of megabytes in these runs.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lockstep_sim::{Budget, Look, Options, run};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// For a node: its pool (transactions of a flood, up to the pool's own bound), messages that come early, bodies that are
/// gathered, its files, and what checkers keep of it.
const NODE_BYTES: usize = 24 << 20;
/// For what all have in common: the world, verdicts on signatures, the frames that are on their way.
const WORLD_BYTES: usize = 64 << 20;

fn alive() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// Runs some seeds; the most bytes for a node that were ever alive.
fn most(byzantine: Option<Budget>, seeds: u64) -> usize {
    let most = Arc::new(AtomicUsize::new(0));
    let before = alive();
    let seen = most.clone();
    let look = move |nodes: usize| {
        let now = alive().saturating_sub(before);
        seen.fetch_max(now.saturating_sub(WORLD_BYTES) / nodes, Ordering::Relaxed);
        let budget = WORLD_BYTES + nodes * NODE_BYTES;
        if now <= budget { Ok(()) } else { Err(format!("{now} bytes are alive in a run of {nodes} nodes, whose budget is {budget}")) }
    };
    let options = Options { seeds, threads: 1, byzantine, look: Look(Some(Arc::new(look))), ..Options::default() };
    let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
    let lines: Vec<&str> = summary.failures.iter().map(|failure| failure.line.as_str()).filter(|line| line.contains("I11")).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    // What one run took is given back before the next.
    let kept = alive().saturating_sub(before);
    assert!(kept < WORLD_BYTES, "{kept} bytes are alive after all runs");
    most.load(Ordering::Relaxed)
}

/// One test, so that nothing else allocates beside it.
#[test]
fn memory_is_bounded_whatever_liars_send() {
    for (byzantine, seeds) in [(None, 40), (Some(Budget::Safe), 80), (Some(Budget::Sync), 15)] {
        println!("{byzantine:?}: at most {} KiB for a node", most(byzantine, seeds) >> 10);
    }
}
