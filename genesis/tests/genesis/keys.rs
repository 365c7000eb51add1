//! Key files and signing states: CometBFT's bytes, both ways.

use lockstep_types::{Height, NodeId, Round};

use lockstep_genesis::keys::{SignStep, node_key_json, parse_node_key, parse_sign_state, parse_validator_key, validator_key_json};

use crate::refused::expect;

/// Key 1 as `cometbft init` writes it.
const VALIDATOR_KEY: &str = r#"{
  "address": "34750F98BD59FCFC946DA45AAABE933BE154A4B5",
  "pub_key": {
    "type": "tendermint/PubKeyEd25519",
    "value": "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="
  },
  "priv_key": {
    "type": "tendermint/PrivKeyEd25519",
    "value": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9vXA=="
  }
}"#;

const NODE_KEY: &str = r#"{"priv_key":{"type":"tendermint/PrivKeyEd25519","value":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9vXA=="}}"#;

const STATE: &str = r#"{
  "height": "120",
  "round": 2,
  "step": 3,
  "signature": "YR/e43vGs3+osQ25wEydGjtGeFt5LSbYoLERTsPwz8tt72l0tAsScvjsFEqACIZIyf81sgX1UnrM3A4C9kNYBA==",
  "signbytes": "6E0801FF"
}"#;

#[test]
fn key_files_are_read_and_written_byte_by_byte() {
    let key = parse_validator_key(VALIDATOR_KEY.as_bytes()).unwrap();
    assert_eq!(key.seed().as_slice(), [1; 32]);
    assert_eq!(validator_key_json(&key).as_str(), VALIDATOR_KEY);
    let key = parse_node_key(NODE_KEY.as_bytes()).unwrap();
    assert_eq!(key.seed().as_slice(), [1; 32]);
    assert_eq!(node_key_json(&key).as_str(), NODE_KEY);
    assert_eq!(NodeId::of_key_bytes(&key.public_key().0).to_string(), "34750f98bd59fcfc946da45aaabe933be154a4b5");
}

#[test]
fn every_key_of_the_vectors_comes_back() {
    for n in 1..=6 {
        let key = crate::key(n);
        assert_eq!(parse_validator_key(validator_key_json(&key).as_bytes()).unwrap().public_key(), crate::public(n));
        assert_eq!(parse_node_key(node_key_json(&key).as_bytes()).unwrap().public_key(), crate::public(n));
    }
}

#[test]
fn a_validator_key_file_that_breaks_a_rule_is_refused_by_name() {
    let secret = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9vXA==";
    // The seed of key 2 before the public half of key 1.
    let crossed = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgKKiOPddAnxlf1S2y08ul1yymcJvx2UEhvzdIgBtA9vXA==";
    for (from, to, field, value, rule) in [
        ("\"address\": \"34750F98BD59FCFC946DA45AAABE933BE154A4B5\",", "", "address", "missing", "the address of the key"),
        ("34750F98", "34750F99", "address", "34750F99", "must be 34750F98BD59FCFC946DA45AAABE933BE154A4B5"),
        (
            "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=",
            "gTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q=",
            "pub_key",
            "gTl3D",
            "the public half of priv_key",
        ),
        ("PubKeyEd25519", "PubKeySecp256k1", "pub_key.type", "Secp256k1", "tendermint/PubKeyEd25519"),
        ("PrivKeyEd25519", "PrivKeySecp256k1", "priv_key.type", "Secp256k1", "tendermint/PrivKeyEd25519"),
        (secret, crossed, "priv_key", "(secret)", "the public key that grows from the first 32"),
        (secret, "AQEBAQ==", "priv_key.value", "(secret)", "64 bytes in standard base64"),
        (secret, "AQEBAQ=", "priv_key.value", "(secret)", "64 bytes in standard base64"),
        ("\"priv_key\"", "\"private\"", "priv_key", "missing", "must be the secret key"),
        ("\"address\"", "\"extra\": 1, \"address\"", "extra", "1", "known are address, pub_key, priv_key"),
        ("\"address\": \"34750F98BD59FCFC946DA45AAABE933BE154A4B5\",", "\"address\": 1,", "address", "1", "must be a text"),
        ("\n}", "", "file", "not JSON", "must be JSON"),
    ] {
        assert!(VALIDATOR_KEY.contains(from), "nothing to replace: {from}");
        let error = parse_validator_key(VALIDATOR_KEY.replace(from, to).as_bytes()).unwrap_err();
        assert!(!error.to_string().contains("AQEBAQ") && !error.to_string().contains("AgICAg"), "a secret in: {error}");
        expect(error, field, value, rule);
    }
}

#[test]
fn a_node_key_file_that_breaks_a_rule_is_refused_by_name() {
    expect(parse_node_key(b"{}").unwrap_err(), "priv_key", "missing", "must be the secret key");
    expect(parse_node_key(VALIDATOR_KEY.as_bytes()).unwrap_err(), "address", "34750F98", "known are priv_key");
    expect(
        parse_node_key(NODE_KEY.replace("\"AQEB", "\"AgEB").as_bytes()).unwrap_err(),
        "priv_key",
        "(secret)",
        "must end with the 32 bytes",
    );
    expect(
        parse_node_key(NODE_KEY.replace("{\"type", "{\"kind\":\"AQ\",\"type").as_bytes()).unwrap_err(),
        "priv_key.kind",
        "(secret)",
        "known are type, value",
    );
    expect(parse_node_key(&[b' '; (64 << 10) + 1]).unwrap_err(), "file", "65537 bytes", "at most 65536 bytes");
}

#[test]
fn no_changed_byte_of_a_key_file_gives_another_key() {
    for (place, original) in VALIDATOR_KEY.bytes().enumerate() {
        for byte in (0..=255u8).filter(|byte| *byte != original) {
            let mut changed = VALIDATOR_KEY.as_bytes().to_vec();
            changed[place] = byte;
            if let Ok(key) = parse_validator_key(&changed) {
                assert_eq!(key.public_key(), crate::public(1), "byte {place} as {byte:#x}");
            }
        }
    }
}

#[test]
fn a_signing_state_is_read() {
    let state = parse_sign_state(STATE.as_bytes()).unwrap();
    assert_eq!((state.height, state.round, state.step), (Height::new(120).unwrap(), Round::new(2).unwrap(), SignStep::Precommit));
    let signed = state.signed.unwrap();
    assert_eq!(signed.sign_bytes, [0x6e, 0x08, 0x01, 0xff]);
    assert_eq!(signed.signature.0[..2], [0x61, 0x1f]);

    let fresh = parse_sign_state(br#"{"height":"0","round":0,"step":0}"#).unwrap();
    assert_eq!((fresh.height, fresh.round, fresh.step, fresh.signed), (Height::ZERO, Round::ZERO, SignStep::None, None));
}

#[test]
fn a_signing_state_that_breaks_a_rule_is_refused_by_name() {
    for (from, to, field, value, rule) in [
        ("\"height\": \"120\",", "", "height", "missing", "the height signed last"),
        ("\"120\"", "\"-1\"", "height", "\"-1\"", "0 to 2^63 - 1"),
        ("\"120\"", "\"9223372036854775808\"", "height", "9223372036854775808", "0 to 2^63 - 1"),
        ("\"120\"", "\"0\"", "height", "\"0\"", "at least 1 where something was signed"),
        ("\"round\": 2,", "", "round", "missing", "the round signed last"),
        ("\"round\": 2", "\"round\": 2147483648", "round", "2147483648", "0 to 2^31 - 1"),
        ("\"step\": 3,", "", "step", "missing", "the step signed last"),
        ("\"step\": 3", "\"step\": 4", "step", "4", "0 (nothing), 1 (proposal), 2 (prevote) or 3 (precommit)"),
        ("\"step\": 3", "\"step\": 0", "step", "0", "a signature stands beside it"),
        ("\"step\": 3", "\"step\": -1", "step", "-1", "0 to 3"),
        ("\"signbytes\": \"6E0801FF\"", "\"signbytes\": null", "signature", "YR/e43v", "must not stand without signbytes"),
        ("\"signature\": \"YR", "\"signatur\": \"YR", "signatur", "YR/e43v", "known are height, round, step, signature, signbytes"),
        ("\"YR/e43vGs3", "\"43vGs3", "signature", "43vGs3", "64 bytes in standard base64"),
        ("6E0801FF", "6E0801F", "signbytes", "6E0801F", "hexadecimal digits, two for each byte"),
    ] {
        assert!(STATE.contains(from), "nothing to replace: {from}");
        expect(parse_sign_state(STATE.replace(from, to).as_bytes()).unwrap_err(), field, value, rule);
    }
    let alone = br#"{"height":"1","round":0,"step":1,"signbytes":"00"}"#;
    expect(parse_sign_state(alone).unwrap_err(), "signbytes", "00", "must not stand without signature");
}
