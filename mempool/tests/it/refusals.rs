//! What a client is told, word for word where other programs read the words.

use lockstep_mempool::{CheckVerdict, Limits, Mempool, Origin, Refused, Removed, Settled, Status, Why};

use crate::{add, nonce, pass, reaped, small, submit, tx};

fn code(code: u32) -> CheckVerdict {
    CheckVerdict { code, ..pass(0) }
}

#[test]
fn the_three_texts_of_cometbft() {
    let mut pool = Mempool::new(Limits { evict: false, ..small() });
    add(&mut pool, 1, &pass(0));
    let repeated = pool.begin(tx(1, 8), Origin::Client).unwrap_err();
    assert_eq!(repeated.to_string(), "tx already exists in cache");
    let large = pool.begin(tx(2, 33), Origin::Client).unwrap_err();
    assert_eq!(large.to_string(), "Tx too large. Max size is 32, but got 33");
    add(&mut pool, 3, &pass(0));
    add(&mut pool, 4, &pass(0));
    add(&mut pool, 5, &pass(0));
    let full = pool.begin(tx(6, 9), Origin::Client).unwrap_err();
    assert_eq!(full.to_string(), "mempool is full: number of txs 4 (max: 4), total txs bytes 32 (max: 64)");
}

#[test]
fn full_is_said_before_too_large_and_before_repeated() {
    for evict in [false, true] {
        let mut pool = Mempool::new(Limits { evict, ..small() });
        for id in 0..4 {
            add(&mut pool, id, &pass(0));
        }
        assert!(matches!(pool.begin(tx(9, 33), Origin::Client), Err(Refused::Full { txs: 4, .. })));
    }
    let mut pool = Mempool::new(Limits { evict: false, ..small() });
    for id in 0..4 {
        add(&mut pool, id, &pass(0));
    }
    assert!(matches!(pool.begin(tx(0, 8), Origin::Client), Err(Refused::Full { .. })));
}

#[test]
fn bytes_fill_a_pool_as_well_as_counts() {
    let mut pool = Mempool::new(Limits { evict: false, ..small() });
    submit(&mut pool, tx(1, 32), &pass(0)).unwrap();
    submit(&mut pool, tx(2, 25), &pass(0)).unwrap();
    let full = pool.begin(tx(3, 8), Origin::Client).unwrap_err();
    assert_eq!(full, Refused::Full { txs: 2, max_txs: 4, bytes: 57, max_bytes: 64 });
    let (_, settled) = submit(&mut pool, [7; 7].into(), &pass(0)).unwrap();
    assert_eq!(settled, Settled::Added { removed: vec![] });
}

#[test]
fn what_is_being_checked_takes_room_that_was_promised_to_it() {
    // With nothing to displace, a check that begins ends in the pool: nobody is told "full" after the work.
    let mut pool = Mempool::new(Limits { evict: false, ..small() });
    let hashes: Vec<_> = (0..4).map(|id| pool.begin(tx(id, 8), Origin::Client).unwrap()).collect();
    assert!(matches!(pool.begin(tx(4, 8), Origin::Client), Err(Refused::Full { txs: 4, .. })));
    for hash in hashes {
        assert_eq!(pool.settle(hash, &pass(0)), Settled::Added { removed: vec![] });
    }
}

#[test]
fn checks_outstanding_are_bounded() {
    let mut pool = Mempool::new(Limits { max_checking_txs: 2, ..small() });
    let first = pool.begin(tx(0, 8), Origin::Client).unwrap();
    pool.begin(tx(1, 8), Origin::Client).unwrap();
    assert_eq!(pool.begin(tx(2, 8), Origin::Client), Err(Refused::Busy { checking: 2, max: 2 }));
    pool.abandon(&first);
    pool.begin(tx(2, 8), Origin::Client).unwrap();
    assert_eq!(pool.checking(), 2);
    pool.assert_invariants();
}

#[test]
fn a_failed_check_is_forgotten() {
    let mut pool = Mempool::new(small());
    let (hash, settled) = submit(&mut pool, tx(1, 8), &code(5)).unwrap();
    assert_eq!(settled, Settled::Rejected);
    assert_eq!(pool.status(&hash), None);
    let (_, settled) = submit(&mut pool, tx(1, 8), &pass(0)).unwrap();
    assert_eq!(settled, Settled::Added { removed: vec![] });
}

#[test]
fn a_committed_transaction_is_refused_as_a_repeat_until_it_is_forgotten() {
    let mut pool = Mempool::new(small());
    let hash = add(&mut pool, 1, &pass(0));
    assert_eq!(pool.commit([(hash, 0)]), vec![]);
    assert_eq!((pool.len(), pool.status(&hash)), (0, Some(Status::Committed)));
    // Four are remembered. Three others are committed; then the first is seen again, and so the second is forgotten first.
    let others: Vec<_> = (2..5).map(|id| lockstep_types::Hash::of(tx(id, 8))).collect();
    pool.commit(others.iter().map(|hash| (*hash, 0)));
    assert_eq!(pool.begin(tx(1, 8), Origin::Client), Err(Refused::AlreadyInCache));
    pool.commit([(lockstep_types::Hash::of(tx(5, 8)), 0)]);
    assert_eq!(pool.begin(tx(1, 8), Origin::Client), Err(Refused::AlreadyInCache));
    assert_eq!(pool.status(&others[0]), None);
    pool.assert_invariants();
}

#[test]
fn one_that_failed_in_its_block_leaves_and_may_come_again() {
    let mut pool = Mempool::new(small());
    let hash = add(&mut pool, 1, &pass(0));
    pool.commit([(hash, 3)]);
    assert_eq!((pool.len(), pool.status(&hash)), (0, None));
    add(&mut pool, 1, &pass(0));
}

#[test]
fn a_block_overtakes_a_check() {
    let mut pool = Mempool::new(small());
    let hash = pool.begin(tx(1, 8), Origin::Client).unwrap();
    pool.commit([(hash, 0)]);
    assert_eq!(pool.settle(hash, &pass(0)), Settled::Unknown);
    assert_eq!((pool.len(), pool.checking(), pool.status(&hash)), (0, 0, Some(Status::Committed)));
    pool.assert_invariants();
}

#[test]
fn a_full_pool_yields_to_higher_priority_only_and_says_who_left() {
    let mut pool = Mempool::new(small());
    for (id, priority) in [(1, 5), (2, 3), (3, 3), (4, 9)] {
        add(&mut pool, id, &pass(priority));
    }
    // An equal one came first.
    let (_, settled) = submit(&mut pool, tx(5, 8), &pass(3)).unwrap();
    assert_eq!(settled, Settled::Refused(Refused::Full { txs: 4, max_txs: 4, bytes: 32, max_bytes: 64 }));
    assert_eq!(pool.status(&lockstep_types::Hash::of(tx(5, 8))), None, "refused is forgotten: it may try again");
    // Of two that are worth least, the later one goes.
    let (by, settled) = submit(&mut pool, tx(6, 8), &pass(4)).unwrap();
    let third = lockstep_types::Hash::of(tx(3, 8));
    assert_eq!(settled, Settled::Added { removed: vec![Removed { hash: third, why: Why::Evicted { by } }] });
    assert_eq!(reaped(&pool), [4, 1, 6, 2]);
    add_after_eviction(&mut pool);
}

/// An evicted transaction is not remembered: its client may send it again when there is room.
fn add_after_eviction(pool: &mut Mempool) {
    let all: Vec<_> = pool.iter().map(|tx| (tx.hash, 0)).collect();
    pool.commit(all);
    add(pool, 3, &pass(3));
}

#[test]
fn a_large_newcomer_displaces_several_or_nobody() {
    let mut pool = Mempool::new(small());
    for (id, priority) in [(1, 1), (2, 2), (3, 8), (4, 3)] {
        submit(&mut pool, tx(id, 16), &pass(priority)).unwrap();
    }
    let before = reaped(&pool);
    // 32 bytes take two places; the second of these is worth more than the newcomer.
    let (_, settled) = submit(&mut pool, tx(5, 32), &pass(2)).unwrap();
    assert!(matches!(settled, Settled::Refused(Refused::Full { .. })));
    assert_eq!(reaped(&pool), before, "who is refused displaces nobody");
    let (_, settled) = submit(&mut pool, tx(6, 32), &pass(4)).unwrap();
    assert!(matches!(settled, Settled::Added { removed } if removed.len() == 2));
    assert_eq!(reaped(&pool), [3, 6, 4]);
}

#[test]
fn a_sender_has_a_share_and_no_more() {
    let mut pool = Mempool::new(Limits { max_sender_txs: 2, ..small() });
    add(&mut pool, 1, &nonce("a", 1, None, 9));
    add(&mut pool, 2, &nonce("a", 2, None, 9));
    let (_, settled) = submit(&mut pool, tx(3, 8), &nonce("a", 3, None, 9)).unwrap();
    assert_eq!(settled, Settled::Refused(Refused::SenderFull { txs: 2, max_txs: 2, bytes: 16, max_bytes: 64 }));
    // The others' room is untouched, at any priority.
    add(&mut pool, 4, &nonce("b", 1, None, 0));
    add(&mut pool, 5, &pass(0));
    // But a full share does not stop its owner from filling a gap: the last one makes room.
    let (by, settled) = submit(&mut pool, tx(6, 8), &nonce("a", 0, None, 9)).unwrap();
    let last = lockstep_types::Hash::of(tx(2, 8));
    assert_eq!(settled, Settled::Added { removed: vec![Removed { hash: last, why: Why::Evicted { by } }] });
}

#[test]
fn a_nonce_is_replaced_by_a_tenth_more() {
    let mut pool = Mempool::new(small());
    let first = add(&mut pool, 1, &nonce("a", 7, None, 100));
    let (_, settled) = submit(&mut pool, tx(2, 8), &nonce("a", 7, None, 109)).unwrap();
    assert_eq!(settled, Settled::Refused(Refused::NonceTaken { nonce: 7, holder: first, needed: 110 }));
    let (by, settled) = submit(&mut pool, tx(2, 8), &nonce("a", 7, None, 110)).unwrap();
    assert_eq!(settled, Settled::Added { removed: vec![Removed { hash: first, why: Why::Replaced { by } }] });
    // At the very top nothing is higher, and nothing overflows.
    let mut pool = Mempool::new(small());
    add(&mut pool, 1, &nonce("a", 7, None, i64::MAX));
    let (_, settled) = submit(&mut pool, tx(2, 8), &nonce("a", 7, None, i64::MAX)).unwrap();
    assert!(matches!(settled, Settled::Refused(Refused::NonceTaken { .. })));
    let mut pool = Mempool::new(small());
    add(&mut pool, 1, &nonce("a", u64::MAX, Some(u64::MAX), i64::MIN));
    let (_, settled) = submit(&mut pool, tx(2, 8), &nonce("a", u64::MAX, None, i64::MAX)).unwrap();
    assert!(matches!(settled, Settled::Added { .. }));
    let hash = pool.iter().next().unwrap().hash;
    pool.commit([(hash, 0)]);
    pool.assert_invariants();
}

#[test]
fn what_no_block_can_hold_is_refused_and_leaves_when_blocks_shrink() {
    let mut pool = Mempool::new(Limits { max_tx_gas: 100, ..small() });
    let greedy = CheckVerdict { gas_wanted: 101, ..pass(0) };
    let (_, settled) = submit(&mut pool, tx(1, 8), &greedy).unwrap();
    assert_eq!(settled, Settled::Refused(Refused::TooMuchGas { max: 100, got: 101 }));
    let fits = submit(&mut pool, tx(2, 8), &CheckVerdict { gas_wanted: 60, ..pass(0) }).unwrap().0;
    let large = submit(&mut pool, tx(3, 20), &CheckVerdict { gas_wanted: 50, ..pass(0) }).unwrap().0;
    assert_eq!(pool.set_block_bounds(32, 50), vec![Removed { hash: fits, why: Why::NoBlockHoldsIt }]);
    assert_eq!(pool.set_block_bounds(19, -1), vec![Removed { hash: large, why: Why::NoBlockHoldsIt }]);
    assert!(matches!(pool.begin(tx(4, 20), Origin::Client), Err(Refused::TooLarge { max: 19, got: 20 })));
    pool.assert_invariants();
}

#[test]
fn limits_that_contradict_each_other_are_named() {
    let error = Limits { max_sender_bytes: 10, max_tx_bytes: 11, ..Limits::default() }.check().unwrap_err();
    assert_eq!(error, "max_sender_bytes is 10, and must be at least 11: the largest transaction must fit a share");
    assert_eq!(Limits::default().check(), Ok(()));
}
