//! Files as the stores see them: two small traits, and the real disk behind them.
//!
//! A crash may take, tear or reorder everything since the last sync. [`DiskFile::sync_data`] makes a file's content and
//! length durable; [`Disk::sync_dir`] makes names durable (what was created, renamed or unlinked in that folder). The
//! stores assume no more: a synced byte stays, and a write leaves the bytes beside it alone. The vote guard assumes less
//! (see [`crate::guard`]).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::DiskError;
use crate::error::Context;

/// A folder of files. Paths are relative, with slashes.
pub trait Disk: Send + Sync {
    /// Opens a file that exists, to read and to write.
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes an empty file; `AlreadyExists` if the name is taken.
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// The names of the files (not the folders) in a folder, sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;
    /// Renames a file, in its folder or into another one. A file that has the new name is replaced. Durable when the folder of
    /// the new name is synced, and then that of the old one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file's name. Open handles go on reading it.
    fn unlink(&self, path: &str) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
    /// Makes a folder and its parents, durably; no error if it is there.
    fn create_dir(&self, dir: &str) -> io::Result<()>;
}

/// An open file. Reads and writes carry their position, so a handle has none and may be shared.
pub trait DiskFile: Send + Sync {
    /// Fills `buf` from `offset`, or fails (`UnexpectedEof` past the end).
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`, growing the file if needed; a gap reads as zeros.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or grows the file; what is new reads as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when content and length are durable. After an error nobody knows what is: it is never tried again.
    fn sync_data(&self) -> io::Result<()>;
}

/// A new file in the place of whatever an interrupted attempt left there.
pub(crate) fn create_anew(disk: &dyn Disk, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
    match disk.create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.unlink(path).on("remove", path)?;
            disk.create(path).on("create", path)
        }
        made => made.on("create", path),
    }
}

/// Bytes that are written again at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Writes the same bytes to the same place, so that the sync that follows has something to do even where the kernel
/// believes that the disk has them already: it does so of what a sync that failed left in its cache. A tear changes nothing.
pub(crate) fn write_again(file: &dyn DiskFile, path: &str, bytes: Range<u64>) -> Result<(), DiskError> {
    let most = |at: u64| usize::try_from(bytes.end.saturating_sub(at)).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
    let mut chunk = vec![0; most(bytes.start)];
    let mut at = bytes.start;
    while at < bytes.end {
        let count = most(at);
        file.read_at(at, &mut chunk[..count]).on("read", path)?;
        file.write_at(at, &chunk[..count]).on("write", path)?;
        at += count as u64;
    }
    Ok(())
}

/// Real files under one folder. They can be read by their owner alone (0600, folders 0700).
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
    /// Files that are there are opened to read them alone.
    reads: bool,
}

impl RealDisk {
    /// A disk rooted at `root`, which is made if it is not there.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<RealDisk> {
        let root = root.into();
        make_dirs(&root)?;
        Ok(RealDisk { root, reads: false })
    }

    /// The same, of which what is there already is only read: it may be mounted read-only, or be another user's.
    pub fn to_read(root: impl Into<PathBuf>) -> io::Result<RealDisk> {
        Ok(RealDisk { reads: true, ..Self::new(root)? })
    }

    /// The folder everything lies under.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path can come from a name found on the disk, so it is checked: nothing here reaches out of the root.
    fn resolve(&self, path: &str) -> io::Result<PathBuf> {
        let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leaves the home folder"));
        }
        Ok(self.root.join(path))
    }
}

fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_dirs(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => File::open(parent)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(!self.reads).open(self.resolve(path)?)?)))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.resolve(path)?;
        Ok(Arc::new(RealFile(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?)))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.resolve(dir)?)? {
            let entry = entry?;
            // A name that is not UTF-8 is not one of ours.
            if let (true, Ok(name)) = (entry.file_type()?.is_file(), entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.resolve(from)?, self.resolve(to)?)
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.resolve(path)?)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.resolve(dir)?)?.sync_all()
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        make_dirs(&self.resolve(dir)?)
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
