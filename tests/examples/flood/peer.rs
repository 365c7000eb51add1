//! A peer of which every byte above Noise and yamux is written by hand: streams of whatever protocol, and on them whatever bytes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{ReadyUpgrade, SelectUpgrade};
use libp2p::futures::future::Either;
use libp2p::futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol,
    SubstreamProtocol, SwarmEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, SwarmBuilder, multiaddr, noise, tcp, yamux};
use lockstep_network::Handshake;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// The lanes' protocol (`docs/format-network.md`).
pub(crate) const LANE: StreamProtocol = StreamProtocol::new("/lockstep/lane/1");
/// Questions and answers.
pub(crate) const EXCHANGE: StreamProtocol = StreamProtocol::new("/lockstep/exchange/1");
/// One of gossipsub's own.
pub(crate) const GOSSIP: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");
/// What a node may take to say anything.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A connection past Noise.
pub(crate) struct HandPeer {
    wanted: mpsc::UnboundedSender<Wanted>,
    lanes: mpsc::UnboundedReceiver<Stream>,
    /// Bytes that the node said by gossipsub.
    gossiped: Arc<AtomicU64>,
    swarm: tokio::task::JoinHandle<()>,
}

impl Drop for HandPeer {
    fn drop(&mut self) {
        self.swarm.abort();
    }
}

/// A stream that is to be opened, and who waits for it.
type Wanted = (StreamProtocol, oneshot::Sender<Stream>);

/// The behaviour of a swarm of one connection, which hands out its streams and takes every one that comes.
struct Hands(Option<Hand>);

impl NetworkBehaviour for Hands {
    type ConnectionHandler = Hand;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Hand, ConnectionDenied> {
        Err(ConnectionDenied::new(broken("nobody is to come")))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Hand, ConnectionDenied> {
        self.0.take().ok_or_else(|| ConnectionDenied::new(broken("one connection was dialled")))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: Infallible) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
        Poll::Pending
    }
}

struct Hand {
    is_up: Option<oneshot::Sender<()>>,
    lanes: mpsc::UnboundedSender<Stream>,
    gossiped: Arc<AtomicU64>,
    wanted: mpsc::UnboundedReceiver<Wanted>,
    under_way: BTreeMap<u64, oneshot::Sender<Stream>>,
    count: u64,
}

impl ConnectionHandler for Hand {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = SelectUpgrade<ReadyUpgrade<StreamProtocol>, ReadyUpgrade<StreamProtocol>>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = u64;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(SelectUpgrade::new(ReadyUpgrade::new(LANE), ReadyUpgrade::new(GOSSIP)), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, u64, Infallible>> {
        if let Some(is_up) = self.is_up.take() {
            // Who dialled may have given up.
            let _ = is_up.send(());
        }
        match self.wanted.poll_recv(cx) {
            Poll::Ready(Some((protocol, answer))) => {
                self.count += 1;
                self.under_way.insert(self.count, answer);
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(protocol), self.count);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            _ => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), u64>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(inbound) => match inbound.protocol {
                Either::Left(stream) => drop(self.lanes.send(stream)),
                Either::Right(stream) => drop(tokio::spawn(count(stream, Arc::clone(&self.gossiped)))),
            },
            ConnectionEvent::FullyNegotiatedOutbound(outbound) => {
                if let Some(answer) = self.under_way.remove(&outbound.info) {
                    // Who wanted it may have given up.
                    let _ = answer.send(outbound.protocol);
                }
            }
            ConnectionEvent::DialUpgradeError(error) => drop(self.under_way.remove(&error.info)),
            _ => {}
        }
    }
}

async fn count(mut stream: Stream, heard: Arc<AtomicU64>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count) = stream.read(&mut bytes).await
        && count > 0
    {
        heard.fetch_add(count as u64, Ordering::Relaxed);
    }
}

fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

async fn within<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(ANSWER_WITHIN, work).await.map_err(|_| io::ErrorKind::TimedOut)?
}

impl HandPeer {
    /// Dials as the node with this key seed.
    ///
    /// # Errors
    /// When nobody answers, or the connection is refused before the lanes.
    pub(crate) async fn dial(seed: [u8; 32], to: SocketAddr) -> io::Result<Self> {
        let keys = Keypair::ed25519_from_bytes(seed).map_err(broken)?;
        let (is_up, up) = oneshot::channel();
        let (to_lanes, lanes) = mpsc::unbounded_channel();
        let (wanted, to_handler) = mpsc::unbounded_channel();
        let gossiped = Arc::new(AtomicU64::new(0));
        let hand = Hand {
            is_up: Some(is_up),
            lanes: to_lanes,
            gossiped: Arc::clone(&gossiped),
            wanted: to_handler,
            under_way: BTreeMap::new(),
            count: 0,
        };
        let mut swarm = SwarmBuilder::with_existing_identity(keys)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
            .map_err(broken)?
            .with_behaviour(|_| Hands(Some(hand)))
            .map_err(broken)?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
            .build();
        let address = Multiaddr::from(to.ip()).with(multiaddr::Protocol::Tcp(to.port()));
        swarm.dial(DialOpts::unknown_peer_id().address(address).allocate_new_port().build()).map_err(broken)?;
        let task = tokio::spawn(async move {
            loop {
                let event = swarm.select_next_some().await;
                if matches!(event, SwarmEvent::OutgoingConnectionError { .. } | SwarmEvent::ConnectionClosed { .. }) {
                    return;
                }
            }
        });
        let peer = Self { wanted, lanes, gossiped, swarm: task };
        within(async { up.await.map_err(broken) }).await?;
        Ok(peer)
    }

    /// Bytes that the node said by gossipsub so far.
    pub(crate) fn gossiped(&self) -> u64 {
        self.gossiped.load(Ordering::Relaxed)
    }

    /// A stream of this protocol, on which nothing has been said yet.
    ///
    /// # Errors
    /// When the node is gone or does not speak it.
    pub(crate) async fn open(&mut self, protocol: StreamProtocol) -> io::Result<Stream> {
        let (answer, opened) = oneshot::channel();
        self.wanted.send((protocol, answer)).map_err(broken)?;
        within(async { opened.await.map_err(broken) }).await
    }

    /// Opens both lanes both ways, as a correct node does: those we write, then those we read; votes first in each.
    ///
    /// # Errors
    /// When the node refuses us or is gone.
    pub(crate) async fn become_peer(&mut self, handshake: &Handshake) -> io::Result<([Stream; 2], [Stream; 2])> {
        let mut hello = vec![1, 0];
        borsh::to_writer(&mut hello, handshake)?;
        hello.extend_from_slice(&std::process::id().to_le_bytes().repeat(2));
        let mut outbound = [self.open(LANE).await?, self.open(LANE).await?];
        for (stream, opening) in outbound.iter_mut().zip([hello, vec![1, 1]]) {
            within(stream.write_all(&u32::try_from(opening.len()).map_err(broken)?.to_le_bytes())).await?;
            within(stream.write_all(&opening)).await?;
            within(stream.flush()).await?;
        }
        let mut inbound = [None, None];
        for _ in 0..2 {
            let mut stream = within(async { self.lanes.recv().await.ok_or_else(|| broken("no lane came")) }).await?;
            let mut length = [0; 4];
            within(stream.read_exact(&mut length)).await?;
            let mut opening = vec![0; usize::try_from(u32::from_le_bytes(length)).map_err(broken)?];
            within(stream.read_exact(&mut opening)).await?;
            within(stream.write_all(&[0])).await?;
            within(stream.flush()).await?;
            inbound[usize::from(opening.get(1) == Some(&1))] = Some(stream);
        }
        for stream in &mut outbound {
            let mut verdict = [0];
            within(stream.read_exact(&mut verdict)).await?;
            if verdict != [0] {
                return Err(broken(format!("refused with {}", verdict[0])));
            }
        }
        let [Some(votes), Some(bulk)] = inbound else { return Err(broken("one lane twice")) };
        Ok((outbound, [votes, bulk]))
    }
}

/// A frame of this payload.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 1).expect("a frame is short");
    [&length.to_le_bytes()[..], &[1], payload].concat()
}

/// The payload of the next frame that is no heartbeat.
///
/// # Errors
/// When the node is gone.
pub(crate) async fn read_frame(stream: &mut Stream) -> io::Result<Vec<u8>> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await?;
        let mut body = vec![0; usize::try_from(u32::from_le_bytes(length)).map_err(broken)?];
        stream.read_exact(&mut body).await?;
        if body.len() > 1 {
            return Ok(body.split_off(1));
        }
    }
}

/// Gossipsub's protobuf by hand: what no library of ours would write.
pub(crate) mod rpc {
    fn varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        out.push(value.to_le_bytes()[0]);
    }

    /// A field of bytes.
    pub(crate) fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        varint(value.len() as u64, &mut out);
        out.extend_from_slice(value);
        out
    }

    /// A field of a number.
    pub(crate) fn number(field: u8, value: u64) -> Vec<u8> {
        let mut out = vec![field << 3];
        varint(value, &mut out);
        out
    }

    /// A whole message, with its length.
    pub(crate) fn rpc(fields: &[Vec<u8>]) -> Vec<u8> {
        let body = fields.concat();
        let mut out = Vec::new();
        varint(body.len() as u64, &mut out);
        out.extend_from_slice(&body);
        out
    }

    /// Begins or ends a subscription.
    pub(crate) fn subscription(topic: &[u8], begins: bool) -> Vec<u8> {
        bytes(1, &[number(1, u64::from(begins)), bytes(2, topic)].concat())
    }

    /// A message for a topic. A correct node of this network sends neither author nor signature.
    pub(crate) fn publish(topic: &[u8], data: &[u8], further: &[u8]) -> Vec<u8> {
        bytes(2, &[bytes(2, data), bytes(4, topic), further.to_vec()].concat())
    }

    /// Control messages.
    pub(crate) fn control(fields: &[Vec<u8>]) -> Vec<u8> {
        bytes(3, &fields.concat())
    }

    /// "I have these".
    pub(crate) fn ihave(topic: &[u8], ids: &[Vec<u8>]) -> Vec<u8> {
        bytes(1, &[bytes(1, topic), ids.iter().flat_map(|id| bytes(2, id)).collect()].concat())
    }

    /// "I want these", or, with field 5, "I do not want these".
    pub(crate) fn ids_field(field: u8, ids: &[Vec<u8>]) -> Vec<u8> {
        bytes(field, &ids.iter().flat_map(|id| bytes(1, id)).collect::<Vec<u8>>())
    }

    /// "I take you into my mesh".
    pub(crate) fn graft(topic: &[u8]) -> Vec<u8> {
        bytes(3, &bytes(1, topic))
    }

    /// "I throw you out, for so many seconds".
    pub(crate) fn prune(topic: &[u8], backoff: u64) -> Vec<u8> {
        bytes(4, &[bytes(1, topic), number(3, backoff)].concat())
    }

    /// Everything that a peer may say without saying anything, each within gossipsub's own bounds: another one each round.
    pub(crate) fn nuisance(topic: &[u8], round: u64) -> Vec<Vec<u8>> {
        let ids: Vec<Vec<u8>> = (0..400_u64).map(|number| [round.to_le_bytes(), number.to_le_bytes(), [7; 8], [9; 8]].concat()).collect();
        vec![
            rpc(&vec![bytes(1, &[]); 8_000]),
            rpc(&(0..200).map(|at| subscription(topic, at % 2 == 0)).collect::<Vec<_>>()),
            rpc(&(0..100_u64).map(|at| subscription(&[topic, &at.to_le_bytes()].concat(), true)).collect::<Vec<_>>()),
            rpc(&[subscription(topic, true)]),
            rpc(&[control(&[ihave(topic, &ids)])]),
            rpc(&[control(&[ids_field(2, &ids)])]),
            rpc(&[control(&[ids_field(5, &ids)])]),
            rpc(&[control(&vec![graft(topic); 100])]),
            rpc(&[control(&vec![graft(b"nowhere"); 100])]),
            rpc(&[control(&vec![prune(topic, u64::MAX); 100])]),
            rpc(&[control(&vec![prune(b"nowhere", u64::MAX); 100])]),
            rpc(&[control(&vec![bytes(1, &[]); 8_000])]),
            rpc(&vec![bytes(2, &[]); 5_000]),
            rpc(&vec![publish(topic, b"", &bytes(5, b"s")); 500]),
            rpc(&[publish(b"another topic", &[round.to_le_bytes()[0]; 100_000], &[])]),
        ]
    }
}
