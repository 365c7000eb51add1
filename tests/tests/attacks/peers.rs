//! What anybody who reaches the port for peers can do, over loopback TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use libp2p::futures::AsyncWriteExt as _;
use lockstep_network::{Config, Event, Events, Handshake, Limits, Network, NodeId, Pace, PeerAddr, Reason, Refusal, Verdict};
use lockstep_types::crypto::{PublicKey, Signature, verify};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::hand::{GOSSIP, HandPeer, rpc};

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

/// What came to the node of attack 6, told as it comes.
#[derive(Default)]
struct Told {
    /// Batches of the friend.
    friends: AtomicU64,
    /// Why connections ended.
    ended: std::sync::Mutex<Vec<(NodeId, Reason)>>,
}

/// Publishes until the node hears one more: gossip is lossy, and a mesh is made with each heartbeat.
async fn is_heard(friend: &Network, told: &Told, looks: &mut watch::Receiver<()>) {
    let before = told.friends.load(Ordering::Relaxed);
    let heard = async {
        for number in 0_u64.. {
            friend.publish(Bytes::from(format!("of the friend {before} {number}"))).expect("room");
            let news = tokio::time::timeout(Duration::from_millis(100), looks.changed()).await;
            if matches!(news, Ok(Ok(()))) && told.friends.load(Ordering::Relaxed) > before {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, heard).await.expect("the friend is heard in time");
}

/// Subscriptions, IHAVE, IWANT, IDONTWANT, GRAFT and PRUNE without end, empty ones by the thousand, messages that are none: the node goes
/// on hearing its friend, and says less than it is told. Control messages beyond gossipsub's bound end the stream and not the
/// node, and whoever sends batches that are refused is thrown out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_06_control_messages_without_end_cost_their_sender_more_than_the_node() {
    const ROUNDS: u64 = 24;
    let (node, mut events) = start(1, Limits::default(), handshake()).await;
    let (friend, mut friends) = start(2, Limits::default(), handshake()).await;
    dial(&friend, &node);
    tokio::join!(meets(&mut events, &friend), meets(&mut friends, &node));
    let told = Arc::new(Told::default());
    let (news, mut looks) = watch::channel(());
    let (seen, reporter) = (Arc::clone(&told), node.clone());
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                Event::Gossip { id, bytes, .. } if bytes.starts_with(b"of the friend") => {
                    reporter.report(id, Verdict::Accept).expect("room");
                    seen.friends.fetch_add(1, Ordering::Relaxed);
                }
                Event::Gossip { id, .. } => reporter.report(id, Verdict::Reject).expect("room"),
                Event::Disconnected { node_id, reason, .. } => seen.ended.lock().expect("no panic").push((node_id, reason)),
                _ => {}
            }
            news.send_replace(());
        }
    });
    is_heard(&friend, &told, &mut looks).await;

    let topic = b"/lockstep/test-chain/0707070707070707/batches/1";
    let mut hostile = HandPeer::dial([66; 32], node.listening()).await.expect("a connection");
    let (mut outbound, _inbound) = hostile.become_peer(&handshake()).await.expect("a good handshake");
    let mut stream = hostile.open(GOSSIP).await.expect("gossipsub is spoken");
    let mut sent = 0;
    for round in 0..ROUNDS {
        let nuisance = rpc::nuisance(topic, round).concat();
        stream.write_all(&nuisance).await.expect("the node reads on");
        stream.flush().await.expect("the node reads on");
        outbound[0].write_all(&[1, 0, 0, 0, 0]).await.expect("a heartbeat");
        outbound[0].flush().await.expect("a heartbeat");
        sent += nuisance.len() as u64;
        if round % 8 == 0 {
            is_heard(&friend, &told, &mut looks).await;
        }
    }
    is_heard(&friend, &told, &mut looks).await;
    let said = hostile.gossiped();
    println!("measured: {sent} bytes of control messages and none: the node said {said}");
    assert!(said < sent / 2, "the node says less than it is told: {said} for {sent}");

    // One byte of control messages too many, and one message: the stream ends. So often that gossipsub takes no further one.
    for at in 0..8 {
        let Ok(mut again) = hostile.open(GOSSIP).await else { break };
        let beyond = if at % 2 == 0 {
            rpc::rpc(&[rpc::control(&vec![rpc::bytes(1, &[]); 8_200])])
        } else {
            rpc::rpc(&vec![rpc::bytes(2, &[]); 5_001])
        };
        // The node may close it at any byte.
        let _ = again.write_all(&beyond).await;
        let _ = again.flush().await;
    }
    is_heard(&friend, &told, &mut looks).await;
    drop(hostile);

    // Batches that the node refuses.
    let mut liar = HandPeer::dial([67; 32], node.listening()).await.expect("a connection");
    let _lanes = liar.become_peer(&handshake()).await.expect("a good handshake");
    let mut stream = liar.open(GOSSIP).await.expect("gossipsub is spoken");
    let batches: Vec<Vec<u8>> = (0..8_u8).map(|number| rpc::publish(topic, &[number; 100], &[])).collect();
    stream.write_all(&rpc::rpc(&batches)).await.expect("an open stream");
    stream.flush().await.expect("an open stream");
    let thrown_out = async {
        let is_banned = |(_, reason): &(NodeId, Reason)| matches!(reason, Reason::Banned(_));
        while !told.ended.lock().expect("no panic").iter().any(is_banned) {
            looks.changed().await.expect("the node runs");
        }
    };
    tokio::time::timeout(DEADLINE, thrown_out).await.expect("in time");
    is_heard(&friend, &told, &mut looks).await;
    let ended = told.ended.lock().expect("no panic").iter().any(|(node_id, _)| *node_id == friend.node_id());
    assert!(!ended, "the friend was there all the time");
    assert_eq!(node.totals().swarm_restarts, 0, "nothing panicked");
}
