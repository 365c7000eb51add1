//! Opening: which records are there, and what to do with the one that does not verify.

use std::io::ErrorKind;
use std::sync::Arc;

use super::format::{Flaw, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::index::{Entry, Index, Segment};
use super::segment::{EMPTY_SEGMENT_BYTES, is_unnamed, segment_path, sequence_of};
use super::{Kind, LogError, PAYLOAD_BYTES_MAX};
use crate::disk::{Disk, write_again};
use crate::error::Context;
use crate::planted::{self, Bug};

/// Bytes read at once when damage, or a tail to be written again, is gone through.
const SCAN_BYTES: usize = 1 << 20;

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// There was no log; a new one was begun.
    pub created: bool,
    /// Records found.
    pub records: u64,
    /// What was cut off the last segment: a record that was being written when the power went, and all after it.
    pub truncated_bytes: u64,
}

/// The log's end, where the writer goes on.
pub(crate) struct End {
    pub segment: u64,
    pub offset: u64,
    pub last_sequence: u64,
    /// The last record is a decision (marks aside): a segment may end here.
    pub at_boundary: bool,
    /// The last record is a mark that vouches for all before it.
    pub marked: bool,
}

/// Whether opening may write: a log that goes on is mended first, one that is only looked at stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    ToWrite,
    ToLook,
}

/// Opens every segment in `dir`. `None` if there is none.
pub(crate) fn recover(disk: &Arc<dyn Disk>, dir: &str, opening: Opening) -> Result<Option<(Index, End, Recovery)>, LogError> {
    let names = disk.list(dir).on("list", dir)?;
    for name in names.iter().filter(|name| is_unnamed(name) && opening == Opening::ToWrite) {
        let path = format!("{dir}/{name}");
        disk.unlink(&path).on("remove", &path)?;
    }
    let sequences: Vec<u64> = names.iter().filter_map(|name| sequence_of(name)).collect();
    walk(disk, dir, &sequences, &Span::default(), opening)
}

/// Where a record begins, or should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The segment, which need not be there.
    pub segment: u64,
    /// In it; below [`EMPTY_SEGMENT_BYTES`], the segment as a whole.
    pub offset: u64,
}

/// The records before a place: those that opening took until it met damage there. `None` where there is none.
pub(crate) fn look_before(disk: &Arc<dyn Disk>, dir: &str, place: Place) -> Result<Option<Index>, LogError> {
    let has_some = |segment: &u64| *segment < place.segment || (*segment == place.segment && place.offset > EMPTY_SEGMENT_BYTES);
    let sequences: Vec<u64> = sequences(disk, dir)?.into_iter().filter(has_some).collect();
    let until = (sequences.last() == Some(&place.segment)).then_some(place.offset);
    let found = walk(disk, dir, &sequences, &Span { until, ..Span::default() }, Opening::ToLook)?;
    Ok(found.map(|(index, ..)| index))
}

/// The records behind damage, without a hole to the log's end, and where they begin; `None` where nothing behind it is sound. Of closed
/// segments only headers are read, as by opening.
pub(crate) fn look_behind(disk: &Arc<dyn Disk>, dir: &str, damage: Place) -> Result<Option<(Place, u64, Index)>, LogError> {
    let sequences = sequences(disk, dir)?;
    let mut damage = damage;
    // Each turn begins behind the last.
    while let Some((start, first)) = sound_behind(disk, dir, &sequences, damage)? {
        let rest: Vec<u64> = sequences.iter().copied().filter(|segment| *segment >= start.segment).collect();
        let span = Span { from: Some((start.offset, first)), until: None };
        match walk(disk, dir, &rest, &span, Opening::ToLook) {
            Ok(found) => return Ok(found.map(|(index, ..)| (start, first, index))),
            Err(error) => damage = place_of(&error).filter(|found| *found > damage).ok_or(error)?,
        }
    }
    Ok(None)
}

/// Where damage lies; nothing for an error that is none.
pub(crate) fn place_of(damage: &LogError) -> Option<Place> {
    match damage {
        LogError::Rot { segment, offset, .. } => {
            let name = segment.rsplit('/').next().unwrap_or(segment);
            Some(Place { segment: sequence_of(name)?, offset: if *offset < EMPTY_SEGMENT_BYTES { 0 } else { *offset } })
        }
        LogError::MissingSegment { sequence, .. } => Some(Place { segment: *sequence, offset: 0 }),
        _ => None,
    }
}

/// The first record behind damage that verifies, and its sequence number.
fn sound_behind(disk: &Arc<dyn Disk>, dir: &str, sequences: &[u64], damage: Place) -> Result<Option<(Place, u64)>, LogError> {
    for &segment in sequences.iter().filter(|segment| **segment >= damage.segment) {
        let mut walk = Walk::default();
        match walk.open_segment(disk, dir, segment) {
            Err(LogError::Rot { .. }) => continue,
            opened => opened?,
        }
        let opened = &walk.index.segments[&segment];
        let file_bytes = opened.file.len().on("measure", &opened.path)?;
        let from = if segment == damage.segment { damage.offset + 1 } else { EMPTY_SEGMENT_BYTES };
        // What a later segment has was copied from here, by a start that did not get to setting this one aside; it may have gone on since.
        let next = sequences.iter().copied().find(|next| *next > segment).unwrap_or(u64::MAX);
        let found = find_record(opened, from.max(EMPTY_SEGMENT_BYTES), file_bytes, |_| true)?;
        if let Some((offset, header)) = found.filter(|(_, header)| header.sequence < next) {
            return Ok(Some((Place { segment, offset }, header.sequence)));
        }
    }
    Ok(None)
}

/// The header that a segment had whose own is damaged; `None` where that cannot be told: a record behind it verifies with the salt that is
/// left in it, or with that of the other segments.
pub(crate) fn header_of(disk: &Arc<dyn Disk>, dir: &str, segment: u64) -> Result<Option<SegmentHeader>, LogError> {
    let path = segment_path(dir, segment);
    let file = match disk.open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.on("open", &path)?,
    };
    let file_bytes = file.len().on("measure", &path)?;
    if file_bytes < EMPTY_SEGMENT_BYTES {
        return Ok(None);
    }
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    file.read_at(0, &mut bytes).on("read", &path)?;
    let mut salts = vec![SegmentHeader::salt_of(&bytes)];
    for other in sequences(disk, dir)?.into_iter().filter(|other| *other != segment) {
        let mut walk = Walk::default();
        match walk.open_segment(disk, dir, other) {
            Err(LogError::Rot { .. }) => {}
            opened => {
                opened?;
                salts.push(walk.index.segments[&other].salt);
                break;
            }
        }
    }
    for salt in salts {
        let headless = Segment { path: path.clone(), file: Arc::clone(&file), salt, height_max: 0 };
        if find_record(&headless, EMPTY_SEGMENT_BYTES, file_bytes, |header| header.sequence >= segment)?.is_some() {
            return Ok(Some(SegmentHeader { first_sequence: segment, salt }));
        }
    }
    Ok(None)
}

fn sequences(disk: &Arc<dyn Disk>, dir: &str) -> Result<Vec<u64>, LogError> {
    Ok(disk.list(dir).on("list", dir)?.iter().filter_map(|name| sequence_of(name)).collect())
}

/// What of a row of segments is walked.
#[derive(Debug, Default)]
struct Span {
    /// The offset in the first segment, and the sequence number there; the first record where none is named.
    from: Option<(u64, u64)>,
    /// The offset in the last, where what is there is of no matter.
    until: Option<u64>,
}

fn walk(
    disk: &Arc<dyn Disk>,
    dir: &str,
    sequences: &[u64],
    span: &Span,
    opening: Opening,
) -> Result<Option<(Index, End, Recovery)>, LogError> {
    let mut walk = Walk::default();
    for (at, &segment) in sequences.iter().enumerate() {
        walk.open_segment(disk, dir, segment)?;
        let mut offset = EMPTY_SEGMENT_BYTES;
        if let Some((from, first)) = span.from.filter(|_| at == 0) {
            offset = from;
            walk.last_sequence = first.saturating_sub(1);
        }
        match sequences.get(at + 1) {
            Some(&next) => walk.closed_segment(dir, (segment, offset), next)?,
            None => return Ok(Some(walk.last_segment(disk, dir, (segment, offset), span.until, opening)?)),
        }
    }
    Ok(None)
}

#[derive(Default)]
struct Walk {
    index: Index,
    recovery: Recovery,
    last_sequence: u64,
    /// The highest sequence number that any record says is durable.
    known_durable: u64,
    last_kind: Option<Kind>,
    last_is_mark: bool,
}

/// What was found where a record should begin.
enum Found {
    Record(RecordHeader),
    /// None that verifies; the height, if the header could be read.
    Nothing(Option<u64>),
}

impl Walk {
    fn open_segment(&mut self, disk: &Arc<dyn Disk>, dir: &str, first_sequence: u64) -> Result<(), LogError> {
        let path = segment_path(dir, first_sequence);
        let file = disk.open(&path).on("open", &path)?;
        let rot = || LogError::Rot { segment: path.clone(), offset: 0, sequence: first_sequence, height: None };
        if file.len().on("measure", &path)? < EMPTY_SEGMENT_BYTES {
            return Err(rot());
        }
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        file.read_at(0, &mut bytes).on("read", &path)?;
        let header = SegmentHeader::decode(&bytes).map_err(|flaw| match flaw {
            Flaw::Damaged => rot(),
            Flaw::Newer(found) => LogError::Newer { segment: path.clone(), offset: 0, found },
        })?;
        if header.first_sequence != first_sequence {
            return Err(rot());
        }
        let is_first = self.index.segments.is_empty();
        if is_first {
            self.last_sequence = first_sequence - 1;
        }
        // A segment is begun only when all before it is durable.
        self.known_durable = self.known_durable.max(first_sequence - 1);
        self.index.segments.insert(first_sequence, Segment { path, file, salt: header.salt, height_max: 0 });
        Ok(())
    }

    /// Everything in a segment that has a successor was durable before that began, so its headers are enough: a payload
    /// is verified when it is read.
    fn closed_segment(&mut self, dir: &str, (first_sequence, from): (u64, u64), next: u64) -> Result<(), LogError> {
        let segment = self.index.segments[&first_sequence].clone();
        let file_bytes = segment.file.len().on("measure", &segment.path)?;
        let mut offset = from;
        while self.last_sequence + 1 < next {
            match self.record_at(&segment, file_bytes, offset, false)? {
                Found::Record(header) => {
                    self.take(&header, first_sequence, offset);
                    offset += header.record_bytes();
                }
                // Zeros to the end of a sound segment are where its successor's records should have been.
                Found::Nothing(None) if is_zero(&segment, offset, file_bytes)? => {
                    return Err(LogError::MissingSegment { dir: dir.to_owned(), sequence: self.last_sequence + 1 });
                }
                Found::Nothing(height) => return Err(self.rot(&segment, offset, height)),
            }
        }
        Ok(())
    }

    fn last_segment(
        mut self,
        disk: &Arc<dyn Disk>,
        dir: &str,
        (sequence, from): (u64, u64),
        until: Option<u64>,
        opening: Opening,
    ) -> Result<(Index, End, Recovery), LogError> {
        let segment = self.index.segments[&sequence].clone();
        let file_bytes = segment.file.len().on("measure", &segment.path)?;
        let file_bytes = until.map_or(file_bytes, |until| until.min(file_bytes));
        let mut offset = from;
        let mut starts = Vec::new();
        let height = loop {
            match self.record_at(&segment, file_bytes, offset, until.is_none())? {
                Found::Record(header) => {
                    self.take(&header, sequence, offset);
                    starts.push((header.sequence, offset));
                    offset += header.record_bytes();
                }
                Found::Nothing(height) => break height,
            }
        };
        if !is_zero(&segment, offset, file_bytes)? {
            if self.is_convicted(&segment, offset, file_bytes)? {
                return Err(self.rot(&segment, offset, height));
            }
            // Cut off durably, before anything is written over it: a record that survived behind the torn one would
            // otherwise fit in behind a new one some day.
            if opening == Opening::ToWrite {
                segment.file.set_len(offset).on("cut", &segment.path)?;
            }
            self.recovery.truncated_bytes = file_bytes - offset;
        }
        let unsure = starts.iter().find(|(sequence, _)| *sequence > self.known_durable).map_or(offset, |(_, start)| *start);
        if opening == Opening::ToWrite {
            if !planted::has(Bug::LogBelievesCache) {
                write_again(&*segment.file, &segment.path, unsure..offset)?;
            }
            segment.file.sync_data().on("sync", &segment.path)?;
            disk.sync_dir(dir).on("sync", dir)?;
        }
        self.index.durable_sequence = self.last_sequence;
        let end = End {
            segment: sequence,
            offset,
            last_sequence: self.last_sequence,
            at_boundary: self.last_kind == Some(Kind::Decision),
            marked: self.known_durable == self.last_sequence || (self.last_is_mark && self.known_durable + 1 == self.last_sequence),
        };
        Ok((self.index, end, self.recovery))
    }

    fn take(&mut self, header: &RecordHeader, segment: u64, offset: u64) {
        self.last_sequence = header.sequence;
        self.known_durable = self.known_durable.max(header.durable_sequence);
        self.last_is_mark = header.kind == Kind::Mark;
        if !self.last_is_mark {
            self.last_kind = Some(header.kind);
        }
        self.recovery.records += 1;
        self.index.insert(Entry::new(header, segment, offset));
    }

    /// The record with the next sequence number, if it begins at `offset`.
    fn record_at(&self, segment: &Segment, file_bytes: u64, offset: u64, whole: bool) -> Result<Found, LogError> {
        match read_record(segment, file_bytes, offset, whole)? {
            Ok((header, verifies)) if verifies && header.sequence == self.last_sequence + 1 => Ok(Found::Record(header)),
            Ok((header, _)) => Ok(Found::Nothing(Some(header.height))),
            Err(Flaw::Damaged) => Ok(Found::Nothing(None)),
            Err(Flaw::Newer(found)) => Err(LogError::Newer { segment: segment.path.clone(), offset, found }),
        }
    }

    /// Whether a record after `offset` says that the one which should begin there was durable.
    fn is_convicted(&self, segment: &Segment, offset: u64, file_bytes: u64) -> Result<bool, LogError> {
        let missing = self.last_sequence + 1;
        Ok(find_record(segment, offset + 1, file_bytes, |header| header.durable_sequence >= missing)?.is_some())
    }

    fn rot(&self, segment: &Segment, offset: u64, height: Option<u64>) -> LogError {
        LogError::Rot { segment: segment.path.clone(), offset, sequence: self.last_sequence + 1, height }
    }
}

/// The first record from an offset on that verifies and is wanted, with its own offset.
fn find_record(
    segment: &Segment,
    from: u64,
    file_bytes: u64,
    is_wanted: impl Fn(&RecordHeader) -> bool,
) -> Result<Option<(u64, RecordHeader)>, LogError> {
    let mut at = from;
    let mut chunk = vec![0; scanned(at, file_bytes)];
    while at + RECORD_HEADER_BYTES as u64 <= file_bytes {
        let bytes = scanned(at, file_bytes);
        segment.file.read_at(at, &mut chunk[..bytes]).on("read", &segment.path)?;
        for (start, window) in chunk[..bytes].windows(RECORD_MAGIC.len()).enumerate() {
            if window != RECORD_MAGIC {
                continue;
            }
            let start = at + start as u64;
            if let Ok((header, true)) = read_record(segment, file_bytes, start, true)?
                && is_wanted(&header)
            {
                return Ok(Some((start, header)));
            }
        }
        // The next chunk begins with the last bytes of this one: a magic may lie across.
        at += (bytes - (RECORD_MAGIC.len() - 1)) as u64;
    }
    Ok(None)
}

/// Reads a record's header, and says whether its payload verifies (`true` without looking, where only headers are read).
fn read_record(segment: &Segment, file_bytes: u64, offset: u64, whole: bool) -> Result<Result<(RecordHeader, bool), Flaw>, LogError> {
    let room = file_bytes.saturating_sub(offset);
    if room < RECORD_HEADER_BYTES as u64 {
        return Ok(Err(Flaw::Damaged));
    }
    let mut bytes = [0; RECORD_HEADER_BYTES];
    segment.file.read_at(offset, &mut bytes).on("read", &segment.path)?;
    let header = match RecordHeader::decode(&bytes, &segment.salt) {
        Ok(header) => header,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let is_cut = header.record_bytes() > room || (planted::has(Bug::LastRecordCut) && header.record_bytes() == room);
    if header.payload_bytes > PAYLOAD_BYTES_MAX || is_cut {
        return Ok(Ok((header, false)));
    }
    if !whole {
        return Ok(Ok((header, true)));
    }
    let mut payload = vec![0; header.payload_bytes as usize];
    segment.file.read_at(offset + RECORD_HEADER_BYTES as u64, &mut payload).on("read", &segment.path)?;
    Ok(Ok((header, RecordHeader::verifies(&bytes, &payload, &segment.salt))))
}

/// How much a scan that is at `at` reads at once of what ends at `end`.
fn scanned(at: u64, end: u64) -> usize {
    usize::try_from(end.saturating_sub(at)).map_or(SCAN_BYTES, |rest| rest.min(SCAN_BYTES))
}

/// Whether a segment holds nothing but zeros from `offset` on: it was filled ahead of time and is not used so far.
fn is_zero(segment: &Segment, offset: u64, file_bytes: u64) -> Result<bool, LogError> {
    let mut chunk = vec![0; scanned(offset, file_bytes)];
    let mut at = offset;
    while at < file_bytes {
        let bytes = scanned(at, file_bytes);
        segment.file.read_at(at, &mut chunk[..bytes]).on("read", &segment.path)?;
        if chunk[..bytes].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += bytes as u64;
    }
    Ok(true)
}

// A scan advances by what it read less a magic.
const _: () = assert!(RECORD_HEADER_BYTES > RECORD_MAGIC.len() && SCAN_BYTES > RECORD_HEADER_BYTES);
