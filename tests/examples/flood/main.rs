//! Peers with valid handshakes that send at line rate what a node should not suffer from: a program, so that it has its own
//! processor time.
//!
//! `cargo run --release -p lockstep-tests --example flood -- --genesis HOME/config/genesis.json --to 127.0.0.1:26656 --for 120`
//!
//! `--peers replay=15,forge=5,…` says how many of which kind; each begins anew, as another node, whenever it is thrown out.
//! At the end a line says what was sent.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod peer;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::Stream;
use libp2p::futures::{AsyncReadExt as _, AsyncWriteExt as _};
use lockstep_genesis::Genesis;
use lockstep_network::Handshake;
use lockstep_replica::wire::WIRE_VERSION;
use lockstep_types::block::BLOCK_PROTOCOL;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use peer::{EXCHANGE, GOSSIP, HandPeer, frame, read_frame, rpc};

/// Frames that a replayer remembers before it begins.
const REMEMBERED: usize = 200;
/// How long it listens for them at most.
const LISTENS: Duration = Duration::from_secs(3);
/// Bytes of one write.
const WRITE_BYTES: usize = 256 * 1024;
/// Questions that an asker has under way.
const QUESTIONS: usize = 64;
/// Sockets that a half-opener holds at a time.
const SOCKETS: usize = 50;
/// Before a peer that was thrown out comes again.
const PAUSE: Duration = Duration::from_millis(50);
/// Before one that was not let in does: those who are in are the flood.
const PAUSE_OUTSIDE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Says again, for ever, what it heard: valid messages that are over.
    Replay,
    /// Says what it hears with another signature.
    Forge,
    /// Says frames that are no messages.
    Garbage,
    /// Says every control message of gossipsub there is, and batches that are none.
    Gossip,
    /// Asks for all blocks.
    Ask,
    /// Opens streams that lead nowhere.
    Streams,
    /// Opens sockets and does not finish Noise.
    HalfOpen,
}

const KINDS: [(&str, Kind, usize); 7] = [
    ("replay", Kind::Replay, 15),
    ("forge", Kind::Forge, 5),
    ("garbage", Kind::Garbage, 5),
    ("gossip", Kind::Gossip, 12),
    ("ask", Kind::Ask, 6),
    ("streams", Kind::Streams, 3),
    ("half-open", Kind::HalfOpen, 4),
];

#[derive(Default)]
struct Sent {
    connections: AtomicU64,
    peers: AtomicU64,
    bytes: AtomicU64,
    /// Bytes that the node said by gossipsub: nobody is to make it say more than it was told.
    gossiped: AtomicU64,
    last: Mutex<String>,
}

/// What every flooder knows.
struct World {
    handshake: Handshake,
    topic: Vec<u8>,
    sent: BTreeMap<Kind, Sent>,
}

struct Flooder {
    world: Arc<World>,
    kind: Kind,
    to: SocketAddr,
    seeds: u64,
    /// How often it was let in.
    peers: u64,
}

impl Flooder {
    fn sent(&self) -> &Sent {
        &self.world.sent[&self.kind]
    }

    fn count(&self, bytes: usize) {
        self.sent().bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    async fn run(mut self) {
        loop {
            // How it ended is the node's business; of a kind, the last reason is told at the end.
            let peers = self.peers;
            if let Err(error) = self.live().await {
                *self.sent().last.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
            }
            sleep(if self.peers > peers || self.kind == Kind::HalfOpen { PAUSE } else { PAUSE_OUTSIDE }).await;
        }
    }

    async fn live(&mut self) -> io::Result<()> {
        self.sent().connections.fetch_add(1, Ordering::Relaxed);
        if self.kind == Kind::HalfOpen {
            return self.half_open().await;
        }
        self.seeds += 1;
        let mut seed = [u8::try_from(self.kind as usize).unwrap_or(0); 32];
        seed[..8].copy_from_slice(&self.seeds.to_le_bytes());
        seed[8..12].copy_from_slice(&std::process::id().to_le_bytes());
        let mut peer = HandPeer::dial(seed, self.to).await?;
        let ([mut votes, mut bulk], [mut heard, unread]) = peer.become_peer(&self.world.handshake).await?;
        self.peers += 1;
        self.sent().peers.fetch_add(1, Ordering::Relaxed);
        match self.kind {
            Kind::Replay => {
                let mut remembered = Vec::new();
                let _ = timeout(LISTENS, async {
                    while remembered.len() < REMEMBERED {
                        remembered.push(frame(&read_frame(&mut heard).await?));
                    }
                    Ok::<_, io::Error>(())
                })
                .await;
                drain(heard);
                drain(unread);
                let all: Vec<u8> = remembered.concat();
                let again = all.repeat(WRITE_BYTES / all.len().max(1) + 1);
                tokio::try_join!(self.pour(&mut votes, &again), self.pour(&mut bulk, &again)).map(|_| ())
            }
            Kind::Forge => {
                drain(unread);
                loop {
                    let mut payload = read_frame(&mut heard).await?;
                    if let Some(last) = payload.last_mut() {
                        *last ^= 1;
                    }
                    self.say(&mut votes, &frame(&payload).repeat(100)).await?;
                }
            }
            Kind::Garbage => {
                drain(heard);
                drain(unread);
                let garbage = frame(&[0xa5; 60_000]).repeat(4);
                tokio::try_join!(self.pour(&mut votes, &garbage), self.pour(&mut bulk, &garbage)).map(|_| ())
            }
            Kind::Gossip => {
                drain(heard);
                drain(unread);
                let mut gossip = peer.open(GOSSIP).await?;
                let ended = self.gossip(&mut gossip, &mut votes).await;
                self.sent().gossiped.fetch_add(peer.gossiped(), Ordering::Relaxed);
                ended
            }
            Kind::Ask => {
                drain(heard);
                drain(unread);
                let beat = async {
                    loop {
                        self.say(&mut votes, &[1, 0, 0, 0, 0]).await?;
                        sleep(Duration::from_secs(1)).await;
                    }
                };
                tokio::select! {
                    ended = beat => ended,
                    ended = self.ask(&mut peer) => ended,
                }
            }
            Kind::Streams => {
                drain(heard);
                drain(unread);
                let mut open = Vec::new();
                for number in 0_u64.. {
                    if number.is_multiple_of(100) {
                        self.say(&mut votes, &[1, 0, 0, 0, 0]).await?;
                    }
                    // Whether the node takes it is its business; those it took are left open.
                    match peer.open(EXCHANGE).await {
                        Ok(stream) => open.push(stream),
                        Err(_) => sleep(PAUSE).await,
                    }
                    if open.len() > 300 {
                        open.clear();
                    }
                    self.count(100);
                }
                Ok(())
            }
            Kind::HalfOpen => Ok(()),
        }
    }

    async fn say(&self, stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        self.count(bytes.len());
        Ok(())
    }

    async fn pour(&self, stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
        loop {
            self.say(stream, bytes).await?;
        }
    }

    async fn gossip(&self, stream: &mut Stream, votes: &mut Stream) -> io::Result<()> {
        let topic = &self.world.topic[..];
        self.say(stream, &rpc::rpc(&[rpc::subscription(topic, true)])).await?;
        for round in 0_u64.. {
            self.say(stream, &rpc::nuisance(topic, round).concat()).await?;
            if round.is_multiple_of(16) {
                self.say(votes, &[1, 0, 0, 0, 0]).await?;
            }
            if round.is_multiple_of(512) {
                self.say(stream, &rpc::rpc(&[rpc::publish(topic, &[&b"no batch "[..], &round.to_le_bytes()].concat(), &[])])).await?;
            }
        }
        Ok(())
    }

    async fn ask(&self, peer: &mut HandPeer) -> io::Result<()> {
        // Blocks from the first on, as many as there may be.
        let question = [&[1][..], &1_u64.to_le_bytes(), &128_u32.to_le_bytes()].concat();
        let mut under_way = tokio::task::JoinSet::new();
        loop {
            while under_way.len() >= QUESTIONS {
                under_way.join_next().await;
            }
            let mut stream = peer.open(EXCHANGE).await?;
            self.say(&mut stream, &question).await?;
            under_way.spawn(async move {
                let mut answer = Vec::new();
                // Refused or answered: the next one.
                let _ = stream.close().await;
                let _ = stream.read_to_end(&mut answer).await;
            });
        }
    }

    async fn half_open(&self) -> io::Result<()> {
        let mut sockets = Vec::new();
        for number in 0..SOCKETS {
            let mut socket = TcpStream::connect(self.to).await?;
            let opening: &[u8] = b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
            let part = &opening[..number % opening.len()];
            // The node may have closed it already.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, part).await;
            self.count(part.len());
            sockets.push(socket);
        }
        sleep(PAUSE * 4).await;
        Ok(())
    }
}

/// Takes what comes, so that nobody is a slow reader.
fn drain(mut stream: Stream) {
    tokio::spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    });
}

fn usage() -> ! {
    eprintln!("flood --genesis FILE --to IP:PORT[,IP:PORT…] [--for SECONDS] [--peers kind=COUNT,…]");
    eprintln!("kinds: {}", KINDS.map(|(name, _, count)| format!("{name}={count}")).join(","));
    std::process::exit(2)
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (mut genesis, mut to, mut seconds, mut peers) = (None, Vec::new(), 120, KINDS.map(|(_, kind, count)| (kind, count)).to_vec());
    while let (Some(name), value) = (arguments.next(), arguments.next()) {
        let value = value.unwrap_or_else(|| usage());
        match name.as_str() {
            "--genesis" => genesis = Some(PathBuf::from(value)),
            "--to" => to = value.split(',').map(|to| to.parse::<SocketAddr>().unwrap_or_else(|_| usage())).collect(),
            "--for" => seconds = value.parse().unwrap_or_else(|_| usage()),
            "--peers" => {
                let one = |text: &str| {
                    let (name, count) = text.split_once('=')?;
                    let (_, kind, _) = KINDS.into_iter().find(|(known, ..)| *known == name)?;
                    Some((kind, count.parse().ok()?))
                };
                peers = value.split(',').map(|text| one(text).unwrap_or_else(|| usage())).collect();
            }
            _ => usage(),
        }
    }
    let genesis = std::fs::read(genesis.unwrap_or_else(|| usage())).expect("the genesis is there");
    let genesis = Genesis::parse(&genesis).expect("a good genesis");
    let hash = genesis.hash().0;
    let chain_id = genesis.chain_id.as_str().to_owned();
    let short: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let world = Arc::new(World {
        topic: format!("/lockstep/{chain_id}/{short}/batches/1").into_bytes(),
        handshake: Handshake {
            wire_version: u32::from(WIRE_VERSION),
            chain_id,
            genesis_hash: hash,
            block_protocol: BLOCK_PROTOCOL,
            node_version: "flood".to_owned(),
            moniker: "flood".to_owned(),
            rpc_address: String::new(),
            listen_address: String::new(),
            validator: None,
        },
        sent: KINDS.into_iter().map(|(_, kind, _)| (kind, Sent::default())).collect(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut number = 0_u64;
        for to in to {
            for (kind, count) in &peers {
                for _ in 0..*count {
                    number += 1;
                    tokio::spawn(Flooder { world: Arc::clone(&world), kind: *kind, to, seeds: number << 32, peers: 0 }.run());
                }
            }
        }
        sleep(Duration::from_secs(seconds)).await;
    });
    for (name, kind, _) in KINDS {
        let sent = &world.sent[&kind];
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let last = sent.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (tries, peers, bytes, gossiped) = (read(&sent.connections), read(&sent.peers), read(&sent.bytes), read(&sent.gossiped));
        println!("{name}: {tries} tries, {peers} peers, {bytes} bytes, {gossiped} gossiped back; {last}");
    }
    runtime.shutdown_background();
}
