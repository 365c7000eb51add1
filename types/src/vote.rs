//! Votes and proposals: what is signed, byte by byte (`encoding.md` section 9), and the gate a signature passes before
//! anybody acts on it.

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::block::BlockId;
use crate::crypto::{PublicKey, Signature, SignatureCheck};
use crate::planted::{self, Bug};
use crate::primitives::{Address, ChainId, Height, Round, ValidatorIndex};
use crate::proto::Message;
use crate::time::Time;
use crate::validators::ValidatorSet;

/// The two kinds of vote. The numbers are those of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum VoteType {
    /// "I would accept this value in this round."
    Prevote = 1,
    /// "I saw a polka for this value in this round and am locked on it."
    Precommit = 2,
}

/// Number of the proposal among signed types.
const PROPOSAL_TYPE: i64 = 32;

/// A vote as it travels. Who voted is the position in the height's validator set: key and address are derived from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// Prevote or precommit.
    pub kind: VoteType,
    /// Height voted in.
    pub height: Height,
    /// Round voted in.
    pub round: Round,
    /// The block voted for; none is a vote for nil.
    pub block_id: Option<BlockId>,
    /// Prevotes for a block only: the valid round of the proposal they answer, none for -1. It is signed, and makes an
    /// amnesia fork accountable.
    pub valid_round: Option<Round>,
    /// The voter's clock.
    pub timestamp: Time,
    /// The voter's position in the set of this height.
    pub validator: ValidatorIndex,
    /// Over [`Vote::sign_bytes`].
    pub signature: Signature,
}

impl Vote {
    /// The bytes that are signed. They bind type, height, round, block, time, chain and, for prevotes, the valid round;
    /// not the index, which the key decides.
    pub fn sign_bytes(&self, chain_id: &ChainId) -> Vec<u8> {
        vote_sign_bytes(self.kind, self.height, self.round, self.block_id.as_ref(), self.valid_round, self.timestamp, chain_id)
    }

    /// What the vote is for: the unit of counting. Two prevotes for one block with different valid rounds are two values.
    pub fn value(&self) -> (Option<BlockId>, Option<Round>) {
        (self.block_id, self.valid_round)
    }

    /// Checks everything but the signature, and says which signature to check.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn claim(self, chain_id: &ChainId, validators: &ValidatorSet) -> Result<Claim<Self>, Rejected> {
        self.check_shape()?;
        let validator =
            validators.get(self.validator).ok_or(Rejected::UnknownValidator { index: self.validator, size: validators.len() })?;
        let check = SignatureCheck { public_key: validator.public_key, message: self.sign_bytes(chain_id), signature: self.signature };
        Ok(Claim { value: self, checks: vec![check] })
    }

    /// The rules that need no validator set: a precommit and a nil prevote carry no valid round, a valid round lies below
    /// the round, heights start at 1.
    fn check_shape(&self) -> Result<(), Rejected> {
        if self.height == Height::ZERO {
            return Err(Rejected::HeightZero);
        }
        match self.valid_round {
            Some(_) if self.kind == VoteType::Precommit || self.block_id.is_none() => Err(Rejected::StrayValidRound),
            Some(valid_round) if valid_round >= self.round => Err(Rejected::ValidRound { valid_round, round: self.round }),
            _ => self.block_id.as_ref().map_or(Ok(()), BlockId::check),
        }
    }
}

/// The canonical bytes of a vote, also where there is no [`Vote`] yet: in commits and certificates.
pub fn vote_sign_bytes(
    kind: VoteType,
    height: Height,
    round: Round,
    block_id: Option<&BlockId>,
    valid_round: Option<Round>,
    timestamp: Time,
    chain_id: &ChainId,
) -> Vec<u8> {
    let mut message = Message::new().int(1, kind as i64).sfix(2, height.get()).sfix(3, u64::from(round.get()));
    if let Some(block_id) = block_id {
        message = message.msg(4, &block_id.to_proto());
    }
    message
        .msg(5, &timestamp.to_proto())
        .bytes(6, chain_id.as_str().as_bytes())
        .int(15, valid_round.map_or(0, |round| i64::from(round.get()) + 1))
        .delimited()
}

/// The canonical bytes of a vote extension. Our chains have none; this is for those who verify other chains.
pub fn vote_extension_sign_bytes(extension: &[u8], height: Height, round: Round, chain_id: &ChainId) -> Vec<u8> {
    Message::new()
        .bytes(1, extension)
        .sfix(2, height.get())
        .sfix(3, u64::from(round.get()))
        .bytes(4, chain_id.as_str().as_bytes())
        .delimited()
}

/// A proposal as it travels. The proposer of (height, round) is derived, never claimed.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// Height proposed in.
    pub height: Height,
    /// Round proposed in.
    pub round: Round,
    /// Round of the polka that made the value valid for the proposer; none for a new value (-1).
    pub pol_round: Option<Round>,
    /// The block proposed.
    pub block_id: BlockId,
    /// Time of the block's header. It is the fact that timeliness judges.
    pub timestamp: Time,
    /// Over [`Proposal::sign_bytes`].
    pub signature: Signature,
}

impl Proposal {
    /// The bytes that are signed.
    pub fn sign_bytes(&self, chain_id: &ChainId) -> Vec<u8> {
        Message::new()
            .int(1, PROPOSAL_TYPE)
            .sfix(2, self.height.get())
            .sfix(3, u64::from(self.round.get()))
            .int(4, self.pol_round.map_or(-1, |round| i64::from(round.get())))
            .msg(5, &self.block_id.to_proto())
            .msg(6, &self.timestamp.to_proto())
            .bytes(7, chain_id.as_str().as_bytes())
            .delimited()
    }

    /// Checks everything but the signature, against the key of the proposer of (height, round).
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn claim(self, chain_id: &ChainId, proposer: &PublicKey) -> Result<Claim<Self>, Rejected> {
        if self.height == Height::ZERO {
            return Err(Rejected::HeightZero);
        }
        if let Some(valid_round) = self.pol_round.filter(|pol_round| *pol_round >= self.round) {
            return Err(Rejected::ValidRound { valid_round, round: self.round });
        }
        self.block_id.check()?;
        let check = SignatureCheck { public_key: *proposer, message: self.sign_bytes(chain_id), signature: self.signature };
        Ok(Claim { value: self, checks: vec![check] })
    }
}

/// Why a message is refused. The sender is at fault, never we.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejected {
    /// Heights start at 1.
    #[error("height 0")]
    HeightZero,
    /// No validator stands at this place.
    #[error("validator index {index} in a set of {size}")]
    UnknownValidator {
        /// Claimed index.
        index: ValidatorIndex,
        /// Size of the set of that height.
        size: usize,
    },
    /// A precommit or a nil prevote with a valid round.
    #[error("a valid round where there is none")]
    StrayValidRound,
    /// A valid round that is not in the past.
    #[error("valid round {valid_round} is not below round {round}")]
    ValidRound {
        /// Claimed valid round.
        valid_round: Round,
        /// Round of the message.
        round: Round,
    },
    /// A block id with no parts or too many.
    #[error("a block of {total} parts")]
    Parts {
        /// Claimed number of parts.
        total: u32,
    },
    /// The signature is not the validator's.
    #[error("the signature does not verify")]
    Signature,
    /// A certificate for another height, round or block than asked.
    #[error("a certificate for something else: {0}")]
    Other(String),
    /// A commit with more or fewer slots than validators.
    #[error("{found} signature slots for {expected} validators")]
    Slots {
        /// Slots found.
        found: usize,
        /// Size of the set.
        expected: usize,
    },
    /// A slot whose address is not that of its validator.
    #[error("slot {index} carries address {found}, its validator is {expected}")]
    SlotAddress {
        /// The slot.
        index: ValidatorIndex,
        /// Address found.
        found: Address,
        /// Address of the validator at this place.
        expected: Address,
    },
    /// A signer who appears twice, or out of order.
    #[error("signers out of order at index {0}")]
    SignerOrder(ValidatorIndex),
    /// The signers do not hold more than two thirds.
    #[error("signed by power {power} of {total}, more than two thirds are needed")]
    Power {
        /// Power of the signers.
        power: u64,
        /// Power of the set.
        total: u64,
    },
}

/// A value whose signatures are still to be checked. It cannot be looked into: only [`Claim::settle`] gives it back.
#[derive(Debug, Clone)]
pub struct Claim<T> {
    value: T,
    checks: Vec<SignatureCheck>,
}

impl<T> Claim<T> {
    /// Claims are made in this crate alone, where the checks are derived from the value.
    pub(crate) fn new(value: T, checks: Vec<SignatureCheck>) -> Self {
        Self { value, checks }
    }

    /// What to ask the verdict.
    pub fn checks(&self) -> &[SignatureCheck] {
        &self.checks
    }

    /// The value, when every signature is valid.
    ///
    /// # Errors
    /// [`Rejected::Signature`] when one is not.
    ///
    /// # Panics
    /// When there are not as many verdicts as checks: a verdict that was not asked for is our own mistake.
    pub fn settle(self, verdicts: &[bool]) -> Result<Verified<T>, Rejected> {
        assert_eq!(verdicts.len(), self.checks.len(), "one verdict for each check");
        let is_settled = verdicts.iter().all(|valid| *valid) || (planted::has(Bug::OneSignatureSettles) && verdicts.contains(&true));
        if is_settled { Ok(Verified(self.value)) } else { Err(Rejected::Signature) }
    }

    /// Asks the verdict right here.
    ///
    /// # Errors
    /// [`Rejected::Signature`] when a signature is not valid.
    pub fn verify(self) -> Result<Verified<T>, Rejected> {
        let verdicts = crate::crypto::verify_batch(&self.checks);
        self.settle(&verdicts)
    }
}

/// A value whose signatures were checked. There is no other way to make one than [`Claim::settle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// The value.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// The value, for those who need to own it.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
