//! What genesis says about membership: the group `membership` of `app_state`, which the host takes out before the
//! application sees the rest.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::{ChainId, Hash, PublicKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::standing::RECENT_MAX;
use crate::application::GenesisRefused;

/// The member of `app_state` that is the node's.
const GROUP: &str = "membership";
/// Most authority keys.
pub(super) const AUTHORITY_KEYS_MAX: usize = 64;
/// Longest window, in heights: what is remembered for it stays small.
const WINDOW_MAX: u64 = 10_000_000;
/// A validator is counted on that signed one of so many of the last commits, where [`Config::live_window`] does not say fewer. Until they have passed, one
/// that died is counted on, and the QUIT of another may leave a set that decides nothing; much fewer, and one whose vote just missed a few commits
/// keeps others from leaving.
pub const COUNTED_ON_WINDOW: u64 = 20;
/// Longest window in which moved power is remembered, an entry for each height that moved some.
const POWER_WINDOW_MAX: u64 = 10_000;

/// The rules of a chain, from its genesis; kept in the state, under a key of the node.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Config {
    /// The chain and its genesis, in all that is signed.
    pub chain_id: ChainId,
    /// Hash of the genesis.
    pub genesis_hash: Hash,
    /// Who admits.
    pub admission: Admission,
    /// Keys that stand above the validators; none for a chain without.
    pub authority: Authority,
    /// W_live, heights: a request names a block that is no older, and is good for as long. 1 to 1,000.
    pub live_window: u64,
    /// W_power, heights: over so many, at most a third of the power moves. 1 to 10,000.
    pub power_window: u64,
    /// W_absent, heights: absent for so many, with every slot missed, a validator is suspended. 0 for never.
    pub absence_window: u64,
    /// Every so many heights is a checkpoint. 0 for none but by CHECKPOINT.
    pub checkpoint_interval: u64,
    /// A CHECKPOINT is refused sooner than so many heights after the last one. At least 1.
    pub checkpoint_spacing: u64,
}

/// Who admits an observer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize, Deserialize)]
#[borsh(use_discriminant = true)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Admission {
    /// More than two thirds of the power.
    Vote = 1,
    /// The authority: so many of its keys as its threshold says.
    Authority = 2,
    /// Nobody has to: for experiments.
    Open = 3,
}

/// Keys that stand above the validators.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Authority {
    /// The keys, each once.
    pub keys: Vec<PublicKey>,
    /// How many of them have to agree; 0 where there are no keys.
    pub threshold: u32,
}

/// As JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    admission: Admission,
    #[serde(default)]
    authority: Option<AuthorityGroup>,
    #[serde(default = "live_window")]
    live_window: u64,
    #[serde(default = "power_window")]
    power_window: u64,
    #[serde(default = "absence_window")]
    absence_window: u64,
    #[serde(default)]
    checkpoint_interval: u64,
    #[serde(default = "checkpoint_spacing")]
    checkpoint_spacing: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AuthorityGroup {
    keys: Vec<String>,
    threshold: u32,
}

const fn live_window() -> u64 {
    100
}

const fn power_window() -> u64 {
    1_000
}

const fn absence_window() -> u64 {
    10_000
}

const fn checkpoint_spacing() -> u64 {
    100
}

fn refused(field: &str, value: impl ToString, rule: impl Into<String>) -> GenesisRefused {
    GenesisRefused { field: format!("app_state.{GROUP}{field}"), value: value.to_string(), rule: rule.into() }
}

/// `app_state` without the node's group, and the rules that the group asks for; none where there is no group. Text that is
/// no object of JSON is the application's alone.
///
/// # Errors
/// Which field of the group, its value, and the rule.
pub(crate) fn split(app_state: &str, chain_id: &ChainId, genesis_hash: Hash) -> Result<(Option<Config>, String), GenesisRefused> {
    let Ok(mut members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(app_state) else { return Ok((None, app_state.to_owned())) };
    let Some(group) = members.remove(GROUP) else { return Ok((None, app_state.to_owned())) };
    let rest = serde_json::to_string(&members).expect("texts and raw values are JSON");
    let group: Group = serde_json::from_str(group.get()).map_err(|error| {
        refused("", group.get(), format!("an object with admission (\"vote\", \"authority\" or \"open\") and optional windows: {error}"))
    })?;
    Ok((Some(group.check(chain_id.clone(), genesis_hash)?), rest))
}

impl Group {
    fn check(self, chain_id: ChainId, genesis_hash: Hash) -> Result<Config, GenesisRefused> {
        let windows = [
            (".live_window", self.live_window, 1, RECENT_MAX as u64 - 24, "1 to 1000 heights"),
            (".power_window", self.power_window, 1, POWER_WINDOW_MAX, "1 to 10000 heights"),
            (".absence_window", self.absence_window, 0, WINDOW_MAX, "0 (never) to 10000000 heights"),
            (".checkpoint_interval", self.checkpoint_interval, 0, WINDOW_MAX, "0 (by transaction only) to 10000000 heights"),
            (".checkpoint_spacing", self.checkpoint_spacing, 1, WINDOW_MAX, "1 to 10000000 heights"),
        ];
        for (field, value, min, max, rule) in windows {
            if value < min || value > max {
                return Err(refused(field, value, rule));
            }
        }
        if self.absence_window != 0 && self.absence_window <= self.live_window {
            return Err(refused(".absence_window", self.absence_window, "0, or above live_window: who is absent was long not live"));
        }
        let authority = self.authority.map(AuthorityGroup::check).transpose()?.unwrap_or_default();
        if self.admission == Admission::Authority && authority.keys.is_empty() {
            return Err(refused(".authority", "absent", "keys and a threshold, since admission is by authority"));
        }
        Ok(Config {
            chain_id,
            genesis_hash,
            admission: self.admission,
            authority,
            live_window: self.live_window,
            power_window: self.power_window,
            absence_window: self.absence_window,
            checkpoint_interval: self.checkpoint_interval,
            checkpoint_spacing: self.checkpoint_spacing,
        })
    }
}

impl Config {
    /// Heights: a validator is live with a signature in one of the last so many commits.
    pub fn counted_on_window(&self) -> u64 {
        self.live_window.min(COUNTED_ON_WINDOW)
    }
}

impl AuthorityGroup {
    fn check(self) -> Result<Authority, GenesisRefused> {
        let mut keys = Vec::new();
        if self.keys.is_empty() || self.keys.len() > AUTHORITY_KEYS_MAX {
            return Err(refused(".authority.keys", self.keys.len(), format!("1 to {AUTHORITY_KEYS_MAX} keys")));
        }
        for text in self.keys {
            let bytes = STANDARD.decode(&text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            let key = bytes.map(PublicKey).ok_or_else(|| refused(".authority.keys", &text, "an ed25519 public key, 32 bytes in base64"))?;
            key.check().map_err(|error| refused(".authority.keys", &text, error.to_string()))?;
            if keys.contains(&key) {
                return Err(refused(".authority.keys", &text, "each key once"));
            }
            keys.push(key);
        }
        if self.threshold == 0 || self.threshold as usize > keys.len() {
            return Err(refused(".authority.threshold", self.threshold, "1 to the number of keys"));
        }
        Ok(Authority { keys, threshold: self.threshold })
    }
}
