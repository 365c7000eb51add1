//! What goes wrong, and its end.
//!
//! [`World::draw`] rolls the dice of one cause and says which faults come of it; [`World::strike`] puts a fault upon the run,
//! whether dice drew it or a list holds it, and keeps it for the list of this run.

use std::collections::BTreeSet;

use super::{Boundary, Cutting, Deafness, Outcome, What, World, violation};
use crate::coverage::{Kind, Step};
use crate::disk::{self, Survival, When};
use crate::plan::{Hushed, MS};
use crate::random::Stream;
use crate::schedule::{Fault, Shape, Timed};

/// What draws faults: each has a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Cause {
    Resets,
    Partitions,
    Crashes,
    ClockSteps,
    DiskStops,
    Freezes,
    Hushes,
    Hunts,
    /// While a machine is down.
    Rots,
    /// While a machine starts.
    StartStops,
    Heal,
}

impl Cause {
    pub(super) const ALL: [Self; 11] = [
        Self::Resets,
        Self::Partitions,
        Self::Crashes,
        Self::ClockSteps,
        Self::DiskStops,
        Self::Freezes,
        Self::Hushes,
        Self::Hunts,
        Self::Rots,
        Self::StartStops,
        Self::Heal,
    ];

    /// The label of its stream.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Partitions => "partitions",
            Self::Crashes => "crashes",
            Self::ClockSteps => "clock steps",
            Self::DiskStops => "disk stops",
            Self::Freezes => "freezes",
            Self::Hushes => "hushes",
            Self::Hunts => "hunts",
            Self::Rots => "rot",
            Self::StartStops => "disk stops while starting",
            Self::Heal => "heal",
        }
    }
}

/// What a machine does when it stops at an operation of its disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) survival: Survival,
    pub(super) seed: u64,
    pub(super) down: u64,
}

/// Faults that the dice of a cause gave, each so long from now, and when they are rolled again.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    faults: Vec<(u64, Fault)>,
    again: Option<u64>,
}

impl World {
    /// Has every cause that the plan has roll its dice a first time, or takes the faults from a list.
    pub(super) fn begin_faults(&mut self) {
        if let Some(list) = self.following.take() {
            self.heal_is_due = list.iter().any(|timed| matches!(timed.fault, Fault::Heal { .. }));
            for Timed { at_ns, fault } in list {
                self.first_at(at_ns, What::Strike(Box::new(fault)));
            }
            self.first_at(self.plan.chaos, What::Wake(Cause::Heal));
            return;
        }
        let plan = &self.plan;
        let causes = [
            (Cause::Resets, plan.resets, (100, 2_000)),
            (Cause::Partitions, plan.partitions, (100, 2_500)),
            (Cause::Crashes, plan.crashes || plan.crash_all, (20, plan.crash_interval_ms)),
            (Cause::ClockSteps, plan.clock_steps, (100, 2_000)),
            (Cause::DiskStops, plan.disk_stops, (50, 2_000)),
            (Cause::Freezes, plan.freezes, (50, 2_000)),
            (Cause::Hushes, plan.hushes, (50, 2_000)),
            (Cause::Hunts, plan.hunts, (50, 2_000)),
        ];
        for (cause, _, (low, high)) in causes.into_iter().filter(|(_, happens, _)| *happens) {
            let delay = self.dice[cause as usize].between(low * MS, high * MS);
            self.first_at(delay, What::Wake(cause));
        }
        self.first_at(self.plan.chaos, What::Wake(Cause::Heal));
    }

    /// A cause rolls its dice.
    pub(super) fn wake(&mut self, cause: Cause) -> Outcome {
        if self.healed || (cause == Cause::Heal && std::mem::replace(&mut self.heal_is_due, true)) {
            return Ok(());
        }
        let mut dice = self.dice[cause as usize].clone();
        let drawn = self.draw(cause, &mut dice);
        self.dice[cause as usize] = dice;
        for (delay, fault) in drawn.faults {
            if delay == 0 {
                self.strike(fault)?;
            } else {
                self.first_at(self.now + delay, What::Strike(Box::new(fault)));
            }
        }
        if let Some(delay) = drawn.again {
            self.first_at(self.now + delay, What::Wake(cause));
        }
        Ok(())
    }

    fn draw(&self, cause: Cause, dice: &mut Stream) -> Drawn {
        let n = self.machines.len();
        let once = |fault, again| Drawn { faults: vec![(0, fault)], again: Some(again) };
        match cause {
            Cause::Resets => {
                let pairs: Vec<(usize, usize)> = self.connections.keys().copied().collect();
                let faults = if pairs.is_empty() { Vec::new() } else { vec![*dice.pick(&pairs)] };
                let faults = faults.into_iter().map(|(a, b)| (0, Fault::Reset { a, b })).collect();
                Drawn { faults, again: Some(dice.between(50 * MS, 2_000 * MS)) }
            }
            Cause::Partitions => {
                let lasts_ns = dice.between(100 * MS, 2_500 * MS);
                let faults = self.draw_cut(lasts_ns, dice).map(|fault| (0, fault)).into_iter().collect();
                Drawn { faults, again: Some(lasts_ns) }
            }
            Cause::Crashes => {
                let survival = *dice.pick(&Survival::EACH);
                let fault = if self.plan.crash_all && (!self.plan.crashes || dice.chance(300)) {
                    let seed = dice.bits();
                    Fault::PowerCut { survival, seed, down_ns: (0..n).map(|_| down(dice)).collect() }
                } else {
                    Fault::Crash { node: dice.place(n), survival, seed: dice.bits(), down_ns: down(dice) }
                };
                once(fault, dice.between(20 * MS, self.plan.crash_interval_ms * MS))
            }
            Cause::ClockSteps => {
                let most = self.plan.clock_offset.max(self.plan.honest_offset());
                let fault = Fault::ClockStep { node: dice.place(n), offset_ns: dice.around_zero(most) };
                once(fault, dice.between(100 * MS, 2_000 * MS))
            }
            Cause::DiskStops => {
                let node = dice.place(n);
                once(disk_stop(node, 40, dice), dice.between(50 * MS, 2_000 * MS))
            }
            Cause::Freezes => {
                let fault = Fault::Freeze { node: dice.place(n), lasts_ns: dice.between(10 * MS, 3_000 * MS) };
                once(fault, dice.between(50 * MS, 2_000 * MS))
            }
            Cause::Hushes => draw_hush(n, dice),
            Cause::Hunts => self.draw_hunt(dice),
            Cause::Heal => {
                let core: Vec<usize> = self.choose_core(dice).into_iter().collect();
                let most = self.plan.honest_offset();
                let offsets_ns = core.iter().map(|_| i64::try_from(dice.below(most + 1)).expect("offsets are small")).collect();
                Drawn { faults: vec![(0, Fault::Heal { core, offsets_ns, seed: dice.bits() })], again: None }
            }
            Cause::Rots | Cause::StartStops => Drawn::default(),
        }
    }

    /// What else becomes of a machine that is down for so long.
    fn draw_while_down(&mut self, node: usize, down: u64) {
        if self.healed || self.follows {
            return;
        }
        // Just before it starts: the start must deal with it.
        let at = self.now + down - 1;
        if self.plan.rots && self.dice[Cause::Rots as usize].chance(350) {
            let seed = self.dice[Cause::Rots as usize].bits();
            self.first_at(at, What::Strike(Box::new(Fault::Rot { node, seed })));
        }
        if self.plan.disk_stops && self.dice[Cause::StartStops as usize].chance(300) {
            let fault = disk_stop(node, 16, &mut self.dice[Cause::StartStops as usize]);
            self.first_at(at, What::Strike(Box::new(fault)));
        }
    }

    /// Puts a fault upon the run; it is kept where it did something.
    pub(super) fn strike(&mut self, fault: Fault) -> Outcome {
        if self.healed {
            return Ok(());
        }
        self.trace(|| format!("{fault:?}"));
        self.struck.push(Timed { at_ns: self.now, fault: fault.clone() });
        if !self.apply(fault)? {
            self.struck.pop();
        }
        Ok(())
    }

    /// What a fault does; false where there is nothing that it could do.
    fn apply(&mut self, fault: Fault) -> Result<bool, crate::checks::Violation> {
        let n = self.machines.len();
        let until = |lasts: u64| self.now.saturating_add(lasts);
        match fault {
            Fault::Crash { node, survival, seed, down_ns } if node < n => {
                self.cover(Kind::Crash, node);
                self.crash(node, Outage { survival, seed, down: down_ns })?;
            }
            Fault::PowerCut { survival, seed, down_ns } => {
                (0..n).for_each(|node| self.cover(Kind::PowerCut, node));
                let mut seeds = Stream::new(seed, "power cut");
                let outages: Vec<Outage> =
                    (0..n).map(|node| Outage { survival, seed: seeds.bits(), down: down_ns.get(node).copied().unwrap_or(MS) }).collect();
                self.crash_all(&outages)?;
            }
            Fault::DiskStop { node, after, when, survival, seed, down_ns } if node < n => {
                let disk = &self.machines[node].disk;
                disk.fault_at(disk.operations() + after, disk::Fault::Stop(when), seed);
                self.outages.insert(node, Outage { survival, seed, down: down_ns });
            }
            Fault::Rot { node, seed } if node < n => return Ok(self.rot(node, seed)),
            Fault::Freeze { node, lasts_ns } if node < n => {
                let until = until(lasts_ns).min(self.plan.chaos);
                self.cover(Kind::Freeze, node);
                self.machines[node].frozen_until = until;
            }
            Fault::ClockStep { node, offset_ns } if node < n => {
                self.cover(Kind::ClockStep, node);
                self.machines[node].clock = offset_ns;
            }
            Fault::Hush { nodes, kind, lasts_ns } => {
                let until = until(lasts_ns);
                nodes.iter().filter(|node| **node < n).for_each(|node| self.cover(Kind::Hush, *node));
                self.deafness.push(Deafness { until, kind, nodes: nodes.into_iter().collect() });
            }
            Fault::Cut { shape, links, lasts_ns, flap_ns } => {
                let until = until(lasts_ns);
                let deaf: BTreeSet<usize> = links.iter().map(|(_, to)| *to).filter(|to| *to < n).collect();
                let kind = match shape {
                    Shape::Split => Kind::Split,
                    Shape::Alone => Kind::Alone,
                    Shape::OneWay => Kind::OneWay,
                };
                deaf.into_iter().for_each(|node| self.cover(kind, node));
                self.cuts.push(Cutting { since: self.now, until, flap: flap_ns, links: links.into_iter().collect() });
            }
            Fault::Reset { a, b } => {
                if !self.connections.contains_key(&(a, b)) {
                    return Ok(false);
                }
                self.cover(Kind::Reset, a);
                self.cover(Kind::Reset, b);
                self.disconnect(a, b)?;
            }
            Fault::Heal { core, offsets_ns, seed } => self.heal(core.into_iter().zip(offsets_ns).collect(), seed)?,
            // Of a node that this network does not have.
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Counts that something happened to a node, for the table.
    pub(super) fn cover(&mut self, kind: Kind, node: usize) {
        if let Some(step) = Step::of(&self.machines[node]) {
            self.coverage.count(kind, step);
        }
    }

    /// A machine has stopped at an operation of its disk: the power is gone.
    pub(super) fn stopped(&mut self, node: usize) -> Outcome {
        let forced = self.forced.take_if(|forced| forced.node == node && matches!(forced.boundary, Boundary::Operation(..)));
        if let Some(forced) = forced {
            return self.force(forced.node, forced.survival, forced.all);
        }
        self.coverage.count(Kind::DiskStop, Step::of(&self.machines[node]).unwrap_or(Step::Starting));
        let outage = *self.outages.get(&node).expect("whatever stops a disk says for how long");
        self.crash(node, outage)
    }

    /// One of a machine's files rots while it is down, as long as those who rot and those who lie have less than a third of
    /// the power: every block, and every body that a lock names, has then a sound copy somewhere. Whether one did.
    fn rot(&mut self, node: usize, seed: u64) -> bool {
        /// Openings that set something aside are counted, and a run must not reach the bound.
        const TIMES_MAX: u64 = 6;
        let machine = &self.machines[node];
        let is_down = machine.running.is_none() && machine.life > 0 && !machine.retired;
        if !is_down || !self.is_honest(node) || machine.rot.is_fresh || machine.rot.times >= TIMES_MAX {
            return false;
        }
        let is_faulty = |other: usize| other == node || !self.is_honest(other) || self.is_rotten(other);
        let faulty: u64 = (0..self.plan.powers.len()).filter(|other| is_faulty(*other)).map(|other| self.plan.powers[other]).sum();
        if node < self.plan.powers.len() && 3 * faulty >= self.plan.powers.iter().sum::<u64>() {
            return false;
        }
        let said = machine.guard_position(self.genesis.hash()).unwrap_or_default();
        let told = self.checks.told(node);
        let Some(what) = machine.damage(&mut Stream::new(seed, "rot")) else { return false };
        self.trace(|| format!("node {node} loses {what}"));
        let rot = &mut self.machines[node].rot;
        rot.times += 1;
        rot.is_fresh = true;
        rot.said_before = rot.said_before.max(said);
        rot.until = rot.until.max(told).max(said.0);
        true
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

    /// Has one node alone lock a block, and forget what is not on its disk: one validator misses the proposal and says nil, and
    /// everybody else misses one vote of the others, so that all hear two thirds of any votes and one hears a polka. Chance
    /// alone seldom does this, and a bug in what a restart keeps of a lock shows nowhere else.
    fn draw_hunt(&self, dice: &mut Stream) -> Drawn {
        let n = self.plan.powers.len();
        if n < 4 {
            return Drawn::default();
        }
        let pause = dice.between(100 * MS, 1_500 * MS);
        let lasts_ns = dice.between(300 * MS, 2_500 * MS);
        let crash = dice.between(50 * MS, lasts_ns);
        let locker = dice.place(n);
        let without = (locker + 1 + dice.place(n - 1)) % n;
        let mut faults = vec![(0, Fault::Hush { nodes: vec![without], kind: Hushed::Proposals, lasts_ns })];
        for deaf in (0..n).filter(|node| *node != locker) {
            let voters: Vec<usize> = (0..n).filter(|voter| *voter != deaf && *voter != without).collect();
            faults.push((0, Fault::Hush { nodes: vec![deaf], kind: Hushed::PrevotesOf(*dice.pick(&voters)), lasts_ns }));
        }
        let survival = *dice.pick(&Survival::EACH);
        faults.push((crash, Fault::Crash { node: locker, survival, seed: dice.bits(), down_ns: down(dice) }));
        Drawn { faults, again: Some(lasts_ns + pause) }
    }

    fn draw_cut(&self, lasts_ns: u64, dice: &mut Stream) -> Option<Fault> {
        let n = self.machines.len();
        let (shape, links): (Shape, Vec<(usize, usize)>) = match dice.below(4) {
            0 => return None,
            1 => {
                let alone = dice.place(n);
                let others = (0..n).filter(|other| *other != alone);
                (Shape::Alone, others.flat_map(|other| [(alone, other), (other, alone)]).collect())
            }
            2 => {
                let sides: Vec<bool> = (0..n).map(|_| dice.chance(500)).collect();
                let others = |a: usize| (0..n).map(move |b| (a, b));
                (Shape::Split, (0..n).flat_map(others).filter(|(a, b)| sides[*a] != sides[*b]).collect())
            }
            _ => (Shape::OneWay, vec![(dice.place(n), dice.place(n))]),
        };
        Some(Fault::Cut { shape, links, lasts_ns, flap_ns: 0 })
    }

    pub(super) fn force_crash(&mut self, node: usize) -> Outcome {
        let Some(forced) =
            self.forced.filter(|forced| forced.node == node && forced.boundary == Boundary::Effect(self.machines[node].effects))
        else {
            return Ok(());
        };
        self.forced = None;
        self.force(node, forced.survival, forced.all)
    }

    /// The crash of a sweep.
    fn force(&mut self, node: usize, survival: Survival, all: bool) -> Outcome {
        let mut dice = Stream::new(self.seed, "sweep");
        let outages: Vec<Outage> = self.machines.iter().map(|_| Outage { survival, seed: dice.bits(), down: down(&mut dice) }).collect();
        if all { self.crash_all(&outages) } else { self.crash(node, outages[node]) }
    }

    /// All machines lose power before any of them can notice.
    fn crash_all(&mut self, outages: &[Outage]) -> Outcome {
        self.connections.clear();
        outages.iter().enumerate().try_for_each(|(node, outage)| self.crash(node, *outage))
    }

    pub(super) fn crash(&mut self, node: usize, outage: Outage) -> Outcome {
        let Outage { survival, seed, down } = outage;
        self.machines[node].life += 1;
        self.machines[node].running = None;
        self.machines[node].frozen_until = 0;
        self.crashes += 1;
        self.trace(|| format!("node {node} crashes, unsynced writes: {survival:?}"));
        self.machines[node].disk.crash(survival, seed);
        for other in 0..self.machines.len() {
            if other != node {
                self.disconnect(node.min(other), node.max(other))?;
            }
        }
        let life = self.machines[node].life;
        self.first_at(self.now + down.max(1), What::Restart { node, life });
        self.draw_while_down(node, down.max(1));
        Ok(())
    }

    /// The end of chaos: a core of more than two thirds is made whole, and must now make progress.
    fn heal(&mut self, mut core: Vec<(usize, i64)>, seed: u64) -> Outcome {
        let mut dice = Stream::new(seed, "heal");
        // In a list that lost some of its faults others may have rotted by now than when it was drawn.
        if core.iter().any(|(node, _)| *node >= self.machines.len() || (self.plan.leave_rest_broken && self.is_rotten(*node))) {
            core = self.choose_core(&mut dice).into_iter().map(|node| (node, 0)).collect();
        }
        self.healed = true;
        self.cuts.clear();
        self.deafness.clear();
        self.core = core.iter().map(|(node, _)| *node).collect();
        for node in 0..self.machines.len() {
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

    fn choose_core(&self, dice: &mut Stream) -> BTreeSet<usize> {
        let honest: Vec<usize> = (0..self.plan.powers.len()).filter(|node| self.is_honest(*node)).collect();
        if !self.plan.leave_rest_broken {
            return honest.into_iter().collect();
        }
        let total: u64 = self.plan.powers.iter().sum();
        let mut core: BTreeSet<usize> = BTreeSet::new();
        // Those who are broken for good are a third; who still lacks what it lost would be one more.
        let mut left: Vec<usize> = honest.into_iter().filter(|node| !self.is_rotten(*node)).collect();
        while core.iter().map(|node| self.plan.powers[*node]).sum::<u64>() * 3 <= total * 2 {
            let Some(place) = (!left.is_empty()).then(|| dice.place(left.len())) else { break };
            core.insert(left.swap_remove(place));
        }
        core
    }
}

/// How long a machine is down.
fn down(dice: &mut Stream) -> u64 {
    dice.between(10 * MS, 1_500 * MS)
}

/// A machine stops at one of its disk's next operations.
fn disk_stop(node: usize, within: u64, dice: &mut Stream) -> Fault {
    Fault::DiskStop {
        node,
        after: dice.below(within),
        when: *dice.pick(&When::EACH),
        survival: *dice.pick(&Survival::EACH),
        seed: dice.bits(),
        down_ns: down(dice),
    }
}

/// All but one node, or some, do not get one kind of message for a while.
fn draw_hush(n: usize, dice: &mut Stream) -> Drawn {
    if !dice.chance(700) {
        return Drawn { faults: Vec::new(), again: Some(dice.between(50 * MS, 2_000 * MS)) };
    }
    let kind = *dice.pick(&[Hushed::Prevotes, Hushed::Prevotes, Hushed::Precommits, Hushed::Proposals]);
    let spared = dice.place(n);
    let all = dice.chance(600);
    let nodes = (0..n).filter(|node| if all { *node != spared } else { dice.chance(500) }).collect();
    // Long enough for others to come to a later round without it.
    let lasts_ns = dice.between(200 * MS, 4_000 * MS);
    let mut faults = vec![(0, Fault::Hush { nodes, kind, lasts_ns })];
    // Who alone knows something is also who alone can forget it.
    if all && dice.chance(500) {
        let delay = dice.between(100 * MS, lasts_ns / 2);
        let survival = *dice.pick(&Survival::EACH);
        faults.push((delay, Fault::Crash { node: spared, survival, seed: dice.bits(), down_ns: down(dice) }));
    }
    Drawn { faults, again: Some(lasts_ns) }
}
