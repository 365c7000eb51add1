//! Measures the state tree on one core: bulk build, then updates of random keys in batches, in place and with the version
//! before each batch kept as a reader would keep it; then whole blocks of the key-value application.
//!
//! `cargo run --release -p lockstep-app --example tree_speed [entries]`

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement reads the clock and says what it found"
)]

use std::sync::Arc;
use std::time::Instant;

use lockstep_app::{BlockInput, ChainFacts, Changes, GenesisInput, Host, Kv, Tree};
use lockstep_types::{ChainId, ConsensusParams, Hash, Height, Power, PrivateKey, Time, Tx, ValidatorSet, ValidatorUpdate};

/// Keys as an application has them, 32 bytes; values of 100, as in the figures this is compared with.
const VALUE_BYTES: usize = 100;

struct Numbers(u64);

impl Numbers {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn key(n: u64) -> Arc<[u8]> {
    format!("{n:032}").into_bytes().into()
}

fn value(n: u64) -> Arc<[u8]> {
    let mut value = [7; VALUE_BYTES];
    value[..8].copy_from_slice(&n.to_le_bytes());
    Arc::from(value)
}

/// Blocks of `key=value` transactions of 256 bytes, executed by the bundled application on the same state.
fn kv_blocks(entries: u64, numbers: &mut Numbers) {
    let chain_id = ChainId::new("speed").expect("a chain id");
    let parameters = ConsensusParams::default();
    let public_key = PrivateKey::from_seed(&[1; 32]).public_key();
    let validators = [ValidatorUpdate { public_key, power: Power::new(1).expect("a power") }];
    let genesis = GenesisInput {
        chain_id: &chain_id,
        time: Time::ZERO,
        initial_height: Height::FIRST,
        validators: &validators,
        parameters: &parameters,
        genesis_hash: Hash::of(b"genesis"),
        app_state: "{}",
    };
    let host = Host::new(Arc::new(Kv));
    let set = ValidatorSet::new(&validators).expect("a set");
    let mut state = host.init(&genesis).expect("a genesis").state;
    let transaction = |numbers: &mut Numbers| Tx(format!("{:032}={:0223}", numbers.next() % entries, numbers.next()).into_bytes());
    for (txs, blocks) in [(50_000, 20), (1000, 100), (10_000, 20)] {
        let mut seconds = 0.0;
        for _ in 0..blocks {
            let list: Vec<Tx> = (0..txs).map(|_| transaction(numbers)).collect();
            let block = BlockInput {
                chain_id: &chain_id,
                height: state.height().next(),
                time: Time::ZERO,
                block_hash: Hash::of(b"block"),
                proposer: public_key.address(),
                txs: &list,
                last_commit: Vec::new(),
                misbehaviour: Vec::new(),
                parameters: &parameters,
            };
            let before = state.clone();
            let start = Instant::now();
            let executed = host
                .execute(state, &block, ChainFacts { last_validators: &set, validators: &set, next_validators: &set, evidence: &[] })
                .expect("executes");
            seconds += start.elapsed().as_secs_f64();
            state = executed.state;
            drop(before);
        }
        let speed = f64::from(txs * blocks) / seconds;
        println!("kv, blocks of {txs:>6} on {:>7} entries: {speed:>6.0} transactions/s", state.tree().len());
    }
}

fn main() {
    let entries: u64 = std::env::args().nth(1).map_or(1_000_000, |text| text.parse().expect("a number of entries"));
    let all: Vec<_> = (0..entries).map(|n| (key(n), value(n))).collect();
    let start = Instant::now();
    let mut tree = Tree::from_entries(all.clone());
    println!("build, unsorted:        {:>9.0} entries/s", entries as f64 / start.elapsed().as_secs_f64());
    let sorted: Vec<_> = tree.iter().map(|(key, value)| (Arc::from(&key[..]), Arc::from(&value[..]))).collect();
    let start = Instant::now();
    let rebuilt = Tree::from_entries(sorted);
    println!("build, in path order:   {:>9.0} entries/s", entries as f64 / start.elapsed().as_secs_f64());
    assert_eq!(tree.root(), rebuilt.root());
    drop(rebuilt);

    let mut numbers = Numbers(1);
    for batch in [1000, 10_000] {
        let mut seconds = 0.0;
        for _ in 0..100 {
            let changes: Changes = (0..batch).map(|_| (key(numbers.next() % entries), Some(value(numbers.next())))).collect();
            let start = Instant::now();
            tree.change(&changes);
            seconds += start.elapsed().as_secs_f64();
        }
        println!("in place, batches of {batch:>6}: {:>6.0} entries/s", f64::from(100 * batch) / seconds);
    }
    for batch in [100, 1000, 10_000, 100_000] {
        let rounds = (300_000 / batch).max(3);
        let mut before = tree.clone();
        let mut seconds = 0.0;
        for _ in 0..rounds {
            // As execution leaves them: just made.
            let changes: Changes = (0..batch).map(|_| (key(numbers.next() % entries), Some(value(numbers.next())))).collect();
            let start = Instant::now();
            let after = tree.apply(&changes);
            before = std::mem::replace(&mut tree, after);
            seconds += start.elapsed().as_secs_f64();
        }
        drop(before);
        println!("update, batches of {batch:>6}: {:>7.0} entries/s", (rounds * batch) as f64 / seconds);
    }
    drop(tree);
    kv_blocks(entries, &mut numbers);
}
