//! A crash tester for redb, with nothing of ours between it and the disk.
//!
//! redb promises that what a commit with `Durability::Immediate` returned from is there after a power cut, whole, and that
//! a database that was cut off at any instant opens again. It asks of the disk that single bytes are written whole, that a
//! sync is a sync, and that a write leaves its neighbours alone (its `docs/design.md`). Its own fuzzer cuts off a disk that
//! keeps writes in order. Here writes are lost, torn down to single bytes and reordered, changes of length too; the power
//! fails before, in and after every operation, and again in the repair that follows.
//!
//!     cargo test --release -p lockstep-sim --test storage redb_crashes -- --nocapture
//!
//! prints how many power cuts that were. `REDB_CRASHES=n` in the environment makes n lives of each kind instead of one.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lockstep_sim::disk::{Dice, Fault, SimDisk, Survival, When};
use lockstep_storage::disk::{Disk, DiskFile};
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

const FILE: &str = "db";
const TABLE: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("table");
/// Small, so that pages leave the cache, and are written, before their transaction ends.
const CACHE_BYTES: usize = 64 << 10;
const TRANSACTIONS: u64 = 14;

type Model = BTreeMap<u64, Vec<u8>>;

#[derive(Debug)]
struct Backend(File);

struct File(Arc<dyn DiskFile>);

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("File")
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.0.write_at(offset, data)
    }
}

/// How transactions are committed.
#[derive(Debug, Clone, Copy)]
struct Mode {
    two_phase: bool,
    quick_repair: bool,
    /// Of so many commits one is durable.
    durable_every: u64,
    /// The file is made smaller now and then.
    compacts: bool,
}

const MODES: [Mode; 5] = [
    Mode { two_phase: false, quick_repair: false, durable_every: 1, compacts: false },
    Mode { two_phase: true, quick_repair: false, durable_every: 1, compacts: false },
    // As the state database of a node is written.
    Mode { two_phase: true, quick_repair: true, durable_every: 1, compacts: false },
    Mode { two_phase: true, quick_repair: false, durable_every: 3, compacts: false },
    Mode { two_phase: false, quick_repair: true, durable_every: 2, compacts: true },
];

/// What was committed, transaction by transaction: what a reader may find.
#[derive(Debug, Clone)]
struct Account {
    /// The content after each transaction, also after the one that is being committed.
    states: Vec<Model>,
    /// The last that a durable commit returned from. Readers find it, or a later one.
    durable: usize,
}

impl Account {
    fn new() -> Self {
        Self { states: vec![Model::new()], durable: 0 }
    }

    /// What is found counts as committed from now on.
    fn found(&mut self, found: &Model) -> Result<(), String> {
        let at = (self.durable..self.states.len()).rev().find(|at| self.states[*at] == *found);
        let Some(at) = at else {
            let keys = |model: &Model| model.len();
            let wanted = &self.states[self.durable];
            return Err(format!("{} entries that no transaction left; {} were durable", keys(found), keys(wanted)));
        };
        self.states = vec![self.states.swap_remove(at)];
        self.durable = 0;
        Ok(())
    }
}

fn open(disk: &SimDisk) -> Result<Database, redb::Error> {
    let file = disk.open(FILE)?;
    Ok(Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(Backend(File(file)))?)
}

/// A new database. redb does not promise that one comes of a crash while it is made; a caller makes it under another name.
fn new() -> (SimDisk, Account) {
    let disk = SimDisk::new();
    disk.create(FILE).expect("a new disk takes a file");
    disk.sync_dir("").expect("and its name");
    let db = open(&disk).expect("an empty file becomes a database");
    let transaction = db.begin_write().expect("nobody else writes");
    transaction.open_table(TABLE).expect("a table");
    transaction.commit().expect("durable");
    drop(db);
    (disk, Account::new())
}

/// Writes on; each transaction depends on its number and the seed alone.
fn live(db: &mut Database, account: &mut Account, mode: Mode, seed: u64) -> Result<(), redb::Error> {
    for number in 0..TRANSACTIONS {
        let mut dice = Dice::new(seed ^ (number << 32));
        let mut model = account.states.last().expect("there is one").clone();
        let mut transaction = db.begin_write()?;
        let is_durable = number % mode.durable_every == 0;
        transaction.set_durability(if is_durable { Durability::Immediate } else { Durability::None })?;
        transaction.set_two_phase_commit(mode.two_phase && is_durable);
        transaction.set_quick_repair(mode.quick_repair && is_durable);
        {
            let mut table = transaction.open_table(TABLE)?;
            for _ in 0..1 + dice.below(12) {
                let key = dice.below(60);
                if dice.below(3) == 0 {
                    table.remove(key)?;
                    model.remove(&key);
                } else {
                    // Some of several pages.
                    let bytes = if dice.below(8) == 0 { dice.below(20_000) } else { dice.below(900) };
                    let value: Vec<u8> = (0..bytes).map(|at| (at * 7 + number + key).to_le_bytes()[0] | 1).collect();
                    table.insert(key, value.as_slice())?;
                    model.insert(key, value);
                }
            }
            if dice.below(10) == 0 {
                table.retain(|_, _| false)?;
                model.clear();
            }
        }
        account.states.push(model);
        transaction.commit()?;
        if is_durable {
            account.durable = account.states.len() - 1;
        }
        if mode.compacts && number % 5 == 4 {
            // A compaction commits, durably, what is there.
            db.compact().map_err(redb::Error::from)?;
            account.durable = account.states.len() - 1;
        }
    }
    Ok(())
}

/// Opens, reads everything and compares.
fn check(disk: &SimDisk, account: &mut Account) -> Result<Database, String> {
    let mut db = open(disk).map_err(|error| format!("it does not open: {error}"))?;
    let read = |db: &Database| -> Result<Model, redb::Error> {
        let table = db.begin_read()?.open_table(TABLE)?;
        table.iter()?.map(|row| row.map(|(key, value)| (key.value(), value.value().to_vec()))).collect::<Result<_, _>>().map_err(Into::into)
    };
    account.found(&read(&db).map_err(|error| format!("it cannot be read: {error}"))?)?;
    // What it repairs by itself is fine, as long as it says what it said before.
    db.check_integrity().map_err(|error| format!("its integrity cannot be checked: {error}"))?;
    account.found(&read(&db).map_err(|error| format!("it cannot be read after the check: {error}"))?)?;
    Ok(db)
}

/// Ends with the machine: what redb would write while it closes is not written.
fn pull_the_plug(disk: &SimDisk, db: Option<Database>) {
    disk.stop();
    let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
}

fn cut(start: &(SimDisk, Account), mode: Mode, seed: u64, operation: u64, fault: Fault) -> (SimDisk, Account) {
    let (disk, mut account) = (start.0.fork(), start.1.clone());
    disk.fault_at(operation, fault, operation);
    let mut db = open(&disk).ok();
    if let Some(db) = &mut db {
        let _ = live(db, &mut account, mode, seed);
    }
    pull_the_plug(&disk, db);
    (disk, account)
}

/// A panic of redb is told as what it is.
fn told<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("a panic: {}", text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()))
    })
}

/// Power cuts made so far, and those of them that hit a repair.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    first: u64,
    second: u64,
}

/// A crash at every operation of a life, in every way, and for some of them at every operation of the repair after it.
fn crash_everywhere(mode: Mode, seed: u64, count: &mut Count) {
    let start = new();
    let begun = start.0.operations();
    let whole = cut(&start, mode, seed, u64::MAX, Fault::Broken).0;
    let ended = whole.operations();
    assert!(ended - begun > 60, "{mode:?}: {} operations are too few to say anything", ended - begun);
    for operation in begun..ended {
        for when in When::EACH {
            let (disk, account) = cut(&start, mode, seed, operation, Fault::Stop(when));
            for (way, survival) in (0..).zip(Survival::EACH) {
                let what = format!("{mode:?}, seed {seed}, {when:?} operation {operation}, {survival:?}");
                let disk = disk.fork();
                disk.crash(survival, operation * 31 + way);
                count.first += 1;
                if (operation + way) % 5 == 0 && when == When::During {
                    crash_the_repair(&disk, &account, mode, &what, count);
                }
                told(|| {
                    let mut account = account.clone();
                    let mut db = check(&disk, &mut account)?;
                    if (operation + way) % 16 == 0 {
                        live(&mut db, &mut account, mode, seed + 1).map_err(|error| format!("it does not go on: {error}"))?;
                        pull_the_plug(&disk, Some(db));
                        disk.crash(Survival::None, 0);
                        check(&disk, &mut account)?;
                    }
                    Ok(())
                })
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            }
        }
    }
}

fn crash_the_repair(crashed: &SimDisk, account: &Account, mode: Mode, what: &str, count: &mut Count) {
    let whole = crashed.fork();
    let begun = whole.operations();
    let db = told(|| check(&whole, &mut account.clone())).unwrap_or_else(|error| panic!("{what}: {error}"));
    let ended = whole.operations();
    pull_the_plug(&whole, Some(db));
    for second in begun..ended {
        let disk = crashed.fork();
        disk.fault_at(second, Fault::Stop(When::During), second);
        let mut account = account.clone();
        let db = told(|| check(&disk, &mut account));
        assert!(db.is_err() && disk.is_stopped(), "{what}: the repair was cut off");
        for survival in [Survival::None, Survival::Random, Survival::TornSectors, Survival::Bytes] {
            let disk = disk.fork();
            disk.crash(survival, second * 13);
            count.second += 1;
            told(|| check(&disk, &mut account.clone()).map(drop))
                .unwrap_or_else(|error| panic!("{what}, then operation {second} of the repair, {survival:?} ({mode:?}): {error}"));
        }
    }
}

fn lives() -> u64 {
    std::env::var("REDB_CRASHES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(1)
}

#[test]
fn redb_keeps_what_it_committed_through_every_power_cut() {
    let mut count = Count::default();
    for seed in 1..=lives() {
        for mode in MODES {
            crash_everywhere(mode, seed, &mut count);
        }
    }
    println!("redb was cut off {} times, and {} times again in the repair after that", count.first, count.second);
    assert!(count.first > 10_000 && count.second > 5_000, "{count:?}");
}

/// A write or sync that fails once. What a commit returned from before it stays, also when the kernel took pages for clean that
/// the disk never had.
#[test]
fn redb_keeps_what_it_committed_before_a_disk_failed() {
    let mut failed = 0;
    for mode in MODES {
        let start = new();
        let begun = start.0.operations();
        let ended = cut(&start, mode, 3, u64::MAX, Fault::Broken).0.operations();
        for operation in begun..ended {
            for fault in [Fault::Broken, Fault::NoSpace] {
                let (disk, account) = cut(&start, mode, 3, operation, fault);
                failed += u64::from(disk.tally().has_failed());
                for survival in [Survival::None, Survival::TornPages] {
                    let disk = disk.fork();
                    // What the cache shows after that was promised to nobody, and is lost if nobody syncs it again.
                    disk.crash(survival, operation);
                    told(|| check(&disk, &mut account.clone()).map(drop))
                        .unwrap_or_else(|error| panic!("{mode:?}, {fault:?} at {operation}, {survival:?}: {error}"));
                }
            }
        }
    }
    println!("the disk failed {failed} times under redb");
    assert!(failed > 500, "{failed}");
}

/// The account sees: where syncs do nothing, some power cut takes what was committed.
#[test]
fn a_redb_whose_syncs_do_nothing_is_found_out() {
    let start = new();
    let begun = start.0.operations();
    let mode = MODES[2];
    let ended = cut(&start, mode, 5, u64::MAX, Fault::Broken).0.operations();
    let found = (begun..ended).any(|operation| {
        let (disk, mut account) = (start.0.fork(), start.1.clone());
        disk.set_lying(Some(FILE));
        disk.fault_at(operation, Fault::Stop(When::After), operation);
        let mut db = open(&disk).ok();
        if let Some(db) = &mut db {
            let _ = live(db, &mut account, mode, 5);
        }
        pull_the_plug(&disk, db);
        disk.set_lying(None);
        disk.crash(Survival::Random, operation);
        told(|| check(&disk, &mut account).map(drop)).is_err()
    });
    assert!(found, "nobody noticed that nothing is ever synced");
}
