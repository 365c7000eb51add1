//! What the log holds for peers, read beside the replica: [`crate::Effect::Read`].

use bytes::Bytes;
use lockstep_storage::log::LogReader;
use lockstep_types::block::{self, Part, part_set_header};
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
            ReadQuestion::Body { block_id } => self.body(&block_id).map(ReadAnswer::Body),
            ReadQuestion::Parts { block_id, from, count } => self.parts(&block_id, from, count).map(ReadAnswer::Parts),
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

    fn body(&self, block_id: &BlockId) -> Result<Option<Bytes>, RecoveryError> {
        let stored = self.log.body(&block_id.hash.0)?;
        // The name's hash is the header's; its parts may be another's.
        Ok(stored.filter(|stored| part_set_header(&stored.payload) == block_id.parts).map(|stored| Bytes::from(stored.payload)))
    }

    fn parts(&mut self, block_id: &BlockId, from: u32, count: u32) -> Result<Vec<Part>, RecoveryError> {
        if self.cut.as_ref().is_none_or(|(of, _)| of != block_id) {
            let Some(stored) = self.log.body(&block_id.hash.0)? else { return Ok(Vec::new()) };
            self.cut = None;
            let (header, parts) = block::cut(&stored.payload);
            if header != block_id.parts {
                return Ok(Vec::new());
            }
            self.cut = Some((*block_id, parts));
        }
        let parts = self.cut.iter().flat_map(|(_, parts)| parts);
        Ok(parts.skip(from as usize).take(count.min(WHOLE_PARTS_MAX) as usize).cloned().collect())
    }
}
