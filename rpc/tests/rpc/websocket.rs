//! The WebSocket, with a client that is not ours.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use lockstep_rpc::{Limits, Options};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::chain::Chain;
use crate::node::Node;

type Socket = WebSocketStream<TcpStream>;

async fn connect(addr: SocketAddr) -> Socket {
    let stream = TcpStream::connect(addr).await.unwrap();
    client_async(format!("ws://{addr}/websocket"), stream).await.unwrap().0
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn ask(socket: &mut Socket, frame: &str) -> Value {
    socket.send(Message::text(frame)).await.unwrap();
    next(socket).await
}

/// The code with which the server ends the connection.
async fn farewell(socket: &mut Socket) -> CloseCode {
    match socket.next().await {
        Some(Ok(Message::Close(Some(frame)))) => frame.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn calls_over_the_websocket() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut socket = connect(addr).await;
    let health = json!({ "jsonrpc": "2.0", "id": 123456789012u64, "result": {} });
    assert_eq!(ask(&mut socket, r#"{"id":123456789012,"method":"health"}"#).await, health);
    socket.send(Message::binary(r#"{"id":123456789012,"method":"health"}"#)).await.unwrap();
    assert_eq!(next(&mut socket).await, health);
    assert_eq!(ask(&mut socket, r#"{"id":1,"method":"block","params":{"height":"2"}}"#).await["result"]["block"]["header"]["height"], "2");
    // A parameter that does not convert has another code here than over HTTP.
    let refused = ask(&mut socket, r#"{"id":1,"method":"block","params":{"height":"x"}}"#).await;
    assert_eq!((&refused["error"]["code"], &refused["error"]["message"]), (&json!(-32603), &json!("Internal error")));
    assert!(refused["error"]["data"].as_str().unwrap().starts_with("error converting json params to arguments: "));
    assert_eq!(ask(&mut socket, r#"{"id":1,"method":"nonsense"}"#).await["error"]["code"], -32601);
    for frame in ["", "{", "5", r#"[{"id":1,"method":"health"}]"#, r#"{"id":true,"method":"health"}"#] {
        let error = ask(&mut socket, frame).await;
        assert_eq!((&error["error"]["code"], error.get("id")), (&json!(-32700), None), "{frame}");
    }
    // Notifications have no reply: the next one is for what follows.
    for frame in [r#"{"method":"health"}"#, "null", "{}"] {
        socket.send(Message::text(frame)).await.unwrap();
    }
    assert_eq!(ask(&mut socket, r#"{"id":"last","method":"health"}"#).await["id"], "last");
}

#[tokio::test]
async fn a_slow_call_does_not_hold_up_the_others() {
    let (node, _server, addr) = Node::new(Chain::story()).serve().await;
    let (open, gate) = mpsc::channel();
    *node.gate.lock().unwrap() = Some(gate);
    let mut socket = connect(addr).await;
    socket.send(Message::text(r#"{"id":"slow","method":"abci_query","params":{"path":"/gate"}}"#)).await.unwrap();
    assert_eq!(ask(&mut socket, r#"{"id":"quick","method":"health"}"#).await["id"], "quick");
    open.send(()).unwrap();
    assert_eq!(next(&mut socket).await["id"], "slow");
}

#[tokio::test]
async fn calls_under_way_are_bounded() {
    let limits = Limits { websocket_calls: 1, commit_wait: Duration::from_secs(3_600), ..Limits::default() };
    let (node, _server, addr) = Node::new(Chain::story()).serve_with(Options { limits, ..Options::default() }).await;
    let mut socket = connect(addr).await;
    socket.send(Message::text(r#"{"id":1,"method":"broadcast_tx_commit","params":{"tx":"bmV2ZXI="}}"#)).await.unwrap();
    socket.send(Message::text(r#"{"id":2,"method":"broadcast_tx_async","params":{"tx":"YT0x"}}"#)).await.unwrap();
    // Another client's call made after the first was taken: the second frame of the first client was not.
    while node.broadcasts.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut other = connect(addr).await;
    ask(&mut other, r#"{"id":3,"method":"broadcast_tx_async","params":{"tx":"Yj0x"}}"#).await;
    let order: Vec<Vec<u8>> = node.broadcasts.lock().unwrap().iter().map(|(tx, _)| tx.clone()).collect();
    assert_eq!(order, [&b"never"[..], b"b=1"]);
}

#[tokio::test]
async fn who_answers_pings_stays() {
    let silence = Duration::from_secs(3);
    let limits = Limits { websocket_ping: Duration::from_millis(20), websocket_silence: silence, ..Limits::default() };
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(Options { limits, ..Options::default() }).await;
    let mut socket = connect(addr).await;
    // Reading is what makes this client answer.
    let start = Instant::now();
    while start.elapsed() < silence + Duration::from_secs(1) {
        assert!(matches!(socket.next().await.unwrap().unwrap(), Message::Ping(_)));
    }
    assert_eq!(ask(&mut socket, r#"{"id":1,"method":"health"}"#).await["id"], 1);
}

#[tokio::test]
async fn silence_ends_the_connection() {
    let limits = Limits { websocket_silence: Duration::from_millis(100), ..Limits::default() };
    let (_node, _server, addr) = Node::new(Chain::story()).serve_with(Options { limits, ..Options::default() }).await;
    let mut socket = connect(addr).await;
    assert!(matches!(socket.next().await, None | Some(Err(_))), "nothing was said, and the connection ended");
}

#[tokio::test]
async fn frames_are_bounded_and_origins_checked() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut socket = connect(addr).await;
    let _ = socket.send(Message::text(" ".repeat(1_000_001))).await;
    assert_eq!(farewell(&mut socket).await, CloseCode::Size, "too large a frame ends the connection, and says why");
    // In pieces, too, which go on while the answer comes.
    let mut socket = connect(addr).await;
    for piece in 0..5 {
        let opcode = if piece == 0 { OpCode::Data(Data::Text) } else { OpCode::Data(Data::Continue) };
        let _ = socket.send(Message::Frame(Frame::message(vec![b' '; 300_000], opcode, false))).await;
    }
    assert_eq!(farewell(&mut socket).await, CloseCode::Size);

    for (origin, let_in) in [("http://localhost:1", true), ("https://evil.example", false)] {
        let mut request = format!("ws://{addr}/websocket").into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        let answer = client_async(request, TcpStream::connect(addr).await.unwrap()).await;
        match answer {
            Ok(_) => assert!(let_in, "{origin}"),
            Err(Error::Http(response)) => assert!(!let_in && response.status() == 403, "{origin}"),
            Err(error) => panic!("{error}"),
        }
    }
    // A plain GET is not an upgrade.
    let reply = crate::http::Http::connect(addr).await.get("/websocket").await;
    assert!((400..500).contains(&reply.status));
}

#[tokio::test]
async fn large_messages_of_all_clients_share_one_room() {
    let limits = Limits { requests_bytes: 600_000, ..Limits::default() };
    let (node, _server, addr) = Node::new(Chain::story()).serve_with(Options { limits, ..Options::default() }).await;
    // The head of a frame is enough to take it: 700,000 bytes are claimed, and the room is one of the largest request.
    let mut raw = connect(addr).await.into_inner();
    raw.write_all(&[&[0x81, 0x80 | 127][..], &700_000_u64.to_be_bytes(), &[0; 4]].concat()).await.unwrap();
    // Whether the server has read that shows in what it says to others.
    let call = format!(r#"{{"id":1,"method":"health","x":"{}"}}"#, "x".repeat(400_000));
    loop {
        let mut other = connect(addr).await;
        other.send(Message::text(call.clone())).await.unwrap();
        match other.next().await.unwrap().unwrap() {
            Message::Text(_) => {}
            Message::Close(Some(frame)) if frame.code == CloseCode::Again => break,
            other => panic!("{other:?}"),
        }
    }
    let mut small = connect(addr).await;
    assert_eq!(ask(&mut small, r#"{"id":1,"method":"health"}"#).await["id"], 1, "small ones are served");
    let refused = crate::http::Http::connect(addr).await.post(call.as_bytes()).await;
    assert_eq!(refused.status, 503, "and a POST of that size is not, either");
    // The claim is given back when its client leaves.
    drop(raw);
    let mut http = crate::http::Http::connect(addr).await;
    while http.post(call.as_bytes()).await.status == 503 {
        http = crate::http::Http::connect(addr).await;
    }
    // A call under way holds its room until it is answered.
    let (open, gate) = mpsc::channel();
    *node.gate.lock().unwrap() = Some(gate);
    let slow = format!(r#"{{"id":"slow","method":"abci_query","params":{{"path":"/gate"}},"x":"{}"}}"#, "x".repeat(700_000));
    small.send(Message::text(slow)).await.unwrap();
    while http.post(call.as_bytes()).await.status != 503 {}
    open.send(()).unwrap();
    assert_eq!(next(&mut small).await["id"], "slow");
    let mut http = crate::http::Http::connect(addr).await;
    assert_eq!(http.post(call.as_bytes()).await.status, 200);
}

#[tokio::test]
async fn websockets_count_as_connections_and_end_with_the_server() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let (_node, server, addr) = Node::new(Chain::story()).serve_with(Options { limits, ..Options::default() }).await;
    let mut socket = connect(addr).await;
    assert_eq!(ask(&mut socket, r#"{"id":1,"method":"health"}"#).await["id"], 1);
    assert_eq!(crate::http::Http::connect(addr).await.get("/health").await.status, 503);
    let stopping = tokio::spawn(server.shutdown());
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_farewell_is_answered() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut socket = connect(addr).await;
    let bye = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.send(Message::Close(Some(bye.clone()))).await.unwrap();
    let answer = socket.next().await;
    assert!(matches!(&answer, Some(Ok(Message::Close(Some(frame)))) if frame.code == bye.code), "{answer:?}");
    assert!(socket.next().await.is_none(), "and then the connection ends");
}
