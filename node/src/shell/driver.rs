//! The thread that owns the replica: takes what arrived, steps, carries effects out or hands them to the thread that does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lockstep_network::{Network, PeerNo, ReplyTo};
use lockstep_replica::audit::{self, Finding};
use lockstep_replica::seam::{AskId, JobId, Lane, Mono, Peer, Reply, Report, RequestId, Target, Timer, Write};
use lockstep_replica::{Effect, Fence, Input, Now, Replica};
use lockstep_storage::disk::Disk;
use lockstep_types::{PrivateKey, Time};
use tokio::sync::{oneshot, watch};

use super::disk::{GuardJob, LogJob, ReadJob};
use super::executor::{CheckTxsJob, ExecutorJob};
use super::inbox::{Inputs, Mail};
use super::publish::News;
use super::room::Room;
use super::stage::StageJob;
use super::verifier::{INLINE_MAX, Verifier};
use crate::metrics::Metrics;

/// Mail taken before timers are looked at again.
const BURST: usize = 256;
/// Steps that take longer than this hold up votes: they are told at the level debug.
const SLOW_STEP: Duration = Duration::from_millis(5);
/// How often the loop turns when nothing happens.
const IDLE: Duration = Duration::from_millis(500);

/// Messages that wait to be signed while there is no room on the disk: several rounds of a height, many times over.
const UNSIGNED_MAX: usize = 1_024;

/// Why a replica ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// For a reason of its own.
    Halted(String),
    /// Because nobody knows that its state is the chain's. It stays up to say so.
    InDoubt(String),
    /// Its home is to be opened again, which begins with the snapshot of this height then.
    Reopens(lockstep_types::Height),
    /// Its state after this height is not the chain's: its home is to be opened again, which heals it.
    Heals(lockstep_types::Height),
    /// Its state database is damaged: its home is to be opened again, which makes it anew.
    Mends(String),
}

/// Everything the replica's thread works with.
pub(crate) struct Driver {
    pub(crate) replica: Replica,
    pub(crate) key: Option<PrivateKey>,
    pub(crate) inputs: Inputs,
    pub(crate) network: Network,
    pub(crate) log: Sender<LogJob>,
    pub(crate) guard: Option<Sender<GuardJob>>,
    pub(crate) execute: Sender<ExecutorJob>,
    pub(crate) check: Sender<CheckTxsJob>,
    pub(crate) verifier: Verifier,
    pub(crate) read: Sender<ReadJob>,
    pub(crate) stage: Sender<StageJob>,
    pub(crate) publish: Sender<News>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) halted: watch::Sender<Option<End>>,
    /// The data folder.
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) room: Room,
}

/// How long a node that ends waits for its newest decision to be durable, so that its state can be written.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// What the loop keeps between turns.
#[derive(Default)]
struct Loop {
    fence: Fence,
    timers: BinaryHeap<Reverse<(Mono, u64, Timer)>>,
    timer_count: u64,
    /// Answers that were found on this very thread.
    answers: VecDeque<Input>,
    requests: BTreeMap<RequestId, oneshot::Sender<Reply>>,
    request_count: u64,
    asks: BTreeMap<AskId, ReplyTo>,
    ask_count: u64,
    /// Signature checks that this thread still does itself before it looks at the timers.
    inline_left: usize,
    /// Who is connected, as the replica knows it.
    peers: BTreeSet<Peer>,
    /// Requests of ours on the network, by its numbers.
    sent: BTreeMap<u64, JobId>,
    /// What is to be signed once there is room on the disk.
    unsigned: VecDeque<(JobId, Vec<u8>)>,
}

impl Driver {
    /// Runs until the inbox says stop or the replica halts.
    pub(crate) fn run(mut self) {
        let started = Instant::now();
        let mut at = Loop::default();
        let validators = self.replica.chain().validators.iter().chain(self.replica.chain().next_validators.iter());
        self.network.set_validators(validators.map(|validator| validator.public_key.0).collect());
        let effects = self.replica.start(now(started));
        self.perform_all(&mut at, effects);
        loop {
            at.inline_left = INLINE_MAX;
            self.fire_timers(&mut at, started);
            self.sign_what_waited(&mut at);
            self.answer(&mut at, started);
            let wait = at.timers.peek().map_or(IDLE, |Reverse((due, ..))| due.since(now(started).mono)).min(IDLE);
            match self.inputs.mail.recv_timeout(wait) {
                Ok((mail, place)) => {
                    drop(place);
                    if !self.take(&mut at, started, mail) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..BURST {
                let Ok((mail, place)) = self.inputs.mail.try_recv() else { break };
                drop(place);
                if !self.take(&mut at, started, mail) {
                    return;
                }
            }
            if self.replica.halted().is_some() || self.replica.reopens() {
                return;
            }
        }
    }

    /// One piece of mail; false to stop.
    fn take(&mut self, at: &mut Loop, started: Instant, mail: Mail) -> bool {
        // What a disk lets go after the last step is not signed any more.
        if self.replica.halted().is_some() || self.replica.reopens() {
            return false;
        }
        let input = match mail {
            Mail::Own(Input::Durable { ticket }) => {
                let released = at.fence.durable(ticket);
                self.perform_admitted(at, released);
                Input::Durable { ticket }
            }
            Mail::Own(input) => input,
            Mail::External(input) => {
                match &input {
                    Input::PeerUp { peer, .. } => drop(at.peers.insert(*peer)),
                    Input::PeerDown { peer } => drop(at.peers.remove(peer)),
                    _ => {}
                }
                input
            }
            Mail::Asked { peer, reply_to, bytes } => {
                at.ask_count += 1;
                let ask = AskId(at.ask_count);
                at.asks.insert(ask, reply_to);
                Input::Asked { peer, ask, bytes }
            }
            Mail::Response { id, bytes } => {
                let Some(job) = at.sent.remove(&id.0) else { return true };
                Input::Response { job, bytes }
            }
            Mail::Submit { tx, wait, reply } => {
                at.request_count += 1;
                let request = RequestId(at.request_count);
                at.requests.insert(request, reply);
                self.drop_abandoned(at, started);
                Input::Submit { request, tx, wait }
            }
            Mail::Evidence { evidence, reply } => {
                at.request_count += 1;
                let request = RequestId(at.request_count);
                at.requests.insert(request, reply);
                Input::SubmitEvidence { request, evidence }
            }
            Mail::Pool { limit, reply } => {
                let first = self.replica.pool().mempool().iter().take(limit).map(|tx| tx.bytes.clone()).collect();
                // A reader that went away wants no answer.
                let _ = reply.send(first);
                return true;
            }
            Mail::HandOver { reply } => {
                let effects = self.replica.hand_over();
                self.perform_all(at, effects);
                let _ = reply.send(());
                return true;
            }
            Mail::Mend { reason } => {
                drop(self.halted.send_replace(Some(End::Mends(reason))));
                return false;
            }
            Mail::Stop => {
                self.flush_at_end(at);
                return false;
            }
        };
        self.step(at, started, input);
        self.answer(at, started);
        true
    }

    /// The state is written before the node ends: once the decision of its height is durable, which on a busy disk takes a moment. What else
    /// waited for that is done, too; nothing more is decided.
    fn flush_at_end(&mut self, at: &mut Loop) {
        let is_flush = |effect: &Effect| matches!(effect, Effect::Flush { .. });
        let effects = self.replica.flush_at_end();
        let mut awaited = effects.iter().any(is_flush);
        let mut admitted: Vec<Effect> = effects.into_iter().filter_map(|effect| at.fence.admit(effect)).collect();
        let until = Instant::now() + LAST_FLUSH;
        loop {
            awaited &= !admitted.iter().any(is_flush);
            self.perform_admitted(at, admitted);
            if !awaited {
                return;
            }
            admitted = match self.inputs.mail.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((Mail::Own(Input::Durable { ticket }), _)) => at.fence.durable(ticket),
                Ok(_) => Vec::new(),
                Err(_) => {
                    tracing::info!("the newest decision is not durable yet, so its state is not written: the next start executes it again");
                    return;
                }
            };
        }
    }

    /// From time to time: clients that went away are forgotten.
    fn drop_abandoned(&mut self, at: &mut Loop, started: Instant) {
        if !at.request_count.is_multiple_of(4_096) {
            return;
        }
        let gone: Vec<RequestId> = at.requests.iter().filter(|(_, to)| to.is_closed()).map(|(request, _)| *request).collect();
        for request in gone {
            at.requests.remove(&request);
            self.step(at, started, Input::Abandoned { request });
        }
    }

    fn step(&mut self, at: &mut Loop, started: Instant, input: Input) {
        let began = Instant::now();
        let effects = self.replica.step(now(started), input);
        let stepped = began.elapsed();
        if self.replica.silent().is_some() {
            self.metrics.stopped_signing();
        }
        self.perform_all(at, effects);
        if began.elapsed() > SLOW_STEP {
            tracing::debug!(?stepped, whole = ?began.elapsed(), "a slow step");
        }
    }

    fn answer(&mut self, at: &mut Loop, started: Instant) {
        while let Some(input) = at.answers.pop_front() {
            self.step(at, started, input);
        }
    }

    /// There is no room on the disk: what is recorded is signed once there is. Of very many the oldest are of heights that
    /// the others have decided; those are missed steps.
    fn sign_later(&self, at: &mut Loop, job: JobId, bytes: Vec<u8>) {
        if at.unsigned.len() >= UNSIGNED_MAX
            && let Some((job, _)) = at.unsigned.pop_front()
        {
            at.answers.push_back(Input::Signed { job, signature: None });
        }
        at.unsigned.push_back((job, bytes));
    }

    /// Signs what waited for room, in order.
    fn sign_what_waited(&self, at: &mut Loop) {
        if self.room.is_there() {
            for (job, bytes) in std::mem::take(&mut at.unsigned) {
                at.answers.push_back(Input::Signed { job, signature: self.key.as_ref().map(|key| key.sign(&bytes)) });
            }
        }
    }

    fn fire_timers(&mut self, at: &mut Loop, started: Instant) {
        let moment = now(started).mono;
        while at.timers.peek().is_some_and(|Reverse((due, ..))| *due <= moment) {
            let Some(Reverse((_, _, timer))) = at.timers.pop() else { return };
            self.step(at, started, Input::TimedOut(timer));
            self.answer(at, started);
        }
    }

    fn perform_all(&mut self, at: &mut Loop, effects: Vec<Effect>) {
        let mut to_verify = Vec::new();
        for effect in effects {
            match at.fence.admit(effect) {
                Some(Effect::Verify { job, checks }) => to_verify.push((job, checks)),
                Some(effect) => self.perform(at, effect),
                None => {}
            }
        }
        at.answers.extend(self.verifier.verify(to_verify, &mut at.inline_left));
    }

    fn perform_admitted(&mut self, at: &mut Loop, effects: Vec<Effect>) {
        for effect in effects {
            self.perform(at, effect);
        }
    }

    /// Carries one effect out. What a thread that is gone would have done is not done: the node is stopping.
    fn perform(&mut self, at: &mut Loop, effect: Effect) {
        match effect {
            Effect::Verify { job, checks } => at.answers.extend(self.verifier.verify(vec![(job, checks)], &mut at.inline_left)),
            Effect::Sign { job, bytes, .. } if self.room.is_there() && at.unsigned.is_empty() => {
                let signature = self.key.as_ref().map(|key| key.sign(&bytes));
                at.answers.push_back(Input::Signed { job, signature });
            }
            Effect::Sign { job, bytes, .. } => self.sign_later(at, job, bytes),
            Effect::Persist { ticket, write: Write::Log(records), .. } => drop(self.log.send((ticket, records))),
            Effect::Persist { ticket, write, .. } => {
                if let Write::GuardFloor(height) = &write {
                    self.metrics.signs_above(height.get());
                }
                if let Some(guard) = &self.guard {
                    drop(guard.send((ticket, write)));
                }
            }
            Effect::Read { job, what } => drop(self.read.send((job, what))),
            Effect::Build { job, build } => drop(self.execute.send(ExecutorJob::Build(job, build))),
            Effect::Check { job, check } => drop(self.execute.send(ExecutorJob::Check(job, check))),
            Effect::Judge { job, evidence, chain, complete } => {
                drop(self.execute.send(ExecutorJob::Judge(job, evidence, chain, complete)));
            }
            Effect::Execute { job, execute } => drop(self.execute.send(ExecutorJob::Execute(job, execute))),
            Effect::Flush { height, chain, .. } => drop(self.execute.send(ExecutorJob::Flush(height, chain))),
            Effect::CheckTxs { job, txs, recheck } => drop(self.check.send((job, txs, recheck))),
            Effect::Send { to, lane, bytes } => self.send(at, to, lane, &bytes),
            Effect::Request { job, peer, bytes } => match self.network.request(PeerNo(peer.0), bytes) {
                Ok(id) => drop(at.sent.insert(id.0, job)),
                Err(_) => at.answers.push_back(Input::Response { job, bytes: None }),
            },
            Effect::Respond { ask, bytes } => {
                if let Some(reply_to) = at.asks.remove(&ask) {
                    // A peer that left, or asks more than it takes, goes without.
                    let _ = self.network.respond(reply_to, bytes);
                }
            }
            Effect::SetTimer { at: due, timer } => {
                at.timer_count += 1;
                at.timers.push(Reverse((due, at.timer_count, timer)));
            }
            Effect::Reply { request, reply, .. } => {
                if let Some(to) = at.requests.remove(&request) {
                    drop(self.publish.send(News::Reply(to, Box::new(reply))));
                }
            }
            Effect::Disconnect { peer, reason } => self.network.disconnect(PeerNo(peer.0), reason),
            Effect::Report { report, .. } => self.report(report),
            Effect::Stage { job, task } => drop(self.stage.send((job, task))),
            Effect::Heal { finding } => {
                let end = self.keep(&finding);
                drop(self.halted.send_replace(Some(end)));
            }
            Effect::Reopen { height } => drop(self.halted.send_replace(Some(End::Reopens(height)))),
            Effect::Halt { reason } => {
                let end = if self.replica.doubts_state() { End::InDoubt(reason) } else { End::Halted(reason) };
                drop(self.halted.send_replace(Some(end)));
            }
        }
    }

    /// Keeps what was found, with what the executor made of the block. This thread waits for both: it has nothing else to do any more.
    fn keep(&self, finding: &Finding) -> End {
        let (reply, trace) = channel();
        drop(self.execute.send(ExecutorJob::Trace(reply)));
        let trace = trace.recv().ok().flatten();
        match audit::keep(self.disk.clone(), finding, trace) {
            Ok(()) => End::Heals(finding.height()),
            Err(error) => End::Halted(format!("the state is not the chain's, and what was found cannot be kept: {error}")),
        }
    }

    fn send(&self, at: &Loop, to: Target, lane: Lane, bytes: &bytes::Bytes) {
        // A full queue drops the frame: reconciliation sends again what is missed.
        let network_lane = match lane {
            Lane::Votes => lockstep_network::Lane::Votes,
            Lane::Bulk => lockstep_network::Lane::Bulk,
            Lane::Gossip => {
                let _ = self.network.publish(bytes.clone());
                return;
            }
        };
        match to {
            Target::One(peer) => {
                let _ = self.network.send(PeerNo(peer.0), network_lane, bytes.clone());
            }
            Target::All => at.peers.iter().for_each(|peer| {
                let _ = self.network.send(PeerNo(peer.0), network_lane, bytes.clone());
            }),
        }
    }

    fn report(&self, report: Report) {
        if let Report::Refused { peer, points, reason } = &report {
            self.network.penalise(PeerNo(peer.0), *points, reason);
        }
        if matches!(report, Report::SignedElsewhere(_)) {
            // Who is started beside it, to sign, must not come second to it. Where the queue is full, connections end one by one.
            let _ = self.network.withdraw_validator("this process signs nothing any more");
        }
        if let Report::Committed { outcome, chain, .. } = &report
            && !outcome.validator_updates.is_empty()
        {
            self.network.set_validators(chain.next_validators.iter().map(|validator| validator.public_key.0).collect());
        }
        drop(self.publish.send(News::Report(report)));
    }
}

/// Both clocks.
fn now(started: Instant) -> Now {
    let mono = Mono(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Time::from_unix_nanos(i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)),
        // A clock before 1970 is a clock that is not set; blocks will not be timely, and the rounds say so.
        Err(_) => Time::from_unix_nanos(0),
    };
    Now { mono, wall }
}
