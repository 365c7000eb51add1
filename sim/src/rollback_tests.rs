//! A rollback by the operator, with the power failing at each of its operations: the home starts, has the chain that it had, and its
//! guard is what it was.

use std::sync::Arc;

use lockstep_app::{Host, Kv};
use lockstep_replica::recovery::reexecute::Archive;
use lockstep_replica::recovery::rollback::{NewState, Rollback, RollbackError, RolledBack, roll_back};
use lockstep_storage::quarantine::Quarantine;
use lockstep_types::Height;

use crate::disk::{Fault, SimDisk, Survival, When};
use crate::heal_tests::{Home, start};
use crate::node::{GUARD, LOG, STATE};

fn rolled_back(home: &Home, disk: &SimDisk, to: u64, is_hard: bool) -> Result<RolledBack, RollbackError> {
    let archive = Archive::open(disk.disk(), LOG, &home.genesis, Host::new(Arc::new(Kv)))?.expect("it has blocks");
    let wanted = Rollback { state: STATE, to: Height::new(to).expect("small"), is_hard };
    roll_back(&archive, &wanted, &mut Quarantine::new(disk.disk(), "rolled-back"), |_| {})
}

/// The home, with the state of its newest height on the disk.
fn flushed_home() -> Home {
    let home = Home::new();
    let mut running = start(&home, home.machine.disk.clone()).expect("nothing is damaged");
    let chain = running.replica.chain().clone();
    running.flush(chain.height, &chain.encode()).expect("the disk is sound");
    drop(running);
    home.machine.disk.crash(Survival::All, 0);
    home
}

#[test]
fn the_state_goes_back_and_the_next_start_executes_again() {
    let home = flushed_home();
    let guard = home.machine.disk.bytes(GUARD);
    for to in [0, 1, home.tip / 2, home.tip - 1] {
        for is_hard in [false, true] {
            let disk = home.machine.disk.fork();
            let done = rolled_back(&home, &disk, to, is_hard).expect("it goes back");
            let made = if to == 0 { NewState::Genesis } else { NewState::MadeAgain(Height::ZERO) };
            assert_eq!(done.state, made);
            assert!(done.set_aside.iter().all(|path| disk.bytes(path).is_some()), "{:?}", done.set_aside);
            assert_eq!(disk.bytes(GUARD), guard, "not a byte of the guard is another");
            let tip = home.check(&disk, &format!("back to {to}"));
            assert_eq!(tip, if is_hard { to } else { home.tip });
        }
    }
    for to in [home.tip, home.tip + 1] {
        assert!(matches!(rolled_back(&home, &home.machine.disk.fork(), to, false), Err(RollbackError::OutOfRange { .. })));
    }
}

#[test]
fn a_crash_amid_a_rollback_leaves_a_home_that_starts() {
    let home = flushed_home();
    let to = home.tip / 2;
    for is_hard in [false, true] {
        let whole = home.machine.disk.fork();
        let begun = whole.operations();
        rolled_back(&home, &whole, to, is_hard).expect("it goes back");
        assert!(whole.operations() - begun > 10, "there is something to break off");
        for operation in begun..whole.operations() {
            for when in When::EACH {
                let what = format!("hard {is_hard}, stopped {when:?} operation {operation}");
                let disk = home.machine.disk.fork();
                disk.fault_at(operation, Fault::Stop(when), operation);
                let _ = rolled_back(&home, &disk, to, is_hard);
                disk.crash(Survival::Random, operation);
                // The same command again finishes it, whatever was done.
                let again = disk.fork();
                let tip = home.check(&disk, &what);
                assert!(if is_hard { (to..=home.tip).contains(&tip) } else { tip == home.tip }, "{what}: {tip}");
                match rolled_back(&home, &again, to, is_hard) {
                    // The log was cut, and what came after is all that was left to do.
                    Err(RollbackError::OutOfRange { tip, .. }) if is_hard && tip.get() == to => {}
                    done => drop(done.unwrap_or_else(|error| panic!("{what}, again: {error}"))),
                }
                assert_eq!(home.check(&again, &what), if is_hard { to } else { home.tip });
            }
        }
    }
}
