//! Small files of state sync: written whole, verified when they are read.

use std::io::ErrorKind;
use std::sync::Arc;

use lockstep_storage::DiskError;
use lockstep_storage::disk::Disk;
use lockstep_types::Hash;

/// A folder of files.
#[derive(Clone)]
pub(crate) struct Folder {
    disk: Arc<dyn Disk>,
    dir: String,
}

impl Folder {
    /// The folder. It is made with its first file: a home that never syncs has none.
    pub(crate) fn new(disk: Arc<dyn Disk>, dir: &str) -> Self {
        Self { disk, dir: dir.to_owned() }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    fn failed(&self, action: &'static str, name: &str) -> impl FnOnce(std::io::Error) -> DiskError {
        let path = self.path(name);
        move |source| DiskError { action, path, source }
    }

    /// The names, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, DiskError> {
        match self.disk.list(&self.dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(|source| DiskError { action: "list", path: self.dir.clone(), source }),
        }
    }

    /// Writes a file, in the place of one that was there. Not durable before [`Folder::sync`].
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.create_dir(&self.dir).map_err(|source| DiskError { action: "create", path: self.dir.clone(), source })?;
        self.remove(name)?;
        let file = self.disk.create(&self.path(name)).map_err(self.failed("create", name))?;
        file.write_at(0, bytes).map_err(self.failed("write", name))
    }

    /// The bytes of a file; none when it is not there, or longer than what it can be.
    pub(crate) fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, DiskError> {
        let file = match self.disk.open(&self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("open", name)(error)),
        };
        let len = usize::try_from(file.len().map_err(self.failed("read", name))?).unwrap_or(usize::MAX);
        if len > bytes_max {
            return Ok(None);
        }
        let mut bytes = vec![0; len];
        file.read_at(0, &mut bytes).map_err(self.failed("read", name))?;
        Ok(Some(bytes))
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), DiskError> {
        match self.disk.unlink(&self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed("remove", name)(error)),
            _ => Ok(()),
        }
    }

    /// Gives a file another name, if it is there.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        match self.disk.rename(&self.path(from), &self.path(to)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed("rename", from)(error)),
            _ => Ok(()),
        }
    }

    /// Removes all files but those that are to stay.
    pub(crate) fn sweep(&self, stays: impl Fn(&str) -> bool) -> Result<(), DiskError> {
        for name in self.names()?.iter().filter(|name| !stays(name)) {
            self.remove(name)?;
        }
        Ok(())
    }

    /// Makes a file durable that was written before, by anybody.
    pub(crate) fn sync(&self, name: &str) -> Result<(), DiskError> {
        let file = self.disk.open(&self.path(name)).map_err(self.failed("open", name))?;
        file.sync_data().map_err(self.failed("sync", name))
    }

    /// Makes the names durable.
    pub(crate) fn sync_names(&self) -> Result<(), DiskError> {
        self.disk.sync_dir(&self.dir).map_err(|source| DiskError { action: "sync", path: self.dir.clone(), source })
    }
}

/// Bytes with their digest in front: what a torn write leaves is not taken for them.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&Hash::of(bytes).0[..], bytes].concat()
}

/// Those bytes, if they are whole.
pub(crate) fn unsealed(bytes: &[u8]) -> Option<&[u8]> {
    let (digest, bytes) = bytes.split_first_chunk::<32>()?;
    (Hash::of(bytes).0 == *digest).then_some(bytes)
}
