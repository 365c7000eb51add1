//! Bytes from strangers: one byte string for each value, every other one an error.
//!
//! For each type that travels or is stored: the value comes back; every truncation and every extension is an error; every
//! byte changed to every other value is an error or another value that is written as exactly those bytes.

use std::fmt::Debug;

use borsh::{BorshDeserialize, BorshSerialize};

use lockstep_types::codec::{self, DecodeError};
use lockstep_types::commit::{CommitSig, SlotSignature};
use lockstep_types::evidence::Evidence;
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{
    AppHash, Block, ChainId, Commit, ConsensusParams, Hash, Header, Height, Part, Power, Round, Signature, Time, TxResult, ValidatorIndex,
    ValidatorSet, ValidatorUpdate, VoteType, block, merkle,
};

use crate::support::*;

const VERSION: u8 = 1;
const BYTES_MAX: usize = 1 << 20;

fn decode<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, DecodeError> {
    codec::decode(VERSION, bytes, BYTES_MAX)
}

/// How many of the changed byte strings were values.
fn canonical<T: BorshSerialize + BorshDeserialize + PartialEq + Debug>(value: &T) -> usize {
    let bytes = codec::encode(VERSION, value);
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(value));
    for end in 0..bytes.len() {
        assert!(decode::<T>(&bytes[..end]).is_err(), "the first {end} bytes of {value:?} were accepted");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    for byte in 0..=255 {
        *longer.last_mut().unwrap() = byte;
        assert!(decode::<T>(&longer).is_err(), "a byte {byte:#x} after {value:?} was accepted");
    }
    let mut changed = bytes.clone();
    let mut values = 0;
    for place in 0..bytes.len() {
        for byte in (0..=255).filter(|byte| *byte != bytes[place]) {
            changed[place] = byte;
            if let Ok(other) = decode::<T>(&changed) {
                assert_eq!(codec::encode(VERSION, &other), changed, "byte {place} as {byte:#x}: two byte strings for {other:?}");
                assert_ne!(&other, value, "byte {place} as {byte:#x} changes nothing");
                values += 1;
            }
        }
        changed[place] = bytes[place];
    }
    values
}

#[test]
fn votes_and_proposals() {
    let set = set(&[40, 30, 20, 10]);
    for (kind, block, vr) in [
        (VoteType::Prevote, Some(block_id("block")), Some(2)),
        (VoteType::Prevote, Some(block_id("block")), None),
        (VoteType::Prevote, None, None),
        (VoteType::Precommit, Some(block_id("block")), None),
        (VoteType::Precommit, None, None),
    ] {
        assert!(canonical(&vote(&set, 1, kind, 5, 3, block, vr)) > 0);
    }
    canonical(&proposal(None));
    canonical(&proposal(Some(1)));
}

#[test]
fn certificates() {
    let set = set(&[40, 30, 20, 10]);
    let mut commit = commit(&set, &[0, 1], 5, block_id("block"));
    let Some(slot) = commit.signatures[0].slot().cloned() else { unreachable!("slot 0 signed") };
    commit.signatures[2] = CommitSig::Nil(slot);
    canonical(&commit);
    canonical(&polka(&set, &[0, 1, 2], block_id("block"), Some(1)));
    canonical(&polka(&set, &[0, 1, 2, 3], block_id("block"), None));
}

#[test]
fn blocks() {
    let full = full_block();
    assert_eq!(full.check_hashes(), Ok(()));
    canonical(&full.header);
    canonical(&full);
    let first = Block {
        header: Header { last_block_id: None, app_hash: AppHash::default(), ..header() },
        txs: vec![],
        evidence: vec![],
        last_commit: None,
    };
    canonical(&first);
    canonical(&block_id("block"));
    canonical(&block_id("block").parts);
}

#[test]
fn parts() {
    let body: Vec<u8> = (0..block::PART_BYTES * 2 + 30).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let (_, parts) = block::cut(&body);
    canonical(&parts[2]);
    canonical(&merkle::proofs(&["a", "b", "c", "d", "e"]).1[2]);
}

#[test]
fn evidence() {
    let set = set(&[40, 30, 20, 10]);
    canonical(&Evidence::DuplicateVote(Box::new(duplicate_vote(&set))));
    canonical(&Evidence::LightClientAttack(Box::new(light_client_attack(&set))));
}

#[test]
fn sets_and_updates() {
    canonical(&set(&[40, 30, 20, 10]));
    canonical(&set(&[1]));
    canonical(&ValidatorUpdate { public_key: public(1), power: Power::ZERO });
}

#[test]
fn results_and_parameters() {
    canonical(&tx_result());
    canonical(&TxResult::default());
    canonical(&ConsensusParams::default());
}

#[test]
fn quantities() {
    canonical(&Height::MAX);
    canonical(&Round::MAX);
    canonical(&Power::MAX);
    canonical(&ValidatorIndex::MAX);
    canonical(&Time::ZERO);
    canonical(&Time::MAX);
    canonical(&chain_id());
    canonical(&AppHash::from(Hash::EMPTY_LIST));
    canonical(&Signature([7; 64]));
}

#[test]
fn the_version_byte_and_the_length_come_first() {
    let bytes = codec::encode(VERSION, &height(7));
    assert_eq!(bytes, [1, 7, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(codec::decode::<Height>(2, &bytes, 9), Err(DecodeError::Version { found: Some(1), expected: 2 }));
    assert_eq!(codec::decode::<Height>(1, &[], 9), Err(DecodeError::Version { found: None, expected: 1 }));
    assert_eq!(codec::decode::<Height>(1, &bytes, 8), Err(DecodeError::TooLong { len: 9, max: 8 }));
    assert_eq!(codec::decode::<Height>(1, &bytes, 9), Ok(height(7)));
}

/// A value made of a length and that many bytes or elements, each as `element` has it.
fn counted(count: usize, element: &[u8]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend(u32::try_from(count).unwrap().to_le_bytes());
    (0..count).for_each(|_| bytes.extend(element));
    bytes
}

#[test]
fn lists_end_at_their_bound() {
    // Chain ids: 1 to 50 bytes.
    assert!(decode::<ChainId>(&counted(0, b"x")).is_err());
    assert!(decode::<ChainId>(&counted(50, b"x")).is_ok());
    assert!(decode::<ChainId>(&counted(51, b"x")).is_err());
    // Application hashes: 0 to 64 bytes.
    assert!(decode::<AppHash>(&counted(0, b"x")).is_ok());
    assert!(decode::<AppHash>(&counted(64, b"x")).is_ok());
    assert!(decode::<AppHash>(&counted(65, b"x")).is_err());
    // Slots of a commit, as many as a set has members.
    let commit =
        |slots| Commit { height: height(1), round: Round::ZERO, block_id: block_id("b"), signatures: vec![CommitSig::Absent; slots] };
    for (slots, accepted) in [(0, true), (VALIDATORS_MAX, true), (VALIDATORS_MAX + 1, false)] {
        assert_eq!(decode::<Commit>(&codec::encode(VERSION, &commit(slots))).is_ok(), accepted, "{slots} slots");
    }
    // Signers of a polka.
    let polka = |signers: usize| {
        let mut polka = polka(&set(&[1]), &[0], block_id("b"), None);
        polka.signatures = vec![polka.signatures[0].clone(); signers];
        polka
    };
    for (signers, accepted) in [(0, true), (VALIDATORS_MAX, true), (VALIDATORS_MAX + 1, false)] {
        let bytes = codec::encode(VERSION, &polka(signers));
        assert_eq!(decode::<lockstep_types::Polka>(&bytes).is_ok(), accepted, "{signers} signers");
    }
    // Bytes and siblings of a part.
    let part = |bytes, aunts| Part { index: 0, bytes: vec![1; bytes], aunts: vec![Hash::EMPTY_LIST; aunts] };
    for (bytes, aunts, accepted) in
        [(0, 0, true), (block::PART_BYTES, merkle::AUNTS_MAX, true), (block::PART_BYTES + 1, 0, false), (1, merkle::AUNTS_MAX + 1, false)]
    {
        assert_eq!(decode::<Part>(&codec::encode(VERSION, &part(bytes, aunts))).is_ok(), accepted, "{bytes} bytes, {aunts} aunts");
    }
    // A set has at least one member.
    assert!(decode::<ValidatorSet>(&counted(0, b"")).is_err());
    // Transactions and evidence of a block, by their counts alone: the rest need not be there to be refused.
    let mut block = codec::encode(VERSION, &header());
    let start = block.len();
    block.extend(((1u32 << 20) + 1).to_le_bytes());
    let error = decode::<Block>(&block).unwrap_err();
    assert!(error.to_string().contains("1048577 elements, at most 1048576 are allowed"), "{error}");
    block.truncate(start);
    block.extend(0u32.to_le_bytes());
    block.extend(4_097u32.to_le_bytes());
    let error = decode::<Block>(&block).unwrap_err();
    assert!(error.to_string().contains("4097 elements, at most 4096 are allowed"), "{error}");
}

#[test]
fn sets_that_break_a_rule_do_not_decode() {
    let sorted: Vec<_> = set(&[40, 30, 20]).iter().cloned().collect();
    let encode = |validators: &[lockstep_types::Validator], proposer: u32| {
        let mut bytes = counted(validators.len(), b"");
        validators.iter().for_each(|validator| validator.serialize(&mut bytes).unwrap());
        bytes.extend(proposer.to_le_bytes());
        decode::<ValidatorSet>(&bytes).map(|_| ()).map_err(|error| error.to_string())
    };
    let mutated = |change: &dyn Fn(&mut Vec<lockstep_types::Validator>)| {
        let mut validators = sorted.clone();
        change(&mut validators);
        encode(&validators, 0).unwrap_err()
    };
    assert_eq!(encode(&sorted, 0), Ok(()));
    assert!(mutated(&|v| v.swap(0, 1)).contains("out of order"));
    assert!(mutated(&|v| v[2] = v[1].clone()).contains("out of order"));
    assert!(mutated(&|v| v[2].public_key = v[0].public_key).contains("twice"));
    assert!(mutated(&|v| v[2].power = Power::ZERO).contains("no power"));
    assert!(mutated(&|v| v[0].power = Power::MAX).contains("total power"));
    assert!(encode(&sorted, 3).unwrap_err().contains("no validator"));
}

#[test]
fn a_slot_of_a_commit_carries_the_flag_of_the_specification() {
    let slot = SlotSignature { address: public(1).address(), timestamp: time(), signature: Signature([7; 64]) };
    for (sig, flag) in [(CommitSig::Absent, 1), (CommitSig::Commit(slot.clone()), 2), (CommitSig::Nil(slot), 3)] {
        assert_eq!(codec::encode(VERSION, &sig)[1], flag);
        assert_eq!(sig.flag(), flag);
        canonical(&sig);
    }
    assert!(decode::<CommitSig>(&[VERSION, 0]).is_err());
    assert!(decode::<CommitSig>(&[VERSION, 4]).is_err());
}

#[test]
fn a_body_longer_than_any_block_is_refused_unread() {
    let bytes = vec![block::BODY_VERSION; block::BODY_BYTES_MAX + 1];
    let error = DecodeError::TooLong { len: block::BODY_BYTES_MAX + 1, max: block::BODY_BYTES_MAX };
    assert_eq!(Block::decode(&bytes), Err(error));
}
