//! A disk that forgets what was not synced, and fails as disks fail.
//!
//! Every file has three things: the **live** image, which the running process reads; the **durable** image, which a power
//! cut leaves; and the list of **pending** operations that lie between them. A sync moves a file's pending operations into
//! its durable image. So do names: created, renamed and unlinked ones are pending until their folder is synced.
//!
//! [`SimDisk::crash`] is a power cut: a [`Survival`] says which pending operations reached the disk, each for itself, so
//! that later ones may survive earlier ones, and writes may tear between sectors. [`SimDisk::kill`] is the end of the
//! process alone: the kernel still has everything, and the disk still lacks it. Handles of before either are dead.
//!
//! Operations that change something are counted. A [`Fault`] strikes at one of them: the machine stops before, during or
//! after it, it fails as a real disk fails, or it does something else and says that it went well. So a test runs a scenario
//! once, reads the count, and runs it again with a crash at each. What rots while nobody looks is in [`damage`](self). A
//! [`Tally`] says what really happened, so that a test can show that its faults did. All randomness comes from the seeds that
//! are handed in.
//!
//! | class | faults | what is promised |
//! |---|---|---|
//! | A, a power cut | [`Survival`], [`Fault::Stop`] | nothing acknowledged is lost, reopening always works |
//! | B, a disk that fails | [`Fault::Broken`], [`Fault::NoSpace`], [`SimDisk::set_full`], [`Fault::Lie`], [`Fault::Misdirected`], [`SimDisk::rot`], [`SimDisk::ruin`], [`SimDisk::lose_page`], [`SimDisk::fail_read`] | noticed before it is used; never a wrong answer |
//! | C, more than redundancy covers | the same in every copy; [`SimDisk::roll_back`] | a halt with its reason, or waiting; nothing is signed in doubt |

mod damage;
mod dice;
mod files;
mod image;
mod names;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstep_storage::disk::Disk;

pub use self::dice::Dice;
use self::image::{Image, Pending, index, survive};
use self::names::NameChange;
pub use self::trouble::{Loss, Trouble};

/// What is written whole or not at all. Disks promise 512 bytes; most write 4 KiB.
pub const SECTOR_BYTES: u64 = 512;
/// The larger unit in which writes tear, in which a disk loses what it cannot read any more, and in which images are shared
/// between forks.
pub const PAGE_BYTES: u64 = 4096;

/// Which pending operations a power cut leaves on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Survival {
    /// All of them.
    All,
    /// None of them.
    None,
    /// Each for itself, with even odds: lost or kept, out of order.
    Random,
    /// As `Random`, and a write that is kept keeps some of its sectors of 512 bytes and not others.
    TornSectors,
    /// As `TornSectors`, with pages of 4 KiB.
    TornPages,
    /// In order up to some point, in the middle of a write perhaps; nothing after it.
    Prefix,
    /// As `TornSectors`, with single bytes: redb asks no more of a disk than that one byte is written whole.
    Bytes,
    /// As `Random`, and what is kept was written in another order, so that an older write may lie over a newer one.
    Shuffled,
}

impl Survival {
    /// All of them, for sweeps.
    pub const EACH: [Survival; 8] = [
        Survival::All,
        Survival::None,
        Survival::Random,
        Survival::TornSectors,
        Survival::TornPages,
        Survival::Prefix,
        Survival::Bytes,
        Survival::Shuffled,
    ];
}

/// When the machine stops, seen from the operation it stops at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// The operation is not begun.
    Before,
    /// A write is begun and a part of it done; a sync has made a part durable; a name is changed or not.
    During,
    /// The operation is done, and nobody hears of it.
    After,
}

impl When {
    /// All of them, for sweeps.
    pub const EACH: [When; 3] = [When::Before, When::During, When::After];
}

/// What happens at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops: this and every further operation fails, until [`SimDisk::crash`] or [`SimDisk::kill`].
    Stop(When),
    /// The operation fails with an input/output error. A file's sync that fails has made some of it durable and forgets
    /// the rest: the next one succeeds and lies. Of names the rest stays pending, as a journal keeps it.
    Broken,
    /// The operation fails for want of space, having done nothing.
    NoSpace,
    /// A sync says that it is done and leaves everything in the disk's cache, where the next honest one finds it. Any other
    /// operation is done.
    Lie,
    /// A sync writes one page to another place, of this file or another, and says that it is done. Any other operation is done.
    Misdirected,
}

/// What really happened to a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes, changes of length and of names that failed.
    pub failed_writes: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
    /// Reads that failed: whole files, pages that the disk lost, or single ones.
    pub failed_reads: u64,
    /// Operations that found no room.
    pub refused: u64,
    /// Syncs that lied, while there was something to sync.
    pub lies: u64,
    /// Pages written to another place.
    pub misdirected: u64,
    /// Pages, bytes and files changed or lost at rest.
    pub rotten: u64,
    /// Power cuts that took something that a sync had promised to keep.
    pub broken_promises: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Power cuts that found something that no sync had covered.
    pub unsynced: u64,
    /// The process alone ended.
    pub kills: u64,
}

impl Tally {
    /// Of two disks together.
    pub fn and(self, other: Tally) -> Tally {
        Tally {
            failed_writes: self.failed_writes + other.failed_writes,
            failed_syncs: self.failed_syncs + other.failed_syncs,
            failed_reads: self.failed_reads + other.failed_reads,
            refused: self.refused + other.refused,
            lies: self.lies + other.lies,
            misdirected: self.misdirected + other.misdirected,
            rotten: self.rotten + other.rotten,
            broken_promises: self.broken_promises + other.broken_promises,
            crashes: self.crashes + other.crashes,
            unsynced: self.unsynced + other.unsynced,
            kills: self.kills + other.kills,
        }
    }

    /// Whether the disk said that something failed.
    pub fn has_failed(&self) -> bool {
        self.failed_writes + self.failed_syncs + self.failed_reads + self.refused > 0
    }
}

/// A simulated disk. Clones are the same disk; [`SimDisk::fork`] makes another.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Clone, Default)]
struct World {
    files: BTreeMap<u64, FileState>,
    next_file: u64,
    live_names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    /// Of the pending names, these a sync that lied has promised.
    promised_names: usize,
    dirs: BTreeSet<String>,
    /// Handles of an earlier life do nothing.
    life: u64,
    stopped: bool,
    operations: u64,
    syncs: u64,
    faults: BTreeMap<u64, Fault>,
    /// Files do not grow and none is made.
    full: bool,
    unreadable: BTreeSet<String>,
    /// The read that fails, counted from now; none for none.
    failing_read: Option<u64>,
    /// Syncs of files with this in their path, and of folders of this name, do nothing and say that they did.
    lying: Option<String>,
    /// A file whose pages go nowhere else, and are hit by none.
    spared: Option<String>,
    /// So many syncs from now one writes a page elsewhere.
    straying: Option<u64>,
    dice: Option<Dice>,
    tally: Tally,
}

#[derive(Clone, Default)]
struct FileState {
    live: Image,
    durable: Image,
    pending: Vec<Pending>,
    /// Of the pending operations, these a sync that lied has promised.
    promised: usize,
    /// What is durable is more than the pending operations away from what is live.
    has_strayed: bool,
    /// Pages that the disk cannot read, until they are written again.
    lost: BTreeSet<u64>,
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> SimDisk {
        SimDisk { world: Arc::new(Mutex::new(World::default())) }
    }

    /// This disk as the trait that stores take.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Another disk with the same content, live, durable and pending, and no faults planned. Handles are not carried over.
    pub fn fork(&self) -> SimDisk {
        let mut world = self.lock().clone();
        world.life += 1;
        world.faults.clear();
        SimDisk { world: Arc::new(Mutex::new(world)) }
    }

    /// Operations so far that change something: creates, writes, changes of length, renames, removals and syncs.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Syncs so far, of files and of folders.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// What really happened so far.
    pub fn tally(&self) -> Tally {
        self.lock().tally
    }

    /// Plans a fault for an operation, counted from the first of the disk's life as 0. `seed` draws what a partial
    /// operation leaves.
    pub fn fault_at(&self, operation: u64, fault: Fault, seed: u64) {
        let mut world = self.lock();
        world.faults.insert(operation, fault);
        world.dice = Some(Dice::new(seed));
    }

    /// Whether the machine has stopped at a fault.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// The machine stops now: what still holds a handle can do nothing more with it, not even close what it opened.
    pub fn stop(&self) {
        self.lock().stopped = true;
    }

    /// Fills the disk: files cannot grow and none can be made; what is there can be overwritten. Or makes room again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Makes reads of a file fail, or succeed again.
    pub fn set_unreadable(&self, path: &str, unreadable: bool) {
        let mut world = self.lock();
        if unreadable {
            world.unreadable.insert(path.to_owned());
        } else {
            world.unreadable.remove(path);
        }
    }

    /// Makes one read fail, that many reads from now, and the same one succeed when it is tried again.
    pub fn fail_read(&self, after: u64) {
        self.lock().failing_read = Some(after);
    }

    /// Makes syncs lie, for files whose path contains `part` and for the folder of that name: they return and do nothing.
    pub fn set_lying(&self, part: Option<&str>) {
        self.lock().lying = part.map(str::to_owned);
    }

    /// Whether some syncs do nothing.
    pub fn is_lying(&self) -> bool {
        self.lock().lying.is_some()
    }

    /// Has a sync write a page elsewhere ([`Fault::Misdirected`]): that many syncs from now, of files that have something to sync.
    pub fn misdirect(&self, after: u64, seed: u64) {
        let mut world = self.lock();
        world.straying = Some(after);
        world.dice = Some(Dice::new(seed));
    }

    /// Keeps a file out of [`Fault::Misdirected`]: none of its pages goes astray, and no other page hits it.
    pub fn spare(&self, path: &str) {
        self.lock().spared = Some(path.to_owned());
    }

    /// Nothing fails any more: no planned failure is left, there is room, and every sync is honest. What is damaged stays so, and
    /// a machine that is to stop stops.
    pub fn mend(&self) {
        let mut world = self.lock();
        world.faults.retain(|_, fault| matches!(fault, Fault::Stop(_)));
        world.straying = None;
        world.full = false;
        world.lying = None;
        world.failing_read = None;
        world.unreadable.clear();
    }

    /// A power cut. What was pending survives as `survival` says; then the disk runs again, for new handles. True if it took
    /// something that a sync had promised to keep.
    pub fn crash(&self, survival: Survival, seed: u64) -> bool {
        let mut dice = Dice::new(seed);
        let mut guard = self.lock();
        let world = &mut *guard;
        world.tally.crashes += 1;
        let mut has_pending = !world.pending_names.is_empty();
        let mut is_broken = world.promised_names > 0 && survival != Survival::All;
        for file in world.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            has_pending |= !pending.is_empty();
            is_broken |= std::mem::take(&mut file.promised) > 0 && survival != Survival::All;
            survive(&mut file.durable, &pending, survival, &mut dice);
            file.live = file.durable.clone();
            file.has_strayed = false;
        }
        world.tally.unsynced += u64::from(has_pending);
        world.tally.broken_promises += u64::from(is_broken);
        world.promised_names = 0;
        let mut changes = std::mem::take(&mut world.pending_names);
        match survival {
            Survival::All => {}
            Survival::None => changes.clear(),
            Survival::Prefix => changes.truncate(index(dice.below(changes.len() as u64 + 1))),
            _ => changes.retain(|_| dice.coin()),
        }
        changes.iter().for_each(|change| change.apply(&mut world.durable_names));
        world.live_names = world.durable_names.clone();
        let named: BTreeSet<u64> = world.live_names.values().copied().collect();
        world.files.retain(|file, _| named.contains(file));
        world.restart();
        is_broken
    }

    /// The end of the process, as by kill -9: the kernel keeps what was written, and the disk goes on lacking it.
    pub fn kill(&self) {
        let mut world = self.lock();
        world.tally.kills += 1;
        world.restart();
    }

    /// Whether the disk, under the kernel's cache, holds something else in files that end so than what a process reads there.
    pub fn hides_damage(&self, ending: &str) -> bool {
        let world = self.lock();
        world.live_names.iter().filter(|(path, _)| path.ends_with(ending)).map(|(_, file)| &world.files[file]).any(|file| {
            let mut below = file.durable.clone();
            file.pending.iter().for_each(|change| below.apply(change));
            !below.is_same(&file.live)
        })
    }

    /// A whole file, as the process sees it; nothing if there is none.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let world = self.lock();
        let file = &world.files[world.live_names.get(path)?];
        let mut bytes = vec![0; index(file.live.len)];
        file.live.read(0, &mut bytes);
        Some(bytes)
    }

    /// How long a file is as the process sees it, and up to where it holds something but zeros.
    pub fn extent(&self, path: &str) -> Option<(u64, u64)> {
        let world = self.lock();
        let live = &world.files[world.live_names.get(path)?].live;
        Some((live.len, live.used()))
    }

    /// The paths of all files, as the process sees them.
    pub fn paths(&self) -> Vec<String> {
        self.lock().live_names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an operation is to do, once its fault is known.
enum Course {
    Normal,
    /// The machine stops in the middle of it.
    Partial(Dice),
    /// It fails: a sync has made some of it durable, a write has written some.
    Broken(Dice),
    /// There is no room for all of it: a write that grows the file has written some.
    Short(Dice),
    /// A sync that says it is done and is not.
    Lie,
    /// A sync that writes a page elsewhere.
    Misdirected(Dice),
}

impl World {
    fn restart(&mut self) {
        self.life += 1;
        self.stopped = false;
        self.faults.clear();
        self.failing_read = None;
        self.straying = None;
    }

    /// Counts an operation and says how it goes.
    fn begin(&mut self, grows: bool) -> Result<Course> {
        if self.stopped {
            return Err(stopped());
        }
        let operation = self.operations;
        self.operations += 1;
        let dice = Dice::new(self.dice.as_mut().map_or(operation, Dice::roll));
        if grows && self.full {
            self.tally.refused += 1;
            return Ok(Course::Short(dice));
        }
        match self.faults.get(&operation) {
            None => Ok(Course::Normal),
            Some(Fault::NoSpace) => {
                self.tally.refused += 1;
                Err(ErrorKind::StorageFull.into())
            }
            Some(Fault::Broken) => Ok(Course::Broken(dice)),
            Some(Fault::Lie) => Ok(Course::Lie),
            Some(Fault::Misdirected) => Ok(Course::Misdirected(dice)),
            Some(Fault::Stop(when)) => {
                self.stopped = true;
                match when {
                    When::Before => Err(stopped()),
                    When::During => Ok(Course::Partial(dice)),
                    // Everything after it fails, and so does its own answer: see `finish`.
                    When::After => Ok(Course::Normal),
                }
            }
        }
    }

    /// The answer of an operation that was done: nobody hears it if the machine stopped.
    fn finish<T>(&self, answer: T) -> Result<T> {
        if self.stopped { Err(stopped()) } else { Ok(answer) }
    }

    fn change_name(&mut self, change: NameChange) -> Result<()> {
        match self.begin(matches!(change, NameChange::Create { .. }))? {
            Course::Broken(_) => {
                self.tally.failed_writes += 1;
                return Err(broken());
            }
            Course::Short(_) => return Err(ErrorKind::StorageFull.into()),
            Course::Partial(mut dice) => {
                // A name is changed whole or not at all: half of these do nothing.
                if dice.coin() {
                    return Err(stopped());
                }
            }
            Course::Normal | Course::Lie | Course::Misdirected(_) => {}
        }
        change.apply(&mut self.live_names);
        self.pending_names.push(change);
        self.finish(())
    }

    fn named(&self, path: &str) -> Result<u64> {
        self.live_names.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// The folder is there, or the root.
    fn check_parent(&self, path: &str) -> Result<()> {
        let parent = names::parent(path);
        if parent.is_empty() || self.dirs.contains(parent) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }
}

fn stopped() -> Error {
    Error::other("the machine has stopped")
}

fn broken() -> Error {
    Error::other("input/output error")
}
