//! Every case of every file in `tests/vectors` but the light client's. The files were made by other implementations.

use serde_json::Value;

use lockstep_types::abci::{self, TxResult};
use lockstep_types::block::{self, Tx};
use lockstep_types::evidence::{self, DuplicateVote, Evidence};
use lockstep_types::merkle::{self, Proof};
use lockstep_types::params::ConsensusParams;
use lockstep_types::vote::vote_extension_sign_bytes;
use lockstep_types::{
    Address, ChainId, Commit, Hash, Proposal, Round, Time, Validator, ValidatorIndex, ValidatorSet, ValidatorUpdate, Vote, VoteType,
    bft_time, crypto,
};

use crate::support::*;

#[test]
fn addresses() {
    let file = vectors!("addresses");
    for case in list(&file["cases"]) {
        let n = u8::try_from(number(&case["key"])).unwrap();
        assert_eq!(key(n).seed().as_slice(), bytes(&case["seed_hex"]));
        assert_eq!(public(n).0.as_slice(), bytes(&case["pub_key_hex"]));
        assert_eq!(public(n), read_public_key(&case["pub_key_json"]));
        assert_eq!(public(n).address().to_string(), text(&case["address"]));
        assert_eq!(public(n).check(), Ok(()));
    }
    assert_eq!(list(&file["cases"]).len(), 6);
}

#[test]
fn bft_times() {
    let file = vectors!("bft_time");
    for case in list(&file["cases"]) {
        let votes: Vec<(Time, u64)> =
            list(&case["votes"]).iter().map(|vote| (parsed(&vote["timestamp"]), unsigned(&vote["voting_power"]))).collect();
        let mut reversed = votes.clone();
        reversed.reverse();
        for votes in [votes, reversed] {
            assert_eq!(bft_time::weighted_median(&votes).unwrap().to_string(), text(&case["block_time"]), "{}", case["name"]);
        }
    }
    assert_eq!(list(&file["cases"]).len(), 5);
    assert_eq!(bft_time::weighted_median(&[]), None);
}

#[test]
fn part_sets() {
    let file = vectors!("hashes");
    for case in list(&file["part_sets"]) {
        let length = usize::try_from(number(&case["length"])).unwrap();
        let body: Vec<u8> = (0..length).map(|i| u8::try_from((7 * i + 3) % 251).unwrap()).collect();
        let (header, parts) = block::cut(&body);
        assert_eq!(header, block::part_set_header(&body));
        assert_eq!(header.total, small(&case["total"]));
        assert_eq!(header.hash.to_string(), text(&case["root"]));
        assert!(parts.iter().all(|part| part.verify(&header)));
        assert_eq!(parts.iter().flat_map(|part| part.bytes.clone()).collect::<Vec<u8>>(), body);
    }
    assert_eq!(list(&file["part_sets"]).len(), 6);
}

#[test]
fn commits() {
    let file = vectors!("hashes");
    for case in list(&file["commit"]) {
        let signatures: Vec<_> = list(&case["signatures"]).iter().map(read_commit_sig).collect();
        let leaves: Vec<String> = signatures.iter().map(|sig| hex::encode(sig.to_proto().finish())).collect();
        assert_eq!(Value::from(leaves), case["leaves_hex"], "{}", case["name"]);
        let commit = Commit { height: height(1), round: Round::ZERO, block_id: block_id("any"), signatures };
        assert_eq!(commit.hash().to_string(), text(&case["hash"]), "{}", case["name"]);
    }
    assert_eq!(list(&file["commit"]).len(), 3);
}

#[test]
fn data() {
    let file = vectors!("hashes");
    for case in list(&file["data"]) {
        let txs: Vec<Tx> = list(&case["txs_utf8"]).iter().map(|tx| Tx(text(tx).as_bytes().to_vec())).collect();
        let hashes: Vec<String> = txs.iter().map(|tx| tx.hash().to_string()).collect();
        assert_eq!(Value::from(hashes), case["tx_hashes"]);
        assert_eq!(block::data_hash(&txs).to_string(), text(&case["data_hash"]));
    }
    assert_eq!(list(&file["data"]).len(), 4);
}

#[test]
fn consensus_params() {
    let file = vectors!("hashes");
    for case in list(&file["consensus_params"]) {
        let mut params = ConsensusParams::default();
        params.block.max_bytes = number(&case["block_max_bytes"]);
        params.block.max_gas = number(&case["block_max_gas"]);
        assert_eq!(params.hash().to_string(), text(&case["consensus_hash"]));
        assert_eq!(params.hash(), Hash::of(bytes(&case["encoded_hex"])));
    }
    assert_eq!(list(&file["consensus_params"]).len(), 3);
    assert_eq!(ConsensusParams::default().hash().to_string(), text(&file["consensus_params"][0]["consensus_hash"]));
}

#[test]
fn results() {
    let file = vectors!("hashes");
    for case in list(&file["last_results"]) {
        let results: Vec<TxResult> = list(&case["results"])
            .iter()
            .map(|result| TxResult {
                code: small(&result["code"]),
                data: bytes(&result["data_hex"]),
                gas_wanted: number(&result["gas_wanted"]),
                gas_used: number(&result["gas_used"]),
                // What is not hashed must not matter.
                log: "log".into(),
                info: "info".into(),
                codespace: "codespace".into(),
                events: tx_result().events,
            })
            .collect();
        let leaves: Vec<String> = results.iter().map(|result| hex::encode(result.leaf())).collect();
        assert_eq!(Value::from(leaves), case["leaves_hex"]);
        assert_eq!(abci::results_hash(&results).to_string(), text(&case["last_results_hash"]));
    }
    assert_eq!(list(&file["last_results"]).len(), 3);
    assert_eq!(Hash::EMPTY_LIST.to_string(), text(&file["empty_list_hash"]));
}

fn read_evidence_vote(value: &Value) -> Vote {
    Vote {
        kind: if number(&value["type"]) == 1 { VoteType::Prevote } else { VoteType::Precommit },
        height: height(unsigned(&value["height"])),
        round: round(small(&value["round"])),
        block_id: read_block_id(&value["block_id"]),
        valid_round: None,
        timestamp: parsed(&value["timestamp"]),
        validator: index(small(&value["validator_index"])),
        signature: signature(&value["signature"]),
    }
}

#[test]
fn evidence() {
    let file = vectors!("hashes");
    for case in list(&file["evidence"]) {
        let value = &case["rpc_json"]["value"];
        let [vote_a, vote_b] = ["vote_a", "vote_b"].map(|name| read_evidence_vote(&value[name]));
        let address: Address = parsed(&value["vote_a"]["validator_address"]);
        let timestamp: Time = parsed(&value["Timestamp"]);
        let piece = DuplicateVote {
            vote_a: vote_a.clone(),
            vote_b: vote_b.clone(),
            address,
            total_power: power(unsigned(&value["TotalVotingPower"])),
            validator_power: power(unsigned(&value["ValidatorPower"])),
            timestamp,
        };
        let set = set(&[10, 10, 10, 10]);
        assert_eq!(piece.verify(&ChainId::new(text(&case["chain_id"])).unwrap(), &set, timestamp), Ok(()));
        assert_eq!(DuplicateVote::from_votes(vote_a.clone(), vote_b.clone(), &set, timestamp), Some(piece.clone()));
        assert_eq!(DuplicateVote::from_votes(vote_b, vote_a, &set, timestamp), Some(piece.clone()));
        let piece = Evidence::DuplicateVote(Box::new(piece));
        assert_eq!(hex::encode(piece.to_bytes()), text(&case["encoded_hex"]));
        assert_eq!(piece.hash().to_string(), text(&case["single_evidence_hash"]));
        assert_eq!(evidence::list_hash(&[piece]).to_string(), text(&case["evidence_list_hash"]));
    }
    assert_eq!(list(&file["evidence"]).len(), 1);
}

#[test]
fn headers() {
    let file = vectors!("headers");
    for case in list(&file["cases"]) {
        let header = read_header(&case["header"]);
        let leaves: Vec<String> = header.leaves().iter().map(hex::encode).collect();
        assert_eq!(Value::from(leaves), case["leaves_hex"], "{}", case["name"]);
        assert_eq!(header.hash().to_string(), text(&case["hash"]), "{}", case["name"]);
    }
    assert_eq!(list(&file["cases"]).len(), 7);
}

#[test]
fn merkle_trees() {
    let file = vectors!("merkle");
    let leaves_of = |n: &Value| list(&file["roots"]).iter().find(|case| number(&case["n"]) == number(n)).map(|case| &case["leaves_utf8"]);
    for case in list(&file["roots"]) {
        let leaves: Vec<&str> = list(&case["leaves_utf8"]).iter().map(text).collect();
        assert_eq!(merkle::root(&leaves).to_string(), text(&case["root"]));
        let (root, proofs) = merkle::proofs(&leaves);
        assert_eq!(root.to_string(), text(&case["root"]));
        assert_eq!(proofs.len(), leaves.len());
    }
    assert_eq!(merkle::root(&[b""]).to_string(), text(&file["one_empty_leaf_root"]));
    for case in list(&file["proofs"]) {
        let leaves: Vec<&str> = list(leaves_of(&case["total"]).expect("the list of each proof is in the file")).iter().map(text).collect();
        let place = usize::try_from(number(&case["index"])).unwrap();
        let proof = Proof {
            total: unsigned(&case["total"]),
            index: unsigned(&case["index"]),
            leaf_hash: parsed(&case["leaf_hash"]),
            aunts: list(&case["aunts"]).iter().map(parsed).collect(),
        };
        assert_eq!(merkle::proofs(&leaves).1[place], proof);
        assert_eq!(proof.verify(&parsed(&case["root"]), leaves[place].as_bytes()), Ok(()));
    }
    assert_eq!((list(&file["roots"]).len(), list(&file["proofs"]).len()), (10, 13));
}

#[test]
fn proposals() {
    let file = vectors!("proposals");
    for case in list(&file["cases"]) {
        let chain = ChainId::new(text(&case["chain_id"])).unwrap();
        let secret = key(u8::try_from(number(&case["key"])).unwrap());
        let mut proposal = Proposal {
            height: height(unsigned(&case["height"])),
            round: round(small(&case["round"])),
            pol_round: u32::try_from(number(&case["pol_round"])).ok().map(round),
            block_id: read_block_id(&case["block_id"]).unwrap(),
            timestamp: parsed(&case["timestamp"]),
            signature: lockstep_types::Signature([0; 64]),
        };
        let message = proposal.sign_bytes(&chain);
        assert_eq!(hex::encode(&message), text(&case["sign_bytes_hex"]), "{}", case["name"]);
        proposal.signature = secret.sign(&message);
        assert_eq!(hex::encode(proposal.signature.0), text(&case["signature_hex"]), "{}", case["name"]);
        assert!(crypto::verify(&secret.public_key(), &message, &proposal.signature));
    }
    assert_eq!(list(&file["cases"]).len(), 4);
}

#[test]
fn votes() {
    let file = vectors!("votes");
    for case in list(&file["cases"]) {
        let chain = ChainId::new(text(&case["chain_id"])).unwrap();
        let secret = key(u8::try_from(number(&case["key"])).unwrap());
        let vote = Vote {
            kind: if number(&case["type"]) == 1 { VoteType::Prevote } else { VoteType::Precommit },
            height: height(unsigned(&case["height"])),
            round: round(small(&case["round"])),
            block_id: read_block_id(&case["block_id"]),
            valid_round: None,
            timestamp: parsed(&case["timestamp"]),
            validator: ValidatorIndex::ZERO,
            signature: lockstep_types::Signature([0; 64]),
        };
        let message = vote.sign_bytes(&chain);
        assert_eq!(hex::encode(&message), text(&case["sign_bytes_hex"]), "{}", case["name"]);
        let signature = secret.sign(&message);
        assert_eq!(hex::encode(signature.0), text(&case["signature_hex"]), "{}", case["name"]);
        assert!(crypto::verify(&secret.public_key(), &message, &signature));
    }
    assert_eq!(list(&file["cases"]).len(), 8);
}

#[test]
fn vote_extensions() {
    let file = vectors!("votes");
    for case in list(&file["vote_extensions"]) {
        let chain = ChainId::new(text(&case["chain_id"])).unwrap();
        let secret = key(u8::try_from(number(&case["key"])).unwrap());
        let (height, round) = (height(unsigned(&case["height"])), round(small(&case["round"])));
        let message = vote_extension_sign_bytes(&bytes(&case["extension_hex"]), height, round, &chain);
        assert_eq!(hex::encode(&message), text(&case["sign_bytes_hex"]), "{}", case["name"]);
        assert_eq!(hex::encode(secret.sign(&message).0), text(&case["signature_hex"]), "{}", case["name"]);
    }
    assert_eq!(list(&file["vote_extensions"]).len(), 2);
}

/// Validators with priorities, as the rotation's vectors write them.
fn read_state(value: &Value) -> Vec<Validator> {
    list(value)
        .iter()
        .map(|value| {
            let n = u8::try_from(number(&value["key"])).unwrap();
            let mut validator = Validator::new(public(n), power(unsigned(&value["voting_power"])));
            assert_eq!(validator.address, parsed::<Address>(&value["address"]));
            validator.priority = number(&value["proposer_priority"]);
            validator
        })
        .collect()
}

fn state_of(set: &ValidatorSet) -> Vec<Validator> {
    set.iter().cloned().collect()
}

fn proposer_of(set: &ValidatorSet, round: Round) -> Address {
    set.get(set.proposer(round)).unwrap().address
}

#[test]
fn validator_sets() {
    let file = vectors!("validator_sets");
    for case in list(&file["cases"]) {
        let members: Vec<(ValidatorUpdate, &Value)> = list(&case["validators_in_set_order"])
            .iter()
            .map(|value| {
                let public_key = read_public_key(&value["pub_key"]);
                (ValidatorUpdate { public_key, power: power(unsigned(&value["voting_power"])) }, value)
            })
            .collect();
        let updates: Vec<ValidatorUpdate> = members.iter().rev().map(|(update, _)| *update).collect();
        let created = ValidatorSet::new(&updates).unwrap();
        for (validator, (update, value)) in created.iter().zip(&members) {
            assert_eq!((validator.public_key, validator.power), (update.public_key, update.power), "{}: set order", case["name"]);
            assert_eq!(validator.address, parsed::<Address>(&value["address"]));
            assert_eq!(hex::encode(validator.leaf()), text(&value["leaf_hex"]));
        }
        assert_eq!(created.hash().to_string(), text(&case["hash"]), "{}", case["name"]);
        assert_eq!(created.total_power().get(), unsigned(&case["total_voting_power"]));
        assert_eq!(state_of(&created), read_state(&case["state_after_creation"]), "{}", case["name"]);

        let mut stepped = created.clone();
        let sequence = list(&case["proposer_sequence"]);
        assert_eq!(sequence.len(), 20);
        for (k, expected) in (0..).zip(sequence) {
            assert_eq!(small(&expected["round"]), k);
            let expected: Address = parsed(&expected["address"]);
            assert_eq!(proposer_of(&created, round(k)), expected, "{} round {k}", case["name"]);
            assert_eq!(proposer_of(&stepped, Round::ZERO), expected, "{} after {k} increments", case["name"]);
            stepped.increment(1);
        }
        assert_eq!(state_of(&stepped), read_state(&case["state_after_20_increments"]), "{}", case["name"]);
    }
    assert_eq!(list(&file["cases"]).len(), 6);
}

fn read_updates(value: &Value) -> Vec<ValidatorUpdate> {
    list(value)
        .iter()
        .map(|value| ValidatorUpdate {
            public_key: public(u8::try_from(number(&value["key"])).unwrap()),
            power: power(unsigned(&value["power"])),
        })
        .collect()
}

#[test]
fn validator_updates() {
    let file = vectors!("validator_updates");
    let mut current = ValidatorSet::new(&read_updates(&file["genesis"])).unwrap();
    let mut next = current.clone();
    next.increment(1);
    for (h, row) in (1..).zip(list(&file["rows"])) {
        assert_eq!(unsigned(&row["height"]), h);
        let key_address = |value: &Value| public(u8::try_from(number(value)).unwrap()).address();
        assert_eq!(state_of(&current), read_state(&row["validators"]), "height {h}");
        assert_eq!(proposer_of(&current, Round::ZERO), key_address(&row["round_0_proposer_key"]), "height {h}");
        assert_eq!(current.hash().to_string(), text(&row["validators_hash"]), "height {h}");
        assert_eq!(next.hash().to_string(), text(&row["next_validators_hash"]), "height {h}");

        let updates = read_updates(&row["updates_returned_by_app"]);
        let mut after = next.clone();
        after.update(&updates).unwrap();
        after.increment(1);
        assert_eq!(state_of(&after), read_state(&row["validators_of_height_plus_2"]), "height {h}");
        assert_eq!(proposer_of(&after, Round::ZERO), key_address(&row["round_0_proposer_key_of_height_plus_2"]), "height {h}");
        // The order of the list does not matter.
        let mut reversed = next.clone();
        reversed.update(&updates.iter().rev().copied().collect::<Vec<_>>()).unwrap();
        reversed.increment(1);
        assert_eq!(reversed, after);
        (current, next) = (next, after);
    }
    assert_eq!(list(&file["rows"]).len(), 10);
}

#[test]
fn path_dependence() {
    let file = vectors!("validator_updates");
    let case = &file["path_dependence"];
    let start = ValidatorSet::from_validators(read_state(&case["start"]), ValidatorIndex::ZERO).unwrap();
    let mut once = start.clone();
    once.increment(3);
    let mut thrice = start.clone();
    (0..3).for_each(|_| thrice.increment(1));
    for (set, expected) in [(&once, &case["one_call_increment_3"]), (&thrice, &case["three_single_increments"])] {
        assert_eq!(state_of(set), read_state(&expected["validators"]));
        let proposer = public(u8::try_from(number(&expected["proposer_key"])).unwrap()).address();
        assert_eq!(proposer_of(set, Round::ZERO), proposer);
    }
    // The proposer of round 3 is that of one call.
    assert_eq!(proposer_of(&start, round(3)), proposer_of(&once, Round::ZERO));
    assert_ne!(proposer_of(&once, Round::ZERO), proposer_of(&thrice, Round::ZERO));
}
