//! A crash at every operation of a life, with every survival of what was not synced; crashes during recovery; disks that
//! fail; and disks that lie, which the account must notice, or it would notice nothing.

use lockstep_sim::disk::{Fault, SimDisk, Survival, When};

use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record, pruned_below};

use crate::scenario::{Account, GENESIS, HEIGHTS, guard_record, hash, life, open, reopen, undisturbed};

/// A life up to a fault at one operation.
fn cut(operation: u64, fault: Fault) -> (SimDisk, Account) {
    let disk = SimDisk::new();
    disk.fault_at(operation, fault, operation);
    let mut account = Account::default();
    let _ = life(&disk, &mut account);
    (disk, account)
}

/// Lives on to the end, and compares once more.
fn goes_on(disk: &SimDisk, account: &mut Account) -> Result<(), String> {
    let mut stores = reopen(disk, account)?;
    stores.live(account).map_err(|error| format!("it does not go on: {error}"))?;
    drop(stores);
    disk.crash(Survival::None, 0);
    let stores = reopen(disk, account)?;
    drop(stores);
    Ok(())
}

/// Opens everything until the machine stops, or not.
fn recovers(disk: &SimDisk, account: &mut Account) -> bool {
    open(disk, account).is_ok()
}

#[test]
fn an_undisturbed_life_keeps_its_promises() {
    let (disk, mut account, operations) = undisturbed();
    assert!(operations > 150, "{operations} operations are too few to say anything");
    disk.crash(Survival::None, 0);
    goes_on(&disk, &mut account).expect("kept");
    assert!(HEIGHTS > 6 && disk.paths().iter().filter(|path| path.ends_with(".seg")).count() > 2, "it rolls");
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_promised() {
    let (_, _, operations) = undisturbed();
    for operation in 0..operations {
        for when in When::EACH {
            let (disk, account) = cut(operation, Fault::Stop(when));
            for (seed, survival) in (0..).zip(Survival::EACH) {
                let disk = disk.fork();
                disk.crash(survival, operation * 31 + seed);
                goes_on(&disk, &mut account.clone()).unwrap_or_else(|what| panic!("{when:?} operation {operation}, {survival:?}: {what}"));
            }
        }
    }
}

#[test]
fn a_crash_during_recovery_loses_nothing_either() {
    let (_, _, operations) = undisturbed();
    let step = if std::env::var_os("LOCKSTEP_EVERY_BYTE").is_some() { 1 } else { 11 };
    for operation in (0..operations).step_by(step) {
        let (disk, account) = cut(operation, Fault::Stop(When::During));
        for (seed, first) in (0..).zip([Survival::All, Survival::Random, Survival::TornSectors]) {
            let crashed = disk.fork();
            crashed.crash(first, operation * 17 + seed);
            let begun = crashed.operations();
            let whole = crashed.fork();
            assert!(recovers(&whole, &mut account.clone()), "operation {operation}, {first:?}");
            for second in begun..whole.operations() {
                let disk = crashed.fork();
                disk.fault_at(second, Fault::Stop(When::During), second);
                let mut account = account.clone();
                // The last of these operations are those of closing, after everything was open.
                recovers(&disk, &mut account);
                assert!(disk.is_stopped());
                for survival in [Survival::None, Survival::TornSectors] {
                    let disk = disk.fork();
                    disk.crash(survival, second * 13 + operation);
                    goes_on(&disk, &mut account.clone())
                        .unwrap_or_else(|what| panic!("operation {operation}, {first:?}, then {second}, {survival:?}: {what}"));
                }
            }
        }
    }
}

/// kill -9 leaves everything in the kernel's cache. What a restart shows from there may be acted on, so it must be durable
/// by then: the power cut that follows takes everything that is not.
#[test]
fn what_a_restart_shows_after_a_kill_survives_the_power_cut_after_it() {
    let (_, _, operations) = undisturbed();
    for operation in 0..operations {
        for when in [When::During, When::After] {
            let (disk, mut account) = cut(operation, Fault::Stop(when));
            disk.kill();
            let stores = reopen(&disk, &mut account);
            drop(stores.unwrap_or_else(|what| panic!("killed {when:?} operation {operation}: {what}")));
            disk.crash(Survival::None, operation);
            goes_on(&disk, &mut account).unwrap_or_else(|what| panic!("cut after kill {when:?} {operation}: {what}"));
        }
    }
}

/// A write or sync that fails ends the process. After a failed sync the kernel believes the pages clean that it did not
/// write, so the restart's own syncs would do nothing for them.
#[test]
fn a_disk_that_fails_once_loses_nothing_that_was_promised() {
    let (_, _, operations) = undisturbed();
    for operation in 0..operations {
        let (disk, mut account) = cut(operation, Fault::Broken);
        disk.kill();
        let stores = reopen(&disk, &mut account);
        drop(stores.unwrap_or_else(|what| panic!("broken at {operation}: {what}")));
        disk.crash(Survival::None, operation);
        goes_on(&disk, &mut account).unwrap_or_else(|what| panic!("cut after broken {operation}: {what}"));
    }
}

#[test]
fn a_disk_that_is_full_for_a_moment_loses_nothing_that_was_promised() {
    let (_, _, operations) = undisturbed();
    for operation in 0..operations {
        let (disk, mut account) = cut(operation, Fault::NoSpace);
        disk.crash(Survival::TornSectors, operation);
        goes_on(&disk, &mut account).unwrap_or_else(|what| panic!("full at {operation}: {what}"));
    }
}

/// The account sees: where a store's syncs do nothing, some crash must break a promise.
#[test]
fn a_store_that_does_not_sync_is_found_out() {
    for part in [".pre", "guard", "state", "log", "data", ".res"] {
        let (_, _, operations) = undisturbed();
        let found = (0..operations).rev().any(|operation| {
            let disk = SimDisk::new();
            disk.set_lying(Some(part));
            disk.fault_at(operation, Fault::Stop(When::After), operation);
            let mut account = Account::default();
            let _ = life(&disk, &mut account);
            disk.set_lying(None);
            [Survival::None, Survival::Random].into_iter().any(|survival| {
                let disk = disk.fork();
                disk.crash(survival, operation);
                reopen(&disk, &mut account.clone()).is_err()
            })
        });
        assert!(found, "nobody noticed that {part} is never synced");
    }
}

fn open_log(disk: &SimDisk) -> BlockLog {
    BlockLog::open(disk.disk(), "log", LogOptions { salt: [1; 32], segment_bytes: 1 << 20 }).expect("the log opens").0
}

fn body(height: u64, payload: &[u8]) -> Record<'_> {
    Record { kind: Kind::Body, height, round: 0, block_hash: hash(height), payload }
}

/// Of two records that were being written the first is lost and the second survives behind it. Another record of the same
/// size then takes the place of the first: the second must not come back to life after it.
#[test]
fn a_record_behind_a_torn_one_does_not_come_back() {
    let mut tried = 0;
    for seed in 0..64 {
        let disk = SimDisk::new();
        let mut log = open_log(&disk);
        log.append(body(1, b"durable")).expect("appended");
        log.mark().expect("closed");
        let end = disk.bytes("log/00000000000000000001.seg").expect("it is there").len();
        log.append(body(2, b"lost body")).expect("appended");
        log.append(body(3, b"orphan")).expect("appended");
        disk.crash(Survival::Random, seed);
        let bytes = disk.bytes("log/00000000000000000001.seg").expect("it is there");
        if bytes.len() <= end || bytes[end..end + 4] != [0; 4] {
            continue;
        }
        tried += 1;
        let mut log = open_log(&disk);
        log.append(body(4, b"next body")).expect("appended");
        log.sync().expect("durable");
        disk.crash(Survival::None, seed);
        let log = open_log(&disk);
        assert!(log.reader().body(&hash(3)).expect("a read").is_none(), "an orphan of another life was believed");
        assert_eq!(log.reader().body(&hash(4)).expect("a read").expect("it was durable").payload, b"next body");
    }
    assert!(tried > 5, "only {tried} of the seeds lose the first and keep the second");
}

/// A full disk takes no mark, and the log is opened all the same; what it shows is durable then too.
#[test]
fn a_log_that_is_opened_on_a_full_disk_shows_what_is_durable() {
    let disk = SimDisk::new();
    let mut log = open_log(&disk);
    log.append(body(1, b"in the cache")).expect("appended");
    disk.kill();
    disk.set_full(true);
    assert!(open_log(&disk).reader().body(&hash(1)).expect("a read").is_some());
    disk.crash(Survival::None, 0);
    assert!(open_log(&disk).reader().body(&hash(1)).expect("a read").is_some());
}

/// Without room for a segment the log says so, goes on reading, and goes on writing once there is room.
#[test]
fn a_full_disk_is_noticed_ahead_and_passes() {
    let disk = SimDisk::new();
    let mut log = open_log(&disk);
    log.append(body(1, b"body")).expect("appended");
    log.sync().expect("durable");
    disk.set_full(true);
    assert!(matches!(log.preallocate_next(), Err(lockstep_storage::log::LogError::NoSpace(_))));
    assert!(matches!(log.append(body(2, b"body")), Err(lockstep_storage::log::LogError::NoSpace(_))));
    assert!(log.reader().body(&hash(1)).expect("a read").is_some());
    disk.set_full(false);
    log.preallocate_next().expect("room again");
    log.append(body(2, b"body")).expect("appended");
    log.sync().expect("durable");
    disk.crash(Survival::None, 0);
    assert!(open_log(&disk).reader().body(&hash(2)).expect("a read").is_some());
}

fn small_segments(disk: &SimDisk) -> BlockLog {
    BlockLog::open(disk.disk(), "log", LogOptions { salt: [1; 32], segment_bytes: 200 }).expect("the log opens").0
}

fn decide(log: &mut BlockLog, height: u64) {
    log.append(body(height, &[7; 100])).expect("appended");
    log.append(Record { kind: Kind::Decision, ..body(height, b"certificate") }).expect("appended");
}

/// A crash amid pruning may bring back what was unlinked last, never a gap.
#[test]
fn a_crash_amid_pruning_leaves_no_gap() {
    let disk = SimDisk::new();
    let mut log = small_segments(&disk);
    (1..=8).for_each(|height| decide(&mut log, height));
    log.sync().expect("durable");
    let before = disk.operations();
    log.prune(7).expect("pruned");
    assert!(disk.operations() - before > 6, "several segments are pruned");
    for operation in before..disk.operations() {
        for seed in 0..8 {
            let disk = SimDisk::new();
            let mut log = small_segments(&disk);
            (1..=8).for_each(|height| decide(&mut log, height));
            log.sync().expect("durable");
            disk.fault_at(operation, Fault::Stop(When::After), seed);
            log.prune(7).expect_err("the machine stops");
            disk.crash(Survival::Random, seed);
            let log = small_segments(&disk);
            assert_eq!(log.reader().tip(), Some(8));
            let base = log.reader().base().expect("some are left");
            let may_be_missing = pruned_below(&*disk.disk(), "log").expect("a read");
            assert!(base <= 7 && base <= may_be_missing.max(1), "begins with {base}, and says {may_be_missing}: that would be damage");
        }
    }
}

/// A caller that syncs rarely may cross into a new segment in between: the old one is durable before the new one is there.
#[test]
fn a_segment_is_begun_only_when_the_one_before_it_is_durable() {
    let disk = SimDisk::new();
    let mut log = small_segments(&disk);
    (1..=5).for_each(|height| decide(&mut log, height));
    assert!(log.reader().segments().len() > 3);
    disk.crash(Survival::None, 0);
    let log = small_segments(&disk);
    assert_eq!(log.reader().tip(), Some(4), "all but what is in the last segment");
}

/// `init` was killed between giving the guard its name and making that durable. Whoever opens it then may sign, so a power
/// cut must not take the name any more.
#[test]
fn a_guard_that_was_opened_has_its_name_for_good() {
    let disk = SimDisk::new();
    Guard::create(&disk, "data/guard", GuardRecord::initial(GENESIS)).expect("made");
    let operations = disk.operations();
    let disk = SimDisk::new();
    disk.fault_at(operations - 1, Fault::Stop(When::Before), 0);
    Guard::create(&disk, "data/guard", GuardRecord::initial(GENESIS)).err().expect("cut off");
    disk.kill();
    let mut guard = Guard::open(&disk, "data/guard", GENESIS).expect("the name is in the cache");
    guard.write(&guard_record(1, 1)).expect("durable");
    disk.crash(Survival::None, 0);
    let guard = Guard::open(&disk, "data/guard", GENESIS).expect("the name is durable");
    assert_eq!(guard.last(), Some(&guard_record(1, 1)));
}
