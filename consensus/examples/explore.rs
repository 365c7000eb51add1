//! The model checker over a scope that is named, for hours if need be:
//!
//! ```text
//! cargo run --release -p lockstep-consensus --example explore -- byzantine=0 rounds=2 restarts=1 untimely bodies invalid healed=10 threads=2
//! ```
//!
//! Prints what was explored and ends with an error when something does not hold. `states=N` ends the search when so many were
//! seen, and says that it was not exhaustive.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a program that is run by hand: it takes words, measures and prints"
)]

#[path = "../tests/consensus/model/mod.rs"]
mod model;
#[path = "../tests/consensus/world.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::model::{Scope, Tendermint};

fn main() -> ExitCode {
    let (mut scope, mut threads, mut states, mut seconds) = (Scope::new(0, 2), 2, usize::MAX, u64::MAX);
    for word in std::env::args().skip(1) {
        let (key, value) = word.split_once('=').unwrap_or((&word, ""));
        let number = || value.parse::<u64>().unwrap_or_else(|_| panic!("{word}: not a number"));
        match key {
            "byzantine" => scope.byzantine = value.split(',').map(|who| who.parse().expect("an index")).collect(),
            "rounds" => scope.rounds = u32::try_from(number()).expect("few"),
            "restarts" => scope.restarts = u8::try_from(number()).expect("few"),
            "healed" => scope.healed = number(),
            "untimely" => scope.untimely = true,
            "bodies" => scope.bodies = true,
            "invalid" => scope.invalid = true,
            "threads" => threads = usize::try_from(number()).expect("few"),
            "states" => states = usize::try_from(number()).expect("a count"),
            "seconds" => seconds = number(),
            _ => panic!("nobody understands {word:?}"),
        }
    }
    println!("{scope:?}");
    let began = Instant::now();
    let mut builder = Tendermint::new(scope).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    if states < usize::MAX {
        builder = builder.target_state_count(states);
    }
    if seconds < u64::MAX {
        builder = builder.timeout(Duration::from_secs(seconds));
    }
    let checker = builder.spawn_bfs().join();
    let (unique, depth) = (checker.unique_state_count(), checker.max_depth());
    let whole = checker.is_done() && began.elapsed() < Duration::from_secs(seconds) && checker.state_count() < states;
    println!(
        "{unique} states ({} with repeats), depth {depth}, {:.1} minutes, {}",
        checker.state_count(),
        began.elapsed().as_secs_f64() / 60.0,
        if whole { "exhaustive" } else { "not exhaustive" }
    );
    let mut failed = false;
    for (name, path) in checker.discoveries() {
        let is_failure = checker.discovery_classification(name).to_string() == "counterexample";
        println!("{}: {name}", checker.discovery_classification(name));
        if is_failure {
            failed = true;
            println!("{path}");
        }
    }
    ExitCode::from(u8::from(failed))
}
