//! Proposer rotation against a model written from the rules in big integers, and the properties it is for.

use proptest::prelude::*;

use lockstep_types::primitives::TOTAL_POWER_MAX;
use lockstep_types::{Address, Round, Validator, ValidatorIndex, ValidatorSet};

use crate::support::*;

/// (address, power, priority), in any order: the model does not need one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model(pub(crate) Vec<(Address, i128, i128)>);

impl Model {
    pub(crate) fn of(set: &ValidatorSet) -> Self {
        Self(set.iter().map(|v| (v.address, i128::from(v.power.get()), i128::from(v.priority))).collect())
    }

    pub(crate) fn total(&self) -> i128 {
        self.0.iter().map(|(_, power, _)| power).sum()
    }

    pub(crate) fn scale_and_centre(&mut self) {
        let max = self.0.iter().map(|v| v.2).max().unwrap();
        let min = self.0.iter().map(|v| v.2).min().unwrap();
        let (diff, total) = (max - min, self.total());
        if diff > 2 * total {
            let ratio = (diff + 2 * total - 1) / (2 * total);
            for v in &mut self.0 {
                // Toward zero, spelled out.
                v.2 = if v.2 < 0 { -(-v.2 / ratio) } else { v.2 / ratio };
            }
        }
        let (sum, count) = (self.0.iter().map(|v| v.2).sum::<i128>(), i128::try_from(self.0.len()).unwrap());
        // Floor, spelled out.
        let mut average = sum / count;
        if average * count > sum {
            average -= 1;
        }
        self.0.iter_mut().for_each(|v| v.2 -= average);
    }

    pub(crate) fn increment(&mut self, times: u32) -> Address {
        self.scale_and_centre();
        let total = self.total();
        let mut proposer = None;
        for _ in 0..times {
            self.0.iter_mut().for_each(|v| v.2 += v.1);
            let best = self.0.iter().map(|v| v.2).max().unwrap();
            let winner = self.0.iter().filter(|v| v.2 == best).map(|v| v.0).min().unwrap();
            self.0.iter_mut().find(|v| v.0 == winner).unwrap().2 -= total;
            proposer = Some(winner);
        }
        proposer.unwrap()
    }

    fn sorted(mut self) -> Self {
        self.0.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        self
    }
}

fn proposer(set: &ValidatorSet, round: Round) -> Address {
    set.get(set.proposer(round)).unwrap().address
}

/// Powers small, alike, and so large that the total is near its bound.
fn powers() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![
        proptest::collection::vec(1..10u64, 1..8),
        proptest::collection::vec(1..1_000_000u64, 1..8),
        proptest::collection::vec(prop_oneof![1..5u64, TOTAL_POWER_MAX / 16..TOTAL_POWER_MAX / 8], 1..8),
        (1..8usize).prop_map(|n| vec![TOTAL_POWER_MAX / n as u64; n]),
    ]
}

/// Priorities as no history of ours would leave them, up to the edges of what is stored.
fn priorities() -> impl Strategy<Value = i64> {
    prop_oneof![-100..100i64, any::<i64>().prop_map(|p| p / 4), Just(i64::MAX / 4), Just(i64::MIN / 4)]
}

proptest! {
    #[test]
    fn a_new_set_rotates_like_the_model(powers in powers(), steps in 1..40u32) {
        let mut set = set(&powers);
        let total = i128::from(set.total_power().get());
        // A new set: all at -1.125 of the total, centred, stepped once.
        let start = -(total + (total >> 3));
        let mut model = Model(Model::of(&set).0.into_iter().map(|(address, power, _)| (address, power, start)).collect());
        model.scale_and_centre();
        prop_assert_eq!(model.increment(1), proposer(&set, Round::ZERO));
        for step in 0..steps {
            prop_assert_eq!(Model::of(&set).sorted(), model.clone().sorted(), "step {}", step);
            set.increment(1);
            prop_assert_eq!(proposer(&set, Round::ZERO), model.increment(1));
        }
    }

    #[test]
    fn any_priorities_rotate_like_the_model(members in proptest::collection::vec((1..1_000u64, priorities()), 1..8), times in 1..50u32) {
        let validators: Vec<Validator> = (1..).zip(&members).map(|(n, (p, priority))| {
            Validator { priority: *priority, ..Validator::new(public(n), power(*p)) }
        }).collect();
        let set = ValidatorSet::from_validators(validators, ValidatorIndex::ZERO).unwrap();
        let mut model = Model::of(&set);
        let winner = model.increment(times);
        let mut stepped = set.clone();
        stepped.increment(times);
        prop_assert_eq!(Model::of(&stepped).sorted(), model.sorted());
        prop_assert_eq!(proposer(&stepped, Round::ZERO), winner);
        prop_assert_eq!(proposer(&set, round(times)), winner, "the proposer of a round is that of one call");
        prop_assert_eq!(proposer(&set, Round::ZERO), set.get(ValidatorIndex::ZERO).unwrap().address, "asking changes nothing");
    }

    #[test]
    fn everybody_proposes_in_proportion_to_power(powers in proptest::collection::vec(1..40u64, 1..7), rounds in 1..600i128) {
        let mut set = set(&powers);
        let total = i128::from(set.total_power().get());
        let mut wins = vec![0i128; set.len()];
        for _ in 0..rounds {
            set.increment(1);
            wins[set.proposer(Round::ZERO).index()] += 1;
            let sum: i128 = set.iter().map(|v| i128::from(v.priority)).sum();
            prop_assert!(sum.abs() < set.len() as i128, "priorities are centred, their sum is {}", sum);
            let spread = set.iter().map(|v| v.priority).max().unwrap() - set.iter().map(|v| v.priority).min().unwrap();
            prop_assert!(i128::from(spread) <= 2 * total, "no priority runs away: {}", spread);
        }
        for (validator, won) in set.iter().zip(wins) {
            // Each slot away from the fair share is paid back: nobody is ever two slots off.
            let off = won * total - rounds * i128::from(validator.power.get());
            prop_assert!(off.abs() <= 2 * total, "{} of {} slots with power {} of {}", won, rounds, validator.power, total);
        }
    }

    #[test]
    fn over_one_cycle_the_share_is_exact(powers in proptest::collection::vec(1..20u64, 1..6)) {
        let mut set = set(&powers);
        let total = set.total_power().get();
        let before = Model::of(&set);
        let mut wins = vec![0; set.len()];
        for _ in 0..total {
            set.increment(1);
            wins[set.proposer(Round::ZERO).index()] += 1;
        }
        prop_assert_eq!(Model::of(&set), before, "after as many steps as there is power the cycle begins again");
        for (validator, won) in set.iter().zip(wins) {
            prop_assert_eq!(validator.power.get(), won);
        }
    }
}

#[test]
fn ties_go_to_the_lower_address() {
    let set = set(&[5, 5, 5]);
    let lowest = set.iter().map(|validator| validator.address).min().unwrap();
    assert_eq!(proposer(&set, Round::ZERO), lowest);
}

#[test]
#[should_panic(expected = "an increment has at least one step")]
fn no_step_is_our_own_mistake() {
    set(&[1]).increment(0);
}
