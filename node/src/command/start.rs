//! `lockstep start`

use std::io;
use std::sync::Arc;

use lockstep_app::Application;
use lockstep_network::PeerAddr;
use lockstep_replica::audit::ASK_TO_QUIT;
use lockstep_replica::recovery::RecoveryError;
use lockstep_storage::guard::GuardError;
use lockstep_storage::log::LogError;
use lockstep_storage::quarantine::QuarantineError;
use lockstep_types::{Hash, Height};
use tracing::{error, info, warn};

use super::bundle::Bundle;
use super::{home_of, shell_word};
use crate::cli::StartArgs;
use crate::config::{Config, LogFormat};
use crate::error::{Exit, NodeError};
use crate::home::{DATA_PATH, Home, io_kind, remedy};
use crate::shell::{self, ShellError};
use crate::stop::StopSignal;

pub(super) fn run(args: &StartArgs, app: Arc<dyn Application>) -> Result<(), NodeError> {
    if args.stop_with_parent {
        stop_with_parent()?;
    }
    let home = home_of(&args.home)?;
    home.check_exists()?;
    // It may come through a pipe. Until it is here a signal ends this process as it would any other.
    let bundle = args.bundle.as_deref().map(Bundle::read).transpose()?;
    let mut stop = StopSignal::on_signals().map_err(|error| NodeError::new(Exit::Failed, format!("signals cannot be handled: {error}")))?;
    let mut config = load_config(&home, args)?;
    let (root, given) = root_of_trust(&home, args, bundle.as_ref(), &mut config)?;
    let is_told = given.is_empty() && config.p2p.persistent_peers.is_empty();
    let (remembered, unread) = if is_told { home.read_peers() } else { (Vec::new(), None) };
    config.p2p.persistent_peers.extend(remembered.iter().cloned());
    // What can be wrong in the files is told before anything is held or bound.
    let options = options_of(&home, &config, root, app.clone())?;
    crate::log::start(&config)?;
    let held = home.hold()?;
    home.forget_restoring()?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        home = %home.root().display(),
        chain = %options.genesis.chain_id,
        "node starts"
    );
    if !given.is_empty() {
        home.keep_peers(&given)?;
    }
    if let Some(unread) = unread {
        warn!("{unread}: those peers of the bundle are not dialled. Name peers in the configuration (p2p.persistent_peers)");
    }
    if !remembered.is_empty() {
        info!(
            peers = remembered.len(),
            "the configuration names no peers: those of the bundle that this home was started with are dialled"
        );
    }

    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if config.runtime.worker_threads > 0 {
        runtime.worker_threads(config.runtime.worker_threads);
    }
    let runtime = runtime.enable_all().build();
    let runtime = runtime.map_err(|error| NodeError::new(Exit::Failed, format!("the system gives no threads: {error}")))?;
    let (mut next, mut mended) = (Some(options), 0);
    let ended = loop {
        let options = match next.take() {
            Some(options) => options,
            None => options_of(&home, &config, root, app.clone())?,
        };
        match runtime.block_on(shell::run(options, stop.stopped())) {
            // What state sync gathered is installed by opening the home again.
            Err(ShellError::Reopens(height)) => info!(height = height.get(), "the snapshot is complete; the node goes on from it"),
            Err(error @ ShellError::Diverged(_)) => error!("{error}; it signs nothing until then"),
            Err(error @ ShellError::Damaged(_)) if mended < MENDS_MAX => {
                mended += 1;
                error!("{error}");
            }
            ended => break ended.map_err(|error| explain(&error, &home)),
        }
    };
    match &ended {
        Ok(()) => info!("node stopped as asked"),
        // People read the error that the program ends with; a collector needs it as a line of the log, too.
        Err(error) if config.log_format == LogFormat::Json => error!(%error, "node halts"),
        Err(_) => {}
    }
    drop(held);
    ended
}

/// How often a process makes a damaged state database anew before a person is asked to look.
const MENDS_MAX: u32 = 3;

/// File, then environment, then flags.
fn load_config(home: &Home, args: &StartArgs) -> Result<Config, NodeError> {
    let mut overrides = args.set.clone();
    for (flag, value) in [("--log-level", &args.log_level), ("--log-format", &args.log_format)] {
        overrides.extend(value.iter().map(|value| (flag.to_owned(), value.clone())));
    }
    // What is not text is no value of any setting, and is refused as such.
    let text = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(&name), text(&value)));
    Ok(Config::load(&home.config_path().display().to_string(), &home.read_config()?, variables, &overrides)?)
}

/// A height and the hash of its header, where the operator names one.
type Named = Option<(Height, Hash)>;

/// What the operator trusts, by flags or by a bundle, whose peers join those of the configuration; and these.
fn root_of_trust(home: &Home, args: &StartArgs, bundle: Option<&Bundle>, config: &mut Config) -> Result<(Named, Vec<PeerAddr>), NodeError> {
    match args.bundle.as_deref().zip(bundle) {
        Some((path, bundle)) => bundle.apply(path, &home.read_genesis()?, config).map(|(root, peers)| (Some(root), peers)),
        None => Ok((args.trust_height.zip(args.trust_hash), Vec::new())),
    }
}

/// Reads and checks the files of a home.
fn options_of(home: &Home, config: &Config, root: Named, app: Arc<dyn Application>) -> Result<shell::Options, NodeError> {
    Ok(shell::Options {
        genesis: home.read_genesis()?,
        app,
        validator_key: Some(home.read_validator_key()?),
        node_key: home.read_node_key()?,
        disk: home.data_disk()?,
        moniker: config.moniker.clone(),
        p2p_listen: config.p2p.laddr,
        p2p_external: config.p2p.external_address.0.clone().unwrap_or_default(),
        persistent_peers: config.p2p.persistent_peers.clone(),
        p2p_limits: config.p2p.limits.clone(),
        rpc_listen: config.rpc.laddr,
        rpc: lockstep_rpc::Options {
            limits: config.rpc.limits.clone(),
            hosts: config.rpc.hosts.clone(),
            origins: config.rpc.cors_origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
            ..lockstep_rpc::Options::default()
        },
        mempool: config.mempool.limits.clone(),
        segment_bytes: config.storage.segment_bytes,
        flush_keys: config.storage.flush_interval_keys,
        flush_blocks: config.storage.flush_interval_blocks,
        keep_snapshots: config.storage.keep_snapshots,
        retention: lockstep_replica::retention::Retention { keep_blocks: config.storage.keep_blocks },
        state_sync: lockstep_replica::state_sync::Policy { root },
    })
}

/// What the end of a node means to its operator.
fn explain(error: &ShellError, home: &Home) -> NodeError {
    let in_data = format!("in {}: {error}", home.root().join(DATA_PATH).display());
    match error {
        ShellError::Guard(GuardError::Missing { .. }) => NodeError::new(
            Exit::Refused,
            format!("the vote guard {} is missing", home.guard_file().display()),
        )
        .means("what this validator has signed is not known, and signing without knowing could be punished as double signing")
        .next(
            format!(
                "put the file back if it was moved, never an older copy of it. If it is lost, an empty file in its place lets the validator follow \
                 and hold its votes back until it has seen the others decide:  mkdir -p {} && : > {}   (docs/operating.md, \"A lost vote guard\")",
                shell_word(home.root().join(DATA_PATH).display()),
                shell_word(home.guard_file().display())
            ),
        ),
        ShellError::Network(lockstep_network::StartError::Listen { address, source }) => {
            not_listening(error, source, "p2p.laddr", &address.to_string())
        }
        ShellError::Rpc { address, source } => not_listening(error, source, "rpc.laddr", &address.to_string()),
        ShellError::Network(_) => NodeError::new(Exit::Refused, error),
        ShellError::Guard(GuardError::WrongOwner { .. }) => NodeError::new(Exit::Refused, error)
            .means(
                "config/priv_validator_key.json or config/genesis.json is not the one that this home was made with, and nothing here says \
                 what that key signed",
            )
            .next(
                "put the home's own back, or keep a key and its data/guard together. A key from elsewhere is brought by lockstep keys import \
                 or lockstep init --import-key, with its state; another chain has a home of its own",
            ),
        ShellError::OtherHistory { .. } => NodeError::new(Exit::Refused, error)
            .means("one of both is not of this chain: the bundle or the hash is wrong, or this home followed another history")
            .next("ask several nodes that do not depend on each other for the hash of that height (lockstep query, or block?height=N)"),
        ShellError::Guard(GuardError::Newer { .. }) => NodeError::new(Exit::Refused, error)
            .means("signing without knowing what was signed could be punished as double signing")
            .next("run the newer program"),
        ShellError::Guard(_) | ShellError::Recovery(_) if io_kind(error).is_some_and(is_misplaced) => {
            NodeError::new(Exit::Refused, in_data)
                .means("a folder lies where a file should be, or a file where a folder should be")
                .next(
                    "put back what was there: guard and state.redb are files, log and damaged are folders. Without state.redb or log a node \
                     makes them again; a guard is never replaced by an older or empty one, unless it is lost (docs/operating.md)",
                )
        }
        ShellError::Guard(_) | ShellError::Recovery(_) if io_kind(error).and_then(remedy).is_some() => {
            NodeError::new(Exit::Refused, in_data).next(io_kind(error).and_then(remedy).unwrap_or_default())
        }
        ShellError::Guard(_) | ShellError::Snapshots(_) => disk_failed(in_data),
        ShellError::Recovery(recovery) => not_recovered(in_data, recovery),
        // By then the system's own words are what is left of its error.
        ShellError::Halted(reason) if reason.contains("No space left on device") => {
            NodeError::new(Exit::Halted, error).next("make room on the disk, then start again")
        }
        ShellError::Halted(_) => NodeError::new(Exit::Halted, error)
            .means("going on would not be safe")
            .next("keep the data folder, and read the log above this line"),
        ShellError::Serve(_) | ShellError::Thread(_) | ShellError::Reopens(_) | ShellError::Diverged(_) => NodeError::new(Exit::Halted, error),
        ShellError::Damaged(_) => NodeError::new(Exit::Halted, error)
            .means(format!("the state database was made anew {MENDS_MAX} times since this process started, and is damaged again"))
            .next("look at the disk and at the memory (dmesg, smartctl) before starting again"),
    }
}

/// What cannot be healed. Files that are damaged are, and never come here.
fn not_recovered(what: String, recovery: &RecoveryError) -> NodeError {
    match recovery {
        RecoveryError::Quarantine(QuarantineError::Full { .. }) => NodeError::new(Exit::Halted, what)
            .means("a disk that damages files again and again cannot be trusted with what a validator signed")
            .next("look at the disk (dmesg, smartctl), move data/damaged away, then start again"),
        RecoveryError::Log(LogError::Newer { .. }) | RecoveryError::Record { .. } => {
            NodeError::new(Exit::Refused, what).next("run the newer program; this one would cut off what it cannot read")
        }
        RecoveryError::WrongRoot { .. } => NodeError::new(Exit::Halted, what)
            .means(
                "the block log was executed from its beginning. Either it belongs to another chain than config/genesis.json, or this program \
                 or its application is not the one that the chain runs",
            )
            .next("put the home's own data/log back if it was exchanged; else run the program that the others run"),
        RecoveryError::Diverged { .. } => NodeError::new(Exit::Halted, what)
            .means(format!(
                "the block log was executed again, and the same block came out wrong again: this program, its application or this machine \
                 computes something else than the others. {ASK_TO_QUIT}"
            ))
            .next("run the program that the others run, or another machine; data/audit holds what was found"),
        RecoveryError::App(_) | RecoveryError::Genesis(_) => NodeError::new(Exit::Refused, what),
        RecoveryError::Contradiction(_) | RecoveryError::Unbelievable(_) | RecoveryError::Hole { .. } | RecoveryError::Ahead { .. } => {
            NodeError::new(Exit::Halted, what).next("keep the data folder: it shows a fault of the program")
        }
        _ => disk_failed(what),
    }
}

/// What the system says of a path at which there is another kind of thing than what is opened or made there.
fn is_misplaced(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists)
}

fn disk_failed(what: String) -> NodeError {
    NodeError::new(Exit::Halted, what)
        .means("the disk failed; nothing more is signed on top of it")
        .next("look at the disk (dmesg, smartctl) before starting again")
}

fn not_listening(error: &ShellError, source: &io::Error, key: &str, address: &str) -> NodeError {
    if source.kind() == io::ErrorKind::AddrInUse {
        return NodeError::new(Exit::InUse, error).means("another process listens there").next(format!(
            "stop it, or choose another port: --set {key}={}",
            address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned() + ":PORT"
        ));
    }
    let refused = NodeError::new(Exit::Refused, error);
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            refused.next(format!("give {key} a port from 1024 on; those below are reserved for privileged processes"))
        }
        _ => refused.next(format!("give {key} an address of this machine")),
    }
}

/// SIGTERM when the parent ends, so that no network outlives the program that runs it.
fn stop_with_parent() -> Result<(), NodeError> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|error| NodeError::new(Exit::Failed, format!("the system does not watch the parent process: {error}")))?;
    Ok(())
}
