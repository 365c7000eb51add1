//! What peers send before its time, kept within a bound that they share equally.

use std::collections::{BTreeMap, VecDeque};

use crate::seam::Peer;

/// What several peers make us hold, within a bound of bytes for all together. Above it goes the newest of whoever holds the
/// most. So one peer alone may use all of it, and each of `n` has its n-th part whatever the others send: a flood displaces
/// only itself.
#[derive(Debug)]
pub struct Shares<T> {
    bytes_max: usize,
    bytes: usize,
    held: BTreeMap<Peer, Share<T>>,
    /// Numbers what arrives, over all peers.
    arrivals: u64,
}

#[derive(Debug)]
struct Share<T> {
    bytes: usize,
    /// Arrival, size, and the thing.
    items: VecDeque<(u64, usize, T)>,
}

impl<T> Shares<T> {
    /// Nothing yet, and at most this many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, held: BTreeMap::new(), arrivals: 0 }
    }

    /// Keeps something of a peer. What that makes too much goes: it may be this very thing.
    pub fn push(&mut self, peer: Peer, bytes: usize, item: T) {
        self.arrivals += 1;
        let share = self.held.entry(peer).or_insert(Share { bytes: 0, items: VecDeque::new() });
        share.items.push_back((self.arrivals, bytes, item));
        share.bytes += bytes;
        self.bytes += bytes;
        while self.bytes > self.bytes_max {
            let largest = self.held.iter().max_by_key(|(_, share)| share.bytes).map(|(peer, _)| *peer);
            let Some(largest) = largest else { return };
            self.drop_newest(largest);
        }
    }

    fn drop_newest(&mut self, peer: Peer) {
        let Some(share) = self.held.get_mut(&peer) else { return };
        if let Some((_, bytes, _)) = share.items.pop_back() {
            share.bytes -= bytes;
            self.bytes -= bytes;
        }
        if share.items.is_empty() {
            self.held.remove(&peer);
        }
    }

    /// A peer left, and what it sent with it: one that comes again and again gets no more than one share.
    pub fn forget(&mut self, peer: Peer) {
        if let Some(share) = self.held.remove(&peer) {
            self.bytes -= share.bytes;
        }
    }

    /// Takes out everything, in the order of arrival.
    pub fn take(&mut self) -> Vec<(Peer, T)> {
        self.take_if(|_| true)
    }

    /// Takes out what a question is answered yes for, in the order of arrival.
    pub fn take_if(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Vec<(Peer, T)> {
        let mut taken = Vec::new();
        for (peer, share) in &mut self.held {
            let mut rest = VecDeque::new();
            for (arrival, bytes, item) in std::mem::take(&mut share.items) {
                if wanted(&item) {
                    share.bytes -= bytes;
                    self.bytes -= bytes;
                    taken.push((arrival, *peer, item));
                } else {
                    rest.push_back((arrival, bytes, item));
                }
            }
            share.items = rest;
        }
        self.held.retain(|_, share| !share.items.is_empty());
        taken.sort_unstable_by_key(|(arrival, ..)| *arrival);
        taken.into_iter().map(|(_, peer, item)| (peer, item)).collect()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
