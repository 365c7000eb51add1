//! The transactions of a load, the requests that carry them, and the answers.

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::Plan;
use crate::cli::Via;

/// Bytes at the start of a transaction that say which one it is: `b`, run, number, `=`.
const MARK_BYTES: usize = 18;
/// The mark in base64: whole groups of three bytes.
const MARK_BASE64: usize = MARK_BYTES / 3 * 4;
const _: () = assert!(MARK_BYTES.is_multiple_of(3));
/// Smallest transaction: the mark and some value.
pub(super) const TX_BYTES_MIN: usize = MARK_BYTES + 1;

/// Transaction `tx` of a run: a unique key, and a value that fills it up.
pub(super) fn transaction(run: u32, tx: u64, size: usize) -> Vec<u8> {
    let mut bytes = format!("b{run:08x}{tx:08x}=").into_bytes();
    bytes.resize(size.max(TX_BYTES_MIN), b'x');
    bytes
}

/// Which transaction of a run this is, from its base64; none for those of others.
pub(super) fn recognize(run: u32, base64: &str) -> Option<u64> {
    let mark = STANDARD.decode(base64.as_bytes().get(..MARK_BASE64)?).ok()?;
    let mark = std::str::from_utf8(&mark).ok()?;
    let number = mark.strip_prefix('b')?.strip_suffix('=')?.strip_prefix(&format!("{run:08x}"))?;
    u64::from_str_radix(number, 16).ok()
}

/// Writes the request that submits these transactions.
pub(super) fn write(body: &mut Vec<u8>, plan: &Plan, txs: Range<u64>) {
    let method = match plan.via {
        Via::Commit => "broadcast_tx_commit",
        Via::Sync => "broadcast_tx_sync",
        Via::Async => "broadcast_tx_async",
    };
    let many = txs.end - txs.start > 1;
    body.clear();
    if many {
        body.push(b'[');
    }
    for tx in txs.clone() {
        if tx > txs.start {
            body.push(b',');
        }
        let encoded = STANDARD.encode(transaction(plan.run, tx, plan.size));
        write!(body, r#"{{"jsonrpc":"2.0","id":{tx},"method":"{method}","params":{{"tx":"{encoded}"}}}}"#).expect("memory takes it");
    }
    if many {
        body.push(b']');
    }
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    result: Option<Taken<'a>>,
    #[serde(borrow)]
    error: Option<Failure<'a>>,
}

/// Of sync and async the code; of commit the two results.
#[derive(Deserialize)]
struct Taken<'a> {
    code: Option<u32>,
    #[serde(borrow, default)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    check_tx: Option<Code<'a>>,
    #[serde(borrow)]
    tx_result: Option<Code<'a>>,
}

#[derive(Deserialize)]
struct Code<'a> {
    code: u32,
    #[serde(borrow, default)]
    log: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow, default)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<Cow<'a, str>>,
}

/// What became of each transaction of a request, in order.
///
/// # Errors
/// When the answer as a whole is an error, or none that we understand.
pub(super) fn verdicts(answer: &[u8], via: Via, count: u64) -> Result<Vec<Result<(), String>>, String> {
    const STRANGE: &str = "the answer is not the JSON-RPC that was expected";
    let replies: Vec<Reply<'_>> = if answer.first() == Some(&b'[') {
        serde_json::from_slice(answer).map_err(|_| STRANGE)?
    } else {
        vec![serde_json::from_slice(answer).map_err(|_| STRANGE)?]
    };
    if u64::try_from(replies.len()) != Ok(count) {
        // A batch that is refused as a whole is answered by one error.
        let refused = replies.first().and_then(|reply| reply.error.as_ref());
        return Err(refused.map_or_else(|| STRANGE.to_owned(), kind_of));
    }
    replies.into_iter().map(|reply| verdict(&reply, via).ok_or_else(|| STRANGE.to_owned())).collect()
}

/// None when the reply has none of the members it must have.
fn verdict(reply: &Reply<'_>, via: Via) -> Option<Result<(), String>> {
    if let Some(error) = &reply.error {
        return Some(Err(kind_of(error)));
    }
    let taken = reply.result.as_ref()?;
    let steps = match via {
        Via::Commit => {
            let (check, result) = (taken.check_tx.as_ref()?, taken.tx_result.as_ref()?);
            vec![("check", check.code, &check.log), ("execution", result.code, &result.log)]
        }
        Via::Sync | Via::Async => vec![("check", taken.code?, &taken.log)],
    };
    let failed = steps.into_iter().find(|(_, code, _)| *code != 0);
    Some(failed.map_or(Ok(()), |(step, code, log)| Err(format!("{step} failed with code {code}: {log}"))))
}

/// The reason without the numbers in it, so that equal ones are counted together.
fn kind_of(error: &Failure<'_>) -> String {
    let reason = error.data.as_ref().unwrap_or(&error.message);
    let reason = reason.strip_prefix("error on broadcastTxCommit: ").unwrap_or(reason);
    reason.split_once(':').map_or(reason, |(kind, _)| kind).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use lockstep_app::kv::{self, KvTx};

    use super::*;

    #[test]
    fn transactions_are_unique_valid_and_recognized() {
        for (tx, size) in [(0, 40), (7, 256), (u64::from(u32::MAX), 1_000)] {
            let bytes = transaction(0xabcd, tx, size);
            assert_eq!(bytes.len(), size);
            assert!(matches!(kv::parse(&bytes), Ok(KvTx::Set { .. })), "the application takes it");
            let base64 = STANDARD.encode(&bytes);
            assert_eq!(recognize(0xabcd, &base64), Some(tx));
            assert_eq!(recognize(0xabce, &base64), None, "another run's");
        }
        for foreign in ["", "aGVsbG89d29ybGQ=", "!!!!!!!!!!!!!!!!!!!!!!!!!!!!"] {
            assert_eq!(recognize(0xabcd, foreign), None);
        }
    }

    #[test]
    fn answers_of_every_kind_are_told_apart() {
        let one = |answer: &str, via| verdicts(answer.as_bytes(), via, 1);
        let sync = r#"{"jsonrpc":"2.0","id":1,"result":{"code":0,"data":"","log":"","codespace":"","hash":"AB"}}"#;
        assert_eq!(one(sync, Via::Sync), Ok(vec![Ok(())]));
        let failed = r#"{"jsonrpc":"2.0","id":1,"result":{"code":2,"data":"","log":"no \"=\"","codespace":"","hash":"AB"}}"#;
        assert_eq!(one(failed, Via::Sync), Ok(vec![Err("check failed with code 2: no \"=\"".to_owned())]));
        let commit = r#"{"id":1,"result":{"check_tx":{"code":0,"log":""},"tx_result":{"code":0,"log":""},"hash":"AB","height":"5"}}"#;
        assert_eq!(one(commit, Via::Commit), Ok(vec![Ok(())]));
        let full = r#"{"id":1,"error":{"code":-32603,"message":"Internal error","data":"mempool is full: number of txs 5 (max: 5)"}}"#;
        assert_eq!(one(full, Via::Sync), Ok(vec![Err("mempool is full".to_owned())]));
        assert!(one(sync, Via::Commit).is_err(), "a commit has two results");
        assert!(one("{}", Via::Sync).is_err());
        assert!(one("<html>", Via::Sync).is_err());

        let many = format!("[{sync},{full}]");
        assert_eq!(verdicts(many.as_bytes(), Via::Sync, 2), Ok(vec![Ok(()), Err("mempool is full".to_owned())]));
        let refused = r#"{"error":{"code":-32600,"message":"Invalid Request","data":"batch of 200 requests, at most 100 are taken"}}"#;
        assert_eq!(verdicts(refused.as_bytes(), Via::Sync, 200), Err("batch of 200 requests, at most 100 are taken".to_owned()));
    }
}
