//! One height, from its beginning to its execution: what consensus asks for, and what is told to it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockstep_consensus as consensus;
use lockstep_storage::log::Kind;
use lockstep_types::codec;
use lockstep_types::quorum::Quorum;
use lockstep_types::vote::Verified;
use lockstep_types::{Block, BlockId, Commit, Height, Polka, Power, Round, ValidatorIndex, Vote, VoteType};

use crate::bodies::{Bodies, Body};
use crate::execution::ExecuteJob;
use crate::jobs::Job;
use crate::pace::{Facts, Pace, pace};
use crate::planted::Bug;
use crate::proposals::body_record;
use crate::replica::{Deciding, Last, Replica};
use crate::seam::{Effect, JobId, LogRecord, Mono, Now, Outcome, Report, Timer, Write};
use crate::signing::OwnMessage;
use crate::wire::WIRE_VERSION;

impl Replica {
    /// Begins the height after the last executed block.
    pub(crate) fn begin_height(&mut self, now: Now) {
        let height = self.height();
        self.proposals.clear();
        self.ready = false;
        self.pace_timer = None;
        self.waiting_build = None;
        self.certificate = None;
        self.held_casts.clear();
        self.kept_lock = None;
        self.timers.clear();
        self.gossip.progressed(now);
        let me = self.signing.me().and_then(|me| self.chain.validators.index_of(&me.address));
        let winner = self.chain.validators.proposer(Round::ZERO);
        let winner = self.chain.validators.get(winner).expect("the proposer is in the set").address;
        let start = consensus::HeightStart {
            height,
            validators: self.chain.validators.clone(),
            me,
            params: self.chain.params.clone(),
            proposer_missed: self.missed.contains(&winner),
            restored: self.restored(height),
        };
        self.drive(now, consensus::Input::StartHeight(start));
        self.say_again(now, height);
        self.state_ours();
        self.replay_early(now);
        self.catch_up_with_peers(now);
        self.try_ready(now);
    }

    /// Where the guard says that we were in this height.
    pub(crate) fn restored(&self, height: Height) -> Option<consensus::Restored> {
        let last = self.signing.newest_at(height)?;
        let (round, step) = match &last.message {
            OwnMessage::Proposal(proposal) => (proposal.round, consensus::Step::Propose),
            OwnMessage::Vote(vote) if vote.kind == VoteType::Prevote => (vote.round, consensus::Step::Prevote),
            OwnMessage::Vote(vote) => (vote.round, consensus::Step::Precommit),
        };
        let lock = last.lock.clone().filter(|_| !self.planted.has(Bug::LockLost));
        let locked = lock.and_then(|polka| self.trusted_polka(polka));
        let valid = last.valid.clone().and_then(|polka| self.trusted_polka(polka));
        let is_lost = |block_id: &BlockId| !self.bodies.get(block_id).is_some_and(|body| body.durable);
        let lost = last.lock.iter().chain(&last.valid).map(|polka| polka.block_id).filter(is_lost).collect();
        Some(consensus::Restored { round, step, locked, valid, lost })
    }

    /// A polka from our own guard: it was verified before it was recorded, and the guard's checksum says that it is the same.
    fn trusted_polka(&self, polka: Polka) -> Option<Verified<Polka>> {
        let claim = polka.claim(&self.chain_id, &self.chain.validators).ok()?;
        let valid = vec![true; claim.checks().len()];
        claim.settle(&valid).ok()
    }

    /// After a restart: signs the recorded bytes of this height again, sends them, and counts them; and hands consensus the
    /// polkas it was locked by.
    fn say_again(&mut self, now: Now, height: Height) {
        let Some(newest) = self.signing.newest_at(height).cloned() else { return };
        for polka in newest.lock.iter().chain(&newest.valid) {
            if let Some(polka) = self.trusted_polka(polka.clone()) {
                self.on_verified_polka(now, polka);
            }
        }
        // The log may have lost it with what was not synced.
        self.kept_lock = newest.lock.as_ref().map(|polka| (polka.round, self.log_polka(polka)));
        if self.signing.stopped().is_some() {
            return;
        }
        let said: Vec<OwnMessage> = newest.said().cloned().collect();
        let forgotten = if self.planted.has(Bug::OnlyNewestResent) { said.len() - 1 } else { 0 };
        for message in said.into_iter().skip(forgotten) {
            let bytes = message.sign_bytes(&self.chain_id);
            let job = self.fx.job();
            self.jobs.insert(job, Job::Sign { message });
            self.fx.push(Effect::Sign { job, after: Vec::new(), bytes });
        }
    }

    /// Hands consensus an input, and what follows from it, until nothing follows.
    pub(crate) fn drive(&mut self, now: Now, input: consensus::Input) {
        if self.deciding.is_some() {
            return; // The height is over; what comes late is not missed.
        }
        let mut queue = VecDeque::from([input]);
        while let Some(input) = queue.pop_front() {
            for effect in self.consensus.step(input) {
                self.on_effect(now, effect, &mut queue);
            }
        }
        self.store_polka_bodies();
    }

    /// A body that a polka names is stored whoever proposed it first: the lock waits for it (L36).
    fn store_polka_bodies(&mut self) {
        let polkas: Vec<(Round, BlockId)> = self
            .consensus
            .rounds()
            .filter_map(|round| Some((round, self.consensus.votes(round, VoteType::Prevote)?.quorum_block()?)))
            .filter(|(_, block_id)| self.bodies.get(block_id).is_some_and(|body| !body.named_by_quorum))
            .collect();
        for (round, block_id) in polkas {
            self.bodies.name(block_id, round, true);
            self.store_body(block_id);
        }
    }

    fn on_effect(&mut self, now: Now, effect: consensus::Effect, queue: &mut VecDeque<consensus::Input>) {
        match effect {
            consensus::Effect::Persist(_, record) => self.cast(now, record),
            // What is recorded is signed and sent once it is durable: `cast` asks for both.
            consensus::Effect::Cast(..) | consensus::Effect::Propose(..) => {}
            consensus::Effect::Build { height, round } => self.build_when_time_allows(now, height, round),
            consensus::Effect::Check { block_id } => {
                self.bodies.name(block_id, self.consensus.round(), false);
                let body = self.bodies.get_mut(&block_id).expect("just named");
                match &body.verdict {
                    Some(verdict) => queue.push_back(consensus::Input::Checked { block_id, valid: verdict.is_ok() }),
                    None => self.judge(block_id),
                }
                let counts = |body: &Body| body.durable || (self.planted.has(Bug::BodyNotDurable) && body.ticket.is_some());
                if self.bodies.get(&block_id).is_some_and(counts) {
                    queue.push_back(consensus::Input::BodyDurable { block_id });
                }
            }
            consensus::Effect::WantBody { block_id, round } => {
                self.bodies.name(block_id, round, true);
                self.store_body(block_id);
                self.ask_body(now, block_id);
            }
            consensus::Effect::Schedule(timeout, after) => {
                let at = self.due(now, &timeout, after);
                self.timers.insert(timeout, at);
                self.fx.push(Effect::SetTimer { at, timer: Timer::Consensus(timeout) });
            }
            consensus::Effect::Decide { commit } => self.on_decide(now, commit),
            consensus::Effect::CertifiedInvalid { commit } => {
                // Judged before it was certified, it may only be that the application refused it: judge it again as what
                // it is, and halt if it is wrong even so.
                self.certify(commit);
            }
            consensus::Effect::Accuse(equivocation) => {
                if !self.planted.has(Bug::EvidenceForgotten) {
                    self.saw_two_votes(equivocation.first.clone(), equivocation.second.clone());
                }
                self.fx.report(Report::Equivocation { first: Box::new(equivocation.first), second: Box::new(equivocation.second) });
            }
            consensus::Effect::Stepped { height, round, step } => {
                self.gossip.progressed(now);
                self.fx.report(Report::Stepped { height, round, step });
            }
        }
    }

    /// When a timeout is due. The propose timer starts no earlier than half of PRECISION before the last block's time, so that
    /// a proposer who pushed time ahead cannot make the next one, who must wait for it, time out. The wait is at most
    /// PRECISION, converted once to the monotonic clock.
    fn due(&self, now: Now, timeout: &consensus::Timeout, after: Duration) -> Mono {
        let precision = self.chain.params.synchrony.precision.duration();
        let ahead = self.chain.last_time.saturating_sub(precision / 2).since(now.wall).min(precision);
        let start = if timeout.step == consensus::Step::Propose { now.mono.after(ahead) } else { now.mono };
        start.after(after)
    }

    // --- pace -------------------------------------------------------------------------------------------------------

    /// Begins round 0 when the pace allows it.
    pub(crate) fn try_ready(&mut self, now: Now) {
        if self.ready || self.deciding.is_some() {
            return;
        }
        let params = &self.chain.params.pace;
        let facts = Facts {
            decided_at: self.decided_at,
            behind: self.catch_up.is_behind(),
            follow_at_once: self.chain.follow_at_once,
            has_txs: self.pool.has_executable() || !self.evidence.is_empty(),
            others_began: self.others_began(),
        };
        let mut decision = pace(params, &facts, now.mono);
        if decision == Pace::Now
            && let Some(at) = self.gather_until().filter(|at| *at > now.mono)
        {
            decision = Pace::At(at);
        }
        match decision {
            Pace::Now => {
                self.ready = true;
                self.drive(now, consensus::Input::Ready);
            }
            Pace::At(at) if self.pace_timer.is_none_or(|set| at < set) => {
                self.pace_timer = Some(at);
                self.fx.push(Effect::SetTimer { at, timer: Timer::Pace(self.height()) });
            }
            Pace::At(_) | Pace::Wait => {}
        }
    }

    /// Whether votes of this height came from more than a third of the power.
    fn others_began(&self) -> bool {
        let validators = &self.chain.validators;
        let voters: BTreeSet<ValidatorIndex> = self.all_votes().map(|vote| vote.validator).collect();
        let power = voters.iter().filter_map(|index| validators.get(*index)).map(|validator| validator.power.get()).sum();
        Power::new(power).is_some_and(|power| Quorum::Byzantine.has_correct(power, validators.total_power()))
    }

    /// Every vote held of this height.
    pub(crate) fn all_votes(&self) -> impl Iterator<Item = &Vote> {
        self.consensus
            .rounds()
            .flat_map(move |round| [VoteType::Prevote, VoteType::Precommit].into_iter().flat_map(move |kind| self.votes(round, kind)))
    }

    /// The votes held of one round and kind.
    pub(crate) fn votes(&self, round: Round, kind: VoteType) -> impl Iterator<Item = &Vote> {
        self.consensus.votes(round, kind).into_iter().flat_map(consensus::VoteSet::votes)
    }

    /// How long the proposer of round 0 waits for precommits beyond two thirds; none when it has them all.
    fn gather_until(&self) -> Option<Mono> {
        let gather = self.chain.params.pace.gather.duration();
        let me = self.signing.me()?;
        let proposes = self.chain.validators.index_of(&me.address) == Some(self.chain.validators.proposer(Round::ZERO));
        let incomplete = self.last.as_ref().is_some_and(|last| last.commit.signatures.iter().any(|sig| sig.slot().is_none()));
        (proposes && incomplete && !gather.is_zero()).then(|| self.decided_at.after(gather))
    }

    // --- deciding and executing -------------------------------------------------------------------------------------

    /// L49: the decision is written, behind its body if that is not written yet, and executed meanwhile.
    fn on_decide(&mut self, now: Now, commit: Commit) {
        let height = self.height();
        assert_eq!(commit.height, height, "consensus decides the height it was started with");
        let block_id = commit.block_id;
        let round = commit.round;
        let validators = self.chain.validators.clone();
        self.check_own_slot(&commit, &validators);
        let body = self.bodies.get(&block_id).expect("consensus decides a block whose body was found valid");
        let block = body.valid_block().expect("consensus decides a block whose body was found valid").clone();
        let bytes = body.bytes.clone().expect("a judged body is whole");
        let claim = commit.claim(&self.chain_id, &self.chain.validators).expect("consensus decides on a quorum of verified precommits");
        let valid = vec![true; claim.checks().len()];
        let commit = Arc::new(claim.settle(&valid).expect("every precommit was verified when it came"));

        // A validator without a readable guard may have signed anything up to where the others are. A height that it sees
        // decided by their votes as they come, and not by a certificate that it fetched, is where they are.
        if self.certificate.is_none() && !self.catch_up.is_behind() && self.signing.saw_decision(height) {
            self.fx.persist(Vec::new(), Write::GuardFloor(height));
            self.fx.report(Report::Note(format!("the vote guard was not readable; this validator signs again above height {height}")));
        }
        let mut records = Vec::new();
        if body.ticket.is_none() && !body.durable && !self.planted.has(Bug::DecisionWithoutBody) {
            records.push(body_record(height, &block_id, bytes.clone()));
        }
        records.push(LogRecord {
            kind: Kind::Decision,
            height,
            round,
            block_hash: block_id.hash,
            payload: Bytes::from(codec::encode(WIRE_VERSION, commit.get())),
        });
        // The body's own write may still be under way; records are written in order, so the decision is behind it.
        let ticket = self.fx.persist(Vec::new(), Write::Log(records));
        let job = self.fx.job();
        self.jobs.insert(job, Job::Execute { height });
        let execute = ExecuteJob { block: block.clone(), block_id, chain: self.chain.clone() };
        self.fx.push(Effect::Execute { job, execute: Box::new(execute) });
        self.gossip.progressed(now);
        self.deciding = Some(Deciding { block_id, block, body: bytes, commit, ticket, is_durable: false, at: now.mono });
    }

    pub(crate) fn on_executed(&mut self, now: Now, id: JobId, outcome: Result<Box<Outcome>, String>) {
        let Some(Job::Execute { height }) = self.jobs.remove(&id) else { return };
        let outcome = match outcome {
            Ok(outcome) => Arc::new(*outcome),
            Err(reason) => {
                self.halt(format!(
                    "the application cannot execute block {height}, which is decided: {reason}. Every node with this application stops here"
                ));
                return;
            }
        };
        let deciding = self.deciding.take().expect("only a decided block is executed");
        assert_eq!(height, self.height(), "blocks are executed in order");
        self.note_proposer(&deciding.block);
        let chain = Arc::new(self.chain.advance(deciding.block_id, &deciding.block.header, deciding.block.txs.len(), &outcome));
        self.chain = chain.clone();
        self.decided_at = deciding.at;
        let last =
            Last { commit: deciding.commit.get().clone(), block_id: deciding.block_id, body: deciding.body, ticket: Some(deciding.ticket) };
        if !deciding.is_durable {
            self.undurable.push_back(last.clone());
        }
        self.last = Some(last);
        self.bodies = Bodies::default();
        self.evidence_after_block(&deciding.block.evidence);
        self.fx.push(Effect::Report {
            after: if self.planted.has(Bug::ToldBeforeDurable) { Vec::new() } else { vec![deciding.ticket] },
            report: Report::Committed {
                block_id: deciding.block_id,
                block: deciding.block.clone(),
                commit: deciding.commit,
                outcome: outcome.clone(),
                chain,
            },
        });
        let answer_after = Some(deciding.ticket).filter(|_| !self.planted.has(Bug::AnsweredBeforeDurable));
        let again = self.pool.commit(&deciding.block, &outcome, answer_after, &mut self.fx);
        if outcome.params.is_some() || self.chain.validators.len() != self.chain.last_validators.len() {
            self.pool.set_block_bounds(&self.chain, &mut self.fx);
        }
        self.check_txs(again.into_iter().map(|tx| (tx.hash, tx.bytes)).collect(), true);
        self.last_decision = Some(deciding.ticket);
        self.flush_when_due(&outcome);
        self.begin_height(now);
    }

    /// Remembers who missed a slot of round 0: its next one is waited for only briefly.
    fn note_proposer(&mut self, block: &Block) {
        let winner: ValidatorIndex = self.chain.validators.proposer(Round::ZERO);
        let winner = self.chain.validators.get(winner).expect("the proposer is in the set").address;
        if block.header.proposer_address == winner {
            self.missed.remove(&winner);
        } else {
            self.missed.insert(winner);
        }
        self.missed.retain(|address| self.chain.next_validators.index_of(address).is_some());
    }

    /// The database is written when replaying what it lacks would take a restart too long. Order 3's counterpart: never
    /// ahead of the decision it holds.
    fn flush_when_due(&mut self, outcome: &Outcome) {
        let blocks = outcome.height.get().saturating_sub(self.flushed.get());
        let due = outcome.unflushed_keys >= self.config.flush_keys || blocks >= self.config.flush_blocks;
        if due && self.flushing.is_none() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let height = self.chain.height;
        self.flushing = Some(height);
        let after = self.last_decision.filter(|_| !self.planted.has(Bug::FlushBeforeDecision));
        self.fx.push(Effect::Flush { after: after.into_iter().collect(), height, chain: self.chain.clone() });
    }

    /// The node ends as it was asked to: what the database lacks is written, where its decision is durable, so that the next start
    /// need not execute it again. After a crash it does.
    pub fn flush_at_end(&mut self) -> Vec<Effect> {
        let is_due = self.chain.height > self.flushed && self.flushing != Some(self.chain.height);
        if is_due && self.halted.is_none() {
            self.flush();
        }
        self.fx.take()
    }

    pub(crate) fn on_flushed(&mut self, height: Height) {
        self.flushing = None;
        self.flushed = self.flushed.max(height);
    }
}
