//! Order within a lane, and none between lanes.

use bytes::Bytes;

use super::support::{Node, meet, round_trip};
use crate::limits::{
    BULK_QUEUE_FRAMES_MAX, EVENT_QUEUE_LEN, PART_BYTES_MAX, READ_BUFFER_BYTES, WINDOW_GROWTH_BYTES_MAX, WRITE_BATCH_BYTES,
};
use crate::swarm::{YAMUX_STREAM_WINDOW, yamux_config};
use crate::{Event, Lane, SendError};

fn numbered(number: u32, size: usize) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(size.max(4), 0);
    bytes.into()
}

fn number_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().expect("four bytes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_lane_keeps_its_order_both_ways() {
    const COUNT: u32 = 5000;
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, to_a) = meet(&mut a, &mut b).await;
    let send_all = |network: crate::Network, peer| async move {
        for number in 0..COUNT {
            for lane in Lane::ALL {
                let size = usize::try_from(number % 97).expect("small") * if lane == Lane::Bulk { 300 } else { 3 };
                while network.send(peer, lane, numbered(number, size)) == Err(SendError::Full) {
                    tokio::task::yield_now().await;
                }
            }
        }
    };
    let receive_all = |mut node: Node| async move {
        let mut next = [0, 0];
        while next != [COUNT, COUNT] {
            let (_, lane, bytes) = node.frame().await;
            assert_eq!(number_of(&bytes), next[lane.index()], "in order on {lane:?}");
            next[lane.index()] += 1;
        }
        node
    };
    let senders = [tokio::spawn(send_all(a.network.clone(), to_b)), tokio::spawn(send_all(b.network.clone(), to_a))];
    let (mut a, mut b) = tokio::join!(receive_all(a), receive_all(b));
    for sender in senders {
        sender.await.expect("all was sent");
    }
    round_trip(&mut a, &mut b).await;
}

/// The receiver takes nothing until bulk is stuck everywhere: in its own queue, on the wire, in the sender's queue. Votes sent
/// after all of that are the first thing the receiver gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_pass_a_jam_of_bulk() {
    const VOTES: u32 = 10;
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, to_a) = meet(&mut a, &mut b).await;
    let mut sent: u32 = 0;
    // Full again and again until nothing moves any more: the sender's queue is full and the receiver has taken no more for a while.
    let mut stuck_at = None;
    loop {
        while a.network.send(to_b, Lane::Bulk, numbered(sent, PART_BYTES_MAX)) == Ok(()) {
            sent += 1;
        }
        let there = b.network.peers()[0].bulk.frames_in;
        let gone = a.network.peers()[0].bulk.frames_out;
        match stuck_at {
            Some((frames, gone_then, looks)) if frames == there && gone_then == gone => {
                if looks == 10_000 {
                    break;
                }
                stuck_at = Some((there, gone, looks + 1));
            }
            _ => stuck_at = Some((there, gone, 0)),
        }
        tokio::task::yield_now().await;
    }
    assert!(a.network.peers()[0].bulk.queued.bytes > 0, "bulk waits at the sender");
    // Between the two is no more than the window, a read buffer and a write: what a vote could ever be behind.
    let under_way = a.network.peers()[0].bulk.frames_out - b.network.peers()[0].bulk.frames_in;
    let window = (256 * 1024 + WINDOW_GROWTH_BYTES_MAX + READ_BUFFER_BYTES + WRITE_BATCH_BYTES) / PART_BYTES_MAX + 2;
    assert!(under_way <= window as u64, "{under_way} frames are under way, the window is {window}");
    for number in 0..VOTES {
        a.network.send(to_b, Lane::Votes, numbered(number, 200)).expect("the votes lane is empty");
    }
    while b.network.peers()[0].votes.frames_in < u64::from(VOTES) {
        tokio::task::yield_now().await;
    }
    for number in 0..VOTES {
        match b.next().await {
            Event::Received { peer, lane: Lane::Votes, bytes } => {
                assert_eq!((peer, number_of(&bytes)), (to_a, number));
            }
            other => panic!("vote {number} comes before all bulk, not {other:?}"),
        }
    }
    // And no bulk was lost for it.
    for number in 0..sent {
        let (_, lane, bytes) = b.frame().await;
        assert_eq!((lane, number_of(&bytes)), (Lane::Bulk, number));
    }
}

/// What the windows may grow by is what yamux has beyond the least it grants every stream. It shows both numbers to nobody but
/// the debugger, and a new version may choose others.
#[test]
fn yamux_may_widen_windows_by_what_we_allow() {
    let shown = format!("{:?}", yamux_config());
    let number = |name: &str| -> usize {
        let after = shown.split(name).nth(1).unwrap_or_else(|| panic!("{name} in {shown}"));
        let digits: String = after.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
        digits.parse().expect("digits")
    };
    let growth = number("max_connection_receive_window") - number("max_num_streams") * YAMUX_STREAM_WINDOW;
    assert_eq!(growth, WINDOW_GROWTH_BYTES_MAX);
}

/// The other way round, by the count of turns: a flood of votes leaves every sixteenth turn to the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_votes_does_not_silence_bulk() {
    const FLOOD: u32 = 1000;
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, _) = meet(&mut a, &mut b).await;
    a.network.send(to_b, Lane::Bulk, numbered(0, 100)).expect("room");
    for number in 0..FLOOD {
        a.network.send(to_b, Lane::Votes, numbered(number, 100)).expect("room");
    }
    let arrived = |node: &Node| {
        let status = &node.network.peers()[0];
        (status.votes.frames_in, status.bulk.frames_in)
    };
    while arrived(&b) != (u64::from(FLOOD), 1) {
        tokio::task::yield_now().await;
    }
    let mut votes_before = 0;
    while let (_, Lane::Votes, _) = b.frame().await {
        votes_before += 1;
    }
    assert!(votes_before < FLOOD / 4, "{votes_before} votes came before the only part");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_counts_and_stays_bounded() {
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, _) = meet(&mut a, &mut b).await;
    // Small frames: the bound is on their number. The receiver takes none, so in the end nothing moves.
    let mut sent: u32 = 0;
    let mut refused: u64 = 0;
    while refused < 1000 {
        match a.network.send(to_b, Lane::Bulk, numbered(sent, 1000)) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error, SendError::Full);
                refused += 1;
            }
        }
        assert!(a.network.peers()[0].bulk.queued.frames <= BULK_QUEUE_FRAMES_MAX);
    }
    assert_eq!(a.network.peers()[0].bulk.dropped, refused);
    assert!(b.network.peers()[0].bulk.frames_in <= u64::from(sent));
    assert!(b.network.peers()[0].bulk.frames_in <= EVENT_QUEUE_LEN as u64 + 1, "the receiver holds one queue and the frame in its hand");
    for number in 0..sent {
        assert_eq!(number_of(&b.frame().await.2), number, "what was accepted arrives");
    }
}
