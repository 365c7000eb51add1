//! Making a gathered snapshot the node's own: the state database, a block log that begins with the snapshot's block and goes on with
//! those that were collected above it, and the headers below it.
//!
//! Done at a start, before anything else is opened, while the staging folder says that it is complete. Everything here is a
//! function of that folder alone, and the mark changes last: a crash in the middle has the next start do all of it again. The vote
//! guard is not touched: what it says is of heights that the snapshot's block has decided, or of heights above it.
//!
//! The log that begins here does not lead back to genesis, so the database alone would be all that there is of the state. What was
//! gathered is therefore kept as an own snapshot too: a database that is lost or rots before this node makes a snapshot by itself is
//! made again from it (`recovery/own.rs`), and not fetched from peers.

use std::sync::Arc;

use lockstep_app::membership::{RecentBlocks, names_kept};
use lockstep_app::record::RECORD_KEY;
use lockstep_app::{ReplicaRecord, Standing, Tree};
use lockstep_genesis::Genesis;
use lockstep_storage::DiskError;
use lockstep_storage::log::{BlockLog, Kind, LogError, Record, look};
use lockstep_storage::snapshots::{SnapshotError, Snapshots};
use lockstep_storage::spread::Spread;
use lockstep_storage::state::{Change, StateDb};
use lockstep_types::codec;
use lockstep_types::light::LightBlock;
use lockstep_types::planted::{self, Bug};
use lockstep_types::state_tree::Path;
use lockstep_types::{Hash, Header, Height};

use super::staging::{Gathered, Staging};
use crate::chain::ChainState;
use crate::light_store::LightStore;
use crate::recovery::{Home, RecoveryError, SNAPSHOTS_PATH};
use crate::wire::WIRE_VERSION;

/// Where the block log lies that a snapshot passed, below a folder named by the snapshot's height: of a home whose operator keeps all blocks.
pub const PASSED_PATH: &str = "passed";

/// What came of a snapshot that was to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    /// The node's state is that after this height now.
    Restored(Height),
    /// What was gathered cannot be used; the home is as it was. What is still good of it is not fetched again.
    Refused(String),
}

/// What an installed snapshot is in memory: whoever opens the home need not read back what was just written.
pub(crate) struct Begun {
    pub db: StateDb,
    pub chain: ChainState,
    pub tree: Tree,
}

/// Installs what is gathered, if all of it is there.
///
/// # Errors
/// When the disk fails; the next start does it again.
pub(crate) fn install(home: &Home<'_>) -> Result<(Option<Installed>, Option<Begun>), RecoveryError> {
    let staging = Staging::open(home.disk.clone(), home.genesis.hash())?;
    staging.finish_clearing()?;
    if !staging.is_complete()? {
        return Ok((None, None));
    }
    let gathered = match staging.gathered(home.spread)? {
        Ok(gathered) => gathered,
        Err(reason) => {
            staging.unmark()?;
            return Ok((Some(Installed::Refused(reason)), None));
        }
    };
    let chain = match chain_of(home.genesis, &gathered) {
        Ok(chain) => chain,
        Err(reason) => {
            // More than two thirds signed a root over something that does not follow: this program is not the chain's.
            staging.clear()?;
            return Ok((Some(Installed::Refused(reason)), None));
        }
    };
    let height = chain.height;
    let failed = |action, path: &str| {
        let path = path.to_owned();
        move |source| DiskError { action, path, source }
    };
    // The database, from nothing.
    match home.disk.unlink(home.state) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove", home.state)(error).into()),
        _ => {}
    }
    let mut db = StateDb::open(&*home.disk, home.state)?;
    let entries: Vec<_> = gathered.tree.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
    let changes = entries.iter().map(|(path, key, value)| Change { path: path.0, key, value: Some(&value[..]) });
    db.flush(height.get(), changes, &chain.encode())?;
    drop(entries);
    if planted::has(Bug::MarkGoesFirst) {
        staging.unmark()?;
    }
    // The log, from its block on. What the old one held lies below everything that anybody asks this node for.
    home.disk.create_dir(home.log).map_err(failed("create", home.log))?;
    let passed = format!("{PASSED_PATH}/{}", height.get());
    let moved = match home.disk.list(&passed) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(failed("list", &passed))?,
    };
    let moved = if home.keeps_all_blocks && (!moved.is_empty() || has_blocks(home, height)?) { Some(moved) } else { None };
    if moved.is_some() {
        for (dir, of) in [(PASSED_PATH, "."), (&passed, PASSED_PATH)] {
            home.disk.create_dir(dir).map_err(failed("create", dir))?;
            home.disk.sync_dir(of).map_err(failed("sync", of))?;
        }
    }
    for name in home.disk.list(home.log).map_err(failed("list", home.log))? {
        let path = format!("{}/{name}", home.log);
        match &moved {
            // What has the name of a file that was moved already is of the new log, which an attempt before this one began.
            Some(moved) if !moved.contains(&name) => {
                home.disk.rename(&path, &format!("{passed}/{name}")).map_err(failed("move", &path))?;
            }
            _ => home.disk.unlink(&path).map_err(failed("remove", &path))?,
        }
    }
    if moved.is_some() {
        home.disk.sync_dir(&passed).map_err(failed("sync", &passed))?;
    }
    home.disk.sync_dir(home.log).map_err(failed("sync", home.log))?;
    let commit = &gathered.goal.at.commit;
    let (mut log, _) = BlockLog::open(home.disk.clone(), home.log, home.log_options)?;
    let block_hash = commit.block_id.hash.0;
    log.append(Record { kind: Kind::Body, height: height.get(), round: 0, block_hash, payload: &gathered.body })?;
    let decision = codec::encode(WIRE_VERSION, commit);
    log.append(Record { kind: Kind::Decision, height: height.get(), round: commit.round.get(), block_hash, payload: &decision })?;
    let mut below = block_hash;
    let mut next = height.next();
    // Without a hole, each the child of the one below. They are executed by this very start, as after any crash.
    while let Some(above) = staging.block(next)?.filter(|above| above.block.header.last_block_id.is_some_and(|id| id.hash.0 == below)) {
        let commit = &above.block.commit;
        let (round, block_hash) = (commit.round.get(), commit.block_id.hash.0);
        log.append(Record { kind: Kind::Body, height: next.get(), round, block_hash, payload: &above.body })?;
        let decision = codec::encode(WIRE_VERSION, commit);
        log.append(Record { kind: Kind::Decision, height: next.get(), round, block_hash, payload: &decision })?;
        (below, next) = (block_hash, next.next());
    }
    log.sync()?;
    drop(log);
    let mut light = LightStore::open(home.disk.clone())?;
    light.clear()?;
    for run in gathered.below.chunks(crate::wire::LIGHT_MAX) {
        light.keep(run)?;
    }
    light.keep(&[gathered.goal.at.clone(), gathered.goal.above.clone()])?;
    match keep_as_own(home, &staging) {
        // A disk that fails now is met again by the next start. Anything else costs this snapshot and no more: the next checkpoint makes one.
        Err(SnapshotError::Disk(error)) if !error.is_no_space() => return Err(error.into()),
        _ => {}
    }
    staging.clear()?;
    Ok((Some(Installed::Restored(height)), Some(Begun { db, chain, tree: gathered.tree })))
}

/// The chain that a node goes on from that begins with what is gathered, as the next start finds out once it is marked complete; the reason if
/// it could not.
///
/// # Errors
/// When the disk fails.
pub fn rehearse(staging: &Staging, genesis: &Genesis, spread: &dyn Spread) -> Result<Result<ChainState, String>, DiskError> {
    Ok(staging.gathered(spread)?.and_then(|gathered| chain_of(genesis, &gathered)))
}

/// The chain that goes on from what is gathered.
fn chain_of(genesis: &Genesis, gathered: &Gathered) -> Result<ChainState, String> {
    let names: Vec<_> = gathered.below.iter().map(|block| (block.header.height, block.header.hash())).collect();
    chain_after(genesis, &gathered.tree, &gathered.goal.at, &gathered.goal.above.header, &names)
}

/// Whether the log has decided blocks of its own. One that begins with this height is what an attempt before this one began.
fn has_blocks(home: &Home<'_>, height: Height) -> Result<bool, RecoveryError> {
    match look(&home.disk, home.log) {
        Ok(log) => Ok(log.and_then(|log| log.base()).is_some_and(|base| base != height.get())),
        Err(LogError::Disk(error)) => Err(error.into()),
        // Damage: whatever is left of it, it is not this program's to remove.
        Err(_) => Ok(true),
    }
}

/// Removes what was gathered of a snapshot that this node's own blocks have passed: its state has everything of use in it.
///
/// # Errors
/// When the disk fails.
pub(crate) fn forget_passed(home: &Home<'_>, height: Height) -> Result<(), RecoveryError> {
    Ok(Staging::open(home.disk.clone(), home.genesis.hash())?.forget_passed(height)?)
}

/// What was gathered becomes a snapshot of this node, and those below it go: the headers that would prove them are gone.
fn keep_as_own(home: &Home<'_>, staging: &Staging) -> Result<(), SnapshotError> {
    let (store, _) = Snapshots::open(home.disk.clone(), SNAPSHOTS_PATH)?;
    let Some(height) = staging.height() else { return Ok(()) };
    let kept = staging.put_into(&store).and_then(|()| store.finish(height.get()));
    if kept.is_err() && !store.heights().contains(&height.get()) {
        // Room that was taken is given back. The first error is the one worth telling.
        let _ = store.give_up(height.get());
    }
    kept?;
    store.heights().into_iter().filter(|own| *own < height.get()).try_for_each(|own| store.give_up(own))
}

/// The chain after the snapshot's height: from the record in its state, every part of which the header above certifies, from the header at
/// it, and from the names of the blocks below, upwards.
pub(crate) fn chain_after(
    genesis: &Genesis,
    tree: &Tree,
    block: &LightBlock,
    above: &Header,
    below: &[(Height, Hash)],
) -> Result<ChainState, String> {
    let at = &block.header;
    let record = record(tree)?;
    if record.height != at.height {
        return Err(format!("the replica record in the state of height {} is of height {}", at.height, record.height));
    }
    let same = |what: &str, ours: Hash, theirs: Hash| {
        if ours == theirs { Ok(()) } else { Err(format!("the replica record has other {what} than the header of height {}", above.height)) }
    };
    same("validators", record.validators.hash(), above.validators_hash)?;
    same("next validators", record.next_validators.hash(), above.next_validators_hash)?;
    same("parameters", record.parameters.hash(), above.consensus_hash)?;
    same("results", record.last_results_hash, above.last_results_hash)?;
    let recent = recent(tree, below, block);
    // With fewer names than the others remember, it would refuse a JOIN that they take.
    let needed = names_kept(tree).min(at.height.get() - genesis.initial_height().previous().get());
    if (recent.len() as u64) < needed {
        return Err(format!("the names of {} blocks are here, and the rules look back to {needed}", recent.len()));
    }
    let standing = Standing {
        view: record.view,
        committed_evidence: record.committed_evidence,
        attendance: record.attendance,
        power_moved: record.power_moved,
        waiting: record.waiting,
        recent,
        last_checkpoint: record.height,
    };
    Ok(ChainState {
        chain_id: genesis.chain_id.clone(),
        height: at.height,
        initial_height: genesis.initial_height(),
        last_block_id: Some(block.commit.block_id),
        last_time: at.time,
        last_validators: Arc::new(block.validators.clone()),
        validators: Arc::new(record.validators),
        next_validators: Arc::new(record.next_validators),
        params: Arc::new(record.parameters),
        app_hash: above.app_hash.clone(),
        results_hash: record.last_results_hash,
        app_version: above.version.app,
        // The height above is decided already: nothing here waits for its pace.
        follow_at_once: true,
        standing: Arc::new(standing),
    })
}

fn record(tree: &Tree) -> Result<ReplicaRecord, String> {
    let bytes = tree.get(RECORD_KEY).ok_or("the state has no replica record: its height is no checkpoint")?;
    ReplicaRecord::from_bytes(bytes).map_err(|error| format!("the replica record cannot be read: {error}"))
}

/// The names of the newest blocks, as who executed them remembers them.
fn recent(tree: &Tree, below: &[(Height, Hash)], at: &LightBlock) -> RecentBlocks {
    let mut recent = RecentBlocks::default();
    for (height, name) in below.iter().filter(|_| !planted::has(Bug::RecentForgotten)) {
        recent.push(*height, *name);
    }
    recent.push(at.header.height, at.header.hash());
    recent.keep(names_kept(tree));
    recent
}
