//! Known bugs of the composition behind switches, so that the simulator can show that it would see them. Without the
//! feature `planted` every switch is the constant `false`.

/// A bug that can be planted in the replica; those of the core are `lockstep_consensus::planted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A message is signed and sent while its guard record is still being written.
    SendBeforeSync,
    /// A body counts as durable as soon as it is asked to be.
    BodyNotDurable,
    /// Messages of H + 1 do not wait for the decision of H.
    VoteBeforeDecision,
    /// The guard record of H + 1 is written beside the decision of H; the message waits for both.
    GuardBesideDecision,
    /// A restart forgets the lock.
    LockLost,
    /// A restart sends only the newest of the guard's messages again.
    OnlyNewestResent,
    /// A restart believes the older of the guard's records.
    OlderRecord,
}

#[cfg(feature = "planted")]
mod switches {
    use super::Bug;

    /// The bugs that are planted; by default none.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Planted {
        /// Those of the core.
        pub consensus: lockstep_consensus::planted::Planted,
        bits: u32,
    }

    impl Planted {
        /// This bug too.
        #[must_use]
        pub const fn with(self, bug: Bug) -> Self {
            Self { bits: self.bits | 1 << bug as u32, ..self }
        }

        /// Whether a bug is planted.
        pub const fn has(self, bug: Bug) -> bool {
            self.bits & (1 << bug as u32) != 0
        }
    }
}

#[cfg(not(feature = "planted"))]
mod switches {
    use super::Bug;

    /// No bug is planted.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Planted(());

    impl Planted {
        /// No.
        pub const fn has(self, _: Bug) -> bool {
            false
        }
    }
}

pub use switches::Planted;
