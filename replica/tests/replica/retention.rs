//! What of the log may go: whoever needs a block has it.

use lockstep_replica::retention::{Needs, Retention};
use lockstep_types::params::EvidenceParams;
use lockstep_types::{Height, Time};

const SECOND: i128 = 1_000_000_000;

fn height(n: u64) -> Height {
    Height::new(n).expect("a height")
}

fn time(seconds: i128) -> Time {
    Time::from_unix_nanos(seconds * SECOND)
}

/// A chain of 100,000 blocks of a second each, with evidence of 1,000 blocks and 500 seconds.
fn needs() -> Needs {
    Needs {
        tip: height(100_000),
        tip_time: time(100_000),
        flushed: height(99_900),
        oldest_snapshot: Some(height(99_000)),
        names: 100,
        evidence: EvidenceParams { max_age_num_blocks: 1_000, max_age_duration_ns: 500_000_000_000, max_bytes: 0 },
    }
}

/// The highest height that may go.
fn highest(retention: Retention, needs: &Needs) -> Option<u64> {
    (1..=100_000).rev().find(|n| retention.may_go(needs, height(*n), time(i128::from(*n))))
}

#[test]
fn whoever_needs_most_decides() {
    let keep = |keep_blocks| Retention { keep_blocks };
    let recent = needs().names;
    // The operator.
    assert_eq!(highest(keep(50_000), &needs()), Some(50_000));
    assert_eq!(highest(keep(1), &needs()), Some(99_000 - recent - 1), "the snapshot and the names below it");
    // Whoever restores.
    assert_eq!(highest(keep(1), &Needs { oldest_snapshot: Some(height(7_000)), ..needs() }), Some(7_000 - recent - 1));
    assert_eq!(highest(keep(1), &Needs { oldest_snapshot: Some(height(recent)), ..needs() }), None);
    // Judges of evidence, by blocks and by time: it has expired only by both.
    let with = |max_age_num_blocks, seconds: u64| {
        let evidence = EvidenceParams { max_age_num_blocks, max_age_duration_ns: seconds * 1_000_000_000, max_bytes: 0 };
        highest(keep(1), &Needs { evidence, ..needs() })
    };
    assert_eq!(with(40_000, 1), Some(59_999));
    assert_eq!(with(1, 40_000), Some(59_999));
    assert_eq!(with(1, 200_000), None, "younger than the window is all of it");
    // The next start.
    assert_eq!(highest(keep(1), &Needs { flushed: height(300), ..needs() }), Some(299));
}

#[test]
fn nothing_goes_unless_it_was_asked_for_and_a_snapshot_is_kept() {
    assert_eq!(highest(Retention { keep_blocks: 0 }, &needs()), None);
    assert_eq!(highest(Retention { keep_blocks: 1 }, &Needs { oldest_snapshot: None, ..needs() }), None);
    assert_eq!(highest(Retention { keep_blocks: 100_000 }, &needs()), None, "all that there is");
    assert_eq!(highest(Retention { keep_blocks: u64::MAX }, &needs()), None);
}
