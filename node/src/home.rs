//! A node's home: one folder that holds everything a node knows and is.
//!
//! ```text
//! HOME/config/config.toml               what is local: addresses, limits (config)
//! HOME/config/genesis.json              what all nodes of the chain share
//! HOME/config/priv_validator_key.json   the key that signs votes; only its owner may read it
//! HOME/config/node_key.json             the key that names the node on the network; likewise
//! HOME/data/guard                       what the validator signed last
//! HOME/data/peers                       whom a join bundle named
//! HOME/data/                            block log, results and state: the node's own
//! HOME/lock, HOME/pid                   held while a process runs here; whose it is
//! ```

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use lockstep_genesis::home::{GENESIS_PATH, Member, NODE_KEY_PATH, VALIDATOR_KEY_PATH};
use lockstep_genesis::keys::{KEY_FILE_BYTES_MAX, SignState, SignStep, parse_node_key, parse_validator_key};
use lockstep_genesis::{FieldError, Genesis, genesis::GENESIS_BYTES_MAX};
use lockstep_network::PeerAddr;
use lockstep_network::limits::PERSISTENT_PEERS_MAX;
use lockstep_replica::signing::guard_owner;
use lockstep_replica::state_sync::STAGING_PATH;
use lockstep_storage::disk::RealDisk;
use lockstep_storage::guard::{Guard, GuardRecord};
use lockstep_storage::lock::{HomeLock, LockError, PID_FILE};
use lockstep_types::{Hash, Height, PrivateKey};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::command::shell_word;
use crate::config::Config;
use crate::error::{Exit, NodeError};

/// Where a home keeps its configuration.
pub const CONFIG_PATH: &str = "config/config.toml";
/// Where a home keeps what the node writes. The paths below are relative to it.
pub const DATA_PATH: &str = "data";
/// The vote guard, in the data folder.
pub const GUARD_PATH: &str = "guard";
/// The block log and its results, in the data folder.
pub const LOG_PATH: &str = "log";
/// The application's state, in the data folder.
pub const STATE_PATH: &str = "state.redb";
/// Where a snapshot lies that is being restored, in the data folder, until it is whole.
const RESTORING_PATH: &str = "restoring";
/// Where damaged files go, in the data folder.
pub const DAMAGED_PATH: &str = "damaged";
/// The folder of snapshots.
pub const SNAPSHOTS_PATH: &str = "snapshots";
/// Peers of the bundle that the home was last started with one of, an address a line.
pub const PEERS_PATH: &str = "data/peers";
/// Largest such file, in bytes, for as many as may be named.
const PEERS_FILE_BYTES_MAX: usize = 1 << 17;
/// Largest configuration file, in bytes: a thousand persistent peers fit.
const CONFIG_BYTES_MAX: usize = 1 << 20;

/// A home folder. Whether anything is in it is found when it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The home at this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `config/config.toml`
    pub fn config_path(&self) -> PathBuf {
        self.root.join(CONFIG_PATH)
    }

    /// `config/genesis.json`
    pub fn genesis_path(&self) -> PathBuf {
        self.root.join(GENESIS_PATH)
    }

    /// `config/priv_validator_key.json`
    pub fn validator_key_path(&self) -> PathBuf {
        self.root.join(VALIDATOR_KEY_PATH)
    }

    /// `config/node_key.json`
    pub fn node_key_path(&self) -> PathBuf {
        self.root.join(NODE_KEY_PATH)
    }

    /// The data folder as the stores see it: [`GUARD_PATH`], [`LOG_PATH`] and [`STATE_PATH`] lie in it.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn data_disk(&self) -> Result<RealDisk, NodeError> {
        let data = self.root.join(DATA_PATH);
        RealDisk::new(&data).map_err(|error| io_error("make", &data, &error))
    }

    /// A disk of its own for a snapshot that is being restored: what was restored before stays until this one is whole.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn restoring_disk(&self) -> Result<RealDisk, NodeError> {
        self.forget_restoring()?;
        let path = self.root.join(DATA_PATH).join(RESTORING_PATH);
        RealDisk::new(&path).map_err(|error| io_error("make", &path, &error))
    }

    /// What was restored, and is whole and durable, is what the next start begins with, in the place of any before.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn keep_restored(&self) -> Result<(), NodeError> {
        let data = self.root.join(DATA_PATH);
        let (new, kept) = (data.join(RESTORING_PATH).join(STAGING_PATH), data.join(STAGING_PATH));
        fs::create_dir_all(&kept).map_err(|error| io_error("make", &kept, &error))?;
        let moved = match renameat_with(CWD, &new, CWD, &kept, RenameFlags::EXCHANGE) {
            // Not every file system can. Between these two there is nothing that a start would begin with.
            Err(Errno::INVAL | Errno::NOSYS) => fs::remove_dir_all(&kept).and_then(|()| fs::rename(&new, &kept)),
            moved => moved.map_err(io::Error::from),
        };
        let durable = moved.and_then(|()| File::open(&data)?.sync_all());
        durable.map_err(|error| io_error("move", &new, &error))?;
        self.forget_restoring()
    }

    /// Removes what a restore left that did not come to its end.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget_restoring(&self) -> Result<(), NodeError> {
        let path = self.root.join(DATA_PATH).join(RESTORING_PATH);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path, &error)),
            _ => Ok(()),
        }
    }

    /// The same for a command that changes nothing there.
    ///
    /// # Errors
    /// When it cannot be found.
    pub fn data_disk_to_read(&self) -> Result<RealDisk, NodeError> {
        let data = self.root.join(DATA_PATH);
        RealDisk::to_read(&data).map_err(|error| io_error("open", &data, &error))
    }

    /// Refuses a folder that is no home.
    ///
    /// # Errors
    /// Says how to make one.
    pub fn check_exists(&self) -> Result<(), NodeError> {
        let path = self.config_path();
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => return Ok(()),
            Err(error) if ![io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Err(io_error("read", &path, &error));
            }
            _ => {}
        }
        Err(NodeError::new(Exit::Refused, format!("{} is not the home of a node: it has no {CONFIG_PATH}", self.root.display()))
            .next(format!("lockstep init --home {}   (a chain of one validator), or give another --home", shell_word(self.root.display()))))
    }

    /// The text of `config.toml`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_config(&self) -> Result<String, NodeError> {
        let path = self.config_path();
        let bytes = read_bounded(&path, CONFIG_BYTES_MAX)?;
        String::from_utf8(bytes)
            .map_err(|_| NodeError::new(Exit::Refused, format!("{} is not UTF-8 text", path.display())).next("write it again as UTF-8"))
    }

    /// The genesis, with every rule checked.
    ///
    /// # Errors
    /// Names field, value and rule.
    pub fn read_genesis(&self) -> Result<Genesis, NodeError> {
        let path = self.genesis_path();
        present(&path, "take the chain's genesis file from another of its nodes")?;
        read_genesis(&path)
    }

    /// The key that signs votes.
    ///
    /// # Errors
    /// When the file cannot be read, can be read by others, or holds no key.
    pub fn read_validator_key(&self) -> Result<PrivateKey, NodeError> {
        let path = self.validator_key_path();
        present(&path, "restore the file from its backup; a new key is another validator (lockstep keys generate)")?;
        read_key(&path, parse_validator_key)
    }

    /// The key that names the node on the network.
    ///
    /// # Errors
    /// As [`Home::read_validator_key`].
    pub fn read_node_key(&self) -> Result<PrivateKey, NodeError> {
        let path = self.node_key_path();
        let fresh = format!("lockstep keys generate --kind node --output {}", shell_word(path.display()));
        present(
            &path,
            &format!("restore the file from its backup, or make another: {fresh}   (peers that name this node need its new id)"),
        )?;
        read_key(&path, parse_node_key)
    }

    /// Takes the home for this process and leaves the process id in it. Others are refused until the answer is dropped.
    ///
    /// # Errors
    /// Names the process that has it.
    pub fn hold(&self) -> Result<Held, NodeError> {
        let lock = HomeLock::acquire(&self.root).map_err(not_held)?;
        let pid_path = self.root.join(PID_FILE);
        // A new file each time: what stands in its place may be a link to somewhere else.
        let written = match fs::remove_file(&pid_path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => File::create_new(&pid_path).and_then(|mut file| writeln!(file, "{}", std::process::id())),
        };
        match written {
            // The lock is what holds the home. Who it is can be said when there is room again: on a full disk a node starts, and signs nothing.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {}
            written => written.map_err(|error| io_error("write", &pid_path, &error))?,
        }
        Ok(Held { pid_path: Some(pid_path), _lock: lock })
    }

    /// The same for a command that changes nothing here, and leaves nothing: also for a home that cannot be written, as one that is mounted
    /// read-only, or that somebody else made.
    ///
    /// # Errors
    /// Names the process that has it.
    pub fn hold_to_read(&self) -> Result<Held, NodeError> {
        let lock = HomeLock::acquire_to_read(&self.root).map_err(not_held)?;
        Ok(Held { pid_path: None, _lock: lock })
    }

    /// The process that runs here now; none when nobody does.
    pub fn running(&self) -> Option<u32> {
        match HomeLock::acquire(&self.root) {
            Err(LockError::InUse { pid, .. }) => pid,
            _ => None,
        }
    }

    /// Writes a new node's files: configuration, genesis, keys, and a vote guard that belongs to this genesis. The folder
    /// must not be a home already.
    ///
    /// # Errors
    /// Nothing is overwritten: what exists is an error.
    pub fn create(&self, config: &Config, genesis: &Genesis, member: &Member, signed: Option<&SignState>) -> Result<(), NodeError> {
        self.check_new()?;
        make_folder(&self.root.join("config"))?;
        // Of two that make one home at a time, one makes it, and the other hears of it here or finds its files.
        let _held = self.hold()?;
        self.check_new()?;
        // The guard comes first: a home that is cut short here has no key, so nothing can sign without a guard.
        self.create_guard(&guard_owner(&genesis.hash(), &member.validator_key.public_key()), signed)?;
        write_new(&self.config_path(), config.to_toml().as_bytes(), false)?;
        for file in lockstep_genesis::home::files(genesis, member) {
            write_new(&self.root.join(file.path), file.contents.as_bytes(), file.secret)?;
        }
        sync_folder(&self.root.join("config"))?;
        sync_folder(&self.root)
    }

    /// Refuses a folder that is a home already, or begins to be one.
    fn check_new(&self) -> Result<(), NodeError> {
        let files = [self.config_path(), self.genesis_path(), self.validator_key_path(), self.node_key_path(), self.guard_file()];
        match files.iter().find(|path| path.exists()) {
            None => Ok(()),
            Some(path) => Err(NodeError::new(Exit::Refused, format!("{} exists", path.display()))
                .means("this folder is the home of a node already; its keys and its memory of what it signed are never replaced")
                .next(format!("give another --home, or run it with: lockstep start --home {}", shell_word(self.root.display())))),
        }
    }

    /// Makes the vote guard of an owner ([`guard_owner`]): fresh, or above what the key signed elsewhere.
    ///
    /// # Errors
    /// When there is one already, or the disk fails.
    pub fn create_guard(&self, owner: &Hash, signed: Option<&SignState>) -> Result<(), NodeError> {
        let record = signed.map_or_else(|| GuardRecord::initial(owner.0), |state| floor_above(state, owner));
        Guard::create(&self.data_disk()?, GUARD_PATH, record).map(drop).map_err(|error| {
            let refused = NodeError::new(Exit::Refused, format!("in {}: {error}", self.root.join(DATA_PATH).display()));
            match io_kind(&error).and_then(remedy) {
                Some(remedy) => refused.next(remedy),
                None => refused.next("keep the guard that is there; it is what keeps this key from signing twice"),
            }
        })
    }

    /// Peers that a bundle named with which this home was started: none where there was none; and in words what of them could not be read.
    /// That is passed over: they are a help to find the chain, and a peer is believed nothing for standing here.
    pub fn read_peers(&self) -> (Vec<PeerAddr>, Option<String>) {
        let path = self.root.join(PEERS_PATH);
        if !path.exists() {
            return (Vec::new(), None);
        }
        let bytes = match read_bounded(&path, PEERS_FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let peers: Vec<PeerAddr> = lines.iter().filter_map(|line| line.parse().ok()).collect();
        let wrong = lines.len() - peers.len();
        let told = (wrong > 0).then(|| format!("{wrong} of {} lines of {} are not addresses of peers", lines.len(), path.display()));
        (peers.into_iter().take(PERSISTENT_PEERS_MAX).collect(), told)
    }

    /// Keeps the peers that a bundle named, in the place of those of an earlier one.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_peers(&self, peers: &[PeerAddr]) -> Result<(), NodeError> {
        let path = self.root.join(PEERS_PATH);
        let new = path.with_extension("new");
        let text: String = peers.iter().map(|peer| format!("{peer}\n")).collect();
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("remove", &new, &error)),
            _ => {}
        }
        write_new(&new, text.as_bytes(), false)?;
        fs::rename(&new, &path).map_err(|error| io_error("write", &path, &error))
    }

    /// Where the vote guard lies.
    pub fn guard_file(&self) -> PathBuf {
        self.root.join(DATA_PATH).join(GUARD_PATH)
    }
}

fn not_held(error: LockError) -> NodeError {
    match error {
        LockError::InUse { pid, .. } => in_use(&error, pid),
        LockError::Io { ref source, .. } => {
            let is_link = source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
            let next = match source.kind() {
                _ if is_link => "the file lock in it is a link, which is not followed: remove it",
                io::ErrorKind::IsADirectory => "what is called lock in it is a folder: remove it",
                _ => "make the folder writable for the user who runs the node",
            };
            NodeError::new(Exit::Refused, error).next(next)
        }
    }
}

/// A home that this process holds.
#[derive(Debug)]
pub struct Held {
    /// What it left there, and removes.
    pid_path: Option<PathBuf>,
    _lock: HomeLock,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Best effort: a pid file left behind is told from a live one by the lock.
        let _ = self.pid_path.as_ref().map(fs::remove_file);
    }
}

/// The guard of a key that signed elsewhere. The file says which message was last, not what the key was locked on, so
/// nothing more is signed at its height: the first signature is for the height above.
fn floor_above(state: &SignState, owner: &Hash) -> GuardRecord {
    let nothing_here = state.step == SignStep::None && state.round.get() == 0;
    let height = if nothing_here { state.height.previous() } else { state.height };
    let initial = GuardRecord::initial(owner.0);
    if height == Height::ZERO { initial } else { GuardRecord { height: height.get(), round: u32::MAX, step: u8::MAX, ..initial } }
}

fn in_use(error: &LockError, pid: Option<u32>) -> NodeError {
    let next = pid.map_or_else(
        || "find the process (lsof on the file lock) and stop it, or give another --home".to_owned(),
        |pid| format!("stop it with: kill {pid}   (it ends cleanly), or give another --home"),
    );
    NodeError::new(Exit::InUse, error).next(next)
}

/// A genesis file, with every rule checked.
///
/// # Errors
/// Names field, value and rule.
pub fn read_genesis(path: &Path) -> Result<Genesis, NodeError> {
    Genesis::parse(&read_bounded(path, GENESIS_BYTES_MAX)?).map_err(|error| {
        refused_file(path, &error)
            .means("nodes with different genesis files are different chains, so it is not guessed at")
            .next("take the file from another node of the chain; docs/format-genesis.md describes it")
    })
}

/// A key file that only its owner may read.
///
/// # Errors
/// When it cannot be read, others may read it, or it holds no key. Secrets are not repeated.
pub fn read_key(path: &Path, parse: fn(&[u8]) -> Result<PrivateKey, FieldError>) -> Result<PrivateKey, NodeError> {
    let metadata = fs::metadata(path).map_err(|error| io_error("read", path, &error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(NodeError::new(Exit::Refused, format!("{} has mode {mode:04o}: others than its owner may use it", path.display()))
            .means("whoever reads a validator's key can sign in its name, and its stake pays for it")
            .next(format!("chmod 600 {}   (and take the key as known if others have accounts here)", path.display())));
    }
    let bytes = zeroize::Zeroizing::new(read_bounded(path, KEY_FILE_BYTES_MAX)?);
    parse(&bytes).map_err(|error| {
        refused_file(path, &error).next("restore the file from its backup; a new key is another validator (lockstep keys generate)")
    })
}

/// Refuses a file of a home that is not there, with what to do.
fn present(path: &Path, next: &str) -> Result<(), NodeError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io_error("read", path, &error).next(next)),
        // What else is wrong with it shows when it is read.
        _ => Ok(()),
    }
}

fn refused_file(path: &Path, error: &FieldError) -> NodeError {
    NodeError::new(Exit::Refused, format!("{}: {error}", path.display()))
}

/// A whole file, unless it is larger than anything it may hold.
///
/// # Errors
/// When it cannot be read or is larger than `max` bytes.
pub fn read_bounded(path: &Path, max: usize) -> Result<Vec<u8>, NodeError> {
    let file = File::open(path).map_err(|error| io_error("read", path, &error))?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| io_error("read", path, &error))?;
    if bytes.len() > max {
        return Err(NodeError::new(
            Exit::Refused,
            format!("{} is larger than {max} bytes, so it is not what it should be", path.display()),
        )
        .next("look at the file: it may have been replaced by another one"));
    }
    Ok(bytes)
}

/// Writes a file that must not exist, durably.
///
/// # Errors
/// When it exists or cannot be written.
pub fn write_new(path: &Path, contents: &[u8], secret: bool) -> Result<(), NodeError> {
    let mode = if secret { 0o600 } else { 0o644 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| io_error("make", path, &error))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(|error| io_error("write", path, &error))
}

/// Makes a folder and its parents, for their owner alone.
///
/// # Errors
/// When it cannot be made.
pub fn make_folder(path: &Path) -> Result<(), NodeError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| io_error("make", path, &error))
}

fn sync_folder(path: &Path) -> Result<(), NodeError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| io_error("sync", path, &error))
}

/// A file operation that failed, with what to do about the usual reasons.
pub fn io_error(action: &str, path: &Path, error: &io::Error) -> NodeError {
    let failed = NodeError::new(Exit::Refused, format!("cannot {action} {}: {error}", path.display()));
    let next = match error.kind() {
        io::ErrorKind::NotFound => Some("check the path"),
        io::ErrorKind::AlreadyExists => Some("nothing is ever overwritten: give another name, or move what is there"),
        io::ErrorKind::IsADirectory => Some("it is a folder: name a file"),
        io::ErrorKind::NotADirectory => Some("a part of this path is a file where a folder should be: check the path"),
        kind => remedy(kind),
    };
    match next {
        Some(next) => failed.next(next),
        None => failed,
    }
}

/// What to do where the place is right and the system does not let us.
pub(crate) fn remedy(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => Some("run as the user who owns it, or change its owner or mode"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("make room on the disk, then start again"),
        io::ErrorKind::ReadOnlyFilesystem => Some("the disk is mounted read-only: mount it writable, or give another place"),
        _ => None,
    }
}

/// What the system said, where it is at the bottom of an error.
pub(crate) fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        at = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io;

    use lockstep_storage::DiskError;
    use lockstep_storage::guard::GuardError;

    use super::{io_kind, remedy};
    use crate::shell::ShellError;

    #[test]
    fn what_the_system_said_is_found_below_every_error() {
        let disk = |kind: io::ErrorKind| DiskError { action: "write", path: "guard".into(), source: io::Error::from(kind) };
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            let error = ShellError::from(GuardError::from(disk(kind)));
            assert_eq!(io_kind(&error), Some(kind));
            assert!(remedy(kind).is_some(), "it is in the user's hands");
        }
        assert_eq!(remedy(io::ErrorKind::InvalidData), None, "a disk that fails is another matter");
        assert_eq!(io_kind(&ShellError::Thread("log")), None);
    }

    #[test]
    fn peers_of_a_bundle_are_there_at_the_next_start_and_damage_costs_those_it_hits() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = super::Home::new(folder.path());
        assert_eq!(home.read_peers(), (Vec::new(), None), "a home that was never given one");
        std::fs::create_dir(folder.path().join(super::DATA_PATH)).expect("a folder");
        let peer = |n: u8| format!("{}@10.0.0.{n}:26656", format!("{n:02x}").repeat(20)).parse().expect("an address");
        home.keep_peers(&[peer(1), peer(2)]).expect("there is room");
        assert_eq!(home.read_peers(), (vec![peer(1), peer(2)], None));
        home.keep_peers(&[peer(3)]).expect("in their place");
        assert_eq!(home.read_peers(), (vec![peer(3)], None));
        let line = format!("{}\n", peer(4));
        std::fs::write(folder.path().join(super::PEERS_PATH), [b"\xff\n\n", line.as_bytes(), b"nobody@", &[0; 9]].concat())
            .expect("a file");
        let (peers, told) = home.read_peers();
        assert_eq!(peers, [peer(4)]);
        assert!(told.expect("two lines are no peers").starts_with("2 of 3 lines"));
        std::fs::write(folder.path().join(super::PEERS_PATH), vec![b'a'; super::PEERS_FILE_BYTES_MAX + 1]).expect("a file");
        assert!(matches!(home.read_peers(), (peers, Some(told)) if peers.is_empty() && told.contains("larger than")));
    }
}
