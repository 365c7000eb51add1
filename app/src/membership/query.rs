//! The members, for people and their tools: `abci_query` with the path [`MEMBERSHIP_PATH`] answers with JSON.

use lockstep_types::{Height, ValidatorSet};
use serde::Serialize;

use super::config::{Admission, Config};
use super::registry::{Registry, Status};
use super::standing::Standing;
use crate::application::QueryAnswer;
use crate::host::State;
use crate::node_tx::{NODE_CODESPACE, NODE_TX_UNAVAILABLE};

/// The query path that the node answers for every application.
pub const MEMBERSHIP_PATH: &str = "/membership";

#[derive(Serialize)]
struct Answer {
    height: u64,
    view: u64,
    admission: &'static str,
    authority: AuthorityAnswer,
    live_window: u64,
    power_window: u64,
    absence_window: u64,
    checkpoint_interval: u64,
    checkpoint_spacing: u64,
    last_checkpoint: u64,
    power_moved_in_window: u64,
    members: Vec<MemberAnswer>,
    waiting: Vec<WaitingAnswer>,
    recent: RecentAnswer,
    genesis_hash: String,
}

#[derive(Serialize)]
struct AuthorityAnswer {
    keys: Vec<String>,
    threshold: u32,
}

#[derive(Serialize)]
struct MemberAnswer {
    address: String,
    public_key: String,
    /// In the newest set; 0 for an observer.
    power: u64,
    asks_for: u64,
    status: &'static str,
    since: u64,
    proven: u64,
    replaces: Option<String>,
    moniker: String,
    addresses: Vec<String>,
    approvals: Vec<String>,
    /// Keys of the authority, by address, that ask it to leave, while they are too few.
    removals: Vec<String>,
    last_signed: Option<u64>,
}

#[derive(Serialize)]
struct WaitingAnswer {
    address: String,
    power: u64,
    since: u64,
}

#[derive(Serialize)]
struct RecentAnswer {
    height: u64,
    hash: Option<String>,
}

/// What the state says of membership.
pub(crate) fn answer(state: &State) -> QueryAnswer {
    let Some(config) = Registry::config(state.tree()) else {
        return QueryAnswer {
            code: NODE_TX_UNAVAILABLE,
            codespace: NODE_CODESPACE.to_owned(),
            log: "this chain has no membership: its genesis has no app_state.membership".to_owned(),
            ..QueryAnswer::default()
        };
    };
    let text = serde_json::to_vec(&whole(&config, state.standing(), state.newest(), state)).expect("texts and numbers are JSON");
    QueryAnswer { log: "exists".to_owned(), value: Some(text.into()), height: state.height(), ..QueryAnswer::default() }
}

fn whole(config: &Config, standing: &Standing, newest: &ValidatorSet, state: &State) -> Answer {
    let registry = Registry::open(state.tree());
    let mut members: Vec<MemberAnswer> = newest
        .iter()
        .map(|validator| {
            let member = registry.get(&validator.address);
            let asked_to_leave = member.iter().flat_map(|member| &member.removals);
            let removals = asked_to_leave.map(|key| key.address().to_string()).collect();
            let text = |text: Option<&String>| text.cloned().unwrap_or_default();
            MemberAnswer {
                address: validator.address.to_string(),
                public_key: validator.public_key.to_string(),
                power: validator.power.get(),
                asks_for: validator.power.get(),
                status: member.as_ref().map_or(Status::Validator, |member| member.status).name(),
                since: member.as_ref().map_or(0, |member| member.since.get()),
                proven: member.as_ref().map_or(0, |member| member.proven.get()),
                replaces: None,
                moniker: text(member.as_ref().map(|member| &member.moniker)),
                addresses: member.map(|member| member.addresses).unwrap_or_default(),
                approvals: Vec::new(),
                removals,
                last_signed: standing.attendance.iter().find(|seat| seat.address == validator.address).map(|seat| seat.last_signed.get()),
            }
        })
        .collect();
    members.extend(registry.members().filter(|member| newest.index_of(&member.public_key.address()).is_none()).map(|member| {
        MemberAnswer {
            address: member.public_key.address().to_string(),
            public_key: member.public_key.to_string(),
            power: 0,
            asks_for: member.power.get(),
            status: member.status.name(),
            since: member.since.get(),
            proven: member.proven.get(),
            replaces: member.replaces.map(|key| key.address().to_string()),
            moniker: member.moniker,
            addresses: member.addresses,
            approvals: member.approvals.iter().map(|key| key.address().to_string()).collect(),
            removals: Vec::new(),
            last_signed: None,
        }
    }));
    let next = Height::new(state.height().get().saturating_add(1)).unwrap_or(Height::MAX);
    Answer {
        height: state.height().get(),
        view: standing.view,
        admission: match config.admission {
            Admission::Vote => "vote",
            Admission::Authority => "authority",
            Admission::Open => "open",
        },
        authority: AuthorityAnswer {
            keys: config.authority.keys.iter().map(ToString::to_string).collect(),
            threshold: config.authority.threshold,
        },
        live_window: config.live_window,
        power_window: config.power_window,
        absence_window: config.absence_window,
        checkpoint_interval: config.checkpoint_interval,
        checkpoint_spacing: config.checkpoint_spacing,
        last_checkpoint: standing.last_checkpoint.get(),
        power_moved_in_window: standing.moved_in_window(next, config.power_window, newest.total_power()).0,
        members,
        waiting: standing
            .waiting
            .iter()
            .map(|waiting| WaitingAnswer {
                address: waiting.update.public_key.address().to_string(),
                power: waiting.update.power.get(),
                since: waiting.since.get(),
            })
            .collect(),
        recent: RecentAnswer {
            height: standing.recent.newest().get(),
            hash: standing.recent.get(standing.recent.newest()).map(|hash| hash.to_string()),
        },
        genesis_hash: config.genesis_hash.to_string(),
    }
}
