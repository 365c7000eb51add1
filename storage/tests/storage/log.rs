//! The block log: what it refuses, what it rolls and prunes, and what its bytes are.

use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use lockstep_storage::disk::{Disk, DiskFile};
use lockstep_storage::log::{BlockLog, Kind, LogError, LogOptions, PAYLOAD_BYTES_MAX, Preallocator, behind, cut_above, look, pruned_below};
use lockstep_storage::quarantine::Quarantine;

use crate::common::{SALT, bytes_of, decide, disk, flip, hash, open_log, record};

const FIRST_SEGMENT: &str = "log/00000000000000000001.seg";

#[test]
fn what_was_appended_is_read_back_and_survives_reopening() {
    let (_home, disk) = disk();
    let (mut log, recovery) = open_log(&disk, 1 << 20);
    assert!(recovery.created);
    for height in 1..=3u64 {
        log.append(record(Kind::Proposal, height, b"proposal")).expect("a proposal");
        log.append(record(Kind::Polka, height, b"")).expect("a polka");
        decide(&mut log, height, &height.to_le_bytes().repeat(1000));
    }
    for _ in 0..2 {
        let reader = log.reader();
        assert_eq!((reader.base(), reader.tip()), (Some(1), Some(3)));
        let body = reader.body(&hash(2)).expect("a read").expect("the body");
        assert_eq!(body.payload, 2u64.to_le_bytes().repeat(1000));
        assert_eq!(reader.decision(3).expect("a read").expect("the decision").payload, b"certificate");
        let kinds: Vec<Kind> = reader.records(1).expect("a read").iter().map(|stored| stored.entry.kind).collect();
        assert_eq!(kinds, [Kind::Proposal, Kind::Polka, Kind::Body, Kind::Decision]);
        assert_eq!(reader.body(&hash(9)).expect("a read"), None);
        assert_eq!(reader.decision(4).expect("a read"), None);
        drop(log);
        let (reopened, recovery) = open_log(&disk, 1 << 20);
        assert!(!recovery.created);
        assert_eq!(recovery.truncated_bytes, 0);
        log = reopened;
    }
}

#[test]
fn a_decision_is_not_told_before_it_is_durable() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 1 << 20);
    log.append(record(Kind::Body, 1, b"body")).expect("a body");
    log.append(record(Kind::Decision, 1, b"certificate")).expect("a decision");
    let reader = log.reader();
    assert_eq!((reader.tip(), reader.decided_hash(1), reader.decision(1).expect("a read")), (None, None, None));
    assert!(reader.body(&hash(1)).expect("a read").is_some(), "a body may be served before");
    assert_eq!(log.sync().expect("a sync"), 2);
    assert_eq!((reader.tip(), reader.decided_hash(1)), (Some(1), Some(hash(1))));
}

#[test]
fn the_same_body_or_decision_is_written_once() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 1 << 20);
    decide(&mut log, 1, b"body");
    let before = bytes_of(&disk, FIRST_SEGMENT);
    assert_eq!(log.append(record(Kind::Body, 1, b"body")).expect("known"), 1);
    assert_eq!(log.append(record(Kind::Decision, 1, b"other votes")).expect("known"), 2);
    assert_eq!(bytes_of(&disk, FIRST_SEGMENT), before);
}

#[test]
fn what_contradicts_the_log_is_refused() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 1 << 20);
    decide(&mut log, 5, b"body");
    let mut other = record(Kind::Decision, 5, b"");
    other.block_hash = hash(99);
    assert!(matches!(log.append(other), Err(LogError::Contradiction { height: 5 })));
    assert!(matches!(log.append(record(Kind::Decision, 7, b"")), Err(LogError::Gap { last: 5, height: 7 })));
    assert!(matches!(log.append(record(Kind::Decision, 6, b"")), Err(LogError::NoBody { height: 6 })));
    let mut elsewhere = record(Kind::Body, 6, b"body");
    elsewhere.block_hash = hash(5);
    assert!(matches!(log.append(elsewhere), Err(LogError::Contradiction { height: 6 })));
    let large = vec![0; PAYLOAD_BYTES_MAX as usize + 1];
    assert!(matches!(log.append(record(Kind::Body, 6, &large)), Err(LogError::TooLarge { .. })));
    decide(&mut log, 6, b"and it goes on");
}

#[test]
fn segments_close_at_a_height_boundary_and_are_pruned_whole_but_never_the_tip() {
    let (home, disk) = disk();
    let (mut log, _) = open_log(&disk, 4096);
    for height in 1..=20 {
        if height % 3 == 0 {
            log.preallocate_next().expect("room");
        }
        decide(&mut log, height, &[7; 1500]);
        // The body of the next height comes early, and lies in front of a boundary.
        log.append(record(Kind::Body, height + 1, &[7; 1500])).expect("a body");
    }
    let reader = log.reader();
    let segments = reader.segments();
    assert!(segments.len() > 4, "{segments:?}");
    assert!(log.prune(0).expect("nothing to do").is_empty());
    let gone = log.prune(10).expect("pruned");
    assert_eq!(gone, segments[..gone.len()]);
    let base = reader.base().expect("some are left");
    assert!(base > 1 && base <= 10, "base {base}");
    for height in base..=20 {
        assert!(reader.decision(height).expect("a read").is_some());
        assert!(reader.body(&hash(height)).expect("a read").is_some());
    }
    let body_below = reader.body(&hash(base - 1)).expect("a read");
    assert!(body_below.is_none() || reader.decision(base - 1).expect("a read").is_none(), "below the base something is missing");
    log.prune(u64::MAX).expect("pruned");
    assert_eq!(reader.tip(), Some(20));
    assert!(reader.body(&hash(20)).expect("a read").is_some());
    drop(log);
    let (log, _) = open_log(&disk, 4096);
    assert_eq!(log.reader().tip(), Some(20));
    assert!(log.reader().body(&hash(20)).expect("a read").is_some());
    let names: Vec<_> = std::fs::read_dir(home.path().join("home/log")).expect("a folder").collect();
    assert_eq!(names.len(), log.reader().segments().len() + 1, "beside the file `pruned`: what was filled ahead and not used is gone");
    assert_eq!(pruned_below(&*disk, "log").expect("a read"), log.reader().base().expect("some are left"));
}

#[test]
fn rot_in_a_closed_segment_is_named_when_it_is_read() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 256);
    decide(&mut log, 1, b"the first body");
    decide(&mut log, 2, &[1; 300]);
    decide(&mut log, 3, &[1; 300]);
    let before = bytes_of(&disk, FIRST_SEGMENT);
    let at = before.windows(14).position(|window| window == b"the first body").expect("the body is in there");
    flip(&disk, FIRST_SEGMENT, at as u64);
    let (log, _) = open_log(&disk, 256);
    let Err(LogError::Rot { segment, offset, sequence, height }) = log.reader().body(&hash(1)) else {
        panic!("rot is not believed");
    };
    assert_eq!((segment.as_str(), offset, sequence, height), (FIRST_SEGMENT, 80, 1, Some(1)));
    assert!(log.reader().verify().is_err());
    assert!(log.reader().body(&hash(2)).expect("a read").is_some());
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 256);
    for height in 1..=4 {
        decide(&mut log, height, &[1; 300]);
    }
    let segments = log.reader().segments();
    drop(log);
    disk.unlink(&format!("log/{:020}.seg", segments[1])).expect("an accident");
    let opened = lockstep_storage::log::BlockLog::open(disk, "log", lockstep_storage::log::LogOptions { salt: SALT, segment_bytes: 256 });
    assert!(matches!(opened.err(), Some(LogError::MissingSegment { sequence, .. }) if sequence == segments[1]));
}

/// The bytes that every reader of a log must know. A change here is a change of the format.
#[test]
fn the_bytes_of_a_log_are_pinned() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 1 << 20);
    log.append(record(Kind::Body, 1, b"body")).expect("a body");
    log.append(record(Kind::Proposal, 1, b"proposal")).expect("a proposal");
    log.sync().expect("a sync");
    let mut polka = record(Kind::Polka, 1, b"polka");
    polka.round = 3;
    log.append(polka).expect("a polka");
    log.append(record(Kind::Decision, 1, b"decision")).expect("a decision");
    log.mark().expect("a mark");
    assert_eq!(hex::encode(bytes_of(&disk, FIRST_SEGMENT)), include_str!("golden/log.hex").replace(['\n', ' '], ""));
}

/// A kind that came later: its bytes, and where they are found.
#[test]
fn evidence_is_found_whatever_its_height_and_goes_with_its_segment() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 1 << 10);
    log.append(record(Kind::Evidence, 3, b"evidence")).expect("of a height to come");
    log.mark().expect("a mark");
    let bytes = bytes_of(&disk, FIRST_SEGMENT);
    assert_eq!(
        hex::encode(&bytes[bytes.len() - 2 * 108 - 8..bytes.len() - 108]),
        include_str!("golden/evidence.hex").replace(['\n', ' '], "")
    );
    for height in 1..=12u64 {
        decide(&mut log, height, &[7; 300]);
    }
    log.append(record(Kind::Evidence, 1, b"late")).expect("of long ago");
    log.sync().expect("a sync");
    let found = |log: &BlockLog| -> Vec<Vec<u8>> {
        let reader = log.reader();
        reader.evidence().iter().map(|entry| reader.read(entry).expect("a read").payload).collect()
    };
    assert_eq!(found(&log), [&b"evidence"[..], b"late"]);
    drop(log);
    let (mut log, _) = open_log(&disk, 1 << 10);
    assert_eq!(found(&log), [&b"evidence"[..], b"late"]);
    assert!(!log.prune(11).expect("pruned").is_empty());
    assert_eq!(found(&log), [b"late"], "the first segment is gone");
    assert_eq!(log.reader().tip(), Some(12));
}

/// Readers on other threads see whole records and a tip whose records are there, while the log grows, rolls and is pruned.
#[test]
fn readers_beside_the_writer_see_only_what_is_whole() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 4096);
    let body = |height: u64| height.to_le_bytes().repeat(100);
    decide(&mut log, 1, &body(1));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let reader = log.reader();
            scope.spawn(move || {
                let mut tip = 1;
                while tip < 300 {
                    let now = reader.tip().expect("there is a tip");
                    assert!(now >= tip, "the tip never goes back");
                    tip = now;
                    assert!(reader.decision(tip).expect("a read").is_some() || reader.tip() > Some(tip));
                    if let Some(stored) = reader.body(&hash(tip)).expect("a read") {
                        assert_eq!(stored.payload, body(tip));
                    }
                    for entry in reader.entries(tip.saturating_sub(20)) {
                        match reader.read(&entry) {
                            Ok(stored) => assert_eq!(stored.entry, entry),
                            Err(error) => assert!(matches!(error, LogError::Pruned { .. }), "{error}"),
                        }
                    }
                }
            });
        }
        for height in 2..=300 {
            decide(&mut log, height, &body(height));
            log.prune(height.saturating_sub(20)).expect("pruned");
        }
    });
    assert!(log.reader().base() > Some(250));
}

/// A disk on which somebody fills the next segment at the moment at which the one that is ready gets its name.
struct Hasty {
    disk: Arc<dyn Disk>,
    preallocator: OnceLock<Preallocator>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Disk for Hasty {
    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path)
    }
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(path)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if let Some(preallocator) = self.preallocator.get().filter(|_| from.ends_with("next.pre")).cloned() {
            let (done, finished) = std::sync::mpsc::channel();
            let filling = std::thread::spawn(move || {
                preallocator.preallocate_next().expect("there is room");
                let _ = done.send(());
            });
            self.threads.lock().expect("no panic").push(filling);
            // It has to wait for this very rename. If it does not, it is done long before this.
            let _ = finished.recv_timeout(std::time::Duration::from_millis(300));
        }
        self.disk.rename(from, to)
    }
    fn unlink(&self, path: &str) -> io::Result<()> {
        self.disk.unlink(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
}

#[test]
fn the_next_segment_is_not_filled_under_the_name_of_the_one_that_is_begun() {
    let (_home, disk) = disk();
    let hasty = Arc::new(Hasty { disk: disk.clone(), preallocator: OnceLock::new(), threads: Mutex::default() });
    let options = LogOptions { salt: [1; 32], segment_bytes: 4096 };
    let (mut log, _) = BlockLog::open(hasty.clone(), "log", options).expect("it opens");
    log.preallocate_next().expect("there is room");
    assert!(hasty.preallocator.set(log.preallocator()).is_ok());
    for height in 1..=6 {
        log.append(record(Kind::Body, height, &[7; 1500])).expect("a body");
        log.append(record(Kind::Decision, height, b"certificate")).expect("a decision");
        log.sync().expect("durable");
    }
    assert!(!hasty.threads.lock().expect("no panic").is_empty(), "a segment that was ready was begun");
    for filling in hasty.threads.lock().expect("no panic").drain(..) {
        filling.join().expect("it ends");
    }
    drop(log);
    let (log, _) = open_log(&disk, 4096);
    assert_eq!((log.reader().base(), log.reader().tip()), (Some(1), Some(6)), "everything that was said to be durable is there");
}

/// The first segment grows, for nobody could fill it ahead; the sync of a file that grows may wait for whatever else is written.
#[test]
fn a_segment_that_grows_is_left_for_one_that_does_not_once_that_is_ready() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 1 << 16);
    log.preallocate_next().expect("there is room");
    decide(&mut log, 1, b"first");
    assert_eq!(log.reader().segments().len(), 1, "an empty one is not left");
    log.append(record(Kind::Body, 2, b"second")).expect("a body");
    assert_eq!(log.reader().segments().len(), 2, "at the next height");
    log.preallocate_next().expect("there is room");
    log.append(record(Kind::Decision, 2, b"certificate")).expect("a decision");
    (3..=9).for_each(|height| decide(&mut log, height, &[7; 1500]));
    assert_eq!(log.reader().segments().len(), 2, "one that is filled ahead is used up");
    // What was not used of it is as good after a restart.
    drop(log);
    let (mut log, _) = open_log(&disk, 1 << 16);
    log.preallocate_next().expect("there is room");
    decide(&mut log, 10, b"tenth");
    let lengths: Vec<usize> = files(&disk, "log").iter().filter(|(name, _)| name.ends_with(".seg")).map(|(_, bytes)| bytes.len()).collect();
    assert_eq!(lengths.len(), 2);
    assert!(lengths[0] < 1_000 && lengths[1] == 1 << 16, "{lengths:?}");
    assert_eq!((log.reader().base(), log.reader().tip()), (Some(1), Some(10)));
}

/// All files of a folder with their bytes.
fn files(disk: &Arc<dyn Disk>, dir: &str) -> Vec<(String, Vec<u8>)> {
    let names = disk.list(dir).expect("a folder");
    names.into_iter().map(|name| (name.clone(), bytes_of(disk, &format!("{dir}/{name}")))).collect()
}

#[test]
fn a_look_sees_what_opening_would_and_changes_nothing() {
    let (_home, disk) = disk();
    assert!(look(&disk, "log").expect("nothing is no error").is_none());
    let (mut log, _) = open_log(&disk, 1 << 10);
    for height in 1..=7u64 {
        decide(&mut log, height, &[7; 400]);
    }
    log.preallocate_next().expect("there is room");
    log.append(record(Kind::Body, 8, b"torn")).expect("a body");
    log.sync().expect("a sync");
    drop(log);
    // The last record was being written.
    let (last, bytes) = files(&disk, "log").into_iter().rfind(|(name, _)| name.ends_with(".seg")).expect("segments");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("used");
    flip(&disk, &format!("log/{last}"), used as u64);

    let before = files(&disk, "log");
    let reader = look(&disk, "log").expect("it is sound").expect("it is there");
    assert_eq!((reader.base(), reader.tip()), (Some(1), Some(7)));
    assert!(reader.segments().len() > 2);
    assert_eq!(reader.body(&hash(7)).expect("a read").expect("the body").payload, [7; 400]);
    assert_eq!(reader.body(&hash(8)).expect("a read"), None, "torn");
    assert_eq!(files(&disk, "log"), before, "nothing was touched");
    let (reopened, recovery) = open_log(&disk, 1 << 10);
    assert!(recovery.truncated_bytes > 0);
    assert_eq!(reopened.reader().tip(), Some(7));
    flip(&disk, "log/00000000000000000001.seg", 100);
    assert!(matches!(look(&disk, "log"), Err(LogError::Rot { .. })));
}

#[test]
fn a_log_that_is_cut_above_a_height_ends_there_and_goes_on() {
    for height in 1..=9u64 {
        let (_home, disk) = disk();
        let (mut log, _) = open_log(&disk, 1 << 10);
        for height in 1..=9u64 {
            decide(&mut log, height, &[7; 300]);
        }
        log.append(record(Kind::Body, 10, b"undecided")).expect("a body");
        log.mark().expect("a mark");
        drop(log);
        let reader = look(&disk, "log").expect("sound").expect("there");
        let mut quarantine = Quarantine::new(Arc::clone(&disk), "cut");
        assert_eq!(cut_above(&disk, "log", &reader, 10, &mut quarantine).expect("nothing to do"), None);
        let kept = cut_above(&disk, "log", &reader, height, &mut quarantine).expect("cut").expect("the height is there");
        assert!(!kept.is_empty() && kept.iter().all(|path| disk.open(path).is_ok()), "{kept:?}");
        let (mut log, recovery) = open_log(&disk, 1 << 10);
        assert_eq!((log.reader().base(), log.reader().tip(), recovery.truncated_bytes), (Some(1), Some(height), 0));
        assert_eq!(log.reader().body(&hash(height + 1)).expect("a read"), None);
        decide(&mut log, height + 1, b"another");
        assert_eq!(log.reader().body(&hash(height + 1)).expect("a read").expect("the body").payload, b"another");
    }
}

/// The power failed when what lies behind the damage had a segment of its own already, and the damaged one was still there. That start did
/// not meet the damage, and the log went on in the new segment. Met again, nothing of that is lost or copied once more.
#[test]
fn what_went_on_behind_damage_that_was_not_set_aside_stays() {
    let (_home, disk) = disk();
    let (mut log, _) = open_log(&disk, 1 << 20);
    (1..=6).for_each(|height| decide(&mut log, height, &height.to_le_bytes().repeat(20)));
    log.mark().expect("a mark");
    drop(log);
    let rotten = hash(2);
    let good = bytes_of(&disk, FIRST_SEGMENT);
    let payload = 2u64.to_le_bytes().repeat(20);
    let at = good.windows(payload.len()).position(|bytes| bytes == payload).expect("the body");
    flip(&disk, FIRST_SEGMENT, u64::try_from(at).expect("small"));
    // Closed segments are verified when they are read: the first look is at a log whose next segment is begun.
    let damage =
        LogError::Rot { segment: FIRST_SEGMENT.to_owned(), offset: u64::try_from(at).expect("small") - 108, sequence: 3, height: Some(2) };
    let damaged = bytes_of(&disk, FIRST_SEGMENT);
    let found = behind(&disk, "log", &damage).expect("a look").expect("records");
    assert_eq!((found.reader().base(), found.reader().tip()), (Some(3), Some(6)));
    let (from, to) = found.segments();
    assert!(from == 1 && to > 1, "it begins within the segment");
    let mut quarantine = Quarantine::new(disk.clone(), "damaged");
    assert_eq!(found.keep(&disk, "log", &mut quarantine).expect("kept").len(), 1);
    assert_eq!(bytes_of(&disk, "damaged/00000000000000000001.seg-1"), damaged, "nothing is deleted");
    // Back to before it was set aside; and the log goes on.
    disk.rename("damaged/00000000000000000001.seg-1", FIRST_SEGMENT).expect("a file");
    let (mut log, recovery) = open_log(&disk, 1 << 20);
    assert_eq!((recovery.truncated_bytes, log.reader().base(), log.reader().tip()), (0, Some(1), Some(6)));
    (7..=8).for_each(|height| decide(&mut log, height, b"later"));
    let met = log.reader().body(&rotten).expect_err("it rotted");
    drop(log);
    let again = behind(&disk, "log", &met).expect("a look").expect("records");
    assert_eq!((again.segments(), again.reader().tip()), ((to, to), Some(8)), "it has a segment of its own");
    again.keep(&disk, "log", &mut quarantine).expect("kept");
    let (log, _) = open_log(&disk, 1 << 20);
    assert_eq!((log.reader().base(), log.reader().tip()), (Some(3), Some(8)));
    log.reader().verify().expect("all of it is sound");
}
