//! The seam between the replica and the world **\[frozen\]**: what can happen, and what can be asked for.
//!
//! [`step`](crate::Replica::step) takes the time and one [`Input`] and returns [`Effect`]s. It never blocks. What takes
//! long is a pair: an effect that asks and an input that answers, joined by a [`JobId`]:
//!
//! | effect | answer | what it costs |
//! |---|---|---|
//! | [`Effect::Verify`] | [`Input::Verified`] | signature checks |
//! | [`Effect::Sign`] | [`Input::Signed`] | one signature; may be remote |
//! | [`Effect::Persist`] | [`Input::Durable`] | a write and a sync |
//! | [`Effect::Read`] | [`Input::ReadDone`] | disk |
//! | [`Effect::Build`] | [`Input::Built`] | the application chooses, hashing |
//! | [`Effect::Check`] | [`Input::Checked`] | decoding, hashing, the application judges |
//! | [`Effect::CheckTxs`] | [`Input::TxsChecked`] | the application judges |
//! | [`Effect::Execute`] | [`Input::Executed`] | the application executes |
//! | [`Effect::Judge`] | [`Input::Judged`] | two signatures or many; may read old blocks |
//! | [`Effect::Stage`] | [`Input::Staged`] | hashing, disk: a snapshot that is being gathered |
//! | [`Effect::Flush`] | [`Input::Flushed`] | a transaction of the state database |
//! | [`Effect::SetTimer`] | [`Input::TimedOut`] | waiting |
//! | [`Effect::Request`] | [`Input::Response`] | the network |
//!
//! [`Effect::Send`], [`Effect::Respond`], [`Effect::Reply`], [`Effect::Disconnect`], [`Effect::Report`], [`Effect::Reopen`],
//! [`Effect::Heal`] and [`Effect::Halt`] are not answered.
//!
//! **Durability is named.** Every [`Effect::Persist`] has a [`Ticket`], and every effect that must not be seen before
//! something is durable lists the tickets it waits for. The shell holds it back ([`crate::fence::Fence`]) until each was
//! answered with [`Input::Durable`]. Nothing else waits, so a slow disk slows what depends on it and nothing beside it.
//!
//! Jobs may be answered late and in any order; an answer whose question no longer matters is ignored. The simulator draws
//! both from its seed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockstep_app::snapshot::{Difference, Outline};
use lockstep_mempool::TxBytes;
use lockstep_storage::guard::GuardRecord;
use lockstep_storage::log::Kind;
use lockstep_types::light::LightBlock;
use lockstep_types::{
    AppHash, Block, BlockId, Commit, ConsensusParams, Event, Evidence, Hash, Height, Polka, PublicKey, Signature, Time, TxResult,
    ValidatorUpdate,
};

use crate::audit::Finding;
use crate::chain::ChainState;
use crate::check::{BuildJob, BuiltBlock, CheckFailure, CheckJob};
use crate::evidence::rules::Refused;
use crate::execution::ExecuteJob;
pub use crate::report::Report;
use crate::state_sync::{Found, Task};

/// A monotonic moment: nanoseconds since a start that only the shell knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// This moment and a duration later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The two clocks. Timers are monotonic; block time is wall time and may jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For timers.
    pub mono: Mono,
    /// For block time and votes.
    pub wall: Time,
}

/// A connection, numbered by the shell. A peer that reconnects gets a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer(pub u64);

/// Joins an effect with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// Names one write. Effects that list it start only after it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A client's call, numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A peer's question that waits for [`Effect::Respond`], numbered by the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// Everything the world can tell the replica.
#[derive(Debug, Clone)]
pub enum Input {
    /// A connection was made and its handshake verified.
    PeerUp {
        /// Its number.
        peer: Peer,
        /// The consensus key that the handshake bound to the peer, if it is one.
        validator: Option<PublicKey>,
    },
    /// A connection ended.
    PeerDown {
        /// Its number.
        peer: Peer,
    },
    /// A frame arrived: one encoded [`crate::wire::Message`].
    Received {
        /// From whom.
        peer: Peer,
        /// The bytes, at most [`crate::wire::FRAME_BYTES_MAX`].
        bytes: Bytes,
    },
    /// Transactions arrived by gossip: one encoded batch.
    Gossiped {
        /// Who passed it on.
        peer: Peer,
        /// The bytes, at most [`crate::wire::GOSSIP_BYTES_MAX`].
        bytes: Bytes,
    },
    /// A peer asks: one encoded [`crate::wire::Question`].
    Asked {
        /// Who asks.
        peer: Peer,
        /// Names the question in [`Effect::Respond`].
        ask: AskId,
        /// The bytes.
        bytes: Bytes,
    },
    /// The answer to [`Effect::Request`]; none when the peer was gone or did not answer.
    Response {
        /// The question.
        job: JobId,
        /// One encoded [`crate::wire::Answer`].
        bytes: Option<Bytes>,
    },
    /// A client submits a transaction.
    Submit {
        /// Names the call in [`Effect::Reply`].
        request: RequestId,
        /// The transaction.
        tx: TxBytes,
        /// What the client waits for.
        wait: Wait,
    },
    /// A client gave up waiting.
    Abandoned {
        /// The call.
        request: RequestId,
    },
    /// The verdicts on signatures, in the order asked.
    Verified {
        /// The question.
        job: JobId,
        /// One for each check.
        verdicts: Vec<bool>,
    },
    /// A signature was made; none when the signer refused or missed its deadline, which is a missed step.
    Signed {
        /// The question.
        job: JobId,
        /// The signature.
        signature: Option<Signature>,
    },
    /// A write is durable.
    Durable {
        /// Which.
        ticket: Ticket,
    },
    /// A read ended.
    ReadDone {
        /// The question.
        job: JobId,
        /// What was read.
        answer: ReadAnswer,
    },
    /// A block was built.
    Built {
        /// The question.
        job: JobId,
        /// The block.
        built: Box<BuiltBlock>,
    },
    /// A body was judged.
    Checked {
        /// The question.
        job: JobId,
        /// The block, or what is wrong with it.
        verdict: Result<Arc<Block>, CheckFailure>,
    },
    /// Transactions were judged, in the order asked.
    TxsChecked {
        /// The question.
        job: JobId,
        /// One for each transaction.
        verdicts: Vec<lockstep_app::Verdict>,
    },
    /// A block was executed.
    Executed {
        /// The question.
        job: JobId,
        /// What came out; the error is the application's and fatal.
        outcome: Result<Box<Outcome>, String>,
    },
    /// A piece of evidence was judged.
    Judged {
        /// The question.
        job: JobId,
        /// The piece, completed where that was asked for.
        evidence: Box<Evidence>,
        /// Whether a block may carry it.
        verdict: Result<(), Refused>,
    },
    /// A client brings evidence.
    SubmitEvidence {
        /// Names the call in [`Effect::Reply`].
        request: RequestId,
        /// The piece.
        evidence: Box<Evidence>,
    },
    /// Old blocks are gone from the log: peers who ask for them are told.
    Pruned {
        /// The earliest height that is here.
        base: Height,
    },
    /// The state database holds this height.
    Flushed {
        /// Which.
        height: Height,
    },
    /// The staging folder was asked.
    Staged {
        /// The question.
        job: JobId,
        /// What was found.
        found: Found,
    },
    /// A timer ran out.
    TimedOut(Timer),
    /// A write, sync or read of the own disk failed. It is never retried: the replica halts.
    DiskFailed {
        /// What happened, for the operator.
        reason: String,
    },
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For admission without a check.
    Admission,
    /// For the verdict of the check.
    Check,
    /// For the block.
    Commit,
}

/// Everything the replica can ask of the world.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Check signatures.
    Verify {
        /// Joins the answer.
        job: JobId,
        /// What to check.
        checks: Vec<lockstep_types::crypto::SignatureCheck>,
    },
    /// Sign bytes with the validator's key.
    Sign {
        /// Joins the answer.
        job: JobId,
        /// The guard record of these bytes.
        after: Vec<Ticket>,
        /// What to sign.
        bytes: Vec<u8>,
    },
    /// Make durable.
    Persist {
        /// Names the write.
        ticket: Ticket,
        /// What must be durable first.
        after: Vec<Ticket>,
        /// What to write.
        write: Write,
    },
    /// Read from the own disk.
    Read {
        /// Joins the answer.
        job: JobId,
        /// What to read.
        what: ReadQuestion,
    },
    /// Build a block ([`crate::check::build`]).
    Build {
        /// Joins the answer.
        job: JobId,
        /// From what.
        build: Box<BuildJob>,
    },
    /// Judge a body ([`crate::check::check`]).
    Check {
        /// Joins the answer.
        job: JobId,
        /// What and against what.
        check: Box<CheckJob>,
    },
    /// Ask the application about transactions, on the newest state.
    CheckTxs {
        /// Joins the answer.
        job: JobId,
        /// The transactions.
        txs: Vec<TxBytes>,
        /// Whether each was accepted before.
        recheck: bool,
    },
    /// Execute a decided block. Blocks are executed in order, one after the other.
    Execute {
        /// Joins the answer.
        job: JobId,
        /// The block.
        execute: Box<ExecuteJob>,
    },
    /// Judge a piece of evidence ([`crate::evidence::rules::judge`]).
    Judge {
        /// Joins the answer.
        job: JobId,
        /// The piece.
        evidence: Box<Evidence>,
        /// The chain whose next block is to carry it.
        chain: Arc<ChainState>,
        /// Whether powers, time and culprits are first filled in from the chain, as for clients, who may not know them.
        complete: bool,
    },
    /// Write the executed state of a height to the database.
    Flush {
        /// The decisions up to that height.
        after: Vec<Ticket>,
        /// Which.
        height: Height,
        /// The chain after it, which is kept beside the state.
        chain: Arc<ChainState>,
    },
    /// Ask the staging folder of state sync ([`crate::state_sync::Staging`]).
    Stage {
        /// Joins the answer.
        job: JobId,
        /// What.
        task: Task,
    },
    /// Stop this replica, mark what it gathered when all its threads have ended ([`crate::state_sync::Staging::mark`]), and open its home again, which
    /// begins with the snapshot of this height then. Nothing comes after it.
    Reopen {
        /// The height.
        height: Height,
    },
    /// Our state is not the chain's: keep this in the home, durably ([`crate::audit::keep`]), with what the executor made of the last block
    /// ([`crate::execution::Executor::trace`]); then stop this replica and open its home again, which heals it. Nothing comes after it.
    Heal {
        /// What was found.
        finding: Box<Finding>,
    },
    /// Send one frame.
    Send {
        /// To whom.
        to: Target,
        /// On which lane.
        lane: Lane,
        /// One encoded [`crate::wire::Message`].
        bytes: Bytes,
    },
    /// Ask a peer.
    Request {
        /// Joins the answer.
        job: JobId,
        /// Whom.
        peer: Peer,
        /// One encoded [`crate::wire::Question`].
        bytes: Bytes,
    },
    /// Answer a peer.
    Respond {
        /// The question.
        ask: AskId,
        /// One encoded [`crate::wire::Answer`].
        bytes: Bytes,
    },
    /// Wake up.
    SetTimer {
        /// When.
        at: Mono,
        /// Comes back in [`Input::TimedOut`]. A stale one is ignored there; nothing is ever cancelled.
        timer: Timer,
    },
    /// Answer a client.
    Reply {
        /// The call.
        request: RequestId,
        /// What must be durable first: "committed" waits for the decision.
        after: Vec<Ticket>,
        /// The answer.
        reply: Reply,
    },
    /// End a connection.
    Disconnect {
        /// Which.
        peer: Peer,
        /// Why, for both sides' logs.
        reason: String,
    },
    /// Something an operator or a reader may want to know. Nothing in the replica depends on it.
    Report {
        /// What must be durable first: readers see a block only when its decision is.
        after: Vec<Ticket>,
        /// What happened.
        report: Report,
    },
    /// Stop: sign nothing more, send nothing more, say why.
    Halt {
        /// What happened, what it means, what to do.
        reason: String,
    },
}

/// Who a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// One peer.
    One(Peer),
    /// Every connected peer.
    All,
}

/// Lanes do not wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Votes, proposals, certificates, status.
    Votes,
    /// Parts of bodies.
    Bulk,
    /// Transactions, for everybody who is connected to anybody: to all, never to one.
    Gossip,
}

/// What to write.
#[derive(Debug, Clone)]
pub enum Write {
    /// The vote guard's next record.
    Guard(Box<GuardRecord>),
    /// No slot of the guard was readable, and a certificate of this height was found: sign only above it, also after a restart.
    GuardFloor(Height),
    /// Records of the block log, in order.
    Log(Vec<LogRecord>),
}

/// A record of the block log, owned: see [`lockstep_storage::log::Record`].
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// Body, proposal, polka or decision.
    pub kind: Kind,
    /// Its height.
    pub height: Height,
    /// Its round; 0 for a body.
    pub round: lockstep_types::Round,
    /// The block it is about.
    pub block_hash: Hash,
    /// A body's canonical bytes, or the others behind [`crate::wire::WIRE_VERSION`].
    pub payload: Bytes,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadQuestion {
    /// Decided blocks with their commits, from `from`, at most `count` and about `bytes_max` bytes, but at least one.
    Blocks {
        /// First height.
        from: Height,
        /// Most blocks.
        count: u32,
        /// Bound on the bodies' bytes.
        bytes_max: u64,
    },
    /// One body, decided or not.
    Body {
        /// Its height.
        height: Height,
        /// Its name.
        block_id: BlockId,
    },
    /// Parts of a body, decided or not.
    Parts {
        /// Its height.
        height: Height,
        /// Its name.
        block_id: BlockId,
        /// The first part.
        from: u32,
        /// How many, at most [`crate::wire::WHOLE_PARTS_MAX`].
        count: u32,
    },
    /// The heights of the snapshots.
    Snapshots,
    /// Headers with their commits and validators, downwards, at most `count` and about `bytes_max` bytes, but at least one.
    Light {
        /// The highest.
        from: Height,
        /// Most headers.
        count: u32,
        /// Bound on their bytes.
        bytes_max: u64,
        /// The last block, whose commit no block carries yet: of that one this node's own certificate will do. Zero for none.
        tip: Height,
    },
    /// The manifest of a snapshot.
    Manifest {
        /// Its height.
        height: Height,
    },
    /// A chunk of a snapshot.
    Chunk {
        /// The snapshot's height.
        height: Height,
        /// The chunk's name.
        root: Hash,
        /// What the asker has in its place.
        outline: Option<Outline>,
    },
    /// The newest polkas of a height, at most [`crate::wire::POLKAS_MAX`].
    Polkas {
        /// The height.
        height: Height,
    },
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadAnswer {
    /// Bodies and commits, by ascending height without gaps.
    Blocks(Vec<(Bytes, Commit)>),
    /// The first of the blocks has more parts than travel whole: its commit.
    Certificate(Commit),
    /// The body; none when the one of this hash has other parts.
    Body(Option<Bytes>),
    /// Nothing of this name and size is there, and nothing was read.
    Absent,
    /// The parts; none when the body of this hash has others.
    Parts(Vec<lockstep_types::block::Part>),
    /// Heights of snapshots.
    Snapshots(Vec<Height>),
    /// Headers downwards; none when the first is not here.
    Light(Vec<LightBlock>),
    /// A manifest.
    Manifest(Bytes),
    /// A chunk, packed.
    Chunk(Bytes),
    /// How a chunk differs from the asker's outline.
    Difference(Box<Difference>),
    /// Polkas of a height.
    Polkas(Vec<Polka>),
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A timeout of consensus.
    Consensus(lockstep_consensus::Timeout),
    /// The pace of this height may be over.
    Pace(Height),
    /// Our proposal of this height waited for the clock.
    ProposerWait(Height, lockstep_types::Round),
    /// Reconcile with peers, ask for what is missing.
    Gossip,
    /// Block sync has something to do.
    Sync,
    /// State sync has something to do.
    StateSync,
    /// A peer that asked may be answered.
    Serve,
    /// Flush the batch of transactions.
    TxBatch,
    /// The wait for our own earlier messages is over.
    OwnMessages,
}

/// What comes out of executing a block.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The height executed.
    pub height: Height,
    /// Root of the state after it.
    pub app_hash: AppHash,
    /// Root over its results.
    pub results_hash: Hash,
    /// One for each transaction.
    pub results: Arc<Vec<TxResult>>,
    /// Events of the block itself.
    pub events: Vec<Event>,
    /// Changes of the validator set, checked; they act at height + 2.
    pub validator_updates: Vec<ValidatorUpdate>,
    /// New parameters, checked; they act at height + 1.
    pub params: Option<ConsensusParams>,
    /// What membership knows of the chain after it.
    pub standing: Arc<lockstep_app::Standing>,
    /// Keys changed since the last flush, for its interval.
    pub unflushed_keys: u64,
    /// Whether the height is a checkpoint: the state after it holds the replica record, and a snapshot is made of it.
    pub checkpoint: bool,
}

/// The answer to a client. What is large in it stands by itself: an effect is moved many times, and few of them are answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// The transaction is in the pool, or its check failed: the verdict tells. None when the client did not wait for it.
    Checked {
        /// Name of the transaction.
        hash: Hash,
        /// The verdict of the check.
        verdict: Option<Box<lockstep_app::Verdict>>,
    },
    /// The transaction is committed and executed.
    Committed {
        /// Name of the transaction.
        hash: Hash,
        /// The verdict of the check.
        verdict: Box<lockstep_app::Verdict>,
        /// Height of its block.
        height: Height,
        /// Result of its execution.
        result: Box<TxResult>,
    },
    /// Evidence was judged.
    Evidence {
        /// Name of the piece.
        hash: Hash,
        /// Why it is not taken; none when it waits for a block, or a block carries it.
        refused: Option<String>,
    },
    /// The pool refused it; the text is the contract's.
    Refused {
        /// Name of the transaction.
        hash: Hash,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}
