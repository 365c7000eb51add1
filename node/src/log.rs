//! Logs: to stderr, filtered, for people or for a collector.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Config, LogFormat};
use crate::error::{Exit, NodeError};

/// What stands before what the operator wrote, who may name it again. These libraries warn of every message and stream that is not
/// as they want it, and a peer can send millions of those: what we think of a peer, we say ourselves.
const QUIET: &str = "libp2p_gossipsub=off,libp2p_request_response=off,libp2p_yamux=off";

/// Starts logging as the configuration says. Once per process.
///
/// # Errors
/// When the process logs already, or the filter is refused.
pub(crate) fn start(config: &Config) -> Result<(), NodeError> {
    let failed = |error: &dyn std::fmt::Display| NodeError::new(Exit::Failed, format!("cannot start logging: {error}"));
    let filter = EnvFilter::try_new(filter(config.log_level.as_str())).map_err(|error| failed(&error))?;
    // A line that cannot be written is lost. To complain of it the library would write to the same place, and panic when that
    // fails too: a node must not die because a terminal was closed or the disk of its log is full.
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    match config.log_format {
        LogFormat::Plain => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| failed(&*error))
}

/// What is let through: what the operator wrote. Where that is the plain default, a line of libp2p at the start is left out which
/// names the node in libp2p's own way; ours names it as all else does.
fn filter(written: &str) -> String {
    if written.trim() == "info" { format!("{QUIET},info,libp2p_swarm=warn") } else { format!("{QUIET},{written}") }
}

#[cfg(test)]
mod tests {
    use super::{QUIET, filter};
    use tracing_subscriber::EnvFilter;

    #[test]
    fn the_default_hushes_the_swarm_and_nothing_else_does() {
        assert_eq!(filter("info"), format!("{QUIET},info,libp2p_swarm=warn"));
        for written in ["debug", "info,libp2p_swarm=info", "warn"] {
            assert_eq!(filter(written), format!("{QUIET},{written}"));
        }
    }

    /// What the operator names counts, also of what is quiet by itself.
    #[test]
    fn a_peer_cannot_fill_the_log_through_libraries_unless_the_operator_wants_to_see() {
        let shown = |written: &str| EnvFilter::try_new(filter(written)).expect("a good filter").to_string();
        assert!(shown("debug").contains("libp2p_gossipsub=off"));
        let asked = shown("info,libp2p_gossipsub=debug");
        assert!(asked.contains("libp2p_gossipsub=debug") && !asked.contains("libp2p_gossipsub=off"), "{asked}");
    }
}
