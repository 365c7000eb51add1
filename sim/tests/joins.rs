//! Nodes that begin with a snapshot, among liars and power cuts ([`lockstep_sim::joins`]).

use lockstep_sim::joins::{Joined, Joins};

/// How many seeds, and the first: `LOCKSTEP_JOINS=5000`, `LOCKSTEP_JOINS_FIRST=17`.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let first = number("LOCKSTEP_JOINS_FIRST", 1);
    first..first + number("LOCKSTEP_JOINS", 60)
}

#[test]
fn whoever_joins_ends_with_the_state_of_the_chain() {
    let joins = Joins::default();
    let mut joined = Joined::default();
    let mut failures = Vec::new();
    for seed in seeds() {
        if let Err(broken) = joins.run(seed, &mut joined) {
            failures.push(format!("seed {seed}: {broken}"));
        }
    }
    println!("{joined:?}");
    assert!(failures.is_empty(), "{} of {} runs broke something:\n{}", failures.len(), joined.runs, failures.join("\n"));
    // Each of these is part of what is claimed, so runs must have met it.
    assert!(joined.installed > joined.runs / 2 && joined.crashes > 0 && joined.left > 0, "{joined:?}");
    assert!(joined.above > joined.installed, "blocks above snapshots were collected: {joined:?}");
    assert!(joined.crashes_while_starting > 0 && joined.resumed > 0 && joined.differences > 0, "{joined:?}");
}
