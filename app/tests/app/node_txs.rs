//! The transactions of membership themselves: their bytes, what is signed of them, what is refused and how it is said.

use lockstep_app::membership::{Join, NodeTx, Quit, RecentBlock, address_breaks, moniker_breaks};
use lockstep_app::node_tx::{
    NODE_TX_MALFORMED, NODE_TX_NOT_ALLOWED, NODE_TX_PREFIX, NODE_TX_REFUSED, NODE_TX_SIGNATURE, NODE_TX_STALE, NODE_TXS_MAX,
};
use lockstep_app::{CheckKind, Proposal, ProposalInput};
use lockstep_types::{Hash, Signature, Time, Tx};

use super::common::{Chain, height};
use super::town::{Town, address, four, key, power};

#[test]
fn what_a_member_says_of_itself_can_be_read_and_dialled() {
    let id = "8d6f5b0a4c3e2f1d0b9a8c7e6f5d4c3b2a190817";
    for good in [
        "10.0.0.10:26656",
        "a:1",
        "[::1]:65535",
        "node-1.example.org:443",
        "a_b:80",
        &format!("{id}@10.0.0.10:26656"),
        &format!("{id}@[2001:db8::1]:1"),
    ] {
        assert_eq!(address_breaks(good), None, "{good}");
    }
    for bad in [
        "",
        "garbage",
        "10.0.0.10",
        "10.0.0.10:",
        ":26656",
        "10.0.0.10:0",
        "10.0.0.10:65536",
        "10.0.0.10:+1",
        "a b:1",
        "a..b:1",
        ".:1",
        "::1:26656",
        "[::1:26656",
        "[garbage]:1",
        "[]:1",
        "http://a:1",
        "a:1/x",
        "a\u{7}:1",
        "\u{e4}:1",
        "@a:1",
        "short@a:1",
        &format!("{id}@"),
        &format!("{id}@a"),
        &format!("{id}@{id}@a:1"),
    ] {
        assert!(address_breaks(bad).is_some(), "{bad:?}");
    }
    for good in ["", "node 5", "Zürich ⚡ 東京", "a'b\"c<d>"] {
        assert_eq!(moniker_breaks(good), None, "{good}");
    }
    for bad in ["a\u{7}b", "a\nb", "\u{1b}[2J", "a\u{85}", "a\u{202e}b", "a\u{200b}b", "\u{feff}a", "a\u{e0041}"] {
        assert!(moniker_breaks(bad).is_some(), "{bad:?}");
    }
}

#[test]
fn what_is_wrong_with_a_transaction_is_said() {
    let mut town = Town::new(r#"{"admission":"vote","live_window":10}"#, &four());
    town.blocks(1);
    let old = town.join(5, 10);
    town.blocks(20);
    town.refused(old, NODE_TX_STALE, "sign it again over a newer block");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    join.recent.hash = Hash::of(b"another chain");
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_STALE, "of this chain is");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    join.recent.height = height(5_000);
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_STALE, "not one of the remembered blocks");
    town.refused(town.signed(town.join_tx(5, 10), 6), NODE_TX_SIGNATURE, "does not hold");
    town.refused(town.join(5, 14), NODE_TX_REFUSED, "at most 13 is ever moved");
    town.refused(town.join(1, 10), NODE_TX_REFUSED, "validator already");
    town.refused(town.approve(1, 10, 2), NODE_TX_REFUSED, "validator already");
    town.refused(town.approve(5, 10, 9), NODE_TX_NOT_ALLOWED, "is no validator");
    town.refused(town.quit(9, 9), NODE_TX_REFUSED, "no validator and does not ask");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    join.moniker = "a\u{7}b".to_owned();
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_MALFORMED, "no control characters");
    let NodeTx::Join(mut join) = town.join_tx(5, 10) else { unreachable!() };
    join.addresses.push("garbage".to_owned());
    town.refused(town.signed(NodeTx::Join(join), 5), NODE_TX_MALFORMED, "addresses is garbage: NODE_ID@HOST:PORT or HOST:PORT");
    town.refused(Tx(b"\x00=:\x09".to_vec()), NODE_TX_MALFORMED, "no known kind");
    town.refused(Tx(b"\x00=:\x01\x02".to_vec()), NODE_TX_MALFORMED, "version");
    town.ok(town.join(5, 10));
    town.ok(town.quit(5, 5));
    assert_eq!(town.status(5), None, "a JOIN can be taken back");
}

#[test]
fn proposals_carry_what_has_an_effect_and_refuse_what_cannot_be_read() {
    let mut town = Town::new(r#"{"admission":"open"}"#, &four());
    town.blocks(1);
    let kv = Tx(b"a=b".to_vec());
    let candidates = vec![kv.clone(), town.join(5, 10), town.join(5, 10), town.quit(9, 9), town.quit(1, 1)];
    let proposal = ProposalInput {
        chain_id: &town.chain.id,
        height: town.state.height().next(),
        time: Time::ZERO,
        proposer: address(1),
        candidates: &candidates,
        max_bytes: 10_000,
        last_commit: Vec::new(),
        misbehaviour: Vec::new(),
        parameters: &town.chain.parameters,
    };
    let chosen = town.host.prepare_proposal(&town.state, &proposal);
    assert_eq!(chosen, [candidates[1].clone(), candidates[2].clone(), candidates[4].clone(), kv.clone()]);
    let small = ProposalInput { max_bytes: 10, ..proposal };
    assert_eq!(town.host.prepare_proposal(&town.state, &small), std::slice::from_ref(&kv));
    let judge = |txs: &[Tx]| town.host.process_proposal(&town.state, &town.chain.block(2, txs));
    assert_eq!(judge(&chosen), Proposal::Accept);
    let bad = [Tx(b"\x00=:\x01\x01nonsense".to_vec())];
    assert!(matches!(judge(&bad), Proposal::Reject(reason) if reason.contains("JOIN")));
    let many = vec![town.join(5, 10); NODE_TXS_MAX + 1];
    assert!(matches!(judge(&many), Proposal::Reject(reason) if reason.contains("at most 64")));
}

/// Frozen: what is hashed into blocks and what is signed.
#[test]
fn the_bytes_of_transactions_are_these() {
    let recent = RecentBlock { height: height(7), hash: Hash([0xaa; 32]) };
    let join = NodeTx::Join(Box::new(Join {
        public_key: key(1).public_key(),
        power: power(10),
        moniker: "m".to_owned(),
        addresses: vec!["a:1".to_owned()],
        replaces: None,
        recent,
        signature: Signature([0xbb; 64]),
        replaced_signature: None,
    }));
    let expected = [
        "003d3a01".to_owned() + "01",
        hex::encode(key(1).public_key().0),
        "0a00000000000000".to_owned(),
        "01000000".to_owned() + "6d",
        "01000000".to_owned() + "03000000" + "613a31",
        "00".to_owned(),
        "0700000000000000".to_owned() + &"aa".repeat(32),
        "bb".repeat(64),
        "00".to_owned(),
    ]
    .concat();
    assert_eq!(hex::encode(join.encode()), expected);
    let chain_id = Chain::new().id;
    let signed = [
        "0004".to_owned() + "04" + &hex::encode("test"),
        hex::encode(Hash::of(b"genesis").0),
        "01".to_owned(),
        hex::encode(key(1).public_key().0),
        "0a00000000000000".to_owned() + "010000006d" + "01000000" + "03000000" + "613a31" + "00",
        "0700000000000000".to_owned() + &"aa".repeat(32),
    ]
    .concat();
    assert_eq!(hex::encode(join.sign_bytes(&chain_id, &Hash::of(b"genesis"))), signed);
    let quit =
        NodeTx::Quit(Quit { public_key: key(1).public_key(), signer: key(2).public_key(), recent, signature: Signature([0xbb; 64]) });
    let body = hex::encode(key(1).public_key().0) + &hex::encode(key(2).public_key().0) + "0700000000000000" + &"aa".repeat(32);
    assert_eq!(hex::encode(quit.encode()), "003d3a0201".to_owned() + &body + &"bb".repeat(64));
    assert_eq!(
        hex::encode(quit.sign_bytes(&chain_id, &Hash::of(b"genesis"))),
        "000804".to_owned() + &hex::encode("test") + &hex::encode(Hash::of(b"genesis").0) + "02" + &body
    );
}

#[test]
fn every_byte_of_a_transaction_is_signed() {
    let mut town = Town::new(r#"{"admission":"open"}"#, &four());
    town.blocks(2);
    for tx in [town.join(5, 10), town.rotate(1, 5, 10), town.quit(1, 1), town.checkpoint(2)] {
        assert_eq!(NodeTx::decode(&tx.0).expect("its own bytes").encode(), tx.0);
        // What does not begin with the prefix is the application's.
        for at in NODE_TX_PREFIX.len()..tx.0.len() {
            assert!(NodeTx::decode(&tx.0[..at]).is_err(), "cut at {at}");
            for value in [1, 0x80] {
                let mut other = tx.0.clone();
                other[at] ^= value;
                assert_ne!(town.host.check_tx(&town.state, &other, CheckKind::New).code, 0, "byte {at}");
            }
        }
        let mut longer = tx.0.clone();
        longer.push(0);
        assert!(NodeTx::decode(&longer).is_err());
    }
}
