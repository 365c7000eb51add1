//! Our own proof: the siblings along a key's path, and what stands at its end.

use std::io::{Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use super::{DEPTH_MAX, EMPTY, Path, climb, leaf_hash};
use crate::codec;
use crate::primitives::Hash;

/// First byte of a proof's bytes.
const VERSION: u8 = 1;

/// Longest proof: version, terminal with path and value hash, depth, which siblings are there, and all of them.
pub const PROOF_BYTES_MAX: usize = 1 + 1 + 64 + 2 + DEPTH_MAX / 8 + DEPTH_MAX * 32;

/// What stands at the end of a key's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// The key's own leaf: the key is present. Path and value hash follow from key and value.
    Present,
    /// An empty subtree: the key is absent.
    Vacant,
    /// The leaf of another key, alone in the subtree where ours would be: the key is absent.
    Other {
        /// The other key's path, which begins like ours.
        path: Path,
        /// SHA-256 of the other key's value.
        value_hash: Hash,
    },
}

/// Proof that a key is present with one value, or absent, in the state with a certain root.
///
/// Bytes: a version byte (1), then
///
/// | field | bytes |
/// |---|---|
/// | terminal | one byte: 0 present, 1 vacant, 2 other; after 2 the other's path and value hash, 32 bytes each |
/// | depth | two bytes, little-endian, 0 to 256: the number of siblings |
/// | which | one bit per sibling from the root down, most significant first, 1 where it is not empty; spare bits are 0 |
/// | siblings | 32 bytes for each that is not empty |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// What stands at the end of the path.
    pub terminal: Terminal,
    /// The hashes beside the path, from the root's child down; [`EMPTY`] where the other side has no entry.
    pub siblings: Vec<Hash>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The proof shows the opposite of what is claimed.
    #[error("the proof shows that the key is {}, not that it is {}", if *.shows_present { "present" } else { "absent" }, if *.shows_present { "absent" } else { "present" })]
    Opposite {
        /// What the proof speaks of.
        shows_present: bool,
    },
    /// The proof is deeper than the tree can be.
    #[error("{depth} siblings, a path has {DEPTH_MAX}")]
    Depth {
        /// Number of siblings.
        depth: usize,
    },
    /// A leaf that is said to stand where the key would be does not lie on the key's path.
    #[error("the leaf of the other key stands elsewhere")]
    Elsewhere,
    /// The path does not end in the root.
    #[error("the path leads to another root")]
    Root,
    /// A proof by neighbours whose entries are not next to the key on both sides.
    #[error("the {0}")]
    Neighbours(&'static str),
    /// A proof that speaks of another key or value.
    #[error("the proof is for another {0}")]
    Subject(&'static str),
}

impl Proof {
    /// Checks that the state with this root holds `value` under `key`, or nothing when `value` is none.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn verify(&self, root: &Hash, key: &[u8], value: Option<&[u8]>) -> Result<(), ProofError> {
        if self.siblings.len() > DEPTH_MAX {
            return Err(ProofError::Depth { depth: self.siblings.len() });
        }
        let path = Path::of(key);
        let below = match (self.terminal, value) {
            (Terminal::Present, Some(value)) => leaf_hash(&path, &Hash::of(value)),
            (Terminal::Vacant, None) => EMPTY,
            (Terminal::Other { path: other, value_hash }, None) => {
                // Its depth says that no second entry begins with these bits: ours would.
                if other == path || other.common_bits(&path) < self.siblings.len() {
                    return Err(ProofError::Elsewhere);
                }
                leaf_hash(&other, &value_hash)
            }
            (terminal, _) => return Err(ProofError::Opposite { shows_present: terminal == Terminal::Present }),
        };
        if climb(&path, &self.siblings, below) == *root { Ok(()) } else { Err(ProofError::Root) }
    }

    /// The bytes of the proof.
    ///
    /// # Panics
    /// With more than [`DEPTH_MAX`] siblings, which no tree gives.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }

    /// A proof from its bytes.
    ///
    /// # Errors
    /// When they are not exactly the bytes that [`Proof::to_bytes`] writes for some proof.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, codec::DecodeError> {
        codec::decode(VERSION, bytes, PROOF_BYTES_MAX)
    }
}

impl BorshSerialize for Proof {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        assert!(self.siblings.len() <= DEPTH_MAX, "a path has 256 levels");
        match &self.terminal {
            Terminal::Present => writer.write_all(&[0])?,
            Terminal::Vacant => writer.write_all(&[1])?,
            Terminal::Other { path, value_hash } => {
                writer.write_all(&[2])?;
                writer.write_all(&path.0)?;
                writer.write_all(&value_hash.0)?;
            }
        }
        let depth = u16::try_from(self.siblings.len()).expect("at most 256");
        writer.write_all(&depth.to_le_bytes())?;
        for eight in self.siblings.chunks(8) {
            let which = eight.iter().enumerate().fold(0u8, |byte, (at, sibling)| byte | u8::from(*sibling != EMPTY) << (7 - at));
            writer.write_all(&[which])?;
        }
        self.siblings.iter().filter(|sibling| **sibling != EMPTY).try_for_each(|sibling| writer.write_all(&sibling.0))
    }
}

fn malformed(what: &'static str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what)
}

impl BorshDeserialize for Proof {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let terminal = match u8::deserialize_reader(reader)? {
            0 => Terminal::Present,
            1 => Terminal::Vacant,
            2 => Terminal::Other { path: Path::deserialize_reader(reader)?, value_hash: Hash::deserialize_reader(reader)? },
            _ => return Err(malformed("a terminal is 0, 1 or 2")),
        };
        let depth = usize::from(u16::deserialize_reader(reader)?);
        if depth > DEPTH_MAX {
            return Err(malformed("a path has 256 levels"));
        }
        let mut which = [0; DEPTH_MAX / 8];
        let which = &mut which[..depth.div_ceil(8)];
        reader.read_exact(which)?;
        let is_set = |at: usize| which[at / 8] >> (7 - at % 8) & 1 == 1;
        if (depth..which.len() * 8).any(is_set) {
            return Err(malformed("spare bits are zero"));
        }
        let mut siblings = Vec::with_capacity(depth);
        for at in 0..depth {
            let sibling = if is_set(at) { Hash::deserialize_reader(reader)? } else { EMPTY };
            if is_set(at) && sibling == EMPTY {
                return Err(malformed("an empty sibling is left out"));
            }
            siblings.push(sibling);
        }
        Ok(Self { terminal, siblings })
    }
}
