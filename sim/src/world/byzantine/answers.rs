//! Lies to who asks: for blocks, for bodies, for its own messages.

use bytes::Bytes;
use lockstep_replica::wire::{Answer, Status};
use lockstep_types::{Block, Commit, CommitSig, Hash, Height, Round, Tx, Vote, VoteType};

use super::frames::poisoned;
use super::{Mind, Say, World, raw};
use crate::liars::{Act, Lie};
use crate::plan::MS;
use crate::random::Stream;

/// Blocks with their certificates, as they travel.
type Blocks = Vec<(Bytes, Commit)>;

impl World {
    /// What a liar answers instead; none for nothing.
    pub(in crate::world) fn falsify(&mut self, node: usize, asker: usize, bytes: Bytes) -> Option<Say> {
        let Some(mut mind) = self.liars.minds.remove(&node) else { return Some(Say::now(bytes)) };
        let said = if self.plan.byzantine.cabal.is_some() {
            // A member of the cabal tells the honest nothing of the other side.
            (!self.is_honest(asker)).then(|| Say::now(bytes))
        } else {
            let acts = self.plan.byzantine.liars.iter().find(|liar| liar.node == node).map(|liar| liar.acts.clone()).unwrap_or_default();
            acts.into_iter().try_fold(Say::now(bytes), |say, act| self.misanswer(&mut mind, act, asker, say))
        };
        self.liars.minds.insert(node, mind);
        said
    }

    fn misanswer(&mut self, mind: &mut Mind, act: Act, asker: usize, say: Say) -> Option<Say> {
        let Ok(answer) = Answer::decode(&say.bytes) else { return Some(say) };
        let height = match &answer {
            Answer::Blocks(blocks) => blocks.first().map_or(0, |(_, commit)| commit.height.get()),
            Answer::Certificate(commit) => commit.height.get(),
            _ => 0,
        };
        if !act.when.fires(height, None, &mut mind.dice) {
            return Some(say);
        }
        let told = match (act.lie, answer) {
            (Lie::HideParts, Answer::Body(_) | Answer::Parts(_)) => Some(None),
            (Lie::SlowAnswers, answer) => Some(slow(answer, &say, &mut mind.dice)),
            (Lie::WrongAnswers, answer) => wrong(answer, &mut mind.dice).map(|(what, answer)| {
                self.liars.count(what);
                Some(Say { bytes: answer.encode(), ..say.clone() })
            }),
            (Lie::PoisonHeights, Answer::Unavailable(status)) => {
                let status = poisoned(status, &mut mind.dice);
                Some(Some(Say { bytes: Answer::Unavailable(status).encode(), ..say.clone() }))
            }
            (Lie::PoisonHeights, Answer::Blocks(blocks)) if !blocks.is_empty() && mind.dice.chance(500) => {
                let tip = blocks[0].1.height;
                let status = poisoned(Status { base: Height::FIRST, tip }, &mut mind.dice);
                Some(Some(Say { bytes: Answer::Unavailable(status).encode(), ..say.clone() }))
            }
            (Lie::ForgeOwn, Answer::Signed(votes, proposals)) => self
                .in_its_name(mind, asker, votes)
                .map(|votes| Some(Say { bytes: Answer::Signed(votes, proposals).encode(), ..say.clone() })),
            (Lie::RawBytes, _) => Some(Some(Say { bytes: raw::damage(&say.bytes, &mut mind.dice), ..say.clone() })),
            _ => None,
        };
        match told {
            Some(told) => {
                self.liars.count(act.lie.name());
                told
            }
            None => Some(say),
        }
    }

    /// Votes that say to be the asker's: with a signature of nobody, and true ones of others under its index.
    fn in_its_name(&self, mind: &mut Mind, asker: usize, mut votes: Vec<Vote>) -> Option<Vec<Vote>> {
        let validator = *self.indices.get(asker)?;
        let (_, heard) = mind.votes.iter().next_back()?;
        let mut vote = heard.first()?.clone();
        vote.validator = validator;
        match mind.dice.below(4) {
            0 => vote.round = Round::MAX,
            1 => vote.height = vote.height.plus(mind.dice.between(1, 100)),
            2 => vote.kind = if vote.kind == VoteType::Prevote { VoteType::Precommit } else { VoteType::Prevote },
            _ => vote.signature.0[mind.dice.place(64)] ^= 1,
        }
        vote.valid_round = None;
        votes.push(vote);
        Some(votes)
    }
}

/// Nothing, late, or as little as possible.
fn slow(answer: Answer, say: &Say, dice: &mut Stream) -> Option<Say> {
    match (dice.below(3), answer) {
        (0, _) => None,
        (1, Answer::Blocks(mut blocks)) if blocks.len() > 1 => {
            blocks.truncate(1);
            let after = dice.between(200 * MS, 1_800 * MS);
            Some(Say { after, bytes: Answer::Blocks(blocks).encode(), ..say.clone() })
        }
        _ => Some(Say { after: dice.between(500 * MS, 6_000 * MS), ..say.clone() }),
    }
}

/// An answer that is none to the question, or does not hold; and what is wrong with it.
fn wrong(answer: Answer, dice: &mut Stream) -> Option<(&'static str, Answer)> {
    match answer {
        Answer::Blocks(blocks) if !blocks.is_empty() => wrong_blocks(blocks, dice),
        Answer::Body(body) => {
            let mut bytes = body.to_vec();
            let at = dice.place(bytes.len().max(1));
            *bytes.get_mut(at)? ^= 1;
            Some(("sync: another body", Answer::Body(Bytes::from(bytes))))
        }
        Answer::Parts(mut parts) => {
            parts.first_mut()?.bytes.push(0);
            Some(("sync: another part", Answer::Parts(parts)))
        }
        Answer::Certificate(mut commit) => {
            commit.round = commit.round.next();
            Some(("sync: a certificate of another round", Answer::Certificate(commit)))
        }
        _ => None,
    }
}

fn wrong_blocks(mut blocks: Blocks, dice: &mut Stream) -> Option<(&'static str, Answer)> {
    let count = blocks.len();
    let place = dice.place(count);
    let (body, commit) = &mut blocks[place];
    let what = match dice.below(14) {
        0 => {
            let mut bytes = body.to_vec();
            let at = dice.place(bytes.len().max(1));
            *bytes.get_mut(at)? ^= 1;
            *body = Bytes::from(bytes);
            "sync: a byte of a body"
        }
        1 => {
            let mut block = Block::decode(body).ok()?;
            block.txs.push(Tx(b"key0=stolen".to_vec()));
            *body = Bytes::from(block.encode());
            "sync: right header, wrong body"
        }
        2 => {
            // A block of its own under a certificate that names it, and that nobody signed for it.
            let mut block = Block::decode(body).ok()?;
            block.header.app_hash = lockstep_types::AppHash::from(Hash::of(dice.bits().to_le_bytes()));
            let bytes = block.encode();
            commit.block_id = lockstep_types::BlockId { hash: block.header.hash(), parts: lockstep_types::block::part_set_header(&bytes) };
            *body = Bytes::from(bytes);
            "sync: another block, named by its certificate"
        }
        3 => {
            commit.height = commit.height.next();
            "sync: a certificate of another height"
        }
        4 => {
            commit.round = commit.round.next();
            "sync: a certificate of another round"
        }
        5 => {
            commit.signatures.iter_mut().skip(1).for_each(|sig| *sig = CommitSig::Absent);
            "sync: too few signers"
        }
        6 => {
            let first = commit.signatures.iter().find(|sig| sig.is_for_block())?.clone();
            commit.signatures.iter_mut().for_each(|sig| *sig = first.clone());
            "sync: one signer again and again"
        }
        7 => {
            commit.signatures.pop();
            "sync: a slot too few"
        }
        8 => {
            let slot = commit.signatures.iter_mut().find_map(|sig| match sig {
                CommitSig::Commit(slot) => Some(slot),
                _ => None,
            })?;
            slot.signature.0[dice.place(64)] ^= 1;
            "sync: a signature for something else"
        }
        9 => {
            *body = Bytes::new();
            "sync: no body"
        }
        10 if count > 1 => {
            blocks.reverse();
            "sync: blocks in another order"
        }
        11 => {
            let (body, commit) = blocks.last()?.clone();
            for offset in 1..100 {
                let height = commit.height.plus(offset);
                blocks.push((body.clone(), Commit { height, ..commit.clone() }));
            }
            "sync: more than was asked for"
        }
        12 => {
            let commit = commit.clone();
            return Some(("sync: the certificate alone", Answer::Certificate(commit)));
        }
        _ if count > 1 => {
            let (_, other) = blocks[(place + 1) % count].clone();
            let height = blocks[place].1.height;
            blocks[place].1 = Commit { height, ..other };
            "sync: another block's certificate"
        }
        _ => return None,
    };
    Some((what, Answer::Blocks(blocks)))
}
