//! Homes that are taken, or whose files are damaged: a node starts with the right data, or says clearly why it does not.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lockstep_storage::disk::RealDisk;
use lockstep_storage::state::{StateDb, StateError};
use lockstep_tests::net::{Net, VALIDATORS, take_turn};
use lockstep_tests::program::{Process, command, folder, free_ports, run, text, wait_until};
use lockstep_tests::rpc::{Client, Place};
use rustix::process::Signal;
use tempfile::TempDir;

/// Damages that are tried per file: each starts a process.
const SAMPLES: usize = 24;

/// What a validator says whose log ends below what it signed.
const WAITS_FOR_PEERS: &str = "it signs nothing until peers have given it";

/// What a node says when nothing is left to be found of its state database.
const PAGES_VERIFY: &str = "every page of the state database verifies";

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
    /// It serves a prefix of what it had, and says that it waits for peers to give it the rest.
    Healed,
    /// It ended by itself, with this code and these words.
    Refused(Option<i32>, String),
}

impl Stopped {
    /// Makes a chain of one validator with some blocks, and stops it.
    fn new() -> Self {
        let folder = folder();
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
        // Most of the log lies below the state.
        let flush = "storage.flush_interval_blocks=10";
        let start = command(["start", "--home", text(home), "--set", &rpc, "--set", "p2p.laddr=127.0.0.1:1", "--set", flush]);
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

    /// Starts on this home: right data within patience, all of it or a prefix, or an end with a reason. Anything else fails the
    /// test.
    #[track_caller]
    fn outcome(&self, home: &Path, what: &str) -> Outcome {
        let mut node = self.start(home);
        let mut client = self.client();
        let ended = wait_until(what, || {
            if let Some(code) = node.exit_code() {
                return Some(Some(code));
            }
            let height = client.height().ok()?;
            let log = node.log();
            // What is found later has the node open its home again: it does not serve meanwhile.
            (log.contains(PAGES_VERIFY) && (height >= self.height || log.contains(WAITS_FOR_PEERS))).then_some(None)
        });
        let log = node.log();
        assert!(!log.contains("panicked"), "{what}: a panic:\n{log}");
        if let Some(code) = ended {
            assert_ne!(code, Some(0), "{what}: it ended as if all was well:\n{log}");
            assert!(code.is_some(), "{what}: it died of a signal:\n{log}");
            return Outcome::Refused(code, log);
        }
        let tip = client.height().expect(what);
        let base = client.base().expect(what);
        assert!(tip >= self.height || log.contains("was damaged"), "{what}: it lost blocks and does not say so:\n{log}");
        assert!(
            base <= 1 || log.contains("the log begins behind it now"),
            "{what}: it begins with block {base}, and does not say so:\n{log}"
        );
        let is_here = |height: u64| (base.max(1)..=tip).contains(&height);
        for (height, hashes) in &self.hashes {
            match client.hashes(*height) {
                Ok(found) => assert_eq!(found, *hashes, "{what}: height {height}"),
                Err(error) => assert!(!is_here(*height), "{what}: height {height} of {base} to {tip}: {error}"),
            }
        }
        for (hash, place) in &self.places {
            match client.place(hash) {
                Ok(found) => assert_eq!(found, *place, "{what}: {hash}"),
                // Of a log that begins late, there are no results of its first block.
                Err(error) => assert!(
                    !is_here(place.height) || (base > 1 && place.height == base),
                    "{what}: {hash} of height {} of {base} to {tip}: {error}",
                    place.height
                ),
            }
        }
        if tip < self.height {
            return Outcome::Healed;
        }
        client.commit_tx("after=all").unwrap_or_else(|error| panic!("{what}: the chain goes on: {error}"));
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
    let folder = folder();
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
    assert!(log.contains("guard is missing") && log.contains("never an older copy"), "{log}");
}

#[test]
fn rot_in_the_block_log_the_state_and_the_guard_is_healed_and_never_believed() {
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
        let (mut right, mut healed) = (0, 0);
        for at in (0..used).step_by(used.div_ceil(SAMPLES)).chain([used - 1]) {
            let home = stopped.damaged(&path, |bytes| bytes[at] ^= 0x40);
            match stopped.outcome(&home, &format!("{path} with byte {at} changed")) {
                Outcome::Right => right += 1,
                // Nobody else has the last blocks of the only validator, so it waits.
                Outcome::Healed => healed += 1,
                Outcome::Refused(code, log) => panic!("{path}, byte {at}: it ended with {code:?}:\n{log}"),
            }
        }
        let above_state = if what == "block log" { SAMPLES / 3 } else { 0 };
        assert!(healed <= above_state, "{what}: the state leads on behind what is damaged below it; {healed} of {SAMPLES} lost blocks");
        figures.push(format!("{what} {right} right, {healed} cut down to a prefix"));
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
    figures.push(format!("guard {right} right"));
    println!("measured: one changed byte, then a start: {}", figures.join("; "));
}

/// Entries are believed for what they are. A page that only says where to look, and is wrong about it, is found before anything is written by
/// it: the node serves, and makes its state anew without ending.
#[test]
fn a_page_of_the_state_that_no_entry_lies_in_is_mended_after_the_start() {
    const PAGE: usize = 4_096;
    // Of redb's format: a page that names others begins with this byte, and has their checksums from here on.
    const BRANCH: u8 = 2;
    const CHECKSUMS: usize = 8;
    let _turn = take_turn();
    let stopped = Stopped::new();
    let good = fs::read(stopped.good().join("data/state.redb")).expect("the file");
    let branches = (0..good.len()).step_by(PAGE).filter(|page| good[*page] == BRANCH);
    let damaged = branches.map(|page| stopped.damaged("data/state.redb", |bytes| bytes[page + CHECKSUMS] ^= 0x40)).find(|home| {
        let disk = RealDisk::new(home.join("data")).expect("a data folder");
        let mut state = StateDb::open_to_read(&disk, "state.redb").expect("nothing is looked at yet");
        state.load(|_, _, _| ()).is_ok_and(|flushed| flushed.is_some()) && matches!(state.check_pages(), Err(StateError::Damaged { .. }))
    });
    let home = damaged.expect("a page above those with entries");
    let outcome = stopped.outcome(&home, "a page of the state that names others");
    assert!(matches!(outcome, Outcome::Right), "{outcome:?}");
    let log = fs::read_to_string(home.with_extension("log")).expect("its log");
    assert!(log.contains("the node is opened again to make it anew"), "{log}");
    assert!(log.contains("the state database was damaged or cannot be used") && home.join("data/damaged/state.redb-1").exists(), "{log}");
}

/// It signed for the block and has decided it; in its place it can decide nothing, and nobody else has it.
#[test]
fn an_only_validator_that_lost_its_newest_block_says_that_its_chain_stands() {
    let _turn = take_turn();
    let stopped = Stopped::new();
    let log = stopped.good().join("data/log");
    let names = fs::read_dir(log).expect("a log").map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let newest = names.filter(|name| name.ends_with(".seg")).max().expect("a segment");
    let mut decided = 0;
    let home = stopped.damaged(&format!("data/log/{newest}"), |bytes| {
        // An empty block may follow those that the client waited for, and a body that nobody decided follow that.
        let records = records(bytes);
        decided = records.iter().filter(|record| record.kind == DECISION).map(|record| record.height).max().expect("a decision");
        let body = records.iter().find(|record| record.kind == BODY && record.height == decided).expect("its body");
        bytes[body.payload_at] ^= 0x40;
    });
    let node = stopped.start(&home);
    let mut client = stopped.client();
    // It may have been stopped when it had voted for the next height, too.
    let lost = ["signed for a block that its disk has lost since", WAITS_FOR_PEERS];
    wait_until("it says so", || lost.iter().any(|words| node.log().contains(words)).then_some(()));
    assert_eq!(wait_until("it serves", || client.height().ok()), decided - 1);
    let told = run(["status", "--node", &format!("http://127.0.0.1:{}", stopped.port)]).done();
    assert!(told.contains("in step     NO: it is the only validator, and has lost blocks that it had decided"), "{told}");
    assert!(told.contains("signs       NO:"), "{told}");
}

/// What `docs/format-storage.md` says of a record's kind.
const BODY: u8 = 1;
const DECISION: u8 = 4;

/// A record of a segment.
struct Record {
    kind: u8,
    height: u64,
    payload_at: usize,
}

/// The records of a segment, in their order.
fn records(segment: &[u8]) -> Vec<Record> {
    let (segment_header, record_header) = (80, 108);
    let mut records = Vec::new();
    let mut at = segment_header;
    while segment.get(at..at + 4) == Some(b"LSRC") {
        let height = u64::from_le_bytes(segment[at + 24..at + 32].try_into().expect("eight bytes"));
        let payload_bytes = u32::from_le_bytes(segment[at + 36..at + 40].try_into().expect("four bytes"));
        records.push(Record { kind: segment[at + 5], height, payload_at: at + record_header });
        at += record_header + payload_bytes as usize;
    }
    records
}

/// Changes bytes of a validator's file while it is stopped.
fn damage_file(path: &Path, damage: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the file");
    damage(&mut bytes);
    fs::write(path, bytes).expect("a file of ours");
}

/// The newest file of the log of this kind: what opening reads whole. Of older segments it reads the headers of records, and the rest is
/// verified when somebody asks for it.
fn newest(log: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(log).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|found| found == extension)).max().expect("a file of this kind")
}

/// The middle of what is used of a file: what was made ahead of time is zeros.
fn flip_in_the_middle(bytes: &mut [u8]) {
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("not empty") + 1;
    bytes[used / 2] ^= 0x10;
}

/// Every place of a text: a database keeps old pages, and one of these is the one that counts.
fn flip_every(bytes: &mut [u8], text: &[u8]) {
    let places: Vec<usize> = (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text)).collect();
    assert!(!places.is_empty(), "the database holds what was committed");
    places.into_iter().for_each(|at| bytes[at] ^= 0x10);
}

#[test]
fn a_validator_heals_its_files_catches_up_and_votes_again_by_itself() {
    const VICTIM: usize = 2;
    let mut net = Net::new();
    for index in 0..VALIDATORS {
        // The state is written often, so that there is some to rot.
        damage_file(&net.home(index).join("config/config.toml"), |bytes| {
            let text = String::from_utf8(std::mem::take(bytes)).expect("text");
            assert!(text.contains("flush_interval_blocks = 1000"), "{text}");
            *bytes = text.replace("flush_interval_blocks = 1000", "flush_interval_blocks = 5").into_bytes();
        });
    }
    net.start_all();
    net.wait_all("the first block", |height| height >= 1);
    let address = net.address(VICTIM);
    type Damage = fn(&mut Vec<u8>);
    type PathIn = fn(&Path) -> PathBuf;
    let cases: [(PathIn, Damage, &str); 3] = [
        (|data| newest(&data.join("log"), "seg"), |bytes| flip_in_the_middle(bytes), "the block log was damaged"),
        (|data| data.join("state.redb"), |bytes| flip_every(bytes, b"rotting"), "the state database was damaged"),
        (|data| newest(&data.join("log"), "res"), |bytes| flip_in_the_middle(bytes), "the results of execution were damaged"),
    ];
    let mut places = Vec::new();
    for (case, (path_in, damage, says)) in cases.into_iter().enumerate() {
        for number in 0..12 {
            let (hash, _) = net.commit_tx(VICTIM, &format!("rotting{case}.{number}={number}"));
            places.push((hash.clone(), net.client(VICTIM).place(&hash).expect("it is there")));
        }
        net.stop(VICTIM);
        net.commit_tx(0, &format!("while{case}=away"));
        let path = path_in(&net.home(VICTIM).join("data"));
        damage_file(&path, damage);
        let path = path.display();
        net.start(VICTIM);
        let started = Instant::now();
        let mut back = net.client(VICTIM);
        let mut other = net.client(0);
        let caught_up_at = wait_until("it has caught up", || {
            net.assert_alive();
            let own = back.height().ok()?;
            (own + 1 >= other.height().expect("it serves")).then_some(own)
        });
        let mut at = caught_up_at;
        let mut blocks = 0..;
        wait_until("it votes again", || {
            // An idle chain takes its time; this one is kept busy.
            other.commit_tx(&format!("busy{case}={}", blocks.next()?)).expect("three commit without it");
            let newest = other.height().expect("it serves");
            let signed = (at..newest).any(|height| other.signers(height).expect("a commit").contains(&address));
            at = newest.max(at);
            signed.then_some(())
        });
        println!("measured: {path} damaged: {:.2} s from the start to a vote in a commit", started.elapsed().as_secs_f64());
        let log = net.process(VICTIM).log();
        assert!(log.contains(says), "{path}: {says:?} is missing in:\n{log}");
        assert!(!log.contains("panicked"), "{path}:\n{log}");
        assert!(fs::read_dir(net.home(VICTIM).join("data/damaged")).expect("a folder").next().is_some(), "nothing is deleted");
        assert!(back.metric("lockstep_healed_files_total").expect("metrics") >= 1);
        for (hash, place) in &places {
            assert_eq!(back.place(hash).expect("it is there again"), *place, "{path}");
        }
        let tip = net.wait_all("the same height", |height| height >= caught_up_at).into_iter().min().expect("four nodes");
        net.assert_same((1..=tip).step_by(7).chain([tip]));
    }
}

/// Rot that is met while running: whoever asks for what is gone hears so, everything else is served, blocks go on, and the next
/// start verifies everything and heals it.
#[test]
fn rot_that_is_met_while_running_is_told_and_healed_by_a_restart() {
    const VICTIM: usize = 1;
    let mut net = Net::started();
    for number in 0..12 {
        net.commit_tx(VICTIM, &format!("running{number}={number}"));
    }
    let height = net.client(VICTIM).height().expect("it serves");
    // In place: the process goes on reading the same file.
    let path = net.home(VICTIM).join("data/log/00000000000000000001.seg");
    let mut byte = [0];
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("a segment");
    // In the body of the first block: behind the segment's head and the record's.
    const AT: u64 = 80 + 108 + 40;
    file.read_exact_at(&mut byte, AT).expect("a body");
    file.write_all_at(&[byte[0] ^ 1], AT).expect("a file of ours");
    let mut client = net.client(VICTIM);
    let refused = client.hashes(1).expect_err("its block is gone").to_string();
    assert!(refused.contains("does not verify"), "{refused}");
    assert!(client.metric("lockstep_damaged_reads_total").expect("metrics") >= 1);
    assert_eq!(client.hashes(height).expect("others are there"), net.client(0).hashes(height).expect("it has all"));
    net.commit_tx(VICTIM, "blocks go on=yes");
    assert!(net.process(VICTIM).log().contains("cannot be read back"), "the operator hears of it");
    net.stop(VICTIM);
    net.start(VICTIM);
    let mut back = net.client(VICTIM);
    let wanted = net.client(0).hashes(1).expect("it has all");
    wait_until("the block is there again", || back.hashes(1).ok().filter(|hashes| *hashes == wanted));
    wait_until("and all after it", || back.height().ok().filter(|now| *now > height));
    net.commit_tx(VICTIM, "it votes=or follows");
    net.assert_same((1..=height).step_by(5).chain([height]));
}
