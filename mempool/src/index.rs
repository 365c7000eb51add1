//! The pooled transactions and their order.
//!
//! Entries by arrival, ranks, and the queues of senders are three views of one set. Only `attach` and `detach` change it,
//! and only `rerank` moves an entry in the order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use lockstep_types::Hash;

use crate::entry::{Entry, Heard, PoolTx};
use crate::limits::Limits;
use crate::rank::{Rank, Seq};
use crate::verdict::{Refused, body_bytes, replacement_priority};

/// How many of those that wait behind a gap are checked again after each block, in turns. It is how the pool learns that a
/// gap was filled by a transaction which never passed through it.
pub const RECHECK_WAITING_MAX: usize = 64;

/// How many transactions that do not fit are passed over before a block counts as full. Each fits an empty block, so what
/// is passed over today stands at the front tomorrow.
pub const REAP_MISFITS_MAX: usize = 64;

/// The transactions of one sender.
#[derive(Debug, Default)]
struct Sender {
    txs: usize,
    bytes: usize,
    /// What the state accepts next, as far as the application said.
    next: Option<u64>,
    /// Those with a nonce.
    queue: BTreeMap<u64, Seq>,
    /// Those without.
    loose: BTreeSet<Seq>,
}

/// A checked transaction that asks for a place.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) tx: PoolTx,
    pub(crate) heard: Heard,
    pub(crate) gas: u64,
    pub(crate) priority: i64,
    pub(crate) sender: Vec<u8>,
    pub(crate) nonce: Option<u64>,
    pub(crate) next: Option<u64>,
}

/// Who leaves for a newcomer.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) replaced: Option<Seq>,
    /// From the last of the order forwards, so that each is the last of its sender when its turn comes.
    pub(crate) evicted: Vec<Seq>,
}

/// What a block did to a sender's queue, until [`Index::settle_touched`] mends it.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// How many left.
    txs: usize,
    /// Lowest and highest nonce that left.
    nonces: Option<(u64, u64)>,
    /// The nonce after the highest one that succeeded.
    next: Option<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: BTreeMap<Seq, Entry>,
    order: BTreeSet<Rank>,
    senders: BTreeMap<Vec<u8>, Sender>,
    bytes: usize,
    next_seq: Seq,
    /// Where the turns of [`RECHECK_WAITING_MAX`] stand.
    rechecked_to: Option<Rank>,
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn next_seq(&self) -> Seq {
        self.next_seq
    }

    pub(crate) fn get(&self, seq: Seq) -> &Entry {
        self.entries.get(&seq).expect("a sequence number that is handed out is pooled")
    }

    pub(crate) fn get_mut(&mut self, seq: Seq) -> &mut Entry {
        self.entries.get_mut(&seq).expect("a sequence number that is handed out is pooled")
    }

    pub(crate) fn arrivals_from(&self, seq: Seq) -> impl Iterator<Item = (Seq, &Entry)> {
        self.entries.range(seq..).map(|(seq, entry)| (*seq, entry))
    }

    pub(crate) fn in_order(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.order.iter().map(|rank| self.get(rank.seq))
    }

    /// Who would leave if the newcomer came. Changes nothing: a newcomer that is refused displaces nobody.
    pub(crate) fn plan(&self, new: &Newcomer, limits: &Limits) -> Result<Plan, Refused> {
        let size = new.tx.bytes.len();
        let mut plan = Plan::default();
        let mut gone = BTreeSet::new();
        let mut gone_bytes = 0;

        if let Some(sender) = self.senders.get(&new.sender) {
            if let Some((nonce, seq)) = new.nonce.and_then(|nonce| Some((nonce, *sender.queue.get(&nonce)?))) {
                let held = self.get(seq);
                let needed = replacement_priority(held.priority);
                if new.priority < needed || new.priority == held.priority {
                    return Err(Refused::NonceTaken { nonce, holder: held.tx.hash, needed });
                }
                plan.replaced = Some(seq);
                gone.insert(seq);
                gone_bytes += held.tx.bytes.len();
            }
            // A sender whose share is full may still fill a gap: its own last ones make room. Else a queue that lost its
            // first transaction could never move again.
            let mut behind = new.nonce.map(|nonce| sender.queue.range((Bound::Excluded(nonce), Bound::Unbounded)).rev());
            while sender.txs - gone.len() >= limits.max_sender_txs || sender.bytes - gone_bytes + size > limits.max_sender_bytes {
                let Some((_, seq)) = behind.as_mut().and_then(Iterator::next) else {
                    return Err(Refused::SenderFull {
                        txs: sender.txs,
                        max_txs: limits.max_sender_txs,
                        bytes: sender.bytes,
                        max_bytes: limits.max_sender_bytes,
                    });
                };
                plan.evicted.push(*seq);
                gone.insert(*seq);
                gone_bytes += self.get(*seq).tx.bytes.len();
            }
        }

        let rank = self.rank_of(&new.sender, new.nonce, new.next, new.priority, self.next_seq);
        let mut last = self.order.iter().rev();
        while self.len() - gone.len() >= limits.max_txs || self.bytes - gone_bytes + size > limits.max_bytes {
            let victim = last.find(|victim| !gone.contains(&victim.seq));
            let Some(victim) = victim.filter(|victim| limits.evict && rank.displaces(victim)) else {
                return Err(Refused::Full { txs: self.len(), max_txs: limits.max_txs, bytes: self.bytes, max_bytes: limits.max_bytes });
            };
            plan.evicted.push(victim.seq);
            gone.insert(victim.seq);
            gone_bytes += self.get(victim.seq).tx.bytes.len();
        }
        Ok(plan)
    }

    /// The rank that a transaction would have among what is here.
    fn rank_of(&self, sender: &[u8], nonce: Option<u64>, next: Option<u64>, priority: i64, seq: Seq) -> Rank {
        let Some(nonce) = nonce else { return Rank::alone(priority, seq) };
        let queue = self.senders.get(sender);
        match queue.and_then(|sender| sender.queue.range(..nonce).next_back()) {
            Some((_, before)) => Rank::after(&self.get(*before).rank, priority, seq, nonce),
            None => Rank::first(priority, seq, nonce, next),
        }
    }

    /// Gives a newcomer its place, after its [`Plan`] was carried out.
    pub(crate) fn attach(&mut self, new: Newcomer) -> Seq {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.bytes += new.tx.bytes.len();
        let rank = self.rank_of(&new.sender, new.nonce, new.next, new.priority, seq);
        let Newcomer { tx, heard, gas, priority, sender, nonce, next } = new;
        if !sender.is_empty() {
            let of = self.senders.entry(sender.clone()).or_default();
            of.txs += 1;
            of.bytes += tx.bytes.len();
            let displaced = match nonce {
                Some(nonce) => of.queue.insert(nonce, seq).is_some(),
                None => !of.loose.insert(seq),
            };
            assert!(!displaced, "the one that had the place was detached before");
        }
        assert!(self.order.insert(rank), "ranks differ in their sequence number");
        self.entries.insert(seq, Entry { tx, heard, gas, priority, sender: sender.clone(), nonce, rank });
        if let Some(nonce) = nonce {
            self.learn_next(&sender, next, nonce);
        }
        seq
    }

    /// Takes a transaction out. Those behind it in its queue keep their ranks: the caller mends them with
    /// [`Index::rerank`], unless it was the last.
    pub(crate) fn detach(&mut self, seq: Seq) -> Entry {
        let entry = self.entries.remove(&seq).expect("detached once");
        assert!(self.order.remove(&entry.rank), "an entry stands in the order under its rank");
        self.bytes -= entry.tx.bytes.len();
        if let Some(sender) = self.senders.get_mut(&entry.sender) {
            sender.txs -= 1;
            sender.bytes -= entry.tx.bytes.len();
            match entry.nonce {
                Some(nonce) => assert_eq!(sender.queue.remove(&nonce), Some(seq), "a nonce is held by one"),
                None => assert!(sender.loose.remove(&seq), "without a nonce it is loose"),
            }
            if sender.txs == 0 {
                self.senders.remove(&entry.sender);
            }
        }
        entry
    }

    /// Takes one out of the middle and mends what stood behind it.
    pub(crate) fn detach_and_mend(&mut self, seq: Seq) -> Entry {
        let entry = self.detach(seq);
        if let Some(nonce) = entry.nonce {
            self.rerank(&entry.sender, nonce, nonce);
        }
        entry
    }

    /// A later verdict: gas, priority, and what the state accepts next.
    pub(crate) fn update(&mut self, seq: Seq, gas: u64, priority: i64, next: Option<u64>) {
        let entry = self.get_mut(seq);
        entry.gas = gas;
        entry.priority = priority;
        let (old, nonce, sender) = (entry.rank, entry.nonce, entry.sender.clone());
        match nonce {
            Some(nonce) => {
                self.learn_next(&sender, next, nonce);
            }
            None => {
                let rank = Rank::alone(priority, seq);
                self.get_mut(seq).rank = rank;
                self.order.remove(&old);
                self.order.insert(rank);
            }
        }
    }

    /// Takes in what the state accepts next from a sender, and mends its queue where the transaction at `changed` or that
    /// knowledge moved it. Verdicts may come out of order; a state never goes back, so the highest counts, and is returned.
    pub(crate) fn learn_next(&mut self, sender: &[u8], next: Option<u64>, changed: u64) -> Option<u64> {
        let Some(of) = self.senders.get_mut(sender) else { return next };
        let from = if next > of.next { 0 } else { changed };
        of.next = of.next.max(next);
        let known = of.next;
        self.rerank(sender, from, changed);
        known
    }

    /// Computes again the ranks of a sender's queue from the nonce `from` on, where nothing above `until` changed: beyond
    /// it, the first rank that comes out as before ends the work.
    fn rerank(&mut self, sender: &[u8], from: u64, until: u64) {
        let Some(of) = self.senders.get(sender) else { return };
        let mut before = of.queue.range(..from).next_back().map(|(_, seq)| self.get(*seq).rank);
        for (&nonce, &seq) in of.queue.range(from..) {
            let entry = self.entries.get_mut(&seq).expect("a queue names pooled transactions");
            let rank = match &before {
                None => Rank::first(entry.priority, seq, nonce, of.next),
                Some(before) => Rank::after(before, entry.priority, seq, nonce),
            };
            if rank != entry.rank {
                assert!(self.order.remove(&entry.rank), "an entry stands in the order under its rank");
                self.order.insert(rank);
                entry.rank = rank;
            } else if nonce > until {
                return;
            }
            before = Some(rank);
        }
    }

    /// Takes out one that a block executed, and notes what this does to its sender.
    pub(crate) fn detach_executed(&mut self, seq: Seq, code: u32, touched: &mut BTreeMap<Vec<u8>, Touched>) {
        let entry = self.detach(seq);
        if entry.sender.is_empty() {
            return;
        }
        let note = touched.entry(entry.sender).or_default();
        note.txs += 1;
        if let Some(nonce) = entry.nonce {
            note.nonces = Some(note.nonces.map_or((nonce, nonce), |(low, high)| (low.min(nonce), high.max(nonce))));
            if code == 0 {
                note.next = note.next.max(nonce.checked_add(1));
            }
        }
    }

    /// Mends the queues that a block touched, each once, and says which transactions to check again: of each sender as
    /// many as left, so that a block costs no more rechecks than it has transactions, however many wait. The others
    /// stand behind these and have their turn.
    pub(crate) fn settle_touched(&mut self, touched: &BTreeMap<Vec<u8>, Touched>) -> Vec<PoolTx> {
        let mut again = BTreeSet::new();
        for (name, note) in touched {
            let Some(sender) = self.senders.get_mut(name) else { continue };
            // The recheck would say so too, but the next block is built before it is done. Where the application keeps its
            // next nonce to itself, we do not guess it either.
            if sender.next.is_some() {
                sender.next = sender.next.max(note.next);
            }
            if let Some((_, high)) = note.nonces {
                self.rerank(name, 0, high);
            }
            let sender = &self.senders[name];
            again.extend(sender.queue.values().chain(&sender.loose).take(note.txs).copied());
        }
        again.extend(self.some_that_wait());
        again.into_iter().map(|seq| self.get(seq).tx.clone()).collect()
    }

    /// The next few of those that wait, in turns.
    fn some_that_wait(&mut self) -> Vec<Seq> {
        let first = Rank { waits: true, ..Rank::alone(i64::MAX, 0) };
        let from = self.rechecked_to.map_or(Bound::Included(first), Bound::Excluded);
        let turn: Vec<Rank> = self.order.range((from, Bound::Unbounded)).take(RECHECK_WAITING_MAX).copied().collect();
        // At the end of the order the turns begin anew, with the next block.
        self.rechecked_to = turn.get(RECHECK_WAITING_MAX - 1).copied();
        turn.into_iter().map(|rank| rank.seq).collect()
    }

    /// The first transactions of the order that fit together. See [`crate::Mempool::reap`].
    pub(crate) fn reap(&self, max_bytes: usize, max_gas: i64, max_count: usize) -> Vec<PoolTx> {
        let mut bytes_left = max_bytes;
        let mut gas_left = u64::try_from(max_gas).ok();
        let mut misfits = 0;
        let mut held_back: BTreeSet<&[u8]> = BTreeSet::new();
        let mut reaped = Vec::new();
        for rank in &self.order {
            if rank.waits || reaped.len() >= max_count || misfits >= REAP_MISFITS_MAX {
                break;
            }
            let entry = self.get(rank.seq);
            let size = body_bytes(entry.tx.bytes.len());
            let fits = size <= bytes_left && gas_left.is_none_or(|left| entry.gas <= left);
            let in_turn = entry.nonce.is_none() || !held_back.contains(entry.sender.as_slice());
            if !fits || !in_turn {
                misfits += 1;
                if entry.nonce.is_some() {
                    held_back.insert(&entry.sender);
                }
                continue;
            }
            bytes_left -= size;
            gas_left = gas_left.map(|left| left - entry.gas);
            reaped.push(entry.tx.clone());
        }
        reaped
    }

    /// Whether the three views agree, by building each anew. For tests: it walks everything.
    pub(crate) fn assert_invariants(&self, limits: &Limits, mut place: impl FnMut(&Hash) -> Option<Seq>) {
        assert!(self.entries.len() <= limits.max_txs, "more transactions than the pool may hold");
        assert!(self.bytes <= limits.max_bytes, "more bytes than the pool may hold");
        assert_eq!(self.order.len(), self.entries.len(), "the order knows each transaction once");
        assert_eq!(self.bytes, self.entries.values().map(|entry| entry.tx.bytes.len()).sum::<usize>(), "bytes are counted");
        let mut named = 0;
        for (name, sender) in &self.senders {
            assert!(!name.is_empty() && sender.txs > 0, "a sender without transactions is forgotten");
            assert_eq!(sender.txs, sender.queue.len() + sender.loose.len(), "a sender's transactions are counted");
            assert!(sender.txs <= limits.max_sender_txs && sender.bytes <= limits.max_sender_bytes, "a sender above its share");
            let mine: Vec<&Entry> = sender.queue.values().chain(&sender.loose).map(|seq| self.get(*seq)).collect();
            assert!(mine.iter().all(|entry| entry.sender == *name), "a queue holds its own sender's");
            assert_eq!(sender.bytes, mine.iter().map(|entry| entry.tx.bytes.len()).sum::<usize>(), "a sender's bytes are counted");
            let ranks: Vec<Rank> = sender.queue.values().map(|seq| self.get(*seq).rank).collect();
            assert!(ranks.is_sorted(), "nonces of one sender stand in order");
            named += sender.txs;
        }
        assert_eq!(named, self.entries.values().filter(|entry| !entry.sender.is_empty()).count(), "every sender has a queue");
        for (seq, entry) in &self.entries {
            assert_eq!(place(&entry.tx.hash), Some(*seq), "the map of places knows where a transaction is");
            assert!(*seq < self.next_seq && entry.rank.seq == *seq, "a sequence number is one transaction's");
            assert!(self.order.contains(&entry.rank), "an entry stands in the order under its rank");
            assert!(entry.sender.is_empty() <= entry.nonce.is_none(), "a nonce counts only with a sender");
            // The place of its own that rank_of would give, were it new: ranks were mended after every change.
            let next = self.senders.get(&entry.sender).and_then(|sender| sender.next);
            assert_eq!(entry.rank, self.rank_of(&entry.sender, entry.nonce, next, entry.priority, *seq), "a stale rank");
        }
    }
}
