//! What is told of catching up: that it began, how far it is, and that it ended.
//!
//! The replica says that it is behind as soon as a block is proven that it does not have, also when one block came a moment late.
//! An operator wants to read of a gap that takes a while. And the replica says that it is behind no longer when it has decided
//! the last block; here the end is told when readers see it.

use std::time::{Duration, Instant};

/// A gap that is worth a line.
const GAP_MIN: u64 = 10;
/// Between two lines on the way.
const EVERY: Duration = Duration::from_secs(5);

/// How far a node that is behind has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// While a gap is told of: the height where it began, and the last line.
    told: Option<Told>,
    /// The gap ends at this height.
    target: u64,
    /// Nothing more is missing than what is being published.
    ends: bool,
}

#[derive(Debug)]
struct Told {
    from: u64,
    began: Instant,
    last: (Instant, u64),
}

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Begins { at: u64, target: u64 },
    Goes { at: u64, target: u64, blocks_per_s: u64 },
    Ended { at: u64, blocks: u64, took: Duration },
}

impl Progress {
    /// The replica says whether it is behind, and how far there is proof of a chain.
    pub(crate) fn reported(&mut self, now: Instant, tip: u64, behind: bool, target: u64) -> Option<Line> {
        self.target = target;
        self.ends = !behind;
        if !behind {
            return self.committed(now, tip);
        }
        if self.told.is_some() || target.saturating_sub(tip) < GAP_MIN {
            return None;
        }
        self.told = Some(Told { from: tip, began: now, last: (now, tip) });
        Some(Line::Begins { at: tip, target })
    }

    /// Readers see a block.
    pub(crate) fn committed(&mut self, now: Instant, tip: u64) -> Option<Line> {
        let told = self.told.as_mut()?;
        if self.ends && tip >= self.target {
            let line = Line::Ended { at: tip, blocks: tip.saturating_sub(told.from), took: now.duration_since(told.began) };
            self.told = None;
            return Some(line);
        }
        let (last, before) = told.last;
        let passed = now.duration_since(last);
        if passed < EVERY {
            return None;
        }
        told.last = (now, tip);
        let blocks_per_s = tip.saturating_sub(before).saturating_mul(1_000) / u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        // What was proven when it began may be far behind what is proven now.
        Some(Line::Goes { at: tip, target: self.target.max(tip), blocks_per_s })
    }
}

impl Line {
    pub(crate) fn log(&self) {
        match self {
            Self::Begins { at, target } => tracing::info!(at, target, "catching up"),
            Self::Goes { at, target, blocks_per_s } => tracing::info!(at, target, blocks_per_s, "catching up"),
            Self::Ended { at, blocks, took } => tracing::info!(at, blocks, seconds = took.as_millis() as f64 / 1_000.0, "caught up"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_told_once_on_its_way_and_when_readers_see_its_end() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut progress = Progress::default();
        assert_eq!(progress.reported(at(0), 20, true, 1_020), Some(Line::Begins { at: 20, target: 1_020 }));
        assert_eq!(progress.reported(at(1), 90, true, 1_020), None, "it was told");
        assert_eq!(progress.committed(at(4), 400), None);
        assert_eq!(progress.committed(at(5), 520), Some(Line::Goes { at: 520, target: 1_020, blocks_per_s: 100 }));
        assert_eq!(progress.reported(at(7), 900, false, 1_030), None, "decided, and not seen by readers yet");
        assert_eq!(progress.committed(at(8), 1_029), None);
        let ended = Line::Ended { at: 1_030, blocks: 1_010, took: Duration::from_secs(8) };
        assert_eq!(progress.committed(at(8), 1_030), Some(ended));
        assert_eq!(progress.committed(at(60), 1_031), None, "nothing more");
    }

    #[test]
    fn a_block_that_came_late_is_no_gap() {
        let now = Instant::now();
        let mut progress = Progress::default();
        assert_eq!(progress.reported(now, 20, true, 21), None);
        assert_eq!(progress.committed(now, 21), None);
        assert_eq!(progress.reported(now, 21, false, 21), None);
    }

    #[test]
    fn a_gap_that_grows_in_the_middle_ends_once() {
        let now = Instant::now();
        let mut progress = Progress::default();
        assert!(progress.reported(now, 0, true, 100).is_some());
        assert_eq!(progress.reported(now, 90, false, 100), None);
        assert_eq!(progress.reported(now, 95, true, 150), None);
        assert_eq!(progress.committed(now, 100), None, "it is behind again");
        assert_eq!(progress.reported(now, 140, false, 150), None);
        assert_eq!(progress.committed(now, 150), Some(Line::Ended { at: 150, blocks: 150, took: Duration::ZERO }));
    }
}
