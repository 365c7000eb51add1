//! Snapshots of checkpoints, old blocks that go, and what must not (I16).
//!
//! A node makes the snapshot of a checkpoint a while after it executed it, on a disk that may fail in the middle; then it lets old
//! blocks go as its operator's policy allows. Judged here, from the chain that everybody was told of and from the files as they lie on
//! the disk: what is gone was needed by nobody. Not by judges of evidence, whose window is reckoned anew, and who find headers, validators
//! and polkas of it apart from the bodies; not by who restores the
//! oldest snapshot that is left and needs the blocks above it and the names of those below; not by the node's own next
//! start. And where blocks are gone a sound snapshot is left, and who asks for one of them is told the earliest that is there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lockstep_app::State;
use lockstep_replica::Input;
use lockstep_replica::wire::{Answer, Question};
use lockstep_types::light::LightBlock;
use lockstep_types::{Height, Polka};

use super::{Outcome, What, World, violation};
use crate::coverage::Kind;
use crate::plan::MS;

/// The snapshot of a checkpoint waits so long at most for the thread that makes it.
const WAITS_NS: u64 = 300 * MS;

impl World {
    /// A node executed a checkpoint.
    pub(super) fn reaches_checkpoint(&mut self, node: usize, life: u64, state: State) {
        let delay = self.disks.of(node).between(MS, WAITS_NS);
        self.after(delay, What::Keep { node, life, state: Box::new(state) });
    }

    /// Its thread makes the snapshot, and lets old blocks go.
    pub(super) fn keep(&mut self, node: usize, life: u64, state: Box<State>) -> Outcome {
        let (genesis, keep, flushed) = (self.genesis.hash(), self.plan.keep, self.machines[node].flushed);
        self.cover(Kind::Checkpoint, node);
        let told = self.checks.told(node);
        let now_ms = self.now / MS;
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        if told < state.height().get() {
            // Everything here is compared with what readers were told.
            self.after(WAITS_NS, What::Keep { node, life, state });
            return Ok(());
        }
        let is_made = running.make_snapshot(genesis, &state, keep.snapshots, now_ms);
        if self.machines[node].disk.is_stopped() {
            return self.stopped(node);
        }
        if is_made {
            self.snapshots_hold(node)?;
        }
        let listed = self.apart(node);
        let Some(running) = self.alive(node, life) else { return Ok(()) };
        let before = running.reader.base();
        let first = Height::new(before.unwrap_or(1)).expect("a height of a log");
        let may_go = first.get()..running.told.height.get().saturating_sub(keep.blocks.saturating_sub(1));
        let polkas = running.polkas_of(may_go.filter_map(Height::new)).clone();
        let pruned = running.prune(keep.blocks, flushed);
        let after = running.reader.base();
        let gone: Vec<u64> = listed.difference(&self.apart(node)).copied().collect();
        // What rotted is of use to nobody.
        let has_rotted = self.machines[node].rot.times > 0;
        if let Some(newest) = gone.last().filter(|newest| !has_rotted && self.needs_header(node, **newest)) {
            return violation("I16", format!("node {node} lets headers up to {newest} go: who judges evidence, or restores, needs that"));
        }
        if let Err(reason) = pruned {
            return self.disk_failed(node, reason);
        }
        let Some(base) = after.filter(|_| after != before) else { return Ok(()) };
        self.cover(Kind::Pruned, node);
        let judged = self.may_go(node, first.get(), base).and_then(|()| self.headers_stay(node, first, base, &polkas));
        if self.machines[node].disk.is_stopped() {
            // It stopped while it was read for this: what is there is seen when it starts.
            return self.stopped(node);
        }
        judged?;
        let base = Height::new(base).expect("a height of a log");
        self.input(node, life, Input::Pruned { base })
    }

    /// Every snapshot, as it lies on the disk, is the state after its height. Those that a failed memory made are judged once the node is right.
    pub(super) fn snapshots_hold(&self, node: usize) -> Outcome {
        if self.is_astray(node) {
            return Ok(());
        }
        let Some(running) = &self.machines[node].running else { return Ok(()) };
        for (height, root) in running.snapshots_read_back(&self.snapshot_roots) {
            // A node executes a block before anybody is told of it.
            let Some((_, app_hash, _)) = self.checks.decided(height) else { continue };
            if app_hash.as_bytes()[..] != root.0 {
                return violation(
                    "I16",
                    format!("node {node} has a snapshot of height {height} with root {root}, the chain has {app_hash}"),
                );
            }
        }
        Ok(())
    }

    /// I16: nobody needs the blocks from `before` up to but not including `base`.
    fn may_go(&self, node: usize, before: u64, base: u64) -> Outcome {
        let fail = |what: String| violation("I16", format!("node {node} lets blocks {before} to {} go: {what}", base - 1));
        let (Some(running), Some(_)) = (&self.machines[node].running, self.plan.members) else { return Ok(()) };
        let tip = self.checks.told(node);
        let newest = base - 1;
        if newest + self.plan.keep.blocks > tip || self.plan.keep.blocks == 0 {
            return fail(format!("its operator keeps {} of {tip}", self.plan.keep.blocks));
        }
        let flushed = self.machines[node].flushed;
        if base > flushed.get() {
            return fail(format!("its next start begins with the state of height {flushed}"));
        }
        let sound: Vec<u64> = running.snapshots_read_back(&self.snapshot_roots).into_iter().map(|(height, _)| height).collect();
        let listed = running.snapshots.as_ref().map(|store| store.heights()).unwrap_or_default();
        match sound.first() {
            // Rot that nobody has met yet may be in it.
            None if self.machines[node].rot.times > 0 => {}
            None => return fail("it has no snapshot, and who is behind cannot come back".into()),
            Some(_) if listed.first().is_some_and(|oldest| base > *oldest) => {
                return fail(format!("whoever restores the snapshot of {listed:?} goes on from its block"));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The highest heights of the files in which a node keeps headers apart from bodies.
    fn apart(&self, node: usize) -> BTreeSet<u64> {
        let paths = self.machines[node].disk.paths();
        let names = paths.iter().filter_map(|path| path.strip_prefix("light/")).filter(|name| !name.starts_with("polkas-"));
        names.filter_map(|name| name.rsplit('-').next()?.parse().ok()).collect()
    }

    /// Whether somebody may need the header of a height from a node: evidence about it has not expired at what the node told its readers
    /// last, or it is one of the names below the oldest snapshot.
    fn needs_header(&self, node: usize, height: u64) -> bool {
        let (Some(running), Some(windows)) = (&self.machines[node].running, self.plan.members) else { return false };
        let time = |height: u64| self.checks.block(height).map(|block| block.header.time.unix_nanos());
        let tip = self.checks.told(node);
        let (Some(then), Some(now)) = (time(height), time(tip)) else { return false };
        let params = self.plan.params().evidence;
        let has_expired = tip > height + params.max_age_num_blocks && now - then > i128::from(params.max_age_duration_ns);
        let oldest = running.snapshots.as_ref().and_then(|store| store.heights().first().copied());
        !has_expired || oldest.is_some_and(|oldest| height + windows.live >= oldest)
    }

    /// I16: of blocks that go while somebody may need their headers, a node still answers for these, and has the polkas that it had.
    fn headers_stay(&self, node: usize, first: Height, base: u64, polkas: &BTreeMap<Height, Vec<Polka>>) -> Outcome {
        let Some(running) = &self.machines[node].running else { return Ok(()) };
        for height in (first.get()..base).filter(|height| self.needs_header(node, *height)) {
            let fail = |what: &str| violation("I16", format!("node {node} let block {height} go, and {what}"));
            let at = Height::new(height).expect("a height of a log");
            let before = polkas.get(&at).map_or(&[][..], Vec::as_slice);
            let (Some(block), Some(header), Some(after)) = (self.checks.block(height), running.header(at), running.polkas(at)) else {
                continue;
            };
            let is_right = |light: &LightBlock| light.header == block.header && light.validators.hash() == block.header.validators_hash;
            if !header.is_some_and(|light| is_right(&light)) {
                return fail("does not answer for its header");
            }
            // There may be more: a log that was lost since and fetched again has none.
            if before.iter().any(|polka| !after.contains(polka)) {
                return fail("forgot its polkas");
            }
        }
        Ok(())
    }

    /// What was pruned is said to be: an honest node that is asked for blocks below its first one names that.
    pub(super) fn answers_of_pruned(&self, node: usize, asked: &Bytes, answer: &Bytes) -> Outcome {
        let (Some(running), true) = (&self.machines[node].running, self.plan.makes_checkpoints() && self.is_honest(node)) else {
            return Ok(());
        };
        let (Ok(Question::Blocks { from, .. }), Ok(answer)) = (Question::decode(asked), Answer::decode(answer)) else { return Ok(()) };
        let Some(base) = running.reader.base().filter(|base| from.get() < *base && from > Height::ZERO) else { return Ok(()) };
        match answer {
            Answer::Unavailable(status) if status.base > from && status.base.get() <= base => Ok(()),
            // What was pruned while it was being read.
            Answer::Blocks(_) | Answer::Certificate(_) => Ok(()),
            Answer::Unavailable(status) => violation(
                "I16",
                format!("node {node} begins with block {base}, is asked for {from}, and says that it begins with {}", status.base),
            ),
            _ => violation("I16", format!("node {node} begins with block {base}, is asked for {from}, and does not say so")),
        }
    }
}
