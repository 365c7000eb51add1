//! A liar on the wire: a TCP proxy that delays, stalls, cuts, flips bits, closes halves and connects to the wrong node.
//!
//! A connection has one fault, and a life of three seconds under lies: at its half the fault comes at the latest, at its end the connection
//! does. So a network that dials again meets every fault in turn, however little it says on a connection.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the proxy does to a connection; the next one gets the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every piece comes up to 20 ms late.
    Delay,
    /// After some bytes nothing moves for a while, in both directions.
    Stall,
    /// After some bytes both ends are closed, in the middle of whatever is said.
    Cut,
    /// One bit is another, after some bytes.
    Flip,
    /// After some bytes one direction ends, and the other goes on.
    HalfClose,
    /// The connection leads to another node than the one that was dialled.
    Swap,
    /// The connection is made late, so that those dialled after it are there first.
    Late,
}

/// Every fault, in the order in which connections get them.
pub const FAULTS: [Fault; 7] = [Fault::Delay, Fault::Stall, Fault::Cut, Fault::Flip, Fault::HalfClose, Fault::Swap, Fault::Late];

/// Between two looks of a thread at whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// How long a stalled connection stands still: beyond what a node waits for a sign of life (`docs/format-network.md`).
const STALL: Duration = Duration::from_millis(4_500);

/// How long a connection lives while lies are told: longer than a handshake and some blocks, and beyond half of it a stall is borne.
const LIFE: Duration = Duration::from_secs(3);

/// What all proxies of a network share.
#[derive(Debug, Default)]
pub struct Liar {
    lies: AtomicBool,
    ended: AtomicBool,
    connections: AtomicU64,
    met: [AtomicU64; FAULTS.len()],
    random: AtomicU64,
}

impl Liar {
    /// Whether it lies from now on. Connections that exist are honest again when it does not.
    pub fn lie(&self, lies: bool) {
        self.lies.store(lies, Ordering::Relaxed);
    }

    /// How often each fault happened, in the order of [`FAULTS`].
    pub fn met(&self) -> [u64; FAULTS.len()] {
        std::array::from_fn(|at| self.met[at].load(Ordering::Relaxed))
    }

    fn meets(&self, fault: Fault) -> bool {
        let lies = self.lies.load(Ordering::Relaxed);
        if lies {
            self.met[fault as usize].fetch_add(1, Ordering::Relaxed);
        }
        lies
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// splitmix64 (Steele, Lea and Flood 2014), over all threads in whichever order they come.
    fn below(&self, bound: u64) -> u64 {
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Proxies, one in front of each node. Their threads end when this is dropped.
#[derive(Debug)]
pub struct Proxies(Arc<Liar>);

impl Drop for Proxies {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

impl Proxies {
    /// Listens on each of these ports for the node behind it. Nothing is a lie yet.
    ///
    /// # Panics
    /// When a port is taken.
    pub fn start(links: &[(u16, SocketAddr)]) -> Self {
        let liar = Arc::new(Liar::default());
        let nodes: Vec<SocketAddr> = links.iter().map(|(_, node)| *node).collect();
        for (index, (port, _)) in links.iter().enumerate() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).expect("a free port");
            listener.set_nonblocking(true).expect("a socket");
            let (liar, nodes) = (Arc::clone(&liar), nodes.clone());
            std::thread::spawn(move || listen(&listener, index, &nodes, &liar));
        }
        Self(liar)
    }

    /// The liar in all of them.
    pub fn liar(&self) -> &Liar {
        &self.0
    }
}

fn listen(listener: &TcpListener, index: usize, nodes: &[SocketAddr], liar: &Arc<Liar>) {
    while !liar.has_ended() {
        match listener.accept() {
            Ok((client, _)) => {
                let turn = usize::try_from(liar.connections.fetch_add(1, Ordering::Relaxed)).expect("few");
                let fault = FAULTS[turn % FAULTS.len()];
                let (liar, nodes) = (Arc::clone(liar), nodes.to_vec());
                std::thread::spawn(move || connect(client, index, &nodes, fault, &liar));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// One connection. That it fails is what this is for.
fn connect(client: TcpStream, index: usize, nodes: &[SocketAddr], fault: Fault, liar: &Arc<Liar>) {
    let mut to = index;
    if fault == Fault::Late && liar.meets(fault) {
        std::thread::sleep(Duration::from_millis(liar.below(400)));
    }
    if fault == Fault::Swap && liar.meets(fault) {
        to = (index + 1) % nodes.len();
    }
    let Ok(node) = TcpStream::connect(nodes[to]) else { return };
    for stream in [&client, &node] {
        let set = stream.set_nonblocking(false).and(stream.set_nodelay(true)).and(stream.set_read_timeout(Some(LOOK)));
        if set.is_err() {
            return;
        }
    }
    let (Ok(client_again), Ok(node_again)) = (client.try_clone(), node.try_clone()) else { return };
    let back = Arc::clone(liar);
    std::thread::spawn(move || carry(&node_again, &client_again, None, &back));
    carry(&client, &node, Some(fault), liar);
}

/// Carries one direction, with a fault or, for the way back, as it comes.
fn carry(mut from: &TcpStream, mut to: &TcpStream, fault: Option<Fault>, liar: &Liar) {
    // The handshake is a few hundred bytes, a second of consensus some ten thousand.
    let mut until = 100 + liar.below(40_000);
    let mut buffer = [0; 16 * 1024];
    let mut happened = false;
    let mut lied_since: Option<Instant> = None;
    let end = || {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    };
    while !liar.has_ended() {
        let lived = match liar.lies.load(Ordering::Relaxed) {
            true => lied_since.get_or_insert_with(Instant::now).elapsed(),
            false => Duration::ZERO,
        };
        // What was stalled goes on afterwards: then the nodes say whether they bear it.
        if lived >= LIFE && fault.is_some_and(|fault| fault != Fault::Stall || lived >= LIFE + STALL) {
            return end();
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(_) => return end(),
        };
        let piece = &mut buffer[..count];
        until = until.saturating_sub(count as u64);
        let due = (until == 0 || lived >= LIFE / 2) && !happened;
        match fault {
            Some(Fault::Delay) if liar.meets(Fault::Delay) => std::thread::sleep(Duration::from_millis(liar.below(20))),
            Some(Fault::Stall) if due && liar.meets(Fault::Stall) => {
                happened = true;
                let mut stood = Duration::ZERO;
                while stood < STALL && liar.lies.load(Ordering::Relaxed) && !liar.has_ended() {
                    std::thread::sleep(LOOK);
                    stood += LOOK;
                }
            }
            Some(Fault::Cut) if due && liar.meets(Fault::Cut) => {
                let _ = to.write_all(&piece[..count / 2]);
                return end();
            }
            Some(Fault::Flip) if due && liar.meets(Fault::Flip) => {
                happened = true;
                let at = usize::try_from(liar.below(count as u64)).expect("in the piece");
                piece[at] ^= 1 << liar.below(8);
            }
            Some(Fault::HalfClose) if due && liar.meets(Fault::HalfClose) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            _ => {}
        }
        if to.write_all(piece).is_err() {
            return end();
        }
    }
    end();
}
