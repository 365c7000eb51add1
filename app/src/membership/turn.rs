//! One block of membership: what everybody did, what was proven, what was asked for, and what of it is granted.

use std::collections::BTreeSet;

use lockstep_types::planted::{self, Bug};
use lockstep_types::validators::{UpdateError, VALIDATORS_MAX};
use lockstep_types::{Address, Event, EventAttribute, Height, Power, TxResult, ValidatorSet, ValidatorUpdate};

use super::config::Config;
use super::registry::{Member, Status};
use super::requests::{Desk, Granted, Powers, power, total};
use super::signatures::Signed;
use super::standing::Standing;
use crate::application::{BlockInput, ParticipationFlag};
use crate::changes::Changes;
use crate::node_tx::NODE_CODESPACE;
use crate::record::{CommittedEvidence, PowerMoved, Waiting};
use crate::tree::Tree;

/// The chain around a block of height H, beside what the application is shown of it.
#[derive(Debug, Clone, Copy)]
pub struct ChainFacts<'a> {
    /// Validators of H - 1; those of H at the first height.
    pub last_validators: &'a ValidatorSet,
    /// Validators of H.
    pub validators: &'a ValidatorSet,
    /// Validators of H + 1. Updates of the block change this set, for H + 2.
    pub next_validators: &'a ValidatorSet,
    /// The evidence of the block, as it is remembered.
    pub evidence: &'a [CommittedEvidence],
}

/// What a block did to membership.
pub(crate) struct Ended {
    /// Of the state, under keys of the node.
    pub(crate) changes: Changes,
    /// What stands beside the state.
    pub(crate) standing: Standing,
    /// All updates of the block, the application's among them: each key once, and a list that the set takes.
    pub(crate) updates: Vec<ValidatorUpdate>,
    /// To be told before the application's.
    pub(crate) events: Vec<Event>,
    /// Whether the height is a checkpoint.
    pub(crate) checkpoint: bool,
}

impl Ended {
    /// Of a chain without membership: the application's updates, and evidence remembered.
    pub(crate) fn without_membership(
        standing: &Standing,
        block: &BlockInput<'_>,
        evidence: &[CommittedEvidence],
        updates: Vec<ValidatorUpdate>,
    ) -> Self {
        let mut standing = standing.clone();
        standing.remember_evidence(evidence, block.height, block.time, &block.parameters.evidence);
        Self { changes: Changes::new(), standing, updates, events: Vec::new(), checkpoint: false }
    }
}

/// A block while it is executed.
pub(crate) struct Turn<'a> {
    desk: Desk<'a>,
    facts: ChainFacts<'a>,
    culprits: BTreeSet<Address>,
    events: Vec<Event>,
}

/// An event of the node.
pub(super) fn event(kind: &str, attributes: &[(&str, String)]) -> Event {
    let attribute = |(key, value): &(&str, String)| EventAttribute { key: (*key).to_owned(), value: value.clone(), index: true };
    Event { kind: kind.to_owned(), attributes: attributes.iter().map(attribute).collect() }
}

fn told(action: &str, address: &Address, log: &str) -> Event {
    event("membership", &[("action", action.to_owned()), ("address", address.to_string()), ("log", log.to_owned())])
}

fn composition(set: &ValidatorSet) -> impl Iterator<Item = (Address, Power)> {
    set.iter().map(|validator| (validator.address, validator.power))
}

impl<'a> Turn<'a> {
    /// Begins a block: who took part in the commit below it, and who was proven to have misbehaved.
    pub(crate) fn begin(
        config: &'a Config,
        signed: &'a Signed,
        tree: &'a Tree,
        standing: &Standing,
        block: &BlockInput<'a>,
        facts: ChainFacts<'a>,
    ) -> Self {
        let desk = Desk::after(config, signed, block.height.previous(), tree, standing, facts.next_validators);
        let mut turn = Self { desk, facts, culprits: BTreeSet::new(), events: Vec::new() };
        turn.announce_view();
        turn.take_attendance(block);
        turn.bar_culprits(block);
        turn
    }

    fn announce_view(&mut self) {
        let changed = |a: &ValidatorSet, b: &ValidatorSet| !composition(a).eq(composition(b));
        if changed(self.facts.last_validators, self.facts.validators) {
            let validators = self.facts.validators;
            self.events.push(event(
                "view",
                &[
                    ("number", self.desk.standing.view.to_string()),
                    ("height", self.desk.height.to_string()),
                    ("validators", validators.len().to_string()),
                    ("power", validators.total_power().to_string()),
                ],
            ));
        }
        // Standing speaks of the next height.
        if changed(self.facts.validators, self.facts.next_validators) {
            self.desk.standing.view = self.desk.standing.view.saturating_add(1);
        }
    }

    fn take_attendance(&mut self, block: &BlockInput<'_>) {
        let below = block.height.previous();
        let mut back = Vec::new();
        for attendance in &mut self.desk.standing.attendance {
            let signed =
                |part: &&crate::application::Participation| part.address == attendance.address && part.flag != ParticipationFlag::Absent;
            if block.last_commit.iter().any(|part| signed(&part)) && below > attendance.last_signed {
                (attendance.last_signed, attendance.slots, attendance.missed_slots) = (below, 0, 0);
                back.push(attendance.address);
            }
        }
        let winner = self.facts.validators.proposer(lockstep_types::Round::ZERO);
        if let Some(winner) = self.facts.validators.get(winner).map(|validator| validator.address)
            && let Some(attendance) = self.desk.standing.attendance.iter_mut().find(|attendance| attendance.address == winner)
        {
            attendance.slots = attendance.slots.saturating_add(1);
            if block.proposer != winner {
                attendance.missed_slots = attendance.missed_slots.saturating_add(1);
            }
        }
        if self.desk.standing.waiting.is_empty() {
            return;
        }
        for address in back {
            self.cancel_suspension(&address);
        }
    }

    /// A validator that signs again while it waits to be suspended stays.
    fn cancel_suspension(&mut self, address: &Address) {
        if !self.desk.newest.contains_key(address) || !self.desk.is_leaving(address) {
            return;
        }
        if let Some(mut member) = self.desk.registry.get(address).filter(|member| member.status == Status::Suspended) {
            (member.status, member.since) = (Status::Validator, self.desk.height);
            self.desk.registry.put(member);
            self.desk.forget_waiting(address);
            self.events.push(told("stays", address, "it signs again"));
        }
    }

    fn bar_culprits(&mut self, block: &BlockInput<'_>) {
        for misbehaviour in &block.misbehaviour {
            let address = misbehaviour.address;
            if !self.culprits.insert(address) || planted::has(Bug::BarredReturns) {
                continue;
            }
            let public_key = self.desk.newest.get(&address).map(|(key, _)| *key);
            let record = self.desk.registry.get(&address);
            let Some(public_key) = public_key.or(record.as_ref().map(|record| record.public_key)) else { continue };
            let mut member = record.unwrap_or_else(|| Member::new(public_key, misbehaviour.power, Status::Validator, self.desk.height));
            (member.status, member.since, member.replaces) = (Status::Barred, self.desk.height, None);
            (member.approvals, member.removals) = (Vec::new(), Vec::new());
            self.desk.registry.put(member);
            self.desk.forget_waiting(&address);
            self.events.push(told("barred", &address, &format!("evidence of height {}", misbehaviour.height)));
        }
    }

    /// One transaction of the node.
    pub(crate) fn transact(&mut self, bytes: &[u8]) -> TxResult {
        match self.desk.transact(bytes, false) {
            Err(refusal) => TxResult { code: refusal.code, codespace: NODE_CODESPACE.to_owned(), log: refusal.log, ..TxResult::default() },
            Ok(Granted { action, address, log }) => {
                let events = vec![told(action, &address, &log)];
                TxResult { codespace: NODE_CODESPACE.to_owned(), log, events, ..TxResult::default() }
            }
        }
    }

    /// Ends the block, with what the application asks of the set.
    ///
    /// # Errors
    /// When the merged list is one that the set does not take, which these rules rule out.
    pub(crate) fn end(mut self, block: &BlockInput<'_>, asked: &[ValidatorUpdate]) -> Result<Ended, UpdateError> {
        let before = self.desk.newest.clone();
        let mut set = before.clone();
        self.take_over(&mut set, asked);
        for culprit in &self.culprits {
            if set.len() > 1 && !planted::has(Bug::CulpritStays) {
                set.remove(culprit);
            }
        }
        self.suspend_absent(&set);
        self.grant(&before, &mut set);
        let updates = self.differences(&before, &set);
        self.facts.next_validators.clone().update(&updates)?;
        self.remember(block, &before, &set);
        let checkpoint = self.desk.checkpoint
            || (self.desk.config.checkpoint_interval != 0 && self.desk.height.get().is_multiple_of(self.desk.config.checkpoint_interval));
        if checkpoint {
            self.desk.standing.last_checkpoint = self.desk.height;
            self.events.push(event("checkpoint", &[("height", self.desk.height.to_string())]));
        }
        Ok(Ended { changes: self.desk.registry.into_changes(), standing: self.desk.standing, updates, events: self.events, checkpoint })
    }

    /// What the application asks, one by one in its order. It may not know what the rules did to the set it began with: an
    /// update that the set does not take any more, such as the removal of somebody who left, is passed over and told of.
    fn take_over(&mut self, set: &mut Powers, asked: &[ValidatorUpdate]) {
        for update in asked {
            let address = update.public_key.address();
            let mut next = set.clone();
            match update.power.get() {
                0 => drop(next.remove(&address)),
                power => drop(next.insert(address, (update.public_key, power))),
            }
            let takes = !next.is_empty() && next.len() <= VALIDATORS_MAX && power(total(&next)).is_some();
            if takes && update.public_key.check().is_ok() && next != *set {
                *set = next;
                self.ends_rotation(&address, update.power);
            } else if next != *set || update.power == Power::ZERO {
                self.events.push(told(
                    "refused",
                    &address,
                    &format!("the application asks for power {}, which no set takes", update.power),
                ));
            }
        }
    }

    /// A key that waits to take another's place has a place of its own now. What was admitted was the other's power at its place, and no power
    /// beside it: that JOIN asks for nothing any more.
    fn ends_rotation(&mut self, address: &Address, given: Power) {
        let record = self.desk.registry.get(address).filter(|member| given != Power::ZERO && member.replaces.is_some());
        if let Some(mut member) = record {
            member.replaces = None;
            self.desk.registry.put(member);
            self.desk.forget_waiting(address);
            self.events.push(told("deferred", address, "the application gave it power of its own: it replaces nobody"));
        }
    }

    /// Puts into the line who was absent for too long although it was its turn, and missed every turn.
    fn suspend_absent(&mut self, set: &Powers) {
        let window = self.desk.config.absence_window;
        if window == 0 {
            return;
        }
        let height = self.desk.height;
        let absent: Vec<Address> = self
            .desk
            .standing
            .attendance
            .iter()
            .filter(|seat| {
                seat.last_signed.get().saturating_add(window) < height.get() && seat.slots > 0 && seat.slots == seat.missed_slots
            })
            .map(|seat| seat.address)
            .filter(|address| set.contains_key(address) && !self.desk.is_leaving(address))
            .collect();
        for address in absent {
            let (public_key, had) = set[&address];
            let held = power(had).expect("a power of a set");
            let mut member = self.desk.registry.get(&address).unwrap_or_else(|| Member::new(public_key, held, Status::Validator, height));
            (member.status, member.since, member.power) = (Status::Suspended, height, held);
            self.desk.registry.put(member);
            self.desk.standing.waiting.push(Waiting { since: height, update: ValidatorUpdate { public_key, power: Power::ZERO } });
            self.events.push(told("suspended", &address, &format!("absent for more than {window} heights")));
        }
    }

    /// Goes along the line, and changes the set as far as both rules of the module allow.
    fn grant(&mut self, before: &Powers, set: &mut Powers) {
        let line = std::mem::take(&mut self.desk.standing.waiting);
        let mut stays = Vec::new();
        let mut full = false;
        for waiting in line {
            match if full { Step::Waits } else { self.step(before, set, &waiting) } {
                Step::Granted(next) => *set = next,
                Step::Dropped => {}
                Step::Waits => stays.push(waiting),
                Step::Full => {
                    full = true;
                    stays.push(waiting);
                }
            }
        }
        self.desk.standing.waiting = stays;
    }

    fn step(&mut self, before: &Powers, set: &Powers, waiting: &Waiting) -> Step {
        let address = waiting.update.public_key.address();
        let mut next = set.clone();
        if waiting.update.power == Power::ZERO {
            if next.remove(&address).is_none() {
                return Step::Dropped;
            }
        } else {
            let Some(member) = self.desk.registry.get(&address).filter(|member| member.status != Status::Barred) else {
                return Step::Dropped;
            };
            if !self.desk.is_fresh(member.proven) {
                self.events.push(told("deferred", &address, &format!("its JOIN named block {}, too long ago: join again", member.proven)));
                // One that was to take a place keeps no claim to it: another key may ask for the place.
                match (member.replaces, member.status) {
                    (Some(_), _) => self.desk.registry.remove(&address),
                    (None, Status::Suspended) => self.desk.registry.put(member),
                    (None, _) => self.desk.registry.put(Member { status: Status::Observer, ..member }),
                }
                return Step::Dropped;
            }
            // Who is to take a place that is gone asked for nothing else, and nobody who approved it knew: like a JOIN that is taken
            // back, it leaves nothing with which a later approval could let it in.
            if let Some(old) = member.replaces.filter(|_| !planted::has(Bug::ReplacedKeepsPower))
                && next.remove(&old.address()).is_none_or(|(_, had)| had != waiting.update.power.get())
            {
                let log = format!("{} is gone, or has another power: nothing of this JOIN is left, join as a newcomer", old.address());
                self.events.push(told("deferred", &address, &log));
                self.desk.registry.remove(&address);
                return Step::Dropped;
            }
            next.insert(address, (waiting.update.public_key, waiting.update.power.get()));
        }
        if next.len() > VALIDATORS_MAX || power(total(&next)).is_none() || !self.desk.is_live_quorum(&next) {
            return Step::Waits;
        }
        if self.may_move(before, set, &next) { Step::Granted(next) } else { Step::Full }
    }

    /// Rule 1.
    fn may_move(&self, before: &Powers, set: &Powers, next: &Powers) -> bool {
        let (earlier, start) = self.desk.standing.moved_in_window(
            self.desk.height,
            self.desk.config.power_window,
            power(total(before)).expect("the power of a set"),
        );
        let now = moved(before, next);
        let largest = before.values().map(|(_, power)| *power).max().unwrap_or(0);
        let alone = earlier == 0 && set == before && now <= largest;
        planted::has(Bug::PowerMovesAtOnce) || alone || u128::from(earlier.saturating_add(now)) * 3 <= u128::from(start)
    }

    /// What changed, in address order, and what becomes of the records.
    fn differences(&mut self, before: &Powers, set: &Powers) -> Vec<ValidatorUpdate> {
        let mut updates = Vec::new();
        for (address, (public_key, power)) in set {
            if before.get(address).map(|(_, power)| power) == Some(power) {
                continue;
            }
            let power = self::power(*power).expect("a power of a set");
            updates.push(ValidatorUpdate { public_key: *public_key, power });
            if let Some(mut member) = self.desk.registry.get(address) {
                (member.status, member.since, member.power, member.replaces) = (Status::Validator, self.desk.height, power, None);
                (member.approvals, member.removals) = (Vec::new(), Vec::new());
                self.desk.registry.put(member);
            }
            self.events.push(told("admitted", address, &format!("power {power} from height {}", self.acts_at())));
        }
        for (address, (public_key, _)) in before.iter().filter(|(address, _)| !set.contains_key(*address)) {
            updates.push(ValidatorUpdate { public_key: *public_key, power: Power::ZERO });
            self.desk.forget_waiting(address);
            self.desk.leaves(*address);
            if let Some(member) = self.desk.registry.get(address)
                && !matches!(member.status, Status::Suspended | Status::Barred)
            {
                self.desk.registry.remove(address);
            }
            self.events.push(told("left", address, &format!("no power from height {}", self.acts_at())));
        }
        updates.sort_unstable_by_key(|update| update.public_key.address());
        updates
    }

    fn acts_at(&self) -> Height {
        self.desk.height.next().next()
    }

    /// What the next heights have to know.
    fn remember(&mut self, block: &BlockInput<'_>, before: &Powers, set: &Powers) {
        let height = self.desk.height;
        let standing = &mut self.desk.standing;
        let now = moved(before, set);
        if let Some(now) = power(now).filter(|now| *now != Power::ZERO) {
            let total_before = power(total(before)).expect("the power of a set");
            standing.power_moved.push(PowerMoved { height, total_before, moved: now });
        }
        let window = self.desk.config.power_window;
        standing.power_moved.retain(|moved| moved.height.get().saturating_add(window) > height.get());
        standing.seat(self.facts.next_validators, height.next());
        standing.recent.push(height, block.block_hash);
        standing.recent.keep(self.desk.config.live_window);
        standing.remember_evidence(self.facts.evidence, height, block.time, &block.parameters.evidence);
    }
}

/// What becomes of one who waits.
enum Step {
    /// The set with what it asks.
    Granted(Powers),
    /// It asks for nothing any more.
    Dropped,
    /// It waits, and those behind it may pass.
    Waits,
    /// It waits for power to move again, and so do those behind it: nobody small overtakes somebody large for ever.
    Full,
}

/// Power that changes hands between two sets: the larger of what is added and what is taken away.
fn moved(before: &Powers, after: &Powers) -> u64 {
    let gain = |from: &Powers, to: &Powers| {
        let more = |(address, (_, power)): (&Address, &(_, u64))| power.saturating_sub(from.get(address).map_or(0, |(_, had)| *had));
        to.iter().map(more).fold(0, u64::saturating_add)
    };
    gain(before, after).max(gain(after, before))
}
