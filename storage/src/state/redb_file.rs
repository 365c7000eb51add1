//! redb over a file of the [`Disk`](crate::disk::Disk): one durable transaction, and what becomes of errors, damage and panics.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Builder, Database, ReadableDatabase, StorageBackend, Table};

use super::{ENTRIES, META, META_ROW, StateError};
use crate::DiskError;
use crate::disk::DiskFile;
use crate::planted::{self, Bug};

pub(super) type Entries<'txn> = Table<'txn, &'static [u8; 32], &'static [u8]>;
pub(super) type Meta<'txn> = Table<'txn, u8, &'static [u8]>;

/// One durable transaction.
pub(super) fn commit(db: &Database, work: impl FnOnce(&mut Entries<'_>, &mut Meta<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut transaction = db.begin_write()?;
    if planted::has(Bug::StateUnsynced) {
        transaction.set_durability(redb::Durability::None)?;
    }
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut meta = transaction.open_table(META)?;
        work(&mut entries, &mut meta)?;
    }
    transaction.commit()?;
    Ok(())
}

pub(super) fn database(file: &Arc<dyn DiskFile>, cache_bytes: usize) -> Result<Database, Failure> {
    let backend = Backend { file: Arc::clone(file) };
    Ok(Builder::new().set_cache_size(cache_bytes).create_with_backend(backend)?)
}

/// The one row of the table `meta`.
pub(super) fn summary_row(db: &Database) -> Result<Vec<u8>, Failure> {
    let meta = db.begin_read()?.open_table(META)?;
    let row = meta.get(META_ROW)?.ok_or_else(|| Failure::Damaged("its metadata is missing".to_owned()))?;
    Ok(row.value().to_vec())
}

/// What goes wrong inside, before it has the file's name.
pub(super) enum Failure {
    Redb(redb::Error),
    Damaged(String),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Redb(error.into())
    }
}

/// Runs what calls redb. redb panics over pages that cannot be what it wrote: rot must end in "quarantine and heal", not
/// in a process that dies at every start, so this is the one place where a panic is caught. What it left half done is not
/// looked at again: every caller gives the database up.
pub(super) fn guarded<T>(path: &str, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StateError> {
    let damaged = |what| StateError::Damaged { path: path.to_owned(), what };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Failure::Damaged(what))) => Err(damaged(what)),
        Ok(Err(Failure::Redb(redb::Error::Io(source)))) => match source.kind() {
            // What redb says of a header that it did not write, and the file's of a page that points past its end.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => Err(damaged(source.to_string())),
            _ => Err(DiskError { action: "use", path: path.to_owned(), source }.into()),
        },
        Ok(Err(Failure::Redb(redb::Error::PreviousIo))) => Err(StateError::Failed),
        Ok(Err(Failure::Redb(error))) => Err(damaged(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(damaged(format!("redb meets a page that it cannot have written: {text}")))
        }
    }
}

/// Closing writes redb's account of free pages, unless an input/output error was met.
pub(super) fn drop_quietly(db: Database) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
}

/// Parts with a database that failed. A damaged one is left open until the process ends: closing it would write to it,
/// walk into the same damage, and panic where a panic cannot be caught.
pub(super) fn give_up(db: Database, error: &StateError) {
    match error {
        StateError::Damaged { .. } => std::mem::forget(db),
        _ => drop_quietly(db),
    }
}

/// redb's file.
pub(super) struct Backend {
    file: Arc<dyn DiskFile>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backend")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
}
