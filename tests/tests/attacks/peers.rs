//! What anybody who reaches the port for peers can do, over loopback TCP.

use std::net::SocketAddr;
use std::time::Duration;

use lockstep_network::{Config, Event, Events, Handshake, Limits, Network, Pace, PeerAddr, Reason, Refusal};
use lockstep_types::crypto::{PublicKey, Signature, verify};
use tokio::net::TcpStream;

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn handshake() -> Handshake {
    Handshake {
        wire_version: 1,
        chain_id: "test-chain".to_owned(),
        genesis_hash: [7; 32],
        block_protocol: 11,
        node_version: "0.1.0".to_owned(),
        moniker: "node".to_owned(),
        rpc_address: String::new(),
        listen_address: String::new(),
        validator: None,
    }
}

fn is_valid(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    verify(&PublicKey(*public_key), message, &Signature(*signature))
}

async fn start(seed: u8, limits: Limits, handshake: Handshake) -> (Network, Events) {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config =
        Config { listen, identity: [seed; 32], persistent_peers: Vec::new(), handshake, verify: is_valid, limits, pace: Pace::default() };
    Network::start(config).await.expect("a free port")
}

fn dial(from: &Network, to: &Network) {
    let listening = to.listening();
    let address = PeerAddr { node_id: to.node_id(), host: listening.ip().to_string(), port: listening.port() };
    from.add_persistent_peer(address).expect("room for a command");
}

async fn next(events: &mut Events) -> Event {
    tokio::time::timeout(DEADLINE, events.recv()).await.expect("an event in time").expect("the network runs")
}

async fn meets(events: &mut Events, other: &Network) {
    loop {
        if matches!(next(events).await, Event::Connected { info, .. } if info.node_id == other.node_id()) {
            return;
        }
    }
}

/// Five thousand sockets, hundreds of them open at a time, half of which say something that is no handshake: every place is
/// free again, and an honest peer is let in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_01_five_thousand_dials_leave_room_for_an_honest_peer() {
    use tokio::io::AsyncWriteExt as _;
    const AT_ONCE: u64 = 250;
    const DIALS: u64 = 5_000;
    let limits = Limits { pending_max: 64, loopback_exempt: true, ..Limits::default() };
    let (node, mut events) = start(1, limits, handshake()).await;
    for batch in 1..=DIALS / AT_ONCE {
        let mut open = Vec::new();
        for number in 0..AT_ONCE {
            let mut socket = TcpStream::connect(node.listening()).await.expect("the kernel accepts");
            if number % 2 == 0 {
                // Whether the node has closed it by now is its business.
                let _ = socket.write_all(b"\x13/multistream/1.0.0\n\x07/no").await;
            }
            open.push(socket);
        }
        drop(open);
        // Each is counted when its place is given back.
        while node.totals().connections_refused < batch * AT_ONCE {
            tokio::task::yield_now().await;
        }
    }
    assert!(node.peers().is_empty());
    let (friend, mut friends) = start(2, Limits::default(), handshake()).await;
    dial(&friend, &node);
    tokio::join!(meets(&mut events, &friend), meets(&mut friends, &node));
}

/// Fifty identities take every place that is open to all; the validators' places and the operator's peers stay theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_02_many_identities_do_not_take_the_places_of_others() {
    let limits = Limits { peers_max: 4, validators_max: 1, ..Limits::default() };
    let (node, mut events) = start(1, limits, handshake()).await;
    let mut crowd = Vec::new();
    let mut refused = 0;
    for seed in 10..20 {
        let (network, mut theirs) = start(seed, Limits::default(), handshake()).await;
        dial(&network, &node);
        if crowd.len() < 4 {
            meets(&mut theirs, &node).await;
            crowd.push(network);
        } else {
            // It is told so, and goes on dialling until it is gone.
            loop {
                if let Event::Refused { reason, .. } = next(&mut theirs).await {
                    assert_eq!(reason, Reason::RefusedByPeer(Refusal::NoPlace));
                    break;
                }
            }
            refused += 1;
        }
    }
    assert_eq!((node.peers().len(), refused), (4, 6));
    let (named, mut theirs) = start(2, Limits::default(), handshake()).await;
    dial(&node, &named);
    tokio::join!(meets(&mut events, &named), meets(&mut theirs, &node));
    assert!(crowd.iter().all(|peer| !peer.peers().is_empty()), "and nobody was pushed out for it");
}
