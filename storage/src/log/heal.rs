//! Cutting a log down to what is sound. What goes is set aside, never deleted.
//!
//! Later segments go first, the newest first, and the damaged one is cut last: whenever the power fails between, the first
//! damage is still where it was, and the next opening finds it and goes on. Once the damaged segment is the last one, the
//! rules for a torn tail may cut it where it would have been cut here; what is cut was copied before.

use std::io;
use std::sync::Arc;

use super::LogError;
use super::reader::LogReader;
use super::recover::{Place, header_of, place_of};
use super::segment::{EMPTY_SEGMENT_BYTES, segment_path, sequence_of};
use crate::disk::Disk;
use crate::error::Context;
use crate::quarantine::{Quarantine, QuarantineError};

/// Sets aside what begins with the damage that opening or reading met, so that the log can be opened as the prefix before it.
/// The paths of what was set aside; nothing for an error that is no damage.
///
/// No [`super::BlockLog`] may be open on the folder.
pub fn cut_at_damage(
    disk: &Arc<dyn Disk>,
    dir: &str,
    damage: &LogError,
    quarantine: &mut Quarantine,
) -> Result<Option<Vec<String>>, QuarantineError> {
    match place_of(damage) {
        Some(Place { segment, offset }) if offset < EMPTY_SEGMENT_BYTES => set_aside_from(disk, dir, segment, quarantine).map(Some),
        Some(Place { segment, offset }) => cut(disk, dir, segment, offset, quarantine).map(Some),
        None => Ok(None),
    }
}

/// Writes the header of a segment again: whether what was in it could be told. The name says with which record it begins; the salt is what is left
/// of it, or that of the other segments, and a record verifies with it, which none does with another.
///
/// No [`super::BlockLog`] may be open on the folder.
///
/// # Errors
/// When the disk fails or is full. After a crash on the way the header is damaged, or sound.
pub fn restore_header(disk: &Arc<dyn Disk>, dir: &str, damage: &LogError) -> Result<bool, LogError> {
    let Some(Place { segment, offset }) = place_of(damage).filter(|place| place.offset < EMPTY_SEGMENT_BYTES) else { return Ok(false) };
    let Some(header) = header_of(disk, dir, segment)? else { return Ok(false) };
    let path = segment_path(dir, segment);
    let file = disk.open(&path).on("open", &path)?;
    file.write_at(offset, &header.encode()).on("write", &path)?;
    file.sync_data().on("sync", &path)?;
    Ok(true)
}

/// Sets aside everything that was written after the decision of a height, so that the log ends there. The paths of what was set
/// aside; none where the log has no decision of that height, and then nothing was done.
///
/// Undecided bodies of later heights go as well, but for those that were written before that decision.
///
/// No [`super::BlockLog`] may be open on the folder.
///
/// # Errors
/// When the disk fails, or too much was set aside before. After a crash on the way the log is a sound prefix of what it was, and no
/// shorter than it was to be.
pub fn cut_above(
    disk: &Arc<dyn Disk>,
    dir: &str,
    reader: &LogReader,
    height: u64,
    quarantine: &mut Quarantine,
) -> Result<Option<Vec<String>>, QuarantineError> {
    let Some((segment, end)) = reader.end_of_decision(height) else { return Ok(None) };
    cut(disk, dir, segment, end, quarantine).map(Some)
}

/// Cuts a segment at an offset, after all later ones were set aside, newest first. What is cut off is copied before.
fn cut(disk: &Arc<dyn Disk>, dir: &str, segment: u64, offset: u64, quarantine: &mut Quarantine) -> Result<Vec<String>, QuarantineError> {
    let path = segment_path(dir, segment);
    let mut kept: Vec<String> = quarantine.copy_from(&path, offset)?.into_iter().collect();
    kept.extend(set_aside_from(disk, dir, segment + 1, quarantine)?);
    let file = disk.open(&path).on("open", &path)?;
    file.set_len(offset).on("cut", &path)?;
    file.sync_data().on("sync", &path)?;
    Ok(kept)
}

/// Sets aside every segment: the log begins anew.
///
/// No [`super::BlockLog`] may be open on the folder.
pub fn set_aside_all(disk: &Arc<dyn Disk>, dir: &str, quarantine: &mut Quarantine) -> Result<Vec<String>, QuarantineError> {
    set_aside_from(disk, dir, 0, quarantine)
}

fn set_aside_from(disk: &Arc<dyn Disk>, dir: &str, sequence: u64, quarantine: &mut Quarantine) -> Result<Vec<String>, QuarantineError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.on("list", dir)?,
    };
    let later = names.iter().filter_map(|name| sequence_of(name)).filter(|first| *first >= sequence);
    later.rev().map(|first| quarantine.take(&segment_path(dir, first))).collect()
}
