//! The folder `audit` of a home: a file for each height at which it diverged, and a report beside it once it has healed.
//!
//! `HEIGHT.found` is written and synced before the home is opened again, and `HEIGHT.txt` when its state agrees with what was found: a
//! finding without a report is one to be healed. A file that does not verify counts as not there; then the home is opened as after any
//! crash, and what is still wrong is found again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use lockstep_storage::DiskError;
use lockstep_storage::disk::Disk;
use lockstep_types::{Height, codec};

use super::finding::{Finding, Proof};
use super::trace::{Difference, TRACE_BYTES_MAX, Trace};
use crate::state_sync::files::{Folder, sealed, unsealed};

/// Where they lie in a home.
pub const AUDIT_PATH: &str = "audit";

/// First byte of a file, behind its digest.
const VERSION: u8 = 1;
/// Most bytes of a file: a trace and the certificate of the largest set.
const BYTES_MAX: usize = TRACE_BYTES_MAX + (1 << 20);

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Found {
    finding: Finding,
    trace: Option<Trace>,
}

fn found_name(height: Height) -> String {
    format!("{:020}.found", height.get())
}

fn report_name(height: Height) -> String {
    format!("{:020}.txt", height.get())
}

/// The height in a name with this ending.
fn height_in(name: &str, ending: &str) -> Option<Height> {
    let digits = name.strip_suffix(ending).filter(|digits| digits.len() == 20)?;
    digits.parse().ok().and_then(Height::new)
}

/// Keeps a finding, durably, with what this node made of the block.
///
/// # Errors
/// When the disk fails.
pub fn keep(disk: Arc<dyn Disk>, finding: &Finding, trace: Option<Trace>) -> Result<(), DiskError> {
    let folder = Folder::new(disk, AUDIT_PATH);
    let trace = trace.filter(|trace| trace.height() == finding.height());
    let name = found_name(finding.height());
    folder.write(&name, &sealed(&codec::encode(VERSION, &Found { finding: finding.clone(), trace })))?;
    folder.sync(&name)?;
    folder.sync_names()
}

/// A finding that its home agrees with now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The height.
    pub height: Height,
    /// For people: what differed, and what was done.
    pub report: String,
    /// The file that holds it.
    pub path: String,
}

/// What lies in the folder, as an opening of the home finds it.
pub struct Shelf {
    folder: Folder,
    /// Every height that was found, healed or not.
    heights: Vec<Height>,
    /// Those that are to be healed.
    open: BTreeMap<Height, Found>,
    /// What executing their blocks again showed.
    differences: BTreeMap<Height, Difference>,
}

impl Shelf {
    /// Reads it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, DiskError> {
        let folder = Folder::new(disk, AUDIT_PATH);
        let names = folder.names()?;
        let mut heights: Vec<Height> = names.iter().filter_map(|name| height_in(name, ".found")).collect();
        let mut open = BTreeMap::new();
        for height in heights.iter().filter(|height| !names.contains(&report_name(**height))) {
            let bytes = folder.read(&found_name(*height), BYTES_MAX)?;
            let found = bytes.as_deref().and_then(unsealed).and_then(|bytes| codec::decode::<Found>(VERSION, bytes, BYTES_MAX).ok());
            open.extend(found.filter(|found| found.finding.height() == *height).map(|found| (*height, found)));
        }
        // What was never read was never healed: found again, it is found for the first time.
        heights.retain(|height| open.contains_key(height) || names.contains(&report_name(*height)));
        Ok(Self { folder, heights, open, differences: BTreeMap::new() })
    }

    /// Every height at which this home diverged.
    pub fn heights(&self) -> &[Height] {
        &self.heights
    }

    /// What is to be healed, by height.
    pub fn to_heal(&self) -> impl Iterator<Item = &Finding> {
        self.open.values().map(|found| &found.finding)
    }

    /// The finding of a height that is to be healed.
    pub fn at(&self, height: Height) -> Option<&Finding> {
        self.open.get(&height).map(|found| &found.finding)
    }

    /// Remembers how a block that was executed again differs from what this node had made of it.
    pub fn executed_again(&mut self, height: Height, right: &Trace, touches: impl Fn(usize, &[&[u8]]) -> bool) {
        if let Some(wrong) = self.open.get(&height).and_then(|found| found.trace.as_ref()) {
            self.differences.insert(height, wrong.compare(right, touches));
        }
    }

    /// The home agrees with all that was found: a report for each, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settle(&mut self, how: &[String]) -> Result<Vec<Settled>, DiskError> {
        let mut settled = Vec::new();
        for (height, found) in std::mem::take(&mut self.open) {
            let report = report(&found.finding, self.differences.get(&height), how);
            let name = report_name(height);
            self.folder.write(&name, report.as_bytes())?;
            self.folder.sync(&name)?;
            settled.push(Settled { height, report, path: format!("{AUDIT_PATH}/{name}") });
        }
        if !settled.is_empty() {
            self.folder.sync_names()?;
        }
        Ok(settled)
    }
}

/// What a person reads.
fn report(finding: &Finding, difference: Option<&Difference>, how: &[String]) -> String {
    let mut text = format!("the state of this node after height {} was not the chain's\n\n", finding.height());
    let ours = &finding.ours;
    // Writing to a text does not fail.
    let _ = writeln!(text, "here:       root {}, results {}, the rest {}", ours.root, ours.results, ours.rest);
    match &finding.proof {
        Proof::Header { header, commit } => {
            let _ = writeln!(text, "the chain:  root {}, results {}", header.app_hash, header.last_results_hash);
            let signers = commit.signatures.iter().filter(|sig| sig.is_for_block()).count();
            let _ = writeln!(
                text,
                "proven by:  the decided header {} of height {}, signed by {signers} validators",
                header.hash(),
                header.height
            );
        }
        Proof::Statements(statements) => {
            if let Some(theirs) = statements.first().map(|signed| &signed.statement) {
                let _ = writeln!(text, "the chain:  root {}, results {}, the rest {}", theirs.root, theirs.results, theirs.rest);
            }
            let who: Vec<String> = statements.iter().map(|signed| signed.validator.to_string()).collect();
            let _ = writeln!(text, "proven by:  statements of {}", who.join(", "));
        }
    }
    text.push('\n');
    match difference {
        Some(difference) => text.push_str(&difference.to_string()),
        None => text.push_str("the block was not executed again, or nothing was kept of its first execution\n"),
    }
    text.push('\n');
    match how {
        [] => text.push_str("healed by executing the block log from the state that was on the disk\n"),
        steps => steps.iter().for_each(|step| text.push_str(&format!("{step}\n"))),
    }
    text
}
