//! The threads that run the application and keep its state.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockstep_app::{CheckKind, Host};
use lockstep_mempool::TxBytes;
use lockstep_replica::audit::Trace;
use lockstep_replica::check::{BuildJob, CheckJob};
use lockstep_replica::execution::{ExecuteJob, Executor, FlushBatch};
use lockstep_replica::seam::JobId;
use lockstep_replica::{ChainState, Input};
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::results::Results;
use lockstep_storage::state::{Change, StateDb, StateError};
use lockstep_types::crypto::verify_batch;
use lockstep_types::state_tree::Path;
use lockstep_types::{Evidence, Height};

use super::Threads;
use super::inbox::{Inbox, Mail};
use super::readers::Readers;
use super::room::Room;
use super::snapshots::Checkpoints;

/// Between two looks whether the results that a flush needs are kept. They nearly always are.
const RESULTS_LOOK: Duration = Duration::from_millis(5);
/// How many such looks a node that ends is worth: without the flush its next start executes some blocks again.
const RESULTS_LOOKS_AT_END: u32 = 200;

/// Work for the executor.
pub(crate) enum ExecutorJob {
    /// Execute a decided block.
    Execute(JobId, Box<ExecuteJob>),
    /// Build a block.
    Build(JobId, Box<BuildJob>),
    /// Judge a body.
    Check(JobId, Box<CheckJob>),
    /// Judge a piece of evidence, completed first where asked for.
    Judge(JobId, Box<Evidence>, Arc<ChainState>, bool),
    /// Say what was made of the last block.
    Trace(Sender<Option<Trace>>),
    /// Hand the changes up to a height to the database.
    Flush(Height, Arc<ChainState>),
}

impl ExecutorJob {
    /// What it is, for the log.
    const fn name(&self) -> &'static str {
        match self {
            Self::Execute(..) => "execute",
            Self::Build(..) => "build",
            Self::Check(..) => "check",
            Self::Judge(..) => "judge",
            Self::Trace(..) => "trace",
            Self::Flush(..) => "flush",
        }
    }
}

/// Transactions to judge, and whether each was accepted before.
pub(crate) type CheckTxsJob = (JobId, Vec<TxBytes>, bool);

/// The executor, and behind it the thread that writes the database: a flush takes as long as it takes, and blocks go on.
pub(crate) fn threads(
    threads: &mut Threads,
    mut executor: Executor,
    database: Database,
    checkpoints: Checkpoints,
    readers: Arc<Readers>,
    inbox: Inbox,
    room: Room,
) -> Sender<ExecutorJob> {
    let flush = flush_thread(threads, database, inbox.clone(), room);
    let (sender, receiver) = channel::<ExecutorJob>();
    threads.spawn("execute", move || {
        while let Ok(job) = receiver.recv() {
            let (what, began) = (job.name(), std::time::Instant::now());
            match job {
                ExecutorJob::Execute(job, execute) => {
                    let outcome = executor.execute(&execute).map(Box::new).map_err(|error| error.to_string());
                    if outcome.as_ref().is_ok_and(|outcome| outcome.checkpoint) {
                        checkpoints.reached(executor.state());
                    }
                    readers.put_state(executor.state().clone());
                    inbox.answer(Input::Executed { job, outcome });
                }
                ExecutorJob::Build(job, request) => {
                    let built = Box::new(executor.build(&request, &mut verify_batch));
                    inbox.answer(Input::Built { job, built });
                }
                ExecutorJob::Check(job, request) => {
                    let verdict = executor.check(&request, &mut verify_batch);
                    inbox.answer(Input::Checked { job, verdict });
                }
                ExecutorJob::Judge(job, mut evidence, chain, complete) => {
                    let verdict = executor.judge(&mut evidence, &chain, complete, &mut verify_batch);
                    inbox.answer(Input::Judged { job, evidence, verdict });
                }
                // Who asked waits for it.
                ExecutorJob::Trace(reply) => drop(reply.send(executor.trace())),
                ExecutorJob::Flush(height, chain) => {
                    // The receiver lives as long as this thread's sender.
                    let _ = flush.send((executor.take_flush(height), chain));
                }
            }
            tracing::debug!(what, took = ?began.elapsed(), "job done");
        }
    });
    sender
}

/// The state database and what it depends on.
pub(crate) struct Database {
    pub(crate) db: StateDb,
    pub(crate) kept: Arc<Mutex<Results>>,
    /// The height that it holds, for whoever prunes.
    pub(crate) flushed: Arc<AtomicU64>,
    /// Where it is noted that the next opening is to look at everything.
    pub(crate) quarantine: Quarantine,
}

/// Why the database cannot be written.
enum Unwritten {
    /// It, or the results before it, met an error of the disk.
    Disk(String),
    /// It is not what was written. The log has everything that it is made of.
    Damaged(String),
}

impl From<StateError> for Unwritten {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Damaged { .. } => Self::Damaged(error.to_string()),
            error => Self::Disk(error.to_string()),
        }
    }
}

fn flush_thread(
    threads: &mut Threads,
    Database { mut db, kept, flushed, quarantine }: Database,
    inbox: Inbox,
    room: Room,
) -> Sender<(FlushBatch, Arc<ChainState>)> {
    let (sender, receiver) = channel::<(FlushBatch, Arc<ChainState>)>();
    threads.spawn("flush", move || {
        let ends = |why| {
            match why {
                Unwritten::Disk(reason) => inbox.answer(Input::DiskFailed { reason }),
                Unwritten::Damaged(reason) => {
                    if let Err(error) = quarantine.suspect() {
                        tracing::warn!(%error, "the next start cannot be told to verify everything");
                    }
                    inbox.put(Mail::Mend { reason });
                }
            }
            while receiver.recv().is_ok() {}
        };
        // The start believed what it read, and left this to be done beside the first blocks.
        let began = std::time::Instant::now();
        match db.check_pages() {
            Ok(()) => tracing::info!(took = ?began.elapsed(), "every page of the state database verifies"),
            Err(error) => return ends(error.into()),
        }
        while let Ok((batch, chain)) = receiver.recv() {
            // A commit that fails for want of space may have happened, and ends the node: better not to begin it. And the results up
            // to this height are kept by another thread, which may wait for room too.
            let mut looks = 0..RESULTS_LOOKS_AT_END;
            while !room.is_there() || kept.lock().expect("no holder panics").reader().last_height() < Some(batch.height.get()) {
                if inbox.is_closed() && (!room.is_there() || looks.next().is_none()) {
                    tracing::info!(height = %batch.height, "the state is not written: the next start executes again what it lacks");
                    return;
                }
                std::thread::sleep(RESULTS_LOOK);
            }
            // Results are rebuilt by executing from the flushed height on, so what lies below must be durable first.
            let synced = kept.lock().expect("no holder panics").sync().map_err(|error| Unwritten::Disk(error.to_string()));
            match synced.and_then(|()| Ok(write_state(&mut db, &batch, &chain)?)) {
                Ok(()) => {
                    flushed.store(batch.height.get(), Ordering::Release);
                    inbox.answer(Input::Flushed { height: batch.height });
                }
                Err(why) => return ends(why),
            }
        }
    });
    sender
}

fn write_state(db: &mut StateDb, batch: &FlushBatch, chain: &ChainState) -> Result<(), StateError> {
    let mut changes: Vec<_> = batch.changes.iter().map(|(key, value)| (Path::of(key), key, value)).collect();
    changes.sort_unstable_by_key(|(path, ..)| *path);
    let changes = changes.iter().map(|(path, key, value)| Change { path: path.0, key, value: value.map(|value| &value[..]) });
    db.flush(batch.height.get(), changes, &chain.encode())
}

/// Judges transactions on the newest state, beside the executor.
pub(crate) fn check_thread(threads: &mut Threads, host: Host, readers: Arc<Readers>, inbox: Inbox) -> Sender<CheckTxsJob> {
    let (sender, receiver) = channel::<CheckTxsJob>();
    threads.spawn("check", move || {
        while let Ok((job, txs, recheck)) = receiver.recv() {
            let state = readers.newest_state();
            let kind = if recheck { CheckKind::Recheck } else { CheckKind::New };
            let verdicts = txs.iter().map(|tx| host.check_tx(&state, tx, kind)).collect();
            inbox.answer(Input::TxsChecked { job, verdicts });
        }
    });
    sender
}
