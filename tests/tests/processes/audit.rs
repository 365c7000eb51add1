//! A validator whose state is not the chain's: it finds that, stops signing, heals and votes again, and the others do not notice. Nothing of
//! the program helps to bring it about: its database is changed while it is stopped, so that it verifies and says something else.

use std::fs;
use std::path::Path;

use lockstep_app::kv::data_key;
use lockstep_app::{Changes, Tree};
use lockstep_replica::ChainState;
use lockstep_storage::disk::RealDisk;
use lockstep_storage::state::{Change, StateDb};
use lockstep_tests::net::{Net, VALIDATORS};
use lockstep_tests::program::{run, text, wait_until};
use lockstep_tests::rpc::number;
use lockstep_types::state_tree::Path as TreePath;
use serde_json::json;

/// Every block is written, so that what is on disk is the newest.
const EACH_BLOCK: &[&str] = &["storage.flush_interval_blocks=1"];
/// The key whose value is changed.
const KEY: &str = "precious";

/// Changes the value of the key in a stopped home's database, which then verifies as before.
fn falsify(home: &Path) {
    let data = home.join("data");
    let disk = RealDisk::new(&data).expect("a data folder");
    let mut db = StateDb::open(&disk, "state.redb").expect("it is sound");
    let mut changes = Changes::new();
    let flushed = db.load(|_, key, value| changes.set(key, value)).expect("it is sound").expect("something was written");
    drop(db);
    let mut chain = ChainState::decode(&flushed.meta).expect("a chain state");
    changes.set(data_key(KEY.as_bytes()), &b"worthless"[..]);
    let mut tree = Tree::new();
    tree.change(&changes);
    chain.app_hash = tree.root().into();
    fs::remove_file(data.join("state.redb")).expect("a file of ours");
    let mut db = StateDb::open(&disk, "state.redb").expect("a new one");
    let entries: Vec<_> = changes.iter().map(|(key, value)| (TreePath::of(key), key, value)).collect();
    let entries = entries.iter().map(|(path, key, value)| Change { path: path.0, key, value: value.map(|value| &value[..]) });
    db.flush(flushed.height, entries, &chain.encode()).expect("it is written");
}

fn flushed(home: &Path) -> u64 {
    let disk = RealDisk::new(home.join("data")).expect("a data folder");
    StateDb::open(&disk, "state.redb").expect("it is sound").flushed().map_or(0, |flushed| flushed.height)
}

/// A network that ran and is stopped, with the newest state of node 0 on its disk: its height. When a block follows closely on another,
/// the database is one behind; then there is one more block.
fn stopped(net: &mut Net) -> u64 {
    for number in 0.. {
        assert!(number < 20, "the database is never at the tip");
        for index in 0..VALIDATORS {
            net.start_with(index, EACH_BLOCK);
        }
        net.commit_tx(0, &format!("{KEY}=gold{number}"));
        (1..VALIDATORS).for_each(|index| net.stop(index));
        // Alone it decides nothing more.
        let height = net.client(0).height().expect("it serves");
        net.stop(0);
        if flushed(&net.home(0)) == height {
            return height;
        }
    }
    unreachable!("it was found before");
}

#[test]
fn a_validator_whose_state_diverged_heals_votes_again_and_disturbs_nobody() {
    let mut net = Net::new();
    let height = stopped(&mut net);
    falsify(&net.home(0));
    for index in 0..VALIDATORS {
        net.start_with(index, EACH_BLOCK);
    }

    let report = net.home(0).join(format!("data/audit/{height:020}.txt"));
    let report = wait_until("node0 finds it and heals", || {
        net.assert_alive();
        fs::read_to_string(&report).ok()
    });
    assert!(report.contains(&format!("the state of this node after height {height} was not the chain's")), "{report}");
    assert!(report.contains("the state database was damaged"), "it says what was done: {report}");
    // It votes again, and has what all have.
    let mine = net.address(0);
    let signed = wait_until("node0 votes again", || {
        let (_, at) = net.commit_tx(1, "after=that");
        net.client(1).signers(at - 1).ok().filter(|signers| signers.contains(&mine)).map(|_| at)
    });
    net.wait_all("has that block", |height| height >= signed);
    net.assert_same(1..=signed);
    let answers: Vec<_> =
        net.clients().iter_mut().map(|client| client.call("abci_query", json!({"path": "", "data": hex::encode(KEY)}))).collect();
    let value = |answer: &Result<serde_json::Value, _>| answer.as_ref().ok().map(|answer| answer["response"]["value"].clone());
    assert!(answers.windows(2).all(|pair| value(&pair[0]).is_some() && value(&pair[0]) == value(&pair[1])), "{answers:?}");
    let diverged: Vec<u64> = net.clients().iter_mut().map(|client| client.metric("lockstep_divergences").expect("shown")).collect();
    assert_eq!(diverged, [1, 0, 0, 0]);
    for index in 1..VALIDATORS {
        assert!(
            !net.process(index).log().contains("diverge") && !net.home(index).join("data/audit").exists(),
            "node{index} is undisturbed"
        );
    }
}

/// The same height again: nothing heals any more. The node stays up to say so, and answers nothing from its state.
#[test]
fn a_validator_that_cannot_heal_stays_up_halted_and_asks_to_quit() {
    let mut net = Net::new();
    let height = stopped(&mut net);
    falsify(&net.home(0));
    // As if it had healed there before.
    let audit = net.home(0).join("data/audit");
    fs::create_dir_all(&audit).expect("a folder");
    for ending in ["found", "txt"] {
        fs::write(audit.join(format!("{height:020}.{ending}")), "before").expect("a file");
    }
    for index in 0..VALIDATORS {
        net.start_with(index, EACH_BLOCK);
    }
    let mut client = net.client(0);
    let held = "lockstep_votes_held_back{reason=\"diverged\"}";
    wait_until("node0 halts, and serves", || {
        net.assert_alive();
        client.metric(held).ok().filter(|held| *held == 1)
    });
    let log = net.process(0).log();
    assert!(log.contains("lockstep validator quit") && log.contains("is not the chain's"), "{log}");
    let status = run(["status", "--node", &format!("http://{}", net.rpc(0))]).done();
    assert!(status.contains("state       NOT the chain's") && status.contains("signs       NO"), "{status}");
    let refused = client.call("abci_query", json!({"path": "", "data": hex::encode(KEY)})).expect_err("nothing is answered from its state");
    assert!(format!("{refused:?}").contains("is not the chain's"), "{refused:?}");
    let refused = client.call("check_tx", json!({"tx": "YT1i"})).expect_err("nor judged by it");
    assert!(format!("{refused:?}").contains("is not the chain's"), "{refused:?}");
    assert!(client.call("block", json!({"height": "1"})).is_ok(), "blocks are the chain's");
    // The others go on without it.
    let (_, at) = net.commit_tx(1, "without=it");
    assert!(at > height);
    // It is taken out as it asks for: by another node, since its own knows nothing any more that it could be sure of.
    let (home, other) = (net.home(0), format!("http://{}", net.rpc(1)));
    let out = run(["validator", "quit", "--home", text(&home), "--node", &other]).done();
    assert!(out.contains("has no power any more"), "{out}");
    let validators = net.client(1).call("validators", json!({})).expect("it serves");
    assert_eq!(number(&validators["total"]), 3);
    // It ends when it is asked to, and with the code of a halt.
    net.process(0).signal(rustix::process::Signal::TERM);
    assert_eq!(net.process(0).wait(), Some(5), "{}", net.process(0).log());
}
