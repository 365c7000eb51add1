//! The verifier accepts the chain of a real run, and refuses every block in which one thing is wrong, also when everybody
//! signed it.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_genesis::Genesis;
use lockstep_replica::planted::Planted;
use lockstep_types::block::part_set_header;
use lockstep_types::{Address, Block, BlockId, ChainId, Commit, CommitSig, Hash, Height, PrivateKey, codec};

use super::*;
use crate::node::LOG;
use crate::plan::{MS, Plan};
use crate::world::World;

/// A chain of a quiet network of four, with real signatures, and the keys that made them.
struct Chain {
    genesis: Genesis,
    keys: BTreeMap<Address, PrivateKey>,
    kept: Vec<Kept>,
}

/// The height that is tampered with: it has a last commit, and blocks before it have transactions.
const AT: usize = 5;

impl Chain {
    fn new() -> Self {
        let mut plan = Plan { tx_interval: 20 * MS, ..Plan::sweep() };
        plan.real_keys = true;
        let (_, keys) = crate::keys::genesis(&plan, "{}");
        let (genesis, machine) = World::new(7, plan, Planted::default(), None).home_of(0);
        let mut paths: Vec<String> =
            machine.disk.paths().into_iter().filter(|path| path.starts_with(LOG) && path.ends_with(".seg")).collect();
        paths.sort_unstable();
        let segments: Vec<Vec<u8>> = paths.iter().filter_map(|path| machine.disk.bytes(path)).collect();
        let kept = read_log(&segments).expect("a sound log");
        assert!(kept.len() > AT, "{} heights", kept.len());
        assert!(kept[..AT].iter().any(|kept| !Block::decode(&kept.body).expect("a block").txs.is_empty()), "no transaction");
        Self { genesis, keys: keys.into_iter().map(|key| (key.public_key().address(), key)).collect(), kept }
    }

    fn judge(&self) -> Judge<KvModel> {
        let validators: Vec<_> = self.genesis.validators.iter().map(|one| (one.public_key.0, one.power.get())).collect();
        let beginning = Beginning {
            chain_id: self.genesis.chain_id.as_str().to_owned(),
            time: Time { seconds: self.genesis.genesis_time.seconds(), nanos: self.genesis.genesis_time.nanos() },
            max_bytes: self.genesis.consensus_params.block.max_bytes,
            max_gas: self.genesis.consensus_params.block.max_gas,
            evidence: evidence_params(&self.genesis),
            validators: validators.clone(),
        };
        Judge::new(&beginning, KvModel::new(&validators), true).expect("a set")
    }

    /// After the blocks before the one that is tampered with.
    fn before(&self) -> Judge<KvModel> {
        let mut judge = self.judge();
        for kept in &self.kept[..AT] {
            judge.block(&kept.body, &kept.commit, &mut signature_holds).expect("an honest block");
        }
        judge
    }

    fn block(&self) -> Block {
        Block::decode(&self.kept[AT].body).expect("a block")
    }

    fn commit(&self) -> Commit {
        codec::decode(1, &self.kept[AT].commit, 1 << 20).expect("a commit")
    }

    /// A commit in which everybody signed a block.
    fn signed(&self, mut commit: Commit) -> Commit {
        let chain_id = &self.genesis.chain_id;
        for place in 0..commit.signatures.len() {
            let bytes = commit.sign_bytes(place, chain_id);
            if let (Some(bytes), CommitSig::Commit(slot) | CommitSig::Nil(slot)) = (bytes, &mut commit.signatures[place]) {
                slot.signature = self.keys[&slot.address].sign(&bytes);
            }
        }
        commit
    }

    /// What the verifier says of a block that everybody signed.
    fn verdict(&self, judge: &Judge<KvModel>, block: &Block) -> String {
        let body = block.encode();
        let block_id = BlockId { hash: block.header.hash(), parts: part_set_header(&body) };
        let commit = self.signed(Commit { block_id, ..self.commit() });
        said(judge.clone().block(&body, &codec::encode(1, &commit), &mut signature_holds))
    }
}

fn said(result: Result<(), Wrong>) -> String {
    result.map_or_else(|wrong| wrong.to_string(), |()| "it holds".to_owned())
}

#[test]
fn an_honest_chain_holds_to_its_end() {
    let chain = Chain::new();
    let mut judge = chain.judge();
    for kept in &chain.kept {
        judge.block(&kept.body, &kept.commit, &mut signature_holds).expect("an honest block");
    }
    assert_eq!(judge.height(), chain.kept.len() as u64);
    // Signed once more by everybody, nothing changed: what the other tests change is what is refused.
    assert_eq!(chain.verdict(&chain.before(), &chain.block()), "it holds");
}

#[test]
fn a_block_with_one_wrong_field_is_refused_whoever_signed_it() {
    let chain = Chain::new();
    let judge = chain.before();
    let parent = Block::decode(&chain.kept[AT - 1].body).expect("a block");
    let other = chain.keys.keys().find(|address| **address != chain.block().header.proposer_address).copied().expect("four");
    let wrong = Hash::of("wrong");
    type Change<'a> = Box<dyn Fn(&mut Block) + 'a>;
    let changes: Vec<(&str, Change<'_>)> = vec![
        ("versions", Box::new(|block| block.header.version.block += 1)),
        ("versions", Box::new(|block| block.header.version.app += 1)),
        ("a block of chain", Box::new(|block| block.header.chain_id = ChainId::new("another").expect("a name"))),
        ("a block of chain", Box::new(|block| block.header.height = block.header.height.next())),
        ("does not grow", Box::new(|block| block.header.time = parent.header.time)),
        ("does not grow", Box::new(|block| block.header.time = parent.header.time.saturating_sub(Duration::from_nanos(1)))),
        ("the parent is another", Box::new(|block| block.header.last_block_id = None)),
        ("the parent is another", Box::new(|block| block.header.last_block_id.as_mut().expect("a parent").hash = wrong)),
        ("last_commit_hash", Box::new(|block| block.header.last_commit_hash = wrong)),
        ("data_hash", Box::new(|block| block.header.data_hash = wrong)),
        ("data_hash", Box::new(|block| block.txs.push(lockstep_types::Tx(b"key=more".to_vec())))),
        ("validators_hash", Box::new(|block| block.header.validators_hash = wrong)),
        ("next_validators_hash", Box::new(|block| block.header.next_validators_hash = wrong)),
        ("consensus_hash", Box::new(|block| block.header.consensus_hash = wrong)),
        ("app_hash", Box::new(|block| block.header.app_hash = wrong.into())),
        ("last_results_hash", Box::new(|block| block.header.last_results_hash = wrong)),
        ("evidence_hash", Box::new(|block| block.header.evidence_hash = wrong)),
        ("its proposer has no turn", Box::new(move |block| block.header.proposer_address = other)),
        ("the proposer is no validator", Box::new(|block| block.header.proposer_address = Address([7; 20]))),
        ("no last block, or none where", Box::new(|block| block.last_commit = None)),
        ("last_commit_hash", Box::new(|block| block.last_commit.as_mut().expect("a last commit").signatures[0] = CommitSig::Absent)),
        (
            "last commit: ",
            Box::new(|block| {
                let commit = block.last_commit.as_mut().expect("a last commit");
                commit.signatures[..2].fill(CommitSig::Absent);
                block.header.last_commit_hash = commit.hash();
            }),
        ),
        (
            "last commit: the commit is for another block",
            Box::new(|block| block.last_commit.as_mut().expect("a last commit").height = Height::new(1).expect("a height")),
        ),
    ];
    for (words, change) in changes {
        let mut block = chain.block();
        change(&mut block);
        let verdict = chain.verdict(&judge, &block);
        assert!(verdict.contains(words), "where {words} was expected: {verdict}");
    }
}

#[test]
fn a_certificate_counts_each_validator_once_and_the_block_alone() {
    let chain = Chain::new();
    let judge = chain.before();
    let body = &chain.kept[AT].body;
    let full = {
        // Whoever was late signs now.
        let mut commit = chain.commit();
        let time = chain.block().header.time;
        let set: Vec<Address> = chain.genesis.validator_set().iter().map(|validator| validator.address).collect();
        for (slot, address) in commit.signatures.iter_mut().zip(set) {
            *slot = CommitSig::Commit(lockstep_types::commit::SlotSignature {
                address,
                timestamp: time,
                signature: lockstep_types::Signature([0; 64]),
            });
        }
        chain.signed(commit)
    };
    let verdict = |commit: &Commit| said(judge.clone().block(body, &codec::encode(1, commit), &mut signature_holds));
    assert_eq!(verdict(&full), "it holds");
    let mut three = full.clone();
    three.signatures[3] = CommitSig::Absent;
    assert_eq!(verdict(&three), "it holds");
    let mut two = three.clone();
    two.signatures[2] = CommitSig::Absent;
    assert!(verdict(&two).contains("power 20 of 40"), "{}", verdict(&two));
    // One validator in two places.
    let mut twice = three.clone();
    twice.signatures[3] = three.signatures[0].clone();
    assert!(verdict(&twice).contains("slot 3 names another validator"), "{}", verdict(&twice));
    // For nil, signed as such.
    let mut nil = three.clone();
    let CommitSig::Commit(slot) = three.signatures[0].clone() else { panic!("signed") };
    nil.signatures[0] = CommitSig::Nil(slot);
    let nil = chain.signed(nil);
    assert!(verdict(&nil).contains("power 20 of 40"), "{}", verdict(&nil));
    let mut short = full.clone();
    short.signatures.pop();
    assert!(verdict(&short).contains("3 slots for 4 validators"), "{}", verdict(&short));
    let mut forged = full;
    let CommitSig::Commit(slot) = &mut forged.signatures[1] else { panic!("signed") };
    slot.signature.0[40] ^= 1;
    assert!(verdict(&forged).contains("slot 1 is not signed by its validator"), "{}", verdict(&forged));
}

#[test]
fn no_byte_of_a_block_or_of_its_certificate_can_change() {
    let chain = Chain::new();
    let judge = chain.before();
    let Kept { body, commit, .. } = &chain.kept[AT];
    // Signatures of what is as it was are known to hold: the curve is asked about nothing else.
    let mut known: Vec<(Vec<u8>, [u8; 64])> = Vec::new();
    let mut learn = |_: &[u8; 32], message: &[u8], signature: &[u8; 64]| {
        known.push((message.to_vec(), *signature));
        true
    };
    judge.clone().block(body, commit, &mut learn).expect("an honest block");
    let mut verdict = |key: &[u8; 32], message: &[u8], signature: &[u8; 64]| {
        known.iter().any(|(known, of)| known == message && of == signature) || signature_holds(key, message, signature)
    };
    for place in 0..body.len() {
        let mut changed = body.clone();
        changed[place] ^= 1 << (place % 8);
        assert!(judge.clone().block(&changed, commit, &mut verdict).is_err(), "byte {place} of the body");
    }
    for place in 0..commit.len() {
        let mut changed = commit.clone();
        changed[place] ^= 1 << (place % 8);
        assert!(judge.clone().block(body, &changed, &mut verdict).is_err(), "byte {place} of the certificate");
    }
    for short in 0..body.len() {
        assert!(judge.clone().block(&body[..short], commit, &mut verdict).is_err(), "a body of {short} bytes");
    }
    assert!(judge.clone().block(&[&body[..], &[0]].concat(), commit, &mut verdict).is_err(), "a body with a byte more");
}
