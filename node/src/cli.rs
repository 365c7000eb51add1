//! The command line, and the help that teaches it.

mod bench;
mod history;
mod homes;
mod keys;
mod sim;
mod snapshot;
mod token;
mod validator;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use lockstep_types::{Hash, Height};

use crate::config::parse_duration;
pub(crate) use bench::{BenchArgs, Via};
pub(crate) use history::{ReplayArgs, RollbackArgs};
pub(crate) use homes::{AdmissionKind, AppKind, InitArgs, LocalnetArgs, RulesArgs, TestnetArgs};
pub(crate) use keys::{GenerateArgs, ImportArgs, KeyKind, KeysCommand};
pub(crate) use sim::SimArgs;
pub(crate) use snapshot::{BundleArgs, CreateArgs, ExportArgs, ListSnapshotsArgs, RestoreArgs, SnapshotCommand};
pub(crate) use token::{AccountArgs, TokenCommand, TransferArgs};
pub(crate) use validator::{ApproveArgs, JoinArgs, ListArgs, QuitArgs, RotateArgs, SeatArgs, ValidatorCommand};

/// Where clients look for a node when nothing is said.
pub(crate) const NODE_DEFAULT: &str = "http://127.0.0.1:26657";

const EXIT_CODES: &str = "\
Exit codes:
  0  done, or stopped as asked    5    the node halted: see its last words
  1  not done                     6    FAIL: the answer is not proven
  2  wrong command line           7    no node answered
  3  a home or a file is refused  8    transaction refused, or not seen in time
  4  home or port in use          130  a second Ctrl-C did not let it finish

Environment variables:
  LOCKSTEP_HOME   stands for --home of every command that works on one home
  LOCKSTEP_NODE   stands for --node of status, tx, query, token, snapshot bundle
                  and validator list, and for --endpoints of bench
  LOCKSTEP_<KEY>  overrides a key of config.toml for start: LOCKSTEP_RPC_LADDR
                  for rpc.laddr

First steps:
  lockstep localnet                          four validators on this machine
  lockstep tx hello=world                    send a transaction
  lockstep query hello --home lockstep-localnet/node0
                                             read it back, its proof verified";

/// A Byzantine fault tolerant replicated state machine: Tendermint consensus in one program.
///
/// Validators agree on the order of transactions and execute them in lockstep. Up to a third of the voting power may lie,
/// crash or be cut off; what was acknowledged is never lost, and what is read can be proven.
#[derive(Debug, Parser)]
#[command(name = "lockstep", version, after_long_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(InitArgs),
    Testnet(TestnetArgs),
    Localnet(LocalnetArgs),
    Start(StartArgs),
    Status(StatusArgs),
    Tx(TxArgs),
    Query(QueryArgs),
    #[command(subcommand)]
    Token(TokenCommand),
    #[command(subcommand)]
    Validator(ValidatorCommand),
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    Inspect(InspectArgs),
    Replay(ReplayArgs),
    Rollback(RollbackArgs),
    #[command(subcommand)]
    Keys(KeysCommand),
    Bench(BenchArgs),
    Sim(SimArgs),
}

/// Find out who forked a chain, from the homes of two nodes that decided different blocks at one height.
///
/// Compares the two block logs, finds the first height at which they differ, and names the validators who broke the rules there: those who
/// voted twice in one step, and those who precommitted a block and later prevoted another one without a newer polka (amnesia). What
/// proves it are the votes that the nodes keep themselves: certificates, and the polkas that justified their own votes. More than a third of
/// the power has to have lied for a fork; nobody who followed the rules is ever named. Copies of the homes do as well, and each node has to
/// be stopped: a log has one process.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep inspect --fork n0 n3
  lockstep inspect --fork n0 n3 --json
  lockstep inspect --fork n0     one that met both certificates while it ran

Exit: 0 where the two are one chain as far as both go, 1 where they forked.")]
pub(crate) struct InspectArgs {
    /// The homes of two nodes of one chain; or of one that met the other side's certificate while it ran, and asked its peers.
    #[arg(long, num_args = 1..=2, value_names = ["HOME_A", "HOME_B"], required = true)]
    pub(crate) fork: Vec<PathBuf>,
    /// Print one JSON object, with the two signed messages that prove each.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Run a node.
///
/// Checks home, configuration, genesis and keys, takes the home (a second process is refused), and runs until SIGINT (Ctrl-C),
/// SIGTERM or SIGHUP (the terminal was closed; nohup prevents it). It logs to stderr. However it ends, the next start goes on
/// from there.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep start                               the home in ~/.lockstep
  lockstep start --home lockstep-localnet/node2 --log-level debug
  lockstep start --home n0 --set rpc.laddr=127.0.0.1:26667 --set rpc.batch=50
  lockstep start --home n4 --bundle join.json  a new node, from a snapshot

Every key of config.toml can be set by a variable too: LOCKSTEP_RPC_LADDR for
rpc.laddr. Flags win over variables, and variables over the file.")]
pub(crate) struct StartArgs {
    #[command(flatten)]
    pub(crate) home: HomeArg,
    /// What is logged: error, warn, info, debug, trace, off, or a list of module=level.
    #[arg(long, value_name = "FILTER")]
    pub(crate) log_level: Option<String>,
    /// How it is logged: plain or json.
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// Override a key of config.toml. A list is written as there, or as its elements with commas between.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_assignment)]
    pub(crate) set: Vec<(String, String)>,
    /// Trust the header that this join bundle names (lockstep snapshot bundle), and ask its peers: a node without blocks begins with a snapshot;
    /// one with blocks does where nobody has its next block any more and its own last one is too old to be trusted.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trust_height", "trust_hash"])]
    pub(crate) bundle: Option<PathBuf>,
    /// The same without a file: trust the header of this height.
    #[arg(long, value_name = "HEIGHT", requires = "trust_hash", value_parser = parse_height)]
    pub(crate) trust_height: Option<Height>,
    /// The hash of that header.
    #[arg(long, value_name = "HASH", requires = "trust_height")]
    pub(crate) trust_hash: Option<Hash>,
    /// Stop when the process that started this one ends.
    #[arg(long, hide = true)]
    pub(crate) stop_with_parent: bool,
}

/// Ask a node how it is.
///
/// Where it is in the chain, and whether its validator signs: one that lost its vote guard, say, follows and holds its votes back.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep status
  lockstep status --node http://127.0.0.1:26658 --json

--json gives what the node answers to the RPC method status, and a member
\"lockstep\": peers, whether it signs (null: it is no validator, or does not say),
and the reason why it holds its votes back.")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) nodes: NodesArg,
    /// The answer as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Send a transaction.
///
/// The bundled application stores key=value. By default the command waits until the transaction is committed and executed.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep tx hello=world
  lockstep tx hello=again --wait check            return when a node has it
  lockstep tx --hex 613d62                        bytes: a=b
  lockstep tx b=2 --node http://127.0.0.1:26658,http://127.0.0.1:26657
                     the second is asked when the first does not answer
  printf c=3 > my.tx && lockstep tx --file my.tx  from a file")]
#[command(group(ArgGroup::new("transaction").required(true).multiple(false).args(["text", "hex", "file"])))]
pub(crate) struct TxArgs {
    /// The transaction as text.
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) text: Option<String>,
    /// The transaction as hex digits.
    #[arg(long, value_name = "BYTES")]
    pub(crate) hex: Option<String>,
    /// A file that holds the transaction.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How long to wait: until it passed the check of one node, or until it is committed.
    #[arg(long, value_enum, default_value_t = Wait::Commit)]
    pub(crate) wait: Wait,
    #[command(flatten)]
    pub(crate) nodes: NodesArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    Check,
    Commit,
}

/// Read a value, and verify its proof.
///
/// The node is not believed: from the validators of the genesis file, signatures lead to a header, and a Merkle proof from its
/// application hash to the value, or to its absence. The answer says VERIFIED and who signed, or FAIL and why (exit code 6).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep query hello --home lockstep-localnet/node0
  lockstep query hello --genesis lockstep-localnet/node0/config/genesis.json \\
      --node http://127.0.0.1:26658,http://127.0.0.1:26657
  lockstep query 6b762f68656c6c6f --hex --prefix '' \\
      --home lockstep-localnet/node0
                     a key of the application's state, whole: kv/hello

The bundled application keeps a user's key under kv/, which --prefix puts in
front.

A genesis older than the trusting period is not believed: keys of long ago may
be stolen or sold, and sign another history. Then say from which block to start,
as somebody whom you trust knows it. Your own node's `lockstep status` shows
height and hash:
  lockstep query hello --home n0 --trust-height 86400 --trust-hash \\
      A1B2C3D4E5F60718293A4B5C6D7E8F90A1B2C3D4E5F60718293A4B5C6D7E8F90")]
pub(crate) struct QueryArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// The key is written as hex digits.
    #[arg(long)]
    pub(crate) hex: bool,
    /// What stands before the key in the application's state.
    #[arg(long, value_name = "TEXT", default_value = "kv/")]
    pub(crate) prefix: String,
    /// The home whose genesis is trusted.  [default: ~/.lockstep]
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_HOME")]
    pub(crate) home: Option<PathBuf>,
    /// The genesis that is trusted.
    #[arg(long, value_name = "FILE", conflicts_with = "home")]
    pub(crate) genesis: Option<PathBuf>,
    /// How long validators are trusted after they are known.  [default: the evidence window of genesis]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) trusting_period: Option<Duration>,
    /// Height of a block that is trusted instead of the genesis.
    #[arg(long, value_name = "HEIGHT", requires = "trust_hash", value_parser = parse_height)]
    pub(crate) trust_height: Option<Height>,
    /// Hash of that block, 64 hex digits.
    #[arg(long, value_name = "HASH", requires = "trust_height", value_parser = parse_hash)]
    pub(crate) trust_hash: Option<Hash>,
    /// The answer as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) nodes: NodesArg,
}

fn parse_height(text: &str) -> Result<Height, String> {
    let height = text.parse().ok().and_then(Height::new).filter(|height| *height != Height::ZERO);
    height.ok_or_else(|| "a height is a whole number from 1".to_owned())
}

fn parse_hash(text: &str) -> Result<Hash, String> {
    let bytes = hex::decode(text.trim_start_matches("0x")).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.map(Hash).ok_or_else(|| "a hash is 64 hex digits".to_owned())
}

/// Which home.
#[derive(Debug, Args)]
pub(crate) struct HomeArg {
    /// The node's home.  [default: ~/.lockstep]
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_HOME")]
    pub(crate) home: Option<PathBuf>,
}

/// Which nodes.
#[derive(Debug, Args)]
pub(crate) struct NodesArg {
    /// RPC endpoints, separated by commas: the next one is asked when one does not answer.
    #[arg(long = "node", value_name = "URL,...", value_delimiter = ',', default_value = NODE_DEFAULT, env = "LOCKSTEP_NODE")]
    pub(crate) urls: Vec<String>,
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a setting is written KEY=VALUE, as in rpc.laddr=127.0.0.1:26657")?;
    let key = key.trim();
    if key.is_empty() {
        return Err("no key stands before =; a setting is written KEY=VALUE, as in rpc.laddr=127.0.0.1:26657".to_owned());
    }
    Ok((key.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::Cli;

    /// No usual terminal is narrower: it would break lines that are to be pasted.
    const COLUMNS: usize = 80;

    /// Every example of a help text, as words. A comment is set off by two spaces, an example that goes on by a backslash.
    fn examples(command: &clap::Command) -> Vec<Vec<String>> {
        let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
        let wide: Vec<&str> = help.lines().filter(|line| line.len() > COLUMNS).collect();
        assert!(wide.is_empty(), "a terminal would break {wide:#?}");
        let help = help.replace(" \\\n      ", " ");
        let starts = |line: &&str| line.starts_with("  ") && line.contains("lockstep ");
        let mut found: Vec<Vec<String>> = help
            .lines()
            .filter(starts)
            .map(|line| {
                let line = &line[line.find("lockstep ").expect("just seen")..];
                let line = line.split("  ").next().expect("a first part");
                line.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect()
            })
            .collect();
        found.extend(command.get_subcommands().flat_map(examples));
        found
    }

    #[test]
    fn every_example_of_the_help_is_a_command_line() {
        let examples = examples(&Cli::command());
        assert!(examples.len() > 25, "{}", examples.len());
        let refused = |words: &Vec<String>| Some(format!("{}: {}", words.join(" "), Cli::try_parse_from(words).err()?));
        let refused: Vec<String> = examples.iter().filter_map(refused).collect();
        assert!(refused.is_empty(), "{}", refused.join("\n"));
    }
}
