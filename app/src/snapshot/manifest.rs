//! The manifest: the roots of all chunks, which fold to the root of the state.

use std::io::{Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::state_tree::{EMPTY, inner_hash};
use lockstep_types::{Hash, Height};

use super::{CHUNK_BYTES_MAX, ENTRY_OVERHEAD_BYTES};
use crate::tree::Prefix;

/// First byte of a manifest.
const VERSION: u8 = 1;

/// Most chunks of a snapshot: those of some 40 GiB of state, more than is kept in memory. A manifest of that many is less
/// than one answer of a peer may have.
pub const CHUNKS_MAX: usize = 1 << 16;

/// What a manifest has beside its chunks: version, genesis hash, height, count.
const HEAD_BYTES: usize = 1 + 32 + 8 + 4;
/// Depth, root, entries, bytes.
const INFO_BYTES: usize = 2 + 32 + 4 + 4;

/// Most bytes of a manifest.
pub const MANIFEST_BYTES_MAX: usize = HEAD_BYTES + CHUNKS_MAX * INFO_BYTES;

/// Fewest bytes of an entry.
const ENTRY_BYTES_MIN: u64 = ENTRY_OVERHEAD_BYTES as u64 + 2;

/// What a manifest says of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Where its entries are. Not written: the depths of all chunks say it.
    pub prefix: Prefix,
    /// The root of its subtree, and its name.
    pub root: Hash,
    /// Number of its entries. Known to be true only when the chunk is there.
    pub entries: u32,
    /// Its raw bytes; at most [`CHUNK_BYTES_MAX`]. Known to be true only when the chunk is there.
    pub bytes: u32,
}

/// Why bytes are no manifest, or chunks make none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not its layout.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// Chunks that are no cover of the tree, or cannot be what is said of them.
    #[error("chunk {at} of the manifest: {rule}")]
    Chunk {
        /// Which chunk, from 0.
        at: usize,
        /// Which rule.
        rule: &'static str,
    },
    /// More than [`CHUNKS_MAX`].
    #[error("more than {CHUNKS_MAX} chunks: the state is too large for a snapshot")]
    TooMany,
}

/// The chunks of the state after one height. A value of this type is whole: its chunks cover the tree, and what is said
/// of them can be true. Whether it speaks of the chain is said by [`Manifest::app_hash`] and a certified header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    genesis_hash: Hash,
    height: Height,
    chunks: Vec<ChunkInfo>,
    app_hash: Hash,
    entries: u64,
    bytes: u64,
}

/// As it is written.
struct Written {
    genesis_hash: Hash,
    height: Height,
    chunks: Vec<WrittenInfo>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct WrittenInfo {
    depth: u16,
    root: Hash,
    entries: u32,
    bytes: u32,
}

impl BorshDeserialize for Written {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            genesis_hash: Hash::deserialize_reader(reader)?,
            height: Height::deserialize_reader(reader)?,
            chunks: codec::read_list(reader, CHUNKS_MAX)?,
        })
    }
}

impl BorshSerialize for Written {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        self.genesis_hash.serialize(writer)?;
        self.height.serialize(writer)?;
        self.chunks.serialize(writer)
    }
}

impl Manifest {
    /// A manifest of these chunks, which come in path order, as [`super::plan`] gives them.
    ///
    /// # Errors
    /// When they do not cover the tree, or are too many.
    pub fn new(genesis_hash: Hash, height: Height, chunks: Vec<ChunkInfo>) -> Result<Self, ManifestError> {
        if chunks.len() > CHUNKS_MAX {
            return Err(ManifestError::TooMany);
        }
        let refused = |at, rule| ManifestError::Chunk { at, rule };
        let mut fold = Fold::default();
        let (mut entries, mut bytes) = (0u64, 0u64);
        let mut expected = Some(Prefix::WHOLE);
        for (at, chunk) in chunks.iter().enumerate() {
            let place = expected.and_then(|place| place.first_at(chunk.prefix.depth()));
            if place != Some(chunk.prefix) {
                return Err(refused(at, "its place does not follow on the chunk before it"));
            }
            let fits = u64::from(chunk.bytes) >= u64::from(chunk.entries) * ENTRY_BYTES_MIN && chunk.bytes as usize <= CHUNK_BYTES_MAX;
            if !fits || (chunk.entries == 0) != (chunk.bytes == 0) || (chunk.entries == 0) != (chunk.root == EMPTY) {
                return Err(refused(at, "entries, bytes and root cannot be of one chunk"));
            }
            fold.push(chunk).ok_or_else(|| refused(at, "two halves with less than two entries are not cut"))?;
            entries += u64::from(chunk.entries);
            bytes += u64::from(chunk.bytes);
            expected = chunk.prefix.next();
        }
        if expected.is_some() {
            return Err(refused(chunks.len(), "it is missing: the chunks do not cover the tree"));
        }
        let app_hash = fold.root().expect("chunks that cover the tree fold to one root");
        Ok(Self { genesis_hash, height, chunks, app_hash, entries, bytes })
    }

    /// The chain, by its genesis.
    pub const fn genesis_hash(&self) -> Hash {
        self.genesis_hash
    }

    /// H: the state is that after this height's block.
    pub const fn height(&self) -> Height {
        self.height
    }

    /// The chunks in path order.
    pub fn chunks(&self) -> &[ChunkInfo] {
        &self.chunks
    }

    /// What the roots fold to. It proves every root, where it is `app_hash` of a certified header H + 1.
    pub const fn app_hash(&self) -> Hash {
        self.app_hash
    }

    /// Number of all entries.
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Raw bytes of all chunks.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The name of this manifest: honest replicas that made a snapshot of one height have the same.
    pub fn hash(&self) -> Hash {
        Hash::of(self.to_bytes())
    }

    /// A version byte and borsh.
    pub fn to_bytes(&self) -> Vec<u8> {
        let chunks = self.chunks.iter().map(|chunk| WrittenInfo {
            depth: chunk.prefix.depth(),
            root: chunk.root,
            entries: chunk.entries,
            bytes: chunk.bytes,
        });
        codec::encode(VERSION, &Written { genesis_hash: self.genesis_hash, height: self.height, chunks: chunks.collect() })
    }

    /// The manifest from its bytes. Costs a hash for each chunk.
    ///
    /// # Errors
    /// When they are not exactly one manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let written: Written = codec::decode(VERSION, bytes, MANIFEST_BYTES_MAX)?;
        let mut expected = Some(Prefix::WHOLE);
        let mut chunks = Vec::with_capacity(written.chunks.len());
        for (at, WrittenInfo { depth, root, entries, bytes }) in written.chunks.into_iter().enumerate() {
            let prefix = expected.and_then(|place| place.first_at(depth));
            let prefix = prefix.ok_or(ManifestError::Chunk { at, rule: "its depth leaves no place for it" })?;
            chunks.push(ChunkInfo { prefix, root, entries, bytes });
            expected = prefix.next();
        }
        Self::new(written.genesis_hash, written.height, chunks)
    }
}

/// Roots on their way up. Every inner place of a cover has two entries or more below it, so it hashes as an inner node and
/// no leaf rises.
#[derive(Default)]
struct Fold {
    open: Vec<(Prefix, Hash, u64)>,
}

impl Fold {
    /// One more, in path order; nothing when an inner place has less than two entries below it.
    fn push(&mut self, chunk: &ChunkInfo) -> Option<()> {
        let mut at = (chunk.prefix, chunk.root, u64::from(chunk.entries));
        while at.0.is_right() {
            let (_, left, before) = self.open.pop().expect("chunks that follow on each other have left neighbours");
            let entries = before + at.2;
            if entries < 2 {
                return None;
            }
            at = (at.0.parent().expect("a half has a whole"), inner_hash(&left, &at.1), entries);
        }
        self.open.push(at);
        Some(())
    }

    fn root(&self) -> Option<Hash> {
        match self.open[..] {
            [(Prefix::WHOLE, root, _)] => Some(root),
            _ => None,
        }
    }
}
