//! What of the block log may go: whole segments, oldest first, once nobody needs a block of them any more.
//!
//! | who needs old blocks | until |
//! |---|---|
//! | clients of this node | [`Retention::keep_blocks`] more have come |
//! | whoever restores a snapshot that this node keeps | another snapshot is the oldest kept: blocks above its height follow on it, and the names of the last blocks below it ([`Needs::names`]) are part of what is restored |
//! | judges of evidence | the evidence of its height has expired, by blocks and by time |
//! | this node's next start | the state database is above it |
//!
//! A node that keeps no snapshot lets nothing go: if all did, nobody could ever join. Asked for what is gone, a node says so and
//! names the earliest height that it has.

use lockstep_storage::log::{LogError, LogReader, Oldest, Pruner};
use lockstep_types::params::EvidenceParams;
use lockstep_types::planted::{self, Bug};
use lockstep_types::{Height, Time};

use crate::recovery::{RecoveryError, decided};

/// The operator's part of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// Blocks below the tip that stay, at least. 0 for all.
    pub keep_blocks: u64,
}

/// What is known when it is decided.
#[derive(Debug, Clone)]
pub struct Needs {
    /// The durable tip.
    pub tip: Height,
    /// The time of its block.
    pub tip_time: Time,
    /// The height that the state database holds.
    pub flushed: Height,
    /// The oldest snapshot that is kept; none for none.
    pub oldest_snapshot: Option<Height>,
    /// Blocks whose names the rules of membership look back to: as many as the chain remembers after the tip.
    pub names: u64,
    /// When evidence expires, at the tip.
    pub evidence: EvidenceParams,
}

impl Retention {
    /// Blocks below this height may go as far as heights say; the evidence window has a say beside it. None for none.
    pub fn below(&self, needs: &Needs) -> Option<Height> {
        let snapshot = needs.oldest_snapshot?;
        if self.keep_blocks == 0 {
            return None;
        }
        let kept = needs.tip.get().saturating_sub(self.keep_blocks).saturating_add(1);
        let names = if planted::has(Bug::PrunesNames) { 0 } else { needs.names };
        let restored = snapshot.get().saturating_sub(names);
        let window = needs.tip.get().saturating_sub(needs.evidence.max_age_num_blocks);
        let flushed = if planted::has(Bug::PrunesUnflushed) { needs.tip } else { needs.flushed };
        Height::new(kept.min(restored).min(window).min(flushed.get()))
    }

    /// Whether everything up to a height may go, whose block has this time.
    pub fn may_go(&self, needs: &Needs, height: Height, time: Time) -> bool {
        let age = needs.tip_time.unix_nanos() - time.unix_nanos();
        self.below(needs).is_some_and(|below| height < below)
            && (age > i128::from(needs.evidence.max_age_duration_ns) || planted::has(Bug::PrunesEvidenceWindow))
    }

    /// Lets the oldest segment go, if it may: the height up to which blocks are gone then, and the segment, whose results are
    /// to go too.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub fn prune_one(&self, pruner: &Pruner, log: &LogReader, needs: &Needs) -> Result<Option<Oldest>, RecoveryError> {
        let Some(oldest) = pruner.oldest() else { return Ok(None) };
        let Some(height) = Height::new(oldest.height_max) else { return Ok(None) };
        if self.below(needs).is_none_or(|below| height >= below) {
            return Ok(None);
        }
        let (_, block, ..) = decided(log, height)?;
        if !self.may_go(needs, height, block.header.time) {
            return Ok(None);
        }
        let gone = pruner.remove(oldest).map_err(|error: LogError| RecoveryError::Log(error))?;
        Ok(gone.then_some(oldest))
    }
}
