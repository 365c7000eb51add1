//! Which snapshots a node lets go: the newest confirmed ones stay, and those that peers gather, within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_app::snapshot::Manifest;
use lockstep_app::{Changes, State};
use lockstep_replica::snapshots::{LEASED_MAX, Leases, Stored, keep_newest, make};
use lockstep_replica::source::Snapshots;
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::snapshots::Snapshots as Store;
use lockstep_types::Hash;

use crate::desk::Made;
use crate::support::*;

/// A store with the snapshots of these heights, each of another state, and a clock to move.
struct House {
    _folder: tempfile::TempDir,
    store: Store,
    leases: Arc<Leases>,
    clock_ms: Arc<AtomicU64>,
    made: Made,
}

impl House {
    fn with(heights: &[u64]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.path()).unwrap());
        let house = Self {
            store: Store::open(disk, "snapshots").unwrap().0,
            leases: Arc::default(),
            clock_ms: Arc::default(),
            made: Made::of(1),
            _folder: folder,
        };
        heights.iter().for_each(|at| house.makes(*at));
        house
    }

    fn makes(&self, at: u64) {
        let state = self.made.executor.state();
        let mut tree = state.tree().clone();
        let mut changes = Changes::new();
        changes.set(&b"height"[..], at.to_le_bytes());
        tree.change(&changes);
        let state = State::new(height(at), tree, state.standing().clone(), state.newest().clone());
        make(&self.store, Hash([1; 32]), &state, |_| true).unwrap();
    }

    /// What a peer sees that asks now.
    fn offered(&self) -> Stored<impl Fn() -> u64 + use<>> {
        let clock_ms = self.clock_ms.clone();
        Stored::new(self.store.clone(), self.leases.clone(), move || clock_ms.load(Ordering::Relaxed))
    }

    fn waits(&self, ms: u64) {
        self.clock_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// What is left when `keep` are kept at this tip.
    fn keeps(&self, keep: usize, tip: u64) -> Vec<u64> {
        keep_newest(&self.store, keep, height(tip), &self.leases, self.clock_ms.load(Ordering::Relaxed)).unwrap();
        self.store.heights()
    }
}

/// A chunk that rots is shared by no further snapshot: it is written anew, and those that share it have it again, too.
#[test]
fn what_rotted_is_written_anew_by_the_next_snapshot() {
    let house = House::with(&[]);
    let state = |at: u64| {
        let state = house.made.executor.state();
        State::new(height(at), state.tree().clone(), state.standing().clone(), state.newest().clone())
    };
    let make = |at: u64| make(&house.store, Hash([1; 32]), &state(at), |_| true).unwrap();
    let first = make(10);
    assert!(first.written > 0 && first.mended == 0);
    let is_chunk = |path: &std::path::PathBuf| path.extension().is_some_and(|kind| kind == "chunk");
    let folder = house._folder.path().join("snapshots");
    let chunk = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).find(is_chunk).expect("there is one");
    let good = std::fs::read(&chunk).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() - 1] ^= 1;
    for (at, bad) in [(20, Some(&flipped[..])), (30, Some(&good[..good.len() / 2])), (40, Some(&[])), (50, None)] {
        match bad {
            Some(bad) => std::fs::write(&chunk, bad).unwrap(),
            None => std::fs::remove_file(&chunk).unwrap(),
        }
        let next = make(at);
        assert_eq!((next.written, next.mended), (0, 1), "height {at}");
        assert_eq!(std::fs::read(&chunk).unwrap(), good, "height {at}");
    }
    assert_eq!(make(60).mended, 0, "sound ones stay");
    assert_eq!(house.store.heights(), [10, 20, 30, 40, 50, 60]);
}

#[test]
fn the_newest_stay_that_a_decided_header_confirms() {
    let house = House::with(&[10, 20, 30]);
    assert_eq!(house.keeps(2, 31), [20, 30]);
    house.makes(40);
    assert_eq!(house.keeps(2, 40), [20, 30, 40], "nothing says yet that the newest is of the chain's state");
    assert_eq!(house.keeps(2, 41), [30, 40]);
    assert_eq!(house.keeps(2, 41), [30, 40]);
    assert_eq!(house.keeps(0, 40), [40], "it is not counted, and not taken either");
}

#[test]
fn one_that_was_offered_stays_ten_seconds_and_one_that_is_asked_for_thirty() {
    let house = House::with(&[10]);
    let offered = house.offered();
    assert_eq!(offered.heights().unwrap(), [height(10)]);
    house.makes(20);
    house.waits(9_999);
    assert_eq!(house.keeps(1, 21), [10, 20]);
    assert!(offered.manifest(height(10)).unwrap().is_some());
    house.waits(29_999);
    assert_eq!(house.keeps(1, 21), [10, 20]);
    let chunk =
        Manifest::from_bytes(&house.store.manifest(10).unwrap()).unwrap().chunks().iter().find(|info| info.entries > 0).unwrap().root;
    assert!(offered.chunk(height(10), &chunk).unwrap().is_some());
    house.waits(29_999);
    assert_eq!(house.keeps(1, 21), [10, 20]);
    house.waits(1);
    assert_eq!(house.keeps(1, 21), [20], "nobody asked for more");
    assert!(offered.manifest(height(10)).unwrap().is_none());
}

#[test]
fn nobody_holds_one_longer_than_ten_minutes() {
    let house = House::with(&[10, 20]);
    let offered = house.offered();
    for _ in 0..60 {
        assert!(offered.manifest(height(10)).unwrap().is_some());
        assert_eq!(house.keeps(1, 21), [10, 20]);
        house.waits(10_000);
    }
    assert!(offered.manifest(height(10)).unwrap().is_some(), "still there, and asked for");
    assert_eq!(house.keeps(1, 21), [20]);
}

#[test]
fn so_many_are_held_and_those_are_the_newest() {
    let house = House::with(&[10, 20, 30, 40, 50]);
    let offered = house.offered();
    for at in [10, 20, 30] {
        assert!(offered.manifest(height(at)).unwrap().is_some());
    }
    assert_eq!(LEASED_MAX, 2);
    assert_eq!(house.keeps(1, 51), [20, 30, 50]);
    assert!(offered.manifest(height(40)).unwrap().is_none());
}

#[test]
fn one_made_again_at_a_height_is_not_held_for_who_asked_before() {
    let house = House::with(&[10, 20]);
    let offered = house.offered();
    assert!(offered.manifest(height(10)).unwrap().is_some());
    house.store.give_up(10).unwrap();
    assert_eq!(house.keeps(1, 21), [20]);
    house.makes(10);
    assert_eq!(house.keeps(1, 21), [20]);
}
