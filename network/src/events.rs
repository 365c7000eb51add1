//! What the network tells the node, and the order in which it does.
//!
//! Each class has its own bounded queue, so that bulk in front of the node never hides a vote. Votes go first; every now and
//! then another class does, so that a flood of votes cannot silence the rest.

use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::handshake::{Handshake, Refusal};
use crate::identity::NodeId;
use crate::limits::{
    BULK_EVENT_BYTES_MAX, EVENT_QUEUE_LEN, GOSSIP_EVENT_BYTES_MAX, NOTE_QUEUE_LEN, REQUESTS_MAX, STRANGER_BULK_EVENT_BYTES_MAX,
    STRANGER_EVENT_QUEUE_LEN, STRANGER_GOSSIP_EVENT_BYTES_MAX, STRANGER_VOTES_EVENT_BYTES_MAX, VOTES_EVENT_BYTES_MAX,
};
use crate::shared::Link;
use crate::wire::FrameError;

/// One connection's life with a peer. Never used twice, so nothing meant for an old connection reaches a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNo(pub u64);

/// Two roads to each peer, each in order. What is on one never waits for what is on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Small and urgent: votes, proposals, certificates.
    Votes,
    /// Everything large: parts of bodies.
    Bulk,
}

impl Lane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Votes, Self::Bulk];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Votes => 0,
            Self::Bulk => 1,
        }
    }
}

/// Who dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The peer did.
    Inbound,
    /// We did.
    Outbound,
}

/// What is known of a connected peer. Noise proved the key, the handshake was checked, its addresses are only claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The hash of `public_key`.
    pub node_id: NodeId,
    /// The node's ed25519 key.
    pub public_key: [u8; 32],
    /// Who dialled.
    pub direction: Direction,
    /// The other end of the socket.
    pub remote: SocketAddr,
    /// What the peer said of itself. Wire version, chain and genesis equal ours; a validator binding is verified.
    pub handshake: Handshake,
    /// By our clock, when the handshakes were done.
    pub connected_at: SystemTime,
}

/// Why a connection ended or never began.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// We refused the peer at the handshake, and told it so.
    #[error("we refused it: {0}")]
    Refused(Refusal),
    /// The peer refused us, and told us so.
    #[error("it refused us: {0}")]
    RefusedByPeer(Refusal),
    /// The peer left or died: its socket closed.
    #[error("closed by the peer")]
    Closed,
    /// The handshakes were not done in time.
    #[error("the handshakes took too long")]
    HandshakeTimeout,
    /// Nothing was heard for [`crate::Pace::silent_after`].
    #[error("nothing heard for too long")]
    Silent,
    /// The peer took no byte for [`crate::Pace::stalled_after`] while some waited for it.
    #[error("takes nothing of what we send")]
    SlowReader,
    /// Bytes that are no frame.
    #[error("{0}")]
    Frame(FrameError),
    /// Points reached [`crate::POINTS_MAX`]; the text is the last misdeed.
    #[error("banned: {0}")]
    Banned(String),
    /// The node asked for it, in its own words.
    #[error("{0}")]
    Requested(String),
    /// Another connection to the same node is kept.
    #[error("another connection to the same node is kept")]
    Duplicate,
    /// Whoever answered at the address has another key.
    #[error("the address belongs to {expected}, but {found} answered")]
    IdentityMismatch {
        /// The id in the address.
        expected: NodeId,
        /// The id that Noise proved.
        found: NodeId,
    },
    /// The address leads to ourselves.
    #[error("that is ourselves")]
    Oneself,
    /// The key of the peer is not ed25519.
    #[error("a kind of key this network does not speak")]
    KeyKind,
    /// Dialling, Noise or yamux failed; the text is the transport's.
    #[error("no connection: {0}")]
    Transport(String),
    /// The swarm failed and was started anew. Peers come back by themselves.
    #[error("the swarm was restarted")]
    SwarmRestarted,
    /// The network was shut down.
    #[error("shut down")]
    Shutdown,
}

/// Names one received batch until its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GossipId {
    pub(crate) message: [u8; 32],
    pub(crate) source: PeerNo,
}

impl GossipId {
    /// SHA-256 over topic and content: the same on every node.
    pub fn content_hash(&self) -> [u8; 32] {
        self.message
    }
}

/// What the node found in a received batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Good: pass it on to others.
    Accept,
    /// Useless but harmless: it ends here.
    Ignore,
    /// Invalid: it ends here, and costs the peer that sent it [`crate::POINTS_GOSSIP_REJECTED`].
    Reject,
}

/// Names one of our requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The right to answer one request, once. Dropped unused, the requester sees a failure.
#[derive(Debug, PartialEq, Eq)]
pub struct ReplyTo(pub(crate) u64);

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not within [`crate::Pace::request_within`].
    #[error("no response in time")]
    Timeout,
    /// The peer left, or had left.
    #[error("the peer is not connected")]
    NotConnected,
    /// The peer would not answer, or broke off.
    #[error("the peer broke off: {0}")]
    BrokenOff(String),
}

/// What happened. For each peer: `Connected` first, `Disconnected` last, and nothing else outside them.
///
/// A peer is a connection. Of a node that comes back as another kind of peer, as one that the key of a validator vouches for, the new
/// connection may be told of before the end of the old one: the two are told in different queues ([`Events::split`]), of which one does not
/// wait for the other.
#[derive(Debug)]
pub enum Event {
    /// All handshakes are done and both lanes are open both ways.
    Connected {
        /// The new connection.
        peer: PeerNo,
        /// Who is there.
        info: Arc<PeerInfo>,
    },
    /// The connection is gone, and with it what was queued for it. A persistent peer is redialled without being asked.
    Disconnected {
        /// The connection.
        peer: PeerNo,
        /// Who was there.
        node_id: NodeId,
        /// Why.
        reason: Reason,
    },
    /// A connection that never became a peer, or a dial that failed: for the log. Dropped when nobody reads them.
    Refused {
        /// Who it was, or should have been; unknown when an inbound connection failed before Noise was done.
        node_id: Option<NodeId>,
        /// The other end, when there was one.
        remote: Option<SocketAddr>,
        /// Who dialled.
        direction: Direction,
        /// Why not.
        reason: Reason,
    },
    /// A frame, in the order in which the peer sent it on this lane.
    Received {
        /// From whom.
        peer: PeerNo,
        /// On which lane.
        lane: Lane,
        /// 1 to [`crate::FRAME_PAYLOAD_BYTES_MAX`] bytes.
        bytes: Bytes,
    },
    /// A batch published by somebody. It goes no further until `Network::report` says so.
    Gossip {
        /// Who passed it on, not who published it.
        peer: PeerNo,
        /// For the verdict.
        id: GossipId,
        /// At most the configured batch size.
        bytes: Bytes,
    },
    /// A peer asks.
    Request {
        /// Who.
        peer: PeerNo,
        /// Where the answer goes.
        reply_to: ReplyTo,
        /// At most [`crate::REQUEST_BYTES_MAX`] bytes.
        bytes: Bytes,
    },
    /// What became of a request of ours. Comes exactly once for each, also after its peer left.
    Response {
        /// Whom we asked.
        peer: PeerNo,
        /// The request.
        id: RequestId,
        /// At most [`crate::RESPONSE_BYTES_MAX`] bytes.
        result: Result<Bytes, RequestError>,
    },
}

/// An event on its way: with the bytes it occupies, and with whom to tell once the node has it.
pub(crate) struct Queued {
    event: Event,
    /// Given back when the node takes the event.
    bytes: Option<OwnedSemaphorePermit>,
    taken: Option<oneshot::Sender<()>>,
}

impl fmt::Debug for Queued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event.fmt(f)
    }
}

impl From<Event> for Queued {
    fn from(event: Event) -> Self {
        Self { event, bytes: None, taken: None }
    }
}

/// The node is not interested any more.
pub(crate) struct NobodyListens;

/// The way in for frames of one lane: waits while the node is behind, which makes the peer wait.
#[derive(Clone)]
struct FrameInlet {
    queue: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
}

impl FrameInlet {
    fn new(queue: mpsc::Sender<Queued>, bytes_max: usize) -> Self {
        Self { queue, bytes: Arc::new(Semaphore::new(bytes_max)) }
    }
}

/// The ways in of peers of one standing.
#[derive(Clone)]
struct Ways {
    lanes: [FrameInlet; 2],
    gossip: FrameInlet,
    requests: mpsc::Sender<Queued>,
}

/// The ways in. Cloned for every session.
#[derive(Clone)]
pub(crate) struct Inlets {
    /// By [`crate::shared::Standing`]: what strangers send is in front of nobody else.
    ways: [Ways; 2],
    notes: mpsc::Sender<Queued>,
}

impl Inlets {
    fn of(&self, link: &Link) -> &Ways {
        &self.ways[link.standing.index()]
    }

    /// `Connected`, and then waits until the node has taken it: what follows on other queues cannot overtake it.
    pub(crate) async fn connected(&self, link: &Link) -> Result<(), NobodyListens> {
        let (taken, was_taken) = oneshot::channel();
        let event = Event::Connected { peer: link.peer, info: Arc::clone(&link.info) };
        self.of(link).lanes[0].queue.send(Queued { event, bytes: None, taken: Some(taken) }).await.map_err(|_| NobodyListens)?;
        link.announced.store(true, Ordering::Release);
        was_taken.await.map_err(|_| NobodyListens)
    }

    /// Travels behind the peer's last votes. A peer that left before the node was told of it is not mentioned.
    pub(crate) async fn disconnected(&self, link: &Link, reason: Reason) {
        if link.announced.load(Ordering::Acquire) {
            let event = Event::Disconnected { peer: link.peer, node_id: link.info.node_id, reason };
            // Nobody listens any more: then nobody misses it.
            let _ = self.of(link).lanes[0].queue.send(event.into()).await;
        }
    }

    pub(crate) async fn received(&self, link: &Link, lane: Lane, bytes: Bytes) -> Result<(), NobodyListens> {
        let inlet = &self.of(link).lanes[lane.index()];
        let peer = link.peer;
        let cost = u32::try_from(bytes.len()).expect("a frame is short");
        let permit = Arc::clone(&inlet.bytes).acquire_many_owned(cost).await.map_err(|_| NobodyListens)?;
        let queued = Queued { event: Event::Received { peer, lane, bytes }, bytes: Some(permit), taken: None };
        inlet.queue.send(queued).await.map_err(|_| NobodyListens)
    }

    /// False when there is no room.
    pub(crate) fn try_gossip(&self, link: &Link, id: GossipId, bytes: Bytes) -> bool {
        let (peer, gossip) = (link.peer, &self.of(link).gossip);
        let Ok(cost) = u32::try_from(bytes.len()) else { return false };
        let Ok(permit) = Arc::clone(&gossip.bytes).try_acquire_many_owned(cost) else { return false };
        let queued = Queued { event: Event::Gossip { peer, id, bytes }, bytes: Some(permit), taken: None };
        gossip.queue.try_send(queued).is_ok()
    }

    /// False when there is no room.
    pub(crate) fn try_request(&self, link: &Link, reply_to: ReplyTo, bytes: Bytes) -> bool {
        self.of(link).requests.try_send(Event::Request { peer: link.peer, reply_to, bytes }.into()).is_ok()
    }

    /// False when there is no room.
    pub(crate) fn try_refused(&self, node_id: Option<NodeId>, remote: Option<SocketAddr>, direction: Direction, reason: Reason) -> bool {
        self.notes.try_send(Event::Refused { node_id, remote, direction, reason }.into()).is_ok()
    }
}

/// Where the node takes its events. [`Events::split`] makes two of it, so that strangers can be made to wait alone.
pub struct Events {
    /// Votes, responses, requests, bulk, gossip, notes: in the order of their rank. After them votes, requests, bulk and gossip of
    /// strangers.
    queues: Vec<mpsc::Receiver<Queued>>,
    /// Peers announced and not yet taken back.
    connected: BTreeSet<PeerNo>,
    turn: u32,
}

/// Of [`Events::queues`], those before the strangers'.
const KNOWN_QUEUES: usize = 6;
/// Of so many turns, one begins with another class than votes.
const FAIR_TURN: u32 = 16;

/// The queues of a network: ways in, the place of responses, and the way out.
pub(crate) fn queues() -> (Inlets, mpsc::Sender<Queued>, Events) {
    let (votes, votes_out) = mpsc::channel(EVENT_QUEUE_LEN);
    let (responses, responses_out) = mpsc::channel(REQUESTS_MAX);
    let (requests, requests_out) = mpsc::channel(REQUESTS_MAX);
    let (bulk, bulk_out) = mpsc::channel(EVENT_QUEUE_LEN);
    let (gossip, gossip_out) = mpsc::channel(EVENT_QUEUE_LEN);
    let (notes, notes_out) = mpsc::channel(NOTE_QUEUE_LEN);
    let known = Ways {
        lanes: [FrameInlet::new(votes, VOTES_EVENT_BYTES_MAX), FrameInlet::new(bulk, BULK_EVENT_BYTES_MAX)],
        gossip: FrameInlet::new(gossip, GOSSIP_EVENT_BYTES_MAX),
        requests,
    };
    let (votes, strange_votes_out) = mpsc::channel(STRANGER_EVENT_QUEUE_LEN);
    let (requests, strange_requests_out) = mpsc::channel(STRANGER_EVENT_QUEUE_LEN);
    let (bulk, strange_bulk_out) = mpsc::channel(STRANGER_EVENT_QUEUE_LEN);
    let (gossip, strange_gossip_out) = mpsc::channel(STRANGER_EVENT_QUEUE_LEN);
    let strangers = Ways {
        lanes: [FrameInlet::new(votes, STRANGER_VOTES_EVENT_BYTES_MAX), FrameInlet::new(bulk, STRANGER_BULK_EVENT_BYTES_MAX)],
        gossip: FrameInlet::new(gossip, STRANGER_GOSSIP_EVENT_BYTES_MAX),
        requests,
    };
    let inlets = Inlets { ways: [known, strangers], notes };
    let queues = vec![
        votes_out,
        responses_out,
        requests_out,
        bulk_out,
        gossip_out,
        notes_out,
        strange_votes_out,
        strange_requests_out,
        strange_bulk_out,
        strange_gossip_out,
    ];
    (inlets, responses, Events { queues, connected: BTreeSet::new(), turn: 0 })
}

impl Events {
    /// Events of peers that the operator named or validators' keys vouch for, with all that is of no peer; and those of
    /// strangers. A peer's are all in one of them. To be called before anything is taken.
    pub fn split(mut self) -> (Self, Self) {
        let strangers = self.queues.split_off(KNOWN_QUEUES);
        (self, Self { queues: strangers, connected: BTreeSet::new(), turn: 0 })
    }

    /// The next event; `None` once the network is shut down and everything was taken. Safe to drop and call again.
    pub async fn recv(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.turn = self.turn.wrapping_add(1);
        let first = if self.turn.is_multiple_of(FAIR_TURN) {
            usize::try_from(self.turn / FAIR_TURN).expect("a u32 fits a usize") % self.queues.len()
        } else {
            0
        };
        let mut votes_closed = false;
        for offset in 0..self.queues.len() {
            let index = (first + offset) % self.queues.len();
            loop {
                match self.queues[index].poll_recv(cx) {
                    Poll::Ready(Some(queued)) => {
                        if let Some(event) = self.take(queued) {
                            return Poll::Ready(Some(event));
                        }
                    }
                    Poll::Ready(None) => {
                        votes_closed |= index == 0;
                        break;
                    }
                    Poll::Pending => break,
                }
            }
        }
        if votes_closed { Poll::Ready(None) } else { Poll::Pending }
    }

    /// Keeps the promise of [`Event`]: what is still queued of a peer after its `Disconnected` is dropped here.
    fn take(&mut self, queued: Queued) -> Option<Event> {
        drop(queued.bytes);
        match &queued.event {
            Event::Connected { peer, .. } => {
                self.connected.insert(*peer);
            }
            Event::Disconnected { peer, .. } => {
                self.connected.remove(peer);
            }
            Event::Received { peer, .. } | Event::Gossip { peer, .. } | Event::Request { peer, .. } => {
                if !self.connected.contains(peer) {
                    return None;
                }
            }
            Event::Response { .. } | Event::Refused { .. } => {}
        }
        if let Some(taken) = queued.taken {
            // The session ended meanwhile; its `Disconnected` follows.
            let _ = taken.send(());
        }
        Some(queued.event)
    }
}
