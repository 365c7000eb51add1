//! Batches to all, requests to one.

use std::collections::BTreeMap;

use bytes::Bytes;
use libp2p::futures::future::join_all;

use super::support::{Node, config, meet, round_trip};
use crate::gossip::content_id;
use crate::{Event, GossipId, PeerNo, ReplyTo, RequestError, SendError, Verdict};

async fn batch(node: &mut Node) -> (PeerNo, GossipId, Bytes) {
    node.wait("batch", |event| match event {
        Event::Gossip { peer, id, bytes } => Some((*peer, *id, bytes.clone())),
        _ => None,
    })
    .await
}

/// Publishes until `to` has it: gossipsub learns who listens a moment after the connection, and says nothing about it.
async fn publish_until_heard(from: &Node, to: &mut Node) -> (PeerNo, GossipId, Bytes) {
    for number in 0_u32.. {
        from.network.publish(Bytes::from(format!("try {number} of {}", from.id()))).expect("room");
        let heard = tokio::time::timeout(std::time::Duration::from_millis(50), batch(to)).await;
        if let Ok(heard) = heard {
            return heard;
        }
    }
    unreachable!("it tries for ever")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_reaches_all_who_are_connected() {
    let mut nodes = join_all((1..=4).map(Node::seeded)).await;
    for from in &nodes {
        nodes.iter().filter(|to| to.id() < from.id()).for_each(|to| from.dial(to.address()));
    }
    for a in 0..4 {
        for b in a + 1..4 {
            let (head, tail) = nodes.split_at_mut(b);
            round_trip(&mut head[a], &mut tail[0]).await;
            publish_until_heard(&head[a], &mut tail[0]).await;
            publish_until_heard(&tail[0], &mut head[a]).await;
        }
    }
    let all = Bytes::from(vec![42; 200 * 1024]);
    nodes[0].network.publish(all.clone()).expect("room");
    for node in &mut nodes[1..] {
        while batch(node).await.2 != all {}
    }
}

/// a - b - c: what b does not accept, c does not get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_accepted_goes_further() {
    let (mut a, mut b, mut c) = tokio::join!(Node::seeded(1), Node::seeded(2), Node::seeded(3));
    b.dial(a.address());
    b.dial(c.address());
    round_trip(&mut a, &mut b).await;
    round_trip(&mut c, &mut b).await;
    // Both hops carry, and the mesh of b with c stands: b accepts until something of a comes through.
    publish_until_heard(&b, &mut c).await;
    let mut number = 0_u32;
    loop {
        number += 1;
        a.network.publish(Bytes::from(format!("through {number}"))).expect("room");
        let Ok((_, id, _)) = tokio::time::timeout(std::time::Duration::from_millis(50), batch(&mut b)).await else { continue };
        b.network.report(id, Verdict::Accept).expect("room");
        let arrived =
            tokio::time::timeout(std::time::Duration::from_millis(50), async { while !batch(&mut c).await.2.starts_with(b"through") {} })
                .await;
        if arrived.is_ok() {
            break;
        }
    }
    let mut verdicts = BTreeMap::new();
    for (at, verdict) in [Verdict::Ignore, Verdict::Reject, Verdict::Accept].into_iter().enumerate() {
        let bytes = Bytes::from(format!("verdict {at}"));
        a.network.publish(bytes.clone()).expect("room");
        let id = loop {
            let (_, id, received) = batch(&mut b).await;
            if received == bytes {
                break id;
            }
        };
        let topic = crate::gossip::topic_of(&super::support::handshake());
        assert_eq!(id.content_hash(), content_id(&topic.hash().into_string(), &bytes));
        b.network.report(id, verdict).expect("room");
        verdicts.insert(bytes, verdict);
    }
    // The verdicts are in this order; when the accepted one is through, the others would have been.
    loop {
        let (from, _, bytes) = batch(&mut c).await;
        assert_eq!(Some(from), c.connected.get(&b.id()).copied());
        match verdicts.get(&bytes) {
            Some(Verdict::Accept) => break,
            Some(verdict) => panic!("{verdict:?} went through"),
            None => {}
        }
    }
    let points: Vec<_> = b.network.peers().iter().filter(|status| status.info.node_id == a.id()).map(|status| status.points).collect();
    assert!(points[0] > 0 && points[0] <= crate::POINTS_GOSSIP_REJECTED, "the rejected one was noted down");
}

#[test]
fn an_id_covers_the_whole_content_and_the_topic() {
    let id = content_id("topic", b"content");
    assert_eq!(id, content_id("topic", b"content"));
    assert_ne!(id, content_id("topic", b"contenT"));
    assert_ne!(id, content_id("topi", b"content"));
    assert_ne!(content_id("ab", b"c"), content_id("a", b"bc"));
}

async fn request(node: &mut Node) -> (PeerNo, ReplyTo, Bytes) {
    node.wait("request", |event| match event {
        // A `ReplyTo` is used once; the copy is the test's, the event is dropped.
        Event::Request { peer, reply_to, bytes } => Some((*peer, ReplyTo(reply_to.0), bytes.clone())),
        _ => None,
    })
    .await
}

async fn response(node: &mut Node, wanted: crate::RequestId) -> Result<Bytes, RequestError> {
    node.wait("response", |event| match event {
        Event::Response { id, result, .. } if *id == wanted => Some(result.clone()),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_out_of_order_and_up_to_their_bounds() {
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, to_a) = meet(&mut a, &mut b).await;
    let first = a.network.request(to_b, Bytes::from_static(b"first")).expect("room");
    let second = a.network.request(to_b, Bytes::from(vec![2; crate::REQUEST_BYTES_MAX])).expect("room");
    let mut asked = [request(&mut b).await, request(&mut b).await];
    asked.sort_by_key(|(_, _, bytes)| bytes.len());
    let [(from, reply_first, small), (_, reply_second, large)] = asked;
    assert_eq!((from, small.as_ref(), large.len()), (to_a, b"first".as_ref(), crate::REQUEST_BYTES_MAX));
    let huge = Bytes::from(vec![3; crate::RESPONSE_BYTES_MAX]);
    b.network.respond(reply_second, huge.clone()).expect("room");
    assert!(response(&mut a, second).await.expect("an answer") == huge, "eight MiB come back whole");
    assert_eq!(b.network.respond(ReplyTo(u64::MAX), Bytes::new()), Err(SendError::Size(0)));
    b.network.respond(reply_first, Bytes::from_static(b"done")).expect("room");
    assert_eq!(response(&mut a, first).await, Ok(Bytes::from_static(b"done")));
    assert_eq!(a.network.peers()[0].requests_in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_not_answered_fails_once() {
    let mut a = config(1);
    a.pace.request_within = std::time::Duration::from_millis(300);
    let mut a = Node::start(a).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, _) = meet(&mut a, &mut b).await;
    let unanswered = a.network.request(to_b, Bytes::from_static(b"hm?")).expect("room");
    assert_eq!(response(&mut a, unanswered).await, Err(RequestError::Timeout));
    // Too many at once are refused, and the places come back.
    let mut ids = Vec::new();
    let end = loop {
        match a.network.request(to_b, Bytes::from_static(b"more")) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert_eq!((end, ids.len()), (SendError::Full, crate::REQUESTS_PER_PEER_MAX));
    b.network.shutdown().await;
    for id in ids {
        response(&mut a, id).await.expect_err("nobody is there");
    }
    a.goodbye(b.id()).await;
    assert_eq!(a.network.request(to_b, Bytes::from_static(b"gone")), Err(SendError::NotConnected));
}
