//! What the stores cost on this machine's disk: `cargo run --release -p lockstep-storage --example throughput [FOLDER]`.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockstep_storage::disk::{Disk, RealDisk};
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::log::{BlockLog, Kind, LogOptions, Record, SEGMENT_BYTES_DEFAULT};
use lockstep_storage::state::{Change, StateDb};

fn hash(height: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&height.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    hash
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e6;
    println!("{what:<52} p50 {:>9.0} us   p99 {:>9.0} us", at(50), at(99));
}

fn timed<T>(took: &mut Vec<Duration>, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    took.push(begun.elapsed());
    done
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let home = tempfile::tempdir_in(folder)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(home.path())?);

    let mut next = 1;
    for (body_bytes, rounds) in [(200, 1000), (64 << 10, 500), (1 << 20, 100)] {
        let (mut log, _) = BlockLog::open(Arc::clone(&disk), "log", LogOptions { salt: [1; 32], segment_bytes: SEGMENT_BYTES_DEFAULT })?;
        let body = vec![7; body_bytes];
        let (mut bodies, mut decisions) = (Vec::new(), Vec::new());
        for height in next..next + rounds {
            let record = |kind, payload| Record { kind, height, round: 0, block_hash: hash(height), payload };
            timed(&mut bodies, || log.append(record(Kind::Body, &body)).and_then(|_| log.sync()))?;
            timed(&mut decisions, || log.append(record(Kind::Decision, &body[..200])).and_then(|_| log.sync()))?;
        }
        next += rounds;
        report(&format!("log: append a body of {body_bytes} bytes and sync"), bodies);
        report("log: append a decision of 200 bytes and sync", decisions);
    }
    let mut opened = Vec::new();
    timed(&mut opened, || BlockLog::open(Arc::clone(&disk), "log", LogOptions { salt: [1; 32], segment_bytes: SEGMENT_BYTES_DEFAULT }))?;
    report("log: open it", opened);

    let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial([0; 32]))?;
    for lock_bytes in [0, 2000, 20_000] {
        let mut writes = Vec::new();
        for _ in 0..1000 {
            let last = guard.last().map_or(0, |last| last.height);
            let record = GuardRecord {
                height: last + 1,
                sign_bytes: vec![1; 110],
                lock: Some(vec![2; lock_bytes]),
                ..GuardRecord::initial([0; 32])
            };
            timed(&mut writes, || guard.write(&record))?;
        }
        report(&format!("guard: write a record with a lock of {lock_bytes} bytes"), writes);
    }

    let mut state = StateDb::open(&*disk, "state")?;
    let value = [9; 100];
    for keys in [1_000u64, 100_000, 1_000_000] {
        let mut paths: Vec<[u8; 32]> = (0..keys).map(hash).collect();
        paths.sort();
        let changes = paths.iter().map(|path| Change { path: *path, key: &path[..20], value: Some(&value) });
        let height = state.flushed().map_or(1, |flushed| flushed.height + 1);
        let mut flushes = Vec::new();
        timed(&mut flushes, || state.flush(height, changes, b""))?;
        report(&format!("state: flush {keys} keys, in order"), flushes);
    }
    drop(state);
    let mut opened = Vec::new();
    let mut state = timed(&mut opened, || StateDb::open(&*disk, "state"))?;
    report("state: open it, with every page's checksum", opened);
    let (mut loads, mut entries) = (Vec::new(), 0u64);
    timed(&mut loads, || state.load(|_, _, _| entries += 1))?;
    report(&format!("state: load {entries} entries"), loads);
    Ok(())
}
