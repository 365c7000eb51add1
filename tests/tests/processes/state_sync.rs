//! A new node begins with a snapshot of its peers, is killed in every phase of it, and validates in the end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use lockstep_tests::load::{Load, Via};
use lockstep_tests::net::take_turn;
use lockstep_tests::program::{Process, command, folder, free_ports, run, text, wait_until};
use lockstep_tests::rpc::{Client, number};
use rustix::process::Signal;
use serde_json::json;

/// Every so many heights is a checkpoint.
const CHECKPOINT_INTERVAL: u64 = 25;
const VALIDATORS: usize = 4;

/// What a node that joins says, in the order of its phases.
const PHASES: [&str; 4] = ["node starts", "a snapshot was chosen", "state sync: chunks", "the snapshot is complete"];

fn start(home: &Path, rpc: SocketAddr, log: PathBuf, more: &[&str]) -> Process {
    let laddr = format!("rpc.laddr={rpc}");
    let args = ["start", "--home", text(home), "--set", &laddr];
    Process::start(command(args.iter().chain(more)), log)
}

#[test]
fn a_fifth_begins_with_a_snapshot_though_it_is_killed_in_every_phase() {
    let _turn = take_turn();
    let folder = folder();
    let (rpc, p2p) = (free_ports(VALIDATORS), free_ports(VALIDATORS));
    let hosts: Vec<String> = p2p.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let (net, rules) = (folder.path().join("net"), folder.path().join("rules.json"));
    let membership = json!({ "membership": { "admission": "open", "power_window": 1, "checkpoint_interval": CHECKPOINT_INTERVAL, "checkpoint_spacing": 1 } });
    std::fs::write(&rules, membership.to_string()).expect("a file");
    let (count, hosts) = (VALIDATORS.to_string(), hosts.join(","));
    run(["testnet", "--validators", &count, "--output", text(&net), "--hosts", &hosts, "--app-state", text(&rules)]).done();
    let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let nodes: Vec<(Process, SocketAddr)> = (0..VALIDATORS)
        .map(|index| {
            let home = net.join(format!("node{index}"));
            let at = address(rpc[index]);
            (start(&home, at, home.join("node.log"), &[]), at)
        })
        .collect();
    let mut first = Client::new(nodes[0].1);
    wait_until("it serves", || first.height().ok().filter(|height| *height > 0));
    let load = Load::start(&nodes.iter().map(|(_, at)| *at).collect::<Vec<_>>(), 8, Some(400.0), Via::Sync, "snapshot");
    wait_until("there are two checkpoints", || first.height().ok().filter(|height| *height > 2 * CHECKPOINT_INTERVAL + 2));
    wait_until("a snapshot is made", || nodes[0].0.log().contains("snapshot made").then_some(()));

    let from = format!("http://{}", nodes[0].1);
    let (home, bundle) = (folder.path().join("node4"), folder.path().join("join.json"));
    run(["init", "--from", &from, "--home", text(&home)]).done();
    run(["snapshot", "bundle", "--node", &from, "--output", text(&bundle)]).done();
    let again = run(["snapshot", "bundle", "--node", &from, "--output", text(&bundle)]);
    assert!(again.code == Some(3) && again.err.contains("is there already"), "nothing is overwritten, and it may be a key: {}", again.err);
    let at = address(free_ports(1)[0]);
    let with_bundle = ["--bundle", text(&bundle)];
    for (phase, said) in PHASES.iter().enumerate() {
        let mut joining = start(&home, at, folder.path().join(format!("killed{phase}.log")), &with_bundle);
        // A phase may be over before it is seen, and then a later one is met.
        wait_until(said, || {
            let log = joining.log();
            PHASES[phase..].iter().chain(["serving"].iter()).any(|later| log.contains(later)).then_some(())
        });
        joining.signal(Signal::KILL);
        joining.wait();
    }
    let began = Instant::now();
    // It makes no snapshot of its own: what it began with is all that its state can be made from.
    let as_it_is = ["--set", "storage.keep_snapshots=0"];
    let joined = start(&home, at, folder.path().join("node4.log"), &[&with_bundle[..], &as_it_is].concat());
    let mut fifth = Client::new(at);
    let height = first.height().expect("it serves");
    wait_until("it has caught up", || fifth.height().ok().filter(|at| *at >= height));
    println!("measured: caught up {} ms after the last start", began.elapsed().as_millis());
    let status = fifth.call("status", json!({})).expect("it serves");
    let earliest = number(&status["sync_info"]["earliest_block_height"]);
    assert!(
        earliest >= CHECKPOINT_INTERVAL && earliest.is_multiple_of(CHECKPOINT_INTERVAL),
        "it began with a checkpoint: {earliest}\n{}",
        joined.log()
    );
    // It has the same chain, and validates.
    let height = fifth.height().expect("it serves");
    wait_until("the first is there, too", || first.height().ok().filter(|at| *at >= height));
    assert_eq!(fifth.hashes(height).expect("its own"), first.hashes(height).expect("the chain's"));
    let out = run(["validator", "join", "--home", text(&home), "--node", &format!("http://{at}")]).done();
    assert!(out.contains("validates"), "{out}");
    let file = std::fs::read(home.join("config/priv_validator_key.json")).expect("a key");
    let file: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    let address = file["address"].as_str().expect("an address").to_owned();
    let mut signs_above = |least: u64| {
        wait_until("it signs", || {
            let newest = first.height().ok()?;
            let signs = |height| first.signers(height).is_ok_and(|signers| signers.contains(&address));
            (newest.saturating_sub(3).max(least)..newest).any(signs).then_some(())
        });
    };
    signs_above(1);

    // Its state is lost: no block is, though its log does not lead back to genesis.
    drop(joined);
    assert!(!std::fs::exists(home.join("data/sync/goal")).expect("a folder"), "what was gathered is gone");
    std::fs::remove_file(home.join("data/state.redb")).expect("it was there");
    let again = start(&home, at, folder.path().join("again.log"), &as_it_is);
    let mut fifth = Client::new(at);
    let height = wait_until("it serves again", || fifth.height().ok().filter(|height| *height > 0));
    let log = again.log();
    assert!(log.contains("the state is made again from an own snapshot") && !log.contains("damaged"), "{log}");
    let status = fifth.call("status", json!({})).expect("it serves");
    assert_eq!(number(&status["sync_info"]["earliest_block_height"]), earliest, "it has the blocks that it had");
    signs_above(height);
    let report = load.stop();
    assert!(report.failed.is_empty(), "every request is answered: {:?}", report.failed);
}
