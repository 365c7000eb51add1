//! Taking the application's state back to before the newest blocks: `lockstep rollback`.
//!
//! It is for the operator whose application computed something wrong, and has now been mended: the newest block is executed again
//! by the next start, on a state that is known to be right. That state is not an undo of what was done: it is made again from the
//! newest own snapshot, or from genesis, by the program at hand, and believed only when the header of the next block, which more
//! than two thirds of the power signed, says the same root. What is taken away is set aside in a folder of its own.
//!
//! **What it never touches.** The vote guard is not even opened. So a rollback cannot make a validator sign twice: whatever it signed
//! stays recorded, and what a start may sign follows from the guard and the log as after any other end of a process.
//!
//! - The state goes back and the log stays: the durable tip is where it was, guard ≤ tip + 1 holds, consensus goes on at tip + 1
//!   with the guard's lock. The state is nothing that a vote depends on until its root is compared with a certified header.
//! - *Hard*, the log is cut after the height as well. Then the guard may stand more than one height above the durable tip, and this
//!   is the case for which [`crate::signing`] has its rule: the validator is silent at and below every height up to the guard's, until
//!   peers have given it their certificates (order 2), and at the guard's height it has its lock with the polka. It is what decision
//!   record 10 argues for a log that lost its end to a disk.
//!
//! **What a hard rollback costs.** The other nodes must have the blocks that go: they are on one disk less. A lock's body of the
//! height that was being decided may go with them; correct validators with more than a third of the power that are locked there
//! have it too, as long as no more than a faulty third cuts its log at the same time. So it is for one node after the other. The only
//! validator of a chain has nobody to ask, and is refused. Nothing is lost for good: the bytes lie in the folder of what was set
//! aside.
//!
//! **A crash on the way** leaves a home that starts: the state goes first, then results, then the log from its end. A state that is
//! missing is made from the log, one below the results executes again what lies between, and a log that is longer than asked for is
//! one that was not rolled back so far. The same command again finishes it.

use std::sync::Arc;

use lockstep_app::Tree;
use lockstep_storage::DiskError;
use lockstep_storage::disk::Disk;
use lockstep_storage::log;
use lockstep_storage::quarantine::{Quarantine, QuarantineError};
use lockstep_storage::results::{CutError, cut_above, make_durable};
use lockstep_storage::snapshots::{SnapshotError, Snapshots};
use lockstep_storage::state::{Change, StateDb, StateError};
use lockstep_types::state_tree::Path;
use lockstep_types::{Block, Height};
use thiserror::Error;

use super::reexecute::{Archive, Begin, Difference};
use super::{RecoveryError, SNAPSHOTS_PATH};
use crate::chain::ChainState;

/// Where to go back to, and how far.
#[derive(Debug, Clone, Copy)]
pub struct Rollback<'a> {
    /// The state database.
    pub state: &'a str,
    /// The height whose state is wanted.
    pub to: Height,
    /// Whether the log is cut there, too.
    pub is_hard: bool,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// What became of the state.
    pub state: NewState,
    /// Where that lies which was taken away.
    pub set_aside: Vec<String>,
}

/// What became of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewState {
    /// The database holds this height, which is not above the one that was wanted: it stays as it is.
    Kept(Height),
    /// It was made again, from the state of this height on, and the next header says its root.
    MadeAgain(Height),
    /// There is none: the next start begins with genesis.
    Genesis,
}

/// Why nothing, or not all of it, was done.
#[derive(Debug, Error)]
pub enum RollbackError {
    /// The height is not one of those that the log holds, below the newest.
    #[error("the log holds blocks {base} to {tip}: {}", reach(*lowest, *tip))]
    OutOfRange {
        /// The first block.
        base: Height,
        /// The newest block.
        tip: Height,
        /// A height that a state is here for, of genesis or of a snapshot that the log proves. That of the database may be lower; it is not
        /// looked at for a refusal.
        lowest: Option<Height>,
    },
    /// There is no state to begin with.
    #[error("no state at or below height {wanted} is in this home: the log holds blocks {base} to {tip}, and {}", reach(*lowest, *tip))]
    NoStart {
        /// What was asked for.
        wanted: Height,
        /// The first block.
        base: Height,
        /// The newest block.
        tip: Height,
        /// The lowest height that a state is here for, of a snapshot that the log proves or of the database.
        lowest: Option<Height>,
    },
    /// Executing the blocks up to the height gives what was not certified.
    #[error("executing the block log gives something else than was certified, at height {}", .0.height)]
    Differs(Box<Difference>),
    /// The log or the state.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// What was to be set aside.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// Results.
    #[error(transparent)]
    Results(#[from] CutError),
    /// Snapshots.
    #[error("snapshots: {0}")]
    Snapshots(#[from] SnapshotError),
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Goes back. Blocks that are executed on the way are told.
///
/// # Errors
/// See [`RollbackError`]. Up to [`RollbackError::Differs`] nothing was changed, but that a database which is opened notes that it was.
pub fn roll_back(
    archive: &Archive<'_>,
    wanted: &Rollback<'_>,
    kept: &mut Quarantine,
    executed: impl FnMut(&Block),
) -> Result<RolledBack, RollbackError> {
    let (base, before_first) = (archive.base(), archive.before_first());
    // A state stands on the decision of its height, which has to be here, unless it is that of genesis.
    let is_held = wanted.to >= base || (wanted.to == before_first && base == before_first.next());
    if !is_held || wanted.to >= archive.tip() {
        let lowest = archive.start(Begin::First)?.map(|start| start.height).filter(|height| *height < archive.tip());
        return Err(RollbackError::OutOfRange { base, tip: archive.tip(), lowest });
    }
    let mut set_aside = Vec::new();
    let state = state_back(archive, wanted, kept, &mut set_aside, executed)?;
    let disk = archive.disk();
    set_aside.extend(cut_above(disk, archive.dir(), wanted.to.get(), kept)?);
    if wanted.is_hard {
        // Those of blocks that go may be of a branch that the chain did not take. They come again with the next checkpoint.
        let (snapshots, _) = Snapshots::open(disk.clone(), SNAPSHOTS_PATH)?;
        for height in snapshots.heights().into_iter().chain(snapshots.begun()).filter(|height| *height > wanted.to.get()) {
            snapshots.give_up(height)?;
        }
        set_aside.extend(if wanted.to == before_first {
            log::set_aside_all(disk, archive.dir(), kept)?
        } else {
            log::cut_above(disk, archive.dir(), archive.log(), wanted.to.get(), kept)?.unwrap_or_default()
        });
    }
    Ok(RolledBack { state, set_aside })
}

fn state_back(
    archive: &Archive<'_>,
    wanted: &Rollback<'_>,
    kept: &mut Quarantine,
    set_aside: &mut Vec<String>,
    executed: impl FnMut(&Block),
) -> Result<NewState, RollbackError> {
    let disk = archive.disk();
    let made = format!("{}.rolled-back", wanted.state);
    remove(&**disk, &made)?;
    let flushed = flushed(archive, wanted)?;
    if let Some(flushed) = flushed.filter(|flushed| *flushed <= wanted.to) {
        return Ok(if flushed == archive.before_first() { NewState::Genesis } else { NewState::Kept(flushed) });
    }
    if wanted.to == archive.before_first() {
        set_aside.push(kept.take(wanted.state)?);
        return Ok(NewState::Genesis);
    }
    let Some(start) = archive.start(Begin::At(wanted.to.next()))? else { return Err(no_start(archive, wanted.to, flushed)?) };
    let from = start.height;
    let walked = archive.walk(start, wanted.to, executed)?;
    if let Some(difference) = walked.difference {
        return Err(RollbackError::Differs(Box::new(difference)));
    }
    // Results first: those below the state are not executed again.
    make_durable(&**disk, archive.dir()).map_err(CutError::from)?;
    write_new(&**disk, &made, &walked.chain, walked.state.tree())?;
    if disk.open(wanted.state).is_ok() {
        set_aside.push(kept.take(wanted.state)?);
    }
    disk.rename(&made, wanted.state).map_err(|source| DiskError { action: "rename", path: made.clone(), source })?;
    disk.sync_dir(".").map_err(|source| DiskError { action: "sync", path: ".".to_owned(), source })?;
    Ok(NewState::MadeAgain(from))
}

/// The height that the database holds, where a start could use it: the log leads on from there.
fn flushed(archive: &Archive<'_>, wanted: &Rollback<'_>) -> Result<Option<Height>, RollbackError> {
    let flushed = match StateDb::open(&**archive.disk(), wanted.state) {
        Ok(db) => db.flushed().map_or(Some(archive.before_first()), |flushed| Height::new(flushed.height)),
        // What cannot be used is replaced, as a start would.
        Err(StateError::Damaged { .. } | StateError::Newer { .. }) => None,
        Err(error) => return Err(RecoveryError::from(error).into()),
    };
    Ok(flushed.filter(|flushed| flushed.next() >= archive.base()))
}

/// How far back it goes, for whoever asked for more.
fn no_start(archive: &Archive<'_>, wanted: Height, flushed: Option<Height>) -> Result<RollbackError, RollbackError> {
    let (base, tip) = (archive.base(), archive.tip());
    let start = archive.start(Begin::First)?.map(|start| start.height);
    let lowest = start.into_iter().chain(flushed).filter(|height| *height < tip).min();
    Ok(RollbackError::NoStart { wanted, base, tip, lowest })
}

fn reach(lowest: Option<Height>, tip: Height) -> String {
    match lowest {
        Some(lowest) => format!("it can go back to heights {lowest} to {}", tip.previous()),
        None => format!("it can go back below {tip} as far as there is a state, and no snapshot that the log proves is one"),
    }
}

/// Removes what an earlier attempt may have left.
fn remove(disk: &dyn Disk, path: &str) -> Result<(), DiskError> {
    match disk.unlink(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DiskError { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// A database with this state.
fn write_new(disk: &dyn Disk, path: &str, chain: &ChainState, tree: &Tree) -> Result<(), RollbackError> {
    let mut db = StateDb::open(disk, path).map_err(RecoveryError::from)?;
    let entries: Vec<_> = tree.iter().map(|(key, value)| (Path::of(key), Arc::clone(key), Arc::clone(value))).collect();
    let changes = entries.iter().map(|(path, key, value)| Change { path: path.0, key, value: Some(&value[..]) });
    db.flush(chain.height.get(), changes, &chain.encode()).map_err(RecoveryError::from)?;
    Ok(())
}
