//! The seam: what crosses threads, and what a copy shares.

use lockstep_app::{AppError, Changes, Draft, Executed, Host, State, Tree, View};

use super::common::{changes_of, height, numbered, tree_of};

#[test]
fn what_crosses_threads_may() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<Host>();
    crosses::<State>();
    crosses::<View>();
    crosses::<Tree>();
    crosses::<Changes>();
    crosses::<Executed>();
    crosses::<AppError>();
}

#[test]
fn a_draft_reads_its_own_changes() {
    let view = View::new(tree_of(&numbered(3)), height(1));
    let mut draft = Draft::new(&view);
    draft.set(&b"key 0"[..], &b"changed"[..]);
    draft.delete(&b"key 1"[..]);
    let read = |draft: &Draft<'_>, key: &[u8]| draft.get(key).map(|value| String::from_utf8_lossy(&value).into_owned());
    assert_eq!(read(&draft, b"key 0").as_deref(), Some("changed"));
    assert_eq!(read(&draft, b"key 1"), None);
    assert_eq!(read(&draft, b"key 2").as_deref(), Some("value 2"));
    assert_eq!(view.get(b"key 1").as_deref(), Some(&b"value 1"[..]));
    let expected = changes_of(&[(b"key 0".to_vec(), Some(b"changed".to_vec())), (b"key 1".to_vec(), None)]);
    assert_eq!(draft.into_changes(), expected);
}

#[test]
fn of_two_changes_the_later_counts() {
    let mut changes = changes_of(&[(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), Some(b"1".to_vec()))]);
    changes.extend(changes_of(&[(b"a".to_vec(), None), (b"c".to_vec(), Some(b"2".to_vec()))]));
    let told: Vec<_> = changes.iter().map(|(key, value)| (key[0], value.map(|value| value[0]))).collect();
    assert_eq!(told, [(b'a', None), (b'b', Some(b'1')), (b'c', Some(b'2'))]);
    assert_eq!(changes.get(b"a"), Some(None));
    assert_eq!(changes.get(b"d"), None);
    assert_eq!(changes.len(), 3);
}
