//! Validators, blocks and messages. No signature is made: what passes the gate here was settled by decree.

use std::sync::Arc;

use lockstep_types::commit::PolkaSig;
use lockstep_types::vote::Verified;
use lockstep_types::{
    BlockId, ChainId, Commit, ConsensusParams, Hash, Height, Polka, Power, PrivateKey, Proposal, Round, Signature, Time, ValidatorIndex,
    ValidatorSet, ValidatorUpdate, Vote, VoteType, block::PartSetHeader,
};

pub(crate) const HEIGHT: Height = Height::FIRST;
const UNSIGNED: Signature = Signature([0; 64]);

/// Validators with these powers, in descending order, so that a power's place is its validator's index.
pub(crate) fn validators(powers: &[u64]) -> Arc<ValidatorSet> {
    assert!(powers.is_sorted_by(|a, b| a >= b), "a set is sorted by power");
    let members: Vec<ValidatorUpdate> = (1u8..)
        .zip(powers)
        .map(|(seed, power)| ValidatorUpdate {
            public_key: PrivateKey::from_seed(&[seed; 32]).public_key(),
            power: Power::new(*power).expect("small"),
        })
        .collect();
    Arc::new(ValidatorSet::new(&members).expect("a valid set"))
}

pub(crate) fn params() -> Arc<ConsensusParams> {
    Arc::new(ConsensusParams::default())
}

pub(crate) fn chain() -> ChainId {
    ChainId::new("test").expect("a name")
}

/// The block that a letter names.
pub(crate) fn block(name: char) -> BlockId {
    let letter = u8::try_from(name).expect("a letter");
    BlockId { hash: Hash([letter; 32]), parts: PartSetHeader { total: 1, hash: Hash([letter; 32]) } }
}

/// The letter of a block.
pub(crate) fn name(block_id: &BlockId) -> char {
    char::from(block_id.hash.0[0])
}

pub(crate) fn round(round: u32) -> Round {
    Round::new(round).expect("small")
}

pub(crate) fn index(index: usize) -> ValidatorIndex {
    ValidatorIndex::from_position(index)
}

/// The time of every block.
pub(crate) fn block_time() -> Time {
    Time::new(1_000_000, 0).expect("a time")
}

pub(crate) fn vote(kind: VoteType, at: Round, block_id: Option<BlockId>, valid_round: Option<Round>, voter: ValidatorIndex) -> Vote {
    Vote { kind, height: HEIGHT, round: at, block_id, valid_round, timestamp: block_time(), validator: voter, signature: UNSIGNED }
}

pub(crate) fn proposal(at: Round, block_id: BlockId, pol_round: Option<Round>) -> Proposal {
    Proposal { height: HEIGHT, round: at, pol_round, block_id, timestamp: block_time(), signature: UNSIGNED }
}

/// A polka of exactly these validators, ascending.
pub(crate) fn polka(at: Round, block_id: BlockId, valid_round: Option<Round>, voters: &[usize]) -> Polka {
    let signatures =
        voters.iter().map(|voter| PolkaSig { validator: index(*voter), timestamp: block_time(), signature: UNSIGNED }).collect();
    Polka { height: HEIGHT, round: at, block_id, valid_round, signatures }
}

pub(crate) fn commit(set: &ValidatorSet, at: Round, block_id: BlockId, voters: &[usize]) -> Commit {
    let votes: Vec<Vote> = voters.iter().map(|voter| vote(VoteType::Precommit, at, Some(block_id), None, index(*voter))).collect();
    Commit::from_precommits(HEIGHT, at, block_id, set, &votes)
}

/// What passes the gate as it would with a valid signature.
pub(crate) trait Settle: Sized {
    fn settle(self, set: &ValidatorSet) -> Verified<Self>;
}

macro_rules! settle {
    ($($type:ty),*) => {$(
        impl Settle for $type {
            fn settle(self, set: &ValidatorSet) -> Verified<Self> {
                let claim = self.claim(&chain(), set).expect("well formed");
                let verdicts = vec![true; claim.checks().len()];
                claim.settle(&verdicts).expect("by decree")
            }
        }
    )*};
}

settle!(Vote, Polka, Commit);

impl Settle for Proposal {
    fn settle(self, set: &ValidatorSet) -> Verified<Self> {
        let proposer = set.get(set.proposer(Round::ZERO)).expect("a proposer").public_key;
        self.claim(&chain(), &proposer).expect("well formed").settle(&[true]).expect("by decree")
    }
}
