//! What block sync is told, and what it has done: the boundary between [`BlockSync`](crate::BlockSync) and its caller.

use std::sync::Arc;

use lockstep_types::{Commit, Height};

use crate::server::bytes_of;

/// A block as a peer sends it. Its height is that of its commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The bytes of the body, undecoded. None at all stand for a body that does not travel whole ([`Answer::Certificate`]): the
    /// caller asks for its parts when it has verified the certificate.
    pub body: Arc<[u8]>,
    /// The certificate that is said to prove it.
    pub commit: Commit,
}

impl Fetched {
    /// What it counts for, see [`crate::fetched_bytes`].
    pub fn bytes(&self) -> u64 {
        bytes_of(&self.body, &self.commit)
    }
}

/// What a peer answers to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The first of the blocks asked for, in order and without a hole; the rest is asked again.
    Blocks(Vec<Fetched>),
    /// The first of the blocks has more parts than [`WHOLE_PARTS_MAX`](crate::WHOLE_PARTS_MAX): its certificate.
    Certificate(Commit),
    /// It does not have the first of them; this is what it has.
    NotAvailable {
        /// Its lowest block.
        base: Height,
        /// Its highest block.
        tip: Height,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A peer says which blocks it has.
    PeerStatus {
        /// The number of its connection.
        peer: u64,
        /// Its lowest block.
        base: Height,
        /// Its highest block.
        tip: Height,
    },
    /// A connection is closed. Its number never comes back.
    PeerGone {
        /// The connection.
        peer: u64,
    },
    /// A peer answered.
    Response {
        /// The peer.
        peer: u64,
        /// The request, see [`Effect::Request`].
        id: u64,
        /// What it said.
        answer: Answer,
    },
    /// No answer will come: the network gave the request up, or could not send it, or what came is none.
    Failed {
        /// The peer.
        peer: u64,
        /// The request.
        id: u64,
    },
    /// The block of this height is decided, durable and executed here, by consensus or after [`Effect::Verify`].
    Tip {
        /// The height.
        height: Height,
    },
    /// Somebody proved, by a commit certificate that was verified, that this height is decided.
    Certified {
        /// The height.
        height: Height,
    },
    /// The answer to [`Effect::Verify`]. When it is `false`, every verification above it that has no verdict is void, and
    /// comes again under another ticket; nothing else voids one, but our tip reaching its height.
    Verdict {
        /// The height.
        height: Height,
        /// The ticket of the verification.
        ticket: u64,
        /// Whether body and certificate are right in every respect.
        ok: bool,
    },
    /// Time passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask a peer for blocks.
    Request {
        /// Whom.
        peer: u64,
        /// To be repeated in the answer. Never reused.
        id: u64,
        /// The first block wanted.
        from: Height,
        /// How many, 1 to [`RANGE_BLOCKS_MAX`](crate::RANGE_BLOCKS_MAX).
        count: u32,
    },
    /// Verify a block fully: that the body is the one that the commit names, that it is a valid successor of the block
    /// before, that the commit holds under the validators of its height. They come in order of height; the caller waits with
    /// one until it knows the validators. If it holds: store and execute it, and report [`Input::Tip`].
    Verify {
        /// To be repeated in the verdict.
        ticket: u64,
        /// Who sent it.
        peer: u64,
        /// Its height.
        height: Height,
        /// The block.
        block: Arc<Fetched>,
    },
    /// A peer lied. It is not asked again; whoever owns the connection closes it.
    Blame {
        /// Who.
        peer: u64,
        /// How.
        reason: BlameReason,
    },
}

/// How a peer lied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlameReason {
    /// Its block did not hold.
    InvalidBlock {
        /// The height.
        height: Height,
    },
    /// A certificate of another height than the one asked for.
    WrongHeight {
        /// Asked for.
        expected: Height,
        /// That of the certificate.
        found: Height,
    },
    /// More blocks than asked for.
    TooMany {
        /// Asked for.
        asked: u32,
        /// Sent.
        found: usize,
    },
    /// The certificate alone of a block that travels whole.
    Withheld {
        /// Parts that the certificate names.
        parts: u32,
    },
    /// More bytes than an answer or a body may have, or a body without any.
    BadSize {
        /// The bytes.
        bytes: u64,
    },
}
