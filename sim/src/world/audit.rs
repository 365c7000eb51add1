//! States that go astray while a node runs, and I17: it is found, nothing is signed meanwhile, it is whole again, nobody else notices.
//!
//! A fault of memory changes something of one node's state behind the node's back: an entry of the application, one of the node's own,
//! the results of the next block, what membership knows beside the state. Some of it comes to the database, too, so that a restart has it
//! again. What is right is what the other nodes tell; the code that heals is not asked.
//!
//! Who is astray counts among the faulty, as who rots: with those who lie they have less than a third of the power.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_app::{Changes, State};
use lockstep_replica::ChainState;
use lockstep_replica::audit::{self, Finding};
use lockstep_replica::seam::Outcome as Executed;
use lockstep_types::audit::Statement;
use lockstep_types::domain::Tag;
use lockstep_types::{AppHash, Block, Hash, Height};

use super::{Outcome, World, violation};
use crate::checks::Violation;
use crate::coverage::Kind;
use crate::plan::MS;
use crate::random::Stream;
use crate::schedule::{Damage, Fault};
use crate::trace::Told;

/// Blocks that a node may tell of with another state than the chain's: the next decided header shows it.
const FOUND_WITHIN: usize = 2;
/// And with what no header shows, once it is where the others are: statements may be lost and come again.
const HEARD_WITHIN: usize = 10;

/// Until a validator that healed votes again: it asks its peers for messages of its own first.
const VOTES_WITHIN: u64 = 5_000 * MS;

/// A node's state is not, or may not be, the chain's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Astray {
    /// Since after this height.
    since: u64,
    /// The next block's results come out wrong.
    results: Option<Hash>,
    /// Heights that it told of in this life, with what it then had.
    told: BTreeMap<u64, Hash>,
    /// Whether no header shows it.
    is_hidden: bool,
    /// Heights that it told of since the faults ended, being where the others are.
    in_step: usize,
}

/// What nodes told of each height.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// The chain after each height, as nodes have it with whom nothing is wrong.
    right: BTreeMap<u64, Hash>,
    /// What they would sign of it: less than all, and what a node has, too, that began with the snapshot of this very height.
    stated: BTreeMap<u64, Statement>,
    /// The height of the snapshot with which a node began.
    began_with: BTreeMap<usize, Height>,
    /// What validators signed of each.
    statements: BTreeMap<u64, Vec<u8>>,
    /// The newest height of which a validator that was astray signed a statement. It is heard until it says another thing of it.
    misled: BTreeMap<usize, u64>,
    /// Validators that healed: when, and at which height they began again.
    healed_at: BTreeMap<usize, (u64, u64)>,
    /// Heights at which nodes had diverged, and that they reported healed.
    settled: BTreeSet<(usize, Height)>,
    /// Most heights that one node told of with another state than the chain's.
    pub(super) most_wrong: usize,
    /// The root after each height, as each node told it last.
    roots: BTreeMap<usize, (u64, AppHash)>,
    /// Memories that failed, and states that were found wrong and healed.
    pub(super) astray: u64,
    pub(super) healed: u64,
}

impl World {
    /// Draws a fault of some machine's memory.
    pub(super) fn draw_divergence(&self, dice: &mut Stream) -> Fault {
        let node = dice.place(self.machines.len());
        let damage = *dice.pick(&[Damage::Entry, Damage::Entry, Damage::Lost, Damage::Own, Damage::Results, Damage::Standing]);
        Fault::Diverge { node, damage, lasts: dice.chance(400), seed: dice.bits() }
    }

    /// Changes what a node has in memory; false where it has nothing of the kind, or others would not be enough to set it right.
    pub(super) fn diverge(&mut self, node: usize, damage: Damage, lasts: bool, seed: u64) -> bool {
        let machine = &self.machines[node];
        if machine.retired || machine.astray.is_some() || machine.ailing.has_failed() || !self.may_lose(node) {
            return false;
        }
        let Some(running) = self.machines[node].running.as_mut() else { return false };
        let mut dice = Stream::new(seed, "divergence");
        let state = running.executor.state().clone();
        // One that lost its log executes heights again at which it diverged before. A second time at one of them it rightly gives up.
        if self.audit.settled.iter().any(|(other, height)| *other == node && *height > state.height()) {
            return false;
        }
        let is_hidden = damage == Damage::Standing;
        let mut astray = Astray { since: state.height().get(), is_hidden, ..Astray::default() };
        let mut changes = Changes::new();
        let mut standing = state.standing().clone();
        match damage {
            Damage::Entry | Damage::Lost => {
                let Some(prefix) = &self.subject.fragile else { return false };
                let entries: Vec<_> = state.tree().iter().filter(|(key, _)| key.starts_with(prefix)).collect();
                if entries.is_empty() {
                    return false;
                }
                let (key, value) = &entries[dice.place(entries.len())];
                match damage {
                    Damage::Lost => changes.delete(&key[..]),
                    _ => changes.set(&key[..], a_bit_turned(value, &mut dice)),
                }
            }
            Damage::Own => changes.set([&[0, b'?'], &dice.bits().to_le_bytes()[..]].concat(), [1]),
            Damage::Results => astray.results = Some(Hash::of(dice.bits().to_le_bytes())),
            Damage::Standing => {
                let standing = Arc::make_mut(&mut standing);
                match standing.attendance.first_mut() {
                    Some(first) if dice.chance(500) => first.missed_slots = first.missed_slots.saturating_add(1),
                    _ => standing.view += 1,
                }
            }
        }
        let mut tree = state.tree().clone();
        tree.change(&changes);
        let damaged = State::new(state.height(), tree, standing, state.newest().clone());
        running.executor.damage(damaged, if lasts { changes } else { Changes::new() });
        self.machines[node].astray = Some(astray);
        self.watch.memory_fails();
        self.audit.astray += 1;
        self.cover(Kind::Divergence, node);
        true
    }

    /// Whether what this node says of the state after a height may be wrong, and it is not to be taken at its word.
    pub(super) fn is_astray_at(&self, node: usize, height: u64) -> bool {
        self.machines[node].astray.as_ref().is_some_and(|astray| height > astray.since)
    }

    /// Whether what it said while it was astray may still be counted of a height of which `other` tells next. Who healed is sound, and yet
    /// with others who go astray at the same height it may take two thirds from what is right.
    pub(super) fn still_misleads(&self, node: usize, other: usize) -> bool {
        self.audit.misled.get(&node).is_some_and(|height| *height > self.checks.told(other))
    }

    /// Whether those who run, know the chain and are right have more than two thirds of the power without this node: only they can show it that
    /// it is wrong.
    fn are_heard_without(&self, node: usize) -> bool {
        let speaks = |other: &usize| {
            let machine = &self.machines[*other];
            let is_here = machine.running.is_some() && self.checks.told(*other) + 1 >= self.checks.height();
            *other != node && is_here && self.is_honest(*other) && !self.is_astray(*other)
        };
        let mut sets = self.checks.sets_from(self.checks.height());
        sets.all(|set| {
            let power = |other: usize| {
                let address = self.machines[other].key.as_ref().map(|key| key.public_key().address());
                address.and_then(|address| set.get(&address).copied()).unwrap_or(0)
            };
            let spoken: u64 = (0..self.machines.len()).filter(speaks).map(power).sum();
            3 * spoken > 2 * set.values().sum::<u64>()
        })
    }

    /// Whether it has not come back to the chain's state.
    pub(super) fn is_astray(&self, node: usize) -> bool {
        self.machines[node].astray.is_some()
    }

    /// I17: what validators say of their states. All with whom nothing is wrong say the same bytes of a height.
    pub(super) fn states(&mut self, node: usize, bytes: &[u8]) -> Outcome {
        // Prefix, tag, the chain's name behind its length, the hash of genesis.
        let start = 3 + self.genesis.chain_id.as_str().len() + 32;
        let height = bytes.get(start..start + 8).and_then(|height| height.try_into().ok()).map(u64::from_le_bytes);
        let Some(height) = height.filter(|_| bytes.get(1) == Some(&(Tag::Audit as u8))) else {
            return violation("I17", format!("node {node} signs bytes that are no statement: {bytes:02x?}"));
        };
        if !self.is_honest(node) || self.is_over() {
            return Ok(());
        }
        if self.is_astray(node) {
            let newest = self.audit.misled.entry(node).or_default();
            *newest = height.max(*newest);
            return Ok(());
        }
        match self.audit.statements.entry(height).or_insert_with(|| bytes.to_vec()) {
            said if said == bytes => Ok(()),
            _ => violation("I17", format!("node {node} says of height {height} what others do not, and nothing failed")),
        }
    }

    /// I17: a node tells of a block. What it has then is what all have, unless its memory failed; and nobody follows a header that
    /// contradicts what it told before.
    pub(super) fn audit(&mut self, node: usize, block: &Block, root: &AppHash, chain: &ChainState) -> Outcome {
        if !self.is_honest(node) || self.is_over() {
            return Ok(());
        }
        let height = block.header.height.get();
        let digest = Hash::of(chain.encode());
        if let Some((before, told)) = self.audit.roots.insert(node, (height, root.clone()))
            && before + 1 == height
            && told != block.header.app_hash
        {
            return violation(
                "I17",
                format!("node {node} told root {told} of height {before}, and follows a header that has {}", block.header.app_hash),
            );
        }
        if self.is_astray_at(node, height) {
            // A node that catches up compares when it has caught up, also where that takes it a moment.
            let is_in_step =
                self.healed && !self.machines[node].is_catching_up && height >= self.checks.height() && self.are_heard_without(node);
            if let Some(astray) = &mut self.machines[node].astray {
                astray.told.insert(height, digest);
                astray.in_step += usize::from(is_in_step);
            }
            return self.judge_astray(node);
        }
        self.audit.stated.entry(height).or_insert_with(|| chain.statement());
        match *self.audit.right.entry(height).or_insert(digest) {
            right if right == digest => {}
            _ => return violation("I17", format!("node {node} has another chain after height {height} than others, and nothing failed")),
        }
        (0..self.machines.len()).try_for_each(|other| self.judge_astray(other))
    }

    /// A node that is astray, against what is right by now: too far, or back by itself, where what failed was overwritten.
    fn judge_astray(&mut self, node: usize) -> Outcome {
        let Some(astray) = &self.machines[node].astray else { return Ok(()) };
        let known = astray.told.iter().filter_map(|(height, had)| Some((*height, *had == *self.audit.right.get(height)?)));
        let known: Vec<(u64, bool)> = known.collect();
        let wrong = known.iter().filter(|(_, is_right)| !is_right).count();
        self.audit.most_wrong = self.audit.most_wrong.max(wrong);
        // What no header shows and a later block overwrote is gone with it: nodes speak of their newest heights, where nothing is wrong.
        let is_still_wrong = known.last().is_some_and(|(_, is_right)| !is_right);
        let is_late = if astray.is_hidden { is_still_wrong && astray.in_step > HEARD_WITHIN } else { wrong > FOUND_WITHIN };
        if wrong > 0 && is_late && self.core.contains(&node) {
            return violation(
                "I17",
                format!("node {node} is at height {:?}, and its state is wrong since {wrong} heights", astray.told.keys().last()),
            );
        }
        if wrong == 0 && astray.results.is_none() && known.last().is_some_and(|(height, is_right)| *is_right && *height > astray.since) {
            self.machines[node].astray = None;
        }
        Ok(())
    }

    /// A node found that its state is not the chain's.
    pub(super) fn heals(&mut self, node: usize, finding: &Finding) -> Outcome {
        if !self.is_over() && self.is_honest(node) && !self.is_astray_at(node, finding.height().get()) {
            return violation(
                "I17",
                format!("node {node} finds its state wrong after height {}, and nothing is wrong with it", finding.height()),
            );
        }
        self.tell(Some(node), Told::Note, || format!("finds its state wrong after height {}, and heals", finding.height()));
        let machine = &self.machines[node];
        let trace = machine.running.as_ref().and_then(|running| running.executor.trace());
        if let Err(error) = audit::keep(machine.disk.disk(), finding, trace) {
            if self.machines[node].disk.is_stopped() {
                return self.stopped(node);
            }
            if !self.is_ailing(node) {
                return violation("I18", format!("node {node}: the disk refuses, and nothing is wrong with it: {error}"));
            }
        }
        self.process_ends(node, MS)
    }

    /// A life begins: what is wrong with a state that was in memory alone is gone with the memory, and what was healed is right from now on.
    pub(super) fn begins_again(&mut self, node: usize, settled: &[audit::Settled], height: Height, chain: &ChainState) -> Outcome {
        let has_rotted = self.machines[node].rot.times > 0;
        let Some(astray) = &mut self.machines[node].astray else {
            // A report that rotted is written again.
            let is_known = |one: &&audit::Settled| has_rotted && self.audit.settled.contains(&(node, one.height));
            return match settled.iter().find(|one| !is_known(one) && !self.is_over()) {
                Some(one) => violation("I17", format!("node {node} healed what was never wrong: {}", one.report)),
                None => Ok(()),
            };
        };
        astray.results = None;
        astray.told.clear();
        astray.in_step = 0;
        self.audit.roots.remove(&node);
        let right = self.audit.right.get(&height.get());
        if !settled.is_empty() || right.is_some_and(|right| *right == Hash::of(chain.encode())) {
            self.machines[node].astray = None;
        }
        if !settled.is_empty() {
            self.audit.healed += 1;
            self.audit.healed_at.insert(node, (self.now, height.get()));
            for one in settled {
                self.audit.settled.insert((node, one.height));
                self.tell(Some(node), Told::Note, || one.report.replace('\n', "; "));
            }
        }
        Ok(())
    }

    /// A node begins with the snapshot of this height.
    pub(super) fn begins_with(&mut self, node: usize, height: Height) {
        self.audit.began_with.insert(node, height);
    }

    /// I17, in the end: whoever settled has the chain's own state, bit for bit.
    pub(super) fn nobody_is_astray(&self) -> Result<(), Violation> {
        for node in self.core.iter().filter(|node| !self.is_over() && self.is_honest(**node)) {
            let Some(running) = &self.machines[*node].running else { continue };
            let chain = running.replica.chain();
            let right = self.audit.right.get(&chain.height.get());
            let is_as_others = right.is_none_or(|right| *right == Hash::of(chain.encode()));
            // What no header shows may have been overwritten, which clears nobody before the next start.
            let has_time = |astray: &Astray| astray.is_hidden && (is_as_others || astray.in_step <= HEARD_WITHIN);
            if self.machines[*node].astray.as_ref().is_some_and(|astray| !has_time(astray)) {
                return violation("I17", format!("node {node} is at height {}, and its state was not made right", chain.height));
            }
            let healed = self.audit.healed_at.get(node).filter(|(at, _)| at + VOTES_WITHIN < self.now);
            let validates = self.plan.members.is_none() && self.plan.powers.get(*node).is_some_and(|power| *power > 0);
            if let Some((_, height)) = healed.filter(|_| validates)
                && !self.checks.has_signed(*node, *height + 1)
            {
                return violation("I17", format!("node {node} healed at height {height}, and has not voted since"));
            }
            // A snapshot says nothing of what was before it and signs nothing any more, as the priorities of the last set.
            let is_right = match self.audit.began_with.get(node) == Some(&chain.height) {
                true => self.audit.stated.get(&chain.height.get()).is_none_or(|stated| *stated == chain.statement()),
                false => is_as_others,
            };
            if !self.is_astray(*node) && !is_right {
                return violation("I17", format!("node {node} is at height {} with another state than the chain's", chain.height));
            }
            self.snapshots_hold(*node)?;
        }
        Ok(())
    }
}

/// What came out of a block, as the memory of a machine says it.
pub(super) fn misremember(astray: &mut Option<Astray>, outcome: &mut Executed) {
    if let Some(results) = astray.as_mut().and_then(|astray| astray.results.take()) {
        outcome.results_hash = results;
        if let Some(first) = Arc::make_mut(&mut outcome.results).first_mut() {
            first.data = results.0.to_vec();
        }
    }
}

/// A value in which one bit turned over.
fn a_bit_turned(value: &[u8], dice: &mut Stream) -> Vec<u8> {
    let mut value = if value.is_empty() { vec![0] } else { value.to_vec() };
    let place = dice.place(value.len());
    value[place] ^= 1 << dice.below(8);
    value
}
