//! Evidence of misbehaviour, as blocks carry it and as it is hashed (`encoding.md` sections 8 and 13).

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::block::{BlockId, Header};
use crate::codec;
use crate::commit::Commit;
use crate::crypto::{SignatureCheck, verify_batch};
use crate::merkle;
use crate::primitives::{Address, ChainId, Hash, Height, Power};
use crate::proto::Message;
use crate::quorum::Quorum;
use crate::time::Time;
use crate::validators::{VALIDATORS_MAX, Validator, ValidatorSet};
use crate::vote::{Rejected, Vote};

/// Most pieces of evidence in one block. The parameter `evidence.max_bytes` is far tighter; this bounds decoding.
pub const EVIDENCE_MAX: usize = 4_096;

/// A piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Evidence {
    /// One validator, one height, round and step, two values.
    DuplicateVote(Box<DuplicateVote>) = 1,
    /// A light client was shown a header that the chain does not have.
    LightClientAttack(Box<LightClientAttack>) = 2,
}

/// Two conflicting votes of one validator. The powers, the time and the address are hashed, so they travel, and are
/// compared with what the chain says.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DuplicateVote {
    /// The vote with the smaller [`order key`](DuplicateVote::order_key).
    pub vote_a: Vote,
    /// The other.
    pub vote_b: Vote,
    /// Address of the validator.
    pub address: Address,
    /// Power of the set of that height.
    pub total_power: Power,
    /// Power of the validator at that height.
    pub validator_power: Power,
    /// Time of the block of that height.
    pub timestamp: Time,
}

/// A block that a light client was shown.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LightBlock {
    /// Its header.
    pub header: Header,
    /// The commit for it.
    pub commit: Commit,
    /// The validators who are said to have signed.
    pub validators: ValidatorSet,
}

/// A conflicting block, shown to a light client.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct LightClientAttack {
    /// The block that the chain does not have.
    pub conflicting_block: LightBlock,
    /// The last height both agree on.
    pub common_height: Height,
    /// The culprits, in set order.
    pub byzantine_validators: Vec<Validator>,
    /// Power of the set of the common height.
    pub total_power: Power,
    /// Time of the block of the common height.
    pub timestamp: Time,
}

impl BorshDeserialize for LightClientAttack {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            conflicting_block: LightBlock::deserialize_reader(reader)?,
            common_height: Height::deserialize_reader(reader)?,
            byzantine_validators: codec::read_list(reader, VALIDATORS_MAX)?,
            total_power: Power::deserialize_reader(reader)?,
            timestamp: Time::deserialize_reader(reader)?,
        })
    }
}

/// Why evidence proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvidenceError {
    /// The votes are not of one validator, height, round and step.
    #[error("the votes are not for one height, round, type and validator")]
    NotOneSlot,
    /// The votes are for the same value, or in the wrong order.
    #[error("the votes do not differ, or stand in the wrong order")]
    Order,
    /// A field that is derived from the chain is another there.
    #[error("{0} is not what the chain says")]
    Derived(&'static str),
    /// A vote is malformed or its signature does not verify.
    #[error(transparent)]
    Vote(#[from] Rejected),
    /// The block that a light client is said to have been shown is none that it would take, or is ours.
    #[error("the conflicting block: {0}")]
    Attack(&'static str),
    /// Too little power signed the conflicting block.
    #[error("the conflicting block is signed by {tallied} of {total} of {whose}")]
    Power {
        /// Whose power is counted.
        whose: &'static str,
        /// Power that signed.
        tallied: u64,
        /// Power of that set.
        total: u64,
    },
}

impl DuplicateVote {
    /// What orders the two votes, byte by byte: block hash, then the part set header's bytes (nil sorts first), then field
    /// 15, whose bytes are absent without a valid round. Frozen: evidence in the other order is invalid.
    pub fn order_key(vote: &Vote) -> Vec<u8> {
        let mut key = Vec::new();
        if let Some(block_id) = &vote.block_id {
            key.extend_from_slice(&block_id.hash.0);
            key.extend_from_slice(&block_id.parts.to_proto().finish());
        }
        let valid_round = Message::new().int(15, vote.valid_round.map_or(0, |round| i64::from(round.get()) + 1));
        key.extend_from_slice(&valid_round.finish());
        key
    }

    /// Evidence from two votes that were seen, in either order; `set` is that of their height, `time` that of its block.
    /// None when they are not two values of one slot or their validator is not in the set.
    pub fn from_votes(first: Vote, second: Vote, set: &ValidatorSet, time: Time) -> Option<Self> {
        let validator = set.get(first.validator)?;
        let (vote_a, vote_b) = if Self::order_key(&first) <= Self::order_key(&second) { (first, second) } else { (second, first) };
        let evidence = Self {
            vote_a,
            vote_b,
            address: validator.address,
            total_power: set.total_power(),
            validator_power: validator.power,
            timestamp: time,
        };
        evidence.check_shape().is_ok().then_some(evidence)
    }

    fn check_shape(&self) -> Result<(), EvidenceError> {
        let slot = |vote: &Vote| (vote.kind, vote.height, vote.round, vote.validator);
        if slot(&self.vote_a) != slot(&self.vote_b) {
            return Err(EvidenceError::NotOneSlot);
        }
        if Self::order_key(&self.vote_a) >= Self::order_key(&self.vote_b) { Err(EvidenceError::Order) } else { Ok(()) }
    }

    /// Full verification against the chain: the set of the votes' height and the time of that block.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub fn verify(&self, chain_id: &ChainId, set: &ValidatorSet, block_time: Time) -> Result<(), EvidenceError> {
        all_valid(&self.claim(chain_id, set, block_time)?)
    }

    /// [`Self::verify`] but for the signatures, which the answer lists.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub fn claim(&self, chain_id: &ChainId, set: &ValidatorSet, block_time: Time) -> Result<Vec<SignatureCheck>, EvidenceError> {
        self.check_shape()?;
        let index = self.vote_a.validator;
        let validator = set.get(index).ok_or(Rejected::UnknownValidator { index, size: set.len() })?;
        if validator.address != self.address {
            return Err(EvidenceError::Derived("validator address"));
        }
        if validator.power != self.validator_power {
            return Err(EvidenceError::Derived("validator power"));
        }
        if set.total_power() != self.total_power {
            return Err(EvidenceError::Derived("total power"));
        }
        if self.timestamp != block_time {
            return Err(EvidenceError::Derived("time"));
        }
        let (a, b) = (self.vote_a.clone().claim(chain_id, set)?, self.vote_b.clone().claim(chain_id, set)?);
        Ok([a.checks(), b.checks()].concat())
    }

    fn vote_proto(&self, vote: &Vote) -> Message {
        Message::new()
            .int(1, vote.kind as i64)
            .uint(2, vote.height.get())
            .int(3, i64::from(vote.round.get()))
            .msg(4, &vote.block_id.as_ref().map_or_else(BlockId::nil_proto, BlockId::to_proto))
            .msg(5, &vote.timestamp.to_proto())
            .bytes(6, &self.address.0)
            .int(7, i64::from(vote.validator.get()))
            .bytes(8, &vote.signature.0)
            .int(15, vote.valid_round.map_or(0, |round| i64::from(round.get()) + 1))
    }

    /// The message that is hashed.
    pub fn to_proto(&self) -> Message {
        Message::new()
            .msg(1, &self.vote_proto(&self.vote_a))
            .msg(2, &self.vote_proto(&self.vote_b))
            .uint(3, self.total_power.get())
            .uint(4, self.validator_power.get())
            .msg(5, &self.timestamp.to_proto())
    }
}

fn all_valid(checks: &[SignatureCheck]) -> Result<(), EvidenceError> {
    if verify_batch(checks).iter().all(|valid| *valid) { Ok(()) } else { Err(Rejected::Signature.into()) }
}

/// What the chain says where an attack on light clients is judged.
#[derive(Debug, Clone, Copy)]
pub struct AttackFacts<'a> {
    /// Validators of the common height.
    pub common_validators: &'a ValidatorSet,
    /// Time of our block of the common height.
    pub common_time: Time,
    /// Our header of the conflicting height; where that is beyond our tip, the header of the tip.
    pub header: &'a Header,
    /// The commit for it that the block after it carries, the same on every node; none for the tip, which has none yet.
    pub commit: Option<&'a Commit>,
}

impl LightClientAttack {
    /// Evidence of a block that was shown to a light client; powers, time and culprits follow from the chain.
    pub fn from_block(block: LightBlock, common_height: Height, facts: &AttackFacts<'_>) -> Self {
        let (total_power, timestamp) = (facts.common_validators.total_power(), facts.common_time);
        let attack = Self { conflicting_block: block, common_height, byzantine_validators: Vec::new(), total_power, timestamp };
        Self { byzantine_validators: attack.culprits(facts), ..attack }
    }

    /// Whether the conflicting header contradicts ours in what the chain before it determines. A header of our own height
    /// that does was invented: a lunatic attack.
    fn is_lunatic(&self, ours: &Header) -> bool {
        let theirs = &self.conflicting_block.header;
        theirs.validators_hash != ours.validators_hash
            || theirs.next_validators_hash != ours.next_validators_hash
            || theirs.consensus_hash != ours.consensus_hash
            || theirs.app_hash != ours.app_hash
            || theirs.last_results_hash != ours.last_results_hash
    }

    /// Who is proven to have lied, in set order, with the powers of the common height.
    ///
    /// An invented header: those of the common set who signed it. Another header of the same round: those who signed both
    /// commits. Of another round: nobody, since which of the two quorums forgot its lock is not in the two commits.
    pub fn culprits(&self, facts: &AttackFacts<'_>) -> Vec<Validator> {
        let theirs = &self.conflicting_block.commit;
        if self.is_lunatic(facts.header) {
            let signed = |address: &Address| {
                theirs.signatures.iter().any(|sig| sig.is_for_block() && sig.slot().is_some_and(|slot| slot.address == *address))
            };
            return facts.common_validators.iter().filter(|validator| signed(&validator.address)).cloned().collect();
        }
        let Some(ours) = facts.commit.filter(|ours| ours.round == theirs.round && ours.height == theirs.height) else {
            return Vec::new();
        };
        let both = theirs.signatures.iter().zip(&ours.signatures).map(|(theirs, ours)| theirs.is_for_block() && ours.is_for_block());
        self.conflicting_block.validators.iter().zip(both).filter(|(_, both)| *both).map(|(validator, _)| validator.clone()).collect()
    }

    /// Full verification against the chain.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub fn verify(&self, chain_id: &ChainId, facts: &AttackFacts<'_>) -> Result<(), EvidenceError> {
        all_valid(&self.claim(chain_id, facts)?)
    }

    /// [`Self::verify`] but for the signatures that count, which the answer lists: those for the conflicting block. A slot for
    /// nil is no part of what a light client was shown, and is not looked at.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub fn claim(&self, chain_id: &ChainId, facts: &AttackFacts<'_>) -> Result<Vec<SignatureCheck>, EvidenceError> {
        let LightBlock { header, commit, validators } = &self.conflicting_block;
        let wrong = |what| Err(EvidenceError::Attack(what));
        if header.chain_id != *chain_id {
            return wrong("another chain");
        }
        if header.height < self.common_height {
            return wrong("below the common height");
        }
        if header.hash() != commit.block_id.hash || header.height != commit.height {
            return wrong("the commit is for another header");
        }
        commit.block_id.check()?;
        if validators.hash() != header.validators_hash {
            return wrong("the validators are not those of the header");
        }
        if header.height == self.common_height && self.is_lunatic(facts.header) {
            return wrong("it contradicts the chain at the very height that both agree on");
        }
        if header.hash() == facts.header.hash() {
            return wrong("it is our own");
        }
        if header.height > facts.header.height && header.time > facts.header.time {
            return wrong("it is later than our tip, which may yet come to it");
        }
        let checks = self.tally(chain_id, validators, facts.common_validators)?;
        if self.total_power != facts.common_validators.total_power() {
            return Err(EvidenceError::Derived("total power"));
        }
        if self.timestamp != facts.common_time {
            return Err(EvidenceError::Derived("time"));
        }
        // Priorities are no part of what is proven.
        let named = |list: &[Validator]| list.iter().map(|validator| (validator.public_key, validator.power)).collect::<Vec<_>>();
        if named(&self.byzantine_validators) != named(&self.culprits(facts)) {
            return Err(EvidenceError::Derived("the list of culprits"));
        }
        Ok(checks)
    }

    /// The powers that signed the conflicting block: more than two thirds of its own set, and more than a third of the common
    /// one where they are of two heights. Each validator stands at its own place, so nobody is counted twice.
    fn tally(&self, chain_id: &ChainId, own: &ValidatorSet, common: &ValidatorSet) -> Result<Vec<SignatureCheck>, EvidenceError> {
        let commit = &self.conflicting_block.commit;
        if commit.signatures.len() != own.len() {
            return Err(Rejected::Slots { found: commit.signatures.len(), expected: own.len() }.into());
        }
        let (mut of_own, mut of_common) = (0u64, 0u64);
        let mut checks = Vec::new();
        for (place, (validator, sig)) in own.iter().zip(&commit.signatures).enumerate() {
            let Some(slot) = sig.slot() else { continue };
            if slot.address != validator.address {
                return Err(EvidenceError::Attack("a signer is not the validator of its slot"));
            }
            if !sig.is_for_block() {
                continue;
            }
            of_own += validator.power.get();
            of_common += common.index_of(&slot.address).and_then(|index| common.get(index)).map_or(0, |known| known.power.get());
            let message = commit.sign_bytes(place, chain_id).expect("the slot is not absent");
            checks.push(SignatureCheck { public_key: validator.public_key, message, signature: slot.signature });
        }
        let part = |power| Power::new(power).expect("a part of a total");
        if !Quorum::Byzantine.is_quorum(part(of_own), own.total_power()) {
            return Err(EvidenceError::Power { whose: "its own validators", tallied: of_own, total: own.total_power().get() });
        }
        let is_skipping = self.common_height < commit.height;
        if is_skipping && !Quorum::Byzantine.has_correct(part(of_common), common.total_power()) {
            return Err(EvidenceError::Power { whose: "the common validators", tallied: of_common, total: common.total_power().get() });
        }
        Ok(checks)
    }

    /// The message that is hashed.
    pub fn to_proto(&self) -> Message {
        let block = &self.conflicting_block;
        let signed_header = Message::new().msg(1, &block.header.to_proto()).msg(2, &block.commit.to_proto());
        let light_block = Message::new().msg(1, &signed_header).msg(2, &block.validators.to_proto());
        let message = Message::new().msg(1, &light_block).uint(2, self.common_height.get());
        self.byzantine_validators
            .iter()
            .fold(message, |message, validator| message.msg(3, &validator.to_proto()))
            .uint(4, self.total_power.get())
            .msg(5, &self.timestamp.to_proto())
    }
}

impl Evidence {
    /// The height at which somebody misbehaved: of the votes, or the last that a light client and the chain agree on.
    pub fn height(&self) -> Height {
        match self {
            Self::DuplicateVote(evidence) => evidence.vote_a.height,
            Self::LightClientAttack(evidence) => evidence.common_height,
        }
    }

    /// Time of our block of that height, as the evidence says it.
    pub fn time(&self) -> Time {
        match self {
            Self::DuplicateVote(evidence) => evidence.timestamp,
            Self::LightClientAttack(evidence) => evidence.timestamp,
        }
    }

    /// Power of the whole set of that height, as the evidence says it.
    pub fn total_power(&self) -> Power {
        match self {
            Self::DuplicateVote(evidence) => evidence.total_power,
            Self::LightClientAttack(evidence) => evidence.total_power,
        }
    }

    /// Whom it accuses, each with its power at that height.
    pub fn accused(&self) -> Vec<(Address, Power)> {
        match self {
            Self::DuplicateVote(evidence) => vec![(evidence.address, evidence.validator_power)],
            Self::LightClientAttack(evidence) => {
                evidence.byzantine_validators.iter().map(|validator| (validator.address, validator.power)).collect()
            }
        }
    }

    /// The bytes that are hashed into the block: the message itself, without an enclosing oneof.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::DuplicateVote(evidence) => evidence.to_proto().finish(),
            Self::LightClientAttack(evidence) => evidence.to_proto().finish(),
        }
    }

    /// The name of one piece: key of the pool, answer of RPC.
    pub fn hash(&self) -> Hash {
        match self {
            Self::DuplicateVote(evidence) => Hash::of(evidence.to_proto().finish()),
            Self::LightClientAttack(evidence) => {
                let mut bytes = evidence.conflicting_block.header.hash().0[..31].to_vec();
                bytes.push(0);
                let mut zigzag = evidence.common_height.get() << 1;
                while zigzag >= 0x80 {
                    bytes.push((zigzag & 0x7f) as u8 | 0x80);
                    zigzag >>= 7;
                }
                bytes.push((zigzag & 0x7f) as u8);
                Hash::of(bytes)
            }
        }
    }
}

/// `evidence_hash`: root over the messages.
pub fn list_hash(list: &[Evidence]) -> Hash {
    let leaves: Vec<Vec<u8>> = list.iter().map(Evidence::to_bytes).collect();
    merkle::root(&leaves)
}
