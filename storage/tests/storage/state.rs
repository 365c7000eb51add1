//! The state database: whole flushes, verified loads.

use std::collections::BTreeMap;

use lockstep_storage::spread::InTurn;
use lockstep_storage::state::{Change, StateDb, StateError};

use crate::common::disk;

type Model = BTreeMap<[u8; 32], (Vec<u8>, Vec<u8>)>;

fn path(key: u64) -> [u8; 32] {
    let mut path = [0; 32];
    path[..8].copy_from_slice(&key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    path
}

fn load(state: &mut StateDb) -> (Option<(u64, Vec<u8>)>, Model) {
    let mut found = Model::new();
    let mut last = None;
    let flushed = state.load(|path, key, value| {
        assert!(last.is_none_or(|last| last < *path), "in the order of the paths");
        last = Some(*path);
        found.insert(*path, (key.to_vec(), value.to_vec()));
    });
    let flushed = flushed.expect("it loads");
    for bits in [0, 1, 4, 8] {
        let shares = state.load_shares(bits, &InTurn, |share, rows| (share, rows)).expect("it loads");
        assert_eq!(shares.as_ref().map(|(flushed, _)| flushed), flushed.as_ref());
        let shares = shares.map_or_else(Vec::new, |(_, shares)| shares);
        assert!(shares.iter().map(|(share, _)| *share).eq(0..shares.len()), "in their order");
        let rows = shares.iter().flat_map(|(_, rows)| rows).map(|(key, value)| (key.to_vec(), value.to_vec()));
        assert!(rows.eq(found.values().cloned()), "all entries once, in the order of the paths");
    }
    (flushed.map(|flushed| (flushed.height, flushed.meta)), found)
}

#[test]
fn flushes_are_whole_and_loads_give_back_what_a_model_holds() {
    let (_home, disk) = disk();
    let mut model = Model::new();
    let mut state = StateDb::open(&*disk, "data/state.redb").expect("made");
    assert_eq!(load(&mut state), (None, Model::new()));
    for height in 0..30u64 {
        let keys: Vec<(String, [u8; 32], Option<Vec<u8>>)> = (0..20)
            .map(|at| {
                let key = (height * 7 + at * 3) % 41;
                let value = (!(key + height).is_multiple_of(4)).then(|| format!("{key} at {height}").into_bytes());
                (format!("key {key}"), path(key), value)
            })
            .collect();
        let changes = keys.iter().map(|(key, path, value)| Change { path: *path, key: key.as_bytes(), value: value.as_deref() });
        state.flush(height, changes, &height.to_le_bytes()).expect("flushed");
        for (key, path, value) in keys {
            match value {
                Some(value) => model.insert(path, (key.into_bytes(), value)),
                None => model.remove(&path),
            };
        }
        if height % 3 == 0 {
            drop(state);
            state = StateDb::open(&*disk, "data/state.redb").expect("it opens");
        }
        assert_eq!(load(&mut state), (Some((height, height.to_le_bytes().to_vec())), model.clone()));
    }
    state.verify().expect("sound");
    assert!(matches!(state.flush(29, [], b""), Err(StateError::Regress { at: 29, to: 29 })));
    assert_eq!(load(&mut state).1, model);
}

/// A large database is read with a small cache, and opened with a larger one before it is written again.
#[test]
fn a_large_state_is_read_and_then_written() {
    const ENTRIES: u64 = 80;
    let (home, disk) = disk();
    let value = |key: u64, height: u64| vec![u8::try_from(key ^ height).expect("small"); 1 << 20];
    let mut state = StateDb::open(&*disk, "data/state.redb").expect("made");
    let flush = |state: &mut StateDb, height: u64, keys: std::ops::Range<u64>| {
        let values: Vec<(u64, Vec<u8>)> = keys.map(|key| (key, value(key, height))).collect();
        let changes = values.iter().map(|(key, value)| Change { path: path(*key), key: b"a key", value: Some(value) });
        state.flush(height, changes, b"").expect("flushed");
    };
    flush(&mut state, 1, 0..ENTRIES);
    drop(state);
    assert!(std::fs::metadata(home.path().join("home/data/state.redb")).expect("a file").len() > 64 << 20, "it is a large one");
    for height in 2..=4 {
        let mut state = StateDb::open(&*disk, "data/state.redb").expect("opened");
        for turn in 0..2 {
            let mut found = 0;
            let written = height - 1 + turn;
            state
                .load(|at, _, bytes| {
                    let key = (0..ENTRIES).find(|key| path(*key) == *at).expect("a key of ours");
                    assert!(*bytes == value(key, if key < 10 { written } else { 1 }), "key {key}");
                    found += 1;
                })
                .expect("it loads");
            assert_eq!((found, state.flushed().map(|flushed| flushed.height)), (ENTRIES, Some(written)));
            if turn == 0 {
                flush(&mut state, height, 0..10);
            }
        }
    }
}

#[test]
fn an_entry_under_another_keys_path_is_damage() {
    let (_home, disk) = disk();
    let mut state = StateDb::open(&*disk, "state").expect("made");
    state.flush(1, [Change { path: path(1), key: b"one", value: Some(b"1") }], b"").expect("flushed");
    let stranger = Change { path: path(1), key: b"two", value: Some(b"2") };
    assert!(matches!(state.flush(2, [stranger], b""), Err(StateError::Damaged { .. })));
    assert!(matches!(state.flush(3, [], b""), Err(StateError::Failed)), "nothing more until it is opened again");
    let mut state = StateDb::open(&*disk, "state").expect("it opens");
    assert_eq!(load(&mut state).0, Some((1, Vec::new())));
}

#[test]
fn a_file_that_is_no_database_is_damage() {
    let (_home, disk) = disk();
    disk.create("empty").expect("a file");
    assert!(matches!(StateDb::open(&*disk, "empty"), Err(StateError::Damaged { .. })));
    disk.create("text").expect("a file").write_at(0, &[b'x'; 5000]).expect("a write");
    assert!(matches!(StateDb::open(&*disk, "text"), Err(StateError::Damaged { .. })));
}

/// The bytes that every reader of the database must know. A change here is a change of the format.
#[test]
fn the_bytes_of_the_state_are_pinned() {
    let (home, disk) = disk();
    let mut state = StateDb::open(&*disk, "state").expect("made");
    state.flush(7, [Change { path: [1; 32], key: b"key", value: Some(b"value") }], b"meta").expect("flushed");
    drop(state);
    let db = redb::Database::open(home.path().join("home/state")).expect("a redb file");
    let transaction = redb::ReadableDatabase::begin_read(&db).expect("a transaction");
    let entries = transaction.open_table(redb::TableDefinition::<&[u8; 32], &[u8]>::new("state")).expect("a table");
    let meta = transaction.open_table(redb::TableDefinition::<u8, &[u8]>::new("meta")).expect("a table");
    let entry = hex::encode(entries.get(&[1; 32]).expect("a read").expect("an entry").value());
    let row = hex::encode(meta.get(0).expect("a read").expect("a row").value());
    assert_eq!(format!("{entry}\n{row}\n"), include_str!("golden/state.hex"));
}

/// Every entry that lies in the file verifies by itself: only the account of all of them can tell.
#[test]
fn an_entry_that_is_missing_or_stale_is_found_in_whichever_share_it_was() {
    const ENTRIES: redb::TableDefinition<&[u8; 32], &[u8]> = redb::TableDefinition::new("state");
    let (folder, disk) = disk();
    let home = folder.path().join("home");
    let keys: Vec<(String, [u8; 32])> = (0..300u64).map(|key| (format!("key {key}"), path(key))).collect();
    let mut state = StateDb::open(&*disk, "state.redb").expect("made");
    for height in [1, 2] {
        let value = format!("of height {height}");
        let changes = keys.iter().map(|(key, path)| Change { path: *path, key: key.as_bytes(), value: Some(value.as_bytes()) });
        state.flush(height, changes, b"").expect("flushed");
        if height == 1 {
            drop(state);
            std::fs::copy(home.join("state.redb"), home.join("old.redb")).expect("a copy");
            state = StateDb::open(&*disk, "state.redb").expect("it opens");
        }
    }
    drop(state);
    let old = redb::Database::open(home.join("old.redb")).expect("the copy opens");
    let old = redb::ReadableDatabase::begin_read(&old).expect("a view").open_table(ENTRIES).expect("the entries");
    for (number, (_, path)) in keys.iter().enumerate().step_by(37) {
        let file = format!("doctored{number}.redb");
        for stale in [None, old.get(path).expect("read").map(|bytes| bytes.value().to_vec())] {
            std::fs::copy(home.join("state.redb"), home.join(&file)).expect("a copy");
            let db = redb::Database::open(home.join(&file)).expect("the copy opens");
            let write = db.begin_write().expect("a transaction");
            let mut entries = write.open_table(ENTRIES).expect("the entries");
            match &stale {
                None => drop(entries.remove(path).expect("removed")),
                Some(bytes) => drop(entries.insert(path, bytes.as_slice()).expect("put back")),
            }
            drop(entries);
            write.commit().expect("committed");
            drop(db);
            for bits in [0, 4] {
                let mut state = StateDb::open(&*disk, &file).expect("each page verifies");
                let loaded = state.load_shares(bits, &InTurn, |_, rows| rows.len());
                assert!(matches!(&loaded, Err(StateError::Damaged { what, .. }) if what.contains("missing or stale")), "{loaded:?}");
            }
        }
    }
}
