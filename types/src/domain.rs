//! Domains of everything a key of ours signs, so that no byte string is valid as two things.
//!
//! Canonical votes and proposals (`encoding.md` section 9) begin with the length of a message that is never empty, so
//! never with a zero byte. Every message of our own begins with [`OWN_PREFIX`], then one [`Tag`], then the chain: the two
//! families are apart by their first byte, ours among themselves by their second.

use crate::primitives::{ChainId, Hash};

/// First byte of every own signed message. No canonical message begins with it.
pub const OWN_PREFIX: u8 = 0x00;

/// What an own signed message is. Values are frozen; a number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tag {
    /// A validator binds its node key to its consensus key, in the handshake.
    PeerBinding = 1,
    /// Reserved: a pledge never to sign above a height (wedge).
    Wedge = 2,
    /// Reserved: an answer of a quorum read.
    QuorumAnswer = 3,
    /// JOIN: the key is held by whoever joins, who knows a recent block.
    Possession = 4,
    /// Reserved. A JOIN proves that too, by the block that it names.
    CaughtUp = 5,
    /// Signed roots and results, in audit ([`crate::audit`]).
    Audit = 6,
    /// Transactions of bundled applications: transfers of the token.
    AppTransaction = 7,
    /// The other transactions of the node: QUIT, APPROVE, CHECKPOINT.
    NodeTransaction = 8,
}

/// The start of an own signed message: prefix, tag, chain id with its length, genesis hash. The caller appends fields of
/// fixed length or behind their length.
pub fn begin(tag: Tag, chain_id: &ChainId, genesis_hash: &Hash) -> Vec<u8> {
    let id = chain_id.as_str().as_bytes();
    let mut message = vec![OWN_PREFIX, tag as u8, u8::try_from(id.len()).expect("a chain id has at most 50 bytes")];
    message.extend_from_slice(id);
    message.extend_from_slice(&genesis_hash.0);
    message
}
