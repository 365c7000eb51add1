//! Executing decided blocks, off the replica's thread.
//!
//! The [`Executor`] owns the newest state. Blocks come to it in order, one at a time; each gives a new version of the
//! state, from which clients read while the next is made, and the changes since the last flush are kept until the database
//! has them. It never decides when to flush: order 2 and 3 of the design are the replica's.

use std::collections::VecDeque;
use std::sync::Arc;

use lockstep_app::{AppError, BlockInput, ChainFacts, Changes, ExecutedBlock, Host, Participation, ParticipationFlag, State};
use lockstep_storage::log::LogReader;
use lockstep_storage::results::ResultsReader;
use lockstep_types::planted::{self, Bug};
use lockstep_types::{Block, BlockId, CommitSig, Evidence, Height, Tx, TxResult};

use crate::audit::Trace;
use crate::chain::ChainState;
use crate::check::{BuildJob, BuiltBlock, CheckFailure, CheckJob, Verdicts, build_with, check_with};
use crate::evidence::history::BlockHistory;
use crate::evidence::rules::{self, Refused};
use crate::evidence::{misbehaviour, remembered};
use crate::light_store::LightStore;
use crate::seam::Outcome;

/// A decided block to execute.
#[derive(Debug, Clone)]
pub struct ExecuteJob {
    /// The block.
    pub block: Arc<Block>,
    /// Its name.
    pub block_id: BlockId,
    /// The chain before it.
    pub chain: Arc<ChainState>,
}

/// The block as the application sees it; `chain` is the chain before it.
pub fn block_input<'a>(block: &'a Block, chain: &'a ChainState) -> BlockInput<'a> {
    BlockInput {
        chain_id: &chain.chain_id,
        height: block.header.height,
        time: block.header.time,
        block_hash: block.header.hash(),
        proposer: block.header.proposer_address,
        txs: &block.txs,
        last_commit: participation(block.last_commit.as_ref(), chain),
        misbehaviour: misbehaviour(&block.evidence),
        parameters: &chain.params,
    }
}

/// Who signed the block before, in set order.
pub fn participation(last_commit: Option<&lockstep_types::Commit>, chain: &ChainState) -> Vec<Participation> {
    let Some(commit) = last_commit else { return Vec::new() };
    let flag = |sig: &CommitSig| match sig {
        CommitSig::Absent => ParticipationFlag::Absent,
        CommitSig::Commit(_) => ParticipationFlag::Signed,
        CommitSig::Nil(_) => ParticipationFlag::Nil,
    };
    chain
        .last_validators
        .iter()
        .zip(&commit.signatures)
        .map(|(validator, sig)| Participation { address: validator.address, power: validator.power, flag: flag(sig) })
        .collect()
}

/// Executes a block, or some of its transactions, on a state.
fn run(host: &Host, state: &State, block: &Block, txs: &[Tx], chain: &ChainState) -> Result<ExecutedBlock, AppError> {
    let input = BlockInput { txs, ..block_input(block, chain) };
    let evidence = remembered(&block.evidence);
    let facts = ChainFacts {
        last_validators: &chain.last_validators,
        validators: &chain.validators,
        next_validators: &chain.next_validators,
        evidence: &evidence,
    };
    host.execute(state.clone(), &input, facts)
}

/// Changes of one or more heights, ready for the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushBatch {
    /// The height they lead to.
    pub height: Height,
    /// Everything that changed since the batch before.
    pub changes: Changes,
}

/// Owns the newest state and runs blocks on it.
pub struct Executor {
    host: Host,
    state: State,
    history: BlockHistory,
    unflushed: VecDeque<(Height, Arc<Changes>)>,
    last: Option<Last>,
}

/// The last block and what was made of it, for audit.
struct Last {
    before: State,
    block: Arc<Block>,
    chain: Arc<ChainState>,
    results: Arc<Vec<TxResult>>,
    changes: Arc<Changes>,
}

impl Executor {
    /// An executor that goes on from this state, which the database holds.
    pub fn new(host: Host, state: State) -> Self {
        Self { host, state, history: BlockHistory::default(), unflushed: VecDeque::new(), last: None }
    }

    /// An executor at the start of a chain: the first entries are still to be flushed.
    pub fn at_genesis(host: Host, state: State, changes: Changes) -> Self {
        let first = (state.height(), Arc::new(changes));
        Self { host, state, history: BlockHistory::default(), unflushed: VecDeque::from([first]), last: None }
    }

    /// The application's host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The newest state. A clone is cheap and stays what it is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// From now on, blocks of long ago are read from here when evidence of them is judged.
    pub fn read_history_from(&mut self, log: LogReader, results: Option<ResultsReader>) {
        self.history.read_from(log, results);
    }

    /// And headers from before the snapshot that this node began with from here.
    pub fn read_headers_from(&mut self, light: LightStore) {
        self.history.read_headers_from(light);
    }

    /// Builds a block on the newest state.
    pub fn build(&self, job: &BuildJob, verdicts: &mut Verdicts<'_>) -> BuiltBlock {
        build_with(&self.host, &self.state, &self.history, job, verdicts)
    }

    /// valid(v), on the newest state.
    ///
    /// # Errors
    /// See [`CheckFailure`].
    pub fn check(&self, job: &CheckJob, verdicts: &mut Verdicts<'_>) -> Result<Arc<Block>, CheckFailure> {
        check_with(&self.host, &self.state, &self.history, job, verdicts)
    }

    /// Whether the block after `chain` may carry a piece of evidence; where asked for, what the chain knows is filled in first.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn judge(&self, evidence: &mut Evidence, chain: &ChainState, complete: bool, verdicts: &mut Verdicts<'_>) -> Result<(), Refused> {
        if complete {
            rules::complete(evidence, chain, &self.history);
        }
        rules::judge(evidence, chain, &self.history, verdicts)
    }

    /// Executes the next block.
    ///
    /// # Errors
    /// The application's, the same on every replica and fatal.
    pub fn execute(&mut self, job: &ExecuteJob) -> Result<Outcome, AppError> {
        let before = self.state.clone();
        let root_before = before.root();
        let chain = &job.chain;
        let executed = run(&self.host, &before, &job.block, &job.block.txs, chain)?;
        self.state = executed.state;
        self.history.push(&job.block, chain.validators.clone());
        let (changes, results) = (Arc::new(executed.changes), Arc::new(executed.tx_results));
        self.unflushed.push_back((job.block.header.height, changes.clone()));
        self.last = Some(Last { before, block: job.block.clone(), chain: chain.clone(), results: results.clone(), changes });
        Ok(Outcome {
            height: job.block.header.height,
            app_hash: if planted::has(Bug::RootOfStateBefore) { root_before } else { self.state.root() }.into(),
            results_hash: executed.last_results_hash,
            results,
            events: executed.events,
            validator_updates: executed.validator_updates,
            params: executed.parameter_updates,
            standing: self.state.standing().clone(),
            unflushed_keys: self.unflushed.iter().map(|(_, changes)| changes.len() as u64).sum(),
            checkpoint: executed.checkpoint,
        })
    }

    /// What was made of the last block, in short; none before the first.
    pub fn trace(&self) -> Option<Trace> {
        self.last.as_ref().map(|last| Trace::new(last.block.header.height, &last.results, &last.changes))
    }

    /// Whether the first `count` transactions of the last block, alone, change one of these keys. Nothing is kept of it.
    pub fn touches(&self, count: usize, keys: &[&[u8]]) -> bool {
        let Some(last) = &self.last else { return false };
        let first = &last.block.txs[..count.min(last.block.txs.len())];
        let executed = run(&self.host, &last.before, &last.block, first, &last.chain);
        executed.is_ok_and(|executed| keys.iter().any(|key| executed.changes.get(key).is_some()))
    }

    /// Puts another state in the place of the newest, as a fault of memory does; `changes` is what of it comes to the database, too. For
    /// tests of [`crate::audit`]: nothing of a node calls it.
    ///
    /// # Panics
    /// When it is the state of another height.
    pub fn damage(&mut self, state: State, changes: Changes) {
        assert_eq!(state.height(), self.state.height(), "a fault moves nobody on");
        self.unflushed.push_back((state.height(), Arc::new(changes)));
        self.state = state;
    }

    /// The changes up to a height, merged; they are then the database's to keep.
    pub fn take_flush(&mut self, height: Height) -> FlushBatch {
        let mut changes = Changes::new();
        while self.unflushed.front().is_some_and(|(at, _)| *at <= height) {
            let (at, of_height) = self.unflushed.pop_front().expect("just seen");
            if planted::has(Bug::FlushTakesLast) {
                changes = Changes::new();
            }
            if !(planted::has(Bug::FlushStopsShort) && at == height) {
                changes.extend(Arc::unwrap_or_clone(of_height));
            }
        }
        FlushBatch { height, changes }
    }
}
