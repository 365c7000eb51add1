//! What becomes of lies that somebody honest can prove: I9 and I10 for evidence.
//!
//! Whoever honest counts two votes of one validator for one place forms evidence of them, and a few blocks later the chain
//! carries some against that validator: this very piece, or another that was waiting already, since one at a time is kept. Nobody
//! honest is ever accused by a block.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_types::{Address, Block};

use super::{Outcome, World, violation};

/// Blocks within which the chain carries evidence against a liar whose lie an honest node of the settled core holds. Blocks of
/// round 0 carry it, those of honest proposers: among so many blocks in a row there are some, whoever else has turns.
const CARRIED_WITHIN: u64 = 7;

/// Lies that were seen, and what blocks carry.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// By the accused, heights of the blocks that accuse it.
    carried: BTreeMap<usize, BTreeSet<u64>>,
    /// Who saw whom lie, in which life, and how far the chain was.
    seen: BTreeSet<(usize, u64, usize, u64)>,
}

impl World {
    /// The validator with an address.
    fn node_of(&self, address: &Address) -> Option<usize> {
        (0..self.plan.powers.len()).find(|node| self.machines[*node].key.as_ref().is_some_and(|key| key.public_key().address() == *address))
    }

    /// I9: a block accuses nobody honest.
    pub(super) fn accuses(&mut self, block: &Block) -> Outcome {
        let height = block.header.height.get();
        for (address, _) in block.evidence.iter().flat_map(lockstep_types::Evidence::accused) {
            match self.node_of(&address) {
                Some(node) if !self.is_honest(node) => {
                    if self.proofs.carried.entry(node).or_default().insert(height) {
                        self.liars.tally.proven += 1;
                    }
                }
                accused => return violation("I9", format!("block {height} accuses {accused:?} ({address}), who is honest or nobody")),
            }
        }
        Ok(())
    }

    /// An honest node counted two votes of a liar for one place. After the heal, what a node of the core sees must be carried.
    pub(super) fn sees_lie(&mut self, node: usize, accused: usize) {
        if self.healed && self.core.contains(&node) {
            let height = self.machines[node].running.as_ref().map_or(0, |running| running.replica.height().get());
            self.proofs.seen.insert((node, self.machines[node].life, accused, height.max(self.checks.height())));
        }
    }

    /// I10, at the end.
    pub(super) fn lies_are_carried(&self) -> Outcome {
        let tip = self.checks.height();
        for (node, life, accused, height) in &self.proofs.seen {
            if self.machines[*node].life != *life || height + CARRIED_WITHIN > tip {
                continue; // What a node holds is gone with it; or there is time left.
            }
            let carried =
                self.proofs.carried.get(accused).is_some_and(|at| at.range(height + 1..=height + CARRIED_WITHIN).next().is_some());
            if !carried {
                let what = format!("node {node} saw node {accused} lie at height {height}, and no block up to {tip} says so");
                return violation("I10", what);
            }
        }
        Ok(())
    }
}
