//! The handful of proto3 shapes that are hashed and signed (`encoding.md` section 0), written by hand so that every byte
//! is visible. Nothing here is ever read back: third parties recompute these bytes, they do not send them to us.

/// Longest number of a field and length of its bytes.
const HEAD_BYTES_MAX: usize = 5 + 10;
/// What a message has room for before it grows.
const FIRST_BYTES: usize = 80;

/// Bytes in the making. Fields must be written in ascending number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// An empty message, with room for what most of them hold: a field or two of 32 bytes.
    pub fn new() -> Self {
        Self(Vec::with_capacity(FIRST_BYTES))
    }

    /// A base-128 number, low group first, not belonging to a field.
    fn uvarint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        self.0.push((n & 0x7f) as u8);
    }

    /// `int(f, n)`: left out when zero, ten bytes when negative.
    #[must_use]
    pub fn int(mut self, field: u32, n: i64) -> Self {
        if n != 0 {
            self.uvarint(u64::from(field) << 3);
            self.uvarint(n as u64);
        }
        self
    }

    /// `int(f, n)` for a number that is never negative.
    ///
    /// # Panics
    /// When the number does not fit a signed 64-bit integer: the types that are passed here are bounded below that.
    #[must_use]
    pub fn uint(self, field: u32, n: u64) -> Self {
        self.int(field, i64::try_from(n).expect("bounded below 2^63 by its type"))
    }

    /// `sfix(f, n)`: eight bytes little-endian, left out when zero.
    #[must_use]
    pub fn sfix(mut self, field: u32, n: u64) -> Self {
        if n != 0 {
            self.uvarint(u64::from(field) << 3 | 1);
            self.0.extend_from_slice(&n.to_le_bytes());
        }
        self
    }

    /// `bytes(f, b)`: left out when empty.
    #[must_use]
    pub fn bytes(self, field: u32, bytes: &[u8]) -> Self {
        if bytes.is_empty() { self } else { self.raw(field, bytes) }
    }

    /// `msg(f, m)`: written even when empty.
    #[must_use]
    pub fn msg(self, field: u32, message: &Message) -> Self {
        self.raw(field, &message.0)
    }

    fn raw(mut self, field: u32, bytes: &[u8]) -> Self {
        self.0.reserve(bytes.len() + HEAD_BYTES_MAX);
        self.uvarint(u64::from(field) << 3 | 2);
        self.uvarint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes of the message.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// The bytes of the message behind their length.
    pub fn delimited(self) -> Vec<u8> {
        let mut out = Self(Vec::with_capacity(self.0.len() + HEAD_BYTES_MAX));
        out.uvarint(self.0.len() as u64);
        out.0.extend_from_slice(&self.0);
        out.0
    }
}
