//! The one task that owns the swarm: every dial, every place, and which of two connections stays.

mod connections;
mod instances;
mod traffic;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::PeerId;
use libp2p::futures::StreamExt as _;
use libp2p::gossipsub::{self, IdentTopic, MessageId};
use libp2p::request_response::{InboundRequestId, OutboundRequestId, ResponseChannel};
use libp2p::swarm::{ConnectionId, Swarm, SwarmEvent};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use self::connections::{reason_of_dial, reason_of_listen};
use self::instances::{Instances, Process};
use crate::dialer::Dialer;
use crate::door::socket_of;
use crate::events::{Direction, Inlets, Reason, RequestError};
use crate::gossip::topic_of;
use crate::handshake::{Hello, Refusal};
use crate::identity::{NodeId, PeerAddr};
use crate::limits::{CONNECTION_PANICS_MAX, REPORT_QUEUE_LEN};
use crate::session::Report;
use crate::shared::{Command, Link, PendingRequest, Shared, Standing, Stop, count};
use crate::swarm::{Behaviours, BehavioursEvent, ConnectionTasks};

/// How often the tables are tidied.
const TIDY: Duration = Duration::from_secs(1);
/// What a shutdown waits for peers and for the node to notice.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whose place a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ordinary,
    Validator,
    /// Persistent peers and those we dialled: not counted.
    Own,
}

impl Place {
    fn standing(self) -> Standing {
        match self {
            Self::Ordinary => Standing::Stranger,
            Self::Validator | Self::Own => Standing::Known,
        }
    }
}

/// A connection past Noise.
struct Connection {
    peer: PeerId,
    node: NodeId,
    direction: Direction,
    remote: SocketAddr,
    stop: Arc<Stop>,
    /// With its hello: where it counts, and which process it is.
    admitted: Option<(Place, Process)>,
}

/// A connection with a good handshake that waits for the outcome of our own dial. No more of them than connections.
struct Guest {
    connection: ConnectionId,
    hello: Box<Hello>,
    answer: oneshot::Sender<Result<Standing, Refusal>>,
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
    instances: Instances,
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
            instances: Instances::default(),
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
            SwarmEvent::Behaviour(BehavioursEvent::Exchange(event)) => self.on_exchange(event),
            _ => {}
        }
        None
    }

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
            Command::Reconnect(why) => self.stop_sessions(&Reason::Requested(why)),
            Command::RemovePersistent(node) => {
                self.dialer.remove(node);
                self.shared.persistent.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
            }
            #[cfg(test)]
            Command::Panic => panic!("a test asked for it"),
        }
    }
}

/// By a handle, or because the last one is gone.
async fn asked_to_end(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|shutdown| *shutdown).await;
}
