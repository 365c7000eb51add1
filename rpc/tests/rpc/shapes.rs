//! Every answer against the contract's shape, written out by hand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_types::{CommitSig, Hash};
use serde_json::{Value, json};

use crate::chain::{Chain, key};
use crate::http::Http;
use crate::node::{GENESIS, Node};

const EMPTY_LIST: &str = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855";

fn hex_of(bytes: impl AsRef<[u8]>) -> String {
    hex::encode_upper(bytes)
}

fn base64_of(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn block_id(chain: &Chain, h: u64) -> Value {
    if h == 0 {
        return json!({ "hash": "", "parts": { "total": 0, "hash": "" } });
    }
    let id = chain.block_id(h);
    json!({ "hash": hex_of(id.hash.0), "parts": { "total": 1, "hash": hex_of(id.parts.hash.0) } })
}

fn header(chain: &Chain, h: u64) -> Value {
    let header = chain.header(h);
    let times = ["", "2024-01-02T03:04:06.5Z", "2024-01-02T03:04:08Z", "2024-01-02T03:04:09.5Z", "2024-01-02T03:04:11Z"];
    json!({
        "version": { "block": "11", "app": "1" },
        "chain_id": "dockerchain",
        "height": h.to_string(),
        "time": times[h as usize],
        "last_block_id": block_id(chain, h - 1),
        "last_commit_hash": if h == 1 { EMPTY_LIST.to_owned() } else { hex_of(header.last_commit_hash.0) },
        "data_hash": if h == 2 { hex_of(header.data_hash.0) } else { EMPTY_LIST.to_owned() },
        "validators_hash": hex_of(header.validators_hash.0),
        "next_validators_hash": hex_of(header.next_validators_hash.0),
        "consensus_hash": "048091BC7DDC283F77BFBF91D73C44DA58C3DF8A9CBC867405D8B7F3DAADA22F",
        "app_hash": hex_of(header.app_hash.as_bytes()),
        "last_results_hash": if h == 3 { hex_of(header.last_results_hash.0) } else { EMPTY_LIST.to_owned() },
        "evidence_hash": if h == 3 { hex_of(header.evidence_hash.0) } else { EMPTY_LIST.to_owned() },
        "proposer_address": hex_of(header.proposer_address.0),
    })
}

fn commit(chain: &Chain, h: u64) -> Value {
    if h == 0 {
        return json!({ "height": "0", "round": 0, "block_id": block_id(chain, 0), "signatures": [] });
    }
    let times = ["", "2024-01-02T03:04:06.51Z", "2024-01-02T03:04:08.01Z", "2024-01-02T03:04:09.51Z", "2024-01-02T03:04:11.01Z"];
    let slot = |sig: &CommitSig| match sig {
        CommitSig::Absent => {
            json!({ "block_id_flag": 1, "validator_address": "", "timestamp": "0001-01-01T00:00:00Z", "signature": null })
        }
        CommitSig::Commit(slot) | CommitSig::Nil(slot) => json!({
            "block_id_flag": if matches!(sig, CommitSig::Commit(_)) { 2 } else { 3 },
            "validator_address": hex_of(slot.address.0),
            "timestamp": times[h as usize],
            "signature": base64_of(slot.signature.0),
        }),
    };
    let signatures: Vec<Value> = chain.commits[h as usize - 1].signatures.iter().map(slot).collect();
    json!({ "height": h.to_string(), "round": 0, "block_id": block_id(chain, h), "signatures": signatures })
}

fn evidence(chain: &Chain) -> Value {
    let lockstep_types::Evidence::DuplicateVote(found) = &chain.blocks[2].block.evidence[0] else { panic!("a duplicate vote") };
    let vote = |block: u64, valid_round: i64, signature: [u8; 64]| {
        json!({
            "type": 1,
            "height": "2",
            "round": 1,
            "block_id": block_id(chain, block),
            "timestamp": "2024-01-02T03:04:08Z",
            "validator_address": hex_of(found.address.0),
            "validator_index": 1,
            "signature": base64_of(signature),
            "extension": null,
            "extension_signature": null,
            "valid_round": valid_round,
        })
    };
    json!({
        "type": "tendermint/DuplicateVoteEvidence",
        "value": {
            // Nil sorts first.
            "vote_a": vote(0, -1, found.vote_a.signature.0),
            "vote_b": vote(1, 0, found.vote_b.signature.0),
            "TotalVotingPower": "19",
            "ValidatorPower": "5",
            "Timestamp": "2024-01-02T03:04:08Z",
        },
    })
}

fn block(chain: &Chain, h: u64) -> Value {
    let txs = if h == 2 { json!(["YT0x", "Yj0y"]) } else { json!([]) };
    let evidence = if h == 3 { json!([evidence(chain)]) } else { json!([]) };
    json!({
        "block_id": block_id(chain, h),
        "block": {
            "header": header(chain, h),
            "data": { "txs": txs },
            "evidence": { "evidence": evidence },
            "last_commit": commit(chain, h - 1),
        },
    })
}

fn tx_result(data: Value, gas_wanted: &str, key: Option<&str>) -> Value {
    let events: Vec<Value> =
        key.iter().map(|key| json!({ "type": "app", "attributes": [{ "key": "key", "value": key, "index": true }] })).collect();
    json!({ "code": 0, "data": data, "log": "", "info": "", "gas_wanted": gas_wanted, "gas_used": "0", "events": events, "codespace": "" })
}

fn params() -> Value {
    json!({
        "block": { "max_bytes": "22020096", "max_gas": "-1" },
        "evidence": { "max_age_num_blocks": "1", "max_age_duration": "86400000000000", "max_bytes": "1048576" },
        "validator": { "pub_key_types": ["ed25519"] },
        "version": { "app": "0" },
        "abci": { "vote_extensions_enable_height": "0" },
    })
}

fn node_info(id: &str) -> Value {
    json!({
        "protocol_version": { "p2p": "8", "block": "11", "app": "1" },
        "id": id,
        "listen_addr": "tcp://127.0.0.1:26656",
        "network": "dockerchain",
        "version": "0.38.0",
        "channels": "",
        "moniker": "node",
        "other": { "tx_index": "on", "rpc_address": "tcp://127.0.0.1:26657", "software": "lockstep/0.1.0" },
    })
}

#[tokio::test]
async fn blocks_headers_and_commits() {
    let chain = Chain::story();
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    for h in 1..=4 {
        assert_eq!(http.call("block", json!({ "height": h.to_string() })).await, block(&chain, h), "block {h}");
        assert_eq!(http.call("header", json!([h.to_string()])).await, json!({ "header": header(&chain, h) }));
        let hash = chain.block_id(h).hash;
        assert_eq!(http.call("block_by_hash", json!({ "hash": base64_of(hash.0) })).await, block(&chain, h));
        assert_eq!(http.call("header_by_hash", json!({ "hash": hex_of(hash.0) })).await, json!({ "header": header(&chain, h) }));
        let signed = json!({ "signed_header": { "header": header(&chain, h), "commit": commit(&chain, h) }, "canonical": h < 4 });
        assert_eq!(http.call("commit", json!({ "height": h })).await, signed);
    }
    // Latest, in every spelling of "not given".
    for params in [json!(null), json!({}), json!({ "height": null }), json!([null])] {
        assert_eq!(http.call("block", params.clone()).await, block(&chain, 4));
        assert_eq!(http.call("commit", params).await["canonical"], json!(false));
    }
    let unknown = json!({ "block_id": block_id(&chain, 0), "block": null });
    for hash in [base64_of([7; 32]), base64_of([7; 5]), String::new()] {
        assert_eq!(http.call("block_by_hash", json!({ "hash": hash })).await, unknown);
    }
    assert_eq!(http.call("header_by_hash", json!({ "hash": "00" })).await, json!({ "header": null }));
}

#[tokio::test]
async fn block_metas_come_highest_first() {
    let mut chain = Chain::story();
    (0..25).for_each(|_| chain.push(crate::chain::Plan::default()));
    chain.base = 2;
    let (node, _server, addr) = Node::new(chain).serve().await;
    let mut http = Http::connect(addr).await;
    let answer = http.call("blockchain", json!({ "minHeight": "2", "maxHeight": "3" })).await;
    let expected = {
        let chain = node.chain.lock().unwrap();
        let meta = |h: u64, num_txs: &str| {
            let size = chain.blocks[h as usize - 1].block.encode().len().to_string();
            json!({ "block_id": block_id(&chain, h), "block_size": size, "header": header(&chain, h), "num_txs": num_txs })
        };
        json!({ "last_height": "29", "block_metas": [meta(3, "0"), meta(2, "2")] })
    };
    assert_eq!(answer, expected);
    let heights = |answer: &Value| -> Vec<u64> {
        let metas = answer["block_metas"].as_array().unwrap();
        metas.iter().map(|meta| meta["header"]["height"].as_str().unwrap().parse().unwrap()).collect()
    };
    for (min, max, expected) in [("0", "0", 10..=29), ("1", "1000", 10..=29), ("1", "5", 2..=5), ("28", "0", 28..=29), ("9", "28", 9..=28)]
    {
        let answer = http.call("blockchain", json!({ "minHeight": min, "maxHeight": max })).await;
        assert_eq!(heights(&answer), expected.rev().collect::<Vec<_>>(), "{min} to {max}");
    }
}

#[tokio::test]
async fn results_of_blocks() {
    let chain = Chain::story();
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    assert_eq!(
        http.call("block_results", json!({ "height": "2" })).await,
        json!({
            "height": "2",
            "txs_results": [tx_result(json!("YT0x"), "1", Some("a")), tx_result(json!("Yj0y"), "1", Some("b"))],
            "finalize_block_events": [{ "type": "view", "attributes": [{ "key": "n", "value": "1", "index": true }] }],
            "validator_updates": [{
                "pub_key": { "Sum": { "type": "tendermint.crypto.PublicKey_Ed25519", "value": { "ed25519": base64_of(key(4).public_key().0) } } },
                "power": "7",
            }],
            "consensus_param_updates": null,
            "app_hash": base64_of(chain.results[1].app_hash.as_bytes()),
        })
    );
    assert_eq!(
        http.call("block_results", json!({ "height": "3" })).await,
        json!({
            "height": "3",
            "txs_results": null,
            "finalize_block_events": null,
            "validator_updates": null,
            "consensus_param_updates": params(),
            "app_hash": base64_of(chain.results[2].app_hash.as_bytes()),
        })
    );
}

#[tokio::test]
async fn validators_and_parameters_reach_one_height_further() {
    let chain = Chain::story();
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let validator = |seed: u8, power: &str, priority: i64| {
        let public = key(seed).public_key();
        json!({
            "address": hex_of(&Hash::of(public.0).0[..20]),
            "pub_key": { "type": "tendermint/PubKeyEd25519", "value": base64_of(public.0) },
            "voting_power": power,
            "proposer_priority": priority.to_string(),
        })
    };
    // Height 1 by hand: three newcomers at equal priority, centred to 0, one step; the winner pays 19.
    let first = json!({
        "block_height": "1",
        "validators": [validator(1, "10", -9), validator(2, "5", 5), validator(3, "4", 4)],
        "count": "3",
        "total": "3",
    });
    assert_eq!(http.call("validators", json!({ "height": "1" })).await, first);

    let priority = |place: usize| chain.sets[4].iter().nth(place).unwrap().priority;
    let latest = http.call("validators", json!(null)).await;
    assert_eq!(latest["block_height"], "5");
    assert_eq!(
        latest["validators"],
        json!([
            validator(1, "10", priority(0)),
            validator(4, "7", priority(1)),
            validator(2, "5", priority(2)),
            validator(3, "4", priority(3))
        ])
    );
    let page = http.call("validators", json!({ "height": "5", "page": "2", "per_page": "3" })).await;
    assert_eq!(page, json!({ "block_height": "5", "validators": [validator(3, "4", priority(3))], "count": "1", "total": "4" }));
    for per_page in ["0", "-5", "1000"] {
        let page = http.call("validators", json!({ "height": "5", "per_page": per_page })).await;
        assert_eq!(page["count"], "4", "per_page {per_page}");
    }
    assert_eq!(http.call("consensus_params", json!({})).await, json!({ "block_height": "5", "consensus_params": params() }));
    assert_eq!(http.call("consensus_params", json!({ "height": "2" })).await["block_height"], "2");
}

#[tokio::test]
async fn the_node_and_its_peers() {
    let chain = Chain::story();
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    assert_eq!(http.call("health", json!(null)).await, json!({}));
    let public = key(1).public_key();
    let id = "abababababababababababababababababababab";
    assert_eq!(
        http.call("status", json!(null)).await,
        json!({
            "node_info": node_info(id),
            "sync_info": {
                "latest_block_hash": hex_of(chain.block_id(4).hash.0),
                "latest_app_hash": hex_of(chain.header(4).app_hash.as_bytes()),
                "latest_block_height": "4",
                "latest_block_time": "2024-01-02T03:04:11Z",
                "earliest_block_hash": hex_of(chain.block_id(1).hash.0),
                "earliest_app_hash": hex_of(chain.header(1).app_hash.as_bytes()),
                "earliest_block_height": "1",
                "earliest_block_time": "2024-01-02T03:04:06.5Z",
                "catching_up": false,
            },
            "validator_info": {
                "address": hex_of(&Hash::of(public.0).0[..20]),
                "pub_key": { "type": "tendermint/PubKeyEd25519", "value": base64_of(public.0) },
                "voting_power": "10",
            },
        })
    );
    let monitor = |bytes: &str, average: &str| {
        json!({
            "Start": "2024-01-02T03:04:05Z", "Bytes": bytes, "Samples": "3", "InstRate": "7", "CurRate": "7", "AvgRate": average,
            "PeakRate": "0", "BytesRem": "0", "Duration": "2000000000", "Idle": "5", "TimeRem": "0", "Progress": 0, "Active": true,
        })
    };
    assert_eq!(
        http.call("net_info", json!(null)).await,
        json!({
            "listening": true,
            "listeners": ["tcp://127.0.0.1:26656"],
            "n_peers": "1",
            "peers": [{
                "node_info": node_info("cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"),
                "is_outbound": true,
                "connection_status": {
                    "Duration": "2000000000",
                    "SendMonitor": monitor("1000", "500"),
                    "RecvMonitor": monitor("2000", "1000"),
                    "Channels": [],
                },
                "remote_ip": "10.0.0.7",
            }],
        })
    );
    let genesis: Value = serde_json::from_str(GENESIS).unwrap();
    assert_eq!(http.call("genesis", json!(null)).await, json!({ "genesis": genesis }));
    for chunk in [json!({}), json!({ "chunk": "0" }), json!([0])] {
        assert_eq!(http.call("genesis_chunked", chunk).await, json!({ "chunk": "0", "total": "1", "data": base64_of(GENESIS) }));
    }
}

#[tokio::test]
async fn a_large_genesis_comes_in_pieces() {
    let genesis = format!(r#"{{"app_state":"{}"}}"#, "x".repeat(16 * 1024 * 1024));
    let node = Node { genesis: genesis.as_str().into(), ..Node::new(Chain::story()) };
    let (_node, _server, addr) = node.serve().await;
    let mut http = Http::connect(addr).await;
    let reply = http.post(br#"{"id":1,"method":"genesis"}"#).await;
    assert_eq!(reply.json()["error"]["data"], "genesis response is large, please use the genesis_chunked API instead");
    let mut whole = Vec::new();
    for chunk in 0..2 {
        let answer = http.call("genesis_chunked", json!({ "chunk": chunk.to_string() })).await;
        assert_eq!((&answer["chunk"], &answer["total"]), (&json!(chunk.to_string()), &json!("2")));
        whole.extend(STANDARD.decode(answer["data"].as_str().unwrap()).unwrap());
    }
    assert!(whole == genesis.as_bytes());
    let reply = http.post(br#"{"id":1,"method":"genesis_chunked","params":{"chunk":"2"}}"#).await;
    assert_eq!(reply.json()["error"]["data"], "there are 1 chunks, 2 is invalid");
}

#[tokio::test]
async fn the_application() {
    let chain = Chain::story();
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    assert_eq!(
        http.call("abci_info", json!(null)).await,
        json!({ "response": {
            "data": "{\"size\":2}", "version": "2.0.0", "app_version": "1", "last_block_height": "4",
            "last_block_app_hash": base64_of(chain.results[3].app_hash.as_bytes()),
        } })
    );
    let answer = |log: &str, key: Value, value: Value, ops: Value, height: &str| {
        json!({ "response": {
            "code": 0, "log": log, "info": "", "index": "0", "key": key, "value": value, "proofOps": ops, "height": height, "codespace": "",
        } })
    };
    let found = answer("exists", json!("YQ=="), json!("MQ=="), json!(null), "4");
    for params in [json!({ "path": "/store", "data": "61" }), json!({ "data": "61" }), json!(["", "61", "0", false])] {
        assert_eq!(http.call("abci_query", params).await, found);
    }
    let proof = crate::chain::prove(&chain.states[3], b"a").to_bytes();
    let ops = json!({ "ops": [{ "type": "ics23:smt", "key": "YQ==", "data": base64_of(proof) }] });
    let proven = http.call("abci_query", json!({ "path": "/store", "data": "61", "height": "3", "prove": true })).await;
    assert_eq!(proven, answer("exists", json!("YQ=="), json!("MQ=="), ops, "3"));
    let nothing = http.call("abci_query", json!(null)).await;
    assert_eq!(nothing, answer("does not exist", json!(null), json!(null), json!(null), "4"));
}

#[tokio::test]
async fn transactions_and_their_proofs() {
    let chain = Chain::story();
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let (a, b) = (Hash::of("a=1"), Hash::of("b=2"));
    let bare = json!({
        "hash": hex_of(b.0), "height": "2", "index": 1, "tx_result": tx_result(json!("Yj0y"), "1", Some("b")), "tx": "Yj0y",
    });
    assert_eq!(http.call("tx", json!({ "hash": base64_of(b.0) })).await, bare);
    let leaf = |hash: &Hash| Hash::of([&[0], hash.as_ref()].concat());
    let root = Hash::of([&[1], leaf(&a).as_ref(), leaf(&b).as_ref()].concat());
    assert_eq!(root, chain.header(2).data_hash);
    let mut proven = bare;
    proven["proof"] = json!({
        "root_hash": hex_of(root.0),
        "data": "Yj0y",
        "proof": { "total": "2", "index": "1", "leaf_hash": base64_of(leaf(&b).0), "aunts": [base64_of(leaf(&a).0)] },
    });
    assert_eq!(http.call("tx", json!({ "hash": base64_of(b.0), "prove": true })).await, proven);
}

#[tokio::test]
async fn the_mempool() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let all = json!({ "n_txs": "2", "total": "2", "total_bytes": "7", "txs": ["eD0x", "eT0yMg=="] });
    assert_eq!(http.call("unconfirmed_txs", json!(null)).await, all);
    let one = json!({ "n_txs": "1", "total": "2", "total_bytes": "7", "txs": ["eD0x"] });
    assert_eq!(http.call("unconfirmed_txs", json!({ "limit": "1" })).await, one);
    let none = json!({ "n_txs": "2", "total": "2", "total_bytes": "7", "txs": null });
    assert_eq!(http.call("num_unconfirmed_txs", json!(null)).await, none);
}

/// What a block shows, a client may send again: it says the same, but for what the node derives from the chain.
#[tokio::test]
async fn evidence_is_read_as_it_is_written() {
    use lockstep_types::Evidence;
    let mut chain = Chain::story();
    let attack = chain.attack(2);
    chain.push(crate::chain::Plan { evidence: vec![attack.clone()], ..crate::chain::Plan::default() });
    let votes = chain.blocks[2].block.evidence[0].clone();
    let (node, _server, addr) = Node::new(chain).serve().await;
    let mut http = Http::connect(addr).await;
    for (height, sent) in [("3", votes.clone()), ("5", attack)] {
        let shown = http.call("block", json!([height])).await["block"]["evidence"]["evidence"][0].clone();
        let answer = http.call("broadcast_evidence", json!({ "evidence": shown })).await;
        assert_eq!(answer, json!({ "hash": base64_of(sent.hash().0) }));
        let read = node.evidence.lock().unwrap().pop().unwrap();
        match (read, sent) {
            (Evidence::LightClientAttack(read), Evidence::LightClientAttack(mut sent)) => {
                sent.byzantine_validators.clear();
                let (read, sent) = (read.conflicting_block, sent.conflicting_block);
                assert_eq!((read.header, read.commit), (sent.header, sent.commit));
                assert!(read.validators.iter().eq(sent.validators.iter()));
            }
            (read, sent) => assert_eq!(read, sent),
        }
    }
    // As the Rust client spells it, with nil as null and what the node derives left out.
    let mut shown = http.call("block", json!(["3"])).await["block"]["evidence"]["evidence"][0].clone();
    for name in ["TotalVotingPower", "ValidatorPower", "Timestamp"] {
        shown["value"].as_object_mut().unwrap().remove(name);
    }
    shown["value"]["vote_a"]["block_id"] = Value::Null;
    http.call("broadcast_evidence", json!([shown])).await;
    let (Evidence::DuplicateVote(read), Evidence::DuplicateVote(sent)) = (node.evidence.lock().unwrap().pop().unwrap(), votes) else {
        panic!("two votes")
    };
    assert_eq!((read.vote_a, read.vote_b), (sent.vote_a, sent.vote_b));
}

#[tokio::test]
async fn broadcasting() {
    let (node, _server, addr) = Node::new(Chain::story()).serve().await;
    let mut http = Http::connect(addr).await;
    let tx = |text: &str| json!({ "tx": base64_of(text) });
    let taken = |text: &str, code: u32| json!({ "code": code, "data": "", "log": "", "codespace": "", "hash": hex_of(Hash::of(text).0) });
    assert_eq!(http.call("broadcast_tx_sync", tx("s=1")).await, taken("s=1", 0));
    assert_eq!(http.call("broadcast_tx_sync", tx("nonsense")).await, taken("nonsense", 2));
    assert_eq!(http.call("broadcast_tx_async", tx("rubbish")).await, taken("rubbish", 0));
    assert_eq!(http.call("check_tx", tx("c=1")).await, tx_result(json!(null), "1", None));
    // Not given: an empty transaction, for the application to judge.
    assert_eq!(http.call("broadcast_tx_sync", json!({})).await, taken("", 2));

    let committed = http.call("broadcast_tx_commit", tx("d=4")).await;
    let expected = json!({
        "check_tx": tx_result(json!(null), "1", None),
        "tx_result": tx_result(json!("ZD00"), "1", Some("d")),
        "hash": hex_of(Hash::of("d=4").0),
        "height": "5",
    });
    assert_eq!(committed, expected);
    let refused = http.call("broadcast_tx_commit", tx("wrong")).await;
    let mut check = tx_result(json!(null), "0", None);
    check["code"] = json!(2);
    let zero = tx_result(json!(null), "0", None);
    assert_eq!(refused, json!({ "check_tx": check, "tx_result": zero, "hash": hex_of(Hash::of("wrong").0), "height": "0" }));
    let order: Vec<Vec<u8>> = node.broadcasts.lock().unwrap().iter().map(|(tx, _)| tx.clone()).collect();
    assert_eq!(order, ["s=1", "nonsense", "rubbish", "", "d=4", "wrong"].map(|tx| tx.as_bytes().to_vec()));
}

#[tokio::test]
async fn before_the_first_block() {
    let (_node, _server, addr) = Node::new(Chain::new(&[(1, 10)])).serve().await;
    let mut http = Http::connect(addr).await;
    let sync = json!({
        "latest_block_hash": "", "latest_app_hash": "", "latest_block_height": "0", "latest_block_time": "1970-01-01T00:00:00Z",
        "earliest_block_hash": "", "earliest_app_hash": "", "earliest_block_height": "0", "earliest_block_time": "1970-01-01T00:00:00Z",
        "catching_up": false,
    });
    assert_eq!(http.call("status", json!(null)).await["sync_info"], sync);
    let nil = json!({ "hash": "", "parts": { "total": 0, "hash": "" } });
    assert_eq!(http.call("block", json!(null)).await, json!({ "block_id": nil, "block": null }));
    assert_eq!(http.call("header", json!(null)).await, json!({ "header": null }));
    assert_eq!(http.call("commit", json!(null)).await, json!(null));
    assert_eq!(http.call("validators", json!(null)).await["block_height"], "1");
    assert_eq!(http.call("consensus_params", json!(null)).await["block_height"], "1");
    for method in ["block_results", "blockchain"] {
        let reply = http.post(format!(r#"{{"id":1,"method":"{method}"}}"#).as_bytes()).await;
        assert_eq!(reply.json()["error"]["code"], -32603, "{method}");
    }
}
