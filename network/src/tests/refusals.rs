//! Who is not let in, and that both sides know why.

use std::collections::BTreeSet;

use super::support::{Node, bind, config, handshake, node_key, round_trip};
use crate::{Config, PeerAddr, Reason, Refusal};

/// Starts two nodes of which the first dials the second; returns why each is not connected to the other.
async fn refused(a: Config, b: Config) -> (Reason, Reason) {
    let (mut a, mut b) = tokio::join!(Node::start(a), Node::start(b));
    a.dial(b.address());
    let reasons = tokio::join!(a.refusal(), b.refusal());
    assert!(a.connected.is_empty() && b.connected.is_empty());
    assert!(a.network.peers().is_empty() && b.network.peers().is_empty());
    reasons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_chain_another_genesis_another_version() {
    type Spoil = fn(&mut Config);
    let spoil: [(Spoil, Refusal); 3] = [
        (|c| c.handshake.chain_id = "other-chain".to_owned(), Refusal::ChainId),
        (|c| c.handshake.genesis_hash[31] ^= 1, Refusal::Genesis),
        (|c| c.handshake.wire_version += 1, Refusal::WireVersion),
    ];
    for (spoil, refusal) in spoil {
        let mut other = config(2);
        spoil(&mut other);
        // Each refuses the other, and names its own reason.
        assert_eq!(refused(config(1), other).await, (Reason::Refused(refusal), Reason::Refused(refusal)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_binding_is_verified_and_shown() {
    let mut a = config(1);
    let mut b = config(2);
    let binding = bind(&handshake(), 100, &node_key([2; 32]));
    b.handshake.validator = Some(binding);
    a.handshake.validator = Some(bind(&handshake(), 101, &node_key([1; 32])));
    let (mut a, mut b) = tokio::join!(Node::start(a), Node::start(b));
    a.dial(b.address());
    round_trip(&mut a, &mut b).await;
    assert_eq!(a.network.peers()[0].info.handshake.validator, Some(binding));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_is_good_for_one_node_and_one_chain() {
    let node = node_key([2; 32]);
    let mut other_chain = handshake();
    other_chain.chain_id = "other-chain".to_owned();
    let mut other_genesis = handshake();
    other_genesis.genesis_hash = [8; 32];
    let mut other_key = bind(&handshake(), 100, &node);
    other_key.public_key = bind(&handshake(), 101, &node).public_key;
    let stolen = [bind(&handshake(), 100, &node_key([3; 32])), bind(&other_chain, 100, &node), bind(&other_genesis, 100, &node), other_key];
    for binding in stolen {
        let mut liar = config(2);
        liar.handshake.validator = Some(binding);
        let (ours, theirs) = refused(config(1), liar).await;
        assert_eq!(ours, Reason::Refused(Refusal::Binding));
        assert_eq!(theirs, Reason::RefusedByPeer(Refusal::Binding), "the other log says the same");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_answers_must_have_the_key_in_the_address() {
    let mut a = Node::seeded(1).await;
    let b = Node::seeded(2).await;
    let expected = Node::seeded(3).await.id();
    a.dial(PeerAddr { node_id: expected, ..b.address() });
    assert_eq!(a.refusal().await, Reason::IdentityMismatch { expected, found: b.id() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_dials_himself() {
    let mut a = Node::seeded(1).await;
    // Under its own id: passed over, so that one list serves all. Under another: found out.
    a.dial(a.address());
    let expected = Node::seeded(3).await.id();
    a.dial(PeerAddr { node_id: expected, ..a.address() });
    assert_eq!(a.refusal().await, Reason::Oneself);
    let mut b = Node::seeded(2).await;
    a.dial(b.address());
    round_trip(&mut a, &mut b).await;
    assert_eq!(a.network.peers().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn places_are_kept_for_validators_and_persistent_peers() {
    let mut hub = config(1);
    hub.limits.peers_max = 1;
    hub.limits.validators_max = 1;
    let mut hub = Node::start(hub).await;
    let validator = bind(&handshake(), 100, &node_key([4; 32]));
    hub.network.set_validators(BTreeSet::from([validator.public_key]));

    let mut first = Node::seeded(2).await;
    first.dial(hub.address());
    round_trip(&mut first, &mut hub).await;
    let mut second = Node::seeded(3).await;
    second.dial(hub.address());
    assert_eq!(second.refusal().await, Reason::RefusedByPeer(Refusal::NoPlace));

    let mut third = config(4);
    third.handshake.validator = Some(validator);
    let mut third = Node::start(third).await;
    third.dial(hub.address());
    round_trip(&mut third, &mut hub).await;

    // Whom the operator names has a place whatever happens.
    let mut fourth = Node::seeded(5).await;
    hub.dial(fourth.address());
    round_trip(&mut fourth, &mut hub).await;
    // And nobody was pushed out for it.
    round_trip(&mut first, &mut hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_one_address_are_bounded() {
    let mut hub = config(1);
    hub.limits.loopback_exempt = false;
    hub.limits.per_ip_max = 2;
    let mut hub = Node::start(hub).await;
    let mut first = Node::seeded(2).await;
    let mut second = Node::seeded(3).await;
    first.dial(hub.address());
    second.dial(hub.address());
    round_trip(&mut first, &mut hub).await;
    round_trip(&mut second, &mut hub).await;
    let third = Node::seeded(4).await;
    third.dial(hub.address());
    assert_eq!(hub.refusal().await, Reason::Refused(Refusal::NoPlace));
    round_trip(&mut first, &mut hub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_with_too_many_points_is_out_for_a_while() {
    let mut a = Node::seeded(1).await;
    let mut quick = config(2);
    quick.pace.ban = std::time::Duration::from_millis(300);
    let mut b = Node::start(quick).await;
    a.dial(b.address());
    round_trip(&mut a, &mut b).await;
    let (_, to_a) = super::support::meet(&mut a, &mut b).await;
    b.network.penalise(to_a, 60, "first");
    assert!(b.network.peers()[0].points >= 59);
    b.network.penalise(to_a, 60, "second");
    assert_eq!(b.goodbye(a.id()).await, Reason::Banned("second".to_owned()));
    assert_eq!(a.goodbye(b.id()).await, Reason::Closed);
    assert_eq!(b.refusal().await, Reason::Refused(Refusal::Banned), "it redials, and is not let in");
    round_trip(&mut a, &mut b).await;
}
