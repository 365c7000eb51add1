//! A network whose machines lie in network namespaces, so that its cables can be cut: partitions that no socket is told of.
//!
//! This needs root and `ip netns`, so it runs only where `LOCKSTEP_NETNS=1` asks for it, and says so where it does not.
//! Everything lies in namespaces of its own, the switch too; the network of this machine is not touched.
//!
//! ```text
//!   node0 ─┐        cable        ┌─ node2
//!          ├─ left ═══════ right ┤           left and right are bridges in the switch's namespace
//!   node1 ─┘                     └─ node3
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use lockstep_tests::load::{Load, Via};
use lockstep_tests::net::{RECONNECT, VALIDATORS, heal_bound};
use lockstep_tests::program::{Process, command_in, run, text, wait_until};
use lockstep_tests::rpc::{Client, Endpoint};
use tempfile::TempDir;

/// How far the others go on without one that is cut off.
const GAP: u64 = 500;
/// Namespaces and the cables between them. They go when this is dropped.
struct Cables {
    names: Vec<String>,
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {}", String::from_utf8_lossy(&output.stderr))) }
}

impl Cables {
    fn lay() -> Result<Self, String> {
        let id = std::process::id();
        let mut cables = Self { names: Vec::new() };
        let switch = format!("lockstep-{id}-switch");
        cables.add(&switch)?;
        for bridge in ["left", "right"] {
            ip(&format!("-n {switch} link add {bridge} type bridge"))?;
            ip(&format!("-n {switch} link set {bridge} up"))?;
        }
        ip(&format!("-n {switch} link add cable-l type veth peer name cable-r"))?;
        for (end, bridge) in [("cable-l", "left"), ("cable-r", "right")] {
            ip(&format!("-n {switch} link set {end} master {bridge} up"))?;
        }
        for index in 0..VALIDATORS {
            let name = format!("lockstep-{id}-{index}");
            cables.add(&name)?;
            let bridge = if index < VALIDATORS / 2 { "left" } else { "right" };
            ip(&format!("link add eth0 netns {name} type veth peer name port{index} netns {switch}"))?;
            ip(&format!("-n {switch} link set port{index} master {bridge} up"))?;
            ip(&format!("-n {name} addr add {}/24 dev eth0", address(index)))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(cables)
    }

    fn add(&mut self, name: &str) -> Result<(), String> {
        ip(&format!("netns add {name}"))?;
        self.names.push(name.to_owned());
        Ok(())
    }

    fn switch(&self) -> &str {
        &self.names[0]
    }

    fn of(&self, index: usize) -> &str {
        &self.names[1 + index]
    }

    /// Cuts or mends a cable of the switch.
    fn set(&self, link: &str, state: &str) {
        ip(&format!("-n {} link set {link} {state}", self.switch())).expect("a cable of ours");
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 1 + u8::try_from(index).expect("few validators"))
}

/// Four machines. Processes end before their folder and their cables go.
struct Machines {
    nodes: Vec<Process>,
    folder: TempDir,
    cables: Cables,
}

impl Machines {
    fn start(cables: Cables) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        run(["testnet", "--output", text(&folder.path().join("net")), "--starting-ip", &address(0).to_string()]).done();
        let mut machines = Self { nodes: Vec::new(), folder, cables };
        for index in 0..VALIDATORS {
            let home = machines.home(index);
            let start = command_in(machines.cables.of(index), ["start", "--home", text(&home)]);
            machines.nodes.push(Process::start(start, home.join("node.log")));
        }
        for index in 0..VALIDATORS {
            let mut client = machines.client(index);
            wait_until("the first block", || client.height().ok().filter(|height| *height >= 1));
        }
        machines
    }

    fn home(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("net/node{index}"))
    }

    /// Clients come over the loopback of each machine: no cut reaches them.
    fn endpoint(&self, index: usize) -> Endpoint {
        Endpoint { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 26_657)), namespace: Some(self.cables.of(index).to_owned()) }
    }

    fn client(&self, index: usize) -> Client {
        Client::new(self.endpoint(index))
    }

    fn heights(&self) -> Vec<u64> {
        (0..VALIDATORS).map(|index| self.client(index).height().expect("it serves")).collect()
    }

    /// Asserts that all run, and waits until all have this height; all blocks up to there are the same.
    fn assert_one_chain(&mut self, height: u64) {
        let mut clients: Vec<Client> = (0..VALIDATORS).map(|index| self.client(index)).collect();
        for client in &mut clients {
            wait_until("the height of the others", || client.height().ok().filter(|at| *at >= height));
        }
        for height in 1..=height {
            let hashes: Vec<_> = clients.iter_mut().map(|client| client.hashes(height).expect("a block")).collect();
            assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "a fork at height {height}: {hashes:?}");
        }
        for node in &mut self.nodes {
            assert_eq!(node.exit_code(), None, "{}", node.log());
        }
    }

    /// How long after the heal the first commit may take.
    fn bound(&self) -> Duration {
        let highest = (0..VALIDATORS).map(|index| self.client(index).metric("lockstep_consensus_round").expect("a round")).max();
        heal_bound(&self.home(0), highest.expect("four validators"))
    }
}

/// The cables, or why there are none.
fn cables() -> Option<Cables> {
    if std::env::var_os("LOCKSTEP_NETNS").is_none_or(|value| value != "1") {
        println!("skipped: network namespaces are used only with LOCKSTEP_NETNS=1");
        return None;
    }
    Cables::lay().map_err(|error| println!("skipped: needs root and ip netns: {error}")).ok()
}

#[test]
fn two_halves_commit_nothing_and_one_that_is_cut_off_catches_up() {
    let Some(cables) = cables() else { return };
    let mut machines = Machines::start(cables);
    let all: Vec<Endpoint> = (0..VALIDATORS).map(|index| machines.endpoint(index)).collect();

    // Two and two. Rounds need more than two thirds, so nothing is decided, however long it lasts. A height that was being decided
    // when the cable was cut may still be known to one half only.
    let load = Load::start(&all, 8, Some(100.0), Via::Sync, "halves");
    let before = machines.heights();
    let mut client = machines.client(0);
    wait_until("some blocks under load", || client.height().ok().filter(|height| *height >= before[0] + 20));
    machines.cables.set("cable-l", "down");
    let parted = Instant::now();
    wait_until("the halves have lost each other", || {
        let alone = |index| machines.client(index).metric("lockstep_peers").expect("a number") == 1;
        (0..VALIDATORS).all(alone).then_some(())
    });
    let still = machines.heights();
    // Several rounds' time, in which a wrong quorum would decide: no event says that nothing happened.
    let quiet = machines.bound().saturating_sub(RECONNECT);
    wait_until("a partition that lasts", || (parted.elapsed() >= quiet).then_some(()));
    assert_eq!(machines.heights(), still, "half of the power decides nothing");
    let (lowest, highest) = (still.iter().min().expect("four"), *still.iter().max().expect("four"));
    assert!(highest - lowest <= 1, "the halves stopped at one height, or with its decision under way: {still:?}");

    let bound = machines.bound();
    let lasted = parted.elapsed();
    machines.cables.set("cable-l", "up");
    let healed = Instant::now();
    wait_until("the first commit", || machines.heights().into_iter().all(|height| height > highest).then_some(()));
    let first = healed.elapsed();
    println!(
        "measured: 2|2 for {:.1} s at heights {still:?}; healed, the first commit on all came after {:.2} s, of a bound of {:.2} s",
        lasted.as_secs_f64(),
        first.as_secs_f64(),
        bound.as_secs_f64()
    );
    assert!(first <= bound, "{first:?} is beyond the bound of {bound:?}");
    load.stop();
    machines.assert_one_chain(highest + 1);

    // One is cut off under load, and comes back without a restart.
    let others = &all[..VALIDATORS - 1];
    let load = Load::start(others, 24, Some(500.0), Via::Sync, "alone");
    let last = format!("port{}", VALIDATORS - 1);
    machines.cables.set(&last, "down");
    let mut cut = machines.client(VALIDATORS - 1);
    let stopped_at = cut.height().expect("it serves");
    wait_until("the others are far ahead", || client.height().ok().filter(|height| *height >= stopped_at + GAP));
    machines.cables.set(&last, "up");
    let healed = Instant::now();
    let behind = client.height().expect("it serves") - cut.height().expect("it serves");
    let own = wait_until("it has caught up", || {
        let own = cut.height().ok()?;
        (own + 1 >= client.height().expect("it serves")).then_some(own)
    });
    println!(
        "measured: one of four cut off for {behind} blocks under 500 tx/s caught up {:.2} s after the cable was mended, without a restart",
        healed.elapsed().as_secs_f64()
    );
    load.stop();
    machines.assert_one_chain(own);
}
