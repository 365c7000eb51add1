//! The thread that tells the world what was committed, in the order in which it became durable: first the results and the
//! index, then the tip that readers see, then the replies. So whoever was told "committed" finds the transaction.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use lockstep_replica::results;
use lockstep_replica::seam::{Reply, Report};
use lockstep_storage::results::Results;
use tokio::sync::oneshot;

use super::Threads;
use super::inbox::Inbox;
use super::readers::{Readers, Tip};
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
) -> Sender<News> {
    let (sender, receiver) = channel::<News>();
    threads.spawn("publish", move || {
        while let Ok(news) = receiver.recv() {
            match news {
                // A client that went away wants no answer.
                News::Reply(to, reply) => drop(to.send(*reply)),
                News::Report(report) => {
                    if let Err(reason) = publish(&report, &kept, &readers, &metrics) {
                        inbox.answer(lockstep_replica::Input::DiskFailed { reason });
                        while receiver.recv().is_ok() {}
                        return;
                    }
                }
            }
        }
    });
    sender
}

fn publish(report: &Report, kept: &Mutex<Results>, readers: &Readers, metrics: &Metrics) -> Result<(), String> {
    match report {
        Report::Committed { block_id, block, commit, outcome, chain } => {
            let segment = readers.segment_of(outcome.height).ok_or("the log does not know a height that it made durable")?;
            let record = results::keep(block, outcome, chain);
            kept.lock().expect("no holder panics").append(segment, &record).map_err(|error| error.to_string())?;
            readers.set_tip(Tip { chain: chain.clone(), commit: Some(Arc::new(commit.get().clone())) });
            metrics.committed(outcome.height.get(), commit.round.get(), block.txs.len());
            tracing::debug!(height = outcome.height.get(), round = commit.round.get(), txs = block.txs.len(), block = %block_id, "committed");
        }
        Report::Mempool { txs, bytes } => {
            readers.set_mempool(*txs, *bytes);
            metrics.mempool(*txs, *bytes);
        }
        Report::CatchingUp { behind, target } => {
            readers.set_behind(*behind);
            metrics.catching_up(*behind);
            if *behind {
                tracing::info!(target = target.get(), at = readers.tip().chain.height.get(), "catching up");
            } else {
                tracing::info!(at = readers.tip().chain.height.get(), "caught up");
            }
        }
        Report::Stepped { height, round, step } => {
            metrics.stepped(height.get(), round.get());
            if round.get() > 0 {
                tracing::info!(height = height.get(), round = round.get(), ?step, "a further round");
            }
        }
        Report::Equivocation { first, second } => {
            metrics.equivocation();
            tracing::warn!(?first, ?second, "a validator voted for two values in one step");
        }
        Report::Refused { peer, points, reason } => {
            metrics.refused();
            tracing::warn!(%peer, points, %reason, "refused");
        }
        Report::Note(note) => tracing::warn!("{note}"),
    }
    Ok(())
}
