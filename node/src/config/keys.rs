//! The table of settings: the one place that knows each key's name, meaning, bounds and place in [`Config`].
//!
//! The file that `lockstep init` writes, the reader, the environment's names, the messages and the reference in
//! `docs/operating.md` all come from it.

use super::value::{Bounds, Given, Setting};
use super::{Config, ExternalAddress, LogFilter, LogFormat, Origin};

use std::net::SocketAddr;
use std::time::Duration;

use lockstep_network::PeerAddr;
use lockstep_network::limits::{ADDRESS_BYTES_MAX, GOSSIP_BYTES_MAX, NAME_BYTES_MAX, PERSISTENT_PEERS_MAX};
use lockstep_replica::wire::SNAPSHOTS_MAX;

/// A setting.
pub(super) struct Key {
    /// `section.name`; without a section at the top of the file.
    pub(super) path: &'static str,
    /// What it is, with its unit, for the file and the reference.
    pub(super) about: &'static str,
    bounds: Bounds,
    rule: fn(Bounds) -> String,
    read: fn(&mut Config, Given<'_>, Bounds) -> bool,
    show: fn(&Config) -> String,
}

impl Key {
    /// The section, empty at the top.
    pub(super) fn section(&self) -> &'static str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    /// The name within the section.
    pub(super) fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The environment variable that overrides it.
    pub(super) fn variable(&self) -> String {
        format!("LOCKSTEP_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// What a value must be.
    pub(super) fn rule(&self) -> String {
        (self.rule)(self.bounds)
    }

    /// Sets it; false when the rule is broken, and nothing is changed then.
    pub(super) fn set(&self, config: &mut Config, given: Given<'_>) -> bool {
        (self.read)(config, given, self.bounds)
    }

    /// Its value, as TOML.
    pub(super) fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }
}

macro_rules! key {
    ($path:literal, $kind:ty, $($field:ident).+, $bounds:expr, $about:literal) => {
        Key {
            path: $path,
            about: $about,
            bounds: $bounds,
            rule: <$kind as Setting>::rule,
            read: |config, given, bounds| <$kind as Setting>::read(given, bounds).map(|value| config.$($field).+ = value).is_some(),
            show: |config| Setting::show(&config.$($field).+),
        }
    };
}

/// What stands above each section of the file.
pub(super) const SECTIONS: [(&str, &str); 6] = [
    ("", ""),
    ("rpc", "JSON-RPC for clients: POST, URI and WebSocket on one port."),
    ("p2p", "The network of nodes: libp2p over TCP with Noise."),
    ("mempool", "Transactions that wait for a block. Bounds are local: nodes with different ones agree on every block."),
    ("storage", "The block log and the state database."),
    ("runtime", "Threads."),
];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Every setting, in the order of the file.
pub(super) static KEYS: [Key; 44] = [
    key!("moniker", String, moniker, (1, NAME_BYTES_MAX as u64), "The node's name, for people: peers and clients see it."),
    key!("log_level", LogFilter, log_level, (1, 1024), "What is logged to stderr: a level, or a list of module=level."),
    key!("log_format", LogFormat, log_format, (0, 0), "Lines for people, or one JSON object per line for a log collector."),
    key!(
        "rpc.laddr",
        SocketAddr,
        rpc.laddr,
        (0, 0),
        "Where clients are served. Anything but loopback lets strangers in: put a proxy with TLS and rate limits before it."
    ),
    key!(
        "rpc.hosts",
        Vec<String>,
        rpc.hosts,
        (0, 100),
        "Host names, without port, by which a server on loopback may be called beside localhost (against DNS rebinding)."
    ),
    key!("rpc.cors_origins", Vec<Origin>, rpc.cors_origins, (0, 100), "Web pages that may call from a browser. Empty: none, CORS is off."),
    key!("rpc.connections", usize, rpc.limits.connections, (1, 65_536), "Most connections of all kinds. Each needs a file descriptor."),
    key!(
        "rpc.per_ip_max",
        usize,
        rpc.limits.per_ip,
        (1, 65_536),
        "Of these, connections from one address, or one /64 network of IPv6; loopback is not counted."
    ),
    key!("rpc.body_bytes", usize, rpc.limits.body_bytes, (KIB, 256 * MIB), "Largest request, in bytes: a POST body or a WebSocket frame."),
    key!(
        "rpc.requests_bytes",
        usize,
        rpc.limits.requests_bytes,
        (MIB, GIB),
        "Bytes of all large requests, above 16 KiB, that come or are answered at a time. One of body_bytes always fits."
    ),
    key!("rpc.batch", usize, rpc.limits.batch, (1, 10_000), "Most requests in one batch."),
    key!(
        "rpc.reply_bytes",
        usize,
        rpc.limits.reply_bytes,
        (MIB, GIB),
        "Bytes of answers in one batch after which no further read of it is made."
    ),
    key!(
        "rpc.readers",
        usize,
        rpc.limits.readers,
        (1, 256),
        "Reads that run at a time. They share cores with consensus, and more do not finish sooner."
    ),
    key!(
        "rpc.read_wait",
        Duration,
        rpc.limits.read_wait,
        (1, 10 * MINUTE),
        "How long a read waits for its turn before the client hears that the node is overloaded."
    ),
    key!("rpc.commit_wait", Duration, rpc.limits.commit_wait, (100, 10 * MINUTE), "How long broadcast_tx_commit waits for the block."),
    key!(
        "rpc.header_wait",
        Duration,
        rpc.limits.header_wait,
        (SECOND, 24 * HOUR),
        "How long a request's headers may take, and a connection may idle between requests."
    ),
    key!("rpc.body_wait", Duration, rpc.limits.body_wait, (100, HOUR), "How long a request's body may take."),
    key!("rpc.write_wait", Duration, rpc.limits.write_wait, (100, HOUR), "How long a client may leave a reply untaken."),
    key!(
        "rpc.websocket_calls",
        usize,
        rpc.limits.websocket_calls,
        (1, 1_024),
        "Calls under way on one WebSocket; further frames wait in the socket."
    ),
    key!(
        "rpc.websocket_ping",
        Duration,
        rpc.limits.websocket_ping,
        (SECOND, HOUR),
        "Between pings. Clients give up when they hear nothing for 30s."
    ),
    key!(
        "rpc.websocket_silence",
        Duration,
        rpc.limits.websocket_silence,
        (2 * SECOND, HOUR),
        "Silence after which a WebSocket is dropped. Above websocket_ping."
    ),
    key!("p2p.laddr", SocketAddr, p2p.laddr, (0, 0), "Where peers connect."),
    key!(
        "p2p.external_address",
        ExternalAddress,
        p2p.external_address,
        (0, ADDRESS_BYTES_MAX as u64),
        "What peers are told to dial, where it differs from laddr (behind NAT). Empty: laddr."
    ),
    key!(
        "p2p.persistent_peers",
        Vec<PeerAddr>,
        p2p.persistent_peers,
        (0, PERSISTENT_PEERS_MAX as u64),
        "Peers that are dialled for ever. The own address among them is passed over, so all nodes can share one list."
    ),
    key!("p2p.peers_max", usize, p2p.limits.peers_max, (0, 10_000), "Connected peers that are neither persistent nor validators."),
    key!("p2p.validators_max", usize, p2p.limits.validators_max, (0, 10_000), "Further places that only validators may take."),
    key!("p2p.per_ip_max", usize, p2p.limits.per_ip_max, (1, 10_000), "Inbound connections from one address; loopback is not counted."),
    key!(
        "p2p.pending_per_ip_max",
        usize,
        p2p.limits.pending_per_ip_max,
        (1, 10_000),
        "Connections from one address that have not finished Noise."
    ),
    key!("p2p.pending_max", usize, p2p.limits.pending_max, (1, 10_000), "Connections from all addresses that have not finished Noise."),
    key!(
        "p2p.gossip_bytes_max",
        usize,
        p2p.limits.gossip_bytes_max,
        (KIB, GOSSIP_BYTES_MAX as u64),
        "Largest batch of transactions that is published at once, in bytes."
    ),
    key!(
        "mempool.max_txs",
        usize,
        mempool.limits.max_txs,
        (1, 10_000_000),
        "Most transactions in the pool. Beyond it clients hear that it is full."
    ),
    key!("mempool.max_bytes", usize, mempool.limits.max_bytes, (KIB, 16 * GIB), "Most bytes of these together."),
    key!("mempool.max_tx_bytes", usize, mempool.limits.max_tx_bytes, (1, 100 * MIB), "Largest transaction, in bytes."),
    key!(
        "mempool.max_sender_txs",
        usize,
        mempool.limits.max_sender_txs,
        (1, 10_000_000),
        "Most transactions of one sender, where the application names senders."
    ),
    key!(
        "mempool.max_sender_bytes",
        usize,
        mempool.limits.max_sender_bytes,
        (1, 16 * GIB),
        "Most bytes of one sender. At least max_tx_bytes."
    ),
    key!(
        "mempool.max_checking_txs",
        usize,
        mempool.limits.max_checking_txs,
        (1, 1_000_000),
        "Most transactions whose check is outstanding."
    ),
    key!(
        "mempool.max_checking_bytes",
        usize,
        mempool.limits.max_checking_bytes,
        (1, 4 * GIB),
        "Most bytes of these together. At least max_tx_bytes."
    ),
    key!(
        "mempool.cache_size",
        usize,
        mempool.limits.cache_size,
        (0, 100_000_000),
        "Committed transaction hashes that are remembered, to refuse repeats. 32 bytes each, and their index."
    ),
    key!(
        "storage.segment_bytes",
        u64,
        storage.segment_bytes,
        (MIB, 16 * GIB),
        "A segment of the block log of this many bytes is closed at the next height. Pruning drops whole segments."
    ),
    key!(
        "storage.flush_interval_keys",
        u64,
        storage.flush_interval_keys,
        (1, 100_000_000),
        "State is flushed to disk after this many changed keys. More: cheaper; fewer: a quicker start after a crash, which executes the blocks since; a node that is asked to stop flushes first."
    ),
    key!(
        "storage.flush_interval_blocks",
        u64,
        storage.flush_interval_blocks,
        (1, 1_000_000),
        "State is flushed after this many blocks at the latest, whatever they changed."
    ),
    key!(
        "storage.keep_snapshots",
        usize,
        storage.keep_snapshots,
        (0, SNAPSHOTS_MAX as u64),
        "Snapshots of checkpoints that are kept for replicas that join; they share what is the same. 0: none are made, and nothing is pruned, but below those that were made before."
    ),
    key!(
        "storage.keep_blocks",
        u64,
        storage.keep_blocks,
        (0, 1_000_000_000_000),
        "Older blocks are pruned, a segment at a time, once a snapshot and the state database stand above them; their headers stay until evidence of them has expired. 0: all are kept."
    ),
    key!(
        "runtime.worker_threads",
        usize,
        runtime.worker_threads,
        (0, 1_024),
        "Threads for sockets and clients. 0: as many as there are cores. The replica has one of its own."
    ),
];
