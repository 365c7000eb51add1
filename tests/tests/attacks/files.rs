//! Files that somebody else wrote: of a later program, of another chain.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use lockstep_storage::disk::{Disk, DiskFile};
use lockstep_storage::guard::{Guard, GuardError, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogError, LogOptions, Record};
use lockstep_storage::results::{BlockResults, Results, ResultsError, TxResult};
use sha2::{Digest as _, Sha256};

/// The genesis of the guards here.
pub(crate) const GENESIS: [u8; 32] = [0x6e; 32];
/// The salt of the logs here.
pub(crate) const SALT: [u8; 32] = [0x5a; 32];
/// The first segment of a log, its results, and the index beside it.
pub(crate) const SEGMENT: &str = "log/00000000000000000001.seg";
pub(crate) const RESULTS: &str = "log/00000000000000000001.res";
pub(crate) const INDEX: &str = "log/00000000000000000001.idx";
/// Bytes of a copy of a guard: there are four.
pub(crate) const COPY_BYTES: usize = 4 << 20;

/// A disk in memory. Reading and overwriting allocate nothing, so that what is measured is the reader's.
#[derive(Default)]
pub(crate) struct Memory(Mutex<BTreeMap<String, Arc<MemoryFile>>>);

/// A file of it.
#[derive(Default)]
pub(crate) struct MemoryFile(Mutex<Vec<u8>>);

impl Memory {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        self.0.lock().expect("no holder panics")
    }

    /// A file's bytes, to look at and to change.
    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        self.files()[path].bytes().clone()
    }

    /// Puts bytes in the place of a file's.
    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        let file = self.files()[path].clone();
        let mut held = file.bytes();
        held.clear();
        held.extend_from_slice(bytes);
    }

    /// Writes over a part of a file.
    pub(crate) fn overwrite(&self, path: &str, at: usize, bytes: &[u8]) {
        let file = self.files()[path].clone();
        file.bytes()[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl MemoryFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no holder panics")
    }
}

impl Disk for Memory {
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.files().get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = Arc::new(MemoryFile::default());
        if self.files().contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.files().insert(path.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let prefix = if dir == "." { String::new() } else { format!("{dir}/") };
        let names = self.files();
        let names = names.keys().filter_map(|path| path.strip_prefix(&prefix)).filter(|name| !name.contains('/'));
        Ok(names.map(str::to_owned).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.files().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files().insert(to.to_owned(), file);
        Ok(())
    }

    fn unlink(&self, path: &str) -> io::Result<()> {
        self.files().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn create_dir(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes();
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let from = bytes.get(at..).and_then(|rest| rest.get(..buf.len())).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(|_| io::ErrorKind::StorageFull)?;
        let mut bytes = self.bytes();
        if bytes.len() < at + data.len() {
            bytes.resize(at + data.len(), 0);
        }
        bytes[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A log of one decided height, closed by a mark.
pub(crate) fn logged(disk: &Arc<Memory>) {
    let (mut log, _) = BlockLog::open(disk.clone(), "log", LogOptions { salt: SALT, segment_bytes: 1 << 20 }).expect("a log");
    let record = |kind, payload| Record { kind, height: 1, round: 0, block_hash: [0xb0; 32], payload };
    log.append(record(Kind::Body, b"the body")).expect("appended");
    log.append(record(Kind::Decision, b"the decision")).expect("appended");
    log.sync().expect("durable");
    log.mark().expect("closed");
}

/// A guard that has two messages.
pub(crate) fn guarded(disk: &Arc<Memory>) {
    let mut guard = Guard::create(&**disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
    for step in 1..=2 {
        let record = GuardRecord {
            height: 5,
            step,
            sign_bytes: b"what is signed".to_vec(),
            message: b"what it was made of".to_vec(),
            lock: Some(b"a polka".to_vec()),
            valid: Some(b"another".to_vec()),
            ..GuardRecord::initial(GENESIS)
        };
        guard.write(&record).expect("durable");
    }
}

/// Results of two heights, of which the first is in a closed segment with an index.
pub(crate) fn resulted(disk: &Arc<Memory>) {
    let mut results = Results::open(disk.clone(), "log", &[1, 100], None).expect("results");
    for (segment, height) in [(1, 1), (100, 2)] {
        let txs = (0..3).map(|n| TxResult { hash: [n; 32], result: b"a result".to_vec() }).collect();
        results.append(segment, &BlockResults { height, block: b"of the block".to_vec(), txs }).expect("appended");
    }
    results.sync().expect("durable");
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().into()
}

#[test]
fn attack_10_a_guard_of_another_chain_is_never_signed_with() {
    let disk = Memory::shared();
    guarded(&disk);
    let opened = Guard::open(&*disk, "guard", [1; 32]);
    assert!(matches!(opened.err(), Some(GuardError::WrongOwner { .. })));
    let mut guard = Guard::open(&*disk, "guard", GENESIS).expect("its own");
    let other = GuardRecord { height: 9, ..GuardRecord::initial([1; 32]) };
    assert!(matches!(guard.write(&other), Err(GuardError::WrongOwner { .. })));
}

/// A version byte from the future under a checksum that holds: the older program refuses, and changes nothing.
#[test]
fn attack_78_files_of_a_newer_program_are_refused_and_left_alone() {
    const NEWER: u8 = 2;
    let options = LogOptions { salt: SALT, segment_bytes: 1 << 20 };

    // A segment: magic, version, ... | digest over the 48 bytes before it.
    let disk = Memory::shared();
    logged(&disk);
    let sound = disk.bytes(SEGMENT);
    let mut newer = sound.clone();
    newer[4] = NEWER;
    let digest = sha256(&[&newer[..48]]);
    newer[48..80].copy_from_slice(&digest);
    disk.put(SEGMENT, &newer);
    let opened = BlockLog::open(disk.clone(), "log", options).map(drop);
    assert!(matches!(opened, Err(LogError::Newer { found: NEWER, offset: 0, .. })), "{opened:?}");
    assert_eq!(disk.bytes(SEGMENT), newer);

    // A record: 108 bytes of header, whose CRC at 72 is over salt and fields, whose digest at 76 is over all.
    for (at, value) in [(4, NEWER), (5, 9)] {
        let mut newer = sound.clone();
        newer[80 + at] = value;
        seal_record(&mut newer, 80, b"the body".len());
        disk.put(SEGMENT, &newer);
        let opened = BlockLog::open(disk.clone(), "log", options).map(drop);
        assert!(matches!(opened, Err(LogError::Newer { offset: 80, found, .. }) if found == value), "{opened:?}");
        assert_eq!(disk.bytes(SEGMENT), newer);
    }

    // A copy of the guard: 52 bytes of header, whose digest at 20 is over the header before it and the record.
    let disk = Memory::shared();
    guarded(&disk);
    let mut newer = disk.bytes("guard");
    newer[4] = NEWER;
    seal_copy(&mut newer, 0);
    disk.put("guard", &newer);
    let opened = Guard::open(&*disk, "guard", GENESIS);
    assert!(matches!(opened.err(), Some(GuardError::Newer { found: NEWER, .. })));
    assert_eq!(disk.bytes("guard"), newer);

    // Results: 64 bytes of header, CRC at 28, digest at 32.
    let disk = Memory::shared();
    resulted(&disk);
    let mut newer = disk.bytes(RESULTS);
    newer[4] = NEWER;
    let whole = newer.len();
    seal_results(&mut newer, whole);
    disk.put(RESULTS, &newer);
    let refused = match Results::open(disk.clone(), "log", &[1, 100], Some(2)) {
        Ok(results) => results.reader().results(1).err(),
        Err(error) => Some(error),
    };
    assert!(matches!(refused, Some(ResultsError::Newer { found: NEWER, .. })), "{refused:?}");
    assert_eq!(disk.bytes(RESULTS), newer);
}

/// Makes the checksums of a log record hold again, as only somebody who knows the salt can.
pub(crate) fn seal_record(segment: &mut [u8], at: usize, payload_bytes: usize) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&SALT);
    crc.update(&segment[at..at + 72]);
    segment[at + 72..at + 76].copy_from_slice(&crc.finalize().to_le_bytes());
    let (header, payload) = (&segment[at..at + 76], &segment[at + 108..at + 108 + payload_bytes]);
    let digest = sha256(&[&SALT, header, payload]);
    segment[at + 76..at + 108].copy_from_slice(&digest);
}

/// Makes the digest of a copy of the guard hold again.
pub(crate) fn seal_copy(guard: &mut [u8], copy: usize) {
    let at = copy * COPY_BYTES;
    let bytes = u32::from_le_bytes(guard[at + 16..at + 20].try_into().expect("four bytes")) as usize;
    let digest = sha256(&[&guard[at..at + 20], &guard[at + 52..at + 52 + bytes]]);
    guard[at + 20..at + 52].copy_from_slice(&digest);
}

/// Makes the checksums of the one record of a file of results hold again.
pub(crate) fn seal_results(file: &mut [u8], end: usize) {
    let crc = crc32fast::hash(&file[..28]);
    file[28..32].copy_from_slice(&crc.to_le_bytes());
    let digest = sha256(&[&file[..32], &file[64..end]]);
    file[32..64].copy_from_slice(&digest);
}
