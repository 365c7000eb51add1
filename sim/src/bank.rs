//! The bug bank: known bugs, planted one at a time, that the simulator must find. A blind simulator is worse than none.
//!
//! Each is a line that an engineer could write, in the consensus core, in the composition around it, or beneath. They stand
//! behind the feature `planted`, which is never part of the program.

use lockstep_consensus::planted::{Bug as Core, Planted as CorePlanted};
use lockstep_replica::planted::{Bug as Step, Planted};
use lockstep_storage::planted::Bug as Stored;
use lockstep_types::planted::Bug as Beneath;

/// A planted bug.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What a table calls the kind of it.
    pub class: &'static str,
    /// Its name in the code.
    pub name: String,
    /// In words.
    pub what: &'static str,
    /// To plant it.
    pub planted: Planted,
    /// It is looked for in runs in which validators come and go: `--members`.
    pub members: bool,
    /// A seed that saw it when this was last measured: tried first, so that a test need not search. Zero where none is known yet.
    pub known: u64,
}

/// Seeds tried for each bug.
pub const SEEDS_MAX: u64 = 2_000;

fn core(class: &'static str, bug: Core, what: &'static str, known: u64) -> Entry {
    let mut planted = Planted::default();
    planted.consensus = CorePlanted::default().with(bug);
    Entry { class, name: format!("{bug:?}"), what, planted, members: false, known }
}

fn step(class: &'static str, bug: Step, what: &'static str, known: u64) -> Entry {
    Entry { class, name: format!("{bug:?}"), what, planted: Planted::default().with(bug), members: false, known }
}

fn beneath(class: &'static str, bug: Beneath, what: &'static str, known: u64) -> Entry {
    let mut planted = Planted::default();
    planted.beneath = Some(bug);
    Entry { class, name: format!("{bug:?}"), what, planted, members: false, known }
}

fn stored(class: &'static str, bug: Stored, what: &'static str, known: u64) -> Entry {
    let mut planted = Planted::default();
    planted.storage = Some(bug);
    Entry { class, name: format!("{bug:?}"), what, planted, members: false, known }
}

fn churned(class: &'static str, bug: Beneath, what: &'static str, known: u64) -> Entry {
    Entry { members: true, ..beneath(class, bug, what, known) }
}

/// Plants what is switched by thread, for what this thread simulates from now on.
pub(crate) fn plant(planted: &Planted) {
    lockstep_types::planted::plant(planted.beneath);
    lockstep_storage::planted::plant(planted.storage);
}

/// Every bug of the bank: each was seen by a seed.
pub fn bank() -> Vec<Entry> {
    every().into_iter().filter(|entry| entry.known > 0).collect()
}

/// Bugs that can be planted, and that no seed is known to see: one comes into the bank when it is measured.
pub fn candidates() -> Vec<Entry> {
    every().into_iter().filter(|entry| entry.known == 0).collect()
}

fn every() -> Vec<Entry> {
    [
        voting(),
        rounds(),
        persistence(),
        restarts(),
        blocks(),
        proofs(),
        certificates(),
        proposers(),
        gossip(),
        catching_up(),
        transactions(),
        execution(),
        membership(),
        snapshots(),
        healing(),
        audit(),
    ]
    .concat()
}

fn voting() -> Vec<Entry> {
    const CLASS: &str = "counting and locking";
    vec![
        core(CLASS, Core::QuorumAtTwoThirds, "quorum ≥ two thirds", 3),
        core(CLASS, Core::NilCounted, "a vote for nil counts for a block (L36)", 1),
        core(CLASS, Core::FirstVoteOnly, "only a validator's first vote counted", 18),
        core(CLASS, Core::DuplicateCountedTwice, "a vote that comes again counts again", 22),
        core(CLASS, Core::HeadsCounted, "validators counted, not their power", 3),
        core(CLASS, Core::PolkaBlindToValidRound, "polkas blind to the valid round", 75),
        core(CLASS, Core::NoPolkaCheck, "an old value proposed without its polka (L28)", 377),
        core(CLASS, Core::ValidRoundUnsaid, "a prevote for an old value without its valid round (L30)", 238),
        core(CLASS, Core::LockIgnored, "the lock ignored (L22)", 29),
        core(CLASS, Core::OlderPolkaReleases, "a polka older than the lock releases it (L29)", 0),
        core(CLASS, Core::NilPolkaReleases, "a polka for nil releases the lock", 36),
        core(CLASS, Core::LostBodyBelieved, "a lock's body that rotted taken to be there (L36)", 0),
        core(CLASS, Core::EarlyPolkaForgotten, "a polka before its body forgotten (L36)", 2),
        core(CLASS, Core::LateValidIgnored, "a polka after the prevote step not remembered as valid (L42)", 22),
    ]
}

fn rounds() -> Vec<Entry> {
    const CLASS: &str = "rounds, timers, time";
    vec![
        core(CLASS, Core::StaleTimer, "a stale timer obeyed", 18),
        core(CLASS, Core::ProposeTimerStopped, "a value proposed again stops the propose timer (L28 may wait for ever)", 0),
        core(CLASS, Core::PrevotesMustAgree, "the prevote timer waits for two thirds of one value (L34)", 1),
        core(CLASS, Core::PrecommitsMustAgree, "the precommit timer waits for two thirds of one value (L47)", 3),
        core(CLASS, Core::SkipPerStep, "skip counted for each kind of message (L55)", 0x40b),
        core(CLASS, Core::SkipOnOne, "one validator is enough to skip (L55)", 20),
        core(CLASS, Core::LeavesInSilence, "a round left in silence", 73),
        core(CLASS, Core::DecidesInOwnRoundOnly, "a decision of another round not taken (L49)", 18),
        core(CLASS, Core::NoTimerAfterRestart, "a restart in the propose step sets no timer", 25),
        core(CLASS, Core::TimelinessInValid, "timeliness made part of valid(v)", 3),
        core(CLASS, Core::AlwaysTimely, "every proposal timely", 4),
        step(CLASS, Step::ProposalTimeUnchecked, "a proposal says another time than its block", 0),
    ]
}

fn persistence() -> Vec<Entry> {
    const CLASS: &str = "persistence";
    vec![
        step(CLASS, Step::SendBeforeSync, "a message leaves before its guard record is durable", 1),
        step(CLASS, Step::BodyNotDurable, "a body counts as durable when it is only asked to be", 4),
        step(CLASS, Step::VoteBeforeDecision, "a vote of H + 1 before the decision of H is durable", 3),
        step(CLASS, Step::GuardBesideDecision, "the guard record of H + 1 written beside the decision of H", 3),
        step(CLASS, Step::ToldBeforeDurable, "readers told of a block that is not durable", 1),
        step(CLASS, Step::AnsweredBeforeDurable, "clients told of a block that is not durable", 1),
        step(CLASS, Step::FlushBeforeDecision, "the state written before its decision is durable", 18),
        step(CLASS, Step::DecisionWithoutBody, "a decision written without its body", 740),
        step(CLASS, Step::FirstBodyOnly, "of a round's bodies only the first written", 7),
        beneath(CLASS, Beneath::FirstTicketReleases, "an effect that waits for two writes released by the first", 3),
        beneath(CLASS, Beneath::WaitingWriteIsDurable, "a write that itself waits holds nobody back", 1),
        stored(CLASS, Stored::GuardUnsynced, "the guard not synced", 3),
        stored(CLASS, Stored::LogUnsynced, "the log not synced", 3),
        stored(CLASS, Stored::SegmentNameUnsynced, "a new segment's name not synced", 4),
        stored(CLASS, Stored::RollUnsynced, "a segment begun before the one before it is durable", 16),
        stored(CLASS, Stored::StateUnsynced, "the state's commit not synced", 3),
        stored(CLASS, Stored::ResultsUnsynced, "results not synced before the state", 3),
    ]
}

fn restarts() -> Vec<Entry> {
    const CLASS: &str = "guard and recovery";
    vec![
        step(CLASS, Step::LockLost, "the lock lost at a restart", 36),
        step(CLASS, Step::OlderRecord, "the older guard record believed at a restart", 1),
        step(CLASS, Step::OnlyNewestResent, "only the newest guard message said again after a restart", 8),
        step(CLASS, Step::EarlierForgotten, "a guard record does not repeat what was said before", 8),
        step(CLASS, Step::BodiesForgotten, "undecided bodies not looked for in the log", 312),
        beneath(CLASS, Beneath::SignsBelowGuard, "a validator whose log was cut signs below its guard", 21),
        stored(CLASS, Stored::GuardOneSlot, "every guard record in one slot", 54),
        stored(CLASS, Stored::GuardOneCopy, "one copy of a guard record", 177),
        stored(CLASS, Stored::GuardBelievesCache, "the newest guard record believed while in a cache alone", 231),
        stored(CLASS, Stored::LogBelievesCache, "the log's end believed while in a cache alone", 239),
        stored(CLASS, Stored::ResultsBelieveCache, "results below a state made anew believed while in a cache alone", 0),
        stored(CLASS, Stored::LastRecordCut, "a record that ends with its file taken for torn", 3),
        stored(CLASS, Stored::SaltIgnored, "a client's bytes taken for a record of the log", 3),
    ]
}

fn blocks() -> Vec<Entry> {
    const CLASS: &str = "valid(v)";
    vec![
        beneath(CLASS, Beneath::AppHashUnchecked, "the state's root not compared", 0),
        beneath(CLASS, Beneath::ResultsHashUnchecked, "the results' hash not compared", 0),
        beneath(CLASS, Beneath::ValidatorsHashUnchecked, "the validators' hash not compared", 0),
        beneath(CLASS, Beneath::NextValidatorsHashUnchecked, "the next validators' hash not compared", 0),
        beneath(CLASS, Beneath::ConsensusHashUnchecked, "the parameters' hash not compared", 0),
        beneath(CLASS, Beneath::ParentUnchecked, "the parent not compared", 0),
        beneath(CLASS, Beneath::TimeUnchecked, "time may go back", 0),
        beneath(CLASS, Beneath::ProposerUnchecked, "the proposer need be no validator", 0),
        step(CLASS, Step::ForeignBlockProposed, "a new value that another validator built", 0),
        beneath(CLASS, Beneath::BodyHashUnchecked, "the header's hash not compared with the name", 0),
        beneath(CLASS, Beneath::DataHashUnchecked, "the transactions not compared with the header", 0),
        beneath(CLASS, Beneath::EvidenceUnchecked, "evidence taken unread", 250),
        beneath(CLASS, Beneath::LastCommitUnverified, "the last commit's signatures not verified", 0),
    ]
}

fn proofs() -> Vec<Entry> {
    const CLASS: &str = "evidence";
    vec![
        beneath(CLASS, Beneath::EvidenceSignaturesUnread, "the signatures of evidence unread", 62),
        beneath(CLASS, Beneath::EvidenceTimeUnchecked, "evidence of any time", 20),
        beneath(CLASS, Beneath::EvidenceNeverExpires, "evidence never expires", 0),
        beneath(CLASS, Beneath::EvidenceCommittedAgain, "evidence that a block carried, carried again", 0),
        beneath(CLASS, Beneath::EvidenceRepeated, "a block that accuses one validator twice", 0),
        beneath(CLASS, Beneath::EvidenceBytesUnbounded, "evidence of any size", 0),
        step(CLASS, Step::EvidenceForgotten, "two votes that were seen make no evidence", 43),
        step(CLASS, Step::EvidenceNotProposed, "evidence not put into blocks", 43),
        step(CLASS, Step::EvidenceNotKept, "evidence forgotten by who goes down", 78),
    ]
}

fn certificates() -> Vec<Entry> {
    const CLASS: &str = "certificates and parts";
    vec![
        beneath(CLASS, Beneath::NilSlotCounts, "a precommit for nil counts for the block of a commit", 0),
        beneath(CLASS, Beneath::AbsentSlotCounts, "the power of the absent counts", 0),
        beneath(CLASS, Beneath::SignerTwice, "one signer twice in a polka", 0),
        beneath(CLASS, Beneath::OneSignatureSettles, "one valid signature of many is enough", 0),
        beneath(CLASS, Beneath::OnlyPartUnproven, "a body's only part unproven", 0),
    ]
}

fn proposers() -> Vec<Entry> {
    const CLASS: &str = "who proposes";
    vec![
        beneath(CLASS, Beneath::TieToHigherAddress, "a tie goes to the higher address", 0),
        beneath(CLASS, Beneath::RoundAheadByOne, "the proposer of round r is that of r + 1", 0),
        step(CLASS, Step::LateBuildProposed, "a block of the height before proposed", 0),
    ]
}

fn gossip() -> Vec<Entry> {
    const CLASS: &str = "gossip";
    vec![
        step(CLASS, Step::VotesNotResent, "votes not sent again", 1),
        step(CLASS, Step::VotesNotReconciled, "nobody says what it holds", 2),
        step(CLASS, Step::PolkaNotSent, "a polka not sent to who lacks it", 75),
        step(CLASS, Step::BodyAskedOnce, "a body asked for once", 0),
    ]
}

fn catching_up() -> Vec<Entry> {
    const CLASS: &str = "block sync";
    vec![
        beneath(CLASS, Beneath::SilentPeerAwaited, "a silent peer waited for without end", 16),
        beneath(CLASS, Beneath::ClaimBelieved, "an advertised height believed", 0),
        beneath(CLASS, Beneath::AnyHeightAnswers, "the block of another height taken", 0),
        beneath(CLASS, Beneath::RefutedNotAskedAgain, "a block that did not hold not asked for again", 0),
        step(CLASS, Step::FetchedUnverified, "a fetched certificate taken unverified", 0),
        step(CLASS, Step::FetchedBodyUnchecked, "a fetched body not compared with its certificate", 0),
        step(CLASS, Step::AnsweredBodyUnchecked, "a body that was asked for not compared with its name", 0),
    ]
}

fn transactions() -> Vec<Entry> {
    const CLASS: &str = "pool";
    vec![
        beneath(CLASS, Beneath::ExecutedStays, "what was executed stays in the pool", 1),
        beneath(CLASS, Beneath::ExecutedForgotten, "what was executed not remembered", 4),
        beneath(CLASS, Beneath::CheckOutlivesCommit, "what was executed while checked enters the pool", 0),
    ]
}

fn execution() -> Vec<Entry> {
    const CLASS: &str = "execution";
    vec![
        beneath(CLASS, Beneath::FirstChangeCounts, "of two changes of a key the first counts", 1),
        beneath(CLASS, Beneath::RootOfStateBefore, "the root of the height before", 4),
        beneath(CLASS, Beneath::FlushTakesLast, "a flush of several heights takes the last one's changes", 3),
        beneath(CLASS, Beneath::FlushStopsShort, "a flush forgets the changes of its own height", 3),
    ]
}

fn membership() -> Vec<Entry> {
    const CLASS: &str = "membership";
    vec![
        beneath(CLASS, Beneath::PowerMovesAtOnce, "any power moves at one height", 39),
        beneath(CLASS, Beneath::ApprovalUnneeded, "nobody has to approve who joins", 46),
        beneath(CLASS, Beneath::AdmittedExchanged, "who was admitted and waits is admitted as something else", 119),
        beneath(CLASS, Beneath::DeadCountAsLive, "the dead count for the quorum that must remain", 0),
        beneath(CLASS, Beneath::ReplacedKeepsPower, "a key that is replaced keeps its power", 46),
        churned(CLASS, Beneath::CulpritStays, "who was proven to have lied keeps its power", 0),
        churned(CLASS, Beneath::BarredReturns, "who was proven to have lied comes back", 0),
        churned(CLASS, Beneath::LeaversForgotten, "what was signed before its key left counts after", 18),
        churned(CLASS, Beneath::WeakKeyJoins, "a weak key joins", 0),
    ]
}

fn snapshots() -> Vec<Entry> {
    const CLASS: &str = "pruning and state sync";
    vec![
        churned(CLASS, Beneath::PrunesEvidenceWindow, "headers removed within the evidence window", 0),
        churned(CLASS, Beneath::PrunesUnlit, "blocks pruned within the evidence window, and their headers with them", 0),
        churned(CLASS, Beneath::PolkasPruned, "polkas pruned within the evidence window", 0),
        churned(CLASS, Beneath::PrunesNames, "headers removed whose names a restored node needs", 0),
        churned(CLASS, Beneath::PrunesUnflushed, "blocks pruned above the state on the disk", 0),
        churned(CLASS, Beneath::PrunedUntold, "what was pruned not told to who asks", 0),
        churned(CLASS, Beneath::FutureIsALie, "a header ahead of the own clock taken for a lie", 0),
        churned(CLASS, Beneath::ClimbUnverified, "a header on the way up unverified", 0),
        churned(CLASS, Beneath::AheadUnverified, "headers above a snapshot unverified", 0),
        churned(CLASS, Beneath::ChunkUnchecked, "a chunk kept unread", 0),
        churned(CLASS, Beneath::MarkGoesFirst, "the mark of what is installed goes first", 0),
        churned(CLASS, Beneath::CompleteUnsynced, "what is gathered told complete before it is durable", 0),
        churned(CLASS, Beneath::RecentForgotten, "names of the blocks below a snapshot forgotten", 0),
    ]
}

fn audit() -> Vec<Entry> {
    const CLASS: &str = "audit";
    vec![
        step(CLASS, Step::SignsWhileDiverged, "a node whose state is not the chain's goes on", 0),
        step(CLASS, Step::OneStatementBelieved, "one validator's statement believed", 0),
        step(CLASS, Step::HealedStaysSilent, "a validator that healed never signs again", 0),
        beneath(CLASS, Beneath::HealsUnchecked, "a state that was made again not compared with what was found", 0),
    ]
}

fn healing() -> Vec<Entry> {
    const CLASS: &str = "healing";
    vec![
        beneath(CLASS, Beneath::MissingSegmentFatal, "a missing segment is fatal", 0),
        beneath(CLASS, Beneath::StateAheadFatal, "a state above its log is fatal", 21),
        beneath(CLASS, Beneath::DamagedStateStays, "a damaged state copied, not taken away", 3),
        beneath(CLASS, Beneath::ResultsHoleAtState, "results missing at the state's height not made again", 0),
        beneath(CLASS, Beneath::GapHealsAnew, "results missing for good set aside what was kept since", 0),
    ]
}
