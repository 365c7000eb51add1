//! Pieces of a start, done on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};

use lockstep_storage::spread::Spread;

/// Threads at most: the disk is one.
const THREADS_MAX: usize = 8;

/// One thread for each core, and each takes the next piece when it has done one.
pub(crate) struct OnCores;

impl Spread for OnCores {
    fn each(&self, pieces: usize, piece: &(dyn Fn(usize) + Sync)) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= pieces {
                    return;
                }
                piece(number);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..cores.min(THREADS_MAX).min(pieces) {
                scope.spawn(work);
            }
            work();
        });
    }
}
