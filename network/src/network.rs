//! The handle, and the task that keeps the swarm alive.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::futures::FutureExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::Swarm;
use tokio::sync::{mpsc, watch};

use crate::events::{Events, GossipId, Lane, PeerInfo, PeerNo, Queued, Reason, ReplyTo, RequestId, Verdict, queues};
use crate::handshake::{Handshake, VerifyFn};
use crate::identity::{NodeId, PeerAddr};
use crate::limits::{
    COMMAND_QUEUE_LEN, FRAME_PAYLOAD_BYTES_MAX, GOSSIP_BYTES_MAX, Limits, PERSISTENT_PEERS_MAX, Pace, REQUEST_BYTES_MAX,
    REQUESTS_PER_PEER_MAX, RESPONSE_BYTES_MAX,
};
use crate::manager::{Exit, Manager};
use crate::queue::{QueueLevel, SendError};
use crate::shared::{Command, PendingRequest, Shared, count};
use crate::swarm::{Behaviours, ConnectionTasks, build, listen};

/// The first pause before a failed swarm is built anew; doubled up to the longest while it keeps failing.
const RESTART_FIRST: Duration = Duration::from_millis(50);
const RESTART_LONGEST: Duration = Duration::from_secs(5);
/// A swarm that lived so long failed for a new reason.
const RESTART_GOOD_AFTER: Duration = Duration::from_secs(60);

/// What a network needs to start.
pub struct Config {
    /// Where to listen. Port 0 takes any free one; see [`Network::listening`].
    pub listen: SocketAddr,
    /// The seed of the node's ed25519 key. Overwritten with zeros once it is taken.
    pub identity: [u8; 32],
    /// Dialled for ever. One's own address among them is passed over, so all nodes can share one list.
    pub persistent_peers: Vec<PeerAddr>,
    /// What this node says of itself, and what peers must agree with.
    pub handshake: Handshake,
    /// The verdict on validator bindings.
    pub verify: VerifyFn,
    /// How many peers, and from where.
    pub limits: Limits,
    /// How long things may take.
    pub pace: Pace,
}

/// Why a network did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The configured socket.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The handshake breaks a bound that every peer would refuse it for.
    #[error("a text of the handshake is too long, not printable ASCII, or the chain id is empty")]
    Handshake,
    /// The batch size is zero or beyond [`GOSSIP_BYTES_MAX`].
    #[error("gossip_bytes_max must be 1 to {GOSSIP_BYTES_MAX}, not {0}")]
    GossipBytes(usize),
    /// More than [`PERSISTENT_PEERS_MAX`].
    #[error("at most {PERSISTENT_PEERS_MAX} persistent peers, not {0}")]
    PersistentPeers(usize),
}

/// What has passed over one lane of one peer, and what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStatus {
    /// Frames received.
    pub frames_in: u64,
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Frames written.
    pub frames_out: u64,
    /// Bytes written, with lengths and heartbeats.
    pub bytes_out: u64,
    /// Frames refused because the queue was full.
    pub dropped: u64,
    /// Waiting to be written.
    pub queued: QueueLevel,
}

/// One connected peer, as `net_info` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The connection.
    pub peer: PeerNo,
    /// Who is there.
    pub info: Arc<PeerInfo>,
    /// The votes lane.
    pub votes: LaneStatus,
    /// The bulk lane.
    pub bulk: LaneStatus,
    /// Our requests that wait for this peer.
    pub requests_in_flight: u64,
    /// Its points, of [`crate::POINTS_MAX`].
    pub points: u32,
}

/// Totals since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections that never became a peer.
    pub connections_refused: u64,
    /// Refusals that nobody read in time.
    pub notes_dropped: u64,
    /// Batches lost because a queue was full or nobody was there.
    pub gossip_dropped: u64,
    /// Batches published again within a minute, which gossipsub will not do.
    pub gossip_duplicates: u64,
    /// Requests of peers turned away because too many waited.
    pub requests_refused: u64,
    /// Times the swarm failed and was built anew.
    pub swarm_restarts: u64,
    /// Dials begun.
    pub dials: u64,
    /// Dials that failed.
    pub dials_failed: u64,
}

/// A running network. Clones are handles to the same one; it shuts down when asked to, or when the last handle is gone.
#[derive(Clone)]
pub struct Network {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    responses: mpsc::Sender<Queued>,
    shutdown: Arc<watch::Sender<bool>>,
    done: watch::Receiver<bool>,
}

impl Network {
    /// Listens, begins to dial, and returns the handle and the way events come. Must be called inside a tokio runtime with
    /// time and IO enabled.
    pub async fn start(mut config: Config) -> Result<(Self, Events), StartError> {
        if !config.handshake.is_bounded() {
            return Err(StartError::Handshake);
        }
        if config.limits.gossip_bytes_max == 0 || config.limits.gossip_bytes_max > GOSSIP_BYTES_MAX {
            return Err(StartError::GossipBytes(config.limits.gossip_bytes_max));
        }
        if config.persistent_peers.len() > PERSISTENT_PEERS_MAX {
            return Err(StartError::PersistentPeers(config.persistent_peers.len()));
        }
        let address = config.listen;
        let failed = |source| StartError::Listen { address, source };
        let keys = Keypair::ed25519_from_bytes(&mut config.identity).expect("any 32 bytes are an ed25519 seed");
        let node_id = NodeId::of_public_key(&crate::identity::public_key_of(&keys.public().to_peer_id()).expect("our key is ed25519"));
        let tasks = ConnectionTasks::default();
        let shared = Arc::new(Shared::new(node_id, config.handshake, config.verify, config.limits, config.pace));
        let mut swarm = build(&shared, &keys, &tasks).map_err(failed)?;
        let listening = listen(&mut swarm, address).await.map_err(failed)?;
        shared.listening.set(listening).expect("nobody else sets it");

        let (inlets, responses, events) = queues();
        let (commands, to_manager) = mpsc::channel(COMMAND_QUEUE_LEN);
        let (shutdown, shutting_down) = watch::channel(false);
        let (is_done, done) = watch::channel(false);
        let manager = Manager::new(Arc::clone(&shared), inlets, to_manager, shutting_down.clone(), tasks.clone(), config.persistent_peers);
        tokio::spawn(keep_alive(manager, swarm, Arc::clone(&shared), keys, tasks, shutting_down, is_done));
        Ok((Self { shared, commands, responses, shutdown: Arc::new(shutdown), done }, events))
    }

    /// Our own id.
    pub fn node_id(&self) -> NodeId {
        self.shared.node_id
    }

    /// The socket that peers dial, with the real port.
    pub fn listening(&self) -> SocketAddr {
        self.shared.listening()
    }

    /// Queues one frame of 1 to [`FRAME_PAYLOAD_BYTES_MAX`] bytes; never waits. A full queue drops it and counts: whoever sends
    /// what must arrive sends it again.
    pub fn send(&self, peer: PeerNo, lane: Lane, payload: Bytes) -> Result<(), SendError> {
        if payload.is_empty() || payload.len() > FRAME_PAYLOAD_BYTES_MAX {
            return Err(SendError::Size(payload.len()));
        }
        let link = self.shared.link(peer).ok_or(SendError::NotConnected)?;
        let sent = link.queue(lane).push(payload);
        if sent == Err(SendError::Full) {
            count(&link.lane_counters(lane).dropped);
        }
        sent
    }

    /// Publishes one batch to all who are reached, at most `gossip_bytes_max` bytes. The same bytes again within a minute go nowhere.
    pub fn publish(&self, batch: Bytes) -> Result<(), SendError> {
        if batch.is_empty() || batch.len() > self.shared.limits.gossip_bytes_max {
            return Err(SendError::Size(batch.len()));
        }
        self.shared.publishes.push(batch)
    }

    /// The verdict on a received batch. Without one it goes no further.
    pub fn report(&self, id: GossipId, verdict: Verdict) -> Result<(), SendError> {
        self.command(Command::Report { id, verdict })
    }

    /// Asks a peer; the answer comes as [`crate::Event::Response`], exactly once if this returns an id. The request is 1 to
    /// [`REQUEST_BYTES_MAX`] bytes; no more than [`REQUESTS_PER_PEER_MAX`] are in flight to one peer.
    pub fn request(&self, peer: PeerNo, request: Bytes) -> Result<RequestId, SendError> {
        if request.is_empty() || request.len() > REQUEST_BYTES_MAX {
            return Err(SendError::Size(request.len()));
        }
        let link = self.shared.link(peer).ok_or(SendError::NotConnected)?;
        let place = self.responses.clone().try_reserve_owned().map_err(|_| SendError::Full)?;
        let id = RequestId(self.shared.next_request.fetch_add(1, Ordering::Relaxed));
        let others = link.requests_in_flight.fetch_add(1, Ordering::Relaxed);
        let pending = PendingRequest::new(id, link, place);
        if others >= REQUESTS_PER_PEER_MAX as u64 {
            pending.forget();
            return Err(SendError::Full);
        }
        match self.commands.try_send(Command::Request { request: pending, bytes: request }) {
            Ok(()) => Ok(id),
            Err(error) => {
                let (refused, command) = match error {
                    mpsc::error::TrySendError::Full(command) => (SendError::Full, command),
                    mpsc::error::TrySendError::Closed(command) => (SendError::NotConnected, command),
                };
                if let Command::Request { request, .. } = command {
                    request.forget();
                }
                Err(refused)
            }
        }
    }

    /// Answers a request with 1 to [`RESPONSE_BYTES_MAX`] bytes. `Full` when too many bytes of responses wait to be written;
    /// the requester then sees a failure and asks somebody else.
    pub fn respond(&self, reply_to: ReplyTo, response: Bytes) -> Result<(), SendError> {
        if response.is_empty() || response.len() > RESPONSE_BYTES_MAX {
            return Err(SendError::Size(response.len()));
        }
        let bytes = u32::try_from(response.len()).expect("a response is bounded");
        let room = Arc::clone(&self.shared.response_room).try_acquire_many_owned(bytes).map_err(|_| SendError::Full)?;
        self.command(Command::Respond { reply_to, bytes: response, room })
    }

    /// Ends the connection. A persistent peer comes back.
    pub fn disconnect(&self, peer: PeerNo, why: impl Into<String>) {
        if let Some(link) = self.shared.link(peer) {
            link.stop.stop(Reason::Requested(why.into()));
        }
    }

    /// Adds points for a misdeed. They fade by [`crate::POINTS_FORGIVEN_PER_S`]; at [`crate::POINTS_MAX`] the peer is
    /// disconnected and stays out for [`Pace::ban`].
    pub fn penalise(&self, peer: PeerNo, points: u32, misdeed: &str) {
        if let Some(link) = self.shared.link(peer) {
            self.shared.penalise(link.info.node_id, points, misdeed);
        }
    }

    /// Dials this peer from now on. A known peer's address is replaced; beyond [`PERSISTENT_PEERS_MAX`] it is not taken.
    pub fn add_persistent_peer(&self, address: PeerAddr) -> Result<(), SendError> {
        self.command(Command::AddPersistent(address))
    }

    /// Says from now on that no validator's key vouches for this node, and meets every peer anew, for this reason: another process with
    /// the same node key for which one does is preferred to it by all peers.
    pub fn withdraw_validator(&self, why: impl Into<String>) -> Result<(), SendError> {
        self.shared.is_withdrawn.store(true, Ordering::Relaxed);
        self.command(Command::Reconnect(why.into()))
    }

    /// Dials this peer no more. An existing connection stays.
    pub fn remove_persistent_peer(&self, node: NodeId) -> Result<(), SendError> {
        self.command(Command::RemovePersistent(node))
    }

    /// The consensus keys whose nodes may take the places kept for validators. Connections that exist are not touched.
    pub fn set_validators(&self, public_keys: BTreeSet<[u8; 32]>) {
        *self.shared.validators.write().unwrap_or_else(PoisonError::into_inner) = public_keys;
    }

    /// Who is connected, in the order of connection.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let links: Vec<_> = self.shared.links.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let mut scores = self.shared.scores();
        let now = Instant::now();
        let status = |link: Arc<crate::shared::Link>| {
            let lane = |lane: Lane| {
                let counters = link.lane_counters(lane);
                LaneStatus {
                    frames_in: read(&counters.frames_in),
                    bytes_in: read(&counters.bytes_in),
                    frames_out: read(&counters.frames_out),
                    bytes_out: read(&counters.bytes_out),
                    dropped: read(&counters.dropped),
                    queued: link.queue(lane).level(),
                }
            };
            PeerStatus {
                peer: link.peer,
                info: Arc::clone(&link.info),
                votes: lane(Lane::Votes),
                bulk: lane(Lane::Bulk),
                requests_in_flight: read(&link.requests_in_flight),
                points: scores.points(link.info.node_id, now),
            }
        };
        links.into_iter().map(status).collect()
    }

    /// Totals since the start.
    pub fn totals(&self) -> Totals {
        let counters = &self.shared.counters;
        Totals {
            connections_refused: read(&counters.connections_refused),
            notes_dropped: read(&counters.notes_dropped),
            gossip_dropped: read(&counters.gossip_dropped),
            gossip_duplicates: read(&counters.gossip_duplicates),
            requests_refused: read(&counters.requests_refused),
            swarm_restarts: read(&counters.swarm_restarts),
            dials: read(&counters.dials),
            dials_failed: read(&counters.dials_failed),
        }
    }

    /// Closes all connections and returns when every task has ended. May be called by several handles.
    pub async fn shutdown(&self) {
        self.shutdown.send_replace(true);
        let mut done = self.done.clone();
        // If the sender is gone, so is the task.
        let _ = done.wait_for(|done| *done).await;
    }

    fn command(&self, command: Command) -> Result<(), SendError> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::NotConnected,
        })
    }

    #[cfg(test)]
    pub(crate) fn panic_swarm(&self) {
        self.command(Command::Panic).expect("there is room for a command");
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Runs one swarm after the other. A panic in libp2p, which some peer may have found a way to cause, costs the connections and
/// not the node.
async fn keep_alive(
    mut manager: Manager,
    swarm: Swarm<Behaviours>,
    shared: Arc<Shared>,
    keys: Keypair,
    tasks: ConnectionTasks,
    mut shutdown: watch::Receiver<bool>,
    is_done: watch::Sender<bool>,
) {
    let random = RandomState::new();
    let mut pause = RESTART_FIRST;
    let mut next = Some(swarm);
    for instance in 0_u64.. {
        let mut swarm = match next.take() {
            Some(swarm) => swarm,
            None => match rebuild(&shared, &keys, &tasks).await {
                Ok(swarm) => swarm,
                Err(error) => {
                    tracing::error!(%error, address = %shared.listening(), "cannot listen again; trying on");
                    if wait(pause, &mut shutdown).await == Exit::Shutdown {
                        break;
                    }
                    pause = (pause * 2).min(RESTART_LONGEST);
                    continue;
                }
            },
        };
        let since = Instant::now();
        let run = AssertUnwindSafe(manager.run(&mut swarm, random.hash_one(instance)));
        let exit = run.catch_unwind().await.unwrap_or(Exit::Restart);
        if exit == Exit::Restart {
            manager.stop_sessions(&Reason::SwarmRestarted);
        }
        // Dropping a swarm that panicked may panic again; what it holds is lost either way.
        if std::panic::catch_unwind(AssertUnwindSafe(|| drop(swarm))).is_err() {
            tracing::error!("the failed swarm failed again while it was dropped");
        }
        if exit == Exit::Shutdown {
            break;
        }
        count(&shared.counters.swarm_restarts);
        tracing::error!("the swarm failed and is started anew; peers reconnect");
        manager.abandon(Reason::SwarmRestarted).await;
        if since.elapsed() >= RESTART_GOOD_AFTER {
            pause = RESTART_FIRST;
        }
        if wait(pause, &mut shutdown).await == Exit::Shutdown {
            break;
        }
        pause = (pause * 2).min(RESTART_LONGEST);
    }
    manager.abandon(Reason::Shutdown).await;
    shared.publishes.close();
    drop(manager);
    is_done.send_replace(true);
}

async fn rebuild(shared: &Arc<Shared>, keys: &Keypair, tasks: &ConnectionTasks) -> io::Result<Swarm<Behaviours>> {
    let mut swarm = build(shared, keys, tasks)?;
    listen(&mut swarm, shared.listening()).await?;
    Ok(swarm)
}

/// Waits, unless a shutdown comes first. A handle that was dropped is a shutdown too.
async fn wait(pause: Duration, shutdown: &mut watch::Receiver<bool>) -> Exit {
    tokio::select! {
        _ = shutdown.wait_for(|shutdown| *shutdown) => Exit::Shutdown,
        () = tokio::time::sleep(pause) => Exit::Restart,
    }
}
