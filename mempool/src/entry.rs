//! A transaction and what is known of it while it waits.

use std::fmt;
use std::sync::Arc;

use lockstep_types::{Hash, Tx};

use crate::gossip::HEARD_MAX;
use crate::rank::Rank;

/// The bytes of a transaction, shared: the pool, a batch on its way to a peer and a block being built hold the same ones.
pub type TxBytes = Arc<[u8]>;

/// From whom a transaction came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A client of this node: telling the others is up to us.
    Client,
    /// A peer, by the number of its connection.
    Peer(u64),
}

/// A transaction with its hash, which was computed once. Cloning it copies no bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct PoolTx {
    /// SHA-256 of the bytes.
    pub hash: Hash,
    /// The transaction.
    pub bytes: TxBytes,
}

impl PoolTx {
    /// A copy in the form that blocks hold.
    pub fn to_tx(&self) -> Tx {
        Tx(self.bytes.to_vec())
    }
}

impl fmt::Debug for PoolTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolTx({:?}, {} bytes)", self.hash, self.bytes.len())
    }
}

/// Who is known to have a transaction: whoever gave it to us first, and some who gave it again.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) origin: Origin,
    /// At most [`HEARD_MAX`]. One who is not remembered is sent what it has, and refuses it by its hash.
    again: Vec<u64>,
}

impl Heard {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin, again: Vec::new() }
    }

    pub(crate) fn also_from(&mut self, origin: Origin) {
        if let Origin::Peer(peer) = origin
            && !self.has(peer)
            && self.again.len() < HEARD_MAX
        {
            self.again.push(peer);
        }
    }

    pub(crate) fn has(&self, peer: u64) -> bool {
        self.origin == Origin::Peer(peer) || self.again.contains(&peer)
    }
}

/// A transaction that the application is asked about.
#[derive(Debug)]
pub(crate) struct Checking {
    pub(crate) bytes: TxBytes,
    pub(crate) heard: Heard,
}

/// A transaction in the pool.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) tx: PoolTx,
    pub(crate) heard: Heard,
    pub(crate) gas: u64,
    pub(crate) priority: i64,
    /// Empty for nobody's.
    pub(crate) sender: Vec<u8>,
    pub(crate) nonce: Option<u64>,
    /// Where it stands now: the key under which the order knows it.
    pub(crate) rank: Rank,
}
