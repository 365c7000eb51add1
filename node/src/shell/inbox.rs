//! What reaches the replica's thread: one channel, in the order of arrival.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use lockstep_replica::Input;
use tokio::sync::{Semaphore, oneshot};

use lockstep_replica::seam::Reply;

/// Inputs from sockets that may wait at a time. What comes beyond waits in its socket, so a flood slows those who send it.
pub(crate) const EXTERNAL_MAX: usize = 8_192;

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
    /// A reader wants to see the first transactions of the pool, in the order in which they would be proposed.
    Pool { limit: usize, reply: oneshot::Sender<Vec<Arc<[u8]>>> },
    /// The node stops.
    Stop,
}

/// A handle to put something in. Clones are the same inbox.
#[derive(Clone)]
pub(crate) struct Inbox {
    mail: Sender<Mail>,
    places: Arc<Semaphore>,
    closed: Arc<AtomicBool>,
}

/// The other end.
pub(crate) struct Inputs {
    pub(crate) mail: Receiver<Mail>,
    places: Arc<Semaphore>,
}

impl Inputs {
    /// A place is free again.
    pub(crate) fn taken(&self) {
        self.places.add_permits(1);
    }
}

impl Inbox {
    /// An inbox and its end.
    pub(crate) fn new() -> (Self, Inputs) {
        let (mail, receiver) = channel();
        let places = Arc::new(Semaphore::new(EXTERNAL_MAX));
        (Self { mail, places: places.clone(), closed: Arc::default() }, Inputs { mail: receiver, places })
    }

    /// An answer. A replica that is gone needs none.
    pub(crate) fn answer(&self, input: Input) {
        let _ = self.mail.send(Mail::Own(input));
    }

    /// Anything that is not counted.
    pub(crate) fn put(&self, mail: Mail) {
        let _ = self.mail.send(mail);
    }

    /// From a socket: waits for a place.
    pub(crate) async fn external(&self, mail: Mail) {
        if let Ok(place) = self.places.acquire().await {
            place.forget();
            let _ = self.mail.send(mail);
        }
    }

    /// From a socket whose client is better told than kept waiting: false when there is no place.
    pub(crate) fn try_external(&self, mail: Mail) -> bool {
        let Ok(place) = self.places.try_acquire() else { return false };
        place.forget();
        self.mail.send(mail).is_ok() && !self.closed.load(Ordering::Relaxed)
    }

    /// Whether the node stops.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The replica's thread ends with what it has.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let _ = self.mail.send(Mail::Stop);
    }
}
