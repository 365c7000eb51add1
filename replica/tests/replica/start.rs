//! The start of a chain, where what genesis says of the first state is compared with what the application made; and of a node.

use std::sync::Arc;

use lockstep_genesis::GenesisDraft;
use lockstep_replica::bodies::BODIES_MAX;
use lockstep_replica::recovery::{genesis_state, recover};
use lockstep_replica::signing::{OwnMessage, UNSIGNED, guard_record};
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record};
use lockstep_storage::state::StateDb;
use lockstep_types::block::part_set_header;
use lockstep_types::{AppHash, BlockId, Hash, Polka, Round, Vote};

use crate::support::*;

#[test]
fn the_root_in_genesis_must_be_the_applications() {
    let plain = genesis(1);
    let root = start(&plain).0.app_hash;
    let with = |app_hash: AppHash| GenesisDraft { app_hash, ..(*plain).clone() }.check().unwrap();
    let (chain, _, _) = genesis_state(&host(), &with(root.clone())).unwrap();
    assert_eq!(chain.app_hash, root);
    let other = AppHash::from(Hash([0xab; 32]));
    let Err(refused) = genesis_state(&host(), &with(other.clone())) else { panic!("another root is taken") };
    let refused = refused.to_string();
    assert!(refused.contains(&root.to_string()) && refused.contains(&other.to_string()), "{refused}");
}

/// Sixty rounds left a body each on disk, the first of them locked. A restart reads that one and the newest, no more than are
/// held in memory.
#[test]
fn a_restart_reads_no_more_bodies_than_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()).unwrap());
    let genesis = genesis(4);
    let (mut log, _) = BlockLog::open(disk.clone(), "log", LogOptions { salt: [3; 32], segment_bytes: 1 << 20 }).unwrap();
    let bodies: Vec<(BlockId, Vec<u8>)> =
        (0..60u8).map(|n| vec![n; 100]).map(|body| (BlockId { hash: Hash::of(&body), parts: part_set_header(&body) }, body)).collect();
    for (id, payload) in &bodies {
        log.append(Record { kind: Kind::Body, height: 1, round: 0, block_hash: id.hash.0, payload }).unwrap();
    }
    log.sync().unwrap();
    let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial(genesis.hash().0)).unwrap();
    let lock = Polka { height: height(1), round: Round::ZERO, block_id: bodies[0].0, ..polka() };
    let precommit = Vote { height: height(1), round: Round::ZERO, block_id: Some(bodies[0].0), signature: UNSIGNED, ..nil_precommit() };
    let message = OwnMessage::Vote(precommit);
    guard.write(&guard_record(&message, &[], Some(&lock), Some(&lock), &chain_id(), &genesis.hash())).unwrap();
    let mut db = StateDb::open(&*disk, "state").unwrap();
    let recovered = recover(host(), &genesis, &log.reader(), &mut db, Some(&guard), |_, _, _| Ok(())).unwrap();
    let mut found: Vec<BlockId> = recovered.restored.bodies.iter().map(|(id, _)| *id).collect();
    let mut expected: Vec<BlockId> = bodies[..1].iter().chain(&bodies[60 - (BODIES_MAX - 1)..]).map(|(id, _)| *id).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
