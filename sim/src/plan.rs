//! What one seed does: its network, its faults, its length. Each class of fault is left out with even odds: a run without
//! one of them finds what a run with everything hides.

use std::time::Duration;

use lockstep_replica::wire::Message;
use lockstep_types::params::Millis;
use lockstep_types::{ConsensusParams, ValidatorIndex, Vote, VoteType};
use serde::{Deserialize, Serialize};

use crate::random::Stream;

/// Nanoseconds of a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// How a Byzantine validator lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lie {
    /// Two votes for one place, one to each half of its peers.
    Equivocate,
    /// Two proposals for one round; or a proposal to half of its peers.
    TwoProposals,
    /// Sends what it says to half of its peers only.
    Withhold,
    /// Claims valid rounds that its prevotes do not have.
    ForgeValidRound,
    /// Votes for blocks that do not exist.
    Invent,
    /// Two valid blocks for one round, one to each half, and votes for both.
    TwoBlocks,
    /// Proposes under a valid round that has no polka, or hides the one that has, from half of its peers.
    ForgeProposalRound,
    /// Votes for rounds far ahead, in both steps.
    FarRounds,
}

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
    pub(crate) fn covers(self, message: &Message, places: &[ValidatorIndex]) -> bool {
        let votes = |kind: VoteType| match message {
            Message::Vote(vote) => vote.kind == kind,
            Message::Votes(batch) => batch.0.iter().any(|vote| vote.kind == kind),
            _ => false,
        };
        let of = |vote: &Vote, voter: usize| vote.kind == VoteType::Prevote && places.get(voter) == Some(&vote.validator);
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

/// One key in two unmodified replicas, of which neither knows of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Twins {
    /// The validator that runs twice.
    pub(crate) node: usize,
    /// Whether each talks to one half of the others, and not to its twin, until the heal.
    pub(crate) apart: bool,
}

/// The plan of a seed. A file that lacks a field is older than it, and has none of what it says ([`Plan::quiet`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) powers: Vec<u64>,
    /// Nodes beyond the validators, who only follow.
    pub(crate) followers: usize,
    /// One validator with less than a third of the power lies.
    pub(crate) byzantine: Option<(usize, Lie)>,
    /// Or runs twice.
    pub(crate) twins: Option<Twins>,
    /// The chain's pace ([`lockstep_types::params::PaceParams`]), in milliseconds; its other parameters are the default ones.
    pub(crate) min_block_interval_ms: u64,
    pub(crate) empty_block_interval_ms: u64,
    pub(crate) gather_ms: u64,
    /// How long faults happen.
    pub(crate) chaos: u64,
    pub(crate) latency: (u64, u64),
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) resets: bool,
    pub(crate) partitions: bool,
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
    /// Longest time between two crashes, in milliseconds.
    pub(crate) crash_interval_ms: u64,
    /// Largest distance of an honest clock from true time.
    pub(crate) clock_offset: u64,
    pub(crate) clock_steps: bool,
    pub(crate) disk_delay: u64,
    pub(crate) job_delay: u64,
    /// Between two transactions, on average.
    pub(crate) tx_interval: u64,
    pub(crate) flush_blocks: u64,
    /// Blocks that every node of the core commits after the heal.
    pub(crate) settle_blocks: u64,
    /// Whether nodes outside the core stay broken for good.
    pub(crate) leave_rest_broken: bool,
}

impl Plan {
    /// What this seed does.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut dice = Stream::new(seed, "plan");
        let n = *dice.pick(&[1, 2, 3, 4, 4, 4, 4, 4, 5, 6, 7]);
        let powers = powers(n, &mut dice);
        let byzantine = (dice.chance(400)).then(|| liar(&powers, &mut dice)).flatten();
        // A stream of their own, so that the seeds of before keep their meaning.
        let mut more = Stream::new(seed, "plan, continued");
        let weak: Vec<usize> = weak(&powers);
        let twins = (byzantine.is_none() && !weak.is_empty() && more.chance(200))
            .then(|| Twins { node: *more.pick(&weak), apart: more.chance(600) });
        let byzantine = byzantine.map(|(node, lie)| match more.below(6) {
            0 => (node, Lie::TwoBlocks),
            1 => (node, Lie::ForgeProposalRound),
            2 => (node, Lie::FarRounds),
            _ => (node, lie),
        });
        let class = |dice: &mut Stream| dice.chance(500);
        let slow = class(&mut dice);
        Self {
            followers: usize::from(dice.chance(250)),
            byzantine,
            twins,
            min_block_interval_ms: *dice.pick(&[0, 0, 20]),
            empty_block_interval_ms: dice.between(100, 400),
            gather_ms: *dice.pick(&[0, 0, 0, 30]),
            chaos: dice.between(2_000, 8_000) * MS,
            latency: if slow { (MS, dice.between(20, 150) * MS) } else { (MS / 10, 5 * MS) },
            loss: if class(&mut dice) { dice.between(5, 400) } else { 0 },
            duplication: if class(&mut dice) { dice.between(5, 300) } else { 0 },
            resets: class(&mut dice),
            partitions: class(&mut dice),
            crashes: class(&mut dice),
            crash_all: class(&mut dice),
            disk_stops: class(&mut more),
            freezes: class(&mut more),
            hushes: class(&mut more),
            hunts: class(&mut Stream::new(seed, "plan, hunt")),
            rots: class(&mut Stream::new(seed, "plan, rot")),
            crash_interval_ms: *dice.pick(&[400, 800, 2_500, 2_500]),
            clock_offset: if class(&mut dice) { dice.between(1, 5_000) * MS } else { 0 },
            clock_steps: class(&mut dice),
            disk_delay: if class(&mut dice) { dice.between(1, 80) * MS } else { MS },
            job_delay: if class(&mut dice) { dice.between(1, 40) * MS } else { MS / 5 },
            tx_interval: dice.between(5, 200) * MS,
            flush_blocks: dice.between(1, 20),
            settle_blocks: 10,
            leave_rest_broken: class(&mut dice),
            powers,
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
            byzantine: None,
            twins: None,
            min_block_interval_ms: 0,
            empty_block_interval_ms: 200,
            gather_ms: 0,
            chaos: 400 * MS,
            latency: (MS / 10, 4 * MS),
            loss: 0,
            duplication: 0,
            resets: false,
            partitions: false,
            crashes: false,
            crash_all: false,
            disk_stops: false,
            freezes: false,
            hushes: false,
            hunts: false,
            rots: false,
            crash_interval_ms: 2_500,
            clock_offset: 0,
            clock_steps: false,
            disk_delay: 3 * MS,
            job_delay: MS,
            tx_interval: 60 * MS,
            flush_blocks: 3,
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
        params
    }

    /// Half of PRECISION: how far an honest clock may be off.
    pub(crate) fn honest_offset(&self) -> u64 {
        self.params().synchrony.precision.0 * MS / 4
    }

    /// How long the settled core may take, from the timeouts (`reliability.md` 2.8): twice the rounds in which the liars can
    /// propose and one more, counted from the highest round at the heal, then the blocks, each at its round-0 time.
    pub(crate) fn liveness_bound(&self, highest_round: u32, lag_blocks: u64) -> u64 {
        let faulty = u32::try_from(self.powers.len()).unwrap_or(u32::MAX) / 3;
        let params = self.params();
        let timeouts = &params.timeouts;
        let round = |r: u32| timeouts.propose_at(r) + timeouts.vote_at(r) + timeouts.vote_at(r);
        let rounds: Duration = (0..=faulty + 1).map(|k| round(highest_round.saturating_add(k))).sum();
        let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // A block of the settled core waits for its interval, and for the rounds of those who do not answer.
        let block = ns(params.pace.empty_block_interval.duration()) + ns(round(0)) + ns(round(1)) * u64::from(faulty.min(1));
        2 * ns(rounds) + lag_blocks * 20 * MS + (self.settle_blocks + 2) * block + SYNC_ALLOWANCE
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::quiet()
    }
}

/// Time for a core node that lost a request to the crash of the peer it asked: the request's deadline and its patience.
const SYNC_ALLOWANCE: u64 = 12_000 * MS;

fn powers(n: usize, dice: &mut Stream) -> Vec<u64> {
    match dice.below(4) {
        0 => (0..n).map(|i| 1_000 / (i as u64 + 1)).collect(),
        1 if n > 1 => {
            // One validator with a third of the power, one more or one less.
            let others = 2 * (n as u64 - 1) * 3;
            let mut powers = vec![6; n];
            powers[0] = (others / 2).saturating_add(dice.between(0, 2)).saturating_sub(1).max(1);
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

/// A validator with less than a third of the power, and its way.
fn liar(powers: &[u64], dice: &mut Stream) -> Option<(usize, Lie)> {
    let candidates = weak(powers);
    if candidates.is_empty() {
        return None;
    }
    let lies = [Lie::Equivocate, Lie::Equivocate, Lie::TwoProposals, Lie::Withhold, Lie::ForgeValidRound, Lie::Invent];
    Some((*dice.pick(&candidates), *dice.pick(&lies)))
}
