//! Climbing from a header that is trusted to a later one, over headers of peers: the strategy around
//! [`lockstep_types::light`], which holds the rules.
//!
//! The target is tried at once. Where too few of those who are trusted signed it, the header half way is asked for, and so on
//! down to the next height, whose validators the trusted header names. So every header is, in the end, either trusted or
//! refused for what it says itself, and whoever gave a refused one lied: no header of another peer can make it so.
//!
//! Pure: signatures are checked by the caller ([`Step::Check`]), and time is an argument.

use lockstep_types::crypto::SignatureCheck;
use lockstep_types::light::{self, LightBlock, LightClaim, LightError, Options, Trusted};
use lockstep_types::planted::{self, Bug};
use lockstep_types::{Header, Height, Time};

/// Most headers between what is trusted and the target that wait for one below them: each halves the distance.
pub const PENDING_MAX: usize = 64;

/// What a climb needs next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The block of this height.
    Need(Height),
    /// Verdicts on these signatures.
    Check(Vec<SignatureCheck>),
    /// The block did not hold: who gave it, and why. [`LightError::Expired`] is nobody's lie; what is trusted is too old.
    Refused {
        /// Who gave it.
        source: u64,
        /// Its height, which is needed again.
        height: Height,
        /// What is wrong.
        error: LightError,
    },
    /// The target is trusted.
    Done,
}

/// A climb to one height.
#[derive(Debug, Clone)]
pub struct Climb {
    trusted: Trusted,
    options: Options,
    target: Height,
    /// Blocks that wait to be tried, the lowest last, with who gave them.
    pending: Vec<(LightBlock, u64)>,
    /// Of the lowest pending one, while its signatures are being checked.
    claim: Option<LightClaim>,
    /// The target, when it is trusted, and who gave it.
    reached: Option<(LightBlock, u64)>,
}

impl Climb {
    /// From `trusted` to the block of height `target`, which is above it.
    ///
    /// # Panics
    /// When it is not: callers choose the target.
    pub fn new(trusted: Trusted, options: Options, target: Height) -> Self {
        assert!(target > trusted.height, "a climb leads upwards");
        Self { trusted, options, target, pending: Vec::new(), claim: None, reached: None }
    }

    /// What is trusted by now.
    pub const fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// The target, once it is trusted, and who gave it. As many of its commit's signatures were verified as decide; there may be more in it.
    pub const fn reached(&self) -> Option<&(LightBlock, u64)> {
        self.reached.as_ref()
    }

    /// The height whose block is needed; none while signatures are being checked, and at the end.
    pub fn wanted(&self) -> Option<Height> {
        if self.reached.is_some() || self.claim.is_some() {
            return None;
        }
        let Some((lowest, _)) = self.pending.last() else { return Some(self.target) };
        let (low, high) = (self.trusted.height.get(), lowest.header.height.get());
        Height::new(low + (high - low) / 2)
    }

    /// A peer gave a block. One that is not wanted is dropped.
    pub fn on_block(&mut self, source: u64, block: LightBlock, now: Time) -> Step {
        if self.wanted() == Some(block.header.height) && self.pending.len() < PENDING_MAX {
            self.pending.push((block, source));
            return self.try_lowest(now);
        }
        self.wanted().map_or(Step::Done, Step::Need)
    }

    /// The verdicts on what [`Step::Check`] asked for.
    pub fn on_verdicts(&mut self, verdicts: &[bool], now: Time) -> Step {
        let Some(claim) = self.claim.take() else { return self.wanted().map_or(Step::Done, Step::Need) };
        let settled = if planted::has(Bug::ClimbUnverified) { Ok(()) } else { claim.settle(verdicts) };
        match settled {
            Ok(()) => {
                let (block, source) = self.pending.pop().expect("a claim is of the lowest pending block");
                self.trusted = Trusted::from_block(&block);
                if self.pending.is_empty() {
                    self.reached = Some((block, source));
                    return Step::Done;
                }
                self.try_lowest(now)
            }
            Err(LightError::NotEnoughTrust { .. }) => self.wanted().map_or(Step::Done, Step::Need),
            Err(error) => self.refuse(error),
        }
    }

    fn try_lowest(&mut self, now: Time) -> Step {
        let (block, _) = self.pending.last().expect("there is one to try");
        match light::claim(&self.trusted, block, &self.options, now) {
            Ok(claim) => {
                let checks = claim.checks().to_vec();
                self.claim = Some(claim);
                Step::Check(checks)
            }
            Err(error) => self.refuse(error),
        }
    }

    fn refuse(&mut self, error: LightError) -> Step {
        let (block, source) = self.pending.pop().expect("there is one that was tried");
        Step::Refused { source, height: block.header.height, error }
    }
}

/// Whether a whole block belongs right below a header that is trusted: its header by the hash chain, its commit as the newer
/// header has it, both sets by their hashes. Gives the one signature that is left to be verified: no hash covers the round of the commit
/// ([`Commit::one_check`](lockstep_types::Commit::one_check)), and a commit of another round is one that nobody can verify.
///
/// # Errors
/// See [`LightError`].
pub fn is_below(newer: &Header, older: &LightBlock) -> Result<SignatureCheck, LightError> {
    let check =
        older.commit.one_check(&older.header.chain_id, &older.validators).ok_or(LightError::Mismatch("a commit without a signature"));
    if planted::has(Bug::ParentHeaderUnchecked) {
        return check;
    }
    light::verify_backwards(newer, &older.header)?;
    if older.header.height.next() != newer.height {
        return Err(LightError::NotLater("height"));
    }
    if newer.last_block_id != Some(older.commit.block_id) || older.commit.height != older.header.height {
        return Err(LightError::Mismatch("the commit's block"));
    }
    if older.validators.hash() != older.header.validators_hash {
        return Err(LightError::Mismatch("validators_hash"));
    }
    if older.next_validators.hash() != older.header.next_validators_hash {
        return Err(LightError::Mismatch("next_validators_hash"));
    }
    // Last: it is what remains where all else is right.
    if older.commit.hash() != newer.last_commit_hash {
        return Err(LightError::OtherCommit);
    }
    check
}
