//! Genesis and key files: what is read, what is refused and how it is said, what is written, and the bytes that are
//! frozen.

mod accepted;
mod hash;
mod home;
mod keys;
mod refused;
mod refused_params;

use lockstep_types::{AppHash, ConsensusParams, Power, PrivateKey, PublicKey};

use lockstep_genesis::{Genesis, GenesisDraft, GenesisValidator};

/// Key number `n`: its seed is the byte `n` 32 times, as in the vectors of `lockstep-types`.
fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed(&[n; 32])
}

fn public(n: u8) -> PublicKey {
    key(n).public_key()
}

/// Four validators of power 10, everything else by default.
fn draft() -> GenesisDraft {
    GenesisDraft {
        genesis_time: "2026-01-02T03:04:05.000000006Z".parse().unwrap(),
        chain_id: lockstep_types::ChainId::new("test-chain").unwrap(),
        consensus_params: ConsensusParams::default(),
        validators: (1..=4)
            .map(|n| GenesisValidator { public_key: public(n), power: Power::new(10).unwrap(), name: format!("node{}", n - 1) })
            .collect(),
        app_hash: AppHash::default(),
        app_state: r#"{"accounts": [ {"name": "a b", "coins": 1.50} ]}"#.into(),
    }
}

fn genesis() -> Genesis {
    draft().check().unwrap()
}
