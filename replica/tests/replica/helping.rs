//! Peers are given what they say they lack, and not without end.

use std::time::Duration;

use lockstep_replica::Effect;
use lockstep_replica::seam::Target;
use lockstep_replica::wire::{Bits, Have, Message, Status};
use lockstep_types::block::{PART_BYTES, cut};
use lockstep_types::{Block, ConsensusParams, Height, Proposal, Round};

use crate::desk::{Desk, Made};
use crate::support::*;

/// What it says: everything of the proposal but its body.
fn lacks_all() -> Message {
    Message::Have(Have {
        status: Status { base: Height::FIRST, tip: Height::ZERO },
        height: Height::FIRST,
        round: Round::ZERO,
        step: 0,
        proposal: true,
        polka: false,
        parts: Bits::default(),
        prevotes: Bits::default(),
        precommits: Bits::default(),
        missing_polka: None,
    })
}

/// Bytes of parts that this peer was sent.
fn sent(desk: &Desk, to: u64) -> usize {
    let part = |effect: &Effect| match effect {
        Effect::Send { to: Target::One(peer), bytes, .. } if peer.0 == to => match Message::decode(bytes) {
            Ok(Message::Part { part, .. }) => part.bytes.len(),
            _ => 0,
        },
        _ => 0,
    };
    desk.out.iter().map(part).sum()
}

#[test]
fn who_lacks_a_large_body_again_and_again_gets_it_at_a_bounded_rate() {
    let mut made = Made::new(ConsensusParams::default());
    let txs: Vec<Vec<u8>> = (0..110).map(|n| [format!("large{n}=").as_bytes(), &vec![b'x'; 64_000][..]].concat()).collect();
    made.grow(&txs.iter().map(|tx| &tx[..]).collect::<Vec<_>>());
    let (block_id, body, _) = made.block(1).clone();
    let time = Block::decode(&body).expect("a block").header.time;
    let set = start(&made.genesis).0.validators;
    let mut proposal = Proposal { height: Height::FIRST, round: Round::ZERO, pol_round: None, block_id, timestamp: time, ..proposal() };
    let proposer = set.get(set.proposer(Round::ZERO)).expect("a proposer").public_key;
    proposal.signature = key_of(&proposer).sign(&proposal.sign_bytes(&chain_id()));

    let mut desk = Desk::new(&made, None);
    desk.connect(1, None);
    desk.connect(2, None);
    let (_, parts) = cut(&body);
    desk.receive(1, &Message::Proposal { proposal, first: parts.first().cloned() });
    for part in parts.iter().skip(1) {
        desk.receive(1, &Message::Part { height: Height::FIRST, header: block_id.parts, part: part.clone() });
    }
    desk.out.clear();
    for _ in 0..40 {
        desk.receive(2, &lacks_all());
        desk.pass(Duration::from_millis(5));
    }
    let given = sent(&desk, 2);
    assert!(given >= PART_BYTES, "it is helped");
    // 8 MiB a second for the 0.2 s, and what one answer may have beyond that.
    assert!(given <= (8 << 20) / 5 + 32 * PART_BYTES, "{given} bytes in 0.2 s");
}

/// What cannot be looked up when a block is judged says nothing of the block: others may be locked on it, and a verdict would stay for all
/// rounds (two validators whose disks had failed to read one block once kept a chain of thirteen from deciding).
#[test]
fn a_block_that_could_not_be_judged_is_judged_again_when_it_is_named_again() {
    let made = Made::of(1);
    let (block_id, body, _) = made.block(1).clone();
    let time = Block::decode(&body).expect("a block").header.time;
    let set = start(&made.genesis).0.validators;
    let (_, parts) = cut(&body);
    let mut desk = Desk::new(&made, None);
    desk.connect(1, None);
    desk.unknown = 2;
    let mut propose = |round: u32| {
        let round = Round::new(round).expect("a round");
        let proposer = set.get(set.proposer(round)).expect("a proposer").public_key;
        let mut proposal = Proposal { height: Height::FIRST, round, pol_round: None, block_id, timestamp: time, ..proposal() };
        proposal.signature = key_of(&proposer).sign(&proposal.sign_bytes(&chain_id()));
        desk.receive(1, &Message::Proposal { proposal, first: parts.first().cloned() });
        desk.judged.len()
    };
    assert_eq!((0..5).map(&mut propose).collect::<Vec<_>>(), [1, 2, 3, 3, 3], "until it could be");
    assert!(desk.judged.iter().all(|judged| *judged == block_id));
}
