//! Two certificates for one height: more than a third of the power broke the rules.
//!
//! A node meets the other certificate when a peer that decided otherwise helps it with what it takes for the decision of the height. It is
//! verified like any other; then it goes to the log, the operator is told, and peers are asked for the polkas that they keep of that
//! height. With these, `lockstep inspect --fork` names the culprits from this home alone, also where nobody signed two values for one
//! round (amnesia). Who did sign two precommits of one round is accused at once: that is evidence that a block can carry.
//!
//! Nothing else changes. Which of the two is the chain cannot be told by a node, and is for people to settle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_types::vote::Claim;
use lockstep_types::{BlockId, Commit, Height, Polka, Round, ValidatorSet, Vote};

use super::exchange::Source;
use super::kept::Kept;
use crate::jobs::Job;
use crate::replica::{POINTS_LIE, Replica};
use crate::seam::{Effect, Peer, Report};
use crate::wire::{POLKAS_MAX, Question};

/// Heights of which this is done in one life. Behind a fork every block differs, and one height tells all.
const FORKS_MAX: usize = 4;
/// Peers that are asked for their polkas.
const ASKED_MAX: usize = 16;

/// Heights at which certificates conflict.
#[derive(Debug, Default)]
pub(crate) struct Forks {
    met: BTreeMap<Height, Met>,
}

/// One of them.
#[derive(Debug)]
struct Met {
    validators: Arc<ValidatorSet>,
    /// The polkas that were written down, by what they are for.
    written: BTreeSet<(Round, BlockId, Option<Round>)>,
}

impl Replica {
    /// A certificate for the height that was decided last.
    pub(crate) fn on_commit_of_last(&mut self, peer: Peer, commit: Commit) {
        let is_ours = self.last.as_ref().is_none_or(|last| last.block_id == commit.block_id);
        if is_ours || self.forks.met.contains_key(&commit.height) || self.forks.met.len() >= FORKS_MAX {
            return;
        }
        match commit.claim(&self.chain_id, &self.chain.last_validators) {
            Ok(claim) => self.verify(claim.checks().to_vec(), Job::OtherCommit { peer, claim }),
            Err(error) => self.blame(peer, POINTS_LIE, format!("a commit: {error}")),
        }
    }

    pub(crate) fn on_other_commit(&mut self, peer: Peer, claim: Claim<Commit>, verdicts: &[bool]) {
        let commit = match claim.settle(verdicts) {
            Ok(commit) => commit.get().clone(),
            Err(error) => return self.blame(peer, POINTS_LIE, format!("a commit: {error}")),
        };
        let Some(last) = self.last.as_ref().filter(|last| last.commit.height == commit.height && last.block_id != commit.block_id) else {
            return; // The chain went on meanwhile: who sent it will send those of later heights.
        };
        let (height, ours) = (commit.height, last.commit.clone());
        if self.forks.met.contains_key(&height) {
            return;
        }
        self.forks.met.insert(height, Met { validators: self.chain.last_validators.clone(), written: BTreeSet::new() });
        self.fx.report(Report::Note(format!(
            "two certificates for height {height}: this node decided {}, and validators with more than two thirds of the power signed {} as well. More than a \
             third of it broke the rules; nobody can tell which block is the chain's. lockstep inspect --fork names who signed what, from the \
             homes of nodes of both sides, or from this one when its peers have answered",
            ours.block_id, commit.block_id
        )));
        self.keep_evidence(&Kept::Certificate(Box::new(commit.clone())));
        self.accuse_signers(&ours, &commit);
        let peers: Vec<Peer> = self.peers.iter().filter(|(_, state)| !state.expelled).map(|(peer, _)| peer).take(ASKED_MAX).collect();
        for peer in peers {
            let job = self.fx.job();
            self.jobs.insert(job, Job::AskPolkas { peer, height });
            self.fx.push(Effect::Request { job, peer, bytes: Question::Polkas { height }.encode() });
        }
    }

    /// Whoever signed both certificates in one round signed two values for one place.
    fn accuse_signers(&mut self, ours: &Commit, theirs: &Commit) {
        let signed: BTreeMap<_, Vote> = ours.votes().map(|vote| (vote.validator, vote)).collect();
        for second in theirs.votes() {
            let first = signed.get(&second.validator).filter(|first| first.round == second.round && first.block_id != second.block_id);
            let Some(first) = first else { continue };
            let kept = Kept::Seen(Box::new((first.clone(), second)));
            self.keep_evidence(&kept);
            if let Some(evidence) = kept.into_evidence() {
                self.judge_evidence(evidence, Source::Disk);
            }
        }
    }

    /// A peer gave what it keeps of a height: written down, each once, for whoever names the culprits.
    pub(crate) fn on_polkas_of(&mut self, peer: Peer, height: Height, polkas: Vec<Polka>) {
        for polka in polkas {
            let Some(met) = self.forks.met.get_mut(&height) else { return };
            if polka.height != height || polka.clone().claim(&self.chain_id, &met.validators).is_err() {
                return self.blame(peer, POINTS_LIE, format!("a polka that is none of height {height}"));
            }
            if met.written.len() < POLKAS_MAX && met.written.insert((polka.round, polka.block_id, polka.valid_round)) {
                self.keep_evidence(&Kept::Polka(Box::new(polka)));
            }
        }
    }
}
