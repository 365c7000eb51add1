//! Signatures: real ones, each made and judged once, or hashes that stand for them.
//!
//! In one process every node asks the same questions, and the curve would take most of a run's time. A signature depends on
//! nothing but key and message (RFC 8032), and a verdict on nothing but key, message and signature, so the first answer is the
//! answer. The program's own verdict gives it.
//!
//! Most seeds have hashes of key and message instead. Nothing but the verdict looks into a signature, and whoever has none of
//! this program's liars' keys does not make one: the world signs for them, each with its own.

use std::collections::BTreeMap;

use lockstep_types::crypto::{SignatureCheck, verify};
use lockstep_types::{Hash, PrivateKey, PublicKey, Signature};

/// What was answered before.
#[derive(Debug)]
pub(crate) struct Crypto {
    is_real: bool,
    verdicts: BTreeMap<Hash, bool>,
    signatures: BTreeMap<Hash, Signature>,
}

impl Crypto {
    /// Signatures of the curve, or what stands for them.
    pub(crate) fn new(is_real: bool) -> Self {
        Self { is_real, verdicts: BTreeMap::new(), signatures: BTreeMap::new() }
    }

    /// As the program's batch would say, of which single = batch is shown elsewhere.
    pub(crate) fn verify(&mut self, checks: &[SignatureCheck]) -> Vec<bool> {
        checks.iter().map(|check| self.verdict(check)).collect()
    }

    fn verdict(&mut self, check: &SignatureCheck) -> bool {
        if !self.is_real {
            return check.signature == stand_in(&check.public_key, &check.message);
        }
        // Fixed lengths first: no two questions have one encoding.
        let question = Hash::of_parts(&[&check.public_key.0, &check.signature.0, &check.message]);
        *self.verdicts.entry(question).or_insert_with(|| verify(&check.public_key, &check.message, &check.signature))
    }

    /// As a key signs.
    pub(crate) fn sign(&mut self, key: &PrivateKey, message: &[u8]) -> Signature {
        if !self.is_real {
            return stand_in(&key.public_key(), message);
        }
        let question = Hash::of_parts(&[&key.public_key().0, message]);
        *self.signatures.entry(question).or_insert_with(|| key.sign(message))
    }
}

/// A hash in the place of a signature.
fn stand_in(key: &PublicKey, message: &[u8]) -> Signature {
    let mut signature = Signature([0; 64]);
    signature.0[..32].copy_from_slice(&Hash::of_parts(&[b"stands for a signature", &key.0, message]).0);
    signature
}
