//! The rules of Algorithm 1 (arXiv:1807.04938), in the paper's order. Whether a rule's conditions hold is asked by
//! [`Instance::enabled`](crate::instance::Instance::enabled); what it does is here, in straight lines.

use std::sync::Arc;

use lockstep_types::{BlockId, Round, VoteType};

use crate::instance::Instance;
use crate::message::{Ballot, Draft, GuardRecord, Message, Step, Ticket, Timeout};
use crate::planted::Bug;
use crate::seam::{Effect, Effects};

impl Instance {
    /// L11–L13: begin a round.
    ///
    /// Liveness. Every correct validator derives the same proposer from the height's set, so none waits for another.
    pub(crate) fn start_round(&mut self, round: Round, fx: &mut Effects) {
        assert!(round > self.round || self.signed.is_none(), "rounds only grow");
        self.give_up_before(round, fx);
        self.round = round; // L12
        self.proposer = self.validators.proposer(round);
        self.rounds.forget_before(round);
        self.enter(Step::Propose, fx); // L13
        if round > Round::ZERO || self.is_ready {
            self.propose_or_wait(fx);
        }
    }

    /// Nobody leaves a round in silence: what we did not vote in the round before the one we enter, we vote nil there.
    ///
    /// Safety. A vote for nil helps no value and changes no lock, and nothing will be said of that round again.
    ///
    /// Liveness. Others may still wait there for two thirds of any votes (L34, L47). The paper brings them the votes on which
    /// we left; but those may have been of validators that are gone since, in the memory of nobody but us, and we may crash
    /// too. Of our own votes the guard keeps all of this height. So let all correct validators of more than two thirds be up,
    /// the lowest in round r. Where more than a third of the power is above r, the lowest skip (L55). Else nobody is above
    /// r + 1: the first to leave r + 1 did so on two thirds of any precommits of it (L65), of which these validators gave more
    /// than a third. Then every one of them voted twice in r, or will by its timers, and r ends for all.
    ///
    /// Deviation: the paper leaves in silence ([where we leave the paper](crate#where-we-leave-the-paper)).
    fn give_up_before(&mut self, round: Round, fx: &mut Effects) {
        let Some(before) = round.get().checked_sub(1).and_then(Round::new) else { return };
        if self.planted.has(Bug::LeavesInSilence) {
            return;
        }
        for kind in [VoteType::Prevote, VoteType::Precommit] {
            if self.signed < Some((before, kind.into())) {
                self.round = before;
                self.cast(kind, None, None, fx);
            }
        }
    }

    /// L14–L21: the proposer proposes the newest value that it could have locked on, else a new one; everybody waits.
    ///
    /// Safety. The proposer signs one proposal: a restart that finds one recorded waits for it to come back.
    ///
    /// Liveness. A proposal of `validValue` (L16) carries the round of its polka, and every correct validator whose lock is
    /// not newer accepts it (L29). The proposer waits too, where the paper has others wait alone: making a block takes time
    /// and may fail here, and a step that nothing ends would hold the validator in this round.
    pub(crate) fn propose_or_wait(&mut self, fx: &mut Effects) {
        assert!(self.step == Step::Propose, "L13 comes before L14");
        if self.is_proposer() && self.signed < Some((self.round, Step::Propose)) {
            match self.valid.clone() {
                Some(valid) => self.propose(valid.block_id, Some(valid.round), fx), // L15, L16, L19
                None => fx.emit(Effect::Build { height: self.height, round: self.round }), // L18
            }
        }
        self.schedule(Step::Propose, fx); // L21
    }

    /// The pace lets round 0 begin. It changes nothing once round 0 has moved on by itself.
    pub(crate) fn on_ready(&mut self, fx: &mut Effects) {
        let is_waiting = !self.is_ready && self.round == Round::ZERO && self.step == Step::Propose && !self.is_decided;
        self.is_ready = true;
        if is_waiting {
            self.propose_or_wait(fx);
        }
    }

    /// L18–L19: the block we asked for is made. One that comes too late is not proposed: others answered with nil by now,
    /// and a message before our last one is never signed.
    pub(crate) fn on_built(&mut self, round: Round, block_id: BlockId, fx: &mut Effects) {
        if round != self.round || self.step != Step::Propose || self.is_decided {
            return;
        }
        if self.is_proposer() && self.valid.is_none() && self.signed < Some((self.round, Step::Propose)) {
            self.bodies.checked(block_id, true, false);
            self.propose(block_id, None, fx); // L19
        }
    }

    /// L22–L27: a new value (vr = -1) is proposed in our round. Prevote it if it is timely, valid, and no lock forbids it.
    ///
    /// Safety. Who is locked on another value gives it no prevote (L23), so a value that may have been decided keeps more
    /// than a third of the power from prevoting any other new one.
    ///
    /// Liveness. Nothing waits: a proposal that we cannot accept is answered with nil at once.
    pub(crate) fn on_new_proposal(&mut self, accept: bool, fx: &mut Effects) {
        assert!(self.step == Step::Propose, "L22 waits in the propose step");
        let proposal = &self.held(self.round).expect("L22 waits for a proposal").proposal;
        assert!(proposal.pol_round.is_none(), "L22 is for new values");
        let value = accept.then_some(proposal.block_id);
        self.cast(VoteType::Prevote, value, None, fx); // L24, L26
        self.enter(Step::Prevote, fx); // L27
    }

    /// L28–L33: a value is proposed again, and we know the polka of the round it names. Prevote it if it is valid and our
    /// lock is not newer, or is on it.
    ///
    /// Safety. The polka of round vr shows that a lock of round vr or below was left by more than two thirds; a newer lock
    /// stands. Our prevote names vr under our signature, so if this ends in a fork, whoever prevoted against its lock
    /// without such a polka is named by its own words.
    ///
    /// Liveness. This is how a lock that others do not know of, or that we know nothing of, comes together again.
    pub(crate) fn on_old_proposal(&mut self, accept: bool, fx: &mut Effects) {
        assert!(self.step == Step::Propose, "L28 waits in the propose step");
        let proposal = &self.held(self.round).expect("L28 waits for a proposal").proposal;
        let valid_round = proposal.pol_round.expect("L28 is for values proposed again");
        assert!(valid_round < self.round, "L28: vr < round");
        let value = accept.then_some(proposal.block_id);
        let said = accept && !self.planted.has(Bug::ValidRoundUnsaid);
        self.cast(VoteType::Prevote, value, said.then_some(valid_round), fx); // L30, L32
        self.enter(Step::Prevote, fx); // L33
    }

    /// L34–L35: more than two thirds prevoted, for the first time: if they do not agree soon they never may.
    pub(crate) fn on_any_prevotes(&mut self, fx: &mut Effects) {
        assert!(self.step == Step::Prevote, "L34 waits in the prevote step");
        self.rounds.entry(self.round).prevotes.wait();
        self.schedule(Step::Prevote, fx); // L35
    }

    /// L36–L43: a polka for a value in our round, whose body is valid and on our disk. Lock it, precommit it, remember it as
    /// valid.
    ///
    /// Safety. If the value is decided in this round, more than 2/3 of the power precommitted it. Less than 1/3 is faulty, so
    /// more than 1/3 is correct and locked here. Another value's polka in a later round would need one of those prevotes, and
    /// none will be given (L23, L29).
    ///
    /// Liveness. L42 runs past the prevote step too: others may have locked on this polka, and the value we propose next must
    /// be one they can accept (L16).
    ///
    /// Deviation: the polka stands in for the round's proposal ([where we leave the paper](crate#where-we-leave-the-paper)).
    pub(crate) fn on_polka(&mut self, fx: &mut Effects) {
        assert!(self.step >= Step::Prevote, "L36 waits for the prevote step");
        let votes = self.rounds.get(self.round).expect("L36 waits for a polka");
        let polka = Arc::new(votes.prevotes.polka().expect("L36 waits for a polka"));
        assert!(self.bodies.is_valid(&polka.block_id), "L36 waits for valid(v)");
        assert!(self.bodies.is_durable(&polka.block_id), "a lock on a body that a power cut can take halts the chain");
        if self.step == Step::Prevote {
            self.locked = Some(Arc::clone(&polka)); // L38, L39
            self.cast(VoteType::Precommit, Some(polka.block_id), None, fx); // L40
            self.enter(Step::Precommit, fx); // L41
        }
        self.valid = Some(polka); // L42, L43
    }

    /// L44–L46: more than two thirds prevoted nil: this round locks nobody, so leave it without waiting.
    pub(crate) fn on_nil_polka(&mut self, fx: &mut Effects) {
        assert!(self.step == Step::Prevote, "L44 waits in the prevote step");
        if self.planted.has(Bug::NilPolkaReleases) {
            self.locked = None;
        }
        self.cast(VoteType::Precommit, None, None, fx); // L45
        self.enter(Step::Precommit, fx); // L46
    }

    /// L47–L48: more than two thirds precommitted in our round, for the first time, whatever our step.
    pub(crate) fn on_any_precommits(&mut self, fx: &mut Effects) {
        self.rounds.entry(self.round).precommits.wait();
        self.schedule(Step::Precommit, fx); // L48
    }

    /// Deviation (decision record 8): more than two thirds precommitted nil in our round. It is left at once, where the paper
    /// waits for the timer of L48.
    ///
    /// Safety. Beginning a later round touches no lock and signs nothing (L11–L21); when it begins never matters to safety.
    ///
    /// Liveness. The timer of L48 gives the precommits that are still on their way time to make a certificate. None can:
    /// it would need more than two thirds for a block, and share a correct validator with those for nil. Who is behind us is
    /// brought along by these same precommits, or skips (L55).
    pub(crate) fn on_nil_round(&mut self, fx: &mut Effects) {
        assert!(self.step == Step::Precommit, "our own precommit is said before its round is left");
        self.start_round(self.round.next(), fx); // L67
    }

    /// L49–L54: more than two thirds precommitted a valid block, in any round. It is decided; the shell begins the next
    /// height when the decision is durable (L52–L54).
    ///
    /// Safety. Precommits of one round share a correct validator with any other quorum of that round; for later rounds see
    /// L36. So no other block can have such a certificate, and it does not matter how we came by ours.
    ///
    /// Deviation: the certificate stands in for the round's proposal
    /// ([where we leave the paper](crate#where-we-leave-the-paper)).
    pub(crate) fn on_certificate(&mut self, fx: &mut Effects) {
        let (round, block_id) = self.certified.expect("L49 waits for a certificate");
        assert!(self.bodies.is_valid(&block_id), "L50: valid(v)");
        let commit = self.rounds.get(round).and_then(|votes| votes.precommits.commit()).expect("a certificate has its votes");
        self.is_decided = true; // L51
        fx.emit(Effect::Decide { commit });
    }

    /// L49 where L50 fails: what more than two thirds call valid is not, here. Nobody correct can go on from this.
    pub(crate) fn on_contradiction(&mut self, fx: &mut Effects) {
        let (round, _) = self.certified.expect("L49 waits for a certificate");
        let commit = self.rounds.get(round).and_then(|votes| votes.precommits.commit()).expect("a certificate has its votes");
        self.is_contradicted = true;
        fx.emit(Effect::CertifiedInvalid { commit });
    }

    /// L57–L60: no acceptable proposal came in time.
    pub(crate) fn on_timeout_propose(&mut self, fx: &mut Effects) {
        assert!(self.step == Step::Propose, "L58");
        self.cast(VoteType::Prevote, None, None, fx); // L59
        self.enter(Step::Prevote, fx); // L60
    }

    /// L61–L64: the prevotes did not become a polka in time, or its body did not come.
    pub(crate) fn on_timeout_prevote(&mut self, fx: &mut Effects) {
        assert!(self.step == Step::Prevote, "L62");
        self.cast(VoteType::Precommit, None, None, fx); // L63
        self.enter(Step::Precommit, fx); // L64
    }

    /// L65–L67: the round did not decide in time.
    pub(crate) fn on_timeout_precommit(&mut self, fx: &mut Effects) {
        self.start_round(self.round.next(), fx); // L67
    }

    fn is_proposer(&self) -> bool {
        self.me == Some(self.proposer)
    }

    /// Changes the step and says so.
    pub(crate) fn enter(&mut self, step: Step, fx: &mut Effects) {
        self.step = step;
        fx.emit(Effect::Stepped { height: self.height, round: self.round, step });
    }

    /// The timer of a step of our round.
    pub(crate) fn schedule(&self, step: Step, fx: &mut Effects) {
        let round = self.round.get();
        let timeouts = &self.params.timeouts;
        let duration = match step {
            Step::Propose if self.round == Round::ZERO && self.is_proposer_missed => timeouts.propose_missed.duration(),
            Step::Propose => timeouts.propose_at(round),
            Step::Prevote | Step::Precommit => timeouts.vote_at(round),
        };
        fx.emit(Effect::Schedule(Timeout { height: self.height, round: self.round, step }, duration));
    }

    /// The only place that emits [`Effect::Propose`].
    fn propose(&mut self, block_id: BlockId, pol_round: Option<Round>, fx: &mut Effects) {
        let draft = Draft { height: self.height, round: self.round, pol_round, block_id };
        if self.me.is_some() {
            let ticket = self.pledge(Step::Propose, Message::Draft(draft), fx);
            fx.emit(Effect::Propose(ticket, draft));
        }
    }

    /// The only place that emits [`Effect::Cast`], after the [`Effect::Persist`] it waits for. Who is no validator passes the
    /// same steps and says nothing.
    fn cast(&mut self, kind: VoteType, block_id: Option<BlockId>, valid_round: Option<Round>, fx: &mut Effects) {
        let ballot = Ballot { kind, height: self.height, round: self.round, block_id, valid_round };
        if self.me.is_some() {
            let ticket = self.pledge(kind.into(), Message::Ballot(ballot), fx);
            fx.emit(Effect::Cast(ticket, ballot));
        }
    }

    /// Has a message made durable before it leaves, with the lock it is made under.
    ///
    /// Safety. Messages are signed in strictly ascending (round, step), so none is signed twice with another value, before
    /// or after a restart.
    fn pledge(&mut self, step: Step, message: Message, fx: &mut Effects) -> Ticket {
        let at = (self.round, step);
        assert!(self.signed < Some(at), "one message in each step of a round");
        self.signed = Some(at);
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let (locked, valid) = (self.locked.clone(), self.valid.clone());
        fx.emit(Effect::Persist(ticket, GuardRecord { height: self.height, round: self.round, step, message, locked, valid }));
        ticket
    }
}
