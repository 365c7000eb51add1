//! `inspect --fork`, on the homes of two nodes that decided different blocks at one height.

use std::path::Path;
use std::sync::Arc;

use lockstep::Home;
use lockstep_app::Bundled;
use lockstep_replica::evidence::kept::Kept;
use lockstep_types::{PrivateKey, Round};

use crate::chain::{Chain, Files};
use crate::program::{run, text};

/// The height at which the two part.
const FORK: u64 = 4;

fn round(number: u32) -> Round {
    Round::new(number).expect("small")
}

/// Four validators, of whom 1 and 2 lie.
struct Net {
    homes: Vec<Home>,
    keys: fn(&Home) -> PrivateKey,
}

impl Net {
    fn new(folder: &Path) -> Self {
        let net = folder.join("net");
        run(&["testnet", "--validators", "4", "--output", text(&net), "--starting-ip", "10.0.0.1"]).done();
        let homes = (0..4).map(|index| Home::new(net.join(format!("node{index}")))).collect();
        Self { homes, keys: |home| home.read_validator_key().expect("valid") }
    }

    fn chain(&self) -> Chain {
        Chain::new(&self.homes[0], Arc::new(Bundled::default()), self.homes.iter().map(self.keys).collect())
    }

    fn address(&self, who: usize) -> String {
        (self.keys)(&self.homes[who]).public_key().address().to_string()
    }

    /// What `inspect` says of the homes of nodes 0 and 3.
    fn inspect(&self, more: &[&str]) -> crate::program::Ended {
        run(&[&["inspect", "--fork", text(self.homes[0].root()), text(self.homes[3].root())], more].concat())
    }

    /// Both nodes have the same first blocks; then node 0 sees one decided in round 0, and node 3 another in round `later`, which
    /// node 3 precommitted. Each keeps the polka that justified its own precommit, if it keeps any.
    fn fork(&self, later: Round, keeps_polkas: bool) {
        let (mut one, mut other) = (self.chain(), self.chain());
        let (mut files, mut others) = (Files::open(&self.homes[0]), Files::open(&self.homes[3]));
        for number in 1..FORK {
            let tx = format!("key{number}=value");
            files.write(&one.grow(&[tx.as_bytes()], Round::ZERO, &[0, 1, 2, 3]));
            others.write(&other.grow(&[tx.as_bytes()], Round::ZERO, &[0, 1, 2, 3]));
        }
        let (a, b) = (one.propose(&[b"side=one"]), other.propose(&[b"side=other"]));
        if keeps_polkas {
            files.write_polka(&one.polka(&[0, 1, 2], Round::ZERO, a.block_id));
            others.write_polka(&other.polka(&[1, 2, 3], later, b.block_id));
        }
        files.write(&one.decide(a, Round::ZERO, &[0, 1, 2]));
        others.write(&other.decide(b, later, &[1, 2, 3]));
        // Behind it every block differs.
        files.write(&one.grow(&[b"after=one"], Round::ZERO, &[0, 1, 2]));
        others.write(&other.grow(&[b"after=other"], Round::ZERO, &[1, 2, 3]));
    }

    /// The fork is found, and of validators 1 and 2 it is told that they did this.
    fn assert_named(&self, crime: &str, words: &str) {
        let ended = self.inspect(&["--json"]);
        assert_eq!(ended.code, Some(1), "{}{}", ended.out, ended.err);
        let found: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
        assert_eq!((&found["forked"], &found["height"]), (&true.into(), &FORK.to_string().into()), "{found}");
        let culprits = found["culprits"].as_array().expect("a list");
        let mut named: Vec<&str> = culprits.iter().filter_map(|culprit| culprit["address"].as_str()).collect();
        let mut liars = [self.address(1), self.address(2)];
        named.sort_unstable();
        liars.sort_unstable();
        assert_eq!(named, liars, "nobody else");
        for culprit in culprits {
            assert_eq!((&culprit["crime"], culprit["votes"].as_array().map(Vec::len)), (&crime.into(), Some(2)), "{culprit}");
        }
        assert_eq!((&found["power"], &found["total_power"]), (&20.into(), &40.into()));
        let told = self.inspect(&[]);
        assert_eq!(told.out.matches(words).count(), 2, "{}", told.out);
        told.refused(1, &[&format!("one chain up to height {}", FORK - 1), "power 20 of 40 broke the rules"]);
    }
}

#[test]
fn two_homes_that_forked_by_amnesia_name_those_who_forgot_their_locks() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = Net::new(folder.path());
    net.fork(round(1), true);
    // Nobody signed two values for one round.
    net.assert_named("amnesia", "and in round 1 a prevote for ");
}

#[test]
fn one_home_that_met_both_certificates_names_them_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = Net::new(folder.path());
    let (mut one, mut other) = (net.chain(), net.chain());
    let mut files = Files::open(&net.homes[0]);
    for number in 1..FORK {
        let tx = format!("key{number}=value");
        files.write(&one.grow(&[tx.as_bytes()], Round::ZERO, &[0, 1, 2, 3]));
        other.grow(&[tx.as_bytes()], Round::ZERO, &[0, 1, 2, 3]);
    }
    let (a, b) = (one.propose(&[b"side=one"]), other.propose(&[b"side=other"]));
    let their_polka = other.polka(&[1, 2, 3], round(1), b.block_id);
    files.write(&one.decide(a, Round::ZERO, &[0, 1, 2]));
    let theirs = other.decide(b, round(1), &[1, 2, 3]);
    files.write(&one.grow(&[b"after=one"], Round::ZERO, &[0, 1, 2]));
    let inspect = |more: &[&str]| run(&[&["inspect", "--fork", text(net.homes[0].root())], more].concat());
    drop(files);
    assert!(inspect(&[]).done().contains("one chain, up to height 5"));
    // As a node writes them that is shown the other certificate, and asks.
    let mut files = Files::open(&net.homes[0]);
    files.write_kept(&Kept::Certificate(Box::new(theirs.commit.clone())));
    files.write_kept(&Kept::Polka(Box::new(their_polka)));
    drop(files);
    let told = inspect(&[]);
    for liar in [1, 2] {
        assert!(
            told.out.lines().any(|line| line.starts_with(&net.address(liar)) && line.contains("and in round 1 a prevote for ")),
            "{}",
            told.out
        );
    }
    assert_eq!(told.out.lines().count(), 3, "{}", told.out);
    told.refused(1, &["power 20 of 40 broke the rules"]);
}

#[test]
fn without_the_polkas_nobody_is_named_for_amnesia() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = Net::new(folder.path());
    net.fork(round(1), false);
    let ended = net.inspect(&["--json"]);
    let found: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((&found["forked"], &found["culprits"]), (&true.into(), &serde_json::json!([])), "the certificates alone do not show it");
    ended.refused(1, &["power 0 of 40"]);
}

#[test]
fn two_homes_that_forked_in_one_round_name_those_who_signed_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = Net::new(folder.path());
    net.fork(round(0), true);
    net.assert_named("two votes", " in round 0: ");
}

#[test]
fn two_homes_of_one_chain_are_one_chain() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = Net::new(folder.path());
    let mut chain = net.chain();
    let (mut files, mut others) = (Files::open(&net.homes[0]), Files::open(&net.homes[3]));
    for number in 1..=3u64 {
        let decided = chain.grow(&[format!("key{number}=value").as_bytes()], Round::ZERO, &[0, 1, 2, 3]);
        files.write(&decided);
        if number < 3 {
            others.write(&decided);
        }
    }
    assert!(net.inspect(&[]).done().contains("one chain, up to height 2"));
    let third = crate::program::new_home(folder.path(), "another");
    run(&["inspect", "--fork", text(net.homes[0].root()), text(&third)]).refused(3, &["two chains"]);
}
