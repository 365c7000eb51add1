//! The bytes of results and of their index. Frozen; `docs/format-storage.md` is the same in words.

use sha2::{Digest, Sha256};

/// The first bytes of a record of results.
const RESULTS_MAGIC: [u8; 4] = *b"LSRS";
/// The first bytes of a page of an index.
const INDEX_MAGIC: [u8; 4] = *b"LSIX";
/// The version of both that is written.
const VERSION: u8 = 1;

/// Bytes before the payload of a record of results.
pub(crate) const HEADER_BYTES: usize = 64;
const CRC_AT: usize = 28;
const DIGEST_AT: usize = 32;

/// Bytes of a page of an index.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Entries that fit in a page.
pub(crate) const PAGE_ENTRIES: usize = (PAGE_BYTES - HEADER_BYTES) / ENTRY_BYTES;
const ENTRY_BYTES: usize = 44;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Torn or rotten.
    Damaged,
    /// It verifies, and a later program wrote it.
    Newer(u8),
}

/// What a record of results says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResultsHeader {
    pub segment: u64,
    pub height: u64,
    pub payload_bytes: u32,
}

impl ResultsHeader {
    pub(crate) fn record_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload_bytes)
    }

    /// The whole record.
    pub(crate) fn encode(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&RESULTS_MAGIC);
        bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
        bytes.extend_from_slice(&self.segment.to_le_bytes());
        bytes.extend_from_slice(&self.height.to_le_bytes());
        bytes.extend_from_slice(&self.payload_bytes.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend_from_slice(&digest(&bytes, payload));
        bytes.extend_from_slice(payload);
        bytes
    }

    /// A header whose CRC holds: enough to find the next record.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<ResultsHeader, Flaw> {
        if bytes[..4] != RESULTS_MAGIC || crc32fast::hash(&bytes[..CRC_AT]).to_le_bytes() != bytes[CRC_AT..DIGEST_AT] {
            return Err(Flaw::Damaged);
        }
        if bytes[4] != VERSION {
            return Err(Flaw::Newer(bytes[4]));
        }
        Ok(ResultsHeader { segment: u64_at(bytes, 8), height: u64_at(bytes, 16), payload_bytes: u32_at(bytes, 24) })
    }

    /// Whether this header and this payload were written together.
    pub(crate) fn verifies(bytes: &[u8; HEADER_BYTES], payload: &[u8]) -> bool {
        bytes[DIGEST_AT..] == digest(&bytes[..DIGEST_AT], payload)
    }
}

/// Where a transaction was executed. Ordered as the index is: by hash, then by height and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct IndexEntry {
    pub hash: [u8; 32],
    pub height: u64,
    pub index: u32,
}

/// The pages of an index over sorted entries. An index of no transactions has one page, so that its file says so.
pub(crate) fn encode_index(segment: u64, entries: &[IndexEntry]) -> Vec<u8> {
    let pages = entries.len().div_ceil(PAGE_ENTRIES).max(1);
    let page_count = u32::try_from(pages).unwrap_or(u32::MAX);
    let mut file = Vec::with_capacity(pages * PAGE_BYTES);
    for page in 0..pages {
        let held = &entries[(page * PAGE_ENTRIES).min(entries.len())..((page + 1) * PAGE_ENTRIES).min(entries.len())];
        let mut bytes = Vec::with_capacity(PAGE_BYTES);
        bytes.extend_from_slice(&INDEX_MAGIC);
        bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
        bytes.extend_from_slice(&segment.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(page).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&page_count.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(held.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        for entry in held {
            bytes.extend_from_slice(&entry.hash);
            bytes.extend_from_slice(&entry.height.to_le_bytes());
            bytes.extend_from_slice(&entry.index.to_le_bytes());
        }
        bytes.resize(PAGE_BYTES, 0);
        let digest = digest(&bytes[..DIGEST_AT], &bytes[HEADER_BYTES..]);
        bytes[DIGEST_AT..HEADER_BYTES].copy_from_slice(&digest);
        file.extend_from_slice(&bytes);
    }
    file
}

/// The entries of a page that verifies and is page `page` of `pages` of the index of `segment`.
pub(crate) fn decode_page(bytes: &[u8; PAGE_BYTES], segment: u64, page: u32, pages: u32) -> Result<Vec<IndexEntry>, Flaw> {
    if bytes[..4] != INDEX_MAGIC || bytes[DIGEST_AT..HEADER_BYTES] != digest(&bytes[..DIGEST_AT], &bytes[HEADER_BYTES..]) {
        return Err(Flaw::Damaged);
    }
    if bytes[4] != VERSION {
        return Err(Flaw::Newer(bytes[4]));
    }
    let count = u32_at(bytes, 24) as usize;
    if (u64_at(bytes, 8), u32_at(bytes, 16), u32_at(bytes, 20)) != (segment, page, pages) || count > PAGE_ENTRIES {
        return Err(Flaw::Damaged);
    }
    let entries = bytes[HEADER_BYTES..].chunks_exact(ENTRY_BYTES).take(count);
    Ok(entries.map(|entry| IndexEntry { hash: array_at(entry, 0), height: u64_at(entry, 32), index: u32_at(entry, 40) }).collect())
}

fn digest(header: &[u8], payload: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(header);
    digest.update(payload);
    digest.finalize().into()
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}
