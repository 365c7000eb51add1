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
    Verdict, fitting,
};
use crate::changes::{Changes, ChangesError, View};
use crate::node_tx::{self, APPLICATION_PANICKED, KEY_INVALID, NODE_CODESPACE, STATE_UNAVAILABLE};
use crate::tree::Tree;

/// Most bytes of data, logs and events that one block may give. Results are stored and served whole: several times the
/// largest body is room for every application here.
pub const OUTPUT_BYTES_MAX: usize = 512 << 20;

/// The query path that the node answers for every application: the value of a key of the state, with proof.
pub const STORE_PATH: &str = "/store";

/// The state after a height. A clone is cheap and stays what it is.
#[derive(Debug, Clone)]
pub struct State {
    height: Height,
    tree: Tree,
}

impl State {
    /// The state after this height, from the tree of all its entries: how it comes back from disk or from a snapshot.
    pub const fn new(height: Height, tree: Tree) -> Self {
        Self { height, tree }
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
    /// The first validators: the application's, or those of genesis.
    pub validators: Vec<ValidatorUpdate>,
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
}

/// Runs one application. A clone runs the same one.
#[derive(Clone)]
pub struct Host {
    app: Arc<dyn Application>,
}

impl Host {
    /// A host of this application.
    pub fn new(app: Arc<dyn Application>) -> Self {
        Self { app }
    }

    /// What the application says about itself.
    pub fn info(&self, state: &State) -> Info {
        self.app.info(&state.view())
    }

    /// The start of the chain.
    ///
    /// # Errors
    /// See [`AppError`].
    pub fn init(&self, genesis: &GenesisInput<'_>) -> Result<InitializedChain, AppError> {
        let height = genesis.initial_height.previous();
        let initialized = guarded("init_chain", height, || self.app.init_chain(genesis))??;
        initialized.changes.check().map_err(|error| AppError::Changes { height, error })?;
        let validators = if initialized.validators.is_empty() { genesis.validators.to_vec() } else { initialized.validators };
        ValidatorSet::new(&validators).map_err(|error| AppError::Validators { height, error })?;
        let parameters = initialized.parameters.unwrap_or_else(|| genesis.parameters.clone());
        parameters.check().map_err(|error| AppError::Parameters { height, error })?;
        let state = State::new(height, Tree::new().apply(&initialized.changes));
        Ok(InitializedChain { state, changes: initialized.changes, validators, parameters })
    }

    /// Whether a transaction may enter the mempool. A panic refuses it: one client's bytes must not stop a node.
    pub fn check_tx(&self, state: &State, tx: &[u8], kind: CheckKind) -> Verdict {
        if node_tx::is_node_tx(tx) {
            return node_tx::verdict(tx);
        }
        guarded("check_tx", state.height, || self.app.check_tx(&state.view(), tx, kind))
            .unwrap_or_else(|error| Verdict::refused(APPLICATION_PANICKED, NODE_CODESPACE, error.to_string()))
    }

    /// The transactions of an own proposal. What the application adds beyond the room that there is, and everything where it
    /// panics, is left out: an empty block is better than a node that cannot propose.
    pub fn prepare_proposal(&self, state: &State, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        let mut txs =
            guarded("prepare_proposal", proposal.height, || self.app.prepare_proposal(&state.view(), proposal)).unwrap_or_default();
        txs.retain(|tx| !node_tx::is_node_tx(&tx.0));
        fitting(&txs, proposal.max_bytes)
    }

    /// Whether a proposed block may be decided, as far as transactions and the application are concerned. A panic rejects.
    pub fn process_proposal(&self, state: &State, block: &BlockInput<'_>) -> Proposal {
        if let Some(at) = block.txs.iter().position(|tx| node_tx::is_node_tx(&tx.0)) {
            return Proposal::Reject(format!("transaction {at} is one of the node, which this chain does not enable"));
        }
        guarded("process_proposal", block.height, || self.app.process_proposal(&state.view(), block))
            .unwrap_or_else(|error| Proposal::Reject(error.to_string()))
    }

    /// Executes the block after `state`. `next_validators` is the set of the next height, the one that updates are applied
    /// to for the height after it.
    ///
    /// Takes the state: where the caller keeps no clone of it, it is changed in place, at twice the speed.
    ///
    /// # Errors
    /// See [`AppError`]; the block cannot be executed by any replica.
    ///
    /// # Panics
    /// When the block is not the one after the state: blocks are executed in order.
    pub fn execute(&self, state: State, block: &BlockInput<'_>, next_validators: &ValidatorSet) -> Result<ExecutedBlock, AppError> {
        let height = block.height;
        assert!(height == state.height.next(), "block {height} is not executed on the state after {}", state.height);
        let executed = self.run(&state, block)?;
        executed.changes.check().map_err(|error| AppError::Changes { height, error })?;
        check_output(&executed).map_err(|rule| AppError::Output { height, rule })?;
        if !executed.validator_updates.is_empty() {
            let mut set = next_validators.clone();
            set.update(&executed.validator_updates).map_err(|error| AppError::Validators { height, error })?;
        }
        if let Some(parameters) = &executed.parameter_updates {
            parameters.check().map_err(|error| AppError::Parameters { height, error })?;
        }
        let State { mut tree, .. } = state;
        tree.change(&executed.changes);
        Ok(ExecutedBlock {
            state: State::new(height, tree),
            changes: executed.changes,
            last_results_hash: results_hash(&executed.tx_results),
            tx_results: executed.tx_results,
            events: executed.events,
            validator_updates: executed.validator_updates,
            parameter_updates: executed.parameter_updates,
        })
    }

    /// The application's part of a block: transactions of the node are not shown to it, and get their own result.
    fn run(&self, state: &State, block: &BlockInput<'_>) -> Result<Executed, AppError> {
        let height = block.height;
        let is_ours = |tx: &Tx| !node_tx::is_node_tx(&tx.0);
        let execute = |block: &BlockInput<'_>| {
            let executed = guarded("execute", height, || self.app.execute(&state.view(), block))?;
            let (txs, results) = (block.txs.len(), executed.tx_results.len());
            if txs == results { Ok(executed) } else { Err(AppError::Results { height, txs, results }) }
        };
        if block.txs.iter().all(is_ours) {
            return execute(block);
        }
        let txs: Vec<Tx> = block.txs.iter().filter(|tx| is_ours(tx)).cloned().collect();
        let mut executed = execute(&BlockInput { txs: &txs, ..block.clone() })?;
        let mut results = std::mem::take(&mut executed.tx_results).into_iter();
        let mut result = |tx: &Tx| if is_ours(tx) { results.next().expect("one for each, compared above") } else { node_tx::result(&tx.0) };
        executed.tx_results = block.txs.iter().map(&mut result).collect();
        Ok(executed)
    }

    /// Answers a question about the state.
    pub fn query(&self, state: &State, query: &Query<'_>) -> QueryAnswer {
        if query.path == STORE_PATH {
            return store(state, query);
        }
        guarded("query", state.height, || self.app.query(&state.view(), query)).unwrap_or_else(|error| QueryAnswer {
            code: APPLICATION_PANICKED,
            codespace: NODE_CODESPACE.to_owned(),
            log: error.to_string(),
            ..QueryAnswer::default()
        })
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
