//! Evidence as blocks show it (contract sections 4 and 10, D2 and D3), and as clients send it (D9).

use lockstep_types::evidence::{DuplicateVote, Evidence, LightBlock, LightClientAttack};
use lockstep_types::{Address, Power, Round, Signature, Time, ValidatorIndex, Vote, VoteType};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Base64, BlockId, Commit, Header, Malformed, Validator, validator_set};

/// A piece of evidence with its type.
pub(super) fn evidence(evidence: &Evidence) -> Value {
    match evidence {
        Evidence::DuplicateVote(found) => json!({ "type": "tendermint/DuplicateVoteEvidence", "value": duplicate_vote(found) }),
        Evidence::LightClientAttack(found) => json!({ "type": "tendermint/LightClientAttackEvidence", "value": attack(found) }),
    }
}

/// One spelling only: the Rust client takes both at once for a duplicate member.
fn duplicate_vote(found: &DuplicateVote) -> Value {
    json!({
        "vote_a": vote(&found.vote_a, &found.address),
        "vote_b": vote(&found.vote_b, &found.address),
        "TotalVotingPower": found.total_power,
        "ValidatorPower": found.validator_power,
        "Timestamp": found.timestamp,
    })
}

/// Extensions are always null, since the Rust client cannot read strings there. `valid_round` is ours, -1 for none: it is
/// signed in prevotes, so whoever checks the signature needs it.
fn vote(vote: &Vote, address: &Address) -> Value {
    let mut value = json!({
        "type": vote.kind as u8,
        "height": vote.height,
        "round": vote.round.get(),
        "block_id": BlockId::from(vote.block_id),
        "timestamp": vote.timestamp,
        "validator_address": address,
        "validator_index": vote.validator.get(),
        "signature": Base64::from(vote.signature.0),
        "extension": null,
        "extension_signature": null,
    });
    if vote.kind == VoteType::Prevote {
        value["valid_round"] = vote.valid_round.map_or(-1, |round| i64::from(round.get())).into();
    }
    value
}

/// Both spellings: the Rust client knows snake_case, CometBFT's own readers the other.
fn attack(found: &LightClientAttack) -> Value {
    let block = &found.conflicting_block;
    let validators: Vec<Validator> = block.validators.iter().map(Validator::from).collect();
    // The proposer of round 0 is the winner of the last increment, which is what the set carries.
    let proposer = block.validators.get(block.validators.proposer(Round::ZERO)).map(Validator::from);
    let conflicting = json!({
        "signed_header": { "header": Header::from(&block.header), "commit": Commit::from(&block.commit) },
        "validator_set": { "validators": validators, "proposer": proposer },
    });
    let byzantine: Vec<Validator> = found.byzantine_validators.iter().map(Validator::from).collect();
    json!({
        "conflicting_block": conflicting, "ConflictingBlock": conflicting,
        "common_height": found.common_height, "CommonHeight": found.common_height,
        "byzantine_validators": byzantine, "ByzantineValidators": byzantine,
        "total_voting_power": found.total_power, "TotalVotingPower": found.total_power,
        "timestamp": found.timestamp, "Timestamp": found.timestamp,
    })
}

/// A piece of evidence as a client sends it: with its type, members in snake_case or as CometBFT spells them. Powers, time and
/// culprits may be missing or wrong, since the node derives them from the chain (contract section 10, D9).
///
/// # Errors
/// Which member is missing or not what it should be.
pub fn read_evidence(value: &Value) -> Result<Evidence, Malformed> {
    let inner = value.get("value").ok_or_else(|| Malformed::new("evidence is an object of type and value"))?;
    match value.get("type").and_then(Value::as_str) {
        Some("tendermint/DuplicateVoteEvidence") => read_duplicate_vote(inner).map(|found| Evidence::DuplicateVote(Box::new(found))),
        Some("tendermint/LightClientAttackEvidence") => read_attack(inner).map(|found| Evidence::LightClientAttack(Box::new(found))),
        other => Err(Malformed::new(format!("no evidence has the type {other:?}"))),
    }
}

/// The first of these members that is there and not null.
fn member<'a>(value: &'a Value, names: &[&str]) -> Option<&'a Value> {
    names.iter().filter_map(|name| value.get(name)).find(|value| !value.is_null())
}

fn needed<T: DeserializeOwned>(value: &Value, names: &[&str]) -> Result<T, Malformed> {
    let found = member(value, names).ok_or_else(|| Malformed::new(format!("{} is missing", names[0])))?;
    T::deserialize(found).map_err(|error| Malformed::new(format!("{}: {error}", names[0])))
}

/// What the node derives anyway.
fn derived<T: DeserializeOwned>(value: &Value, names: &[&str], otherwise: T) -> T {
    member(value, names).and_then(|found| T::deserialize(found).ok()).unwrap_or(otherwise)
}

fn read_duplicate_vote(value: &Value) -> Result<DuplicateVote, Malformed> {
    let vote = |name| member(value, &[name]).ok_or_else(|| Malformed::new(format!("{name} is missing")));
    let first = vote("vote_a")?;
    Ok(DuplicateVote {
        vote_a: read_vote(first)?,
        vote_b: read_vote(vote("vote_b")?)?,
        address: needed(first, &["validator_address"])?,
        total_power: derived(value, &["total_voting_power", "TotalVotingPower"], Power::ZERO),
        validator_power: derived(value, &["validator_power", "ValidatorPower"], Power::ZERO),
        timestamp: derived(value, &["timestamp", "Timestamp"], Time::ZERO),
    })
}

/// Extensions are not read: no vote of these chains has any.
fn read_vote(value: &Value) -> Result<Vote, Malformed> {
    let kind = match needed::<u8>(value, &["type"])? {
        1 => VoteType::Prevote,
        2 => VoteType::Precommit,
        other => return Err(Malformed::new(format!("a vote of type {other}"))),
    };
    let block_id = match member(value, &["block_id"]) {
        None => None,
        Some(_) => Option::try_from(&needed::<BlockId>(value, &["block_id"])?)?,
    };
    let signature: Base64 = needed(value, &["signature"])?;
    let round = |number: i64| u32::try_from(number).ok().and_then(Round::new).ok_or_else(|| Malformed::new("a round above 2^31"));
    let valid_round = derived(value, &["valid_round"], -1_i64);
    Ok(Vote {
        kind,
        height: needed(value, &["height"])?,
        round: round(needed(value, &["round"])?)?,
        block_id,
        valid_round: if valid_round < 0 { None } else { Some(round(valid_round)?) },
        timestamp: needed(value, &["timestamp"])?,
        validator: ValidatorIndex::new(needed(value, &["validator_index"])?)
            .ok_or_else(|| Malformed::new("a validator index above 2^31"))?,
        signature: Signature(signature.0.try_into().map_err(|_| Malformed::new("a signature of other than 64 bytes"))?),
    })
}

fn read_attack(value: &Value) -> Result<LightClientAttack, Malformed> {
    let block = member(value, &["conflicting_block", "ConflictingBlock"]).ok_or_else(|| Malformed::new("conflicting_block is missing"))?;
    let signed = member(block, &["signed_header"]).ok_or_else(|| Malformed::new("signed_header is missing"))?;
    let set = member(block, &["validator_set"]).ok_or_else(|| Malformed::new("validator_set is missing"))?;
    let header: Header = needed(signed, &["header"])?;
    let commit: Commit = needed(signed, &["commit"])?;
    let validators: Vec<Validator> = needed(set, &["validators"])?;
    Ok(LightClientAttack {
        conflicting_block: LightBlock {
            header: (&header).try_into()?,
            commit: (&commit).try_into()?,
            validators: validator_set(&validators)?,
        },
        common_height: needed(value, &["common_height", "CommonHeight"])?,
        byzantine_validators: Vec::new(),
        total_power: derived(value, &["total_voting_power", "TotalVotingPower"], Power::ZERO),
        timestamp: derived(value, &["timestamp", "Timestamp"], Time::ZERO),
    })
}
