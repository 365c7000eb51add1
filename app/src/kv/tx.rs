//! The transactions of the key-value application.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lockstep_types::state_tree::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use lockstep_types::{Power, PublicKey, ValidatorUpdate};

use super::DATA_PREFIX;

/// How a validator transaction begins.
pub const VALIDATOR_TX_PREFIX: &[u8] = b"val=";

/// Longest key: what remains of a state key.
pub const TX_KEY_BYTES_MAX: usize = KEY_BYTES_MAX - DATA_PREFIX.len();

/// What a transaction asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvTx<'a> {
    /// `key=value` or `key:value`.
    Set {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// `val=ed25519!<base64 key>!<power>`.
    Validator(ValidatorUpdate),
}

/// Reads a transaction. The format decides alone, never the state.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse(tx: &[u8]) -> Result<KvTx<'_>, String> {
    if let Some(rest) = tx.strip_prefix(VALIDATOR_TX_PREFIX) {
        return parse_validator(rest).map(KvTx::Validator);
    }
    let is_separator = |byte: &u8| matches!(byte, b'=' | b':');
    let count = tx.iter().filter(|byte| is_separator(byte)).count();
    let (Some(at), 1) = (tx.iter().position(is_separator), count) else {
        return Err("a transaction is key=value or key:value, with exactly one separator".to_owned());
    };
    let (key, value) = (&tx[..at], &tx[at + 1..]);
    if key.is_empty() || value.is_empty() {
        return Err("a transaction is key=value or key:value, with something on both sides".to_owned());
    }
    if key.len() > TX_KEY_BYTES_MAX {
        return Err(format!("a key of {} bytes, at most {TX_KEY_BYTES_MAX} are stored", key.len()));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!("a value of {} bytes, at most {VALUE_BYTES_MAX} are stored", value.len()));
    }
    Ok(KvTx::Set { key, value })
}

fn parse_validator(text: &[u8]) -> Result<ValidatorUpdate, String> {
    let parts: Vec<&[u8]> = text.split(|byte| *byte == b'!').collect();
    let [kind, key, power] = parts[..] else {
        return Err("a validator transaction is val=ed25519!<base64 key>!<power>".to_owned());
    };
    if kind != b"ed25519" {
        return Err(format!("key type {}, only ed25519 can validate", kind.escape_ascii()));
    }
    let key = STANDARD.decode(key).map_err(|error| format!("the key is not base64: {error}"))?;
    let key = <[u8; 32]>::try_from(key).map_err(|key| format!("a key of {} bytes, ed25519 keys have 32", key.len()))?;
    let public_key = PublicKey(key);
    public_key.check().map_err(|error| format!("the key cannot validate: {error}"))?;
    let digits = std::str::from_utf8(power).ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let power = digits
        .and_then(|text| text.parse().ok())
        .and_then(Power::new)
        .ok_or_else(|| format!("power {}, it is a number from 0 to {}", power.escape_ascii(), Power::MAX))?;
    Ok(ValidatorUpdate { public_key, power })
}
