//! Running the program.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// What a test may wait for before it fails. Nothing takes a fraction of it, unless the machine is overloaded.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at something that is waited for.
pub const LOOK: Duration = Duration::from_millis(5);
/// Ports that are tried: below those that systems give out by themselves, from 32768 on Linux.
const PORTS: std::ops::Range<u16> = 10_000..19_800;

/// The program under test. It belongs to another package, so cargo does not build it for our tests: it is built here, once,
/// and cargo says where it lies. `LOCKSTEP_BIN` names another one.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("LOCKSTEP_BIN").map_or_else(|| build(&["--test", "cli"], "lockstep"), PathBuf::from))
}

/// The program that floods a node (`tests/examples/flood`), built as [`binary`] is; `LOCKSTEP_FLOOD_BIN` names another one.
pub fn flooder() -> &'static Path {
    static FLOODER: OnceLock<PathBuf> = OnceLock::new();
    FLOODER.get_or_init(|| std::env::var_os("LOCKSTEP_FLOOD_BIN").map_or_else(|| build(&["--example", "flood"], "flood"), PathBuf::from))
}

/// Builds one executable as `cargo test --workspace` does, with what selects it: dependencies have the features that the whole
/// workspace asks for then. Built for its own package alone, they would all be compiled once more. The program comes with
/// the tests of its command line.
fn build(selected: &[&str], target: &str) -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Build scripts ask to run again when these change, and what cargo tells a test about its package is not for them.
    let of_this_package = |name: &String| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix));
    let mut build = Command::new(cargo);
    for name in std::env::vars().map(|(name, _)| name).filter(of_this_package) {
        build.env_remove(name);
    }
    let built = build
        .args(["test", "--no-run", "--release", "--workspace", "--message-format=json", "--manifest-path"])
        .arg(workspace)
        .args(selected)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(built.status.success(), "the program does not build");
    let messages = String::from_utf8(built.stdout).expect("cargo writes text");
    let executable = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let is_ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == target;
        message["executable"].as_str().filter(|_| is_ours).map(PathBuf::from)
    });
    executable.expect("cargo names what it built")
}

/// The program with these arguments, in an environment without settings.
pub fn command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    plain(Command::new(binary()), args)
}

/// The same inside a network namespace.
pub fn command_in<S: AsRef<std::ffi::OsStr>>(namespace: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut ip = Command::new("ip");
    // `ip netns exec` becomes the program, so the process id is the program's own.
    ip.args(["netns", "exec", namespace]).arg(binary());
    plain(ip, args)
}

fn plain<S: AsRef<std::ffi::OsStr>>(mut command: Command, args: impl IntoIterator<Item = S>) -> Command {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOCKSTEP_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// How a run ended: exit code (none after a signal), stdout and stderr.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub out: String,
    /// What it wrote to stderr.
    pub err: String,
}

/// Runs the program to its end.
pub fn run<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    ended(command(args))
}

/// Runs a command to its end.
pub fn ended(mut command: Command) -> Ended {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ended {
    /// Asserts success; stdout.
    #[track_caller]
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }
}

/// A process that is killed when the test ends, however it ends. It writes to a file: a pipe that nobody reads would stop it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command that appends to `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let open = || -> io::Result<File> { OpenOptions::new().create(true).append(true).open(&log) };
        command.stdout(open().expect("a log")).stderr(open().expect("a log"));
        Self { child: command.spawn().expect("the program starts"), log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that it has used so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).into_iter().flatten();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1_000 / rustix::param::clock_ticks_per_second())
    }

    /// Memory that it holds, and the most that it ever held, in bytes.
    pub fn resident(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        (kib("VmRSS:").unwrap_or(0) * 1024, kib("VmHWM:").unwrap_or(0) * 1024)
    }

    /// Sends a signal, to a process that still runs.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a process id")).expect("not zero");
        kill_process(pid, signal).expect("it runs, or waits for us to take its exit code");
    }

    /// Whether it ended, and with which code: none inside after a signal.
    pub fn exit_code(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("a child of ours").map(|status| status.code())
    }

    /// Waits until it ends by itself: its exit code, none after a signal.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        wait_until("the program ends", || self.exit_code())
    }

    /// Everything it and those before it wrote to the log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of {}:\n{}", self.log.display(), lines[lines.len().saturating_sub(12)..].join("\n"));
        }
    }
}

/// A folder for homes, removed when it is dropped. With `LOCKSTEP_KEEP` set it stays, with the nodes' logs.
pub fn folder() -> TempDir {
    tempfile::Builder::new().disable_cleanup(std::env::var_os("LOCKSTEP_KEEP").is_some()).tempdir().expect("a folder")
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK);
    }
}

/// Waits until a count has come so far. How fast it grows is the machine's business: patience ends when it stands still.
#[track_caller]
pub fn wait_for_count(what: &str, goal: u64, mut count: impl FnMut() -> u64) {
    let (mut seen, mut deadline) = (count(), Instant::now() + PATIENCE);
    while seen < goal {
        assert!(Instant::now() < deadline, "stands at {seen} of {goal} for {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK);
        let now = count();
        if now > seen {
            (seen, deadline) = (now, Instant::now() + PATIENCE);
        }
    }
}

/// Ports that are free. Those of one test process differ; somebody else may take one before we do, and the program then says so.
pub fn free_ports(count: usize) -> Vec<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let room = PORTS.end - PORTS.start;
    // Each process begins elsewhere, so that test programs that run at once do not meet.
    let begin = u16::try_from(std::process::id() * 97 % u32::from(room)).expect("less than the room");
    (0..room)
        .map(|_| PORTS.start + (begin + GIVEN.fetch_add(1, Ordering::Relaxed)) % room)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}
