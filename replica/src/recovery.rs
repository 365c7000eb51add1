//! What a restart finds on disk, and where it goes on.
//!
//! The database holds the state of one height, whole. The block log holds the decisions after it; executing those gives the
//! state of the durable tip. No signature is verified again: a decision was verified before it was written, and the log's
//! checksums say that it is the same. Only one thing is ever ahead of another: guard ≤ log + 1, database ≤ log.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::application::GenesisInput;
use lockstep_app::{AppError, Host, State, Tree};
use lockstep_genesis::Genesis;
use lockstep_storage::guard::Guard;
use lockstep_storage::log::{Kind, LogError, LogReader};
use lockstep_storage::state::{StateDb, StateError};
use lockstep_types::block::{Block, part_set_header};
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::{BlockId, Commit, Height, ValidatorUpdate};
use thiserror::Error;

use crate::chain::ChainState;
use crate::execution::{ExecuteJob, Executor};
use crate::replica::Restored;
use crate::seam::Outcome;
use crate::signing::{GuardView, Remembered};
use crate::wire::WIRE_VERSION;

/// Bound on a decision that is read back.
const DECISION_BYTES_MAX: usize = 1 << 20;

/// Why a node does not start from what is on its disk.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The block log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state database.
    #[error(transparent)]
    State(#[from] StateError),
    /// The application.
    #[error(transparent)]
    App(#[from] AppError),
    /// A record that verifies but is not what this program writes.
    #[error("{what} of height {height} cannot be read: {error}; another version of this program may have written it")]
    Record {
        /// What it is.
        what: &'static str,
        /// Its height.
        height: u64,
        /// What is wrong.
        error: DecodeError,
    },
    /// Two things on disk contradict each other.
    #[error(
        "{0}; move data/log and data/state.redb away together, keep data/guard, and let the node fetch its blocks from its peers again"
    )]
    Contradiction(String),
    /// Genesis makes no chain.
    #[error("genesis: {0}")]
    Genesis(String),
}

/// What was found, and the executor that goes on from it.
pub struct Recovered {
    /// For the replica.
    pub restored: Restored,
    /// For the shell.
    pub executor: Executor,
}

/// The start of a chain: its first state, before any block.
///
/// # Errors
/// When the application does not start from this genesis.
pub fn genesis_state(host: &Host, genesis: &Genesis) -> Result<(ChainState, State, lockstep_app::Changes), RecoveryError> {
    let validators: Vec<ValidatorUpdate> =
        genesis.validators.iter().map(|validator| ValidatorUpdate { public_key: validator.public_key, power: validator.power }).collect();
    let input = GenesisInput {
        chain_id: &genesis.chain_id,
        time: genesis.genesis_time,
        initial_height: genesis.initial_height(),
        validators: &validators,
        parameters: &genesis.consensus_params,
        app_state: genesis.app_state.as_str(),
    };
    let start = host.init(&input)?;
    let app_version = host.info(&start.state).app_version;
    let chain = ChainState::genesis(genesis, &start.validators, start.parameters, start.state.root().into(), app_version)
        .map_err(|error| RecoveryError::Genesis(error.to_string()))?;
    Ok((chain, start.state, start.changes))
}

/// Opens the state of the flushed height and executes the log after it. `executed` is told each block's outcome, for results
/// and progress.
///
/// # Errors
/// See [`RecoveryError`].
pub fn recover(
    host: Host,
    genesis: &Genesis,
    log: &LogReader,
    db: &mut StateDb,
    guard: Option<&Guard>,
    mut executed: impl FnMut(&Block, &Outcome, &ChainState) -> Result<(), String>,
) -> Result<Recovered, RecoveryError> {
    let (mut chain, mut executor) = load_state(host, genesis, db)?;
    let flushed = chain.height;
    let tip = log.tip().and_then(Height::new).unwrap_or(genesis.initial_height().previous());
    if chain.height > tip {
        return Err(RecoveryError::Contradiction(format!("the database holds height {}, the block log ends at {tip}", chain.height)));
    }
    while chain.height < tip {
        let height = chain.next_height();
        let (block_id, block, _, commit) = decided(log, height)?;
        debug_assert_eq!(commit.block_id, block_id);
        let job = ExecuteJob { block: Arc::new(block), block_id, chain: Arc::new(chain) };
        let outcome = executor.execute(&job)?;
        let next = job.chain.advance(block_id, &job.block.header, job.block.txs.len(), &outcome);
        executed(&job.block, &outcome, &next).map_err(RecoveryError::Contradiction)?;
        chain = next;
    }
    let last = if log.tip().is_some() { Some(decided(log, tip)?) } else { None };
    let restored = Restored {
        base: log.base().and_then(Height::new).unwrap_or(Height::FIRST),
        flushed,
        last_commit: last.as_ref().map(|(_, _, _, commit)| commit.clone()),
        last_body: last.map(|(block_id, _, body, _)| (block_id, body)),
        bodies: undecided_bodies(log, chain.next_height())?,
        guard: guard_view(guard, &chain)?,
        chain: Arc::new(chain),
    };
    Ok(Recovered { restored, executor })
}

/// A key and its value.
type Entry = (Arc<[u8]>, Arc<[u8]>);

fn load_state(host: Host, genesis: &Genesis, db: &mut StateDb) -> Result<(ChainState, Executor), RecoveryError> {
    let mut entries: Vec<Entry> = Vec::new();
    let flushed = db.load(|_, key, value| entries.push((Arc::from(key), Arc::from(value))))?;
    let Some(flushed) = flushed else {
        let (chain, state, changes) = genesis_state(&host, genesis)?;
        return Ok((chain, Executor::at_genesis(host, state, changes)));
    };
    let chain = ChainState::decode(&flushed.meta).map_err(|error| RecoveryError::Record {
        what: "the chain state",
        height: flushed.height,
        error,
    })?;
    let state = State::new(chain.height, Tree::from_entries(entries));
    if chain.height.get() != flushed.height || chain.app_hash != state.root().into() || chain.chain_id != genesis.chain_id {
        return Err(RecoveryError::Contradiction(format!(
            "the database says that it holds height {} of {} with root {}, and its entries have root {}",
            chain.height,
            chain.chain_id,
            chain.app_hash,
            state.root()
        )));
    }
    Ok((chain, Executor::new(host, state)))
}

/// A decided block of the log: its name, content, bytes and commit.
///
/// # Errors
/// When the log does not hold it, or holds something else.
pub fn decided(log: &LogReader, height: Height) -> Result<(BlockId, Block, Bytes, Commit), RecoveryError> {
    let missing = |what: &str| RecoveryError::Contradiction(format!("the block log has no {what} of height {height}"));
    let decision = log.decision(height.get())?.ok_or_else(|| missing("decision"))?;
    let commit: Commit = codec::decode(WIRE_VERSION, &decision.payload, DECISION_BYTES_MAX).map_err(|error| RecoveryError::Record {
        what: "the decision",
        height: height.get(),
        error,
    })?;
    let stored = log.body(&commit.block_id.hash.0)?.ok_or_else(|| missing("body"))?;
    let block = Block::decode(&stored.payload).map_err(|error| RecoveryError::Record { what: "the body", height: height.get(), error })?;
    if commit.height != height || block.header.height != height || block.header.hash() != commit.block_id.hash {
        return Err(RecoveryError::Contradiction(format!("the decision of height {height} and its body are not of one block")));
    }
    Ok((commit.block_id, block, Bytes::from(stored.payload), commit))
}

/// Bodies of the height that is not decided yet: a lock may name them.
fn undecided_bodies(log: &LogReader, height: Height) -> Result<Vec<(BlockId, Bytes)>, RecoveryError> {
    let mut bodies = Vec::new();
    for entry in log.entries(height.get()).iter().filter(|entry| entry.kind == Kind::Body) {
        let stored = log.read(entry)?;
        let block_id = BlockId { hash: lockstep_types::Hash(entry.block_hash), parts: part_set_header(&stored.payload) };
        bodies.push((block_id, Bytes::from(stored.payload)));
    }
    Ok(bodies)
}

fn guard_view(guard: Option<&Guard>, chain: &ChainState) -> Result<GuardView, RecoveryError> {
    let Some(guard) = guard else { return Ok(GuardView::default()) };
    let mut view = GuardView { unreadable: !guard.is_readable(), ..GuardView::default() };
    for record in guard.records() {
        let remembered = Remembered::from_record(record, &chain.chain_id).map_err(|error| RecoveryError::Record {
            what: "the vote guard's record",
            height: record.height,
            error,
        })?;
        match remembered {
            Some(remembered) => view.records.push(remembered),
            None => view.floor = view.floor.max(Height::new(record.height).unwrap_or(Height::MAX)),
        }
    }
    Ok(view)
}
