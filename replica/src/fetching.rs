//! Bodies that a quorum named and that nobody sent: asked for. One that fits an answer is asked for whole; a larger one by
//! ranges of parts, each verified when it comes, a few on their way at a time and from several peers.

use std::time::Duration;

use bytes::Bytes;
use lockstep_types::block::{Part, part_set_header};
use lockstep_types::{BlockId, Height};

use crate::bodies::PartFate;
use crate::jobs::Job;
use crate::planted::Bug;
use crate::replica::{POINTS_LIE, Replica};
use crate::seam::{Effect, Now, Peer};
use crate::wire::{Question, WHOLE_PARTS_MAX};

/// A body is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A range of parts is asked of somebody else after this: 4 MiB at 16 Mbit/s.
const ASK_RANGE_AGAIN: Duration = Duration::from_secs(2);
/// Ranges of one body that are on their way: one arrives while the other is read. It is within what a peer lets wait.
const RANGES_ASKED_MAX: usize = 2;

impl Replica {
    /// Asks somebody for a body that we lack.
    pub(crate) fn ask_body(&mut self, now: Now, block_id: BlockId) {
        let height = self.height();
        let Some(body) = self.bodies.get(&block_id).filter(|body| body.bytes.is_none()) else { return };
        if block_id.parts.total > WHOLE_PARTS_MAX {
            self.ask_ranges(now, block_id);
            return;
        }
        if body.asked_at.is_some_and(|at| now.mono.since(at) < ASK_AGAIN) {
            return;
        }
        let Some(peer) = self.peers.to_ask(height) else { return };
        self.bodies.get_mut(&block_id).expect("just seen").asked_at = Some(now.mono);
        let job = self.fx.job();
        self.jobs.insert(job, Job::AskBody { peer, height, block_id });
        self.fx.push(Effect::Request { job, peer, bytes: Question::Body { height, block_id }.encode() });
    }

    pub(crate) fn on_body(&mut self, now: Now, peer: Peer, height: Height, block_id: BlockId, bytes: Bytes) {
        if height != self.height() || self.deciding.is_some() {
            return;
        }
        if part_set_header(&bytes) != block_id.parts && !self.planted.has(Bug::AnsweredBodyUnchecked) {
            self.blame(peer, POINTS_LIE, "a body that is not the one asked for".into());
            return;
        }
        self.bodies.put(block_id, self.consensus.round(), bytes, None);
        self.gossip.progressed(now);
        self.judge(block_id);
    }

    fn ask_ranges(&mut self, now: Now, block_id: BlockId) {
        let height = self.height();
        let Some(body) = self.bodies.get_mut(&block_id) else { return };
        body.ranges_asked.retain(|_, (_, at)| now.mono.since(*at) < ASK_RANGE_AGAIN);
        let lacking: Vec<(u32, u32)> = body.lacking_ranges(block_id.parts.total, WHOLE_PARTS_MAX);
        for (from, end) in lacking {
            let Some(body) = self.bodies.get_mut(&block_id).filter(|body| body.ranges_asked.len() < RANGES_ASKED_MAX) else { return };
            let range = from / WHOLE_PARTS_MAX;
            if body.ranges_asked.contains_key(&range) {
                continue;
            }
            let Some(peer) = self.peers.to_ask(height) else { return };
            body.ranges_asked.insert(range, (peer, now.mono));
            let count = end - from;
            let job = self.fx.job();
            self.jobs.insert(job, Job::AskParts { peer, height, block_id, from, count });
            self.fx.push(Effect::Request { job, peer, bytes: Question::Parts { height, block_id, from, count }.encode() });
        }
    }

    /// A range of parts came, or did not: no parts.
    pub(crate) fn on_parts(
        &mut self,
        now: Now,
        peer: Peer,
        height: Height,
        block_id: BlockId,
        (from, count): (u32, u32),
        parts: Vec<Part>,
    ) {
        if height != self.height() || self.deciding.is_some() {
            return;
        }
        let Some(body) = self.bodies.get_mut(&block_id) else { return };
        let range = from / WHOLE_PARTS_MAX;
        if body.ranges_asked.get(&range).is_some_and(|(asked, _)| *asked == peer) {
            body.ranges_asked.remove(&range);
        }
        let mut kept = false;
        for part in parts {
            let asked_for = part.index >= from && part.index - from < count;
            match self.bodies.add_part(peer, &block_id.parts, part) {
                PartFate::Whole(names) if asked_for => {
                    self.gossip.progressed(now);
                    names.into_iter().for_each(|block_id| self.judge(block_id));
                    return;
                }
                PartFate::Kept if asked_for => kept = true,
                PartFate::Known | PartFate::Unnamed if asked_for => {}
                _ => {
                    self.blame(peer, POINTS_LIE, "parts that are not those asked for".into());
                    return;
                }
            }
        }
        // Who gave nothing new is not asked again at once, nor anybody else: the next exchange does it.
        if kept {
            self.gossip.progressed(now);
            self.ask_ranges(now, block_id);
        }
    }
}
