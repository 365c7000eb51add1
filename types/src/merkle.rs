//! The Merkle tree of headers, commits, data and results (`encoding.md` section 2): the shape of RFC 6962 over a list of
//! byte strings, with one byte in front that tells leaves from inner nodes.

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::codec;
use crate::primitives::Hash;

/// Longest path that a proof may carry: lists here are shorter than 2^32.
pub const AUNTS_MAX: usize = 32;

fn leaf_hash(leaf: &[u8]) -> Hash {
    Hash::of_parts(&[&[0], leaf])
}

fn inner_hash(left: &Hash, right: &Hash) -> Hash {
    Hash::of_parts(&[&[1], &left.0, &right.0])
}

/// The largest power of two strictly below `n`, for `n` above one.
fn split(n: usize) -> usize {
    assert!(n > 1, "one leaf is not split");
    1 << (usize::BITS - 1 - (n - 1).leading_zeros())
}

/// The root of a list of leaves.
pub fn root<L: AsRef<[u8]>>(leaves: &[L]) -> Hash {
    match leaves {
        [] => Hash::EMPTY_LIST,
        [only] => leaf_hash(only.as_ref()),
        many => {
            let (left, right) = many.split_at(split(many.len()));
            inner_hash(&root(left), &root(right))
        }
    }
}

/// A proof that a leaf stands at one place of a list with a known root.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Proof {
    /// Number of leaves.
    pub total: u64,
    /// Position of the leaf, from 0.
    pub index: u64,
    /// Hash of the leaf itself.
    pub leaf_hash: Hash,
    /// The sibling of the leaf, then of its parent, and so on up.
    pub aunts: Vec<Hash>,
}

impl BorshDeserialize for Proof {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            total: u64::deserialize_reader(reader)?,
            index: u64::deserialize_reader(reader)?,
            leaf_hash: Hash::deserialize_reader(reader)?,
            aunts: codec::read_list(reader, AUNTS_MAX)?,
        })
    }
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The position is not within the list.
    #[error("position {index} of a list of {total}")]
    Index {
        /// Claimed position.
        index: u64,
        /// Claimed length.
        total: u64,
    },
    /// The leaf is another.
    #[error("the leaf's hash differs")]
    Leaf,
    /// Too many or too few siblings for the place.
    #[error("the path's length does not fit the place")]
    Path,
    /// The path does not end in the root.
    #[error("the path leads to another root")]
    Root,
}

impl Proof {
    /// Checks that `leaf` stands at `self.index` of the list of `self.total` leaves with this root.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn verify(&self, expected_root: &Hash, leaf: &[u8]) -> Result<(), ProofError> {
        if self.index >= self.total {
            return Err(ProofError::Index { index: self.index, total: self.total });
        }
        if leaf_hash(leaf) != self.leaf_hash {
            return Err(ProofError::Leaf);
        }
        if self.aunts.len() > AUNTS_MAX {
            return Err(ProofError::Path);
        }
        let computed = climb(self.index, self.total, self.leaf_hash, &self.aunts)?;
        if computed == *expected_root { Ok(()) } else { Err(ProofError::Root) }
    }
}

/// The root above a leaf. The last aunt is the sibling nearest to the root, so the list is walked from its end.
fn climb(index: u64, total: u64, leaf: Hash, aunts: &[Hash]) -> Result<Hash, ProofError> {
    if total == 1 {
        return if aunts.is_empty() { Ok(leaf) } else { Err(ProofError::Path) };
    }
    let (sibling, rest) = aunts.split_last().ok_or(ProofError::Path)?;
    let left_size = 1u64 << (u64::BITS - 1 - (total - 1).leading_zeros());
    if index < left_size {
        Ok(inner_hash(&climb(index, left_size, leaf, rest)?, sibling))
    } else {
        Ok(inner_hash(sibling, &climb(index - left_size, total - left_size, leaf, rest)?))
    }
}

/// The root and a proof for every leaf.
pub fn proofs<L: AsRef<[u8]>>(leaves: &[L]) -> (Hash, Vec<Proof>) {
    let mut proofs: Vec<Proof> = leaves
        .iter()
        .enumerate()
        .map(|(index, leaf)| Proof {
            total: leaves.len() as u64,
            index: index as u64,
            leaf_hash: leaf_hash(leaf.as_ref()),
            aunts: Vec::new(),
        })
        .collect();
    let root = collect(&mut proofs);
    (root, proofs)
}

/// The root of the leaves that these proofs are for; each proof gains the aunts below that root.
fn collect(proofs: &mut [Proof]) -> Hash {
    match proofs {
        [] => Hash::EMPTY_LIST,
        [only] => only.leaf_hash,
        many => {
            let (left, right) = many.split_at_mut(split(many.len()));
            let (left_root, right_root) = (collect(left), collect(right));
            left.iter_mut().for_each(|proof| proof.aunts.push(right_root));
            right.iter_mut().for_each(|proof| proof.aunts.push(left_root));
            inner_hash(&left_root, &right_root)
        }
    }
}
