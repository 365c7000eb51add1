//! A node's life as its stores see it, and an account of what they promised: kept beside them, by other means.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use lockstep_sim::disk::SimDisk;
use lockstep_storage::guard::{Guard, GuardError, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record};
use lockstep_storage::results::{BlockResults, Location, Results, TxResult};
use lockstep_storage::state::{Change, StateDb};

/// Long enough to roll, flush and prune several times.
pub(crate) const HEIGHTS: u64 = 9;
pub(crate) const GENESIS: [u8; 32] = [0x6e; 32];
const SEGMENT_BYTES: u64 = 2600;
const LOG: LogOptions = LogOptions { salt: [0x5a; 32], segment_bytes: SEGMENT_BYTES };

pub(crate) fn hash(height: u64) -> [u8; 32] {
    let mut hash = [0xb0; 32];
    hash[..8].copy_from_slice(&height.to_le_bytes());
    hash
}

/// What a record of a kind and height holds: the same in every life, as what is signed is.
fn payload(kind: Kind, height: u64) -> Vec<u8> {
    let bytes = if kind == Kind::Body { 700 + height * 37 } else { 90 };
    (0..bytes).map(|at| (at * 31 + height * 7 + kind as u64).to_le_bytes()[0] | 1).collect()
}

pub(crate) fn guard_record(height: u64, step: u8) -> GuardRecord {
    let fill = |bytes: usize| vec![u8::try_from(height).expect("small") * 16 + step; bytes];
    GuardRecord {
        height,
        round: 0,
        step,
        sign_bytes: fill(110),
        message: fill(60),
        lock: (step == 2).then(|| fill(5000)),
        valid: None,
        owner: GENESIS,
        wedge: None,
    }
}

fn tx(height: u64, index: u32) -> [u8; 32] {
    let mut hash = hash(height.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    hash[28..].copy_from_slice(&index.to_le_bytes());
    hash
}

fn results(height: u64) -> BlockResults {
    let txs = (0..3).map(|index| TxResult { hash: tx(height, index), result: vec![index.to_le_bytes()[0]; 20] }).collect();
    BlockResults { height, block: vec![7; 30], txs }
}

/// Path, key and new value.
type KeyChange = ([u8; 32], Vec<u8>, Option<Vec<u8>>);

/// The changes of a flush at a height.
fn changes(height: u64) -> Vec<KeyChange> {
    (0..12u64)
        .map(|at| {
            let key = (height * 5 + at) % 30;
            (hash(key), key.to_be_bytes().to_vec(), (!(key + height).is_multiple_of(5)).then(|| vec![height.to_le_bytes()[0]; 80]))
        })
        .collect()
}

type Model = BTreeMap<[u8; 32], (Vec<u8>, Vec<u8>)>;

/// The state after every flush up to a height.
fn model(height: u64) -> Model {
    let mut model = Model::new();
    for flushed in (1..=height).filter(|at| is_flushed(*at)) {
        for (path, key, value) in changes(flushed) {
            match value {
                Some(value) => model.insert(path, (key, value)),
                None => model.remove(&path),
            };
        }
    }
    model
}

fn is_flushed(height: u64) -> bool {
    height.is_multiple_of(3)
}

/// What was promised, and what was only tried. Kept by the caller of the stores, outside the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Account {
    /// Records in the order they were appended, by sequence number; those above `synced` are only tried.
    appended: BTreeMap<u64, (Kind, u64)>,
    synced: u64,
    pruned_below: u64,
    /// The guard was made.
    guard_made: bool,
    guard: Option<GuardRecord>,
    guard_before: Option<GuardRecord>,
    guard_tried: Option<GuardRecord>,
    flushed: Option<u64>,
    flush_tried: Option<u64>,
    results_synced: u64,
}

/// All stores of a node.
pub(crate) struct Stores {
    log: BlockLog,
    guard: Guard,
    state: StateDb,
    results: Results,
}

pub(crate) fn open(disk: &SimDisk, account: &mut Account) -> Result<Stores, Box<dyn Error>> {
    let (log, _) = BlockLog::open(disk.disk(), "log", LOG)?;
    let guard = match Guard::open(disk, "data/guard", GENESIS) {
        // `init` was cut off; it is run again.
        Err(GuardError::Missing { .. }) if !account.guard_made => Guard::create(disk, "data/guard", GuardRecord::initial(GENESIS))?,
        opened => opened?,
    };
    account.guard_made = true;
    let state = StateDb::open(disk, "data/state")?;
    let results = Results::open(disk.disk(), "log", &log.reader().segments(), log.reader().tip())?;
    Ok(Stores { log, guard, state, results })
}

impl Stores {
    fn append(&mut self, account: &mut Account, kind: Kind, height: u64) -> Result<(), Box<dyn Error>> {
        let bytes = payload(kind, height);
        let next = self.log.last_sequence() + 1;
        account.appended.retain(|sequence, _| *sequence < next);
        account.appended.insert(next, (kind, height));
        let sequence = self.log.append(Record { kind, height, round: 0, block_hash: hash(height), payload: &bytes })?;
        if sequence < next {
            account.appended.remove(&next);
        }
        Ok(())
    }

    fn sync(&mut self, account: &mut Account) -> Result<(), Box<dyn Error>> {
        account.synced = self.log.sync()?;
        Ok(())
    }

    fn sign(&mut self, account: &mut Account, height: u64, step: u8) -> Result<(), Box<dyn Error>> {
        let record = guard_record(height, step);
        if self.guard.last().is_some_and(|last| last.position() >= record.position()) {
            return Ok(());
        }
        account.guard_tried = Some(record.clone());
        self.guard.write(&record)?;
        account.guard_before = account.guard.replace(record);
        account.guard_tried = None;
        Ok(())
    }

    /// Goes on from where the log ends.
    pub(crate) fn live(&mut self, account: &mut Account) -> Result<(), Box<dyn Error>> {
        // Execution goes on from the flushed state.
        let flushed = self.state.flushed().map_or(0, |flushed| flushed.height);
        let tip = self.log.reader().tip().unwrap_or(0);
        for height in flushed + 1..=tip {
            self.execute(account, height)?;
        }
        for height in tip + 1..=HEIGHTS {
            if height.is_multiple_of(2) {
                self.log.preallocate_next()?;
            }
            self.append(account, Kind::Body, height)?;
            self.sync(account)?;
            self.sign(account, height, 1)?;
            self.append(account, Kind::Proposal, height)?;
            self.append(account, Kind::Polka, height)?;
            self.sign(account, height, 2)?;
            self.append(account, Kind::Decision, height)?;
            self.sync(account)?;
            self.execute(account, height)?;
            if height == 6 {
                account.pruned_below = 4;
                let gone = self.log.prune(4)?;
                self.results.remove(&gone)?;
            }
        }
        self.log.mark()?;
        Ok(())
    }

    fn execute(&mut self, account: &mut Account, height: u64) -> Result<(), Box<dyn Error>> {
        let segment = self.log.reader().segment_of(height).ok_or("a decided height has a segment")?;
        self.results.append(segment, &results(height))?;
        if is_flushed(height) && account.flushed.is_none_or(|flushed| flushed < height) {
            self.results.sync()?;
            account.results_synced = height;
            account.flush_tried = Some(height);
            let changes = changes(height);
            let changes = changes.iter().map(|(path, key, value)| Change { path: *path, key, value: value.as_deref() });
            self.state.flush(height, changes, &height.to_le_bytes())?;
            account.flushed = Some(height);
            account.flush_tried = None;
        }
        Ok(())
    }

    /// Compares the stores with the account. What they show counts as promised from now on.
    pub(crate) fn check(&mut self, account: &mut Account) -> Result<(), String> {
        self.check_log(account)?;
        self.check_guard(account)?;
        self.check_state(account)?;
        self.check_results(account)
    }

    fn check_log(&self, account: &mut Account) -> Result<(), String> {
        let reader = self.log.reader();
        let mut found = BTreeMap::new();
        for height in 0..=HEIGHTS + 1 {
            for stored in reader.records(height).map_err(|error| format!("log: {error}"))? {
                let entry = stored.entry;
                if entry.height != height || entry.block_hash != hash(height) || stored.payload != payload(entry.kind, height) {
                    return Err(format!("the log invented {entry:?}"));
                }
                found.insert(entry.sequence, (entry.kind, height));
            }
        }
        for (sequence, record) in &found {
            if account.appended.get(sequence) != Some(record) {
                return Err(format!("record {sequence} was never appended: {record:?}"));
            }
        }
        let prunable = |height: u64| height < account.pruned_below;
        for (sequence, (kind, height)) in account.appended.range(..=account.synced) {
            if !found.contains_key(sequence) && !prunable(*height) {
                return Err(format!("record {sequence} was durable: {kind:?} of height {height}"));
            }
        }
        let last = found.keys().next_back().copied().unwrap_or(0);
        for (sequence, (kind, height)) in account.appended.range(..=last) {
            if !found.contains_key(sequence) && !prunable(*height) {
                return Err(format!("record {last} is there, and {sequence} before it is not: {kind:?} of height {height}"));
            }
        }
        for (kind, height) in found.values() {
            let body = found.values().any(|record| *record == (Kind::Body, *height));
            if *kind == Kind::Decision && !body && !prunable(*height) {
                return Err(format!("height {height} is decided without its body"));
            }
        }
        // Marks have numbers too.
        account.synced = self.log.last_sequence();
        account.appended = found;
        Ok(())
    }

    fn check_guard(&self, account: &mut Account) -> Result<(), String> {
        let last = self.guard.last().ok_or("the guard has no readable slot")?;
        let promised = account.guard.clone().unwrap_or_else(|| GuardRecord::initial(GENESIS));
        let is_tried = account.guard_tried.as_ref() == Some(last);
        if *last != promised && !is_tried {
            return Err(format!("the guard is at {:?}, promised {:?}", last.position(), promised.position()));
        }
        for record in self.guard.records() {
            let known = [&account.guard, &account.guard_before, &account.guard_tried].into_iter().flatten();
            if !known.chain([&GuardRecord::initial(GENESIS)]).any(|known| known == record) {
                return Err(format!("the guard invented {:?}", record.position()));
            }
        }
        if is_tried && !self.guard.records().contains(&&promised) {
            return Err("the record before the one being written is lost".to_owned());
        }
        let tip = self.log.reader().tip().unwrap_or(0);
        if last.height > tip + 1 {
            return Err(format!("the guard is at height {} and the log's tip is {tip}", last.height));
        }
        if is_tried {
            account.guard_before = account.guard.replace(last.clone());
            account.guard_tried = None;
        }
        Ok(())
    }

    fn check_state(&mut self, account: &mut Account) -> Result<(), String> {
        let mut found = Model::new();
        let flushed = self.state.load(|path, key, value| {
            found.insert(*path, (key.to_vec(), value.to_vec()));
        });
        let height = flushed.map_err(|error| format!("state: {error}"))?.map(|flushed| flushed.height);
        if height != account.flushed && !(height.is_some() && height == account.flush_tried) {
            return Err(format!("the state is at {height:?}, promised {:?}", account.flushed));
        }
        if found != model(height.unwrap_or(0)) {
            return Err(format!("the state at {height:?} is not what was flushed"));
        }
        if height > self.log.reader().tip() {
            return Err(format!("the state is at {height:?}, ahead of the log"));
        }
        account.flushed = height;
        account.flush_tried = None;
        Ok(())
    }

    fn check_results(&self, account: &mut Account) -> Result<(), String> {
        let reader = self.results.reader();
        let last = reader.last_height().unwrap_or(0);
        if last < account.results_synced || last < account.flushed.unwrap_or(0) {
            return Err(format!("results end at {last}, promised {}", account.results_synced));
        }
        for height in 1..=HEIGHTS {
            let found = reader.results(height).map_err(|error| format!("results: {error}"))?;
            let wanted = (height <= last).then(|| results(height));
            if found != wanted && !(found.is_none() && height < account.pruned_below) {
                return Err(format!("results of height {height} are wrong"));
            }
            for index in 0..3 {
                let place = reader.lookup(&tx(height, index)).map_err(|error| format!("lookup: {error}"))?;
                if place != found.as_ref().map(|_| Location { height, index }) {
                    return Err(format!("transaction {height}/{index} is at {place:?}"));
                }
            }
        }
        Ok(())
    }
}

/// Opens everything and compares.
pub(crate) fn reopen(disk: &SimDisk, account: &mut Account) -> Result<Stores, String> {
    let mut stores = open(disk, account).map_err(|error| format!("opening failed: {error}"))?;
    stores.check(account)?;
    Ok(stores)
}

/// A whole life; what it promised is in the account even when it ends early.
pub(crate) fn life(disk: &SimDisk, account: &mut Account) -> Result<(), Box<dyn Error>> {
    open(disk, account)?.live(account)
}

/// A whole life on a fresh disk, and how many operations it takes.
pub(crate) fn undisturbed() -> (SimDisk, Account, u64) {
    let disk = SimDisk::new();
    let mut account = Account::default();
    life(&disk, &mut account).expect("nothing disturbs it");
    let operations = disk.operations();
    (disk, account, operations)
}

/// The disk as a trait object, for stores that want one.
pub(crate) fn shared(disk: &SimDisk) -> Arc<dyn lockstep_storage::disk::Disk> {
    disk.disk()
}
