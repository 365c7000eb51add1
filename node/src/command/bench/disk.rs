//! How long this disk takes to make a vote durable: the measure beside every latency.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::NodeError;
use crate::home::io_error;

/// Appends and syncs.
const SAMPLES: usize = 300;
/// What a validator makes durable before a vote is about so large.
const RECORD_BYTES: usize = 200;

/// Times of an append and `fdatasync` on an idle disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct SyncTimes {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

/// Removed when dropped.
struct Probe(PathBuf);

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Appends and syncs in a file of its own in `folder`, before any load.
pub(super) fn measure(folder: &Path) -> Result<SyncTimes, NodeError> {
    let path = folder.join(format!(".lockstep-bench-{}", std::process::id()));
    let failed = |error| io_error("measure the disk with", &path, &error);
    let mut file: File = OpenOptions::new().append(true).create_new(true).open(&path).map_err(failed)?;
    let _probe = Probe(path.clone());
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        file.write_all(&[0; RECORD_BYTES]).and_then(|()| file.sync_data()).map_err(failed)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(SyncTimes { p50: times[SAMPLES / 2], p99: times[SAMPLES * 99 / 100] })
}
