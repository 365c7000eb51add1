//! The trait of a replicated application (frozen), and everything that passes through it.
//!
//! # The contract for authors
//!
//! The calls are those of ABCI 2.0, with one difference: the application holds no state. Whatever it wants to remember it
//! puts into the [`Changes`] it returns, whatever it remembers it reads from the [`View`] it is given. So a block can be
//! executed early, dropped, repeated for an audit, and checked by executing it twice.
//!
//! **Same inputs, same answer, on every machine and in every run.** That is asked of [`Application::init_chain`],
//! [`Application::process_proposal`] and [`Application::execute`], where another answer forks the chain or halts the
//! replica. A transition function therefore uses
//!
//! - no clock: the time is [`BlockInput::time`];
//! - no randomness; what looks random enough can be hashed from the block hash, but its proposer chooses that hash;
//! - no floating-point numbers, and no order of a `HashMap` or of threads;
//! - no file, socket, environment variable, locale, or static that changes;
//! - nothing whose size or type differs between machines (`usize` in a hash, a pointer as a key);
//! - no panic. One halts the replica, and every other one with it.
//!
//! A value of `self` that changes between calls is state, even if it is only a cache: a cache must never change an answer.
//!
//! **Limits.** An application runs as native code, so the node cannot count its steps: bound the work of a transaction by
//! its bytes or by a gas limit of your own, recursion by a constant, and refuse what exceeds them with a code. What the
//! node does bound, the same way everywhere: keys and values ([`KEY_BYTES_MAX`](lockstep_types::state_tree::KEY_BYTES_MAX),
//! [`VALUE_BYTES_MAX`](lockstep_types::state_tree::VALUE_BYTES_MAX)), changes per block
//! ([`CHANGES_MAX`](crate::changes::CHANGES_MAX), [`CHANGES_BYTES_MAX`](crate::changes::CHANGES_BYTES_MAX)), and output per
//! block ([`OUTPUT_BYTES_MAX`](crate::host::OUTPUT_BYTES_MAX)). A block that exceeds one halts the chain: a limit of the
//! application's own belongs well below.

use std::sync::Arc;

use lockstep_types::{Address, ChainId, ConsensusParams, Event, Hash, Height, Power, Time, Tx, TxResult, ValidatorUpdate};

use crate::changes::{Changes, View};

/// A replicated state machine. See the [module](self) for what is asked of its author.
pub trait Application: Send + Sync + 'static {
    /// What the application says about itself.
    fn info(&self, view: &View) -> Info;

    /// The state before the first block.
    ///
    /// # Errors
    /// When `app_state` of genesis is not what this application reads: which field, its value, and the rule.
    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused>;

    /// Whether a transaction may enter the mempool, judged on the newest state. Advice for one node: other nodes and later
    /// states may judge otherwise, and [`Application::execute`] must cope with every transaction whatever was said here.
    fn check_tx(&self, view: &View, tx: &[u8], kind: CheckKind) -> Verdict;

    /// The transactions of a block that this node proposes, from those the mempool offers in its order. The answer fits
    /// `max_bytes`, each transaction counting [`TX_OVERHEAD_BYTES`] more than its length. Without an own order or own
    /// transactions there is nothing to write: the default takes as many as fit, in order.
    fn prepare_proposal(&self, view: &View, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        let _ = view;
        fitting(proposal.candidates, proposal.max_bytes)
    }

    /// Whether a proposed block is one that this application accepts; part of the validity of a block, so the answer must
    /// be the same on every correct node. The default accepts every block: then a transaction that makes no sense is
    /// refused by its result.
    fn process_proposal(&self, view: &View, block: &BlockInput<'_>) -> Proposal {
        let _ = (view, block);
        Proposal::Accept
    }

    /// Executes a block on the state after the block before (ABCI: FinalizeBlock).
    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed;

    /// Answers a question about the state. The path `/store` never arrives here: the node answers it, with proof.
    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer;
}

/// Bytes that a transaction takes in a block's body beside its own.
pub const TX_OVERHEAD_BYTES: u64 = 4;

/// As many transactions as fit into `max_bytes`, in order; one that does not fit any more is passed over.
pub fn fitting(candidates: &[Tx], max_bytes: u64) -> Vec<Tx> {
    let mut left = max_bytes;
    let fits = |tx: &&Tx| match left.checked_sub(tx.0.len() as u64 + TX_OVERHEAD_BYTES) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    candidates.iter().filter(fits).cloned().collect()
}

/// What an application says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Anything, as text.
    pub data: String,
    /// Version of its software.
    pub version: String,
    /// Version of its rules: `version.app` of the headers it proposes. Does not depend on the state.
    pub app_version: u64,
}

/// What genesis says.
#[derive(Debug, Clone)]
pub struct GenesisInput<'a> {
    /// The chain.
    pub chain_id: &'a ChainId,
    /// Genesis time.
    pub time: Time,
    /// The first height.
    pub initial_height: Height,
    /// The first validators, checked: each key once, no power zero.
    pub validators: &'a [ValidatorUpdate],
    /// The first parameters, checked.
    pub parameters: &'a ConsensusParams,
    /// Hash of the genesis: with the chain id in everything that is signed for this chain alone.
    pub genesis_hash: Hash,
    /// `app_state`, as JSON text, without the node's group `membership`.
    pub app_state: &'a str,
}

/// The state before the first block, and what it starts with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Initialized {
    /// The first entries.
    pub changes: Changes,
    /// Instead of the validators of genesis, unless empty.
    pub validators: Vec<ValidatorUpdate>,
    /// Instead of the parameters of genesis.
    pub parameters: Option<ConsensusParams>,
}

/// Why an application does not start from a genesis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("genesis: {field} is {value}: {rule}")]
pub struct GenesisRefused {
    /// Which field, as a path: `app_state.kv.open_validators`.
    pub field: String,
    /// Its value.
    pub value: String,
    /// What is asked of it.
    pub rule: String,
}

/// Why a transaction is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// It arrived.
    New,
    /// It is in the mempool, and a block changed the state.
    Recheck,
}

/// What an application says about a transaction that wants into the mempool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// 0 lets it in; everything else is the application's.
    pub code: u32,
    /// Output. Best empty: the two client libraries read it in different encodings.
    pub data: Vec<u8>,
    /// For people.
    pub log: String,
    /// For people.
    pub info: String,
    /// Gas it asks for.
    pub gas_wanted: i64,
    /// Gas the check used.
    pub gas_used: i64,
    /// Events of the check.
    pub events: Vec<Event>,
    /// Namespace of `code`.
    pub codespace: String,
    /// Higher leaves the mempool first.
    pub priority: i64,
    /// Whose it is, where the application knows senders: shares of the mempool and order by nonce are per sender.
    pub sender: Option<Vec<u8>>,
    /// Place among its sender's transactions, which execute in this order and without gaps. None where there is no such order;
    /// without a sender it counts for nothing.
    pub nonce: Option<u64>,
    /// The nonce that the state takes from this sender next. With it, what comes too early waits in the mempool behind everything
    /// that can be executed, and leaves before it; None where the application cannot tell.
    pub next_nonce: Option<u64>,
}

impl Verdict {
    /// A refusal.
    pub fn refused(code: u32, codespace: &str, log: impl Into<String>) -> Self {
        assert!(code != 0, "a refusal has a code");
        Self { code, codespace: codespace.to_owned(), log: log.into(), ..Self::default() }
    }

    /// Whether the transaction may enter the mempool.
    pub const fn is_ok(&self) -> bool {
        self.code == 0
    }
}

/// What a validator's slot in a commit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParticipationFlag {
    /// Precommitted the block.
    Signed,
    /// Precommitted nil.
    Nil,
    /// No precommit, or one for some other block.
    Absent,
}

/// A validator's part in the commit of the block before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Participation {
    /// The validator.
    pub address: Address,
    /// Its power at that height.
    pub power: Power,
    /// What it did.
    pub flag: ParticipationFlag,
}

/// What kind of misbehaviour was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MisbehaviourKind {
    /// Two votes for one height, round and step.
    DuplicateVote,
    /// A header was signed that the chain does not have.
    LightClientAttack,
}

/// Proven misbehaviour of one validator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misbehaviour {
    /// What it did.
    pub kind: MisbehaviourKind,
    /// Who.
    pub address: Address,
    /// Its power at that height.
    pub power: Power,
    /// When.
    pub height: Height,
    /// Time of our block at that height.
    pub time: Time,
    /// Power of the whole set at that height.
    pub total_power: Power,
}

/// A block, as an application sees it.
#[derive(Debug, Clone)]
pub struct BlockInput<'a> {
    /// The chain.
    pub chain_id: &'a ChainId,
    /// Its height.
    pub height: Height,
    /// Its time.
    pub time: Time,
    /// The block hash.
    pub block_hash: Hash,
    /// Who built it.
    pub proposer: Address,
    /// Its transactions.
    pub txs: &'a [Tx],
    /// Who signed the block before, in set order; empty at the first height.
    pub last_commit: Vec<Participation>,
    /// What was proven, in block order; for one piece of evidence culprits in set order. A validator may come twice.
    pub misbehaviour: Vec<Misbehaviour>,
    /// The parameters in force at this height.
    pub parameters: &'a ConsensusParams,
}

/// What a proposer builds a block from.
#[derive(Debug, Clone)]
pub struct ProposalInput<'a> {
    /// The chain.
    pub chain_id: &'a ChainId,
    /// Height of the block.
    pub height: Height,
    /// Time of the block.
    pub time: Time,
    /// This node.
    pub proposer: Address,
    /// What the mempool offers, in its order.
    pub candidates: &'a [Tx],
    /// Room for transactions, in bytes of the body.
    pub max_bytes: u64,
    /// Who signed the block before, in set order; empty at the first height.
    pub last_commit: Vec<Participation>,
    /// What the block will prove.
    pub misbehaviour: Vec<Misbehaviour>,
    /// The parameters in force at this height.
    pub parameters: &'a ConsensusParams,
}

/// The judgement of a proposed block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// May be decided.
    Accept,
    /// Must not be decided. The reason is for people.
    Reject(String),
}

/// What executing a block gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executed {
    /// What happens to the state.
    pub changes: Changes,
    /// One for each transaction, in order.
    pub tx_results: Vec<TxResult>,
    /// Events of the block beside those of its transactions.
    pub events: Vec<Event>,
    /// New powers, each key at most once; they act two heights later. A list that `encoding.md` section 10 rejects is an
    /// error of the application and halts the chain.
    pub validator_updates: Vec<ValidatorUpdate>,
    /// New parameters, whole; they act at the next height.
    pub parameter_updates: Option<ConsensusParams>,
}

/// A question about the state.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// What is asked.
    pub path: &'a str,
    /// About what.
    pub data: &'a [u8],
    /// The height asked for; none for the newest.
    pub height: Option<Height>,
    /// Whether a proof is wanted.
    pub prove: bool,
}

/// A step of a proof, as `proofOps` carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofOp {
    /// Its `type`.
    pub kind: String,
    /// The key it proves.
    pub key: Vec<u8>,
    /// The proof.
    pub data: Vec<u8>,
}

/// The answer to a question about the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryAnswer {
    /// 0 for success; everything else is the application's.
    pub code: u32,
    /// For people.
    pub log: String,
    /// For people.
    pub info: String,
    /// Position in the application's own order, if it has one.
    pub index: i64,
    /// The key the value belongs to; empty for none.
    pub key: Vec<u8>,
    /// The value, if there is one.
    pub value: Option<Arc<[u8]>>,
    /// From the value up to the root in the header of `height` + 1; empty for no proof.
    pub proof_ops: Vec<ProofOp>,
    /// The height whose state was asked; zero for none.
    pub height: Height,
    /// Namespace of `code`.
    pub codespace: String,
}
