//! From height to height, and clocks at their bounds.

use std::time::Duration;

use lockstep_consensus::{Consensus, Effect, HeightStart, Input};
use lockstep_types::{Height, Round, Time, Vote, VoteType};

use crate::world::{self, HEIGHT, Settle, block, block_time, index, validators};

fn start(height: Height, me: usize) -> Input {
    Input::StartHeight(HeightStart {
        height,
        validators: validators(&[1; 4]),
        me: Some(index(me)),
        params: world::params(),
        proposer_missed: false,
        restored: None,
    })
}

fn precommit(height: Height, at: u32, name: char, voter: usize) -> Input {
    let vote = world::vote(VoteType::Precommit, world::round(at), Some(block(name)), None, index(voter));
    Input::Vote(Vote { height, ..vote }.settle(&validators(&[1; 4])))
}

fn feed(core: &mut Consensus, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
    inputs.into_iter().flat_map(|input| core.step(input)).collect()
}

/// A core at height 2 that decided A at height 1, by the precommits of 0, 1 and 2.
fn at_second_height() -> Consensus {
    let mut core = Consensus::new();
    feed(&mut core, [start(HEIGHT, 3), Input::Checked { block_id: block('A'), valid: true }]);
    let effects = feed(&mut core, (0..3).map(|voter| precommit(HEIGHT, 0, 'A', voter)));
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Decide { .. })));
    assert!(core.is_decided());
    feed(&mut core, [start(HEIGHT.next(), 3)]);
    core
}

fn signers(commit: Option<lockstep_types::Commit>) -> Vec<bool> {
    commit.expect("a certificate").signatures.iter().map(lockstep_types::CommitSig::is_for_block).collect()
}

#[test]
fn late_precommits_enter_the_certificate_before_and_after_the_next_height_begins() {
    let mut core = Consensus::new();
    feed(&mut core, [start(HEIGHT, 3), Input::Checked { block_id: block('A'), valid: true }]);
    feed(&mut core, (0..3).map(|voter| precommit(HEIGHT, 0, 'A', voter)));
    assert_eq!(signers(core.commit()), [true, true, true, false]);
    let mut waiting = core.clone();
    feed(&mut waiting, [precommit(HEIGHT, 0, 'A', 3)]);
    assert_eq!(signers(waiting.commit()), [true; 4]);

    feed(&mut core, [start(HEIGHT.next(), 3)]);
    assert_eq!(signers(core.previous_commit()), [true, true, true, false]);
    assert_eq!(core.commit(), None);
    feed(&mut core, [precommit(HEIGHT, 1, 'A', 3)]);
    assert_eq!(signers(core.previous_commit()), [true, true, true, false], "of another round");
    feed(&mut core, [precommit(HEIGHT, 0, 'A', 3)]);
    assert_eq!(signers(core.previous_commit()), [true; 4]);
}

#[test]
fn a_height_begins_anew() {
    let core = at_second_height();
    assert_eq!((core.height(), core.round()), (HEIGHT.next(), Round::ZERO));
    assert!(!core.is_decided());
    assert_eq!((core.locked(), core.valid(), core.certified()), (None, None, None));
    assert_eq!(core.rounds().count(), 0);
}

#[test]
fn messages_of_other_heights_change_nothing() {
    let mut core = at_second_height();
    let third = HEIGHT.next().next();
    let timeout =
        |height| Input::TimedOut(lockstep_consensus::Timeout { height, round: Round::ZERO, step: lockstep_consensus::Step::Propose });
    let effects = feed(&mut core, (0..4).map(|voter| precommit(third, 0, 'A', voter)).chain([timeout(third), timeout(HEIGHT)]));
    assert_eq!(effects, []);
    assert_eq!(core.rounds().count(), 0);
    let set = validators(&[1; 4]);
    let commit = world::commit(&set, Round::ZERO, block('A'), &[0, 1, 2]).settle(&set);
    let polka = world::polka(Round::ZERO, block('A'), None, &[0, 1, 2]).settle(&set);
    let proposal = world::proposal(Round::ZERO, block('A'), None).settle(&set);
    let old = [Input::Commit(commit), Input::Polka(polka), Input::Proposal { proposal, received: block_time() }];
    assert_eq!(feed(&mut core, old), []);
}

#[test]
fn a_height_that_was_caught_up_with_leaves_no_certificate() {
    let mut core = Consensus::new();
    feed(&mut core, [start(HEIGHT, 3), start(HEIGHT.next(), 3)]);
    assert_eq!(core.previous_commit(), None);
    let mut core = at_second_height();
    feed(&mut core, [start(HEIGHT.plus(9), 3)]);
    assert_eq!(core.previous_commit(), None, "the height before is another one");
}

#[test]
fn nothing_happens_before_the_first_height() {
    let mut core = Consensus::new();
    assert_eq!(feed(&mut core, [Input::Ready, precommit(HEIGHT, 0, 'A', 0)]), []);
    assert_eq!(core.height(), Height::ZERO);
}

#[test]
fn tickets_ascend_through_the_heights() {
    let mut core = Consensus::new();
    let mut tickets = Vec::new();
    let mut height = HEIGHT;
    for _ in 0..3 {
        let timeout = lockstep_consensus::Timeout { height, round: Round::ZERO, step: lockstep_consensus::Step::Propose };
        for effect in feed(&mut core, [start(height, 3), Input::TimedOut(timeout)]) {
            if let Effect::Persist(ticket, _) = effect {
                tickets.push(ticket.0);
            }
        }
        height = height.next();
    }
    assert_eq!(tickets, [1, 2, 3]);
}

/// `time - PRECISION <= received <= time + DELAY(r) + PRECISION`, with PRECISION 400 ms and DELAY(r) = 2 s · 1.1^r.
#[test]
fn timeliness_has_both_its_bounds() {
    let (ms, ns) = (Duration::from_millis, Duration::from_nanos(1));
    let before = |by| block_time().saturating_sub(by);
    let after = |by| block_time().saturating_add(by);
    let table = [
        (0, block_time(), true),
        (0, before(ms(400)), true),
        (0, before(ms(400) + ns), false),
        (0, after(ms(2_400)), true),
        (0, after(ms(2_400) + ns), false),
        // Each later round allows more, on the one side only.
        (1, after(ms(2_400) + ns), true),
        (1, after(ms(2_600)), true),
        (1, after(ms(2_700)), false),
        (1, before(ms(400) + ns), false),
    ];
    for (at, received, timely) in table {
        assert_eq!(prevotes_new_value(at, received), timely, "round {at}, received {received}");
    }
}

fn prevotes_new_value(at: u32, received: Time) -> bool {
    let set = validators(&[1; 4]);
    let mut core = Consensus::new();
    feed(&mut core, [start(HEIGHT, 3), Input::Ready, Input::Checked { block_id: block('A'), valid: true }]);
    if at > 0 {
        feed(&mut core, (0..2).map(|voter| precommit(HEIGHT, at, 'Z', voter)));
    }
    let proposal = world::proposal(world::round(at), block('A'), None).settle(&set);
    let ballots: Vec<_> = feed(&mut core, [Input::Proposal { proposal, received }])
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Cast(_, ballot) => Some(ballot),
            _ => None,
        })
        .collect();
    assert_eq!(ballots.len(), 1, "answered at once");
    ballots[0].block_id.is_some()
}
