//! When to dial whom. Persistent peers are dialled for ever: at once after a loss, then in doubling pauses. A pure schedule;
//! the swarm's task does what it says.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;

use crate::identity::{NodeId, PeerAddr};
use crate::limits::{PERSISTENT_PEERS_MAX, Pace};

/// A connection that lasted so long was a good one, and the next pause is the first again.
const GOOD_AFTER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting {
        until: Instant,
    },
    Resolving,
    Dialling {
        connection: ConnectionId,
    },
    /// A connection exists, whoever dialled it.
    Up {
        since: Instant,
    },
}

struct Entry {
    address: PeerAddr,
    state: State,
    failures: u32,
}

pub(crate) struct Dialer {
    first: Duration,
    longest: Duration,
    entries: BTreeMap<NodeId, Entry>,
    random: RandomState,
    draws: u64,
}

impl Dialer {
    pub(crate) fn new(pace: &Pace) -> Self {
        Self { first: pace.redial_first, longest: pace.redial_max, entries: BTreeMap::new(), random: RandomState::new(), draws: 0 }
    }

    /// Dials from now on; the address of a known peer is replaced. False when the table is full.
    pub(crate) fn add(&mut self, address: PeerAddr, up: bool, now: Instant) -> bool {
        if let Some(entry) = self.entries.get_mut(&address.node_id) {
            entry.address = address;
            return true;
        }
        if self.entries.len() >= PERSISTENT_PEERS_MAX {
            return false;
        }
        let state = if up { State::Up { since: now } } else { State::Waiting { until: now } };
        self.entries.insert(address.node_id, Entry { address, state, failures: 0 });
        true
    }

    pub(crate) fn remove(&mut self, node: NodeId) {
        self.entries.remove(&node);
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = &PeerAddr> {
        self.entries.values().map(|entry| &entry.address)
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter_map(|entry| match entry.state {
            State::Waiting { until } => Some(until),
            _ => None,
        });
        waiting.min()
    }

    /// Whom to dial now. Each is `Resolving` until told otherwise.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<PeerAddr> {
        let mut due = Vec::new();
        for entry in self.entries.values_mut() {
            if matches!(entry.state, State::Waiting { until } if until <= now) {
                entry.state = State::Resolving;
                due.push(entry.address.clone());
            }
        }
        due
    }

    /// True if the peer still wants to be dialled: neither did it come by itself meanwhile, nor was it removed.
    pub(crate) fn is_resolving(&self, node: NodeId) -> bool {
        self.entries.get(&node).is_some_and(|entry| entry.state == State::Resolving)
    }

    pub(crate) fn dialling(&mut self, node: NodeId, connection: ConnectionId) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.state = State::Dialling { connection };
        }
    }

    /// The peer this dial was for.
    pub(crate) fn dialled(&self, connection: ConnectionId) -> Option<NodeId> {
        let mut entries = self.entries.iter();
        entries.find(|(_, entry)| entry.state == State::Dialling { connection }).map(|(node, _)| *node)
    }

    /// A connection to the peer exists.
    pub(crate) fn up(&mut self, node: NodeId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&node)
            && !matches!(entry.state, State::Up { .. })
        {
            entry.state = State::Up { since: now };
        }
    }

    /// No connection to the peer is left, or none came about. Says the how manieth failure of a row it is; `None` for a peer
    /// that is not ours to dial.
    pub(crate) fn down(&mut self, node: NodeId, now: Instant) -> Option<u32> {
        let entry = self.entries.get_mut(&node)?;
        let was_good = matches!(entry.state, State::Up { since } if now.saturating_duration_since(since) >= GOOD_AFTER);
        if was_good {
            entry.failures = 0;
        }
        let doublings = entry.failures.min(16);
        let pause = self.first.saturating_mul(1 << doublings).min(self.longest);
        entry.failures = entry.failures.saturating_add(1);
        // Up to a quarter less or more, so that nodes that lost each other at one instant do not dial at one instant.
        self.draws = self.draws.wrapping_add(1);
        let percent = u32::try_from(self.random.hash_one(self.draws) % 51).expect("below 51") + 75;
        entry.state = State::Waiting { until: now + pause * percent / 100 };
        Some(entry.failures)
    }
}
