//! What clients are told of their transactions, for every outcome.

use std::sync::Arc;

use lockstep_app::token::{Payment, Transfer};
use lockstep_app::{Bundled, CheckKind, GenesisInput, Host, State, Verdict};
use lockstep_mempool::{Limits, TxBytes};
use lockstep_replica::effects::Effects;
use lockstep_replica::pool::{Pool, WAITING_MAX};
use lockstep_replica::seam::{Effect, Lane, Outcome, Peer, Reply, RequestId, Target, Ticket, Wait};
use lockstep_replica::wire::{Message, TxBatch};
use lockstep_types::{AppHash, Block, ChainId, ConsensusParams, Hash, Power, PrivateKey, Signature, Time, Tx, TxResult, ValidatorUpdate};

use crate::desk::{Desk, Made};
use crate::support::*;

fn tx(text: &str) -> TxBytes {
    text.as_bytes().into()
}

fn verdict(code: u32, priority: i64) -> Verdict {
    Verdict { code, priority, ..Verdict::default() }
}

fn pool_of(max_txs: usize) -> Pool {
    Pool::new(Limits { max_txs, ..Limits::default() })
}

/// A block of these transactions and what came of it.
fn executed(txs: &[&str]) -> (Block, Outcome) {
    let (chain, _, _) = start(&genesis(1));
    let header = chain.next_header(chain.last_time, key(1).public_key().address());
    let txs: Vec<Tx> = txs.iter().map(|text| Tx(text.as_bytes().to_vec())).collect();
    let results = txs.iter().map(|_| TxResult::default()).collect();
    let outcome = Outcome {
        height: height(1),
        app_hash: AppHash::default(),
        results_hash: Hash::EMPTY_LIST,
        results: Arc::new(results),
        events: Vec::new(),
        validator_updates: Vec::new(),
        params: None,
        standing: Arc::default(),
        unflushed_keys: 0,
        checkpoint: false,
    };
    (Block { header, txs, evidence: Vec::new(), last_commit: None }, outcome)
}

/// Answers since the last time, in few words: request, what, tickets waited for.
fn answers(fx: &mut Effects) -> Vec<(u64, String, Vec<Ticket>)> {
    let answer = |effect| match effect {
        Effect::Reply { request, after, reply } => {
            let what = match reply {
                Reply::Checked { verdict, .. } => format!("checked {:?}", verdict.map(|verdict| verdict.code)),
                Reply::Committed { height, .. } => format!("committed {height}"),
                Reply::Refused { reason, .. } => reason,
                Reply::Evidence { hash, .. } => format!("evidence {hash}"),
            };
            Some((request.0, what, after))
        }
        _ => None,
    };
    fx.take().into_iter().filter_map(answer).collect()
}

#[test]
fn each_client_is_told_what_it_waits_for_and_once() {
    let (mut pool, mut fx) = (pool_of(10), Effects::default());
    let (admission, _) = pool.submit(RequestId(1), tx("a=1"), Wait::Admission, &mut fx).unwrap();
    let (check, _) = pool.submit(RequestId(2), tx("b=1"), Wait::Check, &mut fx).unwrap();
    let (commit, _) = pool.submit(RequestId(3), tx("c=1"), Wait::Commit, &mut fx).unwrap();
    assert_eq!(answers(&mut fx), [(1, "checked None".into(), vec![])]);
    for hash in [admission, check, commit] {
        assert!(pool.settle(hash, &verdict(0, 0), &mut fx));
    }
    assert_eq!(answers(&mut fx), [(2, "checked Some(0)".into(), vec![])]);
    let (block, outcome) = executed(&["a=1", "b=1", "c=1"]);
    pool.commit(&block, &outcome, Some(Ticket(9)), &mut fx);
    assert_eq!(answers(&mut fx), [(3, "committed 1".into(), vec![Ticket(9)])], "after the decision");
    pool.commit(&block, &outcome, Some(Ticket(9)), &mut fx);
    assert_eq!(answers(&mut fx), []);
}

#[test]
fn who_fails_or_is_refused_is_told_why() {
    let (mut pool, mut fx) = (pool_of(2), Effects::default());
    // The check fails: also who waits for the commit hears it.
    let (hash, _) = pool.submit(RequestId(1), tx("a"), Wait::Commit, &mut fx).unwrap();
    assert!(!pool.settle(hash, &verdict(5, 0), &mut fx));
    assert_eq!(answers(&mut fx), [(1, "checked Some(5)".into(), vec![])]);

    // Twice: the second is refused while the first waits on.
    let (hash, _) = pool.submit(RequestId(2), tx("b=1"), Wait::Commit, &mut fx).unwrap();
    assert!(pool.submit(RequestId(3), tx("b=1"), Wait::Commit, &mut fx).is_none());
    assert_eq!(answers(&mut fx), [(3, "tx already exists in cache".into(), vec![])]);
    assert!(pool.settle(hash, &verdict(0, 1), &mut fx));

    // A pool that is full: of higher priority displaces, its client hears so; of the same is refused.
    let (second, _) = pool.submit(RequestId(4), tx("c=1"), Wait::Commit, &mut fx).unwrap();
    assert!(pool.settle(second, &verdict(0, 1), &mut fx));
    let (low, _) = pool.submit(RequestId(5), tx("d=1"), Wait::Check, &mut fx).unwrap();
    assert!(!pool.settle(low, &verdict(0, 1), &mut fx));
    let full = answers(&mut fx);
    assert!(full.len() == 1 && full[0].0 == 5 && full[0].1.starts_with("mempool is full"), "{full:?}");
    let (high, _) = pool.submit(RequestId(6), tx("e=1"), Wait::Check, &mut fx).unwrap();
    assert!(pool.settle(high, &verdict(0, 9), &mut fx));
    let told = answers(&mut fx);
    assert!(told.iter().any(|(request, what, _)| [2, 4].contains(request) && what.contains("evicted")), "{told:?}");
    assert!(told.iter().any(|(request, what, _)| *request == 6 && what == "checked Some(0)"), "{told:?}");
}

#[test]
fn a_failed_recheck_ends_the_wait_for_the_commit() {
    let (mut pool, mut fx) = (pool_of(10), Effects::default());
    let (hash, _) = pool.submit(RequestId(1), tx("a=1"), Wait::Commit, &mut fx).unwrap();
    pool.settle(hash, &verdict(0, 0), &mut fx);
    pool.recheck(&hash, &verdict(0, 0), &mut fx);
    assert_eq!(answers(&mut fx), []);
    pool.recheck(&hash, &verdict(7, 0), &mut fx);
    let told = answers(&mut fx);
    assert!(told.len() == 1 && told[0].1.contains("code 7"), "{told:?}");
    assert_eq!(pool.mempool().len(), 0);
}

/// A block commits a transaction that is still being checked here.
#[test]
fn a_commit_that_overtakes_the_check_answers_all() {
    let (mut pool, mut fx) = (pool_of(10), Effects::default());
    let (hash, _) = pool.submit(RequestId(1), tx("a=1"), Wait::Commit, &mut fx).unwrap();
    let (block, outcome) = executed(&["a=1"]);
    pool.commit(&block, &outcome, Some(Ticket(4)), &mut fx);
    assert_eq!(answers(&mut fx), [(1, "committed 1".into(), vec![Ticket(4)])]);
    assert!(!pool.settle(hash, &verdict(0, 0), &mut fx), "it is not in the pool");
    assert_eq!(answers(&mut fx), []);
    assert_eq!(pool.mempool().len(), 0);
}

#[test]
fn who_gave_up_is_not_answered_and_the_others_are() {
    let (mut pool, mut fx) = (pool_of(10), Effects::default());
    let (hash, _) = pool.submit(RequestId(1), tx("a=1"), Wait::Commit, &mut fx).unwrap();
    pool.settle(hash, &verdict(0, 0), &mut fx);
    let (other, _) = pool.submit(RequestId(2), tx("b=1"), Wait::Commit, &mut fx).unwrap();
    pool.settle(other, &verdict(0, 0), &mut fx);
    pool.abandon(RequestId(1));
    pool.abandon(RequestId(1));
    pool.abandon(RequestId(77));
    let (block, outcome) = executed(&["a=1", "b=1"]);
    pool.commit(&block, &outcome, None, &mut fx);
    assert_eq!(answers(&mut fx), [(2, "committed 1".into(), vec![])]);
}

#[test]
fn clients_who_wait_have_a_bound() {
    let mut pool = Pool::new(Limits { max_txs: 100_000, max_checking_txs: 100_000, ..Limits::default() });
    let mut fx = Effects::default();
    for n in 0..WAITING_MAX as u64 {
        assert!(pool.submit(RequestId(n), tx(&format!("{n}=1")), Wait::Check, &mut fx).is_some());
    }
    assert!(pool.submit(RequestId(1 << 40), tx("one=more"), Wait::Check, &mut fx).is_none());
    let told = answers(&mut fx);
    assert!(told.len() == 1 && told[0].0 == 1 << 40 && told[0].1.contains("waiting"), "{told:?}");
    pool.abandon(RequestId(0));
    assert!(pool.submit(RequestId(1 << 41), tx("one=more"), Wait::Check, &mut fx).is_some());
}

/// Own transactions are told to all, once; those of peers are not passed on in a full mesh.
#[test]
fn own_transactions_are_told_once() {
    let (mut pool, mut fx) = (pool_of(10), Effects::default());
    let (own, _) = pool.submit(RequestId(1), tx("own=1"), Wait::Admission, &mut fx).unwrap();
    let theirs = pool.receive(Peer(3), TxBatch(vec![tx("theirs=1"), tx("own=1")]));
    assert_eq!(theirs.len(), 1, "what is known is not checked again");
    pool.settle(own, &verdict(0, 0), &mut fx);
    pool.settle(theirs[0].0, &verdict(0, 0), &mut fx);
    fx.take();
    pool.gossip(&mut fx);
    pool.gossip(&mut fx);
    let sent: Vec<_> = fx
        .take()
        .into_iter()
        .map(|effect| match effect {
            Effect::Send { to, lane, bytes } => (to, lane, Message::decode_gossip(&bytes).unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sent, [(Target::All, Lane::Gossip, Message::Txs(TxBatch(vec![tx("own=1")])))]);
}

/// What fits no block is refused, and leaves when the bound comes down: else the chain would make empty blocks for it.
#[test]
fn what_no_block_can_hold_does_not_wait() {
    let (mut pool, mut fx) = (pool_of(10), Effects::default());
    let chain_of = |max_bytes: i64| {
        let mut params = lockstep_types::ConsensusParams::default();
        params.block.max_bytes = max_bytes;
        let (mut chain, _, _) = start(&genesis(1));
        chain.params = Arc::new(params);
        chain
    };
    pool.set_block_bounds(&chain_of(1_000_000), &mut fx);
    let (large, _) = pool.submit(RequestId(1), vec![b'x'; 100_000].into(), Wait::Commit, &mut fx).unwrap();
    pool.settle(large, &verdict(0, 0), &mut fx);
    assert!(pool.has_executable());
    pool.set_block_bounds(&chain_of(50_000), &mut fx);
    assert!(!pool.has_executable());
    assert_eq!(answers(&mut fx).iter().map(|(request, ..)| *request).collect::<Vec<_>>(), [1], "its client is told");
    assert!(pool.submit(RequestId(2), vec![b'y'; 49_990].into(), Wait::Check, &mut fx).is_none(), "a body is more than its transactions");
    assert!(pool.submit(RequestId(3), vec![b'z'; 40_000].into(), Wait::Check, &mut fx).is_some());
    pool.set_block_bounds(&chain_of(100_000_000), &mut fx);
    assert!(pool.submit(RequestId(4), vec![b'y'; 1 << 20].into(), Wait::Check, &mut fx).is_none(), "the node's own bound stays");
}

/// A state of the token in which each of these keys has an account with so much.
fn bank(keys: &[PrivateKey], balance: u64) -> (Host, State) {
    let accounts: Vec<String> =
        keys.iter().map(|key| format!(r#"{{"address":"{}","balance":{balance}}}"#, key.public_key().address())).collect();
    let app_state = format!(r#"{{"token":{{"accounts":[{}]}}}}"#, accounts.join(","));
    let validators = [ValidatorUpdate { public_key: key(1).public_key(), power: Power::new(10).unwrap() }];
    let host = Host::new(Arc::new(Bundled::default()));
    let input = GenesisInput {
        chain_id: &ChainId::new("bank").unwrap(),
        time: Time::from_unix_nanos(1),
        initial_height: height(1),
        validators: &validators,
        parameters: &ConsensusParams::default(),
        genesis_hash: Hash::of(b"bank"),
        app_state: &app_state,
    };
    let state = host.init(&input).expect("a genesis of the token").state;
    (host, state)
}

/// A transfer of one unit to a validator's account.
fn transfer(from: &PrivateKey, nonce: u64, fee: u64) -> TxBytes {
    let payments = vec![Payment { to: key(1).public_key().address(), amount: 1 }];
    let unsigned = Transfer { public_key: from.public_key(), nonce, fee, payments, memo: Vec::new(), signature: Signature([0; 64]) };
    unsigned.signed(from, &ChainId::new("bank").unwrap(), &Hash::of(b"bank")).encode().into()
}

#[test]
fn transfers_that_skip_a_nonce_fill_no_pool_and_keep_nobody_out() {
    let keys: Vec<PrivateKey> = (1..=24).map(|seed| PrivateKey::from_seed(&[seed; 32])).collect();
    let (attackers, honest) = keys.split_at(16);
    let (host, state) = bank(&keys, 1_000_000);
    let (mut pool, mut fx) = (pool_of(16), Effects::default());
    let mut next = 0..;
    let mut hand_in = |tx: TxBytes, pool: &mut Pool, fx: &mut Effects| {
        let request = RequestId(next.next().unwrap());
        let (hash, tx) = pool.submit(request, tx, Wait::Check, fx).expect("room to be checked");
        pool.settle(hash, &host.check_tx(&state, &tx, CheckKind::New), fx)
    };
    // Each pays a thousand times as much, for a transfer that cannot be executed before one that never comes.
    for attacker in attackers {
        assert!(hand_in(transfer(attacker, 1, 500_000), &mut pool, &mut fx));
    }
    assert_eq!((pool.mempool().len(), pool.has_executable()), (16, false), "a chain with nothing to do rests");
    let sent: Vec<TxBytes> = honest.iter().map(|key| transfer(key, 0, 500)).collect();
    for tx in &sent {
        assert!(hand_in(tx.clone(), &mut pool, &mut fx), "there is room for what can be executed");
    }
    assert_eq!(pool.reap(usize::MAX, -1), sent, "and a block takes it");
    // What was skipped comes: then both of that sender are executable, in order.
    let first = transfer(&attackers[0], 0, 500_000);
    assert!(hand_in(first.clone(), &mut pool, &mut fx));
    let block = pool.reap(usize::MAX, -1);
    assert_eq!(block.first(), Some(&first));
    pool.mempool().assert_invariants();
}

#[test]
fn a_node_that_leaves_tells_each_peer_what_its_clients_wait_for() {
    let made = Made::new(ConsensusParams::default());
    let mut desk = Desk::new(&made, None);
    desk.connect(1, None);
    desk.connect(2, None);
    let submit = |desk: &mut Desk, n: u64, text: &str| {
        desk.step(lockstep_replica::Input::Submit { request: RequestId(n), tx: tx(text), wait: Wait::Check });
    };
    submit(&mut desk, 1, "a=1");
    submit(&mut desk, 2, "b=1");
    // What a peer gave us it tells others itself.
    desk.receive(1, &Message::Txs(TxBatch(vec![tx("c=1")])));
    desk.out.clear();
    let mut told: Vec<(u64, Vec<TxBytes>)> = Vec::new();
    for effect in desk.replica.hand_over() {
        if let Effect::Send { to: Target::One(peer), lane: Lane::Bulk, bytes } = effect
            && let Ok(Message::Txs(batch)) = Message::decode(&bytes)
        {
            told.push((peer.0, batch.0));
        }
    }
    told.sort_unstable();
    assert_eq!(told, [(1, vec![tx("a=1"), tx("b=1")]), (2, vec![tx("a=1"), tx("b=1")])]);
}
