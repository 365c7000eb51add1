//! Bytes of peers.

use std::sync::LazyLock;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use lockstep_app::snapshot::{ChunkInfo, Difference, Manifest, Outline, open};
use lockstep_app::tree::Prefix;
use lockstep_app::{ReplicaRecord, Tree};
use lockstep_network::{FRAME_PAYLOAD_BYTES_MAX, probe};
use lockstep_replica::wire::{Answer, Message, Question};
use lockstep_types::block::{Block, Header, Part, cut};
use lockstep_types::evidence::Evidence;
use lockstep_types::merkle;
use lockstep_types::quorum::Quorum;
use lockstep_types::{
    ChainId, Commit, Hash, Polka, Power, PrivateKey, Proposal, Round, TxResult, ValidatorSet, ValidatorUpdate, Vote, codec,
};

use super::{BORSH_BYTES, Meter, OVERHEAD, PER_BYTE, bounded, canonical};

/// Longest value that a target of bare types reads.
const TYPE_BYTES_MAX: usize = 1 << 20;

fn chain_id() -> ChainId {
    ChainId::new("test-chain").expect("a name")
}

/// Four validators of equal power. Made once: four keys take longer than most inputs.
static VALIDATORS: LazyLock<ValidatorSet> = LazyLock::new(|| {
    let power = Power::new(10).expect("small");
    let update = |seed| ValidatorUpdate { public_key: PrivateKey::from_seed(&[seed; 32]).public_key(), power };
    ValidatorSet::new(&[1, 2, 3, 4].map(update)).expect("a valid set")
});

/// Frames of a lane.
pub(super) fn message(bytes: &[u8], meter: Meter) {
    let Some(message) = canonical(bytes, OVERHEAD, meter, Message::decode, |value| value.encode().to_vec()) else { return };
    let _ = message.height();
    match message {
        Message::Vote(vote) => claim_vote(vote),
        Message::Votes(votes) => votes.0.into_iter().take(4).for_each(claim_vote),
        Message::Proposal { proposal, .. } => claim_proposal(proposal),
        Message::Polka(polka) => claim_polka(polka),
        Message::Commit(commit) => claim_commit(commit),
        Message::Part { header, part, .. } => {
            let _ = part.verify(&header);
        }
        Message::Status(_)
        | Message::Have(_)
        | Message::Txs(_)
        | Message::Evidence(_)
        | Message::HasEvidence(_)
        | Message::Statement(_) => {}
    }
}

/// Batches of transactions from the gossip layer.
pub(super) fn gossip(bytes: &[u8], meter: Meter) {
    canonical(bytes, OVERHEAD, meter, Message::decode_gossip, |value| value.encode().to_vec());
}

/// What peers ask.
pub(super) fn question(bytes: &[u8], meter: Meter) {
    canonical(bytes, OVERHEAD, meter, Question::decode, |value| value.encode().to_vec());
}

/// What they answer; bodies in it are decoded too.
pub(super) fn answer(bytes: &[u8], meter: Meter) {
    // The first places of a list of headers, each with its commit and two sets.
    match canonical(bytes, 2 * OVERHEAD, meter, Answer::decode, |value| value.encode().to_vec()) {
        Some(Answer::Body(inner)) => body(&inner, meter),
        Some(Answer::Blocks(blocks)) => blocks.into_iter().take(2).for_each(|(inner, commit)| {
            body(&inner, meter);
            claim_commit(commit);
        }),
        _ => {}
    }
}

/// The first bytes on a stream. Nothing is reserved on the word of a stranger.
pub(super) fn opening(bytes: &[u8], meter: Meter) {
    canonical(bytes, 4 << 10, meter, probe::opening, Clone::clone);
}

/// A stream of frames, in pieces as long as the first byte says, against a reading of the whole.
pub(super) fn frames(bytes: &[u8], meter: Meter) {
    /// The one buffer of a lane: two frames of the largest size.
    const BUFFER_BYTES: usize = 2 * (5 + FRAME_PAYLOAD_BYTES_MAX);
    let Some((piece, stream)) = bytes.split_first() else { return };
    let mut seen: Vec<Option<Bytes>> = Vec::with_capacity(stream.len());
    // A payload is copied out, and its place in the list is counted with it.
    let ended = bounded(stream.len(), PER_BYTE, BUFFER_BYTES + 1024, meter, || {
        let mut lane = probe::Stream::default();
        stream.chunks(usize::from(*piece).max(1)).try_for_each(|piece| lane.take(piece, |frame| seen.push(frame)))
    });
    let (mut expected, mut rest, mut fine) = (Vec::new(), stream, true);
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > 1 + FRAME_PAYLOAD_BYTES_MAX {
            fine = false;
            break;
        }
        let Some((frame, after)) = after.split_at_checked(length) else { break };
        match frame {
            [0] => expected.push(None),
            [1, payload @ ..] if !payload.is_empty() => expected.push(Some(Bytes::copy_from_slice(payload))),
            _ => {
                fine = false;
                break;
            }
        }
        rest = after;
    }
    assert_eq!(ended.is_ok(), fine, "a frame is refused exactly when it is none");
    assert!(seen == expected, "other frames are read than are there");
}

/// The body of a block.
pub(super) fn body(bytes: &[u8], meter: Meter) {
    let Some(block) = canonical(bytes, OVERHEAD, meter, Block::decode, Block::encode) else { return };
    let _ = block.check_hashes();
    let _ = block.header.hash();
    let (header, parts) = cut(bytes);
    assert!(parts.iter().all(|part| part.verify(&header)), "every part of a body proves its place");
}

fn claim_vote(vote: Vote) {
    if let Ok(claim) = vote.claim(&chain_id(), &VALIDATORS) {
        let count = claim.checks().len();
        assert!(claim.settle(&vec![false; count]).is_err(), "a vote stands on its signature");
    }
}

fn claim_proposal(proposal: Proposal) {
    let set = &*VALIDATORS;
    let proposer = set.get(set.proposer(Round::ZERO)).expect("a proposer").public_key;
    if let Ok(claim) = proposal.claim(&chain_id(), &proposer) {
        let count = claim.checks().len();
        assert!(claim.settle(&vec![false; count]).is_err(), "a proposal stands on its signature");
    }
}

/// A certificate that is well formed names more than two thirds of the power, each signer once.
fn claim_polka(polka: Polka) {
    let set = &*VALIDATORS;
    let signers: Vec<_> = polka.signatures.iter().map(|signed| signed.validator).collect();
    if let Ok(claim) = polka.claim(&chain_id(), set) {
        let mut once = signers.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), signers.len(), "a signer counts once");
        let power: u64 = signers.iter().map(|signer| set.get(*signer).expect("a validator").power.get()).sum();
        assert!(Quorum::Byzantine.is_quorum(Power::new(power).expect("small"), set.total_power()), "a polka is a quorum");
        assert!(claim.checks().len() >= signers.len(), "every signature is checked");
    }
}

fn claim_commit(commit: Commit) {
    let set = &*VALIDATORS;
    let slots = commit.signatures.clone();
    if let Ok(claim) = commit.claim(&chain_id(), set) {
        assert_eq!(slots.len(), set.len(), "a slot for each validator");
        let power: u64 = set.iter().zip(&slots).filter(|(_, slot)| slot.is_for_block()).map(|(signer, _)| signer.power.get()).sum();
        assert!(Quorum::Byzantine.is_quorum(Power::new(power).expect("small"), set.total_power()), "a commit is a quorum");
        let count = claim.checks().len();
        assert!(claim.settle(&vec![false; count]).is_err(), "a commit stands on its signatures");
    }
}

/// Bare types behind a version byte; the first byte of the input says which.
pub(super) fn signed(bytes: &[u8], meter: Meter) {
    fn bare<T: BorshSerialize + BorshDeserialize>(bytes: &[u8], overhead: usize, meter: Meter) -> Option<T> {
        canonical(bytes, overhead, meter, |bytes| codec::decode::<T>(1, bytes, TYPE_BYTES_MAX), |value| codec::encode(1, value))
    }
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 11 {
        0 => bare(bytes, OVERHEAD, meter).into_iter().for_each(claim_vote),
        1 => bare(bytes, OVERHEAD, meter).into_iter().for_each(claim_proposal),
        2 => bare(bytes, OVERHEAD, meter).into_iter().for_each(claim_polka),
        3 => bare(bytes, OVERHEAD, meter).into_iter().for_each(claim_commit),
        4 => {
            // No body has an empty part.
            if let Some(part) = bare::<Part>(bytes, OVERHEAD, meter).filter(|part| !part.bytes.is_empty()) {
                let header = cut(&part.bytes).0;
                let _ = part.verify(&header);
            }
        }
        5 => {
            if let Some(set) = bare::<ValidatorSet>(bytes, OVERHEAD, meter) {
                let proposer = set.proposer(Round::new(3).expect("small"));
                assert!(set.get(proposer).is_some(), "the proposer is a validator");
                let _ = set.hash();
            }
        }
        6 => {
            if let Some(header) = bare::<Header>(bytes, OVERHEAD, meter) {
                let _ = header.hash();
            }
        }
        7 => {
            if let Some(evidence) = bare::<Evidence>(bytes, OVERHEAD, meter) {
                let _ = evidence.to_bytes();
            }
        }
        8 => {
            bare::<TxResult>(bytes, OVERHEAD + 8 * BORSH_BYTES, meter);
        }
        9 => {
            if let Some(proof) = bare::<merkle::Proof>(bytes, OVERHEAD, meter) {
                assert!(proof.verify(&lockstep_types::Hash([7; 32]), b"no leaf of it").is_err(), "nobody knows a leaf of this root");
            }
        }
        _ => {
            canonical(bytes, OVERHEAD + BORSH_BYTES, meter, ReplicaRecord::from_bytes, ReplicaRecord::to_bytes);
        }
    }
}

/// What peers give of snapshots; the first byte says what.
pub(super) fn snapshot(bytes: &[u8], meter: Meter) {
    /// A hundred thousand entries of ten bytes, the most that a chunk may unpack to, each with its leaf and its share of the
    /// nodes above.
    const CHUNK_OVERHEAD: usize = 128 << 20;
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 4 {
        0 => {
            if let Some(manifest) = canonical(bytes, OVERHEAD, meter, Manifest::from_bytes, Manifest::to_bytes) {
                let entries: u64 = manifest.chunks().iter().map(|chunk| u64::from(chunk.entries)).sum();
                assert_eq!(entries, manifest.entries());
            }
        }
        1 => {
            let info = ChunkInfo { prefix: Prefix::WHOLE, root: Hash([1; 32]), entries: 1, bytes: 10 };
            let opened = bounded(bytes.len(), PER_BYTE, CHUNK_OVERHEAD, meter, || open(&info, bytes));
            assert!(opened.is_err(), "nothing has a root that was made up");
        }
        2 => drop(canonical(bytes, OVERHEAD, meter, borsh::from_slice::<Outline>, |outline| borsh::to_vec(outline).expect("written"))),
        _ => {
            let difference = canonical(bytes, OVERHEAD, meter, borsh::from_slice::<Difference>, |difference| {
                borsh::to_vec(difference).expect("written")
            });
            let Some(difference) = difference else { return };
            let own = Tree::new().part(Prefix::WHOLE);
            let info = ChunkInfo { prefix: Prefix::WHOLE, root: Hash([1; 32]), entries: 1, bytes: 10 };
            for levels in [0, 3] {
                let applied = bounded(bytes.len(), PER_BYTE, CHUNK_OVERHEAD, meter, || difference.apply(&own, levels, &info));
                assert!(applied.is_err(), "nothing has a root that was made up");
            }
        }
    }
}
