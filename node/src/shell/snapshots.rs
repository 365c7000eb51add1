//! The thread that makes snapshots of checkpoints and lets old blocks go: everything about the disk that nobody waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use lockstep_app::State;
use lockstep_replica::Input;
use lockstep_replica::light_store::LightStore;
use lockstep_replica::recovery::RecoveryError;
use lockstep_replica::retention::{Needs, Pruning, Retention};
use lockstep_replica::snapshots::{Leases, MakeError, Progress, keep_newest, make};
use lockstep_storage::results::Results;
use lockstep_storage::snapshots::{Snapshots, Swept};
use lockstep_types::{Hash, Height};

use super::Threads;
use super::inbox::Inbox;
use super::readers::Readers;
use super::room::Room;
use crate::metrics::Metrics;

/// Between two looks whether old blocks may go.
const LOOK: Duration = Duration::from_secs(1);
/// Between two lines that say how far a snapshot is.
const PROGRESS: Duration = Duration::from_secs(10);
/// The thread rests for so many times as long as it worked. A snapshot has until the next checkpoint; blocks have not.
const REST: u32 = 2;
/// The shortest rest that is worth a call, and the longest.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(250);

/// What the thread works with.
pub(crate) struct Keeper {
    pub(crate) store: Snapshots,
    pub(crate) leases: Arc<Leases>,
    pub(crate) genesis_hash: Hash,
    /// Snapshots that are kept; 0 for making none.
    pub(crate) keep: usize,
    /// Headers of blocks that are gone.
    pub(crate) light: LightStore,
    pub(crate) retention: Retention,
    pub(crate) pruning: Pruning,
    pub(crate) kept: Arc<Mutex<Results>>,
    /// The height that the state database holds.
    pub(crate) flushed: Arc<AtomicU64>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) inbox: Inbox,
    pub(crate) room: Room,
    pub(crate) metrics: Arc<Metrics>,
}

/// States of checkpoints, for the thread. A clone is the same way.
#[derive(Clone)]
pub(crate) struct Checkpoints(SyncSender<State>);

impl Checkpoints {
    /// The state after a checkpoint. While the snapshot of an earlier one is still being made, one waits, and further ones are
    /// passed over: the newest comes soon enough.
    pub(crate) fn reached(&self, state: &State) {
        if self.0.try_send(state.clone()).is_err() {
            tracing::warn!(
                height = state.height().get(),
                "no snapshot of this checkpoint: those before it are still being made; checkpoints come faster than this disk takes them"
            );
        }
    }
}

/// Tells what opening the snapshots found.
pub(crate) fn tell_swept(swept: &Swept) {
    if !swept.damaged.is_empty() {
        tracing::warn!(heights = ?swept.damaged, "snapshots were damaged and are removed; look at this disk");
    }
    if swept.files > 0 {
        tracing::info!(files = swept.files, "what was left of snapshots that were not finished is removed");
    }
}

/// Milliseconds since somebody first asked.
pub(crate) fn clock_ms() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGAN.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Starts the thread.
pub(crate) fn thread(threads: &mut Threads, keeper: Keeper) -> Checkpoints {
    let (sender, receiver) = sync_channel::<State>(1);
    keeper.tell_metrics();
    threads.spawn("snapshot", move || keeper.run(&receiver));
    Checkpoints(sender)
}

impl Keeper {
    fn run(mut self, receiver: &Receiver<State>) {
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok(state) => self.make(&state),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.tell_damaged_headers();
            if let Err(reason) = self.prune() {
                self.inbox.answer(Input::DiskFailed { reason });
                while receiver.recv().is_ok() {}
                return;
            }
        }
    }

    /// Tells of kept headers that somebody asked for, and that cannot be read back. A start does not mend them: whoever gave them is not asked
    /// for them again.
    fn tell_damaged_headers(&self) {
        for file in self.light.newly_damaged() {
            self.metrics.damaged_read();
            tracing::warn!(
                file,
                "headers of pruned blocks, or votes for them, are damaged: this node does not answer for their heights any more, and judges no \
                 evidence of them. Everything else is served; to do: look at this disk"
            );
        }
    }

    fn make(&self, state: &State) {
        let height = state.height().get();
        if self.keep == 0 {
            return;
        }
        let began = Instant::now();
        let (mut worked_from, mut told, mut mended) = (began, began, 0);
        let made = make(&self.store, self.genesis_hash, state, |progress| {
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                tracing::info!(height, chunks = progress.chunks, of = progress.of, "making a snapshot");
            }
            self.metrics.making_snapshot(progress.chunks, progress.of);
            if progress.mended > mended {
                mended = progress.mended;
                self.metrics.chunk_mended();
                tracing::warn!(height, "a chunk of an earlier snapshot had rotted on the disk; it is written anew. Look at this disk");
            }
            let rest = (worked_from.elapsed() * REST).min(REST_MAX);
            if rest > REST_MIN {
                std::thread::sleep(rest);
                worked_from = Instant::now();
            }
            !self.inbox.is_closed() && self.room.is_there()
        });
        self.metrics.making_snapshot(0, 0);
        match made {
            Ok(progress) => {
                self.metrics.snapshot_made(began.elapsed());
                tell_made(height, &progress, began.elapsed());
                self.drop_older();
            }
            Err(MakeError::Stopped) if self.inbox.is_closed() => {}
            Err(error) => {
                self.metrics.snapshot_failed();
                let why = if self.room.is_there() { error.to_string() } else { "there is no room on the disk".to_owned() };
                tracing::warn!(height, why, "no snapshot of this checkpoint; the node goes on, and makes one of the next checkpoint");
            }
        }
        self.tell_metrics();
    }

    /// Lets older snapshots go.
    fn drop_older(&self) {
        if self.keep == 0 {
            return;
        }
        match keep_newest(&self.store, self.keep, self.readers.tip().chain.height, &self.leases, clock_ms()) {
            Ok(gone) if !gone.is_empty() => {
                tracing::info!(heights = ?gone, keep = self.keep, "older snapshots are removed");
                self.tell_metrics();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "older snapshots could not be removed; it is tried again"),
        }
    }

    /// Lets blocks go that nobody needs any more. An error is one of the disk, after which the node stops.
    fn prune(&mut self) -> Result<(), String> {
        self.drop_older();
        let tip = self.readers.tip();
        let Some(flushed) = Height::new(self.flushed.load(Ordering::Acquire)) else { return Ok(()) };
        let needs = Needs {
            tip: tip.chain.height,
            tip_time: tip.chain.last_time,
            flushed,
            oldest_snapshot: self.store.heights().first().copied().and_then(Height::new),
            names: tip.chain.standing.recent.len() as u64,
            evidence: tip.chain.params.evidence.clone(),
        };
        let (mut segments, mut runs) = (0, 0);
        loop {
            match self.retention.prune_one(&mut self.pruning, &needs) {
                Ok(Some(oldest)) => {
                    segments += 1;
                    let removed = self.kept.lock().expect("no holder panics").remove(&[oldest.first_sequence]);
                    if let Err(error) = removed {
                        tracing::warn!(%error, "results of pruned blocks could not be removed; the next start does it");
                    }
                    self.tell_metrics();
                    self.inbox.answer(Input::Pruned { base: self.readers.base() });
                }
                Ok(None) => break,
                Err(error) => {
                    self.met(error)?;
                    break;
                }
            }
            if self.inbox.is_closed() {
                return Ok(());
            }
        }
        loop {
            match self.retention.expire_one(&self.pruning, &needs) {
                Ok(Some(gone)) => {
                    runs += 1;
                    if gone.is_damaged {
                        tracing::warn!(
                            from = gone.from.get(),
                            to = gone.to.get(),
                            "headers of pruned blocks are damaged and removed: this node judges no evidence of these heights; look at this disk"
                        );
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    self.met(error)?;
                    break;
                }
            }
        }
        if runs > 0 {
            tracing::debug!(files = runs, "headers of pruned blocks are removed: evidence about them has expired");
        }
        if segments > 0 {
            tracing::info!(
                segments,
                earliest = self.readers.base().get(),
                "old blocks are pruned; whoever asks for them is told the earliest height"
            );
        }
        Ok(())
    }

    /// What stopped the look: an error of the disk, after which the node stops, or what the next look may find otherwise.
    fn met(&self, error: RecoveryError) -> Result<(), String> {
        if error.is_of_disk() {
            return Err(error.to_string());
        }
        // Damage in a block that may soon go: whoever reads it hears of it, and the next start heals it.
        if !error.is_no_space() {
            self.readers.met(error);
        }
        Ok(())
    }

    fn tell_metrics(&self) {
        let heights = self.store.heights();
        self.metrics.keeps(heights.last().copied().unwrap_or(0), heights.len(), self.readers.base().get());
    }
}

fn tell_made(height: u64, progress: &Progress, took: Duration) {
    tracing::info!(
        height,
        entries = progress.entries,
        raw_bytes = progress.raw_bytes,
        chunks = progress.of,
        written = progress.written,
        written_bytes = progress.written_bytes,
        took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "snapshot made"
    );
}
