//! Statements of validators, what follows from them, and what is kept of a divergence.

use std::sync::Arc;
use std::time::Duration;

use lockstep_app::Changes;
use lockstep_replica::Effect;
use lockstep_replica::audit::{Finding, Proof, Shelf, Trace, keep};
use lockstep_replica::wire::Message;
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_types::audit::{SignedStatement, Statement};
use lockstep_types::{Hash, Signature, TxResult};

use crate::desk::{Desk, Made};
use crate::support::*;

/// How long a node waits before it gives up, and a little more.
const HOPELESS: Duration = Duration::from_secs(31);

/// The peer of the validator with this key.
fn peer_of(n: u8) -> u64 {
    u64::from(n)
}

/// Node 1 of four, at the end of a short chain, with everybody connected.
fn at_tip(made: &Made) -> Desk {
    connected(made, Desk::new(made, Some(1)))
}

fn connected(made: &Made, mut desk: Desk) -> Desk {
    for n in 2..=4 {
        desk.connect(peer_of(n), Some(n));
    }
    desk.follow(made, 2);
    desk.out.clear();
    desk.may_halt = true;
    desk
}

/// What is right, with another digest of the rest, if one is given.
fn statement(made: &Made, other: Option<&str>) -> Statement {
    let right = made.chain.statement();
    Statement { rest: other.map_or(right.rest, Hash::of), ..right }
}

fn signed(made: &Made, n: u8, statement: Statement) -> SignedStatement {
    let signature = key(n).sign(&statement.sign_bytes(&chain_id(), &made.genesis.hash()));
    SignedStatement { statement, validator: key(n).public_key().address(), signature }
}

/// Validator `n` says it, on its own connection.
fn says(desk: &mut Desk, made: &Made, n: u8, other: Option<&str>) {
    desk.receive(peer_of(n), &Message::Statement(signed(made, n, statement(made, other))));
}

fn finding(desk: &Desk) -> Option<Finding> {
    desk.out.iter().find_map(|effect| if let Effect::Heal { finding } = effect { Some((**finding).clone()) } else { None })
}

fn halt(desk: &Desk) -> Option<&str> {
    desk.out.iter().find_map(|effect| if let Effect::Halt { reason } = effect { Some(reason.as_str()) } else { None })
}

fn is_at_peace(desk: &Desk) -> bool {
    finding(desk).is_none() && halt(desk).is_none() && desk.replica.silent().is_none()
}

#[test]
fn a_validator_says_what_it_has_after_each_block_and_to_who_comes() {
    let made = Made::of(2);
    let mut desk = Desk::new(&made, Some(1));
    desk.connect(2, Some(2));
    desk.follow(&made, 2);
    let signs: Vec<_> = desk
        .out
        .iter()
        .filter_map(|effect| if let Effect::Sign { job, bytes, .. } = effect { Some((*job, bytes.clone())) } else { None })
        .collect();
    let right = made.chain.statement().sign_bytes(&chain_id(), &made.genesis.hash());
    let (job, _) = signs.iter().find(|(_, bytes)| *bytes == right).expect("it signs its statement of the newest height");
    desk.out.clear();
    desk.step(lockstep_replica::Input::Signed { job: *job, signature: Some(key(1).sign(&right)) });
    let said = |desk: &Desk| {
        let messages =
            desk.out.iter().filter_map(|effect| if let Effect::Send { bytes, .. } = effect { Message::decode(bytes).ok() } else { None });
        messages.filter(|message| *message == Message::Statement(signed(&made, 1, statement(&made, None)))).count()
    };
    assert_eq!(said(&desk), 1, "everybody is told once");
    desk.connect(3, Some(3));
    assert_eq!(said(&desk), 2, "and who comes later, too");
    desk.pass(Duration::from_secs(2));
    assert!(said(&desk) > 2, "and again while nothing moves, since frames are lost");
}

#[test]
fn in_harmony_no_signature_is_read() {
    let made = Made::of(2);
    let mut desk = at_tip(&made);
    desk.held_checks = Some(Vec::new());
    for n in 2..=4 {
        says(&mut desk, &made, n, None);
    }
    assert!(desk.held_checks.as_ref().is_some_and(Vec::is_empty), "nothing follows from them");
    assert!(is_at_peace(&desk));
    says(&mut desk, &made, 2, Some("another"));
    assert_eq!(desk.held_checks.as_ref().map(Vec::len), Some(1), "one that says something else is");
}

#[test]
fn more_than_two_thirds_are_believed_and_fewer_are_not() {
    let made = Made::of(2);
    let mut desk = at_tip(&made);
    says(&mut desk, &made, 2, Some("another"));
    assert!(is_at_peace(&desk), "one");
    says(&mut desk, &made, 3, Some("another"));
    assert!(is_at_peace(&desk), "two of four are half of the power");
    says(&mut desk, &made, 4, Some("another"));
    let finding = finding(&desk).expect("three are more than two thirds");
    assert_eq!(finding.height(), made.chain.height);
    assert_eq!(finding.ours, statement(&made, None));
    let Proof::Statements(said) = &finding.proof else { panic!("{finding:?}") };
    assert_eq!(said.len(), 3);
    assert!(finding.difference(&made.chain).is_some(), "the state that was found wrong is not what heals it");
    assert!(desk.replica.silent().is_some());
}

/// Each of a minority may say what it likes, as often as it likes and in any name: nobody heals, nobody halts.
#[test]
fn a_minority_that_lies_moves_nobody() {
    let made = Made::of(2);
    let mut desk = at_tip(&made);
    says(&mut desk, &made, 2, None);
    says(&mut desk, &made, 3, None);
    for lie in ["one", "two", "three", "four"] {
        says(&mut desk, &made, 4, Some(lie));
    }
    assert!(is_at_peace(&desk));
    assert!(desk.refused(4).is_empty(), "its signatures hold, and what it says of itself is its own affair");
    let forged = SignedStatement { signature: Signature([7; 64]), ..signed(&made, 3, statement(&made, Some("forged"))) };
    desk.receive(4, &Message::Statement(forged));
    assert_eq!(desk.refused(4).len(), 1, "a forged one is its sender's fault");
    let stranger = SignedStatement { validator: key(9).public_key().address(), ..signed(&made, 9, statement(&made, Some("stranger"))) };
    desk.receive(3, &Message::Statement(stranger));
    assert!(is_at_peace(&desk));
}

/// Who agrees is not read until somebody does not. An agreement that was forged before must not stand in the way of what its validator
/// really says.
#[test]
fn a_forged_agreement_hides_nothing() {
    let made = Made::of(2);
    let mut desk = at_tip(&made);
    let forged = SignedStatement { signature: Signature([7; 64]), ..signed(&made, 3, statement(&made, None)) };
    desk.receive(4, &Message::Statement(forged));
    for n in 2..=4 {
        says(&mut desk, &made, n, Some("another"));
    }
    assert!(finding(&desk).is_some(), "{:?}", halt(&desk));
}

/// Nor in the way of its word that it does agree, which who asks whether any state can have two thirds waits for.
#[test]
fn a_forged_agreement_hides_no_true_one() {
    let made = Made::of(2);
    let mut desk = at_tip(&made);
    let forged = SignedStatement { signature: Signature([7; 64]), ..signed(&made, 3, statement(&made, None)) };
    desk.receive(4, &Message::Statement(forged));
    says(&mut desk, &made, 2, Some("one"));
    assert_eq!(desk.refused(4).len(), 1, "what is read now was forged");
    says(&mut desk, &made, 3, None);
    says(&mut desk, &made, 4, Some("two"));
    desk.pass(HOPELESS);
    let reason = halt(&desk).expect("two agree, and the others say two things");
    assert!(reason.starts_with("FAIL: ") && reason.contains("power 0 has not said"), "{reason}");
}

#[test]
fn where_no_state_can_have_two_thirds_it_says_fail() {
    let made = Made::of(2);
    let mut desk = at_tip(&made);
    says(&mut desk, &made, 2, Some("one"));
    assert!(is_at_peace(&desk));
    says(&mut desk, &made, 3, Some("two"));
    desk.pass(HOPELESS / 2);
    assert!(is_at_peace(&desk), "who of them healed meanwhile may say another thing yet");
    desk.pass(HOPELESS);
    let reason = halt(&desk).expect("three say three things: the fourth cannot make two thirds with any");
    assert!(reason.starts_with("FAIL: ") && reason.contains(&key(2).public_key().address().to_string()), "{reason}");
    assert!(reason.contains("lockstep validator quit") && reason.contains("power 10 has not said"), "{reason}");
    assert!(desk.replica.doubts_state() && desk.replica.silent().is_some());
}

/// Two faults at one height, of which the first is healed by then: there is a state that more than two thirds have, and whoever gave up before
/// that is known would take the chain down with it.
#[test]
fn who_heals_in_time_ends_the_doubt() {
    let made = Made::of(2);
    let mut desk = at_tip(&made);
    says(&mut desk, &made, 2, Some("one"));
    says(&mut desk, &made, 3, Some("two"));
    desk.pass(HOPELESS / 2);
    says(&mut desk, &made, 2, None);
    desk.pass(HOPELESS * 2);
    assert!(is_at_peace(&desk), "{:?}", halt(&desk));
}

/// One that healed says another thing than before. Until it is known which of both it stands by, it may be either.
#[test]
fn who_said_two_things_may_still_be_either() {
    let made = Made::of(2);
    let mut desk = at_tip(&made);
    says(&mut desk, &made, 2, Some("wrong"));
    says(&mut desk, &made, 2, None);
    says(&mut desk, &made, 3, Some("another"));
    desk.pass(HOPELESS);
    assert!(is_at_peace(&desk), "ours with 2 and 4 can have two thirds: {:?}", halt(&desk));
}

#[test]
fn the_same_height_twice_halts_and_asks_to_quit() {
    let made = Made::of(2);
    let mut desk = connected(&made, Desk::diverged_before(&made, Some(1), [made.chain.height]));
    for n in 2..=4 {
        says(&mut desk, &made, n, Some("another"));
    }
    assert!(finding(&desk).is_none());
    let reason = halt(&desk).expect("it healed there before");
    assert!(reason.contains("lockstep validator quit"), "{reason}");
    assert!(desk.replica.doubts_state());
}

#[test]
fn a_machine_that_diverges_again_and_again_halts() {
    let made = Made::of(2);
    let before = (100..116).map(height);
    let mut desk = connected(&made, Desk::diverged_before(&made, Some(1), before));
    for n in 2..=4 {
        says(&mut desk, &made, n, Some("another"));
    }
    assert!(finding(&desk).is_none() && halt(&desk).is_some_and(|reason| reason.contains("16 heights")), "{:?}", halt(&desk));
}

/// All correct replicas must say the same, so the digest is pinned.
#[test]
fn what_is_said_is_pinned() {
    let rest = Made::of(0).chain.statement().rest;
    assert_eq!(rest.to_string(), "236FE44427176B6891BD04EECB06D54EE9C91043A45C6ADDC7D45181B0815A18");
}

fn results(codes: &[u32]) -> Vec<TxResult> {
    codes.iter().map(|code| TxResult { code: *code, ..TxResult::default() }).collect()
}

fn changes(entries: &[(&str, &str)]) -> Changes {
    let mut changes = Changes::new();
    entries.iter().for_each(|(key, value)| changes.set(key.as_bytes(), value.as_bytes()));
    changes
}

#[test]
fn the_first_transaction_that_differs_is_named() {
    let right = Trace::new(height(5), &results(&[0, 0, 0, 0]), &changes(&[("a", "1"), ("b", "2"), ("c", "3")]));
    // Transaction 1 writes a, 2 writes b, 3 writes c.
    let touches = |count: usize, keys: &[&[u8]]| ["", "a", "b", "c"].iter().take(count).any(|key| keys.contains(&key.as_bytes()));
    let of = |codes: &[u32], entries: &[(&str, &str)]| Trace::new(height(5), &results(codes), &changes(entries)).compare(&right, touches);
    let same = &[("a", "1"), ("b", "2"), ("c", "3")];
    assert_eq!(of(&[0, 0, 7, 0], same).first_tx, Some(2), "another result");
    assert_eq!(of(&[0; 4], &[("a", "1"), ("b", "other"), ("c", "other")]).first_tx, Some(2), "another value");
    assert_eq!(of(&[0, 0, 0, 7], &[("a", "1"), ("c", "3")]).first_tx, Some(2), "a change that is missing");
    let beside = of(&[0; 4], &[("a", "1"), ("b", "2"), ("c", "3"), ("z", "9")]);
    assert_eq!(beside.first_tx, None, "no transaction writes z");
    assert!(beside.to_string().contains("key \"z\": \"9\" here, not changed by the chain"), "{beside}");
    let nothing = of(&[0; 4], same);
    assert!(nothing.first_tx.is_none() && nothing.to_string().contains("damaged outside of it"), "{nothing}");
}

#[test]
fn a_finding_is_kept_until_a_report_ends_it() {
    let made = Made::of(2);
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()).unwrap());
    assert!(Shelf::open(disk.clone()).unwrap().heights().is_empty(), "a home that never diverged has no folder");
    assert!(!dir.path().join("audit").exists());
    let said = (2..=4).map(|n| signed(&made, n, statement(&made, Some("another")))).collect();
    let finding = Finding { ours: statement(&made, None), proof: Proof::Statements(said) };
    let trace = Trace::new(made.chain.height, &results(&[0]), &changes(&[("a", "1")]));
    keep(disk.clone(), &finding, Some(trace)).unwrap();

    let mut shelf = Shelf::open(disk.clone()).unwrap();
    assert_eq!(shelf.at(made.chain.height), Some(&finding));
    shelf.executed_again(made.chain.height, &Trace::new(made.chain.height, &results(&[5]), &changes(&[("a", "1")])), |_, _| false);
    let settled = shelf.settle(&["what was done".to_owned()]).unwrap();
    assert_eq!(settled.len(), 1);
    for part in ["first transaction that differs: number 0", "what was done", "proven by:  statements of"] {
        assert!(settled[0].report.contains(part), "{}", settled[0].report);
    }
    assert_eq!(std::fs::read_to_string(dir.path().join(&settled[0].path)).unwrap(), settled[0].report);

    let shelf = Shelf::open(disk.clone()).unwrap();
    assert!(shelf.to_heal().next().is_none() && shelf.heights() == [made.chain.height], "what is healed is remembered");

    // One that does not verify is none to heal by, whichever byte is wrong.
    std::fs::remove_file(dir.path().join(&settled[0].path)).unwrap();
    let name = dir.path().join(format!("audit/{:020}.found", made.chain.height.get()));
    let good = std::fs::read(&name).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&name, &bad).unwrap();
        let shelf = Shelf::open(disk.clone()).unwrap();
        assert!(shelf.to_heal().next().is_none() && shelf.heights().is_empty(), "byte {at}: it would halt who finds it again");
    }
    for end in 0..good.len() {
        std::fs::write(&name, &good[..end]).unwrap();
        let shelf = Shelf::open(disk.clone()).unwrap();
        assert!(shelf.to_heal().next().is_none() && shelf.heights().is_empty(), "torn after {end} bytes");
    }
}

/// The bytes of a finding on disk, as docs/format-storage.md has them.
#[test]
fn the_file_of_a_finding_is_as_it_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()).unwrap());
    let ours = Statement { height: height(5), root: Hash([0x66; 32]).into(), results: Hash([0x77; 32]), rest: Hash([0x88; 32]) };
    let other = SignedStatement {
        statement: Statement { rest: Hash([0x99; 32]), ..ours.clone() },
        validator: lockstep_types::Address([0x44; 20]),
        signature: Signature([0x5a; 64]),
    };
    let finding = Finding { ours, proof: Proof::Statements(vec![other]) };
    let trace = Trace::new(height(5), &results(&[3]), &changes(&[("k", "v")]));
    keep(disk, &finding, Some(trace)).unwrap();
    let bytes = std::fs::read(dir.path().join("audit/00000000000000000005.found")).unwrap();
    let statement = |rest: &str| "0500000000000000".to_owned() + "20000000" + &"66".repeat(32) + &"77".repeat(32) + &rest.repeat(32);
    let result = "03000000".to_owned() + &"00000000".repeat(3) + &"00".repeat(16) + "00000000" + "00000000";
    let result = Hash::of([&[0], &hex::decode(result).unwrap()[..]].concat());
    let content = "01".to_owned()
        + &statement("88")
        + "02"
        + "01000000"
        + &statement("99")
        + &"44".repeat(20)
        + &"5a".repeat(64)
        + "01"
        + "0500000000000000"
        + "01000000"
        + &hex::encode(result.0)
        + "01000000"
        + "01000000"
        + "6b"
        + "01"
        + "0100000000000000"
        + &hex::encode(Hash::of("v").0)
        + "01000000"
        + "76";
    let content = hex::decode(content).unwrap();
    assert_eq!(hex::encode(&bytes[32..]), hex::encode(&content));
    assert_eq!(bytes[..32], Hash::of(&content).0);
}
