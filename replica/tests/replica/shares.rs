//! What peers send before its time: each has an equal share, whatever the others send.

use std::collections::BTreeMap;

use lockstep_replica::seam::Peer;
use lockstep_replica::shares::Shares;
use lockstep_replica::wire::{Message, VoteBatch};
use lockstep_types::{BlockId, Hash, PartSetHeader, Round, Vote, VoteType};
use proptest::prelude::*;

use crate::desk::{Desk, Made};
use crate::support::*;

proptest! {
    /// Against what is promised, said another way: never more than the bound; a peer that stays within an equal share loses
    /// nothing; what comes out comes in the order in which it went in.
    #[test]
    fn nobody_loses_what_is_within_an_equal_share(sent in prop::collection::vec((0u64..5, 1usize..40), 0..300)) {
        const MAX: usize = 200;
        let mut shares = Shares::new(MAX);
        let mut asked: BTreeMap<u64, usize> = BTreeMap::new();
        for (n, (peer, bytes)) in sent.iter().enumerate() {
            shares.push(Peer(*peer), *bytes, n);
            *asked.entry(*peer).or_default() += bytes;
            prop_assert!(shares.bytes() <= MAX);
        }
        let kept = shares.take();
        prop_assert!(kept.is_sorted_by_key(|(_, n)| *n));
        for (peer, bytes) in &asked {
            let of_peer = kept.iter().filter(|(from, _)| from.0 == *peer).count();
            if *bytes <= MAX / asked.len() {
                prop_assert_eq!(of_peer, sent.iter().filter(|(from, _)| from == peer).count(), "peer {} within its share", peer);
            }
        }
        prop_assert_eq!(shares.bytes(), 0);
    }
}

#[test]
fn who_leaves_takes_its_share_along() {
    let mut shares = Shares::new(10);
    (0..10).for_each(|n| shares.push(Peer(n), 1, n));
    shares.forget(Peer(3));
    shares.forget(Peer(77));
    assert_eq!(shares.bytes(), 9);
    shares.push(Peer(3), 1, 33);
    assert_eq!(
        shares.take().iter().map(|(peer, item)| (peer.0, *item)).collect::<Vec<_>>(),
        [(0, 0), (1, 1), (2, 2), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9), (3, 33)]
    );
    shares.push(Peer(1), 11, 0);
    assert_eq!((shares.bytes(), shares.take().len()), (0, 0), "larger than the bound");
}

/// The votes of height 2 come while height 1 is still being decided: from a flooder a hundred megabytes of invented ones,
/// before and after those of an honest peer. When height 2 begins, the honest ones count.
#[test]
fn a_flood_for_the_next_height_does_not_displace_an_honest_peers_votes() {
    let made = Made::of(1);
    let mut desk = Desk::new(&made, None);
    desk.connect(1, None);
    desk.connect(2, None);
    let set = &made.chain.validators;
    let block_id = BlockId { hash: Hash([8; 32]), parts: PartSetHeader { total: 1, hash: Hash([9; 32]) } };
    let prevote = |place| {
        let vote = Vote { height: height(2), round: Round::ZERO, block_id: Some(block_id), valid_round: None, ..vote() };
        signed_vote(set, place, vote)
    };
    // Nobody's votes: of the height that follows, for places that do not exist.
    let junk = Vote { kind: VoteType::Prevote, height: height(2), validator: index(200), ..vote() };
    let junk = Message::Votes(VoteBatch(vec![junk; 256]));
    let flood = |desk: &mut Desk| (0..1_000).for_each(|_| desk.receive(2, &junk));
    flood(&mut desk);
    (0..3).for_each(|place| desk.receive(1, &Message::Vote(prevote(place))));
    flood(&mut desk);
    desk.follow(&made, 1);
    let held: Vec<Vote> = desk.replica.consensus().votes(Round::ZERO, VoteType::Prevote).map(|set| set.votes().cloned().collect()).unwrap();
    assert_eq!(held, [prevote(0), prevote(1), prevote(2)]);
}
