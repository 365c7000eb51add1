//! Networks that are asked to stop, and started again.

use lockstep_tests::load::{Load, Via};
use lockstep_tests::net::{Net, VALIDATORS};
use lockstep_tests::program::{run, wait_until};
use serde_json::json;

#[test]
fn all_stop_cleanly_under_load_and_go_on_where_they_were() {
    let mut net = Net::started();
    let endpoints: Vec<_> = (0..VALIDATORS).map(|index| net.rpc(index)).collect();
    let load = Load::start(&endpoints, 8, Some(100.0), Via::Commit, "stop");
    net.wait_all("some blocks", |height| height >= 10);
    let before = net.wait_all("any block", |_| true).into_iter().min().expect("four nodes");
    let hashes: Vec<_> = (1..=before).map(|height| net.client(0).hashes(height).expect("a block")).collect();

    let ends = net.stop_all();
    let report = load.stop();
    assert!(ends.iter().all(|(code, _)| *code == Some(0)), "exit codes and seconds: {ends:?}");
    let slowest = ends.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
    println!("measured: SIGTERM of four validators under 100 tx/s: the last ended with code 0 after {slowest:.2} s");

    net.start_all();
    let heights = net.wait_all("what it had", |height| height >= before);
    net.assert_same(1..=before);
    for index in 0..VALIDATORS {
        let log = net.process(index).log();
        let read = log.lines().rfind(|line| line.contains("the data folder is read")).expect("it says so");
        let flushed = read.split(" flushed=").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|height| height.parse::<u64>().ok());
        assert!(flushed >= Some(before), "what was executed need not be executed again: {read}");
    }
    let again: Vec<_> = (1..=before).map(|height| net.client(0).hashes(height).expect("a block")).collect();
    assert_eq!(hashes, again, "the chain is what it was");
    let (_, height) = net.commit_tx(1, "after=stop");
    assert!(height > before, "{height} follows {before}");
    net.wait_all("the block after", |at| at >= height);
    net.assert_same([height]);
    let mut clients = net.clients();
    for tx in &report.acknowledged {
        let places: Vec<_> = clients.iter_mut().map(|client| client.place(&tx.hash).expect("acknowledged is there")).collect();
        assert!(places.iter().all(|place| *place == places[0] && place.height == tx.height), "{tx:?} is at {places:?}");
    }
    println!(
        "measured: started again at heights {heights:?} after {before}; {} acknowledged transactions are all there",
        report.acknowledged.len()
    );
}

/// It may be alone because nobody is there, or because it knows nobody: what the chain did meanwhile it cannot know in either case.
#[test]
fn a_node_that_knows_nobody_is_in_step_when_others_found_it() {
    let mut net = Net::new();
    net.start_with(0, &["p2p.persistent_peers="]);
    let catches_up = |net: &Net| net.client(0).call("status", json!({})).ok()?["sync_info"]["catching_up"].as_bool();
    assert!(wait_until("it serves", || catches_up(&net)), "it has heard nothing");
    let told = run(["status", "--node", &format!("http://{}", net.rpc(0))]).done();
    assert!(told.contains("in step     no: it has no peers so far"), "{told}");
    for index in 1..VALIDATORS {
        net.start(index);
    }
    wait_until("it is in step", || catches_up(&net).filter(|behind| !behind));
    net.commit_tx(0, "found=it");
}
