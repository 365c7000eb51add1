//! What an operator reads of state sync.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lockstep_sync::state::Told;
use lockstep_types::Height;

/// Between two lines on the way, where nobody watches.
const EVERY: Duration = Duration::from_secs(2);

/// Places of the bar on a terminal.
const BAR: usize = 40;

/// What was told last: what comes to nothing is tried again and again, and told once.
static LAST: Mutex<Last> = Mutex::new(Last { line: None, chunks: None, chosen: None, given_up: None });

#[derive(Debug)]
struct Last {
    /// When the last line of chunks was written.
    line: Option<Instant>,
    /// Of which height how many chunks were there.
    chunks: Option<(Height, u32)>,
    chosen: Option<Height>,
    given_up: Option<(Height, String)>,
}

impl Last {
    /// Whether this is worth telling.
    fn is_news(&mut self, told: &Told) -> bool {
        match told {
            Told::Chosen { height, .. } => self.chosen.replace(*height) != Some(*height),
            Told::GivenUp { height, reason } => {
                let now = Some((*height, reason.clone()));
                let is_news = self.given_up != now;
                self.given_up = now;
                is_news
            }
            Told::Progress { height, chunks, .. } => {
                let is_news = self.chunks.replace((*height, *chunks)) != Some((*height, *chunks));
                if is_news && *chunks > 0 {
                    (self.chosen, self.given_up) = (Some(*height), None);
                }
                is_news
            }
            Told::FallsBack { .. } | Told::Waits { .. } | Told::Fails { .. } => true,
        }
    }
}

/// Tells: a bar on a terminal, lines elsewhere.
pub(super) fn tell(told: &Told) {
    // What is kept here is whole at any time.
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if !last.is_news(told) {
        return;
    }
    match told {
        Told::Chosen { height, offered_by } => tracing::info!(height = height.get(), offered_by, "state sync: a snapshot was chosen"),
        Told::Progress { height, chunks, of, bytes, blocks } => {
            progress(&mut last.line, height.get(), (*chunks, *of), *bytes, *blocks);
        }
        Told::GivenUp { height, reason } => tracing::warn!(height = height.get(), "state sync: this snapshot is given up: {reason}"),
        Told::FallsBack { reason } => tracing::info!("state sync: {reason}: blocks are fetched one by one instead"),
        Told::Waits { reason, .. } => tracing::warn!("state sync: {reason}"),
        Told::Fails { reason } => tracing::error!("state sync: {reason}"),
    }
}

fn progress(last: &mut Option<Instant>, height: u64, (chunks, of): (u32, u32), bytes: u64, blocks: u32) {
    let mib = bytes >> 20;
    if std::io::stderr().is_terminal() {
        let filled = if of == 0 { BAR } else { BAR * chunks as usize / of as usize };
        let end = if chunks == of { "\n" } else { "" };
        eprint!(
            "\rstate of height {height} [{}{}] {chunks}/{of} chunks, {blocks} blocks above, {mib} MiB{end}",
            "#".repeat(filled),
            " ".repeat(BAR - filled)
        );
        return;
    }
    if chunks == of || last.is_none_or(|last| last.elapsed() >= EVERY) {
        *last = Some(Instant::now());
        tracing::info!(height, chunks, of, blocks, mib, "state sync: chunks");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_to_nothing_again_and_again_is_told_once() {
        let height = |height: u64| Height::new(height).expect("small");
        let mut last = Last { line: None, chunks: None, chosen: None, given_up: None };
        let mut told = Vec::new();
        let mut attempt = |at: u64, chunks: u32, why: &str| {
            let height = height(at);
            let all = [
                Told::Chosen { height, offered_by: 1 },
                Told::Progress { height, chunks, of: 5, bytes: 0, blocks: 0 },
                Told::GivenUp { height, reason: why.to_owned() },
            ];
            told.push(all.iter().filter(|one| last.is_news(one)).count());
        };
        attempt(20, 0, "nobody has it");
        attempt(20, 0, "nobody has it");
        attempt(20, 0, "another reason");
        attempt(20, 0, "another reason");
        attempt(20, 1, "another reason");
        attempt(30, 0, "another reason");
        assert_eq!(told, [3, 0, 1, 0, 2, 3], "news of each attempt");
    }
}
