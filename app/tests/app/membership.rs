//! Membership through the host, as blocks bring it: who is admitted, when power moves, who must go.

use std::collections::BTreeMap;

use lockstep_app::node_tx::{NODE_TX_NOT_ALLOWED, NODE_TX_REFUSED};
use lockstep_app::record::RECORD_KEY;
use lockstep_app::{CheckKind, Host, Kv, ReplicaRecord};
use lockstep_types::Tx;

use super::common::{Chain, culprit, height, validator};
use super::town::{Town, address, base64, four, key, kinds};

#[test]
fn a_newcomer_is_admitted_when_more_than_two_thirds_of_the_power_approve() {
    let mut town = Town::new(r#"{"admission":"vote"}"#, &four());
    town.blocks(1);
    assert!(town.ok(town.join(5, 10)).contains("0 of 40"));
    assert_eq!(town.status(5).as_deref(), Some("observer"));
    assert!(town.ok(town.approve(5, 10, 1)).contains("10 of 40"));
    assert!(town.ok(town.approve(5, 10, 2)).contains("20 of 40"), "two thirds are not reached by half");
    assert_eq!(town.has(5), None);
    let asked = town.state.height().next();
    assert!(town.ok(town.approve(5, 10, 3)).contains("admitted"));
    assert_eq!(town.has(5), Some(10));
    assert_eq!(town.status(5).as_deref(), Some("validator"));
    // What is granted at H acts at H + 2: that block begins with the view.
    let old = town.block(&[], &[]);
    assert_eq!((old.state.height(), kinds(&old.events)), (asked.next(), vec![]));
    let new = town.block(&[], &[]);
    assert_eq!((new.state.height(), kinds(&new.events)), (asked.next().next(), vec!["view"]));
    let view: Vec<&str> = new.events[0].attributes.iter().map(|attribute| attribute.value.as_str()).collect();
    assert_eq!(view, ["1", &asked.next().next().to_string(), "5", "50"]);
}

#[test]
fn an_approval_may_come_first_and_names_the_power() {
    let mut town = Town::new(r#"{"admission":"vote"}"#, &four());
    town.blocks(1);
    for by in 1..=3 {
        town.ok(town.approve(5, 10, by));
    }
    assert_eq!(town.status(5).as_deref(), Some("invited"));
    town.refused(town.join(5, 11), NODE_TX_REFUSED, "approved with power 10, and asks for 11");
    assert!(town.ok(town.join(5, 10)).contains("admitted"));
    assert_eq!(town.has(5), Some(10));
}

#[test]
fn another_power_loses_the_approvals() {
    let mut town = Town::new(r#"{"admission":"vote"}"#, &four());
    town.blocks(1);
    town.ok(town.join(5, 5));
    town.ok(town.approve(5, 5, 1));
    town.ok(town.approve(5, 5, 2));
    assert!(town.ok(town.join(5, 10)).contains("0 of 40"));
    town.refused(town.approve(5, 5, 3), NODE_TX_REFUSED, "asks for power 10, and this approves 5");
}

#[test]
fn an_authority_admits_and_removes_by_its_threshold() {
    let keys: Vec<String> = (11..=13).map(|seed| base64(&key(seed).public_key())).collect();
    let group = format!(r#"{{"admission":"authority","authority":{{"keys":{keys:?},"threshold":2}},"power_window":1}}"#);
    let mut town = Town::new(&group, &four());
    town.blocks(1);
    town.ok(town.join(5, 10));
    town.refused(town.approve(5, 10, 1), NODE_TX_NOT_ALLOWED, "no key of the authority");
    assert!(town.ok(town.approve(5, 10, 11)).contains("1 of 2"));
    town.refused(town.approve(5, 10, 11), NODE_TX_REFUSED, "already");
    town.ok(town.approve(5, 10, 13));
    assert_eq!(town.has(5), Some(10));
    town.refused(town.quit(2, 1), NODE_TX_NOT_ALLOWED, "only itself and the authority");
    assert!(town.ok(town.quit(2, 12)).contains("1 of 2"));
    town.refused(town.quit(2, 12), NODE_TX_REFUSED, "already");
    assert_eq!(town.has(2), Some(10));
    let members = town.members();
    let asked = |member: &&serde_json::Value| member["removals"].as_array().is_some_and(|keys| !keys.is_empty());
    let asked: Vec<_> = members["members"].as_array().expect("a list").iter().filter(asked).collect();
    assert_eq!(asked.len(), 1);
    assert_eq!((&asked[0]["address"], &asked[0]["removals"][0]), (&address(2).to_string().into(), &address(12).to_string().into()));
    town.ok(town.quit(2, 11));
    assert_eq!(town.has(2), None);
}

#[test]
fn one_grows_to_two_to_four_and_shrinks_to_one() {
    let mut town = Town::new(r#"{"admission":"open","power_window":2}"#, &[validator(1, 10)]);
    town.blocks(1);
    for seed in 2..=4 {
        town.ok(town.join(seed, 10));
        town.blocks(4);
    }
    assert_eq!(town.newest().len(), 4);
    for seed in 2..=4 {
        town.ok(town.quit(seed, seed));
        town.blocks(4);
    }
    assert_eq!(town.newest(), BTreeMap::from([(address(1), 10)]));
    town.refused(town.quit(1, 1), NODE_TX_REFUSED, "there would be power 0");
}

#[test]
fn what_exceeds_a_third_waits_in_line() {
    let mut town = Town::new(r#"{"admission":"open","power_window":10}"#, &four());
    town.blocks(1);
    let joins: Vec<Tx> = (5..=8).map(|seed| town.join(seed, 10)).collect();
    let first = town.state.height().next().get();
    town.block(&joins, &[]);
    // One of 10 is at most a third of 40, two are not.
    assert_eq!((town.has(5), town.has(6)), (Some(10), None));
    town.blocks(40);
    assert_eq!(town.newest().len(), 8);
    let granted: Vec<u64> = town.updates.iter().filter(|(_, list)| !list.is_empty()).map(|(at, _)| *at).collect();
    // A third of 60 is two of them.
    assert_eq!(granted, [first, first + 10, first + 20], "one, one, and two in windows of ten");
}

#[test]
fn a_join_that_waited_too_long_must_prove_itself_again() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":5}"#, &four());
    town.blocks(1);
    town.ok(town.join(5, 10));
    town.blocks(6);
    town.ok(town.approve(5, 10, 1));
    town.ok(town.approve(5, 10, 2));
    assert!(town.ok(town.approve(5, 10, 3)).contains("when it joins again"));
    assert_eq!(town.has(5), None);
    assert!(town.ok(town.join(5, 10)).contains("admitted"), "its approvals are kept");
    assert_eq!(town.has(5), Some(10));
}

#[test]
fn nobody_leaves_who_is_needed() {
    let mut town = Town::new(r#"{"admission":"open","live_window":5}"#, &four());
    town.absent = vec![4];
    town.blocks(10);
    // 30 of 40 are live; without one of them 20 of 30 would be, which is not more than two thirds.
    town.refused(town.quit(1, 1), NODE_TX_REFUSED, "power 30 of which 20 signed");
    town.ok(town.quit(4, 4));
    assert_eq!(town.has(4), None);
}

/// A request is good for a thousand heights; who died is not counted on for nearly so long.
#[test]
fn who_died_is_counted_on_for_twenty_heights_only() {
    let mut town = Town::new(r#"{"admission":"open","live_window":1000,"power_window":1}"#, &four());
    town.blocks(5);
    town.absent = vec![4];
    // Its last signature is that of height 4, in block 5.
    town.blocks(19);
    let check = |town: &Town| town.host.check_tx(&town.state, &town.quit(1, 1).0, CheckKind::New);
    let at = town.state.height().get() + 1;
    assert_eq!((at, check(&town).code), (25, NODE_TX_REFUSED), "{}", check(&town).log);
    assert!(check(&town).log.contains("power 30 of which 20 signed one of the last 20 commits"), "{}", check(&town).log);
    // One that signs again is counted on at once.
    town.absent.clear();
    town.blocks(1);
    town.absent = vec![4];
    town.blocks(18);
    assert_eq!((town.state.height().get() + 1, check(&town).code), (44, 0));
    town.blocks(1);
    assert_eq!(check(&town).code, NODE_TX_REFUSED);
    // Who is gone for good may go, and then all who remain are there.
    town.ok(town.quit(4, 4));
    town.ok(town.quit(1, 1));
    assert_eq!((town.has(1), town.has(4), town.newest().len()), (None, None, 2));
}

#[test]
fn absence_suspends_and_a_join_returns() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":3,"absence_window":8,"power_window":1}"#, &four());
    town.blocks(1);
    town.absent = vec![4];
    town.blocks(7);
    assert_eq!(town.has(4), Some(10));
    town.blocks(6);
    assert_eq!((town.has(4), town.status(4).as_deref()), (None, Some("suspended")));
    town.refused(town.join(4, 9), NODE_TX_REFUSED, "returns with the power it had, 10");
    town.absent.clear();
    town.ok(town.join(4, 10));
    assert_eq!((town.has(4), town.status(4).as_deref()), (Some(10), Some("validator")), "nobody has to approve");
}

#[test]
fn who_signs_again_before_it_is_suspended_stays() {
    let mut town = Town::new(r#"{"admission":"open","live_window":3,"absence_window":8,"power_window":1000}"#, &four());
    town.blocks(1);
    // The window is full: the suspension has to wait.
    town.ok(town.join(5, 10));
    town.absent = vec![4];
    town.blocks(20);
    assert_eq!((town.has(4), town.status(4).as_deref()), (Some(10), Some("suspended")));
    town.absent.clear();
    town.blocks(2);
    assert_eq!((town.has(4), town.status(4).as_deref()), (Some(10), Some("validator")));
    town.blocks(1000);
    assert_eq!(town.has(4), Some(10));
}

#[test]
fn evidence_bars_for_ever_and_never_empties_the_set() {
    let mut town = Town::new(r#"{"admission":"open","power_window":1000}"#, &four());
    town.blocks(1);
    // Two at once: half of the power, which no rule of moving power delays.
    town.block(&[], &[culprit(address(1)), culprit(address(2)), culprit(address(1))]);
    assert_eq!(town.newest().len(), 2);
    assert_eq!(town.status(1).as_deref(), Some("barred"));
    town.refused(town.join(1, 10), NODE_TX_REFUSED, "misbehaved");
    town.refused(town.approve(1, 10, 3), NODE_TX_NOT_ALLOWED, "open");
    // What it moved counts: others wait.
    town.ok(town.join(5, 10));
    assert_eq!(town.has(5), None);
    town.block(&[], &[culprit(address(3)), culprit(address(4))]);
    assert_eq!(town.newest().len(), 1, "the last one stays");
}

#[test]
fn a_checkpoint_writes_the_record_of_exactly_that_height() {
    let mut town = Town::new(r#"{"admission":"vote","checkpoint_interval":50,"checkpoint_spacing":10}"#, &four());
    town.blocks(1);
    let before = town.state.root();
    town.blocks(3);
    assert_eq!(town.state.root(), before, "an empty block leaves the root");
    town.refused(town.checkpoint(9), NODE_TX_NOT_ALLOWED, "validators and the authority");
    let result = town.block(&[town.checkpoint(2), town.checkpoint(3)], &[]);
    assert!(result.checkpoint);
    assert_eq!(result.tx_results.iter().map(|result| result.code).collect::<Vec<_>>(), [0, NODE_TX_REFUSED]);
    let record = ReplicaRecord::from_bytes(town.state.tree().get(RECORD_KEY).expect("a record")).expect("readable");
    assert_eq!((record.height, record.view), (town.state.height(), 0));
    assert_eq!([&record.validators, &record.next_validators], [&town.sets[1], &town.sets[2]]);
    assert_eq!(record.last_results_hash, result.last_results_hash);
    assert_eq!(record.attendance.len(), 4);
    town.refused(town.checkpoint(1), NODE_TX_REFUSED, "the next may come at 16");
    town.blocks(50 - town.state.height().get());
    let record = ReplicaRecord::from_bytes(town.state.tree().get(RECORD_KEY).expect("a record")).expect("readable");
    assert_eq!(record.height, height(50), "and by itself at the interval");
}

#[test]
fn the_application_changes_validators_beside_the_rules() {
    let mut town = Town::new(r#"{"admission":"open","power_window":1000}"#, &four());
    town.blocks(1);
    let update = |seed: u8, power: u64| Tx(format!("val=ed25519!{}!{power}", base64(&key(seed).public_key())).into_bytes());
    let executed = town.block(&[update(5, 7), town.join(6, 10), update(1, 0), town.quit(1, 1)], &[]);
    assert_eq!(executed.tx_results.iter().map(|result| result.code).collect::<Vec<_>>(), [0; 4]);
    assert_eq!((town.has(5), town.has(1), town.has(6)), (Some(7), None, None), "what the application moved counts: the JOIN waits");
    town.blocks(1000);
    assert_eq!(town.has(6), None, "and by now it has to prove itself again");
    town.ok(town.join(6, 10));
    assert_eq!(town.has(6), Some(10));
}

/// The application keeps validators of its own, and does not hear what the rules did to them.
#[test]
fn an_application_that_removes_who_has_left_stops_nobody() {
    let mut town = Town::new(r#"{"admission":"open","power_window":1}"#, &four());
    town.blocks(1);
    town.ok(town.quit(1, 1));
    assert_eq!(town.has(1), None);
    let removal = Tx(format!("val=ed25519!{}!0", base64(&key(1).public_key())).into_bytes());
    let executed = town.block(&[removal], &[]);
    assert_eq!((executed.tx_results[0].code, kinds(&executed.events)), (0, vec!["membership"]));
    assert_eq!(town.newest().len(), 3);
}

#[test]
fn observers_nobody_approved_give_way_only_when_they_are_old() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":30}"#, &four());
    town.blocks(1);
    let joins: Vec<Tx> = (20..84).map(|seed| town.join(seed, 10)).collect();
    town.block(&joins, &[]);
    town.refused(town.join(90, 10), NODE_TX_REFUSED, "at most 64 may");
    town.ok(town.approve(20, 10, 1));
    town.blocks(31);
    town.ok(town.join(90, 10));
    assert_eq!(town.status(20).as_deref(), Some("observer"), "one that is approved keeps its place");
    assert_eq!(town.members()["members"].as_array().expect("a list").len(), 4 + 64);
}

#[test]
fn genesis_rules_are_refused_by_name() {
    let chain = Chain::new();
    for (group, named) in [
        (r#"{}"#, "admission"),
        (r#"{"admission":"king"}"#, "king"),
        (r#"{"admission":"vote","spare":1}"#, "spare"),
        (r#"{"admission":"vote","live_window":0}"#, "live_window is 0"),
        (r#"{"admission":"vote","live_window":1001}"#, "live_window is 1001"),
        (r#"{"admission":"vote","power_window":10001}"#, "power_window is 10001"),
        (r#"{"admission":"vote","absence_window":100}"#, "absence_window is 100"),
        (r#"{"admission":"vote","checkpoint_spacing":0}"#, "checkpoint_spacing is 0"),
        (r#"{"admission":"vote","checkpoint_interval":10000001}"#, "checkpoint_interval is 10000001"),
        (r#"{"admission":"authority"}"#, "authority is absent"),
        (r#"{"admission":"vote","authority":{"keys":[],"threshold":1}}"#, "keys is 0"),
        (r#"{"admission":"vote","authority":{"keys":["AA=="],"threshold":1}}"#, "AA=="),
        (r#"{"admission":"vote","authority":{"keys":["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],"threshold":1}}"#, "weak"),
    ] {
        let app_state = format!(r#"{{"membership":{group}}}"#);
        let error = Host::new(std::sync::Arc::new(Kv)).init(&chain.genesis(&app_state, &four())).expect_err(group).to_string();
        assert!(error.contains("app_state.membership") && error.contains(named), "{error}");
    }
    let one = base64(&key(1).public_key());
    for (authority, named) in [
        (format!(r#"{{"keys":["{one}","{one}"],"threshold":1}}"#), "each key once"),
        (format!(r#"{{"keys":["{one}"],"threshold":2}}"#), "threshold is 2"),
        (format!(r#"{{"keys":["{one}"],"threshold":0}}"#), "threshold is 0"),
    ] {
        let app_state = format!(r#"{{"membership":{{"admission":"authority","authority":{authority}}}}}"#);
        let error = Host::new(std::sync::Arc::new(Kv)).init(&chain.genesis(&app_state, &four())).expect_err(&authority).to_string();
        assert!(error.contains(named), "{error}");
    }
}
