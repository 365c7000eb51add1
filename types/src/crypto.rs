//! Keys, and the one verdict on signatures.
//!
//! A signature that is valid on one node and invalid on another forks the chain, so one rule decides everywhere: ZIP-215,
//! the rule Tendermint uses, as `ed25519-zebra` implements it. [`verify`] asks it once, [`verify_batch`] asks it for many
//! at a lower price; both give the same answers, which tests hold over crafted torsion signatures. `ed25519-dalek` holds
//! secret keys and signs; it never verifies anything that consensus reads, because its strict, plain and batch rules
//! differ among themselves.

use std::fmt;
use std::io::{Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::Signer as _;
use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng as _;
use sha2::{Digest as _, Sha512};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::primitives::{Address, Hash};

/// An ed25519 public key, as bytes. Whether the bytes are a key that may enter a validator set is asked with
/// [`PublicKey::check`]; a signature under bytes that are no key is simply invalid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PublicKey(pub [u8; 32]);

/// Why a key may not enter a validator set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not a point of the curve.
    #[error("the 32 bytes are not a point of the curve")]
    NotAPoint,
    /// Another spelling of a point: two keys would then be one validator.
    #[error("the 32 bytes are not the canonical spelling of their point")]
    NonCanonical,
    /// A point of small order: a signature under it is valid for almost every message.
    #[error("the key is weak: a point of small order, under which anybody can sign")]
    Weak,
}

impl PublicKey {
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The validator address: the first 20 bytes of SHA-256 of the key.
    pub fn address(&self) -> Address {
        Address::of_key_bytes(&self.0)
    }

    /// Whether the key may enter a validator set: canonical and not weak.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn check(&self) -> Result<(), KeyError> {
        let point = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| KeyError::NotAPoint)?;
        if !is_canonical(&self.0) {
            return Err(KeyError::NonCanonical);
        }
        if point.is_weak() { Err(KeyError::Weak) } else { Ok(()) }
    }
}

/// Whether the point's encoding is the one that RFC 8032 (5.1.2) gives it: y below the field prime p = 2^255 - 19, and no sign
/// where x is 0, which it is at y = 1 and y = p - 1 alone. The library accepts other spellings, as ZIP-215 wants for signatures.
/// Told from the bytes: to encode the point again would cost as much as to decode it, and every start checks every key.
fn is_canonical(key: &[u8; 32]) -> bool {
    let (low, middle, high, negative) = (key[0], &key[1..31], key[31] & 0x7f, key[31] & 0x80 != 0);
    if high == 0x7f && middle.iter().all(|byte| *byte == 0xff) {
        return low < 0xec || (low == 0xec && !negative);
    }
    let is_one = low == 1 && high == 0 && middle.iter().all(|byte| *byte == 0);
    !(is_one && negative)
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(&self.0[..4]))
    }
}

/// An ed25519 signature, as bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

impl BorshSerialize for Signature {
    fn serialize<W: Write>(&self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(&self.0)
    }
}

impl BorshDeserialize for Signature {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let mut bytes = [0; 64];
        reader.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(&self.0[..4]))
    }
}

/// A secret key. Its bytes are wiped when it is dropped, and it does not show itself.
pub struct PrivateKey(ed25519_dalek::SigningKey);

impl PrivateKey {
    /// The key that grows from 32 secret bytes (RFC 8032).
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The secret bytes, for a key file.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs. The same bytes always give the same signature (RFC 8032), so a restart re-signs what the guard kept.
    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public_key())
    }
}

/// One question to the verdict: did this key sign this message?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureCheck {
    /// Whose signature it is said to be.
    pub public_key: PublicKey,
    /// What is said to be signed.
    pub message: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

/// The verdict: ZIP-215.
pub fn verify(public_key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    VerificationKey::try_from(public_key.0).is_ok_and(|key| key.verify(&ed25519_zebra::Signature::from(signature.0), message).is_ok())
}

/// Below this many signatures a batch costs more than it saves (`limits.md` 3.1).
const BATCH_MIN: usize = 4;

/// The same verdict for many, in the order asked. A batch that holds is valid signature by signature; one that does not is
/// asked one by one. The coefficients come from a hash of the whole batch, so that nobody can choose signatures against
/// coefficients they know, and the run is repeatable.
pub fn verify_batch(checks: &[SignatureCheck]) -> Vec<bool> {
    if checks.len() >= BATCH_MIN && batch_holds(checks) {
        return vec![true; checks.len()];
    }
    checks.iter().map(|check| verify(&check.public_key, &check.message, &check.signature)).collect()
}

fn batch_holds(checks: &[SignatureCheck]) -> bool {
    let mut transcript = Sha512::new();
    let mut verifier = batch::Verifier::new();
    transcript.update(b"lockstep batch v1");
    for check in checks {
        transcript.update(check.public_key.0);
        transcript.update(check.signature.0);
        transcript.update(Hash::of(&check.message).0);
        verifier.queue((VerificationKeyBytes::from(check.public_key.0), ed25519_zebra::Signature::from(check.signature.0), &check.message));
    }
    let digest = transcript.finalize();
    let mut seed = [0; 32];
    seed.copy_from_slice(&digest[..32]);
    verifier.verify(ChaCha20Rng::from_seed(seed)).is_ok()
}
