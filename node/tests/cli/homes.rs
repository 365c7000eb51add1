//! Making homes, and refusing bad ones.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use lockstep::{Config, Home};
use lockstep_replica::signing::guard_owner;
use lockstep_storage::guard::Guard;

use crate::program::{ended, lockstep, mode_of, new_home, run, text};

const FILES: [&str; 5] =
    ["config/config.toml", "config/genesis.json", "config/priv_validator_key.json", "config/node_key.json", "data/guard"];

#[test]
fn init_makes_a_home_and_never_another_in_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("deep/n0");
    let out = run(&["init", "--home", text(&home), "--chain-id", "my-chain", "--moniker", "first"]).done();
    assert!(out.contains("my-chain") && out.contains("start --home"), "{out}");
    for file in FILES {
        assert!(home.join(file).is_file(), "{file}");
    }
    for secret in ["config/priv_validator_key.json", "config/node_key.json", "data/guard"] {
        assert_eq!(mode_of(&home.join(secret)), 0o600, "{secret}");
    }
    let home = Home::new(home);
    let genesis = home.read_genesis().expect("valid");
    assert_eq!(genesis.chain_id.as_str(), "my-chain");
    assert_eq!(genesis.consensus_params.pace.min_block_interval.0, 20);
    assert_eq!(genesis.validators[0].public_key, home.read_validator_key().expect("valid").public_key());
    let guard =
        Guard::open(&home.data_disk().expect("a folder"), "guard", guard_owner(&genesis.hash(), &genesis.validators[0].public_key).0)
            .expect("bound to this key and genesis");
    assert_eq!(guard.last().expect("readable").position(), (0, 0, 0));

    let before: Vec<Vec<u8>> = FILES.iter().map(|file| fs::read(home.root().join(file)).expect("the file")).collect();
    run(&["init", "--home", text(home.root())]).refused(3, &["exists", "never replaced", &format!("start --home {}", text(home.root()))]);
    // What is left of a home is one, too.
    fs::remove_file(home.config_path()).expect("removed");
    run(&["init", "--home", text(home.root())]).refused(3, &["genesis.json exists"]);
    for (file, before) in FILES.iter().zip(before).skip(1) {
        assert_eq!(fs::read(home.root().join(file)).expect("the file"), before, "{file}");
    }
}

#[test]
fn a_home_that_another_process_makes_just_now_is_left_to_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = Home::new(folder.path().join("h"));
    fs::create_dir(home.root()).expect("a folder");
    let other = home.hold().expect("nobody has it");
    let begin = ["init", "--home", text(home.root()), "--chain-id", "test"];
    run(&begin).refused(4, &["in use by process", &std::process::id().to_string()]);
    assert!(!home.config_path().exists() && !home.validator_key_path().exists() && !home.guard_file().exists(), "nothing was made");
    drop(other);
    run(&begin).done();
}

#[test]
fn a_node_of_an_existing_chain_is_told_that_it_knows_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = new_home(folder.path(), "n0");
    let home = folder.path().join("n1");
    let out = run(&["init", "--home", text(&home), "--genesis", text(&first.join("config/genesis.json"))]).done();
    let line = out.lines().find(|line| line.contains("persistent_peers")).expect("the line to put");
    // It is one that the file takes in the place of its own, with a peer's id in it.
    let line = line.replace("NODE_ID", &"ab".repeat(20)).replace("HOST", "10.0.0.1");
    let file = fs::read_to_string(home.join("config/config.toml")).expect("text").replace("persistent_peers = []", line.trim());
    assert_eq!(Config::load("f", &file, [], &[]).expect("valid").p2p.persistent_peers.len(), 1);
    assert!(!run(&["init", "--home", text(&folder.path().join("n2"))]).done().contains("persistent_peers"), "one alone needs none");
}

#[test]
fn what_lies_in_the_place_of_a_file_is_no_failure_of_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["guard", "state.redb", "log"] {
        let home = new_home(folder.path(), name);
        let path = home.join("data").join(name);
        let _ = fs::remove_file(&path);
        if name == "log" {
            fs::write(&path, "a file").expect("written");
        } else {
            fs::create_dir(&path).expect("made");
        }
        run(&["start", "--home", text(&home)]).refused(3, &["a folder lies where a file should be", "put back what was there", name]);
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_not_done_and_one_that_nobody_wants_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = new_home(folder.path(), "n0");
    for args in [&["keys", "show", "--home", text(&home)][..], &["--help"], &["--version"]] {
        #[cfg(target_os = "linux")]
        {
            let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
            ended(lockstep(args).stdout(full).output().expect("the program starts"))
                .refused(1, &["cannot be written to stdout", "No space left"]);
        }
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = ended(lockstep(args).stdout(writer).output().expect("the program starts"));
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn chains_get_a_name_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["a", "b"].map(|name| Home::new(new_home(folder.path(), name)).read_genesis().expect("valid").chain_id.clone());
    assert_ne!(names[0], names[1]);
    for bad in ["", "a b", "é", &"x".repeat(51)] {
        run(&["init", "--home", text(&folder.path().join("c")), "--chain-id", bad]).refused(2, &["--chain-id", "chain id"]);
    }
    run(&["init", "--home", text(&folder.path().join("c")), "--moniker", ""]).refused(3, &["--moniker: moniker is \"\": must be"]);
    assert!(!folder.path().join("c").exists(), "nothing was made");
}

#[test]
fn a_validator_moves_here_with_what_it_signed() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = new_home(folder.path(), "old");
    let genesis = old.join("config/genesis.json");
    let key = old.join("config/priv_validator_key.json");
    let state = folder.path().join("priv_validator_state.json");
    let home = folder.path().join("new");
    let args = ["init", "--home", text(&home), "--genesis", text(&genesis), "--import-key", text(&key), "--import-state", text(&state)];

    run(&args[..7]).refused(2, &["--import-state"]);
    for bad in ["", "{}", "{\"height\":\"5\",\"round\":0,\"step\":9}", "{\"height\":\"-5\",\"round\":0,\"step\":3}"] {
        fs::write(&state, bad).expect("written");
        run(&args).refused(3, &["priv_validator_state.json"]);
    }
    fs::write(&state, "{\"height\":\"7\",\"round\":1,\"step\":2}").expect("written");
    let out = run(&args).done();
    assert!(out.contains("up to height 7"), "{out}");
    let moved = Home::new(&home);
    assert_eq!(moved.read_validator_key().expect("valid").public_key(), Home::new(&old).read_validator_key().expect("valid").public_key());
    let key = moved.read_validator_key().expect("valid").public_key();
    let owner = guard_owner(&moved.read_genesis().expect("valid").hash(), &key);
    let guard = Guard::open(&moved.data_disk().expect("a folder"), "guard", owner.0).expect("a guard");
    assert_eq!(guard.last().expect("readable").position(), (7, u32::MAX, u8::MAX), "nothing more at height 7");
    assert!(guard.last().expect("readable").sign_bytes.is_empty());
}

#[test]
fn keys_are_shown_made_and_brought_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = new_home(folder.path(), "n0");
    let shown = run(&["keys", "show", "--home", text(&home)]).done();
    let node_id = shown.lines().find_map(|line| line.strip_prefix("node id")).expect("a node id").trim();
    assert_eq!(node_id.len(), 40);

    let fresh = folder.path().join("fresh.json");
    let made = run(&["keys", "generate", "--output", text(&fresh)]).done();
    assert_eq!(mode_of(&fresh), 0o600);
    run(&["keys", "generate", "--output", text(&fresh)]).refused(3, &["fresh.json"]);
    let node = folder.path().join("node.json");
    run(&["keys", "generate", "--kind", "node", "--output", text(&node)]).done();

    run(&["keys", "import", text(&fresh), "--home", text(&home)]).refused(2, &["--never-signed"]);
    run(&["keys", "import", text(&node), "--home", text(&home), "--never-signed"])
        .refused(3, &["node.json", "give the priv_validator_key.json"]);
    run(&["keys", "import", text(&fresh), "--home", text(&home), "--never-signed"]).done();
    let address = |text: &str| text.lines().find(|line| line.starts_with("validator address")).map(str::to_owned);
    assert_eq!(address(&run(&["keys", "show", "--home", text(&home)]).done()), address(&made));
    assert!(home.join("config/priv_validator_key.json.replaced").is_file(), "the old key is kept");

    // Its state says that it signed, and from then on no other key takes its place.
    let again = folder.path().join("again.json");
    run(&["keys", "generate", "--output", text(&again)]).done();
    fs::rename(home.join("config/priv_validator_key.json.replaced"), folder.path().join("kept.json")).expect("moved");
    let state = folder.path().join("state.json");
    fs::write(&state, "{\"height\":\"7\",\"round\":0,\"step\":3}").expect("written");
    run(&["keys", "import", text(&again), "--home", text(&home), "--state", text(&state)]).done();
    run(&["keys", "import", text(&fresh), "--home", text(&home), "--never-signed"]).refused(3, &["has signed, up to height 7"]);
}

#[test]
fn a_testnet_is_one_chain_whose_members_know_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let net = folder.path().join("net");
    run(&["testnet", "--validators", "3", "--output", text(&net), "--starting-ip", "10.0.0.254"]).done();
    let homes: Vec<Home> = (0..3).map(|index| Home::new(net.join(format!("node{index}")))).collect();
    let genesis = homes[0].read_genesis().expect("valid");
    assert_eq!(genesis.validators.len(), 3);
    assert_eq!(genesis.consensus_params.pace.min_block_interval.0, 20);
    for (index, home) in homes.iter().enumerate() {
        assert_eq!(home.read_genesis().expect("valid"), genesis);
        assert_eq!(genesis.validators[index].public_key, home.read_validator_key().expect("valid").public_key());
        let config = Config::load("f", &home.read_config().expect("text"), [], &[]).expect("valid");
        assert_eq!(config.moniker, format!("node{index}"));
        let dialled: Vec<String> = config.p2p.persistent_peers.iter().map(ToString::to_string).collect();
        let others: Vec<String> = (0..3)
            .filter(|other| *other != index)
            .map(|other| {
                let id = lockstep_types::NodeId::of_key_bytes(&homes[other].read_node_key().expect("valid").public_key().0);
                format!("{id}@{}:26656", ["10.0.0.254", "10.0.0.255", "10.0.1.0"][other])
            })
            .collect();
        assert_eq!(dialled, others);
    }
    run(&["testnet", "--output", text(&net), "--starting-ip", "10.0.0.1"]).refused(3, &["is not empty"]);
    let above = text(&net.join("above")).to_owned();
    run(&["testnet", "--output", &above, "--starting-ip", "255.255.255.254"]).refused(2, &["there are no 4 addresses", "--hosts"]);
    run(&["tx"]).refused(2, &["KEY=VALUE", "--hex <BYTES>", "--file <FILE>"]);

    let hosts = folder.path().join("hosts");
    let named = |hosts_arg: &str| run(&["testnet", "--validators", "2", "--output", text(&hosts), "--hosts", hosts_arg]);
    named("a.example").refused(2, &["--hosts names 1 hosts for 2 validators"]);
    named("a,b:0").refused(2, &["\"b:0\""]);
    named("a,:5").refused(2, &["\":5\""]);
    named("a,a").refused(2, &["a:26656 twice"]);
    named("a/b,c").refused(2, &["\"a/b\""]);
    assert!(!hosts.exists(), "nothing was made");
    named("a.example,[::1]:27000").done();
    let peers = |index: usize| Home::new(hosts.join(format!("node{index}"))).read_config().expect("text");
    assert!(peers(0).contains("@[::1]:27000") && peers(1).contains("@a.example:26656"));
    run(&["testnet", "--output", "x", "--starting-ip", "255.255.255.254"])
        .refused(2, &["--starting-ip", "there are no 4 addresses", "--hosts"]);
}

/// Damages a file of a home, and what `start` must say.
type Damage = (&'static str, fn(&Path), &'static [&'static str]);

#[test]
fn start_refuses_a_bad_home_and_says_why() {
    fn remove(path: &Path) {
        fs::remove_file(path).expect("removed");
    }
    fn replace(path: &Path, from: &str, to: &str) {
        let text = fs::read_to_string(path).expect("text");
        assert!(text.contains(from), "{from} is in {text}");
        fs::write(path, text.replacen(from, to, 1)).expect("written");
    }
    fn cut(path: &Path) {
        let bytes = fs::read(path).expect("the file");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
    }
    fn open_to_all(path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("changed");
    }
    fn another_key(path: &Path) {
        fs::remove_file(path).expect("removed");
        run(&["keys", "generate", "--output", text(path)]).done();
    }
    const KEY: &str = "config/priv_validator_key.json";
    const GENESIS: &str = "config/genesis.json";
    let damages: [Damage; 18] = [
        ("config/config.toml", remove, &["is not the home of a node", "lockstep init"]),
        ("config/config.toml", |path| fs::write(path, [0xff]).expect("written"), &["not UTF-8"]),
        ("config/config.toml", |path| replace(path, "connections = 900", "connections = 0"), &["rpc.connections is 0: must be"]),
        ("config/config.toml", |path| replace(path, "moniker", "monicker"), &["monicker is not a known key", "moniker"]),
        (GENESIS, remove, &["cannot read", "genesis.json"]),
        (GENESIS, cut, &["genesis.json"]),
        (GENESIS, |path| replace(path, "\"power\": \"10\"", "\"power\": \"0\""), &["validators[0].power", "must be at least 1"]),
        (GENESIS, |path| replace(path, "\"max_gas\"", "\"max_gaz\""), &["max_gaz"]),
        (GENESIS, |path| replace(path, "\"chain_id\": \"", "\"chain_id\": \"other-"), &["another chain", "guard"]),
        (KEY, another_key, &["another key", "guard", "keys import"]),
        (KEY, remove, &["cannot read", "priv_validator_key.json"]),
        (KEY, cut, &["priv_validator_key.json"]),
        (KEY, |path| fs::write(path, "{}").expect("written"), &["priv_validator_key.json", "address"]),
        (KEY, open_to_all, &["has mode 0644", "chmod 600"]),
        (KEY, |path| fs::write(path, vec![b' '; 100_000]).expect("written"), &["larger than"]),
        ("config/node_key.json", open_to_all, &["has mode 0644", "chmod 600"]),
        ("config/node_key.json", |path| fs::write(path, "[]").expect("written"), &["node_key.json"]),
        ("data/guard", remove, &["data/guard is missing", "double sign", "never an older copy"]),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (index, (file, damage, says)) in damages.into_iter().enumerate() {
        let home = new_home(folder.path(), &format!("n{index}"));
        let secret = fs::read_to_string(home.join(KEY)).expect("text");
        let secret = secret.rsplit('"').nth(1).expect("the secret key is the last text").to_owned();
        damage(&home.join(file));
        let ended = run(&["start", "--home", text(&home)]);
        assert!(!ended.err.contains(&secret), "the secret key is repeated");
        ended.refused(3, says);
    }
    run(&["start", "--home", text(&folder.path().join("nobody"))]).refused(3, &["is not the home of a node"]);
    let home = new_home(folder.path(), "flags");
    run(&["start", "--home", text(&home), "--set", "rpc.batch=0"]).refused(3, &["--set rpc.batch", "must be"]);
    run(&["start", "--home", text(&home), "--log-level", "loud"]).refused(3, &["--log-level: log_level is \"loud\""]);
    run(&["start", "--home", text(&home), "--set", "rpc.batch"]).refused(2, &["KEY=VALUE"]);
    run(&["start", "--home", text(&home), "--set", "=1"]).refused(2, &["no key stands before ="]);
    run(&["start", "--home", text(&home), "--set", "rpc.laddr=192.0.2.1:26657"]).refused(3, &["192.0.2.1", "an address of this machine"]);
    let home = new_home(folder.path(), "file");
    fs::write(home.join("data/log"), "x").expect("written");
    run(&["start", "--home", text(&home)])
        .refused(3, &[&format!("in {}", text(&home.join("data"))), "log", "a file where a folder should be"]);
}

#[test]
fn wrong_command_lines_are_refused_with_help() {
    for args in [
        &["fly"][..],
        &["localnet", "--validators", "0"],
        &["localnet", "--validators", "101"],
        &["localnet", "--for", "5"],
        &["localnet", "--rpc-port", "70000"],
        &["tx"],
        &["tx", "a=b", "--hex", "00"],
        &["query"],
        &["bench", "--rate", "0"],
        &["bench", "--size", "1"],
        &["testnet", "--validators", "4"],
    ] {
        let ended = run(args);
        assert_eq!(ended.code, Some(2), "{args:?}");
        assert!(ended.err.contains("--help") || ended.err.contains("Usage"), "{args:?}: {}", ended.err);
    }
    run(&["bench", "--batch", "2", "--via", "commit"]).refused(2, &["--batch is 2: must be 1"]);
    run(&["bench", "--endpoints", "ftp://a"]).refused(2, &["is not an RPC endpoint"]);
    run(&["bench", "--for", "0s"]).refused(2, &["--for is 0s: must be longer"]);
    run(&["tx", "--file", "nofile"]).refused(3, &["cannot read nofile", "check the path"]);
    run(&["query", "k", "--home", "nowhere"]).refused(3, &["--genesis FILE"]);
    run(&["query", "k", "--trust-height", "0", "--trust-hash", "00"]).refused(2, &["a whole number from 1"]);
    run(&["query", "k", "--trust-height", "1", "--trust-hash", "00"]).refused(2, &["64 hex digits"]);
    run(&["testnet", "--output", "t"]).refused(2, &["--hosts", "--starting-ip"]);
    run(&["tx", "--hex", "0g"]).refused(2, &["--hex", "hex digits"]);
    for command in ["init", "testnet", "localnet", "start", "status", "tx", "query", "keys", "bench", "inspect", "replay", "rollback"] {
        let help = run(&[command, "--help"]).done();
        assert!(help.contains("Usage:"), "{command}");
        assert!(command == "keys" || help.contains("Example"), "{command} teaches by example");
    }
}
