//! The gate: what a vote, a proposal, a commit, a polka, a part, a block and evidence must satisfy before anybody acts on
//! it.

use lockstep_types::block::{self, BodyMismatch, PARTS_MAX, Part};
use lockstep_types::commit::{CommitSig, SlotSignature};
use lockstep_types::evidence::{DuplicateVote, EvidenceError};
use lockstep_types::vote::Rejected;
use lockstep_types::{ChainId, Commit, Hash, Height, Polka, Round, Signature, ValidatorIndex, ValidatorSet, Vote, VoteType};

use crate::support::*;

fn four() -> ValidatorSet {
    set(&[10, 10, 10, 10])
}

fn prevote(set: &ValidatorSet) -> Vote {
    vote(set, 1, VoteType::Prevote, 5, 3, Some(block_id("block")), Some(2))
}

fn check_vote(vote: Vote) -> Result<(), Rejected> {
    vote.claim(&chain_id(), &four())?.verify().map(|_| ())
}

#[test]
fn a_vote_passes_and_every_signed_field_is_signed() {
    let set = four();
    let good = prevote(&set);
    assert_eq!(check_vote(good.clone()), Ok(()));
    assert_eq!(good.clone().claim(&chain_id(), &set).unwrap().verify().unwrap().into_inner(), good);
    let changes: [fn(&mut Vote); 7] = [
        |vote| (vote.kind, vote.valid_round) = (VoteType::Precommit, None),
        |vote| vote.height = height(6),
        |vote| vote.round = round(4),
        |vote| vote.block_id = Some(block_id("other")),
        |vote| vote.valid_round = None,
        |vote| vote.timestamp = vote.timestamp.saturating_add(std::time::Duration::from_nanos(1)),
        |vote| vote.validator = index(2),
    ];
    for (place, change) in changes.iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(check_vote(bad), Err(Rejected::Signature), "change {place}");
    }
    let other_chain = ChainId::new("test-chain2").unwrap();
    assert_eq!(good.clone().claim(&other_chain, &set).unwrap().verify(), Err(Rejected::Signature));
}

#[test]
fn a_vote_of_the_wrong_shape_is_named() {
    let set = four();
    let good = prevote(&set);
    assert_eq!(check_vote(Vote { height: Height::ZERO, ..good.clone() }), Err(Rejected::HeightZero));
    let outside = Rejected::UnknownValidator { index: index(4), size: 4 };
    assert_eq!(check_vote(Vote { validator: index(4), ..good.clone() }), Err(outside));
    let most = Rejected::UnknownValidator { index: ValidatorIndex::MAX, size: 4 };
    assert_eq!(check_vote(Vote { validator: ValidatorIndex::MAX, ..good.clone() }), Err(most));
    assert_eq!(check_vote(Vote { kind: VoteType::Precommit, ..good.clone() }), Err(Rejected::StrayValidRound));
    assert_eq!(check_vote(Vote { block_id: None, ..good.clone() }), Err(Rejected::StrayValidRound));
    for valid_round in [3, 4, i32::MAX as u32].map(round) {
        let expected = Rejected::ValidRound { valid_round, round: round(3) };
        assert_eq!(check_vote(Vote { valid_round: Some(valid_round), ..good.clone() }), Err(expected));
    }
    for total in [0, PARTS_MAX + 1, u32::MAX] {
        let mut bad = good.clone();
        bad.block_id.as_mut().unwrap().parts.total = total;
        assert_eq!(check_vote(bad), Err(Rejected::Parts { total }));
    }
}

#[test]
fn a_proposal_passes_and_every_signed_field_is_signed() {
    let claim = |proposal: lockstep_types::Proposal| proposal.claim(&chain_id(), &public(1))?.verify().map(|_| ());
    for pol_round in [None, Some(0), Some(2)] {
        assert_eq!(claim(proposal(pol_round)), Ok(()));
    }
    let good = proposal(Some(1));
    let bad = |change: fn(&mut lockstep_types::Proposal)| {
        let mut bad = good.clone();
        change(&mut bad);
        claim(bad)
    };
    assert_eq!(bad(|p| p.height = height(6)), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.round = round(4)), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.pol_round = Some(Round::ZERO)), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.pol_round = None), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.block_id = block_id("other")), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.timestamp = lockstep_types::Time::ZERO), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.height = Height::ZERO), Err(Rejected::HeightZero));
    assert_eq!(bad(|p| p.pol_round = Some(p.round)), Err(Rejected::ValidRound { valid_round: round(3), round: round(3) }));
    assert_eq!(bad(|p| p.block_id.parts.total = 0), Err(Rejected::Parts { total: 0 }));
    assert_eq!(good.claim(&chain_id(), &public(2)).unwrap().verify().map(|_| ()), Err(Rejected::Signature));
}

fn check_commit(commit: Commit, set: &ValidatorSet) -> Result<(), Rejected> {
    commit.claim(&chain_id(), set)?.verify().map(|_| ())
}

#[test]
fn a_commit_needs_more_than_two_thirds_for_its_block() {
    let set = four();
    let block = block_id("block");
    assert_eq!(check_commit(commit(&set, &[0, 1, 2, 3], 5, block), &set), Ok(()));
    assert_eq!(check_commit(commit(&set, &[1, 2, 3], 5, block), &set), Ok(()));
    assert_eq!(check_commit(commit(&set, &[1, 3], 5, block), &set), Err(Rejected::Power { power: 20, total: 40 }));
    // Exactly two thirds is not more.
    let three = self::set(&[1, 1, 1]);
    assert_eq!(check_commit(commit(&three, &[0, 2], 5, block), &three), Err(Rejected::Power { power: 2, total: 3 }));
    // Votes for nil are verified and not counted.
    let mut with_nil = commit(&set, &[0, 1], 5, block);
    let nil = vote(&set, 2, VoteType::Precommit, 5, 1, None, None);
    let address = set.get(index(2)).unwrap().address;
    let slot = SlotSignature { address, timestamp: nil.timestamp, signature: nil.signature };
    with_nil.signatures[2] = CommitSig::Nil(slot.clone());
    assert_eq!(check_commit(with_nil, &set), Err(Rejected::Power { power: 20, total: 40 }));
    let mut with_nil = commit(&set, &[0, 1, 3], 5, block);
    with_nil.signatures[2] = CommitSig::Nil(slot.clone());
    assert_eq!(check_commit(with_nil.clone(), &set), Ok(()));
    // A vote for nil that is passed off as one for the block, and the other way round.
    with_nil.signatures[2] = CommitSig::Commit(slot);
    assert_eq!(check_commit(with_nil, &set), Err(Rejected::Signature));
    let mut turned = commit(&set, &[0, 1, 2, 3], 5, block);
    turned.signatures[2] = CommitSig::Nil(turned.signatures[2].slot().unwrap().clone());
    assert_eq!(check_commit(turned, &set), Err(Rejected::Signature));
}

#[test]
fn a_commit_of_the_wrong_shape_is_named() {
    let set = four();
    let good = commit(&set, &[0, 1, 2, 3], 5, block_id("block"));
    let bad = |change: fn(&mut Commit)| {
        let mut bad = good.clone();
        change(&mut bad);
        check_commit(bad, &set)
    };
    assert_eq!(bad(|c| c.signatures.truncate(3)), Err(Rejected::Slots { found: 3, expected: 4 }));
    assert_eq!(bad(|c| c.signatures.push(CommitSig::Absent)), Err(Rejected::Slots { found: 5, expected: 4 }));
    assert_eq!(bad(|c| c.height = Height::ZERO), Err(Rejected::HeightZero));
    assert_eq!(bad(|c| c.block_id.parts.total = 0), Err(Rejected::Parts { total: 0 }));
    assert_eq!(bad(|c| c.height = height(6)), Err(Rejected::Signature));
    assert_eq!(bad(|c| c.round = round(2)), Err(Rejected::Signature));
    assert_eq!(bad(|c| c.block_id = block_id("other")), Err(Rejected::Signature));
    // One validator's signature in two slots.
    let (zero, one) = (set.get(index(0)).unwrap().address, set.get(index(1)).unwrap().address);
    let stolen = Rejected::SlotAddress { index: index(1), found: zero, expected: one };
    assert_eq!(bad(|c| c.signatures[1] = c.signatures[0].clone()), Err(stolen));
    // One bad signature among enough good ones still refuses the whole.
    let spoiled = bad(|c| {
        let CommitSig::Commit(slot) = &mut c.signatures[3] else { unreachable!("slot 3 signed") };
        slot.signature = Signature([0; 64]);
    });
    assert_eq!(spoiled, Err(Rejected::Signature));
}

#[test]
fn a_commit_is_made_of_the_votes_of_its_round() {
    let set = four();
    let block = block_id("block");
    let votes = [
        vote(&set, 0, VoteType::Precommit, 5, 1, Some(block), None),
        vote(&set, 1, VoteType::Precommit, 5, 1, None, None),
        // An equivocator, nil first and then the block: the vote for the block is kept, whatever the order.
        vote(&set, 2, VoteType::Precommit, 5, 1, None, None),
        vote(&set, 2, VoteType::Precommit, 5, 1, Some(block), None),
        vote(&set, 3, VoteType::Precommit, 5, 1, Some(block_id("other")), None),
    ];
    let commit = Commit::from_precommits(height(5), round(1), block, &set, &votes);
    assert_eq!(commit.signatures.iter().map(CommitSig::flag).collect::<Vec<_>>(), [2, 3, 2, 1]);
    let mut reversed = votes.clone();
    reversed.reverse();
    assert_eq!(Commit::from_precommits(height(5), round(1), block, &set, &reversed), commit);
    let back: Vec<Vote> = commit.votes().collect();
    assert_eq!(back, [votes[0].clone(), votes[1].clone(), votes[3].clone()]);
    for (place, sig) in commit.signatures.iter().enumerate() {
        let expected = back.iter().find(|vote| vote.validator.index() == place).map(|vote| vote.sign_bytes(&chain_id()));
        assert_eq!(commit.sign_bytes(place, &chain_id()), expected);
        assert_eq!(sig.slot().is_some(), expected.is_some());
    }
    assert_eq!(commit.sign_bytes(4, &chain_id()), None);
}

fn check_polka(polka: Polka) -> Result<(), Rejected> {
    polka.claim(&chain_id(), &four())?.verify().map(|_| ())
}

#[test]
fn a_polka_is_a_quorum_of_prevotes_for_one_value() {
    let set = four();
    let block = block_id("block");
    for vr in [None, Some(0), Some(2)] {
        assert_eq!(check_polka(polka(&set, &[0, 1, 2, 3], block, vr)), Ok(()));
        assert_eq!(check_polka(polka(&set, &[0, 2, 3], block, vr)), Ok(()));
        assert_eq!(check_polka(polka(&set, &[0, 2], block, vr)), Err(Rejected::Power { power: 20, total: 40 }));
    }
    assert_eq!(check_polka(polka(&set, &[], block, None)), Err(Rejected::Power { power: 0, total: 40 }));
    let good = polka(&set, &[0, 1, 2], block, Some(1));
    let bad = |change: fn(&mut Polka)| {
        let mut bad = good.clone();
        change(&mut bad);
        check_polka(bad)
    };
    assert_eq!(bad(|p| p.signatures.swap(0, 1)), Err(Rejected::SignerOrder(index(0))));
    assert_eq!(bad(|p| p.signatures[1] = p.signatures[0].clone()), Err(Rejected::SignerOrder(index(0))));
    assert_eq!(bad(|p| p.signatures[2].validator = index(4)), Err(Rejected::UnknownValidator { index: index(4), size: 4 }));
    // The same votes are no polka for another valid round, round, height or block.
    assert_eq!(bad(|p| p.valid_round = None), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.valid_round = Some(Round::ZERO)), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.valid_round = Some(p.round)), Err(Rejected::ValidRound { valid_round: round(3), round: round(3) }));
    assert_eq!(bad(|p| p.round = round(4)), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.height = height(4)), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.height = Height::ZERO), Err(Rejected::HeightZero));
    assert_eq!(bad(|p| p.block_id = block_id("other")), Err(Rejected::Signature));
    assert_eq!(bad(|p| p.block_id.parts.total = 0), Err(Rejected::Parts { total: 0 }));
    let votes: Vec<Vote> = good.votes().collect();
    assert_eq!(votes[1], vote(&set, 1, VoteType::Prevote, 5, 3, Some(block), Some(1)));
}

#[test]
fn verdicts_are_counted() {
    let set = four();
    let claim = || prevote(&set).claim(&chain_id(), &set).unwrap();
    assert_eq!(claim().checks().len(), 1);
    assert!(claim().settle(&[true]).is_ok());
    assert_eq!(claim().settle(&[false]), Err(Rejected::Signature));
    assert!(std::panic::catch_unwind(|| claim().settle(&[])).is_err(), "a claim without verdict is our own mistake");
}

#[test]
fn a_part_is_one_place_of_one_body() {
    let body: Vec<u8> = (0..block::PART_BYTES * 3 + 100).map(|i| u8::try_from(i % 253).unwrap()).collect();
    let (header, parts) = block::cut(&body);
    assert_eq!(header.total, 4);
    for part in &parts {
        assert!(part.verify(&header));
        for index in [0, 1, 2, 3, 4, u32::MAX].into_iter().filter(|index| *index != part.index) {
            assert!(!Part { index, ..part.clone() }.verify(&header), "part {} as {index}", part.index);
        }
        let mut bad = part.clone();
        bad.bytes[50] ^= 1;
        assert!(!bad.verify(&header));
        let mut short = part.clone();
        short.bytes.pop();
        assert!(!short.verify(&header));
        let mut long = part.clone();
        long.bytes.push(0);
        assert!(!long.verify(&header));
        // Lists of three and of four share the way to their first two leaves; the total is signed, in the block id.
        for total in [0, 1, 2, 5, PARTS_MAX + 1, u32::MAX] {
            let other = block::PartSetHeader { total, ..header };
            assert!(!part.verify(&other), "part {} of {total}", part.index);
        }
    }
    // A cut that is honest but not ours: a short part before the last, an empty one, one that is too long.
    let pieces: [&[u8]; 2] = [&body[..10], &body[10..20]];
    let (hash, proofs) = lockstep_types::merkle::proofs(&pieces);
    let header = block::PartSetHeader { total: 2, hash };
    let part =
        |place: usize| Part { index: u32::try_from(place).unwrap(), bytes: pieces[place].to_vec(), aunts: proofs[place].aunts.clone() };
    assert!(!part(0).verify(&header) && part(1).verify(&header));
    let empty = block::PartSetHeader { total: 1, hash: lockstep_types::merkle::root(&[b""]) };
    assert!(!Part { index: 0, bytes: vec![], aunts: vec![] }.verify(&empty));
    let long = vec![1; block::PART_BYTES + 1];
    let header = block::PartSetHeader { total: 1, hash: lockstep_types::merkle::root(&[&long]) };
    assert!(!Part { index: 0, bytes: long, aunts: vec![] }.verify(&header));
}

#[test]
fn a_header_binds_its_body() {
    let good = full_block();
    assert_eq!(good.check_hashes(), Ok(()));
    let mut bad = good.clone();
    bad.txs.swap(0, 2);
    assert_eq!(bad.check_hashes(), Err(BodyMismatch::Data));
    let mut bad = good.clone();
    bad.evidence.pop();
    assert_eq!(bad.check_hashes(), Err(BodyMismatch::Evidence));
    let mut bad = good.clone();
    bad.last_commit.as_mut().unwrap().signatures[3] = bad.last_commit.as_ref().unwrap().signatures[2].clone();
    assert_eq!(bad.check_hashes(), Err(BodyMismatch::LastCommit));
    let mut bad = good.clone();
    bad.last_commit = None;
    assert_eq!(bad.check_hashes(), Err(BodyMismatch::LastBlock));
    let mut bad = good.clone();
    bad.header.last_block_id = None;
    assert_eq!(bad.check_hashes(), Err(BodyMismatch::LastBlock));
    let mut first = good;
    (first.last_commit, first.header.last_block_id) = (None, None);
    assert_eq!(first.check_hashes(), Err(BodyMismatch::LastCommit), "an absent commit has the hash of the empty list");
    first.header.last_commit_hash = Hash::EMPTY_LIST;
    assert_eq!(first.check_hashes(), Ok(()));
}

#[test]
fn two_votes_of_one_slot_are_evidence() {
    let set = set(&[40, 30, 20, 10]);
    let slot = |kind, block: Option<&str>, vr| vote(&set, 1, kind, 5, 3, block.map(block_id), vr);
    let made = |first: &Vote, second: &Vote| DuplicateVote::from_votes(first.clone(), second.clone(), &set, time());
    let (prevote, precommit) = (VoteType::Prevote, VoteType::Precommit);
    for (first, second) in [
        (slot(prevote, Some("a"), None), slot(prevote, Some("b"), None)),
        (slot(prevote, Some("a"), None), slot(prevote, None, None)),
        // One block with two valid rounds is two values.
        (slot(prevote, Some("a"), None), slot(prevote, Some("a"), Some(0))),
        (slot(prevote, Some("a"), Some(0)), slot(prevote, Some("a"), Some(2))),
        (slot(precommit, Some("a"), None), slot(precommit, None, None)),
    ] {
        let evidence = made(&first, &second).unwrap();
        assert_eq!(made(&second, &first).as_ref(), Some(&evidence), "the order of arrival does not matter");
        assert_eq!(evidence.verify(&chain_id(), &set, time()), Ok(()));
        let swapped = DuplicateVote { vote_a: evidence.vote_b.clone(), vote_b: evidence.vote_a.clone(), ..evidence };
        assert_eq!(swapped.verify(&chain_id(), &set, time()), Err(EvidenceError::Order));
    }
    let a = slot(prevote, Some("a"), None);
    let mut later = a.clone();
    later.timestamp = lockstep_types::Time::MAX;
    assert_eq!(made(&a, &a), None, "the same vote");
    assert_eq!(made(&a, &later), None, "the same value at another time");
    assert_eq!(made(&a, &slot(precommit, Some("b"), None)), None, "another step");
    for (h, r, place) in [(6, 3, 1), (5, 4, 1), (5, 3, 2)] {
        assert_eq!(made(&a, &vote(&set, place, prevote, h, r, Some(block_id("b")), None)), None, "another slot");
    }
}

#[test]
fn evidence_says_what_the_chain_says() {
    let set = set(&[40, 30, 20, 10]);
    let good = duplicate_vote(&set);
    let verify = |evidence: &DuplicateVote| evidence.verify(&chain_id(), &set, time());
    assert_eq!(verify(&good), Ok(()));
    let bad = |change: fn(&mut DuplicateVote)| {
        let mut bad = good.clone();
        change(&mut bad);
        verify(&bad)
    };
    assert_eq!(bad(|e| e.address = public(9).address()), Err(EvidenceError::Derived("validator address")));
    assert_eq!(bad(|e| e.validator_power = power(31)), Err(EvidenceError::Derived("validator power")));
    assert_eq!(bad(|e| e.total_power = power(101)), Err(EvidenceError::Derived("total power")));
    assert_eq!(bad(|e| e.timestamp = lockstep_types::Time::ZERO), Err(EvidenceError::Derived("time")));
    assert_eq!(bad(|e| e.vote_b.signature.0[0] ^= 1), Err(EvidenceError::Vote(Rejected::Signature)));
    assert_eq!(bad(|e| e.vote_a.signature.0[0] ^= 1), Err(EvidenceError::Vote(Rejected::Signature)));
    assert_eq!(bad(|e| e.vote_b.height = height(6)), Err(EvidenceError::NotOneSlot));
    let outside = bad(|e| (e.vote_a.validator, e.vote_b.validator) = (index(9), index(9)));
    assert_eq!(outside, Err(EvidenceError::Vote(Rejected::UnknownValidator { index: index(9), size: 4 })));
    let other_chain = ChainId::new("test-chain2").unwrap();
    assert_eq!(good.verify(&other_chain, &set, time()), Err(EvidenceError::Vote(Rejected::Signature)));
}
