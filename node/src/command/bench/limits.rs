//! What physics allows, to stand beside what was measured.
//!
//! The figures were measured with nothing but the primitive in question, on two cores with SHA instructions and a disk that
//! syncs in 0.13 ms. On another machine they are other ones; the way they are put together stays.

use std::time::Duration;

/// One message over loopback TCP, there.
const HOP: Duration = Duration::from_nanos(5_500);
/// One ed25519 signature.
const SIGN: Duration = Duration::from_nanos(12_600);
/// One verification.
const VERIFY: Duration = Duration::from_nanos(26_000);

/// Limits of throughput, four validators on two cores: transactions of 256 bytes a second, and how they are handed in.
pub(super) const THROUGHPUT: [(u32, &str); 3] = [
    (60_000, "unsigned, one per request: 33 core-µs each (execution and consensus 12, HTTP 17, gossip 4)"),
    (110_000, "unsigned, in batches of 50: 17 core-µs each (HTTP 1.4)"),
    (25_000, "signed, in batches: 79 core-µs each (four verifications in batches, 46)"),
];

/// What is measured of an empty block there, with four processes that share two cores: they are the bound, not the disk.
pub(super) const EMPTY_BLOCK_CPU_BOUND: Duration = Duration::from_micros(1_500);

/// The least time from submitting to commit, when cores are free: three message delays, four syncs of this disk one after
/// the other, three signatures, five verifications.
pub(super) fn commit_floor(sync_p50: Duration) -> Duration {
    HOP * 3 + sync_p50 * 4 + SIGN * 3 + VERIFY * 5
}
