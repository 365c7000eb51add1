//! `lockstep status`

use std::time::Duration;

use lockstep_rpc::Client;
use lockstep_types::Power;
use tokio::time::timeout;

use super::{client_error, say};
use crate::cli::StatusArgs;
use crate::error::{Exit, NodeError};
use crate::http::{Connection, Endpoint};
use crate::metrics::HeldBack;

/// A node that just answered and takes longer for its metrics is shown without them.
const METRICS_WAIT: Duration = Duration::from_secs(3);

pub(super) async fn run(args: &StatusArgs) -> Result<(), NodeError> {
    let client = Client::new(args.nodes.urls.iter().cloned()).map_err(|error| client_error(&error))?;
    let status = client.status().await.map_err(|error| client_error(&error))?;
    if args.json {
        let json = serde_json::to_string(&status).map_err(|error| NodeError::new(Exit::Failed, error))?;
        say(json);
        return Ok(());
    }
    let (node, sync, validator) = (&status.node_info, &status.sync_info, &status.validator_info);
    say(format!("node        {} ({})", node.moniker, client.endpoint()));
    say(format!("node id     {}", node.id));
    say(format!("chain       {}", node.network));
    say(format!("height      {}", sync.latest_block_height));
    say(format!("block hash  {}", hex::encode_upper(&sync.latest_block_hash.0)));
    say(format!("block time  {}", sync.latest_block_time));
    say(format!("app hash    {}", hex::encode_upper(&sync.latest_app_hash.0)));
    say(format!("keeps from  {}", sync.earliest_block_height));
    say(format!("in step     {}", if sync.catching_up { "no: it catches up" } else { "yes" }));
    say(format!("validator   {} with power {}", validator.address, validator.voting_power));
    match held_back(client.endpoint()).await {
        _ if validator.voting_power == Power::ZERO => say("signs       no: it is not among the validators of this height"),
        Some(Some(why)) => say(format!("signs       NO: {}", why.meaning())),
        Some(None) => say("signs       yes"),
        // Another program, or a proxy that keeps the metrics to itself.
        None => {}
    }
    Ok(())
}

/// What the node says of its votes, if it says it soon.
async fn held_back(url: &str) -> Option<Option<HeldBack>> {
    let endpoint = Endpoint::parse(url).ok()?;
    let ask = async { Connection::open(&endpoint).await.ok()?.held_back().await };
    timeout(METRICS_WAIT, ask).await.ok().flatten()
}
