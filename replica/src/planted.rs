//! Known bugs of the composition behind switches, so that the simulator can show that it would see them. Without the
//! feature `planted` every switch is the constant `false`.

/// Whether bugs can be planted in this build: never in the program.
pub const POSSIBLE: bool = cfg!(feature = "planted");

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
    /// A guard record does not repeat what was said before at its height.
    EarlierForgotten,
    /// Readers are told of a block before its decision is durable.
    ToldBeforeDurable,
    /// Clients are told of their transaction before the decision is durable.
    AnsweredBeforeDurable,
    /// The state is written before the decision that it comes of is durable.
    FlushBeforeDecision,
    /// A decision is written without its body where that was not asked to be written yet.
    DecisionWithoutBody,
    /// Of the bodies of one round only the first is written, also where a polka names another.
    FirstBodyOnly,
    /// A restart does not look for undecided bodies in its log.
    BodiesForgotten,
    /// A body that nobody sent is asked for once.
    BodyAskedOnce,
    /// A peer that lacks votes is not sent them.
    VotesNotResent,
    /// Nobody says what it holds while its step does not move.
    VotesNotReconciled,
    /// A peer that lacks a polka is not sent it.
    PolkaNotSent,
    /// A proposal for a new value may be of a block that another validator built.
    ForeignBlockProposed,
    /// A proposal may say another time than its block.
    ProposalTimeUnchecked,
    /// A body that was asked for is not compared with its name.
    AnsweredBodyUnchecked,
    /// A fetched body is not compared with its certificate.
    FetchedBodyUnchecked,
    /// The certificate of a fetched block is taken unverified.
    FetchedUnverified,
    /// A block that was asked for at one height is proposed at the next.
    LateBuildProposed,
    /// Two votes that contradict each other make no evidence.
    EvidenceForgotten,
    /// Evidence that waits is not put into blocks.
    EvidenceNotProposed,
    /// Evidence is not written down.
    EvidenceNotKept,
    /// A replica whose state is not the chain's goes on.
    SignsWhileDiverged,
    /// One validator's statement is enough to be believed.
    OneStatementBelieved,
    /// A validator that healed never signs again.
    HealedStaysSilent,
}

#[cfg(feature = "planted")]
mod switches {
    use super::Bug;

    /// The bugs that are planted; by default none.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Planted {
        /// Those of the core.
        pub consensus: lockstep_consensus::planted::Planted,
        /// One of those that are switched by thread, to be planted by whoever runs the replica.
        pub beneath: Option<lockstep_types::planted::Bug>,
        /// One of those of storage, likewise.
        pub storage: Option<lockstep_storage::planted::Bug>,
        bits: u64,
    }

    impl Planted {
        /// This bug too.
        #[must_use]
        pub const fn with(self, bug: Bug) -> Self {
            Self { bits: self.bits | 1 << bug as u64, ..self }
        }

        /// Whether a bug is planted.
        pub const fn has(self, bug: Bug) -> bool {
            self.bits & (1 << bug as u64) != 0
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
