//! Whatever is asked of membership, its rules hold: a random walk, judged by a naive model.

use std::collections::BTreeMap;

use lockstep_types::Address;
use lockstep_types::quorum::Quorum;
use proptest::prelude::*;

use super::common::culprit;
use super::town::{Town, address, four, power};

/// What somebody asks in the walk below.
#[derive(Debug, Clone)]
enum Ask {
    Join(u8, u64),
    Quit(u8),
    Rotate(u8, u8),
    Evidence(u8),
    Absent(u8),
    Back(u8),
    Blocks(u8),
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (1..12u8, 1..20u64).prop_map(|(who, power)| Ask::Join(who, power)),
        3 => (1..12u8).prop_map(Ask::Quit),
        1 => (1..12u8, 12..20u8).prop_map(|(old, new)| Ask::Rotate(old, new)),
        1 => (1..12u8).prop_map(Ask::Evidence),
        1 => (1..12u8).prop_map(Ask::Absent),
        2 => (1..12u8).prop_map(Ask::Back),
        4 => (1..20u8).prop_map(Ask::Blocks),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever is asked: each list is one that the set takes (the harness applies it), no set is empty, over any window at
    /// most a third of the power moves unless it is that of one, or evidence's; each set that is granted has more than two thirds of
    /// its power with those who signed lately; and what a block does is done again alike.
    #[test]
    fn whatever_is_asked_the_rules_hold(asks in prop::collection::vec(ask(), 1..60), (live, absence) in prop_oneof![Just((4, 9)), Just((60, 90))]) {
        const WINDOW: u64 = 12;
        let group = format!(r#"{{"admission":"open","power_window":{WINDOW},"live_window":{live},"absence_window":{absence}}}"#);
        let mut town = Town::new(&group, &four());
        town.blocks(1);
        let mut exempt = Vec::new();
        for ask in asks {
            // More than two thirds are there, or no block would be decided.
            let there = |town: &Town| {
                let set = &town.sets[1];
                let there: u64 = set.iter().filter(|v| !town.is_absent(&v.address)).map(|v| v.power.get()).sum();
                Quorum::Byzantine.is_quorum(power(there), set.total_power())
            };
            let txs = match ask {
                Ask::Join(who, asks) => vec![town.join(who, asks)],
                Ask::Quit(who) => vec![town.quit(who, who)],
                Ask::Rotate(old, new) => vec![town.rotate(old, new, town.has(old).unwrap_or(1))],
                Ask::Evidence(who) => {
                    // Those whom others' evidence left in the set may all be away.
                    while !there(&town) {
                        town.absent.pop();
                    }
                    exempt.push(town.state.height().next().get());
                    drop(town.block(&[], &[culprit(address(who))]));
                    continue;
                }
                Ask::Absent(who) => {
                    town.absent.push(who);
                    if !there(&town) {
                        town.absent.pop();
                    }
                    continue;
                }
                Ask::Back(who) => {
                    town.absent.retain(|absent| *absent != who);
                    continue;
                }
                Ask::Blocks(count) => {
                    for _ in 0..count {
                        while !there(&town) {
                            town.absent.pop();
                        }
                        town.blocks(1);
                    }
                    continue;
                }
            };
            while !there(&town) {
                town.absent.pop();
            }
            drop(town.block(&txs, &[]));
        }
        // A naive model of both rules, over the lists and the commits alone.
        let mut seen: BTreeMap<Address, u64> = (1..=4).map(|seed| (address(seed), 0)).collect();
        let mut set: BTreeMap<Address, u64> = (1..=4).map(|seed| (address(seed), 10)).collect();
        let mut moves: Vec<(u64, u64, u64, u64)> = Vec::new();
        for (at, list) in &town.updates {
            seen.extend(town.signers[at].iter().map(|signer| (*signer, at - 1)));
            let (before, mut gained, mut lost) = (set.values().sum::<u64>(), 0, 0);
            let largest = set.values().copied().max().expect("never empty");
            for update in list {
                let had = set.get(&update.public_key.address()).copied().unwrap_or(0);
                gained += update.power.get().saturating_sub(had);
                lost += had.saturating_sub(update.power.get());
                match update.power.get() {
                    0 => drop(set.remove(&update.public_key.address())),
                    power => drop(set.insert(update.public_key.address(), power)),
                }
                // Who comes is counted on from when its power acts.
                seen.insert(update.public_key.address(), at + 2);
            }
            prop_assert!(!set.is_empty());
            if !list.is_empty() && !exempt.contains(at) {
                let is_live = |address: &Address| seen[address] + u64::min(live, 20) >= *at;
                let there: u64 = set.iter().filter(|(address, _)| is_live(address)).map(|(_, power)| power).sum();
                let all: u64 = set.values().sum();
                prop_assert!(3 * there > 2 * all, "height {at}: {there} of {all} signed lately");
            }
            if !list.is_empty() {
                moves.push((*at, before, gained.max(lost), largest));
            }
        }
        for (last, (at, before, moved, largest)) in moves.iter().enumerate() {
            if exempt.iter().any(|exempt| exempt <= at && exempt + WINDOW > *at) {
                continue;
            }
            let inside: Vec<_> = moves[..last].iter().filter(|(earlier, ..)| earlier + WINDOW > *at).collect();
            let earlier: u64 = inside.iter().map(|(_, _, moved, _)| *moved).sum();
            let start = inside.first().map_or(*before, |(_, total, ..)| *total);
            let alone = inside.is_empty() && moved <= largest;
            prop_assert!(alone || (earlier + moved) * 3 <= start, "height {at}: {moved} after {earlier} of {start}");
        }
    }
}
