//! What consensus casts: recorded in the vote guard, signed, sent.
//!
//! The order of effects here is what safety stands on: a body before its lock, the decision of H before a record of H + 1, the record before the
//! message (`fence`, `signing`).

use std::sync::Arc;

use bytes::Bytes;
use lockstep_consensus as consensus;
use lockstep_storage::log::Kind;
use lockstep_types::codec;
use lockstep_types::{Polka, Proposal, Vote, VoteType};

use crate::bodies::Body;
use crate::jobs::Job;
use crate::planted::Bug;
use crate::replica::Replica;
use crate::seam::{Effect, JobId, Lane, LogRecord, Now, Report, Ticket, Write};
use crate::signing::{OwnMessage, Remembered, UNSIGNED, guard_owner, guard_record};
use crate::wire::{Message, WIRE_VERSION};

/// Something to sign, with what it is cast under.
#[derive(Debug)]
pub(crate) struct Cast {
    message: OwnMessage,
    lock: Option<Polka>,
    valid: Option<Polka>,
}

impl Replica {
    /// Consensus casts: the message gets its time, its bytes are recorded, then signed, then sent.
    ///
    /// Order 2: no guard record of this height is written before the decision of the height before is durable. Order 1, that
    /// a lock's body is durable, is asserted by consensus, which casts only after it was told.
    pub(crate) fn cast(&mut self, now: Now, record: consensus::GuardRecord) {
        let Some(me) = self.signing.me() else { return };
        let Some(validator) = self.chain.validators.index_of(&me.address) else { return };
        let message = match record.message {
            consensus::Message::Ballot(ballot) => OwnMessage::Vote(Vote {
                kind: ballot.kind,
                height: ballot.height,
                round: ballot.round,
                block_id: ballot.block_id,
                valid_round: ballot.valid_round,
                timestamp: now.wall,
                validator,
                signature: UNSIGNED,
            }),
            consensus::Message::Draft(draft) => {
                // A proposal repeats its header's time. Without the body there is nothing to send either: the round is
                // left to its timer.
                let Some(block) = self.bodies.get(&draft.block_id).and_then(Body::valid_block) else { return };
                OwnMessage::Proposal(Proposal {
                    height: draft.height,
                    round: draft.round,
                    pol_round: draft.pol_round,
                    block_id: draft.block_id,
                    timestamp: block.header.time,
                    signature: UNSIGNED,
                })
            }
        };
        let own = |polka: Option<Arc<Polka>>| polka.map(Arc::unwrap_or_clone);
        let (lock, valid) = (own(record.locked), own(record.valid));
        let cast = Cast { message, lock, valid };
        if self.waits_for_own() { self.held_casts.push(cast) } else { self.record_and_sign(cast) }
    }

    pub(crate) fn record_and_sign(&mut self, cast: Cast) {
        if !self.signing.may_sign(cast.message.height()) {
            return;
        }
        let superseded = self.superseded_lock(&cast);
        let kept = self.keep_polka(&cast);
        let mut earlier = self.signing.earlier_at(cast.message.height());
        if self.planted.has(Bug::EarlierForgotten) {
            earlier.clear();
        }
        let Some(me) = self.signing.me() else { return };
        let owner = guard_owner(&self.config.genesis_hash, &me.public_key);
        let record = guard_record(&cast.message, &earlier, cast.lock.as_ref(), cast.valid.as_ref(), &self.chain_id, &owner);
        let sign_bytes = record.sign_bytes.clone();
        self.signing.remember(Remembered {
            message: cast.message.clone(),
            earlier,
            sign_bytes: sign_bytes.clone(),
            lock: cast.lock,
            valid: cast.valid,
        });
        let decision: Vec<Ticket> = self.last.as_ref().and_then(|last| last.ticket).into_iter().collect();
        let mut decision_first = if self.planted.has(Bug::VoteBeforeDecision) || self.planted.has(Bug::GuardBesideDecision) {
            Vec::new()
        } else {
            decision.clone()
        };
        decision_first.extend(superseded);
        let recorded = self.fx.persist(decision_first, Write::Guard(Box::new(record)));
        let mut after: Vec<Ticket> = [recorded].into_iter().chain(kept).collect();
        if self.planted.has(Bug::SendBeforeSync) {
            after.clear();
        }
        if self.planted.has(Bug::GuardBesideDecision) {
            after.extend(decision);
        }
        let job = self.fx.job();
        self.jobs.insert(job, Job::Sign { message: cast.message });
        self.fx.push(Effect::Sign { job, after, bytes: sign_bytes });
    }

    /// The write of the polka of our last lock that a message was cast without. The guard forgets that lock then, and until the log has its
    /// polka nothing else shows why we precommitted there. Every later message waits for it, too: records reach the guard in the order in
    /// which they were cast, and one that overtook another would have that refused.
    fn superseded_lock(&mut self, cast: &Cast) -> Option<Ticket> {
        if let Some((round, ticket)) = self.kept_lock
            && cast.lock.as_ref().is_none_or(|lock| lock.round != round)
        {
            self.superseded_lock = Some(ticket);
        }
        self.superseded_lock
    }

    /// The polka that justifies a precommit, and the one that justifies a prevote with a valid round, go to the log too: they
    /// make a fork accountable. A precommit's is its lock, which the guard holds as well until there is another lock, which
    /// waits for this write ([`Self::superseded_lock`]); its next height waits for a decision that is behind it in the log. A
    /// prevote's may be none that the guard holds, so the vote waits for the write that is returned.
    fn keep_polka(&mut self, cast: &Cast) -> Option<Ticket> {
        let OwnMessage::Vote(vote) = &cast.message else { return None };
        let (polka, only_here) = match vote.kind {
            VoteType::Precommit => (vote.block_id.and(cast.lock.clone()), false),
            VoteType::Prevote => (vote.valid_round.and_then(|round| self.consensus.polka(round)), true),
        };
        let polka = polka?;
        let ticket = self.log_polka(&polka);
        if !only_here {
            self.kept_lock = Some((polka.round, ticket));
        }
        only_here.then_some(ticket)
    }

    pub(crate) fn log_polka(&mut self, polka: &Polka) -> Ticket {
        let record = LogRecord {
            kind: Kind::Polka,
            height: polka.height,
            round: polka.round,
            block_hash: polka.block_id.hash,
            payload: Bytes::from(codec::encode(WIRE_VERSION, polka)),
        };
        self.fx.persist(Vec::new(), Write::Log(vec![record]))
    }

    pub(crate) fn on_signed(&mut self, now: Now, id: JobId, signature: Option<lockstep_types::Signature>) {
        if let Some(statement) = self.take_statement(id) {
            if let Some(signature) = signature {
                self.on_statement_signed(statement, signature);
            }
            return;
        }
        let Some(Job::Sign { message }) = self.jobs.remove(&id) else { return };
        let Some(signature) = signature else {
            self.fx.report(Report::Note(format!("the signer did not sign {:?}: the step is missed", message.position())));
            return;
        };
        if self.signing.stopped().is_some() {
            return;
        }
        match message.signed(signature) {
            OwnMessage::Vote(vote) => {
                self.fx.broadcast(Lane::Votes, &Message::Vote(vote.clone()));
                if let Ok(claim) = vote.claim(&self.chain_id, &self.chain.validators)
                    && let Ok(vote) = claim.settle(&[true])
                {
                    self.on_verified_vote(now, vote);
                }
            }
            OwnMessage::Proposal(proposal) => self.propose(now, proposal),
        }
    }

    /// Sends an own proposal, with its body.
    fn propose(&mut self, now: Now, proposal: Proposal) {
        let parts = self.bodies.get_mut(&proposal.block_id).and_then(crate::bodies::Body::parts);
        let mut parts = parts.iter().flat_map(|parts| parts.iter());
        let first = parts.next().cloned();
        self.fx.broadcast(Lane::Votes, &Message::Proposal { proposal: proposal.clone(), first });
        for part in parts {
            let message = Message::Part { height: proposal.height, header: proposal.block_id.parts, part: part.clone() };
            self.fx.broadcast(Lane::Bulk, &message);
        }
        if proposal.height != self.height() {
            return;
        }
        let proposer = self.chain.validators.proposer(proposal.round);
        let key = self.chain.validators.get(proposer).expect("the proposer is in the set").public_key;
        if let Ok(claim) = proposal.claim(&self.chain_id, &key)
            && let Ok(proposal) = claim.settle(&[true])
        {
            self.on_verified_proposal(now, proposal, now.wall);
        }
    }
}
