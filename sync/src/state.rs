//! State sync: from a header that is trusted to the newest state that somebody has a snapshot of, without executing what led
//! to it.
//!
//! ```text
//!  Seek ──> Climb ──────> Descend ──────> Manifest ──> Gather ─────────────────> Install
//!  offers   to H+1, by    by hashes, from  bound to the  chunks of many peers,     the caller opens
//!  of H     signatures    the root or H+1  root in H+1   block H, headers of the   what is on the disk
//!           (`Climb`)     to H                           evidence window; blocks
//!                                                        above H (`ahead`)
//! ```
//!
//! # What is believed
//!
//! - Offers only make us ask. A height that nobody proves, or whose snapshot nobody gives any more, is given up for another.
//! - A header is believed by the rules of light clients from the root on ([`Climb`](crate::light::Climb)), or by the hash chain below one that
//!   is ([`is_below`](crate::light::is_below)). The manifest must lead to the root in header H+1, each chunk to its place in the manifest: the caller
//!   judges both ([`StateEffect::Check`]), since what a snapshot looks like is not known here.
//! - A named header is believed for its hash alone. A peer that has another one of that height is asked for it no more, and not blamed:
//!   nobody here can tell whether the peer is wrong or the operator was told something wrong. Where all say so, the operator is told.
//! - Commits are kept and given to others, so they must be ones that others can verify. The hash of a commit, which the header above has,
//!   does not cover its round: one signature of each is verified. The commit of the named header, and of the one that a climb led to, is in
//!   no header that is here: all of its signatures are.
//! - What a manifest says beyond hashes (sizes, counts) is not proven, and nobody is blamed for not fitting it.
//!
//! # What it leaves to the caller
//!
//! To keep on its disk, durable, what was judged good before it says so: so a crash costs what was on its way, and a start
//! finds the rest by its name. To check signatures. To tell the operator ([`Told`]). It does not touch the node's chain: when
//! everything is there it says [`StateEffect::Install`], and is over.
//!
//! # Why it ends
//!
//! Let one honest peer have a snapshot above our tip, and headers from the root to it. Each phase waits at most [`STALL_MS`] of
//! its kind without progress, then the height is given up and another is sought; who proved nothing owes, and of all offers
//! those of who owes least are tried first. A liar can cost each phase a deadline, and then owes more than the honest peer.

mod machine;

use std::sync::Arc;
use std::time::Duration;

use lockstep_types::block::Part;
use lockstep_types::crypto::SignatureCheck;
use lockstep_types::light::{LightBlock, Options, Trusted};
use lockstep_types::{BlockId, Hash, Height, Time};

pub use machine::StateSync;

/// Most snapshots that one peer offers. A node keeps a few.
pub const OFFERS_MAX: usize = 16;

/// Most chunks that are on their way or being judged at one time, over all peers. A chunk has about a megabyte: this much is
/// held in memory.
pub const CHUNKS_AT_ONCE_MAX: usize = 8;

/// Most blocks above the snapshot that are collected while its chunks come.
pub const AHEAD_BLOCKS_MAX: u32 = 4_096;

/// Bytes of such blocks after which no more are collected: one's more, at most.
pub const AHEAD_BYTES_MAX: u64 = 256 << 20;

/// Most headers asked for at once on the way down.
pub const HEADERS_MAX: u32 = 64;

/// How often peers are asked what they offer, in milliseconds.
pub const OFFERS_MS: u64 = 5_000;

/// How long offers are gathered before one is chosen, in milliseconds: the newest snapshot is worth a moment.
pub const CHOOSE_MS: u64 = 500;

/// How long nobody may offer anything before we do without, in milliseconds.
pub const PATIENCE_MS: u64 = 15_000;

/// How long a phase may go without progress before its height is given up, in milliseconds: several deadlines.
pub const STALL_MS: u64 = 20_000;

/// How many times the same height is tried before others are tried first, and before it is waited with.
const ATTEMPTS_MAX: u32 = 3;

/// The longest wait before a height is tried once more that came to nothing again and again, in milliseconds. Whoever has what it
/// lacks may connect at any moment, and nothing else is lost by waiting.
pub const RETRY_MS_MAX: u64 = 30_000;

/// Most peers that are asked whether they know another header of the height that was proven.
const WITNESSES_MAX: usize = 2;

/// Where trust begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// What this node verified itself: the height, its time and the validators after it.
    Own(Trusted),
    /// What somebody told the operator: the height and hash of a header.
    Named {
        /// Its height.
        height: Height,
        /// Its hash.
        hash: Hash,
    },
}

/// How far back headers, commits and sets are wanted below the snapshot: the longest of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backfill {
    /// So many heights, the snapshot's counted: all of them, or the height is given up.
    pub blocks: u64,
    /// As far as headers are not older than this, counted from that of the snapshot, and as peers have them.
    pub age: Duration,
    /// So many heights, and as peers have them.
    pub heights: u64,
}

/// What state sync begins with.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// Where trust begins.
    pub root: Root,
    /// How far trust reaches.
    pub light: Options,
    /// Our own tip: a snapshot at or below it is of no use.
    pub tip: Height,
    /// The first height of the chain: nothing lies below.
    pub initial: Height,
    /// How far back headers are wanted.
    pub backfill: Backfill,
}

/// Both clocks: deadlines are monotonic, trust is by wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds of the monotonic clock.
    pub mono_ms: u64,
    /// Wall time.
    pub wall: Time,
}

/// What a peer is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Which snapshots it has.
    Offers,
    /// Headers with commits and sets, from this height downwards.
    Light {
        /// The highest.
        from: Height,
        /// How many at most.
        count: u32,
    },
    /// The manifest of the snapshot of a height.
    Manifest {
        /// The height.
        height: Height,
    },
    /// A chunk.
    Chunk {
        /// Height of the snapshot.
        height: Height,
        /// Its name.
        root: Hash,
        /// What we have of it, as [`ChunkWanted::known`].
        known: Arc<[u8]>,
    },
    /// Parts of the decided block of the snapshot's height.
    Parts {
        /// The height.
        height: Height,
        /// Its proven name.
        block_id: BlockId,
        /// The first part.
        from: u32,
        /// How many.
        count: u32,
    },
}

/// What a peer answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateAnswer {
    /// The heights of its snapshots.
    Offers(Vec<Height>),
    /// Headers from the one asked for downwards, without a hole.
    Light(Vec<LightBlock>),
    /// A manifest, undecoded.
    Manifest(Arc<[u8]>),
    /// A chunk, undecoded.
    Chunk(Arc<[u8]>),
    /// How a chunk differs from what we said we have, undecoded.
    Difference(Arc<[u8]>),
    /// Parts of a body.
    Parts(Vec<Part>),
    /// Not here, or nothing of use.
    Nothing,
    /// Nothing came: the peer or the network lost it.
    Lost,
}

/// What the caller judges and, when it is good, keeps on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A manifest, by the application hash in the header above. What was kept of another height's chunks may be of use.
    Manifest {
        /// Its bytes.
        bytes: Arc<[u8]>,
        /// The proven block after the snapshot's.
        above: Box<LightBlock>,
        /// The proven block of the snapshot's height.
        at: Box<LightBlock>,
    },
    /// A chunk, by its place in the manifest.
    Chunk {
        /// Its place.
        index: u32,
        /// Its bytes, or those of how it differs from what we have.
        bytes: Arc<[u8]>,
        /// Which of both.
        is_whole: bool,
    },
    /// The body of the snapshot's height, by its name in the commit.
    Body(Arc<[u8]>),
    /// Proven headers below the snapshot's, downwards.
    Headers(Vec<LightBlock>),
    /// A block above the snapshot's, proven: its body, by the name in its commit. Without one: whether it is here already.
    Block {
        /// The block.
        block: Box<LightBlock>,
        /// Its body.
        body: Option<Arc<[u8]>>,
    },
    /// Everything is there: say so on the disk, so that the next start installs it.
    Complete,
}

/// A chunk of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkWanted {
    /// Its name: the root of its subtree.
    pub root: Hash,
    /// Whether it is on our disk already.
    pub have: bool,
    /// What we have of it, as peers understand it; empty for nothing.
    pub known: Arc<[u8]>,
}

/// What the caller found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// The manifest is good, and kept. These are its chunks.
    Manifest(Vec<ChunkWanted>),
    /// It is good, and kept.
    Good,
    /// It is not what it was asked to be: its sender lied.
    Bad(String),
    /// A chunk that is right and does not fit what the manifest says of it: who sent the manifest lied.
    ManifestLies(String),
    /// A difference that does not make the chunk, as happens when too little was said of what we have: it is asked for whole. Or a
    /// block that is not here.
    Unfit,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateInput {
    /// A peer says which blocks it has.
    PeerStatus {
        /// The number of its connection.
        peer: u64,
        /// Its lowest block.
        base: Height,
        /// Its highest.
        tip: Height,
    },
    /// A connection is closed.
    PeerGone {
        /// The connection.
        peer: u64,
    },
    /// A peer answered, or did not.
    Response {
        /// The peer.
        peer: u64,
        /// See [`StateEffect::Ask`].
        id: u64,
        /// What it said.
        answer: StateAnswer,
    },
    /// The answer to [`StateEffect::Verify`].
    Verified {
        /// Which.
        ticket: u64,
        /// One for each check.
        verdicts: Vec<bool>,
    },
    /// The answer to [`StateEffect::Check`].
    Checked {
        /// Which.
        ticket: u64,
        /// What was found.
        found: Checked,
    },
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateEffect {
    /// Ask a peer.
    Ask {
        /// Whom.
        peer: u64,
        /// To be repeated in the answer. Never reused.
        id: u64,
        /// What.
        question: Question,
    },
    /// Check signatures.
    Verify {
        /// To be repeated in the answer.
        ticket: u64,
        /// Which.
        checks: Vec<SignatureCheck>,
    },
    /// Judge, and keep what is good.
    Check {
        /// To be repeated in the answer.
        ticket: u64,
        /// What.
        check: Check,
    },
    /// A peer lied. It is not asked again; whoever owns the connection closes it.
    Blame {
        /// Who.
        peer: u64,
        /// How.
        reason: String,
    },
    /// For the operator.
    Tell(Told),
    /// Everything is on the disk, and what is there is to be opened instead of what was. It is over.
    Install {
        /// The height of the snapshot.
        height: Height,
    },
}

/// What an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A snapshot was chosen.
    Chosen {
        /// Its height.
        height: Height,
        /// How many peers offer it.
        offered_by: usize,
    },
    /// How far it is.
    Progress {
        /// Height of the snapshot.
        height: Height,
        /// Chunks that are here.
        chunks: u32,
        /// Of so many.
        of: u32,
        /// Bytes that came, as they travelled.
        bytes: u64,
        /// Blocks above it that are here.
        blocks: u32,
    },
    /// A height was given up.
    GivenUp {
        /// The height.
        height: Height,
        /// Why.
        reason: String,
    },
    /// It does without: blocks are fetched one by one, as peers have them all; or they were here before a snapshot was.
    FallsBack {
        /// Why.
        reason: String,
    },
    /// Only the operator can help. It is over.
    Fails {
        /// Why, and what to do.
        reason: String,
    },
    /// It goes on waiting.
    Waits {
        /// For what.
        needs: Needs,
        /// The same in words, and what to do.
        reason: String,
    },
}

/// What state sync waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// A newer height and hash: everybody has pruned the header that the operator named.
    Root,
    /// The right height and hash, or another peer: everybody who answers has another header of the height that the operator named.
    Hash,
    /// A peer whose chain reaches the header that the operator named.
    Height,
    /// A peer that has a snapshot, or all blocks.
    Peer,
}
