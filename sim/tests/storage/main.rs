//! Every store on a disk that loses, tears and reorders what was not synced, that fails, and that rots.

mod crash;
mod disk;
mod redb_crashes;
mod rot;
mod scenario;
mod snapshots;
