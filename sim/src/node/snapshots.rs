//! What a simulated node does with checkpoints: it makes snapshots, reads them back, and lets blocks go.

use std::cell::RefCell;
use std::collections::BTreeMap;

use lockstep_app::snapshot::{ChunkInfo, Manifest, open};
use lockstep_app::tree::Part;
use lockstep_app::{State, Tree};
use lockstep_replica::recovery::RecoveryError;
use lockstep_replica::retention::{Needs, Pruning, Retention};
use lockstep_replica::snapshots::{keep_newest, make};
use lockstep_storage::results::Results;
use lockstep_storage::snapshots::Snapshots;
use lockstep_types::{Hash, Height};

use super::Running;

impl Running {
    /// Makes the snapshot of a state, that of a checkpoint, and lets older ones go: whether it is there now. One that cannot be made
    /// is none.
    pub(crate) fn make_snapshot(&self, genesis_hash: Hash, state: &State, keep: usize, now_ms: u64) -> bool {
        let Some(store) = &self.snapshots else { return false };
        let is_made = make(store, genesis_hash, state, |_| true).is_ok();
        if is_made {
            let _ = keep_newest(store, keep, self.told.height, &self.leases, now_ms);
        }
        is_made
    }

    /// The height and the root of each snapshot, as they lie on the disk; those that cannot be read are left out.
    pub(crate) fn snapshots_read_back(&self, known: &SnapshotRoots) -> Vec<(u64, Hash)> {
        let Some(store) = &self.snapshots else { return Vec::new() };
        store.heights().into_iter().filter_map(|height| Some((height, known.of(store, Height::new(height)?)?))).collect()
    }

    /// Lets old blocks go, as the shell does now and then. An error is one after which the node stops.
    pub(crate) fn prune(&mut self, keep_blocks: u64, flushed: Height) -> Result<(), String> {
        let Some(store) = &self.snapshots else { return Ok(()) };
        let chain = &self.told;
        let needs = Needs {
            tip: chain.height,
            tip_time: chain.last_time,
            flushed,
            oldest_snapshot: store.heights().first().copied().and_then(Height::new),
            names: chain.standing.recent.len() as u64,
            evidence: chain.params.evidence.clone(),
        };
        let retention = Retention { keep_blocks };
        let results = self.results.as_ref().map(Results::reader);
        let mut pruning = Pruning::new(self.log.pruner(), self.reader.clone(), results, self.light.clone());
        let failed = |error: RecoveryError| if error.is_of_disk() { Err(error.to_string()) } else { Ok(()) };
        loop {
            match retention.prune_one(&mut pruning, &needs) {
                Ok(Some(oldest)) => {
                    if let Some(results) = &mut self.results {
                        let _ = results.remove(&[oldest.first_sequence]);
                    }
                }
                Ok(None) => break,
                Err(error) => return failed(error),
            }
        }
        loop {
            match retention.expire_one(&pruning, &needs) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(error) => return failed(error),
            }
        }
    }
}

/// Roots of snapshots, by the bytes of manifest and chunks: all nodes have the same ones, and each is read again and again.
#[derive(Default)]
pub(crate) struct SnapshotRoots(RefCell<BTreeMap<Hash, Option<Hash>>>);

impl SnapshotRoots {
    /// The root of a snapshot as it lies on the disk; nothing where the disk fails.
    fn of(&self, store: &Snapshots, height: Height) -> Option<Hash> {
        let bytes = store.manifest(height.get())?;
        let manifest = Manifest::from_bytes(&bytes).ok()?;
        let has_entries = |info: &&ChunkInfo| info.entries > 0;
        let chunks = manifest.chunks().iter().filter(has_entries).map(|info| store.chunk(&info.root.0).ok()?);
        let chunks: Vec<Vec<u8>> = chunks.collect::<Option<_>>()?;
        // The manifest says how many chunks there are, and the hash of each says where it ends.
        let mut name = Hash::of(&bytes);
        chunks.iter().for_each(|chunk| name = Hash::of_parts(&[&name.0, &Hash::of(chunk).0]));
        *self.0.borrow_mut().entry(name).or_insert_with(|| joined(&manifest, chunks))
    }
}

/// The root of the state in these chunks: those of the manifest that have entries.
fn joined(manifest: &Manifest, chunks: Vec<Vec<u8>>) -> Option<Hash> {
    let mut chunks = chunks.iter();
    let part = |info: &ChunkInfo| match info.entries {
        0 => Some(Tree::new().part(info.prefix)),
        _ => open(info, chunks.next()?).ok(),
    };
    let parts: Vec<Part> = manifest.chunks().iter().map(part).collect::<Option<_>>()?;
    Some(Tree::join(parts)?.root())
}
