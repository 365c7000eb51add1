//! Snapshots on the disk: files of chunks, and for each snapshot a file that says which chunks are its own.
//!
//! | file | holds |
//! |---|---|
//! | `<name, 64 hex digits>.chunk` | a chunk; it is named by what it holds, so two snapshots share one |
//! | `<height, 20 digits>.snapshot` | the names of its chunks, and its manifest |
//! | `<height, 20 digits>.begun` | the same, of a snapshot of which chunks may be missing |
//! | `*.new` | no name so far; removed at the next opening |
//!
//! What a snapshot looks like inside is not known here. Names, manifest and chunks are the caller's bytes.
//!
//! # Orders
//!
//! A chunk is written, synced, and only then gets its name; the names are durable before a snapshot gets its own
//! ([`Snapshots::finish`]). So a snapshot that has its name is whole, whenever the power fails. One that is to go loses
//! its name first, durably, and then those chunks that no other has. What a crash leaves between two of these steps belongs to
//! no snapshot, and the next opening removes it; a snapshot that was begun keeps its chunks, so that fetching it can go on.
//!
//! Nothing here is needed to go on: every error may be met by giving the snapshot up. An error of a sync is no reason to
//! stop a node, since no promise rests on it.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::DiskError;
use crate::disk::Disk;
use crate::error::Context;

/// Most bytes of a chunk: the largest entry of a state, packed, and as much again.
pub const CHUNK_FILE_BYTES_MAX: usize = 4 << 20;

/// Most bytes of names and manifest together.
pub const SNAPSHOT_FILE_BYTES_MAX: usize = 16 << 20;

/// Why snapshots could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A file is not what was written.
    #[error("{path} is damaged")]
    Damaged {
        /// The file.
        path: String,
    },
    /// A later program wrote it.
    #[error("{path} was written by a newer version of this program (version {found})")]
    Newer {
        /// The file.
        path: String,
        /// The version byte.
        found: u8,
    },
    /// A chunk is not there, where it has to be.
    #[error("chunk {name} is not here")]
    Missing {
        /// Its name in hexadecimal digits.
        name: String,
    },
    /// More bytes than a file of this kind may have.
    #[error("{bytes} bytes are more than a file of a snapshot may have")]
    TooLarge {
        /// Bytes offered.
        bytes: usize,
    },
}

impl SnapshotError {
    /// Whether there was no room.
    pub fn is_no_space(&self) -> bool {
        matches!(self, SnapshotError::Disk(error) if error.is_no_space())
    }
}

/// The name of a chunk.
pub type Name = [u8; 32];

/// A snapshot, as its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    names: Arc<[Name]>,
    manifest: Arc<[u8]>,
}

#[derive(Default)]
struct Index {
    whole: BTreeMap<u64, Kept>,
    begun: BTreeMap<u64, Kept>,
    chunks: BTreeSet<Name>,
}

/// What opening removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files that belonged to no snapshot.
    pub files: u64,
    /// Heights of snapshots that were damaged, or of which a chunk was gone.
    pub damaged: Vec<u64>,
}

/// A whole snapshot, as a look from outside finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its height.
    pub height: u64,
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// Bytes of its chunks on the disk, those that others have too among them.
    pub bytes: u64,
}

/// The whole snapshots of a folder, rising. Nothing is changed, so another process may be writing there; one that goes
/// meanwhile is not listed, nor is one that is damaged.
///
/// # Errors
/// When the disk fails, or a later program wrote a file.
pub fn list(disk: &dyn Disk, dir: &str) -> Result<Vec<Listed>, SnapshotError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.on("list", dir)?,
    };
    let mut listed = Vec::new();
    for name in names {
        let Some((height, true)) = height_of(&name) else { continue };
        let content = match file::read(disk, &format!("{dir}/{name}"), file::SNAPSHOT, SNAPSHOT_FILE_BYTES_MAX) {
            Ok(content) => content,
            Err(SnapshotError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(kept) = content.and_then(|content| Kept::decode(&content)) else { continue };
        let size = |name: &Name| disk.open(&format!("{dir}/{}", chunk_name(name))).and_then(|file| file.len()).ok();
        let sizes: Option<Vec<u64>> = kept.names.iter().map(size).collect();
        if let Some(sizes) = sizes {
            listed.push(Listed { height, manifest: kept.manifest.to_vec(), bytes: sizes.iter().sum() });
        }
    }
    Ok(listed)
}

/// A chunk of a folder that another process may be writing; nothing when it is not there (any more).
///
/// # Errors
/// As [`Snapshots::chunk`].
pub fn read_chunk(disk: &dyn Disk, dir: &str, name: &Name) -> Result<Option<Vec<u8>>, SnapshotError> {
    file::read(disk, &format!("{dir}/{}", chunk_name(name)), file::CHUNK, CHUNK_FILE_BYTES_MAX)
}

/// The snapshots in one folder. A clone is the same ones; writes wait for each other.
#[derive(Clone)]
pub struct Snapshots {
    disk: Arc<dyn Disk>,
    dir: Arc<str>,
    index: Arc<Mutex<Index>>,
    writing: Arc<Mutex<()>>,
}

impl Snapshots {
    /// Opens the folder, or makes it, and removes what belongs to no snapshot.
    ///
    /// # Errors
    /// When the disk fails, or a later program wrote a file. Damage is none: what is damaged is removed and told of.
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<(Self, Swept), SnapshotError> {
        disk.create_dir(dir).on("create", dir)?;
        let (mut index, mut swept) = (Index::default(), Swept::default());
        let mut unnamed = Vec::new();
        for name in disk.list(dir).on("list", dir)? {
            if let Some(chunk) = name.strip_suffix(".chunk").and_then(from_hex) {
                index.chunks.insert(chunk);
            } else if name.ends_with(".new") {
                unnamed.push(name);
            }
        }
        let mut doomed: Vec<String> = unnamed.into_iter().map(|name| format!("{dir}/{name}")).collect();
        for name in disk.list(dir).on("list", dir)? {
            let Some((height, is_whole)) = height_of(&name) else { continue };
            let path = format!("{dir}/{name}");
            let kept = match file::read(&*disk, &path, file::SNAPSHOT, SNAPSHOT_FILE_BYTES_MAX) {
                Ok(content) => content.and_then(|content| Kept::decode(&content)),
                Err(SnapshotError::Damaged { .. }) => None,
                Err(error) => return Err(error),
            };
            match kept.filter(|kept| !is_whole || kept.names.iter().all(|name| index.chunks.contains(name))) {
                Some(kept) if is_whole => drop(index.whole.insert(height, kept)),
                Some(kept) => drop(index.begun.insert(height, kept)),
                None => {
                    swept.damaged.push(height);
                    doomed.push(path);
                }
            }
        }
        for height in index.whole.keys().copied().collect::<Vec<_>>() {
            // It was finished, and the crash came before the other name was gone.
            if index.begun.remove(&height).is_some() {
                doomed.push(format!("{dir}/{}", begun_name(height)));
            }
        }
        let orphans: Vec<Name> = index.chunks.difference(&index.named()).copied().collect();
        doomed.extend(orphans.iter().map(|name| format!("{dir}/{}", chunk_name(name))));
        for path in &doomed {
            file::remove(&*disk, path)?;
        }
        for orphan in &orphans {
            index.chunks.remove(orphan);
        }
        swept.files = (doomed.len() - swept.damaged.len()) as u64;
        disk.sync_dir(dir).on("sync", dir)?;
        let (index, writing) = (Arc::new(Mutex::new(index)), Arc::new(Mutex::new(())));
        Ok((Self { disk, dir: Arc::from(dir), index, writing }, swept))
    }

    /// Heights of the snapshots that are whole, rising.
    pub fn heights(&self) -> Vec<u64> {
        self.index().whole.keys().copied().collect()
    }

    /// Heights of those that were begun, rising.
    pub fn begun(&self) -> Vec<u64> {
        self.index().begun.keys().copied().collect()
    }

    /// The manifest of a whole snapshot.
    pub fn manifest(&self, height: u64) -> Option<Arc<[u8]>> {
        self.index().whole.get(&height).map(|kept| kept.manifest.clone())
    }

    /// The manifest of one that was begun.
    pub fn begun_manifest(&self, height: u64) -> Option<Arc<[u8]>> {
        self.index().begun.get(&height).map(|kept| kept.manifest.clone())
    }

    /// Whether a chunk is here.
    pub fn has(&self, name: &Name) -> bool {
        self.index().chunks.contains(name)
    }

    /// Whether a chunk is here as it was written. It is read for that: a disk that lets bytes rot says nothing of it by itself.
    pub fn is_sound(&self, name: &Name) -> bool {
        // One that a later program wrote is not judged here.
        matches!(self.chunk(name), Ok(Some(_)) | Err(SnapshotError::Newer { .. }))
    }

    /// A chunk, verified against what was written; nothing when it is not here (any more).
    ///
    /// # Errors
    /// When it is damaged, or the disk fails. Of a damaged one, [`Snapshots::give_up`] rids the folder.
    pub fn chunk(&self, name: &Name) -> Result<Option<Vec<u8>>, SnapshotError> {
        file::read(&*self.disk, &self.path(&chunk_name(name)), file::CHUNK, CHUNK_FILE_BYTES_MAX)
    }

    /// Begins a snapshot, durably: from now on its chunks are kept, those that are here already and those that come. One that was begun
    /// with other chunks is begun anew.
    ///
    /// # Errors
    /// When the disk fails or is full; nothing is begun then.
    pub fn begin(&self, height: u64, names: &[Name], manifest: &[u8]) -> Result<(), SnapshotError> {
        let kept = Kept { names: names.into(), manifest: manifest.into() };
        let _writing = self.write_alone();
        if self.index().begun.get(&height) == Some(&kept) {
            return Ok(());
        }
        self.write(&begun_name(height), file::SNAPSHOT, &kept.encode(), SNAPSHOT_FILE_BYTES_MAX)?;
        self.sync_dir()?;
        let before = self.index().begun.insert(height, kept);
        if let Some(before) = before {
            self.drop_chunks(&before)?;
        }
        Ok(())
    }

    /// Writes a chunk of a snapshot that was begun. Durable with the snapshot ([`Snapshots::finish`]); after a crash before that it may be here, whole,
    /// or not. False when it was here already.
    ///
    /// # Errors
    /// When the disk fails or is full; the chunk is not here then.
    pub fn put(&self, name: &Name, chunk: &[u8]) -> Result<bool, SnapshotError> {
        let _writing = self.write_alone();
        if self.has(name) {
            return Ok(false);
        }
        self.write(&chunk_name(name), file::CHUNK, chunk, CHUNK_FILE_BYTES_MAX)?;
        self.index().chunks.insert(*name);
        Ok(true)
    }

    /// Writes a chunk in the place of one that is damaged, for every snapshot that names it. Durable as one that is [put](Snapshots::put).
    ///
    /// # Errors
    /// When the disk fails or is full; the damaged one is here then.
    pub fn mend(&self, name: &Name, chunk: &[u8]) -> Result<(), SnapshotError> {
        let _writing = self.write_alone();
        self.write(&chunk_name(name), file::CHUNK, chunk, CHUNK_FILE_BYTES_MAX)?;
        self.index().chunks.insert(*name);
        Ok(())
    }

    /// Makes a snapshot that was begun, and has all its chunks, a whole one: durable when this returns.
    ///
    /// # Errors
    /// [`SnapshotError::Missing`] when a chunk is not here; or the disk fails, and whether it is whole is known at the next opening.
    pub fn finish(&self, height: u64) -> Result<(), SnapshotError> {
        let _writing = self.write_alone();
        let Some(kept) = self.index().begun.get(&height).cloned() else { return Ok(()) };
        let missing = { kept.names.iter().find(|name| !self.index().chunks.contains(*name)).map(to_hex) };
        if let Some(name) = missing {
            return Err(SnapshotError::Missing { name });
        }
        // The names of the chunks, before the snapshot's.
        self.sync_dir()?;
        let (from, to) = (self.path(&begun_name(height)), self.path(&whole_name(height)));
        self.disk.rename(&from, &to).on("rename", &from)?;
        {
            let mut index = self.index();
            index.begun.remove(&height);
            index.whole.insert(height, kept);
        }
        self.sync_dir()
    }

    /// Gives a snapshot up, whole or begun: its name goes, durably, and then the chunks that no other has. Readers that hold a
    /// chunk keep it.
    ///
    /// # Errors
    /// When the disk fails; what is left is removed at the next opening.
    pub fn give_up(&self, height: u64) -> Result<(), SnapshotError> {
        let _writing = self.write_alone();
        let gone: Vec<Kept> = {
            let mut index = self.index();
            [index.whole.remove(&height), index.begun.remove(&height)].into_iter().flatten().collect()
        };
        if gone.is_empty() {
            return Ok(());
        }
        file::remove(&*self.disk, &self.path(&whole_name(height)))?;
        file::remove(&*self.disk, &self.path(&begun_name(height)))?;
        self.sync_dir()?;
        gone.iter().try_for_each(|kept| self.drop_chunks(kept))
    }

    /// Gives up all snapshots that name this chunk, and the chunk: it was found damaged. The heights that are gone.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn give_up_with(&self, name: &Name) -> Result<Vec<u64>, SnapshotError> {
        let heights: Vec<u64> = {
            let index = self.index();
            let all = index.whole.iter().chain(&index.begun);
            all.filter(|(_, kept)| kept.names.contains(name)).map(|(height, _)| *height).collect()
        };
        heights.iter().try_for_each(|height| self.give_up(*height))?;
        Ok(heights)
    }

    /// Removes the chunks of a snapshot that is gone, but for those that others have.
    fn drop_chunks(&self, gone: &Kept) -> Result<(), SnapshotError> {
        let orphans: BTreeSet<Name> = {
            let mut index = self.index();
            let named = index.named();
            let orphans = gone.names.iter().filter(|name| !named.contains(*name)).copied().collect();
            index.chunks = &index.chunks - &orphans;
            orphans
        };
        orphans.iter().try_for_each(|name| file::remove(&*self.disk, &self.path(&chunk_name(name))))
    }

    fn write(&self, name: &str, kind: [u8; 4], content: &[u8], max: usize) -> Result<(), SnapshotError> {
        if content.len() > max {
            return Err(SnapshotError::TooLarge { bytes: content.len() });
        }
        let path = self.path(name);
        let unnamed = format!("{path}.new");
        file::write(&*self.disk, &unnamed, kind, content)?;
        Ok(self.disk.rename(&unnamed, &path).on("rename", &unnamed)?)
    }

    fn sync_dir(&self) -> Result<(), SnapshotError> {
        Ok(self.disk.sync_dir(&self.dir).on("sync", &self.dir)?)
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // No code panics between two changes of the index that belong together.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_alone(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// All chunks that a snapshot names.
    fn named(&self) -> BTreeSet<Name> {
        self.whole.values().chain(self.begun.values()).flat_map(|kept| kept.names.iter().copied()).collect()
    }
}

impl Kept {
    fn encode(&self) -> Vec<u8> {
        let count = u32::try_from(self.names.len()).expect("names that fit in a file").to_le_bytes();
        [&count[..], self.names.as_flattened(), &self.manifest].concat()
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let (count, rest) = content.split_first_chunk::<4>()?;
        let bytes = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(32)?;
        let (names, manifest) = rest.split_at_checked(bytes)?;
        Some(Self { names: names.as_chunks::<32>().0.into(), manifest: manifest.into() })
    }
}

fn whole_name(height: u64) -> String {
    format!("{height:020}.snapshot")
}

fn begun_name(height: u64) -> String {
    format!("{height:020}.begun")
}

fn chunk_name(name: &Name) -> String {
    format!("{}.chunk", to_hex(name))
}

/// The height in the name of a snapshot's file, and whether it is a whole one.
fn height_of(name: &str) -> Option<(u64, bool)> {
    let (digits, is_whole) = match name.strip_suffix(".snapshot") {
        Some(digits) => (digits, true),
        None => (name.strip_suffix(".begun")?, false),
    };
    let height = digits.parse().ok()?;
    (digits == format!("{height:020}")).then_some((height, is_whole))
}

fn to_hex(name: &Name) -> String {
    name.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Name> {
    let mut name = [0; 32];
    if digits.len() != 64 || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, pair) in name.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(name)
}
