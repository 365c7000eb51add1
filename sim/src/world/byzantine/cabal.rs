//! Liars of one mind, with enough power to make two quorums.
//!
//! They vote to each side of the honest validators as that side votes, so each side has more than two thirds, and goes its
//! way. Where each member signs for both sides in one round, that is equivocation. Where nobody signs twice for one place,
//! it is amnesia: all precommit what the first side wants, and in a later round, when the other side proposes something
//! else, they prevote that as if they never had.

use bytes::Bytes;
use lockstep_replica::wire::Message;
use lockstep_types::{BlockId, Round, Vote};

use super::{Mind, Place, Say, World};
use crate::liars::Flavour;

impl World {
    /// What a member of the cabal sends a peer: to other members what its replica says; to the honest its proposals, and
    /// nothing that would tell one side of the other.
    pub(super) fn conspire(&mut self, mind: &mut Mind, from: usize, to: usize, say: Say) -> Vec<Say> {
        let Some(cabal) = &self.plan.byzantine.cabal else { return vec![say] };
        if !self.is_honest(to) {
            return vec![say];
        }
        let is_second = cabal.second.get(to).copied().unwrap_or(false);
        let flavour = cabal.flavour;
        let Ok(message) = Message::decode(&say.bytes) else { return vec![say] };
        let height = message.height().get();
        match message {
            Message::Txs(_) | Message::Evidence(_) | Message::HasEvidence(_) => vec![say],
            Message::Proposal { .. } | Message::Part { .. } if flavour == Flavour::Amnesia => {
                if is_second == height.is_multiple_of(2) {
                    vec![say]
                } else {
                    Vec::new()
                }
            }
            message @ (Message::Proposal { .. } | Message::Part { .. }) if is_second => {
                let other = self.second_block(mind, from, message);
                other.map(|bytes| say.with(bytes)).into_iter().collect()
            }
            Message::Proposal { .. } | Message::Part { .. } => vec![say],
            _ => Vec::new(),
        }
    }

    /// An honest validator votes, and this member of the cabal votes the same: to its side, or to all where it signs nothing
    /// twice.
    pub(super) fn echo_to_side(&mut self, mind: &mut Mind, liar: usize, from: usize, vote: &Vote) {
        let Some(cabal) = self.plan.byzantine.cabal.clone() else { return };
        let side = cabal.second.get(from).copied().unwrap_or(false);
        let place: Place = (vote.height.get(), vote.round.get(), vote.kind as u8);
        let value = (vote.block_id, vote.valid_round.map(Round::get));
        if cabal.flavour == Flavour::Amnesia && *mind.signed.entry(place).or_insert(value) != value {
            return;
        }
        let honest = (0..self.plan.powers.len()).filter(|node| self.is_honest(*node));
        let to: Vec<usize> = honest
            .filter(|node| cabal.flavour == Flavour::Amnesia || cabal.second.get(*node).copied().unwrap_or(false) == side)
            .filter(|node| mind.echoed.insert((place, value, *node)))
            .collect();
        let Some(bytes) = self.same_vote(liar, vote).filter(|_| !to.is_empty()) else { return };
        let what = if cabal.flavour == Flavour::Amnesia { "cabal: amnesia" } else { "cabal: equivocation" };
        self.liars.count(what);
        to.into_iter().for_each(|node| self.inject(liar, node, bytes.clone()));
    }

    /// A lone liar votes to each peer what that peer votes.
    pub(super) fn echo(&mut self, mind: &mut Mind, liar: usize, from: usize, vote: &Vote) {
        let place: Place = (vote.height.get(), vote.round.get(), vote.kind as u8);
        let value = (vote.block_id, vote.valid_round.map(Round::get));
        if mind.echoed.insert((place, value, from))
            && let Some(bytes) = self.same_vote(liar, vote)
        {
            self.liars.count(crate::liars::Lie::Echo.name());
            self.inject(liar, from, bytes);
        }
    }

    fn same_vote(&mut self, liar: usize, vote: &Vote) -> Option<Bytes> {
        let validator = self.place_of(liar, vote.height.get())?;
        self.signed_vote(liar, Vote { validator, ..vote.clone() })
    }

    /// Whether the network is on the side of the cabal, and keeps these two from each other.
    pub(in crate::world) fn is_kept_apart(&self, from: usize, to: usize) -> bool {
        let Some(cabal) = self.plan.byzantine.cabal.as_ref().filter(|cabal| cabal.apart) else { return false };
        let side = |node: usize| cabal.second.get(node).copied();
        self.is_honest(from) && self.is_honest(to) && side(from) != side(to)
    }

    /// The name of a block that does not exist.
    pub(super) fn nowhere(mind: &mut Mind) -> BlockId {
        super::super::invented(mind.dice.bits())
    }
}
