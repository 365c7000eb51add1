//! The key-value application as clients see it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_app::{CheckKind, Host, Kv, Proposal, ProposalInput, Query, QueryAnswer, State};
use lockstep_types::state_tree::ics23::CommitmentProof;
use lockstep_types::{Address, Height, Time, Tx, ValidatorSet, ValidatorUpdate};

use super::common::{Chain, height, txs, validator};

const OPEN: &str = r#"{"kv":{"open_validators":true}}"#;

struct Run {
    chain: Chain,
    host: Host,
    state: State,
    set: ValidatorSet,
}

impl Run {
    fn new(app_state: &str) -> Self {
        let chain = Chain::new();
        let (host, initialized) = chain.init(Kv, app_state, &[validator(0, 10)]);
        let set = initialized.validators.clone();
        Self { chain, host, state: initialized.state, set }
    }

    fn check(&self, tx: &[u8]) -> (u32, i64) {
        let verdict = self.host.check_tx(&self.state, tx, CheckKind::New);
        assert_eq!(verdict.code == 0, verdict.log.is_empty());
        (verdict.code, verdict.gas_wanted)
    }

    fn block(&mut self, list: &[Tx]) -> lockstep_app::ExecutedBlock {
        let block = self.chain.block(self.state.height().get() + 1, list);
        let executed = self.host.execute(self.state.clone(), &block, Chain::facts(&self.set)).expect("executes");
        self.set.update(&executed.validator_updates).expect("a list that the set takes");
        self.state = executed.state.clone();
        executed
    }

    fn query(&self, path: &str, data: &[u8], prove: bool) -> QueryAnswer {
        self.host.query(&self.state, &Query { path, data, height: None, prove })
    }
}

fn validator_text(update: &ValidatorUpdate) -> String {
    format!("val=ed25519!{}!{}", STANDARD.encode(update.public_key.as_bytes()), update.power)
}

#[test]
fn check_tx_takes_one_separator_with_something_on_both_sides() {
    let run = Run::new("{}");
    for good in ["a=b", "a:b", "key with spaces=value", "\u{1f600}=\u{1f600}", "validator=1", "a=!"] {
        assert_eq!(run.check(good.as_bytes()), (0, 1), "{good}");
    }
    for bad in ["", "a", "=", ":", "=b", "a=", ":b", "a:", "a=b=c", "a:b:c", "a=b:c", "a:b=c", "val=x", "val=1"] {
        assert_eq!(run.check(bad.as_bytes()), (2, 0), "{bad}");
    }
    assert_eq!(run.check(b"\xff\x00=\xfe"), (0, 1));
    let sized = |key: usize, value: usize| [vec![b'k'; key], b"=".to_vec(), vec![b'v'; value]].concat();
    assert_eq!(run.check(&sized(64 * 1024 - 3, 1024 * 1024)), (0, 1));
    assert_eq!(run.check(&sized(64 * 1024 - 2, 1)), (2, 0));
    assert_eq!(run.check(&sized(1, 1024 * 1024 + 1)), (2, 0));
}

#[test]
fn validator_transactions_only_where_genesis_opens_them() {
    let open = Run::new(OPEN);
    let good = validator_text(&validator(1, 7));
    assert_eq!(open.check(good.as_bytes()), (0, 1));
    for closed in [Run::new("{}"), Run::new(r#"{"kv":{}}"#), Run::new(r#"{"kv":{"open_validators":false}}"#)] {
        assert_eq!(closed.check(good.as_bytes()), (2, 0));
    }
    let key = STANDARD.encode(validator(1, 1).public_key.as_bytes());
    let weak = STANDARD.encode([&[1u8][..], &[0; 31]].concat());
    for bad in [
        format!("val=foo!{key}!1"),
        format!("val=ed25519!{key}"),
        format!("val=ed25519!{key}!1!2"),
        format!("val=ed25519!{key}!-1"),
        format!("val=ed25519!{key}!+1"),
        format!("val=ed25519!{key}!"),
        format!("val=ed25519!{key}!1.5"),
        format!("val=ed25519!{key}!1152921504606846976"),
        format!("val=ed25519!{key}!99999999999999999999999"),
        format!("val=ed25519!{}!1", key.trim_end_matches('=')),
        format!("val=ed25519!{}!1", STANDARD.encode([7; 31])),
        format!("val=ed25519!{}!1", STANDARD.encode([7; 33])),
        format!("val=ed25519!{weak}!1"),
    ] {
        assert_eq!(open.check(bad.as_bytes()), (2, 0), "{bad}");
    }
    assert_eq!(open.check(format!("val=ed25519!{key}!1152921504606846975").as_bytes()), (0, 1));
}

#[test]
fn genesis_is_read_strictly() {
    let chain = Chain::new();
    let validators = [validator(0, 10)];
    let host = Host::new(std::sync::Arc::new(Kv));
    for (app_state, named) in [
        (r#"{"kw":{}}"#, "unknown field `kw`"),
        (r#"{"kv":{"open":true}}"#, "unknown field `open`"),
        (r#"{"kv":{"open_validators":1}}"#, "expected a boolean"),
        ("[", "EOF"),
        ("", "EOF"),
    ] {
        let error = host.init(&chain.genesis(app_state, &validators)).expect_err(app_state).to_string();
        assert!(error.contains("app_state") && error.contains(named), "{error}");
    }
}

#[test]
fn what_was_stored_is_read_with_both_separators() {
    let mut run = Run::new("{}");
    let executed = run.block(&txs(&["a=1", "b:2", "a=3", "nonsense"]));
    let codes: Vec<u32> = executed.tx_results.iter().map(|result| result.code).collect();
    assert_eq!(codes, [0, 0, 0, 2]);
    assert_eq!(executed.events, []);
    for (key, value) in [("a", "3"), ("b", "2")] {
        let answer = run.query("", key.as_bytes(), false);
        assert_eq!(answer.value.as_deref(), Some(value.as_bytes()));
        assert_eq!((answer.log.as_str(), answer.index, answer.key.as_slice(), answer.height), ("exists", 0, key.as_bytes(), height(1)));
    }
    let missing = run.query("/anything", b"c", true);
    assert_eq!((missing.value, missing.log.as_str(), missing.index, missing.code), (None, "does not exist", -1, 0));
    assert_eq!(missing.proof_ops, []);
    // Three were executed; what was refused does not count, what was overwritten does.
    assert_eq!(run.host.info(&run.state).data, r#"{"size":3}"#);
    assert_eq!(run.host.info(&run.state).app_version, 1);
}

#[test]
fn events_are_those_of_the_suites() {
    let mut run = Run::new(OPEN);
    let update = validator_text(&validator(1, 7));
    let executed = run.block(&txs(&["key=value", &update]));
    let told: Vec<Vec<(String, String, bool)>> = executed
        .tx_results
        .iter()
        .flat_map(|result| &result.events)
        .map(|event| {
            assert_eq!(event.kind, "app");
            event.attributes.iter().map(|attribute| (attribute.key.clone(), attribute.value.clone(), attribute.index)).collect()
        })
        .collect();
    let event = |creator: &str, key: &str| {
        let attribute = |name: &str, value: &str, index| (name.to_owned(), value.to_owned(), index);
        vec![
            attribute("creator", creator, true),
            attribute("key", key, true),
            attribute("index_key", "index is working", true),
            attribute("noindex_key", "index is working", false),
        ]
    };
    assert_eq!(
        told,
        [event("Cosmoshi Netowoko", "key"), event("Cosmoshi", "value"), event("Cosmoshi Netowoko", &update), event("Cosmoshi", &update)]
    );
    assert_eq!(executed.validator_updates, [validator(1, 7)]);
}

#[test]
fn val_answers_the_update_message_behind_its_length() {
    let mut run = Run::new(OPEN);
    let update = validator(1, 300);
    run.block(&txs(&[&validator_text(&update)]));
    let answer = run.query("/val", update.public_key.as_bytes(), false);
    // Length 39; field 1, 34 bytes: field 1, 32 bytes; field 2: 300.
    let message = [&[39, 0x0a, 34, 0x0a, 32][..], update.public_key.as_bytes(), &[0x10, 0xac, 0x02]].concat();
    assert_eq!(answer.value.as_deref(), Some(&message[..]));
    assert_eq!((answer.log.as_str(), answer.index, answer.height), ("", 0, Height::ZERO));
    // Genesis validators are known too, strangers and other lengths are not.
    assert!(run.query("/val", validator(0, 1).public_key.as_bytes(), false).value.is_some());
    assert!(run.query("/val", validator(2, 1).public_key.as_bytes(), false).value.is_none());
    assert!(run.query("/val", b"short", false).value.is_none());
    // The record is no key that anybody stored.
    assert!(run.query("", b"val", false).value.is_none());
    run.block(&txs(&[&validator_text(&validator(1, 0))]));
    assert!(run.query("/val", update.public_key.as_bytes(), false).value.is_none());
}

#[test]
fn store_proves_what_it_answers() {
    let mut run = Run::new("{}");
    run.block(&txs(&["a=1"]));
    for (key, value) in [(&b"kv/a"[..], Some(&b"1"[..])), (b"kv/b", None), (b"a", None)] {
        let answer = run.query("/store", key, true);
        assert_eq!((answer.code, answer.value.as_deref(), answer.key.as_slice(), answer.height), (0, value, key, height(1)));
        let [op] = &answer.proof_ops[..] else { panic!("one step") };
        assert_eq!((op.kind.as_str(), op.key.as_slice()), ("ics23:smt", key));
        let proof = CommitmentProof::from_bytes(&op.data).expect("a proof");
        assert_eq!(proof.verify(&run.state.root(), key, value), Ok(()));
        assert_eq!(run.query("/store", key, false).proof_ops, []);
    }
    let at = |at| run.host.query(&run.state, &Query { path: "/store", data: b"kv/a", height: Some(height(at)), prove: true });
    assert_eq!(at(1).code, 0);
    assert_eq!(
        (at(2).code, at(2).codespace.as_str(), at(2).log.as_str()),
        (3, "lockstep", "the state after height 2 is not kept, only that after 1")
    );
    assert_eq!(run.query("/store", b"", true).code, 4);
}

#[test]
fn an_empty_block_leaves_the_root() {
    let mut run = Run::new("{}");
    let genesis = run.state.root();
    assert!(run.block(&[]).changes.is_empty());
    assert_eq!(run.state.root(), genesis);
    // The same write again is a transaction executed: the root moves with the count.
    let once = run.block(&txs(&["a=1"])).state.root();
    let twice = run.block(&txs(&["a=1"])).state.root();
    assert_ne!(once, twice);
    assert!(run.block(&txs(&["nonsense"])).changes.is_empty());
}

#[test]
fn a_proposal_leaves_out_what_others_would_reject() {
    let run = Run::new("{}");
    let candidates = txs(&["a=1", "nonsense", "b=2", "val=x", "c=3"]);
    let proposal = |max_bytes| ProposalInput {
        chain_id: &run.chain.id,
        height: height(1),
        time: Time::ZERO,
        proposer: Address([0; 20]),
        candidates: &candidates,
        max_bytes,
        last_commit: Vec::new(),
        misbehaviour: Vec::new(),
        parameters: &run.chain.parameters,
    };
    assert_eq!(run.host.prepare_proposal(&run.state, &proposal(1000)), txs(&["a=1", "b=2", "c=3"]));
    // Each of three bytes takes seven.
    assert_eq!(run.host.prepare_proposal(&run.state, &proposal(20)), txs(&["a=1", "b=2"]));
    assert_eq!(run.host.process_proposal(&run.state, &run.chain.block(1, &txs(&["a=1"]))), Proposal::Accept);
    assert!(
        matches!(run.host.process_proposal(&run.state, &run.chain.block(1, &candidates)), Proposal::Reject(reason) if reason.starts_with("transaction 1: "))
    );
}

/// Frozen: roots after genesis and two blocks, results hash. Computed from the table in the module's documentation by
/// another program.
#[test]
fn golden_chain() {
    let mut run = Run::new("{}");
    assert_eq!(run.state.root().to_string(), "EF8E8D36FBBD5B352C18FCF387BEC2680008356615FF09EA381C8E8F5A70DC20");
    let executed = run.block(&txs(&["a=1", "b:2", "nonsense"]));
    assert_eq!(executed.state.root().to_string(), "AC411BED692ADD7C7000BB4B0A980B01FA688FEC5ECB0FB859FDED3888E09868");
    assert_eq!(executed.last_results_hash.to_string(), "BFB52C4847DB44084866B6DE8E2574A5DC827F1459AE3162C9E706546299330A");
    run.block(&txs(&["a=2"]));
    assert_eq!(run.state.root().to_string(), "5A2F2EF3B537884E876577DDD5B555BE51B9609A5239DBE35BF847AE609B2A0E");
}
