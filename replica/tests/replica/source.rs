//! What the log holds for peers: decided or not, whole or in ranges.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_replica::recovery::decided;
use lockstep_replica::seam::{ReadAnswer, ReadQuestion};
use lockstep_replica::source::BlockSource;
use lockstep_replica::wire::{Question, WHOLE_PARTS_MAX, WIRE_VERSION};
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record};
use lockstep_types::block::{self, BlockId, PART_BYTES};
use lockstep_types::{Hash, codec};

use crate::desk::{Desk, Made};
use crate::support::*;

/// A log with the chain, and a body that nobody decided.
fn log(dir: &std::path::Path, made: &Made, undecided: (&BlockId, &[u8])) -> BlockLog {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir).unwrap());
    let (mut log, _) = BlockLog::open(disk, "log", LogOptions { salt: [3; 32], segment_bytes: 1 << 16 }).unwrap();
    let mut append = |kind, height, id: &BlockId, payload: &[u8]| {
        log.append(Record { kind, height, round: 0, block_hash: id.hash.0, payload }).unwrap();
    };
    for (n, (id, body, commit)) in (1..).zip(&made.blocks) {
        append(Kind::Body, n, id, body);
        append(Kind::Decision, n, id, &codec::encode(WIRE_VERSION, commit));
    }
    append(Kind::Body, made.blocks.len() as u64 + 1, undecided.0, undecided.1);
    log.sync().unwrap();
    log
}

/// A body of so many parts that is no block: the log does not look inside.
fn body(parts: usize) -> (BlockId, Vec<u8>) {
    let bytes: Vec<u8> = (0..=250).cycle().take((parts - 1) * PART_BYTES + 5).collect();
    (BlockId { hash: Hash([7; 32]), parts: block::cut(&bytes).0 }, bytes)
}

#[test]
fn bodies_come_from_the_log_decided_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let made = Made::of(5);
    let (id, bytes) = body(2);
    let log = log(dir.path(), &made, (&id, &bytes));
    let mut source = BlockSource::new(log.reader());
    let mut body = |n, block_id| source.read(&ReadQuestion::Body { height: height(n), block_id }).unwrap();
    for (n, (id, bytes, _)) in (1..).zip(&made.blocks) {
        assert_eq!(body(n, *id), ReadAnswer::Body(Some(bytes.clone())));
    }
    assert_eq!(body(6, id), ReadAnswer::Body(Some(Bytes::from(bytes))));
    assert_eq!(body(6, BlockId { hash: Hash([8; 32]), ..id }), ReadAnswer::Absent, "not there");
    assert_eq!(body(5, id), ReadAnswer::Absent, "of another height");
    let mut others = id.parts;
    others.hash = Hash([1; 32]);
    assert_eq!(body(6, BlockId { parts: others, ..id }), ReadAnswer::Body(None), "another's parts under this hash");
    for total in [0, 1, 3, 64, u32::MAX] {
        others.total = total;
        assert_eq!(body(6, BlockId { parts: others, ..id }), ReadAnswer::Absent, "not read for a name of {total} parts");
    }
}

#[test]
fn blocks_come_as_the_log_decided_them_and_no_further() {
    let dir = tempfile::tempdir().unwrap();
    let made = Made::of(5);
    let (id, bytes) = body(1);
    let log = log(dir.path(), &made, (&id, &bytes));
    let mut source = BlockSource::new(log.reader());
    for (from, count, bytes_max) in [(1, 64, u64::MAX), (2, 3, u64::MAX), (5, 1, u64::MAX), (6, 3, u64::MAX), (1, 64, 1), (1, 64, 3_000)] {
        let ReadAnswer::Blocks(blocks) = source.read(&ReadQuestion::Blocks { from: height(from), count, bytes_max }).unwrap() else {
            panic!("small blocks travel whole")
        };
        let expected: Vec<_> = (from..=5).take(count as usize).map(|n| decided(&log.reader(), height(n)).unwrap()).collect();
        let fits = |n: usize| {
            n == 1
                || expected[..n]
                    .iter()
                    .map(|(_, _, body, commit)| lockstep_sync::fetched_bytes(body.len(), commit.signatures.len()))
                    .sum::<u64>()
                    <= bytes_max
        };
        let most = (1..=expected.len()).filter(|n| fits(*n)).max().unwrap_or(0);
        assert_eq!(blocks, expected[..most].iter().map(|(_, _, body, commit)| (body.clone(), commit.clone())).collect::<Vec<_>>());
    }
}

#[test]
fn a_large_body_comes_in_ranges_and_its_block_as_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let mut made = Made::of(2);
    let (id, bytes) = body(150);
    let (_, parts) = block::cut(&bytes);
    let mut commit = made.block(2).2.clone();
    (commit.height, commit.block_id) = (height(3), id);
    made.blocks.push((id, Bytes::from(bytes), commit.clone()));
    let (other, other_bytes) = (BlockId { hash: Hash([9; 32]), ..body(70).0 }, body(70).1);
    let log = log(dir.path(), &made, (&other, &other_bytes));
    let mut source = BlockSource::new(log.reader());
    let blocks = |from, count| ReadQuestion::Blocks { from: height(from), count, bytes_max: u64::MAX };
    assert!(matches!(source.read(&blocks(1, 64)).unwrap(), ReadAnswer::Blocks(blocks) if blocks.len() == 2), "up to the large one");
    assert_eq!(source.read(&blocks(3, 64)).unwrap(), ReadAnswer::Certificate(commit));
    // Ranges of two bodies in turn: the one that is kept is never taken for the other.
    for from in [0u32, 1, 63, 64, 100, 149, 150, u32::MAX] {
        for count in [0, 1, 64, u32::MAX] {
            let expected: Vec<_> = parts.iter().skip(from as usize).take(count.min(WHOLE_PARTS_MAX) as usize).cloned().collect();
            assert_eq!(
                source.read(&ReadQuestion::Parts { height: height(3), block_id: id, from, count }).unwrap(),
                ReadAnswer::Parts(expected)
            );
            let ReadAnswer::Parts(others) = source.read(&ReadQuestion::Parts { height: height(4), block_id: other, from, count }).unwrap()
            else {
                panic!()
            };
            assert!(others.iter().all(|part| part.verify(&other.parts)));
        }
    }
    let nowhere = BlockId { hash: Hash([1; 32]), ..id };
    assert_eq!(source.read(&ReadQuestion::Parts { height: height(3), block_id: nowhere, from: 0, count: 1 }).unwrap(), ReadAnswer::Absent);
}

/// A node that decided height 1 long ago is asked for its body: it looks into the log.
#[test]
fn a_body_that_is_not_in_memory_is_read() {
    let made = Made::of(3);
    let mut desk = Desk::new(&made, None);
    desk.connect(1, None);
    desk.follow(&made, 1);
    let block_id = made.block(1).0;
    desk.ask(1, 5, &Question::Body { height: height(1), block_id });
    desk.ask(1, 6, &Question::Parts { height: height(1), block_id, from: 0, count: 64 });
    let reads = desk.reads();
    assert_eq!(reads.iter().map(|(_, what)| what.clone()).collect::<Vec<_>>(), [ReadQuestion::Body { height: height(1), block_id }]);
    let body = made.block(1).1.clone();
    desk.read_done(reads[0].0, ReadAnswer::Body(Some(body.clone())));
    assert_eq!(desk.answers(), [(5, lockstep_replica::wire::Answer::Body(body))]);
    assert_eq!(
        desk.reads().iter().map(|(_, what)| what.clone()).collect::<Vec<_>>(),
        [ReadQuestion::Parts { height: height(1), block_id, from: 0, count: 64 }]
    );
}
