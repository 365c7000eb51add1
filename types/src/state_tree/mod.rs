//! What the application's state hashes to, and how anyone proves what it holds.
//!
//! The state is a map from keys to values. Its root, the application hash of the next header, is the root of a binary
//! sparse Merkle tree over `path = SHA-256(key)`: 256 levels, one bit of the path per level, the most significant bit of
//! the first byte first, 0 to the left. A subtree without entries is the constant [`EMPTY`]; a subtree with one entry *is*
//! that entry's leaf, however high it stands; every other subtree is an inner node.
//!
//! ```text
//! leaf  = SHA-256(00 || path || SHA-256(value))        path = SHA-256(key)
//! inner = SHA-256(01 || left || right)
//! empty = 32 zero bytes                                 no preimage of it is known
//! ```
//!
//! So the root is a function of the entries alone, whatever the order in which they came, and no leaf is an inner node.
//! These are the bytes of ICS-23's `smt_spec`, so a verifier that knows ICS-23 reads our proofs ([`ics23`]). ICS-23 cannot
//! speak of an empty key or value, so a state holds neither: keys have 1 to [`KEY_BYTES_MAX`] bytes, values 1 to
//! [`VALUE_BYTES_MAX`].
//!
//! Two forms of proof lead to the same root. [`Proof`] is ours, the smallest that proves presence or absence;
//! [`ics23::CommitmentProof`] is what `abci_query` hands out. Neither trusts who made it.

mod proof;

pub mod ics23;

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};
use sha2::{Digest, Sha256};

pub use proof::{PROOF_BYTES_MAX, Proof, ProofError, Terminal};

use crate::primitives::Hash;

/// The hash of a subtree without entries, and so the root of an empty state.
pub const EMPTY: Hash = Hash([0; 32]);

/// Levels below the root: a leaf stands at most this deep.
pub const DEPTH_MAX: usize = 256;

/// First byte of what is hashed to a leaf.
pub const LEAF_PREFIX: u8 = 0x00;

/// First byte of what is hashed to an inner node.
pub const INNER_PREFIX: u8 = 0x01;

/// Longest key. A proof of absence carries its neighbours' keys, so a key must not make proofs large.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Longest value. A proof of absence carries its neighbours' values; larger things are split by the application.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;

/// Where a key stands: SHA-256 of it. State, snapshots and proofs of neighbours are ordered by path.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Path(pub [u8; 32]);

impl Path {
    /// The path of a key.
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether the path goes right at the inner node of this depth; the root has depth 0.
    ///
    /// # Panics
    /// At [`DEPTH_MAX`] and below: no inner node stands there.
    #[inline]
    pub fn bit(&self, depth: usize) -> bool {
        self.0[depth / 8] >> (7 - depth % 8) & 1 == 1
    }

    /// Number of leading bits that two paths share.
    pub fn common_bits(&self, other: &Self) -> usize {
        let differing = self.0.iter().zip(&other.0).position(|(a, b)| a != b);
        differing.map_or(DEPTH_MAX, |at| at * 8 + (self.0[at] ^ other.0[at]).leading_zeros() as usize)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&crate::primitives::Hash(self.0), f)
    }
}

/// The hash of an entry that is alone in its subtree.
pub fn leaf_hash(path: &Path, value_hash: &Hash) -> Hash {
    two(LEAF_PREFIX, &path.0, &value_hash.0)
}

/// The hash of a subtree with two or more entries.
pub fn inner_hash(left: &Hash, right: &Hash) -> Hash {
    two(INNER_PREFIX, &left.0, &right.0)
}

/// One call over one array: this runs some ten times for every entry a block changes.
#[inline]
fn two(prefix: u8, a: &[u8; 32], b: &[u8; 32]) -> Hash {
    let mut preimage = [0; 65];
    preimage[0] = prefix;
    preimage[1..33].copy_from_slice(a);
    preimage[33..].copy_from_slice(b);
    Hash(Sha256::digest(preimage).into())
}

/// The root above a subtree whose hash is `below` and which stands on `path` under these siblings, the root's child first.
fn climb(path: &Path, siblings: &[Hash], below: Hash) -> Hash {
    siblings.iter().enumerate().rev().fold(
        below,
        |hash, (depth, sibling)| {
            if path.bit(depth) { inner_hash(sibling, &hash) } else { inner_hash(&hash, sibling) }
        },
    )
}
