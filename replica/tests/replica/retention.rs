//! What of the past may go: whoever needs a block, or its header, has it.

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

/// The highest height whose body may go.
fn highest(retention: Retention, needs: &Needs) -> Option<u64> {
    let below = retention.below(needs)?;
    below.get().checked_sub(1).filter(|highest| *highest > 0)
}

/// The highest height of which evidence has expired.
fn expired(needs: &Needs) -> Option<u64> {
    (1..=100_000).rev().find(|n| needs.has_expired(height(*n), time(i128::from(*n))))
}

#[test]
fn whoever_needs_most_decides() {
    let keep = |keep_blocks| Retention { keep_blocks };
    // The operator.
    assert_eq!(highest(keep(50_000), &needs()), Some(50_000));
    assert_eq!(highest(keep(1), &needs()), Some(98_999), "whoever restores goes on from the snapshot's block");
    // Whoever restores.
    assert_eq!(highest(keep(1), &Needs { oldest_snapshot: Some(height(7_000)), ..needs() }), Some(6_999));
    assert_eq!(highest(keep(1), &Needs { oldest_snapshot: Some(height(1)), ..needs() }), None);
    // The next start.
    assert_eq!(highest(keep(1), &Needs { flushed: height(300), ..needs() }), Some(299));
}

#[test]
fn evidence_expires_by_blocks_and_by_time() {
    let with = |max_age_num_blocks, seconds: u64| {
        let evidence = EvidenceParams { max_age_num_blocks, max_age_duration_ns: seconds * 1_000_000_000, max_bytes: 0 };
        expired(&Needs { evidence, ..needs() })
    };
    assert_eq!(with(40_000, 1), Some(59_999));
    assert_eq!(with(1, 40_000), Some(59_999));
    assert_eq!(with(1, 200_000), None, "younger than the window is all of it");
}

#[test]
fn nothing_goes_unless_it_was_asked_for_and_a_snapshot_is_kept() {
    assert_eq!(highest(Retention { keep_blocks: 0 }, &needs()), None);
    assert_eq!(highest(Retention { keep_blocks: 1 }, &Needs { oldest_snapshot: None, ..needs() }), None);
    assert_eq!(highest(Retention { keep_blocks: 100_000 }, &needs()), None, "all that there is");
    assert_eq!(highest(Retention { keep_blocks: u64::MAX }, &needs()), None);
}
