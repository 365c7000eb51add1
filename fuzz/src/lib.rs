//! Fuzz targets: every decoder that takes bytes of peers, clients, operators or disks, and sequences of operations on the
//! stores over the simulated disk. `fuzz/README.md` says how to run them.
//!
//! The bodies are in [`targets`]. The workspace's own tests include the same file and replay the corpus through it, so that
//! what was ever found stays found without any fuzzer.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

pub mod targets;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes allocated so far.
pub fn meter() -> usize {
    ALLOCATOR.stats().bytes_allocated
}

/// Runs the target of this name.
///
/// # Panics
/// When there is none, and when the input breaks what the target promises.
pub fn run(name: &str, bytes: &[u8]) {
    targets::run(name, bytes, meter);
}
