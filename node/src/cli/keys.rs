//! The arguments of `lockstep keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::HomeArg;

/// Show, make or bring in keys.
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
Examples:
  lockstep keys show --home lockstep-localnet/node0
  lockstep keys generate --output fresh.json

lockstep keys COMMAND --help has more.")]
pub(crate) enum KeysCommand {
    /// Show who a home is: address and public key of the validator, id of the node.
    #[command(after_long_help = "Example:\n  lockstep keys show --home lockstep-localnet/node0")]
    Show(HomeArg),
    /// Make a key file for a new validator or node.
    #[command(after_long_help = "\
Examples:
  lockstep keys generate --output fresh.json
  lockstep keys generate --kind node --output node_key.json")]
    Generate(GenerateArgs),
    /// Put a validator's key in the place of one that never signed.
    #[command(after_long_help = "\
Examples:
  lockstep keys import priv_validator_key.json --home v \\
      --state priv_validator_state.json
  lockstep keys import fresh.json --home v --never-signed

The key that was there is kept beside it with .replaced at the end of its name.
A home whose key has signed is refused. A key must sign in one place only: stop
the old node first, and never start it again.")]
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Where the file goes. It must not exist.
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// What the key is for.
    #[arg(long, value_enum, default_value_t = KeyKind::Validator)]
    pub(crate) kind: KeyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyKind {
    Validator,
    Node,
}

#[derive(Debug, Args)]
#[group(id = "signed", required = true, multiple = false, args = ["state", "never_signed"])]
pub(crate) struct ImportArgs {
    /// A priv_validator_key.json, of ours or of CometBFT.
    #[arg(value_name = "FILE")]
    pub(crate) key: PathBuf,
    #[command(flatten)]
    pub(crate) home: HomeArg,
    /// What the key signed elsewhere: its priv_validator_state.json.
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// The key has never signed anything on this chain.
    #[arg(long)]
    pub(crate) never_signed: bool,
}
