//! Votes and certificates of peers, verified before they count.

use std::sync::Arc;

use lockstep_consensus as consensus;
use lockstep_types::vote::Verified;
use lockstep_types::{Commit, Polka, Vote, VoteType};

use crate::jobs::Job;
use crate::planted::Bug;
use crate::proposals::ROUNDS_AHEAD;
use crate::replica::{POINTS_LIE, Replica};
use crate::seam::{Now, Peer};

impl Replica {
    pub(crate) fn on_vote(&mut self, _now: Now, peer: Peer, vote: Vote) {
        if vote.height != self.height() || self.check_own_vote(peer, &vote) || !self.is_news(&vote) {
            return;
        }
        if !self.verifying.insert(vote.clone()) {
            return;
        }
        match vote.clone().claim(&self.chain_id, &self.chain.validators) {
            Ok(claim) => self.verify(claim.checks().to_vec(), Job::Vote { peer, claim, key: vote }),
            Err(error) => {
                self.verifying.remove(&vote);
                self.blame(peer, POINTS_LIE, format!("a vote: {error}"));
            }
        }
    }

    /// Whether a vote could still count: not one that we hold, nor a third value of its place.
    fn is_news(&self, vote: &Vote) -> bool {
        let held = self.consensus.votes(vote.round, vote.kind).map_or(&[][..], |set| set.votes_of(vote.validator));
        held.len() < consensus::LOOSE_VALUES_MAX && !held.iter().any(|held| held.value() == vote.value())
    }

    pub(crate) fn on_verified_vote(&mut self, now: Now, vote: Verified<Vote>) {
        if vote.height != self.height() || self.deciding.is_some() {
            if vote.height == self.chain.height || self.deciding.is_some() {
                self.add_late_vote(&vote);
            }
            return;
        }
        self.drive(now, consensus::Input::Vote(vote));
        self.try_ready(now);
    }

    pub(crate) fn on_polka(&mut self, now: Now, peer: Peer, polka: Polka) {
        let _ = now;
        let bound = self.consensus.round().get().saturating_add(ROUNDS_AHEAD);
        if polka.round.get() > bound || self.consensus.polka(polka.round).is_some_and(|known| known.valid_round == polka.valid_round) {
            return;
        }
        match polka.claim(&self.chain_id, &self.chain.validators) {
            Ok(claim) => self.verify(claim.checks().to_vec(), Job::Polka { peer, claim }),
            Err(error) => self.blame(peer, POINTS_LIE, format!("a polka: {error}")),
        }
    }

    pub(crate) fn on_verified_polka(&mut self, now: Now, polka: Verified<Polka>) {
        if polka.height != self.height() || self.deciding.is_some() {
            return;
        }
        let block_id = polka.block_id;
        self.bodies.name(block_id, polka.round, true);
        self.store_body(block_id);
        self.drive(now, consensus::Input::Polka(polka));
        self.judge(block_id);
    }

    /// A certificate; `synced` is block sync's ticket, when it is that of a fetched block.
    pub(crate) fn on_commit(&mut self, now: Now, peer: Peer, commit: Commit, synced: Option<u64>) {
        if self.certificate.is_some() && synced.is_none() {
            return;
        }
        match commit.claim(&self.chain_id, &self.chain.validators) {
            Ok(claim) if synced.is_some() && self.planted.has(Bug::FetchedUnverified) => {
                let taken = vec![true; claim.checks().len()];
                self.settle_commit(now, peer, claim, synced, &taken);
            }
            Ok(claim) => self.verify(claim.checks().to_vec(), Job::Commit { peer, claim, synced }),
            Err(error) => {
                if let Some(ticket) = synced {
                    self.synced_block_is_bad(now, ticket);
                }
                self.blame(peer, POINTS_LIE, format!("a commit: {error}"));
            }
        }
    }

    pub(crate) fn on_verified_commit(&mut self, now: Now, commit: Verified<Commit>) {
        if commit.height != self.height() || self.deciding.is_some() {
            return;
        }
        let block_id = commit.block_id;
        if self.certificate.as_ref().is_some_and(|known| known.block_id == block_id) {
            return;
        }
        self.sync_certified(now, commit.height);
        self.certificate = Some(Arc::new(commit.clone()));
        self.bodies.name(block_id, commit.round, true);
        self.judge(block_id);
        self.drive(now, consensus::Input::Commit(commit));
        self.ask_body(now, block_id);
    }

    /// Consensus holds a precommit quorum for a body that was found invalid.
    pub(crate) fn certify(&mut self, commit: Commit) {
        let block_id = commit.block_id;
        if self.certificate.is_none()
            && let Ok(claim) = commit.claim(&self.chain_id, &self.chain.validators)
        {
            let valid = vec![true; claim.checks().len()];
            self.certificate = claim.settle(&valid).ok().map(Arc::new);
        }
        self.judge(block_id);
    }

    /// A precommit of the height before: it may still enter the next block's last commit.
    pub(crate) fn on_late_vote(&mut self, vote: Vote) {
        let Some(last) = &self.last else { return };
        let wanted = vote.kind == VoteType::Precommit
            && vote.height == last.commit.height
            && vote.round == last.commit.round
            && vote.block_id == Some(last.block_id)
            && last.commit.signatures.get(vote.validator.index()).is_some_and(|sig| !sig.is_for_block());
        if !wanted {
            return;
        }
        if let Ok(claim) = vote.claim(&self.chain_id, &self.chain.last_validators) {
            self.verify(claim.checks().to_vec(), Job::LateVote { claim });
        }
    }

    pub(crate) fn add_late_vote(&mut self, vote: &Verified<Vote>) {
        let Some(last) = &mut self.last else { return };
        if vote.kind != VoteType::Precommit || vote.height != last.commit.height || vote.round != last.commit.round {
            return;
        }
        let validators = &self.chain.last_validators;
        let held: Vec<Vote> = last.commit.votes().collect();
        last.commit = Commit::from_precommits(
            last.commit.height,
            last.commit.round,
            last.block_id,
            validators,
            held.iter().chain(std::iter::once(vote.get())),
        );
    }
}
