//! The chain that nodes join: made once by the program's own parts, with validators that come and go, and kept as files.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::record::RECORD_KEY;
use lockstep_app::snapshot::{Manifest, pack, plan};
use lockstep_app::{
    Application, BlockInput, Changes, CheckKind, Draft, Executed, GenesisInput, GenesisRefused, Host, Info, Initialized, Query,
    QueryAnswer, ReplicaRecord, Tree, Verdict, View,
};
use lockstep_genesis::{Genesis, GenesisDraft, GenesisValidator};
use lockstep_replica::ChainState;
use lockstep_replica::check::BuildJob;
use lockstep_replica::execution::{ExecuteJob, Executor};
use lockstep_replica::light_store::LightStore;
use lockstep_replica::recovery::genesis_state;
use lockstep_replica::results::keep;
use lockstep_replica::source::{BlockSource, Snapshots};
use lockstep_storage::DiskError;
use lockstep_storage::log::{BlockLog, Kind, LogOptions, LogReader, Record};
use lockstep_storage::results::{Results, ResultsReader};
use lockstep_types::light::LightBlock;
use lockstep_types::{
    Address, AppHash, ChainId, Commit, ConsensusParams, Hash, Height, Power, PrivateKey, Round, Signature, Time, TxResult, ValidatorSet,
    ValidatorUpdate, Vote, VoteType, codec,
};

use crate::crypto::Crypto;
use crate::disk::SimDisk;

/// Blocks of the chain.
pub(super) const TIP: u64 = 46;
/// So many heights lie between two checkpoints.
const CHECKPOINT_INTERVAL: u64 = 8;
/// Validators at the beginning.
const VALIDATORS: u8 = 4;
/// A value that a block writes: several blocks make a state of several chunks.
const VALUE_BYTES: usize = 56 << 10;
/// Keys that are written.
const KEYS: u64 = 44;
/// Between two blocks, in seconds.
const INTERVAL_S: i64 = 60;

/// Writes what it is told; every few heights a validator comes, and the oldest goes.
pub(super) struct Turnover;

impl Application for Turnover {
    fn info(&self, _view: &View) -> Info {
        Info { data: String::new(), version: "1".into(), app_version: 1 }
    }

    fn init_chain(&self, _genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        Ok(Initialized::default())
    }

    fn check_tx(&self, _view: &View, _tx: &[u8], _kind: CheckKind) -> Verdict {
        Verdict::default()
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        let mut draft = Draft::new(view);
        for tx in block.txs {
            if let Some((key, value)) = tx.0.split_first_chunk::<8>() {
                draft.set(*key, value);
            }
        }
        let number = |n: u64| u8::try_from(n).expect("a short chain");
        let update = |n, power| ValidatorUpdate { public_key: key(n).public_key(), power: Power::new(power).expect("small") };
        let height = block.height.get();
        let validator_updates = match height % 4 {
            0 => vec![update(number(height / 4) + VALIDATORS, 10)],
            2 if height > 4 => vec![update(number(height / 4), 0)],
            _ => Vec::new(),
        };
        let tx_results = vec![TxResult::default(); block.txs.len()];
        Executed { changes: draft.into_changes(), tx_results, validator_updates, ..Executed::default() }
    }

    fn query(&self, _view: &View, _query: &Query<'_>) -> QueryAnswer {
        QueryAnswer::default()
    }
}

/// Key number `n`.
pub(super) fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed(&[n; 32])
}

pub(super) fn h(height: u64) -> Height {
    Height::new(height).expect("a height")
}

/// A snapshot, as a node keeps it.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) manifest: Vec<u8>,
    chunks: BTreeMap<Hash, Vec<u8>>,
}

impl Kept {
    pub(super) fn chunk(&self, root: &Hash) -> Option<Vec<u8>> {
        self.chunks.get(root).cloned()
    }
}

/// Snapshots in memory.
#[derive(Clone)]
pub(super) struct KeptSnapshots(pub(super) Arc<BTreeMap<Height, Kept>>);

impl Snapshots for KeptSnapshots {
    fn heights(&self) -> Result<Vec<Height>, DiskError> {
        Ok(self.0.keys().copied().collect())
    }

    fn manifest(&self, height: Height) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.0.get(&height).map(|kept| kept.manifest.clone()))
    }

    fn chunk(&self, height: Height, root: &Hash) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(self.0.get(&height).and_then(|kept| kept.chunks.get(root)).cloned())
    }
}

/// The chain.
pub(super) struct Chain {
    pub(super) genesis: Genesis,
    /// After each height, from that before the first.
    pub(super) states: Vec<Arc<ChainState>>,
    /// Every snapshot that was made.
    pub(super) snapshots: Arc<BTreeMap<Height, Kept>>,
    /// The same, each sound in itself, of a state in which one thing is another: [`forged_record`].
    pub(super) forged: Arc<BTreeMap<Height, Kept>>,
    log: LogReader,
    results: ResultsReader,
    disk: SimDisk,
    /// For blocks, to be written into the log of a node that was there before.
    pub(super) blocks: Vec<(Bytes, Commit)>,
}

impl Chain {
    /// The chain after a height.
    pub(super) fn after(&self, height: Height) -> &Arc<ChainState> {
        &self.states[usize::try_from(height.get()).expect("a short chain")]
    }

    /// Of a header, as somebody may have told an operator.
    pub(super) fn hash_of(&self, height: Height) -> Hash {
        self.after(height).last_block_id.expect("a block").hash
    }

    /// What an honest node answers from.
    pub(super) fn source(&self, snapshots: &[Height]) -> BlockSource {
        let kept = self.snapshots.iter().filter(|(height, _)| snapshots.contains(height)).map(|(height, kept)| (*height, kept.clone()));
        let light = LightStore::open(self.disk.disk()).expect("it was never written");
        BlockSource::new(self.log.clone())
            .with_light(Some(self.results.clone()), light)
            .with_snapshots(Box::new(KeptSnapshots(Arc::new(kept.collect()))))
    }

    /// Makes it.
    pub(super) fn make(crypto: &mut Crypto) -> Self {
        let genesis = genesis();
        let host = Host::new(Arc::new(Turnover));
        let (mut chain, state, changes) = genesis_state(&host, &genesis).expect("a genesis of ours");
        let mut executor = Executor::at_genesis(host, state, changes);
        let disk = SimDisk::new();
        let (mut log, _) =
            BlockLog::open(disk.disk(), "log", LogOptions { salt: [7; 32], segment_bytes: 1 << 20 }).expect("a new disk takes a log");
        let reader = log.reader();
        let mut results = Results::open(disk.disk(), "log", &[], None).expect("a new disk takes results");
        let (mut states, mut blocks) = (vec![Arc::new(chain.clone())], Vec::new());
        let (mut snapshots, mut forged) = (BTreeMap::new(), BTreeMap::new());
        let mut last_commit = None;
        for height in 1..=TIP {
            let time = chain.last_time.saturating_add(std::time::Duration::from_secs(INTERVAL_S.unsigned_abs()));
            let place = chain.validators.proposer(Round::ZERO);
            let proposer = chain.validators.get(place).expect("it proposes").address;
            let job = BuildJob {
                chain: Arc::new(chain.clone()),
                time,
                proposer,
                txs: vec![transaction(height).into()],
                evidence: Vec::new(),
                last_commit: last_commit.take(),
            };
            let built = executor.build(&job, &mut |checks| crypto.verify(checks));
            let commit = certify(crypto, &chain.validators, &genesis.chain_id, h(height), built.block_id, time);
            let execute = ExecuteJob { block: built.block.clone(), block_id: built.block_id, chain: job.chain };
            let outcome = executor.execute(&execute).expect("an application of ours");
            chain = chain.advance(built.block_id, &built.block.header, built.block.txs.len(), &outcome);
            let block_hash = built.block_id.hash.0;
            log.append(Record { kind: Kind::Body, height, round: 0, block_hash, payload: &built.body }).expect("there is room");
            let decision = codec::encode(lockstep_replica::wire::WIRE_VERSION, &commit);
            log.append(Record { kind: Kind::Decision, height, round: 0, block_hash, payload: &decision }).expect("there is room");
            log.sync().expect("the disk is sound");
            let segment = reader.segment_of(height).expect("just written");
            results.append(segment, &keep(&built.block, &outcome, &chain)).expect("there is room");
            let tree = executor.state().tree();
            let record = tree.get(RECORD_KEY).and_then(|bytes| ReplicaRecord::from_bytes(bytes).ok());
            if let Some(record) = record.filter(|record| record.height == h(height)) {
                snapshots.insert(h(height), kept(&genesis, h(height), tree));
                let mut change = Changes::new();
                change.set(RECORD_KEY, forged_record(record, forged.len()).to_bytes());
                forged.insert(h(height), kept(&genesis, h(height), &tree.apply(&change)));
            }
            states.push(Arc::new(chain.clone()));
            blocks.push((built.body.clone(), commit.clone()));
            last_commit = Some(commit);
        }
        Self {
            genesis,
            states,
            snapshots: Arc::new(snapshots),
            forged: Arc::new(forged),
            log: reader,
            results: results.reader(),
            disk,
            blocks,
        }
    }

    /// A light block that other keys than the chain's signed, over another root.
    pub(super) fn forged(&self, honest: &LightBlock, crypto: &mut Crypto) -> LightBlock {
        let members: Vec<ValidatorUpdate> =
            (200..203).map(|n| ValidatorUpdate { public_key: key(n).public_key(), power: Power::new(10).expect("small") }).collect();
        let validators = ValidatorSet::new(&members).expect("three validators");
        let mut header = honest.header.clone();
        header.app_hash = AppHash::from(Hash::of(b"another state"));
        header.validators_hash = validators.hash();
        header.next_validators_hash = validators.hash();
        let parts = honest.commit.block_id.parts;
        let block_id = lockstep_types::BlockId { hash: header.hash(), parts };
        let commit = certify(crypto, &validators, &self.genesis.chain_id, header.height, block_id, header.time);
        LightBlock { header, commit, validators: validators.clone(), next_validators: validators }
    }
}

/// A snapshot of a state.
fn kept(genesis: &Genesis, height: Height, tree: &Tree) -> Kept {
    let (infos, chunks): (Vec<_>, Vec<_>) = plan(tree).map(|(info, part)| (info, (info.root, pack(&part)))).unzip();
    let manifest = Manifest::new(genesis.hash(), height, infos).expect("a state of ours").to_bytes();
    Kept { manifest, chunks: chunks.into_iter().collect() }
}

/// What no header says by itself, and a node that restores it believes all the same: who proposes next, and the rules.
fn forged_record(mut record: ReplicaRecord, place: usize) -> ReplicaRecord {
    match place % 3 {
        0 => record.validators.increment(1),
        1 => record.next_validators.increment(1),
        _ => record.parameters.block.max_bytes -= 1,
    }
    record
}

fn genesis() -> Genesis {
    let app_state = format!(
        r#"{{"membership":{{"admission":"open","live_window":10,"power_window":1,"absence_window":0,"checkpoint_interval":{CHECKPOINT_INTERVAL},"checkpoint_spacing":1}}}}"#
    );
    GenesisDraft {
        genesis_time: Time::new(1_767_312_000, 0).expect("a time"),
        chain_id: ChainId::new("joined").expect("a name"),
        consensus_params: ConsensusParams::default(),
        validators: (1..=VALIDATORS)
            .map(|n| GenesisValidator { public_key: key(n).public_key(), power: Power::new(10).expect("small"), name: String::new() })
            .collect(),
        app_hash: AppHash::default(),
        app_state,
    }
    .check()
    .expect("it follows the rules")
}

/// What the block of a height writes: the first bytes of the value differ, the rest compresses.
fn transaction(height: u64) -> Vec<u8> {
    let key = ((height % KEYS) << 8 | u64::from(b'k')).to_le_bytes();
    let value = vec![u8::try_from(height % 251).expect("small"); VALUE_BYTES];
    [&key[..], &Hash::of(height.to_le_bytes()).0[..], &value[..]].concat()
}

/// The certificate of all validators.
fn certify(
    crypto: &mut Crypto,
    set: &ValidatorSet,
    chain_id: &ChainId,
    height: Height,
    block_id: lockstep_types::BlockId,
    time: Time,
) -> Commit {
    let keys: BTreeMap<Address, PrivateKey> = (1..=u8::MAX).map(key).map(|key| (key.public_key().address(), key)).collect();
    let votes: Vec<Vote> = set
        .iter()
        .map(|validator| {
            let place = set.index_of(&validator.address).expect("it is in the set");
            let mut vote = Vote {
                kind: VoteType::Precommit,
                height,
                round: Round::ZERO,
                block_id: Some(block_id),
                valid_round: None,
                timestamp: time,
                validator: place,
                signature: Signature([0; 64]),
            };
            vote.signature = crypto.sign(&keys[&validator.address], &vote.sign_bytes(chain_id));
            vote
        })
        .collect();
    Commit::from_precommits(height, Round::ZERO, block_id, set, &votes)
}
