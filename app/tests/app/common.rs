//! What several stories need.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_app::{
    Application, BlockInput, ChainFacts, Changes, GenesisInput, Host, InitializedChain, Misbehaviour, MisbehaviourKind, Tree,
};
use lockstep_types::{Address, ChainId, ConsensusParams, Hash, Height, Power, PrivateKey, Time, Tx, ValidatorSet, ValidatorUpdate};

/// Keys and values, as a test writes them.
pub(crate) type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) fn tree_of(entries: &Entries) -> Tree {
    Tree::from_entries(entries.iter().map(|(key, value)| (Arc::from(&key[..]), Arc::from(&value[..]))))
}

pub(crate) fn changes_of(list: &[(Vec<u8>, Option<Vec<u8>>)]) -> Changes {
    list.iter().map(|(key, value)| (Arc::from(&key[..]), value.as_ref().map(|value| Arc::from(&value[..])))).collect()
}

/// `count` entries with keys that tell them apart.
pub(crate) fn numbered(count: u32) -> Entries {
    (0..count).map(|n| (format!("key {n}").into_bytes(), format!("value {n}").into_bytes())).collect()
}

pub(crate) fn validator(seed: u8, power: u64) -> ValidatorUpdate {
    ValidatorUpdate { public_key: PrivateKey::from_seed(&[seed; 32]).public_key(), power: Power::new(power).expect("a power") }
}

pub(crate) fn height(n: u64) -> Height {
    Height::new(n).expect("a height")
}

pub(crate) fn txs(list: &[&str]) -> Vec<Tx> {
    list.iter().map(|text| Tx(text.as_bytes().to_vec())).collect()
}

pub(crate) fn culprit(address: Address) -> Misbehaviour {
    Misbehaviour {
        kind: MisbehaviourKind::DuplicateVote,
        address,
        power: Power::new(1).expect("a power"),
        height: height(1),
        time: Time::ZERO,
        total_power: Power::new(4).expect("a power"),
    }
}

/// What stays the same over a test's chain.
pub(crate) struct Chain {
    pub(crate) id: ChainId,
    pub(crate) parameters: ConsensusParams,
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self { id: ChainId::new("test").expect("a chain id"), parameters: ConsensusParams::default() }
    }

    pub(crate) fn init(&self, app: impl Application, app_state: &str, validators: &[ValidatorUpdate]) -> (Host, InitializedChain) {
        let host = Host::new(Arc::new(app));
        let initialized = host.init(&self.genesis(app_state, validators)).expect("a genesis that fits");
        (host, initialized)
    }

    pub(crate) fn genesis<'a>(&'a self, app_state: &'a str, validators: &'a [ValidatorUpdate]) -> GenesisInput<'a> {
        GenesisInput {
            chain_id: &self.id,
            time: Time::ZERO,
            initial_height: Height::FIRST,
            validators,
            parameters: &self.parameters,
            genesis_hash: Hash::of(b"genesis"),
            app_state,
        }
    }

    /// A chain whose set does not change.
    pub(crate) fn facts(set: &ValidatorSet) -> ChainFacts<'_> {
        ChainFacts { last_validators: set, validators: set, next_validators: set, evidence: &[] }
    }

    pub(crate) fn block<'a>(&'a self, at: u64, txs: &'a [Tx]) -> BlockInput<'a> {
        BlockInput {
            chain_id: &self.id,
            height: height(at),
            time: Time::ZERO,
            block_hash: Hash::of(at.to_le_bytes()),
            proposer: Address([0; 20]),
            txs,
            last_commit: Vec::new(),
            misbehaviour: Vec::new(),
            parameters: &self.parameters,
        }
    }
}
