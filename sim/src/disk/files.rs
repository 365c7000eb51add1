//! The disk as stores see it: folders, files and what their operations do.

use std::io::{ErrorKind, Result};
use std::sync::{Arc, MutexGuard};

use lockstep_storage::disk::{Disk, DiskFile};

use super::damage::misdirect;
use super::image::{Pending, index, survive};
use super::names::{NameChange, normal, parent, take_synced};
use super::{Course, Dice, FileState, PAGE_BYTES, SimDisk, Survival, World, broken, stopped};

/// No simulated file is larger: a wrong offset is found here rather than in an endless loop.
const FILE_BYTES_MAX: u64 = 1 << 32;

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
        if world.lying.as_deref() == Some(dir) || matches!(course, Course::Lie) {
            world.tally.lies += u64::from(!world.pending_names.is_empty());
            world.promised_names = world.pending_names.iter().filter(|change| parent(change.path()) == dir).count();
            return world.finish(());
        }
        let (mut done, mut rest) = take_synced(std::mem::take(&mut world.pending_names), dir);
        let answer = match course {
            Course::Normal | Course::Lie | Course::Misdirected(_) | Course::Short(_) => world.finish(()),
            Course::Partial(mut dice) => {
                rest.extend(done.split_off(index(dice.below(done.len() as u64 + 1))));
                Err(stopped())
            }
            Course::Broken(mut dice) => {
                let (kept, lost): (Vec<_>, Vec<_>) = done.into_iter().partition(|_| dice.coin());
                rest.extend(lost);
                world.tally.failed_syncs += 1;
                done = kept;
                Err(broken())
            }
        };
        // As they came: a file that got two names one after the other has the second in the end.
        rest.sort_unstable_by_key(|(at, _)| *at);
        world.pending_names = rest.into_iter().map(|(_, change)| change).collect();
        if world.pending_names.is_empty() {
            world.promised_names = 0;
        }
        done.iter().for_each(|(_, change)| change.apply(&mut world.durable_names));
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

impl FileState {
    fn put(&mut self, offset: u64, data: &[u8]) {
        self.live.write(offset, data);
        self.pending.push(Pending::write(offset, data));
    }

    /// Makes durable what was pending.
    fn settle(&mut self, pending: &[Pending]) {
        let is_resized = pending.iter().any(|change| matches!(change, Pending::SetLen(_)));
        if self.has_strayed || is_resized {
            pending.iter().for_each(|change| self.durable.apply(change));
        } else {
            self.durable.follow(&self.live, pending);
        }
    }

    fn put_len(&mut self, len: u64) {
        self.live.set_len(len);
        self.lost.retain(|page| page * PAGE_BYTES < len);
        self.pending.push(Pending::SetLen(len));
    }

    /// Whether the disk cannot read some page of a range.
    fn lacks(&self, offset: u64, bytes: u64) -> bool {
        bytes > 0 && self.lost.range(offset / PAGE_BYTES..=(offset + bytes - 1) / PAGE_BYTES).next().is_some()
    }

    /// A write that covers a page whole makes it readable again, as a disk takes a spare one for it. One that covers a part
    /// would have to read the rest: false.
    fn mends(&mut self, offset: u64, bytes: u64) -> bool {
        let whole = offset.div_ceil(PAGE_BYTES)..(offset + bytes) / PAGE_BYTES;
        self.lost.retain(|page| !whole.contains(page));
        !self.lacks(offset, bytes)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut world = self.world()?;
        let fails = world.failing_read.is_some_and(|left| left == 0);
        world.failing_read = world.failing_read.and_then(|left| left.checked_sub(1));
        let state = &world.files[&self.file];
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > state.live.len) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if fails || world.unreadable.contains(&self.path) || state.lacks(offset, buf.len() as u64) {
            world.tally.failed_reads += 1;
            return Err(broken());
        }
        state.live.read(offset, buf);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut world = self.world()?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(ErrorKind::InvalidInput)?;
        let len = world.files[&self.file].live.len;
        let course = world.begin(end > len)?;
        let state = file(&mut world, self.file);
        if !state.mends(offset, data.len() as u64) {
            world.tally.failed_writes += 1;
            return Err(broken());
        }
        match course {
            Course::Normal | Course::Lie | Course::Misdirected(_) => {
                state.put(offset, data);
                world.finish(())
            }
            Course::Partial(mut dice) => {
                // The process died while the kernel copied: any prefix was copied.
                state.put(offset, &data[..index(dice.below(data.len() as u64 + 1))]);
                Err(stopped())
            }
            Course::Broken(mut dice) => {
                state.put(offset, &data[..index(dice.below(data.len() as u64 + 1))]);
                world.tally.failed_writes += 1;
                Err(broken())
            }
            Course::Short(mut dice) => {
                // What lies inside the file has its room, and some of what would grow it may have found the last of it; not all, or there
                // would have been room.
                let inside = len.saturating_sub(offset).min(data.len() as u64);
                let last_room = dice.below((data.len() as u64 - inside).max(1));
                state.put(offset, &data[..index(inside + last_room)]);
                Err(ErrorKind::StorageFull.into())
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
        match world.begin(grows)? {
            Course::Broken(_) => {
                world.tally.failed_writes += 1;
                return Err(broken());
            }
            Course::Short(_) => return Err(ErrorKind::StorageFull.into()),
            Course::Partial(mut dice) => {
                if dice.coin() {
                    file(&mut world, self.file).put_len(len);
                }
            }
            Course::Normal | Course::Lie | Course::Misdirected(_) => file(&mut world, self.file).put_len(len),
        }
        world.finish(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut world = self.world()?;
        let mut course = world.begin(false)?;
        world.syncs += 1;
        if !world.files[&self.file].pending.is_empty() && world.spared.as_deref() != Some(&self.path) {
            if world.straying == Some(0) && matches!(course, Course::Normal) {
                course = Course::Misdirected(Dice::new(world.dice.as_mut().map_or(0, Dice::roll)));
            }
            world.straying = world.straying.and_then(|left| left.checked_sub(1));
        }
        let lies = world.lying.as_ref().is_some_and(|part| self.path.contains(part.as_str())) || matches!(course, Course::Lie);
        let state = file(&mut world, self.file);
        if lies {
            state.promised = state.pending.len();
            world.tally.lies += u64::from(!world.files[&self.file].pending.is_empty());
            return world.finish(());
        }
        let pending = std::mem::take(&mut state.pending);
        state.promised = 0;
        match course {
            Course::Normal | Course::Lie | Course::Short(_) => {
                state.settle(&pending);
                world.finish(())
            }
            Course::Misdirected(mut dice) => {
                state.has_strayed = true;
                misdirect(&mut world, self.file, &pending, &mut dice);
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
                state.has_strayed = true;
                survive(&mut state.durable, &pending, Survival::TornPages, &mut dice);
                world.tally.failed_syncs += 1;
                Err(broken())
            }
        }
    }
}
