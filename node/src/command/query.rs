//! `lockstep query`: an answer that is proven, or FAIL.

use std::time::{Duration, Instant};

use lockstep_genesis::Genesis;
use lockstep_rpc::Client;
use lockstep_rpc::client::ClientError;
use lockstep_rpc::client::verify::{LightClient, TrustRoot, VerifiedValue, VerifyError};
use lockstep_rpc::json::validator_set;
use lockstep_types::light::LightError;
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{Hash, Header, Height, Time, ValidatorSet};

use super::{client_error, named_or_default, say};
use crate::cli::QueryArgs;
use crate::error::{Exit, NodeError};
use crate::home::read_genesis;

/// How long to wait for the header that proves the last block's state. A chain that stands still is answered for all the
/// same, with the state before it.
const PROOF_WAIT: Duration = Duration::from_secs(3);
const PROOF_POLL: Duration = Duration::from_millis(5);

pub(super) async fn run(args: &QueryArgs) -> Result<(), NodeError> {
    let key = state_key(args)?;
    let genesis = match &args.genesis {
        Some(path) => read_genesis(path)?,
        None => {
            let home = named_or_default(args.home.as_ref())?;
            home.check_exists().map_err(|error| {
                error
                    .means("the proof starts from the validators of a genesis that you trust")
                    .next("name a home of the chain, or its genesis file: --home DIR, or --genesis FILE")
            })?;
            home.read_genesis()?
        }
    };
    let window = Duration::from_nanos(genesis.consensus_params.evidence.max_age_duration_ns);
    let trusting = args.trusting_period.unwrap_or(window);
    let client = Client::new(args.nodes.urls.iter().cloned()).map_err(|error| client_error(&error))?;
    let status = client.status().await.map_err(|error| client_error(&error))?;
    if status.node_info.network != genesis.chain_id {
        let (has, trusted) = (status.node_info.network, &genesis.chain_id);
        return Err(NodeError::new(
            Exit::Unproven,
            format!("FAIL: {} serves chain {has}, and the genesis is that of {trusted}", client.endpoint()),
        )
        .means("the node serves another chain, of which this genesis proves nothing")
        .next("give the genesis of its chain, or another --node"));
    }
    await_proof_of_tip(&client, status.sync_info.latest_block_height).await.map_err(|error| client_error(&error))?;
    let root = match args.trust_height.zip(args.trust_hash) {
        Some((height, hash)) => {
            let (time, validators) = trusted_block(&client, height, hash).await?;
            TrustRoot::genesis(genesis.chain_id.clone(), time, height, validators, trusting)
        }
        None => {
            TrustRoot::genesis(genesis.chain_id.clone(), genesis.genesis_time, genesis.initial_height(), genesis.validator_set(), trusting)
        }
    };
    let mut client = LightClient::new(client, root);
    let answer = client.query(&key).await.map_err(|error| unproven(&error))?;
    if args.json {
        say(json(args, &answer, &genesis))
    } else {
        tell(args, &answer, &genesis)
    }
    Ok(())
}

/// The validators of a block that is known by its hash, and a time just before it: from them trust goes on as from those of a
/// genesis. The node only fills in what the hash pins.
async fn trusted_block(client: &Client, height: Height, hash: Hash) -> Result<(Time, ValidatorSet), NodeError> {
    let failed = |what: String| {
        NodeError::new(Exit::Unproven, format!("FAIL: {} {what}", client.endpoint()))
            .means("the node is not on the chain that you trust, or --trust-height and --trust-hash are not those of one block")
            .next("compare both with your source, and ask another --node")
    };
    let shown = client.header(Some(height)).await.map_err(|error| match error.reason() {
        Some(reason) => failed(format!("shows no block of height {height}: {reason}")),
        None => client_error(&error),
    });
    let shown = shown?.header;
    let shown = shown.ok_or_else(|| failed(format!("has no block of height {height}")))?;
    let header = Header::try_from(&shown).map_err(|error| failed(format!("answers with a malformed header: {error}")))?;
    if header.hash() != hash || header.height != height {
        return Err(failed(format!("shows block {} at height {height}, and {hash} is trusted", header.hash())));
    }
    let mut members = Vec::new();
    for page in 1.. {
        let answer = client.validators(Some(height), page).await.map_err(|error| client_error(&error))?;
        let is_last = answer.validators.is_empty();
        members.extend(answer.validators);
        if is_last || members.len() >= answer.total.0 || members.len() > VALIDATORS_MAX {
            break;
        }
    }
    let validators = validator_set(&members).map_err(|error| failed(format!("answers with malformed validators: {error}")))?;
    if validators.hash() != header.validators_hash {
        return Err(failed(format!("shows other validators for height {height} than the block that is trusted")));
    }
    Ok((header.time.saturating_sub(Duration::from_nanos(1)), validators))
}

/// Nodes answer with the latest state that can be proven, and what proves the state after a block is the next header. So
/// that a value that was just committed is seen, this waits for the header after the node's last block, if that block has
/// transactions: it comes at once. After an empty block the state is the one before it, and nothing needs to be waited for.
async fn await_proof_of_tip(client: &Client, tip: Height) -> Result<(), ClientError> {
    if tip == Height::ZERO {
        return Ok(());
    }
    let header = client.header(Some(tip)).await?.header;
    let is_empty = header.is_none_or(|header| Header::try_from(&header).is_ok_and(|header| header.data_hash == Hash::EMPTY_LIST));
    let give_up = Instant::now() + PROOF_WAIT;
    while !is_empty && Instant::now() < give_up && client.status().await?.sync_info.latest_block_height == tip {
        tokio::time::sleep(PROOF_POLL).await;
    }
    Ok(())
}

fn state_key(args: &QueryArgs) -> Result<Vec<u8>, NodeError> {
    let key = if args.hex {
        hex::decode(args.key.trim_start_matches("0x"))
            .map_err(|error| NodeError::new(Exit::Usage, format!("the key is {:?}: must be hex digits: {error}", args.key)))?
    } else {
        args.key.clone().into_bytes()
    };
    Ok([args.prefix.as_bytes(), &key].concat())
}

fn tell(args: &QueryArgs, answer: &VerifiedValue, genesis: &Genesis) {
    match &answer.value {
        Some(value) => say(readable(value)),
        None => say(format!("{} has no value", args.key)),
    }
    let signers = &answer.header.signers;
    let names: Vec<String> = signers.validators.iter().map(|address| name_of(genesis, *address)).collect();
    say(format!(
        "VERIFIED  state after height {}, proven by the header of height {} of chain {}",
        answer.height, answer.header.header.height, genesis.chain_id
    ));
    say(format!("signed by {} of {} power: {}", signers.power, signers.total, names.join(", ")));
}

fn json(args: &QueryArgs, answer: &VerifiedValue, genesis: &Genesis) -> String {
    let signers = &answer.header.signers;
    serde_json::json!({
        "verified": true,
        "key": args.key,
        "exists": answer.value.is_some(),
        "value": answer.value.as_deref().map(readable),
        "value_hex": answer.value.as_deref().map(hex::encode),
        "height": answer.height,
        "header_height": answer.header.header.height,
        "header_hash": answer.header.hash.to_string(),
        "chain_id": genesis.chain_id,
        "signed_power": signers.power,
        "total_power": signers.total,
        "signers": signers.validators,
    })
    .to_string()
}

/// Text as text; anything that a terminal could take for a command, or that is no text, as hex.
fn readable(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("0x{}", hex::encode(value)),
    }
}

fn name_of(genesis: &Genesis, address: lockstep_types::Address) -> String {
    let validator = genesis.validators.iter().find(|validator| validator.public_key.address() == address);
    match validator.map(|validator| validator.name.as_str()) {
        None | Some("") => address.to_string(),
        Some(name) => format!("{name} ({address})"),
    }
}

fn unproven(error: &VerifyError) -> NodeError {
    let failed = NodeError::new(Exit::Unproven, format!("FAIL: {error}"));
    match error {
        VerifyError::Client(error) => client_error(error),
        VerifyError::Header { error: LightError::Expired, .. } => {
            failed.means("what is trusted is older than the trusting period, and keys of long ago may be stolen or sold").next(
                "start from a newer block that you know from a node of your own (lockstep status shows it): --trust-height HEIGHT \
                 --trust-hash HASH; or, if you know that no key was lost, lengthen the period: --trusting-period 720h",
            )
        }
        VerifyError::BelowRoot { .. } => {
            failed.means("the node has not come as far as the block that is trusted").next("ask again, or ask another --node")
        }
        VerifyError::NotYet { .. } => {
            failed.means("the chain stands still, or this node is behind").next("ask again, or ask another --node")
        }
        _ => failed.means("nothing that this node says of the key can be believed").next("ask another --node"),
    }
}
