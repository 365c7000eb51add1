//! The program with the bundled applications, of which genesis names one. An author's own program is this file with another.

use std::process::ExitCode;
use std::sync::Arc;

/// Blocks are megabytes of small strings, made and dropped at every height by several threads: the system's allocator gives
/// their pages back each time and takes them anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    lockstep::main(Arc::new(lockstep_app::Bundled::default()))
}
