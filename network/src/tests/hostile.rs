//! A peer that breaks the rules, byte by byte. It is dropped; the others notice nothing.

use std::time::Duration;

use bytes::Bytes;

use super::support::{Node, RawPeer, config, framed, handshake, round_trip};
use crate::handshake::{Hello, Opening};
use crate::limits::{FRAME_LENGTH_MAX, OPENING_BYTES_MAX};
use crate::score::POINTS_BAD_FRAME;
use crate::{Event, FrameError, Lane, Reason, Refusal, SendError};

fn hello() -> Opening {
    Opening::Votes(Box::new(Hello { handshake: handshake(), instance: 1 }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_frame_end_the_connection_and_no_other() {
    let mut node = Node::seeded(1).await;
    let mut friend = Node::seeded(2).await;
    friend.dial(node.address());
    round_trip(&mut node, &mut friend).await;
    let too_long = u32::try_from(FRAME_LENGTH_MAX + 1).expect("fits");
    let cases: [(Vec<u8>, FrameError); 5] = [
        (0_u32.to_le_bytes().to_vec(), FrameError::Zero),
        (too_long.to_le_bytes().to_vec(), FrameError::TooLong(too_long)),
        (u32::MAX.to_le_bytes().to_vec(), FrameError::TooLong(u32::MAX)),
        (vec![2, 0, 0, 0, 9, 9], FrameError::Kind(9)),
        (vec![2, 0, 0, 0, 0, 9], FrameError::Body),
    ];
    let mut seed = 10;
    for (bytes, error) in cases {
        for lane in 0..2 {
            seed += 1;
            let mut raw = RawPeer::dial(seed, node.network.listening()).await;
            raw.become_peer().await;
            raw.say(lane, &bytes).await;
            assert_eq!(node.goodbye(raw.id).await, Reason::Frame(error));
            round_trip(&mut node, &mut friend).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_it_again_is_banned() {
    let mut node = Node::seeded(1).await;
    for _ in 0..2 {
        let mut raw = RawPeer::dial(9, node.network.listening()).await;
        raw.become_peer().await;
        raw.say(0, &[0; 4]).await;
        node.goodbye(raw.id).await;
    }
    assert_eq!(2 * POINTS_BAD_FRAME, crate::POINTS_MAX);
    let again = Node::seeded(9).await;
    again.dial(node.address());
    assert_eq!(node.refusal().await, Reason::Refused(Refusal::Banned));
    assert!(again.network.peers().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_opening_that_is_not_right_is_answered_with_the_reason() {
    let mut node = Node::seeded(1).await;
    let good = hello().encode();
    let mut other_layout = good.clone();
    other_layout[0] = 2;
    let mut longer = good.clone();
    longer.push(0);
    let cases: [(Vec<u8>, Refusal); 7] = [
        (framed(&[]), Refusal::Malformed),
        (framed(&other_layout), Refusal::WireVersion),
        (framed(&longer), Refusal::Malformed),
        (framed(&good[..good.len() - 1]), Refusal::Malformed),
        (framed(&[1, 2]), Refusal::Malformed),
        (u32::try_from(OPENING_BYTES_MAX + 1).expect("fits").to_le_bytes().to_vec(), Refusal::Malformed),
        (u32::MAX.to_le_bytes().to_vec(), Refusal::Malformed),
    ];
    for (at, (bytes, refusal)) in cases.into_iter().enumerate() {
        let mut raw = RawPeer::dial(u8::try_from(at).expect("few") + 10, node.network.listening()).await;
        raw.say(0, &bytes).await;
        assert_eq!(raw.verdict(0).await, Some(refusal.code()));
        assert_eq!(node.refusal().await, Reason::Refused(refusal));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_lane_twice_is_refused() {
    let mut node = Node::seeded(1).await;
    for (seed, opening) in [(10, hello()), (11, Opening::Bulk)] {
        let mut raw = RawPeer::dial(seed, node.network.listening()).await;
        for at in 0..2 {
            raw.say(at, &framed(&opening.encode())).await;
        }
        assert_eq!(node.refusal().await, Reason::Refused(Refusal::Malformed));
    }
}

/// Its own hello is good and it floods at once, but it never answers ours: nothing of it is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_delivered_before_all_lanes_are_confirmed() {
    let mut quick = config(1);
    quick.pace.handshake_within = Duration::from_millis(500);
    let mut node = Node::start(quick).await;
    let mut raw = RawPeer::dial(10, node.network.listening()).await;
    let mut votes = framed(&hello().encode());
    let mut bulk = framed(&Opening::Bulk.encode());
    for lane in [&mut votes, &mut bulk] {
        for _ in 0..100 {
            crate::wire::put_frame(b"too early", lane);
        }
    }
    raw.say(0, &votes).await;
    raw.say(1, &bulk).await;
    match node.next().await {
        Event::Refused { reason, node_id, .. } => {
            assert_eq!(reason, Reason::HandshakeTimeout);
            assert_eq!(node_id, Some(raw.id));
        }
        other => panic!("nothing may come before the refusal, not {other:?}"),
    }
}

/// Past TCP and Noise, and then not a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_opens_a_lane_frees_its_place() {
    let mut quick = config(1);
    quick.pace.handshake_within = Duration::from_millis(300);
    let mut node = Node::start(quick).await;
    let _raw = RawPeer::dial(10, node.network.listening()).await;
    assert_eq!(node.refusal().await, Reason::HandshakeTimeout);
}

/// Connected to the port, and not even Noise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_sockets_are_bounded_and_let_go() {
    let mut quick = config(1);
    quick.pace.dial_within = Duration::from_millis(300);
    quick.limits.pending_max = 8;
    let mut node = Node::start(quick).await;
    let mut sockets = Vec::new();
    for _ in 0..64 {
        sockets.push(tokio::net::TcpStream::connect(node.network.listening()).await.expect("the kernel accepts"));
    }
    // All 64 are refused: those beyond eight at once, the eight when their time is up.
    while node.network.totals().connections_refused < 64 {
        tokio::task::yield_now().await;
    }
    let mut friend = Node::seeded(2).await;
    friend.dial(node.address());
    round_trip(&mut node, &mut friend).await;
}

/// Nobody waits here for the time of a handshake to be up: who comes beyond the bound is refused while the others are still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_bound_half_open_sockets_are_refused_at_once() {
    const SOCKETS: u64 = 64;
    const PENDING: u64 = 8;
    let mut patient = config(1);
    patient.pace.dial_within = Duration::from_secs(3_600);
    patient.limits.pending_max = usize::try_from(PENDING).expect("few");
    let node = Node::start(patient).await;
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        sockets.push(tokio::net::TcpStream::connect(node.network.listening()).await.expect("the kernel accepts"));
    }
    let refused = async {
        while node.network.totals().connections_refused < SOCKETS - PENDING {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("they are refused at once");
    assert_eq!(node.network.totals().connections_refused, SOCKETS - PENDING, "those within the bound have their time");
    drop(sockets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_is_given_up() {
    let mut quick = config(1);
    quick.pace.heartbeat = Duration::from_millis(50);
    quick.pace.silent_after = Duration::from_millis(200);
    let mut node = Node::start(quick).await;
    // The socket stays open all the time, as behind a cut cable.
    let mut raw = RawPeer::dial(10, node.network.listening()).await;
    raw.become_peer().await;
    assert_eq!(node.goodbye(raw.id).await, Reason::Silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_keep_an_idle_link() {
    let quick = |seed| {
        let mut quick = config(seed);
        quick.pace.heartbeat = Duration::from_millis(20);
        quick.pace.silent_after = Duration::from_millis(2000);
        quick
    };
    let (mut a, mut b) = tokio::join!(Node::start(quick(1)), Node::start(quick(2)));
    a.dial(b.address());
    round_trip(&mut a, &mut b).await;
    // Heartbeats are counted as bytes written; enough of them to span the silence several times over.
    let before = a.network.peers()[0].votes.bytes_out;
    while a.network.peers()[0].votes.bytes_out < before + 300 * 5 {
        tokio::task::yield_now().await;
    }
    let (to_b, _) = super::support::meet(&mut a, &mut b).await;
    assert_eq!(a.network.peers()[0].peer, to_b, "still the first connection");
    round_trip(&mut a, &mut b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_reads_is_dropped_and_costs_a_bounded_queue() {
    let mut quick = config(1);
    quick.pace.stalled_after = Duration::from_millis(300);
    quick.pace.silent_after = Duration::from_secs(3600);
    let mut node = Node::start(quick).await;
    let mut raw = RawPeer::dial(10, node.network.listening()).await;
    raw.become_peer().await;
    let peer = node.peer(raw.id).await;
    let part = Bytes::from(vec![5; crate::limits::PART_BYTES_MAX]);
    let end = loop {
        match node.network.send(peer, Lane::Bulk, part.clone()) {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(end, SendError::Full);
    if let Some(status) = node.network.peers().first() {
        assert!(status.bulk.queued.bytes <= crate::limits::BULK_QUEUE_BYTES_MAX);
        assert!(status.bulk.dropped >= 1);
    }
    assert_eq!(node.goodbye(raw.id).await, Reason::SlowReader);
}

/// Bytes on the exchange protocol are bounded too: a request beyond its bound is never seen by the node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_refused_where_they_are_made() {
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, _) = super::support::meet(&mut a, &mut b).await;
    let bytes = |count: usize| Bytes::from(vec![1; count]);
    for lane in Lane::ALL {
        assert_eq!(a.network.send(to_b, lane, Bytes::new()), Err(SendError::Size(0)));
        let beyond = crate::FRAME_PAYLOAD_BYTES_MAX + 1;
        assert_eq!(a.network.send(to_b, lane, bytes(beyond)), Err(SendError::Size(beyond)));
        a.network.send(to_b, lane, bytes(beyond - 1)).expect("the largest frame");
        assert_eq!(b.frame().await.2.len(), beyond - 1);
    }
    let beyond = crate::REQUEST_BYTES_MAX + 1;
    assert_eq!(a.network.request(to_b, bytes(beyond)), Err(SendError::Size(beyond)));
    assert_eq!(a.network.publish(bytes(256 * 1024 + 1)), Err(SendError::Size(256 * 1024 + 1)));
}
