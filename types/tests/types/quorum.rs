//! The thresholds against what they are for, and against the rounded formula of the specification.

use lockstep_types::Power;
use lockstep_types::primitives::TOTAL_POWER_MAX;
use lockstep_types::quorum::Quorum;

fn is_quorum(power: u64, total: u64) -> bool {
    Quorum::Byzantine.is_quorum(Power::new(power).unwrap(), Power::new(total).unwrap())
}

fn has_correct(power: u64, total: u64) -> bool {
    Quorum::Byzantine.has_correct(Power::new(power).unwrap(), Power::new(total).unwrap())
}

/// The most power that may be faulty: below a third.
fn faulty_max(total: u64) -> u64 {
    total.div_ceil(3).saturating_sub(1)
}

#[test]
fn every_small_total_and_every_power() {
    for total in 1..=200u64 {
        let faulty = faulty_max(total);
        assert!(faulty * 3 < total && (faulty + 1) * 3 >= total);
        for power in 0..=total {
            // The specification's words: more than floor(2/3 of the total).
            assert_eq!(is_quorum(power, total), u128::from(power) > u128::from(total) * 2 / 3, "{power} of {total}");
            // One more than what may be faulty holds somebody correct. At a total divisible by three the rule asks for
            // more than a third all the same.
            assert_eq!(has_correct(power, total), u128::from(power) > u128::from(total) / 3, "{power} of {total}");
            assert!(!has_correct(power, total) || power > faulty);
        }
    }
}

#[test]
fn two_quorums_share_somebody_correct_and_the_correct_are_a_quorum() {
    for total in 1..=200u64 {
        let smallest = (0..=total).find(|power| is_quorum(*power, total)).unwrap();
        assert!(2 * smallest - total > faulty_max(total), "total {total}");
        assert!(is_quorum(total - faulty_max(total), total), "total {total}");
        assert!(!is_quorum(smallest - 1, total));
    }
}

#[test]
fn one_unit_decides_at_the_largest_totals() {
    for total in (TOTAL_POWER_MAX - 3..=TOTAL_POWER_MAX).chain([1 << 59, (1 << 59) + 1]) {
        let two_thirds = u64::try_from(u128::from(total) * 2 / 3).unwrap();
        assert!(!is_quorum(two_thirds, total));
        assert!(is_quorum(two_thirds + 1, total));
        assert!(!has_correct(total / 3, total));
        assert!(has_correct(total / 3 + 1, total));
        assert!(is_quorum(total, total) && !is_quorum(0, total) && !has_correct(0, total));
    }
}

#[test]
#[should_panic(expected = "a part is not larger than the whole")]
fn a_part_above_the_whole_is_our_own_mistake() {
    is_quorum(2, 1);
}
