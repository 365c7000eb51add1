//! A chain with the token, and transfers as a test writes them.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_app::token::{Payment, Transfer};
use lockstep_app::{
    AppError, CheckKind, ExecutedBlock, GenesisRefused, Host, Proposal, ProposalInput, Query, QueryAnswer, State, Token, Verdict,
};
use lockstep_types::{Address, ChainId, Hash, PrivateKey, Signature, Time, Tx, ValidatorSet};

use super::common::{Chain, validator};

/// Who proposes all blocks of a [`Chain`].
pub(crate) const PROPOSER: Address = Address([0; 20]);

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

pub(crate) fn address(seed: u8) -> Address {
    key(seed).public_key().address()
}

/// `app_state` with these accounts, by key.
pub(crate) fn genesis(accounts: &[(u8, u64)], min_fee: u64, collector: Option<u8>) -> String {
    let account =
        |(seed, balance): &(u8, u64)| format!(r#"{{"public_key":"{}","balance":{balance}}}"#, STANDARD.encode(key(*seed).public_key().0));
    let accounts: Vec<String> = accounts.iter().map(account).collect();
    let collector = collector.map_or_else(String::new, |seed| format!(r#","fee_account":"{}""#, address(seed)));
    format!(r#"{{"token":{{"accounts":[{}],"min_fee":{min_fee}{collector}}}}}"#, accounts.join(","))
}

/// A transfer that is being written.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    seed: u8,
    transfer: Transfer,
    elsewhere: bool,
}

impl Draft {
    /// By this key; nonce 0, no fee, no payment.
    pub(crate) fn from(seed: u8) -> Self {
        let public_key = key(seed).public_key();
        let transfer = Transfer { public_key, nonce: 0, fee: 0, payments: Vec::new(), memo: Vec::new(), signature: Signature([0; 64]) };
        Self { seed, transfer, elsewhere: false }
    }

    pub(crate) fn nonce(mut self, nonce: u64) -> Self {
        self.transfer.nonce = nonce;
        self
    }

    pub(crate) fn fee(mut self, fee: u64) -> Self {
        self.transfer.fee = fee;
        self
    }

    pub(crate) fn pay(mut self, to: u8, amount: u64) -> Self {
        self.transfer.payments.push(Payment { to: address(to), amount });
        self
    }

    pub(crate) fn memo(mut self, memo: &[u8]) -> Self {
        self.transfer.memo = memo.to_vec();
        self
    }

    /// Signed for a chain of the same name and another genesis.
    pub(crate) fn elsewhere(mut self) -> Self {
        self.elsewhere = true;
        self
    }

    pub(crate) fn transfer(self) -> Transfer {
        let hash = if self.elsewhere { Hash::of(b"another genesis") } else { Hash::of(b"genesis") };
        self.transfer.signed(&key(self.seed), &ChainId::new("test").expect("a chain id"), &hash)
    }

    pub(crate) fn tx(self) -> Tx {
        Tx(self.transfer().encode())
    }
}

/// A chain that runs the token.
pub(crate) struct Bank {
    chain: Chain,
    pub(crate) token: Arc<Token>,
    host: Host,
    pub(crate) state: State,
    set: ValidatorSet,
}

impl Bank {
    pub(crate) fn new(app_state: &str) -> Self {
        Self::with(Arc::new(Token::new()), Chain::new(), app_state)
    }

    pub(crate) fn with(token: Arc<Token>, chain: Chain, app_state: &str) -> Self {
        let host = Host::new(Arc::clone(&token) as Arc<dyn lockstep_app::Application>);
        let initialized = host.init(&chain.genesis(app_state, &[validator(0, 10)])).expect("a genesis that fits");
        let set = initialized.validators.clone();
        Self { chain, token, host, state: initialized.state, set }
    }

    /// Why the token does not start from this.
    pub(crate) fn refused(app_state: &str) -> GenesisRefused {
        match Host::new(Arc::new(Token::new())).init(&Chain::new().genesis(app_state, &[validator(0, 10)])) {
            Err(AppError::Genesis(refused)) => refused,
            other => panic!("{app_state}: {other:?}"),
        }
    }

    /// The same chain at the same height, on a node that has just started.
    pub(crate) fn restarted(&self) -> Self {
        let token = Arc::new(Token::new());
        let host = Host::new(Arc::clone(&token) as Arc<dyn lockstep_app::Application>);
        Self { chain: Chain::new(), token, host, state: self.state.clone(), set: self.set.clone() }
    }

    /// What signatures of this chain are over, before the transaction.
    pub(crate) fn domain() -> Vec<u8> {
        [&[0, 7, 4][..], b"test", &Hash::of(b"genesis").0].concat()
    }

    pub(crate) fn check(&self, tx: &Tx) -> Verdict {
        self.check_as(tx, CheckKind::New)
    }

    pub(crate) fn check_as(&self, tx: &Tx, kind: CheckKind) -> Verdict {
        self.host.check_tx(&self.state, &tx.0, kind)
    }

    pub(crate) fn prepare(&self, candidates: &[Tx], max_bytes: u64) -> Vec<Tx> {
        let proposal = ProposalInput {
            chain_id: &self.chain.id,
            height: self.state.height().next(),
            time: Time::ZERO,
            proposer: PROPOSER,
            candidates,
            max_bytes,
            last_commit: Vec::new(),
            misbehaviour: Vec::new(),
            parameters: &self.chain.parameters,
        };
        self.host.prepare_proposal(&self.state, &proposal)
    }

    pub(crate) fn process(&self, txs: &[Tx]) -> Proposal {
        self.host.process_proposal(&self.state, &self.chain.block(self.state.height().next().get(), txs))
    }

    /// What a block would do.
    pub(crate) fn execute(&self, txs: &[Tx]) -> ExecutedBlock {
        let block = self.chain.block(self.state.height().next().get(), txs);
        self.host.execute(self.state.clone(), &block, Chain::facts(&self.set)).expect("executes")
    }

    pub(crate) fn block(&mut self, txs: &[Tx]) -> ExecutedBlock {
        let executed = self.execute(txs);
        self.state = executed.state.clone();
        executed
    }

    pub(crate) fn query(&self, path: &str, data: &[u8]) -> QueryAnswer {
        self.host.query(&self.state, &Query { path, data, height: None, prove: false })
    }

    pub(crate) fn query_proven(&self, path: &str, data: &[u8]) -> QueryAnswer {
        self.host.query(&self.state, &Query { path, data, height: None, prove: true })
    }

    /// Balance and nonce, read without the code of the application.
    pub(crate) fn account_at(&self, address: Address) -> (u64, u64) {
        let bytes = self.state.tree().get(&[b"token/", address.as_ref()].concat());
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        bytes.map_or((0, 0), |bytes| (number(&bytes[..8]), number(&bytes[8..])))
    }

    pub(crate) fn account(&self, seed: u8) -> (u64, u64) {
        self.account_at(address(seed))
    }

    pub(crate) fn balance(&self, address: Address) -> u64 {
        self.account_at(address).0
    }

    /// All there is.
    pub(crate) fn sum(&self) -> u64 {
        let accounts = self.state.tree().iter().filter(|(key, _)| key.starts_with(b"token/"));
        accounts.map(|(_, value)| u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))).sum()
    }
}
