//! The shell: everything of a node that is not a decision. It owns clocks, files, sockets and threads, carries effects out
//! and hands answers back; what any of it means is the replica's business ([`lockstep_replica::seam`]).
//!
//! ```text
//!  tokio: sockets of peers and clients          threads: one job each, in order
//!   network ─┐                              ┌─ log      appends, one sync for all that waits
//!            ├─> inbox ─> replica ─> effects├─ guard    one record, one sync
//!   clients ─┘     ^        (step)          ├─ execute  runs, builds and judges blocks
//!                  └──────── answers ───────┼─ check    judges transactions
//!                                           ├─ verify   signatures, where there are many
//!                                           ├─ publish  results, what readers see, replies
//!                                           ├─ flush    the state database
//!                                           ├─ snapshot snapshots of checkpoints; old blocks go
//!                                           └─ read     blocks for peers who catch up
//! ```
//!
//! One thread owns the replica and never waits for a disk, a socket or the application. Sockets may fill the inbox only up
//! to a bound (`inbox::EXTERNAL_MAX`); answers always fit, since there are never more than questions.

mod cores;
mod disk;
mod driver;
mod executor;
mod inbox;
mod network;
mod progress;
mod publish;
pub mod readers;
mod room;
mod snapshots;
mod stage;
mod state_sync;
mod verifier;

pub(crate) use self::inbox::{Inbox, Mail};

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use lockstep_app::{Application, Host};
use lockstep_genesis::Genesis;
use lockstep_replica::Replica;
use lockstep_replica::recovery::{self, Opened, Recovered, RecoveryError, Told};
use lockstep_replica::retention::Pruning;
use lockstep_replica::signing::{Me, guard_owner};
use lockstep_replica::snapshots::Leases;
use lockstep_replica::source::BlockSource;
use lockstep_replica::state_sync::{Installed, PASSED_PATH, Staging};
use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::guard::{Guard, GuardError};
use lockstep_storage::log::LogOptions;
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::snapshots::{SnapshotError, Snapshots};
use lockstep_types::quorum::Quorum;
use lockstep_types::{PrivateKey, PublicKey, ValidatorSet};
use thiserror::Error;
use tokio::net::TcpListener;

pub(crate) use self::cores::OnCores;
use self::driver::{Driver, End};
use self::readers::Readers;
use self::room::Room;
use self::snapshots::Keeper;
use self::verifier::Verifier;
use crate::home::{DAMAGED_PATH, GUARD_PATH, LOG_PATH, SNAPSHOTS_PATH, STATE_PATH};
use crate::metrics::Metrics;

/// What a node is started with. Everything was read and checked.
pub struct Options {
    /// The data folder.
    pub disk: RealDisk,
    /// The chain.
    pub genesis: Genesis,
    /// The application.
    pub app: Arc<dyn Application>,
    /// The consensus key; none for a node that only follows.
    pub validator_key: Option<PrivateKey>,
    /// The node key.
    pub node_key: PrivateKey,
    /// What the operator calls the node.
    pub moniker: String,
    /// Where peers are served.
    pub p2p_listen: SocketAddr,
    /// Where peers can reach the node, as it tells them; empty for the listening address.
    pub p2p_external: String,
    /// Peers that are dialled for ever.
    pub persistent_peers: Vec<lockstep_network::PeerAddr>,
    /// Bounds of the network.
    pub p2p_limits: lockstep_network::Limits,
    /// Where clients are served.
    pub rpc_listen: SocketAddr,
    /// How clients are served.
    pub rpc: lockstep_rpc::server::Options,
    /// Bounds of the pool.
    pub mempool: lockstep_mempool::Limits,
    /// A segment of the block log is closed at this size.
    pub segment_bytes: u64,
    /// Keys that may change before the database is written.
    pub flush_keys: u64,
    /// Blocks after which it is written whatever changed.
    pub flush_blocks: u64,
    /// Snapshots that are kept; 0 for making none.
    pub keep_snapshots: usize,
    /// What of the block log may go.
    pub retention: lockstep_replica::retention::Retention,
    /// Where trust begins for a node without blocks that is to begin with a snapshot.
    pub state_sync: lockstep_replica::state_sync::Policy,
}

/// Why a node did not start, or stopped by itself.
#[derive(Debug, Error)]
pub enum ShellError {
    /// The vote guard.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// Snapshots.
    #[error("snapshots: {0}")]
    Snapshots(#[from] SnapshotError),
    /// What the disk holds, taken together.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The peer-to-peer network.
    #[error("peer-to-peer network: {0}")]
    Network(#[from] lockstep_network::StartError),
    /// What the operator trusts is not what is here.
    #[error("the header of height {height} that is to be trusted is {trusted}, and the block that this home has of that height is {ours}")]
    OtherHistory {
        /// The height.
        height: lockstep_types::Height,
        /// The header's hash, as the operator named it.
        trusted: lockstep_types::Hash,
        /// That of the block here.
        ours: lockstep_types::Hash,
    },
    /// A socket for clients.
    #[error("cannot serve clients on {address}: {source}")]
    Rpc {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The server for clients.
    #[error(transparent)]
    Serve(#[from] lockstep_rpc::server::ServeError),
    /// The replica stopped for a reason of its own.
    #[error("the node halted: {0}")]
    Halted(String),
    /// A snapshot was gathered: the home is to be opened again, and the node runs on from it.
    #[error("the node is opened again, with the snapshot of height {0}")]
    Reopens(lockstep_types::Height),
    /// The state is not the chain's: the home is to be opened again, which heals it.
    #[error("the state after height {0} is not the chain's; the node is opened again to make it anew")]
    Diverged(lockstep_types::Height),
    /// The state database is damaged, which was met after the start: the home is to be opened again, which heals it.
    #[error("{0}; the node is opened again to make it anew")]
    Damaged(String),
    /// A thread died. That is a fault of this program.
    #[error("the {0} thread died: this is a fault of the program; its last words are in the log")]
    Thread(&'static str),
}

/// Runs a node until `stop` is done or the replica halts.
///
/// # Errors
/// See [`ShellError`].
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<(), ShellError> {
    let disk: Arc<dyn Disk> = Arc::new(options.disk);
    let genesis_hash = options.genesis.hash();
    // The guard first: a home whose guard is refused is left as it is, and no damage is healed in it.
    let guard = match &options.validator_key {
        Some(key) => Some(Guard::open(&*disk, GUARD_PATH, guard_owner(&genesis_hash, &key.public_key()).0)?),
        None => None,
    };
    if let Some(guard) = guard.as_ref().filter(|guard| guard.repaired_copies() > 0) {
        tracing::warn!(
            copies = guard.repaired_copies(),
            "damaged copies of the vote guard were written again from good ones; look at this disk"
        );
    }
    if let Some(counts) = guard.as_ref().filter(|guard| guard.went_back()).and_then(Guard::last) {
        tracing::warn!(
            height = counts.height,
            round = counts.round,
            step = counts.step,
            "one of the two records of the vote guard does not verify: a power cut tore the last write of it, or this disk lost what was \
             signed last. The other one counts, and the peers are asked for what they have of us; if no power cut came before this start, \
             look at this disk"
        );
    }
    let host = Host::new(options.app.clone());
    let home = recovery::Home {
        disk: disk.clone(),
        log: LOG_PATH,
        state: STATE_PATH,
        damaged: DAMAGED_PATH,
        log_options: LogOptions { salt: salt(&options.node_key), segment_bytes: options.segment_bytes },
        keep_results: true,
        keeps_all_blocks: options.retention.keep_blocks == 0,
        flush_keys: options.flush_keys,
        genesis: &options.genesis,
        host: host.clone(),
        spread: &OnCores,
    };
    let quarantine = Quarantine::new(disk.clone(), DAMAGED_PATH);
    for path in quarantine.untold().map_err(RecoveryError::from)? {
        tracing::warn!(path, "an earlier start set this aside, damaged, and ended before it said so; look at this disk");
    }
    // A file whose damaged copies were written again is one.
    let (mut replayed, mut heals) = (0u64, u64::from(guard.as_ref().is_some_and(|guard| guard.repaired_copies() > 0)));
    let opened = recovery::open(&home, guard.as_ref(), |told| match told {
        Told::Healed(healed) => {
            heals += 1;
            tracing::warn!("{healed}. Paths are below the data folder; look at this disk");
        }
        Told::StateMissing { snapshot: Some(height), tip } => tracing::warn!(
            snapshot = height.get(),
            tip = tip.get(),
            "there is no state database: the state is made again from an own snapshot, and by executing the blocks of the log after it"
        ),
        Told::StateMissing { snapshot: None, tip } => tracing::warn!(
            tip = tip.get(),
            "there is no state database: the state is made again from genesis, by executing all blocks of the log"
        ),
        Told::Executed { outcome, tip, .. } => {
            replayed += 1;
            if replayed.is_multiple_of(PROGRESS_BLOCKS) {
                tracing::info!(height = outcome.height.get(), of = tip.get(), "executing the block log");
            }
        }
    })?;
    if let Err(error) = quarantine.told() {
        tracing::warn!("the next start tells again what was set aside: {error}");
    }
    let Opened { log, log_recovery, db, results: kept, light, recovered: Recovered { restored, executor }, installed, settled, .. } =
        opened;
    for one in &settled {
        tracing::warn!(
            height = one.height.get(),
            report = one.path,
            "the state is the chain's again; the report says what was wrong with it"
        );
    }
    match installed {
        Some(Installed::Restored(height)) => {
            tracing::info!(height = height.get(), "the snapshot is installed; blocks after it are fetched");
            let passed = format!("{PASSED_PATH}/{}", height.get());
            if disk.list(&passed).is_ok_and(|names| !names.is_empty()) {
                tracing::warn!(
                    "storage.keep_blocks is 0, so the blocks that this node had below the snapshot stay, in data/{passed}: the node does not \
                     serve them any more. Move them away, or delete them, as you like"
                );
            }
        }
        Some(Installed::Refused(reason)) => tracing::warn!("the snapshot that was gathered is not installed: {reason}"),
        None => {}
    }
    let kept = kept.expect("results are kept");
    let (store, swept) = Snapshots::open(disk.clone(), SNAPSHOTS_PATH)?;
    snapshots::tell_swept(&swept);
    let mut source = BlockSource::new(log.reader()).with_light(Some(kept.reader()), light.clone());
    for height in recovery::give_up_contradicted(&store, &mut source, &restored)? {
        tracing::warn!(height = height.get(), "the snapshot is removed: its root is not the one that the chain has after this height");
    }
    let flushed = Arc::new(AtomicU64::new(restored.flushed.get()));
    let reader = log.reader();
    let pruning = Pruning::new(log.pruner(), reader.clone(), Some(kept.reader()), light.clone());
    if let Some((height, trusted)) = options.state_sync.root
        && let Some(ours) = reader.decided_hash(height.get()).map(lockstep_types::Hash)
        && ours != trusted
    {
        return Err(ShellError::OtherHistory { height, trusted, ours });
    }
    if log_recovery.truncated_bytes > 0 {
        tracing::warn!(
            bytes = log_recovery.truncated_bytes,
            "the end of the block log was being written when the node stopped; it was cut off"
        );
    }
    if let Some(signed) = guard.as_ref().and_then(Guard::last).map(|last| last.height)
        && signed > restored.chain.height.get() + 1
    {
        tracing::warn!(
            signed,
            log = restored.chain.height.get(),
            "this validator signed at a height that its block log does not reach any more: it signs nothing until peers have given it \
             the blocks between, which it asks for by itself"
        );
    }
    if restored.lacks_what_it_locked() {
        tracing::warn!(
            height = restored.chain.height.get() + 1,
            "this validator signed for a block that its disk has lost since: it decides none in its place until peers have given it that block, \
             which it asks for by itself"
        );
    }
    let (genesis_chain, _, _) = recovery::genesis_state(&host, &options.genesis)?;
    tracing::info!(
        height = restored.chain.height.get(),
        flushed = restored.flushed.get(),
        replayed,
        chain_id = %restored.chain.chain_id,
        "the data folder is read"
    );

    let metrics = Arc::new(Metrics::new());
    metrics.starts_at(restored.chain.height.get(), guard.as_ref(), restored.lacks_what_it_locked());
    metrics.healed(heals);
    metrics.diverged(restored.diverged.len());
    let damage = readers::Damage::new(quarantine.clone(), metrics.clone());
    let readers = Readers::new(
        &options.genesis,
        genesis_chain,
        reader,
        kept.reader(),
        light.clone(),
        host.clone(),
        &restored,
        executor.state().clone(),
        damage,
    );
    let readers = Arc::new(readers);
    let key = options.validator_key.as_ref().map(PrivateKey::public_key);
    let needs_others = !decides_alone(key.as_ref(), &restored.chain.validators);
    if needs_others && options.persistent_peers.is_empty() {
        tracing::warn!(
            "this node has NO PEERS in its configuration: it dials nobody, and hears of the chain only from nodes that dial it. To do: name some in \
             config/config.toml (p2p.persistent_peers), or start it once with a join bundle (--bundle), whose peers it remembers"
        );
    }
    if needs_others {
        // What the chain did meanwhile, others know. Until they have said what they have, this node is not in step, as with CometBFT.
        readers.set_behind(true, restored.chain.height);
        metrics.catching_up(true);
    }
    let me = options.validator_key.as_ref().map(|key| Me { public_key: key.public_key(), address: key.public_key().address() });
    let mut replica = Replica::new(
        lockstep_replica::Config {
            genesis_hash,
            me: me.clone(),
            watches_key: true,
            mempool: options.mempool.clone(),
            flush_keys: options.flush_keys,
            flush_blocks: options.flush_blocks,
            planted: lockstep_replica::planted::Planted::default(),
        },
        restored,
    );
    replica.set_state_sync(options.state_sync);

    let (inbox, inputs) = Inbox::new();
    let (peers, network_events) = network::start(
        &options.genesis,
        options.node_key,
        options.validator_key.as_ref(),
        network::Listen {
            address: options.p2p_listen,
            external: options.p2p_external,
            moniker: options.moniker.clone(),
            rpc_address: options.rpc_listen.to_string(),
            persistent_peers: options.persistent_peers,
            limits: options.p2p_limits,
        },
    )
    .await?;
    let rpc_error = |source| ShellError::Rpc { address: options.rpc_listen, source };
    let listener = TcpListener::bind(options.rpc_listen).await.map_err(rpc_error)?;
    let backend = Arc::new(crate::backend::NodeBackend::new(
        readers.clone(),
        inbox.clone(),
        peers.clone(),
        crate::backend::Identity {
            moniker: options.moniker,
            listen_addr: peers.listening().to_string(),
            rpc_address: listener.local_addr().map_err(rpc_error)?.to_string(),
            validator_key: me.map(|me| me.public_key),
        },
    ));
    let mut rpc = options.rpc;
    rpc.routes = rpc.routes.merge(metrics.clone().routes());
    let server = lockstep_rpc::server::serve(listener, backend, rpc)?;
    tracing::info!(rpc = %server.local_addr(), p2p = %peers.listening(), node = %peers.node_id(), "serving");

    let (halted, mut on_halt) = tokio::sync::watch::channel(None::<End>);
    let mut threads = Threads::default();
    let room = Room::new(metrics.clone());
    readers.look_at(room.clone());
    let log_thread = disk::log_thread(&mut threads, log, inbox.clone(), room.clone());
    let guard_thread = guard.map(|guard| disk::guard_thread(&mut threads, guard, inbox.clone()));
    let kept = Arc::new(std::sync::Mutex::new(kept));
    let leases = Arc::<Leases>::default();
    let keeper = Keeper {
        leases: leases.clone(),
        store: store.clone(),
        genesis_hash,
        keep: options.keep_snapshots,
        light: light.clone(),
        retention: options.retention,
        pruning,
        kept: kept.clone(),
        flushed: flushed.clone(),
        readers: readers.clone(),
        inbox: inbox.clone(),
        room: room.clone(),
        metrics: metrics.clone(),
    };
    let checkpoints = snapshots::thread(&mut threads, keeper);
    let database = executor::Database { db, kept: kept.clone(), flushed, quarantine };
    let execute = executor::threads(&mut threads, executor, database, checkpoints, readers.clone(), inbox.clone(), room.clone());
    let check = executor::check_thread(&mut threads, host, readers.clone(), inbox.clone());
    let verifier = Verifier::new(&mut threads, inbox.clone());
    let read = disk::read_thread(&mut threads, light, store, leases, readers.clone(), inbox.clone());
    let stage = stage::thread(&mut threads, disk.clone(), genesis_hash, readers.clone(), inbox.clone());
    let publish = publish::thread(&mut threads, kept, readers.clone(), inbox.clone(), metrics.clone(), room.clone());
    let network_task = tokio::spawn(network::receive(network_events, peers.clone(), inbox.clone(), metrics.clone()));
    let driver = Driver {
        replica,
        key: options.validator_key,
        inputs,
        network: peers.clone(),
        log: log_thread,
        guard: guard_thread,
        execute,
        check,
        verifier,
        read,
        stage,
        publish,
        metrics: metrics.clone(),
        halted,
        disk: disk.clone(),
        room,
    };
    threads.spawn("replica", move || driver.run());

    let mut stop = std::pin::pin!(stop);
    let reason = tokio::select! {
        () = &mut stop => None,
        reason = on_halt.wait_for(Option::is_some) => reason.ok().and_then(|reason| reason.clone()),
        thread = threads.first_dead() => {
            tracing::error!(thread, "a thread died");
            inbox.close();
            return Err(ShellError::Thread(thread));
        }
    };
    if let Some(reason) = reason {
        if let End::Halted(_) = &reason {
            tracing::info!("halting");
        }
        if let End::InDoubt(reason) = &reason {
            // A process that ends would be started again, and again; one that stays says why it does nothing to whoever asks.
            tracing::error!("{reason}. This node stays up to say so, until it is stopped");
            metrics.in_doubt();
            readers.doubt(reason);
            peers.shutdown().await;
            stop.await;
        }
        server.shutdown().await;
        peers.shutdown().await;
        network_task.abort();
        inbox.close();
        threads.join();
        return Err(match reason {
            End::Halted(reason) | End::InDoubt(reason) => ShellError::Halted(reason),
            // By now nobody goes on with the blocks that are here.
            End::Reopens(height) => match Staging::open(disk, genesis_hash).and_then(|staging| staging.mark()) {
                Ok(()) => ShellError::Reopens(height),
                Err(error) => ShellError::Recovery(error.into()),
            },
            End::Heals(height) => ShellError::Diverged(height),
            End::Mends(reason) => ShellError::Damaged(reason),
        });
    }
    tracing::info!("stopping");
    let mut calls_end = std::pin::pin!(server.shutdown());
    let all_told = tokio::time::timeout(LAST_COMMITS, &mut calls_end).await.is_ok();
    hand_over(&inbox, &peers).await;
    if !all_told {
        // Whoever still waits for a commit is told now that the node stops.
        inbox.close();
        calls_end.await;
    }
    peers.shutdown().await;
    network_task.abort();
    inbox.close();
    threads.join();
    tracing::info!("stopped");
    Ok(())
}

/// Whether no block is decided without this key, and every one with it.
fn decides_alone(key: Option<&PublicKey>, validators: &ValidatorSet) -> bool {
    let own = key.and_then(|key| validators.iter().find(|validator| validator.public_key == *key));
    own.is_some_and(|own| Quorum::Byzantine.is_quorum(own.power, validators.total_power()))
}

/// How long a node that is asked to stop goes on deciding for clients that wait for a commit. A few blocks, if the others run;
/// when all of them stop at once, no further block comes.
const LAST_COMMITS: Duration = Duration::from_secs(1);

/// How long a node that stops waits until its peers have what waits in its pool. Longer than a full queue takes on a slow link would
/// keep an operator waiting; nothing that was acknowledged as committed depends on it.
const HAND_OVER: Duration = Duration::from_secs(1);
/// Between two looks at what still waits to be written to peers.
const HAND_OVER_LOOK: Duration = Duration::from_millis(5);

/// Tells the peers what waits in the pool, and waits until it is written.
async fn hand_over(inbox: &Inbox, network: &lockstep_network::Network) {
    let (reply, told) = tokio::sync::oneshot::channel();
    inbox.put(Mail::HandOver { reply });
    let written = async {
        // A replica that is gone tells nothing.
        if told.await.is_ok() {
            while network.peers().iter().any(|peer| peer.bulk.queued.frames > 0) {
                tokio::time::sleep(HAND_OVER_LOOK).await;
            }
        }
    };
    if tokio::time::timeout(HAND_OVER, written).await.is_err() {
        tracing::warn!("not every peer took what waits in the pool before this node stops");
    }
}

/// Blocks of the log that are executed at a start between two lines that say how far it is.
const PROGRESS_BLOCKS: u64 = 1_000;

/// Keys the checksums of a new log with something that no peer can know.
fn salt(node_key: &PrivateKey) -> [u8; 32] {
    lockstep_types::Hash::of_parts(&[b"lockstep log salt", &*node_key.seed()]).0
}

/// The threads of a node.
#[derive(Default)]
pub(crate) struct Threads {
    running: Vec<(&'static str, JoinHandle<()>)>,
}

impl Threads {
    /// Starts a thread. It ends when its channel does.
    pub(crate) fn spawn(&mut self, name: &'static str, run: impl FnOnce() + Send + 'static) {
        let handle = std::thread::Builder::new().name(format!("lockstep-{name}")).spawn(run).expect("the system starts threads");
        self.running.push((name, handle));
    }

    /// Waits for all of them.
    fn join(self) {
        for (name, thread) in self.running.into_iter().rev() {
            if thread.join().is_err() {
                tracing::error!(name, "a thread panicked");
            }
        }
    }

    /// The first that ends while the node runs.
    async fn first_dead(&self) -> &'static str {
        loop {
            if let Some((name, _)) = self.running.iter().find(|(_, thread)| thread.is_finished()) {
                return name;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
