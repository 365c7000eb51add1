//! The exchange of statements: what each validator has after a height, compared with what we have.
//!
//! A validator says it once for each block, as soon as the block is executed, and again while nothing moves. One that says what we have
//! is counted unread: nothing follows from it. A signature is verified only for one that says something else, and then for all of
//! that height, since only then does it matter who said what. So in harmony a block costs each validator one signature and each node a
//! digest of the chain state, and a few hundred bytes for each pair of peers.
//!
//! On a connection that keeps the order of frames, a validator's statement of H comes before its votes of H + 1. So whoever decides H + 1
//! by votes has heard from more than two thirds what they have after H.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_types::audit::{SignedStatement, Statement};
use lockstep_types::quorum::Quorum;
use lockstep_types::vote::Verified;
use lockstep_types::{Address, Height, Power, ValidatorSet};

use super::ASK_TO_QUIT;
use super::finding::{Finding, Proof};
use crate::jobs::Job;
use crate::planted::Bug;
use crate::replica::{POINTS_LIE, Replica};
use crate::seam::{Effect, JobId, Lane, Mono, Now, Peer};
use crate::wire::Message;

/// Different statements of one validator for one height that are kept: what it said first, and what it said once it had healed.
const STATEMENTS_MAX: usize = 2;
/// Heights of which statements are kept: the newest, and the one before, whose statements may still be on their way.
const HEIGHTS_MAX: usize = 2;
/// How long no state can be that of more than two thirds before this node gives up: who healed opens its home, executes, and says what it has
/// then, and who failed after it at the same height may be all that is wrong. A block that is decided
/// meanwhile ends it.
pub(crate) const HOPELESS_FOR: Duration = Duration::from_secs(30);
/// Validators that a reason names.
const NAMED_MAX: usize = 16;

/// A statement that is kept.
#[derive(Debug)]
struct Heard {
    signed: SignedStatement,
    /// Who sent it.
    from: Peer,
    /// Whether its signature was found valid.
    is_verified: bool,
}

/// What was said of a height.
#[derive(Debug)]
struct Said {
    ours: Statement,
    /// By validator: at most [`STATEMENTS_MAX`] of each that were read, and one that was not.
    heard: BTreeMap<Address, Vec<Heard>>,
}

impl Said {
    /// Whether somebody says something else.
    fn is_disputed(&self) -> bool {
        self.heard.values().flatten().any(|heard| heard.signed.statement != self.ours)
    }
}

/// What this node says, and what others said.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    said: BTreeMap<Height, Said>,
    /// Our newest statement, signed.
    own: Option<SignedStatement>,
    /// Since when no state after this height, which is the newest, can be that of more than two thirds.
    hopeless_since: Option<(Height, Mono)>,
}

impl Replica {
    /// A height begins: what we have after the one before is what statements of it are compared with, and, as a validator, what we say.
    /// A node that is behind says nothing: what it has now is no news.
    pub(crate) fn state_ours(&mut self) {
        let height = self.chain.height;
        let is_due = self.chain.last_block_id.is_some() && self.catch_up.target() <= height && !self.exchange.said.contains_key(&height);
        if !is_due || self.deciding.is_some() {
            return;
        }
        let ours = self.chain.statement();
        self.exchange.said.insert(height, Said { ours: ours.clone(), heard: BTreeMap::new() });
        while self.exchange.said.len() > HEIGHTS_MAX {
            self.exchange.said.pop_first();
        }
        if let Some(me) = self.signing.me().filter(|_| self.signing.stopped().is_none())
            && self.chain.validators.index_of(&me.address).is_some()
        {
            let bytes = ours.sign_bytes(&self.chain_id, &self.config.genesis_hash);
            let job = self.fx.job();
            self.jobs.insert(job, Job::SignStatement { statement: ours });
            self.fx.push(Effect::Sign { job, after: Vec::new(), bytes });
        }
    }

    /// Our statement is signed: everybody is told.
    pub(crate) fn on_statement_signed(&mut self, statement: Statement, signature: lockstep_types::Signature) {
        let Some(me) = self.signing.me().filter(|_| self.signing.stopped().is_none()) else { return };
        let signed = SignedStatement { statement, validator: me.address, signature };
        self.fx.broadcast(Lane::Votes, &Message::Statement(signed.clone()));
        self.exchange.own = Some(signed);
    }

    /// To a peer that came: what we say.
    pub(crate) fn tell_statement(&mut self, peer: Peer) {
        if let Some(own) = &self.exchange.own {
            self.fx.send(peer, Lane::Votes, &Message::Statement(own.clone()));
        }
    }

    /// While nothing moves: what we say, and, where somebody says something else, all that was said of the newest height, since who is to be
    /// convinced may not hear from everybody.
    pub(crate) fn tell_statements_again(&mut self) {
        self.state_ours();
        let disputed = self.exchange.said.get(&self.chain.height).filter(|said| said.is_disputed());
        let heard = disputed.into_iter().flat_map(|said| said.heard.values().flatten()).filter(|heard| heard.is_verified);
        let all: Vec<SignedStatement> = heard.map(|heard| heard.signed.clone()).chain(self.exchange.own.clone()).collect();
        for signed in all {
            self.fx.broadcast(Lane::Votes, &Message::Statement(signed));
        }
    }

    /// Who speaks of a height: the validators of the next. They were determined before it was executed.
    fn speakers(&self, height: Height) -> Option<&ValidatorSet> {
        match self.chain.height.get().checked_sub(height.get()) {
            Some(0) => Some(&self.chain.validators),
            Some(1) => Some(&self.chain.last_validators),
            _ => None,
        }
    }

    pub(crate) fn on_statement(&mut self, peer: Peer, signed: SignedStatement) {
        let height = signed.statement.height;
        let is_speaker = self.speakers(height).is_some_and(|set| set.index_of(&signed.validator).is_some());
        let is_ours = self.signing.me().is_some_and(|me| me.address == signed.validator);
        let Some(said) = self.exchange.said.get_mut(&height).filter(|_| is_speaker && !is_ours) else { return };
        let is_disputed = said.is_disputed();
        let heard = said.heard.entry(signed.validator).or_default();
        // Where it matters who said what, one that nobody read says nothing of its validator.
        let is_known = heard.iter().any(|heard| heard.signed.statement == signed.statement && (heard.is_verified || !is_disputed));
        if is_known || heard.iter().filter(|heard| heard.is_verified).count() >= STATEMENTS_MAX {
            return;
        }
        if signed.statement == said.ours && !is_disputed {
            heard.push(Heard { signed, from: peer, is_verified: false });
            return;
        }
        self.verify_statement(peer, signed);
    }

    fn verify_statement(&mut self, peer: Peer, signed: SignedStatement) {
        let Some(set) = self.speakers(signed.statement.height) else { return };
        // Whoever is no speaker was left out before.
        if let Ok(claim) = signed.claim(&self.chain_id, &self.config.genesis_hash, set) {
            self.verify(claim.checks().to_vec(), Job::Statement { peer, claim });
        }
    }

    pub(crate) fn on_statement_verified(&mut self, peer: Peer, signed: Result<Verified<SignedStatement>, lockstep_types::vote::Rejected>) {
        match signed {
            Ok(signed) => self.on_true_statement(peer, signed),
            Err(error) => self.blame(peer, POINTS_LIE, format!("a statement: {error}")),
        }
    }

    fn on_true_statement(&mut self, peer: Peer, signed: Verified<SignedStatement>) {
        let height = signed.statement.height;
        let Some(said) = self.exchange.said.get_mut(&height) else { return };
        let was_disputed = said.is_disputed();
        let heard = said.heard.entry(signed.validator).or_default();
        // What was kept unread may have had any signature.
        heard.retain(|heard| heard.is_verified || heard.signed.statement != signed.statement);
        if heard.iter().any(|heard| heard.signed.statement == signed.statement)
            || heard.iter().filter(|heard| heard.is_verified).count() >= STATEMENTS_MAX
        {
            return;
        }
        heard.push(Heard { signed: signed.into_inner(), from: peer, is_verified: true });
        if !was_disputed && said.is_disputed() {
            // Now it matters who said what. What does not hold is forgotten with its height; its sender is not.
            let unread = said.heard.values().flatten().filter(|heard| !heard.is_verified);
            let unread: Vec<(Peer, SignedStatement)> = unread.map(|heard| (heard.from, heard.signed.clone())).collect();
            for (from, signed) in unread {
                self.verify_statement(from, signed);
            }
        }
        self.judge_statements(height);
    }

    /// What was read of a height, counted. Who said two things counts for either, and is `alone` with neither: what can still be said is
    /// asked of those who stand by one. What was not read counts for nothing.
    fn tally<'a>(&self, set: &ValidatorSet, said: &'a Said) -> BTreeMap<&'a Statement, Tally> {
        let mut by_statement = BTreeMap::<&Statement, Tally>::new();
        let mut count = |statement, address: Address, is_alone: bool| {
            let Some(validator) = set.index_of(&address).and_then(|index| set.get(index)) else { return };
            let power = validator.power.get();
            let tally = by_statement.entry(statement).or_default();
            tally.power = tally.power.saturating_add(power);
            tally.who.push(address);
            if is_alone {
                tally.alone = tally.alone.saturating_add(power);
            }
        };
        for (address, heard) in &said.heard {
            let read = || heard.iter().filter(|heard| heard.is_verified);
            read().for_each(|one| count(&one.signed.statement, *address, read().count() == 1));
        }
        if let Some(me) = self.signing.me() {
            count(&said.ours, me.address, true);
        }
        by_statement
    }

    /// Whether more than two thirds say what we do not have.
    fn judge_statements(&mut self, height: Height) {
        let (Some(set), Some(said)) = (self.speakers(height), self.exchange.said.get(&height)) else { return };
        let total = set.total_power();
        let believes = |power: u64| {
            let power = Power::new(power).unwrap_or(total).min(total);
            Quorum::Byzantine.is_quorum(power, total) || self.planted.has(Bug::OneStatementBelieved)
        };
        let tally = self.tally(set, said);
        if let Some((theirs, _)) = tally.iter().find(|(statement, tally)| ***statement != said.ours && believes(tally.power)) {
            let of_theirs = said.heard.values().flatten().filter(|heard| heard.is_verified && heard.signed.statement == **theirs);
            let proof = Proof::Statements(of_theirs.map(|heard| heard.signed.clone()).collect());
            let finding = Finding { ours: said.ours.clone(), proof };
            self.diverges(finding);
        }
    }

    /// From time to time: whether what we have after the newest height can still be that of more than two thirds, or anything else can. Where
    /// nothing can for [`HOPELESS_FOR`], there is no right state to go on from.
    pub(crate) fn judge_hope(&mut self, now: Now) {
        let height = self.chain.height;
        let Some(reason) = self.hopeless(height) else {
            self.exchange.hopeless_since = None;
            return;
        };
        match self.exchange.hopeless_since.filter(|(since_height, _)| *since_height == height) {
            None => self.exchange.hopeless_since = Some((height, now.mono)),
            Some((_, since)) if now.mono.since(since) >= HOPELESS_FOR => {
                self.doubts_state = true;
                self.halt(reason);
            }
            Some(_) => {}
        }
    }

    /// Why no statement of a height can come to more than two thirds, even if all who did not say one thing said the same.
    fn hopeless(&self, height: Height) -> Option<String> {
        let said = self.exchange.said.get(&height).filter(|said| said.is_disputed())?;
        let set = self.speakers(height)?;
        let total = set.total_power();
        let tally = self.tally(set, said);
        let settled = tally.values().fold(0u64, |sum, tally| sum.saturating_add(tally.alone));
        let missing = total.get().saturating_sub(settled);
        let best = tally.values().map(|tally| tally.alone).max().unwrap_or(0);
        let can_be = Power::new(best.saturating_add(missing)).unwrap_or(total).min(total);
        if Quorum::Byzantine.is_quorum(can_be, total) {
            return None;
        }
        let said: Vec<String> = tally.iter().map(|(statement, tally)| tally.in_words(statement)).collect();
        Some(format!(
            "FAIL: no state after height {height} can be that of more than two thirds of the power, which is {total}: {}; power {missing} has \
             not said or has said two things. The application or the machines compute different results from the same blocks, and nobody \
             can tell which are right. Nothing more is signed or answered from this state. Compare the nodes' programs and their data folders; \
             when the cause is found, start them again: each executes its log anew. {ASK_TO_QUIT}",
            said.join("; ")
        ))
    }
}

/// Who says a thing.
#[derive(Debug, Default)]
struct Tally {
    /// The power of all who say it.
    power: u64,
    /// Of those who say nothing else.
    alone: u64,
    who: Vec<Address>,
}

impl Tally {
    fn in_words(&self, statement: &Statement) -> String {
        let named: Vec<String> = self.who.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = self.who.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let Statement { root, results, rest, .. } = statement;
        format!("power {} says root {root}, results {results}, the rest {rest} ({}{more})", self.power, named.join(", "))
    }
}

/// For who is told of a signature that it asked for.
impl Replica {
    /// A statement was signed, if the job was that.
    pub(crate) fn take_statement(&mut self, id: JobId) -> Option<Statement> {
        match self.jobs.get(&id) {
            Some(Job::SignStatement { .. }) => match self.jobs.remove(&id) {
                Some(Job::SignStatement { statement }) => Some(statement),
                _ => None,
            },
            _ => None,
        }
    }
}
