//! The bytes of a segment. Frozen; `docs/format-storage.md` is the same in words.

use sha2::{Digest, Sha256};

use super::Kind;
use crate::planted::{self, Bug};

/// The first bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 4] = *b"LSSG";
/// The first bytes of a record. Only damage makes anyone look for them.
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"LSRC";
/// The version of segments and of records that is written.
pub(crate) const VERSION: u8 = 1;
/// Bytes before a segment's first record.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 80;
/// Bytes before a record's payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 108;

/// More records than any log will have; sums with a sequence number never overflow.
const SEQUENCE_MAX: u64 = u64::MAX / 2;
const CRC_AT: usize = 72;
const DIGEST_AT: usize = 76;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A checksum, a magic or a length is wrong: torn or rotten.
    Damaged,
    /// The checksum is right and the version or kind is one that a later program wrote.
    Newer(u8),
}

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub first_sequence: u64,
    pub salt: [u8; 32],
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..4].copy_from_slice(&SEGMENT_MAGIC);
        bytes[4] = VERSION;
        bytes[8..16].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[16..48].copy_from_slice(&self.salt);
        let digest: [u8; 32] = Sha256::digest(&bytes[..48]).into();
        bytes[48..].copy_from_slice(&digest);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<SegmentHeader, Flaw> {
        let digest: [u8; 32] = Sha256::digest(&bytes[..48]).into();
        if bytes[..4] != SEGMENT_MAGIC || bytes[48..] != digest {
            return Err(Flaw::Damaged);
        }
        if bytes[4] != VERSION {
            return Err(Flaw::Newer(bytes[4]));
        }
        let first_sequence = u64_at(bytes, 8);
        if !(1..=SEQUENCE_MAX).contains(&first_sequence) {
            return Err(Flaw::Damaged);
        }
        Ok(SegmentHeader { first_sequence, salt: SegmentHeader::salt_of(bytes) })
    }

    /// The salt in a header, whether that verifies or not.
    pub(crate) fn salt_of(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> [u8; 32] {
        array_at(bytes, 16)
    }
}

/// What a record says of itself, before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub kind: Kind,
    pub sequence: u64,
    /// The highest sequence number that was durable when this record was written.
    pub durable_sequence: u64,
    pub height: u64,
    pub round: u32,
    pub payload_bytes: u32,
    pub block_hash: [u8; 32],
    pub digest: [u8; 32],
}

impl RecordHeader {
    /// Bytes of the record, header and payload.
    pub(crate) fn record_bytes(&self) -> u64 {
        RECORD_HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// The whole record. `self.digest` and `self.payload_bytes` are computed, not read.
    pub(crate) fn encode(&self, salt: &[u8; 32], payload: &[u8]) -> Vec<u8> {
        let payload_bytes = u32::try_from(payload.len()).expect("append checked PAYLOAD_BYTES_MAX");
        let mut bytes = Vec::with_capacity(RECORD_HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&RECORD_MAGIC);
        bytes.extend_from_slice(&[VERSION, self.kind as u8, 0, 0]);
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&self.durable_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.height.to_le_bytes());
        bytes.extend_from_slice(&self.round.to_le_bytes());
        bytes.extend_from_slice(&payload_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.block_hash);
        let crc = header_crc(salt, &bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        let digest = record_digest(salt, &bytes, payload);
        bytes.extend_from_slice(&digest);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Reads a header whose CRC holds. That says where the next record is; the digest over header and payload alone
    /// says that the record is to be believed.
    pub(crate) fn decode(bytes: &[u8; RECORD_HEADER_BYTES], salt: &[u8; 32]) -> Result<RecordHeader, Flaw> {
        let crc = u32::from_le_bytes(array_at(bytes, CRC_AT));
        if bytes[..4] != RECORD_MAGIC || crc != header_crc(salt, &bytes[..CRC_AT]) {
            return Err(Flaw::Damaged);
        }
        if bytes[4] != VERSION {
            return Err(Flaw::Newer(bytes[4]));
        }
        let kind = Kind::from_byte(bytes[5]).ok_or(Flaw::Newer(bytes[5]))?;
        let (sequence, durable_sequence) = (u64_at(bytes, 8), u64_at(bytes, 16));
        if sequence > SEQUENCE_MAX || durable_sequence >= sequence {
            return Err(Flaw::Damaged);
        }
        Ok(RecordHeader {
            kind,
            sequence,
            durable_sequence,
            height: u64_at(bytes, 24),
            round: u32::from_le_bytes(array_at(bytes, 32)),
            payload_bytes: u32::from_le_bytes(array_at(bytes, 36)),
            block_hash: array_at(bytes, 40),
            digest: array_at(bytes, DIGEST_AT),
        })
    }

    /// Whether this header and this payload were written together in the log that has this salt.
    pub(crate) fn verifies(bytes: &[u8; RECORD_HEADER_BYTES], payload: &[u8], salt: &[u8; 32]) -> bool {
        bytes[DIGEST_AT..] == record_digest(salt, &bytes[..DIGEST_AT], payload)
    }
}

fn header_crc(salt: &[u8; 32], fields: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(if planted::has(Bug::SaltIgnored) { &[0; 32] } else { salt });
    crc.update(fields);
    crc.finalize()
}

fn record_digest(salt: &[u8; 32], header: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(if planted::has(Bug::SaltIgnored) { &[0; 32] } else { salt });
    digest.update(header);
    digest.update(payload);
    digest.finalize().into()
}

/// `N` bytes of a slice that is known to be long enough.
pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}
