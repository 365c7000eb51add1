//! Nodes that begin anew from a snapshot, inside the big world: who was away while everybody forgot, and machines that were replaced.
//!
//! Peers are the others of the run, honest or not ([`crate::liars::Lie::FalseSnapshots`]); disks fail and machines lose power while a
//! snapshot is gathered, and while it is installed. What is judged: what is installed is the chain's own (I13), by the root, the block and the
//! sets that everybody was told of; nobody honest is refused (I13, as everywhere); and the node takes part again within the
//! bound (I14).
//!
//! Somebody looks after the nodes, as after real ones: where what a node trusts is too old to prove anything, it is started again with
//! a header that its operator names, and with whatever it has.

use lockstep_replica::Input;
use lockstep_replica::seam::JobId;
use lockstep_replica::state_sync::{Installed, Staging, Task};
use lockstep_storage::quarantine::Quarantine;
use lockstep_sync::state::{Needs, Told as Sync};
use lockstep_types::{Hash, Height};

use super::{Outcome, What, World, violation};
use crate::coverage::Kind;
use crate::node::{DAMAGED, Started};
use crate::plan::MS;
use crate::trace::Told;

/// Until somebody looks after a node that says that it cannot go on.
const LOOKS_AFTER_NS: u64 = 1_000 * MS;

impl World {
    /// The thread that keeps what state sync gathers.
    pub(super) fn stage(&mut self, node: usize, life: u64, job: JobId, task: Task) -> Outcome {
        let disk = self.machines[node].disk.disk();
        let genesis = self.genesis.hash();
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        if running.staging.is_none() {
            match Staging::open(disk, genesis) {
                // One version of its own state for all chunks, as in the shell.
                Ok(staging) => running.staging = Some((staging, running.executor.state().clone())),
                Err(error) => return self.disk_failed(node, error.to_string()),
            }
        }
        let (staging, own) = running.staging.as_mut().expect("just opened");
        let ends = matches!(task, Task::End { .. });
        let found = staging.perform(task, own.tree());
        if ends {
            running.staging = None;
        }
        match found {
            Ok(found) => self.input(node, life, Input::Staged { job, found }),
            Err(error) => self.disk_failed(node, error.to_string()),
        }
    }

    /// Everything is gathered: the same process opens the home again.
    pub(super) fn reopens(&mut self, node: usize, height: Height) -> Outcome {
        if !self.plan.makes_checkpoints() {
            return violation("I18", format!("node {node} opens its home again, and nobody has snapshots"));
        }
        self.tell(Some(node), Told::Note, || format!("has gathered the snapshot of height {height}"));
        self.cover(Kind::Reopen, node);
        let disk = self.machines[node].disk.disk();
        match Staging::open(disk, self.genesis.hash()).and_then(|staging| staging.mark()) {
            Ok(()) => self.process_ends(node, MS),
            Err(error) => self.ends_for_disk(node, &error.to_string()),
        }
    }

    /// The state database turns out to be damaged before it is written: the same process opens the home again, and looks at everything.
    pub(super) fn mends(&mut self, node: usize, what: &str) -> Outcome {
        let machine = &self.machines[node];
        if machine.disk.is_stopped() {
            return self.stopped(node);
        }
        if machine.rot.times == 0 && !self.is_ailing(node) {
            return violation("I18", format!("node {node}: nothing happened to its disk, and {what}"));
        }
        self.tell(Some(node), Told::Note, || format!("opens its home again: {what}"));
        // It is met only now, by a process that began with it: what was told since rests on what the log has, if that begins early enough.
        self.machines[node].rot.is_fresh = true;
        let suspected = Quarantine::new(self.machines[node].disk.disk(), DAMAGED).suspect();
        match suspected {
            Ok(()) => self.process_ends(node, MS),
            Err(error) => self.disk_failed(node, error.to_string()),
        }
    }

    /// A start found something gathered.
    pub(super) fn installed(&mut self, node: usize, installed: &Installed, started: &Started) -> Outcome {
        let height = match installed {
            Installed::Restored(height) => *height,
            Installed::Refused(reason) if self.machines[node].rot.times > 0 => {
                self.tell(Some(node), Told::Note, || format!("cannot use what it gathered: {reason}"));
                return Ok(());
            }
            Installed::Refused(reason) => return violation("I13", format!("node {node} refuses what it gathered itself: {reason}")),
        };
        self.tell(Some(node), Told::Note, || format!("begins with the snapshot of height {height}"));
        self.restored += 1;
        let fail = |what: String| violation("I13", format!("node {node} installs height {height}: {what}"));
        let Some((block_id, app_hash, _)) = self.checks.decided(height.get()) else {
            return fail("nobody was told of it".into());
        };
        // What it executed after that is compared where it is told of.
        if started.height == height {
            let chain = started.running.replica.chain();
            let root = started.running.executor.state().root();
            if app_hash.as_bytes()[..] != root.0 {
                return fail(format!("its state has root {root}, the chain has {app_hash}"));
            }
            if chain.last_block_id != Some(block_id) {
                return fail(format!("its block is {:?}, the chain has {block_id}", chain.last_block_id));
            }
            for (set, at) in [(&chain.validators, height.get() + 1), (&chain.next_validators, height.get() + 2)] {
                let powers = set.iter().map(|one| (one.address, one.power.get())).collect();
                if *self.checks.set_of(at) != powers {
                    return fail(format!("its validators of height {at} are not the chain's"));
                }
            }
        }
        self.checks.installed(node, height.get());
        self.begins_with(node, height);
        Ok(())
    }

    /// State sync says how far it is.
    pub(super) fn told_of_sync(&mut self, node: usize, told: &Sync) -> Outcome {
        self.tell(Some(node), Told::Note, || format!("state sync: {told:?}"));
        match told {
            Sync::Chosen { .. } | Sync::Progress { .. } => self.machines[node].is_syncing = true,
            Sync::Waits { needs: Needs::Root, .. } => {
                // Everybody has forgotten what its operator named.
                let life = self.machines[node].life;
                self.after(LOOKS_AFTER_NS, What::Help { node, life });
            }
            Sync::FallsBack { .. } | Sync::GivenUp { .. } | Sync::Waits { .. } => self.machines[node].is_syncing = false,
            Sync::Fails { .. } => {
                self.machines[node].is_syncing = false;
                let life = self.machines[node].life;
                self.after(LOOKS_AFTER_NS, What::Help { node, life });
            }
        }
        Ok(())
    }

    /// The header that an operator names today: that of the newest block that anybody was told of. Once the faults are over, the newest of
    /// those that somebody can show still, if there is one: where every log was lost it may not be the very last.
    fn newest_header(&self) -> Option<(Height, Hash)> {
        let newest = self.checks.height();
        let running = || self.machines.iter().filter_map(|machine| machine.running.as_ref());
        let is_shown = |height: &u64| running().any(|one| one.shows_header(*height));
        let height = if self.is_beyond && self.healed { (1..=newest).rev().find(is_shown).unwrap_or(newest) } else { newest };
        let (block_id, ..) = self.checks.decided(height)?;
        Some((Height::new(height)?, block_id.hash))
    }

    /// Somebody looks after a node that said that it cannot go on by itself: it is started again with a header of today, and everything
    /// that it has.
    pub(super) fn help(&mut self, node: usize, life: u64) -> Outcome {
        if self.alive(node, life).is_none() {
            return Ok(());
        }
        self.tell(Some(node), Told::Note, || "is given a newer header to trust".to_owned());
        self.machines[node].asks_operator = true;
        self.process_ends(node, MS)
    }

    /// An empty machine in a node's place, with its key and its guard, and a header that it trusts, or none. Whether others can do without what
    /// is lost.
    pub(super) fn replace(&mut self, node: usize, down: u64, is_named: bool) -> Result<bool, crate::checks::Violation> {
        let machine = &self.machines[node];
        if machine.running.is_none() || machine.retired || !self.harms(node, |_| Some("all but its key and its guard".to_owned())) {
            return Ok(false);
        }
        self.begin_anew(node, down, is_named).map(|()| true)
    }

    fn begin_anew(&mut self, node: usize, down: u64, is_named: bool) -> Outcome {
        self.cover(Kind::Replaced, node);
        self.process_ends(node, down)?;
        let machine = &mut self.machines[node];
        machine.empty();
        machine.asks_operator = is_named;
        machine.trusts = None;
        self.forget_lies(node);
        Ok(())
    }

    /// A node without blocks starts, and its operator names a header.
    pub(super) fn name_header(&mut self, node: usize) {
        if std::mem::take(&mut self.machines[node].asks_operator) {
            self.machines[node].trusts = self.newest_header();
        }
    }

    /// A node halts, since what its operator named proves nothing any more. Rightly, if that is so by its own clock; then it is told
    /// a newer header.
    pub(super) fn distrusts(&mut self, node: usize, reason: &str) -> Option<Outcome> {
        let (height, _) = self.machines[node].trusts.filter(|_| reason.contains("older than the trusting period"))?;
        let period = self.plan.params().evidence.max_age_duration_ns / 3 * 2;
        let time = self.checks.block(height.get())?.header.time;
        if self.clocks(node).wall < time.saturating_add(std::time::Duration::from_nanos(period)) {
            return Some(violation(
                "I14",
                format!("node {node} trusts the header of height {height} no more, which is not too old: {reason}"),
            ));
        }
        self.tell(Some(node), Told::Note, || format!("halts: {reason}"));
        self.machines[node].asks_operator = true;
        Some(self.process_ends(node, LOOKS_AFTER_NS))
    }
}
