//! Light-client verification (`encoding.md` section 12): from a header that is trusted to a later one, by signatures alone.
//!
//! Pure and complete: the caller brings the time, and may have the signatures checked elsewhere ([`claim`]). Checks run in the order of the Rust verifier of the Tendermint
//! ecosystem, which the vectors were judged with.

use std::collections::BTreeSet;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::block::Header;
use crate::commit::Commit;
use crate::crypto::{self, SignatureCheck};
use crate::primitives::{ChainId, Hash, Height};
use crate::time::Time;
use crate::validators::ValidatorSet;

/// A header with its commit and the two sets that its hashes name.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LightBlock {
    /// The header.
    pub header: Header,
    /// The commit for it.
    pub commit: Commit,
    /// Validators of this height.
    pub validators: ValidatorSet,
    /// Validators of the next height.
    pub next_validators: ValidatorSet,
}

/// What is already trusted.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Trusted {
    /// The chain.
    pub chain_id: ChainId,
    /// Height of the trusted header.
    pub height: Height,
    /// Its time.
    pub time: Time,
    /// The set of the height after it.
    pub next_validators: ValidatorSet,
}

impl Trusted {
    /// What a verified block lets us trust.
    pub fn from_block(block: &LightBlock) -> Self {
        Self {
            chain_id: block.header.chain_id.clone(),
            height: block.header.height,
            time: block.header.time,
            next_validators: block.next_validators.clone(),
        }
    }
}

/// How far trust reaches.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long after its time a trusted header may be used. Below the evidence window.
    pub trusting_period: Duration,
    /// How far the chain's clock may be ahead of ours.
    pub clock_drift: Duration,
    /// Share of the trusted next set that must have signed: (numerator, denominator), 1/3 to 1.
    pub trust_level: (u64, u64),
}

/// The answer when a block is not verified.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LightError {
    /// Not invalid: too few of those we trust signed it. Try a height in between.
    #[error("signed by {tallied} of {total} of the trusted power, more than {numerator}/{denominator} is needed: bisect")]
    NotEnoughTrust {
        /// Power that signed.
        tallied: u64,
        /// Power of the trusted set.
        total: u64,
        /// Of the trust level.
        numerator: u64,
        /// Of the trust level.
        denominator: u64,
    },
    /// A hash in the header is not that of what came with it.
    #[error("{0} does not match the header")]
    Mismatch(&'static str),
    /// The header and its validators are right, and their commit is another than the header above carries. A node that lost the block above
    /// has no other: this alone is nobody's lie.
    #[error("its commit is another than last_commit_hash of the header above names")]
    OtherCommit,
    /// The commit is malformed for this set.
    #[error("commit: {0}")]
    Commit(&'static str),
    /// The trusted header is too old to build on.
    #[error("the trusted header is older than the trusting period")]
    Expired,
    /// The header is not later than the trusted one.
    #[error("{0} is not above the trusted header's")]
    NotLater(&'static str),
    /// Another chain.
    #[error("the header is of chain {0}")]
    Chain(ChainId),
    /// The header's time lies ahead of our clock.
    #[error("the header's time is ahead of the clock")]
    Future,
    /// A signature that is needed does not verify.
    #[error("a signature does not verify")]
    Signature,
    /// Not signed by more than two thirds of its own validators.
    #[error("signed by {tallied} of {total}, more than two thirds is needed")]
    NoQuorum {
        /// Power that signed.
        tallied: u64,
        /// Power of the set.
        total: u64,
    },
}

/// Whether `block` may be trusted because `trusted` is, at time `now`.
///
/// # Errors
/// See [`LightError`]; [`LightError::NotEnoughTrust`] alone means "bisect", every other one "invalid".
pub fn verify(trusted: &Trusted, block: &LightBlock, options: &Options, now: Time) -> Result<(), LightError> {
    let claim = claim(trusted, block, options, now)?;
    let holds = |check: &SignatureCheck| crypto::verify(&check.public_key, &check.message, &check.signature);
    if claim.checks.iter().all(holds) { claim.outcome } else { Err(LightError::Signature) }
}

/// A block of which everything is judged but its signatures, for callers who have those checked elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a claim proves nothing before it is settled"]
pub struct LightClaim {
    checks: Vec<SignatureCheck>,
    outcome: Result<(), LightError>,
}

impl LightClaim {
    /// The signatures to check: as many as decide, each once.
    pub fn checks(&self) -> &[SignatureCheck] {
        &self.checks
    }

    /// What [`verify`] would have said, given one verdict for each check.
    ///
    /// # Errors
    /// See [`LightError`].
    pub fn settle(self, verdicts: &[bool]) -> Result<(), LightError> {
        let all_hold = verdicts.len() == self.checks.len() && verdicts.iter().all(|holds| *holds);
        if all_hold { self.outcome } else { Err(LightError::Signature) }
    }
}

/// [`verify`] without the signatures: those that remain to be checked, and the answer if all of them hold.
///
/// # Errors
/// See [`LightError`]: what is wrong whatever the signatures say.
pub fn claim(trusted: &Trusted, block: &LightBlock, options: &Options, now: Time) -> Result<LightClaim, LightError> {
    let header = &block.header;
    if block.validators.hash() != header.validators_hash {
        return Err(LightError::Mismatch("validators_hash"));
    }
    if block.next_validators.hash() != header.next_validators_hash {
        return Err(LightError::Mismatch("next_validators_hash"));
    }
    if header.hash() != block.commit.block_id.hash || header.height != block.commit.height {
        return Err(LightError::Mismatch("the commit's block"));
    }
    check_slots(block)?;
    if trusted.time.saturating_add(options.trusting_period) <= now {
        return Err(LightError::Expired);
    }
    if header.time <= trusted.time {
        return Err(LightError::NotLater("time"));
    }
    if header.chain_id != trusted.chain_id {
        return Err(LightError::Chain(header.chain_id.clone()));
    }
    if header.height <= trusted.height {
        return Err(LightError::NotLater("height"));
    }
    let adjacent = header.height == trusted.height.next();
    if adjacent && header.validators_hash != trusted.next_validators.hash() {
        return Err(LightError::Mismatch("validators_hash of the trusted header's next set"));
    }
    if header.time >= now.saturating_add(options.clock_drift) {
        return Err(LightError::Future);
    }
    let mut signers = Signers::default();
    if !adjacent {
        let (numerator, denominator) = options.trust_level;
        let (tallied, total) = signers.tally(block, &trusted.next_validators, numerator, denominator);
        if !above(tallied, total, numerator, denominator) {
            let outcome = Err(LightError::NotEnoughTrust { tallied, total, numerator, denominator });
            return Ok(LightClaim { checks: signers.checks, outcome });
        }
    }
    let (tallied, total) = signers.tally(block, &block.validators, 2, 3);
    let outcome = if above(tallied, total, 2, 3) { Ok(()) } else { Err(LightError::NoQuorum { tallied, total }) };
    Ok(LightClaim { checks: signers.checks, outcome })
}

/// Whether an older header belongs below a newer one that is trusted: by the hash chain alone.
///
/// # Errors
/// See [`LightError`].
pub fn verify_backwards(newer: &Header, older: &Header) -> Result<(), LightError> {
    if newer.last_block_id.map(|id| id.hash) != Some(older.hash()) {
        return Err(LightError::Mismatch("last_block_id of the newer header"));
    }
    if older.time >= newer.time {
        return Err(LightError::NotLater("time"));
    }
    Ok(())
}

fn check_slots(block: &LightBlock) -> Result<(), LightError> {
    let slots = &block.commit.signatures;
    if slots.len() != block.validators.len() {
        return Err(LightError::Commit("as many slots as validators are needed"));
    }
    if slots.iter().all(|sig| sig.slot().is_none()) {
        return Err(LightError::Commit("no signature"));
    }
    for (sig, validator) in slots.iter().zip(&block.validators) {
        if sig.slot().is_some_and(|slot| slot.address != validator.address) {
            return Err(LightError::Commit("a signer is not the validator of its slot"));
        }
    }
    Ok(())
}

/// Whose signatures are to be checked. A slot that counts towards both sets is checked once: the address is the key's.
#[derive(Default)]
struct Signers {
    slots: BTreeSet<usize>,
    checks: Vec<SignatureCheck>,
}

impl Signers {
    /// Power of those of `set` who are said to have signed for the block. Stops once the threshold is passed, as both
    /// reference clients do.
    fn tally(&mut self, block: &LightBlock, set: &ValidatorSet, numerator: u64, denominator: u64) -> (u64, u64) {
        let total = set.total_power().get();
        let mut tallied = 0;
        // The slots were checked to be those of the block's own set, whose members are distinct: nobody is counted twice.
        for (index, sig) in block.commit.signatures.iter().enumerate() {
            let Some(slot) = sig.slot().filter(|_| sig.is_for_block()) else { continue };
            let Some(validator) = set.iter().find(|validator| validator.address == slot.address) else { continue };
            if self.slots.insert(index) {
                let message = block.commit.sign_bytes(index, &block.header.chain_id).expect("the slot is not absent");
                self.checks.push(SignatureCheck { public_key: validator.public_key, message, signature: slot.signature });
            }
            tallied += validator.power.get();
            if above(tallied, total, numerator, denominator) {
                break;
            }
        }
        (tallied, total)
    }
}

fn above(tallied: u64, total: u64, numerator: u64, denominator: u64) -> bool {
    u128::from(tallied) * u128::from(denominator) > u128::from(total) * u128::from(numerator)
}

/// The block hash that a light block proves.
pub fn block_hash(block: &LightBlock) -> Hash {
    block.header.hash()
}
