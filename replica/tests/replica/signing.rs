//! What is signed, what the guard holds of it, and when silence is due.

use lockstep_replica::signing::{GuardView, Me, OwnMessage, Remembered, STEP_PROPOSE, Signing, UNSIGNED, guard_record};
use lockstep_storage::guard::GuardRecord;
use lockstep_types::{Hash, Polka, Proposal, Vote, VoteType};

use crate::support::*;

const GENESIS: Hash = Hash([9; 32]);

fn me() -> Option<Me> {
    let public_key = key(1).public_key();
    Some(Me { public_key, address: public_key.address() })
}

fn own_vote(kind: VoteType, h: u64, r: u32) -> OwnMessage {
    let nil = Vote { kind, height: height(h), round: round(r), signature: UNSIGNED, ..nil_precommit() };
    OwnMessage::Vote(nil)
}

fn own_proposal(h: u64, r: u32) -> OwnMessage {
    OwnMessage::Proposal(Proposal { height: height(h), round: round(r), pol_round: None, signature: UNSIGNED, ..proposal() })
}

fn remembered(message: OwnMessage) -> Remembered {
    Remembered { sign_bytes: message.sign_bytes(&chain_id()), message, lock: None, valid: None }
}

fn signing_with(messages: impl IntoIterator<Item = OwnMessage>) -> Signing {
    Signing::new(me(), GuardView { records: messages.into_iter().map(remembered).collect(), ..GuardView::default() })
}

/// The same place, other bytes.
fn another(message: &OwnMessage) -> OwnMessage {
    match message.clone() {
        OwnMessage::Vote(vote) => OwnMessage::Vote(Vote { block_id: Some(block_id()), ..vote }),
        OwnMessage::Proposal(proposal) => OwnMessage::Proposal(Proposal { timestamp: at(99, 0), ..proposal }),
    }
}

#[test]
fn steps_are_in_the_order_of_signing() {
    let positions = [
        own_proposal(5, 1),
        own_vote(VoteType::Prevote, 5, 1),
        own_vote(VoteType::Precommit, 5, 1),
        own_proposal(5, 2),
        own_proposal(6, 0),
    ]
    .map(|message| message.position());
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    assert_eq!(positions[0], (5, 1, STEP_PROPOSE));
}

#[test]
fn a_record_says_what_was_signed_and_comes_back_the_same() {
    let lock = polka();
    let valid = Polka { round: round(2), ..polka() };
    for message in [OwnMessage::Vote(Vote { signature: UNSIGNED, ..vote() }), own_vote(VoteType::Precommit, 5, 3), own_proposal(5, 3)] {
        for (lock, valid) in [(None, None), (None, Some(&valid)), (Some(&lock), Some(&valid))] {
            let record = guard_record(&message, lock, valid, &chain_id(), &GENESIS);
            assert_eq!(record.position(), message.position());
            assert_eq!(record.sign_bytes, message.sign_bytes(&chain_id()));
            assert_eq!(record.genesis_hash, GENESIS.0);
            assert_eq!(record.wedge, None);
            let back = Remembered::from_record(&record, &chain_id()).unwrap().expect("it holds a message");
            assert_eq!((&back.message, &back.sign_bytes), (&message, &record.sign_bytes));
            assert_eq!((back.lock.as_ref(), back.valid.as_ref()), (lock, valid));
        }
    }
}

/// The message's bytes are pinned: the guard of an older program is read.
#[test]
fn the_guards_message_is_pinned() {
    let record = guard_record(&own_vote(VoteType::Precommit, 5, 3), None, None, &chain_id(), &GENESIS);
    let vote = "02050000000000000003000000".to_owned() + "00" + "00" + "020000000000000007000000" + "01000000" + &"00".repeat(64);
    assert_eq!(hex::encode(&record.message), "0101".to_owned() + &vote);
    let record = guard_record(&own_proposal(5, 3), None, None, &chain_id(), &GENESIS);
    let id = "11".repeat(32) + "02000000" + &"22".repeat(32);
    let proposal = "050000000000000003000000".to_owned() + "00" + &id + "020000000000000007000000" + &"00".repeat(64);
    assert_eq!(hex::encode(&record.message), "0102".to_owned() + &proposal);
}

#[test]
fn a_new_guard_holds_no_message() {
    assert!(Remembered::from_record(&GuardRecord::initial(GENESIS.0), &chain_id()).unwrap().is_none());
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let record =
        guard_record(&OwnMessage::Vote(Vote { signature: UNSIGNED, ..vote() }), Some(&polka()), Some(&polka()), &chain_id(), &GENESIS);
    let refused = |change: &dyn Fn(&mut GuardRecord)| {
        let mut changed = record.clone();
        change(&mut changed);
        Remembered::from_record(&changed, &chain_id()).is_err()
    };
    assert!(!refused(&|_| ()), "the record itself is read");
    assert!(refused(&|record| record.height += 1));
    assert!(refused(&|record| record.round += 1));
    assert!(refused(&|record| record.step += 1));
    assert!(refused(&|record| record.sign_bytes[3] ^= 1));
    assert!(refused(&|record| record.message = another_vote().message));
    assert!(refused(&|record| record.message.push(0)));
    assert!(refused(&|record| record.lock.as_mut().unwrap()[0] = 2));
    assert!(refused(&|record| record.valid.as_mut().unwrap().truncate(40)));
    let other_chain = lockstep_types::ChainId::new("other-chain").unwrap();
    assert!(Remembered::from_record(&record, &other_chain).is_err(), "the sign-bytes bind the chain");
}

fn another_vote() -> GuardRecord {
    guard_record(&own_vote(VoteType::Prevote, 5, 3), None, None, &chain_id(), &GENESIS)
}

#[test]
fn nothing_is_signed_below_the_record_or_at_a_floor() {
    let fresh = signing_with([]);
    assert!(fresh.may_sign(height(1)));

    let signed = signing_with([own_vote(VoteType::Prevote, 7, 0)]);
    assert!(!signed.may_sign(height(6)), "below what is recorded");
    assert!(signed.may_sign(height(7)) && signed.may_sign(height(8)));

    let floor = Signing::new(me(), GuardView { floor: height(7), ..GuardView::default() });
    assert!(!floor.may_sign(height(7)), "a floor is not signed at");
    assert!(floor.may_sign(height(8)));

    let observer = Signing::new(None, GuardView::default());
    assert!(!observer.may_sign(height(8)), "no key");
}

#[test]
fn an_unreadable_guard_is_silent_until_a_certificate() {
    let mut signing = Signing::new(me(), GuardView { unreadable: true, ..GuardView::default() });
    assert!(!signing.may_sign(height(100)));
    assert!(signing.saw_certificate(height(9)), "the guard is to be told");
    assert!(!signing.may_sign(height(9)) && signing.may_sign(height(10)));
    assert!(!signing.saw_certificate(height(20)), "once");
    assert!(signing.may_sign(height(10)), "later certificates set nothing back");

    let mut readable = signing_with([own_vote(VoteType::Prevote, 7, 0)]);
    assert!(!readable.saw_certificate(height(9)), "a readable guard is never set");
    assert!(readable.may_sign(height(7)));
}

#[test]
fn who_stopped_signs_nothing_and_keeps_the_first_reason() {
    let mut signing = signing_with([]);
    signing.stop("first".into());
    signing.stop("second".into());
    assert_eq!(signing.stopped(), Some("first"));
    assert!(!signing.may_sign(height(100)));
}

#[test]
fn the_last_two_messages_are_remembered_in_order() {
    let mut signing = signing_with([]);
    let messages =
        [own_proposal(7, 0), own_vote(VoteType::Prevote, 7, 0), own_vote(VoteType::Precommit, 7, 0), own_vote(VoteType::Prevote, 8, 0)];
    for (count, message) in messages.iter().enumerate() {
        signing.remember(remembered(message.clone()));
        let held: Vec<_> = [7, 8].into_iter().flat_map(|h| signing.at(height(h))).map(|record| record.message.clone()).collect();
        assert_eq!(held, messages[(count + 1).saturating_sub(2)..=count]);
    }
}

#[test]
#[should_panic(expected = "in order")]
fn a_step_is_not_signed_twice() {
    let mut signing = signing_with([own_vote(VoteType::Prevote, 7, 0)]);
    signing.remember(remembered(another(&own_vote(VoteType::Prevote, 7, 0))));
}

#[test]
fn a_message_we_did_not_sign_is_told_from_ours() {
    let (older, newer) = (own_vote(VoteType::Prevote, 7, 1), own_vote(VoteType::Precommit, 7, 1));
    let signing = signing_with([older.clone(), newer.clone()]);
    let foreign = |message: &OwnMessage| signing.is_foreign(message, &chain_id());
    assert!(!foreign(&older) && !foreign(&newer), "ours");
    assert!(foreign(&another(&older)) && foreign(&another(&newer)), "the same place, other bytes");
    assert!(foreign(&own_proposal(7, 2)) && foreign(&own_vote(VoteType::Prevote, 8, 0)), "later than all that we signed");
    assert!(!foreign(&own_vote(VoteType::Precommit, 7, 0)), "an earlier one may have left the guard");
    assert!(!foreign(&own_vote(VoteType::Precommit, 6, 9)), "a height that is over");
    // The signature is no part of it: ed25519 signatures by one key may differ.
    let OwnMessage::Vote(vote) = older else { unreachable!("made a vote") };
    assert!(!foreign(&OwnMessage::Vote(Vote { signature: lockstep_types::Signature([1; 64]), ..vote })));
}

#[test]
fn a_new_guard_has_signed_nothing() {
    assert!(signing_with([]).is_foreign(&own_vote(VoteType::Prevote, 1, 0), &chain_id()), "who made it has an older copy of the key");
}

/// Peers hold what we signed before the guard was lost: it is ours, and no reason to stop for good.
#[test]
fn what_was_signed_before_the_guard_was_lost_is_not_foreign() {
    let mut signing = Signing::new(me(), GuardView { unreadable: true, ..GuardView::default() });
    let before = own_vote(VoteType::Precommit, 9, 0);
    assert!(!signing.is_foreign(&before, &chain_id()), "nobody knows what we signed");
    signing.saw_certificate(height(9));
    assert!(!signing.is_foreign(&before, &chain_id()), "below the height that signing begins at");
    assert!(signing.is_foreign(&own_vote(VoteType::Prevote, 10, 0), &chain_id()), "above, all that we signed is known");

    let restarted = Signing::new(me(), GuardView { floor: height(9), ..GuardView::default() });
    assert!(!restarted.is_foreign(&before, &chain_id()), "and after a restart");
    assert!(restarted.is_foreign(&own_vote(VoteType::Prevote, 10, 0), &chain_id()));
}
