//! Snapshots whose making is stopped at every operation, in every way: what has its name is whole, nothing is left over, and
//! the next one is made.

use std::collections::BTreeSet;

use lockstep_sim::disk::{Fault, SimDisk, Survival, When};
use lockstep_storage::snapshots::{Name, SnapshotError, Snapshots};

const DIR: &str = "snapshots";

fn name(n: u8) -> Name {
    [n; 32]
}

/// Longer than a sector, so that it can tear.
fn chunk(n: u8) -> Vec<u8> {
    vec![n; 700 + usize::from(n)]
}

fn manifest(height: u64) -> Vec<u8> {
    format!("manifest of {height}").into_bytes()
}

fn make(snapshots: &Snapshots, height: u64, chunks: &[u8]) -> Result<(), SnapshotError> {
    let names: Vec<Name> = chunks.iter().copied().map(name).collect();
    snapshots.begin(height, &names, &manifest(height))?;
    for n in chunks {
        snapshots.put(&name(*n), &chunk(*n))?;
    }
    snapshots.finish(height)
}

/// The chunks of each height.
fn chunks_of(height: u64) -> Vec<u8> {
    let n = u8::try_from(height / 10).expect("small");
    // Half of them are those of the snapshot before.
    vec![n, n + 1]
}

/// Three snapshots of which two are kept. What was finished before it failed.
fn life(disk: &SimDisk) -> Vec<u64> {
    let mut done = Vec::new();
    let mut run = || -> Result<(), SnapshotError> {
        let (snapshots, _) = Snapshots::open(disk.disk(), DIR)?;
        for height in [10, 20, 30] {
            make(&snapshots, height, &chunks_of(height))?;
            done.push(height);
            let heights = snapshots.heights();
            heights[..heights.len().saturating_sub(2)].iter().try_for_each(|height| snapshots.give_up(*height))?;
        }
        Ok(())
    };
    let _ = run();
    done
}

/// What is there is whole; and what is in the folder is what is there.
fn check(disk: &SimDisk, what: &str) -> Vec<u64> {
    let (snapshots, swept) = Snapshots::open(disk.disk(), DIR).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(swept.damaged.is_empty(), "{what}: {swept:?}");
    let heights = snapshots.heights();
    let mut expected = BTreeSet::new();
    for height in &heights {
        assert_eq!(snapshots.manifest(*height).as_deref(), Some(&manifest(*height)[..]), "{what}");
        expected.insert(format!("{DIR}/{height:020}.snapshot"));
        for n in chunks_of(*height) {
            let content = snapshots.chunk(&name(n)).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(content, Some(chunk(n)), "{what}: a chunk of {height}");
        }
    }
    for height in heights.iter().chain(&snapshots.begun()) {
        let here = chunks_of(*height).into_iter().filter(|n| snapshots.has(&name(*n)));
        expected.extend(here.map(|n| format!("{DIR}/{}.chunk", format!("{n:02x}").repeat(32))));
    }
    expected.extend(snapshots.begun().iter().map(|height| format!("{DIR}/{height:020}.begun")));
    let found: BTreeSet<String> = disk.paths().into_iter().collect();
    assert_eq!(found, expected, "{what}: nothing is left over");
    for height in snapshots.begun() {
        snapshots.give_up(height).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    make(&snapshots, 40, &chunks_of(40)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(snapshots.heights().last(), Some(&40), "{what}");
    heights
}

#[test]
fn a_crash_at_every_operation_leaves_whole_snapshots_and_nothing_else() {
    let sound = SimDisk::new();
    assert_eq!(life(&sound), [10, 20, 30]);
    let operations = sound.operations();
    assert_eq!(check(&sound, "without a crash"), [20, 30]);
    let mut kept = BTreeSet::new();
    for operation in 0..operations {
        for when in When::EACH {
            for survival in Survival::EACH {
                let what = format!("stopped {when:?} operation {operation}, {survival:?}");
                let disk = SimDisk::new();
                disk.fault_at(operation, Fault::Stop(when), operation);
                let done = life(&disk);
                disk.crash(survival, operation);
                let heights = check(&disk, &what);
                // What was finished stays, and at most one more is there: the next, or the oldest, which was about to go.
                let durable = &done[done.len().saturating_sub(2)..];
                assert!(durable.iter().all(|height| heights.contains(height)), "{what}: {done:?} were finished, {heights:?} are there");
                kept.insert(heights);
            }
        }
    }
    let stages = [&[][..], &[10], &[10, 20], &[10, 20, 30], &[20, 30]].map(<[u64]>::to_vec);
    assert_eq!(kept, BTreeSet::from(stages), "crashes met every stage");
}

/// A full disk, or one that fails once, costs the snapshot that is being made and none before.
#[test]
fn a_failure_at_every_operation_costs_one_snapshot() {
    let sound = SimDisk::new();
    life(&sound);
    for operation in 0..sound.operations() {
        for fault in [Fault::NoSpace, Fault::Broken] {
            let what = format!("{fault:?} at operation {operation}");
            let disk = SimDisk::new();
            disk.fault_at(operation, fault, operation);
            let done = life(&disk);
            disk.kill();
            let heights = check(&disk, &what);
            let durable = &done[done.len().saturating_sub(2)..];
            assert!(durable.iter().all(|height| heights.contains(height)), "{what}: {done:?} were finished, {heights:?} are there");
        }
    }
}

#[test]
fn making_goes_on_after_there_was_no_room() {
    let disk = SimDisk::new();
    let (snapshots, _) = Snapshots::open(disk.disk(), DIR).expect("it opens");
    make(&snapshots, 10, &chunks_of(10)).expect("there is room");
    disk.set_full(true);
    let error = make(&snapshots, 20, &chunks_of(20)).expect_err("there is none");
    assert!(error.is_no_space(), "{error}");
    snapshots.give_up(20).expect("names go without room");
    assert_eq!(snapshots.heights(), [10]);
    disk.set_full(false);
    make(&snapshots, 20, &chunks_of(20)).expect("there is room again");
    disk.crash(Survival::None, 1);
    assert_eq!(check(&disk, "after it was made"), [10, 20]);
}

#[test]
fn what_was_begun_goes_on_after_a_crash_with_what_it_had() {
    let disk = SimDisk::new();
    let (snapshots, _) = Snapshots::open(disk.disk(), DIR).expect("it opens");
    snapshots.begin(10, &[name(1), name(2)], b"a manifest").expect("begun");
    assert!(snapshots.put(&name(1), &chunk(1)).expect("put"));
    assert!(!snapshots.put(&name(1), &chunk(1)).expect("here already"));
    assert!(matches!(snapshots.finish(10), Err(SnapshotError::Missing { .. })));
    disk.crash(Survival::All, 1);
    let (snapshots, _) = Snapshots::open(disk.disk(), DIR).expect("it opens");
    assert_eq!((snapshots.begun(), snapshots.heights()), (vec![10], Vec::new()));
    assert_eq!(snapshots.begun_manifest(10).as_deref(), Some(&b"a manifest"[..]));
    assert!(snapshots.has(&name(1)) && !snapshots.has(&name(2)));
    snapshots.put(&name(2), &chunk(2)).expect("put");
    snapshots.finish(10).expect("whole");
    disk.crash(Survival::None, 1);
    let (snapshots, swept) = Snapshots::open(disk.disk(), DIR).expect("it opens");
    assert_eq!((snapshots.heights(), swept.files), (vec![10], 0));
}

/// Rot in any byte of any file is found, and costs the snapshots that it is in.
#[test]
fn rot_is_found_and_never_served() {
    let sound = SimDisk::new();
    life(&sound);
    for path in sound.paths() {
        let bytes = sound.bytes(&path).expect("a file").len();
        for at in (0..bytes).step_by(37).chain([bytes - 1]) {
            let disk = sound.fork();
            disk.rot(&path, at as u64, 1);
            let (snapshots, swept) = Snapshots::open(disk.disk(), DIR).expect("damage is no error");
            if path.ends_with(".chunk") {
                let n = u8::from_str_radix(&path[DIR.len() + 1..DIR.len() + 3], 16).expect("digits");
                assert!(snapshots.chunk(&name(n)).is_err(), "{path} at {at}");
                let gone = snapshots.give_up_with(&name(n)).expect("it goes");
                assert!(!gone.is_empty() && gone.iter().all(|height| chunks_of(*height).contains(&n)));
                assert!(!snapshots.has(&name(n)));
            } else {
                assert_eq!(swept.damaged.len(), 1, "{path} at {at}");
            }
            for height in snapshots.heights() {
                for n in chunks_of(height) {
                    assert_eq!(snapshots.chunk(&name(n)).expect("sound"), Some(chunk(n)), "{path} at {at}");
                }
            }
        }
    }
}
