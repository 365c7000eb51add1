//! Evidence: what a block may carry, rule by rule; what waits for one; and what a node makes of what peers and clients tell.

use std::time::Duration;

use bytes::Bytes;
use lockstep_replica::check::{CheckFailure, CheckJob, check};
use lockstep_replica::evidence::pool::EvidencePool;
use lockstep_replica::evidence::rules::Refused;
use lockstep_replica::seam::{Peer, Reply, Report, RequestId, Target};
use lockstep_replica::wire::Message;
use lockstep_replica::{ChainState, Effect, Input};
use lockstep_types::block::{self, BlockId, PartSetHeader};
use lockstep_types::crypto::verify_batch;
use lockstep_types::evidence::{AttackFacts, DuplicateVote, EvidenceError, LightBlock, LightClientAttack, list_hash};
use lockstep_types::vote::Rejected;
use lockstep_types::{
    Block, Commit, ConsensusParams, Evidence, Hash, Header, Height, Power, Signature, Time, ValidatorSet, Vote, VoteType,
};

use crate::desk::{Desk, Made};
use crate::support::*;

/// Two precommits of a validator for one place of a height.
fn votes(set: &ValidatorSet, place: u32, h: u64, r: u32) -> (Vote, Vote) {
    let cast =
        |block: Option<BlockId>| signed_vote(set, place, Vote { height: height(h), round: round(r), block_id: block, ..nil_precommit() });
    (cast(None), cast(Some(block_id())))
}

/// Evidence of two votes at a height of this chain.
fn twice(made: &Made, place: u32, h: u64) -> Evidence {
    let set = if h == made.chain.height.get() { &made.chain.last_validators } else { &made.chain.validators };
    let (first, second) = votes(set, place, h, 0);
    Evidence::DuplicateVote(Box::new(DuplicateVote::from_votes(first, second, set, time_of(made, h)).unwrap()))
}

fn header_of(made: &Made, h: u64) -> Header {
    Block::decode(&made.block(h).1).unwrap().header
}

fn time_of(made: &Made, h: u64) -> Time {
    header_of(made, h).time
}

/// The next block with exactly this evidence, judged.
fn verdict_as(made: &Made, evidence: Vec<Evidence>, certified: bool) -> Result<(), CheckFailure> {
    let job = check_job(made, evidence, certified);
    made.executor.check(&job, &mut verify_batch).map(drop)
}

fn check_job(made: &Made, evidence: Vec<Evidence>, certified: bool) -> CheckJob {
    let built = made.executor.build(&made.next(&[], Vec::new()), &mut verify_batch);
    let header = Header { evidence_hash: list_hash(&evidence), ..built.block.header.clone() };
    let body = Block { header, evidence, ..(*built.block).clone() }.encode();
    let decoded = Block::decode(&body).unwrap();
    let block_id = BlockId { hash: decoded.header.hash(), parts: block::part_set_header(&body) };
    CheckJob { block_id, body: Bytes::from(body), chain: made.chain.clone(), known: None, certified }
}

fn verdict(made: &Made, evidence: Vec<Evidence>) -> Result<(), CheckFailure> {
    verdict_as(made, evidence, false)
}

/// Why the next block may not have this evidence.
fn refused(made: &Made, evidence: Vec<Evidence>) -> String {
    match verdict(made, evidence) {
        Err(CheckFailure::Invalid(reason)) => reason,
        other => panic!("expected an invalid block, got {other:?}"),
    }
}

fn changed(evidence: &Evidence, change: impl Fn(&mut DuplicateVote)) -> Vec<Evidence> {
    let Evidence::DuplicateVote(votes) = evidence else { panic!("two votes") };
    let mut votes = votes.clone();
    change(&mut votes);
    vec![Evidence::DuplicateVote(votes)]
}

#[test]
fn what_is_true_is_carried_and_takes_the_culprits_power() {
    let mut made = Made::of(5);
    for h in [5, 4, 1] {
        assert_eq!(verdict(&made, vec![twice(&made, 1, h)]), Ok(()), "of height {h}");
    }
    let both = vec![twice(&made, 1, 5), twice(&made, 2, 4)];
    assert_eq!(verdict(&made, both.clone()), Ok(()));
    let culprit = made.chain.validators.get(index(1)).unwrap().address;
    let before = made.chain.next_validators.len();
    let evidence = twice(&made, 1, 5);
    made.grow_with(&[], vec![evidence.clone()]);
    assert_eq!(Block::decode(&made.block(6).1).unwrap().evidence, std::slice::from_ref(&evidence));
    assert!(made.chain.follow_at_once, "what the evidence did shows in the next header");
    assert_eq!(made.chain.next_validators.len(), before - 1);
    assert_eq!(made.chain.next_validators.index_of(&culprit), None);
    let remembered = &made.chain.standing.committed_evidence;
    assert_eq!(remembered.len(), 1);
    assert_eq!((remembered[0].hash, remembered[0].height, remembered[0].time), (evidence.hash(), height(5), time_of(&made, 5)));
    assert!(refused(&made, vec![evidence]).contains("carried it already"));
    assert!(refused(&made, vec![twice(&made, 1, 4)]).contains("nobody whom it accuses"), "its power is gone");
}

#[test]
fn what_proves_nothing_makes_a_block_invalid() {
    let made = Made::of(3);
    let good = twice(&made, 1, 2);
    assert_eq!(verdict(&made, vec![good.clone()]), Ok(()));
    let power = |n| Power::new(n).unwrap();
    let last = made.chain.last_time;
    let other = made.chain.validators.get(index(2)).unwrap().address;
    type Change = Box<dyn Fn(&mut DuplicateVote)>;
    let table: Vec<(&str, Change)> = vec![
        ("time is not what the chain says", Box::new(move |e| e.timestamp = last)),
        ("total power is not", Box::new(move |e| e.total_power = power(41))),
        ("validator power is not", Box::new(move |e| e.validator_power = power(11))),
        ("validator address is not", Box::new(move |e| e.address = other)),
        ("wrong order", Box::new(|e| std::mem::swap(&mut e.vote_a, &mut e.vote_b))),
        ("do not differ", Box::new(|e| e.vote_b = e.vote_a.clone())),
        ("not for one height", Box::new(|e| e.vote_b.round = round(1))),
        ("not for one height", Box::new(|e| e.vote_b.kind = VoteType::Prevote)),
        ("not for one height", Box::new(|e| e.vote_b.validator = index(2))),
        ("signature does not verify", Box::new(|e| e.vote_a.signature = Signature([3; 64]))),
        ("signature does not verify", Box::new(|e| e.vote_b.timestamp = Time::ZERO)),
    ];
    for (why, change) in table {
        let reason = refused(&made, changed(&good, change));
        assert!(reason.contains(why), "{why}: {reason}");
    }
    // Votes of a height that has no block before it, and of one that is to come.
    let (first, second) = votes(&made.chain.validators, 1, 4, 0);
    let early = DuplicateVote::from_votes(first, second, &made.chain.validators, made.chain.last_time).unwrap();
    assert!(refused(&made, vec![Evidence::DuplicateVote(Box::new(early))]).contains("not followed by a block yet"));
    // Two prevotes for one block under two valid rounds are two values.
    let prevote = |valid_round| {
        let vote = Vote {
            kind: VoteType::Prevote,
            height: height(2),
            round: round(3),
            block_id: Some(block_id()),
            valid_round,
            ..nil_precommit()
        };
        signed_vote(&made.chain.validators, 1, vote)
    };
    let made_of = |a, b| DuplicateVote::from_votes(a, b, &made.chain.validators, time_of(&made, 2));
    let prevotes = made_of(prevote(Some(round(1))), prevote(None)).unwrap();
    assert_eq!(verdict(&made, vec![Evidence::DuplicateVote(Box::new(prevotes))]), Ok(()));
    assert_eq!(made_of(prevote(None), prevote(None)), None);
}

#[test]
fn evidence_expires_by_both_ages_together() {
    let made = |blocks, seconds: u64| {
        let mut params = ConsensusParams::default();
        (params.evidence.max_age_num_blocks, params.evidence.max_age_duration_ns) = (blocks, seconds * 1_000_000_000);
        let mut made = Made::new(params);
        (0..6).for_each(|_| made.grow(&[]));
        made
    };
    // Blocks are a second apart. The last is of height 6, so height 2 is 4 blocks and 4 seconds old.
    for (blocks, seconds, is_taken) in [(4, 4, true), (3, 4, true), (4, 3, true), (3, 3, false)] {
        let made = made(blocks, seconds);
        let verdict = verdict(&made, vec![twice(&made, 1, 2)]);
        assert_eq!(verdict.is_ok(), is_taken, "{blocks} blocks, {seconds} s: {verdict:?}");
        assert!(is_taken || refused(&made, vec![twice(&made, 1, 2)]).contains("expired"));
    }
    // What was carried is forgotten when it has expired, and not before.
    let mut made = made(3, 3);
    let evidence = twice(&made, 1, 6);
    made.grow_with(&[], vec![evidence]);
    let remembered: Vec<usize> = (0..5)
        .map(|_| {
            made.grow(&[]);
            made.chain.standing.committed_evidence.len()
        })
        .collect();
    assert_eq!(remembered, [1, 1, 0, 0, 0], "at heights 8 to 12");
}

#[test]
fn one_piece_for_each_culprit_and_no_more_bytes_than_allowed() {
    let made = Made::of(3);
    let (a, b) = (twice(&made, 1, 3), twice(&made, 1, 2));
    assert!(refused(&made, vec![a.clone(), b.clone()]).contains("nobody whom it accuses"));
    assert!(refused(&made, vec![a.clone(), a.clone()]).contains("nobody whom it accuses"));
    // The proposer leaves out what others would refuse.
    let built = made.executor.build(&made.next(&[], vec![a.clone(), b.clone(), twice(&made, 2, 3)]), &mut verify_batch);
    assert_eq!(built.block.evidence.len(), 2);
    assert_eq!(built.refused, [b.hash()]);

    let bytes = a.to_bytes().len() as u64;
    for (max, fits) in [(bytes, 1), (2 * bytes - 1, 1), (2 * bytes, 2), (bytes - 1, 0), (0, 0)] {
        let mut params = ConsensusParams::default();
        params.evidence.max_bytes = max;
        let mut made = Made::new(params);
        (0..3).for_each(|n| made.grow(&[format!("k{n}=v").as_bytes()]));
        let pieces = vec![twice(&made, 1, 3), twice(&made, 2, 3)];
        let built = made.executor.build(&made.next(&[], pieces.clone()), &mut verify_batch);
        assert_eq!(built.block.evidence.len(), fits, "{max} bytes");
        assert!(built.refused.is_empty(), "another block may have room");
        assert_eq!(verdict(&made, pieces[..fits].to_vec()), Ok(()));
        assert_eq!(EvidencePool::default().wants(&pieces[0], &made.chain), fits > 0, "what no block can carry is not kept");
        if fits < 2 {
            assert!(refused(&made, pieces[..=fits].to_vec()).contains("bytes of evidence"));
        }
    }
}

/// A node that does not know its own block of a height votes for no proposal that needs it, and does not refuse what more than two thirds decided.
#[test]
fn who_does_not_know_the_height_does_not_contradict_a_decision() {
    let made = Made::of(3);
    let evidence = || vec![twice(&made, 1, 2)];
    let verdict =
        |evidence, certified| check(made.executor.host(), made.executor.state(), &check_job(&made, evidence, certified)).map(drop);
    assert!(matches!(verdict(evidence(), false), Err(CheckFailure::Unknown(reason)) if reason.contains("not kept here")));
    assert_eq!(verdict(evidence(), true), Ok(()));
    let forged = changed(&evidence()[0], |e| e.vote_a.signature = Signature([3; 64]));
    assert!(matches!(verdict_as(&made, forged, true), Err(CheckFailure::Invalid(_))), "what can be judged is judged");
}

fn light_block(made: &Made, h: u64, places: &[u32], change: impl Fn(&mut Header)) -> LightBlock {
    let mut header = header_of(made, h.min(made.chain.height.get()));
    change(&mut header);
    header.height = height(h);
    let set = (*made.chain.validators).clone();
    let id = BlockId { hash: header.hash(), parts: PartSetHeader { total: 1, hash: Hash::of("parts") } };
    LightBlock { commit: signed_commit(&set, places, h, id, header.time), header, validators: set }
}

/// The commit for a height that the block after it carries.
fn carried(made: &Made, h: u64) -> Commit {
    Block::decode(&made.block(h + 1).1).unwrap().last_commit.unwrap()
}

#[test]
fn an_attack_on_light_clients_is_judged_by_the_chains_own_commit() {
    let made = Made::of(5);
    let attack = |block: LightBlock, common: u64| {
        let (header, commit) = match block.header.height.get() {
            h if h < 5 => (header_of(&made, h), Some(carried(&made, h))),
            _ => (header_of(&made, 5), None),
        };
        let facts = AttackFacts {
            common_validators: &made.chain.validators,
            common_time: time_of(&made, common),
            header: &header,
            commit: commit.as_ref(),
        };
        vec![Evidence::LightClientAttack(Box::new(LightClientAttack::from_block(block, height(common), &facts)))]
    };
    let lunatic = |header: &mut Header| header.app_hash = Hash::of("invented").into();
    let other = |header: &mut Header| header.data_hash = Hash::of("other");
    for (h, common, places, change) in [
        (4, 2, &[0, 1, 2][..], &lunatic as &dyn Fn(&mut Header)),
        (4, 2, &[0, 1, 2], &other),
        (3, 3, &[0, 2, 3], &other),
        (9, 2, &[0, 1, 2], &lunatic),
    ] {
        let evidence = attack(light_block(&made, h, places, change), common);
        assert_eq!(verdict(&made, evidence.clone()), Ok(()), "height {h} from {common}");
        assert!(!evidence[0].accused().is_empty());
    }
    let at_tip = attack(light_block(&made, 5, &[0, 1, 2], other), 2);
    assert!(refused(&made, changed_accused(at_tip, &made)).contains("not followed by a block yet"), "the next block settles its commit");
    let too_few = attack(light_block(&made, 4, &[0, 1], lunatic), 2);
    assert!(refused(&made, too_few).contains("signed by 20 of 40"));
    // The same attack shown again under another list of culprits has the same name.
    let evidence = attack(light_block(&made, 4, &[0, 1, 2], other), 2);
    let Evidence::LightClientAttack(one) = &evidence[0] else { unreachable!("just made") };
    let mut fewer = one.clone();
    fewer.byzantine_validators.pop();
    let fewer = Evidence::LightClientAttack(fewer);
    assert_eq!(fewer.hash(), evidence[0].hash());
    assert!(refused(&made, vec![fewer]).contains("the list of culprits"));
}

/// Names somebody, so that nothing else is wrong with it.
fn changed_accused(mut evidence: Vec<Evidence>, made: &Made) -> Vec<Evidence> {
    let Evidence::LightClientAttack(attack) = &mut evidence[0] else { panic!("an attack") };
    attack.byzantine_validators = vec![made.chain.validators.get(index(0)).unwrap().clone()];
    evidence
}

/// The pool keeps one piece for each validator with power, and lets go what no block can carry.
#[test]
fn the_pool_holds_one_piece_for_each_validator() {
    let mut made = Made::of(4);
    let mut pool = EvidencePool::default();
    let seen = |pool: &mut EvidencePool, chain: &ChainState, place, r| {
        let (first, second) = votes(&chain.last_validators, place, chain.height.get(), r);
        pool.saw(first, second);
    };
    // Whatever many contradictions are seen of one: one piece.
    (0..50).for_each(|r| seen(&mut pool, &made.chain, 1, r));
    seen(&mut pool, &made.chain, 2, 7);
    let made_of = pool.committed(&made.chain, &[]);
    assert_eq!(made_of, [twice_in(&made, 1, 0), twice_in(&made, 2, 7)]);
    assert_eq!(pool.committed(&made.chain, &[]), [], "what was seen is used up");
    assert!(!pool.add(twice(&made, 1, 3), &made.chain), "it is accused already");
    assert!(pool.add(twice(&made, 3, 3), &made.chain));
    assert_eq!(pool.pending().count(), 3);
    // A block carries one of them: its culprit has no power any more.
    let carried = twice(&made, 1, 3);
    made.grow_with(&[], vec![carried.clone()]);
    assert_eq!(pool.committed(&made.chain, std::slice::from_ref(&carried)), []);
    let left: Vec<_> = pool.pending().flat_map(Evidence::accused).collect();
    assert_eq!(left.len(), 2);
    assert!(!pool.wants(&carried, &made.chain));
    // What was seen at a height that this is not says nothing of it.
    seen(&mut pool, &made.chain, 0, 0);
    made.grow(&[]);
    assert_eq!(pool.committed(&made.chain, &[]), []);
}

/// Who hears of a piece before it has the block of its height cannot judge it, and the pieces of a height are told the moment that the first
/// decides it.
#[test]
fn what_is_new_is_told_once_more_with_the_next_block() {
    let mut made = Made::of(4);
    let mut pool = EvidencePool::default();
    let (first, second) = votes(&made.chain.last_validators, 1, made.chain.height.get(), 0);
    pool.saw(first, second);
    let told = |pool: &mut EvidencePool, peer| {
        let untold = pool.untold(Peer(peer), 8);
        untold.iter().for_each(|(hash, _)| pool.note_told(Peer(peer), *hash));
        untold.len()
    };
    pool.committed(&made.chain, &[]);
    assert_eq!((told(&mut pool, 1), told(&mut pool, 1), told(&mut pool, 2)), (1, 0, 1));
    made.grow(&[]);
    pool.committed(&made.chain, &[]);
    assert_eq!((told(&mut pool, 1), told(&mut pool, 1), told(&mut pool, 2)), (1, 0, 1), "with the next block");
    made.grow(&[]);
    pool.committed(&made.chain, &[]);
    assert_eq!((told(&mut pool, 1), told(&mut pool, 2)), (0, 0), "and no more: from then on it is a matter of time");
}

/// A peer that held another piece of the same culprit when it was told has room when a block carries that one.
#[test]
fn what_found_no_room_beside_what_is_carried_is_told_again() {
    let mut made = Made::of(4);
    let mut pool = EvidencePool::default();
    let (waits, others) = (twice(&made, 1, 3), twice(&made, 2, 3));
    assert!(pool.add(waits.clone(), &made.chain) && pool.add(others, &made.chain));
    let told = |pool: &mut EvidencePool| {
        let untold = pool.untold(Peer(1), 8);
        untold.iter().for_each(|(hash, _)| pool.note_told(Peer(1), *hash));
        untold.into_iter().map(|(_, piece)| piece).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut pool).len(), 2);
    let theirs = twice(&made, 1, 2);
    made.grow(&[]);
    pool.committed(&made.chain, &[theirs]);
    assert_eq!(told(&mut pool), std::slice::from_ref(&waits), "at once");
    made.grow(&[]);
    pool.committed(&made.chain, &[]);
    assert_eq!(told(&mut pool), [waits], "and with the next block, for who was a block behind");
    made.grow(&[]);
    pool.committed(&made.chain, &[]);
    assert_eq!(told(&mut pool), []);
}

fn twice_in(made: &Made, place: u32, r: u32) -> Evidence {
    let set = &made.chain.last_validators;
    let (first, second) = votes(set, place, made.chain.height.get(), r);
    Evidence::DuplicateVote(Box::new(DuplicateVote::from_votes(first, second, set, made.chain.last_time).unwrap()))
}

/// Whom the replica told of which evidence.
fn told(desk: &Desk) -> Vec<(u64, Evidence)> {
    let sent = |effect: &Effect| match effect {
        Effect::Send { to: Target::One(peer), bytes, .. } => match Message::decode(bytes) {
            Ok(Message::Evidence(evidence)) => Some((peer.0, *evidence)),
            _ => None,
        },
        _ => None,
    };
    desk.out.iter().filter_map(sent).collect()
}

fn following(made: &Made) -> Desk {
    let mut desk = Desk::new(made, None);
    desk.connect(1, None);
    desk.connect(2, None);
    desk.follow(made, 2);
    desk.out.clear();
    desk
}

#[test]
fn what_a_peer_tells_is_judged_and_told_on_once() {
    let made = Made::of(4);
    let mut desk = following(&made);
    let evidence = twice(&made, 1, 3);
    let message = Message::Evidence(Box::new(evidence.clone()));
    desk.receive(1, &message);
    assert_eq!(told(&desk), [(2, evidence.clone())], "not to who told it");
    assert!(desk.out.iter().any(|effect| matches!(effect, Effect::Report { report: Report::Evidence { .. }, .. })));
    desk.receive(2, &message);
    desk.receive(1, &message);
    assert_eq!(told(&desk).len(), 1);
    assert!(desk.refused(1).is_empty() && desk.refused(2).is_empty());
    // Who comes is told at once, and everybody again while it waits.
    desk.connect(3, None);
    assert_eq!(told(&desk).last(), Some(&(3, evidence.clone())));
    let before = told(&desk).len();
    desk.pass(Duration::from_millis(2_200));
    assert_eq!(told(&desk).len(), before + 3);
    // One more of the same culprit is not kept, and no reason to blame.
    desk.receive(1, &Message::Evidence(Box::new(twice(&made, 1, 2))));
    assert!(desk.replica.evidence().pending().eq([&evidence]) && desk.refused(1).is_empty());
}

#[test]
fn who_tells_what_proves_nothing_is_blamed_and_who_is_elsewhere_is_not() {
    let made = Made::of(4);
    let mut desk = following(&made);
    let good = twice(&made, 1, 3);
    let (first, second) = votes(&made.chain.validators, 2, 9, 0);
    let early = DuplicateVote::from_votes(first, second, &made.chain.validators, made.chain.last_time).unwrap();
    desk.receive(1, &Message::Evidence(Box::new(Evidence::DuplicateVote(Box::new(early)))));
    assert!(desk.refused(1).is_empty(), "it may be ahead of us: {:?}", desk.refused(1));
    let forged = changed(&good, |e| e.vote_b.signature = Signature([1; 64])).remove(0);
    desk.receive(1, &Message::Evidence(Box::new(forged.clone())));
    assert_eq!(desk.refused(1).len(), 1);
    assert!(desk.refused(1)[0].1.contains("signature does not verify"));
    desk.receive(1, &Message::Evidence(Box::new(forged)));
    assert!(desk.out.iter().any(|effect| matches!(effect, Effect::Disconnect { peer, .. } if peer.0 == 1)), "the second ends it");
    assert!(desk.replica.evidence().is_empty() && told(&desk).is_empty());
}

fn answered(desk: &mut Desk, evidence: Evidence) -> (Hash, Option<String>) {
    desk.step(Input::SubmitEvidence { request: RequestId(7), evidence: Box::new(evidence) });
    let reply = desk.out.iter().rev().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::Evidence { hash, refused }, .. } => Some((*hash, refused.clone())),
        _ => None,
    });
    reply.expect("a client is answered")
}

/// A client may leave powers, time and order to the node.
#[test]
fn what_a_client_brings_is_completed_and_told() {
    let made = Made::of(4);
    let mut desk = following(&made);
    let good = twice(&made, 1, 3);
    let blank = changed(&good, |e| {
        (e.total_power, e.validator_power, e.timestamp) = (Power::new(1).unwrap(), Power::new(40).unwrap(), Time::ZERO);
        std::mem::swap(&mut e.vote_a, &mut e.vote_b);
    });
    assert_eq!(answered(&mut desk, blank[0].clone()), (good.hash(), None));
    assert_eq!(told(&desk).len(), 2);
    assert_eq!(answered(&mut desk, good.clone()), (good.hash(), None), "what waits is as good as taken");
    let forged = changed(&twice(&made, 2, 3), |e| e.vote_b.signature = Signature([1; 64])).remove(0);
    let (_, refused) = answered(&mut desk, forged);
    assert!(refused.is_some_and(|refused| refused.contains("signature does not verify")));
    assert!(desk.refused(1).is_empty() && desk.refused(2).is_empty());
}

#[test]
fn only_a_lie_is_a_lie() {
    for (refused, is_lie) in [
        (Refused::Invalid(EvidenceError::Vote(Rejected::Signature)), true),
        (Refused::Early(height(3)), false),
        (Refused::Expired(height(3)), false),
        (Refused::Committed, false),
        (Refused::NobodyLeft, false),
        (Refused::Full, false),
        (Refused::Unknown(Height::FIRST), false),
    ] {
        assert_eq!(refused.is_lie(), is_lie, "{refused}");
    }
}

/// Two sides of a fork of height 5, by four validators of whom two lie: in one round, and by forgetting a lock.
#[test]
fn a_fork_names_who_signed_both_sides_and_who_forgot_a_lock() {
    use lockstep_replica::evidence::forensics::{Crime, culprits};
    let made = Made::of(1);
    let set = &made.chain.validators;
    let id = |name: &str| Some(BlockId { hash: Hash::of(name), ..block_id() });
    let vote = |place: u32, kind, r: u32, block: Option<BlockId>, vr: Option<u32>| {
        let vote = Vote { kind, height: height(5), round: round(r), block_id: block, valid_round: vr.map(round), ..nil_precommit() };
        signed_vote(set, place, vote)
    };
    let (prevote, precommit) = (VoteType::Prevote, VoteType::Precommit);
    let named = |votes: &[Vote]| culprits(votes, set, &chain_id(), &mut verify_batch);
    // One round: both certificates share the liars 0 and 1.
    let one: Vec<Vote> = [0, 1, 2].map(|place| vote(place, precommit, 0, id("a"), None)).into();
    let other: Vec<Vote> = [0, 1, 3].map(|place| vote(place, precommit, 0, id("b"), None)).into();
    let both = named(&[one.clone(), other].concat());
    assert_eq!(both.keys().copied().collect::<Vec<_>>(), [index(0), index(1)]);
    assert!(both.values().all(|crime| matches!(crime, Crime::TwoVotes(_))));
    // A later round: the polka there shows who prevoted against the lock; it names no valid round, or one before the lock.
    for vr in [None, Some(0)] {
        let locked: Vec<Vote> = [0, 1, 2].map(|place| vote(place, precommit, 1, id("a"), None)).into();
        let later: Vec<Vote> = [0, 1, 3].map(|place| vote(place, prevote, 2, id("b"), vr)).into();
        let forgot = named(&[locked.clone(), later.clone()].concat());
        assert_eq!(forgot.keys().copied().collect::<Vec<_>>(), [index(0), index(1)]);
        assert!(forgot.values().all(|crime| matches!(crime, Crime::Amnesia(_))), "{forgot:?}");
        assert!(forgot[&index(0)].to_string().contains("in round 2 a prevote for"));
        assert!(named(&locked).is_empty() && named(&later).is_empty(), "neither side alone says anything");
    }
    // What the rules allow: a newer polka frees, nil is free, a precommit after the prevote, the same block again, the same words twice.
    let allowed = [
        vote(0, precommit, 1, id("a"), None),
        vote(0, prevote, 2, id("b"), Some(1)),
        vote(0, prevote, 3, None, None),
        vote(0, prevote, 4, id("a"), None),
        vote(0, precommit, 5, id("b"), None),
        vote(0, prevote, 5, id("b"), Some(2)),
        vote(1, prevote, 0, id("b"), None),
        vote(1, precommit, 0, id("b"), None),
        vote(1, precommit, 0, id("b"), None),
    ];
    assert_eq!(named(&allowed).len(), 0);
    // A vote that nobody signed accuses nobody.
    let mut forged = one;
    let mut second = vote(2, precommit, 0, id("b"), None);
    second.signature = Signature([9; 64]);
    forged.push(second);
    assert!(named(&forged).is_empty());
}
