//! Those whom a joining node asks: honest ones, and liars of every kind that state sync can meet (B18 to B21 of the list that
//! this project simulates).

use bytes::Bytes;
use lockstep_app::snapshot::Manifest;
use lockstep_replica::seam::{ReadAnswer, ReadQuestion};
use lockstep_replica::source::BlockSource;
use lockstep_replica::wire::{Answer, LIGHT_MAX, Question, Status};
use lockstep_types::commit::CommitSig;
use lockstep_types::{Hash, Height};

use super::chain::{Chain, TIP, h};
use crate::crypto::Crypto;
use crate::random::Stream;

/// What a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Answers, after its delay.
    Honest,
    /// Has the newest snapshots only up to a height, and nothing wrong.
    Stale,
    /// Never answers.
    Silent,
    /// Offers, and has nothing.
    Boaster,
    /// Offers heights that are no checkpoints, or that do not exist.
    Inventor,
    /// A manifest with a byte changed, or of another height.
    WrongManifest,
    /// A manifest whose roots are right, and whose counts are not.
    LyingManifest,
    /// A snapshot that is sound in itself, of a state with other priorities or parameters.
    OtherState,
    /// A chunk with a byte changed, cut short, another one, or far too long.
    WrongChunk,
    /// Headers that others signed, or with a byte changed, or more than asked for; or sound ones, with a commit that nobody can verify.
    WrongHeader,
    /// Parts of another body.
    WrongParts,
    /// Bytes that mean nothing.
    Garbage,
    /// Goes when it is asked for a chunk, and comes again under another number.
    Turncoat,
}

/// Every kind that lies.
pub(super) const LIARS: [Kind; 11] = [
    Kind::Silent,
    Kind::Boaster,
    Kind::Inventor,
    Kind::WrongManifest,
    Kind::LyingManifest,
    Kind::OtherState,
    Kind::WrongChunk,
    Kind::WrongHeader,
    Kind::WrongParts,
    Kind::Garbage,
    Kind::Turncoat,
];

/// A peer.
pub(super) struct Peer {
    pub(super) kind: Kind,
    /// Its first block, or what it says that this is: a liar says to have blocks that it never sends.
    pub(super) base: Height,
    /// How long it takes to answer, in milliseconds.
    pub(super) delay_ms: u64,
    /// Answers that it really gave.
    pub(super) served: u64,
    source: BlockSource,
}

/// What comes of asking.
pub(super) enum Reply {
    /// These bytes.
    Bytes(Bytes),
    /// Nothing.
    Silence,
    /// The peer is gone.
    Gone,
}

impl Peer {
    pub(super) fn new(chain: &Chain, kind: Kind, base: Height, delay_ms: u64, snapshots: &[Height]) -> Self {
        Self { kind, base, delay_ms, served: 0, source: chain.source(snapshots) }
    }

    pub(super) const fn is_honest(&self) -> bool {
        matches!(self.kind, Kind::Honest | Kind::Stale)
    }

    pub(super) fn status(&self) -> Status {
        Status { base: self.base, tip: h(TIP) }
    }

    /// What an honest node answers.
    fn truth(&mut self, question: &Question) -> Answer {
        let unavailable = Answer::Unavailable(self.status());
        let what = match question {
            Question::Blocks { from, .. } | Question::Parts { height: from, .. } | Question::Body { height: from, .. }
                if *from < self.base =>
            {
                return unavailable;
            }
            Question::Light { from, .. } if *from >= h(TIP) => return unavailable,
            Question::Blocks { from, count } => ReadQuestion::Blocks { from: *from, count: (*count).min(16), bytes_max: 1 << 20 },
            Question::Body { height, block_id } => ReadQuestion::Body { height: *height, block_id: *block_id },
            Question::Parts { height, block_id, from, count } => {
                ReadQuestion::Parts { height: *height, block_id: *block_id, from: *from, count: *count }
            }
            Question::Snapshots => ReadQuestion::Snapshots,
            Question::Light { from, count } => ReadQuestion::Light {
                from: *from,
                count: (*count).min(u32::try_from(LIGHT_MAX).expect("small")),
                bytes_max: 1 << 20,
                tip: Height::ZERO,
            },
            Question::Manifest { height } => ReadQuestion::Manifest { height: *height },
            Question::Chunk { height, root, outline } => ReadQuestion::Chunk { height: *height, root: *root, outline: outline.clone() },
            Question::Signed { .. } => return Answer::Signed(Vec::new(), Vec::new()),
            Question::Evidence { .. } | Question::Polkas { .. } => return unavailable,
        };
        match self.source.read(&what).expect("its disk is sound") {
            ReadAnswer::Blocks(blocks) if !blocks.is_empty() => Answer::Blocks(blocks),
            ReadAnswer::Certificate(commit) => Answer::Certificate(commit),
            ReadAnswer::Body(Some(body)) => Answer::Body(body),
            ReadAnswer::Parts(parts) if !parts.is_empty() => Answer::Parts(parts),
            ReadAnswer::Snapshots(heights) => Answer::Snapshots(heights),
            ReadAnswer::Light(blocks) => Answer::Light(blocks),
            ReadAnswer::Manifest(manifest) => Answer::Manifest(manifest),
            ReadAnswer::Chunk(chunk) => Answer::Chunk(chunk),
            ReadAnswer::Difference(difference) => Answer::Difference(*difference),
            ReadAnswer::Polkas(polkas) => Answer::Polkas(polkas),
            _ => unavailable,
        }
    }

    /// What this one answers.
    pub(super) fn answer(&mut self, chain: &Chain, question: &Question, dice: &mut Stream, crypto: &mut Crypto) -> Reply {
        let truth = self.truth(question);
        let answer = match (self.kind, question, truth) {
            (Kind::Honest | Kind::Stale, _, truth) => truth,
            (Kind::Silent, Question::Snapshots, truth) if dice.chance(500) => truth,
            (Kind::Silent, ..) => return Reply::Silence,
            (Kind::Boaster, Question::Snapshots, truth) => truth,
            (Kind::Boaster, ..) => Answer::Unavailable(self.status()),
            (Kind::Inventor, Question::Snapshots, _) => Answer::Snapshots(
                (0..dice.below(16))
                    .map(|_| h(if dice.chance(700) { dice.between(1, 60) } else { dice.between(61, u64::MAX >> 2) }))
                    .collect(),
            ),
            (Kind::WrongManifest, Question::Manifest { height }, truth) => match dice.below(3) {
                0 => {
                    let other = chain.snapshots.iter().find(|(other, _)| *other != height);
                    other.map_or(truth, |(_, kept)| Answer::Manifest(Bytes::from(kept.manifest.clone())))
                }
                _ => changed_bytes(truth, dice),
            },
            (Kind::LyingManifest, Question::Manifest { .. }, Answer::Manifest(bytes)) => Answer::Manifest(lie_about_counts(&bytes)),
            (Kind::OtherState, Question::Manifest { height }, truth) => {
                chain.forged.get(height).map_or(truth, |kept| Answer::Manifest(Bytes::from(kept.manifest.clone())))
            }
            (Kind::OtherState, Question::Chunk { height, root, .. }, truth) => {
                let chunk = chain.forged.get(height).and_then(|kept| kept.chunk(root));
                chunk.map_or(truth, |bytes| Answer::Chunk(Bytes::from(bytes)))
            }
            (Kind::WrongChunk, Question::Chunk { height, root, .. }, truth) => match dice.below(4) {
                0 => another_chunk(chain, *height, root).unwrap_or(truth),
                1 => Answer::Chunk(Bytes::from(vec![1; usize::try_from(dice.between(1, 900_000)).expect("small")])),
                _ => changed_bytes(truth, dice),
            },
            (Kind::WrongHeader, Question::Light { .. }, Answer::Light(mut blocks)) => {
                match dice.below(6) {
                    0 => {
                        let again = blocks.clone();
                        blocks.extend(again.into_iter().take(LIGHT_MAX - blocks.len()));
                    }
                    1 => drop(
                        blocks
                            .first_mut()
                            .map(|block| block.header.time = block.header.time.saturating_add(std::time::Duration::from_nanos(1))),
                    ),
                    // Neither is covered by what is known of the commit when it comes.
                    2 => {
                        let place = dice.place(blocks.len().max(1));
                        if let Some(block) = blocks.get_mut(place) {
                            block.commit.round = block.commit.round.next();
                        }
                    }
                    3 => {
                        if let Some(CommitSig::Commit(slot)) = blocks.first_mut().and_then(|block| block.commit.signatures.last_mut()) {
                            slot.signature.0[0] ^= 1;
                        }
                    }
                    _ => {
                        let forged = blocks.first().map(|honest| chain.forged(honest, crypto));
                        blocks.splice(..blocks.len().min(1), forged);
                    }
                }
                Answer::Light(blocks)
            }
            (Kind::WrongParts, Question::Parts { .. }, Answer::Parts(mut parts)) => {
                if let Some(part) = parts.first_mut() {
                    part.bytes[0] ^= 1;
                }
                Answer::Parts(parts)
            }
            (Kind::Garbage, Question::Signed { .. }, truth) => truth,
            (Kind::Garbage, ..) => return Reply::Bytes(Bytes::from(vec![0xff; 40])),
            (Kind::Turncoat, Question::Chunk { .. }, _) => return Reply::Gone,
            (_, _, truth) => truth,
        };
        self.served += 1;
        Reply::Bytes(answer.encode())
    }
}

/// A manifest or chunk with something changed.
fn changed_bytes(truth: Answer, dice: &mut Stream) -> Answer {
    let mut change = |bytes: Bytes| {
        let mut bytes = bytes.to_vec();
        let at = dice.place(bytes.len().max(1));
        match (dice.below(2), bytes.get_mut(at)) {
            (0, Some(byte)) => *byte ^= 1 << dice.below(8),
            _ => bytes.truncate(at),
        }
        Bytes::from(bytes)
    };
    match truth {
        Answer::Manifest(bytes) => Answer::Manifest(change(bytes)),
        Answer::Chunk(bytes) => Answer::Chunk(change(bytes)),
        other => other,
    }
}

/// The same roots, with one more entry and its bytes in each chunk.
fn lie_about_counts(bytes: &Bytes) -> Bytes {
    let Ok(manifest) = Manifest::from_bytes(bytes) else { return bytes.clone() };
    let chunks = manifest.chunks().iter().map(|info| {
        let mut info = *info;
        if info.entries > 0 {
            info.bytes += 1;
        }
        info
    });
    let lying = Manifest::new(manifest.genesis_hash(), manifest.height(), chunks.collect());
    lying.map_or_else(|_| bytes.clone(), |manifest| Bytes::from(manifest.to_bytes()))
}

fn another_chunk(chain: &Chain, height: Height, root: &Hash) -> Option<Answer> {
    let manifest = Manifest::from_bytes(&chain.snapshots.get(&height)?.manifest).ok()?;
    let other = manifest.chunks().iter().find(|info| info.root != *root && info.entries > 0)?;
    chain.snapshots[&height].chunk(&other.root).map(|bytes| Answer::Chunk(Bytes::from(bytes)))
}
