//! Reading the log from any thread, beside its writer.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::format::{Flaw, RECORD_HEADER_BYTES, RecordHeader};
use super::index::{Entry, Index, Segment};
use super::recover::{Opening, recover};
use super::{Kind, LogError};
use crate::disk::Disk;
use crate::error::Context;

/// A record as it was appended, verified when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What it is and where.
    pub entry: Entry,
    /// What was appended.
    pub payload: Vec<u8>,
}

/// Looks at the log in `dir` and changes nothing in it; `None` if there is none. What a torn tail left behind the last sound record
/// is passed over, as opening to write would cut it off.
///
/// Nobody may write to the log meanwhile: a record that is half written would be taken for the end, or for rot.
///
/// # Errors
/// As for [`super::BlockLog::open`].
pub fn look(disk: &Arc<dyn Disk>, dir: &str) -> Result<Option<LogReader>, LogError> {
    match recover(disk, dir, Opening::ToLook) {
        Ok(found) => Ok(found.map(|(index, ..)| LogReader { index: Arc::new(RwLock::new(index)) })),
        Err(LogError::Disk(error)) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A view of the log that any number of threads may use. The lock that it shares with the writer is held for a look into
/// the index, never for a read of the disk, so the writer does not wait for readers.
#[derive(Clone)]
pub struct LogReader {
    pub(crate) index: Arc<RwLock<Index>>,
}

impl LogReader {
    /// The body of a block, whether or not it is durable or decided.
    pub fn body(&self, block_hash: &[u8; 32]) -> Result<Option<Stored>, LogError> {
        self.find(|index| index.bodies.get(block_hash).copied())
    }

    /// The decision of a height, once it is durable.
    pub fn decision(&self, height: u64) -> Result<Option<Stored>, LogError> {
        self.find(|index| index.decisions.get(&height).filter(|entry| entry.sequence <= index.durable_sequence).copied())
    }

    /// A segment, by the sequence number that names it.
    pub(super) fn segment(&self, first_sequence: u64) -> Option<Segment> {
        self.lock().segments.get(&first_sequence).cloned()
    }

    /// Where the decision of a height ends: its segment, and the offset behind it.
    pub(super) fn end_of_decision(&self, height: u64) -> Option<(u64, u64)> {
        let end = |entry: &Entry| (entry.segment, entry.offset + RECORD_HEADER_BYTES as u64 + u64::from(entry.payload_bytes));
        self.lock().decisions.get(&height).map(end)
    }

    /// What the log holds of a height, in the order in which it was appended, durable or not.
    pub fn entries(&self, height: u64) -> Vec<Entry> {
        self.lock().heights.get(&height).cloned().unwrap_or_default()
    }

    /// Records of evidence in the order in which they were appended, of whatever heights, durable or not.
    pub fn evidence(&self) -> Vec<Entry> {
        self.lock().evidence.clone()
    }

    /// All records of a height in the order in which they were appended. Use [`LogReader::entries`] and
    /// [`LogReader::read`] where bodies are not wanted.
    pub fn records(&self, height: u64) -> Result<Vec<Stored>, LogError> {
        self.entries(height).iter().map(|entry| self.read(entry)).collect()
    }

    /// The record of an entry.
    pub fn read(&self, entry: &Entry) -> Result<Stored, LogError> {
        let segment = self.lock().segments.get(&entry.segment).cloned();
        read_entry(&segment.ok_or(LogError::Pruned { height: entry.height })?, entry)
    }

    /// The highest height whose decision is durable.
    pub fn tip(&self) -> Option<u64> {
        self.lock().tip()
    }

    /// The block decided at a height, from the index; only once that is durable.
    pub fn decided_hash(&self, height: u64) -> Option<[u8; 32]> {
        let index = self.lock();
        index.decisions.get(&height).filter(|entry| entry.sequence <= index.durable_sequence).map(|entry| entry.block_hash)
    }

    /// The lowest height from which on every decision is here, with its body: "pruned, earliest is N".
    pub fn base(&self) -> Option<u64> {
        self.lock().base()
    }

    /// Every record up to this one is durable.
    pub fn durable_sequence(&self) -> u64 {
        self.lock().durable_sequence
    }

    /// The segments by the sequence number of their first record, oldest first.
    pub fn segments(&self) -> Vec<u64> {
        self.lock().segments.keys().copied().collect()
    }

    /// The segment that holds the decision of a height: where its results belong.
    pub fn segment_of(&self, height: u64) -> Option<u64> {
        self.lock().decisions.get(&height).map(|entry| entry.segment)
    }

    /// Reads and verifies every record: what an operator's scrub does. The first that fails is the answer.
    pub fn verify(&self) -> Result<u64, LogError> {
        let heights: Vec<u64> = self.lock().heights.keys().copied().collect();
        let mut records = 0;
        for height in heights {
            for entry in self.entries(height) {
                match self.read(&entry) {
                    Ok(_) => records += 1,
                    Err(LogError::Pruned { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(records)
    }

    fn find(&self, choose: impl FnOnce(&Index) -> Option<Entry>) -> Result<Option<Stored>, LogError> {
        let found = {
            let index = self.lock();
            choose(&index).map(|entry| (entry, index.segments[&entry.segment].clone()))
        };
        found.map(|(entry, segment)| read_entry(&segment, &entry)).transpose()
    }

    fn lock(&self) -> RwLockReadGuard<'_, Index> {
        // No code panics between two changes of the index that belong together.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a record and believes it only if it verifies and is the one that was asked for.
fn read_entry(segment: &Segment, entry: &Entry) -> Result<Stored, LogError> {
    let rot =
        || LogError::Rot { segment: segment.path.clone(), offset: entry.offset, sequence: entry.sequence, height: Some(entry.height) };
    let mut header_bytes = [0; RECORD_HEADER_BYTES];
    segment.file.read_at(entry.offset, &mut header_bytes).on("read", &segment.path)?;
    let header = RecordHeader::decode(&header_bytes, &segment.salt).map_err(|flaw: Flaw| match flaw {
        Flaw::Damaged => rot(),
        Flaw::Newer(found) => LogError::Newer { segment: segment.path.clone(), offset: entry.offset, found },
    })?;
    if Entry::new(&header, entry.segment, entry.offset) != *entry || entry.kind == Kind::Mark {
        return Err(rot());
    }
    let mut payload = vec![0; entry.payload_bytes as usize];
    segment.file.read_at(entry.offset + RECORD_HEADER_BYTES as u64, &mut payload).on("read", &segment.path)?;
    if !RecordHeader::verifies(&header_bytes, &payload, &segment.salt) {
        return Err(rot());
    }
    Ok(Stored { entry: *entry, payload })
}
