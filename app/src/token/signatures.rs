//! Which signatures hold, found out once.
//!
//! A transaction's signature is verified when the node first meets it, in a batch where several are asked together, and the
//! verdict is kept under a hash of everything that it depends on: domain, transaction and signature. What is kept, and why that
//! can change no answer, says `crate::verdicts`. Chains that share an instance share nothing else.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lockstep_types::Hash;
use lockstep_types::crypto::{self, SignatureCheck};

use super::tx::{Transfer, unsigned};
use crate::verdicts;

/// Signatures that are verified together: beyond it the price of one hardly falls, and where one of them does not hold all
/// are verified alone.
pub(super) const BATCH_MAX: usize = 1024;

/// Most verdicts kept: more than twice what a mempool holds by default (50,000), so that what was checked on arrival is
/// known when its block is executed. 32 bytes each, 6 to 8 MiB in all.
pub const VERDICTS_MAX: usize = 1 << 17;

/// What the verdicts cost so far. For tests and metrics: no answer depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Signatures verified.
    pub verified: u64,
    /// Signatures that were known to hold.
    pub known: u64,
    /// Verdicts kept now; at most [`VERDICTS_MAX`].
    pub kept: usize,
}

/// The verdicts of one node. See the module.
#[derive(Debug)]
pub(super) struct Verdicts(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    verdicts: verdicts::Verdicts,
    verified: u64,
    known: u64,
}

impl Kept {
    fn holds(&mut self, id: &Hash) -> bool {
        let known = self.verdicts.hold(id);
        self.known += u64::from(known);
        known
    }
}

impl Verdicts {
    /// Keeps at most this many; at least two.
    pub(super) const fn new(max: usize) -> Self {
        Self(Mutex::new(Kept { verdicts: verdicts::Verdicts::new(max), verified: 0, known: 0 }))
    }

    /// Whether the signatures of these hold: each with its bytes, in the domain of the chain.
    pub(super) fn judge(&self, domain: &[u8], txs: &[(&Transfer, &[u8])]) -> Vec<bool> {
        let ids: Vec<Hash> = txs.iter().map(|(_, bytes)| Hash::of_parts(&[domain, bytes])).collect();
        let mut verdicts: Vec<bool> = {
            let mut kept = self.kept();
            ids.iter().map(|id| kept.holds(id)).collect()
        };
        // Verified without the lock: whoever has few to ask does not wait for whoever has many.
        let open: Vec<usize> = (0..txs.len()).filter(|at| !verdicts[*at]).collect();
        for chunk in open.chunks(BATCH_MAX) {
            let checks: Vec<SignatureCheck> = chunk.iter().map(|at| check(domain, txs[*at].0, txs[*at].1)).collect();
            let answers = crypto::verify_batch(&checks);
            let mut kept = self.kept();
            kept.verified += chunk.len() as u64;
            for (at, holds) in chunk.iter().zip(answers) {
                verdicts[*at] = holds;
                if holds {
                    kept.verdicts.keep(ids[*at]);
                }
            }
        }
        verdicts
    }

    pub(super) fn effort(&self) -> Effort {
        let kept = self.kept();
        Effort { verified: kept.verified, known: kept.known, kept: kept.verdicts.len() }
    }

    /// Nothing panics while it is locked; and if it did, every set of verdicts is a correct one.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(domain: &[u8], tx: &Transfer, bytes: &[u8]) -> SignatureCheck {
    SignatureCheck { public_key: tx.public_key, message: [domain, unsigned(bytes)].concat(), signature: tx.signature }
}

#[cfg(test)]
mod tests {
    use lockstep_types::domain::{self, Tag};
    use lockstep_types::{Address, ChainId, PrivateKey, Signature};

    use super::super::tx::Payment;
    use super::*;

    const DOMAIN_HASH: Hash = Hash([7; 32]);

    fn transfer(nonce: u64) -> Transfer {
        let key = PrivateKey::from_seed(&[1; 32]);
        let payments = vec![Payment { to: Address([2; 20]), amount: 1 }];
        let unsigned = Transfer { public_key: key.public_key(), nonce, fee: 1, payments, memo: Vec::new(), signature: Signature([0; 64]) };
        unsigned.signed(&key, &ChainId::new("test").expect("a chain id"), &DOMAIN_HASH)
    }

    #[test]
    fn whatever_is_kept_or_forgotten_the_answer_is_the_same() {
        const MAX: usize = 10;
        let verdicts = Verdicts::new(MAX);
        let domain = domain::begin(Tag::AppTransaction, &ChainId::new("test").expect("a chain id"), &DOMAIN_HASH);
        let elsewhere = domain::begin(Tag::AppTransaction, &ChainId::new("tests").expect("a chain id"), &DOMAIN_HASH);
        let txs: Vec<Transfer> = (0..60)
            .map(|nonce| {
                let mut tx = transfer(nonce);
                tx.signature.0[40] ^= u8::from(nonce % 7 == 3);
                tx
            })
            .collect();
        // Forwards in batches of several sizes, then some again, out of order: known, forgotten, and never kept.
        let order = (0..60usize).flat_map(|at| [at, at.saturating_sub(4)]).chain((0..120).map(|step| step * 37 % 60));
        let (mut asked, mut size, order) = (0, 1, order.collect::<Vec<_>>());
        let mut rest = &order[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(size.min(rest.len()));
            let bytes: Vec<Vec<u8>> = now.iter().map(|at| txs[*at].encode()).collect();
            let list: Vec<(&Transfer, &[u8])> = now.iter().zip(&bytes).map(|(at, bytes)| (&txs[*at], &bytes[..])).collect();
            let expected: Vec<bool> = now.iter().map(|at| at % 7 != 3).collect();
            assert_eq!(verdicts.judge(&domain, &list), expected);
            assert_eq!(verdicts.judge(&elsewhere, &list), vec![false; now.len()], "signed for another chain");
            let effort = verdicts.effort();
            assert!(effort.kept <= MAX, "{} verdicts kept", effort.kept);
            asked += 2 * now.len() as u64;
            assert_eq!(effort.verified + effort.known, asked);
            (rest, size) = (later, size % 9 + 1);
        }
        assert!(verdicts.effort().known > 0, "some were known");
    }
}
