//! A home that was copied, node key and all, and runs twice.

use std::process::Command;

use lockstep_tests::net::Net;
use lockstep_tests::program::{Process, command, free_ports, text, wait_until};
use rustix::process::Signal;

const VICTIM: usize = 3;
const SAYS: &str = "Nothing is signed any more";
const IN_USE: &str = "another process uses the same node key";

/// The victim's home as it is now, beside it.
fn copy(net: &Net, name: &str) -> std::path::PathBuf {
    let home = net.home(VICTIM).with_file_name(name);
    let done = Command::new("cp").args(["-a", text(&net.home(VICTIM)), text(&home)]).status().expect("cp runs");
    assert!(done.success());
    home
}

/// On a machine of its own it would have the same ports. With the URL of its RPC.
fn start(home: &std::path::Path) -> (Process, String) {
    let ports = free_ports(2);
    let (rpc, p2p) = (format!("rpc.laddr=127.0.0.1:{}", ports[0]), format!("p2p.laddr=127.0.0.1:{}", ports[1]));
    let process = Process::start(command(["start", "--home", text(home), "--set", &rpc, "--set", &p2p]), home.join("copy.log"));
    (process, format!("http://127.0.0.1:{}", ports[0]))
}

fn status(url: &str) -> String {
    let output = command(["status", "--node", url]).output().expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Of a process that ended nothing can be waited for.
fn log_of(process: &mut Process) -> String {
    let (ended, log) = (process.exit_code(), process.log());
    assert!(ended.is_none(), "it ended with {ended:?}:\n{log}");
    log
}

/// Keeps the chain busy until the victim's signature stands in a commit that is made from now on.
fn signs(net: &Net, tag: &str) {
    let (address, mut other) = (net.address(VICTIM), net.client(0));
    let mut at = other.height().expect("it serves");
    let mut numbers = 0..;
    wait_until("the victim signs", || {
        net.commit_tx(0, &format!("{tag}{}=1", numbers.next()?));
        let newest = other.height().expect("it serves");
        let signed = (at + 1..newest).any(|height| other.signers(height).expect("a commit").contains(&address));
        at = at.max(newest - 1);
        signed.then_some(())
    });
}

/// Displacing each other for ever, neither would hear the other, and both would sign. The others keep the one that they met first.
#[test]
fn attack_71_a_copy_of_a_home_with_its_node_key_is_kept_out_or_stops_and_says_why() {
    let mut net = Net::started();
    signs(&net, "before");

    // A copy that is older than what the validator signed since.
    net.stop(VICTIM);
    let old = copy(&net, "old");
    net.start(VICTIM);
    signs(&net, "since");
    let (mut twin, url) = start(&old);
    wait_until("the copy is told", || log_of(&mut twin).contains(IN_USE).then_some(()));
    signs(&net, "beside");
    let log = net.process(VICTIM).log();
    assert!(!log.contains(SAYS) && !log.contains(IN_USE), "the validator goes on:\n{log}");
    assert!(net.process(0).log().contains(IN_USE), "who is not there says nothing; the others do");

    // The place is free: the copy meets what its key signed since, before it signs anything.
    net.stop(VICTIM);
    wait_until("the copy stops", || log_of(&mut twin).contains(SAYS).then_some(()));
    assert!(twin.log().contains("restored from an older copy"), "{}", twin.log());
    let mut height = net.client(0).height().expect("it serves");
    let address = net.address(VICTIM);
    for number in 0..10 {
        height = net.commit_tx(0, &format!("alone{number}=1")).1.max(height);
    }
    let signers = net.client(0).signers(height - 1).expect("a commit");
    assert!(!signers.contains(&address), "the copy signs nothing: {signers:?}");

    // The copy signs nothing and is connected; the validator is started beside it, and has its place at once.
    net.start(VICTIM);
    signs(&net, "beside the silent one");
    wait_until("the copy says where its place is", || status(&url).contains("3 peers keep that one").then_some(()));
    assert!(!status(&format!("http://{}", net.rpc(VICTIM))).contains("node key"), "the validator is kept out by nobody");
    twin.signal(Signal::KILL);
    twin.wait();

    // Both begin at one moment, and neither is older.
    net.stop(VICTIM);
    let same = copy(&net, "same");
    net.start(VICTIM);
    let (mut twin, _) = start(&same);
    let mut numbers = 0..;
    wait_until("one of them is kept out or stops", || {
        net.commit_tx(0, &format!("both{}=1", numbers.next()?));
        let ends = |log: String| log.contains(SAYS) || log.contains(IN_USE);
        (ends(log_of(&mut twin)) || ends(log_of(net.process(VICTIM)))).then_some(())
    });
    twin.signal(Signal::KILL);
    twin.wait();

    // The operator found the copy. Where it was the copy that signed, the validator meets that once more while it catches up, or at the
    // height that is being decided: a block comes after that.
    for start in 0..2 {
        net.stop(VICTIM);
        net.commit_tx(0, &format!("found{start}=1"));
        net.start(VICTIM);
        let tip = net.client(0).height().expect("it serves");
        wait_until("it has caught up", || (net.client(VICTIM).height().ok()? >= tip).then_some(()));
    }
    signs(&net, "after");
    net.assert_alive();
}
