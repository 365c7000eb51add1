//! The application again: the bundled one restated over a `BTreeMap`, and any other one executed from genesis on a fresh
//! instance, with a root that is computed from all entries.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_app::{Application, BlockInput, GenesisInput, Misbehaviour, MisbehaviourKind, Participation, ParticipationFlag, Tree, View};
use lockstep_genesis::Genesis;
use lockstep_types::{Address, ConsensusParams, Hash as TypedHash, Height, Power, Time, Tx, ValidatorUpdate};

use super::bytes::{Body, Hash};
use super::hashes::{SHARE_BITS, SHARES, TxOutcome, above, sha, state_leaf, subtree};
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

/// Entries and their root. Most of a state is the same from one block to the next: what a share of the tree hashes to, one share
/// for each first byte of a path, is kept until an entry of it changes.
#[derive(Debug, Clone)]
struct Rooted {
    entries: Entries,
    /// Hashes of the entries, by share and path.
    leaves: Vec<BTreeMap<Hash, Hash>>,
    roots: RefCell<Vec<Option<Hash>>>,
}

impl Rooted {
    fn new() -> Self {
        Self { entries: Entries::new(), leaves: vec![BTreeMap::new(); SHARES], roots: RefCell::new(vec![None; SHARES]) }
    }

    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let (path, leaf) = state_leaf(&key, &value);
        self.share(&path).insert(path, leaf);
        self.entries.insert(key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        let path = sha(&[key]);
        self.share(&path).remove(&path);
        self.entries.remove(key);
    }

    /// The leaves of a share, to be changed.
    fn share(&mut self, path: &Hash) -> &mut BTreeMap<Hash, Hash> {
        self.roots.get_mut()[usize::from(path[0])] = None;
        &mut self.leaves[usize::from(path[0])]
    }

    fn root(&self) -> Hash {
        let mut roots = self.roots.borrow_mut();
        let of = |(leaves, root): (&BTreeMap<Hash, Hash>, &mut Option<Hash>)| {
            let in_order = || leaves.iter().map(|(path, leaf)| (*path, *leaf)).collect::<Vec<_>>();
            (leaves.len(), *root.get_or_insert_with(|| subtree(&in_order(), SHARE_BITS)))
        };
        above(&self.leaves.iter().zip(&mut *roots).map(of).collect::<Vec<_>>())
    }
}

/// The key-value application on a chain whose validators nobody may change.
#[derive(Debug, Clone)]
pub struct KvModel {
    state: Rooted,
    executed: u64,
}

impl KvModel {
    /// After genesis with these validators.
    pub fn new(validators: &[([u8; 32], u64)]) -> Self {
        let mut state = Rooted::new();
        state.insert(b"kv:config".to_vec(), vec![0]);
        state.insert(b"kv:counters".to_vec(), vec![0; 16]);
        let count = u32::try_from(validators.len()).expect("sets are small");
        let power: u64 = validators.iter().map(|(_, power)| power).sum();
        state.insert(b"kv:validators".to_vec(), [&count.to_le_bytes()[..], &power.to_le_bytes()].concat());
        for (key, power) in validators {
            let address = &sha(&[key])[..20];
            state.insert([b"kv:validator/", address].concat(), [&key[..], &power.to_le_bytes()].concat());
        }
        Self { state, executed: 0 }
    }

    /// The value that a client reads under a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.state.entries.get(&[b"kv/", key].concat()).map(Vec::as_slice)
    }
}

impl Model for KvModel {
    fn root(&self) -> Hash {
        self.state.root()
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
                    self.state.insert([b"kv/", key].concat(), value.to_vec());
                    self.executed += 1;
                    0
                }
                _ => 2,
            };
            results.push(TxOutcome { code, ..TxOutcome::default() });
        }
        if self.executed > before {
            let counters = [self.executed.to_le_bytes(), next.body.header.height.to_le_bytes()].concat();
            self.state.insert(b"kv:counters".to_vec(), counters);
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
    state: Rooted,
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
            state: Rooted::new(),
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
        &self.state.entries
    }

    fn view(&self, height: u64) -> View {
        View::new(self.tree.clone(), Height::new(height).expect("a height of a chain"))
    }

    fn apply(&mut self, changes: &lockstep_app::Changes) {
        for (key, value) in changes.iter() {
            match value {
                Some(value) => self.state.insert(key.to_vec(), value.to_vec()),
                None => self.state.remove(&key[..]),
            }
        }
        self.tree.change(changes);
    }

    fn holds(&self, height: u64) -> Result<(), String> {
        self.invariant.as_ref().map_or(Ok(()), |invariant| invariant(height, &self.state.entries))
    }
}

impl Model for AppModel {
    fn root(&self) -> Hash {
        self.state.root()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::state_root;
    use crate::random::Stream;

    #[test]
    fn the_root_that_is_kept_is_that_of_all_entries() {
        let mut dice = Stream::new(1, "roots");
        let mut state = Rooted::new();
        // From nothing to two or three entries a share, and back.
        for (steps, inserted) in [(60, 500), (600, 900), (900, 100)] {
            for _ in 0..steps {
                let key = dice.below(700).to_le_bytes().to_vec();
                if dice.chance(inserted) {
                    state.insert(key, dice.bits().to_le_bytes().to_vec());
                } else {
                    state.remove(&key);
                }
                assert_eq!(state.root(), state_root(state.entries.iter().map(|(key, value)| (&key[..], &value[..]))));
            }
        }
        let keys: Vec<Vec<u8>> = state.entries.keys().cloned().collect();
        for key in keys {
            state.remove(&key);
            assert_eq!(state.root(), state_root(state.entries.iter().map(|(key, value)| (&key[..], &value[..]))));
        }
        assert_eq!(state.root(), [0; 32]);
    }
}
