//! What belongs to a connection, however its protocol changes: its place, and what its unfinished message occupies.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::frames::{Fault, Frames};
use super::room::Room;

/// The places for connections: so many in all, and so many for one address.
#[derive(Debug)]
pub(super) struct Places {
    all: Arc<Semaphore>,
    per_ip: usize,
    taken: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

impl Places {
    pub(super) fn new(all: usize, per_ip: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), per_ip, taken: Arc::default() }
    }

    /// A place for a client at this address; none when all are taken, or all that one address may have.
    pub(super) fn take(&self, ip: IpAddr) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        // Proxies and the machine's own tools come from loopback, and stand for many.
        let counted = Some(neighbourhood(ip)).filter(|ip| !ip.is_loopback());
        if let Some(ip) = counted {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            let here = taken.entry(ip).or_default();
            if *here >= self.per_ip {
                return None;
            }
            *here += 1;
        }
        Some(Place { counted, taken: Arc::clone(&self.taken), _permit: permit })
    }

    /// Waits until all places are free.
    pub(super) async fn empty(&self, all: usize) {
        let _ = self.all.acquire_many(u32::try_from(all).unwrap_or(u32::MAX)).await;
    }
}

/// Whose address it is: of IPv6, the network that one subscriber gets.
fn neighbourhood(ip: IpAddr) -> IpAddr {
    const NETWORK: u128 = u128::MAX << 64;
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & NETWORK)),
        ip => ip,
    }
}

/// A place that is taken. It is given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    counted: Option<IpAddr>,
    taken: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(ip) = self.counted else { return };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = taken.get_mut(&ip) {
            *here -= 1;
            if *here == 0 {
                taken.remove(&ip);
            }
        }
    }
}

/// A client while its connection lives; shared by the socket, the protocol and the handlers.
#[derive(Debug)]
pub(super) struct Guest {
    _place: Place,
    frames: Mutex<Frames>,
    is_dismissed: AtomicBool,
}

impl Guest {
    pub(super) fn new(place: Place, requests: Room, message_bytes: usize) -> Self {
        let frames = Mutex::new(Frames::new(requests, message_bytes));
        Self { _place: place, frames, is_dismissed: AtomicBool::new(false) }
    }

    /// These bytes of its WebSocket came.
    pub(super) fn came(&self, bytes: &[u8]) {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
    }

    /// Why its WebSocket is not read any further.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).fault()
    }

    /// It is sent away while it speaks: the socket hears it out for a moment, since closing with unread bytes would reset the
    /// connection and take our last words with it.
    pub(super) fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.is_dismissed.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn no_address_takes_all_places_and_each_is_given_back() {
        let places = Places::new(5, 2);
        let first = places.take(ip("10.0.0.1")).expect("free");
        let _second = places.take(ip("::ffff:10.0.0.1")).expect("free");
        assert!(places.take(ip("10.0.0.1")).is_none(), "the same address, however it is written");
        let _other = places.take(ip("2001:db8::1")).expect("free");
        let _neighbour = places.take(ip("2001:db8::2")).expect("free");
        assert!(places.take(ip("2001:db8::3")).is_none(), "one subscriber has as many IPv6 addresses as it likes");
        let last = places.take(ip("127.0.0.1")).expect("free");
        assert!(places.take(ip("10.0.0.2")).is_none(), "all are taken");
        drop(last);
        drop(first);
        assert!(places.take(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn loopback_is_not_counted() {
        let places = Places::new(4, 1);
        let all: Vec<Place> = ["127.0.0.1", "127.0.0.1", "::1", "::1"].iter().map(|text| places.take(ip(text)).expect("free")).collect();
        assert_eq!(all.len(), 4);
        assert!(places.taken.lock().expect("no panic").is_empty());
    }
}
