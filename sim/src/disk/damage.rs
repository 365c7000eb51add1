//! What happens to bytes at rest, and to those that a disk puts elsewhere.

use super::dice::Dice;
use super::image::{Image, Pending, index};
use super::{PAGE_BYTES, SimDisk, World};

impl SimDisk {
    /// Changes bits of a byte at rest, as rot does: `mask` is what is inverted. Of a file that has grown and was not synced
    /// since, what is durable may not reach there, and has nothing to lose.
    pub fn rot(&self, path: &str, offset: u64, mask: u8) {
        self.at_rest(path, |image| {
            if offset >= image.len {
                return;
            }
            let mut byte = [0];
            image.read(offset, &mut byte);
            image.write(offset, &[byte[0] ^ mask]);
        });
    }

    /// Fills a page of a file with noise, at rest.
    pub fn ruin(&self, path: &str, page: u64, seed: u64) {
        self.at_rest(path, |image| {
            let mut dice = Dice::new(seed);
            let begins = page * PAGE_BYTES;
            let noise: Vec<u8> = (0..PAGE_BYTES / 8).flat_map(|_| dice.roll().to_le_bytes()).collect();
            let bytes = image.len.saturating_sub(begins).min(PAGE_BYTES);
            image.write(begins, &noise[..index(bytes)]);
        });
    }

    /// Makes a page of a file unreadable until it is written again: a latent sector error.
    pub fn lose_page(&self, path: &str, page: u64) {
        let mut world = self.lock();
        let file = world.live_names[path];
        world.tally.rotten += 1;
        let file = world.files.get_mut(&file).expect("a name names a file");
        file.lost.insert(page);
    }

    /// Somebody saved what the disk still gives: pages that could not be read are zeros now, and can be.
    pub fn salvage(&self) -> u64 {
        let mut world = self.lock();
        let mut pages = 0;
        for file in world.files.values_mut() {
            for page in std::mem::take(&mut file.lost) {
                pages += 1;
                file.has_strayed = true;
                for image in [&mut file.live, &mut file.durable] {
                    let begins = page * PAGE_BYTES;
                    let bytes = image.len.saturating_sub(begins).min(PAGE_BYTES);
                    image.write(begins, &vec![0; index(bytes)][..]);
                }
            }
        }
        pages
    }

    /// Cuts a file at rest, by an accident that is no operation of ours.
    pub fn cut(&self, path: &str, len: u64) {
        self.at_rest(path, |image| image.set_len(len.min(image.len)));
    }

    /// Takes a file's name away at rest.
    pub fn lose(&self, path: &str) {
        let mut world = self.lock();
        world.tally.rotten += 1;
        world.live_names.remove(path);
        world.durable_names.remove(path);
    }

    /// Puts everything back to what an older copy of this disk ([`SimDisk::fork`]) had, as a restored backup does. Operations
    /// are counted on.
    pub fn roll_back(&self, older: &SimDisk) {
        let older = older.lock().clone();
        let mut world = self.lock();
        let World { operations, syncs, life, tally, .. } = &*world;
        let (operations, syncs, life, tally) = (*operations, *syncs, *life, *tally);
        *world = World { operations, syncs, tally, ..older };
        world.life = life;
        world.restart();
    }

    fn at_rest(&self, path: &str, mut change: impl FnMut(&mut Image)) {
        let mut world = self.lock();
        let file = world.live_names[path];
        world.tally.rotten += 1;
        let file = world.files.get_mut(&file).expect("a name names a file");
        file.has_strayed = true;
        [&mut file.live, &mut file.durable].into_iter().for_each(&mut change);
    }
}

/// Applies what a sync was to make durable, with one page of it in another place. Its own place has what it had before; the
/// cache hides that until the power fails. What lay in the other place is gone, and is read so where it was not cached.
pub(super) fn misdirect(world: &mut World, file: u64, pending: &[Pending], dice: &mut Dice) {
    let spared = world.spared.as_ref().and_then(|path| world.live_names.get(path)).copied();
    let state = world.files.get_mut(&file).expect("it is being synced");
    let writes = || pending.iter().enumerate().filter(|(_, change)| matches!(change, Pending::Write { data, .. } if !data.is_empty()));
    let count = writes().count();
    if count == 0 || spared == Some(file) {
        pending.iter().for_each(|change| state.durable.apply(change));
        return;
    }
    let strayed = writes().nth(dice.place(count)).map(|(at, _)| at).expect("it was counted");
    let others = pending.iter().enumerate().filter(|(at, _)| *at != strayed);
    others.for_each(|(_, change)| state.durable.apply(change));
    let Pending::Write { offset, data } = &pending[strayed] else { return };
    // Only one page goes astray, and what of the write lies outside it arrives.
    let page_ends = (offset / PAGE_BYTES + 1) * PAGE_BYTES;
    let astray = data.len().min(index(page_ends - offset));
    state.durable.write(*offset + astray as u64, &data[astray..]);
    state.durable.len = state.durable.len.max(offset + data.len() as u64);
    let places: Vec<(u64, u64)> = world
        .files
        .iter()
        .filter(|(file, _)| Some(**file) != spared)
        .flat_map(|(file, state)| state.durable.used_pages().into_iter().map(|page| (*file, page)))
        .filter(|place| *place != (file, offset / PAGE_BYTES))
        .collect();
    world.tally.misdirected += 1;
    if places.is_empty() {
        return;
    }
    let (victim, page) = places[dice.place(places.len())];
    let is_cached = dice.coin();
    let victim = world.files.get_mut(&victim).expect("it was listed");
    victim.has_strayed = true;
    let mut images = vec![&mut victim.durable];
    if !is_cached {
        images.push(&mut victim.live);
    }
    for image in images {
        let begins = page * PAGE_BYTES + offset % PAGE_BYTES;
        let bytes = image.len.saturating_sub(begins).min(astray as u64);
        image.write(begins, &data[..index(bytes)]);
    }
}
