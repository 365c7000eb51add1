//! Reconciliation: peers say what they hold of a round, and are sent what they lack.
//!
//! The proof of liveness assumes that every message between correct processes arrives; the network loses some. While a
//! step does not move, a node tells its peers what it holds ([`Have`]) and whoever holds more sends just that: votes in
//! batches, the proposal and its parts, and certificates, which move a peer at once whatever it had counted. When all is
//! well, nothing of this is sent.

use std::time::Duration;

use lockstep_types::{PublicKey, Vote, VoteType};

use crate::planted::Bug;
use crate::replica::Replica;
use crate::seam::{Effect, Lane, Mono, Now, Peer, Timer};
use crate::wire::{Bits, Have, Message, VOTES_MAX, VoteBatch};

/// A step that did not move for this long is spoken of. Doubled while it still does not, up to [`STUCK_MAX`].
const STUCK_MIN: Duration = Duration::from_millis(100);
/// An idle chain is quiet: it speaks no more often than this.
const STUCK_MAX: Duration = Duration::from_millis(800);
/// A peer is not helped again before what it was sent can have arrived.
const HELP_AGAIN: Duration = Duration::from_millis(50);
/// What a part that is sent in help counts for before its peer gets more: 8 MiB a second to each. A peer that says again and
/// again that it lacks a large body would cost us a copy and a send of all of it each time.
const PART_PAUSE: Duration = Duration::from_micros(7_800);
/// Parts sent in one answer.
const PARTS_PER_HELP: usize = 32;
/// Transactions of our clients are told at once when nothing was told for this long, and in batches otherwise.
const TX_BATCH: Duration = Duration::from_millis(2);

/// When the next exchange is due.
#[derive(Debug)]
pub struct GossipState {
    moved_at: Mono,
    interval: Duration,
}

impl Default for GossipState {
    fn default() -> Self {
        Self { moved_at: Mono(0), interval: STUCK_MIN }
    }
}

impl GossipState {
    /// Something moved: there is nothing to speak of for a while.
    pub fn progressed(&mut self, now: Now) {
        self.moved_at = now.mono;
        self.interval = STUCK_MIN;
    }
}

impl Replica {
    pub(crate) fn on_peer_up(&mut self, now: Now, peer: Peer, validator: Option<PublicKey>) {
        self.peers.insert(peer, validator);
        let have = Message::Have(self.have());
        self.fx.send(peer, Lane::Votes, &have);
        self.ask_own_messages(peer);
        self.pool.welcome(peer, &mut self.fx);
        self.tell_evidence(peer);
        self.tell_statement(peer);
        let _ = now;
    }

    pub(crate) fn on_peer_down(&mut self, now: Now, peer: Peer) {
        self.peers.remove(peer);
        self.sync_peer_gone(now, peer);
        self.state_peer_gone(now, peer);
        self.stop_serving(now, peer);
        self.checks_of.remove(&peer);
        self.early.forget(peer);
        self.bodies.forget_peer(peer);
        self.evidence.forget(peer);
    }

    pub(crate) fn set_gossip_timer(&mut self, now: Now) {
        self.fx.push(Effect::SetTimer { at: now.mono.after(STUCK_MIN), timer: Timer::Gossip });
    }

    pub(crate) fn on_gossip_timer(&mut self, now: Now) {
        self.judge_hope(now);
        if now.mono.since(self.gossip.moved_at) >= self.gossip.interval {
            self.gossip.moved_at = now.mono;
            self.gossip.interval = (self.gossip.interval * 2).min(STUCK_MAX);
            if !self.planted.has(Bug::VotesNotReconciled) {
                let have = Message::Have(self.have());
                self.fx.broadcast(Lane::Votes, &have);
                self.tell_statements_again();
            }
            if !self.planted.has(Bug::BodyAskedOnce) {
                self.ask_missing_bodies(now);
            }
        }
        self.tell_evidence_again(now);
        self.set_gossip_timer(now);
    }

    fn ask_missing_bodies(&mut self, now: Now) {
        let missing: Vec<_> =
            self.bodies.iter().filter(|(_, body)| body.bytes.is_none() && body.named_by_quorum).map(|(block_id, _)| *block_id).collect();
        for block_id in missing {
            self.ask_body(now, block_id);
        }
    }

    /// What we hold of our round.
    fn have(&self) -> Have {
        let round = self.consensus.round();
        let voters = |kind| Bits::of(self.votes(round, kind).map(|vote: &Vote| vote.validator.index()));
        let held = self.proposals.get(&round).and_then(|held| held.first());
        let pol_round = held.and_then(|held| held.proposal.pol_round);
        Have {
            status: self.status(),
            height: self.height(),
            round,
            step: self.consensus.current_step() as u8,
            proposal: held.is_some(),
            polka: self.consensus.polka(round).is_some(),
            parts: held.map(|held| Bits::of(self.bodies.part_places(&held.proposal.block_id))).unwrap_or_default(),
            prevotes: voters(VoteType::Prevote),
            precommits: voters(VoteType::Precommit),
            missing_polka: pol_round.filter(|round| self.consensus.polka(*round).is_none()),
        }
    }

    pub(crate) fn on_have(&mut self, now: Now, peer: Peer, have: Have) {
        self.on_claim(now, peer, have.status);
        let height = self.height();
        let Some(state) = self.peers.get_mut(peer) else { return };
        state.have = Some(have.clone());
        if state.helped_at.is_some_and(|at| now.mono.since(at) < HELP_AGAIN) {
            return;
        }
        state.helped_at = Some(now.mono);
        if have.height == height {
            self.help(now, peer, &have);
        } else if have.height < height {
            // It asks for blocks when it knows of them; one that missed only the last decision is moved by its certificate.
            let message = match self.last.as_ref().filter(|last| last.commit.height == have.height) {
                Some(last) => Message::Commit(last.commit.clone()),
                None => Message::Status(self.status()),
            };
            self.fx.send(peer, Lane::Votes, &message);
        }
    }

    /// Sends a peer of our height what it lacks of its round, and what moves it to ours.
    fn help(&mut self, now: Now, peer: Peer, have: &Have) {
        if let Some(deciding) = &self.deciding {
            let message = Message::Commit(deciding.commit.get().clone());
            self.fx.send(peer, Lane::Votes, &message);
            return;
        }
        if let Some(commit) = &self.certificate {
            let message = Message::Commit(commit.get().clone());
            self.fx.send(peer, Lane::Votes, &message);
        }
        self.help_with_proposal(now, peer, have);
        let wanted = have.missing_polka.into_iter().chain((!have.polka).then_some(have.round));
        let polkas: Vec<_> = wanted.filter_map(|round| self.consensus.polka(round)).collect();
        for polka in polkas.into_iter().filter(|_| !self.planted.has(Bug::PolkaNotSent)) {
            self.fx.send(peer, Lane::Votes, &Message::Polka(polka));
        }
        let ours = self.consensus.round();
        let lacks = |kind, bits: &Bits| -> Vec<Vote> {
            self.votes(have.round, kind).filter(|vote| !bits.contains(vote.validator.index())).cloned().collect()
        };
        let mut votes = lacks(VoteType::Prevote, &have.prevotes);
        votes.extend(lacks(VoteType::Precommit, &have.precommits));
        if ours > have.round {
            // Votes of our round let it skip to us (L55).
            votes.extend(self.votes(ours, VoteType::Prevote).cloned());
            votes.extend(self.votes(ours, VoteType::Precommit).cloned());
        }
        if self.planted.has(Bug::VotesNotResent) {
            return;
        }
        for batch in votes.chunks(VOTES_MAX) {
            self.fx.send(peer, Lane::Votes, &Message::Votes(VoteBatch(batch.to_vec())));
        }
    }

    fn help_with_proposal(&mut self, now: Now, peer: Peer, have: &Have) {
        let Some(held) = self.proposals.get(&have.round).and_then(|held| held.first()) else { return };
        let proposal = held.proposal.get().clone();
        let block_id = proposal.block_id;
        if !have.proposal {
            let first = self.bodies.part(&block_id, 0);
            self.fx.send(peer, Lane::Votes, &Message::Proposal { proposal: proposal.clone(), first });
        }
        if self.peers.get_mut(peer).is_none_or(|state| state.parts_after.is_some_and(|after| now.mono < after)) {
            return;
        }
        let missing: Vec<usize> = self
            .bodies
            .part_places(&block_id)
            .into_iter()
            .filter(|place| !have.parts.contains(*place) && (*place > 0 || have.proposal))
            .take(PARTS_PER_HELP)
            .collect();
        if let Some(state) = self.peers.get_mut(peer) {
            let sent = u32::try_from(missing.len()).expect("parts are few");
            state.parts_after = Some(now.mono.after(PART_PAUSE * sent));
        }
        for place in missing {
            let index = u32::try_from(place).expect("parts are few");
            if let Some(part) = self.bodies.part(&block_id, index) {
                self.fx.send(peer, Lane::Bulk, &Message::Part { height: proposal.height, header: block_id.parts, part });
            }
        }
    }

    /// Tells everybody of new transactions: at once on an idle link, in batches on a busy one.
    pub(crate) fn flush_gossip(&mut self, now: Now) {
        if !self.tx_timer {
            self.tx_timer = true;
            self.pool.gossip(&mut self.fx);
            self.fx.push(Effect::SetTimer { at: now.mono.after(TX_BATCH), timer: Timer::TxBatch });
        }
    }
}
