//! A request for blocks that is on its way, and what its answer must be before any validator is known.

use lockstep_types::Commit;
use lockstep_types::block::{BODY_BYTES_MAX, PARTS_MAX};
use lockstep_types::planted::{self, Bug};

use crate::client::{HOLD_MS, height};
use crate::seam::{BlameReason, Fetched};
use crate::server::{RESPONSE_BYTES_MAX, WHOLE_PARTS_MAX};

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) peer: u64,
    pub(crate) from: u64,
    pub(crate) count: u32,
    pub(crate) asked_at: u64,
    /// When a second peer is asked in any case.
    pub(crate) deadline: u64,
    /// When an answer is no longer expected at all.
    pub(crate) forget_at: u64,
    pub(crate) state: State,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody else is asked for its blocks.
    Due,
    /// Others may be asked, and nothing is held against the peer.
    Overtaken,
    /// The deadline has passed.
    Late,
}

impl Request {
    pub(crate) fn end(&self) -> u64 {
        self.from + u64::from(self.count)
    }

    /// Until when a peer that proved nothing yet may hold blocks that others are believed to have.
    pub(crate) fn hold_until(&self) -> u64 {
        self.asked_at.saturating_add(HOLD_MS)
    }

    pub(crate) fn is_due(&self) -> bool {
        self.state == State::Due
    }

    pub(crate) fn covers(&self, height: u64) -> bool {
        (self.from..self.end()).contains(&height)
    }

    /// What can be said of an answer without knowing any validator. Gives its bytes.
    pub(crate) fn check_answer(&self, blocks: &[Fetched]) -> Result<u64, BlameReason> {
        if blocks.len() > self.count as usize {
            return Err(BlameReason::TooMany { asked: self.count, found: blocks.len() });
        }
        let mut total = 0_u64;
        for (expected, block) in (self.from..).zip(blocks) {
            if block.commit.height.get() != expected && !planted::has(Bug::AnyHeightAnswers) {
                return Err(BlameReason::WrongHeight { expected: height(expected), found: block.commit.height });
            }
            if block.body.is_empty() || block.body.len() > BODY_BYTES_MAX {
                return Err(BlameReason::BadSize { bytes: block.body.len() as u64 });
            }
            total = total.saturating_add(block.bytes());
        }
        if blocks.len() > 1 && total > RESPONSE_BYTES_MAX {
            return Err(BlameReason::BadSize { bytes: total });
        }
        Ok(total)
    }

    /// What can be said of a certificate alone without knowing any validator.
    pub(crate) fn check_certificate(&self, commit: &Commit) -> Result<(), BlameReason> {
        if commit.height.get() != self.from {
            return Err(BlameReason::WrongHeight { expected: height(self.from), found: commit.height });
        }
        let parts = commit.block_id.parts.total;
        if parts > WHOLE_PARTS_MAX && parts <= PARTS_MAX { Ok(()) } else { Err(BlameReason::Withheld { parts }) }
    }
}
