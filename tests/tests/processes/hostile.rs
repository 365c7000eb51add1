//! Bytes that no honest client or peer sends, against nodes that run. Whatever the answer, the nodes live, and commit.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_tests::net::{Net, VALIDATORS};
use lockstep_tests::program::wait_until;
use lockstep_tests::rpc::{CallError, Client, Endpoint};
use serde_json::{Value, json};

/// Connections that are opened and left.
const HALF_OPEN: usize = 300;
/// The largest request by default (`rpc.body_bytes`).
const BODY_BYTES: usize = 1_000_000;
/// Clients that ask for what is costly, at once.
const READERS: usize = 48;
/// A transaction that is nearly as long as one may be by default.
const LARGE_TX_BYTES: usize = 250_000;
/// Transactions that commit one after the other under their reads.
const COMMITS_MEANWHILE: u64 = 20;
/// The most requests in a batch by default (`rpc.batch`).
const BATCH: usize = 100;

/// Asserts that every node still runs, answers, and that a transaction commits through the attacked one.
#[track_caller]
fn assert_well(net: &mut Net, after: &str) {
    let (_, height) = net.commit_tx(0, &format!("after={}", after.replace(' ', "-")));
    net.wait_all(after, |at| at >= height);
    net.assert_same([height]);
    net.assert_alive();
}

/// What a node answers to this body, if it answers: it may also close the connection. What it answers is JSON.
fn answer_to(client: &mut Client, body: &[u8]) -> Option<(u16, Value)> {
    let (status, answer) = client.post(body).ok()?;
    let answer = if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer).unwrap_or(Value::Null) };
    Some((status, answer))
}

#[test]
fn a_node_survives_what_clients_should_not_send() {
    let mut net = Net::started();
    let mut client = net.client(0);

    let good =
        json!({"jsonrpc": "2.0", "id": 7, "method": "abci_query", "params": {"path": "/store", "data": "6B", "prove": true}}).to_string();
    let (status, answer) = answer_to(&mut client, good.as_bytes()).expect("an answer");
    assert!(status == 200 && answer["result"].is_object(), "the request that is broken below is a good one: {answer}");
    for end in 0..good.len() {
        let answer = answer_to(&mut client, &good.as_bytes()[..end]);
        assert!(answer.is_none_or(|(_, answer)| answer["result"].is_null()), "cut off after {end} bytes it has no result");
    }
    assert_well(&mut net, "truncated requests");
    for at in 0..good.len() {
        for with in [b'"', b'{', 0, 0xff, good.as_bytes()[at] ^ 1] {
            let mut broken = good.clone().into_bytes();
            broken[at] = with;
            // Some are other good requests. That each is answered or refused, and the node lives, is all that can be said.
            answer_to(&mut client, &broken);
        }
    }
    assert_well(&mut net, "changed requests");

    let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let deeper = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"status","params":{}{}}}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let batch = |count: usize| Value::Array(vec![json!({"jsonrpc": "2.0", "id": 1, "method": "health", "params": {}}); count]).to_string();
    let large = json!({"jsonrpc": "2.0", "id": 1, "method": "health", "params": {"x": "x".repeat(BODY_BYTES)}}).to_string();
    let huge_tx =
        json!({"jsonrpc": "2.0", "id": 1, "method": "broadcast_tx_sync", "params": {"tx": "A".repeat(BODY_BYTES / 2)}}).to_string();
    let numbers = r#"{"jsonrpc":"2.0","id":1,"method":"block","params":{"height":"99999999999999999999999999"}}"#;
    let negative = r#"{"jsonrpc":"2.0","id":1,"method":"commit","params":{"height":"-1"}}"#;
    for refused in
        [&deep[..], deeper.as_bytes(), large.as_bytes(), huge_tx.as_bytes(), numbers.as_bytes(), negative.as_bytes(), b"", b"null", b"[]"]
    {
        let answer = answer_to(&mut client, refused);
        let start = String::from_utf8_lossy(&refused[..refused.len().min(60)]);
        assert!(answer.is_none_or(|(_, answer)| answer["result"].is_null()), "{start} has no result");
    }
    let (_, answer) = answer_to(&mut client, batch(BATCH).as_bytes()).expect("an answer");
    assert_eq!(answer.as_array().map(Vec::len), Some(BATCH), "the largest batch is answered");
    let beyond = answer_to(&mut client, batch(BATCH + 1).as_bytes());
    assert!(beyond.is_none_or(|(_, answer)| answer.as_array().is_none_or(|answers| answers.len() <= 1)), "one more is refused as a whole");
    assert_well(&mut net, "deep and oversized requests");

    for bytes in garbage() {
        throw(net.rpc(0), &bytes);
    }
    assert_well(&mut net, "no HTTP at all");

    // Connections that are opened and left; and requests that never end, a byte now and then.
    let open: Vec<TcpStream> = (0..HALF_OPEN).filter_map(|_| Endpoint::from(net.rpc(0)).connect().ok()).collect();
    let mut slow: Vec<TcpStream> = (0..HALF_OPEN / 3).filter_map(|_| Endpoint::from(net.rpc(0)).connect().ok()).collect();
    for (number, part) in
        ["POST / HTTP/1.1\r\n", "Host: 127.0.0.1\r\n", "Content-Length: 1000\r\n", "\r\n", "{", "\"jsonrpc\""].iter().enumerate()
    {
        for stream in &mut slow {
            // Whether the server has closed it by now is its business.
            let _ = stream.write_all(part.as_bytes());
        }
        assert_well(&mut net, &format!("slow requests {number}"));
    }
    drop((open, slow));
    assert_well(&mut net, "connections left");
}

#[test]
fn a_node_survives_what_peers_should_not_send() {
    let mut net = Net::started();
    for bytes in garbage() {
        throw(net.p2p(0), &bytes);
    }
    assert_well(&mut net, "garbage from peers");

    // The first message of multistream-select and of Noise, and every way of breaking them.
    const OPENING: &[u8] = b"\x13/multistream/1.0.0\n\x07/noise\n";
    for end in 0..OPENING.len() {
        throw(net.p2p(0), &OPENING[..end]);
    }
    for at in 0..OPENING.len() {
        let mut broken = OPENING.to_vec();
        broken[at] ^= 0xff;
        throw(net.p2p(0), &broken);
    }
    for length in [0u16, 1, 31, 32, 96, u16::MAX] {
        let noise = vec![0xa5; usize::from(length)];
        throw(net.p2p(0), &[OPENING, &length.to_be_bytes(), &noise].concat());
    }
    assert_well(&mut net, "broken handshakes");

    // More that never finish their handshake than a node holds: honest peers that come meanwhile are let in when these time out.
    let mut open: Vec<TcpStream> = (0..HALF_OPEN).filter_map(|_| Endpoint::from(net.p2p(0)).connect().ok()).collect();
    for stream in &mut open {
        // Whether the node has closed it by now is its business.
        let _ = stream.write_all(&OPENING[..5]);
    }
    assert_well(&mut net, "half-open connections");
    net.kill(&[VALIDATORS - 1]);
    net.start(VALIDATORS - 1);
    let mut back = net.client(VALIDATORS - 1);
    wait_until("a validator that comes back meanwhile has all its peers", || {
        let peers = back.call("net_info", json!({})).ok()?["n_peers"].as_str()?.parse::<usize>().ok()?;
        (peers == VALIDATORS - 1).then_some(())
    });
    drop(open);
    assert_well(&mut net, "half-open connections left");
}

/// What costs most to answer, asked by more clients than are answered at a time, each of the same validator as often as it can: that node
/// says when it is overloaded, and goes on committing with the others, by the transactions that it is given meanwhile.
#[test]
fn heavy_reads_of_many_clients_do_not_hold_up_blocks() {
    let mut net = Net::started();
    // A block near its bound, whose answer is as large as any.
    let (_, large) = net.commit_tx(0, &format!("large={}", "x".repeat(LARGE_TX_BYTES)));
    net.commit_tx(0, "key=value");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (mut client, done) = (net.client(0), &done);
                let block = json!({"height": large.to_string()});
                let calls = [
                    ("block", block.clone()),
                    ("block_results", block),
                    ("blockchain", json!({})),
                    ("genesis", json!({})),
                    ("abci_query", json!({"path": "/store", "data": hex("large"), "prove": true})),
                    ("abci_query", json!({"path": "/store", "data": hex("missing"), "prove": true})),
                ];
                scope.spawn(move || {
                    let (mut answered, mut refused) = (0u64, 0u64);
                    for (method, params) in calls.iter().cycle().skip(reader % calls.len()) {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        match client.call(method, params.clone()) {
                            Ok(_) => answered += 1,
                            Err(CallError::Refused(error)) => {
                                assert!(error.to_string().contains("overloaded"), "{method}: {error}");
                                refused += 1;
                            }
                            // Too many connections of one address: closed, and opened anew.
                            Err(CallError::Lost(_)) => refused += 1,
                        }
                    }
                    (answered, refused)
                })
            })
            .collect();
        for number in 0..COMMITS_MEANWHILE {
            net.commit_tx(0, &format!("meanwhile-{number}=1"));
        }
        done.store(true, Ordering::Relaxed);
        let (answered, refused) = readers
            .into_iter()
            .map(|reader| reader.join().expect("a reader"))
            .fold((0, 0), |(answered, refused), more| (answered + more.0, refused + more.1));
        println!("{answered} heavy reads answered, {refused} refused, while {COMMITS_MEANWHILE} transactions committed");
        assert!(answered >= COMMITS_MEANWHILE, "they were asked all the time: {answered} answered, {refused} refused");
    });
    assert_well(&mut net, "heavy reads");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02X}")).collect()
}

/// Bytes that are nothing in particular, from short to more than any frame.
fn garbage() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = vec![
        b"\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        [b"GET /".as_slice(), &[b'a'; 200_000], b" HTTP/1.1\r\n\r\n"].concat(),
        [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(20_000), b"\r\n"].concat(),
    ];
    for length in [1usize, 2, 64, 4_096, 70_000, 1_000_000] {
        for fill in [0u8, 0x7f, 0xff] {
            all.push(vec![fill; length]);
        }
        let mut state = u32::try_from(length).expect("small");
        all.push(
            std::iter::repeat_with(|| {
                // A linear congruential generator (Numerical Recipes): any bytes will do, and the same ones in each run.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .take(length)
            .collect(),
        );
    }
    all
}

/// Sends these bytes over a connection of their own and takes what comes back until it is closed or a moment is over.
fn throw(to: SocketAddr, bytes: &[u8]) {
    let Ok(mut stream) = Endpoint::from(to).connect() else { return };
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
    // The other side may close at any byte.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = [0; 4096];
    while stream.read(&mut answer).is_ok_and(|length| length > 0) {}
}
