//! Many runs: seeds side by side, what is printed of them, and what is kept of a failure.

use std::any::Any;
use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::checks::Violation;
use crate::coverage::Coverage;
use crate::narrow::Narrow;
use crate::plan::{MS, Plan};
use crate::regression::Regression;
use crate::schedule::Schedule;
use crate::shrink::{self, SECONDS_MAX};
use crate::sweep::{Crashes, Crashing};
use crate::trace::{self, Line};
use crate::world::{self, Failure, ForcedCrash, Ran, World};
use crate::{Diagram, FailedRun, Form, Options, Progress, Summary};

/// Failures that are made small. One takes many runs, and whoever has many wants the first.
const SHRUNK_MAX: usize = 3;
/// Lines of a trace that are printed behind a failure.
const LAST_LINES: usize = 200;
/// Things that are drawn on a terminal: the last ones.
const DRAWN_MAX: usize = 400;
/// Every so many seeds, one is run twice and compared (I20): 5 %.
const REPEAT_EVERY: u64 = 20;

/// One run: of a seed, or of a schedule.
#[derive(Debug, Clone)]
struct Run {
    seed: u64,
    /// Follows this instead of dice.
    schedule: Option<Schedule>,
    /// Crashes here.
    forced: Option<ForcedCrash>,
    /// The flags that name it, beside the seed.
    flags: String,
}

impl Run {
    fn world(&self, options: &Options) -> World {
        let world = |seed, plan| World::of(&options.subject, seed, plan, options.planted, self.forced).looked_at(options.look.clone());
        match &self.schedule {
            Some(schedule) => world(schedule.seed, schedule.plan.clone()).following(schedule.faults.clone()),
            None => world(self.seed, self.plan(options)),
        }
    }

    /// What its seed draws, and what is left of that.
    fn plan(&self, options: &Options) -> Plan {
        let plan = match options.life {
            Some(life) => Plan::draw_long(self.seed, u64::try_from(life.as_nanos()).unwrap_or(u64::MAX)),
            None if options.members => Plan::draw_within(self.seed, options.byzantine).with_members(self.seed),
            None => Plan::draw_within(self.seed, options.byzantine),
        };
        options.narrow.apply(plan)
    }

    /// Runs it: twice where that is due, or with a trace where somebody wants one.
    fn simulate(&self, options: &Options, repeat: bool) -> Ran {
        #[cfg(feature = "planted")]
        crate::bank::plant(&options.planted);
        let world = || {
            let world = self.world(options);
            if repeat { world.digested() } else { world }
        };
        let run = || if options.wants_trace() { world().traced().run() } else { world().run() };
        let mut ran = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| self.broken(options, &*panic));
        ran.outcome = ran.outcome.and_then(|report| {
            if repeat && world().run().outcome.ok().as_ref() != Some(&report) {
                let violation = Violation { invariant: "I20", what: "a second run went another way".into() };
                return Err(Failure { violation, at: report.simulated_ns, height: report.height, node: None, round: None });
            }
            Ok(report)
        });
        ran
    }

    /// A run in which the world itself panicked, and no node of it: the simulator is wrong, and the other seeds go on.
    fn broken(&self, options: &Options, panic: &(dyn Any + Send)) -> Ran {
        let what = format!("the world itself panicked: {}", crate::panic_text(panic));
        let violation = Violation { invariant: "simulator", what };
        let schedule = self.schedule.clone().unwrap_or_else(|| Schedule { seed: self.seed, plan: self.plan(options), faults: Vec::new() });
        let outcome = Err(Failure { violation, at: 0, height: 0, node: None, round: None });
        Ran { outcome, trace: Vec::new(), schedule, coverage: Coverage::default() }
    }
}

/// What the runs of all threads come to.
struct Shared<'a> {
    summary: Summary,
    out: &'a mut (dyn Write + Send),
    printed: io::Result<()>,
    /// Failures that somebody makes small, or made.
    shrunk: usize,
}

/// Simulates, printing each failure in one line and a summary as the last.
///
/// # Errors
/// When nothing can be printed, and where there is nothing of what is to be swept.
pub fn run(options: &Options, out: &mut (dyn Write + Send)) -> io::Result<Summary> {
    let started = Instant::now();
    let crashes = options.sweep.as_ref().map(|sweep| Crashes::of(options, sweep)).transpose();
    let crashes = crashes.map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))?;
    let tallied = Mutex::new(crashes);
    let count = match options {
        Options { sweep: Some(_), .. } => tallied.lock().expect("nobody had it").as_ref().map_or(0, Crashes::len),
        Options { schedule: Some(_), .. } => 1,
        _ => options.seeds,
    };
    let next = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let is_stopped = || is_over.load(Ordering::Relaxed) || options.stop.load(Ordering::Relaxed);
    let shared = Mutex::new(Shared { summary: Summary::default(), out, printed: Ok(()), shrunk: 0 });
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= count || is_stopped() {
                        return;
                    }
                    let crashing = tallied.lock().expect("no holder panics").as_ref().and_then(|crashes| crashes.get(place));
                    let run = match crashing {
                        Some(Crashing { schedule, forced, flags }) => {
                            Run { seed: options.first, schedule: Some(schedule), forced: Some(forced), flags }
                        }
                        None => Run {
                            seed: options.first.wrapping_add(place),
                            schedule: options.schedule.clone(),
                            forced: None,
                            flags: String::new(),
                        },
                    };
                    let repeat = run.forced.is_none() && run.seed.is_multiple_of(REPEAT_EVERY);
                    let ran = run.simulate(options, repeat);
                    if let Some(crashes) = tallied.lock().expect("no holder panics").as_mut() {
                        crashes.count(place, &ran);
                    }
                    let failed = options.finished(&run, repeat, &ran, &shared);
                    if failed && options.fail_fast {
                        is_over.store(true, Ordering::Relaxed);
                    }
                    let shared = shared.lock().expect("no holder panics");
                    (options.observe.0)(&Progress {
                        runs: shared.summary.runs,
                        of: count,
                        failures: shared.summary.failures.len(),
                        simulated_ns: shared.summary.simulated_ns,
                        elapsed: started.elapsed(),
                    });
                }
            });
        }
    });
    let Shared { mut summary, out, printed, .. } = shared.into_inner().expect("no holder panics");
    printed?;
    summary.failures.sort_by_key(|failure| failure.seed);
    summary.was_stopped = options.stop.load(Ordering::Relaxed) && summary.runs < count;
    if options.coverage {
        writeln!(out, "{}", summary.coverage)?;
        let empty: Vec<String> = summary.coverage.empty().map(|(kind, step)| format!("{} while {}", kind.name(), step.name())).collect();
        if !empty.is_empty() {
            writeln!(out, "never met: {}", empty.join(", "))?;
        }
    }
    if let Some(crashes) = tallied.into_inner().expect("no holder panics") {
        write!(out, "{crashes}")?;
    }
    writeln!(out, "{}", Last { summary: &summary, elapsed: started.elapsed() })?;
    Ok(summary)
}

impl Options {
    fn wants_trace(&self) -> bool {
        self.trace != Form::None || self.diagram.is_some()
    }

    /// Takes up what came of a run. Whether it failed.
    fn finished(&self, run: &Run, repeat: bool, ran: &Ran, shared: &Mutex<Shared<'_>>) -> bool {
        let mut locked = shared.lock().expect("no holder panics");
        locked.summary.runs += 1;
        locked.summary.repeated += u64::from(repeat);
        locked.summary.coverage.merge(&ran.coverage);
        let failure = match &ran.outcome {
            Ok(report) => {
                let summary = &mut locked.summary;
                summary.simulated_ns += report.simulated_ns;
                summary.blocks += report.height;
                summary.acknowledged += report.acknowledged as u64;
                summary.crashes += report.crashes;
                summary.heals += report.heals;
                summary.views += report.views;
                summary.reads += report.reads;
                summary.led.0 += report.led.0;
                summary.led.1 += report.led.1;
                summary.lies.add(&report.lies);
                locked.print(|out| self.show(&ran.trace, &format!("seed {:#x}", run.seed), out));
                return false;
            }
            Err(failure) => failure,
        };
        let is_first = locked.shrunk < SHRUNK_MAX && self.shrink_to.is_some();
        locked.shrunk += usize::from(is_first);
        // The others go on meanwhile.
        drop(locked);
        let shrunk = self.shrink_to.as_ref().filter(|_| is_first).map(|folder| self.made_small(run, ran, failure, folder));
        let line = self.line(run, failure, shrunk.as_ref());
        // Of a failure somebody always wants to know what led to it.
        let lines = if self.wants_trace() || !self.last_lines { Vec::new() } else { run.world(self).traced().run().trace };
        let mut locked = shared.lock().expect("no holder panics");
        locked.print(|out| {
            self.show(&ran.trace, &line, out)?;
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                writeln!(out, "  {line}")?;
            }
            writeln!(out, "{line}")
        });
        let regression = shrunk.map(|(regression, _)| regression);
        locked.summary.failures.push(FailedRun { seed: run.seed, violation: failure.violation.clone(), line, regression });
        true
    }

    /// Prints or draws a trace, as it was asked for.
    fn show(&self, lines: &[Line], title: &str, out: &mut dyn Write) -> io::Result<()> {
        match self.trace {
            Form::None => {}
            Form::Text => lines.iter().try_for_each(|line| writeln!(out, "{line}"))?,
            Form::Json => lines.iter().try_for_each(|line| writeln!(out, "{}", line.to_json()))?,
        }
        match &self.diagram {
            None => Ok(()),
            Some(Diagram::Terminal) => write!(out, "{}", trace::diagram(&lines[lines.len().saturating_sub(DRAWN_MAX)..])),
            Some(Diagram::File(path)) => {
                std::fs::write(path, trace::picture(title, lines))?;
                writeln!(out, "drawn in {}", path.display())
            }
        }
    }

    /// The failure made small, and where it is kept; or why nowhere.
    fn made_small(&self, run: &Run, ran: &Ran, failure: &Failure, folder: &Path) -> (Regression, Result<PathBuf, String>) {
        let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
        let quiet = Options { trace: Form::None, diagram: None, ..self.clone() };
        let breaks = |schedule: &Schedule| {
            let run = Run { schedule: Some(schedule.clone()), ..run.clone() };
            run.simulate(&quiet, false).outcome.err().filter(|other| other.violation.invariant == failure.violation.invariant)
        };
        let mut small = ran.schedule.clone();
        let mut what = failure.violation.what.clone();
        // What only shows when a run is made twice is no matter of its faults.
        if !matches!(failure.violation.invariant, "I20" | "simulator") {
            let mut may_go_on = || Instant::now() < until && !self.stop.load(Ordering::Relaxed);
            small = shrink::shrink(&small, &mut |schedule| breaks(schedule).is_some(), &mut may_go_on).0;
            what = breaks(&small).map_or(what, |failure| failure.violation.what);
        }
        let regression =
            Regression { invariant: failure.violation.invariant.to_owned(), what, about: String::new(), planted: None, schedule: small };
        let name = format!("{}-{:x}.json", failure.violation.invariant.replace(' ', "-"), run.seed);
        let path = folder.join(name);
        let kept = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, regression.to_json()));
        (regression, kept.map(|()| path).map_err(|error| error.to_string()))
    }

    fn line(&self, run: &Run, failure: &Failure, shrunk: Option<&(Regression, Result<PathBuf, String>)>) -> String {
        let Failure { violation, at, height, node, round } = failure;
        let mut line = format!("FAIL {} seed={:#x}", violation.invariant, run.seed);
        if !self.commit.is_empty() {
            line.push_str(&format!(" commit={}", self.commit));
        }
        if let Some(node) = node {
            line.push_str(&format!(" node={node}"));
        }
        line.push_str(&format!(" t={}.{:03}s h={}", at / MS / 1_000, at / MS % 1_000, world::height_text(*height)));
        if let Some(round) = round {
            line.push_str(&format!(" r={round}"));
        }
        let replay = self.replay.as_ref().map_or_else(|| replay(run, &self.narrow, self), Clone::clone);
        line.push_str(&format!(": {} · replay: {replay}", violation.what));
        match shrunk {
            None => {}
            Some((regression, Ok(path))) => {
                line.push_str(&format!(" · shrunk: {} ({} events)", path.display(), regression.schedule.faults.len()));
            }
            Some((_, Err(reason))) => line.push_str(&format!(" · shrunk, but not kept: {reason}")),
        }
        line
    }
}

/// The command that repeats a run.
fn replay(run: &Run, narrow: &Narrow, options: &Options) -> String {
    let mut kind = options.byzantine.map_or_else(String::new, |budget| format!(" --byzantine {budget}"));
    if let Some(app) = options.subject.app {
        kind.push_str(&format!(" --app {app}"));
    }
    if options.members && options.life.is_none() {
        kind.push_str(" --members");
    }
    if let Some(life) = options.life {
        kind.push_str(&format!(" --long {}", life.as_secs() / 60));
    }
    if run.forced.is_some() {
        return format!("cargo sim {} --seed {:#x}", run.flags, run.seed);
    }
    format!("cargo sim --seed {:#x} --seeds 1{kind}{narrow}", run.seed)
}

impl Shared<'_> {
    fn print(&mut self, print: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        if self.printed.is_ok() {
            self.printed = print(self.out);
        }
    }
}

/// The last line.
struct Last<'a> {
    summary: &'a Summary,
    elapsed: Duration,
}

impl fmt::Display for Last<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { summary, elapsed } = self;
        let seconds = elapsed.as_secs_f64();
        write!(
            f,
            "{}{} seeds in {seconds:.1} s ({:.1} per second), {:.2} simulated hours, {} blocks, {} acknowledged transactions, {} reads, \
             {} crashes, {} files healed, {} changes of validators, {} run twice: {} failed",
            if summary.was_stopped { "stopped after " } else { "" },
            summary.runs,
            summary.runs as f64 / seconds.max(0.001),
            summary.simulated_ns as f64 / 3.6e12,
            summary.blocks,
            summary.acknowledged,
            summary.reads,
            summary.crashes,
            summary.heals,
            summary.views,
            summary.repeated,
            summary.failures.len()
        )?;
        match summary.led {
            (0, _) => Ok(()),
            (led, decided) => write!(f, "; {:.2} % of honest rounds decide after the heal", 100.0 * decided as f64 / led as f64),
        }
    }
}
