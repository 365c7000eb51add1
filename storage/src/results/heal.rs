//! Setting damaged results aside. They come again when the log is executed again.

use std::io;
use std::sync::Arc;

use super::segment::{index_path, results_path, segment_of};
use crate::disk::Disk;
use crate::error::Context;
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
