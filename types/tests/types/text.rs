//! Quantities as text: one spelling each where it matters, and nothing that overflows.

use std::time::Duration;

use proptest::prelude::*;

use lockstep_types::{Address, AppHash, ChainId, ConsensusParams, Hash, Height, NodeId, Power, Round, Time};

use crate::support::*;

#[test]
fn hashes_and_addresses_are_upper_case_and_node_ids_lower_case() {
    assert_eq!(Hash([0xab; 32]).to_string(), "AB".repeat(32));
    assert_eq!(Address([0xab; 20]).to_string(), "AB".repeat(20));
    assert_eq!(NodeId([0xab; 20]).to_string(), "ab".repeat(20));
    assert_eq!("ab".repeat(32).parse(), Ok(Hash([0xab; 32])));
    for bad in ["", "AB", "ABC", &"AB".repeat(31), &"AB".repeat(33), &"XY".repeat(32), &format!("{} ", "A".repeat(63))] {
        assert!(bad.parse::<Hash>().is_err(), "{bad:?}");
    }
    assert_eq!(AppHash::from_bytes(&[0; 65]), None);
    assert_eq!(AppHash::from_bytes(&[0xcd; 2]).unwrap().to_string(), "CDCD");
}

#[test]
fn chain_ids_have_a_rule() {
    for good in ["a", "test-chain_1.0", &"x".repeat(50)] {
        assert_eq!(ChainId::new(good).unwrap().as_str(), good);
    }
    for bad in ["", "a b", "a/b", "\u{e4}", "a\n", &"x".repeat(51)] {
        assert!(ChainId::new(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn numbers_have_bounds() {
    assert_eq!(Height::new(i64::MAX as u64), Some(Height::MAX));
    assert_eq!(Height::new(1 << 63), None);
    assert_eq!(Round::new(1 << 31), None);
    assert_eq!(Power::new(Power::MAX.get() + 1), None);
    assert_eq!(Height::MAX.plus(1), Height::MAX);
    assert_eq!(height(5).plus(u64::MAX), Height::MAX);
    assert_eq!(Height::ZERO.previous(), Height::ZERO);
    assert_eq!(Round::MAX.next(), Round::MAX);
    for bad in ["", "+1", "-1", "1.0", " 1", "9223372036854775808"] {
        assert!(bad.parse::<Height>().is_err(), "{bad:?}");
    }
    assert_eq!(serde_json::to_string(&height(7)).unwrap(), "\"7\"");
    assert_eq!(serde_json::from_str::<Height>("\"7\"").unwrap(), height(7));
    assert!(serde_json::from_str::<Height>("7").is_err());
}

#[test]
fn times_are_written_as_go_writes_them() {
    for (text, seconds, nanos) in [
        ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
        ("1969-12-31T23:59:59.999999999Z", -1, 999_999_999),
        ("1970-01-01T00:00:00Z", 0, 0),
        ("2026-01-02T03:04:05Z", 1_767_323_045, 0),
        ("2026-01-02T03:04:05.1Z", 1_767_323_045, 100_000_000),
        ("2026-01-02T03:04:05.000000006Z", 1_767_323_045, 6),
        ("2024-02-29T00:00:00Z", 1_709_164_800, 0),
        ("9999-12-31T23:59:59.999999999Z", 253_402_300_799, 999_999_999),
    ] {
        let time = Time::new(seconds, nanos).unwrap();
        assert_eq!(time.to_string(), text);
        assert_eq!(text.parse(), Ok(time));
    }
    assert_eq!("2026-01-02T03:04:05.100Z".parse::<Time>(), "2026-01-02T03:04:05.1Z".parse());
    assert_eq!("2026-01-02T04:04:05+01:00".parse::<Time>(), "2026-01-02T03:04:05Z".parse());
    for bad in [
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02t03:04:05Z",
        "2026-01-02T03:04:05z",
        "2026-13-02T03:04:05Z",
        "2026-02-29T03:04:05Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.1234567890Z",
        "2016-12-31T23:59:60Z",
        "2016-12-31T23:59:60.5Z",
        "0000-12-31T23:59:59Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}\u{e4}60",
    ] {
        assert!(bad.parse::<Time>().is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn every_time_comes_back_from_its_text(seconds in -62_135_596_800..=253_402_300_799i64, nanos in 0..1_000_000_000u32) {
        let time = Time::new(seconds, nanos).unwrap();
        prop_assert_eq!(time.to_string().parse(), Ok(time));
        prop_assert_eq!(Time::from_unix_nanos(time.unix_nanos()), time);
    }

    #[test]
    fn arithmetic_of_times_stays_within_the_years(seconds in -62_135_596_800..=253_402_300_799i64, by in any::<u64>(), nanos in any::<i128>()) {
        let (time, duration) = (Time::new(seconds, 5).unwrap(), Duration::from_millis(by));
        let later = time.saturating_add(duration);
        prop_assert!(later >= time);
        prop_assert!(later == Time::MAX || later.since(time) == duration);
        let earlier = time.saturating_sub(duration);
        prop_assert!(earlier <= time);
        prop_assert!(earlier == Time::ZERO || time.since(earlier) == duration);
        prop_assert_eq!(earlier.since(time), Duration::ZERO);
        let any = Time::from_unix_nanos(nanos);
        prop_assert!((Time::ZERO..=Time::MAX).contains(&any));
    }
}

#[test]
fn times_outside_the_years_do_not_exist() {
    assert_eq!(Time::new(-62_135_596_801, 0), None);
    assert_eq!(Time::new(253_402_300_800, 0), None);
    assert_eq!(Time::new(0, 1_000_000_000), None);
    assert_eq!(Time::from_unix_nanos(i128::MIN), Time::ZERO);
    assert_eq!(Time::from_unix_nanos(i128::MAX), Time::MAX);
}

#[test]
fn timeouts_grow_by_their_delta_up_to_the_cap() {
    let params = ConsensusParams::default();
    let millis = |n| Duration::from_millis(n);
    assert_eq!(
        [0, 1, 2, 37, 38, 39, u32::MAX].map(|r| params.timeouts.propose_at(r)),
        [500, 750, 1_000, 9_750, 10_000, 10_000, 10_000].map(millis)
    );
    assert_eq!([0, 1, 98, 99, u32::MAX].map(|r| params.timeouts.vote_at(r)), [200, 300, 10_000, 10_000, 10_000].map(millis));
    let mut huge = params.clone();
    huge.timeouts.propose_delta.0 = u64::MAX;
    assert_eq!(huge.timeouts.propose_at(u32::MAX), millis(10_000));
}

#[test]
fn the_message_delay_grows_by_a_tenth_up_to_a_day() {
    let params = ConsensusParams::default();
    assert_eq!(params.message_delay_at(0), Duration::from_secs(2));
    let mut last = params.message_delay_at(0);
    for r in 1..200 {
        let delay = params.message_delay_at(r);
        let tenth_more = last * 11 / 10;
        let day = Duration::from_secs(86_400);
        assert!(delay >= tenth_more.min(day) && delay <= (tenth_more + Duration::from_micros(2)).min(day), "round {r}");
        last = delay;
    }
    assert_eq!(params.message_delay_at(u32::MAX), Duration::from_secs(86_400));
}
