//! A blind simulator is worse than none: each of these bugs, planted in the consensus core or in the composition around it, is
//! found by seeds like any other. The table in `docs/simulator.md` says by which.

use lockstep_consensus::planted::{Bug as CoreBug, Planted as CorePlanted};
use lockstep_replica::planted::{Bug, Planted};
use lockstep_sim::{Narrow, Options, run};

/// Seeds tried for each bug.
const SEEDS: u64 = 2_000;

/// The first seed that sees a bug, and what it saw.
fn found(planted: Planted) -> Option<(u64, String)> {
    let options = Options { seeds: SEEDS, first: 1, planted, fail_fast: true, ..Options::default() };
    let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
    summary.failures.into_iter().map(|failure| (failure.seed, failure.line)).min()
}

fn core(bug: CoreBug) -> Planted {
    let mut planted = Planted::default();
    planted.consensus = CorePlanted::default().with(bug);
    planted
}

macro_rules! seen {
    ($($name:ident: $planted:expr,)*) => {
        $(
            #[test]
            fn $name() {
                let (seed, line) = found($planted).unwrap_or_else(|| panic!("{SEEDS} seeds saw nothing"));
                println!("{}: seen by seed {seed}: {line}", stringify!($planted));
            }
        )*
    };
}

seen! {
    a_message_that_leaves_before_its_record_is_durable: Planted::default().with(Bug::SendBeforeSync),
    a_lock_on_a_body_that_is_not_durable: Planted::default().with(Bug::BodyNotDurable),
    a_vote_of_the_next_height_before_the_decision_is_durable: Planted::default().with(Bug::VoteBeforeDecision),
    a_guard_record_of_the_next_height_beside_the_decision: Planted::default().with(Bug::GuardBesideDecision),
    a_lock_that_a_restart_forgets: Planted::default().with(Bug::LockLost),
    a_restart_that_says_only_its_last_message_again: Planted::default().with(Bug::OnlyNewestResent),
    a_restart_that_believes_the_older_record: Planted::default().with(Bug::OlderRecord),
    a_quorum_of_exactly_two_thirds: core(CoreBug::QuorumAtTwoThirds),
    a_vote_for_nil_that_counts_for_a_block: core(CoreBug::NilCounted),
    a_core_that_counts_only_the_first_vote: core(CoreBug::FirstVoteOnly),
    a_vote_that_comes_again_and_counts_again: core(CoreBug::DuplicateCountedTwice),
    an_old_value_without_its_polka: core(CoreBug::NoPolkaCheck),
    a_lock_that_does_not_bind: core(CoreBug::LockIgnored),
    a_stale_timer_that_acts: core(CoreBug::StaleTimer),
    a_clock_that_makes_a_block_invalid: core(CoreBug::TimelinessInValid),
    a_liar_that_counts_once_for_each_kind_of_message: core(CoreBug::SkipPerStep),
    a_polka_of_votes_with_different_valid_rounds: core(CoreBug::PolkaBlindToValidRound),
    a_polka_before_its_body_that_is_forgotten: core(CoreBug::EarlyPolkaForgotten),
}

/// What a person reads of a failure: the same bug, with less around it.
#[test]
fn a_failing_seed_is_made_small() {
    let planted = Planted::default().with(Bug::LockLost);
    let (seed, _) = found(planted).expect("it is seen, as above");
    let options = Options { seeds: 1, first: seed, planted, shrink: true, ..Options::default() };
    let mut out = Vec::new();
    let summary = run(&options, &mut out).expect("memory takes every line");
    let text = String::from_utf8(out).expect("text");
    let small = text.lines().find(|line| line.contains("it fails with less")).expect("something can be left out");
    println!("{small}");
    let flag = |name: &str| small.split(name).nth(1).and_then(|rest| rest.split_whitespace().next());
    let without = flag("--without ").map_or_else(Vec::new, |names| names.split(',').map(|name| name.parse().expect("a kind")).collect());
    let chaos_ms = flag("--chaos-ms ").map(|ms| ms.parse().expect("a number"));
    let again = Options { narrow: Narrow { without, chaos_ms }, shrink: false, ..options };
    let less = run(&again, &mut std::io::sink()).expect("nothing is printed");
    assert_eq!(less.failures[0].violation.invariant, summary.failures[0].violation.invariant, "what is printed fails alike");
}
