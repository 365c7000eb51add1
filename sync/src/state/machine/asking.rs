//! What is asked for next, and of whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_types::light::Trusted;
use lockstep_types::{BlockId, Hash, Header, Height};

use super::super::{
    ATTEMPTS_MAX, CHOOSE_MS, CHUNKS_AT_ONCE_MAX, Check, HEADERS_MAX, Needs, OFFERS_MS, PATIENCE_MS, Question, RETRY_MS_MAX, Root, STALL_MS,
    StateEffect, Told, WITNESSES_MAX,
};
use super::{Body, Goal, Item, Judging, Phase, StateSync};
use crate::light::Climb;
use crate::peers::REQUESTS_PER_PEER_MAX;
use crate::server::WHOLE_PARTS_MAX;

impl StateSync {
    /// Does what can be done now.
    pub(super) fn go_on(&mut self) {
        self.ask_for_offers();
        if !matches!(self.phase, Phase::Seek(_) | Phase::Over) && self.now.mono_ms >= self.progressed_at.saturating_add(STALL_MS) {
            self.give_up("nobody gave anything more of it for a while".to_owned());
        }
        match &self.phase {
            Phase::Seek(since) if self.now.mono_ms >= self.chooses_at(*since) => self.choose(),
            Phase::Root(_) if self.is_judging(|judging| matches!(judging, Judging::Certificate(..))) => {}
            Phase::Root(goal) => {
                let Root::Named { height, .. } = self.options.root else { return };
                let question = Question::Light { from: height, count: 1 };
                let others = self.other_roots.clone();
                let offering = if height <= goal.height.next() { self.offering(goal.height) } else { BTreeSet::new() };
                let has_it = |peer, claims: (Height, Height)| height <= claims.1 || offering.contains(&peer);
                let may_have = |peer, claims| has_it(peer, claims) && !others.contains_key(&peer);
                if !self.ask_any(Item::Light(height), question, may_have) && !self.claims.is_empty() {
                    let known = if others.is_empty() { "" } else { ", and some have another one of that height" };
                    self.give_up(format!("no peer has the trusted header of height {height}{known}"));
                }
            }
            Phase::Climb(goal, climb) => {
                let Some(wanted) = climb.wanted() else { return };
                let offering = self.offering(goal.height);
                let question = Question::Light { from: wanted, count: 1 };
                if !self.ask_any(Item::Light(wanted), question, |peer, claims| offering.contains(&peer) || wanted <= claims.1) {
                    self.give_up(format!("nobody has the header of height {wanted}"));
                }
            }
            Phase::Descend(..) if self.is_judging(|judging| matches!(judging, Judging::Down(..))) => {}
            Phase::Descend(goal, newest) => {
                let from = newest.height.previous();
                let count = u32::try_from(from.get() + 1 - goal.height.get()).unwrap_or(u32::MAX).min(HEADERS_MAX);
                // Whoever has the block above answers with the commit in it, which the header above names. Who offers the snapshot has the
                // headers that it came with, whatever became of its blocks.
                let offering = self.offering(goal.height);
                let may_have = |peer, claims: (Height, Height)| from < claims.1 || offering.contains(&peer);
                if !self.ask_any(Item::Down(from), Question::Light { from, count }, may_have) {
                    self.give_up(format!("nobody has the header of height {from}"));
                }
            }
            Phase::Manifest(goal) => {
                let height = goal.height;
                if !self.is_judging(|judging| matches!(judging, Judging::Manifest(_))) {
                    let offering = self.offering(height);
                    if !self.ask_any(Item::Manifest(height), Question::Manifest { height }, |peer, _| offering.contains(&peer)) {
                        self.give_up("nobody who offered it has its manifest".to_owned());
                        return;
                    }
                }
                self.ask_witnesses(height.next());
            }
            Phase::Gather(..) => self.gather(),
            Phase::Seek(_) | Phase::Over => {}
        }
    }

    /// Nobody gave the header that the operator named: where that is the operator's matter, it is said.
    pub(super) fn tell_root_is_nowhere(&mut self) {
        let Root::Named { height, hash } = self.options.root else { return };
        let Some((needs, reason)) = self.root_is_another(height, hash).or_else(|| self.root_is_pruned(height)) else { return };
        if self.root_told.replace(needs) != Some(needs) {
            self.fx.push(StateEffect::Tell(Told::Waits { needs, reason }));
        }
    }

    /// Everybody who showed a header of that height showed another one. Peers can be liars, all of them, so it goes on; more likely the
    /// operator was told something wrong.
    fn root_is_another(&self, height: Height, hash: Hash) -> Option<(Needs, String)> {
        let mut hashes: BTreeMap<Hash, usize> = BTreeMap::new();
        self.other_roots.values().for_each(|other| *hashes.entry(*other).or_default() += 1);
        let (most, count) = hashes.into_iter().max_by_key(|(_, count)| *count)?;
        let reason = format!(
            "the trusted hash of height {height} is {hash}, and peers have another block there: {most} ({count} of {} peers that answered). It \
             goes on asking; to do: compare the hash of that height with somebody you trust. If the trusted one is wrong, start it with a \
             new one (--trust-height, --trust-hash, or a new --bundle)",
            self.other_roots.len()
        );
        Some((Needs::Hash, reason))
    }

    /// The operator named a header that everybody has forgotten since: nothing leads from there, and only a newer one helps.
    fn root_is_pruned(&self, height: Height) -> Option<(Needs, String)> {
        // Whose chain does not reach that height says nothing about it.
        let reach = self.claims.values().filter(|(_, tip)| *tip >= height);
        let earliest = reach.map(|(base, _)| *base).min().filter(|earliest| *earliest > height)?;
        let reason = format!(
            "no peer has the trusted header of height {height} any more: pruned, earliest is {earliest}. It goes on asking; to do: start it \
             with a newer height and hash (--trust-height, --trust-hash, or a new --bundle)"
        );
        Some((Needs::Root, reason))
    }

    /// Whether the header that the operator named lies above everything that peers have: nothing leads anywhere before one has it.
    fn root_is_ahead(&mut self) -> bool {
        let Root::Named { height, .. } = self.options.root else { return false };
        let Some(highest) = self.claims.values().map(|(_, tip)| *tip).max() else { return false };
        if self.root.is_some() || height <= highest {
            self.root_was_ahead = false;
            return false;
        }
        if !std::mem::replace(&mut self.root_was_ahead, true) {
            self.root_told = None;
            let reason = format!(
                "the header that is trusted is that of height {height}, and the peers' chain ends at {highest}. It goes on when a peer has it; to \
                 do: if that height is not one of this chain, start it with one that is (--trust-height, --trust-hash, or a new --bundle)"
            );
            self.fx.push(StateEffect::Tell(Told::Waits { needs: Needs::Height, reason }));
        }
        true
    }

    /// When one is chosen, where this is sought since then: soon, and later and later where all that is offered, or the way to it, came
    /// to nothing again and again.
    pub(super) fn chooses_at(&self, since: u64) -> u64 {
        let tried = self.offers.values().flatten().map(|height| self.attempts.get(height).copied().unwrap_or(0)).min().unwrap_or(0);
        let tried = if self.root.is_some() { tried } else { tried.max(self.root_attempts) };
        let doublings = tried.saturating_sub(ATTEMPTS_MAX - 1).min(RETRY_MS_MAX.ilog2());
        since.saturating_add((CHOOSE_MS << doublings).min(RETRY_MS_MAX))
    }

    fn offering(&self, height: Height) -> BTreeSet<u64> {
        self.offers.iter().filter(|(_, offers)| offers.contains(&height)).map(|(peer, _)| *peer).collect()
    }

    pub(super) fn ask(&mut self, item: Item, question: Question, may_have: impl Fn((Height, Height)) -> bool) -> bool {
        self.ask_any(item, question, |_, claims| may_have(claims))
    }

    /// Asks somebody. Whether it is, or will be, on its way: nobody is left who may have it otherwise.
    fn ask_any(&mut self, item: Item, question: Question, may_have: impl Fn(u64, (Height, Height)) -> bool) -> bool {
        let claims = &self.claims;
        let may_have = |peer: u64| claims.get(&peer).is_some_and(|claims| may_have(peer, *claims));
        let asked = self.fetch.ask(self.now.mono_ms, item, may_have);
        let is_there = asked.is_some() || self.fetch.is_there(&item, may_have);
        if let Some((peer, id)) = asked {
            self.fx.push(StateEffect::Ask { peer, id, question });
        }
        is_there
    }

    fn ask_for_offers(&mut self) {
        let seeking = matches!(self.phase, Phase::Seek(_));
        let now = self.now.mono_ms;
        let due = |peer: &u64| match self.offers_asked.get(peer) {
            Some(at) => seeking && now >= at.saturating_add(OFFERS_MS),
            None => true,
        };
        let peers: Vec<u64> = self.fetch.peers().filter(due).collect();
        for peer in peers {
            if let Some((_, id)) = self.fetch.ask(now, Item::Offers(peer), |candidate| candidate == peer) {
                self.offers_asked.insert(peer, now);
                self.fx.push(StateEffect::Ask { peer, id, question: Question::Offers });
            }
        }
    }

    /// Chooses a snapshot: one of which something is here; else of those that were not tried too often, those of peers who owe
    /// least, and of these the newest.
    fn choose(&mut self) {
        let mut heights: BTreeMap<Height, (u32, usize)> = BTreeMap::new();
        for (peer, offers) in &self.offers {
            for height in offers {
                let (debt, count) = heights.entry(*height).or_insert((u32::MAX, 0));
                *debt = (*debt).min(self.fetch.debt(*peer));
                *count += 1;
            }
        }
        let worth = |height: &Height, debt: u32| {
            let tried = self.attempts.get(height).copied().unwrap_or(0) / ATTEMPTS_MAX;
            (tried, self.preferred != Some(*height), debt / crate::peers::TIMEOUT_DEBT, std::cmp::Reverse(*height))
        };
        let best = heights.iter().min_by_key(|(height, (debt, _))| worth(height, *debt)).map(|(height, (_, count))| (*height, *count));
        if let Some((height, offered_by)) = best {
            if self.root_is_ahead() {
                return;
            }
            self.offered_at = self.now.mono_ms;
            self.waited = false;
            self.fx.push(StateEffect::Tell(Told::Chosen { height, offered_by }));
            self.phase = Phase::Root(Goal { height, above: None, at: None });
            self.progressed();
            self.set_out();
            if matches!(self.phase, Phase::Root(_)) {
                self.go_on();
            }
            return;
        }
        if self.now.mono_ms < self.offered_at.saturating_add(PATIENCE_MS) || self.waited {
            return;
        }
        let next = self.options.tip.next().max(self.options.initial);
        let has_next = |(base, tip): &(Height, Height)| *base <= next && next <= *tip;
        if self.claims.values().any(has_next) {
            let reason = format!("no peer offers a snapshot above height {}, and some have all blocks above it", self.options.tip);
            self.phase = Phase::Over;
            self.fx.push(StateEffect::Tell(Told::FallsBack { reason }));
            return;
        }
        self.waited = true;
        self.root_told = None;
        let needs = Needs::Peer;
        let reason = match self.claims.values().map(|(base, _)| *base).min() {
            Some(earliest) => format!(
                "no peer offers a snapshot, and none has the blocks from {next} on: pruned, earliest is {earliest}. It goes on asking; to do: \
                 connect a peer that keeps snapshots (storage.keep_snapshots) or all blocks"
            ),
            None => "no peer is connected; it goes on when one is".to_owned(),
        };
        self.fx.push(StateEffect::Tell(Told::Waits { needs, reason }));
    }

    /// From what is trusted towards the goal: up by signatures, or down by hashes.
    pub(super) fn set_out(&mut self) {
        let trusted = match (&self.options.root, &self.root) {
            (Root::Own(trusted), _) => trusted.clone(),
            (Root::Named { .. }, Some(block)) => Trusted::from_block(block),
            (Root::Named { .. }, None) => return,
        };
        let Phase::Root(goal) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
        let above = goal.height.next();
        if trusted.height < above {
            let climb = Climb::new(trusted, self.options.light, above);
            self.phase = Phase::Climb(goal, Box::new(climb));
        } else if let Some(root) = &self.root {
            let header = Box::new(root.header.clone());
            let goal = Goal { above: (root.header.height == above).then(|| root.clone()), ..goal };
            self.phase = Phase::Descend(goal, header);
        } else {
            // Our own tip is at or above what is offered: it was not a useful offer.
            self.phase = Phase::Seek(self.now.mono_ms);
        }
        self.go_on();
    }

    fn ask_witnesses(&mut self, height: Height) {
        let peers: Vec<u64> = self.fetch.peers().take(WITNESSES_MAX).collect();
        for peer in peers {
            let claims = self.claims.get(&peer).copied();
            if claims.is_some_and(|(base, tip)| base <= height && height <= tip)
                && let Some((_, id)) = self.fetch.ask(self.now.mono_ms, Item::Witness(peer, height), |candidate| candidate == peer)
            {
                self.fx.push(StateEffect::Ask { peer, id, question: Question::Light { from: height, count: 1 } });
            }
        }
    }

    fn gather(&mut self) {
        self.collect();
        let Phase::Gather(goal, gather) = &self.phase else { return };
        let height = goal.height;
        // One question is left to what lies above the snapshot, however few peers there are, while its next one is being made ready.
        let left = usize::from(gather.ahead.is_at_work());
        let room = (self.fetch.peers().count() * REQUESTS_PER_PEER_MAX).saturating_sub(left).clamp(1, CHUNKS_AT_ONCE_MAX);
        let judged = self.judging.values().filter(|judging| matches!(judging, Judging::Chunk(..))).count();
        let on_its_way = self.fetch.due(|item| matches!(item, Item::Chunk(_)));
        let next: Vec<(u32, Hash, Arc<[u8]>)> = gather
            .wanted
            .iter()
            .filter(|index| !self.fetch.is_due(&Item::Chunk(**index)))
            .filter_map(|index| gather.chunks.get(*index as usize).map(|chunk| (*index, chunk.root, chunk.known.clone())))
            .take(room.saturating_sub(judged + on_its_way))
            .collect();
        let parts = self.parts_wanted();
        let down_is_judged = gather.headers_judged || self.is_judging(|judging| matches!(judging, Judging::Down(..)));
        let wants_headers = if down_is_judged { None } else { gather.lowest.clone() };
        let offering = self.offering(height);
        let mut stuck = None;
        for (index, root, known) in next {
            let question = Question::Chunk { height, root, known };
            if !self.ask_any(Item::Chunk(index), question, |peer, _| offering.contains(&peer)) {
                stuck = Some(format!("nobody who offered it has chunk {index} any more"));
                break;
            }
        }
        if let Some((block_id, from)) = parts {
            let question = Question::Parts { height, block_id, from, count: WHOLE_PARTS_MAX };
            if !self.ask(Item::Parts(from), question, |claims| claims.0 <= height && height <= claims.1) {
                stuck = stuck.or(Some(format!("nobody has the block of height {height} any more")));
            }
        }
        if let Some(lowest) = wants_headers {
            self.go_further_down(&lowest);
        }
        if let Some(reason) = stuck {
            self.give_up(reason);
            return;
        }
        let Phase::Gather(_, gather) = &mut self.phase else { return };
        let is_whole = gather.wanted.is_empty() && gather.here as usize == gather.chunks.len();
        if is_whole && matches!(gather.body, Body::Here) && gather.lowest.is_none() && !gather.headers_judged && !gather.completing {
            gather.completing = true;
            self.progressed();
            self.judge(Judging::Complete, Check::Complete);
        }
    }

    /// The first range of the body's parts that is not whole.
    fn parts_wanted(&self) -> Option<(BlockId, u32)> {
        let Phase::Gather(Goal { at: Some(at), .. }, gather) = &self.phase else { return None };
        let Body::Wanted(here) = &gather.body else { return None };
        let missing = (0..at.commit.block_id.parts.total).find(|index| !here.contains_key(index))?;
        Some((at.commit.block_id, missing / WHOLE_PARTS_MAX * WHOLE_PARTS_MAX))
    }

    /// Headers of the window below the snapshot. Where nobody has those of its older part, that is all there is: they were pruned
    /// everywhere.
    fn go_further_down(&mut self, lowest: &Header) {
        let Phase::Gather(Goal { height, at: Some(at), .. }, _) = &self.phase else { return };
        let (height, time, window) = (*height, at.header.time, self.options.backfill);
        let reaches = |heights: u64| lowest.height.get().saturating_add(heights) > height.get();
        let in_window = reaches(window.blocks.max(window.heights)) || lowest.time.saturating_add(window.age) > time;
        let goes_on = in_window && lowest.height > self.options.initial;
        let from = lowest.height.previous();
        let count = u32::try_from(lowest.height.get() - self.options.initial.get()).unwrap_or(u32::MAX).min(HEADERS_MAX);
        let offering = self.offering(height);
        let may_have = |peer, claims: (Height, Height)| from < claims.1 || offering.contains(&peer);
        if goes_on && self.ask_any(Item::Down(from), Question::Light { from, count }, may_have) {
            return;
        }
        // The names of so many blocks are part of what is restored; of the rest, there may be less.
        let lowest_needed = height.get().saturating_sub(window.blocks.saturating_sub(1)).max(self.options.initial.get());
        if goes_on && lowest.height.get() > lowest_needed {
            self.give_up(format!("nobody has the header of height {from}, which is part of what is restored"));
            return;
        }
        let Phase::Gather(_, gather) = &mut self.phase else { return };
        gather.lowest = None;
    }
}
