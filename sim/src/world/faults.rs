//! What goes wrong, and its end.

use std::collections::BTreeSet;

use super::{Boundary, Outcome, What, World, violation};
use crate::disk::{Fault, Survival, When};
use crate::plan::{Hushed, MS};

impl World {
    /// Has a machine stop at one of the next operations of its disk.
    pub(super) fn stop_disk(&mut self, node: usize, within: u64) {
        let disk = &self.machines[node].disk;
        let operation = disk.operations() + self.stops.below(within);
        disk.fault_at(operation, Fault::Stop(*self.stops.pick(&When::EACH)), self.stops.bits());
    }

    /// A machine has stopped at an operation of its disk: the power is gone.
    pub(super) fn stopped(&mut self, node: usize) -> Outcome {
        let forced = self.forced.take_if(|forced| forced.node == node && matches!(forced.boundary, Boundary::Operation(..)));
        let survival = forced.map_or_else(|| *self.stops.pick(&Survival::EACH), |forced| forced.survival);
        if forced.is_some_and(|forced| forced.all) {
            return (0..self.machines.len()).try_for_each(|node| self.crash(node, survival));
        }
        self.crash(node, survival)
    }

    /// One of a machine's files rots while it is down, as long as those who rot and those who lie have less than a third of
    /// the power: every block, and every body that a lock names, has then a sound copy somewhere.
    pub(super) fn rot(&mut self, node: usize) {
        /// Openings that set something aside are counted, and a run must not reach the bound.
        const TIMES_MAX: u64 = 6;
        let machine = &self.machines[node];
        if !self.is_honest(node) || machine.rot.is_fresh || machine.rot.times >= TIMES_MAX {
            return;
        }
        let is_faulty = |other: usize| other == node || !self.is_honest(other) || self.is_rotten(other);
        let faulty: u64 = (0..self.plan.powers.len()).filter(|other| is_faulty(*other)).map(|other| self.plan.powers[other]).sum();
        if node < self.plan.powers.len() && 3 * faulty >= self.plan.powers.iter().sum::<u64>() {
            return;
        }
        let said = machine.guard_position(self.genesis.hash()).unwrap_or_default();
        let told = self.checks.told(node);
        let Some(what) = self.machines[node].damage(&mut self.rot) else { return };
        self.trace(|| format!("node {node} loses {what}"));
        let rot = &mut self.machines[node].rot;
        rot.times += 1;
        rot.is_fresh = true;
        rot.said_before = rot.said_before.max(said);
        rot.until = rot.until.max(told).max(said.0);
    }

    /// Whether it has not come back to where it was when it rotted: it has not started since, or not caught up.
    pub(super) fn is_rotten(&self, node: usize) -> bool {
        let rot = &self.machines[node].rot;
        rot.is_fresh || self.checks.told(node) < rot.until
    }

    pub(super) fn disk_failed(&mut self, node: usize, reason: String) -> Outcome {
        if self.machines[node].disk.is_stopped() {
            return self.stopped(node);
        }
        violation("I18", format!("node {node}: the disk refuses: {reason}"))
    }

    /// All but one node, or some, do not get one kind of message for a while.
    pub(super) fn hush(&mut self) {
        self.hushed = None;
        if self.healed {
            return;
        }
        let n = self.machines.len();
        if self.stops.chance(700) {
            let kind = *self.stops.pick(&[Hushed::Prevotes, Hushed::Prevotes, Hushed::Precommits, Hushed::Proposals]);
            let spared = self.stops.place(n);
            let all = self.stops.chance(600);
            let deaf = (0..n).filter(|node| if all { *node != spared } else { self.stops.chance(500) }).collect();
            self.hushed = Some((kind, deaf));
            // Long enough for others to come to a later round without it.
            let lasts = self.stops.between(200 * MS, 4_000 * MS);
            // Who alone knows something is also who alone can forget it.
            if all && self.stops.chance(500) {
                let delay = self.stops.between(100 * MS, lasts / 2);
                self.after(delay, What::CrashOf { node: spared });
            }
            return self.after(lasts, What::Hush);
        }
        self.after_some(What::Hush);
    }

    /// Has one node alone lock a block, and forget what is not on its disk: one validator misses the proposal and says nil, and
    /// everybody else misses one vote of the others, so that all hear two thirds of any votes and one hears a polka. Chance
    /// alone seldom does this, and a bug in what a restart keeps of a lock shows nowhere else.
    pub(super) fn hunt(&mut self) {
        self.hunted.clear();
        if self.healed {
            return;
        }
        let n = self.plan.powers.len();
        let pause = self.hunts.between(100 * MS, 1_500 * MS);
        if n < 4 {
            return;
        }
        let locker = self.hunts.place(n);
        let without = (locker + 1 + self.hunts.place(n - 1)) % n;
        for deaf in (0..n).filter(|node| *node != locker) {
            let voters: Vec<usize> = (0..n).filter(|voter| *voter != deaf && *voter != without).collect();
            let missed = *self.hunts.pick(&voters);
            let mut kinds: Vec<Hushed> = self.indices.get(missed).map(|index| Hushed::PrevotesOf(*index)).into_iter().collect();
            if deaf == without {
                kinds.push(Hushed::Proposals);
            }
            self.hunted.insert(deaf, kinds);
        }
        let lasts = self.hunts.between(300 * MS, 2_500 * MS);
        let crash = self.hunts.between(50 * MS, lasts);
        self.after(crash, What::CrashOf { node: locker });
        self.after(lasts, What::HuntEnds);
        self.after(lasts + pause, What::Hunt);
    }

    pub(super) fn partition(&mut self) {
        self.cut.clear();
        if self.healed {
            return;
        }
        let n = self.machines.len();
        match self.faults.below(4) {
            0 => {}
            1 => {
                let alone = self.faults.place(n);
                for other in 0..n {
                    self.cut.extend([(alone, other), (other, alone)]);
                }
            }
            2 => {
                let sides: Vec<bool> = (0..n).map(|_| self.faults.chance(500)).collect();
                for a in 0..n {
                    self.cut.extend((0..n).filter(|b| sides[a] != sides[*b]).map(|b| (a, b)));
                }
            }
            _ => {
                // One direction only.
                let (a, b) = (self.faults.place(n), self.faults.place(n));
                self.cut.insert((a, b));
            }
        }
        self.after_between(100, 2_500, What::Partition);
    }

    pub(super) fn crash_some(&mut self) -> Outcome {
        if self.healed {
            return Ok(());
        }
        let survivals = [Survival::All, Survival::None, Survival::Random, Survival::TornSectors, Survival::TornPages, Survival::Prefix];
        let survival = *self.faults.pick(&survivals);
        if self.plan.crash_all && (!self.plan.crashes || self.faults.chance(300)) {
            for node in 0..self.machines.len() {
                self.crash(node, survival)?;
            }
        } else {
            let node = self.faults.place(self.machines.len());
            self.crash(node, survival)?;
        }
        self.after_between(20, self.plan.crash_interval_ms, What::Crash);
        Ok(())
    }

    pub(super) fn force_crash(&mut self, node: usize) -> Outcome {
        let Some(forced) =
            self.forced.filter(|forced| forced.node == node && forced.boundary == Boundary::Effect(self.machines[node].effects))
        else {
            return Ok(());
        };
        self.forced = None;
        if forced.all {
            (0..self.machines.len()).try_for_each(|node| self.crash(node, forced.survival))
        } else {
            self.crash(node, forced.survival)
        }
    }

    pub(super) fn crash(&mut self, node: usize, survival: Survival) -> Outcome {
        self.machines[node].life += 1;
        self.machines[node].running = None;
        self.machines[node].frozen_until = 0;
        self.crashes += 1;
        self.trace(|| format!("node {node} crashes, unsynced writes: {survival:?}"));
        let seed = self.disks.bits();
        self.machines[node].disk.crash(survival, seed);
        for other in 0..self.machines.len() {
            if other != node {
                self.disconnect(node.min(other), node.max(other))?;
            }
        }
        let life = self.machines[node].life;
        let delay = self.faults.between(10 * MS, 1_500 * MS);
        self.after(delay, What::Restart { node, life });
        Ok(())
    }

    /// The end of chaos: a core of more than two thirds is made whole, and must now make progress.
    pub(super) fn heal(&mut self) -> Outcome {
        if self.healed {
            return Ok(());
        }
        self.healed = true;
        self.cut.clear();
        self.hushed = None;
        self.hunted.clear();
        self.core = self.choose_core();
        for node in 0..self.machines.len() {
            if !self.core.contains(&node) {
                if self.plan.leave_rest_broken && self.machines[node].running.is_some() {
                    self.crash(node, Survival::Random)?;
                }
                self.machines[node].retired = self.plan.leave_rest_broken;
                continue;
            }
            let most = self.plan.honest_offset();
            self.machines[node].clock = i64::try_from(self.faults.below(most + 1)).expect("offsets are small");
            if self.machines[node].running.is_none() {
                self.start(node)?;
            }
        }
        let running = || self.core.iter().filter_map(|node| self.machines[*node].running.as_ref());
        let highest_round = running().map(|running| running.replica.consensus().round().get()).max().unwrap_or(0);
        let heights: Vec<u64> = running().map(|running| running.replica.chain().height.get()).collect();
        let highest = heights.iter().max().copied().unwrap_or(0).max(self.checks.height());
        let lag = highest - heights.iter().min().copied().unwrap_or(0);
        self.goal = highest + self.plan.settle_blocks;
        // Clocks that ran ahead left blocks from the future: honest proposers wait for them.
        let ahead = 2 * self.plan.clock_offset;
        let core = self.core.clone();
        self.trace(|| format!("the faults stop for {core:?}"));
        // What came to a frozen machine comes when it would have thawed.
        let thawed = self.machines.iter().map(|machine| machine.frozen_until).max().unwrap_or(0).max(self.now);
        self.machines.iter_mut().for_each(|machine| machine.frozen_until = 0);
        self.deadline = thawed + self.plan.liveness_bound(highest_round, lag) + ahead;
        Ok(())
    }

    pub(super) fn choose_core(&mut self) -> BTreeSet<usize> {
        let honest: Vec<usize> = (0..self.plan.powers.len()).filter(|node| self.is_honest(*node)).collect();
        if !self.plan.leave_rest_broken {
            return honest.into_iter().collect();
        }
        let total: u64 = self.plan.powers.iter().sum();
        let mut core: BTreeSet<usize> = BTreeSet::new();
        // Those who are broken for good are a third; who still lacks what it lost would be one more.
        let mut left: Vec<usize> = honest.into_iter().filter(|node| !self.is_rotten(*node)).collect();
        while core.iter().map(|node| self.plan.powers[*node]).sum::<u64>() * 3 <= total * 2 {
            let Some(place) = (!left.is_empty()).then(|| self.faults.place(left.len())) else { break };
            core.insert(left.swap_remove(place));
        }
        core
    }
}
