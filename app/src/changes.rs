//! What a transition reads and what it gives back: a [`View`] of the state before, [`Changes`] towards the state after.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use lockstep_types::planted::{self, Bug};
use lockstep_types::state_tree::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use lockstep_types::{Hash, Height};

use crate::tree::Tree;

/// First byte of the keys that belong to the node: membership and the replica record. An application sees none of them in
/// its [`View`], and changes of its that touch one are refused by [`Changes::check`].
pub const RESERVED_PREFIX: u8 = 0x00;

/// Whether a key belongs to the node and not to the application.
pub fn is_reserved(key: &[u8]) -> bool {
    key.first() == Some(&RESERVED_PREFIX)
}

/// Most keys that one block may change. A block body holds at most 2^20 transactions; four keys for each of them are
/// more than any application here writes, and a batch of that size is applied in seconds, not minutes.
pub const CHANGES_MAX: usize = 4 << 20;

/// Most bytes of keys and values that one block may change: several times the largest block body, little enough that one
/// block's changes fit in memory beside the state.
pub const CHANGES_BYTES_MAX: usize = 1 << 30;

/// Sets and deletions, by key: what executing a block does to the state. Each key has one outcome.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<Arc<[u8]>, Option<Arc<[u8]>>>);

/// Why an application's changes are not applied. The verdict follows from the changes alone, so it is the same on every
/// replica.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangesError {
    /// A key under [`RESERVED_PREFIX`].
    #[error("key {key:02X?} begins with the byte 00, which is reserved for the node")]
    Reserved {
        /// The first bytes of the key.
        key: Vec<u8>,
    },
    /// An empty key, or one above [`KEY_BYTES_MAX`].
    #[error("a key of {len} bytes, keys have 1 to {KEY_BYTES_MAX}")]
    Key {
        /// Length of the key.
        len: usize,
    },
    /// An empty value, or one above [`VALUE_BYTES_MAX`].
    #[error("a value of {len} bytes under key {key:02X?}, values have 1 to {VALUE_BYTES_MAX}")]
    Value {
        /// The first bytes of the key.
        key: Vec<u8>,
        /// Length of the value.
        len: usize,
    },
    /// More than [`CHANGES_MAX`] keys.
    #[error("{count} keys changed, at most {CHANGES_MAX} in one block")]
    Count {
        /// Number of keys.
        count: usize,
    },
    /// More than [`CHANGES_BYTES_MAX`] bytes of keys and values.
    #[error("more than {CHANGES_BYTES_MAX} bytes of keys and values changed in one block")]
    Bytes,
}

/// As much of a key as an error shows.
fn start(key: &[u8]) -> Vec<u8> {
    key[..key.len().min(16)].to_vec()
}

impl Changes {
    /// No change.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The key will have this value.
    pub fn set(&mut self, key: impl Into<Arc<[u8]>>, value: impl Into<Arc<[u8]>>) {
        let (key, value) = (key.into(), Some(value.into()));
        if planted::has(Bug::FirstChangeCounts) {
            self.0.entry(key).or_insert(value);
        } else {
            self.0.insert(key, value);
        }
    }

    /// The key will be absent.
    pub fn delete(&mut self, key: impl Into<Arc<[u8]>>) {
        self.0.insert(key.into(), None);
    }

    /// What happens to a key: nothing (`None`), deletion (`Some(None)`) or a new value.
    pub fn get(&self, key: &[u8]) -> Option<Option<&Arc<[u8]>>> {
        self.0.get(key).map(Option::as_ref)
    }

    /// All changes in key order; `None` deletes.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<[u8]>, Option<&Arc<[u8]>>)> {
        self.0.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds later changes: where both speak of a key, the later one counts.
    pub fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    /// Whether these changes may come from an application.
    ///
    /// # Errors
    /// The first rule that is broken, in key order: see [`ChangesError`].
    pub fn check(&self) -> Result<(), ChangesError> {
        if self.0.len() > CHANGES_MAX {
            return Err(ChangesError::Count { count: self.0.len() });
        }
        let mut bytes = 0usize;
        for (key, value) in self.iter() {
            if is_reserved(key) {
                return Err(ChangesError::Reserved { key: start(key) });
            }
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                return Err(ChangesError::Key { len: key.len() });
            }
            if let Some(value) = value.filter(|value| value.is_empty() || value.len() > VALUE_BYTES_MAX) {
                return Err(ChangesError::Value { key: start(key), len: value.len() });
            }
            // No overflow: both lengths were bounded just now, and so was their number.
            bytes += key.len() + value.map_or(0, |value| value.len());
            if bytes > CHANGES_BYTES_MAX {
                return Err(ChangesError::Bytes);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.0.iter().map(|(key, value)| (key.escape_ascii().to_string(), value.as_ref().map(|v| v.escape_ascii().to_string()))),
            )
            .finish()
    }
}

impl FromIterator<(Arc<[u8]>, Option<Arc<[u8]>>)> for Changes {
    fn from_iter<I: IntoIterator<Item = (Arc<[u8]>, Option<Arc<[u8]>>)>>(changes: I) -> Self {
        Self(changes.into_iter().collect())
    }
}

/// The application's state after one height, as an application reads it: single keys, no scans, no keys of the node. A
/// clone is cheap and stays what it is, whatever is executed later.
#[derive(Debug, Clone)]
pub struct View {
    tree: Tree,
    height: Height,
}

impl View {
    /// A view of this state, which is the one after `height`.
    pub const fn new(tree: Tree, height: Height) -> Self {
        Self { tree, height }
    }

    /// The value of a key. Keys of the node read as absent, so that an application cannot come to depend on what the node
    /// keeps there.
    pub fn get(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        if is_reserved(key) { None } else { self.tree.get(key).cloned() }
    }

    /// The root of the whole state.
    pub const fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The height whose block was executed last; zero, or the height before the first, after genesis.
    pub const fn height(&self) -> Height {
        self.height
    }
}

/// A view with changes on top: what a transition reads while it makes its changes.
pub struct Draft<'a> {
    view: &'a View,
    changes: Changes,
}

impl<'a> Draft<'a> {
    /// Nothing changed yet.
    pub const fn new(view: &'a View) -> Self {
        Self { view, changes: Changes::new() }
    }

    /// The value of a key after the changes so far.
    pub fn get(&self, key: &[u8]) -> Option<Arc<[u8]>> {
        match self.changes.get(key) {
            Some(outcome) => outcome.cloned(),
            None => self.view.get(key),
        }
    }

    /// The key will have this value.
    pub fn set(&mut self, key: impl Into<Arc<[u8]>>, value: impl Into<Arc<[u8]>>) {
        self.changes.set(key, value);
    }

    /// The key will be absent.
    pub fn delete(&mut self, key: impl Into<Arc<[u8]>>) {
        self.changes.delete(key);
    }

    /// The changes so far.
    pub const fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The changes made.
    pub fn into_changes(self) -> Changes {
        self.changes
    }
}
