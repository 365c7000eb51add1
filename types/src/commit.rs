//! Certificates: a [`Commit`] is the precommit quorum that proves a decision, a [`Polka`] the prevote quorum for one value.

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::block::BlockId;
use crate::codec;
use crate::crypto::{Signature, SignatureCheck};
use crate::merkle;
use crate::planted::{self, Bug};
use crate::primitives::{Address, ChainId, Hash, Height, Round, ValidatorIndex};
use crate::proto::Message;
use crate::quorum::Quorum;
use crate::time::Time;
use crate::validators::{VALIDATORS_MAX, ValidatorSet};
use crate::vote::{Claim, Rejected, Vote, VoteType, vote_sign_bytes};

/// A signature slot of a commit. Slot i belongs to validator i of that height; the tags are the flags of the
/// specification.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum CommitSig {
    /// No precommit, or one for some other block.
    Absent = 1,
    /// Precommitted the block.
    Commit(SlotSignature) = 2,
    /// Precommitted nil.
    Nil(SlotSignature) = 3,
}

/// What a slot that voted holds.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SlotSignature {
    /// Must be the address of the validator at this place; it is hashed, so it travels.
    pub address: Address,
    /// The voter's clock, signed.
    pub timestamp: Time,
    /// Over the precommit.
    pub signature: Signature,
}

impl CommitSig {
    /// What voted, if anything did.
    pub fn slot(&self) -> Option<&SlotSignature> {
        match self {
            Self::Absent => None,
            Self::Commit(slot) | Self::Nil(slot) => Some(slot),
        }
    }

    /// Whether the slot voted for the block.
    pub fn is_for_block(&self) -> bool {
        matches!(self, Self::Commit(_))
    }

    /// The flag of the specification: 1 absent, 2 commit, 3 nil.
    pub fn flag(&self) -> u8 {
        match self {
            Self::Absent => 1,
            Self::Commit(_) => 2,
            Self::Nil(_) => 3,
        }
    }

    /// `int(1, flag) + bytes(2, address) + msg(3, Timestamp) + bytes(4, signature)`.
    pub fn to_proto(&self) -> Message {
        let message = Message::new().int(1, i64::from(self.flag()));
        match self.slot() {
            None => message.msg(3, &Time::ZERO.to_proto()),
            Some(slot) => message.bytes(2, &slot.address.0).msg(3, &slot.timestamp.to_proto()).bytes(4, &slot.signature.0),
        }
    }
}

/// The precommits that prove a decision.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Commit {
    /// Height decided.
    pub height: Height,
    /// Round decided in.
    pub round: Round,
    /// The block decided.
    pub block_id: BlockId,
    /// One slot for each validator of that height, in set order.
    pub signatures: Vec<CommitSig>,
}

impl BorshDeserialize for Commit {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            height: Height::deserialize_reader(reader)?,
            round: Round::deserialize_reader(reader)?,
            block_id: BlockId::deserialize_reader(reader)?,
            signatures: codec::read_list(reader, VALIDATORS_MAX)?,
        })
    }
}

impl Commit {
    /// The commit that these precommits make for a block: votes for it count, nil stays nil, any other is absent. Of two
    /// votes of one validator the one for the block is kept.
    pub fn from_precommits<'a>(
        height: Height,
        round: Round,
        block_id: BlockId,
        validators: &ValidatorSet,
        precommits: impl IntoIterator<Item = &'a Vote>,
    ) -> Self {
        let mut signatures = vec![CommitSig::Absent; validators.len()];
        for vote in precommits {
            assert!(vote.kind == VoteType::Precommit && vote.height == height && vote.round == round, "precommits of one round");
            let Some(validator) = validators.get(vote.validator) else { continue };
            let slot = SlotSignature { address: validator.address, timestamp: vote.timestamp, signature: vote.signature };
            let place = &mut signatures[vote.validator.index()];
            match vote.block_id {
                Some(voted) if voted == block_id => *place = CommitSig::Commit(slot),
                None if matches!(place, CommitSig::Absent) => *place = CommitSig::Nil(slot),
                _ => {}
            }
        }
        Self { height, round, block_id, signatures }
    }

    /// Root over the slots. Height, round and block are not hashed.
    pub fn hash(&self) -> Hash {
        let leaves: Vec<Vec<u8>> = self.signatures.iter().map(|slot| slot.to_proto().finish()).collect();
        merkle::root(&leaves)
    }

    /// `int(1, height) + int(2, round) + msg(3, BlockID) + [msg(4, CommitSig)]*`.
    pub fn to_proto(&self) -> Message {
        let message = Message::new().uint(1, self.height.get()).int(2, i64::from(self.round.get())).msg(3, &self.block_id.to_proto());
        self.signatures.iter().fold(message, |message, slot| message.msg(4, &slot.to_proto()))
    }

    /// The bytes that slot `i` signed; none for an absent slot.
    pub fn sign_bytes(&self, index: usize, chain_id: &ChainId) -> Option<Vec<u8>> {
        let sig = self.signatures.get(index)?;
        let block_id = sig.is_for_block().then_some(&self.block_id);
        let slot = sig.slot()?;
        Some(vote_sign_bytes(VoteType::Precommit, self.height, self.round, block_id, None, slot.timestamp, chain_id))
    }

    /// The first signature for the block. [`Commit::hash`] covers the signatures and not the round: whoever knows them by that hash needs one
    /// of them verified to know the round, since each signer signed it.
    pub fn one_check(&self, chain_id: &ChainId, validators: &ValidatorSet) -> Option<SignatureCheck> {
        let index = self.signatures.iter().position(CommitSig::is_for_block)?;
        let public_key = validators.get(ValidatorIndex::from_position(index))?.public_key;
        let message = self.sign_bytes(index, chain_id)?;
        Some(SignatureCheck { public_key, message, signature: self.signatures[index].slot()?.signature })
    }

    /// The votes that the slots hold, as they would have travelled.
    pub fn votes(&self) -> impl Iterator<Item = Vote> + '_ {
        self.signatures.iter().enumerate().filter_map(|(index, sig)| {
            let slot = sig.slot()?;
            Some(Vote {
                kind: VoteType::Precommit,
                height: self.height,
                round: self.round,
                block_id: sig.is_for_block().then_some(self.block_id),
                valid_round: None,
                timestamp: slot.timestamp,
                validator: ValidatorIndex::from_position(index),
                signature: slot.signature,
            })
        })
    }

    /// Full verification (`encoding.md` section 6) but for the signatures: one slot for each validator, every address that
    /// of its slot, more than two thirds of the power for the block. Every signature that is there is then checked, those
    /// for nil too. The set is walked, not the signatures: nobody is counted twice.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn claim(self, chain_id: &ChainId, validators: &ValidatorSet) -> Result<Claim<Self>, Rejected> {
        self.block_id.check()?;
        if self.height == Height::ZERO {
            return Err(Rejected::HeightZero);
        }
        if self.signatures.len() != validators.len() {
            return Err(Rejected::Slots { found: self.signatures.len(), expected: validators.len() });
        }
        let mut power = 0;
        let mut checks = Vec::new();
        for (index, (validator, sig)) in validators.iter().zip(&self.signatures).enumerate() {
            let Some(slot) = sig.slot() else {
                if planted::has(Bug::AbsentSlotCounts) {
                    power += validator.power.get();
                }
                continue;
            };
            if slot.address != validator.address {
                let index = ValidatorIndex::from_position(index);
                return Err(Rejected::SlotAddress { index, found: slot.address, expected: validator.address });
            }
            if sig.is_for_block() || planted::has(Bug::NilSlotCounts) {
                power += validator.power.get();
            }
            let message = self.sign_bytes(index, chain_id).expect("the slot is not absent");
            checks.push(SignatureCheck { public_key: validator.public_key, message, signature: slot.signature });
        }
        validators.require_quorum(power)?;
        Ok(Claim::new(self, checks))
    }
}

/// One signature of a [`Polka`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct PolkaSig {
    /// Who prevoted.
    pub validator: ValidatorIndex,
    /// The voter's clock, signed.
    pub timestamp: Time,
    /// Over the prevote.
    pub signature: Signature,
}

/// A prevote quorum for one (round, value, valid round). All its votes carry the same valid round: a polka for the same
/// block with another one is another polka.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Polka {
    /// Height of the prevotes.
    pub height: Height,
    /// Round of the prevotes.
    pub round: Round,
    /// The block prevoted.
    pub block_id: BlockId,
    /// The valid round that every prevote carries.
    pub valid_round: Option<Round>,
    /// By ascending validator index, each at most once.
    pub signatures: Vec<PolkaSig>,
}

impl BorshDeserialize for Polka {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            height: Height::deserialize_reader(reader)?,
            round: Round::deserialize_reader(reader)?,
            block_id: BlockId::deserialize_reader(reader)?,
            valid_round: Option::deserialize_reader(reader)?,
            signatures: codec::read_list(reader, VALIDATORS_MAX)?,
        })
    }
}

impl Polka {
    /// The votes of the polka, as they would have travelled.
    pub fn votes(&self) -> impl Iterator<Item = Vote> + '_ {
        self.signatures.iter().map(|sig| Vote {
            kind: VoteType::Prevote,
            height: self.height,
            round: self.round,
            block_id: Some(self.block_id),
            valid_round: self.valid_round,
            timestamp: sig.timestamp,
            validator: sig.validator,
            signature: sig.signature,
        })
    }

    /// Checks everything but the signatures: order, membership, more than two thirds.
    ///
    /// # Errors
    /// See [`Rejected`].
    pub fn claim(self, chain_id: &ChainId, validators: &ValidatorSet) -> Result<Claim<Self>, Rejected> {
        let mut power = 0;
        let mut last = None;
        let mut checks = Vec::new();
        for vote in self.votes() {
            let is_again = |last| last == vote.validator && !planted::has(Bug::SignerTwice);
            if last.is_some_and(|last| vote.validator < last || is_again(last)) {
                return Err(Rejected::SignerOrder(vote.validator));
            }
            last = Some(vote.validator);
            let claim = vote.claim(chain_id, validators)?;
            power += validators.get(last.expect("just set")).expect("claimed").power.get();
            checks.extend_from_slice(claim.checks());
        }
        validators.require_quorum(power)?;
        Ok(Claim::new(self, checks))
    }
}

impl ValidatorSet {
    fn require_quorum(&self, power: u64) -> Result<(), Rejected> {
        let total = self.total_power();
        let power = if planted::has(Bug::SignerTwice) { power.min(total.get()) } else { power };
        let tallied = crate::primitives::Power::new(power).expect("a part of the total");
        if Quorum::Byzantine.is_quorum(tallied, total) { Ok(()) } else { Err(Rejected::Power { power, total: total.get() }) }
    }
}
