//! The end of chaos: the faults stop, a core is made whole, and must now make progress within a bound that follows from the timeouts.

use std::collections::BTreeSet;

use super::faults::Outage;
use super::{Outcome, World};
use crate::disk::Survival;
use crate::plan::MS;
use crate::random::Stream;
use crate::trace::Told;

impl World {
    /// The end of chaos: a core of more than two thirds is made whole, and must now make progress.
    pub(super) fn heal(&mut self, mut core: Vec<(usize, i64)>, seed: u64) -> Outcome {
        let mut dice = Stream::new(seed, "heal");
        // In a list that lost some of its faults others may have rotted by now than when it was drawn.
        if core.iter().any(|(node, _)| {
            *node >= self.machines.len()
                || self.machines[*node].ailing.is_for_good
                || (self.plan.leave_rest_broken && !self.is_beyond && self.is_rotten(*node))
        }) {
            core = self.choose_core(&mut dice).into_iter().map(|node| (node, 0)).collect();
        }
        self.healed = true;
        self.lies_from_here();
        self.healed_at = self.now;
        self.cuts.clear();
        self.clogs.clear();
        self.eclipses.clear();
        self.deafness.clear();
        self.core = core.iter().map(|(node, _)| *node).collect();
        for node in 0..self.machines.len() {
            self.mend_disk(node);
            let Some((_, offset)) = core.iter().find(|(member, _)| *member == node) else {
                if self.plan.leave_rest_broken && self.machines[node].running.is_some() {
                    self.crash(node, Outage { survival: Survival::Random, seed: dice.bits(), down: MS })?;
                }
                self.machines[node].retired = self.plan.leave_rest_broken;
                continue;
            };
            self.machines[node].clock = *offset;
            if self.machines[node].running.is_none() {
                self.start(node)?;
            }
        }
        if let Some(secluded) = self.plan.byzantine.secluded {
            self.start(secluded.node)?;
        }
        let running = || self.must_settle().filter_map(|node| self.machines[node].running.as_ref());
        let highest_round = running().map(|running| running.replica.consensus().round().get()).max().unwrap_or(0);
        let heights: Vec<u64> = running().map(|running| running.replica.chain().height.get()).collect();
        let highest = heights.iter().max().copied().unwrap_or(0).max(self.checks.height());
        let lag = highest - heights.iter().min().copied().unwrap_or(0);
        self.goal = highest + self.plan.settle_blocks;
        // Clocks that ran ahead left blocks from the future: honest proposers wait for them.
        let ahead = 2 * self.plan.clock_offset;
        let core = self.core.clone();
        self.tell(None, Told::Heal, || format!("the faults stop for {core:?}"));
        // What came to a frozen machine comes when it would have thawed; what a disk put off, when it would have gone on.
        for machine in &mut self.machines {
            machine.owes_until = machine.owes_until.max(std::mem::take(&mut machine.frozen_until));
        }
        let paid = self.machines.iter().map(|machine| machine.owes_until).max().unwrap_or(0).max(self.now);
        self.deadline = paid + self.plan.liveness_bound(highest_round, lag) + ahead;
        Ok(())
    }

    /// Who must settle. Where the rest stays broken, just enough for more than two thirds of the power.
    pub(super) fn choose_core(&self, dice: &mut Stream) -> BTreeSet<usize> {
        let is_able = |node: &usize| self.is_honest(*node) && !self.machines[*node].ailing.is_for_good;
        let honest: Vec<usize> = (0..self.plan.validators_max()).filter(is_able).collect();
        if !self.plan.leave_rest_broken {
            return honest.into_iter().collect();
        }
        let total: u64 = self.plan.powers.iter().sum();
        let mut core: BTreeSet<usize> = BTreeSet::new();
        // Those who are broken for good are a third; who still lacks what it lost would be one more.
        let mut left: Vec<usize> = honest.iter().copied().filter(|node| self.is_beyond || !self.is_rotten(*node)).collect();
        while core.iter().map(|node| self.plan.powers[*node]).sum::<u64>() * 3 <= total * 2 {
            // Where those do not suffice, nobody who can be mended is left broken.
            let Some(place) = (!left.is_empty()).then(|| dice.place(left.len())) else { return honest.into_iter().collect() };
            core.insert(left.swap_remove(place));
        }
        core
    }
}
