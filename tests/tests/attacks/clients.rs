//! What clients can ask of the RPC server, over real sockets.

use std::time::Duration;

use lockstep_rpc::{Limits, Options};
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::http::Http;
use crate::node::Node;

fn limited(limits: Limits) -> Options {
    Options { limits, ..Options::default() }
}

/// A frame of a client, masked with zeros.
fn frame(text: &str) -> Vec<u8> {
    const TEXT: u8 = 0x81;
    const MASKED: u8 = 0x80;
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("a short frame");
    [&[TEXT, MASKED | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// A client of the WebSocket that asks for much and reads nothing: it is cut off, and its place is free again.
#[tokio::test]
async fn attack_46_a_websocket_that_never_reads_is_cut_off() {
    let genesis = format!(r#"{{"app_state":"{}"}}"#, "x".repeat(15 << 20));
    let limits = Limits { connections: 1, write_wait: Duration::from_millis(50), ..Limits::default() };
    let node = Node { genesis: genesis.into(), ..Node::new(Chain::story()) };
    let (_node, _server, addr) = node.serve_with(limited(limits)).await;
    let mut deaf = Http::connect(addr).await;
    let upgrade = "GET /websocket HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    assert_eq!(deaf.exchange(upgrade.as_bytes()).await.expect("an answer").status, 101);
    for _ in 0..50 {
        deaf.write(&frame(r#"{"id":1,"method":"genesis"}"#)).await;
    }
    // Until it is cut off, others are turned away.
    while Http::connect(addr).await.get("/health").await.status == 503 {}
}

/// What a method answers to these params.
async fn asked(http: &mut Http, method: &str, params: &str) -> Value {
    let reply = http.post(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#).as_bytes()).await;
    assert_eq!(reply.status, 200, "{method} {params}");
    reply.json()
}

/// Numbers are read exactly as they are written, or refused: none is rounded on its way through a float.
#[tokio::test]
async fn attack_47_numbers_are_exact_or_refused() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    for height in ["9007199254740993", "\"9007199254740993\"", "9223372036854775807", "\"9223372036854775807\""] {
        let answer = asked(&mut http, "block", &format!(r#"{{"height":{height}}}"#)).await;
        let expected = format!("height {} must be less than or equal to the current blockchain height 4", height.trim_matches('"'));
        assert_eq!(answer["error"]["data"], expected);
    }
    for height in
        ["1e400", "-1e400", "1.0", "1e0", "0x1", "9223372036854775808", "\"1e3\"", "\"1.0\"", "\"\u{661}\"", "NaN", "1,\"height\":2"]
    {
        let reply = http.post(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"block","params":{{"height":{height}}}}}"#).as_bytes()).await;
        let code = reply.json()["error"]["code"].clone();
        assert!(code == json!(-32602) || code == json!(-32700), "{height}: {}", reply.body);
    }
    // What goes out as a number of 64 bits is text, which no client can round.
    let status = http.call("status", json!({})).await;
    assert!(status["sync_info"]["latest_block_height"].is_string());
}

/// Heights and ranges at their ends: an error that names the rule, or an answer whose size does not depend on the claim.
#[tokio::test]
async fn attack_48_ranges_cost_what_they_give() {
    let mut chain = Chain::story();
    for _ in 0..60 {
        chain.push(crate::chain::Plan::default());
    }
    let (_node, _server, addr) = Node::new(chain).serve().await;
    let mut http = Http::connect(addr).await;
    let ends = ["0", "1", "-1", "20", "64", "65", "9223372036854775807", "-9223372036854775808"];
    for method in ["block", "block_results", "commit", "consensus_params", "header", "validators"] {
        for height in ends {
            let answer = asked(&mut http, method, &format!(r#"{{"height":"{height}"}}"#)).await;
            let here = ["1", "20", "64"].contains(&height) || (height == "65" && ["consensus_params", "validators"].contains(&method));
            assert_eq!(answer.get("result").is_some(), here, "{method} {height}: {answer}");
            assert!(here || answer["error"]["data"].as_str().is_some_and(|data| data.contains("height")), "{answer}");
        }
    }
    for from in ends {
        for to in ends {
            let answer = asked(&mut http, "blockchain", &format!(r#"{{"minHeight":"{from}","maxHeight":"{to}"}}"#)).await;
            match answer["result"]["block_metas"].as_array() {
                Some(metas) => assert!(metas.len() <= 20, "{from} to {to}: {} blocks", metas.len()),
                None => assert!(answer["error"]["data"].is_string(), "{from} to {to}: {answer}"),
            }
        }
    }
    for page in ends {
        for per_page in ends {
            let answer = asked(&mut http, "validators", &format!(r#"{{"page":"{page}","per_page":"{per_page}"}}"#)).await;
            match answer["result"]["validators"].as_array() {
                Some(validators) => assert!(validators.len() <= 100),
                None => assert!(answer["error"]["data"].as_str().is_some_and(|data| data.contains("page")), "{answer}"),
            }
        }
    }
    for limit in ends {
        let answer = asked(&mut http, "unconfirmed_txs", &format!(r#"{{"limit":"{limit}"}}"#)).await;
        assert!(answer["result"]["txs"].as_array().is_some_and(|txs| txs.len() <= 100) || answer["error"]["data"].is_string(), "{answer}");
    }
}
