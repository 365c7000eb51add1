//! Lies about blocks: two for one round, and blocks that are invalid.

use std::time::Duration;

use bytes::Bytes;
use lockstep_replica::wire::Message;
use lockstep_types::block::{Part, cut, part_set_header};
use lockstep_types::evidence::DuplicateVote;
use lockstep_types::{Address, AppHash, Block, BlockId, ChainId, CommitSig, Evidence, Hash, Header, Proposal, Round, evidence};

use super::proofs::changed;
use super::{Mind, World};
use crate::random::Stream;

/// What can be wrong with a block. The first are fields of the header that the chain before it determines.
const WRONG: [&str; 28] = [
    "the block protocol",
    "the application version",
    "the chain",
    "the height",
    "a time before the last block's",
    "the last block",
    "the last commit's root",
    "the transactions' root",
    "the validators",
    "the next validators",
    "the parameters",
    "the application hash",
    "the results",
    "the evidence's root",
    "a proposer who is none",
    "a proposer whose turn it is not",
    "no last commit",
    "a last commit with a signature for something else",
    "a last commit of too few",
    "a last commit of another round",
    "transactions that its root does not cover",
    "evidence of two votes that were never cast",
    "a last commit with one slot too many",
    "a transaction that nobody can apply",
    "a transaction that would change the validators",
    "one piece of evidence twice",
    "evidence with something in it changed",
    "evidence that a block before carried",
];

impl World {
    /// Of a proposal, the same with a block of another time; of a vote, the same for that block; both valid.
    pub(super) fn second_block(&mut self, mind: &mut Mind, from: usize, message: Message) -> Option<Bytes> {
        match message {
            Message::Proposal { mut proposal, first } if first.is_some() && proposal.block_id.parts.total == 1 => {
                let mut block = named_block(&proposal, first.as_ref())?;
                block.header.time = block.header.time.saturating_add(Duration::from_millis(1));
                let (parts, cut) = cut(&block.encode());
                let second = BlockId { hash: block.header.hash(), parts };
                mind.second_blocks.insert(proposal.block_id, second);
                proposal.block_id = second;
                proposal.timestamp = block.header.time;
                self.signed_proposal(from, proposal, cut.into_iter().next())
            }
            Message::Vote(mut vote) => {
                vote.block_id = vote.block_id.map(|block_id| mind.second_blocks.get(&block_id).copied().unwrap_or(block_id));
                self.signed_vote(from, vote)
            }
            other => Some(other.encode()),
        }
    }

    /// Instead of a new block of its own, one that no honest validator may vote for; the same one to everybody.
    pub(super) fn bad_block(&mut self, mind: &mut Mind, from: usize, proposal: &Proposal, first: Option<&Part>) -> Option<Bytes> {
        if proposal.pol_round.is_some() || proposal.block_id.parts.total != 1 {
            return None;
        }
        let (proposal, part) = match mind.bad_blocks.get(&proposal.block_id) {
            Some(known) => known.clone(),
            None => {
                let mut block = named_block(proposal, first)?;
                // Another time makes it another block, whatever becomes of the rest.
                block.header.time = block.header.time.saturating_add(Duration::from_millis(7));
                let addresses: Vec<Address> =
                    self.machines.iter().filter_map(|machine| machine.key.as_ref()).map(|key| key.public_key().address()).collect();
                let carried = self.carried_before(&mut mind.dice);
                let what = spoil(&mut block, &addresses, carried, &mut mind.dice)?;
                self.propose_instead(mind, proposal, &block, what)?
            }
        };
        self.signed_proposal(from, proposal, Some(part))
    }

    /// Instead of a new block of its own, one from another time: no honest clock is so far off.
    pub(super) fn untimely_block(&mut self, mind: &mut Mind, from: usize, proposal: &Proposal, first: Option<&Part>) -> Option<Bytes> {
        if proposal.pol_round.is_some() || proposal.block_id.parts.total != 1 {
            return None;
        }
        let (proposal, part) = match mind.bad_blocks.get(&proposal.block_id) {
            Some(known) => known.clone(),
            None => {
                let mut block = named_block(proposal, first)?;
                let far = Duration::from_secs(*mind.dice.pick(&[86_400 * 2, 86_400 * 365]));
                block.header.time = block.header.time.saturating_add(far);
                self.propose_instead(mind, proposal, &block, "a time far ahead")?
            }
        };
        self.signed_proposal(from, proposal, Some(part))
    }

    fn propose_instead(&mut self, mind: &mut Mind, proposal: &Proposal, block: &Block, what: &'static str) -> Option<(Proposal, Part)> {
        let (parts, cut) = cut(&block.encode());
        let part = cut.into_iter().next().filter(|_| parts.total == 1)?;
        let block_id = BlockId { hash: block.header.hash(), parts };
        self.liars.bad.insert(block_id.hash.0.to_vec(), what);
        self.liars.count(what);
        let instead = Proposal { block_id, timestamp: block.header.time, ..proposal.clone() };
        mind.second_blocks.insert(proposal.block_id, block_id);
        mind.bad_blocks.insert(proposal.block_id, (instead.clone(), part.clone()));
        Some((instead, part))
    }
}

/// The block that a proposal of one part names; none where another lie has changed the part: what is spoiled in it then may be what was right.
fn named_block(proposal: &Proposal, first: Option<&Part>) -> Option<Block> {
    let body = &first?.bytes;
    (part_set_header(body) == proposal.block_id.parts).then(|| Block::decode(body).ok())?
}

/// Takes all signatures from a certificate but the one with the least power, which is the last; none where that is the only one, since it
/// may be a quorum alone.
pub(super) fn leave_one(signatures: &mut [CommitSig]) -> Option<()> {
    let first = signatures.iter().position(CommitSig::is_for_block)?;
    let last = signatures.iter().rposition(CommitSig::is_for_block).filter(|last| *last != first)?;
    signatures.iter_mut().enumerate().filter(|(at, _)| *at != last).for_each(|(_, sig)| *sig = CommitSig::Absent);
    Some(())
}

/// Makes a valid block invalid. What is wrong now; none where this block has nothing of the kind.
fn spoil(block: &mut Block, addresses: &[Address], carried: Option<Evidence>, dice: &mut Stream) -> Option<&'static str> {
    let place = dice.place(WRONG.len());
    let other = Hash::of(dice.bits().to_le_bytes());
    let header: &mut Header = &mut block.header;
    match place {
        0 => header.version.block += 1,
        1 => header.version.app += 1,
        2 => header.chain_id = ChainId::new("another").expect("it follows the rule"),
        3 => header.height = header.height.next(),
        // The first block comes a day after genesis.
        4 => header.time = header.time.saturating_sub(Duration::from_secs(3 * 86_400)),
        5 => header.last_block_id.as_mut()?.hash = other,
        6 => header.last_commit_hash = other,
        7 => header.data_hash = other,
        8 => header.validators_hash = other,
        9 => header.next_validators_hash = other,
        10 => header.consensus_hash = other,
        11 => header.app_hash = AppHash::from(other),
        12 => header.last_results_hash = other,
        13 => header.evidence_hash = other,
        14 => header.proposer_address = Address::of_key_bytes(&other.0),
        15 => header.proposer_address = *addresses.iter().find(|address| **address != header.proposer_address)?,
        16 => {
            block.last_commit.take()?;
            header.last_commit_hash = Hash::EMPTY_LIST;
        }
        17..=19 | 22 => {
            let commit = block.last_commit.as_mut()?;
            match place {
                17 => {
                    let slot = commit.signatures.iter_mut().find_map(|sig| match sig {
                        CommitSig::Commit(slot) => Some(slot),
                        _ => None,
                    })?;
                    slot.signature.0[dice.place(64)] ^= 1;
                }
                18 => leave_one(&mut commit.signatures)?,
                19 => commit.round = Round::new(commit.round.get() + 1)?,
                _ => commit.signatures.push(CommitSig::Absent),
            }
            header.last_commit_hash = commit.hash();
        }
        20 => block.txs.push(lockstep_types::Tx(b"key0=stolen".to_vec())),
        23 | 24 => {
            let joins = b"val=ed25519!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=!1000000".to_vec();
            block.txs.push(lockstep_types::Tx(if place == 23 { b"no separator".to_vec() } else { joins }));
            header.data_hash = lockstep_types::block::data_hash(&block.txs);
        }
        25..=27 => {
            match place {
                25 => block.evidence.push(block.evidence.first()?.clone()),
                26 => {
                    let piece = block.evidence.pop()?;
                    let other = changed(piece.clone(), dice);
                    // A signature that nobody reads, or votes in the order that they must have.
                    (other != piece).then_some(())?;
                    block.evidence.push(other);
                }
                _ => block.evidence.push(carried?),
            }
            header.evidence_hash = evidence::list_hash(&block.evidence);
        }
        _ => {
            let votes: Vec<_> = block.last_commit.as_ref()?.votes().collect();
            let first = votes.first()?.clone();
            let second = lockstep_types::Vote { block_id: None, ..first.clone() };
            let (vote_a, vote_b) =
                if DuplicateVote::order_key(&first) <= DuplicateVote::order_key(&second) { (first, second) } else { (second, first) };
            let power = lockstep_types::Power::new(10).expect("small");
            let total_power = lockstep_types::Power::new(40).expect("small");
            let duplicate =
                DuplicateVote { vote_a, vote_b, address: *addresses.first()?, total_power, validator_power: power, timestamp: header.time };
            block.evidence.push(Evidence::DuplicateVote(Box::new(duplicate)));
            header.evidence_hash = evidence::list_hash(&block.evidence);
        }
    }
    Some(WRONG[place])
}
