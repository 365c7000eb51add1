//! Lies about lies: evidence of what never happened, of what is proven already, with one thing in it changed, in floods; and
//! evidence that is true, of heights long past, that the liar makes against itself.

use bytes::Bytes;
use lockstep_replica::wire::Message;
use lockstep_types::evidence::DuplicateVote;
use lockstep_types::{Evidence, Height, Power, Round, Time, ValidatorIndex, Vote, VoteType};

use super::super::invented;
use super::{Mind, World};
use crate::random::Stream;

/// Pieces of one flood.
const FLOOD: u64 = 12;

impl World {
    /// Evidence that the liar tells, alone or many at once.
    pub(super) fn forged_evidence(&mut self, mind: &mut Mind, from: usize) -> Vec<Bytes> {
        let count = if mind.dice.chance(100) { FLOOD } else { 1 };
        let forged = (0..count).filter_map(|_| self.forged_piece(mind, from));
        forged.map(|piece| Message::Evidence(Box::new(piece)).encode()).collect()
    }

    fn forged_piece(&mut self, mind: &mut Mind, from: usize) -> Option<Evidence> {
        match mind.dice.below(5) {
            0 => self.carried_before(&mut mind.dice),
            1 => {
                let waiting: Vec<Evidence> = self.machines[from].running.as_ref()?.replica.evidence().pending().cloned().collect();
                let piece = match some_of(&waiting, &mut mind.dice) {
                    Some(piece) => piece.clone(),
                    None => self.carried_before(&mut mind.dice)?,
                };
                Some(changed(piece, &mut mind.dice))
            }
            // Against whoever cast a vote that it heard: with one more that was never cast.
            2 | 3 => {
                let places: Vec<_> = mind.votes.keys().copied().collect();
                let votes = mind.votes.get(some_of(&places, &mut mind.dice)?)?.clone();
                let first = some_of(&votes, &mut mind.dice)?.clone();
                let second = Vote { block_id: Some(invented(mind.dice.bits())), valid_round: None, ..first.clone() };
                self.piece(first, second)
            }
            // Against itself, of some height that is over, and true.
            _ => {
                let height = Height::new(mind.dice.between(1, self.checks.height().max(1)))?;
                let index = self.place_of(from, height.get())?;
                let round = Round::new(u32::try_from(mind.dice.below(3)).ok()?)?;
                let timestamp = self.clocks(from).wall;
                let kind = if mind.dice.chance(500) { VoteType::Prevote } else { VoteType::Precommit };
                let nil = Vote {
                    kind,
                    height,
                    round,
                    block_id: None,
                    valid_round: None,
                    timestamp,
                    validator: index,
                    signature: lockstep_types::Signature([0; 64]),
                };
                let other = Vote { block_id: Some(invented(mind.dice.bits())), ..nil.clone() };
                let (first, second) = (self.own(from, nil)?, self.own(from, other)?);
                self.piece(first, second)
            }
        }
    }

    fn own(&mut self, from: usize, mut vote: Vote) -> Option<Vote> {
        vote.signature = self.forge(from, &vote.sign_bytes(&self.genesis.chain_id))?;
        Some(vote)
    }

    /// A piece with everything right but perhaps the votes.
    fn piece(&self, first: Vote, second: Vote) -> Option<Evidence> {
        let time = self.checks.block(first.height.get())?.header.time;
        // The set is the one of the beginning.
        let chain = self.machines.iter().find_map(|machine| machine.running.as_ref())?.replica.chain().clone();
        Some(Evidence::DuplicateVote(Box::new(DuplicateVote::from_votes(first, second, &chain.validators, time)?)))
    }

    /// Evidence that some block carries.
    pub(super) fn carried_before(&self, dice: &mut Stream) -> Option<Evidence> {
        let height = dice.between(1, self.checks.height().max(1));
        let blocks = (1..=height).rev().filter_map(|height| self.checks.block(height));
        blocks.flat_map(|block| block.evidence.first()).next().cloned()
    }
}

fn some_of<'a, T>(list: &'a [T], dice: &mut Stream) -> Option<&'a T> {
    if list.is_empty() { None } else { Some(dice.pick(list)) }
}

/// A number next to this one.
fn near(power: Power, dice: &mut Stream) -> Power {
    let value = if dice.chance(500) { power.get().saturating_add(1) } else { power.get().saturating_sub(1) };
    Power::new(value).unwrap_or(power)
}

/// Evidence with one thing in it changed: it proves nothing then, or something else.
pub(super) fn changed(mut evidence: Evidence, dice: &mut Stream) -> Evidence {
    let Evidence::DuplicateVote(votes) = &mut evidence else { return evidence };
    let by = std::time::Duration::from_nanos(*dice.pick(&[1, 1_000_000_000]));
    let later = |time: Time| time.saturating_add(by);
    match dice.below(9) {
        0 => votes.timestamp = later(votes.timestamp),
        1 => votes.total_power = near(votes.total_power, dice),
        2 => votes.validator_power = near(votes.validator_power, dice),
        3 => votes.address.0[dice.place(20)] ^= 1,
        4 => std::mem::swap(&mut votes.vote_a, &mut votes.vote_b),
        5 => votes.vote_b = votes.vote_a.clone(),
        6 => votes.vote_a.height = votes.vote_a.height.next(),
        7 => votes.vote_b.signature.0[dice.place(64)] ^= 1,
        _ => {
            let index = ValidatorIndex::from_position(votes.vote_a.validator.index() + 1);
            (votes.vote_a.validator, votes.vote_b.validator) = (index, index);
        }
    }
    evidence
}
