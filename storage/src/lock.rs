//! One process per home folder.
//!
//! Two processes on one home would sign with one key. The lock is the kernel's advisory lock on the file `lock`: it is
//! released when the process ends, however it ends, so a stale one cannot exist. It does not see a copy of the folder on
//! another machine: that is what asking the peers for our own messages is for.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file that is locked, in the home folder.
pub const LOCK_FILE: &str = "lock";
/// The file in which the program leaves its process id, for the error message below and for people.
pub const PID_FILE: &str = "pid";

/// A home may come from somebody else: a name in it that leads elsewhere is not followed (`O_NOFOLLOW`).
const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

/// Why a home could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{} is in use by {}: two processes on one home would sign with one key; stop the other one, or use another --home", .home.display(), holder(.pid))]
    InUse {
        /// The home folder.
        home: PathBuf,
        /// What the file `pid` says of the holder, if it can be read.
        pid: Option<u32>,
    },
    /// The lock file could not be made or locked.
    #[error("cannot lock {}: {source}", .home.display())]
    Io {
        /// The home folder.
        home: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Holds a home folder for this process until it is dropped.
#[derive(Debug)]
pub struct HomeLock {
    /// None where the folder cannot be written and nobody ever held it.
    _file: Option<File>,
}

impl HomeLock {
    /// Takes the lock or says who has it. Never waits.
    pub fn acquire(home: &Path) -> Result<HomeLock, LockError> {
        let failed = |source| LockError::Io { home: home.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NOFOLLOW);
        let file = options.open(home.join(LOCK_FILE)).map_err(failed)?;
        Self::of(file, home)
    }

    /// The same for a process that only reads: nothing is made or written there, so that it may be mounted read-only, or be another
    /// user's. Who could write there holds the same lock.
    pub fn acquire_to_read(home: &Path) -> Result<HomeLock, LockError> {
        match OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(home.join(LOCK_FILE)) {
            Ok(file) => Self::of(file, home),
            // No node ran here, nor can one without making the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound && home.is_dir() => Ok(HomeLock { _file: None }),
            Err(source) => Err(LockError::Io { home: home.to_owned(), source }),
        }
    }

    fn of(file: File, home: &Path) -> Result<HomeLock, LockError> {
        match file.try_lock() {
            Ok(()) => Ok(HomeLock { _file: Some(file) }),
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(home.join(PID_FILE)).ok().and_then(|text| text.trim().parse().ok());
                Err(LockError::InUse { home: home.to_owned(), pid })
            }
            Err(TryLockError::Error(source)) => Err(LockError::Io { home: home.to_owned(), source }),
        }
    }
}
