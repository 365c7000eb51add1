//! Updates of a set: every rule, and random lists against a model that knows nothing of sorted vectors.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use lockstep_types::crypto::KeyError;
use lockstep_types::primitives::TOTAL_POWER_MAX;
use lockstep_types::validators::{UpdateError, VALIDATORS_MAX};
use lockstep_types::{Power, PrivateKey, PublicKey, Validator, ValidatorIndex, ValidatorSet, ValidatorUpdate};

use crate::rotation::Model;
use crate::support::*;

fn update(n: u8, p: u64) -> ValidatorUpdate {
    ValidatorUpdate { public_key: public(n), power: power(p) }
}

/// What the rules make of a set and a list: none when they refuse it.
fn model(set: &ValidatorSet, updates: &[ValidatorUpdate]) -> Option<Model> {
    let before: BTreeMap<_, (i128, i128)> = Model::of(set).0.into_iter().map(|(address, p, priority)| (address, (p, priority))).collect();
    let named: BTreeSet<_> = updates.iter().map(|update| update.public_key.address()).collect();
    if named.len() != updates.len() {
        return None;
    }
    let mut after = before.clone();
    let mut deltas = Vec::new();
    let mut removed = 0;
    for update in updates {
        let (address, new) = (update.public_key.address(), i128::from(update.power.get()));
        match (new, before.get(&address)) {
            (0, None) => return None,
            (0, Some((old, _))) => removed += old,
            (new, old) => deltas.push(new - old.map_or(0, |(old, _)| *old)),
        }
    }
    deltas.sort_unstable();
    let old_total: i128 = before.values().map(|(p, _)| p).sum();
    let mut running = old_total - removed;
    for delta in deltas {
        running += delta;
        if running > i128::from(TOTAL_POWER_MAX) {
            return None;
        }
    }
    let before_removals = running + removed;
    for update in updates {
        let (address, new) = (update.public_key.address(), i128::from(update.power.get()));
        if new == 0 {
            after.remove(&address);
        } else {
            let start = -(before_removals + before_removals / 8);
            after.entry(address).and_modify(|(p, _)| *p = new).or_insert((new, start));
        }
    }
    if after.is_empty() {
        return None;
    }
    let mut model = Model(after.into_iter().map(|(address, (p, priority))| (address, p, priority)).collect());
    if !updates.is_empty() {
        model.scale_and_centre();
    }
    model.0.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    Some(model)
}

fn any_power() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(0u64), 8 => 1..100u64, 1 => Just(TOTAL_POWER_MAX), 1 => TOTAL_POWER_MAX / 3..TOTAL_POWER_MAX / 2]
}

proptest! {
    #[test]
    fn a_chain_of_updates_follows_the_model(
        powers in proptest::collection::vec(1..100u64, 1..5),
        chain in proptest::collection::vec(proptest::collection::vec((1..9u8, any_power()), 0..5), 1..12),
    ) {
        let mut set = set(&powers);
        for list in chain {
            let updates: Vec<ValidatorUpdate> = list.into_iter().map(|(n, p)| update(n, p)).collect();
            let expected = model(&set, &updates);
            let mut updated = set.clone();
            let answer = updated.update(&updates);
            prop_assert_eq!(answer.is_ok(), expected.is_some(), "{:?}", answer);
            match expected {
                Some(expected) => prop_assert_eq!(Model::of(&updated), expected),
                None => prop_assert_eq!(&updated, &set, "a refused list changes nothing"),
            }
            set = updated;
            set.increment(1);
        }
    }
}

#[test]
fn every_rule_is_refused_by_name() {
    let refused = |powers: &[u64], updates: &[ValidatorUpdate]| {
        let mut set = set(powers);
        let before = set.clone();
        let error = set.update(updates).unwrap_err();
        assert_eq!(set, before, "a refused list changes nothing");
        error
    };
    let address = |n| public(n).address();
    assert_eq!(refused(&[1], &[update(2, 1), update(2, 1)]), UpdateError::Duplicate(address(2)));
    assert_eq!(refused(&[1], &[update(2, 1), update(2, 0)]), UpdateError::Duplicate(address(2)));
    assert_eq!(refused(&[1], &[update(2, 0)]), UpdateError::UnknownRemoval(address(2)));
    assert_eq!(refused(&[1, 1], &[update(1, 0), update(2, 0)]), UpdateError::Empty);
    assert_eq!(refused(&[1], &[update(2, TOTAL_POWER_MAX)]), UpdateError::TotalPower);
    let mut weak = [0; 32];
    weak[0] = 1;
    let weak = PublicKey(weak);
    let error = refused(&[1], &[ValidatorUpdate { public_key: weak, power: power(1) }]);
    assert_eq!(error, UpdateError::Key { address: weak.address(), error: KeyError::Weak });
    assert_eq!(ValidatorSet::new(&[]), Err(UpdateError::Empty));
    assert_eq!(ValidatorSet::new(&[update(1, 0)]), Err(UpdateError::UnknownRemoval(address(1))));
}

#[test]
fn the_total_is_watched_while_deltas_are_added() {
    // One leaves as another comes: after the removal there is room.
    let mut set = set(&[TOTAL_POWER_MAX - 1, 1]);
    set.update(&[update(1, 0), update(3, TOTAL_POWER_MAX - 1)]).unwrap();
    assert_eq!(set.total_power().get(), TOTAL_POWER_MAX);
    // Power moves from one to another: the fall is counted before the rise.
    set.update(&[update(3, 1), update(2, TOTAL_POWER_MAX - 1)]).unwrap();
    assert_eq!(set.total_power().get(), TOTAL_POWER_MAX);
    assert_eq!(set.update(&[update(4, 1)]), Err(UpdateError::TotalPower));
    for _ in 0..20 {
        set.increment(1);
    }
}

#[test]
fn a_set_has_a_largest_size() {
    let members: Vec<ValidatorUpdate> = (0..=u16::try_from(VALIDATORS_MAX).unwrap())
        .map(|n| {
            let mut seed = [9; 32];
            seed[..2].copy_from_slice(&n.to_be_bytes());
            ValidatorUpdate { public_key: PrivateKey::from_seed(&seed).public_key(), power: power(1) }
        })
        .collect();
    assert_eq!(ValidatorSet::new(&members), Err(UpdateError::TooMany(VALIDATORS_MAX + 1)));
    let mut set = ValidatorSet::new(&members[1..]).unwrap();
    assert_eq!(set.len(), VALIDATORS_MAX);
    assert_eq!(set.update(&members[..1]), Err(UpdateError::TooMany(VALIDATORS_MAX + 1)));
    // One leaves, one comes.
    set.update(&[members[0], ValidatorUpdate { power: Power::ZERO, ..members[1] }]).unwrap();
    assert_eq!(set.len(), VALIDATORS_MAX);
}

#[test]
fn a_set_from_outside_keeps_the_rules_of_sets() {
    let validator = |n, p| Validator::new(public(n), power(p));
    let from = |validators, proposer| ValidatorSet::from_validators(validators, index(proposer));
    assert_eq!(from(vec![], 0), Err(UpdateError::Empty));
    assert_eq!(from(vec![validator(1, 1)], 1), Err(UpdateError::Empty));
    assert_eq!(from(vec![validator(1, 1), validator(1, 2)], 0), Err(UpdateError::Duplicate(public(1).address())));
    assert_eq!(from(vec![validator(1, 1), validator(2, 0)], 0), Err(UpdateError::NoPower(public(2).address())));
    assert_eq!(from(vec![validator(1, TOTAL_POWER_MAX), validator(2, 1)], 0), Err(UpdateError::TotalPower));
    let sorted = from(vec![validator(1, 1), validator(2, 9), validator(3, 5)], 0).unwrap();
    assert_eq!(sorted.iter().map(|v| v.power.get()).collect::<Vec<_>>(), [9, 5, 1]);
    assert_eq!(sorted.index_of(&public(3).address()), Some(ValidatorIndex::new(1).unwrap()));
    assert_eq!(sorted.index_of(&public(4).address()), None);
}
