//! The pool of this replica: submissions, gossip and what clients are told.

use std::collections::BTreeMap;

use lockstep_app::Verdict;
use lockstep_mempool::{CheckVerdict, Forward, Limits, Mempool, Origin, PoolTx, Refused, Settled, TxBytes};
use lockstep_types::{Block, Hash};

use crate::chain::ChainState;
use crate::effects::Effects;
use crate::seam::{Effect, Lane, Outcome, Peer, Reply, Report, RequestId, Ticket, Wait};
use crate::wire::{ENVELOPE_BYTES_MAX, FRAME_BYTES_MAX, GOSSIP_BYTES_MAX, Message, TXS_MAX, TxBatch};

/// Clients waiting at once. Further ones are refused, so that nobody can make us remember without end.
pub const WAITING_MAX: usize = 20_000;
/// A block without transactions and signatures: a header is at most 600 bytes, and the counts and block id of a commit 100.
const EMPTY_BLOCK_BYTES_MAX: usize = 1_024;
/// A slot of the last commit.
const SLOT_BYTES_MAX: usize = 1 + 20 + 12 + 64;
/// Stands for "everybody" among the pool's peers: transactions of our clients are told once, to all.
const EVERYBODY: u64 = u64::MAX;

/// A client that waits.
#[derive(Debug)]
struct Waiting {
    request: RequestId,
    wait: Wait,
    /// Once the check passed.
    verdict: Option<Verdict>,
}

/// The pool and those who wait for it.
#[derive(Debug)]
pub struct Pool {
    mempool: Mempool,
    waiting: BTreeMap<Hash, Vec<Waiting>>,
    /// Which transaction a client waits for.
    requests: BTreeMap<RequestId, Hash>,
    /// Largest transaction that this node takes, whatever a block holds.
    max_tx_bytes: usize,
}

impl Pool {
    /// An empty pool.
    pub fn new(limits: Limits) -> Self {
        // What does not fit a batch could never be told to anybody.
        let max_tx_bytes = limits.max_tx_bytes.min(GOSSIP_BYTES_MAX - ENVELOPE_BYTES_MAX);
        let mut mempool = Mempool::new(Limits { max_tx_bytes, ..limits });
        mempool.peer_up(EVERYBODY);
        Self { mempool, waiting: BTreeMap::new(), requests: BTreeMap::new(), max_tx_bytes }
    }

    /// The bounds of the next block. What no block can hold would wait for ever, and the chain would not rest while it waits.
    pub fn set_block_bounds(&mut self, chain: &ChainState, fx: &mut Effects) {
        let beside = EMPTY_BLOCK_BYTES_MAX + SLOT_BYTES_MAX * chain.last_validators.len().max(chain.validators.len());
        let body = usize::try_from(chain.params.block.max_bytes).unwrap_or(usize::MAX);
        let max_tx_bytes = self.max_tx_bytes.min(body.saturating_sub(beside));
        for gone in self.mempool.set_block_bounds(max_tx_bytes, chain.params.block.max_gas) {
            self.answer_all(&gone.hash, |_| Err(format!("the transaction left the mempool: {:?}", gone.why)), fx);
        }
    }

    /// The pool itself, to read.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// Whether a block built now would have a transaction.
    pub fn has_executable(&self) -> bool {
        self.mempool.has_executable()
    }

    /// Transactions for a block.
    pub fn reap(&self, max_bytes: usize, max_gas: i64) -> Vec<TxBytes> {
        self.mempool.reap(max_bytes, max_gas, lockstep_types::block::TXS_MAX).into_iter().map(|tx| tx.bytes).collect()
    }

    /// A client submits. The transaction to check, if it is one.
    pub fn submit(&mut self, request: RequestId, tx: TxBytes, wait: Wait, fx: &mut Effects) -> Option<(Hash, TxBytes)> {
        let refuse = |hash, reason: String, fx: &mut Effects| {
            fx.push(Effect::Reply { request, after: Vec::new(), reply: Reply::Refused { hash, reason } });
            None
        };
        if self.requests.len() >= WAITING_MAX {
            return refuse(Hash::of(&tx), format!("{WAITING_MAX} clients are waiting for transactions; submit it again later"), fx);
        }
        match self.mempool.begin(tx.clone(), Origin::Client) {
            Err(refused) => refuse(Hash::of(&tx), refused.to_string(), fx),
            Ok(hash) => {
                if wait == Wait::Admission {
                    fx.push(Effect::Reply { request, after: Vec::new(), reply: Reply::Checked { hash, verdict: None } });
                } else {
                    self.waiting.entry(hash).or_default().push(Waiting { request, wait, verdict: None });
                    self.requests.insert(request, hash);
                }
                Some((hash, tx))
            }
        }
    }

    /// A client gave up waiting.
    pub fn abandon(&mut self, request: RequestId) {
        let Some(hash) = self.requests.remove(&request) else { return };
        let waiting = self.waiting.get_mut(&hash).expect("who waits stands in both maps");
        waiting.retain(|one| one.request != request);
        if waiting.is_empty() {
            self.waiting.remove(&hash);
        }
    }

    /// Everybody who waits for a transaction, who from now on does not.
    fn release(&mut self, hash: &Hash) -> Vec<Waiting> {
        let waiting = self.waiting.remove(hash).unwrap_or_default();
        for one in &waiting {
            self.requests.remove(&one.request);
        }
        waiting
    }

    /// A peer sent transactions; those to check.
    pub fn receive(&mut self, peer: Peer, batch: TxBatch) -> Vec<(Hash, TxBytes)> {
        let begin = |tx: TxBytes| self.mempool.begin(tx.clone(), Origin::Peer(peer.0)).ok().map(|hash| (hash, tx));
        batch.0.into_iter().filter_map(begin).collect()
    }

    /// The application judged a new transaction. True when it is in the pool now.
    pub fn settle(&mut self, hash: Hash, verdict: &Verdict, fx: &mut Effects) -> bool {
        match self.mempool.settle(hash, &check_verdict(verdict)) {
            Settled::Added { removed } => {
                for gone in removed {
                    self.answer_all(&gone.hash, |_| Err(format!("the transaction was evicted from the mempool: {:?}", gone.why)), fx);
                }
                self.checked(hash, verdict, fx);
                true
            }
            Settled::Rejected => {
                self.answer_all(&hash, |_| Ok(Reply::Checked { hash, verdict: Some(Box::new(verdict.clone())) }), fx);
                false
            }
            Settled::Refused(refused) => {
                self.answer_all(&hash, |_| Err(refused.to_string()), fx);
                false
            }
            Settled::Unknown => {
                // A block committed it while it was being checked; those who wait for the commit were answered then.
                self.answer_all(&hash, |_| Err(Refused::AlreadyInCache.to_string()), fx);
                false
            }
        }
    }

    /// The check passed: those who wait for no more are answered.
    fn checked(&mut self, hash: Hash, verdict: &Verdict, fx: &mut Effects) {
        for mut one in self.release(&hash) {
            if one.wait == Wait::Check {
                let reply = Reply::Checked { hash, verdict: Some(Box::new(verdict.clone())) };
                fx.push(Effect::Reply { request: one.request, after: Vec::new(), reply });
            } else {
                one.verdict = Some(verdict.clone());
                self.requests.insert(one.request, hash);
                self.waiting.entry(hash).or_default().push(one);
            }
        }
    }

    fn answer_all(&mut self, hash: &Hash, reply: impl Fn(&Waiting) -> Result<Reply, String>, fx: &mut Effects) {
        for one in self.release(hash) {
            let reply = reply(&one).unwrap_or_else(|reason| Reply::Refused { hash: *hash, reason });
            fx.push(Effect::Reply { request: one.request, after: Vec::new(), reply });
        }
    }

    /// A block was executed; `decision` is its write. Those who waited for it are answered once that is durable. Returns
    /// what to check again.
    pub fn commit(&mut self, block: &Block, outcome: &Outcome, decision: Option<Ticket>, fx: &mut Effects) -> Vec<PoolTx> {
        let hashes: Vec<Hash> = block.txs.iter().map(lockstep_types::Tx::hash).collect();
        for (hash, result) in hashes.iter().zip(outcome.results.iter()) {
            for one in self.release(hash) {
                let verdict = Box::new(one.verdict.unwrap_or_default());
                let reply = Reply::Committed { hash: *hash, verdict, height: outcome.height, result: Box::new(result.clone()) };
                fx.push(Effect::Reply { request: one.request, after: decision.into_iter().collect(), reply });
            }
        }
        let again = self.mempool.commit(hashes.into_iter().zip(outcome.results.iter().map(|result| result.code)));
        self.report(fx);
        again
    }

    /// The verdict on a transaction in the pool.
    pub fn recheck(&mut self, hash: &Hash, verdict: &Verdict, fx: &mut Effects) {
        if let Some(gone) = self.mempool.recheck_result(hash, &check_verdict(verdict)) {
            let code = verdict.code;
            self.answer_all(hash, |_| Err(format!("the transaction no longer passes its check (code {code}): {:?}", gone.why)), fx);
        }
    }

    /// Tells everybody what our clients submitted since the last time.
    pub fn gossip(&mut self, fx: &mut Effects) {
        loop {
            let batch = self.mempool.next_batch(EVERYBODY, Forward::OwnOnly, GOSSIP_BYTES_MAX - ENVELOPE_BYTES_MAX, TXS_MAX);
            if batch.is_empty() {
                return;
            }
            fx.broadcast(Lane::Gossip, &Message::Txs(TxBatch(batch.into_iter().map(|tx| tx.bytes).collect())));
        }
    }

    /// A peer came: it is told what our clients submitted before. What is longer than a frame reaches it in a block.
    pub fn welcome(&mut self, peer: Peer, fx: &mut Effects) {
        self.mempool.peer_up(peer.0);
        let mut frames = 0;
        while frames < WELCOME_FRAMES_MAX {
            let batch = self.mempool.next_batch(peer.0, Forward::OwnOnly, FRAME_BYTES_MAX - ENVELOPE_BYTES_MAX, TXS_MAX);
            if batch.is_empty() {
                break;
            }
            let txs: Vec<TxBytes> =
                batch.into_iter().map(|tx| tx.bytes).filter(|tx| tx.len() < FRAME_BYTES_MAX - ENVELOPE_BYTES_MAX).collect();
            fx.send(peer, Lane::Bulk, &Message::Txs(TxBatch(txs)));
            frames += 1;
        }
        self.mempool.peer_down(peer.0);
    }

    /// Tells readers how full the pool is.
    pub fn report(&self, fx: &mut Effects) {
        fx.report(Report::Mempool { txs: self.mempool.len(), bytes: self.mempool.bytes() });
    }
}

impl crate::Replica {
    /// The node leaves: every peer is told once more what our clients submitted and no block has, over the stream to it. What was
    /// told to all before may have been lost on its way, and nobody tells it after us.
    pub fn hand_over(&mut self) -> Vec<Effect> {
        let peers: Vec<Peer> = self.peers.iter().map(|(peer, _)| peer).collect();
        for peer in peers {
            self.pool.welcome(peer, &mut self.fx);
        }
        self.fx.take()
    }
}

/// Frames that a new peer is welcomed with: what the bulk lane's queue takes without a slow peer losing votes' room.
const WELCOME_FRAMES_MAX: usize = 64;

/// The part of a verdict that the pool's order depends on.
fn check_verdict(verdict: &Verdict) -> CheckVerdict {
    CheckVerdict {
        code: verdict.code,
        gas_wanted: verdict.gas_wanted,
        priority: verdict.priority,
        sender: verdict.sender.clone().unwrap_or_default(),
        nonce: verdict.nonce,
        next_nonce: verdict.next_nonce,
    }
}
