//! Any sequence of calls, against a model that keeps one list and computes everything anew from its definition.

use std::cmp::Reverse;
use std::sync::Arc;

use lockstep_mempool::{CheckVerdict, Forward, Limits, Mempool, Origin, Refused, Removed, Settled, Status, Why};
use lockstep_types::Hash;
use proptest::prelude::*;

/// Transactions that exist. Few, so that they meet again.
const TXS: usize = 48;
const PEERS: u64 = 3;

/// Number 0 to 7 of senders "", "a", "b", "c"; those of "c" have no nonces.
fn bytes_of(index: usize) -> Arc<[u8]> {
    let mut bytes = vec![u8::try_from(index).unwrap()];
    bytes.resize(1 + index * 7 % 20, 0xee);
    bytes.into()
}

fn hash_of(index: usize) -> Hash {
    Hash::of(bytes_of(index))
}

fn sender_of(index: usize) -> &'static str {
    ["", "a", "b", "c"][index % 4]
}

fn verdict(index: usize, say: Say) -> CheckVerdict {
    CheckVerdict {
        code: say.code,
        gas_wanted: say.gas,
        priority: say.priority,
        sender: sender_of(index).into(),
        nonce: (sender_of(index) != "c").then_some((index / 4 % 6) as u64),
        next_nonce: say.next,
    }
}

/// What the application says of a transaction beyond what is fixed.
#[derive(Debug, Clone, Copy)]
struct Say {
    code: u32,
    gas: i64,
    priority: i64,
    next: Option<u64>,
}

#[derive(Debug, Clone)]
enum Op {
    Begin(usize, Option<u64>),
    Settle(usize, Say),
    Abandon(usize),
    Commit(Vec<(usize, u32)>),
    Recheck(usize, Say),
    Reap(usize, i64, usize),
    Batch(u64, usize, usize),
    PeerUp(u64),
    PeerDown(u64),
    Bounds(usize, i64),
}

#[derive(Debug, Clone)]
struct Tx {
    index: usize,
    seq: u64,
    gas: u64,
    priority: i64,
    sender: &'static str,
    nonce: Option<u64>,
    origin: Option<u64>,
    heard: Vec<u64>,
}

impl Tx {
    fn len(&self) -> usize {
        bytes_of(self.index).len()
    }
}

struct Model {
    limits: Limits,
    /// In order of arrival.
    txs: Vec<Tx>,
    checking: Vec<(usize, Option<u64>, Vec<u64>)>,
    committed: Vec<usize>,
    next: Vec<(&'static str, Option<u64>)>,
    told: Vec<(u64, Vec<u64>)>,
    seq: u64,
}

type Rank = (bool, Reverse<i64>, u64, u64, u64);

impl Model {
    fn next_of(&self, sender: &str) -> Option<u64> {
        self.next.iter().find(|(of, _)| *of == sender).and_then(|(_, next)| *next)
    }

    fn learn(&mut self, sender: &'static str, next: Option<u64>) {
        let known = self.next_of(sender).max(next);
        self.next.retain(|(of, _)| *of != sender);
        self.next.push((sender, known));
    }

    /// What a sender told is forgotten with its last transaction.
    fn forget_senders(&mut self) {
        let txs = &self.txs;
        self.next.retain(|(of, _)| txs.iter().any(|tx| tx.sender == *of));
    }

    /// By definition: over all that must come before it.
    fn rank(&self, tx: &Tx, next: Option<u64>) -> Rank {
        let Some(nonce) = tx.nonce else { return (false, Reverse(tx.priority), tx.seq, 0, tx.seq) };
        let mut before: Vec<&Tx> =
            self.txs.iter().filter(|other| other.sender == tx.sender && other.nonce.is_some_and(|other| other < nonce)).collect();
        before.push(tx);
        let first = before.iter().filter_map(|tx| tx.nonce).min().unwrap();
        let gap = before.len() as u64 != nonce - first + 1;
        let early = next.is_some_and(|next| first > next);
        let worth = before.iter().map(|tx| tx.priority).min().unwrap();
        let since = before.iter().map(|tx| tx.seq).max().unwrap();
        (gap || early, Reverse(worth), since, nonce, tx.seq)
    }

    fn ordered(&self) -> Vec<(Rank, &Tx)> {
        let mut all: Vec<_> = self.txs.iter().map(|tx| (self.rank(tx, self.next_of(tx.sender)), tx)).collect();
        all.sort_by_key(|(rank, _)| *rank);
        all
    }

    fn bytes(&self) -> usize {
        self.txs.iter().map(Tx::len).sum()
    }

    fn checking_bytes(&self) -> usize {
        self.checking.iter().map(|(index, ..)| bytes_of(*index).len()).sum()
    }

    fn begin(&mut self, index: usize, origin: Option<u64>) -> Result<Hash, Refused> {
        let (size, limits) = (bytes_of(index).len(), &self.limits);
        let (txs, bytes) = (self.txs.len() + self.checking.len(), self.bytes() + self.checking_bytes());
        let full = txs + 1 > limits.max_txs || bytes + size > limits.max_bytes;
        if full && (!limits.evict || size > limits.max_tx_bytes) {
            return Err(Refused::Full { txs, max_txs: limits.max_txs, bytes, max_bytes: limits.max_bytes });
        }
        if size > limits.max_tx_bytes {
            return Err(Refused::TooLarge { max: limits.max_tx_bytes, got: size });
        }
        if let Some(at) = self.committed.iter().position(|known| *known == index) {
            let known = self.committed.remove(at);
            self.committed.push(known);
            return Err(Refused::AlreadyInCache);
        }
        let pooled = self.txs.iter_mut().find(|tx| tx.index == index).map(|tx| &mut tx.heard);
        let checked = self.checking.iter_mut().find(|(known, ..)| *known == index).map(|(.., heard)| heard);
        if let Some(heard) = pooled.or(checked) {
            heard.extend(origin);
            return Err(Refused::AlreadyInCache);
        }
        if self.checking.len() + 1 > limits.max_checking_txs || self.checking_bytes() + size > limits.max_checking_bytes {
            return Err(Refused::Busy { checking: self.checking.len(), max: limits.max_checking_txs });
        }
        self.checking.push((index, origin, origin.into_iter().collect()));
        Ok(hash_of(index))
    }

    fn settle(&mut self, index: usize, say: Say) -> Settled {
        let Some(at) = self.checking.iter().position(|(known, ..)| *known == index) else { return Settled::Unknown };
        let (_, origin, heard) = self.checking.remove(at);
        if say.code != 0 {
            return Settled::Rejected;
        }
        if self.limits.max_tx_gas >= 0 && say.gas > self.limits.max_tx_gas {
            return Settled::Refused(Refused::TooMuchGas { max: self.limits.max_tx_gas, got: say.gas });
        }
        let full = verdict(index, say);
        let sender = sender_of(index);
        let nonce = full.nonce.filter(|_| !sender.is_empty());
        let gas = u64::try_from(say.gas).unwrap_or(0);
        let new = Tx { index, seq: self.seq, gas, priority: say.priority, sender, nonce, origin, heard };
        let (by, limits) = (hash_of(index), self.limits.clone());
        let next = self.next_of(sender).max(say.next);
        if nonce.is_some() && self.txs.iter().any(|tx| tx.sender == sender) {
            self.learn(sender, next);
        }

        let mut evicted: Vec<Tx> = Vec::new();
        let mut replaced: Option<Tx> = None;
        let size = |txs: &[&Tx]| txs.iter().map(|tx| tx.len()).sum::<usize>();
        if !sender.is_empty() {
            let mut mine: Vec<&Tx> = self.txs.iter().filter(|tx| tx.sender == sender).collect();
            let (txs, bytes) = (mine.len(), size(&mine));
            if let Some(at) = mine.iter().position(|tx| tx.nonce.is_some() && tx.nonce == nonce) {
                let held = mine.remove(at);
                let needed = held.priority + (held.priority.abs() / 10).max(1);
                if new.priority < needed {
                    return Settled::Refused(Refused::NonceTaken { nonce: nonce.unwrap(), holder: hash_of(held.index), needed });
                }
                replaced = Some(held.clone());
            }
            while mine.len() + 1 > limits.max_sender_txs || size(&mine) + new.len() > limits.max_sender_bytes {
                let last = mine.iter().enumerate().filter(|(_, tx)| nonce.is_some() && tx.nonce > nonce).max_by_key(|(_, tx)| tx.nonce);
                let Some((at, _)) = last else {
                    let (max_txs, max_bytes) = (limits.max_sender_txs, limits.max_sender_bytes);
                    return Settled::Refused(Refused::SenderFull { txs, max_txs, bytes, max_bytes });
                };
                evicted.push(mine.remove(at).clone());
            }
        }
        let rank = self.rank(&new, next);
        let leaves = |tx: &Tx, evicted: &[Tx]| evicted.iter().chain(&replaced).any(|gone| gone.seq == tx.seq);
        let mut stay: Vec<(Rank, &Tx)> = self.ordered().into_iter().filter(|(_, tx)| !leaves(tx, &evicted)).collect();
        loop {
            let bytes: usize = stay.iter().map(|(_, tx)| tx.len()).sum();
            if stay.len() < limits.max_txs && bytes + new.len() <= limits.max_bytes {
                break;
            }
            match stay.pop() {
                Some((worst, tx)) if limits.evict && (rank.0, rank.1) < (worst.0, worst.1) => evicted.push(tx.clone()),
                _ => {
                    let (txs, bytes) = (self.txs.len(), self.bytes());
                    return Settled::Refused(Refused::Full { txs, max_txs: limits.max_txs, bytes, max_bytes: limits.max_bytes });
                }
            }
        }
        let mut removed: Vec<Removed> = evicted.iter().map(|tx| Removed { hash: hash_of(tx.index), why: Why::Evicted { by } }).collect();
        removed.extend(replaced.iter().map(|tx| Removed { hash: hash_of(tx.index), why: Why::Replaced { by } }));
        self.txs.retain(|tx| !evicted.iter().chain(&replaced).any(|gone| gone.seq == tx.seq));
        self.txs.push(new);
        self.seq += 1;
        if nonce.is_some() {
            self.learn(sender, next);
        }
        self.forget_senders();
        Settled::Added { removed }
    }

    /// Gives what must be checked again: for each touched sender its first few.
    fn commit(&mut self, executed: &[(usize, u32)]) -> Vec<usize> {
        let mut touched: Vec<&'static str> = Vec::new();
        let mut learned = Vec::new();
        for (index, code) in executed {
            if self.checking.iter().any(|(known, ..)| known == index) && *code != 0 {
                continue;
            }
            self.checking.retain(|(known, ..)| known != index);
            if let Some(at) = self.txs.iter().position(|tx| tx.index == *index) {
                let tx = self.txs.remove(at);
                touched.push(tx.sender);
                if let (0, Some(nonce)) = (code, tx.nonce) {
                    learned.push((tx.sender, nonce + 1));
                }
            }
            let known = self.committed.iter().position(|known| known == index);
            if *code == 0 || known.is_some() {
                known.map(|at| self.committed.remove(at));
                self.committed.push(*index);
            }
            while self.committed.len() > self.limits.cache_size {
                self.committed.remove(0);
            }
        }
        self.forget_senders();
        for (sender, next) in learned {
            if self.next_of(sender).is_some() {
                self.learn(sender, Some(next));
            }
        }
        let mut again: Vec<&Tx> = Vec::new();
        for sender in ["a", "b", "c"] {
            let left = touched.iter().filter(|of| **of == sender).count();
            let mut mine: Vec<&Tx> = self.txs.iter().filter(|tx| tx.sender == sender).collect();
            mine.sort_by_key(|tx| (tx.nonce.is_none(), tx.nonce, tx.seq));
            again.extend(mine.into_iter().take(left));
        }
        // There are never so many that wait that they take turns.
        again.extend(self.ordered().into_iter().filter(|(rank, _)| rank.0).map(|(_, tx)| tx));
        again.sort_by_key(|tx| tx.seq);
        again.dedup_by_key(|tx| tx.seq);
        again.into_iter().map(|tx| tx.index).collect()
    }

    fn recheck(&mut self, index: usize, say: Say) -> Option<Removed> {
        let at = self.txs.iter().position(|tx| tx.index == index)?;
        let too_much = self.limits.max_tx_gas >= 0 && say.gas > self.limits.max_tx_gas;
        if say.code != 0 || too_much {
            self.txs.remove(at);
            self.forget_senders();
            let why = if say.code != 0 { Why::RecheckFailed { code: say.code } } else { Why::NoBlockHoldsIt };
            return Some(Removed { hash: hash_of(index), why });
        }
        self.txs[at].gas = u64::try_from(say.gas).unwrap_or(0);
        self.txs[at].priority = say.priority;
        if self.txs[at].nonce.is_some() {
            self.learn(sender_of(index), say.next);
        }
        None
    }

    fn bounds(&mut self, max_tx_bytes: usize, max_gas: i64) -> Vec<Removed> {
        self.limits.max_tx_bytes = max_tx_bytes;
        self.limits.max_tx_gas = max_gas;
        let fits = |tx: &Tx| tx.len() <= max_tx_bytes && (max_gas < 0 || tx.gas <= max_gas.unsigned_abs());
        let removed = self.txs.iter().filter(|tx| !fits(tx)).map(|tx| Removed { hash: hash_of(tx.index), why: Why::NoBlockHoldsIt });
        let removed = removed.collect();
        self.txs.retain(fits);
        self.forget_senders();
        removed
    }

    fn reap(&self, max_bytes: usize, max_gas: i64, max_count: usize) -> Vec<usize> {
        let mut block: Vec<&Tx> = Vec::new();
        let mut held_back: Vec<&str> = Vec::new();
        for (_, tx) in self.ordered().into_iter().filter(|(rank, _)| !rank.0) {
            let bytes: usize = block.iter().map(|tx| tx.len() + 4).sum();
            let gas: u64 = block.iter().map(|tx| tx.gas).sum();
            let fits = bytes + tx.len() + 4 <= max_bytes && (max_gas < 0 || gas + tx.gas <= max_gas.unsigned_abs());
            if block.len() == max_count {
                break;
            }
            if fits && !(tx.nonce.is_some() && held_back.contains(&tx.sender)) {
                block.push(tx);
            } else if tx.nonce.is_some() {
                held_back.push(tx.sender);
            }
        }
        block.into_iter().map(|tx| tx.index).collect()
    }

    fn batch(&mut self, peer: u64, max_bytes: usize, max_count: usize) -> Vec<usize> {
        let Some((_, told)) = self.told.iter_mut().find(|(of, _)| *of == peer) else { return vec![] };
        let mut batch = Vec::new();
        let mut bytes = 0;
        for tx in &self.txs {
            let foreign = tx.origin.is_some() && forward(peer) == Forward::OwnOnly;
            if foreign || tx.heard.contains(&peer) || told.contains(&tx.seq) {
                continue;
            }
            bytes += tx.len() + 4;
            if batch.len() == max_count || (!batch.is_empty() && bytes > max_bytes) {
                break;
            }
            told.push(tx.seq);
            batch.push(tx.index);
        }
        batch
    }

    fn status(&self, index: usize) -> Option<Status> {
        let places = [
            (self.checking.iter().any(|(known, ..)| *known == index), Status::Checking),
            (self.txs.iter().any(|tx| tx.index == index), Status::Pooled),
            (self.committed.contains(&index), Status::Committed),
        ];
        places.into_iter().find_map(|(here, status)| here.then_some(status))
    }
}

/// Each peer is always told by the same rule.
fn forward(peer: u64) -> Forward {
    if peer == 0 { Forward::All } else { Forward::OwnOnly }
}

fn origin(peer: Option<u64>) -> Origin {
    peer.map_or(Origin::Client, Origin::Peer)
}

fn any_say() -> impl Strategy<Value = Say> {
    let priority = prop_oneof![Just(0), -3_i64..4, Just(100), Just(111)];
    (prop_oneof![9 => Just(0), 1 => 1..9_u32], -5_i64..30, priority, prop::option::of(0..7_u64))
        .prop_map(|(code, gas, priority, next)| Say { code, gas, priority, next })
}

fn any_op() -> impl Strategy<Value = Op> {
    let peer = 0..PEERS;
    prop_oneof![
        12 => (0..TXS, prop::option::of(peer.clone())).prop_map(|(index, from)| Op::Begin(index, from)),
        12 => (0..TXS, any_say()).prop_map(|(nth, say)| Op::Settle(nth, say)),
        1 => (0..TXS).prop_map(Op::Abandon),
        3 => prop::collection::vec((0..TXS, prop_oneof![3 => Just(0), 1 => Just(7_u32)]), 0..5).prop_map(Op::Commit),
        4 => (0..TXS, any_say()).prop_map(|(index, say)| Op::Recheck(index, say)),
        3 => (0..150_usize, -1..60_i64, 0..9_usize).prop_map(|(bytes, gas, count)| Op::Reap(bytes, gas, count)),
        4 => (peer.clone(), 0..80_usize, 0..5_usize).prop_map(|(peer, bytes, count)| Op::Batch(peer, bytes, count)),
        2 => peer.clone().prop_map(Op::PeerUp),
        1 => peer.prop_map(Op::PeerDown),
        1 => (10..21_usize, prop_oneof![Just(-1_i64), 10..30_i64]).prop_map(|(bytes, gas)| Op::Bounds(bytes, gas)),
    ]
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (1..16_usize, 20..160_usize, 1..6_usize, 20..60_usize, any::<bool>()).prop_map(
        |(max_txs, max_bytes, sender_txs, sender_bytes, evict)| Limits {
            max_txs,
            max_bytes,
            max_tx_bytes: 18,
            max_tx_gas: 25,
            max_sender_txs: sender_txs,
            max_sender_bytes: sender_bytes,
            max_checking_txs: 6,
            max_checking_bytes: 70,
            cache_size: 6,
            evict,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_calls_agrees_with_a_list(limits in any_limits(), ops in prop::collection::vec(any_op(), 1..150)) {
        let mut pool = Mempool::new(limits.clone());
        let mut model = Model { limits, txs: vec![], checking: vec![], committed: vec![], next: vec![], told: vec![], seq: 0 };
        for op in ops {
            match op {
                Op::Begin(index, from) => prop_assert_eq!(pool.begin(bytes_of(index), origin(from)), model.begin(index, from)),
                Op::Settle(nth, say) => {
                    // Mostly one that is being checked.
                    let index = model.checking.get(nth % (model.checking.len() + 1)).map_or(nth, |(index, ..)| *index);
                    prop_assert_eq!(pool.settle(hash_of(index), &verdict(index, say)), model.settle(index, say));
                }
                Op::Abandon(index) => {
                    pool.abandon(&hash_of(index));
                    model.checking.retain(|(known, ..)| *known != index);
                }
                Op::Commit(executed) => {
                    let again: Vec<Hash> = pool.commit(executed.iter().map(|(index, code)| (hash_of(*index), *code))).iter().map(|tx| tx.hash).collect();
                    let expected: Vec<Hash> = model.commit(&executed).into_iter().map(hash_of).collect();
                    prop_assert_eq!(again, expected);
                }
                Op::Recheck(index, say) => {
                    prop_assert_eq!(pool.recheck_result(&hash_of(index), &verdict(index, say)), model.recheck(index, say));
                }
                Op::Reap(bytes, gas, count) => {
                    let block: Vec<Hash> = pool.reap(bytes, gas, count).iter().map(|tx| tx.hash).collect();
                    let expected: Vec<Hash> = model.reap(bytes, gas, count).into_iter().map(hash_of).collect();
                    prop_assert_eq!(block, expected);
                }
                Op::Batch(peer, bytes, count) => {
                    let batch: Vec<Hash> = pool.next_batch(peer, forward(peer), bytes, count).iter().map(|tx| tx.hash).collect();
                    let expected: Vec<Hash> = model.batch(peer, bytes, count).into_iter().map(hash_of).collect();
                    prop_assert_eq!(batch, expected);
                }
                Op::PeerUp(peer) => {
                    pool.peer_up(peer);
                    model.told.retain(|(of, _)| *of != peer);
                    model.told.push((peer, vec![]));
                }
                Op::PeerDown(peer) => {
                    pool.peer_down(peer);
                    model.told.retain(|(of, _)| *of != peer);
                }
                Op::Bounds(bytes, gas) => prop_assert_eq!(pool.set_block_bounds(bytes, gas), model.bounds(bytes, gas)),
            }
            pool.assert_invariants();
            let order: Vec<Hash> = pool.iter().map(|tx| tx.hash).collect();
            let expected: Vec<Hash> = model.ordered().into_iter().map(|(_, tx)| hash_of(tx.index)).collect();
            prop_assert_eq!(order, expected);
            prop_assert_eq!((pool.len(), pool.bytes(), pool.checking()), (model.txs.len(), model.bytes(), model.checking.len()));
            for index in 0..TXS {
                prop_assert_eq!(pool.status(&hash_of(index)), model.status(index));
            }
        }
    }
}
