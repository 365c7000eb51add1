//! How frames travel.

use std::collections::BTreeSet;

use bytes::Bytes;
use lockstep_replica::Input;
use lockstep_replica::seam::{AskId, JobId, Lane, Target};
use lockstep_replica::wire::Message;
use lockstep_types::PublicKey;

use super::byzantine::Say;
use super::{Eclipse, NODES_MAX, Outcome, What, World, pair, peer_number};
use crate::coverage::Kind;
use crate::node::Asked;
use crate::plan::MS;
use crate::random::Stream;

/// All links of a network, each with a stream of its own.
#[derive(Debug)]
pub(super) struct Links {
    seed: u64,
    links: Vec<Option<Box<Link>>>,
}

/// From one node to another.
#[derive(Debug)]
struct Link {
    dice: Stream,
    /// How much of the range of latencies it has, of 1,000.
    share: u64,
    /// When everything that waits for its bandwidth will have left.
    drained: u64,
    /// When the last frame arrives.
    last: u64,
}

impl Links {
    /// Links of which nothing is drawn yet.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, links: Vec::new() }
    }

    fn of(&mut self, from: usize, to: usize) -> &mut Link {
        let place = from * NODES_MAX + to;
        if place >= self.links.len() {
            self.links.resize_with(place + 1, || None);
        }
        self.links[place].get_or_insert_with(|| {
            let mut dice = Stream::new(self.seed, &format!("link {from} to {to}"));
            Box::new(Link { share: dice.between(0, 1_000), dice, drained: 0, last: 0 })
        })
    }
}

impl World {
    /// How long so many bytes take from one node to another, if they arrive: behind what was sent on this link before, where
    /// they keep its order.
    pub(super) fn hop(&mut self, from: usize, to: usize, bytes: usize, in_order: bool) -> Option<u64> {
        if self.is_cut(from, to) || self.is_apart(from, to) || self.is_kept_apart(from, to) {
            return None;
        }
        let link = self.links.of(from, to);
        if self.healed {
            return Some(link.dice.between(MS / 10, 5 * MS));
        }
        let plan = &self.plan;
        if link.dice.chance(plan.loss) {
            self.cover(Kind::Loss, to);
            return None;
        }
        let mut at = self.now;
        if plan.bandwidth > 0 {
            let bytes = bytes as u64;
            let waiting = u128::from(link.drained.saturating_sub(self.now)) * u128::from(plan.bandwidth) / 1_000_000_000;
            if waiting + u128::from(bytes) > plan.queue_bytes.into() {
                self.cover(Kind::Overflow, to);
                return None;
            }
            link.drained = link.drained.max(self.now) + bytes * 1_000_000_000 / plan.bandwidth;
            at = link.drained;
        }
        let (low, high) = plan.latency;
        let clogged = self.clogs.iter().filter(|clog| clog.links.contains(&(from, to))).map(|clog| clog.until).max();
        if link.dice.below(100_000) < plan.late {
            // Far behind the others, which do not wait for it.
            let most = plan.late_ns >> link.dice.below(8);
            let delay = link.dice.between(most / 2, most);
            self.cover(Kind::Late, to);
            return Some(at + delay - self.now);
        }
        // A link has a part of the range for its own, the nearer end always.
        at += link.dice.between(low, low + (high - low) * link.share / 1_000);
        at = at.max(clogged.unwrap_or(0));
        if in_order {
            let ahead = link.dice.between(0, plan.reorder);
            at = at.max((link.last + 1).saturating_sub(ahead));
            link.last = link.last.max(at);
        }
        Some(at - self.now)
    }

    /// How long until two nodes try to connect.
    pub(super) fn dial_delay(&mut self, a: usize, b: usize, low_ms: u64, high_ms: u64) -> u64 {
        self.dials.of(a * NODES_MAX + b).between(low_ms * MS, high_ms * MS)
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.iter().any(|cut| cut.holds(self.now) && cut.links.contains(&(from, to)))
    }

    fn is_eclipsed(&mut self, a: usize, b: usize) -> bool {
        self.eclipses.retain(|eclipse| eclipse.until > self.now);
        let shuts_out = |eclipse: &Eclipse, node: usize, other: usize| eclipse.node == node && !eclipse.keeps.contains(&other);
        self.eclipses.iter().any(|eclipse| shuts_out(eclipse, a, b) || shuts_out(eclipse, b, a))
    }

    /// Twins that are kept apart have half of the others each.
    pub(super) fn is_apart(&self, from: usize, to: usize) -> bool {
        let Some(twins) = self.plan.twins.filter(|twins| twins.apart && !self.healed) else { return false };
        let other = self.machines.len() - 1;
        let is_odd = |node: usize| !node.is_multiple_of(2);
        let between = |a: usize, b: usize| (a == twins.node && is_odd(b)) || (a == other && !is_odd(b)) || (a, b) == (twins.node, other);
        between(from, to) || between(to, from)
    }

    /// The nodes that do not get this frame, whoever sends it.
    fn deaf(&self, bytes: &Bytes) -> BTreeSet<usize> {
        if self.deafness.is_empty() {
            return BTreeSet::new();
        }
        let Ok(message) = Message::decode(bytes) else { return BTreeSet::new() };
        let places = self.places_at(message.height().get());
        let deaf = self.deafness.iter().filter(|deafness| deafness.kind.covers(&message, &places));
        deaf.flat_map(|deafness| &deafness.nodes).copied().collect()
    }

    pub(super) fn send(&mut self, from: usize, to: Target, lane: Lane, bytes: &Bytes) {
        let peers: Vec<usize> = match (&to, self.machines[from].running.as_ref()) {
            (_, None) => return,
            (Target::All, Some(running)) => running.peers.values().copied().collect(),
            (Target::One(peer), Some(running)) => running.peers.get(peer).copied().into_iter().collect(),
        };
        self.deafness.retain(|deafness| deafness.until > self.now);
        self.cuts.retain(|cut| cut.until > self.now);
        self.clogs.retain(|clog| clog.until > self.now);
        let deaf = self.deaf(bytes);
        for (place, to) in peers.into_iter().enumerate().filter(|(_, to)| !deaf.contains(to)) {
            let Some(connection) = self.connections.get(&pair(from, to)).copied() else { continue };
            let gossip = lane == Lane::Gossip;
            if self.plan.byzantine.lies(from) {
                for Say { after, bytes, gossip } in self.utter(from, to, place, bytes, gossip) {
                    if let Some(delay) = self.hop(from, to, bytes.len(), true) {
                        self.after(after + delay, What::Frame { from, to, connection, bytes, gossip });
                    }
                }
                continue;
            }
            let duplication = if self.healed { 0 } else { self.plan.duplication };
            let copies = if self.links.of(from, to).dice.chance(duplication) { 2 } else { 1 };
            if copies == 2 {
                self.cover(Kind::Duplicate, to);
            }
            for _ in 0..copies {
                if let Some(delay) = self.hop(from, to, bytes.len(), true) {
                    self.sent(from, to, bytes);
                    self.after(delay, What::Frame { from, to, connection, bytes: bytes.clone(), gossip });
                }
            }
        }
    }

    pub(super) fn frame(&mut self, from: usize, to: usize, connection: u64, bytes: Bytes, gossip: bool) -> Outcome {
        if self.connections.get(&pair(from, to)) != Some(&connection) {
            return Ok(());
        }
        if self.plan.byzantine.lies(to) {
            self.overhear(to, from, &bytes);
        } else {
            self.show(&bytes);
        }
        let life = self.machines[to].life;
        self.arrives(from, to, &bytes);
        let peer = peer_number(connection, from, to);
        let input = if gossip { Input::Gossiped { peer, bytes } } else { Input::Received { peer, bytes } };
        self.input(to, life, input)
    }

    pub(super) fn ask(&mut self, from: usize, from_life: u64, to: usize, job: JobId, connection: u64, bytes: Bytes) -> Outcome {
        if self.connections.get(&pair(from, to)) != Some(&connection) {
            return Ok(());
        }
        let life = self.machines[to].life;
        let Some(running) = self.alive(to, life) else { return Ok(()) };
        running.ask_count += 1;
        let ask = AskId(running.ask_count);
        running.asks.insert(ask, Asked { node: from, life: from_life, job, question: bytes.clone() });
        self.input(to, life, Input::Asked { peer: peer_number(connection, from, to), ask, bytes })
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) -> Outcome {
        let thawed = self.machines[a].frozen_until.max(self.machines[b].frozen_until);
        if thawed > self.now {
            self.at(thawed, What::Connect { a, b });
            return Ok(());
        }
        let both = self.machines[a].running.is_some() && self.machines[b].running.is_some();
        if !both || self.connections.contains_key(&(a, b)) || !self.may_meet(a, b) {
            return Ok(());
        }
        if self.is_eclipsed(a, b) {
            let delay = self.dial_delay(a, b, 50, 500);
            self.after(delay, What::Connect { a, b });
            return Ok(());
        }
        // What is sent on a new connection does not wait for what went down with the last.
        [(a, b), (b, a)].into_iter().for_each(|(from, to)| self.links.of(from, to).last = 0);
        self.connection_count += 1;
        let connection = self.connection_count;
        self.connections.insert((a, b), connection);
        for (node, other) in [(a, b), (b, a)] {
            let life = self.machines[node].life;
            let validator: Option<PublicKey> = self.machines[other].key.as_ref().map(lockstep_types::PrivateKey::public_key);
            let peer = peer_number(connection, other, node);
            if let Some(running) = self.machines[node].running.as_mut() {
                running.peers.insert(peer, other);
            }
            self.input(node, life, Input::PeerUp { peer, validator })?;
        }
        Ok(())
    }

    pub(super) fn disconnect(&mut self, a: usize, b: usize) -> Outcome {
        let Some(connection) = self.connections.remove(&(a, b)) else { return Ok(()) };
        for (node, other) in [(a, b), (b, a)] {
            let peer = peer_number(connection, other, node);
            let life = self.machines[node].life;
            if let Some(running) = self.machines[node].running.as_mut() {
                running.peers.remove(&peer);
                self.input(node, life, Input::PeerDown { peer })?;
            }
        }
        let delay = self.dial_delay(a, b, 20, 600);
        self.after(delay, What::Connect { a, b });
        Ok(())
    }
}
