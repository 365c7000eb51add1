//! The names of files, and changes of them that no sync of their folder has covered.

use std::collections::{BTreeMap, BTreeSet};

/// A change of names that no sync of the folder has covered.
#[derive(Clone)]
pub(super) enum NameChange {
    Create { path: String, file: u64 },
    Rename { from: String, to: String, file: u64 },
    Unlink { path: String, file: u64 },
}

impl NameChange {
    pub(super) fn path(&self) -> &str {
        match self {
            NameChange::Create { path, .. } | NameChange::Unlink { path, .. } => path,
            NameChange::Rename { to, .. } => to,
        }
    }

    const fn file(&self) -> u64 {
        match self {
            NameChange::Create { file, .. } | NameChange::Rename { file, .. } | NameChange::Unlink { file, .. } => *file,
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            NameChange::Rename { from, to, file } => {
                remove_if(names, from, *file);
                names.insert(to.clone(), *file);
            }
            NameChange::Unlink { path, file } => remove_if(names, path, *file),
        }
    }
}

/// Changes in their order, each with its place in it.
pub(super) type Ordered = Vec<(usize, NameChange)>;

/// What a sync of a folder makes durable of what is pending, and the rest: the changes in the folder, and those before them of the same files.
/// A file that was named in one folder, and moved to another, is not in the first again because that one is synced last.
pub(super) fn take_synced(pending: Vec<NameChange>, dir: &str) -> (Ordered, Ordered) {
    let mut files = BTreeSet::new();
    let is_synced = |change: &NameChange| {
        let is_mine = parent(change.path()) == dir || files.contains(&change.file());
        if is_mine {
            files.insert(change.file());
        }
        is_mine
    };
    let mut is_done: Vec<bool> = pending.iter().rev().map(is_synced).collect();
    is_done.reverse();
    pending.into_iter().enumerate().partition(|(at, _)| is_done[*at])
}

/// Removes a name unless it is another file's by now.
fn remove_if(names: &mut BTreeMap<String, u64>, path: &str, file: u64) {
    if names.get(path) == Some(&file) {
        names.remove(path);
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// One spelling for the root.
pub(super) fn normal(dir: &str) -> &str {
    let dir = dir.strip_suffix('/').unwrap_or(dir);
    if dir == "." { "" } else { dir }
}
