//! The bodies of one height: on their way in parts, whole, judged, durable.
//!
//! A body is collected only under a name that a verified proposal, polka or certificate gave it, so a peer can make us hold
//! no more than a proposer could. Parts prove their place, so a bad one never blocks the good one. They prove it by the parts
//! hash alone: a proposer may name another's parts under a wrong block hash, so what comes is kept for every name it fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use lockstep_types::block::{self, Part, PartSetHeader};
use lockstep_types::{Block, BlockId, Hash, Round};

use crate::check::CheckFailure;
use crate::seam::{Mono, Peer, Ticket};
use crate::shares::Shares;

/// Bodies held at once. Two proposals for each round that may be open, and those that a lock or a certificate names.
pub const BODIES_MAX: usize = 16;
/// Bytes of parts that arrived before anything named them, held until something does: 256 parts. Peers share them equally, so
/// that among 256 of them, more than a node connects to, the proposer's first part behind its proposal has room.
pub const EARLY_PARTS_BYTES_MAX: usize = 256 * EARLY_PART_BYTES;
/// What an early part counts for, whatever its length.
pub const EARLY_PART_BYTES: usize = block::PART_BYTES;

/// One body.
#[derive(Debug, Default)]
pub struct Body {
    /// Highest round that named it.
    pub round: Round,
    /// Parts by place; emptied when the body is whole.
    collected: BTreeMap<u32, Part>,
    /// The canonical bytes, once whole.
    pub bytes: Option<Bytes>,
    /// Its parts, to send on; cut when first asked for.
    parts: Option<Arc<Vec<Part>>>,
    /// Whether it is being judged.
    pub checking: bool,
    /// Whether it could not be judged when it last was to be.
    pub unknown: bool,
    /// valid(v), once judged.
    pub verdict: Option<Result<Arc<Block>, CheckFailure>>,
    /// The write that makes it durable, once asked for.
    pub ticket: Option<Ticket>,
    /// Whether that write is durable.
    pub durable: bool,
    /// Whether a polka, a lock or a certificate named it: it is then kept and stored, whoever proposed it.
    pub named_by_quorum: bool,
    /// When it was last asked for, to ask again.
    pub asked_at: Option<Mono>,
    /// Ranges of parts that are on their way: of whom they were asked, and when.
    pub(crate) ranges_asked: BTreeMap<u32, (Peer, Mono)>,
}

impl Body {
    /// The judged block, when it is valid.
    pub fn valid_block(&self) -> Option<&Arc<Block>> {
        self.verdict.as_ref().and_then(|verdict| verdict.as_ref().ok())
    }

    /// For each range of so many parts that is not all here: its first part that is not, and its end. None when it is whole.
    pub(crate) fn lacking_ranges(&self, total: u32, range: u32) -> Vec<(u32, u32)> {
        if self.bytes.is_some() {
            return Vec::new();
        }
        let ranges = (0..total).step_by(range as usize).map(|from| (from, from.saturating_add(range).min(total)));
        ranges.filter_map(|(from, end)| (from..end).find(|index| !self.collected.contains_key(index)).map(|first| (first, end))).collect()
    }

    /// Whether parts of it are here, cut.
    pub(crate) fn has_parts(&self) -> bool {
        self.parts.is_some() || !self.collected.is_empty()
    }

    /// Its parts, once it is whole.
    pub fn parts(&mut self) -> Option<Arc<Vec<Part>>> {
        if self.parts.is_none() {
            self.parts = Some(Arc::new(block::cut(self.bytes.as_ref()?).1));
        }
        self.parts.clone()
    }
}

/// The bodies of the height that is being decided.
#[derive(Debug)]
pub struct Bodies {
    held: BTreeMap<BlockId, Body>,
    early: Shares<(PartSetHeader, Part)>,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { held: BTreeMap::new(), early: Shares::new(EARLY_PARTS_BYTES_MAX) }
    }
}

impl Bodies {
    /// The body of a name, if it is held.
    pub fn get(&self, block_id: &BlockId) -> Option<&Body> {
        self.held.get(block_id)
    }

    /// The body of a name, to change it.
    pub fn get_mut(&mut self, block_id: &BlockId) -> Option<&mut Body> {
        self.held.get_mut(block_id)
    }

    /// Every body held.
    pub fn iter(&self) -> impl Iterator<Item = (&BlockId, &Body)> {
        self.held.iter()
    }

    /// Something verified names a body: from now on its parts are collected. True when it became whole right away, from
    /// parts that came early.
    pub fn name(&mut self, block_id: BlockId, round: Round, by_quorum: bool) -> bool {
        if !self.held.contains_key(&block_id) {
            self.make_room();
        }
        let body = self.held.entry(block_id).or_default();
        body.round = body.round.max(round);
        body.named_by_quorum |= by_quorum;
        if body.bytes.is_some() {
            return false;
        }
        if let Some((_, twin)) = self.held.iter().find(|(id, _)| **id != block_id && id.parts == block_id.parts) {
            let (bytes, parts, collected) = (twin.bytes.clone(), twin.parts.clone(), twin.collected.clone());
            let body = self.held.get_mut(&block_id).expect("just named");
            *body = Body { round: body.round, named_by_quorum: body.named_by_quorum, bytes, parts, collected, ..Body::default() };
            return body.bytes.is_some();
        }
        let ours = self.early.take_if(|(header, _)| *header == block_id.parts);
        ours.into_iter().any(|(peer, (header, part))| matches!(self.add_part(peer, &header, part), PartFate::Whole(_)))
    }

    /// A peer left, and with it the parts that nothing named yet.
    pub fn forget_peer(&mut self, peer: Peer) {
        self.early.forget(peer);
    }

    /// Drops the body of the oldest round that no quorum named. Those a quorum named are as few as the rounds that had one.
    fn make_room(&mut self) {
        while self.held.len() >= BODIES_MAX {
            let oldest = self.held.iter().min_by_key(|(id, body)| (body.named_by_quorum, body.round, **id)).map(|(id, _)| *id);
            let Some(oldest) = oldest else { return };
            self.held.remove(&oldest);
        }
    }

    /// A part arrived from a peer.
    pub fn add_part(&mut self, peer: Peer, header: &PartSetHeader, part: Part) -> PartFate {
        let mut named = self.held.iter_mut().filter(|(id, _)| id.parts == *header).peekable();
        if named.peek().is_none() {
            if part.verify(header) {
                self.early.push(peer, EARLY_PART_BYTES, (*header, part));
            }
            return PartFate::Unnamed;
        }
        let mut lacking: Vec<_> = named.filter(|(_, body)| body.bytes.is_none() && !body.collected.contains_key(&part.index)).collect();
        if lacking.is_empty() {
            return PartFate::Known;
        }
        if !part.verify(header) {
            return PartFate::Bad;
        }
        let mut whole = Vec::new();
        for (block_id, body) in &mut lacking {
            body.collected.insert(part.index, part.clone());
            if body.collected.len() == header.total as usize {
                let parts: Vec<Part> = std::mem::take(&mut body.collected).into_values().collect();
                let pieces: Vec<&[u8]> = parts.iter().map(|part| &part.bytes[..]).collect();
                body.bytes = Some(Bytes::from(pieces.concat()));
                body.parts = Some(Arc::new(parts));
                whole.push(**block_id);
            }
        }
        if whole.is_empty() { PartFate::Kept } else { PartFate::Whole(whole) }
    }

    /// A whole body arrived by another way: asked for, synced, built here or read from the log. The caller has compared it
    /// with its name, or is about to have it judged.
    pub fn put(&mut self, block_id: BlockId, round: Round, bytes: Bytes, parts: Option<Vec<Part>>) {
        self.name(block_id, round, false);
        let body = self.held.get_mut(&block_id).expect("just named");
        if body.bytes.is_none() {
            body.bytes = Some(bytes);
            body.collected.clear();
            body.parts = parts.map(Arc::new);
        }
    }

    /// The bytes of a body turned out not to be its name's: they are forgotten, the name stays.
    pub fn forget_bytes(&mut self, block_id: &BlockId) {
        if let Some(body) = self.held.get_mut(block_id) {
            *body = Body { round: body.round, named_by_quorum: body.named_by_quorum, ..Body::default() };
        }
    }

    /// Places of the parts that are here.
    pub fn part_places(&self, block_id: &BlockId) -> Vec<usize> {
        match self.held.get(block_id) {
            Some(body) if body.bytes.is_some() => (0..block_id.parts.total as usize).collect(),
            Some(body) => body.collected.keys().map(|index| *index as usize).collect(),
            None => Vec::new(),
        }
    }

    /// A part that is here, whole body or not.
    pub fn part(&mut self, block_id: &BlockId, index: u32) -> Option<Part> {
        let body = self.held.get_mut(block_id)?;
        match body.parts() {
            Some(parts) => parts.get(index as usize).cloned(),
            None => body.collected.get(&index).cloned(),
        }
    }

    /// The body with this block hash.
    pub fn by_hash(&self, hash: &Hash) -> Option<(&BlockId, &Body)> {
        self.held.iter().find(|(id, _)| id.hash == *hash)
    }
}

/// What became of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartFate {
    /// It was the last: the body of these names is whole.
    Whole(Vec<BlockId>),
    /// Kept; more are missing.
    Kept,
    /// Here already.
    Known,
    /// Nothing names its body yet; kept for a while if there is room.
    Unnamed,
    /// Not a part of that body: its sender is at fault.
    Bad,
}
