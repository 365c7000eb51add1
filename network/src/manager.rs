//! The one task that owns the swarm: every dial, every place, and which of two connections stays.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::core::ConnectedPoint;
use libp2p::futures::StreamExt as _;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, PublishError};
use libp2p::request_response::{self, InboundRequestId, OutboundFailure, OutboundRequestId, ResponseChannel};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionDenied, ConnectionId, DialError, ListenError, Swarm, SwarmEvent};
use libp2p::{PeerId, TransportError};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use crate::dialer::Dialer;
use crate::door::{Shut, multiaddr_of, socket_of};
use crate::events::{Direction, GossipId, Inlets, Reason, ReplyTo, RequestError, Verdict};
use crate::gossip::topic_of;
use crate::handshake::{Hello, Refusal, keeps_outbound};
use crate::identity::{NodeId, PeerAddr, public_key_of};
use crate::limits::{CONNECTION_PANICS_MAX, EARLY_MAX, REPORT_QUEUE_LEN, REQUESTS_PER_PEER_MAX};
use crate::score::POINTS_GOSSIP_REJECTED;
use crate::session::{Report, Session};
use crate::shared::{Command, Link, PendingRequest, Shared, Stop, count};
use crate::swarm::{Behaviours, BehavioursEvent, ConnectionTasks};

/// Batches handed to gossipsub between two looks at everything else.
const PUBLISH_RUN: usize = 16;
/// How often the tables are tidied.
const TIDY: Duration = Duration::from_secs(1);
/// A closed connection that libp2p has not reported as closed by then died without a word.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// What a shutdown waits for peers and for the node to notice.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a peer that dialled us waits for the outcome of our own dial to it: several round trips around the world.
const CROSSING_WITHIN: Duration = Duration::from_millis(500);
/// So many connections of a row that end in the handshake without a reason are worth telling.
const UNEXPLAINED_MAX: u32 = 3;
/// What a name server may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// Whose place a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ordinary,
    Validator,
    /// Persistent peers and those we dialled: not counted.
    Own,
}

/// A connection past Noise.
struct Connection {
    peer: PeerId,
    node: NodeId,
    direction: Direction,
    stop: Arc<Stop>,
    /// With its hello: where it counts, and the peer's instance.
    admitted: Option<(Place, u64)>,
}

/// A connection with a good handshake that waits for the outcome of our own dial. No more of them than connections.
struct Guest {
    connection: ConnectionId,
    hello: Box<Hello>,
    answer: oneshot::Sender<Result<(), Refusal>>,
    until: Instant,
}

/// The connection of a peer that the node knows or is about to know.
struct Active {
    connection: ConnectionId,
    link: Arc<Link>,
    announced: bool,
}

/// A connection that is ready and waits for the end of the one it replaces, so that the node never sees two at once.
struct Successor {
    connection: ConnectionId,
    link: Arc<Link>,
    answer: oneshot::Sender<bool>,
}

/// Came before our side of the handshakes was done.
enum Early {
    Gossip(MessageId, Bytes),
    Request(InboundRequestId, ResponseChannel<Bytes>, Bytes),
}

struct Reply {
    request: InboundRequestId,
    channel: ResponseChannel<Bytes>,
    peer: PeerId,
}

/// Why `run` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Shutdown,
    /// The swarm is of no more use.
    Restart,
}

pub(crate) struct Manager {
    shared: Arc<Shared>,
    inlets: Inlets,
    commands: mpsc::Receiver<Command>,
    shutdown: watch::Receiver<bool>,
    tasks: ConnectionTasks,
    topic: IdentTopic,
    dialer: Dialer,
    sessions: JoinSet<Reason>,
    by_task: HashMap<tokio::task::Id, ConnectionId>,
    resolving: JoinSet<(PeerAddr, io::Result<Vec<SocketAddr>>)>,
    to_us: mpsc::Sender<Report>,
    reports: mpsc::Receiver<Report>,
    connections: HashMap<ConnectionId, Connection>,
    closing: HashMap<ConnectionId, Instant>,
    /// Our dials under way.
    dials: HashMap<ConnectionId, NodeId>,
    guests: Vec<Guest>,
    active: HashMap<PeerId, Active>,
    successors: HashMap<PeerId, Successor>,
    early: HashMap<PeerId, Vec<Early>>,
    asked: HashMap<OutboundRequestId, PendingRequest>,
    replies: HashMap<u64, Reply>,
    responding: HashMap<InboundRequestId, OwnedSemaphorePermit>,
    next_reply: u64,
    instance: u64,
}

impl Manager {
    pub(crate) fn new(
        shared: Arc<Shared>,
        inlets: Inlets,
        commands: mpsc::Receiver<Command>,
        shutdown: watch::Receiver<bool>,
        tasks: ConnectionTasks,
        persistent: Vec<PeerAddr>,
    ) -> Self {
        let (to_us, reports) = mpsc::channel(REPORT_QUEUE_LEN);
        let topic = topic_of(&shared.handshake);
        let dialer = Dialer::new(&shared.pace);
        let mut manager = Self {
            shared,
            inlets,
            commands,
            shutdown,
            tasks,
            topic,
            dialer,
            sessions: JoinSet::new(),
            by_task: HashMap::new(),
            resolving: JoinSet::new(),
            to_us,
            reports,
            connections: HashMap::new(),
            closing: HashMap::new(),
            dials: HashMap::new(),
            guests: Vec::new(),
            active: HashMap::new(),
            successors: HashMap::new(),
            early: HashMap::new(),
            asked: HashMap::new(),
            replies: HashMap::new(),
            responding: HashMap::new(),
            next_reply: 0,
            instance: 0,
        };
        persistent.into_iter().for_each(|address| manager.add_persistent(address));
        manager
    }

    /// Runs until shutdown, or until the swarm is of no more use. Cancelled by a panic it leaves nothing that `abandon` does not clear.
    pub(crate) async fn run(&mut self, swarm: &mut Swarm<Behaviours>, instance: u64) -> Exit {
        self.instance = instance;
        let shared = Arc::clone(&self.shared);
        let mut tidy = interval(TIDY);
        tidy.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.dial_due(swarm);
            self.welcome_guests();
            let due = self.dialer.next_due().into_iter().chain(self.guests.iter().map(|guest| guest.until)).min();
            let next_dial = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = swarm.select_next_some() => {
                    if let Some(exit) = self.on_swarm_event(event, swarm) {
                        return exit;
                    }
                }
                Some(report) = self.reports.recv() => self.on_report(report, swarm),
                Some(ended) = self.sessions.join_next_with_id(), if !self.sessions.is_empty() => self.on_session_ended(ended, swarm),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command, swarm),
                    None => return self.say_farewell(swarm).await,
                },
                () = shared.publishes.pushed() => self.publish_some(swarm),
                Some(Ok((address, resolved))) = self.resolving.join_next(), if !self.resolving.is_empty() => self.on_resolved(address, resolved, swarm),
                () = next_dial => {}
                _ = tidy.tick() => {
                    self.tidy(swarm);
                    if self.tasks.reap() >= CONNECTION_PANICS_MAX {
                        return Exit::Restart;
                    }
                }
                () = asked_to_end(&mut self.shutdown) => return self.say_farewell(swarm).await,
            }
        }
    }

    /// Tells all sessions to end. Said before the swarm is dropped, so that this is the reason and not what follows from it.
    pub(crate) fn stop_sessions(&self, reason: &Reason) {
        self.connections.values().for_each(|connection| connection.stop.stop(reason.clone()));
    }

    /// After the swarm is gone: ends what it carried, so that the node sees every peer leave, and keeps what the next one needs.
    pub(crate) async fn abandon(&mut self, reason: Reason) {
        self.stop_sessions(&reason);
        // Sessions that wait for an answer of ours get none: their report is dropped here.
        let (to_us, reports) = mpsc::channel(REPORT_QUEUE_LEN);
        (self.to_us, self.reports) = (to_us, reports);
        self.guests.clear();
        self.successors.clear();
        self.asked.clear();
        while let Some(ended) = self.sessions.join_next().await {
            drop(ended);
        }
        let links: Vec<_> = self.shared.links.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for link in links {
            // A session that panicked left its link behind.
            self.shared.remove_link(&link);
            self.inlets.disconnected(&link, reason.clone()).await;
        }
        self.by_task.clear();
        self.connections.clear();
        self.closing.clear();
        self.dials.clear();
        self.active.clear();
        self.early.clear();
        self.replies.clear();
        self.responding.clear();
        self.resolving.shutdown().await;
        self.tasks.end().await;
        let addresses: Vec<_> = self.dialer.addresses().cloned().collect();
        self.dialer = Dialer::new(&self.shared.pace);
        addresses.into_iter().for_each(|address| self.add_persistent(address));
    }

    /// Closes everything, and lets the peers and the node see it, but waits for none of them for ever.
    async fn say_farewell(&mut self, swarm: &mut Swarm<Behaviours>) -> Exit {
        self.commands.close();
        self.stop_sessions(&Reason::Shutdown);
        let all_gone = async {
            while !self.connections.is_empty() || swarm.connected_peers().next().is_some() {
                tokio::select! {
                    event = swarm.select_next_some() => if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                        swarm.close_connection(connection_id);
                    },
                    Some(ended) = self.sessions.join_next_with_id(), if !self.sessions.is_empty() => self.on_session_ended(ended, swarm),
                }
            }
        };
        let _ = timeout(FAREWELL, all_gone).await;
        self.sessions.shutdown().await;
        Exit::Shutdown
    }

    fn note(&self, node: Option<NodeId>, remote: Option<SocketAddr>, direction: Direction, reason: Reason) {
        if !self.inlets.try_refused(node, remote, direction, reason) {
            count(&self.shared.counters.notes_dropped);
        }
    }

    // ---- Dialling ----

    fn add_persistent(&mut self, address: PeerAddr) {
        let node = address.node_id;
        if node == self.shared.node_id {
            return;
        }
        let up = self.connections.values().any(|connection| connection.node == node);
        if self.dialer.add(address, up, Instant::now()) {
            self.shared.persistent.write().unwrap_or_else(PoisonError::into_inner).insert(node);
        }
    }

    fn dial_due(&mut self, swarm: &mut Swarm<Behaviours>) {
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

    fn on_resolved(&mut self, address: PeerAddr, resolved: io::Result<Vec<SocketAddr>>, swarm: &mut Swarm<Behaviours>) {
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

    fn dial(&mut self, address: &PeerAddr, socket: SocketAddr, swarm: &mut Swarm<Behaviours>) {
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

    fn dial_failed(&mut self, node: NodeId, remote: Option<SocketAddr>, reason: Reason) {
        count(&self.shared.counters.dials_failed);
        if self.dialer.down(node, Instant::now()) == Some(1) {
            self.note(Some(node), remote, Direction::Outbound, reason);
        }
    }

    // ---- Connections ----

    fn on_swarm_event(&mut self, event: SwarmEvent<BehavioursEvent>, swarm: &mut Swarm<Behaviours>) -> Option<Exit> {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint, swarm);
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => {
                self.closing.remove(&connection_id);
                if let Some(connection) = self.connections.get(&connection_id) {
                    connection.stop.stop(Reason::Closed);
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.dials.remove(&connection_id);
                if let Some(node) = self.dialer.dialled(connection_id) {
                    self.dial_failed(node, None, reason_of_dial(error));
                }
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                count(&self.shared.counters.connections_refused);
                match reason_of_listen(error) {
                    // Port scanners, and the other end of a crossed dial that gave up first: nothing to act on.
                    Reason::Transport(why) => tracing::debug!(from = %send_back_addr, %why, "an inbound connection failed"),
                    reason => self.note(None, socket_of(&send_back_addr), Direction::Inbound, reason),
                }
            }
            SwarmEvent::ListenerClosed { .. } => return Some(Exit::Restart),
            SwarmEvent::Behaviour(BehavioursEvent::Gossip(gossipsub::Event::Message { propagation_source, message_id, message })) => {
                self.on_gossip(propagation_source, message_id, message.data.into(), swarm);
            }
            SwarmEvent::Behaviour(BehavioursEvent::Exchange(event)) => self.on_exchange(event, swarm),
            _ => {}
        }
        None
    }

    fn on_established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint, swarm: &mut Swarm<Behaviours>) {
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
        self.connections.insert(connection, Connection { peer, node, direction, stop, admitted: None });
    }

    fn close(&mut self, connection: ConnectionId, swarm: &mut Swarm<Behaviours>) {
        if swarm.close_connection(connection) {
            self.closing.insert(connection, Instant::now());
        }
    }

    fn on_report(&mut self, report: Report, swarm: &mut Swarm<Behaviours>) {
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
    fn may_cross(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| {
            connection.direction != kept_direction(self.shared.node_id, connection.node)
                && self.dials.values().any(|node| *node == connection.node)
        })
    }

    fn welcome(&mut self, guest: Guest) {
        let place = self.admit(guest.connection, &guest.hello);
        if let (Ok(place), Some(connection)) = (place, self.connections.get_mut(&guest.connection)) {
            connection.admitted = Some((place, guest.hello.instance));
        }
        // The session may have ended meanwhile.
        let _ = guest.answer.send(place.map(|_| ()));
    }

    /// Answers those whose crossing has been decided, and those who waited long enough: our dial may be one that nobody answers.
    fn welcome_guests(&mut self) {
        let now = Instant::now();
        for guest in std::mem::take(&mut self.guests) {
            if guest.until > now && self.may_cross(guest.connection) { self.guests.push(guest) } else { self.welcome(guest) }
        }
    }

    /// Whether a connection with a good handshake may stay, and whose place it takes.
    fn admit(&self, id: ConnectionId, hello: &Hello) -> Result<Place, Refusal> {
        let Some(connection) = self.connections.get(&id) else { return Err(Refusal::Duplicate) };
        if self.shared.is_banned(connection.node) {
            return Err(Refusal::Banned);
        }
        if self.loses_to_active(id, connection, hello.instance) {
            return Err(Refusal::Duplicate);
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
    fn loses_to_active(&self, id: ConnectionId, connection: &Connection, instance: u64) -> bool {
        let Some(active) = self.active.get(&connection.peer).filter(|active| active.connection != id) else { return false };
        let Some(old) = self.connections.get(&active.connection) else { return false };
        let restarted = old.admitted.is_some_and(|(_, old_instance)| old_instance != instance);
        let crossed = old.direction != connection.direction;
        !restarted && crossed && connection.direction != kept_direction(self.shared.node_id, connection.node)
    }

    fn on_ready(&mut self, ready: Successor) {
        let id = ready.connection;
        // A refusal of the receiver means that the session ended: then there is nothing to refuse.
        let Some(connection) = self.connections.get(&id) else {
            let _ = ready.answer.send(false);
            return;
        };
        let instance = connection.admitted.map_or(0, |(_, instance)| instance);
        if self.loses_to_active(id, connection, instance) {
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

    fn activate(&mut self, peer: PeerId, ready: Successor) {
        self.shared.add_link(Arc::clone(&ready.link));
        if ready.answer.send(true).is_err() {
            self.shared.remove_link(&ready.link);
            return;
        }
        self.active.insert(peer, Active { connection: ready.connection, link: ready.link, announced: false });
    }

    fn on_announced(&mut self, id: ConnectionId, swarm: &mut Swarm<Behaviours>) {
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

    fn on_session_ended(&mut self, ended: Result<(tokio::task::Id, Reason), tokio::task::JoinError>, swarm: &mut Swarm<Behaviours>) {
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

    fn tidy(&mut self, swarm: &mut Swarm<Behaviours>) {
        let now = Instant::now();
        self.closing.retain(|id, since| {
            let keep = now.saturating_duration_since(*since) < CLOSED_WITHIN;
            if !keep {
                swarm.behaviour_mut().door.forget(*id);
            }
            keep
        });
    }

    // ---- Commands ----

    fn on_command(&mut self, command: Command, swarm: &mut Swarm<Behaviours>) {
        match command {
            Command::Report { id, verdict } => self.report(id, verdict, swarm),
            Command::Request { request, bytes } => {
                let peer = self.active.iter().find(|(_, active)| active.link.peer == request.link.peer).map(|(peer, _)| *peer);
                match peer {
                    None => request.finish(Err(RequestError::NotConnected)),
                    Some(peer) => {
                        let id = swarm.behaviour_mut().exchange.send_request(&peer, bytes);
                        self.asked.insert(id, request);
                    }
                }
            }
            Command::Respond { reply_to, bytes, room } => {
                // Without a reply the requester has given up already.
                if let Some(reply) = self.replies.remove(&reply_to.0)
                    && swarm.behaviour_mut().exchange.send_response(reply.channel, bytes).is_ok()
                {
                    self.responding.insert(reply.request, room);
                }
            }
            Command::AddPersistent(address) => self.add_persistent(address),
            Command::RemovePersistent(node) => {
                self.dialer.remove(node);
                self.shared.persistent.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
            }
            #[cfg(test)]
            Command::Panic => panic!("a test asked for it"),
        }
    }

    // ---- Gossip ----

    fn publish_some(&mut self, swarm: &mut Swarm<Behaviours>) {
        for _ in 0..PUBLISH_RUN {
            let Some(batch) = self.shared.publishes.pop() else { return };
            match swarm.behaviour_mut().gossip.publish(self.topic.clone(), batch) {
                Ok(_) => {}
                Err(PublishError::Duplicate) => count(&self.shared.counters.gossip_duplicates),
                // Nobody is there, or everybody's queue is full: gossip is lossy, and the caller knows.
                Err(_) => count(&self.shared.counters.gossip_dropped),
            }
        }
        self.shared.publishes.look_again();
    }

    fn on_gossip(&mut self, source: PeerId, id: MessageId, bytes: Bytes, swarm: &mut Swarm<Behaviours>) {
        let delivered = match self.active.get(&source).filter(|active| active.announced) {
            Some(active) => match <[u8; 32]>::try_from(id.0.as_slice()) {
                Ok(message) => {
                    let peer = active.link.peer;
                    self.inlets.try_gossip(peer, GossipId { message, source: peer }, bytes)
                }
                Err(_) => false,
            },
            None => self.keep_early(source, Early::Gossip(id.clone(), bytes)),
        };
        if !delivered {
            count(&self.shared.counters.gossip_dropped);
            swarm.behaviour_mut().gossip.report_message_validation_result(&id, &source, MessageAcceptance::Ignore);
        }
    }

    fn keep_early(&mut self, peer: PeerId, early: Early) -> bool {
        if !self.connections.values().any(|connection| connection.peer == peer) {
            return false;
        }
        let kept = self.early.entry(peer).or_default();
        let room = kept.len() < EARLY_MAX;
        if room {
            kept.push(early);
        }
        room
    }

    fn report(&mut self, id: GossipId, verdict: Verdict, swarm: &mut Swarm<Behaviours>) {
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Reject => MessageAcceptance::Reject,
        };
        let source = self.active.iter().find(|(_, active)| active.link.peer == id.source);
        if let (Verdict::Reject, Some((_, active))) = (verdict, source) {
            self.shared.penalise(active.link.info.node_id, POINTS_GOSSIP_REJECTED, "gossip that was rejected");
        }
        // The source is told nothing twice; if it left, there is nobody to leave out.
        let source = source.map_or(*swarm.local_peer_id(), |(peer, _)| *peer);
        swarm.behaviour_mut().gossip.report_message_validation_result(&MessageId::new(&id.message), &source, acceptance);
    }

    // ---- Requests ----

    fn on_exchange(&mut self, event: request_response::Event<Bytes, Bytes>, _: &mut Swarm<Behaviours>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, message: Message::Request { request_id, request, channel }, .. } => {
                if self.active.get(&peer).is_some_and(|active| active.announced) {
                    self.on_request(peer, request_id, channel, request);
                } else if !self.keep_early(peer, Early::Request(request_id, channel, request)) {
                    count(&self.shared.counters.requests_refused);
                }
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                if let Some(request) = self.asked.remove(&request_id) {
                    request.finish(Ok(response));
                }
            }
            Event::OutboundFailure { request_id, error, .. } => {
                if let Some(request) = self.asked.remove(&request_id) {
                    request.finish(Err(match error {
                        OutboundFailure::Timeout => RequestError::Timeout,
                        OutboundFailure::DialFailure | OutboundFailure::ConnectionClosed => RequestError::NotConnected,
                        error => RequestError::BrokenOff(error.to_string()),
                    }));
                }
            }
            Event::InboundFailure { request_id, .. } => {
                self.responding.remove(&request_id);
                self.replies.retain(|_, reply| reply.request != request_id);
            }
            Event::ResponseSent { request_id, .. } => {
                self.responding.remove(&request_id);
            }
        }
    }

    fn on_request(&mut self, peer: PeerId, request: InboundRequestId, channel: ResponseChannel<Bytes>, bytes: Bytes) {
        let Some(active) = self.active.get(&peer) else { return };
        let open = self.replies.values().filter(|reply| reply.peer == peer).count();
        let reply_to = self.next_reply;
        if open < REQUESTS_PER_PEER_MAX && self.inlets.try_request(active.link.peer, ReplyTo(reply_to), bytes) {
            self.next_reply += 1;
            self.replies.insert(reply_to, Reply { request, channel, peer });
        } else {
            // Dropping the channel tells the requester.
            count(&self.shared.counters.requests_refused);
        }
    }
}

/// By a handle, or because the last one is gone.
async fn asked_to_end(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|shutdown| *shutdown).await;
}

/// Of two crossed connections to `remote`, the one of this direction stays.
fn kept_direction(local: NodeId, remote: NodeId) -> Direction {
    if keeps_outbound(local, remote) { Direction::Outbound } else { Direction::Inbound }
}

fn reason_of_denial(cause: ConnectionDenied) -> Reason {
    match cause.downcast::<Shut>() {
        Ok(Shut(reason)) => reason,
        Err(cause) => Reason::Transport(cause.to_string()),
    }
}

fn reason_of_dial(error: DialError) -> Reason {
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

fn reason_of_listen(error: ListenError) -> Reason {
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
