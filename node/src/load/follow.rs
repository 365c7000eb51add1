//! Following the chain: when was each transaction of a run committed?

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{Plan, request};
use crate::http::{Connection, Endpoint};
use crate::stop::StopSignal;

/// Between two looks for the next block: what it adds to a latency at most.
const POLL: Duration = Duration::from_millis(1);
/// Before an endpoint that does not answer is left for the next.
const PAUSE: Duration = Duration::from_millis(100);
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Reads every block from a height on and notes the transactions of a run in it.
pub(crate) struct Follower {
    plan: Arc<Plan>,
    start: Instant,
    /// How many of the run were seen so far.
    pub(crate) seen: Arc<AtomicU64>,
    next_height: u64,
    commits: Vec<(u64, Duration)>,
    repeated: u64,
    was_seen: Vec<u64>,
}

/// What a follower saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Transactions of the run, and when their block was read, from the start.
    pub(crate) commits: Vec<(u64, Duration)>,
    /// Transactions that were in more than one place: never, in a chain that keeps its promises.
    pub(crate) repeated: u64,
    /// First and last height that were read.
    pub(crate) heights: (u64, u64),
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    result: Option<Answer<'a>>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    block: Block<'a>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    txs: Vec<Text<'a>>,
}

/// Text that stays where it was received. In a list, a bare `Cow` would be copied.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct StatusReply {
    result: StatusAnswer,
}

#[derive(Deserialize)]
struct StatusAnswer {
    sync_info: SyncInfo,
}

#[derive(Deserialize)]
struct SyncInfo {
    latest_block_height: String,
}

/// The last height of a node.
pub(crate) async fn latest_height(endpoint: &Endpoint) -> Result<u64, String> {
    let asked = async {
        let mut connection = Connection::open(endpoint).await.map_err(|error| error.to_string())?;
        let answer = connection.post(br#"{"jsonrpc":"2.0","id":1,"method":"status"}"#).await.map_err(|error| error.to_string())?;
        let reply: StatusReply = serde_json::from_slice(answer).map_err(|error| format!("its status is not understood: {error}"))?;
        reply.result.sync_info.latest_block_height.parse().map_err(|_| "its status has no height".to_owned())
    };
    timeout(ANSWER_WAIT, asked).await.map_err(|_| "no answer".to_owned())?
}

impl Follower {
    /// Follows from the block after `height`.
    pub(crate) fn new(plan: Arc<Plan>, start: Instant, height: u64) -> Self {
        let words = usize::try_from(plan.total.div_ceil(64)).unwrap_or(usize::MAX);
        Self { plan, start, seen: Arc::default(), next_height: height + 1, commits: Vec::new(), repeated: 0, was_seen: vec![0; words] }
    }

    /// Follows until it is told to stop. An endpoint that fails is left for the next one.
    pub(crate) async fn run(mut self, mut stop: StopSignal) -> Seen {
        let first = self.next_height;
        let endpoints = self.plan.endpoints.clone();
        let mut at = 0;
        while !stop.is_stopped() {
            let endpoint = &endpoints[at % endpoints.len()];
            tokio::select! {
                () = self.follow(endpoint) => at += 1,
                () = stop.stopped() => break,
            }
            sleep(PAUSE).await;
        }
        Seen { commits: self.commits, repeated: self.repeated, heights: (first, self.next_height - 1) }
    }

    /// Returns when the endpoint fails.
    async fn follow(&mut self, endpoint: &Endpoint) {
        let Ok(mut connection) = Connection::open(endpoint).await else { return };
        loop {
            let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"block","params":{{"height":"{}"}}}}"#, self.next_height);
            let Ok(Ok(answer)) = timeout(ANSWER_WAIT, connection.post(body.as_bytes())).await else { return };
            let at = self.start.elapsed();
            let Ok(reply) = serde_json::from_slice::<Reply<'_>>(answer) else { return };
            match reply.result {
                Some(answer) => self.note(&answer.block.data.txs, at),
                // There is no such block yet.
                None => sleep(POLL).await,
            }
        }
    }

    fn note(&mut self, txs: &[Text<'_>], at: Duration) {
        self.next_height += 1;
        for tx in txs.iter().filter_map(|tx| request::recognize(self.plan.run, &tx.0)).filter(|tx| *tx < self.plan.total) {
            let (word, bit) = (usize::try_from(tx / 64).expect("below the length"), 1_u64 << (tx % 64));
            if self.was_seen[word] & bit != 0 {
                self.repeated += 1;
                continue;
            }
            self.was_seen[word] |= bit;
            self.commits.push((tx, at));
            self.seen.fetch_add(1, Ordering::Relaxed);
        }
    }
}
