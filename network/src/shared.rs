//! What the handle, the swarm and the sessions share.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::events::{Event, GossipId, Lane, PeerInfo, PeerNo, Queued, Reason, ReplyTo, RequestError, RequestId, Verdict};
use crate::handshake::{Handshake, VerifyFn};
use crate::identity::{NodeId, PeerAddr};
use crate::limits::{
    BULK_QUEUE_BYTES_MAX, BULK_QUEUE_FRAMES_MAX, Limits, PUBLISH_QUEUE_BYTES_MAX, PUBLISH_QUEUE_LEN, Pace, RESPONSES_OUT_BYTES_MAX,
    VOTES_QUEUE_BYTES_MAX, VOTES_QUEUE_FRAMES_MAX,
};
use crate::meter::{Meter, Meters};
use crate::queue::SendQueue;
use crate::score::Scores;

/// Tells a session to end, once and why. The first reason stands.
#[derive(Default)]
pub(crate) struct Stop {
    reason: OnceLock<Reason>,
    told: Notify,
}

impl Stop {
    pub(crate) fn stop(&self, reason: Reason) {
        if self.reason.set(reason).is_ok() {
            self.told.notify_one();
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.reason.get().is_some()
    }

    /// One session waits here; the permit of `notify_one` keeps for it.
    pub(crate) async fn stopped(&self) -> Reason {
        loop {
            if let Some(reason) = self.reason.get() {
                return reason.clone();
            }
            self.told.notified().await;
        }
    }
}

/// Frames and bytes, counted once per frame.
#[derive(Default)]
pub(crate) struct LaneCounters {
    pub(crate) frames_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// Who a peer is to us, from the handshake to the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The operator named it, or a validator's key vouches for it.
    Known,
    /// Anybody else.
    Stranger,
}

impl Standing {
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Known => 0,
            Self::Stranger => 1,
        }
    }
}

/// A connected peer, as the handle, its session and the swarm see it.
pub(crate) struct Link {
    pub(crate) peer: PeerNo,
    pub(crate) standing: Standing,
    /// Of a connection that came in.
    pub(crate) meter: Option<Arc<Meter>>,
    pub(crate) info: Arc<PeerInfo>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) queues: [SendQueue; 2],
    pub(crate) counters: [LaneCounters; 2],
    pub(crate) requests_in_flight: AtomicU64,
    /// The node has been told, or will be: `Connected` is on its way, so `Disconnected` must follow.
    pub(crate) announced: AtomicBool,
    since: Instant,
    heard_ms: AtomicU64,
}

impl Link {
    pub(crate) fn new(peer: PeerNo, standing: Standing, meter: Option<Arc<Meter>>, info: Arc<PeerInfo>, stop: Arc<Stop>) -> Self {
        Self {
            peer,
            standing,
            meter,
            info,
            stop,
            queues: [
                SendQueue::new(VOTES_QUEUE_FRAMES_MAX, VOTES_QUEUE_BYTES_MAX),
                SendQueue::new(BULK_QUEUE_FRAMES_MAX, BULK_QUEUE_BYTES_MAX),
            ],
            counters: Default::default(),
            requests_in_flight: AtomicU64::new(0),
            announced: AtomicBool::new(false),
            since: Instant::now(),
            heard_ms: AtomicU64::new(0),
        }
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What the peer sent costs as much as so many bytes more than it had.
    pub(crate) fn charge(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.charge(bytes);
        }
    }

    /// Bytes came, on whichever lane.
    pub(crate) fn heard(&self) {
        self.heard_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    pub(crate) fn silence(&self) -> Duration {
        Duration::from_millis(self.age_ms().saturating_sub(self.heard_ms.load(Ordering::Relaxed)))
    }

    pub(crate) fn queue(&self, lane: Lane) -> &SendQueue {
        &self.queues[lane.index()]
    }

    pub(crate) fn lane_counters(&self, lane: Lane) -> &LaneCounters {
        &self.counters[lane.index()]
    }
}

/// One of our requests on its way. However it ends, even if the swarm dies with it, the node gets its `Response`.
pub(crate) struct PendingRequest {
    pub(crate) id: RequestId,
    pub(crate) link: Arc<Link>,
    place: Option<mpsc::OwnedPermit<Queued>>,
}

impl PendingRequest {
    pub(crate) fn new(id: RequestId, link: Arc<Link>, place: mpsc::OwnedPermit<Queued>) -> Self {
        Self { id, link, place: Some(place) }
    }

    pub(crate) fn finish(mut self, result: Result<Bytes, RequestError>) {
        self.end(Some(result));
    }

    /// It was never sent, and the caller has been told.
    pub(crate) fn forget(mut self) {
        self.end(None);
    }

    /// The first call counts. The place at the peer is free before the node learns that it is.
    fn end(&mut self, result: Option<Result<Bytes, RequestError>>) {
        let Some(place) = self.place.take() else { return };
        self.link.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
        if let Some(result) = result {
            let (peer, id) = (self.link.peer, self.id);
            place.send(Event::Response { peer, id, result }.into());
        }
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        self.end(Some(Err(RequestError::NotConnected)));
    }
}

/// What the handle asks of the swarm.
pub(crate) enum Command {
    Report {
        id: GossipId,
        verdict: Verdict,
    },
    Request {
        request: PendingRequest,
        bytes: Bytes,
    },
    Respond {
        reply_to: ReplyTo,
        bytes: Bytes,
        room: OwnedSemaphorePermit,
    },
    AddPersistent(PeerAddr),
    /// Every connection ends, for this reason; persistent peers are met again.
    Reconnect(String),
    RemovePersistent(NodeId),
    #[cfg(test)]
    Panic,
}

/// Totals since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) connections_refused: AtomicU64,
    pub(crate) notes_dropped: AtomicU64,
    pub(crate) gossip_dropped: AtomicU64,
    pub(crate) gossip_duplicates: AtomicU64,
    pub(crate) requests_refused: AtomicU64,
    pub(crate) swarm_restarts: AtomicU64,
    pub(crate) dials: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One per network, for its whole life, across restarts of the swarm.
pub(crate) struct Shared {
    pub(crate) node_id: NodeId,
    pub(crate) handshake: Handshake,
    /// No validator's key vouches for this node any more.
    pub(crate) is_withdrawn: AtomicBool,
    pub(crate) verify: VerifyFn,
    pub(crate) limits: Limits,
    pub(crate) meters: Arc<Meters>,
    pub(crate) pace: Pace,
    /// Known once the first swarm listens.
    pub(crate) listening: OnceLock<SocketAddr>,
    pub(crate) links: RwLock<BTreeMap<PeerNo, Arc<Link>>>,
    pub(crate) persistent: RwLock<BTreeSet<NodeId>>,
    pub(crate) validators: RwLock<BTreeSet<[u8; 32]>>,
    pub(crate) scores: Mutex<Scores>,
    pub(crate) publishes: SendQueue,
    pub(crate) response_room: Arc<Semaphore>,
    pub(crate) counters: Counters,
    pub(crate) next_peer: AtomicU64,
    pub(crate) next_request: AtomicU64,
}

impl Shared {
    pub(crate) fn new(node_id: NodeId, handshake: Handshake, verify: VerifyFn, limits: Limits, pace: Pace) -> Self {
        let scores = Scores::new(pace.ban);
        Self {
            node_id,
            handshake,
            is_withdrawn: AtomicBool::new(false),
            verify,
            meters: Arc::new(Meters::new(&limits)),
            limits,
            pace,
            listening: OnceLock::new(),
            links: RwLock::default(),
            persistent: RwLock::default(),
            validators: RwLock::default(),
            scores: Mutex::new(scores),
            publishes: SendQueue::new(PUBLISH_QUEUE_LEN, PUBLISH_QUEUE_BYTES_MAX),
            response_room: Arc::new(Semaphore::new(RESPONSES_OUT_BYTES_MAX)),
            counters: Counters::default(),
            next_peer: AtomicU64::new(1),
            next_request: AtomicU64::new(1),
        }
    }

    /// What this node says of itself now.
    pub(crate) fn own_handshake(&self) -> Handshake {
        let mut handshake = self.handshake.clone();
        if self.is_withdrawn.load(Ordering::Relaxed) {
            handshake.validator = None;
        }
        handshake
    }

    pub(crate) fn listening(&self) -> SocketAddr {
        *self.listening.get().expect("set before anything but the first swarm exists")
    }

    pub(crate) fn link(&self, peer: PeerNo) -> Option<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }

    pub(crate) fn add_link(&self, link: Arc<Link>) {
        self.links.write().unwrap_or_else(PoisonError::into_inner).insert(link.peer, link);
    }

    /// The peer is gone for the handle, and what waits for it is freed.
    pub(crate) fn remove_link(&self, link: &Link) {
        self.links.write().unwrap_or_else(PoisonError::into_inner).remove(&link.peer);
        link.queues.iter().for_each(SendQueue::close);
    }

    pub(crate) fn scores(&self) -> MutexGuard<'_, Scores> {
        self.scores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_banned(&self, node: NodeId) -> bool {
        self.scores().is_banned(node, Instant::now())
    }

    /// Adds points, and ends every connection of the peer when they are too many.
    pub(crate) fn penalise(&self, node: NodeId, points: u32, misdeed: &str) {
        if !self.scores().penalise(node, points, Instant::now()) {
            return;
        }
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        for link in links.values().filter(|link| link.info.node_id == node) {
            link.stop.stop(Reason::Banned(misdeed.to_owned()));
        }
    }

    pub(crate) fn is_persistent(&self, node: NodeId) -> bool {
        self.persistent.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    pub(crate) fn is_validator(&self, handshake: &Handshake) -> bool {
        let validators = self.validators.read().unwrap_or_else(PoisonError::into_inner);
        handshake.validator.as_ref().is_some_and(|binding| validators.contains(&binding.public_key))
    }
}
