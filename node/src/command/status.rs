//! `lockstep status`

use lockstep_rpc::Client;

use super::{client_error, say};
use crate::cli::StatusArgs;
use crate::error::{Exit, NodeError};

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
    say(format!("block time  {}", sync.latest_block_time));
    say(format!("app hash    {}", hex::encode_upper(&sync.latest_app_hash.0)));
    say(format!("keeps from  {}", sync.earliest_block_height));
    say(format!("in step     {}", if sync.catching_up { "no: it catches up" } else { "yes" }));
    say(format!("validator   {} with power {}", validator.address, validator.voting_power));
    Ok(())
}
