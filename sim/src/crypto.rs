//! Signatures, each made and judged once.
//!
//! In one process every node asks the same questions, and the curve would take most of a run's time. A signature depends on
//! nothing but key and message (RFC 8032), and a verdict on nothing but key, message and signature, so the first answer is the
//! answer. The program's own verdict gives it.

use std::collections::BTreeMap;

use lockstep_types::crypto::{SignatureCheck, verify};
use lockstep_types::{Hash, PrivateKey, Signature};

/// What was answered before.
#[derive(Debug, Default)]
pub(crate) struct Crypto {
    verdicts: BTreeMap<Hash, bool>,
    signatures: BTreeMap<Hash, Signature>,
}

impl Crypto {
    /// As the program's batch would say, of which single = batch is shown elsewhere.
    pub(crate) fn verify(&mut self, checks: &[SignatureCheck]) -> Vec<bool> {
        checks.iter().map(|check| self.verdict(check)).collect()
    }

    fn verdict(&mut self, check: &SignatureCheck) -> bool {
        // Fixed lengths first: no two questions have one encoding.
        let question = Hash::of_parts(&[&check.public_key.0, &check.signature.0, &check.message]);
        *self.verdicts.entry(question).or_insert_with(|| verify(&check.public_key, &check.message, &check.signature))
    }

    pub(crate) fn sign(&mut self, key: &PrivateKey, message: &[u8]) -> Signature {
        let question = Hash::of_parts(&[&key.public_key().0, message]);
        *self.signatures.entry(question).or_insert_with(|| key.sign(message))
    }
}
