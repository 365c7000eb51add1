//! What a restart takes: from its beginning until the node serves, and until its vote is in a commit of the others.
//!
//!     lockstep localnet --validators 4 --home NET --rpc-port 23300 --load 500 --for 60s        (some state)
//!     cargo run --release -p lockstep-tests --example restart_speed -- NET [first RPC port] [tx/s] [restarts]
//!
//! All nodes of NET run, under that load; node 0 is stopped with SIGTERM and SIGKILL in turn, and started again 1.5 s later
//! (`AWAY`). Without a rate it is alone on the machine, and only its start is measured. Each start finds its files in the
//! system's cache: the first one is not counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lockstep_tests::load::{Load, Via};
use lockstep_tests::program::{Process, command, text};
use lockstep_tests::rpc::Client;
use rustix::process::Signal;

/// How long the node is away.
const AWAY: Duration = Duration::from_millis(1_500);
/// How long it runs between two restarts.
const RUNS: Duration = Duration::from_secs(4);

struct Net {
    folder: PathBuf,
    port: u16,
}

impl Net {
    fn address(&self, node: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port + node))
    }

    fn start(&self, node: u16) -> Process {
        let home = self.folder.join(format!("node{node}"));
        Process::start(command(["start", "--home", text(&home)]), self.folder.join(format!("restart_speed-{node}.log")))
    }

    /// Starts a node and waits until it serves.
    fn served(&self, node: u16) -> Process {
        let mut process = self.start(node);
        let mut client = Client::new(self.address(node));
        while client.height().is_err() {
            assert!(process.exit_code().is_none(), "node {node} ended:\n{}", process.log());
            std::thread::sleep(Duration::from_millis(2));
        }
        process
    }
}

fn stop(mut process: Process, signal: Signal) {
    process.signal(signal);
    process.wait();
}

fn told(what: &str, mut seconds: Vec<f64>) {
    seconds.sort_by(f64::total_cmp);
    if let (Some(least), Some(most)) = (seconds.first(), seconds.last()) {
        println!("{what}: {least:.2} to {most:.2} s, median {:.2} s, of {}", seconds[seconds.len() / 2], seconds.len());
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = args.next().map(PathBuf::from).expect("the folder of a localnet");
    let port = args.next().map_or(26_657, |text| text.parse().expect("a port"));
    let rate: f64 = args.next().map_or(0.0, |text| text.parse().expect("transactions per second"));
    let restarts: usize = args.next().map_or(6, |text| text.parse().expect("a number of restarts"));
    let nodes = (0u16..).take_while(|node| Path::new(&folder).join(format!("node{node}")).is_dir()).count();
    let net = Net { folder, port };
    let others = u16::try_from(nodes).expect("a few nodes");

    let mut node = net.served(0);
    let running: Vec<Process> = (1..others).filter(|_| rate > 0.0).map(|other| net.served(other)).collect();
    let endpoints: Vec<SocketAddr> = (1..others).map(|other| net.address(other)).collect();
    let tag = format!("restarts{}", std::process::id());
    let load = (!running.is_empty()).then(|| Load::start(&endpoints, 6, Some(rate), Via::Sync, &tag));
    let status = Client::new(net.address(0)).call("status", serde_json::json!({})).expect("it serves");
    let address = status["validator_info"]["address"].as_str().expect("an address").to_owned();
    let (mut serves, mut votes) = (Vec::new(), Vec::new());
    for restart in 0..restarts {
        let signal = if restart % 2 == 0 { Signal::TERM } else { Signal::KILL };
        if load.is_some() {
            std::thread::sleep(RUNS);
        }
        stop(node, signal);
        let mut other = load.as_ref().map(|_| Client::new(net.address(1)));
        if other.is_some() {
            std::thread::sleep(AWAY);
        }
        let behind = other.as_mut().map(|other| other.height().expect("it serves"));
        let began = Instant::now();
        node = net.served(0);
        serves.push(began.elapsed().as_secs_f64());
        // Of who only runs alone no vote is anywhere.
        let Some((other, mut height)) = other.as_mut().zip(behind) else { continue };
        loop {
            match other.signers(height + 1) {
                Ok(signers) if signers.contains(&address) => break,
                Ok(_) => height += 1,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        votes.push(began.elapsed().as_secs_f64());
    }
    told("serves after", serves);
    told("its vote is in a commit after", votes);
    if let Some(load) = load {
        let report = load.stop();
        println!("meanwhile {} transactions were taken, and {} were not", report.acknowledged.len(), report.failed.values().sum::<u64>());
    }
    stop(node, Signal::TERM);
    running.into_iter().for_each(|other| stop(other, Signal::TERM));
}
