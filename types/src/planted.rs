//! Known bugs behind a switch, so that the simulator can show that it would see them. Without the feature `planted` the
//! switch is the constant `false` and the compiler drops what stands behind it.
//!
//! These are the bugs of places that nobody hands a configuration to: pure functions of this crate and of the ones above it,
//! and the jobs beside the replica. Those of the consensus core and of the replica's steps are switched in
//! `lockstep_consensus::planted` and `lockstep_replica::planted`, those of storage in `lockstep_storage::planted`.

/// Whether bugs can be planted in this build: never in the program.
pub const POSSIBLE: bool = cfg!(feature = "planted");

/// A bug that can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    // --- certificates and parts ---
    /// A precommit for nil counts for the block of a commit.
    NilSlotCounts,
    /// The power of a validator whose slot is empty counts.
    AbsentSlotCounts,
    /// A polka takes a signer again right behind itself.
    SignerTwice,
    /// One valid signature settles a claim of many.
    OneSignatureSettles,
    /// A body of one part needs no proof.
    OnlyPartUnproven,
    // --- who proposes ---
    /// Of validators with one priority the one with the higher address proposes.
    TieToHigherAddress,
    /// The proposer of round r is that of round r + 1, from round 1 on.
    RoundAheadByOne,
    // --- valid(v) ---
    /// The state's root in a header is not compared.
    AppHashUnchecked,
    /// The results' hash in a header is not compared.
    ResultsHashUnchecked,
    /// The hash of the validators in a header is not compared.
    ValidatorsHashUnchecked,
    /// The hash of the next validators in a header is not compared.
    NextValidatorsHashUnchecked,
    /// The hash of the parameters in a header is not compared.
    ConsensusHashUnchecked,
    /// The parent that a header names is not compared.
    ParentUnchecked,
    /// A block may be of any time.
    TimeUnchecked,
    /// A block may say that anybody proposed it.
    ProposerUnchecked,
    /// The header of a body need not have the name's hash.
    BodyHashUnchecked,
    /// The transactions are not compared with the header.
    DataHashUnchecked,
    /// Evidence is taken unread.
    EvidenceUnchecked,
    /// The signatures of evidence are not verified.
    EvidenceSignaturesUnread,
    /// Evidence may say any time.
    EvidenceTimeUnchecked,
    /// Evidence never expires.
    EvidenceNeverExpires,
    /// What a block carried may be carried again.
    EvidenceCommittedAgain,
    /// A block may accuse one validator many times.
    EvidenceRepeated,
    /// A block may carry more evidence than the parameters say.
    EvidenceBytesUnbounded,
    /// The signatures of the last commit are not verified.
    LastCommitUnverified,
    // --- execution ---
    /// Of two changes of one key in a block the first one counts.
    FirstChangeCounts,
    /// The root that an outcome says is that of the state before.
    RootOfStateBefore,
    /// A flush of several heights takes the changes of the last one alone.
    FlushTakesLast,
    /// A flush forgets the changes of its own height.
    FlushStopsShort,
    // --- the order of effects ---
    /// An effect that waits for several writes is released by the first.
    FirstTicketReleases,
    /// A write that itself waits does not hold back who waits for it.
    WaitingWriteIsDurable,
    // --- the guard, read back ---
    /// A validator whose log was cut signs below its guard.
    SignsBelowGuard,
    // --- block sync ---
    /// A request that nobody answers is waited for without end.
    SilentPeerAwaited,
    /// What any peer says to have is believed to be decided.
    ClaimBelieved,
    /// An answer may begin with the block of another height.
    AnyHeightAnswers,
    /// A block that did not hold is not asked for again.
    RefutedNotAskedAgain,
    // --- state sync ---
    /// A header on the way up needs no signatures.
    ClimbUnverified,
    /// The signatures of headers above a snapshot are not checked.
    AheadUnverified,
    /// A header on the way down needs not be the parent.
    ParentHeaderUnchecked,
    /// The round of a commit on the way down, which no hash covers, is believed.
    RoundUnverified,
    /// The commit that comes with a named header is believed, and all of one where some of it decides.
    CertificateUnverified,
    /// A chunk is kept unread.
    ChunkUnchecked,
    /// What is gathered is said to be complete before it is durable.
    CompleteUnsynced,
    /// The mark of what is being installed goes before the new log is there.
    MarkGoesFirst,
    /// The names of the blocks below a snapshot are not restored.
    RecentForgotten,
    /// A header that is ahead of our own clock is a lie of who gave it.
    FutureIsALie,
    // --- pruning ---
    /// Headers go while evidence of their heights may still come.
    PrunesEvidenceWindow,
    /// Bodies go before their evidence has expired, and their headers with them.
    PrunesUnlit,
    /// Polkas are not put aside with the headers of blocks that go.
    PolkasPruned,
    /// Headers go whose names whoever restores a snapshot needs.
    PrunesNames,
    /// Blocks go that the next start begins with.
    PrunesUnflushed,
    /// Nobody is told that blocks are gone.
    PrunedUntold,
    // --- the pool ---
    /// What a block executed stays in the pool.
    ExecutedStays,
    /// What a block executed is not remembered.
    ExecutedForgotten,
    /// What a block executed while it was being checked enters the pool when it is.
    CheckOutlivesCommit,
    // --- membership ---
    /// Any power moves at one height.
    PowerMovesAtOnce,
    /// Nobody has to approve.
    ApprovalUnneeded,
    /// Who was admitted and waits may be admitted as something else.
    AdmittedExchanged,
    /// Whoever remains is taken to be live.
    DeadCountAsLive,
    /// A key that is replaced keeps its power.
    ReplacedKeepsPower,
    /// Who was proven to have lied keeps its power.
    CulpritStays,
    /// Who was proven to have lied may ask again.
    BarredReturns,
    /// A request counts that was signed before its key left.
    LeaversForgotten,
    /// A weak key may join.
    WeakKeyJoins,

    // --- healing ---
    /// A missing segment of the log is a reason not to start.
    MissingSegmentFatal,
    /// A log that was cut below the state is a reason not to start.
    StateAheadFatal,
    /// The state that is damaged is copied and not taken away.
    DamagedStateStays,
    /// Results that are missing at the height of the state itself are not made again.
    ResultsHoleAtState,
    /// Results that are missing for good are in the way of those that were kept since.
    GapHealsAnew,
    /// A state that was found to be another than the chain's is not compared when it was made again.
    HealsUnchecked,
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
