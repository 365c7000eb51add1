//! The application's state at one height, whole, in redb over a file of the [`Disk`].
//!
//! A flush moves it from one height to a later one in one transaction, with two-phase commit (one fsync alone would trust a
//! checksum that an adversary may choose) and quick repair (reopening after a crash does not walk the file). A commit that
//! fails may have happened: the caller stops, and reads the truth when it opens the file again.
//!
//! redb does not check its pages when they are read, only when it is told to. So every entry carries a checksum over path, height, key and value,
//! and the metadata carries the number of entries and the sum of their hashes, modulo 2^256: an entry that is missing,
//! stale, doubled or in another's place changes the sum. [`StateDb::load`] reads everything, as the state tree must at every
//! start, and answers only if all of that agrees: what is read is believed for what it is, not for the pages it lay in. What does not
//! agree is [`StateError::Damaged`]: a start moves the file away and
//! computes the state again from the log. So is a panic of redb over a damaged page, which becomes the same error.
//!
//! What is *written* depends on the pages as well: on keys that only say where to look, and on redb's account of what is free. All of them
//! are checked once after opening, and nothing is written before: at once by [`StateDb::open`], and after a state was read by
//! [`StateDb::open_to_read`], for a start that is to be short ([`StateDb::check_pages`]).

mod redb_file;
mod rows;

use std::io;
use std::sync::Arc;

use redb::{Database, TableDefinition};

use self::redb_file::{Failure, commit, database, drop_quietly, give_up, guarded, summary_row};
use self::rows::Summary;
use crate::DiskError;
use crate::disk::{Disk, DiskFile};
use crate::error::Context;
use crate::spread::{self, Spread};

const ENTRIES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("state");
const META: TableDefinition<u8, &[u8]> = TableDefinition::new("meta");
/// The one row of the table `meta`.
const META_ROW: u8 = 0;
/// redb's cache. Half of it may hold pages that a flush changed; a flush of more than that writes pages out early, and some of
/// them again. Fixed, because what is written when depends on it, and runs of the simulator are to repeat.
const CACHE_BYTES: usize = 256 << 20;
/// The same while a large database is only read, from its first page to its last: what has been read is of no more use, and memory that
/// is touched for the first time costs more than reading a page again.
const READ_CACHE_BYTES: usize = 16 << 20;
/// From so many bytes on a database is a large one. Smaller ones have one cache for all.
const LARGE_BYTES: u64 = 64 << 20;
/// Rows of a share that room is made for before any is read: more than this, and the account is believed when they are there.
const ROWS_AHEAD: usize = 1 << 16;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file operation failed. If it was a commit, whether it happened is not known: stop, and open again.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is not what was written.
    #[error("the state database {path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: String,
        /// What does not agree.
        what: String,
    },
    /// A later program wrote it.
    #[error("the state database {path} was written by a newer version of this program (version {found})")]
    Newer {
        /// The file.
        path: String,
        /// The version byte.
        found: u8,
    },
    /// A flush to a height that the state is at, or beyond.
    #[error("the state is at height {at}; it is never flushed back to {to}")]
    Regress {
        /// Where it is.
        at: u64,
        /// Where it was to go.
        to: u64,
    },
    /// An earlier operation failed; what is on the disk is not known.
    #[error("the state database met an error before and must be opened again")]
    Failed,
}

/// One change of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// The place of the key in the state tree: its hash.
    pub path: [u8; 32],
    /// The key.
    pub key: &'a [u8],
    /// The new value, or nothing to remove the key.
    pub value: Option<&'a [u8]>,
}

/// What the state database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flushed {
    /// The height whose state this is.
    pub height: u64,
    /// The number of entries.
    pub entries: u64,
    /// The caller's bytes, from the same flush.
    pub meta: Vec<u8>,
}

/// A key and its value.
pub type Row = (Arc<[u8]>, Arc<[u8]>);

/// The state database.
pub struct StateDb {
    path: String,
    file: Arc<dyn DiskFile>,
    /// Taken when it failed.
    db: Option<Database>,
    /// Whether it has the cache for reading, and is opened with the other before anything is written.
    only_reads: bool,
    /// Whether redb has checked its pages since it was opened.
    is_checked: bool,
    summary: Summary,
}

impl StateDb {
    /// Opens the database at `path`, or makes an empty one, and checks its pages.
    pub fn open(disk: &dyn Disk, path: &str) -> Result<StateDb, StateError> {
        let mut opened = StateDb::open_to_read(disk, path)?;
        opened.check_pages()?;
        Ok(opened)
    }

    /// Opens the database at `path`, or makes an empty one. Its pages are not checked before [`StateDb::check_pages`], or the first flush.
    pub fn open_to_read(disk: &dyn Disk, path: &str) -> Result<StateDb, StateError> {
        match disk.open(path) {
            Ok(file) => {
                if file.is_empty().on("measure", path)? {
                    return Err(StateError::Damaged { path: path.to_owned(), what: "it is empty".to_owned() });
                }
                // The name may be in the kernel's cache alone; redb itself writes its header again, and syncs, when it opens.
                let dir = dir_of(path);
                disk.sync_dir(dir).on("sync", dir)?;
                StateDb::over(file, path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => StateDb::create(disk, path),
            Err(error) => Err(error).on("open", path)?,
        }
    }

    /// A database gets its name when it is whole: a crash while it is made leaves nothing.
    fn create(disk: &dyn Disk, path: &str) -> Result<StateDb, StateError> {
        let dir = dir_of(path);
        let unnamed = format!("{path}.new");
        disk.create_dir(dir).on("create", dir)?;
        match disk.unlink(&unnamed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => Err(error).on("remove", &unnamed)?,
        }
        let file = disk.create(&unnamed).on("create", &unnamed)?;
        guarded(path, || {
            let db = database(&file, CACHE_BYTES)?;
            commit(&db, |entries, meta| {
                let _ = entries;
                meta.insert(META_ROW, Summary::default().encode().as_slice())?;
                Ok(())
            })
        })?;
        disk.rename(&unnamed, path).on("rename", &unnamed)?;
        disk.sync_dir(dir).on("sync", dir)?;
        StateDb::over(file, path)
    }

    fn over(file: Arc<dyn DiskFile>, path: &str) -> Result<StateDb, StateError> {
        let only_reads = file.len().on("measure", path)? >= LARGE_BYTES;
        let db = guarded(path, || database(&file, if only_reads { READ_CACHE_BYTES } else { CACHE_BYTES }))?;
        match guarded(path, || summary_row(&db)).and_then(|row| Summary::decode(path, &row)) {
            Ok(summary) => Ok(StateDb { path: path.to_owned(), file, db: Some(db), only_reads, is_checked: false, summary }),
            Err(error) => {
                give_up(db, &error);
                Err(error)
            }
        }
    }

    /// The height and metadata of the last flush; nothing in a new database. The entries are not checked by this.
    pub fn flushed(&self) -> Option<Flushed> {
        let Summary { height, entries, meta, .. } = &self.summary;
        height.map(|height| Flushed { height, entries: *entries, meta: meta.clone() })
    }

    /// Has redb check the checksum of every page, and its account of them, where that was not done since the database was opened. What
    /// redb mends here is at most its account of free pages; whether the entries are right is for [`StateDb::load`] to say.
    ///
    /// # Errors
    /// [`StateError::Damaged`], after which the database must be opened again.
    pub fn check_pages(&mut self) -> Result<(), StateError> {
        if !self.is_checked {
            let known = self.summary.encode();
            self.checked(|db| {
                db.check_integrity()?;
                // redb reads its header again, and may go back to an older state where that has rotted meanwhile.
                if summary_row(db)? == known { Ok(()) } else { Err(Failure::Damaged("it is not the state that was read".to_owned())) }
            })?;
            self.is_checked = true;
        }
        Ok(())
    }

    /// Moves the state to `height`, durably and whole, or not at all. Changes may come in any order, and in the order of
    /// their paths they are fastest.
    pub fn flush<'a>(&mut self, height: u64, changes: impl IntoIterator<Item = Change<'a>>, meta: &[u8]) -> Result<(), StateError> {
        if let Some(at) = self.summary.height.filter(|at| height <= *at) {
            return Err(StateError::Regress { at, to: height });
        }
        self.prepare_to_write()?;
        let mut summary = Summary { height: Some(height), meta: meta.to_vec(), ..self.summary.clone() };
        self.run(|db| {
            commit(db, |entries, meta| {
                for change in changes {
                    summary.apply(entries, height, &change)?;
                }
                meta.insert(META_ROW, summary.encode().as_slice())?;
                Ok(())
            })
        })?;
        self.summary = summary;
        Ok(())
    }

    /// Has its pages checked, and opens it with the cache for writing. redb has a cache of one size for as long as a database is open.
    fn prepare_to_write(&mut self) -> Result<(), StateError> {
        self.check_pages()?;
        if !self.only_reads {
            return Ok(());
        }
        drop_quietly(self.db.take().ok_or(StateError::Failed)?);
        self.db = Some(guarded(&self.path, || database(&self.file, CACHE_BYTES))?);
        self.only_reads = false;
        Ok(())
    }

    /// Hands every entry to `visit` (path, key, value) in the order of the paths, each verified. What was visited is the
    /// state only if this returns `Ok`: that none is missing is known at the end.
    pub fn load(&mut self, mut visit: impl FnMut(&[u8; 32], &[u8], &[u8])) -> Result<Option<Flushed>, StateError> {
        let expected = self.summary.clone();
        self.run(|db| {
            let mut found = expected.before_any();
            found.read(db, &[0; 32], &[0xff; 32], &mut visit)?;
            found.must_be(&expected)
        })?;
        Ok(self.flushed())
    }

    /// Reads every entry, each verified, in 2^`bits` shares by the first bits of the path (at most 8), and has `work` make
    /// something of each share, which is told its number and its entries in the order of their paths. The shares may be read at
    /// the same time, as `spread` has it; what comes of them is in their order.
    ///
    /// Nothing, where nothing was flushed yet. That none is missing is known at the end, as with [`StateDb::load`].
    pub fn load_shares<T: Send>(
        &mut self,
        bits: u32,
        spread: &dyn Spread,
        work: impl Fn(usize, Vec<Row>) -> T + Sync,
    ) -> Result<Option<(Flushed, Vec<T>)>, StateError> {
        assert!(bits <= 8, "shares are told by the first byte");
        let Some(flushed) = self.flushed() else { return Ok(None) };
        let expected = self.summary.clone();
        let path = self.path.clone();
        let most = usize::try_from(expected.entries >> bits).map_or(ROWS_AHEAD, |most| most.min(ROWS_AHEAD));
        let made = self.run(|db| {
            let shares = spread::map(spread, 1 << bits, |share| {
                let (mut first, mut last) = ([0; 32], [0xff; 32]);
                (first[0], last[0]) = bounds(share, bits);
                let mut found = expected.before_any();
                let mut rows = Vec::with_capacity(most);
                let read = guarded(&path, || found.read(db, &first, &last, |_, key, value| rows.push((key.into(), value.into()))));
                read.map(|()| (found, work(share, rows)))
            });
            let mut found = expected.before_any();
            let mut made = Vec::with_capacity(shares.len());
            for share in shares {
                let (part, of_it) = match share {
                    Ok(done) => done,
                    Err(error) => return Ok(Err(error)),
                };
                found.entries += part.entries;
                found.add(&part.sum);
                made.push(of_it);
            }
            found.must_be(&expected)?;
            Ok(Ok(made))
        })?;
        match made {
            Ok(made) => Ok(Some((flushed, made))),
            Err(error) => {
                if let Some(db) = self.db.take() {
                    give_up(db, &error);
                }
                Err(error)
            }
        }
    }

    /// Has redb check every page's checksum, for an operator's scrub. Damage is an error, also where redb repaired it.
    pub fn verify(&mut self) -> Result<(), StateError> {
        self.checked(|db| match db.check_integrity()? {
            true => Ok(()),
            false => Err(Failure::Damaged("pages failed their checksums".to_owned())),
        })
    }

    /// Runs `check`; after an error there is no database any more.
    fn checked(&mut self, check: impl FnOnce(&mut Database) -> Result<(), Failure>) -> Result<(), StateError> {
        let mut db = self.db.take().ok_or(StateError::Failed)?;
        match guarded(&self.path, || check(&mut db)) {
            Ok(()) => {
                self.db = Some(db);
                Ok(())
            }
            Err(error) => {
                give_up(db, &error);
                Err(error)
            }
        }
    }

    /// Runs `work`; after an error there is no database any more.
    fn run<T>(&mut self, work: impl FnOnce(&Database) -> Result<T, Failure>) -> Result<T, StateError> {
        let db = self.db.take().ok_or(StateError::Failed)?;
        match guarded(&self.path, || work(&db)) {
            Ok(done) => {
                self.db = Some(db);
                Ok(done)
            }
            Err(error) => {
                give_up(db, &error);
                Err(error)
            }
        }
    }
}

impl Drop for StateDb {
    fn drop(&mut self) {
        // Closing writes, too. What does not verify is given up here, and not closed.
        let _ = self.check_pages();
        if let Some(db) = self.db.take() {
            drop_quietly(db);
        }
    }
}

/// The first bytes of the paths that one of 2^`bits` shares begins and ends with.
fn bounds(share: usize, bits: u32) -> (u8, u8) {
    let width = 256_usize >> bits;
    let byte = |at: usize| u8::try_from(at).expect("a share of 256 first bytes");
    (byte(share * width), byte((share + 1) * width - 1))
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(dir, _)| dir)
}
