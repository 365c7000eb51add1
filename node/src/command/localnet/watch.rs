//! What the validators say of themselves, asked a few times a second.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockstep_types::Address;
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Node;
use crate::http::{Connection, Endpoint};
use crate::metrics::HeldBack;

/// Between two questions to a validator.
const POLL: Duration = Duration::from_millis(500);
/// Before anyone has answered, people wait.
const POLL_FIRST: Duration = Duration::from_millis(50);
/// A validator that takes longer is shown as silent.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Rates are means over this time.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Blocks of one `blockchain` answer.
const METAS: u64 = 20;
/// Most blocks counted one by one after each poll; of more, the last of these stand for all.
const COUNTED_MAX: u64 = 400;

/// What a validator answered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) height: u64,
    /// The round in which that height was decided.
    pub(super) round: u32,
    pub(super) peers: u64,
    pub(super) mempool: u64,
    pub(super) catching_up: bool,
    /// Why it signs nothing, if so.
    pub(super) held_back: Option<HeldBack>,
}

/// Blocks and transactions per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) blocks: f64,
    pub(super) txs: f64,
}

/// Who decides the next block, and with which power.
pub(super) type Powers = BTreeMap<Address, u64>;

#[derive(Default)]
struct Shared {
    snapshots: Vec<Option<Snapshot>>,
    /// As the node says that is furthest, after its height; nothing before one has said so.
    validators: (u64, Powers),
    was_up: Vec<bool>,
    chain: Chain,
}

/// The highest height anyone told of, and the transactions up to it since we look.
#[derive(Default)]
struct Chain {
    /// None until somebody answered.
    height: Option<u64>,
    txs: u64,
    history: VecDeque<(Instant, u64, u64)>,
}

/// Asks all validators until it is dropped.
pub(super) struct Watch {
    endpoints: Vec<Endpoint>,
    shared: Arc<Mutex<Shared>>,
    tasks: JoinSet<()>,
}

impl Watch {
    /// Begins to ask. Must run within a tokio runtime.
    pub(super) fn start(nodes: &[Node]) -> Self {
        let shared =
            Arc::new(Mutex::new(Shared { snapshots: vec![None; nodes.len()], was_up: vec![false; nodes.len()], ..Shared::default() }));
        let endpoints: Vec<Endpoint> =
            nodes.iter().map(|node| Endpoint::parse(&node.rpc.to_string()).expect("an address and a port")).collect();
        let mut tasks = JoinSet::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            tasks.spawn(watch(index, endpoint.clone(), Arc::clone(&shared)));
        }
        Self { endpoints, shared, tasks }
    }

    /// Stops asking, after each has been asked once more.
    pub(super) async fn finish(&mut self) {
        self.tasks.shutdown().await;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            look(index, endpoint, &self.shared, &mut None).await;
        }
    }

    /// The last answers; none from those that are silent.
    pub(super) fn snapshots(&self) -> Vec<Option<Snapshot>> {
        lock(&self.shared).snapshots.clone()
    }

    /// Who decides the next block; empty where nobody has said so far.
    pub(super) fn validators(&self) -> Powers {
        lock(&self.shared).validators.1.clone()
    }

    /// Validators that have not answered once.
    pub(super) fn never_up(&self) -> Vec<usize> {
        lock(&self.shared).was_up.iter().enumerate().filter(|(_, up)| !**up).map(|(index, _)| index).collect()
    }

    /// Height, and transactions seen.
    pub(super) fn chain(&self) -> (u64, u64) {
        let shared = lock(&self.shared);
        (shared.chain.height.unwrap_or(0), shared.chain.txs)
    }

    /// Rates of late.
    pub(super) fn rates(&self) -> Rates {
        let shared = lock(&self.shared);
        let (Some(first), Some(last)) = (shared.chain.history.front(), shared.chain.history.back()) else { return Rates::default() };
        let seconds = Instant::now().duration_since(first.0).as_secs_f64();
        if seconds < 0.5 {
            return Rates::default();
        }
        let rate = |now: u64, then: u64| f64::from(u32::try_from(now.saturating_sub(then)).unwrap_or(u32::MAX)) / seconds;
        Rates { blocks: rate(last.1, first.1), txs: rate(last.2, first.2) }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(index: usize, endpoint: Endpoint, shared: Arc<Mutex<Shared>>) {
    let mut connection = None;
    loop {
        look(index, &endpoint, &shared, &mut connection).await;
        let up = lock(&shared).was_up[index];
        sleep(if up { POLL } else { POLL_FIRST }).await;
    }
}

/// Asks a validator once.
async fn look(index: usize, endpoint: &Endpoint, shared: &Mutex<Shared>, connection: &mut Option<Connection>) {
    let (answered, validators) = timeout(ANSWER_WAIT, ask(connection, endpoint)).await.ok().flatten().unzip();
    if answered.is_none() {
        *connection = None;
    }
    let known = {
        let mut shared = lock(shared);
        shared.snapshots[index] = answered;
        shared.was_up[index] |= answered.is_some();
        if let (Some(snapshot), Some(Some(validators))) = (answered, validators)
            && snapshot.height >= shared.validators.0
        {
            shared.validators = (snapshot.height, validators);
        }
        shared.chain.height
    };
    let (Some(snapshot), Some(connection)) = (answered, connection) else { return };
    // Whoever is first with a new height counts what lies between. What was there before we looked is no rate of ours.
    let txs = match known {
        None => 0,
        Some(known) if known >= snapshot.height => return,
        Some(known) => match timeout(ANSWER_WAIT, count_txs(connection, known, snapshot.height)).await {
            Ok(Some(txs)) => txs,
            _ => return,
        },
    };
    let mut shared = lock(shared);
    if shared.chain.height == known {
        shared.chain.advance(snapshot.height, txs);
    }
}

impl Chain {
    fn advance(&mut self, height: u64, txs: u64) {
        let now = Instant::now();
        self.txs += txs;
        self.height = Some(height);
        self.history.push_back((now, height, self.txs));
        while self.history.len() > 2 && now.duration_since(self.history[1].0) > RATE_WINDOW {
            self.history.pop_front();
        }
    }
}

#[derive(Deserialize)]
struct Reply {
    id: u64,
    result: Option<serde_json::Value>,
}

/// One batch: status, net_info, num_unconfirmed_txs, commit, validators; and the metrics.
async fn ask(connection: &mut Option<Connection>, endpoint: &Endpoint) -> Option<(Snapshot, Option<Powers>)> {
    const QUESTIONS: &str = r#"[{"jsonrpc":"2.0","id":0,"method":"status"},{"jsonrpc":"2.0","id":1,"method":"net_info"},{"jsonrpc":"2.0","id":2,"method":"num_unconfirmed_txs"},{"jsonrpc":"2.0","id":3,"method":"commit"},{"jsonrpc":"2.0","id":4,"method":"validators","params":{"per_page":"100"}}]"#;
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(endpoint).await.ok()?),
    };
    let replies: Vec<Reply> = serde_json::from_slice(open.post(QUESTIONS.as_bytes()).await.ok()?).ok()?;
    let held_back = open.held_back().await?;
    let member = |id: u64, path: &str| replies.iter().find(|reply| reply.id == id)?.result.as_ref()?.pointer(path).cloned();
    let decimal = |id: u64, path: &str| member(id, path)?.as_str()?.parse::<u64>().ok();
    let snapshot = Snapshot {
        height: decimal(0, "/sync_info/latest_block_height")?,
        catching_up: member(0, "/sync_info/catching_up")?.as_bool()?,
        held_back,
        peers: decimal(1, "/n_peers").unwrap_or(0),
        mempool: decimal(2, "/total").unwrap_or(0),
        round: member(3, "/signed_header/commit/round").and_then(|round| u32::try_from(round.as_u64()?).ok()).unwrap_or(0),
    };
    Some((snapshot, member(4, "").as_ref().and_then(powers)))
}

/// The set in an answer to `validators`, if all of it is there.
fn powers(answer: &serde_json::Value) -> Option<Powers> {
    let text = |value: &serde_json::Value, name: &str| value.get(name).and_then(|found| found.as_str().map(str::to_owned));
    let one = |one: &serde_json::Value| Some((text(one, "address")?.parse().ok()?, text(one, "voting_power")?.parse().ok()?));
    let set: Powers = answer.get("validators")?.as_array()?.iter().map(one).collect::<Option<_>>()?;
    (text(answer, "total")?.parse() == Ok(set.len())).then_some(set)
}

/// Transactions of the blocks above `known`, up to `height`.
async fn count_txs(connection: &mut Connection, known: u64, height: u64) -> Option<u64> {
    let new = height - known;
    let counted = new.min(COUNTED_MAX);
    let (mut txs, mut top) = (0_u64, height);
    while top > height - counted {
        let bottom = top.saturating_sub(METAS).max(height - counted);
        let question =
            format!(r#"{{"jsonrpc":"2.0","id":0,"method":"blockchain","params":{{"minHeight":"{}","maxHeight":"{top}"}}}}"#, bottom + 1);
        let reply: Reply = serde_json::from_slice(connection.post(question.as_bytes()).await.ok()?).ok()?;
        let result = reply.result?;
        for meta in result.pointer("/block_metas")?.as_array()? {
            txs += meta.get("num_txs")?.as_str()?.parse::<u64>().ok()?;
        }
        top = bottom;
    }
    Some(txs.saturating_mul(new) / counted)
}
