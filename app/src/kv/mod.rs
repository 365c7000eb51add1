//! The bundled key-value application: `key=value` stores, `key` reads. What a newcomer tries first, and what the test
//! suites of CometBFT's clients run against; it answers as CometBFT's own `kvstore` does, except where that one can stop a
//! chain (`rpc-compat.md` section 11, D10 to D12).
//!
//! `app_state` of genesis is `{}` or `{"kv": {"open_validators": true}}`. With open validators, anybody can change the
//! validator set by `val=ed25519!<base64 key>!<power>`: for experiments and test suites.
//!
//! What it keeps in the state:
//!
//! | key | value |
//! |---|---|
//! | `kv/` and a key | the key's value |
//! | `kv:counters` | transactions ever executed, and the last height that executed one or changed something: two u64, little-endian |
//! | `kv:config` | one byte: 1 with open validators, else 0 |
//! | `kv:validators` | how many validators there are (u32) and their power (u64), little-endian |
//! | `kv:validator/` and an address | its public key, 32 bytes, and power, u64 little-endian |
//!
//! An empty block changes nothing of it, so it leaves the root as it is.

mod members;
mod tx;

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::proto::Message;
use lockstep_types::{Event, EventAttribute, Height, PublicKey, Tx, TxResult, ValidatorUpdate};
use serde::Deserialize;

use crate::application::{
    Application, BlockInput, CheckKind, Executed, GenesisInput, GenesisRefused, Info, Initialized, Proposal, ProposalInput, Query,
    QueryAnswer, Verdict, fitting,
};
use crate::changes::{Draft, View};
use crate::tree::Tree;
use members::Members;
pub use tx::{KvTx, TX_KEY_BYTES_MAX, VALIDATOR_TX_PREFIX, parse};

/// Where a key's value stands in the state. `/store` asks for whole state keys: this prefix and the key.
pub const DATA_PREFIX: &[u8] = b"kv/";
const COUNTERS_KEY: &[u8] = b"kv:counters";
const CONFIG_KEY: &[u8] = b"kv:config";

/// Code: the transaction is not one of this application, or asks what it does not allow.
pub const CODE_INVALID: u32 = 2;

/// Version of the rules: `version.app` of headers.
pub const APP_VERSION: u64 = 1;

/// The key-value application. See the [module](self).
#[derive(Debug, Clone, Copy, Default)]
pub struct Kv;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Counters {
    size: u64,
    height: Height,
}

/// `app_state` of genesis.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AppState {
    kv: Config,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    open_validators: bool,
}

/// The state key of a key.
pub fn data_key(key: &[u8]) -> Vec<u8> {
    [DATA_PREFIX, key].concat()
}

fn counters(view: &View) -> Counters {
    let decode = |bytes: Arc<[u8]>| Counters::try_from_slice(&bytes).expect("written by this application, and read under a certified root");
    view.get(COUNTERS_KEY).map(decode).unwrap_or_default()
}

fn has_open_validators(view: &View) -> bool {
    view.get(CONFIG_KEY).as_deref() == Some(&[1])
}

fn write_counters(draft: &mut Draft<'_>, counters: Counters) {
    draft.set(COUNTERS_KEY, borsh::to_vec(&counters).expect("writing to memory does not fail"));
}

/// Reads a transaction and asks whether this chain allows its kind.
fn admitted<'a>(view: &View, tx: &'a [u8]) -> Result<KvTx<'a>, String> {
    match parse(tx)? {
        KvTx::Validator(_) if !has_open_validators(view) => {
            Err("this chain does not let transactions change validators (kv.open_validators in genesis is off)".to_owned())
        }
        parsed => Ok(parsed),
    }
}

impl Application for Kv {
    fn info(&self, view: &View) -> Info {
        Info { data: format!("{{\"size\":{}}}", counters(view).size), version: "2.0.0".to_owned(), app_version: APP_VERSION }
    }

    fn init_chain(&self, genesis: &GenesisInput<'_>) -> Result<Initialized, GenesisRefused> {
        let refused = |field: &str, value: &str, rule: String| GenesisRefused { field: field.to_owned(), value: value.to_owned(), rule };
        let app_state: AppState = serde_json::from_str(genesis.app_state).map_err(|error| {
            refused("app_state", genesis.app_state, format!("{{}} or {{\"kv\": {{\"open_validators\": bool}}}}: {error}"))
        })?;
        let before = View::new(Tree::new(), genesis.initial_height.previous());
        let mut draft = Draft::new(&before);
        draft.set(CONFIG_KEY, [u8::from(app_state.kv.open_validators)]);
        write_counters(&mut draft, Counters { size: 0, height: before.height() });
        let mut members = Members::load(&draft);
        for update in genesis.validators {
            members.set(&mut draft, *update).map_err(|rule| refused("validators", &update.public_key.address().to_string(), rule))?;
        }
        Ok(Initialized { changes: draft.into_changes(), ..Initialized::default() })
    }

    fn check_tx(&self, view: &View, tx: &[u8], _kind: CheckKind) -> Verdict {
        match admitted(view, tx) {
            Ok(_) => Verdict { gas_wanted: 1, ..Verdict::default() },
            Err(log) => Verdict::refused(CODE_INVALID, "", log),
        }
    }

    fn prepare_proposal(&self, view: &View, proposal: &ProposalInput<'_>) -> Vec<Tx> {
        let candidates: Vec<Tx> = proposal.candidates.iter().filter(|tx| admitted(view, &tx.0).is_ok()).cloned().collect();
        fitting(&candidates, proposal.max_bytes)
    }

    fn process_proposal(&self, view: &View, block: &BlockInput<'_>) -> Proposal {
        for (at, tx) in block.txs.iter().enumerate() {
            if let Err(reason) = admitted(view, &tx.0) {
                return Proposal::Reject(format!("transaction {at}: {reason}"));
            }
        }
        Proposal::Accept
    }

    fn execute(&self, view: &View, block: &BlockInput<'_>) -> Executed {
        let mut draft = Draft::new(view);
        let mut members = Members::load(&draft);
        for misbehaviour in &block.misbehaviour {
            members.remove_culprit(&mut draft, &misbehaviour.address);
        }
        let tx_results: Vec<TxResult> = block.txs.iter().map(|tx| execute_tx(view, &mut draft, &mut members, &tx.0)).collect();
        let executed = tx_results.iter().filter(|result| result.code == 0).count() as u64;
        let validator_updates = members.updates(view, &draft);
        if executed > 0 || !draft.changes().is_empty() {
            let size = counters(view).size + executed;
            write_counters(&mut draft, Counters { size, height: block.height });
        }
        Executed { changes: draft.into_changes(), tx_results, validator_updates, ..Executed::default() }
    }

    fn query(&self, view: &View, query: &Query<'_>) -> QueryAnswer {
        match query.path {
            "/val" => {
                let key = <[u8; 32]>::try_from(query.data).map(PublicKey).ok();
                let record = key.and_then(|key| members::record(view, &key.address())).filter(|record| Some(record.public_key) == key);
                QueryAnswer {
                    key: query.data.to_vec(),
                    value: record.map(|record| update_message(&record).into()),
                    ..QueryAnswer::default()
                }
            }
            _ => {
                let value = view.get(&data_key(query.data));
                QueryAnswer {
                    log: if value.is_some() { "exists" } else { "does not exist" }.to_owned(),
                    index: if query.prove { -1 } else { 0 },
                    key: query.data.to_vec(),
                    value,
                    height: view.height(),
                    ..QueryAnswer::default()
                }
            }
        }
    }
}

/// The `ValidatorUpdate` message of ABCI behind its length.
fn update_message(update: &ValidatorUpdate) -> Vec<u8> {
    let key = Message::new().bytes(1, update.public_key.as_bytes());
    Message::new().msg(1, &key).uint(2, update.power.get()).delimited()
}

/// One transaction. One that makes no sense, which only a faulty proposer can bring here, changes nothing.
fn execute_tx(view: &View, draft: &mut Draft<'_>, members: &mut Members, tx: &[u8]) -> TxResult {
    let refused = |log| TxResult { code: CODE_INVALID, log, ..TxResult::default() };
    match admitted(view, tx) {
        Ok(KvTx::Set { key, value }) => {
            draft.set(data_key(key), value);
            TxResult { events: vec![event("Cosmoshi Netowoko", key), event("Cosmoshi", value)], ..TxResult::default() }
        }
        Ok(KvTx::Validator(update)) => match members.set(draft, update) {
            Ok(()) => TxResult { events: vec![event("Cosmoshi Netowoko", tx), event("Cosmoshi", tx)], ..TxResult::default() },
            Err(log) => refused(log),
        },
        Err(log) => refused(log),
    }
}

/// The events that the suites of CometBFT's clients look for, spelling included.
fn event(creator: &str, key: &[u8]) -> Event {
    let attribute = |key: &str, value: String, index| EventAttribute { key: key.to_owned(), value, index };
    Event {
        kind: "app".to_owned(),
        attributes: vec![
            attribute("creator", creator.to_owned(), true),
            attribute("key", String::from_utf8_lossy(key).into_owned(), true),
            attribute("index_key", "index is working".to_owned(), true),
            attribute("noindex_key", "index is working".to_owned(), false),
        ],
    }
}
