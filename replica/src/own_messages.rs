//! Own messages that this node may have forgotten: the others are asked before anything is signed.

use std::fmt;

use lockstep_types::quorum::Quorum;
use lockstep_types::{Commit, Proposal, PublicKey, ValidatorSet, Vote};

use crate::jobs::Job;
use crate::replica::{OwnWait, Replica};
use crate::seam::{Effect, Now, Peer, Report, Timer};
use crate::signing::{OwnMessage, UNSIGNED};
use crate::wire::Question;

impl Replica {
    /// At start, peers are asked for our own messages: a later one than the guard's, or another for the same place, means
    /// that somebody else signs with this key or that this directory is older than it was. The wait is bounded once anybody
    /// can be asked; a validator that nobody hears decides nothing by signing, unless its power is a quorum (decision 14).
    pub(crate) fn begin_own_wait(&mut self, now: Now) {
        let alone = self.chain.validators.len() == 1;
        if self.signing.me().is_some() && !alone {
            self.own_wait = OwnWait::Timed;
            let at = now.mono.after(self.chain.params.timeouts.propose_at(0));
            self.fx.push(Effect::SetTimer { at, timer: Timer::OwnMessages });
        }
    }

    /// One propose timeout has passed: all that is missing now is one answer.
    pub(crate) fn on_own_timer(&mut self, now: Now) {
        if self.own_wait == OwnWait::Timed {
            self.own_wait = OwnWait::AnyAnswer;
            self.try_end_own_wait(now);
        }
    }

    /// Ends the wait if nothing is missing: an answer that names a message of our key is not one before its signature is judged.
    pub(crate) fn try_end_own_wait(&mut self, now: Now) {
        let is_judging = |job: &Job| matches!(job, Job::OwnProof { .. } | Job::OwnProposal { .. });
        if !self.waits_for_own() || self.jobs.values().any(is_judging) {
            return;
        }
        let Some(me) = self.signing.me().map(|me| me.public_key) else { return };
        let validators = &self.chain.validators;
        // Who is no validator of this height proves nothing by knowing of no message, and one that connected twice answers once.
        let told = |key: PublicKey| self.peers.iter().any(|(_, state)| state.told_own && state.validator == Some(key));
        let ends = match self.own_wait {
            OwnWait::Over => false,
            OwnWait::Timed => validators.iter().all(|validator| validator.public_key == me || told(validator.public_key)),
            OwnWait::AnyAnswer => {
                let mine = validators.iter().find(|validator| validator.public_key == me);
                let decides_alone = mine.is_some_and(|mine| Quorum::Byzantine.is_quorum(mine.power, validators.total_power()));
                decides_alone || self.peers.iter().any(|(_, state)| state.told_own)
            }
        };
        if ends {
            self.end_own_wait(now);
        }
    }

    pub(crate) fn ask_own_messages(&mut self, peer: Peer) {
        let Some(me) = self.signing.me().filter(|_| self.waits_for_own()) else { return };
        let question = Question::Signed { address: me.address, from: self.height() };
        let job = self.fx.job();
        self.jobs.insert(job, Job::AskSigned { peer });
        self.fx.push(Effect::Request { job, peer, bytes: question.encode() });
    }

    pub(crate) fn on_own_messages(&mut self, now: Now, peer: Peer, votes: Vec<Vote>, proposals: Vec<Proposal>) {
        let height = self.height();
        for vote in votes.into_iter().filter(|vote| vote.height >= height) {
            self.check_own_vote(peer, &vote);
        }
        for proposal in proposals.into_iter().filter(|proposal| proposal.height == height) {
            self.verify_own_proposal(peer, &proposal);
        }
        if let Some(state) = self.peers.get_mut(peer) {
            state.told_own = true;
        }
        self.try_end_own_wait(now);
    }

    fn end_own_wait(&mut self, now: Now) {
        self.own_wait = OwnWait::Over;
        for cast in std::mem::take(&mut self.held_casts) {
            self.record_and_sign(cast);
        }
        self.try_ready(now);
    }

    /// Whether a vote that says to be ours is one that we did not sign; its signature decides.
    pub(crate) fn check_own_vote(&mut self, peer: Peer, vote: &Vote) -> bool {
        let ours = self
            .signing
            .me()
            .is_some_and(|me| self.chain.validators.get(vote.validator).is_some_and(|validator| validator.address == me.address));
        let message = OwnMessage::Vote(Vote { signature: UNSIGNED, ..vote.clone() });
        if !ours || !self.is_foreign(&message) {
            return false;
        }
        if let Ok(claim) = vote.clone().claim(&self.chain_id, &self.chain.validators) {
            self.verify(claim.checks().to_vec(), Job::OwnProof { peer, claim, message });
        }
        true
    }

    /// The same for a proposal of a round near ours.
    pub(crate) fn check_own_proposal(&mut self, peer: Peer, proposal: &Proposal) -> bool {
        let proposer = self.chain.validators.get(self.chain.validators.proposer(proposal.round));
        let ours = self.signing.me().is_some_and(|me| proposer.is_some_and(|validator| validator.address == me.address));
        ours && self.verify_own_proposal(peer, proposal)
    }

    /// Asks whether we signed a proposal that says to be ours. Whose turn its round is stays out of it: any round may stand in
    /// an answer, and finding the proposer of a late one takes longer than verifying a signature.
    fn verify_own_proposal(&mut self, peer: Peer, proposal: &Proposal) -> bool {
        let Some(me) = self.signing.me().cloned() else { return false };
        let message = OwnMessage::Proposal(Proposal { signature: UNSIGNED, ..proposal.clone() });
        if !self.is_foreign(&message) {
            return false;
        }
        if let Ok(claim) = proposal.clone().claim(&self.chain_id, &me.public_key) {
            self.verify(claim.checks().to_vec(), Job::OwnProposal { peer, claim, message });
        }
        true
    }

    /// The same for our slot of a commit whose signatures were all verified, by the set that it is of. Peers hand on no vote for a place
    /// of which they hold one already, and who catches up gets no votes at all: a commit shows what our key signed there even so. A copy
    /// that is older than the chain meets it before it can sign anything new; of two that run at once, the one whose precommit did not
    /// get into the commit meets it with the next proposal.
    pub(crate) fn check_own_slot(&mut self, commit: &Commit, validators: &ValidatorSet) {
        let Some(index) = self.signing.me().and_then(|me| validators.index_of(&me.address)) else { return };
        let Some(vote) = commit.votes().find(|vote| vote.validator == index) else { return };
        let message = OwnMessage::Vote(Vote { signature: UNSIGNED, ..vote });
        if self.is_foreign(&message) {
            self.on_foreign(&format_args!("the commit of height {}", commit.height), &message);
        }
    }

    fn is_foreign(&self, message: &OwnMessage) -> bool {
        self.config.watches_key && self.signing.stopped().is_none() && self.signing.is_foreign(message, &self.chain_id)
    }

    /// Its signature is ours, and we did not make it.
    pub(crate) fn on_foreign(&mut self, holder: &dyn fmt::Display, message: &OwnMessage) {
        let (height, round, step) = message.position();
        let reason = format!(
            "{holder} holds a message for height {height}, round {round}, step {step} that carries this validator's signature and that \
             this node did not sign: another process signs with the same key, this directory was restored from an older copy, or the key \
             signed before this home was made. Nothing is signed any more; find the other process, and start again only when you know \
             that it is stopped and the chain has decided height {height}"
        );
        self.signing.stop(reason.clone());
        self.fx.report(Report::SignedElsewhere(reason));
    }
}
