//! What becomes of lies that somebody honest can prove: I9 and I10 for evidence.
//!
//! Whoever honest counts two votes of one validator for one place forms evidence of them, and a few blocks later the chain
//! carries some against that validator: this very piece, or another that was waiting already, since one at a time is kept. Nobody
//! honest is ever accused by a block.
//!
//! A node that goes down takes nothing of this with it: what it saw at a height whose decision is durable there is on its disk, and
//! after the heal it is carried all the same, though all nodes lost their power in between.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_types::{Address, Block};

use super::{Outcome, World, violation};

/// Blocks within which the chain carries evidence against a liar whose lie an honest node of the settled core holds. Blocks of
/// round 0 carry it, those of honest proposers: among so many blocks in a row there are some, whoever else has turns.
const CARRIED_WITHIN: u64 = 7;

/// Heights that a node tells after a start before it is asked what it remembers.
const AWAKE_AFTER: u64 = 3;

/// Lies that were seen, and what blocks carry.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    /// By the accused, heights of the blocks that accuse it.
    carried: BTreeMap<usize, BTreeSet<u64>>,
    /// Who saw whom lie, in which life and at which height, and how far the chain was when that height was decided there, too.
    seen: BTreeSet<(usize, u64, usize, u64, u64)>,
    /// Who saw whom lie, in which life and at which height, before that was decided there: what a piece of evidence says of its block's
    /// time nobody knows earlier.
    early: BTreeSet<(usize, u64, usize, u64)>,
    /// Who saw whom lie, in which life and at which height, while the height was not decided there with whose decision it is durable.
    open: BTreeSet<(usize, u64, usize, u64, u64)>,
    /// Of these, whose decision became durable in the same life, so that what was written before it is, too: node, accused, height,
    /// and the life, and how far the chain was by then.
    held: BTreeMap<(usize, usize, u64), (u64, u64)>,
    /// By node, in which life it told how many heights, and when the first of them.
    told: BTreeMap<usize, (u64, u64, u64)>,
    /// How far the chain was when the faults ended.
    healed_at: u64,
}

impl World {
    /// The validator with an address.
    fn node_of(&self, address: &Address) -> Option<usize> {
        (0..self.plan.validators_max())
            .find(|node| self.machines[*node].key.as_ref().is_some_and(|key| key.public_key().address() == *address))
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

    /// An honest node counted two votes of a liar for one place of this height, which may be decided by now. After the heal, what a node of the
    /// core sees must be carried.
    pub(super) fn sees_lie(&mut self, node: usize, accused: usize, height: u64) {
        if let Some(running) = &self.machines[node].running {
            // Written down with what follows, and durable with the decision of the height that it is at, by then.
            let held_with = height.max(running.replica.height().get());
            self.proofs.open.insert((node, self.machines[node].life, accused, height, held_with));
        }
        if self.healed && self.core.contains(&node) {
            let (life, tip) = (self.machines[node].life, self.checks.height());
            let is_decided = self.machines[node].running.as_ref().is_some_and(|running| running.replica.height().get() > height);
            if is_decided {
                self.proofs.seen.insert((node, life, accused, height, height.max(tip)));
            } else {
                self.proofs.early.insert((node, life, accused, height));
            }
        }
    }

    /// An honest node told its readers of a height: its decision is durable there.
    pub(super) fn holds_lies(&mut self, node: usize, height: u64) -> Outcome {
        let (life, now, tip) = (self.machines[node].life, self.now, self.checks.height());
        let told = self.proofs.told.entry(node).or_insert((life, 0, now));
        if told.0 != life {
            *told = (life, 0, now);
        }
        told.1 += 1;
        let known: Vec<_> =
            self.proofs.early.iter().filter(|(by, in_life, _, of)| (*by, *in_life) == (node, life) && *of <= height).copied().collect();
        for lie in known {
            self.proofs.early.remove(&lie);
            self.proofs.seen.insert((lie.0, lie.1, lie.2, lie.3, height.max(tip)));
        }
        // What a start read was judged by now.
        let is_awake = told.1 > AWAKE_AFTER && now > told.2 + 4 * self.plan.job_delay.max(2_000);
        let decided: Vec<_> = self
            .proofs
            .open
            .iter()
            .filter(|(by, in_life, .., held_with)| (*by, *in_life) == (node, life) && *held_with <= height)
            .copied()
            .collect();
        for lie in decided {
            self.proofs.open.remove(&lie);
            self.proofs.held.entry((lie.0, lie.2, lie.3)).or_insert((life, tip));
        }
        if is_awake { self.remembers_lies(node, life) } else { Ok(()) }
    }

    /// A node begins anew with an empty disk: what it held is gone by our doing.
    pub(super) fn forget_lies(&mut self, node: usize) {
        self.proofs.open.retain(|(by, ..)| *by != node);
        self.proofs.held.retain(|(by, ..), _| *by != node);
    }

    /// What an earlier life of a node held is carried, or waits in this one.
    fn remembers_lies(&self, node: usize, life: u64) -> Outcome {
        if !self.has_its_disk(node) || self.plan.members.is_some() || self.is_over() {
            return Ok(());
        }
        let Some(running) = &self.machines[node].running else { return Ok(()) };
        let waiting = running.replica.evidence().accused();
        for ((_, accused, height), (held_in, _)) in self.proofs.held.range((node, 0, 0)..(node + 1, 0, 0)) {
            let address = self.machines[*accused].key.as_ref().map(|key| key.public_key().address());
            let waits = address.is_some_and(|address| waiting.contains(&address));
            let carried = || self.proofs.carried.get(accused).is_some_and(|at| at.range(height + 1..).next().is_some());
            if *held_in != life && !waits && !carried() {
                return violation(
                    "I10",
                    format!("node {node} held that node {accused} lied at height {height}, and forgot it when it went down"),
                );
            }
        }
        Ok(())
    }

    /// Whether a node's disk never lost anything.
    fn has_its_disk(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        machine.rot.times == 0 && !machine.ailing.lost_anything() && !machine.disk.tally().has_failed()
    }

    /// The faults end.
    pub(super) fn lies_from_here(&mut self) {
        self.proofs.healed_at = self.checks.height();
    }

    /// What an honest disk holds is carried after the heal, if it was not before.
    fn held_lies_are_carried(&self) -> Outcome {
        let tip = self.checks.height();
        for ((node, accused, height), (_, at)) in &self.proofs.held {
            let from = (*at).max(self.proofs.healed_at);
            if !self.core.contains(node) || !self.has_its_disk(*node) || from + CARRIED_WITHIN > tip {
                continue;
            }
            if self.need_not_be_carried(*accused, *height, from + CARRIED_WITHIN) {
                continue;
            }
            let carried = self.proofs.carried.get(accused).is_some_and(|at| at.range(height + 1..=from + CARRIED_WITHIN).next().is_some());
            if !carried {
                let what =
                    format!("node {node} has on its disk that node {accused} lied at height {height}, and no block up to {tip} says so");
                return violation("I10", what);
            }
        }
        Ok(())
    }

    /// I10, at the end.
    pub(super) fn lies_are_carried(&self) -> Outcome {
        self.held_lies_are_carried()?;
        let tip = self.checks.height();
        for (node, life, accused, height, at) in &self.proofs.seen {
            if self.machines[*node].life != *life || at + CARRIED_WITHIN > tip {
                continue; // The next life holds what its disk does, which is judged above; or there is time left.
            }
            if self.need_not_be_carried(*accused, *height, at + CARRIED_WITHIN) {
                continue;
            }
            // Whoever was behind may have seen what a block had said by then.
            let carried =
                self.proofs.carried.get(accused).is_some_and(|blocks| blocks.range(height + 1..=at + CARRIED_WITHIN).next().is_some());
            if !carried {
                let what = format!("node {node} saw node {accused} lie at height {height}, and no block up to {tip} says so");
                return violation("I10", what);
            }
        }
        Ok(())
    }

    /// Evidence of a height accuses members of the set that stands when it is carried, up to `last`, of a time that is not too long ago.
    fn need_not_be_carried(&self, accused: usize, height: u64, last: u64) -> bool {
        let address = self.machines[accused].key.as_ref().map(|key| key.public_key().address());
        let is_member = |height: u64| address.is_some_and(|address| self.checks.set_of(height).contains_key(&address));
        let time = |height: u64| self.checks.block(height).map(|block| block.header.time.unix_nanos());
        let window = i128::from(self.plan.params().evidence.max_age_duration_ns);
        let expires = match (time(height.saturating_sub(1).max(1)), time(last.min(self.checks.height()))) {
            (Some(first), Some(last)) => last - first >= window,
            _ => false,
        };
        expires || !(height..=last + 1).all(is_member)
    }
}
