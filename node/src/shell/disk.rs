//! The threads that own files. Each takes all that waits, writes it, syncs once, and answers for all of it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use lockstep_replica::Input;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::seam::{JobId, LogRecord, ReadAnswer, ReadQuestion, Ticket, Write};
use lockstep_replica::snapshots::{Leases, Stored};
use lockstep_replica::source::BlockSource;
use lockstep_storage::guard::Guard;
use lockstep_storage::log::{BlockLog, LogError, Preallocator, Record};
use lockstep_storage::snapshots::Snapshots;

use super::Threads;
use super::inbox::Inbox;
use super::readers::Readers;
use super::room::{LOOK, LOOK_MAX, Lacking, Room};
use super::snapshots::clock_ms;

/// Records and tickets for the log.
pub(crate) type LogJob = (Ticket, Vec<LogRecord>);
/// A record and its ticket for the guard.
pub(crate) type GuardJob = (Ticket, Write);
/// A question and what joins its answer.
pub(crate) type ReadJob = (JobId, ReadQuestion);

/// Bytes of records that may wait for room on the disk behind the one that found none, of whatever length; blocks, what came of them and their parts take some eight times as much memory. What waits is what others decided meanwhile; with more of it the node
/// stops, and a restart fetches it again.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// Writes the block log. A write that fails for want of space has done nothing and is made again when there is room; any other
/// failed write, and every failed sync, is never retried: it is reported and the thread does nothing more.
pub(crate) fn log_thread(threads: &mut Threads, log: BlockLog, inbox: Inbox, room: Room) -> Sender<LogJob> {
    let (sender, receiver) = channel::<LogJob>();
    let preallocate = preallocate_thread(threads, log.preallocator(), inbox.clone(), room.clone());
    threads.spawn("log", move || run_log(log, &receiver, &inbox, &room, LOOK, || _ = preallocate.try_send(())));
    sender
}

/// The log's thread. `written` is called after each sync: one nudge to make the next segment is enough.
fn run_log(mut log: BlockLog, receiver: &Receiver<LogJob>, inbox: &Inbox, room: &Room, look: Duration, written: impl Fn()) {
    while let Some(mut jobs) = next_batch(receiver) {
        match write_log(&mut log, &mut jobs, receiver, room, look) {
            Ok(true) => jobs.iter().for_each(|(ticket, _)| inbox.answer(Input::Durable { ticket: *ticket })),
            // The node stops before there is room: what was not written was told to nobody.
            Ok(false) => return,
            Err(error) => {
                inbox.answer(Input::DiskFailed { reason: reason_of(&error) });
                while receiver.recv().is_ok() {}
                return;
            }
        }
        written();
    }
    if let Err(error) = log.mark() {
        tracing::warn!(%error, "the block log could not be closed cleanly; nothing is lost by that");
    }
}

fn reason_of(error: &LogError) -> String {
    match error {
        LogError::NoSpace(error) => {
            format!("there is no room on the disk ({error}), and too much waits for it; make room, then start again")
        }
        other => other.to_string(),
    }
}

/// Makes room for the next segment on a thread of its own: it writes a whole segment of zeros, and nobody must wait for that.
fn preallocate_thread(threads: &mut Threads, preallocator: Preallocator, inbox: Inbox, room: Room) -> SyncSender<()> {
    let (sender, receiver) = sync_channel::<()>(1);
    threads.spawn("preallocate", move || {
        while receiver.recv().is_ok() {
            let mut wait = LOOK;
            loop {
                match preallocator.preallocate_next() {
                    Ok(()) => {
                        room.note(Lacking::NextSegment, false);
                        break;
                    }
                    Err(LogError::NoSpace(_)) => room.note(Lacking::NextSegment, true),
                    Err(error) => {
                        // A disk that cannot write zeros cannot be trusted with votes.
                        inbox.answer(Input::DiskFailed { reason: error.to_string() });
                        while receiver.recv().is_ok() {}
                        return;
                    }
                }
                if !pause(&receiver, wait) {
                    return;
                }
                wait = (2 * wait).min(LOOK_MAX);
            }
        }
    });
    sender
}

/// Waits this long, whatever nudges come; false when the node stops.
fn pause(receiver: &Receiver<()>, wait: Duration) -> bool {
    let until = std::time::Instant::now() + wait;
    loop {
        match receiver.recv_timeout(until.saturating_duration_since(std::time::Instant::now())) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Appends all and syncs once. Without room it waits, and takes in what comes meanwhile: appended in order, once there is
/// room. False when the node stops first.
fn write_log(
    log: &mut BlockLog,
    jobs: &mut Vec<LogJob>,
    receiver: &Receiver<LogJob>,
    room: &Room,
    look: Duration,
) -> Result<bool, LogError> {
    let began = std::time::Instant::now();
    let (mut job, mut record) = (0, 0);
    while job < jobs.len() {
        let Some(next) = jobs[job].1.get(record) else {
            (job, record) = (job + 1, 0);
            continue;
        };
        let appended = log.append(Record {
            kind: next.kind,
            height: next.height.get(),
            round: next.round.get(),
            block_hash: next.block_hash.0,
            payload: &next.payload,
        });
        match appended {
            Ok(_) => record += 1,
            Err(LogError::NoSpace(error)) => {
                room.note(Lacking::Record, true);
                let waiting: usize = jobs[job + 1..].iter().flat_map(|(_, records)| records).map(|record| record.payload.len()).sum();
                if waiting > WAITING_BYTES_MAX {
                    return Err(LogError::NoSpace(error));
                }
                match receiver.recv_timeout(look) {
                    Ok(more) => jobs.push(more),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(false),
                }
            }
            Err(error) => return Err(error),
        }
    }
    room.note(Lacking::Record, false);
    let appended = began.elapsed();
    let synced = log.sync().map(|_| true);
    tracing::debug!(writes = jobs.len(), ?appended, whole = ?began.elapsed(), "log synced");
    synced
}

/// Writes the vote guard.
pub(crate) fn guard_thread(threads: &mut Threads, mut guard: Guard, inbox: Inbox) -> Sender<GuardJob> {
    let (sender, receiver) = channel::<GuardJob>();
    threads.spawn("guard", move || {
        while let Ok((ticket, write)) = receiver.recv() {
            let began = std::time::Instant::now();
            let written = match write {
                Write::Guard(record) => guard.write(&record),
                Write::GuardFloor(height) => guard.resume_above(height.get()),
                Write::Log(_) => unreachable!("the driver sends records of the log to the log"),
            };
            tracing::debug!(whole = ?began.elapsed(), "guard written");
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
pub(crate) fn read_thread(
    threads: &mut Threads,
    light: LightStore,
    snapshots: Snapshots,
    leases: Arc<Leases>,
    readers: Arc<Readers>,
    inbox: Inbox,
) -> Sender<ReadJob> {
    let (sender, receiver) = channel::<ReadJob>();
    threads.spawn("read", move || {
        let stored = Stored::new(snapshots, leases, clock_ms);
        let mut source = BlockSource::new(readers.log()).with_light(Some(readers.results_reader()), light).with_snapshots(Box::new(stored));
        while let Ok((job, what)) = receiver.recv() {
            let answer = read(&mut source, what, &readers);
            inbox.answer(Input::ReadDone { job, answer });
        }
    });
    sender
}

/// What a peer asked for. Of blocks, those before the first that cannot be read back: others have that one.
fn read(source: &mut BlockSource, what: ReadQuestion, readers: &Readers) -> ReadAnswer {
    let mut what = what;
    loop {
        match (source.read(&what), &mut what) {
            (Ok(answer), _) => return answer,
            (Err(error), ReadQuestion::Blocks { count, .. }) if *count > 1 => {
                readers.met(error);
                *count /= 2;
            }
            (Err(error), _) => {
                readers.met(error);
                return ReadAnswer::Blocks(Vec::new());
            }
        }
    }
}

/// All that waits, at least one; none when the channel is closed.
fn next_batch<T>(receiver: &Receiver<T>) -> Option<Vec<T>> {
    let mut batch = vec![receiver.recv().ok()?];
    batch.extend(receiver.try_iter());
    Some(batch)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use bytes::Bytes;
    use lockstep_replica::Input;
    use lockstep_replica::seam::{LogRecord, Ticket};
    use lockstep_sim::disk::{Fault, SimDisk, Survival};
    use lockstep_storage::log::{BlockLog, Kind, LogOptions};
    use lockstep_types::{Hash, Height, Round};

    use super::super::inbox::{Inbox, Inputs, Mail};
    use super::super::room::Room;
    use super::{LogJob, WAITING_BYTES_MAX, run_log};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn open(disk: &SimDisk) -> BlockLog {
        BlockLog::open(disk.disk(), "log", LogOptions { salt: [1; 32], segment_bytes: 1 << 20 }).expect("a sound log").0
    }

    fn body(number: u64) -> LogJob {
        let hash = Hash::of(number.to_le_bytes());
        let payload = Bytes::from(vec![1; 100]);
        (Ticket(number), vec![LogRecord { kind: Kind::Body, height: Height::FIRST, round: Round::ZERO, block_hash: hash, payload }])
    }

    /// A log thread on a disk, what it is told, what it answers, and whether it says that there is room.
    fn thread(disk: &SimDisk) -> (mpsc::Sender<LogJob>, Inputs, Room, std::thread::JoinHandle<()>) {
        let (sender, receiver) = channel();
        let (inbox, inputs) = Inbox::new();
        let room = Room::new(Arc::default());
        let (log, noted) = (open(disk), room.clone());
        let run = std::thread::spawn(move || run_log(log, &receiver, &inbox, &noted, Duration::from_millis(1), || {}));
        (sender, inputs, room, run)
    }

    fn next(inputs: &Inputs) -> Input {
        match inputs.mail.recv_timeout(PATIENCE) {
            Ok((Mail::Own(input), _)) => input,
            _ => panic!("no answer"),
        }
    }

    fn wait_for(room: &Room, wanted: bool) {
        let until = std::time::Instant::now() + PATIENCE;
        while room.is_there() != wanted {
            assert!(std::time::Instant::now() < until, "room is never {wanted}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_finds_no_room_waits_and_is_durable_once_there_is() {
        let disk = SimDisk::new();
        let (sender, inputs, room, run) = thread(&disk);
        disk.set_full(true);
        sender.send(body(1)).expect("it listens");
        wait_for(&room, false);
        sender.send(body(2)).expect("it listens");
        assert!(inputs.mail.try_recv().is_err(), "nothing is durable that has no room");
        disk.set_full(false);
        for number in 1..=2 {
            assert!(matches!(next(&inputs), Input::Durable { ticket } if ticket == Ticket(number)), "in order");
        }
        wait_for(&room, true);
        drop(sender);
        run.join().expect("it ends");
        disk.crash(Survival::None, 0);
        let log = open(&disk);
        for number in 1..=2u64 {
            assert!(log.reader().body(&Hash::of(number.to_le_bytes()).0).expect("a read").is_some(), "it was said to be durable");
        }
    }

    /// A body of as many bytes.
    fn large(number: u64, bytes: usize) -> LogJob {
        let (ticket, mut records) = body(number);
        records[0].payload = Bytes::from(vec![1; bytes]);
        (ticket, records)
    }

    /// One block may be larger than all that may wait behind it.
    #[test]
    fn what_waits_behind_a_block_without_room_is_bounded_and_the_block_is_not() {
        let disk = SimDisk::new();
        let (sender, inputs, room, run) = thread(&disk);
        disk.set_full(true);
        sender.send(large(1, WAITING_BYTES_MAX + 1)).expect("it listens");
        wait_for(&room, false);
        sender.send(large(2, WAITING_BYTES_MAX)).expect("it listens");
        sender.send(body(3)).expect("it listens");
        assert!(matches!(next(&inputs), Input::DiskFailed { .. }), "the third is one too many");
        drop(sender);
        run.join().expect("it ends");

        let (disk, alone) = (SimDisk::new(), WAITING_BYTES_MAX + 1);
        let (sender, inputs, room, run) = thread(&disk);
        disk.set_full(true);
        sender.send(large(1, alone)).expect("it listens");
        wait_for(&room, false);
        disk.set_full(false);
        assert!(matches!(next(&inputs), Input::Durable { .. }), "alone it waits, however large");
        drop(sender);
        run.join().expect("it ends");
    }

    #[test]
    fn a_node_that_stops_without_room_says_nothing_of_what_was_not_written() {
        let disk = SimDisk::new();
        let (sender, inputs, room, run) = thread(&disk);
        disk.set_full(true);
        sender.send(body(1)).expect("it listens");
        wait_for(&room, false);
        drop(sender);
        run.join().expect("it ends");
        assert!(inputs.mail.try_recv().is_err());
    }

    /// After a failed sync nobody knows what is on the disk: it is told once, and nothing is ever written again.
    #[test]
    fn a_failed_sync_is_told_and_never_tried_again() {
        let disk = SimDisk::new();
        let (sender, inputs, _, run) = thread(&disk);
        sender.send(body(1)).expect("it listens");
        assert!(matches!(next(&inputs), Input::Durable { .. }));
        let operations = disk.operations();
        // The write is the next operation, and the sync the one after.
        disk.fault_at(operations + 1, Fault::Broken, 0);
        sender.send(body(2)).expect("it listens");
        assert!(matches!(next(&inputs), Input::DiskFailed { .. }));
        sender.send(body(3)).expect("it listens, and does nothing");
        drop(sender);
        run.join().expect("it ends");
        assert!(inputs.mail.try_recv().is_err());
        assert_eq!(disk.operations(), operations + 2, "nothing is written after it");
    }
}
