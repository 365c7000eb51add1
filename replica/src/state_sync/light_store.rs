//! Headers with their commits and validators, kept apart from bodies: those below the block that a restored replica begins
//! with, for evidence of that time and for others who restore. Runs of heights, a file each; one is written once and never changed.

use std::sync::Arc;

use borsh::BorshDeserialize;
use lockstep_storage::DiskError;
use lockstep_storage::disk::Disk;
use lockstep_types::Height;
use lockstep_types::codec;
use lockstep_types::light::LightBlock;

use super::files::{Folder, sealed, unsealed};

/// Where they lie in a home.
pub const LIGHT_PATH: &str = "light";

/// First byte of a file, behind its digest.
const VERSION: u8 = 1;
/// Most bytes of a file: a run of headers of the largest sets.
const BYTES_MAX: usize = 32 << 20;

/// Reads what is kept. Opening lists the folder; what is added by another is seen by who opens later.
pub struct LightStore {
    folder: Folder,
    /// The lowest and highest height of each run, by ascending heights.
    runs: Vec<(Height, Height)>,
    /// The run that was read last.
    last: Option<Vec<LightBlock>>,
}

impl LightStore {
    /// What lies in the home.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, DiskError> {
        let folder = Folder::new(disk, LIGHT_PATH);
        let runs = folder.names()?.iter().filter_map(|name| run(name)).collect();
        Ok(Self { folder, runs, last: None })
    }

    /// The block of a height, if it is kept. What does not verify counts as not kept.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn get(&mut self, height: Height) -> Result<Option<LightBlock>, DiskError> {
        if let Some(found) = self.last.as_deref().and_then(|blocks| within(blocks, height)) {
            return Ok(Some(found));
        }
        self.last = self.run_of(height)?;
        Ok(self.last.as_deref().and_then(|blocks| within(blocks, height)))
    }

    /// The same, and nothing is remembered for the next: for who asks rarely.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn find(&self, height: Height) -> Result<Option<LightBlock>, DiskError> {
        Ok(self.run_of(height)?.and_then(|blocks| within(&blocks, height)))
    }

    fn run_of(&self, height: Height) -> Result<Option<Vec<LightBlock>>, DiskError> {
        let Some((from, to)) = self.runs.iter().find(|(from, to)| (*from..=*to).contains(&height)).copied() else { return Ok(None) };
        Ok(self.folder.read(&name(from, to), BYTES_MAX)?.and_then(|bytes| decode(&bytes)))
    }

    /// Keeps a run, by ascending heights without a gap, durable when this returns.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep(&mut self, blocks: &[LightBlock]) -> Result<(), DiskError> {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else { return Ok(()) };
        let run = (first.header.height, last.header.height);
        let name = name(run.0, run.1);
        self.folder.write(&name, &encode(blocks))?;
        self.folder.sync(&name)?;
        self.folder.sync_names()?;
        if !self.runs.contains(&run) {
            self.runs.push(run);
            self.runs.sort_unstable();
        }
        Ok(())
    }

    /// Forgets all of it: another snapshot is restored.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn clear(&mut self) -> Result<(), DiskError> {
        self.runs.clear();
        self.last = None;
        self.folder.sweep(|_| false)
    }
}

fn within(blocks: &[LightBlock], height: Height) -> Option<LightBlock> {
    blocks.iter().find(|block| block.header.height == height).cloned()
}

fn name(from: Height, to: Height) -> String {
    format!("{:020}-{:020}", from.get(), to.get())
}

fn run(name: &str) -> Option<(Height, Height)> {
    let (from, to) = name.split_once('-')?;
    Some((Height::new(from.parse().ok()?)?, Height::new(to.parse().ok()?)?))
}

/// A run of headers as a file has it.
pub(super) fn encode(blocks: &[LightBlock]) -> Vec<u8> {
    sealed(&codec::encode(VERSION, &blocks))
}

/// The run in a file; nothing when it is none.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<LightBlock>> {
    struct Run(Vec<LightBlock>);
    impl BorshDeserialize for Run {
        fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
            Ok(Self(codec::read_list(reader, crate::wire::LIGHT_MAX)?))
        }
    }
    codec::decode::<Run>(VERSION, unsealed(bytes)?, BYTES_MAX).ok().map(|run| run.0)
}
