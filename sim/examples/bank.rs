//! Measures the bug bank: for each planted bug the median number of seeds until one sees it, over several starting points.
//!
//! ```text
//! cargo run --release -p lockstep-sim --features planted --example bank -- [--starts 9] [--seeds 2000] [--threads 2] [--candidates 1] [NAME ...]
//! ```
//!
//! Prints the rows of a table, and behind each the first seed that saw the bug: what [`Entry::known`] is for. Candidates are bugs that
//! no seed is known to see yet.

use std::collections::BTreeMap;

use lockstep_sim::bank::{Entry, SEEDS_MAX, bank, candidates};
use lockstep_sim::{Options, run};

/// Between two starting points: more than is tried from any.
const STRIDE: u64 = 1_000_000;

fn main() {
    let mut flags: BTreeMap<String, u64> = BTreeMap::new();
    let mut names: Vec<String> = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(flag) => {
                let value = words.next().and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("--{flag} takes a number"));
                flags.insert(flag.to_owned(), value);
            }
            None => names.push(word),
        }
    }
    let flag = |name: &str, otherwise| flags.get(name).copied().unwrap_or(otherwise);
    let (starts, seeds, threads) = (flag("starts", 9), flag("seeds", SEEDS_MAX), flag("threads", 2));
    println!("| kind | planted bug | median seeds | what saw it first |\n|---|---|---|---|");
    let entries = if flag("candidates", 0) > 0 { candidates() } else { bank() };
    for entry in entries.into_iter().filter(|entry| names.is_empty() || names.contains(&entry.name)) {
        let mut tried: Vec<u64> = Vec::new();
        let mut first = None;
        for start in (0..starts).map(|start| 1 + start * STRIDE) {
            let found = find(&entry, start, seeds, threads);
            tried.push(found.as_ref().map_or(u64::MAX, |(seed, _)| seed - start + 1));
            first = first.or(found);
        }
        tried.sort_unstable();
        let text = |tried: u64| if tried == u64::MAX { format!("> {seeds}") } else { tried.to_string() };
        let median = tried.get(tried.len() / 2).copied().unwrap_or(u64::MAX);
        let (known, what) = first.unwrap_or((0, String::new()));
        println!(
            "| {} | {} | {} | {what} | <!-- {} {known} {} to {} -->",
            entry.class,
            entry.what,
            text(median),
            entry.name,
            text(tried[0]),
            text(tried[tried.len() - 1])
        );
    }
}

/// The first seed from a starting point that sees a bug, and what it saw. One that fails without the bug, too, sees another.
fn find(entry: &Entry, start: u64, seeds: u64, threads: u64) -> Option<(u64, String)> {
    let threads = usize::try_from(threads).expect("a few");
    let mut first = start;
    while first < start + seeds {
        let options = Options {
            seeds: start + seeds - first,
            first,
            threads,
            planted: entry.planted,
            members: entry.members,
            fail_fast: true,
            ..Options::default()
        };
        let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
        let found = summary.failures.into_iter().min_by_key(|failure| failure.seed)?;
        let control = Options { seeds: 1, first: found.seed, threads: 1, members: entry.members, ..Options::default() };
        let sound = run(&control, &mut std::io::sink()).expect("nothing is printed");
        let Some(failed) = sound.failures.first() else {
            return Some((found.seed, format!("{}: {}", found.violation.invariant, found.violation.what)));
        };
        eprintln!("without a bug: {}", failed.line);
        first = found.seed + 1;
    }
    None
}
