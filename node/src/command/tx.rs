//! `lockstep tx`

use std::path::Path;

use lockstep_rpc::Client;
use lockstep_rpc::client::ClientError;
use lockstep_types::Hash;
use lockstep_types::block::BODY_BYTES_MAX;

use super::status::has_nobody_to_ask;
use super::{SILENCE_MAX, client_error, is_no_rpc, note, said_after, say};
use crate::cli::{TxArgs, Wait};
use crate::error::{Exit, NodeError};
use crate::home::read_bounded;

/// What fits every request by default: rpc.body_bytes, less a third for base64 and what surrounds it.
const LARGE_TX_BYTES: usize = 700_000;

pub(super) async fn run(args: &TxArgs) -> Result<(), NodeError> {
    let tx = transaction(args)?;
    let client = Client::new(args.nodes.urls.iter().cloned()).map_err(|error| client_error(&error))?;
    send(&client, &tx, args.wait).await
}

/// Sends a transaction and says what became of it.
pub(super) async fn send(client: &Client, tx: &[u8], wait: Wait) -> Result<(), NodeError> {
    let hash = Hash::of(tx);
    match wait {
        Wait::Check => {
            let answer = client.broadcast_tx_sync(tx).await.map_err(|error| broadcast_error(&error, &hash, client, tx.len()))?;
            refuse_code("its check", answer.code, &answer.log)?;
            say(format!("accepted   {hash}"));
            say(format!("by         {}", client.endpoint()));
        }
        Wait::Commit => {
            let waits = async {
                note(format!("handed to {}; waiting for a block that takes it in", client.endpoint()));
                if has_nobody_to_ask(client).await {
                    note("it has no peers so far, and the other validators are not reached through it: send to another --node, or wait");
                }
            };
            let answer = said_after(SILENCE_MAX, client.broadcast_tx_commit(tx), waits).await;
            let answer = answer.map_err(|error| broadcast_error(&error, &hash, client, tx.len()))?;
            refuse_code("its check", answer.check_tx.code, &answer.check_tx.log)?;
            refuse_code(&format!("its execution in block {}", answer.height), answer.tx_result.code, &answer.tx_result.log)?;
            say(format!("committed  {hash}"));
            say(format!("height     {}", answer.height));
            say(format!("by         {}", client.endpoint()));
        }
    }
    Ok(())
}

fn transaction(args: &TxArgs) -> Result<Vec<u8>, NodeError> {
    match (&args.text, &args.hex, &args.file) {
        (Some(text), _, _) => Ok(text.clone().into_bytes()),
        (_, Some(digits), _) => hex::decode(digits.trim_start_matches("0x"))
            .map_err(|error| NodeError::new(Exit::Usage, format!("--hex is {digits:?}: must be hex digits, two for each byte: {error}"))),
        (_, _, Some(path)) => read_bounded(Path::new(path), BODY_BYTES_MAX),
        (None, None, None) => {
            Err(NodeError::new(Exit::Usage, "no transaction is given").next("lockstep tx key=value, or --hex BYTES, or --file FILE"))
        }
    }
}

fn refuse_code(what: &str, code: u32, log: &str) -> Result<(), NodeError> {
    if code == 0 {
        return Ok(());
    }
    let reason = if log.is_empty() { String::new() } else { format!(": {log}") };
    Err(NodeError::new(Exit::TxRefused, format!("the transaction failed {what} with code {code}{reason}")))
}

/// A line to paste that asks what became of a transaction.
fn ask_for(client: &Client, hash: &Hash) -> String {
    format!("curl '{}/tx?hash=0x{hash}'", client.endpoint().trim_end_matches('/'))
}

fn broadcast_error(error: &ClientError, hash: &Hash, client: &Client, bytes: usize) -> NodeError {
    if matches!(error, ClientError::Unreachable(failures) if is_no_rpc(failures)) && bytes > LARGE_TX_BYTES {
        return NodeError::new(Exit::TxRefused, error)
            .means(format!("a transaction of {bytes} bytes, a third longer in base64, may be larger than any request that the node takes"))
            .next("make it smaller, or raise rpc.body_bytes of the node (1000000 by default)");
    }
    let reason = error.reason().unwrap_or_default();
    let refused = || NodeError::new(Exit::TxRefused, error);
    if reason.contains("timed out waiting") {
        return refused()
            .means("the node has the transaction, and it may still be committed")
            .next(format!("ask for it later: {}   (do not send another in its place meanwhile)", ask_for(client, hash)));
    }
    if reason.contains("the node is stopping") {
        return refused()
            .means("whether the transaction is committed is not known")
            .next(format!("ask for it when the node runs again, or another node: {}", ask_for(client, hash)));
    }
    if reason.contains("already exists in cache") {
        return refused()
            .means("the same bytes were sent before, and are waiting or committed")
            .next("change the transaction to send it again");
    }
    if reason.contains("mempool is full") {
        return refused().means("more arrives than the network commits").next("send it again in a moment");
    }
    if error.reason().is_some() { refused() } else { client_error(error) }
}
