//! Verdicts that are kept, so that they are not reached twice.
//!
//! A transaction meets its node several times: on arrival, in a proposed block, in the block when it is executed. What is
//! kept is that its signatures hold, under a hash of everything on which that depends: so it can change no answer, since it is the
//! value of a function without a state, which is computed again where it was forgotten.
//!
//! Kept are only the signatures that hold. Those that do not are no node's to keep: anybody can make any number of them, and
//! no correct node has one in a block.

use std::collections::BTreeSet;

use lockstep_types::Hash;

/// Two generations: when the younger one is full it becomes the older one, which is forgotten. Each verdict is kept while at
/// least half the bound of later ones come.
#[derive(Debug)]
pub(crate) struct Verdicts {
    generation_max: usize,
    young: BTreeSet<Hash>,
    old: BTreeSet<Hash>,
}

impl Verdicts {
    /// Keeps at most this many; at least two.
    pub(crate) const fn new(max: usize) -> Self {
        assert!(max >= 2, "each generation keeps something");
        Self { generation_max: max / 2, young: BTreeSet::new(), old: BTreeSet::new() }
    }

    /// Whether these are known to hold.
    pub(crate) fn hold(&self, id: &Hash) -> bool {
        self.young.contains(id) || self.old.contains(id)
    }

    /// These hold.
    pub(crate) fn keep(&mut self, id: Hash) {
        if self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id);
    }

    /// How many are kept.
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
