//! Which faults the dice of a cause give: what [`World::wake`] asks for, and [`World::strike`] puts upon the run.

use lockstep_types::Round;

use super::World;
use super::faults::Cause;
use crate::disk::{Survival, When};
use crate::plan::{Hushed, MS};
use crate::random::Stream;
use crate::schedule::{Fault, Shape};

/// Faults that the dice of a cause gave, each so long from now, and when they are rolled again.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) again: Option<u64>,
}

impl World {
    pub(super) fn draw(&self, cause: Cause, dice: &mut Stream) -> Drawn {
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
                let lasts_ns = lasts(dice, 50 * MS, 2_500 * MS, 20_000 * MS);
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
                let fault = Fault::Freeze { node: dice.place(n), lasts_ns: lasts(dice, 10 * MS, 3_000 * MS, 120_000 * MS) };
                once(fault, dice.between(50 * MS, 2_000 * MS))
            }
            Cause::Hushes => draw_hush(n, dice),
            Cause::Hunts => self.draw_hunt(dice),
            Cause::Losses => {
                let faults = self.draw_loss(dice).into_iter().map(|fault| (0, fault)).collect();
                Drawn { faults, again: Some(dice.between(1_000 * MS, 6_000 * MS)) }
            }
            Cause::Troubles => {
                let fault = self.draw_trouble(dice);
                once(fault, dice.between(50 * MS, 1_500 * MS))
            }
            Cause::Clogs => draw_clog(n, dice),
            Cause::Eclipses => {
                let node = dice.place(n);
                let slots = dice.below(3);
                let mut others: Vec<usize> = (0..n).filter(|other| *other != node).collect();
                let mut keeps = Vec::new();
                while (keeps.len() as u64) < slots && !others.is_empty() {
                    keeps.push(others.swap_remove(dice.place(others.len())));
                }
                let fault = Fault::Eclipse { node, keeps, lasts_ns: lasts(dice, 100 * MS, 3_000 * MS, 20_000 * MS) };
                once(fault, dice.between(200 * MS, 4_000 * MS))
            }
            Cause::Churn => {
                let node = self.plan.powers.len() + dice.place(self.plan.followers);
                let fault = Fault::Leave { node, down_ns: lasts(dice, 10 * MS, 2_000 * MS, 20_000 * MS), anew: dice.chance(500) };
                once(fault, dice.between(200 * MS, 4_000 * MS))
            }
            Cause::Heal => {
                let core: Vec<usize> = self.choose_core(dice).into_iter().collect();
                let most = self.plan.honest_offset();
                let offsets_ns = core.iter().map(|_| i64::try_from(dice.below(most + 1)).expect("offsets are small")).collect();
                Drawn { faults: vec![(0, Fault::Heal { core, offsets_ns, seed: dice.bits() })], again: None }
            }
            Cause::Members => {
                let faults = self.draw_asks(dice).into_iter().map(|(delay, node, ask)| (delay, Fault::Ask { node, ask })).collect();
                Drawn { faults, again: Some(dice.between(20 * MS, 500 * MS)) }
            }
            Cause::Replacements => {
                let node = dice.place(n);
                let fault = match dice.chance(600) {
                    true => Fault::Replace { node, down_ns: down(dice), named: dice.chance(700) },
                    false => Fault::Away { node, down_ns: dice.between(1_000 * MS, 9_000 * MS) },
                };
                once(fault, dice.between(500 * MS, 5_000 * MS))
            }
            Cause::Divergences => once(self.draw_divergence(dice), dice.between(300 * MS, 3_000 * MS)),
            Cause::Rots | Cause::StartStops => Drawn::default(),
        }
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
        let alone =
            |node: usize| (0..n).filter(move |other| *other != node).flat_map(move |other| [(node, other), (other, node)]).collect();
        let (shape, links): (Shape, Vec<(usize, usize)>) = match dice.below(10) {
            0 => return None,
            1 => (Shape::Alone, alone(dice.place(n))),
            2 | 3 => (Shape::Proposer, alone(self.next_proposer(dice)?)),
            4 => {
                // In an order of their own.
                let mut left: Vec<usize> = (0..n).collect();
                let ring: Vec<usize> = (0..n).map(|_| left.swap_remove(dice.place(left.len()))).collect();
                let is_near = |a: usize, b: usize| a.abs_diff(b) == 1 || a.abs_diff(b) == n - 1;
                let all = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
                (Shape::Ring, all.filter(|(a, b)| a != b && !is_near(*a, *b)).map(|(a, b)| (ring[a], ring[b])).collect())
            }
            5 => {
                let bridge = dice.place(n);
                let sides: Vec<bool> = (0..n).map(|_| dice.chance(500)).collect();
                let all = (0..n).flat_map(|a| (0..n).map(move |b| (a, b)));
                (Shape::Bridge, all.filter(|(a, b)| *a != bridge && *b != bridge && sides[*a] != sides[*b]).collect())
            }
            6 => {
                let deaf = dice.place(n);
                (Shape::Deaf, (0..n).filter(|other| *other != deaf).map(|other| (other, deaf)).collect())
            }
            7 => {
                let mute = dice.place(n);
                (Shape::Mute, (0..n).filter(|other| *other != mute).map(|other| (mute, other)).collect())
            }
            8 => {
                let sides: Vec<bool> = (0..n).map(|_| dice.chance(500)).collect();
                let others = |a: usize| (0..n).map(move |b| (a, b));
                (Shape::Split, (0..n).flat_map(others).filter(|(a, b)| sides[*a] != sides[*b]).collect())
            }
            _ => (Shape::OneWay, vec![(dice.place(n), dice.place(n))]),
        };
        // From 50 ms to 10 s, each order of magnitude as likely as another.
        let flap_ns = if dice.chance(250) { ((50 * MS) << dice.below(8)) + dice.below(50 * MS) } else { 0 };
        Some(Fault::Cut { shape, links, lasts_ns, flap_ns })
    }

    /// Who proposes in the round in which the highest node is, or in the one after.
    fn next_proposer(&self, dice: &mut Stream) -> Option<usize> {
        let replicas = self.machines.iter().filter_map(|machine| machine.running.as_ref()).map(|running| &running.replica);
        let highest = replicas.max_by_key(|replica| (replica.height(), replica.consensus().round()))?;
        let is_there = highest.consensus().height() == highest.height();
        let round = if is_there { highest.consensus().round() } else { Round::ZERO };
        let round = if dice.chance(500) { round } else { round.next() };
        let validators = &highest.chain().validators;
        let address = validators.get(validators.proposer(round)).map(|validator| validator.address);
        self.machines.iter().position(|machine| machine.key.as_ref().map(|key| key.public_key().address()) == address)
    }
}

/// How long a machine is down.
pub(super) fn down(dice: &mut Stream) -> u64 {
    lasts(dice, 10 * MS, 1_500 * MS, 20_000 * MS)
}

/// Mostly from `low` to `high`, and now and then up to far more.
fn lasts(dice: &mut Stream, low: u64, high: u64, far: u64) -> u64 {
    if dice.chance(50) { dice.between(high, far) } else { dice.between(low, high) }
}

/// One link, or all links of some nodes: those begin one after the other, and end in an order of their own.
fn draw_clog(n: usize, dice: &mut Stream) -> Drawn {
    let again = Some(dice.between(100 * MS, 3_000 * MS));
    if dice.chance(500) {
        let links = vec![(dice.place(n), dice.place(n))];
        return Drawn { faults: vec![(0, Fault::Clog { swizzled: false, links, lasts_ns: dice.between(0, 5_000 * MS) })], again };
    }
    let mut faults = Vec::new();
    for node in 0..n {
        if dice.chance(500) {
            continue;
        }
        let links = (0..n).filter(|other| *other != node).flat_map(|other| [(node, other), (other, node)]).collect();
        let begins = dice.below(1_500 * MS);
        faults.push((begins, Fault::Clog { swizzled: true, links, lasts_ns: dice.between(0, 5_000 * MS) }));
    }
    Drawn { faults, again }
}

/// A machine stops at one of its disk's next operations.
pub(super) fn disk_stop(node: usize, within: u64, dice: &mut Stream) -> Fault {
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
