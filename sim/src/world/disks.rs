//! Disks that fail while their machine runs.
//!
//! What is promised ([`crate::disk`], class B): it is noticed before it is used, nothing is signed any more, and what was lost
//! comes back from peers. So a node whose disk fails is told so, as the threads of the shell tell it; it must halt and sign
//! nothing more; and it is started again after a while, by somebody who saw the reason. A disk that is full or slow stops
//! nobody for good.
//!
//! What takes bytes that were durable keeps to an **atlas**: nodes that lost something, and have not come back to where they
//! were, have together with those who lie less than a third of the power. So every decided block, and every body that a
//! lock names, has a good copy at somebody who can be asked.

use lockstep_replica::seam::Report;
use lockstep_replica::{Effect, Input};

use super::faults::Outage;
use super::{Outcome, What, World, violation};
use crate::coverage::Kind;
use crate::disk::{self, Loss, Survival, Tally, Trouble};
use crate::node::{DAMAGED, GUARD, LOG, Machine};
use crate::plan::MS;
use crate::random::Stream;
use crate::schedule::Fault;
use crate::trace::Told;

/// Between two looks whether there is room again, as in the shell.
pub(super) const LOOK_NS: u64 = 1_000 * MS;
/// Until whoever looks after a machine starts it again.
const STARTED_AGAIN_NS: u64 = 250 * MS;
/// Between two copies of all disks.
const COPIES_NS: u64 = 200 * MS;
/// How old a copy is at most that somebody restores. Older ones are let go: a copy holds every page as it was.
const COPY_AGE_MAX: u64 = 2_000 * MS;
/// Starts that set something aside are counted, and a run must not reach the bound.
const HARMS_MAX: u64 = 6;

/// What is wrong with a machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ailing {
    /// No sync returns before then.
    pub(crate) stalled_until: u64,
    /// There is room again then.
    full_until: u64,
    /// What had happened to the disk when this life began, and how many operations it had done.
    before: Tally,
    first_operation: u64,
    /// The node was told that its disk failed: it signs nothing more.
    has_failed: bool,
    /// Draws how a halted machine comes back.
    seed: u64,
    /// What it cannot get back.
    lost: Option<Loss>,
    /// What it signed last, and when.
    said: Option<(u64, (u64, u32, u8))>,
    /// What it had signed so short a moment before it lost that, that perhaps nobody heard it.
    unheard: Option<(u64, u32, u8)>,
    /// It may never vote again: it lost what it said.
    pub(super) is_for_good: bool,
}

impl Ailing {
    /// Whether it was told that its disk failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Whether it was put back to an older copy.
    pub(super) fn is_restored(&self) -> bool {
        matches!(self.lost, Some(Loss::Restored { .. }))
    }

    /// It signed something.
    pub(super) fn says(&mut self, now: u64, place: (u64, u32, u8)) {
        self.said = Some((now, place));
    }

    /// Whether perhaps nobody heard what it had signed for this place.
    pub(super) fn said_unheard(&self, place: (u64, u32, u8)) -> bool {
        self.unheard == Some(place)
    }

    /// Whether there is something that it cannot get back.
    pub(super) fn lost_anything(&self) -> bool {
        self.lost.is_some() || self.is_for_good
    }
}

impl World {
    /// Draws a trouble for some disk.
    pub(super) fn draw_trouble(&self, dice: &mut Stream) -> Fault {
        let node = dice.place(self.machines.len());
        let after = |dice: &mut Stream| dice.below(30);
        let trouble = match dice.below(18) {
            0..=3 => Trouble::Broken { after: after(dice) },
            4 => Trouble::NoSpace { after: after(dice) },
            5..=7 => Trouble::Full { lasts_ns: dice.between(50, 3_000) * MS },
            8..=10 => Trouble::Stall { lasts_ns: if dice.chance(100) { 60_000 * MS } else { dice.between(10, 10_000) * MS } },
            11..=12 => Trouble::Lie { lasts_ns: dice.between(10, 600) * MS },
            13..=14 => Trouble::Misdirected { after: after(dice) },
            15 => Trouble::FailedRead { after: dice.below(6) },
            16 => Trouble::LostPage,
            _ => Trouble::Decay,
        };
        Fault::Disk { node, trouble, seed: dice.bits() }
    }

    /// Puts a trouble upon a disk; false where it can do nothing.
    pub(super) fn trouble(&mut self, node: usize, trouble: Trouble, seed: u64) -> Result<bool, crate::checks::Violation> {
        let machine = &self.machines[node];
        if machine.running.is_none() || machine.retired || machine.ailing.has_failed {
            return Ok(false);
        }
        let mut dice = Stream::new(seed, "trouble");
        let disk = machine.disk.clone();
        let next = |after: u64| disk.operations().saturating_add(after);
        let (now, chaos) = (self.now, self.plan.chaos);
        let until = |lasts: u64| now.saturating_add(lasts).min(chaos.max(now));
        let kind = match trouble {
            Trouble::Broken { after } => {
                disk.fault_at(next(after), disk::Fault::Broken, dice.bits());
                Kind::DiskError
            }
            Trouble::FailedRead { after } => {
                disk.fail_read(after);
                Kind::DiskError
            }
            Trouble::NoSpace { after } => {
                disk.fault_at(next(after), disk::Fault::NoSpace, dice.bits());
                Kind::NoRoom
            }
            Trouble::Full { lasts_ns } => {
                disk.set_full(true);
                let until = until(lasts_ns);
                self.machines[node].ailing.full_until = until;
                self.at(until, What::Room { node });
                Kind::NoRoom
            }
            Trouble::Stall { lasts_ns } => {
                self.machines[node].ailing.stalled_until = until(lasts_ns);
                Kind::Stall
            }
            Trouble::Lie { lasts_ns } => {
                let part = *dice.pick(&["log", "state", ".res"]);
                if !self.harms(node, |machine| {
                    machine.disk.set_lying(Some(part));
                    Some(format!("whatever {part} is told to keep"))
                }) {
                    return Ok(false);
                }
                let outage = Outage { survival: *dice.pick(&Survival::EACH), seed: dice.bits(), down: dice.between(10 * MS, 900 * MS) };
                self.at(until(lasts_ns), What::LieEnds { node, outage });
                Kind::Lie
            }
            Trouble::Misdirected { after } => {
                let noise = dice.bits();
                if !self.harms(node, |machine| {
                    machine.disk.spare(GUARD);
                    machine.disk.misdirect(after, noise);
                    Some(format!("a page that sync {after} from now writes elsewhere"))
                }) {
                    return Ok(false);
                }
                Kind::Misdirected
            }
            Trouble::Decay | Trouble::LostPage => {
                let is_lost = trouble == Trouble::LostPage;
                if !self.harms(node, |machine| decay(machine, &mut dice, is_lost)) {
                    return Ok(false);
                }
                if is_lost { Kind::LostPage } else { Kind::Decay }
            }
        };
        self.machines[node].ailing.seed = seed;
        self.cover(kind, node);
        Ok(true)
    }

    /// Takes something that was durable from a machine, if the atlas allows it.
    pub(super) fn harms(&mut self, node: usize, harm: impl FnOnce(&Machine) -> Option<String>) -> bool {
        if !self.may_lose(node) {
            return false;
        }
        let Some(what) = harm(&self.machines[node]) else { return false };
        self.tell(Some(node), Told::Fault, || format!("loses {what}"));
        let rot = &mut self.machines[node].rot;
        rot.times += 1;
        rot.is_fresh = true;
        true
    }

    /// The atlas: whether those who are sound without this machine are enough to give back what it loses.
    pub(super) fn may_lose(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        if !self.is_honest(node) || self.is_beyond || machine.rot.is_fresh || machine.rot.times >= HARMS_MAX {
            return false;
        }
        // Who is secluded begins with what its one friend has.
        if self.plan.byzantine.secluded.is_some_and(|secluded| secluded.friend == node) {
            return false;
        }
        if self.plan.members.is_some() {
            return self.may_fall(node) && self.is_held_without(node);
        }
        let is_faulty = |other: usize| other == node || !self.is_honest(other) || self.is_rotten(other) || self.still_misleads(other, node);
        let faulty: u64 = (0..self.plan.powers.len()).filter(|other| is_faulty(*other)).map(|other| self.plan.powers[other]).sum();
        node >= self.plan.powers.len() || 3 * faulty < self.plan.powers.iter().sum::<u64>()
    }

    /// Whether somebody else who is sound has every block. Where power changes hands, those who have it may have come a moment ago and lack
    /// what those without it have alone.
    fn is_held_without(&self, node: usize) -> bool {
        let mut others = (0..self.machines.len()).filter(|other| *other != node && self.is_honest(*other) && !self.is_rotten(*other));
        others.any(|other| self.checks.told(other) >= self.checks.height())
    }

    /// Draws a loss for some validator; now and then the logs of all of them, which nothing gives back.
    pub(super) fn draw_loss(&self, dice: &mut Stream) -> Vec<Fault> {
        let n = self.plan.powers.len();
        let age_ns = dice.between(50, COPY_AGE_MAX / MS) * MS;
        let loss = match dice.below(12) {
            0 => return (0..self.machines.len()).map(|node| Fault::Loss { node, loss: Loss::Log, seed: dice.bits() }).collect(),
            1..=2 => Loss::Guard,
            3..=6 => Loss::GuardCopies,
            _ => Loss::Restored { age_ns },
        };
        vec![Fault::Loss { node: dice.place(n), loss, seed: dice.bits() }]
    }

    /// Takes from a machine what no other copy on it gives back; false where it has none, or others would lack it.
    pub(super) fn lose(&mut self, node: usize, loss: Loss, seed: u64) -> Result<bool, crate::checks::Violation> {
        let copy = match loss {
            Loss::Restored { age_ns } => {
                let is_old = |(made, _): &&(u64, Vec<disk::SimDisk>)| made.saturating_add(age_ns.min(COPY_AGE_MAX)) <= self.now;
                let copy = self.copies.iter().rev().find(is_old).and_then(|(_, disks)| disks.get(node)).cloned();
                let Some(copy) = copy else { return Ok(false) };
                Some(copy)
            }
            _ => None,
        };
        if copy.as_ref().is_some_and(|copy| !self.decided_with_others_since(node, copy)) {
            return Ok(false);
        }
        let machine = &self.machines[node];
        let is_there = machine.life > 0 && !machine.retired && self.is_honest(node);
        // The logs of all may go; of what a validator said, only what the others can do without.
        let may_go = loss == Loss::Log || (machine.key.is_some() && self.may_lose(node));
        if !is_there || !may_go || machine.ailing.lost.is_some() {
            return Ok(false);
        }
        let mut dice = Stream::new(seed, "loss");
        self.cover(Kind::LostCopies, node);
        self.losses += 1;
        let outage = Outage { survival: *dice.pick(&Survival::EACH), seed: dice.bits(), down: dice.between(10 * MS, 900 * MS) };
        if self.machines[node].running.is_some() {
            self.crash(node, outage)?;
        }
        let machine = &mut self.machines[node];
        let disk = &machine.disk;
        match (loss, copy) {
            (Loss::Guard, _) => disk.lose(GUARD),
            (Loss::GuardCopies, _) if dice.chance(500) => disk.cut(GUARD, dice.below(8 << 20)),
            (Loss::GuardCopies, _) => (0..4).for_each(|copy| disk.ruin(GUARD, copy * (4 << 20) / disk::PAGE_BYTES, dice.bits())),
            (Loss::Log, _) => {
                let mut segments = disk.paths();
                segments.retain(|path| path.starts_with(LOG) && path.ends_with(".seg"));
                let first = dice.place(segments.len().max(1));
                segments.iter().skip(first + 1).for_each(|path| disk.lose(path));
                if let Some(path) = segments.get(first) {
                    disk.cut(path, 80 + dice.below(2_000));
                }
                self.is_beyond = true;
            }
            (_, Some(copy)) => {
                disk.roll_back(&copy);
                disk.crash(Survival::All, 0);
            }
            (_, None) => {}
        }
        machine.rot.times += 1;
        machine.rot.is_fresh = true;
        machine.ailing.lost = Some(loss);
        let sent = |signed_at: u64| signed_at + self.plan.job_delay + self.plan.latency.0;
        machine.ailing.unheard = machine.ailing.said.filter(|(at, _)| self.now < sent(*at)).map(|(_, place)| place);
        if machine.ailing.is_restored() {
            self.votes.is_in_doubt(node);
        }
        let machine = &mut self.machines[node];
        if loss != Loss::Log {
            machine.ailing.is_for_good = true;
            machine.rot.until = u64::MAX;
        }
        self.plan_forced();
        Ok(true)
    }

    /// Whether this validator had less than a third of the power at every height since this copy of it was made. What is promised of a
    /// height is promised while those who forget what they said there have less; what power they have now says nothing of it.
    fn decided_with_others_since(&self, node: usize, copy: &disk::SimDisk) -> bool {
        let machine = &self.machines[node];
        let Some(address) = machine.key.as_ref().map(|key| key.public_key().address()) else { return true };
        let from = machine.guard_position_on(copy, self.genesis.hash()).map_or(1, |(height, ..)| height);
        self.checks.sets_from(from).all(|set| {
            let power = set.get(&address).copied().unwrap_or(0);
            3 * power < set.values().sum::<u64>()
        })
    }

    /// A node finds that somebody, with its key, said more than it knows of: rightly, where an old copy was restored.
    pub(super) fn stops_signing(&mut self, node: usize, note: &str) -> Outcome {
        if !self.machines[node].ailing.is_restored() {
            return violation("I4", format!("node {node} takes itself for a clone: {note}"));
        }
        self.clones += 1;
        Ok(())
    }

    /// Copies are made now and then, where some may be restored.
    pub(super) fn begin_copies(&mut self) {
        if self.plan.losses {
            self.first_at(COPIES_NS, What::Copy);
        }
    }

    pub(super) fn copy_disks(&mut self) {
        if self.healed {
            return;
        }
        let disks = self.machines.iter().map(|machine| machine.disk.fork()).collect();
        self.copies.push((self.now, disks));
        let too_old = self.copies.iter().rposition(|(made, _)| made + COPY_AGE_MAX <= self.now).unwrap_or(0);
        self.copies.drain(..too_old);
        self.first_at(self.now + COPIES_NS, What::Copy);
    }

    /// Whether the chain stands still because it must: logs were lost beyond redundancy, and with them every copy of a block that
    /// was committed, so that every validator of the core knows that it may not vote, and why; or every copy of the block that a
    /// validator of the core is locked on, which its guard, kept apart from the log, still says. What a liar still has it need not give.
    /// A guard of the next height says that a block was committed whether anybody was told of it or not: its decision was durable before.
    /// Blocks that are somewhere still are of use to those who have the blocks before them, or can begin with a snapshot: sound, and with
    /// somebody who can show the header above it, for which the validators of its time are needed, which are kept with a log's results.
    pub(super) fn has_reason_to_stand_still(&self) -> bool {
        let honest = || (0..self.machines.len()).filter(|node| self.is_honest(*node));
        let running = || honest().filter_map(|node| self.machines[node].running.as_ref());
        let genesis = self.genesis.hash();
        let begun = honest().filter_map(|node| self.machines[node].guard_position(genesis)).map(|(height, ..)| height).max();
        let decided = self.checks.height().max(begun.unwrap_or(0).saturating_sub(1));
        let is_kept = |height: u64| running().any(|one| one.gives_block(height));
        let leads_on = |from: u64| (from + 1..=decided).all(is_kept);
        let is_shown = |height: u64| running().any(|one| one.shows_header(height));
        let core = self.core.iter().filter_map(|node| self.machines[*node].running.as_ref());
        let lowest = core.map(|one| one.replica.chain().height.get()).min().unwrap_or(0);
        let begins = || running().flat_map(|one| one.snapshots_read_back(&self.snapshot_roots)).map(|(height, _)| height);
        let decided_is_gone = !leads_on(lowest) && !begins().any(|height| leads_on(height) && is_shown(height) && is_shown(height + 1));
        let is_gone = |hash: &lockstep_types::Hash| running().all(|running| !matches!(running.reader.body(&hash.0), Ok(Some(_))));
        let locks = self.core.iter().filter_map(|node| self.machines[*node].running.as_ref()?.replica.consensus().locked());
        let locked_is_gone = || locks.clone().any(|polka| is_gone(&polka.block_id.hash));
        self.is_beyond && (decided_is_gone || locked_is_gone())
    }

    /// A start begins: what happened to the disk before it is no excuse in it.
    pub(super) fn begin_start(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.ailing.has_failed = false;
        machine.ailing.before = machine.disk.tally();
        machine.ailing.first_operation = machine.disk.operations();
    }

    /// A start is done, which healed something or nothing. Whether it was after a loss, with which it had to deal: what it said and told
    /// before rests on that.
    pub(super) fn begin_life(&mut self, node: usize, healed: bool) -> bool {
        let told = self.checks.told(node);
        let genesis = self.genesis.hash();
        let machine = &mut self.machines[node];
        if node == self.watched && machine.life > 0 {
            self.longest_start = self.longest_start.max(machine.disk.operations() - machine.ailing.first_operation);
        }
        // A disk that lies goes on losing whatever process uses it.
        let has_lost = std::mem::replace(&mut machine.rot.is_fresh, machine.disk.is_lying());
        // Or it met now what it lost long ago, and no start before had need of; a memory that failed may be what has need of it.
        if has_lost || healed || machine.rot.until == u64::MAX {
            let said = machine.guard_position(genesis).unwrap_or_default();
            machine.rot.said_before = machine.rot.said_before.max(said);
            machine.rot.until = machine.rot.until.max(told).max(said.0);
        }
        has_lost
    }

    /// A store said that the disk failed. If it did, the node is told, and must halt.
    pub(super) fn disk_failed(&mut self, node: usize, reason: String) -> Outcome {
        if self.machines[node].disk.is_stopped() {
            return self.stopped(node);
        }
        if !self.is_ailing(node) {
            return violation("I18", format!("node {node}: the disk refuses, and nothing is wrong with it: {reason}"));
        }
        if std::mem::replace(&mut self.machines[node].ailing.has_failed, true) {
            return Ok(());
        }
        self.tell(Some(node), Told::Note, || format!("hears that its disk failed: {reason}"));
        let life = self.machines[node].life;
        self.input(node, life, Input::DiskFailed { reason })?;
        if self.machines[node].life == life && self.machines[node].running.is_some() {
            return violation("I18", format!("node {node} goes on after its disk failed"));
        }
        Ok(())
    }

    /// The disk failed while no replica runs that could be told: the process ends with that, and somebody starts it again.
    pub(super) fn ends_for_disk(&mut self, node: usize, reason: &str) -> Outcome {
        if self.machines[node].disk.is_stopped() {
            return self.stopped(node);
        }
        if !self.is_ailing(node) {
            return violation("I18", format!("node {node}: the disk refuses, and nothing is wrong with it: {reason}"));
        }
        self.machines[node].ailing.has_failed = true;
        self.tell(Some(node), Told::Note, || format!("ends because its disk failed: {reason}"));
        self.halts(node, &format!("the disk failed: {reason}; start it again"))
    }

    /// Whether something happened to the disk in this life.
    pub(super) fn is_ailing(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        let (now, before) = (machine.disk.tally(), machine.ailing.before);
        let failures = |tally: Tally| tally.failed_writes + tally.failed_syncs + tally.failed_reads + tally.refused;
        machine.rot.is_fresh || failures(now) > failures(before)
    }

    /// After its disk failed a node must say nothing more.
    pub(super) fn check_silent(&self, node: usize) -> Outcome {
        if self.machines[node].ailing.has_failed {
            return violation("order 0", format!("node {node} signs after its disk failed"));
        }
        Ok(())
    }

    /// A node halts: rightly, if its disk failed. Somebody starts it again; half of them after the machine lost power too.
    pub(super) fn halts(&mut self, node: usize, reason: &str) -> Outcome {
        if let Some(outcome) = self.distrusts(node, reason) {
            return outcome;
        }
        if !self.machines[node].ailing.has_failed {
            let is_told = self.is_honest(node) && !self.is_over();
            return if is_told { violation("I18", format!("node {node} halts: {reason}")) } else { Ok(()) };
        }
        if !reason.contains("the disk failed: ") || !reason.contains("start it again") {
            return violation("I18", format!("node {node} halts and does not say why: {reason}"));
        }
        self.halts += 1;
        let mut dice = Stream::new(self.machines[node].ailing.seed, "halt");
        let outage = Outage { survival: *dice.pick(&Survival::EACH), seed: dice.bits(), down: dice.between(10 * MS, 1_500 * MS) };
        if dice.chance(500) { self.crash(node, outage) } else { self.process_ends(node, outage.down) }
    }

    /// A start failed. If the disk is to blame it is tried again, and what cannot be read is saved as far as it goes.
    pub(super) fn start_failed(&mut self, node: usize, reason: &str) -> Outcome {
        if self.machines[node].disk.is_stopped() {
            return self.stopped(node);
        }
        let (now, before) = (self.machines[node].disk.tally(), self.machines[node].ailing.before);
        let failures = |tally: Tally| tally.failed_writes + tally.failed_syncs + tally.failed_reads + tally.refused;
        if self.machines[node].ailing.lost == Some(Loss::Guard) && reason.contains("guard") && reason.contains("missing") {
            // Rightly: who does not know what it signed signs nothing, and says so.
            self.tell(Some(node), Told::Note, || format!("does not start: {reason}"));
            self.refused_starts += 1;
            self.machines[node].retired = true;
            return Ok(());
        }
        if failures(now) == failures(before) {
            return violation("I5", format!("node {node} does not start from its disk: {reason}"));
        }
        self.tell(Some(node), Told::Note, || format!("does not start: {reason}"));
        self.refused_starts += 1;
        let machine = &mut self.machines[node];
        let pages = machine.disk.salvage();
        self.tell(Some(node), Told::Note, || format!("{pages} pages could not be saved"));
        // A page that was lost long ago, and that no start had need of, is one with which the next start deals. Where nothing was lost
        // the start failed of something that passes, and a node that came back long since is no less sound for it.
        self.machines[node].rot.is_fresh |= pages > 0;
        self.process_ends(node, STARTED_AGAIN_NS)
    }

    /// The process ends, and the kernel lives on.
    pub(super) fn process_ends(&mut self, node: usize, down: u64) -> Outcome {
        self.goes_down(node, down, |disk| disk.kill())
    }

    /// Does an effect, unless it waits for room on the disk, or waits behind one that does.
    pub(super) fn perform(&mut self, node: usize, effect: Effect) -> Outcome {
        let Some(running) = self.machines[node].running.as_mut() else { return Ok(()) };
        match effect {
            // Behind what waits already.
            Effect::Sign { .. } if running.room.is_lacking() || !running.room.unsigned.is_empty() => {
                running.room.unsigned.push_back(effect);
                Ok(())
            }
            Effect::Report { report: Report::Committed { .. }, .. } => {
                running.room.news.push_back(effect);
                // Those who wait are looked at when their time comes.
                if running.room.news.len() > 1 { Ok(()) } else { self.publish(node) }
            }
            // The shell tells its readers of a block before it answers who waited for it.
            Effect::Reply { .. } if !running.room.news.is_empty() => {
                running.room.news.push_back(effect);
                Ok(())
            }
            effect => self.perform_now(node, effect),
        }
    }

    /// Tells of the blocks that wait, in order, as far as there is room for their results; then signs what waited.
    pub(super) fn publish(&mut self, node: usize) -> Outcome {
        let life = self.machines[node].life;
        while let Some(running) = self.alive(node, life) {
            let Some(effect) = running.room.news.pop_front() else { break };
            match running.keeps(&effect) {
                Ok(true) => self.perform_now(node, effect)?,
                Ok(false) => {
                    running.room.news.push_front(effect);
                    self.after(LOOK_NS, What::News { node, life });
                    return Ok(());
                }
                Err(reason) => return self.disk_failed(node, reason),
            }
        }
        self.sign_what_waited(node)
    }

    fn sign_what_waited(&mut self, node: usize) -> Outcome {
        let life = self.machines[node].life;
        while let Some(running) = self.alive(node, life).filter(|running| !running.room.is_lacking()) {
            let Some(effect) = running.room.unsigned.pop_front() else { break };
            self.perform_now(node, effect)?;
        }
        Ok(())
    }

    /// The log's thread: appends what waits, syncs once, answers for all of it, and makes the next segment ahead of time.
    pub(super) fn log_sync(&mut self, node: usize, life: u64) -> Outcome {
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        if let Err(reason) = running.append_waiting() {
            return self.disk_failed(node, reason);
        }
        if running.room.lacks_record() {
            self.after(LOOK_NS, What::LogSync { node, life });
            return Ok(());
        }
        if !running.unsynced.is_empty() {
            match running.sync() {
                Ok(tickets) => tickets.into_iter().try_for_each(|ticket| self.input(node, life, Input::Durable { ticket }))?,
                Err(reason) => return self.disk_failed(node, reason),
            }
        }
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        if let Err(reason) = running.preallocate() {
            return self.disk_failed(node, reason);
        }
        if running.room.is_lacking() {
            self.after(LOOK_NS, What::LogSync { node, life });
            return Ok(());
        }
        self.sign_what_waited(node)
    }

    /// There is room again on a disk.
    pub(super) fn room(&mut self, node: usize) {
        if self.machines[node].ailing.full_until <= self.now {
            self.machines[node].disk.set_full(false);
        }
    }

    /// A disk that lied loses power: what it promised shows now.
    pub(super) fn lie_ends(&mut self, node: usize, outage: Outage) -> Outcome {
        let machine = &self.machines[node];
        machine.disk.set_lying(None);
        if machine.running.is_some() {
            return self.crash(node, outage);
        }
        machine.disk.crash(outage.survival, outage.seed);
        Ok(())
    }

    /// The faults end: every disk works again, and what was to be synced is, or will be when a disk that stood still would have gone on.
    pub(super) fn mend_disk(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.disk.mend();
        machine.owes_until = machine.owes_until.max(std::mem::replace(&mut machine.ailing.stalled_until, self.now));
        machine.ailing.full_until = self.now;
        machine.disk.salvage();
    }
}

/// Changes a bit or a page of a file, or makes a page of it unreadable, whoever uses it. Never more of the guard than one of its
/// four copies. What was done.
fn decay(machine: &Machine, dice: &mut Stream, is_lost: bool) -> Option<String> {
    let disk = &machine.disk;
    let files: Vec<String> = disk.paths().into_iter().filter(|path| !path.starts_with(DAMAGED)).collect();
    if files.is_empty() {
        return None;
    }
    let path = dice.pick(&files).clone();
    let (len, used) = disk.extent(&path).filter(|(_, used)| *used > 0)?;
    // The head of one copy of the guard, or any byte of another file that is in use.
    let at = if path == GUARD { dice.below(4) * (4 << 20) + dice.below(700) } else { dice.below(used) };
    if at >= len {
        return None;
    }
    let page = at / disk::PAGE_BYTES;
    Some(if is_lost {
        disk.lose_page(&path, page);
        format!("page {page} of {path}, which cannot be read any more")
    } else if dice.chance(500) {
        disk.rot(&path, at, 1 << dice.below(8));
        format!("byte {at} of {path}, while it runs")
    } else {
        disk.ruin(&path, page, dice.bits());
        format!("page {page} of {path}, while it runs")
    })
}
