//! Known bugs behind a switch, so that the simulator can show that it would see them. Without the feature `planted` the
//! switch is the constant `false` and the compiler drops what stands behind it.

/// Whether bugs can be planted in this build: never in the program.
pub const POSSIBLE: bool = cfg!(feature = "planted");

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Every record of the guard goes to one slot.
    GuardOneSlot,
    /// The second copy of a guard record is left out.
    GuardOneCopy,
    /// A guard record counts as durable without a sync.
    GuardUnsynced,
    /// Opening does not write the newest guard record again.
    GuardBelievesCache,
    /// A sync of the log does nothing.
    LogUnsynced,
    /// A new segment's name is not synced.
    SegmentNameUnsynced,
    /// A segment is begun before the one before it is durable.
    RollUnsynced,
    /// A record that ends where its file ends is taken for torn.
    LastRecordCut,
    /// Opening does not write again what no record says to be durable.
    LogBelievesCache,
    /// A record of another log is taken for one of this log: a client's bytes can pass for ours.
    SaltIgnored,
    /// The state's commit is not synced.
    StateUnsynced,
    /// Results are not synced.
    ResultsUnsynced,
    /// Results below a state that is made anew are not written again before they are synced.
    ResultsBelieveCache,
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug, and no other, for what this thread does from now on: a simulated run has one thread.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether a bug is planted.
    pub fn has(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    use super::Bug;

    /// No.
    pub const fn has(_: Bug) -> bool {
        false
    }
}

pub use switch::*;
