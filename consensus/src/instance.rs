//! One instance of consensus: the state of one height, and how it takes in what happens.
//!
//! [`Instance::step`] has two halves. [`Instance::take_in`] files the input: it may count a vote or note that a body is
//! durable, and decides nothing. Then [`Instance::enabled`] names a rule of the paper whose conditions all hold, and
//! [`Instance::apply`] runs it, until none is left. So a rule with several conditions is tried again on each of them by
//! construction: a polka that came before its body is not forgotten, and nobody has to remember which input completes which
//! rule.

use std::sync::Arc;

use lockstep_types::vote::Verified;
use lockstep_types::{
    BlockId, Commit, ConsensusParams, Height, Polka, Proposal, Round, Time, ValidatorIndex, ValidatorSet, Vote, VoteType,
};

use crate::bodies::Bodies;
use crate::message::{Step, Timeout};
use crate::planted::{Bug, Planted};
use crate::rounds::{Held, Rounds, Seen, Sightings};
use crate::seam::{Effect, Effects, HeightStart, Input, Restored};
use crate::timeliness::is_timely;
use crate::votes::{Counted, VoteSet};

/// The state of the height that is being decided. Named as in the paper where the paper names it.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) height: Height,
    pub(crate) validators: Arc<ValidatorSet>,
    pub(crate) me: Option<ValidatorIndex>,
    pub(crate) params: Arc<ConsensusParams>,
    pub(crate) round: Round,
    pub(crate) step: Step,
    /// The proposer of `round`.
    pub(crate) proposer: ValidatorIndex,
    /// `lockedValue` and `lockedRound`, with what justifies them. One option, so that half a lock cannot be written down.
    pub(crate) locked: Option<Arc<Polka>>,
    /// `validValue` and `validRound`.
    pub(crate) valid: Option<Arc<Polka>>,
    /// The lock that we came back with, where the disk has lost the body that it rests on: rot, which no lock is safe from.
    pub(crate) lost_lock: Option<BlockId>,
    pub(crate) rounds: Rounds,
    pub(crate) sightings: Sightings,
    pub(crate) bodies: Bodies,
    /// The first precommit quorum for a block: what will be decided, once its body is here.
    pub(crate) certified: Option<(Round, BlockId)>,
    /// `decision[h]` is set.
    pub(crate) is_decided: bool,
    /// The certified block was reported to be invalid here.
    pub(crate) is_contradicted: bool,
    /// Round and step of the last message we signed. Only grows.
    pub(crate) signed: Option<(Round, Step)>,
    /// Round 0 may begin.
    pub(crate) is_ready: bool,
    /// The proposer of round 0 missed its last slot, and was not heard in this height.
    pub(crate) is_proposer_missed: bool,
    pub(crate) last_ticket: u64,
    pub(crate) planted: Planted,
}

/// The rules of Algorithm 1 that wait for messages; L11 and the timeouts (L57, L61, L65) are called where they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// L22–L27, with the answer.
    NewProposal { accept: bool },
    /// L28–L33, with the answer.
    OldProposal { accept: bool },
    /// L34–L35.
    WaitForPrevotes,
    /// L36–L43.
    Polka,
    /// L44–L46.
    NilPolka,
    /// L47–L48 and L65–L67 at once, where nothing is left to wait for.
    NilRound,
    /// L47–L48.
    WaitForPrecommits,
    /// L49–L54.
    Decide,
    /// L49 with a block that is invalid here.
    Contradiction,
    /// L55–L56.
    Skip(Round),
}

impl Instance {
    /// Begins a height: at round 0, or where the guard says that we were.
    pub(crate) fn start(start: HeightStart, last_ticket: u64, planted: Planted, fx: &mut Effects) -> Self {
        let HeightStart { height, validators, me, params, proposer_missed, restored } = start;
        assert!(me.is_none_or(|me| validators.get(me).is_some()), "we are one of the validators or none");
        let mut instance = Self {
            height,
            me,
            params,
            round: Round::ZERO,
            step: Step::Propose,
            proposer: validators.proposer(Round::ZERO),
            locked: None,
            valid: None,
            lost_lock: None,
            rounds: Rounds::new(height, Arc::clone(&validators), planted),
            sightings: Sightings::new(&validators, planted),
            bodies: Bodies::default(),
            certified: None,
            is_decided: false,
            is_contradicted: false,
            signed: None,
            is_ready: false,
            is_proposer_missed: proposer_missed,
            last_ticket,
            planted,
            validators,
        };
        match restored {
            Some(restored) => instance.resume(restored, fx),
            None => instance.start_round(Round::ZERO, fx),
        }
        instance.settle(fx);
        instance
    }

    /// Goes on after a crash, at the round and step of the last message we signed.
    ///
    /// Safety. Whatever was sent is at or before (round, step), and nothing at or before it is signed again. The lock is the
    /// one that the last message was made under; a lock that is newer than the record was never followed by a message, so
    /// nobody counts on it.
    fn resume(&mut self, restored: Restored, fx: &mut Effects) {
        assert!(self.me.is_some(), "who has a guard is a validator");
        self.signed = Some((restored.round, restored.step));
        for polka in [&restored.locked, &restored.valid].into_iter().flatten() {
            if !restored.lost.contains(&polka.block_id) || self.planted.has(Bug::LostBodyBelieved) {
                self.bodies.durable(polka.block_id);
            }
            self.take_polka(polka, fx);
        }
        self.lost_lock = restored.locked.as_ref().map(|polka| polka.block_id).filter(|block_id| restored.lost.contains(block_id));
        self.locked = restored.locked.map(|polka| Arc::new(polka.into_inner()));
        self.valid = restored.valid.map(|polka| Arc::new(polka.into_inner()));
        // The record of a precommit is written within L36, before L42.
        if self.locked.as_ref().map(|polka| polka.round) > self.valid.as_ref().map(|polka| polka.round) {
            self.valid.clone_from(&self.locked);
        }
        self.round = restored.round;
        self.proposer = self.validators.proposer(self.round);
        self.enter(restored.step, fx);
        if self.step == Step::Propose && self.round > Round::ZERO && !self.planted.has(Bug::NoTimerAfterRestart) {
            self.propose_or_wait(fx);
        }
    }

    /// Takes in what happened, then runs every rule that it enabled.
    pub(crate) fn step(&mut self, input: Input, fx: &mut Effects) {
        self.take_in(input, fx);
        self.settle(fx);
    }

    fn settle(&mut self, fx: &mut Effects) {
        while let Some(rule) = self.enabled() {
            self.apply(rule, fx);
        }
        self.assert_invariants();
    }

    fn take_in(&mut self, input: Input, fx: &mut Effects) {
        match input {
            Input::StartHeight(_) => unreachable!("a height begins with a new instance"),
            Input::Ready => self.on_ready(fx),
            Input::Proposal { proposal, received } => self.take_proposal(proposal.get(), received, fx),
            Input::Vote(vote) => self.take_vote(&vote, fx),
            Input::Polka(polka) => self.take_polka(&polka, fx),
            Input::Commit(commit) => self.take_commit(&commit, fx),
            Input::Built { round, block_id } => self.on_built(round, block_id, fx),
            Input::Checked { block_id, valid } => {
                let is_certified = self.certified.is_some_and(|(_, certified)| certified == block_id);
                self.bodies.checked(block_id, valid, is_certified);
            }
            Input::BodyDurable { block_id } => self.bodies.durable(block_id),
            Input::TimedOut(timeout) => self.on_timeout(timeout, fx),
        }
    }

    /// A rule whose conditions hold, if there is one. The paper allows any order; this one decides first, and leaves a round
    /// last, so that a round that succeeded is not abandoned for one that was only heard of.
    fn enabled(&self) -> Option<Rule> {
        if self.is_decided {
            return None;
        }
        self.enabled_decision()
            .or_else(|| match self.step {
                Step::Propose => self.enabled_answer(),
                Step::Prevote => self.enabled_polka().or_else(|| self.enabled_wait_for_prevotes()),
                Step::Precommit if self.planted.has(Bug::LateValidIgnored) => None,
                Step::Precommit => self.enabled_polka(),
            })
            .or_else(|| self.enabled_nil_round())
            .or_else(|| self.enabled_wait_for_precommits())
            .or_else(|| self.enabled_skip())
    }

    fn apply(&mut self, rule: Rule, fx: &mut Effects) {
        match rule {
            Rule::NewProposal { accept } => self.on_new_proposal(accept, fx),
            Rule::OldProposal { accept } => self.on_old_proposal(accept, fx),
            Rule::WaitForPrevotes => self.on_any_prevotes(fx),
            Rule::Polka => self.on_polka(fx),
            Rule::NilPolka => self.on_nil_polka(fx),
            Rule::NilRound => self.on_nil_round(fx),
            Rule::WaitForPrecommits => self.on_any_precommits(fx),
            Rule::Decide => self.on_certificate(fx),
            Rule::Contradiction => self.on_contradiction(fx),
            Rule::Skip(round) => self.start_round(round, fx),
        }
    }

    /// L49: a precommit quorum for a block of any round, and its body is here.
    fn enabled_decision(&self) -> Option<Rule> {
        let (round, block_id) =
            self.certified.filter(|(round, _)| !self.planted.has(Bug::DecidesInOwnRoundOnly) || *round == self.round)?;
        match self.valid_block(&block_id, round)? {
            true => Some(Rule::Decide),
            false => (!self.is_contradicted).then_some(Rule::Contradiction),
        }
    }

    /// L22 or L28: the proposal of our round can be answered. L28 waits for the polka of the valid round it names; the
    /// propose timer keeps running meanwhile, since the polka may not exist.
    fn enabled_answer(&self) -> Option<Rule> {
        let held = self.held(self.round)?;
        let proposal = &held.proposal;
        match proposal.pol_round {
            None => {
                let accept = all([
                    Some(held.timely),
                    Some(self.lock_allows_new(&proposal.block_id)),
                    self.valid_block(&proposal.block_id, self.round),
                ])?;
                Some(Rule::NewProposal { accept })
            }
            Some(valid_round) => {
                if !self.has_polka(valid_round, &proposal.block_id) {
                    return None;
                }
                let accept =
                    all([Some(self.lock_allows_old(&proposal.block_id, valid_round)), self.valid_block(&proposal.block_id, self.round)])?;
                Some(Rule::OldProposal { accept })
            }
        }
    }

    /// L36 or L44: our round has a polka that was not acted on.
    fn enabled_polka(&self) -> Option<Rule> {
        let votes = self.rounds.get(self.round)?;
        let Some(block_id) = votes.prevotes.quorum()?.block_id else {
            return (self.step == Step::Prevote).then_some(Rule::NilPolka);
        };
        let is_new = self.valid.as_ref().is_none_or(|valid| valid.round < self.round);
        let is_here = self.valid_block(&block_id, self.round) == Some(true) && self.bodies.is_durable(&block_id);
        (is_new && is_here && !votes.forgotten).then_some(Rule::Polka)
    }

    fn enabled_wait_for_prevotes(&self) -> Option<Rule> {
        self.rounds.get(self.round)?.prevotes.is_wait_due().then_some(Rule::WaitForPrevotes)
    }

    /// More than two thirds precommitted nil in our round, and we have said ours.
    fn enabled_nil_round(&self) -> Option<Rule> {
        let is_nil = self.rounds.get(self.round)?.precommits.quorum() == Some(crate::message::Value::NIL);
        (is_nil && self.step == Step::Precommit).then_some(Rule::NilRound)
    }

    fn enabled_wait_for_precommits(&self) -> Option<Rule> {
        self.rounds.get(self.round)?.precommits.is_wait_due().then_some(Rule::WaitForPrecommits)
    }

    fn enabled_skip(&self) -> Option<Rule> {
        self.sightings.reached_by_third(self.round, &self.validators).map(Rule::Skip)
    }

    /// `lockedRound = -1 ∨ lockedValue = v` (L23).
    fn lock_allows_new(&self, block_id: &BlockId) -> bool {
        self.planted.has(Bug::LockIgnored) || self.locked.as_ref().is_none_or(|locked| locked.block_id == *block_id)
    }

    /// `lockedRound <= vr ∨ lockedValue = v` (L29).
    fn lock_allows_old(&self, block_id: &BlockId, valid_round: Round) -> bool {
        self.lock_allows_new(block_id)
            || self.planted.has(Bug::OlderPolkaReleases)
            || self.locked.as_ref().is_none_or(|locked| locked.round <= valid_round)
    }

    /// A polka of that round for the block, with any one valid round (L28).
    fn has_polka(&self, round: Round, block_id: &BlockId) -> bool {
        self.planted.has(Bug::NoPolkaCheck) || self.votes(round, VoteType::Prevote).and_then(VoteSet::quorum_block) == Some(*block_id)
    }

    /// valid(v), once it is known. The round only matters to a planted bug.
    fn valid_block(&self, block_id: &BlockId, round: Round) -> Option<bool> {
        let valid = self.bodies.valid(block_id)?;
        let is_untimely = || self.held(round).is_some_and(|held| !held.timely);
        Some(valid && !(self.planted.has(Bug::TimelinessInValid) && is_untimely()))
    }

    pub(crate) fn held(&self, round: Round) -> Option<&Held> {
        self.rounds.get(round)?.held.as_ref()
    }

    pub(crate) fn votes(&self, round: Round, kind: VoteType) -> Option<&VoteSet> {
        Some(self.rounds.get(round)?.votes(kind))
    }

    /// Keeps the first proposal of a round. One of a past round answers nothing any more; one of a far round is not looked
    /// at: to find the proposer of round r costs r steps.
    fn take_proposal(&mut self, proposal: &Proposal, received: Time, fx: &mut Effects) {
        let round = proposal.round;
        if proposal.height != self.height || round < self.round || !self.rounds.keeps(round, self.round) {
            return;
        }
        let proposer = if round == self.round { self.proposer } else { self.validators.proposer(round) };
        self.sightings.see(proposer, round, Seen::Proposal);
        if self.held(round).is_some() {
            return;
        }
        let timely = is_timely(proposal, received, &self.params) || self.planted.has(Bug::AlwaysTimely);
        self.rounds.entry(round).held = Some(Held { proposal: proposal.clone(), timely });
        self.bodies.check(proposal.block_id, fx);
    }

    /// Counts a vote of this height. Of a round far ahead only the sighting is kept.
    fn take_vote(&mut self, vote: &Verified<Vote>, fx: &mut Effects) {
        if vote.height != self.height {
            return;
        }
        self.hear_proposer(vote.validator, fx);
        self.sightings.see(vote.validator, vote.round, vote.kind.into());
        if self.rounds.keeps(vote.round, self.round) {
            let counted = self.rounds.entry(vote.round).votes_mut(vote.kind).add(vote);
            self.note(vote.kind, vote.round, [counted], fx);
        }
    }

    /// Counts the votes of a polka, of whatever round: if it is ahead of ours we are about to skip there, since more than
    /// two thirds were seen in it.
    fn take_polka(&mut self, polka: &Verified<Polka>, fx: &mut Effects) {
        if polka.height != self.height {
            return;
        }
        for vote in polka.votes() {
            self.sightings.see(vote.validator, vote.round, Seen::Prevote);
        }
        let counted = self.rounds.entry(polka.round).prevotes.add_polka(polka);
        self.note(VoteType::Prevote, polka.round, counted, fx);
    }

    /// Counts the votes of a commit certificate, of whatever round.
    fn take_commit(&mut self, commit: &Verified<Commit>, fx: &mut Effects) {
        if commit.height != self.height {
            return;
        }
        for vote in commit.votes() {
            self.sightings.see(vote.validator, vote.round, Seen::Precommit);
        }
        let counted = self.rounds.entry(commit.round).precommits.add_commit(commit);
        self.note(VoteType::Precommit, commit.round, counted, fx);
    }

    /// What counting showed: equivocations, and a quorum that names a block.
    fn note(&mut self, kind: VoteType, round: Round, counted: impl IntoIterator<Item = Counted>, fx: &mut Effects) {
        for Counted { quorum, equivocation, .. } in counted {
            if let Some(equivocation) = equivocation {
                fx.emit(Effect::Accuse(equivocation));
            }
            let Some(block_id) = quorum.and_then(|value| value.block_id) else { continue };
            if kind == VoteType::Precommit {
                self.certified.get_or_insert((round, block_id));
            }
            if self.planted.has(Bug::EarlyPolkaForgotten) && !(self.bodies.is_valid(&block_id) && self.bodies.is_durable(&block_id)) {
                self.rounds.entry(round).forgotten = true;
            }
            if !self.is_decided {
                self.bodies.want(block_id, round, fx);
            }
        }
    }

    /// A vote of this height from the proposer of round 0, which had missed its last slot: it is there after all, and gets
    /// the full time.
    fn hear_proposer(&mut self, validator: ValidatorIndex, fx: &mut Effects) {
        if !self.is_proposer_missed || validator != self.validators.proposer(Round::ZERO) {
            return;
        }
        self.is_proposer_missed = false;
        if self.round == Round::ZERO && self.step == Step::Propose && self.is_ready && !self.is_decided {
            self.schedule(Step::Propose, fx);
        }
    }

    fn on_timeout(&mut self, timeout: Timeout, fx: &mut Effects) {
        let is_current = timeout.round == self.round || self.planted.has(Bug::StaleTimer);
        if timeout.height != self.height || !is_current || self.is_decided {
            return;
        }
        let is_proposed_again = || self.held(self.round).is_some_and(|held| held.proposal.pol_round.is_some());
        match (timeout.step, self.step) {
            (Step::Propose, Step::Propose) if self.planted.has(Bug::ProposeTimerStopped) && is_proposed_again() => {}
            (Step::Propose, Step::Propose) => self.on_timeout_propose(fx),
            (Step::Prevote, Step::Prevote) => self.on_timeout_prevote(fx),
            (Step::Precommit, _) if self.round < Round::MAX => self.on_timeout_precommit(fx),
            _ => {} // The step it was to end is over, or there is no further round.
        }
    }

    /// Runs after every step. A handful of comparisons, so it is never switched off.
    fn assert_invariants(&self) {
        if let Some(locked) = &self.locked {
            let valid = self.valid.as_ref().expect("L38 never runs without L42");
            assert!(locked.round <= valid.round, "locked beyond the newest polka we know");
            let is_here = self.bodies.is_durable(&locked.block_id) || self.lost_lock == Some(locked.block_id);
            assert!(is_here, "a lock on a body that a power cut can take halts the chain");
        }
        if let Some(valid) = &self.valid {
            assert!(valid.round <= self.round, "a polka from a round we have not entered");
            assert!(valid.height == self.height, "a polka of another height");
        }
        assert!(self.signed <= Some((self.round, self.step)), "we signed what we have not come to");
        assert!(self.signed.is_none() || self.me.is_some(), "who is no validator signs nothing");
        assert!(!self.is_decided || self.certified.is_some(), "what is decided has its certificate");
    }
}

/// All of them, as soon as that is known: one that fails settles it though others are open.
fn all<const N: usize>(conditions: [Option<bool>; N]) -> Option<bool> {
    if conditions.contains(&Some(false)) {
        return Some(false);
    }
    conditions.iter().all(Option::is_some).then_some(true)
}
