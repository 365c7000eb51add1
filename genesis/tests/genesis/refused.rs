//! Every rule of the file, broken: the refusal names field, value and rule.

use lockstep_types::primitives::TOTAL_POWER_MAX;
use lockstep_types::{Power, PublicKey};

use lockstep_genesis::genesis::GENESIS_BYTES_MAX;
use lockstep_genesis::{Genesis, GenesisError, GenesisValidator};

use crate::accepted::COMETBFT;

/// The refusal of a file must name exactly this field, and in value and rule hold these words.
#[track_caller]
pub(crate) fn expect(error: GenesisError, field: &str, value: &str, rule: &str) {
    assert_eq!(error.field, field, "{error}");
    assert!(error.value.contains(value), "value {:?} of: {error}", value);
    assert!(error.rule.contains(rule), "rule {:?} of: {error}", rule);
    assert_eq!(error.to_string(), format!("{} is {}: {}", error.field, error.value, error.rule));
}

/// Two validators, so that one can be played against the other.
fn two() -> String {
    let second = r#"{"address": "6A3803D5F059902A1C6DAFBC9BA4729212F7CAAC", "pub_key": {"type": "tendermint/PubKeyEd25519",
        "value": "gTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q="}, "power": "7", "name": "second"}"#;
    let text = COMETBFT.replace("\"name\": \"\"\n    }", &format!("\"name\": \"\"\n    }}, {second}"));
    assert_eq!(Genesis::parse(text.as_bytes()).unwrap().validators.len(), 2, "the untouched file is valid");
    text
}

/// What to replace, with what, and the field, value and rule of the refusal.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    // The file as a whole.
    ("{\n  \"genesis_time\"", "\n  \"genesis_time\"", "file", "not JSON", "must be JSON"),
    ("\"app_hash\": \"\"\n}", "\"app_hash\": \"\"\n", "file", "not JSON", "must be JSON"),
    ("\"app_hash\": \"\"\n}", "\"app_hash\": \"\",\n}", "file", "not JSON", "must be JSON"),
    ("\"app_hash\": \"\"\n}", "\"app_hash\": \"\"\n} {}", "file", "not JSON", "must be JSON"),
    (
        "\"app_hash\": \"\"",
        "\"app_hash\": \"\", \"app_version\": 1",
        "app_version",
        "1",
        "is not known here; known are genesis_time, chain_id",
    ),
    ("\"app_hash\": \"\"", "\"app_hash\": \"\", \"a\\nb\": 1", "a b", "1", "is not known here"),
    ("\"app_hash\": \"\"", "\"app_hash\": \"\", \"app_hash\": \"\"", "app_hash", "\"\"", "must not be given twice"),
    ("\"app_hash\": \"\"", "\"app_hash\": \"\", \"chain_\\u0069d\": \"other\"", "chain_id", "\"other\"", "must not be given twice"),
    // Time.
    ("\"genesis_time\": \"2026-01-02T03:04:05.123456789Z\",", "", "genesis_time", "missing", "must be a time"),
    ("\"2026-01-02T03:04:05.123456789Z\"", "null", "genesis_time", "missing", "must be a time"),
    ("\"2026-01-02T03:04:05.123456789Z\"", "1767323045", "genesis_time", "1767323045", "must be a text"),
    ("2026-01-02T03:04:05.123456789Z", "2026-01-02", "genesis_time", "\"2026-01-02\"", "must be a time in RFC 3339"),
    ("2026-01-02T03:04:05.123456789Z", "2026-02-30T03:04:05Z", "genesis_time", "2026-02-30", "must be a time in RFC 3339"),
    ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.1234567891Z", "genesis_time", "1234567891Z", "must be a time in RFC 3339"),
    ("2026-01-02T03:04:05.123456789Z", "2026-12-31T23:59:60Z", "genesis_time", "23:59:60Z", "must be a time in RFC 3339"),
    ("2026-01-02T03:04:05.123456789Z", "1970-01-01T00:00:00Z", "genesis_time", "1970-01-01T00:00:00Z", "must lie after 1970-01-01"),
    ("2026-01-02T03:04:05.123456789Z", "0001-01-01T00:00:00Z", "genesis_time", "0001-01-01T00:00:00Z", "must lie after 1970-01-01"),
    ("2026-01-02T03:04:05.123456789Z", "1970-01-01T01:00:00+01:00", "genesis_time", "1970-01-01T00:00:00Z", "must lie after 1970-01-01"),
    ("2026-01-02T03:04:05.123456789Z", "2200-01-01T00:00:00Z", "genesis_time", "2200-01-01T00:00:00Z", "before the year 2200"),
    // Chain id.
    ("\"chain_id\": \"test-chain-AbC123\",", "", "chain_id", "missing", "must name the chain"),
    ("\"test-chain-AbC123\"", "\"\"", "chain_id", "\"\"", "1 to 50 characters, this one has 0"),
    ("\"test-chain-AbC123\"", "7", "chain_id", "7", "must be a text"),
    ("test-chain-AbC123", "two words", "chain_id", "two words", "this one has ' '"),
    ("test-chain-AbC123", "Kette-\u{e4}", "chain_id", "Kette-\u{e4}", "this one has '\u{e4}'"),
    ("test-chain-AbC123", "a/b", "chain_id", "a/b", "this one has '/'"),
    (
        "test-chain-AbC123",
        "123456789012345678901234567890123456789012345678901",
        "chain_id",
        "123456789012345678901234567890123456789012345678901",
        "1 to 50 characters, this one has 51",
    ),
    ("test-chain-AbC123", "\\ud800", "chain_id", "\\ud800", "must be a text"),
    // Height.
    ("\"initial_height\": \"0\"", "\"initial_height\": \"2\"", "initial_height", "\"2\"", "must be 1"),
    ("\"initial_height\": \"0\"", "\"initial_height\": \"-1\"", "initial_height", "\"-1\"", "whole number in decimal digits, 1"),
    ("\"initial_height\": \"0\"", "\"initial_height\": \"01\"", "initial_height", "\"01\"", "whole number in decimal digits"),
    ("\"initial_height\": \"0\"", "\"initial_height\": 1.0", "initial_height", "1.0", "whole number in decimal digits"),
    ("\"initial_height\": \"0\"", "\"initial_height\": 1e0", "initial_height", "1e0", "whole number in decimal digits"),
    ("\"initial_height\": \"0\"", "\"initial_height\": \"+1\"", "initial_height", "\"+1\"", "whole number in decimal digits"),
    ("\"initial_height\": \"0\"", "\"initial_height\": \"-0\"", "initial_height", "\"-0\"", "whole number in decimal digits"),
    ("\"initial_height\": \"0\"", "\"initial_height\": \"\"", "initial_height", "\"\"", "whole number in decimal digits"),
    ("\"initial_height\": \"0\"", "\"initial_height\": [1]", "initial_height", "[1]", "whole number in decimal digits"),
    // Validators.
    ("\"validators\": [", "\"validators\": [], \"x\": [", "x", "[", "is not known here"),
    ("\"power\": \"10\",", "", "validators[0].power", "missing", "must be at least 1"),
    ("\"power\": \"10\"", "\"power\": \"0\"", "validators[0].power", "0", "must be at least 1: who has no power is no validator"),
    ("\"power\": \"10\"", "\"power\": \"-5\"", "validators[0].power", "\"-5\"", "1 to 1152921504606846975"),
    ("\"power\": \"10\"", "\"power\": \"1152921504606846976\"", "validators[0].power", "1152921504606846976", "1 to 1152921504606846975"),
    (
        "\"power\": \"10\"",
        "\"power\": \"99999999999999999999999999999999999999999999\"",
        "validators[0].power",
        "99999",
        "1 to 1152921504606846975",
    ),
    (
        "\"power\": \"10\"",
        "\"power\": \"1152921504606846975\"",
        "validators[1].power",
        "7",
        "sum of all powers, here 1152921504606846982, at most 1152921504606846975",
    ),
    ("\"name\": \"second\"", "\"name\": \"a\\u0007b\"", "validators[1].name", "a\\u0007b", "without control characters"),
    ("\"name\": \"second\"", "\"name\": \"a\\u202eb\"", "validators[1].name", "a b", "such as cannot be seen"),
    ("\"name\": \"second\"", "\"name\": 2", "validators[1].name", "2", "must be a text"),
    ("\"name\": \"second\"", "\"moniker\": \"second\"", "validators[1].moniker", "\"second\"", "known are address, pub_key, power, name"),
    ("\"power\": \"7\"", "\"power\": \"7\", \"power\": \"8\"", "validators[1].power", "\"8\"", "must not be given twice"),
    (
        "34750F98BD59FCFC946DA45AAABE933BE154A4B5",
        "6A3803D5F059902A1C6DAFBC9BA4729212F7CAAC",
        "validators[0].address",
        "6A3803D5F059902A1C6DAFBC9BA4729212F7CAAC",
        "must be 34750F98BD59FCFC946DA45AAABE933BE154A4B5, the address of the key beside it",
    ),
    ("34750F98BD59FCFC946DA45AAABE933BE154A4B5", "34750F98", "validators[0].address", "34750F98", "the address of the key beside it"),
    (
        "\"type\": \"tendermint/PubKeyEd25519\",\n        \"value\"",
        "\"value\"",
        "validators[0].pub_key.type",
        "missing",
        "tendermint/PubKeyEd25519",
    ),
    (
        "\"type\": \"tendermint/PubKeyEd25519\",\n        \"value\"",
        "\"type\": \"tendermint/PubKeySecp256k1\",\n        \"value\"",
        "validators[0].pub_key.type",
        "tendermint/PubKeySecp256k1",
        "must be \"tendermint/PubKeyEd25519\"",
    ),
    (
        "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=",
        "iojj3XQJ8ZX9Uts=",
        "validators[0].pub_key.value",
        "iojj3XQJ8ZX9Uts=",
        "32 bytes in standard base64",
    ),
    (
        "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=",
        "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w",
        "validators[0].pub_key.value",
        "Pb1w",
        "standard base64",
    ),
    ("iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=", "not base64!", "validators[0].pub_key.value", "not base64!", "standard base64"),
    (
        "gTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q=\"}, \"power\": \"7\"",
        "gTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q=\", \"curve\": 1}, \"power\": \"7\"",
        "validators[1].pub_key.curve",
        "1",
        "known are type, value",
    ),
    (
        "\"address\": \"6A3803D5F059902A1C6DAFBC9BA4729212F7CAAC\", \"pub_key\": {\"type\": \"tendermint/PubKeyEd25519\",\n        \"value\": \"gTl3Dqh9F19Wo1Rmw0x+zMuNipG07jeiXfYPW4/Js5Q=\"}",
        "\"pub_key\": {\"type\": \"tendermint/PubKeyEd25519\", \"value\": \"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=\"}",
        "validators[1].pub_key.value",
        "8A88E3DD7409F195FD52DB2D3CBA5D72CA6709BF1D94121BF3748801B40F6F5C",
        "must not be the key of validators[0] too",
    ),
    // Application hash and state.
    ("\"app_hash\": \"\"", "\"app_hash\": \"0000000000000000\"", "app_hash", "0000000000000000", "empty, or the 32 bytes"),
    ("\"app_hash\": \"\"", "\"app_hash\": \"0\"", "app_hash", "\"0\"", "hexadecimal digits, two for each byte"),
    ("\"app_hash\": \"\"", "\"app_hash\": \"zz\"", "app_hash", "\"zz\"", "hexadecimal digits"),
    ("\"app_hash\": \"\"", "\"app_hash\": \"\", \"app_state\": {\"a\": tru}", "file", "not JSON", "must be JSON"),
];

#[test]
fn every_rule_of_the_file_is_refused_by_name() {
    for (from, to, field, value, rule) in CASES {
        let base = two();
        assert!(base.contains(from), "nothing to replace: {from}");
        let file = base.replacen(from, to, 1);
        let error = Genesis::parse(file.as_bytes()).expect_err(&format!("{from} -> {to} was accepted"));
        expect(error, field, value, rule);
    }
}

#[test]
fn bytes_that_are_no_text_and_values_that_are_no_object() {
    let refused = |bytes: &[u8]| Genesis::parse(bytes).unwrap_err();
    expect(refused(b""), "file", "not JSON", "must be JSON");
    expect(refused(b"\xff"), "file", "not UTF-8 at byte 0", "JSON is UTF-8");
    expect(refused(b"[]"), "file", "[]", "must be an object");
    expect(refused(b"\"{}\""), "file", "{}", "must be an object");
    expect(refused(b"null"), "file", "null", "must be an object");
    expect(refused(b"{}"), "genesis_time", "missing", "must be a time");
    expect(refused("[".repeat(1_000_000).as_bytes()), "file", "not JSON", "must be JSON");
    expect(refused(&vec![b' '; GENESIS_BYTES_MAX + 1]), "file", "268435457 bytes", "at most 268435456 bytes");
    let no_list = COMETBFT.replace("\"validators\": [", "\"validators\": 1, \"x\": [");
    expect(refused(no_list.replace("\"x\": [", "\"app_state\": [").as_bytes()), "validators", "1", "must be a list");
}

#[test]
fn every_truncation_of_a_file_is_refused() {
    for end in 0..COMETBFT.len() {
        assert!(Genesis::parse(&COMETBFT.as_bytes()[..end]).is_err(), "the first {end} bytes were accepted");
    }
}

#[test]
fn every_changed_byte_is_read_or_refused_and_never_a_panic() {
    let file = two().into_bytes();
    for place in 0..file.len() {
        for byte in [0, b' ', b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', b'-', b'0', b'9', b'e', b'n', 0x7f, 0xc3, 0xff] {
            let mut changed = file.clone();
            changed[place] = byte;
            if let Ok(genesis) = Genesis::parse(&changed) {
                assert_eq!(Genesis::parse(genesis.to_json().as_bytes()).unwrap(), genesis, "byte {place} as {byte:#x}");
            }
        }
    }
}

#[test]
fn the_number_of_validators_is_bounded() {
    let mut draft = crate::draft();
    draft.validators.clear();
    expect(draft.check().unwrap_err(), "validators", "a list of 0", "1 to 512 elements");
    let mut draft = crate::draft();
    draft.validators = vec![draft.validators[0].clone(); 513];
    expect(draft.check().unwrap_err(), "validators", "a list of 513", "1 to 512 elements");
}

#[test]
fn keys_that_anybody_can_sign_with_are_refused() {
    // y = 1, the neutral element: under it almost every message has a valid signature.
    let mut weak = [0; 32];
    weak[0] = 1;
    // y = p + 3, another spelling of the point with y = 3.
    let mut twice = [0xff; 32];
    (twice[0], twice[31]) = (0xf0, 0x7f);
    // y = 2 is on no point of the curve.
    let mut nowhere = [0; 32];
    nowhere[0] = 2;
    for (bytes, rule) in [(weak, "weak"), (twice, "canonical"), (nowhere, "not a point")] {
        let mut draft = crate::draft();
        draft.validators[2].public_key = PublicKey(bytes);
        let shown = PublicKey(bytes).to_string();
        expect(draft.check().unwrap_err(), "validators[2].pub_key.value", &shown, rule);
    }
}

#[test]
fn one_unit_of_power_above_the_largest_total_is_refused() {
    let validator = |n, power| GenesisValidator { public_key: crate::public(n), power: Power::new(power).unwrap(), name: String::new() };
    let mut draft = crate::draft();
    draft.validators = vec![validator(1, TOTAL_POWER_MAX - 1), validator(2, 1)];
    draft.clone().check().unwrap();
    draft.validators[1].power = Power::new(2).unwrap();
    expect(draft.check().unwrap_err(), "validators[1].power", "2", "at most 1152921504606846975");
}

#[test]
fn names_are_bounded_in_bytes() {
    let mut draft = crate::draft();
    draft.validators[3].name = "\u{e4}".repeat(64);
    draft.clone().check().unwrap();
    draft.validators[3].name.push('x');
    expect(draft.check().unwrap_err(), "validators[3].name", "\u{e4}\u{e4}", "at most 128 bytes");
}

#[test]
fn app_state_is_one_json_value_nested_within_reach() {
    for (state, value, rule) in [
        ("", "not JSON", "must be JSON"),
        ("{} {}", "not JSON", "must be JSON"),
        ("{'a':1}", "not JSON", "must be JSON"),
        ("01", "not JSON", "must be JSON"),
        (&format!("{}{}", "[".repeat(128), "]".repeat(128)), "nested 128 deep", "at most 127 deep"),
    ] {
        let mut draft = crate::draft();
        draft.app_state = state.into();
        expect(draft.check().unwrap_err(), "app_state", value, rule);
    }
}

#[test]
fn a_long_value_is_cut_in_the_message() {
    let file = COMETBFT.replace("test-chain-AbC123", &"x".repeat(10_000));
    let error = Genesis::parse(file.as_bytes()).unwrap_err();
    assert_eq!(error.value.chars().count(), 101);
}
