//! What is known of peers, beside what they sign.

use std::collections::BTreeMap;

use lockstep_types::{Height, PublicKey};

use crate::seam::{Mono, Peer};
use crate::wire::Have;

/// A peer.
#[derive(Debug, Default)]
pub struct PeerState {
    /// The consensus key it proved to hold.
    pub validator: Option<PublicKey>,
    /// What it last said it holds.
    pub have: Option<Have>,
    /// When it was last sent what it lacked; it is not sent more often than it can have heard.
    pub helped_at: Option<Mono>,
    /// When it may be sent parts of a body again.
    pub parts_after: Option<Mono>,
    /// Whether it answered which messages of ours it knows.
    pub told_own: bool,
    /// Points for what no correct peer sends, on this connection.
    pub misdeeds: u32,
    /// Whether its connection is being ended: what still comes of it is not read.
    pub expelled: bool,
}

/// The peers.
#[derive(Debug, Default)]
pub struct Peers {
    connected: BTreeMap<Peer, PeerState>,
    /// Who is asked next: everybody in turn.
    turn: u64,
}

impl Peers {
    /// A peer came.
    pub fn insert(&mut self, peer: Peer, validator: Option<PublicKey>) {
        self.connected.insert(peer, PeerState { validator, ..PeerState::default() });
    }

    /// A peer left.
    pub fn remove(&mut self, peer: Peer) {
        self.connected.remove(&peer);
    }

    /// A peer, when it is still connected.
    pub fn get_mut(&mut self, peer: Peer) -> Option<&mut PeerState> {
        self.connected.get_mut(&peer)
    }

    /// A peer whose words count: connected, and not about to be thrown out.
    pub fn heard(&mut self, peer: Peer) -> Option<&mut PeerState> {
        self.connected.get_mut(&peer).filter(|state| !state.expelled)
    }

    /// Every connected peer.
    pub fn iter(&self) -> impl Iterator<Item = (Peer, &PeerState)> {
        self.connected.iter().map(|(peer, state)| (*peer, state))
    }

    /// Number of connected peers.
    pub fn len(&self) -> usize {
        self.connected.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.connected.is_empty()
    }

    /// Somebody to ask for something of this height: everybody in turn, those first who say they are there.
    pub fn to_ask(&mut self, height: Height) -> Option<Peer> {
        let there = |state: &PeerState| state.have.as_ref().is_some_and(|have| have.height >= height || have.status.tip >= height);
        let candidates: Vec<Peer> = {
            let staying = || self.iter().filter(|(_, state)| !state.expelled);
            let likely: Vec<Peer> = staying().filter(|(_, state)| there(state)).map(|(peer, _)| peer).collect();
            if likely.is_empty() { staying().map(|(peer, _)| peer).collect() } else { likely }
        };
        if candidates.is_empty() {
            return None;
        }
        self.turn += 1;
        let place = usize::try_from(self.turn % candidates.len() as u64).expect("below a length");
        Some(candidates[place])
    }
}
