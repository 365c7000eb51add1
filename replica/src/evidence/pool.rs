//! Pieces of evidence that no block carries yet.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_types::evidence::DuplicateVote;
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{Address, Evidence, Hash, ValidatorIndex, Vote};

use super::kept::Kept;
use super::rules::{at_large, is_expired};
use crate::chain::ChainState;
use crate::seam::Peer;

/// Most pieces that wait. Each accuses a validator of the newest set whom no other accuses, so there are never more than a set
/// has members.
pub const PENDING_MAX: usize = VALIDATORS_MAX;

/// Evidence that waits for a block. Every piece was judged, or comes of votes that consensus verified.
#[derive(Debug, Default)]
pub struct EvidencePool {
    pending: BTreeMap<Hash, Evidence>,
    /// Of the height that is being decided: the first two votes of each validator that contradict each other. They become
    /// evidence when the time of its block is known.
    seen: BTreeMap<ValidatorIndex, (Vote, Vote)>,
    /// What the last start found on the disk and was not judged so far.
    kept: VecDeque<Kept>,
    /// What each peer was told, or told us.
    told: BTreeMap<Peer, BTreeSet<Hash>>,
    /// What became evidence with the last block, or found room: who heard of it before it had that block could make nothing of it.
    fresh: Vec<Hash>,
}

impl EvidencePool {
    /// A pool that begins with what lies on the disk.
    pub fn new(kept: Vec<Kept>) -> Self {
        Self { kept: kept.into(), ..Self::default() }
    }

    /// Consensus counted two votes of one validator for one place of the height that is being decided. Whether they are the first
    /// of this validator at this height.
    pub fn saw(&mut self, first: Vote, second: Vote) -> bool {
        match self.seen.entry(first.validator) {
            Entry::Occupied(_) => false,
            Entry::Vacant(place) => {
                place.insert((first, second));
                true
            }
        }
    }

    /// The next piece from the disk that the chain has come far enough to judge.
    pub fn next_kept(&mut self, chain: &ChainState) -> Option<Kept> {
        let place = self.kept.iter().position(|kept| kept.height() <= chain.height)?;
        self.kept.remove(place)
    }

    /// It is judged with the next block.
    pub fn keep_for_later(&mut self, kept: Kept) {
        self.kept.push_back(kept);
    }

    /// A block that carries these was committed, `chain` is the chain after it. What was seen at its height becomes evidence, and what
    /// no later block can carry goes. To be told once more, now and with the next block: what was new with the block before, and what
    /// accuses whom this block does. A peer keeps one piece of each culprit, so what it was told beside one that is carried now, it let go.
    /// Gives the new pieces.
    pub fn committed(&mut self, chain: &ChainState, carried: &[Evidence]) -> Vec<Evidence> {
        self.prune(chain);
        let culprits: BTreeSet<Address> = carried.iter().flat_map(Evidence::accused).map(|(address, _)| address).collect();
        let makes_room = |piece: &Evidence| piece.accused().iter().any(|(address, _)| culprits.contains(address));
        let has_room_now: Vec<Hash> = self.pending.iter().filter(|(_, piece)| makes_room(piece)).map(|(hash, _)| *hash).collect();
        let mut again = std::mem::replace(&mut self.fresh, has_room_now.clone());
        again.extend(has_room_now);
        self.told.values_mut().for_each(|told| told.retain(|hash| !again.contains(hash)));
        let mut made = Vec::new();
        for (first, second) in std::mem::take(&mut self.seen).into_values() {
            if first.height != chain.height {
                continue;
            }
            let Some(votes) = DuplicateVote::from_votes(first, second, &chain.last_validators, chain.last_time) else { continue };
            let evidence = Evidence::DuplicateVote(Box::new(votes));
            if self.add(evidence.clone(), chain) {
                self.fresh.push(evidence.hash());
                made.push(evidence);
            }
        }
        made
    }

    /// Takes in a piece that was judged; whether it is news.
    pub fn add(&mut self, evidence: Evidence, chain: &ChainState) -> bool {
        if !self.wants(&evidence, chain) {
            return false;
        }
        self.pending.insert(evidence.hash(), evidence);
        true
    }

    /// Whether a piece accuses somebody with power whom nothing here accuses, and could still be carried.
    pub fn wants(&self, evidence: &Evidence, chain: &ChainState) -> bool {
        let accused = self.accused();
        self.pending.len() < PENDING_MAX
            && is_carriable(evidence, chain)
            && at_large(evidence, chain).any(|address| !accused.contains(&address))
    }

    /// Whether this very piece is here.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.pending.contains_key(hash)
    }

    /// This very piece.
    pub fn piece(&self, hash: &Hash) -> Option<&Evidence> {
        self.pending.get(hash)
    }

    /// Everybody whom a waiting piece accuses.
    pub fn accused(&self) -> BTreeSet<Address> {
        self.pending.values().flat_map(Evidence::accused).map(|(address, _)| address).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What waits, in the order of names, which is anybody's.
    pub fn pending(&self) -> impl Iterator<Item = &Evidence> {
        self.pending.values()
    }

    /// Drops a piece that turned out to be of no use.
    pub fn drop_piece(&mut self, hash: &Hash) {
        self.pending.remove(hash);
        for told in self.told.values_mut() {
            told.remove(hash);
        }
    }

    /// A peer has this piece: it told us, or was told.
    pub fn note_told(&mut self, peer: Peer, hash: Hash) {
        if self.pending.contains_key(&hash) {
            self.told.entry(peer).or_default().insert(hash);
        }
    }

    /// At most `count` pieces that a peer is not known to have.
    pub fn untold(&self, peer: Peer, count: usize) -> Vec<(Hash, Evidence)> {
        let has = |hash: &Hash| self.told.get(&peer).is_some_and(|told| told.contains(hash));
        self.pending.iter().filter(|(hash, _)| !has(hash)).take(count).map(|(hash, piece)| (*hash, piece.clone())).collect()
    }

    /// A peer left.
    pub fn forget(&mut self, peer: Peer) {
        self.told.remove(&peer);
    }

    /// Who has what is found out anew: what was sent may have been lost, or come before its time.
    pub fn forget_told(&mut self) {
        self.told.clear();
    }

    fn prune(&mut self, chain: &ChainState) {
        self.pending.retain(|_, piece| is_carriable(piece, chain) && at_large(piece, chain).next().is_some());
        let pending = &self.pending;
        self.told.values_mut().for_each(|told| told.retain(|hash| pending.contains_key(hash)));
    }
}

/// Neither carried by a block nor expired, and not larger than all evidence of a block may be: what can never be carried would
/// have the chain make blocks for it without end.
fn is_carriable(evidence: &Evidence, chain: &ChainState) -> bool {
    if evidence.to_bytes().len() as u64 > chain.params.evidence.max_bytes {
        return false;
    }
    let hash = evidence.hash();
    !is_expired(evidence.height(), evidence.time(), chain) && !chain.standing.committed_evidence.iter().any(|piece| piece.hash == hash)
}
