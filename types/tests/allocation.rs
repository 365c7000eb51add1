//! What decoding allocates, whatever the length fields claim. A binary of its own: it counts the allocations of the whole
//! process, so it has one test and
//! nothing runs beside it.

#[path = "types/support.rs"]
#[expect(dead_code, unused_macros, unused_imports, reason = "shared with the tests beside it")]
mod support;

use std::alloc::System;

use borsh::{BorshDeserialize, BorshSerialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use lockstep_types::evidence::Evidence;
use lockstep_types::{Block, Commit, Header, Part, Polka, Proposal, TxResult, ValidatorSet, Vote, VoteType, block, codec, merkle};

use support::*;

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that decoding may allocate in all for each byte of input: lists grow by doubling, and a list of empty
/// transactions takes 24 bytes of memory for four of input, copied as often as it doubles.
const PER_BYTE: usize = 32;
/// And beside that: the first places of nested lists, and the text of an error.
const OVERHEAD: usize = 32 << 10;
/// What borsh reserves for a byte string, whatever its length field says. Only what our own disk holds is read that way.
const BORSH_BYTES: usize = 1 << 20;

/// Claims that a length field may make: nothing, the bounds of our lists and one above, all that fits.
const CLAIMS: [u32; 17] = [0, 1, 32, 33, 50, 51, 64, 65, 512, 513, 4_096, 4_097, 65_536, 65_537, 1 << 20, 104_857_600, u32::MAX];

/// Writes every claim over every four bytes of the value and decodes; returns how many claims were refused.
fn claims<T: BorshSerialize + BorshDeserialize>(name: &str, value: &T, overhead: usize) -> usize {
    let bytes = codec::encode(1, value);
    let mut refused = 0;
    for place in 1..bytes.len().saturating_sub(3) {
        for claim in CLAIMS {
            let mut claimed = bytes.clone();
            claimed[place..place + 4].copy_from_slice(&claim.to_le_bytes());
            let region = Region::new(GLOBAL);
            let answer = codec::decode::<T>(1, &claimed, 1 << 20);
            let stats = region.change();
            let reallocated = usize::try_from(stats.bytes_reallocated.max(0)).unwrap();
            let allocated = stats.bytes_allocated + reallocated;
            let bound = PER_BYTE * bytes.len() + overhead;
            assert!(allocated <= bound, "{name}: {claim} at byte {place} allocates {allocated} bytes, at most {bound} were expected");
            refused += usize::from(answer.is_err());
        }
    }
    refused
}

#[test]
fn a_claim_alone_allocates_next_to_nothing() {
    let set = set(&[40, 30, 20, 10]);
    let block_id = block_id("block");
    let vote: Vote = vote(&set, 1, VoteType::Prevote, 5, 3, Some(block_id), Some(2));
    let proposal: Proposal = proposal(Some(1));
    let commit: Commit = commit(&set, &[0, 1, 2], 5, block_id);
    let polka: Polka = polka(&set, &[0, 1, 2], block_id, Some(1));
    let part: Part = block::cut(&vec![3; block::PART_BYTES + 9]).1.remove(1);
    let proof: merkle::Proof = merkle::proofs(&["a", "b", "c"]).1.remove(1);
    let duplicate = Evidence::DuplicateVote(Box::new(duplicate_vote(&set)));
    let attack = Evidence::LightClientAttack(Box::new(light_client_attack(&set)));
    let header: Header = header();
    let block: Block = full_block();
    let validators: ValidatorSet = set;
    let result: TxResult = tx_result();

    let refused = [
        claims("vote", &vote, OVERHEAD),
        claims("proposal", &proposal, OVERHEAD),
        claims("commit", &commit, OVERHEAD),
        claims("polka", &polka, OVERHEAD),
        claims("part", &part, OVERHEAD),
        claims("proof", &proof, OVERHEAD),
        claims("duplicate vote", &duplicate, OVERHEAD),
        claims("light-client attack", &attack, OVERHEAD),
        claims("header", &header, OVERHEAD),
        claims("block", &block, OVERHEAD),
        claims("validator set", &validators, OVERHEAD),
        claims("result", &result, OVERHEAD + BORSH_BYTES),
    ];
    densest_body();
    assert!(refused.iter().all(|count| *count > 0), "every type has something to refuse: {refused:?}");
}

/// The densest input there is: a million empty transactions, each four bytes of body and 24 of memory.
fn densest_body() {
    let mut dense = full_block();
    dense.txs = vec![lockstep_types::Tx(Vec::new()); 100_000];
    let body = dense.encode();
    let region = Region::new(GLOBAL);
    let decoded = Block::decode(&body);
    let stats = region.change();
    assert!(decoded.is_ok());
    let allocated = stats.bytes_allocated + usize::try_from(stats.bytes_reallocated.max(0)).unwrap();
    assert!(allocated <= PER_BYTE * body.len() + OVERHEAD, "{allocated} bytes for a body of {}", body.len());
}
