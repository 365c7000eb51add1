//! What of the past may go: of the block log whole segments, oldest first, once nobody needs the body of a block of them any more; and later
//! what was put aside of their headers.
//!
//! | who needs old blocks | until |
//! |---|---|
//! | clients of this node | [`Retention::keep_blocks`] more have come |
//! | whoever restores a snapshot that this node keeps | another snapshot is the oldest kept: its block and those above follow on it |
//! | this node's next start | the state database is above it |
//! | blocks to come | the segment has no evidence in it, or that has expired |
//!
//! | who needs old headers, with commits, validators and polkas | until |
//! |---|---|
//! | judges of evidence, and those who ask who forked a chain | the evidence of its height has expired, by blocks and by time |
//! | light clients | the same: nobody believes what is older |
//! | whoever restores a snapshot that this node keeps | another snapshot is the oldest kept: the names of the last blocks below it ([`Needs::names`]) are part of what is restored |
//! | the header above, for its validators | that goes, too |
//!
//! So the light data of blocks that go while somebody needs it is put aside first ([`LightStore::put_aside`]), durably, and goes when nobody
//! does any more.
//!
//! A node that keeps no snapshot lets nothing go: if all did, nobody could ever join. Asked for what is gone, a node says so and
//! names the earliest height that it has.

use std::ops::RangeInclusive;

use lockstep_storage::log::{LogError, LogReader, Oldest, Pruner};
use lockstep_storage::results::ResultsReader;
use lockstep_types::params::EvidenceParams;
use lockstep_types::planted::{self, Bug};
use lockstep_types::{Height, Time};

use crate::light_store::{LightStore, RUN_BYTES, RUN_MAX};
use crate::recovery::{RecoveryError, decided};
use crate::source::BlockSource;

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

impl Needs {
    /// Headers below this height are of no use to who restores a snapshot that is kept here; none where none is.
    fn restored(&self) -> Option<u64> {
        let names = if planted::has(Bug::PrunesNames) { 0 } else { self.names };
        Some(self.oldest_snapshot?.get().saturating_sub(names))
    }

    /// Whether evidence about a height has expired, whose block has this time: by blocks and by time.
    pub fn has_expired(&self, height: Height, time: Time) -> bool {
        let age = self.tip_time.unix_nanos() - time.unix_nanos();
        height.get() < self.tip.get().saturating_sub(self.evidence.max_age_num_blocks)
            && (age > i128::from(self.evidence.max_age_duration_ns) || planted::has(Bug::PrunesEvidenceWindow))
    }
}

/// Light data that went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Its lowest height.
    pub from: Height,
    /// Its highest.
    pub to: Height,
    /// It could not be read back any more, whether it was needed or not.
    pub is_damaged: bool,
}

/// What lets go, and where light data is put aside.
pub struct Pruning {
    pruner: Pruner,
    log: LogReader,
    source: BlockSource,
    light: LightStore,
    /// A segment whose light data is not all here. Nothing but a start makes it again, so it is not looked for every time.
    lacking: Option<Oldest>,
}

impl Pruning {
    /// Of a log, its results, and what is kept apart.
    pub fn new(pruner: Pruner, log: LogReader, results: Option<ResultsReader>, light: LightStore) -> Self {
        let source = BlockSource::new(log.clone()).with_light(results, light.clone());
        Self { pruner, log, source, light, lacking: None }
    }

    /// Whether a segment holds evidence: it may wait for a block still.
    fn holds_evidence(&self, segment: Oldest) -> bool {
        self.log.evidence().iter().any(|entry| entry.segment == segment.first_sequence)
    }

    /// Keeps the light data of all blocks up to this height, durably: whether all of it was here to be kept.
    fn put_aside(&mut self, to: Height) -> Result<bool, RecoveryError> {
        let Some(base) = self.log.base().and_then(Height::new) else { return Ok(false) };
        put_aside(&mut self.source, &self.light, base..=to, |_, _| true)
    }
}

/// Keeps the light data of these heights, from the highest downwards and durably, for as long as it is wanted: whether all of that was here to be
/// kept.
pub(crate) fn put_aside(
    source: &mut BlockSource,
    light: &LightStore,
    heights: RangeInclusive<Height>,
    is_wanted: impl Fn(Height, Time) -> bool,
) -> Result<bool, RecoveryError> {
    let (base, mut next) = heights.into_inner();
    while next >= base {
        let count = (next.get() - base.get()).saturating_add(1).min(RUN_MAX as u64);
        let mut blocks = source.headers(next, u32::try_from(count).expect("a short run"), RUN_BYTES as u64, Height::ZERO)?;
        if blocks.first().is_some_and(|top| !is_wanted(top.header.height, top.header.time)) {
            break;
        }
        let (mut polkas, mut bytes, mut count) = (Vec::new(), 0, 0);
        // The run ends, too, where its polkas are as many as a file takes.
        while let Some(block) = blocks.get(count)
            && bytes <= RUN_BYTES
        {
            let max = (POLKAS_BYTES_MAX / (block.validators.len() * POLKA_SLOT_BYTES)).max(1);
            let found = source.kept_polkas(block.header.height, max)?;
            bytes += found.iter().map(|polka| polka.signatures.len() * POLKA_SLOT_BYTES).sum::<usize>();
            polkas.extend(found);
            count += 1;
        }
        blocks.truncate(count);
        blocks.reverse();
        let Some(lowest) = blocks.first() else { return Ok(false) };
        light.put_aside(&blocks, &polkas)?;
        next = lowest.header.height.previous();
        if next == Height::ZERO {
            break;
        }
    }
    Ok(true)
}

/// Bytes of polkas that are kept of one height, the newest: thousands of rounds.
const POLKAS_BYTES_MAX: usize = 16 << 20;
/// About what a signature of a polka takes.
const POLKA_SLOT_BYTES: usize = 4 + 12 + 64;

impl Retention {
    /// Bodies below this height may go. None for none.
    pub fn below(&self, needs: &Needs) -> Option<Height> {
        // One of the tip itself may have been made of a state that is not the chain's: the next block's header shows.
        let snapshot = needs.oldest_snapshot.filter(|snapshot| *snapshot < needs.tip)?;
        if self.keep_blocks == 0 {
            return None;
        }
        let kept = needs.tip.get().saturating_sub(self.keep_blocks).saturating_add(1);
        let flushed = if planted::has(Bug::PrunesUnflushed) { needs.tip } else { needs.flushed };
        Height::new(kept.min(snapshot.get()).min(flushed.get()))
    }

    /// Lets the oldest segment go, if it may: the height up to which blocks are gone then, and the segment, whose results are
    /// to go too. Where somebody may need their light data, that is put aside first; where it is not all here, the segment waits.
    ///
    /// # Errors
    /// When the disk fails, is full or is damaged.
    pub fn prune_one(&self, pruning: &mut Pruning, needs: &Needs) -> Result<Option<Oldest>, RecoveryError> {
        let Some(oldest) = pruning.pruner.oldest() else { return Ok(None) };
        let Some(height) = Height::new(oldest.height_max) else { return Ok(None) };
        if self.below(needs).is_none_or(|below| height >= below) {
            return Ok(None);
        }
        let (_, above, ..) = decided(&pruning.log, height.next())?;
        let has_expired = needs.has_expired(height.next(), above.header.time);
        if !has_expired && pruning.holds_evidence(oldest) {
            return Ok(None);
        }
        let is_needed = !has_expired || needs.restored().is_none_or(|restored| height.get() >= restored);
        if is_needed && !planted::has(Bug::PrunesUnlit) {
            if pruning.lacking == Some(oldest) {
                return Ok(None);
            }
            if !pruning.put_aside(height)? {
                pruning.lacking = Some(oldest);
                return Ok(None);
            }
        }
        let gone = pruning.pruner.remove(oldest).map_err(|error: LogError| RecoveryError::Log(error))?;
        Ok(gone.then_some(oldest))
    }

    /// Lets the oldest light data go that was put aside, or came with a snapshot, if nobody needs it any more, or nobody can read it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn expire_one(&self, pruning: &Pruning, needs: &Needs) -> Result<Option<Expired>, RecoveryError> {
        let (Some(restored), Some(base)) = (needs.restored(), pruning.log.base()) else { return Ok(None) };
        let Some((run, time)) = pruning.light.oldest()? else { return Ok(None) };
        if self.keep_blocks == 0 || run.to.next().get() >= restored.min(base) {
            return Ok(None);
        }
        // What cannot be read back is of no use to anybody.
        if time.is_some_and(|time| !needs.has_expired(run.to, time)) {
            return Ok(None);
        }
        pruning.light.remove(&run)?;
        Ok(Some(Expired { from: run.from, to: run.to, is_damaged: time.is_none() }))
    }
}
