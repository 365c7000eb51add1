//! Letting go of the oldest segments, beside the log's writer: an unlink of a large file takes as long as it takes.

//!
//! What is gone on purpose is told from what a disk lost: before a segment goes, a file `pruned` beside the segments says,
//! durably, below which height blocks may be missing. A log that begins above that has lost its beginning.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `LSPR` |
//! | 4 | 1 | version, 1 |
//! | 5 | 3 | reserved |
//! | 8 | 8 | the height |
//! | 16 | 32 | sha256 of bytes 0 to 15 |

use std::io;
use std::sync::{Arc, PoisonError};

use sha2::{Digest, Sha256};

use super::LogError;
use super::reader::LogReader;
use crate::disk::Disk;
use crate::error::Context;

/// The oldest segment of a log that has a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oldest {
    /// The sequence number of its first record, which names it.
    pub first_sequence: u64,
    /// The highest height of its records.
    pub height_max: u64,
}

const MAGIC: [u8; 4] = *b"LSPR";
const VERSION: u8 = 1;
const NOTE_BYTES: usize = 48;

fn note_path(dir: &str) -> String {
    format!("{dir}/pruned")
}

fn note(below: u64) -> [u8; NOTE_BYTES] {
    let mut note = [0; NOTE_BYTES];
    note[..4].copy_from_slice(&MAGIC);
    note[4] = VERSION;
    note[8..16].copy_from_slice(&below.to_le_bytes());
    let hash: [u8; 32] = Sha256::digest(&note[..16]).into();
    note[16..].copy_from_slice(&hash);
    note
}

/// The height below which blocks may be missing in the log of this folder; 0 where nothing was pruned. Where the file that
/// says it is damaged, any: what is missing then cannot be told from what was pruned.
///
/// # Errors
/// When the disk fails.
pub fn pruned_below(disk: &dyn Disk, dir: &str) -> Result<u64, LogError> {
    let path = note_path(dir);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened.on("open", &path)?,
    };
    let mut found = [0; NOTE_BYTES];
    match file.read_at(0, &mut found) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(u64::MAX),
        read => read.on("read", &path)?,
    }
    let below = u64::from_le_bytes(*found[8..].first_chunk().expect("eight bytes"));
    Ok(if found == note(below) { below } else { u64::MAX })
}

/// Says, durably, that blocks below this height may be missing in the log of this folder: before they are removed, or where
/// a log begins with a later block.
///
/// # Errors
/// When the disk fails. After a failed sync the caller stops.
pub fn note_pruned(disk: &dyn Disk, dir: &str, below: u64) -> Result<(), LogError> {
    let path = note_path(dir);
    let unnamed = format!("{path}.new");
    match disk.unlink(&unnamed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).on("remove", &unnamed)?,
        _ => {}
    }
    let file = disk.create(&unnamed).on("create", &unnamed)?;
    file.write_at(0, &note(below)).on("write", &unnamed)?;
    file.sync_data().on("sync", &unnamed)?;
    disk.rename(&unnamed, &path).on("rename", &unnamed)?;
    Ok(disk.sync_dir(dir).on("sync", dir)?)
}

/// Removes segments from a log that another thread may be writing. Which may go is the caller's decision.
#[derive(Clone)]
pub struct Pruner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: Arc<str>,
    pub(crate) reader: LogReader,
}

impl Pruner {
    /// The segment that may go next: never the one that is written, nor one that the tip's records are in.
    pub fn oldest(&self) -> Option<Oldest> {
        let index = self.reader.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut segments = index.segments.iter();
        let (first_sequence, segment) = segments.next()?;
        segments.next()?;
        let below_tip = index.tip().is_some_and(|tip| segment.height_max < tip);
        below_tip.then_some(Oldest { first_sequence: *first_sequence, height_max: segment.height_max })
    }

    /// Says durably that the oldest segment goes, and unlinks it, if it is still this one. Its results and indexes are to go after it: of results without
    /// a segment the next opening rids itself.
    ///
    /// # Errors
    /// [`LogError::NoSpace`] when there is no room to say so; nothing has changed then. Otherwise the disk failed: after a
    /// failed sync nobody knows which names are left, and the caller stops.
    pub fn remove(&self, oldest: Oldest) -> Result<bool, LogError> {
        if self.oldest() != Some(oldest) {
            return Ok(false);
        }
        let path = {
            let index = self.reader.index.read().unwrap_or_else(PoisonError::into_inner);
            let Some(segment) = index.segments.get(&oldest.first_sequence) else { return Ok(false) };
            segment.path.clone()
        };
        note_pruned(&*self.disk, &self.dir, oldest.height_max.saturating_add(1))?;
        // Nobody is to be told that it is here when it may be gone; who reads from it now holds the open file.
        self.reader.index.write().unwrap_or_else(PoisonError::into_inner).remove_segment(oldest.first_sequence);
        self.disk.unlink(&path).on("remove", &path).map_err(LogError::Disk)?;
        // One at a time: of two names that are being removed a crash may bring back the older or the newer alone, and a gap
        // between segments is damage.
        self.disk.sync_dir(&self.dir).on("sync", &self.dir).map_err(LogError::Disk)?;
        Ok(true)
    }
}
