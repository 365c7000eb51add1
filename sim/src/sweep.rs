//! A crash at every step of a node.
//!
//! A scenario is a plan and a list of faults: a quiet network, one in which rounds fail, locks move, files rot, and so on. It is
//! run once, and the effects of one of its nodes and the operations of that node's disk are counted. Then it is run again
//! for each of these boundaries, and the machine stops there: after the effect; before the operation, in the middle of it, or
//! after it and before anybody hears of it. That for each of four ways in which unsynced writes survive, of that node alone and
//! of all at once. Every run must keep what every run of a seed must: nothing acknowledged is lost, nothing is signed twice, and
//! the chain goes on.
//!
//! A **double crash** strikes a second time, at an operation of the disk while the node recovers from the first, or soon after.
//! There are too many pairs to try them all; they are drawn.
//!
//! Runs are named, so that one can be made again: `--sweep --scenario rounds --crash 123`, and `d123` for a double crash.

use std::fmt;
use std::str::FromStr;

use crate::Options;
use crate::disk::{Survival, Trouble, When};
use crate::plan::{Hushed, MS, Plan};
use crate::random::Stream;
use crate::schedule::{Fault, Schedule, Shape, Timed};
use crate::world::{Boundary, ForcedCrash, Ran, Report1, World};

/// The ways in which unsynced writes survive: all (the order of the program), none (the order of its syncs), each for
/// itself, and torn.
const SURVIVALS: [Survival; 4] = [Survival::All, Survival::None, Survival::Random, Survival::TornPages];

/// A network and what happens in it before anything is swept.
struct Scenario {
    name: &'static str,
    plan: Plan,
    faults: Vec<Timed>,
    /// Whose steps are counted, and who crashes.
    node: usize,
}

fn at(ms: u64, fault: Fault) -> Timed {
    Timed { at_ns: ms * MS, fault }
}

fn crash(ms: u64, node: usize, down_ms: u64) -> Timed {
    at(ms, Fault::Crash { node, survival: Survival::Random, seed: ms, down_ns: down_ms * MS })
}

fn hush(ms: u64, kind: Hushed, nodes: &[usize], lasts_ms: u64) -> Timed {
    at(ms, Fault::Hush { nodes: nodes.to_vec(), kind, lasts_ns: lasts_ms * MS })
}

/// What is swept.
fn scenarios() -> Vec<Scenario> {
    let four = |name, chaos_ms: u64, faults| {
        let plan = Plan { chaos: chaos_ms * MS, ..Plan::sweep() };
        Scenario { name, plan, faults, node: 0 }
    };
    let with_results = |scenario: Scenario| Scenario { plan: Plan { rots: true, ..scenario.plan }, ..scenario };
    let alone = |ms: u64, lasts_ms: u64| {
        let links = (1..4).flat_map(|other| [(0, other), (other, 0)]).collect();
        at(ms, Fault::Cut { shape: Shape::Alone, links, lasts_ns: lasts_ms * MS, flap_ns: 0 })
    };
    vec![
        // Four validators, and nothing else.
        four("quiet", 400, Vec::new()),
        // Nobody hears proposals for a while: rounds end in nil.
        four("rounds", 700, vec![hush(60, Hushed::Proposals, &[0, 1, 2, 3], 450)]),
        // Node 0 alone hears a polka and locks; the others miss one prevote each, and one of them the proposal.
        four(
            "lock",
            800,
            vec![
                hush(40, Hushed::Proposals, &[1], 500),
                hush(40, Hushed::PrevotesOf(2), &[1], 500),
                hush(40, Hushed::PrevotesOf(3), &[2], 500),
                hush(40, Hushed::PrevotesOf(2), &[3], 500),
            ],
        ),
        // Node 0 is cut off, and fetches what it missed.
        four("catch-up", 900, vec![alone(30, 500)]),
        // Node 0 crashed before, twice: its recovery is swept too.
        four("restart", 600, vec![crash(120, 0, 60), crash(260, 0, 60)]),
        // A file of node 0 rotted: its start heals.
        with_results(four("rot", 600, vec![crash(150, 0, 80), at(229, Fault::Rot { node: 0, seed: ROT_IN_THE_LOG })])),
        // Node 0 has no room on its disk for a while.
        with_results(four("full", 600, vec![at(80, Fault::Disk { node: 0, trouble: Trouble::Full { lasts_ns: 250 * MS }, seed: 1 })])),
        // Nobody else.
        Scenario { plan: Plan { powers: vec![10], ..Plan::sweep() }, ..four("alone", 400, Vec::new()) },
        // Seven with unequal power; node 0 has the most.
        Scenario { plan: Plan { powers: vec![1_000, 500, 333, 250, 200, 166, 142], ..Plan::sweep() }, ..four("seven", 400, Vec::new()) },
        // One who only follows.
        Scenario { plan: Plan { followers: 1, ..Plan::sweep() }, node: 4, ..four("follower", 400, Vec::new()) },
        // The state is written with every block, and so is the next segment of the log.
        with_results(Scenario { plan: Plan { flush_blocks: 1, tx_interval: 5 * MS, ..Plan::sweep() }, ..four("flush", 400, Vec::new()) }),
    ]
}

/// Draws a rot that hits the first segment of the log.
const ROT_IN_THE_LOG: u64 = 3;

/// A crash of a scenario by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// One of those at every boundary.
    Single(u64),
    /// One of those that are drawn, which crash again.
    Double(u64),
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single(number) => write!(f, "{number}"),
            Self::Double(number) => write!(f, "d{number}"),
        }
    }
}

impl FromStr for Crash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = |number: &str| number.parse().map_err(|_| format!("{text} is no number of a crash: 123, or d123 for a double one"));
        text.strip_prefix('d').map_or_else(|| parse(text).map(Self::Single), |number| parse(number).map(Self::Double))
    }
}

/// What to sweep.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// Only this scenario.
    pub scenario: Option<String>,
    /// Only this crash of it.
    pub crash: Option<Crash>,
    /// So many double crashes over all scenarios.
    pub double: u64,
}

/// The names of all scenarios.
pub fn names() -> Vec<&'static str> {
    scenarios().iter().map(|scenario| scenario.name).collect()
}

/// A scenario that was run once.
#[derive(Debug)]
struct Measured {
    name: &'static str,
    schedule: Schedule,
    node: usize,
    effects: u64,
    /// Operations of the node's disk, from its first start to its end.
    operations: (u64, u64),
    /// Operations of a start after a crash in the middle.
    recovery: u64,
}

impl Measured {
    fn new(scenario: Scenario, options: &Options) -> Result<Self, String> {
        let Scenario { name, plan, faults, node } = scenario;
        let schedule = Schedule { seed: options.first, plan, faults };
        let run = |forced| {
            let Schedule { seed, plan, faults } = schedule.clone();
            let world = World::of(&options.subject, seed, plan, options.planted, forced).watching(node).following(faults);
            world.run().outcome.map_err(|failure| format!("scenario {name}: {}", failure.violation.what))
        };
        let Report1 { effects, operations, .. } = run(None)?;
        let boundary = Boundary::Operation(operations.0.midpoint(operations.1), When::During);
        let crashed = run(Some(ForcedCrash { node, boundary, all: false, survival: Survival::Random, then: None }))?;
        Ok(Self { name, schedule, node, effects, operations, recovery: crashed.longest_start.max(1) })
    }

    fn singles(&self) -> u64 {
        self.boundaries() * SURVIVALS.len() as u64 * 2
    }

    fn boundaries(&self) -> u64 {
        self.effects + (self.operations.1 - self.operations.0) * When::EACH.len() as u64
    }

    fn boundary(&self, number: u64) -> Boundary {
        match number.checked_sub(self.effects) {
            None => Boundary::Effect(number + 1),
            Some(rest) => {
                let whens = When::EACH.len() as u64;
                let when = When::EACH[usize::try_from(rest % whens).expect("one of three")];
                Boundary::Operation(self.operations.0 + rest / whens, when)
            }
        }
    }

    fn forced(&self, crash: Crash) -> ForcedCrash {
        let node = self.node;
        match crash {
            Crash::Single(number) => {
                let survivals = SURVIVALS.len() as u64;
                let survival = SURVIVALS[usize::try_from(number / 2 % survivals).expect("one of four")];
                ForcedCrash { node, boundary: self.boundary(number / 2 / survivals), all: number % 2 == 1, survival, then: None }
            }
            Crash::Double(number) => {
                let mut dice = Stream::new(number, self.name);
                let boundary = self.boundary(dice.below(self.boundaries()));
                let survival = *dice.pick(&Survival::EACH);
                // Mostly before the start is done, and sometimes just after it.
                let after = dice.below(self.recovery + self.recovery / 8 + 1);
                let then = Some((after, *dice.pick(&When::EACH), *dice.pick(&Survival::EACH)));
                ForcedCrash { node, boundary, all: dice.chance(300), survival, then }
            }
        }
    }
}

/// What came of a scenario's crashes.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    single: u64,
    double: u64,
    /// Double crashes of which one came while the node started.
    while_starting: u64,
    acknowledged: u64,
    failed: u64,
}

/// The crashes of a sweep, and what came of them.
#[derive(Debug)]
pub(crate) struct Crashes {
    measured: Vec<Measured>,
    /// Those of one scenario follow each other.
    list: Vec<(usize, Crash)>,
    tallies: Vec<Tally>,
}

/// One of them.
pub(crate) struct Crashing {
    pub(crate) schedule: Schedule,
    pub(crate) forced: ForcedCrash,
    /// The flags that make it again, beside the seed.
    pub(crate) flags: String,
}

impl Crashes {
    /// Runs each scenario once, and lists what is wanted.
    ///
    /// # Errors
    /// When there is no such scenario or crash, or a scenario does not hold even without one.
    pub(crate) fn of(options: &Options, sweep: &Sweep) -> Result<Self, String> {
        let is_wanted = |scenario: &Scenario| sweep.scenario.as_ref().is_none_or(|name| name == scenario.name);
        let wanted = scenarios().into_iter().filter(is_wanted);
        let measured: Vec<Measured> = wanted.map(|scenario| Measured::new(scenario, options)).collect::<Result<_, _>>()?;
        if measured.is_empty() {
            return Err(format!("there is no such scenario; there are {}", names().join(", ")));
        }
        let list = match sweep.crash {
            Some(Crash::Single(number)) if number >= measured[0].singles() => {
                return Err(format!("scenario {} has {} crashes", measured[0].name, measured[0].singles()));
            }
            Some(crash) => vec![(0, crash)],
            None => list(&measured, options.seeds, sweep.double),
        };
        let tallies = vec![Tally::default(); measured.len()];
        Ok(Self { measured, list, tallies })
    }

    pub(crate) fn len(&self) -> u64 {
        self.list.len() as u64
    }

    pub(crate) fn get(&self, place: u64) -> Option<Crashing> {
        let (at, crash) = self.list.get(usize::try_from(place).ok()?)?;
        let measured = &self.measured[*at];
        let flags = format!("--sweep --scenario {} --crash {crash}", measured.name);
        Some(Crashing { schedule: measured.schedule.clone(), forced: measured.forced(*crash), flags })
    }

    /// Counts what came of one.
    pub(crate) fn count(&mut self, place: u64, ran: &Ran) {
        let Some((at, crash)) = usize::try_from(place).ok().and_then(|place| self.list.get(place)) else { return };
        let tally = &mut self.tallies[*at];
        match crash {
            Crash::Single(_) => tally.single += 1,
            Crash::Double(_) => tally.double += 1,
        }
        match &ran.outcome {
            Ok(report) => {
                tally.acknowledged += report.acknowledged as u64;
                tally.while_starting += u64::from(matches!(crash, Crash::Double(_)) && report.crashes_while_starting > 0);
            }
            Err(_) => tally.failed += 1,
        }
    }
}

/// All crashes at one boundary, or so many over all scenarios, evenly spread; and double ones, as many of each scenario.
fn list(measured: &[Measured], most: u64, double: u64) -> Vec<(usize, Crash)> {
    let every: u64 = measured.iter().map(Measured::singles).sum();
    // The stride is no divisor of the pattern in which boundaries and survivals alternate.
    let step = if most == 0 { 1 } else { every.div_ceil(most) | 1 };
    let step = usize::try_from(step).unwrap_or(usize::MAX);
    let scenarios = measured.len() as u64;
    let each = |(at, measured): (usize, &Measured)| {
        let double = double / scenarios + u64::from((at as u64) < double % scenarios);
        let singles = (0..measured.singles()).step_by(step).map(Crash::Single);
        singles.chain((0..double).map(Crash::Double)).map(move |crash| (at, crash)).collect::<Vec<_>>()
    };
    measured.iter().enumerate().flat_map(each).collect()
}

/// A line for each scenario.
impl fmt::Display for Crashes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (measured, tally) in self.measured.iter().zip(&self.tallies) {
            writeln!(
                f,
                "{:>9}: {} of {} crashes ({} effects; before, in and after {} disk operations; 4 survivals; one node and all), \
                 {} double crashes, {} of them while it started; {} acknowledgements, {} failed",
                measured.name,
                tally.single,
                measured.singles(),
                measured.effects,
                measured.operations.1 - measured.operations.0,
                tally.double,
                tally.while_starting,
                tally.acknowledged,
                tally.failed
            )?;
        }
        Ok(())
    }
}
