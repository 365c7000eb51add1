//! Answering peers, without being used up by them.
//!
//! Every question of a peer passes [`lockstep_sync::Server`]: each peer in turn, one answer at a time, at a bounded rate, a
//! few answers being read from disk over all peers. What a node that catches up can take stays far below these bounds; one
//! that asks for more waits, and one that asks without waiting is refused and scored.

use std::collections::BTreeMap;

use bytes::Bytes;
use lockstep_app::snapshot::SPLIT_BYTES;
use lockstep_sync::Server;
use lockstep_sync::server::Serve;
use lockstep_types::block::{PART_BYTES, Part};
use lockstep_types::{Address, BlockId, Height, Proposal, Vote};

use crate::bodies::Body;
use crate::catch_up::millis;
use crate::jobs::Job;
use crate::replica::{Last, POINTS_GARBAGE, Replica};
use crate::seam::{AskId, Effect, JobId, Mono, Now, Peer, ReadAnswer, ReadQuestion, Report, Timer};
use crate::wire::{Answer, LIGHT_MAX, Question, VOTES_MAX, WHOLE_PARTS_MAX};

/// What one peer is sent on average, in bytes a second. More than a node that catches up can verify and execute, so an honest
/// one never waits; and little enough that one peer does not keep the disk from the others.
pub const SERVE_BYTES_PER_S: u64 = 64 << 20;
/// How bad a question beyond those that may wait is, in points of the shell's score. A correct peer may send a few when its
/// requests time out; one that goes on sending them is out after a hundred.
pub const POINTS_FLOOD: u32 = 1;

/// A range of parts counts for this part of its body at least: whoever reads the log keeps one body cut, and a peer that
/// asks for another one each time has a whole one read for a few parts.
const REREAD_PART: u64 = 4;

/// What looking for one header with its commit and sets costs the disk: three records, the body of a block among them.
const LIGHT_COST: u64 = 64 << 10;

/// What looking for the polkas of a height costs the disk: a few records.
const POLKAS_COST: u64 = 64 << 10;

/// The questions that wait for their turn.
#[derive(Debug)]
pub(crate) struct Serving {
    server: Server,
    /// At most what the server lets wait.
    waiting: BTreeMap<AskId, (Peer, Question)>,
    /// The earliest turn that is set.
    timer: Option<Mono>,
}

impl Default for Serving {
    fn default() -> Self {
        Self { server: Server::new(SERVE_BYTES_PER_S), waiting: BTreeMap::new(), timer: None }
    }
}

impl Replica {
    pub(crate) fn on_question(&mut self, now: Now, peer: Peer, ask: AskId, bytes: &Bytes) {
        if self.peers.heard(peer).is_none() {
            self.refuse(ask); // Its connection ended, or is about to, while this was on its way.
            return;
        }
        let question = match Question::decode(bytes) {
            Ok(question) => question,
            Err(error) => {
                self.refuse(ask);
                self.blame(peer, POINTS_GARBAGE, format!("a question that is none: {error}"));
                return;
            }
        };
        let (from, count) = match question {
            Question::Blocks { from, count } => (from, count),
            Question::Light { from, count } => (from, count),
            Question::Body { height, .. }
            | Question::Parts { height, .. }
            | Question::Signed { from: height, .. }
            | Question::Manifest { height }
            | Question::Polkas { height }
            | Question::Chunk { height, .. } => (height, 1),
            Question::Snapshots | Question::Evidence { .. } => (self.chain.height, 1),
        };
        if !self.serving.server.on_request(millis(now), Serve { peer: peer.0, id: ask.0, from, count }) {
            self.refuse(ask);
            // Asking is no lie, and the shell's score forgives it with time.
            let reason = "more questions than may wait".to_owned();
            self.fx.report(Report::Refused { peer, points: POINTS_FLOOD, reason });
            return;
        }
        self.serving.waiting.insert(ask, (peer, question));
        self.serve(now);
    }

    /// A peer left, and its questions with it. The shell forgets whom to answer when it is answered.
    pub(crate) fn stop_serving(&mut self, now: Now, peer: Peer) {
        self.serving.server.peer_gone(peer.0);
        let theirs: Vec<AskId> = self.serving.waiting.iter().filter(|(_, (asker, _))| *asker == peer).map(|(ask, _)| *ask).collect();
        for ask in theirs {
            self.serving.waiting.remove(&ask);
            self.refuse(ask);
        }
        self.serve(now);
    }

    pub(crate) fn on_serve_timer(&mut self, now: Now) {
        self.serving.timer = None;
        self.serve(now);
    }

    /// Answers the questions whose turn it is.
    fn serve(&mut self, now: Now) {
        while let Some(Serve { id, .. }) = self.serving.server.next(millis(now)) {
            let ask = AskId(id);
            let (peer, question) = self.serving.waiting.remove(&ask).expect("what the server lets wait is kept here");
            self.answer(peer, ask, question);
        }
        let Some(at) = self.serving.server.wakeup_ms().map(|at| Mono(at.saturating_mul(1_000_000))) else { return };
        // One that could be answered now waits for the others that are read, and is looked at when they are.
        if at > now.mono && self.serving.timer.is_none_or(|set| at < set || set <= now.mono) {
            self.serving.timer = Some(at);
            self.fx.push(Effect::SetTimer { at, timer: Timer::Serve });
        }
    }

    fn answer(&mut self, peer: Peer, ask: AskId, question: Question) {
        match question {
            Question::Blocks { from, count } => {
                if from < self.base || from > self.chain.height || from == Height::ZERO || count == 0 {
                    self.respond(peer, ask, &Answer::Unavailable(self.status()), 0);
                    return;
                }
                let count = count.min(lockstep_sync::RANGE_BLOCKS_MAX);
                if let Some(answer) = self.not_written_yet(from, count) {
                    self.respond(peer, ask, &answer, 0);
                    return;
                }
                self.read(peer, ask, ReadQuestion::Blocks { from, count, bytes_max: lockstep_sync::RESPONSE_BYTES_MAX }, 0);
            }
            Question::Body { block_id, .. } if block_id.parts.total > WHOLE_PARTS_MAX => {
                self.respond(peer, ask, &Answer::Unavailable(self.status()), 0);
            }
            Question::Body { height, block_id } => {
                let held = self.bodies.get(&block_id).and_then(|body| body.bytes.clone());
                let last = || self.last.as_ref().filter(|last| last.block_id == block_id).map(|last| last.body.clone());
                match held.or_else(last) {
                    Some(body) => self.respond(peer, ask, &Answer::Body(body), 0),
                    None => self.read(peer, ask, ReadQuestion::Body { height, block_id }, body_bytes(&block_id)),
                }
            }
            Question::Parts { height, block_id, from, count } => {
                let count = count.min(WHOLE_PARTS_MAX);
                if self.bodies.get(&block_id).is_some_and(Body::has_parts) {
                    let indices = from..from.saturating_add(count).min(block_id.parts.total);
                    let parts: Vec<Part> = indices.filter_map(|index| self.bodies.part(&block_id, index)).collect();
                    self.respond(peer, ask, &Answer::Parts(parts), 0);
                } else {
                    self.read(peer, ask, ReadQuestion::Parts { height, block_id, from, count }, body_bytes(&block_id) / REREAD_PART);
                }
            }
            Question::Snapshots => self.read(peer, ask, ReadQuestion::Snapshots, 0),
            Question::Light { from, count } => {
                // The last block's header, too: a chain that waits for a validator who is to begin from it has none above. And those above it
                // that are kept apart: of a node that lost its log nothing but these may lead others to its snapshot.
                if from == Height::ZERO || count == 0 {
                    self.respond(peer, ask, &Answer::Unavailable(self.status()), 0);
                    return;
                }
                let count = count.min(u32::try_from(LIGHT_MAX).expect("small"));
                self.read(
                    peer,
                    ask,
                    ReadQuestion::Light { from, count, bytes_max: lockstep_sync::RESPONSE_BYTES_MAX, tip: self.chain.height },
                    LIGHT_COST * u64::from(count),
                );
            }
            Question::Polkas { height } => self.read(peer, ask, ReadQuestion::Polkas { height }, POLKAS_COST),
            Question::Manifest { height } => self.read(peer, ask, ReadQuestion::Manifest { height }, 0),
            Question::Chunk { height, root, outline } => {
                let cost = if outline.is_some() { SPLIT_BYTES } else { 0 };
                self.read(peer, ask, ReadQuestion::Chunk { height, root, outline }, cost);
            }
            Question::Evidence { hash } => {
                let piece = self.evidence.piece(&hash).cloned();
                let answer = piece.map_or_else(|| Answer::Unavailable(self.status()), |piece| Answer::Evidence(Box::new(piece)));
                self.respond(peer, ask, &answer, 0);
            }
            Question::Signed { address, from } => {
                let (votes, proposals) = self.signed_by(&address, from);
                self.respond(peer, ask, &Answer::Signed(votes, proposals), 0);
            }
        }
    }

    /// Blocks that are decided and not on the disk yet, if the first of a range is one of them. Peers know from our votes that we have
    /// them, and would take it for a claim that we do not keep if we said that we have not.
    fn not_written_yet(&self, from: Height, count: u32) -> Option<Answer> {
        let lowest = self.undurable.front()?.commit.height;
        let skipped = usize::try_from(from.get().checked_sub(lowest.get())?).unwrap_or(usize::MAX);
        let first = &self.undurable.get(skipped)?.commit;
        if first.block_id.parts.total > WHOLE_PARTS_MAX {
            return Some(Answer::Certificate(first.clone()));
        }
        let mut bytes = 0;
        let fits = |last: &&Last| {
            bytes += lockstep_sync::fetched_bytes(last.body.len(), last.commit.signatures.len());
            let is_first = last.commit.height == from;
            last.commit.block_id.parts.total <= WHOLE_PARTS_MAX && (is_first || bytes <= lockstep_sync::RESPONSE_BYTES_MAX)
        };
        let blocks = self.undurable.iter().skip(skipped).take(count as usize).take_while(fits);
        Some(Answer::Blocks(blocks.map(|last| (last.body.clone(), last.commit.clone())).collect()))
    }

    fn read(&mut self, peer: Peer, ask: AskId, what: ReadQuestion, cost: u64) {
        let job = self.fx.job();
        self.jobs.insert(job, Job::Serve { peer, ask, cost });
        self.fx.push(Effect::Read { job, what });
    }

    pub(crate) fn on_read(&mut self, now: Now, id: JobId, answer: ReadAnswer) {
        let Some(Job::Serve { peer, ask, cost }) = self.jobs.remove(&id) else { return };
        let cost = if answer == ReadAnswer::Absent { 0 } else { cost };
        let answer = match answer {
            ReadAnswer::Blocks(blocks) if !blocks.is_empty() => Answer::Blocks(blocks),
            ReadAnswer::Certificate(commit) => Answer::Certificate(commit),
            ReadAnswer::Body(Some(body)) => Answer::Body(body),
            ReadAnswer::Parts(parts) if !parts.is_empty() => Answer::Parts(parts),
            ReadAnswer::Snapshots(heights) => Answer::Snapshots(heights),
            ReadAnswer::Light(blocks) if !blocks.is_empty() => Answer::Light(blocks),
            ReadAnswer::Manifest(manifest) => Answer::Manifest(manifest),
            ReadAnswer::Chunk(chunk) => Answer::Chunk(chunk),
            ReadAnswer::Difference(difference) => Answer::Difference(*difference),
            ReadAnswer::Polkas(polkas) => Answer::Polkas(polkas),
            _ => Answer::Unavailable(self.status()),
        };
        self.respond(peer, ask, &answer, cost);
        self.serve(now);
    }

    /// Answers a question whose turn it was. It counts for its bytes, and at least for what it cost.
    fn respond(&mut self, peer: Peer, ask: AskId, answer: &Answer, cost: u64) {
        let bytes = answer.encode();
        self.serving.server.served(peer.0, cost.max(bytes.len() as u64));
        self.fx.push(Effect::Respond { ask, bytes });
    }

    /// Answers a question that gets no turn.
    fn refuse(&mut self, ask: AskId) {
        let bytes = Answer::Unavailable(self.status()).encode();
        self.fx.push(Effect::Respond { ask, bytes });
    }

    /// What we hold of a validator's messages, from a height on.
    fn signed_by(&self, address: &Address, from: Height) -> (Vec<Vote>, Vec<Proposal>) {
        let mut votes = Vec::new();
        let mut proposals = Vec::new();
        if let (true, Some(index)) = (self.height() >= from, self.chain.validators.index_of(address)) {
            votes.extend(self.all_votes().filter(|vote| vote.validator == index).take(VOTES_MAX).cloned());
            for held in self.proposals.values().flatten() {
                if self.chain.validators.proposer(held.proposal.round) == index && proposals.len() < VOTES_MAX {
                    proposals.push(held.proposal.get().clone());
                }
            }
        }
        (votes, proposals)
    }
}

/// What reading a body costs, by its name.
fn body_bytes(block_id: &BlockId) -> u64 {
    u64::from(block_id.parts.total).saturating_mul(PART_BYTES as u64)
}
