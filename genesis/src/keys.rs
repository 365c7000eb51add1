//! Key files in CometBFT's JSON, and the signing state of a validator that comes from there.
//!
//! A key in a file is 64 bytes: the 32 secret ones and, behind them, the public key that grows from them. The two halves
//! are compared, since a file whose halves disagree would sign with one key and be known by another.

use lockstep_types::{Address, Height, PrivateKey, PublicKey, Round, Signature};
use zeroize::Zeroizing;

use crate::genesis::PUBLIC_KEY_TYPE;
use crate::json::{self, Field, FieldError};

/// Largest key or state file, in bytes: a state file holds the sign-bytes of one vote, which stay under 300.
pub const KEY_FILE_BYTES_MAX: usize = 64 << 10;

const PRIVATE_KEY_TYPE: &str = "tendermint/PrivKeyEd25519";

/// A validator's key from `priv_validator_key.json`.
///
/// # Errors
/// The first field that breaks a rule. Secrets are not repeated in it.
pub fn parse_validator_key(bytes: &[u8]) -> Result<PrivateKey, FieldError> {
    let mut object = Field::root(bytes, KEY_FILE_BYTES_MAX).map_err(without_text)?.object()?;
    let address = object.require("address", "must be the address of the key")?;
    let public = object.require("pub_key", "must be the public half of priv_key")?;
    let key = read_private_key(&object.require("priv_key", "must be the secret key")?)?;
    object.finish()?;
    if PublicKey(*json::read_typed(&public, PUBLIC_KEY_TYPE)?) != key.public_key() {
        return Err(public.fail(format!("must be {}, the public half of priv_key", json::base64(&key.public_key().0))));
    }
    if address.string()?.parse::<Address>() != Ok(key.public_key().address()) {
        return Err(address.fail(format!("must be {}, the address of pub_key", key.public_key().address())));
    }
    Ok(key)
}

/// `priv_validator_key.json`, as CometBFT writes it.
pub fn validator_key_json(key: &PrivateKey) -> Zeroizing<String> {
    let public = key.public_key();
    let minified = Zeroizing::new(json::object([
        ("address", json::text(&public.address().to_string())),
        ("pub_key", json::typed(PUBLIC_KEY_TYPE, &public.0)),
        ("priv_key", json::typed(PRIVATE_KEY_TYPE, &*both_halves(key))),
    ]));
    Zeroizing::new(json::pretty(&minified))
}

/// A node's key from `node_key.json`.
///
/// # Errors
/// The first field that breaks a rule. Secrets are not repeated in it.
pub fn parse_node_key(bytes: &[u8]) -> Result<PrivateKey, FieldError> {
    let mut object = Field::root(bytes, KEY_FILE_BYTES_MAX).map_err(without_text)?.object()?;
    let key = read_private_key(&object.require("priv_key", "must be the secret key")?)?;
    object.finish()?;
    Ok(key)
}

/// `node_key.json`, as CometBFT writes it: in one line.
pub fn node_key_json(key: &PrivateKey) -> Zeroizing<String> {
    Zeroizing::new(json::object([("priv_key", json::typed(PRIVATE_KEY_TYPE, &*both_halves(key)))]))
}

fn both_halves(key: &PrivateKey) -> Zeroizing<[u8; 64]> {
    let mut bytes = Zeroizing::new([0; 64]);
    bytes[..32].copy_from_slice(&*key.seed());
    bytes[32..].copy_from_slice(&key.public_key().0);
    bytes
}

fn read_private_key(field: &Field<'_>) -> Result<PrivateKey, FieldError> {
    let field = field.clone().secret();
    let bytes = json::read_typed::<64>(&field, PRIVATE_KEY_TYPE)?;
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&bytes[..32]);
    let key = PrivateKey::from_seed(&seed);
    if key.public_key().0 == bytes[32..] {
        Ok(key)
    } else {
        Err(field.fail("must end with the 32 bytes of the public key that grows from the first 32"))
    }
}

/// A file that is no JSON may hold a secret all the same; the reader's message repeats none of it but its kind and place.
fn without_text(error: FieldError) -> FieldError {
    FieldError { rule: format!("{} (a key file, as `lockstep keys` or CometBFT writes it)", error.rule), ..error }
}

/// What a validator signed last. The numbers are CometBFT's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SignStep {
    /// Nothing in this height and round.
    None = 0,
    /// A proposal.
    Propose = 1,
    /// A prevote.
    Prevote = 2,
    /// A precommit.
    Precommit = 3,
}

/// The state of a validator that moves here from CometBFT: its guard starts above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignState {
    /// Height of the last message; 0 for a validator that never signed.
    pub height: Height,
    /// Round of the last message.
    pub round: Round,
    /// Kind of the last message.
    pub step: SignStep,
    /// The last message and its signature, when the file kept them.
    pub signed: Option<Signed>,
}

/// A message and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The exact bytes that were signed.
    pub sign_bytes: Vec<u8>,
    /// Over them.
    pub signature: Signature,
}

/// The state from `priv_validator_state.json`.
///
/// # Errors
/// The first field that breaks a rule.
pub fn parse_sign_state(bytes: &[u8]) -> Result<SignState, FieldError> {
    let mut object = Field::root(bytes, KEY_FILE_BYTES_MAX)?.object()?;
    let height = object.require("height", "must be the height signed last")?;
    let round = object.require("round", "must be the round signed last")?;
    let step = object.require("step", "must be the step signed last")?;
    let signature = object.take("signature");
    let sign_bytes = object.take("signbytes");
    object.finish()?;
    let signed = match (&signature, &sign_bytes) {
        (None, None) => None,
        (Some(signature), Some(sign_bytes)) => Some(Signed { sign_bytes: sign_bytes.hex()?, signature: Signature(*signature.base64()?) }),
        (Some(signature), None) => return Err(signature.fail("must not stand without signbytes")),
        (None, Some(sign_bytes)) => return Err(sign_bytes.fail("must not stand without signature")),
    };
    let rule = "0 to 2^63 - 1";
    let state = SignState {
        height: height.integer(rule).map(Height::new)?.ok_or_else(|| height.fail(rule))?,
        round: round.integer("0 to 2^31 - 1").map(Round::new)?.ok_or_else(|| round.fail("must be 0 to 2^31 - 1"))?,
        step: match step.integer("0 to 3")? {
            0u8 => SignStep::None,
            1 => SignStep::Propose,
            2 => SignStep::Prevote,
            3 => SignStep::Precommit,
            _ => return Err(step.fail("must be 0 (nothing), 1 (proposal), 2 (prevote) or 3 (precommit)")),
        },
        signed,
    };
    if state.step == SignStep::None && state.signed.is_some() {
        return Err(step.fail("must name what was signed: a signature stands beside it"));
    }
    if state.step != SignStep::None && state.height == Height::ZERO {
        return Err(height.fail("must be at least 1 where something was signed"));
    }
    Ok(state)
}
