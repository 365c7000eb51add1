//! One rule each.

use std::sync::Arc;

use lockstep_sync::{
    Answer, BUFFER_BYTES_MAX, BlameReason, BlockSync, DEADLINE_MS, Effect, FORGET_AFTER_DEADLINES, Fetched, GRACE_MS, HEDGE_MS, HOLD_MS,
    Input, RANGE_BLOCKS_MAX, REQUESTS_MAX, REQUESTS_PER_PEER_MAX, RESPONSE_BYTES_MAX, REST_MS, SHORT_ANSWER_DEBT, SPECULATIVE_REQUESTS_MAX,
    VERIFY_AHEAD_MAX, WHOLE_PARTS_MAX, WINDOW_BLOCKS,
};
use lockstep_types::Height;
use lockstep_types::block::PARTS_MAX;

use crate::{commit, good, h};

/// A node at a height, its clock, and what it asked for.
struct Node {
    sync: BlockSync,
    now: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    peer: u64,
    id: u64,
    from: u64,
    count: u32,
}

fn asked(effects: &[Effect]) -> Vec<Asked> {
    let request = |effect: &Effect| match effect {
        Effect::Request { peer, id, from, count } => Some(Asked { peer: *peer, id: *id, from: from.get(), count: *count }),
        _ => None,
    };
    effects.iter().filter_map(request).collect()
}

/// Heights and tickets that are to be verified.
fn verifying(effects: &[Effect]) -> Vec<(u64, u64)> {
    let verify = |effect: &Effect| match effect {
        Effect::Verify { ticket, height, .. } => Some((height.get(), *ticket)),
        _ => None,
    };
    effects.iter().filter_map(verify).collect()
}

fn blamed(effects: &[Effect]) -> Vec<(u64, BlameReason)> {
    let blame = |effect: &Effect| match effect {
        Effect::Blame { peer, reason } => Some((*peer, *reason)),
        _ => None,
    };
    effects.iter().filter_map(blame).collect()
}

impl Node {
    fn at(tip: u64) -> Self {
        Self { sync: BlockSync::new(h(tip), 0), now: 0 }
    }

    fn on(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.sync.on(self.now, input);
        self.sync.assert_invariants();
        effects
    }

    fn status(&mut self, peer: u64, base: u64, tip: u64) -> Vec<Effect> {
        self.on(Input::PeerStatus { peer, base: h(base), tip: h(tip) })
    }

    fn answer(&mut self, to: Asked, blocks: Vec<Fetched>) -> Vec<Effect> {
        self.on(Input::Response { peer: to.peer, id: to.id, answer: Answer::Blocks(blocks) })
    }

    fn verdict(&mut self, (height, ticket): (u64, u64), ok: bool) -> Vec<Effect> {
        self.on(Input::Verdict { height: h(height), ticket, ok })
    }

    fn tip(&mut self, height: u64) -> Vec<Effect> {
        self.on(Input::Tip { height: h(height) })
    }

    fn wait(&mut self, ms: u64) -> Vec<Effect> {
        self.now += ms;
        self.on(Input::Tick)
    }
}

fn run(from: u64, count: u64) -> Vec<Fetched> {
    (from..from + count).map(good).collect()
}

#[test]
fn ranges_are_asked_of_several_peers_and_verified_in_order() {
    let mut node = Node::at(10);
    let first = asked(&node.status(1, 1, 600));
    assert_eq!(first.len(), SPECULATIVE_REQUESTS_MAX, "an untried peer is asked a little");
    assert_eq!((first[0].from, first[0].count, first[1].from), (11, RANGE_BLOCKS_MAX, 75));
    assert_eq!(asked(&node.status(2, 1, 600)), vec![], "so are two of them");
    // The upper range comes first, and waits for the lower one.
    assert_eq!(verifying(&node.answer(first[1], run(75, 64))), vec![]);
    let tickets = verifying(&node.answer(first[0], run(11, 64)));
    let heights: Vec<u64> = tickets.iter().map(|(height, _)| *height).collect();
    assert_eq!(heights, (11..11 + VERIFY_AHEAD_MAX).collect::<Vec<_>>());
    assert!(!node.sync.catching_up(), "a claim alone proves nothing");
    // The first good block proves its peer, and with it its claim.
    let more = asked(&node.verdict(tickets[0], true));
    assert!(node.sync.catching_up());
    assert_eq!(node.sync.target(), h(600));
    assert_eq!(more.len(), REQUESTS_MAX - SPECULATIVE_REQUESTS_MAX, "and all requests are used");
    // Each executed block lets another one be verified.
    assert_eq!(verifying(&node.tip(11)).len(), 1);
}

#[test]
fn a_short_answer_is_continued_and_not_repeated() {
    let mut node = Node::at(0);
    let first = asked(&node.status(1, 1, 40));
    assert_eq!((first.len(), first[0].from, first[0].count), (1, 1, 40));
    let rest = asked(&node.answer(first[0], run(1, 15)));
    assert_eq!(rest.iter().map(|asked| (asked.from, asked.count)).collect::<Vec<_>>(), [(16, 25)]);
}

#[test]
fn a_small_gap_is_left_to_consensus_while_that_moves() {
    let mut node = Node::at(100);
    node.status(1, 1, 102);
    for height in 101..130 {
        node.now += GRACE_MS - 1;
        assert_eq!(asked(&node.tip(height)), vec![]);
        assert_eq!(asked(&node.status(1, 1, height + 3)), vec![]);
        node.on(Input::Certified { height: h(height + 2) });
        assert!(!node.sync.catching_up());
    }
    // It stands still.
    let late = asked(&node.wait(GRACE_MS));
    assert_eq!((late[0].from, late[0].count), (130, 3));
    assert!(node.sync.catching_up(), "131 is certified");
    // What consensus does itself meanwhile is dropped, and the answer that comes after it is no fault.
    node.tip(132);
    assert!(!node.sync.catching_up());
    assert_eq!(node.answer(late[0], run(130, 3)), vec![]);
    assert_eq!(node.sync.held(), 0);
}

#[test]
fn a_late_honest_answer_is_free() {
    let mut node = Node::at(0);
    let first = asked(&node.status(1, 1, 20));
    assert_eq!(asked(&node.status(2, 1, 20)), vec![]);
    let second = asked(&node.wait(DEADLINE_MS));
    assert_eq!(second.iter().map(|asked| (asked.peer, asked.from)).collect::<Vec<_>>(), [(2, 1)], "a second source");
    let effects = node.answer(first[0], run(1, 20));
    assert_eq!((verifying(&effects).len(), blamed(&effects)), (20, vec![]), "taken as if it had been in time");
    assert_eq!(node.answer(second[0], run(1, 20)), vec![], "the other one came too late to be of use, and is free too");
    assert_eq!(node.sync.held(), 20);
}

#[test]
fn one_that_claims_first_does_not_hold_what_a_proved_peer_has() {
    // 1 proves good; 2 claims blocks that do not exist yet, and is asked for them.
    let mut node = Node::at(0);
    node.wait(GRACE_MS);
    let first = asked(&node.status(1, 1, 4));
    let tickets = verifying(&node.answer(first[0], run(1, 4)));
    for verify in tickets {
        node.verdict(verify, true);
        node.tip(verify.0);
    }
    let early = asked(&node.status(2, 1, 20));
    assert_eq!((early.len(), early[0].peer, early[0].from), (1, 2, 5));
    // Now they exist. 2 has a moment to keep its word, and nobody is blamed or preferred for it.
    assert_eq!(asked(&node.status(1, 1, 20)), vec![]);
    let other = asked(&node.wait(HOLD_MS));
    assert_eq!(other.iter().map(|asked| (asked.peer, asked.from, asked.count)).collect::<Vec<_>>(), [(1, 5, 16)]);
    assert_eq!(verifying(&node.answer(early[0], run(5, 16))).len(), 16, "it was good after all");
}

#[test]
fn a_lie_that_shows_at_once_voids_no_verification_under_way() {
    let mut node = Node::at(0);
    let first = asked(&node.status(1, 1, 200));
    let tickets = verifying(&node.answer(first[0], run(1, 64)));
    assert_eq!(blamed(&node.answer(first[1], run(99, 1))).len(), 1);
    // The caller knows nothing of it, and goes on with what it was handed: good blocks of a liar are good.
    let third = asked(&node.status(2, 1, 200));
    assert_eq!(third[0].from, 65);
    for verify in &tickets[..9] {
        node.verdict(*verify, true);
        node.tip(verify.0);
    }
    // A wrong one is asked elsewhere; its sender is not blamed twice.
    let effects = node.verdict(tickets[9], false);
    assert_eq!(blamed(&effects), vec![]);
    assert_eq!(node.sync.held(), 0);
    assert_eq!(asked(&effects), vec![], "2 has its hands full");
    let next = asked(&node.answer(third[0], run(65, 64)));
    assert_eq!(next.iter().map(|asked| (asked.peer, asked.from, asked.count)).collect::<Vec<_>>(), [(2, 10, 55)]);
}

/// Answers a request with the chain's blocks, verifies and executes them.
fn serve(node: &mut Node, to: Asked) {
    for verify in verifying(&node.answer(to, run(to.from, u64::from(to.count)))) {
        node.verdict(verify, true);
        node.tip(verify.0);
    }
}

#[test]
fn what_all_else_waits_for_is_asked_of_those_that_proved_good() {
    let mut node = Node::at(0);
    node.wait(GRACE_MS);
    let first = asked(&node.status(5, 1, 4));
    serve(&mut node, first[0]);
    // Consensus moves once and stands still. Others are idle and owe nothing, but gave nothing either.
    node.tip(5);
    for peer in [1, 2, 5, 9] {
        assert_eq!(asked(&node.status(peer, 1, 20)), vec![]);
    }
    let next = asked(&node.wait(GRACE_MS));
    assert_eq!(next.iter().map(|asked| (asked.peer, asked.from)).collect::<Vec<_>>(), [(5, 6)]);
}

/// Peer 1 holds what comes next, and takes its time; others have given what lies above. All of them proved good.
#[test]
fn a_second_peer_is_asked_for_what_all_else_waits_for() {
    let mut node = Node::at(0);
    for peer in 1..=4 {
        let mut first = asked(&node.status(peer, 1, peer));
        first.extend(asked(&node.wait(GRACE_MS)));
        serve(&mut node, first[0]);
    }
    let to = |asked: &[Asked]| asked.iter().map(|asked| (asked.peer, asked.from)).collect::<Vec<_>>();
    let mut held = asked(&node.status(1, 1, 300));
    held.extend(asked(&node.status(2, 1, 300)));
    assert_eq!(to(&held), [(1, 5), (1, 69), (2, 133), (2, 197)]);
    assert_eq!(asked(&node.status(3, 1, 300)), vec![]);
    assert_eq!(asked(&node.status(4, 1, 300)), vec![]);
    assert_eq!(asked(&node.wait(HEDGE_MS)), vec![], "nothing shows that others are quicker");
    let next = asked(&node.answer(held[2], run(133, 64)));
    assert_eq!(to(&next), [(3, 5), (4, 261)]);
    // Twice as long before a third.
    assert!(asked(&node.wait(HEDGE_MS)).iter().all(|asked| asked.from != 5));
    assert!(asked(&node.wait(HEDGE_MS)).iter().any(|asked| asked.from == 5));
    // Nothing is held against anybody: what the slow one gives is taken.
    assert_eq!(verifying(&node.answer(held[0], run(5, 64))).len(), 64);
}

#[test]
fn who_gives_less_than_it_was_asked_for_is_not_believed_until_it_made_good_for_it() {
    let mut node = Node::at(0);
    let first = asked(&node.status(1, 1, 40));
    let effects = node.answer(first[0], run(1, 1));
    node.verdict(verifying(&effects)[0], true);
    node.tip(1);
    assert_eq!(node.sync.target(), h(1), "it says to have 40, and gave one");
    let rest = asked(&effects)[0];
    for (given, verify) in verifying(&node.answer(rest, run(2, 39))).into_iter().enumerate() {
        let made_good = 1 + given as u64 >= u64::from(SHORT_ANSWER_DEBT);
        assert_eq!(node.sync.target() == h(40), made_good, "it gave {given} more");
        node.verdict(verify, true);
        node.tip(verify.0);
    }
}

#[test]
fn lateness_alone_does_not_make_others_better() {
    let mut node = Node::at(0);
    node.wait(GRACE_MS);
    let first = asked(&node.status(1, 1, 3));
    node.wait(DEADLINE_MS);
    serve(&mut node, first[0]);
    // Late, but it gave good blocks; 2 gave none, and is not preferred.
    node.tip(4);
    node.status(1, 1, 20);
    node.status(2, 1, 20);
    let next = asked(&node.wait(GRACE_MS));
    assert_eq!(next.iter().map(|asked| (asked.peer, asked.from)).collect::<Vec<_>>(), [(1, 5)]);
}

#[test]
fn an_answer_is_not_waited_for_for_ever() {
    let mut node = Node::at(0);
    let first = asked(&node.status(1, 1, 20));
    assert_eq!(asked(&node.wait(DEADLINE_MS)), vec![], "nobody else has it, and it owes us the answer already");
    let again = asked(&node.wait(DEADLINE_MS * (FORGET_AFTER_DEADLINES - 1)));
    assert_eq!((again[0].peer, again[0].from), (1, 1));
    assert_eq!(node.answer(first[0], run(1, 20)), vec![], "what was forgotten was not asked for");
    assert_eq!(verifying(&node.answer(again[0], run(1, 20))).len(), 20);
}

#[test]
fn nothing_unsolicited_is_taken() {
    let mut node = Node::at(0);
    let first = asked(&node.status(1, 1, 20));
    node.status(2, 1, 20);
    let stolen = Asked { peer: 2, ..first[0] };
    assert_eq!(node.answer(stolen, run(1, 20)), vec![]);
    assert_eq!(node.answer(Asked { id: 77, ..first[0] }, run(1, 20)), vec![]);
    assert_eq!(node.answer(Asked { peer: 9, ..first[0] }, run(1, 20)), vec![]);
    assert_eq!(node.sync.held(), 0);
    assert_eq!(verifying(&node.answer(first[0], run(1, 20))).len(), 20);
    assert_eq!(node.answer(first[0], run(1, 20)), vec![], "one answer to a question");
}

#[test]
fn lies_that_show_at_once_are_blamed_and_asked_elsewhere() {
    let empty = Fetched { body: Arc::from([]), commit: commit(1, &[]) };
    let half: Arc<[u8]> = vec![0; usize::try_from(RESPONSE_BYTES_MAX / 2).unwrap()].into();
    let large = |height| Fetched { body: Arc::clone(&half), commit: commit(height, &[]) };
    let lies = [
        (vec![good(2)], BlameReason::WrongHeight { expected: h(1), found: h(2) }),
        (vec![good(1), good(3)], BlameReason::WrongHeight { expected: h(2), found: h(3) }),
        (run(1, 21), BlameReason::TooMany { asked: 20, found: 21 }),
        (vec![empty], BlameReason::BadSize { bytes: 0 }),
        (vec![large(1), large(2)], BlameReason::BadSize { bytes: 2 * large(1).bytes() }),
    ];
    for (answer, reason) in lies {
        let mut node = Node::at(0);
        let first = asked(&node.status(1, 1, 20));
        node.status(2, 1, 20);
        let effects = node.answer(first[0], answer);
        assert_eq!(blamed(&effects), [(1, reason)]);
        assert_eq!(asked(&effects).iter().map(|asked| (asked.peer, asked.from)).collect::<Vec<_>>(), [(2, 1)]);
        node.wait(10 * DEADLINE_MS);
        assert!(asked(&node.status(1, 1, 500)).is_empty(), "what a liar claims is not heard");
    }
}

#[test]
fn a_wrong_block_is_its_senders_and_voids_what_was_handed_out_above_it() {
    let mut node = Node::at(0);
    let first = asked(&node.status(1, 1, 128));
    assert_eq!(first.len(), 2);
    node.on(Input::PeerGone { peer: 9 });
    // Peer 1 gives 1 to 64, peer 2 gives the rest: we let the second request go to it by its deadline.
    node.answer(first[0], run(1, 64));
    let second = {
        node.now += DEADLINE_MS;
        asked(&node.status(2, 65, 128)).into_iter().chain(asked(&node.on(Input::Tick))).find(|asked| asked.peer == 2).unwrap()
    };
    node.answer(second, run(65, 64));
    let tickets = verifying(&node.tip(1));
    assert_eq!(tickets, [(65, 64)], "one more may be verified ahead");
    // 3 is wrong: peer 1 is blamed, and what it gave is gone, but for what was proved.
    let effects = node.verdict((2, 1), true);
    assert!(blamed(&effects).is_empty());
    let effects = node.verdict((3, 2), false);
    assert_eq!(blamed(&effects), [(1, BlameReason::InvalidBlock { height: h(3) })]);
    assert_eq!(node.sync.held(), 1 + 64);
    // The old ticket of 65 is void. With 3 to 64 from peer 3, everything comes again, under new tickets.
    node.verdict((65, 64), false);
    assert_eq!(node.sync.held(), 1 + 64, "nobody is blamed by a void ticket");
    let third = asked(&node.status(3, 1, 64));
    assert_eq!((third[0].from, third[0].count), (3, 62));
    let again = verifying(&node.answer(third[0], run(3, 62)));
    assert_eq!(again.iter().map(|(height, _)| *height).collect::<Vec<_>>(), (3..=65).collect::<Vec<_>>());
    assert!(again.iter().all(|(_, ticket)| *ticket > 64));
}

#[test]
fn poisoned_claims_are_harmless() {
    let mut node = Node::at(50);
    node.on(Input::PeerStatus { peer: 1, base: Height::MAX, tip: h(3) });
    node.on(Input::PeerStatus { peer: 2, base: Height::ZERO, tip: Height::ZERO });
    let mut requests = 0;
    for second in 0..100 {
        // It claims everything again after each answer that it has nothing.
        let mut open = asked(&node.on(Input::PeerStatus { peer: 3, base: Height::ZERO, tip: Height::MAX }));
        while let Some(asked_for) = open.pop() {
            requests += 1;
            assert!(asked_for.from <= 50 + WINDOW_BLOCKS);
            let answer = Answer::NotAvailable { base: Height::MAX, tip: Height::ZERO };
            open.extend(asked(&node.on(Input::Response { peer: 3, id: asked_for.id, answer })));
        }
        assert!(!node.sync.catching_up(), "second {second}");
        assert_eq!(node.sync.target(), h(50));
        node.wait(REST_MS);
    }
    assert!(requests < 20, "{requests} requests: each broken claim doubles the rest");
    // One that has the next block is asked at once all the same.
    let fresh = asked(&node.status(4, 1, 51));
    assert_eq!(fresh.iter().map(|asked| (asked.peer, asked.from)).collect::<Vec<_>>(), [(4, 51)]);
}

#[test]
fn a_silent_peer_is_soon_not_asked_while_an_honest_one_is_there() {
    let mut node = Node::at(0);
    let mut open = asked(&node.status(1, 1, 10_000));
    open.extend(asked(&node.status(2, 1, 10_000)));
    let mut asked_of_silent = 0;
    let mut tip = 0;
    while tip < 10_000 {
        node.now += 10;
        let mut effects = node.on(Input::Tick);
        for asked in std::mem::take(&mut open) {
            if asked.peer == 1 {
                asked_of_silent += 1;
            } else {
                effects.extend(node.answer(asked, run(asked.from, u64::from(asked.count))));
            }
        }
        while !effects.is_empty() {
            let mut next = Vec::new();
            open.extend(asked(&effects));
            for verify in verifying(&effects) {
                next.extend(node.verdict(verify, true));
                next.extend(node.tip(verify.0));
                tip = verify.0;
            }
            effects = next;
        }
        assert!(node.now < 10 * DEADLINE_MS, "stands at {tip}");
    }
    assert!(asked_of_silent <= REQUESTS_PER_PEER_MAX, "{asked_of_silent}");
}

#[test]
fn the_only_peer_is_asked_again_when_the_network_gives_a_request_up() {
    let mut node = Node::at(10);
    node.status(1, 1, 20);
    let mut open = asked(&node.wait(GRACE_MS));
    // Each time the deadline doubles, and an answer would be waited for longer still.
    for _ in 0..6 {
        let [lost] = open[..] else { panic!("one request: {open:?}") };
        assert_eq!((lost.peer, lost.from, lost.count), (1, 11, 10));
        assert_eq!(asked(&node.wait(DEADLINE_MS)), vec![], "an answer may still come");
        open = asked(&node.on(Input::Failed { peer: 1, id: lost.id }));
    }
    // Who fails at once is asked no more often than who does not answer.
    for _ in 0..6 {
        let [refused] = open[..] else { panic!("one request: {open:?}") };
        assert_eq!(asked(&node.on(Input::Failed { peer: 1, id: refused.id })), vec![]);
        assert_eq!(asked(&node.wait(DEADLINE_MS - 1)), vec![]);
        assert_eq!(node.sync.wakeup_ms(), Some(node.now + 1));
        open = asked(&node.wait(1));
    }
    let [last] = open[..] else { panic!("one request: {open:?}") };
    // What failed is not somebody else's, and an answer after it is no answer.
    assert_eq!(node.on(Input::Failed { peer: 2, id: last.id }), vec![]);
    assert_eq!(verifying(&node.answer(last, run(11, 10))).len(), VERIFY_AHEAD_MAX.min(10) as usize);
    assert_eq!(node.on(Input::Failed { peer: 1, id: last.id }), vec![]);
}

#[test]
fn the_buffer_is_bounded_and_the_block_that_all_wait_for_always_fits() {
    // Bodies of 5 MiB come one by one. The lowest one never comes, so nothing drains.
    let size = usize::try_from(RESPONSE_BYTES_MAX).unwrap() + (1 << 20);
    let large: Arc<[u8]> = vec![0; size].into();
    let block = |height| Fetched { body: Arc::clone(&large), commit: commit(height, &[]) };
    let mut node = Node::at(0);
    let mut open = asked(&node.status(1, 1, 500));
    open.extend(asked(&node.status(2, 1, 500)));
    open.extend(asked(&node.status(3, 2, 500)));
    let mut lowest = None;
    for _ in 0..200 {
        let Some(at) = open.iter().position(|asked| asked.from != 1) else { break };
        let asked_for = open.remove(at);
        open.extend(asked(&node.answer(asked_for, vec![block(asked_for.from)])));
        lowest = lowest.or(open.iter().find(|asked| asked.from == 1).copied());
    }
    let full = node.sync.held_bytes();
    assert!(full <= BUFFER_BYTES_MAX && full > BUFFER_BYTES_MAX / 2, "{full}");
    let effects = node.answer(lowest.expect("the lowest was asked for"), vec![block(1)]);
    assert!(verifying(&effects).iter().any(|(height, _)| *height == 1));
}

#[test]
fn wakeups_name_the_next_deadline() {
    let mut node = Node::at(0);
    assert_eq!(node.sync.wakeup_ms(), Some(GRACE_MS));
    node.wait(GRACE_MS);
    assert_eq!(node.sync.wakeup_ms(), None);
    node.status(1, 1, 20);
    assert_eq!(node.sync.wakeup_ms(), Some(GRACE_MS + HOLD_MS));
    node.wait(HOLD_MS);
    assert_eq!(node.sync.wakeup_ms(), Some(GRACE_MS + DEADLINE_MS));
    node.wait(DEADLINE_MS - HOLD_MS);
    assert_eq!(node.sync.wakeup_ms(), Some(GRACE_MS + FORGET_AFTER_DEADLINES * DEADLINE_MS));
    node.on(Input::PeerGone { peer: 1 });
    assert_eq!(node.sync.wakeup_ms(), None);
}

/// A block that does not travel whole comes as its certificate, which is verified in its turn; its range is asked for again
/// behind it. One of a block that does travel, or of another height, is a lie.
#[test]
fn a_large_block_comes_as_its_certificate() {
    let large = |height, parts| {
        let mut commit = commit(height, b"a name");
        commit.block_id.parts.total = parts;
        commit
    };
    let mut node = Node::at(10);
    let first = asked(&node.status(1, 1, 600));
    let answer = |to: Asked, commit| Input::Response { peer: to.peer, id: to.id, answer: Answer::Certificate(commit) };
    let effects = node.on(answer(first[0], large(11, WHOLE_PARTS_MAX + 1)));
    let verify = effects.iter().find_map(|effect| match effect {
        Effect::Verify { height, block, .. } => Some((height.get(), block.clone())),
        _ => None,
    });
    let (height, block) = verify.expect("it is the next one");
    assert_eq!((height, block.body.len(), &block.commit), (11, 0, &large(11, WHOLE_PARTS_MAX + 1)));
    assert_eq!(asked(&effects).first().map(|asked| asked.from), Some(12), "the rest of the range");

    for (commit, reason) in [
        (large(11, WHOLE_PARTS_MAX), BlameReason::Withheld { parts: WHOLE_PARTS_MAX }),
        (large(11, PARTS_MAX + 1), BlameReason::Withheld { parts: PARTS_MAX + 1 }),
        (large(12, WHOLE_PARTS_MAX + 1), BlameReason::WrongHeight { expected: h(11), found: h(12) }),
    ] {
        let mut node = Node::at(10);
        let first = asked(&node.status(1, 1, 600));
        assert_eq!(blamed(&node.on(answer(first[0], commit))), [(1, reason)]);
    }
}
