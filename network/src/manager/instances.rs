//! Which processes were met under one node key.
//!
//! A process draws an `instance` when it starts. A peer that comes with another one was restarted, and the new connection replaces the
//! old. Where the earlier instance then comes back, both run: a home was copied, node key and all. Displacing each other for ever they
//! would both be half deaf, so from then on the one that was met first keeps its place, and the other one is told why it gets none.
//!
//! One that the key of a validator of now vouches for comes before one for which none does: nobody has anything from a process that signs
//! nothing, because it has stopped ([`crate::Network::withdraw_validator`]) or has only the node key.

use std::collections::VecDeque;

use libp2p::PeerId;

/// Peers that are remembered, those met last.
const PEERS_MAX: usize = 256;
/// Instances of each, likewise: far more than copies of one home. What is forgotten is met as a restart, and takes the place once more.
const INSTANCES_MAX: usize = 64;

/// A process, as its opening message shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) instance: u64,
    /// The key of one of the validators vouches for it.
    pub(super) is_bound: bool,
}

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

    /// Whether a connection of `new` must not replace that of `active`: a validator's key vouches for that one alone; or both run, and that
    /// one was first. Otherwise one that was never met may be a restart of either.
    pub(super) fn is_second(&self, peer: PeerId, active: Process, new: Process) -> bool {
        if active.instance == new.instance {
            return false;
        }
        if active.is_bound != new.is_bound {
            return active.is_bound;
        }
        let Some(met) = self.met.iter().find(|met| met.peer == peer && met.several) else { return false };
        let place = |process: Process| met.instances.iter().position(|(other, _)| *other == process.instance);
        place(active).zip(place(new)).is_some_and(|(active, new)| active < new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(instance: u64) -> Process {
        Process { instance, is_bound: false }
    }

    fn bound(instance: u64) -> Process {
        Process { instance, is_bound: true }
    }

    #[test]
    fn a_peer_that_is_restarted_again_and_again_is_one() {
        let (mut instances, peer) = (Instances::default(), PeerId::random());
        for instance in 0_u64..10 {
            assert!(!instances.is_second(peer, bare(instance.saturating_sub(1)), bare(instance)));
            instances.connected(peer, instance);
            instances.connected(peer, instance);
        }
    }

    #[test]
    fn of_two_that_take_turns_the_first_stays() {
        let (mut instances, peer) = (Instances::default(), PeerId::random());
        instances.connected(peer, 7);
        assert!(!instances.is_second(peer, bare(7), bare(8)), "it may be a restart");
        instances.connected(peer, 8);
        assert!(!instances.is_second(peer, bare(8), bare(7)), "it was first");
        instances.connected(peer, 7);
        assert!(instances.is_second(peer, bare(7), bare(8)) && !instances.is_second(peer, bare(7), bare(7)));
        assert!(!instances.is_second(PeerId::random(), bare(7), bare(8)), "of another peer nothing is known");
        assert!(!instances.is_second(peer, bare(7), bare(9)), "never met: a restart");
        instances.connected(peer, 9);
        assert!(!instances.is_second(peer, bare(9), bare(7)) && !instances.is_second(peer, bare(9), bare(8)), "both were before it");
    }

    #[test]
    fn the_one_that_a_validator_vouches_for_comes_first() {
        let (mut instances, peer) = (Instances::default(), PeerId::random());
        instances.connected(peer, 7);
        assert!(instances.is_second(peer, bound(7), bare(8)), "whoever has only the node key");
        assert!(!instances.is_second(peer, bare(7), bound(8)), "the validator was started beside it");
        instances.connected(peer, 8);
        instances.connected(peer, 7);
        assert!(!instances.is_second(peer, bare(7), bound(8)), "whoever was first");
        assert!(instances.is_second(peer, bound(7), bound(8)) && instances.is_second(peer, bare(7), bare(8)), "of equals the first");
        assert!(!instances.is_second(peer, bound(7), bare(7)), "the same process, which has withdrawn");
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
            if instance != active && !instances.is_second(peer, bare(active), bare(instance)) {
                active = instance;
                displaced += 1;
                instances.connected(peer, instance);
            }
        }
        assert_eq!(active, 0, "the one that was met first");
        assert!(displaced <= 12, "each takes the place once, as a restart would: {displaced}");
    }

    /// Copies without end, each of which runs for a moment.
    #[test]
    fn who_comes_back_is_not_forgotten_for_those_who_do_not() {
        let (mut instances, peer) = (Instances::default(), PeerId::random());
        instances.connected(peer, 0);
        for copy in 1..=3 * INSTANCES_MAX as u64 {
            assert!(!instances.is_second(peer, bare(0), bare(copy)), "it may be a restart");
            instances.connected(peer, copy);
            assert!(!instances.is_second(peer, bare(copy), bare(0)), "it was first");
            instances.connected(peer, 0);
            assert!(instances.is_second(peer, bare(0), bare(copy)));
        }
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
