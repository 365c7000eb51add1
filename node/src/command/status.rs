//! `lockstep status`

use std::time::Duration;

use lockstep_rpc::Client;
use lockstep_rpc::json::SyncInfo;
use lockstep_types::{Address, Height, Power, Time};
use serde_json::json;
use tokio::time::timeout;

use super::{client_error, now, say};
use crate::cli::StatusArgs;
use crate::error::{Exit, NodeError};
use crate::http::{Connection, Endpoint};
use crate::metrics::{CutOff, HeldBack};

/// A node that just answered and takes longer for more is shown without it.
const MORE_WAIT: Duration = Duration::from_secs(3);

pub(super) async fn run(args: &StatusArgs) -> Result<(), NodeError> {
    let client = Client::new(args.nodes.urls.iter().cloned()).map_err(|error| client_error(&error))?;
    let status = client.status().await.map_err(|error| client_error(&error))?;
    let More { peers, validators, held_back, cut_off, kept_out } = more(client.endpoint()).await;
    let cut_off = cut_off.filter(|_| status.sync_info.catching_up);
    let (node, sync, validator) = (&status.node_info, &status.sync_info, &status.validator_info);
    let signs = (validator.voting_power != Power::ZERO).then_some(held_back).flatten();
    if args.json {
        let failed = |error| NodeError::new(Exit::Failed, error);
        let mut answer = serde_json::to_value(&status).map_err(failed)?;
        answer["lockstep"] = json!({
            "peers": peers,
            "signs": signs.map(|why| why.is_none()),
            "held_back": signs.flatten().map(HeldBack::label),
            "cut_off": cut_off.map(CutOff::label),
            "kept_out": kept_out,
        });
        say(serde_json::to_string(&answer).map_err(failed)?);
        return Ok(());
    }
    say(format!("node        {} ({})", node.moniker, client.endpoint()));
    say(format!("node id     {}", node.id));
    say(format!("chain       {}", node.network));
    say(format!("height      {}", sync.latest_block_height));
    say(format!("block hash  {}", hex::encode_upper(&sync.latest_block_hash.0)));
    if sync.latest_block_height == Height::ZERO {
        say("block time  none: no block was committed yet");
    } else {
        say(format!("block time  {} ({})", sync.latest_block_time, age(sync.latest_block_time, now()?)));
    }
    say(format!("app hash    {}", hex::encode_upper(&sync.latest_app_hash.0)));
    say(format!("keeps from  {}", sync.earliest_block_height));
    say(format!("peers       {}", peers.map_or_else(|| "not known".to_owned(), |peers| peers.to_string())));
    if let Some(line) = kept_out.and_then(double) {
        say(format!("node key    {line}"));
    }
    // One that signs nothing any more decides nothing, whoever else does with its key.
    let is_alone = validator.voting_power != Power::ZERO && validators == Some(1) && signs != Some(Some(HeldBack::Stopped));
    // What it has decided and lost, nobody else has decided.
    let has_lost = is_alone && signs == Some(Some(HeldBack::GuardAhead));
    let lost = || "NO: it is the only validator, and has lost blocks that it had decided: the chain stands still".to_owned();
    let step = if has_lost { lost() } else { in_step(sync.catching_up, cut_off, peers, is_alone) };
    say(format!("in step     {step}"));
    if has_lost {
        say(
            "to do       connect a node that has these blocks, an observer will do (p2p.persistent_peers); or start on a copy of this data \
             folder that has them, with the guard of this one. What was damaged lies in data/damaged",
        );
    }
    if let Some(line) = standstill(&client, sync, peers, now()?).await {
        say(format!("waits       {line}"));
    }
    if let Some(remedy) = cut_off.and_then(CutOff::remedy) {
        say(format!("to do       {remedy}"));
    }
    if held_back == Some(Some(HeldBack::Diverged)) {
        say(format!("state       NOT the chain's: {}", HeldBack::Diverged.meaning()));
    }
    say(format!("validator   {} with power {}", validator.address, validator.voting_power));
    match signs {
        _ if validator.voting_power == Power::ZERO => say("signs       no: it is not among the validators of this height"),
        Some(Some(why)) => say(format!("signs       NO: {}", why.meaning())),
        Some(None) => say("signs       yes"),
        // Another program, or a proxy that keeps the metrics to itself.
        None => {}
    }
    Ok(())
}

/// Whether it has what the others decided, as far as a node can know. That the chain goes on shows in the age of its last block.
fn in_step(catching_up: bool, cut_off: Option<CutOff>, peers: Option<u64>, is_alone: bool) -> String {
    match (catching_up, cut_off, peers) {
        (true, Some(why), _) if why.remedy().is_some() => return format!("NO: {}", why.meaning()),
        (true, Some(why), _) => return format!("no: {}", why.meaning()),
        (true, None, Some(0)) => "no: it has no peers so far that tell it where the chain is",
        (true, None, _) => "no: it catches up",
        (false, ..) if is_alone => "yes: it is the only validator",
        (false, _, Some(0)) => "not known: it has no peers, so there may be blocks that it does not know of",
        (false, ..) => "yes, as far as its peers tell",
    }
    .to_owned()
}

/// Where peers refuse a node for another process with its node key.
fn double(kept_out: u64) -> Option<String> {
    let peers = match kept_out {
        0 => return None,
        1 => "1 peer keeps that one and refuses this one".to_owned(),
        peers => format!("{peers} peers keep that one and refuse this one"),
    };
    Some(format!("USED by another process, too: {peers}. A home runs twice: stop the copy"))
}

/// A chain of which no block came for longer may stand still: three times the interval of empty blocks, as genesis has it if nobody says otherwise.
const QUIET_S: u64 = 30;
/// Pages of validators that are read.
const PAGES_MAX: usize = 10;

/// Where no block came for a while: since when, and whose signature the last block lacks of those who decide the next.
pub(super) async fn standstill(client: &Client, sync: &SyncInfo, peers: Option<u64>, now: Time) -> Option<String> {
    let seconds = u64::try_from(now.unix_nanos() - sync.latest_block_time.unix_nanos()).ok()? / 1_000_000_000;
    // A node that was just started and finds nobody is what a chain that stands still looks like, too.
    let catches_up = sync.catching_up && peers != Some(0);
    if catches_up || sync.latest_block_height == Height::ZERO || seconds < QUIET_S {
        return None;
    }
    let ask = async {
        let commit = client.commit(Some(sync.latest_block_height)).await.ok()??.signed_header.commit;
        let set = next_set(client).await?;
        let signed = |address: &Address| commit.signatures.iter().any(|slot| slot.validator_address.0 == address.0);
        Some(waits(seconds, &set, signed))
    };
    timeout(MORE_WAIT, ask).await.ok().flatten()
}

/// Whether a node waits for a first peer to tell it where the chain is; no, where it does not say.
pub(super) async fn has_nobody_to_ask(client: &Client) -> bool {
    let ask = async {
        let is_behind = client.status().await.ok()?.sync_info.catching_up;
        let mut connection = Connection::open(&Endpoint::parse(client.endpoint()).ok()?).await.ok()?;
        Some(is_behind && connection.decimal("/net_info", "/result/n_peers").await? == 0)
    };
    timeout(MORE_WAIT, ask).await.ok().flatten().unwrap_or(false)
}

/// Who decides the next block, as a node says, and their power.
pub(super) async fn next_set(client: &Client) -> Option<Vec<(Address, u64)>> {
    let mut set = Vec::new();
    for page in 1..=PAGES_MAX {
        let answer = client.validators(None, page).await.ok()?;
        set.extend(answer.validators.iter().map(|one| (one.address, one.voting_power.get())));
        if answer.validators.is_empty() || set.len() >= answer.total.0 {
            break;
        }
    }
    Some(set)
}

fn waits(seconds: u64, set: &[(Address, u64)], signed: impl Fn(&Address) -> bool) -> String {
    let power = |members: &mut dyn Iterator<Item = &(Address, u64)>| members.map(|(_, power)| *power).fold(0, u64::saturating_add);
    let (total, there) = (power(&mut set.iter()), power(&mut set.iter().filter(|(address, _)| signed(address))));
    let missing: Vec<String> =
        set.iter().filter(|(address, _)| !signed(address)).map(|(address, power)| format!("{address} ({power})")).collect();
    let who = if missing.is_empty() { String::new() } else { format!("; without {}", missing.join(", ")) };
    let enough = u128::from(there) * 3 > u128::from(total) * 2;
    // A vote that came late is missing from a commit that needed no more; who stopped since has one in it.
    let verdict = if enough {
        ". That was enough then: whoever stopped did so after it, so ask each of them (lockstep status --node URL)"
    } else {
        ". More than two thirds are needed: the chain stands still until they are there"
    };
    format!("no block came for {seconds} s. Of power {total}, which decides the next one, {there} signed the last{who}{verdict}")
}

/// How long ago a block was made, by the clock of this machine.
fn age(block: Time, now: Time) -> String {
    let nanos = now.unix_nanos() - block.unix_nanos();
    match u64::try_from(nanos.div_euclid(1_000_000_000)) {
        Ok(seconds @ 0..120) => format!("{seconds} s ago"),
        Ok(seconds @ 120..7_200) => format!("{} min ago", seconds / 60),
        Ok(seconds) => format!("{} h ago", seconds / 3_600),
        Err(_) => "ahead of the clock of this machine".to_owned(),
    }
}

/// What the method status does not say.
#[derive(Default)]
struct More {
    peers: Option<u64>,
    /// How many the next block has.
    validators: Option<u64>,
    /// Why it holds its votes back, if it does.
    held_back: Option<Option<HeldBack>>,
    /// What it needs to get further, where blocks do not help.
    cut_off: Option<CutOff>,
    /// How many peers refuse it for another process with its node key.
    kept_out: Option<u64>,
}

/// What the node says soon.
async fn more(url: &str) -> More {
    let Ok(endpoint) = Endpoint::parse(url) else { return More::default() };
    let ask = async {
        let mut connection = Connection::open(&endpoint).await.ok()?;
        let peers = connection.decimal("/net_info", "/result/n_peers").await;
        let validators = connection.decimal("/validators?per_page=1", "/result/total").await;
        Some(More {
            peers,
            validators,
            held_back: connection.held_back().await,
            cut_off: connection.cut_off().await,
            kept_out: connection.kept_out().await,
        })
    };
    timeout(MORE_WAIT, ask).await.ok().flatten().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use lockstep_types::Time;

    use lockstep_types::Address;

    use super::{CutOff, age, double, in_step, waits};

    #[test]
    fn a_chain_that_waits_says_for_whom() {
        let set: Vec<(Address, u64)> = (1..=3).map(|n| (Address([n; 20]), 10)).collect();
        let all = waits(40, &set, |_| true);
        assert!(
            all.starts_with("no block came for 40 s. Of power 30, which decides the next one, 30 signed the last. That was enough then"),
            "{all}"
        );
        let told = waits(95, &set, |address| address.0[0] != 2);
        assert!(told.contains("20 signed the last; without 0202020202020202020202020202020202020202 (10). More than two thirds"), "{told}");
        let four: Vec<(Address, u64)> = (1..=4).map(|n| (Address([n; 20]), 10)).collect();
        assert!(!waits(95, &four, |address| address.0[0] != 2).contains("More than"), "three of four go on");
    }

    #[test]
    fn nothing_is_claimed_that_a_node_cannot_know() {
        let told = |catching_up, peers| in_step(catching_up, None, peers, false);
        assert!(told(true, Some(3)).starts_with("no:") && told(true, Some(0)).starts_with("no:"));
        assert!(told(false, Some(0)).starts_with("not known"), "a chain that stands still looks like one that went on without us");
        assert!(told(false, Some(1)).starts_with("yes") && told(false, None).starts_with("yes"));
        assert!(in_step(false, None, Some(0), true).starts_with("yes:"), "nobody else decides");
        for why in CutOff::ALL {
            let told = in_step(true, Some(why), Some(3), false);
            assert_eq!(told.starts_with("NO: "), why.remedy().is_some(), "who has to do something is told loudly: {told}");
            assert!(told.to_lowercase().starts_with("no: "), "{told}");
        }
    }

    #[test]
    fn a_node_that_is_kept_out_says_why() {
        assert_eq!(double(0), None);
        assert!(double(1).is_some_and(|told| told.contains("1 peer keeps")) && double(3).is_some_and(|told| told.contains("3 peers keep")));
    }

    #[test]
    fn the_age_of_a_block_is_told() {
        let at = |seconds: i128| Time::from_unix_nanos(seconds * 1_000_000_000);
        assert_eq!(age(at(1_000), at(1_000)), "0 s ago");
        assert_eq!(age(at(1_000), at(1_090)), "90 s ago");
        assert_eq!(age(at(1_000), at(4_660)), "61 min ago");
        assert_eq!(age(at(1_000), at(8_200)), "2 h ago");
        assert_eq!(age(at(1_002), at(1_000)), "ahead of the clock of this machine");
    }
}
