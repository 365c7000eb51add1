//! The one writer of the log.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::format::{RecordHeader, SegmentHeader};
use super::index::{Entry, Index, Segment};
use super::prune::Pruner;
use super::reader::LogReader;
use super::recover::{End, Opening, Recovery, recover};
use super::segment::{EMPTY_SEGMENT_BYTES, Preallocator};
use super::{Kind, LogError, LogOptions, PAYLOAD_BYTES_MAX, Record};
use crate::DiskError;
use crate::disk::Disk;
use crate::error::Context;
use crate::planted::{self, Bug};

/// The block log, open for writing. After an error other than "no space" or a refusal it does nothing more: what is on
/// the disk is known again only when it is read again.
pub struct BlockLog {
    disk: Arc<dyn Disk>,
    dir: String,
    options: LogOptions,
    reader: LogReader,
    preallocator: Preallocator,
    end: End,
    /// Up to where the last segment was filled ahead: behind it, a record makes the file grow.
    filled_bytes: u64,
    failed: bool,
}

impl BlockLog {
    /// Opens the log in `dir`, or begins one. What opening returns is durable.
    pub fn open(disk: Arc<dyn Disk>, dir: &str, options: LogOptions) -> Result<(BlockLog, Recovery), LogError> {
        disk.create_dir(dir).on("create", dir)?;
        let preallocator = Preallocator {
            disk: Arc::clone(&disk),
            dir: Arc::from(dir),
            segment_bytes: options.segment_bytes,
            ready: Arc::new(Mutex::new(None)),
        };
        let (index, end, recovery) = match recover(&disk, dir, Opening::ToWrite)? {
            Some(found) => found,
            None => begin(&preallocator, options.salt)?,
        };
        let marked = end.marked;
        let last = &index.segments[&end.segment];
        let filled_bytes = last.file.len().on("measure", &last.path)?;
        let reader = LogReader { index: Arc::new(RwLock::new(index)) };
        let dir = dir.to_owned();
        let mut log = BlockLog { disk, dir, options, reader, preallocator, end, filled_bytes, failed: false };
        if !marked {
            match log.mark() {
                // A log that is only read needs no mark.
                Ok(()) | Err(LogError::NoSpace(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((log, recovery))
    }

    /// Appends a record and returns its sequence number; it is durable once [`BlockLog::sync`] has returned that number
    /// or a higher one. A body whose hash is known, or a decision that is known, is not written again: the number is
    /// that of the first one.
    ///
    /// A decision must be of the height after the last one, and its body must have been appended before it; so the body
    /// is durable whenever the decision is.
    pub fn append(&mut self, record: Record<'_>) -> Result<u64, LogError> {
        assert!(record.kind != Kind::Mark, "marks are the log's own");
        if record.payload.len() > PAYLOAD_BYTES_MAX as usize {
            return Err(LogError::TooLarge { bytes: record.payload.len() });
        }
        if self.failed {
            return Err(LogError::Failed);
        }
        if let Some(known) = self.known(&record)? {
            return Ok(known);
        }
        if self.end.at_boundary && (self.end.offset >= self.options.segment_bytes || self.may_stop_growing()) {
            self.roll()?;
        }
        self.write(record)
    }

    /// Makes everything appended durable, and returns the last sequence number.
    pub fn sync(&mut self) -> Result<u64, LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        let last = self.end.last_sequence;
        if self.read().durable_sequence < last {
            let segment = self.segment();
            // A sync that failed for want of space has failed: the pages it could not write may be gone.
            if !planted::has(Bug::LogUnsynced) {
                segment.file.sync_data().on("sync", &segment.path).map_err(|error| self.fail(error))?;
            }
            self.index().durable_sequence = last;
        }
        Ok(last)
    }

    /// Syncs, and appends a mark that says so, durably: rot in the records before it is then told from a tear. For when
    /// the log is closed.
    pub fn mark(&mut self) -> Result<(), LogError> {
        self.sync()?;
        self.write(Record { kind: Kind::Mark, height: 0, round: 0, block_hash: [0; 32], payload: &[] })?;
        self.sync()?;
        Ok(())
    }

    /// Unlinks the oldest segments while all they hold is below `below`; never what belongs to the tip. Returns the
    /// segments that are gone, by the sequence number that names them: results and indexes beside them go too.
    pub fn prune(&mut self, below: u64) -> Result<Vec<u64>, LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        let (pruner, mut gone) = (self.pruner(), Vec::new());
        while let Some(oldest) = pruner.oldest().filter(|oldest| oldest.height_max < below) {
            pruner.remove(oldest).inspect_err(|_| self.failed = true)?;
            gone.push(oldest.first_sequence);
        }
        Ok(gone)
    }

    /// Removes old segments, on another thread.
    pub fn pruner(&self) -> Pruner {
        Pruner { disk: Arc::clone(&self.disk), dir: Arc::from(&*self.dir), reader: self.reader.clone() }
    }

    /// For other threads; clone it freely.
    pub fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// Makes the next segment, on another thread.
    pub fn preallocator(&self) -> Preallocator {
        self.preallocator.clone()
    }

    /// Makes the next segment now; see [`Preallocator::preallocate_next`].
    pub fn preallocate_next(&self) -> Result<(), LogError> {
        self.preallocator.preallocate_next()
    }

    /// The sequence number of the last record appended.
    pub fn last_sequence(&self) -> u64 {
        self.end.last_sequence
    }

    /// The number of the record that says the same already. Refuses what contradicts the log.
    fn known(&self, record: &Record<'_>) -> Result<Option<u64>, LogError> {
        let index = self.read();
        let body = index.bodies.get(&record.block_hash);
        if body.is_some_and(|body| body.height != record.height) {
            return Err(LogError::Contradiction { height: record.height });
        }
        match record.kind {
            Kind::Body => Ok(body.map(|body| body.sequence)),
            Kind::Decision => {
                if let Some(known) = index.decisions.get(&record.height) {
                    let same = known.block_hash == record.block_hash;
                    return if same { Ok(Some(known.sequence)) } else { Err(LogError::Contradiction { height: record.height }) };
                }
                if let Some((&last, _)) = index.decisions.last_key_value()
                    && last.checked_add(1) != Some(record.height)
                {
                    return Err(LogError::Gap { last, height: record.height });
                }
                if body.is_none() {
                    return Err(LogError::NoBody { height: record.height });
                }
                Ok(None)
            }
            Kind::Proposal | Kind::Polka | Kind::Mark | Kind::Evidence => Ok(None),
        }
    }

    fn write(&mut self, record: Record<'_>) -> Result<u64, LogError> {
        let sequence = self.end.last_sequence + 1;
        let header = RecordHeader {
            kind: record.kind,
            sequence,
            durable_sequence: self.read().durable_sequence,
            height: record.height,
            round: record.round,
            payload_bytes: u32::try_from(record.payload.len()).expect("append checked the payload's size"),
            block_hash: record.block_hash,
            digest: [0; 32],
        };
        let segment = self.segment();
        let bytes = header.encode(&segment.salt, record.payload);
        if let Err(error) = segment.file.write_at(self.end.offset, &bytes).on("write", &segment.path) {
            // For want of space: what was written of the record does not verify, and the next one overwrites it.
            return Err(if error.is_no_space() { LogError::NoSpace(error) } else { self.fail(error) });
        }
        let entry = Entry::new(&header, self.end.segment, self.end.offset);
        self.index().insert(entry);
        self.end.last_sequence = sequence;
        self.end.offset += header.record_bytes();
        if record.kind != Kind::Mark {
            self.end.at_boundary = record.kind == Kind::Decision;
        }
        Ok(sequence)
    }

    /// Whether the segment grows with each record while one that does not is ready. Where the length of a file is to be durable, too, its
    /// sync waits for the file system's journal, and so for whatever else is written: among busy processes for seconds at times, when a sync
    /// within a file takes milliseconds. So the first segment of a log, for which nobody could make room ahead, is a short one.
    fn may_stop_growing(&self) -> bool {
        self.end.offset >= self.filled_bytes && self.end.offset > EMPTY_SEGMENT_BYTES && self.preallocator.is_ready()
    }

    /// Closes the segment and begins the next. Everything before a segment is durable before the segment is.
    fn roll(&mut self) -> Result<(), LogError> {
        let old = self.segment();
        let old_bytes = old.file.len().on("measure", &old.path)?;
        if old_bytes > self.end.offset {
            // The zeros that were filled ahead and not used.
            old.file.set_len(self.end.offset).on("cut", &old.path).map_err(|error| self.fail(error))?;
        }
        if !planted::has(Bug::RollUnsynced) {
            self.sync()?;
        }
        let header = SegmentHeader { first_sequence: self.end.last_sequence + 1, salt: old.salt };
        let (path, file) = match self.preallocator.start_segment(header) {
            Ok(begun) => begun,
            // Without room for a file nothing has changed.
            Err(error) if error.is_no_space() && error.action != "sync" => return Err(LogError::NoSpace(error)),
            Err(error) => return Err(self.fail(error)),
        };
        self.filled_bytes = file.len().on("measure", &path).map_err(|error| self.fail(error))?;
        let segment = Segment { path, file, salt: header.salt, height_max: 0 };
        self.index().segments.insert(header.first_sequence, segment);
        self.end.segment = header.first_sequence;
        self.end.offset = EMPTY_SEGMENT_BYTES;
        Ok(())
    }

    fn segment(&self) -> Segment {
        self.read().segments[&self.end.segment].clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.reader.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> RwLockWriteGuard<'_, Index> {
        self.reader.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&mut self, error: DiskError) -> LogError {
        self.failed = true;
        LogError::Disk(error)
    }
}

/// The first segment of a log that does not exist.
fn begin(preallocator: &Preallocator, salt: [u8; 32]) -> Result<(Index, End, Recovery), LogError> {
    let header = SegmentHeader { first_sequence: 1, salt };
    let (path, file) = preallocator.start_segment(header)?;
    let mut index = Index::default();
    index.segments.insert(1, Segment { path, file, salt, height_max: 0 });
    let end = End { segment: 1, offset: EMPTY_SEGMENT_BYTES, last_sequence: 0, at_boundary: false, marked: true };
    Ok((index, end, Recovery { created: true, ..Recovery::default() }))
}
