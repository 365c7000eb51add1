//! After a start, a validator asks the others what they know of it before it signs.

use lockstep_replica::Effect;
use lockstep_replica::wire::{Answer, Question};
use lockstep_types::{Height, Proposal, Round, Signature};

use crate::desk::{Desk, Made};
use crate::support::*;

/// The number of the key that proposes first.
fn first_proposer(made: &Made) -> u8 {
    let chain = start(&made.genesis).0;
    let public = chain.validators.get(chain.validators.proposer(Round::ZERO)).unwrap().public_key;
    (1..=4).find(|n| key(*n).public_key() == public).unwrap()
}

/// Has a peer with this key answer that it knows of nothing.
fn answers(desk: &mut Desk, peer: u64, validator: u8) {
    desk.connect(peer, Some(validator));
    while let Some((job, _, question)) = desk.question() {
        assert!(matches!(question, Question::Signed { .. }), "{question:?}");
        desk.reply(job, Some(&Answer::Signed(Vec::new(), Vec::new())));
    }
    // More than the pace of the first block asks for, and all of them together less than the wait.
    desk.pass(std::time::Duration::from_millis(30));
}

fn signs(desk: &Desk) -> bool {
    desk.out.iter().any(|effect| matches!(effect, Effect::Sign { .. }))
}

/// Three keys that are no validator's, and one validator three times, are not three validators.
#[test]
fn only_validators_of_the_height_answer_and_each_once() {
    let made = Made::of(0);
    let me = first_proposer(&made);
    let others: Vec<u8> = (1..=4).filter(|n| *n != me).collect();
    let mut desk = Desk::new(&made, Some(me));
    (100..103).for_each(|n| answers(&mut desk, u64::from(n), n));
    (0..3).for_each(|n| answers(&mut desk, n, others[0]));
    assert!(!signs(&desk), "two validators may still know of a message");
    answers(&mut desk, 10, others[1]);
    assert!(!signs(&desk));
    answers(&mut desk, 11, others[2]);
    assert!(signs(&desk), "all have answered, and nothing is waited for");
}

/// One of two that are asked says nothing.
#[test]
fn once_anybody_has_answered_the_wait_is_one_propose_timeout() {
    let made = Made::of(0);
    let me = first_proposer(&made);
    let other = (1..=4).find(|n| *n != me).unwrap();
    let mut desk = Desk::new(&made, Some(me));
    answers(&mut desk, 0, other);
    desk.pass(std::time::Duration::from_millis(469));
    assert!(!signs(&desk));
    desk.pass(std::time::Duration::from_millis(1));
    assert!(signs(&desk));
}

/// What it signs while nobody hears it decides nothing, and may be the second vote of one key.
#[test]
fn a_validator_that_nobody_answers_signs_nothing_until_somebody_does() {
    let made = Made::of(0);
    let mut desk = Desk::new(&made, Some(first_proposer(&made)));
    desk.pass(std::time::Duration::from_secs(3600));
    assert!(!signs(&desk));
    // Not a validator: behind sentry nodes there are no others.
    answers(&mut desk, 0, 100);
    assert!(signs(&desk));
}

/// An answer may name any round, and to find the proposer of the last one takes a quarter of a minute. A signature that does not
/// hold is the sender's fault at any round.
#[test]
fn an_answer_with_the_last_round_costs_a_signature_and_no_more() {
    let made = Made::of(0);
    let me = first_proposer(&made);
    let other = (1..=4).find(|n| *n != me).unwrap();
    let mut desk = Desk::new(&made, Some(me));
    desk.connect(0, Some(other));
    let (job, _, question) = desk.question().expect("our own messages are asked for");
    assert!(matches!(question, Question::Signed { .. }), "{question:?}");
    let last = |n| Round::new(Round::MAX.get() - n).unwrap();
    let forged = |n| Proposal { height: Height::FIRST, round: last(n), signature: Signature([9; 64]), ..proposal() };
    desk.reply(job, Some(&Answer::Signed(Vec::new(), (0..256).map(forged).collect())));
    assert!(desk.out.iter().any(|effect| matches!(effect, Effect::Disconnect { .. })), "two that do not hold are enough");
    assert!(!desk.out.iter().any(|effect| matches!(effect, Effect::Report { .. }) && format!("{effect:?}").contains("another process")));
}

/// Who catches up gets no votes, but commits: a home that is older than what its key signed finds it there.
#[test]
fn a_commit_with_a_slot_of_our_key_that_we_did_not_sign_ends_signing() {
    let made = Made::of(2);
    let (mut stopped, mut signing) = (0, 0);
    for me in 1..=4 {
        let mut desk = Desk::new(&made, Some(me));
        desk.connect(99, None);
        desk.follow(&made, 99);
        let index = made.chain.validators.index_of(&key(me).public_key().address()).expect("one of four");
        let is_in = made.block(1).2.votes().any(|vote| vote.validator == index);
        let why = desk.replica.silent();
        assert_eq!(why.is_some(), is_in, "key {me}: {why:?}");
        match why {
            Some(why) => {
                assert!(why.contains("the commit of height 1 holds a message") && why.contains("another process"), "{why}");
                stopped += 1;
            }
            None => signing += 1,
        }
    }
    assert_eq!((stopped, signing), (3, 1));
}
