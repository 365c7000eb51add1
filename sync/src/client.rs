//! The state machine that catches up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_types::Height;
use lockstep_types::planted::{self, Bug};

use crate::held::{BUFFER_BYTES_MAX, Held, WINDOW_BLOCKS};
use crate::peers::{DEADLINE_MS, DEBT_SLACK, FORGET_AFTER_DEADLINES, PEERS_MAX, Peer, REQUESTS_PER_PEER_MAX};
use crate::request::{Request, State};
use crate::seam::{Answer, BlameReason, Effect, Fetched, Input};
use crate::server::RESPONSE_BYTES_MAX;

/// Most requests that are within their deadline at one time.
pub const REQUESTS_MAX: usize = 4;

/// Most of these for heights that only an untried peer vouches for.
pub const SPECULATIVE_REQUESTS_MAX: usize = 2;
const _: () = assert!(SPECULATIVE_REQUESTS_MAX < REQUESTS_MAX, "claims never take all requests from what is proved");

/// Most blocks of one request.
pub const RANGE_BLOCKS_MAX: u32 = 64;
const _: () = assert!(REQUESTS_MAX as u64 * RANGE_BLOCKS_MAX as u64 <= WINDOW_BLOCKS, "all requests fit the window");

/// How long consensus may stand still before we fetch what others have decided, in milliseconds. While it moves by itself,
/// the votes and parts that it needs are on their way already, and would come twice.
pub const GRACE_MS: u64 = 250;

/// A gap wider than this is not closed by votes on their way: it is fetched at once.
pub const AT_ONCE_GAP: u64 = 16;

/// How long a peer that proved nothing yet may hold blocks that others are believed to have, before these are asked too, in
/// milliseconds. Enough for the first answer of a good peer; a liar that is quick to claim new blocks delays them by no more.
pub const HOLD_MS: u64 = 500;
const _: () = assert!(HOLD_MS < DEADLINE_MS, "it comes before the deadline, or never");

/// How long any peer may hold the block that everything else waits for while blocks above it have come from others already, in
/// milliseconds; then a second peer is asked for it, too. Doubled for each who is asked already: a link that is slow for all of
/// them is not made slower by the same blocks many times over.
pub const HEDGE_MS: u64 = 1_000;
const _: () = assert!(HEDGE_MS < DEADLINE_MS, "it comes before the deadline, or never");

/// How many gaps among the wanted heights are tried when requests are given out. What lies above them could not be verified
/// before them.
const RUNS_TRIED_MAX: usize = 8;

/// Block sync of one node. One call of [`BlockSync::on`] per thing that happened, and one per deadline
/// ([`BlockSync::wakeup_ms`]); it has no clock of its own.
///
/// **Why it does not stall.** Let there be one honest peer that has what we miss. The lowest missing height is always
/// offered first, and needs no room in the buffer. Each request for it ends: by blocks, by a lie, by a claim not kept or
/// by a deadline. A lie removes a peer for good. The two others give a debt of [`TIMEOUT_DEBT`](crate::TIMEOUT_DEBT), paid
/// off only by blocks that proved good, so each liar either helps, or is soon above the honest peer by more than
/// [`DEBT_SLACK`], and is then not asked while that one has the height.
#[derive(Debug)]
pub struct BlockSync {
    now: u64,
    tip: u64,
    /// The highest height that is proved to be decided.
    certified: u64,
    /// When our tip last moved without our help.
    moved_at: u64,
    peers: BTreeMap<u64, Peer>,
    requests: BTreeMap<u64, Request>,
    next_id: u64,
    held: Held,
    /// Heights below `next_unasked` that are neither held nor on their way.
    wanted: BTreeSet<u64>,
    /// Nothing from here on was asked for since our tip was below it.
    next_unasked: u64,
    /// The size of the last block that came, by which room is kept for the next.
    last_bytes: u64,
}

impl BlockSync {
    /// Block sync of a node whose tip is `tip` (zero before the first block).
    pub fn new(tip: Height, now_ms: u64) -> Self {
        Self {
            now: now_ms,
            tip: tip.get(),
            certified: tip.get(),
            moved_at: now_ms,
            peers: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_id: 0,
            held: Held::new(tip.get()),
            wanted: BTreeSet::new(),
            next_unasked: tip.get().saturating_add(1),
            last_bytes: 0,
        }
    }

    /// Something happened at `now_ms` of the monotonic clock.
    pub fn on(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now_ms);
        let mut fx = Vec::new();
        match input {
            Input::PeerStatus { peer, base, tip } => self.on_status(peer, base, tip),
            Input::PeerGone { peer } => self.on_gone(peer),
            Input::Response { peer, id, answer } => self.on_response(peer, id, answer, &mut fx),
            Input::Failed { .. } | Input::Tick if planted::has(Bug::SilentPeerAwaited) => {}
            Input::Failed { peer, id } => self.on_failed(peer, id),
            Input::Tip { height } => self.on_tip(height.get()),
            Input::Certified { height } => self.certified = self.certified.max(height.get()),
            Input::Verdict { height, ticket, ok } => self.on_verdict(height, ticket, ok, &mut fx),
            Input::Tick => self.on_tick(),
        }
        self.held.hand_out(&mut fx);
        self.hedge();
        self.ask(&mut fx);
        fx
    }

    /// Whether blocks are known to be decided that we do not have, beyond what consensus is about to close by itself:
    /// proved by a certificate, or claimed by a peer whose last blocks proved good. The claim of a peer that was never
    /// tried is not enough, else anybody could make us look behind.
    pub fn catching_up(&self) -> bool {
        self.is_behind(self.believed())
    }

    /// The height that we decided last.
    pub fn tip(&self) -> Height {
        height(self.tip)
    }

    /// The highest height that is proved to be decided.
    pub fn certified(&self) -> Height {
        height(self.certified)
    }

    /// The highest height that is proved, or claimed by a peer in good standing: what a progress bar runs to.
    pub fn target(&self) -> Height {
        height(self.believed().max(self.tip))
    }

    /// Fetched blocks above our tip.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes of those that have no verdict yet.
    pub fn held_bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// When [`Input::Tick`] has something to do at the latest, in milliseconds of the monotonic clock.
    pub fn wakeup_ms(&self) -> Option<u64> {
        let requests = self.requests.values().map(|request| match request.state {
            State::Due if request.hold_until() > self.now => request.hold_until(),
            State::Due | State::Overtaken => request.deadline,
            State::Late => request.forget_at,
        });
        let rests = self.peers.values().filter(|peer| !peer.left).map(|peer| peer.rest_until);
        let grace = self.moved_at.saturating_add(GRACE_MS);
        let hedge = self.hedged_request().map(|(_, at)| at);
        requests.chain(rests).chain([grace]).chain(hedge).filter(|at| *at > self.now).min()
    }

    fn on_status(&mut self, id: u64, base: Height, tip: Height) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&id) {
            return;
        }
        let peer = self.peers.entry(id).or_default();
        (peer.base, peer.tip) = (base.get().max(1), tip.get());
    }

    fn on_gone(&mut self, peer: u64) {
        self.cancel_requests_of(peer);
        self.peers.remove(&peer);
    }

    fn on_response(&mut self, id: u64, number: u64, answer: Answer, fx: &mut Vec<Effect>) {
        // Nobody is blamed for an answer we do not know: it may be so late that we forgot the question.
        if self.requests.get(&number).is_none_or(|request| request.peer != id) {
            return;
        }
        let request = self.requests.remove(&number).expect("just met");
        let peer = self.peers.get_mut(&id).expect("requests of a peer that is gone are cancelled");
        peer.in_flight -= 1;
        peer.answered(request.state == State::Late);
        match answer {
            Answer::Blocks(blocks) if !blocks.is_empty() => match request.check_answer(&blocks) {
                Ok(bytes) => {
                    // Short of both bounds of an answer, and of what the peer says it has.
                    let short = blocks.len() < request.count as usize && bytes < RESPONSE_BYTES_MAX / 2;
                    if short {
                        peer.stinted();
                    }
                    for (height, block) in (request.from..).zip(blocks) {
                        self.last_bytes = block.bytes();
                        self.held.keep(height, id, block);
                        if self.held.contains(height) {
                            self.wanted.remove(&height);
                        }
                    }
                    self.want(request.from, request.end());
                }
                Err(reason) => {
                    self.want(request.from, request.end());
                    self.blame(id, reason, fx);
                }
            },
            Answer::Certificate(commit) => match request.check_certificate(&commit) {
                Ok(()) => {
                    self.held.keep(request.from, id, Fetched { body: Arc::from([]), commit });
                    if self.held.contains(request.from) {
                        self.wanted.remove(&request.from);
                    }
                    self.want(request.from, request.end());
                }
                Err(reason) => {
                    self.want(request.from, request.end());
                    self.blame(id, reason, fx);
                }
            },
            answer => {
                if let Answer::NotAvailable { base, tip } = answer {
                    (peer.base, peer.tip) = (base.get().max(1), tip.get());
                }
                let now = self.now;
                peer.broke_claim(now);
                self.want(request.from, request.end());
            }
        }
    }

    /// Nothing is waited for any longer, and the same peer may be asked again, which may be the only one; but not before the shortest
    /// deadline, lest who fails at once is asked without end.
    fn on_failed(&mut self, peer: u64, id: u64) {
        let Some(request) = self.requests.get_mut(&id).filter(|request| request.peer == peer) else { return };
        let over = request.asked_at.saturating_add(DEADLINE_MS).max(self.now);
        request.forget_at = request.forget_at.min(over);
        request.deadline = request.deadline.min(over);
        self.on_tick();
    }

    fn on_tip(&mut self, tip: u64) {
        if tip <= self.tip {
            return;
        }
        if !self.held.is_verified(tip) {
            self.moved_at = self.now;
        }
        self.tip = tip;
        self.certified = self.certified.max(tip);
        self.held.raise_tip(tip);
        self.wanted = self.wanted.split_off(&tip.saturating_add(1));
        self.next_unasked = self.next_unasked.max(tip.saturating_add(1));
        // What is no longer of use is no longer expected, and nobody is held to it.
        let served: Vec<u64> =
            self.requests.iter().filter(|(_, request)| request.end() <= tip.saturating_add(1)).map(|(id, _)| *id).collect();
        for id in served {
            self.drop_request(id);
        }
    }

    fn on_verdict(&mut self, at: Height, ticket: u64, ok: bool, fx: &mut Vec<Effect>) {
        if ok {
            let Some(peer) = self.held.verified(at.get(), ticket) else { return };
            self.certified = self.certified.max(at.get());
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.gave_good_block();
            }
        } else {
            let Some(peer) = self.held.refuted(at.get(), ticket) else { return };
            if !planted::has(Bug::RefutedNotAskedAgain) {
                self.want(at.get(), at.get() + 1);
            }
            self.blame(peer, BlameReason::InvalidBlock { height: at }, fx);
        }
    }

    fn on_tick(&mut self) {
        let (now, believed) = (self.now, self.believed());
        let mut uncovered = Vec::new();
        let mut forgotten = Vec::new();
        for (id, request) in &mut self.requests {
            let peer = self.peers.get_mut(&request.peer).expect("requests of a peer that is gone are cancelled");
            let is_held = request.state == State::Due && !peer.proved && request.from <= believed && now >= request.hold_until();
            if request.state != State::Late && now >= request.deadline {
                request.state = State::Late;
                peer.missed_deadline();
            } else if is_held {
                request.state = State::Overtaken;
            } else if request.state != State::Late || now < request.forget_at {
                continue;
            }
            if request.state == State::Late && now >= request.forget_at {
                forgotten.push(*id);
                continue;
            }
            uncovered.push((request.from, request.end()));
        }
        for (from, end) in uncovered {
            self.want(from, end);
        }
        for id in forgotten {
            self.drop_request(id);
        }
    }

    /// The request that holds the block which everything else waits for, where blocks above those that were asked for in it have
    /// come already, and when others are asked for them, too. Who answers with one block just before each deadline is proved good by
    /// it, and would be given the next ones again and again.
    fn hedged_request(&self) -> Option<(u64, u64)> {
        // Mostly there is none, and the walk to the lowest missing block is for nothing.
        if !self.requests.values().any(Request::is_due) {
            return None;
        }
        let head = self.held.lowest_missing();
        let covering = || self.requests.iter().filter(|(_, request)| request.covers(head));
        let (id, due) = covering().find(|(_, request)| request.is_due())?;
        let others = u32::try_from(covering().count() - 1).unwrap_or(u32::MAX);
        let wait = HEDGE_MS.checked_shl(others).unwrap_or(u64::MAX);
        self.held.has_from(due.end()).then(|| (*id, due.asked_at.saturating_add(wait)))
    }

    fn hedge(&mut self) {
        let Some((id, _)) = self.hedged_request().filter(|(_, at)| self.now >= *at) else { return };
        let request = self.requests.get_mut(&id).expect("just met");
        request.state = State::Overtaken;
        let (from, end) = (request.from, request.end());
        self.want(from, end);
    }

    /// A peer lied: nothing more of what it gave is verified, nothing is asked of it. It is blamed once, however many wrong
    /// blocks of it were being verified.
    fn blame(&mut self, liar: u64, reason: BlameReason, fx: &mut Vec<Effect>) {
        self.cancel_requests_of(liar);
        for height in self.held.drop_from(liar) {
            self.want(height, height + 1);
        }
        let known = self.peers.get_mut(&liar);
        if known.is_none_or(|peer| !std::mem::replace(&mut peer.left, true)) {
            fx.push(Effect::Blame { peer: liar, reason });
        }
    }

    fn cancel_requests_of(&mut self, peer: u64) {
        let theirs: Vec<u64> = self.requests.iter().filter(|(_, request)| request.peer == peer).map(|(id, _)| *id).collect();
        for id in theirs {
            self.drop_request(id);
        }
    }

    fn drop_request(&mut self, id: u64) {
        let request = self.requests.remove(&id).expect("dropped once");
        self.peers.get_mut(&request.peer).expect("requests of a peer that is gone are cancelled").in_flight -= 1;
        self.want(request.from, request.end());
    }

    /// Heights that are to be asked for again, unless we have them or another answer with them is due.
    fn want(&mut self, from: u64, end: u64) {
        for height in from.max(self.tip.saturating_add(1))..end {
            let is_due = self.requests.values().any(|request| request.is_due() && request.covers(height));
            if !is_due && !self.held.contains(height) {
                self.wanted.insert(height);
            }
        }
    }

    /// The highest height that is proved, or claimed by a peer whose last blocks proved good.
    fn believed(&self) -> u64 {
        let is_proved = |peer: &Peer| peer.proved || planted::has(Bug::ClaimBelieved);
        let proved = self.peers.values().filter(|peer| is_proved(peer) && peer.counts(self.now) && peer.base <= peer.tip);
        proved.map(|peer| peer.tip).max().unwrap_or(0).max(self.certified)
    }

    /// The highest height that anybody says to have.
    fn claimed(&self) -> u64 {
        let claims = self.peers.values().filter(|peer| peer.counts(self.now) && peer.base <= peer.tip);
        claims.map(|peer| peer.tip).max().unwrap_or(0)
    }

    /// Whether a decided `target` is more than consensus is about to reach by itself.
    fn is_behind(&self, target: u64) -> bool {
        let stalled = self.now.saturating_sub(self.moved_at) >= GRACE_MS;
        target > self.tip && (stalled || target - self.tip > AT_ONCE_GAP)
    }

    /// Gives out requests: the lowest heights first, to the best peers that claim them.
    fn ask(&mut self, fx: &mut Vec<Effect>) {
        let claimed = self.claimed();
        if !self.is_behind(claimed) {
            return;
        }
        let believed = self.believed();
        let end = self.tip.saturating_add(WINDOW_BLOCKS).min(claimed);
        let mut from = self.tip.saturating_add(1);
        for _ in 0..RUNS_TRIED_MAX {
            let due = self.requests.values().filter(|request| request.is_due()).count();
            let speculative = self.requests.values().filter(|request| request.is_due() && request.from > believed).count();
            if due >= REQUESTS_MAX {
                return;
            }
            // The next height that nobody is asked for: one that came to nothing, else one that was never asked for.
            let next = self.wanted.range(from..).next().copied().unwrap_or(self.next_unasked.max(from));
            if next > end || (next > believed && speculative >= SPECULATIVE_REQUESTS_MAX) {
                return;
            }
            let mut run = 1;
            while run < RANGE_BLOCKS_MAX && self.is_unasked(next + u64::from(run)) && next + u64::from(run) <= end {
                run += 1;
            }
            from = next + u64::from(run);
            // Above its bound the buffer takes only the block that everything else waits for.
            let room = self.last_bytes.max(RESPONSE_BYTES_MAX).saturating_mul(due as u64 + 1);
            if self.held.bytes().saturating_add(room) > BUFFER_BYTES_MAX {
                if next != self.held.lowest_missing() {
                    return;
                }
                run = 1;
            }
            let Some(id) = self.best_peer(next) else { continue };
            fx.push(self.request(id, next, run));
            from = self.tip.saturating_add(1);
        }
    }

    fn is_unasked(&self, height: u64) -> bool {
        height >= self.next_unasked || self.wanted.contains(&height)
    }

    /// Who is asked for a height. Debt decides who may be asked at all, so that a free liar is not better than a busy
    /// honest peer. Among these come first those that proved good, so that what all else waits for is with them; then the
    /// least busy, then the one that waited longest.
    fn best_peer(&self, height: u64) -> Option<u64> {
        let claimants = || self.peers.iter().filter(|(_, peer)| peer.claims(height, self.now));
        let least = claimants().map(|(_, peer)| peer.debt).min()?;
        let owes_it = |id: u64| self.requests.values().any(|request| request.peer == id && request.covers(height));
        claimants()
            .filter(|(id, peer)| peer.debt <= least.saturating_add(DEBT_SLACK) && peer.in_flight < REQUESTS_PER_PEER_MAX && !owes_it(**id))
            .min_by_key(|(_, peer)| (!peer.proved, peer.in_flight, peer.debt, peer.last_asked))
            .map(|(id, _)| *id)
    }

    fn request(&mut self, id: u64, from: u64, run: u32) -> Effect {
        let number = self.next_id;
        self.next_id += 1;
        let peer = self.peers.get_mut(&id).expect("chosen among them");
        let count = run.min(u32::try_from(peer.tip - from + 1).unwrap_or(u32::MAX));
        peer.in_flight += 1;
        peer.last_asked = number + 1;
        let deadline = self.now.saturating_add(peer.deadline_ms());
        let forget_at = self.now.saturating_add(peer.deadline_ms() * FORGET_AFTER_DEADLINES);
        let request = Request { peer: id, from, count, asked_at: self.now, deadline, forget_at, state: State::Due };
        for height in from..request.end() {
            self.wanted.remove(&height);
        }
        // Where nobody had the first height never asked for, this request lies above it.
        self.wanted.extend(self.next_unasked..from);
        self.next_unasked = self.next_unasked.max(request.end());
        self.requests.insert(number, request);
        Effect::Request { peer: id, id: number, from: height(from), count }
    }

    /// Panics unless the parts agree. For tests: it walks everything.
    pub fn assert_invariants(&self) {
        self.held.assert_invariants();
        let due = self.requests.values().filter(|request| request.is_due()).count();
        assert!(due <= REQUESTS_MAX, "more requests than may be");
        assert!(self.peers.len() <= PEERS_MAX, "more peers than may be");
        for (id, peer) in &self.peers {
            let theirs = self.requests.values().filter(|request| request.peer == *id).count();
            assert_eq!(peer.in_flight, theirs, "requests of a peer are counted");
            assert!(theirs <= REQUESTS_PER_PEER_MAX, "more requests to a peer than may be");
            assert!(!peer.left || theirs == 0, "a liar is not asked");
        }
        assert!(self.requests.values().all(|request| self.peers.contains_key(&request.peer)), "a request to nobody");
        // Every height that was asked for and did not become ours is in exactly one place.
        for height in self.tip + 1..self.next_unasked {
            let is_due = self.requests.values().filter(|request| request.is_due() && request.covers(height)).count();
            let places = usize::from(self.held.contains(height)) + usize::from(self.wanted.contains(&height));
            assert!(places <= 1 && places + is_due >= 1, "height {height} is forgotten or wanted twice");
            assert!(is_due == 0 || !self.wanted.contains(&height), "height {height} is on its way and wanted");
        }
        assert!(self.wanted.iter().all(|height| (self.tip + 1..self.next_unasked).contains(height)), "wanted outside what was asked for");
    }
}

pub(crate) fn height(value: u64) -> Height {
    Height::new(value).unwrap_or(Height::MAX)
}
