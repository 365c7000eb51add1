//! Files that load, and what comes out.

use lockstep_types::text::is_hidden;
use lockstep_types::{ConsensusParams, Power};
use proptest::prelude::*;

use lockstep_genesis::{Genesis, GenesisDraft, GenesisValidator};

/// A genesis as `cometbft init` 0.38 writes it: another power, a name, no group of ours.
pub(crate) const COMETBFT: &str = r#"{
  "genesis_time": "2026-01-02T03:04:05.123456789Z",
  "chain_id": "test-chain-AbC123",
  "initial_height": "0",
  "consensus_params": {
    "block": {
      "max_bytes": "22020096",
      "max_gas": "-1"
    },
    "evidence": {
      "max_age_num_blocks": "100000",
      "max_age_duration": "172800000000000",
      "max_bytes": "1048576"
    },
    "validator": {
      "pub_key_types": [
        "ed25519"
      ]
    },
    "version": {
      "app": "0"
    },
    "abci": {
      "vote_extensions_enable_height": "0"
    }
  },
  "validators": [
    {
      "address": "34750F98BD59FCFC946DA45AAABE933BE154A4B5",
      "pub_key": {
        "type": "tendermint/PubKeyEd25519",
        "value": "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
      },
      "power": "10",
      "name": ""
    }
  ],
  "app_hash": ""
}"#;

#[test]
fn a_file_of_cometbft_loads_and_keeps_what_it_says() {
    let genesis = Genesis::parse(COMETBFT.as_bytes()).unwrap();
    assert_eq!(genesis.chain_id.as_str(), "test-chain-AbC123");
    assert_eq!(genesis.genesis_time.to_string(), "2026-01-02T03:04:05.123456789Z");
    assert_eq!(genesis.initial_height().get(), 1);
    assert_eq!(genesis.app_state, "{}");
    assert!(genesis.app_hash.as_bytes().is_empty());
    assert_eq!(
        genesis.validators,
        [GenesisValidator { public_key: crate::public(1), power: Power::new(10).unwrap(), name: String::new() }]
    );
    let mut expected = ConsensusParams::default();
    expected.evidence.max_age_num_blocks = 100_000;
    expected.evidence.max_age_duration_ns = 172_800_000_000_000;
    assert_eq!(genesis.consensus_params, expected, "our group is filled in from the defaults");
    assert_eq!(genesis.validator_set().len(), 1);
}

#[test]
fn the_shortest_file_says_time_chain_and_validators() {
    let text = r#"{"chain_id":"c","genesis_time":"2026-01-02T03:04:05Z","validators":[{"power":"1","pub_key":
        {"value":"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=","type":"tendermint/PubKeyEd25519"}}]}"#;
    let genesis = Genesis::parse(text.as_bytes()).unwrap();
    assert_eq!(genesis.consensus_params, ConsensusParams::default());
    let explicit = Genesis::parse(genesis.to_json().as_bytes()).unwrap();
    assert_eq!(explicit.hash(), genesis.hash(), "spelled-out defaults change nothing");
}

#[test]
fn numbers_may_stand_bare_and_members_may_be_null() {
    let text = COMETBFT
        .replace(r#""22020096""#, "22020096")
        .replace(r#""-1""#, "-1")
        .replace(r#""initial_height": "0""#, r#""initial_height": 1"#)
        .replace(r#""app_hash": """#, r#""app_hash": null, "app_state": null"#);
    assert_eq!(Genesis::parse(text.as_bytes()).unwrap(), Genesis::parse(COMETBFT.as_bytes()).unwrap());
}

#[test]
fn a_time_with_an_offset_is_the_same_moment() {
    let text = COMETBFT.replace("2026-01-02T03:04:05.123456789Z", "2026-01-02T05:34:05.123456789+02:30");
    assert_eq!(Genesis::parse(text.as_bytes()).unwrap().hash(), Genesis::parse(COMETBFT.as_bytes()).unwrap().hash());
}

#[test]
fn our_group_is_read_member_by_member() {
    let group = r#""lockstep": {"gather_ms": 50, "timeout_propose_ms": "700"}, "abci""#;
    let text = COMETBFT.replacen(r#""abci""#, group, 1);
    let params = Genesis::parse(text.as_bytes()).unwrap().consensus_params.clone();
    assert_eq!(params.pace.gather.0, 50);
    assert_eq!(params.timeouts.propose.0, 700);
    assert_eq!(params.timeouts.propose_delta, ConsensusParams::default().timeouts.propose_delta);
}

#[test]
fn what_is_written_is_laid_out_like_cometbft() {
    let written = Genesis::parse(COMETBFT.as_bytes()).unwrap().to_json();
    // Our two additions taken away, and the initial height as it is meant, the file is the one that was read.
    let (head, rest) = written.split_once(",\n    \"lockstep\": {").unwrap();
    let (_, tail) = rest.split_once("\n    }").unwrap();
    let without = format!("{head}{tail}").replace(",\n  \"app_state\": {}", "");
    assert_eq!(without, COMETBFT.replace(r#""initial_height": "0""#, r#""initial_height": "1""#));
}

#[test]
fn app_state_keeps_the_text_of_strings_and_numbers() {
    let mut draft = crate::draft();
    draft.app_state = " [ 1.50 , 1e5, -0, \" : , { \\\" \\\\\" , \"\u{e4} \\u00e4\", { } , [ ] ,\n\t[[ ]] ] ".into();
    let genesis = draft.check().unwrap();
    assert_eq!(genesis.app_state, "[1.50,1e5,-0,\" : , { \\\" \\\\\",\"\u{e4} \\u00e4\",{},[],[[]]]");
    let again = Genesis::parse(genesis.to_json().as_bytes()).unwrap();
    assert_eq!(again, genesis);
}

#[test]
fn app_state_may_be_nested_as_deep_as_readers_go() {
    let mut draft = crate::draft();
    draft.app_state = format!("{}{}", "[".repeat(127), "]".repeat(127));
    serde_json::from_str::<serde_json::Value>(&draft.app_state).expect("readers go that deep");
    let genesis = draft.check().unwrap();
    assert_eq!(Genesis::parse(genesis.to_json().as_bytes()).unwrap(), genesis);
}

#[test]
fn the_largest_set_and_the_largest_total_are_accepted() {
    let mut draft = crate::draft();
    draft.validators = (0..512u16)
        .map(|n| {
            let mut seed = [9; 32];
            seed[..2].copy_from_slice(&n.to_be_bytes());
            let public_key = lockstep_types::PrivateKey::from_seed(&seed).public_key();
            GenesisValidator {
                public_key,
                power: Power::new(lockstep_types::primitives::TOTAL_POWER_MAX / 512).unwrap(),
                name: String::new(),
            }
        })
        .collect();
    let genesis = draft.check().unwrap();
    assert_eq!(genesis.validator_set().len(), 512);
    assert_eq!(Genesis::parse(genesis.to_json().as_bytes()).unwrap(), genesis);
}

fn names() -> impl Strategy<Value = String> {
    // Everything a name may hold, quotes and backslashes among it.
    proptest::collection::vec(prop_oneof![Just('"'), Just('\\'), Just('/'), proptest::char::any()], 0..20)
        .prop_map(|chars| chars.into_iter().filter(|c| !is_hidden(*c)).collect())
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        nanos in 1..7_258_118_399_999_999_999i128,
        powers in proptest::collection::vec((1..1_000_000u64, names()), 1..6),
        root in proptest::option::of(any::<[u8; 32]>()),
        state in json_value(),
        spread in any::<bool>(),
    ) {
        let draft = GenesisDraft {
            genesis_time: lockstep_types::Time::from_unix_nanos(nanos),
            validators: (1..)
                .zip(powers)
                .map(|(n, (power, name))| GenesisValidator { public_key: crate::public(n), power: Power::new(power).unwrap(), name })
                .collect(),
            app_hash: root.map_or_else(Default::default, |root| lockstep_types::Hash(root).into()),
            app_state: if spread { serde_json::to_string_pretty(&state).unwrap() } else { state.to_string() },
            ..crate::draft()
        };
        let genesis = draft.check().unwrap();
        // An independent reader finds the same state, and the same document in both layouts. Nothing and `null` are the
        // same to CometBFT, and an empty object to us.
        let state = if state.is_null() { serde_json::json!({}) } else { state };
        let value: serde_json::Value = serde_json::from_str(&genesis.to_json()).unwrap();
        prop_assert_eq!(&value["app_state"], &state);
        prop_assert_eq!(&value, &serde_json::from_str::<serde_json::Value>(&genesis.to_minified_json()).unwrap());
        let again = Genesis::parse(genesis.to_json().as_bytes()).unwrap();
        prop_assert_eq!(again.hash(), genesis.hash());
        prop_assert_eq!(again, genesis);
    }
}
