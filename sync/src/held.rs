//! The blocks that were fetched and wait: for those below them, for a verdict, for execution.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_types::Height;
use lockstep_types::block::BODY_BYTES_MAX;

use crate::client::REQUESTS_MAX;
use crate::seam::{Effect, Fetched};
use crate::server::RESPONSE_BYTES_MAX;

/// How far above our tip blocks are asked for. Enough to keep several peers busy; no more, because what lies high waits
/// longest, and a liar's blocks with it.
pub const WINDOW_BLOCKS: u64 = 512;

/// Most bytes of blocks that wait for verification. Above it only the lowest missing block is asked for and kept, so the
/// true bound is this and one block.
pub const BUFFER_BYTES_MAX: u64 = 128 << 20;

/// How far above our tip blocks are handed to verification: enough that certificates can be verified in batches while
/// the validators stay the same, and that execution never waits.
pub const VERIFY_AHEAD_MAX: u64 = 64;

const _: () = assert!(VERIFY_AHEAD_MAX <= WINDOW_BLOCKS, "what is verified was asked for");
const _: () = assert!(BUFFER_BYTES_MAX >= REQUESTS_MAX as u64 * RESPONSE_BYTES_MAX, "every answer that is due finds room");
const _: () = assert!(BUFFER_BYTES_MAX > BODY_BYTES_MAX as u64, "the largest block finds room");

/// A block above our tip.
#[derive(Debug)]
enum Slot {
    /// Waits for its turn.
    Waiting { peer: u64, bytes: u64, block: Arc<Fetched> },
    /// Is being verified under this ticket.
    Handed { ticket: u64, peer: u64, bytes: u64, block: Arc<Fetched> },
    /// Is proved; the caller has it and executes it.
    Verified,
}

/// The fetched blocks above our tip, at most [`WINDOW_BLOCKS`].
#[derive(Debug)]
pub(crate) struct Held {
    slots: BTreeMap<u64, Slot>,
    /// Of those that are not verified yet.
    bytes: u64,
    tip: u64,
    /// Everything above our tip and up to here was handed out.
    handed_to: u64,
    next_ticket: u64,
}

impl Held {
    pub(crate) fn new(tip: u64) -> Self {
        Self { slots: BTreeMap::new(), bytes: 0, tip, handed_to: tip, next_ticket: 0 }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn contains(&self, height: u64) -> bool {
        self.slots.contains_key(&height)
    }

    /// Whether a block of this height or above was fetched.
    pub(crate) fn has_from(&self, height: u64) -> bool {
        self.slots.range(height..).next().is_some()
    }

    pub(crate) fn is_verified(&self, height: u64) -> bool {
        matches!(self.slots.get(&height), Some(Slot::Verified))
    }

    /// The lowest height that nobody gave us: what everything above waits for.
    pub(crate) fn lowest_missing(&self) -> u64 {
        // What was handed out is contiguous, so the walk starts there.
        let mut height = self.handed_to + 1;
        while self.contains(height) {
            height += 1;
        }
        height
    }

    /// Keeps a block, unless it is of no use or finds no room.
    pub(crate) fn keep(&mut self, height: u64, peer: u64, block: Fetched) {
        let bytes = block.bytes();
        let useful = height > self.tip && height <= self.tip.saturating_add(WINDOW_BLOCKS) && !self.contains(height);
        if useful && (self.bytes.saturating_add(bytes) <= BUFFER_BYTES_MAX || height == self.lowest_missing()) {
            self.bytes += bytes;
            self.slots.insert(height, Slot::Waiting { peer, bytes, block: Arc::new(block) });
        }
    }

    /// Our tip moved up: what lies below has served.
    pub(crate) fn raise_tip(&mut self, tip: u64) {
        self.tip = tip;
        self.handed_to = self.handed_to.max(tip);
        let above = self.slots.split_off(&tip.saturating_add(1));
        for slot in std::mem::replace(&mut self.slots, above).into_values() {
            self.release(&slot);
        }
    }

    /// Hands out what is next in order.
    pub(crate) fn hand_out(&mut self, fx: &mut Vec<Effect>) {
        while self.handed_to - self.tip < VERIFY_AHEAD_MAX {
            let height = self.handed_to + 1;
            let Some(slot) = self.slots.get_mut(&height) else { return };
            if let Slot::Waiting { peer, bytes, block } = slot {
                let (ticket, peer, bytes, block) = (self.next_ticket, *peer, *bytes, Arc::clone(block));
                self.next_ticket += 1;
                *slot = Slot::Handed { ticket, peer, bytes, block: Arc::clone(&block) };
                fx.push(Effect::Verify { ticket, peer, height: Height::new(height).expect("at most a claimed height"), block });
            }
            self.handed_to = height;
        }
    }

    /// A block was proved. Gives who had sent it; none when the ticket is stale.
    pub(crate) fn verified(&mut self, height: u64, ticket: u64) -> Option<u64> {
        let (peer, bytes) = self.handed(height, ticket)?;
        self.bytes -= bytes;
        self.slots.insert(height, Slot::Verified);
        Some(peer)
    }

    /// A block was wrong. Gives who had sent it; none when the ticket is stale. Whatever was handed out above it comes
    /// again, since it may have been judged by validators that this block invented.
    pub(crate) fn refuted(&mut self, height: u64, ticket: u64) -> Option<u64> {
        let (peer, bytes) = self.handed(height, ticket)?;
        self.bytes -= bytes;
        self.slots.remove(&height);
        self.take_back(height);
        Some(peer)
    }

    /// Drops what a liar gave and nobody was handed. What is being verified already is judged on its own merits: taking it
    /// back would leave the caller with work that is void without its knowing. Gives the heights.
    pub(crate) fn drop_from(&mut self, liar: u64) -> Vec<u64> {
        let is_theirs = |slot: &Slot| matches!(slot, Slot::Waiting { peer, .. } if *peer == liar);
        let heights: Vec<u64> = self.slots.iter().filter(|(_, slot)| is_theirs(slot)).map(|(height, _)| *height).collect();
        for height in &heights {
            let slot = self.slots.remove(height).expect("just met");
            self.release(&slot);
        }
        heights
    }

    /// Makes everything from a height on wait again that has no verdict.
    fn take_back(&mut self, height: u64) {
        if height > self.handed_to {
            return;
        }
        self.handed_to = height - 1;
        for (_, slot) in self.slots.range_mut(height..) {
            if let Slot::Handed { peer, bytes, block, .. } = slot {
                *slot = Slot::Waiting { peer: *peer, bytes: *bytes, block: Arc::clone(block) };
            }
        }
    }

    fn handed(&self, height: u64, expected: u64) -> Option<(u64, u64)> {
        match self.slots.get(&height) {
            Some(Slot::Handed { ticket, peer, bytes, .. }) if *ticket == expected => Some((*peer, *bytes)),
            _ => None,
        }
    }

    fn release(&mut self, slot: &Slot) {
        if let Slot::Waiting { bytes, .. } | Slot::Handed { bytes, .. } = slot {
            self.bytes -= bytes;
        }
    }

    /// A few comparisons over at most a window of blocks. For tests.
    pub(crate) fn assert_invariants(&self) {
        let size = |slot: &Slot| match slot {
            Slot::Waiting { bytes, .. } | Slot::Handed { bytes, .. } => *bytes,
            Slot::Verified => 0,
        };
        assert_eq!(self.bytes, self.slots.values().map(size).sum::<u64>(), "held bytes are counted");
        let largest = self.slots.values().map(size).max().unwrap_or(0);
        assert!(self.bytes <= BUFFER_BYTES_MAX + largest, "more bytes than the buffer and one block");
        assert!(
            self.slots.keys().all(|height| *height > self.tip && *height <= self.tip.saturating_add(WINDOW_BLOCKS)),
            "outside the window"
        );
        assert!(self.handed_to >= self.tip && self.handed_to <= self.tip.saturating_add(VERIFY_AHEAD_MAX), "handed out beyond the bound");
        for (height, slot) in &self.slots {
            assert!(*height > self.handed_to || !matches!(slot, Slot::Waiting { .. }), "passed over by verification");
            assert!(*height <= self.handed_to || !matches!(slot, Slot::Handed { .. }), "handed out of order");
        }
        assert!((self.tip + 1..=self.handed_to).all(|height| self.contains(height)), "handed out with a hole");
    }
}
