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
//! Authors of applications begin at [`subject`]; whoever wants to judge a chain by code that is not the node's, at [`naive`].
//!
//! ```text
//! FAIL I4 seed=0x2a node=2 t=3.401s h=7 r=0: node 2 signs two messages of type 1 at height 7, round 0 · replay: cargo sim --seed 0x2a --seeds 1
//! ```

mod accountability;
#[cfg(test)]
mod audit_tests;
#[cfg(feature = "planted")]
pub mod bank;
mod campaign;
mod checks;
pub mod coins;
pub mod coverage;
mod crypto;
pub mod disk;
mod forged;
mod forgiving;
#[cfg(test)]
mod heal_tests;
mod history;
pub mod joins;
mod keys;
mod liars;
mod members;
pub mod naive;
mod narrow;
mod node;
mod plan;
mod random;
mod regression;
#[cfg(test)]
mod rollback_tests;
mod room;
pub mod schedule;
mod shrink;
pub mod subject;
pub mod sweep;
mod trace;
#[cfg(test)]
mod trouble_tests;
mod votes;
mod world;

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lockstep_replica::planted::Planted;

pub use campaign::run;
pub use checks::Violation;
pub use liars::{Budget, Lies};
pub use members::Ask;
pub use narrow::{Fault, Narrow};
pub use regression::Regression;
pub use schedule::Schedule;
pub use subject::{Choice, Subject};
pub use sweep::Sweep;

use crate::coverage::Coverage;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many seeds, or for a sweep how many crashes at one boundary at most (0 for all).
    pub seeds: u64,
    /// The first.
    pub first: u64,
    /// Crash at every boundary of scenarios instead.
    pub sweep: Option<Sweep>,
    /// Follow this schedule instead of seeds.
    pub schedule: Option<Schedule>,
    /// The application.
    pub subject: Subject,
    /// Threads that run seeds side by side. Which seed runs where changes nothing.
    pub threads: usize,
    /// Bugs to plant, in a build that has them.
    pub planted: Planted,
    /// Print what happened in each run.
    pub trace: Form,
    /// Draw what happened in each run.
    pub diagram: Option<Diagram>,
    /// Print the last lines of the trace before each failure.
    pub last_lines: bool,
    /// Print which fault met which step, over all runs.
    pub coverage: bool,
    /// Stop at the first failure.
    pub fail_fast: bool,
    /// What each seed's plan is reduced to.
    pub narrow: Narrow,
    /// Make failures small, and keep them as files in this folder.
    pub shrink_to: Option<PathBuf>,
    /// Have somebody lie in every seed, within this budget.
    pub byzantine: Option<Budget>,
    /// Have validators come and go in every seed.
    pub members: bool,
    /// Have each seed live so long, in whole minutes: a small network with a block a second, and faults a minute apart.
    pub life: Option<Duration>,
    /// The commit that is simulated, for failures; empty where nobody knows.
    pub commit: String,
    /// The command that repeats a failure, where it is not `cargo sim` with its seed.
    pub replay: Option<String>,
    /// Told after each run.
    pub observe: Observer,
    /// Asked after each event of each run, with the number of nodes: for a test that counts what is allocated. What it says
    /// is wrong breaks I11.
    pub look: Look,
    /// Once true, no further run is begun, and what was begun is summed up.
    pub stop: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seeds: 100,
            first: 1,
            sweep: None,
            schedule: None,
            subject: Subject::default(),
            threads: 2,
            planted: Planted::default(),
            trace: Form::None,
            diagram: None,
            last_lines: false,
            coverage: false,
            fail_fast: false,
            narrow: Narrow::default(),
            shrink_to: None,
            byzantine: None,
            members: false,
            life: None,
            commit: String::new(),
            replay: None,
            observe: Observer::default(),
            look: Look::default(),
            stop: Arc::default(),
        }
    }
}

/// How a trace is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// Not at all.
    #[default]
    None,
    /// For people, a line each.
    Text,
    /// For programs, a JSON object each.
    Json,
}

/// Where a run is drawn: a column for each node, time downwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagram {
    /// As text.
    Terminal,
    /// As a page for a browser, with an arrow for each frame.
    File(PathBuf),
}

/// How far a campaign is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Runs made.
    pub runs: u64,
    /// Of so many.
    pub of: u64,
    /// That broke something.
    pub failures: usize,
    /// Simulated time, in nanoseconds.
    pub simulated_ns: u64,
    /// Since the beginning.
    pub elapsed: Duration,
}

/// Who is told of progress.
#[derive(Clone)]
pub struct Observer(pub Arc<dyn Fn(&Progress) + Send + Sync>);

impl Default for Observer {
    /// Nobody.
    fn default() -> Self {
        Self(Arc::new(|_| ()))
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// Who looks at a run from outside, after each event.
#[derive(Clone, Default)]
pub struct Look(pub Option<Arc<Looker>>);

/// Given the number of nodes; what is wrong, if something is.
pub type Looker = dyn Fn(usize) -> Result<(), String> + Send + Sync;

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Runs made.
    pub runs: u64,
    /// Runs that broke something, by seed.
    pub failures: Vec<FailedRun>,
    /// Simulated time, in nanoseconds.
    pub simulated_ns: u64,
    /// Blocks committed, over all runs.
    pub blocks: u64,
    /// Transactions acknowledged, over all runs.
    pub acknowledged: u64,
    /// Answers to clients that were compared with the chain, over all runs.
    pub reads: u64,
    /// Rounds that proposers of the core led after the faults had ended, but for the first two heights, and those that decided.
    pub led: (u64, u64),
    /// Crashes, over all runs.
    pub crashes: u64,
    /// Damaged files that a restart healed, over all runs.
    pub heals: u64,
    /// Changes of the validator set, over all runs.
    pub views: u64,
    /// Runs made twice and compared.
    pub repeated: u64,
    /// Which fault met which step, over all runs.
    pub coverage: Coverage,
    /// What liars did, and what came of it.
    pub lies: Lies,
    /// It was asked to stop before the end.
    pub was_stopped: bool,
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
    /// The failure made small, where that was asked for.
    pub regression: Option<Regression>,
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("no reason was given").to_owned()
}
