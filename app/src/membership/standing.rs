//! What the rules know of the chain beside the members: it changes with every block, and so stands beside the state.

use std::collections::VecDeque;
use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::codec;
use lockstep_types::params::EvidenceParams;
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{Address, Hash, Height, Power, Time, ValidatorSet};

use super::registry::MEMBERS_MAX;
use crate::record::{Attendance, CommittedEvidence, PowerMoved, Waiting};

/// Most recent blocks whose names are remembered, so that a JOIN can name one: as many as the widest `live_window` allows. A chain
/// remembers those of its own window ([`names_kept`](super::names_kept)).
pub const RECENT_MAX: usize = 1_024;

/// Most pieces of evidence that are remembered until they expire. Each takes power from somebody who had some, so a chain with
/// membership has no more of them than fit its registry and its sets; one without, whose application leaves a culprit its
/// power, carries no more until some expire.
pub const EVIDENCE_REMEMBERED_MAX: usize = MEMBERS_MAX + 2 * VALIDATORS_MAX;

/// Of the chain after a height, as a function of its blocks. On a chain without membership it holds evidence alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Standing {
    /// Number of the view of the next height.
    pub view: u64,
    /// Evidence in blocks, not expired, in block order.
    pub committed_evidence: Vec<CommittedEvidence>,
    /// For each validator of the next height, in set order.
    pub attendance: Vec<Attendance>,
    /// For each of the last W_power heights that moved power, oldest first.
    pub power_moved: Vec<PowerMoved>,
    /// What is asked for and not granted yet, in the order it came.
    pub waiting: Vec<Waiting>,
    /// The newest blocks.
    pub recent: RecentBlocks,
    /// The last checkpoint; zero before the first.
    pub last_checkpoint: Height,
}

impl Standing {
    /// Before the first block: everybody counts as having signed, until the windows say otherwise.
    pub fn genesis(validators: &ValidatorSet, before_first: Height) -> Self {
        let mut standing = Self::default();
        standing.seat(validators, before_first);
        standing
    }

    /// Attendance for this set: who stays keeps theirs, who is new counts as seen at `from`, when it enters.
    pub(super) fn seat(&mut self, validators: &ValidatorSet, from: Height) {
        let known = std::mem::take(&mut self.attendance);
        let of = |address: Address| {
            let newcomer = Attendance { address, last_signed: from, slots: 0, missed_slots: 0 };
            known.iter().find(|attendance| attendance.address == address).copied().unwrap_or(newcomer)
        };
        self.attendance = validators.iter().map(|validator| of(validator.address)).collect();
    }

    /// Remembers what a block of this height and time carried, and forgets what expired: what neither age allows any more.
    pub(super) fn remember_evidence(&mut self, carried: &[CommittedEvidence], height: Height, time: Time, params: &EvidenceParams) {
        self.committed_evidence.extend_from_slice(carried);
        self.committed_evidence.retain(|piece| {
            let old_in_blocks = height.get().saturating_sub(piece.height.get()) > params.max_age_num_blocks;
            !(old_in_blocks && time.since(piece.time).as_nanos() > u128::from(params.max_age_duration_ns))
        });
        debug_assert!(self.committed_evidence.len() <= EVIDENCE_REMEMBERED_MAX, "no valid block carries more");
    }

    /// Power moved in the window that ends with `height`, and the total at its start.
    pub(super) fn moved_in_window(&self, height: Height, window: u64, total_now: Power) -> (u64, u64) {
        let inside = |moved: &&PowerMoved| moved.height.get().saturating_add(window) > height.get();
        let mut entries = self.power_moved.iter().filter(inside).peekable();
        let start = entries.peek().map_or(total_now, |moved| moved.total_before);
        (entries.map(|moved| moved.moved.get()).fold(0, u64::saturating_add), start.get())
    }
}

/// Names of the newest blocks, without a gap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentBlocks {
    newest: Height,
    hashes: VecDeque<Hash>,
}

impl RecentBlocks {
    /// One more block. One that does not follow on the newest starts anew.
    pub fn push(&mut self, height: Height, hash: Hash) {
        if height != self.newest.next() {
            self.hashes.clear();
        }
        if self.hashes.len() == RECENT_MAX {
            self.hashes.pop_front();
        }
        self.hashes.push_back(hash);
        self.newest = height;
    }

    /// The block of a height, while it is remembered.
    pub fn get(&self, height: Height) -> Option<Hash> {
        let back = self.newest.get().checked_sub(height.get())?;
        let place = (self.hashes.len() as u64).checked_sub(back.checked_add(1)?)?;
        self.hashes.get(usize::try_from(place).ok()?).copied()
    }

    /// Forgets all but the newest so many.
    pub fn keep(&mut self, count: u64) {
        let gone = self.hashes.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        self.hashes.drain(..gone);
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The newest height; zero for none.
    pub const fn newest(&self) -> Height {
        self.newest
    }
}

impl BorshSerialize for RecentBlocks {
    fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
        self.newest.serialize(writer)?;
        u32::try_from(self.hashes.len()).expect("bounded").serialize(writer)?;
        self.hashes.iter().try_for_each(|hash| hash.serialize(writer))
    }
}

impl BorshDeserialize for RecentBlocks {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let newest = Height::deserialize_reader(reader)?;
        let hashes: Vec<Hash> = codec::read_list(reader, RECENT_MAX)?;
        Ok(Self { newest, hashes: hashes.into() })
    }
}
