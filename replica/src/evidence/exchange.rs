//! What a node tells its peers of evidence, and what it makes of what they and its clients tell.
//!
//! Every piece that waits is told to every peer, at once, with the block after, and again every few seconds while it waits: a peer that
//! was behind could make nothing of it the first time. When a block accuses the same validator it is told anew: who held another piece of
//! that culprit had no room for this one. What a peer tells is judged before it is believed, a few pieces at a time of each
//! peer: more than one signature check for each is asked for nothing else, and what is dropped comes again.

use std::sync::Arc;
use std::time::Duration;

use lockstep_types::{Evidence, Hash, Vote};

use super::kept::Kept;
use super::rules::Refused;
use crate::jobs::Job;
use crate::planted::Bug;
use crate::replica::{POINTS_LIE, Replica};
use crate::seam::{Effect, JobId, Lane, Now, Peer, Reply, Report, RequestId, Target, Write};
use crate::wire::{FRAME_BYTES_MAX, Message, Question};

/// Pieces of one peer that are judged at a time.
const JUDGING_PEER_MAX: usize = 2;
/// Pieces that are judged at a time, those of clients among them. One may cost a read of two blocks and, as an attack on light
/// clients, as many signatures as a set has members.
const JUDGING_MAX: usize = 16;
/// Long pieces that are asked for at a time, of as many peers.
const ASKED_MAX: usize = 4;
/// Pieces that a peer is told in one go.
const TELL_MAX: usize = 8;
/// What still waits is told again.
const TELL_AGAIN: Duration = Duration::from_secs(2);

/// Where a piece that is judged came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A peer.
    Peer(Peer),
    /// A client.
    Client(RequestId),
    /// The own disk.
    Disk,
}

impl Replica {
    /// A block that carries these was committed: what was seen at its height is evidence now.
    pub(crate) fn evidence_after_block(&mut self, carried: &[Evidence]) {
        let chain = self.chain.clone();
        for evidence in self.evidence.committed(&chain, carried) {
            self.fx.report(Report::Evidence { evidence: Arc::new(evidence) });
        }
        self.judge_kept();
        self.tell_all_evidence();
    }

    /// Two votes were counted that contradict each other. Of a validator's first two at a height the disk is told at once: nobody may
    /// see them again.
    pub(crate) fn saw_two_votes(&mut self, first: Vote, second: Vote) {
        if self.evidence.saw(first.clone(), second.clone()) {
            self.keep_evidence(&Kept::Seen(Box::new((first, second))));
        }
    }

    /// Has what lies on the disk judged, as far as the chain has come and as many as are judged at a time.
    pub(crate) fn judge_kept(&mut self) {
        while self.judging().count() < JUDGING_MAX
            && let Some(kept) = self.evidence.next_kept(&self.chain)
        {
            if let Some(evidence) = kept.into_evidence() {
                self.judge_evidence(evidence, Source::Disk);
            }
        }
    }

    /// Writes a piece for the next start. Nothing waits for it.
    pub(super) fn keep_evidence(&mut self, kept: &Kept) {
        if !self.planted.has(Bug::EvidenceNotKept) {
            self.fx.persist(Vec::new(), Write::Log(vec![kept.record()]));
        }
    }

    /// A peer told of a piece.
    pub(crate) fn on_evidence(&mut self, peer: Peer, evidence: Evidence) {
        let hash = evidence.hash();
        if self.evidence.contains(&hash) {
            self.evidence.note_told(peer, hash);
            return;
        }
        let of_peer = self.judging().filter(|source| *source == Source::Peer(peer)).count();
        if of_peer < JUDGING_PEER_MAX && self.evidence.wants(&evidence, &self.chain) {
            self.judge_evidence(evidence, Source::Peer(peer));
        }
    }

    /// A peer has a piece that is too long to be told. It is asked for it: one at a time, and a few over all peers.
    pub(crate) fn on_evidence_offered(&mut self, peer: Peer, hash: Hash) {
        if self.evidence.contains(&hash) {
            self.evidence.note_told(peer, hash);
            return;
        }
        let asked = |job: &Job| if let Job::AskEvidence { peer, hash } = job { Some((*peer, *hash)) } else { None };
        let out: Vec<(Peer, Hash)> = self.jobs.values().filter_map(asked).collect();
        // What is on its way from another peer comes; what is dropped here is offered again.
        if out.len() < ASKED_MAX && out.iter().all(|(asked, named)| *asked != peer && *named != hash) {
            let job = self.fx.job();
            self.jobs.insert(job, Job::AskEvidence { peer, hash });
            self.fx.push(Effect::Request { job, peer, bytes: Question::Evidence { hash }.encode() });
        }
    }

    /// A peer gave the piece that it was asked for.
    pub(crate) fn on_asked_evidence(&mut self, peer: Peer, hash: Hash, evidence: Evidence) {
        if evidence.hash() == hash {
            self.on_evidence(peer, evidence);
        } else {
            self.blame(peer, POINTS_LIE, "evidence: another than it said to have".to_owned());
        }
    }

    /// A client brings a piece.
    pub(crate) fn on_submitted_evidence(&mut self, request: RequestId, evidence: Evidence) {
        let hash = evidence.hash();
        let is_known = self.evidence.contains(&hash) || self.chain.standing.committed_evidence.iter().any(|piece| piece.hash == hash);
        if is_known {
            self.fx.push(Effect::Reply { request, after: Vec::new(), reply: Reply::Evidence { hash, refused: None } });
        } else if !self.judge_evidence(evidence, Source::Client(request)) {
            let refused = Some("too much evidence is being judged already: try again".to_owned());
            self.fx.push(Effect::Reply { request, after: Vec::new(), reply: Reply::Evidence { hash, refused } });
        }
    }

    fn judging(&self) -> impl Iterator<Item = Source> {
        self.jobs.values().filter_map(|job| if let Job::Judge { source } = job { Some(*source) } else { None })
    }

    /// Has a piece judged; not when too many are.
    pub(super) fn judge_evidence(&mut self, evidence: Evidence, source: Source) -> bool {
        if self.judging().count() >= JUDGING_MAX {
            return false;
        }
        let job = self.fx.job();
        self.jobs.insert(job, Job::Judge { source });
        // Peers say all of it; clients may not know what the chain knows, and votes were written down before it was known.
        let complete = matches!(source, Source::Client(_) | Source::Disk);
        self.fx.push(Effect::Judge { job, evidence: Box::new(evidence), chain: self.chain.clone(), complete });
        true
    }

    pub(crate) fn on_judged(&mut self, now: Now, id: JobId, evidence: Evidence, verdict: Result<(), Refused>) {
        let Some(Job::Judge { source }) = self.jobs.remove(&id) else { return };
        let hash = evidence.hash();
        let chain = self.chain.clone();
        let is_new = verdict.is_ok() && self.evidence.add(evidence.clone(), &chain);
        if is_new && source != Source::Disk {
            self.keep_evidence(&Kept::Piece(Box::new(evidence.clone())));
        }
        match source {
            Source::Peer(peer) => match &verdict {
                Err(refused) if refused.is_lie() => self.blame(peer, POINTS_LIE, format!("evidence: {refused}")),
                _ => self.evidence.note_told(peer, hash),
            },
            Source::Client(request) => {
                // What is true and of no use any more is as good as known.
                let refused = verdict.err().filter(|refused| *refused != Refused::Committed).map(|refused| refused.to_string());
                self.fx.push(Effect::Reply { request, after: Vec::new(), reply: Reply::Evidence { hash, refused } });
            }
            Source::Disk => match &verdict {
                Err(Refused::Early(_)) => self.evidence.keep_for_later(Kept::Piece(Box::new(evidence.clone()))),
                Err(refused) if refused.is_lie() => {
                    self.fx.report(Report::Note(format!("evidence in the block log is passed over: {refused}")));
                }
                _ => self.judge_kept(),
            },
        }
        if is_new {
            self.fx.report(Report::Evidence { evidence: Arc::new(evidence) });
            self.tell_all_evidence();
            self.try_ready(now);
        }
    }

    /// Tells every peer what it is not known to have.
    fn tell_all_evidence(&mut self) {
        let peers: Vec<Peer> = self.peers.iter().filter(|(_, state)| !state.expelled).map(|(peer, _)| peer).collect();
        for peer in peers {
            self.tell_evidence(peer);
        }
    }

    /// Tells a peer what it is not known to have.
    pub(crate) fn tell_evidence(&mut self, peer: Peer) {
        for (hash, evidence) in self.evidence.untold(peer, TELL_MAX) {
            self.evidence.note_told(peer, hash);
            let whole = Message::Evidence(Box::new(evidence)).encode();
            // An attack on the clients of a very large set does not fit a frame: its name does.
            let bytes = if whole.len() <= FRAME_BYTES_MAX { whole } else { Message::HasEvidence(hash).encode() };
            self.fx.push(Effect::Send { to: Target::One(peer), lane: Lane::Votes, bytes });
        }
    }

    /// Now and then: what waits is told again.
    pub(crate) fn tell_evidence_again(&mut self, now: Now) {
        if self.evidence.is_empty() || now.mono.since(self.evidence_told_at) < TELL_AGAIN {
            return;
        }
        self.evidence_told_at = now.mono;
        self.evidence.forget_told();
        self.tell_all_evidence();
    }
}
