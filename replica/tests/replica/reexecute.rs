//! Executing a log once more: the first block, and the first transaction, that do not give what was certified are named.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_app::kv::Kv;
use lockstep_app::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Host, Info, Initialized, Query, QueryAnswer, Verdict, View,
};
use lockstep_replica::recovery::reexecute::{Archive, Begin, Difference, FirstTx, Walked};
use lockstep_replica::results::keep;
use lockstep_replica::seam::Outcome;
use lockstep_replica::wire::WIRE_VERSION;
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record};
use lockstep_storage::results::Results;
use lockstep_types::{Block, Height, codec};

use crate::desk::Made;
use crate::support::*;

/// How a later version of an application is another.
enum Drift {
    /// The second transaction of the block has another result.
    Result,
    /// The block writes one more entry.
    State,
    /// The block writes an entry that is another each time.
    Unsteady(AtomicU64),
    /// The chain begins with another entry.
    Genesis,
}

/// The key-value application, but for one block.
struct Drifted(Drift, u64);

impl Application for Drifted {
    fn info(&self, view: &View) -> Info {
        Kv.info(view)
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        let mut start = Kv.init_chain(genesis)?;
        if matches!(self.0, Drift::Genesis) {
            start.changes.set(&b"kv/drift"[..], &b"1"[..]);
        }
        Ok(start)
    }

    fn check_tx(&self, view: &View, tx: &[u8], kind: CheckKind) -> Verdict {
        Kv.check_tx(view, tx, kind)
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        let mut executed = Kv.execute(view, block);
        if block.height == height(self.1) {
            match &self.0 {
                Drift::Result => executed.tx_results[1].data = b"drift".to_vec(),
                Drift::State => executed.changes.set(&b"kv/drift"[..], &b"1"[..]),
                Drift::Unsteady(calls) => {
                    let call = calls.fetch_add(1, Ordering::Relaxed).to_le_bytes();
                    executed.changes.set(&b"kv/drift"[..], &call[..]);
                }
                Drift::Genesis => {}
            }
        }
        executed
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        Kv.query(view, query)
    }
}

/// A chain of so many blocks of three transactions, in a log with its results.
fn home(blocks: u64) -> (tempfile::TempDir, Arc<dyn Disk>, Made) {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.path()).unwrap());
    let mut made = Made::of(0);
    let (mut log, _) = BlockLog::open(disk.clone(), "log", LogOptions { salt: [3; 32], segment_bytes: 1 << 12 }).unwrap();
    for n in 1..=blocks {
        let txs: Vec<Vec<u8>> = (0..3).map(|tx| format!("key{n}-{tx}=value").into_bytes()).collect();
        made.grow(&txs.iter().map(|tx| &tx[..]).collect::<Vec<_>>());
        let (id, body, commit) = made.block(n);
        let append = |log: &mut BlockLog, kind, payload: &[u8]| {
            log.append(Record { kind, height: n, round: 0, block_hash: id.hash.0, payload }).unwrap();
        };
        append(&mut log, Kind::Body, body);
        append(&mut log, Kind::Decision, &codec::encode(WIRE_VERSION, commit));
    }
    log.sync().unwrap();
    let mut results = Results::open(disk.clone(), "log", &log.reader().segments(), Some(blocks)).unwrap();
    let mut db = lockstep_storage::state::StateDb::open(&*disk, "state").unwrap();
    lockstep_replica::recovery::recover(host(), &made.genesis, &log.reader(), &mut db, None, |block: &Block, outcome: &Outcome, chain| {
        let segment = log.reader().segment_of(outcome.height.get()).unwrap();
        results.append(segment, &keep(block, outcome, chain)).map_err(|error| error.to_string())
    })
    .unwrap();
    results.sync().unwrap();
    (folder, disk, made)
}

fn walk(disk: &Arc<dyn Disk>, made: &Made, app: impl Application, to: u64) -> (Vec<Height>, Walked) {
    let archive = Archive::open(disk.clone(), "log", &made.genesis, Host::new(Arc::new(app))).unwrap().expect("a log");
    let start = archive.start(Begin::First).unwrap().expect("the first block is here");
    assert_eq!((start.height, start.is_snapshot), (Height::ZERO, false));
    let mut told = Vec::new();
    let walked = archive.walk(start, height(to), |block| told.push(block.header.height)).unwrap();
    (told, walked)
}

fn difference(disk: &Arc<dyn Disk>, made: &Made, drift: Drift, at: u64) -> Difference {
    let (told, walked) = walk(disk, made, Drifted(drift, at), 12);
    assert_eq!(told.len() as u64, at, "nothing is executed after it");
    walked.difference.expect("it is found")
}

fn names(difference: &Difference) -> Vec<&str> {
    difference.fields.iter().map(|field| field.name).collect()
}

#[test]
fn the_same_program_gives_the_same_chain() {
    let (_folder, disk, made) = home(12);
    for to in [1, 7, 12] {
        let (told, walked) = walk(&disk, &made, Kv, to);
        assert_eq!((told.len() as u64, walked.chain.height), (to, height(to)));
        assert_eq!(walked.difference, None);
        assert_eq!(walked.chain.app_hash, walked.state.root().into());
    }
    let (_, walked) = walk(&disk, &made, Kv, 12);
    assert_eq!(walked.chain, *made.chain);
}

#[test]
fn a_block_whose_results_are_others_is_named_with_its_transaction() {
    let (_folder, disk, made) = home(12);
    for at in [1, 5, 12] {
        let found = difference(&disk, &made, Drift::Result, at);
        // The newest block is certified by nobody so far, and compared with what was kept.
        assert_eq!((found.height, found.is_certified, found.is_unsteady), (height(at), at < 12, false));
        assert_eq!(names(&found), ["last_results_hash"]);
        let FirstTx::Found(tx) = &found.tx else { panic!("{:?}", found.tx) };
        let block = Block::decode(&made.block(at).1).unwrap();
        assert_eq!((tx.index, tx.hash, &tx.found.data[..]), (1, block.txs[1].hash(), &b"drift"[..]));
        assert_ne!(tx.expected.data, b"drift");
    }
    // Without the results that this node kept no transaction can be named, and the block still is.
    for name in disk.list("log").unwrap().iter().filter(|name| name.ends_with(".res")) {
        disk.unlink(&format!("log/{name}")).unwrap();
    }
    assert_eq!(difference(&disk, &made, Drift::Result, 5).tx, FirstTx::NotKept);
    let (_, walked) = walk(&disk, &made, Drifted(Drift::Result, 12), 12);
    assert_eq!(walked.difference, None, "nobody says what the newest block gives");
}

#[test]
fn a_block_whose_state_is_another_is_named() {
    let (_folder, disk, made) = home(12);
    for at in [1, 5, 12] {
        let found = difference(&disk, &made, Drift::State, at);
        assert_eq!((found.height, found.is_certified, found.is_unsteady), (height(at), at < 12, false));
        assert_eq!((names(&found), &found.tx), (vec!["app_hash"], &FirstTx::SameResults));
        assert_ne!(found.fields[0].expected, found.fields[0].found);
        let unsteady = difference(&disk, &made, Drift::Unsteady(AtomicU64::new(0)), at);
        assert_eq!((unsteady.height, unsteady.is_unsteady), (height(at), true));
    }
    let found = difference(&disk, &made, Drift::Genesis, 0);
    assert_eq!((found.height, names(&found)), (Height::ZERO, vec!["app_hash"]));
}
