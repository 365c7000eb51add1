//! A failure that was found once, as a file that is run for ever.

use serde::{Deserialize, Serialize};

use crate::schedule::Schedule;

/// A failure made small: what broke, and the schedule that breaks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regression {
    /// Which invariant.
    pub invariant: String,
    /// What was seen.
    pub what: String,
    /// What was wrong and is mended, in a person's words; empty until somebody knows.
    #[serde(default)]
    pub about: String,
    /// The bug of the bank (`lockstep_sim::bank`) that it shows, where that is planted again; none for one that is not in the bank.
    #[serde(default)]
    pub planted: Option<String>,
    /// How to break it.
    pub schedule: Schedule,
}

impl Regression {
    /// As JSON.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a schedule has no map with odd keys");
        text.push('\n');
        text
    }

    /// Reads what [`Regression::to_json`] wrote.
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}
