//! What decoding allocates, whatever the length fields claim. A binary of its own: it counts the allocations of the whole
//! process, so it has one test and nothing runs beside it.

#[path = "replica/examples.rs"]
mod examples;
#[path = "replica/support.rs"]
#[expect(dead_code, reason = "shared with the tests beside it")]
mod support;

use std::alloc::System;

use lockstep_replica::wire::{Answer, Message, Question, TXS_MAX, TxBatch};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that decoding may allocate in all for each byte of input, lists that double included.
const PER_BYTE: usize = 32;
/// And beside that: the first places of nested lists, and the text of an error.
const OVERHEAD: usize = 32 << 10;
/// Claims that a length field may make: nothing, the bounds of our lists and one above, all that fits.
const CLAIMS: [u32; 15] = [0, 1, 128, 129, 201, 202, 256, 257, 512, 4_096, 4_097, 65_536, 1 << 20, 104_857_600, u32::MAX];

/// What decoding these bytes allocated, and whether they were refused.
fn measured<T, E>(decode: impl FnOnce() -> Result<T, E>) -> (usize, bool) {
    let region = Region::new(GLOBAL);
    let refused = decode().is_err();
    let stats = region.change();
    (stats.bytes_allocated + usize::try_from(stats.bytes_reallocated.max(0)).unwrap(), refused)
}

/// Writes every claim over every four bytes; returns how many claims were refused.
fn claims<T, E>(name: &str, bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, E>) -> usize {
    let mut refused = 0;
    for place in 1..bytes.len().saturating_sub(3) {
        for claim in CLAIMS {
            let mut claimed = bytes.to_vec();
            claimed[place..place + 4].copy_from_slice(&claim.to_le_bytes());
            let (allocated, is_refused) = measured(|| decode(&claimed));
            let bound = PER_BYTE * bytes.len() + OVERHEAD;
            assert!(allocated <= bound, "{name}: {claim} at byte {place} allocates {allocated} bytes, at most {bound} were expected");
            refused += usize::from(is_refused);
        }
    }
    refused
}

#[test]
fn a_claim_alone_allocates_next_to_nothing() {
    for (name, value, _) in examples::messages() {
        let refused = claims(name, &value.encode(), Message::decode);
        assert!(refused > 0, "message {name} has something to refuse");
        claims(name, &value.encode(), Message::decode_gossip);
    }
    for (name, value, _) in examples::questions() {
        claims(name, &value.encode(), Question::decode);
    }
    for (name, value, _) in examples::answers() {
        let refused = claims(name, &value.encode(), Answer::decode);
        assert!(refused > 0, "answer {name} has something to refuse");
    }
    // The densest message there is: empty transactions, four bytes of frame each.
    let dense = Message::Txs(TxBatch(vec![[].into(); TXS_MAX])).encode();
    let (allocated, refused) = measured(|| Message::decode(&dense));
    assert!(!refused);
    assert!(allocated <= PER_BYTE * dense.len() + OVERHEAD, "{allocated} bytes for a frame of {}", dense.len());
}
