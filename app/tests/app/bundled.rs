//! Which bundled application a chain runs.

use std::sync::Arc;

use lockstep_app::{Application, BlockInput, Bundled, CheckKind, ExecutedBlock, Host, Kv, Proposal, Query, State, Token};
use lockstep_types::Tx;

use super::common::{Chain, txs, validator};
use super::token_bank::{Draft, genesis};

/// A chain of one application over two blocks, each block by an instance that knows nothing but the state.
fn run<A: Application>(make: impl Fn() -> A, app_state: &str, blocks: &[Vec<Tx>]) -> (State, Vec<ExecutedBlock>) {
    let chain = Chain::new();
    let (_, initialized) = chain.init(make(), app_state, &[validator(0, 10)]);
    let set = initialized.validators.clone();
    let mut state = initialized.state;
    let mut executed = Vec::new();
    for list in blocks {
        let host = Host::new(Arc::new(make()));
        let block: BlockInput<'_> = chain.block(state.height().next().get(), list);
        assert!(list.iter().all(|tx| host.check_tx(&state, &tx.0, CheckKind::New).is_ok()));
        assert_eq!(host.process_proposal(&state, &block), Proposal::Accept);
        let done = host.execute(state.clone(), &block, Chain::facts(&set)).expect("executes");
        state = done.state.clone();
        executed.push(done);
    }
    (state, executed)
}

#[test]
fn genesis_says_it_and_then_the_state() {
    let ledger = genesis(&[(1, 100)], 1, None);
    let transfers = [vec![Draft::from(1).fee(1).pay(2, 5).tx()], vec![Draft::from(1).nonce(1).fee(1).pay(2, 6).tx()]];
    let writes = [txs(&["a=1"]), txs(&["b:2", "a=3"])];
    let same = |(state, blocks): (State, Vec<ExecutedBlock>), (other, others): (State, Vec<ExecutedBlock>)| {
        assert_eq!(state.root(), other.root());
        for (block, other) in blocks.iter().zip(&others) {
            assert_eq!((&block.changes, &block.tx_results), (&other.changes, &other.tx_results));
        }
        assert_eq!(blocks.len(), others.len());
        state
    };
    let bank = same(run(Bundled::default, &ledger, &transfers), run(Token::new, &ledger, &transfers));
    let store = same(run(Bundled::default, "{}", &writes), run(|| Kv, "{}", &writes));
    let host = Host::new(Arc::new(Bundled::default()));
    let ask = |state: &State, path| host.query(state, &Query { path, data: b"a", height: None, prove: false }).code;
    assert_eq!((ask(&bank, "/other"), ask(&store, "/other")), (8, 0));
    assert_ne!(host.info(&bank).data, host.info(&store).data);
    let chain = Chain::new();
    for (app_state, named) in [(r#"{"token":{}}"#, "missing field `accounts`"), (r#"{"bank":{}}"#, "unknown field `bank`"), ("[", "EOF")] {
        let error = host.init(&chain.genesis(app_state, &[validator(0, 10)])).expect_err(app_state).to_string();
        assert!(error.contains(named), "{error}");
    }
}
