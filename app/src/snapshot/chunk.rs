//! A chunk: its entries in path order, packed with zstd.

use std::sync::Arc;

use lockstep_types::Hash;
use lockstep_types::state_tree::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use super::{CHUNK_BYTES_MAX, ChunkInfo, ENTRY_OVERHEAD_BYTES};
use crate::tree::{Entry, OwnedEntry, Part, PartError};

/// First byte of packed entries.
const VERSION: u8 = 1;

/// zstd's fastest ordinary level: a snapshot is made beside consensus.
const LEVEL: i32 = 1;

/// What stands before the zstd frame: version and number of raw bytes.
const HEAD_BYTES: usize = 1 + 4;

/// Most bytes of packed entries. What does not compress grows by less than a 256th.
pub const PACKED_BYTES_MAX: usize = HEAD_BYTES + CHUNK_BYTES_MAX + CHUNK_BYTES_MAX / 256 + 512;

/// Why bytes are not the chunk that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// No packed entries, or not of this part. Whoever sent them is at fault.
    #[error("not the entries of a chunk: {0}")]
    Malformed(String),
    /// Entries, and not these. Whoever sent them is at fault; of a difference it may be the outline that was too short.
    #[error("the entries have another root than the chunk")]
    WrongRoot,
    /// The chunk itself, and the manifest says that it has another number of entries or bytes. Whoever sent the manifest is
    /// at fault, and it is to be given up: a chunk of this name never fits it.
    #[error("the chunk is the one asked for, and the manifest lies about its size")]
    ManifestLies,
}

impl From<PartError> for ChunkError {
    fn from(error: PartError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The entries of a part, packed: what a chunk is in a file and on the wire.
///
/// # Panics
/// When the part is larger than a chunk; see [`super::plan`].
pub fn pack(part: &Part) -> Vec<u8> {
    pack_entries(part.iter())
}

pub(super) fn pack_entries<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<u8> {
    let mut raw = Vec::new();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and values are short").to_le_bytes();
    for (key, value) in entries {
        raw.extend_from_slice(&len(key));
        raw.extend_from_slice(key);
        raw.extend_from_slice(&len(value));
        raw.extend_from_slice(value);
    }
    assert!(raw.len() <= CHUNK_BYTES_MAX, "more than a chunk is not packed");
    let mut packed = vec![VERSION];
    packed.extend_from_slice(&len(&raw));
    packed.extend(zstd::bulk::compress(&raw, LEVEL).expect("compressing in memory does not fail"));
    packed
}

/// The entries in packed bytes, at most [`CHUNK_BYTES_MAX`] of them raw.
pub(super) fn unpack_entries(packed: &[u8]) -> Result<Vec<OwnedEntry>, ChunkError> {
    let raw = unpack(packed)?;
    Ok(entries_in(&raw)?.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))).collect())
}

/// The raw bytes in packed ones.
fn unpack(packed: &[u8]) -> Result<Vec<u8>, ChunkError> {
    if packed.len() > PACKED_BYTES_MAX {
        return Err(malformed("longer than any chunk"));
    }
    let Some((head, frame)) = packed.split_first_chunk::<HEAD_BYTES>() else { return Err(malformed("too short")) };
    let [version, claimed @ ..] = *head;
    let claimed = u32::from_le_bytes(claimed) as usize;
    if version != VERSION {
        return Err(malformed("of another version"));
    }
    if claimed > CHUNK_BYTES_MAX {
        return Err(malformed("more entries than there may be"));
    }
    let raw = zstd::bulk::decompress(frame, claimed).map_err(|error| ChunkError::Malformed(error.to_string()))?;
    if raw.len() != claimed {
        return Err(malformed("another number of bytes than it says"));
    }
    Ok(raw)
}

/// A key and its value, where they lie.
type Lying<'a> = (&'a [u8], &'a [u8]);

fn entries_in(raw: &[u8]) -> Result<Vec<Lying<'_>>, ChunkError> {
    let mut rest = raw;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let key = take(&mut rest, KEY_BYTES_MAX).ok_or_else(|| malformed("a key that ends early or is too long"))?;
        let value = take(&mut rest, VALUE_BYTES_MAX).ok_or_else(|| malformed("a value that ends early or is too long"))?;
        entries.push((key, value));
    }
    Ok(entries)
}

fn malformed(what: &str) -> ChunkError {
    ChunkError::Malformed(what.to_owned())
}

/// A byte string behind its length.
fn take<'a>(rest: &mut &'a [u8], max: usize) -> Option<&'a [u8]> {
    let (len, behind) = rest.split_first_chunk::<4>()?;
    let len = u32::from_le_bytes(*len) as usize;
    if len > max {
        return None;
    }
    let (bytes, behind) = behind.split_at_checked(len)?;
    *rest = behind;
    Some(bytes)
}

/// Whether packed bytes are this chunk: the verdict of [`open`], in a fraction of its time, since none of what would be joined is made.
///
/// # Errors
/// As [`open`].
pub fn judge(info: &ChunkInfo, packed: &[u8]) -> Result<(), ChunkError> {
    let raw = unpack(packed)?;
    let entries = entries_in(&raw)?;
    let root = Part::root_of(info.prefix, &entries)?;
    let lens = entries.iter().map(|(key, value)| (key.len(), value.len()));
    fits(info, root, entries.len() as u64, lens)
}

/// The chunk that packed bytes are: verified, and ready to be joined with others into a state
/// ([`Tree::join`](crate::Tree::join)).
///
/// # Errors
/// See [`ChunkError`], which says who is at fault.
pub fn open(info: &ChunkInfo, packed: &[u8]) -> Result<Part, ChunkError> {
    // Not by what the manifest says of its bytes: whoever sent the chunk is not to be blamed for that.
    let part = Part::build(info.prefix, unpack_entries(packed)?)?;
    verify(info, part)
}

pub(super) fn verify(info: &ChunkInfo, part: Part) -> Result<Part, ChunkError> {
    fits(info, part.root(), part.len(), part.iter().map(|(key, value)| (key.len(), value.len())))?;
    Ok(part)
}

/// Whether a part with this root, and so many entries of these lengths, is the one that the manifest describes.
fn fits(info: &ChunkInfo, root: Hash, count: u64, lens: impl Iterator<Item = (usize, usize)>) -> Result<(), ChunkError> {
    if root != info.root {
        return Err(ChunkError::WrongRoot);
    }
    let bytes: u64 = lens.map(|(key, value)| key as u64 + value as u64 + u64::from(ENTRY_OVERHEAD_BYTES)).sum();
    if count != u64::from(info.entries) || bytes != u64::from(info.bytes) {
        return Err(ChunkError::ManifestLies);
    }
    Ok(())
}
