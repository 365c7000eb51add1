//! `lockstep init`, `testnet` and `localnet`: the command line of what makes homes, and what a new chain is given.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use lockstep_types::Hash;

use super::{HomeArg, parse_hash};
use crate::config::parse_duration;

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
