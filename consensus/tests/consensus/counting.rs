//! Counting: bounds with weighted powers, nil, duplicates, two values, certificates.

use lockstep_consensus::{LOOSE_VALUES_MAX, VALUES_MAX, Value, VoteSet};
use lockstep_types::{BlockId, Round, ValidatorSet, VoteType};

use crate::desk::{Desk, votes};
use crate::world::{self, HEIGHT, Settle, block, index, validators};

fn set_of(set: &std::sync::Arc<ValidatorSet>, kind: VoteType) -> VoteSet {
    VoteSet::new(HEIGHT, Round::ZERO, kind, set.clone())
}

fn value(block_id: BlockId) -> Value {
    Value { block_id: Some(block_id), valid_round: None }
}

/// Powers, who votes for A, whether that is a quorum. Restated in words of the specification: more than two thirds.
const QUORUMS: &[(&[u64], &[usize], bool)] = &[
    (&[1], &[0], true),
    (&[1, 1], &[0], false),
    (&[1, 1], &[0, 1], true),
    (&[1, 1, 1], &[0, 1], false),
    (&[1, 1, 1], &[0, 1, 2], true),
    (&[1, 1, 1, 1], &[0, 1], false),
    (&[1, 1, 1, 1], &[0, 1, 2], true),
    // Exactly two thirds, one below, one above.
    (&[5, 3, 1], &[0, 2], false),
    (&[4, 4, 1], &[0, 2], false),
    (&[6, 2, 1], &[0], false),
    (&[7, 1, 1], &[0], true),
    (&[66, 34], &[0], false),
    (&[67, 33], &[0], true),
    (&[200, 99, 1], &[0], false),
    (&[200, 99, 1], &[0, 2], true),
    // The largest powers that exist.
    (&[1 << 59, 1 << 58, (1 << 58) - 1], &[0, 1], true),
    (&[1 << 59, 1 << 58, (1 << 58) - 1], &[0], false),
];

#[test]
fn a_quorum_is_more_than_two_thirds() {
    for (powers, voters, expected) in QUORUMS {
        let set = validators(powers);
        let mut prevotes = set_of(&set, VoteType::Prevote);
        let mut crossed = 0;
        for vote in votes(&set, VoteType::Prevote, Some(block('A')), voters) {
            crossed += usize::from(prevotes.add(&vote).quorum.is_some());
        }
        assert_eq!(prevotes.quorum() == Some(value(block('A'))), *expected, "{powers:?} by {voters:?}");
        assert_eq!(crossed, usize::from(*expected), "the crossing is told once");
        assert_eq!(prevotes.polka().is_some(), *expected);
    }
}

#[test]
fn a_polka_made_of_a_quorum_passes_the_gate() {
    for (powers, voters, expected) in QUORUMS {
        let set = validators(powers);
        let mut prevotes = set_of(&set, VoteType::Prevote);
        let mut precommits = set_of(&set, VoteType::Precommit);
        for vote in votes(&set, VoteType::Prevote, Some(block('A')), voters) {
            prevotes.add(&vote);
        }
        for vote in votes(&set, VoteType::Precommit, Some(block('A')), voters) {
            precommits.add(&vote);
        }
        let polka = prevotes.polka().map(|polka| polka.claim(&world::chain(), &set).is_ok());
        let commit = precommits.commit().map(|commit| commit.claim(&world::chain(), &set).is_ok());
        assert_eq!((polka, commit), (expected.then_some(true), expected.then_some(true)));
    }
}

#[test]
fn nil_never_counts_for_a_block_nor_a_block_for_nil() {
    let set = validators(&[1; 4]);
    let mut precommits = set_of(&set, VoteType::Precommit);
    for vote in votes(&set, VoteType::Precommit, Some(block('A')), &[0, 1]) {
        precommits.add(&vote);
    }
    for vote in votes(&set, VoteType::Precommit, None, &[2, 3]) {
        precommits.add(&vote);
    }
    assert_eq!(precommits.quorum(), None);
    assert_eq!(precommits.power_for(value(block('A'))).get(), 2);
    assert_eq!(precommits.power_for(Value::NIL).get(), 2);
    assert_eq!(precommits.power_for_any().get(), 4);
}

#[test]
fn a_vote_that_comes_again_counts_once() {
    let set = validators(&[1; 4]);
    let mut prevotes = set_of(&set, VoteType::Prevote);
    let vote = &votes(&set, VoteType::Prevote, Some(block('A')), &[0])[0];
    assert!(prevotes.add(vote).added);
    // Signed at another moment it is the same vote.
    let mut later = vote.get().clone();
    later.timestamp = later.timestamp.saturating_add(std::time::Duration::from_secs(1));
    for again in [vote.clone(), later.settle(&set), vote.clone()] {
        let counted = prevotes.add(&again);
        assert!(!counted.added && counted.equivocation.is_none());
    }
    assert_eq!(prevotes.power_for(value(block('A'))).get(), 1);
    assert_eq!(prevotes.power_for_any().get(), 1);
    assert_eq!(prevotes.votes().count(), 1);
}

#[test]
fn a_second_value_counts_for_itself_and_is_evidence_and_a_third_is_nothing() {
    let set = validators(&[1; 4]);
    let mut prevotes = set_of(&set, VoteType::Prevote);
    let by_zero = |name| votes(&set, VoteType::Prevote, Some(block(name)), &[0]).remove(0);
    assert!(prevotes.add(&by_zero('A')).equivocation.is_none());
    let second = prevotes.add(&by_zero('B'));
    let proof = second.equivocation.expect("two values");
    assert_eq!((proof.first.block_id, proof.second.block_id), (Some(block('A')), Some(block('B'))));
    let third = prevotes.add(&by_zero('C'));
    assert!(!third.added && third.equivocation.is_none());
    assert_eq!(prevotes.votes_of(index(0)).len(), LOOSE_VALUES_MAX);
    assert_eq!(prevotes.power_for(value(block('A'))).get(), 1);
    assert_eq!(prevotes.power_for(value(block('B'))).get(), 1);
    assert_eq!(prevotes.power_for(value(block('C'))).get(), 0);
    assert_eq!(prevotes.power_for_any().get(), 1, "once towards any");
}

#[test]
fn one_equivocator_does_not_hide_a_quorum() {
    let set = validators(&[1; 4]);
    let mut precommits = set_of(&set, VoteType::Precommit);
    // We see the lie first.
    for (name, voters) in [('B', &[0][..]), ('A', &[1, 2]), ('A', &[0])] {
        for vote in votes(&set, VoteType::Precommit, Some(block(name)), voters) {
            precommits.add(&vote);
        }
    }
    assert_eq!(precommits.quorum(), Some(value(block('A'))));
    let commit = precommits.commit().expect("a certificate");
    assert_eq!(commit.signatures.iter().filter(|slot| slot.is_for_block()).count(), 3);
}

#[test]
fn a_certificate_counts_though_its_signers_are_full() {
    let set = validators(&[1; 4]);
    let mut prevotes = set_of(&set, VoteType::Prevote);
    for name in ['B', 'C'] {
        for vote in votes(&set, VoteType::Prevote, Some(block(name)), &[0, 1]) {
            prevotes.add(&vote);
        }
    }
    let polka = world::polka(Round::ZERO, block('A'), None, &[0, 1, 2]).settle(&set);
    let counted = prevotes.add_polka(&polka);
    assert_eq!(counted.iter().filter_map(|counted| counted.quorum).collect::<Vec<_>>(), [value(block('A'))]);
    assert_eq!(prevotes.polka().expect("judged by itself").signatures.len(), 3);
    assert_eq!(prevotes.votes_of(index(0)).len(), VALUES_MAX);
    // The same certificate again, with one more signer, changes nothing but that signer.
    let polka = world::polka(Round::ZERO, block('A'), None, &[0, 1, 2, 3]).settle(&set);
    let added: Vec<bool> = prevotes.add_polka(&polka).iter().map(|counted| counted.added).collect();
    assert_eq!(added, [false, false, false, true]);
}

#[test]
fn a_second_certificate_is_evidence_and_no_quorum() {
    // Only with a third of the power faulty: validators 0 and 1 voted for both.
    let set = validators(&[1; 4]);
    let mut prevotes = set_of(&set, VoteType::Prevote);
    prevotes.add_polka(&world::polka(Round::ZERO, block('A'), None, &[0, 1, 2]).settle(&set));
    let other = world::polka(Round::ZERO, block('B'), None, &[0, 1, 3]).settle(&set);
    let counted = prevotes.add_polka(&other);
    let accused: Vec<u32> =
        counted.iter().filter_map(|counted| counted.equivocation.as_ref()).map(|proof| proof.first.validator.get()).collect();
    assert_eq!(accused, [0, 1]);
    assert!(counted.iter().all(|counted| counted.quorum.is_none()));
    assert_eq!(prevotes.quorum(), Some(value(block('A'))));
    let again = prevotes.add_polka(&other);
    assert!(again.iter().all(|counted| counted.equivocation.is_none()), "accused once");
    // However many certificates come, a validator fills no more than its places.
    for name in 'C'..='Z' {
        prevotes.add_polka(&world::polka(Round::ZERO, block(name), None, &[0, 1, 3]).settle(&set));
    }
    assert!(set.iter().enumerate().all(|(place, _)| prevotes.votes_of(index(place)).len() <= VALUES_MAX));
}

#[test]
fn the_valid_round_is_part_of_the_value() {
    let set = validators(&[1; 4]);
    let at = world::round(3);
    let mut prevotes = VoteSet::new(HEIGHT, at, VoteType::Prevote, set.clone());
    let tagged = |voter, valid_round| world::vote(VoteType::Prevote, at, Some(block('A')), valid_round, index(voter)).settle(&set);
    prevotes.add(&tagged(0, None));
    prevotes.add(&tagged(1, Some(world::round(0))));
    prevotes.add(&tagged(2, Some(world::round(1))));
    assert_eq!(prevotes.quorum(), None);
    assert!(prevotes.add(&tagged(0, Some(world::round(1)))).equivocation.is_some(), "the same block under another valid round");
    prevotes.add(&tagged(3, Some(world::round(1))));
    let polka = prevotes.polka().expect("three with one tag");
    assert_eq!(polka.valid_round, Some(world::round(1)));
    assert!(polka.claim(&world::chain(), &set).is_ok());
}

#[test]
fn a_skip_needs_more_than_a_third() {
    // Powers, who is ahead, whether we follow. We are the last.
    let table: &[(&[u64], &str, bool)] = &[
        (&[1, 1, 1, 1], "0", false),
        (&[1, 1, 1, 1], "0,1", true),
        (&[1, 1, 1], "0", false),
        (&[1, 1, 1], "0,1", true),
        (&[4, 3, 2], "1", false),
        (&[4, 3, 2], "0", true),
        (&[34, 33, 33], "1", false),
        (&[34, 33, 33], "0", true),
        (&[100, 99, 99, 2], "0", false),
        (&[101, 99, 99, 1], "0", true),
    ];
    for (powers, ahead, expected) in table {
        let (mut desk, _) = Desk::new(powers, Some(powers.len() - 1), lockstep_consensus::planted::Planted::default());
        desk.tell(&format!("prevotes nil r=1 from={ahead}"));
        assert_eq!(desk.core.round().get() == 1, *expected, "{powers:?} with {ahead} ahead");
    }
}

#[test]
fn memory_is_bounded_whatever_is_sent() {
    let mut desk = Desk::validator(3);
    // One validator, every round, every kind, many values.
    for at in (0..50_000).step_by(7) {
        for name in ['A', 'B', 'C'] {
            desk.tell(&format!("prevotes {name} r={at} from=0"));
            desk.tell(&format!("precommits {name} r={at} from=0"));
        }
    }
    assert_eq!(desk.core.round(), Round::ZERO);
    let kept: Vec<u32> = desk.core.rounds().map(Round::get).collect();
    assert_eq!(kept, [0]);
    // A long failure: rounds far behind go, but for those with a polka.
    desk.tell("polka A r=0 from=0,1,2");
    for at in 1..400 {
        desk.tell(&format!("prevotes nil r={at} from=0,1"));
    }
    let kept: Vec<u32> = desk.core.rounds().map(Round::get).collect();
    assert_eq!(kept.first(), Some(&0));
    assert_eq!(kept.get(1), Some(&(399 - lockstep_consensus::ROUNDS_BEHIND_MAX)));
    desk.tell("prevotes B r=5 from=0");
    assert!(!desk.core.rounds().any(|round| round.get() == 5), "what was forgotten is not begun again");
}
