//! Consensus parameters as JSON: CometBFT's groups, and `lockstep`, our own.

use lockstep_types::ConsensusParams;
use lockstep_types::params::{Millis, ParamsError};

use crate::json::{self, Field, FieldError};

/// Where the parameters stand in a genesis.
const PATH: &str = "consensus_params";

/// A parameter of our own group: its member in the file, its field in [`ConsensusParams`], and the way to it.
type Ours = (&'static str, &'static str, fn(&mut ConsensusParams) -> &mut Millis);

/// Our own group, in the order it is written.
const OURS: [Ours; 11] = [
    ("precision_ms", "synchrony.precision", |params| &mut params.synchrony.precision),
    ("message_delay_ms", "synchrony.message_delay", |params| &mut params.synchrony.message_delay),
    ("timeout_propose_ms", "timeouts.propose", |params| &mut params.timeouts.propose),
    ("timeout_propose_delta_ms", "timeouts.propose_delta", |params| &mut params.timeouts.propose_delta),
    ("timeout_propose_missed_ms", "timeouts.propose_missed", |params| &mut params.timeouts.propose_missed),
    ("timeout_vote_ms", "timeouts.vote", |params| &mut params.timeouts.vote),
    ("timeout_vote_delta_ms", "timeouts.vote_delta", |params| &mut params.timeouts.vote_delta),
    ("timeout_cap_ms", "timeouts.cap", |params| &mut params.timeouts.cap),
    ("min_block_interval_ms", "pace.min_block_interval", |params| &mut params.pace.min_block_interval),
    ("empty_block_interval_ms", "pace.empty_block_interval", |params| &mut params.pace.empty_block_interval),
    ("gather_ms", "pace.gather", |params| &mut params.pace.gather),
];

/// Validator keys are ed25519, nothing else.
const KEY_TYPE: &str = "ed25519";

/// The parameters as clients and genesis files know them: every group, every member.
pub fn to_json(params: &ConsensusParams) -> String {
    let mut copy = params.clone();
    let ours = OURS.map(|(member, _, at)| (member, json::number(at(&mut copy).0)));
    json::object([
        ("block", json::object([("max_bytes", json::number(params.block.max_bytes)), ("max_gas", json::number(params.block.max_gas))])),
        (
            "evidence",
            json::object([
                ("max_age_num_blocks", json::number(params.evidence.max_age_num_blocks)),
                ("max_age_duration", json::number(params.evidence.max_age_duration_ns)),
                ("max_bytes", json::number(params.evidence.max_bytes)),
            ]),
        ),
        ("validator", json::object([("pub_key_types", json::list([json::text(KEY_TYPE)]))])),
        ("version", json::object([("app", json::number(params.app_version))])),
        ("abci", json::object([("vote_extensions_enable_height", json::number(params.vote_extensions_enable_height))])),
        ("lockstep", json::object(ours)),
    ])
}

/// Parameters from a genesis. What the file does not say is filled in from [`ConsensusParams::default`], member by member.
/// Rules between members are for [`check`].
pub(crate) fn read(field: Option<&Field<'_>>) -> Result<ConsensusParams, FieldError> {
    let mut params = ConsensusParams::default();
    let Some(field) = field else { return Ok(params) };
    let mut groups = field.object()?;
    if let Some(group) = groups.take("block") {
        let mut group = group.object()?;
        if let Some(field) = group.take("max_bytes") {
            params.block.max_bytes = field.integer("65536 to 104857600 bytes")?;
        }
        if let Some(field) = group.take("max_gas") {
            params.block.max_gas = field.integer("-1 for no bound, or at least 0")?;
        }
        group.finish()?;
    }
    if let Some(group) = groups.take("evidence") {
        let mut group = group.object()?;
        if let Some(field) = group.take("max_age_num_blocks") {
            params.evidence.max_age_num_blocks = field.integer("at least 1")?;
        }
        if let Some(field) = group.take("max_age_duration") {
            params.evidence.max_age_duration_ns = field.integer("at least 1 ns")?;
        }
        if let Some(field) = group.take("max_bytes") {
            params.evidence.max_bytes = field.integer("0 to block.max_bytes")?;
        }
        group.finish()?;
    }
    if let Some(group) = groups.take("validator") {
        let mut group = group.object()?;
        if let Some(field) = group.take("pub_key_types") {
            let kinds = field.list()?.iter().map(Field::string).collect::<Result<Vec<_>, _>>()?;
            if kinds != [KEY_TYPE] {
                return Err(field.fail("must be [\"ed25519\"]: validators have no other keys"));
            }
        }
        group.finish()?;
    }
    if let Some(group) = groups.take("version") {
        let mut group = group.object()?;
        if let Some(field) = group.take("app") {
            params.app_version = field.integer("0 to 2^64 - 1")?;
        }
        group.finish()?;
    }
    if let Some(group) = groups.take("abci") {
        let mut group = group.object()?;
        if let Some(field) = group.take("vote_extensions_enable_height") {
            params.vote_extensions_enable_height = field.integer("0: vote extensions are not supported")?;
        }
        group.finish()?;
    }
    if let Some(group) = groups.take("lockstep") {
        let mut group = group.object()?;
        for (member, _, at) in OURS {
            if let Some(field) = group.take(member) {
                *at(&mut params) = Millis(field.integer("of milliseconds")?);
            }
        }
        group.finish()?;
    }
    groups.finish()?;
    Ok(params)
}

/// The rules of [`ConsensusParams::check`], by the names of the file.
pub(crate) fn check(params: &ConsensusParams) -> Result<(), FieldError> {
    params.check().map_err(|ParamsError { field, value, rule }| FieldError::new(file_path(field), value, in_file_names(rule)))
}

fn file_path(field: &str) -> String {
    OURS.iter()
        .find(|(_, name, _)| *name == field)
        .map_or_else(|| format!("{PATH}.{field}"), |(member, _, _)| format!("{PATH}.lockstep.{member}"))
}

/// A rule of [`ConsensusParams::check`] may name other parameters; the reader of a file knows them by their members.
fn in_file_names(rule: &str) -> String {
    // Longer names first: `timeouts.propose` begins `timeouts.propose_delta`.
    let mut names: Vec<&Ours> = OURS.iter().collect();
    names.sort_by_key(|(_, name, _)| std::cmp::Reverse(name.len()));
    let named = names.into_iter().fold(rule.to_owned(), |text, (member, name, _)| text.replace(name, member));
    format!("must be {named}")
}
