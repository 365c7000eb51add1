//! Which fault met which step of the protocol: an empty cell is something that no run tried.

use std::fmt;

use lockstep_consensus::Step as CoreStep;

use crate::node::Machine;

/// What can happen to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Kind {
    /// It loses power.
    Crash,
    /// All lose power at once.
    PowerCut,
    /// It loses power at an operation of its disk.
    DiskStop,
    /// An operation of its disk fails.
    DiskError,
    /// Its disk has no room.
    NoRoom,
    /// Its disk does not answer a sync.
    Stall,
    /// Its disk says that it synced, and did not.
    Lie,
    /// Its disk writes a page to another place.
    Misdirected,
    /// Its disk cannot read a page any more.
    LostPage,
    /// A bit or a page on its disk changes.
    Decay,
    /// It loses more than redundancy covers.
    LostCopies,
    /// Its memory fails, and with it its state.
    Divergence,
    /// It stands still.
    Freeze,
    /// Its clock jumps.
    ClockStep,
    /// It does not get one kind of message.
    Hush,
    /// It is on one of two sides.
    Split,
    /// It hears nobody and nobody hears it.
    Alone,
    /// It is the next proposer, alone.
    Proposer,
    /// It hears two neighbours.
    Ring,
    /// Two sides, of which a third hears both.
    Bridge,
    /// It hears nobody.
    Deaf,
    /// Nobody hears it.
    Mute,
    /// It does not hear one other.
    OneWay,
    /// One of these comes and goes.
    Flap,
    /// A link to it holds what it carries.
    Clog,
    /// All its links do, and those of others one after the other.
    Swizzle,
    /// Strangers take its connections.
    Eclipse,
    /// It leaves, having only followed.
    Leave,
    /// It stays away until others may have forgotten what it needs.
    Away,
    /// An empty machine takes its place.
    Replaced,
    /// It asks to validate, for itself or in the place of another.
    Join,
    /// It asks to leave the validators.
    Quit,
    /// The set in which it may vote changes.
    View,
    /// It makes a snapshot.
    Checkpoint,
    /// It lets old blocks go.
    Pruned,
    /// It has gathered a snapshot, and opens its home again.
    Reopen,
    /// A connection of it ends.
    Reset,
    /// A frame to it is lost.
    Loss,
    /// A frame to it comes twice.
    Duplicate,
    /// A frame to it takes many times as long.
    Late,
    /// A frame to it is dropped from a full queue.
    Overflow,
}

impl Kind {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 41] = [
        Self::Crash,
        Self::PowerCut,
        Self::DiskStop,
        Self::DiskError,
        Self::NoRoom,
        Self::Stall,
        Self::Lie,
        Self::Misdirected,
        Self::LostPage,
        Self::Decay,
        Self::LostCopies,
        Self::Divergence,
        Self::Freeze,
        Self::ClockStep,
        Self::Hush,
        Self::Split,
        Self::Alone,
        Self::Proposer,
        Self::Ring,
        Self::Bridge,
        Self::Deaf,
        Self::Mute,
        Self::OneWay,
        Self::Flap,
        Self::Clog,
        Self::Swizzle,
        Self::Eclipse,
        Self::Leave,
        Self::Away,
        Self::Replaced,
        Self::Join,
        Self::Quit,
        Self::View,
        Self::Checkpoint,
        Self::Pruned,
        Self::Reopen,
        Self::Reset,
        Self::Loss,
        Self::Duplicate,
        Self::Late,
        Self::Overflow,
    ];

    /// As the table says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerCut => "power cut",
            Self::DiskStop => "disk stop",
            Self::DiskError => "disk error",
            Self::NoRoom => "no room",
            Self::Stall => "stalled syncs",
            Self::Lie => "lying syncs",
            Self::Misdirected => "misdirected write",
            Self::LostPage => "lost page",
            Self::Decay => "decay",
            Self::LostCopies => "loss of all copies",
            Self::Divergence => "divergence",
            Self::Freeze => "freeze",
            Self::ClockStep => "clock step",
            Self::Hush => "hush",
            Self::Split => "split",
            Self::Alone => "alone",
            Self::Proposer => "proposer",
            Self::Ring => "ring",
            Self::Bridge => "bridge",
            Self::Deaf => "deaf",
            Self::Mute => "mute",
            Self::OneWay => "one way",
            Self::Flap => "flap",
            Self::Clog => "clog",
            Self::Swizzle => "swizzle",
            Self::Eclipse => "eclipse",
            Self::Leave => "leave",
            Self::Away => "away",
            Self::Replaced => "replaced",
            Self::Join => "asks to join",
            Self::Quit => "asks to leave",
            Self::View => "change of the set",
            Self::Checkpoint => "snapshot made",
            Self::Pruned => "blocks pruned",
            Self::Reopen => "snapshot gathered",
            Self::Reset => "reset",
            Self::Loss => "loss",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Overflow => "overflow",
        }
    }
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Step {
    /// It reads its disk, or has not yet heard whether another process has its key.
    Starting,
    /// It waits for a proposal, or for its height to begin.
    Propose,
    /// It has prevoted.
    Prevote,
    /// It has precommitted.
    Precommit,
    /// It has a certificate, and the block is on its way, being written or executed.
    Commit,
    /// It asks for blocks that others have.
    CatchingUp,
    /// It gathers a snapshot of others.
    Syncing,
}

impl Step {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] =
        [Self::Starting, Self::Propose, Self::Prevote, Self::Precommit, Self::Commit, Self::CatchingUp, Self::Syncing];

    /// As the table says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Propose => "propose",
            Self::Prevote => "prevote",
            Self::Precommit => "precommit",
            Self::Commit => "commit",
            Self::CatchingUp => "catching up",
            Self::Syncing => "syncing",
        }
    }

    /// What a machine is doing; none where it is down.
    pub(crate) fn of(machine: &Machine) -> Option<Self> {
        let replica = &machine.running.as_ref()?.replica;
        let consensus = replica.consensus();
        if replica.waits_for_own() {
            return Some(Self::Starting);
        }
        if machine.is_syncing {
            return Some(Self::Syncing);
        }
        if machine.is_catching_up {
            return Some(Self::CatchingUp);
        }
        if consensus.height() == replica.height() && consensus.certified().is_some() {
            return Some(Self::Commit);
        }
        Some(match consensus.current_step() {
            CoreStep::Propose => Self::Propose,
            CoreStep::Prevote => Self::Prevote,
            CoreStep::Precommit => Self::Precommit,
        })
    }
}

/// How often each fault met each step, of the node that it happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage([[u64; Step::ALL.len()]; Kind::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([[0; Step::ALL.len()]; Kind::ALL.len()])
    }
}

impl Coverage {
    /// It happened once more.
    pub(crate) fn count(&mut self, kind: Kind, step: Step) {
        self.0[kind as usize][step as usize] += 1;
    }

    /// How often a fault met a step.
    pub fn of(&self, kind: Kind, step: Step) -> u64 {
        self.0[kind as usize][step as usize]
    }

    /// Adds what another run met.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().flatten().zip(other.0.iter().flatten()) {
            *mine += theirs;
        }
    }

    /// Pairs that never met, and could.
    pub fn empty(&self) -> impl Iterator<Item = (Kind, Step)> {
        let all = Kind::ALL.into_iter().flat_map(|kind| Step::ALL.map(|step| (kind, step)));
        all.filter(|(kind, step)| self.of(*kind, *step) == 0 && can_meet(*kind, *step))
    }
}

/// Whether a fault can happen to a node that does this: a snapshot is gathered by who gathers one, and where snapshots are, nobody loses
/// all copies of anything, and nobody leaves for having only followed.
fn can_meet(kind: Kind, step: Step) -> bool {
    match kind {
        Kind::Reopen => step == Step::Syncing,
        Kind::LostCopies | Kind::Leave => step != Step::Syncing,
        _ => true,
    }
}

impl fmt::Display for Coverage {
    /// A table for people: a line for each fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<18}", "")?;
        for step in Step::ALL {
            write!(f, "{:>12}", step.name())?;
        }
        for kind in Kind::ALL {
            write!(f, "\n{:<18}", kind.name())?;
            for step in Step::ALL {
                write!(f, "{:>12}", self.of(kind, step))?;
            }
        }
        Ok(())
    }
}
