//! Nodes that remember their events, and a peer whose bytes the test writes itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use libp2p::Stream;
use libp2p::futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::identity::{Keypair, ed25519};
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::DialOpts;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::door::{LaneStream, multiaddr_of};
use crate::handshake::{Hello, Opening};
use crate::shared::Shared;
use crate::swarm::{ConnectionTasks, build};
use crate::{Config, Event, Events, Handshake, Lane, Limits, Network, NodeId, Pace, PeerAddr, PeerNo, ValidatorBinding, binding_message};

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn handshake() -> Handshake {
    Handshake {
        wire_version: 1,
        chain_id: "test-chain".to_owned(),
        genesis_hash: [7; 32],
        block_protocol: 11,
        node_version: "0.1.0".to_owned(),
        moniker: "node".to_owned(),
        rpc_address: "127.0.0.1:26657".to_owned(),
        listen_address: String::new(),
        validator: None,
    }
}

pub(crate) fn verify(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    ed25519::PublicKey::try_from_bytes(public_key).is_ok_and(|key| key.verify(message, signature))
}

pub(crate) fn keys(seed: [u8; 32]) -> ed25519::Keypair {
    let mut seed = seed;
    ed25519::Keypair::from(ed25519::SecretKey::try_from_bytes(&mut seed).expect("32 bytes"))
}

pub(crate) fn node_key(seed: [u8; 32]) -> [u8; 32] {
    keys(seed).public().to_bytes()
}

/// By the validator with the seed `[validator; 32]`, for the node with the key `node_public_key`.
pub(crate) fn bind(handshake: &Handshake, validator: u8, node_public_key: &[u8; 32]) -> ValidatorBinding {
    let validator = keys([validator; 32]);
    let message = binding_message(&handshake.chain_id, &handshake.genesis_hash, node_public_key);
    let signature = validator.sign(&message).try_into().expect("an ed25519 signature has 64 bytes");
    ValidatorBinding { public_key: validator.public().to_bytes(), signature }
}

/// Most tests are not about how fast a stranger is read, and send as fast as they can.
pub(crate) fn unmetered() -> Limits {
    Limits { stranger_bytes_per_s: u64::MAX, strangers_bytes_per_s: u64::MAX, ..Limits::default() }
}

pub(crate) fn config(seed: u8) -> Config {
    Config {
        listen: "127.0.0.1:0".parse().expect("a socket"),
        identity: [seed; 32],
        persistent_peers: Vec::new(),
        handshake: handshake(),
        verify,
        limits: unmetered(),
        pace: Pace::default(),
    }
}

/// A node, the events it has not been asked about yet, and who is connected by them.
pub(crate) struct Node {
    pub(crate) network: Network,
    pub(crate) connected: BTreeMap<NodeId, PeerNo>,
    /// Connections that others have replaced, whose end is still to be told.
    replaced: BTreeSet<PeerNo>,
    /// Connections for which a validator's key vouches.
    vouched: BTreeSet<PeerNo>,
    events: Events,
    unseen: VecDeque<Event>,
}

impl Node {
    pub(crate) async fn start(config: Config) -> Self {
        let (network, events) = Network::start(config).await.expect("a free port");
        Self { network, connected: BTreeMap::new(), replaced: BTreeSet::new(), vouched: BTreeSet::new(), events, unseen: VecDeque::new() }
    }

    pub(crate) async fn seeded(seed: u8) -> Self {
        Self::start(config(seed)).await
    }

    pub(crate) fn id(&self) -> NodeId {
        self.network.node_id()
    }

    pub(crate) fn address(&self) -> PeerAddr {
        let listening = self.network.listening();
        PeerAddr { node_id: self.id(), host: listening.ip().to_string(), port: listening.port() }
    }

    pub(crate) fn dial(&self, address: PeerAddr) {
        self.network.add_persistent_peer(address).expect("room for a command");
    }

    /// The next event as it comes.
    pub(crate) async fn next(&mut self) -> Event {
        let event = timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("the network runs");
        match &event {
            Event::Connected { peer, info } => {
                if info.handshake.validator.is_some() {
                    self.vouched.insert(*peer);
                }
                if let Some(old) = self.connected.insert(info.node_id, *peer) {
                    assert_ne!(self.vouched.contains(&old), self.vouched.contains(peer), "two connections at once, in one queue");
                    self.replaced.insert(old);
                }
            }
            Event::Disconnected { peer, node_id, .. } => {
                if !self.replaced.remove(peer) {
                    assert_eq!(self.connected.remove(node_id), Some(*peer), "whoever leaves was there");
                }
            }
            Event::Received { peer, .. } | Event::Gossip { peer, .. } | Event::Request { peer, .. } => {
                let is_there = self.connected.values().any(|connected| connected == peer) || self.replaced.contains(peer);
                assert!(is_there, "something from nobody");
            }
            Event::Response { .. } | Event::Refused { .. } => {}
        }
        event
    }

    /// The first event, seen or to come, that `wanted` makes something of. It is taken; the others stay.
    pub(crate) async fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        for at in 0..self.unseen.len() {
            if let Some(found) = wanted(&self.unseen[at]) {
                self.unseen.remove(at);
                return found;
            }
        }
        let search = async {
            loop {
                let event = self.next().await;
                match wanted(&event) {
                    Some(found) => return found,
                    None => self.unseen.push_back(event),
                }
            }
        };
        timeout(DEADLINE, search).await.unwrap_or_else(|_| panic!("no {what} in time"))
    }

    /// Keeps an event for a later `wait`.
    pub(crate) fn set_aside(&mut self, event: Event) {
        self.unseen.push_back(event);
    }

    pub(crate) async fn peer(&mut self, node: NodeId) -> PeerNo {
        loop {
            if let Some(peer) = self.connected.get(&node) {
                return *peer;
            }
            let event = self.next().await;
            self.unseen.push_back(event);
        }
    }

    pub(crate) async fn frame(&mut self) -> (PeerNo, Lane, Bytes) {
        self.wait("frame", |event| match event {
            Event::Received { peer, lane, bytes } => Some((*peer, *lane, bytes.clone())),
            _ => None,
        })
        .await
    }

    pub(crate) async fn refusal(&mut self) -> crate::Reason {
        self.wait("refusal", |event| match event {
            Event::Refused { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn goodbye(&mut self, node: NodeId) -> crate::Reason {
        self.wait("disconnect", |event| match event {
            Event::Disconnected { node_id, reason, .. } if *node_id == node => Some(reason.clone()),
            _ => None,
        })
        .await
    }
}

/// Waits until both know each other, and returns how each calls the other.
pub(crate) async fn meet(a: &mut Node, b: &mut Node) -> (PeerNo, PeerNo) {
    let (a_id, b_id) = (a.id(), b.id());
    tokio::join!(a.peer(b_id), b.peer(a_id))
}

/// A frame from `a` to `b` and back: both know each other, and all that was sent before on this lane has arrived.
pub(crate) async fn round_trip(a: &mut Node, b: &mut Node) {
    let (to_b, to_a) = meet(a, b).await;
    for lane in Lane::ALL {
        a.network.send(to_b, lane, Bytes::from_static(b"there")).expect("connected");
        assert_eq!(b.frame().await, (to_a, lane, Bytes::from_static(b"there")));
        b.network.send(to_a, lane, Bytes::from_static(b"back")).expect("connected");
        assert_eq!(a.frame().await, (to_b, lane, Bytes::from_static(b"back")));
    }
}

/// A peer past Noise that speaks by hand from there on.
pub(crate) struct RawPeer {
    pub(crate) id: NodeId,
    pub(crate) outbound: Vec<Stream>,
    pub(crate) inbound: Vec<Stream>,
    swarm: tokio::task::JoinHandle<()>,
}

impl Drop for RawPeer {
    fn drop(&mut self) {
        self.swarm.abort();
    }
}

impl RawPeer {
    /// Dials and takes all four streams, on which nothing has been said yet.
    pub(crate) async fn dial(seed: u8, socket: SocketAddr) -> Self {
        let keys = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        let id = NodeId::of_public_key(&node_key([seed; 32]));
        let shared = Arc::new(Shared::new(id, handshake(), verify, Limits::default(), Pace::default()));
        assert!(OnceLock::set(&shared.listening, socket).is_ok());
        let mut swarm = build(&shared, &keys, &ConnectionTasks::default()).expect("a swarm");
        swarm.dial(DialOpts::unknown_peer_id().address(multiaddr_of(socket)).build()).expect("a dial");
        let (to_test, mut arrived) = mpsc::channel::<mpsc::Receiver<LaneStream>>(1);
        let task = tokio::spawn(async move {
            loop {
                if let SwarmEvent::ConnectionEstablished { connection_id, .. } = swarm.select_next_some().await {
                    let streams = swarm.behaviour_mut().door.take_streams(connection_id).expect("streams of a new connection");
                    to_test.send(streams).await.expect("the test waits");
                }
            }
        });
        let mut raw = Self { id, outbound: Vec::new(), inbound: Vec::new(), swarm: task };
        let mut streams = timeout(DEADLINE, arrived.recv()).await.expect("a connection in time").expect("a connection");
        for _ in 0..4 {
            match timeout(DEADLINE, streams.recv()).await.expect("a stream in time").expect("four streams") {
                LaneStream::Inbound(stream) => raw.inbound.push(stream),
                LaneStream::Outbound(stream) => raw.outbound.push(stream),
                LaneStream::Failed => panic!("no stream"),
            }
        }
        raw
    }

    /// Opens both lanes both ways as a correct node does. Index 0 of `outbound` is the votes lane then.
    pub(crate) async fn become_peer(&mut self) {
        let hello = Hello { handshake: handshake(), instance: 1 };
        for (at, opening) in [Opening::Votes(Box::new(hello)), Opening::Bulk].into_iter().enumerate() {
            self.say(at, &framed(&opening.encode())).await;
        }
        for stream in &mut self.inbound {
            let mut length = [0; 4];
            stream.read_exact(&mut length).await.expect("an opening");
            let mut body = vec![0; usize::try_from(u32::from_le_bytes(length)).expect("short")];
            stream.read_exact(&mut body).await.expect("an opening");
            Opening::decode(&body).expect("a good opening");
            stream.write_all(&[0]).await.expect("an open stream");
            stream.flush().await.expect("an open stream");
        }
        for at in 0..2 {
            assert_eq!(self.verdict(at).await, Some(0));
        }
    }

    pub(crate) async fn say(&mut self, at: usize, bytes: &[u8]) {
        self.outbound[at].write_all(bytes).await.expect("an open stream");
        self.outbound[at].flush().await.expect("an open stream");
    }

    /// The byte that answers an opening message, if one comes before the end.
    pub(crate) async fn verdict(&mut self, at: usize) -> Option<u8> {
        let mut verdict = [0];
        let read = timeout(DEADLINE, self.outbound[at].read(&mut verdict)).await.expect("an answer in time");
        (read.ok()? == 1).then_some(verdict[0])
    }
}

/// With its length in front.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).expect("short").to_le_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}
