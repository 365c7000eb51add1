//! `lockstep snapshot list`, `export` and `restore`: snapshots as files that a person carries.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use lockstep_app::membership::RECENT_MAX;
use lockstep_app::snapshot::Manifest;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::recovery::{RecoveryError, decided};
use lockstep_replica::results::kept_block;
use lockstep_replica::seam::{ReadAnswer, ReadQuestion};
use lockstep_replica::source::BlockSource;
use lockstep_storage::disk::Disk;
use lockstep_storage::snapshots::{Listed, list as list_snapshots, read_chunk};
use lockstep_storage::{log, results};
use lockstep_sync::state::HEADERS_MAX;
use lockstep_types::{Height, codec};

use super::replay::damaged;
use super::{home_of, say, shell_word};
use crate::cli::{ExportArgs, ListSnapshotsArgs, RestoreArgs};
use crate::error::{Exit, NodeError};
use crate::exported::{Export, Sections, Taken, failed};
use crate::home::{LOG_PATH, SNAPSHOTS_PATH, io_error};
use crate::shell::OnCores;

/// Bytes of headers that are read at once.
const RUN_READ_BYTES: u64 = 8 << 20;

fn listed(disk: &dyn Disk) -> Result<Vec<(Listed, Manifest)>, NodeError> {
    let found = list_snapshots(disk, SNAPSHOTS_PATH).map_err(failed)?;
    Ok(found.into_iter().filter_map(|listed| Manifest::from_bytes(&listed.manifest).ok().map(|manifest| (listed, manifest))).collect())
}

/// `lockstep snapshot list`
pub(super) fn list(args: &ListSnapshotsArgs) -> Result<(), NodeError> {
    let home = home_of(&args.home)?;
    home.check_exists()?;
    let found = listed(&home.data_disk_to_read()?)?;
    if args.json {
        let rows: Vec<serde_json::Value> = found
            .iter()
            .map(|(listed, manifest)| {
                serde_json::json!({
                    "height": listed.height, "app_hash": manifest.app_hash().to_string(), "entries": manifest.entries(),
                    "bytes": manifest.bytes(), "chunks": manifest.chunks().len(), "disk_bytes": listed.bytes,
                    "manifest_hash": manifest.hash().to_string(),
                })
            })
            .collect();
        say(serde_json::Value::Array(rows));
        return Ok(());
    }
    if found.is_empty() {
        say("no snapshot so far: one is made at every checkpoint, by the interval in genesis or by lockstep snapshot create");
        return Ok(());
    }
    say(format!("{:>12} {:>12} {:>15} {:>7} {:>15}  root of the state", "height", "entries", "bytes", "chunks", "on the disk"));
    for (listed, manifest) in found {
        say(format!(
            "{:>12} {:>12} {:>15} {:>7} {:>15}  {}",
            listed.height,
            manifest.entries(),
            manifest.bytes(),
            manifest.chunks().len(),
            listed.bytes,
            manifest.app_hash()
        ));
    }
    Ok(())
}

/// `lockstep snapshot export`
pub(super) fn export(args: &ExportArgs) -> Result<(), NodeError> {
    let home = home_of(&args.home)?;
    home.check_exists()?;
    // The block log has one process.
    let _held = home.hold_to_read()?;
    let genesis = home.read_genesis()?;
    let disk: Arc<dyn Disk> = Arc::new(home.data_disk_to_read()?);
    let found = listed(&*disk)?;
    let wanted = args.height.map(Height::get);
    let home_word = shell_word(home.root().display());
    if found.is_empty() {
        return Err(NodeError::new(Exit::Refused, "this home has no snapshot so far").next(format!(
            "start the node and have one made:  lockstep snapshot create --home {home_word}   or wait for the next checkpoint"
        )));
    }
    let chosen = found.into_iter().rfind(|(listed, _)| wanted.is_none_or(|height| listed.height == height));
    let Some((_, manifest)) = chosen else {
        return Err(NodeError::new(Exit::Refused, "there is no snapshot of that height in this home")
            .next(format!("lockstep snapshot list --home {home_word} shows those that are there")));
    };
    let height = manifest.height();
    let not_proven = || {
        NodeError::new(Exit::Refused, format!("the blocks after height {height}, which prove the snapshot, are not here"))
            .means("a snapshot is exported with its block, the two headers that prove it, and those below it")
            .next("start the node: once it has decided two blocks more they are there, if this is its newest snapshot; or export from another node")
    };
    let met = |error: RecoveryError| damaged(&disk, &error);
    let reader = log::look(&disk, LOG_PATH).map_err(|error| met(error.into()))?.ok_or_else(not_proven)?;
    let results = results::look(&*disk, LOG_PATH).map_err(|error| met(error.into()))?;
    let light = LightStore::open(disk.clone()).map_err(failed)?;
    let mut source = BlockSource::new(reader.clone()).with_light(Some(results.clone()), light);
    let mut headers =
        |from: Height| match source.read(&ReadQuestion::Light { from, count: HEADERS_MAX, bytes_max: RUN_READ_BYTES, tip: Height::ZERO }) {
            Ok(ReadAnswer::Light(blocks)) => Ok(blocks),
            Ok(_) => Ok(Vec::new()),
            Err(error) => Err(met(error)),
        };
    let mut top = headers(height.next())?.into_iter();
    let (Some(above), Some(at)) = (top.next(), top.next().or(headers(height)?.into_iter().next())) else { return Err(not_proven()) };
    let (_, _, body, _) = decided(&reader, height).map_err(|error| match error {
        RecoveryError::Hole { .. } => not_proven(),
        error => met(error),
    })?;

    let path = &args.output;
    let unusable = |what: String| {
        NodeError::new(Exit::Failed, what)
            .means(format!("the disk lost a part of the snapshot of height {height}; nothing is left at {}", path.display()))
            .next(format!(
                "start the node and make a new one, which writes anew what is damaged:  lockstep snapshot create --home {home_word}   or export \
                 from another node of the chain"
            ))
    };
    let mut file = Export::create(path)?;
    file.put(&manifest.to_bytes())?;
    file.put(&codec::encode(1, &above))?;
    file.put(&codec::encode(1, &at))?;
    file.put(&body)?;
    // What a restored node must know of the past: the names of recent blocks, and everything that evidence may be about.
    // The parameters are those that the chain has by now.
    let kept = results.results(height.get()).map_err(failed)?.and_then(|results| kept_block(&results).ok());
    let params = kept.map_or_else(|| genesis.consensus_params.evidence.clone(), |kept| kept.params.evidence);
    let window = i128::from(params.max_age_duration_ns);
    let is_enough = |count: usize, age: i128| count > RECENT_MAX && count as u64 > params.max_age_num_blocks && age > window;
    let (mut next, mut count) = (height.previous(), 0usize);
    while next > Height::ZERO {
        let run = headers(next)?;
        let Some(last) = run.last() else { break };
        count += run.len();
        let age = at.header.time.unix_nanos() - last.header.time.unix_nanos();
        next = last.header.height.previous();
        file.put(&codec::encode(1, &run))?;
        if is_enough(count, age) {
            break;
        }
    }
    file.put(&[])?;
    for info in manifest.chunks().iter().filter(|info| info.entries > 0) {
        let chunk = read_chunk(&*disk, SNAPSHOTS_PATH, &info.root.0).map_err(|error| unusable(error.to_string()))?;
        file.put(&chunk.ok_or_else(|| unusable(format!("chunk {} is gone", info.root)))?)?;
    }
    file.finish()?;
    say(format!(
        "{}: the state after height {height} with {} entries, its proof, and {count} headers below it\n\nIn the home of a node without blocks:\n  \
         lockstep snapshot restore {} --trust-hash {} --home <DIR>",
        path.display(),
        manifest.entries(),
        shell_word(path.display()),
        above.header.hash()
    ));

    Ok(())
}

/// `lockstep snapshot restore`
pub(super) fn restore(args: &RestoreArgs) -> Result<(), NodeError> {
    let home = home_of(&args.home)?;
    home.check_exists()?;
    let _held = home.hold()?;
    let genesis = home.read_genesis()?;
    let disk: Arc<dyn Disk> = Arc::new(home.data_disk()?);
    let log = log::look(&disk, LOG_PATH).map_err(|error| damaged(&disk, &error.into()))?;
    if let Some(tip) = log.and_then(|log| log.tip()) {
        return Err(NodeError::new(
            Exit::Refused,
            format!("this home has blocks already, up to height {tip}: a snapshot is restored into one without"),
        )
        .next("make a new one: lockstep init --genesis FILE --home DIR, or let the node catch up from its peers"));
    }
    // In a place of its own: whatever is wrong with this file, what was restored before is still there.
    let path = &args.file;
    let file = || File::open(path).map(BufReader::new).map_err(|error| io_error("open", path, &error));
    let tell = |manifest: &Manifest| {
        say(format!("{} entries in {} chunks, each of which is verified …", manifest.entries(), manifest.chunks().len()));
    };
    let taken = file().and_then(|file| {
        let sections = Sections::open(file, path)?;
        sections.take_in(&args.trust_hash, &genesis, Arc::new(home.restoring_disk()?), &OnCores, tell)
    });
    let Taken { height, manifest, lowest, reaches } = match taken {
        Ok(taken) => taken,
        Err(error) => {
            // The first error is the one worth telling; the next restore or start removes what is left.
            let _ = home.forget_restoring();
            return Err(error);
        }
    };
    home.keep_restored()?;
    say(format!(
        "the state after height {height} is verified and lies in this home, with {} entries and {} headers below it; the node begins with it:\n  \
         lockstep start --home {}",
        manifest.entries(),
        height.get() - lowest.get(),
        shell_word(home.root().display())
    ));
    if !reaches {
        say(format!(
            "\nThe headers reach down to height {lowest} only. Evidence about blocks below that has not expired yet cannot be judged by this node, which \
             then goes by what two thirds of the others decide. An export of a node that keeps more has them."
        ));
    }
    Ok(())
}
