//! What a run came to: its end, and the sum of it.

use sha2::Digest as _;

use super::{Outcome, Tally, World, violation};
use crate::checks::Violation;
use crate::coverage::Coverage;
use crate::disk;
use crate::schedule::Schedule;
use crate::trace::Line;

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report1 {
    pub(crate) simulated_ns: u64,
    pub(crate) events: u64,
    pub(crate) height: u64,
    pub(crate) acknowledged: usize,
    pub(crate) crashes: u64,
    /// Files that were damaged and made whole.
    pub(crate) heals: u64,
    /// Memories that failed, and states that were found wrong and healed.
    pub(crate) astray: (u64, u64),
    /// Most heights that one node told of before its state was found wrong.
    pub(crate) most_wrong: usize,
    pub(crate) views: u64,
    /// Answers to clients that were compared with the chain.
    pub(crate) reads: u64,
    /// Rounds that honest proposers led after the faults had ended, and those of them that decided.
    pub(crate) led: (u64, u64),
    /// Effects that the first node performed: the boundaries of a sweep.
    pub(crate) effects: u64,
    /// The first node's disk: operations before it started, and at the end.
    pub(crate) operations: (u64, u64),
    /// Of all disks.
    pub(crate) disk_operations: u64,
    /// Operations of the longest start of that node after its first.
    pub(crate) longest_start: u64,
    /// Machines that lost power while they started.
    pub(crate) crashes_while_starting: u64,
    /// Nodes that halted because their disk failed.
    pub(crate) halts: u64,
    /// By node: blocks that were dated too far from its clock.
    pub(crate) untimely: Vec<u64>,
    /// Starts that a disk refused.
    pub(crate) refused_starts: u64,
    /// Losses of what no copy gives back.
    pub(crate) losses: u64,
    /// Nodes that found that their memory is older than what they said, and sign nothing any more.
    pub(crate) clones: u64,
    /// Nodes that sign nothing any more, at the end.
    pub(crate) silent: usize,
    /// What they signed before they found it that contradicts what they had signed.
    pub(crate) doubts: u64,
    /// It stopped because every good copy of a block was gone.
    pub(crate) justified: bool,
    /// It ended when a set was made of which those at fault had a third.
    pub(crate) void: bool,
    /// Snapshots that nodes began anew with.
    pub(crate) restored: u64,
    /// What happened to all disks.
    pub(crate) disks: disk::Tally,
    /// Rolling hash over every input, where it was asked for.
    pub(crate) digest: Vec<u8>,
    /// What liars did.
    pub(crate) lies: Tally,
}

/// A run, whatever came of it.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) outcome: Result<Report1, Failure>,
    /// What happened, a line each, where it was asked for.
    pub(crate) trace: Vec<Line>,
    /// What it takes to repeat it: [`World::following`].
    pub(crate) schedule: Schedule,
    /// Which fault met which step.
    pub(crate) coverage: Coverage,
}

/// A run that broke something.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) violation: Violation,
    pub(crate) at: u64,
    pub(crate) height: u64,
    /// Who did something last, and its round.
    pub(crate) node: Option<usize>,
    pub(crate) round: Option<u32>,
}

impl World {
    pub(super) fn report_of(self, outcome: Outcome) -> Result<Report1, Failure> {
        let height = self.checks.height();
        let running = self.acting.and_then(|node| self.machines[node].running.as_ref());
        let round = running.map(|running| running.replica.consensus().round().get());
        outcome.map_err(|violation| Failure { violation, at: self.now, height, node: self.acting, round })?;
        Ok(Report1 {
            simulated_ns: self.now,
            events: self.processed,
            height,
            acknowledged: self.checks.acknowledgements(),
            crashes: self.crashes,
            heals: self.heals,
            astray: (self.audit.astray, self.audit.healed),
            most_wrong: self.audit.most_wrong,
            views: self.checks.views(),
            reads: self.history.reads(),
            led: self.led,
            effects: self.machines[self.watched].effects,
            operations: (self.first_operation, self.machines[self.watched].disk.operations()),
            longest_start: self.longest_start,
            crashes_while_starting: self.crashes_while_starting,
            halts: self.halts,
            untimely: self.machines.iter().map(|machine| machine.untimely).collect(),
            refused_starts: self.refused_starts,
            losses: self.losses,
            clones: self.clones,
            silent: self.machines.iter().filter_map(|machine| machine.running.as_ref()?.replica.silent()).count(),
            doubts: self.doubts,
            justified: self.justified,
            void: self.pending.is_void,
            restored: self.restored,
            disks: self.machines.iter().fold(disk::Tally::default(), |all, machine| all.and(machine.disk.tally())),
            disk_operations: self.machines.iter().map(|machine| machine.disk.operations()).sum(),
            digest: self.digest.map_or_else(Vec::new, |digest| digest.finalize().to_vec()),
            lies: self.liars.tally,
        })
    }

    /// I7: the core did not reach its goal within the bound.
    pub(super) fn late(&self) -> Outcome {
        let at = |node: &usize| {
            let running = self.machines[*node].running.as_ref();
            let state = running.map(|running| {
                let consensus = running.replica.consensus();
                format!(
                    "height {} round {} {:?}, locked {:?}, valid {:?}",
                    running.replica.height(),
                    consensus.round(),
                    consensus.current_step(),
                    consensus.locked().map(|polka| (polka.round, polka.block_id)),
                    consensus.valid().map(|polka| (polka.round, polka.block_id))
                )
            });
            format!("node {node}: {}", state.unwrap_or_else(|| "down".into()))
        };
        let core: Vec<String> = self.must_settle().map(|node| at(&node)).collect();
        let invariant = if self.core.iter().all(|node| self.checks.told(*node) >= self.goal) { "I14" } else { "I7" };
        violation(invariant, format!("goal {} not reached within the bound; {}", self.goal, core.join(", ")))
    }

    pub(super) fn finish(&mut self) -> Outcome {
        self.checks.settled()?;
        self.nobody_honest_is_accused()?;
        self.lies_are_carried()?;
        self.nobody_is_astray()?;
        if self.subject.is_kv {
            for node in &self.core {
                if let Some(running) = &self.machines[*node].running {
                    let state = running.executor.state();
                    let get = |key: &[u8]| state.tree().get(&lockstep_app::kv::data_key(key)).map(|value| value.to_vec());
                    self.checks.model(state.height().get(), get)?;
                }
            }
        }
        self.judge_chains()
    }

    pub(super) fn has_settled(&self) -> bool {
        self.must_settle().all(|node| self.checks.told(node) >= self.goal)
    }

    /// The core, and who catches up among liars.
    pub(super) fn must_settle(&self) -> impl Iterator<Item = usize> {
        self.core.iter().copied().chain(self.plan.byzantine.secluded.map(|secluded| secluded.node))
    }
}
