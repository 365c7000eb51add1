//! Headers with their commits and validators, kept apart from bodies for as long as evidence may be about them: of blocks that this node
//! let go, and of those below the snapshot that a restored replica began with. Judges of evidence, light clients and others who
//! restore find them here; polkas of that time, which account for own votes, too.
//!
//! Runs of heights, a file each, written once and never changed.
//!
//! | file | what |
//! |---|---|
//! | `<from>-<to>` | headers that came with a snapshot, proven; the commit of the topmost is some certificate |
//! | `pruned-<from>-<to>` | headers of blocks that this node let go, each with the commit that the block above carries |
//! | `polkas-<from>-<to>` | the polkas that the log kept of those heights; there is none where there were none |
//! | `roots` | names of blocks that this node certified, from a log of which nothing could be used any more ([`Root`]) |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_storage::DiskError;
use lockstep_storage::disk::Disk;
use lockstep_types::light::LightBlock;
use lockstep_types::planted::{self, Bug};
use lockstep_types::{Hash, Height, Polka, Time, codec};

use crate::state_sync::files::{Folder, sealed, unsealed};

/// Where they lie in a home.
pub const LIGHT_PATH: &str = "light";

/// First byte of a file, behind its digest: a list as it is.
const PLAIN: u8 = 1;
/// First byte of a file, behind its digest: the number of raw bytes, and the list packed.
const PACKED: u8 = 2;
/// Most bytes of a list: a run of headers of the largest sets.
const BYTES_MAX: usize = 32 << 20;
/// zstd's level: nearly all of what repeats is the same sets again and again, which any level finds.
const LEVEL: i32 = 1;
/// Most headers of a run.
pub(crate) const RUN_MAX: usize = 512;
/// Bytes after which a run ends: one height's more, at most, is in a file.
pub(crate) const RUN_BYTES: usize = 4 << 20;
/// Polkas of one run that are read back; those of one height that are kept are fewer, by their bytes.
const POLKAS_MAX: usize = 1 << 17;

/// The file of roots.
const ROOTS: &str = "roots";
/// More than one for each bit of a height.
const ROOTS_BYTES_MAX: usize = 8 << 10;

/// A block that this node certified itself, and lost: snapshots above it can be trusted by it for as long as by any header of its
/// time, where nothing newer is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Root {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: Hash,
    /// Its time.
    pub time: Time,
}

/// What a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// A snapshot.
    Snapshot,
    /// Blocks that were here.
    Pruned,
}

/// Heights of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The highest of it: runs are in the order in which they expire.
    pub to: Height,
    /// The lowest of it.
    pub from: Height,
    origin: Origin,
}

impl Run {
    fn named(name: &str) -> Option<Self> {
        let (origin, heights) = match name.strip_prefix("pruned-") {
            Some(heights) => (Origin::Pruned, heights),
            None => (Origin::Snapshot, name),
        };
        let (from, to) = heights.split_once('-')?;
        Some(Self { from: Height::new(from.parse().ok()?)?, to: Height::new(to.parse().ok()?)?, origin })
    }

    fn name(&self) -> String {
        let prefix = if self.origin == Origin::Pruned { "pruned-" } else { "" };
        format!("{prefix}{:020}-{:020}", self.from.get(), self.to.get())
    }

    fn polkas_name(&self) -> String {
        format!("polkas-{:020}-{:020}", self.from.get(), self.to.get())
    }

    fn holds(&self, height: Height) -> bool {
        (self.from..=self.to).contains(&height)
    }
}

/// Reads and keeps. A clone sees what another keeps.
#[derive(Clone)]
pub struct LightStore {
    folder: Folder,
    /// Each with the time of its highest block, once somebody asked.
    runs: Arc<RwLock<BTreeMap<Run, Option<Time>>>>,
    /// Files that were found damaged, and whether that was told.
    damaged: Arc<Mutex<BTreeMap<String, bool>>>,
    /// What was read last.
    last: Option<(Run, Arc<[LightBlock]>)>,
}

impl LightStore {
    /// What lies in the home.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, DiskError> {
        let folder = Folder::new(disk, LIGHT_PATH);
        let runs = folder.names()?.iter().filter_map(|name| Some((Run::named(name)?, None))).collect();
        Ok(Self { folder, runs: Arc::new(RwLock::new(runs)), damaged: Arc::default(), last: None })
    }

    /// The block of a height, if it is kept. What does not verify counts as not kept.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn get(&mut self, height: Height) -> Result<Option<LightBlock>, DiskError> {
        for run in self.of(height) {
            if self.last.as_ref().is_none_or(|(last, _)| *last != run) {
                self.last = self.read(&run)?.map(|blocks| (run, Arc::from(blocks)));
            }
            if let Some(found) = self.last.as_ref().and_then(|(_, blocks)| within(blocks, height)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The same, and nothing is remembered for the next: for who asks rarely.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn find(&self, height: Height) -> Result<Option<LightBlock>, DiskError> {
        Self { last: None, ..self.clone() }.get(height)
    }

    /// The block of a height that came with a snapshot.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn restored(&self, height: Height) -> Result<Option<LightBlock>, DiskError> {
        for run in self.of(height).into_iter().filter(|run| run.origin == Origin::Snapshot) {
            if let Some(found) = self.read(&run)?.and_then(|blocks| within(&blocks, height)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Polkas of a height whose block was let go, newest rounds last.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn polkas(&self, height: Height) -> Result<Vec<Polka>, DiskError> {
        let mut found = Vec::new();
        for run in self.of(height).into_iter().filter(|run| run.origin == Origin::Pruned) {
            let polkas = self.decoded(&run.polkas_name(), |bytes| unpack::<Polka>(bytes, POLKAS_MAX))?;
            found.extend(polkas.unwrap_or_default().into_iter().filter(|polka| polka.height == height));
        }
        Ok(found)
    }

    /// The lowest height from which on everything below `above` is kept; `above` itself where nothing is.
    pub fn base_below(&self, above: Height) -> Height {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let mut base = above;
        for run in runs.keys().rev() {
            if run.to.next() < base {
                break;
            }
            base = base.min(run.from);
        }
        base
    }

    /// The lowest height that is kept below `above`; `above` itself where nothing is. What a disk damaged may be missing in between.
    pub fn lowest_below(&self, above: Height) -> Height {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        runs.keys().map(|run| run.from).min().map_or(above, |lowest| lowest.min(above))
    }

    /// Keeps headers that came with a snapshot, by ascending heights without a gap, durable when this returns.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn keep(&mut self, blocks: &[LightBlock]) -> Result<(), DiskError> {
        let Some(run) = run_of(blocks, Origin::Snapshot) else { return Ok(()) };
        self.put(&run.name(), &encode(blocks))?;
        self.note(run)
    }

    /// Keeps headers of blocks that are about to go, by ascending heights without a gap, and the polkas of those heights. Durable when
    /// this returns.
    ///
    /// # Errors
    /// When the disk fails or is full.
    pub fn put_aside(&self, blocks: &[LightBlock], polkas: &[Polka]) -> Result<(), DiskError> {
        let Some(run) = run_of(blocks, Origin::Pruned) else { return Ok(()) };
        // Who finds the headers finds these, too.
        if !polkas.is_empty() && !planted::has(Bug::PolkasPruned) {
            self.put(&run.polkas_name(), &pack(polkas))?;
        }
        self.put(&run.name(), &pack(blocks))?;
        self.note(run)
    }

    /// The run that expires next, with the time of its highest block; no time where it cannot be read back.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn oldest(&self) -> Result<Option<(Run, Option<Time>)>, DiskError> {
        let first = {
            let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
            runs.first_key_value().map(|(run, time)| (*run, *time))
        };
        let Some((run, None)) = first else { return Ok(first) };
        let time = self.read(&run)?.and_then(|blocks| within(&blocks, run.to)).map(|block| block.header.time);
        if let Some(known) = self.runs.write().unwrap_or_else(PoisonError::into_inner).get_mut(&run) {
            *known = time;
        }
        Ok(Some((run, time)))
    }

    /// Lets a run go.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(&self, run: &Run) -> Result<(), DiskError> {
        self.runs.write().unwrap_or_else(PoisonError::into_inner).remove(run);
        // The headers last: they are what the next start finds the run by.
        if run.origin == Origin::Pruned {
            self.folder.remove(&run.polkas_name())?;
            self.folder.sync_names()?;
        }
        self.folder.remove(&run.name())?;
        self.folder.sync_names()
    }

    /// Whether headers are kept that came with a snapshot.
    pub(crate) fn is_of_snapshot(&self) -> bool {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        runs.keys().any(|run| run.origin == Origin::Snapshot)
    }

    /// Remembers roots, in the place of those that were, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn keep_roots(&self, roots: &[Root]) -> Result<(), DiskError> {
        let unnamed = format!("{ROOTS}.new");
        self.put(&unnamed, &sealed(&borsh::to_vec(roots).expect("in memory")))?;
        self.folder.rename(&unnamed, ROOTS)?;
        self.folder.sync_names()
    }

    /// The roots that are remembered. What does not verify is none.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn roots(&self) -> Result<Vec<Root>, DiskError> {
        let bytes = self.folder.read(ROOTS, ROOTS_BYTES_MAX)?;
        let roots = bytes.and_then(|bytes| borsh::from_slice(unsealed(&bytes)?).ok());
        Ok(roots.unwrap_or_default())
    }

    /// Forgets all of it: another snapshot is restored.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn clear(&mut self) -> Result<(), DiskError> {
        self.runs.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.last = None;
        self.folder.sweep(|_| false)
    }

    /// The runs that hold a height: first those whose commits are the ones that the blocks above carry.
    fn of(&self, height: Height) -> Vec<Run> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let mut held: Vec<Run> = runs.keys().filter(|run| run.holds(height)).copied().collect();
        held.sort_by_key(|run| std::cmp::Reverse(run.origin));
        held
    }

    fn read(&self, run: &Run) -> Result<Option<Vec<LightBlock>>, DiskError> {
        self.decoded(&run.name(), decode)
    }

    /// What a file holds; nothing where it is not there, or does not verify, which is remembered.
    fn decoded<T>(&self, name: &str, decode: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>, DiskError> {
        let Some(bytes) = self.folder.read(name, BYTES_MAX)? else { return Ok(None) };
        let decoded = decode(&bytes);
        if decoded.is_none() {
            self.damaged.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_insert(false);
        }
        Ok(decoded)
    }

    /// Files that were found damaged since this was asked last: each once, below the data folder.
    pub fn newly_damaged(&self) -> Vec<String> {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |(name, told): (&String, &mut bool)| (!std::mem::replace(told, true)).then(|| format!("{LIGHT_PATH}/{name}"));
        damaged.iter_mut().filter_map(told).collect()
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.folder.write(name, bytes)?;
        self.folder.sync(name)
    }

    /// Makes the names durable, and from then on it is there for readers.
    fn note(&self, run: Run) -> Result<(), DiskError> {
        self.folder.sync_names()?;
        self.runs.write().unwrap_or_else(PoisonError::into_inner).insert(run, None);
        Ok(())
    }
}

fn run_of(blocks: &[LightBlock], origin: Origin) -> Option<Run> {
    Some(Run { from: blocks.first()?.header.height, to: blocks.last()?.header.height, origin })
}

fn within(blocks: &[LightBlock], height: Height) -> Option<LightBlock> {
    blocks.iter().find(|block| block.header.height == height).cloned()
}

/// A run of headers as a file has it that came with a snapshot.
pub(crate) fn encode(blocks: &[LightBlock]) -> Vec<u8> {
    sealed(&codec::encode(PLAIN, &blocks))
}

/// The run in a file; nothing when it is none.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<LightBlock>> {
    let whole = unsealed(bytes)?;
    if whole.first() == Some(&PACKED) {
        return unpack(bytes, RUN_MAX);
    }
    codec::decode::<List<LightBlock>>(PLAIN, whole, BYTES_MAX).ok().map(|list| list.0).filter(|run| run.len() <= RUN_MAX)
}

fn pack<T: BorshSerialize>(list: &[T]) -> Vec<u8> {
    let raw = borsh::to_vec(list).expect("in memory");
    let mut bytes = vec![PACKED];
    bytes.extend_from_slice(&u32::try_from(raw.len()).expect("runs are short").to_le_bytes());
    bytes.extend(zstd::bulk::compress(&raw, LEVEL).expect("compressing in memory does not fail"));
    sealed(&bytes)
}

fn unpack<T: BorshDeserialize>(bytes: &[u8], max: usize) -> Option<Vec<T>> {
    let (head, frame) = unsealed(bytes)?.split_first_chunk::<5>()?;
    let [PACKED, claimed @ ..] = *head else { return None };
    let claimed = Some(u32::from_le_bytes(claimed) as usize).filter(|claimed| *claimed <= BYTES_MAX)?;
    let raw = zstd::bulk::decompress(frame, claimed).ok()?;
    let list = List::try_from_slice(&raw).ok()?.0;
    (raw.len() == claimed && list.len() <= max).then_some(list)
}

/// A list of at most [`POLKAS_MAX`].
struct List<T>(Vec<T>);

impl<T: BorshDeserialize> BorshDeserialize for List<T> {
    fn deserialize_reader<R: std::io::Read>(reader: &mut R) -> std::io::Result<Self> {
        Ok(Self(codec::read_list(reader, POLKAS_MAX)?))
    }
}
