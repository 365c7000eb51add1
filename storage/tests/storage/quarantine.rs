//! The folder of damaged files: what a person was told of.

use lockstep_storage::quarantine::Quarantine;

use crate::common::{bytes_of, disk};

#[test]
fn what_a_killed_opening_set_aside_is_told_by_the_next() {
    let (_home, disk) = disk();
    let put = |name: &str| disk.create(name).expect("a file").write_at(0, name.as_bytes()).expect("bytes");
    let opened = || Quarantine::new(disk.clone(), "damaged");
    assert_eq!(opened().untold().expect("a look"), [""; 0], "nothing was ever damaged");
    opened().told().expect("nothing to tell");
    assert!(disk.list("damaged").is_err(), "and nothing is made for that");

    // It ends before it says so.
    put("a");
    opened().take("a").expect("taken");
    opened().suspect().expect("a mark");
    assert_eq!(opened().untold().expect("a look"), ["damaged/a-1"]);
    opened().told().expect("told");
    assert_eq!(opened().untold().expect("a look"), [""; 0]);

    // The next one tells of its own alone, and is its own incident.
    put("a");
    opened().take("a").expect("taken");
    assert_eq!(opened().untold().expect("a look"), ["damaged/a-2"]);
    opened().told().expect("told");
    assert_eq!(opened().untold().expect("a look"), [""; 0]);

    // A list that is torn anywhere tells more, and never less.
    let whole = bytes_of(&disk, "damaged/told");
    assert_eq!(whole, b"a-1\na-2\n");
    for len in 0..whole.len() - 1 {
        let list = disk.open("damaged/told").expect("the list");
        list.set_len(len as u64).expect("shorter");
        assert!(opened().untold().expect("a look").contains(&"damaged/a-2".to_owned()), "cut to {len} bytes");
        list.write_at(0, &whole).expect("whole again");
    }
}
