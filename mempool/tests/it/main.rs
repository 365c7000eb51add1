//! The mempool from outside: its rules as stories, and any sequence of calls against a naive model.

mod gossip;
mod model;
mod order;
mod refusals;

use std::sync::Arc;

use lockstep_mempool::{CheckVerdict, Limits, Mempool, Origin, Refused, Settled};
use lockstep_types::Hash;

/// A transaction of `len` bytes that no other `id` has.
fn tx(id: u64, len: usize) -> Arc<[u8]> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.resize(len.max(8), 0);
    bytes.into()
}

/// A verdict that passes, of nobody.
fn pass(priority: i64) -> CheckVerdict {
    CheckVerdict { priority, ..CheckVerdict::default() }
}

/// A verdict that passes, of `sender`, with a nonce of which the application knows whether it is the next.
fn nonce(sender: &str, nonce: u64, next: Option<u64>, priority: i64) -> CheckVerdict {
    CheckVerdict { sender: sender.into(), nonce: Some(nonce), next_nonce: next, ..pass(priority) }
}

/// Submits and settles at once.
fn submit(pool: &mut Mempool, bytes: Arc<[u8]>, verdict: &CheckVerdict) -> Result<(Hash, Settled), Refused> {
    let hash = pool.begin(bytes, Origin::Client)?;
    let settled = pool.settle(hash, verdict);
    pool.assert_invariants();
    Ok((hash, settled))
}

/// Submits what is added without anybody leaving.
fn add(pool: &mut Mempool, id: u64, verdict: &CheckVerdict) -> Hash {
    let (hash, settled) = submit(pool, tx(id, 8), verdict).expect("there is room");
    assert_eq!(settled, Settled::Added { removed: vec![] });
    hash
}

/// The ids of what a block would hold, in order.
fn reaped(pool: &Mempool) -> Vec<u64> {
    pool.reap(usize::MAX, -1, usize::MAX).iter().map(|tx| id_of(&tx.bytes)).collect()
}

fn id_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"))
}

fn small() -> Limits {
    Limits {
        max_txs: 4,
        max_bytes: 64,
        max_tx_bytes: 32,
        max_sender_txs: 4,
        max_sender_bytes: 64,
        max_checking_txs: 4,
        max_checking_bytes: 64,
        cache_size: 4,
        ..Limits::default()
    }
}
