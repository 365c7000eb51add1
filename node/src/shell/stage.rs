//! The thread that keeps what state sync gathers: it judges chunks and writes them, so that votes never wait for either.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use lockstep_replica::Input;
use lockstep_replica::seam::JobId;
use lockstep_replica::state_sync::{Staging, Task};
use lockstep_storage::DiskError;
use lockstep_storage::disk::Disk;
use lockstep_types::Hash;

use super::Threads;
use super::inbox::Inbox;
use super::readers::Readers;

/// Something for the staging folder.
pub(crate) type StageJob = (JobId, Task);

/// The folder is opened with the first task: a node that never syncs has none.
pub(crate) fn thread(
    threads: &mut Threads,
    disk: Arc<dyn Disk>,
    genesis_hash: Hash,
    readers: Arc<Readers>,
    inbox: Inbox,
) -> Sender<StageJob> {
    let (sender, receiver) = channel::<StageJob>();
    threads.spawn("stage", move || {
        let mut staging = None;
        // Of whatever height it is: what it has in common with the snapshot is not fetched. One version for all chunks, since
        // what was said of it is what their differences are applied to. Taken with the first task, and let go with the last: a version
        // that is held costs memory while blocks go on.
        let mut own = None;
        let mut perform = |task: Task| -> Result<_, DiskError> {
            let ends = matches!(task, Task::End { .. });
            let state = own.get_or_insert_with(|| readers.newest_state());
            let staging = match &mut staging {
                Some(staging) => staging,
                none => none.insert(Staging::open(disk.clone(), genesis_hash)?),
            };
            let found = staging.perform(task, state.tree());
            if ends {
                own = None;
            }
            found
        };
        while let Ok((job, task)) = receiver.recv() {
            match perform(task) {
                Ok(found) => inbox.answer(Input::Staged { job, found }),
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
