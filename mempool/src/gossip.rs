//! What is told to whom.
//!
//! A peer costs one number: how far in the order of arrival it was told. What arrives later stands behind it, what left
//! meanwhile is simply not met. Nothing is kept per transaction and peer, but for a few peers that gave us what we had.

use std::collections::BTreeMap;

use crate::entry::{Entry, Origin, PoolTx};
use crate::pool::Mempool;
use crate::rank::Seq;
use crate::verdict::body_bytes;

/// Most peers that are told. The network admits fewer; a peer beyond is told nothing, which costs it nothing but delay.
pub const PEERS_MAX: usize = 1_024;

/// Most peers that are remembered as having a transaction, beside the first who gave it.
pub const HEARD_MAX: usize = 8;

/// Which transactions a peer is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Those that clients gave to this node. In a full mesh everyone hears of them from us, and of the others from others:
    /// each body crosses each link about once.
    OwnOnly,
    /// Those that peers gave us too: where not everyone is connected to everyone, and when a node leaves.
    All,
}

/// How far each peer was told.
#[derive(Debug, Default)]
pub(crate) struct Cursors(BTreeMap<u64, Seq>);

impl Mempool {
    /// A peer is there: it will be told of everything in the pool. Announcing it again starts over.
    pub fn peer_up(&mut self, peer: u64) {
        if self.cursors.0.len() < PEERS_MAX || self.cursors.0.contains_key(&peer) {
            self.cursors.0.insert(peer, 0);
        }
    }

    /// A peer is gone.
    pub fn peer_down(&mut self, peer: u64) {
        self.cursors.0.remove(&peer);
    }

    /// How many arrivals the peer was not told of yet, at most: some may have left, or be none of our business. What a
    /// caller compares when it decides between sending now and filling a batch.
    pub fn untold(&self, peer: u64) -> u64 {
        self.cursors.0.get(&peer).map_or(0, |told| self.next_seq() - told)
    }

    /// The next transactions to tell a peer, in order of arrival: none that it gave us, none that it was given before. At
    /// most `max_count`, and `max_bytes` in a body's encoding; one that is larger than that goes alone. Empty when there
    /// is nothing more, and for a peer that is not up.
    ///
    /// What is returned counts as told. Ask only when the link has room; what got lost is told again after
    /// [`Mempool::peer_up`].
    pub fn next_batch(&mut self, peer: u64, forward: Forward, max_bytes: usize, max_count: usize) -> Vec<PoolTx> {
        let Some(mut told) = self.cursors.0.get(&peer).copied() else { return Vec::new() };
        let mut batch = Vec::new();
        let mut bytes = 0_usize;
        for (seq, entry) in self.arrivals_from(told) {
            if is_news(entry, peer, forward) {
                let size = body_bytes(entry.tx.bytes.len());
                if batch.len() >= max_count || (!batch.is_empty() && bytes.saturating_add(size) > max_bytes) {
                    break;
                }
                bytes = bytes.saturating_add(size);
                batch.push(entry.tx.clone());
            }
            told = seq + 1;
        }
        self.cursors.0.insert(peer, told);
        batch
    }
}

fn is_news(entry: &Entry, peer: u64, forward: Forward) -> bool {
    let ours_to_tell = match forward {
        Forward::OwnOnly => entry.heard.origin == Origin::Client,
        Forward::All => true,
    };
    ours_to_tell && !entry.heard.has(peer)
}
