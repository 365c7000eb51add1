//! The program `lockstep`, as a library: `lockstep::main(app)` gives an author's own application the whole program.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     lockstep::main(std::sync::Arc::new(lockstep_app::Kv))
//! }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`home`] | the folder of a node: its files, made and read with every check |
//! | [`config`] | what is local to a node: one table of settings, from file, environment and flags |
//! | [`shell`] | runs the replica on real clocks, disks and sockets |
//! | [`backend`], [`metrics`] | what clients and operators see of it |
//! | [`exported`] | the file of an exported snapshot |
//! | [`error`] | what happened, what it means, what to do next; exit codes |
//! | `command` | the commands, one module each; `load` and `http` are their tools |

pub mod backend;
mod cli;
mod command;
pub mod config;
pub mod error;
pub mod exported;
pub mod home;
mod homes;
mod http;
mod load;
mod log;
pub mod metrics;
pub mod shell;
pub mod stop;

use std::panic;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

pub use command::bundle::Bundle;
pub use config::Config;
pub use error::{Exit, NodeError};
pub use home::Home;
pub use stop::StopSignal;

// The bugs that the simulator is tried with are no part of the program.
const _: () = assert!(!lockstep_types::planted::POSSIBLE && !lockstep_storage::planted::POSSIBLE && !lockstep_replica::planted::POSSIBLE);

/// Runs the program with an application, as the command line says. Its exit codes are those of [`Exit`], and 0.
pub fn main(app: Arc<dyn lockstep_app::Application>) -> ExitCode {
    pass_over_caught_panics();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are answers; the rest is wrong usage.
            let printed = answer.print();
            return match printed {
                _ if answer.use_stderr() => Exit::Usage.into(),
                Err(error) if command::is_failure(&error) => fail(&command::unwritten(&error)),
                _ => ExitCode::SUCCESS,
            };
        }
    };
    command::run(cli, app).map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

fn fail(error: &NodeError) -> ExitCode {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "error: {error}");
    error.exit().into()
}

/// redb panics over pages that rotted. The storage catches that and heals, or says what is damaged; the panic's own text would tell
/// an operator of a crash that is none.
fn pass_over_caught_panics() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.location().is_some_and(|place| place.file().contains("/redb-")) {
            tell(info);
        }
    }));
}
