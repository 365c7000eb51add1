//! A node that serves a [`Chain`], and can be told to lie.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use lockstep_rpc::backend::{
    AppAnswer, AppInfo, AppQuery, Backend, BlockAnswer, BlockMeta, BlockResults, BoxFuture, BroadcastAnswer, BroadcastError, ChainEnd,
    CommitAnswer, Committed, Heights, NodeInfo, Peer, ProofOp, ReadError, Status, Traffic, TxAnswer, Unconfirmed, Wait,
};
use lockstep_rpc::{Options, Server, serve};
use lockstep_types::state_tree::ics23::PROOF_OP_TYPE;
use lockstep_types::{ConsensusParams, Hash, Header, Height, NodeId, Power, Tx, TxResult, ValidatorSet};
use tokio::net::TcpListener;

use crate::chain::{Chain, Plan, genesis_time, key, prove};

pub(crate) type Lie<T> = Mutex<Option<Box<dyn Fn(&mut T) + Send>>>;

pub(crate) struct Node {
    pub(crate) chain: Mutex<Chain>,
    pub(crate) genesis: Arc<str>,
    /// What was handed in, in order.
    pub(crate) broadcasts: Mutex<Vec<(Vec<u8>, Wait)>>,
    pub(crate) seen: Mutex<BTreeSet<Vec<u8>>>,
    /// Evidence that was handed in, in order.
    pub(crate) evidence: Mutex<Vec<lockstep_types::Evidence>>,
    pub(crate) index: bool,
    /// Reads of path `/gate` wait for a message here.
    pub(crate) gate: Mutex<Option<mpsc::Receiver<()>>>,
    pub(crate) lie_query: Lie<AppAnswer>,
    pub(crate) lie_commit: Lie<CommitAnswer>,
    pub(crate) lie_set: Lie<ValidatorSet>,
    pub(crate) lie_results: Lie<BlockResults>,
    pub(crate) lie_tx: Lie<TxAnswer>,
}

pub(crate) const GENESIS: &str = r#"{"genesis_time":"2024-01-02T03:04:05Z","chain_id":"dockerchain","initial_height":"1","consensus_params":{"block":{"max_bytes":"22020096","max_gas":"-1"},"evidence":{"max_age_num_blocks":"1","max_age_duration":"86400000000000","max_bytes":"1048576"},"validator":{"pub_key_types":["ed25519"]},"version":{"app":"0"},"abci":{"vote_extensions_enable_height":"0"}},"validators":[{"address":"6D3AB96DF4DA7CD4EB9F50C6E9DC5CB9C6A5DB93","pub_key":{"type":"tendermint/PubKeyEd25519","value":"iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="},"power":"10","name":""}],"app_hash":"","app_state":{}}"#;

impl Node {
    pub(crate) fn new(chain: Chain) -> Self {
        Self {
            chain: Mutex::new(chain),
            genesis: GENESIS.into(),
            broadcasts: Mutex::default(),
            seen: Mutex::default(),
            evidence: Mutex::default(),
            index: true,
            gate: Mutex::default(),
            lie_query: Mutex::default(),
            lie_commit: Mutex::default(),
            lie_set: Mutex::default(),
            lie_results: Mutex::default(),
            lie_tx: Mutex::default(),
        }
    }

    pub(crate) async fn serve(self) -> (Arc<Self>, Server, SocketAddr) {
        self.serve_with(Options::default()).await
    }

    pub(crate) async fn serve_with(self, options: Options) -> (Arc<Self>, Server, SocketAddr) {
        let node = Arc::new(self);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = serve(listener, Arc::clone(&node) as Arc<dyn Backend>, options).unwrap();
        let addr = server.local_addr();
        (node, server, addr)
    }

    fn at<T>(&self, height: Height, read: impl Fn(&Chain, usize) -> T) -> Option<T> {
        let chain = self.chain.lock().unwrap();
        (chain.base..=chain.tip()).contains(&height.get()).then(|| read(&chain, height.get() as usize - 1))
    }
}

fn told<T>(lie: &Lie<T>, mut truth: T) -> T {
    if let Some(lie) = &*lie.lock().unwrap() {
        lie(&mut truth);
    }
    truth
}

pub(crate) fn node_info(seed: u8) -> NodeInfo {
    NodeInfo {
        id: NodeId([seed; 20]),
        listen_addr: "tcp://127.0.0.1:26656".into(),
        chain_id: lockstep_types::ChainId::new("dockerchain").unwrap(),
        app_version: 1,
        moniker: "node".into(),
        tx_index: true,
        rpc_address: "tcp://127.0.0.1:26657".into(),
        software: "lockstep/0.1.0".into(),
    }
}

impl Backend for Node {
    fn heights(&self) -> Heights {
        let chain = self.chain.lock().unwrap();
        let height = |h| Height::new(h).unwrap();
        let base = if chain.tip() == 0 { 0 } else { chain.base };
        Heights {
            base: height(base),
            headers: height(chain.headers.unwrap_or(base)),
            tip: height(chain.tip()),
            next: height(chain.tip() + 1),
        }
    }

    fn status(&self) -> Result<Status, ReadError> {
        let chain = self.chain.lock().unwrap();
        let end = |h: u64| {
            (chain.tip() > 0).then(|| {
                let header = chain.header(h);
                ChainEnd { height: header.height, hash: header.hash(), app_hash: header.app_hash.clone(), time: header.time }
            })
        };
        Ok(Status {
            node: node_info(0xab),
            latest: end(chain.tip()),
            earliest: end(chain.base),
            catching_up: false,
            validator_key: key(1).public_key(),
            power: Power::new(10).unwrap(),
        })
    }

    fn peers(&self) -> Vec<Peer> {
        let traffic = |bytes| Traffic { start: genesis_time(), bytes, messages: 3, rate: 7, idle: Duration::from_nanos(5) };
        vec![Peer {
            node: node_info(0xcd),
            outbound: true,
            remote_ip: "10.0.0.7".parse().unwrap(),
            connected: Duration::from_secs(2),
            sent: traffic(1_000),
            received: traffic(2_000),
        }]
    }

    fn genesis(&self) -> Arc<str> {
        Arc::clone(&self.genesis)
    }

    fn block(&self, height: Height) -> Result<Option<BlockAnswer>, ReadError> {
        Ok(self.at(height, |chain, at| chain.blocks[at].clone()))
    }

    fn meta(&self, height: Height) -> Result<Option<BlockMeta>, ReadError> {
        Ok(self.at(height, |chain, at| {
            let BlockAnswer { block_id, block } = &chain.blocks[at];
            let (size, num_txs) = (block.encode().len() as u64, block.txs.len() as u64);
            BlockMeta { block_id: *block_id, size, header: block.header.clone(), num_txs }
        }))
    }

    fn header(&self, height: Height) -> Result<Option<Header>, ReadError> {
        let chain = self.chain.lock().unwrap();
        let kept = chain.headers.unwrap_or(chain.base)..=chain.tip();
        Ok(kept.contains(&height.get()).then(|| chain.header(height.get()).clone()))
    }

    fn height_of(&self, hash: &Hash) -> Result<Option<Height>, ReadError> {
        let chain = self.chain.lock().unwrap();
        Ok(chain.blocks.iter().find(|block| block.block_id.hash == *hash).map(|block| block.block.header.height))
    }

    fn commit(&self, height: Height) -> Result<Option<CommitAnswer>, ReadError> {
        let header = self.header(height)?;
        let chain = self.chain.lock().unwrap();
        let canonical = height.get() < chain.tip();
        let answer = header.map(|header| CommitAnswer { header, commit: chain.commits[height.get() as usize - 1].clone(), canonical });
        Ok(answer.map(|answer| told(&self.lie_commit, answer)))
    }

    fn results(&self, height: Height) -> Result<Option<BlockResults>, ReadError> {
        let answer = self.at(height, |chain, at| chain.results[at].clone());
        Ok(answer.map(|answer| told(&self.lie_results, answer)))
    }

    fn validators(&self, height: Height) -> Result<Option<ValidatorSet>, ReadError> {
        let chain = self.chain.lock().unwrap();
        Ok(chain.sets.get(height.get() as usize - 1).cloned().map(|set| told(&self.lie_set, set)))
    }

    fn params(&self, _: Height) -> Result<Option<ConsensusParams>, ReadError> {
        Ok(Some(self.chain.lock().unwrap().params.clone()))
    }

    fn tx(&self, hash: &Hash) -> Result<Option<TxAnswer>, ReadError> {
        if !self.index {
            return Err(ReadError::NoIndex);
        }
        let chain = self.chain.lock().unwrap();
        let found = chain.blocks.iter().zip(&chain.results).find_map(|(block, results)| {
            let place = block.block.txs.iter().position(|tx| tx.hash() == *hash)?;
            Some(TxAnswer {
                height: block.block.header.height,
                index: place as u32,
                result: results.tx_results[place].clone(),
                tx: block.block.txs[place].clone(),
            })
        });
        Ok(found.map(|found| told(&self.lie_tx, found)))
    }

    fn app_info(&self) -> Result<AppInfo, ReadError> {
        let chain = self.chain.lock().unwrap();
        Ok(AppInfo {
            data: r#"{"size":2}"#.into(),
            version: "2.0.0".into(),
            app_version: 1,
            last_block_height: Height::new(chain.tip()).unwrap(),
            last_block_app_hash: crate::chain::root(chain.states.last().unwrap()).into(),
        })
    }

    fn app_query(&self, query: AppQuery) -> Result<AppAnswer, ReadError> {
        match query.path.as_str() {
            "/panic" => panic!("a fault of the node"),
            "/fail" => return Err(ReadError::Failed("the disk is on fire".into())),
            "/gate" => self.gate.lock().unwrap().as_ref().unwrap().recv().unwrap(),
            _ => {}
        }
        let chain = self.chain.lock().unwrap();
        let height = if query.height == Height::ZERO { chain.tip() } else { query.height.get() };
        let state = &chain.states[height as usize];
        let value = state.get(&query.data).cloned().unwrap_or_default();
        let proof = ProofOp { kind: PROOF_OP_TYPE.into(), key: query.data.clone(), data: prove(state, &query.data).to_bytes() };
        let log = if value.is_empty() { "does not exist" } else { "exists" };
        let answer = AppAnswer {
            log: log.into(),
            key: query.data.clone(),
            value,
            proof_ops: query.prove.then(|| vec![proof]),
            height: Height::new(height).unwrap(),
            ..AppAnswer::default()
        };
        Ok(told(&self.lie_query, answer))
    }

    fn unconfirmed(&self, limit: usize) -> Unconfirmed {
        let txs = ["x=1", "y=22"].map(|tx| Tx(tx.into()));
        Unconfirmed { total: 2, total_bytes: 7, txs: txs.into_iter().take(limit).collect() }
    }

    fn check_tx(&self, tx: Vec<u8>) -> BoxFuture<Result<TxResult, BroadcastError>> {
        Box::pin(async move { Ok(check(&tx)) })
    }

    /// Evidence of height 9 is refused.
    fn broadcast_evidence(&self, evidence: lockstep_types::Evidence) -> BoxFuture<Result<Hash, BroadcastError>> {
        let answer = match evidence.height().get() {
            9 => Err(BroadcastError::Unavailable("it expired: it is of height 9".into())),
            _ => Ok(evidence.hash()),
        };
        self.evidence.lock().unwrap().push(evidence);
        Box::pin(async move { answer })
    }

    /// Transactions say themselves what becomes of them.
    fn broadcast(&self, tx: Vec<u8>, wait: Wait) -> BoxFuture<Result<BroadcastAnswer, BroadcastError>> {
        self.broadcasts.lock().unwrap().push((tx.clone(), wait));
        let refused = match tx.as_slice() {
            b"full" => Some(BroadcastError::Full { txs: 5, txs_max: 5, bytes: 70, bytes_max: 80 }),
            b"large" => Some(BroadcastError::TooLarge { len: 5, max: 4 }),
            b"syncing" => Some(BroadcastError::Unavailable("the node is catching up".into())),
            _ if !self.seen.lock().unwrap().insert(tx.clone()) => Some(BroadcastError::InCache),
            _ => None,
        };
        if let Some(error) = refused {
            return Box::pin(async move { Err(error) });
        }
        if tx == b"never" && wait == Wait::Commit {
            return Box::pin(std::future::pending());
        }
        let check = if wait == Wait::Async { TxResult::default() } else { check(&tx) };
        let committed = (wait == Wait::Commit && check.code == 0).then(|| {
            let mut chain = self.chain.lock().unwrap();
            let text: &'static str = String::from_utf8(tx).unwrap().leak();
            chain.push(Plan { txs: vec![text], ..Plan::default() });
            let (height, result) = (chain.tip(), chain.results.last().unwrap().tx_results[0].clone());
            chain.push(Plan::default());
            Committed { height: Height::new(height).unwrap(), result }
        });
        Box::pin(async move { Ok(BroadcastAnswer { check, committed }) })
    }
}

/// `key=value` passes.
fn check(tx: &[u8]) -> TxResult {
    let valid = tx.iter().filter(|byte| **byte == b'=').count() == 1;
    TxResult { code: if valid { 0 } else { 2 }, gas_wanted: i64::from(valid), ..TxResult::default() }
}
