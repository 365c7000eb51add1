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
            Survival::Random | Survival::Shuffled => assert!(outcomes.len() == 4 && outcomes.iter().any(reordered)),
            Survival::TornSectors | Survival::TornPages | Survival::Bytes => assert!(outcomes.iter().any(torn)),
            Survival::Prefix => assert!(outcomes.len() > 50 && !outcomes.iter().any(reordered)),
        }
    }
}

/// A name that a failed sync left pending, and that was given up for one in another folder since, does not come back with a later sync.
#[test]
fn a_file_that_was_moved_is_where_both_folders_say_whichever_is_synced_first() {
    for (order, survival) in [(["log", "kept"], Survival::All), (["kept", "log"], Survival::None)] {
        let disk = SimDisk::new();
        ["log", "kept"].into_iter().for_each(|dir| disk.create_dir(dir).expect("a folder"));
        disk.create("log/a").expect("a file");
        disk.fault_at(disk.operations(), Fault::NoSpace, 0);
        disk.sync_dir("log").expect_err("no room");
        disk.rename("log/a", "kept/a").expect("a rename");
        order.into_iter().for_each(|dir| disk.sync_dir(dir).expect("a sync"));
        disk.crash(survival, 0);
        assert_eq!(disk.paths(), ["kept/a"], "{order:?}");
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

#[test]
fn bytes_survive_for_themselves_and_writes_out_of_order() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let disk = SimDisk::new();
        let log = file(&disk, "log");
        log.write_at(0, &[1; 100]).expect("a write");
        log.sync_data().expect("a sync");
        log.write_at(0, &[2; 100]).expect("a write");
        disk.crash(Survival::Bytes, seed);
        let bytes = disk.bytes("log").expect("the name was synced");
        assert!(bytes.len() == 100 && bytes.iter().all(|byte| [1, 2].contains(byte)), "a byte is old or new, and no neighbour changes");
        outcomes.insert(bytes);
    }
    assert!(outcomes.len() > 190, "{} of 200 differ", outcomes.len());
    let older_last = (0..100).filter(|seed| {
        let disk = SimDisk::new();
        let log = file(&disk, "log");
        log.write_at(0, &[1; 10]).expect("a write");
        log.write_at(0, &[2; 4]).expect("a write");
        disk.crash(Survival::Shuffled, *seed);
        disk.bytes("log").expect("the name was synced") == [1; 10]
    });
    assert!(older_last.count() > 10, "the older one may be written last");
}

/// A cache that loses power: what was promised is gone, unless an honest sync came before.
#[test]
fn a_sync_that_lied_is_found_out_by_a_power_cut_alone() {
    for honest in [false, true] {
        let disk = SimDisk::new();
        let log = file(&disk, "log");
        log.write_at(0, b"promised").expect("a write");
        disk.fault_at(disk.operations(), Fault::Lie, 0);
        log.sync_data().expect("it says so");
        if honest {
            log.sync_data().expect("a sync");
        }
        assert_eq!(disk.crash(Survival::None, 0), !honest);
        assert_eq!(disk.bytes("log").expect("it is there").is_empty(), !honest);
        assert_eq!((disk.tally().lies, disk.tally().broken_promises), (1, u64::from(!honest)));
    }
}

#[test]
fn a_misdirected_page_is_missing_in_one_place_and_overwrites_another() {
    let (mut at_once, mut later) = (0, 0);
    for seed in 0..64 {
        let disk = SimDisk::new();
        let (log, other) = (file(&disk, "log"), file(&disk, "other"));
        other.write_at(0, &[7; 4096]).expect("a write");
        other.sync_data().expect("a sync");
        log.write_at(0, &[1; 4096]).expect("a write");
        disk.fault_at(disk.operations(), Fault::Misdirected, seed);
        log.sync_data().expect("it says so");
        assert_eq!(disk.bytes("log").expect("it is there"), [1; 4096], "the cache has it");
        at_once += u64::from(disk.bytes("other").expect("it is there") == [1; 4096]);
        disk.crash(Survival::None, 0);
        assert_eq!(disk.bytes("log").expect("it is there"), [0; 4096]);
        later += u64::from(disk.bytes("other").expect("it is there") == [1; 4096]);
        assert_eq!(disk.tally().misdirected, 1);
    }
    assert!(later == 64 && (10..54).contains(&at_once), "{at_once} were not cached, {later} in all");
}

#[test]
fn a_lost_page_cannot_be_read_until_it_is_written_whole() {
    let disk = SimDisk::new();
    let log = file(&disk, "log");
    log.write_at(0, &[1; 3 * 4096]).expect("a write");
    log.sync_data().expect("a sync");
    disk.lose_page("log", 1);
    log.read_at(0, &mut [0; 4096]).expect("the page before it");
    log.read_at(4000, &mut [0; 200]).expect_err("a part of it");
    log.write_at(5000, &[2; 10]).expect_err("the rest of the page would have to be read");
    disk.crash(Survival::None, 0);
    let log = disk.open("log").expect("it is there");
    log.read_at(8191, &mut [0; 1]).expect_err("a power cut mends nothing");
    log.write_at(4096, &[2; 4096]).expect("a spare page takes its place");
    log.read_at(8191, &mut [0; 1]).expect("it can be read");
    disk.lose_page("log", 0);
    assert_eq!(disk.salvage(), 1);
    assert_eq!(disk.bytes("log").expect("it is there")[..4096], [0; 4096]);
    let before = disk.tally().failed_reads;
    disk.fail_read(1);
    log.read_at(0, &mut [0; 1]).expect("the first");
    log.read_at(0, &mut [0; 1]).expect_err("the second");
    log.read_at(0, &mut [0; 1]).expect("and again");
    assert_eq!(disk.tally().failed_reads, before + 1);
}

#[test]
fn a_restored_copy_is_what_it_was() {
    let disk = SimDisk::new();
    let log = file(&disk, "log");
    log.write_at(0, b"old").expect("a write");
    log.sync_data().expect("a sync");
    let copy = disk.fork();
    log.write_at(0, b"new").expect("a write");
    log.sync_data().expect("a sync");
    file(&disk, "more");
    let operations = disk.operations();
    disk.roll_back(&copy);
    log.read_at(0, &mut [0]).expect_err("a handle of before");
    assert_eq!((disk.bytes("log").expect("it is there"), disk.paths()), (b"old".to_vec(), vec!["log".to_owned()]));
    assert_eq!(disk.operations(), operations, "operations are counted on");
}

/// The last of the room may take the beginning of a write, and never all of it.
#[test]
fn a_write_that_finds_no_room_may_leave_its_beginning() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new();
        let log = file(&disk, "log");
        log.write_at(0, &[1; 10]).expect("a write");
        disk.fault_at(u64::MAX, Fault::Broken, seed);
        disk.set_full(true);
        assert_eq!(log.write_at(5, &[2; 10]).expect_err("full").kind(), ErrorKind::StorageFull);
        let bytes = disk.bytes("log").expect("it is there");
        assert_eq!(bytes[..10], [1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        lengths.insert(bytes.len());
    }
    assert!(lengths.first() == Some(&10) && lengths.last() == Some(&14) && lengths.len() > 4, "{lengths:?}");
}
