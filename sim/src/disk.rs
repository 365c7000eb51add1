//! A disk that forgets what was not synced.
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
//! after it, or it fails as a real disk fails. So a test runs a scenario once, reads the count, and runs it again with a
//! crash at each. All randomness comes from the seeds that are handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockstep_storage::disk::{Disk, DiskFile};

/// What is written whole or not at all. Disks promise 512 bytes; most write 4 KiB.
pub const SECTOR_BYTES: u64 = 512;
/// The larger unit in which writes tear, and in which images are shared between forks.
pub const PAGE_BYTES: u64 = PAGE as u64;
const PAGE: usize = 4096;
/// No simulated file is larger: a wrong offset is found here rather than in an endless loop.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// A small generator of random numbers (splitmix64): every seed gives a stream of its own.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn coin(&mut self) -> bool {
        self.roll() & 1 == 1
    }
}

/// Which pending operations a power cut leaves on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

impl Survival {
    /// All of them, for sweeps.
    pub const EACH: [Survival; 6] =
        [Survival::All, Survival::None, Survival::Random, Survival::TornSectors, Survival::TornPages, Survival::Prefix];
}

/// When the machine stops, seen from the operation it stops at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// Syncs of files with this in their path, and of folders of this name, do nothing and say that they did.
    lying: Option<String>,
    dice: Option<Dice>,
}

#[derive(Clone, Default)]
struct FileState {
    live: Image,
    durable: Image,
    pending: Vec<Pending>,
}

/// A change of a file's content that no sync has covered.
#[derive(Clone)]
enum Pending {
    Write { offset: u64, data: Arc<[u8]> },
    SetLen(u64),
}

/// A change of names that no sync of the folder has covered.
#[derive(Clone)]
enum NameChange {
    Create { path: String, file: u64 },
    Rename { from: String, to: String, file: u64 },
    Unlink { path: String, file: u64 },
}

impl NameChange {
    fn path(&self) -> &str {
        match self {
            NameChange::Create { path, .. } | NameChange::Unlink { path, .. } => path,
            NameChange::Rename { to, .. } => to,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            NameChange::Rename { from, to, file } => {
                remove_if(names, from, *file);
                names.insert(to.clone(), *file);
            }
            NameChange::Unlink { path, file } => remove_if(names, path, *file),
        }
    }
}

/// Removes a name unless it is another file's by now.
fn remove_if(names: &mut BTreeMap<String, u64>, path: &str, file: u64) {
    if names.get(path) == Some(&file) {
        names.remove(path);
    }
}

/// Bytes of a file in pages that forks share; a page that is absent reads as zeros.
#[derive(Clone, Default)]
struct Image {
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
    len: u64,
}

impl Image {
    fn read(&self, offset: u64, buf: &mut [u8]) {
        for_pages(offset, buf.len(), |page, within, range| match self.pages.get(&page) {
            Some(bytes) => buf[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
            None => buf[range].fill(0),
        });
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for_pages(offset, data.len(), |page, within, range| {
            let bytes = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(bytes)[within..within + range.len()].copy_from_slice(&data[range]);
        });
        self.len = self.len.max(offset + data.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE_BYTES));
            if let Some(last) = self.pages.get_mut(&(len / PAGE_BYTES)) {
                Arc::make_mut(last)[index(len % PAGE_BYTES)..].fill(0);
            }
        }
        self.len = len;
    }

    fn apply(&mut self, pending: &Pending) {
        match pending {
            Pending::Write { offset, data } => self.write(*offset, data),
            Pending::SetLen(len) => self.set_len(*len),
        }
    }

    /// A write of which each unit survives for itself. The length may have grown where the data is lost: it reads as zeros.
    fn apply_torn(&mut self, offset: u64, data: &[u8], unit: u64, dice: &mut Dice) {
        let end = offset + data.len() as u64;
        let mut at = offset;
        while at < end {
            let next = ((at / unit + 1) * unit).min(end);
            if dice.coin() {
                self.write(at, &data[index(at - offset)..index(next - offset)]);
            }
            at = next;
        }
        if dice.coin() {
            self.len = self.len.max(end);
        }
    }
}

/// Calls `each` with (page, offset within it, range of the data) for every page that a range touches.
fn for_pages(offset: u64, bytes: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < bytes {
        let at = offset + done as u64;
        let within = index(at % PAGE_BYTES);
        let take = (PAGE - within).min(bytes - done);
        each(at / PAGE_BYTES, within, done..done + take);
        done += take;
    }
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("simulated files are below FILE_BYTES_MAX")
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

    /// Makes syncs lie, for files whose path contains `part` and for the folder of that name: they return and do nothing.
    pub fn set_lying(&self, part: Option<&str>) {
        self.lock().lying = part.map(str::to_owned);
    }

    /// A power cut. What was pending survives as `survival` says; then the disk runs again, for new handles.
    pub fn crash(&self, survival: Survival, seed: u64) {
        let mut dice = Dice::new(seed);
        let mut world = self.lock();
        for file in world.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            survive(&mut file.durable, &pending, survival, &mut dice);
            file.live = file.durable.clone();
        }
        let changes = std::mem::take(&mut world.pending_names);
        let kept = match survival {
            Survival::Prefix => changes.len().min(index(dice.below(changes.len() as u64 + 1))),
            _ => changes.len(),
        };
        for change in &changes[..kept] {
            let survives = match survival {
                Survival::All | Survival::Prefix => true,
                Survival::None => false,
                Survival::Random | Survival::TornSectors | Survival::TornPages => dice.coin(),
            };
            if survives {
                change.apply(&mut world.durable_names);
            }
        }
        world.live_names = world.durable_names.clone();
        let named: BTreeSet<u64> = world.live_names.values().copied().collect();
        world.files.retain(|file, _| named.contains(file));
        world.restart();
    }

    /// The end of the process, as by kill -9: the kernel keeps what was written, and the disk goes on lacking it.
    pub fn kill(&self) {
        self.lock().restart();
    }

    /// Changes bits of a byte at rest, as rot does: `mask` is what is inverted.
    pub fn rot(&self, path: &str, offset: u64, mask: u8) {
        self.at_rest(path, |image| {
            assert!(offset < image.len, "rot is in what is there");
            let mut byte = [0];
            image.read(offset, &mut byte);
            image.write(offset, &[byte[0] ^ mask]);
        });
    }

    /// Cuts a file at rest, by an accident that is no operation of ours.
    pub fn cut(&self, path: &str, len: u64) {
        self.at_rest(path, |image| image.set_len(len.min(image.len)));
    }

    /// Takes a file's name away at rest.
    pub fn lose(&self, path: &str) {
        let mut world = self.lock();
        world.live_names.remove(path);
        world.durable_names.remove(path);
    }

    fn at_rest(&self, path: &str, mut change: impl FnMut(&mut Image)) {
        let mut world = self.lock();
        let file = world.live_names[path];
        let file = world.files.get_mut(&file).expect("a name names a file");
        [&mut file.live, &mut file.durable].into_iter().for_each(&mut change);
    }

    /// A whole file, as the process sees it; nothing if there is none.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let world = self.lock();
        let file = &world.files[world.live_names.get(path)?];
        let mut bytes = vec![0; index(file.live.len)];
        file.live.read(0, &mut bytes);
        Some(bytes)
    }

    /// The paths of all files, as the process sees them.
    pub fn paths(&self) -> Vec<String> {
        self.lock().live_names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies what survives of a file's pending operations.
fn survive(image: &mut Image, pending: &[Pending], survival: Survival, dice: &mut Dice) {
    let torn_unit = match survival {
        Survival::None => return,
        Survival::All => return pending.iter().for_each(|change| image.apply(change)),
        Survival::Prefix => {
            let kept = index(dice.below(pending.len() as u64 + 1));
            pending[..kept].iter().for_each(|change| image.apply(change));
            if let Some(Pending::Write { offset, data }) = pending.get(kept) {
                image.write(*offset, &data[..index(dice.below(data.len() as u64 + 1))]);
            }
            return;
        }
        Survival::Random => None,
        Survival::TornSectors => Some(SECTOR_BYTES),
        Survival::TornPages => Some(PAGE_BYTES),
    };
    for change in pending {
        match (change, torn_unit) {
            (Pending::Write { offset, data }, Some(unit)) => image.apply_torn(*offset, data, unit, dice),
            _ if dice.coin() => image.apply(change),
            _ => {}
        }
    }
}

/// What an operation is to do, once its fault is known.
enum Course {
    Normal,
    /// The machine stops in the middle of it.
    Partial(Dice),
    /// A sync that fails.
    Broken(Dice),
}

impl World {
    fn restart(&mut self) {
        self.life += 1;
        self.stopped = false;
        self.faults.clear();
    }

    /// Counts an operation and says how it goes.
    fn begin(&mut self, grows: bool) -> Result<Course> {
        if self.stopped {
            return Err(stopped());
        }
        if grows && self.full {
            return Err(ErrorKind::StorageFull.into());
        }
        let operation = self.operations;
        self.operations += 1;
        let dice = Dice::new(self.dice.as_mut().map_or(operation, Dice::roll));
        match self.faults.get(&operation) {
            None => Ok(Course::Normal),
            Some(Fault::NoSpace) => Err(ErrorKind::StorageFull.into()),
            Some(Fault::Broken) => Ok(Course::Broken(dice)),
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
            Course::Broken(_) => return Err(broken()),
            Course::Partial(mut dice) => {
                // A name is changed whole or not at all: half of these do nothing.
                if dice.coin() {
                    return Err(stopped());
                }
            }
            Course::Normal => {}
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
        let parent = parent(path);
        if parent.is_empty() || self.dirs.contains(parent) { Ok(()) } else { Err(ErrorKind::NotFound.into()) }
    }
}

fn stopped() -> Error {
    Error::other("the machine has stopped")
}

fn broken() -> Error {
    Error::other("input/output error")
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// One spelling for the root.
fn normal(dir: &str) -> &str {
    let dir = dir.strip_suffix('/').unwrap_or(dir);
    if dir == "." { "" } else { dir }
}

impl Disk for SimDisk {
    fn open(&self, path: &str) -> Result<Arc<dyn DiskFile>> {
        let world = self.lock();
        if world.stopped {
            return Err(stopped());
        }
        let file = world.named(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), file, life: world.life, path: path.to_owned() }))
    }

    fn create(&self, path: &str) -> Result<Arc<dyn DiskFile>> {
        let mut world = self.lock();
        world.check_parent(path)?;
        if world.live_names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = world.next_file;
        world.next_file += 1;
        world.files.insert(file, FileState::default());
        world.change_name(NameChange::Create { path: path.to_owned(), file })?;
        Ok(Arc::new(SimFile { disk: self.clone(), file, life: world.life, path: path.to_owned() }))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let world = self.lock();
        if world.stopped {
            return Err(stopped());
        }
        let dir = normal(dir);
        if !dir.is_empty() && !world.dirs.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = world.live_names.keys().filter(|path| parent(path) == dir);
        Ok(inside.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut world = self.lock();
        world.check_parent(to)?;
        let file = world.named(from)?;
        world.change_name(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), file })
    }

    fn unlink(&self, path: &str) -> Result<()> {
        let mut world = self.lock();
        let file = world.named(path)?;
        world.change_name(NameChange::Unlink { path: path.to_owned(), file })
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        let dir = normal(dir);
        let mut world = self.lock();
        let course = world.begin(false)?;
        world.syncs += 1;
        if world.lying.as_deref() == Some(dir) {
            return world.finish(());
        }
        let (mut mine, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut world.pending_names).into_iter().partition(|change| parent(change.path()) == dir);
        world.pending_names = others;
        let answer = match course {
            Course::Normal => world.finish(()),
            Course::Partial(mut dice) => {
                let rest = mine.split_off(index(dice.below(mine.len() as u64 + 1)));
                world.pending_names.extend(rest);
                Err(stopped())
            }
            Course::Broken(mut dice) => {
                let (done, rest): (Vec<_>, Vec<_>) = mine.into_iter().partition(|_| dice.coin());
                world.pending_names.extend(rest);
                mine = done;
                Err(broken())
            }
        };
        mine.iter().for_each(|change| change.apply(&mut world.durable_names));
        answer
    }

    fn create_dir(&self, dir: &str) -> Result<()> {
        let mut world = self.lock();
        if world.stopped {
            return Err(stopped());
        }
        // Folders are made once, by `init`, and are durable with that.
        let dir = normal(dir);
        for (at, _) in dir.match_indices('/').chain([(dir.len(), "")]) {
            world.dirs.insert(dir[..at].to_owned());
        }
        Ok(())
    }
}

/// A handle: a file, in one life of the process.
struct SimFile {
    disk: SimDisk,
    file: u64,
    life: u64,
    path: String,
}

impl SimFile {
    fn world(&self) -> Result<MutexGuard<'_, World>> {
        let world = self.disk.lock();
        if world.stopped || world.life != self.life {
            return Err(stopped());
        }
        Ok(world)
    }
}

fn file(world: &mut World, file: u64) -> &mut FileState {
    world.files.get_mut(&file).expect("a file is kept for as long as a life that has handles")
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let world = self.world()?;
        if world.unreadable.contains(&self.path) {
            return Err(broken());
        }
        let live = &world.files[&self.file].live;
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > live.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        live.read(offset, buf);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut world = self.world()?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(ErrorKind::InvalidInput)?;
        let grows = end > world.files[&self.file].live.len;
        let course = world.begin(grows)?;
        let state = file(&mut world, self.file);
        let mut put = |offset: u64, data: &[u8]| {
            state.live.write(offset, data);
            state.pending.push(Pending::Write { offset, data: Arc::from(data) });
        };
        match course {
            Course::Normal => {
                put(offset, data);
                world.finish(())
            }
            Course::Partial(mut dice) => {
                // The process died while the kernel copied: any prefix was copied.
                put(offset, &data[..index(dice.below(data.len() as u64 + 1))]);
                Err(stopped())
            }
            Course::Broken(mut dice) => {
                put(offset, &data[..index(dice.below(data.len() as u64 + 1))]);
                Err(broken())
            }
        }
    }

    fn len(&self) -> Result<u64> {
        Ok(self.world()?.files[&self.file].live.len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut world = self.world()?;
        if len > FILE_BYTES_MAX {
            return Err(ErrorKind::InvalidInput.into());
        }
        let grows = len > world.files[&self.file].live.len;
        let partial = match world.begin(grows)? {
            Course::Normal => false,
            Course::Broken(_) => return Err(broken()),
            Course::Partial(mut dice) => dice.coin(),
        };
        if !world.stopped || !partial {
            let state = file(&mut world, self.file);
            state.live.set_len(len);
            state.pending.push(Pending::SetLen(len));
        }
        world.finish(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut world = self.world()?;
        let course = world.begin(false)?;
        world.syncs += 1;
        if world.lying.as_ref().is_some_and(|part| self.path.contains(part.as_str())) {
            return world.finish(());
        }
        let state = file(&mut world, self.file);
        let pending = std::mem::take(&mut state.pending);
        match course {
            Course::Normal => {
                pending.iter().for_each(|change| state.durable.apply(change));
                world.finish(())
            }
            Course::Partial(mut dice) => {
                // The first of it is on the disk for good; the rest is for the power cut to decide.
                let done = index(dice.below(pending.len() as u64 + 1));
                pending[..done].iter().for_each(|change| state.durable.apply(change));
                state.pending = pending[done..].to_vec();
                Err(stopped())
            }
            Course::Broken(mut dice) => {
                survive(&mut state.durable, &pending, Survival::TornPages, &mut dice);
                Err(broken())
            }
        }
    }
}
