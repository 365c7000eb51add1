//! The genesis of a chain.

use std::ops::Deref;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::primitives::TOTAL_POWER_MAX;
use lockstep_types::text::is_hidden;
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{AppHash, ChainId, ConsensusParams, Hash, Height, Power, PublicKey, Time, ValidatorSet, ValidatorUpdate};

use crate::json::{self, Field, FieldError};
use crate::params;

/// Largest genesis file, in bytes. It is read whole, and its `app_state` is held in memory while the application starts.
pub const GENESIS_BYTES_MAX: usize = 256 << 20;
/// How deep lists and objects of `app_state` may stand in each other: readers of JSON recurse, and stop at this depth.
pub const APP_STATE_DEPTH_MAX: usize = 127;
/// Longest name of a validator, in bytes. It is for people.
pub const NAME_BYTES_MAX: usize = 128;
/// What the genesis hash begins with, so that it is a hash of nothing else.
pub const HASH_DOMAIN: &[u8; 16] = b"lockstep/genesis";
/// Version of the bytes that are hashed.
pub const HASH_VERSION: u8 = 1;

/// Key type of validators in files.
pub(crate) const PUBLIC_KEY_TYPE: &str = "tendermint/PubKeyEd25519";

/// The last second of 1970-01-01T00:00:00Z. Clients read the epoch as "no time".
const TIME_MIN_SECONDS: i64 = 0;
/// 2200-01-01T00:00:00Z. Block times go on from here, and clients count 64-bit nanoseconds, which end in 2262.
const TIME_END_SECONDS: i64 = 7_258_118_400;

/// One of the first validators.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GenesisValidator {
    /// The key it signs with. The address is derived from it.
    pub public_key: PublicKey,
    /// Voting power, above zero.
    pub power: Power,
    /// For people, at most [`NAME_BYTES_MAX`] bytes; may be empty.
    pub name: String,
}

/// The members of a genesis before anybody has checked them. [`GenesisDraft::check`] makes a [`Genesis`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenesisDraft {
    /// Time of the first block, or earlier: no block is older.
    pub genesis_time: Time,
    /// The chain's name.
    pub chain_id: ChainId,
    /// Parameters that all nodes share.
    pub consensus_params: ConsensusParams,
    /// Validators of the first height, in the order of the file. 1 to [`VALIDATORS_MAX`].
    pub validators: Vec<GenesisValidator>,
    /// Root of the application's first state, when the author of the genesis knew it: empty or 32 bytes. Whoever starts
    /// the application compares it with the root that comes out.
    pub app_hash: AppHash,
    /// The application's first state: one JSON value, as text. Only the application understands it.
    pub app_state: String,
}

/// A genesis that keeps every rule. Its members are read through [`Deref`]; nobody can change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis(GenesisDraft);

impl Deref for Genesis {
    type Target = GenesisDraft;

    fn deref(&self) -> &GenesisDraft {
        &self.0
    }
}

impl GenesisDraft {
    /// The genesis, when every rule is kept. White space in `app_state` that means nothing is gone from it.
    ///
    /// # Errors
    /// The first rule that is broken, with field and value.
    pub fn check(mut self) -> Result<Genesis, FieldError> {
        let seconds = self.genesis_time.seconds();
        if (seconds, self.genesis_time.nanos()) <= (TIME_MIN_SECONDS, 0) || seconds >= TIME_END_SECONDS {
            let rule = "must lie after 1970-01-01T00:00:00Z, which clients read as \"no time\", and before the year 2200";
            return Err(FieldError::new("genesis_time", self.genesis_time, rule));
        }
        params::check(&self.consensus_params)?;
        self.check_validators()?;
        if !matches!(self.app_hash.as_bytes().len(), 0 | Hash::LEN) {
            return Err(FieldError::new("app_hash", &self.app_hash, "must be empty, or the 32 bytes of the first state's root"));
        }
        self.app_state = canonical_app_state(&self.app_state)?;
        Ok(Genesis(self))
    }

    fn check_validators(&self) -> Result<(), FieldError> {
        let count = self.validators.len();
        if !(1..=VALIDATORS_MAX).contains(&count) {
            let rule = format!("must have 1 to {VALIDATORS_MAX} elements");
            return Err(FieldError::new("validators", format!("a list of {count}"), rule));
        }
        let mut total = 0;
        for (place, validator) in self.validators.iter().enumerate() {
            let path = |member: &str| format!("validators[{place}].{member}");
            validator.public_key.check().map_err(|error| {
                FieldError::new(path("pub_key.value"), validator.public_key, format!("is no key to sign with: {error}"))
            })?;
            if let Some(twin) = self.validators[..place].iter().position(|earlier| earlier.public_key == validator.public_key) {
                let rule = format!("must not be the key of validators[{twin}] too: one key is one validator");
                return Err(FieldError::new(path("pub_key.value"), validator.public_key, rule));
            }
            if validator.power == Power::ZERO {
                return Err(FieldError::new(path("power"), validator.power, "must be at least 1: who has no power is no validator"));
            }
            // Each is at most an eighth of 2^63: with 512 of them the sum still fits.
            total += u128::from(validator.power.get());
            if total > u128::from(TOTAL_POWER_MAX) {
                let rule = format!("must keep the sum of all powers, here {total}, at most {TOTAL_POWER_MAX}");
                return Err(FieldError::new(path("power"), validator.power, rule));
            }
            if validator.name.len() > NAME_BYTES_MAX || validator.name.chars().any(is_hidden) {
                let rule = format!("must be at most {NAME_BYTES_MAX} bytes, without control characters and such as cannot be seen");
                return Err(FieldError::new(path("name"), json::text(&validator.name), rule));
            }
        }
        Ok(())
    }
}

/// One JSON value, not nested too deep, without insignificant white space.
fn canonical_app_state(text: &str) -> Result<String, FieldError> {
    let field = Field::root(text.as_bytes(), GENESIS_BYTES_MAX).map_err(|error| FieldError { field: "app_state".into(), ..error })?;
    // The reader above took one whole value and refused anything after it.
    let depth = json::depth(field.text());
    if depth > APP_STATE_DEPTH_MAX {
        return Err(FieldError::new(
            "app_state",
            format!("nested {depth} deep"),
            format!("must be nested at most {APP_STATE_DEPTH_MAX} deep"),
        ));
    }
    // To CometBFT `null` is the same as nothing, and nothing is the empty object.
    Ok(if field.text() == "null" { "{}".to_owned() } else { json::minify(field.text()) })
}

/// The bytes behind domain and version that the genesis hash covers. Frozen: `docs/format-genesis.md`.
#[derive(BorshSerialize)]
struct Preimage<'a> {
    genesis_time: Time,
    chain_id: &'a ChainId,
    initial_height: Height,
    consensus_params: &'a ConsensusParams,
    validators: &'a [GenesisValidator],
    app_hash: &'a AppHash,
    app_state: &'a str,
}

impl Genesis {
    /// A genesis from a file, CometBFT 0.38's or ours. Members that CometBFT writes and a file leaves out are filled in
    /// here, once; members that neither writes are refused by name.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn parse(bytes: &[u8]) -> Result<Self, FieldError> {
        let mut object = Field::root(bytes, GENESIS_BYTES_MAX)?.object()?;
        let time = object.require("genesis_time", "must be a time like 2026-01-02T03:04:05Z: all nodes start from the same")?;
        let chain_id = object.require("chain_id", "must name the chain")?;
        if let Some(height) = object.take("initial_height") {
            // CometBFT writes 0 where nothing was said.
            let number: u64 = height.integer("1")?;
            if number > 1 {
                return Err(height.fail("must be 1: a chain starts at its first height"));
            }
        }
        let params = object.take("consensus_params");
        let validators = object.require("validators", "must list the first validators")?;
        let app_hash = object.take("app_hash");
        let app_state = object.take("app_state");
        object.finish()?;
        let draft = GenesisDraft {
            genesis_time: time.string()?.parse().map_err(|error| time.fail(format!("must be a time in RFC 3339: {error}")))?,
            chain_id: ChainId::new(&chain_id.string()?).map_err(|error| chain_id.fail(format!("must be a chain id: {error}")))?,
            consensus_params: params::read(params.as_ref())?,
            validators: validators.list()?.iter().map(read_validator).collect::<Result<_, _>>()?,
            app_hash: app_hash.as_ref().map_or_else(|| Ok(AppHash::default()), read_app_hash)?,
            app_state: app_state.map_or_else(|| "{}".to_owned(), |field| field.text().to_owned()),
        };
        draft.check()
    }

    /// The genesis as a file, every member written out, in CometBFT's order and layout. [`Genesis::parse`] gives the same
    /// genesis back.
    pub fn to_json(&self) -> String {
        json::pretty(&self.to_minified_json())
    }

    /// The same JSON in one line, as RPC answers carry it.
    pub fn to_minified_json(&self) -> String {
        let validators = self.validators.iter().map(|validator| {
            json::object([
                ("address", json::text(&validator.public_key.address().to_string())),
                ("pub_key", json::typed(PUBLIC_KEY_TYPE, &validator.public_key.0)),
                ("power", json::number(validator.power)),
                ("name", json::text(&validator.name)),
            ])
        });
        json::object([
            ("genesis_time", json::text(&self.genesis_time.to_string())),
            ("chain_id", json::text(self.chain_id.as_str())),
            ("initial_height", json::number(self.initial_height())),
            ("consensus_params", params::to_json(&self.consensus_params)),
            ("validators", json::list(validators)),
            ("app_hash", json::text(&self.app_hash.to_string())),
            ("app_state", self.app_state.clone()),
        ])
    }

    /// The first height. Always 1.
    pub fn initial_height(&self) -> Height {
        Height::FIRST
    }

    /// The genesis hash: what a node proves to its peers, and what its vote guard is bound to. It covers the parsed
    /// genesis, so files that differ in layout, order of members or spelled-out defaults are one genesis.
    pub fn hash(&self) -> Hash {
        let preimage = Preimage {
            genesis_time: self.genesis_time,
            chain_id: &self.chain_id,
            initial_height: self.initial_height(),
            consensus_params: &self.consensus_params,
            validators: &self.validators,
            app_hash: &self.app_hash,
            app_state: &self.app_state,
        };
        let bytes = borsh::to_vec(&preimage).expect("writing to memory does not fail");
        Hash::of_parts(&[HASH_DOMAIN, &[HASH_VERSION], &bytes])
    }

    /// The validator set of the first height.
    pub fn validator_set(&self) -> ValidatorSet {
        let members: Vec<ValidatorUpdate> =
            self.validators.iter().map(|validator| ValidatorUpdate { public_key: validator.public_key, power: validator.power }).collect();
        ValidatorSet::new(&members).expect("a checked genesis has a valid set")
    }
}

fn read_validator(field: &Field<'_>) -> Result<GenesisValidator, FieldError> {
    let mut object = field.object()?;
    let address = object.take("address");
    let key = object.require("pub_key", "must be {\"type\":\"tendermint/PubKeyEd25519\",\"value\":base64}")?;
    let public_key = PublicKey(*json::read_typed(&key, PUBLIC_KEY_TYPE)?);
    let power = object.require("power", "must be at least 1")?;
    let number: u64 = power.integer(&format!("1 to {TOTAL_POWER_MAX}"))?;
    let name = object.take("name").map_or_else(|| Ok(String::new()), |field| field.string())?;
    object.finish()?;
    if let Some(address) = address {
        let text = address.string()?;
        let derived = public_key.address();
        if !text.is_empty() && text.parse() != Ok(derived) {
            return Err(address.fail(format!("must be {derived}, the address of the key beside it, or left out")));
        }
    }
    Ok(GenesisValidator {
        public_key,
        power: Power::new(number).ok_or_else(|| power.fail(format!("must be 1 to {TOTAL_POWER_MAX}")))?,
        name,
    })
}

fn read_app_hash(field: &Field<'_>) -> Result<AppHash, FieldError> {
    AppHash::from_bytes(&field.hex()?).ok_or_else(|| field.fail("must be empty, or the 32 bytes of the first state's root"))
}
