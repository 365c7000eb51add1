//! Reading results from any thread, beside their writer.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::format::ResultsHeader;
use super::segment::{IndexFile, ResultsSegment, Source, TxIndex, index_of, results_path, segment_of};
use super::{BlockResults, ResultsError};
use crate::disk::Disk;
use crate::error::Context;

/// Where a transaction was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The block's height.
    pub height: u64,
    /// Its place among the block's transactions.
    pub index: u32,
}

/// A view of the results that any number of threads may use. The lock that it shares with the writer is held for a look
/// into memory, never for a read of the disk, so the writer does not wait for readers.
#[derive(Clone)]
pub struct ResultsReader {
    pub(crate) segments: Arc<RwLock<BTreeMap<u64, ResultsSegment>>>,
    /// What is missing below this height is missing for good, as if it had been pruned.
    floor: Arc<AtomicU64>,
}

/// Looks at the results in the log's folder and changes nothing there. Every record is read once, for what finds transactions by
/// their hashes is made in memory. Results that do not verify, and those behind them, are errors when they are asked for.
///
/// # Errors
/// When the disk fails, or a later program wrote them.
pub fn look(disk: &dyn Disk, dir: &str) -> Result<ResultsReader, ResultsError> {
    let names = match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.on("list", dir)?,
    };
    let mut segments = BTreeMap::new();
    for segment in names.iter().filter_map(|name| segment_of(name, ".res")) {
        let path = results_path(dir, segment);
        let mut results = ResultsSegment::new(segment, &path, disk.open(&path).on("open", &path)?);
        results.scan(true)?;
        segments.insert(segment, results);
    }
    Ok(ResultsReader::over(segments))
}

/// Where to look for a transaction, in one segment.
enum Probe {
    /// It is there.
    Found(u64, u32),
    /// The index of this segment, on the disk, must be asked.
    Ask(u64, IndexFile),
    /// Results are missing here.
    Missing(ResultsError),
}

impl ResultsReader {
    pub(crate) fn over(segments: BTreeMap<u64, ResultsSegment>) -> ResultsReader {
        ResultsReader { segments: Arc::new(RwLock::new(segments)), floor: Arc::new(AtomicU64::new(0)) }
    }

    /// What is missing below a height cannot be made again: from now on that is no damage, and what is asked for there is not here.
    pub fn misses_below(&self, height: u64) {
        self.floor.fetch_max(height, Ordering::Relaxed);
    }

    fn floor(&self) -> u64 {
        self.floor.load(Ordering::Relaxed)
    }

    /// The results of a height; nothing if it is below the first or above the last that is here.
    pub fn results(&self, height: u64) -> Result<Option<BlockResults>, ResultsError> {
        let (source, offset, header) = {
            let segments = self.lock();
            let held = |segment: &&ResultsSegment| segment.heights.contains_key(&height);
            match segments.values().find(held) {
                Some(segment) => {
                    let (offset, header) = segment.heights[&height];
                    (segment.source.clone(), offset, header)
                }
                None if height < self.floor() => return Ok(None),
                None => return gap_at(&segments, height).map_or(Ok(None), Err),
            }
        };
        source.read(offset, &header).map(Some)
    }

    /// Where a transaction is; the last place, if it was executed more than once. An index that is damaged is made again
    /// from the results beside it; where those are damaged too, the answer is an error, and not "nowhere". Heights above
    /// [`ResultsReader::last_height`] are not looked at: after a crash they are executed again.
    pub fn lookup(&self, hash: &[u8; 32]) -> Result<Option<Location>, ResultsError> {
        for probe in self.probes(hash) {
            let found = match probe {
                Probe::Found(height, index) => Some((height, index)),
                Probe::Missing(error) => return Err(error),
                Probe::Ask(segment, file) => match file.lookup(hash) {
                    Err(ResultsError::Damaged { .. }) => {
                        // Pruned meanwhile: nothing is there any more.
                        let Some((source, records)) = self.records(segment) else { continue };
                        let index = index_of(segment, &source, &records)?;
                        let found = index.get(hash).copied();
                        self.replace_index(segment, index);
                        found
                    }
                    answer => answer?,
                },
            };
            if let Some((height, index)) = found {
                return Ok(Some(Location { height, index }));
            }
        }
        Ok(None)
    }

    /// The highest height whose results are here.
    pub fn last_height(&self) -> Option<u64> {
        self.lock().values().rev().find_map(|segment| segment.heights.last_key_value().map(|(height, _)| *height))
    }

    /// The lowest of these heights whose results are not here.
    pub fn first_missing(&self, heights: std::ops::RangeInclusive<u64>) -> Option<u64> {
        if heights.is_empty() {
            return None;
        }
        let segments = self.lock();
        let mut expected = *heights.start();
        for height in segments.values().flat_map(|segment| segment.heights.range(heights.clone()).map(|(height, _)| *height)) {
            if height != expected {
                break;
            }
            expected += 1;
        }
        (expected <= *heights.end()).then_some(expected)
    }

    /// The segment that results are appended to, which may hold none so far.
    pub fn open_segment(&self) -> Option<u64> {
        self.lock().last_key_value().map(|(segment, _)| *segment)
    }

    /// The segment with which to begin when this height's results are to be made again: the last that begins at or below it.
    /// Zero, which is below every segment, if none does.
    pub fn holder_of(&self, height: u64) -> u64 {
        let segments = self.lock();
        let begins_below = |segment: &&ResultsSegment| segment.heights.first_key_value().is_some_and(|(first, _)| *first <= height);
        segments.values().rev().find(begins_below).map_or(0, |segment| segment.segment)
    }

    /// The first segment with something in its file that cannot be read as records, and the place.
    pub fn damaged_segment(&self) -> Option<(u64, ResultsError)> {
        self.lock().values().find(|segment| segment.damaged).map(|segment| (segment.segment, segment.damage()))
    }

    /// Reads and verifies every record: the first height that fails, and how. Indexes are verified when they are used, and
    /// made again from the records then.
    pub fn verify(&self) -> Result<u64, (u64, ResultsError)> {
        let heights: Vec<u64> = self.lock().values().flat_map(|segment| segment.heights.keys().copied().collect::<Vec<_>>()).collect();
        for height in &heights {
            self.results(*height).map_err(|error| (*height, error))?;
        }
        Ok(heights.len() as u64)
    }

    /// Newest first.
    fn probes(&self, hash: &[u8; 32]) -> Vec<Probe> {
        let segments = self.lock();
        let floor = self.floor();
        let mut probes = Vec::new();
        let mut above: Option<u64> = None;
        for segment in segments.values().rev() {
            let (first, last) = match (segment.heights.first_key_value(), segment.heights.last_key_value()) {
                (Some((first, _)), Some((last, _))) => (*first, *last),
                _ if segment.damaged && above.is_none_or(|above| above > floor) => {
                    probes.push(Probe::Missing(segment.damage()));
                    break;
                }
                _ => continue,
            };
            let ends_early = segment.damaged || above.is_some_and(|above| last.checked_add(1) != Some(above));
            if ends_early && above.is_none_or(|above| above > floor) {
                probes.push(Probe::Missing(segment.damage()));
            }
            match &segment.index {
                TxIndex::Memory(index) => probes.extend(index.get(hash).map(|(height, index)| Probe::Found(*height, *index))),
                TxIndex::File(file) => probes.push(Probe::Ask(segment.segment, file.clone())),
            }
            if last - first + 1 != segment.heights.len() as u64 && segment.has_gap_from(floor) {
                probes.push(Probe::Missing(segment.damage()));
            }
            above = Some(first);
        }
        probes
    }

    fn records(&self, segment: u64) -> Option<(Source, Vec<(u64, ResultsHeader)>)> {
        self.lock().get(&segment).map(|held| (held.source.clone(), held.heights.values().copied().collect()))
    }

    /// A damaged index is read once: the next lookup finds this one in memory.
    fn replace_index(&self, segment: u64, index: BTreeMap<[u8; 32], (u64, u32)>) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = segments.get_mut(&segment) {
            held.index = TxIndex::Memory(index);
        }
    }

    fn lock(&self) -> RwLockReadGuard<'_, BTreeMap<u64, ResultsSegment>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The damage that a missing height means: it lies between heights that are here, or behind records that do not verify.
fn gap_at(segments: &BTreeMap<u64, ResultsSegment>, height: u64) -> Option<ResultsError> {
    let below = |segment: &&ResultsSegment| segment.heights.first_key_value().is_some_and(|(first, _)| *first < height);
    let above = segments.values().any(|segment| segment.heights.last_key_value().is_some_and(|(last, _)| *last > height));
    let holder = segments.values().rev().find(below).or_else(|| segments.values().next())?;
    let inside = above && segments.values().any(|segment| below(&segment));
    (inside || holder.damaged).then(|| holder.damage())
}
