//! A key in the place of another: what moves with it, and what ends the wish.

use lockstep_app::membership::NodeTx;
use lockstep_app::node_tx::{NODE_TX_NOT_ALLOWED, NODE_TX_REFUSED, NODE_TX_SIGNATURE, NODE_TX_STALE};
use lockstep_types::Tx;

use super::common::{culprit, validator};
use super::town::{NO_SIGNATURE, Town, address, base64, four, key};

#[test]
fn a_rotation_moves_the_power_at_one_height() {
    let mut town = Town::new(r#"{"admission":"vote"}"#, &four());
    town.blocks(1);
    town.refused(town.rotate(9, 5, 10), NODE_TX_NOT_ALLOWED, "is no validator");
    town.refused(town.rotate(1, 5, 9), NODE_TX_REFUSED, "keeps the power");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    (join.replaces, join.replaced_signature) = (Some(key(1).public_key()), Some(NO_SIGNATURE));
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_SIGNATURE, &key(1).public_key().to_string());
    town.ok(town.rotate(1, 5, 10));
    assert_eq!((town.has(1), town.has(5), town.newest().len()), (None, Some(10), 4));
    assert_eq!(town.updates[&town.state.height().get()].len(), 2);
    town.refused(town.join(5, 10), NODE_TX_REFUSED, "validator already");
}

#[test]
fn what_was_admitted_and_waits_is_not_exchanged_for_something_else() {
    let mut town = Town::new(r#"{"admission":"vote","power_window":1000}"#, &four());
    town.blocks(1);
    let admit = |town: &mut Town, who: u8| {
        town.ok(town.join(who, 10));
        (1..=4).for_each(|by| drop(town.block(&[town.approve(who, 10, by)], &[])));
    };
    // The window is full with the first; the next wait.
    admit(&mut town, 5);
    admit(&mut town, 7);
    assert_eq!((town.has(5), town.has(7)), (Some(10), None));
    town.refused(town.join(7, 5), NODE_TX_REFUSED, "admitted with power 10 and waits");
    // A rotation is admitted without approval, since the old key goes. It must not become a newcomer.
    town.ok(town.rotate(1, 6, 10));
    assert_eq!(town.has(6), None);
    town.refused(town.join(6, 10), NODE_TX_REFUSED, &format!("in the place of {}", address(1)));
    town.refused(town.rotate(2, 6, 10), NODE_TX_REFUSED, &format!("in the place of {}", address(1)));
    assert!(town.ok(town.rotate(1, 6, 10)).contains("admitted already"), "the same may be asked again");
    town.ok(town.quit(6, 6));
    assert!(town.ok(town.join(6, 10)).contains("0 of 50 of the power approve"), "taken back, it is a newcomer");
    town.blocks(2_000);
    assert_eq!((town.has(1), town.has(6)), (Some(10), None));
}

/// A rotation asks for the place of the old key and for nothing else. In the block that proves the old key a liar there is no
/// such place any more, and what was approved before anybody could know lets nobody in.
#[test]
fn a_rotation_whose_old_key_is_removed_leaves_nothing_to_admit() {
    for approved_before in 0..=2 {
        // A power of 37 of the 49 that remain is more than two thirds: one approval is enough.
        let powers = [(1, 37), (2, 6), (3, 6), (4, 6)].map(|(seed, power)| validator(seed, power));
        let mut town = Town::new(r#"{"admission":"vote","power_window":3}"#, &powers);
        town.blocks(1);
        // In flight since before the evidence.
        let rotation = town.rotate(4, 5, 6);
        let approvals: Vec<Tx> = (1..=3).map(|by| town.approve(5, 6, by)).collect();
        // Those that are not enough, of power 6 each: they come before the JOIN.
        (0..approved_before).for_each(|at| drop(town.ok(approvals[2 - at].clone())));
        let done = town.block(&[rotation], &[culprit(address(4))]);
        assert_eq!((done.tx_results[0].code, town.has(4), town.has(5)), (0, None, None));
        assert_eq!(town.status(5), None, "nothing is left of it");
        assert!(town.ok(approvals[0].clone()).contains("when it joins"));
        town.blocks(10);
        assert_eq!(town.has(5), None, "it never asked to be a newcomer");
        assert_eq!(town.status(5).as_deref(), Some("invited"));
        assert!(town.ok(town.join(5, 6)).contains("admitted"), "with a JOIN that says so it is one");
        assert_eq!((town.has(4), town.has(5), town.newest().len()), (None, Some(6), 4));
    }
}

#[test]
fn a_rotation_whose_old_key_has_another_power_by_then_moves_nothing() {
    let mut town = Town::new(r#"{"admission":"open","power_window":10}"#, &four());
    town.blocks(1);
    let update = |seed: u8, power: u64| Tx(format!("val=ed25519!{}!{power}", base64(&key(seed).public_key())).into_bytes());
    town.block(&[town.join(5, 10), town.rotate(1, 6, 10)], &[]);
    assert_eq!((town.has(5), town.has(6)), (Some(10), None), "it waits");
    town.block(&[update(1, 11)], &[]);
    town.blocks(30);
    assert_eq!((town.has(1), town.has(6), town.status(6)), (Some(11), None, None));
}

/// The power of a rotation is the old key's. Where the application gave the new key power of its own meanwhile, granting it beside the old
/// key's would make power that nobody approved.
#[test]
fn a_rotation_to_a_key_that_the_application_gave_power_moves_nothing() {
    let mut town = Town::new(r#"{"admission":"open","power_window":10}"#, &four());
    town.blocks(1);
    let update = |seed: u8, power: u64| Tx(format!("val=ed25519!{}!{power}", base64(&key(seed).public_key())).into_bytes());
    town.block(&[town.join(5, 10), town.rotate(1, 6, 10)], &[]);
    assert_eq!((town.has(5), town.has(6)), (Some(10), None), "it waits");
    town.block(&[update(6, 7)], &[]);
    town.blocks(30);
    assert_eq!((town.has(1), town.has(6)), (Some(10), Some(7)));
}

/// A rotation that waited until its proof was too old lets go of the place that it asked for.
#[test]
fn a_rotation_that_waited_too_long_leaves_its_place_to_another() {
    let mut town = Town::new(r#"{"admission":"open","live_window":5,"power_window":40}"#, &four());
    town.blocks(1);
    town.block(&[town.join(5, 10), town.rotate(1, 6, 10)], &[]);
    assert_eq!((town.has(5), town.has(6)), (Some(10), None), "it waits");
    town.refused(town.rotate(1, 7, 10), NODE_TX_REFUSED, "");
    town.blocks(60);
    assert_eq!((town.has(1), town.has(6), town.status(6)), (Some(10), None, None), "nothing is left of it");
    town.ok(town.rotate(1, 7, 10));
    assert_eq!((town.has(1), town.has(7)), (None, Some(10)));
}

/// Anybody can hand on what a key signed before. It does not undo what the key asked for since, and the older block that it names does not
/// let it in for longer.
#[test]
fn an_older_join_does_not_take_the_place_of_a_newer_one() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":4,"power_window":10}"#, &four());
    town.blocks(1);
    let rotation = town.rotate(1, 5, 10);
    town.blocks(1);
    town.ok(town.join(5, 9));
    town.refused(rotation.clone(), NODE_TX_STALE, "names block 2 was taken before");
    town.ok(town.approve(5, 9, 1));
    town.ok(town.join(5, 9));
    town.blocks(20);
    assert_eq!((town.has(1), town.has(5)), (Some(10), None), "{:?}", town.status(5));
}
