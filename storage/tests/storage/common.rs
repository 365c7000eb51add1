//! A disk in a folder that goes away with the test.

use std::sync::Arc;

use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record, Recovery};
use tempfile::TempDir;

pub(crate) const SALT: [u8; 32] = [0x5a; 32];

pub(crate) fn disk() -> (TempDir, Arc<dyn Disk>) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let disk = RealDisk::new(home.path().join("home")).expect("a home");
    (home, Arc::new(disk))
}

pub(crate) fn open_log(disk: &Arc<dyn Disk>, segment_bytes: u64) -> (BlockLog, Recovery) {
    BlockLog::open(Arc::clone(disk), "log", LogOptions { salt: SALT, segment_bytes }).expect("the log opens")
}

/// The hash of the block of a height, as good as any.
pub(crate) fn hash(height: u64) -> [u8; 32] {
    let mut hash = [0xb0; 32];
    hash[..8].copy_from_slice(&height.to_le_bytes());
    hash
}

pub(crate) fn record(kind: Kind, height: u64, payload: &[u8]) -> Record<'_> {
    Record { kind, height, round: 0, block_hash: hash(height), payload }
}

/// Body and decision of a height, durable.
pub(crate) fn decide(log: &mut BlockLog, height: u64, body: &[u8]) {
    log.append(record(Kind::Body, height, body)).expect("a body");
    log.append(record(Kind::Decision, height, b"certificate")).expect("a decision");
    log.sync().expect("a sync");
}

/// A whole file.
pub(crate) fn bytes_of(disk: &Arc<dyn Disk>, path: &str) -> Vec<u8> {
    let file = disk.open(path).expect("the file is there");
    let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("a small file")];
    file.read_at(0, &mut bytes).expect("the bytes");
    bytes
}

/// Inverts one byte of a file.
pub(crate) fn flip(disk: &Arc<dyn Disk>, path: &str, offset: u64) {
    let file = disk.open(path).expect("the file is there");
    let mut byte = [0];
    file.read_at(offset, &mut byte).expect("the byte");
    file.write_at(offset, &[!byte[0]]).expect("a write");
}
