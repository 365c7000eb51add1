//! `lockstep query`: an answer that is proven, or FAIL.

use std::time::{Duration, Instant};

use lockstep_genesis::Genesis;
use lockstep_rpc::Client;
use lockstep_rpc::client::ClientError;
use lockstep_rpc::client::verify::{LightClient, TrustRoot, VerifiedValue, VerifyError};
use lockstep_types::light::LightError;
use lockstep_types::{Hash, Header, Height};

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
            home.check_exists().map_err(|error| error.means("the proof starts from the validators of a genesis that you trust"))?;
            home.read_genesis()?
        }
    };
    let window = Duration::from_nanos(genesis.consensus_params.evidence.max_age_duration_ns);
    let trusting = args.trusting_period.unwrap_or(window);
    let root =
        TrustRoot::genesis(genesis.chain_id.clone(), genesis.genesis_time, genesis.initial_height(), genesis.validator_set(), trusting);
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
    let mut client = LightClient::new(client, root);
    let answer = client.query(&key).await.map_err(|error| unproven(&error))?;
    if args.json {
        say(json(args, &answer, &genesis))
    } else {
        tell(args, &answer, &genesis)
    }
    Ok(())
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
        VerifyError::Header { error: LightError::Expired, .. } => failed
            .means("the genesis is older than the trusting period, and keys of long ago may be stolen or sold")
            .next("if you know that they are not, lengthen it: --trusting-period 720h"),
        VerifyError::NotYet { .. } => {
            failed.means("the chain stands still, or this node is behind").next("ask again, or ask another --node")
        }
        _ => failed.means("nothing that this node says of the key can be believed").next("ask another --node"),
    }
}
