//! What peers and Byzantine validators can do to a replica: its own core, with encoded bytes, real signatures and real checks.

use std::time::Duration;

use bytes::Bytes;
use lockstep_replica::seam::{Mono, Peer, ReadAnswer, Target};
use lockstep_replica::source::BlockSource;
use lockstep_replica::wire::{Answer, BITS_MAX, Bits, Have, Message, Question, Status, VoteBatch};
use lockstep_replica::{Effect, Input, Now};
use lockstep_storage::log::{BlockLog, LogOptions};
use lockstep_types::block::{PARTS_MAX, Part, part_set_header};
use lockstep_types::{
    AppHash, Block, BlockId, Commit, Hash, Height, PartSetHeader, Polka, Proposal, Round, Time, ValidatorIndex, ValidatorSet, Vote,
    VoteType,
};

use crate::desk::{Desk, Made};
use crate::files::Memory;
use crate::support::*;

/// The peer that attacks.
const LIAR: u64 = 1;
/// A peer that does not.
const HONEST: u64 = 2;

/// A name of which no bytes exist.
fn no_block(name: &str) -> BlockId {
    BlockId { hash: Hash::of(name), parts: PartSetHeader { total: 1, hash: Hash::of(name) } }
}

fn now(desk: &Desk) -> Time {
    at(1_767_409_445, 0).saturating_add(Duration::from_nanos(desk.now.0))
}

fn nil_vote(kind: VoteType, h: u64, r: Round) -> Vote {
    Vote { kind, height: height(h), round: r, block_id: None, valid_round: None, ..vote() }
}

/// A proposal of the one whose turn it is, really signed.
fn signed_proposal(set: &ValidatorSet, proposal: Proposal) -> Proposal {
    let signature = key_at(set, set.proposer(proposal.round).index() as u32).sign(&proposal.sign_bytes(&chain_id()));
    Proposal { signature, ..proposal }
}

/// The polka of these places.
fn signed_polka(set: &ValidatorSet, places: &[u32], h: u64, r: Round, block_id: BlockId) -> Polka {
    let votes = places.iter().map(|place| {
        let vote = Vote { block_id: Some(block_id), ..nil_vote(VoteType::Prevote, h, r) };
        let signed = signed_vote(set, *place, vote);
        lockstep_types::commit::PolkaSig { validator: signed.validator, timestamp: signed.timestamp, signature: signed.signature }
    });
    Polka { height: height(h), round: r, block_id, valid_round: None, signatures: votes.collect() }
}

fn have(h: u64, r: Round) -> Have {
    Have {
        status: Status { base: Height::FIRST, tip: height(h - 1) },
        height: height(h),
        round: r,
        step: 1,
        proposal: false,
        polka: false,
        parts: Bits::default(),
        prevotes: Bits::default(),
        precommits: Bits::default(),
        missing_polka: None,
    }
}

/// What was sent to one peer, and forgets it.
fn sent_to(desk: &mut Desk, who: u64) -> Vec<Message> {
    let mut sent = Vec::new();
    desk.out.retain(|effect| match effect {
        Effect::Send { to: Target::One(peer), bytes, .. } if peer.0 == who => {
            sent.push(Message::decode(bytes).expect("what we send decodes"));
            false
        }
        _ => true,
    });
    sent
}

/// What was sent to all, and forgets it.
fn sent_to_all(desk: &mut Desk) -> Vec<Message> {
    let mut sent = Vec::new();
    desk.out.retain(|effect| match effect {
        Effect::Send { to: Target::All, bytes, .. } => {
            sent.push(Message::decode(bytes).expect("what we send decodes"));
            false
        }
        _ => true,
    });
    sent
}

fn signs(desk: &Desk) -> bool {
    desk.out.iter().any(|effect| matches!(effect, Effect::Sign { .. }))
}

/// A replica of this chain before its first block, with the liar and an honest peer.
fn watched(made: &Made, me: Option<u8>) -> Desk {
    let mut desk = Desk::new(made, me);
    desk.connect(LIAR, None);
    desk.connect(HONEST, None);
    desk
}

/// The cloned node's vote is a later one than any of ours, or another one for the same place: from then on nothing is signed.
#[test]
fn attack_11_a_vote_of_a_clone_stops_signing() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    let me = 1;
    let place = (0..4).find(|place| key_at(&set, *place).public_key() == key(me).public_key()).expect("a validator");
    let clones = [
        signed_vote(&set, place, nil_vote(VoteType::Prevote, 1, round(7))),
        signed_vote(&set, place, Vote { block_id: Some(no_block("clone")), ..nil_vote(VoteType::Prevote, 1, Round::ZERO) }),
    ];
    for clone in clones {
        let mut desk = watched(&made, Some(me));
        // Nobody knows of a message of ours. Past the wait for those who do not answer, and into a round that we speak in.
        let (job, _, question) = desk.question().expect("our own messages are asked for");
        assert!(matches!(question, Question::Signed { .. }), "{question:?}");
        desk.reply(job, Some(&Answer::Signed(Vec::new(), Vec::new())));
        desk.pass(Duration::from_secs(3));
        assert!(signs(&desk) && desk.replica.silent().is_none(), "it is a validator that signs");

        let forged = Vote { signature: vote().signature, ..clone.clone() };
        desk.receive(LIAR, &Message::Vote(forged));
        assert!(desk.replica.silent().is_none(), "who has not the key stops nobody");
        assert_eq!(desk.refused(LIAR).len(), 1);

        desk.receive(LIAR, &Message::Vote(clone));
        let reason = desk.replica.silent().expect("somebody else signs with this key").to_owned();
        assert!(reason.contains("another process signs with the same key"), "{reason}");
        desk.out.clear();
        desk.pass(Duration::from_secs(60));
        assert!(!signs(&desk), "nothing is signed any more");
    }
}

#[test]
fn attack_13_old_and_repeated_messages_cost_no_signature_check() {
    let made = Made::of(4);
    let mut desk = watched(&made, None);
    desk.follow(&made, HONEST);
    desk.held_checks = Some(Vec::new());
    let set = made.chain.validators.clone();
    let old = signed_vote(&set, 0, nil_vote(VoteType::Prevote, 2, Round::ZERO));
    let (block_id, _, commit) = made.block(2).clone();
    let polka = signed_polka(&set, &[0, 1, 2], 2, Round::ZERO, block_id);
    for _ in 0..10_000 {
        desk.receive(LIAR, &Message::Vote(old.clone()));
        desk.receive(LIAR, &Message::Votes(VoteBatch(vec![old.clone(); 8])));
        desk.receive(LIAR, &Message::Commit(commit.clone()));
        desk.receive(LIAR, &Message::Polka(polka.clone()));
    }
    assert_eq!(desk.held_checks.as_ref().map(Vec::len), Some(0), "what is over is not verified");

    let current = signed_vote(&set, 0, nil_vote(VoteType::Prevote, 5, Round::ZERO));
    for peer in [LIAR, HONEST] {
        for _ in 0..1_000 {
            desk.receive(peer, &Message::Vote(current.clone()));
        }
    }
    let held = desk.held_checks.take().expect("held");
    assert_eq!(held.len(), 1, "one vote from many is verified once");
    for (job, checks) in held {
        desk.step(Input::Verified { job, verdicts: vec![true; checks.len()] });
    }
    desk.held_checks = Some(Vec::new());
    for _ in 0..1_000 {
        desk.receive(LIAR, &Message::Vote(current.clone()));
    }
    assert_eq!(desk.held_checks.as_ref().map(Vec::len), Some(0), "nor is one that is held");
}

/// One who locked on a polka that the others never saw shows it to whoever says that it has none.
#[test]
fn attack_18_a_polka_that_was_withheld_is_relayed() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    let mut desk = watched(&made, None);
    let polka = signed_polka(&set, &[0, 1, 3], 1, Round::ZERO, no_block("hidden"));
    desk.receive(LIAR, &Message::Polka(polka.clone()));
    assert!(desk.refused(LIAR).is_empty());
    sent_to(&mut desk, HONEST);
    desk.receive(HONEST, &Message::Have(have(1, Round::ZERO)));
    let sent = sent_to(&mut desk, HONEST);
    assert!(sent.contains(&Message::Polka(polka)), "{sent:?}");
}

/// A value is proposed again on the strength of a polka that never came here: we say which one we lack, and give it when
/// somebody else lacks it.
#[test]
fn attack_19_a_missing_polka_is_asked_for_and_given() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    let mut desk = watched(&made, None);
    for place in [0, 1] {
        desk.receive(HONEST, &Message::Vote(signed_vote(&set, place, nil_vote(VoteType::Prevote, 1, round(1)))));
    }
    assert_eq!(desk.replica.consensus().round(), round(1), "more than a third is in round 1");
    let block_id = no_block("again");
    let again =
        Proposal { height: height(1), round: round(1), pol_round: Some(Round::ZERO), block_id, timestamp: now(&desk), ..proposal() };
    desk.receive(LIAR, &Message::Proposal { proposal: signed_proposal(&set, again), first: None });
    assert!(desk.refused(LIAR).is_empty());
    sent_to_all(&mut desk);
    desk.pass(Duration::from_millis(400));
    let lacks = |message: &Message| matches!(message, Message::Have(have) if have.missing_polka == Some(Round::ZERO));
    assert!(sent_to_all(&mut desk).iter().any(lacks), "it says which polka it lacks");

    let polka = signed_polka(&set, &[0, 1, 3], 1, Round::ZERO, block_id);
    desk.receive(HONEST, &Message::Polka(polka.clone()));
    sent_to_all(&mut desk);
    desk.pass(Duration::from_secs(2));
    assert!(!sent_to_all(&mut desk).iter().any(lacks), "it lacks it no more");
    sent_to(&mut desk, LIAR);
    desk.receive(LIAR, &Message::Have(Have { missing_polka: Some(Round::ZERO), polka: true, ..have(1, round(1)) }));
    assert!(sent_to(&mut desk, LIAR).contains(&Message::Polka(polka)), "and gives it to others");
}

/// Numbers at which arithmetic ends, and beside which rules change.
const ROUNDS: [Round; 5] = [Round::ZERO, Round::new(1).unwrap(), Round::new(3).unwrap(), Round::new(1 << 20).unwrap(), Round::MAX];

fn heights() -> Vec<Height> {
    vec![Height::ZERO, Height::FIRST, height(2), height(3), Height::MAX.previous(), Height::MAX]
}

fn block_ids() -> Vec<BlockId> {
    let of = |total| BlockId { hash: Hash::of("x"), parts: PartSetHeader { total, hash: Hash::of("y") } };
    [0, 1, 65, PARTS_MAX, PARTS_MAX + 1, u32::MAX].map(of).to_vec()
}

/// Every message that a Byzantine validator may sign with the extremes in it, and what any peer may say.
fn extremes(set: &ValidatorSet) -> Vec<Message> {
    let mut all = Vec::new();
    for h in heights() {
        for r in ROUNDS {
            for kind in [VoteType::Prevote, VoteType::Precommit] {
                for block_id in block_ids().into_iter().map(Some).chain([None]) {
                    for valid_round in [None, Some(Round::ZERO), Some(Round::MAX)] {
                        let vote = Vote { kind, height: h, round: r, block_id, valid_round, ..vote() };
                        all.push(Message::Vote(signed_vote(set, 0, vote)));
                    }
                }
                for validator in [4, ValidatorIndex::MAX.index() as u32] {
                    all.push(Message::Vote(Vote { validator: index(validator), ..nil_vote(kind, 1, r) }));
                }
            }
            for block_id in block_ids() {
                for pol_round in [None, Some(Round::ZERO), Some(Round::MAX)] {
                    let proposal = Proposal { height: h, round: r, pol_round, block_id, timestamp: Time::MAX, ..proposal() };
                    all.push(Message::Proposal { proposal: proposal.clone(), first: Some(part()) });
                    if r.get() < 4 {
                        all.push(Message::Proposal { proposal: signed_proposal(set, proposal), first: None });
                    }
                }
                let header = block_id.parts;
                for index in [0, 1, PARTS_MAX, u32::MAX] {
                    all.push(Message::Part { height: h, header, part: Part { index, ..part() } });
                }
                all.push(Message::Polka(Polka { height: h, round: r, block_id, ..polka() }));
                let none = vec![lockstep_types::CommitSig::Absent; 4];
                all.push(Message::Commit(Commit { height: h, round: r, block_id, signatures: none }));
            }
            for missing_polka in [None, Some(Round::MAX)] {
                let bits = Bits::of(0..BITS_MAX);
                let status = Status { base: h, tip: h };
                let (parts, prevotes, precommits) = (bits.clone(), bits.clone(), bits);
                let claims = Have {
                    status,
                    height: h,
                    round: r,
                    step: 255,
                    proposal: true,
                    polka: true,
                    parts,
                    prevotes,
                    precommits,
                    missing_polka,
                };
                all.push(Message::Have(claims.clone()));
                all.push(Message::Have(Have { status: Status { base: Height::MAX, tip: Height::ZERO }, ..claims }));
            }
        }
        all.push(Message::Status(Status { base: h, tip: Height::MAX }));
        all.push(Message::Status(Status { base: Height::MAX, tip: h }));
    }
    all
}

/// Whatever a peer says, and whatever one validator signs: nobody panics or halts, what is held stays small, and the chain
/// goes on.
#[test]
fn attack_20_extremes_in_every_field_change_nothing() {
    let made = Made::of(3);
    for me in [None, Some(3)] {
        let mut desk = watched(&made, me);
        let mut refused = 0;
        for (number, message) in extremes(&made.chain.validators).iter().enumerate() {
            // Each from a peer of its own: one that is caught twice is thrown out and not heard any more.
            let liar = 1_000 + number as u64;
            desk.connect(liar, None);
            desk.receive(liar, message);
            refused += desk.refused(liar).len();
            assert!(desk.replica.consensus().rounds().count() <= 8, "{message:?} makes another round");
            desk.step(Input::PeerDown { peer: Peer(liar) });
            desk.out.clear();
        }
        assert!(refused > 100, "{refused} of them are refused");
        assert_eq!(desk.replica.consensus().round(), Round::ZERO, "one validator moves nobody to another round");
        desk.follow(&made, HONEST);
    }
}

/// Heights and rounds far ahead by thousands, all signed by one validator: the same room as one of them.
#[test]
fn attack_20_votes_for_thousands_of_rounds_take_the_room_of_one() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    let mut desk = watched(&made, None);
    for r in 1..5_000 {
        for kind in [VoteType::Prevote, VoteType::Precommit] {
            desk.receive(LIAR, &Message::Vote(signed_vote(&set, 0, nil_vote(kind, 1, round(r)))));
        }
        desk.receive(LIAR, &Message::Vote(signed_vote(&set, 0, nil_vote(VoteType::Prevote, 1 + u64::from(r), Round::ZERO))));
    }
    assert!(desk.replica.consensus().rounds().count() <= 4, "rounds that are kept");
    let votes: usize = desk
        .replica
        .consensus()
        .rounds()
        .flat_map(|round| [VoteType::Prevote, VoteType::Precommit].map(|kind| (round, kind)))
        .filter_map(|(round, kind)| desk.replica.consensus().votes(round, kind).map(|set| set.votes().count()))
        .sum();
    assert!(votes <= 8, "{votes} votes of one validator are kept");
    // The honest ones meet in round 2, and are heard.
    for place in [1, 2] {
        desk.receive(HONEST, &Message::Vote(signed_vote(&set, place, nil_vote(VoteType::Prevote, 1, round(2)))));
    }
    assert_eq!(desk.replica.consensus().round(), round(2));
}

#[test]
fn attack_22_an_unknown_or_former_validator_is_refused_and_scored() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    let votes = |validator: u32| {
        let vote = Vote { validator: index(validator), ..nil_vote(VoteType::Prevote, 1, Round::ZERO) };
        // Of a key that is in no set of this chain any more.
        Vote { signature: key(77).sign(&vote.sign_bytes(&chain_id())), ..vote }
    };
    let good = signed_polka(&set, &[0, 1, 3], 1, Round::ZERO, no_block("x"));
    let mut polka_index = good.clone();
    polka_index.signatures[2].validator = ValidatorIndex::MAX;
    let mut long = made_commit(&set);
    long.signatures.push(lockstep_types::CommitSig::Absent);
    let mut short = made_commit(&set);
    short.signatures.pop();
    let attacks = [
        Message::Vote(votes(4)),
        Message::Vote(votes(ValidatorIndex::MAX.index() as u32)),
        Message::Vote(votes(0)),
        Message::Votes(VoteBatch(vec![votes(4)])),
        Message::Polka(polka_index),
        Message::Commit(long),
        Message::Commit(short),
    ];
    for attack in attacks {
        let mut desk = watched(&made, None);
        desk.receive(LIAR, &attack);
        assert_eq!(desk.refused(LIAR).len(), 1, "{attack:?}");
        assert_eq!(desk.replica.chain().height, Height::ZERO);
    }
    let mut desk = watched(&made, None);
    desk.receive(LIAR, &Message::Polka(good));
    assert!(desk.refused(LIAR).is_empty(), "what was broken above is good");
}

fn made_commit(set: &ValidatorSet) -> Commit {
    signed_commit(set, &[0, 1, 3], 1, no_block("x"), at(1_767_323_045, 1))
}

/// The set says how many validators there are; what is in a bitmap beyond them is nothing.
#[test]
fn attack_23_a_bitmap_of_any_length_is_read_against_the_set() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    let mut desk = watched(&made, None);
    for place in 0..2 {
        desk.receive(HONEST, &Message::Vote(signed_vote(&set, place, nil_vote(VoteType::Prevote, 1, Round::ZERO))));
    }
    for (bits, lacking) in [(Bits::of(0..BITS_MAX), 0), (Bits::of([0]), 1), (Bits::of([2, 3, 4, 1_000]), 2), (Bits::default(), 2)] {
        desk.pass(Duration::from_millis(60));
        sent_to(&mut desk, LIAR);
        desk.receive(LIAR, &Message::Have(Have { prevotes: bits, ..have(1, Round::ZERO) }));
        let votes = sent_to(&mut desk, LIAR).into_iter().map(|message| if let Message::Votes(batch) = message { batch.0.len() } else { 0 });
        assert_eq!(votes.sum::<usize>(), lacking);
    }
    // A longer one does not decode: its length is claimed beyond any set and any body.
    let mut bytes = Message::Have(Have { prevotes: Bits::of([BITS_MAX - 1]), ..have(1, Round::ZERO) }).encode().to_vec();
    let claim = u32::try_from(BITS_MAX.div_ceil(8)).expect("small").to_le_bytes();
    let at = bytes.windows(4).rposition(|window| window == claim).expect("the length is there");
    bytes.insert(at + 4, 1);
    bytes[at] += 1;
    assert!(Message::decode(&bytes).is_err());
}

/// Right bytes under a wrong index, and wrong bytes under a right one, are refused; the good part that comes later counts.
#[test]
fn attack_24_a_part_in_the_wrong_place_does_not_block_the_right_one() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    let mut desk = watched(&made, None);
    let body: Vec<u8> = (0..50_000u32).flat_map(|n| n.to_le_bytes()).take(150_000).collect();
    let (parts_header, parts) = lockstep_types::block::cut(&body);
    assert_eq!((parts.len(), parts_header), (3, part_set_header(&body)));
    let block_id = BlockId { hash: Hash::of("large"), parts: parts_header };
    let proposal = Proposal { height: height(1), round: Round::ZERO, pol_round: None, block_id, timestamp: now(&desk), ..proposal() };
    desk.receive(HONEST, &Message::Proposal { proposal: signed_proposal(&set, proposal), first: None });
    let send = |desk: &mut Desk, peer, part: Part| desk.receive(peer, &Message::Part { height: height(1), header: parts_header, part });
    let mut attacks = Vec::new();
    for part in &parts {
        for index in [0, 1, 2, 3, u32::MAX] {
            attacks.extend((index != part.index).then(|| Part { index, ..part.clone() }));
        }
        let mut other = part.clone();
        other.bytes[0] ^= 1;
        attacks.push(other);
        let mut shorter = part.clone();
        shorter.bytes.pop();
        attacks.push(shorter);
        let mut proof = part.clone();
        proof.aunts.push(Hash::of("one more"));
        attacks.push(proof);
    }
    for (number, attack) in attacks.into_iter().enumerate() {
        // Each from a peer of its own: one that is caught twice is thrown out and not heard any more.
        let liar = 1_000 + number as u64;
        desk.connect(liar, None);
        let index = attack.index;
        send(&mut desk, liar, attack);
        assert_eq!(desk.refused(liar).len(), 1, "attack {number}, index {index}, is its sender's fault");
    }
    for part in parts {
        send(&mut desk, HONEST, part);
    }
    desk.receive(LIAR, &Message::Have(Have { proposal: true, ..have(1, Round::ZERO) }));
    let given = sent_to(&mut desk, LIAR).into_iter().filter(|message| matches!(message, Message::Part { .. })).count();
    assert_eq!(given, 3, "the body is whole here");
    assert!(desk.refused(HONEST).is_empty());
}

#[test]
fn attack_25_a_proposal_of_no_parts_or_too_many_is_refused_before_a_part_is_kept() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    for (total, is_refused) in [(0, true), (1, false), (PARTS_MAX, false), (PARTS_MAX + 1, true), (u32::MAX, true)] {
        let mut desk = watched(&made, None);
        let block_id = BlockId { hash: Hash::of("x"), parts: PartSetHeader { total, hash: Hash::of("y") } };
        let proposal = Proposal { height: height(1), round: Round::ZERO, pol_round: None, block_id, timestamp: now(&desk), ..proposal() };
        desk.receive(LIAR, &Message::Proposal { proposal: signed_proposal(&set, proposal), first: None });
        assert_eq!(!desk.refused(LIAR).is_empty(), is_refused, "{total} parts");
        desk.receive(HONEST, &Message::Have(have(1, Round::ZERO)));
        let told = sent_to(&mut desk, HONEST).iter().any(|message| matches!(message, Message::Proposal { .. }));
        assert_eq!(told, !is_refused, "what is refused is not passed on");
    }
}

/// More than two thirds certified a state that is not ours: we are the one that is wrong, and heal.
#[test]
fn attack_38_a_certified_root_that_is_not_ours_stops_signing_and_heals() {
    let mut made = Made::of(2);
    let (_, body, _) = made.block(2).clone();
    let mut block = Block::decode(&body).expect("a block");
    block.header.app_hash = AppHash::from(Hash::of("another state"));
    let body = Bytes::from(block.encode());
    let block_id = BlockId { hash: block.header.hash(), parts: part_set_header(&body) };
    let commit = signed_commit(&made.chain.validators, &[0, 1, 2, 3], 2, block_id, block.header.time);
    made.blocks[1] = (block_id, body, commit);
    let mut desk = watched(&made, None);
    desk.receive(HONEST, &Message::Status(Status { base: Height::FIRST, tip: height(2) }));
    let heal =
        |desk: &Desk| desk.out.iter().find_map(|effect| if let Effect::Heal { finding } = effect { Some(finding.clone()) } else { None });
    for _ in 0..100 {
        match desk.question() {
            Some((job, _, question)) => desk.reply(job, Some(&made.answer(&question))),
            None => desk.pass(Duration::from_millis(50)),
        }
        if heal(&desk).is_some() {
            break;
        }
    }
    let finding = heal(&desk).expect("the home is to be opened again");
    assert_eq!(finding.height(), height(1), "the state after height 1 is what the header of height 2 contradicts");
    assert!(finding.what().contains(&Hash::of("another state").to_string()), "{}", finding.what());
    assert!(desk.replica.silent().is_some(), "nothing is signed any more");
    desk.out.clear();
    desk.pass(Duration::from_secs(5));
    assert!(desk.out.is_empty(), "and nothing else is done in this life: {:?}", desk.out);
}

/// Bytes that are no message end a peer at once, forged signatures the second time.
#[test]
fn attack_43_forged_signatures_and_garbage_cost_their_sender_the_connection() {
    let made = Made::of(0);
    let set = made.chain.validators.clone();
    let points = |desk: &Desk| desk.refused(LIAR).iter().map(|(points, _)| *points).sum::<u32>();
    let forged_vote = Vote { signature: vote().signature, ..signed_vote(&set, 0, nil_vote(VoteType::Prevote, 1, Round::ZERO)) };
    let mut forged_polka = signed_polka(&set, &[0, 1, 3], 1, Round::ZERO, no_block("x"));
    forged_polka.signatures[1].signature = vote().signature;
    let mut forged_commit = made_commit(&set);
    let lockstep_types::CommitSig::Commit(slot) = &mut forged_commit.signatures[0] else { panic!("slot 0 signed") };
    slot.signature = vote().signature;
    let forged_proposal = Proposal { height: height(1), round: Round::ZERO, pol_round: None, ..proposal() };
    for forged in [
        Message::Vote(forged_vote),
        Message::Polka(forged_polka),
        Message::Commit(forged_commit),
        Message::Proposal { proposal: forged_proposal, first: None },
    ] {
        let mut desk = watched(&made, None);
        for _ in 0..2 {
            desk.receive(LIAR, &forged);
        }
        assert!(points(&desk) >= lockstep_network::POINTS_MAX, "{forged:?}: {:?}", desk.refused(LIAR));
    }
    let mut desk = watched(&made, None);
    desk.step(Input::Received { peer: Peer(LIAR), bytes: Bytes::from_static(&[1, 0xff]) });
    assert!(points(&desk) >= lockstep_network::POINTS_MAX);
}

/// Questions with every extreme, answered by the real reader of a real log: an answer or "not here", and never a panic.
#[test]
fn attack_57_questions_with_extremes_are_answered_and_stay_small() {
    let made = Made::of(3);
    let disk = Memory::shared();
    let (mut log, _) = BlockLog::open(disk, "log", LogOptions { salt: [1; 32], segment_bytes: 1 << 20 }).expect("a log");
    for (block_id, body, commit) in &made.blocks {
        let record = |kind, payload| lockstep_storage::log::Record {
            kind,
            height: commit.height.get(),
            round: 0,
            block_hash: block_id.hash.0,
            payload,
        };
        let decision = lockstep_types::codec::encode(lockstep_replica::wire::WIRE_VERSION, commit);
        log.append(record(lockstep_storage::log::Kind::Body, body)).expect("appended");
        log.append(record(lockstep_storage::log::Kind::Decision, &decision)).expect("appended");
    }
    log.sync().expect("durable");
    let mut source = BlockSource::new(log.reader());
    let mut desk = watched(&made, None);
    desk.follow(&made, HONEST);
    desk.out.clear();
    let counts = [0, 1, 64, u32::MAX - 1, u32::MAX];
    let ids: Vec<BlockId> = block_ids().into_iter().chain(made.blocks.iter().map(|(id, ..)| *id)).collect();
    let mut questions = Vec::new();
    for h in heights() {
        questions.extend(counts.map(|count| Question::Blocks { from: h, count }));
        questions.push(Question::Signed { address: key(1).public_key().address(), from: h });
        questions.extend(counts.map(|count| Question::Light { from: h, count }));
        questions.push(Question::Manifest { height: h });
        questions.push(Question::Chunk { height: h, root: lockstep_types::Hash([7; 32]), outline: None });
        questions.push(Question::Snapshots);
        for block_id in &ids {
            questions.push(Question::Body { height: h, block_id: *block_id });
            for from in counts {
                questions.extend(counts.map(|count| Question::Parts { height: h, block_id: *block_id, from, count }));
            }
        }
    }
    for (ask, question) in questions.iter().enumerate() {
        desk.ask(LIAR, ask as u64, question);
        for (job, what) in desk.reads() {
            let answer: ReadAnswer = source.read(&what).expect("the log is sound");
            desk.read_done(job, answer);
        }
        // What is due to a peer is paid before the next question.
        desk.pass(Duration::from_millis(200));
        let answers = desk.answers();
        assert_eq!(answers.len(), 1, "{question:?}");
        assert!(answers[0].1.encode().len() <= lockstep_replica::wire::SENT_BYTES_MAX);
        if let (Question::Blocks { from, count }, Answer::Blocks(blocks)) = (question, &answers[0].1) {
            assert!(!blocks.is_empty() && *count > 0 && *from <= made.chain.height, "{question:?}");
        }
    }
    assert!(desk.refused(LIAR).is_empty(), "strange questions are no lies: {:?}", desk.refused(LIAR));
}

/// After a failed sync nobody knows what is on the disk: the replica stops, says so, and does nothing more.
#[test]
fn attack_68_a_failed_sync_stops_everything_at_once() {
    let made = Made::of(1);
    let mut desk = watched(&made, Some(1));
    desk.pass(Duration::from_secs(1));
    let now = Now { mono: Mono(desk.now.0 + 1), wall: now(&desk) };
    let effects = desk.replica.step(now, Input::DiskFailed { reason: "input/output error".into() });
    let halts: Vec<&String> =
        effects.iter().filter_map(|effect| if let Effect::Halt { reason } = effect { Some(reason) } else { None }).collect();
    assert!(halts.len() == 1 && halts[0].contains("input/output error"), "{effects:?}");
    assert!(desk.replica.halted().is_some() && desk.replica.silent().is_some());
    for (_, message, _) in crate::examples::messages() {
        assert!(desk.replica.step(now, Input::Received { peer: Peer(LIAR), bytes: message.encode() }).is_empty());
    }
    assert!(desk.replica.step(now, Input::DiskFailed { reason: "again".into() }).is_empty(), "and says it once");
}
