//! A chain that a test decides by itself, written into homes through the node's own stores.

use std::sync::Arc;
use std::time::Duration;

use lockstep::Home;
use lockstep_app::{Application, Host};
use lockstep_replica::ChainState;
use lockstep_replica::check::{BuildJob, BuiltBlock, build};
use lockstep_replica::evidence::kept::Kept;
use lockstep_replica::execution::{ExecuteJob, Executor};
use lockstep_replica::recovery::genesis_state;
use lockstep_replica::results::keep;
use lockstep_replica::seam::LogRecord;
use lockstep_storage::disk::Disk;
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record};
use lockstep_storage::results::{BlockResults, Results};
use lockstep_types::commit::PolkaSig;
use lockstep_types::{BlockId, ChainId, Commit, Polka, PrivateKey, Round, Signature, ValidatorIndex, Vote, VoteType, codec};

/// A chain, and the keys of its validators.
pub(crate) struct Chain {
    host: Host,
    executor: Executor,
    chain: Arc<ChainState>,
    chain_id: ChainId,
    keys: Vec<PrivateKey>,
    last_commit: Option<Commit>,
}

/// A block with what decided it.
#[derive(Clone)]
pub(crate) struct Decided {
    pub(crate) built: BuiltBlock,
    pub(crate) commit: Commit,
    results: BlockResults,
}

impl Chain {
    /// The start of the chain of a home's genesis.
    pub(crate) fn new(home: &Home, app: Arc<dyn Application>, keys: Vec<PrivateKey>) -> Self {
        let genesis = home.read_genesis().expect("valid");
        let host = Host::new(app);
        let (chain, state, changes) = genesis_state(&host, &genesis).expect("it starts");
        let executor = Executor::at_genesis(host.clone(), state, changes);
        Self { host, executor, chain: Arc::new(chain), chain_id: genesis.chain_id.clone(), keys, last_commit: None }
    }

    /// The next block with these transactions, as somebody might propose it.
    pub(crate) fn propose(&self, txs: &[&[u8]]) -> BuiltBlock {
        let job = BuildJob {
            chain: self.chain.clone(),
            time: self.chain.last_time.saturating_add(Duration::from_secs(1)),
            proposer: self.chain.validators.get(self.chain.validators.proposer(Round::ZERO)).expect("it is in the set").address,
            txs: txs.iter().map(|tx| (*tx).into()).collect(),
            evidence: Vec::new(),
            last_commit: self.last_commit.clone(),
        };
        build(&self.host, self.executor.state(), &job)
    }

    /// A vote of the validator at this place of the keys.
    pub(crate) fn vote(&self, who: usize, kind: VoteType, round: Round, block_id: BlockId, valid_round: Option<Round>) -> Vote {
        let key = &self.keys[who];
        let mut vote = Vote {
            kind,
            height: self.chain.next_height(),
            round,
            block_id: Some(block_id),
            valid_round,
            timestamp: self.chain.last_time.saturating_add(Duration::from_secs(2)),
            validator: self.place(who),
            signature: Signature([0; 64]),
        };
        vote.signature = key.sign(&vote.sign_bytes(&self.chain_id));
        vote
    }

    fn place(&self, who: usize) -> ValidatorIndex {
        self.chain.validators.index_of(&self.keys[who].public_key().address()).expect("it validates")
    }

    /// Prevotes of these for one value, by their places in the set.
    pub(crate) fn polka(&self, who: &[usize], round: Round, block_id: BlockId) -> Polka {
        let mut votes: Vec<Vote> = who.iter().map(|who| self.vote(*who, VoteType::Prevote, round, block_id, None)).collect();
        votes.sort_by_key(|vote| vote.validator);
        let signed = |vote: Vote| PolkaSig { validator: vote.validator, timestamp: vote.timestamp, signature: vote.signature };
        Polka { height: self.chain.next_height(), round, block_id, valid_round: None, signatures: votes.into_iter().map(signed).collect() }
    }

    /// Decides a block by the precommits of these, and goes on from it.
    pub(crate) fn decide(&mut self, built: BuiltBlock, round: Round, who: &[usize]) -> Decided {
        let votes: Vec<Vote> = who.iter().map(|who| self.vote(*who, VoteType::Precommit, round, built.block_id, None)).collect();
        let height = self.chain.next_height();
        let commit = Commit::from_precommits(height, round, built.block_id, &self.chain.validators, &votes);
        let job = ExecuteJob { block: built.block.clone(), block_id: built.block_id, chain: self.chain.clone() };
        let outcome = self.executor.execute(&job).expect("it runs");
        self.chain = Arc::new(self.chain.advance(built.block_id, &built.block.header, built.block.txs.len(), &outcome));
        self.last_commit = Some(commit.clone());
        let results = keep(&built.block, &outcome, &self.chain);
        Decided { built, commit, results }
    }

    /// Proposes and decides.
    pub(crate) fn grow(&mut self, txs: &[&[u8]], round: Round, who: &[usize]) -> Decided {
        let built = self.propose(txs);
        self.decide(built, round, who)
    }
}

/// The log of a home, and the results beside it.
pub(crate) struct Files {
    log: BlockLog,
    results: Results,
}

impl Files {
    pub(crate) fn open(home: &Home) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(home.data_disk().expect("a folder"));
        let (log, _) = BlockLog::open(disk.clone(), "log", LogOptions { salt: [3; 32], segment_bytes: 1 << 20 }).expect("a log");
        let results = Results::open(disk, "log", &log.reader().segments(), log.reader().tip()).expect("results");
        Self { log, results }
    }

    fn append(&mut self, kind: Kind, height: u64, round: Round, block_id: BlockId, payload: &[u8]) {
        let record = Record { kind, height, round: round.get(), block_hash: block_id.hash.0, payload };
        self.log.append(record).expect("appended");
    }

    /// A polka that justified a vote of this node's validator.
    pub(crate) fn write_polka(&mut self, polka: &Polka) {
        self.append(Kind::Polka, polka.height.get(), polka.round, polka.block_id, &codec::encode(1, polka));
    }

    /// A record of evidence, durable.
    pub(crate) fn write_kept(&mut self, kept: &Kept) {
        let LogRecord { kind, height, round, block_hash, payload } = kept.record();
        let record = Record { kind, height: height.get(), round: round.get(), block_hash: block_hash.0, payload: &payload };
        self.log.append(record).expect("appended");
        self.log.sync().expect("durable");
    }

    /// A decided block, durable.
    pub(crate) fn write(&mut self, decided: &Decided) {
        let Decided { built, commit, results } = decided;
        let height = commit.height.get();
        self.append(Kind::Body, height, Round::ZERO, built.block_id, &built.body);
        self.append(Kind::Decision, height, commit.round, built.block_id, &codec::encode(1, commit));
        self.log.sync().expect("durable");
        let segment = self.log.reader().segment_of(height).expect("it was written");
        self.results.append(segment, results).expect("appended");
        self.results.sync().expect("durable");
    }
}
