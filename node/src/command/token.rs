//! `lockstep token`

use lockstep_app::token::{ACCOUNT_PATH, CONFIG_PATH, MEMO_BYTES_MAX, Payment, Transfer};
use lockstep_genesis::keys::parse_validator_key;
use lockstep_rpc::Client;
use lockstep_types::{Address, Height, Signature};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{client_error, home_of, say, tx};
use crate::cli::{AccountArgs, TokenCommand, TransferArgs};
use crate::error::{Exit, NodeError};
use crate::home::read_key;

/// What the node says of an account.
#[derive(Deserialize)]
struct Account {
    balance: String,
    nonce: String,
}

/// What genesis said of the token.
#[derive(Deserialize)]
struct Rules {
    min_fee: String,
}

pub(super) async fn run(command: &TokenCommand) -> Result<(), NodeError> {
    match command {
        TokenCommand::Transfer(args) => transfer(args).await,
        TokenCommand::Account(args) => account(args).await,
    }
}

async fn transfer(args: &TransferArgs) -> Result<(), NodeError> {
    if args.memo.len() > MEMO_BYTES_MAX {
        return Err(NodeError::new(Exit::Usage, format!("--memo has {} bytes: at most {MEMO_BYTES_MAX}", args.memo.len())));
    }
    let home = home_of(&args.home)?;
    home.check_exists()?;
    let genesis = home.read_genesis()?;
    let key = match &args.signer {
        Some(path) => read_key(path, parse_validator_key)?,
        None => home.read_validator_key()?,
    };
    let client = Client::new(args.nodes.urls.iter().cloned()).map_err(|error| client_error(&error))?;
    let status = client.status().await.map_err(|error| client_error(&error))?;
    if status.node_info.network != genesis.chain_id {
        let what = format!("{} serves chain {}, and the home is of {}", client.endpoint(), status.node_info.network, genesis.chain_id);
        return Err(NodeError::new(Exit::Refused, what)
            .means("a transfer is signed for one chain")
            .next("name a node of the home's chain: --node URL"));
    }
    let rules: Rules = ask(&client, CONFIG_PATH, &[]).await?;
    let sender = key.public_key().address();
    let nonce = match args.nonce {
        Some(nonce) => nonce,
        None => number("nonce", &ask::<Account>(&client, ACCOUNT_PATH, sender.as_ref()).await?.nonce)?,
    };
    let fee = match args.fee {
        Some(fee) => fee,
        None => number("min_fee", &rules.min_fee)?,
    };
    let unsigned = Transfer {
        public_key: key.public_key(),
        nonce,
        fee,
        payments: vec![Payment { to: args.to, amount: args.amount }],
        memo: args.memo.clone().into_bytes(),
        signature: Signature([0; 64]),
    };
    let transfer = unsigned.signed(&key, &genesis.chain_id, &genesis.hash());
    say(format!("from       {sender}, transfer {nonce} of this account, fee {fee}"));
    tx::send(&client, &transfer.encode(), args.wait).await
}

async fn account(args: &AccountArgs) -> Result<(), NodeError> {
    let address: Address = match args.address {
        Some(address) => address,
        None => {
            let home = home_of(&args.home)?;
            home.check_exists()?;
            home.read_validator_key()?.public_key().address()
        }
    };
    let client = Client::new(args.nodes.urls.iter().cloned()).map_err(|error| client_error(&error))?;
    let account: Account = ask(&client, ACCOUNT_PATH, address.as_ref()).await?;
    say(format!("account    {address}"));
    say(format!("balance    {}", account.balance));
    say(format!("nonce      {}", account.nonce));
    say(format!("by         {}, unproven", client.endpoint()));
    Ok(())
}

/// Asks the application of the node.
async fn ask<T: DeserializeOwned>(client: &Client, path: &str, data: &[u8]) -> Result<T, NodeError> {
    let answer = client.abci_query(path, data, Height::ZERO, false).await.map_err(|error| client_error(&error))?;
    let read = answer.value.as_ref().filter(|_| answer.code == 0).and_then(|value| serde_json::from_slice(&value.0).ok());
    read.ok_or_else(|| {
        NodeError::new(Exit::Refused, format!("{} gives no answer of the token: code {} {}", client.endpoint(), answer.code, answer.log))
            .means("its chain runs another application")
            .next("lockstep tx sends transactions of other applications; lockstep localnet --app token starts a chain of accounts")
    })
}

fn number(what: &str, text: &str) -> Result<u64, NodeError> {
    text.parse().map_err(|_| NodeError::new(Exit::Refused, format!("the node says that {what} is {text:?}, which is no number")))
}
