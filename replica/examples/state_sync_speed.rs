//! Measures what a node does with a snapshot, network left out: judging and writing its chunks, installing it, opening the home;
//! then how much of it comes when one entry in a hundred has changed since the state that the node has.
//!
//! `cargo run --release -p lockstep-replica --example state_sync_speed [keys]`

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement reads the clock and says what it found"
)]

use std::sync::Arc;
use std::time::Instant;

use lockstep_app::record::RECORD_KEY;
use lockstep_app::snapshot::{Difference, Manifest, Outline, open as open_chunk, pack, plan};
use lockstep_app::{Host, Kv, ReplicaRecord, Tree};
use lockstep_genesis::{Genesis, GenesisDraft, GenesisValidator};
use lockstep_replica::ChainState;
use lockstep_replica::check::{BuildJob, build};
use lockstep_replica::execution::{ExecuteJob, Executor};
use lockstep_replica::recovery::{self, Home, genesis_state};
use lockstep_replica::state_sync::{Found, Installed, Staging, Task};
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::log::LogOptions;
use lockstep_storage::spread::InTurn;
use lockstep_sync::state::{Check, Checked};
use lockstep_types::light::LightBlock;
use lockstep_types::{AppHash, ChainId, Commit, ConsensusParams, Hash, Height, Power, PrivateKey, Round, Time};

/// As the program has it: judging a chunk makes many small things and drops them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Blocks that write the keys; the last of them is a checkpoint.
const BLOCKS: u64 = 50;
/// Bytes of a value: with its key and lengths an entry is about as large as in the figures this is compared with.
const VALUE_BYTES: usize = 100;

fn genesis() -> Genesis {
    let mut params = ConsensusParams::default();
    params.block.max_bytes = 100 << 20;
    let key = PrivateKey::from_seed(&[1; 32]).public_key();
    let app_state = format!(r#"{{"membership":{{"admission":"open","checkpoint_interval":{BLOCKS},"checkpoint_spacing":1}}}}"#);
    GenesisDraft {
        genesis_time: Time::new(1_767_312_000, 0).expect("a time"),
        chain_id: ChainId::new("measured").expect("a name"),
        consensus_params: params,
        validators: vec![GenesisValidator { public_key: key, power: Power::new(10).expect("small"), name: String::new() }],
        app_hash: AppHash::default(),
        app_state,
    }
    .check()
    .expect("it follows the rules")
}

/// The state after a checkpoint, with the proof of it.
struct Source {
    genesis: Genesis,
    tree: Tree,
    body: Vec<u8>,
    above: LightBlock,
    at: LightBlock,
    /// The headers below it, downwards: those whose names the rules of membership look back to.
    below: Vec<LightBlock>,
}

/// The chain after one more block of these transactions.
fn next(chain: &ChainState, executor: &mut Executor, txs: Vec<Arc<[u8]>>) -> (ChainState, LightBlock, Vec<u8>) {
    let proposer = chain.validators.iter().next().expect("one").address;
    let time = chain.last_time.saturating_add(std::time::Duration::from_secs(1));
    let last_commit = chain.last_block_id.map(|block_id| commit(chain.height, block_id));
    let job = BuildJob { chain: Arc::new(chain.clone()), time, proposer, txs, evidence: Vec::new(), last_commit };
    let built = build(executor.host(), executor.state(), &job);
    let execute = ExecuteJob { block: built.block.clone(), block_id: built.block_id, chain: job.chain };
    let outcome = executor.execute(&execute).expect("the bundled application");
    let after = chain.advance(built.block_id, &built.block.header, built.block.txs.len(), &outcome);
    let light = LightBlock {
        header: built.block.header.clone(),
        commit: commit(built.block.header.height, built.block_id),
        validators: (*chain.validators).clone(),
        next_validators: (*chain.next_validators).clone(),
    };
    (after, light, built.body.to_vec())
}

/// Nobody signs: whoever judges a snapshot has verified its headers before.
fn commit(height: Height, block_id: lockstep_types::BlockId) -> Commit {
    Commit { height, round: Round::ZERO, block_id, signatures: vec![lockstep_types::CommitSig::Absent] }
}

fn source(keys: u64) -> Source {
    let genesis = genesis();
    let host = Host::new(Arc::new(Kv));
    let (mut chain, state, changes) = genesis_state(&host, &genesis).expect("a genesis of ours");
    let mut executor = Executor::at_genesis(host, state, changes);
    let per_block = keys.div_ceil(BLOCKS);
    let value = "v".repeat(VALUE_BYTES - 16);
    let (mut at, mut body, mut tree, mut below) = (None, Vec::new(), Tree::new(), Vec::new());
    for block in 0..=BLOCKS {
        let written = if block < BLOCKS { per_block } else { 0 };
        let tx = |n: u64| {
            let hash = Hash::of(n.to_le_bytes()).to_string();
            Arc::from(format!("key{n:021}={}{value}", &hash[..16]).into_bytes())
        };
        let (after, light, bytes) = next(&chain, &mut executor, (block * per_block..block * per_block + written).map(tx).collect());
        if block < BLOCKS {
            tree = executor.state().tree().clone();
            below.extend(at.replace(light));
            body = bytes;
        } else {
            let record = tree.get(RECORD_KEY).and_then(|bytes| ReplicaRecord::from_bytes(bytes).ok()).expect("a checkpoint");
            assert_eq!(record.height.get(), BLOCKS);
            below.reverse();
            return Source { genesis, tree, body, above: light, at: at.expect("a block before"), below };
        }
        chain = after;
    }
    unreachable!("the last block returns")
}

fn main() {
    let keys: u64 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number of keys"));
    let Source { genesis, tree, body, above, at, below } = source(keys);
    let began = Instant::now();
    let (infos, chunks): (Vec<_>, Vec<_>) = plan(&tree).map(|(info, part)| (info, pack(&part))).unzip();
    let manifest = Manifest::new(genesis.hash(), at.header.height, infos).expect("a state of ours");
    let (raw, packed) = (manifest.bytes(), chunks.iter().map(Vec::len).sum::<usize>());
    let rate = |seconds: f64| raw as f64 / 1e6 / seconds;
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} entries, {:.0} MB raw, {:.0} MB packed, {} chunks",
        manifest.entries(),
        raw as f64 / 1e6,
        packed as f64 / 1e6,
        chunks.len()
    );
    println!("{:<46}{took:7.2} s {:7.0} MB/s", "made and packed, one core", rate(took));

    let folder = tempfile::tempdir_in(".").expect("a folder on the disk");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.path()).expect("a disk"));
    let mut staging = Staging::open(disk.clone(), genesis.hash()).expect("a folder");
    let whole = Instant::now();
    let check = Check::Manifest { bytes: manifest.to_bytes().into(), above: Box::new(above), at: Box::new(at) };
    let Found::Checked(Checked::Manifest(wanted)) = staging.perform(Task::Check(check), &Tree::new()).expect("the disk") else {
        panic!("the manifest is refused")
    };
    for (index, (wanted, packed)) in (0..).zip(wanted.iter().zip(&chunks)).filter(|(_, (wanted, _))| !wanted.have) {
        assert!(!wanted.have);
        let check = Check::Chunk { index, bytes: packed.as_slice().into(), is_whole: true };
        assert_eq!(staging.perform(Task::Check(check), &Tree::new()).expect("the disk"), Found::Checked(Checked::Good));
    }
    let judged = whole.elapsed().as_secs_f64();
    println!("{:<46}{judged:7.2} s {:7.0} MB/s", "chunks judged and written, one core", rate(judged));
    let part = Instant::now();
    for check in [Check::Body(body.into()), Check::Headers(below), Check::Complete] {
        assert_eq!(staging.perform(Task::Check(check), &Tree::new()).expect("the disk"), Found::Checked(Checked::Good));
    }
    staging.mark().expect("the disk");
    println!("{:<46}{:7.2} s", "made durable", part.elapsed().as_secs_f64());
    let home = Home {
        disk,
        log: "log",
        state: "state.redb",
        damaged: "damaged",
        log_options: LogOptions { salt: [1; 32], segment_bytes: 64 << 20 },
        keep_results: true,
        keeps_all_blocks: false,
        flush_keys: 100_000,
        genesis: &genesis,
        host: Host::new(Arc::new(Kv)),
        spread: &InTurn,
    };
    let part = Instant::now();
    let opened = recovery::open(&home, None, |_| {}).expect("it opens");
    assert!(matches!(opened.installed, Some(Installed::Restored(_))), "{:?}", opened.installed);
    assert_eq!(opened.recovered.executor.state().root(), tree.root());
    println!("{:<46}{:7.2} s", "installed, and the home opened", part.elapsed().as_secs_f64());
    let all = whole.elapsed().as_secs_f64();
    println!("{:<46}{all:7.2} s {:7.0} MB/s", "in all", rate(all));
    drop(opened);
    let part = Instant::now();
    let opened = recovery::open(&home, None, |_| {}).expect("it opens");
    println!("{:<46}{:7.2} s", "opened again, as at each later start", part.elapsed().as_secs_f64());
    drop(opened);

    // One entry in a hundred is another one.
    let changes: lockstep_app::Changes = tree
        .iter()
        .enumerate()
        .filter(|(number, (key, _))| number % 100 == 0 && key[0] != 0)
        .map(|(_, (key, value))| (key.clone(), Some(value.iter().rev().copied().collect::<Arc<[u8]>>())))
        .collect();
    let changed = tree.apply(&changes);
    let (mut asked, mut answered, mut same) = (0, 0, 0);
    for (info, part) in plan(&changed) {
        let ours = tree.part(info.prefix);
        if ours.root() == info.root {
            same += 1;
            continue;
        }
        let outline = Outline::of(&ours, &info);
        let difference = Difference::between(&part, &outline).expect("an outline of ours");
        assert_eq!(difference.apply(&ours, outline.levels(), &info).expect("it fits").root(), info.root);
        asked += borsh::to_vec(&outline).expect("in memory").len();
        answered += borsh::to_vec(&difference).expect("in memory").len();
        let whole = open_chunk(&info, &pack(&part)).expect("its own");
        assert_eq!(whole.root(), info.root);
    }
    println!(
        "1 % changed: {same} chunks the same, {:.1} MB asked, {:.1} MB answered: {:.1} % of {:.0} MB packed",
        asked as f64 / 1e6,
        answered as f64 / 1e6,
        (asked + answered) as f64 * 100.0 / packed as f64,
        packed as f64 / 1e6
    );
}
