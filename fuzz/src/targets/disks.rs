//! Sequences of operations on the stores over the simulated disk, with faults and power cuts between and within them,
//! against a plain model of what was promised. The input is the sequence.

use std::collections::BTreeMap;

use lockstep_sim::disk::{Fault, SimDisk, Survival, When};
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogError, LogOptions, Record};
use lockstep_storage::results::{BlockResults, Results, TxResult};
use lockstep_storage::state::{Change, StateDb};

use super::{Choices, Meter};

/// Longer sequences show nothing that shorter ones do not.
const OPERATIONS_MAX: usize = 64;

/// Plans a fault for one of the next operations of the disk.
fn plan(disk: &SimDisk, choices: &mut Choices<'_>) {
    let ahead = u64::from(choices.below(12));
    let fault = match choices.below(5) {
        0 => Fault::NoSpace,
        1 => Fault::Broken,
        place => Fault::Stop(When::EACH[usize::from(place - 2)]),
    };
    disk.fault_at(disk.operations() + ahead, fault, ahead);
}

/// A power cut, after which the disk runs again without faults.
fn cut(disk: &SimDisk, choices: &mut Choices<'_>) -> SimDisk {
    let survival = Survival::EACH[usize::from(choices.below(6))];
    disk.crash(survival, u64::from(choices.below(255)));
    disk.set_full(false);
    disk.fork()
}

const LOG: LogOptions = LogOptions { salt: [0x5a; 32], segment_bytes: 1200 };

/// What was appended to a log, by sequence number, and how much of it is promised.
#[derive(Default)]
struct LogModel {
    appended: BTreeMap<u64, (Kind, u64, Vec<u8>)>,
    promised: u64,
    pruned_below: u64,
}

impl LogModel {
    /// Everything promised is there as it was appended, and nothing is there that was not appended.
    fn check(&mut self, log: &BlockLog) {
        let reader = log.reader();
        let last = log.last_sequence();
        assert!(last >= self.promised, "{} records were durable, {last} are left", self.promised);
        let mut found = BTreeMap::new();
        for height in 0..=self.appended.values().map(|(_, height, _)| *height).max().unwrap_or(0) {
            for stored in reader.records(height).expect("a sound log is read") {
                found.insert(stored.entry.sequence, (stored.entry.kind, stored.entry.height, stored.payload));
            }
        }
        for (sequence, record) in &found {
            assert_eq!(self.appended.get(sequence), Some(record), "record {sequence} is not what was appended");
            assert!(*sequence <= last, "a record behind the last");
        }
        for (sequence, (kind, height, _)) in &self.appended {
            let is_missing = *sequence <= self.promised && *height >= self.pruned_below && !found.contains_key(sequence);
            assert!(!is_missing, "record {sequence} of height {height}, {kind:?}, was durable and is gone");
        }
        // What was only tried and is not there never will be: its number may be a mark's now.
        self.appended = found;
        reader.verify().expect("a sound log verifies");
    }
}

fn hash_of(height: u64) -> [u8; 32] {
    let mut hash = [0xb0; 32];
    hash[..8].copy_from_slice(&height.to_le_bytes());
    hash
}

/// The block log: appends, syncs, marks, segments made ahead, pruning; a full disk, faults, kills and power cuts.
pub(super) fn disk_log(bytes: &[u8], _: Meter) {
    let mut choices = Choices(bytes);
    let mut disk = SimDisk::new();
    let mut model = LogModel::default();
    let mut open: Option<BlockLog> = None;
    for step in 0..OPERATIONS_MAX {
        if choices.0.is_empty() {
            break;
        }
        let Some(log) = &mut open else {
            match BlockLog::open(disk.disk(), "log", LOG) {
                Ok((log, _)) => {
                    model.check(&log);
                    open = Some(log);
                }
                // A fault that was planned strikes while the log is opened.
                Err(_) => disk = cut(&disk, &mut choices),
            }
            continue;
        };
        let next = log.reader().tip().unwrap_or(0) + 1;
        let has_body = model.appended.values().any(|(kind, height, _)| *kind == Kind::Body && *height == next);
        let append = |kind: Kind, size: u8, log: &mut BlockLog, model: &mut LogModel| {
            let payload = vec![u8::try_from(step).expect("small") | 1; usize::from(size) * 5];
            let round = if kind == Kind::Body { 0 } else { u32::from(size) };
            let sequence = log.last_sequence() + 1;
            model.appended.insert(sequence, (kind, next, payload.clone()));
            let written = log.append(Record { kind, height: next, round, block_hash: hash_of(next), payload: &payload });
            // For want of space nothing was done; and a body that is there is not written again.
            if matches!(&written, Err(LogError::NoSpace(_))) || written.as_ref().is_ok_and(|written| *written != sequence) {
                model.appended.remove(&sequence);
            }
            written.map(drop)
        };
        let done = match choices.below(13) {
            0 | 1 => append(Kind::Body, choices.below(255), log, &mut model),
            2 => append(Kind::Polka, choices.below(255), log, &mut model),
            3 | 4 if has_body => {
                append(Kind::Decision, choices.below(60), log, &mut model).and_then(|()| log.sync()).map(|synced| model.promised = synced)
            }
            5 => log.sync().map(|synced| model.promised = synced),
            6 => log.preallocate_next(),
            7 => {
                let below = next.saturating_sub(u64::from(choices.below(4)));
                model.pruned_below = model.pruned_below.max(below);
                log.prune(below).map(drop)
            }
            8 => {
                disk.set_full(choices.below(2) == 0);
                Ok(())
            }
            9 => {
                plan(&disk, &mut choices);
                Ok(())
            }
            10 => {
                open = None;
                disk = cut(&disk, &mut choices);
                continue;
            }
            11 => {
                open = None;
                disk.kill();
                disk.set_full(false);
                continue;
            }
            // A clean end writes a mark, which counts as a record of the log.
            12 => {
                let marked = log.mark();
                open = None;
                if marked.is_err() {
                    disk = cut(&disk, &mut choices);
                }
                continue;
            }
            _ => Ok(()),
        };
        match done {
            Ok(()) => {}
            Err(LogError::NoSpace(_)) => {}
            // The node stops, and the machine may lose power with it.
            Err(_) => {
                open = None;
                disk = cut(&disk, &mut choices);
            }
        }
    }
    drop(open);
    disk = cut(&disk, &mut choices);
    let (log, _) = BlockLog::open(disk.disk(), "log", LOG).expect("a log opens after a power cut");
    model.check(&log);
}

const OWNER: [u8; 32] = [0x6e; 32];

/// The vote guard: records in ascending places; faults, kills and power cuts. What was promised last counts, or what was
/// tried after it and never told.
pub(super) fn disk_guard(bytes: &[u8], _: Meter) {
    let mut choices = Choices(bytes);
    let mut disk = SimDisk::new();
    drop(Guard::create(&disk, "guard", GuardRecord::initial(OWNER)).expect("made"));
    let (mut promised, mut tried) = (GuardRecord::initial(OWNER), None);
    let mut open: Option<Guard> = None;
    for _ in 0..OPERATIONS_MAX {
        if choices.0.is_empty() {
            break;
        }
        let Some(guard) = &mut open else {
            match Guard::open(&disk, "guard", OWNER) {
                Ok(guard) => {
                    check_guard(&guard, &mut promised, &mut tried);
                    open = Some(guard);
                }
                Err(_) => disk = cut(&disk, &mut choices),
            }
            continue;
        };
        match choices.below(5) {
            0..=2 => {
                let size = usize::from(choices.below(255)) * 40;
                let fill = u8::try_from(size % 251).expect("small");
                let record = GuardRecord {
                    height: promised.height + u64::from(choices.below(2)),
                    round: promised.round + 1,
                    step: choices.below(4),
                    sign_bytes: vec![fill; 60],
                    lock: (size > 0).then(|| vec![fill; size]),
                    ..GuardRecord::initial(OWNER)
                };
                match guard.write(&record) {
                    Ok(()) => promised = record,
                    Err(_) => {
                        tried = Some(record);
                        open = None;
                        disk = cut(&disk, &mut choices);
                    }
                }
            }
            3 => plan(&disk, &mut choices),
            _ => {
                open = None;
                if choices.below(2) == 0 {
                    disk.kill();
                } else {
                    disk = cut(&disk, &mut choices);
                }
            }
        }
    }
    drop(open);
    disk = cut(&disk, &mut choices);
    let guard = Guard::open(&disk, "guard", OWNER).expect("a guard opens after a power cut");
    check_guard(&guard, &mut promised, &mut tried);
}

fn check_guard(guard: &Guard, promised: &mut GuardRecord, tried: &mut Option<GuardRecord>) {
    let last = guard.last().expect("a power cut takes no guard").clone();
    assert!(last == *promised || Some(&last) == tried.as_ref(), "the guard says what nobody wrote last");
    *promised = last;
    *tried = None;
}

type State = BTreeMap<[u8; 32], (Vec<u8>, Vec<u8>)>;

/// The state database, which is redb over the simulated disk: flushes of changes; faults, kills and power cuts. What is
/// there is the state of a flush that was promised last, or of one that was tried after it.
pub(super) fn disk_state(bytes: &[u8], _: Meter) {
    /// A database costs more than a log: pages, checks when it opens.
    const OPERATIONS_MAX: usize = 24;
    let mut choices = Choices(bytes);
    let mut disk = SimDisk::new();
    let (mut promised, mut tried): ((u64, State), Option<(u64, State)>) = ((0, State::new()), None);
    let mut open: Option<StateDb> = None;
    for _ in 0..OPERATIONS_MAX {
        if choices.0.is_empty() {
            break;
        }
        let Some(state) = &mut open else {
            match StateDb::open(&disk, "state") {
                Ok(mut state) => {
                    check_state(&mut state, &mut promised, &mut tried);
                    open = Some(state);
                }
                Err(_) => disk = cut(&disk, &mut choices),
            }
            continue;
        };
        match choices.below(6) {
            0..=3 => {
                let (mut next, height) = (promised.1.clone(), promised.0 + 1 + u64::from(choices.below(2)));
                let mut changes = Vec::new();
                for _ in 0..=choices.below(40) {
                    let (key, size) = (choices.below(64), usize::from(choices.below(255)));
                    let value = (size % 4 != 0).then(|| vec![key ^ 0x55; size * 9]);
                    let path = hash_of(u64::from(key).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    match &value {
                        Some(value) => next.insert(path, (vec![key], value.clone())),
                        None => next.remove(&path),
                    };
                    changes.push((path, vec![key], value));
                }
                let given = changes.iter().map(|(path, key, value)| Change { path: *path, key, value: value.as_deref() });
                match state.flush(height, given, &height.to_le_bytes()) {
                    Ok(()) => promised = (height, next),
                    Err(_) => {
                        tried = Some((height, next));
                        open = None;
                        disk = cut(&disk, &mut choices);
                    }
                }
            }
            4 => plan(&disk, &mut choices),
            _ => {
                open = None;
                if choices.below(2) == 0 {
                    disk.kill();
                } else {
                    disk = cut(&disk, &mut choices);
                }
            }
        }
    }
    drop(open);
    disk = cut(&disk, &mut choices);
    let mut state = StateDb::open(&disk, "state").expect("a database opens after a power cut");
    check_state(&mut state, &mut promised, &mut tried);
}

fn check_state(state: &mut StateDb, promised: &mut (u64, State), tried: &mut Option<(u64, State)>) {
    let mut found = State::new();
    let flushed = state
        .load(|path, key, value| {
            found.insert(*path, (key.to_vec(), value.to_vec()));
        })
        .expect("a sound state is read");
    let height = flushed.map_or(0, |flushed| flushed.height);
    let found = (height, found);
    assert!(found == *promised || Some(&found) == tried.as_ref(), "the state of height {height} is that of no flush");
    *promised = found;
    *tried = None;
}

/// Results beside a log of many small segments: what was synced is found by height and by hash; what was not may be gone, and
/// is then made again.
pub(super) fn disk_results(bytes: &[u8], _: Meter) {
    const SEGMENTS: [u64; 4] = [1, 20, 40, 60];
    let mut choices = Choices(bytes);
    let mut disk = SimDisk::new();
    let mut model: BTreeMap<u64, BlockResults> = BTreeMap::new();
    let mut promised = 0;
    let mut segment = 0;
    let mut tried: BTreeMap<u64, Vec<BlockResults>> = BTreeMap::new();
    let mut open: Option<Results> = None;
    for _ in 0..OPERATIONS_MAX {
        if choices.0.is_empty() {
            break;
        }
        let Some(results) = &mut open else {
            match Results::open(disk.disk(), "log", &SEGMENTS, Some(u64::MAX)) {
                Ok(results) => {
                    check_results(&results, &mut model, &tried, promised);
                    segment =
                        results.reader().open_segment().map_or(0, |open| SEGMENTS.iter().position(|first| *first == open).unwrap_or(0));
                    open = Some(results);
                }
                Err(_) => disk = cut(&disk, &mut choices),
            }
            continue;
        };
        let done = match choices.below(7) {
            0..=2 => {
                segment = (segment + usize::from(choices.below(3) == 0)).min(SEGMENTS.len() - 1);
                let height = results.reader().last_height().unwrap_or(0) + 1;
                let size = choices.below(255);
                let txs = (0..size % 5).map(|n| TxResult { hash: tx_hash(height, n), result: vec![n; usize::from(size)] }).collect();
                let block = BlockResults { height, block: vec![size; 30], txs };
                tried.entry(height).or_default().push(block.clone());
                results.append(SEGMENTS[segment], &block).map(|()| {
                    model.insert(height, block);
                })
            }
            3 => results.sync().map(|()| promised = model.keys().last().copied().unwrap_or(0)),
            4 => {
                plan(&disk, &mut choices);
                Ok(())
            }
            5 => {
                disk.set_full(choices.below(2) == 0);
                Ok(())
            }
            _ => {
                open = None;
                disk.set_full(false);
                if choices.below(2) == 0 {
                    disk.kill();
                } else {
                    disk = cut(&disk, &mut choices);
                }
                continue;
            }
        };
        if done.is_err_and(|error| !error.is_no_space()) {
            open = None;
            disk = cut(&disk, &mut choices);
        }
    }
    drop(open);
    disk = cut(&disk, &mut choices);
    let results = Results::open(disk.disk(), "log", &SEGMENTS, Some(u64::MAX)).expect("results open after a power cut");
    check_results(&results, &mut model, &tried, promised);
}

fn tx_hash(height: u64, index: u8) -> [u8; 32] {
    let mut hash = hash_of(height);
    hash[31] = index;
    hash
}

/// What was not synced may be an earlier attempt of the same height, of which a full disk took a part and a power cut made the rest zeros,
/// as they were. Of one chain both are the same.
fn check_results(results: &Results, model: &mut BTreeMap<u64, BlockResults>, tried: &BTreeMap<u64, Vec<BlockResults>>, promised: u64) {
    let reader = results.reader();
    let last = reader.last_height().unwrap_or(0);
    assert!(last >= promised, "results of height {promised} were durable, {last} is the last");
    model.retain(|height, _| *height <= last);
    for (height, block) in model.iter_mut().filter(|(height, _)| **height > promised) {
        if let Ok(Some(found)) = reader.results(*height)
            && tried.get(height).is_some_and(|tried| tried.contains(&found))
        {
            *block = found;
        }
    }
    for (height, block) in model.iter() {
        // What was not synced may be torn, and is told as damage then; a start makes it again.
        match reader.results(*height) {
            Ok(found) => assert_eq!(found.as_ref(), Some(block), "results of height {height}"),
            Err(error) => assert!(*height > promised, "results of height {height} were durable: {error}"),
        }
        for (index, tx) in block.txs.iter().enumerate() {
            if let Ok(found) = reader.lookup(&tx.hash) {
                let place = found.map(|found| (found.height, found.index as usize));
                assert!(place == Some((*height, index)) || *height > promised, "a transaction of height {height} is at {place:?}");
            }
        }
    }
}
