//! Networks of processes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Process, command, folder, free_ports, run, text, wait_until};
use crate::rpc::Client;

/// Networks take turns: each has the machine for itself, and its figures mean something.
static TURN: Mutex<()> = Mutex::new(());

/// Takes the machine until the answer is dropped.
pub fn take_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Four validators on this machine, as `lockstep testnet` makes them: blocks at least 20 ms apart.
pub struct Net {
    // Dropped in this order: processes end before their folder goes and the next network begins.
    nodes: Vec<Option<Process>>,
    folder: TempDir,
    rpc: Vec<u16>,
    p2p: Vec<u16>,
    _turn: MutexGuard<'static, ()>,
}

/// Validators of a network. One may fail, and three have more than two thirds.
pub const VALIDATORS: usize = 4;
/// Validators that may fail.
const FAULTY: u64 = 1;
/// How long a connection is dialled before it is given up, and how long until the next try at most (`docs/format-network.md`). A
/// dial that began before the heal may have to end first.
pub const RECONNECT: Duration = Duration::from_millis(5_000 + 2_000);

impl Net {
    /// Makes the homes. Nothing runs.
    pub fn new() -> Self {
        let turn = take_turn();
        let folder = folder();
        let (rpc, p2p) = (free_ports(VALIDATORS), free_ports(VALIDATORS));
        let hosts: Vec<String> = p2p.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        run(["testnet", "--output", text(&folder.path().join("net")), "--hosts", &hosts.join(",")]).done();
        Self { nodes: (0..VALIDATORS).map(|_| None).collect(), folder, rpc, p2p, _turn: turn }
    }

    /// Makes the homes and starts all validators; all have committed a block.
    pub fn started() -> Self {
        let mut net = Self::new();
        net.start_all();
        net.wait_all("the first block", |height| height >= 1);
        net
    }

    /// A validator's home.
    pub fn home(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("net/node{index}"))
    }

    /// Where it serves clients.
    pub fn rpc(&self, index: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.rpc[index]).into()
    }

    /// Where it serves peers.
    pub fn p2p(&self, index: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.p2p[index]).into()
    }

    /// A client of it.
    pub fn client(&self, index: usize) -> Client {
        Client::new(self.rpc(index))
    }

    /// Clients of all.
    pub fn clients(&self) -> Vec<Client> {
        (0..VALIDATORS).map(|index| self.client(index)).collect()
    }

    /// Starts a validator that does not run.
    pub fn start(&mut self, index: usize) {
        self.start_with(index, &[]);
    }

    /// The same with further settings, each as `key=value`.
    pub fn start_with(&mut self, index: usize, settings: &[&str]) {
        assert!(self.nodes[index].is_none(), "node{index} runs");
        let home = self.home(index);
        let (rpc, p2p) = (format!("rpc.laddr={}", self.rpc(index)), format!("p2p.laddr={}", self.p2p(index)));
        let mut start = command(["start", "--home", text(&home), "--set", &rpc, "--set", &p2p]);
        start.args(settings.iter().flat_map(|setting| ["--set", setting]));
        self.nodes[index] = Some(Process::start(start, home.join("node.log")));
    }

    /// Starts all.
    pub fn start_all(&mut self) {
        (0..VALIDATORS).for_each(|index| self.start(index));
    }

    /// The process of a validator that runs.
    pub fn process(&mut self, index: usize) -> &mut Process {
        self.nodes[index].as_mut().expect("it runs")
    }

    /// SIGKILL for all of these, one right after the other, before any of their ends is waited for.
    pub fn kill(&mut self, indices: &[usize]) {
        for index in indices {
            self.process(*index).signal(Signal::KILL);
        }
        for index in indices {
            let mut process = self.nodes[*index].take().expect("it ran");
            assert_eq!(process.wait(), None, "node{index} ended by itself before it was killed:\n{}", process.log());
        }
    }

    /// Asks one to stop, and waits until it has.
    #[track_caller]
    pub fn stop(&mut self, index: usize) {
        self.process(index).signal(Signal::TERM);
        let mut process = self.nodes[index].take().expect("it ran");
        assert_eq!(process.wait(), Some(0), "node{index}:\n{}", process.log());
    }

    /// Asks all to stop: exit code and seconds until then, of each.
    pub fn stop_all(&mut self) -> Vec<(Option<i32>, f64)> {
        let asked = Instant::now();
        (0..VALIDATORS).for_each(|index| self.process(index).signal(Signal::TERM));
        let mut ends = vec![None; VALIDATORS];
        wait_until("all validators stop", || {
            for (end, node) in ends.iter_mut().zip(&mut self.nodes) {
                if end.is_none() {
                    *end = node.as_mut().expect("it runs").exit_code().map(|code| (code, asked.elapsed().as_secs_f64()));
                }
            }
            ends.iter().all(Option::is_some).then_some(())
        });
        self.nodes.iter_mut().for_each(|node| drop(node.take()));
        ends.into_iter().flatten().collect()
    }

    /// Asserts that all that were started still run.
    #[track_caller]
    pub fn assert_alive(&mut self) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let Some(node) = node else { continue };
            assert_eq!(node.exit_code(), None, "node{index} ended:\n{}", node.log());
        }
    }

    /// Waits until the height of every node that runs is as wanted; the heights, in order.
    #[track_caller]
    pub fn wait_all(&mut self, what: &str, wanted: impl Fn(u64) -> bool) -> Vec<u64> {
        let running: Vec<usize> = (0..VALIDATORS).filter(|index| self.nodes[*index].is_some()).collect();
        running
            .into_iter()
            .map(|index| {
                let mut client = self.client(index);
                wait_until(&format!("node{index}: {what}"), || {
                    self.assert_alive();
                    client.height().ok().filter(|height| wanted(*height))
                })
            })
            .collect()
    }

    /// The address of a validator.
    pub fn address(&self, index: usize) -> String {
        let path = self.home(index).join("config/priv_validator_key.json");
        let key: Value = serde_json::from_slice(&std::fs::read(path).expect("a key file")).expect("JSON");
        key["address"].as_str().expect("an address").to_owned()
    }

    /// Asserts that all nodes, which have these heights, have the same blocks and the same state there.
    #[track_caller]
    pub fn assert_same(&self, heights: impl IntoIterator<Item = u64>) {
        let mut clients = self.clients();
        for height in heights {
            let hashes: Vec<_> = clients.iter_mut().map(|client| client.hashes(height).expect("a block they all have")).collect();
            assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "a fork at height {height}: {hashes:?}");
        }
    }

    /// Submits transactions that begin with this text to a node until one is committed: its hash and height. For a node that
    /// has just started, or is being attacked.
    #[track_caller]
    pub fn commit_tx(&self, index: usize, tx: &str) -> (String, u64) {
        let mut client = self.client(index);
        // What came of a try that was not answered is not known, so that the next one is another transaction.
        let mut tries = 0..;
        wait_until(&format!("node{index} commits {tx}"), || client.commit_tx(&format!("{tx}-{}", tries.next()?)).ok())
    }
}

/// How long after a heal the first commit may take: connections are back within [`RECONNECT`], and then rounds fail at most while
/// validators find into one round, each of them lasting as long as its timeouts: twice the sum over k = 0..f+1 of propose,
/// prevote and precommit at round r* + k, with r* the highest round at the heal. `home` is any validator's.
pub fn heal_bound(home: &Path, highest_round: u64) -> Duration {
    let genesis: Value = serde_json::from_slice(&std::fs::read(home.join("config/genesis.json")).expect("a genesis")).expect("JSON");
    let ms = |name: &str| {
        let value = find(&genesis, name).unwrap_or_else(|| panic!("genesis has no {name}: {genesis}"));
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).expect("milliseconds")
    };
    let cap = ms("timeout_cap_ms");
    let step = |name: &str, round: u64| (ms(&format!("timeout_{name}_ms")) + ms(&format!("timeout_{name}_delta_ms")) * round).min(cap);
    let rounds = highest_round..=highest_round + FAULTY + 1;
    let sum: u64 = rounds.map(|round| step("propose", round) + 2 * step("vote", round)).sum();
    RECONNECT + Duration::from_millis(2 * sum)
}

/// A field by its name, wherever it is.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    fields.get(name).or_else(|| fields.values().find_map(|inner| find(inner, name)))
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}
