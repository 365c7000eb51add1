//! Snapshots: the state after one height in chunks, each of which anyone can verify against the root in a certified header.
//!
//! # What proves what
//!
//! ```text
//! header H + 1, signed by more than two thirds
//!    app_hash  =  fold of the chunks' roots, in path order      (the manifest: checked before a chunk is asked for)
//!                    root of a chunk  =  root of its entries    (a chunk: checked when it arrives)
//! ```
//!
//! A chunk is every entry whose path begins with one [`Prefix`]; the prefixes of a snapshot leave no gap and do not overlap.
//! So a chunk is a subtree of the state tree, its root is the hash that the tree itself has there, and the roots fold to the
//! root of the state by the tree's own rule. A manifest whose fold is the certified `app_hash` has no wrong root in it, and
//! entries whose root is a chunk's are that chunk. Nothing else has to be believed.
//!
//! A chunk is **named by its root**. Where two heights have the same entries below a prefix they have the same chunk, under
//! one name: a second snapshot writes, and a replica with an older state fetches, only what differs.
//!
//! # Where the chunks are cut
//!
//! A subtree of more than [`SPLIT_BYTES`] and more than one entry is cut in its two halves; what is left is a chunk ([`plan`]). Paths are
//! hashes, so most chunks hold between half of that and all of it. The rule looks at one subtree alone. So every honest
//! replica makes the same manifest of a height, a state that grows changes few cuts at a time, and whoever makes up keys that
//! crowd below one prefix gets more chunks there, at twice the work for each further bit, and never a larger one.
//!
//! The rule is not part of the proof: a stranger's manifest may cut elsewhere and fold to the right root. Whoever asks for
//! its chunks finds that nobody has them; the manifest is then given up, as one is that names counts which the chunks do not
//! have ([`ChunkError::ManifestLies`]).
//!
//! # Differences within a chunk
//!
//! One entry in a hundred changed at random touches nearly every chunk. So a replica that has an older state sends, with its
//! question, an [`Outline`]: the first bytes of the roots of its own subtrees, some levels below the chunk. The answer is a
//! [`Difference`]: the entries of those that differ. [`Difference::apply`] puts both together and compares the chunk's whole root. An
//! outline that is cut short, or made up, can cost bytes and never truth.
//!
//! # What may arrive
//!
//! Everything here reads strangers' bytes: sizes are bounded before anything is reserved, zstd never gives more than the manifest says
//! and never more than [`CHUNK_BYTES_MAX`], and recursion ends with the 256 bits of a path. `docs/format-snapshot.md` holds every byte.

mod chunk;
mod difference;
mod manifest;

pub use chunk::{ChunkError, PACKED_BYTES_MAX, judge, open, pack};
pub use difference::{Difference, OUTLINE_LEVELS_MAX, Outline};
pub use manifest::{CHUNKS_MAX, ChunkInfo, MANIFEST_BYTES_MAX, Manifest, ManifestError};

use lockstep_types::state_tree::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::tree::{Part, Prefix, Tree};

/// A subtree of more raw bytes is cut in two. As large as is still cheap to fetch twice; small enough that several are in
/// flight from several peers, and that one changed entry does not move much.
pub const SPLIT_BYTES: u64 = 1 << 20;

/// Bytes of an entry in a chunk beside its key and value: their lengths.
pub const ENTRY_OVERHEAD_BYTES: u32 = 8;

/// Most raw bytes of a chunk: one entry of the largest size is a chunk of its own.
pub const CHUNK_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + ENTRY_OVERHEAD_BYTES as usize;
const _: () = assert!(CHUNK_BYTES_MAX as u64 >= SPLIT_BYTES);
const _: () = assert!(CHUNK_BYTES_MAX <= u32::MAX as usize);

/// How much a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    entries: u32,
    bytes: u32,
}

impl Size {
    /// Of a part that is small enough to be a chunk; none for one that is to be cut.
    fn of(part: &Part) -> Option<Self> {
        let (mut entries, mut bytes) = (0u32, 0u64);
        for (key, value) in part {
            entries += 1;
            bytes += key.len() as u64 + value.len() as u64 + u64::from(ENTRY_OVERHEAD_BYTES);
            if bytes > SPLIT_BYTES && entries > 1 {
                return None;
            }
        }
        Some(Self { entries, bytes: u32::try_from(bytes).expect("one entry, or at most SPLIT_BYTES") })
    }
}

/// The chunks of a state in path order, each with what the manifest says of it. Lazy: the work between two chunks is that of
/// walking over a few of their size, so a maker can rest after each.
pub fn plan(tree: &Tree) -> Plan {
    Plan { ahead: vec![tree.part(Prefix::WHOLE)] }
}

/// See [`plan`]. Holds the version of the state that it is made of.
pub struct Plan {
    /// What is still to come, the nearest last; at most one for each level.
    ahead: Vec<Part>,
}

impl Iterator for Plan {
    type Item = (ChunkInfo, Part);

    fn next(&mut self) -> Option<Self::Item> {
        let mut part = self.ahead.pop()?;
        loop {
            match Size::of(&part) {
                Some(Size { entries, bytes }) => {
                    return Some((ChunkInfo { prefix: part.prefix(), root: part.root(), entries, bytes }, part));
                }
                None => {
                    let (left, right) = part.halves().expect("two paths differ within 256 bits");
                    self.ahead.push(right);
                    part = left;
                }
            }
        }
    }
}
