//! What lies in the tables: entries that carry a checksum each, and the summary that says whether all of them are there.

use borsh::{BorshDeserialize, BorshSerialize};
use redb::{Database, ReadableDatabase, Table};
use sha2::{Digest, Sha256};

use super::redb_file::Failure;
use super::{Change, ENTRIES, StateError};

/// The version that is written.
const VERSION: u8 = 1;
/// Bytes of the hash that an entry carries. Against rot, half of it is plenty; there may be millions of entries.
const ENTRY_CHECK_BYTES: usize = 16;

/// The row of `meta`, after its version byte and before its hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Summary {
    /// Nothing until the first flush.
    pub(super) height: Option<u64>,
    pub(super) entries: u64,
    pub(super) sum: [u8; 32],
    pub(super) meta: Vec<u8>,
}

/// What lies under a path: this, and the first bytes of [`entry_hash`].
#[derive(BorshSerialize)]
struct Entry<'a> {
    /// The height of the flush that wrote it.
    height: u64,
    key: &'a [u8],
    value: &'a [u8],
}

impl Summary {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![VERSION];
        borsh::to_writer(&mut row, self).expect("a Vec takes every byte");
        let hash: [u8; 32] = Sha256::digest(&row).into();
        row.extend_from_slice(&hash);
        row
    }

    pub(super) fn decode(path: &str, row: &[u8]) -> Result<Summary, StateError> {
        let damaged = || StateError::Damaged { path: path.to_owned(), what: "its metadata does not verify".to_owned() };
        let (fields, hash) = row.split_last_chunk::<32>().ok_or_else(damaged)?;
        if *hash != <[u8; 32]>::from(Sha256::digest(fields)) {
            return Err(damaged());
        }
        match fields.split_first() {
            Some((&VERSION, summary)) => Summary::try_from_slice(summary).map_err(|_| damaged()),
            Some((&found, _)) => Err(StateError::Newer { path: path.to_owned(), found }),
            None => Err(damaged()),
        }
    }

    /// Of the same flush, before anything is read.
    pub(super) fn before_any(&self) -> Summary {
        Summary { height: self.height, meta: self.meta.clone(), ..Summary::default() }
    }

    /// Counts the entries from `first` to `last` in, and hands each to `visit`.
    pub(super) fn read(
        &mut self,
        db: &Database,
        first: &[u8; 32],
        last: &[u8; 32],
        mut visit: impl FnMut(&[u8; 32], &[u8], &[u8]),
    ) -> Result<(), Failure> {
        let entries = db.begin_read()?.open_table(ENTRIES)?;
        let mut before: Option<[u8; 32]> = None;
        for row in entries.range::<&[u8; 32]>(first..=last)? {
            let (path, bytes) = row?;
            let path = *path.value();
            if path < *first || before.is_some_and(|before| before >= path) {
                return Err(Failure::Damaged("entries are out of order".to_owned()));
            }
            let ((key, value), hash) = decode_entry(&path, bytes.value())?;
            self.add(&hash);
            self.entries += 1;
            before = Some(path);
            visit(&path, key, value);
        }
        Ok(())
    }

    /// Whether what was read is what was flushed.
    pub(super) fn must_be(&self, expected: &Summary) -> Result<(), Failure> {
        if self == expected { Ok(()) } else { Err(Failure::Damaged("entries are missing or stale".to_owned())) }
    }

    pub(super) fn apply(&mut self, entries: &mut Table<'_, &[u8; 32], &[u8]>, height: u64, change: &Change<'_>) -> Result<(), Failure> {
        let old = match change.value {
            Some(value) => {
                let entry = Entry { height, key: change.key, value };
                let mut bytes = borsh::to_vec(&entry).expect("a Vec takes every byte");
                let hash = entry_hash(&change.path, &bytes);
                bytes.extend_from_slice(&hash[..ENTRY_CHECK_BYTES]);
                self.add(&hash);
                self.entries += 1;
                entries.insert(&change.path, bytes.as_slice())?.map(|old| old.value().to_vec())
            }
            None => entries.remove(&change.path)?.map(|old| old.value().to_vec()),
        };
        if let Some(old) = old {
            let ((key, _), hash) = decode_entry(&change.path, &old)?;
            if key != change.key {
                return Err(Failure::Damaged("an entry lies under another key's path".to_owned()));
            }
            self.subtract(&hash);
            self.entries = self.entries.checked_sub(1).ok_or_else(|| Failure::Damaged("entries are missing".to_owned()))?;
        }
        Ok(())
    }

    /// Adds a number of 256 bits, little-endian, modulo 2^256.
    pub(super) fn add(&mut self, hash: &[u8; 32]) {
        let mut carry = 0;
        for (digit, more) in self.sum.iter_mut().zip(hash) {
            let total = u16::from(*digit) + u16::from(*more) + carry;
            [*digit, _] = total.to_le_bytes();
            carry = total >> 8;
        }
    }

    /// Adds its negative: every bit inverted, and one.
    fn subtract(&mut self, hash: &[u8; 32]) {
        let mut one = [0; 32];
        one[0] = 1;
        self.add(&hash.map(|byte| !byte));
        self.add(&one);
    }
}

/// The key and value that lie under a path, verified, and the hash of all of it.
fn decode_entry<'a>(path: &[u8; 32], bytes: &'a [u8]) -> Result<(KeyValue<'a>, [u8; 32]), Failure> {
    let damaged = || Failure::Damaged(format!("the entry of path {} does not verify", hex(path)));
    let (fields, check) = bytes.split_last_chunk::<ENTRY_CHECK_BYTES>().ok_or_else(damaged)?;
    let hash = entry_hash(path, fields);
    if hash[..ENTRY_CHECK_BYTES] != *check {
        return Err(damaged());
    }
    Ok((fields_of(fields).ok_or_else(damaged)?, hash))
}

/// A key and its value, where they lie.
type KeyValue<'a> = (&'a [u8], &'a [u8]);

/// Key and value of an [`Entry`]: a start reads millions.
fn fields_of(entry: &[u8]) -> Option<KeyValue<'_>> {
    fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        rest.split_at_checked(usize::try_from(u32::from_le_bytes(*count)).ok()?)
    }
    let (_height, rest) = entry.split_first_chunk::<8>()?;
    let (key, rest) = counted(rest)?;
    let (value, rest) = counted(rest)?;
    rest.is_empty().then_some((key, value))
}

fn entry_hash(path: &[u8; 32], fields: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(path);
    hash.update(fields);
    hash.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
