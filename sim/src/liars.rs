//! Who lies in a run, how, and when: drawn from the seed, kept as values.
//!
//! A liar runs the node like everybody else; what leaves its mouth is another thing ([`crate::world`]'s `byzantine`). Each
//! has one to three [`Lie`]s, each with its [`Trigger`]. How much power lies is the [`Budget`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::random::Stream;
use crate::world::Tally;

/// How much of the network lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Validators with less than a third of the power: everything that is promised holds.
    #[default]
    Safe,
    /// Validators with more than a third of the power and less than two thirds, who are of one mind and want a fork: what is
    /// promised is that a fork names more than a third of the power, and nobody honest.
    Over,
    /// Any number of nodes without power, who lie to those who catch up: one honest source is enough.
    Sync,
}

impl Budget {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Safe, Self::Over, Self::Sync];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Over => "over",
            Self::Sync => "sync",
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|budget| budget.name() == text)
            .ok_or_else(|| format!("{text} is no budget of liars; there are {}", names()))
    }
}

/// What a liar does. "Half" are the peers at odd places of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Lie {
    /// Two votes for one place, one to each half.
    Equivocate,
    /// Two proposals for one round, the second of a block that does not exist.
    TwoProposals,
    /// Two valid blocks for one round, one to each half, and votes for both.
    TwoBlocks,
    /// Votes to each peer what that peer votes.
    Echo,
    /// Says nothing to half.
    Withhold,
    /// Prevotes with valid rounds that are not the proposal's.
    ForgeValidRound,
    /// Votes for what is proposed, whatever it is locked on, and precommits it without a polka.
    Forget,
    /// Proposes under a valid round that has no polka, or hides the one that has.
    ForgeProposalRound,
    /// Votes for blocks that do not exist.
    Invent,
    /// Votes for rounds a little ahead.
    FarRounds,
    /// Keeps parts of its blocks, or all, from half, and answers nobody who asks for them.
    HideParts,
    /// Proposes after the others gave up, but to one of them.
    LateProposal,
    /// Passes no polka on, nor what makes one.
    HidePolka,
    /// Proposes blocks that are invalid, each time in another way; evidence of things that did not happen among them.
    BadBlock,
    /// Signs with another key, for another chain, for another kind of message, in the name of others.
    BadSignature,
    /// Votes for heights and rounds 0, far away and the last there are.
    Extremes,
    /// Says again what anybody said before, also before a restart.
    Replay,
    /// Proposes when it is somebody else's turn.
    OutOfTurn,
    /// Parts at other places, with other proofs, of other bodies; sets of numbers that mean nothing; indices out of range.
    ForgeParts,
    /// Votes when the others are about to give up.
    LastMoment,
    /// Votes nil, whatever is proposed.
    NilOnly,
    /// Votes and proposals from other times.
    Timestamps,
    /// Polkas and commits with too few signers, with one twice, with signatures for something else.
    ForgeCertificates,
    /// Says that it is higher or lower than it is, or that it has lost what it has not.
    PoisonHeights,
    /// Answers with wrong blocks, wrong bodies, wrong certificates.
    WrongAnswers,
    /// Answers late, little, or never.
    SlowAnswers,
    /// Answers who asks for its own messages with messages that it never signed.
    ForgeOwn,
    /// Floods the pool.
    Spam,
    /// Changes one field of what it says a little, and signs that.
    Mutate,
    /// Changes bytes: bits, lengths, ends.
    RawBytes,
    /// Evidence of what never happened, of what is proven already, with something in it changed, in floods; and true evidence
    /// against itself of heights long past.
    ForgeEvidence,
    /// Passes no evidence on, and votes twice now and then.
    HideEvidence,
    /// Votes after it left the validators, or before it came to them, under whichever index.
    VoteOutside,
    /// Asks to leave when it is its turn to propose, or when it has just voted twice.
    QuitInTurn,
    /// Answers who gathers a snapshot with offers of what there is not, changed manifests, other chunks, forged headers, or not any more.
    FalseSnapshots,
    /// Says of its state what is not so: the same to all, or something else to each, and passes on what nobody said.
    FalseStatements,
}

impl Lie {
    /// All of them.
    pub(crate) const ALL: [Self; 32] = [
        Self::Equivocate,
        Self::TwoProposals,
        Self::TwoBlocks,
        Self::Echo,
        Self::Withhold,
        Self::ForgeValidRound,
        Self::Forget,
        Self::ForgeProposalRound,
        Self::Invent,
        Self::FarRounds,
        Self::HideParts,
        Self::LateProposal,
        Self::HidePolka,
        Self::BadBlock,
        Self::BadSignature,
        Self::Extremes,
        Self::Replay,
        Self::OutOfTurn,
        Self::ForgeParts,
        Self::LastMoment,
        Self::NilOnly,
        Self::Timestamps,
        Self::ForgeCertificates,
        Self::PoisonHeights,
        Self::WrongAnswers,
        Self::SlowAnswers,
        Self::ForgeOwn,
        Self::Spam,
        Self::Mutate,
        Self::RawBytes,
        Self::ForgeEvidence,
        Self::HideEvidence,
    ];

    /// What is of use where validators come and go and begin from snapshots: beside these, all others are told there, too.
    pub(crate) const AMONG_MEMBERS: [Self; 9] = [
        Self::VoteOutside,
        Self::QuitInTurn,
        Self::FalseSnapshots,
        Self::FalseSnapshots,
        Self::Equivocate,
        Self::ForgeEvidence,
        Self::HideEvidence,
        Self::WrongAnswers,
        Self::Replay,
    ];

    /// What a node without a key can do: it has no votes, but a mouth.
    pub(crate) const OF_FOLLOWERS: [Self; 9] = [
        Self::PoisonHeights,
        Self::WrongAnswers,
        Self::SlowAnswers,
        Self::ForgeOwn,
        Self::ForgeParts,
        Self::ForgeCertificates,
        Self::Replay,
        Self::Spam,
        Self::RawBytes,
    ];

    /// A word or two.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Equivocate => "equivocate",
            Self::TwoProposals => "two proposals",
            Self::TwoBlocks => "two blocks",
            Self::Echo => "echo",
            Self::Withhold => "withhold",
            Self::ForgeValidRound => "forge valid round",
            Self::Forget => "forget the lock",
            Self::ForgeProposalRound => "forge proposal round",
            Self::Invent => "invent",
            Self::FarRounds => "far rounds",
            Self::HideParts => "hide parts",
            Self::LateProposal => "late proposal",
            Self::HidePolka => "hide polka",
            Self::BadBlock => "bad block",
            Self::BadSignature => "bad signature",
            Self::Extremes => "extremes",
            Self::Replay => "replay",
            Self::OutOfTurn => "out of turn",
            Self::ForgeParts => "forge parts",
            Self::LastMoment => "last moment",
            Self::NilOnly => "nil only",
            Self::Timestamps => "timestamps",
            Self::ForgeCertificates => "forge certificates",
            Self::PoisonHeights => "poison heights",
            Self::WrongAnswers => "wrong answers",
            Self::SlowAnswers => "slow answers",
            Self::ForgeOwn => "forge own",
            Self::Spam => "spam",
            Self::Mutate => "mutate",
            Self::ForgeEvidence => "forge evidence",
            Self::HideEvidence => "hide evidence",
            Self::VoteOutside => "vote outside the set",
            Self::QuitInTurn => "quit in turn",
            Self::FalseSnapshots => "false snapshots",
            Self::FalseStatements => "false statements",
            Self::RawBytes => "raw bytes",
        }
    }
}

/// When a liar does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trigger {
    /// Not at all: what a shorter schedule puts in place of another one.
    Never,
    /// Whenever it can.
    Always,
    /// In one height.
    Height(u64),
    /// In one round of every height.
    Round(u32),
    /// So many times in a thousand.
    Chance(u64),
}

impl Trigger {
    fn draw(dice: &mut Stream) -> Self {
        match dice.below(100) {
            0..50 => Self::Always,
            50..70 => Self::Chance(dice.between(100, 700)),
            70..85 => Self::Height(dice.between(1, 20)),
            _ => Self::Round(u32::try_from(dice.below(3)).expect("small")),
        }
    }

    /// Whether it is time. What belongs to no height or round is for those who do it always or by chance.
    pub(crate) fn fires(self, height: u64, round: Option<u32>, dice: &mut Stream) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Height(at) => at == height,
            Self::Round(at) => round == Some(at),
            Self::Chance(per_mille) => dice.chance(per_mille),
        }
    }
}

/// A lie and when it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    pub(crate) lie: Lie,
    pub(crate) when: Trigger,
}

/// A node that lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Liar {
    pub(crate) node: usize,
    /// Each acts upon what the one before it says.
    pub(crate) acts: Vec<Act>,
}

/// Which mark a cabal leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Flavour {
    /// Each of its members signs for both sides, in one round.
    Equivocation,
    /// Nobody signs two things for one place: they precommit one block, and then help the other side to another one as if
    /// they never had.
    Amnesia,
}

/// Liars of one mind. They vote to each honest validator as its side does, so that each side has a quorum of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cabal {
    /// By node, whether it is on the second side; what it says of members means nothing.
    pub(crate) second: Vec<bool>,
    pub(crate) flavour: Flavour,
    /// Whether the network keeps the sides apart. Where it does not, the cabal must be quicker than their gossip.
    pub(crate) apart: bool,
}

/// An honest follower that begins when the chain is long, and knows one honest node and all who lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Secluded {
    pub(crate) node: usize,
    pub(crate) friend: usize,
}

/// Everybody who lies in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Byzantine {
    pub(crate) budget: Budget,
    pub(crate) liars: Vec<Liar>,
    pub(crate) cabal: Option<Cabal>,
    pub(crate) secluded: Option<Secluded>,
    /// Whether a node that threw a peer out twice over does not let it in for a while, as the network does. Without, it
    /// comes back at once, and goes on.
    pub(crate) bans: bool,
}

impl Byzantine {
    /// One liar with one lie, told whenever it can.
    #[cfg(test)]
    pub(crate) fn one(node: usize, lie: Lie) -> Self {
        Self { liars: vec![Liar { node, acts: vec![Act { lie, when: Trigger::Always }] }], ..Self::default() }
    }

    /// Whether a node lies.
    pub(crate) fn lies(&self, node: usize) -> bool {
        self.liars.iter().any(|liar| liar.node == node)
    }

    /// Whether nobody does.
    pub(crate) fn is_empty(&self) -> bool {
        self.liars.is_empty()
    }

    /// Members of a network of this many validators who make blocks wait: each may take a round of its own.
    pub(crate) fn count_among(&self, validators: usize) -> u32 {
        u32::try_from(self.liars.iter().filter(|liar| liar.node < validators).count()).unwrap_or(u32::MAX)
    }
}

/// What the liars of many runs did, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lies {
    /// Runs in which somebody lied.
    pub runs: u64,
    /// How often each lie was told, and each thing about a block or an answer that was wrong.
    pub told: BTreeMap<&'static str, u64>,
    /// Messages of liars that honest nodes refused.
    pub refused: u64,
    /// Connections to liars that honest nodes ended.
    pub expelled: u64,
    /// Liars that an honest node kept out.
    pub banned: u64,
    /// Pairs of votes that an honest node held against a liar.
    pub accused: u64,
    /// Blocks that accuse a liar.
    pub proven: u64,
    /// Rounds above 0.
    pub rounds: u64,
    /// Runs in which the chain forked.
    pub forks: u64,
    /// Of these, those by amnesia: nobody had to sign twice for one place.
    pub forks_by_amnesia: u64,
    /// The least power that was named for a fork by the messages on the wire, in thousandths of all.
    pub least_named: Option<u64>,
    /// The least power that was named for a fork by the logs of honest nodes alone.
    pub least_named_by_logs: Option<u64>,
    /// Honest nodes that stopped, finding that the chain is not theirs; only under a cabal.
    pub halts: u64,
}

impl Lies {
    pub(crate) fn add(&mut self, run: &Tally) {
        self.runs += u64::from(!run.told.is_empty());
        for (what, times) in &run.told {
            *self.told.entry(what).or_default() += times;
        }
        self.refused += run.refused;
        self.expelled += run.expelled;
        self.banned += run.banned;
        self.accused += run.accused;
        self.proven += run.proven;
        self.rounds += run.rounds.len() as u64;
        self.halts += run.halts;
        if let Some(fork) = &run.fork {
            self.forks += 1;
            self.forks_by_amnesia += u64::from(fork.flavour == Flavour::Amnesia);
            self.least_named = Some(self.least_named.map_or(fork.named, |least| least.min(fork.named)));
            self.least_named_by_logs = Some(self.least_named_by_logs.map_or(fork.by_logs, |least| least.min(fork.by_logs)));
        }
    }
}

/// Those who lie within a third of the power. None where nobody has so little.
pub(crate) fn safe(powers: &[u64], dice: &mut Stream) -> Byzantine {
    let total: u64 = powers.iter().sum();
    let mut left: Vec<usize> = (0..powers.len()).collect();
    let mut liars = Vec::new();
    let mut lying = 0;
    while !left.is_empty() && (liars.is_empty() || dice.chance(600)) {
        let node = left.swap_remove(dice.place(left.len()));
        if 3 * (lying + powers[node]) < total {
            lying += powers[node];
            liars.push(Liar { node, acts: acts(&Lie::ALL, dice) });
        }
    }
    Byzantine { liars, bans: dice.chance(500), ..Byzantine::default() }
}

/// Those who lie where validators come and go: as many as may, and of those who may come to validate some, too. The power that these get is
/// bounded by what is asked.
pub(crate) fn among_members(powers: &[u64], followers: usize, dice: &mut Stream) -> Byzantine {
    let mut byzantine = safe(powers, dice);
    for follower in powers.len()..powers.len() + followers {
        if dice.chance(300) {
            byzantine.liars.push(Liar { node: follower, acts: acts(&Lie::ALL, dice) });
        }
    }
    for liar in &mut byzantine.liars {
        liar.acts.insert(0, Act { lie: *dice.pick(&Lie::AMONG_MEMBERS), when: Trigger::draw(dice) });
    }
    byzantine
}

fn acts(lies: &[Lie], dice: &mut Stream) -> Vec<Act> {
    (0..dice.between(1, 3)).map(|_| Act { lie: *dice.pick(lies), when: Trigger::draw(dice) }).collect()
}

/// Lies of many shapes, of which one run shows few: of bad blocks alone there are two dozen.
const MANIFOLD: [Lie; 6] = [Lie::BadBlock, Lie::BadBlock, Lie::BadBlock, Lie::ForgeCertificates, Lie::ForgeParts, Lie::WrongAnswers];

/// Has one of those who lie say false things of its state, too, in one run of four.
pub(crate) fn of_state(byzantine: &mut Byzantine, dice: &mut Stream) {
    if let Some(liar) = byzantine.liars.first_mut().filter(|_| dice.chance(250)) {
        liar.acts.push(Act { lie: Lie::FalseStatements, when: Trigger::Always });
    }
}

/// Has one of those who lie tell one of these, too, in two runs of five.
pub(crate) fn more(byzantine: &mut Byzantine, dice: &mut Stream) {
    if let Some(liar) = byzantine.liars.first_mut().filter(|_| dice.chance(400)) {
        liar.acts.insert(0, Act { lie: *dice.pick(&MANIFOLD), when: Trigger::Always });
    }
}

/// A cabal with more than a third of the power and less than two thirds, and honest validators in two sides, each of which
/// makes a quorum with the cabal wherever the powers allow that. None where no validators have such power.
pub(crate) fn over(powers: &[u64], dice: &mut Stream) -> Byzantine {
    /// Splits that are tried; most powers allow most of them.
    const TRIES: usize = 200;
    let total: u64 = powers.iter().sum();
    let mut last = None;
    for _ in 0..TRIES {
        let lies: Vec<bool> = powers.iter().map(|_| dice.chance(450)).collect();
        let second: Vec<bool> = powers.iter().map(|_| dice.chance(500)).collect();
        let power = |holds: &dyn Fn(usize) -> bool| (0..powers.len()).filter(|node| holds(*node)).map(|node| powers[node]).sum::<u64>();
        let cabal = power(&|node| lies[node]);
        if 3 * cabal <= total || 3 * cabal >= 2 * total {
            continue;
        }
        let sides = [false, true].map(|side| power(&|node| lies[node] || second[node] == side));
        let is_split = sides.iter().all(|side| 3 * side > 2 * total);
        last = Some((lies, second));
        if is_split {
            break;
        }
    }
    let Some((lies, second)) = last else { return Byzantine { budget: Budget::Over, ..Byzantine::default() } };
    let liars = (0..powers.len()).filter(|node| lies[*node]).map(|node| Liar { node, acts: Vec::new() }).collect();
    let flavour = if dice.chance(500) { Flavour::Equivocation } else { Flavour::Amnesia };
    let cabal = Some(Cabal { second, flavour, apart: dice.chance(700) });
    Byzantine { budget: Budget::Over, liars, cabal, ..Byzantine::default() }
}

/// Followers who lie: one to six, after one honest one who hears of nobody else but one validator.
pub(crate) fn sync(validators: usize, dice: &mut Stream) -> (Byzantine, usize) {
    let lying = usize::try_from(dice.between(1, 6)).expect("few");
    let secluded = Secluded { node: validators, friend: dice.place(validators) };
    let first = [Lie::WrongAnswers, Lie::PoisonHeights, Lie::SlowAnswers];
    let liar = |node, dice: &mut Stream| {
        // Whoever only forges parts, say, is of no harm to those who catch up.
        let mut acts = acts(&Lie::OF_FOLLOWERS, dice);
        acts.insert(0, Act { lie: *dice.pick(&first), when: Trigger::Always });
        Liar { node, acts }
    };
    let liars = (0..lying).map(|place| liar(validators + 1 + place, dice)).collect();
    let byzantine = Byzantine { budget: Budget::Sync, liars, cabal: None, secluded: Some(secluded), bans: dice.chance(500) };
    (byzantine, 1 + lying)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POWERS: [&[u64]; 6] = [&[10; 4], &[10; 5], &[10; 7], &[1_000, 500, 333, 250, 200, 166, 142], &[9, 6, 6, 6], &[10; 6]];

    #[test]
    fn liars_stay_within_their_budget() {
        let mut several = 0;
        for (seed, powers) in (0..2_000).zip(POWERS.iter().cycle()) {
            let mut dice = Stream::new(seed, "test");
            let total: u64 = powers.iter().sum();
            let of = |byzantine: &Byzantine| byzantine.liars.iter().map(|liar| powers[liar.node]).sum::<u64>();
            let within = safe(powers, &mut dice);
            assert!(3 * of(&within) < total, "{within:?}");
            several += u64::from(within.liars.len() > 1);
            let beyond = over(powers, &mut dice);
            assert!(3 * of(&beyond) > total && 3 * of(&beyond) < 2 * total, "{beyond:?}");
            let (sync, followers) = sync(powers.len(), &mut dice);
            assert_eq!(sync.liars.len() + 1, followers);
            assert!(sync.liars.iter().all(|liar| liar.node > powers.len()), "who lies to those who catch up has no power");
        }
        assert!(several > 100, "{several} times there was more than one");
    }

    #[test]
    fn every_lie_is_told_by_somebody() {
        let mut told = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let byzantine = safe(&[10; 7], &mut Stream::new(seed, "test"));
            told.extend(byzantine.liars.into_iter().flat_map(|liar| liar.acts).map(|act| act.lie));
        }
        assert_eq!(told.len(), Lie::ALL.len());
    }
}
