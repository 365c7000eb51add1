//! Whether a block may carry a piece of evidence (`encoding.md` section 13).
//!
//! Everything here is a function of the chain before the block and of the piece, so all correct nodes agree: it is part of
//! valid(v). The signatures are judged by whoever asks, as for blocks.

use std::collections::BTreeSet;

use lockstep_app::EVIDENCE_REMEMBERED_MAX;
use lockstep_types::evidence::{AttackFacts, DuplicateVote, EvidenceError, LightClientAttack};
use lockstep_types::planted::{self, Bug};
use lockstep_types::vote::Rejected;
use lockstep_types::{Address, Evidence, Height, Time};
use thiserror::Error;

use super::history::History;
use crate::chain::ChainState;
use crate::check::Verdicts;

/// Why a block may not carry a piece.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// It proves nothing: who sent it lies, or did not look.
    #[error("it proves nothing: {0}")]
    Invalid(#[from] EvidenceError),
    /// The chain is not there yet.
    #[error("it is of height {0}, which is not followed by a block yet")]
    Early(Height),
    /// Both ages are above what the parameters allow.
    #[error("it expired: it is of height {0}")]
    Expired(Height),
    /// A block carries it already.
    #[error("a block carried it already")]
    Committed,
    /// Nobody whom it accuses has power in the newest set, or other pieces accuse them all.
    #[error("nobody whom it accuses has power that another piece does not take away")]
    NobodyLeft,
    /// The chain remembers as much evidence as it can until some expires.
    #[error("{EVIDENCE_REMEMBERED_MAX} pieces are remembered, and none of them has expired")]
    Full,
    /// This node does not know its own block of that height. Not the sender's fault, and no reason to refuse what more than two
    /// thirds decided.
    #[error("block {0} is not kept here, so the evidence cannot be judged")]
    Unknown(Height),
}

impl Refused {
    /// Whether only a faulty node sends such a piece. The others may come from one that is ahead of us or behind us.
    pub fn is_lie(&self) -> bool {
        matches!(self, Self::Invalid(_))
    }
}

/// Whether a piece is older than both ages that the parameters allow, measured to the last block.
pub fn is_expired(height: Height, time: Time, chain: &ChainState) -> bool {
    let params = &chain.params.evidence;
    let blocks = chain.height.get().saturating_sub(height.get());
    blocks > params.max_age_num_blocks && chain.last_time.since(time).as_nanos() > u128::from(params.max_age_duration_ns)
}

/// Those whom a piece accuses and who have power in the newest set, from which it can be taken.
pub fn at_large<'a>(evidence: &Evidence, chain: &'a ChainState) -> impl Iterator<Item = Address> + use<'a> {
    evidence.accused().into_iter().map(|(address, _)| address).filter(|address| chain.next_validators.index_of(address).is_some())
}

/// Whether the block after `chain` may carry a piece, looked at alone.
///
/// # Errors
/// See [`Refused`].
pub fn judge(evidence: &Evidence, chain: &ChainState, history: &dyn History, verdicts: &mut Verdicts<'_>) -> Result<(), Refused> {
    has_a_place(evidence, chain)?;
    let checks = match evidence {
        Evidence::DuplicateVote(evidence) => claim_votes(evidence, chain, history)?,
        Evidence::LightClientAttack(evidence) => claim_attack(evidence, chain, history)?,
    };
    let is_signed = planted::has(Bug::EvidenceSignaturesUnread) || verdicts(&checks).iter().all(|valid| *valid);
    if is_signed { Ok(()) } else { Err(EvidenceError::from(Rejected::Signature).into()) }
}

/// What costs next to nothing to find out: whether a block could carry a piece if it is true.
///
/// # Errors
/// See [`Refused`].
pub fn has_a_place(evidence: &Evidence, chain: &ChainState) -> Result<(), Refused> {
    let height = evidence.height();
    if height < chain.initial_height {
        return Err(EvidenceError::Derived("height").into());
    }
    if height > chain.height {
        return Err(Refused::Early(height));
    }
    let hash = evidence.hash();
    let is_committed = chain.standing.committed_evidence.iter().any(|piece| piece.hash == hash);
    if is_committed && !planted::has(Bug::EvidenceCommittedAgain) {
        return Err(Refused::Committed);
    }
    // A time that is not our block's is found out below.
    if is_expired(height, evidence.time(), chain) && !planted::has(Bug::EvidenceNeverExpires) {
        return Err(Refused::Expired(height));
    }
    // Amnesia between two commits is true and against nobody in particular (decision record 15).
    if at_large(evidence, chain).next().is_none() {
        return Err(Refused::NobodyLeft);
    }
    Ok(())
}

/// Fills in what the chain knows: powers, time, culprits and the order of votes. Nothing where the chain does not know it.
pub fn complete(evidence: &mut Evidence, chain: &ChainState, history: &dyn History) {
    let Some(past) = history.past(evidence.height(), chain) else { return };
    match evidence {
        Evidence::DuplicateVote(votes) => {
            let (first, second) = (votes.vote_a.clone(), votes.vote_b.clone());
            if let Some(made) = DuplicateVote::from_votes(first, second, &past.validators, past.header.time) {
                **votes = made;
            }
        }
        Evidence::LightClientAttack(attack) => {
            let conflicting = attack.conflicting_block.header.height;
            let Some(ours) = history.past(conflicting.min(chain.height), chain) else { return };
            let facts = AttackFacts {
                common_validators: &past.validators,
                common_time: past.header.time,
                header: &ours.header,
                commit: ours.commit.as_ref().filter(|_| conflicting < chain.height),
            };
            **attack = LightClientAttack::from_block(attack.conflicting_block.clone(), attack.common_height, &facts);
        }
    }
}

type Checks = Vec<lockstep_types::crypto::SignatureCheck>;

fn claim_votes(evidence: &DuplicateVote, chain: &ChainState, history: &dyn History) -> Result<Checks, Refused> {
    let height = evidence.vote_a.height;
    let past = history.past(height, chain).ok_or(Refused::Unknown(height))?;
    let time = if planted::has(Bug::EvidenceTimeUnchecked) { evidence.timestamp } else { past.header.time };
    Ok(evidence.claim(&chain.chain_id, &past.validators, time)?)
}

fn claim_attack(evidence: &LightClientAttack, chain: &ChainState, history: &dyn History) -> Result<Checks, Refused> {
    let past = |height| history.past(height, chain).ok_or(Refused::Unknown(height));
    let conflicting = evidence.conflicting_block.header.height;
    if conflicting == chain.height {
        // Which commit our block has is settled by the next one.
        return Err(Refused::Early(conflicting));
    }
    let common = past(evidence.common_height)?;
    let ours = past(conflicting.min(chain.height))?;
    if conflicting < chain.height && ours.commit.is_none() {
        return Err(Refused::Unknown(conflicting));
    }
    let facts = AttackFacts {
        common_validators: &common.validators,
        common_time: common.header.time,
        header: &ours.header,
        commit: ours.commit.as_ref().filter(|_| conflicting < chain.height),
    };
    let claim = evidence.claim(&chain.chain_id, &facts);
    // What is said of a height to come is compared with our tip, and nodes have different ones.
    claim.map_err(|error| if conflicting > chain.height { Refused::Early(conflicting) } else { error.into() })
}

/// Collects the evidence of one block, within its bounds.
#[derive(Debug, Default)]
pub struct Collected {
    accused: BTreeSet<Address>,
    pieces: usize,
    bytes: u64,
}

/// Why a piece that may be in a block is too much for this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{bytes} bytes of evidence, at most {max} are allowed")]
pub struct TooLarge {
    /// With this piece.
    pub bytes: u64,
    /// `evidence.max_bytes`.
    pub max: u64,
}

impl Collected {
    /// Makes room for one more piece.
    ///
    /// # Errors
    /// When the block would have more bytes of evidence than the parameters allow.
    pub fn reserve(&mut self, evidence: &Evidence, chain: &ChainState) -> Result<(), TooLarge> {
        let (bytes, max) = (self.bytes.saturating_add(evidence.to_bytes().len() as u64), chain.params.evidence.max_bytes);
        if bytes > max && !planted::has(Bug::EvidenceBytesUnbounded) {
            return Err(TooLarge { bytes, max });
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Takes one more piece beside those that it holds: one that accuses somebody with power whom none of them accuses.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn take(
        &mut self,
        evidence: &Evidence,
        chain: &ChainState,
        history: &dyn History,
        verdicts: &mut Verdicts<'_>,
    ) -> Result<(), Refused> {
        has_a_place(evidence, chain)?;
        let news = at_large(evidence, chain).any(|address| !self.accused.contains(&address));
        if !news && !planted::has(Bug::EvidenceRepeated) {
            return Err(Refused::NobodyLeft);
        }
        if chain.standing.committed_evidence.len().saturating_add(self.pieces) >= EVIDENCE_REMEMBERED_MAX {
            return Err(Refused::Full);
        }
        judge(evidence, chain, history, verdicts)?;
        self.accused.extend(evidence.accused().into_iter().map(|(address, _)| address));
        self.pieces += 1;
        Ok(())
    }
}
