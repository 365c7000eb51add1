//! `lockstep bench`: the command line of measuring.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::NODE_DEFAULT;
use crate::config::parse_duration;

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
