//! What honest messages stand on, judged by one who hears everything.
//!
//! A validator knows what reached it; this ledger knows every message that any honest key ever signed. So it can ask of each
//! vote whether the world gave a reason for it: a precommit needs a polka that exists, a valid round one that existed, a new
//! round more than a third of honest power that gave the last one up. Dishonest validators may have signed anything, so they
//! count for whatever is asked. A bug that counts wrongly is seen here at its first wrong vote, long before two nodes
//! disagree.

use std::collections::BTreeMap;

use lockstep_replica::wire::Message;
use lockstep_types::{Address, Commit, CommitSig, Polka, Vote, VoteType};

use crate::checks::{PRECOMMIT, PREVOTE, PROPOSAL, Signed, Violation};

/// Height, round and kind of a message.
type Place = (u64, u64, u64);
/// Hash of the block, none for nil; and the valid round.
type Value = (Option<Vec<u8>>, Option<u64>);

/// Who prevoted, in which round, and when by its clock.
type Answered = (usize, u64, i128);

/// Every message of the honest validators.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    /// By the first height of each set: the power of each node.
    powers: BTreeMap<u64, Vec<u64>>,
    honest: Vec<bool>,
    /// Nodes by the address of their key.
    nodes: BTreeMap<Address, usize>,
    said: BTreeMap<Place, BTreeMap<usize, Value>>,
    /// Prevotes for new values, by height and block: who, in which round, and when by its clock.
    answered: BTreeMap<(u64, Vec<u8>), Vec<Answered>>,
}

fn fail(what: String) -> Result<(), Violation> {
    Err(Violation { invariant: "I4", what })
}

impl Votes {
    /// Of validators with these addresses and powers, by node.
    pub(crate) fn new(addresses: &[Address], powers: &[u64], honest: Vec<bool>) -> Self {
        let nodes = addresses.iter().enumerate().map(|(node, address)| (*address, node)).collect();
        Self { powers: BTreeMap::from([(0, powers.to_vec())]), honest, nodes, ..Self::default() }
    }

    /// From this height on nodes have the powers of this set. Whether that is news.
    pub(crate) fn changed(&mut self, from: u64, set: &BTreeMap<Address, u64>) -> bool {
        let mut powers = vec![0; self.honest.len()];
        for (address, power) in set {
            if let Some(node) = self.nodes.get(address) {
                powers[*node] = *power;
            }
        }
        self.powers.insert(from, powers).is_none()
    }

    fn powers_at(&self, height: u64) -> &[u64] {
        self.powers.range(..=height).next_back().map_or(&[], |(_, powers)| powers)
    }

    /// This validator's memory is older than what it said: what it says from now on may be anything.
    pub(crate) fn is_in_doubt(&mut self, node: usize) {
        if let Some(honest) = self.honest.get_mut(node) {
            *honest = false;
        }
    }

    fn total(&self, height: u64) -> u64 {
        self.powers_at(height).iter().sum()
    }

    fn dishonest(&self, height: u64) -> u64 {
        self.powers_at(height).iter().zip(&self.honest).filter(|(_, honest)| !**honest).map(|(power, _)| power).sum()
    }

    /// An honest validator signs. A message that it signed before, as restarts do, says nothing new.
    pub(crate) fn signed(&mut self, node: usize, signed: &Signed) -> Result<(), Violation> {
        let Signed { kind, height, round, .. } = *signed;
        let value = (signed.block.clone(), signed.valid_round);
        if self.said.get(&(height, round, kind)).is_some_and(|said| said.contains_key(&node)) {
            return Ok(()); // That it is the same was checked.
        }
        self.check_round(node, height, round)?;
        match (kind, &value) {
            (PRECOMMIT, (Some(block), _)) => self.check_polka(node, height, round, block)?,
            (PREVOTE | PROPOSAL, (Some(block), Some(valid_round))) => self.check_polka(node, height, *valid_round, block)?,
            _ => {}
        }
        if kind == PREVOTE && value.0.is_some() {
            self.check_proposed(node, height, round, &value)?;
        }
        self.said.entry((height, round, kind)).or_default().insert(node, value);
        Ok(())
    }

    /// An honest validator whose clock was never set signs, and time is what it says: kept for [`Votes::check_timely`].
    pub(crate) fn timed(&mut self, node: usize, signed: &Signed) {
        if let (PREVOTE, Some(block), None) = (signed.kind, &signed.block, signed.valid_round) {
            self.answered.entry((signed.height, block.clone())).or_default().push((node, signed.round, signed.time));
        }
    }

    /// A block that was decided: nobody honest answered it, as a new value, before its time. What comes at `time - PRECISION` or
    /// later by the clock of who gets it is timely, and it is answered after it came.
    pub(crate) fn check_timely(&self, height: u64, block: &[u8], time: i128, precision: i128) -> Result<(), Violation> {
        let answers = self.answered.get(&(height, block.to_vec())).into_iter().flatten();
        match answers.into_iter().find(|(_, _, at)| at + precision < time) {
            Some((node, round, at)) => fail(format!(
                "node {node} prevotes in height {height}, round {round} a block of {} ms ahead of its clock",
                (time - at) / 1_000_000
            )),
            None => Ok(()),
        }
    }

    /// Who said this at a place, as power; the dishonest included.
    fn power_of(&self, place: Place, holds: impl Fn(&Value) -> bool) -> u64 {
        let said = self.said.get(&place).into_iter().flatten();
        let powers = self.powers_at(place.0);
        said.filter(|(_, value)| holds(value)).map(|(node, _)| powers[*node]).sum::<u64>() + self.dishonest(place.0)
    }

    /// Prevotes for the block, all with one valid round, make more than two thirds.
    fn check_polka(&self, node: usize, height: u64, round: u64, block: &[u8]) -> Result<(), Violation> {
        let place = (height, round, PREVOTE);
        let said = self.said.get(&place).into_iter().flat_map(BTreeMap::values);
        let tags = said.filter(|(voted, _)| voted.as_deref() == Some(block)).map(|(_, valid_round)| *valid_round);
        let best = tags.map(|tag| self.power_of(place, |(voted, vr)| voted.as_deref() == Some(block) && *vr == tag)).max();
        let best = best.unwrap_or_else(|| self.dishonest(height));
        if best * 3 > self.total(height) * 2 {
            return Ok(());
        }
        fail(format!(
            "node {node} acts on a polka of height {height}, round {round} that nobody can have: power {best} of {}",
            self.total(height)
        ))
    }

    /// Somebody proposed it: an honest proposer signs before anybody can vote, a dishonest one may have.
    fn check_proposed(&self, node: usize, height: u64, round: u64, value: &Value) -> Result<(), Violation> {
        let proposed = self.said.get(&(height, round, PROPOSAL)).is_some_and(|said| said.values().any(|other| other == value));
        if proposed || self.dishonest(height) > 0 {
            return Ok(());
        }
        fail(format!("node {node} prevotes in height {height}, round {round} what nobody proposed there"))
    }

    /// The first honest one in a round left the round before on two thirds of any precommits (L47, L65), of which honest
    /// ones have more than a third. Others may follow it (L55).
    fn check_round(&self, node: usize, height: u64, round: u64) -> Result<(), Violation> {
        let Some(before) = round.checked_sub(1) else { return Ok(()) };
        let followed = self.said.range((height, round, 0)..(height + 1, 0, 0)).next().is_some();
        let gave_up = self.power_of((height, before, PRECOMMIT), |_| true);
        if followed || gave_up * 3 > self.total(height) * 2 {
            return Ok(());
        }
        fail(format!("node {node} is in height {height}, round {round}, which no honest validator has a reason to enter"))
    }

    /// A decision that a node tells its readers of: what honest validators are said to have signed, they signed.
    pub(crate) fn decided(&self, node: usize, commit: &Commit) -> Result<(), Violation> {
        for sig in &commit.signatures {
            let Some(signer) = sig.slot().and_then(|slot| self.nodes.get(&slot.address)) else { continue };
            let block = matches!(sig, CommitSig::Commit(_)).then(|| commit.block_id.hash.0.to_vec());
            self.check_said(node, *signer, (commit.height.get(), commit.round.get().into(), PRECOMMIT), &(block, None))?;
        }
        Ok(())
    }

    /// A frame that an honest node sends: every vote in it was cast. `address_of` says whose a vote is.
    pub(crate) fn sent(&self, node: usize, message: &Message, address_of: impl Fn(&Vote) -> Option<Address>) -> Result<(), Violation> {
        let check = |vote: &Vote| {
            let Some(signer) = address_of(vote).and_then(|address| self.nodes.get(&address).copied()) else { return Ok(()) };
            let kind = match vote.kind {
                VoteType::Prevote => PREVOTE,
                VoteType::Precommit => PRECOMMIT,
            };
            let value = (vote.block_id.map(|id| id.hash.0.to_vec()), vote.valid_round.map(|round| round.get().into()));
            self.check_said(node, signer, (vote.height.get(), vote.round.get().into(), kind), &value)
        };
        match message {
            Message::Vote(vote) => check(vote),
            Message::Votes(batch) => batch.0.iter().try_for_each(check),
            Message::Polka(polka) => Polka::votes(polka).try_for_each(|vote| check(&vote)),
            Message::Commit(commit) => self.decided(node, commit),
            _ => Ok(()),
        }
    }

    fn check_said(&self, node: usize, signer: usize, place: Place, value: &Value) -> Result<(), Violation> {
        if !self.honest[signer] || self.said.get(&place).and_then(|said| said.get(&signer)) == Some(value) {
            return Ok(());
        }
        let (height, round, kind) = place;
        fail(format!("node {node} shows a vote of node {signer} (type {kind}, height {height}, round {round}) that was never cast"))
    }
}
