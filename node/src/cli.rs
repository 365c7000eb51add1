//! The command line, and the help that teaches it.

mod history;
mod keys;
mod snapshot;
mod token;
mod validator;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use lockstep_types::{Hash, Height};

use crate::config::parse_duration;
pub(crate) use history::{ReplayArgs, RollbackArgs};
pub(crate) use keys::{GenerateArgs, ImportArgs, KeyKind, KeysCommand};
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

/// Make the home of a new node: a chain of one validator, or a node of a chain that exists.
///
/// Writes config/config.toml (every key with its meaning, bounds and default), config/genesis.json, the two keys (readable by
/// their owner alone) and a vote guard in data/, which remembers what the key signed. Nothing is ever overwritten.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep init                                a chain of one validator
  lockstep init --home n0 --chain-id my-chain  ... elsewhere, with a name
  lockstep init --home n1 --from http://127.0.0.1:26657
                                               a node of an existing chain: that
                                               one tells its genesis and peers
  lockstep init --home n2 --genesis n0/config/genesis.json
                                               the same, from a file
  lockstep init --home v --genesis n0/config/genesis.json \\
      --import-key priv_validator_key.json \\
      --import-state priv_validator_state.json
                                               a validator that moves here, with
                                               what it signed so far

A node of an existing chain that was made with --genesis does not know the
others. Name some before it starts, under [p2p] in its config/config.toml:
  persistent_peers = [\"NODE_ID@HOST:26656\"]
NODE_ID is shown by `lockstep keys show` in their home and by `lockstep status`.

A node that --from asks is believed: it could name another chain. Compare the
genesis hash that is printed with somebody whom you trust, or give it:
--genesis-hash. Such a node follows the chain; `lockstep validator join` asks
that it validate.

A key must sign in one place only. Stop the old node before you import its
state, and never start it again.")]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub(crate) home: HomeArg,
    /// Name of the new chain, 1 to 50 characters of A-Z a-z 0-9 . _ -  [default: lockstep- and a random suffix]
    #[arg(long, value_name = "ID", conflicts_with_all = ["genesis", "from"])]
    pub(crate) chain_id: Option<String>,
    /// The node's name, for people.
    #[arg(long, value_name = "NAME", default_value = "node")]
    pub(crate) moniker: String,
    /// Genesis of an existing chain (CometBFT's format or ours), instead of a new one.
    #[arg(long, value_name = "FILE", conflicts_with = "rules")]
    pub(crate) genesis: Option<PathBuf>,
    /// A node of an existing chain, by its RPC address: it tells the genesis and where its peers are. A home beside it on the same
    /// machine gets ports of its own.
    #[arg(long, value_name = "URL", conflicts_with_all = ["genesis", "rules"])]
    pub(crate) from: Option<String>,
    /// The genesis hash that you trust, 64 hex digits: another genesis is refused.
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    pub(crate) genesis_hash: Option<Hash>,
    /// The validator's key, from another home or from CometBFT, instead of a new one.
    #[arg(long, value_name = "FILE", requires = "import_state")]
    pub(crate) import_key: Option<PathBuf>,
    /// What the key signed elsewhere (priv_validator_state.json): the guard starts above it.
    #[arg(long, value_name = "FILE")]
    pub(crate) import_state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) rules: RulesArgs,
}

/// What a new chain runs and who may validate on it. It stands in genesis (`app_state`), for as long as the chain exists.
#[derive(Debug, Default, Args)]
#[group(id = "rules", multiple = true)]
#[command(next_help_heading = "A new chain")]
pub(crate) struct RulesArgs {
    /// The application: kv stores key=value; token has accounts, signed transfers and fees  [default: kv]
    #[arg(long, value_enum)]
    pub(crate) app: Option<AppKind>,
    /// The application's part of genesis, a JSON object, instead of what --app writes: an application of your own, or other first
    /// accounts of the token than the validators'
    #[arg(long, value_name = "FILE", conflicts_with = "app")]
    pub(crate) app_state: Option<PathBuf>,
    /// Who admits further validators  [default: vote; localnet: open]
    #[arg(long, value_enum)]
    pub(crate) admission: Option<AdmissionKind>,
    /// Keys that may remove validators, and with --admission authority admit them: public keys in base64, as `lockstep keys` shows
    /// them, separated by commas
    #[arg(long, value_name = "KEY,...", value_delimiter = ',')]
    pub(crate) authority: Vec<String>,
    /// How many of these keys have to agree  [default: more than half of them]
    #[arg(long, value_name = "M", requires = "authority", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) authority_threshold: Option<u32>,
    /// Heights for which a request to join is good, 1 to 1000; a validator counts as live that signed one of the last 20, or of so many if they are fewer
    /// [default: 1000, which at the least block interval of 20 ms is 20 s]
    #[arg(long, value_name = "HEIGHTS")]
    pub(crate) live_window: Option<u64>,
    /// Heights in which at most a third of the power moves, or one validator, 1 to 10000: light clients follow slow changes, and
    /// newcomers who all lie stay too few  [default: 1000; localnet: 1, so that nobody waits]
    #[arg(long, value_name = "HEIGHTS")]
    pub(crate) power_window: Option<u64>,
    /// Heights after which an absent validator that missed all its turns loses its power, 0 for never; it returns by
    /// `lockstep validator join`, without approval  [default: 1000000, which under load is some hours]
    #[arg(long, value_name = "HEIGHTS")]
    pub(crate) absence_window: Option<u64>,
    /// Every so many heights is a checkpoint, of which nodes make snapshots; 0 for none but on request  [default: 50000; localnet: 1000]
    #[arg(long, value_name = "HEIGHTS", help_heading = "A new chain")]
    pub(crate) checkpoint_interval: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AppKind {
    /// key=value; what a newcomer tries first
    Kv,
    /// Accounts, nonces, signed transfers, fees. Each first validator's key has an account with 1000000000
    Token,
}

/// Why `vote` is what a network gets when nothing is said: no key outside of it can change who runs it, and none that is stolen can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AdmissionKind {
    /// Validators with more than two thirds of the power approve: no key outside of the network can change who runs it
    Vote,
    /// So many of the authority's keys as its threshold says: for a network with one owner
    Authority,
    /// Nobody has to: for experiments, since whoever joins often enough has a third of the power
    Open,
}

/// Make the homes of a network, to be carried to its machines.
///
/// One folder per validator, with its keys, the common genesis, and the others as persistent peers. Blocks come at least
/// 20 ms apart (genesis: lockstep.min_block_interval_ms).
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep testnet --validators 4 --output net --starting-ip 10.0.0.10
      10.0.0.10 to 10.0.0.13, ports 26656 (peers) and 26657 (clients, loopback)
  lockstep testnet --validators 3 --output net3 \\
      --hosts a.example,b.example,c.example:27000

Carry net/node0 to the first machine, and so on; then on each:
  lockstep start --home node0
The folders hold secret keys: carry them over a channel that nobody reads, and
delete what stays behind.")]
#[command(group(ArgGroup::new("places").required(true).multiple(false).args(["hosts", "starting_ip"])))]
pub(crate) struct TestnetArgs {
    /// How many validators, 1 to 100.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) validators: u16,
    /// Where the homes go: node0, node1 and so on.
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// A host for each validator, with or without a port for peers; separated by commas.
    #[arg(long, value_name = "HOST[:PORT],...", value_delimiter = ',')]
    pub(crate) hosts: Vec<String>,
    /// Address of the first validator; the others follow, one up each.
    #[arg(long, value_name = "IP")]
    pub(crate) starting_ip: Option<std::net::IpAddr>,
    /// Name of the chain.  [default: lockstep- and a random suffix]
    #[arg(long, value_name = "ID")]
    pub(crate) chain_id: Option<String>,
    #[command(flatten)]
    pub(crate) rules: RulesArgs,
}

/// Run a whole network on this machine: one process per validator.
///
/// Validator i lives in DIR/node<i> and serves clients on port rpc-port + i. On a terminal a live table shows the network;
/// elsewhere lines do. Ctrl-C stops all of it cleanly, and the same command on the same folder goes on where it stopped.
/// A block is made as soon as there is a transaction, as fast as the machine can; without any, an empty one every 10 s.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep localnet                       four validators in ./lockstep-localnet
  lockstep localnet --validators 7 --home net7 --rpc-port 30000
  lockstep localnet --load 500 --for 30s  under 500 transactions a second

Try to break it:    kill -9 $(cat lockstep-localnet/node2/pid)
and bring it back:  lockstep start --home lockstep-localnet/node2

A fifth joins while it runs; it is one of the network from then on:
  lockstep init --from http://127.0.0.1:26657 --home lockstep-localnet/node4
  lockstep start --home lockstep-localnet/node4
  lockstep validator join --home lockstep-localnet/node4

Logs: DIR/node<i>/node.log")]
pub(crate) struct LocalnetArgs {
    /// How many validators, 1 to 100.  [default: 4, or as many as the folder has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) validators: Option<u16>,
    /// Where the homes are, or go.
    #[arg(long, value_name = "DIR", default_value = "lockstep-localnet")]
    pub(crate) home: PathBuf,
    /// Port for clients of validator 0; the others follow.  [default: 26657]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rpc_port: Option<u16>,
    /// Port for peers of validator 0; the others follow.  [default: rpc-port + 100]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) p2p_port: Option<u16>,
    /// Name of the chain.  [default: lockstep- and a random suffix]
    #[arg(long, value_name = "ID")]
    pub(crate) chain_id: Option<String>,
    /// Stop after this time, counted from when all validators are up.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) duration: Option<Duration>,
    /// Submit this many transactions a second, over all validators.
    #[arg(long, value_name = "TX_PER_S", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) load: Option<u32>,
    #[command(flatten)]
    pub(crate) rules: RulesArgs,
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

/// Measure a network from outside, open loop.
///
/// Transactions arrive on a schedule that does not wait for answers, and each latency counts from the scheduled moment: what
/// queues up behind a slow network is in the figures. Transactions are unique key=value pairs, padded to --size.
///
/// With --via commit each request waits for its block, and the answer's arrival is the commit. With sync or async the blocks
/// are followed at the first endpoint, and a transaction is committed when its block is read there.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  lockstep bench --endpoints http://127.0.0.1:26657,http://127.0.0.1:26658 \\
      --rate 50 --for 60s                           light load: latency
  lockstep bench --rate 20000 --batch 50 --for 30s  saturation: throughput")]
pub(crate) struct BenchArgs {
    /// RPC endpoints, separated by commas; connections are spread over them.
    #[arg(long, value_name = "URL,...", value_delimiter = ',', default_value = NODE_DEFAULT, env = "LOCKSTEP_NODE")]
    pub(crate) endpoints: Vec<String>,
    /// Transactions a second.
    #[arg(long, value_name = "R", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// Bytes of a transaction.
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(40..=65_536))]
    pub(crate) size: u32,
    /// Connections over all endpoints.
    #[arg(long, value_name = "C", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) connections: u16,
    /// Transactions per request; they arrive together.
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) batch: u16,
    /// How long to measure.
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// How long to load before measuring.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(crate) warmup: Duration,
    /// How long to wait for what is under way at the end.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(crate) drain: Duration,
    /// How transactions are handed in.  [default: commit up to 500 a second one by one, else sync]
    #[arg(long, value_enum)]
    pub(crate) via: Option<Via>,
    /// Folder on the disk whose sync time is measured beside the figures.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) disk: PathBuf,
    /// The report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Via {
    /// broadcast_tx_commit: the answer is the commit.
    Commit,
    /// broadcast_tx_sync, and following the blocks.
    Sync,
    /// broadcast_tx_async, and following the blocks.
    Async,
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
