//! Less of what a seed draws.
//!
//! A seed draws many kinds of faults at once, and most have nothing to do with what failed. Each kind is drawn from a stream of
//! its own or is a number of the plan, so one can be taken away and the rest stays much as it was. What is left when nothing
//! more can be taken away, and faults end as early as they may, is what a person reads.

use std::fmt;
use std::str::FromStr;

use crate::liars::Byzantine;
use crate::plan::{MS, Plan};

/// A kind of fault, by which a plan is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Slow links.
    Latency,
    /// Frames that are lost.
    Loss,
    /// Frames that come twice.
    Duplication,
    /// Connections that end and begin again.
    Resets,
    /// Nodes that do not hear each other.
    Partitions,
    /// Kinds of messages that some do not get.
    Hushes,
    /// Nodes that alone come to lock a block, and crash.
    Hunts,
    /// Crashes of one node.
    Crashes,
    /// Crashes of all nodes at once.
    CrashAll,
    /// Crashes in the middle of an operation of the disk.
    DiskStops,
    /// Machines that stand still.
    Freezes,
    /// Files that rot.
    Rot,
    /// Disks that fail.
    DiskTroubles,
    /// Losses of what no copy gives back.
    Losses,
    /// Memories that fail.
    Divergences,
    /// Clocks that are off.
    Clocks,
    /// Clocks that jump.
    ClockSteps,
    /// Slow disks.
    SlowDisks,
    /// Slow jobs.
    SlowJobs,
    /// The liar: an honest validator stands in its place.
    Liar,
    /// One key in two nodes.
    Twins,
    /// Validators who come and go.
    Members,
    /// Nodes that only follow.
    Followers,
    /// Nodes that stay broken after the heal.
    BrokenRest,
}

/// The order in which kinds are taken away: those that change most of a run first.
pub(crate) const ORDER: [(Fault, &str); 24] = [
    (Fault::Liar, "liar"),
    (Fault::Twins, "twins"),
    (Fault::Rot, "rot"),
    (Fault::DiskTroubles, "disk-troubles"),
    (Fault::Losses, "losses"),
    (Fault::Divergences, "divergences"),
    (Fault::DiskStops, "disk-stops"),
    (Fault::CrashAll, "crash-all"),
    (Fault::Crashes, "crashes"),
    (Fault::Freezes, "freezes"),
    (Fault::Partitions, "partitions"),
    (Fault::Hushes, "hushes"),
    (Fault::Hunts, "hunts"),
    (Fault::Resets, "resets"),
    (Fault::Loss, "loss"),
    (Fault::Duplication, "duplication"),
    (Fault::ClockSteps, "clock-steps"),
    (Fault::Clocks, "clocks"),
    (Fault::Members, "members"),
    (Fault::Followers, "followers"),
    (Fault::BrokenRest, "broken-rest"),
    (Fault::SlowDisks, "slow-disks"),
    (Fault::SlowJobs, "slow-jobs"),
    (Fault::Latency, "latency"),
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = ORDER.iter().find(|(fault, _)| fault == self).expect("each has a name");
        f.write_str(name)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ORDER.iter().find(|(_, name)| *name == text).map(|(fault, _)| *fault).ok_or_else(|| {
            let names: Vec<&str> = ORDER.iter().map(|(_, name)| *name).collect();
            format!("{text:?} is no kind of fault: one of {}", names.join(", "))
        })
    }
}

/// What is left of a seed's plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Narrow {
    /// Kinds of faults that do not happen.
    pub without: Vec<Fault>,
    /// Faults end after this many milliseconds, if they would not before.
    pub chaos_ms: Option<u64>,
}

impl fmt::Display for Narrow {
    /// As flags of the command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(Fault::to_string).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        self.chaos_ms.map_or(Ok(()), |ms| write!(f, " --chaos-ms {ms}"))
    }
}

impl Narrow {
    /// The plan with less in it.
    pub(crate) fn apply(&self, mut plan: Plan) -> Plan {
        self.without.iter().for_each(|fault| take_away(*fault, &mut plan));
        plan.chaos = self.chaos_ms.map_or(plan.chaos, |ms| plan.chaos.min(ms.saturating_mul(MS)));
        plan
    }
}

pub(crate) fn take_away(fault: Fault, plan: &mut Plan) {
    match fault {
        Fault::Latency => plan.latency = Plan::sweep().latency,
        Fault::Loss => plan.loss = 0,
        Fault::Duplication => plan.duplication = 0,
        Fault::Resets => plan.resets = false,
        Fault::Partitions => plan.partitions = false,
        Fault::Hushes => plan.hushes = false,
        Fault::Hunts => plan.hunts = false,
        Fault::Crashes => plan.crashes = false,
        Fault::CrashAll => plan.crash_all = false,
        Fault::DiskStops => plan.disk_stops = false,
        Fault::Freezes => plan.freezes = false,
        Fault::Rot => plan.rots = false,
        Fault::DiskTroubles => plan.disk_troubles = false,
        Fault::Losses => plan.losses = false,
        Fault::Divergences => plan.divergences = false,
        Fault::Clocks => plan.clock_offset = 0,
        Fault::ClockSteps => plan.clock_steps = false,
        Fault::SlowDisks => plan.disk_delay = MS,
        Fault::SlowJobs => plan.job_delay = MS / 5,
        Fault::Liar => plan.byzantine = Byzantine::default(),
        Fault::Twins => plan.twins = None,
        Fault::Members => plan.members = None,
        Fault::Followers => plan.followers = 0,
        Fault::BrokenRest => plan.leave_rest_broken = false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_is_left() {
        let narrow = Narrow { without: vec![Fault::CrashAll, Fault::Rot], chaos_ms: Some(12) };
        assert_eq!(narrow.to_string(), " --without crash-all,rot --chaos-ms 12");
        assert_eq!("crash-all".parse(), Ok(Fault::CrashAll));
        assert!("crash".parse::<Fault>().is_err());
    }
}
