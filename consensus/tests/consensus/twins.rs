//! Twins (Bano et al., "Twins: BFT Systems Made Robust"): one validator of four runs twice, as two unmodified cores with one
//! key, and the network is cut in every way. What a Byzantine validator does here is what a correct one could have said.
//!
//! **A scenario** is: which validator has a twin; for each phase of each round, one of the 52 ways to part the five instances;
//! and, where both twins propose, which proposal comes first. A round has two phases: what is said before the precommits, and
//! the precommits. Within a part everything said arrives; between parts nothing does. With gossip, those who are in one part
//! also tell each other at its beginning all that they hold of before; without it, what a cut took is lost. Timers end each
//! phase. After the last round the network is whole, and everybody must decide, and the same.
//!
//! **Every scenario is run, none twice.** What becomes of a part in a phase depends on those who are in it and on nothing else,
//! and a core is a function of its state. So each set of five states is kept once, with the number of scenarios that lead to it,
//! and each part that meets in the same states once, with what becomes of it. The counts are exact, and no symmetry has to be
//! argued for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use lockstep_consensus::planted::Planted;
use lockstep_consensus::{Ballot, Consensus, Draft, Effect, HeightStart, Input, LOOSE_VALUES_MAX, ROUNDS_AHEAD_MAX, Step, Timeout, Value};
use lockstep_types::{BlockId, Round, ValidatorSet, VoteType};

use crate::world::{self, HEIGHT, Settle, block, block_time, index, validators};

const VALIDATORS: usize = 4;
/// The four, and the twin of one of them.
const INSTANCES: usize = 5;
/// Rounds that a whole network may need: each validator leads one, and two more for what the cuts have left.
const HEALING_ROUNDS: u32 = 6;

/// What is enumerated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope {
    pub(crate) rounds: u32,
    pub(crate) gossip: bool,
    /// The same cut for both phases of a round, as in the paper.
    pub(crate) whole_rounds: bool,
    pub(crate) planted: Planted,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Enumerated {
    /// Scenarios, each counted.
    pub(crate) scenarios: u128,
    /// Parts that were run through a phase, each from other states.
    pub(crate) run: u64,
    /// Different ends, as five states.
    pub(crate) ends: u64,
    /// Ends at which somebody had decided before the network was whole.
    pub(crate) early: u64,
    /// A scenario that breaks something, as the cuts that lead there, and what it breaks.
    pub(crate) broken: Option<String>,
}

/// One of the five.
#[derive(Clone)]
struct Instance {
    core: Consensus,
    validator: usize,
    decided: Option<BlockId>,
    /// What it said and is not carried to others yet, each with the phase that carries it.
    said: Vec<(u32, Input)>,
}

/// Those who are in one part, by their numbers among the five.
#[derive(Clone)]
struct Part {
    set: Arc<ValidatorSet>,
    twin: usize,
    members: Vec<(usize, Instance)>,
    broken: Option<String>,
}

/// Every way to part five things: for each the number of its part, parts numbered as they first appear.
fn partitions() -> Vec<[usize; INSTANCES]> {
    fn grow(parts: [usize; INSTANCES], at: usize, used: usize, all: &mut Vec<[usize; INSTANCES]>) {
        if at == INSTANCES {
            all.push(parts);
            return;
        }
        for part in 0..=used {
            let mut next = parts;
            next[at] = part;
            grow(next, at + 1, used.max(part + 1), all);
        }
    }
    let mut all = Vec::new();
    grow([0; INSTANCES], 0, 0, &mut all);
    all
}

/// What an instance proposes in a round: the twin something else than its brother.
fn block_of(number: usize, round: Round) -> BlockId {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWX";
    block(char::from(letters[(2 * round.get() as usize + usize::from(number == VALIDATORS)) % letters.len()]))
}

impl Part {
    /// All five at the beginning of a height, each alone.
    fn start(twin: usize, planted: Planted) -> Vec<Instance> {
        let set = validators(&[1; VALIDATORS]);
        let blocks: BTreeSet<BlockId> =
            (0..12).flat_map(|round| [0, VALIDATORS].map(|number| block_of(number, world::round(round)))).collect();
        let instances = (0..INSTANCES).map(|number| {
            let validator = if number < VALIDATORS { number } else { twin };
            let instance = Instance { core: Consensus::with_planted(planted), validator, decided: None, said: Vec::new() };
            let mut part = Self { set: Arc::clone(&set), twin, members: vec![(number, instance)], broken: None };
            let (validators, params) = (Arc::clone(&set), world::params());
            let me = Some(index(validator));
            part.step(
                0,
                Input::StartHeight(HeightStart { height: HEIGHT, validators, me, params, proposer_missed: false, restored: None }),
            );
            for block_id in &blocks {
                part.step(0, Input::Checked { block_id: *block_id, valid: true });
                part.step(0, Input::BodyDurable { block_id: *block_id });
            }
            part.step(0, Input::Ready);
            part.members.remove(0).1
        });
        instances.collect()
    }

    fn vote(&self, voter: usize, kind: VoteType, round: Round, value: Value) -> Input {
        Input::Vote(world::vote(kind, round, value.block_id, value.valid_round, index(voter)).settle(&self.set))
    }

    fn proposal(&self, round: Round, block_id: BlockId, pol_round: Option<Round>) -> Input {
        Input::Proposal { proposal: world::proposal(round, block_id, pol_round).settle(&self.set), received: block_time() }
    }

    /// What it says comes back to it at once, and waits to be carried to others.
    fn step(&mut self, place: usize, input: Input) {
        let (number, validator) = (self.members[place].0, self.members[place].1.validator);
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.members[place].1.core.step(input) {
                let (phase, input) = match effect {
                    Effect::Cast(_, Ballot { kind, round, block_id, valid_round, .. }) => {
                        let phase = 2 * round.get() + u32::from(kind == VoteType::Precommit);
                        (phase, self.vote(validator, kind, round, Value { block_id, valid_round }))
                    }
                    Effect::Propose(_, Draft { round, pol_round, block_id, .. }) => {
                        (2 * round.get(), self.proposal(round, block_id, pol_round))
                    }
                    Effect::Build { round, .. } => {
                        inputs.push(Input::Built { round, block_id: block_of(number, round) });
                        continue;
                    }
                    Effect::Decide { commit } => {
                        self.members[place].1.decided = Some(commit.block_id);
                        continue;
                    }
                    Effect::Accuse(equivocation) => {
                        let culprit = equivocation.first.validator.index();
                        if culprit != self.twin {
                            self.broken.get_or_insert(format!("{culprit} is honest and accused"));
                        }
                        continue;
                    }
                    _ => continue,
                };
                self.members[place].1.said.push((phase, input.clone()));
                inputs.push(input);
            }
        }
    }

    /// Carries what is said up to this phase until nothing more is, those first who are first in the order.
    fn carry(&mut self, phase: u32, order: &[usize]) {
        let next = |part: &Self| {
            order.iter().find_map(|place| {
                let said = &part.members[*place].1.said;
                said.iter().position(|(at, _)| *at <= phase).map(|word| (*place, word))
            })
        };
        while let Some((from, word)) = next(self) {
            let (_, input) = self.members[from].1.said.remove(word);
            for to in (0..self.members.len()).filter(|to| *to != from) {
                self.step(to, input.clone());
            }
        }
    }

    /// Fires the timers of a step that run, of those who are not beyond the phase; whether any did.
    fn time_out(&mut self, step: Step, phase: u32) -> bool {
        let mut fired = false;
        for place in 0..self.members.len() {
            let instance = &self.members[place].1;
            let (round, at_step) = (instance.core.round(), instance.core.current_step());
            if instance.decided.is_some() || round.get() > phase / 2 {
                continue;
            }
            let spoke = |kind| {
                let votes = instance.core.votes(round, kind);
                votes.is_some_and(|votes| votes.power_for_any().get() * 3 > VALIDATORS as u64 * 2)
            };
            let runs = match step {
                Step::Propose => at_step == Step::Propose,
                Step::Prevote => at_step == Step::Prevote && spoke(VoteType::Prevote),
                Step::Precommit => spoke(VoteType::Precommit),
            };
            if runs {
                fired = true;
                self.step(place, Input::TimedOut(Timeout { height: HEIGHT, round, step }));
            }
        }
        fired
    }

    /// One phase.
    fn phase(&mut self, phase: u32, twin_first: bool, gossip: bool) {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        if twin_first {
            order.sort_by_key(|place| self.members[*place].0 != VALIDATORS);
        }
        if gossip {
            self.gossip();
        }
        self.carry(phase, &order);
        let steps: &[Step] = if phase.is_multiple_of(2) { &[Step::Propose] } else { &[Step::Prevote, Step::Precommit] };
        for step in steps {
            while self.time_out(*step, phase) {
                self.carry(phase, &order);
            }
        }
        // Nobody outside hears what was said in this phase.
        for (_, instance) in &mut self.members {
            instance.said.retain(|(at, _)| *at > phase);
        }
    }

    /// Everybody learns what the others hold, and what they said when they learned it.
    fn gossip(&mut self) {
        /// Each time somebody learns something there is less to learn. A planted bug may have it refused for ever.
        const TIMES_MAX: usize = 64;
        if !(0..TIMES_MAX).any(|_| !self.exchange()) {
            self.broken.get_or_insert("what was told is not kept".to_owned());
        }
    }

    /// Tells everybody what the others hold; whether that was news to anybody.
    fn exchange(&mut self) -> bool {
        let mut news = false;
        for to in 0..self.members.len() {
            for from in (0..self.members.len()).filter(|from| *from != to) {
                let lacks = self.lacking(from, to);
                news |= !lacks.is_empty();
                lacks.into_iter().for_each(|input| self.step(to, input));
            }
        }
        news
    }

    /// What one holds and another lacks and would keep.
    fn lacking(&self, from: usize, to: usize) -> Vec<Input> {
        let mut lacks = Vec::new();
        let (from, to) = (&self.members[from].1.core, &self.members[to].1.core);
        if to.is_decided() {
            return lacks;
        }
        // A planted bug may count up to what no certificate is.
        if let Some(commit) = from.commit().filter(|_| to.certified().is_none())
            && commit.clone().claim(&world::chain(), &self.set).is_ok()
        {
            lacks.push(Input::Commit(commit.settle(&self.set)));
        }
        for round in from.rounds() {
            if let Some(proposal) = from.proposal(round).filter(|_| round >= to.round() && to.proposal(round).is_none()) {
                let is_kept = to.round().get() + ROUNDS_AHEAD_MAX >= round.get();
                lacks.extend(is_kept.then(|| self.proposal(round, proposal.block_id, proposal.pol_round)));
            }
            let has_quorum = to.votes(round, VoteType::Prevote).is_some_and(|votes| votes.quorum().is_some());
            if let Some(polka) = from.polka(round).filter(|_| !has_quorum)
                && polka.clone().claim(&world::chain(), &self.set).is_ok()
            {
                lacks.push(Input::Polka(polka.settle(&self.set)));
            }
            for kind in [VoteType::Prevote, VoteType::Precommit] {
                for vote in from.votes(round, kind).into_iter().flat_map(|votes| votes.votes()) {
                    let known = to.votes(round, kind).map_or(&[][..], |votes| votes.votes_of(vote.validator));
                    let is_news = known.len() < LOOSE_VALUES_MAX && known.iter().all(|other| Value::from(other) != Value::from(vote));
                    if is_news && to.round().get() + ROUNDS_AHEAD_MAX >= round.get() {
                        lacks.push(self.vote(vote.validator.index(), kind, round, Value::from(vote)));
                    }
                }
            }
        }
        lacks
    }

    /// All five in a network that is whole: everybody decides, within a few rounds.
    fn heal(&mut self, rounds: u32) {
        let last = 2 * (rounds + HEALING_ROUNDS) + 1;
        let order: Vec<usize> = (0..self.members.len()).collect();
        loop {
            self.carry(last, &order);
            self.gossip();
            self.carry(last, &order);
            if let Some(broken) = contradiction(self.members.iter().map(|(_, instance)| instance)) {
                self.broken.get_or_insert(broken);
            }
            if self.members.iter().all(|(_, instance)| instance.decided.is_some()) || self.broken.is_some() {
                return;
            }
            let fired = [Step::Propose, Step::Prevote, Step::Precommit].into_iter().any(|step| self.time_out(step, last));
            let highest = self.members.iter().map(|(_, instance)| instance.core.round().get()).max().unwrap_or(0);
            if !fired || highest > rounds + HEALING_ROUNDS {
                let places: Vec<_> =
                    self.members.iter().map(|(_, at)| (at.core.round(), at.core.current_step(), at.decided.is_some())).collect();
                self.broken = Some(format!("no decision in a network that is whole: {places:?}"));
                return;
            }
        }
    }
}

/// Two decisions. The twins are held to it too: each is a correct program, and can only decide what others can.
fn contradiction<'a>(instances: impl Iterator<Item = &'a Instance>) -> Option<String> {
    let decided: BTreeSet<char> = instances.filter_map(|instance| instance.decided).map(|block_id| world::name(&block_id)).collect();
    (decided.len() > 1).then(|| format!("{decided:?} are decided"))
}

/// Everything that is to come depends on this, and on nothing else.
fn fingerprint(instance: &Instance) -> u128 {
    /// Hashes text as it is written, twice.
    struct Text(DefaultHasher, DefaultHasher);
    impl std::fmt::Write for Text {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.write(text.as_bytes());
            self.1.write(text.as_bytes());
            Ok(())
        }
    }
    let mut text = Text(DefaultHasher::new(), DefaultHasher::new());
    0x9e37_79b9_7f4a_7c15u64.hash(&mut text.1);
    write!(text, "{:?}{:?}", instance.core, instance.said).expect("a hasher takes any text");
    u128::from(text.0.finish()) << 64 | u128::from(text.1.finish())
}

/// The states that instances have been in, each kept once; and what becomes of parts.
struct Known {
    set: Arc<ValidatorSet>,
    twin: usize,
    gossip: bool,
    states: Vec<Instance>,
    by_fingerprint: BTreeMap<(usize, u128), u32>,
    /// By phase, order, and the states of the members; those who are not in the part have none.
    parts: BTreeMap<(u32, bool, Members), Result<Members, String>>,
}

/// The states of all five.
type Five = [u32; INSTANCES];

/// The states of those who are in a part.
type Members = [Option<u32>; INSTANCES];

impl Known {
    fn intern(&mut self, number: usize, instance: Instance) -> u32 {
        let key = (number, fingerprint(&instance));
        *self.by_fingerprint.entry(key).or_insert_with(|| {
            self.states.push(instance);
            u32::try_from(self.states.len() - 1).expect("fewer than four billion states")
        })
    }

    fn part(&self, members: impl Iterator<Item = (usize, u32)>) -> Part {
        let members = members.map(|(number, state)| (number, self.states[state as usize].clone())).collect();
        Part { set: Arc::clone(&self.set), twin: self.twin, members, broken: None }
    }

    /// What becomes of a part in a phase, or what it breaks.
    fn after(&mut self, phase: u32, twin_first: bool, members: Members) -> Result<Members, String> {
        let key = (phase, twin_first, members);
        if let Some(known) = self.parts.get(&key) {
            return known.clone();
        }
        let mut part = self.part(members.into_iter().enumerate().filter_map(|(number, state)| Some((number, state?))));
        part.phase(phase, twin_first, self.gossip);
        let after = match part.broken {
            Some(broken) => Err(broken),
            None => {
                let mut after = [None; INSTANCES];
                for (number, instance) in part.members {
                    after[number] = Some(self.intern(number, instance));
                }
                Ok(after)
            }
        };
        self.parts.insert(key, after.clone());
        after
    }

    /// What becomes of all five under a cut.
    fn cut(&mut self, phase: u32, twin_first: bool, five: Five, parts: &[usize; INSTANCES]) -> Result<Five, String> {
        let mut after = five;
        for part in 0..INSTANCES {
            let members: Members = std::array::from_fn(|number| (parts[number] == part).then_some(five[number]));
            if members.iter().any(Option::is_some) {
                let became = self.after(phase, twin_first, members)?;
                after.iter_mut().zip(became).for_each(|(state, became)| *state = became.unwrap_or(*state));
            }
        }
        match contradiction(after.iter().map(|state| &self.states[*state as usize])) {
            Some(broken) => Err(broken),
            None => Ok(after),
        }
    }
}

/// Runs every scenario with this twin; stops at the first that breaks something.
pub(crate) fn enumerate(twin: usize, scope: Scope) -> Enumerated {
    let Scope { rounds, gossip, whole_rounds, planted } = scope;
    let cuts = partitions();
    let set = validators(&[1; VALIDATORS]);
    let mut found = Enumerated::default();
    let mut known =
        Known { set: Arc::clone(&set), twin, gossip, states: Vec::new(), by_fingerprint: BTreeMap::new(), parts: BTreeMap::new() };
    let mut five = [0; INSTANCES];
    for (number, instance) in Part::start(twin, planted).into_iter().enumerate() {
        five[number] = known.intern(number, instance);
    }
    // With how many scenarios lead there, and one of them.
    let mut branches: BTreeMap<Five, (u128, String)> = BTreeMap::from([(five, (1, String::new()))]);
    for round in 0..rounds {
        let both_propose = set.proposer(world::round(round)).index() == twin;
        let orders: &[bool] = if both_propose { &[false, true] } else { &[false] };
        let phases: &[&[u32]] = if whole_rounds { &[&[2 * round, 2 * round + 1]] } else { &[&[2 * round], &[2 * round + 1]] };
        for phases in phases {
            // Which proposal comes first is chosen once in a round.
            let orders = if phases[0] % 2 == 0 { orders } else { &[false] };
            let mut next: BTreeMap<Five, (u128, String)> = BTreeMap::new();
            for (five, (scenarios, path)) in branches {
                for (parts, twin_first) in cuts.iter().flat_map(|parts| orders.iter().map(move |order| (parts, *order))) {
                    let path = || format!("{path} {parts:?}{}", if twin_first { " twin first" } else { "" });
                    let mut after = Ok(five);
                    for phase in *phases {
                        after = after.and_then(|five| known.cut(*phase, twin_first, five, parts));
                    }
                    match after {
                        Ok(after) => next.entry(after).or_insert_with(|| (0, path())).0 += scenarios,
                        Err(broken) => {
                            found.broken = Some(format!("twin of {twin},{}: {broken}", path()));
                            return found;
                        }
                    }
                }
            }
            branches = next;
        }
    }
    found.run = known.parts.len() as u64;
    for (five, (scenarios, path)) in branches {
        found.scenarios += scenarios;
        found.ends += 1;
        let mut part = known.part(five.into_iter().enumerate());
        found.early += u64::from(part.members.iter().any(|(_, instance)| instance.decided.is_some()));
        part.heal(rounds);
        if let Some(broken) = part.broken {
            found.broken = Some(format!("twin of {twin},{path}: {broken}"));
            return found;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use lockstep_consensus::planted::Bug;

    use super::*;

    /// A planted bug may break a promise of the core itself.
    fn is_seen(bug: Bug, scope: Scope) -> bool {
        let planted = Planted::default().with(bug);
        (0..VALIDATORS).any(|twin| {
            let run = || enumerate(twin, Scope { planted, ..scope });
            std::panic::catch_unwind(run).map_or(true, |found| found.broken.is_some())
        })
    }

    fn all(scope: Scope) -> Enumerated {
        let mut all = Enumerated::default();
        for twin in 0..VALIDATORS {
            let found = enumerate(twin, scope);
            assert_eq!(found.broken, None);
            assert!(found.early < found.ends && found.early > 0, "some cuts let decisions through, and some do not");
            all.scenarios += found.scenarios;
            all.ends += found.ends;
            all.early += found.early;
            all.run += found.run;
        }
        all
    }

    #[test]
    fn there_are_as_many_cuts_as_bell_counted() {
        let cuts = partitions();
        assert_eq!(cuts.len(), 52);
        assert_eq!(cuts.iter().collect::<BTreeSet<_>>().len(), 52);
    }

    /// Three validators whose twin proposes nothing twice in the first round, and one whose does.
    #[test]
    fn one_round_under_every_cut() {
        for gossip in [false, true] {
            let found = all(Scope { rounds: 1, gossip, whole_rounds: false, planted: Planted::default() });
            assert_eq!(found.scenarios, (3 + 2) * 52 * 52);
        }
    }

    /// One cut for a round, as the paper has it: three rounds. Of the four, three propose in one of them.
    #[test]
    fn three_rounds_with_one_cut_each() {
        let found = all(Scope { rounds: 3, gossip: true, whole_rounds: true, planted: Planted::default() });
        assert_eq!(found.scenarios, (1 + 3 * 2) * 52u128.pow(3));
    }

    /// A bug for which a twin and a cut are enough.
    #[test]
    fn a_planted_bug_is_seen() {
        let scope = Scope { rounds: 1, gossip: true, whole_rounds: false, planted: Planted::default() };
        assert!(is_seen(Bug::NilCounted, scope));
    }
}
