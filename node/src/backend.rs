//! What RPC asks, answered from what readers see; only submissions go to the replica.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use lockstep_app::{CheckKind, Query, Verdict};
use lockstep_network::{Direction, Network, PeerStatus};
use lockstep_replica::recovery::RecoveryError;
use lockstep_replica::seam::{Reply, Wait as ReplicaWait};
use lockstep_rpc::backend::{
    AppAnswer, AppInfo, AppQuery, Backend, BlockAnswer, BlockMeta, BlockResults, BoxFuture, BroadcastAnswer, BroadcastError, ChainEnd,
    CommitAnswer, Committed, Heights, NodeInfo, Peer, ProofOp, ReadError, Status, Traffic, TxAnswer, Unconfirmed, Wait,
};
use lockstep_types::{
    AppHash, Commit, ConsensusParams, Evidence, Hash, Header, Height, NodeId, Power, PublicKey, Time, Tx, TxResult, ValidatorSet,
};
use tokio::sync::oneshot;

use crate::shell::Inbox;
use crate::shell::Mail;
use crate::shell::readers::Readers;

/// Who the node says it is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What its operator calls it.
    pub moniker: String,
    /// Where peers are served.
    pub listen_addr: String,
    /// Where clients are served.
    pub rpc_address: String,
    /// The consensus key, if it has one.
    pub validator_key: Option<PublicKey>,
}

/// The node, as its RPC server sees it.
pub struct NodeBackend {
    readers: Arc<Readers>,
    inbox: Inbox,
    network: Network,
    identity: Identity,
}

impl NodeBackend {
    /// Nothing is answered from a state that nobody knows to be the chain's.
    fn trusts_state(&self) -> Result<(), ReadError> {
        self.readers.doubted().map_or(Ok(()), |why| Err(ReadError::Failed(why.to_owned())))
    }

    /// A backend over a running node.
    pub(crate) fn new(readers: Arc<Readers>, inbox: Inbox, network: Network, identity: Identity) -> Self {
        Self { readers, inbox, network, identity }
    }

    fn node_info(&self) -> NodeInfo {
        let chain = &self.readers.tip().chain;
        NodeInfo {
            id: NodeId(self.network.node_id().0),
            listen_addr: self.identity.listen_addr.clone(),
            chain_id: chain.chain_id.clone(),
            app_version: chain.app_version,
            moniker: self.identity.moniker.clone(),
            tx_index: true,
            rpc_address: self.identity.rpc_address.clone(),
            software: software(),
        }
    }

    /// The commit of a height whose block was let go. What came with a snapshot may be another certificate than the next block carries.
    fn commit_apart(&self, height: Height) -> Result<Option<CommitAnswer>, ReadError> {
        let Some(light) = self.readers.header_apart(height).map_err(failed)? else { return Ok(None) };
        let above = self.header(height.next())?;
        let canonical = above.is_some_and(|above| above.last_commit_hash == light.commit.hash());
        Ok(Some(CommitAnswer { header: light.header, commit: light.commit, canonical }))
    }

    fn end(&self, height: Height) -> Result<Option<ChainEnd>, ReadError> {
        let Some((block_id, block, _, _)) = self.readers.block(height).map_err(failed)? else { return Ok(None) };
        let Header { app_hash, time, .. } = block.header;
        Ok(Some(ChainEnd { height, hash: block_id.hash, app_hash, time }))
    }
}

/// Name and version of this program.
fn software() -> String {
    format!("lockstep/{}", env!("CARGO_PKG_VERSION"))
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn failed(error: RecoveryError) -> ReadError {
    ReadError::Failed(error.to_string())
}

/// Whether a question about the state after this height is answered, in the words that all methods have for heights that are not here.
fn is_answered(asked: Height, oldest: Height, tip: Height) -> Result<(), String> {
    if asked > tip {
        return Err(format!("height {asked} must be less than or equal to the current blockchain height {tip}"));
    }
    if asked < oldest.min(tip) {
        return Err(format!(
            "height {asked} is not available, lowest height is {}: a node keeps the states of its last blocks",
            oldest.min(tip)
        ));
    }
    Ok(())
}

impl Backend for NodeBackend {
    fn heights(&self) -> Heights {
        let tip = self.readers.tip();
        let initial = tip.chain.initial_height;
        let height = if tip.chain.height < initial { Height::ZERO } else { tip.chain.height };
        Heights { base: self.readers.base(), headers: self.readers.headers_base(), tip: height, next: tip.chain.next_height() }
    }

    fn status(&self) -> Result<Status, ReadError> {
        let tip = self.readers.tip();
        let heights = self.heights();
        let key = self.identity.validator_key;
        let place = key.and_then(|key| tip.chain.validators.index_of(&key.address()));
        Ok(Status {
            node: self.node_info(),
            latest: self.end(heights.tip)?,
            // A first block that rotted is told when somebody asks for it; the status of the node is another question.
            earliest: self.end(heights.base).unwrap_or(None),
            catching_up: self.readers.is_behind(),
            // A node without a key shows the zero key and no power.
            validator_key: key.unwrap_or(PublicKey([0; 32])),
            power: place.and_then(|place| tip.chain.validators.get(place)).map_or(Power::ZERO, |validator| validator.power),
        })
    }

    fn peers(&self) -> Vec<Peer> {
        // A peer of this chain runs its version of the application: headers carry it.
        let app_version = self.readers.tip().chain.app_version;
        self.network.peers().iter().map(|status| peer(status, app_version)).collect()
    }

    fn genesis(&self) -> Arc<str> {
        self.readers.genesis_json()
    }

    fn block(&self, height: Height) -> Result<Option<BlockAnswer>, ReadError> {
        let block = self.readers.block(height).map_err(failed)?;
        Ok(block.map(|(block_id, block, _, _)| BlockAnswer { block_id, block }))
    }

    fn meta(&self, height: Height) -> Result<Option<BlockMeta>, ReadError> {
        let block = self.readers.block(height).map_err(failed)?;
        Ok(block.map(|(block_id, block, body, _)| BlockMeta {
            block_id,
            size: body.len() as u64,
            num_txs: block.txs.len() as u64,
            header: block.header,
        }))
    }

    fn header(&self, height: Height) -> Result<Option<Header>, ReadError> {
        if let Some((_, block, _, _)) = self.readers.block(height).map_err(failed)? {
            return Ok(Some(block.header));
        }
        Ok(self.readers.header_apart(height).map_err(failed)?.map(|light| light.header))
    }

    fn height_of(&self, block_hash: &Hash) -> Result<Option<Height>, ReadError> {
        self.readers.height_of(block_hash).map_err(failed)
    }

    fn commit(&self, height: Height) -> Result<Option<CommitAnswer>, ReadError> {
        let Some((_, block, _, own)) = self.readers.block(height).map_err(failed)? else { return self.commit_apart(height) };
        let header = block.header;
        let next = self.readers.block(height.next()).map_err(failed)?;
        let carried: Option<Commit> = next.and_then(|(_, next, _, _)| next.last_commit);
        Ok(Some(match carried {
            Some(commit) => CommitAnswer { header, commit, canonical: true },
            None => CommitAnswer { header, commit: own, canonical: false },
        }))
    }

    fn results(&self, height: Height) -> Result<Option<BlockResults>, ReadError> {
        let results = self.readers.results(height).map_err(ReadError::Failed)?;
        Ok(results.map(|(kept, tx_results)| BlockResults {
            tx_results,
            events: kept.events,
            validator_updates: kept.validator_updates,
            param_updates: kept.param_updates,
            app_hash: kept.app_hash,
        }))
    }

    fn validators(&self, height: Height) -> Result<Option<ValidatorSet>, ReadError> {
        let tip = self.readers.tip();
        let genesis = self.readers.genesis_chain();
        if height == tip.chain.next_height() {
            return Ok(Some((*tip.chain.validators).clone()));
        }
        if height == genesis.next_height() {
            return Ok(Some((*genesis.validators).clone()));
        }
        if let Some((kept, _)) = self.readers.results(height.previous()).map_err(ReadError::Failed)? {
            return Ok(Some(kept.validators));
        }
        if let Some(light) = self.readers.header_apart(height).map_err(failed)? {
            return Ok(Some(light.validators));
        }
        // The first block that is kept: the one below names its validators.
        Ok(self.readers.header_apart(height.previous()).map_err(failed)?.map(|light| light.next_validators))
    }

    fn params(&self, height: Height) -> Result<Option<ConsensusParams>, ReadError> {
        let tip = self.readers.tip();
        let genesis = self.readers.genesis_chain();
        if height == tip.chain.next_height() {
            return Ok(Some((*tip.chain.params).clone()));
        }
        if height == genesis.next_height() {
            return Ok(Some((*genesis.params).clone()));
        }
        let before = self.readers.results(height.previous()).map_err(ReadError::Failed)?;
        Ok(before.map(|(kept, _)| kept.params))
    }

    fn tx(&self, hash: &Hash) -> Result<Option<TxAnswer>, ReadError> {
        let Some((height, index, result)) = self.readers.tx(hash).map_err(ReadError::Failed)? else { return Ok(None) };
        let Some((_, block, _, _)) = self.readers.block(height).map_err(failed)? else { return Ok(None) };
        let tx = block.txs.into_iter().nth(index as usize).filter(|tx| tx.hash() == *hash);
        Ok(tx.map(|tx| TxAnswer { height, index, result, tx }))
    }

    fn app_info(&self) -> Result<AppInfo, ReadError> {
        self.trusts_state()?;
        let height = self.readers.tip().chain.height;
        let state = self.readers.state_at(height).unwrap_or_else(|| self.readers.newest_state());
        let info = self.readers.host().info(&state);
        Ok(AppInfo {
            data: info.data,
            version: info.version,
            app_version: info.app_version,
            last_block_height: state.height(),
            last_block_app_hash: AppHash::from(state.root()),
        })
    }

    fn app_query(&self, query: AppQuery) -> Result<AppAnswer, ReadError> {
        self.trusts_state()?;
        let tip = self.readers.tip().chain.height;
        // A proof ends in the header of the next height, so what is proven is the state below the tip: that header is here.
        let newest = if query.prove && tip > self.readers.genesis_chain().next_height() { tip.previous() } else { tip };
        if query.height != Height::ZERO {
            is_answered(query.height, self.readers.oldest_state(), tip).map_err(ReadError::Failed)?;
        }
        let wanted = if query.height == Height::ZERO { newest } else { query.height };
        let state = self.readers.state_at(wanted).or_else(|| self.readers.state_at(newest)).unwrap_or_else(|| self.readers.newest_state());
        let height = (query.height != Height::ZERO).then_some(query.height);
        let answer = self.readers.host().query(&state, &Query { path: &query.path, data: &query.data, height, prove: query.prove });
        let proof_ops: Vec<ProofOp> =
            answer.proof_ops.into_iter().map(|op| ProofOp { kind: op.kind, key: op.key, data: op.data }).collect();
        Ok(AppAnswer {
            code: answer.code,
            log: answer.log,
            info: answer.info,
            index: answer.index,
            key: answer.key,
            value: answer.value.map(|value| value.to_vec()).unwrap_or_default(),
            proof_ops: (!proof_ops.is_empty()).then_some(proof_ops),
            height: answer.height,
            codespace: answer.codespace,
        })
    }

    fn unconfirmed(&self, limit: usize) -> Unconfirmed {
        let (total, total_bytes) = self.readers.mempool();
        let mut txs = Vec::new();
        if limit > 0 {
            let (reply, answer) = oneshot::channel();
            // The pool is the replica's: it is asked between two steps, for at most the contract's hundred.
            if self.inbox.try_external(Mail::Pool { limit, reply }) {
                txs = answer.blocking_recv().unwrap_or_default().iter().map(|tx| Tx(tx.to_vec())).collect();
            }
        }
        Unconfirmed { txs, total, total_bytes }
    }

    fn check_tx(&self, tx: Vec<u8>) -> BoxFuture<Result<TxResult, BroadcastError>> {
        if let Some(why) = self.readers.doubted() {
            return Box::pin(ready(Err(BroadcastError::Unavailable(why.to_owned()))));
        }
        let verdict = self.readers.host().check_tx(&self.readers.newest_state(), &tx, CheckKind::New);
        Box::pin(ready(Ok(as_result(&verdict))))
    }

    fn broadcast(&self, tx: Vec<u8>, wait: Wait) -> BoxFuture<Result<BroadcastAnswer, BroadcastError>> {
        if let Some(why) = self.readers.doubted() {
            return Box::pin(ready(Err(BroadcastError::Unavailable(why.to_owned()))));
        }
        let (reply, answer) = oneshot::channel();
        let wait = match wait {
            Wait::Async => ReplicaWait::Admission,
            Wait::Check => ReplicaWait::Check,
            Wait::Commit => ReplicaWait::Commit,
        };
        if !self.inbox.try_external(Mail::Submit { tx: Arc::from(tx), wait, reply }) {
            let busy = "the node has more waiting than it can take, or is stopping; submit it again later".to_owned();
            return Box::pin(ready(Err(BroadcastError::Unavailable(busy))));
        }
        Box::pin(async move {
            match answer.await {
                Ok(Reply::Checked { verdict, .. }) => {
                    Ok(BroadcastAnswer { check: verdict.as_deref().map(as_result).unwrap_or_default(), committed: None })
                }
                Ok(Reply::Committed { verdict, height, result, .. }) => {
                    Ok(BroadcastAnswer { check: as_result(&verdict), committed: Some(Committed { height, result: *result }) })
                }
                Ok(Reply::Refused { reason, .. }) => Err(BroadcastError::Unavailable(reason)),
                Ok(Reply::Evidence { .. }) => Err(BroadcastError::Unavailable("the node answered something else".to_owned())),
                Err(_) => Err(BroadcastError::Unavailable("the node is stopping".to_owned())),
            }
        })
    }

    fn broadcast_evidence(&self, evidence: Evidence) -> BoxFuture<Result<Hash, BroadcastError>> {
        let (reply, answer) = oneshot::channel();
        if !self.inbox.try_external(Mail::Evidence { evidence: Box::new(evidence), reply }) {
            let busy = "the node has more waiting than it can take, or is stopping; submit it again later".to_owned();
            return Box::pin(ready(Err(BroadcastError::Unavailable(busy))));
        }
        Box::pin(judged(answer))
    }
}

/// What became of a piece of evidence: a refusal says which rule it breaks.
async fn judged(answer: oneshot::Receiver<Reply>) -> Result<Hash, BroadcastError> {
    match answer.await {
        Ok(Reply::Evidence { hash, refused: None }) => Ok(hash),
        Ok(Reply::Evidence { refused: Some(reason), .. }) => Err(BroadcastError::Unavailable(reason)),
        Ok(_) => Err(BroadcastError::Unavailable("the node answered something else".to_owned())),
        Err(_) => Err(BroadcastError::Unavailable("the node is stopping".to_owned())),
    }
}

fn as_result(verdict: &Verdict) -> TxResult {
    TxResult {
        code: verdict.code,
        data: verdict.data.clone(),
        log: verdict.log.clone(),
        info: verdict.info.clone(),
        gas_wanted: verdict.gas_wanted,
        gas_used: verdict.gas_used,
        events: verdict.events.clone(),
        codespace: verdict.codespace.clone(),
    }
}

fn peer(status: &PeerStatus, app_version: u64) -> Peer {
    let handshake = &status.info.handshake;
    let connected = status.info.connected_at.elapsed().unwrap_or(Duration::ZERO);
    let since = status.info.connected_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let start = Time::from_unix_nanos(i128::try_from(since.as_nanos()).unwrap_or(i128::MAX));
    let traffic = |bytes: u64, messages: u64| Traffic {
        start,
        bytes,
        messages,
        // Over the life of the connection: the counters keep no window.
        rate: bytes / connected.as_secs().max(1),
        idle: Duration::ZERO,
    };
    Peer {
        node: NodeInfo {
            id: NodeId(status.info.node_id.0),
            listen_addr: if handshake.listen_address.is_empty() {
                status.info.remote.to_string()
            } else {
                handshake.listen_address.clone()
            },
            chain_id: lockstep_types::ChainId::new(&handshake.chain_id).expect("the handshake compared it with ours"),
            app_version,
            moniker: if handshake.moniker.is_empty() { "anonymous".to_owned() } else { handshake.moniker.clone() },
            tx_index: true,
            rpc_address: handshake.rpc_address.clone(),
            software: handshake.node_version.clone(),
        },
        outbound: status.info.direction == Direction::Outbound,
        remote_ip: status.info.remote.ip(),
        connected,
        sent: traffic(status.votes.bytes_out + status.bulk.bytes_out, status.votes.frames_out + status.bulk.frames_out),
        received: traffic(status.votes.bytes_in + status.bulk.bytes_in, status.votes.frames_in + status.bulk.frames_in),
    }
}

#[cfg(test)]
mod tests {
    use lockstep_types::Height;

    use super::is_answered;

    #[test]
    fn a_height_whose_state_is_not_here_is_refused_with_what_is() {
        let height = |height: u64| Height::new(height).expect("within bounds");
        let told = |asked| is_answered(height(asked), height(85), height(100));
        assert_eq!((told(85), told(99), told(100)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(told(101), Err("height 101 must be less than or equal to the current blockchain height 100".to_owned()));
        assert!(told(84).is_err_and(|why| why.starts_with("height 84 is not available, lowest height is 85")));
        assert_eq!(is_answered(height(7), height(9), height(7)), Ok(()), "executed further than readers see");
    }
}
