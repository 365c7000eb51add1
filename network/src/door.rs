//! The libp2p behaviour of our own: who may come in, and the lane streams of those who did.
//!
//! libp2p-stream hands out streams by peer, drops inbound ones when nobody takes them at that instant, and does not say which
//! connection a stream belongs to. Here each connection has a queue of its own for its four streams, so a duplicate
//! connection is told from the kept one and nothing is lost in between.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure, ListenFailure};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, StreamProtocol,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream};
use tokio::sync::mpsc;

use crate::events::Reason;
use crate::identity::{NodeId, public_key_of};
use crate::limits::{CONNECTIONS_PER_PEER_MAX, HANDSHAKING_MAX, INBOUND_AT_ONCE, INBOUND_PER_S};
use crate::meter::Pace;
use crate::shared::Shared;

const LANE_PROTOCOL: StreamProtocol = StreamProtocol::new("/lockstep/lane/1");

/// A lane each way, twice.
const STREAMS_PER_CONNECTION: usize = 4;

/// A stream of one connection, or the news that one could not be had.
pub(crate) enum LaneStream {
    Inbound(Stream),
    Outbound(Stream),
    Failed,
}

/// Why the door stayed shut.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Shut(pub(crate) Reason);

fn shut(reason: Reason) -> ConnectionDenied {
    ConnectionDenied::new(Shut(reason))
}

fn too_many() -> ConnectionDenied {
    shut(Reason::Refused(crate::handshake::Refusal::NoPlace))
}

struct Guest {
    ip: Option<IpAddr>,
    peer: PeerId,
    inbound: bool,
}

pub(crate) struct Door {
    shared: Arc<Shared>,
    local: PeerId,
    pending_in: HashMap<ConnectionId, Option<IpAddr>>,
    expected: HashMap<ConnectionId, NodeId>,
    guests: HashMap<ConnectionId, Guest>,
    streams: HashMap<ConnectionId, mpsc::Receiver<LaneStream>>,
    arrivals: Pace,
}

impl Door {
    pub(crate) fn new(shared: Arc<Shared>, local: PeerId) -> Self {
        Self {
            shared,
            local,
            pending_in: HashMap::new(),
            expected: HashMap::new(),
            guests: HashMap::new(),
            streams: HashMap::new(),
            arrivals: Pace::new(INBOUND_PER_S, INBOUND_AT_ONCE, Instant::now()),
        }
    }

    /// The connection being dialled must lead to this node.
    pub(crate) fn expect(&mut self, connection: ConnectionId, node: NodeId) {
        self.expected.insert(connection, node);
    }

    /// The lane streams of an established connection, once.
    pub(crate) fn take_streams(&mut self, connection: ConnectionId) -> Option<mpsc::Receiver<LaneStream>> {
        self.streams.remove(&connection)
    }

    /// A connection whose task died without telling the swarm takes up no place.
    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        self.guests.remove(&connection);
    }

    fn is_counted(&self, ip: Option<IpAddr>) -> bool {
        ip.is_none_or(|ip| !(ip.is_loopback() && self.shared.limits.loopback_exempt))
    }

    fn welcome(&mut self, connection: ConnectionId, peer: PeerId, inbound: Option<IpAddr>) -> Result<LaneHandler, ConnectionDenied> {
        if peer == self.local {
            return Err(shut(Reason::Oneself));
        }
        let public_key = public_key_of(&peer).ok_or_else(|| shut(Reason::KeyKind))?;
        let node = NodeId::of_public_key(&public_key);
        if let Some(expected) = self.expected.get(&connection)
            && *expected != node
        {
            return Err(shut(Reason::IdentityMismatch { expected: *expected, found: node }));
        }
        if self.shared.is_banned(node) {
            return Err(shut(Reason::Refused(crate::handshake::Refusal::Banned)));
        }
        if self.guests.values().filter(|guest| guest.peer == peer).count() >= CONNECTIONS_PER_PEER_MAX {
            return Err(too_many());
        }
        // Whom we dialled, and whom the operator named, does not depend on who else is here.
        if inbound.is_some() && !self.shared.is_persistent(node) {
            let limits = &self.shared.limits;
            let guests = self.guests.values().filter(|guest| guest.inbound);
            if guests.count() >= limits.peers_max + limits.validators_max + HANDSHAKING_MAX {
                return Err(too_many());
            }
            let neighbours = self.guests.values().filter(|guest| guest.inbound && guest.ip == inbound).count();
            if self.is_counted(inbound) && neighbours >= limits.per_ip_max {
                return Err(too_many());
            }
        }
        let (to_session, streams) = mpsc::channel(STREAMS_PER_CONNECTION);
        self.streams.insert(connection, streams);
        Ok(LaneHandler { to_session, outbound_left: 2 })
    }

    fn not_established(&mut self, connection: ConnectionId) {
        self.pending_in.remove(&connection);
        self.expected.remove(&connection);
        self.streams.remove(&connection);
    }
}

/// The address of the other end, as far as libp2p knows it.
pub(crate) fn socket_of(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// A socket as libp2p writes it.
pub(crate) fn multiaddr_of(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port()))
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    socket_of(address).map(|socket| socket.ip())
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = LaneHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let ip = ip_of(remote);
        let limits = &self.shared.limits;
        let neighbours = self.pending_in.values().filter(|pending| **pending == ip).count();
        if self.pending_in.len() >= limits.pending_max || (self.is_counted(ip) && neighbours >= limits.pending_per_ip_max) {
            return Err(too_many());
        }
        if !self.arrivals.take(Instant::now()) {
            return Err(too_many());
        }
        self.pending_in.insert(connection, ip);
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let ip = self.pending_in.remove(&connection).flatten().or_else(|| ip_of(remote));
        self.welcome(connection, peer, ip)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.welcome(connection, peer, None)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, endpoint, .. }) => {
                self.pending_in.remove(&connection_id);
                self.expected.remove(&connection_id);
                let inbound = matches!(endpoint, ConnectedPoint::Listener { .. });
                let guest = Guest { ip: ip_of(endpoint.get_remote_address()), peer: peer_id, inbound };
                self.guests.insert(connection_id, guest);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.guests.remove(&connection_id);
                self.streams.remove(&connection_id);
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. }) => self.not_established(connection_id),
            FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => self.not_established(connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Opens two streams and passes on four.
pub(crate) struct LaneHandler {
    to_session: mpsc::Sender<LaneStream>,
    outbound_left: u8,
}

impl LaneHandler {
    /// A fifth stream has no place, and is closed by being dropped.
    fn pass(&self, stream: LaneStream) {
        let _ = self.to_session.try_send(stream);
    }
}

impl ConnectionHandler for LaneHandler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(LANE_PROTOCOL), ())
    }

    /// The session decides when a connection ends, never idleness.
    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if self.outbound_left > 0 {
            self.outbound_left -= 1;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(LANE_PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Self::FromBehaviour) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => self.pass(LaneStream::Inbound(protocol)),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => self.pass(LaneStream::Outbound(protocol)),
            ConnectionEvent::DialUpgradeError(_) => self.pass(LaneStream::Failed),
            _ => {}
        }
    }
}
