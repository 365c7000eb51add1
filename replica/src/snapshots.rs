//! Making a snapshot of a checkpoint, beside everything else.
//!
//! The state after a checkpoint is a version of the tree in memory, which stays what it is while blocks go on: a clone of one
//! pointer. So nothing waits for a snapshot, and no database is read for it (decision record 16). [`make`] walks over that version, writes the chunks
//! that no snapshot has yet, rests after each as long as its caller says, and gives the snapshot its name when all are there.
//!
//! Anything that goes wrong costs this snapshot and nothing else. The next checkpoint makes another.

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
        if !store.has(&info.root.0) {
            let packed = pack(&state.tree().part(info.prefix));
            if store.put(&info.root.0, &packed)? {
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

/// The snapshots of a node, as peers are served from them. A chunk that is found damaged takes its snapshots with it.
pub struct Stored(pub Store);

impl Snapshots for Stored {
    fn heights(&self) -> Result<Vec<Height>, DiskError> {
        Ok(self.0.heights().into_iter().filter_map(Height::new).collect())
    }

    fn manifest(&self, height: Height) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.0.manifest(height.get()).map(|manifest| manifest.to_vec()))
    }

    fn chunk(&self, _: Height, root: &Hash) -> Result<Option<Vec<u8>>, DiskError> {
        match self.0.chunk(&root.0) {
            Ok(chunk) => Ok(chunk),
            Err(SnapshotError::Disk(error)) => Err(error),
            Err(_) => match self.0.give_up_with(&root.0) {
                Err(SnapshotError::Disk(error)) => Err(error),
                _ => Ok(None),
            },
        }
    }
}
