//! When to stop: a signal from outside, once, seen by everyone who holds a [`StopSignal`].

use std::io;
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How the program ends when a second signal does not let it finish: 128 and the number of SIGINT, as shells count.
const EXIT_IMPATIENT: i32 = 130;
/// SIGHUP, signal 1, in the masks of signals that Linux shows.
const SIGHUP_BIT: u64 = 1;

/// Held by whoever must stop when the program is asked to. Clones see the same signal.
#[derive(Debug, Clone)]
pub struct StopSignal(watch::Receiver<bool>);

/// Gives the signal.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Asks everyone to stop. Asking again changes nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl StopSignal {
    /// A signal, and the hand that gives it. A stopper that is dropped without a word never stops anybody.
    pub fn new() -> (Stopper, Self) {
        let (sender, receiver) = watch::channel(false);
        (Stopper(sender), Self(receiver))
    }

    /// The signal that SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed) give. A second SIGINT or SIGTERM ends the
    /// process at once: everything that must survive is on the disk by then. A second SIGHUP does not: a terminal that closes
    /// and the shell in it both send one. Under `nohup` none stops us.
    ///
    /// # Errors
    /// When the system does not let the signals be handled.
    pub fn on_signals() -> io::Result<Self> {
        let (stopper, stop) = Self::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _context = runtime.enter();
            let hangup = if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, hangup)
        };
        // The thread ends with the process.
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    let is_impatient = tokio::select! {
                        _ = interrupt.recv() => *stopper.0.borrow(),
                        _ = terminate.recv() => *stopper.0.borrow(),
                        () = next(&mut hangup) => false,
                    };
                    if is_impatient {
                        std::process::exit(EXIT_IMPATIENT);
                    }
                    stopper.stop();
                }
            });
        })?;
        Ok(stop)
    }

    /// Whether to stop.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is time to stop.
    pub async fn stopped(&mut self) {
        if self.0.wait_for(|stopped| *stopped).await.is_err() {
            // The stopper is gone without a word, so nobody will ever ask.
            std::future::pending::<()>().await;
        }
    }
}

/// The next of these signals, which may be none at all.
async fn next(signals: &mut Option<Signal>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether whoever started us wants us to outlive the terminal: `nohup` has SIGHUP ignored, and a handler would undo that. Linux
/// tells; where nothing tells it, nobody is taken to want it.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & SIGHUP_BIT != 0)
}
