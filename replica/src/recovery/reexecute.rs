//! Executing the log once more, to see whether it gives what was certified: `lockstep replay`.
//!
//! Nothing is written. It begins with the state of genesis, or with an own snapshot that the log proves, and executes one decided
//! block after the other. The header of each next block, which more than two thirds of the power signed, says what the one before
//! it gave: root, results, validators, parameters. The first block that gives something else is named, and of its transactions the
//! first whose result is not the one that this node kept, where what it kept is what was certified.
//!
//! What the newest block gave, no header says so far. It is compared with what this node itself kept of it.

use std::sync::Arc;

use lockstep_app::{Host, State};
use lockstep_genesis::Genesis;
use lockstep_storage::disk::Disk;
use lockstep_storage::log::{self, LogReader};
use lockstep_storage::results::{self, ResultsError, ResultsReader};
use lockstep_storage::snapshots::list;
use lockstep_types::abci::results_hash;
use lockstep_types::{Block, BlockId, Hash, Header, Height, TxResult};

use super::{RecoveryError, SNAPSHOTS_PATH, decided, genesis_state, own};
use crate::chain::ChainState;
use crate::execution::{ExecuteJob, Executor};
use crate::light_store::LightStore;
use crate::results::{kept_block, kept_tx};
use crate::seam::Outcome;
use crate::source::BlockSource;

/// What a stopped node has on its disk, to be read and nothing else.
pub struct Archive<'a> {
    disk: Arc<dyn Disk>,
    dir: &'a str,
    genesis: &'a Genesis,
    host: Host,
    log: LogReader,
    results: ResultsReader,
}

/// A state to begin with.
pub struct Start {
    /// The height whose state it is: the one before the first for the state of genesis.
    pub height: Height,
    /// Whether it comes of a snapshot.
    pub is_snapshot: bool,
    chain: ChainState,
    executor: Executor,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// With the first block; where that was pruned, with the oldest snapshot.
    First,
    /// With the newest snapshot that lets this block be executed, else with the first block.
    At(Height),
}

/// A field of a header, or of what this node kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name, as in the header.
    pub name: &'static str,
    /// What was certified, or kept.
    pub expected: String,
    /// What executing gives.
    pub found: String,
}

/// The first transaction of a block that gives something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstTx {
    /// This one.
    Found(Box<TxDifference>),
    /// None: all results are those that are expected. What differs is what a transaction, or the end of the block, did to the state,
    /// and of that there is one root for the whole block.
    SameResults,
    /// The results that were expected are not kept here, or other ones are.
    NotKept,
}

/// A transaction with two results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxDifference {
    /// Its place in the block, from 0.
    pub index: usize,
    /// Its hash.
    pub hash: Hash,
    /// What it was to give.
    pub expected: TxResult,
    /// What it gives.
    pub found: TxResult,
}

/// The first block that does not give what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its height; the one before the first where the state of genesis is another.
    pub height: Height,
    /// Whether the header of the next block says what was expected. Else this node kept it, and nobody certified it so far.
    pub is_certified: bool,
    /// What is other than expected; not empty.
    pub fields: Vec<Field>,
    /// The first transaction to look at.
    pub tx: FirstTx,
    /// The block was executed twice on the same state and gave two things: the application is not deterministic.
    pub is_unsteady: bool,
}

/// How far it went.
pub struct Walked {
    /// The chain after the last block that was executed.
    pub chain: ChainState,
    /// The state after it.
    pub state: State,
    /// The first block that differs: the last one that was executed.
    pub difference: Option<Difference>,
}

/// A block that was executed, until the header of the next one says whether rightly.
struct Last {
    job: ExecuteJob,
    before: State,
    outcome: Outcome,
}

impl<'a> Archive<'a> {
    /// Looks at the log in `dir` and at the results beside it; none where there is no block.
    ///
    /// # Errors
    /// When the disk fails, or the log is damaged.
    pub fn open(disk: Arc<dyn Disk>, dir: &'a str, genesis: &'a Genesis, host: Host) -> Result<Option<Self>, RecoveryError> {
        let Some(log) = log::look(&disk, dir)? else { return Ok(None) };
        if log.tip().is_none() {
            return Ok(None);
        }
        let results = results::look(&*disk, dir)?;
        Ok(Some(Self { disk, dir, genesis, host, log, results }))
    }

    /// The newest height.
    pub fn tip(&self) -> Height {
        super::tip_of(&self.log, self.genesis)
    }

    /// The lowest height from which on every block is here.
    pub fn base(&self) -> Height {
        self.log.base().and_then(Height::new).unwrap_or(self.tip())
    }

    /// The log.
    pub const fn log(&self) -> &LogReader {
        &self.log
    }

    /// Its folder.
    pub const fn dir(&self) -> &'a str {
        self.dir
    }

    /// The disk that it lies on.
    pub const fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The height before the chain's first.
    pub fn before_first(&self) -> Height {
        self.genesis.initial_height().previous()
    }

    /// A state to begin with; none where the first block was pruned and no snapshot that the log proves reaches far enough back.
    ///
    /// # Errors
    /// When the disk fails, or the application does not start from this genesis.
    pub fn start(&self, begin: Begin) -> Result<Option<Start>, RecoveryError> {
        let has_first = self.base() == self.genesis.initial_height();
        if begin == Begin::First && has_first {
            return self.genesis_start().map(Some);
        }
        let mut snapshots = list(&*self.disk, SNAPSHOTS_PATH).unwrap_or_default();
        snapshots.retain(|listed| listed.height.checked_add(1).is_some_and(|next| next >= self.base().get()));
        if let Begin::At(height) = begin {
            snapshots.retain(|listed| listed.height < height.get());
            snapshots.reverse();
        }
        let light = LightStore::open(self.disk.clone())?;
        let mut source = BlockSource::new(self.log.clone()).with_light(Some(self.results.clone()), light);
        for listed in snapshots {
            let proven = match own::proven(&self.disk, self.genesis, &mut source, &listed.manifest) {
                Err(RecoveryError::Results(ResultsError::Damaged { .. })) => None,
                proven => proven?,
            };
            if let Some((chain, tree)) = proven {
                let state = State::new(chain.height, tree, chain.standing.clone(), chain.next_validators.clone());
                let executor = Executor::new(self.host.clone(), state);
                return Ok(Some(Start { height: chain.height, is_snapshot: true, chain, executor }));
            }
        }
        if has_first { self.genesis_start().map(Some) } else { Ok(None) }
    }

    fn genesis_start(&self) -> Result<Start, RecoveryError> {
        let (chain, state, _) = genesis_state(&self.host, self.genesis)?;
        Ok(Start { height: chain.height, is_snapshot: false, chain, executor: Executor::new(self.host.clone(), state) })
    }

    /// Executes the blocks after the start up to this height, and tells each. The header above the last one is compared, too, where
    /// it is there.
    ///
    /// # Errors
    /// When the disk fails or the log is damaged, or the application breaks its contract.
    pub fn walk(&self, start: Start, to: Height, mut executed: impl FnMut(&Block)) -> Result<Walked, RecoveryError> {
        let Start { mut chain, mut executor, .. } = start;
        let (tip, mut last) = (self.tip(), None::<Last>);
        loop {
            if chain.height == tip {
                let difference = last.as_ref().map(|last| self.beside_kept(last, &chain)).transpose()?.flatten();
                return Ok(Walked { chain, state: executor.state().clone(), difference });
            }
            let (block_id, block) = self.block(chain.next_height())?;
            let fields = differing(&chain, &block.header);
            if !fields.is_empty() {
                let difference = self.explain(last.as_ref(), chain.height, fields, true, block.header.last_results_hash)?;
                return Ok(Walked { chain, state: executor.state().clone(), difference: Some(difference) });
            }
            if chain.height >= to {
                return Ok(Walked { chain, state: executor.state().clone(), difference: None });
            }
            let before = executor.state().clone();
            let job = ExecuteJob { block: Arc::new(block), block_id, chain: Arc::new(chain) };
            let outcome = executor.execute(&job)?;
            // The state stays in memory: no database waits for what changed.
            drop(executor.take_flush(outcome.height));
            executed(&job.block);
            chain = job.chain.advance(block_id, &job.block.header, job.block.txs.len(), &outcome);
            last = Some(Last { job, before, outcome });
        }
    }

    fn block(&self, height: Height) -> Result<(BlockId, Block), RecoveryError> {
        let (block_id, block, ..) = decided(&self.log, height)?;
        let wrong =
            |error| RecoveryError::Contradiction(format!("the body of height {height} is not the one that its header names: {error}"));
        block.check_hashes().map_err(wrong)?;
        Ok((block_id, block))
    }

    /// What this node kept of its newest block, where that is something else.
    fn beside_kept(&self, last: &Last, chain: &ChainState) -> Result<Option<Difference>, RecoveryError> {
        let Some((kept, txs)) = self.kept(chain.height) else { return Ok(None) };
        let mut fields = Vec::new();
        compare(&mut fields, "app_hash", &kept, &chain.app_hash);
        let expected = results_hash(&txs);
        compare(&mut fields, "last_results_hash", &expected, &chain.results_hash);
        if fields.is_empty() {
            return Ok(None);
        }
        self.explain(Some(last), chain.height, fields, false, expected).map(Some)
    }

    /// Root and results of a height, as this node kept them. Those that are damaged or of another version are not kept.
    fn kept(&self, height: Height) -> Option<(lockstep_types::AppHash, Vec<TxResult>)> {
        let kept = self.results.results(height.get()).ok().flatten()?;
        let txs = kept.txs.iter().map(|tx| kept_tx(&tx.result).ok()).collect::<Option<Vec<_>>>()?;
        Some((kept_block(&kept).ok()?.app_hash, txs))
    }

    fn explain(
        &self,
        last: Option<&Last>,
        height: Height,
        fields: Vec<Field>,
        is_certified: bool,
        results: Hash,
    ) -> Result<Difference, RecoveryError> {
        let Some(last) = last else {
            return Ok(Difference { height, is_certified, fields, tx: FirstTx::NotKept, is_unsteady: false });
        };
        let mut again = Executor::new(self.host.clone(), last.before.clone());
        let is_unsteady = again
            .execute(&last.job)
            .is_ok_and(|again| (&again.app_hash, again.results_hash) != (&last.outcome.app_hash, last.outcome.results_hash));
        Ok(Difference { height, is_certified, fields, tx: self.first_tx(last, results), is_unsteady })
    }

    fn first_tx(&self, last: &Last, results: Hash) -> FirstTx {
        if last.outcome.results_hash == results {
            return FirstTx::SameResults;
        }
        let Some((_, kept)) = self.kept(last.outcome.height).filter(|(_, kept)| results_hash(kept) == results) else {
            return FirstTx::NotKept;
        };
        let pairs = kept.into_iter().zip(last.outcome.results.iter()).enumerate();
        let first = pairs.into_iter().find(|(_, (kept, now))| kept.leaf() != now.leaf());
        first.map_or(FirstTx::NotKept, |(index, (expected, found))| {
            let hash = last.job.block.txs[index].hash();
            FirstTx::Found(Box::new(TxDifference { index, hash, expected, found: found.clone() }))
        })
    }
}

/// What of a header follows from the blocks below it, and is not what these gave.
fn differing(chain: &ChainState, header: &Header) -> Vec<Field> {
    let expected = chain.next_header(header.time, header.proposer_address);
    let mut fields = Vec::new();
    compare(&mut fields, "app_hash", &header.app_hash, &expected.app_hash);
    compare(&mut fields, "last_results_hash", &header.last_results_hash, &expected.last_results_hash);
    compare(&mut fields, "validators_hash", &header.validators_hash, &expected.validators_hash);
    compare(&mut fields, "next_validators_hash", &header.next_validators_hash, &expected.next_validators_hash);
    compare(&mut fields, "consensus_hash", &header.consensus_hash, &expected.consensus_hash);
    compare(&mut fields, "version.app", &header.version.app, &expected.version.app);
    fields
}

fn compare<T: PartialEq + std::fmt::Display>(fields: &mut Vec<Field>, name: &'static str, expected: &T, found: &T) {
    if expected != found {
        fields.push(Field { name, expected: expected.to_string(), found: found.to_string() });
    }
}
