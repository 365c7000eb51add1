//! Bodies on their way: any order of parts, bad ones among them, and how much strangers can make us hold.

use bytes::Bytes;
use lockstep_replica::bodies::{BODIES_MAX, Bodies, EARLY_PARTS_MAX, PartFate};
use lockstep_types::block::{self, BlockId, PART_BYTES, Part};
use lockstep_types::{Hash, Round};
use proptest::prelude::*;

use crate::support::round;

/// A body of `parts` parts that `seed` tells from others, its name and its parts.
fn body(seed: u8, parts: usize) -> (BlockId, Vec<u8>, Vec<Part>) {
    let bytes: Vec<u8> = (0..=250).cycle().take((parts - 1) * PART_BYTES + 17).map(|n: u8| seed.wrapping_add(n)).collect();
    let (header, parts) = block::cut(&bytes);
    (BlockId { hash: Hash([seed; 32]), parts: header }, bytes, parts)
}

fn spoilt(part: &Part) -> Part {
    let mut part = part.clone();
    part.bytes[0] ^= 1;
    part
}

/// 0 to `len` - 1 in an order that `random` decides.
fn shuffled(len: usize, random: &[u32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.sort_by_key(|place| (random[place % random.len()].wrapping_mul(u32::try_from(*place).unwrap() + 1), *place));
    order
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Parts in any order, each with a spoilt one before it and a repeated one behind it, some before the name: the body
    /// comes out, once.
    #[test]
    fn parts_in_any_order_make_the_body(random in prop::collection::vec(any::<u32>(), 9), count in 1usize..7, early in 0usize..7) {
        let (id, bytes, parts) = body(3, count);
        let mut bodies = Bodies::default();
        let order = shuffled(count, &random);
        let early = early.min(count);
        for place in &order[..early] {
            prop_assert_eq!(bodies.add_part(&id.parts, parts[*place].clone()), PartFate::Unnamed);
        }
        prop_assert_eq!(bodies.name(id, Round::ZERO, false), early == count, "whole at once only with all its parts");
        for (n, place) in order.iter().enumerate().skip(early) {
            prop_assert_eq!(bodies.add_part(&id.parts, spoilt(&parts[*place])), PartFate::Bad);
            let expected = if n + 1 == count { PartFate::Whole(vec![id]) } else { PartFate::Kept };
            prop_assert_eq!(bodies.add_part(&id.parts, parts[*place].clone()), expected);
            prop_assert_eq!(bodies.add_part(&id.parts, parts[*place].clone()), PartFate::Known);
        }
        prop_assert_eq!(bodies.get(&id).unwrap().bytes.as_deref(), Some(&bytes[..]));
        prop_assert_eq!(bodies.part_places(&id), (0..count).collect::<Vec<_>>());
        for part in &parts {
            let held = bodies.part(&id, part.index);
            prop_assert_eq!(held.as_ref(), Some(part));
        }
    }

    /// Whatever names and parts arrive, bodies and early parts stay within their bounds, and one that a quorum named stays.
    #[test]
    fn strangers_cannot_make_us_hold_more(events in prop::collection::vec((0u8..60, 0u32..9, any::<bool>()), 0..200)) {
        let (locked, locked_bytes, _) = body(200, 1);
        let mut bodies = Bodies::default();
        bodies.name(locked, Round::ZERO, true);
        bodies.put(locked, Round::ZERO, Bytes::from(locked_bytes.clone()), None);
        for (seed, at, by_name) in events {
            let (id, _, parts) = body(seed, 1);
            if by_name {
                bodies.name(id, round(at), false);
            } else {
                bodies.add_part(&id.parts, parts[0].clone());
            }
            prop_assert!(bodies.iter().count() <= BODIES_MAX);
            prop_assert_eq!(bodies.get(&locked).and_then(|body| body.bytes.as_deref()), Some(&locked_bytes[..]));
        }
    }
}

#[test]
fn early_parts_have_a_bound_and_must_prove_their_place() {
    let mut bodies = Bodies::default();
    let (first, _, parts) = body(0, 1);
    assert_eq!(bodies.add_part(&first.parts, spoilt(&parts[0])), PartFate::Unnamed);
    assert!(!bodies.name(first, Round::ZERO, false), "a spoilt part was not kept");

    let mut bodies = Bodies::default();
    let many: Vec<_> = (0..=EARLY_PARTS_MAX).map(|seed| u8::try_from(seed).unwrap()).map(|seed| body(seed, 1)).collect();
    for (id, _, parts) in &many {
        bodies.add_part(&id.parts, parts[0].clone());
    }
    let kept = many.iter().filter(|(id, _, _)| bodies.name(*id, Round::ZERO, false)).count();
    assert_eq!(kept, EARLY_PARTS_MAX);
}

/// A proposer who saw another's proposal names its parts under a hash of its own, before and after the honest name, with
/// some parts there and with all. The honest body comes out whichever name sorts first.
#[test]
fn a_name_with_anothers_parts_does_not_keep_them_from_it() {
    let (honest, bytes, parts) = body(7, 3);
    for hash in [Hash([0; 32]), Hash([0xff; 32])] {
        let bogus = BlockId { hash, ..honest };
        for named_at in 0..=3 {
            let mut bodies = Bodies::default();
            bodies.name(bogus, round(1), false);
            let mut whole = false;
            for (n, part) in parts.iter().enumerate() {
                if n == named_at {
                    whole |= bodies.name(honest, Round::ZERO, false);
                }
                if let PartFate::Whole(names) = bodies.add_part(&honest.parts, part.clone()) {
                    whole |= names.contains(&honest);
                }
            }
            if named_at == 3 {
                whole |= bodies.name(honest, Round::ZERO, false);
            }
            assert!(whole, "named before part {named_at}");
            assert_eq!(bodies.get(&honest).unwrap().bytes.as_deref(), Some(&bytes[..]));
            assert_eq!(bodies.get(&honest).unwrap().round, Round::ZERO);
        }
    }
}

#[test]
fn the_oldest_that_no_quorum_named_makes_room() {
    let mut bodies = Bodies::default();
    let ids: Vec<BlockId> = (0..=BODIES_MAX).map(|seed| u8::try_from(seed).unwrap()).map(|seed| body(seed, 1).0).collect();
    for (r, id) in (0..).zip(&ids) {
        bodies.name(*id, round(r), r == 0);
    }
    assert!(bodies.get(&ids[0]).is_some(), "a quorum named it");
    assert!(bodies.get(&ids[1]).is_none(), "the oldest of the others");
    assert!(ids[2..].iter().all(|id| bodies.get(id).is_some()));
    // Who is named again in a later round is not old.
    bodies.name(ids[2], round(40), false);
    bodies.name(body(99, 1).0, round(41), false);
    assert!(bodies.get(&ids[2]).is_some() && bodies.get(&ids[3]).is_none());
}

#[test]
fn bytes_that_were_not_the_bodys_are_forgotten_and_collected_again() {
    let (id, bytes, parts) = body(5, 1);
    let mut bodies = Bodies::default();
    bodies.put(id, round(2), Bytes::from_static(b"something else"), None);
    bodies.forget_bytes(&id);
    assert_eq!(bodies.get(&id).map(|body| (body.bytes.clone(), body.round)), Some((None, round(2))));
    assert_eq!(bodies.add_part(&id.parts, parts[0].clone()), PartFate::Whole(vec![id]));
    assert_eq!(bodies.get(&id).unwrap().bytes.as_deref(), Some(&bytes[..]));
    assert_eq!(bodies.by_hash(&id.hash).map(|(found, _)| *found), Some(id));
    // Another way brings the same body again: the first bytes stay.
    bodies.put(id, round(3), Bytes::from_static(b"late"), None);
    assert_eq!(bodies.get(&id).unwrap().bytes.as_deref(), Some(&bytes[..]));
}
