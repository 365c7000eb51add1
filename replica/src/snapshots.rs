//! Making a snapshot of a checkpoint, beside everything else.
//!
//! The state after a checkpoint is a version of the tree in memory, which stays what it is while blocks go on: a clone of one
//! pointer. So nothing waits for a snapshot, and no database is read for it (decision record 16). [`make`] walks over that version, writes the chunks
//! that no snapshot has yet, reads those that one has and writes anew what rotted of them, rests after each as long as its caller says, and gives the snapshot its name when all are there.
//!
//! Anything that goes wrong costs this snapshot and nothing else. The next checkpoint makes another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_app::State;
use lockstep_app::snapshot::{ChunkInfo, Manifest, ManifestError, pack, plan};
use lockstep_storage::DiskError;
use lockstep_storage::snapshots::{SnapshotError, Snapshots as Store};
use lockstep_types::state_tree::EMPTY;
use lockstep_types::{Hash, Height};
use thiserror::Error;

use crate::source::Snapshots;

/// Why a snapshot was not made.
#[derive(Debug, Error)]
pub enum MakeError {
    /// The state is too large.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// Whoever watched said stop.
    #[error("it was stopped")]
    Stopped,
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Chunks that are there.
    pub chunks: usize,
    /// Chunks in all.
    pub of: usize,
    /// Chunks that were written, and not there already from a snapshot before.
    pub written: usize,
    /// Bytes that were written for them.
    pub written_bytes: u64,
    /// Chunks that were there from a snapshot before and had rotted: they were written anew, for all that share them.
    pub mended: usize,
    /// Raw bytes of all entries of the state.
    pub raw_bytes: u64,
    /// Number of these entries.
    pub entries: u64,
}

/// Makes the snapshot of a state, which is that of a checkpoint. After each chunk, and now and then while they are counted, `rest` is called: it may wait, and says whether to go on.
///
/// # Errors
/// See [`MakeError`]. Nothing is left of the attempt then, but for what a failed disk does not let go; the next opening does.
pub fn make(store: &Store, genesis_hash: Hash, state: &State, mut rest: impl FnMut(&Progress) -> bool) -> Result<Progress, MakeError> {
    let height = state.height().get();
    let made = try_make(store, genesis_hash, state, &mut rest);
    if made.is_err() && !store.heights().contains(&height) {
        // The first error is the one worth telling.
        let _ = store.give_up(height);
    }
    made
}

fn try_make(store: &Store, genesis_hash: Hash, state: &State, rest: &mut impl FnMut(&Progress) -> bool) -> Result<Progress, MakeError> {
    let mut progress = Progress::default();
    let mut infos: Vec<ChunkInfo> = Vec::new();
    for (info, _) in plan(state.tree()) {
        infos.push(info);
        if !rest(&progress) {
            return Err(MakeError::Stopped);
        }
    }
    let manifest = Manifest::new(genesis_hash, state.height(), infos)?;
    let names: Vec<[u8; 32]> = manifest.chunks().iter().filter(|info| info.root != EMPTY).map(|info| info.root.0).collect();
    (progress.of, progress.raw_bytes, progress.entries) = (names.len(), manifest.bytes(), manifest.entries());
    store.begin(state.height().get(), &names, &manifest.to_bytes())?;
    for info in manifest.chunks().iter().filter(|info| info.root != EMPTY) {
        // Every snapshot that shares a chunk is worth what that chunk is worth, so none is shared unread.
        let is_here = store.has(&info.root.0);
        if !is_here || !store.is_sound(&info.root.0) {
            let packed = pack(&state.tree().part(info.prefix));
            if is_here {
                store.mend(&info.root.0, &packed)?;
                progress.mended += 1;
            } else if store.put(&info.root.0, &packed)? {
                progress.written += 1;
                progress.written_bytes += packed.len() as u64;
            }
        }
        progress.chunks += 1;
        if !rest(&progress) {
            return Err(MakeError::Stopped);
        }
    }
    store.finish(state.height().get())?;
    Ok(progress)
}

/// How long a snapshot stays that was offered to a peer, in milliseconds: it finds out first what leads there.
const OFFERED_MS: u64 = 10_000;
/// How long one stays that a peer asked for something of, in milliseconds.
const ASKED_MS: u64 = 30_000;
/// How long one stays in all because peers gather it, in milliseconds: ten minutes are a gigabyte at 14 Mbit/s.
const LEASE_MS_MAX: u64 = 600_000;
/// How many stay for that, beside those that the operator keeps.
pub const LEASED_MAX: usize = 2;

/// Snapshots that peers are gathering. One that is passed by newer ones is not taken away from under them, within bounds: a chain whose
/// checkpoints follow each other faster than a snapshot is fetched would never let anybody in.
#[derive(Debug, Default)]
pub struct Leases(Mutex<BTreeMap<u64, Lease>>);

#[derive(Debug)]
struct Lease {
    since_ms: u64,
    until_ms: u64,
}

impl Leases {
    fn extend(&self, height: u64, now_ms: u64, by_ms: u64) {
        let mut leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = leases.entry(height).or_insert(Lease { since_ms: now_ms, until_ms: now_ms });
        lease.until_ms = lease.until_ms.max(now_ms.saturating_add(by_ms)).min(lease.since_ms.saturating_add(LEASE_MS_MAX));
    }

    fn holds(&self, height: u64, now_ms: u64) -> bool {
        let leases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        leases.get(&height).is_some_and(|lease| lease.until_ms > now_ms)
    }

    fn forget_but(&self, heights: &[u64]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|height, _| heights.contains(height));
    }
}

/// Lets older snapshots go, so that the newest `keep` are left, and up to [`LEASED_MAX`] that peers gather: the heights that are gone.
///
/// Counted are those below the tip, whose root a decided header confirms. What is newer may have been made of a state that is not the
/// chain's, which the next block shows: a node that relied on it would have nothing to heal from.
///
/// # Errors
/// When the disk fails.
pub fn keep_newest(store: &Store, keep: usize, tip: Height, leases: &Leases, now_ms: u64) -> Result<Vec<u64>, SnapshotError> {
    let mut heights = store.heights();
    leases.forget_but(&heights);
    heights.retain(|height| *height < tip.get());
    heights.truncate(heights.len().saturating_sub(keep));
    let is_leased = |height: &&u64| leases.holds(**height, now_ms);
    let leased: Vec<u64> = heights.iter().rev().filter(is_leased).take(LEASED_MAX).copied().collect();
    heights.retain(|height| !leased.contains(height));
    heights.iter().try_for_each(|height| store.give_up(*height))?;
    Ok(heights)
}

/// The snapshots of a node, as peers are served from them. A chunk that is found damaged takes its snapshots with it.
pub struct Stored<C> {
    store: Store,
    leases: Arc<Leases>,
    clock_ms: C,
}

impl<C: Fn() -> u64> Stored<C> {
    /// Of a store, by a clock that counts milliseconds from any beginning.
    pub const fn new(store: Store, leases: Arc<Leases>, clock_ms: C) -> Self {
        Self { store, leases, clock_ms }
    }
}

impl<C: Fn() -> u64 + Send> Snapshots for Stored<C> {
    fn heights(&self) -> Result<Vec<Height>, DiskError> {
        let heights = self.store.heights();
        if let Some(newest) = heights.last() {
            self.leases.extend(*newest, (self.clock_ms)(), OFFERED_MS);
        }
        Ok(heights.into_iter().filter_map(Height::new).collect())
    }

    fn manifest(&self, height: Height) -> Result<Option<Vec<u8>>, DiskError> {
        let manifest = self.store.manifest(height.get()).map(|manifest| manifest.to_vec());
        if manifest.is_some() {
            self.leases.extend(height.get(), (self.clock_ms)(), ASKED_MS);
        }
        Ok(manifest)
    }

    fn chunk(&self, height: Height, root: &Hash) -> Result<Option<Vec<u8>>, DiskError> {
        match self.store.chunk(&root.0) {
            Ok(chunk) => {
                if chunk.is_some() {
                    self.leases.extend(height.get(), (self.clock_ms)(), ASKED_MS);
                }
                Ok(chunk)
            }
            Err(SnapshotError::Disk(error)) => Err(error),
            Err(_) => match self.store.give_up_with(&root.0) {
                Err(SnapshotError::Disk(error)) => Err(error),
                _ => Ok(None),
            },
        }
    }
}
