//! Parameters that all nodes of a chain share: CometBFT's groups, and our own.

use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

use crate::block::BODY_BYTES_MAX;
use crate::primitives::Hash;
use crate::proto::Message;
use crate::validators::VALIDATORS_MAX;

/// Milliseconds, as parameters carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// As a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Bounds of a block.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BlockParams {
    /// Largest body, in bytes: [`BLOCK_BYTES_MIN`] to [`BODY_BYTES_MAX`].
    pub max_bytes: i64,
    /// Most gas that a block's transactions may want; -1 for no bound.
    pub max_gas: i64,
}

/// How long misbehaviour can be punished.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EvidenceParams {
    /// Age in blocks after which evidence expires, when it is also older than the duration.
    pub max_age_num_blocks: u64,
    /// Age in nanoseconds after which evidence expires, when it is also older than the number of blocks.
    pub max_age_duration_ns: u64,
    /// Most bytes of evidence in a block.
    pub max_bytes: u64,
}

/// Wall clocks (proposer-based timestamps).
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct SynchronyParams {
    /// Honest clocks differ by at most half of this.
    pub precision: Millis,
    /// A proposal of round 0 arrives within this; each later round allows a tenth more.
    pub message_delay: Millis,
}

/// How long a step waits. All of round r; none is above the cap.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TimeoutParams {
    /// Propose, round 0.
    pub propose: Millis,
    /// Propose, added per round.
    pub propose_delta: Millis,
    /// Propose of round 0, when its proposer missed its last slot.
    pub propose_missed: Millis,
    /// Prevote and precommit, round 0.
    pub vote: Millis,
    /// Prevote and precommit, added per round.
    pub vote_delta: Millis,
    /// No timeout is longer. The network delay is assumed to stay under half of it.
    pub cap: Millis,
}

impl TimeoutParams {
    /// The propose timeout of a round.
    pub fn propose_at(&self, round: u32) -> Duration {
        self.at(self.propose, self.propose_delta, round)
    }

    /// The prevote and the precommit timeout of a round.
    pub fn vote_at(&self, round: u32) -> Duration {
        self.at(self.vote, self.vote_delta, round)
    }

    fn at(&self, base: Millis, delta: Millis, round: u32) -> Duration {
        Millis(delta.0.saturating_mul(u64::from(round)).saturating_add(base.0).min(self.cap.0)).duration()
    }
}

/// When blocks are made.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PaceParams {
    /// A height starts no sooner than this after the decision of the one before.
    pub min_block_interval: Millis,
    /// An empty block comes no sooner than this after the block before.
    pub empty_block_interval: Millis,
    /// How long a proposer waits for precommits beyond two thirds (G).
    pub gather: Millis,
}

/// Everything the nodes of a chain must share beside their validators.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ConsensusParams {
    /// Bounds of a block.
    pub block: BlockParams,
    /// Evidence window.
    pub evidence: EvidenceParams,
    /// `version.app`: a number for clients; headers carry the application's own.
    pub app_version: u64,
    /// First height with vote extensions; 0 for never. Kept for genesis files of CometBFT: only 0 is supported.
    pub vote_extensions_enable_height: u64,
    /// Clocks.
    pub synchrony: SynchronyParams,
    /// Timeouts.
    pub timeouts: TimeoutParams,
    /// Pace.
    pub pace: PaceParams,
}

/// A rule that parameters break. Genesis files and updates by transaction pass the same rules.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} is {value}: {rule}")]
pub struct ParamsError {
    /// Which parameter.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// What is asked of it.
    pub rule: &'static str,
}

/// Smallest `block.max_bytes`: a header and the commit of the largest validator set must fit, or no block could be built.
pub const BLOCK_BYTES_MIN: i64 = 65_536;
/// Bytes of one slot of a commit in a block's body: tag, address, time, signature.
const COMMIT_SLOT_BYTES: usize = 1 + 20 + 12 + 64;
const _: () = assert!((VALIDATORS_MAX * COMMIT_SLOT_BYTES + 4_096) as i64 <= BLOCK_BYTES_MIN);
const _: () = assert!(BLOCK_BYTES_MIN == 65_536 && BODY_BYTES_MAX == 104_857_600 && VALIDATORS_MAX == 512, "the text of the rule");

/// A day: no timeout or interval is longer.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Default for ConsensusParams {
    fn default() -> Self {
        Self {
            block: BlockParams { max_bytes: 22_020_096, max_gas: -1 },
            evidence: EvidenceParams { max_age_num_blocks: 1, max_age_duration_ns: 86_400_000_000_000, max_bytes: 1_048_576 },
            app_version: 0,
            vote_extensions_enable_height: 0,
            synchrony: SynchronyParams { precision: Millis(400), message_delay: Millis(2_000) },
            timeouts: TimeoutParams {
                propose: Millis(500),
                propose_delta: Millis(250),
                propose_missed: Millis(100),
                vote: Millis(200),
                vote_delta: Millis(100),
                cap: Millis(10_000),
            },
            pace: PaceParams { min_block_interval: Millis(20), empty_block_interval: Millis(10_000), gather: Millis(0) },
        }
    }
}

impl ConsensusParams {
    /// `consensus_hash`: `SHA-256(int(1, max_bytes) + int(2, max_gas))`; no other parameter enters.
    pub fn hash(&self) -> Hash {
        Hash::of(Message::new().int(1, self.block.max_bytes).int(2, self.block.max_gas).finish())
    }

    /// The delay that a proposal of a round may have: `message_delay` times 1.1 to the power of the round, at most a day.
    /// In integers, since it must not differ between machines, though it only moves our own prevote.
    pub fn message_delay_at(&self, round: u32) -> Duration {
        let mut micros = u128::from(self.synchrony.message_delay.0) * 1_000;
        let cap = u128::from(DAY_MS) * 1_000;
        for _ in 0..round {
            if micros >= cap {
                break;
            }
            micros = micros * 11 / 10 + 1;
        }
        Duration::from_micros(u64::try_from(micros.min(cap)).expect("at most a day"))
    }

    /// Every rule, one after the other.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), ParamsError> {
        let fail = |field, value: String, rule| Err(ParamsError { field, value, rule });
        let millis = [
            ("synchrony.precision", self.synchrony.precision, 1, 30_000, "1 ms to 30 s"),
            ("synchrony.message_delay", self.synchrony.message_delay, 1, DAY_MS, "1 ms to 24 h"),
            ("timeouts.propose", self.timeouts.propose, 1, DAY_MS, "1 ms to 24 h"),
            (
                "timeouts.propose_delta",
                self.timeouts.propose_delta,
                1,
                DAY_MS,
                "1 ms to 24 h: rounds that do not grow never meet a slow network",
            ),
            ("timeouts.propose_missed", self.timeouts.propose_missed, 1, DAY_MS, "1 ms to 24 h"),
            ("timeouts.vote", self.timeouts.vote, 1, DAY_MS, "1 ms to 24 h"),
            ("timeouts.vote_delta", self.timeouts.vote_delta, 1, DAY_MS, "1 ms to 24 h: rounds that do not grow never meet a slow network"),
            ("timeouts.cap", self.timeouts.cap, 1, DAY_MS, "1 ms to 24 h"),
            ("pace.min_block_interval", self.pace.min_block_interval, 0, DAY_MS, "0 to 24 h"),
            ("pace.empty_block_interval", self.pace.empty_block_interval, 0, DAY_MS, "0 to 24 h"),
            ("pace.gather", self.pace.gather, 0, DAY_MS, "0 to 24 h"),
        ];
        for (field, value, min, max, rule) in millis {
            if value.0 < min || value.0 > max {
                return fail(field, format!("{} ms", value.0), rule);
            }
        }
        let body_max = BODY_BYTES_MAX as i64;
        if self.block.max_bytes < BLOCK_BYTES_MIN || self.block.max_bytes > body_max {
            let rule = "65536 to 104857600 bytes: a header and the commit of 512 validators must fit";
            return fail("block.max_bytes", self.block.max_bytes.to_string(), rule);
        }
        if self.block.max_gas < -1 {
            return fail("block.max_gas", self.block.max_gas.to_string(), "-1 for no bound, or at least 0");
        }
        if self.evidence.max_age_num_blocks < 1 || self.evidence.max_age_num_blocks > i64::MAX as u64 {
            return fail("evidence.max_age_num_blocks", self.evidence.max_age_num_blocks.to_string(), "at least 1");
        }
        if self.evidence.max_age_duration_ns < 1 || self.evidence.max_age_duration_ns > i64::MAX as u64 {
            return fail("evidence.max_age_duration", self.evidence.max_age_duration_ns.to_string(), "at least 1 ns");
        }
        if self.evidence.max_bytes > self.block.max_bytes.unsigned_abs() {
            return fail("evidence.max_bytes", self.evidence.max_bytes.to_string(), "at most block.max_bytes");
        }
        if self.vote_extensions_enable_height != 0 {
            return fail(
                "abci.vote_extensions_enable_height",
                self.vote_extensions_enable_height.to_string(),
                "0: vote extensions are not supported",
            );
        }
        let longest_base = self.timeouts.propose.0.max(self.timeouts.vote.0).max(self.timeouts.propose_missed.0);
        if self.timeouts.cap.0 < longest_base {
            return fail("timeouts.cap", format!("{} ms", self.timeouts.cap.0), "at least the timeouts of round 0");
        }
        if self.timeouts.propose_missed > self.timeouts.propose {
            return fail("timeouts.propose_missed", format!("{} ms", self.timeouts.propose_missed.0), "at most timeouts.propose");
        }
        // The proposer may wait for clocks and for votes; others must still be waiting for it.
        if self.synchrony.precision.0 / 2 + self.pace.gather.0 >= self.timeouts.propose.0 {
            return fail(
                "timeouts.propose",
                format!("{} ms", self.timeouts.propose.0),
                "above synchrony.precision / 2 + pace.gather, or an honest proposer times out",
            );
        }
        if self.pace.empty_block_interval < self.pace.min_block_interval {
            return fail(
                "pace.empty_block_interval",
                format!("{} ms", self.pace.empty_block_interval.0),
                "at least pace.min_block_interval",
            );
        }
        Ok(())
    }
}
