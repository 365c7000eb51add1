//! What the server asks of a node.
//!
//! Everything here is typed: hex, base64 and decimal strings are [`json`](crate::json)'s business, parameters and error
//! envelopes the server's. Reads are plain functions. They run on a bounded pool of blocking threads and must answer from
//! snapshots: a read that waits for a lock that consensus holds lets a client stall the chain. Writes are futures, since
//! they wait for the replica.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lockstep_types::{
    AppHash, Block, BlockId, ChainId, Commit, ConsensusParams, Event, Evidence, Hash, Header, Height, NodeId, Power, PublicKey, Time, Tx,
    TxResult, ValidatorSet, ValidatorUpdate,
};
use thiserror::Error;

/// A future that may run on any thread.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// The node, as clients may see it.
///
/// "The tip" is the last block that is decided, durable and executed. `None` from a read by height or hash means that the
/// node does not keep it: the server asks [`Backend::heights`] first and turns what lies outside into the contract's errors.
pub trait Backend: Send + Sync + 'static {
    /// The heights that can be asked for. Asked before most reads: it must be cheap.
    fn heights(&self) -> Heights;

    /// Who the node is and how far it has come. The tip here and in [`Backend::heights`] is the same at the same moment.
    ///
    /// # Errors
    /// When it cannot be read.
    fn status(&self) -> Result<Status, ReadError>;

    /// The peers that are connected now.
    fn peers(&self) -> Vec<Peer>;

    /// The genesis document as JSON, in the shape of the contract. Asked once, when the server starts.
    fn genesis(&self) -> Arc<str>;

    /// A block.
    ///
    /// # Errors
    /// When it cannot be read.
    fn block(&self, height: Height) -> Result<Option<BlockAnswer>, ReadError>;

    /// A header and what is listed beside it.
    ///
    /// # Errors
    /// When it cannot be read.
    fn meta(&self, height: Height) -> Result<Option<BlockMeta>, ReadError>;

    /// A header. Kept longer than blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    fn header(&self, height: Height) -> Result<Option<Header>, ReadError>;

    /// The height of the block with this hash.
    ///
    /// # Errors
    /// When it cannot be read.
    fn height_of(&self, block_hash: &Hash) -> Result<Option<Height>, ReadError>;

    /// The commit for a block: of the tip the node's own, below it the one that the next block carries. Kept as long as the header.
    ///
    /// # Errors
    /// When it cannot be read.
    fn commit(&self, height: Height) -> Result<Option<CommitAnswer>, ReadError>;

    /// What executing a block gave.
    ///
    /// # Errors
    /// When it cannot be read.
    fn results(&self, height: Height) -> Result<Option<BlockResults>, ReadError>;

    /// The validators of a height, up to [`Heights::next`], with the priorities of round 0. Kept as long as the header.
    ///
    /// # Errors
    /// When it cannot be read.
    fn validators(&self, height: Height) -> Result<Option<ValidatorSet>, ReadError>;

    /// The parameters in force at a height, up to [`Heights::next`].
    ///
    /// # Errors
    /// When it cannot be read.
    fn params(&self, height: Height) -> Result<Option<ConsensusParams>, ReadError>;

    /// A committed transaction by its hash.
    ///
    /// # Errors
    /// [`ReadError::NoIndex`] where there is no index, or when it cannot be read.
    fn tx(&self, hash: &Hash) -> Result<Option<TxAnswer>, ReadError>;

    /// The application's own account of itself.
    ///
    /// # Errors
    /// When it cannot be read.
    fn app_info(&self) -> Result<AppInfo, ReadError>;

    /// A question to the application.
    ///
    /// # Errors
    /// When it cannot be answered; an application that refuses answers with a code instead.
    fn app_query(&self, query: AppQuery) -> Result<AppAnswer, ReadError>;

    /// The mempool, and the first `limit` transactions in it.
    fn unconfirmed(&self, limit: usize) -> Unconfirmed;

    /// What the application says of a transaction, which does not enter the mempool.
    fn check_tx(&self, tx: Vec<u8>) -> BoxFuture<Result<TxResult, BroadcastError>>;

    /// Hands in a transaction, and waits as long as asked. The call itself, before its future is polled, fixes the order
    /// in which transactions of one client enter the mempool. The server bounds how long [`Wait::Commit`] may take and
    /// drops the future then; the transaction stays.
    fn broadcast(&self, tx: Vec<u8>, wait: Wait) -> BoxFuture<Result<BroadcastAnswer, BroadcastError>>;

    /// Hands in evidence. The answer is its name once powers, time and culprits are filled in from the chain; a refusal says
    /// which rule it breaks. Evidence that waits already, or that a block carries, is as good as taken.
    fn broadcast_evidence(&self, evidence: Evidence) -> BoxFuture<Result<Hash, BroadcastError>>;
}

/// Why a read has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    /// The node keeps no index of transactions.
    #[error("transaction indexing is disabled")]
    NoIndex,
    /// The node failed. The text goes to the client.
    #[error("{0}")]
    Failed(String),
}

/// The heights a node can answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heights {
    /// The lowest kept block; zero before the first block.
    pub base: Height,
    /// The lowest height of which header, commit and validators are kept, at most `base`: they outlive blocks.
    pub headers: Height,
    /// The last block; zero before the first block.
    pub tip: Height,
    /// The height that is being decided: the one after the tip, or the chain's first.
    pub next: Height,
}

/// Who a node is, for its clients and as its peers announce themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name on the network.
    pub id: NodeId,
    /// Where it listens for peers. Not empty.
    pub listen_addr: String,
    /// The chain.
    pub chain_id: ChainId,
    /// Version of the application, as headers carry it.
    pub app_version: u64,
    /// What its operator calls it. Not empty.
    pub moniker: String,
    /// Whether it can look up transactions.
    pub tx_index: bool,
    /// Where it serves RPC; may be empty.
    pub rpc_address: String,
    /// Name and version of the program. What CometBFT calls the version is fixed, since clients decide by it.
    pub software: String,
}

/// One end of the chain that a node keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainEnd {
    /// Height of the block.
    pub height: Height,
    /// Its hash.
    pub hash: Hash,
    /// The application hash in its header.
    pub app_hash: AppHash,
    /// The time in its header.
    pub time: Time,
}

/// Who a node is and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The node.
    pub node: NodeInfo,
    /// The last block; none before the first.
    pub latest: Option<ChainEnd>,
    /// The lowest block kept; none before the first.
    pub earliest: Option<ChainEnd>,
    /// Whether it knows of blocks that it does not have.
    pub catching_up: bool,
    /// Its consensus key.
    pub validator_key: PublicKey,
    /// Its power in the set after the tip's; zero when it is no validator.
    pub power: Power,
}

/// Bytes that went one way over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Since when they are counted.
    pub start: Time,
    /// Bytes until now.
    pub bytes: u64,
    /// Messages until now.
    pub messages: u64,
    /// Bytes per second, of late.
    pub rate: u64,
    /// Since when nothing went.
    pub idle: Duration,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it says it is.
    pub node: NodeInfo,
    /// Whether we dialled it.
    pub outbound: bool,
    /// Where it is.
    pub remote_ip: IpAddr,
    /// How long it has been connected.
    pub connected: Duration,
    /// What we sent it.
    pub sent: Traffic,
    /// What it sent us.
    pub received: Traffic,
}

/// A block with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockAnswer {
    /// Its name.
    pub block_id: BlockId,
    /// The block.
    pub block: Block,
}

/// A header with what lists of blocks show beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMeta {
    /// Name of the block.
    pub block_id: BlockId,
    /// Bytes of its body.
    pub size: u64,
    /// Its header.
    pub header: Header,
    /// Number of its transactions.
    pub num_txs: u64,
}

/// A header with the commit for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitAnswer {
    /// The header.
    pub header: Header,
    /// The commit.
    pub commit: Commit,
    /// Whether it is the commit that the chain itself carries, in the next block, rather than this node's own.
    pub canonical: bool,
}

/// What executing a block gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockResults {
    /// One for each transaction.
    pub tx_results: Vec<TxResult>,
    /// Events of the block itself.
    pub events: Vec<Event>,
    /// Changes of the validator set.
    pub validator_updates: Vec<ValidatorUpdate>,
    /// All parameters, when the block changed some.
    pub param_updates: Option<ConsensusParams>,
    /// Root of the state after the block.
    pub app_hash: AppHash,
}

/// A committed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxAnswer {
    /// Height of its block.
    pub height: Height,
    /// Its place in the block.
    pub index: u32,
    /// What it gave.
    pub result: TxResult,
    /// Its bytes.
    pub tx: Tx,
}

/// The application's account of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppInfo {
    /// Free text.
    pub data: String,
    /// Version of the program.
    pub version: String,
    /// Version of the rules: that of headers.
    pub app_version: u64,
    /// Last height it executed.
    pub last_block_height: Height,
    /// Root of its state then.
    pub last_block_app_hash: AppHash,
}

/// A question to the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppQuery {
    /// What to look into; may be empty.
    pub path: String,
    /// What to look for.
    pub data: Vec<u8>,
    /// At which height; zero for the latest.
    pub height: Height,
    /// Whether a proof is wanted.
    pub prove: bool,
}

/// The application's answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppAnswer {
    /// 0 for success.
    pub code: u32,
    /// For people.
    pub log: String,
    /// For people.
    pub info: String,
    /// Position, where the application has one.
    pub index: i64,
    /// The key that was found; empty for none.
    pub key: Vec<u8>,
    /// The value that was found; empty for none.
    pub value: Vec<u8>,
    /// Proof towards the application hash in the header after `height`.
    pub proof_ops: Option<Vec<ProofOp>>,
    /// The height answered for: the state after this block.
    pub height: Height,
    /// Namespace of `code`.
    pub codespace: String,
}

/// One step of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofOp {
    /// Kind, as in `ics23:smt`.
    pub kind: String,
    /// The key that is proven.
    pub key: Vec<u8>,
    /// The proof.
    pub data: Vec<u8>,
}

/// The mempool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unconfirmed {
    /// The first of its transactions, in the order they would be proposed.
    pub txs: Vec<Tx>,
    /// How many there are in all.
    pub total: u64,
    /// Their bytes in all.
    pub total_bytes: u64,
}

/// How long a broadcast waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until the mempool has taken or refused it, not for its check.
    Async,
    /// Until it was checked.
    Check,
    /// Until it is in a block that is durable and executed, or failed its check.
    Commit,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BroadcastAnswer {
    /// The check's result; all zero for [`Wait::Async`].
    pub check: TxResult,
    /// Where it was committed: for [`Wait::Commit`] when the check passed.
    pub committed: Option<Committed>,
}

/// Where a transaction was committed and what it gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Height of its block.
    pub height: Height,
    /// What it gave.
    pub result: TxResult,
}

/// Why a transaction was not taken. The texts are the contract's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BroadcastError {
    /// It is in the mempool or was committed lately.
    #[error("tx already exists in cache")]
    InCache,
    /// No room.
    #[error("mempool is full: number of txs {txs} (max: {txs_max}), total txs bytes {bytes} (max: {bytes_max})")]
    Full {
        /// Transactions in the mempool.
        txs: u64,
        /// Most it holds.
        txs_max: u64,
        /// Bytes in the mempool.
        bytes: u64,
        /// Most it holds.
        bytes_max: u64,
    },
    /// Larger than the mempool takes.
    #[error("Tx too large. Max size is {max}, but got {len}")]
    TooLarge {
        /// Bytes of the transaction.
        len: u64,
        /// Most bytes.
        max: u64,
    },
    /// The node cannot take transactions now. The text says why and goes to the client.
    #[error("{0}")]
    Unavailable(String),
}
