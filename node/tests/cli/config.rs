//! Every rule of the configuration, by its refusal: field, value, rule.

use std::time::Duration;

use lockstep::Config;
use lockstep::config::LogFormat;

fn load(text: &str) -> Result<Config, String> {
    Config::load("config.toml", text, [], &[]).map_err(|error| error.to_string())
}

/// What breaks a rule, and what the answer must say of it.
const REFUSED: [(&str, &str); 88] = [
    ("moniker = \"\"", "moniker is \"\": must be text of 1 to 64"),
    ("moniker = 5", "moniker is 5: must be text"),
    ("moniker = \"a\\nb\"", "must be text of 1 to 64 printable"),
    ("moniker = \"é\"", "printable ASCII"),
    ("moniker = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"", "1 to 64"),
    ("log_level = \"loud\"", "log_level is \"loud\": must be error, warn"),
    ("log_level = \"\"", "must be error"),
    ("log_level = \"info,foo=\"", "must be error"),
    ("log_level = 3", "log_level is 3"),
    ("log_format = \"xml\"", "log_format is \"xml\": must be \"plain\" or \"json\""),
    ("log_format = true", "must be \"plain\" or \"json\""),
    // Keys and sections that do not exist.
    ("monicker = \"a\"", "monicker is not a known key; the closest known one is moniker"),
    ("[rpc]\nladdr_ = \"127.0.0.1:1\"", "rpc.laddr_ is not a known key; the closest known one is rpc.laddr"),
    ("[rcp]\nladdr = \"127.0.0.1:1\"", "rcp is not a known key; the closest known one is rpc"),
    ("[p2p]\npersistent_peer = []", "p2p.persistent_peer is not a known key; the closest known one is p2p.persistent_peers"),
    ("[consensus]\ntimeout_propose = \"3s\"", "consensus is not a known key"),
    ("[mempool]\nsize = 5000", "mempool.size is not a known key"),
    ("rpc = 5", "rpc is 5: must be a section, written [rpc]"),
    ("laddr = \"127.0.0.1:26657\"", "laddr is not a known key"),
    ("[rpc.limits]\nbatch = 1", "rpc.limits is not a known key"),
    // Not TOML.
    ("moniker = ", "config.toml: not TOML"),
    ("moniker = \"a\"\nmoniker = \"b\"", "not TOML"),
    ("[rpc", "not TOML"),
    ("\u{0}", "not TOML"),
    // Addresses.
    ("[rpc]\nladdr = \"localhost:26657\"", "rpc.laddr is \"localhost:26657\": must be an IP address and a port"),
    ("[rpc]\nladdr = \"127.0.0.1\"", "must be an IP address and a port"),
    ("[rpc]\nladdr = \"127.0.0.1:0\"", "a port of 1 to 65535"),
    ("[rpc]\nladdr = \"127.0.0.1:65536\"", "a port of 1 to 65535"),
    ("[rpc]\nladdr = 26657", "rpc.laddr is 26657"),
    ("[p2p]\nladdr = \"\"", "p2p.laddr is \"\""),
    ("[p2p]\nladdr = \"::1:26656\"", "p2p.laddr"),
    ("[p2p]\nladdr = \"127.0.0.1:26657\"", "p2p.laddr is \"127.0.0.1:26657\": must differ from rpc.laddr"),
    ("[p2p]\nexternal_address = \"example.org\"", "p2p.external_address is \"example.org\": must be empty, or host:port"),
    ("[p2p]\nexternal_address = \":26656\"", "must be empty, or host:port"),
    ("[p2p]\nexternal_address = \"a:0\"", "must be empty, or host:port"),
    ("[p2p]\npersistent_peers = \"a@b:1\"", "p2p.persistent_peers"),
    ("[p2p]\npersistent_peers = [\"127.0.0.1:26656\"]", "each \"nodeid@host:port\""),
    ("[p2p]\npersistent_peers = [\"00112233445566778899aabbccddeeff0011223@h:1\"]", "each \"nodeid@host:port\""),
    ("[p2p]\npersistent_peers = [\"00112233445566778899aabbccddeeff0011223Z@h:1\"]", "each \"nodeid@host:port\""),
    ("[p2p]\npersistent_peers = [\"00112233445566778899aabbccddeeff00112233@h:0\"]", "each \"nodeid@host:port\""),
    ("[p2p]\npersistent_peers = [7]", "each \"nodeid@host:port\""),
    ("[rpc]\nhosts = [\"http://a\"]", "rpc.hosts"),
    ("[rpc]\nhosts = [\"\"]", "each a host name without port"),
    ("[rpc]\nhosts = [\"a:1\"]", "each a host name without port"),
    ("[rpc]\ncors_origins = [\"wallet.example\"]", "rpc.cors_origins"),
    ("[rpc]\ncors_origins = [\"https://a/path\"]", "each \"*\", or a page's scheme and host"),
    ("[rpc]\ncors_origins = [\"https://\"]", "each \"*\", or a page's scheme and host"),
    // Counts and sizes.
    ("[rpc]\nconnections = 0", "rpc.connections is 0: must be a whole number from 1 to 65536"),
    ("[rpc]\nconnections = -1", "rpc.connections is -1"),
    ("[rpc]\nconnections = 65537", "rpc.connections is 65537"),
    ("[rpc]\nconnections = 1.5", "rpc.connections is 1.5"),
    ("[rpc]\nconnections = \"900\"", "rpc.connections is \"900\""),
    ("[rpc]\nbody_bytes = 0", "rpc.body_bytes is 0"),
    ("[rpc]\nbody_bytes = 9223372036854775807", "rpc.body_bytes is 9223372036854775807"),
    ("[rpc]\nbatch = 0", "rpc.batch is 0"),
    ("[rpc]\nreply_bytes = 1", "rpc.reply_bytes is 1"),
    ("[rpc]\nreaders = 0", "rpc.readers is 0"),
    ("[rpc]\nwebsocket_calls = 0", "rpc.websocket_calls is 0"),
    ("[p2p]\npeers_max = -1", "p2p.peers_max is -1"),
    ("[p2p]\nvalidators_max = 10001", "p2p.validators_max is 10001"),
    ("[p2p]\nper_ip_max = 0", "p2p.per_ip_max is 0"),
    ("[p2p]\npending_max = 0", "p2p.pending_max is 0"),
    ("[p2p]\npending_per_ip_max = 0", "p2p.pending_per_ip_max is 0"),
    ("[p2p]\npending_per_ip_max = 200", "p2p.pending_per_ip_max is 200: must be at most p2p.pending_max, which is 128"),
    ("[p2p]\ngossip_bytes_max = 0", "p2p.gossip_bytes_max is 0"),
    ("[p2p]\ngossip_bytes_max = 1048577", "p2p.gossip_bytes_max is 1048577"),
    ("[mempool]\nmax_txs = 0", "mempool.max_txs is 0"),
    ("[mempool]\nmax_tx_bytes = 0", "mempool.max_tx_bytes is 0"),
    ("[mempool]\nmax_bytes = 2048\nmax_tx_bytes = 4096", "mempool.max_bytes is 2048"),
    ("[mempool]\nmax_sender_bytes = 1", "mempool.max_sender_bytes is 1, and must be at least 1048576"),
    ("[mempool]\nmax_checking_bytes = 1", "mempool.max_checking_bytes is 1"),
    ("[mempool]\nmax_checking_txs = 0", "mempool.max_checking_txs is 0"),
    ("[storage]\nsegment_bytes = 0", "storage.segment_bytes is 0"),
    ("[storage]\nflush_interval_keys = 0", "storage.flush_interval_keys is 0"),
    ("[storage]\nflush_interval_blocks = 0", "storage.flush_interval_blocks is 0"),
    ("[runtime]\nworker_threads = 1025", "runtime.worker_threads is 1025"),
    // Durations: zero, negative, overlong, without a unit.
    ("[rpc]\ncommit_wait = \"0s\"", "rpc.commit_wait is \"0s\": must be a duration from 100ms to 10m"),
    ("[rpc]\ncommit_wait = \"-1s\"", "rpc.commit_wait is \"-1s\""),
    ("[rpc]\ncommit_wait = \"11m\"", "rpc.commit_wait is \"11m\""),
    ("[rpc]\ncommit_wait = \"10\"", "rpc.commit_wait is \"10\""),
    ("[rpc]\ncommit_wait = 10", "rpc.commit_wait is 10"),
    ("[rpc]\ncommit_wait = \"1.5s\"", "rpc.commit_wait is \"1.5s\""),
    ("[rpc]\ncommit_wait = \"99999999999999999999s\"", "rpc.commit_wait"),
    ("[rpc]\nheader_wait = \"25h\"", "must be a duration from 1s to 24h"),
    ("[rpc]\nbody_wait = \"0ms\"", "rpc.body_wait is \"0ms\""),
    ("[rpc]\nread_wait = \"0ms\"", "rpc.read_wait is \"0ms\""),
    ("[rpc]\nwrite_wait = \"2d\"", "rpc.write_wait is \"2d\""),
    ("[rpc]\nwebsocket_ping = \"30s\"", "rpc.websocket_silence is \"30s\": must be above rpc.websocket_ping, which is \"30s\""),
];

#[test]
fn what_breaks_a_rule_is_refused_with_field_value_and_rule() {
    for (text, says) in REFUSED {
        let error = load(text).expect_err(text);
        assert!(error.starts_with("config.toml: ") && error.contains(says), "{text:?} gives {error:?}, not {says:?}");
    }
}

#[test]
fn the_file_that_init_writes_is_the_default_and_names_every_key() {
    let text = Config::default().to_toml();
    assert_eq!(load(&text).expect("what we write"), Config::default());
    assert_eq!(load("").expect("nothing is said"), Config::default());
    let keys: Vec<String> = Config::reference().lines().skip(2).map(|line| line.split('`').nth(1).expect("a key").to_owned()).collect();
    for key in &keys {
        let name = key.rsplit('.').next().expect("a name");
        assert!(text.lines().any(|line| line.starts_with(&format!("{name} = "))), "{key} is missing in the file");
    }
    assert_eq!(text.lines().filter(|line| line.contains(" Default: ")).count(), keys.len(), "each key says its default");
}

#[test]
fn what_is_written_is_read_again() {
    let text = "moniker = \"a \\\"b\\\"\"\nlog_format = \"json\"\n[rpc]\nladdr = \"tcp://0.0.0.0:1\"\nhosts = [\"a\", \"b\"]\n\
                cors_origins = [\"*\"]\ncommit_wait = \"1500ms\"\n[p2p]\nladdr = \"[::]:2\"\nexternal_address = \"example.org:3\"\n\
                persistent_peers = [\"00112233445566778899aabbccddeeff00112233@h:1\", \"ffffffffffffffffffffffffffffffffffffffff@[::1]:2\"]";
    let config = load(text).expect("valid");
    assert_eq!((config.moniker.as_str(), config.log_format), ("a \"b\"", LogFormat::Json));
    assert_eq!(config.rpc.limits.commit_wait, Duration::from_millis(1_500));
    assert_eq!(config.p2p.persistent_peers.len(), 2);
    assert_eq!(load(&config.to_toml()).expect("what we write"), config);
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> { pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect() };
    let file = "moniker = \"file\"\n[mempool]\nmax_txs = 1\n[p2p]\npeers_max = 1";
    let variables = own(&[("LOCKSTEP_MONIKER", "variable"), ("LOCKSTEP_MEMPOOL_MAX_TXS", "2"), ("LOCKSTEP_HOME", "/x"), ("PATH", "/bin")]);
    let config = Config::load("f", file, variables, &own(&[("moniker", "flag")])).expect("valid");
    assert_eq!((config.moniker.as_str(), config.mempool.limits.max_txs, config.p2p.limits.peers_max), ("flag", 2, 1));
    let config = Config::load("f", "", own(&[("LOCKSTEP_RPC_HOSTS", "a, b,")]), &[]).expect("valid");
    assert_eq!(config.rpc.hosts, ["a", "b"]);

    let refused = |variables: &[(&str, &str)], flags: &[(&str, &str)]| {
        Config::load("f", "", own(variables), &own(flags)).expect_err("refused").to_string()
    };
    assert_eq!(
        refused(&[("LOCKSTEP_RPC_LADR", "x")], &[]),
        "environment: LOCKSTEP_RPC_LADR is not a known key; the closest known one is LOCKSTEP_RPC_LADDR"
    );
    assert!(refused(&[("LOCKSTEP_RPC_BATCH", "many")], &[]).starts_with("environment, LOCKSTEP_RPC_BATCH: rpc.batch is \"many\": must be"));
    assert!(refused(&[], &[("rpc.batch", "0")]).starts_with("--set rpc.batch: rpc.batch is \"0\": must be"));
    assert!(refused(&[], &[("--log-level", "loud")]).starts_with("--log-level: log_level is \"loud\": must be"));
    // Of two keys that do not go together, whoever set one of them is told; the file when it said both.
    assert!(refused(&[], &[("mempool.max_tx_bytes", "5000000")]).starts_with("--set mempool.max_tx_bytes: mempool.max_sender_bytes is"));
    assert!(
        refused(&[("LOCKSTEP_RPC_LADDR", "127.0.0.1:5")], &[("p2p.laddr", "127.0.0.1:5")])
            .starts_with("--set p2p.laddr and environment, LOCKSTEP_RPC_LADDR: p2p.laddr is")
    );
    assert!(refused(&[], &[("rpc.websocket_ping", "1m")]).starts_with("--set rpc.websocket_ping: rpc.websocket_silence is"));
    assert!(refused(&[], &[("rpc.bach", "1")]).contains("the closest known one is rpc.batch"));
}

#[test]
fn the_documentation_lists_every_key() {
    let manual = include_str!("../../../docs/operating.md");
    for row in Config::reference().lines() {
        assert!(manual.lines().any(|line| line == row), "docs/operating.md lacks this row:\n{row}");
    }
}
