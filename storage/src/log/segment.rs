//! Names of segments, and making the next one before it is needed.

use std::sync::{Arc, Mutex, PoisonError};

use super::LogError;
use super::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::DiskError;
use crate::disk::{Disk, DiskFile, create_anew};
use crate::error::Context;
use crate::planted::{self, Bug};

/// What a segment is called until its header is durable.
const UNNAMED_SUFFIX: &str = ".pre";
/// Written at once when zeros fill a segment.
const ZERO_BYTES: usize = 1 << 20;

pub(crate) fn segment_path(dir: &str, first_sequence: u64) -> String {
    format!("{dir}/{first_sequence:020}.seg")
}

/// The first sequence number that a file name says, if it is a segment's.
pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

pub(crate) fn is_unnamed(name: &str) -> bool {
    name.ends_with(UNNAMED_SUFFIX)
}

/// Makes the next segment ahead of time, filled with zeros: a sync that does not also grow the file is a quarter faster on a quiet
/// machine (`sync_data` need not write the new length), and on a busy one does not wait for what others write; and a full disk is
/// noticed while there is still room for what is being decided. To be run beside the log, on a thread that may wait.
#[derive(Clone)]
pub struct Preallocator {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: Arc<str>,
    pub(crate) segment_bytes: u64,
    pub(crate) ready: Arc<Mutex<Option<Arc<dyn DiskFile>>>>,
}

impl Preallocator {
    /// Makes the next segment unless it is there. [`LogError::NoSpace`] tells the node to stop signing.
    pub fn preallocate_next(&self) -> Result<(), LogError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_some() {
            return Ok(());
        }
        let path = self.path();
        match self.fill(&path) {
            Ok(file) => {
                *ready = Some(file);
                Ok(())
            }
            Err(error) => {
                // What was filled is given back: a full disk has a better use for it.
                let _ = self.disk.unlink(&path);
                Err(error.into())
            }
        }
    }

    /// Whether the next segment is there.
    pub fn is_ready(&self) -> bool {
        self.ready.try_lock().is_ok_and(|ready| ready.is_some())
    }

    fn path(&self) -> String {
        format!("{}/next{UNNAMED_SUFFIX}", self.dir)
    }

    fn fill(&self, path: &str) -> Result<Arc<dyn DiskFile>, DiskError> {
        let file = create_anew(&*self.disk, path)?;
        let filled = |at| usize::try_from(self.segment_bytes - at).map_or(ZERO_BYTES, |rest: usize| rest.min(ZERO_BYTES));
        let zeros = vec![0; filled(0)];
        let mut at = 0;
        while at < self.segment_bytes {
            let bytes = filled(at);
            file.write_at(at, &zeros[..bytes]).on("fill", path)?;
            at += bytes as u64;
        }
        file.sync_data().on("sync", path)?;
        Ok(file)
    }

    /// Makes a segment and gives it its name, in the order that a crash cannot mislead: header, sync, name, sync.
    pub(crate) fn start_segment(&self, header: SegmentHeader) -> Result<(String, Arc<dyn DiskFile>), DiskError> {
        // The one that is ready, else an empty one: while another thread is filling one, nobody waits for it. The lock is held until
        // the file has its name: whoever fills the next one meanwhile would take the name that this one still has, and
        // the log would go on in a file that no name leads to.
        let mut ready = self.ready.try_lock().ok();
        let (file, unnamed) = match ready.as_mut().and_then(|ready| ready.take()) {
            Some(file) => (file, self.path()),
            None => {
                let path = format!("{}/roll{UNNAMED_SUFFIX}", self.dir);
                (create_anew(&*self.disk, &path)?, path)
            }
        };
        let path = segment_path(&self.dir, header.first_sequence);
        file.write_at(0, &header.encode()).on("write", &unnamed)?;
        file.sync_data().on("sync", &unnamed)?;
        self.disk.rename(&unnamed, &path).on("rename", &unnamed)?;
        if !planted::has(Bug::SegmentNameUnsynced) {
            self.disk.sync_dir(&self.dir).on("sync", &self.dir)?;
        }
        Ok((path, file))
    }
}

/// Bytes of a segment that has no record.
pub(crate) const EMPTY_SEGMENT_BYTES: u64 = SEGMENT_HEADER_BYTES as u64;
