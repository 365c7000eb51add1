//! Our proofs against the crate `ics23`, and against those who forge them.

use std::sync::OnceLock;

use ics23::commitment_proof::Proof as Ics23Proof;
use ics23::{HostFunctionsManager, ProofSpec};
use lockstep_app::Tree;
use lockstep_types::Hash;
use lockstep_types::state_tree::ics23::{CommitmentProof, Existence, proof_spec};
use lockstep_types::state_tree::{EMPTY, PROOF_BYTES_MAX, Path, Proof, ProofError, Terminal, inner_hash, leaf_hash};
use proptest::prelude::*;
use prost::Message as _;

use super::common::{numbered, tree_of};

fn spec() -> ProofSpec {
    ProofSpec::decode(&proof_spec()[..]).expect("a ProofSpec")
}

fn decode(bytes: &[u8]) -> Option<ics23::CommitmentProof> {
    ics23::CommitmentProof::decode(bytes).ok()
}

/// What the oracle says.
fn oracle(bytes: &[u8], root: &Hash, key: &[u8], value: Option<&[u8]>) -> bool {
    let (Some(proof), root) = (decode(bytes), root.0.to_vec()) else { return false };
    match value {
        Some(value) => ics23::verify_membership::<HostFunctionsManager>(&proof, &spec(), &root, key, value),
        None => ics23::verify_non_membership::<HostFunctionsManager>(&proof, &spec(), &root, key),
    }
}

/// What we say about the same bytes.
fn ours(bytes: &[u8], root: &Hash, key: &[u8], value: Option<&[u8]>) -> bool {
    CommitmentProof::from_bytes(bytes).is_ok_and(|proof| proof.verify(root, key, value).is_ok())
}

/// A tree, and its entries in path order.
type Sample = (Tree, Vec<(Vec<u8>, Vec<u8>)>);

/// 200 entries.
fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let tree = tree_of(&numbered(200));
        let entries = tree.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        (tree, entries)
    })
}

#[test]
fn the_spec_is_the_one_of_sparse_merkle_trees() {
    assert_eq!(spec(), ProofSpec { max_depth: 256, ..ics23::smt_spec() });
    assert_eq!(proof_spec(), spec().encode_to_vec());
}

#[test]
fn bytes_are_those_of_protobuf() {
    let (tree, entries) = sample();
    for key in entries.iter().map(|(key, _)| key.clone()).chain((0..200).map(|n| format!("absent {n}").into_bytes())) {
        let bytes = tree.prove_ics23(&key).expect("not empty").to_bytes();
        assert_eq!(decode(&bytes).expect("protobuf").encode_to_vec(), bytes);
    }
    // A step by hand: the message as the oracle's types write it.
    let sibling = Hash::of(b"sibling");
    let key = b"key 0".to_vec();
    let proof = CommitmentProof::Exist(Existence { key: key.clone(), value: b"v".to_vec(), siblings: vec![sibling, EMPTY] });
    let path = Path::of(&key);
    let step = |depth: usize, sibling: &Hash| {
        let (prefix, suffix) = if path.bit(depth) { ([&[1][..], &sibling.0].concat(), vec![]) } else { (vec![1], sibling.0.to_vec()) };
        ics23::InnerOp { hash: 1, prefix, suffix }
    };
    let exist = ics23::ExistenceProof {
        key,
        value: b"v".to_vec(),
        leaf: ics23::smt_spec().leaf_spec,
        path: vec![step(1, &EMPTY), step(0, &sibling)],
    };
    assert_eq!(ics23::CommitmentProof { proof: Some(Ics23Proof::Exist(exist)) }.encode_to_vec(), proof.to_bytes());
}

proptest! {
    #[test]
    fn presence_and_absence_are_proven(count in 1u32..120, probe in prop::collection::vec(any::<u8>(), 1..20)) {
        let entries = numbered(count);
        let tree = tree_of(&entries);
        let root = tree.root();
        let absent = (0..50).map(|n| format!("absent {n}").into_bytes()).chain([probe]).filter(|key| !entries.contains_key(key)).map(|key| (key, None));
        let present = entries.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
        for (key, value) in present.chain(absent) {
            let value = value.as_deref();
            let proof = tree.prove(&key);
            prop_assert_eq!(proof.verify(&root, &key, value), Ok(()));
            prop_assert_eq!(Proof::from_bytes(&proof.to_bytes()), Ok(proof.clone()));
            let commitment = tree.prove_ics23(&key).expect("not empty");
            let bytes = commitment.to_bytes();
            prop_assert!(oracle(&bytes, &root, &key, value));
            prop_assert_eq!(commitment.verify(&root, &key, value), Ok(()));
            prop_assert_eq!(CommitmentProof::from_bytes(&bytes), Ok(commitment.clone()));
            // The opposite, another value, another root and another key are refused.
            let opposite = if value.is_some() { None } else { Some(&b"value"[..]) };
            let other_root = Hash::of(b"root");
            let wrong = [
                (&root, &key[..], opposite),
                (&other_root, &key[..], value),
                (&root, &b"another key"[..], value),
                (&root, &key[..], Some(&b"another value"[..])),
            ];
            for (root, key, value) in wrong {
                prop_assert!(proof.verify(root, key, value).is_err() || (key == b"another key" && value.is_none()));
                prop_assert!(commitment.verify(root, key, value).is_err());
            }
        }
    }

    /// Neighbours that are none, edges that are none, keys outside: we and the oracle agree on every combination.
    #[test]
    fn absence_is_judged_like_the_oracle(left in 0usize..201, right in 0usize..201, key in 0usize..400) {
        let (tree, entries) = sample();
        let key = entries.get(key).map_or_else(|| format!("absent {key}").into_bytes(), |(key, _)| key.clone());
        // The choice lies near the key, or hardly any combination would be a proof.
        let place = entries.partition_point(|(other, _)| Path::of(other) < Path::of(&key));
        for (left, right) in [(left, right), (place.wrapping_sub(1), place), (place.wrapping_sub(1 + left % 2), place + right % 2), (left, 200), (200, right)] {
            let side = |at: usize| entries.get(at).map(|(key, _)| match tree.prove_ics23(key) {
                Some(CommitmentProof::Exist(existence)) => existence,
                other => panic!("present, and proven as {other:?}"),
            });
            let (left, right) = (side(left), side(right));
            // With one entry on both sides the oracle runs out of steps and panics.
            if left.is_some() && left == right {
                continue;
            }
            let proof = CommitmentProof::Nonexist { key: key.clone(), left, right };
            prop_assert_eq!(proof.verify(&tree.root(), &key, None).is_ok(), oracle(&proof.to_bytes(), &tree.root(), &key, None));
        }
    }
}

#[test]
fn no_entry_hides_between_its_neighbours() {
    let (tree, entries) = sample();
    for three in entries.windows(3) {
        let existence = |key: &[u8]| match tree.prove_ics23(key) {
            Some(CommitmentProof::Exist(existence)) => Some(existence),
            _ => None,
        };
        let hidden = &three[1].0;
        let proof = CommitmentProof::Nonexist { key: hidden.clone(), left: existence(&three[0].0), right: existence(&three[2].0) };
        assert!(matches!(proof.verify(&tree.root(), hidden, None), Err(ProofError::Neighbours(_))));
        assert!(!oracle(&proof.to_bytes(), &tree.root(), hidden, None));
    }
}

#[test]
fn a_leaf_that_is_no_witness_of_absence() {
    let (tree, entries) = sample();
    // The key's own leaf, shown as somebody else's.
    for (key, value) in entries {
        let forged = Proof { terminal: Terminal::Other { path: Path::of(key), value_hash: Hash::of(value) }, ..tree.prove(key) };
        assert_eq!(forged.verify(&tree.root(), key, None), Err(ProofError::Elsewhere));
    }
    // A leaf on the wrong side: such a root no state has, but a verifier does not know where a root comes from.
    let (key, sibling) = (&entries[0].0, Hash::of(b"sibling"));
    let (other, value) = entries.last().expect("200");
    assert!(!Path::of(key).bit(0) && Path::of(other).bit(0));
    let terminal = Terminal::Other { path: Path::of(other), value_hash: Hash::of(value) };
    let root = inner_hash(&leaf_hash(&Path::of(other), &Hash::of(value)), &sibling);
    assert_eq!(Proof { terminal, siblings: vec![sibling] }.verify(&root, key, None), Err(ProofError::Elsewhere));
}

/// Changes, and cuts after, every byte.
fn spoiled(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let changed = (0..bytes.len()).flat_map(move |at| {
        [1u8, 0x80, 0xff].into_iter().map(move |mask| {
            let mut spoiled = bytes.to_vec();
            spoiled[at] ^= mask;
            spoiled
        })
    });
    changed.chain((0..bytes.len()).map(|len| bytes[..len].to_vec())).chain([[bytes, &[0]].concat()])
}

#[test]
fn no_changed_byte_proves_anything() {
    let (tree, entries) = sample();
    let root = tree.root();
    let present = entries.iter().step_by(67).map(|(key, value)| (key.clone(), Some(value.clone())));
    let absent = (0..4).map(|n| (format!("absent {n}").into_bytes(), None));
    for (key, value) in present.chain(absent) {
        let value = value.as_deref();
        let bytes = tree.prove(&key).to_bytes();
        for spoiled in spoiled(&bytes) {
            assert!(!Proof::from_bytes(&spoiled).is_ok_and(|proof| proof.verify(&root, &key, value).is_ok()), "{spoiled:02x?}");
        }
        let original = tree.prove_ics23(&key).expect("not empty").to_bytes();
        for spoiled in spoiled(&original) {
            assert!(!ours(&spoiled, &root, &key, value), "{spoiled:02x?}");
            // The oracle does not look at the key field of a proof of absence, nor at fields it does not know; what it
            // accepts must say the same about neighbours.
            if oracle(&spoiled, &root, &key, value) {
                let neighbours = |bytes: &[u8]| match decode(bytes).and_then(|proof| proof.proof) {
                    Some(Ics23Proof::Nonexist(proof)) => (proof.left, proof.right),
                    other => panic!("a changed proof of presence was accepted: {other:?}"),
                };
                assert_eq!(neighbours(&spoiled), neighbours(&original));
            }
        }
    }
}

#[test]
fn a_single_entry_and_none() {
    let tree = tree_of(&numbered(1));
    assert_eq!(tree.prove(b"key 0"), Proof { terminal: Terminal::Present, siblings: vec![] });
    for key in (0..20).map(|n| format!("absent {n}").into_bytes()) {
        assert_eq!(tree.prove(&key).verify(&tree.root(), &key, None), Ok(()));
        assert!(oracle(&tree.prove_ics23(&key).expect("not empty").to_bytes(), &tree.root(), &key, None));
    }
    let empty = Tree::new();
    assert_eq!(empty.prove(b"key").verify(&empty.root(), b"key", None), Ok(()));
    assert_eq!(empty.prove_ics23(b"key"), None);
    // Nothing is proven by showing nothing.
    let nothing = CommitmentProof::Nonexist { key: b"key".to_vec(), left: None, right: None };
    assert_eq!(nothing.verify(&empty.root(), b"key", None), Err(ProofError::Neighbours("proof has no neighbour")));
}

#[test]
fn a_deeper_proof_than_the_tree_is_refused() {
    let proof = Proof { terminal: Terminal::Vacant, siblings: vec![EMPTY; 257] };
    assert_eq!(proof.verify(&EMPTY, b"key", None), Err(ProofError::Depth { depth: 257 }));
    let deepest =
        Proof { terminal: Terminal::Other { path: Path([7; 32]), value_hash: Hash([7; 32]) }, siblings: vec![Hash([7; 32]); 256] };
    assert_eq!(deepest.to_bytes().len(), PROOF_BYTES_MAX);
    assert_eq!(Proof::from_bytes(&deepest.to_bytes()), Ok(deepest));
}

/// Frozen: version 1; another leaf; its path and value hash; three levels, of which the second is empty; two siblings.
#[test]
fn golden_proof_bytes() {
    let other = Terminal::Other { path: Path([0xaa; 32]), value_hash: Hash([0xbb; 32]) };
    let proof = Proof { terminal: other, siblings: vec![Hash([0xcc; 32]), EMPTY, Hash([0xdd; 32])] };
    let expected = [vec![1, 2], vec![0xaa; 32], vec![0xbb; 32], vec![3, 0, 0b1010_0000], vec![0xcc; 32], vec![0xdd; 32]].concat();
    assert_eq!(proof.to_bytes(), expected);
    assert_eq!(Proof { terminal: Terminal::Present, siblings: vec![] }.to_bytes(), [1, 0, 0, 0]);
    assert_eq!(Proof { terminal: Terminal::Vacant, siblings: vec![EMPTY] }.to_bytes(), [1, 1, 1, 0, 0]);
    // Each value has one spelling: a spare bit, and an empty sibling that is spelled out, are refused.
    assert!(Proof::from_bytes(&[1, 1, 1, 0, 1]).is_err());
    assert!(Proof::from_bytes(&[vec![1, 1, 1, 0, 0x80], vec![0; 32]].concat()).is_err());
}
