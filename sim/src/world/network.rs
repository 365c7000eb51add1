//! How frames travel.

use std::collections::BTreeSet;

use bytes::Bytes;
use lockstep_replica::Input;
use lockstep_replica::seam::{AskId, JobId, Lane, Target};
use lockstep_replica::wire::Message;
use lockstep_types::PublicKey;

use super::{NODES_MAX, Outcome, What, World, pair, peer_number};
use crate::coverage::Kind;
use crate::plan::MS;
use crate::random::Stream;

impl World {
    /// How long a frame takes, if it arrives.
    pub(super) fn hop(&mut self, from: usize, to: usize) -> Option<u64> {
        if self.is_cut(from, to) || self.is_apart(from, to) {
            return None;
        }
        let loss = if self.healed { 0 } else { self.plan.loss };
        if self.link(from, to).chance(loss) {
            self.cover(Kind::Loss, to);
            return None;
        }
        let (low, high) = if self.healed { (MS / 10, 5 * MS) } else { self.plan.latency };
        Some(self.link(from, to).between(low, high))
    }

    /// What happens to frames from one node to another.
    fn link(&mut self, from: usize, to: usize) -> &mut Stream {
        self.links.of(from * NODES_MAX + to)
    }

    /// How long until two nodes try to connect.
    pub(super) fn dial_delay(&mut self, a: usize, b: usize, low_ms: u64, high_ms: u64) -> u64 {
        self.dials.of(a * NODES_MAX + b).between(low_ms * MS, high_ms * MS)
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.iter().any(|cut| cut.holds(self.now) && cut.links.contains(&(from, to)))
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
        let deaf = self.deafness.iter().filter(|deafness| deafness.kind.covers(&message, &self.indices));
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
        let deaf = self.deaf(bytes);
        for (place, to) in peers.into_iter().enumerate().filter(|(_, to)| !deaf.contains(to)) {
            let Some(bytes) = self.lie(from, place, bytes) else { continue };
            let Some(connection) = self.connections.get(&pair(from, to)).copied() else { continue };
            let duplication = if self.healed { 0 } else { self.plan.duplication };
            let copies = if self.link(from, to).chance(duplication) { 2 } else { 1 };
            if copies == 2 {
                self.cover(Kind::Duplicate, to);
            }
            for _ in 0..copies {
                if let Some(delay) = self.hop(from, to) {
                    self.after(delay, What::Frame { from, to, connection, bytes: bytes.clone(), gossip: lane == Lane::Gossip });
                }
            }
        }
    }

    pub(super) fn frame(&mut self, from: usize, to: usize, connection: u64, bytes: Bytes, gossip: bool) -> Outcome {
        if self.connections.get(&pair(from, to)) != Some(&connection) {
            return Ok(());
        }
        let life = self.machines[to].life;
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
        running.asks.insert(ask, (from, from_life, job));
        self.input(to, life, Input::Asked { peer: peer_number(connection, from, to), ask, bytes })
    }

    pub(super) fn connect(&mut self, a: usize, b: usize) -> Outcome {
        let thawed = self.machines[a].frozen_until.max(self.machines[b].frozen_until);
        if thawed > self.now {
            self.at(thawed, What::Connect { a, b });
            return Ok(());
        }
        let both = self.machines[a].running.is_some() && self.machines[b].running.is_some();
        if !both || self.connections.contains_key(&(a, b)) {
            return Ok(());
        }
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
