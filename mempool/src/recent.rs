//! The order in which committed hashes are forgotten.

use std::collections::BTreeMap;

use lockstep_types::Hash;

/// When a hash was last seen: larger is later.
pub(crate) type Stamp = u64;

/// The committed hashes by the time they were last seen. The pool's map of places holds the stamp, so that a hash is
/// remembered here exactly as long as it is there.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    by_stamp: BTreeMap<Stamp, Hash>,
    next: Stamp,
}

impl Recent {
    /// Remembers a hash as the latest.
    pub(crate) fn push(&mut self, hash: Hash) -> Stamp {
        let stamp = self.next;
        self.next += 1;
        self.by_stamp.insert(stamp, hash);
        stamp
    }

    /// Makes a remembered hash the latest.
    pub(crate) fn touch(&mut self, stamp: Stamp) -> Stamp {
        let hash = self.by_stamp.remove(&stamp).expect("a stamp in the map of places is remembered here");
        self.push(hash)
    }

    /// Forgets the one that was not seen for longest, when there are more than `max`.
    pub(crate) fn pop_above(&mut self, max: usize) -> Option<Hash> {
        if self.by_stamp.len() <= max {
            return None;
        }
        self.by_stamp.pop_first().map(|(_, hash)| hash)
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.by_stamp.len()
    }

    /// The hash of a stamp.
    pub(crate) fn get(&self, stamp: Stamp) -> Option<&Hash> {
        self.by_stamp.get(&stamp)
    }
}
