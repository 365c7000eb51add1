//! The authenticated state in memory: a persistent sparse Merkle tree (see [`lockstep_types::state_tree`] for what it
//! hashes to).
//!
//! [`Tree::apply`] gives a new version that shares every untouched node with the old, so a snapshot is a clone of one
//! pointer, a speculative version is dropped by dropping it, and readers need no lock: a node that more than one version
//! holds never changes. A node is at most 256 levels deep, so recursion is bounded, that of `Drop` included.
//!
//! A child's hash lies in its parent: the path from a changed leaf to the root is hashed without touching siblings. The
//! hash of each node is computed once per batch, however many entries change below it. One entry costs about 1.44 inner
//! nodes of 112 bytes and a leaf of 80, beside its key and value.

use std::fmt;
use std::sync::Arc;

use lockstep_types::Hash;
use lockstep_types::state_tree::ics23::{CommitmentProof, Existence};
use lockstep_types::state_tree::{self, EMPTY, Path, Proof, Terminal};

use crate::changes::Changes;

mod part;

pub use part::{OwnedEntry, Part, PartError, Prefix};

/// A version of the state.
#[derive(Clone)]
pub struct Tree {
    root: Child,
    len: u64,
}

/// A node as its parent holds it: with its hash.
#[derive(Clone)]
struct Child {
    hash: Hash,
    node: Node,
}

#[derive(Clone)]
enum Node {
    Empty,
    Leaf(Arc<Leaf>),
    Inner(Arc<Inner>),
}

#[derive(Clone)]
struct Leaf {
    path: Path,
    key: Arc<[u8]>,
    value: Arc<[u8]>,
}

#[derive(Clone)]
struct Inner {
    left: Child,
    right: Child,
}

const NOTHING: Child = Child { hash: EMPTY, node: Node::Empty };

/// One change on its way down. A batch is sorted by path, each path once.
struct Change<'a> {
    path: Path,
    key: &'a Arc<[u8]>,
    value: Option<&'a Arc<[u8]>>,
}

/// How the number of entries changed in a batch.
#[derive(Default)]
struct Tally {
    added: u64,
    removed: u64,
}

/// An entry of the state: key and value.
pub type Entry<'a> = (&'a Arc<[u8]>, &'a Arc<[u8]>);

impl Tree {
    /// The state without entries.
    pub const fn new() -> Self {
        Self { root: Child { hash: EMPTY, node: Node::Empty }, len: 0 }
    }

    /// The state that consists of these entries. Fastest when they come in path order, as [`Tree::iter`] gives them and the
    /// flushed state stores them; of a key that comes twice the last value counts.
    pub fn from_entries(entries: impl IntoIterator<Item = (Arc<[u8]>, Arc<[u8]>)>) -> Self {
        let entries: Vec<_> = entries.into_iter().collect();
        let mut tree = Self::new();
        tree.change_all(entries.iter().map(|(key, value)| (key, Some(value))));
        tree
    }

    /// The state after these changes; this one stays what it is.
    #[must_use]
    pub fn apply(&self, changes: &Changes) -> Self {
        let mut after = self.clone();
        after.change(changes);
        after
    }

    /// Makes these changes here. Faster than [`Tree::apply`] where no clone of this version exists: its nodes are then
    /// changed in place. Clones stay what they are.
    pub fn change(&mut self, changes: &Changes) {
        self.change_all(changes.iter());
    }

    fn change_all<'a>(&mut self, changes: impl Iterator<Item = (&'a Arc<[u8]>, Option<&'a Arc<[u8]>>)>) {
        let mut batch: Vec<Change<'a>> = changes.map(|(key, value)| Change { path: Path::of(key), key, value }).collect();
        // Stable, so that of two changes to one key the later one is the later one still.
        batch.sort_by_key(|change| change.path);
        batch.dedup_by(|later, earlier| {
            let same = later.path == earlier.path;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        let mut tally = Tally::default();
        update(&mut self.root, 0, &batch, &mut tally);
        self.len = self.len + tally.added - tally.removed;
    }

    /// The root: the application hash of the next header.
    pub const fn root(&self) -> Hash {
        self.root.hash
    }

    /// Number of entries.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        let path = Path::of(key);
        match self.descend(&path, |_| {}) {
            Node::Leaf(leaf) if leaf.path == path => Some(&leaf.value),
            _ => None,
        }
    }

    /// Our own proof that the key has the value it has, or none.
    pub fn prove(&self, key: &[u8]) -> Proof {
        let path = Path::of(key);
        let mut siblings = Vec::new();
        let terminal = match self.descend(&path, |sibling| siblings.push(sibling.hash)) {
            Node::Leaf(leaf) if leaf.path == path => Terminal::Present,
            Node::Leaf(leaf) => Terminal::Other { path: leaf.path, value_hash: Hash::of(&leaf.value) },
            _ => Terminal::Vacant,
        };
        Proof { terminal, siblings }
    }

    /// The ICS-23 proof that the key has the value it has, or none. In a state without entries there is no such proof.
    pub fn prove_ics23(&self, key: &[u8]) -> Option<CommitmentProof> {
        let path = Path::of(key);
        // The nearest non-empty subtrees beside the path, to the left and to the right of it.
        let (mut before, mut after) = (None, None);
        let mut depth = 0;
        let end = self.descend(&path, |sibling| {
            match &sibling.node {
                Node::Empty => {}
                _ if path.bit(depth) => before = Some(sibling),
                _ => after = Some(sibling),
            }
            depth += 1;
        });
        let (mut left, mut right) = (before.and_then(|at| edge(at, true)), after.and_then(|at| edge(at, false)));
        match end {
            Node::Leaf(leaf) if leaf.path == path => return Some(CommitmentProof::Exist(self.existence(leaf))),
            Node::Leaf(leaf) if leaf.path < path => left = Some(leaf),
            Node::Leaf(leaf) => right = Some(leaf),
            _ => {}
        }
        let existence = |leaf: Option<&Arc<Leaf>>| leaf.map(|leaf| self.existence(leaf));
        (!self.is_empty()).then(|| CommitmentProof::Nonexist { key: key.to_vec(), left: existence(left), right: existence(right) })
    }

    fn existence(&self, leaf: &Leaf) -> Existence {
        let mut siblings = Vec::new();
        self.descend(&leaf.path, |sibling| siblings.push(sibling.hash));
        Existence { key: leaf.key.to_vec(), value: leaf.value.to_vec(), siblings }
    }

    /// Follows a path to its end: a leaf, or nothing. Shows each sibling on the way.
    fn descend<'a>(&'a self, path: &Path, mut beside: impl FnMut(&'a Child)) -> &'a Node {
        let (mut at, mut depth) = (&self.root.node, 0);
        while let Node::Inner(inner) = at {
            let (next, sibling) = if path.bit(depth) { (&inner.right, &inner.left) } else { (&inner.left, &inner.right) };
            beside(sibling);
            at = &next.node;
            depth += 1;
        }
        at
    }

    /// All entries in path order: the order of the state table and of snapshots.
    pub fn iter(&self) -> Iter<'_> {
        Iter { ahead: vec![&self.root.node] }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tree({} entries, root {:?})", self.len, self.root.hash)
    }
}

impl<'a> IntoIterator for &'a Tree {
    type Item = Entry<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The entries of a tree in path order. The stack holds at most one node per level.
pub struct Iter<'a> {
    ahead: Vec<&'a Node>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            match self.ahead.pop()? {
                Node::Empty => {}
                Node::Leaf(leaf) => return Some((&leaf.key, &leaf.value)),
                Node::Inner(inner) => self.ahead.extend([&inner.right.node, &inner.left.node]),
            }
        }
    }
}

/// Makes these changes, all of which lie in this subtree at this depth. A node that no other version shares is changed in
/// place; a shared one is copied first.
fn update(at: &mut Child, depth: usize, changes: &[Change<'_>], tally: &mut Tally) {
    match (changes, &at.node) {
        ([], _) => return,
        ([only], Node::Empty) => return place(at, only, tally),
        ([only], Node::Leaf(leaf)) if leaf.path == only.path => return replace(at, only, tally),
        _ => {}
    }
    // Everything that is here moves down one level, each to its side. At depth 256 all paths below are one path, and one
    // path has one change, so this is not reached there.
    let (left_changes, right_changes) = changes.split_at(changes.partition_point(|change| !change.path.bit(depth)));
    if let Node::Inner(inner) = &mut at.node {
        let inner = Arc::make_mut(inner);
        let before = (inner.left.hash, inner.right.hash);
        update(&mut inner.left, depth + 1, left_changes, tally);
        update(&mut inner.right, depth + 1, right_changes, tally);
        if before == (inner.left.hash, inner.right.hash) {
            return; // Nothing changed after all, as when an absent key is deleted.
        }
        match (&inner.left.node, &inner.right.node) {
            // A leaf that is alone rises.
            (Node::Empty, Node::Empty | Node::Leaf(_)) => *at = std::mem::replace(&mut inner.right, NOTHING),
            (Node::Leaf(_), Node::Empty) => *at = std::mem::replace(&mut inner.left, NOTHING),
            _ => at.hash = state_tree::inner_hash(&inner.left.hash, &inner.right.hash),
        }
    } else {
        let here = std::mem::replace(at, NOTHING);
        let goes_right = matches!(&here.node, Node::Leaf(leaf) if leaf.path.bit(depth));
        let (mut left, mut right) = if goes_right { (NOTHING, here) } else { (here, NOTHING) };
        update(&mut left, depth + 1, left_changes, tally);
        update(&mut right, depth + 1, right_changes, tally);
        *at = match (&left.node, &right.node) {
            (Node::Empty, Node::Empty | Node::Leaf(_)) => right,
            (Node::Leaf(_), Node::Empty) => left,
            _ => Child { hash: state_tree::inner_hash(&left.hash, &right.hash), node: Node::Inner(Arc::new(Inner { left, right })) },
        };
    }
}

/// A change where nothing was.
fn place(at: &mut Child, change: &Change<'_>, tally: &mut Tally) {
    if let Some(value) = change.value {
        tally.added += 1;
        *at = Child {
            hash: state_tree::leaf_hash(&change.path, &Hash::of(value)),
            node: Node::Leaf(Arc::new(Leaf { path: change.path, key: Arc::clone(change.key), value: Arc::clone(value) })),
        };
    }
}

/// A change of an entry that is alone in its subtree.
fn replace(at: &mut Child, change: &Change<'_>, tally: &mut Tally) {
    let Node::Leaf(leaf) = &mut at.node else { unreachable!("only a leaf is replaced") };
    match change.value {
        None => {
            tally.removed += 1;
            *at = NOTHING;
        }
        Some(value) if *value == leaf.value => {}
        Some(value) => {
            at.hash = state_tree::leaf_hash(&leaf.path, &Hash::of(value));
            // The key's bytes stay where they are, whoever sends them again.
            Arc::make_mut(leaf).value = Arc::clone(value);
        }
    }
}

/// The last entry of a subtree in path order, or the first.
fn edge(at: &Child, last: bool) -> Option<&Arc<Leaf>> {
    let mut at = at;
    loop {
        let (far, near) = match &at.node {
            Node::Empty => return None,
            Node::Leaf(leaf) => return Some(leaf),
            Node::Inner(inner) if last => (&inner.right, &inner.left),
            Node::Inner(inner) => (&inner.left, &inner.right),
        };
        at = if matches!(far.node, Node::Empty) { near } else { far };
    }
}
