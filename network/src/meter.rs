//! How fast what strangers send is read.
//!
//! A peer that the operator named, or that a validator's key vouches for, is read as fast as it sends. Everybody else shares a
//! rate: his socket is not read while it is used up, so TCP makes him wait, and what he would have sent costs neither Noise nor
//! anything behind it. What is dearer than its bytes (a frame, a question, a stream) is charged on top.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::futures::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep};

use crate::door::socket_of;
use crate::limits::{Limits, STRANGER_BURST_BYTES, STREAM_COST_BYTES};

/// A stranger who used up his share is read again after this at the earliest: many tiny reads cost more than their bytes.
const PAUSE_SHORTEST: Duration = Duration::from_millis(5);
/// And after this at the latest: he may have become a peer of another standing meanwhile.
const PAUSE_LONGEST: Duration = Duration::from_millis(100);

/// What all meters of a network share.
pub(crate) struct Meters {
    per_stranger: u64,
    all_strangers: u64,
    strangers: AtomicU64,
    by_remote: Mutex<HashMap<SocketAddr, Weak<Meter>>>,
}

impl Meters {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            per_stranger: limits.stranger_bytes_per_s,
            all_strangers: limits.strangers_bytes_per_s,
            strangers: AtomicU64::new(0),
            by_remote: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Weak<Meter>>> {
        self.by_remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each stranger's equal share of what all may send, in bytes a second.
    fn rate(&self) -> u64 {
        let share = self.all_strangers / self.strangers.load(Ordering::Relaxed).max(1);
        share.min(self.per_stranger).max(1)
    }

    /// The meter of a connection that came in. Whom we dial, the operator named: he has none.
    pub(crate) fn begin(self: &Arc<Self>, point: &ConnectedPoint) -> Option<Arc<Meter>> {
        if point.is_dialer() {
            return None;
        }
        let meter = Arc::new(Meter::new(Arc::clone(self), Instant::now()));
        if let Some(remote) = socket_of(point.get_remote_address()) {
            let mut by_remote = self.lock();
            by_remote.insert(remote, Arc::downgrade(&meter));
            // Never more entries than twice the connections that are open.
            if by_remote.len() as u64 > 2 * self.strangers.load(Ordering::Relaxed) + 64 {
                by_remote.retain(|_, meter| meter.strong_count() > 0);
            }
        }
        Some(meter)
    }

    /// The meter of the connection with this other end.
    pub(crate) fn of(&self, remote: SocketAddr) -> Option<Arc<Meter>> {
        self.lock().get(&remote).and_then(Weak::upgrade)
    }
}

struct Bucket {
    /// What may be read now; negative after a charge that was not covered.
    bytes: i64,
    as_of: Instant,
}

/// Of one connection.
pub(crate) struct Meter {
    meters: Arc<Meters>,
    trusted: AtomicBool,
    bucket: Mutex<Bucket>,
}

const BURST: i64 = STRANGER_BURST_BYTES as i64;

impl Meter {
    fn new(meters: Arc<Meters>, now: Instant) -> Self {
        meters.strangers.fetch_add(1, Ordering::Relaxed);
        Self { meters, trusted: AtomicBool::new(false), bucket: Mutex::new(Bucket { bytes: BURST, as_of: now }) }
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer is none of the strangers: from now on it is read as fast as it sends.
    pub(crate) fn trust(&self) {
        if !self.trusted.swap(true, Ordering::Relaxed) {
            self.meters.strangers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Something was done for this peer that is as dear as so many bytes.
    pub(crate) fn charge(&self, bytes: usize) {
        let mut bucket = self.lock();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        // No debt is longer than a burst takes to come back: whoever reaches it is slowed down, not locked out.
        bucket.bytes = bucket.bytes.saturating_sub(bytes).max(-BURST);
    }

    /// How much may be read now, or for how long nothing.
    fn allowance(&self, now: Instant) -> Result<usize, Duration> {
        let rate = self.meters.rate();
        let mut bucket = self.lock();
        let elapsed = now.saturating_duration_since(bucket.as_of);
        let earned = elapsed.as_micros().saturating_mul(u128::from(rate)) / 1_000_000;
        if earned > 0 {
            bucket.bytes = bucket.bytes.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(BURST);
            bucket.as_of = now;
        }
        match usize::try_from(bucket.bytes) {
            Ok(bytes) if bytes > 0 => Ok(bytes),
            _ => {
                let missing = bucket.bytes.unsigned_abs() + 1;
                let pause = Duration::from_millis(missing.saturating_mul(1_000) / rate);
                Err(pause.clamp(PAUSE_SHORTEST, PAUSE_LONGEST))
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.trust();
    }
}

/// A socket that is read no faster than its meter allows.
pub(crate) struct MeteredStream<T> {
    stream: T,
    meter: Option<Arc<Meter>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<T> MeteredStream<T> {
    pub(crate) fn new(stream: T, meter: Option<Arc<Meter>>) -> Self {
        Self { stream, meter, pause: None }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for MeteredStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(meter) = this.meter.as_ref().filter(|meter| !meter.trusted.load(Ordering::Relaxed)) else {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        };
        loop {
            if let Some(pause) = &mut this.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.pause = None;
            }
            match meter.allowance(Instant::now()) {
                Err(pause) => this.pause = Some(Box::pin(sleep(pause))),
                Ok(bytes) => {
                    let end = buffer.len().min(bytes);
                    let read = Pin::new(&mut this.stream).poll_read(cx, &mut buffer[..end]);
                    if let Poll::Ready(Ok(count)) = read {
                        meter.charge(count);
                    }
                    return read;
                }
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for MeteredStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// The streams of a connection: each that the other side opens is charged.
pub(crate) struct MeteredMuxer<M> {
    muxer: M,
    meter: Option<Arc<Meter>>,
}

impl<M> MeteredMuxer<M> {
    pub(crate) fn new(muxer: M, meter: Option<Arc<Meter>>) -> Self {
        Self { muxer, meter }
    }
}

impl<M: StreamMuxer + Unpin> StreamMuxer for MeteredMuxer<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        let stream = Pin::new(&mut self.muxer).poll_inbound(cx);
        if let (Poll::Ready(Ok(_)), Some(meter)) = (&stream, &self.meter) {
            meter.charge(STREAM_COST_BYTES);
        }
        stream
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<M::Substream, M::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.muxer).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}

/// So many a second, and so many at once.
pub(crate) struct Pace {
    per_s: u64,
    burst: u64,
    /// What may come now, in thousandths.
    left: u64,
    as_of: Instant,
}

impl Pace {
    pub(crate) fn new(per_s: u64, burst: u64, now: Instant) -> Self {
        Self { per_s, burst, left: burst * 1_000, as_of: now }
    }

    /// Whether one more may come.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let elapsed = u64::try_from(now.saturating_duration_since(self.as_of).as_millis()).unwrap_or(u64::MAX);
        self.as_of += Duration::from_millis(elapsed);
        self.left = self.left.saturating_add(elapsed.saturating_mul(self.per_s)).min(self.burst * 1_000);
        let may = self.left >= 1_000;
        if may {
            self.left -= 1_000;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meters(per_stranger: u64, all_strangers: u64) -> Arc<Meters> {
        Arc::new(Meters::new(&Limits { stranger_bytes_per_s: per_stranger, strangers_bytes_per_s: all_strangers, ..Limits::default() }))
    }

    #[test]
    fn a_stranger_has_a_burst_and_then_his_rate_and_no_more_than_an_equal_share() {
        let meters = meters(1_000_000, 1_500_000);
        let start = Instant::now();
        let one = Meter::new(Arc::clone(&meters), start);
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(one.allowance(at(0)), Ok(STRANGER_BURST_BYTES));
        one.charge(STRANGER_BURST_BYTES);
        assert_eq!(one.allowance(at(0)), Err(PAUSE_SHORTEST));
        assert_eq!(one.allowance(at(10)), Ok(10_000), "alone he has a stranger's rate");
        one.charge(10_000);
        let other = Meter::new(Arc::clone(&meters), at(10));
        assert_eq!(one.allowance(at(20)), Ok(7_500), "two share what all have");
        other.trust();
        one.charge(7_500);
        assert_eq!(one.allowance(at(30)), Ok(10_000), "one of another standing takes nothing from strangers");
        drop(other);
        drop(one);
        assert_eq!(meters.strangers.load(Ordering::Relaxed), 0, "none is counted twice");
    }

    #[test]
    fn a_charge_slows_down_and_locks_nobody_out() {
        let meters = meters(1_000_000, 1_000_000);
        let start = Instant::now();
        let meter = Meter::new(meters, start);
        for _ in 0..1_000 {
            meter.charge(usize::MAX);
        }
        assert_eq!(meter.allowance(start), Err(PAUSE_LONGEST));
        let whole = Duration::from_micros(STRANGER_BURST_BYTES as u64 + 1_000);
        assert!(meter.allowance(start + whole).is_ok(), "a burst's time later he is read again");
    }

    #[test]
    fn so_many_come_at_once_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(2, 3, start);
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut count = |millis| (0..10).filter(|_| pace.take(at(millis))).count();
        assert_eq!([count(0), count(499), count(500), count(1_000), count(60_000)], [3, 0, 1, 1, 3]);
    }
}
