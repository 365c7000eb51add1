//! Where each record lies, in memory. One entry per record: about 200 bytes beside a block of kilobytes.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::Kind;
use super::format::RecordHeader;
use crate::disk::DiskFile;

/// A record, without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Its place in the order of writing.
    pub sequence: u64,
    /// Its height.
    pub height: u64,
    /// Its round.
    pub round: u32,
    /// The block it is about.
    pub block_hash: [u8; 32],
    /// Bytes of its payload.
    pub payload_bytes: u32,
    /// The first sequence number of the segment that holds it, which names the segment.
    pub segment: u64,
    pub(crate) offset: u64,
}

impl Entry {
    pub(crate) fn new(header: &RecordHeader, segment: u64, offset: u64) -> Entry {
        Entry {
            kind: header.kind,
            sequence: header.sequence,
            height: header.height,
            round: header.round,
            block_hash: header.block_hash,
            payload_bytes: header.payload_bytes,
            segment,
            offset,
        }
    }
}

/// An open segment.
#[derive(Clone)]
pub(crate) struct Segment {
    pub path: String,
    pub file: Arc<dyn DiskFile>,
    pub salt: [u8; 32],
    /// The highest height of its records; a body may come before the decision of the height below.
    pub height_max: u64,
}

/// All records of all segments.
#[derive(Default)]
pub(crate) struct Index {
    pub segments: BTreeMap<u64, Segment>,
    pub bodies: BTreeMap<[u8; 32], Entry>,
    pub decisions: BTreeMap<u64, Entry>,
    pub heights: BTreeMap<u64, Vec<Entry>>,
    /// In the order of writing.
    pub evidence: Vec<Entry>,
    pub durable_sequence: u64,
    /// What [`Index::base`] found, until something changes that it depends on.
    pub base: OnceLock<Option<u64>>,
}

impl Index {
    pub(crate) fn insert(&mut self, entry: Entry) {
        match entry.kind {
            Kind::Mark => return,
            Kind::Body => {
                self.bodies.entry(entry.block_hash).or_insert(entry);
            }
            Kind::Decision => {
                // One more on top leaves the base where it is.
                let last = self.decisions.last_key_value().map(|(last, _)| *last);
                if last.is_none_or(|last| last.checked_add(1) != Some(entry.height)) || !self.bodies.contains_key(&entry.block_hash) {
                    self.base = OnceLock::new();
                }
                self.decisions.entry(entry.height).or_insert(entry);
            }
            Kind::Evidence => self.evidence.push(entry),
            Kind::Proposal | Kind::Polka => {}
        }
        self.heights.entry(entry.height).or_default().push(entry);
        let segment = self.segments.get_mut(&entry.segment).expect("a segment is opened before its records are read");
        segment.height_max = segment.height_max.max(entry.height);
    }

    /// Forgets a segment and its records.
    pub(crate) fn remove_segment(&mut self, first_sequence: u64) {
        let Some(segment) = self.segments.remove(&first_sequence) else { return };
        self.base = OnceLock::new();
        self.evidence.retain(|entry| entry.segment != first_sequence);
        let (bodies, decisions) = (&mut self.bodies, &mut self.decisions);
        let mut empty = Vec::new();
        for (height, entries) in self.heights.range_mut(..=segment.height_max) {
            entries.retain(|entry| {
                let gone = entry.segment == first_sequence;
                if gone && bodies.get(&entry.block_hash) == Some(entry) {
                    bodies.remove(&entry.block_hash);
                }
                if gone && decisions.get(&entry.height) == Some(entry) {
                    decisions.remove(&entry.height);
                }
                !gone
            });
            if entries.is_empty() {
                empty.push(*height);
            }
        }
        for height in empty {
            self.heights.remove(&height);
        }
    }

    /// The highest height whose decision is durable.
    pub(crate) fn tip(&self) -> Option<u64> {
        let durable = |entry: &&Entry| entry.sequence <= self.durable_sequence;
        self.decisions.values().rev().find(durable).map(|entry| entry.height)
    }

    /// The lowest height from which on all decisions are here with their bodies.
    pub(crate) fn base(&self) -> Option<u64> {
        *self.base.get_or_init(|| self.find_base())
    }

    fn find_base(&self) -> Option<u64> {
        let mut base = None;
        for entry in self.decisions.values().rev() {
            let follows = base.is_none_or(|above| entry.height.checked_add(1) == Some(above));
            if !follows || !self.bodies.contains_key(&entry.block_hash) {
                break;
            }
            base = Some(entry.height);
        }
        base
    }
}
