//! A state that is lost: the newest own snapshot that the log proves takes its place, and the blocks after it are executed as after any flush. Where the
//! chain's beginning was pruned nothing else leads to it; where it was not, this is quicker than genesis, and needs less of the log to be sound.

use std::sync::Arc;

use lockstep_app::Tree;
use lockstep_app::membership::RECENT_MAX;
use lockstep_app::snapshot::{Manifest, open};
use lockstep_genesis::Genesis;
use lockstep_storage::disk::Disk;
use lockstep_storage::log::LogReader;
use lockstep_storage::results::{Results, make_durable};
use lockstep_storage::snapshots::{SnapshotError, Snapshots, list, read_chunk};
use lockstep_storage::state::{Change, StateDb};
use lockstep_types::light::LightBlock;
use lockstep_types::state_tree::Path;
use lockstep_types::{Hash, Height};

use super::{Home, RecoveryError};
use crate::chain::ChainState;
use crate::light_store::LightStore;
use crate::replica::Restored;
use crate::seam::{ReadAnswer, ReadQuestion};
use crate::source::BlockSource;
use crate::state_sync::chain_after;
use crate::wire::LIGHT_MAX;

/// The folder of snapshots in a home.
pub const SNAPSHOTS_PATH: &str = "snapshots";

/// Bytes of headers that are read at once.
const RUN_READ_BYTES: u64 = 8 << 20;

/// Fills an empty database from an own snapshot: whether there was one that is proven, and that the log leads on from. Headers outlive blocks, so
/// one may be proven and lie below the log, or above what is left of it: of that nothing can be made here.
///
/// # Errors
/// When the disk fails. A snapshot that is damaged, or that nothing proves, is passed over.
pub(super) fn restore(home: &Home<'_>, log: &LogReader, db: &mut StateDb) -> Result<bool, RecoveryError> {
    if !home.keep_results || db.flushed().is_some() {
        return Ok(false);
    }
    let Some((base, tip)) = log.base().zip(log.tip()) else { return Ok(false) };
    let results = Results::open(home.disk.clone(), home.log, &log.segments(), log.tip())?;
    let mut source = BlockSource::new(log.clone()).with_light(Some(results.reader()), LightStore::open(home.disk.clone())?);
    for listed in list(&*home.disk, SNAPSHOTS_PATH).unwrap_or_default().into_iter().rev() {
        if listed.height > tip || listed.height.saturating_add(1) < base {
            continue;
        }
        let Some((chain, tree)) = proven(&home.disk, home.genesis, &mut source, &listed.manifest)? else { continue };
        let entries: Vec<_> = tree.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
        let changes = entries.iter().map(|(path, key, value)| Change { path: path.0, key, value: Some(&value[..]) });
        // Results first: those below the state are not executed again, and a process that was killed, or whose disk failed, may have synced
        // few of them.
        make_durable(&*home.disk, home.log)?;
        db.flush(chain.height.get(), changes, &chain.encode())?;
        return Ok(true);
    }
    Ok(false)
}

/// The chain and the state of a snapshot, if its manifest leads to the root in the header above it, which the log decided, and all
/// chunks are sound.
///
/// # Errors
/// When the disk fails.
pub(super) fn proven(
    disk: &Arc<dyn Disk>,
    genesis: &Genesis,
    source: &mut BlockSource,
    manifest: &[u8],
) -> Result<Option<(ChainState, Tree)>, RecoveryError> {
    let Ok(manifest) = Manifest::from_bytes(manifest) else { return Ok(None) };
    let height = manifest.height();
    if manifest.genesis_hash() != genesis.hash() {
        return Ok(None);
    }
    // Of the block above its header alone: after a rollback the results with its sets are gone, and what it certifies is not.
    let above = source.header(height.next())?;
    let at = headers(source, height, 1)?.pop();
    let (Some(above), Some(at)) = (above, at) else { return Ok(None) };
    if above.app_hash != manifest.app_hash().into() {
        return Ok(None);
    }
    let below = names_below(source, &at)?;
    let mut parts = Vec::with_capacity(manifest.chunks().len());
    for info in manifest.chunks() {
        if info.entries == 0 {
            parts.push(Tree::new().part(info.prefix));
            continue;
        }
        let chunk = read_chunk(&**disk, SNAPSHOTS_PATH, &info.root.0).ok().flatten();
        let Some(part) = chunk.and_then(|chunk| open(info, &chunk).ok()) else { return Ok(None) };
        parts.push(part);
    }
    let Some(tree) = Tree::join(parts) else { return Ok(None) };
    Ok(chain_after(genesis, &tree, &at, &above, &below).ok().map(|chain| (chain, tree)))
}

/// Lets every snapshot go that the decided header above it contradicts, or, of the newest height, what this node has restored: it was made while this
/// node's state was not the chain's. Who asked for it would take this node for a liar. What no header is here for, or none that can be read,
/// is left.
///
/// # Errors
/// When a snapshot cannot be removed.
pub fn give_up_contradicted(store: &Snapshots, source: &mut BlockSource, restored: &Restored) -> Result<Vec<Height>, SnapshotError> {
    let newest = Some(&restored.chain).filter(|_| restored.doubt.is_none());
    let mut given_up = Vec::new();
    for height in store.heights().into_iter().filter_map(Height::new) {
        let root = store.manifest(height.get()).and_then(|bytes| Manifest::from_bytes(&bytes).ok()).map(|manifest| manifest.app_hash());
        let right = match newest.filter(|chain| chain.height == height) {
            Some(chain) => Some(chain.app_hash.clone()),
            None => headers(source, height.next(), 1).ok().and_then(|mut found| found.pop()).map(|above| above.header.app_hash),
        };
        if let (Some(root), Some(right)) = (root, right)
            && right != root.into()
        {
            store.give_up(height.get())?;
            given_up.push(height);
        }
    }
    Ok(given_up)
}

/// The names of the blocks below this one, upwards, as far as they are known without a gap.
fn names_below(source: &mut BlockSource, at: &LightBlock) -> Result<Vec<(Height, Hash)>, RecoveryError> {
    let mut names: Vec<(Height, Hash)> = Vec::new();
    let mut next = at.header.height.previous();
    while names.len() < RECENT_MAX && next > Height::ZERO {
        let Some(name) = source.name(next)? else { break };
        names.push((next, name));
        next = next.previous();
    }
    names.reverse();
    Ok(names)
}

/// At most so many headers from a height downwards: those that are here.
fn headers(source: &mut BlockSource, from: Height, most: usize) -> Result<Vec<LightBlock>, RecoveryError> {
    let mut found: Vec<LightBlock> = Vec::new();
    let mut next = from;
    while found.len() < most && next > Height::ZERO {
        let count = u32::try_from((most - found.len()).min(LIGHT_MAX)).expect("few");
        let ReadAnswer::Light(run) =
            source.read(&ReadQuestion::Light { from: next, count, bytes_max: RUN_READ_BYTES, tip: Height::ZERO })?
        else {
            break;
        };
        let Some(last) = run.last() else { break };
        next = last.header.height.previous();
        found.extend(run);
    }
    Ok(found)
}
