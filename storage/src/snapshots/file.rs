//! The two kinds of files of a snapshot, each written whole and read whole.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `LSSK`, a chunk; `LSSN`, a snapshot |
//! | 4 | 1 | version, 1 |
//! | 5 | 3 | reserved |
//! | 8 | 8 | bytes of the content |
//! | 16 | 32 | sha256 of bytes 0 to 15 and the content |
//! | 48 | | content |

use std::io;

use sha2::{Digest, Sha256};

use super::SnapshotError;
use crate::disk::Disk;
use crate::error::Context;

pub(super) const CHUNK: [u8; 4] = *b"LSSK";
pub(super) const SNAPSHOT: [u8; 4] = *b"LSSN";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 48;

fn head(kind: [u8; 4], content: &[u8]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&kind);
    head[4] = VERSION;
    head[8..16].copy_from_slice(&(content.len() as u64).to_le_bytes());
    let hash = hash(&head, content);
    head[16..].copy_from_slice(&hash);
    head
}

fn hash(head: &[u8; HEAD_BYTES], content: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&head[..16]);
    hash.update(content);
    hash.finalize().into()
}

/// Writes a file under a name that means nothing yet, and syncs it. What an earlier attempt left there is removed.
pub(super) fn write(disk: &dyn Disk, path: &str, kind: [u8; 4], content: &[u8]) -> Result<(), SnapshotError> {
    remove(disk, path)?;
    let file = disk.create(path).on("create", path)?;
    let written = file.write_at(0, &[&head(kind, content)[..], content].concat()).on("write", path);
    let synced = written.and_then(|()| file.sync_data().on("sync", path));
    if synced.is_err() {
        // Room that was taken is given back. That it cannot be removed is of no interest: the next opening does it.
        let _ = disk.unlink(path);
    }
    Ok(synced?)
}

/// Removes a file; no error when it is not there.
pub(super) fn remove(disk: &dyn Disk, path: &str) -> Result<(), SnapshotError> {
    match disk.unlink(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Ok(Err(error).on("remove", path)?),
    }
}

/// The content of a file of this kind and at most this size; nothing when there is no such file.
pub(super) fn read(disk: &dyn Disk, path: &str, kind: [u8; 4], max: usize) -> Result<Option<Vec<u8>>, SnapshotError> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Ok(Err(error).on("open", path)?),
    };
    let damaged = || SnapshotError::Damaged { path: path.to_owned() };
    let len = usize::try_from(file.len().on("measure", path)?).map_err(|_| damaged())?;
    if len < HEAD_BYTES || len > HEAD_BYTES + max {
        return Err(damaged());
    }
    let mut bytes = vec![0; len];
    match file.read_at(0, &mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged()),
        read => read.on("read", path)?,
    }
    let content = bytes.split_off(HEAD_BYTES);
    let found: [u8; HEAD_BYTES] = bytes.try_into().expect("cut there");
    // What does not verify is damage, whatever version it seems to be of.
    if found[16..] != hash(&found, &content) || found[..4] != kind {
        return Err(damaged());
    }
    if found[4] > VERSION {
        return Err(SnapshotError::Newer { path: path.to_owned(), found: found[4] });
    }
    if found == head(kind, &content) { Ok(Some(content)) } else { Err(damaged()) }
}
