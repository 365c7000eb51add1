//! A node that is behind, one honest peer at least, and any number of liars, under a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_sync::{
    Answer, BlockSync, DEADLINE_MS, Effect, Fetched, Input, REQUESTS_MAX, REQUESTS_PER_PEER_MAX, RESPONSE_BYTES_MAX, VERIFY_AHEAD_MAX,
};
use lockstep_types::Height;

use crate::{commit, good, h, holds};

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Answers what it was asked, within its delay, as far as an answer's bytes allow; delays may be above any deadline.
    Honest { delay_ms: u64 },
    /// Never answers.
    Silent,
    /// Never answers either, and the network says so, at once or after a while.
    Failing,
    /// One block at a time, just before the deadline.
    Trickle,
    /// Another body behind the right certificate.
    WrongBody,
    /// Another body, and a certificate for it that nobody signed.
    Forged,
    /// Right blocks under the wrong heights.
    Shifted,
    /// More than was asked for.
    TooMany,
    /// Claims everything, has nothing, and claims it again.
    Boaster,
    /// Its base is above its tip.
    Inverted,
    /// Good blocks, until it had our trust.
    Sleeper,
    /// Answers nobody asked for.
    Unasked,
    /// Vanishes when asked, and comes again under another number.
    Turncoat,
}

const LIARS: [Kind; 12] = [
    Kind::Silent,
    Kind::Failing,
    Kind::Trickle,
    Kind::WrongBody,
    Kind::Forged,
    Kind::Shifted,
    Kind::TooMany,
    Kind::Boaster,
    Kind::Inverted,
    Kind::Sleeper,
    Kind::Unasked,
    Kind::Turncoat,
];

#[derive(Debug)]
enum Event {
    Input(Input),
    /// The head of the verification queue is done.
    Verified,
    /// A peer says what it has.
    Status(u64),
    /// The chain grows, for everyone but us.
    Grow,
    /// Consensus decides the next block here by itself.
    Decide,
}

struct World {
    rng: Rng,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    events_made: u64,
    sync: BlockSync,
    kinds: BTreeMap<u64, Kind>,
    next_peer: u64,
    /// The height that the honest have.
    chain: u64,
    /// How far behind a growing chain counts as caught up: what it grows until an honest peer has said so and was asked.
    lag: u64,
    tip: u64,
    /// Handed out, not judged; the caller's queue.
    queue: Vec<(u64, Height, Arc<Fetched>)>,
    asked: BTreeMap<u64, (u64, u64, u32)>,
    /// Who was asked for which height, ever.
    solicited: BTreeSet<(u64, u64)>,
    blamed: BTreeSet<u64>,
    leaving: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    given_by_sleepers: u64,
    requests: u64,
}

impl World {
    fn new(seed: u64, tip: u64, chain: u64, kinds: &[Kind]) -> Self {
        let mut world = Self {
            rng: Rng(seed),
            now: 0,
            events: BTreeMap::new(),
            events_made: 0,
            sync: BlockSync::new(h(tip), 0),
            kinds: BTreeMap::new(),
            next_peer: 1,
            chain,
            lag: 0,
            tip,
            queue: Vec::new(),
            asked: BTreeMap::new(),
            solicited: BTreeSet::new(),
            blamed: BTreeSet::new(),
            leaving: BTreeSet::new(),
            gone: BTreeSet::new(),
            given_by_sleepers: 0,
            requests: 0,
        };
        for kind in kinds {
            world.connect(*kind);
        }
        world.at(0, Event::Input(Input::Tick));
        world
    }

    fn connect(&mut self, kind: Kind) {
        let peer = self.next_peer;
        self.next_peer += 1;
        self.kinds.insert(peer, kind);
        let delay = self.rng.below(200);
        self.at(delay, Event::Status(peer));
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.events_made += 1;
        self.events.insert((self.now + delay, self.events_made), event);
    }

    fn step(&mut self) {
        let ((at, _), event) = self.events.pop_first().expect("ticks go on for ever");
        self.now = at;
        match event {
            Event::Input(Input::Tick) => {
                self.input(Input::Tick);
                let at = self.sync.wakeup_ms().unwrap_or(self.now + 1_000).clamp(self.now + 1, self.now + 1_000);
                self.at(at - self.now, Event::Input(Input::Tick));
            }
            Event::Input(input) => {
                if let Input::PeerGone { peer } = &input {
                    self.gone.insert(*peer);
                }
                self.input(input);
            }
            Event::Verified => self.on_verified(),
            Event::Status(peer) => self.on_status(peer),
            Event::Grow => {
                self.lag = 15;
                self.chain += 1;
                self.at(100, Event::Grow);
            }
            Event::Decide => {
                if self.tip < self.chain {
                    self.move_tip(self.tip + 1);
                }
                self.at(150, Event::Decide);
            }
        }
    }

    fn on_status(&mut self, peer: u64) {
        if self.gone.contains(&peer) {
            return;
        }
        let (base, tip) = match self.kinds[&peer] {
            Kind::Honest { .. } | Kind::Sleeper | Kind::Turncoat => (h(1), h(self.chain)),
            Kind::Inverted => (Height::MAX, h(3)),
            Kind::Boaster => (Height::ZERO, Height::MAX),
            _ => (h(1), h(self.chain + self.rng.below(1_000))),
        };
        self.input(Input::PeerStatus { peer, base, tip });
        if self.kinds[&peer] == Kind::Unasked {
            let answer = Answer::Blocks(vec![good(self.tip + 1)]);
            let id = self.rng.below(self.requests + 3);
            if self.asked.get(&id).is_none_or(|(of, ..)| *of != peer) {
                let held = self.sync.held();
                self.input(Input::Response { peer, id, answer });
                assert_eq!(self.sync.held(), held, "an answer that nobody asked for was taken");
            }
        }
        let delay = 500 + self.rng.below(500);
        self.at(delay, Event::Status(peer));
    }

    /// The caller's side: the head of the queue has its verdict.
    fn on_verified(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let (ticket, height, block) = self.queue.remove(0);
        if height.get() <= self.tip {
            // Consensus was faster.
            return;
        }
        let ok = holds(height, &block);
        if ok {
            assert_eq!(height.get(), self.tip + 1, "verification is in order");
        } else {
            // What was handed out above it is void.
            self.queue.clear();
        }
        self.input(Input::Verdict { height, ticket, ok });
        if ok {
            self.move_tip(height.get());
        }
    }

    fn move_tip(&mut self, height: u64) {
        self.tip = height;
        self.input(Input::Tip { height: h(height) });
    }

    fn input(&mut self, input: Input) {
        let effects = self.sync.on(self.now, input);
        self.sync.assert_invariants();
        for effect in effects {
            match effect {
                Effect::Request { peer, id, from, count } => self.on_request(peer, id, from.get(), count),
                Effect::Verify { ticket, peer, height, block } => {
                    assert!(self.solicited.contains(&(peer, height.get())), "a block that nobody was asked for");
                    let expected = self.queue.iter().map(|(_, height, ..)| height.get()).max().unwrap_or(0).max(self.tip) + 1;
                    assert_eq!(height.get(), expected, "verification is in order");
                    assert!(height.get() <= self.tip + VERIFY_AHEAD_MAX);
                    self.queue.push((ticket, height, block));
                    let delay = 1 + self.rng.below(5);
                    self.at(delay, Event::Verified);
                }
                Effect::Blame { peer, reason } => {
                    let kind = self.kinds[&peer];
                    let is_liar = matches!(kind, Kind::WrongBody | Kind::Forged | Kind::Shifted | Kind::TooMany | Kind::Sleeper);
                    assert!(is_liar, "{kind:?} was blamed for {reason:?}");
                    assert!(self.blamed.insert(peer), "blamed twice");
                }
            }
        }
    }

    fn on_request(&mut self, peer: u64, id: u64, from: u64, count: u32) {
        assert!(!self.blamed.contains(&peer) && !self.gone.contains(&peer), "asked one that lied or left");
        assert!(count >= 1 && from > self.tip);
        self.requests += 1;
        self.asked.insert(id, (peer, from, count));
        self.solicited.extend((from..from + u64::from(count)).map(|height| (peer, height)));
        let count = u64::from(count);
        let has = |chain: u64| from <= chain;
        let blocks = |n: u64| (from..(from + n).min(self.chain + 1)).map(good).collect::<Vec<_>>();
        let nothing = Answer::NotAvailable { base: h(1), tip: h(self.chain) };
        let (delay, answer) = match self.kinds[&peer] {
            Kind::Silent | Kind::Unasked => return,
            Kind::Failing => {
                let delay = self.rng.below(2) * self.rng.below(10_000);
                self.at(delay, Event::Input(Input::Failed { peer, id }));
                return;
            }
            Kind::Inverted => unreachable!("it claims nothing"),
            Kind::Honest { .. } | Kind::Trickle | Kind::Sleeper | Kind::WrongBody | Kind::Forged | Kind::Shifted if !has(self.chain) => {
                (20, nothing)
            }
            Kind::Honest { delay_ms } => (delay_ms, Answer::Blocks(blocks(count))),
            Kind::Trickle => (DEADLINE_MS - 100, Answer::Blocks(blocks(1))),
            Kind::Boaster => (5, Answer::NotAvailable { base: Height::ZERO, tip: Height::MAX }),
            Kind::Turncoat => {
                if self.leaving.insert(peer) {
                    self.at(30, Event::Input(Input::PeerGone { peer }));
                    self.connect(Kind::Turncoat);
                }
                return;
            }
            Kind::TooMany => (10, Answer::Blocks((from..=from + count).map(good).collect())),
            Kind::Shifted => (10, Answer::Blocks((from + 1..from + 1 + count).map(good).collect())),
            kind => {
                let mut answer = blocks(count);
                let turns = kind == Kind::Sleeper && self.given_by_sleepers < 100;
                self.given_by_sleepers += answer.len() as u64;
                if !turns {
                    let at = usize::try_from(self.rng.below(answer.len() as u64)).unwrap();
                    let other: Arc<[u8]> = b"another body".as_slice().into();
                    let claimed = if kind == Kind::Forged { commit(from + at as u64, &other) } else { answer[at].commit.clone() };
                    answer[at] = Fetched { body: other, commit: claimed };
                }
                (10, Answer::Blocks(answer))
            }
        };
        let jitter = self.rng.below(20);
        self.at(delay + jitter, Event::Input(Input::Response { peer, id, answer }));
    }

    /// Runs until we have what the honest have, or until the time is up. Gives the time.
    fn run(&mut self, limit_ms: u64) -> Option<u64> {
        while self.now <= limit_ms {
            if self.tip + self.lag >= self.chain {
                return Some(self.now);
            }
            self.step();
        }
        None
    }
}

/// Whom a seed draws.
fn kinds(rng: &mut Rng, liars: u64, delay_ms: u64) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = (0..liars).map(|_| LIARS[usize::try_from(rng.below(LIARS.len() as u64)).unwrap()]).collect();
    let at = usize::try_from(rng.below(liars + 1)).unwrap();
    kinds.insert(at, Kind::Honest { delay_ms });
    kinds
}

#[test]
fn one_honest_peer_among_many_liars_is_enough() {
    for seed in 0..200 {
        let mut rng = Rng(seed);
        let liars = rng.below(24);
        let drawn = kinds(&mut rng, liars, 40);
        let mut world = World::new(seed, 7, 1_000, &drawn);
        if rng.one_in(3) {
            world.at(0, Event::Grow);
        }
        // Each liar can hold the lowest range once, for one deadline; then it owes too much while the honest one is there.
        let limit = (liars + 2) * DEADLINE_MS;
        let took = world.run(limit);
        assert!(took.is_some(), "seed {seed}: {} of {} after {limit} ms with {drawn:?}", world.tip, world.chain);
        assert!(world.requests < 60 + 20 * liars, "seed {seed}: {} requests", world.requests);
    }
}

#[test]
fn slowness_costs_time_and_nothing_else() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        // From prompt to far beyond every deadline.
        let delays: Vec<u64> = (0..1 + rng.below(4)).map(|_| 1 + rng.below(12_000)).collect();
        let honest: Vec<Kind> = delays.iter().map(|delay_ms| Kind::Honest { delay_ms: *delay_ms }).collect();
        let mut world = World::new(seed, 0, 300, &honest);
        assert!(world.run(400_000).is_some(), "seed {seed}: {} with delays {delays:?}", world.tip);
        assert!(world.blamed.is_empty());
    }
}

#[test]
fn it_runs_beside_consensus() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let drawn = kinds(&mut rng, seed % 8, 60);
        let mut world = World::new(seed, 0, 200, &drawn);
        world.at(0, Event::Grow);
        world.at(50, Event::Decide);
        assert!(world.run(60_000).is_some(), "seed {seed}: {} of {}", world.tip, world.chain);
    }
}

#[test]
fn without_an_honest_peer_nothing_false_is_taken_and_nobody_is_pestered() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let liars: Vec<Kind> = kinds(&mut rng, 10, 0)
            .into_iter()
            .filter(|kind| !matches!(kind, Kind::Honest { .. } | Kind::Sleeper | Kind::Trickle))
            .collect();
        let mut world = World::new(seed, 7, 1_000, &liars);
        // Blocks that liars gave may be good ones: whatever was taken was verified by the test itself.
        world.run(120_000);
        // Turncoats are asked once per connection, and they connect for ever.
        let turncoats = world.kinds.values().filter(|kind| **kind == Kind::Turncoat).count() as u64;
        assert!(world.requests < 400 + REQUESTS_PER_PEER_MAX as u64 * turncoats, "seed {seed}: {} requests", world.requests);
        assert!(world.sync.held_bytes() <= REQUESTS_MAX as u64 * RESPONSE_BYTES_MAX);
    }
}
