//! Known bugs behind switches, so that a simulator and a model checker can show that they would see them. Without the
//! feature `planted` every switch is the constant `false` and the compiler drops what stands behind it.

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(feature = "planted"), expect(unreachable_pub, reason = "public with the feature"))]
pub enum Bug {
    /// Two thirds are a quorum: `>=` instead of `>`.
    QuorumAtTwoThirds,
    /// A vote for nil counts towards every block.
    NilCounted,
    /// Only the first vote of a validator counts in a step: an equivocator hides a quorum.
    FirstVoteOnly,
    /// A vote that comes again is counted again.
    DuplicateCountedTwice,
    /// L28 does not ask for the polka of the valid round.
    NoPolkaCheck,
    /// The lock does not bind prevotes.
    LockIgnored,
    /// A timer of an earlier round acts on this one.
    StaleTimer,
    /// An untimely block is held invalid, so no polka or certificate can carry it.
    TimelinessInValid,
    /// A validator counts towards the skip once for each kind of message.
    SkipPerStep,
    /// Prevotes for one block are counted together whatever their valid rounds.
    PolkaBlindToValidRound,
    /// A body that the disk has lost since a lock was recorded is taken to be there.
    LostBodyBelieved,
    /// A polka that is complete before its body is checked and durable is never looked at again.
    EarlyPolkaForgotten,
    /// L29 lets a polka of any round release the lock, not only one that is not older.
    OlderPolkaReleases,
    /// L42 runs only where L38 does: a polka seen after the prevote step is not remembered as valid.
    LateValidIgnored,
    /// A validator counts as one, whatever its power.
    HeadsCounted,
    /// L30 forgets to say the valid round.
    ValidRoundUnsaid,
    /// A value proposed again stops the propose timer, though the polka that it names may never come.
    ProposeTimerStopped,
    /// One validator ahead of us is enough to skip (L55).
    SkipOnOne,
    /// L34 waits for two thirds of one value.
    PrevotesMustAgree,
    /// L47 waits for two thirds of one value.
    PrecommitsMustAgree,
    /// A polka for nil releases the lock.
    NilPolkaReleases,
    /// L49 looks at the round that we are in alone.
    DecidesInOwnRoundOnly,
    /// A restart in the propose step sets no timer.
    NoTimerAfterRestart,
    /// A round is left in silence, as the paper has it.
    LeavesInSilence,
    /// Every proposal is timely.
    AlwaysTimely,
}

#[cfg(feature = "planted")]
mod switches {
    use super::Bug;

    /// The bugs that are planted; by default none.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct Planted(u32);

    impl Planted {
        /// This bug too.
        #[must_use]
        pub const fn with(self, bug: Bug) -> Self {
            Self(self.0 | 1 << bug as u32)
        }

        /// Whether a bug is planted.
        pub const fn has(self, bug: Bug) -> bool {
            self.0 & (1 << bug as u32) != 0
        }
    }
}

#[cfg(not(feature = "planted"))]
mod switches {
    use super::Bug;

    /// No bug is planted.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub(crate) struct Planted(());

    impl Planted {
        pub(crate) const fn has(self, _: Bug) -> bool {
            false
        }
    }
}

#[cfg(feature = "planted")]
pub use switches::Planted;
#[cfg(not(feature = "planted"))]
pub(crate) use switches::Planted;
