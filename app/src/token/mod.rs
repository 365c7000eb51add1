//! The bundled token: accounts, nonces, signed transfers, fees. Every balance can be proven; their sum never changes.
//!
//! `app_state` of genesis names the first accounts, by address or by key:
//!
//! ```json
//! {"token": {"accounts": [{"address": "<40 hex digits>", "balance": 1000000}, {"public_key": "<base64>", "balance": "5"}],
//!            "min_fee": 1, "fee_account": "<40 hex digits>"}}
//! ```
//!
//! What it keeps in the state:
//!
//! | key | value |
//! |---|---|
//! | `token/` and an address | its balance and the nonce of its next transaction: two u64, little-endian |
//! | `token:config` | the [`Config`] from genesis: a version byte, borsh |
//!
//! An account is an address, made from a key as a validator's is: a validator's key has an account too. An address that the
//! state does not know has nothing and sent nothing. An empty block changes nothing.
//!
//! # What a transaction does
//!
//! A [`Transfer`] is signed by the account that pays ([`tx`] has the bytes). It is good for a block when it can be read, its
//! signature holds, it offers at least the least fee, its nonce is its account's next one, and the account has the fee at
//! that point of the block. It then *takes its turn*: the nonce is used and the fee is paid, whatever comes. Its payments are
//! made after that, all or none; where the account has too little for all, the result has code 7 and the fee stays paid,
//! since the network did the work and somebody must not be able to ask for it without end.
//!
//! A block with a transaction that cannot take its turn is not accepted by `process_proposal`. So each transaction of the
//! chain was paid for, and none stands in it twice. Should more than two thirds decide such a block all the same, that
//! transaction gets its code and changes nothing.
//!
//! **Fees** go to `fee_account` of genesis, or where there is none to the account of each block's proposer, after the last
//! transaction of the block: what a block earns is spent in a later one. They are not burnt: a supply that is constant is an
//! invariant that anybody can check against any state, and an income for those who validate is why they do. Where proposers
//! should not be able to fill their own blocks for nothing (their fees come back to them), genesis names an account.
//!
//! **Order.** Transactions of an account are executed in the order of its nonces, which is the order in which its owner
//! signed them, whichever replicas they were sent to. The mempool holds back what comes too early; `check_tx` lets in what is at
//! most [`NONCES_AHEAD_MAX`] ahead.
//!
//! **Signatures** are judged by ZIP-215, in batches, and once on each node ([`signatures`]).
//!
//! # Codes, codespace `token`
//!
//! 1 malformed, 2 signature, 3 fee below the least, 4 nonce used, 5 nonce ahead, 6 less than the fee, 7 less than the payments,
//! 8 a query of no known path or form ([`Refused`] has the reasons).

pub mod config;
pub mod ledger;
pub mod signatures;
pub mod tx;

use lockstep_types::{Address, Event, EventAttribute, Tx, TxResult};
use serde::Serialize;

use crate::application::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Info, Initialized, Proposal, ProposalInput, Query,
    QueryAnswer, TX_OVERHEAD_BYTES, Verdict,
};
use crate::changes::{Changes, View};
pub use config::{CONFIG_KEY, Config, SUPPLY_MAX};
use ledger::Ledger;
pub use ledger::{ACCOUNT_PREFIX, Account, Refused, account_key};
use signatures::{BATCH_MAX, Verdicts};
pub use signatures::{Effort, VERDICTS_MAX};
pub use tx::{MEMO_BYTES_MAX, PAYMENTS_MAX, Payment, TOKEN_TX_BYTES_MAX, TOKEN_TX_PREFIX, Transfer};

/// Namespace of the codes.
pub const CODESPACE: &str = "token";

/// Code: a query of no known path, or about no account.
pub const CODE_QUERY: u32 = 8;

/// How far ahead of its account a nonce may be to be let into the mempool: the share that one sender has of the pool by
/// default. What is further ahead could not be executed before others of its account left again.
pub const NONCES_AHEAD_MAX: u64 = 1_024;

/// Version of the rules: `version.app` of headers.
pub const APP_VERSION: u64 = 1;

/// The query path of an account: data is its address, 20 bytes or 40 hexadecimal digits. The answer is JSON.
pub const ACCOUNT_PATH: &str = "/account";

/// The query path of the rules of the chain, as JSON: what a wallet needs to sign.
pub const CONFIG_PATH: &str = "/config";

/// The token application. See the [module](self). One instance is one node's: it remembers which signatures hold.
#[derive(Debug)]
pub struct Token {
    verdicts: Verdicts,
}

impl Default for Token {
    fn default() -> Self {
        Self::new()
    }
}

/// A transaction that was read: what needs no account is known to be right, but for the signature.
struct Read<'a> {
    transfer: Transfer,
    sender: Address,
    bytes: &'a [u8],
}

impl<'a> Read<'a> {
    fn new(config: &Config, bytes: &'a [u8]) -> Result<Self, Refused> {
        let transfer = Transfer::decode(bytes).map_err(Refused::Malformed)?;
        let (fee, min) = (transfer.fee, config.min_fee);
        if fee < min {
            return Err(Refused::FeeTooLow { fee, min });
        }
        Ok(Self { sender: transfer.sender(), transfer, bytes })
    }
}

impl Token {
    /// A token that has seen no transaction yet.
    pub const fn new() -> Self {
        Self { verdicts: Verdicts::new(VERDICTS_MAX) }
    }

    /// What signatures cost so far.
    pub fn effort(&self) -> Effort {
        self.verdicts.effort()
    }

    /// Reads the transactions of a block, in order, and judges the signatures of those that can be read.
    fn read_all<'a>(&self, config: &Config, txs: &'a [Tx]) -> Vec<Result<Read<'a>, Refused>> {
        let mut read: Vec<Result<Read<'a>, Refused>> = txs.iter().map(|tx| Read::new(config, &tx.0)).collect();
        let asked: Vec<(&Transfer, &[u8])> = read.iter().flatten().map(|read| (&read.transfer, read.bytes)).collect();
        let mut verdicts = self.verdicts.judge(&config.domain(), &asked).into_iter();
        for one in &mut read {
            if one.is_ok() && !verdicts.next().expect("one for each that was asked") {
                *one = Err(Refused::Signature);
            }
        }
        read
    }

    /// What the mempool is told of a transaction, or why it is kept out. Cheapest rules first: a signature is verified for
    /// those alone who can pay for it.
    fn admit(&self, view: &View, bytes: &[u8], kind: CheckKind) -> Result<Verdict, Refused> {
        let config = Config::load(view);
        let Read { transfer, sender, .. } = Read::new(&config, bytes)?;
        let next = Ledger::new(view).admit(sender, &transfer, NONCES_AHEAD_MAX)?;
        // One that is in the mempool was verified when it came.
        if kind == CheckKind::New && self.verdicts.judge(&config.domain(), &[(&transfer, bytes)]) != [true] {
            return Err(Refused::Signature);
        }
        Ok(Verdict {
            gas_wanted: transfer.gas(),
            priority: priority(transfer.fee, bytes.len()),
            sender: Some(sender.as_ref().to_vec()),
            nonce: Some(transfer.nonce),
            next_nonce: Some(next),
            ..Verdict::default()
        })
    }
}

impl Application for Token {
    fn info(&self, view: &View) -> Info {
        let data = Config::find(view).map_or_else(|| "{}".to_owned(), |config| format!("{{\"supply\":\"{}\"}}", config.supply));
        Info { data, version: "1.0.0".to_owned(), app_version: APP_VERSION }
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        let (config, balances) = config::read(genesis)?;
        let mut changes = Changes::new();
        changes.set(CONFIG_KEY, config.encode());
        for (address, balance) in balances {
            changes.set(account_key(&address), Account { balance, nonce: 0 }.encode());
        }
        Ok(Initialized { changes, ..Initialized::default() })
    }

    fn check_tx(&self, view: &View, tx: &[u8], kind: CheckKind) -> Verdict {
        self.admit(view, tx, kind).unwrap_or_else(|refused| Verdict::refused(refused.code(), CODESPACE, refused.to_string()))
    }

    /// As many as fit, in the order of the mempool, of those that can take their turn.
    fn prepare_proposal(&self, view: &View, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        let config = Config::load(view);
        let mut ledger = Ledger::new(view);
        let mut left = proposal.max_bytes;
        let mut chosen = Vec::new();
        for (read, tx) in self.read_all(&config, proposal.candidates).iter().zip(proposal.candidates) {
            let Ok(Read { transfer, sender, .. }) = read else { continue };
            let Some(rest) = left.checked_sub(tx.0.len() as u64 + TX_OVERHEAD_BYTES) else { continue };
            if ledger.charge(*sender, transfer).is_ok() {
                // Payments that cannot be made are part of the chain too: their sender pays the fee, and is told.
                let _paid = ledger.pay(*sender, transfer);
                chosen.push(tx.clone());
                left = rest;
            }
        }
        chosen
    }

    fn process_proposal(&self, view: &View, block: &BlockInput<'_>) -> Proposal {
        let config = Config::load(view);
        let mut ledger = Ledger::new(view);
        // Batch by batch: a liar's block costs one that does not hold, not all of them.
        for (batch, txs) in block.txs.chunks(BATCH_MAX).enumerate() {
            for (at, read) in self.read_all(&config, txs).into_iter().enumerate() {
                let turn = read.and_then(|Read { transfer, sender, .. }| {
                    ledger.charge(sender, &transfer)?;
                    let _paid = ledger.pay(sender, &transfer);
                    Ok(())
                });
                if let Err(refused) = turn {
                    return Proposal::Reject(format!("transaction {}: {refused}", batch * BATCH_MAX + at));
                }
            }
        }
        Proposal::Accept
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        let config = Config::load(view);
        let mut ledger = Ledger::new(view);
        let tx_results = self.read_all(&config, block.txs).into_iter().map(|read| execute_tx(&mut ledger, read)).collect();
        ledger.collect(config.fee_account.unwrap_or(block.proposer));
        Executed { changes: ledger.into_changes(), tx_results, ..Executed::default() }
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        match query.path {
            ACCOUNT_PATH => account_answer(view, query.data),
            CONFIG_PATH => json_answer(view, CONFIG_KEY.to_vec(), "exists", &ConfigAnswer::new(&Config::load(view))),
            path => {
                let start: String = path.chars().take(40).collect();
                refused_query(format!("the token answers {ACCOUNT_PATH} and {CONFIG_PATH}, the node /store; not {start:?}"))
            }
        }
    }
}

/// What the mempool orders by: the fee per byte, in thousandths, so that small fees differ too.
fn priority(fee: u64, bytes: usize) -> i64 {
    i64::try_from(u128::from(fee) * 1_000 / bytes.max(1) as u128).unwrap_or(i64::MAX)
}

fn execute_tx(ledger: &mut Ledger<'_>, read: Result<Read<'_>, Refused>) -> TxResult {
    let refused = |refused: Refused| TxResult {
        code: refused.code(),
        codespace: CODESPACE.to_owned(),
        log: refused.to_string(),
        ..TxResult::default()
    };
    let Read { transfer, sender, .. } = match read {
        Ok(read) => read,
        Err(error) => return refused(error),
    };
    if let Err(error) = ledger.charge(sender, &transfer) {
        return refused(error);
    }
    let gas = transfer.gas();
    match ledger.pay(sender, &transfer) {
        Ok(()) => TxResult { gas_wanted: gas, gas_used: gas, events: events(sender, &transfer), ..TxResult::default() },
        Err(error) => TxResult { gas_wanted: gas, gas_used: gas, ..refused(error) },
    }
}

/// One for each payment.
fn events(sender: Address, transfer: &Transfer) -> Vec<Event> {
    let attribute = |key: &str, value: String, index| EventAttribute { key: key.to_owned(), value, index };
    let event = |payment: &Payment| Event {
        kind: "transfer".to_owned(),
        attributes: vec![
            attribute("sender", sender.to_string(), true),
            attribute("recipient", payment.to.to_string(), true),
            attribute("amount", payment.amount.to_string(), false),
        ],
    };
    transfer.payments.iter().map(event).collect()
}

/// Numbers as text: those of JavaScript are exact up to 2^53 only.
#[derive(Serialize)]
struct AccountAnswer {
    address: Address,
    balance: String,
    nonce: String,
}

#[derive(Serialize)]
struct ConfigAnswer<'a> {
    chain_id: &'a str,
    genesis_hash: String,
    min_fee: String,
    supply: String,
    fee_account: Option<Address>,
}

impl<'a> ConfigAnswer<'a> {
    fn new(config: &'a Config) -> Self {
        Self {
            chain_id: config.chain_id.as_str(),
            genesis_hash: config.genesis_hash.to_string(),
            min_fee: config.min_fee.to_string(),
            supply: config.supply.to_string(),
            fee_account: config.fee_account,
        }
    }
}

fn account_answer(view: &View, data: &[u8]) -> QueryAnswer {
    let digits = || std::str::from_utf8(data).ok().and_then(|text| text.parse().ok());
    let Some(address) = <[u8; 20]>::try_from(data).ok().map(Address).or_else(digits) else {
        return refused_query(format!("{} bytes: an account is asked for by its address, 20 bytes or 40 hexadecimal digits", data.len()));
    };
    let account = Account::load(view, &address);
    let log = if account.is_some() { "exists" } else { "does not exist" };
    let Account { balance, nonce } = account.unwrap_or_default();
    let answer = AccountAnswer { address, balance: balance.to_string(), nonce: nonce.to_string() };
    json_answer(view, account_key(&address), log, &answer)
}

/// The key is that of the state, under which `/store` answers with the bytes and their proof.
fn json_answer(view: &View, key: Vec<u8>, log: &str, answer: &impl Serialize) -> QueryAnswer {
    let text = serde_json::to_vec(answer).expect("texts and numbers are JSON");
    QueryAnswer { log: log.to_owned(), key, value: Some(text.into()), height: view.height(), ..QueryAnswer::default() }
}

fn refused_query(log: String) -> QueryAnswer {
    QueryAnswer { code: CODE_QUERY, codespace: CODESPACE.to_owned(), log, ..QueryAnswer::default() }
}
