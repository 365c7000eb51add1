//! Evidence on the disk: its bytes, what a start reads, and that what was seen lands in a block after everybody forgot it.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_replica::evidence::kept::{KEPT_BYTES_MAX, KEPT_MAX, Kept, load};
use lockstep_replica::seam::{LogRecord, Report, Write};
use lockstep_replica::wire::{Answer, FRAME_BYTES_MAX, Message, Question};
use lockstep_replica::{ChainState, Effect};
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record};
use lockstep_types::commit::PolkaSig;
use lockstep_types::evidence::{AttackFacts, DuplicateVote, LightBlock, LightClientAttack};
use lockstep_types::{BlockId, Commit, Evidence, Hash, Polka, Power, PrivateKey, Signature, ValidatorSet, ValidatorUpdate, Vote, VoteType};

use crate::desk::{Desk, Made};
use crate::examples::{commit, commit_hex, polka_hex};
use crate::support::*;

/// Two precommits of a validator for one place of a height, signed.
fn votes(chain: &ChainState, place: u32, h: u64) -> (Vote, Vote) {
    let set = if h <= chain.height.get() { &chain.last_validators } else { &chain.validators };
    let cast = |block| signed_vote(set, place, Vote { height: height(h), round: round(0), block_id: block, ..nil_precommit() });
    (cast(None), cast(Some(block_id())))
}

fn seen(chain: &ChainState, place: u32, h: u64) -> Kept {
    Kept::Seen(Box::new(votes(chain, place, h)))
}

/// What the next block of this chain carries against the validator.
fn piece(made: &Made, place: u32, h: u64) -> Evidence {
    let (first, second) = votes(&made.chain, place, h);
    let time = lockstep_types::Block::decode(&made.block(h).1).unwrap().header.time;
    Evidence::DuplicateVote(Box::new(DuplicateVote::from_votes(first, second, &made.chain.last_validators, time).unwrap()))
}

fn log(disk: &Arc<dyn Disk>) -> BlockLog {
    BlockLog::open(disk.clone(), "log", LogOptions { salt: [3; 32], segment_bytes: 1 << 20 }).unwrap().0
}

fn append(log: &mut BlockLog, record: &LogRecord) {
    let LogRecord { kind, height, round, block_hash, payload } = record;
    log.append(Record { kind: *kind, height: height.get(), round: round.get(), block_hash: block_hash.0, payload }).unwrap();
}

/// A change here is a change of the format (`docs/format-storage.md`).
#[test]
fn the_bytes_of_a_record_are_pinned() {
    let vote = |round_of: u32| Vote { round: round(round_of), signature: Signature([0x5a; 64]), ..nil_precommit() };
    let votes = (vote(3), Vote { block_id: Some(block_id()), ..vote(3) });
    let record = Kept::Seen(Box::new(votes.clone())).record();
    let vote_bytes = |vote: &Vote| hex::encode(borsh::to_vec(vote).unwrap());
    assert_eq!(hex::encode(&record.payload), format!("0101{}{}", vote_bytes(&votes.0), vote_bytes(&votes.1)));
    assert_eq!(vote_bytes(&votes.0), format!("02050000000000000003000000000002000000000000000700000001000000{}", "5a".repeat(64)));
    assert_eq!((record.kind, record.height, record.round), (Kind::Evidence, height(5), round(0)));
    assert_eq!(record.block_hash, Hash::of(&record.payload));
    let made = Made::of(1);
    let piece = piece(&made, 1, 1);
    let record = Kept::Piece(Box::new(piece.clone())).record();
    assert_eq!(hex::encode(&record.payload), format!("0102{}", hex::encode(borsh::to_vec(&piece).unwrap())));
    let record = Kept::Certificate(Box::new(commit())).record();
    assert_eq!((hex::encode(&record.payload), record.height), ("0103".to_owned() + &commit_hex(), height(5)));
    let record = Kept::Polka(Box::new(polka())).record();
    assert_eq!((hex::encode(&record.payload), record.height), ("0104".to_owned() + &polka_hex(), height(5)));
}

#[test]
fn a_start_reads_the_newest_and_no_more_than_its_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.path()).unwrap());
    let made = Made::of(1);
    let mut written = log(&disk);
    let all: Vec<Kept> = (0..KEPT_MAX as u64 + 40).map(|n| seen(&made.chain, 1, 2 + n)).collect();
    all.iter().for_each(|kept| append(&mut written, &kept.record()));
    written.sync().unwrap();
    assert_eq!(load(&written.reader()).unwrap(), all[40..]);
    drop(written);
    assert_eq!(load(&log(&disk).reader()).unwrap(), all[40..], "after a restart");

    // Those that are larger together than a start reads.
    let folder = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.path()).unwrap());
    let mut written = log(&disk);
    let large = vec![0; usize::try_from(KEPT_BYTES_MAX).unwrap()];
    written.append(Record { kind: Kind::Evidence, height: 1, round: 0, block_hash: [1; 32], payload: &large }).unwrap();
    append(&mut written, &all[0].record());
    assert_eq!(load(&written.reader()).unwrap(), all[..1], "what is behind them is not looked at");
    written.append(Record { kind: Kind::Evidence, height: 1, round: 0, block_hash: [2; 32], payload: b"\x01\x03" }).unwrap();
    assert!(load(&written.reader()).unwrap_err().to_string().contains("the evidence of height 1 cannot be read"));
}

/// The evidence records that a replica asked to be written.
fn kept(desk: &Desk) -> Vec<Bytes> {
    let of = |write: &Write| if let Write::Log(records) = write { records.clone() } else { Vec::new() };
    desk.written.iter().flat_map(of).filter(|record| record.kind == Kind::Evidence).map(|record| record.payload).collect()
}

fn reported(desk: &Desk) -> Vec<Evidence> {
    let of = |effect: &Effect| match effect {
        Effect::Report { report: Report::Evidence { evidence }, .. } => Some((**evidence).clone()),
        _ => None,
    };
    desk.out.iter().filter_map(of).collect()
}

#[test]
fn two_votes_are_written_when_they_are_counted_and_land_though_everybody_forgot_them() {
    let mut made = Made::of(0);
    let mut desk = Desk::new(&made, None);
    desk.connect(1, None);
    let (first, second) = votes(&made.chain, 1, 1);
    desk.receive(1, &Message::Vote(first.clone()));
    assert!(kept(&desk).is_empty());
    desk.receive(1, &Message::Vote(second.clone()));
    let on_disk = vec![Kept::Seen(Box::new((first, second)))];
    assert_eq!(kept(&desk), [on_disk[0].record().payload], "before the height is decided");
    assert!(reported(&desk).is_empty(), "nobody knows the time of its block");

    // All go down. One starts before that height is decided there, and one after it.
    let mut before = Desk::with_evidence(&made, on_disk.clone());
    before.connect(1, None);
    assert!(reported(&before).is_empty());
    made.grow(&[b"a=1"]);
    before.follow(&made, 1);
    let wanted = piece(&made, 1, 1);
    assert_eq!(reported(&before), std::slice::from_ref(&wanted));
    assert!(kept(&before).is_empty(), "it is there already");
    let after = Desk::with_evidence(&made, on_disk.clone());
    assert_eq!(reported(&after), std::slice::from_ref(&wanted));
    assert_eq!(after.replica.evidence().pending().cloned().collect::<Vec<_>>(), std::slice::from_ref(&wanted), "the next block gets it");

    // A block carries it, and that is the end of it, though it stays in the log.
    made.grow_with(&[], vec![wanted]);
    before.follow(&made, 1);
    assert!(before.replica.evidence().is_empty());
    let carried = Desk::with_evidence(&made, on_disk);
    assert!(reported(&carried).is_empty() && carried.replica.evidence().is_empty());
}

#[test]
fn what_lies_on_the_disk_is_believed_no_more_than_what_a_peer_tells() {
    let made = Made::of(3);
    let (first, mut second) = votes(&made.chain, 1, 3);
    second.signature = Signature([7; 64]);
    let forged = Desk::with_evidence(&made, vec![Kept::Seen(Box::new((first.clone(), second)))]);
    assert!(reported(&forged).is_empty() && forged.replica.evidence().is_empty());
    let same = Desk::with_evidence(&made, vec![Kept::Seen(Box::new((first.clone(), first)))]);
    assert!(reported(&same).is_empty() && same.replica.evidence().is_empty());
    // Many against one make one, and one that a peer told is written, too.
    let many = (0..40).map(|n| Kept::Piece(Box::new(piece(&made, 1, 3 - n % 3)))).collect();
    let mut many = Desk::with_evidence(&made, many);
    assert_eq!(many.replica.evidence().pending().count(), 1);
    many.written.clear();
    many.connect(1, None);
    let told = piece(&made, 2, 3);
    many.receive(1, &Message::Evidence(Box::new(told.clone())));
    assert_eq!(kept(&many), [Kept::Piece(Box::new(told)).record().payload]);
}

/// An attack on light clients by everybody of a set of five hundred: longer than a frame.
fn long_piece(made: &Made) -> Evidence {
    let mut keys: Vec<PrivateKey> = made.chain.validators.iter().map(|validator| key_of(&validator.public_key)).collect();
    keys.extend((0..500u16).map(|n| PrivateKey::from_seed(&std::array::from_fn(|at| n.to_le_bytes().get(at).copied().unwrap_or(0x5e)))));
    let powers: Vec<ValidatorUpdate> =
        keys.iter().map(|key| ValidatorUpdate { public_key: key.public_key(), power: Power::new(10).unwrap() }).collect();
    let set = ValidatorSet::new(&powers).unwrap();
    let mut header = lockstep_types::Block::decode(&made.block(3).1).unwrap().header;
    (header.app_hash, header.validators_hash) = (Hash::of("invented").into(), set.hash());
    let id = BlockId { hash: header.hash(), parts: block_id().parts };
    let votes: Vec<Vote> = keys
        .iter()
        .map(|key| {
            let validator = set.index_of(&key.public_key().address()).unwrap();
            let precommit = Vote { validator, height: height(3), round: round(0), block_id: Some(id), ..nil_precommit() };
            Vote { signature: key.sign(&precommit.sign_bytes(&chain_id())), ..precommit }
        })
        .collect();
    let commit = Commit::from_precommits(height(3), round(0), id, &set, &votes);
    let ours = lockstep_types::Block::decode(&made.block(3).1).unwrap();
    let carried = lockstep_types::Block::decode(&made.block(4).1).unwrap().last_commit;
    let facts = AttackFacts {
        common_validators: &made.chain.validators,
        common_time: lockstep_types::Block::decode(&made.block(2).1).unwrap().header.time,
        header: &ours.header,
        commit: carried.as_ref(),
    };
    let block = LightBlock { header, commit, validators: set };
    Evidence::LightClientAttack(Box::new(LightClientAttack::from_block(block, height(2), &facts)))
}

#[test]
fn a_piece_that_is_longer_than_a_frame_is_offered_and_asked_for() {
    let made = Made::of(5);
    let piece = long_piece(&made);
    assert!(Message::Evidence(Box::new(piece.clone())).encode().len() > FRAME_BYTES_MAX);
    let mut one = Desk::with_evidence(&made, vec![Kept::Piece(Box::new(piece.clone()))]);
    assert!(one.replica.evidence().contains(&piece.hash()), "it is true");
    one.connect(1, None);
    let offers = |desk: &Desk| -> Vec<Message> {
        let of = |effect: &Effect| if let Effect::Send { bytes, .. } = effect { Message::decode(bytes).ok() } else { None };
        let is_evidence = |message: &Message| matches!(message, Message::Evidence(_) | Message::HasEvidence(_));
        desk.out.iter().filter_map(of).filter(is_evidence).collect()
    };
    assert_eq!(offers(&one), [Message::HasEvidence(piece.hash())]);

    let mut other = Desk::with_evidence(&made, Vec::new());
    for peer in 1..=3 {
        other.connect(peer, None);
        other.receive(peer, &Message::HasEvidence(piece.hash()));
    }
    let (job, peer, question) = other.question().expect("it asks");
    assert_eq!((peer, &question), (1, &Question::Evidence { hash: piece.hash() }));
    assert_eq!(other.question(), None, "one peer, though three have it");
    one.ask(1, 7, &question);
    let (_, answer) = one.answers().pop().expect("it answers");
    other.reply(job, Some(&answer));
    assert_eq!(other.replica.evidence().pending().cloned().collect::<Vec<_>>(), std::slice::from_ref(&piece));
    assert_eq!(kept(&other), [Kept::Piece(Box::new(piece.clone())).record().payload]);
    assert!(other.refused(1).is_empty());

    // Who gives something else lies; who has nothing any more does not.
    let mut third = Desk::with_evidence(&made, Vec::new());
    third.connect(1, None);
    third.receive(1, &Message::HasEvidence(piece.hash()));
    let (job, ..) = third.question().expect("it asks");
    let unavailable = Answer::Unavailable(lockstep_replica::wire::Status { base: height(1), tip: height(5) });
    third.reply(job, Some(&unavailable));
    assert!(third.refused(1).is_empty());
    third.receive(1, &Message::HasEvidence(piece.hash()));
    let (job, ..) = third.question().expect("it asks again");
    third.reply(job, Some(&Answer::Evidence(Box::new(self::piece(&made, 1, 3)))));
    assert!(third.refused(1)[0].1.contains("another than it said"), "{:?}", third.refused(1));
    assert!(third.replica.evidence().is_empty());
}

/// A prevote quorum of these for a block of the last height, in this round.
fn prevotes(made: &Made, places: &[u32], r: u32, id: BlockId) -> Polka {
    let set = &made.chain.last_validators;
    let vote =
        Vote { kind: VoteType::Prevote, height: made.chain.height, round: round(r), block_id: Some(id), valid_round: None, ..vote() };
    let signed = places.iter().map(|place| signed_vote(set, *place, vote.clone()));
    let sigs = signed.map(|vote| PolkaSig { validator: vote.validator, timestamp: vote.timestamp, signature: vote.signature });
    Polka { height: made.chain.height, round: round(r), block_id: id, valid_round: None, signatures: sigs.collect() }
}

#[test]
fn a_second_certificate_for_a_height_is_kept_with_the_polkas_of_all() {
    let made = Made::of(5);
    let set = &made.chain.last_validators;
    let other = BlockId { hash: Hash([0x99; 32]), ..block_id() };
    // Three of four decided the last height in round 0; two of them and the fourth signed something else there.
    let ours: Vec<u32> = (0..4).filter(|place| made.block(5).2.votes().any(|vote| vote.validator.index() == *place as usize)).collect();
    let fourth = (0..4).find(|place| !ours.contains(place)).expect("three signed");
    let theirs = signed_commit(set, &[fourth, ours[1], ours[2]], 5, other, at(3, 0));
    let mut desk = Desk::with_evidence(&made, Vec::new());
    (1..=2).for_each(|peer| desk.connect(peer, None));
    let ours = made.block(5).2.clone();
    desk.receive(1, &Message::Commit(ours));
    assert!(kept(&desk).is_empty() && desk.question().is_none(), "our own says nothing new");
    let mut forged = theirs.clone();
    forged.block_id.hash = Hash([0x98; 32]);
    desk.receive(2, &Message::Commit(forged));
    assert!(kept(&desk).is_empty() && !desk.refused(2).is_empty(), "nobody signed that");

    let mut desk = Desk::with_evidence(&made, Vec::new());
    (1..=2).for_each(|peer| desk.connect(peer, None));
    desk.receive(1, &Message::Commit(theirs.clone()));
    desk.receive(2, &Message::Commit(theirs.clone()));
    let of = |kind: fn(&Kept) -> bool, desk: &Desk| kept(desk).iter().filter(|payload| kind(&Kept::from_payload(payload).unwrap())).count();
    assert_eq!(of(|kept| *kept == Kept::Certificate(Box::new(theirs_of(kept))), &desk), 1, "once");
    assert_eq!(of(|kept| matches!(kept, Kept::Seen(_)), &desk), 2, "two signed both in one round");
    assert_eq!(desk.replica.evidence().pending().count(), 2, "a block is to say so");
    let told = |desk: &Desk| {
        desk.out.iter().filter(|effect| matches!(effect, Effect::Report { report: Report::Note(note), .. } if note.contains("two certificates for height 5"))).count()
    };
    assert_eq!(told(&desk), 1);
    // Both peers are asked for what they keep; each polka is written once, and one of another height is a lie.
    let polkas = [prevotes(&made, &[1, 2, 3], 0, other), prevotes(&made, &[0, 1, 3], 1, block_id())];
    let (first, _, question) = desk.question().expect("it asks");
    assert_eq!(question, Question::Polkas { height: height(5) });
    desk.reply(first, Some(&Answer::Polkas(polkas.to_vec())));
    let (second, peer, _) = desk.question().expect("it asks the other, too");
    desk.reply(second, Some(&Answer::Polkas(vec![polkas[0].clone(), Polka { height: height(4), ..polkas[1].clone() }])));
    assert_eq!(of(|kept| matches!(kept, Kept::Polka(_)), &desk), 2);
    assert!(desk.refused(peer)[0].1.contains("none of height 5"));
    assert!(desk.question().is_none());
}

/// The certificate in a record; another one where it holds none.
fn theirs_of(kept: &Kept) -> Commit {
    if let Kept::Certificate(commit) = kept { (**commit).clone() } else { commit() }
}
