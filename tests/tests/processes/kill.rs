//! `kill -9`: of one validator, and of all at once.

use std::time::{Duration, Instant};

use lockstep_tests::load::{Acknowledged, Load, Via};
use lockstep_tests::net::{Net, VALIDATORS};
use lockstep_tests::program::{wait_for_count, wait_until};
use lockstep_tests::rpc::{Client, number};
use serde_json::json;

/// The validator that dies.
const VICTIM: usize = 3;
/// How far the others go on without it.
const GAP: u64 = 500;

/// The longest time between two blocks as somebody outside sees it: between two answers with different heights.
struct Pause {
    height: u64,
    since: Instant,
    longest: Duration,
}

impl Pause {
    fn new(height: u64) -> Self {
        Self { height, since: Instant::now(), longest: Duration::ZERO }
    }

    fn see(&mut self, height: u64) {
        if height > self.height {
            self.longest = self.longest.max(self.since.elapsed());
            (self.height, self.since) = (height, Instant::now());
        }
    }
}

#[test]
fn the_others_go_on_without_one_and_it_catches_up_and_votes_again() {
    let mut net = Net::started();
    let others: Vec<_> = (0..VICTIM).map(|index| net.rpc(index)).collect();
    let load = Load::start(&others, 24, Some(500.0), Via::Sync, "one");
    let before = net.wait_all("some blocks under load", |height| height >= 20).into_iter().max().expect("four nodes");

    let mut client = net.client(0);
    let mut pause = Pause::new(client.height().expect("it serves"));
    net.kill(&[VICTIM]);
    let (killed, height_at_kill) = (Instant::now(), client.height().expect("it serves"));
    wait_for_count("the others are far ahead", height_at_kill + GAP, || {
        let height = client.height().expect("it serves");
        pause.see(height);
        height
    });
    let taken = killed.elapsed().as_secs_f64();
    let gaps = block_gaps(&mut client, height_at_kill, height_at_kill + GAP);
    println!(
        "measured: kill -9 of one of four under 500 tx/s: {GAP} blocks without it in {taken:.1} s; longest pause {} ms as seen, {} ms between block times",
        pause.longest.as_millis(),
        gaps.as_millis()
    );

    net.start(VICTIM);
    let started = Instant::now();
    let mut back = net.client(VICTIM);
    let behind = client.height().expect("it serves").saturating_sub(before);
    let caught_up_at = wait_until("it has caught up", || {
        let own = back.height().ok()?;
        let others = client.height().expect("it serves");
        (own + 1 >= others).then_some(own)
    });
    println!(
        "measured: it closed a gap of {behind} blocks and more within {:.2} s of its start, under load",
        started.elapsed().as_secs_f64()
    );
    let address = net.address(VICTIM);
    let mut at = caught_up_at;
    wait_until("it votes again", || {
        let newest = client.height().expect("it serves");
        let signed = (at..newest).any(|height| client.signers(height).expect("a commit").contains(&address));
        at = newest.max(at);
        signed.then_some(())
    });
    println!("measured: its vote was in a commit {:.2} s after its start", started.elapsed().as_secs_f64());
    let report = load.stop();
    println!("measured: the load: {} taken, not taken: {:?}", report.acknowledged.len(), report.failed);
    assert!(report.failed.is_empty(), "the others take every transaction: {:?}", report.failed);
    let tip = net.wait_all("what the others have", |height| height >= height_at_kill + GAP).into_iter().min().expect("four nodes");
    net.assert_same((1..=tip).step_by(10).chain([tip]));

    // Light load without it: what a dead validator costs a client.
    net.kill(&[VICTIM]);
    let light = Load::start(&others, 12, Some(20.0), Via::Commit, "light");
    wait_until("two hundred commits", || (light.count() >= 200).then_some(()));
    let report = light.stop();
    assert!(report.failed.is_empty(), "every transaction commits: {:?}", report.failed);
    println!(
        "measured: one of four dead, 20 tx/s: commit latency p50 {} ms, p90 {} ms, p99 {} ms, max {} ms",
        report.latency(50).as_millis(),
        report.latency(90).as_millis(),
        report.latency(99).as_millis(),
        report.latency(100).as_millis()
    );
    net.assert_alive();
}

/// The longest time between the times of neighbouring blocks.
fn block_gaps(client: &mut Client, from: u64, to: u64) -> Duration {
    let times: Vec<i128> = (from..=to)
        .map(|height| {
            let header = client.call("header", json!({"height": height.to_string()})).expect("a header");
            assert_eq!(number(&header["header"]["height"]), height);
            unix_nanos(header["header"]["time"].as_str().expect("a time"))
        })
        .collect();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("two blocks");
    assert!(times.windows(2).all(|pair| pair[1] > pair[0]), "time goes on from block to block");
    Duration::from_nanos(u64::try_from(longest).expect("positive"))
}

/// RFC 3339 in UTC, of one month: enough for differences inside a test, which does not run over the end of one.
fn unix_nanos(text: &str) -> i128 {
    let digits = |range: std::ops::Range<usize>| text[range].parse::<i128>().expect("digits");
    let seconds = ((days(digits(0..4), digits(5..7), digits(8..10)) * 24 + digits(11..13)) * 60 + digits(14..16)) * 60 + digits(17..19);
    let fraction = text[19..].trim_start_matches('.').trim_end_matches('Z');
    seconds * 1_000_000_000 + format!("{fraction:0<9}").parse::<i128>().expect("digits")
}

/// Days since an arbitrary day (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day
}

/// A row of numbers from a seed (splitmix64, Steele, Lea and Flood 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// `LOCKSTEP_KILLS` says how often, if not twenty times.
#[test]
fn twenty_times_all_are_killed_at_once_and_nothing_acknowledged_is_lost() {
    let cycles = std::env::var("LOCKSTEP_KILLS").map_or(20, |text| text.parse().expect("LOCKSTEP_KILLS is a number"));
    let mut net = Net::started();
    let endpoints: Vec<_> = (0..VALIDATORS).map(|index| net.rpc(index)).collect();
    let mut chance = Chance(20);
    let mut acknowledged: Vec<Acknowledged> = Vec::new();
    let mut before = 0;
    let mut slowest = Duration::ZERO;
    for cycle in 0..cycles {
        let load = Load::start(&endpoints, 32, None, Via::Commit, &format!("all-{cycle}"));
        // A moment that the seed chooses, in progress and then in time: between two acknowledgements anything may be under way.
        let enough = 20 + chance.below(300);
        wait_until("transactions are acknowledged", || {
            net.assert_alive();
            (load.count() >= enough).then_some(())
        });
        std::thread::sleep(Duration::from_micros(chance.below(30_000)));
        net.kill(&[0, 1, 2, 3]);
        let report = load.stop();
        assert!(!report.acknowledged.is_empty());
        let highest = report.acknowledged.iter().map(|tx| tx.height).max().expect("not empty");
        assert!(highest > before, "cycle {cycle}: heights rise: {highest} after {before}");

        let started = Instant::now();
        net.start_all();
        let (_, height) = net.commit_tx(cycle % VALIDATORS, &format!("cycle={cycle}"));
        slowest = slowest.max(started.elapsed());
        assert!(height > highest, "cycle {cycle}: {height} follows what was acknowledged at {highest}");
        net.wait_all("the block after the restart", |at| at >= height);
        assert_kept(&net, cycle, &report.acknowledged);
        net.assert_same([before.max(1), highest, height]);
        acknowledged.extend(report.acknowledged);
        before = height;
    }
    assert_kept(&net, cycles, &acknowledged);
    net.assert_same(1..=before);
    println!(
        "measured: {cycles} times kill -9 of all four under load: {} acknowledged transactions all there, {before} heights equal; slowest restart to a new commit {:.2} s",
        acknowledged.len(),
        slowest.as_secs_f64()
    );
}

/// Every transaction is at the height that its client was told, and at the same place on every node.
#[track_caller]
fn assert_kept(net: &Net, cycle: usize, acknowledged: &[Acknowledged]) {
    let mut clients = net.clients();
    for tx in acknowledged {
        let places: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(index, client)| client.place(&tx.hash).unwrap_or_else(|error| panic!("cycle {cycle}: node{index} lost {tx:?}: {error}")))
            .collect();
        let same = places.iter().all(|place| *place == places[0] && place.height == tx.height);
        assert!(same, "cycle {cycle}: {tx:?} is at {places:?}");
    }
}
