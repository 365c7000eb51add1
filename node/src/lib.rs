//! The program `lockstep`, as a library.

pub mod config;
pub mod error;
pub mod home;
pub mod stop;

use std::process::ExitCode;
use std::sync::Arc;

pub use config::Config;
pub use error::{Exit, NodeError};
pub use home::Home;
pub use stop::StopSignal;

/// Runs the program with an application.
pub fn main(_app: Arc<dyn lockstep_app::Application>) -> ExitCode {
    ExitCode::SUCCESS
}
