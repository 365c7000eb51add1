//! `replay` and `rollback`, on homes that the program itself made, and on one whose blocks came of another application.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lockstep::Home;
use lockstep_app::{
    Application, BlockInput, Bundled, CheckKind, Executed, GenesisInput, GenesisRefused, Info, Initialized, Query, QueryAnswer, Verdict,
    View,
};
use lockstep_types::Round;
use rustix::process::Signal;

use crate::chain::{Chain, Files};
use crate::program::{Ended, Running, ended, free_ports, lockstep, new_home, run, text, wait_until};

/// All files of a folder, with their bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { drop(found.insert(path.clone(), fs::read(path).expect("a file"))) }
    }
    found
}

/// Runs the program where this folder is mounted read-only; nothing where nobody may mount anything.
fn read_only(folder: &Path, args: &[&str]) -> Option<Ended> {
    let mounted = |script: &str, program: &Command| {
        let script = format!(r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && {script}"#);
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, text(folder)]);
        command.arg(program.get_program()).args(program.get_args());
        command.output()
    };
    let program = lockstep(args);
    mounted("true", &program)
        .is_ok_and(|tried| tried.status.success())
        .then(|| ended(mounted(r#"exec "$@""#, &program).expect("it starts")))
}

fn json_of(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn a_stopped_node_replays_its_blocks_and_goes_back_to_before_the_newest() {
    let folder = tempfile::tempdir().expect("a folder");
    let (home, rules) = (folder.path().join("n0"), folder.path().join("rules.json"));
    fs::write(&rules, r#"{"membership":{"admission":"open","power_window":1,"checkpoint_interval":4,"checkpoint_spacing":1}}"#)
        .expect("written");
    run(&["init", "--home", text(&home), "--app-state", text(&rules)]).done();
    run(&["replay", "--home", text(&home)]).refused(3, &["has no block so far"]);
    let port = free_ports(1);
    let url = format!("http://127.0.0.1:{port}");
    let (rpc, p2p) = (format!("rpc.laddr=127.0.0.1:{port}"), format!("p2p.laddr=127.0.0.1:{}", port + 100));
    let start = ["start", "--home", text(&home), "--set", &rpc, "--set", &p2p, "--set", "storage.flush_interval_blocks=1"];
    let status = || json_of(&run(&["status", "--json", "--node", &url]).done())["sync_info"].clone();
    let serving = || wait_until("the node answers", || (run(&["status", "--node", &url]).code == Some(0)).then_some(()));

    let node = Running::start(lockstep(&start));
    serving();
    for number in 0..8 {
        run(&["tx", &format!("key{number}=value"), "--node", &url]).done();
    }
    let snapshots = || json_of(&run(&["snapshot", "list", "--home", text(&home), "--json"]).done());
    wait_until("a snapshot is made", || snapshots().as_array().is_some_and(|found| !found.is_empty()).then_some(()));
    // Two more blocks, so that one of the snapshots is proven by the log.
    for last in ["one=more", "and=another"] {
        run(&["tx", last, "--node", &url]).done();
    }
    for command in [&["replay"][..], &["rollback"], &["rollback", "--hard"]] {
        run(&[command, &["--home", text(&home)]].concat()).refused(4, &["in use by process", &node.pid().to_string()]);
    }
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code, Some(0));

    let before = files(&home);
    let out = run(&["replay", "--home", text(&home)]).done();
    for says in ["from genesis: ", " blocks/s", "each gives what the next header certifies; the newest has root "] {
        assert!(out.contains(says), "{says:?} is missing in\n{out}");
    }
    let all = json_of(&run(&["replay", "--home", text(&home), "--json"]).done());
    let tip = all["to"].as_u64().expect("a height");
    assert!(tip >= 10, "{all}");
    assert_eq!((&all["blocks"], &all["from"], &all["difference"]), (&tip.into(), &1.into(), &serde_json::Value::Null));
    assert!(all["txs"].as_u64() >= Some(10), "{all}");
    let some = json_of(&run(&["replay", "--home", text(&home), "--from", &tip.to_string(), "--json"]).done());
    assert_eq!((&some["snapshot"], &some["to"], &some["app_hash"]), (&true.into(), &tip.into(), &all["app_hash"]));
    assert!(some["from"].as_u64() > Some(1), "it begins with a snapshot: {some}");
    let few = json_of(&run(&["replay", "--home", text(&home), "--to", "3", "--json"]).done());
    assert_eq!((&few["to"], &few["blocks"]), (&3.into(), &3.into()));
    for wrong in [&["--to", "1000000"][..], &["--from", "5", "--to", "4"]] {
        run(&[&["replay", "--home", text(&home)], wrong].concat()).refused(3, &["the log holds blocks 1 to"]);
    }
    assert!(files(&home) == before, "a replay changes nothing");
    // Nor need it be able to: a backup may be mounted so that nobody can write to it.
    let exported = folder.path().join("exported.snapshot");
    // Somebody else may have made it, and put a link where this program writes: nothing is written.
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "precious").expect("written");
    std::os::unix::fs::symlink(&elsewhere, home.join("pid")).expect("a link");
    run(&["replay", "--home", text(&home)]).done();
    assert!(home.join("pid").is_symlink(), "and nothing is removed");
    assert_eq!(fs::read(&elsewhere).expect("it is there"), b"precious");
    let homes = [text(&home), text(&home)];
    // The newest may be of a block that no later one confirms yet.
    let oldest = snapshots()[0]["height"].to_string();
    for (command, says) in [
        (&["replay", "--home", text(&home)][..], "each gives what the next header certifies"),
        (&["snapshot", "list", "--home", text(&home)], "root of the state"),
        (&["snapshot", "export", "--home", text(&home), "--height", &oldest, "--output", text(&exported)], "lockstep snapshot restore"),
        (&["inspect", "--fork", homes[0], homes[1]], "are the same home"),
    ] {
        match read_only(&home, command) {
            None => println!("not run on a home that is mounted read-only: this machine lets nobody mount anything"),
            Some(ended) => assert!(format!("{}{}", ended.out, ended.err).contains(says), "{command:?}: {ended:?}"),
        }
    }

    // Back to before the newest three blocks, and on from there.
    run(&["rollback", "--home", text(&home), "--hard"]).refused(3, &["decides alone", "without --hard"]);
    run(&["rollback", "--home", text(&home), "--to", &tip.to_string()]).refused(3, &["it can go back to heights 0 to"]);
    run(&["rollback", "--home", text(&home), "--blocks", "1000000"])
        .refused(3, &["cannot go back so far", &format!("--blocks {tip} leads to the state of genesis")]);
    assert!(files(&home) == before, "what is refused changes nothing");
    for back in [&["--blocks", "3"][..], &[], &["--to", "0"]] {
        let guard = fs::read(home.join("data/guard")).expect("a guard");
        let out = run(&[&["rollback", "--home", text(&home)], back].concat()).done();
        assert!(out.contains("the vote guard is as it was"), "{out}");
        // The end may have come between the newest block's decision and its execution: then nothing is there to be set aside.
        let was_executed = !out.contains(", and stays");
        assert!(was_executed || back.is_empty(), "{out}");
        assert_eq!(out.contains("set aside, not deleted"), was_executed, "{out}");
        assert!(home.join("data/rolled-back").is_dir());
        assert!(!home.join("pid").exists() && fs::read(&elsewhere).expect("it is there") == b"precious", "a link is not followed");
        assert_eq!(fs::read(home.join("data/guard")).expect("a guard"), guard);
        let node = Running::start(lockstep(&start));
        serving();
        run(&["tx", "after=rollback", "--node", &url]).done();
        assert!(run(&["query", "key7", "--home", text(&home), "--node", &url]).done().contains("VERIFIED"));
        let hash = |height: u64| {
            let height = height.to_string();
            json_of(&run(&["replay", "--home", text(&home), "--to", &height, "--json"]).done())["app_hash"].clone()
        };
        assert!(status()["latest_block_height"].as_str().and_then(|height| height.parse::<u64>().ok()) > Some(tip));
        node.signal(Signal::TERM);
        assert_eq!(node.wait().code, Some(0));
        assert_eq!(hash(tip), all["app_hash"], "the same chain");
    }
}

/// The bundled applications, as an earlier version of them was: one transaction had another result.
struct Earlier(Bundled);

/// This transaction.
const TX: &[u8] = b"was=different";

impl Application for Earlier {
    fn info(&self, view: &View) -> Info {
        self.0.info(view)
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        self.0.init_chain(genesis)
    }

    fn check_tx(&self, view: &View, tx: &[u8], kind: CheckKind) -> Verdict {
        self.0.check_tx(view, tx, kind)
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        let mut executed = self.0.execute(view, block);
        for (tx, result) in block.txs.iter().zip(&mut executed.tx_results) {
            if tx.0 == TX {
                result.data = b"as it was".to_vec();
            }
        }
        executed
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        self.0.query(view, query)
    }
}

/// Six blocks of this application in a new home; the fourth has the transaction, as its second.
fn write_chain(home: &Home) {
    let mut chain = Chain::new(home, Arc::new(Earlier(Bundled::default())), vec![home.read_validator_key().expect("valid")]);
    let mut files = Files::open(home);
    for number in 1..=6u64 {
        let second = if number == 4 { TX } else { b"other=tx" };
        let decided = chain.grow(&[format!("key{number}=value").as_bytes(), second], Round::ZERO, &[0]);
        files.write(&decided);
    }
}

#[test]
fn a_block_that_another_application_made_is_named_with_its_transaction() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = new_home(folder.path(), "n0");
    write_chain(&Home::new(&root));
    let before = files(&root.join("data"));

    let out = run(&["replay", "--home", text(&root)]);
    for says in ["block 4 gives something else than was certified", "last_results_hash", "number 1 of the block", "6173206974207761"] {
        assert!(out.out.contains(says), "{says:?} is missing in\n{}", out.out);
    }
    out.refused(1, &["block 4 does not give what it should", "more than two thirds of the power certified the other", "lockstep rollback"]);
    let json = run(&["replay", "--home", text(&root), "--json"]);
    assert_eq!(json.code, Some(1));
    let difference = &json_of(&json.out)["difference"];
    assert_eq!(
        (&difference["height"], &difference["certified"], &difference["tx"]["index"], &difference["deterministic"]),
        (&4.into(), &true.into(), &1.into(), &true.into())
    );
    assert_eq!(difference["tx"]["expected"]["data"], hex::encode("as it was"));
    run(&["replay", "--home", text(&root), "--to", "3"]).done();

    // The state database is empty, so that a rollback only has results to set aside; with a state above, it would have to make one
    // that this program cannot make.
    assert!(files(&root.join("data")) == before, "a replay changes nothing");
    let out = run(&["rollback", "--home", text(&root), "--to", "3"]).done();
    assert!(out.contains("the state is that of genesis") && out.contains("set aside"), "{out}");
    let out = run(&["replay", "--home", text(&root)]);
    assert!(out.out.contains("not kept in this home"), "{}", out.out);
    out.refused(1, &["block 4"]);
}
