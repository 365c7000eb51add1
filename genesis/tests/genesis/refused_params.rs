//! Every rule of the parameters, broken in a file: the refusal names the member as the file spells it.

use lockstep_genesis::Genesis;

use crate::accepted::COMETBFT;
use crate::refused::expect;

/// Members of groups to set, and the field, value and rule of the refusal.
type Case = (&'static [(&'static str, &'static str, &'static str)], &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    (&[("block", "max_bytes", "\"0\"")], "consensus_params.block.max_bytes", "0", "65536 to 104857600 bytes"),
    (&[("block", "max_bytes", "\"-1\"")], "consensus_params.block.max_bytes", "-1", "65536 to 104857600 bytes"),
    (&[("block", "max_bytes", "\"104857601\"")], "consensus_params.block.max_bytes", "104857601", "65536 to 104857600 bytes"),
    (
        &[("block", "max_bytes", "\"65535\""), ("evidence", "max_bytes", "\"1\"")],
        "consensus_params.block.max_bytes",
        "65535",
        "65536 to 104857600 bytes: a header and the commit of 512 validators must fit",
    ),
    (&[("block", "max_bytes", "\"9223372036854775808\"")], "consensus_params.block.max_bytes", "9223372036854775808", "65536 to 104857600"),
    (&[("block", "max_gas", "\"-2\"")], "consensus_params.block.max_gas", "-2", "-1 for no bound"),
    (&[("block", "max_gas", "true")], "consensus_params.block.max_gas", "true", "whole number"),
    (&[("block", "time_iota_ms", "\"1000\"")], "consensus_params.block.time_iota_ms", "\"1000\"", "known are max_bytes, max_gas"),
    (&[("evidence", "max_age_num_blocks", "\"0\"")], "consensus_params.evidence.max_age_num_blocks", "0", "at least 1"),
    (&[("evidence", "max_age_num_blocks", "\"-1\"")], "consensus_params.evidence.max_age_num_blocks", "-1", "at least 1"),
    (
        &[("evidence", "max_age_num_blocks", "\"9223372036854775808\"")],
        "consensus_params.evidence.max_age_num_blocks",
        "9223372036854775808",
        "at least 1",
    ),
    (&[("evidence", "max_age_duration", "\"0\"")], "consensus_params.evidence.max_age_duration", "0", "at least 1 ns"),
    (&[("evidence", "max_age_duration", "\"48h\"")], "consensus_params.evidence.max_age_duration", "\"48h\"", "at least 1 ns"),
    (&[("evidence", "max_bytes", "\"22020097\"")], "consensus_params.evidence.max_bytes", "22020097", "at most block.max_bytes"),
    (&[("evidence", "max_bytes", "\"-1\"")], "consensus_params.evidence.max_bytes", "\"-1\"", "0 to block.max_bytes"),
    (&[("evidence", "max_age", "\"1\"")], "consensus_params.evidence.max_age", "\"1\"", "is not known here"),
    (&[("validator", "pub_key_types", "[]")], "consensus_params.validator.pub_key_types", "[]", "must be [\"ed25519\"]"),
    (
        &[("validator", "pub_key_types", "[\"secp256k1\"]")],
        "consensus_params.validator.pub_key_types",
        "secp256k1",
        "must be [\"ed25519\"]",
    ),
    (
        &[("validator", "pub_key_types", "[\"ed25519\",\"secp256k1\"]")],
        "consensus_params.validator.pub_key_types",
        "secp256k1",
        "must be [\"ed25519\"]",
    ),
    (&[("validator", "pub_key_types", "[1]")], "consensus_params.validator.pub_key_types[0]", "1", "must be a text"),
    (&[("validator", "max", "1")], "consensus_params.validator.max", "1", "is not known here"),
    (&[("version", "app", "\"-1\"")], "consensus_params.version.app", "\"-1\"", "0 to 2^64 - 1"),
    (&[("version", "app", "\"18446744073709551616\"")], "consensus_params.version.app", "18446744073709551616", "0 to 2^64 - 1"),
    (&[("version", "app_version", "\"1\"")], "consensus_params.version.app_version", "\"1\"", "is not known here"),
    (&[("abci", "vote_extensions_enable_height", "\"1\"")], "consensus_params.abci.vote_extensions_enable_height", "1", "not supported"),
    (&[("abci", "vote_extensions_enable_height", "\"-1\"")], "consensus_params.abci.vote_extensions_enable_height", "-1", "not supported"),
    (&[("abci", "other", "\"1\"")], "consensus_params.abci.other", "\"1\"", "is not known here"),
    (
        &[("synchrony", "precision", "\"1\"")],
        "consensus_params.synchrony",
        "precision",
        "known are block, evidence, validator, version, abci, lockstep",
    ),
    (&[("lockstep", "precision", "\"1\"")], "consensus_params.lockstep.precision", "\"1\"", "known are precision_ms, message_delay_ms"),
    (&[("lockstep", "precision_ms", "\"0\"")], "consensus_params.lockstep.precision_ms", "0 ms", "1 ms to 30 s"),
    (&[("lockstep", "precision_ms", "\"30001\"")], "consensus_params.lockstep.precision_ms", "30001 ms", "1 ms to 30 s"),
    (&[("lockstep", "precision_ms", "\"-1\"")], "consensus_params.lockstep.precision_ms", "\"-1\"", "of milliseconds"),
    (&[("lockstep", "precision_ms", "\"1s\"")], "consensus_params.lockstep.precision_ms", "\"1s\"", "of milliseconds"),
    (&[("lockstep", "message_delay_ms", "\"0\"")], "consensus_params.lockstep.message_delay_ms", "0 ms", "1 ms to 24 h"),
    (&[("lockstep", "message_delay_ms", "\"86400001\"")], "consensus_params.lockstep.message_delay_ms", "86400001 ms", "1 ms to 24 h"),
    (&[("lockstep", "timeout_propose_ms", "\"0\"")], "consensus_params.lockstep.timeout_propose_ms", "0 ms", "1 ms to 24 h"),
    (&[("lockstep", "timeout_propose_ms", "\"86400001\"")], "consensus_params.lockstep.timeout_propose_ms", "86400001 ms", "1 ms to 24 h"),
    (
        &[("lockstep", "timeout_propose_delta_ms", "\"0\"")],
        "consensus_params.lockstep.timeout_propose_delta_ms",
        "0 ms",
        "rounds that do not grow",
    ),
    (
        &[("lockstep", "timeout_propose_delta_ms", "\"86400001\"")],
        "consensus_params.lockstep.timeout_propose_delta_ms",
        "86400001 ms",
        "1 ms to 24 h",
    ),
    (&[("lockstep", "timeout_propose_missed_ms", "\"0\"")], "consensus_params.lockstep.timeout_propose_missed_ms", "0 ms", "1 ms to 24 h"),
    (
        &[("lockstep", "timeout_propose_missed_ms", "\"501\"")],
        "consensus_params.lockstep.timeout_propose_missed_ms",
        "501 ms",
        "must be at most timeout_propose_ms",
    ),
    (&[("lockstep", "timeout_vote_ms", "\"0\"")], "consensus_params.lockstep.timeout_vote_ms", "0 ms", "1 ms to 24 h"),
    (
        &[("lockstep", "timeout_vote_ms", "\"10001\"")],
        "consensus_params.lockstep.timeout_cap_ms",
        "10000 ms",
        "at least the timeouts of round 0",
    ),
    (
        &[("lockstep", "timeout_vote_delta_ms", "\"0\"")],
        "consensus_params.lockstep.timeout_vote_delta_ms",
        "0 ms",
        "rounds that do not grow",
    ),
    (&[("lockstep", "timeout_cap_ms", "\"0\"")], "consensus_params.lockstep.timeout_cap_ms", "0 ms", "1 ms to 24 h"),
    (
        &[("lockstep", "timeout_cap_ms", "\"499\"")],
        "consensus_params.lockstep.timeout_cap_ms",
        "499 ms",
        "at least the timeouts of round 0",
    ),
    (&[("lockstep", "timeout_cap_ms", "\"86400001\"")], "consensus_params.lockstep.timeout_cap_ms", "86400001 ms", "1 ms to 24 h"),
    (
        &[("lockstep", "min_block_interval_ms", "\"86400001\"")],
        "consensus_params.lockstep.min_block_interval_ms",
        "86400001 ms",
        "0 to 24 h",
    ),
    (
        &[("lockstep", "empty_block_interval_ms", "\"86400001\"")],
        "consensus_params.lockstep.empty_block_interval_ms",
        "86400001 ms",
        "0 to 24 h",
    ),
    (
        &[("lockstep", "empty_block_interval_ms", "\"19\"")],
        "consensus_params.lockstep.empty_block_interval_ms",
        "19 ms",
        "must be at least min_block_interval_ms",
    ),
    (&[("lockstep", "gather_ms", "\"86400001\"")], "consensus_params.lockstep.gather_ms", "86400001 ms", "0 to 24 h"),
    (
        &[("lockstep", "gather_ms", "\"300\"")],
        "consensus_params.lockstep.timeout_propose_ms",
        "500 ms",
        "must be above precision_ms / 2 + gather_ms, or an honest proposer times out",
    ),
    (
        &[("lockstep", "precision_ms", "\"1000\"")],
        "consensus_params.lockstep.timeout_propose_ms",
        "500 ms",
        "above precision_ms / 2 + gather_ms",
    ),
    (&[("lockstep", "timeout_propose_ms", "\"200\"")], "consensus_params.lockstep.timeout_propose_ms", "200 ms", "above precision_ms / 2"),
    (&[("lockstep", "evil", "\"1\"")], "consensus_params.lockstep.evil", "\"1\"", "is not known here"),
];

fn file(members: &[(&str, &str, &str)]) -> String {
    let mut value: serde_json::Value = serde_json::from_str(COMETBFT).unwrap();
    for (group, member, set) in members {
        value["consensus_params"][group][member] = serde_json::from_str(set).unwrap();
    }
    value.to_string()
}

#[test]
fn every_rule_of_the_parameters_is_refused_by_name() {
    for (members, field, value, rule) in CASES {
        let error = Genesis::parse(file(members).as_bytes()).expect_err(&format!("{members:?} was accepted"));
        expect(error, field, value, rule);
    }
}

#[test]
fn groups_are_objects_and_members_come_once() {
    for group in ["block", "evidence", "validator", "version", "abci", "lockstep"] {
        let mut value: serde_json::Value = serde_json::from_str(COMETBFT).unwrap();
        value["consensus_params"][group] = "text".into();
        let error = Genesis::parse(value.to_string().as_bytes()).unwrap_err();
        expect(error, &format!("consensus_params.{group}"), "\"text\"", "must be an object");
    }
    let twice = COMETBFT.replace("\"max_gas\": \"-1\"", "\"max_gas\": \"-1\", \"max_gas\": \"-1\"");
    expect(Genesis::parse(twice.as_bytes()).unwrap_err(), "consensus_params.block.max_gas", "-1", "must not be given twice");
    let none = COMETBFT.replace("\"consensus_params\": {", "\"consensus_params\": 1, \"app_state\": {");
    expect(Genesis::parse(none.as_bytes()).unwrap_err(), "consensus_params", "1", "must be an object");
}

#[test]
fn the_edges_themselves_are_accepted() {
    for members in [
        &[("block", "max_bytes", "\"104857600\"")][..],
        &[("block", "max_bytes", "\"65536\""), ("evidence", "max_bytes", "\"65536\"")],
        &[("block", "max_gas", "\"0\"")],
        &[("evidence", "max_bytes", "\"0\"")],
        &[("evidence", "max_age_num_blocks", "\"9223372036854775807\""), ("evidence", "max_age_duration", "\"9223372036854775807\"")],
        &[("version", "app", "\"18446744073709551615\"")],
        &[("lockstep", "precision_ms", "\"1\"")],
        &[
            ("lockstep", "precision_ms", "\"30000\""),
            ("lockstep", "timeout_propose_ms", "\"15001\""),
            ("lockstep", "timeout_cap_ms", "\"15001\""),
        ],
        &[("lockstep", "precision_ms", "\"999\"")],
        &[("lockstep", "gather_ms", "\"299\"")],
        &[("lockstep", "timeout_propose_missed_ms", "\"500\"")],
        &[("lockstep", "timeout_cap_ms", "\"500\"")],
        &[("lockstep", "min_block_interval_ms", "\"0\""), ("lockstep", "empty_block_interval_ms", "\"0\"")],
        &[("lockstep", "min_block_interval_ms", "\"86400000\""), ("lockstep", "empty_block_interval_ms", "\"86400000\"")],
    ] {
        let genesis = Genesis::parse(file(members).as_bytes()).unwrap_or_else(|error| panic!("{members:?}: {error}"));
        assert_eq!(Genesis::parse(genesis.to_json().as_bytes()).unwrap(), genesis);
    }
}
