//! A blind simulator is worse than none: every bug of the bank is found by seeds like any other. The table in
//! `docs/simulator.md` says how soon, and `examples/bank.rs` measures it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lockstep_sim::bank::{Entry, SEEDS_MAX, bank};
use lockstep_sim::{FailedRun, Narrow, Options, run};

/// Bugs looked for side by side.
const THREADS: usize = 2;

/// The first failure among so many seeds.
fn first_failure(entry: &Entry, first: u64, seeds: u64) -> Option<FailedRun> {
    let options = Options { seeds, first, threads: 1, planted: entry.planted, fail_fast: true, ..Options::default() };
    let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
    summary.failures.into_iter().min_by_key(|failure| failure.seed)
}

/// The seed that saw it when it was last measured; where that sees it no more, the first of those that are promised.
fn found(entry: &Entry) -> Option<FailedRun> {
    let known = (entry.known > 0).then(|| first_failure(entry, entry.known, 1)).flatten();
    known.or_else(|| first_failure(entry, 1, SEEDS_MAX))
}

#[test]
fn every_bug_of_the_bank_is_found() {
    let bank = bank();
    assert!(bank.len() >= 40, "a bank of {} bugs", bank.len());
    let next = AtomicUsize::new(0);
    let missed: Mutex<Vec<&str>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(entry) = bank.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match found(entry) {
                        Some(failure) => println!("{}: {}", entry.name, failure.line),
                        None => missed.lock().expect("no holder panics").push(&entry.name),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no holder panics");
    assert!(missed.is_empty(), "{SEEDS_MAX} seeds saw nothing of {missed:?}");
}

#[test]
fn no_bug_is_in_the_bank_twice() {
    let mut names: Vec<String> = bank().into_iter().map(|entry| entry.name).collect();
    let every = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), every);
}
