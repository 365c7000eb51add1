//! Which transactions of the node were read and found to be signed, found out once.
//!
//! What a transaction says does not change, and neither does whether its keys may enter a set and its signatures hold on this
//! chain: both are points of the curve to be computed, which costs a hundred times the rest of the judgement. What is kept,
//! and why that can change no answer, says `crate::verdicts`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lockstep_types::Hash;

use super::config::Config;
use super::tx::{NodeTx, NodeTxError};
use crate::node_tx::NODE_TXS_MAX;
use crate::verdicts::Verdicts;

/// Most transactions remembered: those of many full blocks, so that what was checked on arrival is known when its block is
/// executed. 32 bytes each, half a MiB in all.
pub(crate) const SIGNED_MAX: usize = 1 << 13;
const _: () = assert!(SIGNED_MAX >= 32 * NODE_TXS_MAX);

/// Those of one node, or of several in one process.
#[derive(Debug)]
pub(crate) struct Signed(Mutex<Verdicts>);

impl Default for Signed {
    fn default() -> Self {
        Self(Mutex::new(Verdicts::new(SIGNED_MAX)))
    }
}

/// A transaction that was read, and may still have to be verified.
pub(crate) struct Read {
    pub(crate) tx: NodeTx,
    /// Its name among those that were verified.
    id: Hash,
    is_signed: bool,
}

impl Signed {
    /// Reads a transaction: what of it can be judged without the chain, but for signatures.
    ///
    /// # Errors
    /// As for [`NodeTx::decode`].
    pub(crate) fn read(&self, bytes: &[u8], config: &Config) -> Result<Read, NodeTxError> {
        // Two parts of fixed length first: no two transactions of two chains have one name.
        let id = Hash::of_parts(&[&config.genesis_hash.0, &Hash::of(config.chain_id.as_str()).0, bytes]);
        let tx = NodeTx::parse(bytes)?;
        let is_signed = self.kept().hold(&id);
        if !is_signed {
            tx.check_fields()?;
        }
        Ok(Read { tx, id, is_signed })
    }

    /// Whether all its signatures hold on the chain for which it was read.
    ///
    /// # Errors
    /// As for [`NodeTx::verify`].
    pub(crate) fn verify(&self, read: &Read, config: &Config) -> Result<(), NodeTxError> {
        if !read.is_signed {
            read.tx.verify(&config.chain_id, &config.genesis_hash)?;
            self.kept().keep(read.id);
        }
        Ok(())
    }

    /// Nothing panics while it is locked; and if it did, every set of verdicts is a correct one.
    fn kept(&self) -> MutexGuard<'_, Verdicts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use lockstep_types::{ChainId, Height, PrivateKey, PublicKey};

    use super::super::config::split;
    use super::super::tx::{Checkpoint, RecentBlock};
    use super::*;

    fn config(chain_id: &str, genesis: u8) -> Config {
        let chain_id = ChainId::new(chain_id).expect("a chain id");
        let rules = split(r#"{"membership": {"admission": "open"}}"#, &chain_id, Hash([genesis; 32])).expect("rules");
        rules.0.expect("it asks for membership")
    }

    /// What a fresh memory and an old one say of some bytes.
    fn judged(signed: &Signed, bytes: &[u8], config: &Config) -> String {
        match signed.read(bytes, config) {
            Err(error) => error.to_string(),
            Ok(read) => signed.verify(&read, config).map_or_else(|error| error.to_string(), |()| "holds".to_owned()),
        }
    }

    #[test]
    fn whatever_is_remembered_the_answer_is_the_same() {
        let here = config("here", 1);
        let elsewhere = [config("here", 2), config("there", 1)];
        let key = PrivateKey::from_seed(&[3; 32]);
        let tx = |height: u64| {
            let recent = RecentBlock { height: Height::new(height).expect("a height"), hash: Hash([0; 32]) };
            let checkpoint = Checkpoint { signer: key.public_key(), recent, signature: lockstep_types::Signature([0; 64]) };
            NodeTx::Checkpoint(checkpoint).signed(&key, &here.chain_id, &here.genesis_hash).encode()
        };
        let signed = Signed::default();
        for height in 1..=20 {
            let bytes = tx(height);
            let mut forged = bytes.clone();
            *forged.last_mut().expect("a signature") ^= 1;
            for _ in 0..2 {
                for (bytes, config) in [(&bytes, &here), (&forged, &here), (&bytes, &elsewhere[0]), (&bytes, &elsewhere[1])] {
                    assert_eq!(judged(&signed, bytes, config), judged(&Signed::default(), bytes, config));
                }
            }
            assert_eq!(signed.kept().len() as u64, height, "what holds, once, and nothing else");
            assert!(signed.read(&bytes, &here).is_ok_and(|read| read.is_signed));
        }
        assert_eq!(judged(&signed, &tx(1), &here), "holds");
        assert!(judged(&signed, &tx(1), &elsewhere[0]).contains("does not hold"));
    }

    #[test]
    fn a_key_that_may_not_join_is_refused_however_often_it_asks() {
        let here = config("here", 1);
        let signed = Signed::default();
        let recent = RecentBlock { height: Height::FIRST, hash: Hash([0; 32]) };
        // The neutral element: what it signs, everybody can.
        let (mut weak, mut signature) = ([0; 32], [0; 64]);
        (weak[0], signature[0]) = (1, 1);
        let join = super::super::tx::Join {
            public_key: PublicKey(weak),
            power: lockstep_types::Power::new(1).expect("a power"),
            moniker: String::new(),
            addresses: Vec::new(),
            replaces: None,
            recent,
            signature: lockstep_types::Signature(signature),
            replaced_signature: None,
        };
        let bytes = NodeTx::Join(Box::new(join)).encode();
        for _ in 0..3 {
            assert!(judged(&signed, &bytes, &here).contains("weak"), "{}", judged(&signed, &bytes, &here));
        }
        assert_eq!(signed.kept().len(), 0);
    }
}
