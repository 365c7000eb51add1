//! The token as its clients see it, and its bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::scalar::Scalar;
use lockstep_app::node_tx::{NODE_TX_PREFIX, is_node_tx};
use lockstep_app::token::{
    CODESPACE, Effort, MEMO_BYTES_MAX, NONCES_AHEAD_MAX, PAYMENTS_MAX, SUPPLY_MAX, TOKEN_TX_BYTES_MAX, TOKEN_TX_PREFIX, account_key,
};
use lockstep_app::{CheckKind, Proposal, Token, kv};
use lockstep_types::state_tree::ics23::CommitmentProof;
use lockstep_types::{Address, Event, Hash, PublicKey, Signature, Tx};
use proptest::prelude::*;
use sha2::{Digest as _, Sha512};

use super::common::Chain;
use super::token_bank::{Bank, Draft, PROPOSER, address, genesis, key};

/// Three accounts with 1000 each; fees of 2 at least, for the proposer.
fn three() -> Bank {
    Bank::new(&genesis(&[(1, 1000), (2, 1000), (3, 1000)], 2, None))
}

#[test]
fn genesis_is_read_strictly() {
    let (one, key_text) = (address(1).to_string(), STANDARD.encode(key(1).public_key().0));
    let weak = STANDARD.encode([&[1u8][..], &[0; 31]].concat());
    let account = |owner: &str, balance: &str| format!(r#"{{"accounts":[{{{owner},"balance":{balance}}}]}}"#);
    let of_one = format!(r#""address":"{one}""#);
    let two = |first: u64, second: u64| {
        format!(r#"{{"accounts":[{{"address":"{one}","balance":{first}}},{{"address":"{}","balance":"{second}"}}]}}"#, address(2))
    };
    let with = |more: &str| format!(r#"{{"accounts":[{{{of_one},"balance":5}}],{more}}}"#);
    for (group, field, named) in [
        ("{}".to_owned(), "app_state", "missing field `accounts`"),
        (r#"{"accounts":[]}"#.to_owned(), "accounts", "at least one account"),
        (account(&of_one, "0"), "accounts[0].balance", "a whole number from 1 to"),
        (account(&of_one, "-1"), "accounts[0].balance", "is -1"),
        (account(&of_one, "1.5"), "accounts[0].balance", "is 1.5"),
        (account(&of_one, "\"+1\""), "accounts[0].balance", "a whole number"),
        (account(&of_one, "\"\""), "accounts[0].balance", "a whole number"),
        (account(&of_one, "null"), "accounts[0].balance", "is null"),
        (account(&of_one, "9223372036854775808"), "accounts[0].balance", "is 9223372036854775808"),
        (account(r#""address":"12""#, "1"), "accounts[0].address", "40 hexadecimal digits"),
        (account(r#""address":12"#, "1"), "accounts[0].address", "is 12"),
        (account(r#""public_key":"AA==""#, "1"), "accounts[0].public_key", "32 bytes in base64"),
        (account(&format!(r#""public_key":"{weak}""#), "1"), "accounts[0].public_key", "small order"),
        (account(&format!(r#"{of_one},"public_key":"{key_text}""#), "1"), "accounts[0].public_key", "not both"),
        (account(r#""memo":"x""#, "1"), "app_state", "unknown field `memo`"),
        (r#"{"accounts":[{"balance":1}]}"#.to_owned(), "accounts[0].address", "an address or a public key"),
        (two(SUPPLY_MAX, 1), "accounts[1].balance", "all balances together"),
        (
            format!(r#"{{"accounts":[{{{of_one},"balance":1}},{{"public_key":"{key_text}","balance":1}}]}}"#),
            "accounts[1]",
            "each account once",
        ),
        (with(r#""min_fee":-1"#), "min_fee", "a whole number from 0 to"),
        (with(r#""min_fee":"many""#), "min_fee", "is \"many\""),
        (with(r#""fee_account":"proposer""#), "fee_account", "40 hexadecimal digits"),
        (with(r#""fees":1"#), "app_state", "unknown field `fees`"),
    ] {
        let error = Bank::refused(&format!(r#"{{"token":{group}}}"#));
        assert!(error.field.ends_with(field), "{group}: {error}");
        assert!(error.to_string().contains(named), "{group}: {error}");
        assert!(error.value.chars().count() <= 101, "{group}: {error}");
    }
    for app_state in ["{}", "[", r#"{"kv":{}}"#, r#"{"token":{},"kv":{}}"#] {
        assert_eq!(Bank::refused(app_state).field, "app_state");
    }
    let good = format!(r#"{{"token":{{"accounts":[{{"public_key":"{key_text}","balance":"7"}}]}}}}"#);
    let bank = Bank::new(&good);
    assert_eq!(bank.account(1), (7, 0));
    // The least fee, where nothing is said.
    assert_eq!(bank.check(&Draft::from(1).fee(0).pay(2, 1).tx()).code, 3);
    assert_eq!(bank.check(&Draft::from(1).fee(1).pay(2, 1).tx()).code, 0);
}

#[test]
fn a_transfer_moves_what_it_says() {
    let mut bank = three();
    let root = bank.state.root();
    assert!(bank.block(&[]).changes.is_empty(), "an empty block changes nothing");
    assert_eq!(bank.state.root(), root);
    let executed = bank.block(&[
        Draft::from(1).fee(5).pay(2, 100).pay(9, 50).pay(2, 1).tx(),
        Draft::from(2).fee(2).pay(2, 7).memo(b"to myself").tx(),
        // What came in this block can be spent in it.
        Draft::from(9).fee(3).pay(1, 47).tx(),
    ]);
    let told: Vec<_> =
        executed.tx_results.iter().map(|result| (result.code, result.gas_wanted, result.gas_used, result.log.as_str())).collect();
    assert_eq!(told, [(0, 8, 8, ""), (0, 6, 6, ""), (0, 6, 6, "")]);
    assert_eq!(bank.account(1), (1000 - 156 + 47, 1));
    assert_eq!(bank.account(2), (1000 + 101 - 2, 1));
    assert_eq!(bank.account(9), (0, 1));
    assert_eq!(bank.balance(PROPOSER), 10);
    assert_eq!(bank.sum(), 3000);
    let text = |event: &Event| event.attributes.iter().map(|a| format!("{}={} {}", a.key, a.value, a.index)).collect::<Vec<_>>().join(", ");
    let [first, second, third] = &executed.tx_results[0].events[..] else { panic!("one event for each payment") };
    assert_eq!(first.kind, "transfer");
    let expected = |to: u8, amount| format!("sender={} true, recipient={} true, amount={amount} false", address(1), address(to));
    assert_eq!([text(first), text(second), text(third)], [expected(2, 100), expected(9, 50), expected(2, 1)]);
}

#[test]
fn fees_go_where_genesis_says() {
    let mut bank = Bank::new(&genesis(&[(1, 1000)], 0, Some(7)));
    bank.block(&[Draft::from(1).fee(5).pay(2, 1).tx(), Draft::from(1).nonce(1).fee(6).pay(2, 1).tx()]);
    assert_eq!((bank.account(7), bank.balance(PROPOSER)), ((11, 0), 0));
    // A collector may send, and pays itself.
    bank.block(&[Draft::from(7).fee(4).pay(2, 1).tx()]);
    assert_eq!(bank.account(7), (10, 1));
    // What a block earns is spent in a later one.
    let refused = bank.block(&[Draft::from(1).nonce(2).fee(100).pay(2, 1).tx(), Draft::from(7).nonce(1).fee(50).pay(2, 1).tx()]);
    assert_eq!(refused.tx_results.iter().map(|result| result.code).collect::<Vec<_>>(), [0, 6]);
    // Without a fee nobody is credited.
    assert_eq!(bank.block(&[Draft::from(1).nonce(3).fee(0).pay(2, 1).tx()]).changes.len(), 2);
    assert_eq!(bank.sum(), 1000);
}

#[test]
fn payments_that_cannot_be_made_cost_the_fee() {
    let mut bank = three();
    let too_much = [Draft::from(1).fee(10).pay(2, 500).pay(3, 491).tx(), Draft::from(1).nonce(1).fee(2).pay(2, 988).tx()];
    assert_eq!(bank.process(&too_much), Proposal::Accept);
    let executed = bank.block(&too_much);
    let first = &executed.tx_results[0];
    assert_eq!((first.code, first.codespace.as_str(), first.gas_used), (7, CODESPACE, 7));
    assert_eq!(first.log, "the payments sum up to 991, and the account has 990 beside the fee");
    assert_eq!(first.events, []);
    assert_eq!(executed.tx_results[1].code, 0);
    assert_eq!((bank.account(1), bank.account(2), bank.account(3)), ((0, 2), (1988, 0), (1000, 0)));
    // Sums that no number of 64 bits holds.
    let huge = Draft::from(2).fee(2).pay(1, u64::MAX).pay(1, u64::MAX).tx();
    assert_eq!(bank.block(&[huge]).tx_results[0].code, 7);
    assert_eq!(bank.sum(), 3000);
}

/// What cannot take its turn gets a code, and changes nothing; a block that holds one is not accepted.
#[test]
fn whatever_cannot_take_its_turn_changes_nothing() {
    let mut bank = three();
    bank.block(&[Draft::from(1).fee(2).pay(2, 1).tx()]);
    let good = Draft::from(3).fee(2).pay(2, 1).tx();
    let mut other_signature = Draft::from(1).nonce(1).fee(2).pay(2, 1).tx();
    *other_signature.0.last_mut().expect("bytes") ^= 1;
    for (bad, code, named) in [
        (Tx(Vec::new()), 1, "begins with 01 3D 3A"),
        (Tx(b"a=1".to_vec()), 1, "begins with 01 3D 3A"),
        (Tx(vec![1, b'=', b':']), 1, "cannot be read"),
        (Draft::from(1).nonce(1).fee(2).tx(), 1, "payments is empty"),
        (Draft::from(1).nonce(1).fee(2).pay(2, 1).pay(2, 0).tx(), 1, "payments[1].amount is 0"),
        (Draft::from(1).nonce(u64::MAX).fee(2).pay(2, 1).tx(), 1, "nonce is 18446744073709551615"),
        (other_signature, 2, "another key signed"),
        (Draft::from(1).nonce(1).fee(2).pay(2, 1).elsewhere().tx(), 2, "for another chain"),
        (Draft::from(1).nonce(1).fee(1).pay(2, 1).tx(), 3, "fee 1: at least 2"),
        (Draft::from(1).fee(2).pay(2, 1).tx(), 4, "nonce 0 was used before: the next one of this account is 1"),
        (Draft::from(1).nonce(3).fee(2).pay(2, 1).tx(), 5, "nonce 3 is ahead of its turn"),
        (Draft::from(1).nonce(1).fee(998).pay(2, 1).tx(), 6, "the fee is 998, and the account has 997"),
        (Draft::from(8).fee(2).pay(2, 1).tx(), 6, "the account has 0"),
        (Draft::from(1).nonce(1).fee(u64::MAX).pay(2, 1).tx(), 6, "the account has 997"),
    ] {
        let executed = bank.execute(&[good.clone(), bad.clone()]);
        let result = &executed.tx_results[1];
        assert_eq!((result.code, result.codespace.as_str(), result.gas_wanted), (code, CODESPACE, 0), "{}", result.log);
        assert!(result.log.contains(named), "{}", result.log);
        assert_eq!(executed.changes, bank.execute(std::slice::from_ref(&good)).changes, "{}", result.log);
        assert_eq!(bank.process(&[good.clone(), bad.clone()]), Proposal::Reject(format!("transaction 1: {}", result.log)));
        assert_eq!(bank.prepare(&[bad, good.clone()], 1000), std::slice::from_ref(&good), "{named}");
    }
    // The same transaction twice: the second one comes too late.
    assert!(matches!(bank.process(&[good.clone(), good]), Proposal::Reject(reason) if reason.contains("transaction 1: nonce 0 was used")));
}

#[test]
fn the_mempool_is_told_order_worth_and_sender() {
    let bank = three();
    let tx = Draft::from(1).nonce(3).fee(600).pay(2, 1).memo(b"12345").tx();
    let verdict = bank.check(&tx);
    assert_eq!((verdict.code, verdict.nonce, verdict.next_nonce, verdict.gas_wanted), (0, Some(3), Some(0), 6));
    assert_eq!(verdict.sender.as_deref(), Some(address(1).as_ref()));
    assert_eq!((tx.0.len(), verdict.priority), (156, 600_000 / 156));
    // Of two that cost the same, the shorter is worth more.
    assert!(bank.check(&Draft::from(1).nonce(3).fee(600).pay(2, 1).tx()).priority > verdict.priority);
    for (draft, code) in [
        (Draft::from(1).nonce(NONCES_AHEAD_MAX).fee(2).pay(2, 1), 0),
        (Draft::from(1).nonce(NONCES_AHEAD_MAX + 1).fee(2).pay(2, 1), 5),
        (Draft::from(1).fee(2).pay(2, 998), 0),
        (Draft::from(1).fee(2).pay(2, 999), 7),
        (Draft::from(1).fee(1001).pay(2, 1), 6),
        (Draft::from(8).fee(2).pay(2, 1), 6),
    ] {
        let verdict = bank.check(&draft.tx());
        assert_eq!(verdict.code, code, "{}", verdict.log);
        assert_eq!(verdict.code == 0, verdict.log.is_empty());
    }
}

#[test]
fn a_signature_is_verified_once_on_a_node() {
    let mut bank = Bank::new(&genesis(&[(1, 1_000_000)], 1, None));
    let txs: Vec<Tx> = (0..40).map(|nonce| Draft::from(1).nonce(nonce).fee(1).pay(2, 1).tx()).collect();
    let effort = |verified, known| Effort { verified, known, kept: usize::try_from(verified).expect("few") };
    for tx in &txs[..30] {
        assert_eq!(bank.check(tx).code, 0);
    }
    assert_eq!(bank.token.effort(), effort(30, 0));
    for tx in &txs[..30] {
        assert_eq!(bank.check_as(tx, CheckKind::Recheck).code, 0);
    }
    assert_eq!(bank.token.effort(), effort(30, 0), "what is in the mempool is not verified again");
    assert_eq!(bank.prepare(&txs[..30], 1 << 20), txs[..30]);
    assert_eq!(bank.process(&txs), Proposal::Accept);
    assert_eq!(bank.token.effort(), effort(40, 60), "ten came with the block");
    bank.block(&txs);
    assert_eq!(bank.token.effort(), effort(40, 100));
    // An account that cannot pay makes no node verify anything.
    assert_eq!(bank.check(&Draft::from(5).fee(1).pay(1, 1).tx()).code, 6);
    assert_eq!(bank.token.effort(), effort(40, 100));
}

#[test]
fn a_proposer_takes_what_can_take_its_turn() {
    let bank = three();
    let of = |seed: u8, nonce: u64, fee: u64, amount: u64| Draft::from(seed).nonce(nonce).fee(fee).pay(9, amount).tx();
    let candidates =
        [of(1, 1, 2, 1), of(1, 0, 2, 1), of(1, 1, 3, 1), of(2, 0, 500, 400), of(2, 1, 101, 1), of(2, 1, 50, 999), of(3, 2, 9, 1)];
    let chosen = [of(1, 0, 2, 1), of(1, 1, 3, 1), of(2, 0, 500, 400), of(2, 1, 50, 999)];
    assert_eq!(bank.prepare(&candidates, 1 << 20), chosen);
    assert_eq!(bank.process(&chosen), Proposal::Accept);
    // Of what does not fit, nothing is charged: what comes after it in its sender's order is left out too.
    let size = chosen[0].0.len() as u64 + 4;
    assert_eq!(bank.prepare(&candidates, 2 * size + size - 1), chosen[..2]);
    let long = Draft::from(1).fee(2).pay(9, 1).memo(&[0; 100]).tx();
    assert_eq!(bank.prepare(&[long, of(1, 1, 2, 1), of(2, 0, 2, 1)], size), [of(2, 0, 2, 1)]);
    assert_eq!(bank.prepare(&candidates, 0), []);
}

#[test]
fn accounts_are_answered_and_proven() {
    let mut bank = three();
    bank.block(&[Draft::from(1).fee(2).pay(2, 48).tx()]);
    let one = format!(r#"{{"address":"{}","balance":"950","nonce":"1"}}"#, address(1));
    for data in [address(1).as_ref().to_vec(), address(1).to_string().into_bytes(), address(1).to_string().to_lowercase().into_bytes()] {
        let answer = bank.query("/account", &data);
        assert_eq!((answer.code, answer.log.as_str(), answer.key.as_slice()), (0, "exists", &account_key(&address(1))[..]));
        assert_eq!(answer.value.as_deref(), Some(one.as_bytes()));
        assert_eq!(answer.height, bank.state.height());
    }
    let nobody = bank.query("/account", address(77).as_ref());
    let nothing = format!(r#"{{"address":"{}","balance":"0","nonce":"0"}}"#, address(77));
    assert_eq!((nobody.code, nobody.log.as_str(), nobody.value.as_deref()), (0, "does not exist", Some(nothing.as_bytes())));
    for (path, data) in [("/account", &b""[..]), ("/account", b"nobody"), ("", b""), ("/val", b"x")] {
        let answer = bank.query(path, data);
        assert_eq!((answer.code, answer.codespace.as_str(), answer.value), (8, CODESPACE, None), "{path}");
    }
    let config = bank.query("/config", b"").value.expect("the rules");
    let expected =
        format!(r#"{{"chain_id":"test","genesis_hash":"{}","min_fee":"2","supply":"3000","fee_account":null}}"#, Hash::of(b"genesis"));
    assert_eq!(std::str::from_utf8(&config), Ok(&expected[..]));
    // The state itself, with its proof.
    for (who, value) in [(1, Some([950u64.to_le_bytes(), 1u64.to_le_bytes()].concat())), (77, None)] {
        let state_key = account_key(&address(who));
        let answer = bank.query_proven("/store", &state_key);
        assert_eq!(answer.value.as_deref(), value.as_deref());
        let proof = CommitmentProof::from_bytes(&answer.proof_ops[0].data).expect("a proof");
        assert_eq!(proof.verify(&bank.state.root(), &state_key, value.as_deref()), Ok(()));
        let more = [999u64.to_le_bytes(), 1u64.to_le_bytes()].concat();
        assert!(proof.verify(&bank.state.root(), &state_key, Some(&more)).is_err());
    }
}

/// Frozen: what travels, what is signed, what the state holds.
#[test]
fn the_bytes_are_these() {
    let tx = Draft::from(1).nonce(7).fee(0x1234).pay(2, 5).pay(3, 1 << 40).memo(b"hi").transfer();
    let unsigned = [
        "013d3a".to_owned(),
        hex::encode(key(1).public_key().0),
        "0700000000000000".to_owned() + "3412000000000000",
        "02000000".to_owned(),
        hex::encode(address(2).0) + "0500000000000000",
        hex::encode(address(3).0) + "0000000000010000",
        "02000000".to_owned() + "6869",
    ]
    .concat();
    let message = "00".to_owned() + "07" + "04" + &hex::encode("test") + &hex::encode(Hash::of(b"genesis").0) + &unsigned;
    let signature = key(1).sign(&hex::decode(message).expect("hexadecimal digits"));
    assert_eq!(hex::encode(tx.encode()), unsigned + &hex::encode(signature.0));
    assert_eq!(TOKEN_TX_BYTES_MAX, 3 + 32 + 8 + 8 + 4 + PAYMENTS_MAX * 28 + 4 + MEMO_BYTES_MAX + 64);
    let whole = Draft::from(1).fee(1).memo(&[9; MEMO_BYTES_MAX]);
    let whole = (0..PAYMENTS_MAX).fold(whole, |draft, _| draft.pay(2, 1)).tx();
    assert_eq!(whole.0.len(), TOKEN_TX_BYTES_MAX);
    // With the numbers that the documentation has.
    let golden = Draft::from(1).fee(1).pay(2, 5).tx();
    assert_eq!(golden.0.len(), 151);
    assert_eq!(golden.hash().to_string(), GOLDEN_TX_HASH);
    let mut bank = Bank::new(&genesis(&[(1, 100), (2, 50)], 1, None));
    let config = [
        "01".to_owned(),
        "04000000".to_owned() + &hex::encode("test"),
        hex::encode(Hash::of(b"genesis").0),
        "0100000000000000".to_owned() + "9600000000000000" + "00",
    ]
    .concat();
    let entries = |bank: &Bank| -> Vec<(String, String)> {
        let mut entries: Vec<_> =
            bank.state.tree().iter().map(|(key, value)| (key.escape_ascii().to_string(), hex::encode(value))).collect();
        entries.sort();
        entries
    };
    let account = |who: Address| account_key(&who).escape_ascii().to_string();
    let mut expected = vec![
        (account(address(1)), "64000000000000000000000000000000".to_owned()),
        (account(address(2)), "32000000000000000000000000000000".to_owned()),
        ("token:config".to_owned(), config.clone()),
    ];
    expected.sort();
    assert_eq!(entries(&bank), expected);
    assert_eq!(account_key(&address(1)), [b"token/", address(1).as_ref()].concat());
    let genesis_root = bank.state.root().to_string();
    bank.block(&[golden]);
    let mut expected = vec![
        (account(address(1)), "5e000000000000000100000000000000".to_owned()),
        (account(address(2)), "37000000000000000000000000000000".to_owned()),
        (account(PROPOSER), "01000000000000000000000000000000".to_owned()),
        ("token:config".to_owned(), config),
    ];
    expected.sort();
    assert_eq!(entries(&bank), expected);
    assert_eq!([genesis_root, bank.state.root().to_string()], GOLDEN_ROOTS);
    // A collector of fees, in the config.
    let bank = Bank::new(&genesis(&[(1, 100)], 1, Some(7)));
    let config = bank.state.tree().get(b"token:config").expect("written");
    assert!(hex::encode(config).ends_with(&("01".to_owned() + &hex::encode(address(7).0))));
}

// Computed by a program of two pages that shares no code with this one: RFC 8032 and the tree as the documentation has it.

/// SHA-256 of the transfer of 5 from the account of seed 1 to that of seed 2, with fee 1 and nonce 0.
const GOLDEN_TX_HASH: &str = "EF3DD1AB8AA70D364D1C74342B2571A1B574C5B7559D152DF94F88B06D90FCDE";
/// With 100 and 50 in these accounts after genesis, and after a block with that transfer.
const GOLDEN_ROOTS: [&str; 2] = [
    "8A2919A855B0D1213DFFD6D4794CCF26A660AB21C38FFA5D476A39AF171454A2",
    "A012F5EF011E2E76DA200730844A372DAFF806BD4068FCBFF6F257F22EEF8212",
];

#[test]
fn every_byte_of_a_transfer_counts() {
    let tx = Draft::from(1).fee(2).pay(2, 5).memo(b"m").tx();
    for at in 0..tx.0.len() {
        // A bank that knows the signature of the original, and none of the others.
        let bank = three();
        assert_eq!(bank.check(&tx).code, 0);
        assert_ne!(bank.check(&Tx(tx.0[..at].to_vec())).code, 0, "cut at {at}");
        for flip in 1..=255u8 {
            let mut other = tx.clone();
            other.0[at] ^= flip;
            assert_ne!(bank.check(&other).code, 0, "byte {at} ^ {flip}");
            if flip.is_power_of_two() {
                assert_ne!(bank.process(std::slice::from_ref(&other)), Proposal::Accept, "byte {at} ^ {flip}");
                assert_ne!(bank.execute(&[other]).tx_results[0].code, 0, "byte {at} ^ {flip}");
            }
        }
        assert_eq!(bank.token.effort().kept, 1);
    }
    let longer = Tx([&tx.0[..], &[0]].concat());
    assert_eq!(three().check(&longer).code, 1);
}

#[test]
fn three_kinds_of_transactions_are_never_each_other() {
    assert!(
        !is_node_tx(&TOKEN_TX_PREFIX) && !TOKEN_TX_PREFIX.starts_with(&NODE_TX_PREFIX) && !NODE_TX_PREFIX.starts_with(&TOKEN_TX_PREFIX)
    );
    // What the node's are is never shown to the application, and changes nothing of it.
    let mut bank = three();
    let tx = Tx([&NODE_TX_PREFIX[..], &[1, 1]].concat());
    assert_eq!(bank.check(&tx).codespace, "lockstep");
    assert_ne!(bank.process(std::slice::from_ref(&tx)), Proposal::Accept);
    let executed = bank.block(&[tx, Draft::from(1).fee(2).pay(2, 1).tx()]);
    assert_eq!(
        executed.tx_results.iter().map(|result| (result.code, &result.codespace[..])).collect::<Vec<_>>(),
        [(1, "lockstep"), (0, "")]
    );
}

proptest! {
    /// Whatever follows the prefix.
    #[test]
    fn no_bytes_are_a_transaction_of_two_kinds(rest in prop::collection::vec(any::<u8>(), 0..200), text in "[a-z0-9]{1,9}[=:][a-z0-9]{1,9}") {
        let ours = [&TOKEN_TX_PREFIX[..], &rest].concat();
        prop_assert!(!is_node_tx(&ours) && kv::parse(&ours).is_err());
        for other in [[&NODE_TX_PREFIX[..], &rest].concat(), text.into_bytes()] {
            prop_assert!(lockstep_app::token::Transfer::decode(&other).is_err());
        }
    }
}

/// SHA-512 of R, A and the message, as a scalar.
fn challenge(r: &[u8], a: &[u8], message: &[u8]) -> Scalar {
    let digest = Sha512::new().chain_update(r).chain_update(a).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&digest.into())
}

/// Transfers signed with torsion on R and on the key, in every combination: valid by ZIP-215, and by no verifier that
/// leaves out the cofactor. Alone, in a block, and beside one that does not hold, each has its one answer.
#[test]
fn a_batch_says_what_each_signature_says() {
    let number = |n: usize| Scalar::from_bytes_mod_order_wide(&Sha512::digest(n.to_le_bytes()).into());
    let mut odd = Vec::new();
    let mut strict = 0;
    let txs: Vec<Tx> = (0..64)
        .map(|n| {
            let (secret, nonce) = (number(n), number(1000 + n));
            let a = &secret * ED25519_BASEPOINT_TABLE + EIGHT_TORSION[n / 8];
            let r = (&nonce * ED25519_BASEPOINT_TABLE + EIGHT_TORSION[n % 8]).compress().to_bytes();
            let public_key = PublicKey(a.compress().to_bytes());
            odd.push(public_key.address());
            let mut transfer = Draft::from(1).fee(1).pay(2, 1).transfer();
            transfer.public_key = public_key;
            let bytes = transfer.encode();
            let message = [&Bank::domain()[..], &bytes[..bytes.len() - 64]].concat();
            let k = challenge(&r, &public_key.0, &message);
            let s = nonce + k * secret;
            transfer.signature = Signature([r, s.to_bytes()].concat().try_into().expect("64 bytes"));
            let point = CompressedEdwardsY(r).decompress().expect("a point");
            strict += usize::from(&s * ED25519_BASEPOINT_TABLE == point + k * a);
            Tx(transfer.encode())
        })
        .collect();
    assert!(strict < 20, "without the cofactor most are refused, {strict} are not");
    let accounts: Vec<String> = odd.iter().map(|owner| format!(r#"{{"address":"{owner}","balance":10}}"#)).collect();
    let app_state = format!(r#"{{"token":{{"accounts":[{}]}}}}"#, accounts.join(","));
    let alone = Bank::new(&app_state);
    for tx in &txs {
        assert_eq!(alone.check(tx).code, 0);
    }
    let together = Bank::new(&app_state);
    assert_eq!(together.process(&txs), Proposal::Accept);
    assert_eq!(together.token.effort(), alone.token.effort());
    let expected = together.execute(&txs);
    assert!(expected.tx_results.iter().all(|result| result.code == 0));
    assert_eq!(Bank::new(&app_state).execute(&txs).state.root(), expected.state.root(), "without a verdict kept");
    // One whose S is another's: of all the others the answer stays.
    let mut spoilt = txs.clone();
    spoilt[20].0[120] ^= 1;
    for bank in [&together, &Bank::new(&app_state)] {
        assert!(matches!(bank.process(&spoilt), Proposal::Reject(reason) if reason.starts_with("transaction 20: the signature")));
        let codes: Vec<u32> = bank.execute(&spoilt).tx_results.iter().map(|result| result.code).collect();
        assert_eq!(codes, (0..64).map(|at| if at == 20 { 2 } else { 0 }).collect::<Vec<_>>());
    }
}

#[test]
fn an_instance_may_serve_two_chains() {
    let token = std::sync::Arc::new(Token::new());
    let here = Bank::with(std::sync::Arc::clone(&token), Chain::new(), &genesis(&[(1, 10)], 1, None));
    let mut other = Chain::new();
    other.id = lockstep_types::ChainId::new("test2").expect("a chain id");
    let there = Bank::with(token, other, &genesis(&[(1, 10)], 1, None));
    let tx = Draft::from(1).fee(1).pay(2, 1).tx();
    assert_eq!((here.check(&tx).code, there.check(&tx).code), (0, 2));
    assert_eq!((here.check(&tx).code, there.check(&tx).code), (0, 2));
}
