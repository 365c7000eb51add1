//! The server: what fits an answer, and who is served when.

use lockstep_sync::server::{SERVING_MAX, Serve, WAITING_PER_PEER_MAX};
use lockstep_sync::{RANGE_BLOCKS_MAX, RESPONSE_BYTES_MAX, Server, fetched_bytes, plan_response};
use lockstep_types::commit::{CommitSig, SlotSignature};
use lockstep_types::{Address, Height, Signature, Time};
use proptest::prelude::*;

use crate::h;

fn ask(peer: u64, id: u64) -> Serve {
    Serve { peer, id, from: h(1), count: 1 }
}

#[test]
fn what_is_not_there_is_said() {
    let size = |_| Some(1);
    assert_eq!(plan_response(h(10), h(20), h(9), 5, size), None);
    assert_eq!(plan_response(h(10), h(20), h(21), 5, size), None);
    assert_eq!(plan_response(h(10), h(20), h(10), 0, size), None);
    assert_eq!(plan_response(Height::ZERO, h(20), Height::ZERO, 1, size), None);
    assert_eq!(plan_response(h(10), h(20), h(18), 5, size), Some(3));
    assert_eq!(plan_response(h(1), Height::MAX, Height::MAX, u32::MAX, size), Some(1));
    assert_eq!(plan_response(h(1), h(20), h(1), 5, |_| None), None);
}

proptest! {
    #[test]
    fn an_answer_is_the_longest_that_fits(sizes in prop::collection::vec(prop_oneof![1..2_000_000_u64, Just(50_000_000)], 1..100), from in 0..110_u64, count in 0..200_u32) {
        let (base, tip) = (5, 4 + sizes.len() as u64);
        let size_of = |height: Height| Some(sizes[usize::try_from(height.get() - base).unwrap()]);
        let planned = plan_response(h(base), h(tip), h(from), count, size_of);
        let fits = |n: u32| {
            let last = from + u64::from(n) - 1;
            let inside = n >= 1 && n <= count && n <= RANGE_BLOCKS_MAX && from >= base && last <= tip;
            inside && (n == 1 || (from..=last).map(|height| size_of(h(height)).unwrap()).sum::<u64>() <= RESPONSE_BYTES_MAX)
        };
        prop_assert_eq!(planned, (1..=200).filter(|n| fits(*n)).max());
    }
}

#[test]
fn a_block_is_counted_for_at_least_what_it_takes() {
    let slot =
        CommitSig::Commit(SlotSignature { address: Address([1; 20]), timestamp: Time::from_unix_nanos(1), signature: Signature([2; 64]) });
    for slots in [0, 1, 4, 100] {
        let mut commit = crate::commit(7, b"x");
        commit.signatures = vec![slot.clone(); slots];
        // On the wire: the body behind its length, and the commit.
        let written = 4 + 1_000 + borsh::to_vec(&commit).unwrap().len() as u64;
        let counted = fetched_bytes(1_000, slots);
        assert!(counted >= written && counted < written + 200 + 40 * slots as u64, "{counted} for {written}");
    }
}

#[test]
fn a_peer_gets_its_rate_and_not_more() {
    let per_s = 1_000_000;
    let mut server = Server::new(per_s);
    let (mut sent, mut id) = (0, 0);
    for now in 0..60_000 {
        while server.on_request(now, ask(1, id)) {
            id += 1;
        }
        while let Some(serve) = server.next(now) {
            sent += 3_000_000;
            server.served(serve.peer, 3_000_000);
        }
    }
    let most = RESPONSE_BYTES_MAX + 60 * per_s + 3_000_000;
    assert!(sent <= most && sent >= 60 * per_s, "{sent} of {most}");
}

#[test]
fn everyone_has_a_turn_and_nobody_two_at_once() {
    let mut server = Server::new(1_000_000_000);
    for peer in 1..=6 {
        for id in 0..3 {
            assert!(server.on_request(0, ask(peer, id)));
        }
    }
    let first: Vec<Serve> = std::iter::from_fn(|| server.next(0)).collect();
    assert_eq!(first.iter().map(|serve| serve.peer).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(first.len(), SERVING_MAX);
    server.served(2, 10);
    server.served(2, 10);
    assert_eq!(server.next(0).map(|serve| (serve.peer, serve.id)), Some((5, 0)));
    assert_eq!(server.next(0), None, "one was served, once");
    server.peer_gone(1);
    assert_eq!(server.next(0).map(|serve| serve.peer), Some(6));
    server.peer_gone(3);
    assert_eq!(server.next(0).map(|serve| (serve.peer, serve.id)), Some((2, 1)));
}

#[test]
fn a_flood_is_dropped_and_said_to_be_one() {
    let mut server = Server::new(1_000);
    let taken = (0..100).filter(|id| server.on_request(0, ask(1, *id))).count();
    assert_eq!(taken, WAITING_PER_PEER_MAX);
    assert!(server.on_request(0, ask(2, 0)), "the others are not touched");
}

#[test]
fn wakeups_are_when_the_debt_is_paid() {
    let mut server = Server::new(1_000_000);
    assert_eq!(server.wakeup_ms(), None);
    server.on_request(5, ask(1, 0));
    assert_eq!(server.wakeup_ms(), Some(5));
    let serve = server.next(5).unwrap();
    assert_eq!(server.wakeup_ms(), None);
    server.served(serve.peer, RESPONSE_BYTES_MAX + 10_000);
    server.on_request(6, ask(1, 1));
    let at = server.wakeup_ms().unwrap();
    assert_eq!(server.next(at - 1), None);
    assert_eq!(server.next(at), Some(ask(1, 1)));
}
