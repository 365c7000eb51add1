//! `lockstep validator`: the command line of membership.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{HomeArg, NodesArg};

/// Join the validators, leave them, approve others, list them.
///
/// Who validates is decided by the chain: these commands sign a transaction with the key of a home and send it to the node that runs
/// there, beside which they run. That key signs votes, too; the two never meet: what is signed here begins with a byte that no vote
/// begins with, and names this chain, its genesis and a recent block.
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
A node becomes a validator in three steps:
  lockstep init --from http://10.0.0.10:26657 --home n4
  lockstep start --home n4
  lockstep validator join --home n4

What happens then: the node is an observer, which follows and has no power. Who
admits it stands in genesis (lockstep validator list shows it): the validators,
by lockstep validator approve; keys of an authority; or nobody has to. Admitted,
it waits until power may move, and validates from two heights later on.

lockstep validator COMMAND --help has more.")]
pub(crate) enum ValidatorCommand {
    /// Ask that the node of a home validate, or return to it.
    ///
    /// The node must run and have caught up: the request names a block that it knows, which proves both that and that the key is here.
    /// It is signed anew while it waits. The command waits until the node has power, and may be broken off and called again.
    #[command(after_long_help = "\
Examples:
  lockstep validator join --home n4
  lockstep validator join --home n4 --power 5 --no-wait

Where validators admit, each of them, until more than two thirds of the power
have:
  lockstep validator approve ADDRESS --home n0
A validator that was absent for too long returns by the same command, and needs
no approval.")]
    Join(JoinArgs),
    /// Leave the validators, or take a request to join back; with a key of the authority, have another leave.
    ///
    /// The command first waits until those who stay have signed a block since it was called, so that they can go on alone: the chain
    /// refuses what would leave it without a live majority of two thirds, but learns late of who has stopped. The validator signs until
    /// its power is gone, two heights after power may move; the command waits for that. The node follows from then on, and can be stopped.
    #[command(after_long_help = "\
Examples:
  lockstep validator quit --home n4
  lockstep validator quit 53316E6A54A3B1CF51ED709F96674246683692DC \\
      --home n0 --signer authority.json")]
    Quit(QuitArgs),
    /// Approve that a key validates: with the key of the home, or of the authority.
    ///
    /// An approval names key and power. It may come before the request, for a key that was sent to you; then --power says how much.
    #[command(after_long_help = "\
Examples:
  lockstep validator approve 53316E6A54A3B1CF51ED709F96674246683692DC --home n0
  lockstep validator approve \\
      bB9oAuCXqkP4BMWlB9jm9/phJllwtbxtXBGcCtrn3iM= --power 10 --home n0
                              a key that has not asked yet")]
    Approve(ApproveArgs),
    /// Show who validates, who asks, and by which rules.
    #[command(after_long_help = "\
Examples:
  lockstep validator list
  lockstep validator list --json --node http://127.0.0.1:26658")]
    List(ListArgs),
    /// Give a validator a new key, without a pause: a second node takes its place at one height.
    ///
    /// Make the new node with lockstep init --from, start it, and let it catch up. This command then asks, signed by both keys, that the
    /// new one have the power of the old one from the height on at which the old one loses it. It waits in line as every change of power
    /// does, for the power window that the chain's rules say: lockstep validator list shows both.
    #[command(after_long_help = "\
Example:
  lockstep validator rotate --home new \\
      --old-key old/config/priv_validator_key.json

When it is done, stop the old node. Both keys never sign for one height.")]
    Rotate(RotateArgs),
}

/// Whose key signs, and which node is asked.
#[derive(Debug, Args)]
pub(crate) struct SeatArgs {
    #[command(flatten)]
    pub(crate) home: HomeArg,
    /// RPC endpoint of the node that runs in the home.  [default: rpc.laddr of its config.toml]
    #[arg(long, value_name = "URL")]
    pub(crate) node: Option<String>,
    /// Return when the request is in a block.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    #[command(flatten)]
    pub(crate) seat: SeatArgs,
    /// Power to ask for.  [default: what it had or was approved with, else that of the validator with the least]
    #[arg(long, value_name = "POWER", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) power: Option<u64>,
    /// A name for people.  [default: moniker of config.toml]
    #[arg(long, value_name = "NAME")]
    pub(crate) moniker: Option<String>,
    /// Where the node is found, NODE_ID@HOST:PORT, separated by commas.  [default: as config.toml says, where others can reach it]
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',')]
    pub(crate) address: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct QuitArgs {
    /// Who leaves: an address.  [default: the validator of the home]
    #[arg(value_name = "ADDRESS")]
    pub(crate) who: Option<String>,
    #[command(flatten)]
    pub(crate) seat: SeatArgs,
    /// A key file of the authority, which signs instead of the home's key.
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// Who is approved: an address that `lockstep validator list` shows, or a public key in base64.
    #[arg(value_name = "ADDRESS|KEY")]
    pub(crate) who: String,
    #[command(flatten)]
    pub(crate) seat: SeatArgs,
    /// The power that is approved.  [default: what it asks for]
    #[arg(long, value_name = "POWER", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) power: Option<u64>,
    /// A key file of the authority, which signs instead of the home's key.
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) nodes: NodesArg,
    /// The node's answer as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    pub(crate) seat: SeatArgs,
    /// The key file that is replaced: config/priv_validator_key.json of the old home.
    #[arg(long, value_name = "FILE")]
    pub(crate) old_key: PathBuf,
}
