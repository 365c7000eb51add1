//! Blocks above the snapshot's, collected while its chunks come: who begins with the snapshot executes them at once, and does not depend on
//! peers who let them go meanwhile.
//!
//! # What is believed
//!
//! Headers come in runs. Each names the validators of the next, and more than two thirds of those signed it: light clients' rule for
//! the next height ([`lockstep_types::light`]), one height after the other from the snapshot's on, and so safe as block sync is. A
//! body is proven part by part under the name that its header's certificate has.
//!
//! # Why nothing depends on it
//!
//! No height is given up for what does not come here, nothing waits for it, and it is no progress of the chunks': what is not here
//! when the snapshot is whole is fetched by block sync, as without all this. What it takes is bounded: [`AHEAD_BLOCKS_MAX`],
//! [`AHEAD_BYTES_MAX`], and one question at a time, for which chunks leave room while it is at work.

use std::collections::BTreeMap;

use lockstep_types::block::{PART_BYTES, Part};
use lockstep_types::light::{self, LightBlock, LightClaim, LightError, Trusted};
use lockstep_types::planted::{self, Bug};
use lockstep_types::{BlockId, Height};

use super::super::{AHEAD_BLOCKS_MAX, AHEAD_BYTES_MAX, Check, Checked, HEADERS_MAX, Question, StateEffect};
use super::answers::are_those_asked_for;
use super::{Item, Judging, Phase, StateSync};
use crate::server::WHOLE_PARTS_MAX;

/// What is collected above a snapshot.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The highest header that is proven, the snapshot's own at first.
    top: LightBlock,
    /// How many headers are asked for at once: fewer where the sets are large, since an answer has a bound.
    run: u32,
    claimed: Option<Claimed>,
    /// Proven by their headers, and not kept yet.
    bodies: BTreeMap<Height, Body>,
    /// Blocks that are kept.
    pub(super) here: u32,
    /// Blocks that were proven, and their bytes to a part.
    blocks: u32,
    bytes: u64,
    /// What is trusted is too old to prove more.
    is_over: bool,
}

/// Headers whose signatures are being checked, upwards, and who gave them.
#[derive(Debug)]
struct Claimed {
    peer: u64,
    blocks: Vec<(LightBlock, LightClaim)>,
}

/// A body that is wanted.
#[derive(Debug)]
struct Body {
    block: LightBlock,
    /// Its parts, each proven when it came.
    parts: BTreeMap<u32, Vec<u8>>,
    /// The disk has it, or is asked whether it does.
    is_judged: bool,
}

impl Ahead {
    /// Nothing so far above this block, which is proven.
    pub(super) const fn above(block: LightBlock) -> Self {
        Self { top: block, run: HEADERS_MAX, claimed: None, bodies: BTreeMap::new(), here: 0, blocks: 0, bytes: 0, is_over: false }
    }

    /// Whether another question follows as soon as something is judged.
    pub(super) fn is_at_work(&self) -> bool {
        self.claimed.is_some() || !self.bodies.is_empty()
    }

    const fn is_full(&self) -> bool {
        self.is_over || self.blocks >= AHEAD_BLOCKS_MAX || self.bytes >= AHEAD_BYTES_MAX
    }
}

impl StateSync {
    fn ahead(&mut self) -> Option<&mut Ahead> {
        match &mut self.phase {
            Phase::Gather(_, gather) if !gather.completing => Some(&mut gather.ahead),
            _ => None,
        }
    }

    /// Asks for what comes next above the snapshot.
    pub(super) fn collect(&mut self) {
        if self.fetch.due(|item| matches!(item, Item::Ahead(_) | Item::Body(..))) > 0 {
            return;
        }
        let Some(ahead) = self.ahead() else { return };
        let next = ahead.top.header.height.next();
        let wants_headers = ahead.claimed.is_none() && ahead.bodies.is_empty() && !ahead.is_full();
        let run = ahead.run;
        let wanted: Vec<(Height, BlockId, u32)> = ahead.bodies.iter().filter_map(|(height, body)| wanted(*height, body)).collect();
        if wants_headers {
            self.ask_ahead(next, run);
        }
        for (height, block_id, part) in wanted {
            let question = Question::Parts { height, block_id, from: part, count: WHOLE_PARTS_MAX };
            let has = |claims: (Height, Height)| claims.0 <= height && height <= claims.1;
            if self.ask(Item::Body(height, part), question, has) {
                break;
            }
        }
    }

    /// Headers come downwards, each with the commit that the block above carries: as far up as who is asked has such a block.
    fn ask_ahead(&mut self, next: Height, run: u32) {
        let claims = &self.claims;
        let has = |peer: u64| claims.get(&peer).is_some_and(|(base, tip)| *base <= next && next < *tip);
        let Some((peer, id)) = self.fetch.ask(self.now.mono_ms, Item::Ahead(next), has) else { return };
        let above = claims.get(&peer).map_or(1, |(_, tip)| tip.get().saturating_sub(next.get()));
        let count = u32::try_from(above).unwrap_or(HEADERS_MAX).clamp(1, run);
        let question = Question::Light { from: next.plus(u64::from(count - 1)), count };
        self.fx.push(StateEffect::Ask { peer, id, question });
    }

    /// Headers downwards to a height, or as many as an answer holds.
    pub(super) fn on_ahead(&mut self, peer: u64, wanted: Height, mut blocks: Vec<LightBlock>) {
        let (options, wall) = (self.options.light, self.now.wall);
        let Some(ahead) = self.ahead().filter(|ahead| ahead.claimed.is_none()) else { return };
        let next = ahead.top.header.height.next();
        if wanted != next {
            return; // Late: others gave these.
        }
        blocks.reverse();
        let heights = blocks.iter().map(|block| block.header.height);
        let is_run = heights.clone().zip(heights.clone().skip(1)).all(|(below, above)| below.next() == above);
        let lowest = heights.clone().next().filter(|lowest| is_run && *lowest >= next && blocks.len() <= HEADERS_MAX as usize);
        let Some(lowest) = lowest else {
            self.blame(peer, format!("headers down to height {next} were asked for, and something else came"));
            return;
        };
        if lowest > next {
            // As many as an answer holds. So many are asked for from now on; who gives nothing of use even then is not asked again.
            let held = u32::try_from(blocks.len()).unwrap_or(HEADERS_MAX);
            if std::mem::replace(&mut ahead.run, held) <= held {
                self.fetch.lacks(peer, Item::Ahead(next));
            }
            return;
        }
        let mut trusted = Trusted::from_block(&ahead.top);
        let mut claimed = Vec::new();
        let mut refused = None;
        for block in blocks {
            match light::claim(&trusted, &block, &options, wall) {
                Ok(claim) => {
                    trusted = Trusted::from_block(&block);
                    claimed.push((block, claim));
                }
                Err(error) => {
                    refused = Some((block.header.height, error));
                    break;
                }
            }
        }
        match refused {
            None => {}
            Some((_, LightError::Expired)) => ahead.is_over = true,
            // Nobody's lie while our own clock may be behind. It would say the same again.
            Some((_, LightError::Future)) => self.fetch.lacks(peer, Item::Ahead(next)),
            Some((height, error)) => {
                self.blame(peer, format!("its header of height {height} does not follow from the one below: {error}"));
                return;
            }
        }
        if claimed.is_empty() {
            return;
        }
        let checks = claimed.iter().flat_map(|(_, claim)| claim.checks()).cloned().collect();
        let Some(ahead) = self.ahead() else { return };
        ahead.claimed = Some(Claimed { peer, blocks: claimed });
        self.verify(Judging::Ahead, checks);
    }

    /// The verdicts on the signatures of a run.
    pub(super) fn on_ahead_verified(&mut self, verdicts: &[bool]) {
        let Some(Claimed { peer, blocks }) = self.ahead().and_then(|ahead| ahead.claimed.take()) else { return };
        let mut verdicts = verdicts.iter();
        for (block, claim) in blocks {
            let own: Vec<bool> = verdicts.by_ref().take(claim.checks().len()).copied().collect();
            let settled = if planted::has(Bug::AheadUnverified) { Ok(()) } else { claim.settle(&own) };
            if let Err(error) = settled {
                self.blame(peer, format!("its header of height {} does not follow from the one below: {error}", block.header.height));
                return;
            }
            let Some(ahead) = self.ahead().filter(|ahead| !ahead.is_full()) else { return };
            ahead.blocks += 1;
            ahead.bytes += u64::from(block.commit.block_id.parts.total) * PART_BYTES as u64;
            ahead.top = block.clone();
            let height = block.header.height;
            ahead.bodies.insert(height, Body { block: block.clone(), parts: BTreeMap::new(), is_judged: true });
            // An earlier run may have it.
            self.judge(Judging::Block(height), Check::Block { block: Box::new(block), body: None });
        }
        if let Some(ahead) = self.ahead() {
            ahead.run = ahead.run.saturating_mul(2).min(HEADERS_MAX);
        }
        self.fetch.proved(peer);
    }

    /// Parts of a body.
    pub(super) fn on_body(&mut self, peer: u64, height: Height, from: u32, parts: Vec<Part>) {
        let Some(body) = self.ahead().and_then(|ahead| ahead.bodies.get_mut(&height)).filter(|body| !body.is_judged) else { return };
        let header = body.block.commit.block_id.parts;
        if !are_those_asked_for(&parts, &header, from) {
            self.blame(peer, "parts that are not those asked for".to_owned());
            return;
        }
        let bytes: u64 = parts.iter().map(|part| part.bytes.len() as u64).sum();
        body.parts.extend(parts.into_iter().map(|part| (part.index, part.bytes)));
        if body.parts.len() == header.total as usize {
            body.is_judged = true;
            let whole: Vec<u8> = std::mem::take(&mut body.parts).into_values().flatten().collect();
            let check = Check::Block { block: Box::new(body.block.clone()), body: Some(whole.into()) };
            self.judge(Judging::Block(height), check);
        }
        self.bytes += bytes;
        self.fetch.proved(peer);
    }

    /// Whether the disk has a block now.
    pub(super) fn on_block_checked(&mut self, height: Height, found: &Checked) {
        let Some(ahead) = self.ahead() else { return };
        if matches!(found, Checked::Good) {
            ahead.bodies.remove(&height);
            ahead.here += 1;
        } else if let Some(body) = ahead.bodies.get_mut(&height) {
            body.is_judged = false;
        }
    }
}

/// The first range of a body's parts that is not whole.
fn wanted(height: Height, body: &Body) -> Option<(Height, BlockId, u32)> {
    let block_id = body.block.commit.block_id;
    let missing = (0..block_id.parts.total).find(|part| !body.parts.contains_key(part)).filter(|_| !body.is_judged)?;
    Some((height, block_id, missing / WHOLE_PARTS_MAX * WHOLE_PARTS_MAX))
}
