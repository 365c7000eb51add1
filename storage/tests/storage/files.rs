//! The real disk and the lock on a home.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use lockstep_storage::lock::{HomeLock, LockError, PID_FILE};

use crate::common::disk;

#[test]
fn a_file_can_be_read_by_its_owner_alone() {
    let (home, disk) = disk();
    disk.create_dir("a/b").expect("folders");
    disk.create("a/b/key").expect("a file");
    let mode = |path: &str| std::fs::metadata(home.path().join("home").join(path)).expect("it is there").permissions().mode();
    assert_eq!(mode("a/b/key") & 0o777, 0o600);
    assert_eq!(mode("a/b") & 0o777, 0o700);
}

#[test]
fn no_path_leaves_the_home() {
    let (_home, disk) = disk();
    for path in ["../x", "/etc/passwd", "a/../../x"] {
        assert_eq!(disk.create(path).err().expect("refused").kind(), ErrorKind::InvalidInput, "{path}");
    }
}

#[test]
fn a_name_that_is_taken_is_not_created_again() {
    let (_home, disk) = disk();
    disk.create("x").expect("a file").write_at(0, b"kept").expect("a write");
    assert_eq!(disk.create("x").err().expect("refused").kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.open("x").expect("still there").len().expect("a length"), 4);
}

#[test]
fn files_grow_are_cut_renamed_and_listed() {
    let (_home, disk) = disk();
    let file = disk.create("b").expect("a file");
    disk.create("a").expect("a file");
    disk.create_dir("folder").expect("a folder");
    file.write_at(6, b"xy").expect("a write past the end");
    let mut bytes = [1; 8];
    file.read_at(0, &mut bytes).expect("a read");
    assert_eq!(&bytes, b"\0\0\0\0\0\0xy");
    assert_eq!(file.read_at(1, &mut bytes).expect_err("past the end").kind(), ErrorKind::UnexpectedEof);
    file.set_len(7).expect("a cut");
    file.sync_data().expect("a sync");
    disk.rename("b", "c").expect("a rename");
    disk.sync_dir(".").expect("a sync");
    assert_eq!(disk.list(".").expect("a list"), ["a", "c"]);
    disk.unlink("a").expect("a removal");
    assert_eq!(disk.list(".").expect("a list"), ["c"]);
    assert_eq!(file.len().expect("a length"), 7);
}

#[test]
fn a_home_has_one_process_and_the_refusal_names_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let lock = HomeLock::acquire(home.path()).expect("the first one has it");
    std::fs::write(home.path().join(PID_FILE), "4711\n").expect("a pid file");
    let refused = HomeLock::acquire(home.path()).expect_err("the second one is refused");
    assert!(matches!(&refused, LockError::InUse { pid: Some(4711), .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains(&home.path().display().to_string()) && text.contains("4711"), "{text}");
    drop(lock);
    HomeLock::acquire(home.path()).expect("free again");
}
