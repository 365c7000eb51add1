//! The application again: the bundled one restated over a `BTreeMap`, and any other one executed from genesis on a fresh
//! instance, with a root that is computed from all entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_app::{Application, BlockInput, GenesisInput, Misbehaviour, MisbehaviourKind, Participation, ParticipationFlag, Tree, View};
use lockstep_genesis::Genesis;
use lockstep_types::{Address, ConsensusParams, Hash as TypedHash, Height, Power, Time, Tx, ValidatorUpdate};

use super::bytes::{Body, Hash};
use super::hashes::{TxOutcome, sha, state_root};
use super::{Model, Next};

/// What a block proves, as an application is told it.
fn body_misbehaviour(body: &Body) -> Result<Vec<Misbehaviour>, String> {
    let power = |power| Power::new(power).ok_or("no power");
    body.evidence
        .iter()
        .map(|piece| {
            Ok(Misbehaviour {
                kind: MisbehaviourKind::DuplicateVote,
                address: Address(piece.address),
                power: power(piece.power)?,
                height: Height::new(piece.height()).ok_or("no height")?,
                time: Time::new(piece.time.seconds, piece.time.nanos).ok_or("no time")?,
                total_power: power(piece.total)?,
            })
        })
        .collect()
}

/// All entries of a state.
pub type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys and powers.
pub(super) type Powers = Vec<([u8; 32], u64)>;

/// What executing a block gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Modelled {
    /// For each transaction.
    pub results: Vec<TxOutcome>,
    /// New powers by key, for the set of two heights later.
    pub updates: Vec<([u8; 32], u64)>,
    /// `block.max_bytes` and `block.max_gas` from the next height on, where they change.
    pub params: Option<(i64, i64)>,
}

/// How transactions of the node begin.
const NODE_TX: &[u8] = b"\0=:";

fn root_of(entries: &Entries) -> Hash {
    state_root(entries.iter().map(|(key, value)| (&key[..], &value[..])))
}

/// The key-value application on a chain whose validators nobody may change.
#[derive(Debug, Clone)]
pub struct KvModel {
    entries: Entries,
    executed: u64,
}

impl KvModel {
    /// After genesis with these validators.
    pub fn new(validators: &[([u8; 32], u64)]) -> Self {
        let mut entries = Entries::new();
        entries.insert(b"kv:config".to_vec(), vec![0]);
        entries.insert(b"kv:counters".to_vec(), vec![0; 16]);
        let count = u32::try_from(validators.len()).expect("sets are small");
        let power: u64 = validators.iter().map(|(_, power)| power).sum();
        entries.insert(b"kv:validators".to_vec(), [&count.to_le_bytes()[..], &power.to_le_bytes()].concat());
        for (key, power) in validators {
            let address = &sha(&[key])[..20];
            entries.insert([b"kv:validator/", address].concat(), [&key[..], &power.to_le_bytes()].concat());
        }
        Self { entries, executed: 0 }
    }

    /// The value that a client reads under a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.entries.get(&[b"kv/", key].concat()).map(Vec::as_slice)
    }
}

impl Model for KvModel {
    fn root(&self) -> Hash {
        root_of(&self.entries)
    }

    fn version(&self) -> u64 {
        1
    }

    fn execute(&mut self, next: &Next<'_>) -> Result<Modelled, String> {
        let before = self.executed;
        let mut results = Vec::new();
        for tx in &next.body.txs {
            let parts: Vec<&[u8]> = tx.split(|byte| matches!(byte, b'=' | b':')).collect();
            let code = match parts[..] {
                _ if tx.starts_with(NODE_TX) => 1,
                [key, value] if !key.is_empty() && !value.is_empty() && !tx.starts_with(b"val=") => {
                    self.entries.insert([b"kv/", key].concat(), value.to_vec());
                    self.executed += 1;
                    0
                }
                _ => 2,
            };
            results.push(TxOutcome { code, ..TxOutcome::default() });
        }
        if self.executed > before {
            let counters = [self.executed.to_le_bytes(), next.body.header.height.to_le_bytes()].concat();
            self.entries.insert(b"kv:counters".to_vec(), counters);
        }
        Ok(Modelled { results, ..Modelled::default() })
    }
}

/// What must hold of all entries after a height; otherwise why not.
pub type Invariant = dyn Fn(u64, &Entries) -> Result<(), String> + Send + Sync;

/// Any application, executed once more.
pub struct AppModel {
    app: Arc<dyn Application>,
    invariant: Option<Arc<Invariant>>,
    chain_id: lockstep_types::ChainId,
    params: ConsensusParams,
    version: u64,
    entries: Entries,
    tree: Tree,
}

impl AppModel {
    /// After genesis, on this instance, which nothing else may have used. The validators that the chain begins with, too.
    ///
    /// # Errors
    /// When the application refuses genesis.
    pub fn new(app: Arc<dyn Application>, invariant: Option<Arc<Invariant>>, genesis: &Genesis) -> Result<(Self, Powers), String> {
        let told: Vec<ValidatorUpdate> =
            genesis.validators.iter().map(|one| ValidatorUpdate { public_key: one.public_key, power: one.power }).collect();
        let initialized = app
            .init_chain(&GenesisInput {
                chain_id: &genesis.chain_id,
                genesis_hash: genesis.hash(),
                time: genesis.genesis_time,
                initial_height: genesis.initial_height(),
                validators: &told,
                parameters: &genesis.consensus_params,
                app_state: &genesis.app_state,
            })
            .map_err(|error| error.to_string())?;
        let mut model = Self {
            app,
            invariant,
            chain_id: genesis.chain_id.clone(),
            params: initialized.parameters.unwrap_or_else(|| genesis.consensus_params.clone()),
            version: 0,
            entries: Entries::new(),
            tree: Tree::new(),
        };
        model.apply(&initialized.changes);
        model.version = model.app.info(&model.view(0)).app_version;
        model.holds(0)?;
        let validators = if initialized.validators.is_empty() { told } else { initialized.validators };
        Ok((model, validators.iter().map(|one| (one.public_key.0, one.power.get())).collect()))
    }

    /// All entries.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    fn view(&self, height: u64) -> View {
        View::new(self.tree.clone(), Height::new(height).expect("a height of a chain"))
    }

    fn apply(&mut self, changes: &lockstep_app::Changes) {
        for (key, value) in changes.iter() {
            match value {
                Some(value) => drop(self.entries.insert(key.to_vec(), value.to_vec())),
                None => drop(self.entries.remove(&key[..])),
            }
        }
        self.tree.change(changes);
    }

    fn holds(&self, height: u64) -> Result<(), String> {
        self.invariant.as_ref().map_or(Ok(()), |invariant| invariant(height, &self.entries))
    }
}

impl Model for AppModel {
    fn root(&self) -> Hash {
        root_of(&self.entries)
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn execute(&mut self, next: &Next<'_>) -> Result<Modelled, String> {
        let Body { header, txs, last_commit, .. } = next.body;
        let is_ours = |tx: &&Vec<u8>| !tx.starts_with(NODE_TX);
        let ours: Vec<Tx> = txs.iter().filter(is_ours).cloned().map(Tx).collect();
        let participation = |(place, (address, power)): (usize, &([u8; 20], u64))| Participation {
            address: Address(*address),
            power: Power::new(*power).expect("a power of a set"),
            flag: match last_commit.as_ref().and_then(|commit| commit.slots.get(place)) {
                Some(Some(slot)) if slot.for_block => ParticipationFlag::Signed,
                Some(Some(_)) => ParticipationFlag::Nil,
                _ => ParticipationFlag::Absent,
            },
        };
        let input = BlockInput {
            chain_id: &self.chain_id,
            height: Height::new(header.height).expect("a height of a chain"),
            time: Time::new(header.time.seconds, header.time.nanos).ok_or("no time")?,
            block_hash: TypedHash(next.hash),
            proposer: Address(header.proposer),
            txs: &ours,
            last_commit: next.last_members.iter().enumerate().map(participation).collect(),
            misbehaviour: body_misbehaviour(next.body)?,
            parameters: &self.params,
        };
        let executed = self.app.execute(&self.view(header.height - 1), &input);
        executed.changes.check().map_err(|error| error.to_string())?;
        if executed.tx_results.len() != ours.len() {
            return Err(format!("{} results for {} transactions", executed.tx_results.len(), ours.len()));
        }
        self.apply(&executed.changes);
        let mut given = executed.tx_results.into_iter().map(|result| TxOutcome {
            code: result.code,
            data: result.data,
            gas_wanted: result.gas_wanted,
            gas_used: result.gas_used,
        });
        let refused = TxOutcome { code: 1, ..TxOutcome::default() };
        let results = txs.iter().map(|tx| if is_ours(&tx) { given.next().unwrap_or_default() } else { refused.clone() }).collect();
        self.holds(header.height)?;
        let params = executed.parameter_updates.map(|params| {
            let named = (params.block.max_bytes, params.block.max_gas);
            self.params = params;
            named
        });
        let updates = executed.validator_updates.iter().map(|one| (one.public_key.0, one.power.get())).collect();
        Ok(Modelled { results, updates, params })
    }
}
