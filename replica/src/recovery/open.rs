//! Opening a home, and healing what is damaged in it.
//!
//! Every pass opens the log, loads the state, makes results whole and executes what is missing. What meets damage sets it aside
//! and the next pass begins from what is left: a pass that heals makes the log shorter, or replaces a state that was not made
//! in this log by none, so there is an end. What cannot be healed, because the disk fails or because what verifies makes
//! no sense, is an error as before.

use std::cmp::Ordering;
use std::io::ErrorKind;
use std::sync::Arc;

use lockstep_app::{Host, State};
use lockstep_genesis::Genesis;
use lockstep_storage::disk::Disk;
use lockstep_storage::guard::Guard;
use lockstep_storage::log::{
    BlockLog, LogError, LogOptions, LogReader, Recovery, cut_at_damage, note_pruned, pruned_below, restore_header, set_aside_all,
};
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::results::{Results, ResultsError, Scanned, set_aside_from, set_aside_segment};
use lockstep_storage::spread::{self, Spread};
use lockstep_storage::state::{Change, StateDb, StateError};
use lockstep_types::planted::{self, Bug};
use lockstep_types::state_tree::Path;
use lockstep_types::{Block, Height};

use super::{Recovered, RecoveryError, decided, genesis_state, load_state, onward, own, replay, restored, tip_of};
use crate::audit::{Settled, Shelf};
use crate::chain::ChainState;
use crate::execution::Executor;
use crate::light_store::LightStore;
use crate::results::keep;
use crate::seam::Outcome;
use crate::state_sync::{Begun, Installed, forget_passed, install};

/// A home to open.
pub struct Home<'a> {
    /// Its disk.
    pub disk: Arc<dyn Disk>,
    /// The folder of the block log, and of the results beside it.
    pub log: &'a str,
    /// The state database.
    pub state: &'a str,
    /// The folder of what is set aside.
    pub damaged: &'a str,
    /// How the log is opened.
    pub log_options: LogOptions,
    /// Whether results are kept.
    pub keep_results: bool,
    /// Whether blocks that a snapshot passes are moved to [`PASSED_PATH`](crate::state_sync::PASSED_PATH) instead of being removed:
    /// nobody else may have them.
    pub keeps_all_blocks: bool,
    /// Changed keys after which a long execution writes the state on its way.
    pub flush_keys: u64,
    /// The chain.
    pub genesis: &'a Genesis,
    /// The application.
    pub host: Host,
    /// Who reads a large state's pieces.
    pub spread: &'a dyn Spread,
}

/// What was opened.
pub struct Opened {
    /// The block log.
    pub log: BlockLog,
    /// What opening it found.
    pub log_recovery: Recovery,
    /// The state database.
    pub db: StateDb,
    /// Results, where they are kept.
    pub results: Option<Results>,
    /// Headers that are kept apart from bodies.
    pub light: LightStore,
    /// For the replica and the executor.
    pub recovered: Recovered,
    /// What was damaged and is whole again.
    pub healed: Vec<Healed>,
    /// What came of a snapshot that state sync had gathered.
    pub installed: Option<Installed>,
    /// Heights at which the state had diverged from the chain's, and agrees with it now.
    pub settled: Vec<Settled>,
}

/// A store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The block log, from the damage on.
    Log,
    /// The header of a segment of the block log.
    LogHeader,
    /// The block log, up to the damage: what is behind it leads on from the state, or from an own snapshot.
    LogBefore,
    /// The block log, sound as far as it was read, to the beginning of which nothing that is here leads.
    LogAlone,
    /// The state database.
    State,
    /// The end of the block log, which the state of the database was made of: the database goes with it.
    StateAhead,
    /// Results of execution, which come again.
    Results,
    /// Results of blocks up to that of the state, where the chain's beginning is gone.
    ResultsBefore,
}

/// One damage and what was done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healed {
    /// Where.
    pub store: Store,
    /// What was wrong.
    pub damage: String,
    /// Where that lies now.
    pub set_aside: Vec<String>,
}

/// What happens while a home is opened.
pub enum Told<'a> {
    /// Something was damaged, and was set aside.
    Healed(&'a Healed),
    /// There is a block log and no state database: another one is made.
    StateMissing {
        /// The height of the own snapshot that it begins with; none where it begins with genesis.
        snapshot: Option<Height>,
        /// The height that the log ends at, to which blocks are executed.
        tip: Height,
    },
    /// A block of the log was executed. After something was healed, heights come again.
    Executed {
        /// The block.
        block: &'a Block,
        /// What came out.
        outcome: &'a Outcome,
        /// The height that the log ends at.
        tip: Height,
    },
}

impl std::fmt::Display for Healed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, then) = match self.store {
            Store::Log => {
                ("the block log was damaged", "the log goes on from the block before, if one is left, and peers are asked for the rest")
            }
            Store::LogHeader => ("the block log was damaged", "the header is written again: what was in it can be told"),
            Store::LogBefore => (
                "the block log was damaged",
                "the log begins behind it now, which leads on from the state that is here: blocks from before can be had from peers alone, \
                 if they keep them",
            ),
            Store::LogAlone => {
                ("the block log is of no use", "peers are asked for the chain, and for a snapshot where they have let its beginning go")
            }
            Store::State => (
                "the state database was damaged or cannot be used",
                "it is made again by executing the block log, from its first block or from an own snapshot on",
            ),
            Store::StateAhead => (
                "the end of the block log is gone",
                "the state is made again as far as the log goes, from its first block or from an own snapshot on, and peers are asked for the rest",
            ),
            Store::Results => ("the results of execution were damaged", "they are made again by executing the block log"),
            Store::ResultsBefore => (
                "the results of execution were damaged",
                "those of blocks before the state stay missing, since the chain's beginning, from which they could be made again, is not here",
            ),
        };
        write!(f, "{what}: {}; ", self.damage)?;
        match self.set_aside.len() {
            0 => {}
            1..=4 => write!(f, "set aside, not deleted: {}; ", self.set_aside.join(", "))?,
            files => write!(f, "set aside, not deleted: {} and {} more; ", self.set_aside[0], files - 1)?,
        }
        f.write_str(then)
    }
}

/// Why a pass did not come to its end.
enum Stop {
    /// Damage of the log.
    Log(LogError),
    /// The log does not reach back to where the state ends: what it holds is of no use.
    Unreachable(String),
    /// The log begins with this block, and not with what should be there; the state leads on to it.
    BeginsLate(Height),
    /// The state cannot be used.
    State(RecoveryError),
    /// Results cannot be used, from this segment on; where nothing can fill the gap, those of this segment alone.
    Results { segment: u64, damage: String, is_alone: bool },
    /// There is nothing to be done here.
    Error(RecoveryError),
}

impl From<RecoveryError> for Stop {
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::Log(LogError::MissingSegment { .. }) if planted::has(Bug::MissingSegmentFatal) => Self::Error(error),
            RecoveryError::Ahead { .. } if planted::has(Bug::StateAheadFatal) => Self::Error(error),
            RecoveryError::Log(damage @ (LogError::Rot { .. } | LogError::MissingSegment { .. })) => Self::Log(damage),
            RecoveryError::State(StateError::Damaged { .. } | StateError::Newer { .. })
            | RecoveryError::Ahead { .. }
            | RecoveryError::Unbelievable(_)
            | RecoveryError::WrongRoot { .. }
            | RecoveryError::Diverged { .. } => Self::State(error),
            RecoveryError::Hole { .. } => Self::Unreachable(error.to_string()),
            other => Self::Error(other),
        }
    }
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Self {
        RecoveryError::from(error).into()
    }
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        RecoveryError::from(error).into()
    }
}

impl From<ResultsError> for Stop {
    fn from(error: ResultsError) -> Self {
        Self::Error(error.into())
    }
}

/// Opens a home and heals what is damaged in it. The guard was opened before: a home whose guard is refused is left as it is.
///
/// # Errors
/// When the disk fails, a store was written by a newer program, what verifies makes no sense, or too much was damaged before
/// ([`lockstep_storage::quarantine`]).
pub fn open(home: &Home<'_>, guard: Option<&Guard>, mut told: impl FnMut(Told<'_>)) -> Result<Opened, RecoveryError> {
    let (installed, mut begun) = install(home)?;
    let mut quarantine = Quarantine::new(home.disk.clone(), home.damaged);
    let suspected = quarantine.is_suspected()?;
    let mut healed: Vec<Healed> = Vec::new();
    // A state that this very opening made, in a log that was not cut since, is not damaged by rot: it is not made twice.
    let mut state_is_new = false;
    let mut shelf = Shelf::open(home.disk.clone())?;
    let is_restored = matches!(installed, Some(Installed::Restored(_)));
    loop {
        let stop = match pass(home, guard, suspected, begun.take(), (&mut shelf, state_is_new || is_restored), &mut told) {
            Ok(mut opened) => {
                let steps: Vec<String> = healed.iter().chain(&opened.healed).map(ToString::to_string).collect();
                opened.recovered.restored.diverged = shelf.heights().iter().copied().collect();
                if opened.recovered.restored.doubt.is_none() {
                    opened.settled = shelf.settle(&steps)?;
                }
                if suspected {
                    quarantine.clear_suspicion()?;
                }
                forget_passed(home, opened.recovered.restored.chain.height)?;
                healed.extend(opened.healed);
                return Ok(Opened { healed, installed, ..opened });
            }
            Err(stop) => stop,
        };
        let done = match stop {
            Stop::Error(error) => return Err(error),
            Stop::Log(damage) => {
                state_is_new = false;
                if restore_header(&home.disk, home.log, &damage)? {
                    Healed { store: Store::LogHeader, damage: damage.to_string(), set_aside: Vec::new() }
                } else if let Some(set_aside) = onward::keep_behind(home, &damage, &mut quarantine)? {
                    Healed { store: Store::LogBefore, damage: damage.to_string(), set_aside }
                } else {
                    onward::remember_roots(home, Some(&damage))?;
                    let set_aside = cut_at_damage(&home.disk, home.log, &damage, &mut quarantine)?;
                    let Some(set_aside) = set_aside else { return Err(damage.into()) };
                    Healed { store: Store::Log, damage: damage.to_string(), set_aside }
                }
            }
            Stop::BeginsLate(base) => {
                note_pruned(&*home.disk, home.log, base.get())?;
                Healed {
                    store: Store::LogBefore,
                    damage: format!("it begins with height {base}, and what was before is gone"),
                    set_aside: Vec::new(),
                }
            }
            Stop::Unreachable(damage) => {
                state_is_new = false;
                onward::remember_roots(home, None)?;
                let set_aside = set_aside_all(&home.disk, home.log, &mut quarantine)?;
                if set_aside.is_empty() {
                    return Err(RecoveryError::Contradiction(damage));
                }
                Healed { store: Store::LogAlone, damage, set_aside }
            }
            Stop::State(damage) => {
                if std::mem::replace(&mut state_is_new, true) {
                    return Err(damage);
                }
                let set_aside = match planted::has(Bug::DamagedStateStays) {
                    true => quarantine.copy_from(home.state, 0)?.into_iter().collect(),
                    false => vec![quarantine.take(home.state)?],
                };
                let store = if matches!(damage, RecoveryError::Ahead { .. }) { Store::StateAhead } else { Store::State };
                Healed { store, damage: damage.to_string(), set_aside }
            }
            Stop::Results { segment, damage, is_alone } => {
                let set_aside = match is_alone {
                    true => set_aside_segment(&home.disk, home.log, segment, &mut quarantine)?,
                    false => set_aside_from(&home.disk, home.log, segment, &mut quarantine)?,
                };
                if set_aside.is_empty() {
                    return Err(RecoveryError::Contradiction(damage));
                }
                Healed { store: if is_alone { Store::ResultsBefore } else { Store::Results }, damage, set_aside }
            }
        };
        told(Told::Healed(&done));
        healed.push(done);
    }
}

/// Opens everything once. All that it opened is closed again before what stopped it is mended.
fn pass(
    home: &Home<'_>,
    guard: Option<&Guard>,
    suspected: bool,
    begun: Option<Begun>,
    (shelf, mut is_fresh): (&mut Shelf, bool),
    told: &mut impl FnMut(Told<'_>),
) -> Result<Opened, Stop> {
    // Where none is, one is made only beside a log that can be opened.
    let is_missing = home.disk.open(home.state).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let has_state = !is_missing && begun.is_none();
    // The log and the newest results are read beside the state.
    let read_log = || -> Result<_, LogError> {
        let (log, recovery) = BlockLog::open(home.disk.clone(), home.log, home.log_options)?;
        let reader = log.reader();
        if suspected {
            reader.verify()?;
        }
        let scanned = home.keep_results.then(|| Scanned::new(home.disk.clone(), home.log, &reader.segments()));
        Ok((log, recovery, reader, scanned))
    };
    let read_state = || -> Result<_, RecoveryError> {
        // Its pages are checked when there is time for it, and before anything is written to it.
        let open = if suspected { StateDb::open } else { StateDb::open_to_read };
        let mut db = open(&*home.disk, home.state)?;
        let (chain, executor) = load_state(home.host.clone(), home.genesis, &mut db, home.spread)?;
        Ok((db, chain, executor))
    };
    let (read, loaded) = spread::both(home.spread, read_log, || has_state.then(read_state));
    let (log, log_recovery, reader, scanned) = read?;
    let (mut db, mut chain, mut executor) = match begun {
        Some(Begun { db, chain, tree }) => {
            let state = State::new(chain.height, tree, chain.standing.clone(), chain.next_validators.clone());
            (db, chain, Executor::new(home.host.clone(), state))
        }
        None => loaded.unwrap_or_else(read_state)?,
    };
    let is_from_snapshot = restore_own(home, &reader, &mut db)?;
    if is_from_snapshot {
        (chain, executor) = load_state(home.host.clone(), home.genesis, &mut db, home.spread)?;
        is_fresh = true;
    }
    let flushed = chain.height;
    let stored = chain.clone();
    let tip = tip_of(&reader, home.genesis);
    let before_first = home.genesis.initial_height().previous();
    // A log that does not begin with the chain has lost its beginning, unless it was pruned or began with a snapshot.
    let base = reader.base().and_then(Height::new);
    let base = base.filter(|base| *base > home.genesis.initial_height());
    let may_be_missing = pruned_below(&*home.disk, home.log)?;
    let restored_at = base.filter(|base| match base.cmp(&flushed.next()) {
        Ordering::Less => base.get() <= may_be_missing || began_with(home, &reader, *base),
        Ordering::Equal => base.get() <= may_be_missing && onward::leads_on(&chain, &reader),
        Ordering::Greater => false,
    });
    if let Some(base) = base.filter(|_| restored_at.is_none()) {
        if flushed < base && flushed > before_first && !is_from_snapshot {
            let what = format!("the state database holds height {flushed}, and the block log begins with height {base}");
            return Err(RecoveryError::Unbelievable(what).into());
        }
        // Its beginning was lost, or the note that it was pruned: what is here leads on all the same.
        if (onward::is_of(&chain, &reader) || onward::leads_on(&chain, &reader)) && !onward::comes_again(home, Some(&chain)) {
            return Err(Stop::BeginsLate(base));
        }
        // Rot in what should be there is named more precisely.
        decided(&reader, base.previous())?;
        return Err(Stop::Unreachable(format!("it begins with height {base}, and no state and no snapshot here leads to that height")));
    }
    if is_missing && tip > before_first {
        told(Told::StateMissing { snapshot: is_from_snapshot.then_some(flushed), tip });
    }
    if flushed > tip {
        return Err(RecoveryError::Ahead { state: flushed, tip }.into());
    }
    // The block after the state is certified to follow from it only once it is there; the one that the state is of is here.
    if flushed > before_first && base.is_none_or(|base| base <= flushed) {
        let (block_id, ..) = decided(&reader, flushed)?;
        if chain.last_block_id != Some(block_id) {
            let ours = chain.last_block_id.map_or_else(|| "none".to_owned(), |block_id| block_id.to_string());
            let what = format!("the state database is of block {ours} at height {flushed}, where the block log has {block_id}");
            return Err(RecoveryError::Unbelievable(what).into());
        }
    }
    judge_state(shelf, &chain, tip, is_fresh)?;
    let mut results = match scanned.transpose()? {
        Some(scanned) => Some(open_results(home, &reader, scanned, suspected, (flushed, restored_at))?),
        None => None,
    };
    let mut healed = Vec::new();
    if let Some(from) = results.as_ref().and_then(|(results, _)| results.rotten_from()).filter(|_| restored_at.is_some()) {
        let damage = format!("those of heights {from} to {flushed} did not verify and were cut off");
        let done = Healed { store: Store::ResultsBefore, damage, set_aside: Vec::new() };
        told(Told::Healed(&done));
        healed.push(done);
    }
    if let Some(Missing::FromGenesis(missing)) = results.as_ref().map(|(_, missing)| *missing) {
        let damage = format!("those of height {missing} and above are missing, or did not verify and were cut off");
        let done = Healed { store: Store::Results, damage, set_aside: Vec::new() };
        told(Told::Healed(&done));
        healed.push(done);
        // The state is here and its results are not: they come of the same execution, from the beginning.
        let (start, state, changes) = genesis_state(&home.host, home.genesis)?;
        chain = start;
        executor = Executor::at_genesis(home.host.clone(), state, changes);
    }
    let mut written = flushed;
    let mut doubt = None;
    // What the database holds, where it is passed on the way from the beginning.
    let stored = (chain.height < flushed).then_some(stored);
    let (chain, mut executor) = replay(home.genesis, &reader, chain, executor, |block, outcome, chain, executor| {
        if let Some(stored) = stored.as_ref().filter(|stored| stored.height == chain.height && stored.statement() != chain.statement()) {
            let what = format!(
                "the state database holds height {} with root {}, and executing the block log gives root {}",
                stored.height, stored.app_hash, chain.app_hash
            );
            return Err(RecoveryError::Unbelievable(what));
        }
        if let Some(finding) = shelf.at(chain.height) {
            let difference = finding.difference(chain).filter(|_| !planted::has(Bug::HealsUnchecked));
            if let Some(right) = executor.trace().filter(|_| difference.is_none()) {
                shelf.executed_again(chain.height, &right, |count, keys| executor.touches(count, keys));
            }
            match difference {
                // Nothing else is left to begin from.
                Some(what) if is_fresh => doubt = Some(format!("after height {}, {what}", chain.height)),
                Some(what) => return Err(RecoveryError::Diverged { height: chain.height, what }),
                None => {}
            }
        }
        if let Some((results, _)) = &mut results
            && let Some(segment) = reader.segment_of(outcome.height.get())
        {
            results.append(segment, &keep(block, outcome, chain))?;
        }
        told(Told::Executed { block, outcome, tip });
        if outcome.height <= flushed {
            drop(executor.take_flush(outcome.height));
        } else if outcome.unflushed_keys >= home.flush_keys {
            // Results first: what is below the state is not executed again.
            if let Some((results, _)) = &mut results {
                results.sync()?;
            }
            write_state(&mut db, executor, chain)?;
            written = outcome.height;
        }
        Ok(())
    })?;
    let mut results = results.map(|(results, _)| results);
    if let Some(results) = results.as_mut().filter(|_| !healed.is_empty()) {
        // They are below the state, which the next start does not execute again.
        results.sync()?;
    }
    let mut restored = restored(&reader, chain, executor.state(), written, guard)?;
    restored.doubt = doubt;
    executor.read_history_from(reader, results.as_ref().map(Results::reader));
    let light = LightStore::open(home.disk.clone()).map_err(RecoveryError::from)?;
    restored.roots = light.roots().map_err(RecoveryError::from)?;
    executor.read_headers_from(light.clone());
    Ok(Opened {
        log,
        log_recovery,
        db,
        results,
        light,
        recovered: Recovered { restored, executor },
        healed,
        installed: None,
        settled: Vec::new(),
    })
}

/// Fills an empty database from an own snapshot. What proves that lies in part with results: damaged ones are set aside first, which leaves
/// the snapshots that do not need them.
fn restore_own(home: &Home<'_>, log: &LogReader, db: &mut StateDb) -> Result<bool, Stop> {
    match own::restore(home, log, db) {
        Err(RecoveryError::Results(damage @ ResultsError::Damaged { .. })) => {
            let results = Results::open(home.disk.clone(), home.log, &log.segments(), log.tip())?.reader();
            // A record that is listed and does not verify, or the first that opening did not get to.
            let heights = log.base().zip(log.tip()).map(|(base, tip)| base..=tip);
            let damaged = results.verify().err().map(|(height, _)| height).or_else(|| results.first_missing(heights?));
            let Some(height) = damaged else { return Err(damage.into()) };
            Err(Stop::Results { segment: results.holder_of(height), damage: damage.to_string(), is_alone: false })
        }
        restored => Ok(restored?),
    }
}

/// A state that is loaded is of the height that was found wrong, and agrees with what was found; or from before it, and is executed on from
/// there; or it was made again already, from where its own header proves it. Any other is not to be trusted.
fn judge_state(shelf: &Shelf, chain: &ChainState, tip: Height, is_fresh: bool) -> Result<(), RecoveryError> {
    for finding in shelf.to_heal().filter(|_| !planted::has(Bug::HealsUnchecked)) {
        let height = finding.height();
        let what = match height.cmp(&chain.height) {
            Ordering::Equal => finding.difference(chain),
            Ordering::Less if !is_fresh => Some(format!("the state database holds height {}, which came of it", chain.height)),
            Ordering::Greater if !is_fresh && height > tip => Some(format!("the block log ends at {tip}, and nothing shows since when")),
            _ => None,
        };
        if let Some(what) = what {
            return Err(RecoveryError::Diverged { height, what });
        }
    }
    Ok(())
}

/// Whether the log began with the snapshot of this height: the header of its block came with it.
fn began_with(home: &Home<'_>, log: &LogReader, base: Height) -> bool {
    let known = LightStore::open(home.disk.clone()).and_then(|light| light.restored(base));
    let hash = known.ok().flatten().map(|block| block.header.hash().0);
    hash.is_some() && log.decided_hash(base.get()) == hash
}

/// What is missing of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nothing below the state.
    Nothing,
    /// Those from this height on, which only an execution from the beginning gives.
    FromGenesis(u64),
}

/// Opens the results. Damaged ones stop the pass, so that they are set aside; then they are missing.
fn open_results(
    home: &Home<'_>,
    log: &LogReader,
    scanned: Scanned,
    suspected: bool,
    (flushed, restored_at): (Height, Option<Height>),
) -> Result<(Results, Missing), Stop> {
    // What is above the state is made again. What lies there may be in the kernel's cache alone, which calls it clean after a failed sync.
    let durable = log.tip().map(|tip| tip.min(flushed.get()));
    let results = scanned.open(durable)?;
    let reader = results.reader();
    let stop = |height: u64, damage: String, is_alone| Stop::Results { segment: reader.holder_of(height), damage, is_alone };
    if suspected && let Err((height, error)) = reader.verify() {
        return Err(stop(height, error.to_string(), restored_at.is_some() && height <= flushed.get()));
    }
    if restored_at.is_some()
        && let Some((segment, damage)) = reader.damaged_segment()
    {
        return Err(Stop::Results { segment, damage: damage.to_string(), is_alone: true });
    }
    // What came before the state cannot be executed again where the chain's beginning is not here: what is missing of that stays missing, and
    // nothing that was kept since is in its way.
    let initial = match restored_at {
        Some(base) if planted::has(Bug::GapHealsAnew) => base.next(),
        Some(_) => {
            reader.misses_below(flushed.next().get());
            flushed.next()
        }
        None => home.genesis.initial_height(),
    };
    let tip = tip_of(log, home.genesis).get();
    let Some(missing) = reader.first_missing(initial.get()..=tip) else { return Ok((results, Missing::Nothing)) };
    // Results behind a gap, or the empty file that they would go to, are in the way of those that are to fill it.
    let is_closed = reader.open_segment() > log.segment_of(missing) || reader.last_height().is_some_and(|last| last > missing);
    if is_closed {
        return Err(stop(missing, format!("those of height {missing} are missing or do not verify"), false));
    }
    if restored_at.is_some() {
        return Ok((results, Missing::Nothing));
    }
    let is_below = missing < flushed.get() || (missing == flushed.get() && !planted::has(Bug::ResultsHoleAtState));
    Ok((results, if is_below { Missing::FromGenesis(missing) } else { Missing::Nothing }))
}

/// Moves the database to the height that was executed last.
fn write_state(db: &mut StateDb, executor: &mut Executor, chain: &ChainState) -> Result<(), RecoveryError> {
    let batch = executor.take_flush(chain.height);
    let changes: Vec<_> = batch.changes.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
    let changes = changes.iter().map(|(path, key, value)| Change { path: path.0, key, value: value.map(|value| &value[..]) });
    db.flush(batch.height.get(), changes, &chain.encode())?;
    Ok(())
}
