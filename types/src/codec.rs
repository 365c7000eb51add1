//! Reading borsh from strangers: canonical, complete, and bounded before anything is allocated.
//!
//! Borsh gives one byte string per value as long as no map, set or float is in it; none of ours has one. What is left to
//! check is done here and nowhere else: the version byte in front, the length of the whole, and that no byte follows.
//! [`decode`] allocates at most a small multiple of the input's length, and 1 MiB: borsh reserves at most 4 KiB for a list
//! and 1 MiB for bytes whatever the length field says, and grows only as elements are really there; every element takes at
//! least one byte of input. What peers send goes through [`read_bytes`] and [`read_list`], which reserve less.

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

/// Why bytes are not a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Longer than any value of this kind.
    #[error("{len} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes offered.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The version byte in front is missing or not one that this program knows.
    #[error("version byte {found:?}, this program reads {expected}")]
    Version {
        /// The byte found, none when there was no byte.
        found: Option<u8>,
        /// The byte this program writes.
        expected: u8,
    },
    /// The bytes do not follow the layout.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// `version` followed by the borsh bytes of the value.
///
/// # Panics
/// Never for our types: writing to memory fails only for lists longer than `u32::MAX`.
pub fn encode<T: BorshSerialize>(version: u8, value: &T) -> Vec<u8> {
    /// Most values fit, and those that do not grow from here in few steps.
    const FIRST_BYTES: usize = 512;
    let mut bytes = Vec::with_capacity(FIRST_BYTES);
    bytes.push(version);
    value.serialize(&mut bytes).expect("writing to memory does not fail");
    bytes
}

/// The value behind a version byte, when the bytes are exactly one value and no longer than `max`.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<T: BorshDeserialize>(version: u8, bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    match bytes.split_first() {
        Some((found, rest)) if *found == version => T::try_from_slice(rest).map_err(|error| DecodeError::Malformed(error.to_string())),
        other => Err(DecodeError::Version { found: other.map(|(found, _)| *found), expected: version }),
    }
}

/// Bytes of a string that are reserved because it claims them.
const AT_ONCE_BYTES: usize = 1 << 10;

/// A length-prefixed byte string of at most `max` bytes, refused before it is read when it claims more.
///
/// # Errors
/// When the length is above the bound or the input ends early.
pub fn read_bytes<R: Read>(reader: &mut R, max: usize) -> std::io::Result<Vec<u8>> {
    let len = u32::deserialize_reader(reader)? as usize;
    if len > max {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{len} bytes, at most {max} are allowed")));
    }
    // Most are short. Of a long one more is reserved as it arrives, so that a claim alone reserves next to nothing.
    let mut bytes = vec![0; len.min(AT_ONCE_BYTES)];
    reader.read_exact(&mut bytes).map_err(|error| std::io::Error::from(error.kind()))?;
    if bytes.len() < len {
        let rest = len - bytes.len();
        reader.take(rest as u64).read_to_end(&mut bytes)?;
    }
    if bytes.len() == len { Ok(bytes) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
}

/// A length-prefixed list of at most `max` elements, refused before it is read when it claims more.
///
/// # Errors
/// When the count is above the bound, the input ends early, or an element is malformed.
pub fn read_list<R: Read, T: BorshDeserialize>(reader: &mut R, max: usize) -> std::io::Result<Vec<T>> {
    let count = u32::deserialize_reader(reader)? as usize;
    if count > max {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{count} elements, at most {max} are allowed")));
    }
    // Grown as elements arrive, so that a claim alone reserves next to nothing.
    let mut list = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        list.push(T::deserialize_reader(reader)?);
    }
    Ok(list)
}
