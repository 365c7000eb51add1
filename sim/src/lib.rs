//! The other shell: the same replica under a seed.
//!
//! A run is one seed. The seed draws a network, a load and faults ([`plan`](self)): frames are lost, doubled, delayed and
//! reordered, links cut, connections reset, machines crash at any effect and come back from what their disk kept, all at
//! once if need be, clocks jump, and one validator with less than a third of the power may lie. Then the faults stop for a
//! core of more than two thirds of the power, which must commit further blocks within a bound that is computed from the
//! timeouts. Checkers that share no code with what they judge watch every message that is signed and every block that is
//! told to readers.
//!
//! Nodes exchange encoded bytes, so decoders always run; the block log, the vote guard and the state database are the real
//! ones, on a disk ([`disk`]) that loses, tears and reorders what was not synced. Everything is repeated exactly by the
//! same seed.
//!
//! ```text
//! FAIL I4 seed=0x2a t=3.401s h=7: node 2 signs two messages of type 1 at height 7, round 0 · replay: cargo sim --seed 0x2a --seeds 1
//! ```

#[cfg(feature = "planted")]
pub mod bank;
mod checks;
pub mod coverage;
mod crypto;
pub mod disk;
#[cfg(test)]
mod heal_tests;
mod keys;
mod narrow;
mod node;
mod plan;
mod random;
pub mod schedule;
mod votes;
mod world;

use std::any::Any;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use lockstep_replica::planted::Planted;

pub use checks::Violation;
pub use narrow::{Fault, Narrow};

use crate::coverage::Coverage;
use crate::disk::{Survival, When};
use crate::plan::{MS, Plan};
use crate::world::{Boundary, Failure, ForcedCrash, Ran, World};

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many seeds, or for a sweep how many of the boundaries at most (0 for all).
    pub seeds: u64,
    /// The first.
    pub first: u64,
    /// Crash at every boundary of one scenario instead.
    pub sweep: bool,
    /// Threads that run seeds side by side. Which seed runs where changes nothing.
    pub threads: usize,
    /// Bugs to plant, in a build that has them.
    pub planted: Planted,
    /// Print what happened in each run, a line each.
    pub trace: bool,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// What each seed's plan is reduced to.
    pub narrow: Narrow,
    /// Look for less with which a failing seed still fails.
    pub shrink: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seeds: 100,
            first: 1,
            sweep: false,
            threads: 2,
            planted: Planted::default(),
            trace: false,
            fail_fast: false,
            narrow: Narrow::default(),
            shrink: false,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Runs made.
    pub runs: u64,
    /// Runs that broke something.
    pub failures: Vec<FailedRun>,
    /// Simulated time, in nanoseconds.
    pub simulated_ns: u64,
    /// Blocks committed, over all runs.
    pub blocks: u64,
    /// Transactions acknowledged, over all runs.
    pub acknowledged: u64,
    /// Crashes, over all runs.
    pub crashes: u64,
    /// Damaged files that a restart healed, over all runs.
    pub heals: u64,
    /// Runs made twice and compared.
    pub repeated: u64,
    /// Which fault met which step, over all runs.
    pub coverage: Coverage,
}

/// A run that broke something.
#[derive(Debug, Clone)]
pub struct FailedRun {
    /// Its seed.
    pub seed: u64,
    /// What it broke.
    pub violation: Violation,
    /// The line that was printed.
    pub line: String,
}

/// Failures that are made small. One takes a few dozen runs, and whoever has many wants the first.
const SHRUNK_MAX: usize = 3;

/// One run in a list.
#[derive(Debug, Clone, Copy)]
struct Run {
    seed: u64,
    forced: Option<ForcedCrash>,
    sweep: bool,
    repeat: bool,
}

/// Simulates, printing each failure in one line and a summary as the last.
///
/// # Errors
/// When nothing can be printed.
pub fn run(options: &Options, out: &mut (dyn Write + Send)) -> io::Result<Summary> {
    let started = Instant::now();
    let (runs, what) = if options.sweep { sweep_runs(options) } else { (seed_runs(options), String::new()) };
    let next = AtomicU64::new(0);
    let shared = Mutex::new((Summary::default(), out, io::Result::Ok(())));
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let place = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                    let Some(run) = runs.get(place) else { return };
                    let Ran { outcome, trace, coverage, .. } = simulate(run, options);
                    let mut shared = shared.lock().expect("no holder panics");
                    let (summary, out, printed) = &mut *shared;
                    if printed.is_ok() {
                        *printed = trace.iter().try_for_each(|line| writeln!(out, "{line}"));
                    }
                    summary.runs += 1;
                    summary.repeated += u64::from(run.repeat);
                    summary.coverage.merge(&coverage);
                    match outcome {
                        Ok(report) => {
                            summary.simulated_ns += report.simulated_ns;
                            summary.blocks += report.height;
                            summary.acknowledged += report.acknowledged as u64;
                            summary.crashes += report.crashes;
                            summary.heals += report.heals;
                        }
                        Err(failure) => {
                            let line = line(run, &options.narrow, &failure);
                            if printed.is_ok() {
                                *printed = writeln!(out, "{line}");
                            }
                            if options.shrink && !run.sweep && summary.failures.len() < SHRUNK_MAX && printed.is_ok() {
                                *printed = shrink(run, options, &failure).map_or(Ok(()), |line| writeln!(out, "{line}"));
                            }
                            summary.failures.push(FailedRun { seed: run.seed, violation: failure.violation, line });
                            if options.fail_fast {
                                next.store(u64::MAX / 2, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
    });
    let (summary, out, printed) = shared.into_inner().expect("no holder panics");
    printed?;
    let seconds = started.elapsed().as_secs_f64();
    let hours = summary.simulated_ns as f64 / 3.6e12;
    writeln!(
        out,
        "{} {} in {seconds:.1} s ({:.1} per second), {hours:.2} simulated hours, {} blocks, {} acknowledged transactions, {} crashes, {} files healed, {} run twice: {} failed{what}",
        summary.runs,
        if options.sweep { "crashes of one scenario" } else { "seeds" },
        summary.runs as f64 / seconds.max(0.001),
        summary.blocks,
        summary.acknowledged,
        summary.crashes,
        summary.heals,
        summary.repeated,
        summary.failures.len()
    )?;
    Ok(summary)
}

fn seed_runs(options: &Options) -> Vec<Run> {
    (0..options.seeds)
        .map(|offset| options.first.wrapping_add(offset))
        .map(|seed| Run { seed, forced: None, sweep: false, repeat: seed % 20 == 0 })
        .collect()
}

/// A crash after each effect of one node and at each operation of its disk, and of all nodes with it, for each of four ways in
/// which unsynced writes survive.
fn sweep_runs(options: &Options) -> (Vec<Run>, String) {
    let whole = World::new(options.first, Plan::sweep(), options.planted, None).run().outcome;
    let (effects, (begun, ended)) = whole.map_or((0, (0, 0)), |report| (report.effects, report.operations));
    let operations = (begun..ended).flat_map(|operation| When::EACH.map(|when| Boundary::Operation(operation, when)));
    let mut runs = Vec::new();
    for boundary in (1..=effects).map(Boundary::Effect).chain(operations) {
        for survival in [Survival::All, Survival::None, Survival::Random, Survival::TornPages] {
            for all in [false, true] {
                let forced = Some(ForcedCrash { node: 0, boundary, all, survival });
                runs.push(Run { seed: options.first, forced, sweep: true, repeat: false });
            }
        }
    }
    let boundaries = format!("{effects} effects and before, in and after {} disk operations", ended - begun);
    let every = runs.len();
    let wanted = usize::try_from(options.seeds).unwrap_or(usize::MAX);
    if wanted == 0 || every <= wanted {
        return (runs, format!("; every crash of {boundaries}, 4 survivals, one node and all nodes"));
    }
    // Evenly spread, by a stride that is no divisor of the pattern above.
    let step = every.div_ceil(wanted) | 1;
    let sampled: Vec<Run> = runs.into_iter().step_by(step).collect();
    (sampled, format!("; one of every {step} of {every} crashes ({boundaries}, 4 survivals, one node and all nodes)"))
}

fn simulate(run: &Run, options: &Options) -> Ran {
    #[cfg(feature = "planted")]
    bank::plant(&options.planted);
    let plan = if run.sweep { Plan::sweep() } else { Plan::draw(run.seed) };
    let plan = options.narrow.apply(plan);
    let world = || {
        let world = World::new(run.seed, plan.clone(), options.planted, run.forced);
        if run.repeat { world.digested() } else { world }
    };
    let mut ran = if options.trace { world().traced().run() } else { world().run() };
    ran.outcome = ran.outcome.and_then(|report| {
        if run.repeat && world().run().outcome.ok().as_ref() != Some(&report) {
            let violation = Violation { invariant: "I20", what: "a second run went another way".into() };
            return Err(Failure { violation, at: report.simulated_ns, height: report.height });
        }
        Ok(report)
    });
    ran
}

/// The command that shows a failure with as little around it as was found; none where nothing can be left out.
fn shrink(run: &Run, options: &Options, failure: &Failure) -> Option<String> {
    let fails = |narrow: &Narrow| {
        let options = Options { narrow: narrow.clone(), trace: false, ..options.clone() };
        simulate(&Run { repeat: false, ..*run }, &options).outcome.is_err_and(|other| other.violation.invariant == failure.violation.invariant)
    };
    let least = options.narrow.least(&Plan::draw(run.seed), fails);
    (least != options.narrow).then(|| format!("  it fails with less, too: cargo sim --seed {:#x}{least} --trace", run.seed))
}

fn line(run: &Run, narrow: &Narrow, failure: &Failure) -> String {
    let forced = run.forced.map_or_else(String::new, |forced| format!(" crash={forced:?}"));
    let replay = if run.sweep { " --sweep".to_owned() } else { format!(" --seeds 1{narrow}") };
    format!(
        "FAIL {} seed={:#x}{forced} t={}.{:03}s h={}: {} · replay: cargo sim --seed {:#x}{replay}",
        failure.violation.invariant,
        run.seed,
        failure.at / MS / 1_000,
        failure.at / MS % 1_000,
        world::height_text(failure.height),
        failure.violation.what,
        run.seed
    )
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no reason was given").to_owned()
}
