//! What goes wrong with a disk beside power cuts, as values.

use serde::{Deserialize, Serialize};

/// Something that a disk does wrong while its machine runs. Where it needs a place or a file, a seed beside it draws which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Trouble {
    /// A write, a sync or a change of names fails with an input/output error.
    Broken {
        /// So many operations from now.
        after: u64,
    },
    /// One operation finds no room, also one that does not grow its file: some file systems write everything anew.
    NoSpace {
        /// So many operations from now.
        after: u64,
    },
    /// Files do not grow, and none is made.
    Full {
        /// For how long, in nanoseconds.
        lasts_ns: u64,
    },
    /// No sync returns.
    Stall {
        /// For how long, in nanoseconds.
        lasts_ns: u64,
    },
    /// Syncs of one store lie, and the power fails at the end: what they promised is in the disk's cache alone.
    Lie {
        /// For how long, in nanoseconds.
        lasts_ns: u64,
    },
    /// A sync writes a page to another place.
    Misdirected {
        /// So many operations from now.
        after: u64,
    },
    /// One read fails.
    FailedRead {
        /// So many reads from now.
        after: u64,
    },
    /// A bit or a page of a file changes, whether it is in use or not.
    Decay,
    /// A page of a file cannot be read any more.
    LostPage,
}

/// What takes more from a machine than its redundancy covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Loss {
    /// The file of the vote guard.
    Guard,
    /// All copies of the guard's two records, or of one of them at least and the end of the file with it.
    GuardCopies,
    /// The block log from some place on, whoever else lost his.
    Log,
    /// Everything since a while ago: somebody restores a copy.
    Restored {
        /// How old it is, in nanoseconds: of the copies that were made, the newest that is at least so old.
        age_ns: u64,
    },
}
