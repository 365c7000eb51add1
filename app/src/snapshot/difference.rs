//! What differs between a chunk and what a replica with an older state has of it.

use std::io::{Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::codec;
use lockstep_types::state_tree::DEPTH_MAX;

use super::chunk::{pack_entries, unpack_entries, verify};
use super::{ChunkError, ChunkInfo, PACKED_BYTES_MAX};
use crate::tree::{OwnedEntry, Part, Prefix};

/// Most levels of an outline: 16 KiB of question for 1 MiB of answer saved.
pub const OUTLINE_LEVELS_MAX: u8 = 12;

/// Most bytes of the bits that say which subtrees differ.
const WHICH_BYTES_MAX: usize = (1 << OUTLINE_LEVELS_MAX) / 8;

/// First bytes of the roots of all subtrees some levels below a chunk's place, in path order: what the asker has. Four bytes
/// of each are enough to find what differs, and too few once in four thousand million comparisons; the chunk's root tells.
#[derive(Clone, PartialEq, Eq)]
pub struct Outline {
    levels: u8,
    roots: Vec<[u8; 4]>,
}

impl Outline {
    /// Of the asker's own part, which stands where the chunk does. About two entries of the chunk for each subtree: what the
    /// outline costs and what it saves are then about the same where one entry in a hundred differs.
    pub fn of(own: &Part, info: &ChunkInfo) -> Self {
        let room = DEPTH_MAX - usize::from(own.prefix().depth());
        let wanted = info.entries.max(2).ilog2() - 1;
        let levels = u8::try_from(wanted.min(u32::from(OUTLINE_LEVELS_MAX)).min(u32::try_from(room).expect("at most 256"))).expect("small");
        let roots = subtrees(own, levels).expect("there is room below").iter().map(first_bytes).collect();
        Self { levels, roots }
    }

    /// How many levels below the chunk.
    pub const fn levels(&self) -> u8 {
        self.levels
    }
}

impl std::fmt::Debug for Outline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outline({} levels)", self.levels)
    }
}

impl BorshSerialize for Outline {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        self.levels.serialize(writer)?;
        self.roots.iter().try_for_each(|root| writer.write_all(root))
    }
}

impl BorshDeserialize for Outline {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let levels = u8::deserialize_reader(reader)?;
        if levels > OUTLINE_LEVELS_MAX {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("an outline of {levels} levels")));
        }
        let mut roots = Vec::new();
        for _ in 0..1usize << levels {
            roots.push(<[u8; 4]>::deserialize_reader(reader)?);
        }
        Ok(Self { levels, roots })
    }
}

/// The entries of those subtrees of a chunk that are not as the asker's outline says.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Difference {
    /// A bit for each subtree in path order, the most significant bit of the first byte first; 1 where it differs. Spare
    /// bits are 0.
    which: Vec<u8>,
    /// All entries of those, packed as a chunk is.
    packed: Vec<u8>,
}

impl BorshDeserialize for Difference {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self { which: codec::read_bytes(reader, WHICH_BYTES_MAX)?, packed: codec::read_bytes(reader, PACKED_BYTES_MAX)? })
    }
}

impl Difference {
    /// Between a chunk and what its asker has. Nothing, when the outline goes deeper than paths do. What it costs is
    /// bounded by the chunk's size and the outline's.
    pub fn between(chunk: &Part, asker: &Outline) -> Option<Self> {
        let parts = subtrees(chunk, asker.levels)?;
        let mut which = vec![0; parts.len().div_ceil(8)];
        let mut differing = Vec::new();
        for (at, (part, known)) in parts.iter().zip(&asker.roots).enumerate() {
            if first_bytes(part) != *known {
                which[at / 8] |= 0x80 >> (at % 8);
                differing.push(part);
            }
        }
        Some(Self { which, packed: pack_entries(differing.into_iter().flat_map(Part::iter)) })
    }

    /// The chunk, from what the asker has and this answer to its outline of `levels`.
    ///
    /// # Errors
    /// [`ChunkError::Malformed`] when this is no answer to that outline; [`ChunkError::WrongRoot`] when the two do not make
    /// up the chunk: the chunk is then to be asked for whole, and nobody is to blame for once.
    pub fn apply(&self, own: &Part, levels: u8, info: &ChunkInfo) -> Result<Part, ChunkError> {
        let malformed = |what: &str| ChunkError::Malformed(what.to_owned());
        let parts = subtrees(own, levels).ok_or_else(|| malformed("an outline deeper than paths are"))?;
        if self.which.len() != parts.len().div_ceil(8) {
            return Err(malformed("an answer to another outline"));
        }
        let mut entries = unpack_entries(&self.packed)?.into_iter().peekable();
        let mut joined = Vec::with_capacity(parts.len());
        for (at, part) in parts.into_iter().enumerate() {
            if self.which[at / 8] & 0x80 >> (at % 8) == 0 {
                joined.push(part);
                continue;
            }
            let mut its: Vec<OwnedEntry> = Vec::new();
            while let Some(entry) = entries.next_if(|(key, _)| lies_in(part.prefix(), key)) {
                its.push(entry);
            }
            joined.push(Part::build(part.prefix(), its)?);
        }
        if entries.next().is_some() {
            return Err(malformed("entries that lie in no subtree that differs"));
        }
        let whole = Part::join(own.prefix(), joined).expect("the subtrees of one part, in path order");
        if whole.prefix() != info.prefix {
            return Err(malformed("a difference from another part"));
        }
        verify(info, whole)
    }
}

fn lies_in(prefix: Prefix, key: &[u8]) -> bool {
    prefix.contains(&lockstep_types::state_tree::Path::of(key))
}

fn first_bytes(part: &Part) -> [u8; 4] {
    *part.root().0.first_chunk().expect("a hash has 32 bytes")
}

/// All subtrees so many levels below a part, in path order; nothing when paths end before.
fn subtrees(part: &Part, levels: u8) -> Option<Vec<Part>> {
    let mut parts = vec![part.clone()];
    for _ in 0..levels {
        let mut next = Vec::with_capacity(parts.len() * 2);
        for part in &parts {
            let (left, right) = part.halves()?;
            next.extend([left, right]);
        }
        parts = next;
    }
    Some(parts)
}
