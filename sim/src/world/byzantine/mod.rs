//! What liars say instead.
//!
//! A liar runs the replica of everybody else, and keeps its rules in its heart: what it would say passes its mouth, where
//! each of its lies may change it, hold it back, or add to it, for each peer differently. So lies come at the moments at
//! which something is to be said, and a liar never falls behind. It remembers what it hears through its restarts.
//!
//! [`frames`] has the lies of the lanes, [`blocks`] those about blocks, [`proofs`] those about lies, [`answers`] those to who asks, [`raw`] changes bytes
//! and fields, and [`cabal`] is what liars do who are of one mind. Here is what they share, what honest nodes do about it,
//! and the verdict upon a fork.

mod answers;
mod blocks;
mod cabal;
mod frames;
mod proofs;
mod raw;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use lockstep_replica::evidence::forensics;
use lockstep_replica::seam::Write;
use lockstep_replica::signing::guard_owner;
use lockstep_replica::wire::Message;
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Entry, Kind, LogOptions, LogReader};
use lockstep_types::block::Part;
use lockstep_types::codec;
use lockstep_types::{BlockId, Commit, Polka, Proposal, PublicKey, Signature, ValidatorIndex, Vote};

use super::{Outcome, What, World, pair, violation};
use crate::accountability::{Accountability, Statement};
use crate::checks::{Signed, Violation};
use crate::liars::{Budget, Flavour};
use crate::node::{GUARD, LOG, Running};
use crate::plan::{MS, Plan};
use crate::random::Stream;

/// Frames that a liar remembers to say them again.
const HEARD_MAX: usize = 128;
/// Heights whose proposals and votes it remembers.
const HEIGHTS_KEPT: u64 = 2;
/// How long a peer stays outside that was thrown out: longer than a run.
const BAN_NS: u64 = 600_000 * MS;
/// Points at which the shell of a node throws a peer out; one is forgiven each second.
const POINTS_MAX: u64 = 100;

/// One frame that leaves a mouth.
#[derive(Debug, Clone)]
pub(super) struct Say {
    /// Held back for so long.
    pub(super) after: u64,
    pub(super) bytes: Bytes,
    pub(super) gossip: bool,
}

impl Say {
    fn now(bytes: Bytes) -> Self {
        Self { after: 0, bytes, gossip: false }
    }

    fn with(&self, bytes: Bytes) -> Self {
        Self { bytes, ..self.clone() }
    }
}

/// What a liar remembers.
#[derive(Debug)]
struct Mind {
    dice: Stream,
    heard: VecDeque<Bytes>,
    /// By height and round: of others and its own.
    proposals: BTreeMap<(u64, u32), (Proposal, Option<Part>)>,
    votes: BTreeMap<(u64, u32), Vec<Vote>>,
    /// For a block of its own, the one that it proposes instead.
    second_blocks: BTreeMap<BlockId, BlockId>,
    bad_blocks: BTreeMap<BlockId, (Proposal, Part)>,
    /// What it said to whom as an echo.
    echoed: BTreeSet<(Place, Value, usize)>,
    /// What it signed first for a place, if it signs no second thing.
    signed: BTreeMap<Place, Value>,
    /// Transactions it invented.
    txs: u64,
}

/// Height, round and kind.
type Place = (u64, u32, u8);
/// Block and valid round.
type Value = (Option<BlockId>, Option<u32>);

impl Mind {
    fn new(seed: u64, node: usize) -> Self {
        Self {
            dice: Stream::new(seed, &format!("liar {node}")),
            heard: VecDeque::new(),
            proposals: BTreeMap::new(),
            votes: BTreeMap::new(),
            second_blocks: BTreeMap::new(),
            bad_blocks: BTreeMap::new(),
            echoed: BTreeSet::new(),
            signed: BTreeMap::new(),
            txs: 0,
        }
    }

    fn remember(&mut self, message: &Message, bytes: &Bytes) {
        if self.heard.len() >= HEARD_MAX {
            // Which one goes is left to chance: some stay from long ago.
            let place = self.dice.place(self.heard.len());
            self.heard.remove(place);
        }
        self.heard.push_back(bytes.clone());
        match message {
            Message::Proposal { proposal, first } => {
                let place = (proposal.height.get(), proposal.round.get());
                self.proposals.entry(place).or_insert_with(|| (proposal.clone(), first.clone()));
                self.forget(place.0);
            }
            Message::Vote(vote) => self.remember_vote(vote),
            Message::Votes(batch) => batch.0.iter().for_each(|vote| self.remember_vote(vote)),
            _ => {}
        }
    }

    fn remember_vote(&mut self, vote: &Vote) {
        let votes = self.votes.entry((vote.height.get(), vote.round.get())).or_default();
        if !votes.contains(vote) {
            votes.push(vote.clone());
        }
        self.forget(vote.height.get());
    }

    fn forget(&mut self, height: u64) {
        let oldest = height.saturating_sub(HEIGHTS_KEPT);
        // Another liar may have named a height that will never be.
        let is_kept = |at: u64| at >= oldest || height > at.saturating_add(1_000);
        self.proposals.retain(|(at, _), _| is_kept(*at));
        self.votes.retain(|(at, _), _| is_kept(*at));
    }
}

/// A fork, and who is named for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fork {
    pub(crate) height: u64,
    pub(crate) flavour: Flavour,
    /// Power of those whom the messages on the wire name, in thousandths of all.
    pub(crate) named: u64,
    /// Power of those whom the logs and guards of the honest name.
    pub(crate) by_logs: u64,
}

/// What the liars of a run did, and what honest nodes did about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How often each lie was told.
    pub(crate) told: BTreeMap<&'static str, u64>,
    /// Messages of liars that an honest node refused and scored.
    pub(crate) refused: u64,
    /// Connections to liars that an honest node ended.
    pub(crate) expelled: u64,
    /// Liars that were banned, once for each honest node.
    pub(crate) banned: u64,
    /// Pairs of votes that an honest node holds against a liar.
    pub(crate) accused: u64,
    /// Blocks that accuse a liar.
    pub(crate) proven: u64,
    /// Rounds above 0 that some honest node entered.
    pub(crate) rounds: BTreeSet<(u64, u32)>,
    /// What happened to the chain of a cabal.
    pub(crate) fork: Option<Fork>,
    /// Honest nodes that stopped under a cabal, finding their state another than the chain's.
    pub(crate) halts: u64,
}

/// Everything about liars that a world keeps.
#[derive(Debug)]
pub(super) struct Liars {
    minds: BTreeMap<usize, Mind>,
    pub(super) accountability: Accountability,
    pub(super) tally: Tally,
    /// Blocks that no honest validator may vote for, by their hash, and what is wrong with each.
    bad: BTreeMap<Vec<u8>, &'static str>,
    /// Points that (node, peer) has, and when they were counted.
    points: BTreeMap<(usize, usize), (u64, u64)>,
    bans: BTreeMap<(usize, usize), u64>,
}

impl Liars {
    pub(super) fn new(seed: u64, plan: &Plan, keys: &[PublicKey], powers: &[u64]) -> Self {
        let minds = plan.byzantine.liars.iter().map(|liar| (liar.node, Mind::new(seed, liar.node))).collect();
        Self {
            minds,
            accountability: Accountability::new(keys, powers),
            tally: Tally::default(),
            bad: BTreeMap::new(),
            points: BTreeMap::new(),
            bans: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.told.entry(what).or_default() += 1;
    }
}

impl World {
    /// Whether forks are possible, and what is promised is to name who made one.
    pub(super) fn is_over(&self) -> bool {
        self.plan.byzantine.budget == Budget::Over
    }

    /// What a liar sends a peer instead of a frame. `place` is the peer's among its peers.
    pub(super) fn utter(&mut self, from: usize, to: usize, place: usize, bytes: &Bytes, gossip: bool) -> Vec<Say> {
        let say = Say { after: 0, bytes: bytes.clone(), gossip };
        let Some(mut mind) = self.liars.minds.remove(&from) else { return vec![say] };
        if let Ok(message @ (Message::Proposal { .. } | Message::Vote(_))) = Message::decode(bytes) {
            mind.remember(&message, bytes);
        }
        let said = if self.plan.byzantine.cabal.is_some() {
            self.conspire(&mut mind, from, to, say)
        } else {
            let acts = self.plan.byzantine.liars.iter().find(|liar| liar.node == from).map(|liar| liar.acts.clone()).unwrap_or_default();
            acts.into_iter()
                .fold(vec![say], |said, act| said.into_iter().flat_map(|say| self.twist(&mut mind, act, (from, to, place), say)).collect())
        };
        self.liars.minds.insert(from, mind);
        said
    }

    /// A liar hears a frame.
    pub(super) fn overhear(&mut self, liar: usize, from: usize, bytes: &Bytes) {
        let Ok(message) = Message::decode(bytes) else { return };
        let Some(mut mind) = self.liars.minds.remove(&liar) else { return };
        mind.remember(&message, bytes);
        // What a validator says itself; what others pass on of it says nothing of where it is.
        let own = match message {
            Message::Vote(vote) if self.place_of(from, vote.height.get()) == Some(vote.validator) => Some(vote),
            _ => None,
        };
        if let Some(vote) = own.filter(|_| self.is_honest(from)) {
            if self.plan.byzantine.cabal.is_some() {
                self.echo_to_side(&mut mind, liar, from, &vote);
            } else if self
                .plan
                .byzantine
                .liars
                .iter()
                .any(|known| known.node == liar && known.acts.iter().any(|act| act.lie == crate::liars::Lie::Echo))
            {
                self.echo(&mut mind, liar, from, &vote);
            }
        }
        self.liars.minds.insert(liar, mind);
    }

    /// Sends a frame that no replica sent.
    fn inject(&mut self, from: usize, to: usize, bytes: Bytes) {
        let Some(connection) = self.connections.get(&pair(from, to)).copied() else { return };
        if let Some(delay) = self.hop(from, to, bytes.len(), false) {
            self.after(delay, What::Frame { from, to, connection, bytes, gossip: false });
        }
    }

    /// A liar's signature.
    fn forge(&mut self, node: usize, bytes: &[u8]) -> Option<Signature> {
        let key = self.machines[node].key.as_ref()?;
        let signature = self.crypto.sign(key, bytes);
        self.liars.accountability.signed(&key.public_key(), bytes, &signature);
        Some(signature)
    }

    fn signed_vote(&mut self, node: usize, mut vote: Vote) -> Option<Bytes> {
        vote.signature = self.forge(node, &vote.sign_bytes(&self.genesis.chain_id))?;
        Some(Message::Vote(vote).encode())
    }

    fn signed_proposal(&mut self, node: usize, mut proposal: Proposal, first: Option<Part>) -> Option<Bytes> {
        proposal.signature = self.forge(node, &proposal.sign_bytes(&self.genesis.chain_id))?;
        Some(Message::Proposal { proposal, first }.encode())
    }

    // --- what honest nodes do about it ---------------------------------------------------------------------------------

    /// A replica signs: the verdict upon a fork knows what is genuine.
    pub(super) fn attest(&mut self, node: usize, bytes: &[u8], signature: &Signature) {
        if let Some(key) = &self.machines[node].key {
            self.liars.accountability.signed(&key.public_key(), bytes, signature);
        }
    }

    /// No honest validator votes for a block that a liar made invalid.
    pub(super) fn check_vote(&self, node: usize, signed: &Signed) -> Outcome {
        let Some(what) = signed.block.as_ref().and_then(|block| self.liars.bad.get(block)) else { return Ok(()) };
        violation("I3", format!("node {node} signs {signed}, a block that a liar made invalid: {what}"))
    }

    /// What an honest node sends or is sent.
    pub(super) fn show(&mut self, bytes: &Bytes) {
        if self.is_over()
            && let Ok(message) = Message::decode(bytes)
        {
            self.liars.accountability.show(&message);
        }
    }

    /// An honest node refuses something of a peer that lies, and the shell keeps the score.
    pub(super) fn refused(&mut self, node: usize, liar: usize, points: u32) -> Outcome {
        self.liars.tally.refused += 1;
        let (had, at) = self.liars.points.get(&(node, liar)).copied().unwrap_or((0, self.now));
        let forgiven = (self.now - at) / (1_000 * MS);
        let points = had.saturating_sub(forgiven) + u64::from(points);
        self.liars.points.insert((node, liar), (points, self.now));
        if points >= POINTS_MAX && self.plan.byzantine.bans {
            self.liars.points.remove(&(node, liar));
            self.liars.bans.insert((node, liar), self.now + BAN_NS);
            self.liars.tally.banned += 1;
            return self.disconnect(node.min(liar), node.max(liar));
        }
        Ok(())
    }

    /// An honest node ends a connection to a peer: never to another honest one.
    pub(super) fn expels(&mut self, node: usize, other: usize, reason: &str) -> Outcome {
        if !self.is_honest(node) {
            return Ok(());
        }
        if self.is_honest(other) && self.have_parted(node, other) {
            return Ok(());
        }
        if self.is_honest(other) {
            return violation("I13", format!("node {node} throws honest node {other} out: {reason}"));
        }
        self.trace(|| format!("node {node} throws node {other} out: {reason}"));
        self.liars.tally.expelled += 1;
        Ok(())
    }

    /// Whether two nodes may connect: neither has banned the other, and who is secluded knows few.
    pub(super) fn may_meet(&self, a: usize, b: usize) -> bool {
        let is_banned = |by: usize, peer: usize| self.liars.bans.get(&(by, peer)).is_some_and(|until| *until > self.now);
        let knows = |one: usize, other: usize| {
            self.plan.byzantine.secluded.is_none_or(|secluded| secluded.node != one || secluded.friend == other || !self.is_honest(other))
        };
        !is_banned(a, b) && !is_banned(b, a) && knows(a, b) && knows(b, a)
    }

    // --- the verdict ---------------------------------------------------------------------------------------------------

    /// Two blocks at one height. Under a cabal the run ends here, if those who are named are enough and all of them lied.
    pub(super) fn forked(&mut self, broken: Violation, height: u64) -> Outcome {
        let Some(cabal) = self.plan.byzantine.cabal.as_ref().filter(|_| broken.invariant == "I1") else { return Err(broken) };
        let flavour = cabal.flavour;
        let shown: Vec<Statement> = self.liars.accountability.shown().into_iter().filter(|(_, signed)| signed.height == height).collect();
        let named = self.name_culprits("the wire", &shown, true, Some(height))?;
        let logged = self.logged(height);
        let by_logs = self.name_culprits("the logs", &logged, false, Some(height))?;
        self.inspected(height, &logged)?;
        self.trace(|| format!("the chain forks at height {height}; named on the wire {named}, by logs {by_logs} of 1000"));
        self.liars.tally.fork = Some(Fork { height, flavour, named, by_logs });
        Ok(())
    }

    /// Whether two nodes have decided different blocks at a height, which a cabal alone can bring about. They may not have told so yet: a
    /// decision is told once it is durable and executed.
    pub(super) fn have_parted(&self, node: usize, other: usize) -> bool {
        let running = |node: usize| self.machines[node].running.as_ref();
        let Some((ours, theirs)) = running(node).zip(running(other)).filter(|_| self.plan.byzantine.cabal.is_some()) else { return false };
        // The newest decision may not be in the log yet.
        let decided = |running: &Running, height: u64| {
            let chain = running.replica.chain();
            let newest = chain.last_block_id.filter(|_| chain.height.get() == height).map(|block_id| block_id.hash.0);
            newest.or_else(|| running.reader.decided_hash(height))
        };
        let both = |height: u64| decided(ours, height).zip(decided(theirs, height));
        let tip = ours.replica.chain().height.min(theirs.replica.chain().height).get();
        (1..=tip).filter_map(both).any(|(ours, theirs)| ours != theirs)
    }

    /// What `lockstep inspect --fork` makes of the same files names the same: it shares no code with the judgement here.
    fn inspected(&mut self, height: u64, logged: &[Statement]) -> Outcome {
        let Some(chain) = self.machines.iter().find_map(|machine| machine.running.as_ref().map(|running| running.replica.chain().clone()))
        else {
            return Ok(());
        };
        let (commits, polkas) = self.kept_votes(height);
        let votes = forensics::votes(&commits, &polkas);
        let crypto = &mut self.crypto;
        let named = forensics::culprits(&votes, &chain.validators, &chain.chain_id, &mut |checks| crypto.verify(checks));
        let named: BTreeSet<ValidatorIndex> = named.into_keys().collect();
        let expected: BTreeSet<ValidatorIndex> =
            self.liars.accountability.culprits(logged, false).into_keys().filter_map(|node| self.place_of(node, height)).collect();
        if named == expected {
            Ok(())
        } else {
            violation("I9", format!("the inspection of both sides names {named:?}, the checker {expected:?}"))
        }
    }

    /// Certificates and polkas of a height in the files of honest validators.
    fn kept_votes(&self, height: u64) -> (Vec<Commit>, Vec<Polka>) {
        let (mut commits, mut polkas) = (Vec::new(), Vec::new());
        for node in (0..self.plan.powers.len()).filter(|node| self.is_honest(*node)) {
            let Some((log, records)) = self.files_of(node) else { continue };
            for entry in log.entries(height) {
                let Ok(stored) = log.read(&entry) else { continue };
                match entry.kind {
                    Kind::Polka => polkas.extend(codec::decode::<Polka>(1, &stored.payload, 1 << 20)),
                    Kind::Decision => commits.extend(codec::decode::<Commit>(1, &stored.payload, 1 << 20)),
                    _ => {}
                }
            }
            let locks = records.iter().flat_map(|record| record.lock.iter().chain(&record.valid));
            polkas.extend(locks.filter_map(|bytes| codec::decode::<Polka>(1, bytes, 1 << 20).ok()));
        }
        commits.retain(|commit| commit.height.get() == height);
        polkas.retain(|polka| polka.height.get() == height);
        (commits, polkas)
    }

    /// I9: who is named is not honest; after a fork at a height, their power there is more than a third. Gives it in thousandths.
    fn name_culprits(&self, source: &str, statements: &[Statement], is_complete: bool, forked: Option<u64>) -> Result<u64, Violation> {
        let fail = |what: String| Err(Violation { invariant: "I9", what });
        let culprits = self.liars.accountability.culprits(statements, is_complete);
        if let Some((node, reason)) = culprits.iter().find(|(node, _)| self.is_honest(**node)) {
            return fail(format!("{source} accuse node {node}, who is honest: {reason}"));
        }
        let (power, total) = self.liars.accountability.power(forked.unwrap_or(0), culprits.keys().copied());
        if forked.is_some() && 3 * power <= total {
            return fail(format!("{source} name {:?} for a fork, power {power} of {total}", culprits.keys()));
        }
        Ok(1_000 * power / total)
    }

    /// Nobody honest has signed what breaks the rules, whatever was signed around it.
    pub(super) fn nobody_honest_is_accused(&self) -> Outcome {
        if self.plan.byzantine.is_empty() && self.plan.twins.is_none() {
            return Ok(());
        }
        let made = self.liars.accountability.made();
        self.name_culprits("all signatures", &made, true, None).map(|_| ())
    }

    /// What the logs and the guards of honest nodes hold of a height: certificates, and the polkas that their own votes stand
    /// on (`docs/format-storage.md`). After a fork nothing else is promised to be there.
    fn logged(&self, height: u64) -> Vec<Statement> {
        let mut signatures: Vec<Signature> = Vec::new();
        let polka = |bytes: &[u8]| codec::decode::<Polka>(1, bytes, 1 << 20).map_or_else(|_| Vec::new(), |polka| polka.signatures);
        for node in (0..self.plan.powers.len()).filter(|node| self.is_honest(*node)) {
            let Some((log, records)) = self.files_of(node) else { continue };
            for entry in log.entries(height) {
                let Ok(stored) = log.read(&entry) else { continue };
                match entry.kind {
                    Kind::Polka => signatures.extend(polka(&stored.payload).into_iter().map(|sig| sig.signature)),
                    Kind::Decision => {
                        let commit =
                            codec::decode::<Commit>(1, &stored.payload, 1 << 20).map_or_else(|_| Vec::new(), |commit| commit.signatures);
                        signatures.extend(commit.iter().filter_map(lockstep_types::CommitSig::slot).map(|slot| slot.signature));
                    }
                    _ => {}
                }
            }
            for bytes in records.iter().flat_map(|record| record.lock.iter().chain(&record.valid)) {
                signatures.extend(polka(bytes).into_iter().map(|sig| sig.signature));
            }
        }
        let statements = signatures.iter().filter_map(|signature| self.liars.accountability.statement(signature));
        statements.filter(|(_, signed)| signed.height == height).collect()
    }

    /// I9: a lock that the guard is about to forget has its polka in the log. Else, after a fork, nothing in an honest
    /// validator's files would show why it precommitted there.
    pub(super) fn keeps_polka(&self, node: usize) -> Outcome {
        let machine = &self.machines[node];
        let Some(running) = machine.running.as_ref().filter(|_| machine.rot.times == 0) else { return Ok(()) };
        let (Some((_, Write::Guard(next))), Some(guard)) = (running.guard_queue.front(), &running.guard) else { return Ok(()) };
        let lock = |record: &GuardRecord| {
            let polka = codec::decode::<Polka>(1, record.lock.as_ref()?, 1 << 20).ok()?;
            Some((polka.round.get(), polka.block_id.hash.0))
        };
        // The older of two slots is written over.
        let records = guard.records();
        let [older, newer] = records[..] else { return Ok(()) };
        let Some(forgotten) = lock(older).filter(|_| older.height == next.height) else { return Ok(()) };
        if [lock(newer), lock(next)].contains(&Some(forgotten)) {
            return Ok(());
        }
        let durable = running.reader.durable_sequence();
        let is_it = |entry: &Entry| entry.kind == Kind::Polka && (entry.round, entry.block_hash) == forgotten && entry.sequence <= durable;
        if running.reader.entries(next.height).iter().any(is_it) {
            return Ok(());
        }
        violation(
            "I9",
            format!("node {node} forgets its lock of height {}, round {}, whose polka is not in its log", next.height, forgotten.0),
        )
    }

    /// A validator's log, and what its guard holds; of a machine that is down, as its next start will find them.
    fn files_of(&self, node: usize) -> Option<(LogReader, Vec<GuardRecord>)> {
        let machine = &self.machines[node];
        if let Some(running) = &machine.running {
            return Some((running.reader.clone(), running.guard.iter().flat_map(Guard::records).cloned().collect()));
        }
        let disk = machine.disk.fork().disk();
        let genesis_hash = self.genesis.hash();
        let options = LogOptions { salt: genesis_hash.0, segment_bytes: machine.segment_bytes };
        let (log, _) = BlockLog::open(Arc::clone(&disk), LOG, options).ok()?;
        let owner = guard_owner(&genesis_hash, &machine.key.as_ref()?.public_key());
        let guard = Guard::open(&*disk, GUARD, owner.0).ok()?;
        Some((log.reader(), guard.records().into_iter().cloned().collect()))
    }
}
