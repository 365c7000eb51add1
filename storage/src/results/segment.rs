//! The results of one segment: its file, where each height lies in it, and its index.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::format::{Flaw, HEADER_BYTES, IndexEntry, PAGE_BYTES, ResultsHeader, decode_page, encode_index};
use super::{BlockResults, RESULTS_BYTES_MAX, ResultsError};
use crate::disk::{Disk, DiskFile};
use crate::error::Context;

pub(crate) fn results_path(dir: &str, segment: u64) -> String {
    format!("{dir}/{segment:020}.res")
}

pub(crate) fn index_path(dir: &str, segment: u64) -> String {
    format!("{dir}/{segment:020}.idx")
}

/// The segment that a file name says, if it is one of ours.
pub(crate) fn segment_of(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// An open index.
#[derive(Clone)]
pub(crate) struct IndexFile {
    segment: u64,
    path: Arc<str>,
    file: Arc<dyn DiskFile>,
    pages: u32,
}

/// The index of a segment: on the disk once it is closed, in memory while it is open or when the disk's is damaged.
pub(crate) enum TxIndex {
    File(IndexFile),
    Memory(BTreeMap<[u8; 32], (u64, u32)>),
}

/// An open file of results.
#[derive(Clone)]
pub(crate) struct Source {
    pub path: Arc<str>,
    pub file: Arc<dyn DiskFile>,
}

/// The results of one segment.
pub(crate) struct ResultsSegment {
    pub segment: u64,
    pub source: Source,
    pub heights: BTreeMap<u64, (u64, ResultsHeader)>,
    /// Where records end.
    pub end: u64,
    /// Records should follow after `end` and do not verify.
    pub damaged: bool,
    pub index: TxIndex,
    /// A transaction is in more than one of them; the index knows the last.
    repeats: bool,
}

impl ResultsSegment {
    pub(crate) fn new(segment: u64, path: &str, file: Arc<dyn DiskFile>) -> ResultsSegment {
        ResultsSegment::over(segment, Source { path: Arc::from(path), file })
    }

    pub(crate) fn over(segment: u64, source: Source) -> ResultsSegment {
        let index = TxIndex::Memory(BTreeMap::new());
        ResultsSegment { segment, source, heights: BTreeMap::new(), end: 0, damaged: false, index, repeats: false }
    }

    /// Finds the records of a file; with `whole`, only those that verify, and fills the index.
    pub(crate) fn scan(&mut self, whole: bool) -> Result<(), ResultsError> {
        let file_bytes = self.source.file.len().on("measure", &self.source.path)?;
        while self.end < file_bytes {
            let header = match self.source.header_at(self.end, file_bytes) {
                Ok(header) => header,
                Err(ResultsError::Damaged { .. }) => break,
                Err(error) => return Err(error),
            };
            let in_order = self.heights.last_key_value().is_none_or(|(last, _)| header.height > *last);
            if header.segment != self.segment || !in_order {
                break;
            }
            if whole {
                match self.source.read(self.end, &header) {
                    Ok(results) => self.remember(&results),
                    Err(ResultsError::Damaged { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
            self.heights.insert(header.height, (self.end, header));
            self.end += header.record_bytes();
        }
        self.damaged = self.end < file_bytes;
        Ok(())
    }

    pub(crate) fn remember(&mut self, results: &BlockResults) {
        if let TxIndex::Memory(index) = &mut self.index {
            for (at, tx) in (0u32..).zip(&results.txs) {
                self.repeats |= index.insert(tx.hash, (results.height, at)).is_some();
            }
        }
    }

    /// What began at this offset, or behind it, was cut off; what is before it verified.
    pub(crate) fn forget_from(&mut self, end: u64) -> Result<(), ResultsError> {
        let TxIndex::Memory(index) = &mut self.index else { unreachable!("a closed segment is never cut") };
        if self.repeats {
            // What the index knew of the one before is gone.
            *self = ResultsSegment::over(self.segment, self.source.clone());
            return self.scan(true);
        }
        self.heights.retain(|_, (offset, _)| *offset < end);
        index.retain(|_, (height, _)| self.heights.contains_key(height));
        (self.end, self.damaged) = (end, false);
        Ok(())
    }

    /// The height of the record that does not verify, where its header does and all up to `keep` were durable.
    pub(crate) fn rotten_from(&self, keep: Option<u64>) -> Result<Option<u64>, ResultsError> {
        if !self.damaged {
            return Ok(None);
        }
        let file_bytes = self.source.file.len().on("measure", &self.source.path)?;
        match self.source.header_at(self.end, file_bytes) {
            Ok(header) => {
                Ok(Some(header.height).filter(|height| header.segment == self.segment && keep.is_some_and(|keep| *height <= keep)))
            }
            Err(ResultsError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether heights are missing between this one and the last that is here.
    pub(crate) fn has_gap_from(&self, height: u64) -> bool {
        let Some((last, _)) = self.heights.last_key_value() else { return false };
        let first = self.heights.first_key_value().map_or(height, |(first, _)| height.max(*first));
        first <= *last && self.heights.range(first..).count() as u64 != last - first + 1
    }

    /// The error that names what is missing here.
    pub(crate) fn damage(&self) -> ResultsError {
        ResultsError::Damaged { path: self.source.path.to_string(), offset: self.end }
    }

    /// Writes the index of a segment that is closed, to be used from the disk from now on.
    pub(crate) fn write_index(&self, disk: &dyn Disk, dir: &str) -> Result<Option<IndexFile>, ResultsError> {
        let TxIndex::Memory(index) = &self.index else { return Ok(None) };
        let entries: Vec<IndexEntry> =
            index.iter().map(|(hash, (height, index))| IndexEntry { hash: *hash, height: *height, index: *index }).collect();
        let bytes = encode_index(self.segment, &entries);
        let path = index_path(dir, self.segment);
        let unnamed = format!("{path}.new");
        match disk.unlink(&unnamed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => Err(error).on("remove", &unnamed)?,
        }
        let file = disk.create(&unnamed).on("create", &unnamed)?;
        file.write_at(0, &bytes).on("write", &unnamed)?;
        file.sync_data().on("sync", &unnamed)?;
        disk.rename(&unnamed, &path).on("rename", &unnamed)?;
        disk.sync_dir(dir).on("sync", dir)?;
        let pages = u32::try_from(bytes.len() / PAGE_BYTES).unwrap_or(u32::MAX);
        Ok(Some(IndexFile { segment: self.segment, path: Arc::from(path), file, pages }))
    }

    /// Uses the index that is on the disk, if its first page is sound; the others are verified when they are read.
    pub(crate) fn open_index(&mut self, disk: &dyn Disk, dir: &str) -> Result<bool, ResultsError> {
        let path = index_path(dir, self.segment);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.on("open", &path)?,
        };
        let bytes = file.len().on("measure", &path)?;
        if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES as u64) {
            return Ok(false);
        }
        let pages = u32::try_from(bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX);
        let index = IndexFile { segment: self.segment, path: Arc::from(path), file, pages };
        match index.page(0) {
            Ok(_) => {
                self.index = TxIndex::File(index);
                Ok(true)
            }
            Err(ResultsError::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Source {
    fn header_at(&self, offset: u64, file_bytes: u64) -> Result<ResultsHeader, ResultsError> {
        let damaged = || ResultsError::Damaged { path: self.path.to_string(), offset };
        if file_bytes.saturating_sub(offset) < HEADER_BYTES as u64 {
            return Err(damaged());
        }
        let mut bytes = [0; HEADER_BYTES];
        self.file.read_at(offset, &mut bytes).on("read", &self.path)?;
        let header = ResultsHeader::decode(&bytes).map_err(|flaw| match flaw {
            Flaw::Damaged => damaged(),
            Flaw::Newer(found) => ResultsError::Newer { path: self.path.to_string(), found },
        })?;
        if header.payload_bytes > RESULTS_BYTES_MAX || header.record_bytes() > file_bytes - offset {
            return Err(damaged());
        }
        Ok(header)
    }

    /// The record at `offset`, if it verifies and is the one that is expected there.
    pub(crate) fn read(&self, offset: u64, expected: &ResultsHeader) -> Result<BlockResults, ResultsError> {
        let damaged = || ResultsError::Damaged { path: self.path.to_string(), offset };
        let mut bytes = [0; HEADER_BYTES];
        self.file.read_at(offset, &mut bytes).on("read", &self.path)?;
        if ResultsHeader::decode(&bytes) != Ok(*expected) {
            return Err(damaged());
        }
        let mut payload = vec![0; expected.payload_bytes as usize];
        self.file.read_at(offset + HEADER_BYTES as u64, &mut payload).on("read", &self.path)?;
        if !ResultsHeader::verifies(&bytes, &payload) {
            return Err(damaged());
        }
        let results: BlockResults = borsh::from_slice(&payload).map_err(|_| damaged())?;
        if results.height == expected.height { Ok(results) } else { Err(damaged()) }
    }
}

/// The index of a row of records, made from the results themselves.
pub(crate) fn index_of(
    segment: u64,
    source: &Source,
    records: &[(u64, ResultsHeader)],
) -> Result<BTreeMap<[u8; 32], (u64, u32)>, ResultsError> {
    let mut again = ResultsSegment::over(segment, source.clone());
    for (offset, header) in records {
        again.remember(&source.read(*offset, header)?);
    }
    match again.index {
        TxIndex::Memory(index) => Ok(index),
        TxIndex::File(_) => unreachable!("a new segment's index is in memory"),
    }
}

impl IndexFile {
    /// Where a transaction is, by this index.
    pub(crate) fn lookup(&self, hash: &[u8; 32]) -> Result<Option<(u64, u32)>, ResultsError> {
        // The last page whose first hash is not above the one that is looked for holds its last entry.
        let (mut low, mut high) = (0, self.pages);
        let mut held = Vec::new();
        while low < high {
            let middle = low + (high - low) / 2;
            let entries = self.page(middle)?;
            if entries.first().is_some_and(|first| first.hash <= *hash) {
                held = entries;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let found = held.iter().rev().find(|entry| entry.hash == *hash);
        Ok(found.map(|entry| (entry.height, entry.index)))
    }

    fn page(&self, page: u32) -> Result<Vec<IndexEntry>, ResultsError> {
        let offset = u64::from(page) * PAGE_BYTES as u64;
        let mut bytes = [0; PAGE_BYTES];
        self.file.read_at(offset, &mut bytes).on("read", &self.path)?;
        decode_page(&bytes, self.segment, page, self.pages).map_err(|flaw| match flaw {
            Flaw::Damaged => ResultsError::Damaged { path: self.path.to_string(), offset },
            Flaw::Newer(found) => ResultsError::Newer { path: self.path.to_string(), found },
        })
    }
}
