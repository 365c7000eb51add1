//! Answering those who are behind, without being used up by them.

use std::collections::{BTreeMap, VecDeque};

use lockstep_types::block::PART_BYTES;
use lockstep_types::{Commit, Height};

use crate::client::RANGE_BLOCKS_MAX;
use crate::peers::{PEERS_MAX, REQUESTS_PER_PEER_MAX};

/// Most bytes of one answer, as [`fetched_bytes`] counts them. A single block may be a little larger, by its
/// certificate: it then comes alone.
pub const RESPONSE_BYTES_MAX: u64 = 4 << 20;

/// A body of more parts than this never travels in an answer: the answer is then its certificate alone, and the parts are asked
/// for when that was verified, in ranges of at most as many.
pub const WHOLE_PARTS_MAX: u32 = 64;
const _: () = assert!(WHOLE_PARTS_MAX as u64 * PART_BYTES as u64 <= RESPONSE_BYTES_MAX);

/// Most answers being read from disk at a time, over all peers: serving must not take the disk from consensus.
pub const SERVING_MAX: usize = 4;

/// Most requests of one peer that wait here. Twice what an honest one has in flight, since it gives up and asks again.
pub const WAITING_PER_PEER_MAX: usize = 2 * REQUESTS_PER_PEER_MAX;

/// What an answer counts for at least: to look for something costs the disk as much as to send a little.
pub const ANSWER_COST_MIN: u64 = 64 << 10;

/// At most this for a slot of a commit: flag, address, timestamp, signature.
const SLOT_BYTES: u64 = 104;

/// At most this for what else travels with a block: the commit's height, round and block id, lengths.
const ENVELOPE_BYTES: u64 = 128;

/// What a block counts for in an answer: its body, its certificate and their envelope, in bytes. Both sides count alike.
pub fn fetched_bytes(body_bytes: usize, commit_slots: usize) -> u64 {
    let slots = SLOT_BYTES.saturating_mul(commit_slots as u64);
    slots.saturating_add(body_bytes as u64).saturating_add(ENVELOPE_BYTES)
}

/// [`fetched_bytes`] of a body and its commit.
pub(crate) fn bytes_of(body: &[u8], commit: &Commit) -> u64 {
    fetched_bytes(body.len(), commit.signatures.len())
}

/// How many blocks to send to a peer that asks for `count` from `from` on, when we have those from `base` to `tip`:
/// as many as fit [`RESPONSE_BYTES_MAX`], and at least one. `None` when we do not have the first; the answer is then that
/// it is not available, with `base` and `tip`. `size_of` gives [`fetched_bytes`] of a height, and `None` where a block is
/// missing after all.
pub fn plan_response(base: Height, tip: Height, from: Height, count: u32, mut size_of: impl FnMut(Height) -> Option<u64>) -> Option<u32> {
    if from < base || from > tip || from == Height::ZERO || count == 0 {
        return None;
    }
    let mut total = 0_u64;
    let mut sent = 0;
    while sent < count.min(RANGE_BLOCKS_MAX) {
        let height = from.plus(u64::from(sent));
        // `plus` stops at the highest height that exists.
        if height > tip || height.get() - from.get() != u64::from(sent) {
            break;
        }
        let Some(size) = size_of(height) else { break };
        total = total.saturating_add(size);
        if sent > 0 && total > RESPONSE_BYTES_MAX {
            break;
        }
        sent += 1;
    }
    (sent > 0).then_some(sent)
}

/// A request whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Serve {
    /// Who asks.
    pub peer: u64,
    /// The number it gave its request.
    pub id: u64,
    /// The first block wanted.
    pub from: Height,
    /// How many.
    pub count: u32,
}

/// One who asks.
#[derive(Debug)]
struct Asker {
    waiting: VecDeque<Serve>,
    serving: bool,
    /// Bytes that may be sent now. Below zero after a large answer: the next one waits until it is paid for.
    tokens: i64,
    filled_ms: u64,
}

/// Who is served when: each peer in turn, one answer at a time, at a bounded rate.
#[derive(Debug)]
pub struct Server {
    askers: BTreeMap<u64, Asker>,
    serving: usize,
    bytes_per_ms: u64,
    burst: i64,
    /// Who was served last; the next one is the next by number.
    turn: u64,
}

impl Server {
    /// A server that sends each peer `bytes_per_s` on average (at least 1000), and at once as much as one answer of
    /// [`RESPONSE_BYTES_MAX`] to one that was quiet.
    pub fn new(bytes_per_s: u64) -> Self {
        Self {
            askers: BTreeMap::new(),
            serving: 0,
            bytes_per_ms: (bytes_per_s / 1_000).max(1),
            burst: RESPONSE_BYTES_MAX.cast_signed(),
            turn: 0,
        }
    }

    /// A peer asks. Returns whether the request waits for its turn; one above [`WAITING_PER_PEER_MAX`] is dropped, and who
    /// sends such is flooding.
    pub fn on_request(&mut self, now_ms: u64, request: Serve) -> bool {
        let known = self.askers.len();
        let burst = self.burst;
        let asker = match self.askers.entry(request.peer) {
            std::collections::btree_map::Entry::Occupied(asker) => asker.into_mut(),
            std::collections::btree_map::Entry::Vacant(_) if known >= PEERS_MAX => return false,
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(Asker { waiting: VecDeque::new(), serving: false, tokens: burst, filled_ms: now_ms })
            }
        };
        if asker.waiting.len() >= WAITING_PER_PEER_MAX {
            return false;
        }
        asker.waiting.push_back(request);
        true
    }

    /// The next request to answer now, if any. The caller owes one [`Server::served`] for it.
    pub fn next(&mut self, now_ms: u64) -> Option<Serve> {
        if self.serving >= SERVING_MAX {
            return None;
        }
        let (per_ms, burst) = (self.bytes_per_ms, self.burst);
        for asker in self.askers.values_mut() {
            asker.fill(now_ms, per_ms, burst);
        }
        let is_ready = |asker: &Asker| !asker.serving && asker.tokens > 0 && !asker.waiting.is_empty();
        let mut after = self.askers.range(self.turn.saturating_add(1)..).chain(self.askers.range(..=self.turn));
        let peer = *after.find(|(_, asker)| is_ready(asker))?.0;
        let asker = self.askers.get_mut(&peer).expect("just met");
        asker.serving = true;
        self.serving += 1;
        self.turn = peer;
        asker.waiting.pop_front()
    }

    /// An answer of so many bytes was sent, or could not be (0). It counts for at least [`ANSWER_COST_MIN`].
    pub fn served(&mut self, peer: u64, bytes: u64) {
        let Some(asker) = self.askers.get_mut(&peer) else { return };
        if asker.serving {
            asker.serving = false;
            self.serving -= 1;
            asker.tokens = asker.tokens.saturating_sub_unsigned(bytes.max(ANSWER_COST_MIN));
        }
    }

    /// A peer is gone, and its requests with it.
    pub fn peer_gone(&mut self, peer: u64) {
        if self.askers.remove(&peer).is_some_and(|asker| asker.serving) {
            self.serving -= 1;
        }
    }

    /// When [`Server::next`] may have something that it does not have now: the first moment at which a peer that waits may
    /// be sent something. `None` when nobody waits for time to pass.
    pub fn wakeup_ms(&self) -> Option<u64> {
        let waits = |asker: &&Asker| !asker.serving && !asker.waiting.is_empty();
        let ready_ms = |asker: &Asker| {
            let missing = 1_i64.saturating_sub(asker.tokens).max(0).unsigned_abs();
            asker.filled_ms.saturating_add(missing.div_ceil(self.bytes_per_ms))
        };
        self.askers.values().filter(waits).map(ready_ms).min()
    }
}

impl Asker {
    fn fill(&mut self, now_ms: u64, bytes_per_ms: u64, burst: i64) {
        let elapsed = now_ms.saturating_sub(self.filled_ms);
        self.tokens = self.tokens.saturating_add_unsigned(elapsed.saturating_mul(bytes_per_ms)).min(burst);
        self.filled_ms = self.filled_ms.max(now_ms);
    }
}
