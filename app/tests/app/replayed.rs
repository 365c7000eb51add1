//! What somebody signed stands in the chain for all to read. Whoever hands it on again, as long as the block that it names is young, gets
//! nothing done with it that was undone since.

use lockstep_app::membership::{NodeTx, Quit};
use lockstep_types::{PrivateKey, Tx};

use super::common::validator;
use super::town::*;

/// A request is older than that its key left.
const STALE: u32 = 7;

#[test]
fn an_eviction_takes_back_what_was_approved_before() {
    let authority = format!(
        r#"{{"admission":"authority","power_window":3,"authority":{{"keys":["{}","{}"],"threshold":2}}}}"#,
        base64(&key(20).public_key()),
        base64(&key(21).public_key())
    );
    let mut town = Town::new(&authority, &four());
    town.blocks(1);
    let (join, approvals) = (town.join(5, 10), [20, 21].map(|by| town.approve(5, 10, by)));
    town.ok(join.clone());
    approvals.iter().for_each(|approval| drop(town.ok(approval.clone())));
    town.blocks(6);
    assert_eq!(town.has(5), Some(10));
    [20, 21].iter().for_each(|by| drop(town.ok(town.quit(5, *by))));
    town.blocks(6);
    assert_eq!(town.has(5), None);
    // Its own word is a new one, the authority's are the old ones.
    town.ok(town.join(5, 10));
    approvals.into_iter().for_each(|approval| town.refused(approval, STALE, "left at height"));
    town.refused(join, STALE, "left at height");
    town.blocks(6);
    assert_eq!(town.has(5), None);
    [20, 21].iter().for_each(|by| drop(town.ok(town.approve(5, 10, *by))));
    town.blocks(6);
    assert_eq!(town.has(5), Some(10), "by new words it returns");
}

#[test]
fn nobody_brings_back_who_left() {
    let mut town = Town::new(r#"{"admission":"vote","power_window":3}"#, &four());
    town.blocks(1);
    let old: Vec<Tx> = [town.join(5, 10)].into_iter().chain((1..=3).map(|by| town.approve(5, 10, by))).collect();
    old.iter().for_each(|tx| drop(town.ok(tx.clone())));
    town.blocks(6);
    assert_eq!(town.has(5), Some(10));
    town.ok(town.quit(5, 5));
    town.blocks(6);
    assert_eq!(town.has(5), None);
    old.into_iter().rev().for_each(|tx| town.refused(tx, STALE, "sign it again over a newer block"));
    town.blocks(6);
    assert_eq!((town.has(5), town.status(5)), (None, None));
}

#[test]
fn nobody_sends_away_who_returned() {
    let mut town = Town::new(r#"{"admission":"open","power_window":3}"#, &four());
    town.blocks(1);
    town.ok(town.join(5, 10));
    town.blocks(6);
    let quit = town.quit(5, 5);
    town.ok(quit.clone());
    town.blocks(6);
    assert_eq!(town.has(5), None);
    town.ok(town.join(5, 10));
    town.blocks(6);
    assert_eq!(town.has(5), Some(10));
    town.refused(quit, STALE, "left at height");
    town.blocks(6);
    assert_eq!(town.has(5), Some(10));
}

#[test]
fn a_rotation_is_not_done_twice() {
    let mut town = Town::new(r#"{"admission":"vote","power_window":3}"#, &four());
    town.blocks(1);
    let rotation = town.rotate(4, 5, 10);
    town.ok(rotation.clone());
    town.blocks(6);
    assert_eq!((town.has(4), town.has(5)), (None, Some(10)));
    town.ok(town.rotate(5, 4, 10));
    town.blocks(6);
    assert_eq!((town.has(4), town.has(5)), (Some(10), None));
    town.refused(rotation, STALE, "left at height");
    town.blocks(6);
    assert_eq!((town.has(4), town.has(5)), (Some(10), None));
}

#[test]
fn a_join_that_was_taken_back_stays_so() {
    let mut town = Town::new(r#"{"admission":"vote","power_window":3}"#, &four());
    town.blocks(1);
    let join = town.join(5, 10);
    town.ok(join.clone());
    town.ok(town.quit(5, 5));
    town.refused(join, STALE, "left at height");
    assert_eq!(town.status(5), None);
    town.ok(town.join(5, 10));
    assert_eq!(town.status(5).as_deref(), Some("observer"));
}

/// Strangers who come and go have no claim to the room in which departures are remembered: they stay observers.
#[test]
fn who_left_is_remembered_however_many_come_and_go() {
    const STRANGERS: u16 = 1_005;
    let mut town =
        Town::new(r#"{"admission":"vote","power_window":3,"live_window":1000}"#, &[validator(1, 30), validator(2, 10), validator(3, 10)]);
    town.blocks(1);
    let old = town.quit(3, 3);
    town.ok(old.clone());
    town.blocks(2);
    assert_eq!(town.has(3), None);
    let comes_and_goes = |town: &Town, number: u16| {
        let mut seed = [7; 32];
        seed[..2].copy_from_slice(&number.to_le_bytes());
        let key = PrivateKey::from_seed(&seed);
        let (public_key, recent) = (key.public_key(), town.recent());
        let NodeTx::Join(mut join) = town.join_tx(5, 1) else { unreachable!() };
        join.public_key = public_key;
        let quit = NodeTx::Quit(Quit { public_key, signer: public_key, recent, signature: NO_SIGNATURE });
        [NodeTx::Join(join), quit].map(|tx| Tx(tx.signed(&key, &town.chain.id, &Town::genesis_hash()).encode()))
    };
    let txs: Vec<Tx> = (0..STRANGERS).flat_map(|number| comes_and_goes(&town, number)).collect();
    let done = town.block(&txs, &[]);
    let refused = done.tx_results.iter().filter(|result| result.log.contains("ask again later")).count();
    assert_eq!(refused, usize::from(STRANGERS) + 1 - 1_000, "there is an end of it");
    town.refused(old, STALE, "left at height");
}
