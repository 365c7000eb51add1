//! `lockstep snapshot`: the command line of snapshots.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lockstep_types::Hash;

use super::NODE_DEFAULT;

/// Snapshots of the state, and what a new node needs to begin with one.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write a join bundle: what a new node trusts, and whom it asks.
    ///
    /// A node that begins with a snapshot has to be told one height and hash by somebody it trusts; from there on every header, and the
    /// state itself, is proven by signatures of validators. A bundle holds that height and hash, the hash of the genesis, and peers. It
    /// is good as long as keys of that time are: two thirds of the evidence window (genesis, 48 hours by default).
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
