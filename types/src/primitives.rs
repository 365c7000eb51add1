//! The quantities of the protocol, each a type of its own: a bare `u64` in a signature is a question nobody can answer.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Largest voting power of one validator and of a whole set: (2^63 - 1) / 8 (`encoding.md` section 10). Three times it
/// fits a `u64`, so thresholds are compared without rounding.
pub const TOTAL_POWER_MAX: u64 = (i64::MAX as u64) / 8;
const _: () = assert!(TOTAL_POWER_MAX < u64::MAX / 3);

/// Longest chain id, in bytes. Longer ones do not fit CometBFT's clients.
pub const CHAIN_ID_BYTES_MAX: usize = 50;

/// Longest application hash that a header of another Tendermint chain may carry. Ours are always 32 bytes.
pub const APP_HASH_BYTES_MAX: usize = 64;

fn invalid(what: impl Into<String>) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.into())
}

macro_rules! bounded_integer {
    ($(#[$doc:meta])* $name:ident($inner:ty), max = $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
        pub struct $name($inner);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);
            /// The largest value that exists.
            pub const MAX: Self = Self($max);

            /// The value, when it is within bounds.
            pub const fn new(value: $inner) -> Option<Self> {
                if value <= $max { Some(Self(value)) } else { None }
            }

            /// The number itself.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl BorshSerialize for $name {
            fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
                BorshSerialize::serialize(&self.0, writer)
            }
        }

        impl BorshDeserialize for $name {
            fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
                let value = <$inner as BorshDeserialize>::deserialize_reader(reader)?;
                Self::new(value).ok_or_else(|| invalid(format!(concat!(stringify!($name), " {} is above {}"), value, $max)))
            }
        }
    };
}

bounded_integer!(
    /// A height of the chain: the position of a block, from 1. Zero stands for "before the first block". At most 2^63 - 1,
    /// since the specification writes it as a signed integer.
    Height(u64), max = i64::MAX as u64
);
bounded_integer!(
    /// A round within a height, from 0. At most 2^31 - 1.
    Round(u32), max = i32::MAX as u32
);
bounded_integer!(
    /// Voting power, at most [`TOTAL_POWER_MAX`]. Zero in an update removes the validator.
    Power(u64), max = TOTAL_POWER_MAX
);
bounded_integer!(
    /// The position of a validator in the set of a height, from 0.
    ValidatorIndex(u32), max = i32::MAX as u32
);

impl Height {
    /// The first height of a chain whose genesis does not say otherwise.
    pub const FIRST: Self = Self(1);

    /// The height after this one.
    ///
    /// # Panics
    /// At [`Height::MAX`], which no chain reaches: at a block every millisecond it is 292 million years away.
    pub const fn next(self) -> Self {
        assert!(self.0 < Self::MAX.0, "the chain has no more heights");
        Self(self.0 + 1)
    }

    /// The height before this one; of zero, zero.
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The height `n` above this one, capped at [`Height::MAX`].
    pub const fn plus(self, n: u64) -> Self {
        let sum = self.0.saturating_add(n);
        if sum > Self::MAX.0 { Self::MAX } else { Self(sum) }
    }
}

impl Round {
    /// The round after this one, capped at [`Round::MAX`] (never reached: a round takes longer than the last one).
    pub const fn next(self) -> Self {
        if self.0 < Self::MAX.0 { Self(self.0 + 1) } else { self }
    }
}

impl ValidatorIndex {
    /// As an index into a slice of validators.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// From a position in a slice.
    ///
    /// # Panics
    /// When the position does not fit: sets are bounded far below ([`crate::validators::VALIDATORS_MAX`]).
    pub fn from_position(position: usize) -> Self {
        u32::try_from(position).ok().and_then(Self::new).expect("a validator set is bounded far below 2^31")
    }
}

macro_rules! decimal_string_serde {
    ($name:ident, $inner:ty) => {
        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                // `str::parse` takes a leading '+', which no writer of ours or of CometBFT makes.
                if text.starts_with('+') {
                    return Err(format!("{text:?} is not a decimal number"));
                }
                let value: $inner = text.parse().map_err(|_| format!("{text:?} is not a decimal number within bounds"))?;
                Self::new(value).ok_or_else(|| format!("{value} is above the largest {}", stringify!($name)))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str> as Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

decimal_string_serde!(Height, u64);
decimal_string_serde!(Power, u64);

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:expr, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in &self.0 {
                    write!(f, $format, byte)?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Four bytes tell values apart in a log or a test.
                for byte in &self.0[..4] {
                    write!(f, $format, byte)?;
                }
                Ok(())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| format!("{text:?} is not {} hexadecimal digits", 2 * $len))?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str> as Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fixed_bytes!(
    /// A SHA-256 hash. Shown as upper-case hexadecimal digits.
    Hash, 32, "{:02X}"
);
fixed_bytes!(
    /// The address of a validator: the first 20 bytes of SHA-256 of its public key (`encoding.md` section 1).
    Address, 20, "{:02X}"
);
fixed_bytes!(
    /// The name of a node on the network: the first 20 bytes of SHA-256 of its node key. Shown in lower-case digits, as
    /// CometBFT does.
    NodeId, 20, "{:02x}"
);

impl Hash {
    /// The Merkle root of an empty list: SHA-256 of nothing (`encoding.md` section 2).
    pub const EMPTY_LIST: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
        0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
    ]);

    /// SHA-256 of some bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }

    /// SHA-256 of several pieces, one after the other.
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }
}

impl Address {
    /// The address that belongs to 32 bytes of a public key.
    pub fn of_key_bytes(key: &[u8; 32]) -> Self {
        let hash = Hash::of(key);
        let mut address = [0; 20];
        address.copy_from_slice(&hash.0[..20]);
        Self(address)
    }
}

impl NodeId {
    /// The node id that belongs to the 32 bytes of a node's public key.
    pub fn of_key_bytes(key: &[u8; 32]) -> Self {
        Self(Address::of_key_bytes(key).0)
    }
}

/// The application hash of a header: the root of the state after the block before. Ours are 32 bytes; a header of another
/// Tendermint chain may carry up to [`APP_HASH_BYTES_MAX`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AppHash(Vec<u8>);

impl AppHash {
    /// From bytes of any length up to [`APP_HASH_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= APP_HASH_BYTES_MAX).then(|| Self(bytes.to_vec()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Hash> for AppHash {
    fn from(hash: Hash) -> Self {
        Self(hash.0.to_vec())
    }
}

impl fmt::Display for AppHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(&self.0))
    }
}

impl fmt::Debug for AppHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(&self.0[..self.0.len().min(4)]))
    }
}

impl BorshSerialize for AppHash {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        BorshSerialize::serialize(&self.0, writer)
    }
}

impl BorshDeserialize for AppHash {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let bytes = crate::codec::read_bytes(reader, APP_HASH_BYTES_MAX)?;
        Ok(Self(bytes))
    }
}

/// The name of a chain: 1 to [`CHAIN_ID_BYTES_MAX`] characters of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(String);

impl ChainId {
    /// The name, when it follows the rule.
    ///
    /// # Errors
    /// A sentence that says which part of the rule was broken.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > CHAIN_ID_BYTES_MAX {
            return Err(format!("a chain id has 1 to {CHAIN_ID_BYTES_MAX} characters, this one has {}", text.len()));
        }
        if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
            return Err(format!("a chain id consists of letters, digits, '.', '_' and '-', this one has {bad:?}"));
        }
        Ok(Self(text.to_owned()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BorshSerialize for ChainId {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        BorshSerialize::serialize(&self.0, writer)
    }
}

impl BorshDeserialize for ChainId {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let bytes = crate::codec::read_bytes(reader, CHAIN_ID_BYTES_MAX)?;
        let text = String::from_utf8(bytes).map_err(|_| invalid("a chain id is text"))?;
        Self::new(&text).map_err(invalid)
    }
}

impl Serialize for ChainId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ChainId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str> as Deserialize>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}
