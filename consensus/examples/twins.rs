//! Every scenario of twins in a scope that is named, and the planted bugs that are seen in it:
//!
//! ```text
//! cargo run --release -p lockstep-consensus --example twins -- rounds=2 gossip
//! cargo run --release -p lockstep-consensus --example twins -- rounds=2 gossip planted
//! ```
//!
//! `whole` cuts once in a round and not in each of its phases. Prints what was counted and ends with an error when something does
//! not hold.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "a program that is run by hand: it takes words, measures and prints"
)]

#[path = "../tests/consensus/twins.rs"]
mod twins;
#[path = "../tests/consensus/world.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod world;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

use lockstep_consensus::planted::{Bug, Planted};

use crate::twins::{Scope, enumerate};

/// Every bug that can be planted in the core.
const BUGS: [Bug; 23] = [
    Bug::QuorumAtTwoThirds,
    Bug::NilCounted,
    Bug::FirstVoteOnly,
    Bug::DuplicateCountedTwice,
    Bug::NoPolkaCheck,
    Bug::LockIgnored,
    Bug::StaleTimer,
    Bug::TimelinessInValid,
    Bug::SkipPerStep,
    Bug::PolkaBlindToValidRound,
    Bug::EarlyPolkaForgotten,
    Bug::OlderPolkaReleases,
    Bug::LateValidIgnored,
    Bug::HeadsCounted,
    Bug::ValidRoundUnsaid,
    Bug::ProposeTimerStopped,
    Bug::SkipOnOne,
    Bug::PrevotesMustAgree,
    Bug::PrecommitsMustAgree,
    Bug::NilPolkaReleases,
    Bug::DecidesInOwnRoundOnly,
    Bug::NoTimerAfterRestart,
    Bug::AlwaysTimely,
];

fn main() -> ExitCode {
    let mut scope = Scope { rounds: 2, gossip: false, whole_rounds: false, planted: Planted::default() };
    let mut is_planted = false;
    for word in std::env::args().skip(1) {
        match word.split_once('=').unwrap_or((&word, "")) {
            ("rounds", rounds) => scope.rounds = rounds.parse().expect("a number"),
            ("gossip", _) => scope.gossip = true,
            ("whole", _) => scope.whole_rounds = true,
            ("planted", _) => is_planted = true,
            _ => panic!("nobody understands {word:?}"),
        }
    }
    if is_planted {
        std::panic::set_hook(Box::new(|_| {}));
        for bug in BUGS {
            let began = Instant::now();
            let seen = (0..4).find_map(|twin| {
                let run = || enumerate(twin, Scope { planted: Planted::default().with(bug), ..scope });
                match catch_unwind(run) {
                    Ok(found) => found.broken,
                    Err(_) => Some(format!("twin of {twin}: the core breaks its own promise")),
                }
            });
            println!("{bug:?} ({:.1} s): {}", began.elapsed().as_secs_f64(), seen.as_deref().unwrap_or("not seen"));
        }
        return ExitCode::SUCCESS;
    }
    let (mut failed, mut scenarios) = (false, 0);
    for twin in 0..4 {
        let began = Instant::now();
        let found = enumerate(twin, scope);
        println!("twin of {twin}, {:.1} s: {found:?}", began.elapsed().as_secs_f64());
        failed |= found.broken.is_some();
        scenarios += found.scenarios;
    }
    println!("{scenarios} scenarios");
    ExitCode::from(u8::from(failed))
}
