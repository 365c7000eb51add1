//! What a validator says before it is signed, and what it must remember first.

use std::sync::Arc;

use lockstep_types::{BlockId, Height, Polka, Round, Vote, VoteType};

/// The step of a round, in the order in which a validator passes them. The numbers are the guard's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Step {
    /// Waiting for the round's proposal, or making it.
    Propose = 0,
    /// Prevoted, waiting for a polka.
    Prevote = 1,
    /// Precommitted, waiting for a decision or the next round.
    Precommit = 2,
}

impl From<VoteType> for Step {
    fn from(kind: VoteType) -> Self {
        match kind {
            VoteType::Prevote => Self::Prevote,
            VoteType::Precommit => Self::Precommit,
        }
    }
}

/// What a vote is for: the unit of counting. The same block with another valid round is another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    /// The block; none is nil.
    pub block_id: Option<BlockId>,
    /// Prevotes for a block: the valid round of the proposal that was answered, none for -1.
    pub valid_round: Option<Round>,
}

impl Value {
    /// Nobody's block.
    pub const NIL: Self = Self { block_id: None, valid_round: None };
}

impl From<&Vote> for Value {
    fn from(vote: &Vote) -> Self {
        Self { block_id: vote.block_id, valid_round: vote.valid_round }
    }
}

/// A vote that is not signed yet. Its timestamp is the voter's clock, which the core does not have: the shell fills it in,
/// makes the sign-bytes durable and signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Prevote or precommit.
    pub kind: VoteType,
    /// Height voted in.
    pub height: Height,
    /// Round voted in.
    pub round: Round,
    /// The block voted for; none is nil.
    pub block_id: Option<BlockId>,
    /// Prevotes for a block: the valid round of the proposal that is answered.
    pub valid_round: Option<Round>,
}

/// A proposal that is not signed yet. Its timestamp is that of the block's header, which the shell reads from the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Draft {
    /// Height proposed in.
    pub height: Height,
    /// Round proposed in.
    pub round: Round,
    /// The valid round of a value proposed again; none for a new value (-1).
    pub pol_round: Option<Round>,
    /// The block proposed.
    pub block_id: BlockId,
}

/// What is about to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// A proposal.
    Draft(Draft),
    /// A vote.
    Ballot(Ballot),
}

/// Names one [`Persist`](crate::Effect::Persist). Unique and ascending within the life of a [`Consensus`](crate::Consensus).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What must be durable before a message of ours leaves: the message, and the lock it was made under. Each record is later
/// than the one before it in (height, round, step).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardRecord {
    /// Height of the message.
    pub height: Height,
    /// Round of the message.
    pub round: Round,
    /// Step of the message.
    pub step: Step,
    /// The message.
    pub message: Message,
    /// The lock, as the polka that justifies it (`lockedValue`, `lockedRound`).
    pub locked: Option<Arc<Polka>>,
    /// The newest polka we could have locked on (`validValue`, `validRound`). The lock itself may be newer: a restart takes
    /// the newer of the two.
    pub valid: Option<Arc<Polka>>,
}

/// A timer. It comes back as it was scheduled, and is ignored when the state has moved on: safety never depends on
/// cancelling anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeout {
    /// Height it was scheduled in.
    pub height: Height,
    /// Round it was scheduled in.
    pub round: Round,
    /// Which of the three timers of the round.
    pub step: Step,
}
