//! What the liar says instead.

use std::time::Duration;

use bytes::Bytes;
use lockstep_replica::wire::Message;
use lockstep_types::{Block, BlockId, Round, Vote};

use super::{World, invented};
use crate::plan::Lie;

impl World {
    /// What a liar sends instead, to the peer at this place of its list; none for nothing.
    pub(super) fn lie(&mut self, from: usize, place: usize, bytes: &Bytes) -> Option<Bytes> {
        let Some((_, lie)) = self.plan.byzantine.filter(|(liar, _)| *liar == from) else { return Some(bytes.clone()) };
        let Ok(message) = Message::decode(bytes) else { return Some(bytes.clone()) };
        let second_half = place % 2 == 1;
        if lie == Lie::TwoBlocks {
            return if second_half { self.second_block(from, message) } else { Some(bytes.clone()) };
        }
        let key = self.machines[from].key.as_ref().expect("the liar is a validator");
        let resigned = |mut vote: Vote| {
            vote.signature = key.sign(&vote.sign_bytes(&self.genesis.chain_id));
            Some(Message::Vote(vote).encode())
        };
        match (lie, message) {
            (Lie::Withhold, Message::Vote(_) | Message::Proposal { .. }) if second_half => None,
            (Lie::Equivocate, Message::Vote(vote)) if second_half => {
                let block_id = if vote.block_id.is_some() { None } else { Some(invented(self.liar.bits())) };
                resigned(Vote { block_id, valid_round: None, ..vote })
            }
            (Lie::ForgeValidRound, Message::Vote(vote)) if second_half && vote.block_id.is_some() && vote.round > Round::ZERO => {
                let valid_round = if vote.valid_round.is_some() { None } else { Round::new(vote.round.get() - 1) };
                match vote.kind {
                    lockstep_types::VoteType::Prevote => resigned(Vote { valid_round, ..vote }),
                    lockstep_types::VoteType::Precommit => Some(bytes.clone()),
                }
            }
            (Lie::Invent, Message::Vote(vote)) => resigned(Vote { block_id: Some(invented(self.liar.bits())), valid_round: None, ..vote }),
            (Lie::TwoProposals, Message::Proposal { mut proposal, .. }) if second_half => {
                proposal.block_id = invented(u64::from(proposal.round.get()) + proposal.height.get() * 1_000);
                proposal.signature = key.sign(&proposal.sign_bytes(&self.genesis.chain_id));
                Some(Message::Proposal { proposal, first: None }.encode())
            }
            (Lie::ForgeProposalRound, Message::Proposal { mut proposal, first }) if second_half && proposal.round > Round::ZERO => {
                proposal.pol_round = if proposal.pol_round.is_some() { None } else { Round::new(proposal.round.get() - 1) };
                proposal.signature = key.sign(&proposal.sign_bytes(&self.genesis.chain_id));
                Some(Message::Proposal { proposal, first }.encode())
            }
            (Lie::FarRounds, Message::Vote(vote)) if second_half => {
                let far = vote.round.get() + 1 + u32::try_from(self.liar.below(4)).expect("small");
                resigned(Vote { round: Round::new(far).expect("small"), block_id: None, valid_round: None, ..vote })
            }
            _ => Some(bytes.clone()),
        }
    }

    /// Of a proposal, the same with a block of another time; of a vote, the same for that block; both valid.
    pub(super) fn second_block(&mut self, from: usize, message: Message) -> Option<Bytes> {
        let key = self.machines[from].key.as_ref().expect("the liar is a validator");
        let chain_id = &self.genesis.chain_id;
        let message = match message {
            Message::Proposal { mut proposal, first: Some(part) } if proposal.block_id.parts.total == 1 => {
                let mut block = Block::decode(&part.bytes).ok()?;
                block.header.time = block.header.time.saturating_add(Duration::from_millis(1));
                let (parts, cut) = lockstep_types::block::cut(&block.encode());
                let second = BlockId { hash: block.header.hash(), parts };
                self.second_blocks.insert(proposal.block_id, second);
                proposal.block_id = second;
                proposal.timestamp = block.header.time;
                proposal.signature = key.sign(&proposal.sign_bytes(chain_id));
                Message::Proposal { proposal, first: cut.into_iter().next() }
            }
            Message::Vote(mut vote) => {
                vote.block_id = vote.block_id.map(|block_id| self.second_blocks.get(&block_id).copied().unwrap_or(block_id));
                vote.signature = key.sign(&vote.sign_bytes(chain_id));
                Message::Vote(vote)
            }
            other => other,
        };
        Some(message.encode())
    }
}
