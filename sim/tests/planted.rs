//! A blind simulator is worse than none: every bug of the bank is found by seeds like any other. The table in
//! `docs/simulator.md` says how soon, and `examples/bank.rs` measures it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lockstep_sim::bank::{Entry, SEEDS_MAX, bank, candidates};
use lockstep_sim::{FailedRun, Options, Regression, run};

/// Bugs looked for side by side.
const THREADS: usize = 2;

/// The first failure among so many seeds.
fn first_failure(entry: &Entry, first: u64, seeds: u64) -> Option<FailedRun> {
    let options =
        Options { seeds, first, threads: 1, planted: entry.planted, members: entry.members, fail_fast: true, ..Options::default() };
    let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
    summary.failures.into_iter().min_by_key(|failure| failure.seed)
}

/// The seed that saw it when it was last measured; where that sees it no more, the first of those that are promised. A seed that
/// fails without the bug, too, says nothing of it.
fn found(entry: &Entry) -> Option<FailedRun> {
    let known = (entry.known > 0).then(|| first_failure(entry, entry.known, 1)).flatten();
    let failure = known.or_else(|| first_failure(entry, 1, SEEDS_MAX))?;
    let sound = Options { seeds: 1, first: failure.seed, threads: 1, members: entry.members, ..Options::default() };
    let summary = run(&sound, &mut std::io::sink()).expect("nothing is printed");
    assert!(summary.failures.is_empty(), "it fails without a bug: {}", summary.failures[0].line);
    Some(failure)
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

/// What a person reads of a failure: the same bug, with less around it.
#[test]
fn a_failing_seed_is_made_small() {
    let entry = bank().into_iter().find(|entry| entry.name == "QuorumAtTwoThirds").expect("it is in the bank");
    let failed = found(&entry).expect("it is seen, as above");
    let folder = std::env::temp_dir().join(format!("lockstep-planted-{}", std::process::id()));
    let options = Options { seeds: 1, first: failed.seed, threads: 1, planted: entry.planted, ..Options::default() };
    let shrinking = Options { shrink_to: Some(folder.clone()), ..options.clone() };
    let mut summary = run(&shrinking, &mut std::io::sink()).expect("nothing is printed");
    std::fs::remove_dir_all(&folder).expect("the failure was kept as a file");
    let regression = summary.failures.remove(0).regression.expect("it was made small");
    assert_eq!(regression.invariant, failed.violation.invariant);
    let again = run(&Options { schedule: Some(regression.schedule.clone()), ..options }, &mut std::io::sink()).expect("nothing is printed");
    assert_eq!(again.failures[0].violation.invariant, failed.violation.invariant, "what is kept fails alike");
    let healthy = Options { schedule: Some(regression.schedule), threads: 1, ..Options::default() };
    assert!(run(&healthy, &mut std::io::sink()).expect("nothing is printed").failures.is_empty(), "and only with the bug");
}

/// The files of `sim/regressions` have not lost their meaning: the bug that each is about still breaks what it broke.
#[test]
fn every_kept_schedule_sees_its_bug() {
    let bank: Vec<_> = bank().into_iter().chain(candidates()).collect();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/regressions")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let regression = Regression::from_json(&std::fs::read_to_string(&path).expect("a file")).expect("a regression");
        let Some(name) = &regression.planted else { continue };
        let bug = bank.iter().find(|entry| entry.name == *name).unwrap_or_else(|| panic!("{}: no bug {name}", path.display()));
        let options = Options { schedule: Some(regression.schedule), planted: bug.planted, ..Options::default() };
        let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
        let seen = summary.failures.first().map(|failure| failure.violation.invariant);
        assert_eq!(seen, Some(regression.invariant.as_str()), "{} no longer sees {name}", path.display());
    }
}

/// Bugs of state sync are found by nodes that join.
#[test]
fn every_bug_of_state_sync_is_found_by_who_joins() {
    use lockstep_sim::joins::{Joined, Joins};
    use lockstep_types::planted::{Bug, plant};
    let bugs = [
        Bug::ClimbUnverified,
        Bug::ParentHeaderUnchecked,
        Bug::RoundUnverified,
        Bug::CertificateUnverified,
        Bug::ChunkUnchecked,
        Bug::CompleteUnsynced,
        Bug::MarkGoesFirst,
        Bug::RecentForgotten,
    ];
    let joins = Joins::default();
    for bug in bugs {
        plant(Some(bug));
        let found = (1..=SEEDS_MAX).find_map(|seed| joins.run(seed, &mut Joined::default()).err().map(|broken| (seed, broken)));
        plant(None);
        let (seed, broken) = found.unwrap_or_else(|| panic!("{SEEDS_MAX} seeds saw nothing of {bug:?}"));
        println!("{bug:?}: seed {seed}: {broken}");
        assert_eq!(joins.run(seed, &mut Joined::default()), Ok(()), "it fails without a bug");
    }
}
