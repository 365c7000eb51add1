//! A disk without room, under a real process: its home lies in a file system in memory that is mounted for that process alone.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_tests::net::take_turn;
use lockstep_tests::program::{Process, binary, free_ports, run, text, wait_until};
use lockstep_tests::rpc::Client;
use serde_json::json;

/// The whole disk: the guard, some segments of a mebibyte, and the state.
const DISK_BYTES: usize = 48 << 20;
/// What the node shows while it lacks room.
const HELD_BACK: &str = r#"lockstep_votes_held_back{reason="disk_full"}"#;

/// A command in a mount namespace of its own, whose process is the command's.
fn unshared(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOCKSTEP_")) {
        command.env_remove(name);
    }
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).args(args);
    command
}

/// Whether this machine lets a user mount anything. Many containers do not.
fn may_mount(folder: &Path) -> bool {
    let tried = unshared(r#"mount -t tmpfs -o size=1m none "$0""#, &[text(folder)]).output();
    tried.is_ok_and(|ended| ended.status.success())
}

/// Writes zeros until there is no room left.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("a file");
    for piece in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![0; piece]).is_ok() {}
    }
}

/// Clients are told of the full disk, reads are answered, nothing more is decided; and when there is room, what was handed in
/// meanwhile is committed, without a restart.
#[test]
fn attack_69_a_full_disk_holds_back_votes_and_nothing_else() {
    let _turn = take_turn();
    let folder = tempfile::tempdir().expect("a folder");
    let (made, mounted) = (folder.path().join("made"), folder.path().join("mounted"));
    fs::create_dir(&mounted).expect("a folder");
    if !may_mount(&mounted) {
        println!("not run: this machine lets nobody mount a file system of his own");
        return;
    }
    run(["init", "--home", text(&made)]).done();
    let ports = free_ports(2);
    let rpc = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
    let (rpc_set, p2p_set) = (format!("rpc.laddr={rpc}"), format!("p2p.laddr=127.0.0.1:{}", ports[1]));
    let script = format!(
        r#"mount -t tmpfs -o size={DISK_BYTES} none "$0" && cp -a "$1" "$0/home" && exec "$2" start --home "$0/home" --set "$3" --set "$4" --set storage.segment_bytes=1048576"#
    );
    let start = unshared(&script, &[text(&mounted), text(&made), text(binary()), &rpc_set, &p2p_set]);
    let mut node = Process::start(start, folder.path().join("node.log"));
    let mut client = Client::new(rpc);
    wait_until("the first block", || {
        assert_eq!(node.exit_code(), None, "{}", node.log());
        client.height().ok().filter(|height| *height >= 1)
    });
    client.commit_tx("before=full").expect("there is room");

    // Its disk, as this process sees it.
    let filler: PathBuf =
        Path::new("/proc").join(node.pid().to_string()).join("root").join(mounted.strip_prefix("/").expect("absolute")).join("filler");
    fill(&filler);
    // What is left are the segments that were made ahead of time: large transactions use them up.
    let value = "x".repeat(60_000);
    let mut number = 0;
    wait_until("the validator holds its votes back", || {
        number += 1;
        // A pool that is full by now says so.
        let _ = client.send_tx(&format!("large{number}={value}"));
        client.metric(HELD_BACK).ok().filter(|held| *held == 1)
    });
    let waits = client.send_tx("while=full").ok();
    let stands = client.height().expect("it serves");
    let query = client.call("abci_query", json!({"path": "/store", "data": hex::encode("before")})).expect("it serves");
    assert_eq!(query["response"]["code"], 0, "{query}");
    client.hashes(stands).expect("it serves the newest block");
    assert_eq!(node.exit_code(), None, "it runs");

    fs::remove_file(&filler).expect("the file that filled it");
    wait_until("the validator votes again", || client.metric(HELD_BACK).ok().filter(|held| *held == 0));
    let (_, height) = wait_until("a transaction is committed", || client.commit_tx("after=full").ok());
    assert!(height > stands, "{height} follows {stands}");
    if let Some(hash) = waits {
        wait_until("what was handed in meanwhile is committed", || client.place(&hash).ok());
    }
    assert_eq!(node.exit_code(), None, "and it was never started again");
}
