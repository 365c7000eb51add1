//! What an application answers about blocks and transactions, in the words of ABCI.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::crypto::PublicKey;
use crate::merkle;
use crate::primitives::{Hash, Power};
use crate::proto::Message;

/// The result of executing one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TxResult {
    /// 0 for success; everything else is the application's.
    pub code: u32,
    /// Output. Hashed.
    pub data: Vec<u8>,
    /// For people; not hashed, so it may differ between versions.
    pub log: String,
    /// For people; not hashed.
    pub info: String,
    /// Gas asked for. Hashed.
    pub gas_wanted: i64,
    /// Gas used. Hashed.
    pub gas_used: i64,
    /// What happened, for indexes and subscribers; not hashed.
    pub events: Vec<Event>,
    /// Namespace of `code`; not hashed.
    pub codespace: String,
}

impl TxResult {
    /// The leaf that is hashed: `int(1, code) + bytes(2, data) + int(5, gas_wanted) + int(6, gas_used)`.
    pub fn leaf(&self) -> Vec<u8> {
        Message::new().int(1, i64::from(self.code)).bytes(2, &self.data).int(5, self.gas_wanted).int(6, self.gas_used).finish()
    }
}

/// `last_results_hash` of the header after these results.
pub fn results_hash(results: &[TxResult]) -> Hash {
    let leaves: Vec<Vec<u8>> = results.iter().map(TxResult::leaf).collect();
    merkle::root(&leaves)
}

/// Something that happened while a transaction or block was executed.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Event {
    /// Kind, as in `transfer`.
    pub kind: String,
    /// In the application's order.
    pub attributes: Vec<EventAttribute>,
}

/// A key and a value of an event.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EventAttribute {
    /// Never empty: clients refuse an empty key.
    pub key: String,
    /// The value, as text.
    pub value: String,
    /// Whether searches find it.
    pub index: bool,
}

/// A change of the validator set, as an application asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct ValidatorUpdate {
    /// Whose power changes.
    pub public_key: PublicKey,
    /// The new power; zero removes.
    pub power: Power,
}
