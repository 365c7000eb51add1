//! `lockstep validator`: who validates, as the chain decides it.
//!
//! Each command signs a transaction of the node (`lockstep_app::membership`) with a key from a file, and hands it to the node that runs
//! in the home, beside which it runs. A consensus key may sign here while its node signs votes: what is signed here begins with a zero byte
//! and a tag (`lockstep_types::domain`), and no vote or proposal begins so. So neither can stand for the other, and the vote guard need
//! not know of it.

mod checkpoint;
mod join;
mod leave;
mod members;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lockstep_app::membership::{NodeTx, RecentBlock};
use lockstep_app::node_tx::{NODE_CODESPACE, NODE_TX_STALE};
use lockstep_genesis::Genesis;
use lockstep_genesis::keys::parse_validator_key;
use lockstep_rpc::Client;
use lockstep_rpc::client::ClientError;
use lockstep_types::{Address, Hash, Height, Power, PrivateKey};
use tokio::time::{sleep, timeout};

use super::status::next_set;
use super::{SILENCE_MAX, client_error, home_of, said_after, say, shell_word};
use crate::cli::{SeatArgs, ValidatorCommand};
use crate::config::Config;
use crate::error::{Exit, NodeError};
use crate::home::{Home, read_key};
use crate::http::{Connection, Endpoint};
use crate::metrics::CutOff;
pub(super) use checkpoint::create as create_checkpoint;
use members::Members;

/// Between two looks at the chain.
const LOOK: Duration = Duration::from_millis(100);
/// How long a transaction that a node took may stay without a block before the command says so. A chain that stands still has no
/// bound; what was sent is not lost.
const BLOCK_WAIT: Duration = Duration::from_secs(60);
/// For how long a node that answered before is asked again: it may be opening its home anew, as after a snapshot or a healing.
const REOPENS_WITHIN: Duration = Duration::from_secs(60);
/// A node that just answered and takes longer to say what it lacks is waited for as one that says nothing.
const CUT_OFF_WAIT: Duration = Duration::from_secs(3);

pub(super) async fn run(command: &ValidatorCommand) -> Result<(), NodeError> {
    match command {
        ValidatorCommand::Join(args) => join::join(args).await,
        ValidatorCommand::Rotate(args) => join::rotate(args).await,
        ValidatorCommand::Quit(args) => leave::quit(args).await,
        ValidatorCommand::Approve(args) => leave::approve(args).await,
        ValidatorCommand::List(args) => members::list(args).await,
    }
}

/// A home, its key, and the node that runs there.
struct Seat {
    home: Home,
    config: Config,
    genesis: Genesis,
    key: PrivateKey,
    client: Client,
    /// Whether the node answered once.
    has_answered: AtomicBool,
    no_wait: bool,
}

/// What became of a transaction.
enum Submitted {
    /// It is in a block and did this, in words.
    Done { height: Height, log: String },
    /// It was refused; a newer block in it may help.
    Stale(String),
    /// A rule refuses it.
    Refused(String),
}

impl Seat {
    /// Reads the home. Nothing is asked yet.
    fn open(args: &SeatArgs) -> Result<Self, NodeError> {
        let home = home_of(&args.home)?;
        home.check_exists()?;
        let config = Config::load(&home.config_path().display().to_string(), &home.read_config()?, [], &[])?;
        let url = args.node.clone().unwrap_or_else(|| format!("http://{}", reached_at(config.rpc.laddr)));
        let client = Client::new([url]).map_err(|error| client_error(&error))?;
        let (genesis, key) = (home.read_genesis()?, home.read_validator_key()?);
        Ok(Self { home, config, genesis, key, client, has_answered: AtomicBool::new(false), no_wait: args.no_wait })
    }

    /// The key that signs: of this file, or the home's.
    fn signer(&self, file: Option<&Path>) -> Result<PrivateKey, NodeError> {
        match file {
            Some(path) => read_key(path, parse_validator_key),
            None => Ok(PrivateKey::from_seed(&self.key.seed())),
        }
    }

    fn unanswered(&self, error: &ClientError) -> NodeError {
        match error {
            ClientError::Unreachable(_) => NodeError::new(Exit::Unreachable, error)
                .means("the command runs beside the node of the home, which is asked what it knows of the chain")
                .next(format!(
                    "start it: lockstep start --home {}   (or name where it serves clients: --node URL)",
                    shell_word(self.home.root().display())
                )),
            _ => client_error(error),
        }
    }

    /// The newest block of the node, and whether it follows the chain.
    async fn status(&self) -> Result<lockstep_rpc::json::Status, NodeError> {
        let status = self.once_open(async || self.client.status().await.map_err(Err)).await?;
        self.has_answered.store(true, Ordering::Relaxed);
        if status.node_info.network != self.genesis.chain_id {
            return Err(NodeError::new(
                Exit::Refused,
                format!(
                    "{} serves chain {}, and the home is of {}",
                    self.client.endpoint(),
                    status.node_info.network,
                    self.genesis.chain_id
                ),
            )
            .next("name the node of this home: --node URL"));
        }
        Ok(status)
    }

    /// Waits until the node knows the chain as far as it can tell.
    ///
    /// # Errors
    /// When it does not get there by itself: what the operator is to do.
    async fn catch_up(&self, told: &mut Told) -> Result<(), NodeError> {
        loop {
            let status = self.status().await?;
            let height = status.sync_info.latest_block_height;
            let is_behind = status.sync_info.catching_up;
            if !is_behind && height != Height::ZERO {
                return Ok(());
            }
            let (cut_off, peers) = if is_behind { self.why_behind().await } else { (None, None) };
            if let Some((why, remedy)) = cut_off.and_then(|why| Some((why, why.remedy()?))) {
                let at = if height == Height::ZERO { "has no block yet".to_owned() } else { format!("stands at block {height}") };
                return Err(NodeError::new(Exit::Failed, format!("the node {at} and does not catch up by itself: {}", why.meaning()))
                    .means("what it signs has to name a block that the others made just now")
                    .next(remedy));
            }
            told.progress(match cut_off {
                Some(why) => format!("the node catches up: {}", why.meaning()),
                None if is_behind && peers == Some(0) => format!(
                    "the node has no peers that tell it where the chain is: block {height}. Name some in its configuration \
                     (p2p.persistent_peers), or wait until one dials it"
                ),
                None if is_behind => format!("the node catches up: block {height}"),
                None => "the chain has no block yet, as far as the node and its peers know".to_owned(),
            });
            sleep(LOOK).await;
        }
    }

    /// What the node needs where blocks do not bring it further, and how many peers it has.
    async fn why_behind(&self) -> (Option<CutOff>, Option<u64>) {
        let Ok(endpoint) = Endpoint::parse(self.client.endpoint()) else { return (None, None) };
        let ask = async {
            let mut connection = Connection::open(&endpoint).await.ok()?;
            let cut_off = connection.cut_off().await;
            Some((cut_off, connection.decimal("/net_info", "/result/n_peers").await))
        };
        timeout(CUT_OFF_WAIT, ask).await.ok().flatten().unwrap_or((None, None))
    }

    /// The members, as the node of the home knows them; of this chain.
    async fn members(&self) -> Result<Members, NodeError> {
        let members = self.once_open(async || Members::ask(&self.client).await).await?;
        if members.genesis_hash != self.genesis.hash().to_string() {
            return Err(NodeError::new(Exit::Refused, format!("{} serves another chain than the home's", self.client.endpoint()))
                .means("both have one name and another genesis")
                .next("name the node of this home: --node URL"));
        }
        Ok(members)
    }

    /// Asks a node that answered before again for a while where it does not. The inner error is the client's.
    async fn once_open<T>(&self, ask: impl AsyncFn() -> Result<T, Result<NodeError, ClientError>>) -> Result<T, NodeError> {
        let until = Instant::now() + REOPENS_WITHIN;
        loop {
            let may_reopen = || self.has_answered.load(Ordering::Relaxed) && Instant::now() < until;
            match ask().await {
                Err(Err(ClientError::Unreachable(_))) if may_reopen() => sleep(LOOK).await,
                answer => return answer.map_err(|error| error.unwrap_or_else(|error| self.unanswered(&error))),
            }
        }
    }

    /// Addresses of those who signed the block of a height, as far as the node knows.
    async fn signers(&self, height: u64) -> BTreeSet<String> {
        let Some(height) = Height::new(height) else { return BTreeSet::new() };
        let commit = self.client.commit(Some(height)).await.ok().flatten();
        let slots = commit.map(|answer| answer.signed_header.commit.signatures).unwrap_or_default();
        slots.iter().filter(|slot| slot.block_id_flag == 2).map(|slot| hex::encode_upper(&slot.validator_address.0)).collect()
    }

    /// Whether this validator is in the set that decides the next block, or that cannot be learned.
    async fn decides(&self, address: &Address) -> bool {
        next_set(&self.client).await.is_none_or(|set| set.iter().any(|(member, _)| member == address))
    }

    /// Signs with this key.
    fn sign(&self, tx: NodeTx, key: &PrivateKey) -> NodeTx {
        tx.signed(key, &self.genesis.chain_id, &self.genesis.hash())
    }

    /// Hands a transaction in, and waits for its block.
    async fn submit(&self, tx: &NodeTx) -> Result<Submitted, NodeError> {
        let bytes = tx.encode();
        let refused = |code: u32, codespace: &str, log: String| {
            if codespace == NODE_CODESPACE && code == NODE_TX_STALE { Submitted::Stale(log) } else { Submitted::Refused(log) }
        };
        let waits = async { say("handed to the node; waiting for a block that takes it in") };
        match said_after(SILENCE_MAX, self.client.broadcast_tx_commit(&bytes), waits).await {
            Ok(answer) if answer.check_tx.code != 0 => Ok(refused(answer.check_tx.code, &answer.check_tx.codespace, answer.check_tx.log)),
            Ok(answer) if answer.tx_result.code != 0 => {
                Ok(refused(answer.tx_result.code, &answer.tx_result.codespace, answer.tx_result.log))
            }
            Ok(answer) => Ok(Submitted::Done { height: answer.height, log: answer.tx_result.log }),
            // It may be decided all the same: its block says so.
            Err(ClientError::Answered { .. }) => {
                let height = self.status().await?.sync_info.latest_block_height;
                say(format!("no block took it in yet, the last is that of height {height}; waiting for {} s more", BLOCK_WAIT.as_secs()));
                self.find(&Hash::of(&bytes), refused).await
            }
            Err(error) => Err(self.unanswered(&error)),
        }
    }

    async fn find(&self, hash: &Hash, refused: impl Fn(u32, &str, String) -> Submitted) -> Result<Submitted, NodeError> {
        let give_up = Instant::now() + BLOCK_WAIT;
        while Instant::now() < give_up {
            if let Ok(found) = self.client.tx(hash, false).await {
                let result = found.tx_result;
                return Ok(match result.code {
                    0 => Submitted::Done { height: found.height, log: result.log },
                    code => refused(code, &result.codespace, result.log),
                });
            }
            sleep(LOOK).await;
        }
        Err(NodeError::new(Exit::TxRefused, format!("no block with the request was seen within {} s", BLOCK_WAIT.as_secs()))
            .means(
                "the chain stands still, or the node has no peers that hand its transactions on; the request may still come into a block",
            )
            .next("look at lockstep status, and then call the same command again"))
    }

    /// A request over the newest block, signed and handed in again where the chain went on too fast for it.
    async fn request(&self, told: &mut Told, make: impl Fn(RecentBlock) -> NodeTx) -> Result<(Height, String), NodeError> {
        let mut stale = String::new();
        for _ in 0..STALE_TRIES_MAX {
            let Some(recent) = self.members().await?.recent() else {
                told.progress("the chain has no block yet".to_owned());
                sleep(LOOK).await;
                continue;
            };
            let request = make(recent);
            let where_to_look = match request {
                NodeTx::Checkpoint(_) => "lockstep snapshot list shows what is here; ask again when the chain is there",
                _ => "lockstep validator list shows who validates, who asks, and who may admit",
            };
            match self.submit(&request).await? {
                Submitted::Done { height, log } => return Ok((height, log)),
                Submitted::Refused(log) => {
                    return Err(NodeError::new(Exit::TxRefused, format!("the chain refuses it: {log}")).next(where_to_look));
                }
                Submitted::Stale(log) => stale = log,
            }
            sleep(LOOK).await;
        }
        Err(NodeError::new(Exit::TxRefused, format!("the chain refuses it: {stale}"))
            .means("blocks come so fast, or this node hears of them so late, that what it signs is old when it arrives")
            .next("let the node catch up (lockstep status), then call the same command again"))
    }
}

/// How often a request is signed anew because the block that it names became too old on its way.
const STALE_TRIES_MAX: u32 = 50;

/// Where a server that listens everywhere is reached from its own machine.
fn reached_at(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// What somebody who waits is told: each thing once.
#[derive(Default)]
struct Told {
    last: String,
}

impl Told {
    fn progress(&mut self, line: String) {
        if self.last != line {
            say(&line);
            self.last = line;
        }
    }
}

fn power_of(value: u64) -> Result<Power, NodeError> {
    Power::new(value).ok_or_else(|| NodeError::new(Exit::Usage, format!("--power is {value}: must be at most {}", Power::MAX)))
}
