//! Bytes that are no request, or nearly one: always an HTTP answer, never a panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::chain::Chain;
use crate::http::Http;
use crate::node::Node;

const REQUESTS: [&str; 4] = [
    r#"{"jsonrpc":"2.0","id":123456789012,"method":"block","params":{"height":"2"}}"#,
    r#"{"jsonrpc":"2.0","id":"a\u0062c","method":"abci_query","params":["/store","61","0",true]}"#,
    r#"[{"id":1,"method":"tx","params":{"hash":"q80=","prove":false}},{"id":2,"method":"health"}]"#,
    r#"{"id":-1.5e3,"method":"broadcast_tx_sync","params":{"tx":"YT0x"}}"#,
];

/// The reply must be one that the contract knows.
fn check(status: u16, body: &str, sent: &[u8]) {
    let sent = String::from_utf8_lossy(sent);
    if body.is_empty() {
        assert_eq!(status, 200, "{sent}");
        return;
    }
    let reply: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}\nto {sent}"));
    let elements = match reply {
        Value::Array(elements) => elements,
        single => vec![single],
    };
    for element in elements {
        assert_eq!(element["jsonrpc"], "2.0");
        let parse_error = element["error"]["code"] == -32700;
        assert_eq!(status, if parse_error { 500 } else { 200 }, "{body}\nto {sent}");
        assert_eq!(element.get("id").is_none(), parse_error, "{body}\nto {sent}");
        assert!(element.get("result").is_some() != element.get("error").is_some(), "{body}\nto {sent}");
        assert!(element["error"].get("data").is_none_or(Value::is_string), "{body}\nto {sent}");
    }
}

/// Fails when the crate under test panicked on any thread while a future ran.
async fn without_panics(run: impl Future<Output = ()>) {
    let panics = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&panics);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.location().is_some_and(|location| location.file().contains("rpc/src")) {
            counter.fetch_add(1, Ordering::SeqCst);
        }
        before(info);
    }));
    run.await;
    assert_eq!(panics.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn every_truncation_and_every_changed_byte() {
    without_panics(async {
        let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
        let mut http = Http::connect(addr).await;
        for request in REQUESTS {
            for end in 1..request.len() {
                let reply = http.post(&request.as_bytes()[..end]).await;
                check(reply.status, &reply.body, &request.as_bytes()[..end]);
                assert_eq!(reply.status, 500, "no part of a request is a request: {}", &request[..end]);
            }
            for place in 0..request.len() {
                for byte in [0x00, b' ', b'"', b'\\', b'{', b']', b'9', b'-', 0x7f, 0xc3, 0xff] {
                    let mut changed = request.as_bytes().to_vec();
                    changed[place] = byte;
                    let reply = http.post(&changed).await;
                    check(reply.status, &reply.body, &changed);
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_changed_byte_of_a_uri() {
    without_panics(async {
        let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
        for target in ["/abci_query?path=%22/store%22&data=0x61&prove=true", "/validators?height=%225%22&page=1&per_page=2"] {
            for place in 0..target.len() {
                for byte in [0x00, b' ', b'"', b'%', b'&', b'#', b'?', b'/', b'-', 0x7f, 0xff] {
                    let mut changed = target.as_bytes().to_vec();
                    changed[place] = byte;
                    let request = [b"GET ".as_slice(), &changed, b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"].concat();
                    let reply = Http::connect(addr).await.exchange(&request).await;
                    let status = reply.expect("every request is answered").status;
                    assert!([200, 400, 404, 500].contains(&status), "{status} to {}", String::from_utf8_lossy(&changed));
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn ids_come_back_as_they_were() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let ids = [
        "0",
        "1",
        "-1",
        "123456789012",
        "18446744073709551616",
        "1e400",
        "1.50",
        "-0",
        r#""""#,
        r#""x""#,
        r#""1""#,
        r#""a\"b\\ \u00e9 é""#,
        r#""5b0a8c5e-34a0-4d3e-a53c-1bd01ddfd6f4""#,
    ];
    for id in ids {
        let reply = http.post(format!(r#"{{"jsonrpc":"2.0", "id": {id} ,"method":"health"}}"#).as_bytes()).await;
        assert_eq!(reply.body, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
        let reply = http.post(format!(r#"{{"id":{id},"method":"none"}}"#).as_bytes()).await;
        assert!(reply.body.contains(&format!(r#""id":{id},"error""#)), "{}", reply.body);
    }
    for id in ["true", "false", "{}", "[]", "[1]", "nul", "01", "1.", "'x'"] {
        let reply = http.post(format!(r#"{{"id":{id},"method":"health"}}"#).as_bytes()).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &json!(-32700)), "{id}");
    }
}

#[tokio::test]
async fn notifications_do_nothing() {
    let (node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    for body in [
        r#"{}"#,
        r#"null"#,
        r#"[]"#,
        r#"[null]"#,
        r#"[{},{}]"#,
        r#"{"id":null,"method":"broadcast_tx_sync","params":["YT0x"]}"#,
        r#"{"method":"broadcast_tx_sync","params":["YT0x"]}"#,
        r#"{"method":"no such method","params":7}"#,
        r#"[{"method":"broadcast_tx_sync","params":["YT0x"]}]"#,
    ] {
        let reply = http.post(body.as_bytes()).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{body}");
    }
    assert!(node.broadcasts.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_no_request() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let bodies: [&[u8]; 17] = [
        b" ",
        b"5",
        b"true",
        b"\"health\"",
        b"{",
        b"}",
        b"[",
        b"[5]",
        b"[[]]",
        b"[[1,\"health\",null]]",
        br#"[{"id":1,"method":"health"},5]"#,
        br#"{"id":1,"method":"health"}x"#,
        br#"{"id":1,"method":7}"#,
        br#"{"id":1,"id":2,"method":"health"}"#,
        br#"{"id":1,"method":"health","method":"status"}"#,
        b"{\"id\":1,\"method\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
    ];
    for body in bodies {
        let reply = http.post(body).await;
        let json = reply.json();
        assert_eq!(reply.status, 500, "{}", String::from_utf8_lossy(body));
        assert_eq!((&json["error"]["code"], &json["error"]["message"]), (&json!(-32700), &json!("Parse error. Invalid JSON")));
        assert!(json.get("id").is_none() && json["error"]["data"].is_string());
    }
}

#[tokio::test]
async fn nesting_is_bounded() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    // The request itself and its params are two levels.
    let nested = |levels: usize| format!(r#"{{"id":1,"method":"health","params":{{"x":{}{}}}}}"#, "[".repeat(levels), "]".repeat(levels));
    assert_eq!(http.post(nested(lockstep_rpc::server::DEPTH_MAX - 2).as_bytes()).await.status, 200);
    for levels in [lockstep_rpc::server::DEPTH_MAX - 1, 100_000] {
        let reply = http.post(nested(levels).as_bytes()).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (500, &json!(-32700)));
    }
    // Brackets in strings are text.
    let text = format!(r#"{{"id":1,"method":"health","params":{{"x":"\"{}"}}}}"#, "[".repeat(1_000));
    assert_eq!(http.post(text.as_bytes()).await.status, 200);
}
