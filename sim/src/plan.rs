//! What one seed does: its network, its faults, its length. Each class of fault is left out with even odds: a run without
//! one of them finds what a run with everything hides.

use std::time::Duration;

use lockstep_replica::wire::Message;
use lockstep_types::params::Millis;
use lockstep_types::{ConsensusParams, ValidatorIndex, Vote, VoteType};
use serde::{Deserialize, Serialize};

use crate::liars::{self, Budget, Byzantine};
use crate::members::Windows;
use crate::random::Stream;

/// Nanoseconds of a millisecond.
pub(crate) const MS: u64 = 1_000_000;
/// How often a clock that drifts is set right.
pub(crate) const DISCIPLINE_NS: u64 = 600_000 * MS;

/// What some nodes do not get for a while, whoever sends it and however often: full queues lose one kind of message and
/// carry another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hushed {
    /// Prevotes and polkas: one node locks, and the others do not know.
    Prevotes,
    /// Precommits and commits: one node decides.
    Precommits,
    /// Proposals and parts: quorums come before what they name.
    Proposals,
    /// Prevotes of the validator that this node is, whoever passes them on, and polkas: its vote is the one that is missing.
    PrevotesOf(usize),
}

impl Hushed {
    /// Whether a message is of this kind. The validators' places in their set, by node.
    pub(crate) fn covers(self, message: &Message, places: &[Option<ValidatorIndex>]) -> bool {
        let votes = |kind: VoteType| match message {
            Message::Vote(vote) => vote.kind == kind,
            Message::Votes(batch) => batch.0.iter().any(|vote| vote.kind == kind),
            _ => false,
        };
        let of = |vote: &Vote, voter: usize| vote.kind == VoteType::Prevote && places.get(voter) == Some(&Some(vote.validator));
        match self {
            Self::PrevotesOf(voter) => match message {
                Message::Vote(vote) => of(vote, voter),
                Message::Votes(batch) => batch.0.iter().any(|vote| of(vote, voter)),
                _ => matches!(message, Message::Polka(_)),
            },
            Self::Prevotes => votes(VoteType::Prevote) || matches!(message, Message::Polka(_)),
            Self::Precommits => votes(VoteType::Precommit) || matches!(message, Message::Commit(_)),
            Self::Proposals => matches!(message, Message::Proposal { .. } | Message::Part { .. }),
        }
    }
}

/// One key in two replicas, of which neither knows of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Twins {
    /// The validator that runs twice.
    pub(crate) node: usize,
    /// Whether each talks to one half of the others, and not to its twin, until the heal.
    pub(crate) apart: bool,
    /// Whether both go on when they see what their key signed elsewhere. Unmodified, whoever sees it stops.
    #[serde(default)]
    pub(crate) deny: bool,
}

/// What of its past a node of a chain with checkpoints keeps, as its operator says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Keep {
    /// Snapshots.
    pub(crate) snapshots: usize,
    /// Blocks, at least; 0 for all.
    pub(crate) blocks: u64,
}

/// The plan of a seed. A file that lacks a field is older than it, and has none of what it says ([`Plan::quiet`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) powers: Vec<u64>,
    /// Nodes beyond the validators, who only follow.
    pub(crate) followers: usize,
    /// Who lies.
    pub(crate) byzantine: Byzantine,
    /// Where nobody lies, one may run twice.
    pub(crate) twins: Option<Twins>,
    /// Validators come and go by transactions, under these rules. Those who follow have keys, and may come to validate.
    pub(crate) members: Option<Windows>,
    /// Where it makes checkpoints.
    pub(crate) keep: Keep,
    /// When evidence expires, in milliseconds, and with it what old blocks are kept for; 0 for the default, a day.
    pub(crate) evidence_ms: u64,
    /// Machines are lost and replaced by empty ones with the same key and guard, and others stay away for long.
    pub(crate) replacements: bool,
    /// The chain's pace ([`lockstep_types::params::PaceParams`]), in milliseconds; its other parameters are the default ones.
    pub(crate) min_block_interval_ms: u64,
    pub(crate) empty_block_interval_ms: u64,
    pub(crate) gather_ms: u64,
    /// How long faults happen, at most.
    pub(crate) chaos: u64,
    /// Blocks after which a chain is long enough for the faults to end.
    pub(crate) chaos_blocks: u64,
    /// Times between faults are so many times as long as they would be.
    pub(crate) fault_pause: u64,
    /// Signatures are those of the curve, and not hashes that stand for them.
    pub(crate) real_keys: bool,
    /// Shortest and longest time of a frame; each link has a part of this range.
    pub(crate) latency: (u64, u64),
    /// So many frames of 100,000 take far longer.
    pub(crate) late: u64,
    /// And so long at most: half as often twice as long.
    pub(crate) late_ns: u64,
    /// How far a frame may come ahead of one that was sent before it on its link; 0 where none does.
    pub(crate) reorder: u64,
    /// So many frames of 1,000 are lost.
    pub(crate) loss: u64,
    /// So many frames of 1,000 come twice.
    pub(crate) duplication: u64,
    /// Bytes that a link carries in a second; 0 for any number.
    pub(crate) bandwidth: u64,
    /// Bytes that wait for it at most: what comes when so many wait is dropped.
    pub(crate) queue_bytes: u64,
    pub(crate) resets: bool,
    pub(crate) partitions: bool,
    /// Links hold what they carry for a while, one alone or those of several nodes one after the other.
    pub(crate) clogs: bool,
    /// A node's connection slots fill with strangers.
    pub(crate) eclipses: bool,
    /// Nodes that only follow leave, and come back, with or without what they had.
    pub(crate) churn: bool,
    pub(crate) crashes: bool,
    pub(crate) crash_all: bool,
    /// Machines stop in the middle of an operation of their disk, also while they start.
    pub(crate) disk_stops: bool,
    /// Machines freeze: everything that comes to them in that time comes late, at once.
    pub(crate) freezes: bool,
    /// Kinds of messages are lost for a while ([`Hushed`]).
    pub(crate) hushes: bool,
    /// One node alone comes to lock a block, and crashes ([`crate::world`]'s hunt for locks).
    pub(crate) hunts: bool,
    /// Files rot between a crash and the restart, of nodes that together with the liar have less than a third of the power.
    pub(crate) rots: bool,
    /// Disks fail while their machine runs ([`crate::disk::Trouble`]); what was durable is lost under the same bound as by rot.
    pub(crate) disk_troubles: bool,
    /// A machine loses what no copy of its own can give back ([`crate::disk::Loss`]).
    pub(crate) losses: bool,
    /// A machine's memory fails, and its state is not the chain's any more ([`crate::schedule::Damage`]).
    pub(crate) divergences: bool,
    /// Longest time between two crashes, in milliseconds.
    pub(crate) crash_interval_ms: u64,
    /// Largest distance of an honest clock from true time.
    pub(crate) clock_offset: u64,
    /// Clocks run fast or slow by so many parts of a million at most, and are set right every ten minutes.
    pub(crate) drift_ppm: u64,
    pub(crate) clock_steps: bool,
    pub(crate) disk_delay: u64,
    pub(crate) job_delay: u64,
    /// Between two transactions, on average.
    pub(crate) tx_interval: u64,
    pub(crate) flush_blocks: u64,
    /// Of a segment of the block log: small, so that runs of a few dozen blocks have several.
    pub(crate) segment_bytes: u64,
    /// Blocks that every node of the core commits after the heal.
    pub(crate) settle_blocks: u64,
    /// Whether nodes outside the core stay broken for good.
    pub(crate) leave_rest_broken: bool,
}

impl Plan {
    /// What this seed does.
    #[cfg(test)]
    pub(crate) fn draw(seed: u64) -> Self {
        Self::draw_within(seed, None)
    }

    /// What this seed does, with liars of a budget, or drawn ones. The topology has a stream of its own, and so have the liars
    /// and each class of faults, for whether it happens and how much.
    pub(crate) fn draw_within(seed: u64, budget: Option<Budget>) -> Self {
        Self::draw_on(seed, None, budget)
    }

    /// A long life of a small network, with everything that happens to others: four validators, a block a second, faults a
    /// minute apart rather than a second, clocks that are set right before anybody minds.
    pub(crate) fn draw_long(seed: u64, length_ns: u64) -> Self {
        let plan = Self::draw_on(seed, Some(4), None);
        let honest = plan.honest_offset();
        Self {
            chaos: length_ns,
            chaos_blocks: u64::MAX,
            fault_pause: 60,
            real_keys: false,
            min_block_interval_ms: 1_000,
            empty_block_interval_ms: 1_000,
            gather_ms: 0,
            clock_offset: plan.clock_offset.min(honest),
            // Of what is allowed, in the ten minutes in which nobody sets it right.
            drift_ppm: plan.drift_ppm.min(honest * 1_000_000 / DISCIPLINE_NS),
            tx_interval: 1_000 * MS,
            flush_blocks: plan.flush_blocks * 10,
            segment_bytes: 1 << 20,
            ..plan
        }
    }

    fn draw_on(seed: u64, validators: Option<usize>, budget: Option<Budget>) -> Self {
        let mut topology = Stream::new(seed, "topology");
        // Fewer than four have nobody with less than a third of the power, or few.
        let n =
            *topology.pick(if budget.is_some() { &[4, 4, 4, 4, 5, 6, 7, 10] } else { &[1, 2, 3, 4, 4, 4, 4, 4, 4, 5, 6, 7, 7, 10, 13] });
        let powers = validators.map_or_else(|| powers(n, &mut topology), |n| vec![10; n]);
        let followers = if topology.chance(750) { 0 } else { usize::try_from(topology.between(1, 3)).expect("few") };
        let mut dice = Stream::new(seed, "liars");
        let drawn = match dice.below(100) {
            0..36 => Some(Budget::Safe),
            36..40 => Some(Budget::Sync),
            _ => None,
        };
        let budget = budget.or(drawn);
        let (mut byzantine, followers) = match budget {
            Some(Budget::Safe) => (liars::safe(&powers, &mut dice), followers),
            Some(Budget::Over) => (liars::over(&powers, &mut dice), followers),
            Some(Budget::Sync) => liars::sync(powers.len(), &mut dice),
            None => (Byzantine::default(), followers),
        };
        if budget == Some(Budget::Safe) {
            liars::more(&mut byzantine, &mut Stream::new(seed, "liars, more"));
            liars::of_state(&mut byzantine, &mut Stream::new(seed, "liars, of state"));
        }
        let weak: Vec<usize> = weak(&powers);
        let twins = (byzantine.is_empty() && !weak.is_empty() && dice.chance(200)).then(|| Twins {
            node: *dice.pick(&weak),
            apart: dice.chance(600),
            deny: Stream::new(seed, "twins, deny").chance(700),
        });
        let mut rest = dice;
        let mut dice = Stream::new(seed, "plan");
        let class = |cause: &str| {
            let mut dice = Stream::new(seed, cause);
            dice.chance(500).then_some(dice)
        };
        let happens = |cause: &str| class(cause).is_some();
        let (chaos_ms, chaos_blocks) =
            (if dice.chance(800) { dice.between(2_000, 8_000) } else { log_between(&mut dice, 8_000, 150_000) }, dice.between(10, 60));
        let bandwidth = class("bandwidth")
            .map_or((0, 0), |mut dice| (log_between(&mut dice, 20_000, 2_000_000), log_between(&mut dice, 8 << 10, 1 << 20)));
        let late =
            class("late frames").map_or((0, 0), |mut dice| (log_between(&mut dice, 10, 3_000), log_between(&mut dice, 1_000, 30_000) * MS));
        let nodes = powers.len() + followers;
        let plan = Self {
            followers,
            byzantine,
            twins,
            members: None,
            keep: KEEP,
            evidence_ms: 0,
            replacements: false,
            min_block_interval_ms: *dice.pick(&[0, 0, 20]),
            empty_block_interval_ms: dice.between(100, 400),
            gather_ms: *dice.pick(&[0, 0, 0, 30]),
            chaos: chaos_ms * MS,
            chaos_blocks,
            fault_pause: 1,
            real_keys: Stream::new(seed, "keys").chance(100),
            latency: class("latency").map_or((MS / 10, 5 * MS), |mut dice| (MS, log_between(&mut dice, 20, 500) * MS)),
            late: late.0,
            late_ns: late.1,
            reorder: class("reordering").map_or(0, |mut dice| log_between(&mut dice, 1, 1_000) * MS),
            loss: class("loss").map_or(0, |mut dice| dice.between(5, 300)),
            duplication: class("duplication").map_or(0, |mut dice| dice.between(5, 500)),
            bandwidth: bandwidth.0,
            queue_bytes: bandwidth.1,
            resets: happens("resets happen"),
            partitions: happens("partitions happen"),
            clogs: happens("clogs happen"),
            eclipses: happens("eclipses happen"),
            churn: happens("churn happens"),
            crashes: happens("crashes happen"),
            crash_all: happens("power cuts happen"),
            disk_stops: happens("disk stops happen"),
            freezes: happens("freezes happen"),
            hushes: happens("hushes happen"),
            hunts: happens("hunts happen"),
            rots: happens("rot happens"),
            disk_troubles: happens("disk troubles happen"),
            losses: happens("losses happen"),
            divergences: Stream::new(seed, "divergences happen").chance(250),
            crash_interval_ms: *dice.pick(&[400, 800, 2_500, 2_500]),
            clock_offset: class("clock offsets")
                .map_or(0, |mut dice| (log_between(&mut dice, 1, 3_600_000) * MS).min(furthest_offset(nodes))),
            drift_ppm: class("clock drift").map_or(0, |mut dice| log_between(&mut dice, 10, 50_000)),
            clock_steps: happens("clock steps happen"),
            disk_delay: class("slow disks").map_or(MS, |mut dice| dice.between(1, 80) * MS),
            job_delay: class("slow jobs").map_or(MS / 5, |mut dice| dice.between(1, 40) * MS),
            tx_interval: dice.between(5, 200) * MS,
            flush_blocks: dice.between(1, 20),
            segment_bytes: 16 << 10,
            settle_blocks: 10,
            leave_rest_broken: dice.chance(500),
            powers,
        };
        let has_members = budget.is_none() && validators.is_none() && Stream::new(seed, "membership").chance(150);
        let plan = plan.for_liars(budget, &mut rest);
        if has_members { plan.with_members(seed) } else { plan }
    }

    /// The same with validators who come and go, in half of the runs on a chain that makes checkpoints, whose nodes forget their past and
    /// begin anew from each other's snapshots. Who lies and what rots has less than a third of the power, which here changes hands: nobody
    /// asks for what would take the sound below two thirds (`crate::world`'s `budget`). All come back at the heal, since
    /// anybody may be needed for a quorum by then.
    pub(crate) fn with_members(self, seed: u64) -> Self {
        let mut dice = Stream::new(seed, "members");
        let live = *dice.pick(&[20, 1_000, 1_000]);
        let absence = if live == 20 { *dice.pick(&[0, 25]) } else { 0 };
        let windows = Windows { live, power: *dice.pick(&[1, 3, 10]), absence, checkpoint: 0 };
        let followers = usize::try_from(dice.between(1, 3)).expect("few");
        let mut lies = Stream::new(seed, "liars among members");
        let byzantine = if lies.chance(500) { liars::among_members(&self.powers, followers, &mut lies) } else { Byzantine::default() };
        let plan = Self {
            members: Some(windows),
            followers,
            // Twins count with those who lie.
            twins: self.twins.filter(|_| byzantine.is_empty()),
            byzantine,
            leave_rest_broken: false,
            // Long enough for several changes, each of which needs blocks of its own.
            chaos: self.chaos.max(6_000 * MS),
            chaos_blocks: self.chaos_blocks.max(40),
            ..self
        };
        plan.with_checkpoints(&mut Stream::new(seed, "checkpoints"))
    }

    /// With checkpoints, in half of the runs: what lies before one goes once it is old enough, which is soon.
    fn with_checkpoints(self, dice: &mut Stream) -> Self {
        let Some(windows) = self.members.filter(|_| dice.chance(500)) else { return self };
        // Trust reaches back two thirds of the evidence window: who was away for longer needs a word of its operator.
        let evidence_ms = if dice.chance(600) { dice.between(3_000, 5_000) } else { dice.between(9_000, 14_000) };
        let (live, checkpoint) = (*dice.pick(&[4, 8, 20]), dice.between(2, 8));
        // A snapshot stays for so many blocks, or it is gone before who gathers it has asked twice.
        let snapshots = dice.between(1, 3).max(SNAPSHOT_STAYS.div_ceil(checkpoint));
        Self {
            members: Some(Windows { live, checkpoint, ..windows }),
            keep: Keep { snapshots: usize::try_from(snapshots).expect("few"), blocks: *dice.pick(&[0, 1, 1, 4, 16]) },
            evidence_ms,
            replacements: dice.chance(700),
            // Small, since segments go whole.
            segment_bytes: *dice.pick(&[4 << 10, 16 << 10]),
            chaos: self.chaos.clamp(6_000 * MS, 14_000 * MS) + evidence_ms * MS,
            chaos_blocks: self.chaos_blocks.max(80),
            ..self
        }
    }

    /// Whether the chain makes checkpoints: its nodes keep snapshots, and gather those of others.
    pub(crate) fn makes_checkpoints(&self) -> bool {
        self.members.is_some_and(|windows| windows.checkpoint > 0)
    }

    /// Whether results are kept beside the log: where files rot, and where validators come and go, since the sets of the past lie there, by which
    /// evidence is judged and which who syncs state asks for. Nodes outside of here always keep them.
    pub(crate) fn keeps_results(&self) -> bool {
        self.rots || self.disk_troubles || self.losses || self.members.is_some()
    }

    /// Nodes that may validate at one time.
    pub(crate) fn validators_max(&self) -> usize {
        self.powers.len() + if self.members.is_some() { self.followers } else { 0 }
    }

    /// What a budget asks of the rest: who catches up among liars needs a source that stays, and a cabal does more where
    /// nothing else goes wrong.
    fn for_liars(self, budget: Option<Budget>, dice: &mut Stream) -> Self {
        match budget {
            Some(Budget::Sync) => Self { leave_rest_broken: false, losses: false, chaos: self.chaos.min(10_000 * MS), ..self },
            Some(Budget::Over) if dice.chance(700) => Self {
                powers: self.powers,
                byzantine: self.byzantine,
                min_block_interval_ms: self.min_block_interval_ms,
                empty_block_interval_ms: self.empty_block_interval_ms,
                gather_ms: self.gather_ms,
                chaos: dice.between(4_000, 10_000) * MS,
                chaos_blocks: self.chaos_blocks,
                real_keys: self.real_keys,
                tx_interval: self.tx_interval,
                ..Self::quiet()
            },
            // Who has lost what it knew accuses nobody.
            Some(Budget::Over) => Self { rots: false, disk_troubles: false, losses: false, divergences: false, ..self },
            _ => self,
        }
    }

    /// A quiet network of four, for a crash at every step.
    pub(crate) fn sweep() -> Self {
        Self::quiet()
    }

    /// Nothing goes wrong.
    pub(crate) fn quiet() -> Self {
        Self {
            powers: vec![10; 4],
            followers: 0,
            byzantine: Byzantine::default(),
            twins: None,
            members: None,
            keep: KEEP,
            evidence_ms: 0,
            replacements: false,
            min_block_interval_ms: 0,
            empty_block_interval_ms: 200,
            gather_ms: 0,
            chaos: 400 * MS,
            chaos_blocks: 60,
            fault_pause: 1,
            real_keys: true,
            latency: (MS / 10, 4 * MS),
            late: 0,
            late_ns: 0,
            reorder: 4 * MS,
            loss: 0,
            duplication: 0,
            bandwidth: 0,
            queue_bytes: 0,
            resets: false,
            partitions: false,
            clogs: false,
            eclipses: false,
            churn: false,
            crashes: false,
            crash_all: false,
            disk_stops: false,
            freezes: false,
            hushes: false,
            hunts: false,
            rots: false,
            disk_troubles: false,
            losses: false,
            divergences: false,
            crash_interval_ms: 2_500,
            clock_offset: 0,
            drift_ppm: 0,
            clock_steps: false,
            disk_delay: 3 * MS,
            job_delay: MS,
            tx_interval: 60 * MS,
            flush_blocks: 3,
            segment_bytes: 16 << 10,
            settle_blocks: 3,
            leave_rest_broken: false,
        }
    }

    /// The chain's parameters.
    pub(crate) fn params(&self) -> ConsensusParams {
        let mut params = ConsensusParams::default();
        params.pace.min_block_interval = Millis(self.min_block_interval_ms);
        params.pace.empty_block_interval = Millis(self.empty_block_interval_ms);
        params.pace.gather = Millis(self.gather_ms);
        if self.evidence_ms > 0 {
            params.evidence.max_age_duration_ns = self.evidence_ms * MS;
        }
        params
    }

    /// Events of one run: far above what it needs. One that reaches it spins (I19).
    pub(crate) fn events_max(&self) -> u64 {
        4_000_000 + self.chaos / 1_000_000_000 * 50_000
    }

    /// Whether a node lies.
    pub(crate) fn lies(&self, node: usize) -> bool {
        self.byzantine.lies(node)
    }

    /// Half of PRECISION: how far an honest clock may be off.
    pub(crate) fn honest_offset(&self) -> u64 {
        self.params().synchrony.precision.0 * MS / 4
    }

    /// How long the settled core may take, from the timeouts (`reliability.md` 2.8): twice the rounds in which the liars can
    /// propose and one more, counted from the highest round at the heal, then the blocks, each at its round-0 time.
    pub(crate) fn liveness_bound(&self, highest_round: u32, lag_blocks: u64) -> u64 {
        let liars = self.byzantine.count_among(self.validators_max());
        let faulty = (u32::try_from(self.validators_max()).unwrap_or(u32::MAX) / 3).max(liars);
        let params = self.params();
        let timeouts = &params.timeouts;
        let round = |r: u32| timeouts.propose_at(r) + timeouts.vote_at(r) + timeouts.vote_at(r);
        let rounds: Duration = (0..=faulty + 1).map(|k| round(highest_round.saturating_add(k))).sum();
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // A block of the settled core waits for its interval, and for the rounds of those who do not answer.
        let block = ns(params.pace.empty_block_interval.duration())
            + ns(round(0))
            + (1..=faulty.min(1).max(liars)).map(|k| ns(round(k))).sum::<u64>();
        let misled = self.byzantine.secluded.map_or(0, |_| self.byzantine.liars.len() as u64) * LIAR_ALLOWANCE;
        let snapshots = if self.makes_checkpoints() { STATE_SYNC_ALLOWANCE * (2 + u64::from(liars)) } else { 0 };
        2 * ns(rounds) + lag_blocks * 20 * MS + (self.settle_blocks + 2) * block + SYNC_ALLOWANCE + misled + snapshots
    }
}

/// Blocks for which a snapshot is kept, at least: blocks come every few dozen milliseconds, and each question may take as long.
const SNAPSHOT_STAYS: u64 = 6;

/// Without a word about it.
const KEEP: Keep = Keep { snapshots: 2, blocks: 8 };

impl Default for Plan {
    fn default() -> Self {
        Self::quiet()
    }
}

/// Time for a core node that lost a request to the crash of the peer it asked: the request's deadline and its patience.
const SYNC_ALLOWANCE: u64 = 12_000 * MS;
/// Time that a node may need which begins anew from a snapshot, and that each liar may cost it: a height that stalls is given up after
/// twenty seconds, and whoever is told that nobody has the next block waits five before it believes it.
const STATE_SYNC_ALLOWANCE: u64 = 40_000 * MS;
/// Time that each liar may cost who catches up: two deadlines, after which it owes more than the honest.
const LIAR_ALLOWANCE: u64 = 4_000 * MS;

/// How far clocks may be off where so many nodes hear each other: a block of the furthest clock keeps the others in rounds of
/// PRECISION, in which each says twice to each that it is too early, until their clocks are there, and that should take less than half
/// of [`Plan::events_max`].
fn furthest_offset(nodes: usize) -> u64 {
    /// Seven for a pair of nodes: two votes, and what comes of them.
    const EVENTS_OF_A_PAIR: u64 = 7;
    const EVENTS: u64 = 2_000_000;
    let rounds = EVENTS / (EVENTS_OF_A_PAIR * (nodes as u64).pow(2));
    // Two clocks may be off in two directions.
    rounds * ConsensusParams::default().synchrony.precision.0 * MS / 2
}

/// A number from `low` to `high`, each order of magnitude as likely as another.
fn log_between(dice: &mut Stream, low: u64, high: u64) -> u64 {
    let doublings = (high / low).ilog2() + 1;
    let from = low << dice.below(doublings.into());
    dice.between(from, (2 * from).min(high))
}

/// Equal, or each half of the one before in rank (Zipf), or one validator with exactly a third or two thirds of the power, or
/// one unit more or less.
fn powers(n: usize, dice: &mut Stream) -> Vec<u64> {
    match dice.below(5) {
        0 => (0..n).map(|i| 1_000 / (i as u64 + 1)).collect(),
        kind @ (1 | 2) if n > 1 => {
            // Of the others, six each: half of their sum is a third of all, twice their sum two thirds.
            let others = 6 * (n as u64 - 1);
            let share = if kind == 1 { others / 2 } else { 2 * others };
            let mut powers = vec![6; n];
            powers[0] = share + dice.between(0, 2) - 1;
            powers
        }
        _ => vec![10; n],
    }
}

/// The validators that have less than a third of the power each.
fn weak(powers: &[u64]) -> Vec<usize> {
    let total: u64 = powers.iter().sum();
    (0..powers.len()).filter(|i| powers[*i] * 3 < total).collect()
}
