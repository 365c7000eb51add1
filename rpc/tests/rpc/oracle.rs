//! The crate `tendermint-rpc` as an independent judge: its requests are taken, its types parse our answers.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tendermint_rpc::dialect::v0_38::Dialect;
use tendermint_rpc::endpoint::*;
use tendermint_rpc::{PageNumber, PerPage, Response as _, SimpleRequest};

use crate::chain::{Chain, Plan};
use crate::http::Http;
use crate::node::Node;

/// Asks as the crate's own client would, and reads as it would.
async fn ask<R: SimpleRequest<Dialect>>(addr: SocketAddr, request: R) -> R::Output {
    let reply = Http::connect(addr).await.post(request.into_json().as_bytes()).await;
    assert_eq!(reply.status, 200);
    R::Response::from_string(&reply.body).unwrap_or_else(|error| panic!("{error}\n{}", reply.body)).into()
}

fn at(h: u64) -> tendermint::block::Height {
    h.try_into().unwrap()
}

#[tokio::test]
async fn the_rust_client_reads_every_answer() {
    let chain = Chain::story();
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;

    ask(addr, health::Request).await;
    let status = ask(addr, status::Request).await;
    assert_eq!(status.sync_info.latest_block_height, at(4));
    assert_eq!(status.sync_info.latest_block_hash.as_bytes(), chain.block_id(4).hash.0);
    assert_eq!(status.node_info.version.to_string(), "0.38.0");
    assert!(tendermint_rpc::client::CompatMode::from_version(status.node_info.version).is_ok());
    let net = ask(addr, net_info::Request).await;
    assert_eq!(net.peers.len(), 1);
    let genesis = ask(addr, genesis::Request::<serde_json::Value>::default()).await;
    assert_eq!(genesis.genesis.chain_id.as_str(), "dockerchain");
    assert_eq!(ask(addr, genesis_chunked::Request::new(0)).await.total, 1);

    for h in 1..=4 {
        let block = ask(addr, block::Request::new(at(h))).await;
        // The crate's own hash of what it read is the hash that names the block.
        assert_eq!(block.block.header.hash().as_bytes(), chain.block_id(h).hash.0, "block {h}");
        assert_eq!(block.block_id.hash.as_bytes(), chain.block_id(h).hash.0);
        assert_eq!(block.block.data.len(), if h == 2 { 2 } else { 0 });
        assert_eq!(block.block.evidence.iter().count(), usize::from(h == 3));
        let header = ask(addr, header::Request::new(at(h))).await.header;
        assert_eq!(header.hash().as_bytes(), chain.block_id(h).hash.0);
        let hash = tendermint::Hash::Sha256(chain.block_id(h).hash.0);
        assert_eq!(ask(addr, block_by_hash::Request::new(hash)).await.block.unwrap().header.height, at(h));
        assert_eq!(ask(addr, header_by_hash::Request::new(hash)).await.header.unwrap().height, at(h));
        let commit = ask(addr, commit::Request::new(at(h))).await;
        assert_eq!(commit.canonical, h < 4);
        assert_eq!(commit.signed_header.commit().signatures.len(), chain.commits[h as usize - 1].signatures.len());
        let results = ask(addr, block_results::Request::new(at(h))).await;
        assert_eq!(results.txs_results.is_some(), h == 2);
        assert_eq!(results.validator_updates.len(), usize::from(h == 2));
        assert_eq!(results.consensus_param_updates.is_some(), h == 3);
    }
    assert_eq!(ask(addr, block::Request::default()).await.block.header.height, at(4));
    let metas = ask(addr, blockchain::Request::new(at(1), at(3))).await.block_metas;
    assert_eq!(metas.iter().map(|meta| meta.header.height.value()).collect::<Vec<_>>(), [3, 2, 1]);

    for (page, per_page) in [(None, None), (Some(PageNumber::from(1)), Some(PerPage::from(100)))] {
        let validators = ask(addr, validators::Request::new(Some(at(5)), page, per_page)).await;
        let set = tendermint::validator::Set::without_proposer(validators.validators);
        assert_eq!(set.hash().as_bytes(), chain.sets[4].hash().0);
    }
    assert_eq!(ask(addr, consensus_params::Request::new(Some(at(2)))).await.consensus_params.block.max_bytes, 22_020_096);

    let info = ask(addr, abci_info::Request).await.response;
    // The crate keeps the text of this one hash undecoded.
    assert_eq!(info.last_block_app_hash.as_bytes(), STANDARD.encode(chain.results[3].app_hash.as_bytes()).as_bytes());
    let query = ask(addr, abci_query::Request::new(None, b"a".to_vec(), None, true)).await.response;
    assert_eq!((query.value.as_slice(), query.proof.unwrap().ops.len()), (&b"1"[..], 1));
    let query = ask(addr, abci_query::Request::new(Some("/store".into()), b"zz".to_vec(), Some(at(3)), false)).await.response;
    assert!(query.value.is_empty() && query.proof.is_none());

    let hash = tendermint::Hash::Sha256(lockstep_types::Hash::of("b=2").0);
    let found = ask(addr, tx::Request::new(hash, true)).await;
    assert_eq!((found.height, found.index, found.tx.as_slice()), (at(2), 1, &b"b=2"[..]));
    assert_eq!(found.proof.unwrap().root_hash.as_bytes(), chain.header(2).data_hash.0);

    assert_eq!(ask(addr, broadcast::tx_async::Request::new(*b"e=5")).await.code.value(), 0);
    assert_eq!(ask(addr, broadcast::tx_sync::Request::new(*b"rubbish")).await.code.value(), 2);
    let committed = ask(addr, broadcast::tx_commit::Request::new(*b"f=6")).await;
    assert_eq!((committed.height, committed.tx_result.gas_wanted), (at(5), 1));
    let failed = ask(addr, broadcast::tx_commit::Request::new(*b"wrong")).await;
    assert_eq!((failed.height.value(), failed.check_tx.code.value()), (0, 2));
}

#[tokio::test]
async fn the_rust_client_reads_our_errors() {
    let (_node, _server, addr) = Node::new(Chain::story()).serve().await;
    let request = tendermint_rpc::request::RequestMessage::into_json(block::Request::new(at(99)));
    let reply = Http::connect(addr).await.post(request.as_bytes()).await;
    let error = block::Response::from_string(&reply.body).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("height 99 must be less than or equal to the current blockchain height 4"), "{text}");
}

#[tokio::test]
async fn the_rust_client_reads_both_kinds_of_evidence() {
    let mut chain = Chain::story();
    let evidence = vec![chain.attack(2)];
    chain.push(Plan { evidence, ..Plan::default() });
    let (_node, _server, addr) = Node::new(chain).serve().await;
    let evidence = ask(addr, block::Request::new(at(5))).await.block.evidence;
    let attack = evidence.iter().next().unwrap();
    assert!(matches!(attack, tendermint::evidence::Evidence::LightClientAttack(_)));
    assert!(matches!(
        ask(addr, block::Request::new(at(3))).await.block.evidence.iter().next().unwrap(),
        tendermint::evidence::Evidence::DuplicateVote(_)
    ));
    // CometBFT's own spelling stands beside the crate's.
    let block = Http::connect(addr).await.call("block", json!(["5"])).await;
    let shown = &block["block"]["evidence"]["evidence"][0];
    assert_eq!(shown["type"], "tendermint/LightClientAttackEvidence");
    let value = shown["value"].as_object().unwrap();
    for (snake, camel) in [
        ("conflicting_block", "ConflictingBlock"),
        ("common_height", "CommonHeight"),
        ("byzantine_validators", "ByzantineValidators"),
        ("total_voting_power", "TotalVotingPower"),
        ("timestamp", "Timestamp"),
    ] {
        assert_eq!(value[snake], value[camel]);
    }
    assert_eq!((value.len(), &value["common_height"], &value["total_voting_power"]), (10, &json!("1"), &json!("19")));
    let shown = &value["conflicting_block"];
    assert_eq!((&shown["signed_header"]["header"]["height"], &shown["signed_header"]["commit"]["height"]), (&json!("2"), &json!("2")));
    assert_eq!(shown["validator_set"]["validators"].as_array().unwrap().len(), 3);
    assert_eq!(shown["validator_set"]["proposer"]["address"], shown["signed_header"]["header"]["proposer_address"]);
}
