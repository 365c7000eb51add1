//! Who goes first, who waits, and who is asked again.

use std::collections::BTreeSet;

use lockstep_mempool::{CheckVerdict, Limits, Mempool, REAP_MISFITS_MAX, RECHECK_WAITING_MAX, Removed, Settled, Why};
use lockstep_types::{Hash, Tx};

use crate::{add, id_of, nonce, pass, reaped, small, submit, tx};

#[test]
fn priority_then_arrival() {
    let mut pool = Mempool::new(Limits::default());
    for (id, priority) in [(1, 0), (2, 5), (3, 0), (4, 5), (5, -1), (6, i64::MAX), (7, i64::MIN)] {
        add(&mut pool, id, &pass(priority));
    }
    assert_eq!(reaped(&pool), [6, 2, 4, 1, 3, 5, 7]);
}

#[test]
fn nonces_of_a_sender_stay_in_order_whatever_they_pay() {
    let mut pool = Mempool::new(Limits::default());
    add(&mut pool, 3, &nonce("a", 3, Some(1), 90));
    add(&mut pool, 2, &nonce("a", 2, Some(1), 1));
    add(&mut pool, 9, &pass(50));
    assert_eq!(reaped(&pool), [9], "2 and 3 wait for 1");
    add(&mut pool, 1, &nonce("a", 1, Some(1), 100));
    assert_eq!(reaped(&pool), [1, 9, 2, 3], "3 pays 90, and is worth no more than 2, which it waits for");
}

#[test]
fn a_gap_holds_back_what_is_behind_it_and_nothing_else() {
    let mut pool = Mempool::new(Limits::default());
    for number in [5, 6, 8, 9] {
        add(&mut pool, number, &nonce("a", number, Some(5), 7));
    }
    add(&mut pool, 20, &nonce("b", 4, Some(3), 7));
    assert_eq!(reaped(&pool), [5, 6]);
    assert!(pool.has_executable());
    add(&mut pool, 7, &nonce("a", 7, Some(5), 7));
    assert_eq!(reaped(&pool), [5, 6, 7, 8, 9]);
    // The application says later that 4 of b is the next.
    let hash = Hash::of(tx(20, 8));
    assert_eq!(pool.recheck_result(&hash, &nonce("b", 4, Some(4), 7)), None);
    assert_eq!(reaped(&pool), [5, 6, 20, 7, 8, 9]);
    pool.assert_invariants();
}

#[test]
fn one_that_waits_is_evicted_before_any_that_does_not() {
    let mut pool = Mempool::new(small());
    for number in 2..6 {
        add(&mut pool, number, &nonce("a", number, Some(1), 1_000));
    }
    assert!(!pool.has_executable());
    let (by, settled) = submit(&mut pool, tx(9, 8), &pass(i64::MIN)).unwrap();
    assert_eq!(settled, Settled::Added { removed: vec![Removed { hash: Hash::of(tx(5, 8)), why: Why::Evicted { by } }] });
}

#[test]
fn a_sender_that_floods_does_not_keep_others_out() {
    // "a" pays most and sends without end. "b" and nobody's transactions still find room, and a block takes them as soon
    // as what fits of "a" is used up.
    let mut pool = Mempool::new(Limits { max_txs: 40, max_sender_txs: 10, ..Limits::default() });
    let mut refused = 0;
    for number in 0..100 {
        let (_, settled) = submit(&mut pool, tx(number, 8), &nonce("a", number, Some(0), 1_000)).unwrap();
        refused += usize::from(matches!(settled, Settled::Refused(_)));
    }
    assert_eq!(refused, 90);
    for number in 0..10 {
        add(&mut pool, 1_000 + number, &nonce("b", number, Some(0), 1));
    }
    let block = reaped(&pool);
    assert_eq!(block.iter().filter(|id| **id >= 1_000).count(), 10);
    assert!(block.is_sorted(), "each sender's in order, the better paid first");
}

#[test]
fn a_block_is_never_overfull_and_is_counted_as_borsh_writes_it() {
    let mut pool = Mempool::new(Limits::default());
    for id in 0..30 {
        let verdict = CheckVerdict { gas_wanted: i64::try_from(id).unwrap(), ..pass(0) };
        submit(&mut pool, tx(id, 8 + usize::try_from(id).unwrap()), &verdict).unwrap();
    }
    for max_bytes in [0, 11, 12, 24, 25, 100, 333] {
        let block: Vec<Tx> = pool.reap(max_bytes, -1, usize::MAX).iter().map(lockstep_mempool::PoolTx::to_tx).collect();
        // A list is its length in four bytes, then its elements.
        let written = borsh::to_vec(&block).unwrap().len() - 4;
        assert!(written <= max_bytes, "{written} bytes in {max_bytes}");
        assert_eq!(block.is_empty(), max_bytes < 12);
    }
    assert_eq!(pool.reap(usize::MAX, 10, usize::MAX).len(), 5, "0 + 1 + 2 + 3 + 4");
    assert_eq!(pool.reap(usize::MAX, -1, 7).len(), 7);
    assert_eq!(pool.len(), 30, "reaping takes nothing out");
}

#[test]
fn what_does_not_fit_is_passed_over_with_its_senders_later_nonces() {
    let mut pool = Mempool::new(Limits::default());
    submit(&mut pool, tx(1, 100), &nonce("a", 1, None, 9)).unwrap();
    submit(&mut pool, tx(2, 8), &nonce("a", 2, None, 9)).unwrap();
    submit(&mut pool, tx(3, 8), &pass(1)).unwrap();
    let block: Vec<u64> = pool.reap(50, -1, 10).iter().map(|tx| id_of(&tx.bytes)).collect();
    assert_eq!(block, [3]);
    // Only so many are passed over: the search for a last small one ends.
    let mut pool = Mempool::new(Limits::default());
    for id in 0..REAP_MISFITS_MAX as u64 {
        submit(&mut pool, tx(id, 100), &pass(9)).unwrap();
    }
    submit(&mut pool, tx(9_999, 8), &pass(1)).unwrap();
    assert_eq!(pool.reap(50, -1, 10), vec![]);
}

#[test]
fn a_block_makes_the_next_nonce_executable_before_any_recheck() {
    let mut pool = Mempool::new(Limits::default());
    let hashes: Vec<_> = (1..=20).map(|number| add(&mut pool, number, &nonce("a", number, Some(1), 0))).collect();
    let other = add(&mut pool, 99, &nonce("b", 1, Some(1), 0));
    let again = pool.commit([(hashes[0], 0), (hashes[1], 0)]);
    let again: Vec<_> = again.iter().map(|tx| tx.hash).collect();
    assert_eq!(again, hashes[2..4], "the first of the touched sender, as many as left; nothing of the other");
    assert!(pool.contains(&other));
    let mut expected: Vec<u64> = (3..=20).collect();
    expected.push(99);
    assert_eq!(reaped(&pool), expected);
    // One failed in its block: whether it used its nonce up, only the application knows. Until it says so, the rest waits.
    let again = pool.commit([(hashes[2], 4)]);
    assert_eq!(reaped(&pool), [99]);
    assert_eq!(again.len(), 17, "those that wait are asked about too");
    assert_eq!(pool.recheck_result(&hashes[3], &nonce("a", 4, Some(4), 0)), None);
    assert_eq!(reaped(&pool).len(), 18);
    pool.assert_invariants();
}

#[test]
fn a_failed_recheck_leaves_a_gap() {
    let mut pool = Mempool::new(Limits::default());
    let hashes: Vec<_> = (1..=3).map(|number| add(&mut pool, number, &nonce("a", number, Some(1), 0))).collect();
    let failed = CheckVerdict { code: 8, ..CheckVerdict::default() };
    let removed = pool.recheck_result(&hashes[1], &failed);
    assert_eq!(removed, Some(Removed { hash: hashes[1], why: Why::RecheckFailed { code: 8 } }));
    assert_eq!(pool.recheck_result(&hashes[1], &failed), None);
    assert_eq!((reaped(&pool), pool.len()), (vec![1], 2));
    pool.assert_invariants();
    add(&mut pool, 2, &nonce("a", 2, Some(1), 0));
    assert_eq!(reaped(&pool), [1, 2, 3]);
}

#[test]
fn everything_that_waits_is_asked_again_in_turns() {
    // The gap of each may be filled by a transaction that never came through this pool.
    let mut pool = Mempool::new(Limits::default());
    let count = RECHECK_WAITING_MAX * 3 + 5;
    for id in 0..count as u64 {
        add(&mut pool, id, &nonce(&format!("sender {id}"), 2, Some(1), 0));
    }
    let mut asked = BTreeSet::new();
    for block in 1..=4 {
        let again = pool.commit([]);
        assert!(again.len() <= RECHECK_WAITING_MAX);
        asked.extend(again.into_iter().map(|tx| tx.hash));
        assert_eq!(asked.len(), count.min(block * RECHECK_WAITING_MAX), "nobody is asked twice before everybody was");
    }
    assert_eq!(pool.commit([]).len(), RECHECK_WAITING_MAX, "and then from the front again");
}

#[test]
fn a_sender_of_any_length_is_one_sender() {
    let mut pool = Mempool::new(Limits::default());
    let long = "x".repeat(1_000);
    add(&mut pool, 2, &nonce(&long, 2, Some(1), 0));
    add(&mut pool, 1, &nonce(&long, 1, Some(1), 0));
    add(&mut pool, 3, &nonce(&(long + "y"), 2, Some(1), 0));
    assert_eq!(reaped(&pool), [1, 2]);
}

#[test]
fn gaps_of_many_senders_do_not_fill_the_pool() {
    // Forty senders pay much for a second transaction and never send the first. Whoever pays least still comes in, and is
    // reaped: nothing that waits for ever keeps out what can be executed now.
    let mut pool = Mempool::new(Limits { max_txs: 40, ..Limits::default() });
    for sender in 0..40 {
        add(&mut pool, sender, &nonce(&format!("gap{sender}"), 1, Some(0), 1_000_000));
    }
    assert_eq!((pool.len(), pool.has_executable()), (40, false));
    let enters = |pool: &mut Mempool, id: u64| {
        let (_, settled) = submit(pool, tx(id, 8), &nonce(&format!("honest{id}"), 0, Some(0), 1)).unwrap();
        assert!(matches!(&settled, Settled::Added { removed } if removed.len() == 1), "{settled:?}");
    };
    (100..130).for_each(|id| enters(&mut pool, id));
    assert_eq!(reaped(&pool), (100..130).collect::<Vec<_>>());
    assert_eq!(pool.len(), 40, "they took the places of those that wait");
    // Another gap finds no place among those that can be executed, whatever it pays.
    (130..140).for_each(|id| enters(&mut pool, id));
    let (_, settled) = submit(&mut pool, tx(200, 8), &nonce("gap", 1, Some(0), i64::MAX)).unwrap();
    assert!(matches!(settled, Settled::Refused(_)), "{settled:?}");
    pool.assert_invariants();
}
