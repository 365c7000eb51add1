//! What went wrong in a run, as values.
//!
//! Every fault that the world puts upon a run is a [`Fault`] at a time. In a run of a seed the dice of each cause draw them,
//! and the run keeps the list; a run that follows a [`Schedule`] takes them from the list and rolls none of those dice, and
//! goes the same way to the last input. So a failure is a list that can be made shorter, kept in a file and run for ever.
//!
//! A fault carries all that it does: how long it lasts, what it leaves on a disk, when its machine comes back. So one can
//! be taken out of the list without leaving the other half of another behind. Where its time finds nothing that it could do
//! (a machine rots that is not down) it does nothing, and a recorded list has none of those.
//!
//! What happens to single frames and requests (how long one takes, whether it is lost or comes twice) is not in the list: it
//! is drawn from a stream of its link (`crate::random`), in a replay as in the first run.

use serde::{Deserialize, Serialize};

use crate::disk::{Loss, Survival, Trouble, When};
use crate::members::Ask;
use crate::plan::{Hushed, Plan};

/// One fault. Nodes are numbers from 0: the validators, then the followers, then a twin. Times are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// A machine loses power and comes back.
    Crash {
        /// Whose.
        node: usize,
        /// What becomes of unsynced writes.
        survival: Survival,
        /// Draws what survives.
        seed: u64,
        /// How long it is down.
        down_ns: u64,
    },
    /// All machines lose power at one instant, and each comes back for itself.
    PowerCut {
        /// What becomes of unsynced writes, everywhere.
        survival: Survival,
        /// Draws what survives.
        seed: u64,
        /// How long each is down, by node.
        down_ns: Vec<u64>,
    },
    /// A machine will lose power at an operation of its disk, also while it starts.
    DiskStop {
        /// Whose.
        node: usize,
        /// So many operations from now.
        after: u64,
        /// Before, in or after it.
        when: When,
        /// What becomes of unsynced writes.
        survival: Survival,
        /// Draws what a half-done operation leaves, and what survives.
        seed: u64,
        /// How long it is down.
        down_ns: u64,
    },
    /// One file of a machine that is down is damaged: `crate::node::Machine::damage`.
    Rot {
        /// Whose.
        node: usize,
        /// Draws which file, where and how.
        seed: u64,
    },
    /// A disk does wrong while its machine runs. Where the node cannot go on it halts, and is started again after a while; the
    /// machine may lose power in between.
    Disk {
        /// Whose.
        node: usize,
        /// What.
        trouble: Trouble,
        /// Draws the rest.
        seed: u64,
    },
    /// A machine loses power and comes back without something that it cannot do without.
    Loss {
        /// Whose.
        node: usize,
        /// What.
        loss: Loss,
        /// Draws the rest.
        seed: u64,
    },
    /// A machine stands still: what comes to it in that time comes late, at once.
    Freeze {
        /// Which.
        node: usize,
        /// For how long.
        lasts_ns: u64,
    },
    /// A wall clock jumps.
    ClockStep {
        /// Whose.
        node: usize,
        /// How far it then is from true time.
        offset_ns: i64,
    },
    /// Some nodes do not get one kind of message, whoever sends it and however often.
    Hush {
        /// Who.
        nodes: Vec<usize>,
        /// Which kind.
        kind: Hushed,
        /// For how long.
        lasts_ns: u64,
    },
    /// Frames vanish on links, each given as (from, to).
    Cut {
        /// Why these.
        shape: Shape,
        /// Which.
        links: Vec<(usize, usize)>,
        /// For how long.
        lasts_ns: u64,
        /// The links work in every other span of this length; 0 where they never do.
        flap_ns: u64,
    },
    /// Links, each given as (from, to), hold what is sent on them, and let go of it at the end.
    Clog {
        /// It is one of several that begin one after the other and end in another order.
        swizzled: bool,
        /// Which.
        links: Vec<(usize, usize)>,
        /// For how long.
        lasts_ns: u64,
    },
    /// Strangers take a node's connection slots: it loses its connections, but for a few.
    Eclipse {
        /// Whose.
        node: usize,
        /// Whom it stays connected with.
        keeps: Vec<usize>,
        /// For how long.
        lasts_ns: u64,
    },
    /// A node that only follows leaves in good order, and comes back.
    Leave {
        /// Which.
        node: usize,
        /// After how long.
        down_ns: u64,
        /// It comes back with nothing on its disk.
        anew: bool,
    },
    /// A machine is lost, and an empty one takes its place, with its key and its guard and nothing else.
    Replace {
        /// Which.
        node: usize,
        /// After how long.
        down_ns: u64,
        /// Its operator names a header to trust, as for a snapshot; otherwise it begins with genesis.
        named: bool,
    },
    /// A node is stopped in good order, whoever it is, and begins again when others may have forgotten what it needs.
    Away {
        /// Which.
        node: usize,
        /// After how long.
        down_ns: u64,
    },
    /// A connection ends, with what is on its way.
    Reset {
        /// Of this node, the lower number.
        a: usize,
        /// With this one.
        b: usize,
    },
    /// A machine's memory fails, and with it something of its state.
    Diverge {
        /// Whose.
        node: usize,
        /// What of it.
        damage: Damage,
        /// Whether it comes to the database, too.
        lasts: bool,
        /// Draws the rest.
        seed: u64,
    },
    /// A node asks something of the chain that is about who validates.
    Ask {
        /// Which.
        node: usize,
        /// What.
        ask: Ask,
    },
    /// The faults end for a core of more than two thirds of the power. What comes after it in a list does not happen.
    Heal {
        /// Who must make progress from here on.
        core: Vec<usize>,
        /// How far the core's clocks are off from here on, in its order.
        offsets_ns: Vec<i64>,
        /// Draws what survives where others crash for good.
        seed: u64,
    },
}

/// What of a node's state a failing memory changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// The value of an entry of the application.
    Entry,
    /// An entry of the application is not there any more.
    Lost,
    /// An entry of the node's own is there that never was.
    Own,
    /// Results of the next block.
    Results,
    /// What membership knows beside the state.
    Standing,
}

/// Why some links are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Two sides.
    Split,
    /// One node alone.
    Alone,
    /// The one who will propose next, alone.
    Proposer,
    /// Everybody has two neighbours.
    Ring,
    /// Two sides, and one node that both hear.
    Bridge,
    /// One node hears nobody.
    Deaf,
    /// Nobody hears one node.
    Mute,
    /// One direction of one link.
    OneWay,
}

/// A fault and when it happens: before everything else of that nanosecond.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// Nanoseconds from the beginning of the run.
    pub at_ns: u64,
    /// What happens.
    pub fault: Fault,
}

/// A run as values: whoever has it can repeat the run without the dice that drew its faults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Keys the streams of what is not a fault in the list: load, links, disks, jobs, liars.
    pub seed: u64,
    /// The network, the load, and what its links and disks are like.
    pub(crate) plan: Plan,
    /// In the order in which they happen.
    pub faults: Vec<Timed>,
}

impl Schedule {
    /// As JSON with stable names. What a later version adds to a plan is absent in an older file, and then does not happen.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a schedule has no map with odd keys")
    }

    /// Reads what [`Schedule::to_json`] wrote.
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use lockstep_replica::planted::Planted;

    use super::*;
    use crate::world::{Report1, World};

    /// What must be the same of a run and its replay: all but the number of events, since dice that are rolled are events.
    fn essence(report: Report1) -> Report1 {
        Report1 { events: 0, ..report }
    }

    #[test]
    fn a_replay_follows_the_list_and_goes_the_same_way() {
        let mut faults = 0;
        for seed in 1..=30 {
            let first = World::new(seed, Plan::draw(seed), Planted::default(), None).digested().run();
            let json = first.schedule.to_json();
            let schedule = Schedule::from_json(&json).expect("what was written is read");
            assert_eq!(schedule, first.schedule);
            faults += schedule.faults.len();
            let Schedule { plan, faults, .. } = schedule;
            let again = World::new(seed, plan, Planted::default(), None).digested().following(faults).run();
            assert_eq!(again.schedule, first.schedule, "the list of a replay is the list that it follows");
            assert_eq!(again.coverage, first.coverage);
            let first = first.outcome.expect("the seed holds");
            assert_eq!(again.outcome.map(essence).expect("and its replay"), essence(first), "seed {seed}");
        }
        assert!(faults > 250, "{faults} faults in all");
    }

    #[test]
    fn a_list_without_some_of_its_faults_is_a_run_too() {
        let seed = (1..).find(|seed| Plan::draw(*seed).crashes && Plan::draw(*seed).rots && Plan::draw(*seed).partitions).expect("one");
        let whole = World::new(seed, Plan::draw(seed), Planted::default(), None).run().schedule;
        for left_out in 0..4 {
            let some = |place: &usize| place % 4 != left_out;
            let faults = whole.faults.iter().enumerate().filter(|(place, _)| some(place)).map(|(_, timed)| timed.clone()).collect();
            let ran = World::new(seed, whole.plan.clone(), Planted::default(), None).following(faults).run();
            ran.outcome.expect("fewer faults break nothing");
        }
    }

    #[test]
    fn names_in_files_are_stable() {
        let crash = Fault::Crash { node: 2, survival: Survival::TornPages, seed: u64::MAX, down_ns: 5 };
        let cut = Fault::Cut { shape: Shape::OneWay, links: vec![(0, 1)], lasts_ns: 7, flap_ns: 0 };
        let hush = Fault::Hush { nodes: vec![1], kind: Hushed::PrevotesOf(3), lasts_ns: 8 };
        let stop = Fault::DiskStop { node: 0, after: 3, when: When::During, survival: Survival::All, seed: 1, down_ns: 9 };
        let text = |fault: &Fault| serde_json::to_string(fault).expect("it is a value");
        assert_eq!(text(&crash), r#"{"crash":{"node":2,"survival":"torn_pages","seed":18446744073709551615,"down_ns":5}}"#);
        assert_eq!(text(&cut), r#"{"cut":{"shape":"one_way","links":[[0,1]],"lasts_ns":7,"flap_ns":0}}"#);
        assert_eq!(text(&hush), r#"{"hush":{"nodes":[1],"kind":{"prevotes_of":3},"lasts_ns":8}}"#);
        assert_eq!(text(&stop), r#"{"disk_stop":{"node":0,"after":3,"when":"during","survival":"all","seed":1,"down_ns":9}}"#);
    }

    #[test]
    fn an_older_file_lacks_what_came_later() {
        let schedule = Schedule::from_json(r#"{"seed":3,"plan":{"powers":[10,10,10,10]},"faults":[]}"#).expect("it is read");
        assert_eq!(schedule.plan, Plan::quiet());
        assert!(Schedule::from_json(r#"{"seed":3,"plan":{"pwers":[]},"faults":[]}"#).is_err(), "what is misspelt is not dropped");
    }
}
