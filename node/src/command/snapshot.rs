//! `lockstep snapshot list`, `export` and `restore`: snapshots as files that a person carries.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::Tree;
use lockstep_app::membership::RECENT_MAX;
use lockstep_app::snapshot::{MANIFEST_BYTES_MAX, Manifest, PACKED_BYTES_MAX};
use lockstep_genesis::Genesis;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::recovery::{RecoveryError, decided};
use lockstep_replica::results::kept_block;
use lockstep_replica::seam::{ReadAnswer, ReadQuestion};
use lockstep_replica::source::BlockSource;
use lockstep_replica::state_sync::{Found, Staging, Task, rehearse};
use lockstep_storage::disk::Disk;
use lockstep_storage::snapshots::{Listed, list as list_snapshots, read_chunk};
use lockstep_storage::{log, results};
use lockstep_sync::light::is_below;
use lockstep_sync::state::{Check, Checked, HEADERS_MAX};
use lockstep_types::block::BODY_BYTES_MAX;
use lockstep_types::crypto::verify_batch;
use lockstep_types::light::LightBlock;
use lockstep_types::{Header, Height, codec};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::replay::damaged;
use super::{home_of, say, shell_word};
use crate::cli::{ExportArgs, ListSnapshotsArgs, RestoreArgs};
use crate::error::{Exit, NodeError};
use crate::home::{LOG_PATH, SNAPSHOTS_PATH, io_error};
use crate::shell::OnCores;

/// First bytes of an exported snapshot: a name and a version.
const MAGIC: [u8; 8] = *b"LSEXP\0\0\x01";
/// Of these, the name.
const NAME_BYTES: usize = 5;
/// Whether a file begins as an exported snapshot, of whatever version.
pub(super) fn is_export(path: &Path) -> bool {
    let mut name = [0; NAME_BYTES];
    File::open(path).and_then(|mut file| file.read_exact(&mut name)).is_ok() && MAGIC.starts_with(&name)
}

/// Most bytes of a run of headers.
const RUN_BYTES_MAX: usize = 32 << 20;
/// Bytes of headers that are read at once.
const RUN_READ_BYTES: u64 = 8 << 20;

/// What to do about an exported snapshot that is not whole.
const COPY_AGAIN: &str = "copy it again from where it came, or export it again";

fn failed(error: impl std::fmt::Display) -> NodeError {
    NodeError::new(Exit::Failed, error.to_string())
}

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
    let mut file = Sections::create(path)?;
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
    let taken = home.restoring_disk().and_then(|disk| take_in(args, &genesis, Arc::new(disk)));
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

/// What was taken in of an exported snapshot.
struct Taken {
    height: Height,
    manifest: Manifest,
    /// The lowest header.
    lowest: Height,
    /// Whether headers go back to the chain's beginning, or as far as evidence may.
    reaches: bool,
}

/// Verifies a file and puts what is in it onto a disk that has nothing yet.
fn take_in(args: &RestoreArgs, genesis: &Genesis, disk: Arc<dyn Disk>) -> Result<Taken, NodeError> {
    let path = &args.file;
    let refused = |what: String| NodeError::new(Exit::Refused, format!("{}: {what}", path.display()));
    let bad = |error: &dyn std::fmt::Display| refused(format!("it is no exported snapshot, or a damaged one: {error}")).next(COPY_AGAIN);
    let mut file = Sections::open(path)?;
    let manifest_bytes = file.take(MANIFEST_BYTES_MAX)?;
    let manifest = Manifest::from_bytes(&manifest_bytes).map_err(|error| bad(&error))?;
    let above: LightBlock = codec::decode(1, &file.take(RUN_BYTES_MAX)?, RUN_BYTES_MAX).map_err(|error| bad(&error))?;
    let at: LightBlock = codec::decode(1, &file.take(RUN_BYTES_MAX)?, RUN_BYTES_MAX).map_err(|error| bad(&error))?;
    if manifest.genesis_hash() != genesis.hash() || above.header.chain_id != genesis.chain_id {
        return Err(refused("it is of another chain than this home".to_owned()));
    }
    if above.header.hash() != args.trust_hash {
        return Err(NodeError::new(
            Exit::Unproven,
            format!("the header of height {} in {} has hash {}", above.header.height, path.display(), above.header.hash()),
        )
        .means("it is not the one that you trust: this snapshot is of another chain or made up")
        .next(format!(
            "ask a node that you trust for the header of height {0} (curl 'http://NODE:26657/header?height={0}') or its operator, and compare",
            above.header.height
        )));
    }
    // From the trusted header everything follows by hashes.
    if above.validators.hash() != above.header.validators_hash || above.next_validators.hash() != above.header.next_validators_hash {
        return Err(bad(&"its validators are others than the trusted header names"));
    }
    // Its own commit is in no header that is here: two thirds of its validators signed it, or it is not the commit of this block.
    let commit = above.commit.clone();
    let signed = commit.block_id.hash == above.header.hash() && commit.height == above.header.height;
    let signed =
        signed && commit.claim(&genesis.chain_id, &above.validators).is_ok_and(|claim| verify_batch(claim.checks()).iter().all(|ok| *ok));
    if !signed {
        return Err(bad(&"the commit of the trusted header is not one that its validators signed"));
    }
    let follows = |newer: &Header, block: &LightBlock| match is_below(newer, block) {
        Ok(check) if verify_batch(std::slice::from_ref(&check)) == [true] => Ok(()),
        Ok(_) => Err(bad(&format!("the commit of height {} is of another round than was signed", block.header.height))),
        Err(error) => Err(bad(&error)),
    };
    follows(&above.header, &at)?;
    let nothing = Tree::new();
    let mut staging = Staging::open(disk, genesis.hash()).map_err(failed)?;
    let mut perform = |check: Check| match staging.perform(Task::Check(check), &nothing).map_err(failed)? {
        Found::Checked(Checked::Bad(error) | Checked::ManifestLies(error)) => Err(bad(&error)),
        Found::Checked(Checked::Unfit) => Err(bad(&"a chunk does not fit")),
        Found::Checked(_) | Found::Looked(_) => Ok(()),
    };
    let height = at.header.height;
    let mut newer = at.header.clone();
    perform(Check::Manifest { bytes: manifest_bytes.to_vec().into(), above: Box::new(above), at: Box::new(at) })?;
    perform(Check::Body(file.take(BODY_BYTES_MAX)?.to_vec().into()))?;
    loop {
        let bytes = file.take(RUN_BYTES_MAX)?;
        if bytes.is_empty() {
            break;
        }
        let run: Vec<LightBlock> = codec::decode(1, &bytes, RUN_BYTES_MAX).map_err(|error| bad(&error))?;
        if run.is_empty() {
            return Err(bad(&"a run of headers is empty"));
        }
        for block in &run {
            follows(&newer, block)?;
            newer = block.header.clone();
        }
        perform(Check::Headers(run))?;
    }
    say(format!("{} entries in {} chunks, each of which is verified …", manifest.entries(), manifest.chunks().len()));
    for (index, info) in manifest.chunks().iter().enumerate() {
        if info.entries > 0 {
            let index = u32::try_from(index).expect("chunks are few");
            perform(Check::Chunk { index, bytes: file.take(PACKED_BYTES_MAX)?.to_vec().into(), is_whole: true })?;
        }
    }
    // What nothing here reads, nothing here has verified.
    file.ends()?;
    // The first start finds out the same. By then whoever could get a whole file may be gone.
    let chain = rehearse(&staging, genesis, &OnCores).map_err(failed)?.map_err(|reason| {
        refused(format!("what is in it is proven, and a node cannot begin with it: {reason}"))
            .means("headers are missing that lie below the snapshot, or the program that made it is another version")
            .next(COPY_AGAIN)
    })?;
    staging.perform(Task::Check(Check::Complete), &nothing).map_err(failed)?;
    let evidence = &chain.params.evidence;
    let lowest = newer.height;
    let has_expired = height.get() - lowest.get() > evidence.max_age_num_blocks
        && chain.last_time.since(newer.time).as_nanos() > u128::from(evidence.max_age_duration_ns);
    Ok(Taken { height, manifest, lowest, reaches: lowest <= genesis.initial_height() || has_expired })
}

/// Byte strings behind their lengths.
struct Sections<F> {
    file: F,
    path: PathBuf,
}

/// A file that is being written, under another name until it is whole. One that is not finished is removed.
struct Draft {
    file: BufWriter<File>,
    path: PathBuf,
    is_whole: bool,
}

impl Draft {
    /// The name of a draft of a file.
    fn path_of(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        name.into()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_whole {
            // What failed before is told; that this is left over is not worth hiding it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Sections<Draft> {
    fn create(path: &Path) -> Result<Self, NodeError> {
        if path.symlink_metadata().is_ok() {
            return Err(NodeError::new(Exit::Refused, format!("{} is there already, and is not overwritten", path.display()))
                .next("name another file with --output"));
        }
        let draft = Draft::path_of(path);
        let file = File::create_new(&draft).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => NodeError::new(Exit::Refused, format!("{} is there already", draft.display()))
                .means("another export to the same file runs, or one was interrupted and left it")
                .next("wait for that one; or remove what was left, or name another file with --output"),
            _ => io_error("create", &draft, &error),
        })?;
        let mut sections = Self { file: Draft { file: BufWriter::new(file), path: draft, is_whole: false }, path: path.to_owned() };
        sections.write(&MAGIC)?;
        Ok(sections)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), NodeError> {
        self.file.file.write_all(bytes).map_err(|error| io_error("write", &self.path, &error))
    }

    fn put(&mut self, section: &[u8]) -> Result<(), NodeError> {
        self.write(&u32::try_from(section.len()).expect("sections are short").to_le_bytes())?;
        self.write(section)
    }

    /// Gives the file its name.
    fn finish(mut self) -> Result<(), NodeError> {
        let written = self.file.file.flush().and_then(|()| self.file.file.get_ref().sync_all());
        let named = written.and_then(|()| rename_to_new(&self.file.path, &self.path));
        self.file.is_whole = named.is_ok();
        named.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                NodeError::new(Exit::Refused, format!("{} appeared while this ran, and is not overwritten", self.path.display()))
                    .next("name another file with --output")
            }
            _ => io_error("write", &self.path, &error),
        })
    }
}

/// Renames a file to a name that nothing has.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can. That nothing had the name was seen when the file was begun.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

impl Sections<BufReader<File>> {
    fn open(path: &Path) -> Result<Self, NodeError> {
        let file = File::open(path).map_err(|error| io_error("open", path, &error))?;
        let mut sections = Self { file: BufReader::new(file), path: path.to_owned() };
        let mut magic = [0; MAGIC.len()];
        let read = sections.file.read_exact(&mut magic);
        let refused = |what: &str| NodeError::new(Exit::Refused, format!("{} is {what}", path.display()));
        match read {
            Ok(()) if magic == MAGIC => Ok(sections),
            Ok(()) if MAGIC.starts_with(&magic[..NAME_BYTES]) => Err(refused("an exported snapshot of another version of this program")
                .next("restore it with the program that made it, or a newer one")),
            Ok(()) if magic[0] == b'{' => Err(refused("no exported snapshot; perhaps it is a join bundle")
                .next(format!("lockstep start --bundle {}   begins with a bundle", shell_word(path.display())))),
            _ => Err(refused("no exported snapshot").next("one is made by lockstep snapshot export")),
        }
    }

    /// Nothing comes any more.
    fn ends(&mut self) -> Result<(), NodeError> {
        let rest = self.file.fill_buf().map_err(|error| io_error("read", &self.path, &error))?;
        if rest.is_empty() {
            return Ok(());
        }
        Err(NodeError::new(Exit::Refused, format!("{} goes on behind its last chunk", self.path.display()))
            .means("what is there was not written by lockstep snapshot export, and nothing proves it")
            .next(COPY_AGAIN))
    }

    /// The next section, if it has at most so many bytes.
    fn take(&mut self, max: usize) -> Result<Bytes, NodeError> {
        let refused = |what: &str| NodeError::new(Exit::Refused, format!("{} {what}", self.path.display())).next(COPY_AGAIN);
        let ends = |_| refused("ends early: it was cut, or is still being copied");
        let mut len = [0; 4];
        self.file.read_exact(&mut len).map_err(ends)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > max {
            return Err(refused(&format!("is damaged: a part of {len} bytes")));
        }
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(len as u64).read_to_end(&mut bytes).map_err(|error| io_error("read", &self.path, &error))?;
        if read == len { Ok(bytes.into()) } else { Err(ends(std::io::ErrorKind::UnexpectedEof.into())) }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAGIC, Sections};

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_leaves_nothing_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.snapshot");
        let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
        let mut broken_off = Sections::create(&path).expect("a file");
        broken_off.put(b"chunk").expect("there is room");
        assert!(!path.exists(), "not whole");
        drop(broken_off);
        assert_eq!(names(), 0);
        let mut whole = Sections::create(&path).expect("a file");
        whole.put(b"chunk").expect("there is room");
        whole.finish().expect("there is room");
        assert_eq!(std::fs::read(&path).expect("it is there"), [&MAGIC[..], &5_u32.to_le_bytes(), b"chunk"].concat());
        assert_eq!(names(), 1);
        assert!(Sections::create(&path).is_err(), "nothing is overwritten");
        // Nor what got the name meanwhile, nor what an export before left.
        let (other, left) = (folder.path().join("other"), folder.path().join("left"));
        let late = Sections::create(&other).expect("a file");
        std::fs::write(&other, "mine").expect("there is room");
        assert!(late.finish().is_err());
        assert_eq!(std::fs::read(&other).expect("it is there"), b"mine");
        std::fs::write(folder.path().join("left.partial"), "").expect("there is room");
        let error = Sections::create(&left).err().expect("another's draft");
        assert!(format!("{error}").contains("left.partial is there already"), "{error}");
    }
}
