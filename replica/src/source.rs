//! What the log holds for peers, read beside the replica: [`crate::Effect::Read`].

use bytes::Bytes;
use lockstep_storage::log::{Entry, Kind, LogReader, Stored};
use lockstep_types::block::{self, PART_BYTES, PARTS_MAX, Part, part_set_header};
use lockstep_types::codec;
use lockstep_types::{BlockId, Commit, Height};

use crate::recovery::RecoveryError;
use crate::seam::{ReadAnswer, ReadQuestion};
use crate::wire::{WHOLE_PARTS_MAX, WIRE_VERSION};

/// Bound on a decision that is read back.
const DECISION_BYTES_MAX: usize = 1 << 20;

/// Answers reads from the block log. Keeps the parts of the last large body, which is asked for range by range: one body, 100 MiB
/// at most.
pub struct BlockSource {
    log: LogReader,
    cut: Option<(BlockId, Vec<Part>)>,
}

impl BlockSource {
    /// Reads this log.
    pub fn new(log: LogReader) -> Self {
        Self { log, cut: None }
    }

    /// What is there; nothing of what is not.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub fn read(&mut self, what: &ReadQuestion) -> Result<ReadAnswer, RecoveryError> {
        match *what {
            ReadQuestion::Blocks { from, count, bytes_max } => self.blocks(from, count, bytes_max),
            ReadQuestion::Body { height, block_id } => self.body(height, &block_id),
            ReadQuestion::Parts { height, block_id, from, count } => self.parts(height, &block_id, from, count),
        }
    }

    fn blocks(&self, from: Height, count: u32, bytes_max: u64) -> Result<ReadAnswer, RecoveryError> {
        let mut blocks = Vec::new();
        let mut bytes = 0u64;
        for offset in 0..u64::from(count) {
            let Some(commit) = self.decision(from.plus(offset))? else { break };
            if commit.block_id.parts.total > WHOLE_PARTS_MAX {
                if blocks.is_empty() {
                    return Ok(ReadAnswer::Certificate(commit));
                }
                break;
            }
            // Not read only to find that it does not fit: its size is known to a part.
            let at_least = u64::from(commit.block_id.parts.total.saturating_sub(1)).saturating_mul(PART_BYTES as u64);
            if !blocks.is_empty() && bytes.saturating_add(at_least) > bytes_max {
                break;
            }
            let Some(body) = self.log.body(&commit.block_id.hash.0)? else { break };
            bytes = bytes.saturating_add(lockstep_sync::fetched_bytes(body.payload.len(), commit.signatures.len()));
            if !blocks.is_empty() && bytes > bytes_max {
                break;
            }
            blocks.push((Bytes::from(body.payload), commit));
        }
        Ok(ReadAnswer::Blocks(blocks))
    }

    fn decision(&self, height: Height) -> Result<Option<Commit>, RecoveryError> {
        let Some(decision) = self.log.decision(height.get())? else { return Ok(None) };
        let commit = codec::decode(WIRE_VERSION, &decision.payload, DECISION_BYTES_MAX);
        commit.map(Some).map_err(|error| RecoveryError::Record { what: "the decision", height: height.get(), error })
    }

    /// The record of a body that may be this one: nothing is read for a name whose parts are more or fewer than the body's, so
    /// that a read never costs more than the question says.
    fn record(&self, height: Height, block_id: &BlockId) -> Result<Option<Stored>, RecoveryError> {
        let parts = |bytes: u32| (bytes as usize).div_ceil(PART_BYTES);
        let is_it = |entry: &&Entry| {
            entry.kind == Kind::Body
                && entry.block_hash == block_id.hash.0
                && parts(entry.payload_bytes) == block_id.parts.total as usize
                && (1..=PARTS_MAX).contains(&block_id.parts.total)
        };
        let entries = self.log.entries(height.get());
        Ok(entries.iter().find(is_it).map(|entry| self.log.read(entry)).transpose()?)
    }

    fn body(&self, height: Height, block_id: &BlockId) -> Result<ReadAnswer, RecoveryError> {
        let Some(stored) = self.record(height, block_id)? else { return Ok(ReadAnswer::Absent) };
        // The name's hash is the header's; its parts may be another's.
        let is_it = part_set_header(&stored.payload) == block_id.parts;
        Ok(ReadAnswer::Body(is_it.then(|| Bytes::from(stored.payload))))
    }

    fn parts(&mut self, height: Height, block_id: &BlockId, from: u32, count: u32) -> Result<ReadAnswer, RecoveryError> {
        if self.cut.as_ref().is_none_or(|(of, _)| of != block_id) {
            let Some(stored) = self.record(height, block_id)? else { return Ok(ReadAnswer::Absent) };
            self.cut = None;
            let (header, parts) = block::cut(&stored.payload);
            if header != block_id.parts {
                return Ok(ReadAnswer::Parts(Vec::new()));
            }
            self.cut = Some((*block_id, parts));
        }
        let parts = self.cut.iter().flat_map(|(_, parts)| parts);
        Ok(ReadAnswer::Parts(parts.skip(from as usize).take(count.min(WHOLE_PARTS_MAX) as usize).cloned().collect()))
    }
}
