//! Lies to who asks: for blocks, for bodies, for its own messages.

use bytes::Bytes;
use lockstep_app::snapshot::Manifest;
use lockstep_replica::wire::{Answer, Status};
use lockstep_types::{Block, Commit, CommitSig, Hash, Height, Round, Tx, Vote, VoteType};

use super::blocks::leave_one;
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
            (Lie::FalseSnapshots, answer) => self.false_snapshot(mind, answer).map(|told| {
                told.map(|(what, answer)| {
                    self.liars.count(what);
                    Say { bytes: answer.encode(), ..say.clone() }
                })
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

    /// What somebody who gathers a snapshot is told instead; inside, nothing for silence.
    #[allow(clippy::option_option, reason = "no lie, silence, or another answer")]
    fn false_snapshot(&mut self, mind: &mut Mind, answer: Answer) -> Option<Option<(&'static str, Answer)>> {
        let newest = self.checks.height();
        let dice = &mut mind.dice;
        let told = |what, answer| Some(Some((what, answer)));
        match answer {
            // What it has, it takes back when it is asked for it; what it has not, it offers.
            Answer::Snapshots(_) => {
                let height = |dice: &mut Stream| Height::new(if dice.chance(800) { dice.between(1, newest + 4) } else { dice.bits() >> 2 });
                let heights = (0..dice.below(16)).filter_map(|_| height(dice)).collect();
                told("snapshots: offers of what there is not", Answer::Snapshots(heights))
            }
            Answer::Manifest(_) | Answer::Chunk(_) | Answer::Difference(_) if dice.chance(200) => Some(None),
            Answer::Manifest(bytes) if dice.chance(300) => {
                let bytes = lie_about_counts(&bytes)?;
                told("snapshots: a manifest with other counts", Answer::Manifest(bytes))
            }
            Answer::Manifest(bytes) => told("snapshots: another manifest", Answer::Manifest(raw::damage(&bytes, dice))),
            Answer::Chunk(_) if dice.chance(300) => {
                let bytes = vec![1; usize::try_from(dice.between(1, 900_000)).expect("small")];
                told("snapshots: a chunk of noise", Answer::Chunk(Bytes::from(bytes)))
            }
            Answer::Chunk(bytes) => told("snapshots: another chunk", Answer::Chunk(raw::damage(&bytes, dice))),
            Answer::Light(mut blocks) if !blocks.is_empty() => {
                let place = dice.place(blocks.len());
                let what = match dice.below(5) {
                    0 => {
                        blocks[place].header.time = blocks[place].header.time.saturating_add(std::time::Duration::from_nanos(1));
                        "snapshots: a header of another time"
                    }
                    1 => {
                        blocks[place].header.app_hash = lockstep_types::AppHash::from(Hash::of(dice.bits().to_le_bytes()));
                        let hash = blocks[place].header.hash();
                        blocks[place].commit.block_id.hash = hash;
                        "snapshots: a header of another state"
                    }
                    2 => {
                        leave_one(&mut blocks[place].commit.signatures)?;
                        "snapshots: a header of too few signers"
                    }
                    3 => {
                        blocks[place].validators = blocks[place].next_validators.clone();
                        "snapshots: a header with another set"
                    }
                    _ => {
                        blocks.extend(blocks.clone());
                        blocks.truncate(lockstep_replica::wire::LIGHT_MAX);
                        "snapshots: more headers than asked for"
                    }
                };
                told(what, Answer::Light(blocks))
            }
            Answer::Parts(mut parts) => {
                parts.first_mut()?.bytes.first_mut().map(|byte| *byte ^= 1)?;
                told("snapshots: a part of another body", Answer::Parts(parts))
            }
            _ => None,
        }
    }

    /// Votes that say to be the asker's: with a signature of nobody, and true ones of others under its index.
    fn in_its_name(&self, mind: &mut Mind, asker: usize, mut votes: Vec<Vote>) -> Option<Vec<Vote>> {
        let validator = self.place_of(asker, self.checks.height() + 1)?;
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

/// The same roots, with more bytes in each chunk.
fn lie_about_counts(bytes: &Bytes) -> Option<Bytes> {
    let manifest = Manifest::from_bytes(bytes).ok()?;
    let chunks = manifest.chunks().iter().map(|info| {
        let mut info = *info;
        info.bytes += u32::from(info.entries > 0);
        info
    });
    let lying = Manifest::new(manifest.genesis_hash(), manifest.height(), chunks.collect()).ok()?;
    Some(Bytes::from(lying.to_bytes()))
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
            leave_one(&mut commit.signatures)?;
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
