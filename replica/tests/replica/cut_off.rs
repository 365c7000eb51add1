//! A node whose next block nobody has any more: it says that it is not in step, and what it begins from.

use std::time::Duration;

use lockstep_replica::Effect;
use lockstep_replica::Input;
use lockstep_replica::light_store::Root;
use lockstep_replica::seam::Report;
use lockstep_replica::state_sync::{Found, Policy, Task};
use lockstep_replica::wire::{Answer, Message, Question, Status};
use lockstep_sync::state::Told;
use lockstep_types::{ConsensusParams, Hash};

use crate::desk::{Desk, Made};
use crate::support::*;

/// What the others have: nothing below.
const PRUNED: Status = Status { base: height_of(50), tip: height_of(100) };
/// Where their snapshot is, and the header that an operator names.
const SNAPSHOT: u64 = 80;
const NAMED: u64 = 90;

const fn height_of(height: u64) -> lockstep_types::Height {
    lockstep_types::Height::new(height).expect("a height")
}

/// A node with three blocks, of a chain whose evidence expires after so many seconds. By its clock they are a day old.
fn desk(window_s: u64) -> Desk {
    Desk::with_evidence(&made(window_s), Vec::new())
}

fn made(window_s: u64) -> Made {
    let mut params = ConsensusParams::default();
    params.evidence.max_age_duration_ns = window_s * 1_000_000_000;
    let mut made = Made::new(params);
    (0..3u8).for_each(|n| made.grow(&[format!("k{n}=v").as_bytes()]));
    made
}

/// Another while passes, in which these peers say again what they have.
fn wait(desk: &mut Desk, peers: &[(u64, Status)]) {
    for _ in 0..8 {
        for (peer, status) in peers {
            desk.receive(*peer, &Message::Status(*status));
        }
        desk.pass(Duration::from_secs(1));
    }
}

/// What it said last of being behind, if anything.
fn is_behind(desk: &Desk) -> Option<bool> {
    desk.out.iter().rev().find_map(|effect| match effect {
        Effect::Report { report: Report::CatchingUp { behind, .. }, .. } => Some(*behind),
        _ => None,
    })
}

/// Whether it has begun to seek a snapshot.
fn seeks(desk: &Desk) -> bool {
    desk.out.iter().any(|effect| matches!(effect, Effect::Stage { task: Task::Look, .. }))
}

#[test]
fn who_needs_a_block_that_most_peers_have_pruned_is_not_in_step() {
    let has_nothing_more = Status { base: height_of(1), tip: height_of(3) };
    for (says, expected) in [
        ([PRUNED, PRUNED, PRUNED], true),
        ([PRUNED, PRUNED, has_nothing_more], true),
        // A few who claim anything do not make a node look behind.
        ([PRUNED, has_nothing_more, has_nothing_more], false),
        ([has_nothing_more; 3], false),
    ] {
        let mut desk = desk(1_000_000);
        let peers: Vec<(u64, Status)> = (1..).zip(says).collect();
        peers.iter().for_each(|(peer, _)| desk.connect(*peer, None));
        assert_eq!(is_behind(&desk), None, "nobody has said anything");
        for (heard, (peer, status)) in peers.iter().enumerate() {
            desk.receive(*peer, &Message::Status(*status));
            let pruned = says[..=heard].iter().filter(|status| **status == PRUNED).count();
            assert_eq!(is_behind(&desk) == Some(true), 2 * pruned > peers.len(), "{says:?}, of which {} are heard", heard + 1);
        }
        assert_eq!(is_behind(&desk), Some(expected), "from the moment on when most say so: {says:?}");
        assert!(!seeks(&desk), "what peers say may be corrected at once");
        wait(&mut desk, &peers);
        assert_eq!(is_behind(&desk), Some(expected), "{says:?}");
        assert_eq!(seeks(&desk), says.contains(&PRUNED));
        // They leave, and nobody is left who says so.
        peers.iter().for_each(|(peer, _)| desk.step(Input::PeerDown { peer: lockstep_replica::seam::Peer(*peer) }));
        assert_eq!(is_behind(&desk), Some(false), "{says:?}");
    }
}

#[test]
fn a_node_that_has_just_started_is_not_in_step_before_most_peers_are_not_ahead() {
    const AHEAD: Status = Status { base: height_of(1), tip: height_of(100) };
    const LEVEL: Status = Status { base: height_of(1), tip: height_of(3) };
    let mut desk = desk(1_000_000);
    (1..=3).for_each(|peer| desk.connect(peer, None));
    for (peer, status) in [(1, AHEAD), (2, AHEAD)] {
        desk.receive(peer, &Message::Status(status));
    }
    assert_eq!(is_behind(&desk), None, "what they say is proven first, and this is no word that it is in step");
    // One of them did not mean it so, and the third never did.
    desk.receive(3, &Message::Status(LEVEL));
    assert_eq!(is_behind(&desk), None);
    desk.receive(2, &Message::Status(LEVEL));
    assert_eq!(is_behind(&desk), Some(false), "one of three cannot keep it from saying so");
    desk.receive(2, &Message::Status(AHEAD));
    assert_eq!(is_behind(&desk), Some(false), "from then on it is behind by proof alone");
}

/// Peer 1 has pruned what comes next here, and peer 2 gives it, one block each time so long after the one before. How long it takes until a
/// snapshot is sought, in seconds.
fn seeks_after(every: Duration, peers_in_step: u64) -> Option<u64> {
    const ALL: Status = Status { base: height_of(1), tip: height_of(100) };
    let mut made = made(1_000_000);
    let mut desk = Desk::with_evidence(&made, Vec::new());
    (3..100u8).for_each(|n| made.grow(&[format!("k{n}=v").as_bytes()]));
    let mut peers = vec![(1, PRUNED), (2, ALL)];
    peers.extend((3..3 + peers_in_step).map(|peer| (peer, Status { base: height_of(1), tip: height_of(3) })));
    peers.iter().for_each(|(peer, _)| desk.connect(*peer, None));
    let step = Duration::from_millis(500);
    let (mut asked, mut due) = (None, every);
    for half in 0..300 {
        peers.iter().for_each(|(peer, status)| desk.receive(*peer, &Message::Status(*status)));
        while let Some((job, peer, question)) = desk.question() {
            match question {
                Question::Blocks { from, .. } if peer == 2 && from == desk.replica.chain().height.next() => asked = Some((job, from)),
                _ => {}
            }
        }
        if step * half >= due
            && let Some((job, from)) = asked.take()
        {
            let (_, body, commit) = made.block(from.get()).clone();
            desk.reply(job, Some(&Answer::Blocks(vec![(body, commit)])));
            due += every;
        }
        desk.pass(step);
        if seeks(&desk) {
            return Some(u64::from(half) / 2);
        }
    }
    None
}

#[test]
fn who_is_given_one_block_now_and_then_seeks_a_snapshot_all_the_same() {
    let slowly = seeks_after(Duration::from_secs(6), 0).expect("it would never catch up");
    assert!((59..=63).contains(&slowly), "{slowly} s");
    assert_eq!(seeks_after(Duration::from_millis(500), 0), None, "it comes on");
    assert_eq!(seeks_after(Duration::from_secs(6), 3), None, "most are where it is, whatever two say: its chain takes its time");
}

/// Who votes at a height has the block before, and not all blocks.
#[test]
fn a_vote_of_a_height_far_above_brings_no_pruned_block_back() {
    let mut desk = desk(1_000_000);
    desk.connect(1, None);
    desk.receive(1, &Message::Status(PRUNED));
    let vote = lockstep_types::Vote { height: height(105), ..vote() };
    desk.receive(1, &Message::Vote(vote));
    desk.pass(Duration::from_secs(2));
    while let Some((_, _, question)) = desk.question() {
        assert!(!matches!(question, Question::Blocks { from, .. } if from < PRUNED.base), "{question:?}");
    }
}

/// Who gathers holds a version of this node's state, and perhaps a copy of another: it is told when neither is of use any more, and so is who runs
/// the node.
#[test]
fn a_search_that_blocks_overtake_ends() {
    let mut desk = desk(1_000_000);
    desk.connect(1, None);
    wait(&mut desk, &[(1, PRUNED)]);
    let look = desk.out.iter().position(|effect| matches!(effect, Effect::Stage { task: Task::Look, .. }));
    let Some(Effect::Stage { job, .. }) = look.and_then(|place| desk.out.remove(place)) else { panic!("it seeks none") };
    desk.step(Input::Staged { job, found: Found::Looked(None) });
    let ends = |desk: &Desk| desk.out.iter().any(|effect| matches!(effect, Effect::Stage { task: Task::End { .. }, .. }));
    assert!(!ends(&desk), "it has just begun");
    // A peer comes that has all of them, and the one that did not leaves.
    desk.connect(2, None);
    desk.receive(2, &Message::Status(Status { base: height_of(1), tip: height_of(100) }));
    desk.step(Input::PeerDown { peer: lockstep_replica::seam::Peer(1) });
    assert!(ends(&desk));
    let is_told = |effect: &Effect| matches!(effect, Effect::Report { report: Report::StateSync(Told::FallsBack { .. }), .. });
    assert_eq!(desk.out.iter().filter(|effect| is_told(effect)).count(), 1);
    desk.pass(Duration::from_secs(1));
    let asked = std::iter::from_fn(|| desk.question()).any(|(.., question)| matches!(question, Question::Blocks { .. }));
    assert!(asked, "blocks are fetched");
}

/// The first header that is asked for when the peer offers a snapshot.
fn first_header(desk: &mut Desk) -> u64 {
    let peers = [(1, PRUNED)];
    desk.connect(1, None);
    wait(desk, &peers);
    for _ in 0..1_000 {
        let look = desk.out.iter().position(|effect| matches!(effect, Effect::Stage { task: Task::Look, .. }));
        if let Some(Effect::Stage { job, .. }) = look.and_then(|place| desk.out.remove(place)) {
            desk.step(Input::Staged { job, found: Found::Looked(None) });
        }
        match desk.question() {
            Some((_, _, Question::Light { from, .. })) => return from.get(),
            Some((job, _, Question::Snapshots)) => desk.reply(job, Some(&Answer::Snapshots(vec![height(SNAPSHOT)]))),
            Some((job, ..)) => desk.reply(job, Some(&Answer::Unavailable(PRUNED))),
            None => desk.pass(Duration::from_millis(100)),
        }
    }
    panic!("it asks for no header");
}

#[test]
fn the_operators_word_counts_where_a_nodes_own_last_header_proves_nothing_any_more() {
    let policy = |height| Policy { root: Some((height_of(height), Hash([7; 32]))) };
    const HOUR: u64 = 3_600;
    for (window, named, expected) in [
        // Its own last header is trusted: what was named is of no importance.
        (40 * HOUR, Some(NAMED), SNAPSHOT + 1),
        (40 * HOUR, None, SNAPSHOT + 1),
        // Too old: two thirds of the window have passed.
        (30 * HOUR, Some(NAMED), NAMED),
        (30 * HOUR, None, SNAPSHOT + 1),
        // A header that it passed long ago leads nowhere.
        (30 * HOUR, Some(2), SNAPSHOT + 1),
    ] {
        let mut desk = desk(window);
        desk.replica.set_state_sync(named.map(policy).unwrap_or_default());
        assert_eq!(first_header(&mut desk), expected, "a window of {window} s, and {named:?} is named");
    }
}

/// A node that lost its log remembers some of what it had certified: the lowest of it that can be trusted still is below most snapshots.
#[test]
fn what_a_node_certified_before_it_lost_its_log_is_trusted_for_as_long_as_any_header() {
    const HOUR: u64 = 3_600;
    let policy = Policy { root: Some((height_of(NAMED), Hash([7; 32]))) };
    let now = Desk::with_evidence(&made(HOUR), Vec::new()).clocks().wall;
    let root = |height, hours_ago: u64| Root {
        height: height_of(height),
        hash: Hash([9; 32]),
        time: now.saturating_sub(Duration::from_secs(hours_ago * HOUR)),
    };
    // Of a window of 30 hours, 20 are trusted; the last own block is a day old.
    let kept = vec![root(75, 2), root(60, 21), root(70, 19), root(2, 1)];
    for (window, kept, policy, expected) in [
        (30 * HOUR, kept.clone(), Policy::default(), 70),
        (40 * HOUR, kept.clone(), Policy::default(), SNAPSHOT + 1),
        (30 * HOUR, kept, policy, NAMED),
        (30 * HOUR, vec![root(60, 21), root(2, 1)], Policy::default(), SNAPSHOT + 1),
    ] {
        let mut desk = Desk::with_roots(&made(window), kept.clone());
        desk.replica.set_state_sync(policy);
        assert_eq!(first_header(&mut desk), expected, "a window of {window} s, and {kept:?}");
    }
}
