//! Proposals and bodies: made, taken in, judged, stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lockstep_consensus as consensus;
use lockstep_storage::log::Kind;
use lockstep_types::block::{Part, PartSetHeader};
use lockstep_types::vote::Verified;
use lockstep_types::{Block, BlockId, Height, Proposal, Round, Time};

use crate::bodies::PartFate;
use crate::check::{BuildJob, BuiltBlock, CheckFailure, CheckJob};
use crate::jobs::Job;
use crate::planted::Bug;
use crate::replica::{HeldProposal, POINTS_LIE, Replica};
use crate::seam::{Effect, JobId, LogRecord, Now, Peer, Report, Ticket, Timer, Write};

/// Proposals kept for one round: a correct proposer makes one, and the second is the proof that it is not.
const PROPOSALS_PER_ROUND: usize = 2;
/// Rounds ahead of ours of which proposals are kept.
pub(crate) const ROUNDS_AHEAD: u32 = 2;

impl Replica {
    /// L18, with proposer-based timestamps: the block's time is the proposer's clock, past the last block's. The proposer
    /// waits only while its clock is more than half of PRECISION behind, and at most PRECISION.
    pub(crate) fn build_when_time_allows(&mut self, now: Now, height: Height, round: Round) {
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

    pub(crate) fn build(&mut self, now: Now, height: Height, round: Round) {
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
        self.forget_old_proposals();
        let held = self.proposals.entry(round).or_default();
        if held.len() >= PROPOSALS_PER_ROUND || held.iter().any(|held| held.proposal == proposal) {
            return;
        }
        held.push(HeldProposal { proposal, received, delivered: false });
        let is_whole_now = self.bodies.name(block_id, round, false);
        if is_whole_now || self.bodies.get(&block_id).is_some_and(|body| body.unknown) {
            self.judge(block_id);
        }
        self.deliver(now, block_id);
    }

    /// A height may take very many rounds, as where clocks are wrong: proposals stay for as many of them as loose votes do.
    fn forget_old_proposals(&mut self) {
        let oldest = Round::new(self.consensus.round().get().saturating_sub(consensus::ROUNDS_BEHIND_MAX)).expect("below ours");
        while self.proposals.first_key_value().is_some_and(|(round, _)| *round < oldest) {
            self.proposals.pop_first();
        }
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

    /// Has a whole body judged, once; anew, where it could not be ([`CheckFailure::Unknown`]); and again when a certificate turns up for one that
    /// was found invalid.
    pub(crate) fn judge(&mut self, block_id: BlockId) {
        let certified = self.certificate.as_ref().is_some_and(|commit| commit.block_id == block_id);
        let known = self.last.as_ref().map(|last| Arc::new(last.commit.clone()));
        let Some(body) = self.bodies.get_mut(&block_id) else { return };
        let again = certified && matches!(body.verdict, Some(Err(_)));
        let Some(bytes) = body.bytes.clone().filter(|_| !body.checking && (body.verdict.is_none() || again)) else { return };
        (body.checking, body.unknown) = (true, false);
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
            match failure {
                CheckFailure::State { header, .. } => self.on_contradicting_header((**header).clone()),
                other => self.halt(format!(
                    "block {height} ({block_id}) was decided by more than two thirds of the power, and this node finds it wrong: {other}. \
                     Either this program is not the one that the chain runs, or a third of the power lies; keep this home for inspection"
                )),
            }
            return;
        }
        if matches!(verdict, Err(CheckFailure::Unknown(_))) {
            // valid(v) is of the block alone, and stays: what a disk did not give back once must not decide it for all rounds, while others
            // may be locked on the block. As if it were judged still, which costs a vote of nil where nobody names it again in time.
            let Some(body) = self.bodies.get_mut(&block_id) else { return };
            (body.checking, body.unknown) = (false, true);
            let is_certified = self.certificate.as_ref().is_some_and(|commit| commit.block_id == block_id);
            if is_certified {
                self.judge(block_id);
            }
            return;
        }
        // Before it may get a vote.
        if let Ok(block) = &verdict
            && let Some(commit) = &block.last_commit
        {
            let validators = self.chain.last_validators.clone();
            self.check_own_slot(commit, &validators);
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
            self.tell_untimely(&proposal, received);
            self.drive(now, consensus::Input::Proposal { proposal, received });
        }
    }

    /// Whoever keeps the clocks is told which one disagrees with which.
    fn tell_untimely(&mut self, proposal: &Proposal, received: Time) {
        let is_answered = proposal.pol_round.is_none() && proposal.round == self.consensus.round();
        if is_answered && !consensus::is_timely(proposal, received, &self.chain.params) {
            let validators = &self.chain.validators;
            let proposer = validators.get(validators.proposer(proposal.round)).expect("the proposer is in the set").address;
            self.fx.report(Report::Untimely { proposal: Box::new(proposal.clone()), proposer, received });
        }
    }

    /// Order 1: writes a body that a lock may come to name. For each round the first valid one, and those that a quorum
    /// named: a proposer that makes many cannot fill the disk.
    pub(crate) fn store_body(&mut self, block_id: BlockId) {
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
        if let Some(deciding) = self.deciding.as_mut().filter(|deciding| deciding.ticket == ticket) {
            deciding.is_durable = true;
        }
        // Decisions are written in order.
        if let Some(place) = self.undurable.iter().position(|last| last.ticket == Some(ticket)) {
            self.undurable.drain(..=place);
        }
    }
}

/// A body, as the log has it.
pub(crate) fn body_record(height: Height, block_id: &BlockId, bytes: Bytes) -> LogRecord {
    LogRecord { kind: Kind::Body, height, round: Round::ZERO, block_hash: block_id.hash, payload: bytes }
}
