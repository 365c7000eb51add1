//! How much of the power may be at fault, where power changes hands.
//!
//! What is promised is promised while those at fault have less than a third of the power: those who lie, those who lost something
//! that was durable and have not come back to where they were, and those who may never vote again. In a network whose
//! validators stay, the plan sees to that. Where they come and go, whoever asks for a change reckons with the worst: that everybody at fault who
//! was approved comes in, and that everybody sound who asked to leave does. What would take the sound below two thirds then is not
//! asked, and nothing rots that would. Nobody asks whether a validator that was absent is suspended, so a set may become one for which
//! nothing is promised all the same: then the run is over, and counts for nothing that comes after.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_app::membership::NodeTx;
use lockstep_types::{Power, PublicKey};

use super::World;
use crate::members::Ask;

/// What was asked for, and may be granted at any time.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Power that was approved, by who is to have it.
    granted: BTreeMap<usize, u64>,
    /// Who asked to leave, or is to be replaced.
    leaving: BTreeSet<usize>,
    /// A set was made for which nothing is promised.
    pub(super) is_void: bool,
}

/// A change that somebody thinks of.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// This node is at fault, too.
    Falls(usize),
    /// This one leaves.
    Leaves(usize),
    /// This one comes to have a power.
    Comes(usize, u64),
}

impl World {
    fn is_faulty(&self, node: usize) -> bool {
        let machine = &self.machines[node];
        !self.is_honest(node) || machine.ailing.is_for_good || self.is_rotten(node)
    }

    /// A node's power in each set that decides heights from the next on.
    fn powers_of(&self, node: usize) -> impl Iterator<Item = u64> {
        let address = self.machines[node].key.as_ref().map(|key| key.public_key().address());
        let power = move |set: &crate::members::Powers| address.and_then(|address| set.get(&address).copied()).unwrap_or(0);
        self.checks.sets_from(self.checks.height() + 1).map(power)
    }

    /// Whether those at fault have less than a third of the power, at worst, after this change.
    fn is_within_budget(&self, change: Option<Change>) -> bool {
        let (mut faulty, mut sound) = (0, 0);
        // A twin has the power of the one whose key it has: once.
        for node in 0..self.plan.validators_max() {
            let falls = matches!(change, Some(Change::Falls(other)) if other == node || self.still_misleads(node, other));
            if falls || self.is_faulty(node) {
                let comes = match change {
                    Some(Change::Comes(other, power)) if other == node => power,
                    _ => 0,
                };
                let granted = self.pending.granted.get(&node).copied().unwrap_or(0);
                faulty += self.powers_of(node).max().unwrap_or(0).max(granted).max(comes);
            } else {
                let leaves = matches!(change, Some(Change::Leaves(other)) if other == node);
                let stays = !leaves && !self.pending.leaving.contains(&node);
                sound += if stays { self.powers_of(node).min().unwrap_or(0) } else { 0 };
            }
        }
        3 * faulty < faulty + sound
    }

    /// Whether a machine may lose something that was durable.
    pub(super) fn may_fall(&self, node: usize) -> bool {
        self.is_within_budget(Some(Change::Falls(node)))
    }

    /// Whether somebody may ask this of the chain, and if so, that it may be granted from now on.
    pub(super) fn may_ask(&mut self, node: usize, ask: &Ask) -> bool {
        let changes = match *ask {
            Ask::Quit if self.is_faulty(node) => Vec::new(),
            Ask::Quit => vec![Change::Leaves(node)],
            Ask::Approve { who, power } if who < self.machines.len() => vec![Change::Comes(who, power)],
            Ask::Rotate { old } if old < self.machines.len() => {
                let power = self.powers_of(old).max().unwrap_or(0);
                vec![Change::Leaves(old), Change::Comes(node, power)]
            }
            Ask::HandOn { place } => self.handed_on(place),
            // Nobody approves strangers, and a request alone gives nobody power.
            _ => Vec::new(),
        };
        let is_in_doubt = !self.plan.byzantine.is_empty()
            || self.plan.twins.is_some()
            || self.plan.rots
            || self.plan.disk_troubles
            || self.plan.losses
            || self.plan.replacements;
        if is_in_doubt && !changes.iter().all(|change| self.is_within_budget(Some(*change))) {
            return false;
        }
        for change in changes {
            match change {
                Change::Comes(who, power) => {
                    let granted = self.pending.granted.entry(who).or_default();
                    *granted = (*granted).max(power);
                }
                Change::Leaves(who) => drop(self.pending.leaving.insert(who)),
                Change::Falls(_) => {}
            }
        }
        true
    }

    /// What may come of a request that is handed on. One that had its effect changes nothing, and one that was overtaken may have it again: the
    /// power that somebody asked for first, say, while what approves it is young.
    fn handed_on(&self, place: u64) -> Vec<Change> {
        let node_of = |key: &PublicKey| (0..self.plan.validators_max()).find(|node| self.key_of(*node) == Some(*key));
        let comes = |key: &PublicKey, power: Power| node_of(key).map(|node| Change::Comes(node, power.get()));
        match self.checks.granted(place).and_then(|bytes| NodeTx::decode(bytes).ok()) {
            Some(NodeTx::Join(join)) => {
                let leaves = join.replaces.as_ref().and_then(node_of).map(Change::Leaves);
                comes(&join.public_key, join.power).into_iter().chain(leaves).collect()
            }
            Some(NodeTx::Approve(approve)) => comes(&approve.public_key, approve.power).into_iter().collect(),
            // Of one that quit and is there, it is known that it leaves; of one that came back, the chain takes no earlier word.
            _ => Vec::new(),
        }
    }

    /// The set may have changed: what was granted is no longer pending, and whether anything is promised is looked at.
    pub(super) fn reckon(&mut self) {
        let (_, newest) = self.checks.newest_set();
        let power = |node: usize| {
            let address = self.machines[node].key.as_ref().map(|key| key.public_key().address());
            address.and_then(|address| newest.get(&address).copied())
        };
        let pending = &self.pending;
        let granted = pending.granted.iter().filter(|(node, asked)| power(**node) != Some(**asked)).map(|(node, asked)| (*node, *asked));
        let leaving = pending.leaving.iter().filter(|node| power(**node).is_some()).copied();
        (self.pending.granted, self.pending.leaving) = (granted.collect(), leaving.collect());
        self.pending.is_void |= self.checks.sets_from(self.checks.height() + 1).any(|set| {
            let of = |holds: &dyn Fn(usize) -> bool| -> u64 {
                let nodes = (0..self.plan.validators_max()).filter(|node| holds(*node));
                nodes.filter_map(|node| set.get(&self.machines[node].key.as_ref()?.public_key().address())).sum()
            };
            3 * of(&|node| self.is_faulty(node)) >= of(&|_| true)
        });
    }
}
