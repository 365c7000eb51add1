//! Bits that change at rest, in every byte of every file: the right answer or an error that names the place, never
//! another answer and never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::Once;

use lockstep_sim::disk::{Fault, PAGE_BYTES, SimDisk, Survival, When};
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogError, LogOptions, Record};
use lockstep_storage::results::{BlockResults, Location, Results, ResultsError, TxResult};
use lockstep_storage::state::{Change, StateDb, StateError};

use crate::scenario::{GENESIS, guard_record, hash, shared};

const MASKS: [u8; 3] = [0x01, 0x80, 0xff];
const LOG: LogOptions = LogOptions { salt: [0x5a; 32], segment_bytes: 1 << 20 };
const SEGMENT: &str = "log/00000000000000000001.seg";

/// Panics that are caught are part of these tests, and there are thousands.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        set_hook(Box::new(|panic| {
            if std::env::var_os("SHOW_PANICS").is_some() {
                eprintln!("{panic}\n{}", std::backtrace::Backtrace::force_capture())
            }
        }))
    });
}

fn payload(kind: Kind, height: u64) -> Vec<u8> {
    vec![kind as u8 * 16 + u8::try_from(height).expect("small"); if kind == Kind::Body { 150 } else { 20 }]
}

/// A log of three heights; with `closed`, one that was closed as it should be.
fn log(closed: bool) -> SimDisk {
    let disk = SimDisk::new();
    let (mut log, _) = BlockLog::open(shared(&disk), "log", LOG).expect("begun");
    for height in 1..=3 {
        for kind in [Kind::Body, Kind::Proposal, Kind::Polka, Kind::Decision] {
            let payload = payload(kind, height);
            log.append(Record { kind, height, round: 0, block_hash: hash(height), payload: &payload }).expect("appended");
        }
        log.sync().expect("durable");
    }
    if closed {
        log.mark().expect("closed");
    }
    disk
}

/// Everything the log holds is as it was written; how many records that are.
fn records(log: &BlockLog) -> Result<usize, LogError> {
    let mut records = 0;
    for height in 0..=10 {
        for stored in log.reader().records(height)? {
            assert_eq!(stored.payload, payload(stored.entry.kind, height));
            assert_eq!(stored.entry.block_hash, hash(height));
            records += 1;
        }
    }
    Ok(records)
}

#[test]
fn rot_in_a_closed_log_is_found_at_every_byte() {
    let disk = log(true);
    let bytes = disk.bytes(SEGMENT).expect("it is there").len() as u64;
    // Only the mark, which says that all before it is durable, has nothing after it that vouches for it.
    let mark = bytes - 108;
    for offset in 0..bytes {
        for mask in MASKS {
            let disk = disk.fork();
            disk.rot(SEGMENT, offset, mask);
            match BlockLog::open(shared(&disk), "log", LOG) {
                Ok((log, recovery)) => {
                    assert!(offset >= mark, "rot at {offset} was not noticed");
                    assert_eq!((records(&log).expect("all can be read"), recovery.truncated_bytes), (12, 108));
                    assert_eq!(log.reader().tip(), Some(3));
                }
                Err(LogError::Rot { segment, offset: at, .. }) => {
                    assert!(offset < mark && segment == SEGMENT && at <= offset && offset < at + 108 + 150);
                }
                Err(other) => panic!("rot at {offset}: {other}"),
            }
        }
    }
}

/// After a power cut the last records have no witness: rot in them is a tear to anyone who looks. Everything before the
/// last sync but one has, and what is cut off is never replaced by something else.
#[test]
fn rot_in_a_log_that_was_not_closed_is_found_or_cut_off() {
    let disk = log(false);
    let bytes = disk.bytes(SEGMENT).expect("it is there").len() as u64;
    let body = 108 + 150;
    let third_height = 80 + 2 * (body + 3 * 128);
    for offset in 0..bytes {
        for mask in MASKS {
            let disk = disk.fork();
            disk.rot(SEGMENT, offset, mask);
            match BlockLog::open(shared(&disk), "log", LOG) {
                Ok((log, _)) => {
                    assert!(offset >= third_height, "rot at {offset} was not noticed");
                    let left = records(&log).expect("all can be read");
                    assert!((8..12).contains(&left), "{left} records after rot at {offset}");
                    assert_eq!(log.reader().tip(), Some(2));
                }
                Err(LogError::Rot { segment, .. }) => assert!(offset < third_height && segment == SEGMENT),
                Err(other) => panic!("rot at {offset}: {other}"),
            }
        }
    }
}

#[test]
fn rot_under_an_open_log_is_found_when_it_is_read() {
    let disk = log(true);
    let (log, _) = BlockLog::open(shared(&disk), "log", LOG).expect("sound");
    let bytes = disk.bytes(SEGMENT).expect("it is there").len() as u64;
    for offset in 80..bytes - 108 {
        disk.rot(SEGMENT, offset, 0x10);
        assert!(matches!(records(&log), Err(LogError::Rot { .. })), "rot at {offset} was not noticed");
        disk.rot(SEGMENT, offset, 0x10);
    }
    assert_eq!(records(&log).expect("sound again"), 12);
}

#[test]
fn a_truncated_log_keeps_a_prefix_or_names_the_place() {
    let disk = log(true);
    let bytes = disk.bytes(SEGMENT).expect("it is there");
    for len in 0..bytes.len() as u64 {
        let disk = disk.fork();
        shared(&disk).open(SEGMENT).expect("it is there").set_len(len).expect("an accident");
        match BlockLog::open(shared(&disk), "log", LOG) {
            Ok((log, _)) => assert!(records(&log).expect("all can be read") <= 12),
            Err(LogError::Rot { .. }) => assert!(len < 80),
            Err(other) => panic!("cut to {len}: {other}"),
        }
    }
}

fn guard() -> SimDisk {
    let disk = SimDisk::new();
    let mut guard = Guard::create(&disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
    for (height, step) in [(1, 1), (1, 2), (2, 1)] {
        guard.write(&guard_record(height, step)).expect("durable");
    }
    disk
}

#[test]
fn rot_in_any_one_byte_of_the_guard_changes_nothing() {
    let disk = guard();
    for copy in 0..4u64 {
        // Two pages hold the record with the lock and some of the page after it.
        for within in 0..8192 + 64 {
            let offset = copy * (4 << 20) + within;
            let mask = MASKS[usize::try_from(offset % 3).expect("small")];
            let disk = disk.fork();
            disk.rot("guard", offset, mask);
            for _ in 0..2 {
                let guard = Guard::open(&disk, "guard", GENESIS).expect("it opens");
                assert_eq!(guard.records(), [&guard_record(1, 2), &guard_record(2, 1)], "rot at {offset}");
                disk.crash(Survival::None, 0);
            }
        }
    }
}

/// Opening repairs: of two copies that rot one after the other, with a restart between, both are left.
#[test]
fn a_copy_that_rotted_is_whole_again_after_a_restart() {
    for slot in 0..2 {
        for first in 0..2 {
            let disk = guard();
            for copy in [first, 1 - first] {
                disk.rot("guard", (slot * 2 + copy) * (4 << 20) + 100, 0xff);
                let guard = Guard::open(&disk, "guard", GENESIS).expect("it opens");
                assert_eq!(guard.records(), [&guard_record(1, 2), &guard_record(2, 1)]);
                assert_eq!(guard.repaired_copies(), 1);
                disk.crash(Survival::None, 0);
            }
        }
    }
}

#[test]
fn rot_in_both_copies_of_a_slot_leaves_the_other() {
    for (slot, left) in [(0, guard_record(2, 1)), (1, guard_record(1, 2))] {
        for within in 0..300 {
            let disk = guard();
            for copy in 0..2 {
                disk.rot("guard", (slot * 2 + copy) * (4 << 20) + within, 0xff);
            }
            let mut guard = Guard::open(&disk, "guard", GENESIS).expect("it opens");
            let all = guard.records().len() == 2;
            // The padding of the last page and the unused bytes of the header are part of the checksum or of nothing.
            assert!(all || guard.last() == Some(&left), "rot at {within}");
            guard.write(&guard_record(3, 1)).expect("and it goes on");
            let guard = Guard::open(&disk, "guard", GENESIS).expect("it opens");
            assert_eq!(guard.last(), Some(&guard_record(3, 1)));
        }
    }
}

#[test]
fn a_guard_whose_pages_cannot_be_read_says_so_and_signs_nothing() {
    let disk = guard();
    disk.set_unreadable("guard", true);
    let refused = Guard::open(&disk, "guard", GENESIS).err().expect("refused");
    assert!(refused.to_string().contains("cannot read guard"), "{refused}");
    // A torn write can be read. Where the pages of a slot cannot, that slot may have held the newest record.
    for slot in 0..2 {
        let disk = guard();
        for copy in 0..2 {
            disk.lose_page("guard", (slot * 2 + copy) * (4 << 20) / PAGE_BYTES);
        }
        let guard = Guard::open(&disk, "guard", GENESIS).expect("it opens");
        assert!(!guard.is_readable() && guard.records().is_empty());
    }
}

fn key(at: u64) -> [u8; 32] {
    hash(at.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn state(keys: u64) -> SimDisk {
    let disk = SimDisk::new();
    let mut state = StateDb::open(&disk, "state").expect("made");
    for height in 1..=2 {
        let values: Vec<_> = (0..keys).map(|at| (key(at), at.to_be_bytes(), [height, at].map(|part| part.to_le_bytes()[0]))).collect();
        let changes = values.iter().map(|(path, key, value)| Change { path: *path, key, value: Some(value) });
        state.flush(height, changes, b"meta").expect("flushed");
    }
    drop(state);
    disk
}

/// What a load says: everything as it was flushed, or an error.
fn loads(disk: &SimDisk, keys: u64) -> Result<u64, StateError> {
    read(&mut StateDb::open(disk, "state")?, keys, keys)
}

/// Everything as it was flushed, of which only the first keys changed at the third height.
fn read(state: &mut StateDb, keys: u64, changed: u64) -> Result<u64, StateError> {
    let mut found = Vec::new();
    let flushed = state.load(|path, _, value| found.push((*path, value.to_vec())))?.expect("it was flushed");
    let height = |at| if at < changed { flushed.height } else { flushed.height.min(2) };
    let mut wanted: Vec<_> = (0..keys).map(|at| (key(at), [height(at), at].map(|part| part.to_le_bytes()[0]).to_vec())).collect();
    wanted.sort();
    assert_eq!((found, flushed.meta.as_slice()), (wanted, b"meta".as_slice()));
    Ok(flushed.height)
}

/// The same of a database whose pages are checked after it was read, and then a third height is written to it.
fn loads_and_writes(disk: &SimDisk, keys: u64, was_read: &mut bool) -> Result<u64, StateError> {
    let changed = keys / 4;
    let mut state = StateDb::open_to_read(disk, "state")?;
    let height = read(&mut state, keys, keys)?;
    *was_read = true;
    if height == 2 {
        let values: Vec<_> = (0..changed).map(|at| (key(at), at.to_be_bytes(), [3, at.to_le_bytes()[0]])).collect();
        let changes = values.iter().map(|(path, key, value)| Change { path: *path, key, value: Some(value) });
        state.flush(3, changes, b"meta")?;
        drop(state);
        assert_eq!(read(&mut StateDb::open(disk, "state")?, keys, changed)?, 3);
    }
    Ok(height)
}

#[test]
fn rot_in_any_byte_of_the_state_is_harmless_or_found() {
    quiet();
    let keys = 60;
    let disk = state(keys);
    assert_eq!(loads(&disk.fork(), keys).expect("sound"), 2);
    let bytes = disk.bytes("state").expect("it is there");
    let (mut harmless, mut older, mut found, mut found_later) = (0u32, 0u32, 0u32, 0u32);
    // Pages that are all zero were never written.
    let written = (0..bytes.len()).filter(|offset| bytes[offset / 4096 * 4096..][..4096].iter().any(|byte| *byte != 0));
    // A step that no page, record or field has: all kinds of places are met.
    let step = if std::env::var_os("LOCKSTEP_EVERY_BYTE").is_some() { 1 } else { 5 };
    for offset in written.step_by(step) {
        let mask = MASKS[offset % 3];
        let disk = disk.fork();
        disk.rot("state", offset as u64, mask);
        let same = disk.fork();
        let at_once = match catch_unwind(AssertUnwindSafe(|| loads(&disk, keys))) {
            Ok(Ok(2)) => true,
            Ok(Ok(_)) => {
                older += 1;
                true
            }
            Ok(Err(error)) => {
                assert!(error.to_string().contains("state"), "{error}");
                false
            }
            Err(_) => panic!("rot at {offset} ^ {mask} of {} panicked or was believed", bytes.len()),
        };
        let mut was_read = false;
        match catch_unwind(AssertUnwindSafe(|| loads_and_writes(&same, keys, &mut was_read))) {
            Ok(Ok(_)) if at_once => harmless += 1,
            Ok(Err(StateError::Damaged { .. })) if !at_once => {
                found += 1;
                found_later += u32::from(was_read);
            }
            Ok(other) => panic!("rot at {offset} ^ {mask}: {other:?}, and sound at once: {at_once}"),
            Err(_) => panic!("rot at {offset} ^ {mask} of {} panicked or was believed by who writes", bytes.len()),
        }
    }
    assert!(found > 200 && found_later > 20 && harmless > 200, "{found} found, {found_later} later, {harmless} harmless, {older} older");
}

fn results(disk: &SimDisk) -> Results {
    Results::open(shared(disk), "log", &[1, 9], Some(4)).expect("results open whatever rots")
}

fn block(height: u64) -> BlockResults {
    let txs = (0..2).map(|index| TxResult { hash: hash(height * 10 + index), result: vec![7; 9] }).collect();
    BlockResults { height, block: vec![1; 11], txs }
}

#[test]
fn rot_in_any_byte_of_results_or_index_is_harmless_or_found() {
    let disk = SimDisk::new();
    let mut written = results(&disk);
    for height in 1..=4 {
        written.append(if height < 4 { 1 } else { 9 }, &block(height)).expect("appended");
    }
    written.sync().expect("durable");
    drop(written);
    for path in ["log/00000000000000000001.res", "log/00000000000000000001.idx", "log/00000000000000000009.res"] {
        let bytes = disk.bytes(path).expect("it is there").len() as u64;
        for offset in 0..bytes {
            let disk = disk.fork();
            disk.rot(path, offset, MASKS[usize::try_from(offset % 3).expect("small")]);
            let reader = results(&disk).reader();
            for height in 1..=4 {
                // The results of the open segment's last heights may be cut off: they are executed again.
                let cut = height > reader.last_height().unwrap_or(0);
                match reader.results(height) {
                    Ok(Some(found)) => assert_eq!(found, block(height)),
                    Ok(None) => assert!(cut),
                    Err(ResultsError::Damaged { path: at, .. }) => assert_eq!(at, path),
                    Err(other) => panic!("rot at {offset} of {path}: {other}"),
                }
                for index in 0..2 {
                    match reader.lookup(&hash(height * 10 + u64::from(index))) {
                        Ok(Some(found)) => assert_eq!(found, Location { height, index }),
                        Ok(None) => assert!(cut, "rot at {offset} of {path} hides {height}/{index}"),
                        Err(ResultsError::Damaged { path: at, .. }) => assert_eq!(at, path),
                        Err(other) => panic!("rot at {offset} of {path}: {other}"),
                    }
                }
            }
        }
    }
}

/// The way out of a guard whose newest record may be gone, cut off at each of its operations: the floor holds, or it is as it was.
#[test]
fn a_floor_above_a_slot_that_is_gone_is_whole_or_not_there() {
    for last in 1..=2 {
        for operation in 0..8 {
            let disk = SimDisk::new();
            let mut guard = Guard::create(&disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
            (0..last).for_each(|step| guard.write(&guard_record(1, step)).expect("durable"));
            drop(guard);
            disk.cut("guard", 8 << 20);
            let mut guard = Guard::open(&disk, "guard", GENESIS).expect("it opens");
            assert!(!guard.is_readable());
            disk.fault_at(disk.operations() + operation, Fault::Stop(When::Before), 0);
            let is_done = guard.resume_above(9).is_ok();
            drop(guard);
            disk.crash(Survival::None, 0);
            let guard = Guard::open(&disk, "guard", GENESIS).expect("it opens");
            assert!(!guard.is_readable() || guard.last().is_some_and(|last| last.height == 9), "{last} records, operation {operation}");
            assert!(!is_done || guard.is_readable());
        }
    }
}
