//! A second, naive verifier of chains.
//!
//! It shares no code with what it judges: bytes are read by hand from the tables of `docs/format.md`, hashed with `sha2`
//! alone, signatures are judged by another crate, and the rules are restated one by one, slowly. It begins at genesis, keeps
//! a validator set and a model of the application, and takes one block after the other with the certificate that a node
//! has for it.
//!
//! ```text
//! body bytes -> header, transactions, last commit      bytes
//! parts hash, block hash, every hash in the header     hashes
//! the set of the height, who proposes, updates         rotation
//! root and results                                     model
//! the files of a log                                   log
//! ```

mod bytes;
mod hashes;
mod log;
mod model;
mod rotation;
#[cfg(test)]
mod tests;

use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

pub use bytes::{BlockId, Body, Commit, Hash, Header, Slot, Time, TwoVotes, Vote};
pub use hashes::{TxOutcome, state_root};
pub use log::{Kept, read_log};
pub use model::{AppModel, Entries, Invariant, KvModel, Modelled};

use rotation::Set;

/// What a chain begins with, as genesis says it.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Name of the chain.
    pub chain_id: String,
    /// Genesis time.
    pub time: Time,
    /// Keys and powers.
    pub validators: Vec<([u8; 32], u64)>,
    /// `block.max_bytes`.
    pub max_bytes: i64,
    /// `block.max_gas`.
    pub max_gas: i64,
    /// `evidence.max_age_num_blocks`, `max_age_duration` in nanoseconds, and `max_bytes`.
    pub evidence: (u64, u64, u64),
}

/// The parameters of evidence, in the order of [`Beginning::evidence`].
pub fn evidence_params(genesis: &lockstep_genesis::Genesis) -> (u64, u64, u64) {
    let params = &genesis.consensus_params.evidence;
    (params.max_age_num_blocks, params.max_age_duration_ns, params.max_bytes)
}

/// A block that a model executes.
#[derive(Debug)]
pub struct Next<'a> {
    /// What it says.
    pub body: &'a Body,
    /// Its hash.
    pub hash: Hash,
    /// Who could sign the block before, in the order of its commit: address and power.
    pub last_members: Vec<([u8; 20], u64)>,
}

/// The application again, in the simplest way.
pub trait Model {
    /// Root of the state as it is.
    fn root(&self) -> Hash;

    /// Executes the next block.
    ///
    /// # Errors
    /// When the model says that no correct chain has this block.
    fn execute(&mut self, next: &Next<'_>) -> Result<Modelled, String>;

    /// Version of the application's rules.
    fn version(&self) -> u64;
}

/// Whether a key signed a message. [`signature_holds`] asks the curve.
pub type Verdict<'a> = &'a mut dyn FnMut(&[u8; 32], &[u8], &[u8; 64]) -> bool;

/// The judgement of another crate than the product's.
pub fn signature_holds(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify(message, &Signature::from_bytes(signature)).is_ok())
}

/// What is wrong with a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is no block of this chain: a rule of headers, commits or encodings.
    Link(String),
    /// The application says so: its model, or what its author asks of it.
    Application(String),
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Link(what) | Self::Application(what) => f.write_str(what),
        }
    }
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self::Link(what)
    }
}

/// A chain so far, and what its next block must say.
#[derive(Debug, Clone)]
pub struct Judge<M> {
    chain_id: String,
    params: (i64, i64),
    first_time: Time,
    /// Whether every proposer is honest: a header then names the proposer of a round up to the one that decided.
    honest_proposers: bool,
    model: M,
    last: Option<(BlockId, Time)>,
    results: Hash,
    /// By height, from 1: the block's name and the set that signs it.
    decided: Vec<(BlockId, Set)>,
    /// Their times.
    times: Vec<Time>,
    /// Age in blocks, age in nanoseconds, bytes of one block.
    evidence_params: (u64, u64, u64),
    /// What blocks proved.
    proven: Vec<TwoVotes>,
    set: Set,
    next: Set,
}

impl<M: Model> Judge<M> {
    /// Before the first block.
    ///
    /// # Errors
    /// When the validators make no set.
    pub fn new(beginning: &Beginning, model: M, honest_proposers: bool) -> Result<Self, String> {
        let set = Set::new(&beginning.validators)?;
        let mut next = set.clone();
        next.increment(1);
        Ok(Self {
            chain_id: beginning.chain_id.clone(),
            params: (beginning.max_bytes, beginning.max_gas),
            first_time: beginning.time,
            honest_proposers,
            model,
            last: None,
            results: hashes::results(&[]),
            decided: Vec::new(),
            times: Vec::new(),
            evidence_params: beginning.evidence,
            proven: Vec::new(),
            set,
            next,
        })
    }

    /// Blocks so far.
    pub fn height(&self) -> u64 {
        self.decided.len() as u64
    }

    /// Whose turn it was in a round of a height that was judged.
    pub fn proposer_of(&self, height: u64, round: u32) -> Option<[u8; 20]> {
        let place = usize::try_from(height.checked_sub(1)?).ok()?;
        self.decided.get(place).map(|(_, set)| set.proposer(round))
    }

    /// The model after the last block.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The next block, and the certificate that a node has for it.
    ///
    /// # Errors
    /// The first rule that is broken, in words.
    pub fn block(&mut self, body: &[u8], commit: &[u8], verdict: Verdict<'_>) -> Result<(), Wrong> {
        let height = self.height() + 1;
        self.judge(body, commit, verdict).map_err(|wrong| match wrong {
            Wrong::Link(what) => Wrong::Link(format!("height {height}: {what}")),
            Wrong::Application(what) => Wrong::Application(format!("height {height}: {what}")),
        })
    }

    fn judge(&mut self, bytes: &[u8], commit: &[u8], verdict: Verdict<'_>) -> Result<(), Wrong> {
        let body = bytes::body(bytes)?;
        let commit = bytes::commit(commit)?;
        let (total, parts) = hashes::parts(bytes);
        let id = BlockId { hash: hashes::header(&body.header), total, parts };
        let height = self.height() + 1;
        self.header(&body, height)?;
        match (&body.last_commit, &self.last) {
            (None, None) => is("last_commit_hash", &body.header.last_commit_hash, &hashes::merkle(&[]))?,
            (Some(last_commit), Some((last_id, _))) => {
                is("last_commit_hash", &body.header.last_commit_hash, &hashes::commit(last_commit))?;
                let (_, set) = self.decided.last().expect("there is a block before");
                self.certified(last_commit, height - 1, last_id, set, verdict).map_err(|what| format!("last commit: {what}"))?;
            }
            _ => return Err("a last commit where there is no last block, or none where there is".to_owned().into()),
        }
        self.certified(&commit, height, &id, &self.set, verdict)?;
        self.proposer(&body.header, commit.round)?;
        self.evidence(&body, verdict)?;
        let last = self.decided.last().map(|(_, set)| set.members.iter());
        let last_members = last.into_iter().flatten().map(|member| (member.address, u64::try_from(member.power).expect("powers fit")));
        // Of the first block nobody signed a block before.
        let next = Next { hash: id.hash, last_members: last_members.collect(), body: &body };
        let modelled = self.model.execute(&next).map_err(Wrong::Application)?;
        if modelled.results.len() != body.txs.len() {
            return Err(Wrong::Application("another number of results than of transactions".into()));
        }
        self.results = hashes::results(&modelled.results);
        self.params = modelled.params.unwrap_or(self.params);
        let mut after_next = self.next.clone();
        after_next.update(&modelled.updates).map_err(Wrong::Application)?;
        after_next.increment(1);
        let next = std::mem::replace(&mut self.next, after_next);
        let set = std::mem::replace(&mut self.set, next);
        self.decided.push((id, set));
        self.times.push(body.header.time);
        self.proven.extend(body.evidence.iter().cloned());
        self.last = Some((id, body.header.time));
        Ok(())
    }

    /// The certificate that another node has for a block that was judged.
    ///
    /// # Errors
    /// The first rule that is broken, in words.
    pub fn certificate(&self, height: u64, commit: &[u8], verdict: Verdict<'_>) -> Result<(), String> {
        let place = usize::try_from(height).ok().and_then(|height| height.checked_sub(1));
        let Some((id, set)) = place.and_then(|place| self.decided.get(place)) else { return Err(format!("no block {height} was judged")) };
        bytes::commit(commit)
            .and_then(|commit| self.certified(&commit, height, id, set, verdict))
            .map_err(|what| format!("height {height}: {what}"))
    }

    fn header(&self, body: &Body, height: u64) -> Result<(), String> {
        let header = &body.header;
        if header.block_version != 11 || header.app_version != self.model.version() {
            return Err(format!("versions {} and {}", header.block_version, header.app_version));
        }
        if header.chain_id != self.chain_id || header.height != height {
            return Err(format!("a block of chain {:?}, height {}", header.chain_id, header.height));
        }
        if header.last_block_id != self.last.map(|(id, _)| id) {
            return Err("the parent is another".into());
        }
        let in_time = self.last.map_or(header.time >= self.first_time, |(_, last)| header.time > last);
        if !in_time {
            return Err(format!("time {:?} does not grow", header.time));
        }
        is("data_hash", &header.data_hash, &hashes::data(&body.txs))?;
        is("validators_hash", &header.validators_hash, &self.set.hash())?;
        is("next_validators_hash", &header.next_validators_hash, &self.next.hash())?;
        is("consensus_hash", &header.consensus_hash, &hashes::params(self.params.0, self.params.1))?;
        is("app_hash", &header.app_hash, &self.model.root())?;
        is("last_results_hash", &header.last_results_hash, &self.results)?;
        let pieces: Vec<Vec<u8>> = body.evidence.iter().map(hashes::two_votes).collect();
        is("evidence_hash", &header.evidence_hash, &hashes::merkle(&pieces))?;
        Ok(())
    }

    /// Each piece is true, of this chain, not too old and not said before; each accuses another validator of the newest set.
    fn evidence(&self, body: &Body, verdict: Verdict<'_>) -> Result<(), String> {
        let (blocks_max, age_max, bytes_max) = self.evidence_params;
        let bytes: usize = body.evidence.iter().map(|piece| hashes::two_votes(piece).len()).sum();
        if bytes as u64 > bytes_max {
            return Err(format!("{bytes} bytes of evidence"));
        }
        for (place, piece) in body.evidence.iter().enumerate() {
            let wrong = |what: &str| Err(format!("evidence {place}: {what}"));
            let (a, b) = (&piece.a, &piece.b);
            if (a.kind, a.height, a.round, a.index) != (b.kind, b.height, b.round, b.index) {
                return wrong("not of one place");
            }
            if hashes::vote_key(a) >= hashes::vote_key(b) {
                return wrong("one vote, or two in the wrong order");
            }
            let at = usize::try_from(a.height).ok().and_then(|height| height.checked_sub(1));
            let Some(((_, set), time)) = at.and_then(|at| Some((self.decided.get(at)?, self.times.get(at)?))) else {
                return wrong("of no block before");
            };
            let Some(member) = usize::try_from(a.index).ok().and_then(|index| set.members.get(index)) else { return wrong("no validator") };
            let total: u128 = set.members.iter().map(|member| member.power.unsigned_abs()).sum();
            let says = (member.address, member.power.unsigned_abs(), total, *time);
            if says != (piece.address, piece.power.into(), piece.total.into(), piece.time) {
                return wrong("another address, power or time than the chain's");
            }
            for vote in [a, b] {
                if !verdict(&member.key, &hashes::vote(vote, &self.chain_id), &vote.signature) {
                    return wrong("not signed");
                }
            }
            let nanos = |time: &Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
            let last = self.times.last().map_or(0, nanos);
            if self.height() - a.height > blocks_max && last - nanos(time) > age_max.into() {
                return wrong("too old");
            }
            if self.proven.contains(piece) {
                return wrong("proven before");
            }
            if body.evidence[..place].iter().any(|other| other.address == piece.address) {
                return wrong("a second one against the same");
            }
            if !self.next.members.iter().any(|member| member.address == piece.address) {
                return wrong("against somebody who left");
            }
        }
        Ok(())
    }

    fn proposer(&self, header: &Header, round: u32) -> Result<(), String> {
        if !self.set.members.iter().any(|member| member.address == header.proposer) {
            return Err("the proposer is no validator".into());
        }
        if self.honest_proposers && (0..=round).all(|round| self.set.proposer(round) != header.proposer) {
            return Err(format!("its proposer has no turn in rounds 0 to {round}"));
        }
        Ok(())
    }

    /// More than two thirds of the power, counted validator by validator, each slot signed by the key of its place.
    fn certified(&self, commit: &Commit, height: u64, id: &BlockId, set: &Set, verdict: Verdict<'_>) -> Result<(), String> {
        if commit.height != height || commit.block_id != *id {
            return Err("the commit is for another block".into());
        }
        if commit.slots.len() != set.members.len() {
            return Err(format!("{} slots for {} validators", commit.slots.len(), set.members.len()));
        }
        let mut power: u128 = 0;
        let mut total: u128 = 0;
        for (place, member) in set.members.iter().enumerate() {
            let weight = member.power.unsigned_abs();
            total += weight;
            let Some(slot) = &commit.slots[place] else { continue };
            if slot.address != member.address {
                return Err(format!("slot {place} names another validator"));
            }
            if !verdict(&member.key, &hashes::precommit(commit, slot, &self.chain_id), &slot.signature) {
                return Err(format!("slot {place} is not signed by its validator"));
            }
            if slot.for_block {
                power += weight;
            }
        }
        if 3 * power > 2 * total { Ok(()) } else { Err(format!("power {power} of {total} signed it")) }
    }
}

fn is(field: &str, theirs: &[u8], ours: &[u8]) -> Result<(), String> {
    if theirs == ours {
        return Ok(());
    }
    let hex = |bytes: &[u8]| bytes.iter().take(8).map(|byte| format!("{byte:02X}")).collect::<String>();
    Err(format!("{field} is {}, the chain says {}", hex(theirs), hex(ours)))
}
