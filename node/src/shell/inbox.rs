//! What reaches the replica's thread: one channel, in the order of arrival. What comes from sockets holds a place until it is taken,
//! and each kind of sender has places of its own, so that none keeps another from being heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use lockstep_replica::Input;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use lockstep_replica::seam::Reply;

/// Inputs of peers that the operator named or validators' keys vouch for, which may wait at a time. What comes beyond waits in its
/// socket, so a flood slows those who send it.
const PEERS_MAX: usize = 4_096;
/// Inputs of other peers: so few that a vote that comes behind them hardly waits.
const STRANGERS_MAX: usize = 64;
/// Inputs of clients.
const CLIENTS_MAX: usize = 8_192;

/// From whom something comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A peer that the operator named or a validator's key vouches for.
    Peer,
    /// Any other peer.
    Stranger,
}

/// Held by what waits in the inbox, and free again when it is taken.
pub(crate) type Place = Option<OwnedSemaphorePermit>;

/// What the replica's thread is told.
pub(crate) enum Mail {
    /// An answer, or what a thread of ours found. Never more than questions.
    Own(Input),
    /// From a socket; holds a place until it is taken.
    External(Input),
    /// A peer asks; the right to answer comes along.
    Asked { peer: lockstep_replica::seam::Peer, reply_to: lockstep_network::ReplyTo, bytes: bytes::Bytes },
    /// The network's answer to a request of ours, by its own number.
    Response { id: lockstep_network::RequestId, bytes: Option<bytes::Bytes> },
    /// A client submits; the answer goes to the sender.
    Submit { tx: Arc<[u8]>, wait: lockstep_replica::seam::Wait, reply: oneshot::Sender<Reply> },
    /// A client brings evidence; the answer goes to the sender.
    Evidence { evidence: Box<lockstep_types::Evidence>, reply: oneshot::Sender<Reply> },
    /// A reader wants to see the first transactions of the pool, in the order in which they would be proposed.
    Pool { limit: usize, reply: oneshot::Sender<Vec<Arc<[u8]>>> },
    /// The node will stop: peers are told once more what waits in the pool. Answered when that is with the network.
    HandOver { reply: oneshot::Sender<()> },
    /// The state database is not what was written: the home is to be opened again, which makes it anew.
    Mend { reason: String },
    /// The node stops.
    Stop,
}

/// A handle to put something in. Clones are the same inbox.
#[derive(Clone)]
pub(crate) struct Inbox {
    mail: Sender<(Mail, Place)>,
    peers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    closed: Arc<AtomicBool>,
}

/// The other end.
pub(crate) struct Inputs {
    pub(crate) mail: Receiver<(Mail, Place)>,
}

impl Inbox {
    /// An inbox and its end.
    pub(crate) fn new() -> (Self, Inputs) {
        let (mail, receiver) = channel();
        let places = |count| Arc::new(Semaphore::new(count));
        let (peers, strangers, clients) = (places(PEERS_MAX), places(STRANGERS_MAX), places(CLIENTS_MAX));
        (Self { mail, peers, strangers, clients, closed: Arc::default() }, Inputs { mail: receiver })
    }

    /// An answer. A replica that is gone needs none.
    pub(crate) fn answer(&self, input: Input) {
        let _ = self.mail.send((Mail::Own(input), None));
    }

    /// Anything that is not counted.
    pub(crate) fn put(&self, mail: Mail) {
        let _ = self.mail.send((mail, None));
    }

    /// From a peer: waits for a place.
    pub(crate) async fn external(&self, from: Origin, mail: Mail) {
        let places = match from {
            Origin::Peer => &self.peers,
            Origin::Stranger => &self.strangers,
        };
        if let Ok(place) = Arc::clone(places).acquire_owned().await {
            let _ = self.mail.send((mail, Some(place)));
        }
    }

    /// From a client, who is better told than kept waiting: false when there is no place.
    pub(crate) fn try_external(&self, mail: Mail) -> bool {
        let Ok(place) = Arc::clone(&self.clients).try_acquire_owned() else { return false };
        self.mail.send((mail, Some(place))).is_ok() && !self.closed.load(Ordering::Relaxed)
    }

    /// Whether the node stops.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The replica's thread ends with what it has.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = self.mail.send((Mail::Stop, None));
    }
}
