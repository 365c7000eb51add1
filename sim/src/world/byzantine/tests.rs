//! Every lie is told, and what honest nodes do about each is counted.

use std::collections::BTreeMap;

use lockstep_replica::planted::Planted;

use crate::liars::{Budget, Byzantine, Lie, Lies};
use crate::plan::{MS, Plan};
use crate::world::World;

/// Seeds for each lie alone: each of four nodes tells it twice.
const SEEDS_EACH: u64 = 8;

/// Runs that hold, and what their liars did.
fn lies_of(plans: impl Iterator<Item = (u64, Plan)>) -> Lies {
    let mut lies = Lies::default();
    for (seed, plan) in plans {
        let ran = World::new(seed, plan, Planted::default(), None).run();
        let report = ran.outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure:?}"));
        lies.add(&report.lies);
    }
    lies
}

/// Four validators of which one lies, over a network that loses a little, and machines that crash in every other seed.
fn alone(lie: Lie) -> impl Iterator<Item = (u64, Plan)> {
    (0..SEEDS_EACH).map(move |seed| {
        let node = usize::try_from(seed % 4).expect("small");
        let byzantine = Byzantine { bans: seed % 4 == 3, ..Byzantine::one(node, lie) };
        let plan = Plan {
            followers: 1,
            chaos: 4_000 * MS,
            loss: 60,
            crashes: seed % 2 == 1,
            partitions: seed % 2 == 1,
            crash_interval_ms: 800,
            settle_blocks: 5,
            byzantine,
            ..Plan::quiet()
        };
        (seed, plan)
    })
}

#[test]
fn each_lie_is_told_and_answered() {
    let mut of: BTreeMap<Lie, Lies> = BTreeMap::new();
    for lie in Lie::ALL {
        let lies = lies_of(alone(lie));
        let told = lies.told.get(lie.name()).copied().unwrap_or(0);
        println!(
            "{:<22} told {told:>6}  refused {:>5}  thrown out {:>4}  kept out {:>3}  accused {:>5}  proven {:>5}  rounds above 0 {:>4}",
            lie.name(),
            lies.refused,
            lies.expelled,
            lies.banned,
            lies.accused,
            lies.proven,
            lies.rounds
        );
        of.insert(lie, lies);
    }
    for (lie, lies) in &of {
        assert!(lies.told.get(lie.name()).copied().unwrap_or(0) > 0, "{} is never told", lie.name());
    }
    // Who signs two things for one place is told of.
    for lie in [Lie::Equivocate, Lie::TwoBlocks, Lie::Echo] {
        assert!(of[&lie].accused > 0, "{} is not found out", lie.name());
    }
    // And a block says so; as it does of who makes true evidence against itself.
    for lie in [Lie::Equivocate, Lie::TwoBlocks, Lie::Echo, Lie::ForgeEvidence, Lie::HideEvidence] {
        assert!(of[&lie].proven > 0, "no block accuses who tells {}", lie.name());
    }
    // What proves its sender wrong ends its connection.
    for lie in [
        Lie::BadSignature,
        Lie::RawBytes,
        Lie::ForgeParts,
        Lie::ForgeCertificates,
        Lie::Extremes,
        Lie::Mutate,
        Lie::WrongAnswers,
        Lie::ForgeEvidence,
    ] {
        assert!(of[&lie].refused > 0 && of[&lie].expelled > 0, "{} is not refused", lie.name());
        assert!(of[&lie].banned > 0 || lie == Lie::WrongAnswers, "{} is not kept out", lie.name());
    }
    // What proves nothing costs nobody a connection.
    for lie in
        [Lie::Withhold, Lie::NilOnly, Lie::LastMoment, Lie::LateProposal, Lie::HidePolka, Lie::HideParts, Lie::SlowAnswers, Lie::Replay]
    {
        assert_eq!(of[&lie].expelled, 0, "{} is no proof of anything", lie.name());
    }
}

#[test]
fn liars_within_a_third_break_nothing_and_leave_no_lie_out() {
    let lies = lies_of((0..200).map(|seed| (seed, Plan::draw_within(seed, Some(Budget::Safe)))));
    for (what, times) in &lies.told {
        println!("{what:<50} {times:>7}");
    }
    for lie in Lie::ALL {
        assert!(lies.told.get(lie.name()).copied().unwrap_or(0) > 0, "{} is never told", lie.name());
    }
    assert_eq!(lies.forks, 0);
}

#[test]
fn a_cabal_forks_the_chain_and_is_named() {
    let lies = lies_of((0..200).map(|seed| (seed, Plan::draw_within(seed, Some(Budget::Over)))));
    println!("{lies:?}");
    assert!(lies.forks >= 40, "{} of 200 runs fork: a cabal that cannot is no test", lies.forks);
    assert!(lies.forks_by_amnesia > 0, "{} forks without a double signature", lies.forks_by_amnesia);
    assert!(lies.least_named > Some(333) && lies.least_named_by_logs > Some(333), "more than a third, each time");
}

#[test]
fn one_honest_source_is_enough_among_liars() {
    let lies = lies_of((0..100).map(|seed| (seed, Plan::draw_within(seed, Some(Budget::Sync)))));
    println!("{lies:?}");
    for lie in [Lie::WrongAnswers, Lie::PoisonHeights, Lie::SlowAnswers] {
        assert!(lies.told.get(lie.name()).copied().unwrap_or(0) > 50, "{} is seldom told", lie.name());
    }
    let wrong = lies.told.keys().filter(|what| what.starts_with("sync: ")).count();
    assert!(wrong >= 10, "{wrong} ways to answer wrongly");
}
