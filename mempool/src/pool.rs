//! The pool: where each hash stands, and how it moves.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::mem;

use lockstep_types::Hash;
use lockstep_types::planted::{self, Bug};

use crate::entry::{Checking, Entry, Heard, Origin, PoolTx, TxBytes};
use crate::gossip::Cursors;
use crate::index::{Index, Newcomer, Plan};
use crate::limits::Limits;
use crate::rank::Seq;
use crate::recent::{Recent, Stamp};
use crate::verdict::{CheckVerdict, Refused, Removed, Settled, Why, sender_key};

/// Where a known hash stands. It is in one place, and nothing else says where.
#[derive(Debug)]
enum Place {
    Checking(Box<Checking>),
    Pooled(Seq),
    Committed(Stamp),
}

/// Where a transaction stands, for whoever looks it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The application is asked about it.
    Checking,
    /// It waits for a block.
    Pooled,
    /// A block executed it with success not long ago.
    Committed,
}

/// The mempool of a node. See the crate's documentation for its life cycle and its order.
#[derive(Debug)]
pub struct Mempool {
    limits: Limits,
    places: BTreeMap<Hash, Place>,
    index: Index,
    recent: Recent,
    checking_txs: usize,
    checking_bytes: usize,
    pub(crate) cursors: Cursors,
}

impl Mempool {
    /// An empty pool.
    ///
    /// # Panics
    /// When the limits contradict each other: whoever reads them from a file asks [`Limits::check`] first.
    pub fn new(limits: Limits) -> Self {
        assert_eq!(limits.check(), Ok(()), "limits are checked where they are read");
        Self {
            limits,
            places: BTreeMap::new(),
            index: Index::default(),
            recent: Recent::default(),
            checking_txs: 0,
            checking_bytes: 0,
            cursors: Cursors::default(),
        }
    }

    /// Takes a transaction in and asks for its check: the caller owes one [`Mempool::settle`] for the hash. Until then it
    /// is not in the pool.
    ///
    /// # Errors
    /// [`Refused::Full`], [`Refused::TooLarge`], [`Refused::AlreadyInCache`], [`Refused::Busy`], tested in this order, which
    /// is CometBFT's. A pool that evicts learns only from the verdict whether a transaction is refused as full.
    pub fn begin(&mut self, bytes: TxBytes, origin: Origin) -> Result<Hash, Refused> {
        let size = bytes.len();
        let too_large = size > self.limits.max_tx_bytes;
        let full = self.len() + self.checking_txs >= self.limits.max_txs
            || (self.bytes() + self.checking_bytes).saturating_add(size) > self.limits.max_bytes;
        if full && (too_large || !self.limits.evict) {
            return Err(Refused::Full {
                txs: self.len() + self.checking_txs,
                max_txs: self.limits.max_txs,
                bytes: self.bytes() + self.checking_bytes,
                max_bytes: self.limits.max_bytes,
            });
        }
        if too_large {
            return Err(Refused::TooLarge { max: self.limits.max_tx_bytes, got: size });
        }
        let hash = Hash::of(&bytes);
        let vacant = match self.places.entry(hash) {
            MapEntry::Vacant(vacant) => vacant,
            MapEntry::Occupied(mut known) => {
                match known.get_mut() {
                    Place::Checking(checking) => checking.heard.also_from(origin),
                    Place::Pooled(seq) => self.index.get_mut(*seq).heard.also_from(origin),
                    // Whoever repeats an old transaction keeps it remembered: it must not outlive our memory of it.
                    Place::Committed(stamp) => *stamp = self.recent.touch(*stamp),
                }
                return Err(Refused::AlreadyInCache);
            }
        };
        if self.checking_txs >= self.limits.max_checking_txs || self.checking_bytes + size > self.limits.max_checking_bytes {
            return Err(Refused::Busy { checking: self.checking_txs, max: self.limits.max_checking_txs });
        }
        self.checking_txs += 1;
        self.checking_bytes += size;
        vacant.insert(Place::Checking(Box::new(Checking { bytes, heard: Heard::new(origin) })));
        Ok(hash)
    }

    /// The verdict on a transaction that [`Mempool::begin`] took in.
    pub fn settle(&mut self, hash: Hash, verdict: &CheckVerdict) -> Settled {
        let Some(checking) = self.take_checking(&hash) else { return Settled::Unknown };
        if verdict.code != 0 {
            return Settled::Rejected;
        }
        if let Err(refused) = self.fits_a_block(verdict.gas_wanted) {
            return Settled::Refused(refused);
        }
        let sender = sender_key(&verdict.sender);
        let nonce = verdict.nonce.filter(|_| !sender.is_empty());
        // True whatever becomes of the newcomer, and it may turn out that the newcomer waits.
        let next = nonce.and_then(|nonce| self.index.learn_next(&sender, verdict.next_nonce, nonce));
        let newcomer = Newcomer {
            tx: PoolTx { hash, bytes: checking.bytes },
            heard: checking.heard,
            gas: gas(verdict),
            priority: verdict.priority,
            nonce,
            next,
            sender,
        };
        let Plan { replaced, evicted } = match self.index.plan(&newcomer, &self.limits) {
            Ok(plan) => plan,
            Err(refused) => return Settled::Refused(refused),
        };
        let mut removed = Vec::with_capacity(evicted.len() + usize::from(replaced.is_some()));
        for seq in evicted {
            removed.push(self.forget(|index| index.detach(seq), Why::Evicted { by: hash }));
        }
        if let Some(seq) = replaced {
            removed.push(self.forget(|index| index.detach(seq), Why::Replaced { by: hash }));
        }
        let seq = self.index.attach(newcomer);
        self.places.insert(hash, Place::Pooled(seq));
        Settled::Added { removed }
    }

    /// A transaction whose check never came back: it is forgotten, and may be sent again.
    pub fn abandon(&mut self, hash: &Hash) {
        self.take_checking(hash);
    }

    /// The first transactions of the order that fit into a block together, front first. They stay in the pool.
    ///
    /// `max_bytes` bounds their encoding in a body, four bytes of length and the transaction each; `max_gas` the gas they
    /// want (-1 for no bound). One that does not fit is passed over, and with it its sender's later nonces, at most
    /// [`REAP_MISFITS_MAX`](crate::REAP_MISFITS_MAX) times.
    pub fn reap(&self, max_bytes: usize, max_gas: i64, max_count: usize) -> Vec<PoolTx> {
        self.index.reap(max_bytes, max_gas, max_count)
    }

    /// A block was executed: these transactions with these codes, whether we had them or not. They leave the pool. Those
    /// that succeeded are remembered and refused as repeats; one that failed may be sent again, as in CometBFT.
    ///
    /// Returns what to check again: of each sender that the block touched the first, as many as left, and some of those that
    /// wait behind a gap ([`RECHECK_WAITING_MAX`](crate::RECHECK_WAITING_MAX)). The caller answers with [`Mempool::recheck_result`].
    pub fn commit(&mut self, executed: impl IntoIterator<Item = (Hash, u32)>) -> Vec<PoolTx> {
        let mut touched = BTreeMap::new();
        for (hash, code) in executed {
            match self.places.get_mut(&hash) {
                Some(Place::Pooled(_)) if planted::has(Bug::ExecutedStays) => continue,
                Some(Place::Checking(_)) if planted::has(Bug::CheckOutlivesCommit) => continue,
                Some(place @ Place::Pooled(_)) if code == 0 && !planted::has(Bug::ExecutedForgotten) => {
                    let Place::Pooled(seq) = mem::replace(place, Place::Committed(self.recent.push(hash))) else { continue };
                    self.index.detach_executed(seq, code, &mut touched);
                    self.forget_oldest();
                    continue;
                }
                Some(Place::Pooled(seq)) => {
                    let seq = *seq;
                    self.index.detach_executed(seq, code, &mut touched);
                    self.places.remove(&hash);
                }
                Some(Place::Checking(_)) if code == 0 => {
                    self.take_checking(&hash);
                }
                Some(Place::Checking(_)) => continue,
                Some(Place::Committed(stamp)) => {
                    *stamp = self.recent.touch(*stamp);
                    continue;
                }
                None => {}
            }
            if code == 0 {
                self.remember(hash);
            }
        }
        self.index.settle_touched(&touched)
    }

    /// The verdict on a transaction in the pool, asked for by [`Mempool::commit`] or by whoever doubts it. One that no
    /// longer passes leaves, and its return is that report; it may be sent again. One that left meanwhile is ignored.
    pub fn recheck_result(&mut self, hash: &Hash, verdict: &CheckVerdict) -> Option<Removed> {
        let Some(Place::Pooled(seq)) = self.places.get(hash) else { return None };
        let seq = *seq;
        if verdict.code != 0 {
            return Some(self.forget(|index| index.detach_and_mend(seq), Why::RecheckFailed { code: verdict.code }));
        }
        if self.fits_a_block(verdict.gas_wanted).is_err() {
            return Some(self.forget(|index| index.detach_and_mend(seq), Why::NoBlockHoldsIt));
        }
        self.index.update(seq, gas(verdict), verdict.priority, verdict.next_nonce);
        None
    }

    /// The parameters of the chain changed: the longest transaction that a block can hold, and a block's gas (-1 for no
    /// bound). Those that no block can hold any more leave. Walks the whole pool: parameters change rarely.
    pub fn set_block_bounds(&mut self, max_tx_bytes: usize, max_tx_gas: i64) -> Vec<Removed> {
        let fitting = |limits: &Limits| max_tx_bytes.min(limits.max_bytes).min(limits.max_sender_bytes).min(limits.max_checking_bytes);
        self.limits.max_tx_bytes = fitting(&self.limits).max(1);
        self.limits.max_tx_gas = max_tx_gas;
        let (most_bytes, most_gas) = (self.limits.max_tx_bytes, u64::try_from(max_tx_gas).ok());
        let misfits = |entry: &Entry| entry.tx.bytes.len() > most_bytes || most_gas.is_some_and(|most| entry.gas > most);
        let leaving: Vec<Seq> = self.index.arrivals_from(0).filter(|(_, entry)| misfits(entry)).map(|(seq, _)| seq).collect();
        leaving.into_iter().map(|seq| self.forget(|index| index.detach_and_mend(seq), Why::NoBlockHoldsIt)).collect()
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Transactions in the pool.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a block built now would have a transaction: one waits, and not behind a gap.
    pub fn has_executable(&self) -> bool {
        self.index.in_order().next().is_some_and(|first| !first.rank.waits)
    }

    /// Bytes of the transactions in the pool.
    pub fn bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Transactions whose check is outstanding.
    pub fn checking(&self) -> usize {
        self.checking_txs
    }

    /// Where a hash stands; `None` for one that is not known, or not any more.
    pub fn status(&self, hash: &Hash) -> Option<Status> {
        self.places.get(hash).map(|place| match place {
            Place::Checking(_) => Status::Checking,
            Place::Pooled(_) => Status::Pooled,
            Place::Committed(_) => Status::Committed,
        })
    }

    /// Whether a transaction is in the pool.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.status(hash) == Some(Status::Pooled)
    }

    /// A transaction in the pool.
    pub fn get(&self, hash: &Hash) -> Option<&PoolTx> {
        match self.places.get(hash) {
            Some(Place::Pooled(seq)) => Some(&self.index.get(*seq).tx),
            _ => None,
        }
    }

    /// The transactions in the pool, in the order in which they would be reaped; those that wait behind a gap come last.
    pub fn iter(&self) -> impl Iterator<Item = &PoolTx> {
        self.index.in_order().map(|entry| &entry.tx)
    }

    /// Panics unless every index agrees with every other. For tests: it walks everything.
    pub fn assert_invariants(&self) {
        let mut counts = (0, 0, 0, 0);
        for (hash, place) in &self.places {
            match place {
                Place::Checking(checking) => {
                    counts.0 += 1;
                    counts.1 += checking.bytes.len();
                }
                Place::Pooled(seq) => {
                    counts.2 += 1;
                    assert_eq!(self.index.get(*seq).tx.hash, *hash, "a place names its own transaction");
                }
                Place::Committed(stamp) => {
                    counts.3 += 1;
                    assert_eq!(self.recent.get(*stamp), Some(hash), "a remembered hash is in line to be forgotten");
                }
            }
        }
        assert_eq!(counts, (self.checking_txs, self.checking_bytes, self.len(), self.recent.len()), "each hash is in one place");
        assert!(self.recent.len() <= self.limits.cache_size, "more hashes remembered than asked for");
        assert!(self.checking_txs <= self.limits.max_checking_txs, "more checks than asked for");
        self.index.assert_invariants(&self.limits, |hash| match self.places.get(hash) {
            Some(Place::Pooled(seq)) => Some(*seq),
            _ => None,
        });
    }

    pub(crate) fn next_seq(&self) -> Seq {
        self.index.next_seq()
    }

    pub(crate) fn arrivals_from(&self, seq: Seq) -> impl Iterator<Item = (Seq, &Entry)> {
        self.index.arrivals_from(seq)
    }

    fn fits_a_block(&self, gas_wanted: i64) -> Result<(), Refused> {
        let max = self.limits.max_tx_gas;
        if max >= 0 && gas_wanted > max { Err(Refused::TooMuchGas { max, got: gas_wanted }) } else { Ok(()) }
    }

    fn take_checking(&mut self, hash: &Hash) -> Option<Checking> {
        let Some(Place::Checking(_)) = self.places.get(hash) else { return None };
        let Some(Place::Checking(checking)) = self.places.remove(hash) else { unreachable!("it was there") };
        self.checking_txs -= 1;
        self.checking_bytes -= checking.bytes.len();
        Some(*checking)
    }

    /// Takes a transaction out of the pool, and out of our memory.
    fn forget(&mut self, detach: impl FnOnce(&mut Index) -> Entry, why: Why) -> Removed {
        let hash = detach(&mut self.index).tx.hash;
        self.places.remove(&hash);
        Removed { hash, why }
    }

    fn remember(&mut self, hash: Hash) {
        if planted::has(Bug::ExecutedForgotten) {
            return;
        }
        self.places.insert(hash, Place::Committed(self.recent.push(hash)));
        self.forget_oldest();
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.recent.pop_above(self.limits.cache_size) {
            self.places.remove(&oldest);
        }
    }
}

fn gas(verdict: &CheckVerdict) -> u64 {
    u64::try_from(verdict.gas_wanted).unwrap_or(0)
}
