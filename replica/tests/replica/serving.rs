//! Peers' questions: each in its turn, a flood refused, an honest catch-up not slowed.

use lockstep_replica::Input;
use lockstep_replica::seam::{ReadAnswer, ReadQuestion};
use lockstep_replica::serving::SERVE_BYTES_PER_S;
use lockstep_replica::wire::{Answer, Question, Status};
use lockstep_sync::server::{SERVING_MAX, WAITING_PER_PEER_MAX};
use lockstep_sync::{RANGE_BLOCKS_MAX, REQUESTS_PER_PEER_MAX};

use crate::desk::{Desk, Made};
use crate::support::*;

/// A replica that has the whole chain.
fn server(made: &Made) -> Desk {
    let mut desk = Desk::new(made, None);
    desk.connect(99, None);
    desk.follow(made, 99);
    assert_eq!(desk.replica.chain().height, made.chain.height);
    desk.out.clear();
    desk
}

fn blocks(from: u64) -> Question {
    Question::Blocks { from: height(from), count: RANGE_BLOCKS_MAX }
}

#[test]
fn a_peer_that_asks_far_too_often_is_refused_and_scored_and_others_are_answered() {
    let made = Made::of(3);
    let mut desk = server(&made);
    desk.connect(1, None);
    desk.connect(2, None);
    for ask in 1..=500 {
        desk.ask(1, ask, &blocks(1));
    }
    let reads = desk.reads();
    assert_eq!(reads.len(), 1, "one answer at a time is read for one peer");
    let refused = desk.answers();
    assert_eq!(refused.len(), 500 - 1 - WAITING_PER_PEER_MAX);
    assert!(refused.iter().all(|(_, answer)| matches!(answer, Answer::Unavailable(_))));
    let points: u32 = desk.refused(1).iter().map(|(points, _)| points).sum();
    assert!(points >= 100, "who floods is out: {points} points");
    assert!(desk.refused(2).is_empty());

    desk.ask(2, 1_000, &blocks(2));
    let honest = desk.reads();
    assert!(matches!(honest[..], [(_, ReadQuestion::Blocks { from, .. })] if from == height(2)), "the other's turn is now");
    let (_, body, commit) = made.block(2).clone();
    desk.read_done(honest[0].0, ReadAnswer::Blocks(vec![(body.clone(), commit.clone())]));
    assert_eq!(desk.answers(), [(1_000, Answer::Blocks(vec![(body, commit)]))]);
}

/// Whoever asks for a block that was pruned is told at once where the blocks begin.
#[test]
fn what_was_pruned_is_said_to_be() {
    let made = Made::of(4);
    let mut desk = server(&made);
    desk.connect(1, None);
    desk.step(Input::Pruned { base: height(3) });
    desk.ask(1, 1, &blocks(2));
    assert!(desk.reads().is_empty(), "nothing is read for it");
    assert_eq!(desk.answers(), [(1, Answer::Unavailable(Status { base: height(3), tip: height(4) }))]);
    desk.ask(1, 2, &blocks(3));
    assert_eq!(desk.reads().len(), 1, "what is there is");
}

/// Peers know that a node has decided a block before its disk has it, and ask.
#[test]
fn what_is_decided_and_not_written_yet_is_given_from_memory() {
    let made = Made::of(4);
    let mut desk = Desk::new(&made, None);
    desk.connect(99, None);
    let mut first = Made::of(2);
    desk.follow(&first, 99);
    (2..4).for_each(|n| first.grow(&[format!("k{n}=v").as_bytes()]));
    assert_eq!(first.blocks, made.blocks, "the same chain");
    desk.held_writes = Some(Vec::new());
    desk.follow(&made, 99);
    desk.out.clear();
    desk.connect(1, None);
    let answer = |from: u64, count: usize| {
        let blocks = made.blocks[usize::try_from(from).unwrap() - 1..].iter().take(count);
        Answer::Blocks(blocks.map(|(_, body, commit)| (body.clone(), commit.clone())).collect())
    };
    for (ask, from, count) in [(1, 3, 2), (2, 4, 1)] {
        desk.ask(1, ask, &blocks(from));
        assert!(desk.reads().is_empty(), "nobody can read it");
        assert_eq!(desk.answers(), [(ask, answer(from, count))]);
    }
    desk.ask(1, 3, &Question::Blocks { from: height(3), count: 1 });
    assert_eq!(desk.answers(), [(3, answer(3, 1))], "as many as were asked for");
    desk.ask(1, 4, &blocks(2));
    assert_eq!(desk.reads().len(), 1, "what is written is read");
    desk.write_all();
    desk.connect(2, None);
    desk.ask(2, 5, &blocks(4));
    assert_eq!(desk.reads().len(), 1, "the disk has it");
}

#[test]
fn a_few_are_read_at_a_time_over_all_peers() {
    let made = Made::of(1);
    let mut desk = server(&made);
    for peer in 1..=20 {
        desk.connect(peer, None);
        desk.ask(peer, peer, &blocks(1));
    }
    let reads = desk.reads();
    assert_eq!(reads.len(), SERVING_MAX);
    desk.read_done(reads[0].0, ReadAnswer::Blocks(Vec::new()));
    assert_eq!(desk.reads().len(), 1, "the next one's turn");
}

/// Each answer is as large as may be. The peer is served at its rate, and goes on by itself when time passes.
#[test]
fn a_peer_that_takes_all_it_can_gets_its_rate() {
    let made = Made::of(1);
    let mut desk = server(&made);
    desk.connect(1, None);
    let large = vec![7; 4 << 20];
    let (mut sent, mut ask) = (0u64, 0);
    for _ in 0..2_000 {
        for _ in 0..REQUESTS_PER_PEER_MAX {
            ask += 1;
            desk.ask(1, ask, &blocks(1));
        }
        for (job, _) in desk.reads() {
            sent += large.len() as u64;
            desk.read_done(job, ReadAnswer::Blocks(vec![(large.clone().into(), made.block(1).2.clone())]));
        }
        desk.out.clear();
        desk.pass(std::time::Duration::from_millis(1));
    }
    let rate = 2 * SERVE_BYTES_PER_S;
    assert!(sent <= rate + (9 << 20) && sent >= rate - (9 << 20), "{sent} of {rate}");
}

/// Thousands of blocks, asked for as block sync does, answered without one wait for time to pass.
#[test]
fn an_honest_catch_up_is_not_slowed() {
    let made = Made::of(1);
    let mut desk = server(&made);
    desk.connect(1, None);
    // 5,000 blocks of 8 KiB in answers of 64; the peer takes 8 ms for each answer, 8,000 blocks a second.
    let answer = vec![(vec![7; 8 << 10].into(), made.block(1).2.clone()); 64];
    for ask in 0..5_000 / 64 {
        desk.ask(1, ask, &blocks(1));
        let reads = desk.reads();
        assert_eq!(reads.len(), 1, "answer {ask} waits");
        desk.read_done(reads[0].0, ReadAnswer::Blocks(answer.clone()));
        assert_eq!(desk.answers().len(), 1);
        desk.pass(std::time::Duration::from_millis(8));
    }
    assert!(desk.refused(1).is_empty());
}

#[test]
fn questions_of_a_peer_that_left_are_forgotten() {
    let made = Made::of(1);
    let mut desk = server(&made);
    desk.connect(1, None);
    for ask in 1..=3 {
        desk.ask(1, ask, &blocks(1));
    }
    let reads = desk.reads();
    desk.step(lockstep_replica::Input::PeerDown { peer: lockstep_replica::seam::Peer(1) });
    assert_eq!(desk.answers().iter().map(|(ask, _)| *ask).collect::<Vec<_>>(), [2, 3], "the shell need not keep them");
    desk.read_done(reads[0].0, ReadAnswer::Blocks(Vec::new()));
    desk.ask(1, 4, &blocks(1));
    assert_eq!(desk.reads(), [], "nobody is there to be answered");
}
