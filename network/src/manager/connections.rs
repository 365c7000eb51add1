//! Who is dialled, who may stay, and which of two connections to one node is kept.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use libp2p::core::ConnectedPoint;
use libp2p::gossipsub::MessageAcceptance;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionDenied, ConnectionId, DialError, ListenError, Swarm};
use libp2p::{PeerId, TransportError};
use tokio::time::timeout;

use super::instances::Process;
use super::{Active, Connection, Early, Guest, Manager, Place, Successor};
use crate::door::{Shut, multiaddr_of, socket_of};
use crate::events::{Direction, Reason};
use crate::handshake::{Hello, Refusal, keeps_outbound};
use crate::identity::{NodeId, PeerAddr, public_key_of};
use crate::session::{Report, Session};
use crate::shared::{Standing, Stop, count};
use crate::swarm::Behaviours;

/// How long a peer that dialled us waits for the outcome of our own dial to it: several round trips around the world.
const CROSSING_WITHIN: Duration = Duration::from_millis(500);
/// So many connections of a row that end in the handshake without a reason are worth telling.
const UNEXPLAINED_MAX: u32 = 3;
/// A closed connection that libp2p has not reported as closed by then died without a word.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// What a name server may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

impl Manager {
    pub(super) fn add_persistent(&mut self, address: PeerAddr) {
        let node = address.node_id;
        if node == self.shared.node_id {
            return;
        }
        let up = self.connections.values().any(|connection| connection.node == node);
        if self.dialer.add(address, up, Instant::now()) {
            self.shared.persistent.write().unwrap_or_else(PoisonError::into_inner).insert(node);
        }
    }

    pub(super) fn dial_due(&mut self, swarm: &mut Swarm<Behaviours>) {
        for address in self.dialer.take_due(Instant::now()) {
            if self.shared.is_banned(address.node_id) {
                self.dialer.down(address.node_id, Instant::now());
            } else if let Ok(ip) = address.host.parse() {
                let socket = SocketAddr::new(ip, address.port);
                self.dial(&address, socket, swarm);
            } else {
                self.resolving.spawn(async move {
                    let host_port = address.host_port();
                    let resolved = match timeout(RESOLVE_WITHIN, tokio::net::lookup_host(host_port)).await {
                        Ok(Ok(sockets)) => Ok(sockets.collect()),
                        Ok(Err(error)) => Err(error),
                        Err(_) => Err(io::ErrorKind::TimedOut.into()),
                    };
                    (address, resolved)
                });
            }
        }
    }

    pub(super) fn on_resolved(&mut self, address: PeerAddr, resolved: io::Result<Vec<SocketAddr>>, swarm: &mut Swarm<Behaviours>) {
        if !self.dialer.is_resolving(address.node_id) {
            return;
        }
        // A name with several addresses: another one each time, so that one that is dead blocks nothing.
        let attempt = usize::try_from(self.shared.counters.dials.load(Ordering::Relaxed)).unwrap_or(0);
        match resolved {
            Ok(sockets) if !sockets.is_empty() => self.dial(&address, sockets[attempt % sockets.len()], swarm),
            Ok(_) => self.dial_failed(address.node_id, None, Reason::Transport("the name has no address".to_owned())),
            Err(error) => self.dial_failed(address.node_id, None, Reason::Transport(error.to_string())),
        }
    }

    pub(super) fn dial(&mut self, address: &PeerAddr, socket: SocketAddr, swarm: &mut Swarm<Behaviours>) {
        // A port of its own: if both nodes dialled from the port they listen on, TCP would make one connection of two crossed
        // dials, on which both are the dialler.
        let options = DialOpts::unknown_peer_id().address(multiaddr_of(socket)).allocate_new_port().build();
        let connection = options.connection_id();
        swarm.behaviour_mut().door.expect(connection, address.node_id);
        self.dialer.dialling(address.node_id, connection);
        self.dials.insert(connection, address.node_id);
        count(&self.shared.counters.dials);
        if let Err(error) = swarm.dial(options) {
            self.dials.remove(&connection);
            self.dial_failed(address.node_id, Some(socket), reason_of_dial(error));
        }
    }

    pub(super) fn dial_failed(&mut self, node: NodeId, remote: Option<SocketAddr>, reason: Reason) {
        count(&self.shared.counters.dials_failed);
        if self.dialer.down(node, Instant::now()) == Some(1) {
            self.note(Some(node), remote, Direction::Outbound, reason);
        }
    }

    pub(super) fn on_established(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
        swarm: &mut Swarm<Behaviours>,
    ) {
        self.dials.remove(&connection);
        let streams = swarm.behaviour_mut().door.take_streams(connection);
        let (Some(streams), Some(public_key), Some(remote)) = (streams, public_key_of(&peer), socket_of(endpoint.get_remote_address()))
        else {
            self.close(connection, swarm);
            return;
        };
        let node = NodeId::of_public_key(&public_key);
        let direction = if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound };
        self.dialer.up(node, Instant::now());

        // Two dials crossed. Both sides see both connections and keep the same one, before the node hears of either.
        let kept = kept_direction(self.shared.node_id, node);
        let crossed = |other: &Connection| other.peer == peer && other.direction != direction;
        let unfinished =
            |id: &ConnectionId, active: &HashMap<PeerId, Active>| active.get(&peer).is_none_or(|active| active.connection != *id);
        let rivals: Vec<_> = self.connections.iter().filter(|(id, other)| crossed(other) && unfinished(id, &self.active)).collect();
        if !rivals.is_empty() && direction != kept {
            self.close(connection, swarm);
            return;
        }
        rivals.iter().for_each(|(_, rival)| rival.stop.stop(Reason::Duplicate));

        let stop = Arc::new(Stop::default());
        let session = Session {
            shared: Arc::clone(&self.shared),
            inlets: self.inlets.clone(),
            reports: self.to_us.clone(),
            stop: Arc::clone(&stop),
            streams,
            connection,
            instance: self.instance,
            public_key,
            direction,
            remote,
        };
        let task = self.sessions.spawn(session.run());
        self.by_task.insert(task.id(), connection);
        self.connections.insert(connection, Connection { peer, node, direction, remote, stop, admitted: None });
    }

    pub(super) fn close(&mut self, connection: ConnectionId, swarm: &mut Swarm<Behaviours>) {
        if swarm.close_connection(connection) {
            self.closing.insert(connection, Instant::now());
        }
    }

    pub(super) fn on_report(&mut self, report: Report, swarm: &mut Swarm<Behaviours>) {
        match report {
            Report::Hello { connection, hello, answer } => {
                let guest = Guest { connection, hello, answer, until: Instant::now() + CROSSING_WITHIN };
                if self.may_cross(connection) { self.guests.push(guest) } else { self.welcome(guest) }
            }
            Report::Ready { connection, link, answer } => self.on_ready(Successor { connection, link, answer }),
            Report::Announced { connection } => self.on_announced(connection, swarm),
        }
    }

    /// The peer dialled us while we dial it, and of the two connections ours would stay. Announcing the other one now would
    /// mean to take it back in a moment.
    pub(super) fn may_cross(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            connection.direction != kept_direction(self.shared.node_id, connection.node)
                && self.dials.values().any(|node| *node == connection.node)
        })
    }

    pub(super) fn welcome(&mut self, guest: Guest) {
        let place = self.admit(guest.connection, &guest.hello);
        let process = self.process_of(&guest.hello);
        if let (Ok(place), Some(connection)) = (place, self.connections.get_mut(&guest.connection)) {
            connection.admitted = Some((place, process));
            if place.standing() == Standing::Known
                && let Some(meter) = self.shared.meters.of(connection.remote)
            {
                meter.trust();
            }
        }
        // The session may have ended meanwhile.
        let _ = guest.answer.send(place.map(Place::standing));
    }

    /// Answers those whose crossing has been decided, and those who waited long enough: our dial may be one that nobody answers.
    pub(super) fn welcome_guests(&mut self) {
        let now = Instant::now();
        for guest in std::mem::take(&mut self.guests) {
            if guest.until > now && self.may_cross(guest.connection) { self.guests.push(guest) } else { self.welcome(guest) }
        }
    }

    /// Whether a connection with a good handshake may stay, and whose place it takes.
    pub(super) fn admit(&self, id: ConnectionId, hello: &Hello) -> Result<Place, Refusal> {
        let Some(connection) = self.connections.get(&id) else { return Err(Refusal::Duplicate) };
        if self.shared.is_banned(connection.node) {
            return Err(Refusal::Banned);
        }
        // A session that was told to end, and has not noticed, must not say yes in its last moment.
        if connection.stop.is_stopped() || self.loses_to_active(id, connection, hello.instance) {
            return Err(Refusal::Duplicate);
        }
        if self.is_second(id, connection, self.process_of(hello)) {
            return Err(Refusal::KeyInUse);
        }
        if connection.direction == Direction::Outbound || self.shared.is_persistent(connection.node) {
            return Ok(Place::Own);
        }
        // A peer that comes back takes the place it has.
        let others = || self.connections.values().filter(|other| other.peer != connection.peer);
        let taken = |place: Place| others().filter(|other| other.admitted.is_some_and(|(taken, _)| taken == place)).count();
        if self.shared.is_validator(&hello.handshake) && taken(Place::Validator) < self.shared.limits.validators_max {
            return Ok(Place::Validator);
        }
        if taken(Place::Ordinary) < self.shared.limits.peers_max { Ok(Place::Ordinary) } else { Err(Refusal::NoPlace) }
    }

    /// The node has a connection to this peer already, and that one stays. A restarted peer, or one that dials anew, has given
    /// up the old connection; else it is a crossing of dials.
    pub(super) fn loses_to_active(&self, id: ConnectionId, connection: &Connection, instance: u64) -> bool {
        let Some(active) = self.active.get(&connection.peer).filter(|active| active.connection != id) else { return false };
        let Some(old) = self.connections.get(&active.connection) else { return false };
        let restarted = old.admitted.is_some_and(|(_, old)| old.instance != instance);
        let crossed = old.direction != connection.direction;
        !restarted && crossed && connection.direction != kept_direction(self.shared.node_id, connection.node)
    }

    fn process_of(&self, hello: &Hello) -> Process {
        Process { instance: hello.instance, is_bound: self.shared.is_validator(&hello.handshake) }
    }

    /// Another process with the peer's key has its place ([`super::instances`]).
    fn is_second(&self, id: ConnectionId, connection: &Connection, process: Process) -> bool {
        let active = self.active.get(&connection.peer).filter(|active| active.connection != id);
        let old = active.and_then(|active| self.connections.get(&active.connection)?.admitted);
        old.is_some_and(|(_, old)| self.instances.is_second(connection.peer, old, process))
    }

    pub(super) fn on_ready(&mut self, ready: Successor) {
        let id = ready.connection;
        // A refusal of the receiver means that the session ended: then there is nothing to refuse.
        let Some(connection) = self.connections.get(&id) else {
            let _ = ready.answer.send(false);
            return;
        };
        let loses = |(_, process): (Place, Process)| {
            self.loses_to_active(id, connection, process.instance) || self.is_second(id, connection, process)
        };
        if connection.stop.is_stopped() || connection.admitted.is_none_or(loses) {
            let _ = ready.answer.send(false);
            return;
        }
        let peer = connection.peer;
        match self.active.get(&peer) {
            None => self.activate(peer, ready),
            Some(active) => {
                if let Some(old) = self.connections.get(&active.connection) {
                    old.stop.stop(Reason::Duplicate);
                }
                if let Some(third) = self.successors.insert(peer, ready) {
                    let _ = third.answer.send(false);
                }
            }
        }
    }

    pub(super) fn activate(&mut self, peer: PeerId, ready: Successor) {
        self.shared.add_link(Arc::clone(&ready.link));
        if ready.answer.send(true).is_err() {
            self.shared.remove_link(&ready.link);
            return;
        }
        if let Some((_, process)) = self.connections.get(&ready.connection).and_then(|connection| connection.admitted) {
            self.instances.connected(peer, process.instance);
        }
        self.active.insert(peer, Active { connection: ready.connection, link: ready.link, announced: false });
    }

    pub(super) fn on_announced(&mut self, id: ConnectionId, swarm: &mut Swarm<Behaviours>) {
        let Some(peer) = self.connections.get(&id).map(|connection| connection.peer) else { return };
        let Some(active) = self.active.get_mut(&peer).filter(|active| active.connection == id) else { return };
        active.announced = true;
        for early in self.early.remove(&peer).unwrap_or_default() {
            match early {
                Early::Gossip(id, bytes) => self.on_gossip(peer, id, bytes, swarm),
                Early::Request(request, channel, bytes) => self.on_request(peer, request, channel, bytes),
            }
        }
    }

    pub(super) fn on_session_ended(
        &mut self,
        ended: Result<(tokio::task::Id, Reason), tokio::task::JoinError>,
        swarm: &mut Swarm<Behaviours>,
    ) {
        let (task, reason) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), Reason::Transport(format!("a session failed: {error}"))),
        };
        let Some(id) = self.by_task.remove(&task) else { return };
        let Some(connection) = self.connections.remove(&id) else { return };
        self.close(id, swarm);
        let peer = connection.peer;
        let was_active = self.active.get(&peer).is_some_and(|active| active.connection == id);
        if was_active && let Some(active) = self.active.remove(&peer) {
            let link = active.link;
            if self.shared.link(link.peer).is_some() {
                // The session panicked, and could not say goodbye itself.
                self.shared.remove_link(&link);
                let (inlets, reason) = (self.inlets.clone(), reason.clone());
                self.sessions.spawn(async move {
                    inlets.disconnected(&link, reason.clone()).await;
                    reason
                });
            }
            if let Some(successor) = self.successors.remove(&peer) {
                self.activate(peer, successor);
            }
        }
        self.successors.retain(|_, successor| successor.connection != id);
        let others = self.connections.values().any(|other| other.peer == peer);
        if !others {
            for early in self.early.remove(&peer).unwrap_or_default() {
                if let Early::Gossip(id, _) = early {
                    swarm.behaviour_mut().gossip.report_message_validation_result(&id, &peer, MessageAcceptance::Ignore);
                }
            }
            let row = self.dialer.down(connection.node, Instant::now());
            // Once may be a crossed dial. Again and again is a peer that shuts its door without a word.
            if !was_active && reason == Reason::Closed && row == Some(UNEXPLAINED_MAX) {
                self.note(Some(connection.node), None, connection.direction, Reason::Closed);
            }
        }
    }

    pub(super) fn tidy(&mut self, swarm: &mut Swarm<Behaviours>) {
        let now = Instant::now();
        self.closing.retain(|id, since| {
            let keep = now.saturating_duration_since(*since) < CLOSED_WITHIN;
            if !keep {
                swarm.behaviour_mut().door.forget(*id);
            }
            keep
        });
    }
}

/// Of two crossed connections to `remote`, the one of this direction stays.
fn kept_direction(local: NodeId, remote: NodeId) -> Direction {
    if keeps_outbound(local, remote) { Direction::Outbound } else { Direction::Inbound }
}

pub(super) fn reason_of_denial(cause: ConnectionDenied) -> Reason {
    match cause.downcast::<Shut>() {
        Ok(Shut(reason)) => reason,
        Err(cause) => Reason::Transport(cause.to_string()),
    }
}

pub(super) fn reason_of_dial(error: DialError) -> Reason {
    match error {
        DialError::Denied { cause } => reason_of_denial(cause),
        // libp2p strikes our own listen address from what is to be dialled, and nothing else was.
        DialError::LocalPeerId { .. } | DialError::NoAddresses => Reason::Oneself,
        DialError::Transport(errors) => Reason::Transport(match errors.into_iter().next() {
            Some((_, TransportError::Other(error))) => innermost(&error),
            Some((address, TransportError::MultiaddrNotSupported(_))) => format!("{address} is no TCP address"),
            None => "no address".to_owned(),
        }),
        error => Reason::Transport(error.to_string()),
    }
}

pub(super) fn reason_of_listen(error: ListenError) -> Reason {
    match error {
        ListenError::Denied { cause } => reason_of_denial(cause),
        ListenError::LocalPeerId { .. } => Reason::Oneself,
        ListenError::Transport(TransportError::Other(error)) => Reason::Transport(innermost(&error)),
        error => Reason::Transport(error.to_string()),
    }
}

/// libp2p wraps what happened in several layers that say nothing.
fn innermost(error: &io::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
