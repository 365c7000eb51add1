//! What a restart finds on disk, and where it goes on.
//!
//! The database holds the state of one height, whole. The block log holds the decisions after it; executing those gives the
//! state of the durable tip. No signature is verified again: a decision was verified before it was written, and the log's
//! checksums say that it is the same. What executing them gives is compared with what their headers say, which more than two
//! thirds signed. Only one thing is ever ahead of another: guard ≤ log + 1, database ≤ log.
//!
//! [`open`] does all of this for a whole home, and heals what is damaged on the way (decision record 10): the log is cut down
//! to its sound prefix, state and results are made again from it, and what was damaged is set aside. The vote guard is handed
//! in, and nothing here changes it. A log that was cut may end below it: such a validator is silent ([`crate::signing`]) until
//! block sync has brought it to the guard's height, where its lock waits for it.
//!
//! [`reexecute`] and [`rollback`] are for the operator of a stopped node: what the log gives when it is executed again, and a state
//! that goes back to before the newest blocks.

mod onward;
mod open;
mod own;
pub mod reexecute;
pub mod rollback;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::application::GenesisInput;
use lockstep_app::membership::names_kept;
use lockstep_app::tree::{Part, Prefix};
use lockstep_app::{AppError, Host, State, Tree};
use lockstep_genesis::Genesis;
use lockstep_storage::DiskError;
use lockstep_storage::guard::Guard;
use lockstep_storage::log::{Kind, LogError, LogReader};
use lockstep_storage::quarantine::QuarantineError;
use lockstep_storage::results::ResultsError;
use lockstep_storage::spread::{InTurn, Spread};
use lockstep_storage::state::{StateDb, StateError};
use lockstep_types::block::{Block, part_set_header};
use lockstep_types::codec::{self, DecodeError};
use lockstep_types::{AppHash, BlockId, Commit, Hash, Height, ValidatorUpdate};
use thiserror::Error;

use crate::bodies::BODIES_MAX;
use crate::chain::ChainState;
use crate::evidence::kept;
use crate::execution::{ExecuteJob, Executor};
use crate::replica::Restored;
use crate::seam::Outcome;
use crate::signing::{GuardView, Remembered};
use crate::wire::WIRE_VERSION;

pub use self::open::{Healed, Home, Opened, Store, Told, open};
pub use self::own::{SNAPSHOTS_PATH, give_up_contradicted};

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
    /// The results beside the log.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is damaged could not be set aside.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// The database is ahead of the log, from which it comes.
    #[error("the state database holds height {state}, the block log ends at {tip}")]
    Ahead {
        /// Height of the state.
        state: Height,
        /// Last height of the log.
        tip: Height,
    },
    /// The log does not hold what should be there.
    #[error("the block log has no {what} of height {height}")]
    Hole {
        /// Decision or body.
        what: &'static str,
        /// Its height.
        height: Height,
    },
    /// The database verifies and says two things of itself.
    #[error("{0}")]
    Unbelievable(String),
    /// A decided block says that the state before it is not ours.
    #[error(
        "the header of height {height}, which was decided, has root {theirs} and results {their_results} of the height before, and \
         executing the block log gives root {ours} and results {our_results}"
    )]
    WrongRoot {
        /// Height of the header.
        height: Height,
        /// What it says.
        theirs: AppHash,
        /// What executing gives.
        ours: AppHash,
        /// What it says of the results.
        their_results: Hash,
        /// What executing gives.
        our_results: Hash,
    },
    /// The state is not the chain's, as was found before.
    #[error("the state after height {height} is not the chain's: {what}")]
    Diverged {
        /// The height.
        height: Height,
        /// What differs.
        what: String,
    },
    /// Two things in the log contradict each other, and both verify.
    #[error(
        "{0}; this is a fault of the program that wrote it: keep the data folder, and start again from an empty log and state with the same guard"
    )]
    Contradiction(String),
    /// Results could not be kept, or whoever watches the execution refuses it.
    #[error("{0}")]
    Watcher(String),
    /// Genesis makes no chain.
    #[error("genesis: {0}")]
    Genesis(String),
}

impl RecoveryError {
    /// Whether there was no room, and the same call works once there is. A sync that fails for want of space is not meant: it has failed.
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Log(LogError::NoSpace(_)) => true,
            Self::Disk(error) => error.is_no_space() && error.action != "sync",
            _ => false,
        }
    }

    /// Whether the disk failed so that nobody knows what is on it: a running node stops.
    pub fn is_of_disk(&self) -> bool {
        !self.is_no_space() && matches!(self, Self::Log(LogError::Disk(_) | LogError::Failed) | Self::Disk(_))
    }
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
        genesis_hash: genesis.hash(),
        app_state: genesis.app_state.as_str(),
    };
    let start = host.init(&input)?;
    let app_version = host.info(&start.state).app_version;
    let standing = start.state.standing().clone();
    let chain = ChainState::genesis(genesis, start.validators, start.parameters, start.state.root().into(), app_version, standing)
        .map_err(|error| RecoveryError::Genesis(error.to_string()))?;
    Ok((chain, start.state, start.changes))
}

/// Opens the state of the flushed height and executes the log after it. `executed` is told each block's outcome, for results
/// and progress. Heals nothing: see [`open`].
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
    let (chain, executor) = load_state(host, genesis, db, &InTurn)?;
    let flushed = chain.height;
    let (chain, executor) =
        replay(genesis, log, chain, executor, |block, outcome, chain, _| executed(block, outcome, chain).map_err(RecoveryError::Watcher))?;
    let restored = restored(log, chain, executor.state(), flushed, guard)?;
    Ok(Recovered { restored, executor })
}

/// The height that the log ends at; the one before the first for an empty log.
fn tip_of(log: &LogReader, genesis: &Genesis) -> Height {
    log.tip().and_then(Height::new).unwrap_or(genesis.initial_height().previous())
}

/// Executes the log from the height of `chain` to its tip, and compares every root with the header that certifies it.
fn replay(
    genesis: &Genesis,
    log: &LogReader,
    mut chain: ChainState,
    mut executor: Executor,
    mut executed: impl FnMut(&Block, &Outcome, &ChainState, &mut Executor) -> Result<(), RecoveryError>,
) -> Result<(ChainState, Executor), RecoveryError> {
    let tip = tip_of(log, genesis);
    if chain.height > tip {
        return Err(RecoveryError::Ahead { state: chain.height, tip });
    }
    while chain.height < tip {
        let height = chain.next_height();
        let (block_id, block, _, commit) = decided(log, height)?;
        debug_assert_eq!(commit.block_id, block_id);
        if block.header.app_hash != chain.app_hash || block.header.last_results_hash != chain.results_hash {
            return Err(RecoveryError::WrongRoot {
                height,
                theirs: block.header.app_hash,
                ours: chain.app_hash,
                their_results: block.header.last_results_hash,
                our_results: chain.results_hash,
            });
        }
        let job = ExecuteJob { block: Arc::new(block), block_id, chain: Arc::new(chain) };
        let outcome = executor.execute(&job)?;
        let next = job.chain.advance(block_id, &job.block.header, job.block.txs.len(), &outcome);
        executed(&job.block, &outcome, &next, &mut executor)?;
        chain = next;
    }
    Ok((chain, executor))
}

/// What the replica goes on from.
fn restored(log: &LogReader, chain: ChainState, state: &State, flushed: Height, guard: Option<&Guard>) -> Result<Restored, RecoveryError> {
    let last = if log.tip().is_some() { Some(decided(log, chain.height)?) } else { None };
    let guard = guard_view(guard, &chain)?;
    Ok(Restored {
        base: log.base().and_then(Height::new).unwrap_or(Height::FIRST),
        flushed,
        last_commit: last.as_ref().map(|(_, _, _, commit)| commit.clone()),
        last_body: last.map(|(block_id, _, body, _)| (block_id, body)),
        bodies: undecided_bodies(log, chain.next_height(), &guard)?,
        diverged: BTreeSet::new(),
        doubt: None,
        roots: Vec::new(),
        guard,
        evidence: kept::load(log)?,
        names: names_kept(state.tree()),
        chain: Arc::new(chain),
    })
}

/// A state of fewer entries is read in one piece.
const SPREAD_FROM: u64 = 50_000;
/// Else in 2^so many: enough that cores end together, and each large enough to be worth a thread's while.
const SPREAD_BITS: u32 = 5;

/// The place that one of 2^`bits` shares of all paths has in the tree.
fn place_of(share: usize, bits: u32) -> Prefix {
    (0..bits).rev().fold(Prefix::WHOLE, |place, bit| place.half(share >> bit & 1 == 1).expect("a few levels"))
}

fn load_state(host: Host, genesis: &Genesis, db: &mut StateDb, spread: &dyn Spread) -> Result<(ChainState, Executor), RecoveryError> {
    let bits = if db.flushed().is_some_and(|flushed| flushed.entries >= SPREAD_FROM) { SPREAD_BITS } else { 0 };
    let loaded = db.load_shares(bits, spread, |share, rows| Part::build(place_of(share, bits), rows))?;
    let Some((flushed, parts)) = loaded else {
        let (chain, state, changes) = genesis_state(&host, genesis)?;
        return Ok((chain, Executor::at_genesis(host, state, changes)));
    };
    let unbelievable = |what: String| {
        RecoveryError::Unbelievable(format!(
            "the state database verifies, and its entries of height {} are no state: {what}",
            flushed.height
        ))
    };
    let parts = parts.into_iter().collect::<Result<Vec<Part>, _>>().map_err(|error| unbelievable(error.to_string()))?;
    let tree = Tree::join(parts).ok_or_else(|| unbelievable("its parts leave a gap".to_owned()))?;
    let chain = ChainState::decode(&flushed.meta).map_err(|error| {
        RecoveryError::Unbelievable(format!(
            "the state database verifies, and its chain state of height {} cannot be read: {error}",
            flushed.height
        ))
    })?;
    if chain.chain_id != genesis.chain_id {
        let (theirs, ours) = (&chain.chain_id, &genesis.chain_id);
        return Err(RecoveryError::Unbelievable(format!("the state database is of another chain: {theirs}, and this node's is {ours}")));
    }
    if chain.height.get() != flushed.height {
        return Err(RecoveryError::Unbelievable(format!(
            "the state database says that it holds height {}, and its chain state is of height {}",
            flushed.height, chain.height
        )));
    }
    let state = State::new(chain.height, tree, chain.standing.clone(), chain.next_validators.clone());
    if chain.app_hash != state.root().into() {
        return Err(RecoveryError::Unbelievable(format!(
            "the state database says that the state of height {} has root {}, and its entries have root {}",
            chain.height,
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
    let missing = |what| RecoveryError::Hole { what, height };
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

/// Bodies of the height that is not decided yet: those that a lock or a valid value of ours names, and of the others the newest, as
/// many as are held in memory. There is one for each round that this height had; what is not read here comes again from peers.
fn undecided_bodies(log: &LogReader, height: Height, guard: &GuardView) -> Result<Vec<(BlockId, Bytes)>, RecoveryError> {
    let named: Vec<[u8; 32]> =
        guard.records.iter().flat_map(|record| record.lock.iter().chain(&record.valid)).map(|polka| polka.block_id.hash.0).collect();
    let mut entries: Vec<_> = log.entries(height.get()).into_iter().filter(|entry| entry.kind == Kind::Body).collect();
    entries.sort_unstable_by_key(|entry| (named.contains(&entry.block_hash), entry.sequence));
    let mut bodies = Vec::new();
    for entry in entries.iter().rev().take(BODIES_MAX) {
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

#[cfg(test)]
mod tests {
    use lockstep_types::state_tree::Path;

    use super::*;

    #[test]
    fn shares_of_the_paths_are_the_places_of_the_tree_in_order() {
        for bits in [0, 1, SPREAD_BITS, 8] {
            let places: Vec<Prefix> = (0..1_usize << bits).map(|share| place_of(share, bits)).collect();
            for byte in 0..=u8::MAX {
                for rest in [0, 0xff] {
                    let mut path = Path([rest; 32]);
                    path.0[0] = byte;
                    let holds: Vec<usize> = (0..places.len()).filter(|share| places[*share].contains(&path)).collect();
                    assert_eq!(holds, [usize::from(byte) >> (8 - bits)], "{bits} bits, a path that begins with {byte:#x}");
                }
            }
        }
    }
}
