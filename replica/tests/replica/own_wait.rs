//! After a start, a validator asks the others what they know of it before it signs.

use lockstep_replica::Effect;
use lockstep_replica::wire::{Answer, Question};
use lockstep_types::Round;

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

#[test]
fn the_wait_is_one_propose_timeout() {
    let made = Made::of(0);
    let mut desk = Desk::new(&made, Some(first_proposer(&made)));
    desk.pass(std::time::Duration::from_millis(499));
    assert!(!signs(&desk));
    desk.pass(std::time::Duration::from_millis(1));
    assert!(signs(&desk));
}
