//! No validator transaction and no evidence can stop a chain (D10): whatever they say, the list of updates is one that the
//! set takes, and the records of the application are that set.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_app::{BlockInput, Kv, Query};
use lockstep_types::{Address, Power, Tx, ValidatorUpdate};
use proptest::prelude::*;

use super::common::{Chain, culprit, validator};

const OPEN: &str = r#"{"kv":{"open_validators":true}}"#;

#[derive(Debug, Clone)]
enum Act {
    Set(u8, u64),
    Equivocate(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let power = prop_oneof![3 => Just(0), 4 => 1u64..100, 1 => Just(Power::MAX.get()), 1 => Just(Power::MAX.get() / 2)];
    prop_oneof![6 => (0u8..6, power).prop_map(|(who, power)| Act::Set(who, power)), 1 => (0u8..6).prop_map(Act::Equivocate)]
}

fn validator_tx(update: &ValidatorUpdate) -> Tx {
    Tx(format!("val=ed25519!{}!{}", STANDARD.encode(update.public_key.as_bytes()), update.power).into_bytes())
}

proptest! {
    #[test]
    fn every_list_of_updates_fits_the_set(blocks in prop::collection::vec(prop::collection::vec(act(), 0..8), 1..12)) {
        let chain = Chain::new();
        let genesis = [validator(0, 10), validator(1, 10), validator(2, 1)];
        let (host, initialized) = chain.init(Kv, OPEN, &genesis);
        let mut set = initialized.validators.clone();
        let mut state = initialized.state;
        for (at, acts) in blocks.iter().enumerate() {
            let txs: Vec<Tx> = acts.iter().filter_map(|act| match act {
                Act::Set(who, power) => Some(validator_tx(&validator(*who, *power))),
                Act::Equivocate(_) => None,
            }).collect();
            let misbehaviour = acts.iter().filter_map(|act| match act {
                Act::Equivocate(who) => Some(culprit(validator(*who, 1).public_key.address())),
                Act::Set(..) => None,
            }).collect();
            let block = BlockInput { misbehaviour, ..chain.block(at as u64 + 1, &txs) };
            let executed = host.execute(state.clone(), &block, Chain::facts(&set)).expect("no list is refused");
            let again = host.execute(state, &block, Chain::facts(&set)).expect("once more");
            prop_assert_eq!(again.state.root(), executed.state.root());
            prop_assert_eq!(&again.tx_results, &executed.tx_results);
            prop_assert_eq!(&again.validator_updates, &executed.validator_updates);
            // The host judged the list; here is the set itself.
            set.update(&executed.validator_updates).expect("a list that the set takes");
            let members: BTreeMap<Address, u64> = set.iter().map(|validator| (validator.address, validator.power.get())).collect();
            for who in 0..6 {
                let key = validator(who, 1).public_key;
                let query = Query { path: "/val", data: key.as_bytes(), height: None, prove: false };
                prop_assert_eq!(host.query(&executed.state, &query).value.is_some(), members.contains_key(&key.address()));
            }
            state = executed.state;
        }
    }
}

#[test]
fn within_a_block_evidence_comes_first_and_the_last_transaction_wins() {
    let chain = Chain::new();
    let (host, initialized) = chain.init(Kv, OPEN, &[validator(0, 10), validator(1, 10)]);
    let set = initialized.validators.clone();
    // 1 equivocates and comes back with power 3 in the same block; 2 joins and leaves again.
    let list =
        [validator_tx(&validator(1, 5)), validator_tx(&validator(2, 5)), validator_tx(&validator(1, 3)), validator_tx(&validator(2, 0))];
    let block = BlockInput { misbehaviour: vec![culprit(validator(1, 1).public_key.address())], ..chain.block(1, &list) };
    let executed = host.execute(initialized.state, &block, Chain::facts(&set)).expect("executes");
    assert_eq!(executed.validator_updates, [validator(1, 3)]);
    assert!(executed.tx_results.iter().all(|result| result.code == 0));
}

#[test]
fn two_pieces_of_evidence_remove_once_and_the_last_validator_stays() {
    let chain = Chain::new();
    let (host, initialized) = chain.init(Kv, "{}", &[validator(0, 10), validator(1, 10)]);
    let set = initialized.validators.clone();
    let address = |who| validator(who, 1).public_key.address();
    let misbehaviour = vec![culprit(address(1)), culprit(address(1)), culprit(address(0)), culprit(address(5))];
    let block = BlockInput { misbehaviour, ..chain.block(1, &[]) };
    let executed = host.execute(initialized.state, &block, Chain::facts(&set)).expect("executes");
    assert_eq!(executed.validator_updates, [validator(1, 0)]);
}

#[test]
fn what_the_set_would_not_take_is_refused_as_a_result() {
    let chain = Chain::new();
    let (host, initialized) = chain.init(Kv, OPEN, &[validator(0, 10)]);
    let set = initialized.validators.clone();
    let list = [validator(0, 0), validator(1, 0), validator(1, Power::MAX.get())].map(|update| validator_tx(&update));
    let executed = host.execute(initialized.state, &chain.block(1, &list), Chain::facts(&set)).expect("executes");
    let answers: Vec<_> = executed.tx_results.iter().map(|result| (result.code, result.log.as_str())).collect();
    assert_eq!(answers[0], (2, "the last validator stays"));
    assert_eq!(answers[1], (2, "no such validator to remove"));
    assert_eq!(answers[2], (2, "the power of all validators would be 1152921504606846985, at most 1152921504606846975 may exist"));
    assert_eq!(executed.validator_updates, []);
}
