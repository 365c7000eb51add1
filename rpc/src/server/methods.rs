//! The table of methods, and what each of them does (contract sections 5 and 6).

use std::sync::Arc;
use std::time::Duration;

use lockstep_types::{Hash, Height, Tx, merkle};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::envelope::Refusal;
use super::genesis::Genesis;
use super::params::{Args, Bytes};
use crate::backend::{AppQuery, Backend, BoxFuture, BroadcastError, Heights, ReadError, Wait};
use crate::json;

/// A method: its name, its parameters in the contract's order, and how it runs.
pub(super) struct Method {
    pub(super) name: &'static str,
    pub(super) params: &'static [&'static str],
    pub(super) run: Run,
}

/// The JSON of a result.
pub(super) type Outcome = Result<Box<RawValue>, Refusal>;

/// How a method runs.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// Looks something up. Runs on the pool of readers.
    Read(fn(&Context, &Args) -> Outcome),
    /// Hands something to the node. The call starts at once, in the order of requests; the future waits for the node.
    Write(fn(&Context, &Args) -> Result<BoxFuture<Outcome>, Refusal>),
}

/// What methods work with.
pub(super) struct Context {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) genesis: Genesis,
    pub(super) commit_wait: Duration,
}

/// Methods that exist on the WebSocket alone.
pub(super) const WEBSOCKET_ONLY: [&str; 3] = ["subscribe", "unsubscribe", "unsubscribe_all"];

/// Blocks in one answer of `blockchain`.
const BLOCK_METAS_MAX: u64 = 20;

/// Entries on a page, when the client does not say or says nonsense, and at most.
const PER_PAGE: i64 = 30;
const PER_PAGE_MAX: i64 = 100;

macro_rules! methods {
    ($($name:literal ($($param:literal),*) $kind:ident $run:expr;)*) => {
        &[$(Method { name: $name, params: &[$($param),*], run: Run::$kind($run) },)*]
    };
}

/// Every method that is served. It is the list on the page at `/`, too.
pub(super) static METHODS: &[Method] = methods! {
    "abci_info"() Read |context, _| reply(&json::Response { response: json::AbciInfo::from(&context.backend.app_info()?) });
    "abci_query"("path", "data", "height", "prove") Read abci_query;
    "block"("height") Read block;
    "block_by_hash"("hash") Read block_by_hash;
    "block_results"("height") Read block_results;
    "blockchain"("minHeight", "maxHeight") Read blockchain;
    "broadcast_evidence"("evidence") Write broadcast_evidence;
    "broadcast_tx_async"("tx") Write |context, args| broadcast(context, args, Wait::Async);
    "broadcast_tx_commit"("tx") Write broadcast_commit;
    "broadcast_tx_sync"("tx") Write |context, args| broadcast(context, args, Wait::Check);
    "check_tx"("tx") Write check_tx;
    "commit"("height") Read commit;
    "consensus_params"("height") Read consensus_params;
    "genesis"() Read |context, _| context.genesis.whole();
    "genesis_chunked"("chunk") Read |context, args| reply(&context.genesis.chunk(args.integer("chunk")?)?);
    "header"("height") Read header;
    "header_by_hash"("hash") Read header_by_hash;
    "health"() Read |_, _| reply(&json::Empty {});
    "net_info"() Read net_info;
    "num_unconfirmed_txs"() Read num_unconfirmed_txs;
    "status"() Read |context, _| reply(&json::Status::from(&context.backend.status()?));
    "tx"("hash", "prove") Read tx;
    "unconfirmed_txs"("limit") Read unconfirmed_txs;
    "validators"("height", "page", "per_page") Read validators;
};

/// The method of a name.
pub(super) fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::failed(error)
    }
}

pub(super) fn reply<T: Serialize>(answer: &T) -> Outcome {
    to_raw_value(answer).map_err(Refusal::failed)
}

/// The height asked for, between the lowest kept and `last`, which is also what no height means.
fn height_within(args: &Args, base: Height, last: Height) -> Result<Height, Refusal> {
    let Some(asked) = args.integer("height")? else { return Ok(last) };
    let height = u64::try_from(asked).ok().and_then(Height::new).filter(|height| *height > Height::ZERO);
    let height = height.ok_or_else(|| Refusal::Failed(format!("height must be greater than 0, but got {asked}")))?;
    if height > last {
        return Err(Refusal::Failed(format!("height {height} must be less than or equal to the current blockchain height {last}")));
    }
    if height < base { Err(unavailable(height, base)) } else { Ok(height) }
}

fn unavailable(height: Height, base: Height) -> Refusal {
    Refusal::Failed(format!("height {height} is not available, lowest height is {base}"))
}

/// What of a height is asked for, which says how long it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The block, or what executing it gave.
    Block,
    /// Header, commit, validators.
    Header,
}

impl Of {
    fn base(self, heights: Heights) -> Height {
        match self {
            Self::Block => heights.base,
            Self::Header => heights.headers,
        }
    }
}

/// The height of a block asked for; none when there is no block yet and none was named.
fn block_height(context: &Context, args: &Args, of: Of) -> Result<Option<Height>, Refusal> {
    let heights = context.backend.heights();
    let height = height_within(args, of.base(heights), heights.tip)?;
    Ok((height > Height::ZERO).then_some(height))
}

/// What was read at a height within bounds. It may have been pruned meanwhile.
fn kept<T>(context: &Context, height: Height, of: Of, answer: Option<T>) -> Result<T, Refusal> {
    answer.ok_or_else(|| {
        let base = of.base(context.backend.heights());
        if height < base {
            return unavailable(height, base);
        }
        Refusal::Failed(format!(
            "what this asks of height {height} is not kept here: this node has the block and nothing that executing it gives, because it began \
             with the state of a snapshot, or because its disk damaged that; ask another node"
        ))
    })
}

fn block(context: &Context, args: &Args) -> Outcome {
    let Some(height) = block_height(context, args, Of::Block)? else { return reply(&json::BlockAnswer::from(None)) };
    let answer = kept(context, height, Of::Block, context.backend.block(height)?)?;
    reply(&json::BlockAnswer::from(Some(&answer)))
}

/// 32 bytes, or no hash of anything.
fn hash_of(bytes: &[u8]) -> Option<Hash> {
    bytes.try_into().ok().map(Hash)
}

fn height_of(context: &Context, bytes: &[u8]) -> Result<Option<Height>, Refusal> {
    hash_of(bytes).map_or(Ok(None), |hash| Ok(context.backend.height_of(&hash)?))
}

fn block_by_hash(context: &Context, args: &Args) -> Outcome {
    let height = height_of(context, &args.bytes("hash", Bytes::Base64)?)?;
    let answer = height.map_or(Ok(None), |height| context.backend.block(height))?;
    reply(&json::BlockAnswer::from(answer.as_ref()))
}

fn header(context: &Context, args: &Args) -> Outcome {
    let Some(height) = block_height(context, args, Of::Header)? else { return reply(&json::HeaderAnswer { header: None }) };
    let header = kept(context, height, Of::Header, context.backend.header(height)?)?;
    reply(&json::HeaderAnswer { header: Some((&header).into()) })
}

fn header_by_hash(context: &Context, args: &Args) -> Outcome {
    let height = height_of(context, &args.bytes("hash", Bytes::Hex)?)?;
    let meta = height.map_or(Ok(None), |height| context.backend.meta(height))?;
    reply(&json::HeaderAnswer { header: meta.map(|meta| (&meta.header).into()) })
}

fn commit(context: &Context, args: &Args) -> Outcome {
    let Some(height) = block_height(context, args, Of::Header)? else { return reply(&()) };
    let answer = kept(context, height, Of::Header, context.backend.commit(height)?)?;
    reply(&json::CommitAnswer::from(&answer))
}

fn block_results(context: &Context, args: &Args) -> Outcome {
    let Some(height) = block_height(context, args, Of::Block)? else {
        return Err(Refusal::failed("there is no block yet, so there are no results"));
    };
    let results = kept(context, height, Of::Block, context.backend.results(height)?)?;
    reply(&json::BlockResults::new(height, &results))
}

fn blockchain(context: &Context, args: &Args) -> Outcome {
    let heights = context.backend.heights();
    let bound = |name, default: u64| match args.integer(name)? {
        None | Some(0) => Ok(default),
        Some(asked) => u64::try_from(asked).map_err(|_| Refusal::failed("heights must be non-negative")),
    };
    let tip = heights.tip.get();
    let (min, max) = (bound("minHeight", 1)?, bound("maxHeight", tip)?.min(tip));
    let min = min.max(heights.base.get()).max(max.saturating_sub(BLOCK_METAS_MAX - 1));
    if min > max {
        return Err(Refusal::Failed(format!("min height {min} can't be greater than max height {max}")));
    }
    let mut block_metas = Vec::new();
    for height in (min..=max).rev().filter_map(Height::new) {
        // The lowest may be pruned while we read.
        let Some(meta) = context.backend.meta(height)? else { break };
        block_metas.push(json::BlockMeta::from(&meta));
    }
    reply(&json::Blockchain { last_height: heights.tip, block_metas })
}

/// Entries per page.
fn per_page(asked: Option<i64>) -> usize {
    let count = asked.filter(|count| *count >= 1).unwrap_or(PER_PAGE).min(PER_PAGE_MAX);
    usize::try_from(count).expect("1 to 100")
}

/// The entries of one page.
fn page<'a, T>(all: &'a [T], args: &Args) -> Result<&'a [T], Refusal> {
    let per_page = per_page(args.integer("per_page")?);
    let pages = all.len().div_ceil(per_page).max(1);
    let asked = args.integer("page")?.unwrap_or(1);
    let page = usize::try_from(asked).ok().filter(|page| (1..=pages).contains(page));
    let page = page.ok_or_else(|| Refusal::Failed(format!("page should be within [1, {pages}] range, given {asked}")))?;
    let start = (page - 1) * per_page;
    Ok(&all[start..all.len().min(start + per_page)])
}

fn validators(context: &Context, args: &Args) -> Outcome {
    let heights = context.backend.heights();
    let height = height_within(args, heights.headers, heights.next)?;
    let set = kept(context, height, Of::Header, context.backend.validators(height)?)?;
    let all: Vec<json::Validator> = set.iter().map(json::Validator::from).collect();
    let validators = page(&all, args)?.to_vec();
    reply(&json::Validators { block_height: height, count: json::Dec(validators.len()), total: json::Dec(all.len()), validators })
}

fn consensus_params(context: &Context, args: &Args) -> Outcome {
    let heights = context.backend.heights();
    let height = height_within(args, heights.base, heights.next)?;
    let params = kept(context, height, Of::Block, context.backend.params(height)?)?;
    reply(&json::ConsensusParamsAnswer { block_height: height, consensus_params: (&params).into() })
}

fn net_info(context: &Context, _: &Args) -> Outcome {
    let peers = context.backend.peers();
    let listener = context.backend.status()?.node.listen_addr;
    reply(&json::NetInfo {
        listening: true,
        listeners: vec![listener],
        n_peers: json::Dec(peers.len()),
        peers: peers.iter().map(json::Peer::from).collect(),
    })
}

fn num_unconfirmed_txs(context: &Context, _: &Args) -> Outcome {
    let pool = context.backend.unconfirmed(0);
    let (total, total_bytes) = (json::Dec(pool.total), json::Dec(pool.total_bytes));
    reply(&json::UnconfirmedTxs { n_txs: total, total, total_bytes, txs: None })
}

fn unconfirmed_txs(context: &Context, args: &Args) -> Outcome {
    let pool = context.backend.unconfirmed(per_page(args.integer("limit")?));
    reply(&json::UnconfirmedTxs {
        n_txs: json::Dec(pool.txs.len() as u64),
        total: json::Dec(pool.total),
        total_bytes: json::Dec(pool.total_bytes),
        txs: Some(pool.txs.iter().map(|tx| tx.as_ref().into()).collect()),
    })
}

fn abci_query(context: &Context, args: &Args) -> Outcome {
    let asked = args.integer("height")?.unwrap_or(0);
    let height = u64::try_from(asked).ok().and_then(Height::new);
    let query = AppQuery {
        path: args.text("path")?,
        data: args.bytes("data", Bytes::Hex)?,
        height: height.ok_or_else(|| Refusal::Failed(format!("height must be greater than 0, but got {asked}")))?,
        prove: args.boolean("prove")?,
    };
    reply(&json::Response { response: json::AbciQuery::from(&context.backend.app_query(query)?) })
}

fn tx(context: &Context, args: &Args) -> Outcome {
    let bytes = args.bytes("hash", Bytes::Base64)?;
    let prove = args.boolean("prove")?;
    if bytes.is_empty() {
        return Err(Refusal::failed("transaction hash cannot be empty"));
    }
    let unknown = || Refusal::Failed(format!("tx ({}) not found", hex::encode_upper(&bytes)));
    let hash = hash_of(&bytes).ok_or_else(unknown)?;
    let found = context.backend.tx(&hash)?.ok_or_else(unknown)?;
    let proof = if prove { Some(tx_proof(context, found.height, found.index)?) } else { None };
    reply(&json::TxAnswer {
        hash,
        height: found.height,
        index: found.index,
        tx_result: (&found.result).into(),
        tx: found.tx.as_ref().into(),
        proof,
    })
}

fn tx_proof(context: &Context, height: Height, index: u32) -> Result<json::TxProof, Refusal> {
    let block = kept(context, height, Of::Block, context.backend.block(height)?)?.block;
    let hashes: Vec<Hash> = block.txs.iter().map(Tx::hash).collect();
    let (root_hash, proofs) = merkle::proofs(&hashes);
    let place = index as usize;
    let (tx, proof) =
        block.txs.get(place).zip(proofs.get(place)).ok_or_else(|| {
            Refusal::Failed(format!("the index names transaction {index} of block {height}, which has {}", block.txs.len()))
        })?;
    Ok(json::TxProof { root_hash, data: tx.as_ref().into(), proof: proof.into() })
}

fn broadcast(context: &Context, args: &Args, wait: Wait) -> Result<BoxFuture<Outcome>, Refusal> {
    let tx = args.bytes("tx", Bytes::Base64)?;
    let hash = Hash::of(&tx);
    let taken = context.backend.broadcast(tx, wait);
    Ok(Box::pin(async move {
        let answer = taken.await.map_err(Refusal::failed)?;
        reply(&json::Broadcast::new(hash, &answer.check))
    }))
}

fn broadcast_commit(context: &Context, args: &Args) -> Result<BoxFuture<Outcome>, Refusal> {
    let tx = args.bytes("tx", Bytes::Base64)?;
    let hash = Hash::of(&tx);
    let committed = tokio::time::timeout(context.commit_wait, context.backend.broadcast(tx, Wait::Commit));
    Ok(Box::pin(async move {
        let answer = match committed.await {
            Ok(answer) => answer.map_err(|error: BroadcastError| Refusal::Failed(format!("error on broadcastTxCommit: {error}")))?,
            Err(_) => return Err(Refusal::failed("timed out waiting for tx to be included in a block")),
        };
        reply(&json::BroadcastCommit::new(hash, &answer))
    }))
}

fn broadcast_evidence(context: &Context, args: &Args) -> Result<BoxFuture<Outcome>, Refusal> {
    let Some(value) = args.value("evidence")? else { return Err(Refusal::failed("no evidence was provided")) };
    let evidence = json::read_evidence(&value).map_err(|error| Refusal::Failed(format!("evidence.ValidateBasic failed: {error}")))?;
    let taken = context.backend.broadcast_evidence(evidence);
    Ok(Box::pin(async move {
        let hash = taken.await.map_err(|error| Refusal::Failed(format!("failed to add evidence: {error}")))?;
        reply(&json::BroadcastEvidence { hash: hash.0.into() })
    }))
}

fn check_tx(context: &Context, args: &Args) -> Result<BoxFuture<Outcome>, Refusal> {
    let checked = context.backend.check_tx(args.bytes("tx", Bytes::Base64)?);
    Ok(Box::pin(async move { reply(&json::ExecTxResult::from(&checked.await.map_err(Refusal::failed)?)) }))
}
