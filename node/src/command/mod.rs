//! The commands, one module each.

mod bar;
mod bench;
pub(crate) mod bundle;
mod from;
mod init;
mod inspect;
mod keys;
mod localnet;
mod query;
mod replay;
mod rollback;
mod rules;
mod sim;
mod snapshot;
mod start;
mod status;
mod testnet;
mod token;
mod tx;
mod validator;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_app::Application;
use lockstep_genesis::home::{Member, random_chain_id};
use lockstep_rpc::client::ClientError;
use lockstep_types::{ChainId, ConsensusParams, Power, Time};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::cli::{Cli, Command, HomeArg, SnapshotCommand};
use crate::error::{Exit, NodeError};
use crate::home::Home;

/// Power of each validator of a new chain: enough that one can later be given a tenth of another's.
const VALIDATOR_POWER: Power = Power::new(10).expect("within bounds");

/// Largest block of a new chain, in bytes: some 4,000 transactions of 256 bytes, which four validators on two cores gossip, hash
/// and execute within a round. CometBFT's 21 MiB, the default of a genesis file that says nothing, outruns the propose timeout
/// there.
const BLOCK_BYTES_NEW: i64 = 1 << 20;

/// Parameters of a new chain.
fn new_params() -> ConsensusParams {
    let mut params = ConsensusParams::default();
    params.block.max_bytes = BLOCK_BYTES_NEW;
    params
}

/// Runs a command. What it did counts as done only when its answer was written, too.
pub(crate) fn run(cli: Cli, app: Arc<dyn Application>) -> Result<(), NodeError> {
    run_one(cli.command, app)?;
    UNWRITTEN.get().map_or(Ok(()), |error| Err(unwritten(error).means("what was asked for was done, and nobody was told")))
}

fn run_one(command: Command, app: Arc<dyn Application>) -> Result<(), NodeError> {
    match command {
        Command::Init(args) => init::run(&args, app),
        Command::Testnet(args) => testnet::run(&args, app),
        Command::Localnet(args) => localnet::run(&args, app),
        Command::Start(args) => start::run(&args, app),
        Command::Status(args) => waiting(status::run(&args)),
        Command::Tx(args) => waiting(tx::run(&args)),
        Command::Query(args) => waiting(query::run(&args)),
        Command::Token(command) => waiting(token::run(&command)),
        Command::Validator(command) => waiting(validator::run(&command)),
        Command::Snapshot(SnapshotCommand::Create(args)) => waiting(validator::create_checkpoint(&args)),
        Command::Snapshot(SnapshotCommand::List(args)) => snapshot::list(&args),
        Command::Snapshot(SnapshotCommand::Export(args)) => snapshot::export(&args),
        Command::Snapshot(SnapshotCommand::Restore(args)) => snapshot::restore(&args),
        Command::Snapshot(SnapshotCommand::Bundle(args)) => waiting(bundle::run(&args)),
        Command::Inspect(args) => inspect::run(&args),
        Command::Replay(args) => replay::run(&args, app),
        Command::Rollback(args) => rollback::run(&args, app),
        Command::Keys(command) => keys::run(&command),
        Command::Bench(args) => bench::run(&args),
        Command::Sim(args) => sim::run(&args),
    }
}

/// Runs something that waits for nodes.
fn waiting(command: impl Future<Output = Result<(), NodeError>>) -> Result<(), NodeError> {
    runtime()?.block_on(command)
}

/// A runtime on this thread, for clients.
fn runtime() -> Result<tokio::runtime::Runtime, NodeError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| NodeError::new(Exit::Failed, format!("the system gives no event queue: {error}")))
}

/// The home that was named, or the user's.
fn home_of(arg: &HomeArg) -> Result<Home, NodeError> {
    named_or_default(arg.home.as_ref())
}

fn named_or_default(named: Option<&PathBuf>) -> Result<Home, NodeError> {
    match named {
        Some(folder) => Ok(Home::new(folder)),
        None => std::env::home_dir()
            .map(|folder| Home::new(folder.join(".lockstep")))
            .ok_or_else(|| NodeError::new(Exit::Usage, "no --home is given, and the user has no home folder").next("give --home DIR")),
    }
}

/// Random bytes of the system, wiped when dropped.
fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NodeError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(|error| {
        NodeError::new(Exit::Failed, format!("the system gives no random numbers: {error}")).means("no key can be made")
    })?;
    Ok(bytes)
}

/// A member of a new network, with new keys.
fn new_member(name: &str) -> Result<Member, NodeError> {
    Ok(Member::new(name, VALIDATOR_POWER, &random()?))
}

/// The chain id that was given, or a new one.
fn chain_id_of(given: Option<&str>) -> Result<ChainId, NodeError> {
    match given {
        Some(text) => ChainId::new(text).map_err(|rule| NodeError::new(Exit::Usage, format!("--chain-id is {text:?}: {rule}"))),
        None => Ok(random_chain_id(&*random()?)),
    }
}

/// The wall clock.
fn now() -> Result<Time, NodeError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .map(|since| Time::from_unix_nanos(0).saturating_add(since))
        .map_err(|_| NodeError::new(Exit::Failed, "the clock of this machine stands before 1970").next("set the clock"))
}

/// The program, as the user calls it: for lines to paste.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if called.contains('/') { called } else { "lockstep".to_owned() }
}

/// A word as a shell reads it.
pub(crate) fn shell_word(word: impl Display) -> String {
    let word = word.to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// An error of the RPC client, with what to do.
fn client_error(error: &ClientError) -> NodeError {
    match error {
        ClientError::Unreachable(failures) if is_no_rpc(failures) => NodeError::new(Exit::Unreachable, error)
            .means("something answers there, and does not take JSON-RPC")
            .next("name the RPC port of a node (rpc.laddr in its config.toml), without a path"),
        ClientError::Unreachable(_) => NodeError::new(Exit::Unreachable, error)
            .next("start a network (lockstep localnet), or name the RPC port of a node that runs, as in --node http://127.0.0.1:26657"),
        ClientError::NoEndpoint | ClientError::Url { .. } => NodeError::new(Exit::Usage, error),
        ClientError::Answered { .. } => NodeError::new(Exit::Failed, error),
    }
}

/// Whether something answered, with a status of HTTP that no RPC server gives to a request that it takes.
fn is_no_rpc(failures: &[(String, String)]) -> bool {
    failures.iter().any(|(_, why)| why.contains("Request rejected"))
}

/// The first line of an answer that could not be written.
static UNWRITTEN: OnceLock<io::Error> = OnceLock::new();

/// A line of the answer, on stdout. Nothing is broken off because of a line that cannot be written; [`run`] fails at the end.
fn say(line: impl Display) {
    if let Err(error) = writeln!(io::stdout(), "{line}")
        && is_failure(&error)
    {
        let _ = UNWRITTEN.set(error);
    }
}

/// For somebody who waits: beside the answer, so that whoever reads that has nothing else in it.
fn note(line: impl Display) {
    // Nobody to tell is no reason to end.
    let _ = writeln!(io::stderr(), "{line}");
}

/// After so long without an answer it is said what is waited for.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// What comes of it; where that takes longer, something is said meanwhile, once.
async fn said_after<T>(silence: Duration, what: impl Future<Output = T>, says: impl Future<Output = ()>) -> T {
    let mut what = pin!(what);
    if let Ok(done) = timeout(silence, &mut what).await {
        return done;
    }
    tokio::select! {
        biased;
        done = &mut what => return done,
        () = says => {}
    }
    what.await
}

/// Whether a write of an answer failed. A reader who has heard enough (`| head`) is no failure.
pub(crate) fn is_failure(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::BrokenPipe
}

/// An answer that could not be written.
pub(crate) fn unwritten(error: &io::Error) -> NodeError {
    NodeError::new(Exit::Failed, format!("the answer cannot be written to stdout: {error}")).next("look at where stdout leads")
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::said_after;

    #[tokio::test]
    async fn who_waits_long_is_told_once_and_who_does_not_is_told_nothing() {
        assert_eq!(said_after(Duration::ZERO, ready(7), async { unreachable!("it was there at once") }).await, 7);
        let (answer, answered) = oneshot::channel();
        let mut said = 0;
        let waits = async {
            said += 1;
            answer.send(7).expect("it waits");
        };
        assert_eq!(said_after(Duration::from_millis(1), answered, waits).await, Ok(7));
        assert_eq!(said, 1);
        let both = tokio::time::timeout(Duration::from_millis(1), said_after(Duration::ZERO, pending::<()>(), pending())).await;
        assert!(both.is_err(), "nothing is broken off by being told");
    }
}
