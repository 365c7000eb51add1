//! Configuration: what is local to one node. What all nodes of a chain share is in genesis.
//!
//! One TOML file, overridden by environment variables, overridden by flags. Every key exists in one table (`keys`) with
//! its bounds; a key that does not exist is refused by name, a value that breaks its rule is refused with both.

mod keys;
mod value;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use lockstep_network::PeerAddr;
use lockstep_storage::log::SEGMENT_BYTES_DEFAULT;

use crate::error::{Exit, NodeError};
use keys::{KEYS, Key, SECTIONS};
use value::Given;
pub use value::parse_duration;
pub(crate) use value::show_duration;

/// Where clients are served when nothing else is said.
pub const RPC_PORT: u16 = 26_657;
/// Where peers connect when nothing else is said.
pub const P2P_PORT: u16 = 26_656;
/// Environment variables that are no settings: they stand for flags.
const FLAG_VARIABLES: [&str; 2] = ["LOCKSTEP_HOME", "LOCKSTEP_NODE"];
/// What a closest key may differ by, beside half of its length, to be worth suggesting.
const TYPO_MAX: usize = 4;
/// Characters of an unknown name that are compared with the known ones.
const NAME_COMPARED_MAX: usize = 64;

/// Everything that is local to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node's name, for people.
    pub moniker: String,
    /// What is logged.
    pub log_level: LogFilter,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Clients.
    pub rpc: RpcConfig,
    /// Peers.
    pub p2p: P2pConfig,
    /// Waiting transactions.
    pub mempool: MempoolConfig,
    /// Files.
    pub storage: StorageConfig,
    /// Threads.
    pub runtime: RuntimeConfig,
}

/// How clients are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcConfig {
    /// Where.
    pub laddr: SocketAddr,
    /// Host names by which a loopback server may be called.
    pub hosts: Vec<String>,
    /// Web pages that may call.
    pub cors_origins: Vec<Origin>,
    /// Bounds.
    pub limits: lockstep_rpc::Limits,
}

/// How peers are met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct P2pConfig {
    /// Where they connect.
    pub laddr: SocketAddr,
    /// What they are told to dial.
    pub external_address: ExternalAddress,
    /// Peers that are dialled for ever.
    pub persistent_peers: Vec<PeerAddr>,
    /// Bounds.
    pub limits: lockstep_network::Limits,
}

/// How transactions wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Bounds.
    pub limits: lockstep_mempool::Limits,
}

/// How files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// A segment of the block log of this many bytes is closed at the next height.
    pub segment_bytes: u64,
    /// State is flushed after this many changed keys.
    pub flush_interval_keys: u64,
    /// State is flushed after this many blocks.
    pub flush_interval_blocks: u64,
    /// Snapshots that are kept; 0 for making none.
    pub keep_snapshots: usize,
    /// Blocks that are kept, at least; 0 for all.
    pub keep_blocks: u64,
}

/// Threads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Threads for sockets and clients; 0 for as many as there are cores.
    pub worker_threads: usize,
}

/// What is logged, as `tracing` filters are written. Checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

/// How it is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Plain,
    /// One JSON object per line.
    Json,
}

/// `host:port`, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExternalAddress(pub Option<String>);

/// A web page's origin, or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl LogFilter {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Origin {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            moniker: "node".to_owned(),
            log_level: LogFilter("info".to_owned()),
            log_format: LogFormat::Plain,
            rpc: RpcConfig {
                laddr: (Ipv4Addr::LOCALHOST, RPC_PORT).into(),
                hosts: Vec::new(),
                cors_origins: Vec::new(),
                limits: lockstep_rpc::Limits::default(),
            },
            p2p: P2pConfig {
                laddr: (Ipv4Addr::UNSPECIFIED, P2P_PORT).into(),
                external_address: ExternalAddress(None),
                persistent_peers: Vec::new(),
                limits: lockstep_network::Limits::default(),
            },
            mempool: MempoolConfig::default(),
            // 100,000 keys cost some 4 µs each and a third of a second of replay; the blocks bound the replay of a chain
            // whose blocks change little.
            storage: StorageConfig {
                segment_bytes: SEGMENT_BYTES_DEFAULT,
                flush_interval_keys: 100_000,
                flush_interval_blocks: 1_000,
                // The one that others may be fetching when the next is made, and that one.
                keep_snapshots: 2,
                keep_blocks: 0,
            },
            runtime: RuntimeConfig::default(),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was said: the file, a variable, a flag.
    source: String,
    /// What is wrong, naming key, value and rule.
    what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.what)
    }
}

impl std::error::Error for ConfigError {}

impl From<ConfigError> for NodeError {
    fn from(error: ConfigError) -> Self {
        Self::new(Exit::Refused, error).next("correct it; docs/operating.md lists every key, and lockstep init writes a commented file")
    }
}

impl Config {
    /// The configuration of a file, overridden by environment variables (`LOCKSTEP_RPC_LADDR` for `rpc.laddr`), overridden by
    /// `overrides`: key and value, as `--set` gives them, or a flag of its own and its value (`--log-level`).
    ///
    /// # Errors
    /// The first key that does not exist or value that breaks its rule.
    pub fn load(
        file: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut sources = BTreeMap::new();
        config.read_toml(file, text)?;
        for (variable, value) in environment {
            if variable.starts_with("LOCKSTEP_") && !FLAG_VARIABLES.contains(&variable.as_str()) {
                let source = format!("environment, {variable}");
                let key = config.read_variable(&variable, &value, &source)?;
                sources.insert(key.path, source);
            }
        }
        for (name, value) in overrides {
            let (source, path) = match name.strip_prefix("--") {
                Some(flag) => (name.clone(), flag.replace('-', "_")),
                None => (format!("--set {name}"), name.clone()),
            };
            let key = find(&path).ok_or_else(|| unknown(&source, &path, KEYS.iter().map(|key| key.path.to_owned())))?;
            config.set(&source, key, Given::Text(value))?;
            sources.insert(key.path, source);
        }
        config.check().map_err(|(keys, what)| {
            // Each alone keeps its rule. Who set one of them beside the file is who has to look.
            let beside: Vec<&str> = keys.iter().filter_map(|key| sources.get(key.as_str())).map(String::as_str).collect();
            ConfigError { source: if beside.is_empty() { file.to_owned() } else { beside.join(" and ") }, what }
        })?;
        Ok(config)
    }

    /// The file of this configuration: every key with its meaning, bounds and default.
    pub fn to_toml(&self) -> String {
        let defaults = Self::default();
        let mut text = String::from(
            "# The configuration of one Lockstep node: what is local to it. What all nodes of the chain share is in genesis.json.\n\
             # Each key can be overridden by an environment variable (rpc.laddr by LOCKSTEP_RPC_LADDR) and by a flag of\n\
             # lockstep start (--set rpc.laddr=127.0.0.1:26657). Unknown keys and values that break their rule are refused.\n",
        );
        for (section, about) in SECTIONS {
            if !section.is_empty() {
                let _ = write!(text, "\n# {about}\n[{section}]\n");
            }
            for key in KEYS.iter().filter(|key| key.section() == section) {
                let default = key.show(&defaults);
                let _ = write!(text, "\n# {}\n# Must be {}. Default: {default}\n", key.about, key.rule());
                let _ = writeln!(text, "{} = {}", key.name(), key.show(self));
            }
        }
        text
    }

    /// The reference of all keys, as a Markdown table.
    pub fn reference() -> String {
        let defaults = Self::default();
        let mut text = String::from("| key | default | must be | what |\n|---|---|---|---|\n");
        for key in &KEYS {
            let _ = writeln!(text, "| `{}` | `{}` | {} | {} |", key.path, key.show(&defaults), key.rule(), key.about);
        }
        text
    }

    fn read_toml(&mut self, file: &str, text: &str) -> Result<(), ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError {
            source: file.to_owned(),
            what: format!("not TOML: {}", error.to_string().trim_end()),
        })?;
        for (name, value) in &table {
            let section = SECTIONS.iter().any(|(section, _)| section == name && !section.is_empty());
            match value {
                toml::Value::Table(members) if section => {
                    for (member, value) in members {
                        self.read_member(file, &format!("{name}.{member}"), value)?;
                    }
                }
                _ if section => {
                    return Err(ConfigError {
                        source: file.to_owned(),
                        what: format!("{name} is {value}: must be a section, written [{name}]"),
                    });
                }
                _ => self.read_member(file, name, value)?,
            }
        }
        Ok(())
    }

    fn read_member(&mut self, file: &str, path: &str, value: &toml::Value) -> Result<(), ConfigError> {
        let known = KEYS.iter().map(|key| key.path).chain(SECTIONS.iter().map(|(section, _)| *section).filter(|name| !name.is_empty()));
        let key = find(path).ok_or_else(|| unknown(file, path, known.map(str::to_owned)))?;
        self.set(file, key, Given::Toml(value))
    }

    fn read_variable(&mut self, variable: &str, value: &str, source: &str) -> Result<&'static Key, ConfigError> {
        let key = KEYS.iter().find(|key| key.variable() == variable);
        let key = key.ok_or_else(|| unknown("environment", variable, KEYS.iter().map(Key::variable)))?;
        self.set(source, key, Given::Text(value))?;
        Ok(key)
    }

    fn set(&mut self, source: &str, key: &Key, given: Given<'_>) -> Result<(), ConfigError> {
        if key.set(self, given) {
            return Ok(());
        }
        let value = match given {
            Given::Toml(value) => value.to_string(),
            Given::Text(text) => format!("{text:?}"),
        };
        Err(ConfigError { source: source.to_owned(), what: format!("{} is {value}: must be {}", key.path, key.rule()) })
    }

    /// The rules between keys; which keys break one, and how.
    fn check(&self) -> Result<(), (Vec<String>, String)> {
        let refuse = |keys: [&str; 2], what: String| Err((keys.map(str::to_owned).to_vec(), what));
        if self.rpc.laddr == self.p2p.laddr {
            let what = format!("p2p.laddr is \"{}\": must differ from rpc.laddr, two listeners need two ports", self.p2p.laddr);
            return refuse(["p2p.laddr", "rpc.laddr"], what);
        }
        let (ping, silence) = (self.rpc.limits.websocket_ping, self.rpc.limits.websocket_silence);
        if silence <= ping {
            let [ping, silence] = [ping, silence].map(show_duration);
            let what = format!("rpc.websocket_silence is \"{silence}\": must be above rpc.websocket_ping, which is \"{ping}\"");
            return refuse(["rpc.websocket_silence", "rpc.websocket_ping"], what);
        }
        if self.p2p.limits.pending_per_ip_max > self.p2p.limits.pending_max {
            let (one, all) = (self.p2p.limits.pending_per_ip_max, self.p2p.limits.pending_max);
            let what = format!("p2p.pending_per_ip_max is {one}: must be at most p2p.pending_max, which is {all}");
            return refuse(["p2p.pending_per_ip_max", "p2p.pending_max"], what);
        }
        // The pool's own rules name the field that is too small first; what it is too small for is the largest transaction.
        self.mempool.limits.check().or_else(|what| {
            let name = format!("mempool.{}", what.split(' ').next().unwrap_or_default());
            refuse([&name, "mempool.max_tx_bytes"], format!("mempool.{what}"))
        })
    }
}

fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

fn unknown(source: &str, name: &str, known: impl Iterator<Item = String>) -> ConfigError {
    // The name can come from a file of a megabyte.
    let comparable: String = name.chars().take(NAME_COMPARED_MAX).collect();
    let closest = known.map(|candidate| (distance(&comparable, &candidate), candidate)).min();
    let hint = match closest {
        Some((typos, candidate)) if typos <= TYPO_MAX && typos <= name.len() / 2 => format!("; the closest known one is {candidate}"),
        _ => String::new(),
    };
    ConfigError { source: source.to_owned(), what: format!("{name} is not a known key{hint}") }
}

/// Characters to insert, remove, replace or swap with their neighbour to make one text of the other (optimal string
/// alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(row[j - 1] + 1).min(rows[i - 1][j] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
