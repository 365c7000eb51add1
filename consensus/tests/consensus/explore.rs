//! What the model checker explores for every change; larger scopes are those of `consensus/examples/explore.rs`.

use lockstep_consensus::planted::{Bug, Planted};
use stateright::{Checker, HasDiscoveries, Model, UniformChooser};

use crate::model::{NODES, Scope, Tendermint};

/// Every behaviour in a scope. The count of states shows that the bounds are those that were meant.
fn explore(scope: Scope, states: usize) {
    let told = format!("{scope:?}");
    let checker = Tendermint::new(scope).checker().threads(2).spawn_bfs().join();
    assert!(checker.is_done());
    checker.assert_properties();
    assert_eq!(checker.unique_state_count(), states, "{told}");
}

#[test]
fn one_round_with_every_byzantine_validator() {
    explore(Scope::new(0, 1), 473);
    for byzantine in [1, 2, 3] {
        explore(Scope::new(byzantine, 1), 249);
    }
}

#[test]
fn two_rounds_with_a_byzantine_first_proposer() {
    explore(Scope::new(0, 2), 167_967);
}

#[test]
fn two_rounds_with_a_byzantine_second_proposer() {
    explore(Scope::new(1, 2), 195_482);
}

/// Validators 2 and 3 propose in neither round, so one stands for both.
#[test]
fn two_rounds_with_a_byzantine_voter() {
    explore(Scope::new(2, 2), 65_217);
}

/// One round with everything else that a scope has.
#[test]
fn one_round_with_late_bodies_untimely_and_invalid_proposals_and_restarts() {
    let scope = |byzantine| Scope { restarts: 2, untimely: true, bodies: true, invalid: true, ..Scope::new(byzantine, 1) };
    explore(scope(0), 74_962);
    explore(scope(1), 15_641);
}

/// Three rounds are too many for every change, so paths through them are drawn.
#[test]
fn three_rounds_along_drawn_paths() {
    for byzantine in 0..NODES {
        let model = Tendermint::new(Scope { restarts: 1, ..Scope::new(byzantine, 3) });
        let checker =
            model.checker().target_state_count(30_000).spawn_simulation(u64::try_from(byzantine).expect("small"), UniformChooser).join();
        for property in ["agreement", "can still decide", "a lock binds", "validity", "a valid round has its polka"] {
            checker.assert_no_discovery(property);
        }
        checker.assert_any_discovery("all decide in the last round");
        checker.assert_any_discovery("a lock moves");
    }
}

/// With two of four the validators fork, and what the others hold convicts both and nobody else.
#[test]
fn a_fork_convicts_those_who_made_it() {
    for byzantine in [[0, 1], [0, 2], [1, 2], [2, 3]] {
        let scope = Scope { byzantine: byzantine.to_vec(), ..Scope::new(0, 2) };
        let checker = Tendermint::new(scope).checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
    }
}

/// The model sees a core that lets go of its lock, in votes for new values and by a polka that was never shown.
#[test]
fn a_planted_bug_is_seen() {
    for (bug, property) in
        [(Bug::LockIgnored, "agreement"), (Bug::NoPolkaCheck, "agreement"), (Bug::NoPolkaCheck, "a valid round has its polka")]
    {
        let model = Tendermint::new(Scope { planted: Planted::default().with(bug), ..Scope::new(1, 2) });
        let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
        assert!(checker.discoveries().contains_key(property), "{bug:?}: {property}");
    }
}
