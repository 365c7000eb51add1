//! The names of files, and changes of them that no sync of their folder has covered.

use std::collections::BTreeMap;

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
