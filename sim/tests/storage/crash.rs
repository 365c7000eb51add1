//! A crash at every operation of a life, with every survival of what was not synced; crashes during recovery; disks that
//! fail; and disks that lie, which the account must notice, or it would notice nothing.

use lockstep_sim::disk::{Fault, SimDisk, Survival, When};

use crate::scenario::{Account, HEIGHTS, life, open, reopen, undisturbed};

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
    for operation in (0..operations).step_by(5) {
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
