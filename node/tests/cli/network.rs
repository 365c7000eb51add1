//! Nodes that run: real processes, real sockets.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::program::{Running, free_ports, lockstep, new_home, pid_of, run, signal_to, text, wait_until};

#[test]
fn a_node_runs_until_it_is_asked_to_stop_and_has_its_home_for_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = new_home(folder.path(), "n0");
    let port = free_ports(1);
    let url = format!("http://127.0.0.1:{port}");
    let (rpc, p2p) = (format!("rpc.laddr=127.0.0.1:{port}"), format!("p2p.laddr=127.0.0.1:{}", port + 100));
    let args = ["start", "--home", text(&home), "--set", &rpc, "--set", &p2p, "--log-format", "json"];

    for last in ["hello=world", "hello=again"] {
        let node = Running::start(lockstep(&args));
        wait_until("the node answers", || (run(&["status", "--node", &url]).code == Some(0)).then_some(()));
        assert_eq!(pid_of(&home), Some(node.pid()));
        run(&args).refused(4, &["in use by process", &node.pid().to_string(), "kill"]);
        run(&["keys", "import", text(&home.join("config/priv_validator_key.json")), "--home", text(&home), "--never-signed"])
            .refused(4, &["in use by process"]);
        let other = new_home(folder.path(), &format!("beside-{last}"));
        run(&["start", "--home", text(&other), "--set", &rpc]).refused(4, &["rpc.laddr"]);

        run(&["tx", last, "--node", &url]).done();
        let status = run(&["status", "--node", &url]).done();
        for line in ["peers       0\n", "in step     yes: it is the only validator\n", " s ago)\n", "signs       yes\n"] {
            assert!(status.contains(line), "{line:?} is missing in\n{status}");
        }
        let json: serde_json::Value = serde_json::from_str(&run(&["status", "--json", "--node", &url]).done()).expect("JSON");
        assert_eq!(json["lockstep"], serde_json::json!({ "peers": 0, "signs": true, "held_back": null, "cut_off": null, "kept_out": 0 }));
        assert!(json["sync_info"].is_object(), "and what the node answered");
        node.signal(Signal::TERM);
        let ended = node.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert_eq!(pid_of(&home), None);
        let first = ended.err.lines().next().expect("a log");
        assert!(serde_json::from_str::<serde_json::Value>(first).is_ok(), "{first:?} is JSON");
    }
    run(&["status", "--node", &url]).refused(7, &["no RPC endpoint answered"]);
}

#[test]
fn a_node_outlives_its_log_and_ends_with_its_terminal() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = new_home(folder.path(), "n0");
    let port = free_ports(1);
    let url = format!("http://127.0.0.1:{port}");
    let (rpc, p2p) = (format!("rpc.laddr=127.0.0.1:{port}"), format!("p2p.laddr=127.0.0.1:{}", port + 100));
    let args = ["start", "--home", text(&home), "--set", &rpc, "--set", &p2p, "--log-level", "debug"];
    let answers = || wait_until("the node answers", || (run(&["status", "--node", &url]).code == Some(0)).then_some(()));

    // Whoever reads its log is gone: every line that it writes is an error.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = lockstep(&args);
    let mut node = command.stderr(writer).spawn().expect("the program starts");
    drop((command, reader));
    answers();
    run(&["tx", "nobody=reads", "--node", &url]).done();
    // The terminal closes; it and the shell in it both say so.
    signal_to(node.id(), Signal::HUP);
    signal_to(node.id(), Signal::HUP);
    assert_eq!(node.wait().expect("a child of ours").code(), Some(0));
    assert_eq!(pid_of(&home), None);

    // Under nohup only SIGTERM and SIGINT end it.
    let node = Running::start({
        let mut nohup = Command::new("nohup");
        // Not by way of `lockstep`, which gives a test that was itself started under nohup its terminal back.
        nohup.arg(env!("CARGO_BIN_EXE_lockstep")).args(args).stdin(Stdio::null());
        nohup
    });
    answers();
    signal_to(node.pid(), Signal::HUP);
    run(&["tx", "still=here", "--node", &url]).done();
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code, Some(0));
}

#[test]
fn a_localnet_commits_proves_survives_and_resumes() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = folder.path().join("net");
    let port = free_ports(4);
    let port_text = port.to_string();
    let url = |index: u16| format!("http://127.0.0.1:{}", port + index);
    let home = |index: u16| net.join(format!("node{index}"));
    let args = ["localnet", "--home", text(&net), "--rpc-port", &port_text];

    // A taken port is told before anything is made or started.
    let taken = TcpListener::bind(("127.0.0.1", port + 2)).expect("free");
    run(&args).refused(4, &[&format!("127.0.0.1:{}", port + 2), "nothing was started"]);
    assert!(!net.exists());
    drop(taken);

    let network = Running::start(lockstep(&args));
    network.hear("all up; clients are served at");
    run(&args).refused(4, &["is run by another lockstep localnet, process", "nothing was started", "kill -INT"]);
    run(&["tx", "hello=world", "--node", &url(0)]).done();
    run(&["tx", "no transaction", "--node", &url(0)]).refused(8, &["code 2"]);
    run(&["tx", "hello=world", "--node", &url(0)]).refused(8, &["already exists"]);
    let home1 = home(1);
    let read = ["query", "hello", "--node", &url(0), "--home", text(&home1)];
    let out = run(&read).done();
    assert!(out.starts_with("world\nVERIFIED") && out.contains("of 40 power"), "{out}");
    let out = run(&["query", "nobody", "--node", &url(0), "--home", text(&home1)]).done();
    assert!(out.contains("has no value\nVERIFIED"), "{out}");

    // Another chain's genesis proves nothing of this one.
    let stranger = new_home(folder.path(), "stranger");
    run(&["query", "hello", "--node", &url(0), "--home", text(&stranger)]).refused(6, &["FAIL", "another chain"]);
    run(&["query", "hello", "--node", &url(0), "--home", text(&home1), "--trusting-period", "1ms"])
        .refused(6, &["FAIL", "--trusting-period", "--trust-hash"]);
    // From a block that is known by its hash, trust reaches as far as from the genesis; from another hash it does not begin.
    let status = run(&["status", "--node", &url(0)]).done();
    let told = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of status").trim().to_owned();
    let (height, hash) = (told("height"), told("block hash"));
    let out = run(&[&read[..], &["--trust-height", &height, "--trust-hash", &hash]].concat()).done();
    assert!(out.starts_with("world\nVERIFIED"), "{out}");
    let other = hash.replace(|c: char| c != '0', "0");
    run(&[&read[..], &["--trust-height", &height, "--trust-hash", &other]].concat()).refused(6, &["FAIL", &hash, "is trusted"]);

    // One is killed from outside; the others go on, it is reported, and it comes back by hand.
    let killed = pid_of(&home(2)).expect("it runs");
    signal_to(killed, Signal::KILL);
    run(&["tx", "without=two", "--node", &url(0)]).done();
    network.hear(&format!("node2 (process {killed}) was killed by signal 9 (SIGKILL); bring it back:"));
    let back = Running::start(lockstep(&["start", "--home", text(&home(2))]));
    network.hear(&format!("node2 is back, as process {}", back.pid()));
    wait_until("it votes along", || {
        let out = run(&["query", "without", "--node", &url(2), "--home", text(&home1)]).out;
        out.starts_with("two\nVERIFIED").then_some(())
    });

    network.signal(Signal::INT);
    let ended = network.wait();
    back.signal(Signal::TERM);
    assert_eq!(back.wait().code, Some(0));
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    for says in
        [format!("start --home {}", text(&home(2))).as_str(), "tx hello=world --node", "query hello --node", "3 validators stopped cleanly"]
    {
        assert!(ended.out.contains(says), "{says:?} is missing in:\n{}", ended.out);
    }
    for index in 0..4 {
        assert_eq!(pid_of(&home(index)), None, "node{index} is stopped");
        assert!(fs::metadata(home(index).join("node.log")).expect("a log").len() > 0);
    }

    // One whose vote guard is lost says that it holds its votes back, until it sees the others decide.
    fs::write(home(2).join("data/guard"), []).expect("written");
    let mute = Running::start(lockstep(&["start", "--home", text(&home(2))]));
    let signs = || run(&["status", "--node", &url(2)]).out.lines().find_map(|line| line.strip_prefix("signs").map(str::to_owned));
    assert!(wait_until("it answers", signs).contains("NO: its vote guard cannot be read"), "no other runs, so nothing is decided");
    let others = [0, 1, 3].map(|index| Running::start(lockstep(&["start", "--home", text(&home(index))])));
    wait_until("it signs again", || signs().filter(|signs| signs.trim() == "yes"));
    for node in others.into_iter().chain([mute]) {
        node.signal(Signal::TERM);
        assert_eq!(node.wait().code, Some(0));
    }

    // The same folder goes on, under load, for a while; other shapes of network are refused.
    run(&["localnet", "--home", text(&net), "--validators", "5"]).refused(3, &["--validators is 5", "has 4"]);
    run(&["localnet", "--home", text(&net), "--chain-id", "other"]).refused(3, &["--chain-id is other"]);
    run(&["localnet", "--home", text(&net), "--rpc-port", "1"]).refused(3, &["--rpc-port is 1"]);
    let out = run(&["localnet", "--home", text(&net), "--for", "2s", "--load", "50"]).done();
    let committed = out.lines().find(|line| line.starts_with("ran ")).expect("a summary");
    assert!(!committed.contains("transactions committed: 0"), "{committed}");
}

#[test]
fn bench_measures_a_network() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = folder.path().join("net");
    let port = free_ports(1);
    let url = format!("http://127.0.0.1:{port}");
    let network = Running::start(lockstep(&["localnet", "--validators", "1", "--home", text(&net), "--rpc-port", &port.to_string()]));
    network.hear("all up; clients are served at");
    // A request larger than the node takes; and a place where no RPC is.
    let large = folder.path().join("large.tx");
    fs::write(&large, format!("k={}", "x".repeat(2_000_000))).expect("written");
    run(&["tx", "--file", text(&large), "--node", &url]).refused(8, &["2000002 bytes", "rpc.body_bytes"]);
    run(&["status", "--node", &format!("{url}/nowhere")]).refused(7, &["does not take JSON-RPC", "rpc.laddr"]);
    let common = ["bench", "--endpoints", &url, "--for", "1s", "--warmup", "200ms", "--json", "--disk", text(folder.path())];
    for (more, via) in
        [(&["--rate", "40"][..], "commit"), (&["--rate", "2000", "--batch", "20"], "sync"), (&["--rate", "100", "--via", "async"], "async")]
    {
        let out = run(&[&common[..], more].concat()).done();
        let report: serde_json::Value = serde_json::from_str(&out).expect("one JSON object");
        assert_eq!(report["via"], via);
        assert_eq!(report["committed_more_than_once"], 0);
        let accounted = report["committed"].as_u64().expect("a count")
            + report["errors"].as_object().expect("by kind").values().map(|count| count.as_u64().expect("a count")).sum::<u64>();
        assert_eq!(Some(accounted), report["due"].as_u64(), "every transaction is committed or counted as an error");
        assert!(report["committed"].as_u64() > Some(0), "{report}");
        let ms = |name: &str| report["latency_ms"][name].as_f64().expect("measured");
        assert!(0.0 < ms("p50") && ms("p50") <= ms("p90") && ms("p90") <= ms("p99") && ms("p99") <= ms("max"));
        assert!(report["sync_ms"]["p50"].as_f64() > Some(0.0));
    }
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 2, "the probe of the disk is gone");
    // A terminal that closes stops the whole network, and cleanly.
    network.signal(Signal::HUP);
    let ended = network.wait();
    assert!(ended.code == Some(0) && ended.out.contains("1 validator stopped cleanly"), "{}{}", ended.out, ended.err);
    run(&["bench", "--endpoints", "http://127.0.0.1:1", "--disk", text(folder.path())]).refused(7, &["127.0.0.1:1"]);
}

#[test]
fn a_fifth_joins_a_localnet_by_the_lines_that_it_prints() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = folder.path().join("net");
    let port = free_ports(5);
    let url = |index: u16| format!("http://127.0.0.1:{}", port + index);
    let home = |index: u16| net.join(format!("node{index}"));
    let network = Running::start(lockstep(&["localnet", "--home", text(&net), "--rpc-port", &port.to_string()]));
    network.hear("validator join --home");
    let printed = network.heard();
    let line = |begins: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(begins)).unwrap_or_else(|| panic!("{begins:?} in {printed}"));
        line.trim().to_owned()
    };

    // One command to paste, as a shell takes it. It goes on as the node.
    let paste = line("one more node:");
    assert!(paste.contains(" init --from ") && paste.contains(" && "), "{paste}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1; {}", paste.replace("&& ", "&& exec "))]).stdin(Stdio::null());
    let node = Running::start(shell);
    let status = wait_until("it follows", || {
        let status = run(&["status", "--node", &url(4)]).out;
        status.contains("in step     yes").then_some(status)
    });
    assert!(status.contains("with power 0\nsigns       no"), "{status}");
    // It serves and hands on: what it is given is decided by the others.
    run(&["tx", "by=the-fifth", "--node", &url(4)]).done();

    let words: Vec<String> = line("let it validate:").split(' ').skip(1).map(str::to_owned).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let out = run(&words).done();
    assert!(out.contains("validates: power 10 of 50"), "{out}");
    assert!(run(&words).done().contains("validates already, with power 10"), "asked twice, it says how it is");
    // Another node than the one that was asked may be a block behind it.
    let list = wait_until("node 0 has the fifth, too", || {
        Some(run(&["validator", "list", "--node", &url(0)]).done()).filter(|list| list.contains("5 validators with power 50"))
    });
    assert!(list.contains("admission is open"), "{list}");
    let json: serde_json::Value = serde_json::from_str(&run(&["validator", "list", "--json", "--node", &url(4)]).done()).expect("JSON");
    assert_eq!(json["members"].as_array().map(Vec::len), Some(5));

    // Another node takes the place of the fifth, by a key of its own.
    let sixth = folder.path().join("sixth");
    run(&["init", "--from", &url(4), "--home", text(&sixth), "--moniker", "sixth"]).done();
    let wrong = "ab".repeat(32);
    run(&["init", "--from", &url(4), "--home", text(&folder.path().join("no")), "--genesis-hash", &wrong]).refused(3, &["is trusted"]);
    let late = Running::start(lockstep(&["start", "--home", text(&sixth)]));
    let old_key = home(4).join("config/priv_validator_key.json");
    let rotate = ["validator", "rotate", "--home", text(&sixth), "--old-key", text(&old_key)];
    let out = wait_until("it serves", || Some(run(&rotate)).filter(|ended| ended.code != Some(7))).done();
    assert!(out.contains("validates: power 10 of 50") && out.contains("has no power any more: stop its node"), "{out}");

    let out = run(&["validator", "quit", "--home", text(&sixth)]).done();
    assert!(out.contains("has no power any more") && out.contains("its node follows the chain"), "{out}");
    run(&["validator", "quit", "--home", text(&sixth)]).refused(3, &["is no validator", "has left already"]);
    run(&["validator", "approve", "53316E6A54A3B1CF51ED709F96674246683692DC", "--home", text(&home(0))])
        .refused(2, &["lockstep validator list"]);
    let stranger = new_home(folder.path(), "stranger");
    run(&["validator", "join", "--home", text(&stranger), "--node", &url(0)]).refused(3, &["serves chain", "--node"]);
    run(&["validator", "join", "--home", text(&stranger), "--node", "http://127.0.0.1:1"]).refused(7, &["start it: lockstep start"]);

    for node in [node, late] {
        node.signal(Signal::TERM);
        let ended = node.wait();
        assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    }
    network.signal(Signal::INT);
    assert_eq!(network.wait().code, Some(0));
    // It is one of the folder's network from then on.
    let out = run(&["localnet", "--home", text(&net), "--for", "1s"]).done();
    assert!(out.contains("5 validators stopped cleanly") || out.contains("5 validators in"), "{out}");
    run(&["localnet", "--home", text(&net), "--admission", "vote"]).refused(3, &["--admission is given", "has its genesis"]);
}

#[test]
fn validators_admit_by_vote_where_nothing_else_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_ports(3);
    let url = |index: u16| format!("http://127.0.0.1:{}", port + index);
    let first = new_home(folder.path(), "first");
    let settings = [format!("rpc.laddr=127.0.0.1:{port}"), format!("p2p.laddr=127.0.0.1:{}", port + 100)];
    let one = Running::start(lockstep(&["start", "--home", text(&first), "--set", &settings[0], "--set", &settings[1]]));
    wait_until("it serves", || (run(&["status", "--node", &url(0)]).code == Some(0)).then_some(()));
    let second = folder.path().join("second");
    run(&["init", "--from", &url(0), "--home", text(&second)]).done();
    let two = Running::start(lockstep(&["start", "--home", text(&second)]));
    let join = ["validator", "join", "--home", text(&second)];
    let asked = wait_until("it serves", || Some(run(&[&join[..], &["--no-wait"]].concat())).filter(|ended| ended.code != Some(7))).done();
    assert!(asked.contains("observer: 0 of 10 of the power approve"), "{asked}");
    let list = wait_until("the first has executed it, too", || {
        Some(run(&["validator", "list", "--node", &url(0)]).done()).filter(|list| list.contains("observer"))
    });
    assert!(list.contains("admission by vote"), "{list}");
    let key = run(&["keys", "show", "--home", text(&second)]).done();
    let address = key.lines().find_map(|line| line.strip_prefix("validator address")).expect("an address").trim().to_owned();
    // Who is no validator may not approve; who is, admits.
    run(&["validator", "approve", &address, "--home", text(&second)])
        .refused(8, &["is no validator, and validators admit", "lockstep validator list"]);
    // Nor have another one leave.
    let one_is = run(&["keys", "show", "--home", text(&first)]).done();
    let one_is = one_is.lines().find_map(|line| line.strip_prefix("validator address")).expect("an address").trim().to_owned();
    run(&["validator", "quit", &one_is, "--home", text(&second)]).refused(8, &["may not ask", &one_is, "--signer FILE"]);
    let waits = Running::start(lockstep(&join));
    waits.hear("of the power approve, more than two thirds are needed. Each approves with:");
    let out = run(&["validator", "approve", &address, "--home", text(&first), "--node", &url(0)]).done();
    assert!(out.contains("admitted"), "{out}");
    let ended = waits.wait();
    assert!(ended.code == Some(0) && ended.out.contains("validates: power 10 of 20"), "{}{}", ended.out, ended.err);
    for node in [one, two] {
        node.signal(Signal::TERM);
        assert_eq!(node.wait().code, Some(0));
    }
}

#[test]
fn what_an_application_starts_from_may_come_from_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (home, file) = (folder.path().join("n0"), folder.path().join("state.json"));
    let with = |more: &[&str]| run(&[&["init", "--home", text(&home), "--app-state", text(&file)][..], more].concat());
    fs::write(&file, r#"{"kv":{"open_validators":true,"unknown":1}}"#).expect("written");
    with(&[]).refused(2, &["app_state", "unknown"]);
    fs::write(&file, "[]").expect("written");
    with(&[]).refused(3, &["state.json", "JSON object"]);
    // Who may validate is said in one place.
    fs::write(&file, r#"{"membership":{"admission":"open","live_window":7}}"#).expect("written");
    with(&["--power-window", "5"]).refused(2, &["--power-window is given", "group membership"]);
    assert!(!home.exists(), "nothing was made");
    fs::write(&file, r#"{"kv":{"open_validators":true}}"#).expect("written");
    with(&["--power-window", "5"]).done();
    let genesis: serde_json::Value = serde_json::from_slice(&fs::read(home.join("config/genesis.json")).expect("a genesis")).expect("JSON");
    let state = &genesis["app_state"];
    assert_eq!((&state["kv"]["open_validators"], &state["membership"]["power_window"]), (&true.into(), &5.into()));
    assert_eq!(state["membership"]["admission"], "vote", "the default of a network that is to stay");
}

#[test]
fn a_chain_of_the_token_starts_with_the_validators_accounts() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("bank");
    run(&["init", "--home", text(&home), "--app", "token", "--admission", "authority"]).refused(2, &["app_state.membership.authority"]);
    run(&["init", "--home", text(&home), "--live-window", "1001"]).refused(2, &["live_window", "1 to 1000"]);
    assert!(!home.exists(), "nothing was made");
    run(&["init", "--home", text(&home), "--app", "token"]).done();
    let port = free_ports(1);
    let (rpc, p2p) = (format!("rpc.laddr=127.0.0.1:{port}"), format!("p2p.laddr=127.0.0.1:{}", port + 100));
    let node = Running::start(lockstep(&["start", "--home", text(&home), "--set", &rpc, "--set", &p2p]));
    let url = format!("http://127.0.0.1:{port}");
    wait_until("it serves", || (run(&["status", "--node", &url]).code == Some(0)).then_some(()));
    run(&["tx", "no=transfer", "--node", &url]).refused(8, &["code 1"]);
    // What a validator cannot change is not passed over in silence, nor what is no name and no address.
    let join = |more: &[&str]| run(&[&["validator", "join", "--home", text(&home), "--node", &url][..], more].concat());
    join(&["--address", "garbage"]).refused(2, &["--address is \"garbage\"", "HOST:PORT"]);
    join(&["--moniker", "a\u{1b}[2J"]).refused(2, &["--moniker", "no control characters"]);
    join(&["--power", "7", "--moniker", "other"]).refused(2, &["validates already", "--power and --moniker"]);
    assert!(join(&[]).done().contains("validates already"));
    let file = fs::read(home.join("config/priv_validator_key.json")).expect("a key");
    let key: serde_json::Value = serde_json::from_slice(&file).expect("JSON");
    // `token/` and the address.
    let hex = format!("746f6b656e2f{}", key["address"].as_str().expect("an address"));
    let out = run(&["query", &hex, "--hex", "--prefix", "", "--node", &url, "--home", text(&home)]).done();
    // Balance and nonce, 64 bits each, little-endian.
    assert!(out.starts_with("0x00ca9a3b000000000000000000000000\nVERIFIED"), "{out}");

    // Somebody is paid, once for each command; a fee goes to the proposer, who is the payer here.
    let to = "53316E6A54A3B1CF51ED709F96674246683692DC";
    let pay = |more: &[&str]| run(&[&["token", "transfer", to, "250", "--home", text(&home), "--node", &url][..], more].concat());
    let paid = pay(&["--memo", "invoice 17"]).done();
    assert!(paid.contains("transfer 0 of this account, fee 1") && paid.contains("committed"), "{paid}");
    assert!(pay(&["--fee", "3"]).done().contains("transfer 1 of this account, fee 3"));
    pay(&["--nonce", "0"]).refused(8, &["nonce 0 was used before"]);
    pay(&["--memo", &"m".repeat(129)]).refused(2, &["--memo has 129 bytes"]);
    pay(&["--fee", "0"]).refused(8, &["fee 0: at least 1"]);
    let account = |more: &[&str]| run(&[&["token", "account", "--node", &url][..], more].concat());
    assert!(account(&[to]).done().contains("balance    500\nnonce      0"));
    let mine = account(&["--home", text(&home)]).done();
    assert!(mine.contains("balance    999999500\nnonce      2"), "{mine}");
    // From a key that is in no home.
    let signer = folder.path().join("signer.json");
    fs::write(&signer, &file).expect("written");
    fs::set_permissions(&signer, fs::Permissions::from_mode(0o600)).expect("owned");
    assert!(pay(&["--signer", text(&signer)]).done().contains("transfer 2 of this account"));
    node.signal(Signal::TERM);
    assert_eq!(node.wait().code, Some(0));
}
