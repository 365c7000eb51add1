//! What waits to be sent: bounded by count and by bytes. A full queue refuses, it never waits.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::wire::put_frame;

/// Why something was not sent. Nothing else happens: the caller retransmits in its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue is at its bound.
    #[error("the queue is full")]
    Full,
    /// The peer is not connected, or the network is shut down.
    #[error("the peer is not connected")]
    NotConnected,
    /// Empty, or longer than its kind of message may be.
    #[error("a message of {0} bytes is empty or too long for its kind")]
    Size(usize),
}

/// How much a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLevel {
    /// Messages waiting.
    pub frames: usize,
    /// Their payload bytes.
    pub bytes: usize,
}

struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
}

/// First in, first out; one reader, any number of writers.
pub(crate) struct SendQueue {
    waiting: Mutex<Waiting>,
    ready: Notify,
    frames_max: usize,
    bytes_max: usize,
}

impl SendQueue {
    pub(crate) fn new(frames_max: usize, bytes_max: usize) -> Self {
        let waiting = Waiting { frames: VecDeque::new(), bytes: 0, closed: false };
        Self { waiting: Mutex::new(waiting), ready: Notify::new(), frames_max, bytes_max }
    }

    /// A panic elsewhere leaves the numbers consistent: every change below is complete before the lock is given back.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, message: Bytes) -> Result<(), SendError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(SendError::NotConnected);
        }
        if waiting.frames.len() >= self.frames_max || message.len() > self.bytes_max - waiting.bytes {
            return Err(SendError::Full);
        }
        waiting.bytes += message.len();
        waiting.frames.push_back(message);
        drop(waiting);
        self.ready.notify_one();
        Ok(())
    }

    /// Takes the oldest message.
    pub(crate) fn pop(&self) -> Option<Bytes> {
        let mut waiting = self.lock();
        let message = waiting.frames.pop_front()?;
        waiting.bytes -= message.len();
        Some(message)
    }

    /// Moves the oldest messages into `out`, as frames, until it holds `bytes_min` or the queue is empty; says how many.
    pub(crate) fn take_frames(&self, out: &mut Vec<u8>, bytes_min: usize) -> u64 {
        let mut count = 0;
        let mut waiting = self.lock();
        while out.len() < bytes_min {
            let Some(message) = waiting.frames.pop_front() else { break };
            waiting.bytes -= message.len();
            put_frame(&message, out);
            count += 1;
        }
        count
    }

    /// Returns after a push. May return once too often; never misses one.
    pub(crate) async fn pushed(&self) {
        self.ready.notified().await;
    }

    /// The reader stopped before the queue was empty, and wants to be woken for the rest.
    pub(crate) fn look_again(&self) {
        self.ready.notify_one();
    }

    /// From now on every push answers `NotConnected`, and what waits is gone.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.frames = VecDeque::new();
        waiting.bytes = 0;
    }

    pub(crate) fn level(&self) -> QueueLevel {
        let waiting = self.lock();
        QueueLevel { frames: waiting.frames.len(), bytes: waiting.bytes }
    }
}
