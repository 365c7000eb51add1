//! `lockstep sim`

use std::io;

use lockstep_sim::{Narrow, Options};

use crate::cli::SimArgs;
use crate::error::{Exit, NodeError};

/// Seeds when nothing is said: a few seconds.
const SEEDS: u64 = 100;

pub(super) fn run(args: &SimArgs) -> Result<(), NodeError> {
    let options = Options {
        seeds: match (args.seeds, args.seed, args.sweep) {
            (Some(seeds), ..) => seeds,
            (None, _, true) => 0,
            (None, Some(_), false) => 1,
            (None, None, false) => SEEDS,
        },
        first: args.seed.unwrap_or(1),
        sweep: args.sweep,
        threads: usize::from(args.threads),
        trace: args.trace,
        narrow: Narrow { without: args.without.clone(), chaos_ms: args.chaos_ms },
        shrink: true,
        ..Options::default()
    };
    let summary = lockstep_sim::run(&options, &mut io::stdout())
        .map_err(|error| NodeError::new(Exit::Failed, format!("the result cannot be printed: {error}")))?;
    if summary.failures.is_empty() {
        return Ok(());
    }
    Err(NodeError::new(Exit::Failed, format!("{} of {} runs broke an invariant", summary.failures.len(), summary.runs))
        .means("this is a fault of the program, or of the simulator")
        .next("repeat one with the command at the end of its line"))
}
