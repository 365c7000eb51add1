//! Runs an application for the replica: a state and a block in, the next state and its outputs out.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lockstep_types::abci::results_hash;
use lockstep_types::params::ParamsError;
use lockstep_types::state_tree::KEY_BYTES_MAX;
use lockstep_types::state_tree::ics23::PROOF_OP_TYPE;
use lockstep_types::validators::UpdateError;
use lockstep_types::{ConsensusParams, Event, Hash, Height, Tx, TxResult, ValidatorSet, ValidatorUpdate};

use crate::application::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Info, ProofOp, Proposal, ProposalInput, Query, QueryAnswer,
    TX_OVERHEAD_BYTES, Verdict, fitting,
};
use crate::changes::{Changes, ChangesError, View};
use crate::membership::{self, ChainFacts, Config, Desk, Ended, MEMBERSHIP_PATH, Registry, Signed, Standing, Turn};
use crate::node_tx::{self, APPLICATION_PANICKED, KEY_INVALID, NODE_CODESPACE, NODE_TXS_MAX, STATE_UNAVAILABLE};
use crate::record::{RECORD_KEY, ReplicaRecord};
use crate::tree::Tree;

/// Most bytes of data, logs and events that one block may give. Results are stored and served whole: several times the
/// largest body is room for every application here.
pub const OUTPUT_BYTES_MAX: usize = 512 << 20;

/// The query path that the node answers for every application: the value of a key of the state, with proof.
pub const STORE_PATH: &str = "/store";

/// The state after a height, and what membership knows of the chain beside it. A clone is cheap and stays what it is.
#[derive(Debug, Clone)]
pub struct State {
    height: Height,
    tree: Tree,
    standing: Arc<Standing>,
    newest: Arc<ValidatorSet>,
}

impl State {
    /// The state after this height H, from the tree of all its entries: how it comes back from disk or from a snapshot. With
    /// what stands beside it, and the newest set, which is that of H + 2.
    pub const fn new(height: Height, tree: Tree, standing: Arc<Standing>, newest: Arc<ValidatorSet>) -> Self {
        Self { height, tree, standing, newest }
    }

    /// What membership knows of the chain; on a chain without, evidence alone.
    pub const fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// The newest set, with the powers of height + 2. Its priorities mean nothing.
    pub const fn newest(&self) -> &Arc<ValidatorSet> {
        &self.newest
    }

    /// The height whose block was executed last; before the first block the height before it.
    pub const fn height(&self) -> Height {
        self.height
    }

    /// The root of all entries: `app_hash` of the next header.
    pub const fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The entries.
    pub const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What an application reads.
    pub fn view(&self) -> View {
        View::new(self.tree.clone(), self.height)
    }

    /// Where a request for the next block is judged.
    fn desk<'a>(&'a self, config: &'a Config, signed: &'a Signed) -> Desk<'a> {
        Desk::after(config, signed, self.height, &self.tree, &self.standing, &self.newest)
    }
}

/// An application broke its contract. The verdict follows from the chain alone, so every replica that runs the same
/// application reaches it: the node halts and names it, since there is no next state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppError {
    /// It does not start from this genesis.
    #[error(transparent)]
    Genesis(#[from] GenesisRefused),
    /// It panicked.
    #[error("the application panicked in {call} at height {height}: {reason}")]
    Panicked {
        /// Which call.
        call: &'static str,
        /// At which height.
        height: Height,
        /// What the panic said.
        reason: String,
    },
    /// Its changes are refused.
    #[error("the application's changes at height {height} are refused: {error}")]
    Changes {
        /// At which height.
        height: Height,
        /// Which rule.
        error: ChangesError,
    },
    /// Not one result for each transaction.
    #[error("the application gave {results} results for {txs} transactions at height {height}")]
    Results {
        /// At which height.
        height: Height,
        /// Transactions of the block that are the application's.
        txs: usize,
        /// Results given.
        results: usize,
    },
    /// Results or events that clients cannot read or that are too large.
    #[error("the application's output at height {height} is refused: {rule}")]
    Output {
        /// At which height.
        height: Height,
        /// Which rule.
        rule: &'static str,
    },
    /// A list of validators that no set takes.
    #[error("the application's validator updates at height {height} are refused: {error}")]
    Validators {
        /// At which height.
        height: Height,
        /// Which rule.
        error: UpdateError,
    },
    /// Parameters that break a rule.
    #[error("the application's parameters at height {height} are refused: {error}")]
    Parameters {
        /// At which height.
        height: Height,
        /// Which rule.
        error: ParamsError,
    },
}

/// The start of a chain.
#[derive(Debug, Clone)]
pub struct InitializedChain {
    /// The state before the first block; its root is `app_hash` of the first header.
    pub state: State,
    /// All entries of that state.
    pub changes: Changes,
    /// The validators of the first height: the application's, or those of genesis.
    pub validators: ValidatorSet,
    /// The first parameters: the application's, or those of genesis.
    pub parameters: ConsensusParams,
}

/// What a block did.
#[derive(Debug, Clone)]
pub struct ExecutedBlock {
    /// The state after it. [`State::root`] is `app_hash` of the next header.
    pub state: State,
    /// What changed, for the flush.
    pub changes: Changes,
    /// One result for each transaction of the block.
    pub tx_results: Vec<TxResult>,
    /// Events of the block itself.
    pub events: Vec<Event>,
    /// Hash of the results: `last_results_hash` of the next header.
    pub last_results_hash: Hash,
    /// Updates that the set of two heights later takes; checked against the set they change.
    pub validator_updates: Vec<ValidatorUpdate>,
    /// Parameters from the next height on; checked.
    pub parameter_updates: Option<ConsensusParams>,
    /// Whether the height is a checkpoint: its state holds the replica record.
    pub checkpoint: bool,
}

/// Runs one application. A clone runs the same one.
#[derive(Clone)]
pub struct Host {
    app: Arc<dyn Application>,
    /// Transactions of the node that are known to be signed: each is judged on arrival, in a proposal and in a block.
    signed: Arc<Signed>,
}

impl Host {
    /// A host of this application.
    pub fn new(app: Arc<dyn Application>) -> Self {
        Self { app, signed: Arc::default() }
    }

    /// A host of another application, or of another instance, that knows of the same transactions that they are signed: for
    /// several nodes in one process, each of which meets each of them. No answer depends on it.
    #[must_use]
    pub fn beside(&self, app: Arc<dyn Application>) -> Self {
        Self { app, signed: self.signed.clone() }
    }

    /// What the application says about itself.
    pub fn info(&self, state: &State) -> Info {
        self.app.info(&state.view())
    }

    /// The start of the chain. The group `membership` of `app_state` is the node's; the application is shown the rest.
    ///
    /// # Errors
    /// See [`AppError`].
    pub fn init(&self, genesis: &GenesisInput<'_>) -> Result<InitializedChain, AppError> {
        let height = genesis.initial_height.previous();
        let (config, app_state) = membership::split(genesis.app_state, genesis.chain_id, genesis.genesis_hash)?;
        let genesis = &GenesisInput { app_state: &app_state, ..genesis.clone() };
        let initialized = guarded("init_chain", height, || self.app.init_chain(genesis))??;
        let mut changes = initialized.changes;
        changes.check().map_err(|error| AppError::Changes { height, error })?;
        let validators = if initialized.validators.is_empty() { genesis.validators.to_vec() } else { initialized.validators };
        let set = ValidatorSet::new(&validators).map_err(|error| AppError::Validators { height, error })?;
        let parameters = initialized.parameters.unwrap_or_else(|| genesis.parameters.clone());
        parameters.check().map_err(|error| AppError::Parameters { height, error })?;
        let standing = match &config {
            Some(config) => {
                changes.extend(membership::genesis_changes(config));
                Standing::genesis(&set, height)
            }
            None => Standing::default(),
        };
        let state = State::new(height, Tree::new().apply(&changes), Arc::new(standing), Arc::new(set.clone()));
        Ok(InitializedChain { state, changes, validators: set, parameters })
    }

    /// Whether a transaction may enter the mempool. A panic refuses it: one client's bytes must not stop a node.
    pub fn check_tx(&self, state: &State, tx: &[u8], kind: CheckKind) -> Verdict {
        if node_tx::is_node_tx(tx) {
            let Some(config) = Registry::config(&state.tree) else { return node_tx::unavailable_verdict(tx) };
            return membership::judge(state.desk(&config, &self.signed), tx, kind == CheckKind::Recheck);
        }
        guarded("check_tx", state.height, || self.app.check_tx(&state.view(), tx, kind))
            .unwrap_or_else(|error| Verdict::refused(APPLICATION_PANICKED, NODE_CODESPACE, error.to_string()))
    }

    /// The transactions of an own proposal: those of the node that will have an effect, then the application's. What it adds
    /// beyond the room that there is, and everything where it panics, is left out: an empty block is better than a node that
    /// cannot propose.
    pub fn prepare_proposal(&self, state: &State, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        let (ours, candidates): (Vec<Tx>, Vec<Tx>) = proposal.candidates.iter().cloned().partition(|tx| node_tx::is_node_tx(&tx.0));
        let mut txs = match Registry::config(&state.tree) {
            Some(config) if !ours.is_empty() => {
                let mut desk = state.desk(&config, &self.signed);
                // The mempool holds what `check_tx` let in: their signatures hold.
                let effective = ours.into_iter().filter(|tx| desk.transact(&tx.0, true).is_ok()).take(NODE_TXS_MAX).collect::<Vec<_>>();
                fitting(&effective, proposal.max_bytes)
            }
            _ => Vec::new(),
        };
        let taken: u64 = txs.iter().map(|tx| tx.0.len() as u64 + TX_OVERHEAD_BYTES).sum();
        let room = ProposalInput { candidates: &candidates, max_bytes: proposal.max_bytes - taken, ..proposal.clone() };
        let mut chosen =
            guarded("prepare_proposal", proposal.height, || self.app.prepare_proposal(&state.view(), &room)).unwrap_or_default();
        chosen.retain(|tx| !node_tx::is_node_tx(&tx.0));
        txs.extend(fitting(&chosen, room.max_bytes));
        txs
    }

    /// Whether a proposed block may be decided, as far as transactions and the application are concerned. A panic rejects.
    pub fn process_proposal(&self, state: &State, block: &BlockInput<'_>) -> Proposal {
        let ours: Vec<&Tx> = block.txs.iter().filter(|tx| node_tx::is_node_tx(&tx.0)).collect();
        if let Some(first) = ours.first() {
            let Some(config) = Registry::config(&state.tree) else {
                return Proposal::Reject(node_tx::unavailable_verdict(&first.0).log);
            };
            if ours.len() > NODE_TXS_MAX {
                return Proposal::Reject(format!("{} transactions of the node, at most {NODE_TXS_MAX} in a block", ours.len()));
            }
            // A well-formed one that has no effect gets its code when it is executed: what is before it may be the reason.
            if let Some(error) = ours.iter().find_map(|tx| self.signed.read(&tx.0, &config).err()) {
                return Proposal::Reject(error.to_string());
            }
            let txs = others(block.txs);
            return self.judged(state, &BlockInput { txs: &txs, ..block.clone() });
        }
        self.judged(state, block)
    }

    fn judged(&self, state: &State, block: &BlockInput<'_>) -> Proposal {
        guarded("process_proposal", block.height, || self.app.process_proposal(&state.view(), block))
            .unwrap_or_else(|error| Proposal::Reject(error.to_string()))
    }

    /// Executes the block after `state`, in the chain around it.
    ///
    /// Takes the state: where the caller keeps no clone of it, it is changed in place, at twice the speed.
    ///
    /// # Errors
    /// See [`AppError`]; the block cannot be executed by any replica.
    ///
    /// # Panics
    /// When the block is not the one after the state: blocks are executed in order.
    pub fn execute(&self, state: State, block: &BlockInput<'_>, facts: ChainFacts<'_>) -> Result<ExecutedBlock, AppError> {
        let height = block.height;
        assert!(height == state.height.next(), "block {height} is not executed on the state after {}", state.height);
        let config = Registry::config(&state.tree);
        let refused = |error| AppError::Validators { height, error };
        let (executed, ended) = match &config {
            None => (self.run(&state, block, node_tx::unavailable_result)?, None),
            Some(config) => {
                let mut turn = Turn::begin(config, &self.signed, &state.tree, &state.standing, block, facts);
                let executed = self.run(&state, block, |tx| turn.transact(tx))?;
                let ended = turn.end(block, &executed.validator_updates).map_err(refused)?;
                (executed, Some(ended))
            }
        };
        executed.changes.check().map_err(|error| AppError::Changes { height, error })?;
        check_output(&executed).map_err(|rule| AppError::Output { height, rule })?;
        if let Some(parameters) = &executed.parameter_updates {
            parameters.check().map_err(|error| AppError::Parameters { height, error })?;
        }
        let Executed { mut changes, tx_results, events, validator_updates, parameter_updates } = executed;
        let last_results_hash = results_hash(&tx_results);
        let mut ended = ended.unwrap_or_else(|| Ended::without_membership(&state.standing, block, facts.evidence, validator_updates));
        let mut newest = facts.next_validators.clone();
        newest.update(&ended.updates).map_err(refused)?;
        changes.extend(ended.changes);
        if ended.checkpoint {
            let parameters = parameter_updates.as_ref().unwrap_or(block.parameters).clone();
            changes.set(RECORD_KEY, record(height, &ended.standing, facts, &newest, parameters, last_results_hash).to_bytes());
        }
        ended.events.extend(events);
        let State { mut tree, .. } = state;
        tree.change(&changes);
        Ok(ExecutedBlock {
            state: State::new(height, tree, Arc::new(ended.standing), Arc::new(newest)),
            changes,
            tx_results,
            events: ended.events,
            last_results_hash,
            validator_updates: ended.updates,
            parameter_updates,
            checkpoint: ended.checkpoint,
        })
    }

    /// The application's part of a block: transactions of the node are not shown to it, and get their own result.
    fn run(&self, state: &State, block: &BlockInput<'_>, mut node_tx: impl FnMut(&[u8]) -> TxResult) -> Result<Executed, AppError> {
        let height = block.height;
        let execute = |block: &BlockInput<'_>| {
            let executed = guarded("execute", height, || self.app.execute(&state.view(), block))?;
            let (txs, results) = (block.txs.len(), executed.tx_results.len());
            if txs == results { Ok(executed) } else { Err(AppError::Results { height, txs, results }) }
        };
        if !block.txs.iter().any(|tx| node_tx::is_node_tx(&tx.0)) {
            return execute(block);
        }
        let txs = others(block.txs);
        let mut executed = execute(&BlockInput { txs: &txs, ..block.clone() })?;
        let mut results = std::mem::take(&mut executed.tx_results).into_iter();
        let mut result = |tx: &Tx| {
            if node_tx::is_node_tx(&tx.0) { node_tx(&tx.0) } else { results.next().expect("one for each, compared above") }
        };
        executed.tx_results = block.txs.iter().map(&mut result).collect();
        Ok(executed)
    }

    /// Answers a question about the state.
    pub fn query(&self, state: &State, query: &Query<'_>) -> QueryAnswer {
        match query.path {
            STORE_PATH => return store(state, query),
            MEMBERSHIP_PATH => return membership::answer(state),
            _ => {}
        }
        guarded("query", state.height, || self.app.query(&state.view(), query)).unwrap_or_else(|error| QueryAnswer {
            code: APPLICATION_PANICKED,
            codespace: NODE_CODESPACE.to_owned(),
            log: error.to_string(),
            ..QueryAnswer::default()
        })
    }
}

/// The transactions that are not the node's.
fn others(txs: &[Tx]) -> Vec<Tx> {
    txs.iter().filter(|tx| !node_tx::is_node_tx(&tx.0)).cloned().collect()
}

/// What a replica must know after a checkpoint beside the application's state.
fn record(
    height: Height,
    standing: &Standing,
    facts: ChainFacts<'_>,
    newest: &ValidatorSet,
    parameters: ConsensusParams,
    last_results_hash: Hash,
) -> ReplicaRecord {
    let mut next_validators = newest.clone();
    next_validators.increment(1);
    ReplicaRecord {
        height,
        validators: facts.next_validators.clone(),
        next_validators,
        parameters,
        view: standing.view,
        committed_evidence: standing.committed_evidence.clone(),
        attendance: standing.attendance.clone(),
        power_moved: standing.power_moved.clone(),
        waiting: standing.waiting.clone(),
        last_results_hash,
    }
}

/// The value of a key of the state, with its proof where one is wanted: to the root in the header of the height after.
fn store(state: &State, query: &Query<'_>) -> QueryAnswer {
    let refused =
        |code, log| QueryAnswer { code, codespace: NODE_CODESPACE.to_owned(), log, key: query.data.to_vec(), ..QueryAnswer::default() };
    if let Some(height) = query.height.filter(|height| *height != state.height) {
        return refused(STATE_UNAVAILABLE, format!("the state after height {height} is not kept, only that after {}", state.height));
    }
    if query.data.is_empty() || query.data.len() > KEY_BYTES_MAX {
        return refused(KEY_INVALID, format!("a key of {} bytes, keys have 1 to {KEY_BYTES_MAX}", query.data.len()));
    }
    let value = state.tree.get(query.data).cloned();
    let proof = if query.prove { state.tree.prove_ics23(query.data) } else { None };
    QueryAnswer {
        log: if value.is_some() { "exists" } else { "does not exist" }.to_owned(),
        key: query.data.to_vec(),
        value,
        proof_ops: proof
            .map(|proof| ProofOp { kind: PROOF_OP_TYPE.to_owned(), key: query.data.to_vec(), data: proof.to_bytes() })
            .into_iter()
            .collect(),
        height: state.height,
        ..QueryAnswer::default()
    }
}

/// What clients insist on, and how much there may be.
fn check_output(executed: &Executed) -> Result<(), &'static str> {
    let mut bytes = 0usize;
    let mut count = |len: usize| {
        bytes = bytes.saturating_add(len);
        if bytes > OUTPUT_BYTES_MAX { Err("more than 512 MiB of results and events") } else { Ok(()) }
    };
    let events = executed.events.iter().map(|event| (event, false));
    let tx_events = executed.tx_results.iter().flat_map(|result| result.events.iter().map(|event| (event, true)));
    for (event, of_tx) in events.chain(tx_events) {
        count(event.kind.len())?;
        if event.kind.is_empty() {
            return Err("an event without a kind");
        }
        for attribute in &event.attributes {
            count(attribute.key.len().saturating_add(attribute.value.len()))?;
            if attribute.key.is_empty() {
                return Err("an event attribute without a key");
            }
            // Searches answer for these two from the transaction itself.
            if of_tx && attribute.index && event.kind == "tx" && matches!(attribute.key.as_str(), "hash" | "height") {
                return Err("an indexed attribute tx.hash or tx.height, which are the node's");
            }
        }
    }
    executed
        .tx_results
        .iter()
        .try_for_each(|result| count(result.data.len() + result.log.len() + result.info.len() + result.codespace.len()))
}

/// Calls the application. Nothing that a panic leaves half done can be seen afterwards: an application holds no state, and
/// what it was given is either immutable or dropped with it.
fn guarded<T>(call: &'static str, height: Height, run: impl FnOnce() -> T) -> Result<T, AppError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| AppError::Panicked { call, height, reason: reason(panic.as_ref()) })
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no reason was given").to_owned()
}
