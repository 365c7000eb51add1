//! Certificates and signatures that are nearly right.

use lockstep_types::block::{Block, BlockId};
use lockstep_types::commit::{PolkaSig, SlotSignature};
use lockstep_types::crypto::verify;
use lockstep_types::vote::Rejected;
use lockstep_types::{
    Address, ChainId, Commit, CommitSig, Hash, Height, PartSetHeader, Polka, Proposal, Round, Signature, Time, ValidatorSet, Vote, VoteType,
};

use crate::support::*;

fn set() -> ValidatorSet {
    genesis(4).validator_set()
}

fn name() -> BlockId {
    BlockId { hash: Hash::of("block"), parts: PartSetHeader { total: 1, hash: Hash::of("parts") } }
}

fn holds(commit: &Commit) -> Result<(), Rejected> {
    commit.clone().claim(&chain_id(), &set())?.verify().map(drop)
}

/// Of a commit, the order of bits and the place of each field is changed in turn: none holds. What readers use of it (who
/// signed, when) is therefore what was signed.
#[test]
fn attack_26_every_field_of_a_commit_is_bound_by_what_was_signed() {
    let set = set();
    let nil = signed_vote(&set, 2, Vote { height: height(7), round: round(2), ..nil_precommit() });
    let for_block: Vec<Vote> = [0, 1, 3]
        .map(|place| signed_vote(&set, place, Vote { height: height(7), round: round(2), block_id: Some(name()), ..nil_precommit() }))
        .to_vec();
    let commit = Commit::from_precommits(height(7), round(2), name(), &set, for_block.iter().chain([&nil]));
    assert_eq!(holds(&commit), Ok(()));

    let mut attacks: Vec<(String, Commit)> = Vec::new();
    let mut attack = |what: &str, change: &dyn Fn(&mut Commit)| {
        let mut changed = commit.clone();
        change(&mut changed);
        assert_ne!(changed, commit, "{what} changes something");
        attacks.push((what.to_owned(), changed));
    };
    attack("height", &|commit| commit.height = height(8));
    attack("height", &|commit| commit.height = Height::ZERO);
    attack("round", &|commit| commit.round = round(3));
    attack("hash", &|commit| commit.block_id.hash = Hash::of("other"));
    attack("parts hash", &|commit| commit.block_id.parts.hash = Hash::of("other"));
    attack("parts total", &|commit| commit.block_id.parts.total = 2);
    attack("parts total", &|commit| commit.block_id.parts.total = 0);
    attack("no slots", &|commit| commit.signatures.clear());
    attack("reversed", &|commit| commit.signatures.reverse());
    for slot in 0..4 {
        let edit = |change: &dyn Fn(&mut SlotSignature), commit: &mut Commit| match &mut commit.signatures[slot] {
            CommitSig::Commit(signature) | CommitSig::Nil(signature) => change(signature),
            CommitSig::Absent => panic!("every slot signed"),
        };
        let other = set.get(index((slot as u32 + 1) % 4)).expect("a validator").address;
        attack("address", &|commit| edit(&|slot| slot.address = Address([7; 20]), commit));
        attack("another's address", &|commit| edit(&|slot| slot.address = other, commit));
        for shift in [1, -1] {
            attack("time", &|commit| {
                edit(&|slot| slot.timestamp = Time::from_unix_nanos(slot.timestamp.unix_nanos() + shift), commit);
            });
        }
        for byte in 0..64 {
            attack("signature", &|commit| edit(&|slot| slot.signature.0[byte] ^= 1, commit));
        }
        attack("flag", &|commit| {
            let turned = match commit.signatures[slot].clone() {
                CommitSig::Commit(slot) => CommitSig::Nil(slot),
                CommitSig::Nil(slot) => CommitSig::Commit(slot),
                CommitSig::Absent => CommitSig::Absent,
            };
            commit.signatures[slot] = turned;
        });
        if slot != 2 {
            attack("absent", &|commit| commit.signatures[slot] = CommitSig::Absent);
        }
    }
    for (what, attack) in attacks {
        assert!(holds(&attack).is_err(), "{what} changed: {attack:?}");
    }
    let mut without_nil = commit.clone();
    without_nil.signatures[2] = CommitSig::Absent;
    assert_eq!(holds(&without_nil), Ok(()), "who did not sign for the block is not needed");
    let other_chain = ChainId::new("other-chain").expect("a name");
    assert!(commit.claim(&other_chain, &set).expect("its shape is right").verify().is_err());
}

/// One signer, and the same one everywhere.
#[test]
fn attack_27_a_signer_counts_once_wherever_it_is_put() {
    let set = set();
    let of = |place: u32| signed_vote(&set, place, Vote { height: height(7), block_id: Some(name()), ..nil_precommit() });
    for signers in [&[0][..], &[0, 1]] {
        let votes: Vec<Vote> = signers.iter().map(|place| of(*place)).collect();
        let commit = Commit::from_precommits(height(7), votes[0].round, name(), &set, &votes);
        let signed = commit.signatures[0].clone();
        assert!(matches!(holds(&commit), Err(Rejected::Power { .. })));
        for place in 1..4 {
            let mut copied = commit.clone();
            copied.signatures[place] = signed.clone();
            assert!(holds(&copied).is_err(), "copied to slot {place}");
            // Under the address of that slot, the signature is not its validator's.
            let CommitSig::Commit(slot) = &mut copied.signatures[place] else { panic!("just put") };
            slot.address = set.get(index(place as u32)).expect("a validator").address;
            let mut all = copied.clone();
            for other in 1..4 {
                let address = set.get(index(other as u32)).expect("a validator").address;
                let CommitSig::Commit(slot) = signed.clone() else { panic!("slot 0 signed") };
                all.signatures[other] = CommitSig::Commit(SlotSignature { address, ..slot });
            }
            assert!(holds(&copied).is_err());
            assert_eq!(holds(&all), Err(Rejected::Signature));
        }
        let mut longer = commit.clone();
        longer.signatures.extend(vec![signed.clone(); 8]);
        assert!(matches!(holds(&longer), Err(Rejected::Slots { .. })));
    }
    let signed = |place: u32| {
        let vote = signed_vote(&set, place, Vote { height: height(7), block_id: Some(name()), valid_round: None, ..vote() });
        PolkaSig { validator: vote.validator, timestamp: vote.timestamp, signature: vote.signature }
    };
    for places in [&[0, 0, 0][..], &[0, 1, 1], &[1, 0, 2], &[0, 1, 0]] {
        let signatures = places.iter().map(|place| signed(*place)).collect();
        let polka = Polka { height: height(7), round: vote().round, block_id: name(), valid_round: None, signatures };
        assert!(matches!(polka.claim(&chain_id(), &set), Err(Rejected::SignerOrder(_))), "{places:?}");
    }
}

/// The same key, the same place, the same block: what was signed as one thing is nothing else, and nothing elsewhere.
#[test]
fn attack_75_a_signature_is_good_for_one_kind_of_message_on_one_chain() {
    let set = set();
    let key = key_at(&set, 0);
    let public = key.public_key();
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for chain in ["test-chain", "test-chain-2", "test"] {
        let chain = ChainId::new(chain).expect("a name");
        for h in [5, 6] {
            for r in [0, 1, 2] {
                for block_id in [None, Some(name())] {
                    for kind in [VoteType::Prevote, VoteType::Precommit] {
                        for valid_round in [None, Some(Round::ZERO), Some(round(1))] {
                            if valid_round.is_none() || (kind == VoteType::Prevote && block_id.is_some()) {
                                let vote = Vote { kind, height: height(h), round: round(r), block_id, valid_round, ..vote() };
                                messages.push(vote.sign_bytes(&chain));
                            }
                        }
                    }
                }
                for pol_round in [None, Some(Round::ZERO), Some(round(1))] {
                    let proposal = Proposal { height: height(h), round: round(r), pol_round, block_id: name(), ..proposal() };
                    messages.push(proposal.sign_bytes(&chain));
                }
            }
        }
        for genesis_hash in [[1; 32], [2; 32]] {
            messages.push(lockstep_network::binding_message(chain.as_str(), &genesis_hash, &public.0));
        }
    }
    let signatures: Vec<Signature> = messages.iter().map(|message| key.sign(message)).collect();
    for (signed, signature) in signatures.iter().enumerate() {
        for (read, message) in messages.iter().enumerate() {
            assert_eq!(verify(&public, message, signature), signed == read, "message {signed} read as {read}");
        }
    }
}

/// What a transaction may be is any bytes. The bundled application gives each a result, the same one each time, and neither
/// panics nor changes what it refused.
#[test]
fn attack_37_any_bytes_are_a_transaction_with_a_result() {
    use lockstep_app::CheckKind;
    let mut txs: Vec<Vec<u8>> = vec![Vec::new(), vec![0; 100_000], vec![b'='; 100_000], vec![0xff; 3], b"val=x!1".to_vec()];
    for seed in ["key=value", "val=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=!10", "\0lockstep/x", "a:b"] {
        for at in 0..seed.len() {
            for byte in [0, b'=', b':', b'!', 0x7f, 0xc3, 0xff] {
                let mut changed = seed.as_bytes().to_vec();
                changed[at] = byte;
                txs.push(changed);
            }
            txs.push(seed.as_bytes()[..at].to_vec());
        }
    }
    let run = || {
        let genesis = genesis(4);
        let (chain, state, changes) = start(&genesis);
        let verdicts: Vec<_> = txs.iter().map(|tx| host().check_tx(&state, tx, CheckKind::New)).collect();
        let (chain, mut executor) = (std::sync::Arc::new(chain), lockstep_replica::execution::Executor::at_genesis(host(), state, changes));
        let proposer = chain.validators.get(chain.validators.proposer(Round::ZERO)).expect("the proposer").address;
        let job = lockstep_replica::check::BuildJob {
            chain: chain.clone(),
            time: chain.last_time,
            proposer,
            txs: Vec::new(),
            evidence: Vec::new(),
            last_commit: None,
        };
        let empty = lockstep_replica::check::build(executor.host(), executor.state(), &job).block;
        // As a faulty proposer would, and more than two thirds decided it: everything is in the block.
        let txs: Vec<_> = txs.iter().map(|tx| lockstep_types::Tx(tx.clone())).collect();
        let header = lockstep_types::Header { data_hash: lockstep_types::block::data_hash(&txs), ..empty.header.clone() };
        let block = Block { header, txs, ..(*empty).clone() };
        let block_id = BlockId { hash: block.header.hash(), ..name() };
        let outcome =
            executor.execute(&lockstep_replica::execution::ExecuteJob { block: block.into(), block_id, chain }).expect("executed");
        (verdicts, outcome.results.clone(), outcome.app_hash.clone())
    };
    let (verdicts, results, root) = run();
    assert_eq!(results.len(), txs.len(), "one result for each");
    let (taken, refused): (Vec<_>, Vec<_>) = results.iter().partition(|result| result.code == 0);
    assert!(!taken.is_empty() && !refused.is_empty());
    assert_eq!(run(), (verdicts, results, root), "the same on every node");
}
