//! What snapshots cost: made, made again after some of the state changed, moved as differences, restored.
//!
//!     cargo run --release -p lockstep-tests --example snapshot_speed -- [keys] [folder]
//!
//! Entries of 32 and 100 bytes that do not compress. Everything runs on one thread, without the rests that a node takes.

use std::sync::Arc;
use std::time::Instant;

use lockstep_app::snapshot::{Difference, Manifest, Outline, open};
use lockstep_app::{Changes, State, Tree};
use lockstep_replica::snapshots::make;
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::snapshots::Snapshots;
use lockstep_storage::state::{Change, StateDb};
use lockstep_types::state_tree::Path;
use lockstep_types::{Hash, Height, Power, PrivateKey, ValidatorSet, ValidatorUpdate};

fn key(n: u64) -> Arc<[u8]> {
    Arc::from(&Hash::of(n.to_le_bytes()).0[..])
}

fn value(n: u64, version: u64) -> Arc<[u8]> {
    let part = |at: u64| Hash::of([n, version, at].map(u64::to_le_bytes).concat()).0;
    Arc::from(&[part(0), part(1), part(2), part(3)].concat()[..100])
}

fn told(what: &str, began: Instant, bytes: u64) {
    let seconds = began.elapsed().as_secs_f64();
    println!("{what:<58} {seconds:7.2} s {:8.0} MB/s", bytes as f64 / 1e6 / seconds);
}

fn main() {
    let mut args = std::env::args().skip(1);
    let keys: u64 = args.next().map_or(1_000_000, |text| text.parse().expect("a number of keys"));
    let folder = args.next().map_or_else(|| std::env::temp_dir().join("lockstep-snapshot-speed"), Into::into);
    let _ = std::fs::remove_dir_all(&folder);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&folder).expect("a folder"));
    let set = ValidatorSet::new(&[ValidatorUpdate {
        public_key: PrivateKey::from_seed(&[1; 32]).public_key(),
        power: Power::new(1).expect("a power"),
    }]);
    let set = Arc::new(set.expect("a set"));
    let state = |height: u64, tree: Tree| State::new(Height::new(height).expect("a height"), tree, Arc::default(), set.clone());

    let began = Instant::now();
    let tree = Tree::from_entries((0..keys).map(|n| (key(n), value(n, 0))));
    println!("{keys} entries, in memory after {:.1} s; files in {}", began.elapsed().as_secs_f64(), folder.display());
    let (store, _) = Snapshots::open(disk.clone(), "snapshots").expect("it opens");

    let began = Instant::now();
    let first = make(&store, Hash::of(b"genesis"), &state(1_000, tree.clone()), |_| true).expect("made");
    told("made", began, first.raw_bytes);
    println!("  {} chunks, {} raw bytes, {} written", first.of, first.raw_bytes, first.written_bytes);

    let mut changes = Changes::new();
    for n in (0..keys).step_by(100) {
        changes.set(key(n), value(n, 1));
    }
    let changed = tree.apply(&changes);
    let began = Instant::now();
    let second = make(&store, Hash::of(b"genesis"), &state(2_000, changed.clone()), |_| true).expect("made");
    told("made, one entry in a hundred changed", began, second.raw_bytes);
    println!("  {} of {} chunks written", second.written, second.of);

    let mut changes = Changes::new();
    for n in 0..20 {
        changes.set(key(n), value(n, 2));
    }
    let began = Instant::now();
    let third = make(&store, Hash::of(b"genesis"), &state(3_000, changed.apply(&changes)), |_| true).expect("made");
    told("made, 20 entries changed", began, third.raw_bytes);
    println!("  {} of {} chunks written", third.written, third.of);

    let manifest = Manifest::from_bytes(&store.manifest(2_000).expect("kept")).expect("a manifest");
    let packed: Vec<Vec<u8>> = manifest.chunks().iter().map(|info| store.chunk(&info.root.0).expect("read").expect("there")).collect();
    let began = Instant::now();
    let (mut asked, mut answered) = (0, 0);
    for (info, packed) in manifest.chunks().iter().zip(&packed) {
        let own = tree.part(info.prefix);
        let outline = Outline::of(&own, info);
        let difference = Difference::between(&open(info, packed).expect("a chunk"), &outline).expect("not too deep");
        asked += borsh::to_vec(&outline).expect("bytes").len();
        answered += borsh::to_vec(&difference).expect("bytes").len();
        assert!(difference.apply(&own, outline.levels(), info).is_ok());
    }
    told("differences for who has the state before, both sides", began, manifest.bytes());
    let all: usize = packed.iter().map(Vec::len).sum();
    println!("  asked with {asked} bytes, answered with {answered}: {:.1} % of {all}", (asked + answered) as f64 * 100.0 / all as f64);

    let began = Instant::now();
    let parts = manifest.chunks().iter().zip(&packed).map(|(info, packed)| open(info, packed).expect("a chunk"));
    let restored = Tree::join(parts).expect("a cover");
    assert_eq!(restored.root(), changed.root());
    told("restored: unpacked, verified, a tree again", began, manifest.bytes());

    let began = Instant::now();
    let mut db = StateDb::open(&*disk, "state.redb").expect("it opens");
    let entries: Vec<_> = restored.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
    let changes = entries.iter().map(|(path, key, value)| Change { path: path.0, key, value: Some(&value[..]) });
    db.flush(2_000, changes, &[]).expect("flushed");
    told("restored: written to the state database", began, manifest.bytes());
    drop(db);
    let began = Instant::now();
    let mut db = StateDb::open(&*disk, "state.redb").expect("it opens");
    told("restart: the database opened, every page checked", began, manifest.bytes());
    let began = Instant::now();
    let mut loaded = Vec::new();
    db.load(|_, key, value| loaded.push((Arc::from(key), Arc::from(value)))).expect("loaded");
    told("restart: entries read and verified", began, manifest.bytes());
    let began = Instant::now();
    assert_eq!(Tree::from_entries(loaded).root(), changed.root());
    told("restart: a tree again", began, manifest.bytes());
    let _ = std::fs::remove_dir_all(&folder);
}
