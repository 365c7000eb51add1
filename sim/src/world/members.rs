//! Nodes that ask to validate, approve each other, and leave.

use std::cmp::Reverse;
use std::sync::Arc;

use lockstep_app::membership::{Approve, Join, NodeTx, Quit, RecentBlock};
use lockstep_replica::Input;
use lockstep_replica::seam::{RequestId, Wait};
use lockstep_types::{Address, Power, PrivateKey, PublicKey, Signature, ValidatorIndex};

use super::World;
use crate::checks::Violation;
use crate::coverage::Kind;
use crate::members::{Ask, WEAK};
use crate::plan::MS;
use crate::random::Stream;

/// Keys that one asks for at once, at most.
const CROWD_MAX: u64 = 64;
const NOTHING: Signature = Signature([0; 64]);

impl World {
    /// The votes of a height count by its set, and what anybody answers for is a share of it.
    pub(super) fn powers_change(&mut self) {
        if self.plan.members.is_none() {
            return;
        }
        let (from, set) = self.checks.newest_set();
        if self.votes.changed(from, set) {
            // Of twins one has the power of both.
            let power = |node: usize| self.key_of(node).and_then(|key| set.get(&key.address()).copied()).unwrap_or(0);
            let powers = (0..self.plan.validators_max()).map(power);
            self.liars.accountability.changed(from, powers.collect());
            (0..self.plan.validators_max()).for_each(|node| self.cover(Kind::View, node));
        }
        self.reckon();
    }

    /// Each node's place in the set that decides a height; none where it has none.
    pub(super) fn places_at(&self, height: u64) -> Vec<Option<ValidatorIndex>> {
        if self.plan.members.is_none() {
            return self.indices.iter().copied().map(Some).collect();
        }
        let mut set: Vec<(&Address, &u64)> = self.checks.set_of(height).iter().collect();
        set.sort_by_key(|(address, power)| (Reverse(**power), **address));
        let place = |node: usize| {
            let address = self.key_of(node)?.address();
            set.iter().position(|(other, _)| **other == address).map(ValidatorIndex::from_position)
        };
        (0..self.machines.len()).map(place).collect()
    }

    /// A node's place in the set that decides a height.
    pub(super) fn place_of(&self, node: usize, height: u64) -> Option<ValidatorIndex> {
        match self.plan.members {
            None => self.indices.get(node).copied(),
            Some(_) => self.places_at(height).get(node).copied().flatten(),
        }
    }

    /// Whose place it is.
    pub(super) fn node_at(&self, place: ValidatorIndex, height: u64) -> Option<usize> {
        self.places_at(height).iter().position(|other| *other == Some(place))
    }

    pub(super) fn key_of(&self, node: usize) -> Option<PublicKey> {
        self.machines.get(node)?.key.as_ref().map(PrivateKey::public_key)
    }

    /// What is asked next: after how long, by which node, and what.
    pub(super) fn draw_asks(&self, dice: &mut Stream) -> Vec<(u64, usize, Ask)> {
        let (_, set) = self.checks.newest_set();
        let nodes = 0..self.plan.validators_max();
        let address = |node: usize| self.key_of(node).map(|key| key.address());
        let validates = |node: &usize| address(*node).is_some_and(|address| set.contains_key(&address));
        let (inside, outside): (Vec<usize>, Vec<usize>) = nodes.partition(validates);
        let largest = set.values().max().copied().unwrap_or(1);
        let mut asks = Vec::new();
        match dice.below(if self.plan.byzantine.is_empty() { 10 } else { 14 }) {
            0..5 if !outside.is_empty() => {
                let who = *dice.pick(&outside);
                // Now and then more than may be: it is refused.
                let power = if dice.chance(50) { 3 * largest } else { dice.between(1, largest + 1) };
                asks.push((0, who, Ask::Join { power }));
                for voter in inside.iter().filter(|_| dice.chance(900)) {
                    asks.push((0, *voter, Ask::Approve { who, power }));
                }
                // An approval that came too early for its request, or a request that grew old.
                asks.iter_mut().for_each(|(delay, ..)| *delay = if dice.chance(500) { dice.below(400 * MS) } else { 0 });
            }
            5..8 if !inside.is_empty() => asks.push((0, *dice.pick(&inside), Ask::Quit)),
            8 if !inside.is_empty() && !outside.is_empty() => {
                asks.push((0, *dice.pick(&outside), Ask::Rotate { old: *dice.pick(&inside) }));
            }
            // Liars send crowds, ask for keys under which anybody can sign, and leave when it is their turn or when they were seen.
            10 => asks.push((0, self.liar(dice), Ask::Crowd { seed: dice.bits(), count: dice.between(5, 40), power: largest })),
            11 if !inside.is_empty() => {
                let (key, power) = (dice.place(WEAK.len()), dice.between(1, largest + 1));
                asks.push((0, self.liar(dice), Ask::Weak { key, power }));
                asks.extend(inside.iter().map(|voter| (0, *voter, Ask::ApproveWeak { key, power })));
            }
            12 => asks.push((0, self.liar(dice), Ask::Quit)),
            13 => asks.push((0, self.liar(dice), Ask::Join { power: dice.between(1, 2 * largest) })),
            _ => {
                for _ in 0..=dice.below(4) {
                    asks.push((0, dice.place(self.machines.len()), Ask::Stranger { seed: dice.bits(), power: largest }));
                }
            }
        }
        // Whoever reads the chain may hand on again what stands there.
        for _ in 0..dice.below(3) {
            asks.push((dice.below(3_000 * MS), dice.place(self.machines.len()), Ask::HandOn { place: dice.bits() }));
        }
        asks
    }

    /// One of those who lie.
    fn liar(&self, dice: &mut Stream) -> usize {
        dice.pick(&self.plan.byzantine.liars).node
    }

    /// Signs what is asked over the newest block that the node knows, and hands it to the node. Whether it could.
    pub(super) fn ask_chain(&mut self, node: usize, ask: &Ask) -> Result<bool, Violation> {
        let machine = &self.machines[node];
        let Some(running) = machine.running.as_ref().filter(|_| machine.frozen_until <= self.now && self.plan.members.is_some()) else {
            return Ok(false);
        };
        let known = &running.executor.state().standing().recent;
        let Some(hash) = known.get(known.newest()) else { return Ok(false) };
        let recent = RecentBlock { height: known.newest(), hash };
        let each: Vec<Ask> = match ask {
            Ask::Crowd { seed, count, power } => {
                let mut dice = Stream::new(*seed, "crowd");
                (0..(*count).min(CROWD_MAX)).map(|_| Ask::Stranger { seed: dice.bits(), power: *power }).collect()
            }
            one => vec![one.clone()],
        };
        let all: Vec<Vec<u8>> = each.iter().filter_map(|ask| self.asked(node, ask, recent)).collect();
        if all.is_empty() || !self.may_ask(node, ask) {
            return Ok(false);
        }
        match ask {
            Ask::Join { .. } | Ask::Rotate { .. } => self.cover(Kind::Join, node),
            Ask::Quit => self.cover(Kind::Quit, node),
            _ => {}
        }
        for bytes in all {
            self.requests += 1;
            self.checks.submitted(&bytes);
            let (life, request) = (self.machines[node].life, RequestId(self.requests));
            self.input(node, life, Input::Submit { request, tx: Arc::from(bytes), wait: Wait::Commit })?;
        }
        Ok(true)
    }

    fn asked(&self, node: usize, ask: &Ask, recent: RecentBlock) -> Option<Vec<u8>> {
        let (id, genesis) = (&self.genesis.chain_id, &self.genesis.hash());
        let own = self.machines[node].key.as_ref()?;
        let join = |public_key: PublicKey, power: u64, replaces: Option<PublicKey>| {
            let replaced_signature = replaces.map(|_| NOTHING);
            let power = Power::new(power).expect("plans have small powers");
            let (moniker, addresses) = (String::new(), Vec::new());
            NodeTx::Join(Box::new(Join { public_key, power, moniker, addresses, replaces, recent, signature: NOTHING, replaced_signature }))
        };
        let tx = match ask {
            Ask::Join { power } => join(own.public_key(), *power, None).signed(own, id, genesis),
            Ask::Quit => NodeTx::Quit(Quit { public_key: own.public_key(), signer: own.public_key(), recent, signature: NOTHING })
                .signed(own, id, genesis),
            Ask::Approve { who, power } => {
                let (public_key, power) = (self.key_of(*who)?, Power::new(*power)?);
                NodeTx::Approve(Approve { public_key, power, signer: own.public_key(), recent, signature: NOTHING })
                    .signed(own, id, genesis)
            }
            Ask::Rotate { old } => {
                let replaced = self.machines.get(*old)?.key.as_ref()?;
                let power = *self.checks.newest_set().1.get(&replaced.public_key().address())?;
                join(own.public_key(), power, Some(replaced.public_key())).sign_as_replaced(replaced, id, genesis).signed(own, id, genesis)
            }
            Ask::Weak { key, power } => {
                // Under the neutral element this holds for every message.
                let mut neutral = [0; 64];
                neutral[0] = 1;
                match join(PublicKey(*WEAK.get(*key)?), *power, None) {
                    NodeTx::Join(join) => NodeTx::Join(Box::new(Join { signature: Signature(neutral), ..*join })),
                    _ => return None,
                }
            }
            Ask::ApproveWeak { key, power } => {
                let (public_key, power) = (PublicKey(*WEAK.get(*key)?), Power::new(*power)?);
                NodeTx::Approve(Approve { public_key, power, signer: own.public_key(), recent, signature: NOTHING })
                    .signed(own, id, genesis)
            }
            Ask::Crowd { .. } => return None,
            Ask::HandOn { place } => return self.checks.granted(*place).map(<[u8]>::to_vec),
            Ask::Stranger { seed, power } => {
                let mut bytes = [0x5a; 32];
                bytes[..8].copy_from_slice(&seed.to_le_bytes());
                let stranger = PrivateKey::from_seed(&bytes);
                join(stranger.public_key(), *power, None).signed(&stranger, id, genesis)
            }
        };
        Some(tx.encode())
    }
}
