//! Catching up between honest and lying peers: blocks that do not fit an answer, and who is credited for what.

use std::time::Duration;

use lockstep_replica::wire::{Answer, Message, Question, SENT_BYTES_MAX, Status, WHOLE_PARTS_MAX};
use lockstep_types::block::cut;
use lockstep_types::commit::CommitSig;
use lockstep_types::{Commit, ConsensusParams, Height};

use crate::desk::{Desk, Made};
use crate::support::*;

/// Three blocks, the second of about 20 MiB.
fn with_a_large_block() -> Made {
    let mut made = Made::new(ConsensusParams::default());
    made.grow(&[b"a=1"]);
    let txs: Vec<Vec<u8>> = (0..330).map(|n| [format!("large{n}=").as_bytes(), &vec![b'x'; 64_000][..]].concat()).collect();
    made.grow(&txs.iter().map(|tx| &tx[..]).collect::<Vec<_>>());
    made.grow(&[b"b=2"]);
    let (_, body, _) = made.block(2);
    assert!(body.len() > 20 << 20 && body.len() as i64 <= ConsensusParams::default().block.max_bytes);
    made
}

fn tell(desk: &mut Desk, peer: u64, made: &Made) {
    desk.connect(peer, None);
    desk.receive(peer, &Message::Status(Status { base: Height::FIRST, tip: made.chain.height }));
}

/// Answers questions until the chain is there; `answer` may lie, or say nothing. Gives the questions.
fn catch_up(desk: &mut Desk, made: &Made, mut answer: impl FnMut(u64, &Question) -> Option<Answer>) -> Vec<(u64, Question)> {
    let mut questions = Vec::new();
    for _ in 0..2_000 {
        if desk.replica.chain().height == made.chain.height {
            return questions;
        }
        match desk.question() {
            Some((job, peer, question)) => {
                questions.push((peer, question.clone()));
                desk.reply(job, answer(peer, &question).as_ref());
            }
            None => desk.pass(Duration::from_millis(50)),
        }
    }
    panic!("stuck at height {} after {} questions", desk.replica.chain().height, questions.len());
}

#[test]
fn a_block_larger_than_an_answer_is_fetched_in_parts() {
    let made = with_a_large_block();
    let mut desk = Desk::new(&made, None);
    tell(&mut desk, 1, &made);
    tell(&mut desk, 2, &made);
    let questions = catch_up(&mut desk, &made, |_, question| {
        let answer = made.answer(question);
        assert!(answer.encode().len() <= SENT_BYTES_MAX, "the network carries it");
        Some(answer)
    });
    assert_eq!(desk.replica.chain().app_hash, made.chain.app_hash);
    let ranges: Vec<(u64, u32, u32)> = questions
        .iter()
        .filter_map(|(peer, question)| match question {
            Question::Parts { from, count, .. } => Some((*peer, *from, *count)),
            _ => None,
        })
        .collect();
    let total = made.block(2).0.parts.total;
    assert_eq!(ranges.iter().map(|(_, _, count)| count).sum::<u32>(), total, "each part once");
    assert!(ranges.iter().all(|(_, _, count)| *count <= WHOLE_PARTS_MAX));
    assert!([1, 2].iter().all(|peer| ranges.iter().any(|(of, _, _)| of == peer)), "of both");
    assert!(desk.refused(1).is_empty() && desk.refused(2).is_empty());
}

/// One of two peers lies about every range, in each way there is; the other one gives them.
#[test]
fn a_range_is_verified_when_it_comes() {
    let made = with_a_large_block();
    for lie in 0..5 {
        let mut desk = Desk::new(&made, None);
        tell(&mut desk, 1, &made);
        tell(&mut desk, 2, &made);
        let mut lies = 0;
        catch_up(&mut desk, &made, |peer, question| {
            let (1, Answer::Parts(mut parts)) = (peer, made.answer(question)) else { return Some(made.answer(question)) };
            lies += 1;
            match lie {
                0 => parts[3].bytes[0] ^= 1,
                1 => {
                    parts[0] = cut(&made.block(2).1).1.into_iter().find(|part| part.index != 0 && part.index / 64 != parts[0].index / 64)?
                }
                2 => parts[0].index = u32::MAX,
                3 => return None,
                _ => return Some(Answer::Parts(Vec::new())),
            }
            Some(Answer::Parts(parts))
        });
        assert!(lies > 0, "lie {lie} was told");
        assert_eq!(desk.refused(1).is_empty(), lie > 2, "lie {lie}: {:?}", desk.refused(1));
        assert!(desk.refused(2).is_empty(), "lie {lie}");
        assert_eq!(desk.replica.chain().app_hash, made.chain.app_hash);
    }
}

fn spoilt(commit: &Commit) -> Commit {
    let mut commit = commit.clone();
    for slot in &mut commit.signatures {
        if let CommitSig::Commit(slot) = slot {
            slot.signature.0[0] ^= 1;
        }
    }
    commit
}

/// Nothing of a large block is asked for before its certificate was verified.
#[test]
fn a_certificate_that_nobody_signed_moves_nothing() {
    let made = with_a_large_block();
    let mut desk = Desk::new(&made, None);
    tell(&mut desk, 1, &made);
    for _ in 0..200 {
        match desk.question() {
            Some((job, _, question @ Question::Blocks { .. })) => {
                let answer = match made.answer(&question) {
                    Answer::Certificate(commit) => Answer::Certificate(spoilt(&commit)),
                    answer => answer,
                };
                desk.reply(job, Some(&answer));
            }
            Some((_, _, question)) => panic!("{question:?}"),
            None => desk.pass(Duration::from_millis(50)),
        }
    }
    assert_eq!(desk.replica.chain().height, height(1));
    assert!(!desk.refused(1).is_empty());
}

/// The replica holds the certificate of height 1 and lacks its body. What block sync fetches meanwhile is judged by itself: a
/// certificate that nobody signed is its sender's fault, though the body behind it is right.
#[test]
fn a_held_certificate_does_not_answer_for_the_one_that_was_fetched() {
    let made = Made::of(1);
    let (_, body, commit) = made.block(1).clone();
    let mut desk = Desk::new(&made, None);
    desk.connect(1, None);
    desk.receive(1, &Message::Commit(commit.clone()));
    desk.out.clear();
    tell(&mut desk, 2, &made);
    let mut given = false;
    for _ in 0..100 {
        match desk.question() {
            Some((job, 2, Question::Blocks { .. })) => {
                given = true;
                desk.held_checks = Some(Vec::new());
                desk.reply(job, Some(&Answer::Blocks(vec![(body.clone(), spoilt(&commit))])));
            }
            Some((job, ..)) => desk.reply(job, None),
            None if given => break,
            None => desk.pass(Duration::from_millis(50)),
        }
    }
    assert!(given);
    assert_eq!(desk.replica.chain().height, height(1), "the body was right, and the held certificate decides");
    let held = desk.held_checks.take().unwrap();
    assert_eq!(held.len(), 1, "the fetched certificate is verified");
    for (job, checks) in held {
        desk.step(lockstep_replica::Input::Verified { job, verdicts: lockstep_types::crypto::verify_batch(&checks) });
    }
    assert!(desk.refused(2).iter().any(|(_, reason)| reason.contains("a commit")), "{:?}", desk.refused(2));
}

/// Another block than the held certificate's: the lie shows at once, and the block comes from somebody else.
#[test]
fn another_block_than_the_held_certificates_is_its_senders_fault() {
    let made = Made::of(1);
    let (_, body, commit) = made.block(1).clone();
    let mut desk = Desk::new(&made, None);
    desk.connect(1, None);
    desk.receive(1, &Message::Commit(commit.clone()));
    let other = [&body[..], b"and more"].concat();
    let mut forged = commit.clone();
    forged.block_id.parts = cut(&other).0;
    tell(&mut desk, 2, &made);
    let mut lied = false;
    for _ in 0..100 {
        match desk.question() {
            Some((job, 2, Question::Blocks { .. })) => {
                lied = true;
                desk.reply(job, Some(&Answer::Blocks(vec![(other.clone().into(), forged.clone())])));
                break;
            }
            Some((job, ..)) => desk.reply(job, None),
            None => desk.pass(Duration::from_millis(50)),
        }
    }
    assert!(lied);
    assert!(desk.refused(2).iter().any(|(_, reason)| reason.contains("InvalidBlock")), "{:?}", desk.refused(2));
    desk.connect(3, None);
    desk.receive(3, &Message::Status(Status { base: Height::FIRST, tip: made.chain.height }));
    catch_up(&mut desk, &made, |peer, question| (peer == 3).then(|| made.answer(question)));
}
