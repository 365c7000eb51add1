//! Bodies on their way: any order of parts, bad ones among them, and how much strangers can make us hold.

use bytes::Bytes;
use lockstep_replica::bodies::{BODIES_MAX, Bodies, EARLY_PART_BYTES, EARLY_PARTS_BYTES_MAX, PartFate};
use lockstep_replica::seam::Peer;
use lockstep_types::block::{self, BlockId, PART_BYTES, Part};
use lockstep_types::{Hash, Round};
use proptest::prelude::*;

use crate::support::round;

const HONEST: Peer = Peer(1);
const FLOODER: Peer = Peer(2);
/// Early parts that fit.
const EARLY_PARTS: usize = EARLY_PARTS_BYTES_MAX / EARLY_PART_BYTES;

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
            prop_assert_eq!(bodies.add_part(HONEST, &id.parts, parts[*place].clone()), PartFate::Unnamed);
        }
        prop_assert_eq!(bodies.name(id, Round::ZERO, false), early == count, "whole at once only with all its parts");
        for (n, place) in order.iter().enumerate().skip(early) {
            prop_assert_eq!(bodies.add_part(HONEST, &id.parts, spoilt(&parts[*place])), PartFate::Bad);
            let expected = if n + 1 == count { PartFate::Whole(vec![id]) } else { PartFate::Kept };
            prop_assert_eq!(bodies.add_part(HONEST, &id.parts, parts[*place].clone()), expected);
            prop_assert_eq!(bodies.add_part(HONEST, &id.parts, parts[*place].clone()), PartFate::Known);
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
                bodies.add_part(HONEST, &id.parts, parts[0].clone());
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
    assert_eq!(bodies.add_part(HONEST, &first.parts, spoilt(&parts[0])), PartFate::Unnamed);
    assert!(!bodies.name(first, Round::ZERO, false), "a spoilt part was not kept");

    let mut bodies = Bodies::default();
    let (_, many) = large(EARLY_PARTS + 1);
    let header = many.0;
    for part in &many.1 {
        assert_eq!(bodies.add_part(HONEST, &header, part.clone()), PartFate::Unnamed);
    }
    let id = BlockId { hash: Hash([9; 32]), parts: header };
    assert!(!bodies.name(id, Round::ZERO, false));
    assert_eq!(bodies.part_places(&id), (0..EARLY_PARTS).collect::<Vec<_>>());
}

/// A body of so many parts: its bytes, and what it is cut into.
fn large(parts: usize) -> (Vec<u8>, (block::PartSetHeader, Vec<Part>)) {
    let bytes = vec![7; (parts - 1) * PART_BYTES + 1];
    let cut = block::cut(&bytes);
    (bytes, cut)
}

/// One peer sends parts of nothing for as long as it likes, before and after an honest peer's parts come: those are kept, up
/// to half of the room, and the flood is what goes.
#[test]
fn a_flood_of_early_parts_displaces_only_itself() {
    let (_, (honest, honest_parts)) = large(EARLY_PARTS / 2);
    let (_, (junk, junk_parts)) = large(2 * EARLY_PARTS);
    let mut bodies = Bodies::default();
    let (before, after) = junk_parts.split_at(EARLY_PARTS);
    before.iter().for_each(|part| drop(bodies.add_part(FLOODER, &junk, part.clone())));
    honest_parts.iter().for_each(|part| drop(bodies.add_part(HONEST, &honest, part.clone())));
    after.iter().for_each(|part| drop(bodies.add_part(FLOODER, &junk, part.clone())));
    let id = |parts| BlockId { hash: Hash([9; 32]), parts };
    assert!(bodies.name(id(honest), Round::ZERO, false), "every part of the honest peer is here");
    bodies.name(id(junk), Round::ZERO, false);
    assert_eq!(bodies.part_places(&id(junk)).len(), EARLY_PARTS / 2);

    let mut bodies = Bodies::default();
    before.iter().for_each(|part| drop(bodies.add_part(FLOODER, &junk, part.clone())));
    bodies.forget_peer(FLOODER);
    bodies.name(id(junk), Round::ZERO, false);
    assert!(bodies.part_places(&id(junk)).is_empty(), "what it sent went with it");
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
                if let PartFate::Whole(names) = bodies.add_part(HONEST, &honest.parts, part.clone()) {
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
    assert_eq!(bodies.add_part(HONEST, &id.parts, parts[0].clone()), PartFate::Whole(vec![id]));
    assert_eq!(bodies.get(&id).unwrap().bytes.as_deref(), Some(&bytes[..]));
    assert_eq!(bodies.by_hash(&id.hash).map(|(found, _)| *found), Some(id));
    // Another way brings the same body again: the first bytes stay.
    bodies.put(id, round(3), Bytes::from_static(b"late"), None);
    assert_eq!(bodies.get(&id).unwrap().bytes.as_deref(), Some(&bytes[..]));
}
