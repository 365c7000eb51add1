//! Questions that the replica has out to the shell: which they are, and what their answers are for.

use std::collections::BTreeMap;

use lockstep_types::audit::{SignedStatement, Statement};
use lockstep_types::block::Part;
use lockstep_types::vote::Claim;
use lockstep_types::{BlockId, Commit, Hash, Height, Polka, Proposal, Round, Time, Vote};

use crate::seam::{AskId, JobId, Peer};
use crate::signing::OwnMessage;

/// A question that is out.
#[derive(Debug)]
pub(crate) enum Job {
    Vote { peer: Peer, claim: Claim<Vote>, key: Vote },
    LateVote { claim: Claim<Vote> },
    Proposal { peer: Peer, claim: Claim<Proposal>, received: Time, first: Option<Part> },
    Polka { peer: Peer, claim: Claim<Polka> },
    Commit { peer: Peer, claim: Claim<Commit>, synced: Option<u64> },
    OwnProof { peer: Peer, claim: Claim<Vote>, message: OwnMessage },
    OwnProposal { peer: Peer, claim: Claim<Proposal>, message: OwnMessage },
    Sign { message: OwnMessage },
    SignStatement { statement: Statement },
    Statement { peer: Peer, claim: Claim<SignedStatement> },
    Build { height: Height, round: Round },
    Check { height: Height, block_id: BlockId, certified: bool },
    CheckTxs { hashes: Vec<Hash>, recheck: bool },
    Execute { height: Height },
    Serve { peer: Peer, ask: AskId, cost: u64 },
    AskBody { peer: Peer, height: Height, block_id: BlockId },
    AskParts { peer: Peer, height: Height, block_id: BlockId, from: u32, count: u32 },
    AskBlocks { peer: Peer, request: u64 },
    AskSigned { peer: Peer },
    AskState { peer: Peer, request: u64 },
    StateHeader { ticket: u64 },
    Stage { ticket: Option<u64> },
    Judge { source: crate::evidence::Source },
    AskEvidence { peer: Peer, hash: Hash },
    AskPolkas { peer: Peer, height: Height },
    OtherCommit { peer: Peer, claim: Claim<Commit> },
}

impl Job {
    /// The peer for whose message signatures are verified.
    pub(crate) fn asked_by(&self) -> Option<Peer> {
        match self {
            Self::Vote { peer, .. }
            | Self::Proposal { peer, .. }
            | Self::Polka { peer, .. }
            | Self::Commit { peer, .. }
            | Self::OtherCommit { peer, .. }
            | Self::Statement { peer, .. }
            | Self::OwnProof { peer, .. }
            | Self::OwnProposal { peer, .. } => Some(*peer),
            _ => None,
        }
    }
}

/// Questions that are out. Each by itself on the heap: a claim with its signatures is half a kilobyte, and one comes and goes with
/// every vote.
#[derive(Debug, Default)]
pub(crate) struct Jobs(BTreeMap<JobId, Box<Job>>);

impl Jobs {
    pub(crate) fn insert(&mut self, id: JobId, job: Job) {
        self.0.insert(id, Box::new(job));
    }

    pub(crate) fn remove(&mut self, id: &JobId) -> Option<Job> {
        self.0.remove(id).map(|job| *job)
    }

    pub(crate) fn get(&self, id: &JobId) -> Option<&Job> {
        self.0.get(id).map(|job| &**job)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Job> {
        self.0.values().map(|job| &**job)
    }
}
