//! Files of the operator, and files that this program wrote and a disk may have changed.

use std::sync::{Arc, OnceLock};

use borsh::BorshDeserialize;
use lockstep::Config;
use lockstep_genesis::{Genesis, keys};
use lockstep_network::{NodeId, PeerAddr};
use lockstep_replica::ChainState;
use lockstep_replica::results::{kept_block, kept_tx};
use lockstep_replica::signing::Remembered;
use lockstep_sim::disk::SimDisk;
use lockstep_storage::disk::Disk;
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, LogOptions, cut_at_damage};
use lockstep_storage::quarantine::Quarantine;
use lockstep_storage::results::{BlockResults, Results, TxResult};
use lockstep_types::{Address, ChainId, Hash, Time, codec};
use sha2::{Digest as _, Sha256};

use super::{BORSH_BYTES, Meter, OVERHEAD, PER_BYTE, bounded, canonical, same_meaning};

/// JSON of one byte may be a field with a name, a place and a message.
const PER_BYTE_TEXT: usize = 256;
/// Settings are compared with every key there is, and what is wrong is told with those that are near.
const SETTINGS_OVERHEAD: usize = 1 << 20;
/// Images of the simulated disk, and what going through a damaged log takes a piece at a time.
const DISK_OVERHEAD: usize = 32 << 20;

/// `genesis.json`.
pub(super) fn genesis(bytes: &[u8], meter: Meter) {
    let Some(genesis) = same_meaning(bytes, PER_BYTE_TEXT, OVERHEAD, meter, Genesis::parse, |genesis| genesis.to_json().into_bytes())
    else {
        return;
    };
    let minified = Genesis::parse(genesis.to_minified_json().as_bytes()).expect("what is written is accepted");
    assert_eq!(minified.hash(), genesis.hash(), "white space means nothing");
    assert!(genesis.validator_set().len() > 0, "a chain has a validator");
}

/// `config.toml`.
pub(super) fn settings(bytes: &[u8], meter: Meter) {
    let load = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        Config::load("config.toml", text, [], &[]).map_err(|error| error.to_string())
    };
    same_meaning(bytes, PER_BYTE_TEXT, SETTINGS_OVERHEAD, meter, load, |config| config.to_toml().into_bytes());
}

/// Key files and the signing state of CometBFT; the first byte says which.
pub(super) fn keys(bytes: &[u8], meter: Meter) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match which % 3 {
        0 => {
            let key = bounded(bytes.len(), PER_BYTE_TEXT, OVERHEAD, meter, || keys::parse_validator_key(bytes));
            if let Ok(key) = key {
                let again = keys::parse_validator_key(keys::validator_key_json(&key).as_bytes()).expect("what is written is accepted");
                assert_eq!(again.public_key(), key.public_key(), "the same key");
            }
        }
        1 => {
            let key = bounded(bytes.len(), PER_BYTE_TEXT, OVERHEAD, meter, || keys::parse_node_key(bytes));
            if let Ok(key) = key {
                let again = keys::parse_node_key(keys::node_key_json(&key).as_bytes()).expect("what is written is accepted");
                assert_eq!(again.public_key(), key.public_key(), "the same key");
            }
        }
        _ => drop(bounded(bytes.len(), PER_BYTE_TEXT, OVERHEAD, meter, || keys::parse_sign_state(bytes))),
    }
}

/// Texts that people write: times, names, addresses. What is accepted is shown in one spelling that is accepted too.
pub(super) fn texts(bytes: &[u8], meter: Meter) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    macro_rules! text {
        ($type:ty) => {{
            let parse = |bytes: &[u8]| {
                let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
                text.parse::<$type>().map_err(|error| error.to_string())
            };
            same_meaning(bytes, PER_BYTE, OVERHEAD, meter, parse, |value| value.to_string().into_bytes());
        }};
    }
    match which % 6 {
        0 => text!(Time),
        1 => text!(PeerAddr),
        2 => text!(NodeId),
        3 => text!(Hash),
        4 => text!(Address),
        _ => {
            let parse = |bytes: &[u8]| ChainId::new(&String::from_utf8_lossy(bytes)).map_err(|error| error.to_string());
            same_meaning(bytes, PER_BYTE, OVERHEAD, meter, parse, |id| id.to_string().into_bytes());
        }
    }
}

/// A record of the guard as it lies in a copy, and as the replica reads it. The record's digest held, so that only a program
/// wrote it; what another version wrote is refused.
pub(super) fn guard_record(bytes: &[u8], meter: Meter) {
    let chain_id = ChainId::new("test-chain").expect("a name");
    let overhead = OVERHEAD + 5 * BORSH_BYTES;
    let encode = |record: &GuardRecord| borsh::to_vec(record).expect("it is written");
    let Some(record) = canonical(bytes, overhead, meter, GuardRecord::try_from_slice, encode) else { return };
    if let Ok(Some(read)) = Remembered::from_record(&record, &chain_id) {
        assert_eq!(read.message.position(), (record.height, record.round, record.step), "what is said is what was recorded");
        assert_eq!(read.sign_bytes, record.sign_bytes);
    }
}

/// What is kept of execution, and the chain's state beside it; the first byte says which.
pub(super) fn kept(bytes: &[u8], meter: Meter) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let overhead = OVERHEAD + 8 * BORSH_BYTES;
    match which % 3 {
        0 => drop(canonical(bytes, overhead, meter, ChainState::decode, ChainState::encode)),
        1 => drop(canonical(bytes, overhead, meter, kept_tx, |kept| codec::encode(1, kept))),
        _ => {
            let of = |bytes: &[u8]| kept_block(&BlockResults { height: 1, block: bytes.to_vec(), txs: Vec::new() });
            drop(canonical(bytes, overhead, meter, of, |kept| codec::encode(1, kept)));
        }
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().into()
}

/// A disk with one change made durable.
fn changed(base: &SimDisk, path: &str, cut: bool, at: u64, bytes: &[u8]) -> SimDisk {
    let disk = base.fork();
    let file = disk.open(path).expect("it is there");
    if cut {
        file.set_len(at).expect("cut");
    }
    file.write_at(at, bytes).expect("written");
    file.sync_data().expect("durable");
    disk
}

const OWNER: [u8; 32] = [0x6e; 32];

/// The four copies of a guard, one of them as the input says and under a digest that holds if its length allows one. The
/// first byte says which copy. What opens is healed, and goes on from there.
pub(super) fn guard_file(bytes: &[u8], meter: Meter) {
    const COPY_BYTES: u64 = 4 << 20;
    const HEADER_BYTES: usize = 52;
    const INPUT_BYTES_MAX: usize = 16 << 10;
    static SOUND: OnceLock<SimDisk> = OnceLock::new();
    let sound = SOUND.get_or_init(|| {
        let disk = SimDisk::new();
        let mut guard = Guard::create(&disk, "guard", GuardRecord::initial(OWNER)).expect("made");
        for step in 1..=2 {
            let record = GuardRecord { height: 5, step, sign_bytes: vec![step; 40], ..GuardRecord::initial(OWNER) };
            guard.write(&record).expect("durable");
        }
        disk
    });
    let Some((copy, bytes)) = bytes.split_first() else { return };
    let mut bytes = bytes[..bytes.len().min(INPUT_BYTES_MAX)].to_vec();
    if let Some(length) = bytes.get(16..20) {
        let length = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if let Some(record) = bytes.get(HEADER_BYTES..).and_then(|rest| rest.get(..length)) {
            let digest = sha256(&[&bytes[..20], record]);
            bytes[20..HEADER_BYTES].copy_from_slice(&digest);
        }
    }
    let disk = changed(sound, "guard", false, u64::from(copy % 4) * COPY_BYTES, &bytes);
    let overhead = DISK_OVERHEAD + 5 * BORSH_BYTES;
    let Ok(guard) = bounded(bytes.len(), PER_BYTE, overhead, meter, || Guard::open(&disk, "guard", OWNER)) else { return };
    let last = guard.last().cloned();
    drop(guard);
    let mut again = Guard::open(&disk, "guard", OWNER).expect("what was opened opens again");
    assert_eq!(again.last().cloned(), last, "opening changes nothing that counts");
    let next = GuardRecord { height: 6, step: 1, sign_bytes: vec![6; 40], ..GuardRecord::initial(OWNER) };
    if again.write(&next).is_ok() {
        drop(again);
        let read = Guard::open(&disk, "guard", OWNER).expect("what was written opens");
        assert_eq!(read.last(), Some(&next), "what was made durable last counts");
    }
}

const LOG: LogOptions = LogOptions { salt: [0x5a; 32], segment_bytes: 1 << 20 };

/// The records of a log's last segment as the input says, each under checksums that hold if its length allows them. What
/// verifies is read as it lies there; a log with damage in it is cut to a sound prefix, and that opens.
pub(super) fn log_file(bytes: &[u8], meter: Meter) {
    const SEGMENT: &str = "log/00000000000000000001.seg";
    const SEGMENT_HEADER_BYTES: u64 = 80;
    const HEADER_BYTES: usize = 108;
    const INPUT_BYTES_MAX: usize = 64 << 10;
    static SOUND: OnceLock<SimDisk> = OnceLock::new();
    let sound = SOUND.get_or_init(|| {
        let disk = SimDisk::new();
        drop(BlockLog::open(disk.disk(), "log", LOG).expect("a log"));
        disk
    });
    let mut bytes = bytes[..bytes.len().min(INPUT_BYTES_MAX)].to_vec();
    let mut at = 0;
    while let Some(header) = bytes.get(at..).and_then(|rest| rest.get(..HEADER_BYTES)) {
        let length = u32::from_le_bytes(header[36..40].try_into().expect("four bytes")) as usize;
        let end = at + HEADER_BYTES + length;
        if end > bytes.len() {
            break;
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&LOG.salt);
        crc.update(&bytes[at..at + 72]);
        bytes[at + 72..at + 76].copy_from_slice(&crc.finalize().to_le_bytes());
        let digest = sha256(&[&LOG.salt, &bytes[at..at + 76], &bytes[at + HEADER_BYTES..end]]);
        bytes[at + 76..at + HEADER_BYTES].copy_from_slice(&digest);
        at = end;
    }
    let disk = changed(sound, SEGMENT, true, SEGMENT_HEADER_BYTES, &bytes);
    let read = |disk: &SimDisk| {
        let (log, _) = BlockLog::open(disk.disk(), "log", LOG).ok()?;
        let reader = log.reader();
        reader.verify().ok()?;
        let heights = reader.base().unwrap_or(0)..=reader.tip().unwrap_or(0);
        Some((log.last_sequence(), heights.take(8).map(|height| reader.records(height).ok()).collect::<Vec<_>>()))
    };
    let found = bounded(bytes.len(), PER_BYTE, DISK_OVERHEAD, meter, || read(&disk));
    if let Some((_, records)) = found {
        let (_, again) = read(&disk).expect("what was opened opens again");
        assert_eq!(again, records, "opening changes nothing that counts");
        for record in records.iter().flatten().flatten() {
            let was_there = record.payload.is_empty() || bytes.windows(record.payload.len()).any(|window| window == record.payload);
            assert!(was_there, "what is read was there");
        }
        return;
    }
    // Each cut takes the first damage; the one segment there is needs at most two, of a record and of its header.
    let folder: Arc<dyn Disk> = disk.disk();
    let mut quarantine = Quarantine::new(folder.clone(), "damaged");
    for _ in 0..2 {
        let verified = BlockLog::open(folder.clone(), "log", LOG).and_then(|(log, _)| log.reader().verify());
        let Err(damage) = verified else { return };
        match cut_at_damage(&folder, "log", &damage, &mut quarantine) {
            Ok(Some(_)) => {}
            Ok(None) => return, // A newer program's: left alone.
            Err(error) => panic!("damage cannot be set aside: {error}"),
        }
    }
    let opened = BlockLog::open(folder, "log", LOG).and_then(|(log, _)| log.reader().verify());
    assert!(opened.is_ok(), "what is left of a damaged log is sound: {opened:?}");
}

/// A file of results, or an index, as the input says; the first byte says which. Records are under checksums that hold if
/// their lengths allow them.
pub(super) fn results_file(bytes: &[u8], meter: Meter) {
    const PATHS: [&str; 2] = ["log/00000000000000000001.res", "log/00000000000000000001.idx"];
    const HEADER_BYTES: usize = 64;
    const PAGE_BYTES: usize = 4096;
    const INPUT_BYTES_MAX: usize = 64 << 10;
    static SOUND: OnceLock<SimDisk> = OnceLock::new();
    let sound = SOUND.get_or_init(|| {
        let disk = SimDisk::new();
        let mut results = Results::open(disk.disk(), "log", &[1, 100], None).expect("results");
        for (segment, height) in [(1, 1), (100, 2)] {
            let txs = (0..3).map(|n| TxResult { hash: [n; 32], result: b"a result".to_vec() }).collect();
            results.append(segment, &BlockResults { height, block: b"of the block".to_vec(), txs }).expect("appended");
        }
        results.sync().expect("durable");
        disk
    });
    let Some((which, bytes)) = bytes.split_first() else { return };
    let mut bytes = bytes[..bytes.len().min(INPUT_BYTES_MAX)].to_vec();
    if which % 2 == 0 {
        let mut at = 0;
        while let Some(header) = bytes.get(at..).and_then(|rest| rest.get(..HEADER_BYTES)) {
            let length = u32::from_le_bytes(header[24..28].try_into().expect("four bytes")) as usize;
            let end = at + HEADER_BYTES + length;
            if end > bytes.len() {
                break;
            }
            let crc = crc32fast::hash(&bytes[at..at + 28]);
            bytes[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
            let digest = sha256(&[&bytes[at..at + 32], &bytes[at + HEADER_BYTES..end]]);
            bytes[at + 32..at + HEADER_BYTES].copy_from_slice(&digest);
            at = end;
        }
    } else {
        for page in bytes.chunks_exact_mut(PAGE_BYTES) {
            let digest = sha256(&[&page[..32], &page[HEADER_BYTES..]]);
            page[32..HEADER_BYTES].copy_from_slice(&digest);
        }
    }
    let disk = changed(sound, PATHS[usize::from(which % 2)], true, 0, &bytes);
    let overhead = DISK_OVERHEAD + 8 * BORSH_BYTES;
    bounded(bytes.len(), PER_BYTE, overhead, meter, || {
        let Ok(results) = Results::open(disk.disk(), "log", &[1, 100], Some(2)) else { return };
        let reader = results.reader();
        let _ = reader.lookup(&[1; 32]);
        if let Ok(Some(found)) = reader.results(1) {
            assert_eq!(found.height, 1, "results of the height asked for");
        }
        let _ = reader.verify();
        let _ = reader.first_missing(1..=2);
    });
}
