//! What is asked of a run beside its events: clients that read, the naive verifier at its end, and the lines of its trace.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_app::Query;
use lockstep_app::node_tx::is_node_tx;
use lockstep_replica::seam::Reply;
use lockstep_replica::wire::{Message, WIRE_VERSION};
use lockstep_types::codec;
use lockstep_types::crypto::SignatureCheck;
use lockstep_types::{Address, Block, BlockId, Hash, PublicKey, Signature, Vote, VoteType};

use super::{Outcome, What, World, violation};
use crate::members::HostModel;
use crate::naive::{AppModel, Beginning, Judge, Kept, KvModel, Model, Time, Wrong, read_log, signature_holds};
use crate::node::LOG;
use crate::plan::MS;
use crate::trace::{Line, State, Told};

/// One seed in so many has every signature of its chain judged by another crate; the others ask the verdict of the run.
const CURVE_EVERY: u64 = 4;
/// Until everybody has heard of a transaction and has it in its next block, beside what the links take.
const HEARS_NS: u64 = 50 * MS;
/// Blocks after the faults ended in which rounds may still fail for what was before.
const SETTLED_BLOCKS: u64 = 2;
/// Keys that clients read, of those that they write.
const KEYS: u64 = 44;

impl World {
    /// A client asks a node for a key.
    pub(super) fn query(&mut self) -> Outcome {
        let node = self.readers.place(self.machines.len());
        let key = format!("key{}", self.readers.below(KEYS)).into_bytes();
        let delay = self.readers.between(MS, 4 * self.plan.tx_interval) * self.patience();
        self.first_at(self.now + delay, What::Query);
        let is_awake = self.machines[node].frozen_until <= self.now;
        // What a failed memory says until that is found, nobody can know to be wrong.
        let is_right = !self.is_astray(node);
        let Some(running) = self.machines[node].running.as_ref().filter(|_| is_awake && is_right) else { return Ok(()) };
        let query = Query { path: "", data: &key, height: None, prove: false };
        let answer = running.executor.host().query(&running.readable, &query);
        if !self.subject.is_kv {
            // Nobody here knows what it should have said; that it does not panic is seen elsewhere.
            return Ok(());
        }
        self.history.answered(node, &key, answer.height.get(), answer.value.as_deref())
    }

    /// What a block wrote, where its application is modelled.
    pub(super) fn remember(&mut self, block: &Arc<Block>) {
        let height = block.header.height.get();
        block.txs.iter().for_each(|tx| self.history.let_go(&tx.hash()));
        if !self.history.is_next(height) {
            return;
        }
        self.history.block(height);
        if !self.subject.is_kv {
            return;
        }
        for tx in block.txs.iter().filter(|tx| !is_node_tx(&tx.0)) {
            if let Some(at) = tx.0.iter().position(|byte| matches!(byte, b'=' | b':')) {
                self.history.wrote(height, &tx.0[..at], &tx.0[at + 1..]);
            }
        }
    }

    /// A client heard what became of its transaction, or that it will be in no block.
    pub(super) fn answered(&mut self, reply: &Reply) {
        match reply {
            // What was executed before is answered with where that was.
            Reply::Refused { hash, .. } | Reply::Committed { hash, .. } => self.history.let_go(hash),
            Reply::Checked { hash, verdict: Some(verdict) } if !verdict.is_ok() => self.history.let_go(hash),
            _ => {}
        }
    }

    /// I8, in the end: nobody starves; and of how many rounds after the faults ended honest proposers made a block.
    fn count_led(&mut self, judge: &Judge<impl Model>, longest: &[Kept]) -> Outcome {
        // The first blocks after the heal are those of rounds that began before it.
        let first = self.goal.saturating_sub(self.plan.settle_blocks) + SETTLED_BLOCKS;
        let addresses: Vec<Option<Address>> =
            self.machines.iter().map(|machine| machine.key.as_ref().map(|key| key.public_key().address())).collect();
        for kept in longest.iter().filter(|kept| (first + 1..=self.goal).contains(&kept.height)) {
            let Some(round) = kept.round() else { continue };
            for led in 0..=round {
                let proposer = judge.proposer_of(kept.height, led).map(Address);
                let is_whole = self.core.iter().any(|node| proposer.is_some() && addresses[*node] == proposer);
                self.led.0 += u64::from(is_whole);
                self.led.1 += u64::from(is_whole && led == round);
            }
        }
        let seen_by_all = self.core.iter().map(|node| self.checks.told(*node)).min().unwrap_or(0);
        // Blocks may come faster than anybody hears of anything.
        let hears = 4 * (self.plan.latency.1 + self.plan.job_delay) + self.plan.reorder + HEARS_NS;
        self.history.nobody_starves(seen_by_all, self.now.saturating_sub(hears))
    }

    /// I1, I2, I3, I6: the chain in the files of each honest node, judged from genesis by the naive verifier.
    pub(super) fn judge_chains(&mut self) -> Outcome {
        let beginning = Beginning {
            chain_id: self.genesis.chain_id.as_str().to_owned(),
            time: Time { seconds: self.genesis.genesis_time.seconds(), nanos: self.genesis.genesis_time.nanos() },
            validators: self.genesis.validators.iter().map(|one| (one.public_key.0, one.power.get())).collect(),
            max_bytes: self.genesis.consensus_params.block.max_bytes,
            max_gas: self.genesis.consensus_params.block.max_gas,
            evidence: crate::naive::evidence_params(&self.genesis),
        };
        if crate::members::has_rules(&self.genesis.app_state) {
            return match HostModel::new(self.host.beside(self.subject.fresh()), &self.genesis) {
                Ok(model) => self.judge_with(&beginning, model),
                Err(what) => violation("I3", what),
            };
        }
        if self.subject.is_kv {
            let model = KvModel::new(&beginning.validators);
            return self.judge_with(&beginning, model);
        }
        match AppModel::new(self.subject.fresh(), self.subject.invariant.clone(), &self.genesis) {
            Ok((model, validators)) => self.judge_with(&Beginning { validators, ..beginning }, model),
            Err(what) => violation("I3", what),
        }
    }

    fn judge_with<M: Model>(&mut self, beginning: &Beginning, model: M) -> Outcome {
        let everybody_is_honest = (0..self.machines.len()).all(|node| self.is_honest(node));
        let mut judge = match Judge::new(beginning, model, everybody_is_honest) {
            Ok(judge) => judge,
            Err(what) => return violation("I3", what),
        };
        let mut chains = Vec::new();
        for node in (0..self.machines.len()).filter(|node| self.is_honest(*node) && !self.is_rotten(*node)) {
            if self.machines[node].running.is_some() {
                match self.kept(node) {
                    Ok(chain) => chains.push((node, chain)),
                    // What rots while a node runs is found when it is next read, and has a sound copy elsewhere.
                    Err(_) if self.machines[node].rot.times > 0 => {}
                    Err(what) => return violation("I2", format!("the log of node {node}: {what}")),
                }
            }
        }
        let (source, whole) = self.whole(&chains);
        let longest = &whole;
        if longest.is_empty() {
            return Ok(());
        }
        let by_curve = self.plan.real_keys && self.seed.is_multiple_of(CURVE_EVERY);
        let crypto = &mut self.crypto;
        // Each vote is met in a block, in its certificate, and in the certificates of other nodes.
        let mut met: BTreeMap<Hash, bool> = BTreeMap::new();
        let mut verdict = |key: &[u8; 32], message: &[u8], signature: &[u8; 64]| {
            if by_curve {
                let asked = Hash::of_parts(&[key, signature, message]);
                return *met.entry(asked).or_insert_with(|| signature_holds(key, message, signature));
            }
            let check = SignatureCheck { public_key: PublicKey(*key), message: message.to_vec(), signature: Signature(*signature) };
            crypto.verify(&[check]) == [true]
        };
        for Kept { body, commit, .. } in longest {
            judge.block(body, commit, &mut verdict).or_else(|wrong| {
                let invariant = if matches!(wrong, Wrong::Application(_)) { "I3" } else { "I2" };
                violation(invariant, format!("the chain {source}: {wrong}"))
            })?;
        }
        for (node, chain) in &chains {
            for theirs in chain {
                let Some(ours) = usize::try_from(theirs.height - 1).ok().and_then(|place| longest.get(place)) else { continue };
                if theirs.body != ours.body {
                    return violation("I1", format!("the log of node {node} differs at height {} from the chain {source}", ours.height));
                }
                if theirs.commit != ours.commit {
                    let judged = judge.certificate(theirs.height, &theirs.commit, &mut verdict);
                    judged.or_else(|what| violation("I2", format!("the chain of node {node}: {what}")))?;
                }
            }
        }
        self.count_led(&judge, longest)?;
        let root = judge.model().root();
        for (node, _) in &chains {
            let state = self.machines[*node].running.as_ref().map(|running| running.executor.state());
            if let Some(state) = state.filter(|state| state.height().get() == judge.height() && state.root().0 != root) {
                return violation("I6", format!("node {node} has root {} at height {}, the model another", state.root(), state.height()));
            }
        }
        Ok(())
    }

    /// The whole chain, and where it is from: the longest log; where logs do not begin with the chain, what nodes told their
    /// readers, and above that the log that reaches furthest.
    fn whole(&self, chains: &[(usize, Vec<Kept>)]) -> (String, Vec<Kept>) {
        let Some((node, longest)) = chains.iter().max_by_key(|(node, chain)| (chain.last().map(|kept| kept.height), Reverse(*node))) else {
            return (String::new(), Vec::new());
        };
        if longest.first().is_none_or(|first| first.height == 1) {
            return (format!("of node {node}"), longest.clone());
        }
        let told = |height: u64| {
            let (_, _, commit) = self.checks.decided(height)?;
            let body = self.checks.block(height)?.encode();
            // Behind the version of the record.
            Some(Kept { height, body, commit: codec::encode(WIRE_VERSION, commit) })
        };
        let mut whole: Vec<Kept> = (1..).map_while(told).collect();
        let above = whole.len() as u64;
        whole.extend(longest.iter().filter(|kept| kept.height > above).cloned());
        (format!("that was told, and of node {node}"), whole)
    }

    /// The chain in a node's files.
    fn kept(&self, node: usize) -> Result<Vec<Kept>, String> {
        let disk = &self.machines[node].disk;
        let mut paths: Vec<String> = disk.paths().into_iter().filter(|path| path.starts_with(LOG) && path.ends_with(".seg")).collect();
        paths.sort_unstable();
        let segments: Vec<Vec<u8>> = paths.iter().filter_map(|path| disk.bytes(path)).collect();
        let chain = read_log(&segments)?;
        match chain.first() {
            Some(first) if first.height > 1 && !self.plan.makes_checkpoints() => Err(format!("it begins with height {}", first.height)),
            _ => Ok(chain),
        }
    }

    /// Keeps a line of the trace, where there is one.
    pub(super) fn tell(&mut self, node: Option<usize>, event: Told, words: impl FnOnce() -> String) {
        let state = if self.trace.is_some() { self.state_of(node) } else { None };
        if let Some(trace) = &mut self.trace {
            trace.push(Line { t_ns: self.now, node, event, text: words(), from: None, sent_ns: None, state });
        }
    }

    fn state_of(&self, node: Option<usize>) -> Option<State> {
        let node = node?;
        let running = self.machines[node].running.as_ref()?;
        let consensus = running.replica.consensus();
        let chain = running.replica.chain();
        Some(State {
            height: running.replica.height().get(),
            round: consensus.round().get(),
            step: format!("{:?}", consensus.current_step()),
            locked_round: consensus.locked().map(|polka| polka.round.get()),
            valid_round: consensus.valid().map(|polka| polka.round.get()),
            committed: chain.height.get(),
            app_hash: chain.app_hash.to_string().chars().take(8).collect(),
            unsynced: running.unsynced.len() + running.guard_queue.len(),
            disk_operations: self.machines[node].disk.operations(),
            peers: running.peers.values().copied().collect(),
        })
    }

    /// A frame leaves: remembered until it arrives, for the drawing.
    pub(super) fn sent(&mut self, from: usize, to: usize, bytes: &Bytes) {
        if self.trace.is_some() {
            self.flights.insert((from, to, bytes.clone()), self.now);
        }
    }

    /// A frame arrives.
    pub(super) fn arrives(&mut self, from: usize, to: usize, bytes: &Bytes) {
        if self.trace.is_none() {
            return;
        }
        let sent_ns = self.flights.remove(&(from, to, bytes.clone()));
        let Some(text) = Message::decode(bytes).ok().and_then(|message| in_words(&message)) else { return };
        let line =
            Line { t_ns: self.now, node: Some(to), event: Told::Frame, text, from: Some(from), sent_ns, state: self.state_of(Some(to)) };
        self.trace.as_mut().expect("just seen").push(line);
    }
}

/// The first bytes of a block's name, as everywhere in a trace.
fn short(block: &BlockId) -> String {
    block.hash.0[..4].iter().map(|byte| format!("{byte:02X}")).collect()
}

/// A message of consensus; none for what only says who has what.
fn in_words(message: &Message) -> Option<String> {
    let vote = |vote: &Vote| {
        let kind = match vote.kind {
            VoteType::Prevote => "prevote",
            VoteType::Precommit => "precommit",
        };
        let block = vote.block_id.as_ref().map_or_else(|| "nil".to_owned(), short);
        format!("{kind} {}/{} {block} v{}", vote.height, vote.round, vote.validator)
    };
    match message {
        Message::Vote(one) => Some(vote(one)),
        Message::Votes(batch) => {
            let first = batch.0.first()?;
            Some(format!("{} and {} more", vote(first), batch.0.len() - 1))
        }
        Message::Proposal { proposal, .. } => {
            Some(format!("proposal {}/{} {}", proposal.height, proposal.round, short(&proposal.block_id)))
        }
        Message::Part { height, .. } => Some(format!("part {height}")),
        Message::Polka(polka) => Some(format!("polka {}/{} {}", polka.height, polka.round, short(&polka.block_id))),
        Message::Commit(commit) => Some(format!("commit {}/{} {}", commit.height, commit.round, short(&commit.block_id))),
        _ => None,
    }
}
