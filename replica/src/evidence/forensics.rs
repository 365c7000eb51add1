//! Who forked a chain, from what two nodes keep of the height at which they differ.
//!
//! Two decided blocks at one height mean that more than a third of the power broke the rules. Each node's log holds the
//! certificate of its side, and the polkas that justified its own precommits and its own prevotes with a valid round
//! (`docs/format-storage.md`). From these two rules name the culprits:
//!
//! 1. *Two votes*: for one round and step, for two values.
//! 2. *Amnesia*: a precommit for a block, and in a later round a prevote for another one that names no valid round, or one
//!    before that precommit. The lock forbade it (L23, L29): what frees from a lock is a polka of its round or later.
//!
//! Nobody who followed the rules is named, whatever is missing: both rules need two messages that the culprit signed. With the
//! votes of both sides more than a third of the power is named; why is told in the simulator's accountability checker, which
//! judges the same with code of its own.

use std::collections::BTreeMap;

use lockstep_types::{ChainId, Commit, Polka, Round, ValidatorIndex, ValidatorSet, Vote, VoteType};

use crate::check::Verdicts;

/// What a validator did, with the two messages that prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crime {
    /// Two votes for one round and step.
    TwoVotes(Box<(Vote, Vote)>),
    /// A precommit, and a later prevote that its lock forbade.
    Amnesia(Box<(Vote, Vote)>),
}

impl std::fmt::Display for Crime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = |vote: &Vote| vote.block_id.map_or_else(|| "nil".to_owned(), |id| id.hash.to_string());
        match self {
            Self::TwoVotes(pair) => {
                let (a, b) = &**pair;
                let kind = if a.kind == VoteType::Prevote { "prevotes" } else { "precommits" };
                write!(f, "two {kind} in round {}: {} and {}", a.round, value(a), value(b))
            }
            Self::Amnesia(pair) => {
                let (lock, later) = &**pair;
                let named = later.valid_round.map_or_else(|| "no valid round".to_owned(), |round| format!("valid round {round}"));
                write!(
                    f,
                    "precommit for {} in round {}, and in round {} a prevote for {} that names {named}",
                    value(lock),
                    lock.round,
                    later.round,
                    value(later)
                )
            }
        }
    }
}

/// The votes that certificates and polkas hold, of one height.
pub fn votes(commits: &[Commit], polkas: &[Polka]) -> Vec<Vote> {
    commits.iter().flat_map(Commit::votes).chain(polkas.iter().flat_map(Polka::votes)).collect()
}

/// Who broke the rules by these votes of one height, and how: the first way that is found. A vote counts if its signature holds.
pub fn culprits(
    votes: &[Vote],
    validators: &ValidatorSet,
    chain_id: &ChainId,
    verdicts: &mut Verdicts<'_>,
) -> BTreeMap<ValidatorIndex, Crime> {
    let mut said: BTreeMap<ValidatorIndex, Vec<Vote>> = BTreeMap::new();
    for vote in votes {
        let Ok(claim) = vote.clone().claim(chain_id, validators) else { continue };
        let held = said.entry(vote.validator).or_default();
        let is_new = !held.iter().any(|other| (other.round, other.kind, other.value()) == (vote.round, vote.kind, vote.value()));
        if is_new && verdicts(claim.checks()).iter().all(|valid| *valid) {
            held.push(vote.clone());
        }
    }
    said.into_iter().filter_map(|(validator, votes)| Some((validator, crime(&votes)?))).collect()
}

fn crime(votes: &[Vote]) -> Option<Crime> {
    let pairs = || votes.iter().flat_map(|a| votes.iter().map(move |b| (a, b)));
    let two = pairs().find(|(a, b)| (a.round, a.kind) == (b.round, b.kind) && a.value() < b.value());
    let frees = |valid_round: Option<Round>, lock: Round| valid_round.is_some_and(|valid_round| valid_round >= lock);
    let forgot = || {
        pairs().find(|(lock, later)| {
            (lock.kind, later.kind) == (VoteType::Precommit, VoteType::Prevote)
                && lock.round < later.round
                && lock.block_id.is_some()
                && later.block_id.is_some()
                && lock.block_id != later.block_id
                && !frees(later.valid_round, lock.round)
        })
    };
    let own = |(a, b): (&Vote, &Vote)| Box::new((a.clone(), b.clone()));
    two.map(own).map(Crime::TwoVotes).or_else(|| forgot().map(own).map(Crime::Amnesia))
}
