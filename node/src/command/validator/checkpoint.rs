//! `lockstep snapshot create`: a CHECKPOINT, and the snapshot that comes of it here.

use std::time::Instant;

use lockstep_app::membership::{Checkpoint, NodeTx, RecentBlock};
use lockstep_storage::snapshots::list;
use lockstep_types::Signature;
use tokio::time::sleep;

use super::{LOOK, Seat, Told};
use crate::cli::CreateArgs;
use crate::command::say;
use crate::error::{Exit, NodeError};
use crate::home::SNAPSHOTS_PATH;

pub(crate) async fn create(args: &CreateArgs) -> Result<(), NodeError> {
    let seat = Seat::open(&args.seat)?;
    if seat.config.storage.keep_snapshots == 0 && !seat.no_wait {
        return Err(NodeError::new(Exit::Refused, "storage.keep_snapshots is 0: the node of this home makes no snapshots")
            .next("set it to 1 or more and start the node again, or ask for the checkpoint alone: --no-wait"));
    }
    let mut told = Told::default();
    seat.catch_up(&mut told).await?;
    let key = seat.signer(args.signer.as_deref())?;
    let nothing = Signature([0; 64]);
    let make =
        |recent: RecentBlock| seat.sign(NodeTx::Checkpoint(Checkpoint { signer: key.public_key(), recent, signature: nothing }), &key);
    let (height, log) = seat.request(&mut told, make).await?;
    told.progress(format!("in block {height}: {log}"));
    if seat.no_wait {
        return Ok(());
    }
    let disk = seat.home.data_disk()?;
    let began = Instant::now();
    loop {
        let found = list(&disk, SNAPSHOTS_PATH).map_err(|error| NodeError::new(Exit::Refused, error))?;
        if let Some(snapshot) = found.iter().find(|snapshot| snapshot.height >= height.get()) {
            say(format!("snapshot of height {}: {} bytes of chunks; lockstep snapshot list shows all", snapshot.height, snapshot.bytes));
            return Ok(());
        }
        if began.elapsed() > args.wait {
            return Err(NodeError::new(Exit::Failed, format!("the snapshot of height {height} is not there after {:?}", args.wait))
                .means("the node is still making it, or could not: its log says which")
                .next("look at its log and at lockstep snapshot list; a large state takes its time (--wait 30m)"));
        }
        told.progress("the node makes the snapshot".to_owned());
        sleep(LOOK).await;
    }
}
