//! Blocks built and judged: what is built is valid, and every fact that the chain before a block determines is compared.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_replica::ChainState;
use lockstep_replica::check::{BuildJob, CheckFailure, CheckJob, build, check};
use lockstep_replica::execution::{ExecuteJob, Executor};
use lockstep_types::block::{self, Block, BlockId, PartSetHeader};
use lockstep_types::{Address, AppHash, ChainId, Commit, Hash, Header, Round, Time, Tx};

use crate::support::*;

/// Four validators, one block decided and executed; the next one is built and judged.
struct Second {
    executor: Executor,
    chain: Arc<ChainState>,
    last_commit: Commit,
}

fn second() -> Second {
    let genesis = genesis(4);
    let (chain, state, changes) = start(&genesis);
    let chain = Arc::new(chain);
    let mut executor = Executor::at_genesis(host(), state, changes);
    let time = chain.last_time.saturating_add(std::time::Duration::from_secs(1));
    let job = BuildJob {
        chain: chain.clone(),
        time,
        proposer: proposer(&chain),
        txs: vec![b"a=1".as_slice().into()],
        evidence: Vec::new(),
        last_commit: None,
    };
    let first = build(executor.host(), executor.state(), &job);
    let verdict = check(executor.host(), executor.state(), &check_job(&chain, first.block_id, &first.body));
    assert_eq!(verdict.as_deref(), Ok(&*first.block), "the first block is valid");
    let job = ExecuteJob { block: first.block.clone(), block_id: first.block_id, chain: chain.clone() };
    let outcome = executor.execute(&job).unwrap();
    let last_commit = signed_commit(&chain.validators, &[0, 1, 3], 1, first.block_id, time);
    let chain = Arc::new(chain.advance(first.block_id, &first.block.header, 1, &outcome));
    Second { executor, chain, last_commit }
}

fn proposer(chain: &ChainState) -> Address {
    chain.validators.get(chain.validators.proposer(Round::ZERO)).unwrap().address
}

fn check_job(chain: &Arc<ChainState>, block_id: BlockId, body: &[u8]) -> CheckJob {
    CheckJob { block_id, body: Bytes::copy_from_slice(body), chain: chain.clone(), known: None, certified: false }
}

impl Second {
    fn time(&self) -> Time {
        self.chain.last_time.saturating_add(std::time::Duration::from_millis(1))
    }

    fn built(&self, txs: &[&[u8]]) -> Block {
        let job = BuildJob {
            chain: self.chain.clone(),
            time: self.time(),
            proposer: proposer(&self.chain),
            txs: txs.iter().map(|tx| (*tx).into()).collect(),
            evidence: Vec::new(),
            last_commit: Some(self.last_commit.clone()),
        };
        (*build(self.executor.host(), self.executor.state(), &job).block).clone()
    }

    /// The job for a block under its own name.
    fn job(&self, block: &Block) -> CheckJob {
        let body = block.encode();
        check_job(&self.chain, BlockId { hash: block.header.hash(), parts: block::part_set_header(&body) }, &body)
    }

    fn verdict(&self, job: &CheckJob) -> Result<(), CheckFailure> {
        check(self.executor.host(), self.executor.state(), job).map(drop)
    }

    fn judge(&self, block: &Block) -> Result<(), CheckFailure> {
        self.verdict(&self.job(block))
    }

    /// The reason that a block is refused for.
    fn invalid(&self, block: &Block) -> String {
        match self.judge(block) {
            Err(failure @ (CheckFailure::Invalid(_) | CheckFailure::State { .. })) => failure.to_string(),
            other => panic!("expected an invalid block, got {other:?}"),
        }
    }
}

#[test]
fn what_is_built_is_valid() {
    let second = second();
    for txs in [&[][..], &[b"b=2".as_slice(), b"c=3"]] {
        let block = second.built(txs);
        assert_eq!(block.txs.len(), txs.len());
        assert_eq!(second.judge(&block), Ok(()));
    }
}

#[test]
fn every_field_of_the_header_is_compared() {
    let second = second();
    let good = second.built(&[b"b=2"]);
    let other = Hash::of("other");
    let id = BlockId { hash: other, ..good.header.last_block_id.unwrap() };
    type Change = Box<dyn Fn(&mut Header)>;
    let last_time = second.chain.last_time;
    let table: Vec<(&str, Change)> = vec![
        ("version", Box::new(|header| header.version.block += 1)),
        ("version", Box::new(|header| header.version.app += 1)),
        ("chain_id", Box::new(|header| header.chain_id = ChainId::new("other-chain").unwrap())),
        ("height", Box::new(|header| header.height = height(3))),
        ("time", Box::new(move |header| header.time = last_time)),
        ("time", Box::new(move |header| header.time = last_time.saturating_sub(std::time::Duration::from_nanos(1)))),
        ("last block", Box::new(move |header| header.last_block_id = Some(id))),
        ("last block", Box::new(|header| header.last_block_id = None)),
        ("last commit", Box::new(move |header| header.last_commit_hash = other)),
        ("data", Box::new(move |header| header.data_hash = other)),
        ("validators_hash", Box::new(move |header| header.validators_hash = other)),
        ("next_validators_hash", Box::new(move |header| header.next_validators_hash = other)),
        ("consensus_hash", Box::new(move |header| header.consensus_hash = other)),
        ("last_results_hash", Box::new(move |header| header.last_results_hash = other)),
        ("evidence", Box::new(move |header| header.evidence_hash = other)),
        ("proposer", Box::new(|header| header.proposer_address = Address([7; 20]))),
    ];
    for (field, change) in table {
        let mut block = good.clone();
        change(&mut block.header);
        let reason = second.invalid(&block);
        assert!(reason.replace('_', " ").contains(&field.replace('_', " ")), "{field}: {reason}");
    }
    let mut block = good.clone();
    block.header.app_hash = AppHash::from(other);
    let ours = good.header.app_hash.clone();
    let verdict = second.judge(&block);
    let Err(CheckFailure::State { field: "app_hash", theirs, ours: has, header }) = verdict else { panic!("{verdict:?}") };
    assert_eq!((theirs, has, *header), (AppHash::from(other).to_string(), ours.to_string(), block.header.clone()));
    // What is left to the proposer: a later time, and that it is another validator of the set.
    let mut block = good;
    block.header.time = second.time().saturating_add(std::time::Duration::from_secs(3_600));
    block.header.proposer_address = key(2).public_key().address();
    assert_eq!(second.judge(&block), Ok(()));
}

#[test]
fn a_body_under_another_name_is_its_senders_fault() {
    let second = second();
    let good = second.job(&second.built(&[]));
    let other = BlockId { hash: Hash::of("other"), ..good.block_id };
    let parts = BlockId { parts: PartSetHeader { hash: Hash::of("other"), ..good.block_id.parts }, ..good.block_id };
    let cut = good.body.slice(..good.body.len() - 1);
    for job in [
        CheckJob { block_id: other, ..good.clone() },
        CheckJob { block_id: parts, ..good.clone() },
        CheckJob { body: cut, ..good.clone() },
        CheckJob { body: Bytes::new(), ..good.clone() },
    ] {
        assert!(matches!(second.verdict(&job), Err(CheckFailure::NotThisBlock(_))), "{:?}", second.verdict(&job));
    }
    assert_eq!(second.verdict(&good), Ok(()));
}

/// A block whose last commit is replaced, with a header that says so.
fn with_commit(block: &Block, commit: Commit) -> Block {
    let header = Header { last_commit_hash: commit.hash(), ..block.header.clone() };
    Block { header, last_commit: Some(commit), ..block.clone() }
}

#[test]
fn the_last_commit_is_verified() {
    let second = second();
    let good = second.built(&[]);
    let set = &second.chain.last_validators;
    let (id, time) = (second.last_commit.block_id, second.chain.last_time);

    let missing = Block { last_commit: None, header: Header { last_commit_hash: Hash::EMPTY_LIST, ..good.header.clone() }, ..good.clone() };
    assert!(second.invalid(&missing).contains("last"));
    let wrong_height = signed_commit(set, &[0, 1, 3], 2, id, time);
    assert!(second.invalid(&with_commit(&good, wrong_height)).contains("not for the block before"));
    let other_block = signed_commit(set, &[0, 1, 3], 1, BlockId { hash: Hash::of("other"), ..id }, time);
    assert!(second.invalid(&with_commit(&good, other_block)).contains("last"));
    let few = signed_commit(set, &[0, 1], 1, id, time);
    assert!(second.invalid(&with_commit(&good, few)).contains("power"));

    let mut slots = second.last_commit.clone();
    slots.signatures.pop();
    assert!(second.invalid(&with_commit(&good, slots)).contains("slots"));

    // A signature of another validator, in every place that signed.
    for place in [0, 1, 3] {
        let mut foreign = second.last_commit.clone();
        let lockstep_types::CommitSig::Commit(slot) = &mut foreign.signatures[place] else { panic!("it signed") };
        slot.signature = key(9).sign(b"something else");
        let block = with_commit(&good, foreign.clone());
        assert!(second.invalid(&block).contains("signature"));
        // Where our own commit has the other signatures, this one alone is verified, and found out.
        let job = CheckJob { known: Some(Arc::new(second.last_commit.clone())), ..second.job(&block) };
        assert!(matches!(second.verdict(&job), Err(CheckFailure::Invalid(_))));
        // What stands in our own commit was verified when it came, and is not verified again: same round, same block.
        let job = CheckJob { known: Some(Arc::new(foreign.clone())), ..second.job(&block) };
        assert_eq!(second.verdict(&job), Ok(()));
        let other_round = Commit { round: round(1), ..foreign };
        let job = CheckJob { known: Some(Arc::new(other_round)), ..second.job(&block) };
        assert!(matches!(second.verdict(&job), Err(CheckFailure::Invalid(_))), "another round is another message");
    }
}

#[test]
fn a_block_above_the_chains_bound_is_refused_and_never_built() {
    let mut second = second();
    let large = vec![b'x'; 40_000];
    let txs: Vec<Vec<u8>> = (0..4u8).map(|n| [&[b'k', b'0' + n, b'='][..], &large].concat()).collect();
    let txs: Vec<&[u8]> = txs.iter().map(Vec::as_slice).collect();
    let block = second.built(&txs);
    assert_eq!(block.txs.len(), 4);
    let mut chain = (*second.chain).clone();
    let mut params = (*chain.params).clone();
    params.block.max_bytes = 100_000;
    chain.params = Arc::new(params);
    second.chain = Arc::new(chain);
    let header = Header { consensus_hash: second.chain.params.hash(), ..block.header.clone() };
    assert!(second.invalid(&Block { header, ..block }).contains("bytes"));
    let fits = second.built(&txs);
    assert!(fits.txs.len() == 2 && fits.encode().len() <= 100_000, "the bound holds for the body, not for its transactions");
    assert_eq!(second.judge(&fits), Ok(()));
}

/// What the application refuses is invalid, unless more than two thirds decided it: then its answer cannot matter.
#[test]
fn the_application_is_asked_until_a_block_is_certified() {
    let second = second();
    let good = second.built(&[]);
    let txs = vec![Tx(b"no separator".to_vec())];
    let header = Header { data_hash: block::data_hash(&txs), ..good.header.clone() };
    let block = Block { header, txs, ..good };
    assert!(second.invalid(&block).contains("application"));
    assert_eq!(second.verdict(&CheckJob { certified: true, ..second.job(&block) }), Ok(()));
    let mut wrong = block;
    wrong.header.app_hash = AppHash::from(Hash::of("other"));
    let verdict = second.verdict(&CheckJob { certified: true, ..second.job(&wrong) });
    assert!(matches!(verdict, Err(CheckFailure::State { .. })), "a certified block is still compared with our state");
}

#[test]
fn the_chain_state_is_read_back() {
    let chain = second().chain;
    let bytes = chain.encode();
    assert_eq!(ChainState::decode(&bytes).as_ref(), Ok(&*chain));
    for len in 0..bytes.len() {
        assert!(ChainState::decode(&bytes[..len]).is_err(), "its first {len} bytes");
    }
}
