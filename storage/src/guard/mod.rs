//! The vote guard: what this validator signed last, remembered before it is sent.
//!
//! The caller makes a record durable with [`Guard::write`], then signs exactly the record's sign-bytes, then sends. After
//! a restart it signs the same bytes again. So whatever the power cut took, nobody has seen two messages of ours that
//! contradict each other, and the lock is there.
//!
//! **Two slots, two copies.** Record n goes to slot n mod 2, so the record before it is untouched while it is written. Each
//! record is written twice, in pages of 4 KiB that nothing else shares, and both copies are synced by one sync. A write
//! that tears may hurt its own slot, which nobody was told of; rot may hurt one copy of a slot, and the other is left.
//!
//! **What a restart does for every damage:**
//!
//! | slot X, which holds the newest record n | slot Y, which holds record n−1 | what a restart does |
//! |---|---|---|
//! | both copies n | both copies n−1 | n counts as signed; both are sent again |
//! | one copy n, one fails (torn, or rotten) | any of these rows | n counts as signed; the copy that fails is written from the good one |
//! | one copy n, one n−2 (the write of n was cut between the copies) | good | n counts as signed; the older copy is written from the newer |
//! | one copy n−2, one fails (the write of n was torn) | good | the slot is n−2, its bad copy is written again; n−1 counts as signed; n was never sent |
//! | both copies n−2 (nothing of n arrived) | good | n−1 counts as signed; n was never sent |
//! | both fail | good | the slot was torn: n was never sent; n−1 counts as signed, and the next record goes to slot X. [`Guard::went_back`] says so, since the bytes do not tell a torn write from rot in both copies |
//! | good | both fail | n counts as signed; the message of n−1 is not sent again; [`Guard::went_back`], since n and n−1 look the same |
//! | both fail, one of them as no torn write does: the file ends before it, the disk cannot read it, it verifies and belongs elsewhere | any | what was signed last is not known: as in the next line |
//! | both fail | both fail | no readable slot: the node is silent until it holds a certificate of a height above its durable tip, calls [`Guard::resume_above`] with that height, and signs only above it |
//! | a copy that verifies is of a newer version | — | refuses to open: run the newer program |
//! | a copy that verifies is another owner's | — | refuses to open: it is the memory of another key, or of this one on another chain |
//! | the file is missing | | refuses to open: `lockstep init` makes one, or importing a `priv_validator_state.json` |
//! | a page cannot be read (the disk says so) | any | that copy fails; if neither slot is left the disk's error is returned |
//!
//! That both copies of the newest record rot and the node signs again what it signed is beyond this redundancy; so is a
//! folder rolled back to an older copy. Both are what asking the peers for our own messages at start is for. To be silent
//! wherever a slot is torn would be no way out: a power cut that hits a third of the power would stop the chain for good.
//!
//! Before the newest record is believed it is written again, copy by copy with a sync after each: after kill -9 it may be
//! in the kernel's cache alone, and after a failed sync the kernel may believe pages clean that the disk does not have.

mod format;

use std::io;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::DiskError;
use crate::disk::{Disk, DiskFile};
use crate::error::Context;
use crate::planted::{self, Bug};
use format::{COPY_BYTES, Flaw, HEADER_BYTES, PAGE_BYTES};

/// The largest record, encoded: two polkas (lock and valid) of 10,000 votes and the message fit.
pub const GUARD_RECORD_BYTES_MAX: usize = format::RECORD_BYTES_MAX;

/// Zeros that a new guard begins each copy with: the records of some hundred validators are then written without growing
/// the file.
const FILLED_BYTES: usize = 64 << 10;

/// More records than any validator will write; the next sequence number never overflows.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// What a validator remembers of its last message. The fields that storage compares are plain; the others are bytes that
/// it carries.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GuardRecord {
    /// The height signed.
    pub height: u64,
    /// The round signed.
    pub round: u32,
    /// The step signed, in the caller's order: propose, prevote, precommit.
    pub step: u8,
    /// The exact bytes that are signed. Empty where nothing was: a new guard.
    pub sign_bytes: Vec<u8>,
    /// The unsigned message that the bytes were derived from, to send it again.
    pub message: Vec<u8>,
    /// The lock with its polka.
    pub lock: Option<Vec<u8>>,
    /// The valid value with its polka.
    pub valid: Option<Vec<u8>>,
    /// Whose guard it is, in the caller's bytes: one key on one chain.
    pub owner: [u8; 32],
    /// Reserved: a signed pledge never to sign above some height.
    pub wedge: Option<Vec<u8>>,
}

impl GuardRecord {
    /// The record a new guard begins with: nothing was signed.
    pub fn initial(owner: [u8; 32]) -> GuardRecord {
        GuardRecord {
            height: 0,
            round: 0,
            step: 0,
            sign_bytes: Vec::new(),
            message: Vec::new(),
            lock: None,
            valid: None,
            owner,
            wedge: None,
        }
    }

    /// Where it stands in the order of signing.
    pub fn position(&self) -> (u64, u32, u8) {
        (self.height, self.round, self.step)
    }
}

/// Why the guard did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The file is not there. A guard is never made silently: the validator may have signed.
    #[error(
        "the vote guard {path} is missing, so what this validator has signed is not known; a new validator runs `lockstep \
         init`, one that moves here imports its priv_validator_state.json, and one whose disk lost the file must not sign \
         with this key before it has done so"
    )]
    Missing {
        /// Where it should be.
        path: String,
    },
    /// There is one already.
    #[error("the vote guard {path} exists and is not replaced: it remembers what this validator has signed")]
    Exists {
        /// Where it is.
        path: String,
    },
    /// A file operation failed. Whether the record is durable is not known; the guard refuses everything until it is
    /// opened again.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A later program wrote it.
    #[error("the vote guard {path} was written by a newer version of this program (version {found})")]
    Newer {
        /// The file.
        path: String,
        /// The version byte.
        found: u8,
    },
    /// It is the memory of another key, or of this one on another chain.
    #[error("the vote guard is that of another key or another chain: it says {}, and this validator is {} here", hex(.found), hex(.expected))]
    WrongOwner {
        /// What was to be.
        expected: [u8; 32],
        /// What it says.
        found: [u8; 32],
    },
    /// The record is below the last one.
    #[error("a message of (height, round, step) {new:?} is below {last:?}, which was signed")]
    Regress {
        /// The last position.
        last: (u64, u32, u8),
        /// The refused one.
        new: (u64, u32, u8),
    },
    /// Other sign-bytes for the same position: signing them would be equivocation.
    #[error("other bytes were signed at (height, round, step) {at:?}")]
    Equivocation {
        /// The position.
        at: (u64, u32, u8),
    },
    /// The record is larger than [`GUARD_RECORD_BYTES_MAX`].
    #[error("a guard record of {bytes} bytes is over the limit of {GUARD_RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// What was signed last is not known: see [`Guard::resume_above`].
    #[error("no slot of the vote guard can be read, so what was signed last is not known; silent until resumed")]
    NoReadableSlot,
    /// The guard can be read, so there is nothing to resume.
    #[error("the vote guard is readable; it is never set back")]
    Readable,
    /// An earlier operation failed; what is on the disk is not known.
    #[error("the vote guard met an error before and must be opened again")]
    Failed,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one slot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    sequence: u64,
    record: GuardRecord,
}

/// Why a copy holds nothing.
enum Missing {
    /// It does not verify, as after a write that a power cut tore.
    Torn,
    /// No torn write looks like this: what was there is gone. With the disk's error, where that is why.
    Lost(Option<DiskError>),
}

/// The guard of one validator key on one chain.
pub struct Guard {
    path: String,
    file: Arc<dyn DiskFile>,
    owner: [u8; 32],
    slots: [Option<Slot>; 2],
    /// A slot is gone that may have held the newest record.
    lost: bool,
    repaired: usize,
    failed: bool,
}

impl Guard {
    /// Makes a guard that begins with `initial`, in both slots: a fresh one ([`GuardRecord::initial`]), or what a
    /// `priv_validator_state.json` says. Never replaces one.
    pub fn create(disk: &dyn Disk, path: &str, initial: GuardRecord) -> Result<Guard, GuardError> {
        let dir = dir_of(path);
        let name = path.rsplit('/').next().unwrap_or(path);
        disk.create_dir(dir).on("create", dir)?;
        if disk.list(dir).on("list", dir)?.iter().any(|taken| taken == name) {
            return Err(GuardError::Exists { path: path.to_owned() });
        }
        let copies = [encode(1, &initial)?, encode(2, &initial)?];
        let unnamed = format!("{path}.new");
        match disk.unlink(&unnamed) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(DiskError { action: "remove", path: unnamed, source }.into()),
        }
        let file = disk.create(&unnamed).on("create", &unnamed)?;
        file.set_len(4 * COPY_BYTES).on("grow", &unnamed)?;
        for slot in 0..2 {
            for copy in 0..2 {
                // Sequence 1 belongs to slot 1.
                let mut bytes = copies[1 - slot].clone();
                bytes.resize(bytes.len().max(FILLED_BYTES), 0);
                file.write_at(format::copy_offset(slot, copy), &bytes).on("write", &unnamed)?;
            }
        }
        file.sync_data().on("sync", &unnamed)?;
        disk.rename(&unnamed, path).on("rename", &unnamed)?;
        disk.sync_dir(dir).on("sync", dir)?;
        let slots = [2, 1].map(|sequence| Some(Slot { sequence, record: initial.clone() }));
        Ok(Guard { path: path.to_owned(), file, owner: initial.owner, slots, lost: false, repaired: 0, failed: false })
    }

    /// Opens the guard and does what the table above says. Ask [`Guard::is_readable`] before anything is signed.
    pub fn open(disk: &dyn Disk, path: &str, owner: [u8; 32]) -> Result<Guard, GuardError> {
        let file = match disk.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(GuardError::Missing { path: path.to_owned() });
            }
            opened => opened.on("open", path)?,
        };
        let mut guard = Guard { path: path.to_owned(), file, owner, slots: [None, None], lost: false, repaired: 0, failed: false };
        let mut unreadable = None;
        let mut damaged = Vec::new();
        for slot in 0..2 {
            let (mut found, mut gone) = ([None, None], false);
            for (copy, held) in found.iter_mut().enumerate() {
                match guard.read_copy(slot, copy)? {
                    Ok(read) => *held = Some(read),
                    Err(Missing::Torn) => {}
                    Err(Missing::Lost(error)) => {
                        gone = true;
                        unreadable = error.or(unreadable);
                    }
                }
            }
            guard.lost |= gone && found == [None, None];
            let newest = found.iter().flatten().max_by_key(|held| held.sequence).cloned();
            let differs = |copy: &usize| newest.is_some() && found[*copy] != newest;
            damaged.extend((0..2).filter(differs).map(|copy| (slot, copy)));
            guard.slots[slot] = newest;
        }
        if let Some(stranger) = guard.slots.iter().flatten().find(|slot| slot.record.owner != owner) {
            return Err(GuardError::WrongOwner { expected: owner, found: stranger.record.owner });
        }
        if let (Some(error), [None, None]) = (unreadable, &guard.slots) {
            return Err(error.into());
        }
        // The name, too, may be in the kernel's cache alone.
        let dir = dir_of(path);
        disk.sync_dir(dir).on("sync", dir)?;
        let newest = guard.newest_slot();
        for (slot, copy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let is_newest = Some(slot) == newest && !planted::has(Bug::GuardBelievesCache);
            if is_newest || damaged.contains(&(slot, copy)) {
                guard.rewrite(slot, copy)?;
            }
        }
        guard.repaired = damaged.len();
        Ok(guard)
    }

    /// Makes a record durable. When this returns `Ok`, the message may be signed and sent; when it does not, nothing may
    /// be sent, and after a disk error the node stops.
    ///
    /// A record for the position of the last one must carry the same sign-bytes (its lock may differ), and one below it
    /// is refused: signing never goes back.
    pub fn write(&mut self, record: &GuardRecord) -> Result<(), GuardError> {
        if self.failed {
            return Err(GuardError::Failed);
        }
        if record.owner != self.owner {
            return Err(GuardError::WrongOwner { expected: self.owner, found: record.owner });
        }
        let last = self.newest().ok_or(GuardError::NoReadableSlot)?;
        let (at, new) = (last.record.position(), record.position());
        if new < at {
            return Err(GuardError::Regress { last: at, new });
        }
        if new == at && record.sign_bytes != last.record.sign_bytes {
            return Err(GuardError::Equivocation { at });
        }
        self.put(last.sequence + 1, record)
    }

    /// The way out of "no readable slot": the caller holds a certificate of `height`, above its durable tip, and so knows
    /// that nothing below can be decided otherwise. From now on only what is above `height` can be written, also after a
    /// restart: both slots say so, durably, the one that is gone first.
    pub fn resume_above(&mut self, height: u64) -> Result<(), GuardError> {
        if self.failed {
            return Err(GuardError::Failed);
        }
        if self.is_readable() {
            return Err(GuardError::Readable);
        }
        let floor = GuardRecord { height, round: u32::MAX, step: u8::MAX, ..GuardRecord::initial(self.owner) };
        let before = self.slots.iter().flatten().map(|held| held.sequence).max().unwrap_or(0);
        self.put(before + 1, &floor)?;
        self.put(before + 2, &floor)?;
        self.lost = false;
        Ok(())
    }

    /// Whether it is known what was signed last.
    pub fn is_readable(&self) -> bool {
        self.newest().is_some()
    }

    /// The record that counts as signed last.
    pub fn last(&self) -> Option<&GuardRecord> {
        self.newest().map(|slot| &slot.record)
    }

    /// What both slots hold, the older first: a restart sends both messages again (the caller skips empty sign-bytes).
    /// Nothing where it is not known what was signed last.
    pub fn records(&self) -> Vec<&GuardRecord> {
        let mut slots: Vec<&Slot> = self.slots.iter().flatten().filter(|_| !self.lost).collect();
        slots.sort_by_key(|slot| slot.sequence);
        slots.into_iter().map(|slot| &slot.record).collect()
    }

    /// Copies that opening found damaged and wrote again: worth a line in the log, since disks that rot go on rotting.
    pub fn repaired_copies(&self) -> usize {
        self.repaired
    }

    /// Whether neither copy of one slot verified, so that the record of the other counts as the newest: a power cut tore the
    /// last write, or this disk lost what was signed last. Until the next record is written, each opening says so.
    pub fn went_back(&self) -> bool {
        !self.lost && self.slots.iter().flatten().count() == 1
    }

    fn newest(&self) -> Option<&Slot> {
        self.slots.iter().flatten().filter(|_| !self.lost).max_by_key(|slot| slot.sequence)
    }

    fn newest_slot(&self) -> Option<usize> {
        (0..2).filter(|slot| self.slots[*slot].is_some()).max_by_key(|slot| self.slots[*slot].as_ref().map(|held| held.sequence))
    }

    /// Writes both copies to the record's slot and syncs once.
    fn put(&mut self, sequence: u64, record: &GuardRecord) -> Result<(), GuardError> {
        let bytes = encode(sequence, record)?;
        let slot = slot_of(sequence);
        let copies = if planted::has(Bug::GuardOneCopy) { 0..1 } else { 0..2 };
        let sync = || if planted::has(Bug::GuardUnsynced) { Ok(()) } else { self.file.sync_data().on("sync", &self.path) };
        let written = { copies }
            .try_for_each(|copy| self.file.write_at(format::copy_offset(slot, copy), &bytes).on("write", &self.path))
            .and_then(|()| sync());
        if let Err(error) = written {
            self.failed = true;
            return Err(error.into());
        }
        self.slots[slot] = Some(Slot { sequence, record: record.clone() });
        Ok(())
    }

    /// Writes one copy of what a slot holds and syncs it, before the other copy is touched.
    fn rewrite(&self, slot: usize, copy: usize) -> Result<(), GuardError> {
        let held = self.slots[slot].as_ref().expect("only a slot that is held is written again");
        let bytes = encode(held.sequence, &held.record)?;
        self.file.write_at(format::copy_offset(slot, copy), &bytes).on("write", &self.path)?;
        Ok(self.file.sync_data().on("sync", &self.path)?)
    }

    /// A copy, or why there is none.
    fn read_copy(&self, slot: usize, copy: usize) -> Result<Result<Slot, Missing>, GuardError> {
        let offset = format::copy_offset(slot, copy);
        let read = |at: u64, bytes: &mut [u8]| match self.file.read_at(at, bytes) {
            // The file was made with all its bytes: it was cut, or is another one.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Missing::Lost(None)),
            done => done.on("read", &self.path).map_err(|error| Missing::Lost(Some(error))),
        };
        let mut header = [0; HEADER_BYTES];
        let mut payload = Vec::new();
        let whole = read(offset, &mut header).and_then(|()| {
            payload.resize(format::payload_bytes(&header).map_err(|_| Missing::Torn)?, 0);
            read(offset + HEADER_BYTES as u64, &mut payload)
        });
        if let Err(reason) = whole {
            return Ok(Err(reason));
        }
        match format::decode(&header, &payload) {
            // A copy that lies in the other slot was written to the wrong place.
            Ok((sequence, _)) if !(1..=SEQUENCE_MAX).contains(&sequence) || slot_of(sequence) != slot => Ok(Err(Missing::Lost(None))),
            Ok((sequence, record)) => Ok(Ok(Slot { sequence, record })),
            Err(Flaw::Damaged) => Ok(Err(Missing::Torn)),
            Err(Flaw::Newer(found)) => Err(GuardError::Newer { path: self.path.clone(), found }),
        }
    }
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(dir, _)| dir)
}

/// The slot of record n: the one that record n−1 is not in.
fn slot_of(sequence: u64) -> usize {
    // The first two records are those of a new guard, one in each slot.
    if planted::has(Bug::GuardOneSlot) && sequence > 2 {
        return 0;
    }
    usize::from(!sequence.is_multiple_of(2))
}

fn encode(sequence: u64, record: &GuardRecord) -> Result<Vec<u8>, GuardError> {
    let bytes = format::encode(sequence, record);
    if bytes.len() as u64 > COPY_BYTES {
        return Err(GuardError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

const _: () = assert!(COPY_BYTES.is_multiple_of(PAGE_BYTES as u64) && FILLED_BYTES as u64 <= COPY_BYTES);
