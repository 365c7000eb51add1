//! Validator sets: order, hash, proposer rotation and updates (`encoding.md` sections 5 and 10).
//!
//! Rotation is a pure function of the chain. Each validator gains its power at every step, the highest priority proposes
//! and pays the total, so over time everybody proposes in proportion to power. Two rules keep it a function of the chain
//! alone, where CometBFT's depends on what a node walked through: the proposer of round r is found by *one* call on the
//! height's set, and the set of a height is never derived by one large call.

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::abci::ValidatorUpdate;
use crate::codec;
use crate::crypto::{KeyError, PublicKey};
use crate::merkle;
use crate::planted::{self, Bug};
use crate::primitives::{Address, Hash, Power, Round, TOTAL_POWER_MAX, ValidatorIndex};
use crate::proto::Message;

/// Most validators of a set. A commit of that many still fits one network frame, so certificates are never cut.
pub const VALIDATORS_MAX: usize = 512;

/// A validator in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validator {
    /// The key it signs with.
    pub public_key: PublicKey,
    /// Derived from the key.
    pub address: Address,
    /// Voting power, above zero.
    pub power: Power,
    /// Proposer priority. Not hashed.
    pub priority: i64,
}

impl Validator {
    /// A validator with priority 0.
    pub fn new(public_key: PublicKey, power: Power) -> Self {
        Self { public_key, address: public_key.address(), power, priority: 0 }
    }

    /// The key message: field 1 is ed25519.
    fn key_proto(&self) -> Message {
        Message::new().bytes(1, &self.public_key.0)
    }

    /// The leaf that is hashed: `msg(1, key) + int(2, power)`.
    pub fn leaf(&self) -> Vec<u8> {
        Message::new().msg(1, &self.key_proto()).uint(2, self.power.get()).finish()
    }

    /// `bytes(1, address) + msg(2, key) + int(3, power) + int(4, priority)`, as evidence carries it.
    pub fn to_proto(&self) -> Message {
        Message::new().bytes(1, &self.address.0).msg(2, &self.key_proto()).uint(3, self.power.get()).int(4, self.priority)
    }
}

impl BorshSerialize for Validator {
    fn serialize<W: std::io::Write>(&self, writer: &mut W) -> std::io::Result<()> {
        // The address is derived, so it does not travel.
        (self.public_key, self.power, self.priority).serialize(writer)
    }
}

impl BorshDeserialize for Validator {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let (public_key, power, priority) = <(PublicKey, Power, i64)>::deserialize_reader(reader)?;
        Ok(Self { public_key, address: public_key.address(), power, priority })
    }
}

/// A set of validators: by power descending, then by address ascending. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct ValidatorSet {
    validators: Vec<Validator>,
    /// Winner of the last increment: the proposer of round 0.
    proposer: ValidatorIndex,
}

/// Why a list of validators or updates is refused. An application that returns such a list has a fatal error, the same
/// on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UpdateError {
    /// The same key twice in one list.
    #[error("validator {0} appears twice")]
    Duplicate(Address),
    /// Removal of somebody who is not in the set.
    #[error("validator {0} is to be removed but is not in the set")]
    UnknownRemoval(Address),
    /// Nobody would be left.
    #[error("no validator would be left")]
    Empty,
    /// A member without power.
    #[error("validator {0} has no power")]
    NoPower(Address),
    /// More power than may exist.
    #[error("the total power would exceed {TOTAL_POWER_MAX}")]
    TotalPower,
    /// More validators than a set may have.
    #[error("{0} validators, at most {VALIDATORS_MAX} are allowed")]
    TooMany(usize),
    /// A key that may not enter a set.
    #[error("validator {address}: {error}")]
    Key {
        /// Address of the key.
        address: Address,
        /// What is wrong with it.
        error: KeyError,
    },
}

impl ValidatorSet {
    /// A set from its first members: priorities from the update rule on an empty set, then one increment.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub fn new(members: &[ValidatorUpdate]) -> Result<Self, UpdateError> {
        let mut set = Self { validators: Vec::new(), proposer: ValidatorIndex::ZERO };
        set.update(members)?;
        set.increment(1);
        Ok(set)
    }

    /// A set with given priorities, as light blocks and snapshots carry it; sorted here. The proposer is given by its
    /// place in the sorted set.
    ///
    /// # Errors
    /// See [`UpdateError`].
    pub fn from_validators(mut validators: Vec<Validator>, proposer: ValidatorIndex) -> Result<Self, UpdateError> {
        validators.sort_by(set_order);
        let set = Self { validators, proposer };
        set.check()?;
        Ok(set)
    }

    /// What every set satisfies, whoever made it.
    fn check(&self) -> Result<(), UpdateError> {
        if self.validators.is_empty() || self.proposer.index() >= self.validators.len() {
            return Err(UpdateError::Empty);
        }
        if self.validators.len() > VALIDATORS_MAX {
            return Err(UpdateError::TooMany(self.validators.len()));
        }
        let mut addresses: Vec<Address> = self.validators.iter().map(|validator| validator.address).collect();
        addresses.sort_unstable();
        if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(UpdateError::Duplicate(pair[0]));
        }
        if let Some(idle) = self.validators.iter().find(|validator| validator.power == Power::ZERO) {
            return Err(UpdateError::NoPower(idle.address));
        }
        let total: u128 = self.validators.iter().map(|validator| u128::from(validator.power.get())).sum();
        if total > u128::from(TOTAL_POWER_MAX) { Err(UpdateError::TotalPower) } else { Ok(()) }
    }

    /// Number of validators, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.validators.len()
    }

    /// The validators in set order.
    pub fn iter(&self) -> std::slice::Iter<'_, Validator> {
        self.validators.iter()
    }

    /// The validator at a place.
    pub fn get(&self, index: ValidatorIndex) -> Option<&Validator> {
        self.validators.get(index.index())
    }

    /// The place of an address.
    pub fn index_of(&self, address: &Address) -> Option<ValidatorIndex> {
        self.validators.iter().position(|validator| validator.address == *address).map(ValidatorIndex::from_position)
    }

    /// Sum of all powers.
    pub fn total_power(&self) -> Power {
        Power::new(self.validators.iter().map(|validator| validator.power.get()).sum()).expect("checked when the set was made")
    }

    /// Merkle root over keys and powers. Priorities are not hashed.
    pub fn hash(&self) -> Hash {
        let leaves: Vec<Vec<u8>> = self.validators.iter().map(Validator::leaf).collect();
        merkle::root(&leaves)
    }

    /// The set as evidence carries it; the total is always written as zero, hence absent.
    pub fn to_proto(&self) -> Message {
        let message = self.validators.iter().fold(Message::new(), |message, validator| message.msg(1, &validator.to_proto()));
        message.msg(2, &self.validators[self.proposer.index()].to_proto())
    }

    /// The proposer of a round of this height: the winner of the last increment for round 0, of one call of
    /// `increment(r)` on a copy for a later one.
    ///
    /// The cost grows with the round: r steps over the set. Callers bound the round before they ask about one that a peer
    /// named; a round that was really entered took its timeouts to reach.
    pub fn proposer(&self, round: Round) -> ValidatorIndex {
        if round == Round::ZERO {
            return self.proposer;
        }
        let mut copy = self.clone();
        copy.increment(round.get() + u32::from(planted::has(Bug::RoundAheadByOne)));
        copy.proposer
    }

    /// The rotation of `encoding.md` section 10: scale and centre once, then `times` steps.
    ///
    /// # Panics
    /// For zero times.
    pub fn increment(&mut self, times: u32) {
        assert!(times > 0, "an increment has at least one step");
        self.scale_and_centre();
        let total = i64::try_from(self.total_power().get()).expect("bounded far below 2^63");
        for _ in 0..times {
            for validator in &mut self.validators {
                validator.priority = validator.priority.saturating_add(power_of(validator));
            }
            let winner = (0..self.validators.len())
                .max_by(|a, b| {
                    let (a, b) = (&self.validators[*a], &self.validators[*b]);
                    let tie = if planted::has(Bug::TieToHigherAddress) { a.address.cmp(&b.address) } else { b.address.cmp(&a.address) };
                    a.priority.cmp(&b.priority).then(tie)
                })
                .expect("a set is never empty");
            let paid = &mut self.validators[winner].priority;
            *paid = paid.saturating_sub(total);
            self.proposer = ValidatorIndex::from_position(winner);
        }
    }

    fn scale_and_centre(&mut self) {
        let window = 2 * i128::from(self.total_power().get());
        let priorities = || self.validators.iter().map(|validator| i128::from(validator.priority));
        let spread = priorities().max().unwrap_or(0) - priorities().min().unwrap_or(0);
        if spread > window {
            let ratio = i64::try_from((spread + window - 1) / window).expect("a spread of i64 values over at least 2");
            // Rust divides toward zero, as the rule wants.
            self.validators.iter_mut().for_each(|validator| validator.priority /= ratio);
        }
        let sum: i128 = self.validators.iter().map(|validator| i128::from(validator.priority)).sum();
        let count = i128::try_from(self.validators.len()).expect("bounded");
        let average = i64::try_from(sum.div_euclid(count)).expect("an average of i64 values");
        self.validators.iter_mut().for_each(|validator| validator.priority = validator.priority.saturating_sub(average));
    }

    /// Applies updates (`encoding.md` section 10): all or none. The order of the list does not matter. The caller
    /// increments afterwards.
    ///
    /// # Errors
    /// See [`UpdateError`]; the set is then unchanged.
    pub fn update(&mut self, updates: &[ValidatorUpdate]) -> Result<(), UpdateError> {
        if updates.is_empty() {
            return if self.validators.is_empty() { Err(UpdateError::Empty) } else { Ok(()) };
        }
        let mut changes: Vec<Validator> = updates.iter().map(|update| Validator::new(update.public_key, update.power)).collect();
        changes.sort_by_key(|change| change.address);
        if let Some(pair) = changes.windows(2).find(|pair| pair[0].address == pair[1].address) {
            return Err(UpdateError::Duplicate(pair[0].address));
        }
        for change in &changes {
            let known = self.validators.iter().any(|validator| validator.address == change.address);
            if change.power == Power::ZERO && !known {
                return Err(UpdateError::UnknownRemoval(change.address));
            }
            change.public_key.check().map_err(|error| UpdateError::Key { address: change.address, error })?;
        }
        let after_additions = self.check_totals(&changes)?;
        let start = after_additions + (after_additions >> 3);

        let mut next = self.clone();
        for change in changes {
            let place = next.validators.iter().position(|validator| validator.address == change.address);
            match place {
                Some(place) if change.power == Power::ZERO => {
                    next.validators.remove(place);
                }
                Some(place) => next.validators[place].power = change.power,
                None => next.validators.push(Validator { priority: -start, ..change }),
            }
        }
        if next.validators.is_empty() {
            return Err(UpdateError::Empty);
        }
        if next.validators.len() > VALIDATORS_MAX {
            return Err(UpdateError::TooMany(next.validators.len()));
        }
        next.scale_and_centre();
        next.validators.sort_by(set_order);
        // The proposer is the winner of the last increment: every caller makes one before anybody asks.
        next.proposer = ValidatorIndex::ZERO;
        *self = next;
        Ok(())
    }

    /// The total after additions and changes but before removals, from which newcomers' priorities start. The running
    /// total, after removals and with the deltas added in ascending order, never exceeds the bound.
    fn check_totals(&self, changes: &[Validator]) -> Result<i64, UpdateError> {
        let old_power = |change: &Validator| {
            self.validators
                .iter()
                .find(|validator| validator.address == change.address)
                .map_or(0, |validator| i128::from(validator.power.get()))
        };
        let old_total: i128 = self.validators.iter().map(|validator| i128::from(validator.power.get())).sum();
        let removed: i128 = changes.iter().filter(|change| change.power == Power::ZERO).map(old_power).sum();
        let mut deltas: Vec<i128> = changes
            .iter()
            .filter(|change| change.power != Power::ZERO)
            .map(|change| i128::from(change.power.get()) - old_power(change))
            .collect();
        deltas.sort_unstable();
        let mut running = old_total - removed;
        for delta in deltas {
            running += delta;
            if running > i128::from(TOTAL_POWER_MAX) {
                return Err(UpdateError::TotalPower);
            }
        }
        Ok(i64::try_from(running + removed).expect("at most twice the bound, which is an eighth of 2^63"))
    }
}

impl<'a> IntoIterator for &'a ValidatorSet {
    type Item = &'a Validator;
    type IntoIter = std::slice::Iter<'a, Validator>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl BorshDeserialize for ValidatorSet {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let validators: Vec<Validator> = codec::read_list(reader, VALIDATORS_MAX)?;
        let proposer = ValidatorIndex::deserialize_reader(reader)?;
        let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
        if validators.windows(2).any(|pair| set_order(&pair[0], &pair[1]) != std::cmp::Ordering::Less) {
            return Err(invalid("validators out of order".into()));
        }
        let set = Self { validators, proposer };
        set.check().map_err(|error| invalid(error.to_string()))?;
        Ok(set)
    }
}

fn set_order(a: &Validator, b: &Validator) -> std::cmp::Ordering {
    b.power.cmp(&a.power).then(a.address.cmp(&b.address))
}

fn power_of(validator: &Validator) -> i64 {
    i64::try_from(validator.power.get()).expect("bounded far below 2^63")
}
