//! What is signed, what the guard holds of it, and when silence is due.

use lockstep_replica::signing::{
    EARLIER_MAX, GuardView, Me, OwnMessage, Remembered, STEP_PROPOSE, Signing, UNSIGNED, guard_owner, guard_record,
};
use lockstep_storage::guard::GuardRecord;
use lockstep_types::{Hash, Polka, Proposal, Vote, VoteType};

use crate::support::*;

const GENESIS: Hash = Hash([9; 32]);
/// As rounds.
const EARLIER: u32 = 256;
const _: () = assert!(EARLIER as usize == EARLIER_MAX);

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
    Remembered { sign_bytes: message.sign_bytes(&chain_id()), message, earlier: Vec::new(), lock: None, valid: None }
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
            let record = guard_record(&message, &[], lock, valid, &chain_id(), &GENESIS);
            assert_eq!(record.position(), message.position());
            assert_eq!(record.sign_bytes, message.sign_bytes(&chain_id()));
            assert_eq!(record.owner, GENESIS.0);
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
    let earlier = [own_proposal(5, 3), own_vote(VoteType::Prevote, 5, 3)];
    let record = guard_record(&own_vote(VoteType::Precommit, 5, 3), &earlier, None, None, &chain_id(), &GENESIS);
    let rest = "0500000000000000".to_owned() + "03000000";
    let vote = |kind: &str| "01".to_owned() + kind + &rest + "00" + "00" + "020000000000000007000000" + "01000000" + &"00".repeat(64);
    let id = "11".repeat(32) + "02000000" + &"22".repeat(32);
    let proposal = "02".to_owned() + &rest + "00" + &id + "020000000000000007000000" + &"00".repeat(64);
    assert_eq!(hex::encode(&record.message), "01".to_owned() + &vote("02") + "02000000" + &proposal + &vote("01"));
}

#[test]
fn a_record_repeats_what_was_said_before_at_its_height() {
    let earlier = [own_proposal(5, 1), own_vote(VoteType::Prevote, 5, 1)];
    let message = own_vote(VoteType::Precommit, 5, 1);
    let read = |earlier: &[OwnMessage]| {
        Remembered::from_record(&guard_record(&message, earlier, None, None, &chain_id(), &GENESIS), &chain_id()).map(Option::unwrap)
    };
    let back = read(&earlier).unwrap();
    assert_eq!(back.said().cloned().collect::<Vec<_>>(), [&earlier[..], std::slice::from_ref(&message)].concat());
    let [a, b] = earlier;
    assert!(read(&[b.clone(), a.clone()]).is_err(), "out of order");
    assert!(read(&[a.clone(), a.clone()]).is_err(), "one place twice");
    assert!(read(&[a, message.clone()]).is_err(), "the record's own place");
    assert!(read(&[own_vote(VoteType::Prevote, 4, 1)]).is_err(), "another height");
    let many: Vec<OwnMessage> = (0..=EARLIER).map(|r| own_vote(VoteType::Prevote, 5, r)).collect();
    let late = |earlier: &[OwnMessage]| {
        let message = own_vote(VoteType::Precommit, 5, 1_000);
        Remembered::from_record(&guard_record(&message, earlier, None, None, &chain_id(), &GENESIS), &chain_id())
    };
    assert!(late(&many[1..]).is_ok());
    assert!(late(&many).is_err(), "more than are ever repeated");
}

#[test]
fn a_new_guard_holds_no_message() {
    assert!(Remembered::from_record(&GuardRecord::initial(GENESIS.0), &chain_id()).unwrap().is_none());
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let record =
        guard_record(&OwnMessage::Vote(Vote { signature: UNSIGNED, ..vote() }), &[], Some(&polka()), Some(&polka()), &chain_id(), &GENESIS);
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
    guard_record(&own_vote(VoteType::Prevote, 5, 3), &[], None, None, &chain_id(), &GENESIS)
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
    assert!(signing.saw_decision(height(9)), "the guard is to be told");
    assert!(!signing.may_sign(height(9)) && signing.may_sign(height(10)));
    assert!(!signing.saw_decision(height(20)), "once");
    assert!(signing.may_sign(height(10)), "later certificates set nothing back");

    let mut readable = signing_with([own_vote(VoteType::Prevote, 7, 0)]);
    assert!(!readable.saw_decision(height(9)), "a readable guard is never set");
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
fn a_height_is_remembered_whole_and_the_next_one_begins_anew() {
    let mut signing = signing_with([]);
    let messages: Vec<OwnMessage> =
        (0..100).flat_map(|r| [own_vote(VoteType::Prevote, 7, r), own_vote(VoteType::Precommit, 7, r)]).collect();
    for message in &messages {
        let earlier = signing.earlier_at(height(7));
        signing.remember(Remembered { earlier, ..remembered(message.clone()) });
    }
    let said: Vec<OwnMessage> = signing.newest_at(height(7)).unwrap().said().cloned().collect();
    assert_eq!(said, messages);
    assert!(signing.newest_at(height(8)).is_none() && signing.earlier_at(height(8)).is_empty());
    signing.remember(remembered(own_proposal(8, 0)));
    assert!(signing.newest_at(height(7)).is_none());
    assert_eq!(signing.earlier_at(height(8)), [own_proposal(8, 0)]);
}

#[test]
fn what_is_repeated_has_a_bound() {
    let mut signing = signing_with([]);
    for r in 0..EARLIER + 10 {
        let earlier = signing.earlier_at(height(7));
        assert!(earlier.len() <= EARLIER_MAX);
        signing.remember(Remembered { earlier, ..remembered(own_vote(VoteType::Prevote, 7, r)) });
    }
    assert_eq!(signing.earlier_at(height(7)).last(), Some(&own_vote(VoteType::Prevote, 7, EARLIER + 9)), "the newest are kept");
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
    let record = Remembered { earlier: vec![older.clone()], ..remembered(newer.clone()) };
    let signing = Signing::new(me(), GuardView { records: vec![remembered(older.clone()), record], ..GuardView::default() });
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

/// What a height's commit shows is seen when the next height was begun.
#[test]
fn a_message_of_the_height_before_is_told_from_ours() {
    let (older, newer) = (own_vote(VoteType::Prevote, 7, 1), own_vote(VoteType::Precommit, 7, 1));
    let mut signing = signing_with([]);
    signing.remember(remembered(own_vote(VoteType::Prevote, 5, 0)));
    signing.remember(Remembered { earlier: vec![older.clone()], ..remembered(newer.clone()) });
    signing.remember(remembered(own_vote(VoteType::Prevote, 9, 2)));
    let foreign = |message: &OwnMessage| signing.is_foreign(message, &chain_id());
    assert!(!foreign(&older) && !foreign(&newer), "ours");
    assert!(foreign(&another(&older)) && foreign(&another(&newer)), "the same place, other bytes");
    assert!(foreign(&own_vote(VoteType::Prevote, 7, 2)) && foreign(&own_vote(VoteType::Precommit, 8, 0)), "we signed nothing there");
    assert!(!foreign(&own_vote(VoteType::Precommit, 7, 0)) && !foreign(&own_vote(VoteType::Precommit, 9, 1)), "it may have left the guard");
    assert!(!foreign(&another(&own_vote(VoteType::Prevote, 5, 0))), "two heights ago is not remembered");
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
    signing.saw_decision(height(9));
    assert!(!signing.is_foreign(&before, &chain_id()), "below the height that signing begins at");
    assert!(signing.is_foreign(&own_vote(VoteType::Prevote, 10, 0), &chain_id()), "above, all that we signed is known");

    let restarted = Signing::new(me(), GuardView { floor: height(9), ..GuardView::default() });
    assert!(!restarted.is_foreign(&before, &chain_id()), "and after a restart");
    assert!(restarted.is_foreign(&own_vote(VoteType::Prevote, 10, 0), &chain_id()));
}

/// Whose guard it is: its bytes are frozen, and neither another key's nor another chain's guard is taken for it.
#[test]
fn a_guard_belongs_to_one_key_on_one_chain() {
    let own = guard_owner(&GENESIS, &key(1).public_key());
    let mut bytes = b"lockstep/guard\x01".to_vec();
    bytes.extend_from_slice(&GENESIS.0);
    bytes.extend_from_slice(&key(1).public_key().0);
    assert_eq!(own, Hash::of(&bytes));
    assert_ne!(own, guard_owner(&GENESIS, &key(2).public_key()));
    assert_ne!(own, guard_owner(&Hash::EMPTY_LIST, &key(1).public_key()));
}
