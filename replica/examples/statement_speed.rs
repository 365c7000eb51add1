//! What a statement costs: its digest, its signature, its bytes. `cargo run --release -p lockstep-replica --example statement_speed`

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement reads the clock and says what it found"
)]

use std::sync::Arc;
use std::time::Instant;

use lockstep_app::Standing;
use lockstep_genesis::{Genesis, GenesisDraft, GenesisValidator};
use lockstep_replica::ChainState;
use lockstep_replica::wire::Message;
use lockstep_types::audit::SignedStatement;
use lockstep_types::{AppHash, ChainId, ConsensusParams, Hash, Height, Power, PrivateKey, Time, ValidatorUpdate};

const ROUNDS: u32 = 20_000;

fn key(n: u32) -> PrivateKey {
    PrivateKey::from_seed(&Hash::of(n.to_le_bytes()).0)
}

fn chain(validators: u32) -> (Genesis, ChainState) {
    let power = Power::new(10).expect("small");
    let named = (0..validators).map(|n| GenesisValidator { public_key: key(n).public_key(), power, name: String::new() }).collect();
    let draft = GenesisDraft {
        genesis_time: Time::from_unix_nanos(1_767_409_445_000_000_000),
        chain_id: ChainId::new("speed").expect("it follows the rule"),
        consensus_params: ConsensusParams::default(),
        validators: named,
        app_hash: AppHash::default(),
        app_state: "{}".into(),
    };
    let genesis = draft.check().expect("it follows the rules");
    let updates: Vec<ValidatorUpdate> = (0..validators).map(|n| ValidatorUpdate { public_key: key(n).public_key(), power }).collect();
    let set = lockstep_types::ValidatorSet::new(&updates).expect("a set");
    let standing = Standing::genesis(&set, Height::ZERO);
    let root = AppHash::from(Hash::of("root"));
    let chain = ChainState::genesis(&genesis, set, ConsensusParams::default(), root, 1, Arc::new(standing)).expect("a chain");
    (genesis, chain)
}

fn main() {
    for validators in [4, 100] {
        let (genesis, chain) = chain(validators);
        let began = Instant::now();
        for _ in 0..ROUNDS {
            std::hint::black_box(chain.statement());
        }
        let digest = began.elapsed() / ROUNDS;
        let statement = chain.statement();
        let bytes = statement.sign_bytes(&genesis.chain_id, &genesis.hash());
        let began = Instant::now();
        for _ in 0..ROUNDS {
            std::hint::black_box(key(0).sign(&bytes));
        }
        let signing = began.elapsed() / ROUNDS;
        let began = Instant::now();
        for _ in 0..ROUNDS {
            std::hint::black_box(key(0));
        }
        let signing = signing.saturating_sub(began.elapsed() / ROUNDS);
        let signed = SignedStatement { statement, validator: key(0).public_key().address(), signature: key(0).sign(&bytes) };
        let message = Message::Statement(signed).encode().len();
        println!("{validators} validators: digest {digest:?}, signature {signing:?}, message {message} bytes");
    }
}
