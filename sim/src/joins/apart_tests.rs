//! Blocks that go before evidence about them has expired: their headers, commits, validators and polkas stay, wherever that is stopped, and
//! go when nobody can need them.

use std::sync::Arc;
use std::time::Duration;

use lockstep_app::Host;
use lockstep_app::snapshot::Manifest;
use lockstep_replica::light_store::LIGHT_PATH;
use lockstep_replica::planted::Planted;
use lockstep_replica::retention::{Needs, Pruning, Retention};
use lockstep_replica::seam::{ReadAnswer, ReadQuestion};
use lockstep_replica::wire::WIRE_VERSION;
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record};
use lockstep_storage::snapshots::SnapshotError;
use lockstep_types::commit::PolkaSig;
use lockstep_types::light::LightBlock;
use lockstep_types::params::EvidenceParams;
use lockstep_types::{Hash, Height, Polka, Round, Time, codec};

use super::chain::{Chain, TIP, Turnover, h};
use crate::crypto::Crypto;
use crate::disk::{Fault, Survival, When};
use crate::node::{LOG, Machine, Started};

/// Blocks that the operator keeps.
const KEEP: u64 = 2;
/// The height of the last checkpoint.
const SNAPSHOT: u64 = 40;
/// Blocks below a snapshot whose names are needed.
const NAMES: u64 = 5;
/// Two blocks and a half.
const SEGMENT_BYTES: u64 = 150 << 10;

/// What a validator with a lock keeps to account for its precommit.
fn polka(chain: &Chain, height: u64) -> Polka {
    let commit = &chain.blocks[usize::try_from(height - 1).expect("small")].1;
    let signatures =
        commit.votes().map(|vote| PolkaSig { validator: vote.validator, timestamp: vote.timestamp, signature: vote.signature });
    Polka { height: h(height), round: Round::ZERO, block_id: commit.block_id, valid_round: None, signatures: signatures.collect() }
}

/// A node with the whole chain in its log, and a polka for every height but each third.
fn machine(chain: &Chain) -> Machine {
    let mut machine = Machine::new(None, 0, chain.genesis.hash(), true);
    machine.segment_bytes = SEGMENT_BYTES;
    let options = LogOptions { salt: chain.genesis.hash().0, segment_bytes: SEGMENT_BYTES };
    let (mut log, _) = BlockLog::open(machine.disk.disk(), LOG, options).expect("a new disk");
    for (height, (body, commit)) in (1..).zip(&chain.blocks) {
        let mut append = |kind, payload: &[u8]| {
            log.append(Record { kind, height, round: 0, block_hash: commit.block_id.hash.0, payload }).expect("there is room");
        };
        append(Kind::Body, body);
        if height % 3 != 0 {
            append(Kind::Polka, &codec::encode(WIRE_VERSION, &polka(chain, height)));
        }
        append(Kind::Decision, &codec::encode(WIRE_VERSION, commit));
    }
    log.sync().expect("the disk is sound");
    drop(log);
    let mut started = start(chain, &machine);
    started.running.flush(h(TIP), &chain.after(h(TIP)).encode()).expect("the disk is sound");
    drop(started);
    machine
}

fn start(chain: &Chain, machine: &Machine) -> Started {
    let started = machine.start(Host::new(Arc::new(Turnover)), &chain.genesis, 4, Planted::default()).expect("nothing stops it");
    assert!(started.healed.is_empty(), "nothing is damaged, and it heals {}", started.healed[0]);
    assert_eq!(started.height, h(TIP));
    started
}

/// The snapshot of the last checkpoint; whether there was room for it.
fn keep_snapshot(chain: &Chain, started: &Started) -> Result<(), SnapshotError> {
    let store = started.running.snapshots.as_ref().expect("of a chain with checkpoints");
    let kept = &chain.snapshots[&h(SNAPSHOT)];
    let manifest = Manifest::from_bytes(&kept.manifest).expect("the chain's");
    let roots: Vec<Hash> = manifest.chunks().iter().filter(|info| info.entries > 0).map(|info| info.root).collect();
    store.begin(SNAPSHOT, &roots.iter().map(|root| root.0).collect::<Vec<_>>(), &kept.manifest)?;
    for root in &roots {
        store.put(&root.0, &kept.chunk(root).expect("the chain's maker has it"))?;
    }
    store.finish(SNAPSHOT)
}

/// A snapshot, and blocks below it go. An error is one of the disk.
fn prune(chain: &Chain, started: &mut Started) -> Result<u64, String> {
    keep_snapshot(chain, started).map_err(|error| error.to_string())?;
    started.running.prune(KEEP, started.flushed)?;
    Ok(started.running.reader.base().expect("blocks are left"))
}

/// Every header is answered for as the chain's maker has it, and every polka that was kept is there, up to and with this height.
fn all_is_here(chain: &Chain, machine: &Machine, started: &Started, what: &str) {
    let mut maker = chain.source(&[]);
    let mut from = h(TIP - 1);
    while from > Height::ZERO {
        let question = ReadQuestion::Light { from, count: 64, bytes_max: 4 << 20, tip: Height::ZERO };
        let (ours, theirs) = (started.running.read(&machine.disk, 0, question.clone()), maker.read(&question).expect("sound"));
        let (ReadAnswer::Light(ours), ReadAnswer::Light(theirs)) = (ours, theirs) else { panic!("{what}: nothing of {from}") };
        let differs = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs).map(|(ours, _)| ours.header.height);
        assert_eq!(differs, None, "{what}");
        from = ours.last().expect("one at least").header.height.previous();
    }
    for height in 1..TIP {
        let expected: Vec<Polka> = (height % 3 != 0).then(|| polka(chain, height)).into_iter().collect();
        assert_eq!(started.running.polkas(h(height)), Some(expected), "{what}: height {height}");
    }
}

#[test]
fn headers_and_polkas_outlive_bodies_wherever_that_is_stopped() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = machine(&chain);
    let sound = machine.with_disk(machine.disk.fork());
    let mut started = start(&chain, &sound);
    let first = sound.disk.operations();
    let base = prune(&chain, &mut started).expect("nothing stops it");
    let last = sound.disk.operations();
    assert!(base > TIP / 2, "blocks of the last hour go, though evidence is good for a day: {base}");
    all_is_here(&chain, &sound, &started, "undisturbed");
    drop(started);
    all_is_here(&chain, &sound, &start(&chain, &sound), "undisturbed, started again");
    for operation in first..last {
        let turn = usize::try_from(operation).expect("small");
        let (when, survival) = (When::EACH[turn % 3], Survival::EACH[turn % 8]);
        let what = format!("stopped {when:?} operation {operation} of {first}..{last}, {survival:?}");
        let stopped = machine.with_disk(machine.disk.fork());
        let mut started = start(&chain, &stopped);
        stopped.disk.fault_at(operation, Fault::Stop(when), operation);
        drop(prune(&chain, &mut started));
        drop(started);
        if turn % 2 == 0 {
            stopped.disk.crash(survival, operation);
        } else {
            stopped.disk.kill();
        }
        let mut started = start(&chain, &stopped);
        all_is_here(&chain, &stopped, &started, &what);
        assert_eq!(prune(&chain, &mut started).as_ref(), Ok(&base), "{what}");
        all_is_here(&chain, &stopped, &started, &what);
        drop(started);
    }
}

/// A disk without room takes no headers, and gives no blocks away for them.
#[test]
fn without_room_for_headers_blocks_stay() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = machine(&chain);
    let mut started = start(&chain, &machine);
    keep_snapshot(&chain, &started).expect("there is room");
    machine.disk.set_full(true);
    assert_eq!(started.running.prune(KEEP, started.flushed), Ok(()), "it is no failure of the disk");
    assert_eq!(started.running.reader.base(), Some(1));
    all_is_here(&chain, &machine, &started, "without room");
    machine.disk.set_full(false);
    started.running.prune(KEEP, started.flushed).expect("there is room");
    assert!(started.running.reader.base() > Some(TIP / 2));
    all_is_here(&chain, &machine, &started, "with room again");
}

/// Where a header cannot be put aside, because what executing its block gave is lost, the block stays until evidence about it has expired.
#[test]
fn what_cannot_be_put_aside_stays_for_as_long_as_it_may_be_needed() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = machine(&chain);
    let started = start(&chain, &machine);
    let running = &started.running;
    let needs = |window_s: u64| needs(&chain, window_s, TIP - 1);
    let mut pruning = Pruning::new(running.log.pruner(), running.reader.clone(), None, running.light.clone());
    let retention = Retention { keep_blocks: KEEP };
    assert_eq!(retention.prune_one(&mut pruning, &needs(100_000)).expect("sound"), None);
    assert!(machine.disk.paths().iter().all(|path| !path.starts_with(LIGHT_PATH)));
    assert!(retention.prune_one(&mut pruning, &needs(60)).expect("sound").is_some(), "it has expired");
    assert!(machine.disk.paths().iter().all(|path| !path.starts_with(LIGHT_PATH)), "and nobody needs the header");
}

fn needs(chain: &Chain, window_s: u64, oldest_snapshot: u64) -> Needs {
    Needs {
        tip: h(TIP),
        tip_time: chain.after(h(TIP)).last_time,
        flushed: h(TIP),
        oldest_snapshot: Some(h(oldest_snapshot)),
        names: NAMES,
        evidence: EvidenceParams { max_age_num_blocks: 1, max_age_duration_ns: window_s * 1_000_000_000, max_bytes: 0 },
    }
}

#[test]
fn what_was_put_aside_goes_when_evidence_about_it_has_expired() {
    let chain = Chain::make(&mut Crypto::new(false));
    let machine = machine(&chain);
    let mut started = start(&chain, &machine);
    let base = prune(&chain, &mut started).expect("nothing stops it");
    let running = &started.running;
    let pruning = Pruning::new(
        running.log.pruner(),
        running.reader.clone(),
        running.results.as_ref().map(lockstep_storage::results::Results::reader),
        running.light.clone(),
    );
    let retention = Retention { keep_blocks: KEEP };
    let all = |needs: &Needs| {
        let mut gone = Vec::new();
        while let Some(run) = retention.expire_one(&pruning, needs).expect("the disk is sound") {
            gone.push(run.to.get());
        }
        gone
    };
    assert_eq!(all(&needs(&chain, 100_000, TIP)), [0; 0], "a day");
    // A block a minute: half an hour of them stays.
    let (window, tip_time) = (30 * 60, chain.after(h(TIP)).last_time);
    let age = |height: u64| {
        let time: Time = chain.after(h(height)).last_time;
        Duration::from_nanos(u64::try_from(tip_time.unix_nanos() - time.unix_nanos()).expect("it is before"))
    };
    let gone = all(&needs(&chain, window, TIP));
    assert!(!gone.is_empty() && gone.iter().all(|to| age(*to) > Duration::from_secs(window)), "{gone:?}");
    let lowest = gone.last().expect("some") + 1;
    assert_eq!(running.light.base_below(h(base)), h(lowest), "the rest is there without a hole");
    let find = |height: u64| running.light.find(h(height)).expect("the disk is sound").map(|light: LightBlock| light.header.height);
    assert_eq!((find(lowest - 1), find(lowest)), (None, Some(h(lowest))));
    assert_eq!(running.polkas(h(1)), Some(Vec::new()), "polkas go along");
    // Where all has expired, what a snapshot that is kept rests on stays, and so does what names the validators of the first block.
    let gone = all(&needs(&chain, 1, base));
    assert!(gone.iter().all(|to| to + NAMES < base), "{gone:?}, and the snapshot is of {base}");
    all(&needs(&chain, 1, TIP));
    assert_eq!(find(base - 1), Some(h(base - 1)));
    let left = machine.disk.paths().into_iter().filter(|path| path.starts_with(LIGHT_PATH) && !path.contains("polkas-")).count();
    assert_eq!(left, 1, "and nothing else is left in the end");
}
