//! What is sound behind damage. A log is of use from any block on that a state leads to: where one is here for blocks behind the
//! damage, those are kept, and what lies before them is set aside as if it had been pruned.
//!
//! Whether that is so, the caller decides; [`heal`](super::cut_at_damage) keeps what lies before the damage instead.

use std::sync::{Arc, RwLock};

use super::format::SegmentHeader;
use super::reader::LogReader;
use super::recover::{Place, look_before, look_behind, place_of};
use super::segment::{segment_path, sequence_of};
use super::{LogError, note_pruned};
use crate::DiskError;
use crate::disk::{Disk, create_anew};
use crate::error::Context;
use crate::quarantine::{Quarantine, QuarantineError};

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// The records before the damage that opening or reading met; `None` where there is none, or for an error that is no damage. Nothing is
/// changed.
///
/// # Errors
/// As for [`super::BlockLog::open`].
pub fn before(disk: &Arc<dyn Disk>, dir: &str, damage: &LogError) -> Result<Option<LogReader>, LogError> {
    let Some(place) = place_of(damage) else { return Ok(None) };
    Ok(look_before(disk, dir, place)?.map(|index| LogReader { index: Arc::new(RwLock::new(index)) }))
}

/// The records behind the damage that opening or reading met, from some height on without a hole to the log's end; `None` where there is
/// none, or for an error that is no damage. Nothing is changed. What opening takes unread is unread here, too.
///
/// # Errors
/// As for [`super::BlockLog::open`].
pub fn behind(disk: &Arc<dyn Disk>, dir: &str, damage: &LogError) -> Result<Option<Behind>, LogError> {
    let Some(place) = place_of(damage) else { return Ok(None) };
    let found = look_behind(disk, dir, place)?;
    Ok(found.map(|(start, first, index)| Behind { start, first, reader: LogReader { index: Arc::new(RwLock::new(index)) } }))
}

/// What lies behind damage.
pub struct Behind {
    start: Place,
    /// The sequence number of its first record.
    first: u64,
    reader: LogReader,
}

impl Behind {
    /// To read it.
    pub fn reader(&self) -> &LogReader {
        &self.reader
    }

    /// The segment that it begins in, and the one that it begins with once it is kept: another, where the damage lies in the same.
    pub fn segments(&self) -> (u64, u64) {
        (self.start.segment, self.first)
    }

    /// Makes it the log: what lies before goes aside, oldest first. The paths of what went.
    ///
    /// Where it begins within a segment, it is copied first to one of its own, which gets its name when it is whole. Whenever the
    /// power fails, the damage is where it was, or gone with all that is before it: the next opening meets the same, or a log that is sound.
    ///
    /// No [`super::BlockLog`] may be open on the folder.
    ///
    /// # Errors
    /// When the disk fails or is full, or too much was set aside before.
    pub fn keep(&self, disk: &Arc<dyn Disk>, dir: &str, quarantine: &mut Quarantine) -> Result<Vec<String>, KeepError> {
        if let Some(base) = self.reader.base() {
            note_pruned(&**disk, dir, base)?;
        }
        let names = disk.list(dir).on("list", dir).map_err(LogError::from)?;
        let segments: Vec<u64> = names.iter().filter_map(|name| sequence_of(name)).collect();
        if !segments.contains(&self.first) {
            self.begin_anew(disk, dir).map_err(LogError::from)?;
        }
        let before = segments.into_iter().filter(|segment| *segment < self.first);
        Ok(before.map(|segment| quarantine.take(&segment_path(dir, segment))).collect::<Result<_, _>>()?)
    }

    /// Copies what is of use in the segment that it begins in to one that begins with it. The salt stays, so the records verify there.
    fn begin_anew(&self, disk: &Arc<dyn Disk>, dir: &str) -> Result<(), DiskError> {
        let Some(from) = self.reader.segment(self.start.segment) else { return Ok(()) };
        let bytes = from.file.len().on("measure", &from.path)?;
        let unnamed = format!("{dir}/behind.pre");
        let to = create_anew(&**disk, &unnamed)?;
        let header = SegmentHeader { first_sequence: self.first, salt: from.salt }.encode();
        to.write_at(0, &header).on("write", &unnamed)?;
        let mut chunk = vec![0; COPY_BYTES];
        let (mut at, mut end) = (self.start.offset, header.len() as u64);
        while at < bytes {
            let take = usize::try_from(bytes - at).map_or(COPY_BYTES, |rest| rest.min(COPY_BYTES));
            from.file.read_at(at, &mut chunk[..take]).on("read", &from.path)?;
            to.write_at(end, &chunk[..take]).on("write", &unnamed)?;
            (at, end) = (at + take as u64, end + take as u64);
        }
        to.sync_data().on("sync", &unnamed)?;
        let path = segment_path(dir, self.first);
        disk.rename(&unnamed, &path).on("rename", &unnamed)?;
        disk.sync_dir(dir).on("sync", dir)
    }
}

/// Why what lies behind damage was not made the log.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The disk failed or is full.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What lies before could not be set aside.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
}
