//! The replica record's bytes are frozen: they are hashed at checkpoint heights.

use lockstep_app::ReplicaRecord;
use lockstep_app::changes::is_reserved;
use lockstep_app::record::{Attendance, CommittedEvidence, PowerMoved, RECORD_KEY, Waiting};
use lockstep_types::params::BlockParams;
use lockstep_types::{ConsensusParams, Hash, Power, Time, ValidatorSet};

use super::common::{height, validator};

fn record() -> ReplicaRecord {
    let validators = ValidatorSet::new(&[validator(0, 10), validator(1, 20)]).expect("a set");
    let mut next_validators = validators.clone();
    next_validators.increment(1);
    ReplicaRecord {
        height: height(1000),
        attendance: validators
            .iter()
            .map(|validator| Attendance { address: validator.address, last_signed: height(999), slots: 7, missed_slots: 1 })
            .collect(),
        validators,
        next_validators,
        parameters: ConsensusParams { block: BlockParams { max_bytes: 22_020_096, max_gas: -1 }, ..ConsensusParams::default() },
        view: 3,
        committed_evidence: vec![CommittedEvidence {
            hash: Hash([0xee; 32]),
            height: height(900),
            time: Time::new(1_700_000_000, 5).expect("a time"),
        }],
        power_moved: vec![PowerMoved {
            height: height(990),
            total_before: Power::new(20).expect("a power"),
            moved: Power::new(10).expect("a power"),
        }],
        waiting: vec![Waiting { since: height(995), update: validator(2, 5) }],
        last_results_hash: Hash([0x11; 32]),
    }
}

#[test]
fn the_record_stands_under_a_key_of_the_node() {
    assert!(is_reserved(RECORD_KEY));
    assert_eq!(RECORD_KEY, b"\0replica");
}

/// Frozen: the order of the fields, and through the hash every byte of what `types` lays out.
#[test]
fn golden_bytes() {
    let record = record();
    let u64s = |list: &[u64]| list.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let one = 1u32.to_le_bytes().to_vec();
    let attendance = record
        .validators
        .iter()
        .flat_map(|validator| [validator.address.as_ref(), &999u64.to_le_bytes(), &7u32.to_le_bytes(), &1u32.to_le_bytes()].concat());
    let expected = [
        vec![1],
        u64s(&[1000]),
        borsh::to_vec(&record.validators).expect("bytes"),
        borsh::to_vec(&record.next_validators).expect("bytes"),
        borsh::to_vec(&record.parameters).expect("bytes"),
        u64s(&[3]),
        one.clone(),
        vec![0xee; 32],
        u64s(&[900, 1_700_000_000]),
        5u32.to_le_bytes().to_vec(),
        2u32.to_le_bytes().to_vec(),
        attendance.collect(),
        one.clone(),
        u64s(&[990, 20, 10]),
        one,
        u64s(&[995]),
        validator(2, 5).public_key.as_bytes().to_vec(),
        u64s(&[5]),
        vec![0x11; 32],
    ]
    .concat();
    let bytes = record.to_bytes();
    assert_eq!(bytes, expected);
    assert_eq!(Hash::of(&bytes).to_string(), "22065973D59AA4008792047F2954C2FA4D1D508479C11FEF58F3C80ADB6F78B3");
    assert_eq!(ReplicaRecord::from_bytes(&bytes), Ok(record));
}

#[test]
fn every_cut_and_every_changed_byte_is_another_record_or_none() {
    let bytes = record().to_bytes();
    for len in 0..bytes.len() {
        assert!(ReplicaRecord::from_bytes(&bytes[..len]).is_err());
    }
    assert!(ReplicaRecord::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        // What is read back is written back: no two byte strings are one record.
        if let Ok(record) = ReplicaRecord::from_bytes(&changed) {
            assert_eq!(record.to_bytes(), changed);
        }
    }
}
