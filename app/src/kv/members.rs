//! The validator records of the key-value application, and the one list of updates per block that every set takes.
//!
//! The records hold the newest set: what every block so far made of the validators of genesis. A block's updates are made
//! by changing the records first (misbehaviour, then transactions, in order) under rules that keep every state of them a
//! valid set, and then listing the differences. So the list names each key once, removes nobody unknown, and leaves a set
//! that is neither empty nor too large (`encoding.md` section 10), whatever the transactions say.

use std::collections::BTreeSet;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::validators::VALIDATORS_MAX;
use lockstep_types::{Address, Power, ValidatorUpdate};

use crate::changes::{Draft, View};

/// Key of [`Totals`].
const TOTALS_KEY: &[u8] = b"kv:validators";
/// Where the record of an address stands.
const RECORD_PREFIX: &[u8] = b"kv:validator/";

/// Of all records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Totals {
    count: u32,
    power: u64,
}

fn record_key(address: &Address) -> Vec<u8> {
    [RECORD_PREFIX, address.as_ref()].concat()
}

fn decode<T: BorshDeserialize>(bytes: &[u8]) -> T {
    T::try_from_slice(bytes).expect("written by this application, and read under a certified root")
}

fn encode<T: BorshSerialize>(value: &T) -> Vec<u8> {
    borsh::to_vec(value).expect("writing to memory does not fail")
}

/// The record of a validator.
pub(super) fn record(view: &View, address: &Address) -> Option<ValidatorUpdate> {
    view.get(&record_key(address)).map(|bytes| decode(&bytes))
}

/// The records while a block changes them.
pub(super) struct Members {
    totals: Totals,
    touched: BTreeSet<Address>,
}

impl Members {
    pub(super) fn load(draft: &Draft<'_>) -> Self {
        Self { totals: draft.get(TOTALS_KEY).map(|bytes| decode(&bytes)).unwrap_or_default(), touched: BTreeSet::new() }
    }

    /// A transaction, or genesis, gives a validator a power.
    pub(super) fn set(&mut self, draft: &mut Draft<'_>, update: ValidatorUpdate) -> Result<(), String> {
        let address = update.public_key.address();
        let old = self.get(draft, &address);
        let mut totals = self.totals;
        match old {
            None if update.power == Power::ZERO => return Err("no such validator to remove".to_owned()),
            None if totals.count as usize >= VALIDATORS_MAX => return Err(format!("a set has at most {VALIDATORS_MAX} validators")),
            None => totals.count += 1,
            Some(_) if update.power == Power::ZERO && totals.count == 1 => return Err("the last validator stays".to_owned()),
            Some(_) if update.power == Power::ZERO => totals.count -= 1,
            Some(_) => {}
        }
        totals.power = totals.power - old.map_or(0, |old| old.power.get()) + update.power.get();
        if totals.power > Power::MAX.get() {
            return Err(format!("the power of all validators would be {}, at most {} may exist", totals.power, Power::MAX));
        }
        self.totals = totals;
        self.touched.insert(address);
        match update.power {
            Power::ZERO => draft.delete(record_key(&address)),
            _ => draft.set(record_key(&address), encode(&update)),
        }
        draft.set(TOTALS_KEY, encode(&totals));
        Ok(())
    }

    /// Proven misbehaviour removes a validator, unless it is unknown (removed before) or the only one.
    pub(super) fn remove_culprit(&mut self, draft: &mut Draft<'_>, address: &Address) {
        if let Some(record) = self.get(draft, address).filter(|_| self.totals.count > 1) {
            self.set(draft, ValidatorUpdate { power: Power::ZERO, ..record }).expect("a known validator that is not the last can go");
        }
    }

    fn get(&self, draft: &Draft<'_>, address: &Address) -> Option<ValidatorUpdate> {
        draft.get(&record_key(address)).map(|bytes| decode(&bytes))
    }

    /// What the block did, as updates in address order.
    pub(super) fn updates(&self, view: &View, draft: &Draft<'_>) -> Vec<ValidatorUpdate> {
        let update = |address: &Address| match (record(view, address), self.get(draft, address)) {
            (before, after) if before == after => None,
            (_, Some(after)) => Some(after),
            (before, None) => before.map(|before| ValidatorUpdate { power: Power::ZERO, ..before }),
        };
        self.touched.iter().filter_map(update).collect()
    }
}
