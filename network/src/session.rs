//! The life of one connection: open the lanes, prove who we are, carry frames until something ends it.
//!
//! Each side opens two streams and sends an opening message on each; the other side answers every one with a byte. Only when
//! all four are confirmed is the peer connected. Whatever goes wrong ends the connection, and the dialler begins again: there
//! is no state between connected and gone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use libp2p::Stream;
use libp2p::futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::swarm::ConnectionId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::door::LaneStream;
use crate::events::{Direction, Inlets, Lane, PeerInfo, PeerNo, Reason};
use crate::handshake::{ACCEPTED, Hello, Opening, Refusal};
use crate::identity::NodeId;
use crate::limits::{FRAME_COST_BYTES, OPENING_BYTES_MAX, WRITE_BATCH_BYTES};
use crate::score::POINTS_BAD_FRAME;
use crate::shared::{Link, Shared, Standing, Stop, count};
use crate::wire::{Frame, FrameBuffer, HEARTBEAT};

/// How long a refusal may take to reach the peer before the connection closes.
const REFUSAL_LINGER: Duration = Duration::from_millis(500);

/// What a session tells the swarm.
pub(crate) enum Report {
    /// The peer's handshake is good: is there a place for it? Answered at once.
    Hello { connection: ConnectionId, hello: Box<Hello>, answer: oneshot::Sender<Result<Standing, Refusal>> },
    /// All lanes are confirmed. The answer is false if the connection must end after all.
    Ready { connection: ConnectionId, link: Arc<Link>, answer: oneshot::Sender<bool> },
    /// The node knows of the peer, so gossip and requests may follow.
    Announced { connection: ConnectionId },
}

/// What a session starts with.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inlets: Inlets,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) streams: mpsc::Receiver<LaneStream>,
    pub(crate) connection: ConnectionId,
    pub(crate) instance: u64,
    pub(crate) public_key: [u8; 32],
    pub(crate) direction: Direction,
    pub(crate) remote: SocketAddr,
}

/// The swarm is gone; whoever stopped it has given the reason already, or will.
fn swarm_gone() -> Reason {
    Reason::SwarmRestarted
}

fn broken(_: io::Error) -> Reason {
    Reason::Closed
}

struct Lanes {
    /// By lane.
    inbound: [Stream; 2],
    /// By lane.
    outbound: [Stream; 2],
    hello: Box<Hello>,
    standing: Standing,
}

impl Session {
    /// Runs until the connection is of no more use, and says why. The swarm closes it then.
    pub(crate) async fn run(mut self) -> Reason {
        let stop = Arc::clone(&self.stop);
        let within = self.shared.pace.handshake_within;
        let opened = tokio::select! {
            // What the peer said last counts more than that it hung up then.
            biased;
            opened = timeout(within, self.open()) => opened.unwrap_or(Err(Reason::HandshakeTimeout)),
            reason = stop.stopped() => Err(reason),
        };
        match opened {
            Ok(lanes) => self.carry(lanes).await,
            Err(reason) => {
                self.note(&reason);
                if matches!(reason, Reason::Refused(_)) {
                    // The peer hangs up when it has read why.
                    let _ = timeout(REFUSAL_LINGER, stop.stopped()).await;
                }
                reason
            }
        }
    }

    fn note(&self, reason: &Reason) {
        count(&self.shared.counters.connections_refused);
        let node_id = NodeId::of_public_key(&self.public_key);
        match reason {
            // Of two connections to one node one always ends, and the other node may be the first to see it.
            Reason::Duplicate | Reason::Refused(Refusal::Duplicate) | Reason::RefusedByPeer(Refusal::Duplicate) | Reason::Closed => {
                tracing::debug!(%node_id, remote = %self.remote, %reason, "a connection ended before it began")
            }
            _ => {
                if !self.inlets.try_refused(Some(node_id), Some(self.remote), self.direction, reason.clone()) {
                    count(&self.shared.counters.notes_dropped);
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Lanes, Reason> {
        let (to_inbound, inbound) = mpsc::channel(2);
        let (to_outbound, outbound) = mpsc::channel(2);
        let distribute = async {
            for _ in 0..4 {
                // Whoever has refused already takes no further stream.
                match self.streams.recv().await {
                    Some(LaneStream::Inbound(stream)) => drop(to_inbound.try_send(stream)),
                    Some(LaneStream::Outbound(stream)) => drop(to_outbound.try_send(stream)),
                    Some(LaneStream::Failed) | None => return Err(Reason::Closed),
                }
            }
            Ok(())
        };
        let hello = Hello { handshake: self.shared.own_handshake(), instance: self.instance };
        let accept = accept_lanes(inbound, &self.shared, &self.public_key, self.connection, &self.reports);
        let both = async {
            tokio::pin!(accept);
            let request = request_lanes(outbound, hello);
            tokio::pin!(request);
            // A refusal of ours still has to reach the peer, and one of its own us: both logs should know.
            tokio::select! {
                accepted = &mut accept => match accepted {
                    Ok((inbound, hello, standing)) => Ok(Lanes { inbound, outbound: request.await?, hello, standing }),
                    Err(reason) => {
                        let _ = timeout(REFUSAL_LINGER, request).await;
                        Err(reason)
                    }
                },
                requested = &mut request => match requested {
                    Ok(outbound) => accept.await.map(|(inbound, hello, standing)| Lanes { inbound, outbound, hello, standing }),
                    Err(reason) => match timeout(REFUSAL_LINGER, accept).await {
                        Ok(Err(ours)) => Err(if matches!(ours, Reason::Refused(_)) { ours } else { reason }),
                        _ => Err(reason),
                    },
                },
            }
        };
        tokio::pin!(distribute);
        tokio::pin!(both);
        tokio::select! {
            done = &mut both => done,
            distributed = &mut distribute => {
                distributed?;
                both.await
            }
        }
    }

    async fn carry(&mut self, lanes: Lanes) -> Reason {
        let info = PeerInfo {
            node_id: NodeId::of_public_key(&self.public_key),
            public_key: self.public_key,
            direction: self.direction,
            remote: self.remote,
            handshake: lanes.hello.handshake,
            connected_at: SystemTime::now(),
        };
        let peer = PeerNo(self.shared.next_peer.fetch_add(1, Ordering::Relaxed));
        let meter = Some(self.remote).filter(|_| self.direction == Direction::Inbound).and_then(|remote| self.shared.meters.of(remote));
        let link = Arc::new(Link::new(peer, lanes.standing, meter, Arc::new(info), Arc::clone(&self.stop)));
        let (answer, stays) = oneshot::channel();
        let ready = Report::Ready { connection: self.connection, link: Arc::clone(&link), answer };
        if self.reports.send(ready).await.is_err() {
            return swarm_gone();
        }
        match stays.await {
            Ok(true) => {}
            Ok(false) => return Reason::Duplicate,
            Err(_) => return swarm_gone(),
        }

        let mut tasks = JoinSet::new();
        for (lane, outbound) in Lane::ALL.into_iter().zip(lanes.outbound) {
            tasks.spawn(write_lane(outbound, lane, Arc::clone(&self.shared), Arc::clone(&link)));
        }
        let (announced, wait) = oneshot::channel();
        tasks.spawn(announce(self.inlets.clone(), self.reports.clone(), self.connection, Arc::clone(&link), announced));
        // Nothing is read before the node knows who speaks.
        let [votes, bulk] = lanes.inbound;
        let mut inbound = Some((votes, bulk));
        let mut wait = Some(wait);
        let reason = loop {
            tokio::select! {
                // Why it was stopped says more than what followed from it.
                biased;
                reason = self.stop.stopped() => break reason,
                known = async { wait.as_mut().expect("guarded").await }, if wait.is_some() => {
                    wait = None;
                    if let (Ok(()), Some((votes, bulk))) = (known, inbound.take()) {
                        tasks.spawn(read_lane(votes, Lane::Votes, Arc::clone(&self.shared), Arc::clone(&link), self.inlets.clone()));
                        tasks.spawn(read_lane(bulk, Lane::Bulk, Arc::clone(&self.shared), Arc::clone(&link), self.inlets.clone()));
                    }
                }
                ended = tasks.join_next() => match ended {
                    Some(Ok(None)) => {}
                    Some(Ok(Some(reason))) => break reason,
                    Some(Err(error)) => break Reason::Transport(format!("a lane failed: {error}")),
                    None => break Reason::Closed,
                },
            }
        };
        self.shared.remove_link(&link);
        tasks.shutdown().await;
        self.inlets.disconnected(&link, reason.clone()).await;
        reason
    }
}

/// Tells the node of the peer, then the session and the swarm that the node knows.
async fn announce(
    inlets: Inlets,
    reports: mpsc::Sender<Report>,
    connection: ConnectionId,
    link: Arc<Link>,
    announced: oneshot::Sender<()>,
) -> Option<Reason> {
    if inlets.connected(&link).await.is_err() {
        return Some(Reason::Shutdown);
    }
    if reports.send(Report::Announced { connection }).await.is_err() {
        return Some(swarm_gone());
    }
    // If the session ended meanwhile, so does this.
    let _ = announced.send(());
    None
}

/// Writes an opening message as it goes on the wire.
pub(crate) async fn write_opening<T: AsyncWrite + Unpin>(stream: &mut T, opening: &Opening) -> io::Result<()> {
    let body = opening.encode();
    let length = u32::try_from(body.len()).expect("an opening is short");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads an opening message. The outer error is the stream's, the inner one the message's.
async fn read_opening<T: AsyncRead + Unpin>(stream: &mut T) -> io::Result<Result<Opening, Refusal>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > OPENING_BYTES_MAX {
        return Ok(Err(Refusal::Malformed));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Opening::decode(&body))
}

/// Opens our two lanes: both messages at once, then both answers.
async fn request_lanes(mut streams: mpsc::Receiver<Stream>, hello: Hello) -> Result<[Stream; 2], Reason> {
    let mut votes = streams.recv().await.ok_or(Reason::Closed)?;
    write_opening(&mut votes, &Opening::Votes(Box::new(hello))).await.map_err(broken)?;
    let mut bulk = streams.recv().await.ok_or(Reason::Closed)?;
    write_opening(&mut bulk, &Opening::Bulk).await.map_err(broken)?;
    for stream in [&mut votes, &mut bulk] {
        let mut verdict = [0];
        stream.read_exact(&mut verdict).await.map_err(broken)?;
        if verdict[0] != ACCEPTED {
            return Err(Reason::RefusedByPeer(Refusal::from_code(verdict[0]).unwrap_or(Refusal::Malformed)));
        }
    }
    Ok([votes, bulk])
}

/// Takes the peer's two lanes, in whichever order they come, and answers both when the handshake is good and there is a place.
async fn accept_lanes(
    mut streams: mpsc::Receiver<Stream>,
    shared: &Shared,
    public_key: &[u8; 32],
    connection: ConnectionId,
    reports: &mpsc::Sender<Report>,
) -> Result<([Stream; 2], Box<Hello>, Standing), Reason> {
    let mut votes = None;
    let mut bulk = None;
    while votes.is_none() || bulk.is_none() {
        let mut stream = streams.recv().await.ok_or(Reason::Closed)?;
        match read_opening(&mut stream).await.map_err(broken)? {
            Ok(Opening::Votes(hello)) if votes.is_none() => {
                if let Err(refusal) = shared.handshake.check(&hello.handshake, public_key, shared.verify) {
                    return Err(refuse([Some(stream), bulk], refusal).await);
                }
                votes = Some((stream, hello));
            }
            Ok(Opening::Bulk) if bulk.is_none() => bulk = Some(stream),
            Ok(_) => return Err(refuse([Some(stream), votes.map(|(stream, _)| stream)], Refusal::Malformed).await),
            Err(refusal) => return Err(refuse([Some(stream), votes.map(|(stream, _)| stream)], refusal).await),
        }
    }
    let (mut votes, hello) = votes.expect("the loop ends with both");
    let mut bulk = bulk.expect("the loop ends with both");
    let (answer, place) = oneshot::channel();
    let report = Report::Hello { connection, hello: hello.clone(), answer };
    reports.send(report).await.map_err(|_| swarm_gone())?;
    let standing = match place.await.map_err(|_| swarm_gone())? {
        Ok(standing) => standing,
        Err(refusal) => return Err(refuse([Some(votes), Some(bulk)], refusal).await),
    };
    for stream in [&mut votes, &mut bulk] {
        stream.write_all(&[ACCEPTED]).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
    }
    Ok(([votes, bulk], hello, standing))
}

/// Says why on every stream there is. That the peer does not listen changes nothing.
async fn refuse(streams: [Option<Stream>; 2], refusal: Refusal) -> Reason {
    for mut stream in streams.into_iter().flatten() {
        if stream.write_all(&[refusal.code()]).await.is_ok() {
            let _ = stream.close().await;
        }
    }
    Reason::Refused(refusal)
}

/// Writes what the queue holds, as much as fits one write, for as long as the peer takes it.
async fn write_lane(mut stream: Stream, lane: Lane, shared: Arc<Shared>, link: Arc<Link>) -> Option<Reason> {
    let pace = &shared.pace;
    let queue = link.queue(lane);
    let counters = link.lane_counters(lane);
    let mut batch = Vec::new();
    loop {
        let frames = queue.take_frames(&mut batch, WRITE_BATCH_BYTES);
        if frames == 0 {
            match lane {
                Lane::Bulk => {
                    queue.pushed().await;
                    continue;
                }
                Lane::Votes if timeout(pace.heartbeat, queue.pushed()).await.is_ok() => continue,
                Lane::Votes => batch.extend_from_slice(&HEARTBEAT),
            }
        }
        if let Err(reason) = write_batch(&mut stream, &batch, pace.stalled_after).await {
            return Some(reason);
        }
        counters.frames_out.fetch_add(frames, Ordering::Relaxed);
        counters.bytes_out.fetch_add(u64::try_from(batch.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        batch.clear();
    }
}

/// Every byte the peer takes buys it new time; a peer that takes none is dropped.
async fn write_batch<T: AsyncWrite + Unpin>(stream: &mut T, batch: &[u8], stalled_after: Duration) -> Result<(), Reason> {
    let mut rest = batch;
    while !rest.is_empty() {
        match timeout(stalled_after, stream.write(rest)).await {
            Err(_) => return Err(Reason::SlowReader),
            Ok(Err(_) | Ok(0)) => return Err(Reason::Closed),
            Ok(Ok(count)) => rest = &rest[count..],
        }
    }
    match timeout(stalled_after, stream.flush()).await {
        Err(_) => Err(Reason::SlowReader),
        Ok(flushed) => flushed.map_err(broken),
    }
}

/// Reads frames and hands them to the node, which may make the peer wait.
async fn read_lane(mut stream: Stream, lane: Lane, shared: Arc<Shared>, link: Arc<Link>, inlets: Inlets) -> Option<Reason> {
    let counters = link.lane_counters(lane);
    let silent_after = shared.pace.silent_after;
    let mut buffer = FrameBuffer::new();
    loop {
        let read = match lane {
            Lane::Bulk => stream.read(buffer.space()).await,
            // Heartbeats come on this lane; frames on the other one are as good a sign of life.
            Lane::Votes => loop {
                if let Ok(read) = timeout(shared.pace.heartbeat, stream.read(buffer.space())).await {
                    break read;
                }
                if link.silence() >= silent_after {
                    return Some(Reason::Silent);
                }
            },
        };
        match read {
            Ok(0) | Err(_) => return Some(Reason::Closed),
            Ok(count) => buffer.filled(count),
        }
        link.heard();
        loop {
            match buffer.next_frame() {
                Ok(None) => break,
                Ok(Some(Frame::Heartbeat)) => {}
                Ok(Some(Frame::Payload(bytes))) => {
                    count(&counters.frames_in);
                    counters.bytes_in.fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
                    link.charge(FRAME_COST_BYTES.saturating_sub(bytes.len()));
                    if inlets.received(&link, lane, bytes).await.is_err() {
                        return Some(Reason::Shutdown);
                    }
                }
                Err(error) => {
                    shared.penalise(link.info.node_id, POINTS_BAD_FRAME, "bytes that are no frame");
                    return Some(Reason::Frame(error));
                }
            }
        }
    }
}
