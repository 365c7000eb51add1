//! The one error that all stores share: an operation on a file failed.

use std::io;

/// An operation on a file that the disk refused. After a failed write or sync nobody knows what is on the disk, so a
/// store that met one refuses everything until it is opened again.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct DiskError {
    /// What was tried, as a verb: "read", "sync".
    pub action: &'static str,
    /// The file or folder, relative to the home.
    pub path: String,
    /// What the disk said.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    /// Whether the disk was full (or a quota reached): the one failure that passes by itself, once space returns.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Whether the file or folder is not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Names the file and the deed in an `io::Result`.
pub(crate) trait Context<T> {
    fn on(self, action: &'static str, path: &str) -> Result<T, DiskError>;
}

impl<T> Context<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &str) -> Result<T, DiskError> {
        self.map_err(|source| DiskError { action, path: path.to_owned(), source })
    }
}
