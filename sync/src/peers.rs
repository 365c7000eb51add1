//! What we think of each peer.

/// Most peers that are known here. The network admits fewer; one beyond is not asked.
pub const PEERS_MAX: usize = 1_024;

/// Most requests in flight to one peer, those past their deadline included: a silent peer is not asked for ever.
pub const REQUESTS_PER_PEER_MAX: usize = 2;

/// How long a peer has for its first answer, in milliseconds. Doubled for each deadline it missed in a row.
pub const DEADLINE_MS: u64 = 2_000;

/// How many times the deadline is doubled at most.
pub const PATIENCE_MAX: u32 = 3;

/// How many deadlines a late answer is waited for in all. Until then the peer is not asked for the same block again.
pub const FORGET_AFTER_DEADLINES: u64 = 4;

/// The debt of a missed deadline, and of a claim that was not kept.
pub const TIMEOUT_DEBT: u32 = 32;

/// The debt of an answer with less in it than was asked for and would have fitted: one block at a time, just within the
/// deadline, is a way to be useless without lying. A block that proves good pays off 1.
pub const SHORT_ANSWER_DEBT: u32 = 8;

/// Peers whose debt is above the least by more than this are not asked. Below one missed deadline.
pub const DEBT_SLACK: u32 = 16;
const _: () = assert!(DEBT_SLACK < TIMEOUT_DEBT, "one missed deadline is enough to prefer others");

/// Debt grows no further: a peer that was useless for long can be of use again.
const DEBT_MAX: u32 = 1_024;

/// How long the claim of a peer that did not keep it counts for nothing, in milliseconds. Doubled each time, until a
/// block of that peer proves good.
pub const REST_MS: u64 = 1_000;

/// The longest rest.
pub const REST_MS_MAX: u64 = 64_000;

/// A peer, as block sync sees it.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// The lowest height it says it has. Above `tip` when it has none.
    pub(crate) base: u64,
    /// The highest.
    pub(crate) tip: u64,
    /// Requests that it did not answer yet.
    pub(crate) in_flight: usize,
    /// When it was last asked, as the number of the request.
    pub(crate) last_asked: u64,
    /// It gave a wrong answer. Nothing it says counts any more.
    pub(crate) left: bool,
    /// A block of it proved good, and it disappointed nobody since.
    pub(crate) proved: bool,
    /// Blocks by which it has to make good its short answers, before it counts as proved again.
    stinted: u32,
    /// See [`TIMEOUT_DEBT`].
    pub(crate) debt: u32,
    /// Deadlines missed in a row.
    patience: u32,
    /// Claims not kept in a row.
    strikes: u32,
    /// Until when its claims count for nothing.
    pub(crate) rest_until: u64,
}

impl Peer {
    /// Whether its claims count.
    pub(crate) fn counts(&self, now: u64) -> bool {
        !self.left && now >= self.rest_until
    }

    /// Whether it says that it has a block, and what it says counts.
    pub(crate) fn claims(&self, height: u64, now: u64) -> bool {
        self.counts(now) && self.base <= height && height <= self.tip
    }

    /// How long it has to answer.
    pub(crate) fn deadline_ms(&self) -> u64 {
        DEADLINE_MS << self.patience.min(PATIENCE_MAX)
    }

    pub(crate) fn missed_deadline(&mut self) {
        self.patience = (self.patience + 1).min(PATIENCE_MAX);
        self.proved = false;
        self.owe(TIMEOUT_DEBT);
    }

    /// It answered: late or not, the next deadline is the first one again, and lateness alone is not held against it.
    pub(crate) fn answered(&mut self, late: bool) {
        self.patience = if late { self.patience } else { 0 };
        if late {
            self.debt = self.debt.saturating_sub(TIMEOUT_DEBT);
        }
    }

    pub(crate) fn broke_claim(&mut self, now: u64) {
        self.rest_until = now.saturating_add((REST_MS << self.strikes.min(16)).min(REST_MS_MAX));
        self.strikes = self.strikes.saturating_add(1);
        self.proved = false;
        self.owe(TIMEOUT_DEBT);
    }

    /// It gave less than was asked for and would have fitted.
    pub(crate) fn stinted(&mut self) {
        self.proved = false;
        self.stinted = (self.stinted + SHORT_ANSWER_DEBT).min(DEBT_MAX);
        self.owe(SHORT_ANSWER_DEBT);
    }

    pub(crate) fn gave_good_block(&mut self) {
        self.stinted = self.stinted.saturating_sub(1);
        self.proved = self.stinted == 0;
        self.strikes = 0;
        self.debt = self.debt.saturating_sub(1);
    }

    pub(crate) fn owe(&mut self, debt: u32) {
        self.debt = (self.debt + debt).min(DEBT_MAX);
    }
}
