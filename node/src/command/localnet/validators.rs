//! The processes of the validators: started, watched, stopped.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_storage::lock::PID_FILE;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{Node, log_path};
use crate::error::{Exit, NodeError};
use crate::home::io_error;

/// How long validators may take to stop before they are killed. They finish a block and close their files.
const STOP_WAIT: Duration = Duration::from_secs(20);
const STOP_POLL: Duration = Duration::from_millis(10);
/// What of a log is shown when its validator failed.
const LAST_LINES: usize = 8;
const LAST_BYTES: u64 = 8 << 10;
/// Settings that belong to one node, and must not reach all of them through the environment.
const OWN_VARIABLES: [&str; 6] = [
    "LOCKSTEP_HOME",
    "LOCKSTEP_MONIKER",
    "LOCKSTEP_RPC_LADDR",
    "LOCKSTEP_P2P_LADDR",
    "LOCKSTEP_P2P_EXTERNAL_ADDRESS",
    "LOCKSTEP_P2P_PERSISTENT_PEERS",
];

/// Who runs a validator.
#[derive(Debug)]
pub(super) enum State {
    /// We do.
    Ours(Child),
    /// Somebody started it by hand.
    Foreign(u32),
    /// Nobody.
    Down,
}

impl State {
    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Ours(child) => Some(child.id()),
            Self::Foreign(pid) => Some(*pid),
            Self::Down => None,
        }
    }
}

/// Something that happened to a validator from outside.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) index: usize,
    pub(super) what: String,
    pub(super) is_down: bool,
}

/// All validators of a network.
pub(super) struct Validators {
    nodes: Vec<Node>,
    states: Vec<State>,
}

impl Validators {
    /// Starts one process for each. When one cannot be started, those that were are stopped again.
    pub(super) fn start(nodes: &[Node]) -> Result<Self, NodeError> {
        let mut all = Self { nodes: nodes.to_vec(), states: Vec::new() };
        for node in nodes {
            match spawn(node) {
                Ok(child) => all.states.push(State::Ours(child)),
                Err(error) => {
                    all.stop(&mut |_| {});
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// Who runs each.
    pub(super) fn states(&self) -> &[State] {
        &self.states
    }

    /// Looks who has died and who came back.
    pub(super) fn look(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for index in 0..self.states.len() {
            let name = &self.nodes[index].name;
            let (next, event) = match &mut self.states[index] {
                State::Ours(child) => match child.try_wait() {
                    Ok(Some(status)) => (State::Down, (format!("{name} (process {}) {}", child.id(), ended(status)), true)),
                    // Not ended, or nothing is known: look again.
                    Ok(None) | Err(_) => continue,
                },
                State::Foreign(pid) if is_alive(*pid) => continue,
                State::Foreign(pid) => (State::Down, (format!("{name} (process {pid}) ended"), true)),
                State::Down => match pid_in_file(&self.nodes[index]) {
                    Some(pid) if is_alive(pid) => (State::Foreign(pid), (format!("{name} is back, as process {pid}"), false)),
                    _ => continue,
                },
            };
            self.states[index] = next;
            events.push(Event { index, what: event.0, is_down: event.1 });
        }
        events
    }

    /// Asks all of ours to stop, waits, and kills those that do not. Returns how many did not end cleanly.
    pub(super) fn stop(&mut self, say: &mut dyn FnMut(&str)) -> usize {
        for state in &self.states {
            if let State::Ours(child) = state {
                signal(child.id(), Signal::TERM);
            }
        }
        let deadline = Instant::now() + STOP_WAIT;
        let mut unclean = 0;
        let mut stopped = 0;
        for (node, state) in self.nodes.iter().zip(&mut self.states) {
            let child = match state {
                State::Ours(child) => child,
                State::Foreign(pid) => {
                    say(&format!("{} (process {pid}) was started by hand and goes on; stop it:  kill {pid}", node.name));
                    continue;
                }
                State::Down => continue,
            };
            let status = wait_until(child, deadline).or_else(|| {
                say(&format!("{} (process {}) does not stop within {} s and is killed", node.name, child.id(), STOP_WAIT.as_secs()));
                signal(child.id(), Signal::KILL);
                child.wait().ok()
            });
            match status {
                Some(status) if status.success() => stopped += 1,
                Some(status) => {
                    unclean += 1;
                    say(&format!("{} (process {}) {}", node.name, child.id(), ended(status)));
                }
                None => unclean += 1,
            }
            *state = State::Down;
        }
        if stopped > 0 {
            say(&format!("{} stopped cleanly", number(stopped)));
        }
        unclean
    }

    /// Where a validator's log is.
    pub(super) fn log_path(&self, index: usize) -> PathBuf {
        log_path(&self.nodes[index])
    }

    /// The end of a validator's log.
    pub(super) fn last_words(&self, index: usize) -> String {
        let read = || {
            let mut file = File::open(self.log_path(index))?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LAST_BYTES).read_to_end(&mut bytes)?;
            std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let text = read().unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        if last.is_empty() { "its log is empty".to_owned() } else { format!("its log ends with\n    {}", last.join("\n    ")) }
    }
}

impl Drop for Validators {
    /// No validator outlives us, whatever went wrong above.
    fn drop(&mut self) {
        if self.states.iter().any(|state| matches!(state, State::Ours(_))) {
            self.stop(&mut |_| {});
        }
    }
}

/// So many validators, in words.
pub(super) fn number(count: usize) -> String {
    format!("{count} validator{}", if count == 1 { "" } else { "s" })
}

fn spawn(node: &Node) -> Result<Child, NodeError> {
    let log_path = log_path(node);
    let failed = |error| io_error("write", &log_path, &error);
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path).map_err(failed)?;
    let program = std::env::current_exe().map_err(|error| NodeError::new(Exit::Failed, format!("cannot find this program: {error}")))?;
    let mut command = Command::new(&program);
    command.arg("start").arg("--home").arg(node.home.root()).arg("--stop-with-parent");
    command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
    // Ctrl-C reaches every process of the group; validators are stopped in order, by us.
    command.process_group(0);
    for variable in OWN_VARIABLES {
        command.env_remove(variable);
    }
    command.spawn().map_err(|error| NodeError::new(Exit::Failed, format!("cannot start {}: {error}", program.display())))
}

fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(STOP_POLL);
    }
}

/// How a process ended.
fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(9)) => "was killed by signal 9 (SIGKILL)".to_owned(),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        (Some(0), _) => "stopped".to_owned(),
        (code, _) => format!("ended with exit code {}", code.unwrap_or(-1)),
    }
}

fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = pid_of(pid) {
        // One that has just ended is what we want.
        let _ = kill_process(pid, signal);
    }
}

fn is_alive(pid: u32) -> bool {
    pid_of(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

fn pid_in_file(node: &Node) -> Option<u32> {
    std::fs::read_to_string(node.home.root().join(PID_FILE)).ok()?.trim().parse().ok()
}
