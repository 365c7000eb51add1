//! A snapshot that is gathered and installed while the power fails: whatever is left of it, the next start ends with the state, with an own
//! snapshot of it, and with an empty folder of what was gathered.

use std::sync::Arc;

use lockstep_app::{Host, Tree};
use lockstep_replica::planted::Planted;
use lockstep_replica::recovery::reexecute::Archive;
use lockstep_replica::recovery::rollback::{NewState, Rollback, RollbackError, roll_back};
use lockstep_replica::seam::{ReadAnswer, ReadQuestion};
use lockstep_replica::state_sync::{Found, Installed, PASSED_PATH, STAGING_PATH, Staging, Task};
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::snapshots::Snapshots;
use lockstep_sync::state::{Check, Checked};
use lockstep_types::Hash;
use lockstep_types::light::LightBlock;

use super::chain::{Chain, Turnover, h};
use super::write_blocks;
use crate::crypto::Crypto;
use crate::disk::{Fault, SimDisk, Survival, When};
use crate::node::{LOG, Machine, SNAPSHOTS, STATE, Started};

/// The height of the snapshot: of more than one chunk, with blocks above it.
const HEIGHT: u64 = 40;

/// The highest block that is collected above it.
const TOP: u64 = HEIGHT + 3;

/// Headers of the chain, downwards.
fn light(chain: &Chain, from: u64, count: u32) -> Vec<LightBlock> {
    let question = ReadQuestion::Light { from: h(from), count, bytes_max: 16 << 20, tip: lockstep_types::Height::ZERO };
    match chain.source(&[]).read(&question).expect("the disk is sound") {
        ReadAnswer::Light(blocks) => blocks,
        other => panic!("{other:?}"),
    }
}

/// Gathers everything, and says that it is complete.
fn gather(chain: &Chain, disk: &SimDisk) -> Staging {
    let mut staging = Staging::open(disk.disk(), chain.genesis.hash()).expect("a new disk");
    let kept = &chain.snapshots[&h(HEIGHT)];
    let (above, at) = (light(chain, HEIGHT + 1, 1).remove(0), light(chain, HEIGHT, 1).remove(0));
    let mut perform = |check| match staging.perform(Task::Check(check), &Tree::new()) {
        Ok(Found::Checked(checked)) => checked,
        other => panic!("{other:?}"),
    };
    let check = Check::Manifest { bytes: kept.manifest.as_slice().into(), above: Box::new(above), at: Box::new(at) };
    let Checked::Manifest(wanted) = perform(check) else { panic!("the manifest is the chain's") };
    assert!(wanted.len() > 1, "a snapshot of one chunk shows little");
    let missing = (0u32..).zip(&wanted).filter(|(_, chunk)| !chunk.have);
    let chunks = missing.map(|(index, chunk)| Check::Chunk {
        index,
        bytes: kept.chunk(&chunk.root).expect("the chain's maker has it").as_slice().into(),
        is_whole: true,
    });
    let body = chain.blocks[usize::try_from(HEIGHT - 1).expect("small")].0.clone();
    let above: Vec<(Box<LightBlock>, Arc<[u8]>)> = (HEIGHT + 1..=TOP)
        .map(|height| {
            (Box::new(light(chain, height, 1).remove(0)), chain.blocks[usize::try_from(height - 1).expect("small")].0.to_vec().into())
        })
        .collect();
    for (block, body) in &above {
        let asked = Check::Block { block: block.clone(), body: None };
        assert_eq!(perform(asked.clone()), Checked::Unfit, "it is not here");
        let another = Check::Block { block: block.clone(), body: Some(Arc::from(&b"another"[..])) };
        assert_eq!(perform(another), Checked::Unfit);
        assert_eq!(perform(Check::Block { block: block.clone(), body: Some(body.clone()) }), Checked::Good);
        assert_eq!(perform(asked), Checked::Good);
    }
    let rest = [Check::Body(body.to_vec().into()), Check::Headers(light(chain, HEIGHT - 1, 20)), Check::Complete];
    for check in chunks.collect::<Vec<_>>().into_iter().chain(rest) {
        assert_eq!(perform(check), Checked::Good);
    }
    staging
}

fn start(chain: &Chain, machine: &Machine, what: &str) -> Option<Started> {
    let host = Host::new(Arc::new(Turnover));
    match machine.start(host, &chain.genesis, 4, Planted::default()) {
        Ok(started) => {
            assert!(started.healed.is_empty(), "{what}: nothing is damaged, and it heals {}", started.healed[0]);
            Some(started)
        }
        Err(reason) => {
            assert!(machine.disk.is_stopped(), "{what}: {reason}");
            None
        }
    }
}

/// The node is at this height, with the chain's own state in every respect.
fn is_at(chain: &Chain, started: &Started, height: u64, what: &str) {
    let ours = chain.after(h(height));
    assert_eq!(started.running.replica.chain().encode(), ours.encode(), "{what}");
    assert_eq!(started.running.executor.state().root().0[..], *ours.app_hash.as_bytes(), "{what}");
}

/// What lies in the snapshot's own files is what lies in the chain's.
fn has_own_snapshot(chain: &Chain, disk: &SimDisk, what: &str) {
    let (store, swept) = Snapshots::open(disk.disk(), SNAPSHOTS).expect("the disk is sound");
    assert_eq!((store.heights(), swept.damaged), (vec![HEIGHT], Vec::new()), "{what}");
    let kept = &chain.snapshots[&h(HEIGHT)];
    assert_eq!(store.manifest(HEIGHT).as_deref(), Some(&kept.manifest[..]), "{what}");
    for root in lockstep_app::snapshot::Manifest::from_bytes(&kept.manifest).expect("ours").chunks().iter().map(|info| info.root) {
        if root != Hash(lockstep_types::state_tree::EMPTY.0) {
            assert_eq!(store.chunk(&root.0).expect("sound"), kept.chunk(&root), "{what}");
        }
    }
}

fn nothing_is_gathered(disk: &SimDisk, what: &str) {
    let left: Vec<String> = disk.paths().into_iter().filter(|path| path.starts_with(STAGING_PATH)).collect();
    assert!(left.is_empty(), "{what}: {left:?} are left for good");
}

fn gathered(chain: &Chain) -> Machine {
    let machine = Machine::new(None, 0, chain.genesis.hash(), true);
    gather(chain, &machine.disk).mark().expect("the disk is sound");
    // What is said to be complete is durable.
    machine.disk.crash(Survival::None, 0);
    machine
}

/// The power fails at each of these operations of a start; the next one ends at the top, and then this holds.
fn wherever_it_is_stopped(chain: &Chain, machine: &Machine, operations: std::ops::Range<u64>, holds: impl Fn(&SimDisk, &str)) {
    assert!(!operations.is_empty(), "there is something to break off");
    for operation in operations {
        // Each operation in one way; neighbours in others.
        let turn = usize::try_from(operation).expect("small");
        let (when, survival) = (When::EACH[turn % 3], Survival::EACH[turn % 8]);
        let what = format!("stopped {when:?} operation {operation}, {survival:?}");
        let stopped = machine.with_disk(machine.disk.fork());
        stopped.disk.fault_at(operation, Fault::Stop(when), operation);
        drop(start(chain, &stopped, &what));
        stopped.disk.crash(survival, operation);
        let started = start(chain, &stopped, &what).expect("nothing stops it any more");
        is_at(chain, &started, TOP, &what);
        drop(started);
        holds(&stopped.disk, &what);
    }
}

#[test]
fn wherever_an_installation_is_stopped_the_next_start_ends_with_it_and_leaves_nothing_over() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = gathered(&chain);
    let first = machine.disk.operations();
    let sound = machine.with_disk(machine.disk.fork());
    let started = start(&chain, &sound, "undisturbed").expect("nothing stops it");
    assert_eq!(started.installed, Some(Installed::Restored(h(HEIGHT))));
    is_at(&chain, &started, TOP, "undisturbed");
    drop(started);
    let last = sound.disk.operations();
    nothing_is_gathered(&sound.disk, "undisturbed");
    has_own_snapshot(&chain, &sound.disk, "undisturbed");
    wherever_it_is_stopped(&chain, &machine, first..last, |disk, what| {
        nothing_is_gathered(disk, what);
        has_own_snapshot(&chain, disk, what);
    });
}

/// A killed process leaves what it wrote, synced or not: what is to be removed at the end must be removed by whoever comes next.
#[test]
fn a_process_that_is_killed_while_it_clears_up_leaves_nothing_over() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = gathered(&chain);
    let sound = machine.with_disk(machine.disk.fork());
    drop(start(&chain, &sound, "undisturbed"));
    for operation in machine.disk.operations()..sound.disk.operations() {
        let what = format!("killed at operation {operation}");
        let killed = machine.with_disk(machine.disk.fork());
        killed.disk.fault_at(operation, Fault::Stop(When::Before), operation);
        drop(start(&chain, &killed, &what));
        killed.disk.kill();
        let started = start(&chain, &killed, &what).expect("nothing stops it any more");
        is_at(&chain, &started, TOP, &what);
        drop(started);
        nothing_is_gathered(&killed.disk, &what);
    }
}

/// The log of a node that began with a snapshot does not lead back to genesis. What it began with is kept, so that nothing but the
/// database is lost with the database.
#[test]
fn a_state_that_is_lost_before_the_first_snapshot_of_its_own_costs_no_block() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = gathered(&chain);
    drop(start(&chain, &machine, "installing"));
    const TIP: u64 = TOP + 3;
    write_blocks(&chain, &machine, TOP + 1..=TIP);
    let started = start(&chain, &machine, "with blocks").expect("nothing stops it");
    is_at(&chain, &started, TIP, "with blocks");
    drop(started);
    let rotten = machine.with_disk(machine.disk.fork());
    machine.disk.lose(STATE);
    let started = start(&chain, &machine, "without a database").expect("nothing stops it");
    assert_eq!((started.flushed, started.replayed.len()), (h(HEIGHT), 6), "from the snapshot on");
    is_at(&chain, &started, TIP, "without a database");
    drop(started);

    // Damaged, it goes aside first.
    rotten.disk.rot(STATE, 5_000, 0xff);
    let host = Host::new(Arc::new(Turnover));
    let started = rotten.start(host, &chain.genesis, 4, Planted::default()).expect("nothing stops it");
    is_at(&chain, &started, TIP, "with a rotten database");
}

/// Nothing leads to a log that begins with a snapshot where database and snapshots are gone: to promise that the next start executes it from
/// genesis would be false.
#[test]
fn a_home_without_its_state_and_its_beginning_is_not_rolled_back_to_genesis() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = gathered(&chain);
    drop(start(&chain, &machine, "installing"));
    machine.disk.lose(STATE);
    let back_to = |machine: &Machine, to: u64| {
        let archive = Archive::open(machine.disk.disk(), LOG, &chain.genesis, Host::new(Arc::new(Turnover)));
        let archive = archive.expect("the disk is sound").expect("it has blocks");
        let wanted = Rollback { state: STATE, to: h(to), is_hard: false };
        roll_back(&archive, &wanted, &mut Quarantine::new(machine.disk.disk(), "rolled-back"), |_| {})
    };
    let back = |machine: &Machine| back_to(machine, TOP - 1);
    let with_snapshot = machine.with_disk(machine.disk.fork());
    for to in [HEIGHT - 1, TOP] {
        let refused = back_to(&with_snapshot, to).expect_err("it is none of the log's below the newest");
        let goes_to = format!("it can go back to heights {HEIGHT} to {}", TOP - 1);
        assert!(matches!(&refused, RollbackError::OutOfRange { .. }) && refused.to_string().contains(&goes_to), "{refused}");
    }
    assert_eq!(back(&with_snapshot).expect("the snapshot leads there").state, NewState::MadeAgain(h(HEIGHT)));
    is_at(&chain, &start(&chain, &with_snapshot, "rolled back").expect("nothing stops it"), TOP, "rolled back");
    let snapshots: Vec<String> = machine.disk.paths().into_iter().filter(|path| path.starts_with(SNAPSHOTS)).collect();
    snapshots.iter().for_each(|path| machine.disk.lose(path));
    assert!(matches!(back(&machine), Err(RollbackError::NoStart { lowest: None, .. })));
    // With the database alone: what is below it is refused, and what it holds is named.
    snapshots.iter().for_each(|path| with_snapshot.disk.lose(path));
    assert_eq!(back(&with_snapshot).expect("it is there").state, NewState::Kept(h(TOP - 1)));
    let refused = back_to(&with_snapshot, TOP - 2).expect_err("no state leads there");
    assert!(matches!(&refused, RollbackError::NoStart { lowest: Some(lowest), .. } if *lowest == h(TOP - 1)), "{refused}");
}

/// An archive that was off for too long: nobody else may have its blocks.
#[test]
fn blocks_that_a_snapshot_passes_stay_where_all_are_kept_wherever_that_is_stopped() {
    let chain = Chain::make(&mut Crypto::new(false));
    blocks_stay(&chain, 1..=30);
}

/// Its log may have lost its beginning, up to above the snapshot.
#[test]
fn blocks_that_begin_above_a_snapshot_stay_where_all_are_kept() {
    let chain = Chain::make(&mut Crypto::new(false));
    blocks_stay(&chain, HEIGHT + 3..=HEIGHT + 6);
}

fn blocks_stay(chain: &Chain, heights: std::ops::RangeInclusive<u64>) {
    let machine = Machine::new(None, 0, chain.genesis.hash(), true);
    write_blocks(chain, &machine, heights);
    gather(chain, &machine.disk).mark().expect("the disk is sound");
    machine.disk.crash(Survival::None, 0);
    let is_segment = |path: &String| path.starts_with("log/") && path.ends_with(".seg");
    let old: Vec<(String, Vec<u8>)> = machine
        .disk
        .paths()
        .into_iter()
        .filter(is_segment)
        .map(|path| (path.clone(), machine.disk.bytes(&path).expect("listed")))
        .collect();
    assert!(!old.is_empty(), "it has blocks");
    let are_kept = |disk: &SimDisk, what: &str| {
        for (path, bytes) in &old {
            let name = path.trim_start_matches("log/");
            assert!(disk.bytes(&format!("{PASSED_PATH}/{HEIGHT}/{name}")).as_ref() == Some(bytes), "{what}: {path}");
        }
    };
    let sound = machine.with_disk(machine.disk.fork());
    drop(start(chain, &sound, "undisturbed"));
    are_kept(&sound.disk, "undisturbed");
    wherever_it_is_stopped(chain, &machine, machine.disk.operations()..sound.disk.operations(), are_kept);
}

/// Blocks above the snapshot are of use as far as they follow each other; peers have the others.
#[test]
fn blocks_above_a_snapshot_are_executed_up_to_the_first_that_is_missing_or_damaged() {
    let chain = Chain::make(&mut Crypto::new(false));
    let gathered = gathered(&chain);
    let path = |height: u64| format!("{STAGING_PATH}/block-{height:020}");
    for height in HEIGHT + 1..=TOP {
        let missing = gathered.with_disk(gathered.disk.fork());
        missing.disk.lose(&path(height));
        let rotten = gathered.with_disk(gathered.disk.fork());
        rotten.disk.rot(&path(height), 300, 0x10);
        let torn = gathered.with_disk(gathered.disk.fork());
        torn.disk.cut(&path(height), 200);
        // A whole one under another height's name.
        let renamed = gathered.with_disk(gathered.disk.fork());
        let other = if height == TOP { HEIGHT + 1 } else { TOP };
        renamed.disk.disk().rename(&path(other), &path(height)).expect("the disk is sound");
        for (machine, what) in [(missing, "missing"), (rotten, "rotten"), (torn, "torn"), (renamed, "renamed")] {
            let what = format!("{what} at {height}");
            let started = start(&chain, &machine, &what).expect("nothing stops it");
            // Renaming takes the other one away, too.
            let first = if what.starts_with("renamed") { height.min(other) } else { height };
            is_at(&chain, &started, first - 1, &what);
            drop(started);
            nothing_is_gathered(&machine.disk, &what);
        }
    }
}

/// What was gathered of a height that this node's own blocks have passed is of no use to anybody. All of it lies there, and no replica stopped for
/// it: a start that went back to it would go back behind what this node told.
#[test]
fn what_was_gathered_goes_once_blocks_have_passed_it() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = Machine::new(None, 0, chain.genesis.hash(), true);
    gather(&chain, &machine.disk);
    write_blocks(&chain, &machine, 1..=HEIGHT - 1);
    let started = start(&chain, &machine, "one block below").expect("nothing stops it");
    is_at(&chain, &started, HEIGHT - 1, "one block below");
    drop(started);
    assert!(machine.disk.paths().iter().any(|path| path.starts_with(STAGING_PATH)), "it may be of use still");
    write_blocks(&chain, &machine, HEIGHT..=HEIGHT);
    let before = machine.with_disk(machine.disk.fork());
    let first = before.disk.operations();
    let started = start(&chain, &machine, "there").expect("nothing stops it");
    is_at(&chain, &started, HEIGHT, "there");
    drop(started);
    nothing_is_gathered(&machine.disk, "there");
    // And wherever that is stopped.
    for operation in first..machine.disk.operations() {
        let what = format!("killed at operation {operation}");
        let killed = before.with_disk(before.disk.fork());
        killed.disk.fault_at(operation, Fault::Stop(When::Before), operation);
        drop(start(&chain, &killed, &what));
        killed.disk.kill();
        drop(start(&chain, &killed, &what).expect("nothing stops it any more"));
        nothing_is_gathered(&killed.disk, &what);
    }
}
