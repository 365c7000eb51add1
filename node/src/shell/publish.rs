//! The thread that tells the world what was committed, in the order in which it became durable: first the results and the
//! index, then the tip that readers see, then the replies. So whoever was told "committed" finds the transaction.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use lockstep_replica::results;
use lockstep_replica::seam::{Reply, Report};
use lockstep_storage::results::{BlockResults, Results};
use lockstep_types::Time;
use tokio::sync::oneshot;

use super::Threads;
use super::inbox::Inbox;
use super::progress::{Line, Progress};
use super::readers::{Readers, Tip};
use super::room::{LOOK, Lacking, Room};
use super::state_sync;
use crate::metrics::Metrics;

/// What to tell.
pub(crate) enum News {
    /// Something happened.
    Report(Report),
    /// A client's answer.
    Reply(oneshot::Sender<Reply>, Box<Reply>),
}

/// Starts the publisher.
pub(crate) fn thread(
    threads: &mut Threads,
    kept: Arc<Mutex<Results>>,
    readers: Arc<Readers>,
    inbox: Inbox,
    metrics: Arc<Metrics>,
    room: Room,
) -> Sender<News> {
    let (sender, receiver) = channel::<News>();
    threads.spawn("publish", move || {
        let mut progress = Progress::default();
        while let Ok(news) = receiver.recv() {
            match news {
                // A client that went away wants no answer.
                News::Reply(to, reply) => drop(to.send(*reply)),
                News::Report(report) => {
                    if let Err(reason) = publish(&report, &kept, &readers, &metrics, &room, &|| wait_for_room(&room, &inbox)) {
                        inbox.answer(lockstep_replica::Input::DiskFailed { reason });
                        while receiver.recv().is_ok() {}
                        return;
                    }
                    let tip = readers.tip().chain.height.get();
                    let line = match &report {
                        Report::Committed { .. } => progress.committed(Instant::now(), tip),
                        Report::CatchingUp { behind, target } => progress.reported(Instant::now(), tip, *behind, target.get()),
                        _ => None,
                    };
                    line.iter().for_each(Line::log);
                }
            }
        }
    });
    sender
}

/// Looks for room again after a while; false when the node stops.
fn wait_for_room(room: &Room, inbox: &Inbox) -> bool {
    room.note(Lacking::Results, true);
    std::thread::sleep(LOOK);
    !inbox.is_closed()
}

/// Keeps the results of a block. Without room nothing was written, and they are kept once there is: readers see the block only then.
fn keep(kept: &Mutex<Results>, segment: u64, record: &BlockResults, wait: &dyn Fn() -> bool) -> Result<(), String> {
    loop {
        match kept.lock().expect("no holder panics").append(segment, record) {
            Err(error) if error.is_no_space() => {}
            done => return done.map_err(|error| error.to_string()),
        }
        if !wait() {
            return Err(
                "the node stops while there is no room for the results of execution; they are made again at the next start".to_owned()
            );
        }
    }
}

fn publish(
    report: &Report,
    kept: &Mutex<Results>,
    readers: &Readers,
    metrics: &Metrics,
    room: &Room,
    wait: &dyn Fn() -> bool,
) -> Result<(), String> {
    match report {
        Report::Committed { block_id, block, commit, outcome, chain } => {
            let segment = readers.segment_of(outcome.height).ok_or("the log does not know a height that it made durable")?;
            let record = results::keep(block, outcome, chain);
            keep(kept, segment, &record, wait)?;
            room.note(Lacking::Results, false);
            readers.set_tip(Tip { chain: chain.clone(), commit: Some(Arc::new(commit.get().clone())) });
            metrics.committed(outcome.height.get(), commit.round.get(), block.txs.len(), block.evidence.len());
            tracing::debug!(height = outcome.height.get(), round = commit.round.get(), txs = block.txs.len(), block = %block_id, "committed");
        }
        Report::Mempool { txs, bytes } => {
            readers.set_mempool(*txs, *bytes);
            metrics.mempool(*txs, *bytes);
        }
        Report::CatchingUp { behind, target } => {
            readers.set_behind(*behind, *target);
            metrics.catching_up(*behind);
            if !behind {
                metrics.cut_off(None);
            }
        }
        Report::Stepped { height, round, step } => {
            metrics.stepped(height.get(), round.get());
            // Who catches up passes the rounds that others needed long ago.
            if round.get() > 0 && !readers.is_behind() {
                tracing::info!(height = height.get(), round = round.get(), ?step, "a further round");
            }
        }
        Report::Untimely { proposal, proposer, received } => {
            metrics.untimely();
            tracing::warn!(
                height = proposal.height.get(),
                round = proposal.round.get(),
                %proposer,
                "no vote for a block that {}: that clock is off, or this machine's, or the network is slow; if rounds fail, look at the clocks",
                off(proposal.timestamp, *received)
            );
        }
        Report::Equivocation { first, second } => {
            metrics.equivocation();
            tracing::warn!(?first, ?second, "a validator voted for two values in one step");
        }
        Report::Evidence { evidence } => {
            tracing::warn!(hash = %evidence.hash(), height = evidence.height().get(), accused = ?evidence.accused(), "evidence waits for a block");
        }
        Report::Refused { peer, points, reason } => {
            metrics.refused();
            tracing::warn!(%peer, points, %reason, "refused");
        }
        Report::StateSync(told) => {
            metrics.state_sync(told);
            state_sync::tell(told);
        }
        Report::SignedElsewhere(reason) => tracing::error!("{reason}"),
        Report::Note(note) => tracing::warn!("{note}"),
    }
    Ok(())
}

/// How far a proposal's time is from this node's clock.
fn off(dated: Time, received: Time) -> String {
    match dated.since(received) {
        ahead if !ahead.is_zero() => format!("is dated {:.3} s ahead of this machine's clock", ahead.as_secs_f64()),
        _ => format!("came {:.3} s after its date", received.since(dated).as_secs_f64()),
    }
}
