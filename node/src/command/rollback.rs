//! `lockstep rollback`: the state of a stopped node, back to before its newest blocks.

use std::sync::Arc;

use lockstep_app::Application;
use lockstep_replica::recovery::decided;
use lockstep_replica::recovery::reexecute::Archive;
use lockstep_replica::recovery::rollback::{NewState, Rollback, RollbackError, roll_back};
use lockstep_storage::quarantine::{INCIDENTS_MAX, Quarantine, QuarantineError};
use lockstep_types::Height;

use super::bar::Bar;
use super::replay::{archive, failed, tell, wrong};
use super::{home_of, say, shell_word};
use crate::cli::RollbackArgs;
use crate::error::{Exit, NodeError};
use crate::home::{DATA_PATH, Home, STATE_PATH};

/// The folder of what was taken away, in the data folder.
const SET_ASIDE_PATH: &str = "rolled-back";

/// `lockstep rollback`
pub(super) fn run(args: &RollbackArgs, app: Arc<dyn Application>) -> Result<(), NodeError> {
    let home = home_of(&args.home)?;
    home.check_exists()?;
    let _held = home.hold()?;
    let genesis = home.read_genesis()?;
    let archive = archive(&home, home.data_disk()?, &genesis, app)?;
    let tip = archive.tip();
    let to = match args.to {
        Some(to) => Height::new(to).map(|to| to.max(archive.before_first())),
        None => tip.get().checked_sub(args.blocks.unwrap_or(1)).and_then(Height::new),
    };
    // Of a log without the chain's beginning it depends on the states that are here how far back it goes, which is said below.
    let is_cut = archive.base() > archive.before_first().next();
    let to = if is_cut { to.or(Some(archive.before_first())) } else { to };
    let to = to.filter(|to| *to >= archive.before_first()).ok_or_else(|| {
        let error = NodeError::new(Exit::Refused, format!("the newest block is {tip}: it cannot go back so far"));
        match tip.get().saturating_sub(archive.before_first().get()) {
            0 => error.means("there is no block yet: the state is that of genesis"),
            most => error.next(format!("--blocks {most} leads to the state of genesis; fewer lead to what is above")),
        }
    })?;
    if args.hard && is_alone(&home, &archive)? {
        return Err(NodeError::new(Exit::Refused, "this validator decides alone: nobody else is sure to have the blocks that would go")
            .means("it signed them, and would be silent until somebody gave them back")
            .next("roll back without --hard: the blocks stay, and are executed again"));
    }
    let wanted = Rollback { state: STATE_PATH, to, is_hard: args.hard };
    let mut kept = Quarantine::new(archive.disk().clone(), SET_ASIDE_PATH);
    // How many are executed shows only on the way: it depends on the snapshots that are here.
    let mut bar = Bar::new(to.get(), "blocks");
    let done = roll_back(&archive, &wanted, &mut kept, |block| bar.show(block.header.height.get()));
    bar.end();
    let done = done.map_err(|error| explain(error, &home))?;
    say(match done.state {
        NewState::Kept(height) if height == to => format!("the state is that of height {to} already, and stays"),
        NewState::Kept(height) => format!("the state on the disk is of height {height}, which is before the block in question, and stays"),
        NewState::MadeAgain(from) => {
            format!("the state is that of height {to} again, made from that of height {from}; the next header says its root")
        }
        NewState::Genesis => "the state is that of genesis".to_owned(),
    });
    say(if args.hard {
        format!("the block log ends at height {to}; blocks {} to {tip} are fetched from peers again", to.next())
    } else {
        format!("the next start executes the blocks after it, up to height {tip}, again")
    });
    if !done.set_aside.is_empty() {
        let folder = home.root().join(DATA_PATH).join(SET_ASIDE_PATH);
        let files = if done.set_aside.len() == 1 { "one file".to_owned() } else { format!("{} files", done.set_aside.len()) };
        say(format!("set aside, not deleted, in {}: {files}", folder.display()));
    }
    say("the vote guard is as it was: the validator signs nothing at or below what it signed before");
    Ok(())
}

/// Whether the validator of this home decided the newest block alone.
fn is_alone(home: &Home, archive: &Archive<'_>) -> Result<bool, NodeError> {
    let Ok(key) = home.read_validator_key() else { return Ok(false) };
    let (.., commit) = decided(archive.log(), archive.tip()).map_err(failed)?;
    let [slot] = &commit.signatures[..] else { return Ok(false) };
    Ok(slot.slot().is_some_and(|slot| slot.address == key.public_key().address()))
}

fn explain(error: RollbackError, home: &Home) -> NodeError {
    let folder = shell_word(home.root().display());
    match error {
        RollbackError::Differs(difference) => {
            tell(&difference);
            wrong(&difference)
                .next("mend the program first: as it is, it cannot make a state that the chain certified. Nothing was changed")
        }
        RollbackError::OutOfRange { .. } | RollbackError::NoStart { lowest: Some(_), .. } => NodeError::new(Exit::Refused, error),
        RollbackError::NoStart { .. } => NodeError::new(Exit::Refused, error)
            .next("begin with a snapshot of another node: lockstep init --from URL for a new home, then start --bundle FILE"),
        RollbackError::Quarantine(QuarantineError::Full { .. }) => {
            let what = format!("{folder}/{DATA_PATH}/{SET_ASIDE_PATH} holds what {INCIDENTS_MAX} rollbacks set aside");
            NodeError::new(Exit::Refused, what).next("move that folder away, then ask again")
        }
        error => failed(error).next("the home is as a crash would leave it, and starts; the same command again finishes what it began"),
    }
}
