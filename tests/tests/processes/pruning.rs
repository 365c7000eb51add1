//! A node that lets old blocks go: what it says of them, and a new node that begins with its snapshot, carried as a file.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use lockstep_tests::load::{Load, Via};
use lockstep_tests::net::take_turn;
use lockstep_tests::program::{Process, command, ended, folder, free_ports, run, text, wait_until};
use lockstep_tests::rpc::{Client, number};
use lockstep_types::codec;
use lockstep_types::commit::{Commit, CommitSig};
use lockstep_types::light::LightBlock;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Every so many heights is a checkpoint.
const CHECKPOINT_INTERVAL: u64 = 100;
/// What an exported snapshot begins with.
const EXPORT_MAGIC_BYTES: usize = 8;
/// What an operator may set least.
const SEGMENT_BYTES: &str = "storage.segment_bytes=1048576";

/// The home of a chain with one validator whose blocks follow each other at once, and of which evidence expires after so many
/// nanoseconds.
fn quick_home(folder: &Path, max_age_ns: &str) -> PathBuf {
    let (first, home) = (folder.join("first"), folder.join("n0"));
    let (rules, genesis, state) = (folder.join("rules.json"), folder.join("genesis.json"), folder.join("state.json"));
    let membership = json!({ "membership": { "admission": "open", "power_window": 1, "checkpoint_interval": CHECKPOINT_INTERVAL, "checkpoint_spacing": 1 } });
    fs::write(&rules, membership.to_string()).expect("a file");
    run(["init", "--home", text(&first), "--app-state", text(&rules)]).done();
    let mut made: Value = serde_json::from_slice(&fs::read(first.join("config/genesis.json")).expect("a genesis")).expect("JSON");
    made["consensus_params"]["evidence"]["max_age_duration"] = json!(max_age_ns);
    made["consensus_params"]["lockstep"]["min_block_interval_ms"] = json!("0");
    fs::write(&genesis, made.to_string()).expect("a file");
    fs::write(&state, r#"{"height":"0","round":0,"step":0}"#).expect("a file");
    let key = first.join("config/priv_validator_key.json");
    let import = ["--import-key", text(&key), "--import-state", text(&state)];
    run(["init", "--home", text(&home), "--genesis", text(&genesis)].iter().chain(&import)).done();
    home
}

fn start(home: &Path, rpc: u16, p2p: u16, more: &[&str]) -> Process {
    let (rpc, p2p) = (format!("rpc.laddr=127.0.0.1:{rpc}"), format!("p2p.laddr=127.0.0.1:{p2p}"));
    let mut start = command(["start", "--home", text(home), "--set", &rpc, "--set", &p2p, "--set", SEGMENT_BYTES]);
    start.args(more.iter().flat_map(|setting| ["--set", setting]));
    Process::start(start, home.with_extension("log"))
}

fn earliest(client: &mut Client) -> u64 {
    number(&client.call("status", json!({})).expect("it serves")["sync_info"]["earliest_block_height"])
}

/// Of an exported snapshot: what lies behind the magic bytes, each behind its length.
fn sections(file: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &file[EXPORT_MAGIC_BYTES..];
    let mut sections = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (section, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        sections.push(section.to_vec());
        rest = behind;
    }
    assert_eq!(joined(&sections)[EXPORT_MAGIC_BYTES..], file[EXPORT_MAGIC_BYTES..]);
    sections
}

/// An exported snapshot of these.
fn joined(sections: &[Vec<u8>]) -> Vec<u8> {
    let mut file = b"LSEXP\0\0\x01".to_vec();
    for section in sections {
        file.extend(u32::try_from(section.len()).expect("short").to_le_bytes());
        file.extend(section);
    }
    file
}

#[test]
fn what_was_pruned_is_said_and_a_snapshot_in_a_file_begins_another_node() {
    let _turn = take_turn();
    let folder = folder();
    let home = quick_home(folder.path(), "1000000");
    let (rpc, p2p) = (free_ports(2), free_ports(2));
    let at = |index: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, rpc[index]));
    let pruning = ["storage.keep_blocks=10", "storage.keep_snapshots=1", "storage.flush_interval_blocks=100"];
    let mut node = start(&home, rpc[0], p2p[0], &pruning);
    let mut client = Client::new(at(0));
    wait_until("it serves", || client.height().ok());
    let (first_tx, first_height) = client.commit_tx("first=value").expect("it commits");
    let load = Load::start(&[at(0)], 4, None, Via::Commit, "pruning");
    wait_until("old blocks are gone", || Some(earliest(&mut client)).filter(|base| *base > first_height));
    // Their headers stay while a kept snapshot may be restored that needs them, and go in runs.
    wait_until("old headers are gone", || client.call("commit", json!({ "height": "1" })).is_err().then_some(()));
    let base = earliest(&mut client);
    let report = load.stop();
    assert!(report.failed.is_empty(), "nobody was refused anything: {:?}", report.failed);

    // "Pruned, earliest is N", whatever is asked for. Headers of what the chain's rules look back to are there still.
    for (method, lowest) in [("block", base), ("commit", 2), ("block_results", base), ("validators", 2)] {
        let refused = client.call(method, json!({ "height": "1" })).expect_err(method).to_string();
        let told = refused.split("lowest height is ").nth(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().expect("a part"));
        let told = told.and_then(|digits| digits.parse::<u64>().ok()).unwrap_or_else(|| panic!("{method}: {refused}"));
        assert!(told >= lowest && told <= earliest(&mut client), "{method}: {refused}");
    }
    client.place(&first_tx).expect_err("its block is gone");
    // Nor is a question about the state of long ago answered from today's.
    let refused = client.call("abci_query", json!({ "data": "00", "height": "1" })).expect_err("a state of long ago").to_string();
    assert!(refused.contains("height 1 is not available, lowest height is"), "{refused}");
    client.call("abci_query", json!({ "data": "00" })).expect("of the newest");
    wait_until("the metric says so", || client.metric("lockstep_earliest_block_height").ok().filter(|shown| *shown >= base));
    let lowest = earliest(&mut client);
    assert!(client.hashes(lowest).is_ok(), "and the earliest is there");

    // Its snapshot, in a file.
    let tip = client.height().expect("it serves");
    node.signal(Signal::TERM);
    assert_eq!(node.wait(), Some(0), "{}", node.log());
    let file = folder.path().join("state.snapshot");
    let told = run(["snapshot", "export", "--home", text(&home), "--output", text(&file)]).done();
    let hash = told.split("--trust-hash ").nth(1).and_then(|rest| rest.split(' ').next()).expect("the hash to trust").to_owned();
    let listed: Value = serde_json::from_str(&run(["snapshot", "list", "--home", text(&home), "--json"]).done()).expect("JSON");
    // Beside the one that is kept there may be the newest, which no block has confirmed yet.
    let heights: Vec<u64> = listed.as_array().expect("a list").iter().map(|listed| listed["height"].as_u64().expect("a height")).collect();
    let (oldest, snapshot) = (heights[0], heights[heights.len() - 1]);
    assert!(told.contains(&format!("the state after height {snapshot} ")), "{told}");
    let replayed: Value = serde_json::from_str(&run(["replay", "--home", text(&home), "--json"]).done()).expect("JSON");
    assert_eq!(replayed["from"], oldest + 1, "a replay begins with the snapshot: the first blocks are gone");

    // Of one with a damaged chunk nothing is left that looks like a snapshot.
    let broken = folder.path().join("broken.snapshot");
    let paths = fs::read_dir(home.join("data/snapshots")).expect("a folder").map(|entry| entry.expect("an entry").path());
    let chunks: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|kind| kind == "chunk")).collect();
    let good: Vec<Vec<u8>> = chunks.iter().map(|chunk| fs::read(chunk).expect("a chunk")).collect();
    chunks.iter().zip(&good).for_each(|(chunk, good)| fs::write(chunk, &good[..good.len() - 1]).expect("a file"));
    let refused = ended(command(["snapshot", "export", "--home", text(&home), "--output", text(&broken)]));
    chunks.iter().zip(&good).for_each(|(chunk, good)| fs::write(chunk, good).expect("a file"));
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("is damaged") && refused.err.contains("lockstep snapshot create"), "{}", refused.err);
    let names = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().starts_with("broken")).count(), 0);

    let second = folder.path().join("n1");
    run(["init", "--home", text(&second), "--genesis", text(&home.join("config/genesis.json"))]).done();
    // It may have run before, as long as it has no blocks.
    let mut alone = start(&second, rpc[1], p2p[1], &["p2p.persistent_peers=[]"]);
    wait_until("it serves", || Client::new(at(1)).height().ok());
    alone.signal(Signal::TERM);
    assert_eq!(alone.wait(), Some(0), "{}", alone.log());
    let restore =
        |from: &Path, hash: &str| ended(command(["snapshot", "restore", text(from), "--home", text(&second), "--trust-hash", hash]));
    let cut = folder.path().join("cut.snapshot");
    let bytes = fs::read(&file).expect("the file");
    fs::write(&cut, &bytes[..bytes.len() - 100]).expect("a file");
    let refused = restore(&cut, &hash);
    assert_eq!((refused.code, refused.err.contains("ends early")), (Some(3), true), "{}", refused.err);
    fs::write(&cut, [&bytes[..], b"more"].concat()).expect("a file");
    let refused = restore(&cut, &hash);
    assert_eq!((refused.code, refused.err.contains("goes on behind its last chunk")), (Some(3), true), "{}", refused.err);
    // Commits that no hash and no signature stands for: of another round, or with a slot that nobody signed.
    let sound = sections(&bytes);
    let runs = 4..sound.iter().position(Vec::is_empty).expect("the runs end");
    assert!(!runs.is_empty(), "headers below the snapshot are in it");
    let of_a_block = |section: usize, change: fn(&mut Commit)| {
        let mut block: LightBlock = codec::decode(1, &sound[section], usize::MAX).expect("a block");
        change(&mut block.commit);
        (section, codec::encode(1, &block))
    };
    let of_a_run = |section: usize, change: fn(&mut Commit)| {
        let mut run: Vec<LightBlock> = codec::decode(1, &sound[section], usize::MAX).expect("a run");
        change(&mut run.last_mut().expect("not empty").commit);
        (section, codec::encode(1, &run))
    };
    let another_round: fn(&mut Commit) = |commit| commit.round = commit.round.next();
    let made_up: fn(&mut Commit) = |commit| {
        let Some(CommitSig::Commit(slot)) = commit.signatures.first_mut() else { panic!("the only validator signed") };
        slot.signature.0[0] ^= 1;
    };
    let lies = [
        (of_a_block(1, another_round), "not one that its validators signed"),
        (of_a_block(1, made_up), "not one that its validators signed"),
        (of_a_block(2, another_round), "is of another round than was signed"),
        (of_a_block(2, made_up), "last_commit_hash"),
        (of_a_run(runs.start, another_round), "is of another round than was signed"),
        (of_a_run(runs.end - 1, another_round), "is of another round than was signed"),
    ];
    for ((section, changed), says) in lies {
        let mut lying = sound.clone();
        lying[section] = changed;
        fs::write(&cut, joined(&lying)).expect("a file");
        let refused = restore(&cut, &hash);
        assert_eq!((refused.code, refused.err.contains(says)), (Some(3), true), "section {section}: {}", refused.err);
    }
    // Each thing in it is proven, and the headers that the rules look back to are not.
    let mut lacking = sound.clone();
    lacking.drain(runs.clone());
    fs::write(&cut, joined(&lacking)).expect("a file");
    let refused = restore(&cut, &hash);
    assert_eq!((refused.code, refused.err.contains("the rules look back to")), (Some(3), true), "{}", refused.err);
    let refused = restore(&file, &"AB".repeat(32));
    assert_eq!((refused.code, refused.err.contains("not the one that you trust")), (Some(6), true), "{}", refused.err);
    let refused = ended(command(["snapshot", "restore", text(&file), "--home", text(&home), "--trust-hash", &hash]));
    assert_eq!((refused.code, refused.err.contains("this home has blocks already, up to height")), (Some(3), true), "{}", refused.err);
    for (begins, says) in
        [(&b"LSEXP\0\0\x02"[..], "another version"), (&b"{\"a\": 1}"[..], "join bundle"), (&b"anything"[..], "no exported snapshot")]
    {
        fs::write(&cut, begins).expect("a file");
        let refused = restore(&cut, &hash);
        assert_eq!((refused.code, refused.err.contains(says)), (Some(3), true), "{}", refused.err);
    }
    let out = restore(&file, &hash).done();
    assert!(out.contains(&format!("the state after height {snapshot} is verified")), "{out}");
    assert!(out.contains(" headers below it; the node begins with it"), "{out}");
    // One that is refused after it takes nothing away.
    fs::write(&cut, joined(&lacking)).expect("a file");
    assert_eq!(restore(&cut, &hash).code, Some(3));
    assert!(!second.join("data/restoring").exists());

    // It goes on from there.
    let shown = run(["keys", "show", "--home", text(&home)]).done();
    let id = shown.lines().find_map(|line| line.strip_prefix("node id")).expect("a node id").trim().to_owned();
    let _node = start(&home, rpc[0], p2p[0], &pruning);
    let peer = format!("p2p.persistent_peers={id}@127.0.0.1:{}", p2p[0]);
    let follower = start(&second, rpc[1], p2p[1], &[&peer]);
    let mut follows = Client::new(at(1));
    wait_until("it has caught up", || follows.height().ok().filter(|height| *height >= tip));
    assert_eq!(earliest(&mut follows), snapshot, "{}", follower.log());
    // What executing the snapshot's block gave, nobody told this node: it does not say that its lowest height is lower than it is.
    for (method, height) in [("block_results", snapshot), ("consensus_params", snapshot)] {
        let refused = follows.call(method, json!({ "height": height.to_string() })).expect_err(method).to_string();
        assert!(refused.contains("began with the state of a snapshot"), "{method} of {height}: {refused}");
    }
    wait_until("the first serves", || client.height().ok());
    // The validators came with the headers.
    for height in [snapshot, snapshot + 1] {
        let at = || json!({ "height": height.to_string() });
        let (ours, theirs) = (follows.call("validators", at()).expect("kept"), client.call("validators", at()).expect("kept"));
        assert_eq!(ours, theirs, "validators of {height}");
    }
    assert_eq!(follows.hashes(tip).expect("its own"), client.hashes(tip).expect("the chain's"));
    let refused = ended(command(["snapshot", "restore", text(&file), "--home", text(&home), "--trust-hash", &hash]));
    assert_eq!(refused.code, Some(4), "its node runs");
}

/// Blocks go long before evidence about them has expired; what light clients and judges ask for stays.
#[test]
fn headers_commits_and_validators_outlive_blocks() {
    let _turn = take_turn();
    let folder = folder();
    // A day.
    let home = quick_home(folder.path(), "86400000000000");
    let (rpc, p2p) = (free_ports(1), free_ports(1));
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, rpc[0]));
    let pruning = ["storage.keep_blocks=10", "storage.keep_snapshots=1", "storage.flush_interval_blocks=100"];
    let mut node = start(&home, rpc[0], p2p[0], &pruning);
    let mut client = Client::new(at);
    wait_until("it serves", || client.height().ok());
    let (_, height) = client.commit_tx("first=value").expect("it commits");
    let params = json!({ "height": height.to_string() });
    let load = Load::start(&[at], 4, None, Via::Commit, "apart");
    // Before it goes: the block above carries its commit by then.
    wait_until("a block above", || client.height().ok().filter(|tip| *tip > height + 1));
    let methods = ["header", "commit", "validators"];
    let ask = |client: &mut Client| methods.map(|method| client.call(method, params.clone()).expect(method));
    let before = ask(&mut client);
    wait_until("old blocks are gone", || Some(earliest(&mut client)).filter(|base| *base > height));
    assert_eq!(ask(&mut client), before, "the same, from beside the log");
    client.call("block", params.clone()).expect_err("its body is gone");
    assert!(load.stop().failed.is_empty(), "and nobody was refused anything");
    node.signal(Signal::TERM);
    assert_eq!(node.wait(), Some(0), "{}", node.log());
    let _node = start(&home, rpc[0], p2p[0], &pruning);
    wait_until("it serves again", || client.height().ok());
    assert!(earliest(&mut client) > height);
    assert_eq!(ask(&mut client), before, "after a restart");
}
