//! The phases, and what each waits for.

mod ahead;
mod answers;
mod asking;

use std::collections::{BTreeMap, BTreeSet};

use lockstep_types::crypto::SignatureCheck;
use lockstep_types::light::LightBlock;
use lockstep_types::vote::Claim;
use lockstep_types::{Commit, Hash, Header, Height};

use self::ahead::Ahead;
use super::{Check, ChunkWanted, Clock, Needs, OFFERS_MS, PATIENCE_MS, STALL_MS, StateEffect, StateInput, StateOptions, Told};
use crate::fetch::Fetch;
use crate::light::Climb;

/// Things that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Offers(u64),
    Light(Height),
    Witness(u64, Height),
    Manifest(Height),
    Chunk(u32),
    Parts(u32),
    Down(Height),
    /// Headers above the snapshot's, down to this height.
    Ahead(Height),
    /// Parts of the body of a height above the snapshot's.
    Body(Height, u32),
}

/// Which judgement a ticket is of.
#[derive(Debug, Clone)]
enum Judging {
    Manifest(u64),
    Chunk(u64, u32),
    Body,
    Headers,
    /// All signatures of the named header's commit, or of that of the header that the climb led to, which a peer gave: no header that is
    /// here names them, and others may get them from us.
    Certificate(u64, Box<LightBlock>, Box<Claim<Commit>>),
    /// One signature of each commit of headers on the way down that follow by hashes, and who gave them.
    Down(u64, Vec<LightBlock>),
    Complete,
    Climb,
    Ahead,
    Block(Height),
}

/// A snapshot that was chosen, and what is proven of it.
#[derive(Debug)]
struct Goal {
    height: Height,
    /// The block above it, proven.
    above: Option<Box<LightBlock>>,
    /// Its own block, proven.
    at: Option<Box<LightBlock>>,
}

/// What is gathered once the manifest is known.
#[derive(Debug)]
struct Gather {
    manifest_from: u64,
    chunks: Vec<ChunkWanted>,
    /// Not here, and not being judged.
    wanted: BTreeSet<u32>,
    here: u32,
    body: Body,
    /// The lowest proven header; none when nothing more is wanted.
    lowest: Option<Header>,
    headers_judged: bool,
    ahead: Ahead,
    completing: bool,
}

/// The body of the snapshot's height.
#[derive(Debug)]
enum Body {
    /// Its parts, each proven when it came.
    Wanted(BTreeMap<u32, Vec<u8>>),
    Judged,
    Here,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is chosen, since when.
    Seek(u64),
    /// The named header is asked for.
    Root(Goal),
    Climb(Goal, Box<Climb>),
    /// By the hash chain from this proven header.
    Descend(Goal, Box<Header>),
    Manifest(Goal),
    Gather(Goal, Box<Gather>),
    Over,
}

/// Heights whose attempts are counted. A peer can invent heights for ever; of more than this, the highest is forgotten, which is
/// likely to be one of those.
const ATTEMPTED_MAX: usize = 1_024;

/// State sync of one node. One call of [`StateSync::on`] per thing that happened.
#[derive(Debug)]
pub struct StateSync {
    options: StateOptions,
    now: Clock,
    fetch: Fetch<Item>,
    /// Lowest and highest block that peers claim.
    claims: BTreeMap<u64, (Height, Height)>,
    offers: BTreeMap<u64, BTreeSet<Height>>,
    /// When each peer was last asked for its offers.
    offers_asked: BTreeMap<u64, u64>,
    /// How often a height was tried: of [`ATTEMPTED_MAX`].
    attempts: BTreeMap<Height, u32>,
    /// How often nobody had the named header, whatever the height.
    root_attempts: u32,
    /// Chosen before others where it is offered: some of it is on the disk.
    preferred: Option<Height>,
    /// The named header, once it came.
    root: Option<Box<LightBlock>>,
    /// Peers that have another header of that height, and its hash. Which of both is right nobody here can tell, so they are not blamed;
    /// they are not asked for the named one again.
    other_roots: BTreeMap<u64, Hash>,
    phase: Phase,
    judging: BTreeMap<u64, Judging>,
    tickets: u64,
    progressed_at: u64,
    /// When anybody last offered anything of use.
    offered_at: u64,
    waited: bool,
    /// What the operator was told last of the named header that nobody has.
    root_told: Option<Needs>,
    /// The operator was told that nobody has it yet.
    root_was_ahead: bool,
    bytes: u64,
    fx: Vec<StateEffect>,
}

impl StateSync {
    /// State sync that begins now. `preferred` is the height of which a start found something on its disk.
    pub fn new(options: StateOptions, preferred: Option<Height>, now: Clock) -> Self {
        Self {
            options,
            now,
            fetch: Fetch::new(),
            claims: BTreeMap::new(),
            offers: BTreeMap::new(),
            offers_asked: BTreeMap::new(),
            attempts: BTreeMap::new(),
            root_attempts: 0,
            preferred,
            root: None,
            other_roots: BTreeMap::new(),
            phase: Phase::Seek(now.mono_ms),
            judging: BTreeMap::new(),
            tickets: 0,
            progressed_at: now.mono_ms,
            offered_at: now.mono_ms,
            waited: false,
            root_told: None,
            root_was_ahead: false,
            bytes: 0,
            fx: Vec::new(),
        }
    }

    /// Whether there is nothing more to come of it.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// The height that is being synced to, once one is chosen.
    pub const fn goal(&self) -> Option<Height> {
        match &self.phase {
            Phase::Root(goal) | Phase::Climb(goal, _) | Phase::Descend(goal, _) | Phase::Manifest(goal) | Phase::Gather(goal, _) => {
                Some(goal.height)
            }
            Phase::Seek(_) | Phase::Over => None,
        }
    }

    /// Something happened.
    pub fn on(&mut self, now: Clock, input: StateInput) -> Vec<StateEffect> {
        self.now = Clock { mono_ms: self.now.mono_ms.max(now.mono_ms), wall: now.wall };
        if !self.is_over() {
            match input {
                StateInput::PeerStatus { peer, base, tip } => self.on_status(peer, base, tip),
                StateInput::PeerGone { peer } => self.on_gone(peer),
                StateInput::Response { peer, id, answer } => self.on_response(peer, id, answer),
                StateInput::Verified { ticket, verdicts } => self.on_verified(ticket, &verdicts),
                StateInput::Checked { ticket, found } => self.on_checked(ticket, found),
                StateInput::Tick => self.fetch.tick(self.now.mono_ms),
            }
            self.go_on();
        }
        std::mem::take(&mut self.fx)
    }

    /// When [`StateInput::Tick`] has something to do at the latest, in milliseconds of the monotonic clock.
    pub fn wakeup_ms(&self) -> Option<u64> {
        if self.is_over() {
            return None;
        }
        let offers = self.offers_asked.values().map(|at| at.saturating_add(OFFERS_MS)).min();
        let choose = if let Phase::Seek(since) = self.phase { Some(self.chooses_at(since)) } else { None };
        let stall = self.progressed_at.saturating_add(STALL_MS);
        let patience = self.offered_at.saturating_add(PATIENCE_MS);
        let later = |at: &u64| *at > self.now.mono_ms;
        self.fetch.wakeup_ms().into_iter().chain(offers).chain(choose).chain([stall, patience]).filter(later).min()
    }

    fn on_status(&mut self, peer: u64, base: Height, tip: Height) {
        self.fetch.meet(peer);
        if self.fetch.peers().any(|known| known == peer) {
            self.claims.insert(peer, (base, tip));
        }
    }

    fn on_gone(&mut self, peer: u64) {
        self.fetch.gone(peer);
        self.claims.remove(&peer);
        self.offers.remove(&peer);
        self.offers_asked.remove(&peer);
        self.other_roots.remove(&peer);
    }

    fn blame(&mut self, peer: u64, reason: String) {
        self.fetch.leave(peer);
        self.claims.remove(&peer);
        self.offers.remove(&peer);
        self.offers_asked.remove(&peer);
        self.other_roots.remove(&peer);
        self.fx.push(StateEffect::Blame { peer, reason });
    }

    fn progressed(&mut self) {
        self.progressed_at = self.now.mono_ms;
    }

    fn judge(&mut self, judging: Judging, check: Check) {
        self.tickets += 1;
        self.judging.insert(self.tickets, judging);
        self.fx.push(StateEffect::Check { ticket: self.tickets, check });
    }

    /// Has signatures verified. There may be none to verify.
    fn verify(&mut self, judging: Judging, checks: Vec<SignatureCheck>) {
        self.tickets += 1;
        self.judging.insert(self.tickets, judging);
        self.fx.push(StateEffect::Verify { ticket: self.tickets, checks });
    }

    fn is_judging(&self, which: impl Fn(&Judging) -> bool) -> bool {
        self.judging.values().any(which)
    }

    fn tell_progress(&mut self) {
        if let Phase::Gather(goal, gather) = &self.phase {
            let of = u32::try_from(gather.chunks.len()).unwrap_or(u32::MAX);
            let told = Told::Progress { height: goal.height, chunks: gather.here, of, bytes: self.bytes, blocks: gather.ahead.here };
            self.fx.push(StateEffect::Tell(told));
        }
    }

    fn fail(&mut self, reason: String) {
        self.phase = Phase::Over;
        self.fx.push(StateEffect::Tell(Told::Fails { reason }));
    }

    /// This height does not work out: another is sought, or the same again when there is no other.
    fn give_up(&mut self, reason: String) {
        let Some(height) = self.goal() else { return };
        let attempts = if matches!(self.phase, Phase::Root(_)) {
            self.tell_root_is_nowhere();
            &mut self.root_attempts
        } else {
            self.attempts.entry(height).or_default()
        };
        *attempts = attempts.saturating_add(1);
        if self.attempts.len() > ATTEMPTED_MAX {
            self.attempts.pop_last();
        }
        let offering: Vec<u64> = self.offers.iter().filter(|(_, offers)| offers.contains(&height)).map(|(peer, _)| *peer).collect();
        for peer in offering {
            self.fetch.owes(peer);
            self.offers_asked.remove(&peer);
        }
        if let Phase::Gather(_, gather) = &self.phase {
            self.fetch.owes(gather.manifest_from);
        }
        self.preferred = self.preferred.filter(|preferred| *preferred != height);
        self.fetch.drop_all(|item| !matches!(item, Item::Offers(_)));
        self.fetch.forgive(|_| true);
        self.judging.clear();
        self.offers.clear();
        self.phase = Phase::Seek(self.now.mono_ms);
        // They are asked anew, and the time to answer begins anew.
        self.offered_at = self.now.mono_ms;
        self.progressed();
        self.fx.push(StateEffect::Tell(Told::GivenUp { height, reason }));
    }
}
