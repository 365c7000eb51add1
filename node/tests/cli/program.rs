//! Running the program.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What a test may wait for before it fails. Nothing takes a tenth of it, unless the machine is overloaded.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is waited for.
pub(crate) const LOOK: Duration = Duration::from_millis(10);

/// The program with these arguments, in an environment without settings.
pub(crate) fn lockstep(args: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_lockstep");
    // A runner under nohup hands on that SIGHUP is ignored, and the program goes by that: here it has a terminal that may close.
    let mut command = Command::new(if hangup_is_ignored() { "env" } else { program });
    if hangup_is_ignored() {
        command.args(["--default-signal=HUP", program]);
    }
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOCKSTEP_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Whether this process was started to outlive its terminal.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 != 0)
}

/// How it ended: exit code, stdout, stderr.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn run(args: &[&str]) -> Ended {
    ended(lockstep(args).output().expect("the program starts"))
}

pub(crate) fn ended(output: Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

impl Ended {
    /// Asserts success; stdout.
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    /// Asserts a failure with this code that says all of this, and is no panic.
    #[track_caller]
    pub(crate) fn refused(self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for part in says {
            assert!(self.err.contains(part), "{part:?} is missing in:\n{}", self.err);
        }
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// `count` ports that are free in a row, at most a hundred, and the same number a hundred above. Tests of one process never
/// get the same. Somebody else may take them before we do; a test then fails with the program's own message.
pub(crate) fn free_ports(count: u16) -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Each process begins elsewhere, so that test binaries that run at once do not meet.
    let begin = u16::try_from(std::process::id() % 60).expect("small");
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..60)
        .map(|_| 20_000 + (begin + GIVEN.fetch_add(1, Ordering::Relaxed)) % 60 * 200)
        .find(|first| (*first..first + count).all(|port| is_free(port) && is_free(port + 100)))
        .expect("free ports")
}

/// A process that is killed when the test ends, however it ends.
pub(crate) struct Running {
    child: Child,
    out: Heard,
    err: Heard,
}

/// What a process has written so far; a thread collects it until the process ends.
struct Heard {
    text: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Heard {
    fn listen(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&text);
        let listener = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut bytes) {
                heard.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        });
        Self { text, listener: Some(listener) }
    }

    fn so_far(&self) -> String {
        self.text.lock().expect("no panic").clone()
    }

    fn all(&mut self) -> String {
        self.listener.take().into_iter().for_each(|listener| listener.join().expect("no panic"));
        self.so_far()
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let out = Heard::listen(child.stdout.take().expect("piped"));
        let err = Heard::listen(child.stderr.take().expect("piped"));
        Self { child, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    /// Waits until it has written this to stdout.
    #[track_caller]
    pub(crate) fn hear(&self, says: &str) {
        wait_until(says, || self.out.so_far().contains(says).then_some(()));
    }

    /// What it has written to stdout so far.
    pub(crate) fn heard(&self) -> String {
        self.out.so_far()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let code = wait_until("the program ends", || self.child.try_wait().expect("a child of ours")).code();
        Ended { code, out: self.out.all(), err: self.err.all() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal_to(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a process id")).expect("not zero");
    kill_process(pid, signal).expect("it runs");
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(LOOK);
    }
}

/// The process that a home's file names.
pub(crate) fn pid_of(home: &Path) -> Option<u32> {
    fs::read_to_string(home.join("pid")).ok()?.trim().parse().ok()
}

pub(crate) fn mode_of(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).expect("the file").permissions().mode() & 0o777
}

/// A home made by `init`.
pub(crate) fn new_home(folder: &Path, name: &str) -> PathBuf {
    let home = folder.join(name);
    run(&["init", "--home", text(&home)]).done();
    home
}
