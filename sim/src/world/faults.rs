//! What goes wrong.
//!
//! [`World::draw`] rolls the dice of one cause and says which faults come of it; [`World::strike`] puts a fault upon the run,
//! whether dice drew it or a list holds it, and keeps it for the list of this run.

use std::collections::BTreeSet;

use super::drawing::{disk_stop, down};
use super::{Boundary, Clogging, Cutting, Deafness, Eclipse, ForcedCrash, Outcome, What, World};
use crate::coverage::{Kind, Step};
use crate::disk::{self, Survival};
use crate::plan::MS;
use crate::random::Stream;
use crate::schedule::{Fault, Shape, Timed};
use crate::trace::Told;

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
    Clogs,
    Eclipses,
    Churn,
    /// While a machine is down.
    Rots,
    /// While a machine starts.
    StartStops,
    Heal,
    /// Disks that fail while their machine runs.
    Troubles,
    /// Losses of what no copy gives back.
    Losses,
    /// Validators who come and go.
    Members,
    /// Machines that are replaced, and such as stay away.
    Replacements,
    /// Memories that fail.
    Divergences,
}

impl Cause {
    pub(super) const ALL: [Self; 19] = [
        Self::Resets,
        Self::Partitions,
        Self::Crashes,
        Self::ClockSteps,
        Self::DiskStops,
        Self::Freezes,
        Self::Hushes,
        Self::Hunts,
        Self::Clogs,
        Self::Eclipses,
        Self::Churn,
        Self::Rots,
        Self::StartStops,
        Self::Heal,
        Self::Troubles,
        Self::Losses,
        Self::Members,
        Self::Replacements,
        Self::Divergences,
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
            Self::Clogs => "clogs",
            Self::Eclipses => "eclipses",
            Self::Churn => "churn",
            Self::Rots => "rot",
            Self::StartStops => "disk stops while starting",
            Self::Heal => "heal",
            Self::Troubles => "disk troubles",
            Self::Losses => "losses",
            Self::Members => "requests of members",
            Self::Replacements => "replacements",
            Self::Divergences => "divergences",
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
            (Cause::Troubles, plan.disk_troubles, (50, 1_500)),
            (Cause::Losses, plan.losses, (300, 3_000)),
            (Cause::Members, plan.members.is_some(), (50, 600)),
            (Cause::Replacements, plan.replacements, (1_000, 6_000)),
            (Cause::Divergences, plan.divergences, (200, 2_000)),
            (Cause::Clogs, plan.clogs, (50, 2_000)),
            (Cause::Eclipses, plan.eclipses, (50, 3_000)),
            (Cause::Churn, plan.churn && plan.followers > 0, (100, 3_000)),
        ];
        for (cause, _, (low, high)) in causes.into_iter().filter(|(_, happens, _)| *happens) {
            let delay = self.dice[cause as usize].between(low * MS, high * MS);
            self.first_at(delay * self.plan.fault_pause, What::Wake(cause));
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
            self.first_at(self.now + delay * self.plan.fault_pause, What::Wake(cause));
        }
        Ok(())
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
            Fault::Disk { node, trouble, seed } if node < n => return self.trouble(node, trouble, seed),
            Fault::Loss { node, loss, seed } if node < n => return self.lose(node, loss, seed),
            Fault::Diverge { node, damage, lasts, seed } if node < n => return Ok(self.diverge(node, damage, lasts, seed)),
            Fault::Freeze { node, lasts_ns } if node < n => {
                let until = until(lasts_ns).min(self.plan.chaos);
                self.cover(Kind::Freeze, node);
                // What was put off to the end of a longer freeze comes then.
                let machine = &mut self.machines[node];
                machine.frozen_until = machine.frozen_until.max(until);
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
                    Shape::Proposer => Kind::Proposer,
                    Shape::Ring => Kind::Ring,
                    Shape::Bridge => Kind::Bridge,
                    Shape::Deaf => Kind::Deaf,
                    Shape::Mute => Kind::Mute,
                    Shape::OneWay => Kind::OneWay,
                };
                for node in deaf {
                    self.cover(kind, node);
                    if flap_ns > 0 {
                        self.cover(Kind::Flap, node);
                    }
                }
                self.cuts.push(Cutting { since: self.now, until, flap: flap_ns, links: links.into_iter().collect() });
            }
            Fault::Clog { swizzled, links, lasts_ns } => {
                let until = until(lasts_ns);
                let slow: BTreeSet<usize> = links.iter().map(|(_, to)| *to).filter(|to| *to < n).collect();
                slow.into_iter().for_each(|node| self.cover(if swizzled { Kind::Swizzle } else { Kind::Clog }, node));
                self.clogs.push(Clogging { until, links: links.into_iter().collect() });
            }
            Fault::Eclipse { node, keeps, lasts_ns } if node < n => {
                let until = until(lasts_ns);
                self.cover(Kind::Eclipse, node);
                let lost: Vec<usize> = (0..n).filter(|other| *other != node && !keeps.contains(other)).collect();
                self.eclipses.push(Eclipse { until, node, keeps: keeps.into_iter().collect() });
                for other in lost {
                    self.disconnect(node.min(other), node.max(other))?;
                }
            }
            Fault::Leave { node, down_ns, anew } => {
                let validators = self.plan.powers.len();
                let is_follower = (validators..validators + self.plan.followers).contains(&node);
                let lies = self.plan.byzantine.lies(node) || self.plan.byzantine.secluded.is_some();
                if !is_follower || lies || self.machines[node].running.is_none() {
                    return Ok(false);
                }
                self.cover(Kind::Leave, node);
                // Who may come to validate has a guard, which nobody removes; its machine is replaced by another with another key.
                self.leave(node, down_ns, anew && self.plan.members.is_none())?;
            }
            Fault::Replace { node, down_ns, named } if node < n && self.plan.makes_checkpoints() => {
                return self.replace(node, down_ns, named);
            }
            Fault::Away { node, down_ns } if node < n => {
                if self.machines[node].running.is_none() || self.machines[node].retired {
                    return Ok(false);
                }
                self.cover(Kind::Away, node);
                self.process_ends(node, down_ns)?;
            }
            Fault::Reset { a, b } => {
                if !self.connections.contains_key(&(a, b)) {
                    return Ok(false);
                }
                self.cover(Kind::Reset, a);
                self.cover(Kind::Reset, b);
                self.disconnect(a, b)?;
            }
            Fault::Ask { node, ask } if node < n => return self.ask_chain(node, &ask),
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
        self.crashes_while_starting += u64::from(self.machines[node].running.is_none());
        let forced = self.forced.take_if(|forced| forced.node == node && matches!(forced.boundary, Boundary::Operation(..)));
        if let Some(forced) = forced {
            return self.force(forced);
        }
        self.coverage.count(Kind::DiskStop, Step::of(&self.machines[node]).unwrap_or(Step::Starting));
        let outage = *self.outages.get(&node).expect("whatever stops a disk says for how long");
        self.crash(node, outage)
    }

    /// One of a machine's files rots while it is down, as long as those who rot and those who lie have less than a third of
    /// the power: every block, and every body that a lock names, has then a sound copy somewhere. Whether one did.
    fn rot(&mut self, node: usize, seed: u64) -> bool {
        let machine = &self.machines[node];
        let is_down = machine.running.is_none() && machine.life > 0 && !machine.retired;
        is_down && self.harms(node, |machine| machine.damage(&mut Stream::new(seed, "rot")))
    }

    /// Whether it has not come back to where it was when it rotted: it has not started since, or not caught up.
    pub(super) fn is_rotten(&self, node: usize) -> bool {
        let rot = &self.machines[node].rot;
        rot.is_fresh || self.checks.told(node) < rot.until || self.is_astray(node)
    }

    /// A process ends in good order, and begins again, perhaps elsewhere.
    fn leave(&mut self, node: usize, down: u64, anew: bool) -> Outcome {
        let machine = &mut self.machines[node];
        machine.life += 1;
        machine.running = None;
        machine.frozen_until = 0;
        machine.disk.kill();
        if anew {
            machine.begin_anew();
            self.outages.remove(&node);
            self.forget_lies(node);
        }
        let life = self.machines[node].life;
        self.trace(|| format!("node {node} leaves{}", if anew { ", and what it had is gone" } else { "" }));
        for other in (0..self.machines.len()).filter(|other| *other != node) {
            self.disconnect(node.min(other), node.max(other))?;
        }
        self.first_at(self.now + down.max(1), What::Restart { node, life });
        Ok(())
    }

    pub(super) fn force_crash(&mut self, node: usize) -> Outcome {
        let Some(forced) =
            self.forced.filter(|forced| forced.node == node && forced.boundary == Boundary::Effect(self.machines[node].effects))
        else {
            return Ok(());
        };
        self.forced = None;
        self.force(forced)
    }

    /// The crash of a sweep.
    fn force(&mut self, forced: ForcedCrash) -> Outcome {
        let ForcedCrash { node, all, survival, then, .. } = forced;
        self.forced = then.map(|(after, when, survival)| {
            let boundary = Boundary::Operation(self.machines[node].disk.operations() + after, when);
            ForcedCrash { node, boundary, all, survival, then: None }
        });
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
        self.crashes += 1;
        self.tell(Some(node), Told::Crash, || format!("crashes, unsynced writes: {survival:?}"));
        self.goes_down(node, down, |disk| {
            disk.crash(survival, seed);
        })
    }

    /// A life ends: `end` is what becomes of the disk.
    pub(super) fn goes_down(&mut self, node: usize, down: u64, end: impl FnOnce(&disk::SimDisk)) -> Outcome {
        self.history.stopped(node);
        let machine = &mut self.machines[node];
        machine.life += 1;
        // Nothing is closed: what has the files open does nothing more with them.
        machine.disk.stop();
        machine.running = None;
        machine.frozen_until = 0;
        end(&machine.disk);
        self.plan_forced();
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

    /// A crash of a sweep that is to come at an operation of a disk: a life that ends forgets what was planned for it.
    pub(super) fn plan_forced(&self) {
        if let Some(ForcedCrash { node, boundary: Boundary::Operation(operation, when), .. }) = self.forced {
            self.machines[node].disk.fault_at(operation, disk::Fault::Stop(when), self.seed ^ operation);
        }
    }
}
