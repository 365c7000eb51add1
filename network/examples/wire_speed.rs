//! How fast the lanes are: latency of small frames on the votes lane, megabytes per second on the bulk lane, the one while the
//! other is busy, and how soon a restarted node is met again.
//!
//! `cargo run --release -p lockstep-network --example wire_speed` measures between two networks in one process, each on a
//! runtime of its own with one worker. With `-- serve` and `-- <id@host:port>` the same between two processes: the server echoes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lockstep_network::limits::PART_BYTES_MAX;
use lockstep_network::{Config, Event, Events, Handshake, Lane, Limits, Network, Pace, PeerAddr, PeerNo, SendError};

const PINGS: u32 = 20_000;
const IDLE_PINGS: u32 = 1_000;
const BULK_FRAMES: u32 = 16_000;
const SMALL: usize = 256;

fn config(seed: u8, listen: &str) -> Config {
    Config {
        listen: listen.parse().expect("a socket"),
        identity: [seed; 32],
        persistent_peers: Vec::new(),
        handshake: Handshake {
            wire_version: 1,
            chain_id: "speed".to_owned(),
            genesis_hash: [1; 32],
            block_protocol: 11,
            node_version: env!("CARGO_PKG_VERSION").to_owned(),
            moniker: format!("speed-{seed}"),
            rpc_address: String::new(),
            listen_address: String::new(),
            validator: None,
        },
        verify: |_, _, _| false,
        limits: Limits::default(),
        pace: Pace::default(),
    }
}

/// Echoes votes; counts bulk and answers its last frame.
async fn serve(network: Network, mut events: Events) {
    while let Some(event) = events.recv().await {
        if let Event::Received { peer, lane, bytes } = event
            && (lane == Lane::Votes || bytes[0] == LAST)
        {
            // A peer that left needs no echo.
            let _ = network.send(peer, Lane::Votes, bytes.slice(..SMALL.min(bytes.len())));
        }
    }
}

const LAST: u8 = 255;

async fn connected(events: &mut Events) -> PeerNo {
    loop {
        if let Event::Connected { peer, .. } = events.recv().await.expect("the network runs") {
            return peer;
        }
    }
}

async fn echo(events: &mut Events) -> Bytes {
    loop {
        match events.recv().await.expect("the network runs") {
            Event::Received { bytes, .. } => return bytes,
            Event::Disconnected { reason, .. } => panic!("the peer left: {reason}"),
            _ => {}
        }
    }
}

async fn send(network: &Network, peer: PeerNo, lane: Lane, bytes: &Bytes) {
    loop {
        match network.send(peer, lane, bytes.clone()) {
            Ok(()) => return,
            Err(SendError::Full) => tokio::time::sleep(Duration::from_micros(200)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn percentiles(what: &str, mut round_trips: Vec<Duration>) {
    round_trips.sort_unstable();
    let at = |part: usize| round_trips[(round_trips.len() - 1) * part / 1000].as_secs_f64() * 1e6 / 2.0;
    println!(
        "{what}: one way p50 {:.0} us, p99 {:.0} us, max {:.0} us ({} round trips halved)",
        at(500),
        at(990),
        at(1000),
        round_trips.len()
    );
}

async fn ping(network: &Network, peer: PeerNo, events: &mut Events, count: u32, pause: Duration) -> Vec<Duration> {
    let vote = Bytes::from(vec![1; SMALL]);
    let mut round_trips = Vec::new();
    for _ in 0..count {
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let start = Instant::now();
        send(network, peer, Lane::Votes, &vote).await;
        echo(events).await;
        round_trips.push(start.elapsed());
    }
    round_trips
}

async fn measure(network: Network, mut events: Events) {
    let peer = connected(&mut events).await;
    ping(&network, peer, &mut events, 1000, Duration::ZERO).await;
    percentiles("256 B on votes, back to back", ping(&network, peer, &mut events, PINGS, Duration::ZERO).await);
    percentiles("256 B on votes, 500 a second", ping(&network, peer, &mut events, IDLE_PINGS, Duration::from_millis(2)).await);

    let part = Bytes::from(vec![0; PART_BYTES_MAX]);
    let last = Bytes::from(vec![LAST; PART_BYTES_MAX]);
    let start = Instant::now();
    for _ in 1..BULK_FRAMES {
        send(&network, peer, Lane::Bulk, &part).await;
    }
    send(&network, peer, Lane::Bulk, &last).await;
    while echo(&mut events).await[0] != LAST {}
    let megabytes = f64::from(BULK_FRAMES) * PART_BYTES_MAX as f64 / 1e6;
    println!("64 KiB on bulk: {:.0} MB/s", megabytes / start.elapsed().as_secs_f64());

    let flood = {
        let (network, part) = (network.clone(), part.clone());
        tokio::spawn(async move {
            loop {
                send(&network, peer, Lane::Bulk, &part).await;
            }
        })
    };
    percentiles("256 B on votes beside a flood of bulk", ping(&network, peer, &mut events, 2000, Duration::from_millis(1)).await);
    flood.abort();

    const VOTES: u32 = 400_000;
    let vote = Bytes::from(vec![1; SMALL]);
    let start = Instant::now();
    let (mut sent, mut echoed) = (0, 0);
    while echoed < VOTES {
        while sent < VOTES && sent - echoed < 2000 && network.send(peer, Lane::Votes, vote.clone()).is_ok() {
            sent += 1;
        }
        echo(&mut events).await;
        echoed += 1;
    }
    println!("256 B on votes, 2000 in flight: {:.0} k/s there and as many back", f64::from(VOTES) / start.elapsed().as_secs_f64() / 1e3);

    network.shutdown().await;
}

/// How soon `a` has `b` back after `b` was away for `down`; `b` dials too if it has `a`'s address.
async fn reunion(both_dial: bool) {
    let (a, mut a_events) = Network::start(config(11, "127.0.0.1:0")).await.expect("a free port");
    let (mut b, b_events) = Network::start(config(12, "127.0.0.1:0")).await.expect("a free port");
    let address = |network: &Network| {
        let socket = network.listening();
        PeerAddr { node_id: network.node_id(), host: socket.ip().to_string(), port: socket.port() }
    };
    let socket = b.listening();
    a.add_persistent_peer(address(&b)).expect("room");
    tokio::spawn(serve(b.clone(), b_events));
    connected(&mut a_events).await;
    for down in [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(3)] {
        b.shutdown().await;
        tokio::time::sleep(down).await;
        let start = Instant::now();
        let mut again = config(12, &socket.to_string());
        if both_dial {
            again.persistent_peers.push(address(&a));
        }
        let (network, b_events) = Network::start(again).await.expect("the port is free again");
        b = network;
        tokio::spawn(serve(b.clone(), b_events));
        connected(&mut a_events).await;
        let who = if both_dial { "both dial" } else { "only the other side dials" };
        println!("a node down for {down:?}, {who}: connected {:.0} ms after its start", start.elapsed().as_secs_f64() * 1e3);
    }
    b.shutdown().await;
    a.shutdown().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn main() {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        Some("serve") => runtime().block_on(async {
            let (network, events) = Network::start(config(2, "127.0.0.1:0")).await.expect("a free port");
            println!("{}@{}", network.node_id(), network.listening());
            tokio::spawn(serve(network, events)).await.expect("it serves");
        }),
        Some(address) => {
            let address: PeerAddr = address.parse().expect("id@host:port");
            runtime().block_on(async {
                let mut client = config(1, "127.0.0.1:0");
                client.persistent_peers.push(address);
                let (network, events) = Network::start(client).await.expect("a free port");
                tokio::spawn(measure(network, events)).await.expect("it measures");
            });
        }
        None => {
            let server = runtime();
            let (network, events) = server.block_on(Network::start(config(2, "127.0.0.1:0"))).expect("a free port");
            let (node_id, socket) = (network.node_id(), network.listening());
            server.spawn(serve(network, events));
            let mut client = config(1, "127.0.0.1:0");
            client.persistent_peers.push(PeerAddr { node_id, host: socket.ip().to_string(), port: socket.port() });
            runtime().block_on(async {
                let (network, events) = Network::start(client).await.expect("a free port");
                tokio::spawn(measure(network, events)).await.expect("it measures");
                tokio::spawn(reunion(false)).await.expect("it measures");
                tokio::spawn(reunion(true)).await.expect("it measures");
            });
        }
    }
}
