//! Parts of a state: all entries below one [`Prefix`] of the paths, with the hash that their subtree has.
//!
//! A state is taken apart into parts and put together from them without hashing anything again but what stands above them,
//! so whoever has checked every part has the checked whole. Like a [`Tree`], a part is a clone of a pointer.

use std::fmt;
use std::sync::Arc;

use lockstep_types::Hash;
use lockstep_types::state_tree::{self, DEPTH_MAX, KEY_BYTES_MAX, Path, VALUE_BYTES_MAX};

use super::{Child, Inner, Iter, Leaf, NOTHING, Node, Tree};

/// The first so many bits of a path: a place in the tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// Zeros from `depth` on.
    bits: Path,
    /// At most [`DEPTH_MAX`].
    depth: u16,
}

impl Prefix {
    /// Of no bits: the place of the root.
    pub const WHOLE: Self = Self { bits: Path([0; 32]), depth: 0 };

    /// How many bits, 0 to 256.
    pub const fn depth(&self) -> u16 {
        self.depth
    }

    /// Whether a path begins with it.
    pub fn contains(&self, path: &Path) -> bool {
        self.bits.common_bits(path) >= usize::from(self.depth)
    }

    /// With one more bit, which is 1 to the right; none below the deepest place.
    #[must_use]
    pub fn half(&self, right: bool) -> Option<Self> {
        let at = usize::from(self.depth);
        if at == DEPTH_MAX {
            return None;
        }
        let mut half = Self { bits: self.bits, depth: self.depth + 1 };
        if right {
            half.bits.0[at / 8] |= 0x80 >> (at % 8);
        }
        Some(half)
    }

    /// The first place of this depth among those that begin with it; none when it is not below it.
    pub(crate) fn first_at(&self, depth: u16) -> Option<Self> {
        (depth >= self.depth && usize::from(depth) <= DEPTH_MAX).then_some(Self { bits: self.bits, depth })
    }

    /// The largest place that begins where this one ends; none at the right edge of the tree.
    pub(crate) fn next(&self) -> Option<Self> {
        let mut at = *self;
        while at.is_right() {
            at = at.parent()?;
        }
        at.parent()?.half(true)
    }

    /// Whether its last bit is 1. The root's place is no half.
    pub(crate) fn is_right(&self) -> bool {
        self.depth > 0 && self.bits.bit(usize::from(self.depth) - 1)
    }

    /// Without its last bit; none for the root's place.
    pub(crate) fn parent(&self) -> Option<Self> {
        let at = usize::from(self.depth.checked_sub(1)?);
        let mut bits = self.bits;
        bits.0[at / 8] &= !(0x80 >> (at % 8));
        Some(Self { bits, depth: self.depth - 1 })
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.depth, self.bits)
    }
}

/// Why entries are no part of a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// An empty key or value, or a longer one than a state holds.
    #[error("entry {at} has a key of {key} bytes and a value of {value}")]
    Size {
        /// Which entry, from 0.
        at: usize,
        /// Bytes of its key.
        key: usize,
        /// Bytes of its value.
        value: usize,
    },
    /// An entry whose path does not come after that of the entry before it.
    #[error("entry {at} is not in path order")]
    Order {
        /// Which entry, from 0.
        at: usize,
    },
    /// An entry that belongs to another part.
    #[error("entry {at} lies outside the part")]
    Outside {
        /// Which entry, from 0.
        at: usize,
    },
}

/// A key and its value.
pub type OwnedEntry = (Arc<[u8]>, Arc<[u8]>);

/// All entries of a state below one place.
#[derive(Clone)]
pub struct Part {
    prefix: Prefix,
    /// An inner node stands exactly at the prefix; a leaf may stand higher in the tree that it came from.
    top: Child,
    /// Where it is known without counting.
    len: Option<u64>,
}

impl Part {
    /// The part of these entries, which come in path order.
    ///
    /// # Errors
    /// See [`PartError`]: nothing that a stranger gives is believed.
    pub fn build(prefix: Prefix, entries: Vec<OwnedEntry>) -> Result<Self, PartError> {
        let mut leaves: Vec<Arc<Leaf>> = Vec::with_capacity(entries.len());
        for (at, (key, value)) in entries.into_iter().enumerate() {
            let path = path_of(prefix, at, (&key, &value), leaves.last().map(|last| &last.path))?;
            leaves.push(Arc::new(Leaf { path, key, value }));
        }
        let len = Some(leaves.len() as u64);
        Ok(Self { prefix, top: grow(&leaves, usize::from(prefix.depth)), len })
    }

    /// The root of the part of these entries, and nothing of it is made: to judge what is not needed yet.
    ///
    /// # Errors
    /// As [`Part::build`].
    pub(crate) fn root_of(prefix: Prefix, entries: &[(&[u8], &[u8])]) -> Result<Hash, PartError> {
        let mut leaves: Vec<(Path, Hash)> = Vec::with_capacity(entries.len());
        for (at, (key, value)) in entries.iter().enumerate() {
            let path = path_of(prefix, at, (key, value), leaves.last().map(|(last, _)| last))?;
            leaves.push((path, state_tree::leaf_hash(&path, &Hash::of(value))));
        }
        Ok(fold(&leaves, usize::from(prefix.depth)))
    }

    /// The part that these make up, which come in path order.
    ///
    /// Nothing, when they leave a gap, overlap, or lie elsewhere.
    pub fn join(prefix: Prefix, parts: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut open: Vec<(Prefix, Child)> = Vec::new();
        let mut len: u64 = 0;
        for part in parts {
            len = len.checked_add(part.len())?;
            let (mut place, mut child) = (part.prefix, part.top);
            while place.depth > prefix.depth && place.is_right() {
                let (left, sibling) = open.pop()?;
                let parent = place.parent()?;
                if left.is_right() || left.parent() != Some(parent) {
                    return None;
                }
                (place, child) = (parent, above(sibling, child));
            }
            open.push((place, child));
        }
        let (place, top) = open.pop()?;
        (place == prefix && open.is_empty()).then_some(Self { prefix, top, len: Some(len) })
    }

    /// Where it stands.
    pub const fn prefix(&self) -> Prefix {
        self.prefix
    }

    /// What its subtree hashes to: `EMPTY`, a leaf's hash or an inner node's, as in the state that it is a part of.
    pub const fn root(&self) -> Hash {
        self.top.hash
    }

    /// Number of entries. Counted, where it was taken out of a tree.
    pub fn len(&self) -> u64 {
        self.len.unwrap_or_else(|| self.iter().count() as u64)
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        matches!(self.top.node, Node::Empty)
    }

    /// Its entries in path order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { ahead: vec![&self.top.node] }
    }

    /// Its left and right half; none at the deepest place.
    pub fn halves(&self) -> Option<(Self, Self)> {
        let (left, right) = (self.prefix.half(false)?, self.prefix.half(true)?);
        let (on_left, on_right) = match &self.top.node {
            Node::Empty => (NOTHING, NOTHING),
            Node::Leaf(leaf) if leaf.path.bit(usize::from(self.prefix.depth)) => (NOTHING, self.top.clone()),
            Node::Leaf(_) => (self.top.clone(), NOTHING),
            Node::Inner(inner) => (inner.left.clone(), inner.right.clone()),
        };
        Some((Self { prefix: left, top: on_left, len: None }, Self { prefix: right, top: on_right, len: None }))
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({:?}, root {:?})", self.prefix, self.top.hash)
    }
}

impl<'a> IntoIterator for &'a Part {
    type Item = super::Entry<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Tree {
    /// Everything below a place.
    pub fn part(&self, prefix: Prefix) -> Part {
        let (mut at, mut depth) = (&self.root, 0);
        let found = loop {
            match &at.node {
                Node::Leaf(leaf) if !prefix.contains(&leaf.path) => break NOTHING,
                Node::Inner(inner) if depth < usize::from(prefix.depth) => {
                    at = if prefix.bits.bit(depth) { &inner.right } else { &inner.left };
                    depth += 1;
                }
                _ => break at.clone(),
            }
        };
        Part { prefix, top: found, len: (prefix == Prefix::WHOLE).then_some(self.len) }
    }

    /// The state that these parts make up, which come in path order. Nothing, when they leave a gap or overlap.
    pub fn join(parts: impl IntoIterator<Item = Part>) -> Option<Self> {
        let whole = Part::join(Prefix::WHOLE, parts)?;
        let len = whole.len();
        Some(Self { root: whole.top, len })
    }
}

/// The path of an entry that follows one with the path `last`, where it may stand there.
fn path_of(prefix: Prefix, at: usize, (key, value): (&[u8], &[u8]), last: Option<&Path>) -> Result<Path, PartError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || value.is_empty() || value.len() > VALUE_BYTES_MAX {
        return Err(PartError::Size { at, key: key.len(), value: value.len() });
    }
    let path = Path::of(key);
    if !prefix.contains(&path) {
        return Err(PartError::Outside { at });
    }
    if last.is_some_and(|last| *last >= path) {
        return Err(PartError::Order { at });
    }
    Ok(path)
}

/// The hash that [`grow`] gives, without the tree.
fn fold(leaves: &[(Path, Hash)], depth: usize) -> Hash {
    match leaves {
        [] => state_tree::EMPTY,
        [(_, hash)] => *hash,
        _ => {
            let (left, right) = leaves.split_at(leaves.partition_point(|(path, _)| !path.bit(depth)));
            state_tree::inner_hash(&fold(left, depth + 1), &fold(right, depth + 1))
        }
    }
}

/// The subtree of these leaves, which are in path order and share their first `depth` bits. No two paths are the same, so
/// it ends above depth 256.
fn grow(leaves: &[Arc<Leaf>], depth: usize) -> Child {
    match leaves {
        [] => NOTHING,
        [leaf] => Child { hash: state_tree::leaf_hash(&leaf.path, &Hash::of(&leaf.value)), node: Node::Leaf(Arc::clone(leaf)) },
        _ => {
            let (left, right) = leaves.split_at(leaves.partition_point(|leaf| !leaf.path.bit(depth)));
            above(grow(left, depth + 1), grow(right, depth + 1))
        }
    }
}

/// What stands above two subtrees. A leaf that is alone rises.
fn above(left: Child, right: Child) -> Child {
    match (&left.node, &right.node) {
        (Node::Empty, Node::Empty | Node::Leaf(_)) => right,
        (Node::Leaf(_), Node::Empty) => left,
        _ => Child { hash: state_tree::inner_hash(&left.hash, &right.hash), node: Node::Inner(Arc::new(Inner { left, right })) },
    }
}
