//! What must hold, judged by code of its own: naive, slow, and reading only what left the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use lockstep_app::node_tx::is_node_tx;
use lockstep_replica::seam::Outcome;
use lockstep_types::{AppHash, Block, BlockId, Commit, CommitSig, Hash, Height};

use crate::members::{Powers, Rules};
use crate::plan::Plan;
use crate::subject::Subject;

/// A broken invariant (numbers as in `docs/simulator.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

/// A height as the first node that committed it saw it.
#[derive(Debug)]
struct Decided {
    block_id: BlockId,
    block: Arc<Block>,
    app_hash: AppHash,
    /// As the first one who told of it had it.
    commit: Commit,
}

/// What every checker remembers.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The validators, by the first height of each set.
    sets: BTreeMap<u64, Powers>,
    /// Who may come and go, where validators do.
    rules: Option<Rules>,
    /// Whether the application is the one that is modelled here, and whether it may add transactions to those of clients.
    is_kv: bool,
    adds_transactions: bool,
    chain: BTreeMap<u64, Decided>,
    /// Sign-bytes of honest keys by (key, type, height, round).
    signed: BTreeMap<(usize, u64, u64, u64), Vec<u8>>,
    /// Round and block of the last precommit for a block, by (key, height).
    locks: BTreeMap<(usize, u64), (u64, Vec<u8>)>,
    /// How often clients sent each transaction.
    submitted: BTreeMap<Hash, u64>,
    /// Transactions reported committed, with their height.
    acknowledged: BTreeMap<Hash, BTreeSet<Height>>,
    /// Highest height that each node told its readers of.
    told: BTreeMap<usize, u64>,
    /// The key-value application again, in the simplest way.
    model: BTreeMap<Vec<u8>, Vec<u8>>,
    model_height: u64,
    /// Evidence of two votes in one step, by validator.
    pub(crate) accused: BTreeSet<usize>,
}

impl Checks {
    /// A liar says what it submits, too, as far as it has the form of a transaction ([`Checks::submitted`]).
    pub(crate) fn new(powers: Powers, subject: &Subject, plan: &Plan) -> Self {
        let rules = plan.members.map(|windows| Rules::new(windows, powers.clone()));
        let sets = BTreeMap::from([(1, powers)]);
        Self { sets, rules, is_kv: subject.is_kv, adds_transactions: subject.adds_transactions, ..Self::default() }
    }

    /// A request that the chain granted lately, of those that speak of who validates.
    pub(crate) fn granted(&self, place: u64) -> Option<&[u8]> {
        self.rules.as_ref()?.granted(place)
    }

    /// The newest set of validators, and the first height that it decides.
    pub(crate) fn newest_set(&self) -> (u64, &Powers) {
        self.sets.last_key_value().map(|(from, set)| (*from, set)).expect("genesis has a set")
    }

    /// Who decides a height.
    pub(crate) fn set_of(&self, height: u64) -> &Powers {
        self.sets.range(..=height.max(1)).next_back().expect("genesis has a set").1
    }

    /// How often the validators changed.
    pub(crate) fn views(&self) -> u64 {
        self.sets.len() as u64 - 1
    }

    pub(crate) fn submitted(&mut self, tx: &[u8]) {
        *self.submitted.entry(Hash::of(tx)).or_default() += 1;
    }

    /// I4: an honest key signs one thing for a height, round and type, however often its node restarts, and keeps its lock:
    /// having precommitted a block, it prevotes another only on a polka of that round or a later one (L23, L29).
    pub(crate) fn signed(&mut self, node: usize, bytes: &[u8]) -> Result<Signed, Violation> {
        let fail = |what: String| Err(Violation { invariant: "I4", what: format!("node {node} {what}") });
        let Some(signed) = Signed::read(bytes) else {
            return fail(format!("signs bytes that are no vote and no proposal: {bytes:02x?}"));
        };
        let Signed { kind, height, round, .. } = signed;
        match self.signed.insert((node, kind, height, round), bytes.to_vec()) {
            Some(before) if before == bytes => return Ok(signed),
            Some(_) => return fail(format!("signs two messages of type {kind} at height {height}, round {round}")),
            None => {}
        }
        let lock = self.locks.get(&(node, height));
        match (&signed.block, lock) {
            (Some(block), Some((locked, held))) if kind == PREVOTE && block != held && signed.valid_round.is_none_or(|vr| vr < *locked) => {
                return fail(format!("locked in round {locked} of height {height}, prevotes another block in round {round}"));
            }
            (Some(block), _) if kind == PRECOMMIT => drop(self.locks.insert((node, height), (round, block.clone()))),
            _ => {}
        }
        Ok(signed)
    }

    /// I1, I2, I3, I6 for a block that a node tells its readers of.
    pub(crate) fn committed(
        &mut self,
        node: usize,
        block_id: BlockId,
        block: &Arc<Block>,
        commit: &Commit,
        outcome: &Outcome,
    ) -> Result<(), Violation> {
        let fail =
            |invariant, what: String| Err(Violation { invariant, what: format!("node {node}, height {}: {what}", block.header.height) });
        let height = block.header.height.get();
        let told = self.told.entry(node).or_default();
        if height != *told + 1 && *told != 0 {
            return fail("I5", format!("told after height {told}"));
        }
        *told = height;
        if let Some(decided) = self.chain.get(&height) {
            if decided.block_id != block_id {
                return fail("I1", format!("{block_id} where another node has {}", decided.block_id));
            }
            if decided.app_hash != outcome.app_hash {
                return fail("I6", format!("root {} where another node has {}", outcome.app_hash, decided.app_hash));
            }
            return Ok(());
        }
        self.check_links(node, block_id, block, commit)?;
        for tx in &block.txs {
            if !self.adds_transactions && !self.submitted.contains_key(&tx.hash()) {
                return fail("I3", format!("transaction {:?} was never submitted", tx.hash()));
            }
        }
        self.apply(block, outcome).map_err(|what| Violation { invariant: "I3", what: format!("height {height}: {what}") })?;
        if let Some(rules) = &mut self.rules {
            rules.block(block, outcome).map_err(|what| Violation { invariant: "I15", what: format!("height {height}: {what}") })?;
        }
        self.chain.insert(height, Decided { block_id, block: block.clone(), app_hash: outcome.app_hash.clone(), commit: commit.clone() });
        Ok(())
    }

    /// Whether a key signed anything at or above this height.
    pub(crate) fn has_signed(&self, node: usize, height: u64) -> bool {
        self.signed.keys().any(|(key, _, at, _)| *key == node && *at >= height)
    }

    /// I1 and I5 for a block that a node tells of whose memory failed: what it makes of the block is nothing to learn from.
    pub(crate) fn told_astray(&mut self, node: usize, block_id: BlockId, height: u64) -> Result<(), Violation> {
        let told = self.told.entry(node).or_default();
        if height != *told + 1 && *told != 0 {
            return Err(Violation { invariant: "I5", what: format!("node {node}, height {height}: told after height {told}") });
        }
        *told = height;
        match self.chain.get(&height) {
            Some(decided) if decided.block_id != block_id => Err(Violation {
                invariant: "I1",
                what: format!("node {node}, height {height}: {block_id} where another node has {}", decided.block_id),
            }),
            _ => Ok(()),
        }
    }

    /// I2: parent, state and certificate, compared one by one.
    fn check_links(&self, node: usize, block_id: BlockId, block: &Block, commit: &Commit) -> Result<(), Violation> {
        let fail = |what: String| Err(Violation { invariant: "I2", what: format!("node {node}, height {}: {what}", block.header.height) });
        let height = block.header.height.get();
        if let Some(parent) = self.chain.get(&(height - 1)) {
            if block.header.last_block_id != Some(parent.block_id) {
                return fail("the parent is another".into());
            }
            if block.header.app_hash != parent.app_hash {
                return fail(format!("the header has root {}, its parent left {}", block.header.app_hash, parent.app_hash));
            }
            if block.header.time <= parent.block.header.time {
                return fail("time does not grow".into());
            }
        } else if height > 1 {
            return fail("nobody committed the height before".into());
        }
        let powers = self.set_of(height);
        let total: u64 = powers.values().sum();
        let mut voted = BTreeSet::new();
        let mut power = 0;
        for sig in &commit.signatures {
            if let CommitSig::Commit(slot) = sig
                && voted.insert(slot.address)
            {
                let Some(weight) = powers.get(&slot.address) else {
                    return fail(format!("{} signed, and is no validator", slot.address));
                };
                power += weight;
            }
        }
        if commit.block_id != block_id || commit.height.get() != height || 3 * power <= 2 * total {
            return fail(format!("a commit of power {power} of {total} for {}", commit.block_id));
        }
        Ok(())
    }

    fn apply(&mut self, block: &Block, outcome: &Outcome) -> Result<(), String> {
        if block.header.height.get() != self.model_height + 1 {
            return Err(format!("the model is at height {}", self.model_height));
        }
        self.model_height += 1;
        if outcome.results.len() != block.txs.len() {
            return Err("not one result for each transaction".into());
        }
        let mut set = self.newest_set().1.clone();
        for update in &outcome.validator_updates {
            match update.power.get() {
                0 => drop(set.remove(&update.public_key.address())),
                power => drop(set.insert(update.public_key.address(), power)),
            }
        }
        if set != *self.newest_set().1 {
            self.sets.insert(self.model_height + 2, set);
        }
        if !self.is_kv {
            return Ok(());
        }
        let of_clients = |(tx, _): &(&lockstep_types::Tx, &lockstep_types::TxResult)| !is_node_tx(&tx.0);
        for (tx, result) in block.txs.iter().zip(outcome.results.iter()).filter(of_clients) {
            let split: Vec<&[u8]> = tx.0.splitn(2, |byte| matches!(byte, b'=' | b':')).collect();
            match split[..] {
                [key, value] if result.code == 0 => drop(self.model.insert(key.to_vec(), value.to_vec())),
                _ => return Err(format!("{:?} has code {}", String::from_utf8_lossy(&tx.0), result.code)),
            }
        }
        Ok(())
    }

    /// I5: what was reported committed is in the chain where it was said to be.
    pub(crate) fn acknowledged(&mut self, hash: Hash, height: Height) -> Result<(), Violation> {
        let heights = self.acknowledged.entry(hash).or_default();
        heights.insert(height);
        // What a client sends again may be executed again, where the application has no nonces.
        if heights.len() > 1 && self.submitted.get(&hash).is_none_or(|times| *times == 1) {
            return Err(Violation { invariant: "I5", what: format!("{hash:?} was acknowledged at heights {heights:?}") });
        }
        Ok(())
    }

    /// I6 for a block that a restart executed again.
    pub(crate) fn replayed(&self, node: usize, outcome: &Outcome) -> Result<(), Violation> {
        match self.chain.get(&outcome.height.get()) {
            Some(decided) if decided.app_hash == outcome.app_hash => Ok(()),
            _ => Err(Violation { invariant: "I6", what: format!("node {node} executes height {} again, to another root", outcome.height) }),
        }
    }

    /// A node begins with the state after this height: it tells its readers of what comes next.
    pub(crate) fn installed(&mut self, node: usize, height: u64) {
        let told = self.told.entry(node).or_default();
        *told = (*told).max(height);
    }

    /// I5: a node that restarts holds at least what it told its readers of, unless its disk has lost something at rest.
    pub(crate) fn restarted(&mut self, node: usize, height: Height, has_rotted: bool) -> Result<(), Violation> {
        let told = self.told.get(&node).copied().unwrap_or(0);
        if has_rotted {
            self.told.insert(node, height.get());
            return Ok(());
        }
        if height.get() < told {
            return Err(Violation { invariant: "I5", what: format!("node {node} told height {told} and restarts at {height}") });
        }
        if height.get() > 0 {
            self.told.insert(node, height.get());
        }
        Ok(())
    }

    /// At the end: every acknowledgement is kept, and a node's state is the model's.
    pub(crate) fn settled(&self) -> Result<(), Violation> {
        let mut missing: BTreeSet<(Hash, u64)> =
            self.acknowledged.iter().flat_map(|(hash, heights)| heights.iter().map(|height| (*hash, height.get()))).collect();
        for (height, decided) in &self.chain {
            for tx in &decided.block.txs {
                missing.remove(&(tx.hash(), *height));
            }
        }
        match missing.first() {
            None => Ok(()),
            Some((hash, height)) => {
                Err(Violation { invariant: "I5", what: format!("{hash:?}, acknowledged at height {height}, is not there") })
            }
        }
    }

    /// I3 at the end: the application's own answers are the model's, for a node that is at the model's height.
    pub(crate) fn model(&self, height: u64, get: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Result<(), Violation> {
        if height != self.model_height {
            return Ok(());
        }
        for (key, value) in &self.model {
            if get(key).as_ref() != Some(value) {
                return Err(Violation {
                    invariant: "I3",
                    what: format!("key {:?} is not what the model says", String::from_utf8_lossy(key)),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn height(&self) -> u64 {
        self.model_height
    }

    /// The sets that decide this height and later ones.
    pub(crate) fn sets_from(&self, height: u64) -> impl Iterator<Item = &Powers> {
        let first = self.sets.range(..=height).next_back().map_or(0, |(from, _)| *from);
        self.sets.range(first..).map(|(_, set)| set)
    }

    /// The name of a decided block, the root after it, and its certificate.
    pub(crate) fn decided(&self, height: u64) -> Option<(BlockId, &AppHash, &Commit)> {
        self.chain.get(&height).map(|decided| (decided.block_id, &decided.app_hash, &decided.commit))
    }

    /// A decided block.
    pub(crate) fn block(&self, height: u64) -> Option<&Arc<Block>> {
        self.chain.get(&height).map(|decided| &decided.block)
    }

    pub(crate) fn told(&self, node: usize) -> u64 {
        self.told.get(&node).copied().unwrap_or(0)
    }

    pub(crate) fn acknowledgements(&self) -> usize {
        self.acknowledged.len()
    }
}

/// The specification's number of a prevote.
pub(crate) const PREVOTE: u64 = 1;
/// The specification's number of a precommit.
pub(crate) const PRECOMMIT: u64 = 2;

/// What canonical sign-bytes say, read with nothing of the code that wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) kind: u64,
    pub(crate) height: u64,
    pub(crate) round: u64,
    /// Hash of the block voted for or proposed; none for nil.
    pub(crate) block: Option<Vec<u8>>,
    pub(crate) valid_round: Option<u64>,
    /// When it was signed, by the clock of who signs: a vote's own time, a proposal's block's. In nanoseconds since 1970.
    pub(crate) time: i128,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            PROPOSAL => "proposal",
            PREVOTE => "prevote",
            _ => "precommit",
        };
        write!(f, "{kind} {}/{}", self.height, self.round)?;
        match &self.block {
            Some(block) => write!(f, " {:02X}{:02X}{:02X}{:02X}", block[0], block[1], block[2], block[3])?,
            None => write!(f, " nil")?,
        }
        self.valid_round.map_or(Ok(()), |round| write!(f, " vr={round}"))
    }
}

impl Signed {
    /// The guard's number of the step.
    pub(crate) fn step(&self) -> u8 {
        match self.kind {
            PROPOSAL => 1,
            PREVOTE => 2,
            _ => 3,
        }
    }

    /// Height, round and step, as the guard counts them.
    pub(crate) fn place(&self) -> (u64, u32, u8) {
        (self.height, u32::try_from(self.round).unwrap_or(u32::MAX), self.step())
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        let length = varint(bytes, &mut at)?;
        if (bytes.len() - at) as u64 != length {
            return None;
        }
        let mut signed = Self { kind: 0, height: 0, round: 0, block: None, valid_round: None, time: 0 };
        // A proposal writes -1 for no valid round, and nothing for round 0.
        let mut proposed_round = 0;
        while at < bytes.len() {
            let tag = varint(bytes, &mut at)?;
            match tag & 7 {
                0 => {
                    let value = varint(bytes, &mut at)?;
                    match tag >> 3 {
                        1 => signed.kind = value,
                        4 => proposed_round = value,
                        15 => signed.valid_round = value.checked_sub(1),
                        _ => {}
                    }
                }
                1 => {
                    let value = u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?);
                    at += 8;
                    match tag >> 3 {
                        2 => signed.height = value,
                        3 => signed.round = value,
                        _ => {}
                    }
                }
                2 => {
                    let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
                    let field = bytes.get(at..at.checked_add(length)?)?;
                    at += length;
                    if tag >> 3 == if signed.kind == PROPOSAL { 6 } else { 5 } {
                        signed.time = nanoseconds(field)?;
                    }
                    // A block id begins with its hash: tag 0a, 32 bytes.
                    if tag >> 3 == if signed.kind == PROPOSAL { 5 } else { 4 } {
                        signed.block = Some(field.get(2..34)?.to_vec());
                    }
                }
                _ => return None,
            }
        }
        if signed.kind == PROPOSAL {
            signed.valid_round = Some(proposed_round).filter(|round| *round != u64::MAX);
        }
        matches!(signed.kind, PREVOTE | PRECOMMIT | PROPOSAL).then_some(signed)
    }
}

/// The specification's number of a proposal.
pub(crate) const PROPOSAL: u64 = 32;

/// A timestamp message: seconds in field 1, nanoseconds in field 2.
fn nanoseconds(message: &[u8]) -> Option<i128> {
    let mut at = 0;
    let mut total = 0;
    while at < message.len() {
        let unit = if varint(message, &mut at)? >> 3 == 1 { 1_000_000_000 } else { 1 };
        total += i128::from(varint(message, &mut at)?.cast_signed()) * unit;
    }
    Some(total)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
