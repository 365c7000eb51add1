//! Accounts, and the one place that moves anything between them.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_types::Address;

use super::tx::Transfer;
use crate::changes::{Changes, View};

/// How the key of an account begins; its 20 bytes follow.
pub const ACCOUNT_PREFIX: &[u8] = b"token/";

/// The state key of an account: what `/store` proves.
pub fn account_key(address: &Address) -> Vec<u8> {
    [ACCOUNT_PREFIX, address.as_ref()].concat()
}

/// What the state knows of an address. One that it does not know has nothing and sent nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Account {
    /// What it has.
    pub balance: u64,
    /// How many transactions it sent: the nonce of its next one.
    pub nonce: u64,
}

impl Account {
    /// The bytes that stand in the state.
    pub(super) fn encode(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("writing to memory does not fail")
    }

    /// What the view says of an address, where it says anything.
    pub(super) fn load(view: &View, address: &Address) -> Option<Self> {
        let bytes = view.get(&account_key(address))?;
        Some(Self::try_from_slice(&bytes).expect("written by this application, and read under a certified root"))
    }
}

/// Why a transaction does not do what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It cannot be read, or a field breaks a rule.
    #[error("{0}")]
    Malformed(String),
    /// Its signature is not that of its key.
    #[error("the signature does not hold: another key signed, or for another chain, or a field was changed afterwards")]
    Signature,
    /// It offers too little.
    #[error("fee {fee}: at least {min} on this chain")]
    FeeTooLow {
        /// The fee offered.
        fee: u64,
        /// The least that genesis asks.
        min: u64,
    },
    /// The account sent one with this nonce before.
    #[error("nonce {nonce} was used before: the next one of this account is {next}")]
    NonceUsed {
        /// Of the transaction.
        nonce: u64,
        /// Of the account.
        next: u64,
    },
    /// Others of the account come before it.
    #[error("nonce {nonce} is ahead of its turn: the next one of this account is {next}")]
    NonceAhead {
        /// Of the transaction.
        nonce: u64,
        /// Of the account.
        next: u64,
    },
    /// The account has less than the fee.
    #[error("the fee is {fee}, and the account has {balance}")]
    FeeUnpaid {
        /// The fee offered.
        fee: u64,
        /// What there is.
        balance: u64,
    },
    /// The account has less than its payments take, the fee aside.
    #[error("the payments sum up to {total}, and the account has {balance} beside the fee")]
    Funds {
        /// Sum of the payments.
        total: u128,
        /// What there is after the fee.
        balance: u64,
    },
}

impl Refused {
    /// The code of results and verdicts. Frozen: codes are hashed.
    pub const fn code(&self) -> u32 {
        match self {
            Self::Malformed(_) => 1,
            Self::Signature => 2,
            Self::FeeTooLow { .. } => 3,
            Self::NonceUsed { .. } => 4,
            Self::NonceAhead { .. } => 5,
            Self::FeeUnpaid { .. } => 6,
            Self::Funds { .. } => 7,
        }
    }
}

/// An account as the block found it, and as it is by now.
#[derive(Debug, Clone, Copy)]
struct Slot {
    before: Option<Account>,
    now: Account,
}

/// The accounts that a block touches, read as they are needed. The sum of all balances never changes here: what one account
/// loses another gains, or lies in `fees` until it is collected.
pub(super) struct Ledger<'a> {
    view: &'a View,
    slots: BTreeMap<Address, Slot>,
    fees: u64,
}

impl<'a> Ledger<'a> {
    pub(super) const fn new(view: &'a View) -> Self {
        Self { view, slots: BTreeMap::new(), fees: 0 }
    }

    fn account(&mut self, address: Address) -> &mut Account {
        let view = self.view;
        let load = || {
            let before = Account::load(view, &address);
            Slot { before, now: before.unwrap_or_default() }
        };
        &mut self.slots.entry(address).or_insert_with(load).now
    }

    /// Whether a transaction may wait for its turn: its nonce is the next one or a little ahead, and as things stand its
    /// account can pay for everything. The next nonce of the account.
    pub(super) fn admit(&mut self, sender: Address, tx: &Transfer, ahead_max: u64) -> Result<u64, Refused> {
        let Account { balance, nonce: next } = *self.account(sender);
        let nonce = tx.nonce;
        if nonce < next {
            return Err(Refused::NonceUsed { nonce, next });
        }
        if nonce - next > ahead_max {
            return Err(Refused::NonceAhead { nonce, next });
        }
        let Some(rest) = balance.checked_sub(tx.fee) else { return Err(Refused::FeeUnpaid { fee: tx.fee, balance }) };
        let total = tx.total();
        if total > u128::from(rest) { Err(Refused::Funds { total, balance: rest }) } else { Ok(next) }
    }

    /// A transaction takes its turn: it uses its nonce and pays its fee. Refused, it does neither.
    pub(super) fn charge(&mut self, sender: Address, tx: &Transfer) -> Result<(), Refused> {
        let account = self.account(sender);
        let (nonce, next) = (tx.nonce, account.nonce);
        if nonce < next {
            return Err(Refused::NonceUsed { nonce, next });
        }
        if nonce > next {
            return Err(Refused::NonceAhead { nonce, next });
        }
        let Some(rest) = account.balance.checked_sub(tx.fee) else {
            return Err(Refused::FeeUnpaid { fee: tx.fee, balance: account.balance });
        };
        account.balance = rest;
        account.nonce = next + 1; // A nonce is below the largest number: `Transfer::decode`.
        self.fees += tx.fee; // All balances together are bounded by the supply.
        Ok(())
    }

    /// A transaction that was charged makes its payments, or none of them.
    pub(super) fn pay(&mut self, sender: Address, tx: &Transfer) -> Result<(), Refused> {
        let account = self.account(sender);
        let total = tx.total();
        let rest = u64::try_from(total).ok().and_then(|total| account.balance.checked_sub(total));
        account.balance = rest.ok_or(Refused::Funds { total, balance: account.balance })?;
        for payment in &tx.payments {
            self.account(payment.to).balance += payment.amount; // Bounded by the supply.
        }
        Ok(())
    }

    /// Pays the fees of the block to their collector.
    pub(super) fn collect(&mut self, collector: Address) {
        let fees = std::mem::take(&mut self.fees);
        if fees > 0 {
            self.account(collector).balance += fees; // Bounded by the supply.
        }
    }

    /// What the block changed.
    pub(super) fn into_changes(self) -> Changes {
        assert!(self.fees == 0, "fees are collected before a block ends");
        let mut changes = Changes::new();
        for (address, slot) in self.slots {
            if slot.before.unwrap_or_default() != slot.now {
                changes.set(account_key(&address), slot.now.encode());
            }
        }
        changes
    }
}
