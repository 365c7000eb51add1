//! SIGSTOP: machines that stand still for a while, and then go on as if nothing had been.

use std::time::{Duration, Instant};

use lockstep_tests::load::{Load, Via};
use lockstep_tests::net::{Net, VALIDATORS};
use lockstep_tests::program::{LOOK, wait_for_count, wait_until};
use rustix::process::Signal;

/// The validator that stands still.
const VICTIM: usize = 2;
/// How far the others go on meanwhile.
const GAP: u64 = 300;

#[test]
fn one_that_stood_still_catches_up_without_a_restart_and_votes_again() {
    let mut net = Net::started();
    let others: Vec<_> = (0..VALIDATORS).filter(|index| *index != VICTIM).map(|index| net.rpc(index)).collect();
    let load = Load::start(&others, 8, Some(100.0), Via::Commit, "frozen");
    let mut client = net.client(0);
    net.wait_all("some blocks", |height| height >= 10);

    net.process(VICTIM).signal(Signal::STOP);
    let stopped_at = client.height().expect("it serves");
    wait_for_count("the others are far ahead", stopped_at + GAP, || client.height().expect("it serves"));
    net.process(VICTIM).signal(Signal::CONT);

    let thawed = Instant::now();
    let mut back = net.client(VICTIM);
    let caught_up = wait_until("it has caught up", || {
        let own = back.height().ok()?;
        (own + 1 >= client.height().expect("it serves")).then_some(own)
    });
    println!("measured: one of four frozen for {GAP} blocks caught up {:.2} s after it was thawed", thawed.elapsed().as_secs_f64());
    let address = net.address(VICTIM);
    let mut at = caught_up;
    wait_until("it votes again", || {
        let newest = client.height().expect("it serves");
        let signed = (at..newest).any(|height| client.signers(height).expect("a commit").contains(&address));
        at = newest.max(at);
        signed.then_some(())
    });
    let report = load.stop();
    assert!(report.failed.is_empty(), "the others take every transaction: {:?}", report.failed);
    net.assert_alive();
    let tip = net.wait_all("what the others have", |height| height >= caught_up).into_iter().min().expect("four nodes");
    net.assert_same(1..=tip);
}

#[test]
fn while_half_stand_still_nothing_commits_and_then_all_go_on() {
    /// How long is looked at a chain that must not move.
    const WATCH: Duration = Duration::from_secs(3);
    let mut net = Net::started();
    net.commit_tx(0, "before=freeze");
    for index in [2, 3] {
        net.process(index).signal(Signal::STOP);
    }
    // What their last messages allow is decided before the others stop.
    let mut client = net.client(0);
    let frozen = Instant::now();
    let mut heights = Vec::new();
    while frozen.elapsed() < WATCH {
        heights.push(client.height().expect("it serves"));
        std::thread::sleep(LOOK);
    }
    let (first, last) = (heights[0], heights[heights.len() - 1]);
    assert!(last <= first + 1, "two of four decided {} blocks alone", last - first);

    for index in [2, 3] {
        net.process(index).signal(Signal::CONT);
    }
    let thawed = Instant::now();
    let (_, height) = net.commit_tx(3, "after=freeze");
    println!("measured: two of four frozen for {WATCH:?}: a commit {:.2} s after they were thawed", thawed.elapsed().as_secs_f64());
    net.wait_all("the block after", |at| at >= height);
    net.assert_alive();
    net.assert_same(1..=height);
}
