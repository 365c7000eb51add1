//! Our client against our server: typed methods, failover, and what it makes of a node that lies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lockstep_rpc::client::verify::{LightClient, TrustRoot, VerifyError};
use lockstep_rpc::client::{Client, ClientError};
use lockstep_rpc::{Server, json};
use lockstep_types::light::LightError;
use lockstep_types::{AppHash, CommitSig, Hash, Height, Power, Tx, ValidatorIndex, ValidatorSet};
use tokio::net::TcpListener;

use crate::chain::{Chain, Plan, genesis_time, height, member};
use crate::node::Node;

fn client(addr: SocketAddr) -> Client {
    Client::new([addr.to_string()]).unwrap()
}

/// A century: the chain of the tests is as old as the tests.
const PERIOD: Duration = Duration::from_secs(100 * 365 * 86_400);

fn root(chain: &Chain) -> TrustRoot {
    TrustRoot::genesis(chain.id.clone(), genesis_time(), height(1), chain.sets[0].clone(), PERIOD)
}

async fn light(chain: Chain) -> (Arc<Node>, Server, LightClient) {
    let root = root(&chain);
    let (node, server, addr) = Node::new(chain).serve().await;
    (node, server, LightClient::new(client(addr), root))
}

/// An address where nobody listens.
async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn typed_methods() {
    let chain = Chain::story();
    let (node, _server, addr) = Node::new(Chain::story()).serve().await;
    for url in [addr.to_string(), format!("http://{addr}"), format!("tcp://{addr}/")] {
        let client = Client::new([url]).unwrap();
        assert_eq!(client.status().await.unwrap().sync_info.latest_block_height, height(4));
        assert_eq!(client.endpoint(), format!("http://{addr}"));
    }
    let client = client(addr);
    let block = client.block(Some(height(2))).await.unwrap().block.unwrap();
    assert_eq!(lockstep_types::Header::try_from(&block.header).unwrap(), *chain.header(2));
    let commit = client.commit(Some(height(2))).await.unwrap().unwrap().signed_header.commit;
    assert_eq!(lockstep_types::Commit::try_from(&commit).unwrap(), chain.commits[1]);
    assert_eq!(client.block(None).await.unwrap().block.unwrap().header.height, height(4));
    let set = client.validators(None, 1).await.unwrap();
    assert_eq!(json::validator_set(&set.validators).unwrap().hash(), chain.sets[4].hash());
    assert_eq!(client.abci_query("/store", b"a", Height::ZERO, false).await.unwrap().value.unwrap().0, b"1");
    let found = client.tx(&Hash::of("b=2"), false).await.unwrap();
    assert_eq!((found.height, found.tx.0.as_slice()), (height(2), &b"b=2"[..]));
    assert_eq!(client.broadcast_tx_async(b"s=1").await.unwrap().hash, Hash::of("s=1"));
    assert_eq!(client.broadcast_tx_sync(b"wrong").await.unwrap().code, 2);
    assert_eq!(client.broadcast_tx_commit(b"t=1").await.unwrap().height, height(5));
    let error = client.tx(&Hash::of("unknown"), false).await.unwrap_err();
    assert_eq!(error.reason(), Some(format!("tx ({}) not found", Hash::of("unknown")).as_str()));

    let txs = [&b"u=1"[..], b"full", b"u=2", b"u=1"].map(<[u8]>::to_vec);
    let answers = client.broadcast_batch(&txs).await.unwrap();
    let codes: Vec<Result<u32, &str>> =
        answers.iter().map(|answer| answer.as_ref().map(|answer| answer.code).map_err(String::as_str)).collect();
    let full = "mempool is full: number of txs 5 (max: 5), total txs bytes 70 (max: 80)";
    assert_eq!(codes, [Ok(0), Err(full), Ok(0), Err("tx already exists in cache")]);
    assert_eq!(client.broadcast_batch(&txs[1..2]).await.unwrap(), [Err(full.to_owned())]);
    assert_eq!(client.broadcast_batch(&[]).await.unwrap(), []);
    assert_eq!(node.broadcasts.lock().unwrap().len(), 8);
}

#[tokio::test]
async fn endpoints_that_cannot_be() {
    assert!(matches!(Client::new(Vec::<String>::new()), Err(ClientError::NoEndpoint)));
    for url in ["https://node.example", "ws://127.0.0.1:1", "", "http://", "not a url"] {
        assert!(matches!(Client::new([url]), Err(ClientError::Url { .. })), "{url:?}");
    }
}

#[tokio::test]
async fn another_endpoint_is_asked_when_one_is_gone() {
    let (node, _server, addr) = Node::new(Chain::story()).serve().await;
    let client = Client::new([nobody().await, addr.to_string()]).unwrap();
    assert_eq!(client.status().await.unwrap().sync_info.latest_block_height, height(4));
    assert_eq!(client.endpoint(), format!("http://{addr}"), "who answered is asked first from then on");
    // An error is an answer.
    assert!(matches!(client.block(Some(height(99))).await, Err(ClientError::Answered { code: -32603, .. })));

    // The first node took the transaction and was gone before it said so; the second has it from the first.
    client.broadcast_tx_sync(b"v=1").await.unwrap();
    let again = Client::new([nobody().await, addr.to_string()]).unwrap();
    assert_eq!(again.broadcast_tx_sync(b"v=1").await.unwrap().code, 0);
    assert_eq!(again.broadcast_tx_sync(b"v=1").await.unwrap_err().reason(), Some("tx already exists in cache"));
    assert_eq!(node.broadcasts.lock().unwrap().len(), 3);

    let nobody = Client::new([nobody().await, nobody().await]).unwrap();
    match nobody.status().await {
        Err(ClientError::Unreachable(failures)) => assert_eq!(failures.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn values_and_absence_are_proven() {
    let (node, _server, mut light) = light(Chain::story()).await;
    // Block 4 changed nothing, so its own header proves the state.
    let found = light.query(b"a").await.unwrap();
    assert_eq!((found.value.as_deref(), found.height, found.header.header.height), (Some(&b"1"[..]), height(3), height(4)));
    let signers = &found.header.signers;
    assert_eq!((signers.power.get(), signers.total.get(), signers.validators.len()), (26, 26, 4));
    assert_eq!(light.query(b"no such key").await.unwrap().value, None);
    assert_eq!(light.root().trusted.height, height(4));

    // Our own write, proven by the header that follows it.
    let committed = light.client().broadcast_tx_commit(b"mine=7").await.unwrap();
    let found = light.query(b"mine").await.unwrap();
    assert_eq!(found.value.as_deref(), Some(&b"7"[..]));
    assert!(found.height >= committed.height);
    assert_eq!(node.chain.lock().unwrap().tip(), 6);
}

#[tokio::test]
async fn the_header_that_proves_is_waited_for() {
    let mut chain = Chain::story();
    chain.push(Plan { txs: vec!["late=1"], ..Plan::default() });
    let (node, _server, mut light) = light(chain).await;
    // The block with the transaction is the tip: nothing proves the state after it yet.
    let asking = tokio::spawn(async move { light.query(b"late").await });
    while node.chain.lock().unwrap().tip() == 5 && !asking.is_finished() {
        tokio::task::yield_now().await;
        node.chain.lock().unwrap().push(Plan::default());
    }
    let found = asking.await.unwrap().unwrap();
    assert_eq!((found.value.as_deref(), found.height), (Some(&b"1"[..]), height(5)));
}

#[tokio::test]
async fn transactions_and_results_are_proven() {
    let (_node, _server, mut light) = light(Chain::story()).await;
    let found = light.tx(&Hash::of("b=2")).await.unwrap();
    assert_eq!((found.height, found.index, found.tx.as_slice()), (height(2), 1, &b"b=2"[..]));
    assert_eq!(found.result.data, b"b=2");
    // Validator 1 of that height voted nil.
    assert_eq!((found.header.signers.power.get(), found.header.signers.total.get()), (14, 19));
    assert_eq!(light.root().trusted.height, height(3));
    // Below what was verified last: by the hash chain.
    assert_eq!(light.header(height(1)).await.unwrap().signers.power.get(), 15);
    assert_eq!(light.root().trusted.height, height(3));
}

/// The whole set is replaced, one member at a time.
fn turnover() -> Chain {
    let mut chain = Chain::new(&[(1, 10), (2, 10), (3, 10), (4, 10)]);
    for seed in 1..=20 {
        let updates = vec![member(seed, 0), member(seed + 4, 10)];
        chain.push(Plan { updates, ..Plan::default() });
        chain.push(Plan::default());
    }
    chain.push(Plan::default());
    chain.push(Plan::default());
    chain
}

#[tokio::test]
async fn trust_follows_the_validators_through_their_changes() {
    let chain = turnover();
    let tip = chain.tip();
    let (_node, _server, mut light) = light(chain).await;
    assert_eq!(light.header(height(tip)).await.unwrap().header.height, height(tip));
    let (_node, _server, mut backwards) = self::light(turnover()).await;
    backwards.header(height(tip)).await.unwrap();
    assert_eq!(backwards.header(height(3)).await.unwrap().header.height, height(3));
}

#[tokio::test]
async fn a_large_set_is_fetched_page_by_page() {
    let members: Vec<(u8, u64)> = (1..=230).map(|seed| (seed, 1)).collect();
    let mut chain = Chain::new(&members);
    (0..2).for_each(|_| chain.push(Plan::default()));
    let (_node, _server, mut light) = light(chain).await;
    assert_eq!(light.header(height(2)).await.unwrap().signers.validators.len(), 230);
}

#[tokio::test]
async fn another_chain_is_not_believed() {
    // Same id, same height, all hashes in order, other validators.
    let forged = Chain::new(&[(11, 10), (12, 5)]);
    let mut chain = forged;
    (0..4).for_each(|_| chain.push(Plan::default()));
    let trusted = root(&Chain::story());
    let (_node, _server, addr) = Node::new(chain).serve().await;
    let mut light = LightClient::new(client(addr), trusted);
    for h in [1, 2, 4] {
        assert!(matches!(light.header(height(h)).await, Err(VerifyError::Header { .. })), "height {h}");
    }
}

#[tokio::test]
async fn trust_expires() {
    let chain = Chain::story();
    let mut trusted = root(&chain);
    trusted.options.trusting_period = Duration::from_secs(1);
    let (_node, _server, addr) = Node::new(chain).serve().await;
    let mut light = LightClient::new(client(addr), trusted);
    assert!(matches!(light.header(height(2)).await, Err(VerifyError::Header { error: LightError::Expired, .. })));
}

#[tokio::test]
async fn nothing_below_the_root_is_proven_without_a_header_above() {
    let chain = Chain::story();
    let mut trusted = root(&chain);
    trusted.trusted.height = height(2);
    trusted.trusted.time = chain.header(2).time;
    trusted.trusted.next_validators = chain.sets[2].clone();
    let (node, _server, addr) = Node::new(chain).serve().await;
    let mut light = LightClient::new(client(addr), trusted);
    assert!(matches!(light.header(height(1)).await, Err(VerifyError::BelowRoot { .. })));
    light.header(height(3)).await.unwrap();
    light.header(height(1)).await.unwrap();
    // Backwards, too, a header must be the one that the chain of hashes names.
    *node.lie_commit.lock().unwrap() = Some(Box::new(|answer| answer.header.time = answer.header.time.saturating_sub(PERIOD)));
    assert!(matches!(light.header(height(1)).await, Err(VerifyError::Header { error: LightError::Mismatch(_), .. })));
    assert!(matches!(light.header(height(3)).await, Err(VerifyError::Proof { .. })));
}

#[tokio::test]
async fn lies_about_the_state_prove_nothing() {
    let (node, _server, mut light) = light(Chain::story()).await;
    type Edit = fn(&mut lockstep_rpc::backend::AppAnswer);
    let lies: [(&str, Edit); 9] = [
        ("another value", |answer| answer.value = b"2".to_vec()),
        ("absence", |answer| answer.value.clear()),
        ("no proof", |answer| answer.proof_ops = None),
        ("empty proof", |answer| answer.proof_ops = Some(Vec::new())),
        ("two steps", |answer| {
            let ops = answer.proof_ops.as_mut().unwrap();
            ops.push(ops[0].clone());
        }),
        ("another kind", |answer| answer.proof_ops.as_mut().unwrap()[0].kind = "simple:v".into()),
        ("cut proof", |answer| {
            answer.proof_ops.as_mut().unwrap()[0].data.pop();
        }),
        ("a refusal", |answer| answer.code = 1),
        ("a proof of another key", |answer| {
            let state = crate::chain::State::from([(b"a".to_vec(), b"1".to_vec())]);
            answer.proof_ops.as_mut().unwrap()[0].data = crate::chain::prove(&state, b"a").to_bytes();
        }),
    ];
    // With one more block, no lie is told apart by waiting for a header that never comes.
    node.chain.lock().unwrap().push(Plan::default());
    for (name, lie) in lies {
        *node.lie_query.lock().unwrap() = Some(Box::new(move |answer| {
            lie(answer);
            answer.height = height(4);
        }));
        let error = light.query(b"a").await.expect_err(name);
        assert!(matches!(error, VerifyError::Proof { .. }), "{name}: {error}");
    }
    *node.lie_query.lock().unwrap() = Some(Box::new(|answer| answer.height = Height::MAX));
    let error = light.query(b"a").await.unwrap_err();
    assert!(matches!(error, VerifyError::Client(_)), "{error}");
}

#[tokio::test]
async fn lies_about_headers_prove_nothing() {
    type Edit = fn(&mut lockstep_rpc::backend::CommitAnswer);
    let lies: [(&str, Edit); 9] = [
        ("app hash", |answer| answer.header.app_hash = AppHash::from(Hash([9; 32]))),
        ("time", |answer| answer.header.time = answer.header.time.saturating_add(Duration::from_secs(1))),
        ("height of the commit", |answer| answer.commit.height = height(3)),
        ("round of the commit", |answer| answer.commit.round = lockstep_types::Round::new(1).unwrap()),
        ("block of the commit", |answer| answer.commit.block_id.hash = Hash([9; 32])),
        ("no signatures", |answer| answer.commit.signatures.iter_mut().for_each(|sig| *sig = CommitSig::Absent)),
        ("no quorum", |answer| answer.commit.signatures[0] = CommitSig::Absent),
        ("a slot less", |answer| {
            answer.commit.signatures.pop();
        }),
        ("a bad signature, last", |answer| match answer.commit.signatures.last_mut().unwrap() {
            CommitSig::Commit(slot) => slot.signature.0[7] ^= 1,
            _ => panic!("the last one signed"),
        }),
    ];
    for (name, lie) in lies {
        let (node, _server, mut light) = light(Chain::story()).await;
        *node.lie_commit.lock().unwrap() = Some(Box::new(lie));
        let error = light.header(height(4)).await.expect_err(name);
        let told = matches!(error, VerifyError::Header { .. } | VerifyError::Commit { .. } | VerifyError::Proof { .. });
        assert!(told, "{name}: {error}");
    }
    // Another set than the header names, and none at all.
    let (node, _server, mut light) = light(Chain::story()).await;
    *node.lie_set.lock().unwrap() = Some(Box::new(|set| {
        let mut validators: Vec<_> = set.iter().cloned().collect();
        validators[0].power = Power::new(1_000).unwrap();
        *set = ValidatorSet::from_validators(validators, ValidatorIndex::ZERO).unwrap();
    }));
    assert!(matches!(light.header(height(4)).await, Err(VerifyError::Header { error: LightError::Mismatch(_), .. })));
}

#[tokio::test]
async fn lies_about_transactions_prove_nothing() {
    let (node, _server, mut light) = light(Chain::story()).await;
    let hash = Hash::of("b=2");
    type Edit = fn(&mut lockstep_rpc::backend::TxAnswer);
    let lies: [(&str, Edit); 4] = [
        ("other bytes", |answer| answer.tx = Tx(b"b=3".to_vec())),
        ("another place", |answer| answer.index = 0),
        ("another block", |answer| answer.height = height(3)),
        ("a place beyond the block", |answer| answer.index = 2),
    ];
    for (name, lie) in lies {
        *node.lie_tx.lock().unwrap() = Some(Box::new(lie));
        let error = light.tx(&hash).await.expect_err(name);
        assert!(matches!(error, VerifyError::Proof { .. } | VerifyError::Client(ClientError::Answered { .. })), "{name}: {error}");
    }
    *node.lie_tx.lock().unwrap() = None;
    type EditResults = fn(&mut lockstep_rpc::backend::BlockResults);
    let lies: [(&str, EditResults); 3] = [
        ("another code", |results| results.tx_results[1].code = 1),
        ("another result missing", |results| {
            results.tx_results.remove(0);
        }),
        ("no results", |results| results.tx_results.clear()),
    ];
    for (name, lie) in lies {
        *node.lie_results.lock().unwrap() = Some(Box::new(lie));
        let error = light.tx(&hash).await.expect_err(name);
        assert!(matches!(error, VerifyError::Proof { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_liar_is_left_for_an_honest_node() {
    let trusted = root(&Chain::story());
    let (liar, _liar_server, liar_addr) = Node::new(Chain::story()).serve().await;
    let (_honest, _server, addr) = Node::new(Chain::story()).serve().await;
    *liar.lie_query.lock().unwrap() = Some(Box::new(|answer| {
        answer.value = b"stolen".to_vec();
        answer.height = height(3);
    }));
    let client = Client::new([liar_addr.to_string(), addr.to_string()]).unwrap();
    let mut light = LightClient::new(client, trusted);
    assert_eq!(light.query(b"a").await.unwrap().value.as_deref(), Some(&b"1"[..]));
    assert_eq!(light.client().endpoint(), format!("http://{addr}"));
}
