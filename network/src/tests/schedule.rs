//! Scores and redials, with a clock made of numbers.

use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;

use crate::dialer::Dialer;
use crate::limits::SCORES_MAX;
use crate::score::Scores;
use crate::{NodeId, POINTS_MAX, Pace, PeerAddr};

fn node(number: u32) -> NodeId {
    let mut id = [0; 20];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn address(number: u32) -> PeerAddr {
    PeerAddr { node_id: node(number), host: "127.0.0.1".to_owned(), port: 1 }
}

#[test]
fn points_fade_and_too_many_ban_for_a_while() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut scores = Scores::new(Duration::from_secs(60));
    assert!(!scores.penalise(node(1), POINTS_MAX - 1, at(0)));
    assert_eq!(scores.points(node(1), at(9)), POINTS_MAX - 10);
    assert!(!scores.penalise(node(1), 9, at(9)), "what faded does not count");
    assert!(scores.penalise(node(1), 1, at(9)));
    assert!(scores.is_banned(node(1), at(68)));
    assert!(!scores.is_banned(node(1), at(69)));
    assert!(!scores.is_banned(node(2), at(9)));
    assert!(scores.penalise(node(2), u32::MAX, at(9)), "no sum overflows");
    assert!(scores.penalise(node(2), u32::MAX, at(9)));
}

#[test]
fn newcomers_do_not_push_out_a_ban_and_the_table_is_bounded() {
    let start = Instant::now();
    let mut scores = Scores::new(Duration::from_secs(60));
    assert!(scores.penalise(node(0), POINTS_MAX, start));
    for number in 1..=2 * u32::try_from(SCORES_MAX).expect("fits") {
        scores.penalise(node(number), 5, start);
        assert!(scores.len() <= SCORES_MAX);
    }
    assert!(scores.is_banned(node(0), start));
}

/// The pauses that `failures` failed dials in a row bring.
fn pauses(dialer: &mut Dialer, mut now: Instant, failures: usize) -> Vec<Duration> {
    let mut pauses = Vec::new();
    for _ in 0..failures {
        dialer.down(node(1), now);
        let due = dialer.next_due().expect("it is dialled for ever");
        pauses.push(due - now);
        assert!(dialer.take_due(due - Duration::from_millis(1)).is_empty(), "not before its time");
        now = due;
        assert_eq!(dialer.take_due(now), [address(1)]);
        assert!(dialer.take_due(now).is_empty(), "one dial at a time");
    }
    pauses
}

#[test]
fn redials_begin_at_once_double_and_never_end() {
    let pace = Pace::default();
    let start = Instant::now();
    let mut dialer = Dialer::new(&pace);
    assert!(dialer.add(address(1), false, start));
    assert_eq!(dialer.take_due(start), [address(1)], "the first dial waits for nothing");
    let seen = pauses(&mut dialer, start, 40);
    for (at, pause) in seen.iter().enumerate() {
        let exact = (pace.redial_first * (1 << at.min(10))).min(pace.redial_max);
        assert!(
            *pause >= exact * 3 / 4 && *pause <= exact * 5 / 4 + Duration::from_millis(1),
            "pause {at} is {pause:?}, not near {exact:?}"
        );
    }
    // A connection that lasted makes the next loss the first again; one that did not, does not.
    let later = start + Duration::from_secs(1000);
    dialer.up(node(1), later);
    dialer.down(node(1), later + Duration::from_millis(100));
    assert!(dialer.next_due().expect("due") - later >= pace.redial_max * 3 / 4, "a peer that hangs up at once is not hammered");
    dialer.take_due(later + Duration::from_secs(10));
    dialer.up(node(1), later + Duration::from_secs(10));
    let lost = later + Duration::from_secs(20);
    assert_eq!(dialer.down(node(1), lost), Some(1), "a new row begins");
    assert!(dialer.next_due().expect("due") - lost <= pace.redial_first * 5 / 4 + Duration::from_millis(1));
}

#[test]
fn a_peer_that_came_by_itself_is_not_dialled() {
    let start = Instant::now();
    let mut dialer = Dialer::new(&Pace::default());
    dialer.add(address(1), false, start);
    dialer.up(node(1), start);
    assert_eq!(dialer.next_due(), None);
    assert!(dialer.take_due(start + Duration::from_secs(100)).is_empty());
    dialer.add(address(2), true, start);
    assert!(dialer.take_due(start + Duration::from_secs(100)).is_empty());
    let connection = ConnectionId::new_unchecked(1);
    dialer.dialling(node(2), connection);
    assert_eq!(dialer.dialled(connection), Some(node(2)));
    dialer.up(node(2), start);
    assert_eq!(dialer.dialled(connection), None, "its failure is no news any more");
    dialer.remove(node(1));
    assert_eq!(dialer.addresses().count(), 1);
}
