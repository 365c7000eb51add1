//! One height, from its beginning to its execution: what consensus asks for, and what is told to it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockstep_consensus as consensus;
use lockstep_storage::log::Kind;
use lockstep_types::block::{Part, PartSetHeader};
use lockstep_types::codec;
use lockstep_types::quorum::Quorum;
use lockstep_types::vote::Verified;
use lockstep_types::{Block, BlockId, Commit, Height, Polka, Power, Proposal, PublicKey, Round, Time, ValidatorIndex, Vote, VoteType};

use crate::bodies::{Bodies, Body, PartFate};
use crate::check::{BuildJob, BuiltBlock, CheckFailure, CheckJob};
use crate::execution::ExecuteJob;
use crate::pace::{Facts, Pace, pace};
use crate::planted::Bug;
use crate::replica::{Deciding, HeldProposal, Job, Last, OwnWait, POINTS_LIE, Replica};
use crate::seam::{Effect, JobId, Lane, LogRecord, Mono, Now, Outcome, Peer, Report, Ticket, Timer, Write};
use crate::signing::{OwnMessage, Remembered, UNSIGNED, guard_owner, guard_record};
use crate::wire::{Message, Question, WIRE_VERSION};

/// Proposals kept for one round: a correct proposer makes one, and the second is the proof that it is not.
const PROPOSALS_PER_ROUND: usize = 2;
/// Rounds ahead of ours of which proposals are kept.
const ROUNDS_AHEAD: u32 = 2;

/// Something to sign, with what it is cast under.
#[derive(Debug)]
pub(crate) struct Cast {
    message: OwnMessage,
    lock: Option<Polka>,
    valid: Option<Polka>,
}

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
        self.replay_early(now);
        self.catch_up_with_peers(now);
        self.try_ready(now);
    }

    /// Where the guard says that we were in this height.
    fn restored(&self, height: Height) -> Option<consensus::Restored> {
        let last = self.signing.newest_at(height)?;
        let (round, step) = match &last.message {
            OwnMessage::Proposal(proposal) => (proposal.round, consensus::Step::Propose),
            OwnMessage::Vote(vote) if vote.kind == VoteType::Prevote => (vote.round, consensus::Step::Prevote),
            OwnMessage::Vote(vote) => (vote.round, consensus::Step::Precommit),
        };
        let lock = last.lock.clone().filter(|_| !self.planted.has(Bug::LockLost));
        let locked = lock.and_then(|polka| self.trusted_polka(polka));
        let valid = last.valid.clone().and_then(|polka| self.trusted_polka(polka));
        Some(consensus::Restored { round, step, locked, valid })
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
                    self.evidence.saw(equivocation.first.clone(), equivocation.second.clone());
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

    // --- proposing --------------------------------------------------------------------------------------------------

    /// L18, with proposer-based timestamps: the block's time is the proposer's clock, past the last block's. The proposer
    /// waits only while its clock is more than half of PRECISION behind, and at most PRECISION.
    fn build_when_time_allows(&mut self, now: Now, height: Height, round: Round) {
        let precision = self.chain.params.synchrony.precision.duration();
        let behind = self.earliest_time().since(now.wall);
        if behind > precision / 2 {
            let at = now.mono.after((behind - precision / 2).min(precision));
            self.waiting_build = Some((height, round, at));
            self.fx.push(Effect::SetTimer { at, timer: Timer::ProposerWait(height, round) });
        } else {
            self.build(now, height, round);
        }
    }

    pub(crate) fn on_proposer_waited(&mut self, now: Now, height: Height, round: Round) {
        if self.waiting_build.take_if(|(h, r, _)| *h == height && *r == round).is_some() {
            self.build(now, height, round);
        }
    }

    fn earliest_time(&self) -> Time {
        let first = self.height() == self.chain.initial_height;
        if first { self.chain.last_time } else { self.chain.last_time.saturating_add(Duration::from_millis(1)) }
    }

    fn build(&mut self, now: Now, height: Height, round: Round) {
        if height != self.height() || self.deciding.is_some() {
            return;
        }
        let Some(me) = self.signing.me().cloned() else { return };
        let max = usize::try_from(self.chain.params.block.max_bytes).unwrap_or(usize::MAX);
        let build = BuildJob {
            chain: self.chain.clone(),
            time: now.wall.max(self.earliest_time()),
            proposer: me.address,
            txs: self.pool.reap(max, self.chain.params.block.max_gas),
            // Who cannot judge a piece prevotes nil: that may cost round 0, and no other.
            evidence: if round == Round::ZERO && !self.planted.has(Bug::EvidenceNotProposed) {
                self.evidence.pending().cloned().collect()
            } else {
                Vec::new()
            },
            last_commit: self.last.as_ref().filter(|_| self.chain.last_block_id.is_some()).map(|last| last.commit.clone()),
        };
        let job = self.fx.job();
        self.jobs.insert(job, Job::Build { height, round });
        self.fx.push(Effect::Build { job, build: Box::new(build) });
    }

    pub(crate) fn on_built(&mut self, now: Now, id: JobId, built: BuiltBlock) {
        let Some(Job::Build { height, round }) = self.jobs.remove(&id) else { return };
        let is_late = height != self.height() && !self.planted.has(Bug::LateBuildProposed);
        if is_late || self.deciding.is_some() {
            return;
        }
        let BuiltBlock { block, block_id, body, parts, refused } = built;
        refused.iter().for_each(|hash| self.evidence.drop_piece(hash));
        self.bodies.put(block_id, round, body, Some(parts));
        self.bodies.get_mut(&block_id).expect("just put").verdict = Some(Ok(block));
        self.store_body(block_id);
        self.drive(now, consensus::Input::Built { round, block_id });
    }

    // --- signing ----------------------------------------------------------------------------------------------------

    /// Consensus casts: the message gets its time, its bytes are recorded, then signed, then sent.
    ///
    /// Order 2: no guard record of this height is written before the decision of the height before is durable. Order 1, that
    /// a lock's body is durable, is asserted by consensus, which casts only after it was told.
    fn cast(&mut self, now: Now, record: consensus::GuardRecord) {
        let Some(me) = self.signing.me() else { return };
        let Some(validator) = self.chain.validators.index_of(&me.address) else { return };
        let message = match record.message {
            consensus::Message::Ballot(ballot) => OwnMessage::Vote(Vote {
                kind: ballot.kind,
                height: ballot.height,
                round: ballot.round,
                block_id: ballot.block_id,
                valid_round: ballot.valid_round,
                timestamp: now.wall,
                validator,
                signature: UNSIGNED,
            }),
            consensus::Message::Draft(draft) => {
                // A proposal repeats its header's time. Without the body there is nothing to send either: the round is
                // left to its timer.
                let Some(block) = self.bodies.get(&draft.block_id).and_then(Body::valid_block) else { return };
                OwnMessage::Proposal(Proposal {
                    height: draft.height,
                    round: draft.round,
                    pol_round: draft.pol_round,
                    block_id: draft.block_id,
                    timestamp: block.header.time,
                    signature: UNSIGNED,
                })
            }
        };
        let own = |polka: Option<Arc<Polka>>| polka.map(Arc::unwrap_or_clone);
        let (lock, valid) = (own(record.locked), own(record.valid));
        let cast = Cast { message, lock, valid };
        if self.waits_for_own() { self.held_casts.push(cast) } else { self.record_and_sign(cast) }
    }

    fn record_and_sign(&mut self, cast: Cast) {
        if !self.signing.may_sign(cast.message.height()) {
            return;
        }
        let superseded = self.superseded_lock(&cast);
        let kept = self.keep_polka(&cast);
        let mut earlier = self.signing.earlier_at(cast.message.height());
        if self.planted.has(Bug::EarlierForgotten) {
            earlier.clear();
        }
        let Some(me) = self.signing.me() else { return };
        let owner = guard_owner(&self.config.genesis_hash, &me.public_key);
        let record = guard_record(&cast.message, &earlier, cast.lock.as_ref(), cast.valid.as_ref(), &self.chain_id, &owner);
        let sign_bytes = record.sign_bytes.clone();
        self.signing.remember(Remembered {
            message: cast.message.clone(),
            earlier,
            sign_bytes: sign_bytes.clone(),
            lock: cast.lock,
            valid: cast.valid,
        });
        let decision: Vec<Ticket> = self.last.as_ref().and_then(|last| last.ticket).into_iter().collect();
        let mut decision_first = if self.planted.has(Bug::VoteBeforeDecision) || self.planted.has(Bug::GuardBesideDecision) {
            Vec::new()
        } else {
            decision.clone()
        };
        decision_first.extend(superseded);
        let recorded = self.fx.persist(decision_first, Write::Guard(Box::new(record)));
        let mut after: Vec<Ticket> = [recorded].into_iter().chain(kept).collect();
        if self.planted.has(Bug::SendBeforeSync) {
            after.clear();
        }
        if self.planted.has(Bug::GuardBesideDecision) {
            after.extend(decision);
        }
        let job = self.fx.job();
        self.jobs.insert(job, Job::Sign { message: cast.message });
        self.fx.push(Effect::Sign { job, after, bytes: sign_bytes });
    }

    /// The write of the polka of our last lock, where this message is cast under another one. The guard forgets the last one
    /// then, and until the log has its polka nothing else shows why we precommitted there.
    fn superseded_lock(&self, cast: &Cast) -> Option<Ticket> {
        let (round, ticket) = self.kept_lock?;
        cast.lock.as_ref().is_none_or(|lock| lock.round != round).then_some(ticket)
    }

    /// The polka that justifies a precommit, and the one that justifies a prevote with a valid round, go to the log too: they
    /// make a fork accountable. A precommit's is its lock, which the guard holds as well until there is another lock, which
    /// waits for this write ([`Self::superseded_lock`]); its next height waits for a decision that is behind it in the log. A
    /// prevote's may be none that the guard holds, so the vote waits for the write that is returned.
    fn keep_polka(&mut self, cast: &Cast) -> Option<Ticket> {
        let OwnMessage::Vote(vote) = &cast.message else { return None };
        let (polka, only_here) = match vote.kind {
            VoteType::Precommit => (vote.block_id.and(cast.lock.clone()), false),
            VoteType::Prevote => (vote.valid_round.and_then(|round| self.consensus.polka(round)), true),
        };
        let polka = polka?;
        let ticket = self.log_polka(&polka);
        if !only_here {
            self.kept_lock = Some((polka.round, ticket));
        }
        only_here.then_some(ticket)
    }

    fn log_polka(&mut self, polka: &Polka) -> Ticket {
        let record = LogRecord {
            kind: Kind::Polka,
            height: polka.height,
            round: polka.round,
            block_hash: polka.block_id.hash,
            payload: Bytes::from(codec::encode(WIRE_VERSION, polka)),
        };
        self.fx.persist(Vec::new(), Write::Log(vec![record]))
    }

    pub(crate) fn on_signed(&mut self, now: Now, id: JobId, signature: Option<lockstep_types::Signature>) {
        let Some(Job::Sign { message }) = self.jobs.remove(&id) else { return };
        let Some(signature) = signature else {
            self.fx.report(Report::Note(format!("the signer did not sign {:?}: the step is missed", message.position())));
            return;
        };
        if self.signing.stopped().is_some() {
            return;
        }
        match message.signed(signature) {
            OwnMessage::Vote(vote) => {
                self.fx.broadcast(Lane::Votes, &Message::Vote(vote.clone()));
                if let Ok(claim) = vote.claim(&self.chain_id, &self.chain.validators)
                    && let Ok(vote) = claim.settle(&[true])
                {
                    self.on_verified_vote(now, vote);
                }
            }
            OwnMessage::Proposal(proposal) => self.propose(now, proposal),
        }
    }

    /// Sends an own proposal, with its body.
    fn propose(&mut self, now: Now, proposal: Proposal) {
        let parts = self.bodies.get_mut(&proposal.block_id).and_then(crate::bodies::Body::parts);
        let mut parts = parts.iter().flat_map(|parts| parts.iter());
        let first = parts.next().cloned();
        self.fx.broadcast(Lane::Votes, &Message::Proposal { proposal: proposal.clone(), first });
        for part in parts {
            let message = Message::Part { height: proposal.height, header: proposal.block_id.parts, part: part.clone() };
            self.fx.broadcast(Lane::Bulk, &message);
        }
        if proposal.height != self.height() {
            return;
        }
        let proposer = self.chain.validators.proposer(proposal.round);
        let key = self.chain.validators.get(proposer).expect("the proposer is in the set").public_key;
        if let Ok(claim) = proposal.claim(&self.chain_id, &key)
            && let Ok(proposal) = claim.settle(&[true])
        {
            self.on_verified_proposal(now, proposal, now.wall);
        }
    }

    // --- own messages that we may have forgotten -------------------------------------------------------------------

    /// At start, peers are asked for our own messages: a later one than the guard's, or another for the same place, means
    /// that somebody else signs with this key or that this directory is older than it was. The wait is bounded once anybody
    /// can be asked; a validator that nobody hears decides nothing by signing, unless its power is a quorum (decision 14).
    pub(crate) fn begin_own_wait(&mut self, now: Now) {
        let alone = self.chain.validators.len() == 1;
        if self.signing.me().is_some() && !alone {
            self.own_wait = OwnWait::Timed;
            let at = now.mono.after(self.chain.params.timeouts.propose_at(0));
            self.fx.push(Effect::SetTimer { at, timer: Timer::OwnMessages });
        }
    }

    /// One propose timeout has passed: all that is missing now is one answer.
    pub(crate) fn on_own_timer(&mut self, now: Now) {
        if self.own_wait == OwnWait::Timed {
            self.own_wait = OwnWait::AnyAnswer;
            self.try_end_own_wait(now);
        }
    }

    /// Ends the wait if nothing is missing: an answer that names a message of our key is not one before its signature is judged.
    pub(crate) fn try_end_own_wait(&mut self, now: Now) {
        let is_judging = |job: &Job| matches!(job, Job::OwnProof { .. } | Job::OwnProposal { .. });
        if !self.waits_for_own() || self.jobs.values().any(is_judging) {
            return;
        }
        let Some(me) = self.signing.me().map(|me| me.public_key) else { return };
        let validators = &self.chain.validators;
        // Who is no validator of this height proves nothing by knowing of no message, and one that connected twice answers once.
        let told = |key: PublicKey| self.peers.iter().any(|(_, state)| state.told_own && state.validator == Some(key));
        let ends = match self.own_wait {
            OwnWait::Over => false,
            OwnWait::Timed => validators.iter().all(|validator| validator.public_key == me || told(validator.public_key)),
            OwnWait::AnyAnswer => {
                let mine = validators.iter().find(|validator| validator.public_key == me);
                let decides_alone = mine.is_some_and(|mine| Quorum::Byzantine.is_quorum(mine.power, validators.total_power()));
                decides_alone || self.peers.iter().any(|(_, state)| state.told_own)
            }
        };
        if ends {
            self.end_own_wait(now);
        }
    }

    pub(crate) fn ask_own_messages(&mut self, peer: Peer) {
        let Some(me) = self.signing.me().filter(|_| self.waits_for_own()) else { return };
        let question = Question::Signed { address: me.address, from: self.height() };
        let job = self.fx.job();
        self.jobs.insert(job, Job::AskSigned { peer });
        self.fx.push(Effect::Request { job, peer, bytes: question.encode() });
    }

    pub(crate) fn on_own_messages(&mut self, now: Now, peer: Peer, votes: Vec<Vote>, proposals: Vec<Proposal>) {
        let height = self.height();
        for vote in votes.into_iter().filter(|vote| vote.height >= height) {
            self.check_own_vote(peer, &vote);
        }
        for proposal in proposals.into_iter().filter(|proposal| proposal.height == height) {
            self.verify_own_proposal(peer, &proposal);
        }
        if let Some(state) = self.peers.get_mut(peer) {
            state.told_own = true;
        }
        self.try_end_own_wait(now);
    }

    fn end_own_wait(&mut self, now: Now) {
        self.own_wait = OwnWait::Over;
        for cast in std::mem::take(&mut self.held_casts) {
            self.record_and_sign(cast);
        }
        self.try_ready(now);
    }

    /// Whether a vote that says to be ours is one that we did not sign; its signature decides.
    fn check_own_vote(&mut self, peer: Peer, vote: &Vote) -> bool {
        let ours = self
            .signing
            .me()
            .is_some_and(|me| self.chain.validators.get(vote.validator).is_some_and(|validator| validator.address == me.address));
        let message = OwnMessage::Vote(Vote { signature: UNSIGNED, ..vote.clone() });
        if !ours || self.signing.stopped().is_some() || !self.signing.is_foreign(&message, &self.chain_id) {
            return false;
        }
        if let Ok(claim) = vote.clone().claim(&self.chain_id, &self.chain.validators) {
            self.verify(claim.checks().to_vec(), Job::OwnProof { peer, claim, message });
        }
        true
    }

    /// The same for a proposal of a round near ours.
    fn check_own_proposal(&mut self, peer: Peer, proposal: &Proposal) -> bool {
        let proposer = self.chain.validators.get(self.chain.validators.proposer(proposal.round));
        let ours = self.signing.me().is_some_and(|me| proposer.is_some_and(|validator| validator.address == me.address));
        ours && self.verify_own_proposal(peer, proposal)
    }

    /// Asks whether we signed a proposal that says to be ours. Whose turn its round is stays out of it: any round may stand in
    /// an answer, and finding the proposer of a late one takes longer than verifying a signature.
    fn verify_own_proposal(&mut self, peer: Peer, proposal: &Proposal) -> bool {
        let Some(me) = self.signing.me().cloned() else { return false };
        let message = OwnMessage::Proposal(Proposal { signature: UNSIGNED, ..proposal.clone() });
        if self.signing.stopped().is_some() || !self.signing.is_foreign(&message, &self.chain_id) {
            return false;
        }
        if let Ok(claim) = proposal.clone().claim(&self.chain_id, &me.public_key) {
            self.verify(claim.checks().to_vec(), Job::OwnProposal { peer, claim, message });
        }
        true
    }

    pub(crate) fn on_foreign(&mut self, peer: Peer, message: &OwnMessage) {
        let (height, round, step) = message.position();
        let reason = format!(
            "{peer} holds a message for height {height}, round {round}, step {step} that carries this validator's signature and that this \
             node did not sign: another process signs with the same key, or this directory was restored from an older copy. Nothing is \
             signed any more; find the other process, and start again only when you know that it is stopped"
        );
        self.signing.stop(reason.clone());
        self.fx.report(Report::Note(reason));
    }

    // --- proposals and bodies ---------------------------------------------------------------------------------------

    pub(crate) fn on_proposal(&mut self, now: Now, peer: Peer, proposal: Proposal, first: Option<Part>) {
        if proposal.round.get() > self.consensus.round().get().saturating_add(ROUNDS_AHEAD) {
            return;
        }
        let held = self.proposals.get(&proposal.round).map_or(&[][..], Vec::as_slice);
        if held.len() >= PROPOSALS_PER_ROUND || held.iter().any(|held| *held.proposal.get() == proposal) {
            if let Some(part) = first {
                self.on_part(now, peer, proposal.block_id.parts, part);
            }
            return;
        }
        if self.check_own_proposal(peer, &proposal) {
            return;
        }
        let proposer = self.chain.validators.proposer(proposal.round);
        let key = self.chain.validators.get(proposer).expect("the proposer is in the set").public_key;
        match proposal.claim(&self.chain_id, &key) {
            Ok(claim) => self.verify(claim.checks().to_vec(), Job::Proposal { peer, claim, received: now.wall, first }),
            Err(error) => self.blame(peer, POINTS_LIE, format!("a proposal: {error}")),
        }
    }

    pub(crate) fn on_verified_proposal(&mut self, now: Now, proposal: Verified<Proposal>, received: Time) {
        if proposal.height != self.height() || self.deciding.is_some() {
            return;
        }
        let block_id = proposal.block_id;
        let round = proposal.round;
        let held = self.proposals.entry(round).or_default();
        if held.len() >= PROPOSALS_PER_ROUND || held.iter().any(|held| held.proposal == proposal) {
            return;
        }
        held.push(HeldProposal { proposal, received, delivered: false });
        if self.bodies.name(block_id, round, false) {
            self.judge(block_id);
        }
        self.deliver(now, block_id);
    }

    pub(crate) fn on_part(&mut self, now: Now, peer: Peer, header: PartSetHeader, part: Part) {
        match self.bodies.add_part(peer, &header, part) {
            PartFate::Whole(names) => {
                self.gossip.progressed(now);
                names.into_iter().for_each(|block_id| self.judge(block_id));
            }
            PartFate::Bad => self.blame(peer, POINTS_LIE, "a part that is not one of its body".into()),
            PartFate::Kept | PartFate::Known | PartFate::Unnamed => {}
        }
    }

    /// Has a whole body judged, once; and again when a certificate turns up for one that was found invalid.
    pub(crate) fn judge(&mut self, block_id: BlockId) {
        let certified = self.certificate.as_ref().is_some_and(|commit| commit.block_id == block_id);
        let known = self.last.as_ref().map(|last| Arc::new(last.commit.clone()));
        let Some(body) = self.bodies.get_mut(&block_id) else { return };
        let again = certified && matches!(body.verdict, Some(Err(_)));
        let Some(bytes) = body.bytes.clone().filter(|_| !body.checking && (body.verdict.is_none() || again)) else { return };
        body.checking = true;
        let check = CheckJob { block_id, body: bytes, chain: self.chain.clone(), known, certified };
        let job = self.fx.job();
        self.jobs.insert(job, Job::Check { height: self.height(), block_id, certified });
        self.fx.push(Effect::Check { job, check: Box::new(check) });
    }

    pub(crate) fn on_checked(&mut self, now: Now, id: JobId, verdict: Result<Arc<Block>, CheckFailure>) {
        let Some(Job::Check { height, block_id, certified }) = self.jobs.remove(&id) else { return };
        if height != self.height() || self.deciding.is_some() {
            return;
        }
        if let (true, Err(failure)) = (certified, &verdict) {
            let root = match failure {
                CheckFailure::AppHash { theirs, ours } => {
                    format!("its header says that the state after height {} has root {theirs}, ours has {ours}", self.chain.height)
                }
                other => other.to_string(),
            };
            self.halt(format!(
                "block {height} ({block_id}) was decided by more than two thirds of the power, and this node finds it wrong: {root}. This \
                 node's state is not the chain's; keep its home for inspection, and start again from an empty data folder"
            ));
            return;
        }
        let valid = verdict.is_ok();
        let Some(body) = self.bodies.get_mut(&block_id) else { return };
        body.checking = false;
        body.verdict = Some(verdict);
        self.store_body(block_id);
        self.deliver(now, block_id);
        self.drive(now, consensus::Input::Checked { block_id, valid });
        if !certified && !valid {
            // A certificate may have come while it was judged.
            self.judge(block_id);
        }
    }

    /// Hands consensus the proposals whose body was judged. One whose time is not its header's, or which is new and not
    /// built by its proposer, is as if it had never come (decision record 2).
    fn deliver(&mut self, now: Now, block_id: BlockId) {
        let Some(verdict) = self.bodies.get(&block_id).and_then(|body| body.verdict.clone()) else { return };
        let validators = self.chain.validators.clone();
        let (any_time, any_builder) = (self.planted.has(Bug::ProposalTimeUnchecked), self.planted.has(Bug::ForeignBlockProposed));
        let mut ready = Vec::new();
        for held in self.proposals.values_mut().flatten() {
            if held.proposal.block_id != block_id || std::mem::replace(&mut held.delivered, true) {
                continue;
            }
            let proposer = validators.get(validators.proposer(held.proposal.round)).expect("the proposer is in the set").address;
            let fits = verdict.as_ref().map_or(true, |block| {
                (block.header.time == held.proposal.timestamp || any_time)
                    && (held.proposal.pol_round.is_some() || block.header.proposer_address == proposer || any_builder)
            });
            if fits {
                ready.push((held.proposal.clone(), held.received));
            }
        }
        for (proposal, received) in ready {
            self.drive(now, consensus::Input::Proposal { proposal, received });
        }
    }

    /// Order 1: writes a body that a lock may come to name. For each round the first valid one, and those that a quorum
    /// named: a proposer that makes many cannot fill the disk.
    fn store_body(&mut self, block_id: BlockId) {
        let height = self.height();
        let Some(body) = self.bodies.get(&block_id) else { return };
        let Some(bytes) = body.bytes.clone().filter(|_| body.ticket.is_none() && !body.durable && body.valid_block().is_some()) else {
            return;
        };
        let round = body.round;
        let first =
            !self.bodies.iter().any(|(id, other)| *id != block_id && other.round == round && (other.ticket.is_some() || other.durable));
        if !first && (!body.named_by_quorum || self.planted.has(Bug::FirstBodyOnly)) {
            return;
        }
        let ticket = self.fx.persist(Vec::new(), Write::Log(vec![body_record(height, &block_id, bytes)]));
        self.bodies.get_mut(&block_id).expect("just seen").ticket = Some(ticket);
    }

    pub(crate) fn on_durable(&mut self, now: Now, ticket: Ticket) {
        let found = self.bodies.iter().find(|(_, body)| body.ticket == Some(ticket)).map(|(id, _)| *id);
        if let Some(block_id) = found {
            self.bodies.get_mut(&block_id).expect("just found").durable = true;
            self.drive(now, consensus::Input::BodyDurable { block_id });
        }
    }

    // --- votes and certificates -------------------------------------------------------------------------------------

    pub(crate) fn on_vote(&mut self, _now: Now, peer: Peer, vote: Vote) {
        if vote.height != self.height() || self.check_own_vote(peer, &vote) || !self.is_news(&vote) {
            return;
        }
        if !self.verifying.insert(vote.clone()) {
            return;
        }
        match vote.clone().claim(&self.chain_id, &self.chain.validators) {
            Ok(claim) => self.verify(claim.checks().to_vec(), Job::Vote { peer, claim, key: vote }),
            Err(error) => {
                self.verifying.remove(&vote);
                self.blame(peer, POINTS_LIE, format!("a vote: {error}"));
            }
        }
    }

    /// Whether a vote could still count: not one that we hold, nor a third value of its place.
    fn is_news(&self, vote: &Vote) -> bool {
        let held = self.consensus.votes(vote.round, vote.kind).map_or(&[][..], |set| set.votes_of(vote.validator));
        held.len() < consensus::LOOSE_VALUES_MAX && !held.iter().any(|held| held.value() == vote.value())
    }

    pub(crate) fn on_verified_vote(&mut self, now: Now, vote: Verified<Vote>) {
        if vote.height != self.height() || self.deciding.is_some() {
            if vote.height == self.chain.height || self.deciding.is_some() {
                self.add_late_vote(&vote);
            }
            return;
        }
        self.drive(now, consensus::Input::Vote(vote));
        self.try_ready(now);
    }

    pub(crate) fn on_polka(&mut self, now: Now, peer: Peer, polka: Polka) {
        let _ = now;
        let bound = self.consensus.round().get().saturating_add(ROUNDS_AHEAD);
        if polka.round.get() > bound || self.consensus.polka(polka.round).is_some_and(|known| known.valid_round == polka.valid_round) {
            return;
        }
        match polka.claim(&self.chain_id, &self.chain.validators) {
            Ok(claim) => self.verify(claim.checks().to_vec(), Job::Polka { peer, claim }),
            Err(error) => self.blame(peer, POINTS_LIE, format!("a polka: {error}")),
        }
    }

    pub(crate) fn on_verified_polka(&mut self, now: Now, polka: Verified<Polka>) {
        if polka.height != self.height() || self.deciding.is_some() {
            return;
        }
        let block_id = polka.block_id;
        self.bodies.name(block_id, polka.round, true);
        self.store_body(block_id);
        self.drive(now, consensus::Input::Polka(polka));
        self.judge(block_id);
    }

    /// A certificate; `synced` is block sync's ticket, when it is that of a fetched block.
    pub(crate) fn on_commit(&mut self, now: Now, peer: Peer, commit: Commit, synced: Option<u64>) {
        if self.certificate.is_some() && synced.is_none() {
            return;
        }
        match commit.claim(&self.chain_id, &self.chain.validators) {
            Ok(claim) if synced.is_some() && self.planted.has(Bug::FetchedUnverified) => {
                let taken = vec![true; claim.checks().len()];
                self.settle_commit(now, peer, claim, synced, &taken);
            }
            Ok(claim) => self.verify(claim.checks().to_vec(), Job::Commit { peer, claim, synced }),
            Err(error) => {
                if let Some(ticket) = synced {
                    self.synced_block_is_bad(now, ticket);
                }
                self.blame(peer, POINTS_LIE, format!("a commit: {error}"));
            }
        }
    }

    pub(crate) fn on_verified_commit(&mut self, now: Now, commit: Verified<Commit>) {
        if commit.height != self.height() || self.deciding.is_some() {
            return;
        }
        let block_id = commit.block_id;
        if self.certificate.as_ref().is_some_and(|known| known.block_id == block_id) {
            return;
        }
        self.sync_certified(now, commit.height);
        self.certificate = Some(Arc::new(commit.clone()));
        self.bodies.name(block_id, commit.round, true);
        self.judge(block_id);
        self.drive(now, consensus::Input::Commit(commit));
        self.ask_body(now, block_id);
    }

    /// Consensus holds a precommit quorum for a body that was found invalid.
    fn certify(&mut self, commit: Commit) {
        let block_id = commit.block_id;
        if self.certificate.is_none()
            && let Ok(claim) = commit.claim(&self.chain_id, &self.chain.validators)
        {
            let valid = vec![true; claim.checks().len()];
            self.certificate = claim.settle(&valid).ok().map(Arc::new);
        }
        self.judge(block_id);
    }

    /// A precommit of the height before: it may still enter the next block's last commit.
    pub(crate) fn on_late_vote(&mut self, vote: Vote) {
        let Some(last) = &self.last else { return };
        let wanted = vote.kind == VoteType::Precommit
            && vote.height == last.commit.height
            && vote.round == last.commit.round
            && vote.block_id == Some(last.block_id)
            && last.commit.signatures.get(vote.validator.index()).is_some_and(|sig| !sig.is_for_block());
        if !wanted {
            return;
        }
        if let Ok(claim) = vote.claim(&self.chain_id, &self.chain.last_validators) {
            self.verify(claim.checks().to_vec(), Job::LateVote { claim });
        }
    }

    pub(crate) fn add_late_vote(&mut self, vote: &Verified<Vote>) {
        let Some(last) = &mut self.last else { return };
        if vote.kind != VoteType::Precommit || vote.height != last.commit.height || vote.round != last.commit.round {
            return;
        }
        let validators = &self.chain.last_validators;
        let held: Vec<Vote> = last.commit.votes().collect();
        last.commit = Commit::from_precommits(
            last.commit.height,
            last.commit.round,
            last.block_id,
            validators,
            held.iter().chain(std::iter::once(vote.get())),
        );
    }

    // --- deciding and executing -------------------------------------------------------------------------------------

    /// L49: the decision is written, behind its body if that is not written yet, and executed meanwhile.
    fn on_decide(&mut self, now: Now, commit: Commit) {
        let height = self.height();
        assert_eq!(commit.height, height, "consensus decides the height it was started with");
        let block_id = commit.block_id;
        let round = commit.round;
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
        self.deciding = Some(Deciding { block_id, block, body: bytes, commit, ticket, at: now.mono });
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
        self.last = Some(Last {
            commit: deciding.commit.get().clone(),
            block_id: deciding.block_id,
            body: deciding.body,
            ticket: Some(deciding.ticket),
        });
        self.bodies = Bodies::default();
        self.evidence_after_block();
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
        self.flush_when_due(&outcome, deciding.ticket);
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
    fn flush_when_due(&mut self, outcome: &Outcome, decision: Ticket) {
        let blocks = outcome.height.get().saturating_sub(self.flushed.get());
        let due = outcome.unflushed_keys >= self.config.flush_keys || blocks >= self.config.flush_blocks;
        if due && self.flushing.is_none() {
            self.flushing = Some(outcome.height);
            let after = if self.planted.has(Bug::FlushBeforeDecision) { Vec::new() } else { vec![decision] };
            self.fx.push(Effect::Flush { after, height: outcome.height, chain: self.chain.clone() });
        }
    }

    pub(crate) fn on_flushed(&mut self, height: Height) {
        self.flushing = None;
        self.flushed = self.flushed.max(height);
    }
}

fn body_record(height: Height, block_id: &BlockId, bytes: Bytes) -> LogRecord {
    LogRecord { kind: Kind::Body, height, round: Round::ZERO, block_hash: block_id.hash, payload: bytes }
}
