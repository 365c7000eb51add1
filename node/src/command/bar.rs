//! How far a command is that takes a while: a bar on a terminal, a line now and then elsewhere, on the standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two drawings on a terminal.
const DRAWN: Duration = Duration::from_millis(100);
/// Between two lines elsewhere.
const QUIET: Duration = Duration::from_secs(5);
/// Places of the bar.
const WIDTH: usize = 20;

/// A bar from 0 to `of`.
pub(super) struct Bar {
    of: u64,
    unit: &'static str,
    is_terminal: bool,
    began: Instant,
    shown: Option<Instant>,
}

impl Bar {
    pub(super) fn new(of: u64, unit: &'static str) -> Self {
        Self { of, unit, is_terminal: io::stderr().is_terminal(), began: Instant::now(), shown: None }
    }

    /// Shows that so many are done, if it is time.
    pub(super) fn show(&mut self, done: u64) {
        let pause = if self.is_terminal { DRAWN } else { QUIET };
        if self.shown.unwrap_or(self.began).elapsed() < pause {
            return;
        }
        self.shown = Some(Instant::now());
        let line = in_words(done, self.of, self.unit, self.began.elapsed());
        // Whoever has no terminal any more misses nothing.
        let _ = if self.is_terminal {
            write!(io::stderr(), "\r\x1b[K{} {line}", drawn(done, self.of))
        } else {
            writeln!(io::stderr(), "{line}")
        };
    }

    /// Takes the bar away, and says how long it took.
    pub(super) fn end(self) -> Duration {
        if self.is_terminal && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        self.began.elapsed()
    }
}

fn drawn(done: u64, of: u64) -> String {
    let full = usize::try_from(done.saturating_mul(WIDTH as u64) / of.max(1)).unwrap_or(0);
    (0..WIDTH).map(|place| if place < full { '█' } else { '░' }).collect()
}

fn in_words(done: u64, of: u64, unit: &str, took: Duration) -> String {
    let rate = rate(done, took);
    let left = of.saturating_sub(done) as f64 / rate.max(0.001);
    format!("{done} of {of} {unit}, {rate:.0}/s, {left:.0} s left")
}

/// So many a second.
pub(super) fn rate(done: u64, took: Duration) -> f64 {
    done as f64 / took.as_secs_f64().max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_and_says_what_is_left() {
        assert_eq!(in_words(250, 1_000, "blocks", Duration::from_secs(10)), "250 of 1000 blocks, 25/s, 30 s left");
        assert_eq!(drawn(250, 1_000), "█████░░░░░░░░░░░░░░░");
        assert_eq!(drawn(0, 0), "░".repeat(WIDTH));
        assert_eq!(drawn(1_000, 1_000), "█".repeat(WIDTH));
    }
}
