//! The replica: one loop body, `step(Now, Input) -> Effects`.
//!
//! It composes what stands beside each other below it: consensus decides, the pool offers, sync fetches, the application
//! executes (elsewhere), storage remembers (elsewhere). What belongs to one height lives in `height`, what is
//! signed in [`crate::signing`], what peers lack in [`crate::gossip`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use lockstep_consensus::Consensus;
use lockstep_types::planted::{self, Bug};
use lockstep_types::vote::{Claim, Verified};
use lockstep_types::{Block, BlockId, ChainId, Commit, Hash, Height, Proposal, Round, Time, Vote};

use crate::audit::Exchange;
use crate::bodies::Bodies;
use crate::catch_up::CatchUp;
use crate::chain::ChainState;
use crate::effects::Effects;
use crate::evidence::kept::Kept;
use crate::evidence::pool::EvidencePool;
use crate::jobs::{Job, Jobs};
use crate::peers::Peers;
use crate::pool::Pool;
use crate::seam::{Effect, Input, JobId, Mono, Now, Peer, Report, Ticket, Timer};
use crate::serving::Serving;
use crate::shares::Shares;
use crate::signing::{GuardView, Me, Signing};
use crate::wire::{FRAME_BYTES_MAX, Message, Status};

/// Signatures being verified. A message that comes when there are as many is dropped and comes again with the next exchange;
/// one of many signatures, as a certificate is, may go beyond.
const VERIFYING_MAX: usize = 8_192;
/// Of these, those of one peer's messages: eight that flood leave room for the others, and two that do not hold end a
/// connection. A correct peer sends a few dozen at a time.
const VERIFYING_PEER_MAX: usize = VERIFYING_MAX / 8;
/// Bytes of messages of the next height kept until it begins. Peers share them equally: among 256, more than a node connects
/// to, each has room for a proposal with its first part and for several hundred votes; what one passes on beyond that comes
/// again when it is missed.
const EARLY_BYTES_MAX: usize = 256 * (FRAME_BYTES_MAX + 128 * 1024);
/// What a message counts for beside the bytes it came in: places in lists, numbers wider than on the wire.
const EARLY_MESSAGE_BYTES: usize = 256;
/// How bad a message is that no correct peer sends, in points of the shell's score.
pub(crate) const POINTS_LIE: u32 = 50;
/// How bad bytes are that are no message.
pub(crate) const POINTS_GARBAGE: u32 = 100;
/// A connection ends at this many points for what no correct peer sends: at once for bytes that mean nothing, at the second
/// signature, part, certificate or block that does not hold. One is tolerated: it costs a verification and no more, and a
/// mistake of ours should not cost us the peer. They do not fade here; across connections the shell's score counts, which does.
const MISDEEDS_MAX: u32 = 100;
const _: () = assert!(POINTS_LIE < MISDEEDS_MAX && 2 * POINTS_LIE >= MISDEEDS_MAX && POINTS_GARBAGE >= MISDEEDS_MAX);

/// What a replica is made from.
#[derive(Debug)]
pub struct Config {
    /// Hash of the genesis that the chain began with.
    pub genesis_hash: Hash,
    /// The validator key, if there is one.
    pub me: Option<Me>,
    /// Whether this validator stops signing when it sees a message by its key that it did not sign. A node does; only the simulator's
    /// twins may go on.
    pub watches_key: bool,
    /// Bounds of the pool.
    pub mempool: lockstep_mempool::Limits,
    /// Keys that may change before they are written to the database: the measure of a restart's replay.
    pub flush_keys: u64,
    /// Blocks after which the database is written whatever changed.
    pub flush_blocks: u64,
    /// Planted bugs, to prove that the simulator sees. Without the feature there are none to plant.
    pub planted: crate::planted::Planted,
}

/// What a restart found on disk, after the log was executed ([`crate::recovery`]).
#[derive(Debug)]
pub struct Restored {
    /// The chain after the last decided block.
    pub chain: Arc<ChainState>,
    /// First block kept.
    pub base: Height,
    /// The height that the database holds.
    pub flushed: Height,
    /// The decision of the last block.
    pub last_commit: Option<Commit>,
    /// The last block and its body, for peers who lack it.
    pub last_body: Option<(BlockId, Bytes)>,
    /// Bodies of the next height that are on disk.
    pub bodies: Vec<(BlockId, Bytes)>,
    /// The vote guard.
    pub guard: GuardView,
    /// Evidence that is on disk.
    pub evidence: Vec<Kept>,
    /// Blocks that this node certified, from a log that it lost.
    pub roots: Vec<crate::light_store::Root>,
    /// Names of how many blocks the chain's rules look back to ([`lockstep_app::membership::names_kept`]): a snapshot is of no use
    /// without them.
    pub names: u64,
    /// Heights at which the state diverged from the chain's before ([`crate::audit`]).
    pub diverged: BTreeSet<Height>,
    /// Why the state is not to be trusted, although it was made again; the replica halts at once then.
    pub doubt: Option<String>,
}

impl Restored {
    /// Whether this validator precommitted a block above the log whose body is not on the disk any more. It was there before the precommit
    /// was signed, and the disk has damaged it since. Others who have it hand it on; an only validator goes on without it in no round.
    pub fn lacks_what_it_locked(&self) -> bool {
        let newest = self.guard.records.last().filter(|newest| newest.message.height() == self.chain.height.next());
        let locked = newest.and_then(|newest| newest.lock.as_ref());
        locked.is_some_and(|polka| !self.bodies.iter().any(|(held, _)| *held == polka.block_id))
    }
}

/// What own messages wait for after a start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OwnWait {
    /// Nothing.
    #[default]
    Over,
    /// Every validator's answer, or the timer.
    Timed,
    /// The timer has fired, and nobody has answered: whoever does.
    AnyAnswer,
}

/// A verified proposal that waits for its body.
#[derive(Debug, Clone)]
pub(crate) struct HeldProposal {
    pub proposal: Verified<Proposal>,
    pub received: Time,
    pub delivered: bool,
}

/// A decision on its way: durable, executed, done.
#[derive(Debug)]
pub(crate) struct Deciding {
    pub block_id: BlockId,
    pub block: Arc<Block>,
    pub body: Bytes,
    pub commit: Arc<Verified<Commit>>,
    pub ticket: Ticket,
    /// Its write is done.
    pub is_durable: bool,
    /// Where the decision was made, for the pace.
    pub at: Mono,
}

/// The last decision, which peers who missed it and the next block need.
#[derive(Debug, Clone)]
pub(crate) struct Last {
    pub commit: Commit,
    pub block_id: BlockId,
    pub body: Bytes,
    /// The write of it.
    pub ticket: Option<Ticket>,
}

/// The replica.
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) chain_id: ChainId,
    /// The chain after the last executed block.
    pub(crate) chain: Arc<ChainState>,
    pub(crate) consensus: Consensus,
    pub(crate) signing: Signing,
    pub(crate) bodies: Bodies,
    /// By round, at most two.
    pub(crate) proposals: BTreeMap<Round, Vec<HeldProposal>>,
    pub(crate) deciding: Option<Deciding>,
    pub(crate) last: Option<Last>,
    /// A certificate of the height that is being decided, whose body we lack.
    pub(crate) certificate: Option<Arc<Verified<Commit>>>,
    /// Messages of the next height, each with the length it came in.
    pub(crate) early: Shares<(Message, usize)>,
    pub(crate) peers: Peers,
    pub(crate) pool: Pool,
    pub(crate) catch_up: CatchUp,
    pub(crate) syncing: crate::state_sync::Syncing,
    /// Whether the home is to be opened anew.
    pub(crate) reopens: bool,
    pub(crate) serving: Serving,
    pub(crate) jobs: Jobs,
    /// Votes whose signatures are being checked, so that one vote from many peers is checked once.
    pub(crate) verifying: BTreeSet<Vote>,
    /// Signature checks in flight. Counted apart from the other jobs: the checks of many clients' transactions leave votes
    /// their room.
    pub(crate) checks_out: usize,
    /// Of those, each peer's.
    pub(crate) checks_of: BTreeMap<Peer, usize>,
    pub(crate) fx: Effects,
    /// Own decision of the height before, or the start.
    pub(crate) decided_at: Mono,
    /// Whether this height's round 0 began.
    pub(crate) ready: bool,
    /// The earliest pace timer that is set.
    pub(crate) pace_timer: Option<Mono>,
    /// A block that waits for the clock.
    pub(crate) waiting_build: Option<(Height, Round, Mono)>,
    /// Addresses whose last round-0 slot went to somebody else.
    pub(crate) missed: BTreeSet<lockstep_types::Address>,
    /// Until it is over, own messages wait: peers are asked which they know.
    pub(crate) own_wait: OwnWait,
    /// Casts that wait for it.
    pub(crate) held_casts: Vec<crate::casting::Cast>,
    /// The round of our lock, and the write of its polka to the log.
    pub(crate) kept_lock: Option<(Round, Ticket)>,
    /// That write for the last lock that another one, or none, came after.
    pub(crate) superseded_lock: Option<Ticket>,
    pub(crate) gossip: crate::gossip::GossipState,
    pub(crate) evidence: EvidencePool,
    /// Heights at which certificates conflict.
    pub(crate) forks: crate::evidence::Forks,
    /// When peers were last told again of evidence that waits.
    pub(crate) evidence_told_at: Mono,
    pub(crate) tx_timer: bool,
    pub(crate) flushed: Height,
    /// See [`Restored::names`].
    pub(crate) names: u64,
    pub(crate) flushing: Option<Height>,
    /// What makes the last block that was executed durable; none where it was when this life began.
    pub(crate) last_decision: Option<Ticket>,
    /// The newest blocks, upwards and without a hole, whose decisions are not durable yet: nobody can read them back.
    pub(crate) undurable: VecDeque<Last>,
    pub(crate) base: Height,
    pub(crate) halted: Option<String>,
    /// Heights at which the state diverged in earlier lives of this home.
    pub(crate) diverged: BTreeSet<Height>,
    /// Why the state that was found on disk is not to be trusted.
    pub(crate) doubt: Option<String>,
    /// It halted for that, or for what comes to the same.
    pub(crate) doubts_state: bool,
    pub(crate) exchange: Exchange,
    /// When each timeout of this height is due: one that is scheduled again replaces the first.
    pub(crate) timers: BTreeMap<lockstep_consensus::Timeout, Mono>,
    pub(crate) planted: crate::planted::Planted,
}

impl Replica {
    /// A replica that goes on from what was found on disk. [`Replica::start`] makes it move.
    pub fn new(config: Config, restored: Restored) -> Self {
        let chain = restored.chain;
        let mut bodies = Bodies::default();
        // There may be more on disk than are held. What a lock names is never the one to go: after a crash of all, nobody
        // else may have it either.
        let polkas = restored.guard.records.iter().flat_map(|record| record.lock.iter().chain(&record.valid));
        let locked: BTreeSet<BlockId> = polkas.map(|polka| polka.block_id).collect();
        for (block_id, body) in restored.bodies.into_iter().filter(|_| !config.planted.has(crate::planted::Bug::BodiesForgotten)) {
            bodies.name(block_id, Round::ZERO, locked.contains(&block_id));
            bodies.put(block_id, Round::ZERO, body, None);
            bodies.get_mut(&block_id).expect("just put").durable = true;
        }
        let last =
            restored.last_commit.zip(restored.last_body).map(|(commit, (block_id, body))| Last { commit, block_id, body, ticket: None });
        let planted = config.planted;
        #[cfg(feature = "planted")]
        let consensus = Consensus::with_planted(planted.consensus);
        #[cfg(not(feature = "planted"))]
        let consensus = Consensus::new();
        let mut guard = restored.guard;
        if planted.has(crate::planted::Bug::OlderRecord) {
            guard.records.truncate(1);
        }
        Self {
            chain_id: chain.chain_id.clone(),
            consensus,
            signing: Signing::new(config.me.clone(), guard),
            bodies,
            proposals: BTreeMap::new(),
            deciding: None,
            last,
            certificate: None,
            early: Shares::new(EARLY_BYTES_MAX),
            peers: Peers::default(),
            pool: Pool::new(config.mempool.clone()),
            catch_up: CatchUp::new(chain.height),
            syncing: crate::state_sync::Syncing::new(restored.roots),
            reopens: false,
            serving: Serving::default(),
            jobs: Jobs::default(),
            verifying: BTreeSet::new(),
            checks_out: 0,
            checks_of: BTreeMap::new(),
            fx: Effects::default(),
            decided_at: Mono(0),
            ready: false,
            pace_timer: None,
            waiting_build: None,
            missed: BTreeSet::new(),
            own_wait: OwnWait::Over,
            held_casts: Vec::new(),
            kept_lock: None,
            superseded_lock: None,
            gossip: crate::gossip::GossipState::default(),
            evidence: EvidencePool::new(restored.evidence),
            forks: crate::evidence::Forks::default(),
            evidence_told_at: Mono(0),
            tx_timer: false,
            flushed: restored.flushed,
            flushing: None,
            last_decision: None,
            undurable: VecDeque::new(),
            base: restored.base,
            names: restored.names,
            halted: None,
            diverged: restored.diverged,
            doubt: restored.doubt,
            doubts_state: false,
            exchange: Exchange::default(),
            timers: BTreeMap::new(),
            planted,
            chain,
            config,
        }
    }

    /// The first step: begins the height after the last one on disk, and says again what was said before the restart.
    pub fn start(&mut self, now: Now) -> Vec<Effect> {
        self.decided_at = now.mono;
        if self.halts_in_doubt() {
            return self.fx.take();
        }
        if self.planted.has(crate::planted::Bug::HealedStaysSilent) && !self.diverged.is_empty() {
            self.signing.stop("planted".to_owned());
        }
        if self.signing.is_unreadable() {
            let note = "the vote guard is not readable: this validator signs nothing until it has seen the others decide a height, and then only above it";
            self.fx.report(Report::Note(note.into()));
        }
        self.pool.set_block_bounds(&self.chain, &mut self.fx);
        self.begin_own_wait(now);
        self.begin_state_sync();
        self.begin_height(now);
        self.judge_kept();
        self.set_gossip_timer(now);
        self.fx.take()
    }

    /// One step. Never blocks, never fails: what is wrong with an input is an effect.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if self.halted.is_none() && !self.reopens {
            self.dispatch(now, input);
        }
        self.fx.take()
    }

    fn dispatch(&mut self, now: Now, input: Input) {
        match input {
            Input::PeerUp { peer, validator } => self.on_peer_up(now, peer, validator),
            Input::PeerDown { peer } => self.on_peer_down(now, peer),
            // What was on its way when its sender was thrown out is not read.
            Input::Received { peer, .. } | Input::Gossiped { peer, .. } if self.peers.heard(peer).is_none() => {}
            Input::Received { peer, bytes } => match Message::decode(&bytes) {
                Ok(message) => self.on_message(now, peer, message, bytes.len()),
                Err(error) => self.blame(peer, POINTS_GARBAGE, format!("a frame that is no message: {error}")),
            },
            Input::Gossiped { peer, bytes } => match Message::decode_gossip(&bytes) {
                Ok(message) => self.on_message(now, peer, message, bytes.len()),
                Err(error) => self.blame(peer, POINTS_GARBAGE, format!("a gossip that is no batch: {error}")),
            },
            Input::Asked { peer, ask, bytes } => self.on_question(now, peer, ask, &bytes),
            Input::Response { job, bytes } => self.on_response(now, job, bytes),
            Input::Submit { request, tx, wait } => {
                if let Some(check) = self.pool.submit(request, tx, wait, &mut self.fx) {
                    self.check_txs(vec![check], false);
                }
            }
            Input::Abandoned { request } => self.pool.abandon(request),
            Input::Verified { job, verdicts } => self.on_verified(now, job, &verdicts),
            Input::Signed { job, signature } => self.on_signed(now, job, signature),
            Input::Durable { ticket } => self.on_durable(now, ticket),
            Input::ReadDone { job, answer } => self.on_read(now, job, answer),
            Input::Built { job, built } => self.on_built(now, job, *built),
            Input::Checked { job, verdict } => self.on_checked(now, job, verdict),
            Input::TxsChecked { job, verdicts } => self.on_txs_checked(now, job, &verdicts),
            Input::Executed { job, outcome } => self.on_executed(now, job, outcome),
            Input::Judged { job, evidence, verdict } => self.on_judged(now, job, *evidence, verdict),
            Input::SubmitEvidence { request, evidence } => self.on_submitted_evidence(request, *evidence),
            Input::Flushed { height } => self.on_flushed(height),
            Input::Pruned { base } if !planted::has(Bug::PrunedUntold) => self.base = self.base.max(base),
            Input::Pruned { .. } => {}
            Input::Staged { job, found } => self.on_staged(now, job, found),
            Input::TimedOut(timer) => self.on_timer(now, timer),
            Input::DiskFailed { reason } => self.halt(format!(
                "the disk failed: {reason}. What was said to be written may not be, so this node stops; check the disk, then start it again"
            )),
        }
    }

    /// Stops for good: nothing is signed or sent after this.
    pub(crate) fn halt(&mut self, reason: String) {
        self.signing.stop(reason.clone());
        self.halted = Some(reason.clone());
        self.fx.push(Effect::Halt { reason });
    }

    /// A peer sent what no correct peer sends.
    pub(crate) fn blame(&mut self, peer: Peer, points: u32, reason: String) {
        let state = self.peers.get_mut(peer);
        if state.as_ref().is_some_and(|state| state.expelled) {
            return; // What was being verified when it was thrown out costs it no more than that.
        }
        let misdeeds = state.map_or(0, |state| {
            state.misdeeds = state.misdeeds.saturating_add(points);
            state.misdeeds
        });
        self.fx.report(Report::Refused { peer, points, reason: reason.clone() });
        if misdeeds >= MISDEEDS_MAX {
            self.expel(peer, reason);
        }
    }

    /// Ends the connection to a peer, once.
    pub(crate) fn expel(&mut self, peer: Peer, reason: String) {
        if let Some(state) = self.peers.heard(peer) {
            state.expelled = true;
            self.fx.push(Effect::Disconnect { peer, reason });
        }
    }

    /// The height that is being decided.
    pub fn height(&self) -> Height {
        self.chain.next_height()
    }

    /// The chain after the last executed block.
    pub fn chain(&self) -> &Arc<ChainState> {
        &self.chain
    }

    /// Why the replica stopped, if it did.
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Why it signs nothing, if so.
    pub fn silent(&self) -> Option<&str> {
        self.signing.stopped()
    }

    /// Whether it has just started, and signs nothing before its peers said what they know of its key.
    pub fn waits_for_own(&self) -> bool {
        self.own_wait != OwnWait::Over
    }

    /// The consensus core, to read.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// Rounds of this height of which proposals are held.
    pub fn rounds_proposed(&self) -> usize {
        self.proposals.len()
    }

    /// The pool, to read.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Evidence that waits for a block, to read.
    pub fn evidence(&self) -> &EvidencePool {
        &self.evidence
    }

    pub(crate) fn status(&self) -> Status {
        Status { base: self.base, tip: self.chain.height }
    }

    fn on_message(&mut self, now: Now, peer: Peer, message: Message, bytes: usize) {
        if self.peers.heard(peer).is_none() {
            return; // Its connection ended, or is about to, while this was on its way.
        }
        let height = self.height();
        match message {
            Message::Status(status) => self.on_claim(now, peer, status),
            Message::Have(have) => self.on_have(now, peer, have),
            Message::Evidence(evidence) => self.on_evidence(peer, *evidence),
            Message::HasEvidence(hash) => self.on_evidence_offered(peer, hash),
            Message::Txs(batch) => {
                let checks = self.pool.receive(peer, batch);
                self.check_txs(checks, false);
            }
            message => match message.height() {
                at if at == height && self.deciding.is_none() => self.on_consensus_message(now, peer, message),
                at if at == height.next() || (at == height && self.deciding.is_some()) => self.keep_early(peer, message, bytes),
                at if at > height => {
                    // Whoever is at that height says to have decided the one before. From which on, it said itself.
                    let base = self.said_base(peer);
                    self.on_status(now, peer, Status { base, tip: at.previous() });
                }
                at if at == self.chain.height => match message {
                    Message::Vote(vote) => self.on_late_vote(vote),
                    Message::Commit(commit) => self.on_commit_of_last(peer, commit),
                    Message::Statement(signed) => self.on_statement(peer, signed),
                    _ => {}
                },
                _ => {}
            },
        }
    }

    /// A message of the height that begins next. Bounded, for each peer alike; the rest comes again when it is missed.
    fn keep_early(&mut self, peer: Peer, message: Message, bytes: usize) {
        self.early.push(peer, bytes + EARLY_MESSAGE_BYTES, (message, bytes));
    }

    /// What waited for this height.
    pub(crate) fn replay_early(&mut self, now: Now) {
        for (peer, (message, bytes)) in self.early.take() {
            self.on_message(now, peer, message, bytes);
        }
    }

    pub(crate) fn on_consensus_message(&mut self, now: Now, peer: Peer, message: Message) {
        match message {
            Message::Vote(vote) => self.on_vote(now, peer, vote),
            Message::Votes(batch) => {
                for vote in batch.0 {
                    if self.peers.heard(peer).is_some() {
                        self.on_vote(now, peer, vote);
                    }
                }
            }
            Message::Proposal { proposal, first } => self.on_proposal(now, peer, proposal, first),
            Message::Part { header, part, .. } => self.on_part(now, peer, header, part),
            Message::Polka(polka) => self.on_polka(now, peer, polka),
            Message::Commit(commit) => self.on_commit(now, peer, commit, None),
            Message::Statement(signed) => self.on_statement(peer, signed),
            Message::Status(_) | Message::Have(_) | Message::Txs(_) | Message::Evidence(_) | Message::HasEvidence(_) => {}
        }
    }

    /// Asks for signature checks; what is beyond the bound is dropped, and comes again. Not so the certificate that block
    /// sync waits for: there is one at a time, and nothing would ask for it again.
    pub(crate) fn verify(&mut self, checks: Vec<lockstep_types::crypto::SignatureCheck>, job: Job) {
        let peer = job.asked_by();
        let of_peer = peer.and_then(|peer| self.checks_of.get(&peer)).copied().unwrap_or(0);
        let is_too_much = self.checks_out >= VERIFYING_MAX || of_peer >= VERIFYING_PEER_MAX;
        if is_too_much && !matches!(job, Job::Commit { synced: Some(_), .. } | Job::StateHeader { .. }) {
            if let Job::Vote { key, .. } = &job {
                self.verifying.remove(key);
            }
            return;
        }
        self.checks_out += checks.len();
        if let Some(peer) = peer {
            *self.checks_of.entry(peer).or_default() += checks.len();
        }
        let id = self.fx.job();
        self.jobs.insert(id, job);
        self.fx.push(Effect::Verify { job: id, checks });
    }

    pub(crate) fn check_txs(&mut self, txs: Vec<(Hash, lockstep_mempool::TxBytes)>, recheck: bool) {
        if txs.is_empty() {
            return;
        }
        let (hashes, txs) = txs.into_iter().unzip();
        let id = self.fx.job();
        self.jobs.insert(id, Job::CheckTxs { hashes, recheck });
        self.fx.push(Effect::CheckTxs { job: id, txs, recheck });
    }

    fn on_txs_checked(&mut self, now: Now, job: JobId, verdicts: &[lockstep_app::Verdict]) {
        let Some(Job::CheckTxs { hashes, recheck }) = self.jobs.remove(&job) else { return };
        let mut added = false;
        for (hash, verdict) in hashes.iter().zip(verdicts) {
            if recheck {
                self.pool.recheck(hash, verdict, &mut self.fx);
            } else {
                added |= self.pool.settle(*hash, verdict, &mut self.fx);
            }
        }
        if added {
            self.flush_gossip(now);
            self.try_ready(now);
        }
        self.pool.report(&mut self.fx);
    }

    fn on_verified(&mut self, now: Now, id: JobId, verdicts: &[bool]) {
        let job = self.jobs.remove(&id);
        if let Some(job) = &job {
            self.checks_out -= verdicts.len();
            // Of a peer that left, nothing is counted any more.
            if let Some(of_peer) = job.asked_by().and_then(|peer| self.checks_of.get_mut(&peer)) {
                *of_peer = of_peer.saturating_sub(verdicts.len());
            }
        }
        match job {
            Some(Job::Vote { peer, claim, key }) => {
                self.verifying.remove(&key);
                match claim.settle(verdicts) {
                    Ok(vote) => self.on_verified_vote(now, vote),
                    Err(error) => self.blame(peer, POINTS_LIE, format!("a vote: {error}")),
                }
            }
            Some(Job::LateVote { claim }) => {
                if let Ok(vote) = claim.settle(verdicts) {
                    self.add_late_vote(&vote);
                }
            }
            Some(Job::Proposal { peer, claim, received, first }) => match claim.settle(verdicts) {
                Ok(proposal) => {
                    let header = proposal.block_id.parts;
                    self.on_verified_proposal(now, proposal, received);
                    if let Some(part) = first {
                        self.on_part(now, peer, header, part);
                    }
                }
                Err(error) => self.blame(peer, POINTS_LIE, format!("a proposal: {error}")),
            },
            Some(Job::Polka { peer, claim }) => match claim.settle(verdicts) {
                Ok(polka) => self.on_verified_polka(now, polka),
                Err(error) => self.blame(peer, POINTS_LIE, format!("a polka: {error}")),
            },
            Some(Job::Commit { peer, claim, synced }) => self.settle_commit(now, peer, claim, synced, verdicts),
            Some(Job::OwnProof { peer, claim, message }) => {
                match claim.settle(verdicts) {
                    Ok(_) => self.on_foreign(&peer, &message),
                    Err(error) => self.blame(peer, POINTS_LIE, format!("a vote in our name: {error}")),
                }
                self.try_end_own_wait(now);
            }
            Some(Job::OtherCommit { peer, claim }) => self.on_other_commit(peer, claim, verdicts),
            Some(Job::Statement { peer, claim }) => self.on_statement_verified(peer, claim.settle(verdicts)),
            Some(Job::StateHeader { ticket }) => self.on_header_verified(now, ticket, verdicts),
            Some(Job::OwnProposal { peer, claim, message }) => {
                match claim.settle(verdicts) {
                    Ok(_) => self.on_foreign(&peer, &message),
                    Err(error) => self.blame(peer, POINTS_LIE, format!("a proposal in our name: {error}")),
                }
                self.try_end_own_wait(now);
            }
            _ => {}
        }
    }

    pub(crate) fn settle_commit(&mut self, now: Now, peer: Peer, claim: Claim<Commit>, synced: Option<u64>, verdicts: &[bool]) {
        match claim.settle(verdicts) {
            Ok(commit) => {
                if let Some(ticket) = synced {
                    self.synced_block_is_proven(ticket);
                }
                self.on_verified_commit(now, commit);
            }
            Err(error) => {
                if let Some(ticket) = synced {
                    self.synced_block_is_bad(now, ticket);
                }
                self.blame(peer, POINTS_LIE, format!("a commit: {error}"));
            }
        }
    }

    fn on_timer(&mut self, now: Now, timer: Timer) {
        match timer {
            Timer::Consensus(timeout) => {
                if self.timers.get(&timeout).is_some_and(|due| now.mono >= *due) {
                    self.timers.remove(&timeout);
                    self.drive(now, lockstep_consensus::Input::TimedOut(timeout));
                }
            }
            Timer::Pace(height) => {
                if height == self.height() {
                    self.pace_timer = None;
                    self.try_ready(now);
                }
            }
            Timer::ProposerWait(height, round) => self.on_proposer_waited(now, height, round),
            Timer::Gossip => self.on_gossip_timer(now),
            Timer::Sync => self.on_sync_timer(now),
            Timer::StateSync => self.on_state_timer(now),
            Timer::Serve => self.on_serve_timer(now),
            Timer::TxBatch => {
                self.tx_timer = false;
                self.pool.gossip(&mut self.fx);
            }
            Timer::OwnMessages => self.on_own_timer(now),
        }
    }
}
