//! Each body crosses each link about once.

use lockstep_mempool::{Forward, HEARD_MAX, Limits, Mempool, Origin, PoolTx};

use crate::{id_of, pass, tx};

fn put(pool: &mut Mempool, id: u64, len: usize, origin: Origin) {
    let hash = pool.begin(tx(id, len), origin).expect("there is room");
    pool.settle(hash, &pass(0));
}

fn ids(batch: &[PoolTx]) -> Vec<u64> {
    batch.iter().map(|tx| id_of(&tx.bytes)).collect()
}

fn told(pool: &mut Mempool, peer: u64, forward: Forward) -> Vec<u64> {
    ids(&pool.next_batch(peer, forward, 1 << 20, 1_000))
}

#[test]
fn in_a_full_mesh_nobody_forwards() {
    let mut pool = Mempool::new(Limits::default());
    pool.peer_up(1);
    pool.peer_up(2);
    put(&mut pool, 10, 8, Origin::Client);
    put(&mut pool, 11, 8, Origin::Peer(1));
    put(&mut pool, 12, 8, Origin::Client);
    assert_eq!(pool.untold(1), 3);
    assert_eq!(told(&mut pool, 1, Forward::OwnOnly), [10, 12]);
    assert_eq!(told(&mut pool, 1, Forward::OwnOnly), []);
    assert_eq!(pool.untold(1), 0);
    put(&mut pool, 13, 8, Origin::Client);
    assert_eq!(told(&mut pool, 1, Forward::OwnOnly), [13]);
    assert_eq!(told(&mut pool, 2, Forward::OwnOnly), [10, 12, 13]);
}

#[test]
fn elsewhere_everything_is_forwarded_but_never_back() {
    let mut pool = Mempool::new(Limits::default());
    pool.peer_up(1);
    pool.peer_up(2);
    put(&mut pool, 10, 8, Origin::Peer(1));
    put(&mut pool, 11, 8, Origin::Peer(2));
    put(&mut pool, 12, 8, Origin::Client);
    pool.begin(tx(12, 8), Origin::Peer(2)).unwrap_err();
    assert_eq!(told(&mut pool, 1, Forward::All), [11, 12]);
    assert_eq!(told(&mut pool, 2, Forward::All), [10], "it gave us 12 too");
}

#[test]
fn a_batch_keeps_its_bounds_and_resumes_behind_itself() {
    let mut pool = Mempool::new(Limits::default());
    pool.peer_up(1);
    for (id, len) in [(1, 10), (2, 10), (3, 500), (4, 10), (5, 10)] {
        put(&mut pool, id, len, Origin::Client);
    }
    let mut next = |max_bytes, max_count| ids(&pool.next_batch(1, Forward::OwnOnly, max_bytes, max_count));
    assert_eq!(next(28, 10), [1, 2]);
    assert_eq!(next(28, 10), [3], "larger than a batch: alone");
    assert_eq!(next(28, 1), [4]);
    assert_eq!(next(28, 10), [5]);
    assert_eq!(next(28, 10), []);
}

#[test]
fn what_left_is_not_told_and_a_new_connection_is_told_all() {
    let mut pool = Mempool::new(Limits::default());
    put(&mut pool, 1, 8, Origin::Client);
    put(&mut pool, 2, 8, Origin::Client);
    pool.commit([(lockstep_types::Hash::of(tx(1, 8)), 0)]);
    assert_eq!(told(&mut pool, 7, Forward::All), [], "nobody is there");
    pool.peer_up(7);
    assert_eq!(told(&mut pool, 7, Forward::All), [2]);
    pool.peer_down(7);
    assert_eq!((told(&mut pool, 7, Forward::All), pool.untold(7)), (vec![], 0));
    pool.peer_up(7);
    assert_eq!(told(&mut pool, 7, Forward::All), [2]);
}

#[test]
fn what_is_remembered_of_repeats_is_bounded() {
    let mut pool = Mempool::new(Limits::default());
    put(&mut pool, 1, 8, Origin::Peer(0));
    let many = HEARD_MAX as u64 + 3;
    for peer in 1..=many {
        pool.begin(tx(1, 8), Origin::Peer(peer)).unwrap_err();
        pool.peer_up(peer);
    }
    let told: usize = (1..=many).map(|peer| told(&mut pool, peer, Forward::All).len()).sum();
    assert_eq!(told, 3, "those beyond the bound are sent what they have");
}
