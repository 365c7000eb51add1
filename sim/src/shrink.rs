//! Making a failure small: the schedule of a run that fails, with everything taken out that it fails without.
//!
//! Faults go first, by halves and then one by one (delta debugging), then what the plan says of links, disks, clocks and
//! liars, then nodes, then length, then the strength of each fault that is left. Every candidate is run, and is better only
//! if it breaks the same invariant: so what is left shows the failure that was found, and nothing else.

use crate::disk::Survival;
use crate::narrow::{self, ORDER};
use crate::plan::{Hushed, MS};
use crate::schedule::{Fault, Schedule, Timed};

/// Runs of one search, at most.
pub(crate) const REPLAYS_MAX: u32 = 2_000;
/// Seconds of one search, at most.
pub(crate) const SECONDS_MAX: u64 = 300;

/// A search for the smallest.
pub(crate) struct Shrinker<'a> {
    /// Whether a candidate breaks the invariant.
    fails: &'a mut dyn FnMut(&Schedule) -> bool,
    /// Whether there is time for one more.
    may_go_on: &'a mut dyn FnMut() -> bool,
    best: Schedule,
    replays: u32,
}

/// The smallest that was found, and how many runs that took.
pub(crate) fn shrink(whole: &Schedule, fails: &mut dyn FnMut(&Schedule) -> bool, may_go_on: &mut dyn FnMut() -> bool) -> (Schedule, u32) {
    let mut shrinker = Shrinker { fails, may_go_on, best: whole.clone(), replays: 0 };
    loop {
        let before = shrinker.best.clone();
        shrinker.fewer_faults();
        shrinker.less_in_the_plan();
        shrinker.fewer_nodes();
        shrinker.shorter();
        shrinker.weaker();
        // A second time, since what one thing was needed for may be gone with another.
        if shrinker.best == before || !shrinker.has_time() {
            return (shrinker.best, shrinker.replays);
        }
    }
}

impl Shrinker<'_> {
    fn has_time(&mut self) -> bool {
        self.replays < REPLAYS_MAX && (self.may_go_on)()
    }

    /// Takes a candidate if it fails too.
    fn takes(&mut self, candidate: Schedule) -> bool {
        if candidate == self.best || !self.has_time() {
            return false;
        }
        self.replays += 1;
        let fails = (self.fails)(&candidate);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn edited(&mut self, edit: impl FnOnce(&mut Schedule)) -> bool {
        let mut candidate = self.best.clone();
        edit(&mut candidate);
        self.takes(candidate)
    }

    fn fewer_faults(&mut self) {
        let mut size = self.best.faults.len();
        while size > 0 {
            let mut at = 0;
            let mut removed = false;
            while at < self.best.faults.len() {
                let end = (at + size).min(self.best.faults.len());
                if self.edited(|schedule| drop(schedule.faults.drain(at..end))) {
                    removed = true;
                } else {
                    at = end;
                }
                if !self.has_time() {
                    return;
                }
            }
            // At the end each is tried once more after any of them went.
            size = if size == 1 && removed { 1 } else { size / 2 };
        }
    }

    fn less_in_the_plan(&mut self) {
        for (kind, _) in ORDER {
            self.edited(|schedule| narrow::take_away(kind, &mut schedule.plan));
        }
    }

    fn fewer_nodes(&mut self) {
        while self.best.plan.powers.len() > 1 && self.best.plan.followers == 0 && self.best.plan.twins.is_none() {
            // A liar stays, since `less_in_the_plan` could not do without it.
            let last = self.best.plan.powers.len() - 1;
            if self.best.plan.lies(last) || !self.edited(without_last_node) {
                return;
            }
        }
    }

    fn shorter(&mut self) {
        // Not every shorter time fails where a longer one does, so this finds a short one, and not surely the shortest.
        let (mut low, mut high) = (0, self.best.plan.chaos / MS);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.edited(|schedule| end_at(schedule, middle * MS)) { high = middle } else { low = middle + 1 }
        }
        for blocks in [1, 2, 5] {
            if self.best.plan.settle_blocks <= blocks || self.edited(|schedule| schedule.plan.settle_blocks = blocks) {
                break;
            }
        }
        while self.best.plan.tx_interval < 10_000 * MS && self.edited(|schedule| schedule.plan.tx_interval *= 4) {}
    }

    /// Each fault that is left as weak as it may be.
    fn weaker(&mut self) {
        for place in 0..self.best.faults.len() {
            for weaken in [forgive as fn(&mut Fault), wake_early, last_less] {
                while self.edited(|schedule| weaken(&mut schedule.faults[place].fault)) {}
            }
            let width = width(&self.best.faults[place].fault);
            for part in (0..width).rev() {
                self.edited(|schedule| leave_out(&mut schedule.faults[place].fault, part));
            }
        }
    }
}

/// All unsynced writes survive.
fn forgive(fault: &mut Fault) {
    match fault {
        Fault::Crash { survival, .. } | Fault::PowerCut { survival, .. } | Fault::DiskStop { survival, .. } => *survival = Survival::All,
        _ => {}
    }
}

/// Machines come back at once.
fn wake_early(fault: &mut Fault) {
    const SHORT: u64 = 10 * MS;
    match fault {
        Fault::Crash { down_ns, .. } | Fault::DiskStop { down_ns, .. } | Fault::Replace { down_ns, .. } | Fault::Away { down_ns, .. } => {
            *down_ns = (*down_ns).min(SHORT)
        }
        Fault::PowerCut { down_ns, .. } => down_ns.iter_mut().for_each(|down| *down = (*down).min(SHORT)),
        _ => {}
    }
}

/// What lasts, lasts half as long, down to a millisecond.
fn last_less(fault: &mut Fault) {
    match fault {
        Fault::Freeze { lasts_ns, .. }
        | Fault::Hush { lasts_ns, .. }
        | Fault::Cut { lasts_ns, .. }
        | Fault::Clog { lasts_ns, .. }
        | Fault::Eclipse { lasts_ns, .. }
            if *lasts_ns > 2 * MS =>
        {
            *lasts_ns /= 2;
        }
        _ => {}
    }
}

/// Of how many parts a fault is.
fn width(fault: &Fault) -> usize {
    match fault {
        Fault::Hush { nodes, .. } => nodes.len(),
        Fault::Cut { links, .. } | Fault::Clog { links, .. } => links.len(),
        _ => 0,
    }
}

fn leave_out(fault: &mut Fault, part: usize) {
    match fault {
        Fault::Hush { nodes, .. } if nodes.len() > 1 => drop(nodes.remove(part)),
        Fault::Cut { links, .. } | Fault::Clog { links, .. } if links.len() > 1 => drop(links.remove(part)),
        _ => {}
    }
}

/// The faults end no later than this.
fn end_at(schedule: &mut Schedule, chaos: u64) {
    schedule.plan.chaos = schedule.plan.chaos.min(chaos);
    schedule.faults.retain_mut(|timed| match timed.fault {
        Fault::Heal { .. } => {
            timed.at_ns = timed.at_ns.min(chaos);
            true
        }
        _ => timed.at_ns < chaos,
    });
}

/// Without the validator of the highest number, and whatever happened to it.
fn without_last_node(schedule: &mut Schedule) {
    schedule.plan.powers.pop();
    let n = schedule.plan.powers.len();
    schedule.faults.retain_mut(|Timed { fault, .. }| match fault {
        Fault::Crash { node, .. }
        | Fault::DiskStop { node, .. }
        | Fault::Rot { node, .. }
        | Fault::Disk { node, .. }
        | Fault::Loss { node, .. }
        | Fault::Diverge { node, .. }
        | Fault::Freeze { node, .. }
        | Fault::ClockStep { node, .. }
        | Fault::Leave { node, .. }
        | Fault::Replace { node, .. }
        | Fault::Away { node, .. }
        | Fault::Ask { node, .. } => *node < n,
        Fault::Reset { a, b } => *a < n && *b < n,
        Fault::PowerCut { down_ns, .. } => {
            down_ns.truncate(n);
            true
        }
        Fault::Hush { nodes, kind, .. } => {
            nodes.retain(|node| *node < n);
            !nodes.is_empty() && !matches!(kind, Hushed::PrevotesOf(voter) if *voter >= n)
        }
        Fault::Eclipse { node, keeps, .. } => {
            keeps.retain(|kept| *kept < n);
            *node < n
        }
        Fault::Cut { links, .. } | Fault::Clog { links, .. } => {
            links.retain(|(from, to)| *from < n && *to < n);
            !links.is_empty()
        }
        Fault::Heal { core, offsets_ns, .. } => {
            offsets_ns.truncate(core.len());
            let kept: Vec<(usize, i64)> = core.iter().copied().zip(offsets_ns.iter().copied()).filter(|(node, _)| *node < n).collect();
            (*core, *offsets_ns) = kept.into_iter().unzip();
            // A core that lost a member may be none any more: then the run draws its own.
            3 * core.iter().map(|node| schedule.plan.powers[*node]).sum::<u64>() > 2 * schedule.plan.powers.iter().sum::<u64>()
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    fn crash(at_ms: u64, node: usize) -> Timed {
        let fault = Fault::Crash { node, survival: Survival::Random, seed: 1, down_ns: 700 * MS };
        Timed { at_ns: at_ms * MS, fault }
    }

    /// A schedule with a hundred faults, of which two matter.
    fn whole() -> Schedule {
        let mut plan = Plan::quiet();
        (plan.powers, plan.loss, plan.chaos, plan.followers) = (vec![10; 7], 300, 8_000 * MS, 1);
        let mut faults: Vec<Timed> = (0..98).map(|number| crash(50 * number, usize::try_from(number % 7).expect("small"))).collect();
        let links = vec![(0, 1), (1, 0), (2, 1)];
        let shape = crate::schedule::Shape::Split;
        faults.push(Timed { at_ns: 4_901 * MS, fault: Fault::Cut { shape, links, lasts_ns: 900 * MS, flap_ns: 0 } });
        faults.push(Timed { at_ns: 7_000 * MS, fault: Fault::Heal { core: vec![0, 1, 2, 3, 4], offsets_ns: vec![0; 5], seed: 3 } });
        Schedule { seed: 7, plan, faults }
    }

    /// It fails where node 0 crashes at 350 ms, node 1 later does not hear node 2 for 100 ms, and frames are lost.
    fn fails(schedule: &Schedule) -> bool {
        let crashed = schedule.faults.iter().any(|timed| timed.at_ns == 350 * MS && matches!(timed.fault, Fault::Crash { node: 0, .. }));
        let cut = |fault: &Fault| matches!(fault, Fault::Cut { links, lasts_ns, .. } if links.contains(&(2, 1)) && *lasts_ns >= 100 * MS);
        crashed && schedule.faults.iter().any(|timed| cut(&timed.fault)) && schedule.plan.loss > 0
    }

    #[test]
    fn what_is_left_fails_and_has_nothing_that_it_can_do_without() {
        let whole = whole();
        assert!(fails(&whole));
        let (small, replays) = shrink(&whole, &mut |schedule| fails(schedule), &mut || true);
        assert!(fails(&small) && replays <= REPLAYS_MAX, "{replays} replays");
        assert_eq!(small.faults.len(), 2, "{:#?}", small.faults);
        let Fault::Crash { node: 0, survival: Survival::All, down_ns, .. } = small.faults[0].fault else { panic!("{small:?}") };
        assert_eq!(down_ns, 10 * MS);
        let Fault::Cut { links, lasts_ns, .. } = &small.faults[1].fault else { panic!("{small:?}") };
        assert_eq!((&links[..], *lasts_ns / MS), (&[(2, 1)][..], 112));
        assert_eq!((small.plan.powers.len(), small.plan.followers, small.plan.settle_blocks), (3, 0, 1));
    }

    #[test]
    fn a_search_ends_when_its_time_is_over() {
        let mut left = 10;
        let mut may = || {
            left -= 1;
            left > 0
        };
        let (small, replays) = shrink(&whole(), &mut |schedule| fails(schedule), &mut may);
        assert!(fails(&small) && replays < 10);
    }
}
