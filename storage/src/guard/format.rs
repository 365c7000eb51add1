//! The bytes of the guard file. Frozen; `docs/format-storage.md` is the same in words.

use borsh::BorshDeserialize;
use sha2::{Digest, Sha256};

use super::GuardRecord;

/// The first bytes of a copy.
pub(crate) const MAGIC: [u8; 4] = *b"LSGD";
/// The version that is written.
pub(crate) const VERSION: u8 = 1;
/// Bytes of a copy before the record.
pub(crate) const HEADER_BYTES: usize = 52;
/// What a disk writes as one, at most. No page holds bytes of two copies.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Bytes of the file that belong to one copy.
pub(crate) const COPY_BYTES: u64 = COPY as u64;
const COPY: usize = 4 << 20;
/// What is left of a copy for the record.
pub(crate) const RECORD_BYTES_MAX: usize = COPY - HEADER_BYTES;
const DIGEST_AT: usize = 20;

/// Why a copy is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Torn, rotten, or never written.
    Damaged,
    /// It verifies, and a later program wrote it.
    Newer(u8),
}

/// Where copy 0 or 1 of slot 0 or 1 begins.
pub(crate) fn copy_offset(slot: usize, copy: usize) -> u64 {
    (slot * 2 + copy) as u64 * COPY_BYTES
}

/// A copy, filled up with zeros to whole pages.
pub(crate) fn encode(sequence: u64, record: &GuardRecord) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    borsh::to_writer(&mut bytes, record).expect("a Vec takes every byte");
    let payload_bytes = u32::try_from(bytes.len() - HEADER_BYTES).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4] = VERSION;
    bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
    bytes[16..20].copy_from_slice(&payload_bytes.to_le_bytes());
    let digest = digest(&bytes[..DIGEST_AT], &bytes[HEADER_BYTES..]);
    bytes[DIGEST_AT..HEADER_BYTES].copy_from_slice(&digest);
    bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
    bytes
}

/// The record's bytes after the header, if the length can be right.
pub(crate) fn payload_bytes(header: &[u8; HEADER_BYTES]) -> Result<usize, Flaw> {
    let bytes = u32::from_le_bytes(header[16..20].try_into().expect("four bytes"));
    let fits = header[..4] == MAGIC && u64::from(bytes) + HEADER_BYTES as u64 <= COPY_BYTES;
    if fits { Ok(bytes as usize) } else { Err(Flaw::Damaged) }
}

/// The sequence number and record of a copy that verifies.
pub(crate) fn decode(header: &[u8; HEADER_BYTES], payload: &[u8]) -> Result<(u64, GuardRecord), Flaw> {
    if header[DIGEST_AT..] != digest(&header[..DIGEST_AT], payload) {
        return Err(Flaw::Damaged);
    }
    if header[4] != VERSION {
        return Err(Flaw::Newer(header[4]));
    }
    let sequence = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
    let record = GuardRecord::try_from_slice(payload).map_err(|_| Flaw::Damaged)?;
    Ok((sequence, record))
}

fn digest(header: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(header);
    digest.update(payload);
    digest.finalize().into()
}
