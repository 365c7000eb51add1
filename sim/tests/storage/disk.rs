//! The simulated disk itself: what it keeps and what it may forget.

use std::io::ErrorKind;
use std::sync::Arc;

use lockstep_sim::disk::{Fault, SimDisk, Survival, When};
use lockstep_storage::disk::{Disk, DiskFile};

fn file(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    let file = disk.create(path).expect("a file");
    disk.sync_dir("").expect("a sync");
    file
}

#[test]
fn what_is_synced_stays_and_what_is_not_may_go() {
    for survival in Survival::EACH {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let disk = SimDisk::new();
            let log = file(&disk, "log");
            log.write_at(0, &[1; 8192]).expect("a write");
            log.sync_data().expect("a sync");
            log.write_at(8192, &[2; 8192]).expect("a write");
            log.write_at(16384, &[3; 100]).expect("a write");
            disk.crash(survival, seed);
            let bytes = disk.bytes("log").expect("the name was synced");
            assert_eq!(bytes[..8192], [1; 8192], "{survival:?}");
            outcomes.insert(bytes[8192..].to_vec());
        }
        let torn = |outcome: &Vec<u8>| outcome.len() >= 8192 && outcome[..8192].contains(&0) && outcome[..8192].contains(&2);
        let reordered = |outcome: &Vec<u8>| outcome.len() == 8292 && outcome[..8192] == [0; 8192] && outcome[8192..] == [3; 100];
        match survival {
            Survival::All | Survival::None => assert_eq!(outcomes.len(), 1),
            Survival::Random => assert!(outcomes.len() == 4 && outcomes.iter().any(reordered)),
            Survival::TornSectors | Survival::TornPages => assert!(outcomes.iter().any(torn)),
            Survival::Prefix => assert!(outcomes.len() > 50 && !outcomes.iter().any(reordered)),
        }
    }
}

#[test]
fn names_are_kept_or_lost_until_the_folder_is_synced() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new();
        file(&disk, "old");
        file(&disk, "gone");
        disk.rename("old", "new").expect("a rename");
        disk.unlink("gone").expect("a removal");
        disk.create("made").expect("a file");
        assert_eq!(disk.paths(), ["made", "new"]);
        disk.crash(Survival::Random, seed);
        outcomes.insert(disk.paths());
    }
    assert_eq!(outcomes.len(), 8, "three changes, each kept or lost: {outcomes:?}");
    let disk = SimDisk::new();
    file(&disk, "old");
    disk.rename("old", "new").expect("a rename");
    disk.sync_dir(".").expect("a sync");
    disk.crash(Survival::None, 0);
    assert_eq!(disk.paths(), ["new"]);
}

#[test]
fn a_cut_that_was_not_synced_may_be_undone() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let disk = SimDisk::new();
        let log = file(&disk, "log");
        log.write_at(0, &[1; 1000]).expect("a write");
        log.sync_data().expect("a sync");
        log.set_len(10).expect("a cut");
        log.set_len(20).expect("growth");
        assert_eq!(disk.bytes("log").expect("it is there")[10..], [0; 10]);
        disk.crash(Survival::Random, seed);
        lengths.insert(disk.bytes("log").expect("it is there").len());
    }
    assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [10, 20, 1000]);
}

#[test]
fn a_killed_process_loses_nothing_but_the_power_cut_after_it_may() {
    let disk = SimDisk::new();
    let log = file(&disk, "log");
    log.write_at(0, b"cached").expect("a write");
    disk.kill();
    log.write_at(0, b"ghost").expect_err("a handle of the dead process");
    assert_eq!(disk.bytes("log").expect("it is there"), b"cached");
    disk.crash(Survival::None, 0);
    assert_eq!(disk.bytes("log").expect("it is there"), b"");
}

#[test]
fn faults_strike_where_they_are_planned() {
    for when in When::EACH {
        let disk = SimDisk::new();
        let log = file(&disk, "log");
        disk.fault_at(disk.operations(), Fault::Stop(when), 7);
        log.write_at(0, &[1; 100]).expect_err("nobody hears of it");
        log.sync_data().expect_err("the machine has stopped");
        disk.open("log").err().expect("the machine has stopped");
        disk.crash(Survival::All, 0);
        let bytes = disk.bytes("log").expect("it is there").len();
        match when {
            When::Before => assert_eq!(bytes, 0),
            When::During => assert!(bytes < 100),
            When::After => assert_eq!(bytes, 100),
        }
    }
    let disk = SimDisk::new();
    let log = file(&disk, "log");
    log.write_at(0, &[1; 100]).expect("a write");
    disk.fault_at(disk.operations(), Fault::NoSpace, 0);
    assert_eq!(log.write_at(100, &[1]).expect_err("full").kind(), ErrorKind::StorageFull);
    disk.set_full(true);
    assert_eq!(log.write_at(100, &[1]).expect_err("full").kind(), ErrorKind::StorageFull);
    log.write_at(50, &[2]).expect("what is there can be overwritten");
    disk.fault_at(disk.operations(), Fault::Broken, 0);
    log.sync_data().expect_err("a broken disk");
    log.sync_data().expect("and then it lies");
    disk.set_unreadable("log", true);
    log.read_at(0, &mut [0]).expect_err("unreadable");
}
