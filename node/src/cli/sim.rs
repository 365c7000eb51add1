//! `lockstep sim`: the command line of the simulator.

use std::path::PathBuf;

use clap::Args;

/// Run the node in a simulated world that tries to break it.
///
/// Each seed draws a network, a load and faults: frames lost, doubled and reordered, links cut, machines that crash at any
/// moment and come back from what their disk kept, clocks that jump, validators that lie. Then the faults stop for more than
/// two thirds of the power, which must commit again within a bound computed from the timeouts. Nothing that was acknowledged
/// may be lost, no two nodes may disagree, no honest key may sign twice, and a second verifier that shares no code with the
/// node judges every chain. A failure prints one line: what broke, the command that repeats it exactly, and a file with the
/// few faults that it takes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep sim                           100 seeds, a few seconds
  lockstep sim --seeds 10000             more of them
  lockstep sim --byzantine --seeds 1000  somebody lies in every one
  lockstep sim --members --seeds 1000    validators come and go in every one
  lockstep sim --sweep --seeds 3000      crashes at every step of a node
  lockstep sim --coverage                which fault met which step

When a seed fails:
  lockstep sim --seed 0x2a               that seed again
  lockstep sim --seed 0x2a --trace       what happened in it, a line each
  lockstep sim --seed 0x2a --trace=json  ... for programs
  lockstep sim --seed 0x2a --diagram     a column for each node, time downwards
  lockstep sim --seed 0x2a --diagram run.html
                                         ... as a page, with an arrow for each
                                         frame
  lockstep sim --schedule sim-failures/I4-2a.json --trace
                                         the small file of a failure
  lockstep sim --seed 0x2a --without crashes,rot --chaos-ms 800
                                         with less in it

Ctrl-C sums up what ran so far.

Exit codes:
  0  every run held (so far, after Ctrl-C)
  1  a run broke an invariant, or --require-coverage found an empty cell
  2  wrong command line
  3  the file of --schedule is refused")]
pub(crate) struct SimArgs {
    /// How many seeds; with --sweep, how many crashes at most (0: every one)
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// The first seed, decimal or 0x…; without --seeds, this one alone
    #[arg(long, value_name = "S", value_parser = parse_seed)]
    pub(crate) seed: Option<u64>,
    /// Crash at every step and at every disk operation of a node in eleven scenarios, instead of drawing faults
    #[arg(long, conflicts_with_all = ["byzantine", "schedule"])]
    pub(crate) sweep: bool,
    /// With --sweep, only this scenario
    #[arg(long, value_name = "NAME", requires = "sweep")]
    pub(crate) scenario: Option<String>,
    /// With --sweep and --scenario, only this crash: a number, or d and a number for a double crash
    #[arg(long, value_name = "N", requires = "scenario")]
    pub(crate) crash: Option<lockstep_sim::sweep::Crash>,
    /// With --sweep, so many double crashes too: the second during the recovery from the first
    #[arg(long, value_name = "N", requires = "sweep", default_value_t = 0)]
    pub(crate) double: u64,
    /// Somebody lies in every seed: validators with less than a third of the power (safe), with more, who want a fork (over), or
    /// nodes without power who lie to those who catch up (sync)
    #[arg(long, value_name = "BUDGET", num_args = 0..=1, default_missing_value = "safe", value_parser = ["safe", "over", "sync"])]
    pub(crate) byzantine: Option<String>,
    /// The bundled application that runs. One of your own: the documentation of `lockstep_sim::subject`
    #[arg(long, value_name = "APP", default_value = "kv", value_parser = ["kv", "token"], conflicts_with = "sweep")]
    pub(crate) app: String,
    /// Validators join, quit, rotate and return in every seed, by transactions, while all else goes on
    #[arg(long, conflicts_with_all = ["byzantine", "sweep", "schedule", "long"])]
    pub(crate) members: bool,
    /// Have each seed live for so many simulated minutes: four validators, a block a second, faults a minute apart
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["byzantine", "sweep", "schedule"], value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub(crate) long: Option<u64>,
    /// Follow this file instead of seeds: a failure that was made small, or one of sim/regressions
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "byzantine", "without", "chaos_ms"])]
    pub(crate) schedule: Option<PathBuf>,
    /// Print what happened in each run, a line each: text for people, json for programs
    #[arg(long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "text", value_parser = ["text", "json"])]
    pub(crate) trace: Option<String>,
    /// Draw what happened in a run: on the terminal, or as a page for a browser where a file is named
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub(crate) diagram: Option<Option<PathBuf>>,
    /// Print how often each fault met each step of the protocol
    #[arg(long)]
    pub(crate) coverage: bool,
    /// Fail where a fault never met a step
    #[arg(long)]
    pub(crate) require_coverage: bool,
    /// Keep failures that were made small in this folder
    #[arg(long, value_name = "DIR", default_value = "sim-failures")]
    pub(crate) shrink_to: PathBuf,
    /// Make no failure small: it takes up to five minutes each, for the first three
    #[arg(long)]
    pub(crate) no_shrink: bool,
    /// Kinds of faults that do not happen
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    pub(crate) without: Vec<lockstep_sim::Fault>,
    /// Faults end after so many milliseconds, if they would not before
    #[arg(long, value_name = "MS")]
    pub(crate) chaos_ms: Option<u64>,
    /// Seeds side by side
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) threads: u16,
}

fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
    parsed.map_err(|_| format!("{text:?} is no seed: a number like 42 or 0x2a"))
}
