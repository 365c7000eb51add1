//! The bytes of a file, what changes them, and what of a change survives a power cut.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::dice::Dice;
use super::{PAGE_BYTES, SECTOR_BYTES, Survival};

const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_BYTES);

/// A change of a file's content that no sync has covered.
#[derive(Clone)]
pub(super) enum Pending {
    Write { offset: u64, data: Bytes },
    SetLen(u64),
}

impl Pending {
    /// A write of these bytes.
    pub(super) fn write(offset: u64, data: &[u8]) -> Self {
        // What is made ahead of time is a megabyte of zeros, at every start.
        let data = match NOTHING.get(..data.len()) {
            Some(zeros) if data.len() >= PAGE && zeros == data => Bytes::from_static(zeros),
            _ => Bytes::copy_from_slice(data),
        };
        Self::Write { offset, data }
    }
}

static NOTHING: [u8; 1 << 20] = [0; 1 << 20];

/// The page that most files are made of before they are used.
static ZEROS: LazyLock<Arc<[u8; PAGE]>> = LazyLock::new(|| Arc::new([0; PAGE]));

/// Bytes of a file in pages; a page that is absent reads as zeros. Copies share what neither has changed since: the pages, and
/// all of them together.
#[derive(Clone, Default)]
pub(super) struct Image {
    pages: Arc<BTreeMap<u64, Arc<[u8; PAGE]>>>,
    pub(super) len: u64,
}

impl Image {
    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) {
        for_pages(offset, buf.len(), |page, within, range| match self.pages.get(&page) {
            Some(bytes) => buf[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
            None => buf[range].fill(0),
        });
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let pages = Arc::make_mut(&mut self.pages);
        for_pages(offset, data.len(), |page, within, range| match <&[u8; PAGE]>::try_from(&data[range.clone()]) {
            Ok(whole) if *whole == **ZEROS => drop(pages.insert(page, ZEROS.clone())),
            Ok(whole) => drop(pages.insert(page, Arc::new(*whole))),
            Err(_) => {
                let bytes = pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
                Arc::make_mut(bytes)[within..within + range.len()].copy_from_slice(&data[range]);
            }
        });
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Whether it has the same bytes.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let page = |image: &Self, page: &u64| image.pages.get(page).unwrap_or(&ZEROS).clone();
        self.len == other.len && self.pages.keys().chain(other.pages.keys()).all(|at| page(self, at) == page(other, at))
    }

    /// Takes over what was written to `newer`, of which this is what it was before: shares the pages that it touched.
    pub(super) fn follow(&mut self, newer: &Image, pending: &[Pending]) {
        let (pages, others) = (Arc::make_mut(&mut self.pages), &newer.pages);
        for change in pending {
            let Pending::Write { offset, data } = change else { continue };
            for_pages(*offset, data.len(), |page, _, _| {
                pages.extend(others.get(&page).map(|bytes| (page, bytes.clone())));
            });
        }
        self.len = newer.len;
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let pages = Arc::make_mut(&mut self.pages);
            pages.split_off(&len.div_ceil(PAGE_BYTES));
            if let Some(last) = pages.get_mut(&(len / PAGE_BYTES)) {
                Arc::make_mut(last)[index(len % PAGE_BYTES)..].fill(0);
            }
        }
        self.len = len;
    }

    /// The pages that hold something, as numbers.
    pub(super) fn used_pages(&self) -> Vec<u64> {
        self.pages.keys().copied().collect()
    }

    /// Up to where it holds something but zeros.
    pub(super) fn used(&self) -> u64 {
        let last =
            |(page, bytes): (&u64, &Arc<[u8; PAGE]>)| Some(page * PAGE_BYTES + bytes.iter().rposition(|byte| *byte != 0)? as u64 + 1);
        self.pages.iter().rev().find_map(last).unwrap_or(0)
    }

    pub(super) fn apply(&mut self, pending: &Pending) {
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

    /// A write of which each byte survives for itself: less than any disk does, and all that redb asks of one.
    fn apply_bytes(&mut self, offset: u64, data: &[u8], dice: &mut Dice) {
        let mut there = vec![0; data.len()];
        self.read(offset, &mut there);
        for (old, new) in there.chunks_mut(64).zip(data.chunks(64)) {
            let kept = dice.roll();
            let bytes = old.iter_mut().zip(new).enumerate();
            bytes.filter(|(at, _)| kept >> at & 1 == 1).for_each(|(_, (old, new))| *old = *new);
        }
        let grown = self.len.max(offset + data.len() as u64);
        let before = self.len;
        self.write(offset, &there);
        self.len = if dice.coin() { grown } else { before.max(offset + kept_bytes(&there)) };
    }
}

/// A length that covers every byte that is not zero.
fn kept_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
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

pub(super) fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("simulated files are below FILE_BYTES_MAX")
}

/// Applies what survives of a file's pending operations.
pub(super) fn survive(image: &mut Image, pending: &[Pending], survival: Survival, dice: &mut Dice) {
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
        Survival::Shuffled => {
            let mut kept: Vec<&Pending> = pending.iter().filter(|_| dice.coin()).collect();
            while !kept.is_empty() {
                image.apply(kept.swap_remove(dice.place(kept.len())));
            }
            return;
        }
        Survival::Random => None,
        Survival::TornSectors => Some(SECTOR_BYTES),
        Survival::TornPages => Some(PAGE_BYTES),
        Survival::Bytes => Some(1),
    };
    for change in pending {
        match (change, torn_unit) {
            (Pending::Write { offset, data }, Some(1)) => image.apply_bytes(*offset, data, dice),
            (Pending::Write { offset, data }, Some(unit)) => image.apply_torn(*offset, data, unit, dice),
            _ if dice.coin() => image.apply(change),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes, length and pages: everything that can be asked of an image.
    fn all_of(image: &Image) -> (Vec<u8>, Vec<u64>, u64) {
        let mut bytes = vec![0; index(image.len)];
        image.read(0, &mut bytes);
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        assert_eq!(image.used(), used);
        (bytes, image.used_pages(), image.len)
    }

    #[test]
    fn what_follows_is_what_was_written_again() {
        let mut dice = Dice::new(7);
        let (mut live, mut durable, mut plain) = (Image::default(), Image::default(), Image::default());
        for _ in 0..300 {
            let mut pending = Vec::new();
            for _ in 0..dice.below(5) {
                let offset = dice.below(5) * PAGE_BYTES + dice.below(2) * dice.below(PAGE_BYTES);
                let byte = u8::try_from(dice.below(3)).expect("small");
                let bytes = if dice.coin() { 2 * PAGE } else { index(dice.below(300)) };
                let data = vec![byte; bytes];
                live.write(offset, &data);
                pending.push(Pending::write(offset, &data));
            }
            let before = (durable.clone(), all_of(&durable));
            durable.follow(&live, &pending);
            pending.iter().for_each(|change| plain.apply(change));
            assert_eq!(all_of(&durable), all_of(&plain));
            assert_eq!(all_of(&durable), all_of(&live));
            assert_eq!(all_of(&before.0), before.1, "a copy stays what it is");
        }
    }
}
