//! What the genesis of a new chain says of its application, and of who may validate (`app_state`).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lockstep_app::{Application, Host};
use lockstep_genesis::Genesis;
use lockstep_genesis::genesis::GENESIS_BYTES_MAX;
use lockstep_genesis::home::Member;
use lockstep_replica::recovery;
use serde_json::json;
use serde_json::value::RawValue;

use crate::cli::{AdmissionKind, AppKind, RulesArgs};
use crate::error::{Exit, NodeError};
use crate::home::read_bounded;

/// What a chain gets when nothing is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    admission: AdmissionKind,
    live_window: u64,
    power_window: u64,
    absence_window: u64,
    checkpoint_interval: u64,
}

/// A network that is meant to stay. Its least block interval is 20 ms, so a request to join is good for 20 s at least, which
/// carries it across the world and through a vote. Under load a million heights are some hours: a machine that is
/// being repaired keeps its place, one that nobody misses loses it. A snapshot every 50,000 heights is one in 17 minutes at that pace, and
/// what a new node has to fetch after it takes some minutes.
pub(super) const NETWORK: Defaults = Defaults {
    admission: AdmissionKind::Vote,
    live_window: 1_000,
    power_window: 1_000,
    absence_window: 1_000_000,
    checkpoint_interval: 50_000,
};

/// A network on one machine, for experiments: whoever has the machine may join, and nobody waits. Each height may change one validator. Snapshots
/// come soon enough to be seen.
pub(super) const LOCALNET: Defaults = Defaults { admission: AdmissionKind::Open, power_window: 1, checkpoint_interval: 1_000, ..NETWORK };

/// What each of the first validators' accounts has on a chain of the token, where nothing else is said.
const FIRST_BALANCE: u64 = 1_000_000_000;

impl RulesArgs {
    /// The first flag of these that was given, for a command to which they mean nothing.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        self.given().next()
    }

    fn given(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("--app", self.app.is_some()),
            ("--app-state", self.app_state.is_some()),
            ("--admission", self.admission.is_some()),
            ("--authority", !self.authority.is_empty()),
            ("--authority-threshold", self.authority_threshold.is_some()),
            ("--live-window", self.live_window.is_some()),
            ("--power-window", self.power_window.is_some()),
            ("--absence-window", self.absence_window.is_some()),
            ("--checkpoint-interval", self.checkpoint_interval.is_some()),
        ];
        given.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag))
    }

    /// `app_state` for a new chain of these members.
    pub(super) fn app_state(&self, defaults: Defaults, members: &[Member]) -> Result<String, NodeError> {
        let mut groups = match &self.app_state {
            Some(path) => read_groups(path)?,
            None => BTreeMap::new(),
        };
        if self.app == Some(AppKind::Token) {
            let account = |member: &Member| json!({ "address": member.address().to_string(), "balance": FIRST_BALANCE });
            groups.insert("token".to_owned(), raw(&json!({ "accounts": members.iter().map(account).collect::<Vec<_>>() })));
        }
        // A file that says who may validate says all of it.
        if !groups.contains_key("membership") {
            groups.insert("membership".to_owned(), raw(&self.membership(defaults)));
        } else if let Some(flag) = self.given().find(|flag| !flag.starts_with("--app")) {
            return Err(NodeError::new(Exit::Usage, format!("{flag} is given, and the file of --app-state has a group membership"))
                .next("say it in one place: take the group out of the file, or leave the flag out"));
        }
        Ok(serde_json::to_string(&groups).expect("texts and raw values are JSON"))
    }

    fn membership(&self, defaults: Defaults) -> serde_json::Value {
        let admission = match self.admission.unwrap_or(defaults.admission) {
            AdmissionKind::Vote => "vote",
            AdmissionKind::Authority => "authority",
            AdmissionKind::Open => "open",
        };
        let mut group = json!({
            "admission": admission,
            "live_window": self.live_window.unwrap_or(defaults.live_window),
            "power_window": self.power_window.unwrap_or(defaults.power_window),
            "absence_window": self.absence_window.unwrap_or(defaults.absence_window),
            "checkpoint_interval": self.checkpoint_interval.unwrap_or(defaults.checkpoint_interval),
        });
        if !self.authority.is_empty() {
            let most = self.authority.len() / 2 + 1;
            let threshold = self.authority_threshold.map_or(most as u64, u64::from);
            group["authority"] = json!({ "keys": self.authority, "threshold": threshold });
        }
        group
    }
}

fn raw(value: &serde_json::Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("a value is JSON")
}

/// The members of a JSON object, each as its text.
fn read_groups(path: &Path) -> Result<BTreeMap<String, Box<RawValue>>, NodeError> {
    serde_json::from_slice(&read_bounded(path, GENESIS_BYTES_MAX)?).map_err(|error| {
        NodeError::new(Exit::Refused, format!("{}: {error}", path.display()))
            .means("what an application starts from is a JSON object, each member a part of it")
            .next("docs/format-genesis.md says what the bundled applications take")
    })
}

/// Refuses a genesis from which the application does not start, before anybody has it.
pub(super) fn check_start(app: Arc<dyn Application>, genesis: &Genesis) -> Result<(), NodeError> {
    recovery::genesis_state(&Host::new(app), genesis).map(drop).map_err(|error| {
        NodeError::new(Exit::Usage, format!("no chain can start from this: {error}")).next("change what the flags or the file say")
    })
}

/// Whether a chain runs the bundled token, which takes other transactions than `key=value`.
pub(super) fn runs_token(genesis: &Genesis) -> bool {
    let groups: BTreeMap<String, &RawValue> = serde_json::from_str(&genesis.app_state).unwrap_or_default();
    groups.contains_key("token")
}
