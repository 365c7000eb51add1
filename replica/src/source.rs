//! What the log holds for peers, read beside the replica: [`crate::Effect::Read`].

use bytes::Bytes;
use lockstep_app::snapshot::{self, Difference, Manifest, Outline};
use lockstep_storage::DiskError;
use lockstep_storage::log::{Entry, Kind, LogError, LogReader, Stored};
use lockstep_storage::results::ResultsReader;
use lockstep_types::block::{self, PART_BYTES, PARTS_MAX, Part, part_set_header};
use lockstep_types::codec;
use lockstep_types::light::LightBlock;
use lockstep_types::{Block, BlockId, Commit, Hash, Header, Height, Polka, ValidatorSet};

use crate::light_store::LightStore;
use crate::recovery::RecoveryError;
use crate::results::kept_block;
use crate::seam::{ReadAnswer, ReadQuestion};
use crate::wire::{POLKAS_MAX, SNAPSHOTS_MAX, WHOLE_PARTS_MAX, WIRE_VERSION};

/// Bound on a decision that is read back.
const DECISION_BYTES_MAX: usize = 1 << 20;

/// The snapshots of a node, for peers.
pub trait Snapshots: Send {
    /// The heights of those that are whole, in any order.
    ///
    /// # Errors
    /// When the disk fails.
    fn heights(&self) -> Result<Vec<Height>, DiskError>;
    /// The bytes of a manifest.
    ///
    /// # Errors
    /// When the disk fails.
    fn manifest(&self, height: Height) -> Result<Option<Vec<u8>>, DiskError>;
    /// A chunk of the snapshot of this height, packed.
    ///
    /// # Errors
    /// When the disk fails.
    fn chunk(&self, height: Height, root: &Hash) -> Result<Option<Vec<u8>>, DiskError>;
}

/// Answers reads from the block log and what lies beside it. Keeps the parts of the last large body, which is asked for range by
/// range: one body, 100 MiB at most; and the last manifest, whose chunks are asked for one by one.
pub struct BlockSource {
    log: LogReader,
    cut: Option<(BlockId, Vec<Part>)>,
    results: Option<ResultsReader>,
    light: Option<LightStore>,
    snapshots: Option<Box<dyn Snapshots>>,
    manifest: Option<Manifest>,
}

impl BlockSource {
    /// Reads this log.
    pub fn new(log: LogReader) -> Self {
        Self { log, cut: None, results: None, light: None, snapshots: None, manifest: None }
    }

    /// Answers questions for headers too: the sets are kept with results, and what lies below the log in a store of its own, as do the polkas of
    /// that time.
    #[must_use]
    pub fn with_light(mut self, results: Option<ResultsReader>, light: LightStore) -> Self {
        (self.results, self.light) = (results, Some(light));
        self
    }

    /// Answers questions for snapshots too.
    #[must_use]
    pub fn with_snapshots(mut self, snapshots: Box<dyn Snapshots>) -> Self {
        self.snapshots = Some(snapshots);
        self
    }

    /// What is there; nothing of what is not.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub fn read(&mut self, what: &ReadQuestion) -> Result<ReadAnswer, RecoveryError> {
        match *what {
            ReadQuestion::Snapshots => self.offers(),
            ReadQuestion::Light { from, count, bytes_max, tip } => {
                let blocks = self.headers(from, count, bytes_max, tip)?;
                Ok(if blocks.is_empty() { ReadAnswer::Absent } else { ReadAnswer::Light(blocks) })
            }
            ReadQuestion::Manifest { height } => self.manifest(height),
            ReadQuestion::Chunk { height, ref root, ref outline } => self.chunk(height, root, outline.as_ref()),
            ReadQuestion::Blocks { from, count, bytes_max } => self.blocks(from, count, bytes_max),
            ReadQuestion::Body { height, block_id } => self.body(height, &block_id),
            ReadQuestion::Parts { height, block_id, from, count } => self.parts(height, &block_id, from, count),
            ReadQuestion::Polkas { height } => self.polkas(height),
        }
    }

    fn offers(&self) -> Result<ReadAnswer, RecoveryError> {
        let mut heights = match &self.snapshots {
            Some(snapshots) => snapshots.heights()?,
            None => Vec::new(),
        };
        heights.sort_unstable_by_key(|height| std::cmp::Reverse(*height));
        heights.truncate(SNAPSHOTS_MAX);
        Ok(ReadAnswer::Snapshots(heights))
    }

    fn manifest(&self, height: Height) -> Result<ReadAnswer, RecoveryError> {
        let Some(snapshots) = &self.snapshots else { return Ok(ReadAnswer::Absent) };
        Ok(snapshots.manifest(height)?.map_or(ReadAnswer::Absent, |bytes| ReadAnswer::Manifest(Bytes::from(bytes))))
    }

    /// A chunk, or how it differs from the asker's. An outline that makes no sense has the whole for an answer.
    fn chunk(&mut self, height: Height, root: &Hash, outline: Option<&Outline>) -> Result<ReadAnswer, RecoveryError> {
        let Some(snapshots) = &self.snapshots else { return Ok(ReadAnswer::Absent) };
        let Some(packed) = snapshots.chunk(height, root)? else { return Ok(ReadAnswer::Absent) };
        if let Some(outline) = outline {
            if self.manifest.as_ref().is_none_or(|manifest| manifest.height() != height) {
                self.manifest = snapshots.manifest(height)?.and_then(|bytes| Manifest::from_bytes(&bytes).ok());
            }
            let info = self.manifest.as_ref().and_then(|manifest| manifest.chunks().iter().find(|chunk| chunk.root == *root));
            let part = info.and_then(|info| snapshot::open(info, &packed).ok());
            if let Some(difference) = part.and_then(|part| Difference::between(&part, outline)) {
                return Ok(ReadAnswer::Difference(Box::new(difference)));
            }
        }
        Ok(ReadAnswer::Chunk(Bytes::from(packed)))
    }

    /// Headers downwards, without a hole. The commit of each is the one that the block above carries: the header above proves it. That of
    /// `tip` is this node's own.
    pub(crate) fn headers(&mut self, from: Height, count: u32, bytes_max: u64, tip: Height) -> Result<Vec<LightBlock>, RecoveryError> {
        let mut blocks: Vec<LightBlock> = Vec::new();
        let mut bytes = 0_u64;
        let mut above: Option<Block> = None;
        let mut next_validators: Option<ValidatorSet> = None;
        let mut height = from;
        while blocks.len() < count as usize && height > Height::ZERO {
            let found = match self.logged(height, tip, above.take(), next_validators.take())? {
                Some((light, block)) => {
                    above = Some(block);
                    Some(light)
                }
                None => self.apart(height, blocks.last().map(|above| &above.header))?,
            };
            let Some(light) = found else { break };
            bytes = bytes.saturating_add(light_bytes(&light));
            if !blocks.is_empty() && bytes > bytes_max {
                break;
            }
            next_validators = Some(light.validators.clone());
            blocks.push(light);
            height = height.previous();
        }
        Ok(blocks)
    }

    /// The header of a decided block, whether or not the validators of its time are here.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub(crate) fn header(&mut self, height: Height) -> Result<Option<Header>, RecoveryError> {
        if let Some(block) = self.block(height)? {
            return Ok(Some(block.header));
        }
        Ok(self.light.as_mut().map(|light| light.get(height)).transpose()?.flatten().map(|light| light.header))
    }

    /// The name of the decided block of a height: from its decision, from what is kept apart, or, where that is damaged, from the block above.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn name(&mut self, height: Height) -> Result<Option<Hash>, RecoveryError> {
        let sound = |found: Result<Option<Hash>, RecoveryError>| match found {
            Err(RecoveryError::Log(LogError::Rot { .. })) => Ok(None),
            found => found,
        };
        if let Some(name) = sound(self.decision(height).map(|found| found.map(|commit| commit.block_id.hash)))? {
            return Ok(Some(name));
        }
        if let Some(light) = self.light.as_mut().map(|light| light.get(height)).transpose()?.flatten() {
            return Ok(Some(light.header.hash()));
        }
        let above = self.block(height.next()).map(|found| found.and_then(|block| block.header.last_block_id).map(|named| named.hash));
        sound(above)
    }

    /// A header that is kept apart from its body. One that came with a snapshot, and is topmost there, has some certificate: it is given only
    /// where that is what the block above carries, or nothing is known of that block.
    fn apart(&mut self, height: Height, above: Option<&Header>) -> Result<Option<LightBlock>, RecoveryError> {
        let Some(light) = self.light.as_mut().map(|light| light.get(height)).transpose()?.flatten() else { return Ok(None) };
        let carried = match above {
            Some(above) => Some(above.last_commit_hash),
            None => match self.block(height.next())? {
                Some(above) => Some(above.header.last_commit_hash),
                None => self
                    .light
                    .as_ref()
                    .map(|light| light.find(height.next()))
                    .transpose()?
                    .flatten()
                    .map(|above| above.header.last_commit_hash),
            },
        };
        Ok(carried.is_none_or(|carried| carried == light.commit.hash()).then_some(light))
    }

    /// A header from the log, with the block it is of. What is known from the one above it is not read again.
    fn logged(
        &mut self,
        height: Height,
        tip: Height,
        above: Option<Block>,
        next_validators: Option<ValidatorSet>,
    ) -> Result<Option<(LightBlock, Block)>, RecoveryError> {
        if self.log.base().is_none_or(|base| height.get() < base) {
            return Ok(None);
        }
        let Some(block) = self.block(height)? else { return Ok(None) };
        let above = match above {
            Some(above) => Some(above),
            None => self.block(height.next())?,
        };
        // Nothing carries the commit of the last block yet: who trusts its hash begins with what this node decided it by. The log may be
        // behind what its node has told others of, so that is not the last block of the log.
        let carried = match above {
            Some(above) => above.last_commit,
            None if height == tip => self.decision(height)?,
            None => None,
        };
        let Some(commit) = carried else { return Ok(None) };
        let next = next_validators.or(self.set_after(height)?).filter(|set| set.hash() == block.header.next_validators_hash);
        let is_it = |set: &ValidatorSet| set.hash() == block.header.validators_hash;
        let mut set = self.set_after(height.previous())?.filter(is_it);
        // The first block of the log may be one whose predecessor was let go with its results.
        if set.is_none()
            && let Some(light) = &mut self.light
        {
            set = light.get(height.previous())?.map(|below| below.next_validators).filter(is_it);
        }
        // No block changes the set of the second height: that of the first is the same.
        let set = set.or_else(|| next.clone().filter(is_it));
        let (Some(validators), Some(next_validators)) = (set, next) else { return Ok(None) };
        Ok(Some((LightBlock { header: block.header.clone(), commit, validators, next_validators }, block)))
    }

    fn block(&self, height: Height) -> Result<Option<Block>, RecoveryError> {
        let Some(commit) = self.decision(height)? else { return Ok(None) };
        let Some(body) = self.log.body(&commit.block_id.hash.0)? else { return Ok(None) };
        let block = Block::decode(&body.payload);
        block.map(Some).map_err(|error| RecoveryError::Record { what: "the body", height: height.get(), error })
    }

    /// The validators of the height after this one, as results have them.
    fn set_after(&self, height: Height) -> Result<Option<ValidatorSet>, RecoveryError> {
        let Some(results) = &self.results else { return Ok(None) };
        Ok(results.results(height.get())?.and_then(|results| kept_block(&results).ok()).map(|kept| kept.validators))
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

    fn polkas(&self, height: Height) -> Result<ReadAnswer, RecoveryError> {
        let mut newest = self.kept_polkas(height, POLKAS_MAX)?;
        newest.reverse();
        Ok(ReadAnswer::Polkas(newest))
    }

    /// What is kept to account for the own votes of a height, in the order in which it was written, at most the newest `max`: in the log, or
    /// where its blocks were let go, beside their headers.
    ///
    /// # Errors
    /// When the disk fails or is damaged.
    pub fn kept_polkas(&self, height: Height, max: usize) -> Result<Vec<Polka>, RecoveryError> {
        // Where the height's block was let go, a part of its records may lie in the next segment still.
        if self.log.base().is_none_or(|base| height.get() < base)
            && let Some(mut apart) = self.light.as_ref().map(|light| light.polkas(height)).transpose()?.filter(|apart| !apart.is_empty())
        {
            return Ok(apart.split_off(apart.len().saturating_sub(max)));
        }
        let mut entries = self.log.entries(height.get());
        entries.retain(|entry| entry.kind == Kind::Polka);
        let read = |entry: &Entry| -> Result<Polka, RecoveryError> {
            let polka = codec::decode(WIRE_VERSION, &self.log.read(entry)?.payload, DECISION_BYTES_MAX);
            polka.map_err(|error| RecoveryError::Record { what: "a polka", height: height.get(), error })
        };
        entries[entries.len().saturating_sub(max)..].iter().map(read).collect()
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

/// About what a header with its commit and sets takes in an answer.
fn light_bytes(light: &LightBlock) -> u64 {
    /// Header, lengths, block id.
    const HEAD_BYTES: u64 = 640;
    /// A slot of the commit.
    const SLOT_BYTES: u64 = 1 + 20 + 12 + 64;
    /// A validator: key, power, priority.
    const VALIDATOR_BYTES: u64 = 32 + 8 + 8;
    let validators = (light.validators.len() + light.next_validators.len()) as u64;
    HEAD_BYTES + SLOT_BYTES * light.commit.signatures.len() as u64 + VALIDATOR_BYTES * validators
}
