//! Evidence as blocks show it (contract sections 4 and 10, D2 and D3).

use lockstep_types::evidence::{DuplicateVote, Evidence, LightClientAttack};
use lockstep_types::{Address, Round, Vote, VoteType};
use serde_json::{Value, json};

use super::{Base64, BlockId, Commit, Header, Validator};

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
