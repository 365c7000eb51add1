//! What costs a peer its connection: bytes that mean nothing at once, what does not hold the second time.

use bytes::Bytes;
use lockstep_replica::seam::{AskId, Peer};
use lockstep_replica::wire::{Answer, Message, Question, Status, VoteBatch};
use lockstep_replica::{Effect, Input};
use lockstep_types::block::{PART_BYTES, cut};
use lockstep_types::commit::{Polka, PolkaSig};
use lockstep_types::{BlockId, ChainId, Commit, Hash, Height, Proposal, Round, Signature, Vote};

use crate::desk::{Desk, Made};
use crate::support::*;

/// How often the connection to a peer was ended.
fn disconnects(desk: &Desk, who: u64) -> usize {
    desk.out.iter().filter(|effect| matches!(effect, Effect::Disconnect { peer, .. } if peer.0 == who)).count()
}

fn points(desk: &Desk, who: u64) -> u32 {
    desk.refused(who).iter().map(|(points, _)| points).sum()
}

/// At height 1, with a liar (1) and an honest peer (2).
fn desk(made: &Made) -> Desk {
    let mut desk = Desk::new(made, None);
    desk.connect(1, None);
    desk.connect(2, None);
    desk
}

#[test]
fn bytes_that_mean_nothing_cost_the_connection_at_once() {
    let made = Made::of(1);
    let garbage = || Bytes::from_static(b"\x01\xffnonsense");
    let frames: [fn(Bytes) -> Input; 3] = [
        |bytes| Input::Received { peer: Peer(1), bytes },
        |bytes| Input::Gossiped { peer: Peer(1), bytes },
        |bytes| Input::Asked { peer: Peer(1), ask: AskId(7), bytes },
    ];
    for input in frames {
        let mut desk = desk(&made);
        desk.step(input(garbage()));
        assert_eq!((disconnects(&desk, 1), points(&desk, 1)), (1, 100));
        desk.step(input(garbage()));
        assert_eq!((disconnects(&desk, 1), points(&desk, 1)), (1, 100), "what comes behind it is not read");
        assert_eq!((disconnects(&desk, 2), points(&desk, 2)), (0, 0));
    }
    // An answer.
    let mut desk = desk(&made);
    desk.receive(1, &Message::Status(Status { base: Height::FIRST, tip: height(1) }));
    let job = loop {
        match desk.question() {
            Some((job, 1, _)) => break job,
            Some((job, ..)) => desk.reply(job, None),
            None => desk.pass(std::time::Duration::from_millis(50)),
        }
    };
    desk.step(Input::Response { job, bytes: Some(garbage()) });
    assert_eq!(disconnects(&desk, 1), 1);
}

fn name(seed: u8) -> BlockId {
    BlockId { hash: Hash([seed; 32]), parts: cut(&[seed; 5]).0 }
}

/// A vote of height 1 for a block of its own, signed for some chain.
fn signed_for(made: &Made, chain: &str, seed: u8) -> Vote {
    let set = &made.chain.validators;
    let mut vote =
        Vote { height: height(1), round: Round::ZERO, block_id: Some(name(seed)), valid_round: None, validator: index(0), ..vote() };
    vote.signature = key_at(set, 0).sign(&vote.sign_bytes(&ChainId::new(chain).unwrap()));
    vote
}

/// Two messages of each kind, neither of which a correct peer sends.
fn lies(made: &Made) -> Vec<(&'static str, [Message; 2])> {
    let forged = Signature([9; 64]);
    let vote = |seed| Message::Vote(Vote { signature: forged, ..signed_for(made, "test-chain", seed) });
    let foreign = |seed| Message::Vote(signed_for(made, "another-chain", seed));
    let nobody = |seed| Message::Vote(Vote { validator: index(77), ..signed_for(made, "test-chain", seed) });
    let proposal = |seed| {
        let proposal =
            Proposal { height: height(1), round: Round::ZERO, pol_round: None, block_id: name(seed), signature: forged, ..proposal() };
        Message::Proposal { proposal, first: None }
    };
    let polka = |seed| {
        let signatures = (0..3).map(|place| PolkaSig { validator: index(place), timestamp: at(2, 7), signature: forged }).collect();
        Message::Polka(Polka { height: height(1), round: Round::ZERO, block_id: name(seed), valid_round: None, signatures })
    };
    let commit = |seed| {
        let commit = &made.block(1).2;
        Message::Commit(Commit { block_id: name(seed), ..commit.clone() })
    };
    let batch = Message::Votes(VoteBatch((0..10).map(|seed| Vote { signature: forged, ..signed_for(made, "test-chain", seed) }).collect()));
    vec![
        ("votes that nobody signed", [vote(1), vote(2)]),
        ("votes of another chain", [foreign(1), foreign(2)]),
        ("votes of no validator", [nobody(1), nobody(2)]),
        ("proposals", [proposal(1), proposal(2)]),
        ("polkas", [polka(1), polka(2)]),
        ("commits", [commit(1), commit(2)]),
        ("a vote, and a batch of them", [vote(1), batch]),
    ]
}

#[test]
fn one_signature_that_does_not_hold_is_tolerated_and_not_a_second() {
    let made = Made::of(1);
    for (what, [first, second]) in lies(&made) {
        let mut desk = desk(&made);
        desk.receive(1, &first);
        assert_eq!((disconnects(&desk, 1), points(&desk, 1)), (0, 50), "{what}");
        desk.receive(1, &second);
        assert_eq!((disconnects(&desk, 1), points(&desk, 1)), (1, 100), "{what}");
        // The liar is not heard any more, the others are.
        let honest = signed_for(&made, "test-chain", 5);
        desk.receive(1, &Message::Vote(honest.clone()));
        assert!(desk.replica.consensus().votes(Round::ZERO, honest.kind).is_none_or(|set| set.votes().next().is_none()), "{what}");
        desk.receive(2, &Message::Vote(honest.clone()));
        let held: Vec<Vote> = desk.replica.consensus().votes(Round::ZERO, honest.kind).unwrap().votes().cloned().collect();
        assert_eq!(held, [honest], "{what}");
        assert_eq!((disconnects(&desk, 2), points(&desk, 2)), (0, 0), "{what}");
    }
}

#[test]
fn parts_that_are_not_of_their_body_cost_the_connection() {
    let made = Made::of(1);
    let mut desk = desk(&made);
    let (header, parts) = cut(&[7; PART_BYTES + 1]);
    let block_id = BlockId { hash: Hash([7; 32]), parts: header };
    // The proposal that names the parts is the proposer's.
    let chain = start(&made.genesis).0;
    let signer = key_of(&chain.validators.get(chain.validators.proposer(Round::ZERO)).unwrap().public_key);
    let mut proposal = Proposal { height: height(1), round: Round::ZERO, pol_round: None, block_id, ..proposal() };
    proposal.signature = signer.sign(&proposal.sign_bytes(&chain_id()));
    desk.receive(2, &Message::Proposal { proposal, first: None });
    for n in 1..=2 {
        let mut part = parts[0].clone();
        part.bytes[0] ^= n;
        desk.receive(1, &Message::Part { height: height(1), header, part });
        assert_eq!(disconnects(&desk, 1), usize::from(n == 2));
    }
    desk.receive(2, &Message::Part { height: height(1), header, part: parts[0].clone() });
    assert_eq!(points(&desk, 2), 0);
}

/// Asking too often is scored, by the shell, which forgives with time; it is no lie.
#[test]
fn a_flood_of_questions_is_left_to_the_score() {
    let made = Made::of(0);
    let mut desk = desk(&made);
    for ask in 0..300 {
        desk.ask(1, ask, &Question::Blocks { from: height(1), count: 1 });
    }
    let answered = desk.answers();
    assert!(answered.iter().all(|(_, answer)| matches!(answer, Answer::Unavailable(_))), "there is no block");
    assert!(points(&desk, 1) >= 100);
    assert_eq!(disconnects(&desk, 1), 0);
}

#[test]
fn a_wrong_block_of_block_sync_costs_the_connection() {
    let made = Made::of(2);
    let mut desk = desk(&made);
    desk.receive(1, &Message::Status(Status { base: Height::FIRST, tip: height(2) }));
    for _ in 0..100 {
        match desk.question() {
            Some((job, 1, Question::Blocks { .. })) => {
                let (_, body, commit) = made.block(2).clone();
                desk.reply(job, Some(&Answer::Blocks(vec![(body, commit)])));
                assert_eq!(disconnects(&desk, 1), 1, "a block of another height than the one asked for");
                return;
            }
            Some((job, ..)) => desk.reply(job, None),
            None => desk.pass(std::time::Duration::from_millis(50)),
        }
    }
    panic!("nothing was asked");
}

/// Forged votes wait for their verdicts; those of others are verified beside them.
#[test]
fn a_flood_of_forged_votes_does_not_keep_others_from_being_verified() {
    let made = Made::of(1);
    let mut desk = desk(&made);
    desk.held_checks = Some(Vec::new());
    let forged = |n: u32| {
        let mut signature = [9; 64];
        signature[..4].copy_from_slice(&n.to_le_bytes());
        Message::Vote(Vote { signature: Signature(signature), ..signed_for(&made, "test-chain", 1) })
    };
    (0..10_000).for_each(|n| desk.receive(1, &forged(n)));
    let held = |desk: &Desk| desk.held_checks.as_ref().map_or(0, Vec::len);
    let flood = held(&desk);
    assert!((1..=1_024).contains(&flood), "{flood} of 10,000 are being verified");
    desk.receive(2, &Message::Vote(signed_for(&made, "test-chain", 2)));
    assert_eq!(held(&desk), flood + 1, "the honest vote is too");
}
