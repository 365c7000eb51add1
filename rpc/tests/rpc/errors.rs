//! Every error of the contract, over each transport that can show it.

use lockstep_types::Hash;
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::http::Http;
use crate::node::Node;

fn error(id: Value, code: i32, message: &str, data: &str) -> Value {
    let mut error = json!({ "code": code, "message": message });
    if !data.is_empty() {
        error["data"] = data.into();
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

/// What a method answers with when it fails.
fn internal(data: &str) -> Value {
    error(json!("x"), -32603, "Internal error", data)
}

async fn asked(http: &mut Http, method: &str, params: Value) -> Value {
    let reply = http.post(json!({ "id": "x", "method": method, "params": params }).to_string().as_bytes()).await;
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "application/json"));
    reply.json()
}

/// Headers, commits and validators are kept for longer than blocks: light clients ask for no more.
#[tokio::test]
async fn what_outlives_blocks_is_answered_and_the_rest_is_said_to_be_gone() {
    let mut chain = Chain::story();
    (chain.base, chain.headers) = (3, Some(2));
    let (_node, _server, addr) = Node::new(chain).serve().await;
    let mut http = Http::connect(addr).await;
    let at = |height: &str| json!({ "height": height });
    for method in ["header", "commit", "validators"] {
        assert_eq!(asked(&mut http, method, at("1")).await, internal("height 1 is not available, lowest height is 2"), "{method}");
        let answer = asked(&mut http, method, at("2")).await;
        let found = [
            &answer["result"]["header"]["height"],
            &answer["result"]["signed_header"]["header"]["height"],
            &answer["result"]["block_height"],
        ];
        assert!(found.contains(&&json!("2")), "{method}: {answer}");
    }
    for method in ["block", "block_results", "consensus_params"] {
        assert_eq!(asked(&mut http, method, at("2")).await, internal("height 2 is not available, lowest height is 3"), "{method}");
    }
}

#[tokio::test]
async fn methods_say_why_they_have_no_answer() {
    let mut chain = Chain::story();
    chain.base = 2;
    let (_node, _server, addr) = Node::new(chain).serve().await;
    let mut http = Http::connect(addr).await;
    let at = |height: &str| json!({ "height": height });
    for method in ["block", "header", "commit", "block_results", "validators", "consensus_params"] {
        for height in ["0", "-1"] {
            let expected = internal(&format!("height must be greater than 0, but got {height}"));
            assert_eq!(asked(&mut http, method, at(height)).await, expected, "{method}");
        }
        // These two know one height more.
        let last = if method == "validators" || method == "consensus_params" { 5 } else { 4 };
        let expected = internal(&format!("height 6 must be less than or equal to the current blockchain height {last}"));
        assert_eq!(asked(&mut http, method, at("6")).await, expected, "{method}");
        let future = asked(&mut http, method, at(&i64::MAX.to_string())).await;
        assert_eq!(future["error"]["code"], -32603, "{method}");
        assert_eq!(asked(&mut http, method, at("1")).await, internal("height 1 is not available, lowest height is 2"), "{method}");
    }
    let table = [
        ("blockchain", json!(["3", "2"]), "min height 3 can't be greater than max height 2"),
        ("blockchain", json!(["-1", "2"]), "heights must be non-negative"),
        ("blockchain", json!(["1", "-2"]), "heights must be non-negative"),
        ("blockchain", json!(["1", "1"]), "min height 2 can't be greater than max height 1"),
        ("validators", json!(["5", "2", null]), "page should be within [1, 1] range, given 2"),
        ("validators", json!(["5", "0", "1"]), "page should be within [1, 4] range, given 0"),
        ("validators", json!(["5", "-3", "1"]), "page should be within [1, 4] range, given -3"),
        ("validators", json!(["5", i64::MAX.to_string(), "1"]), "page should be within [1, 4] range, given 9223372036854775807"),
        ("genesis_chunked", json!(["1"]), "there are 0 chunks, 1 is invalid"),
        ("genesis_chunked", json!(["-1"]), "there are 0 chunks, -1 is invalid"),
        ("tx", json!([null, false]), "transaction hash cannot be empty"),
        ("tx", json!(["", true]), "transaction hash cannot be empty"),
        ("tx", json!(["q80=", true]), "tx (ABCD) not found"),
        ("abci_query", json!(["/fail", "", "0", false]), "the disk is on fire"),
        ("abci_query", json!(["/panic", "", "0", false]), "the node failed to answer"),
        ("abci_query", json!(["", "", "-4", false]), "height must be greater than 0, but got -4"),
        ("broadcast_tx_sync", json!(["ZnVsbA=="]), "mempool is full: number of txs 5 (max: 5), total txs bytes 70 (max: 80)"),
        ("broadcast_tx_async", json!(["bGFyZ2U="]), "Tx too large. Max size is 4, but got 5"),
        ("broadcast_tx_commit", json!(["bGFyZ2U="]), "error on broadcastTxCommit: Tx too large. Max size is 4, but got 5"),
        ("broadcast_tx_sync", json!(["c3luY2luZw=="]), "the node is catching up"),
        ("broadcast_evidence", json!([null]), "no evidence was provided"),
        ("broadcast_evidence", json!([{}]), "evidence.ValidateBasic failed: evidence is an object of type and value"),
        (
            "broadcast_evidence",
            json!([{ "type": "tendermint/DuplicateVoteEvidence", "value": {} }]),
            "evidence.ValidateBasic failed: vote_a is missing",
        ),
    ];
    for (method, params, data) in table {
        assert_eq!(asked(&mut http, method, params).await, internal(data), "{method}");
    }
    for (method, data) in [
        ("broadcast_tx_async", "tx already exists in cache"),
        ("broadcast_tx_sync", "tx already exists in cache"),
        ("broadcast_tx_commit", "error on broadcastTxCommit: tx already exists in cache"),
    ] {
        asked(&mut http, "broadcast_tx_sync", json!(["eD0x"])).await;
        assert_eq!(asked(&mut http, method, json!(["eD0x"])).await, internal(data));
    }
    let (_node, _server, addr) = Node { index: false, ..Node::new(Chain::story()) }.serve().await;
    let hash = json!(["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", false]);
    let unindexed = asked(&mut Http::connect(addr).await, "tx", hash).await;
    assert_eq!(unindexed, internal("transaction indexing is disabled"));
}

#[tokio::test]
async fn a_commit_that_does_not_come_is_waited_for_no_longer_than_said() {
    let limits = lockstep_rpc::Limits { commit_wait: std::time::Duration::from_millis(20), ..Default::default() };
    let options = lockstep_rpc::Options { limits, ..Default::default() };
    let (node, _server, addr) = Node::new(Chain::story()).serve_with(options).await;
    let answer = asked(&mut Http::connect(addr).await, "broadcast_tx_commit", json!(["bmV2ZXI="])).await;
    assert_eq!(answer, internal("timed out waiting for tx to be included in a block"));
    assert_eq!(node.broadcasts.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn parameters_convert_or_are_refused() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let refused = [
        ("block", r#"5"#),
        ("block", r#""5""#),
        ("block", r#"true"#),
        ("block", r#"{"height":"five"}"#),
        ("block", r#"{"height":""}"#),
        ("block", r#"{"height":"+1"}"#),
        ("block", r#"{"height":"01"}"#),
        ("block", r#"{"height":" 1"}"#),
        ("block", r#"{"height":"1.0"}"#),
        ("block", r#"{"height":1.0}"#),
        ("block", r#"{"height":1e2}"#),
        ("block", r#"{"height":1e400}"#),
        ("block", r#"{"height":"9223372036854775808"}"#),
        ("block", r#"{"height":true}"#),
        ("block", r#"{"height":["1"]}"#),
        ("block", r#"{"height":{}}"#),
        ("block", r#"{"height":"1","height":"2"}"#),
        ("block", r#"[]"#),
        ("block", r#"["1","2"]"#),
        ("health", r#"[1]"#),
        ("abci_query", r#"["","",null]"#),
        ("abci_query", r#"{"data":"abc"}"#),
        ("abci_query", r#"{"data":"0x61"}"#),
        ("abci_query", r#"{"path":7}"#),
        ("abci_query", r#"{"prove":"true"}"#),
        ("abci_query", r#"{"prove":1}"#),
        ("broadcast_tx_sync", r#"{"tx":"YQ"}"#),
        ("broadcast_tx_sync", r#"{"tx":"a b"}"#),
        ("broadcast_tx_sync", r#"{"tx":[97]}"#),
        ("broadcast_tx_sync", r#"{"tx":"YQ==","tx":"YQ=="}"#),
        ("header_by_hash", r#"{"hash":"zz"}"#),
        ("block_by_hash", r#"{"hash":"??"}"#),
        ("unconfirmed_txs", r#"{"limit":"many"}"#),
    ];
    for (method, params) in refused {
        let reply = http.post(format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#).as_bytes()).await;
        let json = reply.json();
        assert_eq!((reply.status, &json["id"], &json["error"]["code"]), (200, &json!(7), &json!(-32602)), "{method} {params}");
        assert_eq!(json["error"]["message"], "Invalid params");
        let data = json["error"]["data"].as_str().unwrap();
        assert!(data.starts_with("error converting json params to arguments: "), "{method} {params}: {data}");
    }
    let taken = [
        ("block", r#"{"height":"1"}"#),
        ("block", r#"{"height":1}"#),
        ("block", r#"["1"]"#),
        ("block", r#"[1]"#),
        ("block", r#"{"height":null,"unknown":[{}]}"#),
        ("block", r#"{"he\u0069ght":"\u0031"}"#),
        ("health", r#"[]"#),
        ("health", r#"{}"#),
        ("health", r#"null"#),
        ("abci_query", r#"{"data":"aBcD","prove":true}"#),
        ("abci_query", r#"[null,null,null,null]"#),
        ("check_tx", r#"{"tx":""}"#),
    ];
    for (method, params) in taken {
        let reply = http.post(format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{params}}}"#).as_bytes()).await;
        assert!(reply.json().get("result").is_some(), "{method} {params}: {}", reply.body);
    }
}

#[tokio::test]
async fn unknown_methods() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    for method in ["", "nonsense", "Block", "block ", "subscribe", "unsubscribe", "unsubscribe_all", "tx_search", "consensus_state"] {
        let answer = asked(&mut http, method, json!({})).await;
        assert_eq!(answer, error(json!("x"), -32601, "Method not found", ""), "{method}");
    }
    let reply = http.post(br#"{"id":1}"#).await;
    assert_eq!((reply.status, reply.json()), (200, error(json!(1), -32601, "Method not found", "")));
}

/// Every method, asked by URI as people type it and by POST as clients do: the same result. Broadcasts, which do something, are
/// in [`uri_calls`].
#[tokio::test]
async fn every_method_answers_by_uri_as_by_post() {
    let chain = Chain::story();
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let (block, tx) = (chain.block_id(2).hash.0, Hash::of(b"b=2").0);
    let (block_hex, tx_hex) = (hex::encode(block), hex::encode_upper(tx));
    let calls = [
        ("/health", json!([])),
        ("/status", json!([])),
        ("/net_info", json!([])),
        ("/genesis", json!([])),
        ("/genesis_chunked", json!([null])),
        ("/genesis_chunked?chunk=0", json!(["0"])),
        ("/block?height=\"2\"", json!(["2"])),
        (&format!("/block_by_hash?hash=0x{block_hex}"), json!([base64(&block)])),
        ("/block_results?height=2", json!(["2"])),
        ("/blockchain?minHeight=1&maxHeight=\"2\"", json!(["1", "2"])),
        ("/commit?height=2", json!(["2"])),
        ("/commit", json!([null])),
        ("/header?height=2", json!(["2"])),
        (&format!("/header_by_hash?hash=0x{block_hex}"), json!([block_hex])),
        ("/validators?height=5&page=\"2\"&per_page=2", json!(["5", "2", "2"])),
        // Below 1 is as not said, and above 100 is 100.
        ("/validators?per_page=0", json!([null, null, null])),
        ("/validators?per_page=101", json!([null, null, "100"])),
        ("/validators?per_page=-1", json!([null, "1", "30"])),
        ("/consensus_params?height=3", json!(["3"])),
        ("/unconfirmed_txs?limit=1", json!(["1"])),
        ("/num_unconfirmed_txs", json!([])),
        ("/check_tx?tx=\"a=1\"", json!([base64(b"a=1")])),
        ("/check_tx?tx=0x613d31", json!([base64(b"a=1")])),
        (&format!("/tx?hash=0x{tx_hex}"), json!([base64(&tx), false])),
        (&format!("/tx?hash=0x{tx_hex}&prove=true"), json!([base64(&tx), true])),
        ("/abci_info", json!([])),
        ("/abci_query?path=\"/store\"&data=\"a\"&height=2&prove=true", json!(["/store", "61", "2", true])),
    ];
    for (path, params) in &calls {
        let method = path[1..].split('?').next().expect("a first part");
        let (by_uri, by_post) = (http.get(path).await, http.call(method, params.clone()).await);
        assert_eq!((by_uri.status, by_uri.json()), (200, json!({ "jsonrpc": "2.0", "id": -1, "result": by_post })), "{path}");
    }
    let page = http.get("/").await.body;
    let served: Vec<&str> = page.split("<a href=\"/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let asked = |name: &&str| calls.iter().any(|(path, _)| path[1..].split('?').next() == Some(name));
    let left: Vec<&str> = served.into_iter().filter(|name| !asked(name)).collect();
    assert_eq!(left, ["broadcast_evidence", "broadcast_tx_async", "broadcast_tx_commit", "broadcast_tx_sync"]);
    let proven = http.get(&format!("/tx?hash=0x{tx_hex}&prove=true")).await.json();
    assert_eq!(proven["result"]["proof"]["data"], base64(b"b=2"));
    // Lower case without 0x is text without quotes, which nothing is.
    assert_eq!(http.get(&format!("/tx?hash={tx_hex}")).await.status, 500);
}

#[tokio::test]
async fn uri_calls() {
    let chain = Chain::story();
    let (node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let hash = hex::encode(chain.block_id(3).hash.0);
    let same_as = [
        ("/block?height=3", "block", json!(["3"])),
        ("/block?height=%223%22", "block", json!(["3"])),
        ("/block?height=\"3\"", "block", json!(["3"])),
        ("/block?height=&nonsense=4", "block", json!([null])),
        ("/block", "block", json!([null])),
        ("/block?height=3&height=2", "block", json!(["3"])),
        ("/blockchain?minHeight=2&maxHeight=3", "blockchain", json!(["2", "3"])),
        (&format!("/block_by_hash?hash=0x{hash}"), "block", json!(["3"])),
        (&format!("/block_by_hash?hash=0x{}", hash.to_uppercase()), "block", json!(["3"])),
        (&format!("/header_by_hash?hash=0x{hash}"), "header", json!(["3"])),
        ("/abci_query?path=%22/store%22&data=0x61&prove=true", "abci_query", json!(["/store", "61", "0", true])),
        ("/abci_query?data=%22a%22&prove=false", "abci_query", json!(["", "61", "0", false])),
        ("/abci_query?data=%22%5Cu0061%22", "abci_query", json!(["", "61", "0", false])),
        ("/abci_query?data=\"\\u0061\"", "abci_query", json!(["", "61", "0", false])),
        ("/check_tx?tx=\"{é|<^`>}\"", "check_tx", json!(["e8OpfDxeYD59"])),
        ("/check_tx?tx=%22a%3D%5C%22%22", "check_tx", json!(["YT0i"])),
        ("/validators?height=5&page=2&per_page=3", "validators", json!(["5", "2", "3"])),
    ];
    for (path, method, params) in same_as {
        let reply = http.get(path).await;
        let result = http.call(method, params).await;
        assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "application/json"), "{path}");
        assert_eq!(reply.json(), json!({ "jsonrpc": "2.0", "id": -1, "result": result }), "{path}");
    }
    for path in [
        "/block?height=five",
        "/block?height=%27%33%27",
        "/block?height=1.5",
        "/block?height=%223",
        "/abci_query?path=store",
        "/abci_query?path=%27store%27",
        "/abci_query?prove=%22true%22",
        "/abci_query?prove=yes",
        "/abci_query?data=61",
        "/abci_query?data=0x6",
        "/broadcast_tx_sync?tx=a=b",
        "/broadcast_tx_sync?tx=%27a=b%27",
    ] {
        let reply = http.get(path).await;
        let json = reply.json();
        assert_eq!((reply.status, &json["id"], &json["error"]["code"]), (500, &json!(-1), &json!(-32602)), "{path}");
        let data = json["error"]["data"].as_str().unwrap();
        assert!(data.starts_with("error converting http params to arguments: "), "{path}: {data}");
    }
    assert!(node.broadcasts.lock().unwrap().is_empty());
    let reply = http.get("/block?height=99").await;
    let data = "height 99 must be less than or equal to the current blockchain height 4";
    assert_eq!((reply.status, reply.json()), (500, error(json!(-1), -32603, "Internal error", data)));
    for method in ["subscribe", "unsubscribe", "unsubscribe_all"] {
        let reply = http.get(&format!("/{method}?query=%22tm.event=%27Tx%27%22")).await;
        assert_eq!((reply.status, reply.json()), (404, error(json!(-1), -32601, "Method not found", "")));
    }
    for path in ["/nonsense", "/nonsense?x=%3Cscript%3E", "/block/1", "/%3Cscript%3E", "/tx_search"] {
        let reply = http.get(path).await;
        assert_eq!((reply.status, reply.body.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    }
    // A transaction by URI arrives byte by byte.
    http.get("/broadcast_tx_async?tx=%22k%3Dv%20%2B+%C3%A9%22").await;
    assert_eq!(node.broadcasts.lock().unwrap()[0].0, "k=v + é".as_bytes());
}
