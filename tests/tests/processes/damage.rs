//! Homes that are taken, or whose files are damaged: a node starts with the right data, or says clearly why it does not.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use lockstep_tests::net::take_turn;
use lockstep_tests::program::{Process, command, free_ports, run, text, wait_until};
use lockstep_tests::rpc::{Client, Place};
use rustix::process::Signal;
use tempfile::TempDir;

/// Damages that are tried per file: each starts a process.
const SAMPLES: usize = 24;

/// What a stopped chain of one validator has.
struct Stopped {
    folder: TempDir,
    port: u16,
    height: u64,
    hashes: BTreeMap<u64, (String, String)>,
    places: BTreeMap<String, Place>,
}

/// What came of a start.
#[derive(Debug)]
enum Outcome {
    /// It serves, and has everything.
    Right,
    /// It ended by itself, with this code and these words.
    Refused(Option<i32>, String),
}

impl Stopped {
    /// Makes a chain of one validator with some blocks, and stops it.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().join("good");
        run(["init", "--home", text(&home)]).done();
        let mut stopped = Self { folder, port: free_ports(1)[0], height: 0, hashes: BTreeMap::new(), places: BTreeMap::new() };
        let mut node = stopped.start(&home);
        let mut client = stopped.client();
        wait_until("the node serves", || client.height().ok());
        for number in 0..40 {
            let (hash, height) = client.commit_tx(&format!("key{number}={}", "v".repeat(500))).expect("it commits");
            let place = client.place(&hash).expect("it is there");
            assert_eq!(place.height, height);
            stopped.places.insert(hash, place);
            stopped.height = height;
        }
        for height in 1..=stopped.height {
            stopped.hashes.insert(height, client.hashes(height).expect("a block"));
        }
        node.signal(Signal::TERM);
        assert_eq!(node.wait(), Some(0), "{}", node.log());
        stopped
    }

    fn good(&self) -> PathBuf {
        self.folder.path().join("good")
    }

    fn client(&self) -> Client {
        Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }

    fn start(&self, home: &Path) -> Process {
        let rpc = format!("rpc.laddr=127.0.0.1:{}", self.port);
        let start = command(["start", "--home", text(home), "--set", &rpc, "--set", "p2p.laddr=127.0.0.1:1"]);
        let log = home.with_extension("log");
        let _ = fs::remove_file(&log);
        Process::start(start, log)
    }

    /// A copy of the home with one file changed.
    fn damaged(&self, path: &str, damage: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let home = self.folder.path().join("damaged");
        let _ = fs::remove_dir_all(&home);
        copy(&self.good(), &home);
        let mut bytes = fs::read(home.join(path)).expect("the file");
        damage(&mut bytes);
        fs::write(home.join(path), bytes).expect("a copy of ours");
        home
    }

    /// Starts on this home: right data within patience, or an end with a reason. Anything else fails the test.
    #[track_caller]
    fn outcome(&self, home: &Path, what: &str) -> Outcome {
        let mut node = self.start(home);
        let mut client = self.client();
        let ended = wait_until(what, || {
            if let Some(code) = node.exit_code() {
                return Some(Some(code));
            }
            client.height().is_ok_and(|height| height >= self.height).then_some(None)
        });
        let log = node.log();
        assert!(!log.contains("panicked"), "{what}: a panic:\n{log}");
        if let Some(code) = ended {
            assert_ne!(code, Some(0), "{what}: it ended as if all was well:\n{log}");
            assert!(code.is_some(), "{what}: it died of a signal:\n{log}");
            return Outcome::Refused(code, log);
        }
        for (height, hashes) in &self.hashes {
            assert_eq!(client.hashes(*height).expect(what), *hashes, "{what}: height {height}");
        }
        for (hash, place) in &self.places {
            assert_eq!(client.place(hash).expect(what), *place, "{what}: {hash}");
        }
        Outcome::Right
    }
}

/// Copies a folder. Holes stay holes: the guard is 16 MiB of almost nothing.
fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").args(["-a", "--sparse=always", "--"]).args([from, to]).status();
    assert!(copied.expect("cp").success());
}

/// The message of a refusal names this, and ends with the code.
#[track_caller]
fn assert_refused(ended: &lockstep_tests::program::Ended, code: i32, says: &[&str], what: &str) {
    assert_eq!(ended.code, Some(code), "{what}: {}{}", ended.out, ended.err);
    assert!(!ended.err.contains("panicked"), "{what}: {}", ended.err);
    for part in says {
        assert!(ended.err.contains(part), "{what}: {part:?} is missing in:\n{}", ended.err);
    }
}

#[test]
fn a_second_process_on_one_home_is_refused_with_the_process_that_has_it() {
    let _turn = take_turn();
    let stopped = Stopped::new();
    let home = stopped.good();
    let mut node = stopped.start(&home);
    let mut client = stopped.client();
    wait_until("the node serves", || client.height().ok());
    let second = run(["start", "--home", text(&home), "--set", "rpc.laddr=127.0.0.1:2", "--set", "p2p.laddr=127.0.0.1:3"]);
    assert_refused(&second, 4, &["in use by process", &node.pid().to_string()], "a second process");
    assert_eq!(node.exit_code(), None, "the first goes on");
    node.signal(Signal::KILL);
    node.wait();
    // The lock dies with the process, the pid file does not matter.
    assert!(matches!(stopped.outcome(&home, "after kill -9"), Outcome::Right));
}

#[test]
fn damaged_settings_genesis_and_keys_are_refused_with_file_and_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("home");
    run(["init", "--home", text(&home), "--chain-id", "damage"]).done();
    let start = || run(["start", "--home", text(&home), "--set", "rpc.laddr=127.0.0.1:1"]);

    // By file: what is changed into what, and the field that the refusal names.
    let changes: &[(&str, &str, &str, &str)] = &[
        ("config/config.toml", "log_level = \"info\"", "log_level = \"loud\"", "log_level"),
        ("config/config.toml", "log_format = \"plain\"", "log_format = 7", "log_format"),
        ("config/config.toml", "batch = 100", "batch = 0", "rpc.batch"),
        ("config/config.toml", "batch = 100", "bach = 100", "bach"),
        ("config/config.toml", "commit_wait = \"10s\"", "commit_wait = \"10\"", "rpc.commit_wait"),
        ("config/config.toml", "persistent_peers = []", "persistent_peers = [\"me\"]", "p2p.persistent_peers"),
        ("config/config.toml", "[storage]", "[storage", "config.toml"),
        ("config/genesis.json", "\"chain_id\": \"damage\"", "\"chain_id\": \"\"", "chain_id"),
        ("config/genesis.json", "\"power\": \"10\"", "\"power\": \"-10\"", "power"),
        ("config/genesis.json", "\"power\": \"10\"", "\"power\": \"0\"", "power"),
        ("config/genesis.json", "\"initial_height\": \"1\"", "\"initial_height\": \"x\"", "initial_height"),
        ("config/genesis.json", "\"max_bytes\": \"", "\"max_bytes\": \"-", "max_bytes"),
        ("config/genesis.json", "\"validators\"", "\"valida\"", "valida"),
        ("config/priv_validator_key.json", "PrivKeyEd25519", "PrivKeySecp256k1", "priv_key"),
        ("config/priv_validator_key.json", "\"address\": \"", "\"address\": \"00", "address"),
        ("config/node_key.json", "PrivKeyEd25519", "PrivKeySecp256k1", "priv_key"),
    ];
    for (path, from, to, field) in changes {
        let good = fs::read_to_string(home.join(path)).expect("a file");
        assert!(good.contains(from), "{path} has no {from}:\n{good}");
        fs::write(home.join(path), good.replacen(from, to, 1)).expect("a file of ours");
        let name = Path::new(path).file_name().and_then(|name| name.to_str()).expect("a name");
        assert_refused(&start(), 3, &[name, field], &format!("{path} with {to}"));
        fs::write(home.join(path), good).expect("a file of ours");
    }

    // JSON that is cut anywhere is no JSON. A key's text may lose its last line feed.
    for path in ["config/genesis.json", "config/priv_validator_key.json", "config/node_key.json"] {
        let good = fs::read(home.join(path)).expect("a file");
        let name = Path::new(path).file_name().and_then(|name| name.to_str()).expect("a name");
        let whole = good.trim_ascii_end().len();
        for end in (0..whole).step_by(whole.div_ceil(SAMPLES)) {
            fs::write(home.join(path), &good[..end]).expect("a file of ours");
            assert_refused(&start(), 3, &[name], &format!("{path} cut after {end} bytes"));
        }
        let mut not_text = good.clone();
        not_text[whole / 2] = 0xff;
        fs::write(home.join(path), not_text).expect("a file of ours");
        assert_refused(&start(), 3, &[name], &format!("{path} that is not text"));
        fs::write(home.join(path), vec![b' '; 200 << 20]).expect("a file of ours");
        assert_refused(&start(), 3, &[name], &format!("{path} of 200 MiB"));
        // Written in place, so that a key stays its owner's alone.
        fs::write(home.join(path), &good).expect("a file of ours");
        let aside = folder.path().join("aside");
        fs::rename(home.join(path), &aside).expect("a file of ours");
        assert_refused(&start(), 3, &[name], &format!("{path} that is not there"));
        fs::rename(&aside, home.join(path)).expect("a file of ours");
    }
}

#[test]
fn a_lost_guard_is_refused_with_what_to_do() {
    let _turn = take_turn();
    let stopped = Stopped::new();
    let home = stopped.damaged("data/guard", |_| ());
    fs::remove_file(home.join("data/guard")).expect("a copy of ours");
    let Outcome::Refused(code, log) = stopped.outcome(&home, "no guard") else { panic!("it started without its guard") };
    assert_eq!(code, Some(3));
    assert!(log.contains("guard") && log.contains("lockstep init") && log.contains("priv_validator_state.json"), "{log}");
}

#[test]
fn rot_in_the_block_log_the_state_and_the_guard_is_healed_or_refused_and_never_believed() {
    let _turn = take_turn();
    let stopped = Stopped::new();
    let segment = fs::read_dir(stopped.good().join("data/log"))
        .expect("a log")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .find(|name| name.ends_with(".seg"))
        .expect("a segment");
    let mut figures = Vec::new();
    for (path, what) in [(format!("data/log/{segment}"), "block log"), ("data/state.redb".to_owned(), "state")] {
        let good = fs::read(stopped.good().join(&path)).expect("the file");
        // Files are made ahead of time: what follows the last byte in use is zeros.
        let used = good.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
        let (mut right, mut refused) = (0, 0);
        for at in (0..used).step_by(used.div_ceil(SAMPLES)).chain([used - 1]) {
            let home = stopped.damaged(&path, |bytes| bytes[at] ^= 0x40);
            match stopped.outcome(&home, &format!("{path} with byte {at} changed")) {
                Outcome::Right => right += 1,
                Outcome::Refused(_, log) => {
                    assert!(log.contains("to do:"), "{path}, byte {at}: it says what to do:\n{log}");
                    refused += 1;
                }
            }
        }
        figures.push(format!("{what} {right} right, {refused} refused"));
    }

    // Each copy of the guard in turn: the others have what it had.
    const COPY_BYTES: usize = 4 << 20;
    const HEAD_AND_RECORD: usize = 160;
    let mut right = 0;
    for copy in 0..4 {
        for within in (0..HEAD_AND_RECORD).step_by(HEAD_AND_RECORD / 5) {
            let home = stopped.damaged("data/guard", |bytes| bytes[copy * COPY_BYTES + within] ^= 0x40);
            let outcome = stopped.outcome(&home, &format!("copy {copy} of the guard with byte {within} changed"));
            assert!(matches!(outcome, Outcome::Right), "one copy of four is never missed: {outcome:?}");
            right += 1;
        }
    }
    figures.push(format!("guard {right} right, 0 refused"));
    println!("measured: one changed byte, then a start: {}", figures.join("; "));
}
