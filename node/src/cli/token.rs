//! `lockstep token`: the command line of the bundled token.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lockstep_types::Address;

use super::{HomeArg, NodesArg, Wait};

/// Pay, and see what an account has, on a chain that runs the bundled token.
///
/// Each first validator's key has an account (lockstep localnet --app token). An account is the address of a key: a transfer is signed with
/// the key of a home, or with one from a file. That key may sign votes, too; the two never meet, since each kind of message begins with
/// bytes of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Pay from the account of a home's key, or of a key file.
    ///
    /// Waits until the transfer is committed and executed. It is done once, whatever happens: its nonce is good for one transfer. The nonce is
    /// the one that the node says is next; to send several without waiting, number them with --nonce.
    #[command(after_long_help = "\
Examples:
  lockstep token transfer 53316E6A54A3B1CF51ED709F96674246683692DC 250 \\
      --home lockstep-localnet/node0
  lockstep token transfer 53316E6A54A3B1CF51ED709F96674246683692DC 250 \\
      --home n0 --signer payroll.json --memo invoice-17

A key file is what lockstep keys generate writes.

One after the other for each account: two commands that ask for the nonce at
the same moment make the same transfer where all else is the same, and that
counts once, for both. A --memo of its own tells one payment from another.")]
    Transfer(TransferArgs),
    /// What an account has, and its next nonce, as one node says.
    #[command(after_long_help = "\
Examples:
  lockstep token account --home lockstep-localnet/node0     of its key
  lockstep token account 53316E6A54A3B1CF51ED709F96674246683692DC")]
    Account(AccountArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TransferArgs {
    /// Whose balance grows: 40 hex digits. It need not exist.
    #[arg(value_name = "ADDRESS")]
    pub(crate) to: Address,
    /// How much.
    #[arg(value_name = "AMOUNT", allow_negative_numbers = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) amount: u64,
    /// What the transfer itself costs: whoever offers more is earlier in a block.  [default: the least that the chain takes]
    #[arg(long, value_name = "AMOUNT", allow_negative_numbers = true)]
    pub(crate) fee: Option<u64>,
    /// A reference for the receiver, at most 128 bytes.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) memo: String,
    /// How many transfers the account sent before this one.  [default: as the node says]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) nonce: Option<u64>,
    /// A key file to sign with, instead of the home's key.
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: Option<PathBuf>,
    /// How long to wait: until it passed the check of one node, or until it is committed.
    #[arg(long, value_enum, default_value_t = Wait::Commit)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) home: HomeArg,
    #[command(flatten)]
    pub(crate) nodes: NodesArg,
}

#[derive(Debug, Args)]
pub(crate) struct AccountArgs {
    /// The account.  [default: that of the home's key]
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: Option<Address>,
    #[command(flatten)]
    pub(crate) home: HomeArg,
    #[command(flatten)]
    pub(crate) nodes: NodesArg,
}
