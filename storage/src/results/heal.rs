//! Setting results aside: damaged ones, and those that are to be made again. They come again when the log is executed again.

use std::io;
use std::sync::Arc;

use super::ResultsError;
use super::format::ResultsHeader;
use super::segment::{ResultsSegment, index_path, results_path, segment_of};
use crate::disk::{Disk, create_anew, write_again};
use crate::error::Context;
use crate::planted::{self, Bug};
use crate::quarantine::{Quarantine, QuarantineError};

/// Sets aside the results of a segment and of all later ones, newest first, so that what is left is a prefix; their indexes
/// with them. The paths of what was set aside.
///
/// No [`super::Results`] may be open on the folder.
pub fn set_aside_from(disk: &Arc<dyn Disk>, dir: &str, segment: u64, quarantine: &mut Quarantine) -> Result<Vec<String>, QuarantineError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.on("list", dir)?,
    };
    let mut kept = Vec::new();
    for name in names.iter().rev() {
        let results = segment_of(name, ".res").filter(|held| *held >= segment).map(|held| results_path(dir, held));
        let index = segment_of(name, ".idx").filter(|held| *held >= segment).map(|held| index_path(dir, held));
        for path in results.into_iter().chain(index) {
            kept.push(quarantine.take(&path)?);
        }
    }
    Ok(kept)
}

/// Sets aside the results of one segment, with their index: those of other segments stay, where nothing can fill the gap. The paths of what
/// was set aside.
///
/// No [`super::Results`] may be open on the folder.
///
/// # Errors
/// When the disk fails, or too much was set aside before.
pub fn set_aside_segment(
    disk: &Arc<dyn Disk>,
    dir: &str,
    segment: u64,
    quarantine: &mut Quarantine,
) -> Result<Vec<String>, QuarantineError> {
    let names = disk.list(dir).on("list", dir)?;
    let is_of_it = |name: &&String| segment_of(name, ".res").or(segment_of(name, ".idx")) == Some(segment);
    names.iter().filter(is_of_it).map(|name| quarantine.take(&format!("{dir}/{name}"))).collect()
}

/// Sets aside the results of all segments before this one, oldest first. The paths of what was set aside.
///
/// No [`super::Results`] may be open on the folder.
///
/// # Errors
/// When the disk fails, or too much was set aside before.
pub fn set_aside_before(
    disk: &Arc<dyn Disk>,
    dir: &str,
    segment: u64,
    quarantine: &mut Quarantine,
) -> Result<Vec<String>, QuarantineError> {
    let names = disk.list(dir).on("list", dir)?;
    let is_before = |name: &&String| segment_of(name, ".res").or(segment_of(name, ".idx")).is_some_and(|held| held < segment);
    names.iter().filter(is_before).map(|name| quarantine.take(&format!("{dir}/{name}"))).collect()
}

/// Makes durable what is here, whoever wrote it: a process that was killed may have left it in the kernel's cache, and one whose sync
/// failed has left what the kernel takes for durable, in the file that was written last. That is written again.
///
/// # Errors
/// When the disk fails.
pub fn make_durable(disk: &dyn Disk, dir: &str) -> Result<(), ResultsError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.on("list", dir)?,
    };
    let segments: Vec<u64> = names.iter().filter_map(|name| segment_of(name, ".res")).collect();
    for segment in &segments {
        let path = results_path(dir, *segment);
        let file = disk.open(&path).on("open", &path)?;
        // A later one was begun when all of the one before was durable.
        if Some(segment) == segments.last() && !planted::has(Bug::ResultsBelieveCache) {
            write_again(&*file, &path, 0..file.len().on("measure", &path)?)?;
        }
        file.sync_data().on("sync", &path)?;
    }
    Ok(disk.sync_dir(dir).on("sync", dir)?)
}

/// Copies the results of these heights and above from one segment's to another's that is to begin within it, as far as they verify. What
/// was there for the other is replaced.
///
/// No [`super::Results`] may be open on the folder.
///
/// # Errors
/// When the disk fails or is full.
pub fn carry_over(disk: &Arc<dyn Disk>, dir: &str, from: u64, to: u64, above: u64) -> Result<(), ResultsError> {
    let path = results_path(dir, from);
    let file = match disk.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.on("open", &path)?,
    };
    let mut results = ResultsSegment::new(from, &path, file);
    results.scan(false)?;
    let path = results_path(dir, to);
    let copy = create_anew(&**disk, &path)?;
    let mut end = 0;
    for (height, (offset, header)) in results.heights.range(above..) {
        let kept = match results.source.read(*offset, header) {
            Err(ResultsError::Damaged { .. }) => break,
            read => read?,
        };
        let record = ResultsHeader { segment: to, height: *height, payload_bytes: header.payload_bytes };
        copy.write_at(end, &record.encode(&borsh::to_vec(&kept).expect("in memory"))).on("write", &path)?;
        end += record.record_bytes();
    }
    copy.sync_data().on("sync", &path)?;
    Ok(disk.sync_dir(dir).on("sync", dir)?)
}

/// Why results were not cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// They cannot be read.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// They cannot be set aside.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
}

/// Sets aside the results of all heights above this one, newest first, so that what is left is a prefix. The paths of what was set
/// aside.
///
/// No [`super::Results`] may be open on the folder.
///
/// # Errors
/// When the disk fails, or too much was set aside before.
pub fn cut_above(disk: &Arc<dyn Disk>, dir: &str, height: u64, quarantine: &mut Quarantine) -> Result<Vec<String>, CutError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.on("list", dir).map_err(ResultsError::from)?,
    };
    for segment in names.iter().filter_map(|name| segment_of(name, ".res")) {
        let path = results_path(dir, segment);
        let mut results = ResultsSegment::new(segment, &path, disk.open(&path).on("open", &path).map_err(ResultsError::from)?);
        results.scan(false)?;
        let Some((first, end)) = results.heights.iter().find(|(held, _)| **held > height).map(|(held, (offset, _))| (*held, *offset))
        else {
            continue;
        };
        if results.heights.first_key_value().is_some_and(|(lowest, _)| *lowest == first) {
            return Ok(set_aside_from(disk, dir, segment, quarantine)?);
        }
        let mut kept = set_aside_from(disk, dir, segment + 1, quarantine)?;
        // The index of a closed segment names transactions that are above.
        if names.iter().any(|name| segment_of(name, ".idx") == Some(segment)) {
            kept.push(quarantine.take(&index_path(dir, segment))?);
        }
        kept.extend(quarantine.copy_from(&path, end)?);
        results.source.file.set_len(end).on("cut", &path).map_err(ResultsError::from)?;
        results.source.file.sync_data().on("sync", &path).map_err(ResultsError::from)?;
        return Ok(kept);
    }
    Ok(Vec::new())
}
