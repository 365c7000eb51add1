//! State sync, beside consensus: what [`lockstep_sync::state`] asks for is asked of peers and of the disk, and what it needs
//! checked is checked. There is no mode here either: consensus and block sync go on with what they have, and the vote guard is
//! theirs alone. What is gathered lies in a folder of its own ([`Staging`]) until it is whole; then this replica stops
//! ([`Effect::Reopen`]), what is there is marked, and the next start of the same home, in the same process, begins with the snapshot (`install`).
//! A replica that passed the snapshot by blocks meanwhile does not stop, and what it gathered is never marked: no start may go back behind what
//! this node has told.
//!
//! It begins in two cases:
//!
//! - the operator named a root of trust and the node has no block yet ([`Policy::root`]); block sync then waits for it to end;
//! - peers that are ahead have pruned the block that comes next here, and nobody sends it: at once where all of them say so, and after
//!   a while where some claim to have it, which costs a liar nothing. What this node certified itself is the root; where that is too
//!   old to prove anything, the header that the operator named is, if it lies above what is here; or one that this node certified before it
//!   lost its log ([`KeptRoot`]).
//!
//! A node of which most peers say that they are ahead and have pruned its next block is not in step, and says so at once ([`Report::CatchingUp`]), though no block
//! above its own is proven to it and it seeks no snapshot yet.

pub(crate) mod files;
mod install;
mod staging;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lockstep_sync::state::{
    Backfill, Check, Clock, Question as Asks, Root, StateAnswer, StateEffect, StateInput, StateOptions, StateSync, Told,
};
use lockstep_types::Height;
use lockstep_types::light::{Options, Trusted};

pub(crate) use self::install::{Begun, chain_after, forget_passed, install};
pub use self::install::{Installed, PASSED_PATH, rehearse};
pub use self::staging::{Found, STAGING_PATH, Staging, Task};

use crate::catch_up::millis;
use crate::jobs::Job;
use crate::light_store::Root as KeptRoot;
use crate::replica::{POINTS_LIE, Replica};
use crate::seam::{Effect, JobId, Mono, Now, Peer, Report, Timer};
use crate::wire::{Answer, Question, Status};

/// How long every peer that is ahead must say that it pruned what we need, before a snapshot is sought. What one peer has just
/// said of itself another may be about to correct. Where the operator named a header above our blocks nothing is waited for: peers may prune that
/// one, too, and blocks that come after all end the search.
const PRUNED_FOR: Duration = Duration::from_secs(5);

/// How long the block that comes next may be claimed by some, said to be pruned by others, and sent by nobody, before a snapshot is
/// sought. Block sync has then asked those who claim it, and each of them again: it waits 2 seconds for one that is new, and 16 at most.
const CLAIMED_FOR: Duration = Duration::from_secs(60);

/// How many blocks a second end such a wait, where most peers are ahead: who is given fewer falls further behind any chain in use. One at
/// a time, just before each wait is over, would be a way to keep a node behind for ever without lying.
const PACE: u64 = 1;

/// How far the chain's clock may be ahead of ours.
const CLOCK_DRIFT: Duration = Duration::from_secs(10);

/// When, and from where, a node syncs state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// What the operator trusts: a node without blocks begins with a snapshot that this leads to, and fetches blocks from the
    /// first one on where there is none. A node with blocks fetches those that follow, and goes from here only where nobody has the
    /// next one any more and its own last header is too old to be trusted.
    pub root: Option<(Height, lockstep_types::Hash)>,
}

/// Where it stands.
#[derive(Debug, Default)]
enum Stage {
    /// There is no need of it.
    #[default]
    Idle,
    /// The disk is asked what an earlier run left.
    Looking(Box<StateOptions>),
    Running(Box<StateSync>),
    /// It does not begin again before the next start: what it was given is installed then, or nothing can be trusted.
    Over,
}

/// State sync and what belongs to it.
#[derive(Debug, Default)]
pub(crate) struct Syncing {
    policy: Policy,
    stage: Stage,
    /// It began before block sync, which waits for it to end.
    goes_first: bool,
    /// What this node certified itself did not lead to a snapshot, being too old.
    own_is_too_old: bool,
    /// What connected peers say that they have.
    claims: BTreeMap<Peer, Status>,
    /// The block that came next here when somebody ahead began to say that it is pruned, and since when nothing ended that wait.
    pruned_since: Option<(Height, Mono)>,
    /// The earliest tick that is set.
    timer: Option<Mono>,
    /// What this node certified, and lost.
    kept: Vec<KeptRoot>,
}

impl Syncing {
    /// With roots that a start found.
    pub(crate) fn new(kept: Vec<KeptRoot>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Whether block sync waits for it to end.
    pub(crate) const fn goes_first(&self) -> bool {
        matches!(self.stage, Stage::Looking(_) | Stage::Running(_)) && self.goes_first
    }
}

impl Replica {
    /// State sync goes by this policy. To be said before the start.
    pub fn set_state_sync(&mut self, policy: Policy) {
        self.syncing.policy = policy;
    }

    /// Whether it is to be opened anew, from what state sync left on the disk.
    pub const fn reopens(&self) -> bool {
        self.reopens
    }

    /// At the start.
    pub(crate) fn begin_state_sync(&mut self) {
        if let Some(root) = self.named_root() {
            self.syncing.goes_first = true;
            self.look_before_sync(root);
            self.report_behind();
        }
    }

    /// What the operator trusts, where the node has no block yet.
    fn named_root(&self) -> Option<Root> {
        let (height, hash) = self.syncing.policy.root.filter(|_| self.chain.last_block_id.is_none())?;
        Some(Root::Named { height, hash })
    }

    /// The header that the operator named, for a node whose own blocks end below it.
    fn root_above(&self) -> Option<Root> {
        let (height, hash) = self.syncing.policy.root.filter(|(height, _)| *height > self.chain.height)?;
        Some(Root::Named { height, hash })
    }

    /// The lowest header above its own blocks that this node certified before it lost them, and that can be trusted still: the lower, the
    /// more snapshots lie above it.
    fn root_kept(&self, now: Now) -> Option<Root> {
        let is_new = |root: &&KeptRoot| root.time.saturating_add(self.trusting_period()) > now.wall;
        let above = self.syncing.kept.iter().filter(|root| root.height > self.chain.height);
        let lowest = above.filter(is_new).min_by_key(|root| root.height)?;
        Some(Root::Named { height: lowest.height, hash: lowest.hash })
    }

    /// Where a node begins whose next block nobody has any more. What it verified itself says more than anybody's word, as long as
    /// it proves something.
    fn root_of_a_gap(&mut self, now: Now) -> Root {
        let chain = &self.chain;
        let is_old = self.syncing.own_is_too_old || chain.last_time.saturating_add(self.trusting_period()) <= now.wall;
        self.syncing.own_is_too_old = is_old;
        let own = || Trusted {
            chain_id: chain.chain_id.clone(),
            height: chain.height,
            time: chain.last_time,
            next_validators: (*chain.validators).clone(),
        };
        let other = || self.root_above().or_else(|| self.root_kept(now)).filter(|_| is_old);
        self.named_root().or_else(other).unwrap_or_else(|| Root::Own(own()))
    }

    /// Below the evidence window, as light clients have it: who signs another history can still be held to account.
    fn trusting_period(&self) -> Duration {
        Duration::from_nanos(self.chain.params.evidence.max_age_duration_ns) / 3 * 2
    }

    fn look_before_sync(&mut self, root: Root) {
        let period = Duration::from_nanos(self.chain.params.evidence.max_age_duration_ns);
        let options = StateOptions {
            root,
            light: Options { trusting_period: self.trusting_period(), clock_drift: CLOCK_DRIFT, trust_level: (1, 3) },
            tip: self.chain.height,
            initial: self.chain.initial_height,
            backfill: Backfill { blocks: self.names, age: period, heights: self.chain.params.evidence.max_age_num_blocks },
        };
        self.syncing.stage = Stage::Looking(Box::new(options));
        let job = self.fx.job();
        self.jobs.insert(job, Job::Stage { ticket: None });
        self.fx.push(Effect::Stage { job, task: Task::Look });
    }

    /// A peer says of itself what it has.
    pub(crate) fn on_claim(&mut self, now: Now, peer: Peer, status: Status) {
        if self.peers.heard(peer).is_some() {
            self.syncing.claims.insert(peer, status);
            let Status { base, tip } = status;
            self.sync_state(now, StateInput::PeerStatus { peer: peer.0, base, tip });
            self.notice_pruned(now);
        }
        self.on_status(now, peer, status);
        self.report_behind();
    }

    /// The lowest block that a peer says to have; the first one where it said nothing so far.
    pub(crate) fn said_base(&self, peer: Peer) -> Height {
        self.syncing.claims.get(&peer).map_or(Height::FIRST, |claim| claim.base)
    }

    pub(crate) fn state_peer_gone(&mut self, now: Now, peer: Peer) {
        self.syncing.claims.remove(&peer);
        self.sync_state(now, StateInput::PeerGone { peer: peer.0 });
        self.notice_pruned(now);
        self.report_behind();
    }

    /// Whether what this node lacks does not come as blocks: it begins with a snapshot, or most of its peers say that they are ahead and have
    /// pruned its next block. What they say is no proof, so a few of them must not be able to make a node look behind that is not: whoever is
    /// connected and says nothing counts, too.
    pub(crate) fn is_cut_off(&self) -> bool {
        let next = self.height();
        let pruned = self.syncing.claims.values().filter(|claim| claim.tip > next && claim.base > next).count();
        self.syncing.goes_first() || 2 * pruned > self.peers.len()
    }

    /// Whether peers have said what they have, and most of these are not ahead. Who was quick to lie is outvoted as soon as the others speak.
    pub(crate) fn seems_in_step(&self) -> bool {
        let next = self.height();
        let ahead = self.syncing.claims.values().filter(|claim| claim.tip > next).count();
        !self.syncing.claims.is_empty() && 2 * ahead <= self.syncing.claims.len()
    }

    /// Seeks a snapshot when the block that comes next here has not come for too long though somebody is ahead, who says to have pruned
    /// it. That they say so is a reason to ask, and what comes of it is proven; that others claim to have it is none not to.
    fn notice_pruned(&mut self, now: Now) {
        let next = self.height();
        let waits = self.pruned_wait();
        if let Stage::Running(machine) = &self.syncing.stage
            && !self.syncing.goes_first
        {
            // Blocks came after all.
            let came = self.syncing.pruned_since.is_none_or(|(missing, _)| self.comes_on(missing, waits.unwrap_or_default()));
            let goal = machine.goal();
            let is_needless = goal.map_or(came || waits.is_none(), |goal| goal <= self.chain.height);
            if is_needless {
                self.end_sync_for_blocks(now, goal);
            }
        }
        if !matches!(self.syncing.stage, Stage::Idle) {
            return;
        }
        let Some(wait) = waits else {
            self.syncing.pruned_since = None;
            return;
        };
        let since = match self.syncing.pruned_since {
            Some((missing, since)) if !self.comes_on(missing, wait) => (missing, since),
            _ => (next, now.mono),
        };
        self.syncing.pruned_since = Some(since);
        let due = since.1.after(wait);
        if now.mono < due {
            self.set_state_timer(now, due);
            return;
        }
        let bases = self.syncing.claims.values().map(|claim| claim.base);
        let earliest = bases.filter(|base| *base > next).min().unwrap_or(next);
        self.fx.report(Report::Note(format!(
            "this node needs block {next}, and no peer sends it, or those after it come one by one: pruned, earliest is {earliest}. A snapshot \
             is sought instead"
        )));
        let root = self.root_of_a_gap(now);
        self.look_before_sync(root);
    }

    /// How long to wait for the block that comes next here, where somebody ahead says to have pruned it; nothing where nobody does.
    fn pruned_wait(&self) -> Option<Duration> {
        let next = self.height();
        let ahead = || self.syncing.claims.values().filter(|claim| claim.tip > next);
        let pruned = ahead().filter(|claim| claim.base > next).count();
        match pruned {
            0 => None,
            all if all == ahead().count() => Some(if self.root_above().is_some() { Duration::ZERO } else { PRUNED_FOR }),
            _ => Some(CLAIMED_FOR),
        }
    }

    /// Whether enough blocks came, from this one on, to wait for the next for as long again. Of a node in step every block is enough: few
    /// peers, who say that they are ahead of everybody, make no node seek a snapshot whose chain takes its time.
    fn comes_on(&self, missing: Height, wait: Duration) -> bool {
        let enough = if self.seems_in_step() { 1 } else { (wait.as_secs() * PACE).max(1) };
        self.height().get().saturating_sub(missing.get()) >= enough
    }

    pub(crate) fn on_state_timer(&mut self, now: Now) {
        self.syncing.timer = None;
        self.notice_pruned(now);
        self.sync_state(now, StateInput::Tick);
        self.report_behind();
    }

    fn set_state_timer(&mut self, now: Now, at: Mono) {
        let at = at.max(now.mono);
        if self.syncing.timer.is_none_or(|set| at < set || set <= now.mono) {
            self.syncing.timer = Some(at);
            self.fx.push(Effect::SetTimer { at, timer: Timer::StateSync });
        }
    }

    fn sync_state(&mut self, now: Now, input: StateInput) {
        let Stage::Running(machine) = &mut self.syncing.stage else { return };
        let effects = machine.on(Clock { mono_ms: millis(now), wall: now.wall }, input);
        let wakeup = machine.wakeup_ms();
        for effect in effects {
            self.perform_sync(now, effect);
        }
        if let Some(at) = wakeup {
            self.set_state_timer(now, Mono(at.saturating_mul(1_000_000)));
        }
    }

    fn perform_sync(&mut self, now: Now, effect: StateEffect) {
        match effect {
            StateEffect::Ask { peer, id, question } => {
                let job = self.fx.job();
                self.jobs.insert(job, Job::AskState { peer: Peer(peer), request: id });
                self.fx.push(Effect::Request { job, peer: Peer(peer), bytes: on_the_wire(question).encode() });
            }
            StateEffect::Verify { ticket, checks } => self.verify(checks, Job::StateHeader { ticket }),
            StateEffect::Check { ticket, check } => {
                let job = self.fx.job();
                self.jobs.insert(job, Job::Stage { ticket: Some(ticket) });
                self.fx.push(Effect::Stage { job, task: Task::Check(check) });
            }
            StateEffect::Blame { peer, reason } => {
                self.blame(Peer(peer), POINTS_LIE, format!("state sync: {reason}"));
                self.expel(Peer(peer), format!("state sync: {reason}"));
            }
            StateEffect::Tell(told) => self.on_told(now, told),
            StateEffect::Install { height } if height <= self.chain.height => self.end_sync_for_blocks(now, Some(height)),
            StateEffect::Install { height } => {
                self.syncing.stage = Stage::Over;
                self.reopens = true;
                self.fx.push(Effect::Reopen { height });
            }
        }
    }

    /// Blocks came faster than the snapshot of this height, or than any was found.
    fn end_sync_for_blocks(&mut self, now: Now, goal: Option<Height>) {
        let (tip, which) =
            (self.chain.height, goal.map_or_else(|| "any snapshot".to_owned(), |goal| format!("the snapshot of height {goal}")));
        let reason = format!("blocks up to height {tip} were here before {which}");
        self.fx.report(Report::StateSync(Told::FallsBack { reason }));
        self.end_sync(now, Stage::Idle);
    }

    /// Who gathers is told, so that it keeps neither a copy of a state that is not needed nor a version of this node's own; and block sync, which
    /// may have waited, goes on.
    fn end_sync(&mut self, now: Now, stage: Stage) {
        self.syncing.stage = stage;
        self.syncing.goes_first = false;
        let job = self.fx.job();
        self.jobs.insert(job, Job::Stage { ticket: None });
        self.fx.push(Effect::Stage { job, task: Task::End { tip: self.chain.height } });
        let claims: Vec<(Peer, Status)> = self.syncing.claims.iter().map(|(peer, status)| (*peer, *status)).collect();
        for (peer, status) in claims {
            self.on_status(now, peer, status);
        }
    }

    fn on_told(&mut self, now: Now, told: Told) {
        let stage = match &told {
            // The operator's word is left.
            Told::Fails { .. }
                if !self.syncing.own_is_too_old
                    && self.named_root().is_none()
                    && self.root_above().or_else(|| self.root_kept(now)).is_some() =>
            {
                self.syncing.own_is_too_old = true;
                Stage::Idle
            }
            Told::Fails { .. } => Stage::Over,
            // Somebody claims to have all blocks. If they do not come, it begins again.
            Told::FallsBack { .. } => Stage::Idle,
            _ => return self.fx.report(Report::StateSync(told)),
        };
        let halts = if let Told::Fails { reason } = &told { self.named_root().map(|_| reason.clone()) } else { None };
        self.fx.report(Report::StateSync(told));
        if let Some(reason) = halts {
            self.halt(reason);
            return;
        }
        self.syncing.pruned_since = None;
        self.end_sync(now, stage);
        self.notice_pruned(now);
        self.report_behind();
    }

    /// The staging folder answers.
    pub(crate) fn on_staged(&mut self, now: Now, id: JobId, found: Found) {
        let Some(Job::Stage { ticket }) = self.jobs.remove(&id) else { return };
        match (ticket, found) {
            (Some(ticket), Found::Checked(found)) => self.sync_state(now, StateInput::Checked { ticket, found }),
            (None, Found::Looked(preferred)) => {
                let Stage::Looking(options) = std::mem::take(&mut self.syncing.stage) else { return };
                let clock = Clock { mono_ms: millis(now), wall: now.wall };
                self.syncing.stage = Stage::Running(Box::new(StateSync::new(*options, preferred, clock)));
                let claims: Vec<(Peer, Status)> = self.syncing.claims.iter().map(|(peer, status)| (*peer, *status)).collect();
                for (peer, Status { base, tip }) in claims {
                    self.sync_state(now, StateInput::PeerStatus { peer: peer.0, base, tip });
                }
                self.sync_state(now, StateInput::Tick);
            }
            _ => {}
        }
    }

    /// Signatures under a header were checked.
    pub(crate) fn on_header_verified(&mut self, now: Now, ticket: u64, verdicts: &[bool]) {
        self.sync_state(now, StateInput::Verified { ticket, verdicts: verdicts.to_vec() });
    }

    /// A peer answered, or did not.
    pub(crate) fn on_state_answer(&mut self, now: Now, peer: Peer, request: u64, answer: Option<Answer>) {
        let bytes = |bytes: &bytes::Bytes| Arc::from(&bytes[..]);
        let answer = match answer {
            Some(Answer::Snapshots(heights)) => StateAnswer::Offers(heights),
            Some(Answer::Light(blocks)) => StateAnswer::Light(blocks),
            Some(Answer::Manifest(manifest)) => StateAnswer::Manifest(bytes(&manifest)),
            Some(Answer::Chunk(chunk)) => StateAnswer::Chunk(bytes(&chunk)),
            Some(Answer::Difference(difference)) => {
                StateAnswer::Difference(borsh::to_vec(&difference).expect("writing to memory does not fail").into())
            }
            Some(Answer::Parts(parts)) => StateAnswer::Parts(parts),
            Some(_) => StateAnswer::Nothing,
            None => StateAnswer::Lost,
        };
        self.sync_state(now, StateInput::Response { peer: peer.0, id: request, answer });
    }
}

fn on_the_wire(question: Asks) -> Question {
    match question {
        Asks::Offers => Question::Snapshots,
        Asks::Light { from, count } => Question::Light { from, count },
        Asks::Manifest { height } => Question::Manifest { height },
        Asks::Chunk { height, root, known } => Question::Chunk { height, root, outline: borsh::from_slice(&known).ok() },
        Asks::Parts { height, block_id, from, count } => Question::Parts { height, block_id, from, count },
    }
}

/// What a task is, for a line of a trace.
impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Look => f.write_str("look"),
            Self::End { tip } => write!(f, "end at height {tip}"),
            Self::Check(Check::Manifest { .. }) => f.write_str("manifest"),
            Self::Check(Check::Chunk { index, .. }) => write!(f, "chunk {index}"),
            Self::Check(Check::Body(_)) => f.write_str("body"),
            Self::Check(Check::Headers(blocks)) => write!(f, "{} headers", blocks.len()),
            Self::Check(Check::Block { block, body }) => {
                write!(f, "block {}{}", block.header.height, if body.is_some() { "" } else { ", if it is here" })
            }
            Self::Check(Check::Complete) => f.write_str("complete"),
        }
    }
}
