//! `lockstep sim`

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockstep_sim::{Diagram, Form, Narrow, Observer, Options, Progress, Regression, Schedule, Subject, Sweep, coins};

use crate::cli::SimArgs;
use crate::error::{Exit, NodeError};
use crate::home::read_bounded;
use crate::stop::StopSignal;

/// Seeds when nothing is said: a few seconds.
const SEEDS: u64 = 100;
/// Bytes of a schedule: those that runs leave have some ten thousand.
const SCHEDULE_BYTES_MAX: usize = 16 << 20;
/// Between two looks at whether somebody wants to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Between two lines of progress where there is no terminal.
const QUIET: Duration = Duration::from_secs(30);
/// Between two drawings of the bar.
const DRAWN: Duration = Duration::from_millis(100);

pub(super) fn run(args: &SimArgs) -> Result<(), NodeError> {
    let schedule = args.schedule.as_deref().map(read_schedule).transpose()?;
    let replay = args.schedule.as_ref().map(|path| format!("cargo sim --schedule {}", path.display()));
    let stop = stop_on_signals();
    let options = Options {
        seeds: match (args.seeds, args.seed, args.sweep) {
            (Some(seeds), ..) => seeds,
            (None, _, true) => 0,
            (None, Some(_), false) => 1,
            (None, None, false) => SEEDS,
        },
        first: args.seed.or(schedule.as_ref().map(|schedule| schedule.seed)).unwrap_or(1),
        sweep: args.sweep.then(|| Sweep { scenario: args.scenario.clone(), crash: args.crash, double: args.double }),
        schedule,
        threads: usize::from(args.threads),
        trace: match args.trace.as_deref() {
            None => Form::None,
            Some("json") => Form::Json,
            Some(_) => Form::Text,
        },
        diagram: args.diagram.clone().map(|file| file.map_or(Diagram::Terminal, Diagram::File)),
        last_lines: true,
        coverage: args.coverage || args.require_coverage,
        narrow: Narrow { without: args.without.clone(), chaos_ms: args.chaos_ms },
        shrink_to: (!args.no_shrink && !args.sweep && args.schedule.is_none()).then(|| args.shrink_to.clone()),
        byzantine: args.byzantine.as_deref().map(|budget| budget.parse().expect("the command line knows their names")),
        members: args.members,
        subject: match args.app.as_str() {
            "token" => coins::subject(),
            _ => Subject::default(),
        },
        life: args.long.map(|minutes| Duration::from_secs(60 * minutes)),
        commit: commit(),
        replay,
        observe: Observer(Arc::new(Bar::new().observer())),
        stop,
        ..Options::default()
    };
    let summary = lockstep_sim::run(&options, &mut Lines)
        .map_err(|error| NodeError::new(Exit::Failed, format!("the result cannot be printed: {error}")))?;
    if !summary.failures.is_empty() {
        return Err(NodeError::new(Exit::Failed, format!("{} of {} runs broke an invariant", summary.failures.len(), summary.runs))
            .means("this is a fault of the program, or of the simulator")
            .next("repeat one with the command at the end of its line"));
    }
    let empty = summary.coverage.empty().count();
    if args.require_coverage && empty > 0 {
        return Err(NodeError::new(Exit::Failed, format!("{empty} kinds of faults and steps of the protocol never met"))
            .means("these runs say nothing about them")
            .next("run more seeds, or see why nothing draws them"));
    }
    Ok(())
}

/// A failure that was made small, or a bare schedule.
fn read_schedule(path: &Path) -> Result<Schedule, NodeError> {
    let refused = |what: &dyn std::fmt::Display| NodeError::new(Exit::Refused, format!("{}: {what}", path.display()));
    let text = String::from_utf8(read_bounded(path, SCHEDULE_BYTES_MAX)?).map_err(|_| refused(&"it is not UTF-8 text"))?;
    match Regression::from_json(&text) {
        Ok(regression) => Ok(regression.schedule),
        // Of a bare schedule the other reader knows what is wrong.
        Err(error) => Schedule::from_json(&text).map_err(|_| refused(&error).next("name a file that a failing run has left")),
    }
}

/// The commit that this program was built from, where its checkout is still there; otherwise its version.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]) else { return format!("v{}", env!("CARGO_PKG_VERSION")) };
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|changes| !changes.is_empty());
    if is_changed { commit + "+changes" } else { commit }
}

/// True once somebody asks the program to stop. A second Ctrl-C ends it at once.
fn stop_on_signals() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    // Without signals there is no summary at Ctrl-C, which is no reason not to simulate.
    if let Ok(signal) = StopSignal::on_signals() {
        let told = stop.clone();
        std::thread::spawn(move || {
            while !signal.is_stopped() {
                std::thread::sleep(LOOK);
            }
            told.store(true, Ordering::Relaxed);
        });
    }
    stop
}

/// Lines on the standard output, above a bar that may be drawn on the same terminal.
struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if io::stderr().is_terminal() {
            // Whoever has no terminal any more misses nothing.
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// How far it is: a bar on a terminal, a line now and then elsewhere, on the standard error.
struct Bar {
    is_terminal: bool,
    shown: Mutex<Duration>,
}

impl Bar {
    fn new() -> Self {
        Self { is_terminal: io::stderr().is_terminal(), shown: Mutex::new(Duration::ZERO) }
    }

    fn observer(self) -> impl Fn(&Progress) + Send + Sync {
        move |progress| {
            let mut shown = self.shown.lock().expect("no holder panics");
            let pause = if self.is_terminal { DRAWN } else { QUIET };
            let is_last = progress.runs >= progress.of;
            // The summary says more than a last line would.
            if is_last && self.is_terminal {
                let _ = write!(io::stderr(), "\r\x1b[K");
            }
            if is_last || progress.elapsed < *shown + pause {
                return;
            }
            *shown = progress.elapsed;
            let line = in_words(progress);
            let _ =
                if self.is_terminal { write!(io::stderr(), "\r\x1b[K{} {line}", bar(progress)) } else { writeln!(io::stderr(), "{line}") };
        }
    }
}

fn bar(progress: &Progress) -> String {
    const WIDTH: u64 = 20;
    let full = usize::try_from(progress.runs.saturating_mul(WIDTH) / progress.of.max(1)).unwrap_or(0);
    (0..20).map(|place| if place < full { '█' } else { '░' }).collect()
}

fn in_words(progress: &Progress) -> String {
    let seconds = progress.elapsed.as_secs_f64();
    let rate = progress.runs as f64 / seconds.max(0.001);
    let left = progress.of.saturating_sub(progress.runs) as f64 / rate.max(0.001);
    format!(
        "{} of {} seeds, {rate:.1}/s, {:.2} simulated hours, {} failed, {left:.0} s left",
        progress.runs,
        progress.of,
        progress.simulated_ns as f64 / 3.6e12,
        progress.failures
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_one_short_line() {
        let progress = Progress { runs: 250, of: 1_000, failures: 2, simulated_ns: 3_600_000_000_000, elapsed: Duration::from_secs(10) };
        assert_eq!(in_words(&progress), "250 of 1000 seeds, 25.0/s, 1.00 simulated hours, 2 failed, 30 s left");
        assert_eq!(bar(&progress), "█████░░░░░░░░░░░░░░░");
        assert_eq!(bar(&Progress { runs: 0, of: 0, ..progress }).chars().filter(|sign| *sign == '█').count(), 0);
    }
}
