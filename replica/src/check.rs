//! Building a block and judging one: the two jobs that hash whole bodies, done beside the replica's thread.
//!
//! valid(v) of the paper is [`check`]: a pure function of the body and of the chain before it, so that all correct nodes
//! agree on it (L22, L28, L36, L49 rely on that). Timeliness is no part of it.

use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::{Host, Proposal, ProposalInput, State};
use lockstep_mempool::TxBytes;
use lockstep_types::block::{self, BlockId, Part};
use lockstep_types::crypto::{SignatureCheck, verify_batch};
use lockstep_types::planted::{self, Bug};
use lockstep_types::{Address, Block, Commit, Evidence, Hash, Header, Time, Tx, evidence};
use thiserror::Error;

use crate::audit::finding::state_fields;
use crate::chain::ChainState;
use crate::evidence::history::{History, NoHistory};
use crate::evidence::misbehaviour;
use crate::evidence::rules::{Collected, Refused};
use crate::execution::{block_input, participation};

/// What a block is built from.
#[derive(Debug, Clone)]
pub struct BuildJob {
    /// The chain before it.
    pub chain: Arc<ChainState>,
    /// The proposer's clock, past the last block's time.
    pub time: Time,
    /// The proposer.
    pub proposer: Address,
    /// Transactions in the pool's order, within the block's bounds.
    pub txs: Vec<TxBytes>,
    /// Evidence that waits.
    pub evidence: Vec<Evidence>,
    /// The commit of the block before; none at the first height.
    pub last_commit: Option<Commit>,
}

/// A block that was built here.
#[derive(Debug, Clone)]
pub struct BuiltBlock {
    /// The block.
    pub block: Arc<Block>,
    /// Its name.
    pub block_id: BlockId,
    /// Its canonical bytes.
    pub body: Bytes,
    /// The bytes cut into parts.
    pub parts: Vec<Part>,
    /// Evidence that no block can carry any more.
    pub refused: Vec<Hash>,
}

/// Builds a block where nothing is known of the past but what the chain's newest state says.
pub fn build(host: &Host, state: &State, job: &BuildJob) -> BuiltBlock {
    build_with(host, state, &NoHistory, job, &mut verify_batch)
}

/// Builds a block: the application chooses among the transactions, evidence is what validators will find valid, the rest is
/// derived.
pub fn build_with(host: &Host, state: &State, history: &dyn History, job: &BuildJob, verdicts: &mut Verdicts<'_>) -> BuiltBlock {
    let chain = &job.chain;
    let header = chain.next_header(job.time, job.proposer);
    let (evidence, refused) = collect(job, history, verdicts);
    let mut empty = Block { header, txs: Vec::new(), evidence, last_commit: job.last_commit.clone() };
    while empty.encode().len() > max_body_bytes(chain) && empty.evidence.pop().is_some() {}
    let candidates: Vec<Tx> = job.txs.iter().map(|tx| Tx(tx.to_vec())).collect();
    let txs = host.prepare_proposal(
        state,
        &ProposalInput {
            chain_id: &chain.chain_id,
            height: chain.next_height(),
            time: job.time,
            proposer: job.proposer,
            candidates: &candidates,
            max_bytes: max_body_bytes(chain).saturating_sub(empty.encode().len()) as u64,
            last_commit: participation(job.last_commit.as_ref(), chain),
            misbehaviour: misbehaviour(&empty.evidence),
            parameters: &chain.params,
        },
    );
    let last_commit_hash = job.last_commit.as_ref().map_or(Hash::EMPTY_LIST, Commit::hash);
    let evidence_hash = evidence::list_hash(&empty.evidence);
    let header = Header { data_hash: block::data_hash(&txs), last_commit_hash, evidence_hash, ..empty.header };
    let block = Block { header, txs, ..empty };
    let body = block.encode();
    let (parts_header, parts) = block::cut(&body);
    let block_id = BlockId { hash: block.header.hash(), parts: parts_header };
    BuiltBlock { block: Arc::new(block), block_id, body: Bytes::from(body), parts, refused }
}

/// Of the evidence that waits, what the block can carry, and what none can any more.
fn collect(job: &BuildJob, history: &dyn History, verdicts: &mut Verdicts<'_>) -> (Vec<Evidence>, Vec<Hash>) {
    let (mut carried, mut refused) = (Vec::new(), Vec::new());
    let mut collected = Collected::default();
    for piece in &job.evidence {
        // Another one may be smaller; and this one has the next block.
        if collected.reserve(piece, &job.chain).is_err() {
            continue;
        }
        match collected.take(piece, &job.chain, history, verdicts) {
            Ok(()) => carried.push(piece.clone()),
            // What was judged good once is good. What is not known of the past just now may be known with the next block.
            Err(Refused::Early(_) | Refused::Unknown(_)) => {}
            Err(_) => refused.push(piece.hash()),
        }
    }
    (carried, refused)
}

/// Largest body that the chain's parameters allow.
fn max_body_bytes(chain: &ChainState) -> usize {
    usize::try_from(chain.params.block.max_bytes).unwrap_or(block::BODY_BYTES_MAX)
}

/// A body to judge.
#[derive(Debug, Clone)]
pub struct CheckJob {
    /// The name it must bear.
    pub block_id: BlockId,
    /// The bytes.
    pub body: Bytes,
    /// The chain before it.
    pub chain: Arc<ChainState>,
    /// Our own commit of the block before: signatures found there were verified, and are not verified again.
    pub known: Option<Arc<Commit>>,
    /// Whether more than two thirds decided it: the application is then not asked, since its answer cannot matter.
    pub certified: bool,
}

/// Why a body is not a valid block of this height.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckFailure {
    /// The bytes are not the block of that name: whoever sent them is at fault.
    #[error("not the block of this name: {0}")]
    NotThisBlock(String),
    /// The block breaks a rule: whoever proposed it is at fault.
    #[error("invalid block: {0}")]
    Invalid(String),
    /// It accuses somebody of what this node cannot look up just now: its disk may have failed to give the block of that height back. Nobody is at
    /// fault, and nothing is said of the block: it is judged again when it is named again.
    #[error("cannot be judged yet: {0}")]
    Unknown(String),
    /// The block says something else of the state before it than we have: its root, results, validators or parameters. When it is
    /// certified, we are the one that is wrong.
    #[error("the block's {field} is {theirs}, ours is {ours}")]
    State {
        /// The field of the header.
        field: &'static str,
        /// What it says.
        theirs: String,
        /// What it would say of our state.
        ours: String,
        /// All of it.
        header: Box<Header>,
    },
}

/// Says of each signature, in order, whether it is valid.
pub type Verdicts<'a> = dyn FnMut(&[SignatureCheck]) -> Vec<bool> + 'a;

/// valid(v): decodes the body and compares it with its name, with itself and with the chain, where nothing is known of the
/// past but what the chain's newest state says.
///
/// # Errors
/// See [`CheckFailure`].
pub fn check(host: &Host, state: &State, job: &CheckJob) -> Result<Arc<Block>, CheckFailure> {
    check_with(host, state, &NoHistory, job, &mut verify_batch)
}

/// [`check`], with what is known of the past, and with the verdict on signatures that whoever does the work also gives to
/// [`crate::Effect::Verify`].
///
/// # Errors
/// As for [`check`].
pub fn check_with(
    host: &Host,
    state: &State,
    history: &dyn History,
    job: &CheckJob,
    verdicts: &mut Verdicts<'_>,
) -> Result<Arc<Block>, CheckFailure> {
    let not_this = |what: &dyn std::fmt::Display| CheckFailure::NotThisBlock(what.to_string());
    let block = Block::decode(&job.body).map_err(|error| not_this(&error))?;
    if block.header.hash() != job.block_id.hash && !planted::has(Bug::BodyHashUnchecked) {
        return Err(not_this(&"the header has another hash"));
    }
    if block::part_set_header(&job.body) != job.block_id.parts {
        return Err(not_this(&"the body has other parts"));
    }
    block.check_hashes().map_err(|error| CheckFailure::Invalid(error.to_string()))?;
    check_header(&block.header, &job.chain)?;
    check_bounds(&job.body, &job.chain)?;
    check_last_commit(&block, job, verdicts)?;
    check_evidence(&block, job, history, verdicts)?;
    if !job.certified
        && let Proposal::Reject(reason) = host.process_proposal(state, &block_input(&block, &job.chain))
    {
        return Err(CheckFailure::Invalid(format!("the application refuses it: {reason}")));
    }
    Ok(Arc::new(block))
}

/// Every field of the header that the chain before it determines. What is left to the proposer: the time, within the rule,
/// its address, within the set, and the content, which the other hashes bind.
fn check_header(header: &Header, chain: &ChainState) -> Result<(), CheckFailure> {
    let expected = chain.next_header(header.time, header.proposer_address);
    let invalid = |what: String| Err(CheckFailure::Invalid(what));
    let same = [
        ("version", header.version == expected.version),
        ("chain_id", header.chain_id == expected.chain_id),
        ("height", header.height == expected.height),
        ("last_block_id", header.last_block_id == expected.last_block_id || planted::has(Bug::ParentUnchecked)),
    ];
    if let Some((field, _)) = same.iter().find(|(_, same)| !same) {
        return invalid(format!("{field} is not what the chain says"));
    }
    let unchecked = |field: &str| match field {
        "app_hash" => planted::has(Bug::AppHashUnchecked),
        "last_results_hash" => planted::has(Bug::ResultsHashUnchecked),
        "validators_hash" => planted::has(Bug::ValidatorsHashUnchecked),
        "next_validators_hash" => planted::has(Bug::NextValidatorsHashUnchecked),
        _ => planted::has(Bug::ConsensusHashUnchecked),
    };
    for (field, theirs, ours) in state_fields(header, chain) {
        if theirs != ours && !unchecked(field) {
            return Err(CheckFailure::State { field, theirs, ours, header: Box::new(header.clone()) });
        }
    }
    let first = header.height == chain.initial_height;
    let is_early = header.time < chain.last_time || (!first && header.time == chain.last_time);
    if is_early && !planted::has(Bug::TimeUnchecked) {
        return invalid(format!("time {} is not after {}", header.time, chain.last_time));
    }
    if chain.validators.index_of(&header.proposer_address).is_none() && !planted::has(Bug::ProposerUnchecked) {
        return invalid(format!("proposer {} is not a validator", header.proposer_address));
    }
    Ok(())
}

fn check_bounds(body: &Bytes, chain: &ChainState) -> Result<(), CheckFailure> {
    let invalid = |what: String| Err(CheckFailure::Invalid(what));
    let max = max_body_bytes(chain);
    if body.len() > max {
        return invalid(format!("{} bytes, at most {max} are allowed", body.len()));
    }
    Ok(())
}

/// Each piece may be in this block, and each accuses somebody whom those before it do not.
fn check_evidence(block: &Block, job: &CheckJob, history: &dyn History, verdicts: &mut Verdicts<'_>) -> Result<(), CheckFailure> {
    let invalid = |what: String| Err(CheckFailure::Invalid(what));
    if planted::has(Bug::EvidenceUnchecked) {
        return Ok(());
    }
    let mut collected = Collected::default();
    for piece in &block.evidence {
        if let Err(error) = collected.reserve(piece, &job.chain) {
            return invalid(error.to_string());
        }
        match collected.take(piece, &job.chain, history, verdicts) {
            Ok(()) => {}
            // More than two thirds decided it: enough of them are correct and know the block that we do not.
            Err(Refused::Unknown(_)) if job.certified => {}
            Err(refused @ Refused::Unknown(_)) => return Err(CheckFailure::Unknown(format!("evidence {}: {refused}", piece.hash()))),
            Err(refused) => return invalid(format!("evidence {}: {refused}", piece.hash())),
        }
    }
    Ok(())
}

/// The commit of the block before: full verification, but for the signatures that we verified ourselves.
fn check_last_commit(block: &Block, job: &CheckJob, verdicts: &mut Verdicts<'_>) -> Result<(), CheckFailure> {
    let invalid = |what: String| CheckFailure::Invalid(what);
    let Some(commit) = &block.last_commit else {
        return if job.chain.last_block_id.is_none() { Ok(()) } else { Err(invalid("the last commit is missing".into())) };
    };
    let is_of_last = commit.height == job.chain.height && Some(commit.block_id) == job.chain.last_block_id;
    if !is_of_last && !planted::has(Bug::ParentUnchecked) {
        return Err(invalid("the last commit is not for the block before".into()));
    }
    let claim = commit.clone().claim(&job.chain.chain_id, &job.chain.last_validators).map_err(|error| invalid(error.to_string()))?;
    let unknown: Vec<_> = commit
        .signatures
        .iter()
        .enumerate()
        .filter(|(_, sig)| sig.slot().is_some())
        .zip(claim.checks())
        .filter(|((index, sig), _)| !is_known(job, commit, *index, sig))
        .map(|(_, check)| check.clone())
        .collect();
    let is_verified = planted::has(Bug::LastCommitUnverified) || verdicts(&unknown).iter().all(|valid| *valid);
    if is_verified { Ok(()) } else { Err(invalid("a signature of the last commit".into())) }
}

/// Whether a slot is, signature and all, one that we verified for the same round and block.
fn is_known(job: &CheckJob, commit: &Commit, index: usize, sig: &lockstep_types::CommitSig) -> bool {
    job.known
        .as_ref()
        .is_some_and(|known| known.round == commit.round && known.block_id == commit.block_id && known.signatures.get(index) == Some(sig))
}
