//! `lockstep replay` and `lockstep rollback`: the command line of what a stopped node keeps of the past.

use clap::Args;
use lockstep_types::Height;

use super::{HomeArg, parse_height};

/// Execute a stopped node's blocks again, and compare what they give with what was certified.
///
/// Begins with the state of genesis, or with --from with the newest snapshot in the home that the log proves, and executes one block
/// after the other. The header of each next block, which more than two thirds of the power signed, says what the one before it gave: the root
/// of the state, the results, the validators and the parameters. The first block that gives something else is named, with its first
/// transaction whose result is another, where the certified results are kept in this home.
///
/// The newest block's root is in no header so far; it is compared with what the node itself kept. Nothing in the home is changed, but
/// for a mark, where a record is damaged, that has the next start verify all of them; and
/// no signature is verified again: that was done before a block was kept. The node must be stopped, for a log has one process; a copy
/// of a home does as well.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep replay --home n0                  every block, from genesis
  lockstep replay --home n0 --from 120000    from the newest snapshot below
  lockstep replay --home n0 --to 500 --json  blocks 1 to 500, for programs

Exit: 0 where every block gives what it should, 1 where one does not.")]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) home: HomeArg,
    /// Begin so late that this block is still executed.  [default: the first block, or the first after the oldest snapshot]
    #[arg(long, value_name = "HEIGHT", value_parser = parse_height)]
    pub(crate) from: Option<Height>,
    /// The last block to execute.  [default: the newest]
    #[arg(long, value_name = "HEIGHT", value_parser = parse_height)]
    pub(crate) to: Option<Height>,
    /// The answer as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Take the state of a stopped node back to before its newest block, so that the next start executes it again.
///
/// For a node whose application computed something wrong (the node halts and says that its root is not the certified one), once the
/// application is mended. The state of the block before is made again, from the newest snapshot or from genesis, and is believed
/// only if its root is the one that the next header says. What the node kept of the newest block is set aside in data/rolled-back.
/// Where the state database is of an older block anyway, as it mostly is after a crash, it stays.
///
/// With --hard the block itself goes, too: the log ends before it, and the node fetches it from its peers again. That is for a node
/// that decided on the wrong side of a fork. Do it on one node after the other, never on more than a third of the power at once: what
/// all of them cut nobody has any more.
///
/// The vote guard is never touched. A validator stays silent up to the height that it signed last, whatever was rolled back, so it
/// cannot sign twice.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep rollback --home n0               before the newest block
  lockstep rollback --home n0 --blocks 5    before the newest five
  lockstep rollback --home n0 --to 119999   to the state after this height
  lockstep rollback --home n0 --hard        and remove the block from the log

Which block gives something wrong, lockstep replay shows.")]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) home: HomeArg,
    /// How many blocks.  [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "to", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) blocks: Option<u64>,
    /// The height whose state is wanted. 0, or one below the chain's first height: the state of genesis.
    #[arg(long, value_name = "HEIGHT")]
    pub(crate) to: Option<u64>,
    /// Remove the blocks from the log as well.
    #[arg(long)]
    pub(crate) hard: bool,
}
