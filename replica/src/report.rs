//! What a replica tells about itself: nothing of it is needed to go on, and no answer is awaited.

use std::sync::Arc;

use lockstep_consensus::Step;
use lockstep_sync::state::Told;
use lockstep_types::vote::Verified;
use lockstep_types::{Address, Block, BlockId, Commit, Evidence, Height, Proposal, Round, Time, Vote};

use crate::chain::ChainState;
use crate::seam::{Outcome, Peer};

/// What an operator or a reader may want to know.
#[derive(Debug, Clone)]
pub enum Report {
    /// Consensus entered a step.
    Stepped {
        /// Height.
        height: Height,
        /// Round.
        round: Round,
        /// Step.
        step: Step,
    },
    /// A block was decided and executed.
    Committed {
        /// The block.
        block_id: BlockId,
        /// Its content.
        block: Arc<Block>,
        /// The commit that decided it.
        commit: Arc<Verified<Commit>>,
        /// What came out.
        outcome: Arc<Outcome>,
        /// Validators, parameters and hashes after it.
        chain: Arc<ChainState>,
    },
    /// The pool changed.
    Mempool {
        /// Transactions waiting.
        txs: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// A new block of this round is dated further from this node's clock than clocks and the network may take: it gets no prevote
    /// from here. Where more than a third of the power is that far off, no round succeeds until the clocks agree.
    Untimely {
        /// What was proposed.
        proposal: Box<Proposal>,
        /// Who proposed it.
        proposer: Address,
        /// When it came, by this node's clock.
        received: Time,
    },
    /// A validator signed two values.
    Equivocation {
        /// Evidence that anyone can check.
        first: Box<Vote>,
        /// The other vote.
        second: Box<Vote>,
    },
    /// Evidence waits for a block, which this node has just come to know.
    Evidence {
        /// The piece.
        evidence: Arc<Evidence>,
    },
    /// A peer sent something that is refused.
    Refused {
        /// Who.
        peer: Peer,
        /// How bad, in points of the peer's score.
        points: u32,
        /// What.
        reason: String,
    },
    /// Whether this node is behind: by proof, or because it begins with a snapshot, or because most peers say that they are ahead and have
    /// pruned the block that comes next here. Not said before a peer has said what it has, and most are not ahead: until then nobody knows.
    CatchingUp {
        /// True while it is.
        behind: bool,
        /// Best height proven; once it is behind no more, the one that it decided last.
        target: Height,
    },
    /// How far state sync is.
    StateSync(Told),
    /// A message was met that carries this validator's signature and that this home did not sign. It signs nothing any more; another
    /// process with its keys may take its place.
    SignedElsewhere(String),
    /// Something worth a line in the log.
    Note(String),
}
