//! State sync from outside: the phases as stories, with a checker that shares nothing with the crate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lockstep_sync::state::{
    Backfill, CHOOSE_MS, Check, Checked, ChunkWanted, Clock, Needs, OFFERS_MS, PATIENCE_MS, Question, RETRY_MS_MAX, Root, StateAnswer,
    StateEffect, StateInput, StateOptions, StateSync, Told,
};
use lockstep_types::block::cut;
use lockstep_types::commit::{Commit, CommitSig};
use lockstep_types::crypto::verify;
use lockstep_types::light::{LightBlock, Trusted};
use lockstep_types::{Hash, Height, Time};

use crate::h;
use crate::light::{TIP, at, body, chain, forged, now, options, set, time};

/// A machine, the moment, and what it asked for and told.
struct Story {
    sync: StateSync,
    blocks: Vec<LightBlock>,
    now_ms: u64,
    wall: Time,
    told: Vec<Told>,
    blamed: Vec<u64>,
    installed: Option<Height>,
    /// Blocks above the snapshot that were kept.
    above: BTreeSet<Height>,
    /// Questions for chunks that wait, while they do.
    held: Option<Vec<(u64, u64, Question)>>,
    /// Chunks of every manifest: those that are here.
    here: Vec<bool>,
    /// Peers, with the lowest block of each and what they answer.
    peers: BTreeMap<u64, (u64, Answers)>,
    /// How often signatures were to be verified, and which of these times the verdict never comes.
    verified: usize,
    unanswered: Option<usize>,
}

type Answers = fn(&[LightBlock], &Question) -> StateAnswer;

/// Offers heights 10 and 20, and has everything.
fn honest(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Offers => StateAnswer::Offers(vec![h(10), h(20)]),
        Question::Light { from, .. } if from.get() >= TIP => StateAnswer::Nothing,
        Question::Light { from, count } => {
            let lowest = from.get().saturating_sub(u64::from(*count) - 1).max(1);
            StateAnswer::Light((lowest..=from.get()).rev().map(|height| at(blocks, h(height))).collect())
        }
        Question::Manifest { height } => StateAnswer::Manifest(height.get().to_le_bytes().as_slice().into()),
        Question::Chunk { root, .. } => StateAnswer::Chunk(root.0.as_slice().into()),
        Question::Parts { height, .. } => StateAnswer::Parts(cut(&body(height.get())).1),
    }
}

/// Has blocks, and no snapshots.
fn plain(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Offers => StateAnswer::Offers(Vec::new()),
        Question::Manifest { .. } | Question::Chunk { .. } => StateAnswer::Nothing,
        question => honest(blocks, question),
    }
}

/// Blocks above the snapshot under a header that too few signed.
fn unsigned_above(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    let mut answer = honest(blocks, question);
    if let (Question::Light { count: 2.., .. }, StateAnswer::Light(run)) = (question, &mut answer) {
        for block in run.iter_mut().filter(|block| block.header.height == h(25)) {
            let CommitSig::Commit(slot) = &mut block.commit.signatures[0] else { panic!("all signed") };
            slot.signature.0[0] ^= 1;
        }
    }
    answer
}

/// The body of another block than the one asked for, above the snapshot.
fn wrong_above(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Parts { height, .. } if height.get() > 20 => StateAnswer::Parts(cut(&body(1)).1),
        question => honest(blocks, question),
    }
}

/// Headers above the snapshot with a hole.
fn hole_above(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    let mut answer = honest(blocks, question);
    if let (Question::Light { from, count: 3.. }, StateAnswer::Light(run)) = (question, &mut answer)
        && from.get() > 20
    {
        run.remove(1);
    }
    answer
}

/// No block above the snapshot's header.
fn nothing_above(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Light { from, count: 2.. } if from.get() > 21 => StateAnswer::Nothing,
        Question::Parts { height, .. } if height.get() > 20 => StateAnswer::Nothing,
        question => honest(blocks, question),
    }
}

/// Three headers at most in an answer.
fn few_at_once(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    let mut answer = honest(blocks, question);
    if let StateAnswer::Light(run) = &mut answer {
        run.truncate(3);
    }
    answer
}

/// Chunks with a byte changed.
fn wrong_chunk(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match honest(blocks, question) {
        StateAnswer::Chunk(bytes) => StateAnswer::Chunk(bytes.iter().map(|byte| byte ^ 1).collect()),
        answer => answer,
    }
}

/// Offers a height that has no header above it.
fn inventor(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Offers => StateAnswer::Offers(vec![h(TIP * 2)]),
        question => plain(blocks, question),
    }
}

fn chunk_root(index: usize) -> Hash {
    Hash::of(index.to_le_bytes())
}

impl Story {
    fn new(root: Root, peers: &[(u64, u64, Answers)]) -> Self {
        let options = StateOptions {
            root,
            light: options(),
            tip: Height::ZERO,
            initial: h(1),
            backfill: Backfill { blocks: 8, age: Duration::ZERO, heights: 0 },
        };
        let sync = StateSync::new(options, None, Clock { mono_ms: 0, wall: now() });
        let peers: BTreeMap<u64, (u64, Answers)> = peers.iter().map(|(peer, base, answers)| (*peer, (*base, *answers))).collect();
        let mut story = Self {
            sync,
            blocks: chain(),
            now_ms: 0,
            wall: now(),
            told: Vec::new(),
            blamed: Vec::new(),
            installed: None,
            above: BTreeSet::new(),
            held: None,
            here: vec![true, false, false, false, false],
            peers,
            verified: 0,
            unanswered: None,
        };
        for (peer, (base, _)) in story.peers.clone() {
            story.input(StateInput::PeerStatus { peer, base: h(base), tip: h(TIP) });
        }
        story
    }

    fn input(&mut self, input: StateInput) {
        let effects = self.sync.on(Clock { mono_ms: self.now_ms, wall: self.wall }, input);
        for effect in effects {
            match effect {
                StateEffect::Ask { peer, id, question } => {
                    if let (Question::Chunk { .. }, Some(held)) = (&question, &mut self.held) {
                        held.push((peer, id, question));
                        continue;
                    }
                    let answer = (self.peers[&peer].1)(&self.blocks, &question);
                    // What is lost is noticed by its deadline alone.
                    if answer != StateAnswer::Lost {
                        self.input(StateInput::Response { peer, id, answer });
                    }
                }
                StateEffect::Verify { ticket, checks } => {
                    self.verified += 1;
                    if self.unanswered == Some(self.verified) {
                        continue;
                    }
                    let verdicts = checks.iter().map(|check| verify(&check.public_key, &check.message, &check.signature)).collect();
                    self.input(StateInput::Verified { ticket, verdicts });
                }
                StateEffect::Check { ticket, check } => {
                    let found = self.judge(check);
                    self.input(StateInput::Checked { ticket, found });
                }
                StateEffect::Blame { peer, .. } => self.blamed.push(peer),
                StateEffect::Tell(told) => self.told.push(told),
                StateEffect::Install { height } => self.installed = Some(height),
            }
        }
    }

    fn judge(&mut self, check: Check) -> Checked {
        match check {
            Check::Manifest { above, at, .. } => {
                assert_eq!((above.header.height, at.header.height), (h(21), h(20)), "the newest that is proven");
                assert_eq!(above.header, self.blocks[20].header);
                let wanted = |(index, have): (usize, &bool)| ChunkWanted { root: chunk_root(index), have: *have, known: Arc::from([]) };
                Checked::Manifest(self.here.iter().enumerate().map(wanted).collect())
            }
            Check::Chunk { index, bytes, .. } if bytes[..] == chunk_root(index as usize).0 => {
                self.here[index as usize] = true;
                Checked::Good
            }
            Check::Chunk { .. } => Checked::Bad("another".to_owned()),
            Check::Body(bytes) => {
                assert_eq!(bytes[..], body(20));
                Checked::Good
            }
            Check::Block { block, body: None } => {
                assert_eq!(*block, at(&self.blocks, block.header.height));
                if self.above.contains(&block.header.height) { Checked::Good } else { Checked::Unfit }
            }
            Check::Block { block, body: Some(bytes) } => {
                let height = block.header.height;
                assert_eq!(bytes[..], body(height.get()));
                assert!(self.above.insert(height), "once");
                Checked::Good
            }
            Check::Headers(below) => {
                for block in below {
                    assert_eq!(block, at(&self.blocks, block.header.height));
                }
                Checked::Good
            }
            Check::Complete => {
                assert!(self.here.iter().all(|have| *have), "complete before everything is here");
                Checked::Good
            }
        }
    }

    /// The chunks that waited come.
    fn release(&mut self) {
        for (peer, id, question) in self.held.take().expect("they wait") {
            let answer = (self.peers[&peer].1)(&self.blocks, &question);
            self.input(StateInput::Response { peer, id, answer });
        }
    }

    /// Time passes, tick by tick as the machine asks for it.
    fn pass(&mut self, until_ms: u64) {
        while let Some(next) = self.sync.wakeup_ms().filter(|next| *next <= until_ms) {
            self.now_ms = next.max(self.now_ms);
            self.input(StateInput::Tick);
            if self.sync.is_over() {
                return;
            }
        }
        self.now_ms = until_ms;
    }
}

fn named(height: u64) -> Root {
    Root::Named { height: h(height), hash: chain()[usize::try_from(height).expect("few") - 1].header.hash() }
}

fn genesis() -> Root {
    let first = &chain()[0];
    Root::Own(Trusted {
        chain_id: first.header.chain_id.clone(),
        height: Height::ZERO,
        time: time(0),
        next_validators: first.validators.clone(),
    })
}

#[test]
fn a_new_node_gathers_the_newest_snapshot_from_every_kind_of_root() {
    for root in [genesis(), named(2), named(20), named(21), named(35)] {
        let mut story = Story::new(root.clone(), &[(1, 1, honest), (2, 1, honest)]);
        story.pass(CHOOSE_MS);
        assert_eq!(story.installed, Some(h(20)), "{root:?}: {:?}", story.told);
        assert!(story.blamed.is_empty());
    }
}

#[test]
fn a_wrong_chunk_costs_its_sender_and_nothing_else() {
    let mut story = Story::new(genesis(), &[(1, 1, wrong_chunk), (2, 1, honest)]);
    story.pass(60_000);
    assert_eq!((story.installed, &story.blamed[..]), (Some(h(20)), &[1][..]));
}

#[test]
fn a_height_that_nobody_proves_is_given_up_for_one_that_somebody_does() {
    let mut story = Story::new(genesis(), &[(1, 1, inventor), (2, 1, honest)]);
    story.pass(120_000);
    assert_eq!(story.installed, Some(h(20)), "{:?}", story.told);
    assert!(story.told.iter().any(|told| matches!(told, Told::GivenUp { height, .. } if *height == h(TIP * 2))));
}

#[test]
fn where_nobody_offers_anything_it_falls_back_or_says_what_it_waits_for() {
    let mut story = Story::new(genesis(), &[(1, 1, plain)]);
    story.pass(PATIENCE_MS + 1);
    assert!(matches!(story.told[..], [Told::FallsBack { .. }]) && story.sync.is_over(), "{:?}", story.told);
    // The blocks that come next are pruned there.
    let mut story = Story::new(genesis(), &[(1, 30, plain)]);
    story.pass(10 * PATIENCE_MS);
    let [Told::Waits { needs: Needs::Peer, reason }] = &story.told[..] else { panic!("{:?}", story.told) };
    assert!(reason.contains("pruned, earliest is 30") && !story.sync.is_over(), "{reason}");
    // Somebody comes who has one.
    story.peers.insert(2, (1, honest));
    story.input(StateInput::PeerStatus { peer: 2, base: h(15), tip: h(TIP) });
    story.pass(11 * PATIENCE_MS);
    assert_eq!(story.installed, Some(h(20)));
}

/// Whole, and of a chain that nobody knows.
fn of_another_chain(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Light { from, .. } => StateAnswer::Light(vec![forged(from.get())]),
        question => honest(blocks, question),
    }
}

/// A header with the validators of another.
fn of_no_chain(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Light { from, .. } => StateAnswer::Light(vec![LightBlock { validators: set(1), ..forged(from.get()) }]),
        question => honest(blocks, question),
    }
}

/// Never answers for a header.
fn silent(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Light { .. } => StateAnswer::Lost,
        question => honest(blocks, question),
    }
}

#[test]
fn a_trusted_hash_that_no_peer_has_is_the_operators_matter_and_nobodys_lie() {
    for beside in [honest as Answers, silent, forgetful] {
        let wrong = Root::Named { height: h(30), hash: Hash::of(b"another chain") };
        let mut story = Story::new(wrong, &[(1, 1, honest), (2, 1, honest), (3, 1, beside)]);
        story.pass(600_000);
        assert_eq!((story.installed, &story.blamed[..]), (None, &[][..]));
        let waits: Vec<&Told> = story.told.iter().filter(|told| matches!(told, Told::Waits { .. })).collect();
        let [Told::Waits { needs: Needs::Hash, reason }] = waits[..] else { panic!("{waits:?}") };
        let theirs = chain()[29].header.hash().to_string();
        assert!(reason.contains("height 30") && reason.contains(&theirs) && reason.contains("compare"), "{reason}");
        assert!(!story.sync.is_over());
        let tries = story.told.iter().filter(|told| matches!(told, Told::Chosen { .. })).count();
        assert!((10..40).contains(&tries), "it goes on asking, less and less often: {tries}");
    }
}

#[test]
fn who_shows_another_header_than_the_trusted_one_keeps_nobody_from_it() {
    let liars: Vec<(u64, u64, Answers)> = (1..=50).map(|peer| (peer, 1, of_another_chain as Answers)).collect();
    let mut story = Story::new(named(30), &[&liars[..], &[(51, 1, honest)]].concat());
    story.pass(60_000);
    assert_eq!(story.installed, Some(h(20)), "{:?}", story.told);
    // Alone they can say that what the operator named is wrong. With the first honest peer it goes on.
    let mut story = Story::new(named(30), &liars);
    story.pass(300_000);
    assert!(story.told.iter().any(|told| matches!(told, Told::Waits { needs: Needs::Hash, .. })), "{:?}", story.told);
    story.peers.insert(51, (1, honest));
    story.input(StateInput::PeerStatus { peer: 51, base: h(1), tip: h(TIP) });
    story.pass(300_000 + 2 * RETRY_MS_MAX);
    assert_eq!(story.installed, Some(h(20)), "{:?}", story.told);
}

/// Changes the commits of headers that are asked for from these heights.
fn with_commits(
    blocks: &[LightBlock],
    question: &Question,
    from: std::ops::RangeInclusive<u64>,
    change: impl Fn(&mut Commit),
) -> StateAnswer {
    let mut answer = honest(blocks, question);
    if let (Question::Light { from: asked, .. }, StateAnswer::Light(run)) = (question, &mut answer)
        && from.contains(&asked.get())
    {
        run.iter_mut().for_each(|block| change(&mut block.commit));
    }
    answer
}

fn another_round(commit: &mut Commit) {
    commit.round = commit.round.next();
}

/// One slot holds what nobody signed; the others are enough.
fn one_made_up(commit: &mut Commit) {
    let Some(CommitSig::Commit(slot)) = commit.signatures.last_mut() else { panic!("all signed") };
    slot.signature.0[0] ^= 1;
}

/// No hash covers what these change, or none that is known when they come: it would be kept, and given to others, who cannot verify it.
#[test]
fn a_commit_that_nobody_can_verify_is_not_kept() {
    let liars: [(Root, Answers); 5] = [
        // The snapshot's own header, and those of the window below.
        (named(21), |blocks, question| with_commits(blocks, question, 20..=20, another_round)),
        (named(21), |blocks, question| with_commits(blocks, question, 1..=19, another_round)),
        // The header above it: named, or reached by a climb.
        (named(21), |blocks, question| with_commits(blocks, question, 21..=21, another_round)),
        (named(21), |blocks, question| with_commits(blocks, question, 21..=21, one_made_up)),
        (genesis(), |blocks, question| with_commits(blocks, question, 21..=21, one_made_up)),
    ];
    for (number, (root, liar)) in liars.into_iter().enumerate() {
        let mut story = Story::new(root, &[(1, 1, liar)]);
        story.pass(5_000);
        assert_eq!((story.installed, &story.blamed[..]), (None, &[1][..]), "liar {number}: {:?}", story.told);
        story.peers.insert(2, (1, honest));
        story.input(StateInput::PeerStatus { peer: 2, base: h(1), tip: h(TIP) });
        story.pass(60_000);
        assert_eq!((story.installed, &story.blamed[..]), (Some(h(20)), &[1][..]), "liar {number}: {:?}", story.told);
    }
}

/// Somebody whose log lost the block above knows what it decided by, which is enough, and not what that block carries.
#[test]
fn who_has_another_commit_than_the_block_above_carries_lacks_it_and_is_no_liar() {
    let own: [Answers; 2] = [
        |blocks, question| with_top(blocks, question, 20),
        // In the window below the snapshot, too.
        |blocks, question| with_top(blocks, question, 19),
    ];
    for (number, own) in own.into_iter().enumerate() {
        let mut story = Story::new(named(21), &[(1, 1, own)]);
        story.pass(5_000);
        assert_eq!((story.installed, &story.blamed[..]), (None, &[][..]), "{number}: {:?}", story.told);
        story.peers.insert(2, (1, |blocks, question| with_top(blocks, question, 0)));
        story.input(StateInput::PeerStatus { peer: 2, base: h(1), tip: h(TIP) });
        story.pass(60_000);
        assert_eq!((story.installed, &story.blamed[..]), (Some(h(20)), &[][..]), "{number}: {:?}", story.told);
    }
    // Below another header of the same answer it is known what that one carries.
    let liar: Answers = |blocks, question| {
        let mut answer = honest(blocks, question);
        if let (Question::Light { from, .. }, StateAnswer::Light(run)) = (question, &mut answer)
            && from.get() < 20
        {
            run.iter_mut().skip(1).for_each(|block| block.commit.signatures[0] = CommitSig::Absent);
        }
        answer
    };
    let mut story = Story::new(named(21), &[(1, 1, liar), (2, 1, honest)]);
    story.pass(60_000);
    assert_eq!((story.installed, &story.blamed[..]), (Some(h(20)), &[1][..]), "{:?}", story.told);
}

/// Offers one height; of headers from this height on downwards the first has one signature less in its commit, which is as good.
fn with_top(blocks: &[LightBlock], question: &Question, top: u64) -> StateAnswer {
    let mut answer = match question {
        Question::Offers => StateAnswer::Offers(vec![h(20)]),
        question => honest(blocks, question),
    };
    if let (Question::Light { from, .. }, StateAnswer::Light(run)) = (question, &mut answer)
        && from.get() == top
    {
        run[0].commit.signatures[0] = CommitSig::Absent;
    }
    answer
}

/// What a height was given up with is forgotten with it, whatever was being judged then.
#[test]
fn a_height_that_was_given_up_in_the_middle_of_a_judgement_is_synced_to_the_next_time() {
    for root in [named(21), genesis()] {
        let whole = {
            let mut story = Story::new(root.clone(), &[(1, 1, honest)]);
            story.pass(60_000);
            story.verified
        };
        assert!(whole >= 4, "{whole}");
        for unanswered in 1..=whole {
            let mut story = Story::new(root.clone(), &[(1, 1, honest)]);
            story.unanswered = Some(unanswered);
            story.pass(120_000);
            assert_eq!((story.installed, &story.blamed[..]), (Some(h(20)), &[][..]), "verdict {unanswered}: {:?}", story.told);
        }
    }
}

#[test]
fn a_trusted_header_that_comes_with_something_else_is_a_lie() {
    let mut story = Story::new(named(30), &[(1, 1, of_no_chain), (2, 1, honest)]);
    story.pass(60_000);
    assert_eq!((story.installed, &story.blamed[..]), (Some(h(20)), &[1][..]));
}

#[test]
fn trust_that_is_too_old_is_the_operators_matter() {
    let Root::Own(trusted) = genesis() else { unreachable!("just made") };
    let old = Root::Own(Trusted { time: Time::new(-7_200, 0).expect("a time"), ..trusted });
    let mut story = Story::new(old, &[(1, 1, honest)]);
    story.pass(60_000);
    assert!(story.blamed.is_empty() && story.installed.is_none());
    let fails = |told: &Told| matches!(told, Told::Fails { reason } if reason.contains("--trust-height") && reason.contains("--bundle"));
    assert!(story.told.iter().any(fails) && story.sync.is_over(), "{:?}", story.told);
}

#[test]
fn a_clock_that_is_behind_makes_nobody_a_liar() {
    let mut story = Story::new(genesis(), &[(1, 1, honest), (2, 1, honest)]);
    story.wall = time(3);
    story.pass(2 * CHOOSE_MS);
    assert!(story.blamed.is_empty() && story.installed.is_none(), "{:?}", story.blamed);
    let says_why = |told: &Told| matches!(told, Told::GivenUp { reason, .. } if reason.contains("look at the clock"));
    assert!(story.told.iter().any(says_why), "{:?}", story.told);
    // The clock is set right.
    story.wall = now();
    story.pass(60_000);
    assert_eq!(story.installed, Some(h(20)), "{:?}", story.told);
}

/// Has snapshots, and no header below height 15 any more.
fn forgetful(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Light { from, .. } if from.get() < 15 => StateAnswer::Nothing,
        question => honest(blocks, question),
    }
}

#[test]
fn who_named_a_header_that_all_have_forgotten_is_told() {
    let mut story = Story::new(named(2), &[(1, 15, forgetful), (2, 16, forgetful)]);
    story.pass(60_000);
    let waits = |told: &&Told| matches!(told, Told::Waits { needs: Needs::Root, reason } if reason.contains("pruned, earliest is 15") && reason.contains("newer"));
    assert_eq!(story.told.iter().filter(waits).count(), 1, "{:?}", story.told);
    assert!(story.installed.is_none() && story.blamed.is_empty() && !story.sync.is_over());
    // One who is behind itself has no say in it.
    let mut beside = Story::new(named(30), &[(1, 35, honest), (2, 1, plain)]);
    beside.peers.insert(
        1,
        (35, |blocks, question| match question {
            Question::Light { from, .. } if from.get() < 35 => StateAnswer::Nothing,
            question => honest(blocks, question),
        }),
    );
    beside.input(StateInput::PeerStatus { peer: 2, base: h(1), tip: h(9) });
    beside.pass(60_000);
    let waits = |told: &&Told| matches!(told, Told::Waits { needs: Needs::Root, reason } if reason.contains("pruned, earliest is 35"));
    assert_eq!(beside.told.iter().filter(waits).count(), 1, "{:?}", beside.told);
    // Somebody comes who remembers it.
    story.peers.insert(3, (1, honest));
    story.input(StateInput::PeerStatus { peer: 3, base: h(1), tip: h(TIP) });
    story.pass(120_000);
    assert_eq!(story.installed, Some(h(20)), "{:?}", story.told);
}

/// Has one snapshot.
fn newest_alone(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Offers => StateAnswer::Offers(vec![h(20)]),
        question => honest(blocks, question),
    }
}

/// Has the snapshot, and never a chunk of it.
fn empty_handed(blocks: &[LightBlock], question: &Question) -> StateAnswer {
    match question {
        Question::Chunk { .. } => StateAnswer::Nothing,
        question => newest_alone(blocks, question),
    }
}

/// What comes to nothing again and again is tried less and less often, and never given up: whoever has the rest may connect.
#[test]
fn what_comes_to_nothing_is_tried_less_and_less_often() {
    let mut story = Story::new(genesis(), &[(1, 1, empty_handed)]);
    let (mut tried, mut at) = (Vec::new(), 0);
    while tried.len() < 14 {
        at += 100;
        story.pass(at);
        tried.extend(story.told.drain(..).filter(|told| matches!(told, Told::Chosen { .. })).map(|_| at));
        assert!(at < 3_600_000, "it gives up: {tried:?}");
    }
    let waits: Vec<u64> = tried.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[..2].iter().all(|wait| *wait <= 1_000), "at once at first, since a peer may have lost it by chance: {waits:?}");
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits[waits.len() - 3..].iter().all(|wait| (RETRY_MS_MAX..RETRY_MS_MAX + OFFERS_MS).contains(wait)), "{waits:?}");
    // Somebody comes who has it.
    story.peers.insert(2, (1, newest_alone));
    story.input(StateInput::PeerStatus { peer: 2, base: h(1), tip: h(TIP) });
    story.pass(at + 2 * RETRY_MS_MAX);
    assert_eq!(story.installed, Some(h(20)), "{:?}", story.told);
}

#[test]
fn a_header_above_everything_that_peers_have_is_waited_for_and_said_once() {
    let above = Root::Named { height: h(TIP + 3), hash: Hash::of(b"not there yet") };
    let mut story = Story::new(above, &[(1, 1, honest)]);
    story.pass(600_000);
    let said = format!("of height {}, and the peers' chain ends at {TIP}", TIP + 3);
    let [Told::Waits { needs: Needs::Height, reason }] = &story.told[..] else { panic!("{:?}", story.told) };
    assert!(reason.contains(&said) && story.blamed.is_empty() && !story.sync.is_over(), "{reason}");
    // A peer says that it has it: now it is asked for.
    story.input(StateInput::PeerStatus { peer: 1, base: h(1), tip: h(TIP + 3) });
    story.pass(610_000);
    assert!(matches!(story.told[1], Told::Chosen { .. }), "{:?}", story.told);
}

/// A story in which chunks take long: what was kept above the snapshot by then, and then they come.
fn with_slow_chunks(peers: &[(u64, u64, Answers)]) -> Story {
    let mut story = Story::new(genesis(), peers);
    story.held = Some(Vec::new());
    story.pass(CHOOSE_MS);
    assert_eq!(story.installed, None, "chunks are missing");
    story
}

fn heights(range: std::ops::RangeInclusive<u64>) -> BTreeSet<Height> {
    range.map(h).collect()
}

#[test]
fn blocks_above_the_snapshot_are_collected_while_its_chunks_come() {
    for answers in [honest as Answers, few_at_once] {
        let mut story = with_slow_chunks(&[(1, 1, answers), (2, 1, answers)]);
        // The certificate of the last block is in no block yet.
        assert_eq!(story.above, heights(21..=TIP - 1));
        story.release();
        assert!(story.told.iter().any(|told| matches!(told, Told::Progress { blocks: 19, .. })), "{:?}", story.told);
        assert_eq!(story.installed, Some(h(20)));
        assert!(story.blamed.is_empty());
    }
}

#[test]
fn who_lies_about_blocks_above_is_left_and_others_give_them() {
    for liar in [unsigned_above as Answers, wrong_above, hole_above] {
        let mut story = with_slow_chunks(&[(1, 1, liar)]);
        assert_eq!(story.blamed, [1]);
        assert!(story.above.is_empty(), "nobody else is there to give a body");
        story.peers.insert(2, (1, honest));
        story.input(StateInput::PeerStatus { peer: 2, base: h(1), tip: h(TIP) });
        story.pass(30_000);
        assert_eq!(story.above, heights(21..=TIP - 1));
        story.release();
        story.pass(60_000);
        assert_eq!((story.installed, &story.blamed[..]), (Some(h(20)), &[1][..]), "{:?}", story.told);
    }
}

#[test]
fn what_nobody_gives_above_the_snapshot_keeps_nobody_from_it() {
    let mut story = with_slow_chunks(&[(1, 1, nothing_above), (2, 1, nothing_above)]);
    assert!(story.above.is_empty());
    story.release();
    assert_eq!(story.installed, Some(h(20)), "{:?}", story.told);
}

#[test]
fn blocks_that_the_disk_has_are_not_fetched_again() {
    let mut story = Story::new(genesis(), &[(1, 1, honest), (2, 1, wrong_above)]);
    story.held = Some(Vec::new());
    story.above = heights(21..=TIP - 1);
    story.pass(CHOOSE_MS);
    story.release();
    assert_eq!(story.installed, Some(h(20)));
    assert!(story.blamed.is_empty(), "nobody was asked for a body");
}
