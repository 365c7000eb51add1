//! The one writer of results.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLockWriteGuard};

use super::format::ResultsHeader;
use super::reader::ResultsReader;
use super::segment::{ResultsSegment, Source, TxIndex, index_path, results_path, segment_of};
use super::{BlockResults, RESULTS_BYTES_MAX, ResultsError};
use crate::DiskError;
use crate::disk::Disk;
use crate::error::Context;
use crate::planted::{self, Bug};

/// The results, open for writing.
pub struct Results {
    disk: Arc<dyn Disk>,
    dir: String,
    reader: ResultsReader,
    rotten_from: Option<u64>,
    /// Something was written since the last sync.
    dirty: bool,
    failed: bool,
}

impl Results {
    /// Opens the results in the log's folder. `segments` are the log's, oldest first: results of segments that are gone are
    /// removed (a crash may have come between). What the last of them has above `keep` is cut off, and is to be appended again: above
    /// the log's tip it may have been executed on a decision that was never durable, and above the flushed state a sync of it may have
    /// failed, after which the kernel calls pages clean that the disk does not have.
    pub fn open(disk: Arc<dyn Disk>, dir: &str, segments: &[u64], keep: Option<u64>) -> Result<Results, ResultsError> {
        Scanned::new(disk, dir, segments)?.open(keep)
    }

    /// The height of the first record that opening cut off although it had been durable, if its header still says which it was. Other bytes
    /// that do not verify are what a crash leaves of records that were not durable.
    pub fn rotten_from(&self) -> Option<u64> {
        self.rotten_from
    }

    /// Appends the results of a height to those of `segment`, the log's segment that holds its decision. Heights come in
    /// order, and one that is there already is ignored: execution after a restart begins at the flushed state, which may
    /// be behind. The first results of a later segment close the one before.
    pub fn append(&mut self, segment: u64, results: &BlockResults) -> Result<(), ResultsError> {
        if self.failed {
            return Err(ResultsError::Failed);
        }
        if self.reader.last_height().is_some_and(|last| results.height <= last) {
            return Ok(());
        }
        let open = self.open_segment();
        if open.is_some_and(|open| segment < open) {
            return Err(ResultsError::Closed { height: results.height, segment });
        }
        let mut payload = Vec::with_capacity(results.encoded_bytes());
        borsh::to_writer(&mut payload, results).expect("a Vec takes every byte");
        let payload_bytes = u32::try_from(payload.len()).ok().filter(|bytes| *bytes <= RESULTS_BYTES_MAX);
        let payload_bytes = payload_bytes.ok_or(ResultsError::TooLarge { bytes: payload.len() })?;
        let header = ResultsHeader { segment, height: results.height, payload_bytes };
        if open != Some(segment) {
            self.begin(open, segment)?;
        }
        let (source, offset) = self.end_of(segment);
        let written = source.file.write_at(offset, &header.encode(&payload)).on("write", &source.path);
        written.map_err(|error| self.fail(error))?;
        self.dirty = true;
        let mut segments = self.segments();
        let open = segments.get_mut(&segment).expect("it is open");
        open.heights.insert(header.height, (offset, header));
        open.end += header.record_bytes();
        open.remember(results);
        Ok(())
    }

    /// Makes everything appended durable; to be called before the state that came of it is flushed.
    pub fn sync(&mut self) -> Result<(), ResultsError> {
        if self.failed {
            return Err(ResultsError::Failed);
        }
        if let Some(open) = self.open_segment().filter(|_| self.dirty && !planted::has(Bug::ResultsUnsynced)) {
            let (source, _) = self.end_of(open);
            let synced = source.file.sync_data().on("sync", &source.path);
            let synced = synced.and_then(|()| self.disk.sync_dir(&self.dir).on("sync", &self.dir));
            synced.map_err(|error| self.fail(error))?;
        }
        self.dirty = false;
        Ok(())
    }

    /// Removes what belongs to segments that [`crate::log::BlockLog::prune`] has removed.
    pub fn remove(&mut self, segments: &[u64]) -> Result<(), ResultsError> {
        for segment in segments {
            let Some(gone) = self.segments().remove(segment) else { continue };
            self.disk.unlink(&gone.source.path).on("remove", &gone.source.path)?;
            let index = index_path(&self.dir, *segment);
            match self.disk.unlink(&index) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).on("remove", &index)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// For other threads; clone it freely.
    pub fn reader(&self) -> ResultsReader {
        self.reader.clone()
    }

    /// Closes the segment before, with its index, and begins one.
    fn begin(&mut self, older: Option<u64>, segment: u64) -> Result<(), ResultsError> {
        if let Some(older) = older {
            self.sync()?;
            let written = {
                let segments = self.reader.segments.read().unwrap_or_else(PoisonError::into_inner);
                segments[&older].write_index(&*self.disk, &self.dir)
            };
            match written {
                Ok(Some(index)) => self.segments().get_mut(&older).expect("it was just read").index = TxIndex::File(index),
                Ok(None) => {}
                Err(error) => {
                    self.failed = !error.is_no_space();
                    return Err(error);
                }
            }
        }
        let path = results_path(&self.dir, segment);
        let file = self.disk.create(&path).on("create", &path).map_err(|error| self.fail(error))?;
        self.segments().insert(segment, ResultsSegment::new(segment, &path, file));
        Ok(())
    }

    /// The segment that is written to.
    fn open_segment(&self) -> Option<u64> {
        self.segments().last_key_value().map(|(segment, _)| *segment)
    }

    /// An open segment's file, and where its records end.
    fn end_of(&self, segment: u64) -> (Source, u64) {
        let segments = self.segments();
        let open = &segments[&segment];
        (open.source.clone(), open.end)
    }

    fn segments(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, ResultsSegment>> {
        self.reader.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&mut self, error: DiskError) -> ResultsError {
        let error = ResultsError::Disk(error);
        self.failed = !error.is_no_space();
        error
    }
}

/// Results that were read, of which nobody has said yet what to keep: reading them takes long, and needs nothing else.
pub struct Scanned {
    disk: Arc<dyn Disk>,
    dir: String,
    segments: BTreeMap<u64, ResultsSegment>,
}

impl Scanned {
    /// Reads the results in the log's folder, as [`Results::open`] does.
    ///
    /// # Errors
    /// When the disk fails, or a newer program wrote them.
    pub fn new(disk: Arc<dyn Disk>, dir: &str, segments: &[u64]) -> Result<Self, ResultsError> {
        disk.create_dir(dir).on("create", dir)?;
        let mut held = Vec::new();
        for name in disk.list(dir).on("list", dir)? {
            let results = segment_of(&name, ".res");
            let is_stale = |segment: u64| segments.binary_search(&segment).is_err();
            let stale = results.is_some_and(is_stale) || segment_of(&name, ".idx").is_some_and(is_stale);
            if stale || name.ends_with(".idx.new") {
                let path = format!("{dir}/{name}");
                disk.unlink(&path).on("remove", &path)?;
            } else {
                held.extend(results);
            }
        }
        let last = held.last().copied();
        let mut opened = BTreeMap::new();
        for segment in held {
            let path = results_path(dir, segment);
            let file = disk.open(&path).on("open", &path)?;
            let mut results = ResultsSegment::new(segment, &path, file);
            if Some(segment) == last {
                results.scan(true)?;
            } else if results.open_index(&*disk, dir)? {
                results.scan(false)?;
            } else {
                results.scan(true)?;
                if !results.damaged
                    && let Some(index) = results.write_index(&*disk, dir)?
                {
                    results.index = TxIndex::File(index);
                }
            }
            opened.insert(segment, results);
        }
        Ok(Self { disk, dir: dir.to_owned(), segments: opened })
    }

    /// Opens them; what the last of them has above `keep` is cut off.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(mut self, keep: Option<u64>) -> Result<Results, ResultsError> {
        let mut rotten_from = None;
        if let Some(mut last) = self.segments.last_entry() {
            rotten_from = last.get().rotten_from(keep)?;
            cut_above(last.get_mut(), keep)?;
        }
        let Self { disk, dir, segments } = self;
        Ok(Results { disk, dir, reader: ResultsReader::over(segments), rotten_from, dirty: true, failed: false })
    }
}

/// Cuts what a crash left of the last segment down to the records that verify and are not above this height.
fn cut_above(results: &mut ResultsSegment, keep: Option<u64>) -> Result<(), ResultsError> {
    let above = results.heights.iter().find(|(height, _)| keep.is_none_or(|keep| **height > keep)).map(|(_, (offset, _))| *offset);
    if let Some(end) = above.or(results.damaged.then_some(results.end)) {
        let source = results.source.clone();
        source.file.set_len(end).on("cut", &source.path)?;
        source.file.sync_data().on("sync", &source.path)?;
        results.forget_from(end)?;
    }
    Ok(())
}
