//! What this validator signs, and when it must not.
//!
//! Before an own message leaves, its exact sign-bytes are durable in the vote guard; a restart signs the same bytes again.
//! This module turns what consensus casts into guard records and back, and holds the reasons for silence:
//!
//! - **never below what is recorded**: guard height ≤ durable tip + 1 always (order 2). Where it is not, the log was lost,
//!   and the validator is silent until the chain has caught up with the guard;
//! - **no readable guard**: silent until the others are seen to decide a height by votes as they come (a certificate that is
//!   fetched may be old), and then only above that height;
//! - **a message of our own key that we did not sign**, from a peer or in a commit: somebody else has the key, or the directory
//!   was rolled back. Nothing is signed any more, and the operator is told why.

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_storage::guard::GuardRecord;
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::planted::{self, Bug};
use lockstep_types::{Address, ChainId, Hash, Height, Polka, Proposal, PublicKey, Signature, Vote, VoteType};

/// First byte of the guard's message and polkas.
const VERSION: u8 = 1;
/// Bound on what is read back: a polka of the largest set.
const BYTES_MAX: usize = 1 << 20;

/// Who signs.
#[derive(Debug, Clone)]
pub struct Me {
    /// The consensus key.
    pub public_key: PublicKey,
    /// Its address.
    pub address: Address,
}

/// A message of ours; its signature is filled in when it is made.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum OwnMessage {
    /// A vote.
    Vote(Vote) = 1,
    /// A proposal.
    Proposal(Proposal) = 2,
}

/// Stands in the place of a signature that is not made yet.
pub const UNSIGNED: Signature = Signature([0; 64]);

impl OwnMessage {
    /// The bytes to sign.
    pub fn sign_bytes(&self, chain_id: &ChainId) -> Vec<u8> {
        match self {
            Self::Vote(vote) => vote.sign_bytes(chain_id),
            Self::Proposal(proposal) => proposal.sign_bytes(chain_id),
        }
    }

    /// Height, round and step: the order in which a validator signs.
    pub fn position(&self) -> (u64, u32, u8) {
        match self {
            Self::Vote(vote) => (vote.height.get(), vote.round.get(), step_of(vote.kind)),
            Self::Proposal(proposal) => (proposal.height.get(), proposal.round.get(), STEP_PROPOSE),
        }
    }

    /// Height of the message.
    pub fn height(&self) -> Height {
        match self {
            Self::Vote(vote) => vote.height,
            Self::Proposal(proposal) => proposal.height,
        }
    }

    /// The message with its signature.
    #[must_use]
    pub fn signed(mut self, signature: Signature) -> Self {
        match &mut self {
            Self::Vote(vote) => vote.signature = signature,
            Self::Proposal(proposal) => proposal.signature = signature,
        }
        self
    }
}

/// The guard's number of the propose step.
pub const STEP_PROPOSE: u8 = 1;

fn step_of(kind: VoteType) -> u8 {
    match kind {
        VoteType::Prevote => 2,
        VoteType::Precommit => 3,
    }
}

/// Earlier messages of one height that a record repeats: of the last 80 rounds and more.
pub const EARLIER_MAX: usize = 256;

/// What the guard's `message` holds: the message of the record, and behind it what was said before at this height.
///
/// The paper's processes send every message until it arrives; one that crashed must still have it. Others may wait for our
/// vote of an earlier round (L47 waits for more than two thirds of that round), and once the guard's slots hold two later
/// messages nobody else may have it: a third of the power is too little to let them skip (L55). So each record repeats what
/// the ones before it held.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
struct Recorded {
    message: OwnMessage,
    earlier: Vec<OwnMessage>,
}

impl BorshDeserialize for Recorded {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self { message: OwnMessage::deserialize_reader(reader)?, earlier: codec::read_list(reader, EARLIER_MAX)? })
    }
}

/// Whose guard it is: a key's on a chain. What one key signed says nothing of another, and a key that is put beside the guard of
/// another one would sign as if it had never signed.
pub fn guard_owner(genesis_hash: &Hash, public_key: &PublicKey) -> Hash {
    Hash::of_parts(&[b"lockstep/guard", &[VERSION], &genesis_hash.0, &public_key.0])
}

/// The guard record of a message, with the lock and the valid value that it was cast under, and what was said before it at
/// its height.
pub fn guard_record(
    message: &OwnMessage,
    earlier: &[OwnMessage],
    lock: Option<&Polka>,
    valid: Option<&Polka>,
    chain_id: &ChainId,
    owner: &Hash,
) -> GuardRecord {
    let (height, round, step) = message.position();
    GuardRecord {
        height,
        round,
        step,
        sign_bytes: message.sign_bytes(chain_id),
        message: codec::encode(VERSION, &Recorded { message: message.clone(), earlier: earlier.to_vec() }),
        lock: lock.map(|polka| codec::encode(VERSION, polka)),
        valid: valid.map(|polka| codec::encode(VERSION, polka)),
        owner: owner.0,
        wedge: None,
    }
}

/// A guard record as the replica understands it.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// What was signed, without its signature.
    pub message: OwnMessage,
    /// What was signed before it at the same height, in order.
    pub earlier: Vec<OwnMessage>,
    /// The exact bytes.
    pub sign_bytes: Vec<u8>,
    /// The lock at that time, with its polka.
    pub lock: Option<Polka>,
    /// The valid value at that time, with its polka.
    pub valid: Option<Polka>,
}

impl Remembered {
    /// From the guard; none for the record that a new guard begins with.
    ///
    /// # Errors
    /// When the record verified on disk but does not say what this program writes: another version wrote it.
    pub fn from_record(record: &GuardRecord, chain_id: &ChainId) -> Result<Option<Self>, DecodeError> {
        if record.sign_bytes.is_empty() {
            return Ok(None);
        }
        let polka = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| codec::decode(VERSION, bytes, BYTES_MAX)).transpose();
        let Recorded { message, earlier } = codec::decode(VERSION, &record.message, BYTES_MAX)?;
        let in_order = earlier.iter().chain([&message]).is_sorted_by(|a, b| a.position() < b.position());
        if !in_order || earlier.iter().any(|before| before.height() != message.height()) {
            return Err(DecodeError::Malformed("the earlier messages are not of this height, in order".into()));
        }
        if message.sign_bytes(chain_id) != record.sign_bytes || message.position() != (record.height, record.round, record.step) {
            return Err(DecodeError::Malformed("the message is not what the sign-bytes say".into()));
        }
        Ok(Some(Self { message, earlier, sign_bytes: record.sign_bytes.clone(), lock: polka(&record.lock)?, valid: polka(&record.valid)? }))
    }
}

impl Remembered {
    /// Everything that was signed at this height, in order.
    pub fn said(&self) -> impl Iterator<Item = &OwnMessage> {
        self.earlier.iter().chain([&self.message])
    }
}

/// What the guard said at start.
#[derive(Debug, Clone, Default)]
pub struct GuardView {
    /// Both slots' records, the older first.
    pub records: Vec<Remembered>,
    /// A record without a message says only that nothing at or below this height may be signed any more; zero for none.
    pub floor: Height,
    /// Whether no slot was readable.
    pub unreadable: bool,
}

/// Whether this validator may sign, and what it has signed.
#[derive(Debug)]
pub struct Signing {
    /// None on a node without a key.
    me: Option<Me>,
    /// What the newest record holds.
    newest: Option<Remembered>,
    /// The last record of the height that was signed at before that one, since the start.
    before: Option<Remembered>,
    /// Nothing is signed below this height.
    from: Height,
    /// No guard was readable: `from` is still to be found.
    unreadable: bool,
    /// Why nothing is signed any more.
    stopped: Option<String>,
}

impl Signing {
    /// At start.
    pub fn new(me: Option<Me>, guard: GuardView) -> Self {
        let newest = guard.records.into_iter().max_by_key(|record| record.message.position());
        let recorded = newest.as_ref().map_or(Height::ZERO, |record| record.message.height());
        let above_floor = if guard.floor == Height::ZERO { Height::ZERO } else { guard.floor.next() };
        let recorded = if planted::has(Bug::SignsBelowGuard) { Height::ZERO } else { recorded };
        Self { me, newest, before: None, from: recorded.max(above_floor), unreadable: guard.unreadable, stopped: None }
    }

    /// The key, if there is one.
    pub fn me(&self) -> Option<&Me> {
        self.me.as_ref()
    }

    /// Why nothing is signed any more.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Signs nothing from now on.
    pub fn stop(&mut self, reason: String) {
        self.stopped.get_or_insert(reason);
    }

    /// Whether it is not known what was signed: no slot of the guard was readable.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// The others decided this height, as we watched. True when signing may start above it, once the guard says so: there was
    /// no readable one.
    pub fn saw_decision(&mut self, height: Height) -> bool {
        if !std::mem::take(&mut self.unreadable) {
            return false;
        }
        self.from = self.from.max(height.next());
        true
    }

    /// Whether a message of this height may be signed.
    pub fn may_sign(&self, height: Height) -> bool {
        self.me.is_some() && self.stopped.is_none() && !self.unreadable && height >= self.from
    }

    /// The newest record, if it is of this height.
    pub fn newest_at(&self, height: Height) -> Option<&Remembered> {
        self.newest.as_ref().filter(|record| record.message.height() == height)
    }

    /// What the next record of this height repeats.
    pub fn earlier_at(&self, height: Height) -> Vec<OwnMessage> {
        let said: Vec<OwnMessage> = self.newest_at(height).into_iter().flat_map(Remembered::said).cloned().collect();
        said[said.len().saturating_sub(EARLIER_MAX)..].to_vec()
    }

    /// A message is about to be signed.
    ///
    /// # Panics
    /// When it does not come after everything signed before: consensus casts in order, once for each step.
    pub fn remember(&mut self, record: Remembered) {
        if let Some(newest) = &self.newest {
            assert!(record.message.position() > newest.message.position(), "a validator signs each step once, in order");
        }
        let is_next_height = self.newest.as_ref().is_some_and(|newest| newest.message.height() < record.message.height());
        let newest = self.newest.replace(record);
        if is_next_height {
            self.before = newest;
        }
    }

    /// Whether a message that carries our key's valid signature is one that we did not sign: later than all that we signed,
    /// or for the same place with other bytes. An earlier one that is not recorded any more is ignored. So is one from below
    /// the height that signing begins at, or any while that is not known: no readable guard says what we signed there, and
    /// that is why we are silent there.
    pub fn is_foreign(&self, message: &OwnMessage, chain_id: &ChainId) -> bool {
        if self.unreadable || message.height() < self.from {
            return false;
        }
        let Some(newest) = &self.newest else { return true };
        let known = [Some(newest), self.before.as_ref()];
        match known.into_iter().flatten().flat_map(Remembered::said).find(|said| said.position() == message.position()) {
            Some(said) => said.sign_bytes(chain_id) != message.sign_bytes(chain_id),
            None => self.is_between(message) || message.position() > newest.message.position(),
        }
    }

    /// Behind all that we signed at one height, and before the height that we signed at next.
    fn is_between(&self, message: &OwnMessage) -> bool {
        let is_behind = |before: &Remembered| message.position() > before.message.position();
        let is_before = |newest: &Remembered| message.height() < newest.message.height();
        self.before.as_ref().is_some_and(is_behind) && self.newest.as_ref().is_some_and(is_before)
    }
}
