//! Blocks: header, transactions, evidence and the commit of the block before, and the parts they travel in.

use std::fmt;
use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::codec::{self, DecodeError};
use crate::commit::Commit;
use crate::evidence::{self, Evidence};
use crate::merkle;
use crate::planted::{self, Bug};
use crate::primitives::{Address, AppHash, ChainId, Hash, Height};
use crate::proto::Message;
use crate::time::Time;
use crate::vote::Rejected;

/// Version of the block protocol: CometBFT 0.38's.
pub const BLOCK_PROTOCOL: u64 = 11;
/// First byte of a block's body. Frozen: the parts hash covers it.
pub const BODY_VERSION: u8 = 1;
/// Size of every part but the last.
pub const PART_BYTES: usize = 65_536;
/// Largest body in bytes (`encoding.md` section 4).
pub const BODY_BYTES_MAX: usize = 104_857_600;
/// Most parts a block can have: one more than the largest body needs, as in the specification.
pub const PARTS_MAX: u32 = 1_601;
const _: () = assert!(PARTS_MAX as usize == BODY_BYTES_MAX / PART_BYTES + 1);
/// Most transactions in one block: each takes at least four bytes of the body.
pub const TXS_MAX: usize = 1 << 20;
/// Largest transaction that a body can hold.
pub const TX_BYTES_MAX: usize = BODY_BYTES_MAX;

/// The parts of a block: how many there are, and the Merkle root over their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PartSetHeader {
    /// Number of parts, 1 to [`PARTS_MAX`].
    pub total: u32,
    /// Merkle root whose leaves are the parts' bytes.
    pub hash: Hash,
}

impl PartSetHeader {
    /// `int(1, total) + bytes(2, hash)`.
    pub fn to_proto(&self) -> Message {
        Message::new().int(1, i64::from(self.total)).bytes(2, &self.hash.0)
    }
}

/// The name of a block: hash of its header and of its parts. Nil is `None` of an `Option<BlockId>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct BlockId {
    /// Hash of the header, which is the block hash.
    pub hash: Hash,
    /// The parts.
    pub parts: PartSetHeader,
}

impl BlockId {
    /// `bytes(1, hash) + msg(2, PartSetHeader)`.
    pub fn to_proto(&self) -> Message {
        Message::new().bytes(1, &self.hash.0).msg(2, &self.parts.to_proto())
    }

    /// What stands for "no block": two bytes, an empty part set header.
    pub fn nil_proto() -> Message {
        Message::new().msg(2, &Message::new())
    }

    /// Whether the number of parts is one that exists.
    ///
    /// # Errors
    /// [`Rejected::Parts`].
    pub fn check(&self) -> Result<(), Rejected> {
        if (1..=PARTS_MAX).contains(&self.parts.total) { Ok(()) } else { Err(Rejected::Parts { total: self.parts.total }) }
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.hash, f)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.hash, f)
    }
}

/// Versions in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Version {
    /// Block protocol: [`BLOCK_PROTOCOL`].
    pub block: u64,
    /// Version of the application.
    pub app: u64,
}

/// The header of a block. Its hash is the block's name, and everything else is bound by a hash in it.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// Versions of block protocol and application.
    pub version: Version,
    /// The chain.
    pub chain_id: ChainId,
    /// Position in the chain.
    pub height: Height,
    /// The proposer's clock when it built the block.
    pub time: Time,
    /// The block before; none at the first height.
    pub last_block_id: Option<BlockId>,
    /// Root over the commit of the block before.
    pub last_commit_hash: Hash,
    /// Root over the transactions.
    pub data_hash: Hash,
    /// The validators of this height.
    pub validators_hash: Hash,
    /// The validators of the next height.
    pub next_validators_hash: Hash,
    /// The parameters in force at this height.
    pub consensus_hash: Hash,
    /// Root of the state after the block before.
    pub app_hash: AppHash,
    /// Root over the results of the block before.
    pub last_results_hash: Hash,
    /// Root over the evidence.
    pub evidence_hash: Hash,
    /// Who built the block: the proposer of the round it was first proposed in.
    pub proposer_address: Address,
}

impl Header {
    /// The 14 leaves that are hashed (`encoding.md` section 3).
    pub fn leaves(&self) -> [Vec<u8>; 14] {
        let wrap = |bytes: &[u8]| Message::new().bytes(1, bytes).finish();
        [
            self.version_proto().finish(),
            wrap(self.chain_id.as_str().as_bytes()),
            Message::new().uint(1, self.height.get()).finish(),
            self.time.to_proto().finish(),
            self.last_block_proto().finish(),
            wrap(&self.last_commit_hash.0),
            wrap(&self.data_hash.0),
            wrap(&self.validators_hash.0),
            wrap(&self.next_validators_hash.0),
            wrap(&self.consensus_hash.0),
            wrap(self.app_hash.as_bytes()),
            wrap(&self.last_results_hash.0),
            wrap(&self.evidence_hash.0),
            wrap(&self.proposer_address.0),
        ]
    }

    /// The block hash.
    pub fn hash(&self) -> Hash {
        merkle::root(&self.leaves())
    }

    fn version_proto(&self) -> Message {
        // Versions are 64-bit without sign; as two's complement they are the same bytes.
        Message::new().int(1, self.version.block.cast_signed()).int(2, self.version.app.cast_signed())
    }

    fn last_block_proto(&self) -> Message {
        self.last_block_id.as_ref().map_or_else(BlockId::nil_proto, BlockId::to_proto)
    }

    /// The header as one message of 14 fields, as evidence of a light-client attack carries it.
    pub fn to_proto(&self) -> Message {
        Message::new()
            .msg(1, &self.version_proto())
            .bytes(2, self.chain_id.as_str().as_bytes())
            .uint(3, self.height.get())
            .msg(4, &self.time.to_proto())
            .msg(5, &self.last_block_proto())
            .bytes(6, &self.last_commit_hash.0)
            .bytes(7, &self.data_hash.0)
            .bytes(8, &self.validators_hash.0)
            .bytes(9, &self.next_validators_hash.0)
            .bytes(10, &self.consensus_hash.0)
            .bytes(11, self.app_hash.as_bytes())
            .bytes(12, &self.last_results_hash.0)
            .bytes(13, &self.evidence_hash.0)
            .bytes(14, &self.proposer_address.0)
    }
}

/// A transaction: bytes that only the application understands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize)]
pub struct Tx(pub Vec<u8>);

impl BorshDeserialize for Tx {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self(codec::read_bytes(reader, TX_BYTES_MAX)?))
    }
}

impl Tx {
    /// SHA-256 of the bytes: the name of the transaction.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.0)
    }
}

impl AsRef<[u8]> for Tx {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tx({:?}, {} bytes)", self.hash(), self.0.len())
    }
}

/// Root over transactions: the leaves are their hashes.
pub fn data_hash(txs: &[Tx]) -> Hash {
    let hashes: Vec<Hash> = txs.iter().map(Tx::hash).collect();
    merkle::root(&hashes)
}

/// A block. [`Block::encode`] gives its body: the canonical bytes that are cut into parts, logged and synced.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// Transactions, in order of execution.
    pub txs: Vec<Tx>,
    /// Proven misbehaviour.
    pub evidence: Vec<Evidence>,
    /// The commit of the block before; none at the first height.
    pub last_commit: Option<Commit>,
}

impl BorshDeserialize for Block {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            header: Header::deserialize_reader(reader)?,
            txs: codec::read_list(reader, TXS_MAX)?,
            evidence: codec::read_list(reader, evidence::EVIDENCE_MAX)?,
            last_commit: Option::deserialize_reader(reader)?,
        })
    }
}

/// Why a body does not fit its own header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyMismatch {
    /// The transactions are others.
    #[error("data_hash does not match the transactions")]
    Data,
    /// The evidence is other.
    #[error("evidence_hash does not match the evidence")]
    Evidence,
    /// The last commit is another, or stands where there is none.
    #[error("last_commit_hash does not match the last commit")]
    LastCommit,
    /// A last commit without a last block, or the other way round.
    #[error("last_commit and last_block_id must both be there or both be absent")]
    LastBlock,
}

impl Block {
    /// The body: a version byte and borsh.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(BODY_VERSION, self)
    }

    /// A block from its body. The hashes in the header are not compared here: see [`Block::check_hashes`].
    ///
    /// # Errors
    /// When the bytes are not exactly one block.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(BODY_VERSION, body, BODY_BYTES_MAX)
    }

    /// Compares every hash of the header that the body alone can answer for. What a fact is derived from and what it is
    /// derived to must never be trusted apart.
    ///
    /// # Errors
    /// See [`BodyMismatch`].
    pub fn check_hashes(&self) -> Result<(), BodyMismatch> {
        if data_hash(&self.txs) != self.header.data_hash && !planted::has(Bug::DataHashUnchecked) {
            return Err(BodyMismatch::Data);
        }
        if evidence::list_hash(&self.evidence) != self.header.evidence_hash && !planted::has(Bug::EvidenceUnchecked) {
            return Err(BodyMismatch::Evidence);
        }
        if self.last_commit.as_ref().map(|commit| commit.block_id) != self.header.last_block_id {
            return Err(BodyMismatch::LastBlock);
        }
        let last_commit_hash = self.last_commit.as_ref().map_or(Hash::EMPTY_LIST, Commit::hash);
        if last_commit_hash == self.header.last_commit_hash { Ok(()) } else { Err(BodyMismatch::LastCommit) }
    }
}

/// One part of a body, with the proof that it is this part of that body.
#[derive(Clone, PartialEq, Eq, BorshSerialize)]
pub struct Part {
    /// Position, from 0. The proof is for this position: there is no second index to disagree.
    pub index: u32,
    /// At most [`PART_BYTES`] bytes; all but the last part have exactly that many.
    pub bytes: Vec<u8>,
    /// Siblings on the way to the root, nearest first.
    pub aunts: Vec<Hash>,
}

impl BorshDeserialize for Part {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self {
            index: u32::deserialize_reader(reader)?,
            bytes: codec::read_bytes(reader, PART_BYTES)?,
            aunts: codec::read_list(reader, merkle::AUNTS_MAX)?,
        })
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Part({}, {} bytes)", self.index, self.bytes.len())
    }
}

impl Part {
    /// Whether this is a part of the body that `header` names.
    pub fn verify(&self, header: &PartSetHeader) -> bool {
        if self.index >= header.total || header.total > PARTS_MAX {
            return false;
        }
        if planted::has(Bug::OnlyPartUnproven) && header.total == 1 {
            return true;
        }
        let last = self.index + 1 == header.total;
        if self.bytes.is_empty() || self.bytes.len() > PART_BYTES || (!last && self.bytes.len() != PART_BYTES) {
            return false;
        }
        let proof = merkle::Proof {
            total: u64::from(header.total),
            index: u64::from(self.index),
            leaf_hash: Hash::of_parts(&[&[0], &self.bytes]),
            aunts: self.aunts.clone(),
        };
        proof.verify(&header.hash, &self.bytes).is_ok()
    }
}

/// The header of the parts of a body, without making the parts.
pub fn part_set_header(body: &[u8]) -> PartSetHeader {
    let chunks: Vec<&[u8]> = body.chunks(PART_BYTES).collect();
    PartSetHeader { total: u32::try_from(chunks.len()).expect("a body is bounded"), hash: merkle::root(&chunks) }
}

/// A body cut into parts.
///
/// # Panics
/// For a body that is empty or above [`BODY_BYTES_MAX`]: bodies are checked where they are built or decoded.
pub fn cut(body: &[u8]) -> (PartSetHeader, Vec<Part>) {
    assert!(!body.is_empty() && body.len() <= BODY_BYTES_MAX, "a body is bounded and never empty");
    let chunks: Vec<&[u8]> = body.chunks(PART_BYTES).collect();
    let (hash, proofs) = merkle::proofs(&chunks);
    let parts = proofs
        .into_iter()
        .zip(&chunks)
        .map(|(proof, chunk)| Part { index: u32::try_from(proof.index).expect("bounded"), bytes: chunk.to_vec(), aunts: proof.aunts })
        .collect();
    (PartSetHeader { total: u32::try_from(chunks.len()).expect("bounded"), hash }, parts)
}
