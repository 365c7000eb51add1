//! Everybody dials everybody, leaves, comes back.

use bytes::Bytes;
use libp2p::futures::future::join_all;

use super::support::{Node, bind, config, handshake, meet, node_key, round_trip};
use crate::{Direction, Event, Lane, Reason, Refusal};

/// Speaks on both lanes to every other node as it comes, until all have been heard on both. Nobody leaves meanwhile.
async fn hear_from_all(node: &mut Node, others: usize) {
    let mut heard = std::collections::BTreeSet::new();
    let me = Bytes::from(node.id().0.to_vec());
    while heard.len() < 2 * others {
        match node.next().await {
            Event::Connected { peer, .. } => {
                for lane in Lane::ALL {
                    node.network.send(peer, lane, me.clone()).expect("just connected");
                }
            }
            Event::Received { peer, lane, bytes } => {
                let speaker = node.connected.iter().find(|(_, connected)| **connected == peer).map(|(id, _)| *id);
                assert_eq!(speaker.map(|id| id.0.to_vec()), Some(bytes.to_vec()), "it is who it says");
                heard.insert((speaker, lane));
            }
            Event::Disconnected { reason, .. } => panic!("crossed dials are settled before anybody is told: {reason}"),
            Event::Refused { reason, .. } => panic!("nobody is refused here: {reason}"),
            other => panic!("nobody sends {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_that_dial_each_other_at_once_all_hear_each_other() {
    for round in 0..20_u8 {
        let mut nodes = join_all((0..4).map(|at| Node::seeded(round * 4 + at + 1))).await;
        for from in &nodes {
            nodes.iter().filter(|to| to.id() != from.id()).for_each(|to| from.dial(to.address()));
        }
        join_all(nodes.iter_mut().map(|node| hear_from_all(node, 3))).await;
        // Once all have heard from all, each pair keeps one connection: it carries a round trip on both lanes.
        for a in 0..4 {
            for b in a + 1..4 {
                let (head, tail) = nodes.split_at_mut(b);
                let (a, b) = (&mut head[a], &mut tail[0]);
                keep_the_same(a, b).await;
            }
        }
        join_all(nodes.iter().map(|node| node.network.shutdown())).await;
    }
}

/// Waits until both have the same single connection: one end of it dialled, the other did not.
async fn keep_the_same(a: &mut Node, b: &mut Node) {
    let direction =
        |node: &Node, peer| node.network.peers().into_iter().find(|status| status.peer == peer).map(|status| status.info.direction);
    loop {
        let (to_b, to_a) = meet(a, b).await;
        match (direction(a, to_b), direction(b, to_a)) {
            (Some(Direction::Inbound), Some(Direction::Outbound)) | (Some(Direction::Outbound), Some(Direction::Inbound)) => return,
            // A crossed dial is being sorted out, and somebody is about to hear of it.
            _ => tokio::select! {
                event = a.next() => a.set_aside(event),
                event = b.next() => b.set_aside(event),
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_dial_each_other_again_and_again_keep_one_connection() {
    let impatient = |seed| {
        let mut impatient = config(seed);
        impatient.pace.redial_max = std::time::Duration::from_millis(50);
        impatient
    };
    let (mut a, mut b) = tokio::join!(Node::start(impatient(1)), Node::start(impatient(2)));
    a.dial(b.address());
    b.dial(a.address());
    for _ in 0..30 {
        round_trip(&mut a, &mut b).await;
        keep_the_same(&mut a, &mut b).await;
        assert_eq!((a.network.peers().len(), b.network.peers().len()), (1, 1));
        // Both lose it at once, and both dial again.
        let (to_b, to_a) = meet(&mut a, &mut b).await;
        a.network.disconnect(to_b, "once more");
        b.network.disconnect(to_a, "once more");
        let (a_id, b_id) = (a.id(), b.id());
        tokio::join!(a.goodbye(b_id), b.goodbye(a_id));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_is_met_again_by_those_who_dial_it() {
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    round_trip(&mut a, &mut b).await;
    for _ in 0..3 {
        let socket = b.network.listening();
        b.network.shutdown().await;
        assert_eq!(a.goodbye(b.id()).await, Reason::Closed);
        let mut again = config(2);
        again.listen = socket;
        b = Node::start(again).await;
        round_trip(&mut a, &mut b).await;
    }
}

/// A home that was copied with its node key: both would displace each other for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_node_key_the_first_stays_and_the_second_hears_why() {
    let mut server = Node::seeded(1).await;
    let mut first = Node::seeded(2).await;
    first.dial(server.address());
    round_trip(&mut first, &mut server).await;
    let mut copy = Node::seeded(2).await;
    copy.dial(server.address());
    // It takes the place as a restarted node would, and the first comes back.
    let key_in_use = Reason::RefusedByPeer(Refusal::KeyInUse);
    while copy.refusal().await != key_in_use {}
    while server.refusal().await != Reason::Refused(Refusal::KeyInUse) {}
    // Each was displaced once.
    first.goodbye(server.id()).await;
    server.goodbye(first.id()).await;
    server.goodbye(first.id()).await;
    round_trip(&mut first, &mut server).await;
    // Its place is free once it has left.
    first.network.shutdown().await;
    server.goodbye(first.id()).await;
    copy.goodbye(server.id()).await;
    round_trip(&mut copy, &mut server).await;
}

/// A copy that has stopped signing, and the validator that is started beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_withdraws_gives_its_place_to_the_validator() {
    let mut server = Node::seeded(1).await;
    let binding = bind(&handshake(), 100, &node_key([2; 32]));
    server.network.set_validators([binding.public_key].into());
    let validator = || {
        let mut validator = config(2);
        validator.handshake.validator = Some(binding);
        validator
    };
    let mut copy = Node::start(validator()).await;
    copy.dial(server.address());
    round_trip(&mut copy, &mut server).await;
    // Alone it stays a peer, and no validator's.
    copy.network.withdraw_validator("it signs nothing").expect("room for a command");
    assert_eq!(copy.goodbye(server.id()).await, Reason::Requested("it signs nothing".to_owned()));
    server.goodbye(copy.id()).await;
    round_trip(&mut copy, &mut server).await;
    assert_eq!(server.network.peers()[0].info.handshake.validator, None);

    let key_in_use = Reason::RefusedByPeer(Refusal::KeyInUse);
    for _ in 0..2 {
        let mut first = Node::start(validator()).await;
        first.dial(server.address());
        // However often the copy had the place, it gives way at once, and stays out.
        server.goodbye(copy.id()).await;
        while copy.refusal().await != key_in_use {}
        round_trip(&mut first, &mut server).await;
        assert!(server.network.peers()[0].info.handshake.validator.is_some());
        copy.goodbye(server.id()).await;
        first.network.shutdown().await;
        server.goodbye(first.id()).await;
        round_trip(&mut copy, &mut server).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_that_panics_is_replaced_behind_the_handle() {
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    round_trip(&mut a, &mut b).await;
    for restarts in 1..=2 {
        let (to_b, _) = meet(&mut a, &mut b).await;
        // A request that is on its way when the swarm dies is answered all the same.
        let request = a.network.request(to_b, Bytes::from_static(b"?")).expect("connected");
        a.network.panic_swarm();
        assert_eq!(a.goodbye(b.id()).await, Reason::SwarmRestarted);
        a.wait("response", |event| match event {
            Event::Response { id, result, .. } if *id == request => Some(result.clone()),
            _ => None,
        })
        .await
        .expect_err("nobody answered");
        assert_eq!(b.goodbye(a.id()).await, Reason::Closed);
        round_trip(&mut a, &mut b).await;
        assert_eq!(a.network.totals().swarm_restarts, restarts);
    }
    // And the listener is there again for others.
    let mut c = Node::seeded(3).await;
    c.dial(a.address());
    round_trip(&mut c, &mut a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_tells_why_and_a_persistent_peer_comes_back() {
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, _) = meet(&mut a, &mut b).await;
    a.network.disconnect(to_b, "spring cleaning");
    assert_eq!(a.goodbye(b.id()).await, Reason::Requested("spring cleaning".to_owned()));
    assert_eq!(b.goodbye(a.id()).await, Reason::Closed);
    assert_eq!(a.network.send(to_b, Lane::Votes, Bytes::from_static(b"x")), Err(crate::SendError::NotConnected));
    round_trip(&mut a, &mut b).await;
    let (again, _) = meet(&mut a, &mut b).await;
    assert_ne!(again, to_b, "a number is never used twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_shutdown_there_is_nothing_left() {
    let mut a = Node::seeded(1).await;
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    let (to_b, _) = meet(&mut a, &mut b).await;
    let socket = a.network.listening();
    let network = a.network.clone();
    network.shutdown().await;
    network.shutdown().await;
    assert_eq!(a.goodbye(b.id()).await, Reason::Shutdown);
    assert!(network.peers().is_empty());
    assert_eq!(network.send(to_b, Lane::Bulk, Bytes::from_static(b"x")), Err(crate::SendError::NotConnected));
    assert_eq!(network.publish(Bytes::from_static(b"x")), Err(crate::SendError::NotConnected));
    assert_eq!(network.request(to_b, Bytes::from_static(b"x")), Err(crate::SendError::NotConnected));
    std::net::TcpListener::bind(socket).expect("the port is free again");
}
