//! What HTTP itself shows: status codes, bounds, who may call, and how the server ends.

use std::sync::mpsc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use lockstep_rpc::{Limits, Options};
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::http::Http;
use crate::node::Node;

fn limited(limits: Limits) -> Options {
    Options { limits, ..Options::default() }
}

#[tokio::test]
async fn a_batch_is_answered_in_order() {
    let (node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let batch = r#"[
        {"id":1,"method":"broadcast_tx_async","params":{"tx":"Yj0x"}},
        {"id":"two","method":"header","params":{"height":"2"}},
        {"method":"broadcast_tx_async","params":{"tx":"bm90aWZpY2F0aW9u"}},
        {"id":3,"method":"nonsense"},
        {"id":4,"method":"broadcast_tx_async","params":{"tx":"YT0x"}}
    ]"#;
    let reply = http.post(batch.as_bytes()).await;
    let json = reply.json();
    let ids: Vec<&Value> = json.as_array().unwrap().iter().map(|reply| &reply["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!("two"), &json!(3), &json!(4)]);
    assert_eq!((&json[1]["result"]["header"]["height"], &json[2]["error"]["code"]), (&json!("2"), &json!(-32601)));
    let order: Vec<Vec<u8>> = node.broadcasts.lock().unwrap().iter().map(|(tx, _)| tx.clone()).collect();
    assert_eq!(order, [b"b=1", b"a=1"]);
    // One reply is a bare object.
    let reply = http.post(br#"[{"id":9,"method":"health"},{"method":"health"}]"#).await;
    assert_eq!(reply.json(), json!({ "jsonrpc": "2.0", "id": 9, "result": {} }));
}

#[tokio::test]
async fn batches_and_bodies_are_bounded() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let batch = |count: usize| format!("[{}]", vec![r#"{"id":1,"method":"health"}"#; count].join(","));
    let reply = http.post(batch(100).as_bytes()).await;
    assert_eq!((reply.status, reply.json().as_array().unwrap().len()), (200, 100));
    for count in [101, 30_000] {
        let reply = http.post(batch(count).as_bytes()).await;
        let data = format!("batch of {count} requests, at most 100 are taken");
        let error = json!({ "jsonrpc": "2.0", "error": { "code": -32600, "message": "Invalid Request", "data": data } });
        assert_eq!((reply.status, reply.json()), (200, error));
    }
    let body = |bytes: usize| {
        let mut body = br#"{"id":1,"method":"health"}"#.to_vec();
        body.resize(bytes, b' ');
        body
    };
    assert_eq!(http.post(&body(1_000_000)).await.status, 200);
    let data = "error reading request body: request body too large";
    let error = json!({ "jsonrpc": "2.0", "error": { "code": -32600, "message": "Invalid Request", "data": data } });
    let reply = http.post(&body(1_000_001)).await;
    assert_eq!((reply.status, reply.json(), reply.headers["connection"].as_str()), (400, error.clone(), "close"));
    // Without a length, too; and the connection is closed, so that what follows is not read as a request.
    let mut http = Http::connect(addr).await;
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 65_536], b"\r\n"].concat();
    let chunked = [b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(), &chunk.repeat(16)].concat();
    let reply = http.exchange(&chunked).await.unwrap();
    assert_eq!((reply.status, reply.json()), (400, error));
    assert!(http.read().await.is_none());
}

#[tokio::test]
async fn large_requests_of_all_clients_share_one_room() {
    let options = limited(Limits { body_bytes: 500_000, requests_bytes: 600_000, ..Limits::default() });
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let call = |bytes: usize| {
        let mut body = br#"{"id":1,"method":"health"}"#.to_vec();
        body.resize(bytes, b' ');
        body
    };
    let body = call(400_000);
    let mut slow = Http::connect(addr).await;
    slow.write(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 400000\r\n\r\n").await;
    slow.write(&body[..300_000]).await;
    // Whether the server has read that shows in what it says to others.
    let refused = loop {
        let reply = Http::connect(addr).await.post(&body).await;
        if reply.status != 200 {
            break reply;
        }
    };
    assert_eq!((refused.status, refused.headers["connection"].as_str()), (503, "close"));
    let data = "the node is overloaded: too many large requests are under way, try again later";
    assert_eq!(refused.json()["error"]["data"], data);
    assert_eq!(Http::connect(addr).await.post(&call(16_000)).await.status, 200, "small ones are not counted");
    slow.write(&body[300_000..]).await;
    assert_eq!(slow.read().await.expect("an answer").status, 200, "who was there first is served");
    assert_eq!(Http::connect(addr).await.post(&body).await.status, 200, "and gave its room back");
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_connection() {
    let options = limited(Limits { body_wait: Duration::from_millis(50), ..Limits::default() });
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let mut http = Http::connect(addr).await;
    let reply = http.exchange(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{").await.expect("an answer");
    // As CometBFT's server answers what it cannot read.
    let data = "error reading request body: the body took too long";
    let error = json!({ "jsonrpc": "2.0", "error": { "code": -32600, "message": "Invalid Request", "data": data } });
    assert_eq!((reply.status, reply.json(), reply.headers["connection"].as_str()), (400, error, "close"));
    assert!(http.read().await.is_none());
}

#[tokio::test]
async fn a_reply_to_a_batch_is_bounded() {
    let options = limited(Limits { reply_bytes: 1_000, ..Limits::default() });
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let batch = format!("[{}]", [r#"{"id":1,"method":"genesis"}"#; 3].join(","));
    let reply = Http::connect(addr).await.post(batch.as_bytes()).await.json();
    assert!(reply[0].get("result").is_some() && reply[1].get("result").is_some(), "{reply}");
    assert_eq!(reply[2]["error"]["data"], "the answers of this batch exceed 1000 bytes, ask for less at a time");
}

#[tokio::test]
async fn paths_and_verbs() {
    let routes = Router::new().route("/metrics", get(async || "height 4\n"));
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(Options { routes, ..Options::default() }).await;
    let mut http = Http::connect(addr).await;
    for reply in [http.get("/").await, http.post(b"").await] {
        assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "text/html; charset=utf-8"));
        assert!(reply.body.contains(r#"<a href="/broadcast_tx_sync">"#));
    }
    let page = http.get("/?%3Cscript%3Ealert(1)%3C/script%3E").await;
    assert!(page.status == 200 && !page.body.contains("script"));
    assert_eq!(http.get("/metrics").await.body, "height 4\n");
    assert_eq!(http.get("/health").await.body, r#"{"jsonrpc":"2.0","id":-1,"result":{}}"#);
    for path in ["/health", "/status", "/nonsense", "/a/b"] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}");
        assert_eq!(http.exchange(request.as_bytes()).await.unwrap().status, 404, "{path}");
    }
    for content_type in ["", "content-type: text/plain\r\n", "content-type: nonsense\r\n"] {
        let body = r#"{"id":1,"method":"health"}"#;
        let request = format!("POST / HTTP/1.1\r\nhost: localhost\r\n{content_type}content-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(http.exchange(request.as_bytes()).await.unwrap().status, 200);
    }
    let put = http.exchange(b"PUT / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(put.status, 405);
}

#[tokio::test]
async fn only_known_hosts_and_origins_are_let_in() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let mut status = async |headers: &str| {
        let request = format!("GET /health HTTP/1.1\r\n{headers}\r\n");
        let reply = http.exchange(request.as_bytes()).await.unwrap();
        assert!(!reply.headers.contains_key("access-control-allow-origin"));
        assert!(!reply.body.contains("evil"), "nothing is repeated");
        reply.status
    };
    for host in ["localhost", "LOCALHOST:26657", "127.0.0.1", "127.0.0.1:1", "127.9.9.9:26657", "[::1]", "[::1]:26657"] {
        assert_eq!(status(&format!("Host: {host}\r\n")).await, 200, "{host}");
    }
    for host in
        ["evil.example", "evil.example:26657", "127.0.0.1.evil.example", "localhost.evil", "10.0.0.1", "[::2]:1", "", "@127.0.0.1:1"]
    {
        assert_eq!(status(&format!("Host: {host}\r\n")).await, 403, "{host}");
    }
    assert_eq!(status("Host: localhost\r\nHost: evil.example\r\n").await, 403);
    for origin in ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:80"] {
        assert_eq!(status(&format!("Host: localhost\r\nOrigin: {origin}\r\n")).await, 200, "{origin}");
    }
    for origin in ["http://evil.example", "null", "", "http://127.0.0.1.evil.example", "localhost"] {
        assert_eq!(status(&format!("Host: localhost\r\nOrigin: {origin}\r\n")).await, 403, "{origin}");
    }
}

#[tokio::test]
async fn listed_hosts_and_origins_are_let_in() {
    let options = Options { hosts: vec!["node.example".into()], origins: vec!["https://wallet.example".into()], ..Options::default() };
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let mut http = Http::connect(addr).await;
    let mut ask = async |verb: &str, host: &str, origin: &str| {
        let request = format!("{verb} / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
        http.exchange(request.as_bytes()).await.unwrap()
    };
    let reply = ask("GET", "node.example:443", "https://wallet.example").await;
    assert_eq!((reply.status, reply.headers["access-control-allow-origin"].as_str()), (200, "https://wallet.example"));
    assert_eq!(reply.headers["vary"], "Origin");
    let preflight = ask("OPTIONS", "node.example", "https://wallet.example").await;
    assert_eq!((preflight.status, preflight.headers["access-control-allow-methods"].as_str()), (204, "GET, POST, OPTIONS"));
    assert_eq!(ask("GET", "other.example", "https://wallet.example").await.status, 403);
    assert_eq!(ask("GET", "node.example", "https://other.example").await.status, 403);

    let options = Options { origins: vec!["*".into()], ..Options::default() };
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let reply =
        Http::connect(addr).await.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://any.example\r\n\r\n").await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let options = limited(Limits { connections: 1, ..Limits::default() });
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let mut first = Http::connect(addr).await;
    assert_eq!(first.get("/health").await.status, 200);
    let mut second = Http::connect(addr).await;
    let reply = second.get("/health").await;
    assert_eq!((reply.status, reply.json()["error"]["data"].as_str()), (503, Some("too many connections, try again later")));
    assert!(second.read().await.is_none());
    assert_eq!(first.get("/health").await.status, 200, "who is in stays in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_reads_are_told_of_overload_and_nobody_else_waits() {
    let options = limited(Limits { readers: 1, read_wait: Duration::from_millis(20), ..Limits::default() });
    let (node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let (open, gate) = mpsc::channel();
    *node.gate.lock().unwrap() = Some(gate);
    let mut slow = Http::connect(addr).await;
    let body = r#"{"id":1,"method":"abci_query","params":{"path":"/gate"}}"#;
    slow.write(format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
    // The gate's lock is held by the slow read from the moment it waits.
    while node.gate.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    let mut other = Http::connect(addr).await;
    let reply = other.post(br#"{"id":2,"method":"status"}"#).await;
    assert_eq!(reply.json()["error"]["data"], "the node is overloaded: too many reads are waiting, try again later");
    let reply = other.post(br#"{"id":3,"method":"broadcast_tx_async","params":{"tx":"YT0x"}}"#).await;
    assert!(reply.json().get("result").is_some(), "writes do not wait for reads");
    open.send(()).unwrap();
    assert!(slow.read().await.unwrap().json().get("result").is_some());
}

#[tokio::test]
async fn slow_senders_are_cut_off() {
    let short = Duration::from_millis(50);
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(limited(Limits { body_wait: short, ..Limits::default() })).await;
    let mut body = Http::connect(addr).await;
    let reply = body.exchange(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!(-32600)));

    let options = limited(Limits { header_wait: short, ..Limits::default() });
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let mut idle = Http::connect(addr).await;
    assert!(idle.read().await.is_none(), "a connection without a request is closed");
    let mut half = Http::connect(addr).await;
    half.write(b"GET /health HTTP/1.1\r\nhost: loc").await;
    assert!(half.read().await.is_none(), "half a request is not waited for");
}

#[tokio::test]
async fn who_does_not_read_is_cut_off() {
    let genesis = format!(r#"{{"app_state":"{}"}}"#, "x".repeat(15 * 1024 * 1024));
    let options = limited(Limits { connections: 1, write_wait: Duration::from_millis(50), ..Limits::default() });
    let (_node, _server, addr) = Node { genesis: genesis.into(), ..Node::new(Chain::story()) }.serve_with(options).await;
    let mut deaf = Http::connect(addr).await;
    deaf.write(b"GET /genesis HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    // Its place is free again once it is cut off; until then others are turned away.
    while Http::connect(addr).await.get("/health").await.status == 503 {}
    assert!(deaf.read().await.is_none(), "what the sockets held is all that is left of the reply");
}

#[tokio::test]
async fn a_stopping_server_ends_what_it_began() {
    let (node, server, addr) = Node::new(Chain::story()).serve().await;
    let mut idle = Http::connect(addr).await;
    assert_eq!(idle.get("/health").await.status, 200);
    let (open, gate) = mpsc::channel();
    *node.gate.lock().unwrap() = Some(gate);
    let mut busy = Http::connect(addr).await;
    busy.write(b"GET /abci_query?path=%22/gate%22 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    while node.gate.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    let stopping = tokio::spawn(server.shutdown());
    assert!(idle.read().await.is_none(), "idle connections are closed");
    assert!(!stopping.is_finished(), "a running call is waited for");
    open.send(()).unwrap();
    assert_eq!(busy.read().await.unwrap().status, 200);
    stopping.await.unwrap();
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_server_with_a_broken_genesis_does_not_start() {
    let node = Node { genesis: "{".into(), ..Node::new(Chain::story()) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = lockstep_rpc::serve(listener, std::sync::Arc::new(node), Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "the genesis document is not JSON");
}
