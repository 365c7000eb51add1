//! Keys, values and readers that the tests share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use lockstep_types::abci::{Event, EventAttribute, TxResult};
use lockstep_types::block::{self, Block, BlockId, Header, PartSetHeader, Tx, Version};
use lockstep_types::commit::{Commit, CommitSig, Polka, PolkaSig, SlotSignature};
use lockstep_types::evidence::{self, DuplicateVote, Evidence, LightClientAttack};
use lockstep_types::{
    Address, AppHash, ChainId, ConsensusParams, Hash, Height, Power, PrivateKey, Proposal, PublicKey, Round, Signature, Time, Validator,
    ValidatorIndex, ValidatorSet, ValidatorUpdate, Vote, VoteType,
};

/// A file of `tests/vectors`.
macro_rules! vectors {
    ($name:literal) => {
        serde_json::from_str::<serde_json::Value>(include_str!(concat!("../vectors/", $name, ".json"))).unwrap()
    };
}
pub(crate) use vectors;

/// Key number `n` of the vectors: its seed is the byte `n` 32 times.
pub(crate) fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed(&[n; 32])
}

pub(crate) fn public(n: u8) -> PublicKey {
    key(n).public_key()
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

pub(crate) fn power(n: u64) -> Power {
    Power::new(n).unwrap()
}

pub(crate) fn index(n: u32) -> ValidatorIndex {
    ValidatorIndex::new(n).unwrap()
}

pub(crate) fn time() -> Time {
    Time::new(1_767_323_045, 6).unwrap()
}

pub(crate) fn block_id(name: &str) -> BlockId {
    BlockId { hash: Hash::of(name), parts: PartSetHeader { total: 2, hash: Hash::of(format!("{name} parts")) } }
}

/// A set of keys 1, 2, … with these powers.
pub(crate) fn set(powers: &[u64]) -> ValidatorSet {
    let members: Vec<ValidatorUpdate> =
        (1..).zip(powers).map(|(n, p)| ValidatorUpdate { public_key: public(n), power: power(*p) }).collect();
    ValidatorSet::new(&members).unwrap()
}

/// The secret key of the validator at a place of such a set.
pub(crate) fn key_at(set: &ValidatorSet, place: u32) -> PrivateKey {
    let wanted = set.get(index(place)).unwrap().public_key;
    (1..=255).map(key).find(|key| key.public_key() == wanted).unwrap()
}

/// A vote, signed by the validator at this place.
pub(crate) fn vote(set: &ValidatorSet, place: u32, kind: VoteType, h: u64, r: u32, block: Option<BlockId>, vr: Option<u32>) -> Vote {
    let mut vote = Vote {
        kind,
        height: height(h),
        round: round(r),
        block_id: block,
        valid_round: vr.map(round),
        timestamp: time(),
        validator: index(place),
        signature: Signature([0; 64]),
    };
    vote.signature = key_at(set, place).sign(&vote.sign_bytes(&chain_id()));
    vote
}

/// Precommits of these places for the block, as a commit.
pub(crate) fn commit(set: &ValidatorSet, places: &[u32], h: u64, block: BlockId) -> Commit {
    let votes: Vec<Vote> = places.iter().map(|place| vote(set, *place, VoteType::Precommit, h, 1, Some(block), None)).collect();
    Commit::from_precommits(height(h), round(1), block, set, &votes)
}

/// Prevotes of these places for the block, as a polka.
pub(crate) fn polka(set: &ValidatorSet, places: &[u32], block: BlockId, vr: Option<u32>) -> Polka {
    let signatures = places
        .iter()
        .map(|place| {
            let vote = vote(set, *place, VoteType::Prevote, 5, 3, Some(block), vr);
            PolkaSig { validator: vote.validator, timestamp: vote.timestamp, signature: vote.signature }
        })
        .collect();
    Polka { height: height(5), round: round(3), block_id: block, valid_round: vr.map(round), signatures }
}

pub(crate) fn proposal(pol_round: Option<u32>) -> Proposal {
    let mut proposal = Proposal {
        height: height(5),
        round: round(3),
        pol_round: pol_round.map(round),
        block_id: block_id("block"),
        timestamp: time(),
        signature: Signature([0; 64]),
    };
    proposal.signature = key(1).sign(&proposal.sign_bytes(&chain_id()));
    proposal
}

pub(crate) fn header() -> Header {
    Header {
        version: Version { block: 11, app: 1 },
        chain_id: chain_id(),
        height: height(6),
        time: time(),
        last_block_id: Some(block_id("last")),
        last_commit_hash: Hash::of("last commit"),
        data_hash: Hash::of("data"),
        validators_hash: Hash::of("validators"),
        next_validators_hash: Hash::of("next validators"),
        consensus_hash: ConsensusParams::default().hash(),
        app_hash: AppHash::from(Hash::of("app")),
        last_results_hash: Hash::of("results"),
        evidence_hash: Hash::of("evidence"),
        proposer_address: public(1).address(),
    }
}

pub(crate) fn duplicate_vote(set: &ValidatorSet) -> DuplicateVote {
    let a = vote(set, 1, VoteType::Prevote, 5, 3, Some(block_id("a")), Some(1));
    let b = vote(set, 1, VoteType::Prevote, 5, 3, Some(block_id("b")), None);
    DuplicateVote::from_votes(a, b, set, time()).unwrap()
}

pub(crate) fn light_client_attack(set: &ValidatorSet) -> LightClientAttack {
    LightClientAttack {
        conflicting_block: evidence::LightBlock {
            header: header(),
            commit: commit(set, &[0, 1, 2], 6, block_id("conflicting")),
            validators: set.clone(),
        },
        common_height: height(4),
        byzantine_validators: set.iter().take(2).cloned().collect(),
        total_power: set.total_power(),
        timestamp: time(),
    }
}

/// A block with one of everything, whose header fits its body.
pub(crate) fn full_block() -> Block {
    let set = set(&[40, 30, 20, 10]);
    let mut commit = commit(&set, &[0, 1], 5, block_id("last"));
    let nil = vote(&set, 2, VoteType::Precommit, 5, 1, None, None);
    commit.signatures[2] =
        CommitSig::Nil(SlotSignature { address: set.get(index(2)).unwrap().address, timestamp: nil.timestamp, signature: nil.signature });
    let txs = vec![Tx(b"a=1".to_vec()), Tx(Vec::new()), Tx(vec![7; 40])];
    let evidence =
        vec![Evidence::DuplicateVote(Box::new(duplicate_vote(&set))), Evidence::LightClientAttack(Box::new(light_client_attack(&set)))];
    let header = Header {
        last_block_id: Some(commit.block_id),
        last_commit_hash: commit.hash(),
        data_hash: block::data_hash(&txs),
        evidence_hash: evidence::list_hash(&evidence),
        ..header()
    };
    Block { header, txs, evidence, last_commit: Some(commit) }
}

pub(crate) fn tx_result() -> TxResult {
    TxResult {
        code: 2,
        data: b"out".to_vec(),
        log: "log".into(),
        info: "info".into(),
        gas_wanted: 10,
        gas_used: -1,
        events: vec![Event {
            kind: "app".into(),
            attributes: vec![EventAttribute { key: "k".into(), value: "v\u{e4}".into(), index: true }],
        }],
        codespace: "sdk".into(),
    }
}

// Readers of the vectors' JSON.

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text is expected, not {value}"))
}

/// A number, quoted or bare.
pub(crate) fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| text(value).parse().unwrap())
}

pub(crate) fn unsigned(value: &Value) -> u64 {
    number(value).try_into().unwrap()
}

pub(crate) fn small(value: &Value) -> u32 {
    number(value).try_into().unwrap()
}

pub(crate) fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("a list is expected, not {value}"))
}

pub(crate) fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).unwrap()
}

pub(crate) fn parsed<T: std::str::FromStr<Err = String>>(value: &Value) -> T {
    text(value).parse().unwrap()
}

pub(crate) fn signature(value: &Value) -> Signature {
    Signature(BASE64.decode(text(value)).unwrap().try_into().unwrap())
}

pub(crate) fn read_public_key(value: &Value) -> PublicKey {
    assert_eq!(value["type"], "tendermint/PubKeyEd25519");
    PublicKey(BASE64.decode(text(&value["value"])).unwrap().try_into().unwrap())
}

pub(crate) fn read_block_id(value: &Value) -> Option<BlockId> {
    if value.is_null() || text(&value["hash"]).is_empty() {
        return None;
    }
    let parts = PartSetHeader { total: small(&value["parts"]["total"]), hash: parsed(&value["parts"]["hash"]) };
    Some(BlockId { hash: parsed(&value["hash"]), parts })
}

pub(crate) fn read_header(value: &Value) -> Header {
    Header {
        version: Version { block: unsigned(&value["version"]["block"]), app: unsigned(&value["version"]["app"]) },
        chain_id: ChainId::new(text(&value["chain_id"])).unwrap(),
        height: height(unsigned(&value["height"])),
        time: parsed(&value["time"]),
        last_block_id: read_block_id(&value["last_block_id"]),
        last_commit_hash: parsed(&value["last_commit_hash"]),
        data_hash: parsed(&value["data_hash"]),
        validators_hash: parsed(&value["validators_hash"]),
        next_validators_hash: parsed(&value["next_validators_hash"]),
        consensus_hash: parsed(&value["consensus_hash"]),
        app_hash: AppHash::from_bytes(&bytes(&value["app_hash"])).unwrap(),
        last_results_hash: parsed(&value["last_results_hash"]),
        evidence_hash: parsed(&value["evidence_hash"]),
        proposer_address: parsed(&value["proposer_address"]),
    }
}

pub(crate) fn read_commit_sig(value: &Value) -> CommitSig {
    let slot = || SlotSignature {
        address: parsed(&value["validator_address"]),
        timestamp: parsed(&value["timestamp"]),
        signature: signature(&value["signature"]),
    };
    match number(&value["block_id_flag"]) {
        1 => CommitSig::Absent,
        2 => CommitSig::Commit(slot()),
        3 => CommitSig::Nil(slot()),
        other => panic!("flag {other}"),
    }
}

pub(crate) fn read_commit(value: &Value) -> Commit {
    Commit {
        height: height(unsigned(&value["height"])),
        round: round(small(&value["round"])),
        block_id: read_block_id(&value["block_id"]).unwrap(),
        signatures: list(&value["signatures"]).iter().map(read_commit_sig).collect(),
    }
}

/// A set in the JSON of light blocks.
pub(crate) fn read_set(value: &Value) -> ValidatorSet {
    let validators = list(value)
        .iter()
        .map(|value| {
            let mut validator = Validator::new(read_public_key(&value["pub_key"]), power(unsigned(&value["voting_power"])));
            assert_eq!(validator.address, parsed::<Address>(&value["address"]));
            validator.priority = number(&value["proposer_priority"]);
            validator
        })
        .collect();
    ValidatorSet::from_validators(validators, ValidatorIndex::ZERO).unwrap()
}
