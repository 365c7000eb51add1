//! Where damaged files go: a folder beside the stores, from which nothing is ever read or deleted by this program.
//!
//! A file keeps its name there, with the number of the incident behind it: `state.redb-1`. What one opening sets aside is one
//! incident. Of these there are at most [`INCIDENTS_MAX`]: a disk that damages files again and again is to be looked at by
//! a person, and not to be filled by its own remains.
//!
//! The folder also holds the **mark of suspicion**: a file that says that something was found damaged while it was read. The
//! next opening then verifies everything, and not only what it needs. And it holds the names of what a person was told of: what lies here
//! and is not among them was set aside by an opening that ended before it said so.

use std::io;
use std::sync::Arc;

use crate::DiskError;
use crate::disk::{Disk, create_anew};
use crate::error::Context;

/// Openings that may set something aside before a person is asked to look.
pub const INCIDENTS_MAX: usize = 16;
/// The mark of suspicion.
const SUSPICION: &str = "suspected";
/// Names of what was told, a line each.
const TOLD: &str = "told";
/// A folder of [`INCIDENTS_MAX`] openings is far smaller.
const TOLD_BYTES_MAX: u64 = 1 << 20;
/// Copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Why something could not be set aside.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Too many incidents.
    #[error(
        "{dir} holds what {INCIDENTS_MAX} starts found damaged: this disk damages files again and again, and the node does not \
         heal itself on it any more; look at the disk, move {dir} away, then start again"
    )]
    Full {
        /// The folder.
        dir: String,
    },
}

/// The folder of damaged files, for one opening.
#[derive(Clone)]
pub struct Quarantine {
    disk: Arc<dyn Disk>,
    dir: String,
    /// The number of this opening, once it set something aside.
    incident: Option<u64>,
}

impl Quarantine {
    /// The quarantine in `dir`, which need not be there.
    pub fn new(disk: Arc<dyn Disk>, dir: &str) -> Quarantine {
        Quarantine { disk, dir: dir.to_owned(), incident: None }
    }

    /// Moves a file here, durably, and says its new path.
    pub fn take(&mut self, path: &str) -> Result<String, QuarantineError> {
        let kept = self.place_for(name_of(path))?;
        self.disk.rename(path, &kept).on("move", path)?;
        self.sync(dir_of(path))?;
        Ok(kept)
    }

    /// Copies the bytes of a file from `offset` on, durably, and says the copy's path; nothing if there are only zeros.
    pub fn copy_from(&mut self, path: &str, offset: u64) -> Result<Option<String>, QuarantineError> {
        let file = self.disk.open(path).on("open", path)?;
        let bytes = file.len().on("measure", path)?;
        let mut copy = None;
        let mut chunk = vec![0; COPY_BYTES];
        let mut at = offset;
        while at < bytes {
            let take = usize::try_from(bytes - at).map_or(COPY_BYTES, |rest| rest.min(COPY_BYTES));
            file.read_at(at, &mut chunk[..take]).on("read", path)?;
            let used = chunk[..take].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if used > 0 {
                // What was filled ahead of time and is not used stays a hole.
                let (to, kept) = match &copy {
                    Some(begun) => begun,
                    None => copy.insert(self.begin_copy(name_of(path), offset)?),
                };
                to.write_at(at - offset, &chunk[..used]).on("write", kept)?;
            }
            at += take as u64;
        }
        let Some((to, kept)) = copy else { return Ok(None) };
        to.sync_data().on("sync", &kept)?;
        self.sync(&self.dir)?;
        Ok(Some(kept))
    }

    fn begin_copy(&mut self, name: &str, offset: u64) -> Result<(Arc<dyn crate::disk::DiskFile>, String), QuarantineError> {
        let kept = self.place_for(&format!("{name}-from-{offset}"))?;
        Ok((self.disk.create(&kept).on("create", &kept)?, kept))
    }

    /// Notes that something was found damaged while it was read: the next opening looks at everything. Best effort, for a
    /// disk that is failing.
    pub fn suspect(&self) -> Result<(), DiskError> {
        self.disk.create_dir(&self.dir).on("create", &self.dir)?;
        let path = self.suspicion();
        match self.disk.create(&path) {
            Ok(_) => self.disk.sync_dir(&self.dir).on("sync", &self.dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error).on("create", &path),
        }
    }

    /// Whether the mark is there.
    pub fn is_suspected(&self) -> Result<bool, DiskError> {
        Ok(self.names()?.iter().any(|name| name == SUSPICION))
    }

    /// Removes the mark: everything was looked at.
    pub fn clear_suspicion(&self) -> Result<(), DiskError> {
        let path = self.suspicion();
        match self.disk.unlink(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            unlinked => unlinked.on("remove", &path).and_then(|()| self.disk.sync_dir(&self.dir).on("sync", &self.dir)),
        }
    }

    /// Paths of what lies here and nobody was told of. A list of what was told that cannot be read counts as none.
    pub fn untold(&self) -> Result<Vec<String>, DiskError> {
        let path = format!("{}/{TOLD}", self.dir);
        let told = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).on("open", &path),
            Ok(file) => {
                let bytes = file.len().on("measure", &path)?.min(TOLD_BYTES_MAX);
                let mut told = vec![0; usize::try_from(bytes).unwrap_or(0)];
                file.read_at(0, &mut told).on("read", &path)?;
                told
            }
        };
        let told = String::from_utf8_lossy(&told);
        let told: Vec<&str> = told.lines().collect();
        let names = self.kept()?;
        Ok(names.into_iter().filter(|name| !told.contains(&name.as_str())).map(|name| format!("{}/{name}", self.dir)).collect())
    }

    /// A person was told of everything that lies here.
    pub fn told(&self) -> Result<(), DiskError> {
        let names = self.kept()?;
        if names.is_empty() {
            return Ok(());
        }
        let (new, path) = (format!("{}/{TOLD}.new", self.dir), format!("{}/{TOLD}", self.dir));
        let file = create_anew(&*self.disk, &new)?;
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
        file.write_at(0, text.as_bytes()).on("write", &new)?;
        file.sync_data().on("sync", &new)?;
        self.disk.rename(&new, &path).on("move", &new)?;
        self.disk.sync_dir(&self.dir).on("sync", &self.dir)
    }

    /// What was set aside.
    fn kept(&self) -> Result<Vec<String>, DiskError> {
        let ours = [SUSPICION.to_owned(), TOLD.to_owned(), format!("{TOLD}.new")];
        Ok(self.names()?.into_iter().filter(|name| !ours.contains(name)).collect())
    }

    /// A path that is free, under this opening's number.
    fn place_for(&mut self, name: &str) -> Result<String, QuarantineError> {
        let incident = match self.incident {
            Some(incident) => incident,
            None => {
                let names = self.names()?;
                let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.rsplit_once('-')?.1.parse().ok()).collect();
                numbers.sort_unstable();
                numbers.dedup();
                if numbers.len() >= INCIDENTS_MAX {
                    return Err(QuarantineError::Full { dir: self.dir.clone() });
                }
                self.disk.create_dir(&self.dir).on("create", &self.dir)?;
                *self.incident.insert(numbers.last().map_or(1, |last| last.saturating_add(1)))
            }
        };
        let names = self.names()?;
        let mut name = format!("{name}-{incident}");
        // One opening may set files of one name aside more than once: the state, and the one that was made in its place.
        while names.contains(&name) {
            name = format!("again-{name}");
        }
        Ok(format!("{}/{name}", self.dir))
    }

    fn names(&self) -> Result<Vec<String>, DiskError> {
        match self.disk.list(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.on("list", &self.dir),
        }
    }

    /// First the new name, then the loss of the old one: a crash between them leaves two names, never none.
    fn sync(&self, left: &str) -> Result<(), DiskError> {
        self.disk.sync_dir(&self.dir).on("sync", &self.dir)?;
        if left == self.dir { Ok(()) } else { self.disk.sync_dir(left).on("sync", left) }
    }

    fn suspicion(&self) -> String {
        format!("{}/{SUSPICION}", self.dir)
    }
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(dir, _)| dir)
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
