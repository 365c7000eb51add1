//! Fifty peers with valid handshakes that send at line rate whatever a node should not suffer from, while clients use the network.
//! The flooder is a process of its own, so that what it takes of the machine is told from what the nodes take.
//!
//! `LOCKSTEP_FLOOD_SECONDS` says how long (by default a few seconds), `LOCKSTEP_FLOOD_TARGETS` how many of the four validators are
//! flooded, each by fifty peers, and `LOCKSTEP_FLOOD_PEERS` which (`tests/examples/flood`).

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use lockstep_tests::load::{Load, Report, Via};
use lockstep_tests::net::{Net, VALIDATORS};
use lockstep_tests::program::{Process, flooder, text, wait_until};

/// What a flooded node may hold.
const RESIDENT_MAX: u64 = 512 << 20;
/// Transactions a second of the clients.
const RATE: f64 = 20.0;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// A light load on all nodes for as long as this.
fn light(net: &mut Net, seconds: Duration, tag: &str, mut look: impl FnMut(&mut Net)) -> Report {
    let endpoints: Vec<SocketAddr> = (0..VALIDATORS).map(|index| net.rpc(index)).collect();
    let load = Load::start(&endpoints, 16, Some(RATE), Via::Commit, tag);
    let begin = Instant::now();
    wait_until("the load is over", || {
        look(net);
        (begin.elapsed() >= seconds).then_some(())
    });
    load.stop()
}

fn latencies(report: &Report) -> String {
    let ms = |percent| report.latency(percent).as_secs_f64() * 1e3;
    format!(
        "p50 {:.1}, p90 {:.1}, p99 {:.1}, max {:.1} ms of {}, failed {:?}",
        ms(50),
        ms(90),
        ms(99),
        ms(100),
        report.acknowledged.len(),
        report.failed
    )
}

#[test]
fn fifty_peers_flood_and_the_network_commits_in_bounded_memory() {
    let seconds = Duration::from_secs(number("LOCKSTEP_FLOOD_SECONDS", 8));
    let targets = usize::try_from(number("LOCKSTEP_FLOOD_TARGETS", 1)).expect("few").clamp(1, VALIDATORS);
    let program = flooder();
    let mut net = Net::started();
    let idle = light(&mut net, seconds.min(Duration::from_secs(60)), "idle", |_| ());
    println!("measured: idle, {RATE} tx/s: {}", latencies(&idle));

    let to: Vec<String> = (0..targets).map(|index| net.p2p(index).to_string()).collect();
    let mut command = Command::new(program);
    let genesis = net.home(0).join("config/genesis.json");
    command.args(["--genesis", text(&genesis), "--to", &to.join(","), "--for", &(seconds.as_secs() + 1).to_string()]);
    if let Ok(peers) = std::env::var("LOCKSTEP_FLOOD_PEERS") {
        command.args(["--peers", &peers]);
    }
    let before: Vec<Duration> = (0..VALIDATORS).map(|index| net.process(index).cpu()).collect();
    let log_before: Vec<u64> = (0..VALIDATORS).map(|index| log_bytes(&net, index)).collect();
    let begin = Instant::now();
    let mut flood = Process::start(command, net.home(0).join("flood.log"));
    let mut seen = Vec::new();
    let flooded = light(&mut net, seconds, "flooded", |net| {
        if seen.len() as u64 <= begin.elapsed().as_secs() {
            seen.push((0..VALIDATORS).map(|index| net.process(index).resident().0 >> 20).collect::<Vec<_>>());
        }
    });
    let lasted = begin.elapsed().as_secs_f64();
    let share = |used: Duration| 100.0 * used.as_secs_f64() / lasted;
    let flooder_share = share(flood.cpu());
    let shares: Vec<String> = (0..VALIDATORS).map(|index| format!("{:.0}", share(net.process(index).cpu() - before[index]))).collect();
    println!("measured: flooded, {RATE} tx/s: {}", latencies(&flooded));
    println!("measured: p99 flooded / idle: {:.2}", flooded.latency(99).as_secs_f64() / idle.latency(99).as_secs_f64());
    println!("measured: per cent of one core: the flooder {flooder_share:.0}, the validators {}", shares.join(", "));
    let peaks: Vec<u64> = (0..VALIDATORS).map(|index| net.process(index).resident().1).collect();
    println!("measured: MiB resident: most {:?}, by the second {seen:?}", peaks.iter().map(|peak| peak >> 20).collect::<Vec<_>>());
    let logged: Vec<u64> = (0..VALIDATORS).map(|index| (log_bytes(&net, index) - log_before[index]) >> 10).collect();
    println!("measured: KiB logged meanwhile: {logged:?}");
    flood.wait();
    println!("measured: what was sent:\n{}", flood.log());
    let (said, answered) = gossip(&flood.log());

    net.assert_alive();
    assert!(peaks.iter().all(|peak| *peak < RESIDENT_MAX), "a node holds more than {RESIDENT_MAX} bytes: {peaks:?}");
    // Twelve say every control message there is, without end: the node says less than it is told (attack 6).
    assert!(said > 0 && answered < said, "{answered} bytes were gossiped back for {said}");
    assert!(flooded.failed.is_empty(), "every client's transaction commits: {:?}", flooded.failed);
    let (_, height) = net.commit_tx(0, "after=flood");
    net.wait_all("the block after", |at| at >= height);
    net.assert_same((1..=height).step_by(20).chain([height]));
}

/// Bytes that were said by gossipsub's flooders whose connections have ended, and what they were answered.
fn gossip(log: &str) -> (u64, u64) {
    let line = log.lines().find(|line| line.starts_with("gossip: ")).expect("it says what was sent");
    let before = |what: &str| -> u64 {
        let (before, _) = line.split_once(what).expect("a count");
        before.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number")
    };
    (before(" bytes"), before(" gossiped"))
}

fn log_bytes(net: &Net, index: usize) -> u64 {
    std::fs::metadata(net.home(index).join("node.log")).map_or(0, |file| file.len())
}
