//! What is to happen, and when; and faults that last.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use bytes::Bytes;
use lockstep_app::State;
use lockstep_replica::seam::JobId;
use lockstep_replica::{Effect, Input};

use super::faults::{Cause, Outage};
use crate::plan::Hushed;
use crate::schedule::Fault;

pub(super) enum What {
    Input {
        node: usize,
        life: u64,
        input: Box<Input>,
    },
    LogSync {
        node: usize,
        life: u64,
    },
    GuardSync {
        node: usize,
        life: u64,
    },
    Job {
        node: usize,
        life: u64,
        effect: Box<Effect>,
    },
    /// The first of [`Running::to_execute`](crate::node::Running::to_execute) is done.
    Execute {
        node: usize,
        life: u64,
    },
    Frame {
        from: usize,
        to: usize,
        connection: u64,
        bytes: Bytes,
        gossip: bool,
    },
    Ask {
        from: usize,
        from_life: u64,
        to: usize,
        job: JobId,
        connection: u64,
        bytes: Bytes,
    },
    Connect {
        a: usize,
        b: usize,
    },
    /// A cause of faults rolls its dice.
    Wake(Cause),
    /// A fault happens.
    Strike(Box<Fault>),
    Restart {
        node: usize,
        life: u64,
    },
    /// Somebody copies all disks, as a backup.
    Copy,
    /// The snapshot of a checkpoint is made, and old blocks go.
    Keep {
        node: usize,
        life: u64,
        state: Box<State>,
    },
    /// Somebody looks after a node that cannot go on by itself.
    Help {
        node: usize,
        life: u64,
    },
    /// Somebody looks whether there is room on a disk again.
    Room {
        node: usize,
    },
    /// What waits for room is tried again.
    News {
        node: usize,
        life: u64,
    },
    /// A disk that lied loses power.
    LieEnds {
        node: usize,
        outage: Outage,
    },
    Submit,
    /// A client reads.
    Query,
}

/// Links on which frames vanish.
#[derive(Debug)]
pub(super) struct Cutting {
    pub(super) since: u64,
    pub(super) until: u64,
    /// They work in every other span of this length; 0 where they never do.
    pub(super) flap: u64,
    pub(super) links: BTreeSet<(usize, usize)>,
}

impl Cutting {
    pub(super) fn holds(&self, now: u64) -> bool {
        now < self.until && (self.flap == 0 || ((now - self.since) / self.flap).is_multiple_of(2))
    }
}

/// Links that hold what they carry.
#[derive(Debug)]
pub(super) struct Clogging {
    pub(super) until: u64,
    pub(super) links: BTreeSet<(usize, usize)>,
}

/// A node whose connection slots strangers have.
#[derive(Debug)]
pub(super) struct Eclipse {
    pub(super) until: u64,
    pub(super) node: usize,
    pub(super) keeps: BTreeSet<usize>,
}

/// Nodes that do not get one kind of message.
#[derive(Debug)]
pub(super) struct Deafness {
    pub(super) until: u64,
    pub(super) kind: Hushed,
    pub(super) nodes: BTreeSet<usize>,
}

pub(super) struct Event {
    pub(super) at: u64,
    pub(super) tie: u64,
    pub(super) sequence: u64,
    pub(super) what: What,
}

impl What {
    /// The node whose disk it syncs.
    pub(super) fn syncs(&self) -> Option<usize> {
        match self {
            Self::LogSync { node, .. } | Self::GuardSync { node, .. } => Some(*node),
            Self::Job { node, effect, .. } if matches!(**effect, Effect::Flush { .. }) => Some(*node),
            _ => None,
        }
    }

    /// The node that it comes to; none where the node is not asked.
    pub(super) fn target(&self) -> Option<usize> {
        match self {
            Self::Input { node, .. }
            | Self::LogSync { node, .. }
            | Self::GuardSync { node, .. }
            | Self::Job { node, .. }
            | Self::Execute { node, .. }
            | Self::Keep { node, .. } => Some(*node),
            Self::Frame { to, .. } | Self::Ask { to, .. } => Some(*to),
            _ => None,
        }
    }
}

/// What is to happen, the earliest first. What it is lies beside the heap, which moves only when.
#[derive(Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<(u64, u64, u64, usize)>>,
    slots: Vec<Option<What>>,
    free: Vec<usize>,
}

impl Events {
    pub(super) fn push(&mut self, Event { at, tie, sequence, what }: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(what);
        self.heap.push(Reverse((at, tie, sequence, slot)));
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        let Reverse((at, tie, sequence, slot)) = self.heap.pop()?;
        self.free.push(slot);
        self.slots[slot].take().map(|what| Event { at, tie, sequence, what })
    }
}
