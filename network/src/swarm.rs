//! The libp2p swarm as this network uses it: TCP, Noise, yamux; the door, gossip, the exchange. Built again after a failure.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, upgrade::Version};
use libp2p::futures::StreamExt as _;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{PeerId, noise, request_response, tcp, yamux};
use tokio::task::JoinSet;

use crate::door::{Door, multiaddr_of, socket_of};
use crate::exchange::{self, ExchangeCodec};
use crate::gossip::{self, Gossip};
use crate::limits::WINDOW_GROWTH_BYTES_MAX;
use crate::meter::{MeteredMuxer, MeteredStream, Meters};
use crate::shared::Shared;

/// Gossip and requests hold no connection open; the door does. So this is only a second line.
const IDLE: Duration = Duration::from_secs(3600);

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviours {
    pub(crate) door: Door,
    pub(crate) gossip: Gossip,
    pub(crate) exchange: request_response::Behaviour<ExchangeCodec>,
}

/// The tasks libp2p starts, one per connection, so that they can be joined and their panics counted.
#[derive(Clone, Default)]
pub(crate) struct ConnectionTasks {
    running: Arc<Mutex<JoinSet<()>>>,
    panics: Arc<AtomicU32>,
}

impl ConnectionTasks {
    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins what has ended; says how many have panicked so far.
    pub(crate) fn reap(&self) -> u32 {
        let mut running = self.lock();
        while let Some(ended) = running.try_join_next() {
            if ended.is_err_and(|error| error.is_panic()) {
                self.panics.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.panics.load(Ordering::Relaxed)
    }

    /// Ends and joins all.
    pub(crate) async fn end(&self) {
        let mut running = std::mem::take(&mut *self.lock());
        running.shutdown().await;
        self.panics.store(0, Ordering::Relaxed);
    }
}

/// What yamux 0.14 grants every stream, and what it grants all streams of a connection together.
pub(crate) const YAMUX_STREAM_WINDOW: usize = 256 * 1024;
const YAMUX_CONNECTION_WINDOW: usize = 1024 * 1024 * 1024;

/// libp2p offers no other way to bound how far yamux widens the window of a busy stream: all but this much of the connection's
/// window is set aside for streams that never come (the handlers take a few hundred at most).
pub(crate) fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams((YAMUX_CONNECTION_WINDOW - WINDOW_GROWTH_BYTES_MAX) / YAMUX_STREAM_WINDOW);
    config
}

fn transport(keys: &Keypair, meters: &Arc<Meters>, dial_within: Duration) -> io::Result<Boxed<(PeerId, StreamMuxerBox)>> {
    let noise = noise::Config::new(keys).map_err(io::Error::other)?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let of_sockets = Arc::clone(meters);
    let tcp = tcp.map(move |socket, point| MeteredStream::new(socket, of_sockets.begin(&point)));
    let upgraded = tcp.upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux_config()).timeout(dial_within);
    let of_streams = Arc::clone(meters);
    let metered = upgraded.map(move |(peer, muxer), point| {
        let meter = socket_of(point.get_remote_address()).filter(|_| !point.is_dialer()).and_then(|remote| of_streams.of(remote));
        (peer, StreamMuxerBox::new(MeteredMuxer::new(muxer, meter)))
    });
    Ok(metered.boxed())
}

/// A swarm without a listener.
pub(crate) fn build(shared: &Arc<Shared>, keys: &Keypair, tasks: &ConnectionTasks) -> io::Result<Swarm<Behaviours>> {
    let transport = transport(keys, &shared.meters, shared.pace.dial_within)?;
    let local = keys.public().to_peer_id();
    let behaviours = Behaviours {
        door: Door::new(Arc::clone(shared), local),
        gossip: gossip::behaviour(&shared.handshake, &shared.limits),
        exchange: exchange::behaviour(&shared.pace),
    };
    let executor = tasks.clone();
    let config = libp2p::swarm::Config::with_executor(move |task| {
        executor.reap();
        executor.lock().spawn(task);
    });
    Ok(Swarm::new(transport, behaviours, local, config.with_idle_connection_timeout(IDLE)))
}

/// Begins to listen and says on which socket: port 0 has become a real one.
pub(crate) async fn listen(swarm: &mut Swarm<Behaviours>, socket: SocketAddr) -> io::Result<SocketAddr> {
    swarm.listen_on(multiaddr_of(socket)).map_err(io::Error::other)?;
    loop {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let bound = socket_of(&address).ok_or_else(|| io::Error::other("a listener without a socket"))?;
                return Ok(SocketAddr::new(socket.ip(), bound.port()));
            }
            SwarmEvent::ListenerError { error, .. } => return Err(error),
            SwarmEvent::ListenerClosed { reason, .. } => {
                return Err(reason.err().unwrap_or_else(|| io::Error::other("the listener closed")));
            }
            _ => {}
        }
    }
}
