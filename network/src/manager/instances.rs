//! Which processes were met under one node key.
//!
//! A process draws an `instance` when it starts. A peer that comes with another one was restarted, and the new connection replaces the
//! old. Where the earlier instance then comes back, both run: a home was copied, node key and all. Displacing each other for ever they
//! would both be half deaf, so from then on the one that was met first keeps its place, and the other one is told why it gets none.

use std::collections::VecDeque;

use libp2p::PeerId;

/// Peers that are remembered, those met last.
const PEERS_MAX: usize = 256;
/// Instances of each, likewise: far more than copies of one home. What is forgotten is met as a restart, and takes the place once more.
const INSTANCES_MAX: usize = 64;

/// What was met of a peer.
#[derive(Debug)]
struct Met {
    peer: PeerId,
    /// In the order of their first connections, each once, with the number of its last one among all of the peer's.
    instances: Vec<(u64, u64)>,
    /// One came back that another had replaced.
    several: bool,
}

/// The instances of peers.
#[derive(Debug, Default)]
pub(super) struct Instances {
    met: VecDeque<Met>,
}

impl Instances {
    /// A connection of this instance takes the peer's place.
    pub(super) fn connected(&mut self, peer: PeerId, instance: u64) {
        let place = self.met.iter().position(|met| met.peer == peer);
        let met = place.and_then(|place| self.met.remove(place));
        let mut met = met.unwrap_or_else(|| Met { peer, instances: Vec::new(), several: false });
        let last = met.instances.iter().map(|(_, number)| *number).max().unwrap_or(0);
        match met.instances.iter_mut().find(|(other, _)| *other == instance) {
            Some((_, number)) => {
                met.several |= *number != last;
                *number = last + 1;
            }
            None => {
                // Who runs has connected lately, whenever that was first.
                if met.instances.len() == INSTANCES_MAX
                    && let Some(oldest) = (0..INSTANCES_MAX).min_by_key(|place| met.instances[*place].1)
                {
                    met.instances.remove(oldest);
                }
                met.instances.push((instance, last + 1));
            }
        }
        self.met.push_back(met);
        if self.met.len() > PEERS_MAX {
            self.met.pop_front();
        }
    }

    /// Whether a connection of `instance` must not replace that of `active`: both run, and that one was first. One that was never met
    /// may be a restart of either.
    pub(super) fn is_second(&self, peer: PeerId, active: u64, instance: u64) -> bool {
        let Some(met) = self.met.iter().find(|met| met.peer == peer && met.several) else { return false };
        let place = |instance: u64| met.instances.iter().position(|(other, _)| *other == instance);
        place(active).zip(place(instance)).is_some_and(|(active, new)| active < new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_restarted_again_and_again_is_one() {
        let (mut instances, peer) = (Instances::default(), PeerId::random());
        for instance in 0_u64..10 {
            assert!(!instances.is_second(peer, instance.saturating_sub(1), instance));
            instances.connected(peer, instance);
            instances.connected(peer, instance);
        }
    }

    #[test]
    fn of_two_that_take_turns_the_first_stays() {
        let (mut instances, peer) = (Instances::default(), PeerId::random());
        instances.connected(peer, 7);
        assert!(!instances.is_second(peer, 7, 8), "it may be a restart");
        instances.connected(peer, 8);
        assert!(!instances.is_second(peer, 8, 7), "it was first");
        instances.connected(peer, 7);
        assert!(instances.is_second(peer, 7, 8) && !instances.is_second(peer, 7, 7));
        assert!(!instances.is_second(PeerId::random(), 7, 8), "of another peer nothing is known");
        assert!(!instances.is_second(peer, 7, 9), "never met: a restart");
        instances.connected(peer, 9);
        assert!(!instances.is_second(peer, 9, 7) && !instances.is_second(peer, 9, 8), "both were before it");
    }

    /// Six copies beside the first, all at once, each dialling on and on.
    #[test]
    fn among_many_the_first_stays() {
        let (mut instances, peer) = (Instances::default(), PeerId::random());
        (100..100 + 2 * INSTANCES_MAX as u64).for_each(|restart| instances.connected(peer, restart));
        let mut active = 0_u64;
        instances.connected(peer, active);
        let mut displaced = 0;
        for dial in 0..700 {
            let instance = dial % 7;
            if instance != active && !instances.is_second(peer, active, instance) {
                active = instance;
                displaced += 1;
                instances.connected(peer, instance);
            }
        }
        assert_eq!(active, 0, "the one that was met first");
        assert!(displaced <= 12, "each takes the place once, as a restart would: {displaced}");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut instances = Instances::default();
        for _ in 0..2 * PEERS_MAX {
            let peer = PeerId::random();
            (0..100).for_each(|instance| instances.connected(peer, instance));
        }
        assert_eq!(instances.met.len(), PEERS_MAX);
        assert!(instances.met.iter().all(|met| met.instances.len() == INSTANCES_MAX));
    }
}
