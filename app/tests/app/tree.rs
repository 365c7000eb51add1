//! The tree against its definition: a function of the entries, recursive and slow.

use std::sync::Arc;

use lockstep_app::Tree;
use lockstep_types::Hash;
use lockstep_types::state_tree::Path;
use proptest::prelude::*;

use super::common::{Entries, changes_of, numbered, tree_of};

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    Hash::of(parts.concat()).0
}

/// The root of some leaves, as (path, leaf hash) in path order.
fn model(leaves: &[([u8; 32], [u8; 32])], depth: usize) -> [u8; 32] {
    match leaves {
        [] => [0; 32],
        [(_, leaf)] => *leaf,
        _ => {
            let goes_right = |path: &[u8; 32]| path[depth / 8] & (0x80 >> (depth % 8)) != 0;
            let (right, left): (Vec<_>, Vec<_>) = leaves.iter().partition(|(path, _)| goes_right(path));
            sha256(&[&[1], &model(&left, depth + 1), &model(&right, depth + 1)])
        }
    }
}

fn model_root(entries: &Entries) -> Hash {
    let mut leaves: Vec<_> = entries
        .iter()
        .map(|(key, value)| {
            let path = sha256(&[key]);
            (path, sha256(&[&[0], &path, &sha256(&[value])]))
        })
        .collect();
    leaves.sort();
    Hash(model(&leaves, 0))
}

type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// Keys from a small space, so that batches meet: some are updated, some deleted, some deleted that are not there.
fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let key = (0u16..300).prop_map(|n| n.to_le_bytes().to_vec());
    let value = prop_oneof![2 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Some), 1 => Just(None)];
    prop::collection::vec(prop::collection::vec((key, value), 0..60), 0..12)
}

proptest! {
    #[test]
    fn root_depends_on_the_entries_alone(batches in batches()) {
        let mut entries = Entries::new();
        let mut tree = Tree::new();
        let mut in_place = Tree::new();
        let mut versions = Vec::new();
        for batch in &batches {
            let changes = changes_of(batch);
            for (key, value) in batch {
                match value {
                    Some(value) => { entries.insert(key.clone(), value.clone()); }
                    None => { entries.remove(key); }
                }
            }
            versions.push((tree.clone(), tree.root()));
            tree = tree.apply(&changes);
            in_place.change(&changes);
            prop_assert_eq!(tree.root(), model_root(&entries));
            prop_assert_eq!(in_place.root(), tree.root());
            prop_assert_eq!(tree.len(), entries.len() as u64);
            prop_assert_eq!(in_place.len(), tree.len());
        }
        prop_assert_eq!(tree_of(&entries).root(), tree.root());
        for (key, value) in &entries {
            prop_assert_eq!(tree.get(key).map(|value| value.to_vec()), Some(value.clone()));
        }
        prop_assert!(tree.get(b"never set").is_none());
        // Older versions are what they were.
        for (version, root) in versions {
            prop_assert_eq!(version.root(), root);
            let entries: Entries = version.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
            prop_assert_eq!(model_root(&entries), root);
            prop_assert_eq!(version.len(), entries.len() as u64);
        }
    }
}

#[test]
fn entries_come_in_path_order() {
    let tree = tree_of(&numbered(500));
    let paths: Vec<Path> = tree.iter().map(|(key, _)| Path::of(key)).collect();
    assert_eq!(paths.len(), 500);
    assert!(paths.windows(2).all(|pair| pair[0] < pair[1]));
    let again = Tree::from_entries(tree.iter().map(|(key, value)| (Arc::clone(key), Arc::clone(value))));
    assert_eq!(again.root(), tree.root());
}

#[test]
fn of_a_key_that_comes_twice_the_last_value_counts() {
    let entry = |value: &[u8]| (Arc::from(&b"key"[..]), Arc::from(value));
    let tree = Tree::from_entries([entry(b"first"), entry(b"second")]);
    assert_eq!(tree.get(b"key").map(|value| value.to_vec()), Some(b"second".to_vec()));
    assert_eq!(tree.len(), 1);
}

#[test]
fn everything_deleted_is_the_empty_state() {
    let entries = numbered(1000);
    let deletions: Batch = entries.keys().map(|key| (key.clone(), None)).collect();
    let tree = tree_of(&entries).apply(&changes_of(&deletions));
    assert_eq!(tree.root(), Hash([0; 32]));
    assert!(tree.is_empty());
    assert_eq!(tree.iter().count(), 0);
}

/// Frozen. Computed by another program.
#[test]
fn golden_roots() {
    let root = |entries: &Entries| tree_of(entries).root().to_string();
    assert_eq!(root(&numbered(0)), "0000000000000000000000000000000000000000000000000000000000000000");
    assert_eq!(root(&numbered(1)), "263F3134568BD91568A048CB99C08729973FD146DB930B054D91A3F79E7A346A");
    assert_eq!(root(&numbered(2)), "978E1405E68C6035B3D130831DDE63AE9C8225E591448286D456124DBB41A025");
    assert_eq!(root(&numbered(1000)), "94E14A12FB00FFF7AD653AA82359E0CFFB2664D906947ECFE5D1DABB7F1E5255");
}
