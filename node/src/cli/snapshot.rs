//! `lockstep snapshot`: the command line of snapshots.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use lockstep_types::{Hash, Height};

use super::{HomeArg, NODE_DEFAULT, SeatArgs};
use crate::config::parse_duration;

/// Snapshots of the state, and what a new node needs to begin with one.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Have every node make a snapshot of one height now, and wait for this one's.
    ///
    /// Signs a CHECKPOINT with the home's validator key (or one of the authority's: --signer). The height of the block that it comes
    /// into is a checkpoint: every node makes a snapshot of the state after it, beside its work. Genesis may set an interval for the
    /// same; the chain refuses a CHECKPOINT too soon after the last one.
    #[command(after_long_help = "\
Examples:
  lockstep snapshot create --home n0            beside a validator's node
  lockstep snapshot create --home n0 --no-wait  only ask for it")]
    Create(CreateArgs),
    /// Show the snapshots in a home, whether or not its node runs.
    #[command(after_long_help = "\
Examples:
  lockstep snapshot list --home n0
  lockstep snapshot list --home n0 --json   for programs")]
    List(ListSnapshotsArgs),
    /// Write a snapshot, with all that proves it, into one file. The node must be stopped.
    ///
    /// The file holds the state after one height, that block, and the headers that a new node has to know. It is worth nothing without the
    /// hash of one header, which this command prints: carry that another way, or compare it with any node of the chain.
    #[command(after_long_help = "\
Examples:
  lockstep snapshot export --home n0 --output state.snapshot
  lockstep snapshot export --home n0 --height 120000 --output state.snapshot")]
    Export(ExportArgs),
    /// Begin a new home with an exported snapshot, instead of all blocks.
    ///
    /// What is in the file is verified against the hash that you trust before the home has it (but for the proposer priorities in sets
    /// of validators, which nothing proves and nothing uses), and a file without the headers that the chain's rules look back to is
    /// refused. The node then fetches the blocks after it from its peers. For a home without blocks: made by lockstep init --genesis.
    #[command(after_long_help = "\
Examples:
  lockstep init --genesis genesis.json --home n4
  lockstep snapshot restore state.snapshot --home n4 --trust-hash \\
      3D011E09502A84552A0F8AE112D024CC2C115597E3A577D5F49007902C221DC5
  lockstep start --home n4")]
    Restore(RestoreArgs),
    /// Write a join bundle: what a new node trusts, and whom it asks.
    ///
    /// A node that begins with a snapshot has to be told one height and hash by somebody it trusts; from there on every header, and the
    /// state itself, is proven by signatures of validators. A bundle holds that height and hash, the hash of the genesis, and peers. It
    /// is good as long as keys of that time are: two thirds of the evidence window (genesis, 24 hours by default).
    #[command(after_long_help = "\
Examples:
  lockstep snapshot bundle --output join.json
  lockstep snapshot bundle --node http://10.0.0.10:26657 --output join.json
                      beside or near a node that you trust; then, elsewhere
  lockstep start --home n4 --bundle join.json")]
    Bundle(BundleArgs),
}

/// See [`SnapshotCommand::Bundle`].
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// RPC endpoint of a node that you trust.
    #[arg(long, value_name = "URL", default_value = NODE_DEFAULT, env = "LOCKSTEP_NODE")]
    pub(crate) node: String,
    /// Refuse a node of another genesis.
    #[arg(long, value_name = "HASH")]
    pub(crate) genesis_hash: Option<Hash>,
    /// Where it goes; printed where nothing is said.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// See [`SnapshotCommand::Create`].
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub(crate) seat: SeatArgs,
    /// The key that signs, if not the home's validator key: one of the authority's.
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: Option<PathBuf>,
    /// How long to wait for the snapshot.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub(crate) wait: Duration,
}

/// See [`SnapshotCommand::List`].
#[derive(Debug, Args)]
pub(crate) struct ListSnapshotsArgs {
    #[command(flatten)]
    pub(crate) home: HomeArg,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// See [`SnapshotCommand::Export`].
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) home: HomeArg,
    /// Which, by its height.  [default: the newest]
    #[arg(long, value_name = "HEIGHT")]
    pub(crate) height: Option<Height>,
    /// Where it goes. Nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// See [`SnapshotCommand::Restore`].
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Hash of the header after the snapshot's height, from somebody you trust: lockstep snapshot export prints it.
    #[arg(long, value_name = "HASH")]
    pub(crate) trust_hash: Hash,
    #[command(flatten)]
    pub(crate) home: HomeArg,
}
