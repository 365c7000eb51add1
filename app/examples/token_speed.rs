//! Measures the token on one core: what a signed transfer costs where it meets a node. Alone on arrival; in a proposed block
//! whose transactions the node has not seen, and in one whose it has; executed.
//!
//! `cargo run --release -p lockstep-app --example token_speed [accounts]`

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement reads the clock and says what it found"
)]

use std::sync::Arc;
use std::time::Instant;

use lockstep_app::token::{Payment, Transfer};
use lockstep_app::{BlockInput, ChainFacts, CheckKind, GenesisInput, Host, Proposal, State, Token};
use lockstep_types::{
    Address, ChainId, ConsensusParams, Hash, Height, Power, PrivateKey, Signature, Time, Tx, ValidatorSet, ValidatorUpdate,
};

const GENESIS: Hash = Hash([7; 32]);

/// An account, and how many transactions it sent.
struct Owner {
    key: PrivateKey,
    address: Address,
    nonce: u64,
}

struct World {
    chain_id: ChainId,
    parameters: ConsensusParams,
    set: ValidatorSet,
    owners: Vec<Owner>,
    state: State,
    drawn: u64,
}

impl World {
    fn new(accounts: u64) -> Self {
        let owners: Vec<Owner> = (0..accounts)
            .map(|n| {
                let mut seed = [1; 32];
                seed[..8].copy_from_slice(&n.to_le_bytes());
                let key = PrivateKey::from_seed(&seed);
                Owner { address: key.public_key().address(), key, nonce: 0 }
            })
            .collect();
        let entries: Vec<String> = owners.iter().map(|owner| format!(r#"{{"address":"{}","balance":1000000}}"#, owner.address)).collect();
        let chain_id = ChainId::new("speed").expect("a chain id");
        let parameters = ConsensusParams::default();
        let public_key = PrivateKey::from_seed(&[9; 32]).public_key();
        let validators = [ValidatorUpdate { public_key, power: Power::new(1).expect("a power") }];
        let genesis = GenesisInput {
            chain_id: &chain_id,
            time: Time::ZERO,
            initial_height: Height::FIRST,
            validators: &validators,
            parameters: &parameters,
            genesis_hash: GENESIS,
            app_state: &format!(r#"{{"token":{{"accounts":[{}]}}}}"#, entries.join(",")),
        };
        let state = Host::new(Arc::new(Token::new())).init(&genesis).expect("a genesis").state;
        let set = ValidatorSet::new(&validators).expect("a set");
        Self { chain_id, parameters, set, owners, state, drawn: 1 }
    }

    /// An account, by SplitMix64.
    fn draw(&mut self) -> usize {
        self.drawn = self.drawn.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.drawn ^ (self.drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % self.owners.len() as u64).expect("an index")
    }

    fn transfer(&mut self) -> Tx {
        let (from, to) = (self.draw(), self.draw());
        let to = self.owners[to].address;
        let owner = &mut self.owners[from];
        let (nonce, public_key) = (owner.nonce, owner.key.public_key());
        owner.nonce += 1;
        let payments = vec![Payment { to, amount: 1 }];
        let transfer = Transfer { public_key, nonce, fee: 1, payments, memo: Vec::new(), signature: Signature([0; 64]) };
        Tx(transfer.signed(&owner.key, &self.chain_id, &GENESIS).encode())
    }

    fn block<'a>(&'a self, txs: &'a [Tx]) -> BlockInput<'a> {
        BlockInput {
            chain_id: &self.chain_id,
            height: self.state.height().next(),
            time: Time::ZERO,
            block_hash: Hash::of(b"block"),
            proposer: self.owners[0].address,
            txs,
            last_commit: Vec::new(),
            misbehaviour: Vec::new(),
            parameters: &self.parameters,
        }
    }
}

/// Transactions a second, over all blocks of a size.
#[derive(Default)]
struct Seconds {
    arrival: f64,
    unseen: f64,
    seen: f64,
    executed: f64,
}

fn timed<T>(seconds: &mut f64, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let answer = run();
    *seconds += start.elapsed().as_secs_f64();
    answer
}

fn main() {
    let accounts: u64 = std::env::args().nth(1).map_or(100_000, |text| text.parse().expect("a number of accounts"));
    let mut world = World::new(accounts);
    println!("{accounts} accounts, transactions of 151 bytes, each second per core");
    println!("| block | check_tx, one by one | process_proposal, unseen | process_proposal, seen | execute, seen |");
    println!("|---|---|---|---|---|");
    for (size, blocks) in [(1_000, 20), (10_000, 4)] {
        let mut seconds = Seconds::default();
        for _ in 0..blocks {
            let txs: Vec<Tx> = (0..size).map(|_| world.transfer()).collect();
            let block = world.block(&txs);
            let arrivals = Host::new(Arc::new(Token::new()));
            timed(&mut seconds.arrival, || {
                assert!(txs.iter().all(|tx| arrivals.check_tx(&world.state, &tx.0, CheckKind::New).is_ok()));
            });
            let host = Host::new(Arc::new(Token::new()));
            for seconds in [&mut seconds.unseen, &mut seconds.seen] {
                let answer = timed(seconds, || host.process_proposal(&world.state, &block));
                assert_eq!(answer, Proposal::Accept);
            }
            let facts = ChainFacts { last_validators: &world.set, validators: &world.set, next_validators: &world.set, evidence: &[] };
            let executed = timed(&mut seconds.executed, || host.execute(world.state.clone(), &block, facts).expect("executes"));
            assert!(executed.tx_results.iter().all(|result| result.code == 0));
            drop(block);
            world.state = executed.state;
        }
        let each = |seconds: f64| format!("{:.0}", f64::from(size * blocks) / seconds);
        let Seconds { arrival, unseen, seen, executed } = seconds;
        println!("| {size} | {} | {} | {} | {} |", each(arrival), each(unseen), each(seen), each(executed));
    }
}
