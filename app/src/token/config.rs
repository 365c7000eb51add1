//! What genesis says, and what the state keeps of it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::codec;
use lockstep_types::domain::{self, Tag};
use lockstep_types::state_tree::VALUE_BYTES_MAX;
use lockstep_types::{Address, ChainId, Hash, PublicKey};
use serde::Deserialize;
use serde_json::Value;

use crate::application::{GenesisInput, GenesisRefused};
use crate::changes::View;

/// The state key of the [`Config`].
pub const CONFIG_KEY: &[u8] = b"token:config";
/// First byte of its value.
const VERSION: u8 = 1;

/// The most there may be of the token: every amount fits the signed 64 bits that clients of many languages count in.
pub const SUPPLY_MAX: u64 = i64::MAX as u64;

/// What a transaction costs at least where genesis says nothing: something, so that nobody fills blocks for nothing.
const MIN_FEE_DEFAULT: u64 = 1;

/// What is shown of a value that genesis has and should not, in characters: genesis can be megabytes.
const SHOWN_CHARS_MAX: usize = 100;

/// The rules of a chain, from its genesis.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Config {
    /// The chain: transactions are signed for it.
    pub chain_id: ChainId,
    /// And for this genesis of it.
    pub genesis_hash: Hash,
    /// The least fee of a transaction.
    pub min_fee: u64,
    /// The sum of all balances, for ever.
    pub supply: u64,
    /// Who gets the fees of every block; none for the proposer of each.
    pub fee_account: Option<Address>,
}

/// `app_state` of genesis. What has rules of its own is read as any JSON first, so that a refusal names it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppState {
    token: Group,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    accounts: Vec<Entry>,
    min_fee: Option<Value>,
    fee_account: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    address: Option<Value>,
    public_key: Option<Value>,
    balance: Value,
}

fn refused(field: &str, value: &str, rule: impl Into<String>) -> GenesisRefused {
    let field = if field.is_empty() { "app_state".to_owned() } else { format!("app_state.token.{field}") };
    let mut shown: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    GenesisRefused { field, value: shown, rule: rule.into() }
}

/// A whole number, also in quotes as CometBFT writes those that JavaScript would round.
fn number(field: &str, value: &Value, min: u64) -> Result<u64, GenesisRefused> {
    let read = match value {
        Value::String(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        value => value.as_u64(),
    };
    let rule = || format!("a whole number from {min} to {SUPPLY_MAX}, which may stand in quotes");
    read.filter(|number| (min..=SUPPLY_MAX).contains(number)).ok_or_else(|| refused(field, &value.to_string(), rule()))
}

fn address(field: &str, value: &Value) -> Result<Address, GenesisRefused> {
    let read = value.as_str().and_then(|text| text.parse().ok());
    read.ok_or_else(|| refused(field, &value.to_string(), "the address of an account, 40 hexadecimal digits in quotes"))
}

fn key_address(field: &str, value: &Value) -> Result<Address, GenesisRefused> {
    let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok()).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let key = bytes.map(PublicKey).ok_or_else(|| refused(field, &value.to_string(), "an ed25519 public key, 32 bytes in base64"))?;
    key.check().map_err(|error| refused(field, &value.to_string(), error.to_string()))?;
    Ok(key.address())
}

/// The rules that genesis asks for, and the first balances.
///
/// # Errors
/// Which field, its value, and the rule.
pub(super) fn read(genesis: &GenesisInput<'_>) -> Result<(Config, BTreeMap<Address, u64>), GenesisRefused> {
    const FORM: &str =
        r#"{"token": {"accounts": [{"address" or "public_key": text, "balance": number}], "min_fee": number, "fee_account": text}}"#;
    let state: AppState =
        serde_json::from_str(genesis.app_state).map_err(|error| refused("", genesis.app_state, format!("{FORM}: {error}")))?;
    let group = state.token;
    let min_fee = group.min_fee.map_or(Ok(MIN_FEE_DEFAULT), |value| number("min_fee", &value, 0))?;
    let fee_account = group.fee_account.map(|value| address("fee_account", &value)).transpose()?;
    let mut balances = BTreeMap::new();
    let mut supply: u64 = 0;
    for (at, entry) in group.accounts.iter().enumerate() {
        let field = |name: &str| format!("accounts[{at}].{name}");
        let owner = match (&entry.address, &entry.public_key) {
            (Some(value), None) => address(&field("address"), value)?,
            (None, Some(value)) => key_address(&field("public_key"), value)?,
            (Some(_), Some(_)) => return Err(refused(&field("public_key"), "there", "either an address or a public key, not both")),
            (None, None) => return Err(refused(&field("address"), "absent", "an address or a public key")),
        };
        let balance = number(&field("balance"), &entry.balance, 1)?;
        let within = supply.checked_add(balance).filter(|sum| *sum <= SUPPLY_MAX);
        supply = within.ok_or_else(|| {
            refused(&field("balance"), &entry.balance.to_string(), format!("all balances together are at most {SUPPLY_MAX}"))
        })?;
        if balances.insert(owner, balance).is_some() {
            return Err(refused(&format!("accounts[{at}]"), &owner.to_string(), "each account once"));
        }
    }
    if balances.is_empty() {
        return Err(refused("accounts", "[]", "at least one account: a chain on which nobody has anything stays as it is"));
    }
    let (chain_id, genesis_hash) = (genesis.chain_id.clone(), genesis.genesis_hash);
    Ok((Config { chain_id, genesis_hash, min_fee, supply, fee_account }, balances))
}

impl Config {
    pub(super) fn encode(&self) -> Vec<u8> {
        codec::encode(VERSION, self)
    }

    /// What the state says; none where this application never started.
    pub(super) fn find(view: &View) -> Option<Self> {
        let bytes = view.get(CONFIG_KEY)?;
        Some(codec::decode(VERSION, &bytes, VALUE_BYTES_MAX).expect("written by this application, and read under a certified root"))
    }

    /// What the state says.
    ///
    /// # Panics
    /// When genesis was not this application's: no call comes before `init_chain`.
    pub(super) fn load(view: &View) -> Self {
        Self::find(view).expect("genesis wrote it")
    }

    /// What every signature of this chain is over, before the transaction.
    pub(super) fn domain(&self) -> Vec<u8> {
        domain::begin(Tag::AppTransaction, &self.chain_id, &self.genesis_hash)
    }
}
