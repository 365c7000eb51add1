//! Merkle proofs prove what they say and nothing else.

use proptest::prelude::*;

use lockstep_types::Hash;
use lockstep_types::merkle::{self, AUNTS_MAX, Proof, ProofError};

/// The tree of RFC 6962 from its text, without sharing a line with the crate.
fn naive_root(leaves: &[Vec<u8>]) -> Hash {
    if leaves.is_empty() {
        return Hash::of("");
    }
    if leaves.len() == 1 {
        return Hash::of([&[0][..], &leaves[0]].concat());
    }
    let mut split = 1;
    while split * 2 < leaves.len() {
        split *= 2;
    }
    let (left, right) = (naive_root(&leaves[..split]), naive_root(&leaves[split..]));
    Hash::of([&[1][..], &left.0, &right.0].concat())
}

fn leaves() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..40)
}

proptest! {
    #[test]
    fn the_root_is_the_naive_one_and_every_proof_holds(leaves in leaves()) {
        let (root, proofs) = merkle::proofs(&leaves);
        prop_assert_eq!(root, naive_root(&leaves));
        prop_assert_eq!(root, merkle::root(&leaves));
        for (proof, leaf) in proofs.iter().zip(&leaves) {
            prop_assert_eq!(proof.verify(&root, leaf), Ok(()));
        }
    }

    #[test]
    fn a_changed_proof_fails(leaves in leaves(), place in any::<prop::sample::Index>(), bit in 0..256usize, aunt in any::<prop::sample::Index>()) {
        let (root, proofs) = merkle::proofs(&leaves);
        let place = place.index(leaves.len());
        let (good, leaf) = (&proofs[place], &leaves[place]);

        let mut other_leaf = leaf.clone();
        other_leaf.push(0);
        prop_assert_eq!(good.verify(&root, &other_leaf), Err(ProofError::Leaf));

        let mut other_root = root;
        other_root.0[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(good.verify(&other_root, leaf), Err(ProofError::Root));

        if !good.aunts.is_empty() {
            let mut bad = good.clone();
            let aunt = aunt.index(good.aunts.len());
            bad.aunts[aunt].0[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(bad.verify(&root, leaf), Err(ProofError::Root));
            let mut bad = good.clone();
            bad.aunts.remove(aunt);
            prop_assert!(bad.verify(&root, leaf).is_err());
        }
        let mut bad = good.clone();
        bad.aunts.push(root);
        prop_assert!(bad.verify(&root, leaf).is_err());
        let mut bad = good.clone();
        bad.aunts.resize(AUNTS_MAX + 1, root);
        prop_assert_eq!(bad.verify(&root, leaf), Err(ProofError::Path));
    }

    #[test]
    fn a_proof_is_for_one_place_of_one_length(leaves in leaves(), place in any::<prop::sample::Index>(), total in 0..64u64, index in 0..64u64) {
        let (root, proofs) = merkle::proofs(&leaves);
        let place = place.index(leaves.len());
        let moved = Proof { total, index, ..proofs[place].clone() };
        let answer = moved.verify(&root, &leaves[place]);
        if index >= total {
            prop_assert_eq!(answer, Err(ProofError::Index { index, total }));
        } else if answer.is_ok() {
            // Another length may have the same path to the same place; the place itself may not move.
            prop_assert_eq!(path(index, total), path(proofs[place].index, proofs[place].total));
        }
    }

    #[test]
    fn no_bytes_decode_into_a_proof_that_panics(total in any::<u64>(), index in any::<u64>(), aunts in 0..40usize) {
        let proof = Proof { total, index, leaf_hash: Hash::of([&[0][..], b"leaf"].concat()), aunts: vec![Hash([7; 32]); aunts] };
        prop_assert!(proof.verify(&Hash([9; 32]), b"leaf").is_err());
    }
}

/// Which side the leaf is on at each level, from the root down.
fn path(mut index: u64, mut total: u64) -> Vec<bool> {
    let mut sides = Vec::new();
    while total > 1 {
        let mut split = 1;
        while split * 2 < total {
            split *= 2;
        }
        let right = index >= split;
        sides.push(right);
        (index, total) = if right { (index - split, total - split) } else { (index, split) };
    }
    sides
}

#[test]
fn an_inner_node_is_no_leaf() {
    let leaves: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n]).collect();
    let (root, proofs) = merkle::proofs(&leaves);
    // The bytes of the left inner node, offered as the leaf of a list of two.
    let left = [Hash::of([0, 0]).0, Hash::of([0, 1]).0].concat();
    let inner = Hash::of([&[1][..], &left].concat());
    assert_eq!(proofs[2].aunts[1], inner);
    let forged = Proof { total: 2, index: 0, leaf_hash: inner, aunts: vec![proofs[0].aunts[1]] };
    assert_eq!(forged.verify(&root, &left), Err(ProofError::Leaf), "a leaf is hashed with another first byte");
    let honest_hash = Proof { leaf_hash: Hash::of([&[0][..], &left].concat()), ..forged };
    assert_eq!(honest_hash.verify(&root, &left), Err(ProofError::Root));
}

#[test]
fn lists_that_differ_by_repetition_have_different_roots() {
    // Trees that repeat the last leaf of an odd list give [a, b, c] and [a, b, c, c] one root.
    let a = |n: usize| vec![vec![1u8]; n];
    let mut roots: Vec<Hash> = (0..40).map(|n| merkle::root(&a(n))).collect();
    roots.sort();
    roots.dedup();
    assert_eq!(roots.len(), 40);
}

#[test]
fn the_largest_numbers_are_just_wrong() {
    for (index, total) in [(u64::MAX, u64::MAX), (u64::MAX - 1, u64::MAX), (0, u64::MAX), (1 << 63, u64::MAX), (0, 0)] {
        let proof = Proof { total, index, leaf_hash: Hash::of([0]), aunts: vec![Hash([1; 32]); AUNTS_MAX] };
        assert!(proof.verify(&Hash([1; 32]), b"").is_err());
    }
}

#[test]
fn a_path_has_a_longest_length() {
    let climb = |aunts: &[Hash]| {
        let leaf = Hash::of([0]);
        aunts.iter().fold(leaf, |below, aunt| Hash::of([&[1][..], &below.0, &aunt.0].concat()))
    };
    for (levels, expected) in [(AUNTS_MAX, Ok(())), (AUNTS_MAX + 1, Err(ProofError::Path))] {
        let aunts = vec![Hash([7; 32]); levels];
        let root = climb(&aunts);
        let proof = Proof { total: 1 << levels, index: 0, leaf_hash: Hash::of([0]), aunts };
        assert_eq!(proof.verify(&root, b""), expected, "{levels} levels");
    }
}
