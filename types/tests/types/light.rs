//! The 21 cases that another verifier judged, and what it did not look at.

use std::time::Duration;

use serde_json::Value;

use lockstep_types::light::{self, LightBlock, LightError, Options, Trusted};
use lockstep_types::{ChainId, Time};

use crate::support::*;

fn read_block(value: &Value) -> LightBlock {
    LightBlock {
        header: read_header(&value["signed_header"]["header"]),
        commit: read_commit(&value["signed_header"]["commit"]),
        validators: read_set(&value["validators"]),
        next_validators: read_set(&value["next_validators"]),
    }
}

struct Case {
    name: String,
    trusted: LightBlock,
    block: LightBlock,
    options: Options,
    now: Time,
    expected: String,
}

fn cases() -> Vec<Case> {
    let file = vectors!("light_client");
    list(&file["cases"])
        .iter()
        .map(|case| {
            let (numerator, denominator) = text(&case["trust_level"]).split_once('/').unwrap();
            Case {
                name: text(&case["name"]).to_owned(),
                trusted: read_block(&case["trusted"]),
                block: read_block(&case["untrusted"]),
                options: Options {
                    trusting_period: Duration::from_secs(unsigned(&case["trusting_period_s"])),
                    clock_drift: Duration::from_secs(unsigned(&case["clock_drift_s"])),
                    trust_level: (numerator.parse().unwrap(), denominator.parse().unwrap()),
                },
                now: parsed(&case["now"]),
                expected: text(&case["expected"]).to_owned(),
            }
        })
        .collect()
}

/// Our answer in the words of the verifier that judged the vectors.
fn verdict(answer: &Result<(), LightError>) -> &'static str {
    match answer {
        Ok(()) => "success",
        Err(LightError::NotEnoughTrust { .. }) => "not-enough-trust",
        Err(LightError::NoQuorum { .. }) => "invalid: InsufficientSignersOverlap",
        Err(LightError::Expired) => "invalid: NotWithinTrustPeriod",
        Err(LightError::Future) => "invalid: HeaderFromTheFuture",
        Err(LightError::Mismatch("the commit's block")) => "invalid: InvalidCommitValue",
        Err(LightError::Mismatch("validators_hash")) => "invalid: InvalidValidatorSet",
        Err(LightError::Mismatch("next_validators_hash")) => "invalid: InvalidNextValidatorSet",
        Err(LightError::Signature) => "invalid: InvalidSignature",
        Err(LightError::Commit("as many slots as validators are needed")) => "invalid: MismatchPreCommitLength",
        Err(LightError::Chain(_)) => "invalid: ChainIdMismatch",
        Err(LightError::NotLater("time")) => "invalid: NonMonotonicBftTime",
        Err(other) => panic!("no case of the vectors ends in {other}"),
    }
}

#[test]
fn every_case_is_judged_alike() {
    let cases = cases();
    assert_eq!(cases.len(), 21);
    for case in cases {
        let answer = light::verify(&Trusted::from_block(&case.trusted), &case.block, &case.options, case.now);
        assert_eq!(verdict(&answer), case.expected, "{}: {answer:?}", case.name);
    }
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

fn verify(case: &Case) -> Result<(), LightError> {
    light::verify(&Trusted::from_block(&case.trusted), &case.block, &case.options, case.now)
}

#[test]
fn the_edges_of_time() {
    let mut case = case("adjacent-ok");
    let period = case.options.trusting_period;
    case.now = case.trusted.header.time.saturating_add(period);
    assert_eq!(verify(&case), Err(LightError::Expired), "expired at the last moment of the period");
    case.now = case.now.saturating_sub(Duration::from_nanos(1));
    assert_eq!(verify(&case), Ok(()));
    case.now = case.block.header.time.saturating_sub(case.options.clock_drift);
    assert_eq!(verify(&case), Err(LightError::Future), "the drift itself is too far");
    case.now = case.now.saturating_add(Duration::from_nanos(1));
    assert_eq!(verify(&case), Ok(()));
}

#[test]
fn a_height_at_or_below_the_trusted_one_is_refused() {
    let mut case = case("adjacent-ok");
    let mut trusted = Trusted::from_block(&case.trusted);
    for trusted_height in [11, 12] {
        trusted.height = height(trusted_height);
        assert_eq!(light::verify(&trusted, &case.block, &case.options, case.now), Err(LightError::NotLater("height")));
    }
    case.trusted.header.chain_id = ChainId::new("another").unwrap();
    assert_eq!(verify(&case), Err(LightError::Chain(case.block.header.chain_id.clone())));
}

#[test]
fn a_signature_counts_for_its_own_slot_alone() {
    let mut case = case("adjacent-ok");
    case.block.commit.signatures.swap(0, 1);
    assert_eq!(verify(&case), Err(LightError::Commit("a signer is not the validator of its slot")));
    let mut case = self::case("adjacent-ok");
    // One signer in two slots would count twice.
    case.block.commit.signatures[1] = case.block.commit.signatures[0].clone();
    assert_eq!(verify(&case), Err(LightError::Commit("a signer is not the validator of its slot")));
    let mut case = self::case("adjacent-ok");
    case.block.commit.signatures.fill(lockstep_types::CommitSig::Absent);
    assert_eq!(verify(&case), Err(LightError::Commit("no signature")));
}

#[test]
fn backwards_by_the_hash_chain() {
    let case = case("adjacent-ok");
    let (newer, older) = (&case.block.header, &case.trusted.header);
    assert_eq!(light::verify_backwards(newer, older), Ok(()));
    let mut other = older.clone();
    other.app_hash = lockstep_types::Hash::of("other").into();
    assert_eq!(light::verify_backwards(newer, &other), Err(LightError::Mismatch("last_block_id of the newer header")));
    let mut early = newer.clone();
    early.time = older.time;
    assert_eq!(light::verify_backwards(&early, older), Err(LightError::NotLater("time")));
}
