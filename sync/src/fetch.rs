//! Whom to ask for one thing of many, each thing of one peer at a time: the bookkeeping that state sync stands on.
//!
//! Slowness is no lie: a deadline makes us ask somebody else and prefer others, and the late answer is taken all the same. Who
//! answers pays off what it owes. Among those who may have a thing, the one that owes least is asked, and of equals the one
//! that was asked longest ago; so among any number of liars, one honest peer is soon asked all the time.

use std::collections::{BTreeMap, BTreeSet};

use crate::peers::{DEADLINE_MS, FORGET_AFTER_DEADLINES, PATIENCE_MAX, PEERS_MAX, REQUESTS_PER_PEER_MAX, TIMEOUT_DEBT};

/// Debt grows no further: a peer that was useless for long can be of use again.
const DEBT_MAX: u32 = 1_024;
/// Most things that a peer said it lacks and that are remembered. One that lacks more is not asked at all.
const LACKS_MAX: usize = 4_096;

/// A peer.
#[derive(Debug)]
struct Source<K> {
    /// Requests that it did not answer yet, those past their deadline included.
    in_flight: usize,
    last_asked: u64,
    debt: u32,
    /// Deadlines missed in a row.
    patience: u32,
    left: bool,
    lacks: BTreeSet<K>,
}

/// A request on its way.
#[derive(Debug)]
struct Asked<K> {
    peer: u64,
    what: K,
    deadline: u64,
    forget_at: u64,
    late: bool,
}

/// Who is asked for what.
#[derive(Debug)]
pub(crate) struct Fetch<K> {
    sources: BTreeMap<u64, Source<K>>,
    asked: BTreeMap<u64, Asked<K>>,
    next_id: u64,
}

impl<K: Ord + Copy> Fetch<K> {
    pub(crate) const fn new() -> Self {
        Self { sources: BTreeMap::new(), asked: BTreeMap::new(), next_id: 0 }
    }

    /// A peer is there.
    pub(crate) fn meet(&mut self, peer: u64) {
        if self.sources.len() < PEERS_MAX || self.sources.contains_key(&peer) {
            self.sources.entry(peer).or_insert_with(|| Source {
                in_flight: 0,
                last_asked: 0,
                debt: 0,
                patience: 0,
                left: false,
                lacks: BTreeSet::new(),
            });
        }
    }

    /// A peer is gone, and its requests with it.
    pub(crate) fn gone(&mut self, peer: u64) {
        self.sources.remove(&peer);
        self.asked.retain(|_, asked| asked.peer != peer);
    }

    /// A peer lied: it is not asked again, and what it still answers is not read.
    pub(crate) fn leave(&mut self, peer: u64) {
        self.asked.retain(|_, asked| asked.peer != peer);
        if let Some(source) = self.sources.get_mut(&peer) {
            source.left = true;
        }
    }

    /// Peers that may be asked for something at all.
    pub(crate) fn peers(&self) -> impl Iterator<Item = u64> {
        self.sources.iter().filter(|(_, source)| !source.left).map(|(peer, _)| *peer)
    }

    /// What a peer owes.
    pub(crate) fn debt(&self, peer: u64) -> u32 {
        self.sources.get(&peer).map_or(u32::MAX, |source| source.debt)
    }

    /// A peer was of no use.
    pub(crate) fn owes(&mut self, peer: u64) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.debt = (source.debt + TIMEOUT_DEBT).min(DEBT_MAX);
        }
    }

    /// What a peer gave was good.
    pub(crate) fn proved(&mut self, peer: u64) {
        if let Some(source) = self.sources.get_mut(&peer) {
            source.debt = source.debt.saturating_sub(1);
        }
    }

    /// Asks somebody for something, if there is anybody to ask who is not busy, and it is not on its way.
    pub(crate) fn ask(&mut self, now: u64, what: K, may_have: impl Fn(u64) -> bool) -> Option<(u64, u64)> {
        if self.is_due(&what) {
            return None;
        }
        let is_asked = |peer: u64| self.asked.values().any(|asked| asked.what == what && asked.peer == peer);
        let free = |peer: &u64, source: &Source<K>| {
            source.in_flight < REQUESTS_PER_PEER_MAX && source.can_have(&what) && !is_asked(*peer) && may_have(*peer)
        };
        let candidates = self.sources.iter().filter(|(peer, source)| free(peer, source));
        let (peer, _) = candidates.min_by_key(|(peer, source)| (source.debt / TIMEOUT_DEBT, source.last_asked, **peer))?;
        let peer = *peer;
        self.next_id += 1;
        let source = self.sources.get_mut(&peer).expect("just met");
        source.in_flight += 1;
        source.last_asked = self.next_id;
        let patience = DEADLINE_MS << source.patience.min(PATIENCE_MAX);
        let (deadline, forget_at) = (now.saturating_add(patience), now.saturating_add(patience * FORGET_AFTER_DEADLINES));
        self.asked.insert(self.next_id, Asked { peer, what, deadline, forget_at, late: false });
        Some((peer, self.next_id))
    }

    /// Whether anybody is left who may have it, busy or not.
    pub(crate) fn is_there(&self, what: &K, may_have: impl Fn(u64) -> bool) -> bool {
        self.sources.iter().any(|(peer, source)| source.can_have(what) && may_have(*peer))
    }

    /// A peer answered what it was asked: what that was. None for an answer that nobody waits for.
    pub(crate) fn answered(&mut self, peer: u64, id: u64) -> Option<K> {
        self.asked.get(&id).filter(|asked| asked.peer == peer)?;
        let asked = self.asked.remove(&id)?;
        let source = self.sources.get_mut(&peer)?;
        source.in_flight = source.in_flight.saturating_sub(1);
        if asked.late {
            source.debt = source.debt.saturating_sub(TIMEOUT_DEBT);
        } else {
            source.patience = 0;
        }
        Some(asked.what)
    }

    /// A peer says that it does not have it.
    pub(crate) fn lacks(&mut self, peer: u64, what: K) {
        if let Some(source) = self.sources.get_mut(&peer).filter(|source| source.lacks.len() < LACKS_MAX) {
            source.lacks.insert(what);
        }
    }

    /// Everybody may have these again: they say new things of themselves.
    pub(crate) fn forgive(&mut self, may_be: impl Fn(&K) -> bool) {
        for source in self.sources.values_mut() {
            source.lacks.retain(|what| !may_be(what));
        }
    }

    /// What was asked for and is of no use any more.
    pub(crate) fn drop_all(&mut self, is_useless: impl Fn(&K) -> bool) {
        for asked in self.asked.values().filter(|asked| is_useless(&asked.what)) {
            if let Some(source) = self.sources.get_mut(&asked.peer) {
                source.in_flight = source.in_flight.saturating_sub(1);
            }
        }
        self.asked.retain(|_, asked| !is_useless(&asked.what));
    }

    /// Requests for such things that are within their deadline.
    pub(crate) fn due(&self, is_such: impl Fn(&K) -> bool) -> usize {
        self.asked.values().filter(|asked| !asked.late && is_such(&asked.what)).count()
    }

    /// Whether it is on its way.
    pub(crate) fn is_due(&self, what: &K) -> bool {
        self.asked.values().any(|asked| asked.what == *what && !asked.late)
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, now: u64) {
        for asked in self.asked.values_mut().filter(|asked| !asked.late && asked.deadline <= now) {
            asked.late = true;
            if let Some(source) = self.sources.get_mut(&asked.peer) {
                source.patience = (source.patience + 1).min(PATIENCE_MAX);
                source.debt = (source.debt + TIMEOUT_DEBT).min(DEBT_MAX);
            }
        }
        for asked in self.asked.values().filter(|asked| asked.forget_at <= now) {
            if let Some(source) = self.sources.get_mut(&asked.peer) {
                source.in_flight = source.in_flight.saturating_sub(1);
            }
        }
        self.asked.retain(|_, asked| asked.forget_at > now);
    }

    /// When [`Fetch::tick`] has something to do.
    pub(crate) fn wakeup_ms(&self) -> Option<u64> {
        self.asked.values().map(|asked| if asked.late { asked.forget_at } else { asked.deadline }).min()
    }
}

impl<K: Ord> Source<K> {
    fn can_have(&self, what: &K) -> bool {
        !self.left && self.lacks.len() < LACKS_MAX && !self.lacks.contains(what)
    }
}
