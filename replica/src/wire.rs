//! What peers say to each other **\[frozen\]**: messages on the lanes, questions and answers beside them. Borsh behind a
//! version byte, every list bounded, one frame never longer than a part and its envelope.
//!
//! Consensus messages carry no sender's name: who voted is in the signature, who connected in the handshake. A claim about
//! a peer itself ([`Status`], [`Have`]) is only ever a reason to send or to ask, never a reason to believe.

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use lockstep_app::snapshot::{Difference, MANIFEST_BYTES_MAX, OUTLINE_LEVELS_MAX, Outline, PACKED_BYTES_MAX};
use lockstep_mempool::TxBytes;
use lockstep_types::audit::SignedStatement;
use lockstep_types::block::{PART_BYTES, Part};
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::light::LightBlock;
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{Address, BlockId, Commit, Evidence, Hash, Height, PartSetHeader, Polka, Proposal, Round, Vote};

/// First byte of every message, question and answer.
pub const WIRE_VERSION: u8 = 1;
/// What a frame holds beside one part: a proposal, a Merkle path, lengths.
pub const ENVELOPE_BYTES_MAX: usize = 4 * 1024;
/// One part and its envelope. A larger frame is dropped unread.
pub const FRAME_BYTES_MAX: usize = PART_BYTES + ENVELOPE_BYTES_MAX;
/// A batch of transactions: as much as the gossip layer carries at once, and at least the largest transaction of a pool.
pub const GOSSIP_BYTES_MAX: usize = 1 << 20;
/// Votes in one batch: about 200 bytes each, so that a batch fits a frame.
pub const VOTES_MAX: usize = 256;
/// Longest question: one for a chunk, with what the asker has of it.
pub const QUESTION_BYTES_MAX: usize = 20 * 1024;
const _: () = assert!(QUESTION_BYTES_MAX >= (4 << OUTLINE_LEVELS_MAX) + 128);
/// Most snapshots that a peer offers.
pub const SNAPSHOTS_MAX: usize = lockstep_sync::state::OFFERS_MAX;
/// Most headers with their commits and sets in one answer.
pub const LIGHT_MAX: usize = lockstep_sync::state::HEADERS_MAX as usize;
/// A body of more parts travels in ranges of at most as many, each verified when it comes: 4 MiB, half of what the network
/// carries in one response.
pub const WHOLE_PARTS_MAX: u32 = lockstep_sync::WHOLE_PARTS_MAX;
/// Longest answer that is decoded: the largest body with its commit. What this program sends is shorter, see
/// [`SENT_BYTES_MAX`].
pub const ANSWER_BYTES_MAX: usize = lockstep_types::block::BODY_BYTES_MAX + (1 << 20);
/// Most blocks in one answer.
pub const BLOCKS_MAX: usize = 128;
const _: () = assert!(lockstep_sync::RANGE_BLOCKS_MAX as usize <= BLOCKS_MAX, "what block sync asks for fits one answer");
/// Longest answer that this program sends: parts with their proofs, or blocks with their commits. The network must carry it.
pub const SENT_BYTES_MAX: usize = (4 << 20) + (1 << 20);
const _: () = assert!(lockstep_sync::RESPONSE_BYTES_MAX + (1 << 20) <= SENT_BYTES_MAX as u64);
/// What surrounds the bytes of a part in an answer: index, lengths, proof.
const PART_ENVELOPE_BYTES: usize = 4 + 4 + 4 + 32 * lockstep_types::merkle::AUNTS_MAX;
const _: () = assert!(2 + 4 + WHOLE_PARTS_MAX as usize * (PART_BYTES + PART_ENVELOPE_BYTES) <= SENT_BYTES_MAX);
const _: () = assert!(WHOLE_PARTS_MAX as usize * PART_BYTES + VALIDATORS_MAX * (1 + 20 + 12 + 64) + 256 <= SENT_BYTES_MAX);
const _: () = assert!(MANIFEST_BYTES_MAX + 16 <= SENT_BYTES_MAX && PACKED_BYTES_MAX + 1024 + 16 <= SENT_BYTES_MAX);
/// Most polkas in one answer. A validator keeps one or two for each round that it voted in.
pub const POLKAS_MAX: usize = 64;
const _: () = assert!(POLKAS_MAX * (VALIDATORS_MAX * (4 + 12 + 64) + 128) + 16 <= SENT_BYTES_MAX);
/// Evidence of the largest set, with everybody in it who signed: header and proof around a commit, the set, and the culprits.
const _: () = assert!(VALIDATORS_MAX * ((1 + 20 + 12 + 64) + 2 * (32 + 8 + 8 + 20)) + 8 * 1024 <= SENT_BYTES_MAX);
/// Transactions in one batch, whatever their size.
pub const TXS_MAX: usize = 4_096;

/// Size of an encoded vote with everything in it, envelope left out: tag, height, round, block id, valid round, time,
/// index, signature.
const VOTE_BYTES_MAX: usize = 1 + 8 + 4 + (1 + 32 + 4 + 32) + 5 + 12 + 4 + 64;
const _: () = assert!(VOTES_MAX * VOTE_BYTES_MAX + 16 <= FRAME_BYTES_MAX);
/// A commit or polka of the largest set fits a frame, so a certificate is never cut.
const _: () = assert!(VALIDATORS_MAX * (1 + 20 + 12 + 64) + 128 <= FRAME_BYTES_MAX);
const _: () = assert!(VALIDATORS_MAX * (4 + 12 + 64) + 128 <= FRAME_BYTES_MAX);

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Message {
    /// Where the sender is in the chain.
    Status(Status) = 1,
    /// A proposal, with the first part of its body: a small block arrives whole, in one frame.
    Proposal {
        /// Signed by the proposer of its round.
        proposal: Proposal,
        /// Part 0 of its body.
        first: Option<Part>,
    } = 2,
    /// A further part.
    Part {
        /// Height it belongs to.
        height: Height,
        /// The parts it is one of.
        header: PartSetHeader,
        /// The part, with its proof.
        part: Part,
    } = 3,
    /// A vote.
    Vote(Vote) = 4,
    /// Votes that the receiver was missing.
    Votes(VoteBatch) = 5,
    /// A prevote quorum.
    Polka(Polka) = 6,
    /// The certificate of a decision.
    Commit(Commit) = 7,
    /// What the sender holds of a round, so that others can send what it lacks.
    Have(Have) = 8,
    /// Transactions for the pool.
    Txs(TxBatch) = 9,
    /// Evidence that no block carries yet.
    Evidence(Box<Evidence>) = 10,
    /// The name of such evidence that is longer than a frame: it is there to be asked for.
    HasEvidence(Hash) = 11,
    /// What a validator has after a height.
    Statement(SignedStatement) = 12,
}

/// Where a node is in the chain. A claim: it makes others ask, never believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// First block it keeps.
    pub base: Height,
    /// Last block it decided; zero for none.
    pub tip: Height,
}

/// What a node holds of the round it is in.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Have {
    /// Where it is in the chain.
    pub status: Status,
    /// Height it works on.
    pub height: Height,
    /// Round it is in.
    pub round: Round,
    /// Step it is in: 0 propose, 1 prevote, 2 precommit.
    pub step: u8,
    /// Whether it holds the proposal of this round.
    pub proposal: bool,
    /// Whether it holds a polka of this round.
    pub polka: bool,
    /// Parts of the proposal's body that it holds.
    pub parts: Bits,
    /// Validators of whom it holds a prevote of this round.
    pub prevotes: Bits,
    /// Validators of whom it holds a precommit of this round.
    pub precommits: Bits,
    /// Valid round of the proposal it holds, when it lacks that round's polka.
    pub missing_polka: Option<Round>,
}

/// Most bits in a [`Bits`]: parts are more than validators.
pub const BITS_MAX: usize = lockstep_types::block::PARTS_MAX as usize;
const _: () = assert!(BITS_MAX >= VALIDATORS_MAX);

/// A set of small numbers. Which numbers mean something is decided by the validator set or the part count, never by the
/// length of this: bits beyond that are ignored, missing ones are zero. Trailing zero bytes are cut, so one set has one
/// spelling.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize)]
pub struct Bits(Vec<u8>);

impl Bits {
    /// The set of these numbers; those at or above [`BITS_MAX`] are left out.
    pub fn of(numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut bits = Self::default();
        for number in numbers {
            bits.insert(number);
        }
        bits
    }

    fn insert(&mut self, number: usize) {
        if number < BITS_MAX {
            if self.0.len() <= number / 8 {
                self.0.resize(number / 8 + 1, 0);
            }
            self.0[number / 8] |= 1 << (number % 8);
        }
    }

    /// Whether a number is in the set.
    pub fn contains(&self, number: usize) -> bool {
        self.0.get(number / 8).is_some_and(|byte| byte & (1 << (number % 8)) != 0)
    }
}

impl BorshDeserialize for Bits {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let bytes = codec::read_bytes(reader, BITS_MAX.div_ceil(8))?;
        if bytes.last() == Some(&0) {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "trailing zero byte in a bit set"));
        }
        Ok(Self(bytes))
    }
}

/// A bounded list of votes.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct VoteBatch(pub Vec<Vote>);

impl BorshDeserialize for VoteBatch {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self(codec::read_list(reader, VOTES_MAX)?))
    }
}

/// A bounded list of transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxBatch(pub Vec<TxBytes>);

impl BorshSerialize for TxBatch {
    fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
        u32::try_from(self.0.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?.serialize(writer)?;
        self.0.iter().try_for_each(|tx| tx.as_ref().serialize(writer))
    }
}

impl BorshDeserialize for TxBatch {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let count = u32::deserialize_reader(reader)? as usize;
        if count > TXS_MAX {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("{count} transactions, at most {TXS_MAX} are allowed"),
            ));
        }
        let mut list = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            list.push(TxBytes::from(codec::read_bytes(reader, GOSSIP_BYTES_MAX)?));
        }
        Ok(Self(list))
    }
}

/// What one peer asks another, outside the lanes.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Question {
    /// Decided blocks with their commits.
    Blocks {
        /// First height.
        from: Height,
        /// Most blocks.
        count: u32,
    } = 1,
    /// A body, decided or not.
    Body {
        /// Its height.
        height: Height,
        /// Its name.
        block_id: BlockId,
    } = 2,
    /// Messages that a validator is known to have signed at or above a height: a restarted validator asks for its own.
    Signed {
        /// Whose.
        address: Address,
        /// From which height.
        from: Height,
    } = 3,
    /// Parts of a body, decided or not.
    Parts {
        /// Its height.
        height: Height,
        /// Its name.
        block_id: BlockId,
        /// The first part.
        from: u32,
        /// Most parts.
        count: u32,
    } = 4,
    /// Which snapshots are here.
    Snapshots = 5,
    /// Headers with their commits and validators, downwards.
    Light {
        /// The highest.
        from: Height,
        /// Most headers.
        count: u32,
    } = 6,
    /// The manifest of a snapshot.
    Manifest {
        /// Its height.
        height: Height,
    } = 7,
    /// A chunk of a snapshot.
    Chunk {
        /// The snapshot's height.
        height: Height,
        /// The chunk's name.
        root: Hash,
        /// What the asker has in its place.
        outline: Option<Outline>,
    } = 8,
    /// Evidence that no block carries yet.
    Evidence {
        /// Its name.
        hash: Hash,
    } = 9,
    /// The polkas that justified the own votes of a height: asked when two certificates conflict there.
    Polkas {
        /// The height.
        height: Height,
    } = 10,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// By ascending height, without gaps; fewer than asked when they would be too long.
    Blocks(Vec<(Bytes, Commit)>),
    /// Not here: what is.
    Unavailable(Status),
    /// The body asked for.
    Body(Bytes),
    /// Votes and proposals of the validator asked about.
    Signed(Vec<Vote>, Vec<Proposal>),
    /// Parts of the body asked for, from the first on; each proves its place. At most [`WHOLE_PARTS_MAX`].
    Parts(Vec<Part>),
    /// The first of the blocks asked for has more than [`WHOLE_PARTS_MAX`] parts: its certificate, which names them.
    Certificate(Commit),
    /// Heights of the snapshots that are here. At most [`SNAPSHOTS_MAX`].
    Snapshots(Vec<Height>),
    /// From the height asked for downwards, without a hole; at most [`LIGHT_MAX`], and fewer when they would be too long.
    Light(Vec<LightBlock>),
    /// The manifest asked for, as [`lockstep_app::snapshot::Manifest`] writes it.
    Manifest(Bytes),
    /// The chunk asked for, packed.
    Chunk(Bytes),
    /// How the chunk asked for differs from the outline in the question.
    Difference(Difference),
    /// The evidence asked for.
    Evidence(Box<Evidence>),
    /// Polkas of the height asked for. At most [`POLKAS_MAX`].
    Polkas(Vec<Polka>),
}

/// A kind's number, and what it holds.
fn tagged<W: std::io::Write>(writer: &mut W, kind: u8, what: &(impl BorshSerialize + ?Sized)) -> std::io::Result<()> {
    kind.serialize(writer)?;
    what.serialize(writer)
}

impl BorshSerialize for Answer {
    fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
        match self {
            Self::Blocks(blocks) => {
                1u8.serialize(writer)?;
                u32::try_from(blocks.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?.serialize(writer)?;
                blocks.iter().try_for_each(|(body, commit)| {
                    body.as_ref().serialize(writer)?;
                    commit.serialize(writer)
                })
            }
            Self::Unavailable(status) => tagged(writer, 2, status),
            Self::Body(body) => tagged(writer, 3, body.as_ref()),
            Self::Signed(votes, proposals) => {
                4u8.serialize(writer)?;
                votes.serialize(writer)?;
                proposals.serialize(writer)
            }
            Self::Parts(parts) => tagged(writer, 5, parts),
            Self::Certificate(commit) => tagged(writer, 6, commit),
            Self::Snapshots(heights) => tagged(writer, 7, heights),
            Self::Light(blocks) => tagged(writer, 8, blocks),
            Self::Manifest(bytes) => tagged(writer, 9, bytes.as_ref()),
            Self::Chunk(bytes) => tagged(writer, 10, bytes.as_ref()),
            Self::Difference(difference) => tagged(writer, 11, difference),
            Self::Evidence(evidence) => tagged(writer, 12, evidence),
            Self::Polkas(polkas) => tagged(writer, 13, polkas),
        }
    }
}

impl BorshDeserialize for Answer {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
        match u8::deserialize_reader(reader)? {
            1 => {
                let count = u32::deserialize_reader(reader)? as usize;
                if count > BLOCKS_MAX {
                    return Err(invalid(format!("{count} blocks, at most {BLOCKS_MAX} are allowed")));
                }
                let mut blocks = Vec::new();
                for _ in 0..count {
                    let body = Bytes::from(codec::read_bytes(reader, lockstep_types::block::BODY_BYTES_MAX)?);
                    blocks.push((body, Commit::deserialize_reader(reader)?));
                }
                Ok(Self::Blocks(blocks))
            }
            2 => Ok(Self::Unavailable(Status::deserialize_reader(reader)?)),
            3 => Ok(Self::Body(Bytes::from(codec::read_bytes(reader, lockstep_types::block::BODY_BYTES_MAX)?))),
            4 => Ok(Self::Signed(codec::read_list(reader, VOTES_MAX)?, codec::read_list(reader, VOTES_MAX)?)),
            5 => Ok(Self::Parts(codec::read_list(reader, WHOLE_PARTS_MAX as usize)?)),
            6 => Ok(Self::Certificate(Commit::deserialize_reader(reader)?)),
            7 => Ok(Self::Snapshots(codec::read_list(reader, SNAPSHOTS_MAX)?)),
            8 => Ok(Self::Light(codec::read_list(reader, LIGHT_MAX)?)),
            9 => Ok(Self::Manifest(Bytes::from(codec::read_bytes(reader, MANIFEST_BYTES_MAX)?))),
            10 => Ok(Self::Chunk(Bytes::from(codec::read_bytes(reader, PACKED_BYTES_MAX)?))),
            11 => Ok(Self::Difference(Difference::deserialize_reader(reader)?)),
            12 => Ok(Self::Evidence(Box::new(Evidence::deserialize_reader(reader)?))),
            13 => Ok(Self::Polkas(codec::read_list(reader, POLKAS_MAX)?)),
            other => Err(invalid(format!("no answer has tag {other}"))),
        }
    }
}

impl Message {
    /// The height that the message belongs to; for one that belongs to none, zero.
    pub fn height(&self) -> Height {
        match self {
            Self::Proposal { proposal, .. } => proposal.height,
            Self::Part { height, .. } => *height,
            Self::Vote(vote) => vote.height,
            Self::Votes(votes) => votes.0.first().map_or(Height::ZERO, |vote| vote.height),
            Self::Polka(polka) => polka.height,
            Self::Commit(commit) => commit.height,
            Self::Have(have) => have.height,
            // Who speaks of a height is of the set of the next, and has decided it.
            Self::Statement(signed) => Height::new(signed.statement.height.get().saturating_add(1)).unwrap_or(Height::MAX),
            Self::Status(_) | Self::Txs(_) | Self::Evidence(_) | Self::HasEvidence(_) => Height::ZERO,
        }
    }

    /// The bytes of a frame.
    pub fn encode(&self) -> Bytes {
        Bytes::from(codec::encode(WIRE_VERSION, self))
    }

    /// A message from a frame.
    ///
    /// # Errors
    /// When the bytes are not exactly one message, or longer than a frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(WIRE_VERSION, bytes, FRAME_BYTES_MAX)
    }

    /// Transactions from the gossip layer, the only message there and the only one that may be longer than a frame.
    ///
    /// # Errors
    /// When the bytes are not exactly one batch of transactions.
    pub fn decode_gossip(bytes: &[u8]) -> Result<Self, DecodeError> {
        match codec::decode(WIRE_VERSION, bytes, GOSSIP_BYTES_MAX)? {
            message @ Self::Txs(_) => Ok(message),
            _ => Err(DecodeError::Malformed("only transactions travel by gossip".into())),
        }
    }
}

impl Question {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        Bytes::from(codec::encode(WIRE_VERSION, self))
    }

    /// A question from its bytes.
    ///
    /// # Errors
    /// When the bytes are not exactly one question.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(WIRE_VERSION, bytes, QUESTION_BYTES_MAX)
    }
}

impl Answer {
    /// The bytes that travel.
    pub fn encode(&self) -> Bytes {
        Bytes::from(codec::encode(WIRE_VERSION, self))
    }

    /// An answer from its bytes.
    ///
    /// # Errors
    /// When the bytes are not exactly one answer.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode(WIRE_VERSION, bytes, ANSWER_BYTES_MAX)
    }
}
