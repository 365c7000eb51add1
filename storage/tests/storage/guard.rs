//! The vote guard: what it refuses, what it survives, and what its bytes are.

use lockstep_storage::guard::{GUARD_RECORD_BYTES_MAX, Guard, GuardError, GuardRecord};

use crate::common::{bytes_of, disk, flip};

const GENESIS: [u8; 32] = [0x6e; 32];
const COPY_BYTES: u64 = 4 << 20;

fn record(height: u64, round: u32, step: u8) -> GuardRecord {
    GuardRecord {
        height,
        round,
        step,
        sign_bytes: format!("sign {height}/{round}/{step}").into_bytes(),
        message: b"message".to_vec(),
        lock: Some(b"lock".to_vec()),
        valid: None,
        owner: GENESIS,
        wedge: None,
    }
}

#[test]
fn a_guard_is_made_once_and_never_silently() {
    let (_home, disk) = disk();
    let missing = Guard::open(&*disk, "data/guard", GENESIS).err().expect("refused");
    assert!(matches!(missing, GuardError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains("lockstep init") && missing.to_string().contains("priv_validator_state.json"));
    Guard::create(&*disk, "data/guard", GuardRecord::initial(GENESIS)).expect("made");
    let exists = Guard::create(&*disk, "data/guard", GuardRecord::initial(GENESIS)).err().expect("refused");
    assert!(matches!(exists, GuardError::Exists { .. }), "{exists}");
    let guard = Guard::open(&*disk, "data/guard", GENESIS).expect("it opens");
    assert_eq!(guard.last(), Some(&GuardRecord::initial(GENESIS)));
    let stranger = Guard::open(&*disk, "data/guard", [1; 32]).err().expect("refused");
    assert!(matches!(stranger, GuardError::WrongOwner { .. }), "{stranger}");
}

#[test]
fn both_messages_are_there_after_a_restart() {
    let (_home, disk) = disk();
    let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
    for step in 0..5 {
        guard.write(&record(1, 0, step)).expect("durable");
        let reopened = Guard::open(&*disk, "guard", GENESIS).expect("it opens");
        assert_eq!(reopened.last(), Some(&record(1, 0, step)));
        let before = if step == 0 { GuardRecord::initial(GENESIS) } else { record(1, 0, step - 1) };
        assert_eq!(reopened.records(), [&before, &record(1, 0, step)]);
        assert_eq!(reopened.repaired_copies(), 0);
    }
}

#[test]
fn signing_never_goes_back() {
    let (_home, disk) = disk();
    let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
    guard.write(&record(5, 2, 1)).expect("durable");
    for (height, round, step) in [(4, 9, 9), (5, 1, 9), (5, 2, 0)] {
        assert!(matches!(guard.write(&record(height, round, step)), Err(GuardError::Regress { .. })));
    }
    let mut other = record(5, 2, 1);
    other.sign_bytes = b"another block".to_vec();
    assert!(matches!(guard.write(&other), Err(GuardError::Equivocation { at: (5, 2, 1) })));
    let mut newly_valid = record(5, 2, 1);
    newly_valid.valid = Some(b"valid".to_vec());
    guard.write(&newly_valid).expect("the same bytes with more remembered");
    let mut huge = record(6, 0, 0);
    huge.lock = Some(vec![0; GUARD_RECORD_BYTES_MAX]);
    assert!(matches!(guard.write(&huge), Err(GuardError::TooLarge { .. })));
    let mut stranger = record(6, 0, 0);
    stranger.owner = [0; 32];
    assert!(matches!(guard.write(&stranger), Err(GuardError::WrongOwner { .. })));
    assert_eq!(Guard::open(&*disk, "guard", GENESIS).expect("it opens").last(), Some(&newly_valid));
}

#[test]
fn the_largest_records_fit() {
    let (_home, disk) = disk();
    let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
    let mut large = record(1, 0, 0);
    let rest = borsh::to_vec(&large).expect("encodes").len() - 4;
    large.lock = Some(vec![3; GUARD_RECORD_BYTES_MAX - rest]);
    guard.write(&large).expect("durable");
    guard.write(&record(1, 0, 1)).expect("durable");
    let guard = Guard::open(&*disk, "guard", GENESIS).expect("it opens");
    assert_eq!(guard.records(), [&large, &record(1, 0, 1)]);
}

#[test]
fn without_a_readable_slot_it_is_silent_until_resumed_and_then_only_above() {
    let (_home, disk) = disk();
    let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
    assert!(matches!(guard.resume_above(9), Err(GuardError::Readable)));
    guard.write(&record(3, 0, 0)).expect("durable");
    for copy in 0..4 {
        flip(&disk, "guard", copy * COPY_BYTES + 60);
    }
    let mut guard = Guard::open(&*disk, "guard", GENESIS).expect("it opens");
    assert!(!guard.is_readable() && guard.records().is_empty());
    assert!(matches!(guard.write(&record(9, 0, 0)), Err(GuardError::NoReadableSlot)));
    guard.resume_above(7).expect("resumed");
    for _ in 0..2 {
        assert!(matches!(guard.write(&record(7, 1, 1)), Err(GuardError::Regress { .. })));
        guard = Guard::open(&*disk, "guard", GENESIS).expect("it opens");
    }
    guard.write(&record(8, 0, 0)).expect("above");
}

/// A power cut does not shorten the file. Where a slot is gone with its end, nobody knows which record was the newest.
#[test]
fn a_file_that_was_cut_short_tells_nothing_where_a_slot_is_gone() {
    let newest = record(3, 0, 1);
    for len in [0, 60, COPY_BYTES, 2 * COPY_BYTES, 2 * COPY_BYTES + 60, 3 * COPY_BYTES, 3 * COPY_BYTES + 60] {
        let (_home, disk) = disk();
        let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
        guard.write(&record(3, 0, 0)).expect("durable");
        guard.write(&newest).expect("durable");
        drop(guard);
        disk.open("guard").expect("there").set_len(len).expect("cut");
        let mut guard = Guard::open(&*disk, "guard", GENESIS).expect("it opens");
        if len >= 3 * COPY_BYTES {
            assert_eq!((guard.last(), guard.went_back()), (Some(&newest), false), "one copy of each is there with {len}");
            continue;
        }
        for _ in 0..2 {
            assert!(!guard.is_readable() && guard.records().is_empty() && !guard.went_back(), "{len}");
            assert!(matches!(guard.write(&record(9, 0, 0)), Err(GuardError::NoReadableSlot)), "{len}");
            drop(guard);
            guard = Guard::open(&*disk, "guard", GENESIS).expect("it opens");
        }
        guard.resume_above(7).expect("resumed");
        drop(guard);
        let guard = Guard::open(&*disk, "guard", GENESIS).expect("it opens");
        assert_eq!(guard.last().map(GuardRecord::position), Some((7, u32::MAX, u8::MAX)), "{len}");
    }
}

/// The bytes of a torn write and of rot in both copies are the same, so it is said.
#[test]
fn who_goes_back_a_record_says_so_until_the_next_one() {
    for slot in 0..2 {
        let (_home, disk) = disk();
        let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
        assert!(!guard.went_back());
        guard.write(&record(3, 0, 0)).expect("durable");
        for copy in 0..2 {
            flip(&disk, "guard", (2 * slot + copy) * COPY_BYTES + 60);
        }
        for _ in 0..2 {
            guard = Guard::open(&*disk, "guard", GENESIS).expect("it opens");
            assert!(guard.went_back() && guard.is_readable());
        }
        guard.write(&record(4, 0, 0)).expect("durable");
        assert!(!guard.went_back());
        assert!(!Guard::open(&*disk, "guard", GENESIS).expect("it opens").went_back());
    }
}

/// The bytes that every reader of a guard must know. A change here is a change of the format.
#[test]
fn the_bytes_of_a_guard_are_pinned() {
    let (_home, disk) = disk();
    let mut guard = Guard::create(&*disk, "guard", GuardRecord::initial(GENESIS)).expect("made");
    let mut full = record(1, 2, 3);
    full.valid = Some(b"valid".to_vec());
    full.wedge = Some(b"wedge".to_vec());
    guard.write(&full).expect("durable");
    let bytes = bytes_of(&disk, "guard");
    let mut pages = String::new();
    for copy in 0..4 {
        let copy_bytes = usize::try_from(COPY_BYTES).expect("small");
        let region = &bytes[copy * copy_bytes..(copy + 1) * copy_bytes];
        let used = region.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        pages += &hex::encode(&region[..used]);
    }
    assert_eq!(pages, include_str!("golden/guard.hex").replace(['\n', ' '], ""));
}
