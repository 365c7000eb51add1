//! The file of an exported snapshot: written by one node, carried by a person, and believed by nobody.
//!
//! A name and a version, and then byte strings behind their lengths: the manifest, the two headers that prove it with the block of its
//! height, runs of headers below, an empty one, and the chunks. `docs/format-snapshot.md` has it byte by byte.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufWriter, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::Tree;
use lockstep_app::snapshot::{MANIFEST_BYTES_MAX, Manifest, PACKED_BYTES_MAX};
use lockstep_genesis::Genesis;
use lockstep_replica::state_sync::{Found, Staging, Task, rehearse};
use lockstep_storage::disk::Disk;
use lockstep_storage::spread::Spread;
use lockstep_sync::light::is_below;
use lockstep_sync::state::{Check, Checked};
use lockstep_types::block::BODY_BYTES_MAX;
use lockstep_types::crypto::verify_batch;
use lockstep_types::light::LightBlock;
use lockstep_types::{Hash, Header, Height, codec};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::command::shell_word;
use crate::error::{Exit, NodeError};
use crate::home::io_error;

/// First bytes of an exported snapshot: a name and a version.
const MAGIC: [u8; 8] = *b"LSEXP\0\0\x01";
/// Of these, the name.
const NAME_BYTES: usize = 5;
/// Most bytes of a run of headers.
const RUN_BYTES_MAX: usize = 32 << 20;
/// What to do about an exported snapshot that is not whole.
const COPY_AGAIN: &str = "copy it again from where it came, or export it again";

/// Whether a file begins as an exported snapshot, of whatever version.
pub(crate) fn is_export(path: &Path) -> bool {
    let mut name = [0; NAME_BYTES];
    File::open(path).and_then(|mut file| file.read_exact(&mut name)).is_ok() && MAGIC.starts_with(&name)
}

pub(crate) fn failed(error: impl std::fmt::Display) -> NodeError {
    NodeError::new(Exit::Failed, error.to_string())
}

/// An export that is being written, under another name until it is whole. One that is not finished is removed.
pub(crate) struct Export {
    file: BufWriter<File>,
    draft: PathBuf,
    path: PathBuf,
    is_whole: bool,
}

impl Export {
    /// Begins one that is to have this name.
    ///
    /// # Errors
    /// When something has it, when another writes its draft, when the folder cannot be written to.
    pub(crate) fn create(path: &Path) -> Result<Self, NodeError> {
        if path.symlink_metadata().is_ok() {
            return Err(NodeError::new(Exit::Refused, format!("{} is there already, and is not overwritten", path.display()))
                .next("name another file with --output"));
        }
        let draft = draft_of(path);
        let file = begin_draft(&draft)?;
        let mut export = Self { file: BufWriter::new(file), draft, path: path.to_owned(), is_whole: false };
        export.write(&MAGIC)?;
        Ok(export)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), NodeError> {
        self.file.write_all(bytes).map_err(|error| io_error("write", &self.path, &error))
    }

    /// Writes the next section.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub(crate) fn put(&mut self, section: &[u8]) -> Result<(), NodeError> {
        self.write(&u32::try_from(section.len()).expect("sections are short").to_le_bytes())?;
        self.write(section)
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// When the disk fails or is full, or something got the name meanwhile.
    pub(crate) fn finish(mut self) -> Result<(), NodeError> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        let named = written.and_then(|()| rename_to_new(&self.draft, &self.path));
        self.is_whole = named.is_ok();
        named.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                NodeError::new(Exit::Refused, format!("{} appeared while this ran, and is not overwritten", self.path.display()))
                    .next("name another file with --output")
            }
            _ => io_error("write", &self.path, &error),
        })
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if !self.is_whole {
            // What failed before is told; that this is left over is not worth hiding it.
            let _ = fs::remove_file(&self.draft);
        }
    }
}

/// Takes the draft of an export for this process: a new one, or what an export left that was interrupted.
fn begin_draft(draft: &Path) -> Result<File, NodeError> {
    let refused = |what: &str| NodeError::new(Exit::Refused, format!("{} {what}", draft.display()));
    let another = "name another file with --output";
    let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::LOOP) => refused("is a link, which is not followed").next(another),
        _ => io_error("create", draft, &error),
    };
    // A link is not followed, and a pipe not waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    loop {
        let mut file = File::options().read(true).write(true).create(true).custom_flags(flags).open(draft).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let mut begins = Vec::new();
        if found.is_file() {
            io::Read::by_ref(&mut file).take(MAGIC.len() as u64).read_to_end(&mut begins).map_err(failed)?;
        }
        if !found.is_file() || !MAGIC.starts_with(&begins) {
            return Err(refused("is there already, and is no export that was interrupted").next(another));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(NodeError::new(Exit::InUse, format!("another export writes {}", draft.display()))
                    .next(format!("wait for that one, or {another}")));
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", draft, &error)),
        }
        // Whoever held it before may have given it its name, or removed it, between the two.
        if draft.symlink_metadata().is_ok_and(|named| (named.dev(), named.ino()) == (found.dev(), found.ino())) {
            file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
            return Ok(file);
        }
    }
}

/// The name of a draft of a file.
fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Renames a file to a name that nothing has.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can. That nothing had the name was seen when the file was begun.
        Err(Errno::INVAL | Errno::NOSYS) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// What was taken in of an exported snapshot.
#[derive(Debug)]
pub struct Taken {
    /// Its height.
    pub height: Height,
    /// Of the state.
    pub manifest: Manifest,
    /// The lowest header.
    pub lowest: Height,
    /// Whether headers go back to the chain's beginning, or as far as evidence may.
    pub reaches: bool,
}

/// An export that is read: byte strings behind their lengths.
pub struct Sections<R> {
    file: R,
    path: PathBuf,
}

impl<R: BufRead> Sections<R> {
    /// The sections of what is called `path` for people.
    ///
    /// # Errors
    /// When it does not begin as an exported snapshot of this version.
    pub fn open(mut file: R, path: &Path) -> Result<Self, NodeError> {
        let mut magic = [0; MAGIC.len()];
        let read = file.read_exact(&mut magic);
        let refused = |what: &str| NodeError::new(Exit::Refused, format!("{} is {what}", path.display()));
        match read {
            Ok(()) if magic == MAGIC => Ok(Self { file, path: path.to_owned() }),
            Ok(()) if MAGIC.starts_with(&magic[..NAME_BYTES]) => Err(refused("an exported snapshot of another version of this program")
                .next("restore it with the program that made it, or a newer one")),
            Ok(()) if magic[0] == b'{' => Err(refused("no exported snapshot; perhaps it is a join bundle")
                .next(format!("lockstep start --bundle {}   begins with a bundle", shell_word(path.display())))),
            _ => Err(refused("no exported snapshot").next("one is made by lockstep snapshot export")),
        }
    }

    /// Verifies what comes, from a header that is trusted on, and puts it onto a disk that has nothing yet.
    ///
    /// `tell` is told what comes, once that is proven.
    ///
    /// # Errors
    /// When it is no whole snapshot of this chain that the trusted header proves and that a node can begin with; when the disk fails.
    pub fn take_in(
        mut self,
        trust_hash: &Hash,
        genesis: &Genesis,
        disk: Arc<dyn Disk>,
        spread: &dyn Spread,
        tell: impl FnOnce(&Manifest),
    ) -> Result<Taken, NodeError> {
        let path = self.path.clone();
        let file = &mut self;
        let refused = |what: String| NodeError::new(Exit::Refused, format!("{}: {what}", path.display()));
        let bad =
            |error: &dyn std::fmt::Display| refused(format!("it is no exported snapshot, or a damaged one: {error}")).next(COPY_AGAIN);
        let manifest_bytes = file.take(MANIFEST_BYTES_MAX)?;
        let manifest = Manifest::from_bytes(&manifest_bytes).map_err(|error| bad(&error))?;
        let above: LightBlock = codec::decode(1, &file.take(RUN_BYTES_MAX)?, RUN_BYTES_MAX).map_err(|error| bad(&error))?;
        let at: LightBlock = codec::decode(1, &file.take(RUN_BYTES_MAX)?, RUN_BYTES_MAX).map_err(|error| bad(&error))?;
        if manifest.genesis_hash() != genesis.hash() || above.header.chain_id != genesis.chain_id {
            return Err(refused("it is of another chain than this home".to_owned()));
        }
        if above.header.hash() != *trust_hash {
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
        let signed = signed
            && commit.claim(&genesis.chain_id, &above.validators).is_ok_and(|claim| verify_batch(claim.checks()).iter().all(|ok| *ok));
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
            Found::Checked(_) | Found::Looked(_) | Found::Ended => Ok(()),
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
        tell(&manifest);
        for (index, info) in manifest.chunks().iter().enumerate() {
            if info.entries > 0 {
                let index = u32::try_from(index).expect("chunks are few");
                perform(Check::Chunk { index, bytes: file.take(PACKED_BYTES_MAX)?.to_vec().into(), is_whole: true })?;
            }
        }
        // What nothing here reads, nothing here has verified.
        file.ends()?;
        // The first start finds out the same. By then whoever could get a whole file may be gone.
        let chain = rehearse(&staging, genesis, spread).map_err(failed)?.map_err(|reason| {
            refused(format!("what is in it is proven, and a node cannot begin with it: {reason}"))
                .means("headers are missing that lie below the snapshot, or the program that made it is another version")
                .next(COPY_AGAIN)
        })?;
        staging.perform(Task::Check(Check::Complete), &nothing).and_then(|_| staging.mark()).map_err(failed)?;
        let evidence = &chain.params.evidence;
        let lowest = newer.height;
        let has_expired = height.get() - lowest.get() > evidence.max_age_num_blocks
            && chain.last_time.since(newer.time).as_nanos() > u128::from(evidence.max_age_duration_ns);
        Ok(Taken { height, manifest, lowest, reaches: lowest <= genesis.initial_height() || has_expired })
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
    use super::{Export, MAGIC};

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_leaves_nothing_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.snapshot");
        let names = || std::fs::read_dir(folder.path()).expect("a folder").count();
        let mut broken_off = Export::create(&path).expect("a file");
        broken_off.put(b"chunk").expect("there is room");
        assert!(!path.exists(), "not whole");
        drop(broken_off);
        assert_eq!(names(), 0);
        let mut whole = Export::create(&path).expect("a file");
        whole.put(b"chunk").expect("there is room");
        whole.finish().expect("there is room");
        assert_eq!(std::fs::read(&path).expect("it is there"), [&MAGIC[..], &5_u32.to_le_bytes(), b"chunk"].concat());
        assert_eq!(names(), 1);
        assert!(Export::create(&path).is_err(), "nothing is overwritten");
        // Nor what got the name meanwhile, nor what an export before left.
        let (other, left) = (folder.path().join("other"), folder.path().join("left"));
        let late = Export::create(&other).expect("a file");
        std::fs::write(&other, "mine").expect("there is room");
        assert!(late.finish().is_err());
        assert_eq!(std::fs::read(&other).expect("it is there"), b"mine");
        let mine = folder.path().join("left.partial");
        let told = |path: &std::path::Path| Export::create(path).err().expect("the draft is taken").to_string();
        std::fs::write(&mine, "mine").expect("there is room");
        assert!(told(&left).contains("left.partial is there already"));
        assert_eq!(std::fs::read(&mine).expect("it is there"), b"mine");
        std::fs::remove_file(&mine).expect("it is there");
        std::os::unix::fs::symlink(&other, &mine).expect("a link");
        assert!(told(&left).contains("is a link"));
        std::fs::remove_file(&mine).expect("it is there");
        // What an interrupted export left is written anew; what another writes now is not.
        std::fs::write(&mine, [&MAGIC[..], b"half of a state, and more than the next"].concat()).expect("there is room");
        let mut again = Export::create(&left).expect("nobody writes it");
        assert!(told(&left).contains("another export writes"));
        again.put(b"chunk").expect("there is room");
        again.finish().expect("there is room");
        assert_eq!(std::fs::read(&left).expect("it is there"), std::fs::read(&path).expect("it is there"));
        assert!(!mine.exists());
    }
}
