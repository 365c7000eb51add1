//! Keys, values and a chain that the tests share.

use std::sync::Arc;

use lockstep_app::kv::Kv;
use lockstep_app::{Changes, Host, State};
use lockstep_genesis::{Genesis, GenesisDraft, GenesisValidator};
use lockstep_replica::ChainState;
use lockstep_replica::recovery::genesis_state;
use lockstep_types::block::{BlockId, Part, PartSetHeader};
use lockstep_types::commit::{Commit, Polka, PolkaSig};
use lockstep_types::{
    AppHash, ChainId, ConsensusParams, Hash, Height, Power, PrivateKey, Proposal, PublicKey, Round, Signature, Time, ValidatorIndex,
    ValidatorSet, Vote, VoteType,
};

/// Key number `n`: its seed is the byte `n` 32 times.
pub(crate) fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed(&[n; 32])
}

pub(crate) fn chain_id() -> ChainId {
    ChainId::new("test-chain").unwrap()
}

pub(crate) fn height(n: u64) -> Height {
    Height::new(n).unwrap()
}

pub(crate) fn round(n: u32) -> Round {
    Round::new(n).unwrap()
}

pub(crate) fn index(n: u32) -> ValidatorIndex {
    ValidatorIndex::new(n).unwrap()
}

pub(crate) fn at(seconds: i64, nanos: u32) -> Time {
    Time::new(seconds, nanos).unwrap()
}

/// The block id of the examples in `docs/format-wire.md`.
pub(crate) fn block_id() -> BlockId {
    BlockId { hash: Hash([0x11; 32]), parts: PartSetHeader { total: 2, hash: Hash([0x22; 32]) } }
}

pub(crate) fn vote() -> Vote {
    Vote {
        kind: VoteType::Prevote,
        height: height(5),
        round: round(3),
        block_id: Some(block_id()),
        valid_round: Some(round(1)),
        timestamp: at(2, 7),
        validator: index(1),
        signature: Signature([0x5a; 64]),
    }
}

pub(crate) fn nil_precommit() -> Vote {
    Vote { kind: VoteType::Precommit, block_id: None, valid_round: None, ..vote() }
}

pub(crate) fn proposal() -> Proposal {
    Proposal {
        height: height(5),
        round: round(3),
        pol_round: Some(round(2)),
        block_id: block_id(),
        timestamp: at(2, 7),
        signature: Signature([0x6b; 64]),
    }
}

pub(crate) fn polka() -> Polka {
    let signed = |place: u32| PolkaSig { validator: index(place), timestamp: at(2, 7), signature: Signature([0x5a; 64]) };
    Polka { height: height(5), round: round(3), block_id: block_id(), valid_round: None, signatures: vec![signed(0), signed(2)] }
}

pub(crate) fn part() -> Part {
    Part { index: 1, bytes: vec![0xee; 3], aunts: vec![Hash([0x33; 32])] }
}

/// A genesis of keys 1 to `validators`, each of power 10, for the key-value application.
pub(crate) fn genesis(validators: u8) -> Genesis {
    genesis_with(validators, ConsensusParams::default())
}

pub(crate) fn genesis_with(validators: u8, consensus_params: ConsensusParams) -> Genesis {
    GenesisDraft {
        genesis_time: at(1_767_323_045, 0),
        chain_id: chain_id(),
        consensus_params,
        validators: (1..=validators)
            .map(|n| GenesisValidator { public_key: key(n).public_key(), power: Power::new(10).unwrap(), name: String::new() })
            .collect(),
        app_hash: AppHash::default(),
        app_state: "{}".into(),
    }
    .check()
    .unwrap()
}

pub(crate) fn host() -> Host {
    Host::new(Arc::new(Kv))
}

/// The start of such a chain.
pub(crate) fn start(genesis: &Genesis) -> (ChainState, State, Changes) {
    genesis_state(&host(), genesis).unwrap()
}

/// The secret key of the validator at a place of a set of numbered keys.
pub(crate) fn key_at(set: &ValidatorSet, place: u32) -> PrivateKey {
    key_of(&set.get(index(place)).unwrap().public_key)
}

pub(crate) fn key_of(public: &PublicKey) -> PrivateKey {
    (1..=255).map(key).find(|key| key.public_key() == *public).unwrap()
}

/// A vote of this place, really signed.
pub(crate) fn signed_vote(set: &ValidatorSet, place: u32, vote: Vote) -> Vote {
    let mut vote = Vote { validator: index(place), ..vote };
    vote.signature = key_at(set, place).sign(&vote.sign_bytes(&chain_id()));
    vote
}

/// The commit of these places for a block, really signed.
pub(crate) fn signed_commit(set: &ValidatorSet, places: &[u32], h: u64, block_id: BlockId, time: Time) -> Commit {
    let precommit = Vote { height: height(h), round: Round::ZERO, block_id: Some(block_id), timestamp: time, ..nil_precommit() };
    let votes: Vec<Vote> = places.iter().map(|place| signed_vote(set, *place, precommit.clone())).collect();
    Commit::from_precommits(height(h), Round::ZERO, block_id, set, &votes)
}
