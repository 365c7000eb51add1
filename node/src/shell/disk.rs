//! The threads that own files. Each takes all that waits, writes it, syncs once, and answers for all of it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use lockstep_replica::Input;
use lockstep_replica::seam::{JobId, LogRecord, ReadAnswer, ReadQuestion, Ticket, Write};
use lockstep_replica::source::BlockSource;
use lockstep_storage::guard::Guard;
use lockstep_storage::log::{BlockLog, LogError, Preallocator, Record};

use super::Threads;
use super::inbox::Inbox;
use super::readers::Readers;

/// Records and tickets for the log.
pub(crate) type LogJob = (Ticket, Vec<LogRecord>);
/// A record and its ticket for the guard.
pub(crate) type GuardJob = (Ticket, Write);
/// A question and what joins its answer.
pub(crate) type ReadJob = (JobId, ReadQuestion);

/// Writes the block log. A failed write or sync is never retried: it is reported and the thread does nothing more.
pub(crate) fn log_thread(threads: &mut Threads, mut log: BlockLog, inbox: Inbox) -> Sender<LogJob> {
    let (sender, receiver) = channel::<LogJob>();
    let preallocate = preallocate_thread(threads, log.preallocator());
    threads.spawn("log", move || {
        while let Some(jobs) = next_batch(&receiver) {
            let began = std::time::Instant::now();
            let written = write_log(&mut log, &jobs);
            tracing::debug!(writes = jobs.len(), took = ?began.elapsed(), "log synced");
            match written {
                Ok(()) => jobs.iter().for_each(|(ticket, _)| inbox.answer(Input::Durable { ticket: *ticket })),
                Err(error) => {
                    inbox.answer(Input::DiskFailed { reason: error.to_string() });
                    while receiver.recv().is_ok() {}
                    return;
                }
            }
            // One nudge is enough: a full channel means that it is at it already.
            let _ = preallocate.try_send(());
        }
        if let Err(error) = log.mark() {
            tracing::warn!(%error, "the block log could not be closed cleanly; nothing is lost by that");
        }
    });
    sender
}

/// Makes room for the next segment on a thread of its own: it writes a whole segment of zeros, and nobody must wait for that.
fn preallocate_thread(threads: &mut Threads, preallocator: Preallocator) -> SyncSender<()> {
    let (sender, receiver) = sync_channel::<()>(1);
    threads.spawn("preallocate", move || {
        while receiver.recv().is_ok() {
            if let Err(error) = preallocator.preallocate_next() {
                tracing::warn!(%error, "no room for the next segment of the block log");
            }
        }
    });
    sender
}

fn write_log(log: &mut BlockLog, jobs: &[LogJob]) -> Result<(), LogError> {
    for record in jobs.iter().flat_map(|(_, records)| records) {
        log.append(Record {
            kind: record.kind,
            height: record.height.get(),
            round: record.round.get(),
            block_hash: record.block_hash.0,
            payload: &record.payload,
        })?;
    }
    log.sync().map(drop)
}

/// Writes the vote guard.
pub(crate) fn guard_thread(threads: &mut Threads, mut guard: Guard, inbox: Inbox) -> Sender<GuardJob> {
    let (sender, receiver) = channel::<GuardJob>();
    threads.spawn("guard", move || {
        while let Ok((ticket, write)) = receiver.recv() {
            let written = match write {
                Write::Guard(record) => guard.write(&record),
                Write::GuardFloor(height) => guard.resume_above(height.get()),
                Write::Log(_) => unreachable!("the driver sends records of the log to the log"),
            };
            match written {
                Ok(()) => inbox.answer(Input::Durable { ticket }),
                Err(error) => {
                    inbox.answer(Input::DiskFailed { reason: error.to_string() });
                    while receiver.recv().is_ok() {}
                    return;
                }
            }
        }
    });
    sender
}

/// Reads blocks for peers.
pub(crate) fn read_thread(threads: &mut Threads, readers: Arc<Readers>, inbox: Inbox) -> Sender<ReadJob> {
    let (sender, receiver) = channel::<ReadJob>();
    threads.spawn("read", move || {
        let mut source = BlockSource::new(readers.log());
        while let Ok((job, what)) = receiver.recv() {
            let answer = source.read(&what).unwrap_or_else(|error| {
                tracing::error!(%error, ?what, "what a peer asked for cannot be read");
                ReadAnswer::Blocks(Vec::new())
            });
            inbox.answer(Input::ReadDone { job, answer });
        }
    });
    sender
}

/// All that waits, at least one; none when the channel is closed.
fn next_batch<T>(receiver: &Receiver<T>) -> Option<Vec<T>> {
    let mut batch = vec![receiver.recv().ok()?];
    batch.extend(receiver.try_iter());
    Some(batch)
}
