//! Errors for the person at the terminal: what happened, what it means, what to do next.

use std::fmt;
use std::process::ExitCode;

/// How the program ends, for scripts. The numbers are part of its interface (`docs/operating.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for was not done, for a reason that has no number of its own.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A home, configuration, genesis or key file is refused.
    Refused = 3,
    /// Another process holds the home, or writes the same export, or a port is taken.
    InUse = 4,
    /// The node stopped by itself: its disk failed, or going on would not be safe.
    Halted = 5,
    /// What a node answered is not proven.
    Unproven = 6,
    /// No node answered.
    Unreachable = 7,
    /// The transaction was refused, or its commit was not seen in time.
    TxRefused = 8,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program, or the node in it, stops. Shown as up to three lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeError {
    exit: Exit,
    what: String,
    meaning: Option<String>,
    next: Option<String>,
}

impl NodeError {
    /// An error that says what happened.
    pub fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string(), meaning: None, next: None }
    }

    /// Says what it means, where what happened does not.
    #[must_use]
    pub fn means(mut self, meaning: impl fmt::Display) -> Self {
        self.meaning = Some(meaning.to_string());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl fmt::Display) -> Self {
        self.next = Some(next.to_string());
        self
    }

    /// How the program ends because of it.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(meaning) = &self.meaning {
            write!(f, "\n  meaning: {meaning}")?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  to do:   {next}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NodeError {}
