//! What an operator reads of state sync.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lockstep_sync::state::Told;

/// Between two lines on the way, where nobody watches.
const EVERY: Duration = Duration::from_secs(2);

/// Places of the bar on a terminal.
const BAR: usize = 40;

/// When the last line was written.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

/// Tells: a bar on a terminal, lines elsewhere.
pub(super) fn tell(told: &Told) {
    match told {
        Told::Chosen { height, offered_by } => tracing::info!(height = height.get(), offered_by, "state sync: a snapshot was chosen"),
        Told::Progress { height, chunks, of, bytes } => progress(height.get(), *chunks, *of, *bytes),
        Told::GivenUp { height, reason } => tracing::warn!(height = height.get(), "state sync: this snapshot is given up: {reason}"),
        Told::FallsBack { reason } => tracing::info!("state sync: {reason}: blocks are fetched one by one instead"),
        Told::Waits { reason } => tracing::warn!("state sync: {reason}"),
        Told::Fails { reason } => tracing::error!("state sync: {reason}"),
    }
}

fn progress(height: u64, chunks: u32, of: u32, bytes: u64) {
    let mib = bytes >> 20;
    if std::io::stderr().is_terminal() {
        let filled = if of == 0 { BAR } else { BAR * chunks as usize / of as usize };
        let end = if chunks == of { "\n" } else { "" };
        eprint!("\rstate of height {height} [{}{}] {chunks}/{of} chunks, {mib} MiB{end}", "#".repeat(filled), " ".repeat(BAR - filled));
        return;
    }
    let mut last = LAST.lock().expect("no holder panics");
    if chunks == of || last.is_none_or(|last| last.elapsed() >= EVERY) {
        *last = Some(Instant::now());
        tracing::info!(height, chunks, of, mib, "state sync: chunks");
    }
}
