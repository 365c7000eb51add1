//! A network in which every connection between two nodes goes through a liar, until every lie was told and for at least
//! `LOCKSTEP_PROXY_SECONDS` (default 5).

use std::time::{Duration, Instant};

use lockstep_tests::load::{Load, Via};
use lockstep_tests::net::{Net, VALIDATORS, heal_bound};
use lockstep_tests::program::{free_ports, run, text, wait_until};
use lockstep_tests::proxy::{FAULTS, Proxies};

/// Blocks that are committed while all connections are lied to: a few rounds succeed between two faults.
const BLOCKS_MIN: u64 = 5;

#[test]
fn a_network_commits_on_through_a_liar_on_every_wire_and_heals() {
    let seconds = std::env::var("LOCKSTEP_PROXY_SECONDS").map_or(5, |text| text.parse().expect("LOCKSTEP_PROXY_SECONDS is a number"));
    let lies = Duration::from_secs(seconds);
    let mut net = Net::new();
    let ports = free_ports(VALIDATORS);
    let links: Vec<_> = (0..VALIDATORS).map(|index| (ports[index], net.p2p(index))).collect();
    let proxies = Proxies::start(&links);
    // Whoever is dialled is dialled through the proxy in front of him, under his own name.
    let peers: Vec<String> = (0..VALIDATORS)
        .map(|index| {
            let shown = run(["keys", "show", "--home", text(&net.home(index))]).done();
            let id = shown
                .split(|c: char| !c.is_ascii_hexdigit())
                .find(|word| word.len() == 40 && word.bytes().all(|b| !b.is_ascii_uppercase()));
            format!("{}@127.0.0.1:{}", id.unwrap_or_else(|| panic!("a node id in {shown}")), ports[index])
        })
        .collect();
    let setting = format!("p2p.persistent_peers={}", peers.join(","));
    (0..VALIDATORS).for_each(|index| net.start_with(index, &[&setting]));
    net.wait_all("the first block", |height| height >= 1);

    let endpoints: Vec<_> = (0..VALIDATORS).map(|index| net.rpc(index)).collect();
    let load = Load::start(&endpoints, 16, Some(100.0), Via::Sync, "lied-to");
    let before = net.wait_all("some blocks under load", |height| height >= 10).into_iter().max().expect("four");
    proxies.liar().lie(true);
    let began = Instant::now();
    // What exists was made while all was honest, and has its faults now; every fault is met before the test goes on.
    wait_until("every lie was told, for long enough", || {
        net.assert_alive();
        let all = proxies.liar().met().iter().all(|count| *count > 0);
        (all && began.elapsed() >= lies).then_some(())
    });
    let heights = net.wait_all("any height", |_| true);
    let highest = *heights.iter().max().expect("four");
    let met: Vec<String> = FAULTS.iter().zip(proxies.liar().met()).map(|(fault, count)| format!("{fault:?} {count}")).collect();
    println!("measured: {} s of lies on every wire ({}): heights {before} to {heights:?}", began.elapsed().as_secs(), met.join(", "));
    assert!(highest >= before + BLOCKS_MIN, "the chain goes on: {before} to {highest}");

    let round = net.clients().iter_mut().map(|client| client.metric("lockstep_consensus_round").expect("a round")).max();
    let bound = heal_bound(&net.home(0), round.expect("four"));
    proxies.liar().lie(false);
    let healed = Instant::now();
    let heights = net.wait_all("a block after the last lie", |height| height > highest + 1);
    let first = healed.elapsed();
    println!(
        "measured: healed, the first commit on all came after {:.2} s, of a bound of {:.2} s",
        first.as_secs_f64(),
        bound.as_secs_f64()
    );
    assert!(first <= bound, "{first:?} is beyond the bound of {bound:?}");
    let report = load.stop();
    println!("measured: the load: {} taken, not taken: {:?}", report.acknowledged.len(), report.failed);
    net.commit_tx(2, "after=lies");
    net.assert_alive();
    net.assert_same(1..=*heights.iter().min().expect("four"));
}
