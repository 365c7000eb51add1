//! Results and the index by transaction hash.

use std::sync::Arc;

use lockstep_storage::disk::Disk;
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::results::{BlockResults, Location, Results, ResultsError, TxResult, cut_above, look};

use crate::common::{bytes_of, disk, flip};

fn tx(height: u64, index: u32) -> [u8; 32] {
    let mut hash = [0x77; 32];
    // Spread over the index, as hashes are.
    hash[..8].copy_from_slice(&(height * 1000 + u64::from(index)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    hash
}

fn block(height: u64, txs: u32) -> BlockResults {
    let result = |index| TxResult { hash: tx(height, index), result: format!("{height}/{index}").into_bytes() };
    BlockResults { height, block: format!("block {height}").into_bytes(), txs: (0..txs).map(result).collect() }
}

/// Segments 1, 100 and 200, of ten heights each.
fn segment(height: u64) -> u64 {
    [1, 100, 200][usize::try_from((height - 1) / 10).expect("small")]
}

fn filled(disk: &Arc<dyn Disk>) -> Results {
    let mut results = Results::open(Arc::clone(disk), "log", &[1, 100, 200], None).expect("it opens");
    for height in 1..=30 {
        results.append(segment(height), &block(height, 60)).expect("appended");
    }
    results.sync().expect("durable");
    results
}

fn check(results: &Results, heights: std::ops::RangeInclusive<u64>) {
    let reader = results.reader();
    for height in 1..=30 {
        let here = heights.contains(&height);
        assert_eq!(reader.results(height).expect("a read"), here.then(|| block(height, 60)), "height {height}");
        for index in [0, 31, 59] {
            let found = reader.lookup(&tx(height, index)).expect("a lookup");
            assert_eq!(found, here.then_some(Location { height, index }), "transaction {height}/{index}");
        }
    }
    assert_eq!(reader.lookup(&[0; 32]).expect("a lookup"), None);
    assert_eq!(reader.lookup(&[255; 32]).expect("a lookup"), None);
}

#[test]
fn every_transaction_is_found_open_closed_reopened_and_pruned() {
    let (home, disk) = disk();
    check(&filled(&disk), 1..=30);
    let mut results = Results::open(Arc::clone(&disk), "log", &[1, 100, 200], Some(30)).expect("it opens");
    check(&results, 1..=30);
    results.append(200, &block(17, 3)).expect("executed again after a restart: known");
    assert!(matches!(results.append(100, &block(31, 1)), Err(ResultsError::Closed { height: 31, segment: 100 })));
    results.remove(&[1]).expect("pruned");
    check(&results, 11..=30);
    drop(results);
    let results = Results::open(Arc::clone(&disk), "log", &[200], Some(30)).expect("it opens");
    check(&results, 21..=30);
    assert_eq!(std::fs::read_dir(home.path().join("home/log")).expect("a folder").count(), 1, "what was pruned is gone");
}

#[test]
fn what_lies_above_the_tip_is_executed_again() {
    let (_home, disk) = disk();
    drop(filled(&disk));
    let mut results = Results::open(Arc::clone(&disk), "log", &[1, 100, 200], Some(25)).expect("it opens");
    check(&results, 1..=25);
    assert_eq!(results.reader().last_height(), Some(25));
    for height in 26..=30 {
        results.append(200, &block(height, 60)).expect("appended");
    }
    check(&results, 1..=30);
}

/// One transaction in two blocks is found in the last of those that are here.
#[test]
fn a_transaction_that_comes_again_above_the_tip_is_found_where_it_was_before() {
    let (_home, disk) = disk();
    let mut results = Results::open(Arc::clone(&disk), "log", &[1], None).expect("it opens");
    for height in 1..=3 {
        let mut block = block(height, 3);
        if height > 1 {
            block.txs[2] = TxResult { hash: tx(1, 1), ..block.txs[2].clone() };
        }
        results.append(1, &block).expect("appended");
    }
    results.sync().expect("durable");
    let found = |results: &Results| results.reader().lookup(&tx(1, 1)).expect("a lookup");
    assert_eq!(found(&results), Some(Location { height: 3, index: 2 }));
    drop(results);
    for (keep, height, index) in [(2, 2, 2), (1, 1, 1)] {
        let results = Results::open(Arc::clone(&disk), "log", &[1], Some(keep)).expect("it opens");
        assert_eq!(found(&results), Some(Location { height, index }), "above {keep} is cut off");
        assert_eq!(results.reader().lookup(&tx(keep + 1, 0)).expect("a lookup"), None);
        assert_eq!(results.reader().lookup(&tx(1, 0)).expect("a lookup"), Some(Location { height: 1, index: 0 }));
    }
}

#[test]
fn a_missing_or_damaged_index_is_made_again() {
    let (_home, disk) = disk();
    drop(filled(&disk));
    let sound = bytes_of(&disk, "log/00000000000000000001.idx");
    disk.unlink("log/00000000000000000001.idx").expect("an accident");
    check(&Results::open(Arc::clone(&disk), "log", &[1, 100, 200], Some(30)).expect("it opens"), 1..=30);
    assert_eq!(bytes_of(&disk, "log/00000000000000000001.idx"), sound);
    for page in 0..sound.len() as u64 / 4096 {
        flip(&disk, "log/00000000000000000001.idx", page * 4096 + 70);
        check(&Results::open(Arc::clone(&disk), "log", &[1, 100, 200], Some(30)).expect("it opens"), 1..=30);
    }
}

#[test]
fn where_results_are_damaged_nobody_is_told_that_there_is_no_such_transaction() {
    let (_home, disk) = disk();
    drop(filled(&disk));
    let path = "log/00000000000000000100.res";
    let bytes = bytes_of(&disk, path);
    let at = bytes.windows(8).position(|window| window == b"block 15").expect("it is in there") as u64;
    flip(&disk, path, at);
    let results = Results::open(Arc::clone(&disk), "log", &[1, 100, 200], Some(30)).expect("it opens");
    let reader = results.reader();
    assert!(matches!(reader.results(15), Err(ResultsError::Damaged { .. })));
    assert_eq!(reader.results(16).expect("a read"), Some(block(16, 60)));
    assert_eq!(reader.lookup(&tx(15, 3)).expect("a lookup"), Some(Location { height: 15, index: 3 }), "the index knows");
    // And without the index, nobody knows.
    disk.unlink("log/00000000000000000100.idx").expect("an accident");
    let results = Results::open(Arc::clone(&disk), "log", &[1, 100, 200], Some(30)).expect("it opens");
    let reader = results.reader();
    assert_eq!(reader.lookup(&tx(25, 3)).expect("a lookup"), Some(Location { height: 25, index: 3 }));
    for height in [15, 18] {
        assert!(matches!(reader.results(height), Err(ResultsError::Damaged { .. })), "height {height}");
        assert!(matches!(reader.lookup(&tx(height, 3)), Err(ResultsError::Damaged { .. })), "height {height}");
    }
    assert!(matches!(reader.lookup(&[9; 32]), Err(ResultsError::Damaged { .. })));
}

/// The bytes that every reader of results must know. A change here is a change of the format.
#[test]
fn the_bytes_of_results_and_index_are_pinned() {
    let (_home, disk) = disk();
    let mut results = Results::open(Arc::clone(&disk), "log", &[1, 2], None).expect("it opens");
    results.append(1, &block(1, 2)).expect("appended");
    results.append(2, &block(2, 0)).expect("appended");
    let pinned = |golden: &str| golden.replace(['\n', ' '], "");
    let record = hex::encode(bytes_of(&disk, "log/00000000000000000001.res"));
    assert_eq!(record, pinned(include_str!("golden/results.hex")));
    let index = bytes_of(&disk, "log/00000000000000000001.idx");
    assert_eq!(index.len(), 4096);
    assert!(index[152..].iter().all(|byte| *byte == 0));
    assert_eq!(hex::encode(&index[..152]), pinned(include_str!("golden/index.hex")));
}

#[test]
fn a_look_finds_all_and_writes_nothing() {
    let (_home, disk) = disk();
    assert_eq!(look(&*disk, "log").expect("nothing is no error").last_height(), None);
    drop(filled(&disk));
    disk.unlink("log/00000000000000000001.idx").expect("an index is no need");
    let names = disk.list("log").expect("a folder");
    let reader = look(&*disk, "log").expect("it is sound");
    for height in 1..=30 {
        assert_eq!(reader.results(height).expect("a read"), Some(block(height, 60)));
        assert_eq!(reader.lookup(&tx(height, 59)).expect("a read"), Some(Location { height, index: 59 }));
    }
    assert_eq!(disk.list("log").expect("a folder"), names);
}

#[test]
fn results_above_a_height_are_set_aside_and_made_again() {
    for height in [0, 1, 9, 10, 11, 20, 25, 29] {
        let (_home, disk) = disk();
        drop(filled(&disk));
        let mut quarantine = Quarantine::new(Arc::clone(&disk), "cut");
        let kept = cut_above(&disk, "log", height, &mut quarantine).expect("cut");
        assert!(!kept.is_empty() && kept.iter().all(|path| disk.open(path).is_ok()), "{kept:?}");
        assert!(cut_above(&disk, "log", height, &mut quarantine).expect("nothing to do").is_empty());
        let mut results = Results::open(Arc::clone(&disk), "log", &[1, 100, 200], Some(30)).expect("it opens");
        check(&results, 1..=height);
        for height in height + 1..=30 {
            assert_eq!(results.reader().lookup(&tx(height, 0)).expect("a read"), None);
            results.append(segment(height), &block(height, 60)).expect("appended");
        }
        check(&results, 1..=30);
    }
}
