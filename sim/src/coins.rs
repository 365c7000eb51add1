//! The bundled token as a [`Subject`]: a few accounts that pay each other, and whose coins never become more or fewer.
//!
//! A client signs the transactions of an account one after the other, and some get lost with the node that took them. Nobody here
//! knows which, so what is sent is mostly the account's next few nonces, now and then one from long ago. Each nonce of an
//! account has one transaction, so what is sent twice is the same bytes twice: the second one must not be executed.

use lockstep_app::token::{ACCOUNT_PREFIX, Payment, Token, Transfer};
use lockstep_types::{Address, PrivateKey, Signature};
use serde_json::json;

use crate::forgiving::Forgiving;
use crate::subject::{Choice, Subject};

/// Accounts that genesis names. One more exists as soon as somebody pays it.
const ACCOUNTS: u64 = 6;
/// Coins of each of them.
const BALANCE: u64 = 100_000;
/// How many nonces back most transactions are from.
const RECENT: u64 = 4;

fn key(account: u64) -> PrivateKey {
    let byte = u8::try_from(200 + account).expect("few accounts");
    PrivateKey::from_seed(&[byte; 32])
}

fn address(account: u64) -> Address {
    key(account).public_key().address()
}

/// The transaction of an account and a nonce. Every seventh promises more than the account ever has.
fn transfer(choice: &Choice<'_>, account: u64, nonce: u64) -> Transfer {
    let amount = if nonce % 7 == 6 { ACCOUNTS * BALANCE } else { 1 + (account + 1) * (nonce + 1) % 97 };
    let to = address((account + nonce + 1) % (ACCOUNTS + 1));
    let payments = vec![Payment { to, amount }];
    let (public_key, signature) = (key(account).public_key(), Signature([0; 64]));
    let unsigned = Transfer { public_key, nonce, fee: 1 + nonce % 3, payments, memo: Vec::new(), signature };
    unsigned.signed(&key(account), &choice.genesis().chain_id, &choice.genesis().hash())
}

fn generate(choice: &mut Choice<'_>) -> Vec<u8> {
    let account = choice.below(ACCOUNTS);
    let newest = choice.serial() / ACCOUNTS;
    let oldest = if choice.chance(300) { 0 } else { newest.saturating_sub(RECENT) };
    let nonce = oldest + choice.below(newest - oldest + 1);
    transfer(choice, account, nonce).encode()
}

/// The token and its clients. Its invariant: all coins of genesis are there after each block.
pub fn subject() -> Subject {
    let accounts: Vec<_> = (0..ACCOUNTS).map(|account| json!({ "address": address(account), "balance": BALANCE })).collect();
    let app_state = json!({ "token": { "accounts": accounts, "min_fee": 1 } }).to_string();
    Subject::new("token", || Forgiving(Token::new()))
        .transactions(generate)
        .app_state(&app_state)
        .holds_back()
        .called_by("token")
        .fragile(ACCOUNT_PREFIX)
        .invariant(|height, entries| {
            let accounts = entries.iter().filter(|(key, _)| key.starts_with(ACCOUNT_PREFIX));
            // A balance and a nonce, as the token's documentation says.
            let balances = accounts.map(|(_, value)| Some(u128::from(u64::from_le_bytes(value.first_chunk().copied()?))));
            let coins = balances.sum::<Option<u128>>().ok_or("an account without a balance")?;
            let expected = u128::from(ACCOUNTS * BALANCE);
            if coins == expected { Ok(()) } else { Err(format!("{coins} coins after height {height}, and not {expected}")) }
        })
}
