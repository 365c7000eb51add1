//! A small home of a real chain, damaged at every few bytes, or at every byte with `LOCKSTEP_EVERY_BYTE=1`: it heals to what it was or
//! to a prefix of it, never to anything else, and never in a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lockstep_app::{Host, Kv};
use lockstep_genesis::Genesis;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::planted::Planted;
use lockstep_replica::recovery::reexecute::{Archive, Begin};
use lockstep_replica::recovery::rollback::{Rollback, roll_back};
use lockstep_replica::recovery::{Store, decided};
use lockstep_storage::quarantine::Quarantine;
use lockstep_types::Height;

use crate::disk::{SimDisk, Survival, When};
use crate::members::Windows;
use crate::node::{DAMAGED, GUARD, LOG, Machine, Running, STATE};
use crate::plan::Plan;
use crate::world::World;

/// A home after a short run, with everything that it should say.
pub(crate) struct Home {
    pub(crate) genesis: Genesis,
    pub(crate) machine: Machine,
    pub(crate) tip: u64,
    roots: Vec<Vec<u8>>,
    results: Vec<Vec<u8>>,
    pub(crate) signed: (u64, u32, u8),
}

pub(crate) fn start(home: &Home, disk: SimDisk) -> Result<Running, String> {
    let machine = home.machine.with_disk(disk);
    let started = catch_unwind(AssertUnwindSafe(|| machine.start(Host::new(Arc::new(Kv)), &home.genesis, 3, Planted::default())));
    started.unwrap_or_else(|panic| panic!("a panic: {}", crate::panic_text(&*panic))).map(|started| started.running)
}

impl Home {
    /// Of an operator who keeps all blocks.
    pub(crate) fn new() -> Self {
        Self::of(0)
    }

    /// Of one who keeps so many; 0 for all.
    fn of(blocks: u64) -> Self {
        Self::with(blocks, 20)
    }

    /// Of a chain whose clients send something every so many milliseconds.
    fn with(blocks: u64, tx_interval_ms: u64) -> Self {
        Self::planned(blocks, tx_interval_ms, |_| {})
    }

    fn planned(blocks: u64, tx_interval_ms: u64, adapt: impl FnOnce(&mut Plan)) -> Self {
        let mut plan = Plan::sweep();
        plan.rots = true;
        plan.tx_interval = tx_interval_ms * crate::plan::MS;
        plan.keep.blocks = blocks;
        adapt(&mut plan);
        let (genesis, machine) = World::new(7, plan, Planted::default(), None).home_of(0);
        let mut home = Self { genesis, machine, tip: 0, roots: Vec::new(), results: Vec::new(), signed: (0, 0, 0) };
        // Once more, so that everything is as a start leaves it, and all results are below the tip.
        let running = start(&home, home.machine.disk.clone()).expect("nothing is damaged");
        home.tip = running.replica.chain().height.get();
        assert!((5..40).contains(&home.tip), "{} heights are too few to say anything, or too many to be damaged one by one", home.tip);
        for height in 1..=home.tip {
            let (_, block, ..) = decided(&running.reader, Height::new(height).expect("small")).expect("it is there");
            home.roots.push(block.header.hash().0.to_vec());
            home.results.push(results_of(&running, height).expect("sound").expect("executed"));
        }
        home.signed = home.machine.guard_position(home.genesis.hash()).expect("a validator");
        drop(running);
        home.machine.disk.crash(Survival::All, 0);
        home
    }

    /// Whether what a damaged home says is a prefix of the truth; how long a prefix. What a start has no need of is found when it
    /// is read, says so, and is healed by the start after that.
    #[track_caller]
    pub(crate) fn check(&self, disk: &SimDisk, what: &str) -> u64 {
        let first = self.read(disk, what);
        let tip = first.or_else(|error| {
            assert!(error.contains("does not verify") || error.contains("damaged"), "{what}: {error}");
            // As the shell does.
            Quarantine::new(disk.disk(), DAMAGED).suspect().expect("a mark");
            disk.kill();
            self.read(disk, what)
        });
        let tip = tip.unwrap_or_else(|error| panic!("{what}: {error}"));
        let guard = self.machine.with_disk(disk.clone()).guard_position(self.genesis.hash());
        assert_eq!(guard, Some(self.signed), "{what}: the guard is what it was");
        // What was healed is whole: the next start, after a power cut, has nothing to heal.
        disk.crash(Survival::None, 0);
        let machine = self.machine.with_disk(disk.clone());
        let again = machine
            .start(Host::new(Arc::new(Kv)), &self.genesis, 3, Planted::default())
            .unwrap_or_else(|error| panic!("{what}, again: {error}"));
        assert!(again.healed.is_empty() && again.height.get() == tip, "{what}: {:?} at the next start", again.healed);
        tip
    }

    /// Starts, and reads everything.
    #[track_caller]
    pub(crate) fn read(&self, disk: &SimDisk, what: &str) -> Result<u64, String> {
        let running = start(self, disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let tip = running.replica.chain().height.get();
        assert!(tip <= self.tip, "{what}: it invented heights");
        let base = running.reader.base().unwrap_or(1);
        assert!(base == 1 || !self.machine.keeps_all, "{what}: its operator keeps all blocks");
        for height in base..=tip {
            let (_, block, ..) = decided(&running.reader, Height::new(height).expect("small")).map_err(|error| error.to_string())?;
            let at = usize::try_from(height - 1).expect("small");
            assert_eq!(block.header.hash().0[..], self.roots[at], "{what}: height {height}");
            assert_eq!(results_of(&running, height)?.as_ref(), Some(&self.results[at]), "{what}: results of height {height}");
        }
        Ok(tip)
    }

    fn used(&self, path: &str) -> u64 {
        let bytes = self.machine.disk.bytes(path).expect("it is there");
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    }

    fn files(&self, suffix: &str) -> Vec<String> {
        let files: Vec<String> = self.machine.disk.paths().into_iter().filter(|path| path.ends_with(suffix)).collect();
        assert!(!files.is_empty(), "there are files {suffix}");
        files
    }
}

fn results_of(running: &Running, height: u64) -> Result<Option<Vec<u8>>, String> {
    let reader = running.results.as_ref().ok_or("results are kept")?.reader();
    let results = reader.results(height).map_err(|error| error.to_string())?;
    for (index, tx) in (0u32..).zip(results.iter().flat_map(|results| &results.txs)) {
        let place = reader.lookup(&tx.hash).map_err(|error| error.to_string())?;
        if place.is_none_or(|place| (place.height, place.index) < (height, index)) {
            return Err(format!("transaction {index} is at {place:?}"));
        }
    }
    Ok(results.map(|results| borsh_of(&results)))
}

fn borsh_of(results: &lockstep_storage::results::BlockResults) -> Vec<u8> {
    results.txs.iter().flat_map(|tx| [&tx.hash[..], &tx.result].concat()).chain(results.block.iter().copied()).collect()
}

const MASKS: [u8; 3] = [0x01, 0x80, 0xff];

/// How far apart bytes are that are damaged: so many, or none where every byte is asked for.
fn step(usually: usize) -> usize {
    if std::env::var_os("LOCKSTEP_EVERY_BYTE").is_some() { 1 } else { usually }
}

/// Damages every so many bytes; how many were healed whole, and how many to a prefix.
fn every_byte(home: &Home, path: &str, step: usize) -> (u64, u64) {
    let (mut whole, mut cut) = (0, 0);
    for offset in (0..home.used(path)).step_by(step) {
        let disk = home.machine.disk.fork();
        disk.rot(path, offset, MASKS[usize::try_from(offset % 3).expect("small")]);
        if home.check(&disk, &format!("{path}, byte {offset}")) == home.tip { whole += 1 } else { cut += 1 }
    }
    (whole, cut)
}

#[test]
fn a_home_heals_whatever_byte_of_its_log_rots() {
    let home = Home::new();
    for path in home.files(".seg") {
        // Coprime to everything that repeats: every field of records of every kind is met.
        let (whole, cut) = every_byte(&home, &path, step(7));
        println!("{path}: {whole} whole, {cut} cut down to a prefix");
        assert!(cut > 0);
    }
}

/// The first segments are gone, as if they had been pruned, and nothing says that they were.
#[test]
fn a_log_that_lost_its_beginning_goes_on_where_the_state_leads_to_it() {
    for blocks in [0, 8] {
        let home = Home::of(blocks);
        let disk = home.machine.disk.fork();
        disk.lose(&home.files(".seg")[0]);
        let flushed = start(&home, home.machine.disk.fork()).expect("nothing is damaged").db.flushed().expect("a state").height;
        let tip = home.check(&disk, "its first segment is lost");
        // Where all blocks are wanted, and others have them, they come again from the first one on.
        assert_eq!(tip, if blocks == 0 { 0 } else { home.tip }, "the state is of {flushed}");
    }
}

/// Who does not keep all blocks does not lose the newest for an old one: the state leads on to what lies behind the damage, and the log
/// begins there. What lay before is set aside as it was.
#[test]
fn a_log_that_rots_below_the_state_goes_on_behind_it() {
    let home = Home::of(8);
    let flushed = start(&home, home.machine.disk.fork()).expect("nothing is damaged").db.flushed().expect("a state").height;
    assert!(flushed > 3, "blocks lie before that of the state, {flushed}");
    let (mut whole, mut later, mut cut) = (0, 0, 0);
    for path in home.files(".seg") {
        for offset in (0..home.used(&path)).step_by(step(13)) {
            let disk = home.machine.disk.fork();
            disk.rot(&path, offset, MASKS[usize::try_from(offset % 3).expect("small")]);
            let rotten = disk.bytes(&path).expect("it is there");
            let what = format!("{path}, byte {offset}");
            let tip = home.check(&disk, &what);
            assert!(tip >= flushed, "{what}: no more is lost than what came after the state, which is of height {flushed}, and not {tip}");
            let is_later = !disk.paths().contains(&home.files(".seg")[0]);
            match (tip == home.tip, is_later) {
                (true, false) => whole += 1,
                (true, true) => later += 1,
                (false, _) => cut += 1,
            }
            if !disk.paths().contains(&path) {
                let name = path.rsplit('/').next().expect("a name");
                assert_eq!(disk.bytes(&format!("{DAMAGED}/{name}-1")).as_ref(), Some(&rotten), "{what}: it is set aside as it was");
            }
        }
    }
    println!("{whole} as before, {later} begin behind the damage, {cut} are cut above the state");
    assert!(later > whole + cut, "most of the log lies before the state");
}

/// A state leads on to what lies behind damage only where it is of the log's own blocks.
#[test]
fn a_log_does_not_go_on_from_the_state_of_other_blocks() {
    let (home, other) = (Home::of(8), Home::with(8, 30));
    assert_eq!(home.genesis.hash(), other.genesis.hash(), "one chain");
    let height = start(&other, other.machine.disk.fork()).expect("nothing is damaged").db.flushed().expect("a state").height;
    let at = usize::try_from(height - 1).expect("small");
    assert!(home.roots.len() > at && home.roots[at] != other.roots[at], "another block of a height that the log has");
    let state = other.machine.disk.bytes(STATE).expect("a state");
    let disk = home.machine.disk.fork();
    disk.cut(STATE, 0);
    let file = disk.disk().open(STATE).expect("it is there");
    file.write_at(0, &state).and_then(|()| file.sync_data()).expect("a sound disk");
    disk.lose(&home.files(".seg")[0]);
    // With its own state it would go on. Reading asks that all it says is this chain's.
    assert_eq!(home.check(&disk, "a lost beginning, and the state of other blocks"), 0, "nothing leads to what is left");
}

#[test]
fn a_home_heals_whatever_byte_of_its_results_rots() {
    let home = Home::new();
    for path in home.files(".res") {
        assert_eq!(every_byte(&home, &path, step(7)).1, 0, "the log is whole");
    }
}

#[test]
fn a_home_heals_whatever_byte_of_its_state_rots() {
    let home = Home::new();
    // Coprime to a page: every place in a page is met. `rot.rs` meets every byte of the database for itself.
    assert_eq!(every_byte(&home, STATE, 211).1, 0, "the log is whole");
}

#[test]
fn a_home_heals_whatever_file_is_cut_or_lost() {
    for home in [Home::new(), Home::of(8)] {
        heals_what_is_cut_or_lost(&home);
    }
}

fn heals_what_is_cut_or_lost(home: &Home) {
    for path in [home.files(".seg"), home.files(".res"), vec![STATE.to_owned()]].concat() {
        let disk = home.machine.disk.fork();
        disk.lose(&path);
        home.check(&disk, &format!("{path} is lost"));
        for len in (0..home.used(&path)).step_by(1 + usize::try_from(home.used(&path)).expect("small") / 60) {
            let disk = home.machine.disk.fork();
            disk.cut(&path, len);
            home.check(&disk, &format!("{path} is cut to {len}"));
        }
    }
}

#[test]
fn a_home_with_rot_in_one_copy_of_its_guard_is_what_it_was() {
    let home = Home::new();
    for copy in 0..4u64 {
        for within in (0..700).step_by(13) {
            let disk = home.machine.disk.fork();
            disk.rot(GUARD, copy * (4 << 20) + within, 0xff);
            assert_eq!(home.check(&disk, &format!("copy {copy} of the guard, byte {within}")), home.tip);
        }
    }
}

/// The power fails at every operation of a start that heals.
#[test]
fn a_crash_amid_healing_heals_too() {
    for home in [Home::new(), Home::of(8)] {
        heals_after_crashes(&home);
    }
}

fn heals_after_crashes(home: &Home) {
    let segments = home.files(".seg");
    let middle = |path: &str| home.used(path) / 2;
    let damages = [segments[0].clone(), segments[segments.len() / 2].clone(), STATE.to_owned(), home.files(".res")[0].clone()];

    for path in damages {
        let damaged = home.machine.disk.fork();
        match path.as_str() {
            // A page that is in use, and not one in the middle.
            STATE => damaged.cut(&path, middle(&path)),
            _ => damaged.rot(&path, middle(&path), 0x10),
        }
        let whole = damaged.fork();
        let begun = whole.operations();
        let tip = home.check(&whole.fork(), &path);
        drop(start(home, whole.clone()));
        assert!(whole.operations() - begun > 5, "{path}: it heals");
        for operation in begun..whole.operations() {
            for when in When::EACH {
                let disk = damaged.fork();
                disk.fault_at(operation, crate::disk::Fault::Stop(when), operation);
                let _ = start(home, disk.clone());
                disk.crash(Survival::Random, operation);
                let healed = home.check(&disk, &format!("{path}, stopped {when:?} operation {operation}"));
                assert_eq!(healed, tip, "{path}, stopped {when:?} operation {operation}: a crash costs nothing more");
            }
        }
    }
}

/// Where the chain's beginning is gone, results of blocks before the state are not made again. It is told once that they are missing, it costs
/// nothing of what was kept beside and since, and whoever asks for anything else is answered.
#[test]
fn results_that_cannot_be_made_again_stay_missing_and_cost_no_others() {
    let home = Home::planned(8, 20, |plan| plan.segment_bytes = 8 << 10);
    let first = home.files(".seg")[0].clone();
    let mut told = 0;
    for path in home.files(".res").into_iter().skip(1) {
        for offset in (7..home.used(&path)).step_by(step(101)) {
            let what = format!("{path}, byte {offset}");
            let disk = home.machine.disk.fork();
            disk.lose(&first);
            disk.rot(&path, offset, 1);
            Quarantine::new(disk.disk(), DAMAGED).suspect().expect("a mark");
            let begin = || home.machine.with_disk(disk.clone()).start(Host::new(Arc::new(Kv)), &home.genesis, 3, Planted::default());
            let started = begin().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(started.height.get(), home.tip, "{what}: the state leads to what is left of the log");
            let (base, flushed) = (started.running.reader.base().expect("a log"), started.flushed.get());
            let is_told = started.healed.iter().any(|healed| healed.store == Store::ResultsBefore);
            drop(started);
            for _ in 0..2 {
                disk.crash(Survival::None, 0);
                let again = begin().unwrap_or_else(|error| panic!("{what}, again: {error}"));
                assert!(again.healed.is_empty(), "{what}: {:?} at the next start", again.healed);
                let (mut runs, mut before, mut missing) = (0, true, 0);
                for height in base + 1..=home.tip {
                    let kept = results_of(&again.running, height).expect("sound");
                    if let Some(kept) = &kept {
                        let at = usize::try_from(height - 1).expect("small");
                        assert_eq!(kept, &home.results[at], "{what}: height {height}");
                    }
                    assert!(kept.is_some() || height <= flushed, "{what}: height {height} is executed again");
                    runs += u64::from(before && kept.is_none());
                    missing += u64::from(kept.is_none());
                    before = kept.is_some();
                }
                assert!(runs <= 1, "{what}: those of one file are missing");
                // In the newest file, a record whose header rotted is as one that a crash tore.
                let is_newest = Some(&path) == home.files(".res").last();
                assert!(missing > 0 || !is_told, "{what}: nothing is missing");
                assert!(missing == 0 || is_told || is_newest, "{what}: {missing} are missing");
                let nowhere =
                    again.running.results.as_ref().expect("kept").reader().lookup(&[7; 32]).expect("what is missing is no damage");
                assert_eq!(nowhere, None);
            }
            told += u64::from(is_told);
        }
    }
    assert!(told > 20, "{told} starts met damaged results of blocks before the state");
}

/// The folder of damaged files does not grow for ever: a person is asked.
#[test]
fn a_disk_that_damages_files_again_and_again_is_told_to_a_person() {
    let home = Home::new();
    let disk = home.machine.disk.fork();
    for _ in 0..lockstep_storage::quarantine::INCIDENTS_MAX {
        disk.cut(STATE, 4096);
        drop(start(&home, disk.clone()).expect("it heals"));
        disk.kill();
    }
    disk.cut(STATE, 4096);
    let refused = start(&home, disk.clone()).err().expect("it refuses");
    assert!(refused.contains("move damaged away"), "{refused}");
    for path in disk.paths().into_iter().filter(|path| path.starts_with("damaged/")) {
        disk.lose(&path);
    }
    disk.kill();
    start(&home, disk).expect("and goes on when somebody looked");
}

/// A log whose beginning was pruned, and a state that is lost: it is made again from an own snapshot and the blocks after it, and
/// is what it was.
#[test]
fn a_lost_state_over_a_pruned_log_comes_back_from_an_own_snapshot() {
    let mut plan = Plan::sweep();
    plan.rots = true;
    plan.tx_interval = 20 * crate::plan::MS;
    // Blocks of two heights more stay below a snapshot: their names are part of what comes back.
    const NAMES: u64 = 2;
    plan.members = Some(Windows { live: NAMES, power: 100, absence: 0, checkpoint: 4 });
    plan.segment_bytes = 4 << 10;
    let (genesis, machine) = World::new(7, plan, Planted::default(), None).home_of(0);
    let start = |disk: &SimDisk| machine.with_disk(disk.clone()).start(Host::new(Arc::new(Kv)), &genesis, 3, Planted::default());
    let started = start(&machine.disk).expect("nothing is damaged");
    let (tip, root) = (started.height, started.running.executor.state().root());
    let running = started.running;
    let snapshots = running.snapshots.as_ref().expect("checkpoints are made").heights();
    // The header that proves it carries its commit in the block after that.
    let proven = snapshots.iter().rev().find(|height| *height + 2 <= tip.get());
    let newest = *proven.unwrap_or_else(|| panic!("snapshots of {snapshots:?}, the tip is {tip}"));
    let pruner = running.log.pruner();
    while let Some(oldest) = pruner.oldest().filter(|oldest| oldest.height_max + NAMES < newest) {
        assert!(pruner.remove(oldest).expect("removed"));
    }
    assert!(running.reader.base() > Some(1), "something was pruned");
    drop(running);
    machine.disk.crash(Survival::All, 0);
    let first = machine.disk.paths().into_iter().find(|path| path.ends_with(".seg")).expect("a log");
    for path in [STATE, "snapshots/none"] {
        // With the state, and without it; over a sound log, and over one that is rotten from its first record on.
        for rot in [None, Some(90), Some(500)] {
            let what = format!("without {path}, rot at {rot:?}");
            let disk = machine.disk.fork();
            disk.lose(path);
            rot.into_iter().for_each(|offset| disk.rot(&first, offset, 1));
            // Nor does it need the note that says what was pruned.
            if rot.is_none() {
                disk.lose("log/pruned");
            }
            let again = start(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((again.height, again.running.executor.state().root()), (tip, root), "{what}");
            assert!(again.running.reader.base() > Some(1), "{what}: the log begins late, as before");
            assert_eq!(again.running.replica.chain().standing, again.running.executor.state().standing().clone(), "{what}");
        }
    }
    // A rollback lets the results go that have the sets of the header above the snapshot. What proves it is that header, and it is here.
    let disk = machine.disk.fork();
    let archive = Archive::open(disk.disk(), LOG, &genesis, Host::new(Arc::new(Kv))).expect("the disk is sound").expect("it has blocks");
    let wanted = Rollback { state: STATE, to: Height::new(newest).expect("small"), is_hard: false };
    roll_back(&archive, &wanted, &mut Quarantine::new(disk.disk(), "rolled-back"), |_| {}).expect("it goes back");
    let begun = archive.start(Begin::At(tip)).expect("the disk is sound").expect("there is a state to begin with");
    assert_eq!(begun.height.get(), newest);
    drop(archive);
    disk.lose(STATE);
    let again = start(&disk).expect("it begins with the snapshot");
    assert_eq!((again.height, again.running.executor.state().root()), (tip, root), "after a rollback");
    assert!(again.running.reader.base() > Some(1), "the log is of use");
    // Without a sound snapshot there is nothing to begin with, and the log is set aside: peers have the blocks.
    let disk = machine.disk.fork();
    disk.lose(STATE);
    for path in disk.paths().into_iter().filter(|path| path.ends_with(".chunk")) {
        disk.rot(&path, 60, 1);
    }
    assert_eq!(start(&disk).expect("it begins anew").height, Height::ZERO);
    // It remembers what it had certified: snapshots can be trusted by that.
    let roots = LightStore::open(disk.disk()).and_then(|light| light.roots()).expect("a read");
    assert_eq!(roots.first().map(|root| root.height), Some(tip));
    let base = roots.iter().map(|root| root.height).min().expect("some");
    assert!(base.get() * 2 < tip.get() + 1 && roots.len() > 2, "as far back as the log went, {roots:?}");
    // Torn or wrong at any byte they are forgotten: no other block is trusted in their place.
    let whole = disk.bytes("light/roots").expect("it is there").len() as u64;
    for at in 0..whole {
        let (torn, wrong) = (disk.fork(), disk.fork());
        torn.cut("light/roots", at);
        wrong.rot("light/roots", at, 0x10);
        for disk in [torn, wrong] {
            let roots = LightStore::open(disk.disk()).and_then(|light| light.roots()).expect("a read");
            assert_eq!(roots, [], "byte {at} of {whole}");
        }
    }
}
