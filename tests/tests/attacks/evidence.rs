//! Evidence as a weapon: true and false, old and new, in floods.

use lockstep_replica::Effect;
use lockstep_replica::wire::Message;
use lockstep_types::evidence::DuplicateVote;
use lockstep_types::{BlockId, Evidence, Signature, Vote};

use crate::desk::{Desk, Made};
use crate::support::*;

/// The peer that attacks.
const LIAR: u64 = 1;
/// A peer that does not.
const HONEST: u64 = 2;
/// Pieces of a flood.
const FLOOD: u32 = 2_000;

/// Two precommits of the validator at a place, for one round of a height.
fn twice(made: &Made, place: u32, h: u64, r: u32) -> DuplicateVote {
    let set = &made.chain.validators;
    let cast =
        |block: Option<BlockId>| signed_vote(set, place, Vote { height: height(h), round: round(r), block_id: block, ..nil_precommit() });
    let time = lockstep_types::Block::decode(&made.block(h).1).unwrap().header.time;
    DuplicateVote::from_votes(cast(None), cast(Some(block_id())), set, time).unwrap()
}

fn message(votes: DuplicateVote) -> Message {
    Message::Evidence(Box::new(Evidence::DuplicateVote(Box::new(votes))))
}

fn desk(made: &Made) -> Desk {
    let mut desk = Desk::new(made, None);
    desk.connect(LIAR, None);
    desk.connect(HONEST, None);
    desk.follow(made, HONEST);
    desk.out.clear();
    desk
}

fn frames(desk: &Desk) -> usize {
    desk.out.iter().filter(|effect| matches!(effect, Effect::Send { .. })).count()
}

/// Whoever holds a key makes as much true evidence against it as it likes: one piece of it is kept and told on, and the rest is
/// not even verified. Against another validator there is room all the while.
#[test]
fn attack_80_a_flood_of_true_evidence_is_one_piece() {
    let made = Made::of(4);
    let mut desk = desk(&made);
    for r in 0..FLOOD {
        desk.receive(LIAR, &message(twice(&made, 1, 3, r)));
    }
    assert_eq!(desk.replica.evidence().pending().count(), 1);
    assert_eq!(frames(&desk), 1, "it is told to the other peer, once");
    assert!(desk.refused(LIAR).is_empty(), "all of it is true");
    desk.receive(HONEST, &message(twice(&made, 2, 3, 0)));
    assert_eq!(desk.replica.evidence().pending().count(), 2);
}

/// False evidence ends the connection the second time, whatever is wrong with it; what is old, early or of no use any more
/// costs its sender nothing, and this node nothing either.
#[test]
fn attack_80_false_evidence_costs_its_sender_the_connection() {
    let made = Made::of(4);
    let wrong: [fn(&mut DuplicateVote); 5] = [
        |e| e.vote_a.signature = Signature([1; 64]),
        |e| e.timestamp = lockstep_types::Time::ZERO,
        |e| e.vote_b = e.vote_a.clone(),
        |e| e.total_power = lockstep_types::Power::new(41).unwrap(),
        |e| std::mem::swap(&mut e.vote_a, &mut e.vote_b),
    ];
    for change in wrong {
        let mut desk = desk(&made);
        for r in 0..FLOOD {
            let mut votes = twice(&made, 1, 3, 0);
            votes.vote_b.timestamp = at(i64::from(r), 0);
            change(&mut votes);
            desk.receive(LIAR, &message(votes));
        }
        let ended = desk.out.iter().filter(|effect| matches!(effect, Effect::Disconnect { peer, .. } if peer.0 == LIAR)).count();
        assert_eq!((ended, desk.refused(LIAR).len()), (1, 2), "nothing behind the second is looked at");
        assert!(desk.replica.evidence().is_empty() && desk.refused(HONEST).is_empty());
    }
}
