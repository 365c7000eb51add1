//! Cutting a log down to what is sound. What goes is set aside, never deleted.
//!
//! Later segments go first, the newest first, and the damaged one is cut last: whenever the power fails between, the first
//! damage is still where it was, and the next opening finds it and goes on. Once the damaged segment is the last one, the
//! rules for a torn tail may cut it where it would have been cut here; what is cut was copied before.

use std::io;
use std::sync::Arc;

use super::LogError;
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
    match damage {
        LogError::Rot { segment, offset, .. } => {
            let name = segment.rsplit('/').next().unwrap_or(segment);
            let Some(first_sequence) = sequence_of(name) else { return Ok(None) };
            if *offset < EMPTY_SEGMENT_BYTES {
                return set_aside_from(disk, dir, first_sequence, quarantine).map(Some);
            }
            let mut kept: Vec<String> = quarantine.copy_from(segment, *offset)?.into_iter().collect();
            kept.extend(set_aside_from(disk, dir, first_sequence + 1, quarantine)?);
            let file = disk.open(segment).on("open", segment)?;
            file.set_len(*offset).on("cut", segment)?;
            file.sync_data().on("sync", segment)?;
            Ok(Some(kept))
        }
        LogError::MissingSegment { sequence, .. } => set_aside_from(disk, dir, *sequence, quarantine).map(Some),
        _ => Ok(None),
    }
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
