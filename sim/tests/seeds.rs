//! Seeds that once failed, and a few that never did. Each is run for ever.

use lockstep_sim::{Sweep, Options, run};

/// What each of them found is told in the commit that mended it.
const REGRESSIONS: [u64; 10] = [0x94, 0x18b, 0x1df, 0x228, 0x28f, 0x292, 0x297, 0x2a9, 0x3da, 0xb3d];

fn passes(options: &Options) {
    let summary = run(options, &mut std::io::sink()).expect("nothing is printed");
    let lines: Vec<&str> = summary.failures.iter().map(|failure| failure.line.as_str()).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    assert!(summary.blocks > 0 && summary.acknowledged > 0, "a world in which nothing happens proves nothing");
}

#[test]
fn what_failed_once_holds() {
    for seed in REGRESSIONS {
        passes(&Options { seeds: 1, first: seed, ..Options::default() });
    }
}

#[test]
fn seeds_hold_and_repeat_themselves() {
    // Every twentieth seed is run twice and compared.
    passes(&Options { seeds: 40, first: 1_000, ..Options::default() });
}

#[test]
fn some_crashes_of_the_sweep_hold() {
    passes(&Options { seeds: 40, sweep: Some(Sweep { double: 11, ..Sweep::default() }), ..Options::default() });
}
