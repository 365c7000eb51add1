//! When to stop: a signal from outside, once, seen by everyone who holds a [`StopSignal`].

use std::io;
use std::thread;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How the program ends when a second signal does not let it finish: 128 and the number of SIGINT, as shells count.
const EXIT_IMPATIENT: i32 = 130;

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

    /// The signal that SIGINT (Ctrl-C) and SIGTERM give. A second one ends the process at once: everything that must
    /// survive is on the disk by then.
    ///
    /// # Errors
    /// When the system does not let the signals be handled.
    pub fn on_signals() -> io::Result<Self> {
        let (stopper, stop) = Self::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let (mut interrupt, mut terminate) = {
            let _context = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        // The thread ends with the process.
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if *stopper.0.borrow() {
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
