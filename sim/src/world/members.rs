//! Nodes that ask to validate, approve each other, and leave.

use std::sync::Arc;

use lockstep_app::membership::{Approve, Join, NodeTx, Quit, RecentBlock};
use lockstep_replica::Input;
use lockstep_replica::seam::{RequestId, Wait};
use lockstep_types::{Power, PrivateKey, PublicKey, Signature};

use super::World;
use crate::checks::Violation;
use crate::members::Ask;
use crate::plan::MS;
use crate::random::Stream;

const NOTHING: Signature = Signature([0; 64]);

impl World {
    /// The votes of a height count by its set.
    pub(super) fn powers_change(&mut self) {
        if self.plan.members.is_some() {
            let (from, set) = self.checks.newest_set();
            self.votes.changed(from, set);
        }
    }

    fn key_of(&self, node: usize) -> Option<PublicKey> {
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
        match dice.below(10) {
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
            _ => {
                for _ in 0..=dice.below(4) {
                    asks.push((0, dice.place(self.machines.len()), Ask::Stranger { seed: dice.bits(), power: largest }));
                }
            }
        }
        asks
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
        let Some(bytes) = self.asked(node, ask, recent) else { return Ok(false) };
        self.requests += 1;
        self.checks.submitted(&bytes);
        let (life, request) = (self.machines[node].life, RequestId(self.requests));
        self.input(node, life, Input::Submit { request, tx: Arc::from(bytes), wait: Wait::Commit })?;
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
