//! The program with the bundled key-value application. An author's own program is this file with another application.

use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    lockstep::main(Arc::new(lockstep_app::Kv))
}
