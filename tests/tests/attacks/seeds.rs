//! Attacks that only a whole network shows: the simulator, with the classes of faults that are drawn for each seed. Its
//! checkers are in `docs/simulator.md`; that they see is shown by the bugs planted in `sim/tests/planted.rs`.

use lockstep_sim::{Options, run};

/// Seeds that no other test runs. Two in five have a liar, one in five of the others twins.
const FIRST: u64 = 700_000;
const SEEDS: u64 = 200;

#[test]
fn attack_15_liars_losses_crashes_and_wrong_clocks_together() {
    let summary = run(&Options { seeds: SEEDS, first: FIRST, ..Options::default() }, &mut std::io::sink()).expect("nothing is printed");
    let lines: Vec<&str> = summary.failures.iter().map(|failure| failure.line.as_str()).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    assert_eq!(summary.runs, SEEDS);
    assert!(summary.crashes > SEEDS && summary.blocks > 10 * SEEDS && summary.acknowledged > SEEDS, "{summary:?}");
}

#[test]
fn attack_34_a_crash_at_any_step_and_any_operation_of_the_disk() {
    let options = Options { seeds: 200, sweep: Some(lockstep_sim::Sweep::default()), ..Options::default() };
    let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
    let lines: Vec<&str> = summary.failures.iter().map(|failure| failure.line.as_str()).collect();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
    assert!(summary.runs > 100 && summary.crashes >= summary.runs, "{summary:?}");
}
