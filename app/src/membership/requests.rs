//! What a transaction of the node asks for, and the rules that admit, refuse or defer it.

use std::collections::BTreeMap;

use lockstep_types::planted::{self, Bug};
use lockstep_types::quorum::Quorum;
use lockstep_types::{Address, Height, Power, PublicKey, ValidatorSet, ValidatorUpdate};

use super::config::{Admission, Config};
use super::registry::{MEMBERS_MAX, Member, OBSERVERS_MAX, Registry, Status, TAKEN_BACK_MAX};
use super::signatures::Signed;
use super::standing::Standing;
use super::tx::{Approve, Checkpoint, Join, NodeTx, Quit, RecentBlock};
use crate::application::Verdict;
use crate::node_tx::{NODE_CODESPACE, NODE_TX_MALFORMED, NODE_TX_NOT_ALLOWED, NODE_TX_REFUSED, NODE_TX_SIGNATURE, NODE_TX_STALE};
use crate::record::Waiting;
use crate::tree::Tree;

/// Powers by address, of the newest set.
pub(super) type Powers = BTreeMap<Address, (PublicKey, u64)>;

/// Why a transaction has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u32,
    pub(crate) log: String,
}

fn refuse<T>(code: u32, log: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, log: log.into() })
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    /// One word: `join`, `approve`, `quit`, `checkpoint`.
    pub(crate) action: &'static str,
    /// Of whom.
    pub(crate) address: Address,
    /// What comes next, for people.
    pub(crate) log: String,
}

/// Where requests are judged: the rules, the members, the chain, as they are while a block is executed, or after one.
#[derive(Debug, Clone)]
pub(crate) struct Desk<'a> {
    pub(super) config: &'a Config,
    /// Transactions whose signatures were verified before.
    pub(super) signed: &'a Signed,
    /// The height of the block that a request is in.
    pub(super) height: Height,
    pub(super) registry: Registry<'a>,
    pub(super) standing: Standing,
    /// The newest set, before this block's updates.
    pub(super) newest: Powers,
    /// Whether this block asked for a checkpoint.
    pub(super) checkpoint: bool,
}

pub(super) fn powers(set: &ValidatorSet) -> Powers {
    set.iter().map(|validator| (validator.address, (validator.public_key, validator.power.get()))).collect()
}

pub(super) fn total(powers: &Powers) -> u64 {
    powers.values().map(|(_, power)| *power).fold(0, u64::saturating_add)
}

impl<'a> Desk<'a> {
    /// For the block after this height.
    pub(crate) fn after(
        config: &'a Config,
        signed: &'a Signed,
        height: Height,
        tree: &'a Tree,
        standing: &Standing,
        newest: &ValidatorSet,
    ) -> Self {
        Self {
            config,
            signed,
            height: height.next(),
            registry: Registry::open(tree),
            standing: standing.clone(),
            newest: powers(newest),
            checkpoint: false,
        }
    }

    /// Reads and carries out one transaction. `known` says that its signatures were verified before.
    pub(crate) fn transact(&mut self, bytes: &[u8], known: bool) -> Result<Granted, Refusal> {
        let read = self.signed.read(bytes, self.config);
        let read = read.map_err(|error| Refusal { code: NODE_TX_MALFORMED, log: error.to_string() })?;
        self.check_recent(read.tx.recent())?;
        if !known {
            let verified = self.signed.verify(&read, self.config);
            verified.map_err(|error| Refusal { code: NODE_TX_SIGNATURE, log: error.to_string() })?;
        }
        self.check_still_meant(&read.tx)?;
        match read.tx {
            NodeTx::Join(join) => self.join(*join),
            NodeTx::Approve(approve) => self.approve(&approve),
            NodeTx::Quit(quit) => self.quit(&quit),
            NodeTx::Checkpoint(checkpoint) => self.checkpoint(&checkpoint),
        }
    }

    /// Whether a height is as young as what proves something must be.
    pub(super) fn is_fresh(&self, height: Height) -> bool {
        height != Height::ZERO && height.get().saturating_add(self.config.live_window) >= self.height.get()
    }

    fn check_recent(&self, recent: RecentBlock) -> Result<(), Refusal> {
        if !self.is_fresh(recent.height) {
            let log = format!(
                "it names block {}, and this is height {}: it must be one of the last {}; sign it again over a newer block",
                recent.height, self.height, self.config.live_window
            );
            return refuse(NODE_TX_STALE, log);
        }
        match self.standing.recent.get(recent.height) {
            Some(hash) if hash == recent.hash => Ok(()),
            Some(hash) => refuse(NODE_TX_STALE, format!("block {} of this chain is {hash}, and it names {}", recent.height, recent.hash)),
            None => refuse(
                NODE_TX_STALE,
                format!("block {} is not one of the remembered blocks, the newest is {}", recent.height, self.standing.recent.newest()),
            ),
        }
    }

    /// Whoever hands on what was signed before a key left does not undo that it left, nor have it leave again once it is back: everybody can
    /// read in the chain what was asked before, and nothing but its age keeps it out of a later block.
    fn check_still_meant(&self, tx: &NodeTx) -> Result<(), Refusal> {
        if planted::has(Bug::LeaversForgotten) {
            return Ok(());
        }
        let keys: &[Option<PublicKey>] = match tx {
            NodeTx::Join(join) => &[Some(join.public_key), join.replaces],
            NodeTx::Approve(approve) => &[Some(approve.public_key)],
            NodeTx::Quit(quit) => &[Some(quit.public_key)],
            NodeTx::Checkpoint(_) => &[],
        };
        let recent = tx.recent().height;
        for address in keys.iter().flatten().map(PublicKey::address) {
            let left = self.registry.left_at(&address).filter(|left| *left > recent);
            if let Some(left) = left {
                let log = format!("it names block {recent}, and {address} left at height {left}: sign it again over a newer block");
                return refuse(NODE_TX_STALE, log);
            }
        }
        Ok(())
    }

    /// A key has no power any more, or takes back that it asked for some.
    pub(super) fn leaves(&mut self, address: Address) {
        let oldest = Height::new(self.height.get().saturating_sub(self.config.live_window)).unwrap_or(Height::ZERO);
        self.registry.leave(address, self.height, oldest);
    }

    /// Whether a member's vote can be counted on: it signed one of the last commits, or has only just been let in.
    pub(super) fn is_live(&self, address: &Address) -> bool {
        self.standing
            .attendance
            .iter()
            .find(|attendance| attendance.address == *address)
            .is_none_or(|attendance| attendance.last_signed.get().saturating_add(self.config.counted_on_window()) >= self.height.get())
    }

    /// Rule 2: a set that is not empty, and whose live members are a quorum.
    pub(super) fn is_live_quorum(&self, set: &Powers) -> bool {
        let is_live = |address: &Address| self.is_live(address) || planted::has(Bug::DeadCountAsLive);
        let live = set.iter().filter(|(address, _)| is_live(address)).map(|(_, (_, power))| *power).fold(0, u64::saturating_add);
        !set.is_empty() && power(live).is_some_and(|live| power(total(set)).is_some_and(|total| Quorum::Byzantine.is_quorum(live, total)))
    }

    fn waits(&self, address: &Address) -> Option<&Waiting> {
        self.standing.waiting.iter().find(|waiting| waiting.update.public_key.address() == *address)
    }

    pub(super) fn is_leaving(&self, address: &Address) -> bool {
        self.waits(address).is_some_and(|waiting| waiting.update.power == Power::ZERO)
    }

    fn wait(&mut self, public_key: PublicKey, power: Power) {
        self.standing.waiting.push(Waiting { since: self.height, update: ValidatorUpdate { public_key, power } });
    }

    pub(super) fn forget_waiting(&mut self, address: &Address) {
        self.standing.waiting.retain(|waiting| waiting.update.public_key.address() != *address);
    }

    fn join(&mut self, join: Join) -> Result<Granted, Refusal> {
        let address = join.public_key.address();
        let granted = |log: String| Ok(Granted { action: "join", address, log });
        let record = self.registry.get(&address);
        if record.as_ref().is_some_and(|record| record.status == Status::Barred) {
            return refuse(NODE_TX_REFUSED, "this key misbehaved, as evidence in the chain proves: join with another key");
        }
        // Whoever hands on an old JOIN does not undo with it what the key asked for since, and is not let in by what that one proved.
        if let Some(newer) = record.as_ref().map(|record| record.proven).filter(|proven| *proven > join.recent.height) {
            let log = format!(
                "it names block {}, and a JOIN of this key that names block {newer} was taken before: sign it again over a newer block",
                join.recent.height
            );
            return refuse(NODE_TX_STALE, log);
        }
        let suspended = record.as_ref().is_some_and(|record| record.status == Status::Suspended);
        if self.newest.contains_key(&address) && !suspended {
            let log = if self.is_leaving(&address) {
                "this validator has quit and still has power: it can join again when it has left"
            } else {
                "this key is a validator already"
            };
            return refuse(NODE_TX_REFUSED, log);
        }
        self.check_admitted(&address, record.as_ref(), &join)?;
        if let Some(old) = &join.replaces {
            self.check_replaced(old, &join)?;
        }
        let largest = self.newest.values().map(|(_, power)| *power).max().unwrap_or(0).max(total(&self.newest) / 3);
        if join.power.get() > largest {
            let log = format!("it asks for power {}, and at most {largest} is ever moved at once: ask for that much", join.power);
            return refuse(NODE_TX_REFUSED, log);
        }
        let mut member = match record {
            Some(record) => record,
            None => {
                self.make_room()?;
                Member::new(join.public_key, join.power, Status::Observer, self.height)
            }
        };
        let returns = suspended && member.power == join.power && join.replaces.is_none();
        if member.status == Status::Invited {
            (member.status, member.since) = (Status::Observer, self.height);
        }
        if member.power != join.power && !member.approvals.is_empty() {
            if member.status == Status::Observer && member.proven == Height::ZERO {
                let log = format!("it is approved with power {}, and asks for {}: ask for what was approved", member.power, join.power);
                return refuse(NODE_TX_REFUSED, log);
            }
            member.approvals.clear();
        }
        if !suspended {
            member.power = join.power;
        } else if !returns {
            return refuse(NODE_TX_REFUSED, format!("a suspended validator returns with the power it had, {}", member.power));
        }
        member.proven = join.recent.height;
        (member.moniker, member.addresses, member.replaces) = (join.moniker, join.addresses, join.replaces);
        let still_there = self.newest.contains_key(&address);
        self.registry.put(member.clone());
        if returns && still_there {
            // Its removal was asked for and not granted yet: it is back before it was gone.
            self.forget_waiting(&address);
            (member.status, member.since) = (Status::Validator, self.height);
            self.registry.put(member);
            return granted("back: it keeps its power".to_owned());
        }
        granted(self.consider(&address, returns))
    }

    /// What was admitted stands as it was admitted until it is granted: a rotation needs no approval because the old key goes, and
    /// must not become a newcomer that nobody approved, nor an approval for one power become another.
    fn check_admitted(&self, address: &Address, record: Option<&Member>, join: &Join) -> Result<(), Refusal> {
        let admitted = self.waits(address).filter(|waiting| waiting.update.power != Power::ZERO);
        let Some((waiting, record)) = admitted.zip(record) else { return Ok(()) };
        if (waiting.update.power == join.power && record.replaces == join.replaces) || planted::has(Bug::AdmittedExchanged) {
            return Ok(());
        }
        let place = record.replaces.map_or_else(String::new, |old| format!(" in the place of {}", old.address()));
        let log = format!(
            "it is admitted with power {}{place} and waits until power may move: ask for the same, or take that back by QUIT first",
            waiting.update.power
        );
        refuse(NODE_TX_REFUSED, log)
    }

    fn check_replaced(&self, old: &PublicKey, join: &Join) -> Result<(), Refusal> {
        let address = old.address();
        let Some((_, power)) = self.newest.get(&address) else {
            return refuse(NODE_TX_NOT_ALLOWED, format!("{address}, which it is to replace, is no validator"));
        };
        if self.is_leaving(&address) || self.registry.get(&address).is_some_and(|record| record.status == Status::Suspended) {
            return refuse(NODE_TX_REFUSED, format!("{address}, which it is to replace, is leaving"));
        }
        if *power != join.power.get() {
            let log =
                format!("{address} has power {power}, and the key that replaces it asks for {}: a rotation keeps the power", join.power);
            return refuse(NODE_TX_REFUSED, log);
        }
        let mut others = self.registry.members().filter(|member| member.replaces == Some(*old) && member.public_key != join.public_key);
        match others.next() {
            Some(other) => refuse(NODE_TX_REFUSED, format!("{address} is being replaced by {} already", other.public_key.address())),
            None => Ok(()),
        }
    }

    /// A free record for a newcomer: where there are too many, one that nobody approved and that no longer proves anything
    /// gives up its own.
    fn make_room(&mut self) -> Result<(), Refusal> {
        let outside = self.registry.members().filter(Member::is_outside).count();
        if outside < OBSERVERS_MAX && self.registry.len() < MEMBERS_MAX {
            return Ok(());
        }
        let idle = |member: &Member| member.is_outside() && member.approvals.is_empty() && !self.is_fresh(member.proven);
        let oldest = self.registry.members().filter(idle).min_by_key(|member| (member.proven, member.since, member.public_key.address()));
        let Some(oldest) = oldest.filter(|_| outside > 0) else {
            let log =
                format!("{outside} already ask to be admitted, at most {OBSERVERS_MAX} may: one that is approved beforehand has a place");
            return refuse(NODE_TX_REFUSED, log);
        };
        let address = oldest.public_key.address();
        self.forget_waiting(&address);
        self.registry.remove(&address);
        Ok(())
    }

    /// Whether a member has what admits it; then it waits for power to move. Says what comes next.
    fn consider(&mut self, address: &Address, returns: bool) -> String {
        let member = self.registry.get(address).expect("just written");
        if self.waits(address).is_some() {
            return "admitted already: it waits until power may move".to_owned();
        }
        let missing = if returns || member.replaces.is_some() { None } else { self.missing_approval(&member) };
        if let Some(missing) = missing {
            return missing;
        }
        if member.status == Status::Invited {
            return "approved: it is admitted when it joins".to_owned();
        }
        if !self.is_fresh(member.proven) {
            return format!("approved: its JOIN named block {}, too long ago; it is admitted when it joins again", member.proven);
        }
        self.wait(member.public_key, member.power);
        "admitted: it has power two heights after power may move".to_owned()
    }

    /// What a member lacks to be admitted, as the policy counts it now.
    fn missing_approval(&self, member: &Member) -> Option<String> {
        match self.config.admission {
            _ if planted::has(Bug::ApprovalUnneeded) => None,
            Admission::Open => None,
            Admission::Authority => {
                let given = member.approvals.iter().filter(|key| self.config.authority.keys.contains(key)).count();
                let wanted = self.config.authority.threshold as usize;
                (given < wanted).then(|| format!("observer: {given} of {wanted} keys of the authority approve"))
            }
            Admission::Vote => {
                let of = |key: &PublicKey| self.newest.get(&key.address()).map_or(0, |(_, power)| *power);
                let given = member.approvals.iter().map(of).fold(0, u64::saturating_add);
                let total = total(&self.newest);
                let enough = power(given).zip(power(total)).is_some_and(|(given, total)| Quorum::Byzantine.is_quorum(given, total));
                (!enough).then(|| format!("observer: {given} of {total} of the power approve, more than two thirds are needed"))
            }
        }
    }

    fn approve(&mut self, approve: &Approve) -> Result<Granted, Refusal> {
        let address = approve.public_key.address();
        match self.config.admission {
            Admission::Open => return refuse(NODE_TX_NOT_ALLOWED, "on this chain nobody has to approve (admission is open)"),
            Admission::Authority if !self.config.authority.keys.contains(&approve.signer) => {
                return refuse(
                    NODE_TX_NOT_ALLOWED,
                    format!("{} is no key of the authority, which admits on this chain", approve.signer.address()),
                );
            }
            Admission::Vote if !self.newest.contains_key(&approve.signer.address()) => {
                return refuse(
                    NODE_TX_NOT_ALLOWED,
                    format!("{} is no validator, and validators admit on this chain", approve.signer.address()),
                );
            }
            Admission::Authority | Admission::Vote => {}
        }
        if self.newest.contains_key(&address) {
            return refuse(NODE_TX_REFUSED, format!("{address} is a validator already"));
        }
        let mut member = match self.registry.get(&address) {
            Some(member) if member.status == Status::Barred => {
                return refuse(NODE_TX_REFUSED, format!("{address} misbehaved, as evidence in the chain proves"));
            }
            Some(member) if member.power != approve.power => {
                let log = format!("{address} asks for power {}, and this approves {}", member.power, approve.power);
                return refuse(NODE_TX_REFUSED, log);
            }
            Some(member) => member,
            None => {
                self.make_room()?;
                Member::new(approve.public_key, approve.power, Status::Invited, self.height)
            }
        };
        if member.approvals.contains(&approve.signer) {
            return refuse(NODE_TX_REFUSED, format!("{} has approved {address} already", approve.signer.address()));
        }
        // Approvals by those who are no validators any more count for nothing and make room.
        let (newest, authority) = (&self.newest, &self.config.authority.keys);
        member.approvals.retain(|key| newest.contains_key(&key.address()) || authority.contains(key));
        member.approvals.push(approve.signer);
        self.registry.put(member);
        let log = self.consider(&address, false);
        Ok(Granted { action: "approve", address, log })
    }

    fn quit(&mut self, quit: &Quit) -> Result<Granted, Refusal> {
        let address = quit.public_key.address();
        let granted = |log: String| Ok(Granted { action: "quit", address, log });
        let own = quit.signer == quit.public_key;
        if !own && !self.config.authority.keys.contains(&quit.signer) {
            return refuse(
                NODE_TX_NOT_ALLOWED,
                format!("{} may not ask {address} to leave: only itself and the authority may", quit.signer.address()),
            );
        }
        let record = self.registry.get(&address);
        let Some((public_key, _)) = self.newest.get(&address).copied() else {
            return match record {
                Some(record) if record.status != Status::Barred => {
                    if self.registry.left_count() >= TAKEN_BACK_MAX {
                        let log = format!("too many left in the last {} heights: ask again later", self.config.live_window);
                        return refuse(NODE_TX_REFUSED, log);
                    }
                    self.forget_waiting(&address);
                    self.registry.remove(&address);
                    self.leaves(address);
                    granted("it takes its JOIN back: its record is gone".to_owned())
                }
                _ => refuse(NODE_TX_REFUSED, format!("{address} is no validator and does not ask to be one")),
            };
        };
        if self.is_leaving(&address) {
            return refuse(NODE_TX_REFUSED, format!("{address} is leaving already: it waits until power may move"));
        }
        // Everything that leaves already, and this one: what remains must be able to decide.
        let mut remaining = self.newest.clone();
        remaining.retain(|other, _| *other != address && !self.is_leaving(other));
        if !self.is_live_quorum(&remaining) {
            let live = remaining.iter().filter(|(other, _)| self.is_live(other)).map(|(_, (_, power))| *power).fold(0, u64::saturating_add);
            let log = format!(
                "without {address} there would be power {} of which {live} signed one of the last {} commits; more than two thirds must, \
                 or the chain stops",
                total(&remaining),
                self.config.counted_on_window()
            );
            return refuse(NODE_TX_REFUSED, log);
        }
        if !own {
            let power = Power::new(self.newest[&address].1).expect("a power of a set");
            let mut member = record.unwrap_or_else(|| Member::new(public_key, power, Status::Validator, self.height));
            if member.removals.contains(&quit.signer) {
                return refuse(NODE_TX_REFUSED, format!("{} has asked for that already", quit.signer.address()));
            }
            member.removals.push(quit.signer);
            let (given, wanted) = (member.removals.len(), self.config.authority.threshold as usize);
            self.registry.put(member);
            if given < wanted {
                return granted(format!("{given} of {wanted} keys of the authority ask {address} to leave"));
            }
        }
        self.wait(public_key, Power::ZERO);
        granted("it leaves two heights after power may move, and signs until then".to_owned())
    }

    fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<Granted, Refusal> {
        let address = checkpoint.signer.address();
        if !self.newest.contains_key(&address) && !self.config.authority.keys.contains(&checkpoint.signer) {
            return refuse(NODE_TX_NOT_ALLOWED, format!("{address} may not ask for a checkpoint: validators and the authority may"));
        }
        let last = self.standing.last_checkpoint;
        let next = Height::new(last.get().saturating_add(self.config.checkpoint_spacing)).unwrap_or(Height::MAX);
        if self.checkpoint || (last != Height::ZERO && self.height < next) {
            let log = format!(
                "the last checkpoint was made at {}; the next may come at {next}",
                if self.checkpoint { self.height } else { last }
            );
            return refuse(NODE_TX_REFUSED, log);
        }
        self.checkpoint = true;
        Ok(Granted { action: "checkpoint", address, log: format!("a checkpoint at height {}", self.height) })
    }
}

pub(super) fn power(value: u64) -> Option<Power> {
    Power::new(value)
}

/// Priority of what validators and the authority ask for: membership goes on when the mempool is full.
const PRIORITY: i64 = 1 << 40;

/// The verdict on a transaction of the node that wants into the mempool, from the state after a block.
pub(crate) fn judge(mut desk: Desk<'_>, bytes: &[u8], known: bool) -> Verdict {
    match desk.transact(bytes, known) {
        Err(refusal) => Verdict::refused(refusal.code, NODE_CODESPACE, refusal.log),
        Ok(granted) => {
            let signer = NodeTx::parse(bytes).ok().map(|tx| *tx.signer());
            let known = signer.is_some_and(|key| desk.newest.contains_key(&key.address()) || desk.config.authority.keys.contains(&key));
            Verdict {
                log: granted.log,
                codespace: NODE_CODESPACE.to_owned(),
                gas_wanted: 1,
                priority: if known { PRIORITY } else { 0 },
                sender: signer.map(|key| [b"node/", &key.0[..]].concat()),
                ..Verdict::default()
            }
        }
    }
}
