//! Snapshots that are sound in themselves, and of another state than the chain's.

use std::sync::Arc;

use super::chain::{Chain, h};
use super::peers::{Kind, Peer};
use super::{Join, Joined};
use crate::crypto::Crypto;

/// For each snapshot.
const SEEDS: u64 = 6;

/// Priorities of either set and parameters, each in a state of its own with chunks and manifest of its own: many say so, fast, and one says the truth
/// slowly. Only what a certified header names is restored.
#[test]
fn attack_62_priorities_and_parameters_are_those_that_the_header_certifies() {
    let chain = Arc::new(Chain::make(&mut Crypto::new(false)));
    let heights: Vec<_> = chain.snapshots.keys().copied().collect();
    assert!(heights.len() >= 3, "each thing is forged once");
    let mut joined = Joined::default();
    for height in heights {
        assert_ne!(chain.forged[&height].manifest, chain.snapshots[&height].manifest, "another state");
        // Headers below a snapshot are asked for, too.
        let base = h(height.get().saturating_sub(12).max(1));
        for seed in 0..SEEDS {
            let mut join = Join::new(&chain, seed);
            join.machine = crate::node::Machine::new(None, 0, chain.genesis.hash(), true);
            join.crashes_left = 0;
            join.policy.root = Some((height.next(), chain.hash_of(height.next())));
            join.peers = (0..3).map(|_| Peer::new(&chain, Kind::OtherState, base, 1, &[height])).collect();
            join.peers.push(Peer::new(&chain, Kind::Honest, base, 300, &[height]));
            // It ends with the chain's own state in every respect: `has_joined`.
            join.run(&mut joined).unwrap_or_else(|broken| panic!("height {height}, seed {seed}: {broken}"));
        }
    }
    assert!(joined.installed >= 3 * SEEDS && joined.left >= joined.installed, "who forged is found out: {joined:?}");
}
