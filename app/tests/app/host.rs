//! What an application may not do has one outcome.

use std::sync::Arc;

use lockstep_app::node_tx::NODE_TX_PREFIX;
use lockstep_app::{
    AppError, Application, BlockInput, Changes, ChangesError, CheckKind, Executed, GenesisInput, GenesisRefused, Host, Info, Initialized,
    Kv, Proposal, Query, QueryAnswer, State, Tree, Verdict, View,
};
use lockstep_types::{ConsensusParams, Event, EventAttribute, Hash, Height, Tx, TxResult, ValidatorSet};

use super::common::{Chain, txs, validator};

/// Does as it is told.
struct Puppet<F>(F);

impl<F: Fn(&View, &BlockInput<'_>) -> Executed + Send + Sync + 'static> Application for Puppet<F> {
    fn info(&self, _: &View) -> Info {
        Info { data: String::new(), version: String::new(), app_version: 0 }
    }

    fn init_chain(&self, _: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        Ok(Initialized::default())
    }

    fn check_tx(&self, _: &View, _: &[u8], _: CheckKind) -> Verdict {
        panic!("check_tx was told to")
    }

    fn process_proposal(&self, _: &View, _: &BlockInput<'_>) -> Proposal {
        panic!("process_proposal was told to")
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        (self.0)(view, block)
    }

    fn query(&self, _: &View, _: &Query<'_>) -> QueryAnswer {
        panic!("query was told to")
    }
}

fn results(block: &BlockInput<'_>) -> Vec<TxResult> {
    block.txs.iter().map(|tx| TxResult { data: tx.0.clone(), ..TxResult::default() }).collect()
}

fn run(
    list: &[Tx],
    execute: impl Fn(&View, &BlockInput<'_>) -> Executed + Send + Sync + 'static,
) -> Result<lockstep_app::ExecutedBlock, AppError> {
    let chain = Chain::new();
    let validators = [validator(0, 10)];
    let (host, initialized) = chain.init(Puppet(execute), "{}", &validators);
    let set = ValidatorSet::new(&validators).expect("a set");
    host.execute(initialized.state, &chain.block(1, list), Chain::facts(&set))
}

fn error(execute: impl Fn(&View, &BlockInput<'_>) -> Executed + Send + Sync + 'static) -> String {
    run(&[], execute).expect_err("refused").to_string()
}

fn with_change(key: &[u8], value: Option<&[u8]>) -> Executed {
    let changes = [(Arc::from(key), value.map(Arc::from))].into_iter().collect();
    Executed { changes, ..Executed::default() }
}

#[test]
fn keys_and_values_have_bounds_and_some_keys_are_the_nodes() {
    let reserved = run(&[], |_, _| with_change(b"\x00replica", Some(b"mine")));
    assert!(matches!(reserved, Err(AppError::Changes { error: ChangesError::Reserved { .. }, .. })));
    assert!(error(|_, _| with_change(b"\x00", None)).contains("reserved for the node"));
    assert!(error(|_, _| with_change(b"", Some(b"value"))).contains("a key of 0 bytes"));
    assert!(error(|_, _| with_change(b"key", Some(b""))).contains("a value of 0 bytes"));
    assert!(error(|_, _| with_change(&vec![1; 65_537], None)).contains("a key of 65537 bytes"));
    assert!(error(|_, _| with_change(b"key", Some(&vec![1; 1_048_577]))).contains("a value of 1048577 bytes"));
    assert!(run(&[], |_, _| with_change(&vec![1; 65_536], Some(&vec![1; 1_048_576]))).is_ok());
}

#[test]
fn the_nodes_keys_read_as_absent() {
    let mut changes = Changes::new();
    changes.set(&b"\x00replica"[..], &b"record"[..]);
    changes.set(&b"mine"[..], &b"value"[..]);
    let state = State::new(
        Height::ZERO,
        Tree::new().apply(&changes),
        Arc::default(),
        Arc::new(ValidatorSet::new(&[validator(0, 10)]).expect("a set")),
    );
    assert_eq!(state.view().get(b"\x00replica"), None);
    assert_eq!(state.view().get(b"mine").as_deref(), Some(&b"value"[..]));
    // Clients may see, and have proven, what the node keeps.
    let host = Host::new(Arc::new(Kv));
    let answer = host.query(&state, &Query { path: "/store", data: b"\x00replica", height: None, prove: true });
    assert_eq!(answer.value.as_deref(), Some(&b"record"[..]));
    assert_eq!(answer.proof_ops.len(), 1);
}

#[test]
fn a_panic_in_a_transition_is_a_typed_error_and_elsewhere_a_refusal() {
    let panicked = run(&[], |_, _| panic!("division by {}", "zero"));
    assert_eq!(
        panicked.expect_err("refused"),
        AppError::Panicked { call: "execute", height: Height::FIRST, reason: "division by zero".to_owned() }
    );
    let host = Host::new(Arc::new(Puppet(|_: &View, _: &BlockInput<'_>| Executed::default())));
    let state = State::new(Height::ZERO, Tree::new(), Arc::default(), Arc::new(ValidatorSet::new(&[validator(0, 10)]).expect("a set")));
    let verdict = host.check_tx(&state, b"tx", CheckKind::New);
    assert_eq!((verdict.code, verdict.codespace.as_str()), (2, "lockstep"));
    assert!(verdict.log.contains("check_tx was told to"));
    let answer = host.query(&state, &Query { path: "", data: b"", height: None, prove: false });
    assert_eq!((answer.code, answer.codespace.as_str()), (2, "lockstep"));
    let chain = Chain::new();
    assert!(
        matches!(host.process_proposal(&state, &chain.block(1, &[])), Proposal::Reject(reason) if reason.contains("process_proposal was told to"))
    );
}

#[test]
fn one_result_for_each_transaction() {
    let few = run(&txs(&["a", "b"]), |_, _| Executed { tx_results: vec![TxResult::default()], ..Executed::default() });
    assert_eq!(few.expect_err("refused"), AppError::Results { height: Height::FIRST, txs: 2, results: 1 });
}

#[test]
fn output_that_clients_cannot_read_is_refused() {
    let event = |kind: &str, key: &str, index| Event {
        kind: kind.to_owned(),
        attributes: vec![EventAttribute { key: key.to_owned(), value: String::new(), index }],
    };
    let block_event = |event: Event| error(move |_, _| Executed { events: vec![event.clone()], ..Executed::default() });
    assert!(block_event(event("kind", "", true)).contains("without a key"));
    assert!(block_event(event("", "key", true)).contains("without a kind"));
    let tx_event = |event: Event| {
        run(&txs(&["a"]), move |_, _| Executed {
            tx_results: vec![TxResult { events: vec![event.clone()], ..TxResult::default() }],
            ..Executed::default()
        })
    };
    assert!(tx_event(event("tx", "height", true)).is_err());
    assert!(tx_event(event("tx", "hash", true)).is_err());
    assert!(tx_event(event("tx", "hash", false)).is_ok());
    assert!(tx_event(event("kind", "key", true)).is_ok());
}

#[test]
fn updates_that_break_a_rule_are_fatal() {
    assert!(error(|_, _| Executed { validator_updates: vec![validator(0, 0)], ..Executed::default() }).contains("validator updates"));
    assert!(error(|_, _| Executed { validator_updates: vec![validator(1, 0)], ..Executed::default() }).contains("validator updates"));
    assert!(error(|_, _| Executed { validator_updates: vec![validator(1, 1); 2], ..Executed::default() }).contains("validator updates"));
    let mut broken = ConsensusParams::default();
    for max_bytes in [0, 65_535, 104_857_601] {
        broken.block.max_bytes = max_bytes;
        broken.evidence.max_bytes = 0;
        let update = broken.clone();
        let refused = error(move |_, _| Executed { parameter_updates: Some(update.clone()), ..Executed::default() });
        assert!(refused.contains("block.max_bytes"), "{refused}");
    }
    let fine = run(&[], |_, _| Executed {
        validator_updates: vec![validator(1, 5)],
        parameter_updates: Some(ConsensusParams::default()),
        ..Executed::default()
    });
    let fine = fine.expect("fits");
    assert_eq!((fine.validator_updates, fine.parameter_updates), (vec![validator(1, 5)], Some(ConsensusParams::default())));
}

#[test]
fn transactions_of_the_node_never_reach_the_application() {
    let node_tx = |tag: u8| Tx([&NODE_TX_PREFIX[..], &[tag], b"body"].concat());
    let chain = Chain::new();
    let (host, initialized) = chain.init(Kv, "{}", &[validator(0, 10)]);
    for (tag, named) in [(1, "JOIN"), (2, "QUIT"), (3, "APPROVE"), (4, "CHECKPOINT"), (9, "no known kind")] {
        let verdict = host.check_tx(&initialized.state, &node_tx(tag).0, CheckKind::New);
        assert_eq!((verdict.code, verdict.codespace.as_str()), (1, "lockstep"));
        assert!(verdict.log.contains(named), "{}", verdict.log);
    }
    assert_eq!(host.check_tx(&initialized.state, &NODE_TX_PREFIX, CheckKind::New).code, 1);
    let block = [node_tx(1)];
    assert!(matches!(host.process_proposal(&initialized.state, &chain.block(1, &block)), Proposal::Reject(_)));
    // Decided all the same, it changes nothing and has its own result, in its own place.
    let list = [Tx(b"first".to_vec()), node_tx(1), Tx(b"last".to_vec())];
    let executed = run(&list, |_, block| {
        assert!(block.txs.iter().all(|tx| !tx.0.starts_with(&NODE_TX_PREFIX)));
        Executed { tx_results: results(block), ..Executed::default() }
    });
    let told: Vec<_> = executed.expect("executes").tx_results.into_iter().map(|result| (result.code, result.data)).collect();
    assert_eq!(told, [(0, b"first".to_vec()), (1, vec![]), (0, b"last".to_vec())]);
}

#[test]
fn a_transition_sees_the_state_before_and_gives_the_state_after() {
    let executed = run(&txs(&["x"]), |view, block| {
        assert_eq!((view.height(), view.root()), (Height::ZERO, Hash([0; 32])));
        assert_eq!(view.get(b"key"), None);
        Executed { tx_results: results(block), ..with_change(b"key", Some(b"value")) }
    });
    let executed = executed.expect("executes");
    assert_eq!(executed.state.height(), Height::FIRST);
    assert_eq!(executed.state.view().get(b"key").as_deref(), Some(&b"value"[..]));
    assert_eq!(executed.state.root(), Tree::new().apply(&executed.changes).root());
    // `int(1, code) + bytes(2, data)` of one result, as a Merkle root of one leaf.
    assert_eq!(executed.last_results_hash, Hash::of([0, 0x12, 1, b'x']));
}

#[test]
#[should_panic(expected = "is not executed on the state after")]
fn blocks_are_executed_in_order() {
    let chain = Chain::new();
    let (host, initialized) = chain.init(Kv, "{}", &[validator(0, 10)]);
    let set = initialized.validators.clone();
    let _ = host.execute(initialized.state, &chain.block(2, &[]), Chain::facts(&set));
}
