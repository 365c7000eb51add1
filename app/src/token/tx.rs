//! The transaction of the token application: bytes, and what is signed.
//!
//! `01 3D 3A`, borsh of the fields, the signature last. The first byte is the version, and never zero, which is how
//! transactions of the node begin ([`crate::node_tx::NODE_TX_PREFIX`]); `=` and `:` behind it are both separators of the
//! key-value application, whose transactions hold exactly one. So no byte string is a transaction of two of the three.
//!
//! Signed is the domain of the type (`lockstep_types::domain`, tag `AppTransaction`), which names chain and genesis, and
//! then every byte before the signature: what is signed is what travels, without a second encoding.

use std::io::Read;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::block::BODY_BYTES_MAX;
use lockstep_types::codec;
use lockstep_types::domain::{self, Tag};
use lockstep_types::{Address, ChainId, Hash, PrivateKey, PublicKey, Signature};

use crate::changes::CHANGES_MAX;

/// How every transaction of this application begins: the version, then `=` and `:`.
pub const TOKEN_TX_PREFIX: [u8; 3] = [0x01, b'=', b':'];

/// Most payments of a transfer: enough for a payroll in few transactions, little enough that one of them costs no more than
/// a handful of others.
pub const PAYMENTS_MAX: usize = 16;

/// Longest memo, bytes: room for the reference that an exchange or a shop asks for.
pub const MEMO_BYTES_MAX: usize = 128;

const PAYMENT_BYTES: usize = Address::LEN + 8;
const SIGNATURE_BYTES: usize = 64;
/// Prefix, key, nonce, fee, count of payments, length of the memo, signature.
const FIXED_BYTES: usize = TOKEN_TX_PREFIX.len() + 32 + 8 + 8 + 4 + 4 + SIGNATURE_BYTES;

/// Longest transaction.
pub const TOKEN_TX_BYTES_MAX: usize = FIXED_BYTES + PAYMENTS_MAX * PAYMENT_BYTES + MEMO_BYTES_MAX;

// The fullest body of transactions, with as many payments for their bytes as there can be, and the collector of fees: no
// block reaches the bound on changes, which would halt the chain.
const _: () = assert!((BODY_BYTES_MAX / (FIXED_BYTES + PAYMENTS_MAX * PAYMENT_BYTES) + 1) * (PAYMENTS_MAX + 1) < CHANGES_MAX);

/// Gas of a signature, where one entry of the state costs one: measured, a signature in a batch takes three to four times as
/// long as an entry takes to change and hash.
const SIGNATURE_GAS: i64 = 4;

/// An amount, and who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Payment {
    /// Whose balance grows. It need not exist.
    pub to: Address,
    /// By how much; at least 1.
    pub amount: u64,
}

/// A transaction: its signer pays.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize)]
pub struct Transfer {
    /// Whose account pays: the one at the key's address.
    pub public_key: PublicKey,
    /// How many transactions this account sent before. Below 2^64 - 1.
    pub nonce: u64,
    /// What is paid for taking it into a block, whatever becomes of the payments.
    pub fee: u64,
    /// All of them are made, or none; 1 to 16.
    pub payments: Vec<Payment>,
    /// Anything; at most 128 bytes.
    pub memo: Vec<u8>,
    /// By `public_key`.
    pub signature: Signature,
}

impl BorshDeserialize for Transfer {
    fn deserialize_reader<R: Read>(reader: &mut R) -> std::io::Result<Self> {
        let (public_key, nonce, fee) = <(PublicKey, u64, u64)>::deserialize_reader(reader)?;
        let payments = codec::read_list(reader, PAYMENTS_MAX)?;
        let memo = codec::read_bytes(reader, MEMO_BYTES_MAX)?;
        let signature = Signature::deserialize_reader(reader)?;
        Ok(Self { public_key, nonce, fee, payments, memo, signature })
    }
}

impl Transfer {
    /// Who pays.
    pub fn sender(&self) -> Address {
        self.public_key.address()
    }

    /// The sum of all payments.
    pub fn total(&self) -> u128 {
        self.payments.iter().map(|payment| u128::from(payment.amount)).sum()
    }

    /// Gas that it takes, from its form alone: its signature, its sender, and one for each payment.
    pub fn gas(&self) -> i64 {
        SIGNATURE_GAS + 1 + i64::try_from(self.payments.len()).expect("at most 16")
    }

    /// The bytes of a transaction.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.payments.len() * PAYMENT_BYTES + self.memo.len());
        bytes.extend_from_slice(&TOKEN_TX_PREFIX);
        self.serialize(&mut bytes).expect("writing to memory does not fail");
        bytes
    }

    /// From a transaction's bytes: every rule that needs no state, but for the signature. Each transfer has one encoding.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > TOKEN_TX_BYTES_MAX {
            return Err(format!("{} bytes, a transfer has at most {TOKEN_TX_BYTES_MAX}", bytes.len()));
        }
        let Some(body) = bytes.strip_prefix(&TOKEN_TX_PREFIX) else {
            return Err("a transfer begins with 01 3D 3A, and this is something else".to_owned());
        };
        let transfer = Self::try_from_slice(body).map_err(|error| format!("a transfer that cannot be read: {error}"))?;
        transfer.check()?;
        Ok(transfer)
    }

    fn check(&self) -> Result<(), String> {
        if self.payments.is_empty() {
            return Err(format!("payments is empty: a transfer has 1 to {PAYMENTS_MAX}"));
        }
        if let Some(at) = self.payments.iter().position(|payment| payment.amount == 0) {
            return Err(format!("payments[{at}].amount is 0: at least 1"));
        }
        if self.nonce == u64::MAX {
            return Err(format!("nonce is {}: below it, so that every nonce has a next one", u64::MAX));
        }
        Ok(())
    }

    /// Signs as the sender, with its key, for this chain alone.
    #[must_use]
    pub fn signed(mut self, key: &PrivateKey, chain_id: &ChainId, genesis_hash: &Hash) -> Self {
        let mut message = domain::begin(Tag::AppTransaction, chain_id, genesis_hash);
        let bytes = self.encode();
        message.extend_from_slice(unsigned(&bytes));
        self.signature = key.sign(&message);
        self
    }
}

/// The bytes of a transfer that its signature covers, behind the domain.
pub(super) fn unsigned(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() - SIGNATURE_BYTES]
}
