//! The thresholds, and nothing else compares power with power.
//!
//! With n validators of total power T of which less than T/3 is faulty: any two sets with more than 2T/3 share a correct
//! validator (safety), and any set with more than T/3 contains one (skipping a round). Multiplied, never divided, so
//! nothing is rounded away.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::primitives::{Power, TOTAL_POWER_MAX};

/// The fault model of a chain, and with it its thresholds. A crash-only chain (n > 2f) can be offered beside this one
/// without touching those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Quorum {
    /// Less than a third of the power may do anything at all: n > 3f.
    Byzantine = 1,
}

impl Quorum {
    /// More than two thirds: a polka, a commit certificate.
    pub fn is_quorum(self, power: Power, total: Power) -> bool {
        assert!(power <= total, "a part is not larger than the whole");
        assert!(total.get() <= TOTAL_POWER_MAX, "three times the total fits a u64");
        match self {
            Self::Byzantine => power.get() * 3 > total.get() * 2,
        }
    }

    /// More than a third: at least one of them is correct. Enough to skip to a round, never to decide.
    pub fn has_correct(self, power: Power, total: Power) -> bool {
        assert!(power <= total, "a part is not larger than the whole");
        assert!(total.get() <= TOTAL_POWER_MAX, "three times the total fits a u64");
        match self {
            Self::Byzantine => power.get() * 3 > total.get(),
        }
    }
}
