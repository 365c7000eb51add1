//! Evidence of misbehaviour, as blocks carry it and as it is hashed (`encoding.md` sections 8 and 13).

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::block::{BlockId, Header};
use crate::codec;
use crate::commit::Commit;
use crate::merkle;
use crate::primitives::{Address, ChainId, Hash, Height, Power};
use crate::proto::Message;
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
        self.vote_a.clone().claim(chain_id, set)?.verify()?;
        self.vote_b.clone().claim(chain_id, set)?.verify()?;
        Ok(())
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

impl LightClientAttack {
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
