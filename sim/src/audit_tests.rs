//! Memories that fail, one at a time and in a quiet network: each kind of damage is found within two heights, is healed bit for bit within
//! ten, and nobody else notices. That is what every run checks (I17); here each kind is seen to happen.

use lockstep_replica::planted::Planted;

use crate::coins;
use crate::disk::{Survival, When};
use crate::liars::{Byzantine, Lie};
use crate::plan::{MS, Plan};
use crate::schedule::{Damage, Fault, Timed};
use crate::subject::Subject;
use crate::world::{Report1, World};

const EACH: [Damage; 5] = [Damage::Entry, Damage::Lost, Damage::Own, Damage::Results, Damage::Standing];

fn at(ms: u64, fault: Fault) -> Timed {
    Timed { at_ns: ms * MS, fault }
}

fn diverge(ms: u64, node: usize, damage: Damage, lasts: bool, seed: u64) -> Timed {
    at(ms, Fault::Diverge { node, damage, lasts, seed })
}

fn plan() -> Plan {
    Plan { chaos: 700 * MS, settle_blocks: 10, divergences: true, tx_interval: 20 * MS, ..Plan::quiet() }
}

#[track_caller]
fn run(seed: u64, plan: Plan, faults: Vec<Timed>) -> Report1 {
    run_of(&Subject::default(), seed, plan, faults)
}

#[track_caller]
fn run_of(subject: &Subject, seed: u64, plan: Plan, faults: Vec<Timed>) -> Report1 {
    let what = format!("seed {seed}, {faults:?}");
    let outcome = World::of(subject, seed, plan, Planted::default(), None).following(faults).run().outcome;
    outcome.unwrap_or_else(|failure| panic!("{what}: {:?}", failure.violation))
}

/// Of each bundled application, and of what the node itself keeps beside it.
#[test]
fn each_damage_is_found_within_two_heights_and_healed() {
    for (damage, subject) in EACH.iter().flat_map(|damage| [(*damage, Subject::default()), (*damage, coins::subject())]) {
        for lasts in [false, true] {
            let (mut happened, mut healed, mut most_wrong) = (0, 0, 0);
            for seed in 1..=6 {
                let report = run_of(&subject, seed, plan(), vec![diverge(200 + 11 * seed, 0, damage, lasts, seed)]);
                happened += report.astray.0;
                healed += report.astray.1;
                most_wrong = most_wrong.max(report.most_wrong);
            }
            println!("{} {damage:?}, lasts {lasts}: {happened} happened, {healed} healed, {most_wrong} heights", subject.name());
            // What the next block overwrites is right again by itself.
            assert!(happened >= 5 && healed + 1 >= happened, "{damage:?}, lasts {lasts}: {happened} happened, {healed} were healed");
            assert!(most_wrong <= 2, "{damage:?}, lasts {lasts}: found after {most_wrong} heights");
        }
    }
}

/// The machine stops at every operation of its disk while the home is made right.
#[test]
fn a_crash_while_healing_heals_all_the_same() {
    let mut healed = 0;
    for after in 0..40 {
        let stop = Fault::DiskStop { node: 0, after, when: When::During, survival: Survival::Random, seed: after, down_ns: 20 * MS };
        let faults = vec![diverge(200, 0, Damage::Own, true, after), at(203, stop)];
        healed += run(after, Plan { disk_stops: true, ..plan() }, faults).astray.1;
    }
    assert!(healed > 20, "{healed} of 40 healed; the others lost it with the power");
}

/// A liar's statements are believed by nobody, alone or beside a state that is really wrong.
#[test]
fn false_statements_move_nobody() {
    for seed in 1..=10 {
        let byzantine = Byzantine::one(1, Lie::FalseStatements);
        let report = run(seed, Plan { byzantine: byzantine.clone(), ..plan() }, Vec::new());
        assert!(report.lies.told.contains_key("false statements"), "{:?}", report.lies);
        assert_eq!(report.astray, (0, 0));
        // Of seven, one lies and one is wrong.
        let powers = vec![10; 7];
        let report = run(seed, Plan { byzantine, powers, ..plan() }, vec![diverge(200, 0, Damage::Standing, false, seed)]);
        assert_eq!(report.astray, (1, 1), "it heals all the same");
    }
}

/// A crash of everybody in the middle.
#[test]
fn a_power_cut_takes_what_was_in_memory_and_leaves_what_was_written() {
    for seed in 1..=10 {
        let cut = Fault::PowerCut { survival: Survival::Random, seed, down_ns: vec![30 * MS; 4] };
        let lasts = seed.is_multiple_of(2);
        run(seed, plan(), vec![diverge(200, 0, Damage::Entry, lasts, seed), at(201 + 2 * seed, cut)]);
    }
}
