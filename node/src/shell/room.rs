//! Whether there is room on the disk, as the threads of the shell tell each other.
//!
//! While there is none, this validator signs nothing: what it would sign is recorded, and is signed when there is room again, as if
//! the network had been slow. A vote that is held back is not lost, so when all validators run out of room at once (they
//! may share a disk) they go on where they stood. Nothing else has to stop: what must be durable waits in the thread that
//! writes it, and every effect that names its ticket waits with it. Reads, gossip and following the chain go on, until more
//! waits than memory should hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::metrics::Metrics;

/// Between two looks whether there is room again.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// The longest time between two tries to make a whole segment: each fills what is left of the disk, for a moment.
pub(crate) const LOOK_MAX: Duration = Duration::from_secs(10);

/// Shared by clones.
#[derive(Clone)]
pub(crate) struct Room {
    /// One flag for each thread that may lack room: it is that thread's to clear.
    lacking: Arc<[AtomicBool; Lacking::COUNT]>,
    metrics: Arc<Metrics>,
}

/// What there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// The next segment of the block log, ahead of time.
    NextSegment,
    /// A record of the block log.
    Record,
    /// Results of execution.
    Results,
}

impl Lacking {
    const COUNT: usize = 3;

    const fn name(self) -> &'static str {
        match self {
            Self::NextSegment => "the next segment of the block log",
            Self::Record => "a record of the block log",
            Self::Results => "results of execution",
        }
    }
}

impl Room {
    /// There is room.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { lacking: Arc::default(), metrics }
    }

    /// Notes whether there is room for something, and says so when it changes.
    pub(crate) fn note(&self, what: Lacking, is_lacking: bool) {
        if self.lacking[what as usize].swap(is_lacking, Ordering::AcqRel) == is_lacking {
            return;
        }
        self.metrics.disk_full(!self.is_there());
        if is_lacking {
            tracing::error!(
                "the disk is full: there is no room for {}. Until there is, this node signs nothing and answers from what it has. To do: make room",
                what.name()
            );
        } else if self.is_there() {
            tracing::warn!("there is room on the disk again; this node goes on");
        }
    }

    /// Whether blocks that are decided wait for room: what readers see stands still meanwhile.
    pub(crate) fn blocks_wait(&self) -> bool {
        [Lacking::Record, Lacking::Results].iter().any(|what| self.lacking[*what as usize].load(Ordering::Acquire))
    }

    /// Whether there is room for everything.
    pub(crate) fn is_there(&self) -> bool {
        !self.lacking.iter().any(|flag| flag.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::{Lacking, Room};
    use std::sync::Arc;

    #[test]
    fn there_is_room_when_nobody_lacks_it() {
        let room = Room::new(Arc::default());
        room.note(Lacking::NextSegment, true);
        room.note(Lacking::Record, true);
        room.note(Lacking::Record, false);
        assert!(!room.is_there(), "the next segment still lacks it");
        assert!(!room.blocks_wait(), "it is made ahead of time");
        room.note(Lacking::Results, true);
        assert!(room.blocks_wait());
        room.note(Lacking::Results, false);
        room.note(Lacking::NextSegment, false);
        assert!(room.is_there());
    }
}
