//! A core at a desk: one line of text in, one line of text out. Stories and the tests of the paper's rules speak it.
//!
//! | line | what happens |
//! |---|---|
//! | `ready` | the pace allows round 0 |
//! | `proposal A r=1 vr=0 [early] [late]` | the proposal of a round, out of its time window if so said |
//! | `prevotes A r=1 vr=0 from=0,1` | loose votes; `nil` for none; `precommits` likewise |
//! | `polka A r=1 vr=0 from=0,1,2` | a prevote certificate |
//! | `commit A r=1 from=0,1,2` | a precommit certificate |
//! | `built A r=1` | the block we asked for |
//! | `valid A`, `invalid A`, `durable A`, `body A` | valid(v), or not; on our disk; valid and on our disk |
//! | `timeout prevote r=1` | a timer |
//! | `restart [lost=n]` | a crash, with the last n guard records not yet durable |
//!
//! What we cast comes back to us at once, as the shell does it. `r` is 0 and `vr` is none unless given.

use std::sync::Arc;

use lockstep_consensus::planted::Planted;
use lockstep_consensus::{Consensus, Draft, Effect, GuardRecord, HeightStart, Input, Message, Restored, Step, Timeout};
use lockstep_types::vote::Verified;
use lockstep_types::{BlockId, Commit, Polka, Round, ValidatorIndex, ValidatorSet, Vote, VoteType};

use crate::world::{self, HEIGHT, Settle, block, block_time, index, name};

/// Far outside every window of timeliness of the first rounds.
const FAR: std::time::Duration = std::time::Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) core: Consensus,
    pub(crate) set: Arc<ValidatorSet>,
    me: Option<ValidatorIndex>,
    is_ready: bool,
    planted: Planted,
    /// What is durable of the guard, the oldest first.
    guard: Vec<GuardRecord>,
}

impl Desk {
    /// A validator of four with equal power; round 0 may begin.
    pub(crate) fn validator(me: usize) -> Self {
        Self::new(&[1; 4], Some(me), Planted::default()).0
    }

    /// A node at the start of the height, not ready, and what it said about it.
    pub(crate) fn unready(powers: &[u64], me: Option<usize>, proposer_missed: bool) -> (Self, String) {
        let set = world::validators(powers);
        let mut desk =
            Self { core: Consensus::new(), set, me: me.map(index), is_ready: false, planted: Planted::default(), guard: Vec::new() };
        let said = desk.start(proposer_missed, None);
        (desk, said)
    }

    /// A node in round 0, and what it said about it.
    pub(crate) fn new(powers: &[u64], me: Option<usize>, planted: Planted) -> (Self, String) {
        let (mut desk, _) = Self::unready(powers, me, false);
        desk.planted = planted;
        desk.core = Consensus::with_planted(planted);
        desk.start(false, None);
        let said = desk.tell("ready");
        (desk, said)
    }

    fn start(&mut self, proposer_missed: bool, restored: Option<Restored>) -> String {
        let (validators, params) = (Arc::clone(&self.set), world::params());
        let start = HeightStart { height: HEIGHT, validators, me: self.me, params, proposer_missed, restored };
        self.speak(|desk| desk.feed(Input::StartHeight(start)))
    }

    /// One line in, one line out.
    pub(crate) fn tell(&mut self, line: &str) -> String {
        let line = Line::parse(line);
        self.speak(|desk| desk.hear(&line))
    }

    /// One line in, the effects themselves out.
    pub(crate) fn effects(&mut self, line: &str) -> Vec<Effect> {
        self.hear(&Line::parse(line))
    }

    /// Tells several lines and forgets the answers.
    pub(crate) fn given(mut self, lines: &[&str]) -> Self {
        for line in lines {
            self.tell(line);
        }
        self
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str, said: &str) {
        assert_eq!(self.tell(line), said, "after: {line}");
    }

    /// Feeds one input; own messages come back at once.
    pub(crate) fn feed(&mut self, input: Input) -> Vec<Effect> {
        let mut all = Vec::new();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.core.step(input) {
                match &effect {
                    Effect::Persist(_, record) => self.guard.push(record.clone()),
                    Effect::Cast(_, ballot) => inputs.push(own(&Message::Ballot(*ballot), self.me, &self.set)),
                    Effect::Propose(_, draft) => inputs.push(own(&Message::Draft(*draft), self.me, &self.set)),
                    _ => {}
                }
                all.push(effect);
            }
        }
        all
    }

    /// The messages that the guard would say again after a restart: those of its two slots.
    pub(crate) fn said_before(&self) -> Vec<Input> {
        let from = self.guard.len().saturating_sub(2);
        self.guard[from..].iter().map(|record| own(&record.message, self.me, &self.set)).collect()
    }

    /// A crash. The guard is what remains, and bodies that were made durable, unless the disk is rotten.
    fn restart(&mut self, lost: usize, is_rotten: bool) -> Vec<Effect> {
        self.guard.truncate(self.guard.len() - lost);
        self.core = Consensus::with_planted(self.planted);
        let settle = |polka: &Option<Arc<Polka>>| polka.as_ref().map(|polka| (**polka).clone().settle(&self.set));
        let restored = self.guard.last().map(|record| Restored {
            round: record.round,
            step: record.step,
            locked: settle(&record.locked),
            valid: settle(&record.valid),
            lost: record.locked.iter().chain(&record.valid).filter(|_| is_rotten).map(|polka| polka.block_id).collect(),
        });
        let (validators, params) = (Arc::clone(&self.set), world::params());
        let start = HeightStart { height: HEIGHT, validators, me: self.me, params, proposer_missed: false, restored };
        let mut said = self.feed(Input::StartHeight(start));
        if self.is_ready {
            said.extend(self.feed(Input::Ready));
        }
        for input in self.said_before() {
            said.extend(self.feed(input));
        }
        said
    }

    fn hear(&mut self, line: &Line) -> Vec<Effect> {
        let inputs = match line.verb.as_str() {
            "ready" => {
                self.is_ready = true;
                vec![Input::Ready]
            }
            "proposal" => {
                let received = match (line.has("early"), line.has("late")) {
                    (true, _) => block_time().saturating_sub(FAR),
                    (_, true) => block_time().saturating_add(FAR),
                    _ => block_time(),
                };
                let proposal = world::proposal(line.round(), line.block().expect("a block"), line.valid_round());
                vec![Input::Proposal { proposal: proposal.settle(&self.set), received }]
            }
            "prevotes" | "precommits" => {
                let kind = if line.verb == "prevotes" { VoteType::Prevote } else { VoteType::Precommit };
                let vote = |voter: &usize| world::vote(kind, line.round(), line.block(), line.valid_round(), index(*voter));
                line.from().iter().map(|voter| Input::Vote(vote(voter).settle(&self.set))).collect()
            }
            "polka" => {
                let polka = world::polka(line.round(), line.block().expect("a block"), line.valid_round(), &line.from());
                vec![Input::Polka(polka.settle(&self.set))]
            }
            "commit" => {
                let commit = world::commit(&self.set, line.round(), line.block().expect("a block"), &line.from());
                vec![Input::Commit(commit.settle(&self.set))]
            }
            "built" => vec![Input::Built { round: line.round(), block_id: line.block().expect("a block") }],
            "valid" => vec![Input::Checked { block_id: line.block().expect("a block"), valid: true }],
            "invalid" => vec![Input::Checked { block_id: line.block().expect("a block"), valid: false }],
            "durable" => vec![Input::BodyDurable { block_id: line.block().expect("a block") }],
            "body" => {
                let block_id = line.block().expect("a block");
                vec![Input::Checked { block_id, valid: true }, Input::BodyDurable { block_id }]
            }
            "timeout" => {
                let step = match line.words[0].as_str() {
                    "propose" => Step::Propose,
                    "prevote" => Step::Prevote,
                    "precommit" => Step::Precommit,
                    other => panic!("no timer {other}"),
                };
                vec![Input::TimedOut(Timeout { height: HEIGHT, round: line.round(), step })]
            }
            "restart" => return self.restart(line.number("lost").unwrap_or(0), line.has("rotten")),
            verb => panic!("nobody understands {verb:?}"),
        };
        inputs.into_iter().flat_map(|input| self.feed(input)).collect()
    }

    /// The effects as text, and what became of the lock.
    pub(crate) fn speak(&mut self, act: impl FnOnce(&mut Self) -> Vec<Effect>) -> String {
        let place = |polka: Option<&Arc<Polka>>| polka.map(|polka| format!("{}@{}", name(&polka.block_id), polka.round));
        let before = (place(self.core.locked()), place(self.core.valid()));
        let effects = act(self);
        let mut said: Vec<String> = effects.iter().filter_map(describe).collect();
        let after = (place(self.core.locked()), place(self.core.valid()));
        if let Some(locked) = after.0.clone().filter(|_| after.0 != before.0) {
            said.push(format!("locked {locked}"));
        }
        if let Some(valid) = after.1.clone().filter(|_| after.1 != before.1 && after.1 != after.0) {
            said.push(format!("remembered {valid}"));
        }
        if said.is_empty() { "nothing".to_owned() } else { said.join("; ") }
    }
}

/// Our own message as it comes back from being signed.
fn own(message: &Message, me: Option<ValidatorIndex>, set: &ValidatorSet) -> Input {
    match message {
        Message::Ballot(ballot) => {
            let me = me.expect("only validators cast");
            Input::Vote(world::vote(ballot.kind, ballot.round, ballot.block_id, ballot.valid_round, me).settle(set))
        }
        Message::Draft(draft) => {
            let proposal = world::proposal(draft.round, draft.block_id, draft.pol_round).settle(set);
            Input::Proposal { proposal, received: block_time() }
        }
    }
}

/// An effect as a story tells it. Steps within a round are told by what is cast in them.
fn describe(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Persist(_, record) => format!("persist {}", describe_message(&record.message)),
        Effect::Cast(_, ballot) => format!("cast {}", describe_message(&Message::Ballot(*ballot))),
        Effect::Propose(_, draft) => describe_message(&Message::Draft(*draft)).replace("proposal", "propose"),
        Effect::Build { round, .. } => format!("build @{round}"),
        Effect::Check { block_id } => format!("check {}", name(block_id)),
        Effect::WantBody { block_id, .. } => format!("want {}", name(block_id)),
        Effect::Schedule(timeout, _) => format!("timer {}@{}", describe_step(timeout.step), timeout.round),
        Effect::Decide { commit } => format!("decide {}", describe_commit(commit)),
        Effect::CertifiedInvalid { commit } => format!("contradiction {}", describe_commit(commit)),
        Effect::Accuse(equivocation) => {
            assert_eq!(equivocation.first.validator, equivocation.second.validator, "one validator");
            format!("accuse {}", equivocation.first.validator)
        }
        Effect::Stepped { round, step: Step::Propose, .. } => format!("round {round}"),
        Effect::Stepped { .. } => return None,
    })
}

fn describe_commit(commit: &Commit) -> String {
    format!("{}@{}", name(&commit.block_id), commit.round)
}

fn describe_message(message: &Message) -> String {
    let block_name = |block_id: Option<BlockId>| block_id.map_or("nil".to_owned(), |block_id| name(&block_id).to_string());
    let valid_round = |valid_round: Option<Round>| valid_round.map_or(String::new(), |round| format!(" vr={round}"));
    match message {
        Message::Ballot(ballot) => {
            let step = describe_step(ballot.kind.into());
            format!("{step} {}@{}{}", block_name(ballot.block_id), ballot.round, valid_round(ballot.valid_round))
        }
        Message::Draft(Draft { round, pol_round, block_id, .. }) => {
            format!("proposal {}@{round}{}", block_name(Some(*block_id)), valid_round(*pol_round))
        }
    }
}

fn describe_step(step: Step) -> &'static str {
    match step {
        Step::Propose => "propose",
        Step::Prevote => "prevote",
        Step::Precommit => "precommit",
    }
}

/// A line of the language.
struct Line {
    verb: String,
    words: Vec<String>,
}

impl Line {
    fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace().map(str::to_owned);
        Self { verb: words.next().expect("a verb"), words: words.collect() }
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }

    fn field(&self, key: &str) -> Option<&str> {
        self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.field(key).map(|number| number.parse().expect("a number"))
    }

    fn round(&self) -> Round {
        world::round(self.field("r").map_or(0, |number| number.parse().expect("a round")))
    }

    fn valid_round(&self) -> Option<Round> {
        self.field("vr").filter(|number| *number != "-1").map(|number| world::round(number.parse().expect("a round")))
    }

    fn block(&self) -> Option<BlockId> {
        let word = self.words.first().expect("a block or nil");
        let mut letters = word.chars();
        match (letters.next(), letters.next()) {
            (Some(letter), None) if letter.is_ascii_uppercase() => Some(block(letter)),
            _ if word == "nil" => None,
            _ => panic!("{word:?} is no block"),
        }
    }

    fn from(&self) -> Vec<usize> {
        self.field("from").expect("from whom").split(',').map(|index| index.parse().expect("an index")).collect()
    }
}

/// Verified votes, for those who count them.
pub(crate) fn votes(set: &ValidatorSet, kind: VoteType, block_id: Option<BlockId>, from: &[usize]) -> Vec<Verified<Vote>> {
    from.iter().map(|voter| world::vote(kind, Round::ZERO, block_id, None, index(*voter)).settle(set)).collect()
}
