//! Seeds that once failed, and a few that never did. Each is run for ever.

use lockstep_sim::{Options, Regression, Summary, Sweep, run};

fn passes(options: &Options) -> Summary {
    let summary = run(options, &mut std::io::sink()).expect("nothing is printed");
    let lines: Vec<&str> = summary.failures.iter().map(|failure| failure.line.as_str()).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    assert!(summary.blocks > 0 && summary.acknowledged > 0, "a world in which nothing happens proves nothing");
    summary
}

/// Failures that are mended, each as small as it was made: `sim/regressions`, of which `docs/simulator.md` tells.
#[test]
fn what_failed_once_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    assert!(!files.is_empty(), "no file in {folder}");
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a file");
        let regression = Regression::from_json(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let options = Options { schedule: Some(regression.schedule), ..Options::default() };
        let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
        assert!(summary.failures.is_empty(), "{}: {}", path.display(), summary.failures[0].line);
    }
}

#[test]
fn seeds_hold_and_repeat_themselves() {
    // Every twentieth seed is run twice and compared.
    passes(&Options { seeds: 40, first: 1_000, ..Options::default() });
}

/// Validators join, quit, rotate and return in every seed, during every fault; `SIM_MEMBERS` says in how many, if not forty.
#[test]
fn seeds_in_which_validators_come_and_go_hold() {
    let seeds = std::env::var("SIM_MEMBERS").map_or(40, |text| text.parse().expect("SIM_MEMBERS is a number"));
    let first = std::env::var("SIM_FIRST").map_or(5_000, |text| text.parse().expect("SIM_FIRST is a number"));
    let summary = passes(&Options { seeds, first, members: true, ..Options::default() });
    assert!(summary.views * 2 > seeds, "{} changes of validators in {seeds} runs: hardly anybody came or went", summary.views);
}

#[test]
fn some_crashes_of_the_sweep_hold() {
    passes(&Options { seeds: 40, sweep: Some(Sweep { double: 11, ..Sweep::default() }), ..Options::default() });
}
