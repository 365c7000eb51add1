//! Messages a little wrong: one field of something valid, or its bytes.

use std::time::Duration;

use bytes::Bytes;
use lockstep_replica::wire::{Bits, Message};
use lockstep_types::{Height, Round, Time, ValidatorIndex};

use super::{Mind, World};
use crate::random::Stream;

/// Flips a bit, cuts, lengthens, or writes an extreme where a length may stand.
pub(super) fn damage(bytes: &Bytes, dice: &mut Stream) -> Bytes {
    let mut bytes = bytes.to_vec();
    if bytes.is_empty() {
        return Bytes::from_static(&[0xff]);
    }
    match dice.below(6) {
        0 | 1 => {
            let at = dice.place(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        }
        2 => bytes.truncate(dice.place(bytes.len())),
        3 => bytes.extend((0..dice.between(1, 40)).map(|at| u8::try_from(at).expect("few"))),
        4 if bytes.len() >= 4 => {
            let at = dice.place(bytes.len() - 3);
            let extreme = *dice.pick(&[0_u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
            bytes[at..at + 4].copy_from_slice(&extreme.to_le_bytes());
        }
        _ => {
            let at = dice.place(bytes.len());
            bytes.remove(at);
        }
    }
    Bytes::from(bytes)
}

/// A number next to this one.
fn near(value: u64, dice: &mut Stream) -> u64 {
    if dice.chance(500) { value.saturating_add(1) } else { value.saturating_sub(1) }
}

fn near_height(height: Height, dice: &mut Stream) -> Height {
    Height::new(near(height.get(), dice)).unwrap_or(height)
}

fn near_round(round: Round, dice: &mut Stream) -> Round {
    u32::try_from(near(round.get().into(), dice)).ok().and_then(Round::new).unwrap_or(round)
}

fn near_time(time: Time, dice: &mut Stream) -> Time {
    let by = Duration::from_nanos(*dice.pick(&[1, 1_000_000, 1_000_000_000]));
    if dice.chance(500) { time.saturating_add(by) } else { time.saturating_sub(by) }
}

impl World {
    /// Something that the liar says, with one thing in it changed; signed again where it is its own.
    pub(super) fn mutated(&mut self, mind: &mut Mind, from: usize, message: Message) -> Option<Bytes> {
        let dice = &mut mind.dice;
        let round_of = |round: Option<Round>, dice: &mut Stream| match round {
            None => Some(Round::ZERO),
            Some(round) if dice.chance(500) => Some(near_round(round, dice)),
            Some(_) => None,
        };
        match message {
            Message::Vote(mut vote) => {
                match dice.below(7) {
                    0 => vote.height = near_height(vote.height, dice),
                    1 => vote.round = near_round(vote.round, dice),
                    2 => vote.valid_round = round_of(vote.valid_round, dice),
                    3 => vote.timestamp = near_time(vote.timestamp, dice),
                    4 => vote.validator = ValidatorIndex::from_position(vote.validator.index() + 1),
                    5 => {
                        let block_id = vote.block_id.as_mut()?;
                        block_id.parts.total = u32::try_from(near(block_id.parts.total.into(), dice)).ok()?;
                    }
                    _ => vote.block_id.as_mut()?.hash.0[dice.place(32)] ^= 1,
                }
                self.signed_vote(from, vote)
            }
            Message::Proposal { mut proposal, first } => {
                match dice.below(6) {
                    0 => proposal.height = near_height(proposal.height, dice),
                    1 => proposal.round = near_round(proposal.round, dice),
                    2 => proposal.pol_round = round_of(proposal.pol_round, dice),
                    3 => proposal.timestamp = near_time(proposal.timestamp, dice),
                    4 => proposal.block_id.parts.total = u32::try_from(near(proposal.block_id.parts.total.into(), dice)).ok()?,
                    _ => proposal.block_id.hash.0[dice.place(32)] ^= 1,
                }
                self.signed_proposal(from, proposal, first)
            }
            Message::Votes(mut batch) => {
                let place = dice.place(batch.0.len());
                let vote = batch.0.get_mut(place)?;
                vote.timestamp = near_time(vote.timestamp, dice);
                Some(Message::Votes(batch).encode())
            }
            Message::Part { height, header, mut part } => {
                part.index = u32::try_from(near(part.index.into(), dice)).ok()?;
                Some(Message::Part { height, header, part }.encode())
            }
            Message::Polka(mut polka) => {
                match dice.below(3) {
                    0 => polka.round = near_round(polka.round, dice),
                    1 => polka.valid_round = round_of(polka.valid_round, dice),
                    _ => drop(polka.signatures.pop()),
                }
                Some(Message::Polka(polka).encode())
            }
            Message::Commit(mut commit) => {
                match dice.below(3) {
                    0 => commit.round = near_round(commit.round, dice),
                    1 => commit.height = near_height(commit.height, dice),
                    _ => drop(commit.signatures.pop()),
                }
                Some(Message::Commit(commit).encode())
            }
            Message::Have(mut have) => {
                match dice.below(7) {
                    0 => have.height = near_height(have.height, dice),
                    1 => have.round = near_round(have.round, dice),
                    2 => have.status.tip = near_height(have.status.tip, dice),
                    3 => have.step = have.step.wrapping_add(1),
                    4 => have.polka = !have.polka,
                    5 => have.missing_polka = round_of(have.missing_polka, dice),
                    _ => have.prevotes = Bits::default(),
                }
                Some(Message::Have(have).encode())
            }
            Message::Status(mut status) => {
                status.tip = near_height(status.tip, dice);
                Some(Message::Status(status).encode())
            }
            Message::Evidence(evidence) => Some(Message::Evidence(Box::new(super::proofs::changed(*evidence, dice))).encode()),
            Message::HasEvidence(mut hash) => {
                hash.0[dice.place(32)] ^= 1;
                Some(Message::HasEvidence(hash).encode())
            }
            Message::Statement(mut signed) => {
                match dice.below(4) {
                    0 => signed.statement.height = near_height(signed.statement.height, dice),
                    1 => signed.statement.rest.0[dice.place(32)] ^= 1,
                    2 => signed.validator.0[dice.place(20)] ^= 1,
                    _ => signed.signature.0[dice.place(64)] ^= 1,
                }
                Some(Message::Statement(signed).encode())
            }
            Message::Txs(_) => None,
        }
    }
}
