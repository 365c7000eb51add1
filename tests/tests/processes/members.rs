//! Validators that come and go by JOIN and QUIT while clients send: nobody who asks is refused, and all nodes have one chain.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::Instant;

use lockstep_tests::load::{Load, Report, Via};
use lockstep_tests::net::take_turn;
use lockstep_tests::program::{Process, command, folder, free_ports, run, text, wait_until};
use lockstep_tests::rpc::{Client, number};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Power moves again after so many heights. Short, for a test: every change but the first waits for it.
const POWER_WINDOW: &str = "5";
/// Transactions a second, over all clients.
const RATE: f64 = 500.0;

/// Nodes on this machine, of which some validate.
struct Town {
    // Dropped in this order: processes end before their folder goes and the next network begins.
    nodes: Vec<Node>,
    folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

struct Node {
    process: Process,
    home: PathBuf,
    rpc: SocketAddr,
}

impl Town {
    /// So many validators, which all have committed a block.
    fn found(validators: usize) -> Self {
        let turn = take_turn();
        let folder = folder();
        let (rpc, p2p) = (free_ports(validators), free_ports(validators));
        let hosts: Vec<String> = p2p.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let net = folder.path().join("net");
        let (count, hosts) = (validators.to_string(), hosts.join(","));
        let make = ["testnet", "--validators", &count, "--output", text(&net), "--hosts", &hosts];
        run(make.iter().chain(&["--admission", "open", "--power-window", POWER_WINDOW])).done();
        let nodes = (0..validators)
            .map(|index| {
                let home = net.join(format!("node{index}"));
                let rpc: SocketAddr = (Ipv4Addr::LOCALHOST, rpc[index]).into();
                start(home, rpc)
            })
            .collect();
        let town = Self { nodes, folder, _turn: turn };
        town.wait_for_height(1);
        town
    }

    fn clients(&self) -> Vec<Client> {
        self.nodes.iter().map(|node| Client::new(node.rpc)).collect()
    }

    fn height(&self) -> u64 {
        Client::new(self.nodes[0].rpc).height().expect("it serves")
    }

    /// Waits until every node has this height.
    fn wait_for_height(&self, height: u64) {
        let mut clients = self.clients();
        wait_until(&format!("all have height {height}"), || {
            clients.iter_mut().all(|client| client.height().is_ok_and(|at| at >= height)).then_some(())
        });
    }

    /// One more node, which follows: made and started as the help says.
    fn follow(&mut self) {
        let home = self.folder.path().join(format!("node{}", self.nodes.len()));
        let from = format!("http://{}", self.nodes[0].rpc);
        let out = run(["init", "--from", &from, "--home", text(&home)]).done();
        let rpc = out.lines().find_map(|line| line.trim().strip_prefix("clients    http://")).expect("where it serves clients");
        let rpc = rpc.parse().expect("an address");
        self.nodes.push(start(home, rpc));
        let mut client = Client::new(rpc);
        wait_until("it serves", || client.height().ok());
    }

    /// `lockstep validator` with a node's home.
    fn validator(&self, what: &str, index: usize) -> String {
        let node = &self.nodes[index];
        run(["validator", what, "--home", text(&node.home), "--node", &format!("http://{}", node.rpc)]).done()
    }

    /// The numbers of the nodes that validate the next height.
    fn validators(&self) -> Vec<usize> {
        let validates = |client: &mut Client| {
            let status = client.call("status", json!({})).expect("it serves");
            number(&status["validator_info"]["voting_power"]) > 0
        };
        let clients = &mut self.clients();
        (0..clients.len()).filter(|index| validates(&mut clients[*index])).collect()
    }

    /// How many validators this node knows.
    fn validators_as_seen_by(&self, index: usize) -> u64 {
        let validators = Client::new(self.nodes[index].rpc).call("validators", json!({})).expect("it serves");
        number(&validators["total"])
    }

    /// Waits until each of these has signed a commit above `from`.
    fn wait_until_they_sign(&self, who: &[usize], from: u64) {
        let mut client = Client::new(self.nodes[0].rpc);
        let mut missing: Vec<String> = who.iter().map(|index| self.address(*index)).collect();
        let mut at = from.max(1);
        wait_until("all validators sign", || {
            let newest = client.height().ok()?;
            for height in at..newest {
                let signers = client.signers(height).ok()?;
                missing.retain(|address| !signers.contains(address));
            }
            at = at.max(newest);
            missing.is_empty().then_some(())
        });
    }

    fn address(&self, index: usize) -> String {
        let file = std::fs::read(self.nodes[index].home.join("config/priv_validator_key.json")).expect("a key");
        let key: Value = serde_json::from_slice(&file).expect("JSON");
        key["address"].as_str().expect("an address").to_owned()
    }

    /// All nodes have the same blocks and states up to now, everything that was acknowledged among them; all stop cleanly.
    fn end(mut self, report: &Report) {
        assert!(report.failed.is_empty(), "every request is answered: {:?}", report.failed);
        assert!(report.acknowledged.len() > 500, "there was a load: {}", report.acknowledged.len());
        // What was acknowledged as checked is in the pool of one node, and soon in a block.
        let mut clients = self.clients();
        for tx in report.acknowledged.iter().step_by(50) {
            wait_until(&format!("{} is committed", tx.hash), || clients[0].place(&tx.hash).ok());
        }
        let tip = self.height();
        self.wait_for_height(tip);
        for height in (1..=tip).step_by(7).chain([tip]) {
            let hashes: Vec<_> = clients.iter_mut().map(|client| client.hashes(height).expect("a block they all have")).collect();
            assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "a fork at height {height}: {hashes:?}");
        }
        for tx in report.acknowledged.iter().step_by(200) {
            let places: Vec<_> = clients.iter_mut().map(|client| client.place(&tx.hash).expect("every node has it")).collect();
            assert!(places.windows(2).all(|pair| pair[0] == pair[1]), "{tx:?} is at {places:?}");
        }
        for node in &mut self.nodes {
            node.process.signal(Signal::TERM);
        }
        for node in &mut self.nodes {
            assert_eq!(node.process.wait(), Some(0), "{}", node.process.log());
        }
    }
}

fn start(home: PathBuf, rpc: SocketAddr) -> Node {
    let start = command(["start", "--home", text(&home), "--set", &format!("rpc.laddr={rpc}")]);
    let log = home.join("node.log");
    Node { process: Process::start(start, log), home, rpc }
}

#[test]
fn four_become_seven_and_four_again_while_clients_send() {
    let mut town = Town::found(4);
    let endpoints: Vec<SocketAddr> = town.nodes.iter().map(|node| node.rpc).collect();
    let load = Load::start(&endpoints, 12, Some(RATE), Via::Sync, "churn");
    let started = Instant::now();
    for index in 4..7 {
        town.follow();
        let out = town.validator("join", index);
        assert!(out.contains(&format!("{} validates: power 10 of {}0", town.address(index), index + 1)), "{out}");
    }
    let (joined, height) = (started.elapsed(), town.height());
    assert_eq!(town.validators(), [0, 1, 2, 3, 4, 5, 6]);
    town.wait_until_they_sign(&[0, 1, 2, 3, 4, 5, 6], height);
    // Three of the first leave. Their clients are served by nodes that only follow from then on.
    for index in 1..4 {
        let out = town.validator("quit", index);
        assert!(out.contains("has no power any more"), "{out}");
    }
    println!(
        "measured: 4 to 7 validators in {:.1} s, to 4 in {:.1} s, under {RATE} tx/s",
        joined.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
    assert_eq!(town.validators(), [0, 4, 5, 6]);
    town.wait_until_they_sign(&[0, 4, 5, 6], town.height());
    town.end(&load.stop());
}

#[test]
fn one_becomes_two_and_four_and_one_again_while_clients_send() {
    let mut town = Town::found(1);
    let load = Load::start(&[town.nodes[0].rpc], 6, Some(RATE), Via::Sync, "alone");
    for index in 1..4 {
        town.follow();
        town.validator("join", index);
        assert_eq!(town.validators().len(), index + 1);
    }
    town.wait_until_they_sign(&[0, 1, 2, 3], town.height());
    for index in (1..4).rev() {
        town.validator("quit", index);
        assert_eq!(town.validators().len(), index);
    }
    // The last one stays: a chain without validators would have no next block.
    let alone = &town.nodes[0];
    let ended = run(["validator", "quit", "--home", text(&alone.home), "--node", &format!("http://{}", alone.rpc)]);
    assert_eq!(ended.code, Some(8), "{}{}", ended.out, ended.err);
    assert!(ended.err.contains("the chain refuses it"), "{}", ended.err);
    town.end(&load.stop());
}

/// An idle chain learns late that a validator is gone: one that leaves looks for itself who is there.
#[test]
fn a_validator_stays_while_the_others_could_not_go_on_without_it() {
    let mut town = Town::found(4);
    let dead = town.address(3);
    town.nodes[3].process.signal(Signal::KILL);
    town.nodes[3].process.wait();
    let leaver = &town.nodes[0];
    let quit = command(["validator", "quit", "--home", text(&leaver.home), "--node", &format!("http://{}", leaver.rpc)]);
    let mut quit = Process::start(quit, town.folder.path().join("quit.log"));
    wait_until("it says whom it waits for", || {
        quit.log().lines().any(|line| line.contains("NOT asked yet") && line.contains(&dead)).then_some(())
    });
    let mut client = Client::new(town.nodes[1].rpc);
    client.commit_tx("with=three").expect("three of four go on, since nobody has left");
    assert_eq!(town.validators_as_seen_by(1), 4, "{}", quit.log());

    let Node { home, rpc, .. } = town.nodes.pop().expect("the dead one");
    town.nodes.push(start(home, rpc));
    town.wait_for_height(1);
    client.commit_tx("with=four").expect("it commits");
    assert_eq!(quit.wait(), Some(0), "{}", quit.log());
    assert_eq!(town.validators(), [1, 2, 3]);
    client.commit_tx("without=one").expect("those who stay go on");
}
