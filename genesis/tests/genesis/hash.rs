//! The genesis hash: its bytes are frozen, and everything that makes chains differ is in it.

use lockstep_types::params::Millis;
use lockstep_types::{AppHash, ChainId, Hash, Power};

use lockstep_genesis::GenesisDraft;

/// The preimage, written out by hand from `docs/format-genesis.md`.
fn preimage() -> Vec<u8> {
    let mut bytes = b"lockstep/genesis\x01".to_vec();
    // Time: seconds, nanoseconds.
    bytes.extend(1_767_323_045i64.to_le_bytes());
    bytes.extend(6u32.to_le_bytes());
    // Chain id behind its length, initial height.
    bytes.extend(10u32.to_le_bytes());
    bytes.extend(b"test-chain");
    bytes.extend(1u64.to_le_bytes());
    // block.max_bytes, block.max_gas.
    bytes.extend(22_020_096i64.to_le_bytes());
    bytes.extend((-1i64).to_le_bytes());
    // evidence: blocks, nanoseconds, bytes.
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(86_400_000_000_000u64.to_le_bytes());
    bytes.extend(1_048_576u64.to_le_bytes());
    // version.app, abci.vote_extensions_enable_height.
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    // lockstep, in milliseconds: precision, message delay; propose, its delta, missed, vote, its delta, cap; minimum and
    // empty interval, gather.
    for millis in [400u64, 2_000, 500, 250, 100, 200, 100, 10_000, 20, 10_000, 0] {
        bytes.extend(millis.to_le_bytes());
    }
    // Validators: key, power, name.
    bytes.extend(4u32.to_le_bytes());
    for n in 1..=4u8 {
        bytes.extend(crate::public(n).0);
        bytes.extend(10u64.to_le_bytes());
        bytes.extend(5u32.to_le_bytes());
        bytes.extend(format!("node{}", n - 1).bytes());
    }
    // No application hash.
    bytes.extend(0u32.to_le_bytes());
    let state = br#"{"accounts":[{"name":"a b","coins":1.50}]}"#;
    bytes.extend(u32::try_from(state.len()).unwrap().to_le_bytes());
    bytes.extend(state);
    bytes
}

#[test]
fn the_hash_covers_these_bytes() {
    assert_eq!(crate::genesis().hash(), Hash::of(preimage()));
}

#[test]
fn the_hash_is_frozen() {
    assert_eq!(crate::genesis().hash().to_string(), "D635ADCA8A16FBBA96A5CB7132A4FA5DB1BCB8D01F4397EEC17D810C23141796");
}

#[test]
fn every_member_is_in_the_hash() {
    let changes: &[fn(&mut GenesisDraft)] = &[
        |draft| draft.genesis_time = draft.genesis_time.saturating_add(std::time::Duration::from_nanos(1)),
        |draft| draft.chain_id = ChainId::new("test-chain2").unwrap(),
        |draft| draft.consensus_params.block.max_bytes += 1,
        |draft| draft.consensus_params.block.max_gas += 1,
        |draft| draft.consensus_params.evidence.max_age_num_blocks += 1,
        |draft| draft.consensus_params.evidence.max_age_duration_ns += 1,
        |draft| draft.consensus_params.evidence.max_bytes += 1,
        |draft| draft.consensus_params.app_version += 1,
        |draft| draft.consensus_params.synchrony.precision = Millis(401),
        |draft| draft.consensus_params.synchrony.message_delay = Millis(2_001),
        |draft| draft.consensus_params.timeouts.propose = Millis(501),
        |draft| draft.consensus_params.timeouts.propose_delta = Millis(251),
        |draft| draft.consensus_params.timeouts.propose_missed = Millis(101),
        |draft| draft.consensus_params.timeouts.vote = Millis(201),
        |draft| draft.consensus_params.timeouts.vote_delta = Millis(101),
        |draft| draft.consensus_params.timeouts.cap = Millis(10_001),
        |draft| draft.consensus_params.pace.min_block_interval = Millis(21),
        |draft| draft.consensus_params.pace.empty_block_interval = Millis(10_001),
        |draft| draft.consensus_params.pace.gather = Millis(1),
        |draft| draft.validators[0].public_key = crate::public(5),
        |draft| draft.validators[0].power = Power::new(11).unwrap(),
        |draft| draft.validators[0].name.push('x'),
        |draft| draft.validators.swap(0, 1),
        |draft| draft.validators.truncate(3),
        |draft| draft.app_hash = AppHash::from(Hash::EMPTY_LIST),
        |draft| draft.app_state = draft.app_state.replace("1.50", "1.5"),
        |draft| draft.app_state = draft.app_state.replace("a b", "ab"),
    ];
    let mut hashes = vec![crate::genesis().hash()];
    for change in changes {
        let mut draft = crate::draft();
        change(&mut draft);
        hashes.push(draft.check().unwrap().hash());
    }
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), changes.len() + 1);
}

#[test]
fn white_space_between_tokens_is_not_in_the_hash() {
    let mut draft = crate::draft();
    draft.app_state = draft.app_state.replace(' ', "\n\t ").replace("a\n\t b", "a b");
    assert_eq!(draft.check().unwrap().hash(), crate::genesis().hash());
}
