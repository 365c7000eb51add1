//! The files of new nodes. `node` draws the random bytes and writes the files; what is in them is decided here.

use lockstep_types::{Address, AppHash, ChainId, ConsensusParams, NodeId, Power, PrivateKey, Time};
use zeroize::Zeroizing;

use crate::genesis::{Genesis, GenesisDraft, GenesisValidator};
use crate::json::FieldError;
use crate::keys;

/// Where a home keeps its genesis, from the home's own folder.
pub const GENESIS_PATH: &str = "config/genesis.json";
/// Where a home keeps its validator key.
pub const VALIDATOR_KEY_PATH: &str = "config/priv_validator_key.json";
/// Where a home keeps its node key.
pub const NODE_KEY_PATH: &str = "config/node_key.json";

/// Letters and digits that a person cannot take for each other; 32 of them, so that each random byte gives one evenly.
const SUFFIX_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A name for a new chain, `lockstep-` and eight letters and digits, from eight random bytes. A validator that signs for
/// two chains of one name signs two votes of one domain, so names are never left to chance meetings.
pub fn random_chain_id(random: &[u8; 8]) -> ChainId {
    let suffix: String = random.iter().map(|byte| char::from(SUFFIX_ALPHABET[usize::from(byte & 31)])).collect();
    ChainId::new(&format!("lockstep-{suffix}")).expect("letters, digits and a dash, 17 in all")
}

/// A validator of a new network, with its secrets.
#[derive(Debug)]
pub struct Member {
    /// For people.
    pub name: String,
    /// Voting power.
    pub power: Power,
    /// The key it signs votes with.
    pub validator_key: PrivateKey,
    /// The key that names it on the network.
    pub node_key: PrivateKey,
}

impl Member {
    /// A member whose keys grow from 64 random bytes, half for each.
    pub fn new(name: impl Into<String>, power: Power, random: &Zeroizing<[u8; 64]>) -> Self {
        let mut seeds = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
        seeds[0].copy_from_slice(&random[..32]);
        seeds[1].copy_from_slice(&random[32..]);
        Self { name: name.into(), power, validator_key: PrivateKey::from_seed(&seeds[0]), node_key: PrivateKey::from_seed(&seeds[1]) }
    }

    /// Its validator address.
    pub fn address(&self) -> Address {
        self.validator_key.public_key().address()
    }

    /// Its name on the network.
    pub fn node_id(&self) -> NodeId {
        NodeId::of_key_bytes(&self.node_key.public_key().0)
    }
}

/// The genesis of a new network of these members.
///
/// # Errors
/// The first rule that is broken.
pub fn genesis(
    chain_id: ChainId,
    genesis_time: Time,
    consensus_params: ConsensusParams,
    members: &[Member],
    app_state: impl Into<String>,
) -> Result<Genesis, FieldError> {
    let validators = members
        .iter()
        .map(|member| GenesisValidator { public_key: member.validator_key.public_key(), power: member.power, name: member.name.clone() })
        .collect();
    GenesisDraft { genesis_time, chain_id, consensus_params, validators, app_hash: AppHash::default(), app_state: app_state.into() }.check()
}

/// A file of a new home.
#[derive(Debug)]
pub struct HomeFile {
    /// Where it goes, from the home's own folder.
    pub path: &'static str,
    /// What is in it. Wiped from memory when dropped.
    pub contents: Zeroizing<String>,
    /// Whether only the owner may read it.
    pub secret: bool,
}

/// The files of a member's home that this crate decides: genesis, validator key, node key.
pub fn files(genesis: &Genesis, member: &Member) -> [HomeFile; 3] {
    [
        HomeFile { path: GENESIS_PATH, contents: Zeroizing::new(genesis.to_json()), secret: false },
        HomeFile { path: VALIDATOR_KEY_PATH, contents: keys::validator_key_json(&member.validator_key), secret: true },
        HomeFile { path: NODE_KEY_PATH, contents: keys::node_key_json(&member.node_key), secret: true },
    ]
}
