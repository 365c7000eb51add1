//! What comes, and what is believed of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_types::block::{Part, PartSetHeader};
use lockstep_types::light::{LightBlock, LightError};
use lockstep_types::planted::{self, Bug};
use lockstep_types::vote::{Rejected, Verified};
use lockstep_types::{Commit, Header, Height};

use super::super::{Check, Checked, HEADERS_MAX, OFFERS_MAX, Root, StateAnswer, StateEffect};
use super::ahead::Ahead;
use super::{Body, Gather, Goal, Item, Judging, Phase, StateSync};
use crate::light::{Step, is_below};
use crate::server::WHOLE_PARTS_MAX;

impl StateSync {
    pub(super) fn on_response(&mut self, peer: u64, id: u64, answer: StateAnswer) {
        let Some(item) = self.fetch.answered(peer, id) else { return };
        match (item, answer) {
            (Item::Offers(_), StateAnswer::Offers(heights)) => {
                let useful: BTreeSet<Height> = heights.into_iter().filter(|height| *height > self.options.tip).take(OFFERS_MAX).collect();
                self.offers.insert(peer, useful);
            }
            (Item::Light(height), StateAnswer::Light(blocks)) => self.on_light(peer, height, blocks),
            (Item::Witness(_, height), StateAnswer::Light(blocks)) => self.on_witness(peer, height, blocks),
            (Item::Down(height), StateAnswer::Light(blocks)) => self.on_down(peer, height, blocks),
            (Item::Manifest(height), StateAnswer::Manifest(bytes)) => {
                let Phase::Manifest(Goal { height: wanted, above: Some(above), at: Some(at) }) = &self.phase else { return };
                if height == *wanted && !self.is_judging(|judging| matches!(judging, Judging::Manifest(_))) {
                    self.bytes += bytes.len() as u64;
                    let check = Check::Manifest { bytes, above: above.clone(), at: at.clone() };
                    self.judge(Judging::Manifest(peer), check);
                }
            }
            (Item::Chunk(index), StateAnswer::Chunk(bytes)) => self.on_chunk(peer, index, bytes, true),
            (Item::Chunk(index), StateAnswer::Difference(bytes)) => self.on_chunk(peer, index, bytes, false),
            (Item::Parts(from), StateAnswer::Parts(parts)) => self.on_parts(peer, from, parts),
            (Item::Ahead(from), StateAnswer::Light(blocks)) => self.on_ahead(peer, from, blocks),
            (Item::Body(height, from), StateAnswer::Parts(parts)) => self.on_body(peer, height, from, parts),
            (Item::Offers(_), StateAnswer::Lost) => {}
            (_, StateAnswer::Lost) => self.fetch.owes(peer),
            // Peers that know nothing of snapshots answer so too.
            (Item::Offers(_), _) => drop(self.offers.insert(peer, BTreeSet::new())),
            (item, _) => self.fetch.lacks(peer, item),
        }
    }

    fn on_chunk(&mut self, peer: u64, index: u32, bytes: Arc<[u8]>, is_whole: bool) {
        let Phase::Gather(_, gather) = &mut self.phase else { return };
        // The second of two answers, one of them late, is of no use.
        if gather.wanted.remove(&index) {
            self.bytes += bytes.len() as u64;
            self.judge(Judging::Chunk(peer, index), Check::Chunk { index, bytes, is_whole });
        }
    }

    /// The named root, or a block on the way up.
    fn on_light(&mut self, peer: u64, height: Height, mut blocks: Vec<LightBlock>) {
        let Some(block) = blocks.pop().filter(|block| blocks.is_empty() && block.header.height == height) else {
            self.blame(peer, format!("one header of height {height} was asked for, and something else came"));
            return;
        };
        let wall = self.now.wall;
        match &mut self.phase {
            Phase::Root(_) => {
                let Root::Named { hash, .. } = self.options.root else { return };
                let found = block.header.hash();
                if let Err(what) = is_whole(&block) {
                    self.blame(peer, format!("the header of height {height} came with something else: {what}"));
                } else if found != hash {
                    // Whoever told the operator is wrong, or this peer is. Others are asked; where all say so, the operator is told.
                    self.fetch.owes(peer);
                    self.other_roots.insert(peer, found);
                } else if !self.is_judging(|judging| matches!(judging, Judging::Certificate(..))) {
                    self.certify(peer, block);
                }
            }
            Phase::Climb(_, climb) if climb.wanted() == Some(height) => {
                let step = climb.on_block(peer, block, wall);
                self.climb(step);
            }
            _ => {}
        }
    }

    /// Has the whole commit of a header verified that is believed already.
    fn certify(&mut self, peer: u64, block: LightBlock) {
        self.progressed();
        match block.commit.clone().claim(&block.header.chain_id, &block.validators) {
            Ok(claim) => {
                let checks = claim.checks().to_vec();
                self.verify(Judging::Certificate(peer, Box::new(block), Box::new(claim)), checks);
            }
            Err(error) => self.on_bad_certificate(peer, &block, error),
        }
    }

    /// The verdicts on all signatures of that commit.
    fn on_certified(&mut self, peer: u64, block: Box<LightBlock>, settled: Result<Verified<Commit>, Rejected>) {
        if let Err(error) = settled
            && !planted::has(Bug::CertificateUnverified)
        {
            self.on_bad_certificate(peer, &block, error);
            return;
        }
        self.fetch.proved(peer);
        self.progressed();
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Root(goal) => {
                self.phase = Phase::Root(goal);
                self.root = Some(block);
                self.set_out();
            }
            Phase::Climb(goal, _) => {
                let header = Box::new(block.header.clone());
                self.phase = Phase::Descend(Goal { above: Some(block), ..goal }, header);
            }
            other => self.phase = other,
        }
    }

    /// Another peer may give it whole; a climb is over, and begins anew.
    fn on_bad_certificate(&mut self, peer: u64, block: &LightBlock, error: Rejected) {
        let reason = format!("the commit of its header of height {} is not one that its validators signed: {error}", block.header.height);
        self.blame(peer, reason.clone());
        if matches!(self.phase, Phase::Climb(..)) {
            self.give_up(reason);
        }
    }

    /// Somebody else's header of the height that was proven.
    fn on_witness(&mut self, peer: u64, height: Height, mut blocks: Vec<LightBlock>) {
        let proven = match &self.phase {
            Phase::Descend(Goal { above: Some(above), .. }, _)
            | Phase::Manifest(Goal { above: Some(above), .. })
            | Phase::Gather(Goal { above: Some(above), .. }, _) => above.header.clone(),
            _ => return,
        };
        self.fetch.lacks(peer, Item::Witness(peer, height));
        let Some(block) = blocks.pop().filter(|block| blocks.is_empty() && block.header.height == height) else {
            self.blame(peer, format!("one header of height {height} was asked for, and something else came"));
            return;
        };
        if proven.height == height && block.header.hash() != proven.hash() {
            // A decided height has one header. Ours is under the signatures of those we trust; a word alone against it
            // must not stop anybody, so who says another thing is left.
            self.blame(peer, format!("its header of height {height} is {}, and {} is proven", block.header.hash(), proven.hash()));
        }
    }

    /// Parts of the body of the snapshot's height. Each proves its place under the proven name.
    fn on_parts(&mut self, peer: u64, from: u32, parts: Vec<Part>) {
        let Phase::Gather(Goal { at: Some(at), .. }, gather) = &mut self.phase else { return };
        let Body::Wanted(here) = &mut gather.body else { return };
        let header = at.commit.block_id.parts;
        if !are_those_asked_for(&parts, &header, from) {
            self.blame(peer, "parts that are not those asked for".to_owned());
            return;
        }
        for part in parts {
            self.bytes += part.bytes.len() as u64;
            here.insert(part.index, part.bytes);
        }
        if here.len() == header.total as usize {
            let body: Vec<u8> = std::mem::take(here).into_values().flatten().collect();
            gather.body = Body::Judged;
            self.judge(Judging::Body, Check::Body(body.into()));
        }
        self.fetch.proved(peer);
        self.progressed();
    }

    fn climb(&mut self, step: Step) {
        match step {
            Step::Need(_) => self.progressed(),
            Step::Check(checks) => {
                self.verify(Judging::Climb, checks);
            }
            Step::Refused { error: LightError::Expired, .. } => self.fail(
                "what this node trusts is older than the trusting period, and keys of that time prove nothing any more. To do: start it \
                 with a recent height and hash from somebody you trust (--trust-height and --trust-hash, or a --bundle that lockstep snapshot \
                 bundle writes beside such a node)"
                    .to_owned(),
            ),
            // Nobody's lie while our own clock may be behind; who says it is asked after the others.
            Step::Refused { source, height, error: LightError::Future } if !planted::has(Bug::FutureIsALie) => {
                self.fetch.owes(source);
                self.give_up(format!(
                    "the header of height {height} is more than {} s ahead of this machine's clock, or made up: look at the clock",
                    self.options.light.clock_drift.as_secs()
                ));
            }
            Step::Refused { source, height, error } => {
                self.blame(source, format!("its header of height {height} does not follow from what is trusted: {error}"));
            }
            Step::Done => {
                if let Phase::Climb(_, climb) = &self.phase {
                    let (reached, peer) = climb.reached().expect("it is done").clone();
                    self.certify(peer, reached);
                }
            }
        }
    }

    pub(super) fn on_verified(&mut self, ticket: u64, verdicts: &[bool]) {
        match (self.judging.remove(&ticket), &mut self.phase) {
            (Some(Judging::Climb), Phase::Climb(_, climb)) => {
                let step = climb.on_verdicts(verdicts, self.now.wall);
                self.climb(step);
            }
            (Some(Judging::Ahead), _) => self.on_ahead_verified(verdicts),
            (Some(Judging::Certificate(peer, block, claim)), _) => self.on_certified(peer, block, claim.settle(verdicts)),
            (Some(Judging::Down(peer, blocks)), _) => self.on_down_verified(peer, blocks, verdicts),
            _ => {}
        }
    }

    /// The lowest header that is proven, of those on the way down.
    fn lowest_proven(&self) -> Option<&Header> {
        match &self.phase {
            Phase::Descend(_, newest) => Some(newest),
            Phase::Gather(_, gather) => gather.lowest.as_ref(),
            _ => None,
        }
    }

    /// Headers on the way down, by the hash chain.
    fn on_down(&mut self, peer: u64, from: Height, blocks: Vec<LightBlock>) {
        let is_judging = self.is_judging(|judging| matches!(judging, Judging::Down(..)));
        let newest = self.lowest_proven().filter(|newest| newest.height.previous() == from && !is_judging);
        let Some(newest) = newest.cloned() else { return }; // Late: somebody else gave these.
        if blocks.is_empty() || blocks.len() > HEADERS_MAX as usize {
            self.blame(peer, format!("{} headers came, 1 to {HEADERS_MAX} were asked for", blocks.len()));
            return;
        }
        let mut newer = &newest;
        let mut checks = Vec::with_capacity(blocks.len());
        for block in &blocks {
            match is_below(newer, block) {
                Ok(check) => checks.push(check),
                // Who lost the block above gives what it decided by, and has no other.
                Err(LightError::OtherCommit) if checks.is_empty() => return self.fetch.lacks(peer, Item::Down(from)),
                Err(error) => {
                    let reason = format!("its block of height {} is not below {}: {error}", block.header.height, newer.height);
                    self.blame(peer, reason);
                    return;
                }
            }
            newer = &block.header;
        }
        self.verify(Judging::Down(peer, blocks), checks);
    }

    /// The verdicts on one signature of each commit on the way down.
    fn on_down_verified(&mut self, peer: u64, blocks: Vec<LightBlock>, verdicts: &[bool]) {
        // One without a verdict is not verified.
        let mut verdicts = verdicts.iter().copied();
        let refuted = blocks.iter().find(|_| verdicts.next() != Some(true));
        if let Some(block) = refuted.filter(|_| !planted::has(Bug::RoundUnverified)) {
            self.blame(peer, format!("the commit of its block of height {} is of another round than was signed", block.header.height));
            return;
        }
        let first = blocks.first().map(|block| block.header.height);
        if self.lowest_proven().is_none_or(|newest| Some(newest.height.previous()) != first) {
            return; // The attempt that they belong to is over.
        }
        self.fetch.proved(peer);
        self.progressed();
        match &mut self.phase {
            Phase::Descend(goal, newest) => {
                for block in blocks {
                    if block.header.height == goal.height.next() {
                        goal.above = Some(Box::new(block.clone()));
                    }
                    if block.header.height == goal.height {
                        goal.at = Some(Box::new(block));
                        break;
                    }
                    **newest = block.header;
                }
                if goal.at.is_some()
                    && let Phase::Descend(goal, _) = std::mem::replace(&mut self.phase, Phase::Over)
                {
                    self.phase = Phase::Manifest(goal);
                }
            }
            Phase::Gather(_, gather) => {
                gather.lowest = blocks.last().map(|block| block.header.clone());
                gather.headers_judged = true;
                self.judge(Judging::Headers, Check::Headers(blocks));
            }
            _ => {}
        }
    }

    pub(super) fn on_checked(&mut self, ticket: u64, found: Checked) {
        let Some(judging) = self.judging.remove(&ticket) else { return };
        match (judging, found) {
            (Judging::Manifest(peer), Checked::Manifest(chunks)) => {
                let Phase::Manifest(_) = &self.phase else { return };
                let Phase::Manifest(goal) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
                self.fetch.proved(peer);
                self.progressed();
                let count = |have: bool| chunks.iter().zip(0_u32..).filter(move |(chunk, _)| chunk.have == have).map(|(_, index)| index);
                let (wanted, here) = (count(false).collect(), u32::try_from(count(true).count()).unwrap_or(u32::MAX));
                let Some(at) = goal.at.as_deref() else { return };
                let (lowest, ahead) = (Some(at.header.clone()), Ahead::above(at.clone()));
                let gather = Gather {
                    manifest_from: peer,
                    wanted,
                    here,
                    chunks,
                    body: Body::Wanted(BTreeMap::new()),
                    lowest,
                    headers_judged: false,
                    ahead,
                    completing: false,
                };
                self.phase = Phase::Gather(goal, Box::new(gather));
                self.tell_progress();
            }
            (Judging::Manifest(peer), Checked::Bad(reason)) => self.blame(peer, format!("its manifest: {reason}")),
            (Judging::Chunk(peer, index), found) => {
                let Phase::Gather(_, gather) = &mut self.phase else { return };
                match found {
                    Checked::Bad(reason) => {
                        gather.wanted.insert(index);
                        self.blame(peer, format!("chunk {index}: {reason}"));
                    }
                    Checked::ManifestLies(reason) => {
                        let liar = gather.manifest_from;
                        self.give_up(reason.clone());
                        self.blame(liar, format!("its manifest: {reason}"));
                    }
                    Checked::Unfit => {
                        if let Some(chunk) = gather.chunks.get_mut(index as usize) {
                            chunk.known = Arc::from([]);
                        }
                        gather.wanted.insert(index);
                    }
                    _ => {
                        gather.here += 1;
                        self.fetch.proved(peer);
                        self.progressed();
                        self.tell_progress();
                    }
                }
            }
            (Judging::Body, found) => {
                let Phase::Gather(_, gather) = &mut self.phase else { return };
                gather.body = Body::Here;
                self.progressed();
                if let Checked::Bad(reason) = found {
                    self.give_up(format!("the block of its height cannot be used: {reason}"));
                }
            }
            (Judging::Headers, _) => {
                if let Phase::Gather(_, gather) = &mut self.phase {
                    gather.headers_judged = false;
                }
            }
            (Judging::Block(height), found) => self.on_block_checked(height, &found),
            (Judging::Complete, Checked::Bad(reason)) => {
                // What is on the disk does not make a state, though each piece was good: the disk lost some.
                self.give_up(format!("what was gathered does not fit together: {reason}"));
            }
            (Judging::Complete, _) => {
                if let Phase::Gather(goal, _) = std::mem::replace(&mut self.phase, Phase::Over) {
                    self.fx.push(StateEffect::Install { height: goal.height });
                }
            }
            _ => {}
        }
    }
}

/// Whether these are parts of the range that begins here, each proven under the body's name.
pub(super) fn are_those_asked_for(parts: &[Part], header: &PartSetHeader, from: u32) -> bool {
    let asked = from..from.saturating_add(WHOLE_PARTS_MAX).min(header.total);
    !parts.is_empty() && parts.iter().all(|part| asked.contains(&part.index) && part.verify(header))
}

/// Whether everything that came with a header is what its hashes and its commit name.
fn is_whole(block: &LightBlock) -> Result<(), &'static str> {
    if block.validators.hash() != block.header.validators_hash {
        return Err("other validators");
    }
    if block.next_validators.hash() != block.header.next_validators_hash {
        return Err("other next validators");
    }
    if block.commit.block_id.hash != block.header.hash() || block.commit.height != block.header.height {
        return Err("a commit for another block");
    }
    Ok(())
}
