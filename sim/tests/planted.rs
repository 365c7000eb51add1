//! A blind simulator is worse than none: each of these bugs, planted in the composition, is found. Those of the consensus core
//! are found by its own seeded network (`consensus/tests`).

use lockstep_replica::planted::{Bug, Planted};
use lockstep_sim::{Options, run};

/// Seeds tried for each bug.
const SEEDS: u64 = 2_000;

/// The first seed that sees a bug, and what it saw.
fn found(bug: Bug) -> Option<(u64, String)> {
    let options = Options { seeds: SEEDS, first: 1, planted: Planted::default().with(bug), fail_fast: true, ..Options::default() };
    let summary = run(&options, &mut std::io::sink()).expect("nothing is printed");
    summary.failures.into_iter().map(|failure| (failure.seed, failure.line)).min()
}

macro_rules! seen {
    ($($name:ident: $bug:ident,)*) => {
        $(
            #[test]
            fn $name() {
                let (seed, line) = found(Bug::$bug).unwrap_or_else(|| panic!("{:?} was planted and {SEEDS} seeds saw nothing", Bug::$bug));
                println!("planted {:?}: seen by seed {seed}: {line}", Bug::$bug);
            }
        )*
    };
}

seen! {
    a_message_that_leaves_before_its_record_is_durable: SendBeforeSync,
    a_lock_on_a_body_that_is_not_durable: BodyNotDurable,
    a_vote_of_the_next_height_before_the_decision_is_durable: VoteBeforeDecision,
    a_guard_record_of_the_next_height_beside_the_decision: GuardBesideDecision,
    a_restart_that_says_only_its_last_message_again: OnlyNewestResent,
    a_restart_that_believes_the_older_record: OlderRecord,
}
