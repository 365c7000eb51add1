//! Catching up, beside consensus: what block sync fetched is handed to consensus as a certificate and a body, like those
//! that a peer pushes. There is no mode: consensus decides by the certificate (L49), and everything after a decision is the
//! same.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_sync::{Answer as SyncAnswer, BlockSync, Effect as SyncEffect, Fetched, Input as SyncInput};
use lockstep_types::block::part_set_header;
use lockstep_types::{BlockId, Commit, Height, Round};

use crate::jobs::Job;
use crate::planted::Bug;
use crate::replica::{POINTS_LIE, Replica};
use crate::seam::{Effect, JobId, Mono, Now, Peer, Report, Timer};
use crate::wire::{Answer, Question, Status};

/// A fetched block that waits for its height.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    peer: u64,
    height: Height,
    block: Arc<Fetched>,
}

/// A fetched block that is being verified.
#[derive(Debug)]
struct Current {
    ticket: u64,
    height: Height,
    /// What its sender says it is.
    block_id: BlockId,
    /// Whether the certificate that came with it holds. Its body is its certificate's, that was compared at the start.
    proven: bool,
}

/// Block sync and what it handed over.
#[derive(Debug)]
pub struct CatchUp {
    sync: BlockSync,
    waiting: VecDeque<Waiting>,
    /// The one that is being verified.
    current: Option<Current>,
    /// The earliest tick that is set.
    timer: Option<Mono>,
    /// What was last reported; nothing before a peer has said what it has.
    reported: Option<bool>,
}

impl CatchUp {
    /// At start, with this tip.
    pub fn new(tip: Height) -> Self {
        Self { sync: BlockSync::new(tip, 0), waiting: VecDeque::new(), current: None, timer: None, reported: None }
    }

    /// The highest height that is proven to be decided.
    pub fn target(&self) -> Height {
        self.sync.target()
    }

    /// Whether blocks are decided that we do not have, and peers are to give them.
    pub fn is_behind(&self) -> bool {
        self.sync.catching_up()
    }
}

/// The monotonic clock as block sync counts it.
pub(crate) fn millis(now: Now) -> u64 {
    now.mono.0 / 1_000_000
}

impl Replica {
    fn sync(&mut self, now: Now, input: SyncInput) {
        for effect in self.catch_up.sync.on(millis(now), input) {
            match effect {
                SyncEffect::Request { peer, id, from, count } => {
                    let job = self.fx.job();
                    self.jobs.insert(job, Job::AskBlocks { peer: Peer(peer), request: id });
                    self.fx.push(Effect::Request { job, peer: Peer(peer), bytes: Question::Blocks { from, count }.encode() });
                }
                SyncEffect::Verify { ticket, peer, height, block } => {
                    self.catch_up.waiting.push_back(Waiting { ticket, peer, height, block });
                }
                // Nothing more is asked of it, so the connection is of no use.
                SyncEffect::Blame { peer, reason } => {
                    self.blame(Peer(peer), POINTS_LIE, format!("block sync: {reason:?}"));
                    self.expel(Peer(peer), format!("block sync: {reason:?}"));
                }
            }
        }
        self.report_behind();
        if let Some(at) = self.catch_up.sync.wakeup_ms() {
            let at = Mono(at.saturating_mul(1_000_000)).max(now.mono);
            if self.catch_up.timer.is_none_or(|set| at < set || set <= now.mono) {
                self.catch_up.timer = Some(at);
                self.fx.push(Effect::SetTimer { at, timer: Timer::Sync });
            }
        }
    }

    /// Tells readers when this node falls behind, and when it is in step again. That it is in step is said for the first time when a peer
    /// has said what it has, and most are not ahead: before that nobody knows, or it is about to be proven that it is behind.
    pub(crate) fn report_behind(&mut self) {
        let behind = self.catch_up.is_behind() || self.is_cut_off();
        let is_known = behind || self.catch_up.reported.is_some() || self.seems_in_step();
        if is_known && self.catch_up.reported != Some(behind) {
            self.catch_up.reported = Some(behind);
            // What a peer only claims is no reason for readers to wait.
            let target = if behind { self.catch_up.sync.target() } else { self.catch_up.sync.tip() };
            self.fx.report(Report::CatchingUp { behind, target });
        }
    }

    pub(crate) fn on_sync_timer(&mut self, now: Now) {
        self.catch_up.timer = None;
        self.sync(now, SyncInput::Tick);
        self.verify_next(now);
        self.try_ready(now);
    }

    pub(crate) fn on_status(&mut self, now: Now, peer: Peer, status: Status) {
        if self.syncing.goes_first() {
            return;
        }
        self.sync(now, SyncInput::PeerStatus { peer: peer.0, base: status.base, tip: status.tip });
        self.verify_next(now);
    }

    pub(crate) fn sync_peer_gone(&mut self, now: Now, peer: Peer) {
        self.sync(now, SyncInput::PeerGone { peer: peer.0 });
    }

    /// Our tip moved. Who gave the block that was fetched for it is credited for a certificate that was verified, and blamed
    /// for another block; not for what others proved while its own was being verified.
    pub(crate) fn catch_up_with_peers(&mut self, now: Now) {
        let tip = self.chain.height;
        if let Some(Current { ticket, height, block_id, proven }) = self.catch_up.current.take_if(|current| current.height <= tip) {
            let is_another = height == tip && self.chain.last_block_id.is_some_and(|decided| decided != block_id);
            if proven || is_another {
                self.sync(now, SyncInput::Verdict { height, ticket, ok: proven });
            }
        }
        self.sync(now, SyncInput::Tip { height: tip });
        self.verify_next(now);
    }

    pub(crate) fn sync_certified(&mut self, now: Now, height: Height) {
        self.sync(now, SyncInput::Certified { height });
    }

    /// Hands the fetched block of this height to consensus: first its certificate is verified, then its body judged.
    fn verify_next(&mut self, now: Now) {
        let height = self.height();
        while self.catch_up.waiting.front().is_some_and(|next| next.height < height) {
            self.catch_up.waiting.pop_front();
        }
        let free = self.catch_up.current.is_none() && self.deciding.is_none();
        let ready = free && self.catch_up.waiting.front().is_some_and(|next| next.height == height);
        let Some(next) = ready.then(|| self.catch_up.waiting.pop_front()).flatten() else { return };
        let peer = Peer(next.peer);
        let commit = next.block.commit.clone();
        let block_id = commit.block_id;
        let ticket = next.ticket;
        let known = self.certificate.as_ref();
        let proven = known.is_some_and(|known| *known.get() == commit);
        let is_another = known.is_some_and(|known| known.block_id != block_id);
        self.catch_up.current = Some(Current { ticket, height, block_id, proven });
        // A large block comes as its certificate alone; its parts are asked for when that holds.
        let whole = !next.block.body.is_empty();
        let is_its = part_set_header(&next.block.body) == block_id.parts || self.planted.has(Bug::FetchedBodyUnchecked);
        if is_another || (whole && !is_its) {
            self.synced_block_is_bad(now, ticket);
            return;
        }
        if whole {
            // Kept under the certificate's name even while its signatures are being checked: should they fail, the name is one
            // that nobody asks for, and it goes with the height.
            self.bodies.put(block_id, Round::ZERO, Bytes::copy_from_slice(&next.block.body), None);
        }
        if !proven {
            self.on_commit(now, peer, commit, Some(ticket));
        }
        if self.certificate.is_some() {
            self.judge(block_id);
        }
    }

    /// The certificate of the fetched block holds.
    pub(crate) fn synced_block_is_proven(&mut self, ticket: u64) {
        if let Some(current) = self.catch_up.current.as_mut().filter(|current| current.ticket == ticket) {
            current.proven = true;
        }
    }

    /// The block that is being verified does not hold: its sender is left, and it is fetched from another.
    pub(crate) fn synced_block_is_bad(&mut self, now: Now, ticket: u64) {
        if let Some(Current { ticket, height, .. }) = self.catch_up.current.take_if(|current| current.ticket == ticket) {
            // What was handed over above it is void and comes again.
            self.catch_up.waiting.clear();
            self.sync(now, SyncInput::Verdict { height, ticket, ok: false });
            self.verify_next(now);
        }
    }

    pub(crate) fn on_response(&mut self, now: Now, id: JobId, bytes: Option<Bytes>) {
        let Some(job) = self.jobs.remove(&id) else { return };
        let answer = bytes.map(|bytes| Answer::decode(&bytes)).transpose();
        let peer = match &job {
            Job::AskBody { peer, .. }
            | Job::AskParts { peer, .. }
            | Job::AskBlocks { peer, .. }
            | Job::AskState { peer, .. }
            | Job::AskEvidence { peer, .. }
            | Job::AskPolkas { peer, .. }
            | Job::AskSigned { peer } => *peer,
            _ => return,
        };
        let answer = match answer {
            Ok(answer) => answer.filter(|_| self.peers.heard(peer).is_some()),
            Err(error) => {
                self.blame(peer, crate::replica::POINTS_GARBAGE, format!("an answer that is none: {error}"));
                None
            }
        };
        match (job, answer) {
            (Job::AskBody { height, block_id, .. }, Some(Answer::Body(body))) => self.on_body(now, peer, height, block_id, body),
            (Job::AskBody { .. }, Some(Answer::Unavailable(status))) => self.on_status(now, peer, status),
            (Job::AskParts { height, block_id, from, count, .. }, answer) => {
                let parts = match answer {
                    Some(Answer::Parts(parts)) => parts,
                    Some(Answer::Unavailable(status)) => {
                        self.on_status(now, peer, status);
                        Vec::new()
                    }
                    _ => Vec::new(),
                };
                self.on_parts(now, peer, height, block_id, (from, count), parts);
            }
            (Job::AskBlocks { request, .. }, Some(Answer::Certificate(commit))) => {
                self.sync(now, SyncInput::Response { peer: peer.0, id: request, answer: SyncAnswer::Certificate(commit) });
                self.verify_next(now);
            }
            (Job::AskBlocks { request, .. }, Some(Answer::Blocks(blocks))) => {
                let blocks: Vec<(Bytes, Commit)> = blocks;
                let fetched = blocks.into_iter().map(|(body, commit)| Fetched { body: Arc::from(&body[..]), commit }).collect();
                self.sync(now, SyncInput::Response { peer: peer.0, id: request, answer: SyncAnswer::Blocks(fetched) });
                self.verify_next(now);
            }
            (Job::AskBlocks { request, .. }, Some(Answer::Unavailable(Status { base, tip }))) => {
                self.sync(now, SyncInput::Response { peer: peer.0, id: request, answer: SyncAnswer::NotAvailable { base, tip } });
            }
            // Another kind of answer is as good as none.
            (Job::AskBlocks { request, .. }, _) => self.sync(now, SyncInput::Failed { peer: peer.0, id: request }),
            (Job::AskState { request, .. }, answer) => self.on_state_answer(now, peer, request, answer),
            (Job::AskPolkas { height, .. }, Some(Answer::Polkas(polkas))) => self.on_polkas_of(peer, height, polkas),
            (Job::AskEvidence { hash, .. }, Some(Answer::Evidence(evidence))) => self.on_asked_evidence(peer, hash, *evidence),
            (Job::AskSigned { .. }, Some(Answer::Signed(votes, proposals))) => self.on_own_messages(now, peer, votes, proposals),
            (Job::AskSigned { .. }, _) => self.on_own_messages(now, peer, Vec::new(), Vec::new()),
            // No answer, or another kind of one: the next exchange asks again.
            _ => {}
        }
    }
}
